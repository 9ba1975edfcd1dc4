"""
The choice between a function in Python and the same in C.

The innermost loops are written twice: in Python, where they belong, marked by :func:`accelerated`, and
under the same name in ``_speedups.c``.  The C is built if there is a compiler when the package is
installed, and never needed.  The results are the same; the function in Python is the reference.

``TXREALTIME_PURE=1`` in the environment leaves the C out, and orjson too: Python alone runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Final, TypeVar

__all__ = ["REFERENCES", "accelerated", "isAccelerated", "isPure"]

_F = TypeVar("_F", bound=Callable[..., Any])

REFERENCES: Final[dict[str, Callable[..., Any]]] = {}
"""The functions in Python, by name."""


isPure: Final = os.environ.get("TXREALTIME_PURE", "") not in ("", "0")
"""``True`` if the environment asks for Python alone."""


def _built() -> ModuleType | None:
    if isPure:
        return None
    try:
        return import_module("txrealtime._speedups")
    except ImportError:
        return None


_module: Final = _built()

isAccelerated: Final = _module is not None
"""``True`` if functions in C are used."""


def accelerated(reference: _F) -> _F:
    """Return the function in C of the same name, or the reference if C is not built or not wanted."""
    name = reference.__name__
    REFERENCES[name] = reference
    chosen: _F = getattr(_module, name, reference)
    return chosen
