"""
A logger for events that clients cause.

A client chooses the text that it sends, and how often a handler fails on it.  So the values of an event
cannot control the terminal of a reader or begin a new line, and a failure that repeats is counted
instead of being shown each time: 30 bytes from a client are 1.6 kB of traceback.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

import twisted.logger
from twisted.logger import LogLevel
from twisted.python.failure import Failure

__all__ = ["Logger", "Repeats", "printable", "printableLines", "repeats"]

# C0 with DEL, C1 (0x9B is an ESC [ of one character), and the two line ends of Unicode.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_NO_LOOP: Final = (
    "no running event loop",
    "There is no current event loop",
    "await of a Future of asyncio",
    "unknown async library",
)
"""Beginnings of the errors of asyncio's libraries outside of its event loop."""

_ASYNCIO: Final = (
    "; libraries of asyncio need the asyncio reactor (--reactor asyncio), and work in its thread only"
)

_ALL_SHOWN: Final = 10
"""Lines of one kind within a minute that are all shown."""


def printable(text: str) -> str:
    r"""Return a text with its control characters as Python writes them in a string, such as ``\x1b``."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def printableLines(text: str) -> str:
    """Return a text of several lines, such as a traceback, with each line printable."""
    return "\n".join(map(printable, text.split("\n")))


class _PrintableFailure(Failure):
    """
    A failure whose traceback has printable lines: the text of an exception may be a client's.
    """

    def __init__(self, failure: Failure) -> None:
        vars(self).update(vars(failure))

    def getTraceback(self, *args: Any, **options: Any) -> str:
        return printableLines(super().getTraceback(*args, **options))


class Repeats:
    """
    The failures of late, to tell a new one from a repetition.

    Failures are the same if they have one type and came the same way through the code.  Clients cannot
    choose either, so there are few.

    :param seconds: the clock.
    :ivar window: seconds after which the next failure is a new one; with 0 each is.
    """

    MOST: Final = 1000
    "Kinds of failures; beyond these all are forgotten."

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self.window = 60.0
        self._seconds = seconds
        self._kinds: dict[object, tuple[float, int]] = {}

    def count(self, format: str, failure: Failure) -> int:
        """Count a failure, and return its number among those of its kind in this minute, from 1."""
        return self.number((format, failure.type, _wayOf(failure)))

    def number(self, kind: object) -> int:
        """Count a line of the log, and return its number among those of its kind in this minute, from 1."""
        now = self._seconds()
        since, number = self._kinds.get(kind, (now, 0))
        if now - since >= self.window:
            since, number = now, 0
        if len(self._kinds) >= self.MOST:
            self._kinds.clear()
        self._kinds[kind] = (since, number + 1)
        return number + 1


def _wayOf(failure: Failure) -> tuple[tuple[CodeType, int], ...]:
    """
    Return the places in the code that a failure has come through, and the last one.

    A recursion counts once, because clients may choose its depth and its end.
    """
    # A dictionary keeps the order.
    way: dict[tuple[CodeType, int], None] = {}
    place, isRecursion = None, False
    traceback = failure.value.__traceback__ if failure.value else None
    while traceback is not None:
        place = (traceback.tb_frame.f_code, traceback.tb_lineno)
        isRecursion = isRecursion or place in way
        if not isRecursion:
            way[place] = None
        traceback = traceback.tb_next
    # Python may notice that a recursion is too deep anywhere.
    return (*way, place) if place and not failure.check(RecursionError) else tuple(way)


repeats: Final = Repeats()
"The failures of this process."


class Logger(twisted.logger.Logger):
    """
    Twisted's logger, but for printable values, counted failures, and lines that no client can repeat at will.

    The first failure of a kind has its traceback.  Of those that follow within a minute the 10th, 100th,
    1000th ... are one line each.
    """

    def limited(self, kind: object, level: Any, format: str, **values: object) -> bool:
        """
        Log a line that a client can cause at any rate.

        Of each kind the first 10 within a minute are shown, then the 100th, the 1000th ..., which tell their
        number: 10,000 are 13 lines.

        :param kind: the reason, one of few: never a text that a client chooses.
        :return: whether the line is shown.
        """
        number = repeats.number((format, kind))
        if number <= _ALL_SHOWN:
            self.emit(level, format, **values)
        elif re.fullmatch("10+", str(number)):
            text = f"{format} (line {{number}} of this kind within a minute)"
            self.emit(level, text, number=number, **values)
        else:
            return False
        return True

    def emit(self, level: Any, format: str | None = None, **values: object) -> None:
        for name, value in values.items():
            if isinstance(value, str):
                # A format with {name!r} escapes by itself.
                if f"{{{name}!r" not in (format or ""):
                    values[name] = printable(value)
            elif isinstance(value, Exception):
                values[name] = printable(str(value))
        super().emit(level, format, **values)

    def failure(
        self,
        format: str,
        failure: Failure | None = None,
        level: Any = LogLevel.critical,
        **values: object,
    ) -> None:
        if failure is None:
            failure = Failure()
        number = repeats.count(format, failure)
        if failure.check(RuntimeError) and str(failure.value).startswith(_NO_LOOP):
            format += _ASYNCIO
        if number == 1:
            super().failure(format, _PrintableFailure(failure), level, **values)
        elif re.fullmatch("10+", str(number)):
            self.emit(
                level,
                f"{format}: {{error}}; {{number}} times within a minute, see the traceback of the first",
                error=failure.getErrorMessage(),
                number=number,
                **values,
            )
