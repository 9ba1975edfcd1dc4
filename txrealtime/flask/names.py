"""
The names of rooms and message queues: from those of applications to those of the server.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["busURL", "roomNames"]


def roomNames(rooms: Any) -> list[str]:
    """
    Return rooms as the server names them, by strings.

    :param rooms: one room or a list of rooms; a room may be a number.
    """
    if rooms is None:
        return []
    several = rooms if isinstance(rooms, (list, tuple, set, frozenset)) else [rooms]
    return [room if isinstance(room, str) else str(room) for room in several]


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
