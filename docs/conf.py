"""
Sphinx's settings. The pages are reStructuredText; their code blocks are run by tests/test_docs.py.
"""

from txrealtime._version import __version__

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
