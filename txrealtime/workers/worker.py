"""
A worker's side of the conversation with its supervisor.

The worker writes lines: ``ready`` with facts in JSON, ``beat`` with the number of its sessions once a second,
and ``failed`` with the reason in JSON if it cannot start.  The supervisor writes ``stop``.  The end of the
supervisor's pipe means that the supervisor has died: the worker stops by itself then.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.task import LoopingCall

from txrealtime.logs import Logger

__all__ = ["BEAT", "CANNOT_START", "COMMANDS", "REPORTS", "Supervision", "reportFailure"]

_log = Logger()

COMMANDS: Final = 3
"""The descriptor from which a worker reads commands."""

REPORTS: Final = 4
"""The descriptor to which a worker writes reports; the ports follow it."""

CANNOT_START: Final = 3
"""The exit code of a worker that would fail in the same way if it was started again."""

BEAT: Final = 1.0
"""Seconds between two beats."""

# Seconds that a worker without a supervisor has for its clients.
_ORPHAN: Final = 8.0


class Supervision:
    """
    The supervisor, as a worker sees it.

    :param stop: called in the reactor's thread when the worker is to stop.
    :param sessions: returns the number of sessions.
    """

    def __init__(
        self,
        reactor: Any,
        stop: Callable[[], object],
        sessions: Callable[[], int],
        reports: int = REPORTS,
        commands: int = COMMANDS,
    ) -> None:
        self._reactor = reactor
        self._stop = stop
        self._sessions = sessions
        self._reports = reports
        self._commands = commands
        self._beat = LoopingCall(self._tellBeat)
        self._beat.clock = reactor

    def start(self) -> None:
        """Beat, and listen to the supervisor."""
        self._beat.start(BEAT)
        # A thread, because it must notice the supervisor's end also while a handler blocks the reactor.
        threading.Thread(target=self._listen, name="supervision", daemon=True).start()

    def ready(self, **facts: Any) -> None:
        """Report that the worker serves."""
        _report(self._reports, f"ready {json.dumps(facts)}")

    def _tellBeat(self) -> None:
        _report(self._reports, f"beat {self._sessions()}")

    def _listen(self) -> None:
        with open(self._commands, "rb", buffering=0, closefd=False) as commands:
            while line := commands.readline():
                if line.strip() == b"stop":
                    self._reactor.callFromThread(self._stop)
        self._reactor.callFromThread(self._orphaned)
        # The reactor may be stuck, and clients may not go.
        threading.Event().wait(_ORPHAN)
        os._exit(1)

    def _orphaned(self) -> None:
        _log.warn("the supervisor has ended: this worker ends too")
        self._stop()


def _report(descriptor: int, line: str) -> None:
    with contextlib.suppress(OSError):  # the supervisor has ended, which the thread notices
        os.write(descriptor, line.encode() + b"\n")


def reportFailure(reason: str, reports: int = REPORTS) -> None:
    """Report that this worker cannot start, and would not if it was started again."""
    _report(reports, f"failed {json.dumps(reason)}")
