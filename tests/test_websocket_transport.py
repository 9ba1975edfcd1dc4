"""
The WebSocket transport: packets, one frame for many clients, backpressure, and close codes.
"""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from tests import memory
from tests.memory import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PONG,
    TEXT,
    Frame,
    Link,
    WebSocket,
    WireTestCase,
    clientFrame,
    closeFrame,
)
from txrealtime.engineio import tcp
from txrealtime.engineio.packet import message
from txrealtime.engineio.session import CloseReason, ITransport, Session, State

DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}


class MessageTests(WireTestCase):
    def test_interface(self) -> None:
        self.openWebSocket()
        verifyObject(ITransport, self.session.transport)

    def test_received(self) -> None:
        client = self.openWebSocket()
        client.send("4héllo")
        client.send(b"\x00\xff")
        client.send("bAQID")
        client.send("4")
        self.assertEqual(self.owner.heard, ["héllo", b"\x00\xff", b"\x01\x02\x03", ""])

    def test_sent(self) -> None:
        client = self.openWebSocket()
        self.session.send("héllo")
        self.session.send(b"\x00\xff")
        self.session.send("")
        self.assertEqual(client.messages(), ["4héllo", b"\x00\xff", "4"])

    def test_largerThanWhatIsAccepted(self) -> None:
        """``maxPayload`` limits received messages; sent ones have any size, compressed or not."""
        for deflate in (False, True):
            self.makeEngine(maxPayload=100, perMessageDeflate=deflate)
            client = self.openWebSocket(headers=DEFLATE)
            for size in (1000, 70_000, 1_000_000):
                self.session.send(b"x" * size)
                (sent,) = client.frames()
                self.assertEqual(sent.opcode, BINARY)
                if not deflate:
                    self.assertEqual(len(sent.payload), size)

    def test_framedOnce(self) -> None:
        """A broadcast is one object, written to each client unchanged."""
        clients = [self.openWebSocket() for _ in range(3)]
        packets = [message("x" * 100), message(b"attachment")]
        for client in clients:
            client.link.writes.clear()
        for owner in self.owners:
            owner.session.sendPackets(packets)
        first = clients[0].link.writes
        self.assertEqual(b"".join(first), b"\x81\x654" + b"x" * 100 + b"\x82\x0aattachment")
        for client in clients[1:]:
            self.assertEqual(len(client.link.writes), len(first))
            for mine, other in zip(first, client.link.writes, strict=True):
                self.assertIs(mine, other)

    def test_notFramedForCompression(self) -> None:
        """Each connection compresses with a dictionary of its own."""
        self.makeEngine(perMessageDeflate=True)
        packet = message("x" * 5000)
        plain = self.openWebSocket()
        self.session.sendPackets([packet])
        compressing = self.openWebSocket(headers=DEFLATE)
        self.session.sendPackets([packet])
        self.assertEqual(plain.frames(), [Frame(TEXT, packet.wire)])
        (sent,) = compressing.frames()
        self.assertEqual(sent.rsv, 4)
        self.assertLess(len(sent.payload), 100)

    def test_heartbeat(self) -> None:
        client = self.openWebSocket()
        self.clock.advance(25)
        self.assertEqual(client.messages(), ["2"])
        client.send("3")
        self.clock.advance(25)
        self.assertEqual(client.messages(), ["2"])
        self.clock.advance(20)
        self.assertEqual(client.frames(), [closeFrame(1000, "ping timeout")])
        self.assertEqual(self.owner.ends, [CloseReason.PING_TIMEOUT])

    def test_pongIsNoHeartbeat(self) -> None:
        """A PONG frame of the WebSocket is no PONG packet of the client."""
        client = self.openWebSocket()
        self.clock.advance(25)
        client.sendFrame(PONG)
        self.clock.advance(20)
        self.assertEqual(self.owner.ends, [CloseReason.PING_TIMEOUT])

    def test_unixSocket(self) -> None:
        class UnixLink(Link):
            def getPeer(self) -> Any:
                return object()

        link = UnixLink().connect(self.site)
        link.deliver(self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling"))
        self.assertEqual(self.session.handshake.address, "unix")


class SubprotocolTests(WireTestCase):
    def test_theFirst(self) -> None:
        """The first subprotocol is accepted: a browser fails without one of its offers (RFC 6455, 4.1)."""
        client = self.openWebSocket(headers={"Sec-WebSocket-Protocol": "v2.example, v1.example"})
        self.assertEqual(client.response.headers["sec-websocket-protocol"], "v2.example")
        client.send("4hello")
        self.assertEqual(self.owner.heard, ["hello"])

    def test_none(self) -> None:
        client = self.openWebSocket()
        self.assertNotIn("sec-websocket-protocol", client.response.headers)

    def test_twiceTheSame(self) -> None:
        """RFC 6455, 4.1, forbids offering a subprotocol twice."""
        client = self.webSocket(headers={"Sec-WebSocket-Protocol": "a, a"})
        self.assertEqual(client.response.error[:2], (400, 3))
        self.assertEqual(self.owners, [])


class BackpressureTests(WireTestCase):
    def test_producer(self) -> None:
        client = self.openWebSocket()
        verifyObject(IPushProducer, client.link.producer)
        self.assertTrue(client.link.streaming)

    def test_full(self) -> None:
        """While TCP pushes back, messages wait in the session's buffer."""
        client = self.openWebSocket()
        client.link.fill()
        self.assertFalse(self.session.writable)
        self.session.send("a")
        self.session.send("lost", volatile=True)
        self.session.send(b"b")
        self.assertEqual(client.messages(), [])
        self.assertEqual(self.session.buffered, 3)
        client.link.drain()
        self.assertEqual(client.messages(), ["4a", b"b"])
        self.assertEqual(self.session.buffered, 0)
        self.assertTrue(self.session.writable)

    def test_fullAgain(self) -> None:
        client = self.openWebSocket()
        client.link.fill()
        self.session.send("a")
        client.link.drain()
        client.link.fill()
        self.session.send("b")
        self.assertEqual(client.messages(), ["4a"])
        client.link.drain()
        self.assertEqual(client.messages(), ["4b"])

    def test_slowConsumer(self) -> None:
        """A slow client is aborted, since a close frame could not leave either."""
        self.makeEngine(maxBuffered=10)
        client = self.openWebSocket()
        client.link.fill()
        self.session.send("12345678")
        self.session.send("12345678")
        self.assertEqual(self.owner.ends, [CloseReason.SLOW_CONSUMER])
        self.assertTrue(client.link.disconnected)
        self.assertEqual(client.frames(), [])
        client.link.lose()
        self.assertNothingLeft()

    def test_closeWhileFull(self) -> None:
        """The close frame leaves behind buffered messages."""
        client = self.openWebSocket()
        client.link.fill()
        self.session.send("last")
        self.session.close()
        self.assertEqual(client.frames(), [])
        client.link.drain()
        self.assertEqual(client.frames(), [Frame(TEXT, b"4last"), closeFrame(1000, "forced close")])

    def test_messagesWhileClosing(self) -> None:
        """The receiver, told of the end, gets no message afterwards."""
        client = self.openWebSocket()
        client.link.fill()
        self.session.send("last")
        self.session.close()
        client.send("4late")
        client.send(b"late")
        self.assertEqual(self.owner.heard, [])

    def test_neverDrained(self) -> None:
        self.makeEngine(closeTimeout=5)
        client = self.openWebSocket()
        client.link.fill()
        self.session.send("last")
        self.session.close()
        self.clock.advance(5)
        self.assertTrue(client.link.disconnected)
        client.link.lose()
        self.assertNothingLeft()

    def test_afterTheEnd(self) -> None:
        """Room in TCP's buffer after the end does no harm."""
        client = self.openWebSocket()
        transport = client.link.producer
        self.session.close()
        client.frames()
        transport.resumeProducing()
        self.assertEqual(client.frames(), [])

    def test_pause(self) -> None:
        client = self.openWebSocket()
        self.session.pause()
        self.assertFalse(client.link.reading)
        client.send("4a")
        self.assertEqual(self.owner.heard, [])
        self.session.resume()
        client.link.turn()
        self.assertEqual(self.owner.heard, ["a"])

    def test_closeWhilePaused(self) -> None:
        """A close resumes reading, since the client's close frame must be read."""
        client = self.openWebSocket()
        self.session.pause()
        self.session.close()
        self.assertTrue(client.link.reading)
        client.sendFrame(CLOSE, b"\x03\xe8")
        self.assertTrue(client.link.disconnecting)


class ClosingTests(WireTestCase):
    def test_codes(self) -> None:
        """The close frame has a code of RFC 6455, 7.4.1, and the reason in words."""
        for reason, code in (
            (CloseReason.FORCED_CLOSE, 1000),
            (CloseReason.SERVER_DISCONNECT, 1000),
            (CloseReason.SHUTTING_DOWN, 1001),
            (CloseReason.PARSE_ERROR, 1002),
        ):
            client = self.openWebSocket()
            self.session.close(reason)
            self.assertEqual(client.frames(), [closeFrame(code, reason)])
            self.assertEqual(self.owner.ends, [reason])
            client.sendFrame(CLOSE, struct.pack("!H", code))
            self.assertTrue(client.link.disconnecting)
            client.link.lose()
            self.assertNothingLeft()

    def test_clientsOnOkHttp(self) -> None:
        """
        A stop ends the connections of OkHttp's clients without a close frame, behind which they read nothing.

        They would notice only by their heartbeat, after 45 seconds.
        """
        for secure in (False, True):
            client = self.openWebSocket(headers={"User-Agent": "okhttp/3.13.1"})
            if secure:
                directlyProvides(client.link, ISSLTransport)
            self.session.send("last")
            self.session.close(CloseReason.SHUTTING_DOWN)
            self.assertEqual(client.messages(), ["4last"])
            self.assertEqual((client.link.outputEnded, client.link.disconnecting), (not secure, secure))
            self.assertEqual(self.owner.ends, [CloseReason.SHUTTING_DOWN])
            client.link.lose()
            self.assertNothingLeft()

    def test_clientsOnOkHttpFromAHandler(self) -> None:
        """A stop that a message leads to keeps the replies to the messages before."""
        for secure in (False, True):
            client = self.openWebSocket(headers={"User-Agent": "okhttp/3.13.1"})
            if secure:
                directlyProvides(client.link, ISSLTransport)
            session = self.session

            def heard(data: str | bytes, session: Session = session) -> None:
                session.send("last")
                if data == "stop":
                    session.close(CloseReason.SHUTTING_DOWN)

            self.owner.onMessage = heard
            client.link.deliver(
                clientFrame(TEXT, b"4go") + clientFrame(TEXT, b"4stop") + clientFrame(TEXT, b"4x")
            )
            self.assertEqual(client.messages(), ["4last", "4last"])
            self.assertEqual(self.owner.heard, ["go", "stop"])
            client.link.lose()
            self.assertNothingLeft()

    def test_clientsOnOkHttpOtherwise(self) -> None:
        """For any other reason they get a close frame, as from Node's server."""
        client = self.openWebSocket(headers={"User-Agent": "okhttp/3.13.1"})
        self.session.close()
        self.assertEqual(client.frames(), [closeFrame(1000, CloseReason.FORCED_CLOSE)])

    def test_oncePerSession(self) -> None:
        """The engine hears once that a session has ended, although the transport too reports its end."""
        ended = []
        client = self.openWebSocket()
        session = self.session
        inner = session._ended
        session._ended = lambda gone: (ended.append(gone), inner(gone))
        session.close()
        client.link.lose()
        self.assertEqual(ended, [session])

    def test_producerIsLetGo(self) -> None:
        """Over TLS a connection with a producer does not end until it is unregistered."""
        for start in ("server", "client"):
            client = self.openWebSocket()
            if start == "server":
                self.session.close()
            client.sendFrame(CLOSE, b"\x03\xe8")
            self.assertTrue(client.link.disconnecting)
            self.assertIsNone(client.link.producer, start)

    def test_byTheClient(self) -> None:
        client = self.openWebSocket()
        client.sendFrame(CLOSE, b"\x03\xe9going away")
        self.assertEqual([sent.opcode for sent in client.frames()], [CLOSE])
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_CLOSE])
        self.assertTrue(client.link.disconnecting)
        client.link.lose()
        self.assertNothingLeft()

    def test_byTheClientAsAPacket(self) -> None:
        """A CLOSE packet ends the session; some clients send it, where Node's close the WebSocket."""
        client = self.openWebSocket()
        client.send("1")
        self.assertEqual(client.frames(), [closeFrame(1000, "transport close")])
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_CLOSE])

    def test_lost(self) -> None:
        client = self.openWebSocket()
        client.link.lose()
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_CLOSE])
        self.assertNothingLeft()

    def test_abort(self) -> None:
        client = self.openWebSocket()
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.assertEqual([sent.opcode for sent in client.frames()], [CLOSE])
        client.link.lose()
        self.assertEqual(self.owner.ends, [CloseReason.FORCED_CLOSE])
        self.assertNothingLeft()

    def test_notAPacket(self) -> None:
        for text in ("", "x", "7", "b="):
            client = self.openWebSocket()
            client.send(text)
            self.assertEqual(client.frames(), [closeFrame(1002, "parse error")])
            self.assertEqual(self.owner.ends, [CloseReason.PARSE_ERROR])
            client.send("4late")
            self.assertEqual(self.owner.heard, [])

    def test_wrongDirection(self) -> None:
        client = self.openWebSocket()
        client.send("2")
        self.assertEqual(client.frames(), [closeFrame(1000, "transport error")])
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])

    def test_tooLarge(self) -> None:
        """A message that is too large, in any form, closes with 1009, and the log names the limit."""
        for deflate in (False, True):
            for fragmented in (False, True):
                self.makeEngine(maxPayload=1000, perMessageDeflate=deflate)
                client = self.openWebSocket(headers=DEFLATE)
                with capturedLogs() as logs:
                    if fragmented:
                        client.sendFrame(BINARY, b"x" * 600, fin=False)
                        client.sendFrame(CONTINUATION, b"x" * 600)
                    else:
                        client.sendFrame(BINARY, b"x" * 1001)
                size = 1200 if fragmented else 1001
                self.assertIn(
                    f"transport error: a message of {size} bytes or more, larger than maxPayload, "
                    "1000 bytes: "
                    "raise maxPayload (--max-payload) if clients need more",
                    "".join(formatEvent(event) for event in logs),
                )
                self.assertEqual(client.frames(), [closeFrame(1009)])
                self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])
                self.assertEqual(self.owner.heard, [])
                client.link.lose()
                self.assertNothingLeft()

    def test_notUTF8(self) -> None:
        client = self.openWebSocket()
        client.sendFrame(TEXT, b"4\xff")
        self.assertEqual(client.frames()[-1].payload[:2], struct.pack("!H", 1007))
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])

    def test_violation(self) -> None:
        client = self.openWebSocket()
        client.sendFrame(TEXT, b"4x", rsv=4)
        self.assertEqual(client.frames()[-1].payload[:2], struct.pack("!H", 1002))
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])

    def test_noAnswer(self) -> None:
        client = self.openWebSocket()
        self.session.close()
        self.assertNotIn(self.session.sid, self.engine.sessions)
        self.clock.advance(10)
        self.assertTrue(client.link.disconnected)
        client.link.lose()
        self.assertNothingLeft()

    def test_closeWithinAMessage(self) -> None:
        client = self.openWebSocket()
        self.owner.onMessage = lambda data: (self.session.send("answer"), self.session.close())
        late = clientFrame(TEXT, b"4b") + clientFrame(BINARY, b"c")
        client.link.deliver(clientFrame(TEXT, b"4a") + late)
        client.link.deliver(late)
        self.assertEqual(self.owner.heard, ["a"])
        self.assertEqual(client.frames(), [Frame(TEXT, b"4answer"), closeFrame(1000, "forced close")])


class UpgradeTests(WireTestCase):
    def test_upgrade(self) -> None:
        sid = self.openPolling()
        poll = self.get(sid)
        self.session.send("1")
        self.assertEqual(poll.payload, [b"41"])
        poll = self.get(sid)
        client = self.webSocket(sid)
        self.assertEqual(client.messages(), [])
        client.send("2probe")
        self.assertEqual(client.messages(), ["3probe"])
        self.assertEqual(poll.payload, [b"6"])
        self.session.send("2")
        client.send("5")
        self.session.send("3")
        self.assertEqual(client.messages(), ["42", "43"])
        client.send("4hello")
        self.assertEqual(self.owner.heard, ["hello"])
        self.assertEqual(self.session.transport.name, "websocket")

    def test_laterGET(self) -> None:
        sid = self.openPolling()
        client = self.webSocket(sid)
        client.send("2probe")
        self.assertEqual(self.get(sid).payload, [b"6"])
        self.assertEqual(self.get(sid).payload, [b"6"])

    def test_messageWithTheUpgrade(self) -> None:
        """A message in the same read as the UPGRADE packet reaches the session."""
        sid = self.openPolling()
        client = self.webSocket(sid)
        client.send("2probe")
        client.link.deliver(clientFrame(TEXT, b"5") + clientFrame(TEXT, b"4a"))
        self.assertEqual(self.owner.heard, ["a"])

    def test_garbage(self) -> None:
        sid = self.openPolling()
        for garbage in ("4x", "x", b"x", "3probe", "1"):
            client = self.webSocket(sid)
            client.send(garbage)
            self.assertEqual([sent.opcode for sent in client.frames()], [CLOSE], garbage)
            self.assertEqual(self.session.state, State.OPEN)
            client.link.lose()
        self.assertEqual(self.owner.heard, [])
        self.session.send("still here")
        self.assertEqual(self.get(sid).payload, [b"4still here"])

    def test_lost(self) -> None:
        sid = self.openPolling()
        client = self.webSocket(sid)
        client.send("2probe")
        client.link.lose()
        self.session.send("still here")
        self.assertEqual(self.get(sid).payload, [b"4still here"])

    def test_timeout(self) -> None:
        sid = self.openPolling()
        client = self.webSocket(sid)
        self.clock.advance(10)
        self.assertEqual([sent.opcode for sent in client.frames()], [CLOSE])
        self.assertEqual(self.session.state, State.OPEN)

    def test_second(self) -> None:
        sid = self.openPolling()
        first, second = self.webSocket(sid), self.webSocket(sid)
        self.assertEqual([sent.opcode for sent in second.frames()], [CLOSE])
        second.send("2probe")
        first.send("2probe")
        first.send("5")
        self.assertEqual(first.messages(), ["3probe"])
        third = self.webSocket(sid)
        self.assertEqual([sent.opcode for sent in third.frames()], [CLOSE])
        first.send("4hello")
        self.assertEqual(self.owner.heard, ["hello"])

    def test_closeMeanwhile(self) -> None:
        sid = self.openPolling()
        poll = self.get(sid)
        client = self.webSocket(sid)
        client.send("2probe")
        self.assertEqual(poll.payload, [b"6"])
        self.session.send("last")
        self.session.close()
        client.send("5")
        self.assertEqual(
            client.frames(),
            [Frame(TEXT, b"3probe"), Frame(TEXT, b"4last"), closeFrame(1000, "forced close")],
        )
        client.link.lose()
        self.assertNothingLeft()

    def test_sessionEndsMeanwhile(self) -> None:
        sid = self.openPolling()
        client = self.webSocket(sid)
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.assertEqual([sent.opcode for sent in client.frames()], [CLOSE])
        client.link.lose()
        self.assertNothingLeft()

    def test_lostAfterTheUpgrade(self) -> None:
        client = self.upgrade(self.openPolling())
        client.link.lose()
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_CLOSE])
        self.assertNothingLeft()

    def test_full(self) -> None:
        """Messages wait for a WebSocket that is full after the upgrade."""
        sid = self.openPolling()
        client = self.webSocket(sid)
        client.send("2probe")
        client.link.fill()
        self.session.send("a")
        client.send("5")
        self.assertEqual(client.messages(), ["3probe"])
        client.link.drain()
        self.assertEqual(client.messages(), ["4a"])


class FastPathMessageTests(MessageTests):
    fastPath = True


class PlainLink(Link):
    """A connection with the attributes that tell a plain socket with nothing to write."""

    dataBuffer = b""
    _tempDataBuffer: tuple[()] = ()

    @property
    def socket(self) -> Any:
        return self

    def send(self, data: bytes) -> int:
        self.write(data)
        return len(data)

    def connectionLost(self, reason: Failure) -> None:
        self.disconnected = True
        super().connectionLost(reason)


class EndNowTests(WireTestCase):
    """A plain connection is lost in the call that reads the client's close frame."""

    fastPath = True

    def setUp(self) -> None:
        super().setUp()
        self.patch(memory, "Link", PlainLink)
        self.patch(tcp, "_PLAIN", frozenset([PlainLink]))

    def test_closedByTheClient(self) -> None:
        client = self.openWebSocket()
        client.link.deliver(clientFrame(CLOSE, b"\x03\xe8") + clientFrame(TEXT, b"4late"))
        self.assertTrue(client.link.disconnected)
        self.assertFalse(client.link.disconnecting)  # there was no loseConnection
        self.assertEqual(client.frames(), [closeFrame(1000)])
        self.assertEqual((self.owner.heard, self.owner.ends), ([], [CloseReason.TRANSPORT_CLOSE]))
        self.assertIsNone(client.link.protocol._autobahn)  # it would read for a connection that is lost
        self.assertNothingLeft()

    def test_closedByTheServer(self) -> None:
        client = self.openWebSocket()
        self.session.close()
        self.assertFalse(client.link.disconnected)
        client.link.deliver(clientFrame(CLOSE, b"\x03\xe8") + clientFrame(TEXT, b"4late"))
        self.assertTrue(client.link.disconnected)
        self.assertEqual(self.owner.heard, [])
        self.assertNothingLeft()


class FastPathClosingTests(ClosingTests):
    fastPath = True


class FastPathUpgradeTests(UpgradeTests):
    fastPath = True


class CompressedMessageTests(UpgradeTests):
    """Messages of a WebSocket with compression, where Autobahn reads all frames."""

    def webSocket(self, *args: Any, **options: Any) -> WebSocket:
        return super().webSocket(*args, headers=DEFLATE, **options)

    def makeEngine(self, *args: Any, **settings: Any) -> None:
        super().makeEngine(*args, perMessageDeflate=True, **settings)
