"""
The client against our own server, both in memory and on one clock: transports, upgrade, heartbeat, end.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.clientmemory import World
from txrealtime import CloseReason, ConnectionRejected, Server
from txrealtime.client import Client, autobahn
from txrealtime.engineio.packet import Packet, PacketType
from txrealtime.errors import AckTimeout, Disconnected, LimitExceeded, PayloadTooLarge, TransportError

WAYS = {"polling": ("polling",), "websocket": ("websocket",), "upgrade": ("polling", "websocket")}


def collector(log: list[Any]) -> Any:
    """Make a handler of the server that collects what follows the socket."""
    return lambda socket, *args: log.append(args)


def talkative(server: Server) -> None:
    """Register the handlers that the tests use."""

    @server.on("echo")
    def echo(socket: Any, *args: Any) -> Any:
        return args

    @server.on("back")
    def back(socket: Any, *args: Any) -> None:
        socket.emit("back", *args)

    @server.on("ask")
    async def ask(socket: Any, *args: Any) -> Any:
        socket.emit("answer", await socket.call("question", *args))

    @server.on("bye")
    def bye(socket: Any) -> None:
        socket.disconnect()

    @server.on("hang up")
    def hangUp(socket: Any) -> None:
        socket.disconnect(close=True)


class TransportTests(World):
    """Each on polling, on WebSocket and with an upgrade."""

    def setUp(self) -> None:
        super().setUp()
        talkative(self.server)

    def eachWay(self, **options: Any) -> Any:
        for name, transports in WAYS.items():
            self.useServer()
            talkative(self.server)
            yield name, self.connect(transports=transports, **options)

    def test_ackAndEvent(self) -> None:
        for name, client in self.eachWay():
            got = self.heard(client, "back")
            acked = client.call("echo", 1, b"\x00\xff", {"a": ["ä€🎉", None]})
            client.emit("back", "one")
            client.emit("back", b"two", {"three": b"3"})
            self.settle()
            self.assertEqual(self.successResultOf(acked), (1, b"\x00\xff", {"a": ["ä€🎉", None]}), name)
            self.assertEqual(got, [("one",), (b"two", {"three": b"3"})], name)
            self.assertEqual(client.transport, "polling" if name == "polling" else "websocket")

    def test_withoutTheFastPath(self) -> None:
        """Autobahn reads all frames if it has lost a name that the fast path needs."""
        self.patch(autobahn, "stands", lambda owner, *names, without: False)
        client = self.connect(transports=("websocket",))
        got = self.heard(client, "back")
        client.emit("back", "ä", b"b")
        client.emit("back", "c" * 70_000)
        self.settle()
        self.assertEqual(got, [("ä", b"b"), ("c" * 70_000,)])

    def test_acksOfTheClient(self) -> None:
        for name, client in self.eachWay():
            client.on("question")(lambda *args: args)
            got = self.heard(client, "answer")
            client.emit("ask", 1, b"2")
            self.settle()
            self.assertEqual(got, [([1, b"2"],)], name)

    def test_manyEventsKeepTheirOrder(self) -> None:
        for name, client in self.eachWay():
            got = self.heard(client, "back")
            for number in range(500):
                client.emit("back", number, b"x" if number % 7 == 0 else "x")
            self.settle()
            self.assertEqual([number for number, _ in got], list(range(500)), name)

    def test_nothingIsLostInAnUpgrade(self) -> None:
        """Events in both directions at each step of the upgrade."""
        self.useServer()
        talkative(self.server)
        client = self.makeClient()
        got = self.heard(client, "back")
        sent = 0
        for _ in range(400):
            if client.connected:
                client.emit("back", sent)
                sent += 1
            self.clock.advance(0)
            if client.transport == "websocket" and sent > 40:
                break
        self.settle()
        self.assertEqual(client.transport, "websocket")
        self.assertGreater(sent, 40)
        self.assertEqual(got, [(number,) for number in range(sent)])

    def test_heartbeat(self) -> None:
        """A client stays for many intervals, and each side needs nothing else."""
        for name, client in self.eachWay():
            id = client.id
            self.wait(300, 5)
            self.assertEqual(client.id, id, name)

    def test_aDeadServerIsNoticed(self) -> None:
        for name, client in self.eachWay():
            reasons: list[Any] = []
            client.onDisconnect(reasons.append)
            self.endpoint.freeze()
            self.endpoint.hangs = True
            self.wait(44, 1)
            self.assertTrue(client.connected, name)
            self.wait(30, 1)
            self.assertEqual(reasons, [CloseReason.PING_TIMEOUT], name)
            client.stopService()

    def test_overdueConnectionsTakeNothing(self) -> None:
        """After a sleep, an event waits for the next connection instead of going into a dead one."""
        client = self.connect(transports=("websocket",))
        got = self.heard(client, "back")
        self.endpoint.freeze()
        self.clock.rightNow += 1000
        client.emit("back", "after the sleep")
        self.assertGreater(client.buffered, 0)
        self.wait(3)
        self.assertEqual(got, [("after the sleep",)])

    def test_aPINGThatComesTooLate(self) -> None:
        """An event that waits because a PING was missing is not overtaken by later ones."""
        for name, transports in WAYS.items():
            fake = self.useFake()
            fake.handshake["upgrades"] = ["websocket"]
            client = self.connect(transports=transports)
            self.clock.rightNow += 46
            client.emit("back", 1)
            session: Any = client._connection.session
            session.packetReceived(session._transport, Packet(PacketType.PING))
            client.emit("back", 2)
            self.wait(3)
            client.emit("back", 3)
            self.settle()
            events = [packet for packet in fake.messages if str(packet).startswith("42")]
            self.assertEqual(events, [f'42["back",{number}]' for number in (1, 2, 3)], name)
            client.stopService()
            self.settle()

    def test_stopService(self) -> None:
        """Events emitted before arrive, the server hears a DISCONNECT, and no connection is left."""
        for name, transports in WAYS.items():
            self.useServer()
            log: list[Any] = []
            self.server.on("last")(collector(log))
            self.server.onDisconnect(collector(log))
            client = self.connect(transports=transports)
            client.emit("last", "words", b"bytes")
            stopped = client.stopService()
            self.settle()
            self.successResultOf(stopped)
            self.assertEqual(log, [("words", b"bytes"), (CloseReason.CLIENT_DISCONNECT,)], name)
            self.assertFalse(client.connected)
            self.settle()
            self.assertEqual(len(self.endpoint.alive), 0, name)
            self.assertEqual(self.server.engine.sessions, {}, name)

    def test_stopAndStartAgain(self) -> None:
        client = self.connect()
        first = client.id
        client.stopService()
        self.settle()
        client.startService()
        self.settle()
        self.assertTrue(client.connected)
        self.assertNotEqual(client.id, first)

    def test_anEarlierSessionIsNotHeard(self) -> None:
        """An event that it brings while it closes is not for the next one, which is there already."""
        for name, client in self.eachWay():
            got = self.heard(client, "back")
            (earlier,) = self.server.namespace().sockets.values()
            for end in self.endpoint.alive:
                end.frozen = True  # The server does not hear of the end.
            client.disconnect()
            client.connect()
            self.settle()
            self.assertTrue(client.connected, name)
            earlier.emit("back", "from the earlier")
            client.emit("back", "again")
            self.settle()
            self.assertEqual(got, [("again",)], name)

    def test_stopWhileConnecting(self) -> None:
        self.endpoint.hangs = True
        client = self.makeClient()
        waiting = client.whenConnected()
        self.successResultOf(client.stopService())
        self.failureResultOf(waiting, Disconnected)

    def test_stopDuringTheUpgrade(self) -> None:
        """At any turn of the upgrade."""
        for turns in range(1, 40):
            self.useServer()
            client = self.makeClient()
            for _ in range(turns):
                self.clock.advance(0)
            stopped = client.stopService()
            self.wait(2)
            self.successResultOf(stopped)
            self.assertEqual(self.server.engine.sessions, {}, turns)

    def test_aServerThatStopsIsComeBackTo(self) -> None:
        for name, client in self.eachWay():
            reasons: list[Any] = []
            client.onDisconnect(reasons.append)
            server = self.server
            stopped = server.stopService()
            self.settle()
            self.successResultOf(stopped)
            self.assertFalse(client.connected)
            server.startService()
            self.wait(5)
            self.assertTrue(client.connected, name)
            # A server of ours answers the GET that waits with status 503.
            expected = CloseReason.TRANSPORT_ERROR if name == "polling" else CloseReason.TRANSPORT_CLOSE
            self.assertEqual(reasons, [expected], name)

    def test_rememberUpgrade(self) -> None:
        client = self.connect(rememberUpgrade=True)
        self.assertEqual(client.transport, "websocket")
        self.endpoint.cut()
        before = self.endpoint.attempts
        self.wait(3)
        self.assertEqual((client.transport, self.endpoint.attempts - before), ("websocket", 1))

    def test_noUpgrade(self) -> None:
        self.assertEqual(self.connect(upgrade=False).transport, "polling")
        self.useServer(allowUpgrades=False)
        self.assertEqual(self.connect().transport, "polling")

    def test_tryAllTransports(self) -> None:
        self.useServer(transports=("websocket",))
        client = self.makeClient(tryAllTransports=True)
        self.wait(2)
        self.assertEqual(client.transport, "websocket")
        other = self.makeClient(reconnection=False)
        self.settle()
        self.failureResultOf(other.whenConnected(), TransportError)

    def test_polling_batches(self) -> None:
        """Packets go in few requests, each within the server's limit."""
        self.useServer(maxPayload=2000)
        talkative(self.server)
        client = self.connect(transports=("polling",))
        got = self.heard(client, "back")
        for number in range(60):
            client.emit("back", number, b"y" * 100)
        self.settle()
        self.assertEqual([number for number, _ in got], list(range(60)))

    def test_tooLargeForTheServer(self) -> None:
        self.useServer(maxPayload=2000)
        talkative(self.server)
        for transports in WAYS.values():
            client = self.makeClient(transports=transports)
            dropped = client.call("echo", "x" * 3000)
            self.settle()
            self.failureResultOf(dropped, PayloadTooLarge)
            with self.assertRaises(PayloadTooLarge) as raised:
                client.emit("echo", "x" * 3000)
            self.assertIn("2000", str(raised.exception))
            self.assertTrue(client.connected)

    def test_tooLargeForTheClient(self) -> None:
        for name, client in self.eachWay(maxPayload=5000):
            reasons: list[Any] = []
            client.onDisconnect(reasons.append)
            for socket in list(self.server.namespace().sockets.values()):
                socket.emit("big", "x" * 6000)
            self.settle()
            self.assertEqual(reasons, [CloseReason.TRANSPORT_ERROR], name)

    def test_compression(self) -> None:
        self.useServer(perMessageDeflate=True, compressionThreshold=10)
        talkative(self.server)
        client = self.connect(transports=("websocket",), perMessageDeflate=True)
        got = self.heard(client, "back")
        acked = client.call("echo", "x" * 10_000)
        client.emit("back", "y" * 5000, b"z" * 5000)
        self.settle()
        self.assertEqual(self.successResultOf(acked), "x" * 10_000)
        self.assertEqual(got, [("y" * 5000, b"z" * 5000)])
        self.assertLess(len(self.endpoint.connections[0].sent), 1500)

    def test_aDeflateBomb(self) -> None:
        self.useServer(perMessageDeflate=True, compressionThreshold=10)
        client = self.connect(transports=("websocket",), perMessageDeflate=True, maxPayload=100_000)
        reasons: list[Any] = []
        client.onDisconnect(reasons.append)
        self.server.emit("bomb", "x" * 900_000)
        self.settle()
        self.assertEqual(reasons, [CloseReason.TRANSPORT_ERROR])

    def test_headersQueryPathAndCookies(self) -> None:
        for transports in WAYS.values():
            self.useServer(path="/some/where", cookie="io")
            sockets: list[Any] = []
            self.server.onConnect(sockets.append)
            client = self.makeClient(
                "http://example.org?x=a%20b",
                transports=transports,
                path="/some/where/",
                query={"y": "ü&="},
                headers={"Authorization": "Bearer secret", "cookie": "mine=1", "User-Agent": "Me"},
            )
            self.settle()
            self.endpoint.cut()
            self.wait(3)
            self.assertTrue(client.connected)
            first, second = (socket.handshake for socket in sockets)
            self.assertEqual((first.query["x"], first.query["y"]), ("a b", "ü&="))
            self.assertEqual(first.headers["authorization"], "Bearer secret")
            self.assertEqual((second.headers["user-agent"], second.cookies["mine"]), ("Me", "1"))
            # A server of ours sets a cookie in responses of long polling alone.
            self.assertEqual("io" in second.cookies, "polling" in transports)


class NamespaceTests(World):
    """Namespaces on one connection."""

    def setUp(self) -> None:
        super().setUp()
        talkative(self.server)
        self.useNamespaces()

    def useNamespaces(self) -> None:
        chat = self.server.namespace("/chat")

        @chat.on("echo")
        def echo(socket: Any, *args: Any) -> Any:
            return ("chat", *args)

        members = self.server.namespace("/members")

        @members.onConnect
        def connected(socket: Any, auth: Any) -> None:
            if not auth or auth.get("token") != "open sesame":
                raise ConnectionRejected("who are you?", {"code": 401})

        @members.on("bye")
        def bye(socket: Any) -> None:
            socket.disconnect()

    def test_namespaceOfTheURL(self) -> None:
        client = self.connect("http://example.org/chat/")
        self.assertEqual(len(self.server.namespace("/chat").sockets), 1)
        self.assertEqual(len(self.server.namespace().sockets), 0)
        acked = client.call("echo", 1)
        self.settle()
        self.assertEqual(self.successResultOf(acked), ("chat", 1))

    def test_severalOnOneConnection(self) -> None:
        client = self.connect(transports=("websocket",))
        chat = client.namespace("/chat")
        acked = chat.call("echo", 2)
        self.settle()
        self.assertEqual(self.successResultOf(acked), ("chat", 2))
        self.assertEqual(self.endpoint.attempts, 1)
        self.assertIs(client.namespace("chat"), chat)
        self.endpoint.cut()
        self.settle()
        self.assertFalse(chat.connected)
        self.wait(3)
        self.assertTrue(chat.connected and client.connected)

    def test_refusal(self) -> None:
        client = self.connect()
        members = client.namespace("/members")
        errors: list[Any] = []
        members.onConnectError(errors.append)
        refused = self.failureResultOf(self.settled(members.whenConnected()), ConnectionRejected)
        self.assertEqual((str(refused.value), refused.value.data), ("who are you?", {"code": 401}))
        self.assertEqual(errors, [refused.value])
        # It tells the same to those who come later, and does not try again.
        self.failureResultOf(members.whenConnected(), ConnectionRejected)
        self.endpoint.cut()
        self.wait(5)
        self.assertEqual((client.connected, members.connected), (True, False))
        self.assertEqual(len(errors), 1)
        client.namespace("/members", auth={"token": "open sesame"})
        members.connect()
        self.settle()
        self.assertTrue(members.connected)

    def settled(self, waiting: Deferred[Any]) -> Deferred[Any]:
        self.settle()
        return waiting

    def test_refusedAlone(self) -> None:
        """The connection of a client that is refused in its only namespace is closed."""
        client = self.makeClient("http://example.org/members")
        self.failureResultOf(self.settled(client.whenConnected()), ConnectionRejected)
        self.settle()
        self.assertEqual((self.endpoint.alive, self.server.engine.sessions), ([], {}))
        self.wait(10)
        self.assertFalse(client.connected)
        client.connect()
        self.failureResultOf(self.settled(client.whenConnected()), ConnectionRejected)

    def test_authFunctions(self) -> None:
        later: Deferred[Any] = Deferred()

        async def coming() -> Any:
            return {"token": "open sesame"}

        for auth in (lambda: {"token": "open sesame"}, coming, lambda: later, {"token": "open sesame"}):
            client = self.makeClient("http://example.org/members", auth=auth)
            self.settle()
            if not later.called and client.connected is False:
                later.callback({"token": "open sesame"})
                self.settle()
            self.assertTrue(client.connected)

    def test_authOfTheWrongKind(self) -> None:
        for wrong in ("text", b"x", 5):
            self.assertRaises(TypeError, self.makeClient, auth=wrong)
            self.assertRaises(TypeError, self.connect().namespace, "/x", auth=wrong)
        for auth in (lambda: "text", lambda: {"x": object()}):
            client = self.makeClient(auth=auth)
            self.settle()
            self.failureResultOf(client.whenConnected(), TypeError)
        self.assertTrue(self.flushLoggedErrors(TypeError))

    def test_pathsThatCannotBeSent(self) -> None:
        """A comma ends a path on the wire: the server would close the connection of all namespaces."""
        client = self.connect()
        self.assertRaises(ValueError, client.namespace, "/a,b")
        self.assertRaises(ValueError, self.makeClient, "http://example.org/a,b")
        self.settle()
        self.assertTrue(client.connected)

    def test_timeoutsThatAreNone(self) -> None:
        client = self.connect()
        for timeout in (-5, -0.1, float("nan")):
            self.assertRaises(ValueError, client.call, "echo", timeout=timeout)
        late = client.call("nothing", timeout=0)
        self.settle()
        self.failureResultOf(late, AckTimeout)

    def test_authIsAskedAtEachConnect(self) -> None:
        asked: list[int] = []

        def auth() -> Any:
            asked.append(1)
            return {"token": "open sesame"}

        client = self.connect("http://example.org/members", auth=auth)
        self.endpoint.cut()
        self.wait(3)
        self.assertTrue(client.connected)
        self.assertEqual(len(asked), 2)

    def test_anAuthFunctionThatFails(self) -> None:
        def auth() -> Any:
            raise RuntimeError("no token")

        client = self.makeClient(auth=auth)
        self.settle()
        self.failureResultOf(client.whenConnected(), RuntimeError)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_theServersDisconnectIsFinal(self) -> None:
        for event in ("bye", "hang up"):
            self.useServer()
            talkative(self.server)
            client = self.connect()
            reasons: list[Any] = []
            client.onDisconnect(reasons.append)
            lost = client.call(event)
            self.settle()
            self.failureResultOf(lost, Disconnected)
            self.assertEqual(reasons, [CloseReason.SERVER_DISCONNECT])
            self.failureResultOf(client.whenConnected(), Disconnected)
            self.wait(10)
            self.assertFalse(client.connected)
            self.assertEqual(self.endpoint.alive, [])
            client.connect()
            self.settle()
            self.assertTrue(client.connected)

    def test_disconnectOfOneNamespace(self) -> None:
        client = self.connect()
        chat = client.namespace("/chat")
        self.settle()
        chat.disconnect()
        self.settle()
        self.assertEqual((client.connected, chat.connected), (True, False))
        self.assertEqual(len(self.server.namespace("/chat").sockets), 0)
        client.disconnect()
        self.settle()
        self.assertEqual(self.server.engine.sessions, {})
        chat.connect()
        self.settle()
        self.assertEqual((client.connected, chat.connected), (False, True))

    def test_connectTimeout(self) -> None:
        """A namespace whose admission hangs is asked for again on the next connection."""
        answers: list[Deferred[Any]] = []

        @self.server.namespace("/slow").onConnect
        def connected(socket: Any) -> Any:
            answers.append(Deferred(lambda _: None))
            return answers[-1]

        client = self.makeClient("http://example.org/slow", connectTimeout=5)
        self.settle()
        self.wait(4)
        self.assertEqual(len(answers), 1)
        self.wait(4)
        self.assertEqual(len(answers), 2)
        answers[-1].callback(None)
        self.settle()
        self.assertTrue(client.connected)


class BufferTests(World):
    def setUp(self) -> None:
        super().setUp()
        talkative(self.server)

    def test_eventsWaitForTheConnection(self) -> None:
        client = self.makeClient(start=False)
        got = self.heard(client, "back")
        for number in range(3):
            client.emit("back", number)
        acked = client.call("echo", "x")
        client.emit("back", "volatile", volatile=True)
        client.startService()
        self.settle()
        self.assertEqual(got, [(0,), (1,), (2,)])
        self.assertEqual(self.successResultOf(acked), "x")
        self.assertEqual(client.buffered, 0)

    def test_bound(self) -> None:
        client = self.makeClient(start=False, maxBuffered=1000)
        for _ in range(10):
            client.emit("x", "y" * 80)
        with self.assertRaises(LimitExceeded) as raised:
            client.emit("x", "y" * 200)
        self.assertIn("maxBuffered", str(raised.exception))
        lost = client.call
        self.assertRaises(LimitExceeded, lost, "x", "y" * 200)
        client.emit("x", "y" * 200, volatile=True)

    def test_boundOfASession(self) -> None:
        """The same for what waits on a connection that is full."""
        client = self.connect(transports=("websocket",), maxBuffered=1000)
        self.endpoint.connections[0].producer.pauseProducing()
        client.emit("x", "y" * 600)
        self.assertRaises(LimitExceeded, client.emit, "x", "y" * 600)
        client.emit("lost", volatile=True)
        self.endpoint.connections[0].producer.resumeProducing()
        self.assertEqual(client.buffered, 0)
        client.emit("x", "y" * 600)

    def test_callsOfALostConnection(self) -> None:
        client = self.connect()
        self.server.on("never")(lambda socket: Deferred(lambda _: None))
        sent = client.call("never")
        self.settle()
        self.endpoint.cut()
        self.settle()
        self.failureResultOf(sent, Disconnected)
        waiting = client.call("echo", "later")
        late = client.call("echo", timeout=0.1)
        self.assertNoResult(waiting)
        self.wait(3)
        self.assertEqual(self.successResultOf(waiting), "later")
        self.failureResultOf(late, TimeoutError)
        self.assertEqual(client.buffered, 0)

    def test_timeout(self) -> None:
        client = self.connect()
        self.server.on("never")(lambda socket: Deferred(lambda _: None))
        asked = client.call("never", timeout=3)
        self.wait(2)
        self.assertNoResult(asked)
        self.wait(2)
        self.assertIn("'never'", str(self.failureResultOf(asked, TimeoutError).value))

    def test_cancel(self) -> None:
        client = self.makeClient(start=False)
        got = self.heard(client, "back")
        client.call("back", 1).addErrback(lambda _: None).cancel()
        client.startService()
        self.settle()
        self.assertEqual(got, [])

    def test_volatileIsDroppedWhileAPOSTIsOnItsWay(self) -> None:
        client = self.connect(transports=("polling",))
        got = self.heard(client, "back")
        client.emit("back", 1)
        client.emit("back", 2, volatile=True)
        self.settle()
        client.emit("back", 3, volatile=True)
        self.settle()
        self.assertEqual(got, [(1,), (3,)])

    def test_values(self) -> None:
        client = self.connect()
        self.assertRaises(TypeError, client.emit, "x", object())
        self.assertRaises(ValueError, client.emit, "connect")
        self.assertRaises(ValueError, client.emit, "x", float("nan"))
        self.assertRaises(TypeError, client.call, 5)

    def test_acksOfCall(self) -> None:
        client = self.connect()
        for args, expected in (((), None), ((1,), 1), ((1, 2), (1, 2)), ((None,), None), (([],), [])):
            acked = client.call("echo", *args)
            self.settle()
            self.assertEqual(self.successResultOf(acked), expected)


class HandlerTests(World):
    def setUp(self) -> None:
        super().setUp()
        talkative(self.server)
        self.client: Client = self.connect()

    def emit(self, *args: Any) -> None:
        self.server.emit(*args)
        self.settle()

    def test_oneAtATimeAndInOrder(self) -> None:
        gates = [Deferred(), Deferred()]
        log: list[Any] = []

        @self.client.on("slow")
        async def slow(number: int) -> None:
            log.append(("in", number))
            await gates[number]
            log.append(("out", number))

        self.client.on("quick")(lambda number: log.append(number))
        for event, number in (("slow", 0), ("quick", 1), ("slow", 1), ("quick", 2)):
            self.server.emit(event, number)
        self.settle()
        self.assertEqual(log, [("in", 0)])
        gates[0].callback(None)
        self.assertEqual(log[1:], [("out", 0), 1, ("in", 1)])
        gates[1].callback(None)
        self.assertEqual(log[4:], [("out", 1), 2])

    def test_aHandlerMayWaitForAnAck(self) -> None:
        got: list[Any] = []

        @self.client.on("go")
        async def go() -> None:
            got.append(await self.client.call("echo", "inside"))

        self.emit("go")
        self.assertEqual(got, ["inside"])

    def test_onAnyGetsWhatHasNoHandler(self) -> None:
        got: list[Any] = []
        self.client.onAny(lambda event, *args: got.append((event, *args)))
        self.client.on("known")(lambda: None)
        self.emit("known")
        self.emit("unknown", 1, 2)
        self.assertEqual(got, [("unknown", 1, 2)])

    def test_middleware(self) -> None:
        log: list[Any] = []

        @self.client.use
        async def outer(incoming: Any, proceed: Any) -> Any:
            log.append(("outer", incoming.event, incoming.namespace.path))
            result = await proceed(incoming._replace(args=[*incoming.args, "more"]))
            return (result, "wrapped")

        @self.client.use
        def inner(incoming: Any, proceed: Any) -> Any:
            return proceed(incoming) if incoming.event != "blocked" else "refused"

        self.client.on("question")(lambda *args: log.append(args) or "handled")
        got = self.heard(self.client, "answer")
        self.client.emit("ask", 1)
        self.settle()
        self.assertEqual(log[:2], [("outer", "question", "/"), (1, "more")])
        self.assertEqual(got[0][0], ["handled", "wrapped"])

    def test_errors(self) -> None:
        @self.client.on("question")
        def question(*args: Any) -> None:
            raise KeyError("here")

        @self.client.onError(KeyError)
        def failed(error: Exception, event: str) -> Any:
            return [type(error).__name__, event]

        got = self.heard(self.client, "answer")
        self.client.emit("ask")
        self.settle()
        self.assertEqual(got, [(["KeyError", "question"],)])

    def test_errorsAreLogged(self) -> None:
        @self.client.on("one")
        def one(a: int) -> None:
            raise KeyError

        self.emit("one", 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.emit("one")
        self.assertTrue(self.client.connected)

    def test_resultsThatCannotBeSent(self) -> None:
        self.client.on("question")(lambda: object())
        self.client.emit("ask")
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_ackOfAnEarlierConnection(self) -> None:
        """An ack whose connection is lost is not sent on the next one."""
        gate: Deferred[Any] = Deferred()
        self.client.on("question")(lambda: gate)
        self.client.emit("ask")
        self.settle()
        self.endpoint.cut()
        self.wait(3)
        self.assertTrue(self.client.connected)
        sent = b"".join(end.sent for end in self.endpoint.connections)
        gate.callback("late")
        self.settle()
        self.assertEqual(b"".join(end.sent for end in self.endpoint.connections), sent)

    def test_noticesInOrderWithEvents(self) -> None:
        log: list[Any] = []
        gate: Deferred[Any] = Deferred()

        @self.client.on("slow")
        def slow() -> Any:
            log.append("slow")
            return gate

        self.client.onDisconnect(lambda reason: log.append(reason))
        self.client.onConnect(lambda: log.append("connect"))
        self.emit("slow")
        self.endpoint.cut()
        self.wait(3)
        self.assertEqual(log, ["slow"])
        gate.callback(None)
        self.assertEqual(log, ["slow", CloseReason.TRANSPORT_ERROR, "connect"])

    def test_registration(self) -> None:
        client = self.client
        client.on("x")(lambda: None)
        with self.assertRaises(ValueError) as raised:
            client.on("x")(lambda: None)
        self.assertIn("test_client_connection.py", str(raised.exception))
        client.on("x", replace=True)(lambda: None)
        for name, advice in (("connect", "onConnect"), ("disconnect", "onDisconnect"), ("*", "onAny")):
            with self.assertRaises(ValueError) as raised:
                client.on(name)
            self.assertIn(advice, str(raised.exception))
        self.assertRaises(TypeError, client.on, 5)
        self.assertRaises(TypeError, client.on("y"), 5)
        client.onConnect(lambda: None)
        self.assertRaises(ValueError, client.onConnect, lambda: None)

    def test_readingPausesWhileEventsWait(self) -> None:
        """A slow handler slows the server down, and the client's memory does not grow."""
        for transports in WAYS.values():
            self.useServer()
            self.pauses(self.connect(transports=transports, maxWaiting=10))

    def pauses(self, client: Client) -> None:
        gates: list[Deferred[Any]] = []
        done: list[int] = []

        @client.on("n")
        def handle(number: int) -> Any:
            gates.append(Deferred())
            return gates[-1].addCallback(lambda _: done.append(number))

        for number in range(200):
            self.server.emit("n", number)
            self.settle()
        self.assertLess(client._own.waiting[0], 40)
        for _ in range(300):
            if gates:
                gates.pop(0).callback(None)
            self.settle()
        self.assertEqual(done, list(range(200)))
