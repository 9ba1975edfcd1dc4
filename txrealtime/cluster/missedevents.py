"""
The choice of the events that a client has missed whose server has died, among those in the stream.

The offset of the client's last event has two halves: a place in the stream, up to which its server had read,
and the number of its server's own newest event.  So the client has all events of other servers up to the
place, and those of its own server up to the number, wherever in the stream they are.
"""

from __future__ import annotations

from typing import Any, Final

from txrealtime.cluster.bus.places import Id
from txrealtime.cluster.rereading import Found
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.tickets import Ticket

__all__ = ["Missed", "placeOf", "startOf"]


class Missed:
    """
    The events that one client has missed.

    :param uid: the uid of this server.
    :param session: the client's session, with its ``server``, whose offset it has.
    :param top: the number of the newest event in this server's log when the client came here.
    """

    def __init__(self, uid: str, ticket: Ticket, claim: Claim, session: dict[str, Any], top: int) -> None:
        start = startOf(session, claim)
        assert start is not None
        self.ticket = ticket
        self.path = ticket.recovery.namespace.path
        self.rooms = ticket.rooms
        self.place, number = start
        self._uid = uid
        self._server: str = session["server"]
        self._had = {**ticket.had, self._server: number}
        self._top = top
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._found: list[tuple[Id, str, list[Any]]] = []
        self._left = self.ticket.recovery.parking.settings.maxBuffered

    def found(self, event: Found) -> None:
        """Called with each event for the client behind its place in the stream."""
        _, _, excluded = event.emit.target
        if not self._isMissed(event) or not self.rooms.isdisjoint(excluded):
            return
        messages = [message.data for message in event.emit.messages or ()]
        self._left -= sum(len(message) for message in messages)
        if self.isBounded:
            self._found.append((event.id, event.sender, [_NO_OFFSET, event.mark, messages]))
        else:
            self._found.clear()

    def upTo(self, place: Id) -> list[Any]:
        """
        Return the events, as :class:`~txrealtime.socketio.missed.Carried` has them.

        :param place: the place up to which this server has read.  The later events of other servers come to
            its log, and the next offsets say that the client has those up to the place.
        """
        return [event for id, sender, event in self._found if id <= place or sender == self._uid]

    @property
    def isBounded(self) -> bool:
        """False if more has come than a client may have missed."""
        return self._left >= 0

    def _isMissed(self, event: Found) -> bool:
        if event.emit.logged <= self._had.get(event.sender, -1):
            return False
        if event.sender == self._server:
            return True
        name, comma, _ = event.topic.partition(",")
        _, isOwn, owner = name.rpartition("@")
        if isOwn and not comma and owner not in (self._server, event.sender):
            return False  # that server has passed it on, so it comes once more
        # Later ones of this server's own are in its log.
        return event.sender != self._uid or event.emit.logged <= self._top


_NO_OFFSET: Final = "stream-0"
"""The offset of an event that is in no log: no client has it as its last."""


def startOf(session: dict[str, Any], claim: Claim) -> tuple[Id, int] | None:
    """
    Return the place and the number of a client's last event.

    JavaScript clients keep an offset that is older than their session, and send it until they have an event.

    :return: ``None`` if the offset is none, or if the events that the client got when it came to its server
        have not all arrived: their offsets do not tell their places in the stream.
    """
    start = placeOf(session["offset"])
    known = start if claim.offset is None else placeOf(claim.offset)
    if start is None or known is None:
        return None
    since = session.get("since", start[2])
    if claim.offset is None or known[0] != start[0] or known[2] < since:
        return start[1:] if since == start[2] else None
    return None if known[2] < start[2] else max(known, start)[1:]


def placeOf(offset: str) -> tuple[str, Id, int] | None:
    """Read an offset: the epoch of a log, the place in the stream, and the number in the log."""
    head, _, number = offset.rpartition("-")
    epoch, _, place = head.partition(".")
    milliseconds, _, rest = place.partition(".")
    if not all(part.isascii() and part.isdecimal() for part in (number, milliseconds, rest)):
        return None
    return epoch, (int(milliseconds), int(rest)), int(number)
