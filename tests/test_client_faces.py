"""
One interface of the real client and the testing kit's: the same application on both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.clientmemory import World
from txrealtime import CloseReason, ConnectionRejected, Server
from txrealtime.client import AnyClient, AnyNamespace, Client, Namespace
from txrealtime.errors import AckTimeout, Disconnected, TransportError
from txrealtime.testing import MemoryClient, makeServer


def serve(server: Server) -> None:
    """Register what the application talks to."""

    @server.on("echo")
    def echo(socket: Any, *args: Any) -> Any:
        return args

    @server.on("ask")
    async def ask(socket: Any, *args: Any) -> Any:
        return await socket.call("question", *args)

    @server.on("back")
    def back(socket: Any, *args: Any) -> None:
        socket.emit("back", *args)

    @server.on("never")
    def never(socket: Any) -> Any:
        return Deferred(lambda _: None)

    @server.on("bye")
    def bye(socket: Any) -> None:
        socket.disconnect()

    @server.namespace("/private").onConnect
    def enter(socket: Any, auth: Any) -> None:
        if auth != {"token": "x"}:
            raise ConnectionRejected("who are you?", {"code": 401})
        socket.emit("welcome", b"bytes")


class Application:
    """An application that is written for a client, whichever it is."""

    def __init__(self, client: AnyClient) -> None:
        self.client = client
        self.log: list[Any] = []
        client.on("question")(lambda *args: args[::-1])
        client.onConnect(lambda: self.log.append("connect"))
        client.onDisconnect(lambda reason: self.log.append(reason))
        client.onAny(lambda event, *args: self.log.append((event, *args)))
        self.follow(client.namespace("/private", {"token": "x"}))

    def follow(self, namespace: AnyNamespace) -> None:
        @namespace.on("welcome")
        async def welcome(data: Any) -> None:
            self.log.append(("welcome", data))


class BothTests(World):
    """Each scenario on the real client over HTTP in memory, and on the kit's."""

    def scenario(
        self, play: Callable[[AnyClient, Application, Callable[[], Any]], list[Any]], **options: Any
    ) -> list[Any]:
        results = []
        for make in (self.real, self.kits):
            assert self.server is not None
            self.server.stopService()
            self.useServer(**options)
            assert self.server is not None
            serve(self.server)
            client, lose = make()
            self.clients.append(client)
            results.append(play(client, Application(client), lose))
            client.stopService()
            self.settle()
        self.assertEqual(*results)
        return results[0]

    def real(self) -> tuple[Client, Callable[[], Any]]:
        client = self.makeClient(start=False, transports=["websocket"], randomizationFactor=0)
        self.clients.remove(client)
        return client, self.endpoint.cut

    def kits(self) -> tuple[MemoryClient, Callable[[], Any]]:
        assert self.server is not None
        client = MemoryClient(self.server)
        return client, client.lose

    def test_talk(self) -> None:
        def play(client: AnyClient, application: Application, lose: Callable[[], Any]) -> list[Any]:
            client.emit("back", "buffered", b"x")
            before = (client.connected, client.id, client.transport, client.buffered > 0)
            client.startService()
            self.settle()
            acks = [client.call("echo", *args) for args in ((), (1,), (1, b"2"), (None,))]
            asked = client.call("ask", 1, 2)
            self.settle()
            values = [self.successResultOf(ack) for ack in (*acks, asked)]
            state = (client.connected, client.transport, client.buffered, client.recovered)
            return [before, state, values, list(application.log)]

        before, state, values, log = self.scenario(play)
        self.assertEqual(before, (False, None, None, True))
        self.assertEqual(state, (True, "websocket", 0, False))
        self.assertEqual(values, [None, 1, (1, b"2"), None, (2, 1)])
        self.assertEqual(log, ["connect", ("welcome", b"bytes"), ("back", "buffered", b"x")])

    def test_lossAndReturn(self) -> None:
        def play(client: AnyClient, application: Application, lose: Callable[[], Any]) -> list[Any]:
            client.startService()
            self.settle()
            application.log.clear()
            waiting = client.call("never")
            self.settle()
            lose()
            self.settle()
            self.failureResultOf(waiting, Disconnected)
            isConnected = client.connected
            kept = client.call("echo", "kept", timeout=5)
            client.emit("back", "volatile", volatile=True)
            self.wait(1)
            return [isConnected, client.connected, self.successResultOf(kept), application.log[1:]]

        log = self.scenario(play)
        self.assertEqual(log[:3], [False, True, "kept"])
        self.assertEqual(log[3], ["connect", ("welcome", b"bytes")])

    def test_recovery(self) -> None:
        """The missed events come, and no handler sees an offset."""

        def play(client: AnyClient, application: Application, lose: Callable[[], Any]) -> list[Any]:
            client.startService()
            self.settle()
            first = client.id
            client.emit("back", "before")
            self.settle()
            lose()
            self.settle()
            assert self.server is not None
            self.server.emit("back", "missed")
            self.wait(1)
            self.server.emit("back", "after")
            self.settle()
            log = [entry for entry in application.log if entry[0] in ("back", "connect")]
            return [client.recovered, client.id == first, log]

        recovered, isSame, log = self.scenario(play, recoveryWindow=30)
        self.assertEqual((recovered, isSame), (True, True))
        events = [entry for entry in log if entry[0] == "back"]
        self.assertEqual(events, [("back", "before"), ("back", "missed"), ("back", "after")])

    def test_refusals(self) -> None:
        def play(client: AnyClient, application: Application, lose: Callable[[], Any]) -> list[Any]:
            stranger = client.namespace("/private", {"token": "no"})
            errors: list[Any] = []
            stranger.onConnectError(lambda error: errors.append((str(error), error.data)))
            client.startService()
            self.settle()
            self.failureResultOf(stranger.whenConnected(), ConnectionRejected)
            client.emit("bye")
            self.settle()
            self.failureResultOf(client.whenConnected(), Disconnected)
            self.wait(10)
            away = client.connected
            client.connect()
            self.settle()
            late = client.call("never", timeout=2)
            self.wait(2)
            self.failureResultOf(late, AckTimeout)
            return [errors, away, client.connected, list(application.log)]

        errors, away, back, log = self.scenario(play)
        self.assertEqual(errors, [("who are you?", {"code": 401})])
        self.assertEqual((away, back), (False, True))
        self.assertEqual(log, ["connect", CloseReason.SERVER_DISCONNECT, "connect"])


class MemoryClientTests(SynchronousTestCase):
    """The kit's own means."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = makeServer(reactor=self.clock)
        serve(self.server)

    def started(self, *args: Any, **options: Any) -> MemoryClient:
        client = MemoryClient(self.server, *args, **options)
        client.startService()
        return client

    def test_interface(self) -> None:
        client = self.started()
        for each in (client, Client("http://localhost", reactor=self.clock)):
            self.assertIsInstance(each, AnyClient)
            self.assertIsInstance(each.namespace("/private"), AnyNamespace)
        self.assertNotIsInstance(client.namespace("/x"), AnyClient)
        self.assertIsInstance(client.namespace("/x"), Namespace)

    def test_atOnce(self) -> None:
        """Nothing has to be awaited: Deferreds have fired, and events have come."""
        for transport in ("websocket", "polling"):
            client = self.started(transport=transport)
            got: list[Any] = []
            client.on("news")(got.append)
            self.assertIs(self.successResultOf(client.whenConnected()), client)
            self.server.emit("news", b"1")
            self.assertEqual((got, client.transport), ([b"1"], transport))
            self.successResultOf(client.stopService())

    def test_options(self) -> None:
        seen: list[Any] = []
        self.server.onConnect(lambda socket: seen.append(socket.handshake))
        self.started(headers={"X-Token": "t", "Cookie": "a=b"}, query={"v": "2"}, address="192.0.2.9")
        [handshake] = seen
        self.assertEqual(handshake.headers["x-token"], "t")
        self.assertEqual(handshake.headers["cookie"], "a=b")
        self.assertEqual((handshake.query["v"], handshake.address), ("2", "192.0.2.9"))

    def test_unreachable(self) -> None:
        client = MemoryClient(self.server)
        client.reachable = False
        errors: list[Any] = []
        client.onConnectError(errors.append)
        client.startService()
        for delay in (1, 2, 4, 5, 5):
            count = len(errors)
            self.clock.advance(delay - 0.01)
            self.assertEqual(len(errors), count)
            self.clock.advance(0.01)
            self.assertEqual(len(errors), count + 1)
        client.reachable = True
        self.clock.advance(5)
        self.assertTrue(client.connected)
        self.assertIsInstance(errors[0], TransportError)

    def test_refusedByTheEngine(self) -> None:
        self.server = makeServer(reactor=self.clock, allowRequest=lambda handshake: False)
        client = MemoryClient(self.server, reconnection=False)
        client.startService()
        error = self.failureResultOf(client.whenConnected(), TransportError).value
        self.assertEqual(error.status, 403)

    def test_heartbeats(self) -> None:
        client = self.started()
        id = client.id
        for _ in range(200):
            self.clock.advance(1)
        self.assertEqual(client.id, id)

    def test_serverStops(self) -> None:
        client = self.started()
        reasons: list[Any] = []
        client.onDisconnect(reasons.append)
        self.server.stopService()
        for _ in range(30):
            self.clock.advance(1)
        self.assertEqual(reasons, [CloseReason.TRANSPORT_CLOSE])
        self.successResultOf(client.stopService())

    def test_stopped(self) -> None:
        client = self.started()
        reasons: list[Any] = []
        self.server.onDisconnect(lambda socket, reason: reasons.append(reason))
        client.emit("echo")
        self.successResultOf(client.stopService())
        self.assertEqual(reasons, [CloseReason.CLIENT_DISCONNECT])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowHandler(self) -> None:
        """A client that does not read gets what waits later, in order."""
        client = self.started(maxWaiting=3)
        gate: Deferred[None] = Deferred()
        got: list[int] = []

        @client.on("number")
        async def number(value: int) -> None:
            if value == 0:
                await gate
            got.append(value)

        for value in range(20):
            self.server.emit("number", value)
        self.assertEqual(got, [])
        gate.callback(None)
        self.server.emit("number", 20)
        self.assertEqual(got, list(range(21)))
