"""
The seam between a session and its transports, and between a session and its owner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from txrealtime.engineio.interfaces import CloseReason
from txrealtime.engineio.packet import Packet

__all__ = ["Receiver", "Transport", "TransportOwner"]


class Transport(Protocol):
    """
    One way to exchange packets with a server.

    :ivar name: ``polling`` or ``websocket``.
    :ivar writable: true while :meth:`send` may be called.
    :ivar deliver: takes the data of each MESSAGE, past the owner, or is ``None``: a short way, which a
        transport need not take.
    """

    name: str
    writable: bool
    deliver: Callable[[str | bytes], None] | None

    def open(self, sid: str | None) -> None:
        """
        Connect to the server.

        :param sid: the session to join, or ``None`` to begin one.
        """

    def joined(self, sid: str) -> None:
        """Called when the server has opened the session."""

    def send(self, packets: Sequence[Packet]) -> None:
        """Send packets; called only while the transport is writable."""

    def sendMessage(self, data: str | bytes) -> None:
        """Send the data of a MESSAGE, as :meth:`send` does, on a fast path."""

    def pause(self, done: Callable[[], None]) -> None:
        """Stop exchanging packets, and call a function once none is on its way."""

    def resume(self) -> None:
        """Go on after :meth:`pause`."""

    def pauseReading(self) -> None:
        """Take no more packets from the server."""

    def resumeReading(self) -> None:
        """Go on after :meth:`pauseReading`."""

    def close(self) -> None:
        """Close in an orderly way; the owner's ``transportLost`` follows."""

    def abort(self) -> None:
        """End at once; the owner hears no more."""


class TransportOwner(Protocol):
    """A session, as its transports know it."""

    def transportOpened(self, transport: Transport) -> None:
        """Called when a WebSocket is open."""

    def packetReceived(self, transport: Transport, packet: Packet) -> None:
        """Called for each packet, in order, that does not take the short way."""

    def transportWritable(self, transport: Transport) -> None:
        """Called when the transport takes packets again."""

    def transportLost(self, transport: Transport, error: Exception | None) -> None:
        """
        Called once when the transport has ended.

        :param error: the reason if the transport failed, ``None`` if the server closed it in order.
        """


class Receiver(Protocol):
    """The owner of a session.  The methods must not raise."""

    def sessionOpened(self) -> None:
        """Called once when the session is open."""

    def sessionFailed(self, error: Exception) -> None:
        """Called once, instead of :meth:`sessionOpened`, if the session cannot be opened."""

    def sessionUpgraded(self) -> None:
        """Called when the session has moved to WebSocket."""

    def messageReceived(self, data: str | bytes) -> None:
        """Called for each message while the session is open."""

    def sessionClosed(self, reason: CloseReason) -> None:
        """Called once when an open session has ended."""
