"""
A worker's process, as the supervisor sees it.
"""

from __future__ import annotations

import contextlib
import json
import signal
from enum import Enum, auto
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from txrealtime.logs import Logger
from txrealtime.workers.loglines import logAgain
from txrealtime.workers.worker import CANNOT_START, COMMANDS, REPORTS

__all__ = ["Child", "Owner", "State"]

_log = Logger()

# The longest line of a log that is kept in one piece, in bytes.  JSON takes 6 for a character, or 12.
_MOST_LINE: Final = 2_000_000

# Seconds beyond a worker's own times of draining until it is killed.
_BEYOND: Final = 5.0

# Seconds from the exit of a process until its pipes count as read.
_GRACE: Final = 1.0


class State(Enum):
    """The states of a worker."""

    STARTING = auto()
    READY = auto()
    STOPPING = auto()
    ENDED = auto()


class Owner(Interface):
    """The supervisor, as a child sees it."""

    def childReady(self, child: Child) -> None:
        """Called when a worker serves."""

    def childChanged(self, child: Child) -> None:
        """Called when a worker's status has changed."""

    def childEnded(self, child: Child) -> None:
        """Called when a worker's process has ended."""


class Child(ProcessProtocol):
    """
    One process of a worker.

    :param number: the worker's number, which its log lines bear.
    :param mark: its mark.
    :param reactor: the clock.
    :ivar state: its :class:`State`.
    :ivar facts: the facts of its report that it is ready.
    :ivar failure: the reason why it cannot start, if it has told one.
    :ivar ending: a description of its end.
    :ivar status: the status of its link to other servers, at its last beat.
    :ivar fit: whether it is ready for clients, at its last beat.
    :ivar heard: the time of its last beat; ``None`` before the first.
    """

    transport: Any

    def __init__(self, owner: Owner, number: int, mark: str, reactor: IReactorTime) -> None:
        self.number = number
        self.mark = mark
        self.state = State.STARTING
        self.facts: dict[str, Any] = {}
        self.failure = ""
        self.ending = ""
        self.status = ""
        self.fit = False
        self.born = reactor.seconds()
        self.heard: float | None = None
        self._owner = owner
        self._reactor = reactor
        self._grace: IDelayedCall | None = None
        self._late: IDelayedCall | None = None
        self._lines: dict[int, bytes] = {}

    @property
    def pid(self) -> int:
        """The id of the process."""
        return int(self.transport.pid or 0)

    # -- from the supervisor -------------------------------------------------------------

    def stop(self, together: bool = False) -> None:
        """
        Ask the worker to let its clients go, and to end; kill it if it does not in time.

        :param together: ``True`` if all workers stop.
        """
        if self.state in (State.STARTING, State.READY):
            # One that does not serve yet has nobody to let go, and may be stuck in its application.
            starting, self.state = self.state is State.STARTING, State.STOPPING
            if starting:
                self.signal(signal.SIGTERM)
            self._write(b"stop\n" if together else b"leave\n")
            self._late = self._reactor.callLater(self.patience + _BEYOND, self._kill)

    @property
    def patience(self) -> float:
        """The seconds that the worker's clients may take to go."""
        return float(self.facts.get("patience", 0.0))

    def tell(self, fleet: bytes) -> None:
        """Tell the worker the present workers, in JSON."""
        if self.state is not State.ENDED:
            self._write(b"fleet %s\n" % fleet)

    def _write(self, line: bytes) -> None:
        # A worker that is about to end has closed its pipe.
        with contextlib.suppress(KeyError):
            self.transport.writeToChild(COMMANDS, line)

    def member(self) -> dict[str, Any]:
        """Return the fields of a :class:`~txrealtime.workers.fleet.Member`."""
        return {
            "number": self.number,
            "mark": self.mark,
            "pid": self.pid,
            "state": self.state.name.lower(),
            "status": self.status,
            "fit": self.fit and self.state is State.READY,
        }

    def _kill(self) -> None:
        _log.warn("worker {number} did not end in time, and is killed", number=self.number)
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessExitedAlready):
            # A number, since Twisted knows few signals by name.
            self.transport.signalProcess(int(number))

    # -- ProcessProtocol -----------------------------------------------------------------

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._lines.get(childFD, b"") + data).split(b"\n")
        if len(rest) > _MOST_LINE:
            lines, rest = [*lines, rest], b""
        self._lines[childFD] = rest
        for line in lines:
            text = line.decode("utf-8", "replace")
            if childFD == REPORTS:
                self._reported(text)
            elif text.strip() and not logAgain(self.number, text):
                _log.info("worker {number}: {line}", number=self.number, line=text)

    def _reported(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        if self.state is State.ENDED:
            return
        if kind == "beat":
            self.heard = self._reactor.seconds()
            self._noteStatus(json.loads(rest))
        elif kind == "failed":
            self.failure = json.loads(rest)
        elif kind == "ready" and self.state is State.STARTING:
            self.state = State.READY
            self.facts = json.loads(rest)
            self.status, self.fit = self.facts["status"], self.facts["fit"]
            self._owner.childReady(self)

    def _noteStatus(self, status: dict[str, Any]) -> None:
        known = (self.status, self.fit)
        self.status, self.fit = status["status"], status["fit"]
        if known != (self.status, self.fit):
            self._owner.childChanged(self)

    def processExited(self, reason: Failure) -> None:
        # A process that the application has started may hold the pipes, and then processEnded() never comes.
        self._grace = self._reactor.callLater(_GRACE, self._over, reason)

    def processEnded(self, reason: Failure) -> None:
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        if self.state is not State.ENDED:
            self._over(reason)

    def _over(self, reason: Failure) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()
        for descriptor in list(self._lines):
            if self._lines[descriptor]:
                self.childDataReceived(descriptor, b"\n")
        error: Any = reason.value
        code = getattr(error, "exitCode", None)
        if getattr(error, "signal", None):
            self.ending = f"was ended by {signal.Signals(error.signal).name}"
        else:
            self.ending = f"ended with code {code}"
        if code == CANNOT_START and not self.failure:
            self.failure = "the worker cannot start"
        self.state = State.ENDED
        self._owner.childEnded(self)
