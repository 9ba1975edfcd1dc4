"""
Copies of what handlers give away, for a thread that looks at it later.
"""

from __future__ import annotations

from typing import Any

__all__ = ["snapshot"]


def snapshot(value: Any) -> Any:
    """
    A copy of a JSON value's lists and dictionaries, all the way down.

    What a handler returns is encoded by the reactor's thread a moment later; meanwhile other handlers may
    go on changing it.
    """
    kind = value.__class__
    if kind is dict:
        return {key: snapshot(item) for key, item in list(value.items())}
    if kind is list:
        return [snapshot(item) for item in value.copy()]
    if kind is tuple:
        return tuple([snapshot(item) for item in value])
    if kind is bytearray:
        return bytes(value)
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in list(value.items())}
    if isinstance(value, list):
        return [snapshot(item) for item in list(value)]
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value
