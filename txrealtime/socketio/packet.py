"""
Socket.IO packets and their wire form (Socket.IO protocol 5, "Packet encoding").

A packet is one text message, ``<type>[<attachments>-][<namespace>,][<id>][JSON]``,
followed by its attachments as one binary message each::

    2["hello",1]                      an event
    213["ask"]                        an event with id 13, which wants an ack
    51-/chat,["img",{"_placeholder":true,"num":0}]      and then the image

A parser is what turns packets into messages and back.  :class:`JSONParser` is the
default one; another is any object that provides :class:`IParser`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from zope.interface import Interface, implementer

from txrealtime.errors import PacketError
from txrealtime.socketio.jsontext import JSONText

__all__ = [
    "RESERVED",
    "IDecoder",
    "IParser",
    "JSONParser",
    "Packet",
    "PacketType",
    "checkName",
    "checkedData",
    "filled",
]


class PacketType(IntEnum):
    """The packet types of the Socket.IO protocol ("Packet types")."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class Packet(NamedTuple):
    """
    One Socket.IO packet.

    The binary types belong to the wire: a decoded packet is an EVENT or ACK with the
    attachments in their places, and so is one to encode.
    """

    type: PacketType
    namespace: str = "/"
    data: Any = None
    """EVENT: ``[name, *arguments]``; ACK: the arguments; CONNECT: the auth object or ``None``."""
    id: int | None = None
    """The number of the ack wanted or given."""


RESERVED: Final = frozenset(
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
)
"""Event names that no peer may send: clients use them for their own notices."""


def checkName(event: str) -> None:
    """
    :raises TypeError: when an event's name is not a string.
    :raises ValueError: when it is reserved.
    """
    if not isinstance(event, str):
        raise TypeError(f"an event's name is a str, not {type(event).__name__}")
    if event in RESERVED:
        raise ValueError(f"{event!r} is a reserved event name")


class IDecoder(Interface):
    """Decodes the messages of one connection; it remembers a packet whose attachments are still to come."""

    def feed(message: str | bytes) -> Packet | None:
        """
        Take the next message.

        :return: the packet that it completes, if it does.  Only events and acks may take several
            messages; from a client that is in no namespace, none may.
        :raises PacketError: when it is not, or does not continue, a packet.
        """


class IParser(Interface):
    """Packets to messages and back.  Both ends of a connection need the same one."""

    def encode(packet: Packet) -> Sequence[str | bytes]:
        """
        The messages of a packet, to be sent without others between them.

        :raises TypeError: for a value that the format lacks, with the path to it.
        :raises ValueError: likewise, for a number or a nesting.
        """

    def decoder(maxAttachments: int) -> IDecoder:
        """A decoder for one connection."""


# -- decoding --------------------------------------------------------------------

# Type, attachments, namespace (which starts with a slash and ends at a comma or the end), id, JSON.
_HEAD: Final = re.compile(r"([0-6])(?:(\d{1,9})-)?(?:(/[^,]*)(?:,|$))?(\d*)", re.ASCII)

# JavaScript counts to 2**53 exactly; 16 digits hold that.
_MAX_ID_DIGITS: Final = 16


_EVENT: Final = PacketType.EVENT
_ACK: Final = PacketType.ACK
_DIGITS: Final = tuple(str(type.value) for type in PacketType)
_newTuple: Final = tuple.__new__


@implementer(IDecoder)
class _Decoder:
    """See :class:`JSONParser`."""

    __slots__ = ("_attachments", "_decodeJSON", "_maxAttachments", "_missing", "_pending")

    def __init__(self, decodeJSON: Callable[[str, int], Any], maxAttachments: int) -> None:
        self._decodeJSON = decodeJSON
        self._maxAttachments = maxAttachments
        self._pending: Packet | None = None
        self._missing = 0
        self._attachments: list[bytes] = []

    def feed(self, message: str | bytes) -> Packet | None:
        if isinstance(message, bytes):
            return self._attach(message)
        if self._pending is not None:
            raise PacketError(f"a text message where {self._missing} attachments were expected")
        if message[:1] == "2" and (event := self._parseEvent(message)) is not None:
            return event
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

    def _parseEvent(self, message: str) -> Packet | None:
        """
        The short way for the packets that are most: ``2[...]``, ``213[...]`` and ``2/chat,13[...]``.

        It takes 1.1 us for 64 characters where :meth:`_parse` takes 4.5, which gets
        whatever is not well-formed here.
        """
        start = message.find("[")
        head, path = message[1:start], "/"
        if head[:1] == "/":
            path, _, head = head.partition(",")
        if start < 1 or (head and not (head.isdecimal() and head.isascii() and len(head) <= _MAX_ID_DIGITS)):
            return None
        try:
            data = self._decodeJSON(message, start)
            name = data[0]
        except (ValueError, IndexError):
            return None
        if name.__class__ is not str or name in RESERVED:
            return None
        # As Packet(...), in a third of the time.
        return _newTuple(Packet, (_EVENT, path, data, int(head) if head else None))

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
            data = self._decodeJSON(text, 0) if text else None
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
    The data of a packet, if it is what packets of this type carry ("Packet encoding").

    :param hasId: whether the packet has an ack id.
    :raises PacketError: if it is not.
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
    Data with the attachments in place of their placeholders.

    :raises PacketError: for one without an attachment.
    :raises RecursionError: when it is nested too deeply.
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

    :param accelerated: whether to use orjson, if it is installed.
    """

    def __init__(self, accelerated: bool = True) -> None:
        self._json = JSONText(accelerated)

    def encode(self, packet: Packet) -> Sequence[str | bytes]:
        type, namespace, data, id = packet
        text, attachments = ("", ()) if data is None else self._json.encode(data, type is _ACK)
        head = _DIGITS[type]
        if attachments:
            if type is not PacketType.EVENT and type is not PacketType.ACK:
                raise TypeError(
                    f"cannot send bytes, found in the data of a {type.name}: only events and acks carry them"
                )
            binary = PacketType.BINARY_EVENT if type is PacketType.EVENT else PacketType.BINARY_ACK
            head = f"{binary.value}{len(attachments)}-"
        if namespace != "/":
            head += namespace + ","
        if id is not None:
            head += str(id)
        return [head + text, *attachments]

    def decoder(self, maxAttachments: int) -> IDecoder:
        return _Decoder(self._json.decode, maxAttachments)
