"""
The log of a worker, on its way to the supervisor's.

A worker writes each event to its standard error as one line of JSON behind a control character (RFC 7464),
and the supervisor logs it again, with the same level, system, values and traceback, and the worker's number.
So ``--log-level``, ``--log-format`` and twistd's own options hold for all workers.  Lines without the
character are what code of the application or the interpreter has written itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

from twisted.logger import InvalidLogLevelError, LogEvent, LogLevel, eventAsText, globalLogPublisher

__all__ = ["logAgain", "toLine"]

_MARK: Final = "\x1e"

# Characters of a text or a traceback.
_MOST: Final = 50_000

_FORMAT: Final = "worker {worker}: {log_line}"


def toLine(event: LogEvent) -> str:
    """Write an event as one line."""
    failure = event.get("log_failure")
    line = {
        "time": event["log_time"],
        "level": event.get("log_level", LogLevel.info).name,
        "system": event.get("log_namespace", ""),
        "text": eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)[
            :_MOST
        ],
        "traceback": "" if failure is None else failure.getTraceback()[-_MOST:],
        "values": {
            name: value[:_MOST] if isinstance(value, str) else value
            for name, value in event.items()
            if not name.startswith("log_") and _isPlain(value)
        },
    }
    return f"{_MARK}{json.dumps(line)}\n"


def _isPlain(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))


class _Traceback:
    """The traceback of a failure in another process, in the place of the failure."""

    def __init__(self, text: str) -> None:
        self._text = text

    def getTraceback(self, *args: Any, **options: Any) -> str:
        """Return the traceback."""
        return self._text


def logAgain(number: int, line: str, log: Callable[[LogEvent], object] = globalLogPublisher) -> bool:
    """
    Log a worker's event again.

    :param number: the worker's number.
    :return: ``False`` for a line that is no event.
    """
    if not line.startswith(_MARK):
        return False
    try:
        read = json.loads(line[1:])
        event = {
            **read["values"],
            "worker": number,
            "log_line": read["text"],
            "log_format": _FORMAT,
            "log_level": LogLevel.levelWithName(read["level"]),
            "log_namespace": read["system"],
            "log_time": read["time"],
        }
        if read["traceback"]:
            event["log_failure"] = _Traceback(read["traceback"])
    except (ValueError, KeyError, TypeError, InvalidLogLevelError):
        return False
    log(event)
    return True
