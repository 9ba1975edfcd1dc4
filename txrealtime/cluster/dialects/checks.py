"""
The checks of decoded values in the native dialect.

Each returns its argument, or a form of it, and raises :exc:`~txrealtime.errors.PacketError` if no server
would have sent it.
"""

from __future__ import annotations

from typing import Any, Final

from txrealtime.cluster.dialects.messages import Target
from txrealtime.engineio import packet as engineio
from txrealtime.errors import PacketError
from txrealtime.socketio.acks import ackValue
from txrealtime.socketio.audience import Person

__all__ = ["ack", "last", "name", "number", "parts", "person", "rooms", "target", "typed"]

_MESSAGE: Final = engineio.PacketType.MESSAGE


def parts(data: bytes, start: int, sizes: Any) -> list[engineio.Packet]:
    """Return the parts of a packet, as clients get them."""
    cut = []
    for size in sizes:
        if size.__class__ is not int:
            raise PacketError("a size that is not a number")
        end = start + (size if size >= 0 else -size - 1)
        if end > len(data):
            break
        part = data[start:end]
        cut.append(engineio.Packet(_MESSAGE, part.decode() if size >= 0 else part))
        start = end
    if start != len(data) or len(cut) != len(sizes):
        raise PacketError("a message whose parts do not have the sizes of its head")
    return cut


def target(fields: list[Any]) -> Target:
    """Return the audience that a head begins with."""
    path, chosen, excluded = fields[:3]
    if path.__class__ is not str:
        raise PacketError("a namespace that is not text")
    return Target(path, None if chosen is None else rooms(chosen), frozenset(rooms(excluded)))


def rooms(names: Any) -> tuple[str, ...]:
    """Return a list of rooms as a tuple."""
    if names.__class__ is not list:
        raise PacketError("rooms that are not a list")
    for room in names:
        if room.__class__ is not str:
            raise PacketError("a room that is not text")
    return tuple(names)


def last(fields: list[Any], count: int) -> list[Any]:
    """Return the fields of a head, if there are so many."""
    if len(fields) != count:
        raise PacketError(f"a head with {len(fields)} fields, expected {count}")
    return fields


def typed(value: Any, kind: Any) -> Any:
    """Return a value of a class, or of one of several; a bool is no number."""
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise PacketError("a field of the wrong type")
    return value


def number(value: Any) -> int:
    """Return a number of 0 or more."""
    given: int = typed(value, int)
    if given < 0:
        raise PacketError("a negative number")
    return given


def name(value: Any) -> str:
    """Return a text of at most 300 characters."""
    given: str = typed(value, str)
    if len(given) > 300:
        raise PacketError("a name that is too long")
    return given


def ack(value: Any) -> Any:
    """Return an ack in the form of :func:`~txrealtime.socketio.acks.ackValue`."""
    return ackValue(typed(value, list))


def person(value: Any) -> Person:
    """Return a remote socket."""
    return Person(typed(value["id"], str), frozenset(rooms(value["rooms"])), typed(value["data"], dict))
