"""
The events that a client has missed: those of this server's log, and those that came from another server's.

A client that moves is in the logs of two servers for a moment.  The log of the server that it left comes
with it, as :class:`Carried`, and :func:`missed` makes one row of both: an event in both is known again by its
mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IReactorTime

from txrealtime.engineio import packet as engineio
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.eventlog import Entry, EventLog
from txrealtime.socketio.tickets import Ticket

__all__ = ["Carried", "Early", "carry", "missed", "numberOf"]

_LATEST: Final = 10.0
"""Seconds after which an event that is in another server's log has arrived from the bus."""

_MOST_EARLY: Final = 1000
"""Events of one client that may still arrive from the bus: the last of another server's log."""


class Carried(NamedTuple):
    """
    Events from the logs of other servers.

    :ivar events: the offset, the mark and the messages of each event, in order.
    """

    events: list[Any]

    def after(self, offset: str | None) -> list[Any]:
        """Return the events that come after a client's last one; all, if that is of another log."""
        epoch, _, number = (offset or "").rpartition("-")
        epoch = epoch.partition(".")[0]
        if not (number.isascii() and number.isdecimal()):
            return self.events
        first = 0
        for index, (its, _, _) in enumerate(self.events):
            own, _, count = its.rpartition("-")
            if own == epoch and int(count) <= int(number):
                first = index + 1
        return self.events[first:]


class Early:
    """
    The clients that have got an event from another server's log, while it may still come from the bus.

    :param reactor: the clock.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        # The ids of the sockets by the event's mark.
        self._ids: dict[tuple[Any, ...], set[str]] = {}
        self._until = 0.0

    def __bool__(self) -> bool:
        return bool(self._ids)

    def note(self, carried: Carried, id: str) -> None:
        """Note that a client gets the events of another server's log."""
        ids = self._ids
        self._until = self._reactor.seconds() + _LATEST
        for _, mark, _ in carried.events[-_MOST_EARLY:]:
            if isinstance(mark, list):
                ids.setdefault(tuple(mark), set()).add(id)
        while len(ids) > 100 * _MOST_EARLY:
            del ids[next(iter(ids))]

    def take(self, mark: list[Any]) -> set[str]:
        """Return the clients that have got an event which comes from the bus now."""
        if self._reactor.seconds() > self._until:
            self._ids.clear()
        return self._ids.pop(tuple(mark), set())


def numberOf(log: EventLog, ticket: Ticket, claim: Claim) -> int | None:
    """
    Return the number of the last event that a client has handled.

    A client that has had no event since it got its pid sends no offset, or one of an earlier server:
    JavaScript clients never forget their last.
    """
    if not claim.isSound:
        return None
    number = None if claim.offset is None else log.numberOf(claim.offset)
    if number is None:
        return ticket.start
    return None if number > log.top else max(number, ticket.start)


def missed(log: EventLog, ticket: Ticket, claim: Claim | None) -> list[tuple[int, Entry]] | str:
    """
    List the events that a client has missed.

    :param claim: ``None`` if the client's last event is not known.
    :return: the reason, if they are not all in the log.
    """
    if ticket.carried is not None:
        _merge(log, ticket, ticket.carried, claim)
    number = ticket.start if claim is None else numberOf(log, ticket, claim)
    assert number is not None
    after = max(number, ticket.floor)
    if after < log.hole:
        return "hole"
    if after < max(log.crowded, ticket.known):
        return "dropped"
    if after < log.dropped:
        return "expired"
    return _since(log, ticket, after)


def _merge(log: EventLog, ticket: Ticket, carried: Carried, claim: Claim | None) -> None:
    """Append the events of another server's log to this one, and behind them those of this one."""
    ticket.carried = None
    if _isCut(log, ticket):
        return  # the next look at the log finds that it does not reach back
    own = _since(log, ticket, ticket.start)
    events = [
        (mark, messages) for _, mark, messages in carried.after(None if claim is None else claim.offset)
    ]
    events += [(entry.mark, log.plain(number, entry)) for number, entry in _unseen(log, carried.events, own)]
    start = log.top
    for mark, messages in events:
        # With its mark, a third server knows the event again.
        packets = [engineio.message(message) for message in messages]
        log.append((ticket.id,), frozenset(), packets, mark=mark)
    ticket.start = ticket.floor = ticket.known = start
    # The newest entry is the last one of these, if there are any.
    ticket.offset = log.offset()
    ticket.moves.clear()


def _isCut(log: EventLog, ticket: Ticket) -> bool:
    """Return true if the log does not have all since the ticket was made."""
    return ticket.start < max(log.dropped, log.hole)


def _since(log: EventLog, ticket: Ticket, after: int) -> list[tuple[int, Entry]]:
    """List the events after an entry for which the client was in the audience."""
    rooms = set(ticket.rooms)
    if ticket.socket is not None and not rooms:
        rooms = {ticket.id, *ticket.socket._joined}
    moves = list(ticket.moves.items())
    names = rooms.union([room for (at, room), _ in moves if at >= after])
    found = []
    for number, entry in log.after(after, names):
        while moves and moves[-1][0][0] >= number:
            (_, room), joined = moves.pop()
            (rooms.discard if joined else rooms.add)(room)
        if (entry.rooms is None or not rooms.isdisjoint(entry.rooms)) and rooms.isdisjoint(entry.excluded):
            found.append((number, entry))
    return found[::-1]


def carry(log: EventLog, ticket: Ticket, claim: Claim | None) -> dict[str, Any] | None:
    """Return the events of a parked ticket for another server; ``None`` if they are not all here."""
    before: list[Any] = []
    entries: list[tuple[int, Entry]] | str
    if ticket.carried is not None and claim is None:
        # The client's last event is not known: each event keeps the offset that the client may have.
        if _isCut(log, ticket):
            return None
        before = ticket.carried.events
        entries = _unseen(log, before, _since(log, ticket, ticket.start))
    else:
        entries = missed(log, ticket, claim)
    if isinstance(entries, str):
        return None
    events = [[f"{log.epoch}-{number}", entry.mark, log.plain(number, entry)] for number, entry in entries]
    return {"events": before + events}


def _unseen(
    log: EventLog, theirs: Sequence[Any], ours: Sequence[tuple[int, Entry]]
) -> list[tuple[int, Entry]]:
    """
    Leave out the events of this server's log that are in another server's, too.

    An event without a number is known again by its text, where the end of the other log is the beginning of
    this one.
    """
    seen = {tuple(mark) for _, mark, _ in theirs if isinstance(mark, list)}
    unnumbered = [list(messages) for _, mark, messages in theirs if mark is None]
    texts = [log.plain(number, entry) for number, entry in ours if entry.mark is None]
    overlap = next(
        (
            count
            for count in range(min(len(texts), len(unnumbered)), 0, -1)
            if unnumbered[-count:] == texts[:count]
        ),
        0,
    )
    left = []
    for number, entry in ours:
        if entry.mark is None:
            overlap -= 1
            if overlap >= 0:
                continue
        elif isinstance(entry.mark, list) and tuple(entry.mark) in seen:
            continue
        left.append((number, entry))
    return left
