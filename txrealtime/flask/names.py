"""
Rooms and queues, as applications name them and as the server does.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["busURL", "roomNames"]


def roomNames(rooms: Any) -> list[str]:
    """
    Rooms as the server names them: texts.

    :param rooms: one room, or a list of them; a room may be a number, too.
    """
    if rooms is None:
        return []
    several = rooms if isinstance(rooms, (list, tuple, set, frozenset)) else [rooms]
    return [room if isinstance(room, str) else str(room) for room in several]


def busURL(queue: str, channel: str) -> str:
    """
    The URL of the bus that is a ``message_queue``.

    Unless it says otherwise, python-socketio's dialect is spoken there, so that servers of Flask-SocketIO
    and its external processes may take part.
    """
    scheme, separator, rest = queue.partition("://")
    if not rest or rest[0] in "/?":
        queue = f"{scheme}{separator}localhost{rest}"
    if "dialect=" in queue:
        return queue
    return f"{queue}{'&' if '?' in queue else '?'}dialect=python-socketio&channel={quote(channel, safe='')}"
