"""
WebSocket frames: read the same in any pieces, and written once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from tests.memory import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    Link,
    WebSocket,
    clientFrame,
    closeFrame,
)
from txrealtime.engineio.refusals import LARGER
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.websocket import handshakes
from txrealtime.engineio.websocket.autobahn import FrameFactory
from txrealtime.engineio.websocket.frames import FrameProtocol
from txrealtime.engineio.websocket.plain import frame

REQUEST = (
    b"GET /chat?x=1 HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Listener(FrameProtocol):
    """
    A WebSocket that records messages and ends.

    :ivar heard: the messages.
    :ivar ends: ``violation`` of each call of ``ended``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str | bytes] = []
        self.ends: list[str] = []
        self.isOpen = False
        self.reply: Any = None

    def opened(self) -> None:
        self.isOpen = True

    def textReceived(self, text: str) -> None:
        assert isinstance(text, str)
        self.received(text)

    def bytesReceived(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.received(data)

    def received(self, message: str | bytes) -> None:
        self.heard.append(message)
        if self.reply is not None:
            self.reply(message)

    def ended(self, violation: str) -> None:
        self.ends.append(violation)


class FrameTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, request: bytes = REQUEST, **settings: Any) -> WebSocket:
        """Connect a client, and complete the opening handshake."""
        self.factory = FrameFactory(Settings(**settings), self.clock, Listener)
        client = WebSocket(Link().connect(self.factory), request + b"\r\n")
        assert client.response is not None
        self.assertEqual(client.response.status, 101)
        self.server: Listener = client.link.protocol
        return client

    def assertClosed(self, client: WebSocket, code: int, broken: bool | None = None) -> None:
        """Assert that the last frame of the server is a close frame with a code."""
        last = client.frames()[-1]
        self.assertEqual(last.opcode, CLOSE)
        self.assertEqual(struct.unpack("!H", last.payload[:2])[0], code)
        self.assertTrue(self.server.ends)
        if broken is not None:
            self.assertIs(bool(self.server.ends[0]), broken)


class WritingTests(FrameTestCase):
    def test_lengths(self) -> None:
        for size, head in (
            (0, b"\x00"),
            (125, b"\x7d"),
            (126, b"\x7e\x00\x7e"),
            (65535, b"\x7e\xff\xff"),
            (65536, b"\x7f" + (65536).to_bytes(8, "big")),
        ):
            payload = b"x" * size
            self.assertEqual(frame(payload, False), b"\x81" + head + payload)
            self.assertEqual(frame(payload, True), b"\x82" + head + payload)

    def test_send(self) -> None:
        client = self.connect()
        self.server.sendText("héllo")
        self.server.sendBytes(b"\x00\xff")
        self.assertEqual(client.messages(), ["héllo", b"\x00\xff"])

    def test_largerThanWhatIsAccepted(self) -> None:
        """``maxPayload`` does not limit sent messages."""
        client = self.connect(maxPayload=10)
        self.server.sendText("x" * 100_000)
        self.assertEqual(client.messages(), ["x" * 100_000])

    def test_repliesInOneWrite(self) -> None:
        """The replies to the messages of one read leave together."""
        client = self.connect()
        self.server.reply = self.server.sendText
        client.link.writes.clear()
        client.link.deliver(b"".join(clientFrame(TEXT, b"%d" % number) for number in range(8)))
        self.assertEqual(client.messages(), [str(number) for number in range(8)])
        self.assertEqual(len(client.link.writes), 1)

    def test_largeRepliesDoNotPileUp(self) -> None:
        client = self.connect()
        self.server.reply = lambda message: self.server.sendBytes(b"x" * 50_000)
        client.link.writes.clear()
        client.link.deliver(clientFrame(TEXT) * 6)
        self.assertEqual(client.messages(), [b"x" * 50_000] * 6)
        self.assertGreater(len(client.link.writes), 1)
        self.assertLess(len(client.link.writes), 6)

    def test_repliesBeforeAPong(self) -> None:
        """Replies and control frames keep their order."""
        client = self.connect()
        self.server.reply = self.server.sendText
        client.link.deliver(
            clientFrame(TEXT, b"1")
            + clientFrame(PING, b"2")
            + clientFrame(TEXT, b"3")
            + clientFrame(PING, b"4")
        )
        self.assertEqual(
            client.frames(), [Frame(TEXT, b"1"), Frame(PONG, b"2"), Frame(TEXT, b"3"), Frame(PONG, b"4")]
        )

    def test_failingReceiver(self) -> None:
        """Replies written before an exception of the receiver are sent."""
        client = self.connect()

        def reply(message: str | bytes) -> None:
            self.server.sendText("before")
            raise ZeroDivisionError

        self.server.reply = reply
        self.assertRaises(ZeroDivisionError, client.send, "x")
        self.assertEqual(client.messages(), ["before"])


class ReadingTests(FrameTestCase):
    SIZES = (0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 1499, 1500, 1501, 65535, 65536, 100_000)

    def test_sizes(self) -> None:
        client = self.connect()
        for size in self.SIZES:
            self.server.heard.clear()
            text = "x" * size
            data = bytes(index & 255 for index in range(size))
            client.link.deliver(clientFrame(TEXT, text.encode()) + clientFrame(BINARY, data))
            self.assertEqual(self.server.heard, [text, data], size)

    def test_masks(self) -> None:
        for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"abcd"):
            client = self.connect()
            client.link.deliver(clientFrame(TEXT, "héllo wörld".encode(), mask=mask))
            self.assertEqual(self.server.heard, ["héllo wörld"])

    def test_withTheHandshake(self) -> None:
        """The first frames may arrive together with the request."""
        self.factory = FrameFactory(Settings(), self.clock, Listener)
        link = Link().connect(self.factory)
        link.deliver(REQUEST + b"\r\n" + clientFrame(TEXT, b"a") + clientFrame(TEXT, b"bcd")[:7])
        link.deliver(clientFrame(TEXT, b"bcd")[7:])
        self.assertEqual(link.protocol.heard, ["a", "bcd"])

    def test_fragments(self) -> None:
        client = self.connect()
        client.sendFrame(TEXT, b"h\xc3", fin=False)
        client.sendFrame(PING, b"between")
        client.sendFrame(CONTINUATION, b"\xa9", fin=False)
        client.sendFrame(CONTINUATION, b"llo")
        client.send("whole")
        self.assertEqual(self.server.heard, ["héllo", "whole"])
        self.assertEqual(client.frames(), [Frame(PONG, b"between")])

    def test_pong(self) -> None:
        client = self.connect()
        client.sendFrame(PONG, b"unasked")
        client.send("a")
        self.assertEqual((self.server.heard, client.frames()), (["a"], []))

    def test_close(self) -> None:
        client = self.connect()
        client.link.deliver(clientFrame(TEXT, b"a") + clientFrame(CLOSE, closeFrame(1000, "bye").payload))
        self.assertEqual(self.server.heard, ["a"])
        self.assertClosed(client, 1000, broken=False)
        self.assertTrue(client.link.disconnecting)

    def test_closeWithoutACode(self) -> None:
        client = self.connect()
        client.sendFrame(CLOSE)
        self.assertEqual([sent.opcode for sent in client.frames()], [CLOSE])
        self.assertEqual(self.server.ends[0], "")

    def test_nothingAfterAClose(self) -> None:
        """RFC 6455, 5.5.1: frames behind a close frame are ignored."""
        client = self.connect()
        client.link.deliver(clientFrame(CLOSE, b"\x03\xe8") + clientFrame(TEXT, b"late"))
        self.assertEqual(self.server.heard, [])

    def test_notUTF8(self) -> None:
        for text in (b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xc0\x80"):
            client = self.connect()
            client.link.deliver(
                clientFrame(TEXT, b"before") + clientFrame(TEXT, text) + clientFrame(TEXT, b"after")
            )
            self.assertEqual(self.server.heard, ["before"])
            self.assertClosed(client, 1007, broken=True)

    def test_notUTF8InFragments(self) -> None:
        client = self.connect()
        client.sendFrame(TEXT, b"a\xc3", fin=False)
        client.sendFrame(CONTINUATION, b"a")
        self.assertEqual(self.server.heard, [])
        self.assertClosed(client, 1007, broken=True)

    def test_tooLarge(self) -> None:
        """A frame that is too large is refused at its head, with the bare code."""
        for size in (11, 126, 65536, 2**62):
            client = self.connect(maxPayload=10)
            head = clientFrame(BINARY, b"x" * min(size, 70_000))[
                : 6 if size < 126 else 8 if size < 65536 else 14
            ]
            if size == 2**62:
                head = head[:2] + struct.pack("!Q", size) + head[-4:]
            client.link.deliver(head)
            self.assertEqual(client.frames(), [closeFrame(1009)])
            violation = f"a message of {size} bytes or more, larger than maxPayload, 10 bytes: {LARGER}"
            self.assertEqual(self.server.ends[0], violation)

    def test_asLargeAsAllowed(self) -> None:
        client = self.connect(maxPayload=10)
        client.send("x" * 10)
        self.assertEqual(self.server.heard, ["x" * 10])

    def test_tooLargeInFragments(self) -> None:
        client = self.connect(maxPayload=10)
        client.sendFrame(BINARY, b"x" * 6, fin=False)
        client.sendFrame(CONTINUATION, b"x" * 6)
        self.assertEqual(client.frames(), [closeFrame(1009)])
        self.assertEqual(self.server.heard, [])

    def test_fragmentsWithoutEnd(self) -> None:
        """The number of fragments is limited, since empty fragments cost memory too."""
        client = self.connect(maxPayload=1000)
        client.sendFrame(TEXT, b"", fin=False)
        for _ in range(100):
            if self.server.ends:
                break
            client.link.deliver(clientFrame(CONTINUATION, fin=False) * 1000)
        self.assertTrue(self.server.ends, "100,000 empty fragments were taken")

    def test_violations(self) -> None:
        """Violations of RFC 6455, section 5, close the connection."""
        for name, data in {
            "no mask": clientFrame(TEXT, b"abcdef", mask=None),
            "reserved bit": clientFrame(TEXT, b"a", rsv=4),
            "reserved opcode": clientFrame(3, b"a"),
            "reserved control opcode": clientFrame(11, b"a"),
            "continuation of nothing": clientFrame(CONTINUATION, b"a"),
            "fragmented control frame": clientFrame(PING, b"a", fin=False),
            "long control frame": clientFrame(PING, b"x" * 126),
            "close of one byte": clientFrame(CLOSE, b"x"),
            "close with a reserved code": clientFrame(CLOSE, struct.pack("!H", 1005)),
            "message within a message": clientFrame(TEXT, b"a", fin=False) + clientFrame(TEXT, b"b"),
            "length of 64 bits with the first set": b"\x82\xff" + b"\xff" * 8 + b"abcd",
            "16 bits for a short length": b"\x82\xfe\x00\x05abcd" + b"x" * 5,
            "64 bits for a short length": b"\x82\xff" + (126).to_bytes(8, "big") + b"abcd" + b"x" * 126,
        }.items():
            client = self.connect()
            client.send("before")
            client.link.deliver(data)
            self.assertEqual(self.server.heard, ["before"], name)
            self.assertTrue(self.server.ends, name)
            self.assertClosed(client, 1002, broken=True)

    def test_closeWithABrokenReason(self) -> None:
        client = self.connect()
        client.sendFrame(CLOSE, b"\x03\xe8\xff")
        self.assertClosed(client, 1007, broken=True)

    def test_nothingAfterAViolation(self) -> None:
        client = self.connect()
        client.link.deliver(clientFrame(TEXT, b"abcd", mask=None) + clientFrame(TEXT, b"b"))
        client.link.deliver(clientFrame(TEXT, b"c"))
        self.assertEqual(self.server.heard, [])

    def test_closeWithinAMessage(self) -> None:
        """The receiver may close from within a message, and nothing is sent afterwards."""
        client = self.connect()
        self.server.reply = lambda message: self.server.startClosing(1000, "enough")
        client.link.deliver(clientFrame(TEXT, b"a") + clientFrame(TEXT, b"b") + clientFrame(TEXT, b"c")[:3])
        client.link.deliver(clientFrame(TEXT, b"c")[3:])
        self.assertEqual(self.server.heard[0], "a")
        self.assertEqual(client.frames(), [closeFrame(1000, "enough")])
        client.sendFrame(CLOSE, b"\x03\xe8")
        self.assertTrue(client.link.disconnecting)

    def test_abortWithinAMessage(self) -> None:
        client = self.connect()
        self.server.reply = lambda message: self.server.abort()
        client.send("a")
        self.assertTrue(client.link.disconnected)

    def test_lost(self) -> None:
        client = self.connect()
        client.link.deliver(clientFrame(TEXT, b"abc")[:4])
        client.link.lose()
        self.assertEqual(self.server.heard, [])
        self.assertEqual(self.server.ends[0], "")
        self.assertEqual(self.clock.getDelayedCalls(), [])


def expected(frames: Sequence[tuple[int, bytes, bool]]) -> tuple[list[str | bytes], list[Frame]]:
    """Compute the messages and replies for some frames by a plain model of RFC 6455."""
    heard: list[str | bytes] = []
    answers: list[Frame] = []
    parts: list[bytes] | None = None
    kind = 0
    for opcode, payload, fin in frames:
        if opcode == PING:
            answers.append(Frame(PONG, payload))
        elif opcode in (TEXT, BINARY, CONTINUATION):
            if opcode == CONTINUATION:
                assert parts is not None
                parts.append(payload)
            else:
                kind, parts = opcode, [payload]
            if fin:
                whole = b"".join(parts)
                heard.append(whole.decode() if kind == TEXT else whole)
                parts = None
    return heard, answers


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[int, bytes, bool]]:
    """Draw frames in an order that RFC 6455 allows: messages, some in fragments, and control frames."""
    frames: list[tuple[int, bytes, bool]] = []
    payloads = st.one_of(st.binary(max_size=8), st.sampled_from([125, 126, 127, 300]).map(lambda n: b"x" * n))
    controls = st.lists(
        st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=4), st.just(True)), max_size=1
    )
    for _ in range(draw(st.integers(0, 5))):
        frames += draw(controls)
        isText = draw(st.booleans())
        payload = (
            draw(st.text(st.characters(codec="utf-8"), max_size=8)).encode() if isText else draw(payloads)
        )
        opcode = TEXT if isText else BINARY
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=2)))
        pieces = [payload[a:b] for a, b in pairwise([0, *cuts, len(payload)])]
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            frames.append((CONTINUATION if index else opcode, piece, last))
            if not last:
                frames += draw(controls)
    return frames


class PropertyTests(FrameTestCase):
    def cut(self, data: bytes, cuts: Sequence[int]) -> list[bytes]:
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        return [data[a:b] for a, b in pairwise(places)]

    @given(conversations(), st.lists(st.integers(0, 10_000), max_size=12), st.binary(min_size=4, max_size=4))
    def test_anyPieces(self, frames: list[tuple[int, bytes, bool]], cuts: list[int], mask: bytes) -> None:
        """The messages and replies are the same however TCP cuts the data."""
        data = b"".join(clientFrame(opcode, payload, fin, mask=mask) for opcode, payload, fin in frames)
        client = self.connect()
        for piece in self.cut(data, cuts):
            client.link.deliver(piece)
        heard, answers = expected(frames)
        self.assertEqual(self.server.heard, heard)
        self.assertEqual(client.frames(), answers)

    @given(conversations())
    def test_byteByByte(self, frames: list[tuple[int, bytes, bool]]) -> None:
        data = b"".join(clientFrame(opcode, payload, fin) for opcode, payload, fin in frames)
        client = self.connect()
        for index in range(len(data)):
            client.link.deliver(data[index : index + 1])
        self.assertEqual((self.server.heard, client.frames()), expected(frames))

    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.builds(
                    clientFrame,
                    st.integers(0, 15),
                    st.binary(max_size=20),
                    st.booleans(),
                    st.integers(0, 7),
                    st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
                ),
            ),
            max_size=5,
        ).map(b"".join),
        st.lists(st.integers(0, 200), max_size=6),
    )
    @example(b"\x81\xfe\x00", [])
    @example(b"\x82\xff" + b"\x00" * 12, [])
    def test_anythingIsReadOrClosed(self, data: bytes, cuts: list[int]) -> None:
        """No input raises, and the messages are the same however TCP cuts the data."""
        outcomes = []
        for pieces in ([data], self.cut(data, cuts)):
            client = self.connect()
            for piece in pieces:
                client.link.deliver(piece)
            codes = [sent.payload[:2] for sent in client.frames() if sent.opcode == CLOSE]
            outcomes.append((self.server.heard, codes))
            self.assertLessEqual(len(codes), 1)
            client.link.lose()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual(self.flushLoggedErrors(), [])


class CompressionTests(FrameTestCase):
    OFFER = REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.inflater = zlib.decompressobj(-15)
        self.deflater = zlib.compressobj(9, zlib.DEFLATED, -15)

    def inflate(self, sent: Frame) -> bytes:
        self.assertEqual((sent.rsv, sent.fin), (4, True))
        return self.inflater.decompress(sent.payload + b"\x00\x00\xff\xff")

    def deflate(self, payload: bytes) -> bytes:
        return (self.deflater.compress(payload) + self.deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def test_off(self) -> None:
        client = self.connect(self.OFFER)
        assert client.response is not None
        self.assertNotIn("sec-websocket-extensions", client.response.headers)
        self.assertFalse(self.server.compresses)
        self.server.sendText("x" * 5000)
        self.assertEqual(client.frames(), [Frame(TEXT, b"x" * 5000)])

    def test_notOffered(self) -> None:
        client = self.connect(perMessageDeflate=True)
        assert client.response is not None
        self.assertNotIn("sec-websocket-extensions", client.response.headers)
        self.server.sendText("x" * 5000)
        self.assertEqual(client.frames(), [Frame(TEXT, b"x" * 5000)])

    def test_otherExtensions(self) -> None:
        client = self.connect(
            REQUEST + b"Sec-WebSocket-Extensions: x-unknown; a=1\r\n", perMessageDeflate=True
        )
        self.assertFalse(self.server.compresses)
        client.send("a")
        self.assertEqual(self.server.heard, ["a"])

    def test_otherCompression(self) -> None:
        """Autobahn knows more compressions than browsers; the server declines them."""
        client = self.connect(
            REQUEST + b"Sec-WebSocket-Extensions: permessage-bzip2\r\n", perMessageDeflate=True
        )
        assert client.response is not None
        self.assertNotIn("sec-websocket-extensions", client.response.headers)
        self.assertFalse(self.server.compresses)

    def test_on(self) -> None:
        client = self.connect(self.OFFER, perMessageDeflate=True)
        assert client.response is not None
        self.assertTrue(client.response.headers["sec-websocket-extensions"].startswith("permessage-deflate"))
        self.assertTrue(self.server.compresses)
        self.server.sendText("é" * 5000)
        self.server.sendBytes(b"x" * 5000)
        first, second = client.frames()
        self.assertEqual((first.opcode, second.opcode), (TEXT, BINARY))
        self.assertLess(len(first.payload), 100)
        self.assertEqual(self.inflate(first), "é".encode() * 5000)
        self.assertEqual(self.inflate(second), b"x" * 5000)

    def test_threshold(self) -> None:
        """Messages below ``compressionThreshold`` are sent uncompressed."""
        client = self.connect(self.OFFER, perMessageDeflate=True, compressionThreshold=100)
        self.server.sendText("x" * 99)
        self.server.sendText("x" * 100)
        plain, compressed = client.frames()
        self.assertEqual(plain, Frame(TEXT, b"x" * 99))
        self.assertEqual(self.inflate(compressed), b"x" * 100)

    def test_never(self) -> None:
        client = self.connect(self.OFFER, perMessageDeflate=True, compressionThreshold=0)
        self.server.sendText("x" * 5000)
        self.assertEqual(client.frames(), [Frame(TEXT, b"x" * 5000)])

    def test_anySize(self) -> None:
        """A sent message may be larger than ``maxPayload``, and than any buffer."""
        client = self.connect(self.OFFER, perMessageDeflate=True, maxPayload=10)
        for size in (1024, 65535, 65536, 3_000_000):
            data = bytes(index * index & 255 for index in range(1000)) * (size // 1000 + 1)
            self.server.sendBytes(data)
            (sent,) = client.frames()
            self.assertEqual(self.inflate(sent), data)

    def test_received(self) -> None:
        client = self.connect(self.OFFER, perMessageDeflate=True)
        client.sendFrame(TEXT, self.deflate("é".encode() * 1000), rsv=4)
        client.sendFrame(BINARY, b"plain")
        compressed = self.deflate(b"fragments")
        client.sendFrame(BINARY, compressed[:3], fin=False, rsv=4)
        client.sendFrame(CONTINUATION, compressed[3:])
        self.assertEqual(self.server.heard, ["é" * 1000, b"plain", b"fragments"])

    def test_bomb(self) -> None:
        """The size of a compressed message is the size that it inflates to."""
        client = self.connect(self.OFFER, perMessageDeflate=True, maxPayload=1000)
        client.sendFrame(BINARY, self.deflate(b"x" * 100_000), rsv=4)
        self.assertEqual(self.server.heard, [])
        self.assertTrue(self.server.ends[0])
        self.assertEqual(client.frames()[-1].payload[:2], struct.pack("!H", 1009))

    def test_garbage(self) -> None:
        client = self.connect(self.OFFER, perMessageDeflate=True)
        client.sendFrame(BINARY, b"\xff\xff\xff", rsv=4)
        self.assertEqual(self.server.heard, [])
        self.assertTrue(self.server.ends[0])
        self.assertEqual(client.frames()[-1].opcode, CLOSE)

    def test_notUTF8(self) -> None:
        client = self.connect(self.OFFER, perMessageDeflate=True)
        client.sendFrame(TEXT, self.deflate(b"\xff"), rsv=4)
        self.assertEqual(self.server.heard, [])
        self.assertClosed(client, 1007, broken=True)


class ClosingTests(FrameTestCase):
    def test_handshake(self) -> None:
        client = self.connect()
        self.server.startClosing(1001, "bye")
        self.assertEqual(client.frames(), [closeFrame(1001, "bye")])
        self.assertEqual(self.server.ends[0], "")
        self.assertFalse(client.link.disconnecting)
        client.sendFrame(CLOSE, struct.pack("!H", 1001))
        self.assertTrue(client.link.disconnecting)
        client.link.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_messagesBefore(self) -> None:
        client = self.connect()
        self.server.sendText("last")
        self.server.startClosing(1000, "")
        self.assertEqual(client.frames(), [Frame(TEXT, b"last"), closeFrame(1000)])

    def test_whatFollowsIsDropped(self) -> None:
        """
        After its close frame, a server reads on until the client's close frame.

        An end before would be a reset, which destroys whatever the client has not read yet.
        """
        for code, start in (
            (1000, lambda client: self.server.startClosing(1000, "")),
            (1009, lambda client: client.send("x" * 101)),
            (1002, lambda client: client.sendFrame(TEXT, b"x", rsv=1)),
        ):
            client = self.connect(maxPayload=100)
            start(client)
            self.assertClosed(client, code)
            client.send("late")
            client.send("x" * 1000)
            client.sendFrame(TEXT, b"x", rsv=1)
            client.sendFrame(CONTINUATION, b"x")
            client.sendFrame(TEXT, b"\xff")
            self.assertEqual((client.frames(), client.link.disconnecting), ([], False), code)
            client.sendFrame(CLOSE, struct.pack("!H", code))
            self.assertTrue(client.link.disconnecting)
            self.assertFalse(client.link.disconnected, "a reset")
            client.link.lose()

    def test_withoutAFrame(self) -> None:
        client = self.connect(handshakeTimeout=3)
        self.server.transport.registerProducer(object(), True)
        self.server.sendText("last")
        self.server.closeWithoutFrame()
        self.assertEqual(client.frames(), [Frame(TEXT, b"last")])
        self.assertEqual((client.link.outputEnded, client.link.disconnecting), (True, False))
        self.assertEqual((self.server.ends, client.link.producer), ([""], None))
        client.sendFrame(PING, b"late")
        client.sendFrame(CLOSE, b"\x03\xe8")
        self.assertEqual(client.frames(), [])
        client.link.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_withoutAFrameAndWithoutAnAnswer(self) -> None:
        client = self.connect(handshakeTimeout=3)
        self.server.closeWithoutFrame()
        self.clock.advance(3)
        self.assertTrue(client.link.disconnected)

    def test_twice(self) -> None:
        client = self.connect()
        self.server.startClosing(1001, "bye")
        self.server.startClosing(1000, "again")
        self.assertEqual(client.frames(), [closeFrame(1001, "bye")])

    def test_noAnswer(self) -> None:
        """A peer that ignores a close frame is dropped."""
        client = self.connect(handshakeTimeout=3)
        self.server.startClosing(1000, "")
        self.clock.advance(2.9)
        self.assertFalse(client.link.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(client.link.disconnected)
        client.link.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowLine(self) -> None:
        """A peer has more time while it takes what was sent before, and then as long as one that does not."""
        client = self.connect(handshakeTimeout=3)
        taken = iter([0, 400_000, 800_000, 801_000])
        self.patch(handshakes, "unsentBytes", lambda transport: 900_000)
        self.patch(handshakes, "takenBytes", lambda transport: next(taken))
        self.server.startClosing(1000, "")
        self.clock.pump([3, 3, 3])
        self.assertFalse(client.link.disconnected)
        self.clock.advance(3)
        self.assertTrue(client.link.disconnected)
        client.link.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noEndAfterTheAnswer(self) -> None:
        """A connection that does not end after the closing handshake is dropped."""
        client = self.connect(handshakeTimeout=3)
        client.sendFrame(CLOSE, b"\x03\xe8")
        self.assertTrue(client.link.disconnecting)
        self.clock.advance(3)
        self.assertTrue(client.link.disconnected)
        client.link.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_compressed(self) -> None:
        client = self.connect(CompressionTests.OFFER, perMessageDeflate=True)
        self.server.startClosing(1000, "")
        self.assertEqual(client.frames(), [closeFrame(1000)])
        client.sendFrame(CLOSE, b"\x03\xe8")
        self.assertTrue(client.link.disconnecting)

    def test_afterLoss(self) -> None:
        client = self.connect()
        client.link.lose()
        self.server.startClosing(1000, "")
        self.server.sendText("late")
        self.assertEqual(client.frames(), [])
        self.clock.advance(20)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OpeningTests(FrameTestCase):
    def open(self, request: bytes, protocol: Any = Listener, **settings: Any) -> Link:
        self.factory = FrameFactory(Settings(**settings), self.clock, protocol)
        link = Link().connect(self.factory)
        link.deliver(request)
        return link

    def test_accept(self) -> None:
        """The response to the key of RFC 6455, 1.3, is the one given there."""
        client = self.connect()
        assert client.response is not None
        self.assertEqual(client.response.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertEqual(client.response.headers["upgrade"].lower(), "websocket")
        self.assertNotIn("server", client.response.headers)
        self.assertTrue(self.server.isOpen)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_subprotocol(self) -> None:
        asked: list[Any] = []

        class Choosing(Listener):
            async def handshakeReceived(
                self, headers: Mapping[str, str], url: str, protocols: Sequence[str]
            ) -> str | None:
                asked.append((headers["host"], url, list(protocols)))
                return protocols[1]

        link = self.open(REQUEST + b"Sec-WebSocket-Protocol: a, b\r\n\r\n", Choosing)
        self.assertIn(b"Sec-WebSocket-Protocol: b\r\n", link.take())
        self.assertEqual(asked, [("example.org", "/chat?x=1", ["a", "b"])])

    def test_noSubprotocol(self) -> None:
        link = self.open(REQUEST + b"Sec-WebSocket-Protocol: a, b\r\n\r\n")
        self.assertNotIn(b"Sec-WebSocket-Protocol", link.take())

    def test_incomplete(self) -> None:
        """A handshake that is not complete in time is dropped."""
        link = self.open(REQUEST, handshakeTimeout=3)
        self.clock.advance(2.9)
        self.assertFalse(link.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(link.disconnected)
        link.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refusals(self) -> None:
        """Each refusal has the form of Engine.IO, and repeats no text from the client."""
        for request in (
            REQUEST.replace(b"Version: 13", b"Version: 8"),
            REQUEST.replace(b"Version: 13", b"Version: x<script>"),
            REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"<script>"),
            REQUEST.replace(b"Host: example.org\r\n", b""),
            REQUEST.replace(b"GET", b"POST"),
            REQUEST.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
            REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
            REQUEST.replace(b"/chat?x=1", b"//[/<script>"),
        ):
            link = self.open(request + b"\r\n")
            head, _, body = link.take().partition(b"\r\n\r\n")
            self.assertRegex(head, rb"^HTTP/1.1 [45]\d\d ")
            self.assertIn(b"Content-Type: application/json", head)
            self.assertIn(b'"code":3', body)
            self.assertNotIn(b"<script>", head + body)
            self.assertTrue(link.disconnecting)
            self.assertFalse(link.protocol.isOpen)
            link.lose()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_version(self) -> None:
        """RFC 6455, 4.2.2: a client of another version is told the known ones."""
        link = self.open(REQUEST.replace(b"Version: 13", b"Version: 8") + b"\r\n")
        self.assertIn(b"Sec-WebSocket-Version: 13", link.take())

    def test_anythingIsAnswered(self) -> None:
        for request in (b"\r\n\r\n", b"\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"):
            link = self.open(request)
            self.assertRegex(link.take(), rb"^HTTP/1.1 4\d\d ")
            self.assertTrue(link.disconnecting)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_headWithoutEnd(self) -> None:
        """A head without an end is refused at ``maxHeaderSize``, and dropped after ``handshakeTimeout``."""
        link = self.open(b"GET / HTTP/1.1\r\n", handshakeTimeout=3)
        for _ in range(1000):
            link.deliver(b"X: " + b"x" * 1000 + b"\r\n")
        self.assertRegex(link.take(), rb"^HTTP/1.1 431 [^\0]*\r\n\r\n{[^}]*}$")
        self.assertTrue(link.outputEnded)
        self.assertIsNot(link.protocol.__class__, Listener, "the head is still read")
        self.clock.advance(3)
        self.assertTrue(link.disconnected)
        link.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
