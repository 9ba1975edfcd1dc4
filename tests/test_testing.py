"""
The testing kit, for an application's own tests.
"""

from __future__ import annotations

import warnings
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.talk import TalkTestCase
from txrealtime import CloseReason, ConnectionRejected, Disconnected, HandshakeError, Server, Socket
from txrealtime.engineio.packet import PacketType, message
from txrealtime.engineio.session import ITransport
from txrealtime.testing import Client, FakeTransport, MemoryClient, makeServer


class MakeServerTests(TalkTestCase):
    """
    A server for a test.
    """

    def test_started(self) -> None:
        server = makeServer(reactor=self.clock, pingInterval=5)
        self.assertTrue(server.running)
        self.assertEqual(server.settings.pingInterval, 5)
        self.successResultOf(server.stopService())

    def test_clockOfItsOwn(self) -> None:
        server = makeServer()
        self.assertIsInstance(server.namespace().reactor, Clock)


class DocumentationTests(TalkTestCase):
    """
    The example in the module's docstring.
    """

    def test_example(self) -> None:
        clock = Clock()
        server = makeServer(reactor=clock)

        @server.on("say")
        def say(socket: Socket, text: str) -> str:
            server.emit("said", socket.id, text)
            return "delivered"

        alice = Client(server)
        alice.connect("/", auth={"token": "x"})
        self.assertEqual(self.successResultOf(alice.call("say", "hello")), "delivered")
        self.assertEqual(alice.received(), [("said", alice.id(), "hello")])
        alice.close()
        self.assertEqual(clock.getDelayedCalls(), [])


class FakeTransportTests(TalkTestCase):
    """
    A transport that ends in a list.
    """

    def test_interface(self) -> None:
        for name in ("polling", "websocket"):
            verifyObject(ITransport, FakeTransport(name))

    def test_sent(self) -> None:
        """
        `sent` has the packets as a client decodes them, on each transport.
        """
        for name in ("polling", "websocket"):
            transport = FakeTransport(name)
            transport.send([message("text"), message(b"\x00\xff")])
            self.assertEqual(
                [(packet.type, packet.data) for packet in transport.take()],
                [(PacketType.MESSAGE, "text"), (PacketType.MESSAGE, b"\x00\xff")],
            )
            self.assertEqual(transport.take(), [])

    def test_contractIsChecked(self) -> None:
        """
        A session that sends while it must not fails.
        """
        transport = FakeTransport()
        transport.writable = False
        self.assertRaises(AssertionError, transport.send, [message("text")])
        transport = FakeTransport()
        transport.close(CloseReason.FORCED_CLOSE)
        self.assertFalse(transport.writable)
        self.assertRaises(AssertionError, transport.send, [message("text")])

    def test_firstReasonStays(self) -> None:
        transport = FakeTransport()
        transport.close(CloseReason.FORCED_CLOSE)
        transport.close(CloseReason.PING_TIMEOUT)
        self.assertEqual(transport.closed, CloseReason.FORCED_CLOSE)

    def test_reading(self) -> None:
        transport = FakeTransport()
        self.assertTrue(transport.reading)
        transport.pauseReading()
        self.assertFalse(transport.reading)
        transport.resumeReading()
        self.assertTrue(transport.reading)


class OpeningTests(TalkTestCase):
    """
    A client's first request.
    """

    def test_opened(self) -> None:
        for name, upgrades in (("polling", ["websocket"]), ("websocket", [])):
            client = self.makeClient(self.makeServer(), transport=name)
            self.assertEqual(client.opened["sid"], client.session.sid)
            self.assertEqual(client.opened["upgrades"], upgrades)

    def test_foreignOrigin(self) -> None:
        server = self.makeServer()
        error = self.assertRaises(HandshakeError, Client, server, headers={"origin": "https://evil.example"})
        self.assertEqual(error.status, 403)
        self.makeClient(server, headers={"origin": "http://localhost"})

    def test_theOneTransportServed(self) -> None:
        for served, used in ((["polling"], "polling"), (["websocket"], "websocket"), (None, "websocket")):
            server = self.makeServer(transports=served) if served else self.makeServer()
            server.on("echo")(lambda socket, number: number)
            client = Client(server)
            client.connect()
            self.assertEqual(client.transport.name, used)
            memory = MemoryClient(server)
            memory.startService()
            for each in (client, memory):
                self.assertEqual(self.successResultOf(each.call("echo", 3)), 3)
            client.close()
            memory.stopService()
            self.clock.advance(0)

    def test_transportNotServed(self) -> None:
        server = self.makeServer(transports=["websocket"])
        error = self.assertRaises(HandshakeError, Client, server, transport="polling")
        self.assertEqual(error.code, 0)

    def test_allowRequest(self) -> None:
        server = self.makeServer(allowRequest=lambda handshake: handshake.query.get("key") == "right")
        self.assertRaises(HandshakeError, Client, server, query={"key": "wrong"})
        self.join(server, query={"key": "right"})

    def test_allowRequestForgetsToWait(self) -> None:
        """Its answer is a coroutine, which is true and admits nobody."""

        async def later() -> bool:
            return True

        async def allow(handshake: Any) -> Any:
            return later()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            self.assertRaises(HandshakeError, Client, self.makeServer(allowRequest=allow))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_allowRequestWaits(self) -> None:
        wait: Deferred[bool] = Deferred()
        server = self.makeServer(allowRequest=lambda handshake: wait)
        client = self.makeClient(server)
        wait.callback(True)
        self.successResultOf(client.connect())


class TalkingTests(TalkTestCase):
    """
    Events and acks.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server: Server = self.makeServer()
        self.client: Client = self.join(self.server)
        self.socket = self.socketOf(self.server, self.client)

    def test_received(self) -> None:
        self.server.namespace("/chat")
        self.successResultOf(self.client.connect("/chat"))
        self.server.emit("one", 1, b"2")
        self.server.namespace("/chat").emit("two")
        self.assertEqual(self.client.received(), [("one", 1, b"2")])
        self.assertEqual(self.client.received(), [])
        self.assertEqual(self.client.received("/chat"), [("two",)])

    def test_callAnswers(self) -> None:
        answers = {"none": None, "one": 1, "list": [1, 2], "tuple": (1, 2), "empty": ()}
        self.server.on("ask")(lambda socket, what: answers[what])
        expected = {**answers, "empty": None}
        for what, answer in expected.items():
            self.assertEqual(self.successResultOf(self.client.call("ask", what)), answer)

    def test_callWaits(self) -> None:
        wait: Deferred[str] = Deferred()
        self.server.on("ask")(lambda socket: wait)
        answer = self.client.call("ask")
        self.assertNoResult(answer)
        wait.callback("yes")
        self.client.flush()
        self.assertEqual(self.successResultOf(answer), "yes")

    def test_decoratedHandlers(self) -> None:
        """As on a real client: with or without an ack, async, one at a time, in order, per namespace."""
        log: list[Any] = []
        gate: Deferred[Any] = Deferred()

        @self.client.on("slow")
        async def slow(number: int) -> str:
            log.append(number)
            return await gate

        @self.client.on("plain")
        def plain(*args: Any) -> Any:
            log.append(args)
            return args

        self.client.onAny(lambda event, *args: log.append((event, *args)))
        acks = [self.socket.call("slow", 1), self.socket.call("plain", 2, 3)]
        self.socket.emit("plain", 4)
        self.socket.emit("other", 5)
        self.client.flush()
        self.assertEqual(log, [1])
        gate.callback("done")
        self.assertEqual([self.successResultOf(ack) for ack in acks], ["done", (2, 3)])
        self.assertEqual(log, [1, (2, 3), (4,), ("other", 5)])
        self.assertEqual(self.client.received()[0], ("slow", 1))
        self.assertRaises(ValueError, self.client.on("plain"), lambda: None)
        self.assertRaises(ValueError, self.client.on, "connect")

    def test_decoratedHandlersThatFail(self) -> None:
        @self.client.on("broken")
        def broken() -> None:
            raise KeyError

        self.socket.emit("broken")
        self.client.flush()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_aHandlerThatOutlivesTheClient(self) -> None:
        gate: Deferred[Any] = Deferred()
        self.client.on("slow")(lambda: gate)
        asked = self.socket.call("slow")
        self.client.flush()
        self.client.close()
        gate.callback("late")
        self.failureResultOf(asked, Disconnected)

    def test_on(self) -> None:
        for given, got in ((None, None), (1, 1), ((1, 2), (1, 2)), ([1, 2], [1, 2])):
            self.client.on("ask", lambda given=given: given)
            answer = self.socket.call("ask")
            self.client.flush()
            self.assertEqual(self.successResultOf(answer), got)

    def test_onInANamespace(self) -> None:
        self.server.namespace("/chat")
        self.successResultOf(self.client.connect("/chat"))
        self.client.on("ask", lambda: "chat", namespace="/chat")
        answers = self.socket.call("ask"), self.socketOf(self.server, self.client, "/chat").call("ask")
        self.client.flush()
        self.assertNoResult(answers[0].addErrback(lambda failure: None))
        self.assertEqual(self.successResultOf(answers[1]), "chat")

    def test_eventWithoutAnAck(self) -> None:
        """
        An event without an ack is received, and the answer is not sent.
        """
        self.client.on("tick", lambda: "tock")
        self.server.emit("tick")
        self.assertEqual(self.client.received(), [("tick",)])

    def test_polling(self) -> None:
        client = self.join(self.server, transport="polling")
        self.server.on("echo")(lambda socket, value: value)
        self.assertEqual(self.successResultOf(client.call("echo", [b"\x00\xff"])), [b"\x00\xff"])


class StayingTests(TalkTestCase):
    """
    Heartbeats, and the ends of a client.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server: Server = self.makeServer()
        self.client: Client = self.join(self.server)

    def assertGone(self, pending: list[Deferred[Any]]) -> None:
        self.client.flush()
        self.assertFalse(self.client.isConnected())
        self.assertRaises(Disconnected, self.client.id)
        for deferred in pending:  # a test that ignores them is not told of errors
            self.assertNoResult(deferred)

    def pending(self) -> list[Deferred[Any]]:
        """
        Make a call and a connect that wait.
        """
        self.server.on("ask")(lambda socket: Deferred())
        self.server.namespace("/slow").onConnect(lambda socket: Deferred())
        return [self.client.call("ask"), self.client.connect("/slow")]

    def test_heartbeats(self) -> None:
        self.advance(600)
        self.assertTrue(self.client.isConnected())

    def test_heartbeatsByThemselves(self) -> None:
        """
        Clients answer heartbeats by themselves while time passes.
        """
        for _ in range(10):
            self.clock.advance(30)
        self.assertIsNone(self.client.transport.closed)
        self.assertTrue(self.client.isConnected())

    def test_ignoreHeartbeats(self) -> None:
        self.client.ignoreHeartbeats()
        self.advance(44)
        self.assertIsNone(self.client.transport.closed)
        self.advance(1)
        self.assertEqual(self.client.transport.closed, CloseReason.PING_TIMEOUT)

    def test_isConnected(self) -> None:
        self.assertTrue(self.client.isConnected())
        self.assertFalse(self.client.isConnected("/chat"))
        self.client.disconnect()
        self.assertFalse(self.client.isConnected())
        self.assertRaises(Disconnected, self.client.id)
        self.assertEqual(self.client.disconnections, [])

    def test_disconnectedByTheServer(self) -> None:
        self.server.namespace().everyone.disconnect()
        self.assertFalse(self.client.isConnected())
        self.assertEqual(self.client.disconnections, ["/"])

    def test_close(self) -> None:
        pending = self.pending()
        self.client.close()
        self.assertGone(pending)

    def test_closedByTheServer(self) -> None:
        pending = self.pending()
        self.successResultOf(self.server.stopService())
        self.assertGone(pending)

    def test_refused(self) -> None:
        """
        The refusal has the message and data that the application raised.
        """

        @self.server.namespace("/lobby").onConnect
        def connected(socket: Socket) -> None:
            raise ConnectionRejected("no", [1])

        error = self.failureResultOf(self.client.connect("/lobby"), ConnectionRejected).value
        self.assertEqual((error.message, error.data), ("no", [1]))
        self.assertFalse(self.client.isConnected("/lobby"))


class Protocol3Tests(TalkTestCase):
    """
    Clients of Socket.IO 2.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer(allowEIO3=True)

    def old(self, **options: Any) -> Client:
        return self.makeClient(self.server, protocol=3, **options)

    def test_connect(self) -> None:
        """The client is in / unasked; for other namespaces it asks."""
        chat = self.server.namespace("/chat")
        for transport in ("polling", "websocket"):
            client = self.old(transport=transport)
            self.assertTrue(client.isConnected())
            id = self.successResultOf(client.connect("/chat", {"token": "é"}))
            self.assertEqual(chat.sockets[id].handshake.auth, {"token": "é"})
            self.assertEqual(chat.sockets[id].handshake.protocol, 3)

    def test_talk(self) -> None:
        self.server.on("echo")(lambda socket, *args: args)
        for transport in ("polling", "websocket"):
            client = self.old(transport=transport)
            self.assertEqual(self.successResultOf(client.call("echo", "€", b"\x00")), ("€", b"\x00"))

    def test_refused(self) -> None:
        def refuse(socket: Socket) -> None:
            raise ConnectionRejected("no")

        self.server.onConnect(refuse)
        self.server.namespace("/chat").onConnect(refuse)
        client = self.old()
        for path in ("/", "/chat"):
            self.assertFalse(client.isConnected(path))
            error = self.failureResultOf(client.connect(path), ConnectionRejected).value
            self.assertEqual(error.message, "no")

    def test_notServed(self) -> None:
        self.assertRaises(HandshakeError, Client, self.makeServer(), protocol=3)

    def test_heartbeats(self) -> None:
        client = self.old()
        for _ in range(10):
            self.clock.advance(30)
        self.assertTrue(client.isConnected())

    def test_ignoreHeartbeats(self) -> None:
        client = self.old()
        self.clock.advance(25)
        client.ignoreHeartbeats()
        self.clock.advance(44)
        self.assertTrue(client.isConnected())
        self.clock.advance(1)
        self.assertEqual(client.transport.closed, CloseReason.PING_TIMEOUT)

    def test_heartbeatsEndWithTheServer(self) -> None:
        self.old()
        self.successResultOf(self.server.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
