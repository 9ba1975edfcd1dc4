"""
One Engine.IO session of a client, with everything that affects its state.

::

    OPENING ──OPEN packet──> OPEN ──close()──> CLOSING ──queue is sent──> CLOSED
       └───────────────────────┴──abort(), or the transport is lost─────────┘

A session begins over the first transport, and may move from polling to a WebSocket.  During the move, packets
wait: nothing is lost, and the order is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.client.handshake import readHandshake
from txrealtime.client.heartbeat import Heartbeat
from txrealtime.client.interfaces import Receiver, Transport
from txrealtime.client.settings import ClientSettings
from txrealtime.engineio.interfaces import CloseReason
from txrealtime.engineio.packet import Packet, PacketType, message
from txrealtime.errors import ProtocolError, TransportError
from txrealtime.logs import Logger

__all__ = ["Session", "State", "encodedSize"]

_log = Logger()

_MESSAGE: Final = PacketType.MESSAGE
_PONG: Final = Packet(PacketType.PONG)
_PROBE: Final = Packet(PacketType.PING, "probe")
_UPGRADE: Final = Packet(PacketType.UPGRADE)

# Packets in one POST: python-engineio refuses more.
_BATCH: Final = 16

_MANY: Final = 1 << 62


class State(Enum):
    """The stages of a session's life."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


_OPEN: Final = State.OPEN


def encodedSize(packet: Packet) -> int:
    """Return the bytes of a packet in a payload of long polling, where binary packets are in base64."""
    size = len(packet.wire)
    return 1 + (size + 2) // 3 * 4 if packet.isBinary else size


class Session:
    """
    A session.

    :param receiver: the owner.
    :param transports: the names of the transports to use, in order.
    :param make: makes a transport for this session by its name.
    :ivar state: a :class:`State`.
    :ivar sid: the session's id: a bearer secret, never logged.
    :ivar maxPayload: bytes that the server accepts in one message or request, or ``None`` if it does not say.
    :ivar buffered: bytes that wait for the transport.
    :ivar isReading: false between :meth:`pauseReading` and :meth:`resumeReading`.
    """

    def __init__(
        self,
        receiver: Receiver,
        transports: Sequence[str],
        make: Callable[[str, Session], Transport],
        settings: ClientSettings,
        reactor: IReactorTime,
    ) -> None:
        self.state = State.OPENING
        self.sid = ""
        self.maxPayload: int | None = None
        self.buffered = 0
        self._receiver = receiver
        self._names = list(transports)
        self._make = make
        self._settings = settings
        self._reactor = reactor
        self._transport: Transport | None = None
        self._probe: Transport | None = None
        self._switching = False
        self._queue: deque[Packet] = deque()
        self._timer: IDelayedCall | None = None
        self._probeTimer: IDelayedCall | None = None
        self._upgrades: list[Any] = []
        self._pongWaits = False
        self._easySize = 0
        self._heartbeat = Heartbeat(reactor, self._pingMissed)
        self.isReading = True
        self._closed: list[Deferred[None]] = []

    # -- opening -----------------------------------------------------------------

    def open(self) -> None:
        """Connect to the server."""
        self._timer = self._reactor.callLater(self._settings.timeout, self._tooLate)
        self._openTransport()

    def _openTransport(self) -> None:
        self._transport = self._make(self._names[0], self)
        self._transport.open(None)

    def _tooLate(self) -> None:
        self._timer = None
        seconds = self._settings.timeout
        self._fail(
            TransportError(f"the server did not open a session within {seconds:g} s (setting timeout)")
        )

    def _fail(self, error: Exception) -> None:
        """Give up a session that is not open."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if len(self._names) > 1 and self._settings.tryAllTransports and self._timer is not None:
            _log.debug("{transport} failed: {reason}", transport=self._names.pop(0), reason=str(error))
            self._openTransport()
            return
        self._finish()
        self._receiver.sessionFailed(error)

    def _opened(self, transport: Transport, packet: Packet) -> None:
        try:
            self.sid, self._upgrades, patience, self.maxPayload = readHandshake(packet.data)
        except ProtocolError as error:
            self._fail(error)
            return
        # Base64, of binary packets in long polling, takes a third more.
        self._easySize = min((self.maxPayload or _MANY) * 3 // 4, self._settings.maxBuffered)
        self._stopTimer()
        self.state = State.OPEN
        transport.deliver = self._receiver.messageReceived
        transport.joined(self.sid)
        self._heartbeat.start(patience)
        self._receiver.sessionOpened()
        if (
            self.state is State.OPEN
            and self._settings.upgrade
            and transport.name == "polling"
            and "websocket" in self._names
            and "websocket" in self._upgrades
        ):
            self._startProbe()

    # -- the heartbeat -----------------------------------------------------------

    def _pingMissed(self) -> None:
        self._end(CloseReason.PING_TIMEOUT)

    @property
    def isOverdue(self) -> bool:
        """
        True if a PING is missing whose timer has not fired yet, as after a computer was asleep.

        The session ends then, even if the PING comes first: what was not sent now must not be sent later.
        """
        return self.state is _OPEN and self._heartbeat.isOverdue()

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # -- for the transports --------------------------------------------------------

    def transportOpened(self, transport: Transport) -> None:
        if transport is self._probe:
            transport.send([_PROBE])

    def packetReceived(self, transport: Transport, packet: Packet) -> None:
        type = packet.type
        if transport is not self._transport:
            if transport is self._probe and not self._switching:
                self._probeAnswered(packet)
            return
        if self.state is State.OPENING:
            if type is PacketType.OPEN:
                self._opened(transport, packet)
            else:
                self._fail(ProtocolError(f"the server's first packet is {type.name}, expected OPEN"))
        elif type is _MESSAGE:
            if self.state is State.OPEN:
                self._receiver.messageReceived(packet.data)
        elif type is PacketType.PING:
            self._heartbeat.pinged()
            if not self._pongWaits:
                # A server that sends PINGs and does not read would fill the queue.
                self._pongWaits = not self.writable
                self._enqueue((_PONG,))
        elif type is PacketType.CLOSE:
            self._end(CloseReason.TRANSPORT_CLOSE)

    def transportWritable(self, transport: Transport) -> None:
        if transport is self._transport:
            self._flush()

    def transportLost(self, transport: Transport, error: Exception | None) -> None:
        if transport is self._probe:
            self._probeFailed(error or TransportError("the server closed the WebSocket"))
        elif transport is self._transport:
            if self.state is State.OPENING:
                self._transport = None
                self._fail(error or TransportError("the server closed the connection"))
                return
            if error is not None and self.state is State.OPEN:
                _log.info("the connection was lost: {reason}", reason=str(error))
            self._end(CloseReason.TRANSPORT_CLOSE if error is None else CloseReason.TRANSPORT_ERROR)

    # -- sending -------------------------------------------------------------------

    @property
    def transportName(self) -> str:
        """The name of the current transport."""
        return self._transport.name if self._transport is not None else ""

    @property
    def writable(self) -> bool:
        """True if a packet leaves at once."""
        transport = self._transport
        return (
            transport is not None
            and self.state is State.OPEN
            and transport.writable
            and not self._switching
            and not self._queue
        )

    def sendNow(self, data: str | bytes) -> bool:
        """
        Send the data of a MESSAGE on a fast path, if nothing at all is in its way.

        :return: ``False`` if the message was not sent: it would wait, or may be too large.
        """
        transport = self._transport
        if (
            transport is None
            or not transport.writable
            or self._queue
            or self._switching
            or self.state is not _OPEN
            # UTF-8 has 4 bytes at most for a character, and one goes before.
            or (4 * len(data) >= self._easySize and len(message(data).wire) > self._easySize)
            or self._reactor.seconds() >= self._heartbeat.due
        ):
            return False
        transport.sendMessage(data)
        return True

    def send(self, packets: Sequence[Packet]) -> None:
        """Send packets in order, with no other packet between them; once the session closes, do nothing."""
        if self.state is State.OPEN:
            self._enqueue(packets)

    def _enqueue(self, packets: Sequence[Packet]) -> None:
        transport = self._transport
        if transport is not None and len(packets) == 1 and self.writable:
            transport.send(packets)
            return
        self._queue.extend(packets)
        self.buffered += sum([len(packet.wire) for packet in packets])
        self._flush()

    def _flush(self) -> None:
        transport = self._transport
        while transport is not None and self._queue and transport.writable and not self._switching:
            transport.send(self._takeBatch(transport))
            transport = self._transport
        self._closeIfDone()

    def _takeBatch(self, transport: Transport) -> Sequence[Packet]:
        """Take the packets that go in one request; over WebSocket, all."""
        limit = (self.maxPayload or _MANY) if transport.name == "polling" else None
        batch: list[Packet] = []
        size = 0
        while self._queue:
            packet = self._queue[0]
            if limit is not None:
                size += encodedSize(packet) + 2
                if batch and (size > limit or len(batch) == _BATCH):
                    break
            batch.append(self._queue.popleft())
            self.buffered -= len(packet.wire)
            if packet is _PONG:
                self._pongWaits = False
        return batch

    # -- reading -------------------------------------------------------------------

    def pauseReading(self) -> None:
        """Take no more from the server; PINGs wait too, so the server may end the session."""
        if self.isReading:
            self.isReading = False
            self._heartbeat.pause()
            if self._transport is not None:
                self._transport.pauseReading()

    def resumeReading(self) -> None:
        """Go on after :meth:`pauseReading`."""
        if not self.isReading:
            self.isReading = True
            self._heartbeat.resume()
            if self._transport is not None:
                self._transport.resumeReading()

    # -- the upgrade ---------------------------------------------------------------

    def _startProbe(self) -> None:
        self._probe = self._make("websocket", self)
        self._probeTimer = self._reactor.callLater(self._settings.upgradeTimeout, self._probeLate)
        self._probe.open(self.sid)

    def _probeLate(self) -> None:
        self._probeTimer = None
        seconds = self._settings.upgradeTimeout
        self._probeFailed(TransportError(f"the probe was not answered within {seconds:g} s (upgradeTimeout)"))

    def _probeAnswered(self, packet: Packet) -> None:
        if packet.type is not PacketType.PONG or packet.data != "probe":
            self._probeFailed(ProtocolError(f"the probe was answered by {packet.type.name}"))
            return
        # From here on nothing is sent: packets wait for the WebSocket.
        self._switching = True
        assert self._transport is not None
        self._transport.pause(self._switch)

    def _switch(self) -> None:
        """Called when polling is idle."""
        old, probe = self._transport, self._dropProbe()
        assert old is not None and probe is not None
        old.abort()
        self._transport = probe
        self._switching = False
        if not self.isReading:
            probe.pauseReading()
        probe.send([_UPGRADE])
        if self.state is State.OPEN:
            probe.deliver = self._receiver.messageReceived
            self._receiver.sessionUpgraded()
        self._flush()

    def _probeFailed(self, error: Exception) -> None:
        """Stay with polling."""
        probe = self._dropProbe()
        if probe is not None:
            probe.abort()
        _log.info("no upgrade to WebSocket: {reason}", reason=str(error))
        if self._switching:
            self._switching = False
            if self._transport is not None:
                self._transport.resume()
            self._flush()

    def _dropProbe(self) -> Transport | None:
        probe, self._probe = self._probe, None
        timer, self._probeTimer = self._probeTimer, None
        if timer is not None and timer.active():
            timer.cancel()
        return probe

    # -- the end -------------------------------------------------------------------

    def close(self) -> Deferred[None]:
        """
        Send what waits, then close in an orderly way.  The receiver hears nothing more.

        :return: a Deferred that fires when the transport has ended, at the latest after ``closeTimeout``.
        """
        gone: Deferred[None] = Deferred()
        if self.state is State.CLOSED:
            gone.callback(None)
            return gone
        self._closed.append(gone)
        if self.state is State.OPENING:
            self._finish()
        elif self.state is State.OPEN:
            self.state = State.CLOSING
            if self._transport is not None:
                self._transport.deliver = None
            self._heartbeat.stop()
            self._timer = self._reactor.callLater(self._settings.closeTimeout, self._finish)
            if not self._switching:
                probe = self._dropProbe()
                if probe is not None:
                    probe.abort()
            # A transport that does not read may not hear of its own end.
            self.resumeReading()
            self._closeIfDone()
        return gone

    def _closeIfDone(self) -> None:
        transport = self._transport
        if self.state is not State.CLOSING or self._queue or self._switching:
            return
        if transport is not None and transport.writable:
            transport.close()

    def abort(self, reason: CloseReason) -> None:
        """End the session at once, and tell the receiver this reason."""
        if self.state is State.OPEN:
            self._end(reason)
        else:
            self._finish()

    def _end(self, reason: CloseReason) -> None:
        wasOpen = self.state is State.OPEN
        self._finish()
        if wasOpen:
            self._receiver.sessionClosed(reason)

    def _finish(self) -> None:
        """Let go of everything; nobody is told but those who wait for the end."""
        self.state = State.CLOSED
        self._heartbeat.stop()
        self._stopTimer()
        transport, self._transport = self._transport, None
        for each in (self._dropProbe(), transport):
            if each is not None:
                each.abort()
        self._queue.clear()
        self.buffered = 0
        closed, self._closed = self._closed, []
        for gone in closed:
            gone.callback(None)
