"""
The form of the log: ``--log-level`` and ``--log-format``.

A line of JSON has these keys, in this order:

- ``time``: of the event, ISO 8601 in UTC with microseconds;
- ``level``: ``debug``, ``info``, ``warn``, ``error`` or ``critical``;
- ``system``: the module that logs;
- ``message``: the text, as in a log of text;
- ``values``: the values in the text by their names, such as ``address``; only numbers, texts and booleans;
- ``traceback``: of a failure, else missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatEventAsClassicLogText,
)
from twisted.python.logfile import LogFile

__all__ = ["FORMATS", "LEVELS", "choose", "chosen", "jsonLine", "observer"]

LEVELS: Final = ("debug", "info", "warn", "error", "critical")

# Of twisted.python.log, which repeat what the other keys tell.
_LEGACY: Final = frozenset(["message", "time", "system", "format", "isError", "failure"])


def jsonLine(event: LogEvent) -> str:
    """Format an event as one line of JSON."""
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="microseconds"),
        "level": event.get("log_level", LogLevel.info).name,
        "system": event.get("log_namespace") or event.get("log_system") or "",
        "message": eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False),
        "values": {
            name: value
            for name, value in event.items()
            if not name.startswith("log_") and name not in _LEGACY and _isPlain(value)
        },
    }
    failure = event.get("log_failure")
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line) + "\n"


def _isPlain(value: object) -> bool:
    """Return whether JSON has this value: it has no NaN and no infinity."""
    return isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))


FORMATS: Final[dict[str, Callable[[LogEvent], str | None]]] = {
    "text": formatEventAsClassicLogText,
    "json": jsonLine,
}


_choice: dict[str, Any] = {}


def choose(options: Mapping[str, Any], level: str, format: str) -> str:
    """
    Choose the form of the log of this process.

    :param options: see :func:`observer`, as the other two.
    :return: the name of the function that makes the observer: twistd's --logger takes no function itself.
    """
    _choice.update(options=options, level=level, format=format)
    return f"{__name__}.{chosen.__name__}"


def chosen() -> ILogObserver:
    """Make the observer that :func:`choose` has chosen."""
    return observer(**_choice)


def observer(options: Mapping[str, Any], level: str, format: str) -> ILogObserver:
    """
    Make the observer that writes the log, to the place that twistd's options name.

    :param options: twistd's: ``nodaemon`` and ``logfile``.
    :param level: the lowest level that is written, one of :data:`LEVELS`.
    :param format: one of :data:`FORMATS`.
    """
    name = options.get("logfile")
    if name == "-" or (not name and options.get("nodaemon")):
        if not options.get("nodaemon"):
            raise SystemExit("a daemon cannot log to standard output: leave out --logfile -, or give -n")
        file: Any = sys.stdout
    else:
        file = LogFile.fromFullPath(name or "twistd.log")
    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    return FilteringLogObserver(FileLogObserver(file, FORMATS[format]), [predicate])
