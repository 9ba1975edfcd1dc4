"""
The fast path for the beginning and the end of a WebSocket, beside Autobahn.
"""

from __future__ import annotations

import random
import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import CLOSE, PING, PONG, TEXT, Link, WireTestCase, clientFrame
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.http.fastpath import _FIELDS, _REQUEST, _readFields
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.websocket.autobahn import Autobahn, FrameFactory
from txrealtime.engineio.websocket.frames import FrameProtocol
from txrealtime.engineio.websocket.opening import Closing, isPlainClose, replyTo

PLAIN = {
    "Host": "example.org:8000",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Origin": "http://example.org:8000",
    "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
}


def request(url: str = "/engine.io/?EIO=4&transport=websocket", **changes: str | None) -> bytes:
    """A request that is plain but for some headers; None leaves a header out."""
    given = {name.replace("_", "-"): value for name, value in changes.items()}
    headers = {name: value for name, value in {**PLAIN, **given}.items() if value is not None}
    lines = [f"GET {url} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def fastReply(data: bytes) -> bytes | None:
    """The fast path's response to a request; None where Autobahn reads the request."""
    start = data.find(b"\r\n") + 2
    head, lines = _REQUEST.fullmatch(data, 0, start), data[start:]
    fields = _readFields(lines[:-2]) if head is not None and _FIELDS.fullmatch(lines) else None
    if head is None or fields is None or head[1] != b"GET":
        return None
    return replyTo(head[2].decode(), fields)


class ReplyTests(SynchronousTestCase):
    """Plain requests, and those that are left to Autobahn."""

    def test_example(self) -> None:
        """RFC 6455, 1.3."""
        reply = fastReply(request())
        assert reply is not None
        self.assertIn(b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", reply)

    def test_plain(self) -> None:
        for changes in (
            {"Connection": "Upgrade"},
            {"Connection": "upgrade,keep-alive"},
            {"Upgrade": "WebSocket"},
            {"Host": "[2001:db8::1]:443"},
            {"Host": "localhost"},
            {"Origin": None},
            {"Origin": "http://127.0.0.1:5173"},
            {"Sec_WebSocket_Extensions": None},
            {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits=15, x-other"},
            {"Cookie": "a=b; c=d", "User-Agent": "anything"},
        ):
            self.assertIsNotNone(fastReply(request(**changes)), changes)

    def test_unusual(self) -> None:
        for changes in (
            {"Connection": "keep-alive"},
            {"Connection": None},
            {"Upgrade": "websocket, h2c"},
            {"Host": None},
            {"Host": "user@example.org"},
            {"Host": "example.org:99999"},
            {"Sec_WebSocket_Key": None},
            {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZR=="},
            {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ="},
            {"Sec_WebSocket_Version": "8"},
            {"Sec_WebSocket_Version": "13, 8"},
            {"Sec_WebSocket_Protocol": "chat"},
            {"Sec_WebSocket_Extensions": 'permessage-deflate; server_max_window_bits="10"'},
            {"Origin": "null"},
            {"Origin": "capacitor://localhost"},
            {"Origin": "https://example.org/page"},
            {"Content_Length": "0"},
            {"Transfer_Encoding": "chunked"},
            {"Expect": "100-continue"},
        ):
            self.assertIsNone(fastReply(request(**changes)), changes)
        for url in ("//engine.io/?EIO=4", "/engine.io/#x", "http://example.org/engine.io/"):
            self.assertIsNone(fastReply(request(url)), url)


class DifferentialTests(SynchronousTestCase):
    """
    Autobahn accepts whatever the fast path accepts, with the same response.

    scripts/fuzz runs whole connections over both; this is the handshake alone, changed at random.
    """

    MUTANTS = 3000

    PIECES = (
        *(f"{name}: {value}\r\n".encode() for name, value in PLAIN.items()),
        b"\r\n",
        b",",
        b" ",
        b"\t",
        b";",
        b'"',
        b"=",
        b"#",
        b"//",
        b"\x85",
        b"\x0b",
        b"\xff",
        b"%00",
        b"Sec-WebSocket-Protocol: chat\r\n",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        b"Origin: null\r\n",
        b"Content-Length: 4\r\n",
        b"permessage-deflate; server_no_context_takeover",
    )

    def mutant(self, chance: random.Random) -> bytes:
        data = request()
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(data))
            what = chance.randrange(4)
            if what == 0:
                data = data[:start] + chance.choice(self.PIECES) + data[start:]
            elif what == 1:
                data = data[:start] + data[start + chance.randint(1, 12) :]
            elif what == 2:
                data = data[:start] + bytes((chance.randrange(256),)) + data[start + 1 :]
            else:
                lines = data.split(b"\r\n")
                lines.insert(chance.randrange(1, len(lines)), chance.choice(lines))
                data = b"\r\n".join(lines)
        end = data.find(b"\r\n\r\n")
        return data[: end + 4] if end > 0 else data

    def byAutobahn(self, data: bytes) -> bytes:
        """Autobahn's response, which an endpoint of WebSocket alone gives."""
        link = Link().connect(self.factory)
        link.deliver(data)
        response = link.take()
        link.lose()
        return response[: response.find(b"\r\n\r\n") + 4]

    def test_mutants(self) -> None:
        self.factory = FrameFactory(Settings(), Clock(), FrameProtocol)
        chance = random.Random(6455)
        accepted = 0
        for _ in range(self.MUTANTS):
            data = self.mutant(chance)
            reply = fastReply(data)
            if reply is not None:
                accepted += 1
                self.assertEqual(self.byAutobahn(data), reply, data)
        # Most mutants are broken, and all that matters is that many are not.
        self.assertGreater(accepted, self.MUTANTS // 20)


class FastPathTestCase(WireTestCase):
    fastPath = True


class OpeningTests(FastPathTestCase):
    """The opening on a connection."""

    def setUp(self) -> None:
        super().setUp()
        self.made: list[object] = []
        init = Autobahn.__init__

        def counted(autobahn: Any) -> None:
            self.made.append(autobahn)
            init(autobahn)

        self.patch(Autobahn, "__init__", counted)

    def open(self, rest: bytes = b"", **changes: str | None) -> Link:
        link = Link().connect(self.site)
        link.deliver(request(**changes) + rest)
        return link

    def test_oneWrite(self) -> None:
        """The response and the open packet leave together."""
        link = self.open()
        self.assertEqual(len(link.writes), 1)
        self.assertTrue(re.match(rb'HTTP/1\.1 101 [^\0]*\r\n\r\n\x81.0\{"sid"', link.writes[0]))
        self.assertEqual(self.made, [])

    def test_splitAnywhere(self) -> None:
        data = request() + clientFrame(TEXT, b"4hello", True, 0, b"mask")
        for position in range(1, len(data)):
            link = Link().connect(self.site)
            link.deliver(data[:position])
            link.deliver(data[position:])
            self.assertEqual(self.owner.heard, ["hello"], position)
            link.lose()
            self.assertEqual(self.made, [], position)

    def test_unusualGoesToAutobahn(self) -> None:
        link = self.open(Sec_WebSocket_Protocol="chat")
        self.assertIn(b"Sec-WebSocket-Protocol: chat\r\n", link.take())
        self.assertEqual(len(self.made), 1)

    def test_refused(self) -> None:
        self.makeEngine(origins=())
        link = self.open(Origin="https://evil.example")
        self.assertTrue(link.take().startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        self.assertTrue(link.disconnecting)
        self.assertEqual(self.engine.sessions, {})
        link.lose()
        self.assertNothingLeft()

    def test_failedCheck(self) -> None:
        def verify(*arguments: object) -> None:
            raise RuntimeError("broken")

        self.patch(self.engine, "verify", verify)
        link = self.open()
        self.assertTrue(link.take().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        link.lose()
        self.assertNothingLeft()


class AsynchronousCheckTests(FastPathTestCase):
    """The application thinks about a client while bytes come and the client may go."""

    def setUp(self) -> None:
        super().setUp()
        self.answer: Deferred[bool] = Deferred()

        def ask(request: OpeningRequest) -> Deferred[bool]:
            return self.answer

        self.makeEngine(ask)
        self.link = Link().connect(self.site)
        self.link.deliver(request() + clientFrame(TEXT, b"4first", True, 0, b"mask"))

    def test_bytesBehindWait(self) -> None:
        self.assertFalse(self.link.reading)
        # TLS may deliver what it has decrypted before the pause.
        self.link.protocol.dataReceived(clientFrame(TEXT, b"4second", True, 0, b"mask"))
        self.assertEqual(self.link.take(), b"")
        self.answer.callback(True)
        self.assertEqual(self.owner.heard, ["first", "second"])
        self.assertTrue(self.link.reading)
        self.link.lose()

    def test_lostMeanwhile(self) -> None:
        self.link.lose()
        self.answer.callback(True)
        self.assertEqual(self.link.take(), b"")
        self.assertNothingLeft()

    def test_refusedAfterTheLoss(self) -> None:
        self.link.lose()
        self.answer.callback(False)
        self.assertEqual(self.link.take(), b"")
        self.assertNothingLeft()

    def test_tooLate(self) -> None:
        self.clock.advance(self.engine.settings.handshakeTimeout)
        self.assertTrue(self.link.disconnecting)
        self.link.lose()
        self.answer.callback(True)
        self.assertNothingLeft()


class ControlFrameTests(FastPathTestCase):
    """PING, PONG and the closing handshake, without Autobahn."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.openWebSocket()

    def test_ping(self) -> None:
        for payload in (b"", b"here", b"x" * 125):
            self.client.sendFrame(PING, payload)
            (pong,) = self.client.frames()
            self.assertEqual((pong.opcode, pong.payload), (PONG, payload))

    def test_pongIsIgnored(self) -> None:
        self.client.sendFrame(PONG, b"unasked")
        self.client.send("4hello")
        self.assertEqual(self.client.frames(), [])
        self.assertEqual(self.owner.heard, ["hello"])

    def test_plainCloses(self) -> None:
        for payload in (
            b"",
            b"\x03\xe8",
            b"\x03\xe9",
            b"\x03\xe8bye",
            "\x03\u00e8".encode("latin-1") + "ü".encode(),
        ):
            client = self.openWebSocket()
            client.sendFrame(CLOSE, payload)
            client.send("4too late")
            (reply,) = client.frames()
            self.assertEqual((reply.opcode, reply.payload), (CLOSE, b"\x03\xe8"), payload)
            self.assertTrue(client.link.disconnecting)
            self.assertEqual(self.owner.heard, [])
            client.link.lose()

    def test_othersAreAutobahns(self) -> None:
        self.assertFalse(isPlainClose(b"\x03"))
        self.assertFalse(isPlainClose(b"\x03\xef"))
        self.assertFalse(isPlainClose(b"\x03\xe8\xff"))
        self.client.sendFrame(CLOSE, b"\x03\xe8\xff")
        (reply,) = self.client.frames()
        self.assertEqual((reply.opcode, reply.payload[:2]), (CLOSE, b"\x03\xef"))


class ClosingTests(SynchronousTestCase):
    """The wait for the client's close frame behind the server's."""

    def closing(self, partial: bytes = b"") -> tuple[Closing, Link]:
        link = Link()
        return Closing(link, partial), link

    def test_messagesAreDropped(self) -> None:
        frames = b"".join(clientFrame(TEXT, b"x" * size, True, 0, b"mask") for size in (0, 125, 126, 65536))
        end = clientFrame(CLOSE, b"\x03\xe8", True, 0, b"mask")
        data = frames + end
        for size in (1, 2, 7, 13, 100, 70000, len(data)):
            closing, link = self.closing()
            for position in range(0, len(data) - 1, size):
                self.assertFalse(link.disconnecting)
                closing.feed(data[position : min(position + size, len(data) - len(end) + 1)])
            closing.feed(end[1:])
            self.assertTrue(link.disconnecting, size)

    def test_beginningOfAFrame(self) -> None:
        frame = clientFrame(TEXT, b"hello", True, 0, b"mask")
        closing, link = self.closing(frame[:4])
        closing.feed(frame[4:] + clientFrame(CLOSE, b"", True, 0, b"mask"))
        self.assertTrue(link.disconnecting)

    def test_nothingIsKept(self) -> None:
        """A client that goes on sending fills no memory."""
        closing, _ = self.closing()
        closing.feed(clientFrame(TEXT, b"x" * 100_000, True, 0, b"mask")[:90_000])
        self.assertEqual(closing._rest, b"")

    def test_lost(self) -> None:
        closing, link = self.closing()
        closing.connectionLost(None)  # type: ignore[arg-type]
        closing.feed(clientFrame(CLOSE, b"", True, 0, b"mask"))
        self.assertFalse(link.disconnecting)
