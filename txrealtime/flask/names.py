"""
The names of rooms and message queues: from those of applications to those of the server.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["busURL", "roomNames", "sidsOf"]


def roomNames(rooms: Any) -> list[str]:
    """
    Return rooms as the server names them, by strings.

    :param rooms: one room or a list of rooms; a room may be a number.  ``None`` is no room.
    :raises TypeError: if a list has ``None`` in it, or a room is a dictionary or a list in a list.
    """
    if rooms is None:
        return []
    several = rooms if isinstance(rooms, (list, tuple, set, frozenset)) else [rooms]
    return [room if isinstance(room, str) else _roomName(room) for room in several]


def _roomName(room: Any) -> str:
    """Return the name of a room that is not a string."""
    # An event without its room would otherwise bring strangers together, in a room named "None".
    if room is None or type(room).__hash__ is None:
        raise TypeError(f"a room is named by a str or a number, not by {type(room).__name__}")
    return str(room)


def sidsOf(sids: Any) -> list[str]:
    """
    Return the sids that `skip_sid` names.

    :param sids: one sid or a list of sids.  ``None`` is nobody, also in a list, as in Flask-SocketIO.
    """
    several = sids if isinstance(sids, (list, tuple, set, frozenset)) else [sids]
    return roomNames([sid for sid in several if sid is not None])


def busURL(queue: str, channel: str) -> str:
    """
    Return the bus URL of a ``message_queue``.

    The dialect is python-socketio's unless the URL names another one: servers of Flask-SocketIO and external
    processes can then share the queue.
    """
    scheme, separator, rest = queue.partition("://")
    if not rest or rest[0] in "/?":
        queue = f"{scheme}{separator}localhost{rest}"
    if "dialect=" in queue:
        return queue
    return f"{queue}{'&' if '?' in queue else '?'}dialect=python-socketio&channel={quote(channel, safe='')}"
