"""
Values through the JSON module that an application has given, which may know more types.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from secrets import token_hex
from typing import Any, Final

from flask import Flask

__all__ = ["JSONModule"]

# With a number, a text that stands for bytes: nobody else knows it.
_MARK: Final = token_hex()


class JSONModule:
    """
    A module with ``dumps`` and ``loads``.

    Only one side of each passage is the module's: what its ``dumps`` makes of a date its own ``loads``
    might turn into a date again.  It needs to know nothing of bytes, which go around it.

    :param app: in whose context it works, where there is one.
    """

    def __init__(self, module: Any, app: Flask | None) -> None:
        self._module = module
        self._app = app

    def plain(self, value: Any) -> Any:
        """A copy of a value to be sent: of what JSON has, and bytes."""
        return self._pass(value, self._module.dumps, json.loads)

    def revived(self, value: Any) -> Any:
        """A value that has come, as the module reads it."""
        return self._pass(value, json.dumps, self._module.loads)

    def _pass(self, value: Any, dumps: Callable[[Any], Any], loads: Callable[[Any], Any]) -> Any:
        attachments: list[bytes] = []
        try:
            bare = _bare(value, attachments)
        except RecursionError:
            raise ValueError("cannot send a value that contains itself, or is nested too deeply") from None
        with nullcontext() if self._app is None else self._app.app_context():
            copy = loads(dumps(bare))
        if attachments:
            copy = _filled(copy, attachments)
        # Several arguments are not one list.
        return tuple(copy) if isinstance(value, tuple) and isinstance(copy, list) else copy


def _bare(value: Any, attachments: list[bytes]) -> Any:
    """A copy of lists and dictionaries in which texts stand for the bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        attachments.append(bytes(value))
        return f"{_MARK}{len(attachments) - 1}"
    if isinstance(value, dict):
        return {key: _bare(item, attachments) for key, item in list(value.items())}
    # A tuple with names may be an object to the module.
    if isinstance(value, list) or value.__class__ is tuple:
        return [_bare(item, attachments) for item in list(value)]
    return value


def _filled(value: Any, attachments: list[bytes]) -> Any:
    """The bytes in place of what stands for them."""
    if isinstance(value, str):
        return attachments[int(value[len(_MARK) :])] if value.startswith(_MARK) else value
    if isinstance(value, dict):
        return {key: _filled(item, attachments) for key, item in value.items()}
    return [_filled(item, attachments) for item in value] if isinstance(value, list) else value
