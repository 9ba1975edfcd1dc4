"""
The wire form of Engine.IO 3, the protocol of Socket.IO clients 1 and 2.

A body of long polling is text or binary (Engine.IO 3, "Encoding", "Payload").  A text body gives the
length of each packet in UTF-16 code units, a binary body in bytes::

    6:4hello10:b4AQIDBA==
    00 06 ff "4hello"  01 05 ff 04 01 02 03 04

A client that cannot read binary bodies sends ``b64=1`` when it opens its session, but
not in later requests.

Clients 1 encode the text of a packet as UTF-8 twice, once before HTTP does, and expect the same from
the server: ``€`` comes as ``4:4`` and three characters below U+0100.  Clients 2 encode text once.
Only the oldest clients reveal their version, by the form of their query ``t``.  Both versions agree on
ASCII text and on binary bodies, and :class:`EngineIO3` sends nothing else until text from the client
has shown the version.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from txrealtime.engineio.packet import EngineIO4, Packet, PacketType, message
from txrealtime.errors import PacketError

__all__ = ["EngineIO3"]

_MESSAGE: Final = b"\x04"
_END: Final = 0xFF

# The most digits of a length, more than maxPayload may have.
_MAX_DIGITS: Final = 10

_TO_DIGITS: Final = bytes.maketrans(b"0123456789", bytes(range(10)))

_ASTRAL: Final = re.compile("[\U00010000-\U0010ffff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class EngineIO3:
    """
    Engine.IO 3 for one session.

    :param base64: ``True`` for a client that takes no binary bodies.
    :param oldest: ``True`` for a client before 1.4, which takes only binary bodies unless it asks for base64.
    :ivar escape: rewrites a message's text in ASCII where its format allows; applied while the
        client's version is unknown, and for clients 1.
    """

    __slots__ = ("_doubles", "_octetsOnly", "base64", "escape")

    version: Final = 3
    clientPings: Final = True
    takesOctets: Final = True
    sharesFrames: Final = False

    def __init__(self, base64: bool = False, oldest: bool = False) -> None:
        self.base64 = base64
        self._octetsOnly = oldest and not base64
        self.escape: Callable[[str], str] = str
        # True for a client that encodes text twice, None while unknown.
        self._doubles: bool | None = True if oldest else None

    # -- HTTP bodies -------------------------------------------------------------

    def encodePayload(self, packets: Sequence[Packet]) -> bytes:
        if self._octetsOnly or (not self.base64 and any(map(self._wantsOctets, packets))):
            return b"".join([_framed(packet) for packet in packets])
        texts = [self._textOf(packet) for packet in packets]
        return "".join([f"{_units(text)}:{text}" for text in texts]).encode()

    def _wantsOctets(self, packet: Packet) -> bool:
        """Tell if a packet needs a binary body."""
        data = packet.data
        return isinstance(data, bytes) or (self._doubles is not False and not data.isascii())

    def _textOf(self, packet: Packet) -> str:
        if packet.isBinary:
            return "b4" + b64encode(packet.wire).decode()
        text = packet.wire.decode()
        if text.isascii() or self._doubles is False:
            return text
        if packet.type is PacketType.MESSAGE:
            text = text[0] + self.escape(text[1:])
        return text.encode().decode("latin-1") if self._doubles else text

    def isOctets(self, body: bytes) -> bool:
        return body[:1] in (b"\0", b"\1")

    def decodePayload(self, body: bytes, octets: bool = False) -> list[Packet]:
        if not body:
            raise PacketError("an empty body")
        return self._decodeOctets(body) if octets else self._decodeTexts(body)

    def _decodeTexts(self, body: bytes) -> list[Packet]:
        try:
            texts = list(_split(body.decode()))
            if not body.isascii():
                texts = self._undoubled(texts)
        except UnicodeError:
            raise PacketError("a body that is not UTF-8, or packets that are not Unicode") from None
        return [self.decodeText(text) for text in texts]

    def _undoubled(self, texts: list[str]) -> list[str]:
        """Undo the client's second encoding, if any, of texts that are not ASCII."""
        if self._doubles is not False:
            try:
                # Clients 1 also encode lone surrogates, which JavaScript's strings may hold.  UTF-8
                # cannot carry them back, so they become U+FFFD, as in browsers.
                texts = [text.encode("latin-1").decode("utf-8", "surrogatepass") for text in texts]
                texts = [_SURROGATE.sub("\ufffd", text) for text in texts]
            except UnicodeError:
                # The texts were not encoded twice.
                self._doubles = False
            else:
                # A client 1, or a client 2 whose first such text resembles "Ã©".
                self._doubles = True
        return texts

    def _decodeOctets(self, body: bytes) -> list[Packet]:
        packets = []
        for isBinary, part in _unframe(body):
            if isBinary:
                packets.append(self.decodeBytes(part))
            else:
                try:
                    packets.append(self.decodeText(part.decode()))
                except UnicodeDecodeError:
                    raise PacketError("text that is not UTF-8") from None
        return packets

    # -- WebSocket messages --------------------------------------------------------

    def encodeMessage(self, packet: Packet, base64: bool = False) -> tuple[bytes, bool]:
        if not packet.isBinary:
            return packet.wire, False
        if base64:
            return b"b4" + b64encode(packet.wire), False
        return _MESSAGE + packet.wire, True

    def decodeText(self, text: str) -> Packet:
        if text[:1] != "b":
            return EngineIO4.decodeText(text)
        if text[1:2] != "4":
            raise PacketError(f"binary data in a packet of type {text[1:2]!r}, expected '4'")
        return EngineIO4.decodeText("b" + text[2:])

    def decodeBytes(self, data: bytes) -> Packet:
        if data[:1] != _MESSAGE:
            raise PacketError("binary data that does not begin with the type 4")
        return message(data[1:])


def _units(text: str) -> int:
    """Return the length of a text in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _split(text: str) -> Iterator[str]:
    """
    Split a text body into packets.

    :raises PacketError: if a length is missing or wrong.
    :raises UnicodeError: if a length divides a character.
    """
    paired = not text.isascii() and _ASTRAL.search(text) is not None
    if paired:
        text = _ASTRAL.sub(lambda match: _halves(match[0]), text)
    start = 0
    while start < len(text):
        colon = text.find(":", start, start + _MAX_DIGITS + 1)
        digits = text[start:colon]
        if colon < 0 or not (digits.isascii() and digits.isdecimal()):
            raise PacketError("a payload without the length of a packet")
        start, end = colon + 1, colon + 1 + int(digits)
        if end > len(text):
            raise PacketError("a packet shorter than its length")
        part, start = text[start:end], end
        if part:  # "0:" is an empty payload
            yield part.encode("utf-16-le", "surrogatepass").decode("utf-16-le") if paired else part


def _halves(character: str) -> str:
    """Return a character beyond U+FFFF as two surrogates, the form of JavaScript's strings."""
    code = ord(character) - 0x10000
    return chr(0xD800 | code >> 10) + chr(0xDC00 | code & 0x3FF)


def _framed(packet: Packet) -> bytes:
    """Frame a packet for a binary body: kind, decimal length with one digit a byte, end mark, packet."""
    kind, part = (b"\1", _MESSAGE + packet.wire) if packet.isBinary else (b"\0", packet.wire)
    return kind + (b"%d" % len(part)).translate(_TO_DIGITS) + bytes((_END,)) + part


def _unframe(body: bytes) -> Iterator[tuple[bool, bytes]]:
    """
    Split a binary body into packets.

    :return: for each packet, ``True`` if binary, and the bytes.
    :raises PacketError: if the body is malformed.
    """
    start = 0
    while start < len(body):
        end = body.find(_END, start + 1, start + _MAX_DIGITS + 2)
        digits = body[start + 1 : end]
        if body[start] > 1 or end < 0 or not digits or max(digits) > 9:
            raise PacketError("a binary payload without the kind and length of a packet")
        size = int("".join(map(str, digits)))
        part = body[end + 1 : end + 1 + size]
        if len(part) != size:
            raise PacketError("a packet shorter than its length")
        yield body[start] == 1, part
        start = end + 1 + size
