"""
The entries of a history: events said to rooms, and their order.

:class:`~txrealtime.socketio.history.History` keeps them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import timedelta
from heapq import heapify, heappop, heappush, merge
from itertools import pairwise
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred

from txrealtime.engineio import packet as engineio

__all__ = [
    "Key",
    "Limit",
    "PastEvent",
    "PastRoom",
    "Recalled",
    "Said",
    "Told",
    "checkLimit",
    "merged",
    "ordered",
]

_OVERHEAD: Final = 700
"""Bytes of an entry beside its text, as in the log of recovery."""

_FORMS: Final = 3
"""A text is kept as text, as UTF-8 and as a WebSocket frame."""

Limit = int | timedelta | None
"""The last events, by their number or by their age; ``None`` for all."""

Key = tuple[Any, ...]
"""The sender, topic and number of an event on the bus, or an own name for one that was never there."""


class PastEvent(NamedTuple):
    """
    An event of a room's history.

    :ivar event: its name.
    :ivar args: its arguments.
    :ivar age: seconds since it was emitted.
    """

    event: str
    args: list[Any]
    age: float


class Told(NamedTuple):
    """
    The events of a room that other servers have told of.

    :ivar chains: the events of each, in its order.
    :ivar floor: the age of the newest event that one of them has dropped; ``None`` if none has.
    :ivar isAll: true if all servers have replied.
    """

    chains: Sequence[Sequence[Recalled]] = ()
    floor: float | None = None
    isAll: bool = False


class Recalled(NamedTuple):
    """
    An event that another server has told of.

    :ivar key: its name among all events.
    :ivar age: seconds since it was emitted.
    """

    key: Key
    age: float
    messages: list[engineio.Packet]
    rooms: tuple[str, ...]
    excluded: frozenset[str]


class Said:
    """
    One emit.

    :ivar rooms: the rooms that it was said to.
    :ivar excluded: the rooms whose members were left out.
    :ivar messages: the event as clients get it.
    :ivar arrival: its number among the events that this server saw happen; 0 if another server told of it.
    :ivar held: the rooms whose entries have it.
    :ivar given: the ids of the sockets that have got it before it has arrived from the bus; ``None`` if it
        has arrived, or will not any more.
    :ivar due: the time by which it has arrived.
    """

    __slots__ = ("arrival", "due", "excluded", "given", "held", "key", "messages", "rooms", "size", "time")

    def __init__(
        self,
        key: Key,
        rooms: tuple[str, ...],
        excluded: frozenset[str],
        messages: Sequence[engineio.Packet],
        time: float,
        arrival: int,
    ) -> None:
        self.key = key
        self.rooms = rooms
        self.excluded = excluded
        self.messages = messages
        self.time = time
        self.arrival = arrival
        self.size = _OVERHEAD + _FORMS * sum([len(message.data) for message in messages])
        self.held: list[PastRoom] = []
        self.given: set[str] | None = None
        self.due = 0.0


class PastRoom:
    """
    The history of one room.

    :ivar entries: the events, in order.
    :ivar dropped: the time of the newest event that was dropped.
    :ivar isFollowed: true while this server hears the room's events, with or without members here.
    :ivar isComplete: true if the entries are all that the servers have.
    :ivar waiting: those who wait for the other servers; ``None`` if none is asked.
    """

    __slots__ = ("dropped", "entries", "isComplete", "isFollowed", "waiting")

    def __init__(self) -> None:
        self.entries: deque[Said] = deque()
        self.dropped = float("-inf")
        self.isFollowed = self.isComplete = False
        self.waiting: list[Deferred[None]] | None = None


def checkLimit(limit: object) -> None:
    """
    Check a number or an age of events.

    :raises TypeError: if it is neither.
    :raises ValueError: if it is below 0.
    """
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int | timedelta):
        raise TypeError(
            f"the last events are given by their number, such as 20, or their age, such as "
            f"timedelta(minutes=5), not by {limit!r}"
        )
    if (limit.total_seconds() if isinstance(limit, timedelta) else limit) < 0:
        raise ValueError(f"the number or age of the last events is {limit!r}, which is below 0")


def merged(rooms: Sequence[Iterable[Said]]) -> Iterable[Said]:
    return dict.fromkeys(merge(*rooms, key=lambda entry: entry.time))


def ordered(chains: Sequence[Sequence[Said]]) -> list[Said]:
    """
    Put the events of several servers in order: by time, and those of one sender as they left.

    The times of different servers differ by the delay of a message.  Each server, however, has heard the
    events of one sender in their order, and the sender has numbered them on each topic.

    :param chains: the events of each server in its order.
    """
    entries = list(dict.fromkeys(entry for chain in chains for entry in chain))
    entries.sort(key=lambda entry: entry.time)
    senders: dict[Any, list[Said]] = {}
    for entry in entries:
        senders.setdefault(entry.key[0], []).append(entry)
    rows = {sender: iter(_inOrder(said, chains)) for sender, said in senders.items()}
    result = [next(rows[entry.key[0]]) for entry in entries]
    latest = float("-inf")
    for entry in result:
        latest = entry.time = max(entry.time, latest)
    return result


def _inOrder(entries: Sequence[Said], chains: Sequence[Sequence[Said]]) -> list[Said]:
    """Put the events of one sender in an order that agrees with all chains and with the numbers."""
    place = {entry: at for at, entry in enumerate(entries)}
    topics: dict[Any, list[Said]] = {}
    for entry in entries:
        if isinstance(entry.key[-1], int):
            topics.setdefault(entry.key[1], []).append(entry)
    numbered = [sorted(topic, key=lambda entry: entry.key[-1]) for topic in topics.values()]
    after: dict[Said, list[Said]] = {entry: [] for entry in entries}
    before = Counter[Said]()
    for chain in (*chains, *numbered):
        own = [entry for entry in chain if entry in place]
        for earlier, later in pairwise(own):
            after[earlier].append(later)
            before[later] += 1
    free = [place[entry] for entry in entries if not before[entry]]
    heapify(free)
    result: dict[Said, None] = {}
    while free:
        entry = entries[heappop(free)]
        result[entry] = None
        for later in after[entry]:
            before[later] -= 1
            if not before[later]:
                heappush(free, place[later])
    # Only nonsense makes a circle.
    return [*result, *(entry for entry in entries if entry not in result)]
