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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogLevel

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim, asks, isKnownToRecover
from txrealtime.socketio.eventlog import EventLog, Store, sizeOf
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.packet import IParser, Packet
from txrealtime.socketio.settings import Settings

if TYPE_CHECKING:
    from txrealtime.socketio.audience import Audience
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.sockets import Socket

__all__ = ["Parking", "Recovery", "Return", "Ticket"]

_log = Logger()

_PID_BYTES: Final = 18

_MOST_MOVES: Final = 256
"""Changes of rooms that one ticket remembers."""

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


class Ticket:
    """
    The right of one client to come back to one namespace.

    :ivar pid: the client's private id, a bearer secret.
    :ivar socket: the client's socket.
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
    :ivar waiting: fire when the application has been told of the cut.
    """

    __slots__ = (
        "address",
        "admitted",
        "deadline",
        "floor",
        "isParked",
        "known",
        "moves",
        "pid",
        "reason",
        "recovery",
        "rooms",
        "socket",
        "start",
        "waiting",
    )

    def __init__(self, recovery: Recovery, pid: str, socket: Socket, start: int) -> None:
        self.recovery = recovery
        self.pid = pid
        self.socket = socket
        self.address = socket.handshake.address
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
        moves, key = self.moves, (self.recovery.log.top, room)
        if key in moves:
            del moves[key]  # there and back again, without an event between
            return
        moves[key] = joined
        if len(moves) > _MOST_MOVES:
            for old in list(moves)[: _MOST_MOVES // 2]:
                del moves[old]
                self.known = max(self.known, old[0])


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
        self._namespace = namespace
        self._parked = 0
        # The number of parked tickets by room, for those whose sockets have left.
        self._absent: Counter[str] = Counter()

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
    ) -> list[Socket]:
        """
        Send an event to the sockets on this server, and keep it for those whose clients are away.

        :param messages: the event, encoded.
        :param packet: the same, if it is at hand.
        :return: the sockets.
        """
        sockets = audience.here()
        marked = messages
        if self.tickets:
            if volatile:
                if any(socket._ticket is not None for socket in sockets):
                    marked = self.log.volatile(messages, packet)
            elif self._concerns(audience.rooms, sockets):
                marked = self.log.append(audience.rooms, audience.excluded, messages, packet)
        for socket in sockets:
            wanted = messages if socket._ticket is None else marked
            if socket.connected:
                socket.session.sendPackets(wanted, volatile)
            else:
                socket._deliver(wanted, volatile)
        return sockets

    def _concerns(self, rooms: tuple[str, ...] | None, sockets: Sequence[Socket]) -> bool:
        """Return true if a client that is here or away may come back for an event."""
        if self._parked and (rooms is None or any(room in self._absent for room in rooms)):
            return True
        return any(socket._ticket is not None for socket in sockets)

    def emit(
        self, socket: Socket, messages: Sequence[engineio.Packet], volatile: bool, packet: Packet
    ) -> None:
        """Send an event to one client, or keep it until the client is back."""
        if volatile:
            socket._deliver(self.log.volatile(messages, packet), True)
        else:
            socket._deliver(self.log.append((socket.id,), frozenset(), messages, packet))

    # -- tickets -------------------------------------------------------------------

    def offer(self, socket: Socket) -> None:
        """Give a new socket a ticket."""
        pid = self._namespace._home.idPrefix + secrets.token_urlsafe(_PID_BYTES)
        socket._ticket = self.tickets[pid] = Ticket(self, pid, socket, self.log.top)

    def admitted(self, ticket: Ticket) -> None:
        """Called when the client was admitted, for the first time or again."""
        ticket.admitted = self.parking.reactor.seconds()

    def welcome(self, ticket: Ticket) -> dict[str, str]:
        """Return the fields of the packet that admits the client: its pid, and where its events begin."""
        return {"sid": ticket.socket.id, "pid": ticket.pid, "offset": self.log.offset()}

    def forget(self, ticket: Ticket) -> None:
        """Forget a ticket: its client cannot come back."""
        if self.tickets.get(ticket.pid) is ticket:
            del self.tickets[ticket.pid]
        self._unpark(ticket)
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
            self._namespace.rooms.remove(socket)
            socket._leftBecause = ticket.reason
        socket._cut()

    def _park(self, ticket: Ticket) -> None:
        socket = ticket.socket
        ticket.isParked = True
        self._parked += 1
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
            rooms, ticket.rooms = ticket.rooms, frozenset()
            self._hold(rooms, False)
            self.parking.remove(ticket)

    def _hold(self, rooms: frozenset[str], holds: bool) -> None:
        """Go on hearing of rooms from other servers, or stop."""
        absent, peers = self._absent, self._namespace._peers
        for room in rooms:
            absent[room] += 1 if holds else -1
            if not absent[room]:
                del absent[room]
            if peers is not None:
                peers.roomChanged(self._namespace, room, holds)

    def end(self, ticket: Ticket) -> None:
        """End a ticket: its client does not come back.  Tell the application, unless it knows of the cut."""
        namespace, socket = self._namespace, ticket.socket
        self.forget(ticket)
        if socket.away:
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
        result, found = await self._claimed(claim, handshake)
        self.parking.results[result] += 1
        if found is None and result != "unknown":
            _log.limited(
                result,
                LogLevel.info,
                "{namespace}: a client came back and gets a fresh session: {why}",
                namespace=self._namespace.path,
                why=_WHY[result],
            )
        return found

    async def _claimed(self, claim: Claim, handshake: Handshake) -> tuple[str, Return | None]:
        result = "ok"
        while True:
            ticket = self.tickets.get(claim.pid)
            if ticket is None:
                return "unknown", None
            if self.parking.settings.recoveryAddress and ticket.address != handshake.address:
                return "address", None
            number = self._numberOf(claim, ticket)
            if number is None:
                return "offset", None
            if not ticket.isParked:
                result = "takeover"
                ticket.socket.session.abort(
                    CloseReason.TRANSPORT_CLOSE, "the client has come back by another connection"
                )
                if not ticket.isParked:
                    return "unknown", None
            elif ticket.socket._goodbye is None:
                break
            else:
                # Events from before the cut wait for their handlers.  The application hears that the client
                # has left before it hears that the client is back.
                told: Deferred[None] = Deferred()
                ticket.waiting.append(told)
                await told
        after = max(number, ticket.floor)
        if after < self.log.hole:
            self.end(ticket)
            return "hole", None
        if after < max(self.log.dropped, ticket.known):
            self.end(ticket)
            return "dropped", None
        missed = self._missed(ticket, after)
        if sizeOf(missed) > self.parking.settings.maxBuffered:
            self.end(ticket)
            return "size", None
        return result, Return(ticket, missed)

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

    def _missed(self, ticket: Ticket, after: int) -> list[engineio.Packet]:
        """List the events after an entry for which the client was in the audience."""
        socket = ticket.socket
        rooms = set(ticket.rooms) or {socket.id, *socket._joined}
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
                found.append(entry.messages)
        return [message for messages in reversed(found) for message in messages]

    def restore(self, ticket: Ticket) -> None:
        """Put the socket of a client that comes back into its rooms, before the application is asked."""
        socket, rooms = ticket.socket, self._namespace.rooms
        rooms.add(socket)
        for room in ticket.rooms:
            # Meanwhile a socket may have come whose id is the room's name: revision 4 has ids of sessions.
            if rooms.find(room) is None:
                rooms.join(socket, room)
        self._unpark(ticket)


_WHY: Final = {
    "address": "its address is another one (recoveryAddress)",
    "offset": "its offset is none that this server has sent",
    "dropped": "the log does not reach back so far: raise recoveryBytes (--recovery-bytes) or recoveryEvents "
    "(--recovery-events)",
    "hole": "events of other servers were lost meanwhile (server.cluster.missed)",
    "size": "it missed more than maxBuffered (--max-buffered) allows",
}
"""The reasons of refusals, for the log."""


class Parking:
    """
    The tickets of a server whose clients are away, and their bounds.

    :ivar store: the bounds of the logs.
    :ivar results: the number of clients that came back, by result.
    :ivar isOpen: false once the server does not expect clients back.
    """

    def __init__(
        self, settings: Settings, reactor: IReactorTime, parser: IParser, results: Counter[str]
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.results = results
        self.isOpen = True
        # An event is wanted for as long as a client may be away, and before, for as long as the server may
        # not have noticed that the connection is dead.
        unnoticed = settings.pingInterval + 2 * settings.pingTimeout
        self.store = Store(
            reactor,
            parser,
            settings.recoveryWindow + unnoticed,
            settings.recoveryEvents,
            settings.recoveryBytes,
        )
        # Both in the order of parking, which is that of the deadlines.
        self._parked: dict[Ticket, None] = {}
        self._byAddress: dict[str, dict[Ticket, None]] = {}
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._parked)

    def isOffered(self, handshake: Handshake) -> bool:
        """Return true if a client is offered recovery."""
        wanted: str | Callable[[Handshake], bool] = self.settings.recovery
        if handshake.protocol != 4:
            return False
        if callable(wanted):
            return bool(wanted(handshake))
        return wanted == "all" or asks(handshake) or isKnownToRecover(handshake)

    def add(self, ticket: Ticket) -> None:
        """Park a ticket; if there are too many, end the oldest."""
        ticket.deadline = self.reactor.seconds() + self.settings.recoveryWindow
        self._parked[ticket] = None
        own = self._byAddress.setdefault(ticket.address, {})
        own[ticket] = None
        if len(self._parked) > self.settings.recoverySessions:
            # An address with more than its share makes room for itself, not at the cost of others.
            share = max(1, self.settings.recoverySessions / len(self._byAddress))
            oldest = next(iter(own if len(own) > share else self._parked))
            _log.limited(
                "",
                LogLevel.warn,
                "more than {most} clients are away: the oldest of them cannot come back; raise "
                "recoverySessions (--recovery-sessions)",
                most=self.settings.recoverySessions,
            )
            oldest.recovery.end(oldest)
        if self._timer is None:
            self._timer = self.reactor.callLater(self.settings.recoveryWindow, self._tick)

    def remove(self, ticket: Ticket) -> None:
        """Called when a ticket is not parked any longer."""
        del self._parked[ticket]
        own = self._byAddress[ticket.address]
        del own[ticket]
        if not own:
            del self._byAddress[ticket.address]

    def _tick(self) -> None:
        self._timer = None
        now = self.reactor.seconds()
        while self._parked and (oldest := next(iter(self._parked))).deadline <= now:
            self.results["expired"] += 1
            oldest.recovery.end(oldest)
        if self._parked:
            due = next(iter(self._parked)).deadline - now
            self._timer = self.reactor.callLater(max(due, 0.0), self._tick)

    def close(self) -> None:
        """Called when the server has stopped: nobody comes back."""
        self.isOpen = False
        for ticket in list(self._parked):
            ticket.recovery.end(ticket)
        self.store.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def reopen(self) -> None:
        """Called when the server starts again."""
        self.isOpen = True
