"""
The clients of one namespace that are away: their tickets are parked, and their rooms go on hearing events.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.parking import Parking
    from txrealtime.socketio.tickets import Ticket

__all__ = ["Absence"]


class Absence:
    """
    The parked tickets of one namespace.

    :ivar count: their number.
    :ivar rooms: the number of parked tickets by room, for those whose sockets have left.
    """

    def __init__(self, namespace: Namespace, parking: Parking) -> None:
        self.count = 0
        self.rooms: Counter[str] = Counter()
        self._namespace = namespace
        self._parking = parking
        # The ids of the sockets.
        self._ids: set[str] = set()

    def hears(self, rooms: tuple[str, ...] | None) -> bool:
        """Return true if an event for rooms, or ``None`` for everybody, may be for a client that is away."""
        return self.count > 0 and (rooms is None or any(room in self.rooms for room in rooms))

    def holds(self, id: str) -> bool:
        """Return true if a client is away whose socket has an id."""
        return id in self._ids

    def park(self, ticket: Ticket) -> None:
        """Park a ticket, whose ``rooms`` are those that its socket has left."""
        ticket.isParked = True
        self.count += 1
        self._ids.add(ticket.id)
        self._hold(ticket.rooms, True)
        self._parking.add(ticket)

    def unpark(self, ticket: Ticket) -> None:
        """Called when the client of a ticket is back, or cannot come back.  It may not have been away."""
        if ticket.isParked:
            ticket.isParked = False
            self.count -= 1
            self._ids.discard(ticket.id)
            rooms, ticket.rooms = ticket.rooms, frozenset()
            self._hold(rooms, False)
            self._parking.remove(ticket)

    def _hold(self, rooms: frozenset[str], holds: bool) -> None:
        """Go on hearing of rooms from other servers, or stop."""
        absent, peers = self.rooms, self._namespace._peers
        for room in rooms:
            absent[room] += 1 if holds else -1
            if not absent[room]:
                del absent[room]
            if peers is not None:
                peers.roomChanged(self._namespace, room, holds)
