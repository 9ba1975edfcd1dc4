"""
The values in messages of Node's adapters: how they are written and read.

:mod:`~txrealtime.cluster.dialects.nodejs` has the messages and topics.  Nothing here knows a topic.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

from txrealtime.cluster.dialects.messages import Target
from txrealtime.errors import PacketError
from txrealtime.socketio.audience import Person
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import Packet, PacketType, checkedData

__all__ = [
    "describedSocket",
    "eventOf",
    "firstOf",
    "handshakeOf",
    "optionsOf",
    "readAudience",
    "readFlag",
    "readMoved",
    "readNumber",
    "readPacket",
    "readPerson",
    "readRooms",
    "readTarget",
    "readText",
    "readTimeout",
    "shown",
    "shownIfPossible",
]

_MAX_TIMEOUT: Final = 3600.0
"""Seconds for which a question of another server can have this one wait for acks."""

_EVENT: Final = PacketType.EVENT.value
_EVENTS: Final = (_EVENT, PacketType.BINARY_EVENT.value)


# -- writing ---------------------------------------------------------------------------


def eventOf(packet: Packet) -> dict[str, Any]:
    """Return an event's packet as an object of socket.io-parser."""
    return {"type": _EVENT, "data": packet.data, "nsp": packet.namespace}


def optionsOf(target: Target) -> dict[str, Any]:
    """Return an audience as the adapter's broadcast options."""
    return {"rooms": list(target.rooms or ()), "except": list(target.excluded)}


def firstOf(value: Any) -> Any:
    """Return the first value of an ack: responses of Node carry one."""
    return value[0] if isinstance(value, tuple) else value


def handshakeOf(handshake: Handshake) -> dict[str, Any]:
    """Return a socket's handshake as Node's servers describe it."""
    came = datetime.fromtimestamp(handshake.time, UTC)
    return {
        "headers": dict(handshake.headers),
        "time": came.strftime("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)"),
        "address": handshake.address,
        "xdomain": "origin" in handshake.headers,
        "secure": handshake.secure,
        "issued": round(handshake.time * 1000),
        "url": handshake.url,
        "query": dict(handshake.query),
        "auth": shownIfPossible(handshake.auth or {}),
    }


def describedSocket(namespaces: Namespaces | None, path: str, person: Person) -> dict[str, Any]:
    """
    Describe a socket as a RemoteSocket of Node.

    :param namespaces: those of the server, which have the handshake; ``None`` for an emitter.
    """
    namespace = None if namespaces is None else namespaces.find(path)
    socket = None if namespace is None else namespace.sockets.get(person.id)
    data = shownIfPossible(person.data)
    if socket is not None and namespaces is not None and namespaces.clientOf is not None:
        data = {**data, "_admin": namespaces.clientOf(socket)}
    return {
        "id": person.id,
        "handshake": {} if socket is None else handshakeOf(socket.handshake),
        "rooms": sorted(person.rooms),
        "data": data,
    }


def shown(value: Any) -> Any:
    """Return a value in the form that ``JSON.stringify`` gives it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"type": "Buffer", "data": list(bytes(value))}
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, (list, tuple)) else _leaf(value)


def shownIfPossible(value: dict[str, Any]) -> Any:
    """Return a client's value in that form, or ``{}`` if it is nested too deeply for JSON."""
    try:
        return shown(value)
    except RecursionError:
        return {}


def _leaf(value: Any) -> Any:
    """Return a value that is no container in the form of Node's JSON: no dates, no infinity, no NaN."""
    kind = value.__class__
    if kind is float:
        return value if isfinite(value) else None
    if kind is datetime:
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


# -- reading: each returns its argument, checked or converted, or raises PacketError ---------


def readPacket(fields: dict[str, Any]) -> Packet:
    """Return the packet of an event."""
    if fields["type"] not in _EVENTS:
        raise PacketError("a packet that is not an event")
    path = readText(fields.get("nsp", "/"))
    args = checkedData(PacketType.EVENT, fields["data"], False)
    return Packet(PacketType.EVENT, path, _given(args))


def _given(value: Any) -> Any:
    """Return an argument as clients of Node would get it."""
    kind = value.__class__
    if kind is dict:
        return {key: _given(item) for key, item in value.items()}
    return [_given(item) for item in value] if kind is list else _leaf(value)


def readText(value: Any) -> str:
    """Return a text of at most 1000 characters."""
    if not isinstance(value, str) or len(value) > 1000:
        raise PacketError("a field that is not text, or is too long")
    return value


def readNumber(value: Any) -> int:
    """Return a whole number from 0 on."""
    if value.__class__ is not int or value < 0:
        raise PacketError("a count that is not a number from 0 on")
    number: int = value
    return number


def readFlag(options: dict[str, Any], name: str) -> Any:
    """Return a flag of the adapter's broadcast options; ``None`` if it is not set."""
    # Some emitters write an empty array, or nil, if there are no flags.
    flags = options.get("flags")
    return flags.get(name) if isinstance(flags, dict) else None


def readTimeout(options: dict[str, Any]) -> float:
    """Return the seconds that the adapter's broadcast options give for acks; an hour if they give none."""
    timeout = readFlag(options, "timeout")
    isSane = timeout.__class__ in (int, float) and 0 <= timeout <= _MAX_TIMEOUT * 1000  # NaN is not
    return timeout / 1000 if isSane else _MAX_TIMEOUT


def readRooms(rooms: Any) -> tuple[str, ...]:
    """Return the names of rooms."""
    # Node's rooms may be numbers; here and at clients they are text.
    return tuple(str(room) if room.__class__ is int else readText(room) for room in rooms)


def readTarget(path: str, options: dict[str, Any]) -> Target:
    """Return the audience of the adapter's broadcast options."""
    return Target(
        path, readRooms(options["rooms"]) or None, frozenset(readRooms(options.get("except") or []))
    )


def readAudience(path: str, message: dict[str, Any]) -> Target:
    """Return the audience of a request.  Emitters before version 5 send the id of one socket instead."""
    options = message.get("opts")
    return Target(path, (readText(message["sid"]),)) if options is None else readTarget(path, options)


def readMoved(message: dict[str, Any]) -> tuple[str, ...]:
    """Return the rooms to join or leave."""
    return readRooms(message["rooms"] if "opts" in message else [message["room"]])


def readPerson(fields: dict[str, Any]) -> Person:
    """Return a remote socket that a server of Node has described."""
    data = fields.get("data")
    data = dict(data) if isinstance(data, dict) else {}
    # Node's admin UI keeps it among the application's data.
    admin = {"handshake": fields.get("handshake"), "_admin": data.pop("_admin", None)}
    return Person(readText(fields["id"]), frozenset(readRooms(fields["rooms"])), data, admin=admin)
