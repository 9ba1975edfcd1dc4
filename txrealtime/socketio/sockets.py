"""
Sockets: an application's handle of one client in one namespace.

A :class:`Socket` sends.  Events of the client go from the connection to the namespace's handlers, and never
through the socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, overload

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import AckTimeout, Disconnected, LimitExceeded
from txrealtime.socketio.acks import ackValue, simplified
from txrealtime.socketio.audience import Audience
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.packet import Packet, PacketType, checkName
from txrealtime.socketio.past import Limit, checkLimit
from txrealtime.socketio.rooms import checkRooms

if TYPE_CHECKING:
    from collections import deque

    from twisted.internet.interfaces import IDelayedCall

    from txrealtime.socketio.connection import Connection
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.tickets import Ticket

__all__ = ["Socket"]


class Socket:
    """
    A client in a namespace.

    :ivar id: its public id, different in each namespace and from the session's.  Clients of Engine.IO 3
        derive theirs from the session's id; see :doc:`/howto/old-clients`.
    :ivar namespace: its :class:`~txrealtime.socketio.namespace.Namespace`.
    :ivar handshake: the opening request and ``auth``, a :class:`~txrealtime.Handshake`.
    :ivar data: a dictionary for the application.
    :ivar session: the Engine.IO session, shared by the client's namespaces.
    :ivar connected: true from its admission until it leaves, but not while :attr:`away`.
    :ivar recovered: true if the client has come back after a cut, with its rooms and ``data``; already true
        when :meth:`Namespace.connected` is called.  See :doc:`/howto/recovery`.
    :ivar away: true while the client has lost its connection and may come back, with ``recoveryAway``.
    """

    __slots__ = (
        "__weakref__",
        "_acks",
        "_connection",
        "_draining",
        "_gone",
        "_goodbye",
        "_held",
        "_heldBytes",
        "_joined",
        "_leftBecause",
        "_running",
        "_ticket",
        "_waiting",
        "away",
        "connected",
        "data",
        "handshake",
        "id",
        "namespace",
        "recovered",
        "session",
    )

    def __init__(self, namespace: Namespace, connection: Connection, handshake: Handshake, id: str) -> None:
        self.id = id
        self.namespace = namespace
        self.handshake = handshake
        self.data: dict[str, Any] = {}
        self.connected = False
        self.recovered = False
        self.away = False
        self._leftBecause: CloseReason | None = None
        # The right to come back, if the client has one.
        self._ticket: Ticket | None = None
        # Rooms keeps the rooms here, and Connection the events that wait for their handlers.
        self._joined: set[str] = set()
        self._waiting: deque[tuple[Packet, int]] | tuple[()] = ()
        self._running = 0
        self._draining = False
        # Set while disconnected() waits for the events that wait; for Connection.
        self._goodbye: IDelayedCall | None = None
        self._connection = connection
        self.session = connection.session
        self._acks: dict[int, Deferred[Any]] = {}
        self._gone: list[Deferred[CloseReason]] = []
        # Messages sent to a socket before its admission reach the client right after it.
        self._held: list[Sequence[engineio.Packet]] | None = []
        self._heldBytes = 0

    def __repr__(self) -> str:
        return f"<Socket {self.label} {self.namespace.path}>"

    @property
    def label(self) -> str:
        """The id for a log, without the session's secret, which the ids of Engine.IO 3's clients contain."""
        return self.id.replace(self.session.sid, self.session.label)

    # -- sending -----------------------------------------------------------------

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """
        Send an event to this client.  Once the client has gone, do nothing, unless it may come back.

        :param args: JSON values, bytes-like ones anywhere among them.
        :param volatile: drop the event if it cannot leave at once.
        :raises TypeError: if a value cannot be sent; the message has the path to it.
        :raises ValueError: if the event's name is reserved, or JSON lacks a number.
        """
        checkName(event)
        namespace = self.namespace
        packet = Packet(PacketType.EVENT, namespace.path, [event, *args])
        messages = namespace._encode(packet)
        namespace._sent.count += 1
        if self._ticket is None:
            self._deliver(messages, volatile)
        else:
            self._ticket.recovery.emit(self, messages, volatile, packet)
        if namespace._hooks.eventSent is not None and self._leftBecause is None:
            namespace._hooks.eventSent((self,), event, args)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``."""
        self.emit("message", *args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float | None = 60.0) -> Deferred[Any]:
        """
        Send an event and wait for its ack.

        :param timeout: seconds, or ``None`` to wait until the client goes.
        :return: a Deferred of the ack: ``None`` for no value, one value as it is, several as a tuple.  It can
            be cancelled, and fails with :exc:`~txrealtime.errors.AckTimeout`, or with
            :exc:`~txrealtime.errors.Disconnected` as soon as the client has gone.
        :raises TypeError: if :meth:`emit` would.
        :raises ValueError: if :meth:`emit` would.
        """
        checkName(event)
        namespace = self.namespace
        id = next(namespace._ids)
        messages = namespace._encode(Packet(PacketType.EVENT, namespace.path, [event, *args], id))
        ack = self._expectAck(id)
        if ack.called:
            return ack
        namespace._sent.count += 1
        if self._ticket is None:
            self._deliver(messages)
        else:
            self._ticket.recovery.inOrder(lambda: self._deliver(messages))
        if namespace._hooks.eventSent is not None:
            namespace._hooks.eventSent((self,), event, args)

        def late(result: Any, seconds: float) -> Any:
            namespace._home.counts.ackTimeouts += 1
            raise AckTimeout(f"no ack of {event!r} within {seconds} s")

        if timeout is not None:
            ack.addTimeout(timeout, namespace.reactor, onTimeoutCancel=late)
        return ack.addCallback(simplified)

    def _expectAck(self, id: int, early: bool = False) -> Deferred[Any]:
        """
        Make a Deferred of the client's ack with this number, in the form of :func:`ackValue`.

        :param early: allow a socket that is not admitted yet.  The ack comes after the admission, so an
            admission that waits for the ack waits for ever.
        """
        if self.away:
            return _failed(Disconnected("the client is away: acks are not recovered"))
        if self._leftBecause is not None:
            return _failed(Disconnected(f"the client has gone: {self._leftBecause}"))
        if self._held is not None and not early:
            return _failed(Disconnected("a client cannot ack before it is admitted: call it from an event"))
        ack: Deferred[Any] = Deferred(lambda _: self._forgetAck(id))
        self._acks[id] = ack
        self.namespace._home.counts.acksPending += 1
        # Reading may be paused because many events wait for the very handler that waits for this ack.
        self.session.resume()
        return ack

    def _forgetAck(self, id: int) -> None:
        if self._acks.pop(id, None) is not None:
            self.namespace._home.counts.acksPending -= 1

    def _ackReceived(self, id: int, args: Sequence[Any]) -> None:
        """Called with an ack of the client.  One that is not awaited is ignored."""
        ack = self._acks.pop(id, None)
        if ack is not None:
            self.namespace._home.counts.acksPending -= 1
            ack.callback(ackValue(args))

    @property
    def _awaitsAck(self) -> bool:
        """True while an ack is awaited."""
        return bool(self._acks)

    def _deliver(self, messages: Sequence[engineio.Packet], volatile: bool = False) -> None:
        """Send messages that are encoded already."""
        if self.connected:
            self.session.sendPackets(messages, volatile)
        elif self._held is not None and not volatile:
            self._hold(messages)

    def _hold(self, messages: Sequence[engineio.Packet]) -> None:
        assert self._held is not None
        size = sum([len(message.wire) for message in messages])
        session = self.session
        if self._held and self._heldBytes + size > session.settings.maxBuffered:
            session.abort(CloseReason.SLOW_CONSUMER)
        else:
            self._held.append(messages)
            self._heldBytes += size

    @property
    def buffered(self) -> int:
        """The number of bytes that wait for the client's connection, in all its namespaces."""
        return self.session.buffered + self._heldBytes

    @property
    def transport(self) -> str:
        """The name of the client's present transport: ``polling`` or ``websocket``."""
        return self.session.transport.name

    # -- rooms -------------------------------------------------------------------

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that the socket is in, its own included; none once the client has gone."""
        return frozenset((self.id, *self._joined)) if self._leftBecause is None else frozenset()

    @overload
    def join(self, *rooms: str, rewind: None = None) -> None: ...

    @overload
    def join(self, *rooms: str, rewind: int | timedelta) -> Deferred[None]: ...

    def join(self, *rooms: str, rewind: Limit = None) -> Deferred[None] | None:
        """
        Join rooms.  Once the client has gone, do nothing.

        :param rewind: send the client the last events of the rooms that it was not in: so many, or those of
            so much time; see :doc:`/howto/history`.
        :return: with `rewind` a Deferred that fires when the client is in the rooms.  On several servers, the
            others may be asked before.
        :raises TypeError: if a room's name is not a string.
        :raises ValueError: if a room is another socket's own, or with `rewind`, if the namespace keeps no
            history.
        :raises LimitExceeded: if the socket would be in more than ``maxRooms``.
        """
        checkRooms(rooms)
        if rewind is not None:
            checkLimit(rewind)
            return self.namespace._keptHistory().join(self, rooms, rewind)
        if self._leftBecause is None:
            most = self._connection.settings.maxRooms
            for room in rooms:
                if len(self._joined) >= most and room not in self._joined and room != self.id:
                    raise LimitExceeded(f"{self!r} is in {most} rooms, as many as maxRooms allows")
                if self._ticket is not None and room not in self._joined and room != self.id:
                    self.namespace.rooms.join(self, room)
                    self._ticket.moved(room, True)
                else:
                    self.namespace.rooms.join(self, room)
            home = self.namespace._home
            if home.joining is not None and rooms and home.peers is not None:
                home.peers.joined()
        return None

    def leave(self, *rooms: str) -> None:
        """
        Leave rooms.  The socket stays in its own.

        :raises TypeError: if a room's name is not a string.
        """
        checkRooms(rooms)
        for room in rooms:
            if self._ticket is not None and room in self._joined:
                self._ticket.moved(room, False)
            self.namespace.rooms.leave(self, room)
            if self.namespace._history is not None:
                self.namespace._history.left(self, room)

    def to(self, *rooms: str | Socket) -> Audience:
        """Choose the other sockets in any of these rooms; see :meth:`Audience.to`."""
        return self.others.to(*rooms)

    @property
    def others(self) -> Audience:
        """The audience of everybody in the namespace but this socket."""
        return Audience(self.namespace, None, frozenset((self.id,)))

    # -- the end -----------------------------------------------------------------

    def disconnect(self, close: bool = False) -> None:
        """
        Disconnect the client from this namespace.

        :param close: close its connection too, and so leave all its namespaces.
        """
        self._connection.disconnect(self, CloseReason.SERVER_DISCONNECT, close)

    def whenDisconnected(self) -> Deferred[CloseReason]:
        """Make a Deferred that fires with the reason when the socket has left its namespace."""
        gone: Deferred[CloseReason] = Deferred(self._forgetGone)
        if self._leftBecause is not None:
            gone.callback(self._leftBecause)
        else:
            self._gone.append(gone)
        return gone

    def _forgetGone(self, gone: Deferred[CloseReason]) -> None:
        if gone in self._gone:
            self._gone.remove(gone)

    # -- for the namespace ---------------------------------------------------------

    def _takeHeld(self) -> list[engineio.Packet]:
        """Return the messages that wait for the admission, which is decided now."""
        held, self._held, self._heldBytes = self._held or (), [], 0
        return [message for messages in held for message in messages]

    def _admitted(self) -> None:
        """Called when the namespace has admitted the socket, and all that was held has been sent."""
        self._held = None
        self.away = False
        self.connected = True

    def _cameBack(self, connection: Connection, handshake: Handshake) -> None:
        """Called when the client has come back, before the application is asked."""
        connection.takeWaiting(self._connection, self)
        self._connection, self.session, self.handshake = connection, connection.session, handshake
        self.recovered = True
        self._leftBecause = None
        self._held = []

    def _cut(self) -> None:
        """Called when the client has lost its connection and may come back.  All Deferreds of acks fail."""
        self.connected = False
        self._held = None
        self._heldBytes = 0
        # A callback may cancel the others.
        while self._acks:
            ack = self._acks.pop(next(iter(self._acks)))
            self.namespace._home.counts.acksPending -= 1
            ack.errback(Failure(Disconnected(f"the client has gone: {self._leftBecause or 'it is away'}")))

    def _left(self, reason: CloseReason) -> None:
        """Called when the socket has left.  All Deferreds of acks fail."""
        self._leftBecause = reason
        self.away = False
        self._cut()
        while self._gone:
            self._gone.pop(0).callback(reason)


def _failed(error: Exception) -> Deferred[Any]:
    failed: Deferred[Any] = Deferred()
    failed.errback(Failure(error))
    return failed
