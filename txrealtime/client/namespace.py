"""
A client's namespace: the events that it sends and gets at one path of the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txrealtime.client.acks import Acks
from txrealtime.client.admission import Admission, rejection
from txrealtime.client.buffer import Buffer
from txrealtime.client.decorators import Decorators
from txrealtime.client.handlers import NO_ACK, Handlers, Turns
from txrealtime.client.recovery import Recovery
from txrealtime.client.retries import Retries
from txrealtime.client.waiters import Waiters
from txrealtime.engineio.interfaces import CloseReason
from txrealtime.engineio.packet import Packet as Message
from txrealtime.engineio.packet import message
from txrealtime.errors import (
    Disconnected,
    LimitExceeded,
    PayloadTooLarge,
    TransportError,
)
from txrealtime.logs import Logger
from txrealtime.socketio.handler import PLAIN
from txrealtime.socketio.packet import RESERVED, Packet, PacketType, checkName

if TYPE_CHECKING:
    from txrealtime.client.connection import Connection

__all__ = ["ACK_TIMEOUT", "Namespace"]

_log = Logger()

ACK_TIMEOUT: Final = -1.0
"""The default of ``timeout``, which stands for the setting ``ackTimeout``."""


# Members of an enumeration cost a call to look up.
_EVENT: Final = PacketType.EVENT
_ACK: Final = PacketType.ACK

# Packet(...) takes three times as long.
_newTuple: Final = tuple.__new__


class Namespace(Decorators):
    """
    One namespace of a :class:`~txrealtime.client.Client`; made by :meth:`Client.namespace`.

    It connects with the client's connection, and again after each reconnection.  Events that are emitted
    before that wait in a buffer of ``maxBuffered`` bytes.

    :ivar path: the path, such as ``/chat``.
    :ivar id: the id that the server has given, or ``None`` while the namespace is not connected.
    :ivar recovered: true if the server has restored the state of the last connection: missed events have
        come.
    """

    def __init__(self, connection: Connection, path: str, auth: Any) -> None:
        self.path = path
        self.id: str | None = None
        self.recovered = False
        self._connection = connection
        self._settings = connection.settings
        self._auth = auth
        self._handlers = Handlers(path)
        self._turns = Turns(connection.checkWaiting)
        self._buffer = Buffer()
        self._recovery = Recovery()
        self._ids = count()
        self._acks = Acks(connection.reactor, self._buffer.remove)
        self._retries: Retries | None = None
        if self._settings.retries is not None:
            self._retries = Retries(self._settings.retries, self._askReserved)
        self._waiters = Waiters()
        # True while the namespace is to be connected whenever there is a connection.
        self._wanted = True
        self._lastError: Exception | None = None
        # The number of the connection, so that an ack of an earlier one is not sent on a later one.
        self._era = 0
        self._admission: Admission | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} {'connected' if self.connected else 'not connected'}>"

    @property
    def connected(self) -> bool:
        """True while the server has admitted the client to this namespace."""
        return self.id is not None

    @property
    def buffered(self) -> int:
        """Bytes of events that wait for this namespace to connect, or for the retry of an earlier event."""
        return self._buffer.size + (self._retries.size if self._retries is not None else 0)

    def _registry(self) -> Handlers:
        return self._handlers

    # -- sending -------------------------------------------------------------------

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """
        Send an event.  While the namespace is not connected, the event waits in the buffer.

        :param args: JSON values, bytes-like ones anywhere among them.
        :param volatile: drop the event if it cannot leave at once.
        :raises TypeError: if a value cannot be sent; the message has the path to it.
        :raises ValueError: if the name is reserved, or JSON lacks a number.
        :raises LimitExceeded: if more than ``maxBuffered`` bytes would wait.
        :raises PayloadTooLarge: if the event is larger than the server accepts.
        """
        if event.__class__ is not str or event in RESERVED:
            checkName(event)
        if self._retries is None or volatile:
            self._send(event, args, None, volatile)
        else:
            self._retry(event, args, self._settings.ackTimeout).addErrback(self._givenUp, event)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``."""
        self.emit("message", *args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float | None = ACK_TIMEOUT) -> Deferred[Any]:
        """
        Send an event and wait for its ack.

        :param timeout: seconds, or ``None`` for no limit; by default the setting ``ackTimeout``.  With
            ``retries``, each try has so long.
        :return: a Deferred of the server's ack: ``None`` for nothing, one value as it is, several as a tuple.
            To cancel it gives up the ack, and the event too if it has not been sent.  It fails with
            :exc:`~txrealtime.errors.AckTimeout`, or at once with :exc:`~txrealtime.errors.Disconnected` if
            the connection is lost after the event was sent.
        :raises TypeError: if a value cannot be sent, as for :meth:`emit`.
        :raises ValueError: if the name is reserved, as for :meth:`emit`, or the timeout is below 0.
        """
        return self._ask(event, args, timeout)

    def _askReserved(self, event: str, args: tuple[Any, ...], timeout: float | None) -> Deferred[Any]:
        """Send an event of the queue of retries, which has its room in the buffer."""
        return self._ask(event, args, timeout, True)

    def _ask(
        self, event: str, args: tuple[Any, ...], timeout: float | None, reserved: bool = False
    ) -> Deferred[Any]:
        if event.__class__ is not str or event in RESERVED:
            checkName(event)
        if timeout == ACK_TIMEOUT:
            timeout = self._settings.ackTimeout
        elif timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is {timeout!r}, expected seconds, or None for no limit")
        if self._retries is not None and not reserved:
            return self._retry(event, args, timeout)
        id = next(self._ids)
        ack = self._acks.expect(id, event, timeout)
        try:
            self._send(event, args, id, False, reserved)
        except Exception:
            self._acks.drop(id)
            raise
        session = self._connection.session
        if session is not None and not session.isReading:
            # The ack may be among what is not read.
            self._connection.checkWaiting()
        return ack

    def _retry(self, event: str, args: tuple[Any, ...], timeout: float | None) -> Deferred[Any]:
        assert self._retries is not None
        size = _size(self._encode(Packet(_EVENT, self.path, [event, *args])))
        self._connection.checkRoom(size)
        return self._retries.add(event, args, timeout, size)

    def _givenUp(self, failure: Failure, event: str) -> None:
        _log.warn(
            "{namespace}: the event {event!r} was not acked: {reason}",
            namespace=self.path,
            event=event[:100],
            reason=str(failure.value),
        )

    def _send(
        self, event: str, args: tuple[Any, ...], id: int | None, volatile: bool, reserved: bool = False
    ) -> None:
        connection = self._connection
        parts = connection.parser.encode(_newTuple(Packet, (_EVENT, self.path, [event, *args], id)))
        session = connection.session
        if len(parts) == 1 and self.id is not None and session is not None and session.sendNow(parts[0]):
            return
        messages = [message(part) for part in parts]
        isConnected = self.connected and not connection.isOverdue
        if isConnected:
            connection.checkSize(messages)
        if volatile:
            if isConnected and connection.isWritable:
                connection.send(messages)
            return
        if not reserved:
            connection.checkRoom(_size(messages))
        if isConnected:
            connection.send(messages)
        else:
            self._buffer.add(messages, _size(messages), id)

    def _encode(self, packet: Packet) -> list[Message]:
        return self._connection.encode(packet)

    # -- connecting ----------------------------------------------------------------

    def connect(self) -> None:
        """Connect again after a refusal, a disconnect of either side, or a failure for good."""
        if not self._wanted:
            self._wanted = True
            self._lastError = None
            self._connection.update(self)

    def disconnect(self) -> None:
        """Leave the namespace, until :meth:`connect` is called."""
        self._wanted = False
        self._lastError = Disconnected("the application has disconnected")
        self._leave()
        self._waiters.fail(self._lastError)
        self._connection.update(self)

    def whenConnected(self, failAfterFailures: int | None = None) -> Deferred[Namespace]:
        """
        Wait for the namespace to be connected.

        :param failAfterFailures: attempts to connect after which the Deferred fails; ``None`` for no limit.
        :return: a Deferred of this object.  It fails with :exc:`~txrealtime.errors.ConnectionRejected` if the
            server refuses the client, and with the last error if the client gives up.
        """
        if self.connected:
            return succeed(self)
        if not self._wanted and self._lastError is not None:
            return fail(self._lastError)
        return self._waiters.add(failAfterFailures)

    # -- for the connection ----------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """True if the namespace is to be connected."""
        return self._wanted

    @property
    def waiting(self) -> tuple[int, int]:
        """The number and the bytes of events that wait for handlers."""
        return len(self._turns.waiting), self._turns.size

    @property
    def awaitsAck(self) -> bool:
        """True while an ack is still to come."""
        return bool(self._acks)

    def setAuth(self, auth: Any) -> None:
        """Replace the auth value, or the function that returns it."""
        self._auth = auth

    def ask(self) -> None:
        """Ask the server for admission; called when there is a session."""
        if self._wanted and not self.connected and self._admission is None:
            self._admission = Admission(
                self._connection, self.path, self._auth, self._recovery, self._refused
            )
            self._admission.ask()

    def _endAdmission(self) -> list[tuple[Packet, int]]:
        """Ask no longer; return the events that came meanwhile."""
        admission, self._admission = self._admission, None
        if admission is None:
            return []
        admission.stop()
        return admission.early

    def packetReceived(self, packet: Packet, size: int) -> None:
        """Called with each packet of this namespace, in order."""
        type, _, data, id = packet
        if type is _EVENT:
            turns = self._turns
            if self.id is None or turns.isBusy:
                self._eventReceived(packet, size)
                return
            # As _eventReceived(), _handle() and Turns.add(), without their calls.
            event = data.pop(0)
            if id is None and self._recovery.isOffered:
                data = self._recovery.stripped(data)
            turns.isBusy = True
            result = self._handlers.dispatch(self, event, data)
            if id is not None:
                result = self._acknowledgeWhen(result, id, self._era)
            if result is None and not turns.waiting:
                turns.isBusy = False
            else:
                turns.ended(result)
        elif type is _ACK:
            self._acks.received(id, data)
        elif type is PacketType.CONNECT:
            if self._admission is not None:
                self._admitted(data)
        elif type is PacketType.CONNECT_ERROR:
            if self._admission is not None:
                self._refused(rejection(data))
        elif type is PacketType.DISCONNECT:
            self._dismissed()

    def _admitted(self, data: Any) -> None:
        early = self._endAdmission()
        id = data.get("sid") if data else None
        if not isinstance(id, str):
            self._refused(
                TransportError(
                    "the server admits clients without an id, as Socket.IO 2 does; this client needs "
                    "Socket.IO 3 or newer"
                )
            )
            return
        self.id = id
        self.recovered = self._recovery.admitted(data.get("pid"), data.get("offset"))
        self._era += 1
        for packet, size in early:
            self._eventReceived(packet, size)
        self._sendBuffered()
        if self._retries is not None:
            self._retries.connected()
        if not self.connected:
            return
        self._turns.add(self._handlers.tell, "onConnect")
        self._waiters.fire(self)

    def _sendBuffered(self) -> None:
        for messages, id in self._buffer.take():
            try:
                self._connection.checkSize(messages)
            except Exception as error:
                if id is None or not self._acks.fail(id, error):
                    _log.error(
                        "{namespace}: an event was dropped: {reason}", namespace=self.path, reason=str(error)
                    )
            else:
                self._connection.send(messages)

    def _refused(self, error: Exception) -> None:
        """Called when the server does not want the client: no further attempt until connect()."""
        self._endAdmission()
        self._wanted = False
        self._lastError = error
        self._tellError(error)
        self._waiters.fail(error)
        self._connection.update(self)

    def _dismissed(self) -> None:
        """Called when the server has sent a DISCONNECT."""
        if self.connected or self._admission is not None:
            self._wanted = False
            self._lastError = Disconnected(f"the client was disconnected: {CloseReason.SERVER_DISCONNECT}")
            self.left(CloseReason.SERVER_DISCONNECT)
            self._waiters.fail(self._lastError)
            self._connection.update(self)

    def failed(self, error: Exception, final: bool) -> None:
        """
        Called when an attempt to connect has failed.

        :param final: true if the client gives up.
        """
        self._tellError(error)
        if final:
            self._wanted = False
            self._lastError = error
            self._waiters.fail(error)
        else:
            self._waiters.attemptFailed(error)

    def _tellError(self, error: Exception) -> None:
        if self._handlers.has("onConnectError"):
            self._turns.add(self._handlers.tell, "onConnectError", error)
        else:
            _log.warn("{namespace}: not connected: {reason}", namespace=self.path, reason=str(error)[:300])

    def stopped(self) -> None:
        """Called when the client stops: nothing waits any longer."""
        self._leave()
        error = Disconnected("the client has stopped")
        self._buffer.clear()
        if self._retries is not None:
            self._retries.drop(error)
        self._acks.failAll(error, lambda id: True)
        self._waiters.fail(error)

    def _leave(self) -> None:
        if self.connected:
            self._connection.send(self._encode(Packet(PacketType.DISCONNECT, self.path)))
        self.left(CloseReason.CLIENT_DISCONNECT)

    def left(self, reason: CloseReason) -> None:
        """Called when the namespace is not connected any longer, or will not be on this session."""
        wasConnected = self.connected
        self._endAdmission()
        self._era += 1
        self.id = None
        self.recovered = False
        if self._retries is not None:
            self._retries.disconnected()
        self._acks.failAll(
            Disconnected(f"the connection was lost: {reason}"), lambda id: id not in self._buffer
        )
        if wasConnected:
            self._turns.add(self._handlers.tell, "onDisconnect", reason)

    # -- events ----------------------------------------------------------------------

    def _eventReceived(self, packet: Packet, size: int) -> None:
        if self.id is None:
            if self._admission is not None:
                self._admission.hold(packet, size)
            return
        event, args = packet.data[0], packet.data[1:]
        if packet.id is None and self._recovery.isOffered:
            args = self._recovery.stripped(args)
        self._turns.add(self._handle, event, args, packet.id, self._era, size=size)

    def _handle(self, event: str, args: list[Any], id: int | None, era: int) -> Any:
        result = self._handlers.dispatch(self, event, args)
        return result if id is None else self._acknowledgeWhen(result, id, era)

    def _acknowledgeWhen(self, result: Any, id: int, era: int) -> Any:
        """Send an ack, now or when a Deferred fires."""
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            return result.addCallback(self._acknowledge, id, era)
        self._acknowledge(result, id, era)
        return None

    def _acknowledge(self, result: Any, id: int, era: int) -> None:
        if result is NO_ACK or era != self._era or not self.connected:
            return
        data = [] if result is None else list(result) if isinstance(result, tuple) else [result]
        session = self._connection.session
        try:
            parts = self._connection.parser.encode(_newTuple(Packet, (_ACK, self.path, data, id)))
            if len(parts) == 1 and session is not None and session.sendNow(parts[0]):
                return
            messages = [message(part) for part in parts]
            self._connection.checkSize(messages)
            self._connection.checkRoom(_size(messages))
        except (TypeError, ValueError, LimitExceeded, PayloadTooLarge):
            _log.failure("{namespace}: an ack cannot be sent", namespace=self.path)
        else:
            self._connection.send(messages)


def _size(messages: Sequence[Message]) -> int:
    """Return the bytes of messages."""
    return sum([len(message.wire) for message in messages])
