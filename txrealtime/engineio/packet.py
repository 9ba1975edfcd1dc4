"""
Engine.IO packets and their wire forms.

A :class:`Packet` is what a :class:`~txrealtime.engineio.session.Session` handles;
a :class:`Codec` turns it into bytes and back for one version of the protocol.
The version belongs to the session, so a server can speak several at once.
Only bytes and packets are known here: no HTTP, no WebSocket frames, no time.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, Protocol, final

from txrealtime.errors import PacketError

__all__ = ["CLOSE", "NOOP", "PING", "Codec", "EngineIO4", "Packet", "PacketType", "message", "openPacket"]


class PacketType(IntEnum):
    """The packet types of the Engine.IO protocol ("Protocol", "Packet types")."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


_DIGITS: Final = tuple(str(int(type)) for type in PacketType)
_BY_DIGIT: Final = dict(zip(_DIGITS, PacketType, strict=True))


@final
class Packet:
    """
    One Engine.IO packet.  Treat it as immutable.

    It remembers its wire form once that was asked for, so what goes to a
    thousand clients is encoded and framed once.

    :ivar type: the packet's type.
    :ivar data: text, or bytes for a binary message.
    :ivar frame: a place for the WebSocket transport to keep the finished frame.
    """

    __slots__ = ("_wire", "data", "frame", "type")

    def __init__(self, type: PacketType, data: str | bytes = "") -> None:
        self.type = type
        self.data = data
        self.frame: bytes | None = None
        self._wire: bytes | None = None

    @property
    def isBinary(self) -> bool:
        """Whether this is a binary message."""
        return self.data.__class__ is bytes

    @property
    def wire(self) -> bytes:
        """A text packet's type digit and text in UTF-8; a binary message's plain bytes."""
        wire = self._wire
        if wire is None:
            data = self.data
            wire = data if isinstance(data, bytes) else (_DIGITS[self.type] + data).encode()
            self._wire = wire
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
    """A message packet, text or binary."""
    return Packet(PacketType.MESSAGE, data)


def openPacket(
    sid: str, upgrades: Sequence[str], pingInterval: float, pingTimeout: float, maxPayload: int
) -> Packet:
    """
    The packet that opens a session ("Protocol", "Handshake").

    :param pingInterval: seconds; the wire has whole milliseconds.
    :param pingTimeout: seconds, likewise.
    :param maxPayload: bytes.
    """
    data = {
        "sid": sid,
        "upgrades": list(upgrades),
        "pingInterval": round(pingInterval * 1000),
        "pingTimeout": round(pingTimeout * 1000),
        "maxPayload": maxPayload,
    }
    return Packet(PacketType.OPEN, json.dumps(data, separators=(",", ":")))


class Codec(Protocol):
    """
    The wire forms of one version of the protocol.

    Decoding anything whatever gives packets or raises
    :exc:`~txrealtime.errors.PacketError`, and nothing else.
    """

    @property
    def version(self) -> int:
        """The number that clients send as ``EIO``."""

    @property
    def clientPings(self) -> bool:
        """Whether it is the client who sends PING, and the server who answers."""

    @property
    def takesOctets(self) -> bool:
        """Whether HTTP bodies may be binary, in either direction."""

    @property
    def sharesFrames(self) -> bool:
        """Whether a WebSocket carries :attr:`Packet.wire` as it is, so one frame does for all clients."""

    def encodePayload(self, packets: Sequence[Packet]) -> bytes:
        """The body of an HTTP response that carries these packets."""

    def isOctets(self, body: bytes) -> bool:
        """Whether a body that :meth:`encodePayload` has made is binary; only where bodies may be."""

    def decodePayload(self, body: bytes, octets: bool = False) -> list[Packet]:
        """
        The packets in the body of an HTTP request.

        :param octets: whether the client says that the body is binary.
        """

    def encodeMessage(self, packet: Packet, base64: bool = False) -> tuple[bytes, bool]:
        """
        A packet as a WebSocket's message.

        :param base64: whether the client takes text messages only.
        :return: the payload, and whether it is binary.
        """

    def decodeText(self, text: str) -> Packet:
        """The packet in a WebSocket's text message."""

    def decodeBytes(self, data: bytes) -> Packet:
        """The packet in a WebSocket's binary message."""


class EngineIO4:
    """Engine.IO protocol 4: spoken by Socket.IO clients 3 and 4."""

    version: Final = 4
    clientPings: Final = False
    takesOctets: Final = False
    sharesFrames: Final = True

    @staticmethod
    def encodePayload(packets: Sequence[Packet]) -> bytes:
        # HTTP long polling carries binary in base64 ("Packet encoding", "HTTP long-polling").
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
        # An empty body or a trailing separator holds an empty packet, which is none.
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
            try:
                return message(b64decode(text[1:], validate=True))
            except ValueError:
                raise PacketError("a binary packet that is not base64") from None
        raise PacketError(f"packet type {text[:1]!r}, expected '0' to '6' or 'b'")

    @staticmethod
    def decodeBytes(data: bytes) -> Packet:
        return message(data)
