"""
Settings of Sphinx. The pages are reStructuredText; tests/test_docs.py runs their code blocks.
"""

import sys
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
