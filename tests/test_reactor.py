"""
The reactor for many small messages, turn by turn, with real descriptors.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import requirePart
from txrealtime.service.reactors import moduleOf, quicken

try:
    from twisted.internet.epollreactor import EPollReactor

    import txrealtime.reactor
except ImportError:
    txrealtime = None  # type: ignore[assignment]


class Selectable:
    """A descriptor for a reactor: one end of a pair of sockets."""

    def __init__(self, log: list[str], name: str, read: Callable[[], object] = lambda: None) -> None:
        self.log = log
        self.name = name
        self.read = read
        self.socket, self.peer = socket.socketpair()
        self.lost: Failure | None = None

    def logPrefix(self) -> str:
        return "-"

    def fileno(self) -> int:
        return self.socket.fileno() if self.lost is None else -1

    def doRead(self) -> object:
        self.log.append(f"{self.name} reads")
        if not self.socket.recv(100):
            return ConnectionDone()
        return self.read()

    def doWrite(self) -> object:
        self.log.append(f"{self.name} writes")
        return None

    def connectionLost(self, reason: Failure) -> None:
        self.log.append(f"{self.name} is lost")
        self.lost = reason
        self.socket.close()


class QuickEPollTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(txrealtime, "epoll is Linux's")
        self.reactor: Any = txrealtime.reactor.QuickEPollReactor()
        self.addCleanup(self.close)
        self.log: list[str] = []
        self.watched: list[Selectable] = []

    def close(self) -> None:
        self.reactor.removeAll()
        for selectable in self.watched:
            selectable.peer.close()
            selectable.socket.close()
        self.reactor.waker.connectionLost(None)
        self.reactor._poller.close()


class PollTests(QuickEPollTestCase):
    def watch(self, name: str, read: Callable[[], object] = lambda: None) -> Selectable:
        selectable = Selectable(self.log, name, read)
        self.watched.append(selectable)
        self.reactor.addReader(selectable)
        return selectable

    def test_reads(self) -> None:
        one, other = self.watch("one"), self.watch("other")
        self.reactor.doIteration(0)
        self.assertEqual(self.log, [])
        one.peer.send(b"x")
        other.peer.send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual(sorted(self.log), ["one reads", "other reads"])

    def test_writes(self) -> None:
        one = self.watch("one")
        self.reactor.addWriter(one)
        self.reactor.doIteration(0)
        one.peer.send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual(self.log, ["one writes", "one reads", "one writes"])

    def test_end(self) -> None:
        one = self.watch("one")
        one.peer.close()
        self.reactor.doIteration(0)
        self.reactor.doIteration(0)
        self.assertEqual(self.log[-1], "one is lost")
        self.assertEqual(self.reactor.getReaders(), [self.reactor.waker])

    def test_failure(self) -> None:
        """A connection whose doRead() raises is lost; others go on."""

        def fail() -> None:
            raise ZeroDivisionError

        one, other = self.watch("one", fail), self.watch("other")
        one.peer.send(b"x")
        other.peer.send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual(sorted(self.log), ["one is lost", "one reads", "other reads"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        assert one.lost is not None
        self.assertIsInstance(one.lost.value, ZeroDivisionError)

    def test_closedByAnother(self) -> None:
        """A connection ended by another's read gets no event of the same turn."""

        def end(other: Selectable) -> None:
            self.reactor.removeReader(other)
            other.connectionLost(Failure(ConnectionDone()))

        one = self.watch("one", lambda: end(self.watched[1]))
        other = self.watch("other", lambda: end(self.watched[0]))
        one.peer.send(b"x")
        other.peer.send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual(len(self.log), 2)
        self.assertEqual({line.split()[1] for line in self.log}, {"reads", "is"})

    def test_manyAtOnce(self) -> None:
        """Events beyond the limit of a turn are handled in the next."""
        self.patch(txrealtime.reactor, "_AT_ONCE", 2)
        for number in range(5):
            self.watch(str(number)).peer.send(b"x")
        for expected in (2, 4, 5):
            self.reactor.doIteration(0)
            self.assertEqual(len(set(self.log)), expected)
        self.assertEqual(len(self.log), 5)

    def test_quicken(self) -> None:
        """Twisted's own epoll reactor gets the same loop, also while it runs."""
        reactor: Any = EPollReactor()
        self.addCleanup(reactor._poller.close)
        self.addCleanup(reactor.waker.connectionLost, None)
        self.addCleanup(reactor.removeAll)
        self.assertFalse(txrealtime.reactor.isQuick(reactor))
        self.assertEqual(moduleOf(reactor), "twisted.internet.epollreactor")
        quicken(reactor)
        self.assertTrue(txrealtime.reactor.isQuick(reactor))
        self.assertIs(reactor.mainLoop.__func__, txrealtime.reactor.QuickEPollReactor.mainLoop)
        self.assertEqual(moduleOf(reactor), "txrealtime.reactor")
        one = Selectable(self.log, "one")
        self.watched.append(one)
        reactor.addReader(one)
        one.peer.send(b"x")
        contexts: list[object] = []
        self.patch(log, "callWithLogger", lambda *arguments: contexts.append(arguments))
        reactor.doIteration(0)
        self.assertEqual((self.log, contexts), (["one reads"], []))

    def test_othersAreLeftAlone(self) -> None:
        """A reactor of another class, such as one chosen by name, keeps its loop."""

        class Other(EPollReactor):
            pass

        other: Any = Other()
        self.addCleanup(other._poller.close)
        self.addCleanup(other.waker.connectionLost, None)
        for reactor in other, Clock():
            quicken(reactor)
            self.assertTrue({"doIteration", "mainLoop"}.isdisjoint(vars(reactor)))
            self.assertEqual(moduleOf(reactor), type(reactor).__module__)
        self.assertEqual(moduleOf(self.reactor), "txrealtime.reactor")


class LoopTests(QuickEPollTestCase):
    """The loop, on a clock."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.patch(self.reactor, "seconds", self.clock.seconds)

    def loop(self, *turns: Callable[[], object]) -> list[float | None]:
        """
        Run the loop; one of the functions is called in each turn, after a second, and one turn more ends it.

        :return: the seconds that each turn was to wait.
        """
        waits: list[float | None] = []
        left = iter(turns)

        def wait(timeout: float | None) -> None:
            waits.append(timeout)
            self.log.append("turn")
            self.clock.advance(1 if timeout is None else min(1, timeout))
            next(left, self.reactor.crash)()

        self.patch(self.reactor, "doIteration", wait)
        self.reactor._started = self.reactor.running = True
        self.reactor._stopped = False
        self.reactor.mainLoop()
        return waits

    def later(self, seconds: float, name: str) -> Any:
        return self.reactor.callLater(seconds, self.log.append, name)

    def nothing(self) -> None:
        """A turn of connections that leave nothing to do."""

    def test_turnsOfConnectionsAlone(self) -> None:
        """Twisted's own look for calls is made once, and the loop waits as long as it may."""
        looks: list[object] = []
        real = self.reactor.runUntilCurrent
        self.patch(self.reactor, "runUntilCurrent", lambda: (looks.append(0), real()))
        self.assertEqual(self.loop(self.nothing, self.nothing, self.nothing), [None, None, None, None])
        self.assertEqual(len(looks), 1)

    def test_callsOfTheLoop(self) -> None:
        """Made in their time, whether made before the loop, in a turn, or moved by one."""
        self.later(3, "three")
        moved = self.later(9, "moved")
        waits = self.loop(
            self.nothing,
            lambda: self.later(0, "at once"),
            lambda: self.later(1, "one"),
            lambda: moved.reset(0.5),
            self.nothing,
        )
        self.assertEqual(
            self.log,
            ["turn", "turn", "at once", "turn", "three", "turn", "one", "turn", "moved", "turn"],
        )
        self.assertEqual(waits, [3, 2, 1, 1, 0.5, None])

    def test_callsFromThreads(self) -> None:
        self.loop(
            lambda: self.reactor.threadCallQueue.append((self.log.append, ("threads",), {})), self.nothing
        )
        self.assertEqual(self.log, ["turn", "threads", "turn", "turn"])

    def test_farAway(self) -> None:
        """More seconds than poll() takes are left to Twisted, which waits in parts."""
        self.later(1e9, "far")
        waits = self.loop(self.nothing)
        self.assertLess(max(filter(None, waits)), (1 << 31) / 1000)  # poll() counts milliseconds

    def test_stop(self) -> None:
        """The end of the reactor comes in the turn after it was asked for."""
        self.reactor.addSystemEventTrigger("before", "shutdown", self.log.append, "shutdown")
        self.loop(self.nothing, self.reactor.stop)
        self.assertEqual(self.log[:3], ["turn", "turn", "shutdown"])

    def test_aTurnThatFails(self) -> None:
        self.loop(lambda: 1 / 0, self.nothing)
        self.assertEqual(self.log, ["turn", "turn", "turn"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
