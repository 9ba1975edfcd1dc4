"""
Audiences: sockets chosen by rooms, and what can be done to all of them.

An :class:`Audience` acts on this server and, where there are others, on those too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txrealtime.engineio import packet as engineio
from txrealtime.errors import AckTimeout, BusError, Disconnected, LimitExceeded
from txrealtime.socketio.acks import acked, gathered, late
from txrealtime.socketio.packet import Packet, PacketType, checkName
from txrealtime.socketio.rooms import checkRooms

if TYPE_CHECKING:
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.sockets import Socket

__all__ = ["Audience", "Person"]


@dataclass(frozen=True, slots=True)
class Person:
    """
    What :meth:`Audience.fetch` tells of a socket.

    :ivar id: the socket's id, which is also its own room.
    :ivar rooms: the rooms it is in, its own included.
    :ivar data: a copy of its ``data``; from another server, what of it can be sent as an
        argument of an event can.
    :ivar server: the name of the other server that it is on; empty for this one, and where
        servers do not tell their names.
    """

    id: str
    rooms: frozenset[str]
    data: dict[str, Any]
    server: str = ""


@dataclass(frozen=True, slots=True)
class Audience:
    """
    Some sockets of a namespace, chosen anew each time it is used.

    It never changes: :meth:`to` and :meth:`excluding` make another one.
    """

    namespace: Namespace
    rooms: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()

    # -- choosing --------------------------------------------------------------

    def to(self, *rooms: str | Socket) -> Audience:
        """
        Those in any of these rooms, and of the rooms named before.

        :param rooms: names; a socket, or its id, for that socket alone.
        :raises ValueError: without a room, which would otherwise mean everybody.
        """
        return Audience(self.namespace, (self.rooms or ()) + _names(rooms, "to"), self.excluded)

    def excluding(self, *rooms: str | Socket) -> Audience:
        """
        Without those in any of these rooms.

        :param rooms: names; a socket, or its id, to leave out that socket.
        :raises ValueError: without a room.
        """
        return Audience(self.namespace, self.rooms, self.excluded.union(_names(rooms, "excluding")))

    # -- doing, on all servers ---------------------------------------------------

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """
        Send an event to each of them, encoded once.

        :param args: JSON values, bytes-like ones anywhere among them.
        :param volatile: leave out those to whom it cannot go at once.
        :raises TypeError: for a value that cannot be sent, with the path to it.
        :raises ValueError: for a reserved event name, or a number that JSON lacks.
        """
        checkName(event)
        packet = Packet(PacketType.EVENT, self.namespace.path, [event, *args])
        self.transmit(packet, self.namespace.encode(packet), volatile)

    def transmit(self, packet: Packet, messages: Sequence[engineio.Packet], volatile: bool = False) -> None:
        """
        Send an event that is encoded already, to each of them.

        :param packet: the event.
        :param messages: what it is on the wire.
        """
        self.deliver(messages, volatile)
        peers = self.namespace.peers
        if peers is not None:
            peers.emit(self, packet, messages, volatile)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``."""
        self.emit("message", *args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float = 60.0) -> Deferred[list[Any]]:
        """
        Send an event to each of them and gather their acks.

        Those who disconnect before they answer are no longer waited for.

        :param timeout: seconds.
        :return: a Deferred of the answers, in the order in which they came.  It can be
            cancelled, and fails with :exc:`~txrealtime.errors.AckTimeout`, which holds the
            answers so far and the names of the servers that kept silent; or at once with
            :exc:`~txrealtime.errors.BusError` when other servers cannot be asked now.
        :raises TypeError: as :meth:`emit`.
        :raises ValueError: as :meth:`emit`, and when it is too large for other servers.
        """
        checkName(event)
        namespace = self.namespace
        data = [event, *args]
        answers: list[Any] = []

        def collect(answer: Any) -> None:
            answers.append(acked(answer))

        waiting = self.ask(data)
        for answer in waiting:
            answer.addCallbacks(collect, lambda failure: failure.trap(Disconnected))
        inquiry = None
        if namespace.peers is not None:
            packet = Packet(PacketType.EVENT, namespace.path, data)
            try:
                inquiry = namespace.peers.call(self, packet, collect, timeout)
            except Exception as error:
                for answer in waiting:
                    answer.addErrback(lambda cancelled: None).cancel()
                if isinstance(error, BusError):
                    return fail(error)
                raise
        return gathered(waiting, answers, inquiry, event).addTimeout(
            timeout,
            namespace.reactor,
            onTimeoutCancel=partial(late, event, len(waiting), answers, inquiry),
        )

    def fetch(self, timeout: float = 5.0) -> Deferred[list[Person]]:
        """
        Who they are.

        :param timeout: seconds that other servers have to answer.
        :return: a Deferred of a list of :class:`Person`.  With other servers it may fail with
            :exc:`~txrealtime.errors.AckTimeout`, whose ``answers`` are those found so far, or
            with :exc:`~txrealtime.errors.BusError` when they cannot be asked now.
        """
        people = self.people()
        peers = self.namespace.peers
        if peers is None:
            return succeed(people)

        def missing(failure: Failure) -> NoReturn:
            failure.trap(AckTimeout)
            error = cast(AckTimeout, failure.value)
            raise AckTimeout(str(error), people + error.answers, error.servers) from None

        return peers.fetch(self, timeout).addCallbacks(lambda others: people + others, missing)

    def join(self, *rooms: str) -> None:
        """
        Put each of them into some rooms.

        :raises LimitExceeded: when some of them on this server are in ``maxRooms`` already; the
            others have joined then.
        """
        checkRooms(rooms)
        full: LimitExceeded | None = None
        for socket in self.here():
            try:
                socket.join(*rooms)
            except LimitExceeded as error:
                full = error
        if self.namespace.peers is not None:
            self.namespace.peers.join(self, rooms)
        if full is not None:
            raise full

    def leave(self, *rooms: str) -> None:
        """Take each of them out of some rooms."""
        checkRooms(rooms)
        for socket in self.here():
            socket.leave(*rooms)
        if self.namespace.peers is not None:
            self.namespace.peers.leave(self, rooms)

    def disconnect(self, close: bool = False) -> None:
        """
        Disconnect each of them.

        :param close: end their connections too, with all their namespaces.
        """
        for socket in self.here():
            socket.disconnect(close)
        if self.namespace.peers is not None:
            self.namespace.peers.disconnect(self, close)

    # -- doing, on this server -----------------------------------------------------

    def here(self) -> list[Socket]:
        """Those of them who are on this server."""
        return self.namespace.rooms.select(self.rooms, self.excluded)

    def deliver(self, messages: Sequence[engineio.Packet], volatile: bool = False) -> list[Socket]:
        """
        Send messages that are encoded already to those on this server.

        :return: those.
        """
        sockets = self.here()
        for socket in sockets:
            # Socket.deliver, with one call less: 8 % of what a receiver costs.
            if socket.connected:
                socket.session.sendPackets(messages, volatile)
            else:
                socket.deliver(messages, volatile)
        return sockets

    def ask(self, data: list[Any], early: bool = False) -> list[Deferred[Any]]:
        """
        Send an event to those on this server, and expect their acks.

        :param data: its name, and its arguments.
        :param early: expect acks also of sockets that are not admitted yet; see :meth:`Socket.answerTo`.
        :return: what each of them is going to answer, as from :meth:`Socket.answerTo`.
        """
        namespace = self.namespace
        id = namespace.nextId()
        messages = namespace.encode(Packet(PacketType.EVENT, namespace.path, data, id))
        return [socket.answerTo(id, early) for socket in self.deliver(messages)]

    def people(self) -> list[Person]:
        """Those on this server."""
        return [
            Person(socket.id, socket.rooms, dict(socket.data)) for socket in self.here() if socket.connected
        ]


def _names(rooms: Sequence[str | Socket], method: str) -> tuple[str, ...]:
    if not rooms:
        raise ValueError(f"{method}() without a room; for everybody, emit on the namespace itself")
    names = [room if isinstance(room, str) else getattr(room, "id", room) for room in rooms]
    checkRooms(names)  # type: ignore[arg-type]
    return tuple(names)  # type: ignore[arg-type]
