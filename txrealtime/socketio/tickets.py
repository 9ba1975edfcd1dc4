"""
Tickets: the rights of clients to come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from txrealtime.engineio.session import CloseReason

if TYPE_CHECKING:
    from txrealtime.socketio.missed import Carried
    from txrealtime.socketio.recovery import Recovery
    from txrealtime.socketio.sockets import Socket

__all__ = ["Ticket"]

_MOST_MOVES: Final = 256
"""Changes of rooms that one ticket remembers."""


class Ticket:
    """
    The right of one client to come back to one namespace.

    :ivar pid: the client's private id, a bearer secret.
    :ivar id: the public id of the client's socket.
    :ivar data: the socket's ``data``.
    :ivar socket: the client's socket; ``None`` while a client of another server has not come to this one.
    :ivar address: the client's address.
    :ivar start: the number of the log's newest entry when the ticket was made.
    :ivar floor: the number of an entry up to which the client has surely received all.
    :ivar known: the number of an entry from which on all changes of rooms are known.
    :ivar moves: the changes of rooms: ``True`` for a join, by the number of the log's newest entry and the
        room.
    :ivar admitted: the time of the last admission.
    :ivar isParked: true while the client is away.
    :ivar rooms: while parked, the rooms that the socket was in, its own included; empty if it still is.
    :ivar reason: the reason of the last cut.
    :ivar deadline: the time until which the ticket is parked.
    :ivar isArriving: true until the events of a client from another server are here.
    :ivar isElsewhere: true when the client has moved to another server.
    :ivar offset: the offset behind which the client's events on this server are, once it is kept for others.
    :ivar carried: the events of a client from another server, until they are in this server's log.
    :ivar had: the number of the client's last event in the log of each server that did not give its word when
        the client went: it may not have published these events yet.
    :ivar waiting: fire when the application has been told of the cut.
    """

    __slots__ = (
        "address",
        "admitted",
        "carried",
        "data",
        "deadline",
        "floor",
        "had",
        "id",
        "isArriving",
        "isElsewhere",
        "isParked",
        "known",
        "moves",
        "offset",
        "pid",
        "reason",
        "recovery",
        "rooms",
        "socket",
        "start",
        "waiting",
    )

    def __init__(self, recovery: Recovery, pid: str, id: str, data: dict[str, Any], address: str) -> None:
        start = recovery.log.top
        self.recovery = recovery
        self.pid = pid
        self.id = id
        self.data = data
        self.socket: Socket | None = None
        self.address = address
        self.isArriving = self.isElsewhere = False
        self.carried: Carried | None = None
        self.had: dict[str, int] = {}
        self.offset = ""
        self.start = self.floor = self.known = start
        self.moves: dict[tuple[int, str], bool] = {}
        self.admitted = float("inf")
        self.isParked = False
        self.rooms: frozenset[str] = frozenset()
        self.reason = CloseReason.TRANSPORT_CLOSE
        self.deadline = 0.0
        self.waiting: list[Deferred[None]] = []

    def moved(self, room: str, joined: bool) -> None:
        """Called when the socket has joined or left a room."""
        self.recovery.changed(self)
        moves, key = self.moves, (self.recovery.log.top, room)
        if key in moves:
            del moves[key]  # there and back again, without an event between
            return
        moves[key] = joined
        if len(moves) > _MOST_MOVES:
            for old in list(moves)[: _MOST_MOVES // 2]:
                del moves[old]
                self.known = max(self.known, old[0])
