"""
``txrealtime completion``: a script with which a shell completes the commands and options of ``txrealtime``.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

import shtab

from txrealtime.monitor.output import FORMATS, LEVELS
from txrealtime.service.options import ServeOptions

__all__ = ["SHELLS", "script"]

SHELLS: Final = ("bash", "zsh", "fish")

_FILES: Final = {"admin-auth"}
_FOLDERS: Final = {"static", "admin-ui", "client"}
_CHOICES: Final = {
    "log-level": LEVELS,
    "log-format": tuple(FORMATS),
    "parser": ("json", "msgpack"),
    "admin-mode": ("production", "development"),
    "transport": ("polling", "websocket"),
}


def script(parser: argparse.ArgumentParser, serve: argparse.ArgumentParser, shell: str) -> str:
    """
    Return the script for a shell.

    :param parser: the parser of all commands.
    :param serve: the one of ``serve``, whose options are added to it.
    """
    _addOptions(serve)
    text: str = shtab.complete(parser, shell)
    return text


def _addOptions(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``txrealtime serve``, for which ``twistd`` has a parser of its own."""
    options = ServeOptions()
    for entry in sorted(options.longOpt):
        name = entry.rstrip("=")
        # A line breaks in a docstring where one breaks in the source.
        text = " ".join(options.docs[name].split()).replace("%", "%%")
        if name == entry:
            parser.add_argument(f"--{name}", action="store_true", help=text)
            continue
        argument: Any = parser.add_argument(f"--{name}", help=text, choices=_CHOICES.get(name))
        if name in _FILES:
            argument.complete = shtab.FILE
        elif name in _FOLDERS:
            argument.complete = shtab.DIRECTORY
