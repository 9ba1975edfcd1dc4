"""
Socket.IO packets and their wire form (Socket.IO protocol 5, "Packet encoding").

A packet is one text message, ``<type>[<attachments>-][<namespace>,][<id>][JSON]``,
followed by its attachments as one binary message each::

    2["hello",1]                      an event
    213["ask"]                        an event with id 13, to be acked
    51-/chat,["img",{"_placeholder":true,"num":0}]      and then the image

A parser turns packets into messages and back.  :class:`JSONParser` is the default; any object that provides
:class:`IParser` can be another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from enum import IntEnum
from typing import Any, Final, NamedTuple

from zope.interface import Interface, implementer

from txrealtime.errors import PacketError
from txrealtime.socketio.jsontext import JSONText
from txrealtime.speedups import accelerated

__all__ = [
    "RESERVED",
    "AckEncoder",
    "IDecoder",
    "IParser",
    "JSONParser",
    "Packet",
    "PacketType",
    "ackEncoder",
    "checkName",
    "checkedData",
    "filled",
    "readPlain",
]


class PacketType(IntEnum):
    """The types of packets (Socket.IO protocol, "Packet types")."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class Packet(NamedTuple):
    """
    A Socket.IO packet.

    The binary types are found on the wire only: before encoding and after decoding, a packet is an EVENT or
    ACK with its attachments in their places.
    """

    type: PacketType
    namespace: str = "/"
    data: Any = None
    """EVENT: ``[name, *arguments]``; ACK: the arguments; CONNECT: the auth object or ``None``."""
    id: int | None = None
    """The number of the ack that is requested or given; ``None`` for an event without an ack."""


RESERVED: Final = frozenset(
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
)
"""Names that no event may have: clients use them for their own notices."""


def checkName(event: str) -> None:
    """
    Check the name of an event.

    :raises TypeError: if it is not a string.
    :raises ValueError: if it is reserved.
    """
    if not isinstance(event, str):
        raise TypeError(f"an event's name is a str, not {type(event).__name__}")
    if event in RESERVED:
        raise ValueError(f"{event!r} is a reserved event name")


class IDecoder(Interface):
    """A decoder of one connection's messages, which keeps a packet until its attachments are complete."""

    def feed(message: str | bytes) -> Packet | None:
        """
        Take the next message.

        :return: the packet that the message completes, or ``None`` if more messages are expected.  Only
            events and acks may take several messages, and only from a client that is in a namespace.
        :raises PacketError: if the message neither begins nor continues a packet.
        """


class IParser(Interface):
    """A parser: packets to messages and back.  Both ends of a connection need the same one."""

    def encode(packet: Packet) -> Sequence[str | bytes]:
        """
        Encode a packet.

        :return: its messages, which are sent without others between them.
        :raises TypeError: if the format lacks a value; the message has the path to it.
        :raises ValueError: if the format lacks a number, or the value is nested too deeply.
        """

    def decoder(maxAttachments: int) -> IDecoder:
        """
        Make a decoder for one connection.

        :param maxAttachments: the largest number of binary attachments of a packet.
        """


# -- decoding --------------------------------------------------------------------

# Type, attachments, namespace (from a slash up to a comma or the end), id; the JSON follows.
_HEAD: Final = re.compile(r"([0-6])(?:(\d{1,9})-)?(?:(/[^,]*)(?:,|$))?(\d*)", re.ASCII)

# JavaScript has exact integers up to 2**53, which has 16 digits.
_MAX_ID_DIGITS: Final = 16

_newTuple: Final = tuple.__new__


@accelerated
def readPlain(
    message: str,
    loads: Callable[[str], Any],
    packetType: type[Packet],
    types: tuple[PacketType, PacketType],
    reserved: Set[str],
    /,
) -> Packet | None:
    """
    Read the most frequent packets: ``2[...]``, ``213[...]``, ``3/chat,13[...]``.

    :param loads: reads JSON, and raises ``ValueError`` if it is none.
    :param types: of an event and of an ack.
    :param reserved: names that no event may have.
    :return: ``None`` for any other packet, well-formed or not.
    """
    start = message.find("[", 1)
    type, head, path = message[:1], message[1:start], "/"
    if head[:1] == "/":
        path, comma, head = head.partition(",")
        if not comma:
            return None
    if start < 1 or not (type == "2" or (type == "3" and head)):
        return None
    if head and not (head.isdecimal() and head.isascii() and len(head) <= _MAX_ID_DIGITS):
        return None
    try:
        data = loads(message[start:])
    except ValueError:
        return None
    if type == "2" and not (data and data[0].__class__ is str and data[0] not in reserved):
        return None
    # As packetType(...), in a third of the time.
    return _newTuple(packetType, (types[type == "3"], path, data, int(head) if head else None))


_EVENT: Final = PacketType.EVENT
_ACK: Final = PacketType.ACK
_DIGITS: Final = tuple(str(type.value) for type in PacketType)
_PLAIN: Final = (_EVENT, _ACK)
# How nearly every client comes and goes.
_BARE: Final = {
    str(type.value): Packet(type, "/", None, None) for type in (PacketType.CONNECT, PacketType.DISCONNECT)
}


@implementer(IDecoder)
class _Decoder:
    """The decoder of :class:`JSONParser`."""

    __slots__ = ("_attachments", "_json", "_loads", "_maxAttachments", "_missing", "_pending")

    def __init__(self, json: JSONText, maxAttachments: int) -> None:
        self._json = json
        self._loads = json.loads
        self._maxAttachments = maxAttachments
        self._pending: Packet | None = None
        self._missing = 0
        self._attachments: list[bytes] = []

    def feed(self, message: str | bytes) -> Packet | None:
        if message.__class__ is not str:
            return self._attach(message)  # type: ignore[arg-type]
        if self._pending is not None:
            raise PacketError(f"a text message where {self._missing} attachments were expected")
        plain = readPlain(message, self._loads, Packet, _PLAIN, RESERVED)
        if plain is not None:
            return plain
        bare = _BARE.get(message)
        if bare is not None:
            return bare
        packet, attachments = self._parse(message)
        if not attachments:
            return packet
        self._pending, self._missing, self._attachments = packet, attachments, []
        return None

    def _attach(self, attachment: bytes) -> Packet | None:
        packet = self._pending
        if packet is None:
            raise PacketError("a binary message that no packet announced")
        self._attachments.append(attachment)
        self._missing -= 1
        if self._missing:
            return None
        attachments, self._attachments, self._pending = self._attachments, [], None
        try:
            return packet._replace(data=filled(packet.data, attachments))
        except RecursionError:
            raise PacketError("data nested too deeply") from None

    def _parse(self, message: str) -> tuple[Packet, int]:
        head = _HEAD.match(message)
        if head is None:
            raise PacketError("not a Socket.IO packet: expected a type from 0 to 6")
        digit, count, namespace, id = head.groups()
        type = PacketType(int(digit))
        attachments = self._attachmentCount(type, count)
        if len(id) > _MAX_ID_DIGITS:
            raise PacketError(f"an ack id of {len(id)} digits, expected at most {_MAX_ID_DIGITS}")
        text = message[head.end() :].lstrip(" \t\r\n")
        try:
            data = self._json.decode(text) if text else None
        except ValueError as error:
            raise PacketError(f"data that cannot be read: {error}") from None
        if attachments:
            type = PacketType.EVENT if type is PacketType.BINARY_EVENT else PacketType.ACK
        return Packet(
            type, namespace or "/", checkedData(type, data, bool(id)), int(id) if id else None
        ), attachments

    def _attachmentCount(self, type: PacketType, count: str | None) -> int:
        if type < PacketType.BINARY_EVENT:
            if count is not None:
                raise PacketError(f"attachments on a packet of type {type.value}")
            return 0
        attachments = int(count or 0)
        if not 1 <= attachments <= self._maxAttachments:
            raise PacketError(
                f"{attachments} attachments, expected 1 to {self._maxAttachments} (setting maxAttachments)"
            )
        return attachments


def checkedData(type: PacketType, data: Any, hasId: bool) -> Any:
    """
    Check that data fits the type of its packet ("Packet encoding").

    :param hasId: true if the packet has an ack id.
    :return: the data; the number that is an event's name becomes a string.
    :raises PacketError: if it does not fit.
    """
    if type is PacketType.EVENT:
        if isinstance(data, list) and data:
            name = data[0]
            if isinstance(name, str):
                if name not in RESERVED:
                    return data
                raise PacketError(f"the reserved event name {name!r}")
            if isinstance(name, (int, float)) and not isinstance(name, bool):
                # To JavaScript, the event 1 and the event "1" are the same.
                return [str(name), *data[1:]]
        raise PacketError("event data that is not an array with the event's name first")
    if type is PacketType.ACK:
        if isinstance(data, list) and hasId:
            return data
        raise PacketError("an ack without an id, or whose data is not an array")
    if type is PacketType.CONNECT:
        if data is None or isinstance(data, dict):
            return data
        raise PacketError("auth data that is not an object")
    if type is PacketType.DISCONNECT and data is not None:
        raise PacketError("a DISCONNECT with data")
    return data


def filled(data: Any, attachments: list[bytes]) -> Any:
    """
    Put attachments in the places of their placeholders.

    :raises PacketError: if a placeholder has no attachment.
    :raises RecursionError: if the data is nested too deeply.
    """
    if isinstance(data, list):
        return [filled(item, attachments) for item in data]
    if not isinstance(data, dict):
        return data
    if data.get("_placeholder") is not True:
        return {key: filled(item, attachments) for key, item in data.items()}
    number = data.get("num")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(attachments):
        raise PacketError("a placeholder for an attachment that does not exist")
    return attachments[number]


@implementer(IParser)
class JSONParser:
    """
    The default parser: JSON text, and bytes as attachments.

    :param accelerated: use orjson, if it is installed.
    """

    def __init__(self, accelerated: bool = True) -> None:
        self._json = JSONText(accelerated)

    def encode(self, packet: Packet) -> Sequence[str | bytes]:
        type, namespace, data, id = packet
        path = "" if namespace == "/" else namespace + ","
        head = _DIGITS[type]
        text, attachments = ("", ()) if data is None else self._json.encode(data, type is _ACK)
        if attachments:
            if type is not PacketType.EVENT and type is not PacketType.ACK:
                raise TypeError(
                    f"cannot send bytes, found in the data of a {type.name}: only events and acks carry them"
                )
            binary = PacketType.BINARY_EVENT if type is PacketType.EVENT else PacketType.BINARY_ACK
            head = f"{binary.value}{len(attachments)}-"
        head += path
        if id is not None:
            head += str(id)
        return [head + text, *attachments]

    def _encodeAck(self, path: str, data: list[Any], id: int) -> Sequence[str | bytes]:
        """Encode an ack as :meth:`encode` does, in half the time."""
        head = "3" if path == "/" else f"3{path},"
        text = self._json.encodeBehind(head, id, data)
        if text is None:
            return self.encode(_newTuple(Packet, (_ACK, path, data, id)))
        return [text]

    def decoder(self, maxAttachments: int) -> IDecoder:
        return _Decoder(self._json, maxAttachments)


AckEncoder = Callable[[str, list[Any], int], Sequence[str | bytes]]
"""Encodes an ack: takes the namespace's path, the arguments and the ack's id."""


def ackEncoder(parser: IParser) -> AckEncoder:
    """Return the function that encodes acks as a parser does."""

    def encode(path: str, data: list[Any], id: int) -> Sequence[str | bytes]:
        return parser.encode(_newTuple(Packet, (_ACK, path, data, id)))

    # A subclass may encode in another way.
    if type(parser) is JSONParser and parser._json.isAccelerated:
        return parser._encodeAck
    return encode
