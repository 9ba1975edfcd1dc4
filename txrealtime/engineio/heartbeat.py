"""
Heartbeats: which side asks for signs of life, and what follows from an answer.

What is known of a session's heartbeat is in the session; here is what differs between the
versions of the protocol ("Heartbeat").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from txrealtime.engineio.interfaces import CloseReason
from txrealtime.engineio.packet import PING, Packet, PacketType

if TYPE_CHECKING:
    from txrealtime.engineio.session import Session

__all__ = ["ClientAsks", "Heartbeat", "ServerAsks"]


class Heartbeat(Protocol):
    """Who asks for signs of life."""

    @staticmethod
    def start(session: Session) -> None:
        """The session has begun."""

    @staticmethod
    def received(session: Session, packet: Packet) -> None:
        """A PING or PONG has come."""


class ServerAsks:
    """Protocol 4: the server sends PING every ``pingInterval``, the client answers within ``pingTimeout``."""

    @staticmethod
    def start(session: Session) -> None:
        session.startTimer(session.settings.pingInterval, lambda: ServerAsks._ask(session))

    @staticmethod
    def _ask(session: Session) -> None:
        session.awaitsPong = True
        # If this timer is late, the next is not late on top of it.
        session.signOfLifeWithin(max(0.0, session.settings.pingTimeout - session.lateness))
        session.sendPackets([PING])

    @staticmethod
    def received(session: Session, packet: Packet) -> None:
        if packet.type is PacketType.PING:
            why = "a PING from a client of protocol 4"
            session.transportLost(session.transport, CloseReason.TRANSPORT_ERROR, why)
        elif session.awaitsPong:  # one that nobody asked for changes nothing
            session.awaitsPong = False
            ServerAsks.start(session)


class ClientAsks:
    """Protocol 3: the client sends PING every ``pingInterval``, the server answers with the same data."""

    @staticmethod
    def start(session: Session) -> None:
        settings = session.settings
        session.signOfLifeWithin(settings.pingInterval + settings.pingTimeout)

    @staticmethod
    def received(session: Session, packet: Packet) -> None:
        if packet.type is PacketType.PONG:
            why = "a PONG from a client of protocol 3"
            session.transportLost(session.transport, CloseReason.TRANSPORT_ERROR, why)
        else:
            ClientAsks.start(session)
            session.sendPackets([Packet(PacketType.PONG, packet.data)])
