"""
Connection state recovery: the offset that a server appends to its events.

A server with recovery gives each client a ``pid``, and adds one more argument to the events that it may
replay: the event's offset.  The protocol does not mark the offset.  The servers of txrealtime name the
beginning of their offsets when they admit a client.  All other known servers build an offset from the time of
the event, so a text is taken for one only if it has one of their forms and its time is near.  Other texts at
the end of an event reach its handler.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Recovery", "offsetTime"]

# Node's adapter in memory: milliseconds in base 64, and a number for further events of the same millisecond.
_DIGITS: Final = {
    digit: value
    for value, digit in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_")
}
_YEAST: Final = re.compile(r"([0-9A-Za-z_-]{7})(?:\.[0-9A-Za-z_-]{1,8})?", re.ASCII)

# Redis Streams: milliseconds and a number.
_STREAM: Final = re.compile(r"(\d{13})-\d{1,19}", re.ASCII)

# MongoDB: an ObjectId, which begins with seconds.
_OBJECT_ID: Final = re.compile(r"([0-9a-f]{8})[0-9a-f]{16}", re.ASCII)

_SHORTEST: Final = 7
_LONGEST: Final = 64

# Seconds by which the clocks of server and client may differ.
_NEAR: Final = 86400.0


def offsetTime(text: str) -> float | None:
    """Return the time in an offset, in seconds since 1970, or ``None`` if the text is no offset."""
    if (match := _YEAST.fullmatch(text)) is not None:
        milliseconds = 0
        for digit in match[1]:
            milliseconds = milliseconds * 64 + _DIGITS[digit]
        return milliseconds / 1000
    if (match := _STREAM.fullmatch(text)) is not None:
        return int(match[1]) / 1000
    if (match := _OBJECT_ID.fullmatch(text)) is not None:
        return float(int(match[1], 16))
    return None


def _epochOf(offset: str) -> str:
    """Return the beginning of all offsets of one log, without its place on the bus."""
    return offset.rpartition("-")[0].partition(".")[0]


class Recovery:
    """
    The state of one namespace that a server can restore.

    :ivar isOffered: true if the server can restore the state of this connection.
    :param now: the time of day in seconds since 1970.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._pid: str | None = None
        self._offset: str | None = None
        self._epoch: str | None = None
        self.isOffered = False

    def auth(self, auth: Any) -> Any:
        """Add the state to the auth value of a CONNECT; fields of the application replace it."""
        if self._pid is None:
            return auth
        state = {"pid": self._pid}
        if self._offset is not None:
            state["offset"] = self._offset
        return {**state, **(auth or {})}

    def admitted(self, pid: Any, offset: Any = None) -> bool:
        """
        Called with the ``pid`` of the server's answer, if it has one.

        :param offset: that of the newest event, from servers of txrealtime.
        :return: ``True`` if the server has restored the state.
        """
        pid = pid if isinstance(pid, str) else None
        self._epoch = _epochOf(offset) if isinstance(offset, str) else None
        self.isOffered = pid is not None
        recovered = pid is not None and pid == self._pid
        if not recovered:
            # An offset of another pid would make the next recovery fail.
            self._pid, self._offset = pid, None
        return recovered

    def stripped(self, args: list[Any]) -> list[Any]:
        """Keep the offset of an event without an ack, and return the event's arguments without it."""
        if self._pid is None or not args:
            return args
        last = args[-1]
        if last.__class__ is not str or not _SHORTEST <= len(last) <= _LONGEST:
            return args
        if self._epoch is not None:
            head, _, number = last.rpartition("-")
            if head.partition(".")[0] != self._epoch or not number.isdecimal():
                return args
            self._offset = last
            return args[:-1]
        seconds = offsetTime(last)
        if seconds is None or abs(seconds - self._now()) > _NEAR:
            return args
        self._offset = last
        return args[:-1]
