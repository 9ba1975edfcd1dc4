"""
Copies of values that handlers emit or return, for the reactor's thread, which encodes them later.
"""

from __future__ import annotations

from typing import Any

__all__ = ["copied"]


def copied(value: Any) -> Any:
    """
    Copy the lists and dictionaries of a JSON value, all the way down.

    The reactor's thread encodes a handler's result a moment after the handler has returned; other handlers
    may change the value in between.
    """
    kind = value.__class__
    if kind is dict:
        return {key: copied(item) for key, item in list(value.items())}
    if kind is list:
        return [copied(item) for item in value.copy()]
    if kind is tuple:
        return tuple([copied(item) for item in value])
    if kind is bytearray:
        return bytes(value)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in list(value.items())}
    if isinstance(value, list):
        return [copied(item) for item in list(value)]
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value
