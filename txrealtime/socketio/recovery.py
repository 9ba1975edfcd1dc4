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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.socketio.absence import Absence
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.eventlog import EventLog, Mark, sizeOf
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.missed import Carried, Early, missed, numberOf
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.parking import Parking
from txrealtime.socketio.refusals import REASONS, logRefusal
from txrealtime.socketio.tickets import Ticket

if TYPE_CHECKING:
    from txrealtime.socketio.audience import Audience
    from txrealtime.socketio.connection import Connection
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.sockets import Socket

__all__ = ["RECOVERABLE", "Recovery", "Return"]

_json: Final = JSONText()

_PID_BYTES: Final = 18

RECOVERABLE: Final = frozenset(
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
    :ivar absence: the clients that are away.
    """

    def __init__(self, namespace: Namespace, parking: Parking) -> None:
        self.log = EventLog(parking.store)
        self.tickets: dict[str, Ticket] = {}
        self.parking = parking
        self.namespace = namespace
        self.absence = Absence(namespace, parking)
        self._early = Early(parking.reactor)
        # The sockets without a ticket.  While there is none, an emit need not look at each ticket, which took
        # 8 % of the cost of a receiver.
        self._plain: set[Socket] = set()

    @property
    def isEmpty(self) -> bool:
        """True if no client may come back to the namespace."""
        return not self.absence.count

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
        if self._early and isinstance(mark, list) and (early := self._early.take(mark)):
            audience = audience.excluding(*early)
        sockets = audience.here()
        marked, number = messages, 0
        if self.tickets:
            if volatile:
                if any(socket._ticket is not None for socket in sockets):
                    marked = self.log.volatile(messages, packet)
            elif self._concerns(audience.rooms, sockets):
                marked = self.log.append(audience.rooms, audience.excluded, messages, packet, mark)
                number = self.log.top
        if marked is messages or not self._plain:
            return audience._deliver(marked, volatile, sockets), number
        for socket in sockets:
            wanted = messages if socket._ticket is None else marked
            if socket.connected:
                socket.session.sendPackets(wanted, volatile)
            else:
                socket._deliver(wanted, volatile)
        return sockets, number

    def _concerns(self, rooms: tuple[str, ...] | None, sockets: Sequence[Socket]) -> bool:
        """Return true if a client that is here or away may come back for an event."""
        return self.absence.hears(rooms) or any(socket._ticket is not None for socket in sockets)

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

    def inOrder(self, send: Callable[[], object]) -> None:
        """Send something to clients past the log, behind the events that were emitted before."""
        send()

    def leaving(self, socket: Socket) -> None:
        """Called before the server disconnects a client."""

    # -- tickets -------------------------------------------------------------------

    def offer(self, socket: Socket) -> None:
        """Give a new socket a ticket."""
        pid = self.namespace._home.idPrefix + secrets.token_urlsafe(_PID_BYTES)
        ticket = Ticket(self, pid, socket.id, socket.data, socket.handshake.address)
        ticket.socket = socket
        socket._ticket = self.tickets[pid] = ticket
        if self.parking.keeper is not None:
            self.parking.keeper.offered(ticket)

    def admitted(self, ticket: Ticket) -> None:
        """Called when the client was admitted, for the first time or again."""
        ticket.admitted = self.parking.reactor.seconds()
        if self.parking.keeper is not None:
            self.parking.keeper.changed(ticket)

    def changed(self, ticket: Ticket) -> None:
        """Called when the client of a ticket has joined or left a room."""
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
        self.absence.unpark(ticket)
        if ticket.socket is not None and not ticket.isElsewhere:
            self._setPlain(ticket.socket)
        self.told(ticket)

    def came(self, socket: Socket) -> None:
        """Called when a socket joins the namespace, before the application is asked."""
        if socket._ticket is None:
            self._plain.add(socket)

    def left(self, socket: Socket) -> None:
        """Called when a socket has left the namespace."""
        self._plain.discard(socket)

    def _setPlain(self, socket: Socket) -> None:
        socket._ticket = None
        if self.namespace.rooms.find(socket.id) is socket:
            self._plain.add(socket)

    # -- a client goes ---------------------------------------------------------------

    def park(self, socket: Socket, reason: CloseReason) -> bool:
        """
        Called when an admitted socket has lost its connection: park its ticket, if the reason allows it.

        :return: true if the socket stays in its namespace.
        """
        ticket, session = socket._ticket, socket.session
        assert ticket is not None
        if reason not in RECOVERABLE or not session.mayReturn or not self.parking.isOpen:
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
        if self.parking.settings.recoveryAway:
            socket.away = True
            self.absence.park(ticket)
            socket._cut()  # last: the application's errbacks may end the ticket
        else:
            ticket.rooms = frozenset((socket.id, *socket._joined))
            self.absence.park(ticket)

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
        for ticket in list(self.tickets.values()) if self.absence.rooms else ():
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
            logRefusal(self.namespace.path, REASONS[result])
        return found

    async def _found(self, claim: Claim, address: str) -> tuple[str, Ticket | None]:
        """Find the ticket of a client that comes back, and see that it is parked."""
        result = "ok"
        checked, keeper = None, self.parking.keeper
        while True:
            ticket = self.tickets.get(claim.pid)
            if ticket is None:
                return "unknown", None
            if keeper is not None and checked is not ticket:
                checked = ticket
                await keeper.check(ticket)
                continue
            if self.parking.settings.recoveryAddress and ticket.address != address:
                return "address", None
            if numberOf(self.log, ticket, claim) is None:
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
        if ticket.carried is not None:
            self._early.note(ticket.carried, ticket.id)
        entries = missed(self.log, ticket, claim)
        if isinstance(entries, str):
            self.end(ticket)
            return entries, None
        messages = [message for _, entry in entries for message in entry.messages]
        if sizeOf(messages) > self.parking.settings.maxBuffered:
            self.end(ticket)
            return "size", None
        return result, Return(ticket, messages)

    def restore(self, ticket: Ticket) -> None:
        """Put the socket of a client that comes back into its rooms, before the application is asked."""
        socket, rooms = ticket.socket, self.namespace.rooms
        assert socket is not None
        rooms.add(socket)
        for room in ticket.rooms:
            # Meanwhile a socket may have come whose id is the room's name: revision 4 has ids of sessions.
            if rooms.find(room) is None:
                rooms.join(socket, room)
        self.absence.unpark(ticket)

    # -- from and to other servers -----------------------------------------------------

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

    def isFree(self, pid: str, session: dict[str, Any]) -> bool:
        """Return true if a client may come from another server: neither its pid nor its id is in use."""
        id = session["id"]
        isHere = pid in self.tickets or self.namespace.rooms.find(id) is not None
        return not isHere and not self.absence.holds(id)

    def adopt(self, pid: str, session: dict[str, Any]) -> Ticket:
        """Take a client from another server, whose events come next: see :meth:`arrived`."""
        ticket = Ticket(self, pid, session["id"], session["data"], session["address"])
        self.tickets[pid] = ticket
        ticket.isArriving = True
        ticket.rooms = frozenset(session["rooms"])
        self.absence.park(ticket)
        return ticket

    def arrived(self, ticket: Ticket, carried: dict[str, Any] | None) -> None:
        """Called when the events of a client from another server are here, or cannot come."""
        if self.tickets.get(ticket.pid) is not ticket or not ticket.isArriving:
            return
        ticket.isArriving = False
        if carried is None or not all(self.log.isEvent(messages) for _, _, messages in carried["events"]):
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
