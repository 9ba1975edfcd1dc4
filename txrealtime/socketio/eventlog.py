"""
The events of a namespace that clients may have missed: numbered, encoded, and kept for a while.

Each namespace has an :class:`EventLog`; all logs of a server share the bounds of one :class:`Store`.  An
entry is one emit.  Its offset on the wire is ``<epoch>-<number>``: the epoch names this process, the numbers
count the entries of the namespace.

The entries of one room are chained by their numbers, from the newest to the oldest.  So the events of one
client are found without a look at those of others.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogLevel

from txrealtime.engineio import packet as engineio
from txrealtime.errors import PacketError, ProtocolError
from txrealtime.logs import Logger
from txrealtime.socketio.packet import IParser, JSONParser, Packet, PacketType

__all__ = ["EventLog", "Rooms", "Store"]

_log = Logger()

_MESSAGE: Final = engineio.PacketType.MESSAGE

_OVERHEAD: Final = 700
"""Bytes of an entry beside its text: measured by benchmarks/recovery.py."""

_FORMS: Final = 3
"""A text is kept as text, as UTF-8 and as a WebSocket frame."""

_COMPLAINT: Final = 60.0
"""Seconds between two log lines about a full log."""

_EPOCH_BYTES: Final = 6

_MOST_ATTACHMENTS: Final = 1 << 20

Mark = list[Any] | bool | None
"""
The sender, topic and number of an event on the bus.  ``None`` if it came without a number, ``False`` if no
other server has it.
"""

Rooms = tuple[str, ...] | None
"""The rooms of an audience; ``None`` for everybody."""


class Entry:
    """
    One emit.

    :ivar rooms: the rooms of its audience.
    :ivar excluded: the rooms whose members are left out.
    :ivar messages: the event with its offset, as clients get it.
    :ivar time: the time of the emit.
    :ivar size: the bytes that the entry takes.
    :ivar previous: the number of the entry before it in each of its rooms.
    :ivar mark: the event's place on the bus.
    """

    __slots__ = ("excluded", "mark", "messages", "previous", "rooms", "size", "time")

    def __init__(
        self,
        rooms: Rooms,
        excluded: frozenset[str],
        messages: Sequence[engineio.Packet],
        time: float,
        size: int,
        previous: tuple[int, ...],
        mark: Mark,
    ) -> None:
        self.rooms = rooms
        self.excluded = excluded
        self.messages = messages
        self.time = time
        self.size = size
        self.previous = previous
        self.mark = mark


class Store:
    """
    The bounds of all logs of a server.

    :param reactor: the clock.
    :param parser: the parser of the clients.
    :param age: seconds for which an entry is kept.
    :param most: the most entries.
    :param mostBytes: the most bytes of entries.
    :ivar epoch: the name of this process in offsets.
    :ivar age: seconds for which an entry is kept.
    :ivar count: the number of entries.
    :ivar bytes: the bytes that they take.
    :ivar crowded: entries that went before their time because the store was full.
    :ivar place: returns how far this server has read a bus that keeps messages, such as ``1795884975163.0``.
        It is a part of the offsets then: ``<epoch>.<place>-<number>``.
    """

    def __init__(self, reactor: IReactorTime, parser: IParser, age: float, most: int, mostBytes: int) -> None:
        self.reactor = reactor
        self.parser = parser
        self.epoch = secrets.token_urlsafe(_EPOCH_BYTES)
        self.count = 0
        self.bytes = 0
        self.crowded = 0
        self.place: Callable[[], str] | None = None
        self.age = age
        self._most = most
        self._mostBytes = mostBytes
        # The logs in the order of their entries: the first has the oldest entry of all.
        self._order: deque[EventLog] = deque()
        self._timer: IDelayedCall | None = None
        self._complained = float("-inf")

    def added(self, log: EventLog, size: int, now: float) -> None:
        """Called when a log has a new entry: drop those that are too old, or too many."""
        self._order.append(log)
        self.count += 1
        self.bytes += size
        self._expire(now)
        while self.count > self._most or self.bytes > self._mostBytes:
            self.crowded += 1
            log = self._order[0]
            self._complain(now - log.oldest)
            self._dropOldest()
            log.crowded = log.dropped
        if self._timer is None:
            self._timer = self.reactor.callLater(self.age, self._tick)

    def _expire(self, now: float) -> None:
        limit = now - self.age
        while self._order and self._order[0].oldest <= limit:
            self._dropOldest()

    def _dropOldest(self) -> None:
        size = self._order.popleft().dropOldest()
        self.count -= 1
        self.bytes -= size

    def _tick(self) -> None:
        self._timer = None
        self._expire(self.reactor.seconds())
        if self._order:
            due = self._order[0].oldest + self.age - self.reactor.seconds()
            self._timer = self.reactor.callLater(max(due, 1.0), self._tick)

    def _complain(self, seconds: float) -> None:
        now = self.reactor.seconds()
        if now - self._complained >= _COMPLAINT:
            self._complained = now
            _log.limited(
                "",
                LogLevel.warn,
                "the log of events for clients that come back is full: it reaches back {seconds} s; raise "
                "recoveryBytes (--recovery-bytes) or recoveryEvents (--recovery-events), or send less",
                seconds=round(seconds, 1),
            )

    def clear(self) -> None:
        """Drop all entries."""
        while self._order:
            self._dropOldest()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class EventLog:
    """
    The log of one namespace.

    :ivar top: the number of the newest entry, 0 before the first.
    :ivar dropped: the number of the newest entry that has been dropped.
    :ivar crowded: the number of the newest entry that was dropped before its time, as the store was full.
    :ivar hole: the number of the newest entry that stands for events which never came.
    """

    __slots__ = (
        "_droppedTime",
        "_entries",
        "_last",
        "_splices",
        "_store",
        "crowded",
        "dropped",
        "hole",
        "top",
    )

    def __init__(self, store: Store) -> None:
        self._store = store
        self._splices = isinstance(store.parser, JSONParser)
        self.top = 0
        self.dropped = 0
        self.crowded = 0
        self.hole = 0
        self._droppedTime = float("-inf")
        self._entries: dict[int, Entry] = {}
        # The number of the newest entry of each room, under None of those for everybody.
        self._last: dict[str | None, int] = {}

    @property
    def oldest(self) -> float:
        """The time of the oldest entry."""
        return self._entries[self.dropped + 1].time

    # -- writing -------------------------------------------------------------------

    def append(
        self,
        rooms: Rooms,
        excluded: frozenset[str],
        messages: Sequence[engineio.Packet],
        packet: Packet | None = None,
        mark: Mark = False,
    ) -> Sequence[engineio.Packet]:
        """
        Add an event.

        :param messages: the event as clients get it that do not recover.
        :param packet: the same, if it is at hand.
        :param mark: its place on the bus.
        :return: the event with its offset.
        """
        number = self.top + 1
        marked = self.marked(messages, self._offset(number), packet)
        last = self._last
        if rooms is None:
            previous: tuple[int, ...] = (last.get(None, 0),)
            last[None] = number
        else:
            previous = tuple([last.get(room, 0) for room in rooms])
            for room in rooms:
                last[room] = number
        self._add(rooms, excluded, marked, previous, mark)
        return marked

    def mark(self, number: int, mark: Mark) -> None:
        """Called when an event has gone to other servers."""
        entry = self._entries.get(number)
        if entry is not None:
            entry.mark = mark

    def addHole(self) -> None:
        """Add an entry for events that other servers sent and that were lost on the way."""
        self._add((), frozenset(), (), (), False)
        self.hole = self.top

    def _add(
        self,
        rooms: Rooms,
        excluded: frozenset[str],
        messages: Sequence[engineio.Packet],
        previous: tuple[int, ...],
        mark: Mark,
    ) -> None:
        size = _OVERHEAD + _FORMS * sum([len(message.data) for message in messages])
        now = self._store.reactor.seconds()
        self.top += 1
        self._entries[self.top] = Entry(rooms, excluded, messages, now, size, previous, mark)
        self._store.added(self, size, now)

    def volatile(
        self, messages: Sequence[engineio.Packet], packet: Packet | None = None
    ) -> Sequence[engineio.Packet]:
        """
        Give a volatile event the current offset, if a client would take its last argument for one.

        A JavaScript client takes any text at the end of an event, even the name of one without arguments.
        """
        return self.marked(messages, self.offset(), packet) if self.endsInText(messages, packet) else messages

    def endsInText(self, messages: Sequence[engineio.Packet], packet: Packet | None) -> bool:
        """Return true if the last argument of an event, or its name if there is none, is a text."""
        if packet is not None:
            return isinstance(packet.data[-1], str)
        if self._splices:
            text = messages[0].data
            return isinstance(text, str) and text.endswith('"]')
        return isinstance(self._read(messages).data[-1], str)

    def marked(
        self, messages: Sequence[engineio.Packet], offset: str, packet: Packet | None
    ) -> list[engineio.Packet]:
        """Add an offset to an event, as its last argument."""
        text = messages[0].data
        if self._splices and isinstance(text, str) and text.endswith("]"):
            # The text has the name of the event at least, so a comma follows a value.
            return [engineio.Packet(_MESSAGE, f'{text[:-1]},"{offset}"]'), *messages[1:]]
        if packet is None:
            packet = self._read(messages)
        parts = self._store.parser.encode(packet._replace(data=[*packet.data, offset]))
        return [engineio.message(part) for part in parts]

    def isEvent(self, messages: Sequence[str | bytes]) -> bool:
        """Return true if messages of another server's log can be added to this one."""
        first = messages[0]
        if self._splices and len(messages) == 1 and isinstance(first, str) and first.startswith("2"):
            return first.endswith("]")
        decoder = self._store.parser.decoder(_MOST_ATTACHMENTS)
        try:
            *before, packet = [decoder.feed(message) for message in messages]
        except ProtocolError:
            return False
        if packet is None or any(before):
            return False
        return packet.type is PacketType.EVENT and packet.id is None

    def _read(self, messages: Sequence[engineio.Packet]) -> Packet:
        decoder = self._store.parser.decoder(_MOST_ATTACHMENTS)
        packet = None
        for message in messages:
            packet = decoder.feed(message.data)
        if packet is None or not packet.data:
            raise PacketError("an event of a peer server that is incomplete")
        return packet

    def dropOldest(self) -> int:
        """Drop the oldest entry, and return its size."""
        number = self.dropped + 1
        entry = self._entries.pop(number)
        self.dropped, self._droppedTime = number, entry.time
        for room in (None,) if entry.rooms is None else entry.rooms:
            if self._last.get(room) == number:
                del self._last[room]
        return entry.size

    # -- reading -------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """The beginning of the log's offsets."""
        return self._store.epoch

    def plain(self, number: int, entry: Entry) -> list[str | bytes]:
        """Return the messages of an entry without its offset."""
        first, *attachments = [message.data for message in entry.messages]
        if self._splices and isinstance(first, str) and first.endswith(f'-{number}"]'):
            # An offset has no quotes, so the last ones but one are where it begins.
            return [f"{first[: first.rindex(',', 0, -1)]}]", *attachments]
        packet = self._read(entry.messages)
        return list(self._store.parser.encode(packet._replace(data=packet.data[:-1])))

    def numberOf(self, offset: str) -> int | None:
        """Return the number in an offset, or ``None`` if this process has not made it."""
        epoch, _, digits = offset.rpartition("-")
        if epoch.partition(".")[0] != self._store.epoch or not (digits.isascii() and digits.isdecimal()):
            return None
        return int(digits)

    def offset(self) -> str:
        """The offset of the newest entry."""
        return self._offset(self.top)

    def _offset(self, number: int) -> str:
        place = self._store.place
        return f"{self._store.epoch}-{number}" if place is None else f"{self._store.epoch}.{place()}-{number}"

    def lastBefore(self, time: float) -> int:
        """Return the number of the newest entry that was added before a time, or 0 if that is not known."""
        if self._droppedTime >= time:
            return 0
        low, high = self.dropped, self.top
        while low < high:
            middle = (low + high + 1) // 2
            if self._entries[middle].time < time:
                low = middle
            else:
                high = middle - 1
        return low

    def after(self, number: int, rooms: Iterable[str]) -> list[tuple[int, Entry]]:
        """
        List the entries for everybody or for one of some rooms, the newest first.

        :param number: that of the newest entry that is not wanted.
        """
        found: dict[int, Entry] = {}
        for room in (None, *rooms):
            at = self._last.get(room, 0)
            while at > number and at > self.dropped:
                entry = found[at] = self._entries[at]
                at = entry.previous[0 if entry.rooms is None else entry.rooms.index(room)]
        return sorted(found.items(), reverse=True)

    def __len__(self) -> int:
        return len(self._entries)


def sizeOf(messages: Iterable[Any]) -> int:
    """Return the bytes of messages on the wire."""
    return sum([len(message.wire) for message in messages])
