"""
Recovery: a client that lost its connection comes back as the same socket, and gets what it missed.

A client that can recover has a :class:`Ticket`, known to it as its ``pid``.  When the connection ends for a
reason that allows it, the ticket is parked, with the rooms and the data of its socket::

    admitted ──cut──> parked ──CONNECT with the pid──> asked again ──yes──> admitted
                        └── recoveryWindow is over, or no room ──> forgotten

Meanwhile the events for its rooms go into the namespace's :class:`~txrealtime.socketio.eventlog.EventLog`.
Recovery is whole or refused: a client that is refused gets a fresh session, and never a part of what it
missed.

An event belongs to a client if the client was in its audience when it was emitted.  So a ticket remembers
each change of rooms with the number of the log's newest entry.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.eventlog import Entry, EventLog, Mark, sizeOf
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.parking import Parking
from txrealtime.socketio.tickets import Carried, Ticket, unseen

if TYPE_CHECKING:
    from txrealtime.socketio.audience import Audience
    from txrealtime.socketio.connection import Connection
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.sockets import Socket

__all__ = ["Recovery", "Return"]

_log = Logger()

_json: Final = JSONText()

_PID_BYTES: Final = 18

_LATEST: Final = 10.0
"""Seconds after which an event that is in another server's log has arrived from the bus."""

_MOST_EARLY: Final = 1000
"""Events of one client that may still arrive from the bus: the last of another server's log."""

_RECOVERABLE: Final = frozenset(
    [
        CloseReason.TRANSPORT_CLOSE,
        CloseReason.TRANSPORT_ERROR,
        CloseReason.PING_TIMEOUT,
        CloseReason.FORCED_CLOSE,
        CloseReason.SHUTTING_DOWN,
    ]
)
"""The reasons after which a client may come back."""


class Return(NamedTuple):
    """
    A client that comes back.

    :ivar missed: the events that it missed, in order.
    """

    ticket: Ticket
    missed: Sequence[engineio.Packet]


class Recovery:
    """
    The tickets and the log of one namespace.

    :ivar log: the events that clients may have missed.
    :ivar tickets: the tickets by pid, of clients that are here and of those that are away.
    """

    def __init__(self, namespace: Namespace, parking: Parking) -> None:
        self.log = EventLog(parking.store)
        self.tickets: dict[str, Ticket] = {}
        self.parking = parking
        self.namespace = namespace
        self._parked = 0
        # The number of parked tickets by room, for those whose sockets have left.
        self._absent: Counter[str] = Counter()
        # The ids of the sockets that have got an event from another server's log, by the event's mark.  The
        # event itself may come later from the bus.
        self._early: dict[tuple[Any, ...], set[str]] = {}
        self._earlyUntil = 0.0
        # The ids of the sockets of parked tickets.
        self._ids: set[str] = set()

    @property
    def isEmpty(self) -> bool:
        """True if no client may come back to the namespace."""
        return not self._parked

    # -- events --------------------------------------------------------------------

    def deliver(
        self,
        audience: Audience,
        messages: Sequence[engineio.Packet],
        volatile: bool = False,
        packet: Packet | None = None,
        mark: Mark = False,
    ) -> tuple[list[Socket], int]:
        """
        Send an event to the sockets on this server, and keep it for those whose clients are away.

        :param messages: the event, encoded.
        :param packet: the same, if it is at hand.
        :param mark: the event's place on the bus.
        :return: the sockets, and the event's number in the log, 0 if it is not kept.
        """
        if self._early and isinstance(mark, list):
            audience = self._withoutEarly(audience, mark)
        sockets = audience.here()
        marked, number = messages, 0
        if self.tickets:
            if volatile:
                if any(socket._ticket is not None for socket in sockets):
                    marked = self.log.volatile(messages, packet)
            elif self._concerns(audience.rooms, sockets):
                marked = self.log.append(audience.rooms, audience.excluded, messages, packet, mark)
                number = self.log.top
        for socket in sockets:
            wanted = messages if socket._ticket is None else marked
            if socket.connected:
                socket.session.sendPackets(wanted, volatile)
            else:
                socket._deliver(wanted, volatile)
        return sockets, number

    def _withoutEarly(self, audience: Audience, mark: list[Any]) -> Audience:
        """Leave out the clients that have got an event already, from the log of the server that they left."""
        if self.parking.reactor.seconds() > self._earlyUntil:
            self._early.clear()
        ids = self._early.pop(tuple(mark), None)
        return audience.excluding(*ids) if ids else audience

    def _noteEarly(self, events: list[Any], id: str) -> None:
        early = self._early
        self._earlyUntil = self.parking.reactor.seconds() + _LATEST
        for _, mark, _ in events[-_MOST_EARLY:]:
            if isinstance(mark, list):
                early.setdefault(tuple(mark), set()).add(id)
        while len(early) > 100 * _MOST_EARLY:
            del early[next(iter(early))]

    def _concerns(self, rooms: tuple[str, ...] | None, sockets: Sequence[Socket]) -> bool:
        """Return true if a client that is here or away may come back for an event."""
        if self._parked and (rooms is None or any(room in self._absent for room in rooms)):
            return True
        return any(socket._ticket is not None for socket in sockets)

    def emit(
        self, socket: Socket, messages: Sequence[engineio.Packet], volatile: bool, packet: Packet
    ) -> None:
        """Send an event to one client, or keep it until the client is back."""
        ticket, peers = socket._ticket, self.namespace._peers
        if ticket is not None and ticket.isElsewhere:
            if peers is not None:
                peers.emit(self.namespace.to(socket), packet, messages, volatile)
        elif volatile:
            socket._deliver(self.log.volatile(messages, packet), True)
        else:
            socket._deliver(self.log.append((socket.id,), frozenset(), messages, packet))
            if self.parking.keeper is not None and ticket is not None:
                self.parking.keeper.emitted(ticket, messages, packet)

    # -- tickets -------------------------------------------------------------------

    def offer(self, socket: Socket) -> None:
        """Give a new socket a ticket."""
        pid = self.namespace._home.idPrefix + secrets.token_urlsafe(_PID_BYTES)
        ticket = Ticket(self, pid, socket.id, socket.data, socket.handshake.address)
        ticket.socket = socket
        socket._ticket = self.tickets[pid] = ticket

    def admitted(self, ticket: Ticket) -> None:
        """Called when the client was admitted, for the first time or again."""
        ticket.admitted = self.parking.reactor.seconds()
        self.changed(ticket)

    def changed(self, ticket: Ticket) -> None:
        """Called when the client of a ticket was admitted, or has joined or left a room."""
        if self.parking.keeper is not None:
            self.parking.keeper.changed(ticket)

    def welcome(self, ticket: Ticket) -> dict[str, str]:
        """Return the fields of the packet that admits the client: its pid, and where its events begin."""
        return {"sid": ticket.id, "pid": ticket.pid, "offset": self.log.offset()}

    def forget(self, ticket: Ticket) -> None:
        """Forget a ticket: its client cannot come back."""
        if self.tickets.get(ticket.pid) is ticket:
            del self.tickets[ticket.pid]
            if self.parking.keeper is not None:
                self.parking.keeper.ended(ticket)
        self._unpark(ticket)
        if ticket.socket is not None and not ticket.isElsewhere:
            ticket.socket._ticket = None
        self.told(ticket)

    # -- a client goes ---------------------------------------------------------------

    def park(self, socket: Socket, reason: CloseReason) -> bool:
        """
        Called when an admitted socket has lost its connection: park its ticket, if the reason allows it.

        :return: true if the socket stays in its namespace.
        """
        ticket, session = socket._ticket, socket.session
        assert ticket is not None
        if reason not in _RECOVERABLE or not session.mayReturn or not self.parking.isOpen:
            return False
        if session.provenTime > ticket.admitted:
            # The client has answered a PING that was sent after all of these.
            ticket.floor = max(ticket.floor, self.log.lastBefore(session.provenTime))
        ticket.reason = reason
        self._park(ticket)
        return self.parking.settings.recoveryAway

    def parkAgain(self, socket: Socket) -> None:
        """Called when a client has gone while it was asked about its return."""
        ticket = socket._ticket
        if ticket is None or ticket.isParked:
            return
        if not self.parking.isOpen:
            self.end(ticket)
            return
        self._park(ticket)
        if not socket.away:
            self.namespace.rooms.remove(socket)
            socket._leftBecause = ticket.reason
        socket._cut()

    def _park(self, ticket: Ticket) -> None:
        socket = ticket.socket
        assert socket is not None
        ticket.data = socket.data
        ticket.isParked = True
        self._parked += 1
        self._ids.add(ticket.id)
        if self.parking.settings.recoveryAway:
            socket.away = True
            socket._cut()
        else:
            ticket.rooms = frozenset((socket.id, *socket._joined))
            self._hold(ticket.rooms, True)
        self.parking.add(ticket)

    def _unpark(self, ticket: Ticket) -> None:
        if ticket.isParked:
            ticket.isParked = False
            self._parked -= 1
            self._ids.discard(ticket.id)
            rooms, ticket.rooms = ticket.rooms, frozenset()
            self._hold(rooms, False)
            self.parking.remove(ticket)

    def _hold(self, rooms: frozenset[str], holds: bool) -> None:
        """Go on hearing of rooms from other servers, or stop."""
        absent, peers = self._absent, self.namespace._peers
        for room in rooms:
            absent[room] += 1 if holds else -1
            if not absent[room]:
                del absent[room]
            if peers is not None:
                peers.roomChanged(self.namespace, room, holds)

    def end(self, ticket: Ticket) -> None:
        """End a ticket: its client does not come back.  Tell the application, unless it knows of the cut."""
        namespace, socket = self.namespace, ticket.socket
        self.forget(ticket)
        if socket is not None and socket.away:
            socket._connection.gone(socket, ticket.reason)
        else:
            namespace._home.socketGone(namespace)

    def dismiss(self, audience: Audience) -> None:
        """Called when an audience is disconnected: those of it who are away cannot come back."""
        rooms = audience.rooms
        for ticket in list(self.tickets.values()) if self._absent else ():
            wanted = rooms is None or not ticket.rooms.isdisjoint(rooms)
            if ticket.rooms and wanted and ticket.rooms.isdisjoint(audience.excluded):
                self.end(ticket)

    # -- a client comes back -----------------------------------------------------------

    @staticmethod
    def told(ticket: Ticket) -> None:
        """Called when the application has been told that the client has left."""
        waiting, ticket.waiting = ticket.waiting, []
        for each in waiting:
            each.callback(None)

    async def claim(self, claim: Claim, handshake: Handshake) -> Return | None:
        """
        Bring a client back.

        :return: ``None`` if that is refused.
        """
        result, found = await self._claimed(claim, handshake.address)
        self.parking.results[result] += 1
        if found is None and result != "unknown":
            _log.limited(
                result,
                LogLevel.info,
                "{namespace}: a client came back and gets a fresh session: {why}",
                namespace=self.namespace.path,
                why=_WHY[result],
            )
        return found

    async def _found(self, claim: Claim, address: str) -> tuple[str, Ticket | None]:
        """Find the ticket of a client that comes back, and see that it is parked."""
        result = "ok"
        while True:
            ticket = self.tickets.get(claim.pid)
            if ticket is None:
                return "unknown", None
            if self.parking.settings.recoveryAddress and ticket.address != address:
                return "address", None
            number = self._numberOf(claim, ticket)
            if number is None:
                return "offset", None
            if not ticket.isParked:
                result = "takeover"
                assert ticket.socket is not None
                ticket.socket.session.abort(
                    CloseReason.TRANSPORT_CLOSE, "the client has come back by another connection"
                )
                if not ticket.isParked:
                    return "unknown", None
            elif ticket.isArriving or (ticket.socket is not None and ticket.socket._goodbye is not None):
                # Events from before the cut wait for their handlers.  The application hears that the client
                # has left before it hears that the client is back.  Or they come from another server.
                told: Deferred[None] = Deferred()
                ticket.waiting.append(told)
                await told
            else:
                return result, ticket

    async def _claimed(self, claim: Claim, address: str) -> tuple[str, Return | None]:
        result, ticket = await self._found(claim, address)
        peers = self.namespace._peers
        if (
            result == "unknown"
            and peers is not None
            and await peers.fetchClient(self.namespace, claim, address)
        ):
            result, ticket = await self._found(claim, address)
            result = "moved" if ticket is not None else result
        if ticket is None:
            return result, None
        entries = self._entries(ticket, claim)
        if isinstance(entries, str):
            self.end(ticket)
            return entries, None
        missed = [message for _, entry in entries for message in entry.messages]
        if sizeOf(missed) > self.parking.settings.maxBuffered:
            self.end(ticket)
            return "size", None
        return result, Return(ticket, missed)

    def _entries(self, ticket: Ticket, claim: Claim | None) -> list[tuple[int, Entry]] | str:
        """
        List the events that a client has missed.

        :param claim: ``None`` if the client's last event is not known.
        :return: the reason, if they are not all in the log.
        """
        if ticket.carried is not None:
            self._merge(ticket, claim)
        number = ticket.start if claim is None else self._numberOf(claim, ticket)
        assert number is not None
        after = max(number, ticket.floor)
        if after < self.log.hole:
            return "hole"
        if after < max(self.log.dropped, ticket.known):
            return "dropped"
        return self._missed(ticket, after)

    def _merge(self, ticket: Ticket, claim: Claim | None) -> None:
        """Append the events of another server's log to this one, and behind them those of this one."""
        carried, ticket.carried = ticket.carried, None
        assert carried is not None
        if ticket.start < max(self.log.dropped, self.log.hole):
            return  # the next look at the log finds that it does not reach back
        own = self._missed(ticket, ticket.start)
        events = carried.after(None if claim is None else claim.offset)
        plain = [messages for _, _, messages in events]
        plain += [self.log.plain(number, entry) for number, entry in unseen(self.log, carried.events, own)]
        self._noteEarly(carried.events, ticket.id)
        start = self.log.top
        for messages in plain:
            packets = [engineio.message(message) for message in messages]
            self.log.append((ticket.id,), frozenset(), packets)
        ticket.start = ticket.floor = ticket.known = start
        ticket.moves.clear()

    def _numberOf(self, claim: Claim, ticket: Ticket) -> int | None:
        """
        Return the number of the last event that a client has handled.

        A client that has had no event since it got its pid sends no offset, or one of an earlier server:
        JavaScript clients never forget their last.
        """
        if not claim.isSound:
            return None
        number = None if claim.offset is None else self.log.numberOf(claim.offset)
        if number is None:
            return ticket.start
        return None if number > self.log.top else max(number, ticket.start)

    def _missed(self, ticket: Ticket, after: int) -> list[tuple[int, Entry]]:
        """List the events after an entry for which the client was in the audience."""
        rooms = set(ticket.rooms)
        if ticket.socket is not None and not rooms:
            rooms = {ticket.id, *ticket.socket._joined}
        moves = list(ticket.moves.items())
        names = rooms.union([room for (at, room), _ in moves if at >= after])
        found = []
        for number, entry in self.log.after(after, names):
            while moves and moves[-1][0][0] >= number:
                (_, room), joined = moves.pop()
                (rooms.discard if joined else rooms.add)(room)
            if (entry.rooms is None or not rooms.isdisjoint(entry.rooms)) and rooms.isdisjoint(
                entry.excluded
            ):
                found.append((number, entry))
        return found[::-1]

    def restore(self, ticket: Ticket) -> None:
        """Put the socket of a client that comes back into its rooms, before the application is asked."""
        socket, rooms = ticket.socket, self.namespace.rooms
        assert socket is not None
        rooms.add(socket)
        for room in ticket.rooms:
            # Meanwhile a socket may have come whose id is the room's name: revision 4 has ids of sessions.
            if rooms.find(room) is None:
                rooms.join(socket, room)
        self._unpark(ticket)

    # -- from and to other servers -----------------------------------------------------

    def holds(self, id: str) -> bool:
        """Return true if a client is away whose socket has an id."""
        return id in self._ids

    async def findFor(self, claim: Claim, address: str) -> Ticket | None:
        """Find the ticket of a client that comes back to another server, and see that it is parked."""
        return (await self._found(claim, address))[1]

    def described(self, ticket: Ticket) -> dict[str, Any]:
        """Describe a parked ticket for another server, without ``data`` that cannot be sent."""
        socket = ticket.socket
        rooms = ticket.rooms or ({ticket.id} if socket is None else {ticket.id, *socket._joined})
        data = {}
        for key, value in ticket.data.items():
            with suppress(TypeError, ValueError):
                _json.encode({key: [value, b""]})
                data[key] = value
        return {"id": ticket.id, "rooms": sorted(rooms), "data": data, "address": ticket.address}

    def carry(self, ticket: Ticket, claim: Claim | None) -> dict[str, Any] | None:
        """Return the events of a parked ticket for another server; ``None`` if they are not all here."""
        before: list[Any] = []
        if ticket.carried is not None and claim is None:
            # The client's last event is not known: each event keeps the offset that the client may have.
            if ticket.start < max(self.log.dropped, self.log.hole):
                return None
            before = ticket.carried.events
            entries: Any = unseen(self.log, before, self._missed(ticket, ticket.start))
        else:
            entries = self._entries(ticket, claim)
        if isinstance(entries, str):
            return None
        epoch = self.log.epoch
        events = [
            [f"{epoch}-{number}", entry.mark, self.log.plain(number, entry)] for number, entry in entries
        ]
        return {"events": before + events}

    def adopt(self, pid: str, session: dict[str, Any]) -> Ticket:
        """Take a client from another server, whose events come next: see :meth:`arrived`."""
        ticket = Ticket(self, pid, session["id"], session["data"], session["address"])
        self.tickets[pid] = ticket
        ticket.isParked = ticket.isArriving = True
        ticket.rooms = frozenset(session["rooms"])
        self._parked += 1
        self._ids.add(ticket.id)
        self._hold(ticket.rooms, True)
        self.parking.add(ticket)
        return ticket

    def arrived(self, ticket: Ticket, carried: dict[str, Any] | None) -> None:
        """Called when the events of a client from another server are here, or cannot come."""
        if self.tickets.get(ticket.pid) is not ticket or not ticket.isArriving:
            return
        ticket.isArriving = False
        if carried is None:
            self.end(ticket)
        else:
            ticket.carried = Carried(carried["events"])
            self.told(ticket)

    def release(self, ticket: Ticket) -> None:
        """Let a client go to another server."""
        ticket.isElsewhere = True
        self.end(ticket)

    def revive(self, ticket: Ticket, connection: Connection, handshake: Handshake) -> Socket:
        """Give a client that has come back its socket, or a socket like the one on another server."""
        socket = ticket.socket
        if socket is None:
            socket = ticket.socket = connection.newSocket(self.namespace, handshake, ticket.id)
            socket.data, socket._ticket, socket.recovered = ticket.data, ticket, True
        else:
            socket._cameBack(connection, handshake)
        return socket


_WHY: Final = {
    "address": "its address is another one (recoveryAddress)",
    "offset": "its offset is none that this server has sent",
    "dropped": "the log does not reach back so far: raise recoveryBytes (--recovery-bytes) or recoveryEvents "
    "(--recovery-events)",
    "hole": "events of other servers were lost meanwhile (server.cluster.missed)",
    "size": "it missed more than maxBuffered (--max-buffered) allows",
}
"""The reasons of refusals, for the log."""
