"""
The seam to other servers: the interface that namespaces and audiences call.

A server on its own has no peers: ``Namespace._peers`` is ``None``, and an emit costs one look at it.
Nothing in ``socketio`` knows who implements :class:`Peers`; in a cluster it is ``cluster/remote.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred

from txrealtime.engineio import packet as engineio
from txrealtime.socketio.packet import Packet

if TYPE_CHECKING:
    from txrealtime.socketio.audience import Audience, Person
    from txrealtime.socketio.clients import Claim
    from txrealtime.socketio.eventlog import Mark
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.past import Told
    from txrealtime.socketio.presence import Entry
    from txrealtime.socketio.tickets import Ticket

__all__ = ["Peers", "Question"]


class Question(Protocol):
    """A question to the clients of other servers."""

    @property
    def done(self) -> Deferred[None]:
        """A Deferred that fires when no reply is awaited any longer.  To cancel it gives the question up."""

    @property
    def asked(self) -> int:
        """The number of clients that were asked, as far as their servers have replied."""

    @property
    def silent(self) -> Sequence[str]:
        """The names of the servers whose replies are missing or incomplete."""


class Peers(Protocol):
    """
    The other servers.

    The same rooms and exclusions choose an audience there as here.  Each method is called after the same was
    done to the clients of this server.
    """

    def emit(
        self,
        audience: Audience,
        packet: Packet,
        messages: Sequence[engineio.Packet],
        volatile: bool,
        logged: int = 0,
    ) -> Mark:
        """
        Send an event to an audience's clients on other servers.

        :param packet: the event.
        :param messages: the same, encoded.
        :param logged: the event's number in the namespace's log, 0 if it is not there.
        :return: the mark by which another server knows the event again; ``False`` if none gets it.
        :raises ValueError: if it is too large for the bus.
        """

    def fetchClient(self, namespace: Namespace, claim: Claim, address: str) -> Deferred[Ticket | None]:
        """
        Fetch a client that comes back from the server that it left.

        :return: a Deferred of its ticket, which is parked on this server now; ``None`` if no server has it.
        """

    def call(
        self, audience: Audience, packet: Packet, acked: Callable[[Any], object], timeout: float
    ) -> Question:
        """
        Send an event to an audience's clients on other servers and expect their acks.

        :param acked: called with each ack, in the form of :func:`~txrealtime.socketio.acks.ackValue`.
        :param timeout: seconds after which acks are no longer awaited.
        :raises BusError: if the other servers cannot be asked now.
        """

    def fetch(self, audience: Audience, timeout: float) -> Deferred[list[Person]]:
        """
        Fetch an audience's remote sockets from other servers.

        :return: a Deferred that fails with :exc:`~txrealtime.errors.AckTimeout` or
            :exc:`~txrealtime.errors.BusError`.
        """

    def join(self, audience: Audience, rooms: Sequence[str]) -> None:
        """Put them into rooms."""

    def leave(self, audience: Audience, rooms: Sequence[str]) -> None:
        """Take them out of rooms."""

    def disconnect(self, audience: Audience, close: bool) -> None:
        """Disconnect them."""

    def mounted(self, namespace: Namespace) -> None:
        """Called when a namespace was mounted on this server."""

    def unmounted(self, namespace: Namespace) -> None:
        """Called when a namespace was taken off this server."""

    def presenceUsed(self, namespace: Namespace) -> None:
        """
        Called once when a namespace begins to use presence, or was using it when this server got peers.

        :raises BusError: if the other servers cannot be told.
        """

    def tracked(self, namespace: Namespace, entry: Entry) -> None:
        """Called when a socket of this server is present, or has other data."""

    def untracked(self, namespace: Namespace, entry: Entry) -> None:
        """Called when a socket of this server is present no longer."""

    def whenPresenceKnown(self, namespace: Namespace) -> Deferred[None]:
        """
        Wait until the namespace's roster has the entries of the other servers.

        :return: a Deferred that does not fail.  It can be cancelled; then the servers that have not told
            theirs are not waited for again.
        """

    def historyKept(self, namespace: Namespace) -> None:
        """
        Called once when a namespace begins to keep history.

        :raises BusError: if the other servers cannot be asked for theirs.
        """

    def recall(self, namespace: Namespace, room: str) -> Deferred[Told]:
        """
        Ask the other servers for a room's history, once this server hears the room's events.

        :return: a Deferred that does not fail.
        """

    def roomChanged(self, namespace: Namespace, room: str, exists: bool) -> None:
        """
        Called when a room gets its first member on this server, or loses its last.

        A socket's own room counts as well.
        """

    def joined(self) -> None:
        """Called when a socket has joined a room, while :attr:`Namespaces.joining` is set."""

    def whenInForce(self) -> Deferred[None]:
        """
        Wait until the other servers know of the joins so far.

        :return: a Deferred that never fails.
        """
