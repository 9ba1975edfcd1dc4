"""
The clients of a server that are away: how many there may be, and for how long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogLevel

from txrealtime.engineio import packet as engineio
from txrealtime.logs import Logger
from txrealtime.socketio.clients import asks, isKnownToRecover
from txrealtime.socketio.eventlog import Store
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.packet import IParser, Packet
from txrealtime.socketio.settings import Settings

if TYPE_CHECKING:
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.tickets import Ticket

__all__ = ["Keeper", "Parking"]

_log = Logger()


class Keeper(Protocol):
    """A part of the server that keeps the tickets where other servers find them when this one has died."""

    def offered(self, ticket: Ticket) -> None:
        """Called with the ticket of a new client, whose events begin here."""

    def changed(self, ticket: Ticket) -> None:
        """Called when the client of a ticket was admitted, or has joined or left a room."""

    async def check(self, ticket: Ticket) -> None:
        """Let a ticket go if another server has taken it while this one was silent."""

    def ended(self, ticket: Ticket) -> None:
        """Called when the client of a ticket cannot come back to this server any more."""

    def emitted(self, ticket: Ticket, messages: Sequence[engineio.Packet], packet: Packet) -> None:
        """Called with an event for one client of this server, which is the newest of the log."""

    # Of a bus that keeps all events:

    def parked(self, ticket: Ticket) -> None:
        """Called when the client of a ticket has gone, and may come back to any server."""

    def place(self, namespace: Namespace) -> str:
        """Return the offset of the newest event that this server has read."""

    def whenDelivered(self) -> Deferred[None]:
        """Wait until this server's own events have come back from the bus, and are delivered."""

    def onTheWay(
        self, namespace: Namespace
    ) -> Iterable[tuple[tuple[str, ...] | None, frozenset[str], Sequence[engineio.Packet]]]:
        """List this server's own events that have not come back: rooms, exclusions and messages."""


class Parking:
    """
    The tickets of a server whose clients are away, and their bounds.

    :ivar store: the bounds of the logs.
    :ivar results: the number of clients that came back, by result.
    :ivar keeper: keeps the tickets for other servers; ``None`` for nobody.
    :ivar isOpen: false once the server does not expect clients back.
    :ivar isStaying: false once the server is about to stop, and takes no clients of other servers.
    """

    def __init__(
        self, settings: Settings, reactor: IReactorTime, parser: IParser, results: Counter[str]
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.results = results
        self.isOpen = self.isStaying = True
        self.keeper: Keeper | None = None
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
        self.keeper = None  # what it keeps stays, for a server that starts again
        for ticket in list(self._parked):
            ticket.recovery.end(ticket)
        self.store.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def reopen(self) -> None:
        """Called when the server starts again."""
        self.isOpen = self.isStaying = True
