"""
Recovery among servers whose bus keeps all events, and gives them one order.

No server has a log or a parked ticket: the events are on the bus, and a client that is away is a session
there, kept by the :class:`~txrealtime.socketio.parking.Keeper`.  So any server may take it.

The offset of an event is its id on the bus.  For that, the clients of a server get its own events from the
bus, too, in the order of all: an event that is emitted goes out, comes back, and is delivered then.  Acks and
events that want an ack wait until the events before them have come back, and a DISCONNECT takes them along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.eventlog import Mark, Rooms, sizeOf
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.parking import Parking
from txrealtime.socketio.recovery import RECOVERABLE, Recovery, Return
from txrealtime.socketio.sockets import Socket
from txrealtime.socketio.tickets import Ticket

if TYPE_CHECKING:
    from txrealtime.socketio.audience import Audience
    from txrealtime.socketio.namespace import Namespace

__all__ = ["Arrival", "StreamedRecovery", "concerns"]

_log = Logger()


def concerns(rooms: Rooms, excluded: frozenset[str], own: frozenset[str]) -> bool:
    """Return true if a client in some rooms is in an audience."""
    return (rooms is None or not own.isdisjoint(rooms)) and own.isdisjoint(excluded)


class Arrival:
    """
    A client that comes, and the events that come for it meanwhile.

    :ivar events: the events with their offsets, as clients get them.
    """

    def __init__(self, rooms: frozenset[str], most: int) -> None:
        self.rooms = rooms
        self.events: list[engineio.Packet] = []
        self._left = most

    def came(self, audience: Audience, messages: Sequence[engineio.Packet]) -> None:
        """Called with an event of the bus."""
        if self._left >= 0 and concerns(audience.rooms, audience.excluded, self.rooms):
            self.events += messages
            self._left -= sizeOf(messages)

    @property
    def isWhole(self) -> bool:
        """False if more has come than a client may have missed."""
        return self._left >= 0


class StreamedRecovery(Recovery):
    """The tickets of one namespace, on a bus that keeps all events."""

    def __init__(self, namespace: Namespace, parking: Parking) -> None:
        super().__init__(namespace, parking)
        self._arrivals: list[Arrival] = []
        # The events for clients that have just come, by pid.
        self._replays: dict[str, Sequence[engineio.Packet]] = {}
        # Clients that have gone, while the application may not have heard of it.
        self._gone: WeakValueDictionary[str, Socket] = WeakValueDictionary()

    # -- events --------------------------------------------------------------------

    @property
    def _isRound(self) -> bool:
        """True if this server's own events come from the bus."""
        return self.parking.keeper is not None and self.namespace._peers is not None

    def deliver(
        self,
        audience: Audience,
        messages: Sequence[engineio.Packet],
        volatile: bool = False,
        packet: Packet | None = None,
        mark: Mark = False,
    ) -> tuple[list[Socket], int]:
        if mark is False and self._isRound and not audience._isLocal:
            return [], 1  # the bus brings it
        sockets = audience.here()
        marked = messages
        if self._arrivals or any(socket._ticket is not None for socket in sockets):
            marked = self._marked(messages, volatile, packet, mark)
            if isinstance(mark, list) and not volatile:
                for arrival in self._arrivals:
                    arrival.came(audience, marked)
        if marked is messages or not self._plain:
            return audience._deliver(marked, volatile, sockets), 0
        for socket in sockets:
            socket._deliver(messages if socket._ticket is None else marked, volatile)
        return sockets, 0

    def _marked(
        self, messages: Sequence[engineio.Packet], volatile: bool, packet: Packet | None, mark: Mark
    ) -> Sequence[engineio.Packet]:
        """Give an event its offset.  One without may not end in a text, which clients would take for one."""
        keeper = self.parking.keeper
        if isinstance(mark, list):
            if volatile and not self.log.endsInText(messages, packet):
                return messages
            return self.log.marked(messages, mark[0], packet)
        if keeper is None or not self.log.endsInText(messages, packet):
            return messages
        return self.log.marked(messages, keeper.place(self.namespace), packet)

    def replayed(
        self, messages: Sequence[engineio.Packet], packet: Packet, place: str
    ) -> list[engineio.Packet]:
        """Return an event that was read again from the bus, as clients get it."""
        return self.log.marked(messages, place, packet)

    def emit(
        self, socket: Socket, messages: Sequence[engineio.Packet], volatile: bool, packet: Packet
    ) -> None:
        peers = self.namespace._peers
        if self._isRound and peers is not None:
            try:
                peers.emit(self.namespace.to(socket), packet, messages, volatile, 1)
                return
            except ValueError as error:
                _log.limited(
                    "",
                    LogLevel.warn,
                    "an event for one client is not on the bus, and is lost if the client is away: {error}",
                    error=error,
                )
        socket._deliver(self._marked(messages, volatile, packet, False), volatile)

    def inOrder(self, send: Callable[[], object]) -> None:
        keeper = self.parking.keeper
        if keeper is None:
            send()
        else:
            keeper.whenDelivered().addCallback(lambda _: send())

    def leaving(self, socket: Socket) -> None:
        keeper = self.parking.keeper
        if keeper is None or not socket.connected:
            return
        own = socket.rooms
        for rooms, excluded, messages in keeper.onTheWay(self.namespace):
            if concerns(rooms, excluded, own):
                socket._deliver(messages)

    # -- a client goes ---------------------------------------------------------------

    def welcome(self, ticket: Ticket) -> dict[str, str]:
        return {"sid": ticket.id, "pid": ticket.pid}

    def park(self, socket: Socket, reason: CloseReason) -> bool:
        if reason in RECOVERABLE and socket.session.mayReturn and self.parking.isOpen:
            self._park(socket._ticket)
        return False

    def _park(self, ticket: Ticket | None) -> None:
        """Leave a client to the bus."""
        keeper = self.parking.keeper
        if ticket is None or keeper is None or self.tickets.get(ticket.pid) is not ticket:
            return
        assert ticket.socket is not None
        ticket.data = ticket.socket.data
        keeper.parked(ticket)
        del self.tickets[ticket.pid]
        # What the application emits to the socket from now on is for the client when it is back.
        ticket.isElsewhere = True
        self._gone[ticket.pid] = ticket.socket

    # -- a client comes ----------------------------------------------------------------

    @contextmanager
    def arriving(self, rooms: frozenset[str]) -> Iterator[Arrival]:
        """Keep the events for a client that is about to come."""
        arrival = Arrival(rooms, self.parking.settings.maxBuffered)
        self._arrivals.append(arrival)
        try:
            yield arrival
        finally:
            self._arrivals.remove(arrival)

    def take(self, pid: str, session: dict[str, Any], missed: Sequence[engineio.Packet]) -> Ticket:
        """Take a client from the bus, with the events that it has missed."""
        ticket = self.adopt(pid, session)
        ticket.isArriving = False
        self._replays[pid] = missed
        return ticket

    async def _claimed(self, claim: Claim, address: str) -> tuple[str, Return | None]:
        peers, result = self.namespace._peers, "moved"
        if peers is None or not claim.isSound:
            return "unknown", None
        live = self.tickets.get(claim.pid)
        if live is not None and live.socket is not None:
            if self.parking.settings.recoveryAddress and live.address != address:
                return "address", None
            result = "takeover"
            live.socket.session.abort(
                CloseReason.TRANSPORT_CLOSE, "the client has come back by another connection"
            )
        gone = self._gone.get(claim.pid)
        if gone is not None and gone._goodbye is not None and gone._ticket is not None:
            # The application hears that the client has left before it hears that the client is back.
            told: Deferred[None] = Deferred()
            gone._ticket.waiting.append(told)
            await told
        ticket = await peers.fetchClient(self.namespace, claim, address)
        if ticket is None:
            return "unknown", None
        return result, Return(ticket, self._replays.pop(ticket.pid))
