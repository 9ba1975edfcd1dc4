"""
Engine.IO protocol 3 on the wire: Socket.IO clients 1 and 2.

Over long polling a body is text or binary ("Encoding", "Payload").  Text counts its
packets in UTF-16 code units; binary has bytes for both kinds::

    6:4hello10:b4AQIDBA==
    00 06 ff "4hello"  01 05 ff 04 01 02 03 04

A client that cannot read binary bodies says ``b64=1`` when it opens its session, and
never again.

Clients 1 encode the text of a packet as UTF-8 before HTTP does, and expect the same of
the server: ``€`` comes as ``4:4`` and three characters below U+0100.  Clients 2 do not,
and neither says which it is, but for the oldest, by the form of their ``t``.  Where the
two agree, in ASCII and in binary bodies, there is nothing to know; :class:`EngineIO3`
keeps to that until a client has shown what it is.
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

# What maxPayload may be in digits, and more.
_MAX_DIGITS: Final = 10

_TO_DIGITS: Final = bytes.maketrans(b"0123456789", bytes(range(10)))

_ASTRAL: Final = re.compile("[\U00010000-\U0010ffff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class EngineIO3:
    """
    Engine.IO protocol 3, for one session.

    :param base64: whether its client takes no binary bodies.
    :param oldest: whether it is a client before 1.4, which takes no others unless it asks for base64.
    :ivar escape: gives a message's text in ASCII, where its format has a way to; used for
        clients that may read other text in one of two ways.
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
        # Whether the client encodes text twice; None as long as that is not known.
        self._doubles: bool | None = True if oldest else None

    # -- HTTP bodies -------------------------------------------------------------

    def encodePayload(self, packets: Sequence[Packet]) -> bytes:
        if self._octetsOnly or (not self.base64 and any(map(self._wantsOctets, packets))):
            return b"".join([_framed(packet) for packet in packets])
        texts = [self._textOf(packet) for packet in packets]
        return "".join([f"{_units(text)}:{text}" for text in texts]).encode()

    def _wantsOctets(self, packet: Packet) -> bool:
        """Whether a packet is safe in a binary body only."""
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
        """Texts that are not ASCII, as the client meant them."""
        if self._doubles is not False:
            try:
                # Half a surrogate pair, which JavaScript's strings may hold, clients 1 encode too.
                # UTF-8 has no way to send it back, so it becomes what browsers make of it.
                texts = [text.encode("latin-1").decode("utf-8", "surrogatepass") for text in texts]
                texts = [_SURROGATE.sub("\ufffd", text) for text in texts]
            except UnicodeError:
                # Nobody has encoded these twice.
                self._doubles = False
            else:
                # A client 1; or a client 2 whose first such text is something like "Ã©".
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
    """The length of a text in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _split(text: str) -> Iterator[str]:
    """
    The packets in a text body.

    :raises PacketError: when a length is missing or wrong.
    :raises UnicodeError: when a length divides a character.
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
        if part:  # an empty payload is "0:"
            yield part.encode("utf-16-le", "surrogatepass").decode("utf-16-le") if paired else part


def _halves(character: str) -> str:
    """A character beyond U+FFFF as JavaScript has it: two surrogates."""
    code = ord(character) - 0x10000
    return chr(0xD800 | code >> 10) + chr(0xDC00 | code & 0x3FF)


def _framed(packet: Packet) -> bytes:
    """A packet in a binary body: its kind, its length in decimal digits, one a byte, an end mark, itself."""
    kind, part = (b"\1", _MESSAGE + packet.wire) if packet.isBinary else (b"\0", packet.wire)
    return kind + (b"%d" % len(part)).translate(_TO_DIGITS) + bytes((_END,)) + part


def _unframe(body: bytes) -> Iterator[tuple[bool, bytes]]:
    """
    The packets in a binary body, and whether each is binary.

    :raises PacketError: when it is none.
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
