"""
Servers that break the protocol: a clear error each, bounded, and a new connection as the rules say.
"""

from __future__ import annotations

from typing import Any

from tests.clientmemory import FakeServer, Wire, World
from txrealtime import CloseReason
from txrealtime.client import Client


class ViolationTests(World):
    def setUp(self) -> None:
        super().setUp()
        self.errors: list[Exception] = []
        self.reasons: list[CloseReason] = []

    def visit(self, fake: FakeServer, **options: Any) -> Client:
        """Connect a client to a fake server, and collect its errors."""
        self.errors, self.reasons = [], []
        self.useFake(fake)
        client = self.makeClient(start=False, **options)
        client.onConnectError(self.errors.append)
        client.onDisconnect(self.reasons.append)
        client.startService()
        self.settle()
        return client

    def assertError(self, words: str, client: Client) -> None:
        """The client has one error with some words, is not connected, and tries again."""
        self.assertEqual(len(self.errors), 1, self.errors)
        self.assertIn(words, str(self.errors[0]))
        self.assertFalse(client.connected)
        attempts = self.endpoint.attempts
        self.wait(2)
        self.assertGreater(self.endpoint.attempts, attempts)
        client.stopService()
        self.settle()

    # -- the opening ---------------------------------------------------------------

    def test_handshakes(self) -> None:
        """An OPEN packet that lacks something, or has it in another form."""
        fields: list[dict[str, Any]] = [
            {"sid": None},
            {"sid": ""},
            {"sid": "x" * 5000},
            {"upgrades": "websocket"},
            {"pingInterval": "25000"},
            {"pingInterval": -1},
            {"pingTimeout": 0},
            {"pingTimeout": 1e300},
            {"maxPayload": -5},
            {"maxPayload": "1"},
        ]
        for each in fields:
            for transport in ("polling", "websocket"):
                fake = FakeServer()
                fake.handshake.update(each)
                self.assertError("handshake", self.visit(fake, transports=(transport,)))

    def test_handshakesThatAreNoObject(self) -> None:
        for text in ("0", "0{", "0[]", "0null", '0"x"', "0" + "[" * 100_000):
            for transport in ("polling", "websocket"):
                fake = FakeServer()
                fake.opening = lambda text=text: text
                if transport == "websocket" and len(text) > 60_000:
                    continue
                self.assertError("handshake", self.visit(fake, transports=(transport,)))

    def test_firstPackets(self) -> None:
        for text, words in (("4hello", "MESSAGE"), ("2", "PING"), ("1", "CLOSE"), ("x", "packet type")):
            for transport in ("polling", "websocket"):
                fake = FakeServer()
                fake.opening = lambda text=text: text
                self.assertError(words, self.visit(fake, transports=(transport,)))

    def test_noMaxPayload(self) -> None:
        """Servers before Socket.IO 4.4 do not send it."""
        fake = FakeServer()
        del fake.handshake["maxPayload"]
        client = self.visit(fake)
        client.emit("x", "y" * 2_000_000)
        self.assertTrue(client.connected)

    def test_oldServers(self) -> None:
        """Version 2 answers in the payload of Engine.IO 3, or admits without an id."""
        fake = FakeServer()
        fake.opening = lambda: '96:0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":5000}'
        self.assertError("Engine.IO 3", self.visit(fake))
        fake = FakeServer()
        fake.welcome = "40"
        client = self.visit(fake, transports=("websocket",))
        self.assertIn("Socket.IO 2", str(self.errors[0]))
        self.wait(10)
        self.assertEqual((len(self.errors), client.connected), (1, False))

    def test_statuses(self) -> None:
        cases = [
            ("404 Not Found", b"<html>", "", "setting path"),
            ("301 Moved", b"", "Location: https://example.com/\r\n", "https://example.com/"),
            (
                "400 Bad Request",
                b'{"code":0,"message":"Transport unknown"}',
                "",
                "Transport unknown (code 0)",
            ),
            ("403 Forbidden", b'{"code":4,"message":"Forbidden"}', "", "403"),
            ("500 Error", b"[]", "", "500"),
            ("200 OK", b"<html>", "", "packet type '<'"),
            ("200 OK", b"\xff", "", "UTF-8"),
            ("200 OK", b"", "", "packet type ''"),
            ("200 OK", b"x", "Content-Encoding: gzip\r\n", "compressed"),
        ]
        for status, body, headers, words in cases:
            fake = FakeServer()
            fake.polled = lambda wire, url, a=(body, status, headers): wire.reply(*a)
            self.assertError(words, self.visit(fake))

    def test_noHTTP(self) -> None:
        fake = FakeServer()
        fake.polled = lambda wire, url: wire.transport.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        self.assertError("connection failed", self.visit(fake))
        fake.polled = lambda wire, url: wire.transport.loseConnection()
        self.assertError("connection failed", self.visit(fake))

    def test_noWebSocket(self) -> None:
        for answer, words in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "400"),
            (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "Accept"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "HTTP"),
        ):
            fake = FakeServer()
            fake.webSocketAsked = lambda wire, headers, answer=answer: wire.transport.write(answer)
            self.assertError(words, self.visit(fake, transports=("websocket",)))

    def test_refusedAndHanging(self) -> None:
        for transport in ("polling", "websocket"):
            fake = FakeServer()
            self.useFake(fake)
            self.endpoint.refuses = True
            self.errors = []
            client = self.makeClient(start=False, transports=(transport,))
            client.onConnectError(self.errors.append)
            client.startService()
            self.settle()
            self.assertError("cannot connect", client)
            fake.polled = lambda wire, url: None
            fake.webSocketAsked = lambda wire, headers: None
            client = self.visit(fake, transports=(transport,), timeout=5)
            self.assertEqual(self.errors, [])
            self.wait(5)
            self.assertError("within 5 s", client)
            self.assertLessEqual(len(self.endpoint.alive), 1)

    # -- while it is open ------------------------------------------------------------

    def broken(self, client: Client, reason: CloseReason) -> None:
        """The connection ends for a reason, and the client connects again."""
        self.settle()
        self.assertEqual(self.reasons, [reason])
        self.wait(3)
        self.assertTrue(client.connected)
        client.stopService()
        self.settle()

    def test_noPing(self) -> None:
        for transport in ("polling", "websocket"):
            client = self.visit(FakeServer(), transports=(transport,))
            self.wait(44)
            self.assertTrue(client.connected)
            self.wait(1.2)
            self.broken(client, CloseReason.PING_TIMEOUT)

    def test_pong(self) -> None:
        for transport in ("polling", "websocket"):
            fake = FakeServer()
            self.visit(fake, transports=(transport,))
            fake.send("2")
            self.settle()
            self.assertEqual(fake.got[-1], "3")

    def test_packetsThatCannotBeRead(self) -> None:
        """Engine.IO's and Socket.IO's."""
        for packet, reason in (
            ("9", CloseReason.TRANSPORT_ERROR),
            ("bx", CloseReason.TRANSPORT_ERROR),
            ("4", CloseReason.PARSE_ERROR),
            ("49", CloseReason.PARSE_ERROR),
            ("42{}", CloseReason.PARSE_ERROR),
            ('42["connect"]', CloseReason.PARSE_ERROR),
            ('451-["x",{"_placeholder":true,"num":0}]\x1e42["y"]', CloseReason.PARSE_ERROR),
            ('459999-["x"]', CloseReason.PARSE_ERROR),
            ("bAAAA", CloseReason.PARSE_ERROR),
        ):
            for transport in ("polling", "websocket"):
                fake = FakeServer()
                client = self.visit(fake, transports=(transport,))
                fake.send(*packet.split("\x1e"))
                self.broken(client, reason)

    def test_unknownThings(self) -> None:
        """Acks that nobody waits for, events of other namespaces, packets without a meaning: ignored."""
        fake = FakeServer()
        client = self.visit(fake)
        got = self.heard(client, "x")
        fake.send(
            "439[1]", '42/other,["x"]', "41/other", '44{"message":"?"}', '40{"sid":"again"}', "6", "3", "5"
        )
        fake.send('42["x"]')
        self.settle()
        self.assertEqual((got, client.id), ([()], "the-id"))

    def test_400InMidSession(self) -> None:
        fake = FakeServer()
        client = self.visit(fake)
        self.assertTrue(client.connected)
        waiting, fake.waiting = fake.waiting, None
        waiting.reply('{"code":1,"message":"Session ID unknown"}', "400 Bad Request")
        self.broken(client, CloseReason.TRANSPORT_ERROR)

    def test_postsThatFail(self) -> None:
        fake = FakeServer()
        client = self.visit(fake)
        posted = fake.posted
        fake.posted = lambda wire, body: wire.reply("no", "500 Error")
        client.emit("x")
        self.settle()
        fake.posted = posted
        self.broken(client, CloseReason.TRANSPORT_ERROR)
        client = self.visit(fake, requestTimeout=5)
        fake.posted = lambda wire, body: None
        client.emit("x")
        self.wait(5)
        fake.posted = posted
        self.broken(client, CloseReason.TRANSPORT_ERROR)

    def test_chunkedAnswers(self) -> None:
        """To a POST, with any words, and to a GET."""
        fake = FakeServer()
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        posted = FakeServer.posted

        def chunks(wire: Wire, body: bytes) -> None:
            wire.reply = lambda text, **more: wire.transport.write(chunked % (5, b"fine!"))
            posted(fake, wire, body)
            del wire.reply

        fake.posted = chunks
        client = self.visit(fake)
        got = self.heard(client, "x")
        waiting, fake.waiting = fake.waiting, None
        waiting.transport.write(chunked % (7, b'42["x"]'))
        self.settle()
        self.assertEqual((client.connected, got), (True, [()]))

    def test_bodiesTooLarge(self) -> None:
        for headers, body in ((b"Content-Length: 5000\r\n", b""), (b"", b"4" * 2000)):
            fake = FakeServer()
            client = self.visit(fake, maxPayload=1500)
            waiting, fake.waiting = fake.waiting, None
            waiting.transport.write(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + body)
            self.broken(client, CloseReason.TRANSPORT_ERROR)

    def test_framesTooLarge(self) -> None:
        """By their announced size alone; and attachments that are too large together."""
        for frame in (
            b"\x81\x7e\x07\xd0" + b"4" * 2000,
            b"\x82\x7f\x00\x00\x00\x00\x7f\xff\xff\xff",
            b"\x01\x7e\x03\xe84" + b"x" * 999 + b"\x80\x7e\x03\xe8" + b"x" * 1000,
        ):
            fake = FakeServer()
            client = self.visit(fake, transports=("websocket",), maxPayload=1500)
            webSocket, fake.webSocket = fake.webSocket, None
            webSocket.transport.write(frame)
            self.broken(client, CloseReason.TRANSPORT_ERROR)
        fake = FakeServer()
        client = self.visit(fake, transports=("websocket",), maxPayload=1500)
        webSocket = fake.webSocket
        webSocket.frame('4510-["x"]')
        for _ in range(3):
            webSocket.frame(b"x" * 700)
        self.broken(client, CloseReason.PARSE_ERROR)

    def test_frames(self) -> None:
        """Violations of RFC 6455: a masked frame, a reserved bit, text that is not UTF-8, a long length."""
        for frame in (
            b"\x81\x81abcd4",
            b"\xc1\x014",
            b"\x81\x024\xff",
            b"\x81\x7e\x00\x014",
            b"\x83\x00",
            b"\x80\x00",
            b"\x01\x00" + b"\x00\x00" * 2000,
        ):
            fake = FakeServer()
            client = self.visit(fake, transports=("websocket",))
            webSocket, fake.webSocket = fake.webSocket, None
            webSocket.transport.write(frame)
            self.broken(client, CloseReason.TRANSPORT_ERROR)

    def test_theServerIsTold(self) -> None:
        """An ack that was sent before a violation, and the code of the violation (RFC 6455, 7.1.7)."""
        for frame, code in (
            (b"\x81\x81abcd4", 1002),
            (b"\xc1\x014", 1002),
            (b"\x81\x024\xff", 1007),
            (b"\x01\x00" + b"\x00\x00" * 2000, 1008),
            (b"\x81\x7e\x13\x89", 1009),
        ):
            fake = FakeServer()
            told: list[tuple[int, bytes]] = []
            fake.frameReceived = lambda wire, opcode, payload, told=told: told.append((opcode, payload))
            client = self.visit(fake, transports=("websocket",), maxPayload=5000)
            fake.webSocket.frame('40{"sid":"the-id"}')
            self.settle()
            client.on("ask")(lambda: "here")
            told.clear()
            fake.webSocket.transport.write(b'\x81\x0a420["ask"]' + frame)
            self.settle()
            self.assertEqual(told[0], (1, b'430["here"]'))
            self.assertEqual([(opcode, payload[:2]) for opcode, payload in told[1:]], [(8, code.to_bytes(2))])
            # A connection over TLS whose producer stays would not close.
            self.assertEqual([end.producer for end in self.endpoint.connections], [None])
            self.assertEqual((self.endpoint.alive, self.reasons), ([], [CloseReason.TRANSPORT_ERROR]))
            client.stopService()
            self.settle()

    def test_unusualFrames(self) -> None:
        """Fragments, PINGs between them, frames in pieces: as any others, and in order."""
        fake = FakeServer()
        client = self.visit(fake, transports=("websocket",))
        got = self.heard(client, "n")
        wire = fake.webSocket.transport
        wire.write(b'\x81\x0942["n",1]' + b'\x01\x0442["\x89\x02hi' + b"\x80\x05" + b'n",2]' + b"\x81\x0942[")
        self.settle()
        self.assertEqual(got, [(1,), (2,)])
        wire.write(b'"n",3]\x81\x0942["n",4]')
        self.settle()
        self.assertEqual(got, [(1,), (2,), (3,), (4,)])
        self.assertTrue(client.connected)

    def test_closeFrames(self) -> None:
        for code, reason in ((1000, CloseReason.TRANSPORT_CLOSE), (1009, CloseReason.TRANSPORT_ERROR)):
            fake = FakeServer()
            client = self.visit(fake, transports=("websocket",))
            webSocket, fake.webSocket = fake.webSocket, None
            webSocket.frame(code.to_bytes(2, "big") + b"why", 8)
            self.broken(client, reason)

    def test_twoCloseFrames(self) -> None:
        """One deadline for the end of the connection, which goes with the connection: TLS fails after it."""
        fake = FakeServer()
        client = self.visit(fake, transports=("websocket",), reconnection=False)
        fake.webSocket.transport.write(b"\x88\x02\x03\xe8" * 2)
        self.settle()
        self.assertEqual((self.endpoint.alive, self.reasons), ([], [CloseReason.TRANSPORT_CLOSE]))
        client.stopService()
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_aServerThatNeverHangsUp(self) -> None:
        """The client ends the connection itself, when either side closes."""
        fake = FakeServer()
        fake.frameReceived = lambda wire, opcode, payload: (
            FakeServer.frameReceived(fake, wire, opcode, payload) if opcode != 8 else None
        )
        client = self.visit(fake, transports=("websocket",))
        stopped = client.stopService()
        self.wait(4)
        self.assertNoResult(stopped)
        self.wait(2)
        self.successResultOf(stopped)
        self.assertEqual(self.endpoint.alive, [])

    # -- the upgrade -------------------------------------------------------------------

    def upgrading(self) -> FakeServer:
        fake = FakeServer()
        fake.handshake["upgrades"] = ["websocket"]
        return fake

    def assertPolling(self, client: Client, fake: FakeServer) -> None:
        """The client stays on polling, and loses nothing in either direction."""
        self.assertEqual((client.transport, client.connected), ("polling", True))
        got = self.heard(client, "later")
        client.emit("sent", "later")
        fake.send('42["later"]')
        self.settle()
        self.assertEqual((fake.got[-1], got), ('42["sent","later"]', [()]))
        self.assertEqual(self.reasons, [])
        client.stopService()
        self.settle()

    def test_probeNeverAnswered(self) -> None:
        fake = self.upgrading()
        fake.probed = lambda wire: None
        client = self.visit(fake)
        self.wait(11)
        self.assertPolling(client, fake)
        self.assertLessEqual(len(self.endpoint.alive), 2)

    def test_probeAnsweredWrongly(self) -> None:
        for answer in ("3", "2probe", "6", "3other", "4x", "?"):
            fake = self.upgrading()
            fake.probed = lambda wire, answer=answer: wire.frame(answer)
            self.assertPolling(self.visit(fake), fake)

    def test_webSocketRefused(self) -> None:
        fake = self.upgrading()
        fake.webSocketAsked = lambda wire, headers: wire.reply("", "400 Bad Request")
        self.assertPolling(self.visit(fake), fake)

    def test_aRememberedWebSocketThatIsRefused(self) -> None:
        """Polling again, after one failure."""
        fake = self.upgrading()
        client = self.visit(fake, rememberUpgrade=True)
        self.assertEqual(client.transport, "websocket")
        fake.webSocketAsked = lambda wire, headers: wire.reply("", "400 Bad Request")
        self.endpoint.cut()
        self.wait(8)
        self.assertEqual((client.transport, len(self.errors)), ("polling", 1))

    def test_closeInMidUpgrade(self) -> None:
        """The WebSocket is lost after the probe's answer, while polling pauses."""
        fake = self.upgrading()

        def probed(wire: Wire) -> None:
            wire.frame("3probe")
            wire.transport.loseConnection()

        fake.probed = probed
        client = self.visit(fake)
        client.emit("waiting")
        self.settle()
        fake.send("6")
        self.settle()
        self.assertPolling(client, fake)
        self.assertIn('42["waiting"]', fake.got)

    def test_pollingLostInMidUpgrade(self) -> None:
        fake = self.upgrading()

        def probed(wire: Wire) -> None:
            wire.frame("3probe")
            self.clock.callLater(1, lose)

        def lose() -> None:
            waiting, fake.waiting = fake.waiting, None
            waiting.reply("", "502 Bad Gateway")
            fake.handshake["upgrades"] = []

        fake.probed = probed
        client = self.visit(fake)
        self.clock.advance(1)
        self.broken(client, CloseReason.TRANSPORT_ERROR)

    def test_theGETIsNeverAnsweredInAnUpgrade(self) -> None:
        """Neither polling nor the WebSocket goes on for ever: the upgrade is given up."""
        fake = self.upgrading()
        fake.probed = lambda wire: wire.frame("3probe")
        client = self.visit(fake)
        client.emit("waiting")
        self.settle()
        self.assertEqual(fake.got[-1], "40")
        self.wait(11)
        self.assertPolling(client, fake)
        self.assertIn('42["waiting"]', fake.got)

    def test_eventsBeforeTheAdmission(self) -> None:
        """Without end: bounded."""
        fake = FakeServer()
        fake.asked = lambda packet: None
        client = self.visit(fake, transports=("websocket",), maxPayload=20_000)
        fake.asked = lambda packet: FakeServer.asked(fake, packet)
        webSocket, fake.webSocket = fake.webSocket, None
        for _ in range(30):
            webSocket.frame('42["x","' + "y" * 1000 + '"]')
        self.settle()
        self.assertEqual(self.endpoint.alive, [])
        self.wait(3)
        self.assertTrue(client.connected)
