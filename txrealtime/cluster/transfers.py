"""
The words of servers about clients that come back, and about the history of rooms, checked.

:class:`~txrealtime.cluster.dialects.messages.Transfer` and its replies carry any values; the functions here
return those that a server sends, and raise :exc:`~txrealtime.errors.PacketError` for all others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from txrealtime.cluster.dialects.checks import name, number, rooms, typed
from txrealtime.errors import PacketError
from txrealtime.socketio.clients import Claim

__all__ = ["MOST_TICKETS", "question", "reply"]

MOST_TICKETS: Final = 1000
"""Clients in one message; a server sends fewer."""

_OFFSET: Final = re.compile("[A-Za-z0-9_-]{1,64}-[0-9]{1,18}")


def question(what: str, words: list[Any]) -> list[Any] | None:
    """
    Return the arguments of a question.

    :return: ``None`` if the question is unknown: a newer server may ask it.
    :raises PacketError: if no server would ask so.
    """
    read = _QUESTIONS.get(what)
    if read is None:
        return None
    try:
        return read(*words)
    except (TypeError, ValueError):
        raise PacketError(f"a question of the kind {what!r} with other words") from None


def reply(value: Any) -> dict[str, Any]:
    """
    Return a part of a reply.

    :raises PacketError: if no server would reply so.
    """
    part: dict[str, Any] = dict(typed(value, dict))
    if "moved" in part:
        name(part["moved"])
    if "id" in part:
        part |= {**_session(part), "owner": name(part.get("owner"))}
    if "parts" in part and number(part["parts"]) == 0:
        raise PacketError("a reply of no parts")
    part["events"] = _events(part.get("events", []))
    return part


def _claim(path: Any, pid: Any, offset: Any, isSound: Any, address: Any) -> list[Any]:
    claim = Claim(name(pid), None if offset is None else name(offset), typed(isSound, bool))
    return [typed(path, str), claim, name(address)]


def _adopt(path: Any, tickets: Any) -> list[Any]:
    return [typed(path, str), [(name(pid), _session(session)) for pid, session in _few(tickets)]]


def _carry(path: Any, carried: Any) -> list[Any]:
    return [
        typed(path, str),
        [
            (name(pid), None if events is None else {"events": _events(typed(events, dict).get("events"))})
            for pid, events in _few(carried)
        ],
    ]


def _history(path: Any, room: Any) -> list[Any]:
    return [typed(path, str), typed(room, str)]


_QUESTIONS: Final[dict[str, Callable[..., list[Any]]]] = {
    "claim": _claim,
    "take": _claim,
    "adopt": _adopt,
    "carry": _carry,
    "history": _history,
}


def _few(values: Any) -> list[Any]:
    if len(typed(values, list)) > MOST_TICKETS:
        raise PacketError(f"more than {MOST_TICKETS} clients in one message")
    pairs: list[Any] = values
    return pairs


def _session(value: Any) -> dict[str, Any]:
    """Return the description of a client's socket."""
    session = typed(value, dict)
    return {
        "id": name(session.get("id")),
        "rooms": rooms(session.get("rooms")),
        "data": typed(session.get("data"), dict),
        "address": name(session.get("address")),
        "had": {name(server): number(last) for server, last in typed(session.get("had", {}), dict).items()},
    }


def _events(value: Any) -> list[Any]:
    """Return events with their offsets and marks."""
    for event in typed(value, list):
        if event.__class__ is not list or len(event) != 3:
            raise PacketError("an event without its offset or its mark")
        offset, mark, messages = event
        if not _OFFSET.fullmatch(typed(offset, str)):
            raise PacketError("an offset that is none")
        if mark.__class__ is list:
            sender, topic, count = mark if len(mark) == 3 else (None, None, None)
            typed(sender, str), typed(topic, str)
            _ = name(count) if isinstance(count, str) else number(count)  # an emitter's, or a server's
        elif mark is not None and mark is not False:
            raise PacketError("a mark that is none")
        if not typed(messages, list) or any(part.__class__ not in (str, bytes) for part in messages):
            raise PacketError("an event without its messages")
    events: list[Any] = value
    return events
