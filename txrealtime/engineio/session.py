"""
One client's session: everything that affects its state lives in this file.

A session outlives its transports.  It begins over long polling or WebSocket, may
move from the first to the second, and ends once::

    OPEN ──close()──> CLOSING ──the rest is delivered──> CLOSED
      └───────────────the transport is gone───────────────┘

Its owner, an :class:`IReceiver`, hears of the end when the session leaves OPEN; the
transport may still be delivering what was sent before.

There is one outgoing buffer, of known size, whatever the transport: it fills while
no GET waits (long polling) or while TCP pushes back (WebSocket).  What the client
gets is a prefix of what was sent, in order, nothing twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.heartbeat import ClientAsks, Heartbeat, ServerAsks
from txrealtime.engineio.interfaces import CloseReason, IReceiver, ITransport, Nobody
from txrealtime.engineio.packet import (
    NOOP,
    Codec,
    Packet,
    PacketType,
    message,
    openPacket,
)
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.timers import Timer, Timers
from txrealtime.logs import Logger

__all__ = ["CloseReason", "IReceiver", "ITransport", "Session", "State"]

_log = Logger()


class State(Enum):
    """Where a session is in its life."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


# In Python 3.11, to look up a member of an enumeration takes longer than to compare it.
_OPEN: Final = State.OPEN
_MESSAGE: Final = PacketType.MESSAGE


class Session:
    """
    One client, on whichever transport it has now.

    :ivar sid: the session's id: a bearer secret, never logged whole.
    :ivar handshake: the request that opened it.
    :ivar codec: the version of the protocol that it speaks.
    :ivar transport: the current :class:`ITransport`.
    :ivar receiver: the :class:`IReceiver` that owns it.
    :ivar state: a :class:`State`.
    :ivar buffered: bytes that wait for the transport.
    :ivar closeReason: why it has left OPEN, or ``None``.
    """

    __slots__ = (
        "__weakref__",
        "_alive",
        "_ended",
        "_heartbeat",
        "_paused",
        "_queue",
        "_timer",
        "_timers",
        "_upgrade",
        "awaitsPong",
        "buffered",
        "closeReason",
        "codec",
        "handshake",
        "receiver",
        "settings",
        "sid",
        "state",
        "transport",
    )

    def __init__(
        self,
        sid: str,
        handshake: OpeningRequest,
        codec: Codec,
        transport: ITransport,
        settings: Settings,
        timers: Timers,
        ended: Callable[[Session], object],
    ) -> None:
        self.sid = sid
        self.handshake = handshake
        self.codec = codec
        self.transport = transport
        self.settings = settings
        self.state = State.OPEN
        self.buffered = 0
        self._timers = timers
        self._ended = ended
        # Most never need a queue, which takes 0.7 kB even when it is empty.
        self._queue: deque[Packet] | tuple[()] = ()
        self._upgrade: _Upgrade | None = None
        self._timer: Timer | None = None
        self._alive = True
        self.awaitsPong = False
        self._heartbeat: type[Heartbeat] = ClientAsks if codec.clientPings else ServerAsks
        self._paused = 0
        self.receiver: IReceiver = Nobody()
        self.closeReason: CloseReason | None = None

    def __repr__(self) -> str:
        return f"<Session {self.label} {self.transport.name} {self.state.value}>"

    @property
    def label(self) -> str:
        """The beginning of the sid: enough for a log, too little to take the session over."""
        return self.sid[:6]

    def greet(self, upgrades: Sequence[str]) -> None:
        """Send the open packet and start the heartbeat ("Handshake", "Heartbeat")."""
        settings = self.settings
        greeting = openPacket(
            self.sid, upgrades, settings.pingInterval, settings.pingTimeout, settings.maxPayload
        )
        self.sendPackets([greeting])
        self._heartbeat.start(self)

    # -- the way out ---------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether what is sent now leaves at once."""
        return not self._queue and self.state is State.OPEN and self.transport.writable

    def send(self, data: str | bytes, volatile: bool = False) -> None:
        """
        Send a message.  After the session's end, this does nothing.

        :param volatile: drop it if it cannot leave at once.
        """
        self.sendPackets([message(data)], volatile)

    def sendPackets(self, packets: Sequence[Packet], volatile: bool = False) -> None:
        """Send packets that belong together: all of them or, if volatile, none."""
        if self.state is _OPEN:
            transport = self.transport
            if (
                not self._queue
                and transport.writable
                and (len(packets) < 16 or len(packets) <= transport.batch)
            ):
                transport.send(packets)
            elif not volatile or self.writable:
                self._wait(packets)

    def _wait(self, packets: Sequence[Packet]) -> None:
        """Keep packets until the transport can take them."""
        size = sum([len(packet.wire) for packet in packets])
        # One message always goes, however large: it would never go otherwise.
        if self._queue and self.buffered + size > self.settings.maxBuffered:
            _log.info(
                "session {session}: {buffered} bytes wait for a slow client, more than maxBuffered",
                session=self.label,
                buffered=self.buffered + size,
            )
            self._end(CloseReason.SLOW_CONSUMER)
            return
        more = bool(self._queue)
        if isinstance(self._queue, tuple):
            self._queue = deque()
        self._queue.extend(packets)
        self.buffered += size
        if not more:
            self._flush()  # in batches

    def transportWritable(self, transport: ITransport) -> None:
        """A transport can take packets now: a GET came, or TCP has room again."""
        if transport is not self.transport or self.state is State.CLOSED:
            return
        self._flush()
        # A client that is leaving polling waits for its last GET to return
        # ("Upgrade": the server sends a NOOP to any pending polling request).
        if self._upgrade is not None and self._upgrade.probed and transport.writable:
            transport.send([NOOP])

    def _flush(self) -> None:
        """Hand over what waits and, in the end, say goodbye."""
        transport, queue = self.transport, self._queue
        closing = self.closeReason if self.state is State.CLOSING and self._upgrade is None else None
        last = transport.farewell(closing) if closing is not None else ()
        while queue or last:
            if not transport.writable:
                return
            packets = [
                queue.popleft()  # type: ignore[union-attr]  # nothing is taken from ()
                for _ in range(min(len(queue), transport.batch))
            ]
            self.buffered -= sum([len(packet.wire) for packet in packets])
            if not queue and len(packets) + len(last) <= transport.batch:
                packets.extend(last)
                last = ()
            transport.send(packets)
        if closing is not None:
            self.state = State.CLOSED
            transport.close(closing)
            self._finish()

    # -- the way in ----------------------------------------------------------

    def packetReceived(self, transport: ITransport, packet: Packet) -> None:
        """
        A transport has received a packet.

        Never raises: a packet that the protocol does not allow closes the session.
        """
        if transport is not self.transport:
            if self._upgrade is not None and transport is self._upgrade.candidate:
                self._upgrade.packetReceived(packet)
            return
        if self.state is not _OPEN:
            return
        self._alive = True
        type = packet.type
        if type is _MESSAGE:
            self.messageReceived(packet.data)
        elif type is PacketType.PONG or type is PacketType.PING:
            self._heartbeat.received(self, packet)
        elif type is PacketType.CLOSE:
            self._end(CloseReason.TRANSPORT_CLOSE)
        # OPEN, UPGRADE and NOOP mean nothing here, and do no harm.

    def messageReceived(self, data: str | bytes) -> None:
        """The current transport has received a message: the short form of :meth:`packetReceived`."""
        if self.state is _OPEN:
            self._alive = True
            try:
                self.receiver.messageReceived(data)
            except Exception:
                _log.failure("session {session}: the receiver failed on a message", session=self.label)

    def pause(self, by: int = 1) -> None:
        """
        Read no more from the client: too much of what it sent is waiting.

        :param by: who wants it, 1 for the receiver, or another power of two; reading goes on when
            none of them does.
        """
        if self.state is _OPEN:
            if not self._paused:
                self.transport.pauseReading()
            self._paused |= by

    def resume(self, by: int = 1) -> None:
        """Read on after :meth:`pause`."""
        if self._paused & by:
            self._paused &= ~by
            if not self._paused:
                self._alive = True
                if self.state is State.OPEN:
                    self.transport.resumeReading()

    @property
    def paused(self) -> bool:
        """Whether reading is paused."""
        return self._paused != 0

    # -- the heartbeat -------------------------------------------------------

    @property
    def lateness(self) -> float:
        """Seconds by which the timer that has just called came late."""
        return 0.0 if self._timer is None else self._timers.reactor.seconds() - self._timer.time

    def signOfLifeWithin(self, seconds: float) -> None:
        """End the session unless the heartbeat's next packet comes in time."""
        self._alive = False
        self.startTimer(seconds, self._noSignOfLife)

    def _noSignOfLife(self) -> None:
        # A client whose upload delays its heartbeat is alive; one that we do not read cannot show it.
        if self._alive or self._paused:
            self.signOfLifeWithin(self.settings.pingTimeout)
        else:
            self._end(CloseReason.PING_TIMEOUT)

    # -- the upgrade ---------------------------------------------------------

    def upgrade(self, candidate: ITransport) -> None:
        """
        A WebSocket wants to take this session over ("Upgrade").

        While another does, or one has, the newcomer is closed and nothing else changes.
        """
        if self._upgrade is not None or self.state is not State.OPEN or self.transport.name != "polling":
            candidate.close(CloseReason.TRANSPORT_ERROR)
            return
        self._upgrade = _Upgrade(self, candidate)
        self._upgrade.timer = self._timers.callLater(
            self.settings.upgradeTimeout, lambda: self._upgradeFailed("not finished within upgradeTimeout")
        )

    def _upgraded(self) -> None:
        old, self.transport = self.transport, self._takeCandidate()
        old.close(CloseReason.TRANSPORT_CLOSE)
        if self._paused:
            self.transport.pauseReading()
        self._flush()

    def _upgradeFailed(self, why: str) -> None:
        """Close the newcomer; polling goes on as if it had never come."""
        candidate = self._takeCandidate()
        _log.debug("session {session}: upgrade failed: {why}", session=self.label, why=why)
        candidate.close(CloseReason.TRANSPORT_ERROR)
        self._flush()

    def _takeCandidate(self) -> ITransport:
        """The WebSocket on probation, which is so no longer."""
        upgrade, self._upgrade = self._upgrade, None
        assert upgrade is not None
        upgrade.timer.cancel()
        return upgrade.candidate

    # -- the end -------------------------------------------------------------

    def close(self, reason: CloseReason = CloseReason.FORCED_CLOSE) -> None:
        """
        Deliver what was sent, then end the session.

        The receiver is told at once.  A polling client has ``closeTimeout`` seconds to
        fetch the rest.
        """
        if self.state is not State.OPEN:
            return
        self._leaveOpen(State.CLOSING, reason)
        if self._stillCloses:  # unless the receiver has ended it
            self.startTimer(self.settings.closeTimeout, lambda: self._end(CloseReason.SLOW_CONSUMER))
            self._flush()

    @property
    def _stillCloses(self) -> bool:
        return self.state is State.CLOSING

    def abort(self, reason: CloseReason) -> None:
        """End the session at once; what waits in the buffer is dropped."""
        self._end(reason)

    def transportLost(self, transport: ITransport, reason: CloseReason, why: str = "") -> None:
        """
        A transport is gone, or of no more use.

        :param reason: what the receiver is told.
        :param why: for the log; no payload.
        """
        if transport is self.transport:
            self._end(reason, why)
        elif self._upgrade is not None and transport is self._upgrade.candidate:
            self._upgradeFailed(why or reason)

    def _end(self, reason: CloseReason, why: str = "") -> None:
        if self.state is State.CLOSED:
            return
        if why:
            _log.info("session {session}: {reason}: {why}", session=self.label, reason=reason, why=why)
        if self.state is State.OPEN:
            self._leaveOpen(State.CLOSED, reason)
        self.state = State.CLOSED
        self.transport.close(reason)
        self._finish()

    def _leaveOpen(self, state: State, reason: CloseReason) -> None:
        self.state = state
        self.closeReason = reason
        try:
            self.receiver.sessionClosed(reason)
        except Exception:
            _log.failure("session {session}: the receiver failed on its end", session=self.label)

    def _finish(self) -> None:
        """Nothing more will be sent or received."""
        if self._upgrade is not None:
            self._takeCandidate().close(CloseReason.TRANSPORT_ERROR)
        self._queue = ()
        self.buffered = 0
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._ended(self)

    def startTimer(self, delay: float, call: Callable[[], Any]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timers.callLater(delay, call)


class _Upgrade:
    """A WebSocket on probation beside a polling session ("Upgrade")."""

    __slots__ = ("candidate", "probed", "session", "timer")

    timer: Timer

    def __init__(self, session: Session, candidate: ITransport) -> None:
        self.session = session
        self.candidate = candidate
        self.probed = False

    def packetReceived(self, packet: Packet) -> None:
        """``2probe`` is answered by ``3probe``; ``5`` completes; anything else fails."""
        if packet.type is PacketType.PING and packet.data == "probe" and not self.probed:
            self.probed = True
            self.candidate.send([Packet(PacketType.PONG, "probe")])
            self.session.transportWritable(self.session.transport)
        elif packet.type is PacketType.UPGRADE and self.probed:
            self.session._upgraded()
        else:
            self.session._upgradeFailed(f"{packet.type.name} where a probe was expected")
