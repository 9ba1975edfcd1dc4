"""
The wire form of Engine.IO 3: text and binary bodies, WebSocket messages, and two encodings of text.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from txrealtime.engineio.packet import CLOSE, NOOP, Packet, PacketType, message
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.errors import PacketError, ProtocolError

BYTES = b"\x01\x02\x03\x04"

characters = st.characters(codec="utf-8")
packets = st.one_of(
    st.builds(Packet, st.sampled_from(PacketType), st.text(characters)),
    st.builds(message, st.binary()),
)
payloads = st.lists(packets, min_size=1, max_size=5)

# Right lengths of malformed packets, and the reverse.
nearlyTexts = st.lists(
    st.one_of(
        st.text("0123456789:b", max_size=5),
        st.text(characters, max_size=9).map(lambda text: f"{len(text)}:{text}"),
        payloads.map(lambda packets: EngineIO3(base64=True).encodePayload(packets).decode()),
    ),
    max_size=4,
).map(lambda parts: "".join(parts).encode())
nearlyOctets = st.lists(
    st.one_of(
        st.binary(max_size=9),
        st.binary(max_size=9).map(lambda data: bytes([len(data) & 1, len(data), 255]) + data),
        payloads.map(EngineIO3().encodePayload),
    ),
    max_size=4,
).map(b"".join)


def doubled(text: str) -> str:
    """Encode text as clients 1 do before HTTP encodes it again."""
    return text.encode().decode("latin-1")


class TextBodyTests(SynchronousTestCase):
    """The bodies of a client that takes no binary bodies."""

    def setUp(self) -> None:
        self.codec = EngineIO3(base64=True)

    def test_encode(self) -> None:
        """The example of the specification."""
        self.assertEqual(
            self.codec.encodePayload([message("€"), message(BYTES)]), "2:4€10:b4AQIDBA==".encode()
        )
        self.assertFalse(self.codec.isOctets(b"2:4a"))

    def test_decode(self) -> None:
        self.assertEqual(
            self.codec.decodePayload(b"6:4hello2:4a10:b4AQIDBA==1:2"),
            [message("hello"), message("a"), message(BYTES), Packet(PacketType.PING)],
        )

    def test_withoutData(self) -> None:
        self.assertEqual(self.codec.encodePayload([NOOP, CLOSE]), b"1:61:1")

    def test_units(self) -> None:
        """Lengths count UTF-16 code units, as the length of a string in JavaScript."""
        self.assertEqual(
            self.codec.decodePayload("3:4𝄞7:4€🎉éhi2:4x".encode())[1:], [message("€🎉éhi"), message("x")]
        )
        self.assertEqual(self.codec.encodePayload([message("𝄞")]), "3:4𝄞".encode())

    def test_emptyPayload(self) -> None:
        """The payload ``0:`` holds no packet."""
        self.assertEqual(self.codec.decodePayload(b"0:"), [])
        self.assertEqual(self.codec.decodePayload(b"0:1:3"), [Packet(PacketType.PONG)])

    def test_manyDigits(self) -> None:
        self.assertEqual(self.codec.decodePayload(b"0000000002:4a"), [message("a")])

    def test_refused(self) -> None:
        for body in (
            b"",
            b"abc",
            b"4hello",
            b":4a",
            b"2:4a3",
            b"2:4a3:",
            b"3:4a",
            b"-1:4a",
            b"+2:4a",
            b" 2:4a",
            b"2 :4a",
            b"00000000002:4a",
            "٢:4a".encode(),
            b"1:7",
            b"1:b",
            b"2:b7",
            b"6:b0AQI=",
            b"3:b4A",
            b"2:4\xff",
            b"\xff",
        ):
            self.assertRaises(PacketError, self.codec.decodePayload, body)

    def test_lengthDividesACharacter(self) -> None:
        for body in ("2:4𝄞", "2:4𝄞1:2"):
            self.assertRaises(PacketError, self.codec.decodePayload, body.encode())

    @given(payloads)
    def test_roundTrip(self, packets: list[Packet]) -> None:
        """Text returns unchanged from a client 2 that has shown its version."""
        codec = EngineIO3(base64=True)
        codec.decodePayload("2:4€".encode())
        self.assertEqual(codec.decodePayload(codec.encodePayload(packets)), packets)

    @given(st.one_of(st.binary(), nearlyTexts))
    @example(b"9" * 10_000)
    @example(b"0:" * 10_000)
    def test_anythingDecodesOrIsRefused(self, body: bytes) -> None:
        try:
            decoded = EngineIO3(base64=True).decodePayload(body)
        except ProtocolError:
            return
        self.assertTrue(all(isinstance(packet, Packet) for packet in decoded))


class BinaryBodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.codec = EngineIO3()

    def test_encode(self) -> None:
        """The length counts the type, as in the protocol's test suite."""
        body = self.codec.encodePayload([message("hello"), message(BYTES)])
        self.assertEqual(body.hex(" "), "00 06 ff 34 68 65 6c 6c 6f 01 05 ff 04 01 02 03 04")
        self.assertTrue(self.codec.isOctets(body))

    def test_decode(self) -> None:
        body = bytes.fromhex("00 04 ff 34 e2 82 ac 01 05 ff 04 01 02 03 04 00 01 ff 32")
        self.assertEqual(
            self.codec.decodePayload(body, True), [message("€"), message(BYTES), Packet(PacketType.PING)]
        )

    def test_lengthInDigits(self) -> None:
        body = self.codec.encodePayload([message(b"x" * 1234)])
        self.assertEqual(body[:7].hex(" "), "01 01 02 03 05 ff 04")
        self.assertEqual(self.codec.decodePayload(body, True), [message(b"x" * 1234)])

    def test_base64InIt(self) -> None:
        """Base64 within a binary body is decoded, as by JavaScript's decoder."""
        self.assertEqual(self.codec.decodePayload(b"\x00\x01\x00\xffb4AQIDBA==", True), [message(BYTES)])

    def test_textWhereNothingIsBinary(self) -> None:
        self.assertEqual(self.codec.encodePayload([message("hello"), NOOP]), b"6:4hello1:6")

    def test_refused(self) -> None:
        for body in (
            "",
            "00",
            "00 01",
            "00 ff",
            "00 ff 34",
            "00 02 ff 34",
            "00 0a ff 34 34 34 34 34 34 34 34 34 34",
            "02 01 ff 34",
            "34 01 ff 34",
            "00 00 00 00 00 00 00 00 00 00 00 01 ff 34",
            "00 01 ff 37",
            "00 02 ff 34 ff",
            "01 01 ff 00",
            "01 02 ff 34 01",
            "01 00 ff",
            "00 00 ff",
        ):
            self.assertRaises(PacketError, self.codec.decodePayload, bytes.fromhex(body), True)

    @given(payloads)
    def test_roundTrip(self, packets: list[Packet]) -> None:
        body = EngineIO3().encodePayload(packets)
        codec = EngineIO3()
        self.assertEqual(codec.decodePayload(body, codec.isOctets(body)), packets)

    @given(st.one_of(st.binary(), nearlyOctets))
    @example(b"\x00" + b"\x09" * 10_000)
    def test_anythingDecodesOrIsRefused(self, body: bytes) -> None:
        try:
            decoded = EngineIO3().decodePayload(body, True)
        except ProtocolError:
            return
        self.assertTrue(all(isinstance(packet, Packet) for packet in decoded))


class TwoKindsOfClientsTests(SynchronousTestCase):
    """
    Text beyond ASCII, which clients 1 encode twice, and clients 2 once.
    """

    def read(self, codec: EngineIO3, text: str) -> str:
        """Decode a message in a text body."""
        [packet] = codec.decodePayload(f"{len(text.encode('utf-16-le')) // 2 + 1}:4{text}".encode())
        assert isinstance(packet.data, str)
        return packet.data

    def test_from1(self) -> None:
        for text in ("é", "€", "Größe € 日本 𝄞"):
            self.assertEqual(self.read(EngineIO3(base64=True), doubled(text)), text)

    def test_from2(self) -> None:
        for text in ("é", "€", "Größe € 日本 𝄞", "\x80"):
            self.assertEqual(self.read(EngineIO3(base64=True), text), text)

    def test_to1(self) -> None:
        codec = EngineIO3(base64=True)
        self.read(codec, doubled("é"))
        self.assertEqual(codec.encodePayload([message("€")]), "4:4â\x82¬".encode())

    def test_to2(self) -> None:
        codec = EngineIO3(base64=True)
        self.read(codec, "é")
        self.assertEqual(codec.encodePayload([message("€")]), "2:4€".encode())

    def test_twoIsKnownForGood(self) -> None:
        """A known client 2 may send text that looks as if encoded twice."""
        codec = EngineIO3(base64=True)
        self.read(codec, "€")
        self.assertEqual(self.read(codec, doubled("é")), doubled("é"))

    def test_oneWasAGuess(self) -> None:
        codec = EngineIO3(base64=True)
        self.assertEqual(self.read(codec, "Ã©"), "é")
        self.assertEqual(self.read(codec, "€"), "€")
        self.assertEqual(self.read(codec, "Ã©"), "Ã©")

    def test_severalPackets(self) -> None:
        """All texts of a payload are encoded once, or all twice."""
        codec = EngineIO3(base64=True)
        self.assertEqual(codec.decodePayload("3:4Ã©2:4€".encode()), [message("Ã©"), message("€")])

    def test_unknownGetsBinaryBodies(self) -> None:
        """Both versions read binary bodies in the same way."""
        codec = EngineIO3()
        self.assertEqual(codec.encodePayload([message("€")]), b"\x00\x04\xff4\xe2\x82\xac")

    def test_oldest(self) -> None:
        """Clients before 1.4 ignore text bodies, unless they ask for base64."""
        codec = EngineIO3(oldest=True)
        self.assertEqual(codec.encodePayload([message("a"), NOOP]), b"\x00\x02\xff4a\x00\x01\xff6")
        self.assertTrue(codec.isOctets(codec.encodePayload([CLOSE])))
        codec = EngineIO3(base64=True, oldest=True)
        self.assertEqual(codec.encodePayload([message("€")]), "4:4â\x82¬".encode())
        self.assertEqual(self.read(codec, doubled("€")), "€")

    def test_oneGetsBinaryBodies(self) -> None:
        """A client 1 that can read binary bodies gets them, so that a wrong guess does no harm."""
        codec = EngineIO3()
        self.read(codec, doubled("é"))
        self.assertEqual(codec.encodePayload([message("€")]), b"\x00\x04\xff4\xe2\x82\xac")

    def test_twoGetsText(self) -> None:
        codec = EngineIO3()
        self.read(codec, "é")
        self.assertEqual(codec.encodePayload([message("€")]), "2:4€".encode())

    def test_halfASurrogatePair(self) -> None:
        """Clients 1 encode lone surrogates, which UTF-8 cannot carry back."""
        codec = EngineIO3(base64=True)
        text = "a\ud834b"
        self.assertEqual(
            self.read(codec, text.encode("utf-8", "surrogatepass").decode("latin-1")), "a\ufffdb"
        )
        self.assertEqual(self.read(codec, doubled("é")), "é")

    def test_unknownGetsASCII(self) -> None:
        """Text with a form in ASCII needs no guess."""
        codec = EngineIO3(base64=True)
        codec.escape = lambda text: text.replace("€", "\\u20ac")
        self.assertEqual(codec.encodePayload([message('2["€"]')]), b'12:42["\\u20ac"]')
        self.read(codec, doubled("é"))
        self.assertEqual(codec.encodePayload([message('2["€"]')]), b'12:42["\\u20ac"]')
        self.read(codec, "€")
        self.assertEqual(codec.encodePayload([message('2["€"]')]), '7:42["€"]'.encode())

    @given(st.text(characters))
    def test_clients1(self, text: str) -> None:
        codec = EngineIO3(base64=True)
        self.assertEqual(self.read(codec, doubled(text)), text)
        self.read(codec, doubled("é"))
        body = codec.encodePayload([message(text)]).decode()
        self.assertEqual(body, f"{len(text.encode()) + 1}:4{doubled(text)}")


class MessageTests(SynchronousTestCase):
    """The messages of WebSocket."""

    def setUp(self) -> None:
        self.codec = EngineIO3()

    def test_version(self) -> None:
        self.assertEqual(self.codec.version, 3)

    def test_text(self) -> None:
        self.assertEqual(self.codec.encodeMessage(message("é")), ("4é".encode(), False))
        self.assertEqual(self.codec.decodeText("4é"), message("é"))
        self.assertEqual(self.codec.decodeText("2probe"), Packet(PacketType.PING, "probe"))

    def test_binaryHasAType(self) -> None:
        self.assertEqual(self.codec.encodeMessage(message(BYTES)), (b"\x04" + BYTES, True))
        self.assertEqual(self.codec.decodeBytes(b"\x04" + BYTES), message(BYTES))
        self.assertEqual(self.codec.decodeBytes(b"\x04"), message(b""))

    def test_base64(self) -> None:
        self.assertEqual(self.codec.encodeMessage(message(BYTES), True), (b"b4AQIDBA==", False))
        self.assertEqual(self.codec.decodeText("b4AQIDBA=="), message(BYTES))

    def test_refused(self) -> None:
        for data in (b"", b"\x00", b"4a", b"\x05a"):
            self.assertRaises(PacketError, self.codec.decodeBytes, data)
        for text in ("", "x", "7", "b", "bAQIDBA==", "b2AQ==", "b4A"):
            self.assertRaises(PacketError, self.codec.decodeText, text)

    @given(packets, st.booleans())
    def test_roundTrip(self, packet: Packet, base64: bool) -> None:
        wire, isBinary = EngineIO3().encodeMessage(packet, base64)
        decoded = EngineIO3().decodeBytes(wire) if isBinary else EngineIO3().decodeText(wire.decode())
        self.assertEqual(decoded, packet)

    @given(st.text(st.characters()), st.binary())
    def test_anythingDecodesOrIsRefused(self, text: str, data: bytes) -> None:
        for decode, argument in ((EngineIO3().decodeText, text), (EngineIO3().decodeBytes, data)):
            try:
                packet = decode(argument)  # type: ignore[operator]
            except ProtocolError:
                continue
            self.assertIsInstance(packet, Packet)
