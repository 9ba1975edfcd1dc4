"""
The heartbeats of both versions of the protocol (Engine.IO, "Heartbeat").

The state of a heartbeat belongs to the session.  These classes hold the rules, which differ in the
side that sends PING.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from txrealtime.engineio.interfaces import CloseReason
from txrealtime.engineio.packet import PING, Packet, PacketType

if TYPE_CHECKING:
    from txrealtime.engineio.session import Session

__all__ = ["ClientAsks", "Heartbeat", "ServerAsks"]


class Heartbeat(Protocol):
    """The rules of one version's heartbeat."""

    @staticmethod
    def start(session: Session) -> None:
        """Called when a session has begun."""

    @staticmethod
    def received(session: Session, packet: Packet) -> None:
        """Called when a PING or PONG has come."""


def _expectPacket(session: Session, seconds: float) -> None:
    """End the session unless the client sends some packet in time."""
    session.isAlive = False
    session.startTimer(seconds, partial(_checkAlive, session))


def _checkAlive(session: Session) -> None:
    # A large upload may delay the heartbeat's packet, and a pause keeps it unread.
    if session.isAlive or session.paused:
        _expectPacket(session, session.settings.pingTimeout)
    else:
        # Nothing that one client does can write more: of all timeouts in a minute few are shown.
        seconds = session.settings.pingTimeout
        session.abort(
            CloseReason.PING_TIMEOUT,
            f"no sign of life in time (pingTimeout, {seconds:g} s): the client is gone or blocked, or a "
            "proxy holds packets back",
        )


class ServerAsks:
    """Engine.IO 4: the server sends PING every ``pingInterval``, the client PONG within ``pingTimeout``."""

    @staticmethod
    def start(session: Session) -> None:
        session.startTimer(session.settings.pingInterval, lambda: ServerAsks._ask(session))

    @staticmethod
    def _ask(session: Session) -> None:
        session.awaitsPong, session.pingTime = True, session.now()
        # A late timer does not make the client's deadline later.
        _expectPacket(session, max(0.0, session.settings.pingTimeout - session.lateness))
        session.sendPackets([PING])

    @staticmethod
    def received(session: Session, packet: Packet) -> None:
        if packet.type is PacketType.PING:
            session.mayReturn = False
            why = "a PING from a client of Engine.IO 4, which only answers PINGs"
            session.transportLost(session.transport, CloseReason.TRANSPORT_ERROR, why)
        elif session.awaitsPong:  # any other PONG changes nothing
            session.awaitsPong = False
            session.provenTime = session.pingTime
            session.counts.pings.add(session.now() - session.pingTime)
            ServerAsks.start(session)


class ClientAsks:
    """Engine.IO 3: the client sends PING every ``pingInterval``, the server PONG with the same data."""

    @staticmethod
    def start(session: Session) -> None:
        settings = session.settings
        _expectPacket(session, settings.pingInterval + settings.pingTimeout)

    @staticmethod
    def received(session: Session, packet: Packet) -> None:
        if packet.type is PacketType.PONG:
            why = "a PONG from a client of Engine.IO 3, which only sends PINGs"
            session.transportLost(session.transport, CloseReason.TRANSPORT_ERROR, why)
        else:
            ClientAsks.start(session)
            session.sendPackets([Packet(PacketType.PONG, packet.data)])
