"""
A client's connection: its namespaces on one session at a time, and the next session after the end of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.client.backoff import Backoff
from txrealtime.client.interfaces import Receiver
from txrealtime.client.namespace import Namespace
from txrealtime.client.session import Session, State, encodedSize
from txrealtime.client.settings import ClientSettings
from txrealtime.engineio.interfaces import CloseReason
from txrealtime.engineio.packet import Packet as Message
from txrealtime.engineio.packet import message
from txrealtime.errors import LimitExceeded, PacketError, PayloadTooLarge, TransportError
from txrealtime.logs import Logger
from txrealtime.socketio.packet import IDecoder, IParser, Packet

__all__ = ["Connection"]

_log = Logger()

# With an ack still to come, which a handler may be waiting for, so many times as many events may wait.
_PATIENCE: Final = 4


class Connection:
    """
    The connection of one :class:`~txrealtime.client.Client`.

    :param open: makes a session of a receiver, with the names of transports to use in order.
    :param random: returns a number from 0 to 1, without 1.
    :ivar parser: turns packets into messages and back.
    :ivar namespaces: the namespaces, by path.
    :ivar session: the current session, opening or open, or ``None``.
    """

    def __init__(
        self,
        open: Callable[[Receiver, Sequence[str]], Session],
        settings: ClientSettings,
        reactor: IReactorTime,
        parser: IParser,
        random: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.namespaces: dict[str, Namespace] = {}
        self.session: Session | None = None
        self._open = open
        self.parser = parser
        self._decoder: IDecoder | None = None
        self._arrived = 0
        self._backoff = Backoff(
            settings.reconnectionDelay, settings.reconnectionDelayMax, settings.randomizationFactor, random
        )
        self._transports = list(settings.transports)
        self._isRunning = False
        self._delay: IDelayedCall | None = None
        self._closing: list[Deferred[None]] = []

    def namespace(self, path: str, auth: Any) -> Namespace:
        """
        Return the namespace at a path; make it if there is none.

        :raises ValueError: if the path has a comma, which ends it on the wire: servers close the connection.
        :raises TypeError: if the auth value is none.
        """
        if "," in path:
            raise ValueError(f"a namespace's path has no comma; {path!r} has one")
        if auth is not None and not isinstance(auth, Mapping) and not callable(auth):
            raise TypeError(f"auth is {type(auth).__name__}, expected a dict or None, or a function of one")
        namespace = self.namespaces.get(path)
        if namespace is None:
            namespace = self.namespaces[path] = Namespace(self, path, auth)
            self.update(namespace)
        elif auth is not None:
            namespace.setAuth(auth)
        return namespace

    # -- running -------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and stay connected."""
        self._isRunning = True
        self.update()

    def stop(self) -> Deferred[Any]:
        """
        Leave all namespaces and close the session.

        :return: a Deferred that fires when the session has ended.
        """
        self._isRunning = False
        for namespace in list(self.namespaces.values()):
            namespace.stopped()
        self.update()
        return DeferredList(list(self._closing))

    @property
    def _isWanted(self) -> bool:
        return self._isRunning and any(namespace.wanted for namespace in self.namespaces.values())

    def update(self, changed: Namespace | None = None) -> None:
        """Called when the application wants another state: open a session, or close the one there is."""
        if not self._isWanted:
            self._stopDelay()
            self._backoff.reset()
            self._closeSession()
        elif self.session is None:
            if self._delay is None:
                self._connect()
        elif self.session.state is State.OPEN and changed is not None:
            changed.ask()

    def _connect(self) -> None:
        self._delay = None
        self._arrived = 0
        self._decoder = self.parser.decoder(self.settings.maxAttachments)
        self.session = self._open(self, self._transports)
        self.session.open()

    def _stopDelay(self) -> None:
        delay, self._delay = self._delay, None
        if delay is not None:
            delay.cancel()

    def _closeSession(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            gone = session.close()
            self._closing.append(gone)
            gone.addCallback(lambda _: self._closing.remove(gone))

    # -- for the session -------------------------------------------------------------

    def sessionOpened(self) -> None:
        self._backoff.reset()
        for namespace in list(self.namespaces.values()):
            namespace.ask()

    def sessionFailed(self, error: Exception) -> None:
        self.session = None
        # The way to a remembered WebSocket may be closed now.
        self._transports = list(self.settings.transports)
        if self._isWanted:
            self._retry(error, lost=False)

    def sessionUpgraded(self) -> None:
        if self.settings.rememberUpgrade:
            self._transports.sort(key="websocket".__ne__)

    def messageReceived(self, data: str | bytes) -> None:
        decoder = self._decoder
        if decoder is None:
            return
        size = self._arrived + len(data)
        try:
            packet = decoder.feed(data)
            if packet is None and size > self.settings.maxPayload:
                raise PacketError("attachments of more than maxPayload")
        except PacketError as error:
            _log.warn("the server sent a packet that cannot be read: {reason}", reason=str(error))
            self.abort(CloseReason.PARSE_ERROR)
            return
        if packet is None:
            self._arrived = size
            return
        self._arrived = 0
        namespace = self.namespaces.get(packet.namespace)
        if namespace is not None:
            namespace.packetReceived(packet, size)

    def sessionClosed(self, reason: CloseReason) -> None:
        self._decoder = None
        self.session = None
        for namespace in list(self.namespaces.values()):
            namespace.left(reason)
        # A handler may have connected or stopped the client meanwhile.
        if self._isWanted and self.session is None and self._delay is None:
            self._retry(TransportError(f"the connection was lost: {reason}"), lost=True)

    def _retry(self, error: Exception, lost: bool) -> None:
        """
        Connect again after a delay, unless that is not allowed.

        :param lost: true after the end of an open session, which is no failed attempt.
        """
        settings = self.settings
        attempts = settings.reconnectionAttempts
        final = not settings.reconnection or (attempts is not None and self._backoff.attempts >= attempts)
        if final:
            self._backoff.reset()
        else:
            self._delay = self.reactor.callLater(self._backoff.next(), self._connect)
        if final or not lost:
            for namespace in list(self.namespaces.values()):
                if namespace.wanted:
                    namespace.failed(error, final)

    def abort(self, reason: CloseReason) -> None:
        """End the session at once; the next one follows."""
        if self.session is not None:
            self.session.abort(reason)

    # -- for the namespaces ------------------------------------------------------------

    def encode(self, packet: Packet) -> list[Message]:
        """Encode a packet as messages."""
        return [message(part) for part in self.parser.encode(packet)]

    def send(self, messages: Sequence[Message]) -> None:
        """Send the messages of one packet, if there is a session."""
        if self.session is not None:
            self.session.send(messages)

    @property
    def isOverdue(self) -> bool:
        """True if the server's heartbeat is missing, so the connection counts as lost."""
        return self.session is None or self.session.isOverdue

    @property
    def isWritable(self) -> bool:
        """True if a packet leaves at once."""
        return self.session is not None and self.session.writable

    @property
    def buffered(self) -> int:
        """Bytes that wait for the connection, or for a namespace to connect."""
        waiting = 0 if self.session is None else self.session.buffered
        return waiting + sum([namespace.buffered for namespace in self.namespaces.values()])

    def checkRoom(self, size: int) -> None:
        """
        Check that so many bytes may wait.

        :raises LimitExceeded: if the buffers are full.
        """
        limit = self.settings.maxBuffered
        if size > limit or self.session is None or not self.session.writable:
            buffered = self.buffered
            if buffered and buffered + size > limit:
                raise LimitExceeded(
                    f"{buffered} bytes wait for the connection, and {size} more exceed {limit} (setting "
                    "maxBuffered): emit volatile events, or wait with whenConnected()"
                )

    def checkSize(self, messages: Sequence[Message]) -> None:
        """
        Check that the server accepts messages of this size.

        :raises PayloadTooLarge: if one is too large.
        """
        session = self.session
        if session is None or session.maxPayload is None:
            return
        for each in messages:
            size = encodedSize(each) if session.transportName == "polling" else len(each.wire)
            if size > session.maxPayload:
                raise PayloadTooLarge(
                    f"a message of {size} bytes, and the server accepts {session.maxPayload} (its setting "
                    "maxPayload, or maxHttpBufferSize on Node)"
                )

    def checkWaiting(self) -> None:
        """Pause reading while too many events wait for their handlers."""
        if self.session is None:
            return
        count = size = 0
        awaitsAck = False
        for namespace in self.namespaces.values():
            waiting, bytes = namespace.waiting
            count += waiting
            size += bytes
            awaitsAck = awaitsAck or namespace.awaitsAck
        # The ack that a handler waits for may come right behind.
        patience = _PATIENCE if awaitsAck else 1
        settings = self.settings
        if count > patience * settings.maxWaiting or size > patience * settings.maxPayload:
            self.session.pauseReading()
        else:
            self.session.resumeReading()
