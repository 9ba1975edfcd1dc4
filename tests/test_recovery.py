"""
Clients that come back within the window get what they missed, once and in order; all others a fresh session.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.talk import Recorder, TalkTestCase
from txrealtime import ConnectionRejected, Disconnected, Handshake, Server, Socket
from txrealtime.engineio.packet import Packet, PacketType
from txrealtime.engineio.session import CloseReason
from txrealtime.socketio.clients import readClaim
from txrealtime.socketio.msgpack import MsgpackParser
from txrealtime.testing import Client

WINDOW = 60.0


class RecoveryTestCase(TalkTestCase):
    """
    A server with a window of a minute, whose default namespace records its hooks.
    """

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer(recoveryWindow=WINDOW, **self.options)

    def makeServer(self, **options: Any) -> Server:
        server = Server(reactor=self.clock, **options)
        self.namespace = Recorder()
        server.mount("/", self.namespace)
        server.startService()
        self.servers.append(server)
        return server

    def tearDown(self) -> None:
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.stopService()
            if server._namespaces.parking is not None:
                self.assertEqual(len(server._namespaces.parking), 0)
                self.assertEqual(server._namespaces.parking.store.bytes, 0)
                for namespace in server.namespaces:
                    self.assertEqual(namespace._recovery.tickets, {})
                    self.assertEqual(namespace._recovery.absence.rooms, {})
                    self.assertEqual(namespace._recovery._plain, set())
        super().tearDown()

    def back(self, client: Client, **options: Any) -> None:
        """Let a client come back."""
        self.successResultOf(client.comeBack(**options))

    def results(self, server: Server | None = None) -> dict[str, int]:
        parking = (server or self.server)._namespaces.parking
        return dict(parking.results)


class WireTests(RecoveryTestCase):
    """
    The words on the wire, as JavaScript clients know them.
    """

    def setUp(self) -> None:
        super().setUp()
        self.client = self.makeClient(self.server)
        self.epoch = self.server._namespaces.parking.store.epoch

    def welcome(self) -> dict[str, str]:
        self.sendText(self.client, "0")
        return self.client._parser.decoder(0).feed(self.wireOf(self.client)[-1]).data

    def test_pid(self) -> None:
        welcome = self.welcome()
        self.assertEqual(sorted(welcome), ["offset", "pid", "sid"])
        self.assertNotEqual(welcome["pid"], welcome["sid"])
        self.assertGreaterEqual(len(welcome["pid"]), 24)

    def test_offsets(self) -> None:
        """EVENTs have an offset behind their arguments; those that want an ack have none."""
        socket = self.namespace.sockets[self.welcome()["sid"]]
        socket.emit("foo", 1)
        self.server.emit("bare")
        self.server.to(socket).emit("bytes", b"x")
        socket.call("ask", "text").addErrback(lambda failure: None)
        self.assertEqual(
            self.wireOf(self.client),
            [
                f'2["foo",1,"{self.epoch}-1"]',
                f'2["bare","{self.epoch}-2"]',
                f'51-["bytes",{{"_placeholder":true,"num":0}},"{self.epoch}-3"]',
                b"x",
                '20["ask","text"]',
            ],
        )

    def test_volatile(self) -> None:
        """
        A volatile event has the current offset only if a client would take its last text for one.

        In Node such a text becomes the client's offset, and its recovery fails.
        """
        self.welcome()
        self.server.emit("news", 1)
        self.server.emit("position", "text", volatile=True)
        self.server.emit("typing", volatile=True)
        self.server.emit("position", 1, volatile=True)
        self.assertEqual(
            self.wireOf(self.client),
            [
                f'2["news",1,"{self.epoch}-1"]',
                f'2["position","text","{self.epoch}-1"]',
                f'2["typing","{self.epoch}-1"]',
                '2["position",1]',
            ],
        )
        self.assertEqual(len(self.namespace._recovery.log), 1)

    def test_connectAndThenMissedEvents(self) -> None:
        """
        CONNECT goes first, unlike in Node.

        A JavaScript client keeps events that come before CONNECT, also over the end of the connection.
        Where that is cut between the two, it would handle them twice.
        """
        welcome = self.welcome()
        self.server.emit("one")
        self.client.lose()
        self.server.emit("two")
        self.server.to("elsewhere").emit("three")
        self.server.to(welcome["sid"]).emit("four")
        again = self.makeClient(self.server)
        self.sendText(again, f'0{{"pid":"{welcome["pid"]}","offset":"{self.epoch}-1"}}')
        self.assertEqual(
            self.wireOf(again),
            [
                f'0{{"sid":"{welcome["sid"]}","pid":"{welcome["pid"]}","offset":"{self.epoch}-3"}}',
                f'2["two","{self.epoch}-2"]',
                f'2["four","{self.epoch}-3"]',
            ],
        )

    def test_msgpack(self) -> None:
        server = self.makeServer(recoveryWindow=WINDOW, parser=MsgpackParser())
        client = self.join(server)
        server.emit("one", b"1", {"a": [1]})
        self.assertEqual(client.received(), [("one", b"1", {"a": [1]})])
        client.lose()
        server.emit("two", 2)
        server.emit("text", "x", volatile=True)
        self.back(client)
        self.assertEqual(client.received(), [("two", 2)])

    def test_off(self) -> None:
        server = self.makeServer()
        client = self.makeClient(server)
        self.sendText(client, '0{"pid":"x","offset":"y"}')
        (welcome,) = self.wireOf(client)
        self.assertRegex(welcome, r'^0\{"sid":"[^"]+"\}$')
        server.emit("news", "text")
        self.assertEqual(self.wireOf(client), ['2["news","text"]'])
        self.assertIsNone(self.namespace._recovery)
        self.assertEqual(self.namespace.calls[0][2], {"pid": "x", "offset": "y"})


class ReturnTests(RecoveryTestCase):
    """
    Cuts and returns.
    """

    def test_return(self) -> None:
        alice = self.join(self.server, auth={"token": "x"})
        socket = self.socketOf(self.server, alice)
        socket.data["name"] = "Alice"
        socket.join("red")
        self.server.emit("one")
        self.assertEqual(alice.received(), [("one",)])
        alice.lose()
        self.assertFalse(socket.connected)
        self.assertEqual(self.namespace.sockets, {})
        self.assertEqual(self.namespace.calls[-1][0], "disconnected")
        self.server.emit("two", b"2")
        self.server.to("red").emit("three")
        socket.emit("four")
        self.server.to("blue").emit("no")
        self.server.excluding("red").emit("no")
        self.server.emit("no", volatile=True)
        first = socket.id
        rooms = []
        self.server.onConnect(lambda socket, auth: rooms.append((socket.recovered, socket.rooms, auth)))
        self.back(alice)
        self.assertEqual(alice.received(), [("two", b"2"), ("three",), ("four",)])
        self.assertEqual((alice.id(), alice.recovered()), (first, True))
        again = self.socketOf(self.server, alice)
        self.assertTrue(again.connected)
        self.assertEqual(again.data, {"name": "Alice"})
        self.assertEqual(again.rooms, {first, "red"})
        self.assertEqual(rooms, [(True, {first, "red"}, {"token": "x"})])
        self.server.to("red").emit("five")
        self.assertEqual(alice.received(), [("five",)])

    def test_nothingReceivedBeforeTheCut(self) -> None:
        """Row 1: Node never recovers a client that has had no event."""
        alice = self.join(self.server)
        alice.lose()
        self.server.emit("one")
        self.back(alice)
        self.assertEqual((alice.recovered(), alice.received()), (True, [("one",)]))

    def test_sentAndNeverRead(self) -> None:
        alice = self.join(self.server)
        self.server.emit("one")
        alice.received()
        self.server.emit("two")
        alice.lose()
        self.back(alice)
        self.assertEqual(alice.received(), [("two",)])

    def test_textInAVolatileEvent(self) -> None:
        """Row 2."""
        alice = self.join(self.server)
        self.server.emit("one")
        self.server.emit("typing", "alice", volatile=True)
        self.assertEqual(alice.received(), [("one",), ("typing", "alice")])
        alice.lose()
        self.server.emit("two")
        self.back(alice)
        self.assertEqual(alice.received(), [("two",)])

    def test_takeOver(self) -> None:
        """Row 3: the server believes that the old connection lives."""
        alice = self.join(self.server)
        socket = self.socketOf(self.server, alice)
        old = alice.session
        self.server.emit("one")
        alice.lose(noticed=False)
        self.server.emit("two")
        self.assertTrue(socket.connected)
        self.back(alice)
        self.assertEqual(alice.received(), [("one",), ("two",)])
        self.assertEqual(old.closeReason, CloseReason.TRANSPORT_CLOSE)
        self.assertEqual(
            [call[0] for call in self.namespace.calls],
            ["connected", "disconnecting", "disconnected", "connected"],
        )
        self.assertEqual(self.results(), {"takeover": 1})

    def test_onePidTwice(self) -> None:
        """Row 4: in Node both connections get one sid, and vanish together."""
        alice = self.join(self.server)
        alice.lose()
        copy = self.makeClient(self.server)
        copy._recoveries["/"] = alice._recoveries["/"]
        self.back(alice)
        self.successResultOf(copy.connect())
        self.assertFalse(alice.isConnected())
        self.server.emit("one")
        self.assertEqual(copy.received(), [("one",)])
        self.assertEqual(list(self.namespace.sockets), [copy.id()])
        alice.close()
        self.assertEqual(list(self.namespace.sockets), [copy.id()])

    def test_refusedOnReturn(self) -> None:
        """Rows 5 and 7: the application is asked again, before anything is replayed."""
        alice = self.join(self.server)
        alice.lose()
        self.server.emit("secret")
        self.namespace.admission = ConnectionRejected("banned")
        self.failureResultOf(alice.comeBack(), Exception)
        self.assertEqual(alice.received(), [])
        self.namespace.admission = None
        self.back(alice)
        self.assertEqual((alice.recovered(), alice.received()), (False, []))

    def test_eventsDuringAnAsynchronousAdmission(self) -> None:
        """Row 6: in Node they are lost for ever."""
        alice = self.join(self.server)
        alice.lose()
        self.server.emit("one")
        self.namespace.admission = decision = Deferred()
        coming = alice.comeBack()
        self.server.emit("two")
        self.namespace.asked[-1].emit("three")
        self.assertEqual(alice.received(), [])
        decision.callback(None)
        self.server.emit("four")
        self.assertEqual(alice.received(), [("one",), ("two",), ("three",), ("four",)])
        self.successResultOf(coming)
        alice.lose()
        self.namespace.admission = None
        self.back(alice)
        self.assertEqual(alice.received(), [])

    def test_cutDuringAnAsynchronousAdmission(self) -> None:
        alice = self.join(self.server)
        self.socketOf(self.server, alice).join("red")
        first = alice.id()
        alice.lose()
        self.server.emit("one")
        self.namespace.admission = Deferred(lambda _: None)
        alice.comeBack().addErrback(lambda failure: None)
        self.server.to("red").emit("two")
        alice.lose()
        self.server.to("red").emit("three")
        self.namespace.admission = None
        self.back(alice)
        self.assertEqual(alice.received(), [("one",), ("two",), ("three",)])
        self.assertEqual(self.socketOf(self.server, alice).rooms, {first, "red"})

    def test_authIsTheApplications(self) -> None:
        for auth, seen in (
            (None, None),
            ({"a": 1}, {"a": 1}),
            ({"recover": True}, None),
            ({"recover": "me"}, {"recover": "me"}),
        ):
            alice = self.join(self.server, auth=auth)
            alice.lose()
            self.back(alice)
            self.assertTrue(alice.recovered())
            self.assertEqual([call[2] for call in self.namespace.calls if call[0] == "connected"], [seen] * 2)
            self.assertEqual(self.socketOf(self.server, alice).handshake.auth, seen)
            self.namespace.calls.clear()

    def test_acksOvertakeNothing(self) -> None:
        """Row 10."""

        @self.server.on("do")
        def do(socket: Socket) -> str:
            socket.emit("first")
            self.server.emit("second")
            return "third"

        alice = self.join(self.server)
        order: list[Any] = []
        alice.call("do").addCallback(lambda ack: order.append((ack, list(alice._received["/"]))))
        self.assertEqual(order, [("third", [("first",), ("second",)])])

    def test_acksAreNotRecovered(self) -> None:
        alice = self.join(self.server)
        ack = self.socketOf(self.server, alice).call("ask")
        alice.lose()
        self.failureResultOf(ack, Disconnected)
        self.back(alice)
        self.assertEqual(alice.received(), [])

    def test_roomsAtTheTimeOfTheEvent(self) -> None:
        """An event belongs to those who were in its room when it was emitted."""
        alice = self.join(self.server)
        socket = self.socketOf(self.server, alice)
        self.server.to("red").emit("before")
        socket.join("red")
        self.server.to("red").emit("one")
        socket.leave("red")
        self.server.to("red").emit("after")
        self.server.excluding("red").emit("two")
        socket.join("red")
        self.server.excluding("red").emit("excluded")
        alice.lose()
        self.server.to("red").emit("three")
        self.back(alice)
        self.assertEqual(alice.received(), [("one",), ("two",), ("three",)])

    def test_idleClient(self) -> None:
        """A client that had its last event long ago comes back, too."""
        alice = self.join(self.server)
        self.server.emit("one")
        alice.received()
        busy = self.join(self.server)
        for _ in range(100):
            self.socketOf(self.server, busy).emit("busy")
            self.advance(10)
        alice.lose()
        self.server.emit("two")
        self.back(alice)
        self.assertEqual((alice.recovered(), alice.received()), (True, [("two",)]))

    def test_answeredHeartbeat(self) -> None:
        """A client has surely received everything before a PING that it answered, and nothing after."""
        alice = self.join(self.server)
        self.server.emit("one")
        self.clock.advance(25)
        self.server.emit("two")
        alice.lose()
        self.assertEqual(alice.received(), [("one",)])
        self.server.emit("three")
        self.back(alice)
        self.assertEqual(alice.received(), [("two",), ("three",)])

    def test_lateNotice(self) -> None:
        """Events sent while a dead connection was believed alive come again, a whole window later."""
        alice = self.join(self.server)
        self.advance(3)
        alice.lose(noticed=False)
        self.server.emit("one")
        self.clock.advance(22)  # the PING
        self.server.emit("two")
        self.clock.advance(20)
        self.assertEqual(self.namespace.calls[-1][2], CloseReason.PING_TIMEOUT)
        self.clock.advance(WINDOW - 1)
        self.server.emit("three")
        self.back(alice)
        self.assertEqual(alice.received(), [("one",), ("two",), ("three",)])

    def test_again(self) -> None:
        alice = self.join(self.server)
        for number in range(5):
            alice.lose()
            self.server.emit("number", number)
            self.back(alice)
            if number % 2:
                self.assertEqual(alice.received(), [("number", number - 1), ("number", number)])
        self.assertEqual(alice.received(), [("number", 4)])

    def test_eventsThatWaitComeFirst(self) -> None:
        """The application hears of the cut before it hears that the client is back."""
        waiting: list[Deferred[None]] = []
        handled = []

        @self.server.on("slow")
        def slow(socket: Socket, number: int) -> Deferred[None]:
            handled.append(number)
            waiting.append(Deferred())
            return waiting[-1]

        alice = self.join(self.server)
        alice.emit("slow", 1)
        alice.emit("slow", 2)
        alice.lose()
        coming = alice.comeBack()
        self.assertNoResult(coming)
        waiting[0].callback(None)
        self.assertEqual(handled, [1, 2])
        alice.flush()
        self.successResultOf(coming)
        self.assertEqual(
            [call[0] for call in self.namespace.calls],
            ["connected", "disconnecting", "disconnected", "connected"],
        )
        alice.emit("slow", 3)
        waiting[1].callback(None)
        self.assertEqual(handled, [1, 2, 3])
        waiting[2].callback(None)

    def test_namespacesRecoverByThemselves(self) -> None:
        chat = self.server.namespace("/chat")
        alice = self.join(self.server)
        self.successResultOf(alice.connect("/chat"))
        alice.lose()
        self.server.emit("one")
        chat.emit("two")
        self.back(alice)
        self.assertEqual((alice.received(), alice.recovered()), ([("one",)], True))
        self.assertEqual((alice.received("/chat"), alice.recovered("/chat")), ([("two",)], True))

    def test_patternNamespaceStays(self) -> None:
        """A namespace that was made for a pattern lives while a client may come back to it."""
        import re

        self.server.mount(re.compile("/document-.*"), Recorder)
        alice = self.join(self.server, "/document-1")
        alice.lose()
        self.assertEqual(len(self.server.namespaces), 2)
        self.server.namespace("/document-1").emit("one")
        self.back(alice)
        self.assertEqual(alice.received("/document-1"), [("one",)])
        alice.lose()
        self.clock.advance(WINDOW)
        self.assertEqual(len(self.server.namespaces), 1)


class WindowTests(RecoveryTestCase):
    """
    Reasons, the end of the window, and stopping.
    """

    def test_window(self) -> None:
        alice = self.join(self.server)
        alice.lose()
        self.clock.advance(WINDOW)
        self.assertEqual(self.namespace._recovery.tickets, {})
        self.server.emit("one")
        self.back(alice)
        self.assertEqual((alice.recovered(), alice.received()), (False, []))
        self.assertEqual(self.results(), {"expired": 1, "unknown": 1})

    def parks(self, end: Any) -> bool:
        alice = self.join(self.server)
        end(alice)
        alice.flush()
        parked = len(self.server._namespaces.parking) == 1
        self.clock.advance(WINDOW)
        return parked

    def test_reasons(self) -> None:
        for reason in (
            CloseReason.TRANSPORT_CLOSE,
            CloseReason.TRANSPORT_ERROR,
            CloseReason.PING_TIMEOUT,
            CloseReason.FORCED_CLOSE,
            CloseReason.SHUTTING_DOWN,
        ):
            self.assertTrue(self.parks(lambda alice, reason=reason: alice.session.close(reason)), reason)
        for reason in (
            CloseReason.SLOW_CONSUMER,
            CloseReason.PARSE_ERROR,
            CloseReason.FORCED_SERVER_CLOSE,
        ):
            self.assertFalse(self.parks(lambda alice, reason=reason: alice.session.close(reason)), reason)

    def test_disconnects(self) -> None:
        self.assertFalse(self.parks(lambda alice: alice.disconnect()))
        self.assertFalse(self.parks(lambda alice: self.socketOf(self.server, alice).disconnect()))
        self.assertFalse(self.parks(lambda alice: self.socketOf(self.server, alice).disconnect(close=True)))
        self.assertFalse(self.parks(lambda alice: self.namespace.everyone.disconnect()))

    def test_violations(self) -> None:
        self.assertFalse(self.parks(lambda alice: self.sendText(alice, "nonsense")))
        self.assertFalse(self.parks(lambda alice: self.sendText(alice, "0")))
        self.assertFalse(
            self.parks(lambda alice: alice.session.packetReceived(alice.transport, Packet(PacketType.PING)))
        )

    def test_disconnectedWhileAway(self) -> None:
        """A client that the application disconnects while it is away gets a fresh session."""
        alice, bob = self.join(self.server), self.join(self.server)
        self.socketOf(self.server, alice).join("banned")
        alice.lose()
        bob.lose()
        self.server.to("banned").disconnect()
        self.back(alice)
        self.back(bob)
        self.assertEqual((alice.recovered(), bob.recovered()), (False, True))

    def test_stop(self) -> None:
        alice = self.join(self.server)
        alice.flush()
        self.server.stopService()
        self.assertEqual(len(self.server._namespaces.parking), 0)
        self.server.startService()
        self.back(alice)
        self.assertFalse(alice.recovered())


class UnaskedTests(RecoveryTestCase):
    """
    The option that asks nobody.
    """

    options = {"recoveryUnasked": True}

    def test_unasked(self) -> None:
        alice = self.join(self.server)
        alice.lose()
        self.namespace.admission = ConnectionRejected("banned")
        self.back(alice)
        self.assertTrue(alice.recovered())


class AwayTests(RecoveryTestCase):
    """
    The option that tells the application only at the end of the window.
    """

    options = {"recoveryAway": True}

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.join(self.server)
        self.socket = self.socketOf(self.server, self.alice)
        self.socket.join("red")

    def names(self) -> list[str]:
        return [call[0] for call in self.namespace.calls]

    def test_away(self) -> None:
        ack = self.socket.call("ask")
        self.alice.received()
        self.alice.lose()
        self.failureResultOf(ack, Disconnected)
        self.assertEqual((self.socket.away, self.socket.connected), (True, False))
        self.assertEqual(self.names(), ["connected"])
        self.assertIn(self.socket.id, self.namespace.sockets)
        self.assertEqual(self.socket.rooms, {self.socket.id, "red"})
        self.failureResultOf(self.socket.call("ask"), Disconnected)
        self.socket.emit("one")
        self.socket.join("blue")
        self.server.to("blue").emit("two")
        gone = self.socket.whenDisconnected()
        self.back(self.alice)
        self.assertIs(self.socketOf(self.server, self.alice), self.socket)
        self.assertEqual((self.socket.away, self.socket.recovered), (False, True))
        self.assertEqual(self.alice.received(), [("one",), ("two",)])
        self.assertEqual(self.names(), ["connected", "connected"])
        self.assertNoResult(gone)
        self.alice.disconnect()
        self.assertEqual(self.successResultOf(gone), CloseReason.CLIENT_DISCONNECT)
        self.assertEqual(self.names(), ["connected"] * 2 + ["disconnecting", "disconnected"])

    def test_disconnectedByAnAck(self) -> None:
        """The errback of a pending ack disconnects the client that has just gone away."""
        self.socket.call("ask").addErrback(lambda failure: self.socket.disconnect())
        self.alice.lose()
        self.assertEqual(len(self.server._namespaces.parking), 0)
        self.assertNotIn(self.socket.id, self.namespace.sockets)
        self.back(self.alice)
        self.assertFalse(self.alice.recovered())
        self.assertEqual(self.names(), ["connected", "disconnecting", "disconnected", "connected"])

    def test_windowOver(self) -> None:
        self.alice.lose()
        self.clock.advance(WINDOW)
        self.assertEqual(
            [call[:3] for call in self.namespace.calls[1:]],
            [
                ("disconnecting", self.socket.id, CloseReason.TRANSPORT_ERROR),
                ("disconnected", self.socket.id, CloseReason.TRANSPORT_ERROR),
            ],
        )
        self.assertFalse(self.socket.away)
        self.assertEqual(self.socket.rooms, frozenset())

    def test_disconnectedWhileAway(self) -> None:
        self.alice.lose()
        self.socket.disconnect()
        self.assertEqual(self.namespace.calls[-1][2], CloseReason.SERVER_DISCONNECT)
        self.back(self.alice)
        self.assertFalse(self.alice.recovered())

    def test_refusedOnReturn(self) -> None:
        self.alice.lose()
        self.namespace.admission = False
        self.failureResultOf(self.alice.comeBack(), Exception)
        self.assertEqual(self.names(), ["connected"] * 2 + ["disconnecting", "disconnected"])
        self.assertEqual(self.namespace.sockets, {})

    def test_cutDuringAnAsynchronousAdmission(self) -> None:
        self.alice.lose()
        self.namespace.admission = Deferred(lambda _: None)
        self.alice.comeBack().addErrback(lambda failure: None)
        self.assertTrue(self.socket.away)
        self.socket.emit("one")
        self.alice.lose()
        self.namespace.admission = None
        self.back(self.alice)
        self.assertEqual(self.alice.received(), [("one",)])
        self.assertEqual(self.names(), ["connected"] * 3)

    def test_eventsThatWait(self) -> None:
        """Events from before the cut go to their handlers, in turn with those from after it."""
        waiting: list[Deferred[None]] = []
        handled = []

        @self.server.on("slow")
        def slow(socket: Socket, number: int) -> Deferred[None]:
            handled.append(number)
            waiting.append(Deferred())
            return waiting[-1]

        for number in range(3):
            self.alice.emit("slow", number)
        self.alice.lose()
        self.back(self.alice)
        ack = self.alice.call("slow", 3)
        for each in range(4):
            waiting[each].callback(None)
        self.assertEqual(handled, [0, 1, 2, 3])
        self.alice.flush()
        self.successResultOf(ack)
        connection = self.socket._connection
        self.assertEqual((connection._waiting, connection._waitingSize), (0, 0))

    def test_stop(self) -> None:
        self.server.stopService()
        self.assertEqual(self.names()[-1], "disconnected")


class OfferTests(RecoveryTestCase):
    """
    The clients that are offered recovery.
    """

    JAVASCRIPT = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    PYTHON = {"user-agent": "Python/3.11 aiohttp/3.12"}

    def welcomed(self, server: Server | None = None, auth: str = "", **options: Any) -> bool:
        client = self.makeClient(server or self.server, recovers=False, **options)
        self.sendText(client, f"0{auth}")
        return '"pid"' in self.wireOf(client)[-1]

    def test_auto(self) -> None:
        self.assertTrue(self.welcomed(headers=self.JAVASCRIPT))
        self.assertFalse(self.welcomed(headers=self.PYTHON))
        self.assertFalse(self.welcomed())
        self.assertTrue(self.welcomed(headers=self.PYTHON, query={"recover": "1"}))
        self.assertTrue(self.welcomed(headers=self.PYTHON, auth='{"recover":true}'))
        self.assertFalse(self.welcomed(headers=self.PYTHON, auth='{"recover":"true"}'))

    def test_all(self) -> None:
        self.assertTrue(self.welcomed(self.makeServer(recoveryWindow=1, recovery="all"), headers=self.PYTHON))

    def test_predicate(self) -> None:
        def chosen(handshake: Handshake) -> bool:
            return handshake.address == "192.0.2.1"

        server = self.makeServer(recoveryWindow=1, recovery=chosen)
        self.assertTrue(self.welcomed(server, address="192.0.2.1"))
        self.assertFalse(self.welcomed(server, headers=self.JAVASCRIPT))

    def test_protocol4(self) -> None:
        server = self.makeServer(recoveryWindow=1, recovery="all", allowEIO3=True)
        old = self.join(server, protocol=3)
        server.emit("news", "text")
        self.assertEqual(old.received(), [("news", "text")])
        old.close()
        self.assertEqual(len(server._namespaces.parking), 0)

    def test_twoForms(self) -> None:
        """Clients that are not offered recovery get what they always got."""
        alice = self.join(self.server)
        python = self.makeClient(self.server, recovers=False, headers=self.PYTHON)
        self.sendText(python, "0")
        other = self.makeClient(self.server, recovers=False, headers=self.PYTHON)
        self.sendText(other, "0")
        self.wireOf(python), self.wireOf(other), self.wireOf(alice)
        self.server.emit("news", "text")
        self.server.emit("typing", "text", volatile=True)
        for client in (python, other):
            self.assertEqual(self.wireOf(client), ['2["news","text"]', '2["typing","text"]'])
        epoch = self.server._namespaces.parking.store.epoch
        self.assertEqual(
            self.wireOf(alice), [f'2["news","text","{epoch}-1"]', f'2["typing","text","{epoch}-1"]']
        )

    def test_nobodyIsOffered(self) -> None:
        """Without a client that may come back nothing is kept."""
        python = self.makeClient(self.server, recovers=False)
        self.sendText(python, "0")
        self.server.emit("news")
        alice = self.join(self.server)
        alice.disconnect()
        self.server.emit("news")
        bob = self.join(self.server)
        self.server.to("elsewhere").emit("news")
        self.assertEqual(len(self.namespace._recovery.log), 0)
        self.assertEqual(bob.received(), [])

    def test_badSettings(self) -> None:
        for options in (
            {"recovery": "some"},
            {"recoveryWindow": -1},
            {"recoveryEvents": 0},
            {"recoveryBytes": 0},
            {"recoverySessions": 0},
        ):
            self.assertRaises(ValueError, Server, **options)
        self.assertRaises(TypeError, Server, recovery=1)

    def test_claims(self) -> None:
        self.assertEqual(readClaim({"pid": 1}), ({"pid": 1}, None, False))
        self.assertEqual(readClaim([1]), ([1], None, False))
        rest, claim, asks = readClaim({"pid": "p", "offset": 7, "recover": True, "token": "t"})
        self.assertEqual((rest, claim.pid, claim.isSound, asks), ({"token": "t"}, "p", False, True))


class AttackTests(RecoveryTestCase):
    """
    Clients that mean harm get no event of others, and no memory.
    """

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.join(self.server)
        self.pid = self.alice._recoveries["/"]._pid
        self.epoch = self.server._namespaces.parking.store.epoch

    def claim(self, auth: str, path: str = "", **options: Any) -> list[str | bytes]:
        thief = self.makeClient(self.server, **options)
        self.sendText(thief, f"0{path}{auth}")
        return self.wireOf(thief)

    def assertFresh(self, messages: list[str | bytes]) -> None:
        (welcome,) = messages
        self.assertNotIn(self.pid, welcome)

    def test_guessed(self) -> None:
        self.alice.lose()
        self.server.emit("secret")
        for pid in ("x", self.pid[:-1], self.pid + "x", self.pid.swapcase(), "x" * 10_000, ""):
            self.assertFresh(self.claim(f'{{"pid":"{pid}"}}'))
        self.assertFresh(self.claim('{"pid":null,"offset":1}'))
        self.back(self.alice)
        self.assertEqual(self.alice.received(), [("secret",)])

    def test_offsets(self) -> None:
        """Offsets of the future, or none at all, are refused, and harm nobody."""
        self.alice.lose()
        self.server.emit("secret")
        for offset in (f"{self.epoch}-2", f"{self.epoch}-99999999999999999999", "x" * 10_000):
            self.assertFresh(self.claim(f'{{"pid":"{self.pid}","offset":"{offset}"}}'))
        self.assertFresh(self.claim(f'{{"pid":"{self.pid}","offset":[1]}}'))
        self.assertEqual(self.results(), {"offset": 4})
        self.back(self.alice)
        self.assertEqual(self.alice.received(), [("secret",)])

    def test_futureOffsetEndsNobody(self) -> None:
        self.assertFresh(self.claim(f'{{"pid":"{self.pid}","offset":"{self.epoch}-9"}}'))
        self.assertTrue(self.alice.isConnected())

    def test_otherEpoch(self) -> None:
        """A JavaScript client keeps the offset of a server that is gone: it has had no event since."""
        self.alice.lose()
        self.server.emit("one")
        for offset in ("another1-7", "", "typing", f"{self.epoch}--1", f"{self.epoch}-"):
            wire = self.claim(f'{{"pid":"{self.pid}","offset":"{offset}"}}')
            self.assertEqual(wire[1], f'2["one","{self.epoch}-1"]')

    def test_earlierOffset(self) -> None:
        """An offset from before the client came shows nothing from before."""
        for _ in range(3):
            self.server.emit("early")
        bob = self.join(self.server)
        pid = bob._recoveries["/"]._pid
        bob.lose()
        self.server.emit("one")
        wire = self.claim(f'{{"pid":"{pid}","offset":"{self.epoch}-0"}}')
        self.assertEqual(wire[1], f'2["one","{self.epoch}-4"]')
        self.assertEqual(len(wire), 2)

    def test_otherNamespace(self) -> None:
        self.server.namespace("/chat")
        self.alice.lose()
        self.server.emit("secret")
        self.assertFresh(self.claim(f'{{"pid":"{self.pid}"}}', "/chat,"))

    def test_otherClientsEvents(self) -> None:
        bob = self.join(self.server)
        self.alice.lose()
        self.socketOf(self.server, bob).emit("for bob")
        self.server.to("bob's").emit("for bob")
        self.back(self.alice)
        self.assertEqual(self.alice.received(), [])

    def test_fullOfClients(self) -> None:
        """10,000 clients of one address do not drive out those of others."""
        server = self.makeServer(recoveryWindow=WINDOW, recoverySessions=50)
        others = [self.join(server, address=f"192.0.2.{number}") for number in range(10)]
        for other in others:
            other.lose()
        for _ in range(200):
            client = Client(server, address="198.51.100.1")
            client.connect()
            client.close()
        parking = server._namespaces.parking
        self.assertEqual(len(parking), 50)
        self.assertEqual(len(server.namespace()._recovery.tickets), 50)
        for other in others:
            self.back(other)
            self.assertTrue(other.recovered())

    def test_handlesNothing(self) -> None:
        """A client that comes back again and again, and handles no event for longer than one is kept."""
        self.server.emit("first")
        offset = self.alice._recoveries["/"]._offset
        self.alice.lose()
        for _ in range(6):
            self.server.emit("next")
            client = self.makeClient(self.server)
            self.sendText(client, f'0{{"pid":"{self.pid}","offset":"{offset}"}}')
            client.lose()
            self.clock.advance(WINDOW / 2)
        self.assertFresh(self.claim(f'{{"pid":"{self.pid}","offset":"{offset}"}}'))
        results = self.results()
        self.assertEqual((results.get("expired"), results.get("dropped")), (1, None))

    def test_full(self) -> None:
        server = self.makeServer(recoveryWindow=WINDOW, recoverySessions=2)
        clients = [self.join(server, address=f"192.0.2.{number}") for number in range(3)]
        for client in clients:
            client.lose()
        for client in clients:
            self.back(client)
        self.assertEqual([client.recovered() for client in clients], [False, True, True])

    def test_floodedByNumber(self) -> None:
        server = self.makeServer(recoveryWindow=WINDOW, recoveryEvents=100)
        alice = self.join(server)
        alice.lose()
        for _ in range(1000):
            server.emit("flood")
        self.assertEqual(len(self.namespace._recovery.log), 100)
        self.back(alice)
        self.assertEqual((alice.recovered(), alice.received()), (False, []))
        self.assertEqual(self.results(server), {"dropped": 1})

    def test_floodedByBytes(self) -> None:
        server = self.makeServer(recoveryWindow=WINDOW, recoveryBytes=100_000)
        alice = self.join(server)
        alice.lose()
        for _ in range(100):
            server.emit("flood", "x" * 10_000)
        store = server._namespaces.parking.store
        self.assertLessEqual(store.bytes, 100_000)
        server.emit("flood", "x" * 200_000)
        self.assertEqual((store.bytes, store.count), (0, 0))
        self.back(alice)
        self.assertFalse(alice.recovered())

    def test_floodedInAnotherNamespace(self) -> None:
        """The oldest events go first, of whichever namespace."""
        server = self.makeServer(recoveryWindow=WINDOW, recoveryEvents=100)
        server.namespace("/chat")
        alice = self.join(server)
        self.successResultOf(alice.connect("/chat"))
        alice.lose()
        for number in range(100):
            server.emit("number", number)
        server.namespace("/chat").emit("one")
        self.assertEqual(len(server.namespace()._recovery.log), 99)
        self.back(alice)
        self.assertEqual((alice.recovered(), alice.recovered("/chat")), (False, True))

    def test_tooMuchAtOnce(self) -> None:
        server = self.makeServer(recoveryWindow=WINDOW, maxBuffered=10_000)
        alice = self.join(server)
        alice.lose()
        for _ in range(20):
            server.emit("much", "x" * 1000)
        self.back(alice)
        self.assertEqual((alice.recovered(), alice.received()), (False, []))
        self.assertEqual(self.results(server), {"size": 1})

    def test_manyMoves(self) -> None:
        """The memory of changes of rooms is bounded, and its end never makes a hole."""
        bob = self.join(self.server)
        socket = self.socketOf(self.server, self.alice)
        for number in range(1000):
            socket.join("red")
            self.server.to("red").emit("number", number)
            socket.leave("red")
            self.socketOf(self.server, bob).emit("tick")
            if not number % 2:
                self.alice.received()
        ticket = self.namespace._recovery.tickets[self.pid]
        self.assertLessEqual(len(ticket.moves), 256)
        self.alice.lose()
        self.back(self.alice)
        self.assertEqual(self.alice.received(), [("number", 999)])
        old = self.join(self.server)
        socket = self.socketOf(self.server, old)
        for number in range(1000):
            socket.join("red")
            self.server.to("red").emit("number", number)
            socket.leave("red")
            self.server.emit("tick")
        old.lose()
        self.back(old)
        self.assertEqual((old.recovered(), old.received()), (False, []))

    def test_movesWithoutEvents(self) -> None:
        socket = self.socketOf(self.server, self.alice)
        for _ in range(1000):
            socket.join("red")
            socket.leave("red")
        self.assertEqual(self.namespace._recovery.tickets[self.pid].moves, {})


class AddressTests(RecoveryTestCase):
    """
    The option that ties a client to its address.
    """

    options = {"recoveryAddress": True}

    def test_otherAddress(self) -> None:
        alice = self.join(self.server, address="192.0.2.1")
        pid = alice._recoveries["/"]._pid
        thief = self.makeClient(self.server, address="192.0.2.2")
        self.sendText(thief, f'0{{"pid":"{pid}"}}')
        self.assertNotIn(pid, self.wireOf(thief)[0])
        self.assertTrue(alice.isConnected())
        alice.lose()
        self.server.emit("one")
        self.back(alice)
        self.assertEqual(alice.received(), [("one",)])
        alice.lose()
        self.back(alice, address="192.0.2.3")
        self.assertFalse(alice.recovered())
        self.assertEqual(self.results(), {"address": 2, "ok": 1})
