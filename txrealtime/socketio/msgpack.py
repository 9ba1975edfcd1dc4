"""
Packets as MessagePack, for clients with ``socket.io-msgpack-parser``.

A packet is one binary message, a map with the keys ``type``, ``nsp`` and, unless empty, ``data`` and ``id``;
bytes stand among the data as they are.  JavaScript's ``undefined`` becomes ``None``; its dates are sent and
received as :class:`~datetime.datetime`.

This is the only module that imports msgpack.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgpack  # type: ignore[import-untyped]
from zope.interface import implementer

from txrealtime.errors import PacketError
from txrealtime.socketio.jsontext import explained
from txrealtime.socketio.notepack import withBinary
from txrealtime.socketio.packet import IDecoder, IParser, Packet, PacketType, checkedData

__all__ = ["MsgpackParser", "packed", "unpacked"]

# The extension type of notepack.io 2, the client's encoder, for values that MessagePack lacks: undefined in
# one byte, dates in eight, binary data other than Node's Buffer in any other number: see withBinary().
_NOTEPACK: Final = 0

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

_TYPES: Final = {type.value: type for type in PacketType if type < PacketType.BINARY_EVENT}


@implementer(IParser)
class MsgpackParser:
    """
    A parser of MessagePack, for a server whose clients all use ``socket.io-msgpack-parser``.

    Beside the values of JSON, it carries bytes in place, without attachments, and dates: as
    :class:`~datetime.datetime` with a time zone, to the millisecond.
    """

    def __init__(self) -> None:
        self._pack = msgpack.Packer(default=_replaced).pack

    def encode(self, packet: Packet) -> Sequence[bytes]:
        type, namespace, data, id = packet
        fields: dict[str, Any] = {"type": type.value}
        # The client takes null for a value, and refuses it in place of an absent key.
        if data is not None:
            fields["data"] = data
        if id is not None:
            fields["id"] = id
        fields["nsp"] = namespace
        try:
            return [self._pack(fields)]
        except (TypeError, ValueError, OverflowError) as error:
            raise explained(data, type is PacketType.ACK, error, _whyNot) from None

    def decoder(self, maxAttachments: int) -> IDecoder:
        # Bytes are no attachments here; the size of a message bounds their number.
        decoder: IDecoder = _Decoder()
        return decoder


@implementer(IDecoder)
class _Decoder:
    """The decoder of :class:`MsgpackParser`."""

    __slots__ = ()

    def feed(self, message: str | bytes) -> Packet | None:
        if isinstance(message, str):
            raise PacketError("a text message where MessagePack was expected")
        try:
            fields = _unpacked(message, object_hook=_checkedKeys)
        except (ValueError, OverflowError, msgpack.UnpackException) as error:
            raise PacketError(f"not MessagePack: {error}") from None
        if not isinstance(fields, dict):
            raise PacketError("a packet that is not a map")
        return _packet(fields)


def _unpacked(message: bytes, **options: Any) -> Any:
    # unpackb() allocates at once the size that an array's head claims: skip() first finds out, without
    # memory, that all of it has arrived.
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(message)
    unpacker.skip()
    return msgpack.unpackb(withBinary(message), ext_hook=_extension, timestamp=3, **options)


def packed(value: Any) -> bytes:
    """
    Encode a value as MessagePack for notepack.io 3, with dates as timestamps.

    :raises TypeError: if a value cannot be sent.
    :raises ValueError: if a number cannot be sent, or the value is nested too deeply.
    """
    try:
        data: bytes = _packTimestamps(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise explained([value], 0, error, _whyNot) from None
    return data


def unpacked(data: bytes) -> Any:
    """
    Decode a value that :func:`packed` or notepack.io 3 has encoded.  Keys become text, as in JSON.

    :raises PacketError: if the data is not MessagePack.
    """
    try:
        return _unpacked(data, object_hook=_keysAsText, strict_map_key=False)
    except (TypeError, ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise PacketError(f"not MessagePack: {error}") from None


def _packet(fields: dict[str, Any]) -> Packet:
    """Make a packet of its map.  Other keys of clients, such as ``options``, are ignored."""
    number, namespace, data, id = (fields.get(key) for key in ("type", "nsp", "data", "id"))
    type = _TYPES.get(number) if number.__class__ is int else None
    if type is None:
        raise PacketError("a packet type other than 0 to 4")
    if not isinstance(namespace, str) or not namespace.startswith("/"):
        raise PacketError("a packet whose nsp is not a path")
    if id is not None and (id.__class__ is not int or id < 0):
        raise PacketError("an ack id that is not a number")
    return Packet(type, namespace, checkedData(type, data, id is not None), id)


# -- values --------------------------------------------------------------------------


def _replaced(value: Any) -> Any:
    """Called by the packer with a value that MessagePack lacks."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        milliseconds = (value - _EPOCH) // _MILLISECOND
        return msgpack.ExtType(_NOTEPACK, milliseconds.to_bytes(8, "big", signed=True))
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError


_packTimestamps: Final = msgpack.Packer(default=_replaced, datetime=True).pack


def _whyNot(value: Any) -> str | None:
    if isinstance(value, int):
        return None if -(1 << 63) <= value < 1 << 64 else "MessagePack has integers of 64 bits"
    if isinstance(value, datetime):
        return None if value.tzinfo is not None else "expected one with a time zone"
    known = isinstance(value, (str, float, bytes, bytearray, memoryview, UUID, type(None)))
    return None if known else "expected what JSON has, bytes, datetime, UUID or Enum"


def _extension(code: int, data: bytes) -> Any:
    if code != _NOTEPACK:
        raise ValueError(f"an extension of type {code}")
    if data == b"\0":
        return None
    if len(data) == 8:
        return _EPOCH + int.from_bytes(data, "big", signed=True) * _MILLISECOND
    return data


def _checkedKeys(value: dict[Any, Any]) -> dict[Any, Any]:
    # msgpack has checked that keys are text or bytes.
    for key in value:
        if key.__class__ is bytes:
            raise ValueError("a key that is not text")
    return value


def _keysAsText(value: dict[Any, Any]) -> dict[Any, Any]:
    for key in value:
        if key.__class__ is not str:
            return {_keyAsText(key): item for key, item in value.items()}
    return value


def _keyAsText(key: Any) -> str:
    return key if key.__class__ is str else json.dumps(key, allow_nan=False)
