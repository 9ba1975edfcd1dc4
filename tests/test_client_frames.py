"""
The client's WebSocket and Autobahn's get the same frames: the same messages, PONGs and close codes.

Autobahn's client passes its own suite of cases.  Frames are hostile here: of every opcode, with reserved
bits, masks, long forms of lengths, control frames that are too long, text that is not UTF-8 and is cut
anywhere, close frames with every kind of code.  Streams are cut at any byte.
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from txrealtime.client.address import Address
from txrealtime.client.cookies import Cookies
from txrealtime.client.websocket import WebSocket
from txrealtime.engineio.websocket.opening import acceptOf

LIMIT = 1 << 20


def clientFrames(data: bytes) -> list[tuple[int, bytes]]:
    """Read the frames of a client: the opcode and the payload of each."""
    frames = []
    while data:
        size, start = data[1] & 127, 6
        if size > 125:
            start = 8 if size == 126 else 14
            size = int.from_bytes(data[2 : start - 4], "big")
        mask, payload, rest = data[start - 4 : start], data[start : start + size], data[start + size :]
        frames.append((data[0] & 15, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))))
        data = rest
    return frames


class Wire(StringTransport):
    """A connection whose protocol may change, and that takes nothing once it was ended."""

    isOver = False

    def accept(self) -> None:
        """Accept the opening handshake, and forget the request."""
        key = next(
            line.split(b": ")[1]
            for line in self.value().split(b"\r\n")
            if line.startswith(b"Sec-WebSocket-Key")
        )
        self.clear()
        self.deliver(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % acceptOf(key)
        )

    def deliver(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def abortConnection(self) -> None:
        self.isOver = True

    def unregisterProducer(self) -> None:
        if self.producer is not None:
            super().unregisterProducer()

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """The control frames that were sent: PONGs, and the code of a close frame."""
        return [
            (opcode, payload[:2] if opcode == 8 else payload)
            for opcode, payload in clientFrames(self.value())
        ]

    @property
    def isClosing(self) -> bool:
        return self.isOver or self.disconnecting or any(opcode == 8 for opcode, _ in self.frames)


class Ours(WebSocket):
    """The client's transport, which keeps whole messages in place of packets."""

    def __init__(self, wire: Wire, messages: list[str | bytes]) -> None:
        super().__init__(
            self, Address("http://localhost", "/socket.io/", {}), self, Cookies(), Clock(), {}, LIMIT, False
        )  # type: ignore[arg-type]
        self.wire, self.messages = wire, messages

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect, as an endpoint does."""
        self.wire.protocol = protocol = factory.buildProtocol(None)
        protocol.makeConnection(self.wire)
        return succeed(protocol)

    def textReceived(self, text: str) -> None:
        self.messages.append(text)

    def bytesReceived(self, data: bytes) -> None:
        self.messages.append(data)

    # As the owner of itself.

    def transportOpened(self, transport: object) -> None:
        pass

    def transportLost(self, transport: object, error: Exception | None) -> None:
        pass


def ours(messages: list[str | bytes]) -> Wire:
    """Make a connection to the client's transport."""
    wire = Wire()
    Ours(wire, messages).open(None)
    wire.accept()
    return wire


def autobahns(messages: list[str | bytes]) -> Wire:
    """Make a connection to Autobahn's client."""
    factory = WebSocketClientFactory("ws://localhost/", reactor=Clock())
    factory.setProtocolOptions(
        maxMessagePayloadSize=LIMIT,
        maxFramePayloadSize=LIMIT,
        failByDrop=False,
        openHandshakeTimeout=0,
        closeHandshakeTimeout=0,
        serverConnectionDropTimeout=0,
    )

    class Recording(WebSocketClientProtocol):
        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            messages.append(payload if isBinary else payload.decode())

    factory.protocol = Recording
    wire = Wire()
    wire.protocol = protocol = factory.buildProtocol(None)  # type: ignore[arg-type]
    protocol.makeConnection(wire)
    wire.accept()
    return wire


def frame(first: int, payload: bytes, form: int = 0, isMasked: bool = False) -> bytes:
    """
    Build a frame.

    :param form: the least form of the length: 0, 126 or 127.
    """
    size = len(payload)
    mask = 128 if isMasked else 0
    if size < 126 and not form:
        head = bytes((first, mask | size))
    elif size < 65536 and form < 127:
        head = bytes((first, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask | 127)) + size.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if isMasked else b"") + payload


TEXTS = st.one_of(
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from(
        [
            b"",
            b"x" * 125,
            b"x" * 126,
            "\u00e4\u20ac\U0001f600".encode(),
            b"\xf4\x90\x80\x80",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"ok\xff",
        ]
    ),
    st.binary(max_size=8),
)

CLOSES = st.one_of(
    st.sampled_from([b"", b"\x03", b"\x03\xe8\xff", b"\x03\xe8" + b"x" * 123, b"\x03\xe8" + b"x" * 124]),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason,
        st.one_of(
            st.sampled_from(
                [0, 999, *range(1000, 1017), 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535]
            ),
            st.integers(0, 65535),
        ),
        TEXTS,
    ),
)

HOSTILE = st.one_of(
    st.builds(
        frame,
        st.integers(0, 255),
        TEXTS,
        st.sampled_from([0, 0, 0, 126, 127]),
        st.sampled_from([False, False, False, True]),
    ),
    st.builds(frame, st.sampled_from([0x89, 0x8A, 0x09, 0x8B, 0xC9]), st.binary(max_size=130)),
    CLOSES.map(lambda payload: frame(0x88, payload)),
    st.sampled_from(
        [b"\x82\x7f" + b"\xff" * 8, b"\x81\x7f" + (LIMIT + 1).to_bytes(8, "big"), b"\x81\x80abcd"]
    ),
)


@st.composite
def fragmented(draw: Any) -> bytes:
    """Build a message in fragments, cut anywhere, with control frames between them, and perhaps no end."""
    payload, isText = draw(TEXTS) + draw(TEXTS), draw(st.booleans())
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames = []
    for number, part in enumerate(parts):
        first = (1 if isText else 2) if not number else 0
        frames.append(frame(first | (128 if number == len(parts) - 1 else 0), part))
        if draw(st.integers(0, 3)) == 0:
            frames.append(frame(0x89, draw(st.binary(max_size=5))))
    if draw(st.integers(0, 5)) == 0:
        frames.insert(draw(st.integers(0, len(frames))), draw(HOSTILE))
    return b"".join(frames)


PLAIN = st.builds(frame, st.sampled_from([0x81, 0x82]), TEXTS)

STREAMS = st.lists(st.one_of(PLAIN, PLAIN, fragmented(), HOSTILE), min_size=1, max_size=8)


class SameVerdictTests(SynchronousTestCase):
    """Both clients, frame by frame."""

    def play(self, pieces: list[bytes]) -> tuple[Any, Any]:
        """
        Deliver pieces to each until it closes; return what each got and sent.

        Autobahn closes at the first byte that is wrong, and the fast path at the end of its frame.
        """
        got: tuple[list[str | bytes], list[str | bytes]] = ([], [])
        wires = ours(got[0]), autobahns(got[1])
        for piece in pieces:
            for wire in wires:
                if not wire.isClosing:
                    wire.deliver(piece)
        one, other = [(messages, wire.frames) for messages, wire in zip(got, wires, strict=True)]
        return one, other

    @given(STREAMS, st.lists(st.integers(1, 40), max_size=12))
    @example([frame(0x81, b"one"), frame(0x88, b"\x03\xe8"), frame(0x81, b"late")], [])
    @example([frame(0x01, b"\xce\xba\xe1\xbd"), frame(0x80, b"\xb9")], [])
    @example([frame(0x01, b"\xce\xba"), frame(0x88, b"\x03\xe9"), frame(0x80, b"\xb9")], [])
    @example([frame(0x81, b"x", isMasked=True)], [1])
    @example([frame(0x81, b"\xf4\x90\x80\x80")], [4])
    def test_same(self, frames: list[bytes], sizes: list[int]) -> None:
        """The same messages, PONGs and close code, however the stream is cut."""
        stream, pieces = b"".join(frames), []
        for size in sizes:
            pieces.append(stream[:size])
            stream = stream[size:]
        pieces.append(stream)
        one, other = self.play([piece for piece in pieces if piece])
        self.assertEqual(one, other)

    def test_codes(self) -> None:
        """Codes of a close frame that have a meaning, a use, or neither."""
        for code in (
            0,
            1,
            500,
            *range(995, 1020),
            1099,
            1999,
            2000,
            2999,
            3000,
            3999,
            4000,
            4999,
            5000,
            65535,
        ):
            one, other = self.play([frame(0x88, code.to_bytes(2, "big"))])
            self.assertEqual(one, other, code)
            self.assertEqual([opcode for opcode, _ in one[1]], [8], code)
