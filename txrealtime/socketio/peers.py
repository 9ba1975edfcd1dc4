"""
The seam to other servers: what a namespace and its audiences need of them.

A server on its own has none, and then nothing here is used: ``Namespace.peers`` is ``None``,
and an emit costs a look at that.  Who provides them is not known on this side of the seam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred

from txrealtime.engineio import packet as engineio
from txrealtime.socketio.packet import Packet

if TYPE_CHECKING:
    from txrealtime.socketio.audience import Audience, Person
    from txrealtime.socketio.namespace import Namespace

__all__ = ["Inquiry", "Peers"]


class Inquiry(Protocol):
    """A question that the clients of other servers were asked."""

    @property
    def done(self) -> Deferred[None]:
        """Fires when no answer is awaited any longer; to cancel it is to ask no more."""

    @property
    def asked(self) -> int:
        """How many clients were asked, as far as their servers have said."""

    @property
    def silent(self) -> Sequence[str]:
        """The names of the servers that did not say all that they were asked."""


class Peers(Protocol):
    """
    The other servers.

    An audience is chosen there as it is here, by its rooms and exceptions, and what is done
    here was done before these are called.
    """

    def emit(
        self, audience: Audience, packet: Packet, messages: Sequence[engineio.Packet], volatile: bool
    ) -> None:
        """
        Send an event to those of an audience who are on other servers.

        :param packet: the event.
        :param messages: the same, encoded.
        :raises ValueError: when it is too large to cross.
        """

    def call(
        self, audience: Audience, packet: Packet, answered: Callable[[Any], object], timeout: float
    ) -> Inquiry:
        """
        Ask those of an audience who are on other servers.

        :param answered: called with each answer, as ``gathering.returned`` has it.
        :param timeout: seconds after which nobody waits for an answer any longer.
        :raises BusError: when they cannot be asked.
        """

    def fetch(self, audience: Audience, timeout: float) -> Deferred[list[Person]]:
        """
        Those of an audience who are on other servers.

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
        """There is a namespace here now."""

    def unmounted(self, namespace: Namespace) -> None:
        """A namespace is here no longer."""

    def roomChanged(self, namespace: Namespace, room: str, exists: bool) -> None:
        """A room has its first member on this server, or has lost the last.  A socket's own counts."""
