"""
One client's session, with everything that affects its state.

A session outlives its transports.  It begins over long polling or WebSocket, may
move from polling to a WebSocket, and ends once::

    OPEN ──close()──> CLOSING ──buffered packets are delivered──> CLOSED
      └──────abort(), or the transport is lost─────────────────────┘

Its owner, an :class:`IReceiver`, is told of the end when the session leaves OPEN; the
transport may still be delivering packets that were sent before.

A session has one outgoing buffer of limited size, whatever the transport.  The buffer fills while
no GET waits (long polling) or while TCP pushes back (WebSocket).  The client receives a prefix of
the sent packets, in order, and none twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Any, Final

from twisted.logger import LogLevel

from txrealtime.engineio.counts import Counts
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.heartbeat import ClientAsks, Heartbeat, ServerAsks
from txrealtime.engineio.hooks import NO_HOOKS, SessionHooks
from txrealtime.engineio.interfaces import CloseReason, IReceiver, ITransport, Nobody, NoTransport, Pauser
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
from txrealtime.engineio.upgrade import Upgrade
from txrealtime.logs import Logger

__all__ = ["CloseReason", "IReceiver", "ITransport", "Pauser", "Session", "State"]

_log = Logger()


class State(Enum):
    """The stages of a session's life."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


# In Python 3.11, looking up a member of an enumeration takes longer than comparing it.
_OPEN: Final = State.OPEN
_MESSAGE: Final = PacketType.MESSAGE


class Session:
    """
    One client's connection, over polling or WebSocket.

    :ivar sid: the session's id: a bearer secret, never logged whole.
    :ivar handshake: the request that opened the session.
    :ivar codec: the wire form of the client's version of the protocol.
    :ivar transport: the current :class:`ITransport`.
    :ivar receiver: the owner, an :class:`IReceiver`.
    :ivar state: a :class:`State`.
    :ivar buffered: bytes that wait for the transport.
    :ivar closeReason: the reason of the end once the session has left OPEN, else ``None``.
    :ivar pingTime: the time of the server's last PING.
    :ivar counts: the engine's.
    :ivar provenTime: a time.  The client has received everything that was sent before it.
    :ivar mayReturn: false once the client has violated the protocol.
    :ivar hooks: the engine's.
    :ivar awaitsPong: ``True`` between the server's PING and the client's PONG.
    :ivar isAlive: ``True`` if the client has sent a packet since the heartbeat began to wait for one.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_heartbeat",
        "_paused",
        "_queue",
        "_sendsText",
        "_timer",
        "_timers",
        "_upgrade",
        "awaitsPong",
        "buffered",
        "closeReason",
        "codec",
        "counts",
        "handshake",
        "hooks",
        "isAlive",
        "mayReturn",
        "pingTime",
        "provenTime",
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
        counts: Counts,
        hooks: SessionHooks = NO_HOOKS,
    ) -> None:
        self.sid = sid
        self.handshake = handshake
        self.codec = codec
        self.transport = transport
        self._sendsText = hasattr(transport, "sendMessage")
        self.settings = settings
        self.state = State.OPEN
        self.buffered = 0
        self._timers = timers
        self._ended = ended
        self.counts = counts
        self.hooks = hooks
        # Most sessions never need a queue, which takes 0.7 kB even if empty.
        self._queue: deque[Packet] | tuple[()] = ()
        self._upgrade: Upgrade | None = None
        self._timer: Timer | None = None
        self.isAlive = True
        self.awaitsPong = False
        self.pingTime = self.provenTime = 0.0
        self.mayReturn = True
        self._heartbeat: type[Heartbeat] = ClientAsks if codec.clientPings else ServerAsks
        # A plain int: the truth of an IntFlag takes a call of a Python function.
        self._paused = 0
        self.receiver: IReceiver = Nobody()
        self.closeReason: CloseReason | None = None

    def __repr__(self) -> str:
        return f"<Session {self.label} {self.transport.name} {self.state.value}>"

    @property
    def label(self) -> str:
        """The beginning of the sid, for logs: too little to take the session over."""
        return self.sid[:6]

    def greet(self, upgrades: Sequence[str]) -> None:
        """Send the open packet and start the heartbeat (Engine.IO, "Handshake", "Heartbeat")."""
        settings = self.settings
        greeting = openPacket(
            self.sid, upgrades, settings.pingInterval, settings.pingTimeout, settings.maxPayload
        )
        self.sendPackets([greeting])
        self._heartbeat.start(self)

    # -- sending -------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """``True`` if a packet sent now leaves at once."""
        return not self._queue and self.state is State.OPEN and self.transport.writable

    def send(self, data: str | bytes, volatile: bool = False) -> None:
        """
        Send a message, or drop it after the session's end.

        :param volatile: drop the message if it cannot leave at once.
        """
        self.sendPackets([message(data)], volatile)

    def sendMessages(self, messages: Sequence[str | bytes]) -> None:
        """Send messages that belong together, and that no other client gets."""
        if len(messages) != 1:
            self.sendPackets([message(each) for each in messages])
            return
        data = messages[0]
        transport: Any = self.transport
        if (
            self._sendsText
            and data.__class__ is str
            and self.state is _OPEN
            and not self._queue
            and transport.writable
        ):
            # Nearly always an ack: 0.6 us less than with a packet.
            transport.sendMessage(data)
        else:
            self.sendPackets([Packet(_MESSAGE, data)])

    def sendPackets(self, packets: Sequence[Packet], volatile: bool = False) -> None:
        """Send packets that belong together; if volatile, send or drop all of them."""
        if self.state is _OPEN:
            transport = self.transport
            if (
                not self._queue
                and transport.writable
                and (len(packets) < 16 or len(packets) <= transport.batch)
            ):
                transport.send(packets)
            elif not volatile or self.writable:
                self._buffer(packets)

    def gathering(self) -> AbstractContextManager[None]:
        """Have a client of long polling get all that is sent in a block by one GET, up to a batch."""
        gathering: Callable[[], AbstractContextManager[None]]
        gathering = getattr(self.transport, "gathering", nullcontext)
        return gathering()

    def _buffer(self, packets: Sequence[Packet]) -> None:
        """Keep packets until the transport can take them."""
        size = sum([len(packet.wire) for packet in packets])
        # A single message may exceed the limit, or it could never be sent.
        if self._queue and self.buffered + size > self.settings.maxBuffered:
            _log.limited(
                "",
                LogLevel.info,
                "session {session}: {buffered} bytes wait for a slow client, more than maxBuffered allows: "
                "raise maxBuffered (--max-buffered), or send less, or volatile events",
                session=self.label,
                buffered=self.buffered + size,
            )
            self.abort(CloseReason.SLOW_CONSUMER)
            return
        more = bool(self._queue)
        if isinstance(self._queue, tuple):
            self._queue = deque()
        self._queue.extend(packets)
        self.buffered += size
        self.counts.buffered += size
        if not more:
            self._flush()  # in batches

    def transportWritable(self, transport: ITransport) -> None:
        """Called when a transport can take packets: a GET came, or TCP has room again."""
        if transport is not self.transport or self.state is State.CLOSED:
            return
        self._flush()
        # Engine.IO, "Upgrade": the server sends a NOOP to any pending polling request, which the
        # client waits for before it leaves polling.
        if self._upgrade is not None and self._upgrade.isProbed and transport.writable:
            transport.send([NOOP])

    def _flush(self) -> None:
        """Send buffered packets and, once closing, the transport's farewell behind them."""
        transport, queue = self.transport, self._queue
        while queue:
            if not transport.writable:
                return
            packets = [queue.popleft() for _ in range(min(len(queue), transport.batch))]
            size = sum([len(packet.wire) for packet in packets])
            self.buffered -= size
            self.counts.buffered -= size
            transport.send(packets)
        closing = self.closeReason
        if closing is None or self.state is not State.CLOSING or self._upgrade is not None:
            return
        # The farewell travels alone.  A JavaScript client closes as soon as it decodes a CLOSE, but delivers
        # the other packets of the same payload one tick later, and so would drop them.
        farewell = transport.farewell(closing)
        if farewell:
            if not transport.writable:
                return
            transport.send(farewell)
        self.state = State.CLOSED
        transport.close(closing)
        self._finish()

    # -- receiving -----------------------------------------------------------

    def packetReceived(self, transport: ITransport, packet: Packet) -> None:
        """
        Called when a transport has received a packet.

        Never raises: a packet that violates the protocol ends the session.
        """
        if transport is not self.transport:
            if self._upgrade is not None and transport is self._upgrade.transport:
                self._upgrade.packetReceived(packet)
            return
        if self.state is not _OPEN:
            # A client that leaves on a DISCONNECT says CLOSE, and does not poll for ours.
            if packet.type is PacketType.CLOSE:
                self.abort(CloseReason.TRANSPORT_CLOSE)
            return
        self.isAlive = True
        type = packet.type
        if type is _MESSAGE:
            self.messageReceived(packet.data)
        elif type is PacketType.PONG or type is PacketType.PING:
            self._heartbeat.received(self, packet)
        elif type is PacketType.CLOSE:
            self.abort(CloseReason.TRANSPORT_CLOSE)
        # OPEN, UPGRADE and NOOP have no meaning here and are ignored.

    def messageReceived(self, data: str | bytes) -> None:
        """Called when the current transport has received a message: a fast :meth:`packetReceived`."""
        if self.state is _OPEN:
            self.isAlive = True
            try:
                self.receiver.messageReceived(data)
            except Exception:
                _log.failure("session {session}: the receiver of messages failed", session=self.label)

    def pause(self, by: Pauser = Pauser.RECEIVER) -> None:
        """
        Stop reading from the client until every pauser has called :meth:`resume`.

        :param by: the caller, whose second call changes nothing.
        """
        if self.state is _OPEN:
            if not self._paused:
                self.transport.pauseReading()
            if not self._paused & by:
                self.counts.paused["rate" if by is Pauser.THROTTLE else "backpressure"] += 1
            self._paused |= int(by)

    def resume(self, by: Pauser = Pauser.RECEIVER) -> None:
        """Withdraw a caller's :meth:`pause`; reading goes on after the last."""
        # The first condition spares unpaused sessions, nearly all, a Python call for the second.
        if self._paused and self._paused & by:
            self._paused &= ~int(by)
            if not self._paused:
                self.isAlive = True
                if self.state is State.OPEN:
                    self.transport.resumeReading()

    @property
    def paused(self) -> bool:
        """``True`` while reading is paused."""
        return self._paused != 0

    # -- the heartbeat -------------------------------------------------------

    def now(self) -> float:
        """Return the reactor's time."""
        return self._timers.reactor.seconds()

    @property
    def lateness(self) -> float:
        """Seconds between the due time of the timer that has just fired and now."""
        return 0.0 if self._timer is None else self._timers.reactor.seconds() - self._timer.time

    # -- the upgrade ---------------------------------------------------------

    def upgrade(self, transport: ITransport) -> None:
        """
        Probe a WebSocket, and move to it if the probe succeeds (Engine.IO, "Upgrade").

        If the session has a WebSocket already, or is probing one, the new WebSocket is closed.
        """
        if self._upgrade is not None or self.state is not State.OPEN or self.transport.name != "polling":
            transport.close(CloseReason.TRANSPORT_ERROR)
        else:
            self._upgrade = Upgrade(self, transport, self._timers)

    def upgradeCompleted(self, new: ITransport) -> None:
        """Called when an upgrade has succeeded: move from polling to the WebSocket."""
        self._upgrade = None
        # It may deliver a POST that a pause has kept, so the session is not yet closed to polling.
        self.transport.close(CloseReason.TRANSPORT_CLOSE)
        if self.closeReason is not None and self.state is State.CLOSED:
            new.close(self.closeReason)
            return
        self.counts.upgrades["completed"] += 1
        self.counts.sessions[self.transport.name] -= 1
        self.counts.sessions[new.name] += 1
        self.transport = new
        self._sendsText = hasattr(new, "sendMessage")
        if self._paused:
            self.transport.pauseReading()
        if self.hooks.sessionUpgraded is not None:
            self.hooks.sessionUpgraded(self)
        self._flush()

    def upgradeFailed(self) -> None:
        """Called when an upgrade has failed: stay with polling."""
        self.counts.upgrades["failed"] += 1
        self._endUpgrade()
        self._flush()

    def _endUpgrade(self) -> None:
        """Close the WebSocket being probed."""
        upgrade, self._upgrade = self._upgrade, None
        assert upgrade is not None
        upgrade.cancel()

    # -- the end -------------------------------------------------------------

    def close(self, reason: CloseReason = CloseReason.FORCED_CLOSE) -> None:
        """
        Close the session in order: deliver the buffered packets, then close the transport.

        The receiver is told of the end at once.  A client has ``closeTimeout`` seconds to
        fetch the buffered packets.
        """
        if self.state is not State.OPEN:
            return
        self._tellEnd(State.CLOSING, reason)
        if self._isClosing:  # unless the receiver has aborted the session
            self.startTimer(self.settings.closeTimeout, lambda: self.abort(CloseReason.SLOW_CONSUMER))
            self._flush()

    @property
    def _isClosing(self) -> bool:
        return self.state is State.CLOSING

    def transportLost(self, transport: ITransport, reason: CloseReason, why: str = "") -> None:
        """
        Called when a transport is lost or cannot be used any more.

        :param reason: for the receiver.
        :param why: for the log; no payload.
        """
        if transport is self.transport:
            self.abort(reason, why)
        elif self._upgrade is not None and transport is self._upgrade.transport:
            self._upgrade.fail(why or reason)

    def abort(self, reason: CloseReason, why: str = "") -> None:
        """
        End the session at once; buffered packets are dropped.

        :param why: for the log, if anything; no payload.
        """
        if self.state is State.CLOSED:
            return
        if why:
            _log.limited(
                reason,
                LogLevel.info,
                "session {session}: {reason}: {why}",
                session=self.label,
                reason=reason,
                why=why,
            )
        if self.state is State.OPEN:
            self._tellEnd(State.CLOSED, reason)
        self.state = State.CLOSED
        self.transport.close(reason)
        self._finish()

    def _tellEnd(self, state: State, reason: CloseReason) -> None:
        """Leave OPEN for another state, and tell the receiver."""
        self.state = state
        self.closeReason = reason
        try:
            self.receiver.sessionClosed(reason)
        except Exception:
            _log.failure("session {session}: the receiver failed when told of the end", session=self.label)

    def _finish(self) -> None:
        """Release everything that the session holds, and tell the engine."""
        if self._upgrade is not None:
            self._endUpgrade()
        self._queue = ()
        self.counts.buffered -= self.buffered
        self.buffered = 0
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._ended(self)
        # An application may keep the session, which must not keep a WebSocket's 8 kB.
        self.transport = NoTransport(self.transport.name)

    def startTimer(self, delay: float, call: Callable[[], Any]) -> None:
        """Start the session's only timer, of the heartbeat or of closing, in place of a running one."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timers.callLater(delay, call)
