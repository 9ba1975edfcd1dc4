"""
Conversion of values by the JSON module of an application, which may know more types than JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from secrets import token_hex
from typing import Any, Final

from flask import Flask

__all__ = ["JSONModule"]

# This and a number replace bytes in the text.  No client can know the mark, so none can forge one.
_MARK: Final = token_hex()


class JSONModule:
    """
    A module with ``dumps`` and ``loads``.

    Values to be sent pass through the module's ``dumps`` and the standard ``loads``: the module's own
    ``loads`` might turn its form of a date back into a date.  Received values pass the other way round.
    Bytes go around the module, which need not know them.

    :param app: the application in whose context the module runs, if there is one.
    """

    def __init__(self, module: Any, app: Flask | None) -> None:
        self._module = module
        self._app = app

    def plain(self, value: Any) -> Any:
        """Return a copy of a value to be sent, made of JSON's types and bytes."""
        return self._pass(value, self._module.dumps, json.loads)

    def revived(self, value: Any) -> Any:
        """Return a received value as the module reads it."""
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
        # A tuple stands for several arguments, a list for one.
        return tuple(copy) if isinstance(value, tuple) and isinstance(copy, list) else copy


def _bare(value: Any, attachments: list[bytes]) -> Any:
    """Copy a value with marks in place of bytes, and collect the bytes in `attachments`."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        attachments.append(bytes(value))
        return f"{_MARK}{len(attachments) - 1}"
    if isinstance(value, dict):
        return {key: _bare(item, attachments) for key, item in list(value.items())}
    # The module may have a form of its own for a named tuple.
    if isinstance(value, list) or value.__class__ is tuple:
        return [_bare(item, attachments) for item in list(value)]
    return value


def _filled(value: Any, attachments: list[bytes]) -> Any:
    """Put the bytes back in place of their marks."""
    if isinstance(value, str):
        return attachments[int(value[len(_MARK) :])] if value.startswith(_MARK) else value
    if isinstance(value, dict):
        return {key: _filled(item, attachments) for key, item in value.items()}
    return [_filled(item, attachments) for item in value] if isinstance(value, list) else value
