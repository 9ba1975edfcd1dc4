"""
Settings of Sphinx. The pages are reStructuredText; tests/test_docs.py runs their code blocks.
"""

import sys
from configparser import ConfigParser
from dataclasses import fields
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from txrealtime import Settings, __version__

sys.path.insert(0, str(Path(__file__).parent))  # where drawing.py is

project = "txrealtime"
author = "the txrealtime developers"
copyright = "2026, the txrealtime developers"
version = release = __version__

extensions = ["drawing", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "newsfragments"]
html_theme = "furo"
html_title = f"txrealtime {release}"
html_favicon = html_logo = "../txrealtime/chat/static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]

# The addresses are written once, in setup.cfg.
_metadata = ConfigParser()
_metadata.read(Path(__file__).parent.parent / "setup.cfg")
_urls = dict(line.split(" = ") for line in _metadata["metadata"]["project_urls"].strip().splitlines())
html_baseurl = _urls["Documentation"]
# The link to edit a page, on each page.
html_theme_options = {
    "source_repository": _urls["Source"],
    "source_branch": "main",
    "source_directory": "docs/",
}
# Links inside of the documentation; a checker of CI has no network for others.
linkcheck_ignore = [r"https?://"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
highlight_language = "none"


def describeSettings(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]
) -> None:
    """
    Add the help text that each setting carries.
    """
    if documented is Settings:
        lines += ["", *(f":param {field.name}: {field.metadata['help']}" for field in fields(Settings))]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", describeSettings)
