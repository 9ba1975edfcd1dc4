"""
A server that lets its clients go over some time: the delay, the slices, and what is served until then.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tests.memory import WireTestCase
from tests.talk import Recorder, TalkTestCase
from tests.test_service import RunningTestCase, parse
from txrealtime import CloseReason, Server
from txrealtime.engineio.session import State
from txrealtime.monitor.health import Health, Ready
from txrealtime.service.options import Options, StartupError
from txrealtime.service.service import makeService
from txrealtime.testing import Client


class SlicesTests(WireTestCase):
    """Sessions on the wire, of an engine that drains."""

    def open(self, count: int) -> list[str]:
        return [self.openPolling() for _ in range(count)]

    def left(self) -> set[str]:
        """The sids of the sessions that have not been let go."""
        return {sid for sid, session in self.engine.sessions.items() if session.state is State.OPEN}

    def test_slices(self) -> None:
        """In 10 seconds 100 sessions go, about as many in each second, and nobody is late."""
        self.open(100)
        slices = self.engine.drainSlowly(10, 5)
        counts = [len(self.left())]
        for _ in range(10):
            self.assertNoResult(slices.done)
            self.clock.pump([0.1] * 10)
            counts.append(len(self.left()))
        self.successResultOf(slices.done)
        self.assertEqual(counts[-1], 0)
        gone = [before - after for before, after in pairwise(counts)]
        self.assertTrue(all(9 <= count <= 11 for count in gone), gone)
        self.assertTrue(all(owner.ends == [CloseReason.SHUTTING_DOWN] for owner in self.owners))

    def test_order(self) -> None:
        """The order is not that in which they came: two drains differ."""
        orders = []
        for _ in range(2):
            self.makeEngine()
            self.owners = []
            sids = self.open(30)
            slices = self.engine.drainSlowly(3, 5)
            order: list[int] = []
            while self.left():
                self.clock.advance(0.1)
                order += [place for place, sid in enumerate(sids) if sid not in self.left() | {*order}]
            self.successResultOf(slices.done)
            orders.append(list(dict.fromkeys(order)))
        self.assertEqual(sorted(orders[0]), sorted(orders[1]))
        self.assertNotEqual(orders[0], orders[1])

    def test_servedUntilThen(self) -> None:
        """A client is served until its slice: it sends, polls and moves to WebSocket."""
        sids = self.open(20)
        self.engine.drainSlowly(2, 5)
        remaining, other = [sid for sid in sids if sid in self.left()][:2]
        owner = self.owners[sids.index(remaining)]
        self.assertEqual(self.post(remaining, b"4hello").answer.body, b"ok")
        self.assertEqual(owner.heard, ["hello"])
        poll = self.get(remaining)
        self.assertIsNone(poll.response)
        client = self.upgrade(other)
        client.send("4moved")
        self.assertEqual(self.owners[sids.index(other)].heard, ["moved"])
        self.clock.pump([0.1] * 20)
        self.assertEqual([frame.payload[:2] for frame in client.frames()], [(1001).to_bytes(2, "big")])
        self.assertEqual(poll.answer.status, 503)
        self.assertEqual(self.engine.sessions.get(remaining), None)

    def test_newcomers(self) -> None:
        """New sessions are refused, over either transport, and told when to try again."""
        self.open(5)
        self.engine.drainSlowly(30, 5)
        answer = self.get().answer
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "30"))
        client = self.webSocket()
        assert client.response is not None
        self.assertEqual((client.response.status, client.response.headers["retry-after"]), (503, "30"))
        self.engine.reopen()
        self.assertEqual(self.get().answer.status, 200)

    def test_ownTimeouts(self) -> None:
        """Each slice has the whole timeout: a WebSocket is not cut because others are late."""
        clients = [self.openWebSocket() for _ in range(2)]
        self.engine.drainSlowly(4, 3)
        self.clock.pump([0.1] * 29)
        told = [bool(client.frames()) for client in clients]
        self.assertEqual(sorted(told), [False, True] if False in told else [True, True])
        self.clock.pump([0.1] * 2)
        first = [client.link.disconnecting for client in clients]
        self.assertEqual(sorted(first), [False, True])
        self.clock.pump([0.1] * 30)
        self.assertEqual([client.link.disconnecting for client in clients], [True, True])

    def test_leaversEndIt(self) -> None:
        """When all clients have left by themselves, nothing is waited for."""
        sids = self.open(10)
        slices = self.engine.drainSlowly(100, 5)
        for sid in self.left():
            self.post(sid, b"1")
        self.assertEqual(self.left(), set())
        self.clock.advance(0.1)
        self.successResultOf(slices.done)
        for sid in sids:
            self.get(sid)
        self.successResultOf(self.engine.drain(5))
        self.assertNothingLeft()

    def test_lateReactor(self) -> None:
        """A reactor that was late makes up for it."""
        self.open(100)
        slices = self.engine.drainSlowly(10, 5)
        self.clock.advance(5)
        self.assertTrue(48 <= len(self.left()) <= 50, len(self.left()))
        self.clock.advance(60)
        self.assertEqual(self.left(), set())
        self.successResultOf(slices.done)

    def test_givenUp(self) -> None:
        self.open(10)
        slices = self.engine.drainSlowly(10, 5)
        slices.end()
        self.successResultOf(slices.done)
        left = self.left()
        self.assertGreater(len(left), 7)
        self.clock.advance(3)
        self.assertEqual(self.left(), left)


class ServerTests(TalkTestCase):
    """The same of a server."""

    def start(self, count: int, **options: Any) -> list[Client]:
        self.server: Server = self.makeServer(drainTimeout=5, **options)
        self.lobby = Recorder()
        self.server.mount("/lobby", self.lobby)
        return [self.join(self.server, "/lobby") for _ in range(count)]

    def present(self, clients: list[Client]) -> int:
        return sum(client.transport.closed is None for client in clients)

    def health(self) -> bool:
        request: Any = None
        return Health(self.server)._answer(request)[0]

    def test_delay(self) -> None:
        """Health checks fail at once, but for the delay all goes on, new clients included."""
        clients = self.start(2, drainDelay=3)
        self.assertTrue(self.health())
        retired = self.server.retire()
        self.assertFalse(self.health())
        self.assertEqual(
            [(check.name, check.passed) for check in Ready(self.server).checks()],
            [("service", False), ("bus", True), ("room", True)],
        )
        self.advance(2.9)
        self.assertNoResult(retired)
        clients.append(self.join(self.server, "/lobby"))
        self.assertEqual(self.present(clients), 3)
        self.advance(0.2)
        self.successResultOf(retired)
        self.assertEqual(self.present(clients), 3)
        self.successResultOf(self.server.stopService())
        self.assertEqual(self.present(clients), 0)

    def test_slices(self) -> None:
        clients = self.start(20, drain=2, drainDelay=1)
        retired = self.server.retire()
        self.advance(0.9)
        self.assertEqual(self.present(clients), 20)
        self.clock.pump([0.1] * 11)
        self.assertTrue(8 <= self.present(clients) <= 12, self.present(clients))
        self.clock.pump([0.1] * 11)
        self.assertEqual(self.present(clients), 0)
        self.successResultOf(retired)
        self.successResultOf(self.server.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopService(self) -> None:
        """A stop without a word before retires first, as in a tree of services."""
        clients = self.start(10, drain=1, drainDelay=1)
        stopped = self.server.stopService()
        self.assertFalse(self.health())
        self.assertEqual(self.present(clients), 10)
        self.clock.pump([0.1] * 15)
        self.assertNoResult(stopped)
        self.assertTrue(3 <= self.present(clients) <= 7, self.present(clients))
        self.clock.pump([0.1] * 7)
        self.successResultOf(stopped)

    def test_hasten(self) -> None:
        """A server in a hurry waits for neither time."""
        for seconds in (0, 0.5, 3):
            clients = self.start(10, drain=5, drainDelay=1)
            stopped = self.server.stopService()
            self.clock.pump([0.1] * int(seconds * 10))
            self.server.hasten()
            self.successResultOf(stopped)
            self.assertEqual(self.present(clients), 0)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hastenBefore(self) -> None:
        clients = self.start(3, drain=5)
        self.server.hasten()
        self.successResultOf(self.server.stopService())
        self.assertEqual(self.present(clients), 0)

    def test_startAgain(self) -> None:
        """A server that is started again during its drain lets nobody else go."""
        clients = self.start(20, drain=10)
        stopped = self.server.stopService()
        self.clock.pump([0.1] * 20)
        left = self.present(clients)
        self.assertTrue(0 < left < 20)
        self.server.startService()
        self.successResultOf(stopped)
        self.assertTrue(self.health())
        self.clock.pump([0.1] * 100)
        self.assertEqual(self.present(clients), left)
        self.join(self.server, "/lobby")

    def test_disconnectOnStop(self) -> None:
        """The DISCONNECT of each client comes with its slice."""
        clients = self.start(10, drain=1, disconnectOnStop=True)
        for client in clients:
            self.wireOf(client)
        self.server.retire()
        self.clock.pump([0.1] * 5)
        told = ["1/lobby," in self.wireOf(client) for client in clients]
        self.assertEqual(told.count(False), self.present(clients))
        self.assertTrue(3 <= told.count(True) <= 7, told)
        self.clock.pump([0.1] * 6)
        self.assertEqual(self.present(clients), 0)


class ServiceTests(RunningTestCase):
    """The service of `twistd realtime`, its port and its options."""

    def begin(self, *options: str) -> list[Client]:
        self.stopped: list[bool] = []
        self.reactor.stop = lambda: self.stopped.append(True)  # type: ignore[method-assign]
        self.service = makeService(parse("--app", "served:server", *options), self.reactor)
        self.service.startService()
        clients = [Client(self.server) for _ in range(10)]
        for client in clients:
            client.connect("/")
        return clients

    def test_reactorStopsBehind(self) -> None:
        """The port is open and the reactor runs until the last slice: pages are served meanwhile."""
        clients = self.begin("--drain", "4", "--drain-delay", "2")
        self.service.leave()
        self.assertEqual(
            self.lines("draining"), ["draining: 10 clients go over 4 seconds, 2 seconds from now"]
        )
        self.reactor.pump([0.1] * 19)
        self.assertTrue(all(client.isConnected() for client in clients))
        self.reactor.pump([0.1] * 20)
        self.assertTrue(0 < sum(client.isConnected() for client in clients) < 10)
        self.assertEqual(self.stopped, [])
        self.assertTrue(all(child.running for child in self.service))
        self.reactor.pump([0.1] * 20)
        self.assertFalse(any(client.isConnected() for client in clients))
        self.assertEqual(self.stopped, [True])
        stopped = self.service.stopService()
        self.reactor.advance(0.1)
        self.successResultOf(stopped)

    def test_atOnce(self) -> None:
        """Without the two times, the reactor stops at once, as ever."""
        self.begin()
        self.service.leave()
        self.assertEqual((self.stopped, self.lines("draining")), ([True], []))

    def test_reactorStopped(self) -> None:
        """A reactor that is stopped by other means lets the clients go as slowly."""
        clients = self.begin("--drain", "4")
        stopped = self.service.stopService()
        self.reactor.pump([0.1] * 20)
        self.assertTrue(0 < sum(client.isConnected() for client in clients) < 10)
        self.assertNoResult(stopped)
        self.reactor.pump([0.1] * 25)
        self.successResultOf(stopped)

    def test_options(self) -> None:
        """--drain is an option of its own, and no shortening of --drain-timeout."""
        options = Options()
        options.parseOptions(["--drain", "7", "--drain-delay", "1.5", "--drain-timeout", "3"])
        self.assertEqual(options["settings"], {"drain": 7.0, "drainDelay": 1.5, "drainTimeout": 3.0})
        options = Options()
        options.parseOptions(["--drain=7", "--drain-t", "3"])
        self.assertEqual(options["settings"], {"drain": 7.0, "drainTimeout": 3.0})
        for text in ("-1", "soon", "inf"):
            self.assertRaises(StartupError, Options().parseOptions, ["--drain", text])
