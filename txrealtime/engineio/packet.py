"""
Engine.IO packets and their wire forms.

A :class:`~txrealtime.engineio.session.Session` handles each :class:`Packet`, and a
:class:`Codec` turns packets into bytes and back for one version of the protocol.
The version belongs to the session, so a server can speak several at once.
This module has no part in HTTP, WebSocket frames or time.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Final, Protocol, final

from txrealtime.errors import PacketError

__all__ = [
    "CLOSE",
    "DIGITS",
    "NOOP",
    "PING",
    "Codec",
    "EngineIO4",
    "Packet",
    "PacketType",
    "message",
    "openPacket",
]


class PacketType(IntEnum):
    """The packet types of Engine.IO ("Protocol", "Packet types")."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


DIGITS: Final = tuple(str(int(type)) for type in PacketType)
"""The digit before the text of a packet, by type."""

_BY_DIGIT: Final = dict(zip(DIGITS, PacketType, strict=True))


@final
class Packet:
    """
    An Engine.IO packet.  Treat it as immutable.

    A packet keeps its wire form after the first use, so a packet for a thousand
    clients is encoded and framed once.

    :ivar type: the packet's type.
    :ivar data: text, or bytes for a binary message.
    :ivar encoded: the wire form, as soon as it was needed.
    :ivar frame: the finished WebSocket frame, kept here by the WebSocket transport.
    :ivar times: the receivers of the frame that :class:`~txrealtime.engineio.counts.Counts` has yet to count.
    """

    __slots__ = ("data", "encoded", "frame", "times", "type")

    def __init__(self, type: PacketType, data: str | bytes = "") -> None:
        self.type = type
        self.data = data
        self.frame: bytes | None = None
        self.encoded: bytes | None = None
        self.times = 0

    @property
    def isBinary(self) -> bool:
        """``True`` for a binary message."""
        return self.data.__class__ is bytes

    @property
    def wire(self) -> bytes:
        """The type digit and the text in UTF-8, or the plain bytes of a binary message."""
        wire = self.encoded
        if wire is None:
            data = self.data
            wire = data if isinstance(data, bytes) else (DIGITS[self.type] + data).encode()
            self.encoded = wire
        return wire

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packet) and self.type == other.type and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.type, self.data))

    def __repr__(self) -> str:
        return f"<{self.type.name} {len(self.data)} {'bytes' if self.isBinary else 'characters'}>"


CLOSE: Final = Packet(PacketType.CLOSE)
PING: Final = Packet(PacketType.PING)
NOOP: Final = Packet(PacketType.NOOP)


def message(data: str | bytes) -> Packet:
    """Make a message packet, text or binary."""
    return Packet(PacketType.MESSAGE, data)


def openPacket(
    sid: str, upgrades: Sequence[str], pingInterval: float, pingTimeout: float, maxPayload: int
) -> Packet:
    """
    Make the packet that opens a session (Engine.IO, "Protocol", "Handshake").

    :param pingInterval: seconds, rounded to milliseconds.
    :param pingTimeout: seconds, rounded to milliseconds.
    :param maxPayload: bytes.
    """
    terms = _terms(tuple(upgrades), pingInterval, pingTimeout, maxPayload)
    return Packet(PacketType.OPEN, f'{{"sid":{json.dumps(sid)},{terms}')


# The same for all sessions of a server.
@lru_cache
def _terms(upgrades: tuple[str, ...], pingInterval: float, pingTimeout: float, maxPayload: int) -> str:
    """Return an open packet's JSON behind the sid."""
    data = {
        "upgrades": upgrades,
        "pingInterval": round(pingInterval * 1000),
        "pingTimeout": round(pingTimeout * 1000),
        "maxPayload": maxPayload,
    }
    return json.dumps(data, separators=(",", ":"))[1:]


class Codec(Protocol):
    """
    The wire forms of one version of the protocol.

    For any input, decoding returns packets or raises :exc:`~txrealtime.errors.PacketError`.
    """

    @property
    def version(self) -> int:
        """The version, as in the query ``EIO``."""

    @property
    def clientPings(self) -> bool:
        """``True`` if the client sends PING and the server PONG."""

    @property
    def takesOctets(self) -> bool:
        """``True`` if HTTP bodies may be binary, in either direction."""

    @property
    def sharesFrames(self) -> bool:
        """``True`` if a WebSocket carries :attr:`Packet.wire` unchanged, so that clients share a frame."""

    def encodePayload(self, packets: Sequence[Packet]) -> bytes:
        """Encode packets as the body of an HTTP response."""

    def isOctets(self, body: bytes) -> bool:
        """Tell if a body made by :meth:`encodePayload` is binary."""

    def decodePayload(self, body: bytes, octets: bool = False) -> list[Packet]:
        """
        Decode the packets in the body of an HTTP request.

        :param octets: ``True`` if the request declares a binary body.
        :raises PacketError: if the body is malformed.
        """

    def encodeMessage(self, packet: Packet, base64: bool = False) -> tuple[bytes, bool]:
        """
        Encode a packet as a WebSocket message.

        :param base64: ``True`` for a client that takes text messages only.
        :return: the payload, and ``True`` for a binary message.
        """

    def decodeText(self, text: str) -> Packet:
        """Decode the packet in a WebSocket's text message."""

    def decodeBytes(self, data: bytes) -> Packet:
        """Decode the packet in a WebSocket's binary message."""


# RFC 4648, 4 and 5: a client may use either alphabet.
_TO_STANDARD: Final = str.maketrans("-_", "+/", "\r\n")
_BASE64: Final = re.compile("(?:[A-Za-z0-9+/]+=*)?")


def _decodeBase64(text: str) -> bytes:
    """
    Decode base64, also in the forms that some clients send and that Node's server accepts.

    Java's client breaks lines after 76 characters, and ends the last one too; others use the alphabet for
    URLs, omit the padding, or have too much of it.
    """
    try:
        return b64decode(text, validate=True)
    except ValueError:
        pass
    text = text.translate(_TO_STANDARD)
    digits = text.rstrip("=")
    # Four digits are three bytes, and a single one is less than a byte.
    if not _BASE64.fullmatch(text) or len(digits) % 4 == 1:
        raise PacketError("a binary packet that is not base64")
    return b64decode(digits + "=" * (-len(digits) % 4))


class EngineIO4:
    """Engine.IO 4, the protocol of Socket.IO clients 3 and 4."""

    version: Final = 4
    clientPings: Final = False
    takesOctets: Final = False
    sharesFrames: Final = True

    @staticmethod
    def encodePayload(packets: Sequence[Packet]) -> bytes:
        # Engine.IO, "Packet encoding", "HTTP long-polling": binary payloads are in base64.
        return b"\x1e".join(
            [b"b" + b64encode(packet.wire) if packet.isBinary else packet.wire for packet in packets]
        )

    @staticmethod
    def isOctets(body: bytes) -> bool:
        return False

    @classmethod
    def decodePayload(cls, body: bytes, octets: bool = False) -> list[Packet]:
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise PacketError(f"a body that is not UTF-8 at byte {error.start}") from None
        # An empty body or a trailing separator holds an empty packet, which decodeText() refuses.
        return [cls.decodeText(part) for part in text.split("\x1e")]

    @staticmethod
    def encodeMessage(packet: Packet, base64: bool = False) -> tuple[bytes, bool]:
        if base64 and packet.isBinary:
            return b"b" + b64encode(packet.wire), False
        return packet.wire, packet.isBinary

    @staticmethod
    def decodeText(text: str) -> Packet:
        type = _BY_DIGIT.get(text[:1])
        if type is not None:
            return Packet(type, text[1:])
        if text[:1] == "b":
            return message(_decodeBase64(text[1:]))
        raise PacketError(f"packet type {text[:1]!r}, expected '0' to '6' or 'b'")

    @staticmethod
    def decodeBytes(data: bytes) -> Packet:
        return message(data)
