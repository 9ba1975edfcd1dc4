"""
The wire form of Engine.IO 4: the bytes of the specification, and any other bytes.
"""

from __future__ import annotations

import json
from base64 import b64encode, encodebytes, urlsafe_b64encode

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from txrealtime.engineio.packet import (
    CLOSE,
    NOOP,
    PING,
    EngineIO4,
    Packet,
    PacketType,
    message,
    openPacket,
)
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.errors import PacketError, ProtocolError

codec = EngineIO4()

characters = st.characters(codec="utf-8")
packets = st.one_of(
    st.builds(Packet, st.sampled_from(PacketType), st.text(characters)),
    st.builds(message, st.binary()),
)

# The specification has no escape for a payload's separator, so text for long polling must not
# contain one.  JSON does not.
pollingPackets = packets.filter(lambda packet: packet.isBinary or "\x1e" not in packet.data)

nearlyPayloads = st.lists(
    st.one_of(st.binary(), packets.map(lambda packet: packet.wire), st.binary().map(b64encode)), max_size=4
).map(b"\x1e".join)


class PacketTests(SynchronousTestCase):
    def test_text(self) -> None:
        packet = message("héllo")
        self.assertEqual(packet.type, PacketType.MESSAGE)
        self.assertFalse(packet.isBinary)
        self.assertEqual(packet.wire, b"4h\xc3\xa9llo")

    def test_binary(self) -> None:
        packet = message(b"\x00\xff4")
        self.assertTrue(packet.isBinary)
        self.assertEqual(packet.wire, b"\x00\xff4")

    def test_encodedOnce(self) -> None:
        """A packet for many clients is encoded once."""
        packet = message("x" * 100)
        self.assertIs(packet.wire, packet.wire)

    def test_withoutData(self) -> None:
        self.assertEqual((CLOSE.wire, PING.wire, NOOP.wire), (b"1", b"2", b"6"))

    def test_equality(self) -> None:
        self.assertEqual(message("a"), message("a"))
        self.assertEqual(len({message("a"), message("a"), message(b"a")}), 2)
        self.assertNotEqual(message("a"), Packet(PacketType.PONG, "a"))
        self.assertNotEqual(message("a"), "4a")

    def test_reprShowsNoPayload(self) -> None:
        self.assertEqual(repr(message("secret")), "<MESSAGE 6 characters>")
        self.assertEqual(repr(message(b"secret")), "<MESSAGE 6 bytes>")

    def test_open(self) -> None:
        """The keys have the order of the specification's example, and times are in milliseconds."""
        packet = openPacket("lv_VI97HAXpY6yYWAAAB", ["websocket"], 25, 20.5, 1_000_000)
        self.assertEqual(
            packet.wire,
            b'0{"sid":"lv_VI97HAXpY6yYWAAAB","upgrades":["websocket"],'
            b'"pingInterval":25000,"pingTimeout":20500,"maxPayload":1000000}',
        )

    def test_openInWholeMilliseconds(self) -> None:
        data = json.loads(openPacket("x", [], 0.3, 0.0004, 1).data)
        self.assertEqual((data["pingInterval"], data["upgrades"]), (300, []))
        self.assertIsInstance(data["pingTimeout"], int)


class PayloadTests(SynchronousTestCase):
    """The bodies of HTTP long polling."""

    def test_version(self) -> None:
        self.assertEqual(codec.version, 4)

    def test_encode(self) -> None:
        """The specification's example has ``hello``, a ping, and four bytes."""
        packets = [message("hello"), PING, message(b"\x01\x02\x03\x04")]
        self.assertEqual(codec.encodePayload(packets), b"4hello\x1e2\x1ebAQIDBA==")

    def test_decode(self) -> None:
        self.assertEqual(
            codec.decodePayload(b"4hello\x1e2\x1ebAQIDBA=="),
            [message("hello"), PING, message(b"\x01\x02\x03\x04")],
        )

    def test_types(self) -> None:
        for type in PacketType:
            self.assertEqual(codec.decodePayload(b"%dx" % type), [Packet(type, "x")])

    def test_emptyBinary(self) -> None:
        self.assertEqual(codec.decodePayload(b"b"), [message(b"")])

    def test_refused(self) -> None:
        for body in (
            b"",
            b"4a\x1e",
            b"\x1e4a",
            b"4a\x1e\x1e4b",
            b"7",
            b"/",
            b"abc",
            b"\xd9\xa4",
            b"B",
            b"-1",
        ):
            self.assertRaises(PacketError, codec.decodePayload, body)

    def test_notUTF8(self) -> None:
        for text in (b"4\xff", b"4\xed\xa0\x80", b"2\xc3", b"4\xc0\x80"):
            self.assertRaises(PacketError, codec.decodePayload, text)

    def test_notBase64(self) -> None:
        for text in (b"bA", b"bAQ ID", b"b\xff\xff", b"bA===", b"bAQ==AQ=="):
            self.assertRaises(PacketError, codec.decodePayload, text)

    @given(st.lists(pollingPackets, min_size=1))
    def test_roundTrip(self, packets: list[Packet]) -> None:
        self.assertEqual(codec.decodePayload(codec.encodePayload(packets)), packets)

    @given(st.one_of(st.binary(), nearlyPayloads))
    @example(b"b" * 10_000)
    @example(b"\x1e" * 10_000)
    @example(b"4" + b"9" * 10_000)
    def test_anythingDecodesOrIsRefused(self, body: bytes) -> None:
        try:
            decoded = codec.decodePayload(body)
        except ProtocolError:
            return
        self.assertEqual(codec.decodePayload(codec.encodePayload(decoded)), decoded)


class MessageTests(SynchronousTestCase):
    """The messages of WebSocket."""

    def test_text(self) -> None:
        self.assertEqual(codec.decodeText("4héllo"), message("héllo"))
        self.assertEqual(codec.decodeText("2probe"), Packet(PacketType.PING, "probe"))

    def test_separatorIsText(self) -> None:
        self.assertEqual(codec.decodeText("4a\x1e4b"), message("a\x1e4b"))

    def test_binaryHasNoType(self) -> None:
        self.assertEqual(codec.decodeBytes(b"4\xff"), message(b"4\xff"))
        self.assertEqual(codec.decodeBytes(b""), message(b""))

    def test_binaryAsText(self) -> None:
        """A client that cannot send binary frames (``b64=1``) sends base64."""
        self.assertEqual(codec.decodeText("bAQIDBA=="), message(b"\x01\x02\x03\x04"))

    def test_base64OfOtherClients(self) -> None:
        """Line feeds (Java's client), the alphabet for URLs and absent padding, all as on Node's server."""
        data = bytes(range(256)) * 2
        lines = encodebytes(data).decode()
        self.assertGreater(lines.count("\n"), 5)
        for text in (
            lines,
            lines.replace("\n", "\r\n"),
            lines.replace("\n", "").rstrip("="),
            lines.rstrip("=\n"),
            urlsafe_b64encode(data).decode(),
            urlsafe_b64encode(data).decode().rstrip("="),
            urlsafe_b64encode(data).decode().rstrip("=") + "\n",
        ):
            self.assertEqual(
                EngineIO4.decodePayload(f"b{text}\x1e4x".encode()), [message(data), message("x")]
            )
            self.assertEqual(EngineIO3().decodeText("b4" + text), message(data))
        for text in ("\n", "\r\n", ""):
            self.assertEqual(EngineIO4.decodeText("b" + text), message(b""))

    def test_base64WithMuchPadding(self) -> None:
        """Superfluous padding is nothing, whatever the length of the data."""
        for data in (b"a", b"ab", b"abc", b"abcd"):
            digits = b64encode(data).decode().rstrip("=")
            for count in range(9):
                text = "b" + digits + "=" * count
                self.assertEqual(EngineIO4.decodeText(text), message(data), text)
                self.assertEqual(EngineIO4.decodeText(text + "\r\n"), message(data), text)

    def test_base64OfNobody(self) -> None:
        """Any other deviation is an error, where Node's server takes what it can read."""
        for text in (
            "A",
            "AQIDB",
            "AQ=ID",
            "AQ==ID",
            "A Q=",
            "AQ\tI",
            "=",
            "=\n",
            "AQIDBA===\x00",
            "é",
            "A*",
            "\x0bAQID",
        ):
            self.assertRaises(PacketError, EngineIO4.decodeText, "b" + text)

    def test_refused(self) -> None:
        for text in ("", "x", "7", "b=", "bé", "\u0664", "\ud800"):
            self.assertRaises(PacketError, codec.decodeText, text)

    @given(packets)
    def test_roundTrip(self, packet: Packet) -> None:
        if packet.isBinary:
            self.assertEqual(codec.decodeBytes(packet.wire), packet)
        else:
            self.assertEqual(codec.decodeText(packet.wire.decode()), packet)

    @given(st.one_of(st.text(st.characters()), st.text("0123456789bAB=").map(lambda text: "b" + text)))
    def test_anythingDecodesOrIsRefused(self, text: str) -> None:
        try:
            packet = codec.decodeText(text)
        except ProtocolError:
            return
        self.assertEqual(packet.data, text[1:] if not packet.isBinary else packet.data)
