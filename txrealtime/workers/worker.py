"""
A worker's side of the conversation with its supervisor.

Each of the two writes lines:

==========  ==================  ======================================================================
line        after it            sense
==========  ==================  ======================================================================
``ready``   facts in JSON       the worker serves
``beat``    status in JSON      once a second: the worker's reactor turns
``failed``  a reason in JSON    the worker cannot start
``stop``                        stop, as all workers do
``leave``                       stop, while other workers go on
``fleet``   workers in JSON     the present workers, at each change
==========  ==================  ======================================================================

The end of the supervisor's pipe means that the supervisor has died: the worker stops by itself then.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import Any, Final, Protocol

from twisted.internet.task import LoopingCall

from txrealtime.logs import Logger

__all__ = ["BEAT", "CANNOT_START", "COMMANDS", "REPORTS", "Supervised", "Supervision", "reportFailure"]

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


class Supervised(Protocol):
    """A worker, as its supervisor asks for things."""

    def status(self) -> dict[str, Any]:
        """Return ``status`` and ``fit``, as a :class:`~txrealtime.workers.fleet.Member` has them."""

    def stop(self, together: bool) -> None:
        """
        Let the clients go, and end.

        :param together: ``True`` if all workers stop, so that the port stays open for the present clients.
        """

    def fleetChanged(self, members: list[dict[str, Any]]) -> None:
        """Called when a worker has started, serves, begins to stop or has ended."""

    def orphaned(self) -> None:
        """Called when the supervisor has ended: let the clients go at once, and end."""


class Supervision:
    """
    The supervisor, as a worker sees it.

    Its calls of the worker are made in the reactor's thread.
    """

    def __init__(
        self,
        reactor: Any,
        worker: Supervised,
        reports: int = REPORTS,
        commands: int = COMMANDS,
    ) -> None:
        self._reactor = reactor
        self._worker = worker
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
        _report(self._reports, f"beat {json.dumps(self._worker.status())}")

    def _listen(self) -> None:
        with open(self._commands, "rb", buffering=0, closefd=False) as commands:
            while line := commands.readline():
                self._reactor.callFromThread(self._told, *line.decode().rstrip().partition(" ")[::2])
        self._reactor.callFromThread(self._orphaned)
        # The reactor may be stuck, and clients may not go.
        threading.Event().wait(_ORPHAN)
        os._exit(1)

    def _told(self, command: str, rest: str) -> None:
        if command == "fleet":
            self._worker.fleetChanged(json.loads(rest))
        else:
            self._worker.stop(together=command == "stop")

    def _orphaned(self) -> None:
        _log.warn("the supervisor has ended: this worker ends too")
        self._worker.orphaned()


def _report(descriptor: int, line: str) -> None:
    with contextlib.suppress(OSError):  # the supervisor has ended, which the thread notices
        os.write(descriptor, line.encode() + b"\n")


def reportFailure(reason: str, reports: int = REPORTS) -> None:
    """Report that this worker cannot start, and would not if it was started again."""
    _report(reports, f"failed {json.dumps(reason)}")
