"""
What a session has to do with: what carries it, and what owns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from zope.interface import Attribute, Interface, implementer

from txrealtime.engineio.packet import Packet

__all__ = ["CloseReason", "IReceiver", "ITransport", "Nobody"]


class CloseReason(StrEnum):
    """Why a session, or a socket on it, ended: the words that Socket.IO users know."""

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


class IReceiver(Interface):
    """What owns a session and receives its messages.  Its methods must not raise."""

    def messageReceived(data: str | bytes) -> None:
        """A message came.  Never called after :meth:`sessionClosed`."""

    def sessionClosed(reason: CloseReason) -> None:
        """The session has ended.  Called once."""


@implementer(IReceiver)
class Nobody:
    """The receiver of a session that has none yet."""

    def messageReceived(self, data: str | bytes) -> None:
        pass

    def sessionClosed(self, reason: CloseReason) -> None:
        pass


class ITransport(Interface):
    """What carries a session's packets: a polling client's requests, or a WebSocket."""

    name: str = Attribute("``polling`` or ``websocket``, as on the wire.")
    writable: bool = Attribute("Whether :meth:`send` may be called now.")
    batch: int = Attribute("How many packets one :meth:`send` may carry.")

    def send(packets: Sequence[Packet]) -> None:
        """Send packets, now.  Only while :attr:`writable`."""

    def farewell(reason: CloseReason) -> Sequence[Packet]:
        """What tells the client of the session's end, to be sent with the last packets."""

    def close(reason: CloseReason) -> None:
        """
        End the transport once what was sent has gone out; at once when the reason is
        :attr:`CloseReason.SLOW_CONSUMER`, since then nothing goes out.
        """

    def pauseReading() -> None:
        """Read nothing more from the client until :meth:`resumeReading`."""

    def resumeReading() -> None:
        """Read on."""
