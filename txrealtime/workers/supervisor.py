"""
The supervisor: it keeps a number of workers running that share its ports.

The supervisor serves no traffic and runs no code of the application, so nothing that an application does
can stop it.  A service tree embeds it::

    Supervisor(reactor, command, ports, 4).setServiceParent(application)

where ``command`` makes the command line of a worker; ``twistd realtime --workers`` does the same.

A worker that crashes is started again, after a pause that grows from 0.2 to 30 s.  A worker that does not
beat is killed, after its stacks have gone to the log.  A reload starts a whole new generation first: the old
one stops only when all of the new one serves, and stays if any of the new one fails.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall

from txrealtime.logs import Logger
from txrealtime.workers.child import Child, State
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.folder import Folder, removeStale
from txrealtime.workers.ledger import Ledger
from txrealtime.workers.looks import HangLook, Limits, residentBytes
from txrealtime.workers.marks import MOST_WORKERS, markOf
from txrealtime.workers.notify import Notifier, withoutSystemd
from txrealtime.workers.worker import COMMANDS, REPORTS

__all__ = ["Limits", "Supervisor", "Task"]

_log = Logger()

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 30.0

# Seconds that a worker has to serve for the next pause to be the shortest.
_STEADY: Final = 30.0

# Starts that may fail without a reason before the first worker has ever served.
_FIRST_TRIES: Final = 4

# Seconds from the dump of stacks to the kill.
_DUMP: Final = 1.0

# Seconds for the end of the processes, behind that of their clients.
_LAST: Final = 10.0

# Seconds between two looks at the memory.
_LOOK: Final = 10.0


@dataclass(frozen=True)
class Task:
    """
    One worker to start.

    :ivar number: the worker's number, from 0.
    :ivar mark: the mark of this process.
    :ivar folder: the folder of the workers' sockets.
    """

    number: int
    mark: str
    folder: str


@dataclass(eq=False)
class _Slot:
    """The place of one worker, in which processes succeed each other."""

    number: int
    current: Child | None = None
    coming: Child | None = None
    pause: float = _FIRST_PAUSE
    restart: Any = None


class Supervisor(Service):
    """
    Workers that share ports.

    :param command: returns the command line for a :class:`Task`.
    :param ports: the ports, opened without accepting: see :func:`~txrealtime.workers.listening.openPorts`.  A
        worker has them as descriptors from 5 on, in this order.  The supervisor closes them when it stops.
    :param count: the number of workers.
    :param limits: the limits of each worker.
    :param serving: called once with the facts of the first worker, when all workers serve.
    :param failed: called once with the reason if no worker can start; the caller stops the reactor.
    :param notifier: the service manager.
    :param rss: returns the bytes of memory of a process.
    :param hub: makes the bus of the workers, given the path of its socket: ``hub`` in the folder of a task.
    """

    def __init__(
        self,
        reactor: Any,
        command: Callable[[Task], Sequence[str]],
        ports: Sequence[Any],
        count: int,
        limits: Limits | None = None,
        serving: Callable[[dict[str, Any]], object] = lambda facts: None,
        failed: Callable[[str], object] = lambda reason: None,
        notifier: Notifier | None = None,
        rss: Callable[[int], int] | None = None,
        hub: Callable[[str], Service] | None = None,
    ) -> None:
        self._reactor = reactor
        self._command = command
        self._ports = list(ports)
        self._limits = limits or Limits()
        self._serving = serving
        self._failed = failed
        self._notifier = notifier or Notifier({})
        self._rss = rss or residentBytes
        self._slots = {number: _Slot(number) for number in range(count)}
        # A dictionary, as a set that keeps the order of the starts.
        self._children: dict[Child, None] = {}
        self._generation = 0
        self._makeHub = hub
        self._hub: Service | None = None
        self._folder = Folder()
        self._fleet: Fleet | None = None
        self._served = False
        self._given = False
        self._tries = 0
        self._reloadAgain = False
        self._stopped: Deferred[None] | None = None
        hangs = HangLook(reactor, self._limits, self._watched, self._kill)
        self._looks = [LoopingCall(hangs.look), LoopingCall(self._lookAtMemory)]
        for look in self._looks:
            look.clock = reactor

    # -- the present state ---------------------------------------------------------------

    @property
    def workers(self) -> list[Child]:
        """The workers that serve, by number."""
        found = [slot.current for slot in self._slots.values()]
        return [child for child in found if child is not None and child.state is State.READY]

    def report(self) -> list[dict[str, Any]]:
        """Describe the workers, for a health check."""
        return [] if self._fleet is None else self._fleet.report()

    # -- as a service --------------------------------------------------------------------

    def startService(self) -> None:
        """Start the workers."""
        super().startService()  # type: ignore[no-untyped-call]
        removeStale()
        self._folder.make()
        # It counts nothing itself, so it has no mark.
        self._fleet = Fleet("", Ledger(self._folder.path, ""), self._reactor.seconds)
        if self._makeHub is not None:
            self._hub = self._makeHub(os.path.join(self._folder.path, "hub"))
            self._hub.startService()
        self._notifier.startWatchdog(self._reactor)
        for slot in self._slots.values():
            slot.current = self._spawn(slot)
        self._tellFleet()
        for look, seconds in zip(self._looks, (1.0, _LOOK), strict=True):
            looking = look.start(seconds, now=False)
            looking.addErrback(lambda failure: _log.failure("the workers are watched no more", failure))

    def stopService(self) -> Deferred[None]:
        """
        Let the workers drain together.

        :return: a Deferred that fires when all have ended; those that do not are killed.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        patience = max([child.patience for child in self._children], default=0.0)
        self._notifier.tell(
            STOPPING=1,
            STATUS="the workers let their clients go",
            EXTEND_TIMEOUT_USEC=int((patience + _LAST) * 1e6),
        )
        for look in self._looks:
            if look.running:
                look.stop()
        stopped = self._stopped = Deferred()
        for slot in self._slots.values():
            self._cancelRestart(slot)
        for child in tuple(self._children):
            child.stop(together=True)
        self._tellFleet()
        self._checkStopped()
        return stopped

    def _checkStopped(self) -> None:
        stopped = self._stopped
        if stopped is None or self._children:
            return
        self._stopped = None
        Deferred.fromCoroutine(self._end()).addCallbacks(stopped.callback, stopped.errback)

    async def _end(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        if self._hub is not None:
            await maybeDeferred(self._hub.stopService)
        self._folder.remove()
        self._notifier.stop()

    # -- what an operator asks for -------------------------------------------------------

    def reload(self) -> None:
        """Start a new generation, and stop the old one when the new one serves."""
        if not self.running:
            return
        if not self._served or self._isReplacing:
            # Workers that are starting may have loaded the old code already.
            self._reloadAgain = True
            return
        _log.info("reloading: {count} new workers start", count=len(self._slots))
        self._notifier.reloading()
        for slot in self._slots.values():
            slot.coming = self._spawn(slot)
        self._tellFleet()

    def more(self) -> None:
        """Start one more worker."""
        number = next((n for n in range(MOST_WORKERS) if n not in self._slots), None)
        if self.running and number is not None:
            slot = self._slots[number] = _Slot(number)
            slot.current = self._spawn(slot)
            self._tellFleet()
            _log.info("one more worker: {count}", count=len(self._slots))

    def less(self) -> None:
        """Stop one worker, but not the last."""
        if self.running and len(self._slots) > 1:
            slot = self._slots.pop(max(self._slots))
            self._cancelRestart(slot)
            for child in (slot.current, slot.coming):
                if child is not None:
                    child.stop()
            self._tellFleet()
            _log.info("one worker less: {count}", count=len(self._slots))
            self._checkReplaced()

    # -- processes -----------------------------------------------------------------------

    def _spawn(self, slot: _Slot) -> Child:
        self._generation += 1
        mark = markOf(slot.number, self._generation)
        child = Child(self, slot.number, mark, self._reactor)
        command = list(self._command(Task(slot.number, mark, self._folder.path)))
        descriptors: dict[int, Any] = {0: 0, 1: "r", 2: "r", COMMANDS: "w", REPORTS: "r"}
        for place, port in enumerate(self._ports, REPORTS + 1):
            descriptors[place] = port.fileno()
        self._children[child] = None
        with open(os.devnull, "rb") as nothing:
            descriptors[0] = nothing.fileno()
            self._reactor.spawnProcess(
                child, command[0], command, env=withoutSystemd(os.environ), childFDs=descriptors
            )
        return child

    def childReady(self, child: Child) -> None:
        """Called when a worker serves."""
        slot = self._slots.get(child.number)
        if slot is None:
            child.stop()
            self._tellFleet()
            return
        if slot.coming is child:
            # The old worker has to know its successor before it leaves.
            self._tellFleet()
            self._checkReplaced()
        elif slot.current is child:
            _log.info("worker {number} serves, as process {pid}", number=child.number, pid=child.pid)
        if not self._served and len(self.workers) == len(self._slots):
            self._served = True
            self._serving(child.facts)
            self._replaced()
        self._tellFleet()
        self._tellStatus()

    def childChanged(self, child: Child) -> None:
        """Called when a worker's status has changed."""
        self._tellFleet()

    def _tellFleet(self) -> None:
        """Tell all workers the present ones."""
        ordered = sorted(self._children, key=lambda child: child.number)
        members = [child.member() for child in ordered]
        if self._fleet is not None:
            self._fleet.update(members)
        fleet = json.dumps(members).encode()
        for child in ordered:
            child.tell(fleet)

    def childEnded(self, child: Child) -> None:
        """Called when a worker's process has ended."""
        self._children.pop(child, None)
        self._folder.removeFilesOf(child.mark)
        slot = self._slots.get(child.number)
        if not self.running:
            self._checkStopped()
        elif slot is not None and slot.coming is child:
            slot.coming = None
            self._abandon(child)
        elif slot is not None and slot.current is child:
            slot.current = None
            self._lost(slot, child)
        self._tellFleet()
        self._tellStatus()

    def _lost(self, slot: _Slot, child: Child) -> None:
        """Start a worker again, or give up if none has ever served."""
        reason = child.failure or child.ending
        if not self._served:
            self._tries += 1
            if child.failure or self._tries >= _FIRST_TRIES:
                self._giveUp(child.failure or f"no worker serves: worker {child.number} {child.ending}")
                return
        if self._reactor.seconds() - child.born >= _STEADY:
            slot.pause = _FIRST_PAUSE
        pause, slot.pause = slot.pause, min(2 * slot.pause, _LONGEST_PAUSE)
        _log.error(
            "worker {number}: {reason}; another one starts in {pause:g} s",
            number=slot.number,
            reason=reason,
            pause=pause,
        )
        slot.restart = self._reactor.callLater(pause, self._restart, slot)

    def _restart(self, slot: _Slot) -> None:
        slot.restart = None
        slot.current = self._spawn(slot)
        self._tellFleet()

    def _cancelRestart(self, slot: _Slot) -> None:
        restart, slot.restart = slot.restart, None
        if restart is not None:
            restart.cancel()

    def _giveUp(self, reason: str) -> None:
        if not self._given:
            self._given = True
            self._failed(reason)

    def _tellStatus(self) -> None:
        self._notifier.tell(STATUS=f"{len(self.workers)} of {len(self._slots)} workers serve")

    # -- replacements: a reload, or a worker that has grown ------------------------------

    @property
    def _isReplacing(self) -> bool:
        return any(slot.coming for slot in self._slots.values())

    def _checkReplaced(self) -> None:
        """Let the new workers take the places of the old ones, if all of the new ones serve."""
        slots = [slot for slot in self._slots.values() if slot.coming is not None]
        if not slots or any(slot.coming.state is not State.READY for slot in slots if slot.coming):
            return
        for slot in slots:
            old, slot.current, slot.coming = slot.current, slot.coming, None
            slot.pause = _FIRST_PAUSE
            self._cancelRestart(slot)
            if old is not None:
                old.stop()
        _log.info("{count} new workers serve, and the old ones let their clients go", count=len(slots))
        self._replaced()

    def _abandon(self, child: Child) -> None:
        """Keep the old workers, because a new one cannot serve."""
        _log.error(
            "the new workers are given up, and the old ones stay: worker {number}: {reason}",
            number=child.number,
            reason=child.failure or child.ending,
        )
        for slot in self._slots.values():
            coming, slot.coming = slot.coming, None
            if coming is not None:
                coming.stop()
        self._replaced()

    def _replaced(self) -> None:
        """Called when a generation serves, or the one before goes on; a reload may have been asked for."""
        self._notifier.tell(READY=1)
        if self._reloadAgain:
            self._reloadAgain = False
            self._reactor.callLater(0, self.reload)

    # -- looks at the workers ------------------------------------------------------------

    def _watched(self) -> list[Child]:
        slots = self._slots.values()
        return [child for slot in slots for child in (slot.current, slot.coming) if child is not None]

    def _kill(self, child: Child) -> None:
        _log.error(
            "worker {number} (process {pid}) hangs: its stacks follow, and it is killed",
            number=child.number,
            pid=child.pid,
        )
        child.state = State.STOPPING
        self._tellFleet()
        child.signal(signal.SIGUSR2)
        self._reactor.callLater(_DUMP, child.signal, signal.SIGKILL)

    def _lookAtMemory(self) -> None:
        limit = self._limits.maxRSS
        if not limit or self._isReplacing:
            return
        for slot in self._slots.values():
            child = slot.current
            if child is None or child.state is not State.READY:
                continue
            size = self._rss(child.pid)
            if size > limit:
                _log.warn(
                    "worker {number} has {size} MB of memory, more than --max-rss, and is replaced",
                    number=slot.number,
                    size=size >> 20,
                )
                slot.coming = self._spawn(slot)
                self._tellFleet()
                return  # one at a time
