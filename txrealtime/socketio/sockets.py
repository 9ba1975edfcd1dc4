"""
One client in one namespace, as an application holds it.

A :class:`Socket` is an outgoing handle.  What comes in goes from the connection to the
namespace's handlers, and never through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import AckTimeout, Disconnected, LimitExceeded
from txrealtime.socketio.acks import acked, returned
from txrealtime.socketio.audience import Audience
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.packet import Packet, PacketType, checkName
from txrealtime.socketio.rooms import checkRooms

if TYPE_CHECKING:
    from collections import deque

    from txrealtime.socketio.connection import Connection
    from txrealtime.socketio.namespace import Namespace

__all__ = ["Socket"]


class Socket:
    """
    A client in a namespace.

    :ivar id: its public id: another one in each namespace, and not the session's.  A client of
        protocol 3 knows no other than the session's; see :doc:`/howto/old-clients`.
    :ivar namespace: the :class:`~txrealtime.socketio.namespace.Namespace` it is in.
    :ivar handshake: how it came, a :class:`Handshake`.
    :ivar data: a dictionary for the application.
    :ivar session: the Engine.IO session, shared by the client's namespaces.
    :ivar connected: whether it has been admitted and has not left.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "_connection",
        "_gone",
        "_held",
        "_heldBytes",
        "connected",
        "data",
        "draining",
        "handshake",
        "id",
        "joined",
        "leftBecause",
        "namespace",
        "running",
        "session",
        "waiting",
    )

    def __init__(self, namespace: Namespace, connection: Connection, handshake: Handshake, id: str) -> None:
        self.id = id
        self.namespace = namespace
        self.handshake = handshake
        self.data: dict[str, Any] = {}
        self.connected = False
        self.leftBecause: CloseReason | None = None
        # For its neighbours: the rooms stored by Rooms, the events queued by Connection.
        self.joined: set[str] = set()
        self.waiting: deque[tuple[Packet, int]] | tuple[()] = ()
        self.running = 0
        self.draining = False
        self._connection = connection
        self.session = connection.session
        self._answers: dict[int, Deferred[Any]] = {}
        self._gone: list[Deferred[CloseReason]] = []
        # What is sent to a socket before it is admitted reaches it right after.
        self._held: list[Sequence[engineio.Packet]] | None = []
        self._heldBytes = 0

    def __repr__(self) -> str:
        return f"<Socket {self.label} {self.namespace.path}>"

    @property
    def label(self) -> str:
        """The id for a log: without the session's secret, which a client of protocol 3 has in it."""
        return self.id.replace(self.session.sid, self.session.label)

    # -- sending -----------------------------------------------------------------

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """
        Send an event to this client.  Once it is gone, this does nothing.

        :param args: JSON values, bytes-like ones anywhere among them.
        :param volatile: drop it if it cannot leave at once.
        :raises TypeError: for a value that cannot be sent, with the path to it.
        :raises ValueError: for a reserved event name, or a number that JSON lacks.
        """
        checkName(event)
        packet = Packet(PacketType.EVENT, self.namespace.path, [event, *args])
        self.deliver(self.namespace.encode(packet), volatile)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``."""
        self.emit("message", *args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float | None = 60.0) -> Deferred[Any]:
        """
        Send an event and wait for its ack.

        :param timeout: seconds, or ``None`` to wait until the client goes.
        :return: a Deferred of what the client acked: ``None`` for nothing, one value as
            it is, several as a tuple.  It can be cancelled, and fails with
            :exc:`~txrealtime.errors.AckTimeout`, or with
            :exc:`~txrealtime.errors.Disconnected` as soon as the client is gone.
        :raises TypeError: as :meth:`emit`.
        :raises ValueError: as :meth:`emit`.
        """
        checkName(event)
        id = self.namespace.nextId()
        messages = self.namespace.encode(Packet(PacketType.EVENT, self.namespace.path, [event, *args], id))
        answer = self.answerTo(id)
        if answer.called:
            return answer
        self.deliver(messages)

        def late(result: Any, seconds: float) -> Any:
            raise AckTimeout(f"no ack of {event!r} within {seconds} s")

        if timeout is not None:
            answer.addTimeout(timeout, self.namespace.reactor, onTimeoutCancel=late)
        return answer.addCallback(acked)

    def answerTo(self, id: int, early: bool = False) -> Deferred[Any]:
        """
        Return a Deferred of the client's ack with this number, as ``acks.returned`` has it.

        :param early: allow a socket that is not admitted yet.  The ack comes after the admission, so whoever
            delays that by waiting for the ack waits for ever.
        """
        if self.leftBecause is not None:
            return _failed(Disconnected(f"the client is gone: {self.leftBecause}"))
        if self._held is not None and not early:
            return _failed(
                Disconnected("a client cannot answer before it is admitted: call it from an event")
            )
        answer: Deferred[Any] = Deferred(lambda _: self._forgetAnswer(id))
        self._answers[id] = answer
        # Reading may be paused because much waits for the very handler that asks.
        self.session.resume()
        return answer

    def _forgetAnswer(self, id: int) -> None:
        self._answers.pop(id, None)

    def answered(self, id: int, args: Sequence[Any]) -> None:
        """The client has sent an ack; one that nobody waits for is ignored."""
        answer = self._answers.pop(id, None)
        if answer is not None:
            answer.callback(returned(args))

    @property
    def awaitsAnswer(self) -> bool:
        """Whether an ack is still to come."""
        return bool(self._answers)

    def deliver(self, messages: Sequence[engineio.Packet], volatile: bool = False) -> None:
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
        """Bytes that wait for the client's connection, with all its namespaces."""
        return self.session.buffered + self._heldBytes

    @property
    def transport(self) -> str:
        """The name of the transport that the client is on now: ``polling`` or ``websocket``."""
        return self.session.transport.name

    # -- rooms -------------------------------------------------------------------

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms it is in, its own included; none once it is gone."""
        return frozenset((self.id, *self.joined)) if self.leftBecause is None else frozenset()

    def join(self, *rooms: str) -> None:
        """
        Enter rooms.  Once the client is gone, this does nothing.

        :raises TypeError: for a room whose name is not a string.
        :raises ValueError: for another socket's own room.
        :raises LimitExceeded: when it would be in more than ``maxRooms``.
        """
        checkRooms(rooms)
        if self.leftBecause is None:
            most = self._connection.maxRooms
            for room in rooms:
                if len(self.joined) >= most and room not in self.joined and room != self.id:
                    raise LimitExceeded(f"{self!r} is in {most} rooms, as many as maxRooms allows")
                self.namespace.rooms.join(self, room)

    def leave(self, *rooms: str) -> None:
        """
        Leave rooms; its own it keeps.

        :raises TypeError: for a room whose name is not a string.
        """
        checkRooms(rooms)
        for room in rooms:
            self.namespace.rooms.leave(self, room)

    def to(self, *rooms: str | Socket) -> Audience:
        """Those in any of these rooms, without this socket."""
        return self.others.to(*rooms)

    @property
    def others(self) -> Audience:
        """Everybody in the namespace but this socket."""
        return Audience(self.namespace, None, frozenset((self.id,)))

    # -- the end -----------------------------------------------------------------

    def disconnect(self, close: bool = False) -> None:
        """
        Disconnect the client from this namespace.

        :param close: end its connection too, with all its namespaces.
        """
        self.dismiss(CloseReason.SERVER_DISCONNECT, close)

    def dismiss(self, reason: CloseReason, close: bool = False) -> None:
        """Disconnect the client, and tell the application this reason."""
        self._connection.disconnect(self, reason, close)

    def whenDisconnected(self) -> Deferred[CloseReason]:
        """A Deferred of the reason, when the socket has left its namespace."""
        gone: Deferred[CloseReason] = Deferred(self._forgetGone)
        if self.leftBecause is not None:
            gone.callback(self.leftBecause)
        else:
            self._gone.append(gone)
        return gone

    def _forgetGone(self, gone: Deferred[CloseReason]) -> None:
        if gone in self._gone:
            self._gone.remove(gone)

    # -- for the namespace ---------------------------------------------------------

    def admitted(self) -> None:
        """The namespace has let it in: what was held goes out."""
        held, self._held, self._heldBytes = self._held or [], None, 0
        self.connected = True
        for messages in held:
            self.deliver(messages)

    def left(self, reason: CloseReason) -> None:
        """It is gone: nobody waits for its answers any longer."""
        self.connected = False
        self.leftBecause = reason
        self._held = None
        self._heldBytes = 0
        # Whoever is told may cancel the others.
        while self._answers:
            answer = self._answers.pop(next(iter(self._answers)))
            answer.errback(Failure(Disconnected(f"the client is gone: {reason}")))
        while self._gone:
            self._gone.pop(0).callback(reason)


def _failed(error: Exception) -> Deferred[Any]:
    failed: Deferred[Any] = Deferred()
    failed.errback(Failure(error))
    return failed
