"""
The upgrade: a session moves from polling to a WebSocket (Engine.IO, "Upgrade").

The session goes on by polling while the client probes the WebSocket::

    client                     server
    PING "probe"   ──────────>
                   <──────────  PONG "probe", and a NOOP to the GET that waits
    UPGRADE        ──────────>  the session moves

An upgrade that fails, or takes longer than ``upgradeTimeout``, costs the client the WebSocket alone.
"""

from __future__ import annotations

from typing import Protocol

from txrealtime.engineio.interfaces import CloseReason, ITransport
from txrealtime.engineio.packet import Packet, PacketType
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.timers import Timer, Timers
from txrealtime.logs import Logger

__all__ = ["Upgradable", "Upgrade"]

_log = Logger()


class Upgradable(Protocol):
    """The part of a session that its upgrade uses."""

    transport: ITransport
    settings: Settings

    @property
    def label(self) -> str: ...

    def transportWritable(self, transport: ITransport) -> None: ...

    def upgradeCompleted(self, new: ITransport) -> None: ...

    def upgradeFailed(self) -> None: ...


class Upgrade:
    """
    The probe of a WebSocket beside a polling session.

    :param session: the session, told once of the result, unless it cancels the upgrade.
    :ivar transport: the WebSocket.
    :ivar isProbed: ``True`` once the client's probe has been answered.
    """

    __slots__ = ("_session", "_timer", "isProbed", "transport")

    def __init__(self, session: Upgradable, transport: ITransport, timers: Timers) -> None:
        self._session = session
        self.transport = transport
        self.isProbed = False
        self._timer: Timer | None = timers.callLater(
            session.settings.upgradeTimeout, lambda: self.fail("not finished within upgradeTimeout")
        )

    def packetReceived(self, packet: Packet) -> None:
        """
        Answer ``2probe`` by ``3probe``, and complete the upgrade on ``5``; fail on any other packet.

        A client may omit the probe, as Elephant.io does, and Node's server accepts that.
        """
        if packet.type is PacketType.PING and packet.data == "probe" and not self.isProbed:
            self.isProbed = True
            self.transport.send([Packet(PacketType.PONG, "probe")])
            self._session.transportWritable(self._session.transport)
        elif packet.type is PacketType.UPGRADE:
            self._stopTimer()
            self._session.upgradeCompleted(self.transport)
        else:
            expected = "UPGRADE" if self.isProbed else "PING with 'probe', or UPGRADE"
            self.fail(f"{packet.type.name}, expected {expected}")

    def fail(self, why: str) -> None:
        """
        Give the WebSocket up; the session stays with polling.

        :param why: for the log.
        """
        _log.debug("session {session}: upgrade failed: {why}", session=self._session.label, why=why)
        self._session.upgradeFailed()

    def cancel(self) -> None:
        """Close the WebSocket, and tell the session nothing."""
        self._stopTimer()
        self.transport.close(CloseReason.TRANSPORT_ERROR)

    def _stopTimer(self) -> None:
        # A timer keeps its call, and would so keep the session until the garbage collector comes.
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
