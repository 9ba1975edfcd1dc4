"""
The handoff: connections are looked at before they are read, and go to the worker that has their session.

The connections are pairs of sockets in this process; there is no network, and the reactor is a clock.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from tests.examples import given, st
from txrealtime import Server
from txrealtime.workers import ports, sharedport
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.handoff import TOGETHER, Handed, Handoff
from txrealtime.workers.ledger import SESSIONS, Ledger
from txrealtime.workers.marks import markOf
from txrealtime.workers.ports import PeekingPort


class Reactor(Clock):
    """A clock with readers, which notes down adopted connections."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.adopted: list[bytes] = []

    def addReader(self, reader: Any) -> None:
        assert reader not in self.readers
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def adoptStreamConnection(self, descriptor: int, family: int, site: Any) -> None:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            assert not os.get_blocking(descriptor)
            # All bytes are still there.
            self.adopted.append(connection.recv(65536, socket.MSG_PEEK) if site.reads else b"")


class Site:
    """A site whose engine is at /engine.io."""

    reads = True
    starts = 0

    def isForEngine(self, uri: bytes) -> bool:
        return uri.startswith(b"/engine.io/")

    def doStart(self) -> None:
        self.starts += 1

    def doStop(self) -> None:
        self.starts -= 1


class Listening:
    """A listening socket whose next connections the test makes."""

    family = socket.AF_UNIX
    address: Any = ""

    def __init__(self) -> None:
        self.waiting: list[socket.socket] = []
        self.error: OSError | None = None
        self.closed = False

    def _accept(self) -> tuple[int, Any]:
        if self.error is not None:
            raise self.error
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(0).detach(), self.address

    def fileno(self) -> int:
        return 1000

    def close(self) -> None:
        self.closed = True


class Worker:
    """The handoff and one port of a worker."""

    def __init__(self, folder: str, number: int) -> None:
        self.reactor = Reactor()
        self.mark = markOf(number, number + 1)
        self.taken: list[tuple[int, bytes]] = []
        self.handoff = Handoff(self.reactor, folder, self.mark, self._adopt)
        self.handoff.start()
        self.ledger = Ledger(folder, self.mark)
        self.ledger.start(False)
        self.fleet = Fleet(self.mark, self.ledger, self.reactor.seconds)
        self.listening = Listening()
        self.site = Site()
        self.port = self.makePort(PeekingPort)

    def makePort(self, kind: Any) -> Any:
        """Make and start a port that takes the connections of the test."""
        port = kind(self.reactor, self.listening, 3, self.site, self.handoff, self.fleet)
        port.startListening()
        return port

    def stop(self) -> None:
        self.port.stopListening()
        self.handoff.stop()
        self.ledger.stop()

    def count(self, sessions: int) -> None:
        """Have so many sessions."""
        self.ledger.column(SESSIONS).note(sessions)

    def _adopt(self, port: int, descriptor: int) -> None:
        with socket.socket(fileno=descriptor) as connection:
            self.taken.append((port, connection.recv(65536)))
            assert not os.get_inheritable(descriptor)

    def accept(self, data: bytes = b"") -> socket.socket:
        """Accept a connection with some first bytes; return the client's end."""
        near, far = socket.socketpair()
        far.setblocking(False)
        far.sendall(data)
        self.listening.waiting.append(near)
        self.port.doRead()
        return far

    def acceptAll(self, *heads: bytes) -> list[socket.socket]:
        """Accept connections in one turn of the reactor; return the clients' ends."""
        pairs = [socket.socketpair() for _ in heads]
        for (near, far), head in zip(pairs, heads, strict=True):
            far.setblocking(False)
            far.sendall(head)
            self.listening.waiting.append(near)
        self.port.doRead()
        return [far for _, far in pairs]

    def turn(self) -> None:
        """Take a turn of the reactor, in which all readers but the port are ready."""
        for reader in list(self.reactor.readers):
            if reader is not self.port and reader in self.reactor.readers:
                reader.doRead()


def line(sid: str = "", path: str = "/engine.io/", method: str = "GET") -> bytes:
    query = f"?EIO=4&transport=polling&sid={sid}" if sid else "?EIO=4&transport=polling"
    return f"{method} {path}{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@contextmanager
def descriptorsLeft(count: int) -> Iterator[None]:
    """Leave so many descriptors to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        # Descriptors below the highest one are free, too.
        highest = max(map(int, os.listdir("/proc/self/fd")))
        while (filled := os.dup(0)) < highest:
            stack.callback(os.close, filled)
        stack.callback(os.close, filled)
        resource.setrlimit(resource.RLIMIT_NOFILE, (filled + 1 + count, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        yield


NEVER = re.compile(rb"(?!)")


class HandoffTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.messages: list[str] = []
        globalLogPublisher.addObserver(self._logged)
        self.addCleanup(globalLogPublisher.removeObserver, self._logged)
        self.folder = self.mktemp()
        Path(self.folder).mkdir()
        self.one, self.two = Worker(self.folder, 0), Worker(self.folder, 1)
        self.tell()
        self.clients: list[socket.socket] = []
        self.addCleanup(self.clear)

    def tell(self, *states: str) -> None:
        """Tell both workers of each other, as the supervisor does."""
        workers = (self.one, self.two)
        members = [
            {"number": number, "mark": worker.mark, "pid": 1, "state": state, "status": "ready", "fit": True}
            for number, (worker, state) in enumerate(zip(workers, states or ("ready",) * 2, strict=True))
        ]
        for worker in workers:
            worker.fleet.update(members)

    def _logged(self, event: LogEvent) -> None:
        self.messages.append(formatEvent(event))

    def clear(self) -> None:
        for worker in (self.one, self.two):
            worker.stop()
            self.assertEqual(worker.reactor.readers, [])
            self.assertEqual(worker.reactor.getDelayedCalls(), [])
        for client in self.clients:
            client.close()

    def accept(self, data: bytes = b"") -> socket.socket:
        client = self.one.accept(data)
        self.clients.append(client)
        return client

    def gone(self, client: socket.socket) -> bool:
        """Return whether the server has closed a connection."""
        try:
            return client.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def test_given(self) -> None:
        """A connection goes to the owner of its session, with every byte and the number of its port."""
        for method in ("GET", "POST"):
            self.accept(line("x" * 16 + self.two.mark, method=method))
        self.two.turn()
        self.assertEqual([port for port, _ in self.two.taken], [3, 3])
        self.assertEqual(self.two.taken[0][1], line("x" * 16 + self.two.mark))
        self.assertEqual(self.one.reactor.adopted, [])
        self.assertEqual((self.one.handoff.sent, self.two.handoff.received), (2, 2))
        self.assertEqual((self.one.handoff.kept, self.two.handoff.kept), (0, 0))
        # The owner alone holds the connection, so its end is the connection's.
        self.assertTrue(all(map(self.gone, self.clients)))

    def test_servedHere(self) -> None:
        """New sessions, own ones, those of nobody, and what is not the engine's or no HTTP stay here."""
        theirs = "x" * 16 + self.two.mark
        heads = [line(), line("x" * 16 + self.one.mark), line("x" * 16 + markOf(9, 9)), line("x" * 20)]
        heads += [line(theirs, "/other/"), line(theirs, method="PUT"), b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n"]
        heads += [b"GET /engine.io/?sid=" + theirs.encode() + b" HTTP/1.0\r\n", b"\r\n", b"GET  x\r\n"]
        for head in heads:
            self.accept(head)
        self.assertEqual(self.one.reactor.adopted, heads)
        self.assertEqual((self.one.handoff.kept, self.one.handoff.sent), (len(heads), 0))
        self.two.turn()
        self.assertEqual(self.two.taken, [])

    def test_later(self) -> None:
        """A connection without bytes is watched, and one with half a line is looked at again."""
        client = self.accept()
        self.assertEqual(self.one.reactor.adopted, [])
        head = line("x" * 16 + self.two.mark)
        client.sendall(head[:10])
        self.one.turn()
        self.assertEqual(
            [reader for reader in self.one.reactor.readers if reader is not self.one.port],
            self.one.handoff._inboxes,
        )
        self.one.reactor.advance(0.1)
        client.sendall(head[10:])
        self.one.reactor.advance(0.1)
        self.two.turn()
        self.assertEqual(self.two.taken, [(3, head)])

    def test_slow(self) -> None:
        """After a second without a whole line, the site with its own limits has the connection."""
        for data in (b"", b"G", line("x" * 16 + self.two.mark)[:30]):
            self.accept(data)
            self.one.site.reads = bool(data)
            self.one.reactor.advance(0.9)
            adopted = len(self.one.reactor.adopted)
            self.one.reactor.advance(0.2)
            self.assertEqual(len(self.one.reactor.adopted), adopted + 1)

    def test_late(self) -> None:
        """A line that came while the reactor was busy counts, however late the look at it."""
        client = self.accept()
        head = line("x" * 16 + self.two.mark)
        client.sendall(head)
        self.one.reactor.advance(30)
        self.two.turn()
        self.assertEqual(self.two.taken, [(3, head)])
        self.assertEqual(self.one.reactor.adopted, [])

    def test_queue(self) -> None:
        """One turn takes all connections that wait in the queue of the socket: no other worker can."""
        for _ in range(9):
            self.accept(line("x" * 16 + self.two.mark))
        self.two.handoff.doRead()
        self.assertEqual(len(self.two.taken), 9)

    def test_many(self) -> None:
        """Beyond a number of silent connections, each next one is the site's at once."""
        self.patch(ports, "_MOST_OPENERS", 20)
        self.one.site.reads = False
        for _ in range(50):
            self.accept(b"")
        self.assertEqual(len(self.one.reactor.adopted), 30)
        self.one.reactor.advance(1.1)
        self.assertEqual(len(self.one.reactor.adopted), 50)

    def test_longLine(self) -> None:
        """A line beyond what is looked at is the site's to refuse."""
        self.accept(b"GET /engine.io/?sid=" + b"x" * 5000)
        self.assertEqual(len(self.one.reactor.adopted), 1)

    def test_clientGone(self) -> None:
        """A client that goes before its first byte leaves nothing."""
        client = self.accept()
        client.close()
        self.one.turn()
        self.assertEqual(self.one.reactor.adopted, [])
        self.assertEqual(self.one.reactor.getDelayedCalls(), [])

    def test_busy(self) -> None:
        """An owner whose socket is full gets the connection a moment later, or the site here has it."""
        sent, connections = 0, []
        while self.one.handoff.give(self.two.mark, 3, [0]) is Handed.TAKEN:
            sent += 1
            self.assertLess(sent, 10_000)
        # The system may keep no more than 11 for each socket.
        self.assertGreaterEqual(sent, 176)
        self.assertIs(self.one.handoff.give(self.two.mark, 3, [0]), Handed.BUSY)
        head = line("x" * 16 + self.two.mark)
        connections.append(self.accept(head))
        self.assertEqual(self.one.reactor.adopted, [])
        with patch.object(self.two.handoff, "_adopt", lambda port, descriptor: os.close(descriptor)):
            for _ in range(sent):
                self.two.handoff.doRead()
        self.one.reactor.advance(0.1)
        self.two.turn()
        self.assertEqual(self.two.taken, [(3, head)])
        while self.one.handoff.give(self.two.mark, 3, [0]) is Handed.TAKEN:
            pass
        self.accept(head)
        self.one.reactor.advance(1.1)
        self.assertEqual(self.one.reactor.adopted, [head])

    def test_dead(self) -> None:
        """The owner of a killed worker leaves a file; the refusal comes from here, at once."""
        for inbox in self.two.handoff._inboxes:
            inbox.socket.close()
            self.two.reactor.readers.remove(inbox)
        self.two.handoff._inboxes.clear()
        head = line("x" * 16 + self.two.mark)
        self.accept(head)
        self.assertEqual(self.one.reactor.adopted, [head])

    def test_leaves(self) -> None:
        """A worker that ends takes what is on its way, and nothing after: the refusal comes from here."""
        head = line("x" * 16 + self.two.mark)
        self.accept(head)
        self.two.handoff.leave()
        self.accept(head)
        self.two.turn()
        self.assertEqual(self.two.taken, [(3, head)])
        self.assertEqual(self.one.reactor.adopted, [head])
        self.two.handoff.stop()

    def test_fails(self) -> None:
        """A connection that cannot be served is closed, and the next ones are served."""

        def fail(port: int, descriptor: int) -> None:
            os.close(descriptor)
            raise TypeError

        head = line("x" * 16 + self.two.mark)
        failing = patch.object(self.two.handoff, "_adopt", fail)
        with failing:
            client = self.accept(head)
            self.two.turn()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertTrue(self.gone(client))
        with patch.object(self.one.fleet, "place", lambda: 1 // 0):
            client = self.accept(line())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.gone(client))
        self.accept(head)
        self.accept(line())
        self.two.turn()
        self.assertEqual(self.two.taken, [(3, head)])
        self.assertEqual(self.one.reactor.adopted, [line()])

    def test_stops(self) -> None:
        """A port that stops gives its silent connections to another worker, and without one serves them."""
        head = line()
        client = self.accept()
        self.tell("stopping", "ready")
        self.one.port.stopListening()
        self.assertTrue(self.one.listening.closed)
        self.assertEqual(self.one.site.starts, 0)
        client.sendall(head)
        self.two.turn()
        self.assertEqual(self.two.taken, [(3, head)])
        self.two.site.reads = False
        self.clients.append(self.two.accept())
        self.tell("stopping", "stopping")
        self.two.port.stopListening()
        self.assertEqual(len(self.two.reactor.adopted), 1)

    def test_placed(self) -> None:
        """A new session goes to the worker with the fewest, when this one has more by over a tenth."""
        for own, fewest, away in ((0, 0, 0), (1, 0, 0), (12, 10, 0), (13, 10, 1), (100, 92, 1), (103, 92, 2)):
            self.one.count(own)
            self.two.count(fewest)
            self.accept(line())
            self.two.turn()
            self.assertEqual(len(self.two.taken), away, (own, fewest))
        self.accept(line(path="/other/"))
        self.accept(line("x" * 16 + self.one.mark))
        self.two.turn()
        self.assertEqual(len(self.two.taken), 2)

    def test_placedOnlyAtReady(self) -> None:
        """Nothing is placed with a worker that stops or does not live."""
        self.one.count(100)
        self.tell("ready", "stopping")
        self.accept(line())
        self.tell("ready", "ready")
        self.two.handoff.stop()
        self.accept(line())
        self.two.handoff.start()
        self.assertEqual(self.one.reactor.adopted, [line()] * 2)

    def test_placedThoughBusy(self) -> None:
        """A new session does not wait for a worker whose socket is full."""
        self.one.count(100)
        while self.one.handoff.give(self.two.mark, 3, [0]) is Handed.TAKEN:
            pass
        self.accept(line())
        self.assertEqual(self.one.reactor.adopted, [line()])

    def affine(self, *addresses: str) -> tuple[list[str], list[str]]:
        """Accept connections of TLS; return the addresses that stayed and those that were handed over."""
        self.one.port.stopListening()
        self.one.port = self.one.makePort(ports.AffinePort)
        self.two.taken.clear()
        stayed, left = [], []
        for address in addresses:
            near, far = socket.socketpair()
            near.setblocking(False)
            self.clients.append(far)
            far.sendall(b"\x16\x03\x01")
            before = len(self.one.reactor.adopted)
            self.one.listening.waiting.append(near)
            with patch.object(self.one.listening, "address", (address, 1234)):
                self.one.port.doRead()
            (stayed if len(self.one.reactor.adopted) > before else left).append(address)
            self.two.turn()
        self.assertEqual(self.two.taken, [(3, b"\x16\x03\x01")] * len(left))
        return stayed, left

    def acceptAll(self, *heads: bytes) -> list[socket.socket]:
        clients = self.one.acceptAll(*heads)
        self.clients += clients
        return clients

    def test_together(self) -> None:
        """Connections that one turn accepts for one worker are one datagram."""
        mine, nobodys = line("x" * 16 + self.one.mark), line("x" * 16 + markOf(9, 9))
        theirs = [line("x" * 16 + self.two.mark, method=method) for method in ("GET", "POST") * 3]
        clients = self.acceptAll(*theirs[:3], mine, nobodys, *theirs[3:])
        self.assertEqual(self.one.reactor.adopted, [mine, nobodys])
        [first, *others] = self.two.handoff._inboxes
        self.assertTrue(self.two.handoff.receive(first.socket))
        self.assertEqual(self.two.taken, [(3, head) for head in theirs])
        for inbox in (first, *others):
            self.assertFalse(self.two.handoff.receive(inbox.socket))
        self.assertEqual((self.one.handoff.sent, self.two.handoff.received), (6, 6))
        self.assertTrue(all(map(self.gone, clients)))

    def test_togetherButBusy(self) -> None:
        """Without room at their owner, connections wait for it; a new session does not."""
        self.one.count(100)
        while self.one.handoff.give(self.two.mark, 3, [0]) is Handed.TAKEN:
            pass
        heads = [line("x" * 15 + f"{number}" + self.two.mark) for number in range(5)]
        self.acceptAll(*heads, line())
        self.assertEqual(self.one.reactor.adopted, [line()])
        with patch.object(self.two.handoff, "_adopt", lambda port, descriptor: os.close(descriptor)):
            self.two.turn()
        self.one.reactor.advance(0.03)
        self.two.turn()
        self.assertEqual(self.two.taken, [(3, head) for head in heads])
        self.assertEqual(self.one.reactor.adopted, [line()])

    def test_togetherButGone(self) -> None:
        """The refusals of a dead owner's sessions come from here, at once."""
        heads = [line("x" * 15 + f"{number}" + self.two.mark) for number in range(5)]
        self.two.handoff.leave()
        self.acceptAll(*heads)
        self.assertEqual(self.one.reactor.adopted, heads)
        self.assertEqual(self.one.reactor.getDelayedCalls(), [])

    def test_oneFails(self) -> None:
        """A connection that fails in its new worker leaves the others of its datagram alone."""
        heads = [line("x" * 15 + f"{number}" + self.two.mark) for number in range(5)]
        adopt, taken = self.two.handoff._adopt, self.two.taken

        def fail(port: int, descriptor: int) -> None:
            adopt(port, descriptor)
            if len(taken) == 2:
                raise TypeError

        self.acceptAll(*heads)
        with patch.object(self.two.handoff, "_adopt", fail):
            self.two.turn()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(taken, [(3, head) for head in heads])

    def test_oneFailsHere(self) -> None:
        """A connection that fails after it could not leave is closed, and the others are served."""
        heads = [line("x" * 15 + f"{number}" + self.two.mark) for number in range(5)]
        self.two.handoff.leave()
        adopt, failing = self.one.port.adopt, iter([False, True, False, False, False])
        with patch.object(self.one.port, "adopt", lambda *given: 1 // 0 if next(failing) else adopt(*given)):
            clients = self.acceptAll(*heads)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.gone(clients[1]))
        self.assertEqual(self.one.reactor.adopted, heads[:1] + heads[2:])

    def test_receiversShortage(self) -> None:
        """A worker with too few descriptors left takes the first connections, and tells the loss."""
        heads = [line("x" * 15 + f"{number}" + self.two.mark) for number in range(5)]
        received: list[int] = []
        adopting = patch.object(
            self.two.handoff, "_adopt", lambda port, descriptor: received.append(descriptor)
        )
        for left in (2, 0):
            clients = self.acceptAll(*heads)
            before = set(os.listdir("/proc/self/fd"))
            with descriptorsLeft(left), adopting:
                self.assertTrue(self.two.handoff.receive(self.two.handoff._inboxes[0].socket))
            self.assertEqual(len(received), left)
            for descriptor, head in zip(received, heads, strict=False):
                with socket.socket(fileno=descriptor) as connection:
                    self.assertEqual(connection.recv(65536), head)
            received.clear()
            self.assertEqual(set(os.listdir("/proc/self/fd")), before)
            self.assertIn(f"{5 - left} of 5 connections from another worker are lost", self.messages[-1])
            self.assertTrue(all(map(self.gone, clients)))
        self.assertEqual((self.one.handoff.sent, self.two.handoff.received), (10, 2))
        self.acceptAll(heads[0])
        self.two.turn()
        self.assertEqual(self.two.taken, [(3, heads[0])])

    def test_affine(self) -> None:
        """A client's connections are together, and clients are on all workers."""
        addresses = [f"192.0.2.{number}" for number in range(40)]
        stayed, left = self.affine(*(addresses * 2))
        self.assertEqual(set(stayed) & set(left), set())
        self.assertTrue(10 <= len(set(stayed)) <= 30, stayed)
        # The network of IPv6 counts as one client.
        stayed, left = self.affine(*(f"2001:db8::{number}" for number in range(10)))
        self.assertIn(10, (len(stayed), len(left)))

    def test_affineAlone(self) -> None:
        """Without another worker that takes clients, all stay."""
        self.tell("ready", "stopping")
        addresses = [f"192.0.2.{number}" for number in range(20)]
        self.assertEqual(self.affine(*addresses), (addresses, []))

    def test_affineOverload(self) -> None:
        """Many clients behind one address spread over the workers."""
        address = "192.0.2.1"
        [first] = {*self.affine(address)[0]} or {None}
        home, other = (self.one, self.two) if first else (self.two, self.one)
        home.count(100)
        other.count(60)
        stayed, left = self.affine(address)
        self.assertEqual(bool(stayed), bool(first))
        other.count(40)
        stayed, left = self.affine(address)
        self.assertEqual(bool(left), bool(first))

    def test_shortage(self) -> None:
        """Without descriptors a port pauses for a second: its socket stays readable."""
        self.one.listening.error = OSError(errno.EMFILE, "Too many open files")
        self.one.port.doRead()
        self.assertNotIn(self.one.port, self.one.reactor.readers)
        self.assertIn("no connection can be accepted for 1 s", self.messages[-1])
        self.one.listening.error = None
        self.one.reactor.advance(1)
        self.assertIn(self.one.port, self.one.reactor.readers)
        self.accept(line())
        self.assertEqual(self.one.reactor.adopted, [line()])

    def test_stopsDuringAShortage(self) -> None:
        self.one.listening.error = OSError(errno.EMFILE, "Too many open files")
        self.one.port.doRead()
        self.one.port.stopListening()
        self.assertEqual(self.one.reactor.getDelayedCalls(), [])

    def left(self) -> int:
        """Return the connections that wait to be accepted, and close them."""
        waiting, self.one.listening.waiting = self.one.listening.waiting, []
        for near in waiting:
            near.close()
        return len(waiting)

    def test_fairness(self) -> None:
        """One turn accepts few connections that any worker could serve, so that the others get some."""
        self.acceptAll(*[line()] * 10)
        self.assertEqual(self.left(), 6)
        self.acceptAll(*[b"GET / HTTP/1.1\r\n"] * 10)
        self.assertEqual(self.left(), 6)
        self.acceptAll(*[b""] * 10)
        self.assertEqual(self.left(), 6)

    def test_boundConnections(self) -> None:
        """One turn accepts many connections that one worker alone can serve, whichever accepts them."""
        for mark in (self.one.mark, self.two.mark):
            self.acceptAll(*[line("x" * 16 + mark)] * 70)
            self.assertEqual(self.left(), 70 - TOGETHER)
        self.two.turn()
        self.assertEqual(len(self.one.reactor.adopted), TOGETHER)
        self.assertEqual(len(self.two.taken), TOGETHER)
        bound = line("x" * 16 + self.two.mark)
        self.acceptAll(*[bound, line()] * 10)
        self.assertEqual(self.left(), 12)

    def test_otherPython(self) -> None:
        """A Python whose sockets lack a private name accepts by the public one."""
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
            listening.bind(f"{self.folder}/port")
            listening.listen()
            client.connect(f"{self.folder}/port")
            with patch.object(sharedport, "stands", lambda *names, without: False):
                accepted, _ = sharedport._acceptOf(listening)()
            with accepted:
                client.sendall(b"x")
                self.assertEqual(accepted.recv(9), b"x")


WORKERS = [markOf(number, 7) for number in range(3)]
SIDS = [
    *("x" * 16 + mark for mark in WORKERS),
    "x" * 16 + WORKERS[1] + ".a-1",
    "x" * 15 + WORKERS[1],
    "é",
    "",
]
FIELDS = ["EIO=4", "t=Nsidx", "sid", "side=1", "a=sid=", "=", "", "?", "#", "a+b", "%26"]
FIELDS += [f"{name}={sid}" for name in ("sid", "%73id", "xsid", "SID", "sid=", "b&sid") for sid in SIDS]
PATHS = [
    "/socket.io/",
    "/socket.io",
    "/socket.io/a",
    "/%73ocket.io/",
    "/",
    "//socket.io/",
    "/socket.io/#",
    "/a/",
]
ENDS = [" HTTP/1.1\r\n", " HTTP/1.0\r\n", " HTTP/1.1\n", " HTTP/1.1\r\n\r\n", " x HTTP/1.1\r\n"]


class RequestLineTests(SynchronousTestCase):
    """The fast path for request lines chooses the same worker as the path for all others."""

    def setUp(self) -> None:
        fleet: Any = SimpleNamespace(mark=WORKERS[0], place=lambda: "placed")
        listening: Any = Listening()
        site = Server().site(Resource())
        self.port = PeekingPort(Reactor(), listening, 0, site, cast(Handoff, None), fleet)

    def test_officialClients(self) -> None:
        """Lines of official clients take the fast path."""
        for head in (
            f"GET /socket.io/?EIO=4&transport=polling&t=P0xT5i2&sid={SIDS[1]} HTTP/1.1\r\n",
            f"POST /socket.io/?EIO=4&transport=polling&t=P0xT5i2&sid={SIDS[1]} HTTP/1.1\r\n",
            f"GET /socket.io/?transport=polling&EIO=4&sid={SIDS[3]}&t=1732878000.123 HTTP/1.1\r\n",
            f"GET /socket.io/?EIO=3&transport=websocket&sid={SIDS[1]} HTTP/1.1\r\n",
        ):
            with patch.object(ports, "readQuery", lambda url: 1 // 0):
                self.assertEqual(self.port.workerFor(head.encode()), (WORKERS[1], True))

    def compare(self, head: str) -> None:
        chosen = self.port.workerFor(head.encode())
        with patch.object(ports, "_PLAIN", NEVER):
            self.assertEqual(chosen, self.port.workerFor(head.encode()), head)

    def test_oddLines(self) -> None:
        for pair in product(FIELDS, FIELDS):
            self.compare(f"GET /socket.io/?{'&'.join(pair)} HTTP/1.1\r\n")
        for method, path, mark, end in product(("GET", "POST", "OPTIONS", "PUT"), PATHS, "?#", ENDS):
            self.compare(f"{method} {path}{mark}EIO=4&sid={SIDS[1]}{end}")

    @given(
        *(st.text(st.sampled_from("sid=&%#+? ;./7x\x00\x7fé"), max_size=8) for _ in range(3)),
        st.sampled_from([*FIELDS, f"sid={SIDS[1]}"]),
    )
    def test_anyLine(self, path: str, before: str, behind: str, field: str) -> None:
        for first in ("/socket.io/?", f"/socket.io/{path}?", path):
            self.compare(f"GET {first}{before}{field}{behind} HTTP/1.1\r\n")
            self.compare(f"GET {first}{before}&{field}&{behind} HTTP/1.1\r\n")

    def test_longLines(self) -> None:
        """A long line that the fast path cannot take makes it look at no byte again and again."""
        for field in (b"sid=&", b"a=1&", b"a", b"&", b"s"):
            head = b"GET /socket.io/?" + field * (4000 // len(field)) + b" HTTP/1.1\r\n"
            self.assertIsNone(ports._PLAIN.fullmatch(head))
