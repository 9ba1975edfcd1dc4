"""
Memory that is given back to the system after a burst.

glibc keeps freed blocks below 128 kB for later, and Python frees most messages as such.  After 150 slow
readers with 7 MB each had gone, a process kept 1.1 GB of which 76 MB were in use.  So once a minute the
free memory is looked at, and if it is much the C library is told to return it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.task import LoopingCall

from txrealtime.logs import Logger

__all__ = ["Trimming", "freeBytes", "trim"]

_log = Logger()

_SECONDS: Final = 60.0

# Bytes.  To return 1 GB takes some 100 ms, in which nobody is served, so it has to be worth it.
_WORTH: Final = 128 * 1024 * 1024


class _MallocInfo(ctypes.Structure):
    """The struct mallinfo2 of glibc 2.33: ten numbers, of which the ninth, fordblks, is the free bytes."""

    _fields_ = (*((f"other{n}", ctypes.c_size_t) for n in range(8)), ("fordblks", ctypes.c_size_t))
    _fields_ += (("keepcost", ctypes.c_size_t),)


try:
    _library = ctypes.CDLL(None)
    _library.mallinfo2.restype = _MallocInfo
    _library.malloc_trim.argtypes = [ctypes.c_size_t]
except (AttributeError, OSError):
    # Another C library, such as musl or that of macOS: these return memory by themselves, or cannot.
    _library = None  # type: ignore[assignment]


def freeBytes() -> int:
    """Return the bytes that the C library holds and the program does not use; 0 if it does not tell."""
    return 0 if _library is None else int(_library.mallinfo2().fordblks)


def trim() -> None:
    """Return free memory to the system."""
    if _library is not None:
        _library.malloc_trim(0)


class Trimming:
    """
    A look at the free memory once a minute.

    :param free: returns the free bytes.
    :param trim: returns them to the system.
    """

    def __init__(
        self, reactor: Any, free: Callable[[], int] = freeBytes, trim: Callable[[], None] = trim
    ) -> None:
        self._free = free
        self._trim = trim
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin; the first look is in a minute."""
        if not self._loop.running:
            self._loop.start(_SECONDS, now=False)

    def stop(self) -> None:
        """End."""
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        before = self._free()
        if before < _WORTH:
            return
        self._trim()
        _log.debug("{bytes} bytes were free and go back to the system", bytes=before)
