"""
History: the events said to the rooms of a namespace, kept for those who come later.

A namespace that keeps history has one :class:`History`.  An entry is one emit to rooms that is not volatile,
expects no acks and is not for this server alone.  The entries of a room are in order, and the oldest goes
first, so a room's history never has a hole in the middle.

On several servers, a room's history is complete here from the first question about the room on: the server
follows the room, asks the others for what they have, and puts both together by the marks of the events.
After anything that may have cost messages, the next question asks the others again.  ``cluster/histories.py``
asks; nothing here knows of a bus.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall

from txrealtime.engineio import packet as engineio
from txrealtime.socketio.eventlog import Mark
from txrealtime.socketio.past import Key, Limit, PastEvent, PastRoom, Recalled, Said, Told, merged, ordered

if TYPE_CHECKING:
    from txrealtime.socketio.audience import Audience
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.sockets import Socket

__all__ = ["History"]

_LATEST: Final = 10.0
"""Seconds after which an event that another server has told of has arrived from the bus."""

_SWEEP: Final = 60.0
"""Seconds between two looks for rooms that nobody needs, at most."""

_MOST_TOLD: Final = 1_000_000
"""Bytes of events that a reply to another server has, roughly: the link's queue has 4 MB for all messages."""

_ONE_ROOM: Final = 1
_MOST_ATTACHMENTS: Final = 1 << 20


class History:
    """
    The history of one namespace.

    :param most: the most events of one room.
    :param age: seconds for which an event is kept.
    :param mostBytes: the most bytes of all events.
    :raises ValueError: if one of these is not above 0.
    :ivar bytes: the bytes that the events take.
    """

    def __init__(self, namespace: Namespace, most: int, age: float, mostBytes: int) -> None:
        for name, limit in (("events", most), ("seconds", age), ("bytes", mostBytes)):
            if not limit > 0:
                raise ValueError(f"{name} of keepHistory() is {limit!r}, expected a number above 0")
        self.most = most
        self.age = age
        self.mostBytes = mostBytes
        self.bytes = 0
        self._namespace = namespace
        self._rooms: dict[str, PastRoom] = {}
        self._known: dict[Key, Said] = {}
        # In the order in which this server got them.  A dict would pass over the places of dropped ones.
        self._order: OrderedDict[Said, None] = OrderedDict()
        self._arrivals = 0
        # The number of events after which messages may have been lost; see doubt().
        self._doubts = 0
        self._name = secrets.token_urlsafe(6)
        self._timer: IDelayedCall | None = None
        # The joins that wait for the other servers, with the rooms that are still wanted.
        self._joining: dict[Socket, list[set[str]]] = {}

    def __len__(self) -> int:
        return len(self._order)

    # -- writing -------------------------------------------------------------------

    def add(self, audience: Audience, messages: Sequence[engineio.Packet], mark: Mark = None) -> Said | None:
        """
        Keep an event that was emitted here or has come from the bus, unless it is for single sockets.

        :param mark: its place on the bus.
        :return: ``None`` if it is not kept.
        """
        find, recovery = self._namespace.rooms.find, self._namespace._recovery
        rooms = tuple(
            [
                room
                for room in dict.fromkeys(audience.rooms or ())
                if find(room) is None and (recovery is None or not recovery.absence.holds(room))
            ]
        )
        if not rooms:
            return None
        self._arrivals += 1
        key = tuple(mark) if isinstance(mark, list) else (self._name, "", self._arrivals)
        now = self._namespace.reactor.seconds()
        entry = Said(key, rooms, audience.excluded, messages, now, self._arrivals)
        for name in rooms:
            room = self._roomOf(name)
            room.entries.append(entry)
            self._hold(entry, room)
            if len(room.entries) > self.most:
                self._dropOldest(room)
        self._trim()
        return entry

    def mark(self, entry: Said, mark: Mark) -> None:
        """Called when an event has gone to other servers."""
        if isinstance(mark, list) and entry.held:
            del self._known[entry.key]
            entry.key = tuple(mark)
            self._known[entry.key] = entry

    def arrived(self, audience: Audience, messages: Sequence[engineio.Packet], mark: Mark) -> Audience:
        """
        Called when an event comes from the bus: keep it, unless another server has told of it.

        :return: the audience, without the sockets that have got the event.
        """
        entry = self._known.get(tuple(mark)) if isinstance(mark, list) else None
        if entry is None:
            self.add(audience, messages, mark)
            return audience
        given, entry.given = entry.given, None
        return audience.excluding(*given) if given else audience

    def _roomOf(self, name: str) -> PastRoom:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = PastRoom()
            self._startTimer()
        return room

    def _hold(self, entry: Said, room: PastRoom) -> None:
        if not entry.held:
            self._order[entry] = None
            self._known[entry.key] = entry
            self.bytes += entry.size
        entry.held.append(room)

    def _dropOldest(self, room: PastRoom) -> None:
        entry = room.entries.popleft()
        entry.held.remove(room)
        room.dropped = max(room.dropped, entry.time)
        if not entry.held:
            del self._order[entry]
            del self._known[entry.key]
            self.bytes -= entry.size

    def _trim(self) -> None:
        """Drop what is too old or too much: always the oldest of a room."""
        limit = self._namespace.reactor.seconds() - self.age
        order = self._order
        while order:
            entry = next(iter(order))
            if entry.time > limit and self.bytes <= self.mostBytes:
                break
            self._dropOldest(entry.held[0])

    # -- reading -------------------------------------------------------------------

    def past(self, audience: Audience, limit: Limit) -> Deferred[list[PastEvent]]:
        """List the events of an audience's rooms; see :meth:`Audience.history`."""
        assert audience.rooms is not None
        rooms, excluded, since = audience.rooms, audience.excluded, self._arrivals

        def read(_: None) -> list[PastEvent]:
            now = self._namespace.reactor.seconds()
            entries = self._select(rooms, limit, since, lambda entry: entry.excluded.isdisjoint(excluded))
            return [self._read(entry, now) for entry in entries]

        known = succeed(None) if audience._isLocal else self._whenKnown(rooms)
        return known.addCallback(read)

    def _select(
        self, rooms: Iterable[str], limit: Limit, since: int, wanted: Callable[[Said], bool]
    ) -> list[Said]:
        """
        Select the last events of some rooms, and all that have arrived since a moment.

        :param since: the number of arrivals at that moment.
        """
        found = [self._rooms[room].entries for room in rooms if room in self._rooms]
        now = self._namespace.reactor.seconds()
        age = min(limit.total_seconds(), self.age) if isinstance(limit, timedelta) else self.age
        said: Iterable[Said] = found[0] if len(found) == _ONE_ROOM else merged(found)
        entries = [
            entry for entry in said if (entry.time > now - age or entry.arrival > since) and wanted(entry)
        ]
        if not isinstance(limit, int):
            return entries
        surplus = sum([entry.arrival <= since for entry in entries]) - limit
        selected = []
        for entry in entries:
            if entry.arrival <= since and surplus > 0:
                surplus -= 1
            else:
                selected.append(entry)
        return selected

    def _read(self, entry: Said, now: float) -> PastEvent:
        decoder = self._namespace._home.parser.decoder(_MOST_ATTACHMENTS)
        packet = None
        for message in entry.messages:
            packet = decoder.feed(message.data)
        assert packet is not None
        return PastEvent(packet.data[0], packet.data[1:], now - entry.time)

    # -- joins ---------------------------------------------------------------------

    def join(self, socket: Socket, rooms: Sequence[str], limit: Limit) -> Deferred[None]:
        """
        Put a socket into rooms, and send it their last events.  If other servers are asked, wait for them.

        Both are done in one step, so no event is missed or doubled between the two.
        """
        wanted, since = set(rooms), self._arrivals
        known = self._whenKnown(rooms)
        joining = self._joining.setdefault(socket, [])
        joining.append(wanted)

        def join(_: None) -> None:
            joining.remove(wanted)
            if not joining:
                self._joining.pop(socket, None)
            if socket._leftBecause is None:
                self._rewind(socket, [room for room in rooms if room in wanted], limit, since)

        return known.addCallback(join)

    def left(self, socket: Socket, room: str) -> None:
        """Called when a socket is taken out of a room, which it may be about to join."""
        for wanted in self._joining.get(socket, ()):
            wanted.discard(room)

    def _rewind(self, socket: Socket, rooms: Sequence[str], limit: Limit, since: int) -> None:
        before = {socket.id, *socket._joined}
        new = [room for room in rooms if room not in before]
        socket.join(*rooms)
        mine = {socket.id, *socket._joined}
        entries = self._select(
            new,
            limit,
            since,
            # An event that was also said to a room of the socket's has reached the socket.
            lambda entry: entry.excluded.isdisjoint(mine) and before.isdisjoint(entry.rooms),
        )
        room = socket.session.settings.maxBuffered // 2
        packets: list[engineio.Packet] = []
        fitting: list[Said] = []
        for entry in reversed(entries):
            room -= sum([len(message.wire) for message in entry.messages])
            if room < 0:
                break
            fitting.append(entry)
        now = self._namespace.reactor.seconds()
        for entry in reversed(fitting):
            if entry.given is not None and entry.due > now:
                entry.given.add(socket.id)
            else:
                entry.given = None
            ticket = socket._ticket
            if ticket is None:
                packets += entry.messages
            else:
                # Otherwise a client that is cut now would come back without them.
                packets += ticket.recovery.log.append((socket.id,), frozenset(), entry.messages)
        if packets:
            socket._deliver(packets)
            self._tellHooks(socket, fitting[::-1])

    def _tellHooks(self, socket: Socket, entries: Sequence[Said]) -> None:
        told = self._namespace._hooks.eventSent
        if told is not None:
            for entry in entries:
                past = self._read(entry, 0.0)
                told((socket,), past.event, past.args)

    # -- other servers -----------------------------------------------------------------

    def doubt(self) -> None:
        """Called when messages may have been lost, or another server may have more."""
        self._doubts += 1
        for room in self._rooms.values():
            room.isComplete = False

    def _whenKnown(self, rooms: Sequence[str]) -> Deferred[None]:
        """Wait until the history of rooms is complete here, or cannot be."""
        if self._namespace._peers is None:
            return succeed(None)
        asked = [self._recall(name) for name in rooms if not self._isComplete(name)]
        if not asked:
            return succeed(None)
        return gatherResults(asked).addCallback(lambda _: None)

    def _isComplete(self, name: str) -> bool:
        room = self._rooms.get(name)
        # Nothing is said to a socket's own room that would be kept.
        return (room is not None and room.isComplete) or self._namespace.rooms.find(name) is not None

    def _recall(self, name: str) -> Deferred[None]:
        room = self._roomOf(name)
        waiting: Deferred[None] = Deferred()
        if room.waiting is not None:
            room.waiting.append(waiting)
            return waiting
        room.waiting = [waiting]
        peers, doubts = self._namespace._peers, self._doubts
        assert peers is not None
        if not room.isFollowed:
            room.isFollowed = True
            peers.roomChanged(self._namespace, name, True)

        def recalled(told: Told) -> None:
            if self._rooms.get(name) is room:
                self._learn(room, told)
                room.isComplete = told.isAll and doubts == self._doubts
            waits, room.waiting = room.waiting or [], None
            for each in waits:
                each.callback(None)

        peers.recall(self._namespace, name).addCallback(recalled)
        return waiting

    def _learn(self, room: PastRoom, told: Told) -> None:
        """Put the events that other servers have told of among those of a room."""
        now = self._namespace.reactor.seconds()
        own = list(room.entries)
        chains = [[self._recalled(event, room, now) for event in chain] for chain in told.chains]
        room.entries = deque(ordered([*chains, own]))
        if told.floor is not None:
            room.dropped = max(room.dropped, now - told.floor)
        # An older event of one server would stand before a hole in the events of another.
        while room.entries and (len(room.entries) > self.most or room.entries[0].time <= room.dropped):
            self._dropOldest(room)
        self._trim()

    def _recalled(self, event: Recalled, room: PastRoom, now: float) -> Said:
        entry = self._known.get(event.key)
        if entry is None:
            time = now - max(event.age, 0.0)
            entry = Said(event.key, event.rooms, event.excluded, event.messages, time, 0)
            entry.given, entry.due = set(), now + _LATEST
        if room not in entry.held:
            self._hold(entry, room)
        return entry

    def told(self, name: str) -> Told:
        """List the events of a room for another server: the newest that fit in some messages."""
        now = self._namespace.reactor.seconds()
        room = self._rooms.get(name)
        if room is None:
            return Told()
        dropped, size = room.dropped, 0
        events: list[Recalled] = []
        for entry in reversed(room.entries):
            size += sum([len(message.data) for message in entry.messages])
            if size > _MOST_TOLD:
                dropped = entry.time
                break
            messages = list(entry.messages)
            events.append(Recalled(entry.key, now - entry.time, messages, entry.rooms, entry.excluded))
        floor = now - dropped
        return Told([events[::-1]], floor if floor < self.age else None)

    # -- the end -------------------------------------------------------------------

    def _startTimer(self) -> None:
        if self._timer is None:
            self._timer = self._namespace.reactor.callLater(min(self.age, _SWEEP), self._sweep)

    def _sweep(self) -> None:
        """Drop events that are too old, and rooms that nobody needs."""
        self._timer = None
        limit = self._namespace.reactor.seconds() - self.age
        for name, room in list(self._rooms.items()):
            while room.entries and room.entries[0].time <= limit:
                self._dropOldest(room)
            isEmpty = not room.entries and room.dropped <= limit
            if isEmpty and room.waiting is None and name not in self._namespace.rooms:
                self._forget(name)
        if self._rooms:
            self._startTimer()

    def _forget(self, name: str) -> None:
        peers = self._namespace._peers
        if self._rooms.pop(name).isFollowed and peers is not None:
            peers.roomChanged(self._namespace, name, False)

    def clear(self) -> None:
        """Called when the server has stopped, or the namespace goes: forget all."""
        for name, room in list(self._rooms.items()):
            while room.entries:
                self._dropOldest(room)
            self._forget(name)
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
