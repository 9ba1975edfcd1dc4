"""
Sphinx's settings. The pages are reStructuredText; their code blocks are run by tests/test_docs.py.
"""

from dataclasses import fields
from typing import Any

from sphinx.application import Sphinx

from txrealtime import Settings, __version__

project = "txrealtime"
author = "the txrealtime developers"
copyright = "2026, the txrealtime developers"
version = release = __version__

extensions = ["sphinx.ext.autodoc"]
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
