"""
Settings of Sphinx. The pages are reStructuredText; tests/test_docs.py runs their code blocks.
"""

import re
import subprocess
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


READABLE = {
    # The captions of the navigation are headings.
    'role="heading">': 'role="heading" aria-level="2">',
    # A block or table that is wider than the window scrolls by the keyboard too.
    "<pre>": '<pre tabindex="0">',
    '(class="table-wrapper[^"]*")>': r'\1 tabindex="0">',
    # Two landmarks of one kind have names; links are in a landmark.
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<div class="content-icon-container">': '<div class="content-icon-container" role="navigation" '
    'aria-label="This page">',
}
"""What the theme's pages lack for readers of a screen, by axe-core: pattern -> text."""


def makeReadable(app: Sphinx, error: Exception | None) -> None:
    """
    Mend the pages of the theme; a page that is mended stays as it is.
    """
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            before = text = page.read_text()
            for lacking, mended in READABLE.items():
                text = re.sub(lacking, mended, text)
            if text != before:
                page.write_text(text)


def addUnreleased(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the changes since the last release to the news, from the fragments."""
    root = Path(__file__).parent.parent
    if page == "news" and any((root / "docs" / "newsfragments").rglob("+*.rst")):
        command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", release]
        draft = subprocess.run(
            [*command, "--date", "unreleased"], cwd=root, check=True, text=True, stdout=subprocess.PIPE
        )
        source[0] += f"\n{draft.stdout}"


def setup(app: Sphinx) -> None:
    app.connect("source-read", addUnreleased)
    # Fragments come and go while the page itself stays as it is.
    app.connect("env-get-outdated", lambda *_: ["news"])
    app.connect("autodoc-process-docstring", describeSettings)
    app.connect("build-finished", makeReadable)
