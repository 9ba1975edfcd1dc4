"""
The two neighbours of a session: the transport below it and the receiver above it.

To write a transport, implement :class:`ITransport` and call the session's ``packetReceived``,
``transportWritable`` and ``transportLost`` from it.  The session calls
:meth:`ITransport.send` only while the transport is writable, and :meth:`ITransport.close` in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag, StrEnum
from typing import Final

from zope.interface import Attribute, Interface, implementer

from txrealtime.engineio.packet import Packet

__all__ = ["CloseReason", "IReceiver", "ITransport", "NoTransport", "Nobody", "Pauser"]


class CloseReason(StrEnum):
    """
    The reason of the end of a session, or of a socket on it, in the words of Node's Socket.IO.

    ``CLIENT_DISCONNECT`` and ``SERVER_DISCONNECT`` only end sockets, which this package does not know.  They
    stand here because a socket also ends with its session, for any of the other reasons: one enumeration
    serves handlers for both.
    """

    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"
    PING_TIMEOUT = "ping timeout"
    PARSE_ERROR = "parse error"
    FORCED_CLOSE = "forced close"
    FORCED_SERVER_CLOSE = "forced server close"
    CLIENT_DISCONNECT = "client namespace disconnect"
    SERVER_DISCONNECT = "server namespace disconnect"
    SHUTTING_DOWN = "server shutting down"
    SLOW_CONSUMER = "slow consumer"


class Pauser(IntFlag):
    """The parties that may pause the reading of a session."""

    RECEIVER = 1
    THROTTLE = 2


class IReceiver(Interface):
    """The owner of a session, which receives its messages.  The methods must not raise."""

    def messageReceived(data: str | bytes) -> None:
        """Called when a message has come, but never after :meth:`sessionClosed`."""

    def sessionClosed(reason: CloseReason) -> None:
        """Called once, when the session ends."""


@implementer(IReceiver)
class Nobody:
    """A receiver that ignores everything, for a session without an owner."""

    def messageReceived(self, data: str | bytes) -> None:
        pass

    def sessionClosed(self, reason: CloseReason) -> None:
        pass


class ITransport(Interface):
    """The carrier of a session's packets: a polling client's requests, or a WebSocket."""

    name: str = Attribute("``polling`` or ``websocket``, as in the query ``transport``.")
    writable: bool = Attribute("``True`` if :meth:`send` may be called now.")
    batch: int = Attribute("The most packets that one :meth:`send` may carry.")

    def send(packets: Sequence[Packet]) -> None:
        """Send packets at once.  Only called while :attr:`writable`."""

    def farewell(reason: CloseReason) -> Sequence[Packet]:
        """Return the packets that tell the client of the end, to be sent behind all others."""

    def close(reason: CloseReason) -> None:
        """
        Close the transport once all sent packets have left.

        A reason of :attr:`CloseReason.SLOW_CONSUMER` aborts it, since no packet leaves any more.
        """

    def pauseReading() -> None:
        """Stop reading from the client until :meth:`resumeReading`."""

    def resumeReading() -> None:
        """Read again from the client."""


@implementer(ITransport)
class NoTransport:
    """
    A transport that carries nothing, for a session that has ended.

    :ivar name: that of the last transport.
    """

    __slots__ = ("name",)

    writable: Final = False
    batch: Final = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def send(self, packets: Sequence[Packet]) -> None:
        pass

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        return ()

    def close(self, reason: CloseReason) -> None:
        pass

    def pauseReading(self) -> None:
        pass

    def resumeReading(self) -> None:
        pass
