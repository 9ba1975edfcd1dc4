"""
Audiences: sockets chosen by rooms, as the receivers of events.

An :class:`Audience` acts on this server and, in a cluster, on the other servers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.broadcast import broadcast
from txrealtime.errors import AckTimeout, BusError, Disconnected, LimitExceeded
from txrealtime.socketio.acks import gathered, raiseLate, simplified
from txrealtime.socketio.packet import Packet, PacketType, checkName
from txrealtime.socketio.past import PastEvent, checkLimit
from txrealtime.socketio.peers import Peers
from txrealtime.socketio.rooms import checkRooms
from txrealtime.speedups import isAccelerated

if TYPE_CHECKING:
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.sockets import Socket

__all__ = ["Audience", "Person"]

_MANY: Final = 4
"""Receivers from which on a broadcast is written in C."""


@dataclass(frozen=True, slots=True)
class Person:
    """
    A remote socket: a copy of a socket's state, from :meth:`Audience.fetch`.

    :ivar id: the socket's id, which is also the name of its own room.
    :ivar rooms: the rooms that it is in, its own included.
    :ivar data: a copy of its ``data``; from another server, of the values that events can carry.
    :ivar server: the name of the socket's server; empty for this server, and in dialects without names.
    :ivar admin: the rest that a server of Node tells of its socket, unchecked, for the admin UI.
    """

    id: str
    rooms: frozenset[str]
    data: dict[str, Any]
    server: str = ""
    admin: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Audience:
    """
    Some sockets of a namespace, chosen anew at each use.

    An audience never changes: :meth:`to` and :meth:`excluding` make another one.
    """

    namespace: Namespace
    rooms: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()
    _isLocal: bool = False

    # -- choosing --------------------------------------------------------------

    def to(self, *rooms: str | Socket) -> Audience:
        """
        Choose the sockets in any of these rooms, or of the rooms named before.

        :param rooms: names; a socket, or its id, for that socket alone.
        :raises ValueError: if there is no room, which would otherwise mean everybody.
        """
        chosen = (self.rooms or ()) + _names(rooms, "to")
        return Audience(self.namespace, chosen, self.excluded, self._isLocal)

    def excluding(self, *rooms: str | Socket) -> Audience:
        """
        Leave out the sockets in any of these rooms.

        :param rooms: names; a socket, or its id, to leave out that socket.
        :raises ValueError: if there is no room.
        """
        excluded = self.excluded.union(_names(rooms, "excluding"))
        return Audience(self.namespace, self.rooms, excluded, self._isLocal)

    @property
    def local(self) -> Audience:
        """The part of this audience on this server.  Peer servers do not hear of what is done to it."""
        return Audience(self.namespace, self.rooms, self.excluded, True)

    @property
    def _peers(self) -> Peers | None:
        """The peer servers, if they may have members of this audience."""
        return None if self._isLocal else self.namespace._peers

    # -- doing, on all servers ---------------------------------------------------

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """
        Send an event to each of them, encoded once.

        :param args: JSON values, bytes-like ones anywhere among them.
        :param volatile: leave out the sockets to which the event cannot leave at once.
        :raises TypeError: if a value cannot be sent; the message has the path to it.
        :raises ValueError: if the event's name is reserved, or JSON lacks a number.
        """
        checkName(event)
        namespace = self.namespace
        packet = Packet(PacketType.EVENT, namespace.path, [event, *args])
        messages = namespace._encode(packet)
        namespace._sent.count += 1
        self._transmit(packet, messages, volatile)

    def _transmit(self, packet: Packet, messages: Sequence[engineio.Packet], volatile: bool = False) -> None:
        """
        Send an event that is encoded already to each of them.

        :param packet: the event.
        :param messages: the same, encoded.
        """
        namespace = self.namespace
        recovery, logged = namespace._recovery, 0
        if recovery is None:
            sockets = self._deliver(messages, volatile)
        else:
            sockets, logged = recovery.deliver(self, messages, volatile, packet)
        history, entry = namespace._history, None
        if history is not None and not volatile and not self._isLocal and self.rooms is not None:
            entry = history.add(self, messages)
        if namespace._hooks.eventSent is not None:
            namespace._hooks.eventSent(sockets, packet.data[0], packet.data[1:])
        peers = None if self._isLocal else namespace._peers
        if peers is not None:
            mark = peers.emit(self, packet, messages, volatile, logged)
            if recovery is not None and logged:
                recovery.log.mark(logged, mark)
            if history is not None and entry is not None:
                history.mark(entry, mark)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``."""
        self.emit("message", *args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float = 60.0) -> Deferred[list[Any]]:
        """
        Send an event to each of them and gather their acks.

        The ack of a client that disconnects is no longer awaited.

        :param timeout: seconds.
        :return: a Deferred of the acks, in the order of arrival.  It can be cancelled.  It fails with
            :exc:`~txrealtime.errors.AckTimeout`, which holds the acks so far and the names of the servers
            that kept silent; or at once with :exc:`~txrealtime.errors.BusError` if other servers cannot be
            asked.
        :raises TypeError: if :meth:`emit` would.
        :raises ValueError: if :meth:`emit` would, or if the event is too large for other servers.
        """
        checkName(event)
        namespace = self.namespace
        data = [event, *args]
        acks: list[Any] = []

        def collect(ack: Any) -> None:
            acks.append(simplified(ack))

        waiting = self._ask(data)
        namespace._sent.count += 1
        for ack in waiting:
            ack.addCallbacks(collect, lambda failure: failure.trap(Disconnected))
        question = None
        if self._peers is not None:
            packet = Packet(PacketType.EVENT, namespace.path, data)
            try:
                question = self._peers.call(self, packet, collect, timeout)
            except Exception as error:
                for ack in waiting:
                    ack.addErrback(lambda cancelled: None).cancel()
                if isinstance(error, BusError):
                    return fail(error)
                raise

        def late(result: object, seconds: float) -> NoReturn:
            namespace._home.counts.ackTimeouts += 1
            raiseLate(event, len(waiting), acks, question, seconds)

        return gathered(waiting, acks, question, event).addTimeout(
            timeout, namespace.reactor, onTimeoutCancel=late
        )

    def fetch(self, timeout: float = 5.0) -> Deferred[list[Person]]:
        """
        Fetch the remote sockets of this audience, from all servers.

        :param timeout: seconds that other servers have to reply.
        :return: a Deferred of a list of :class:`Person`.  In a cluster it may fail with
            :exc:`~txrealtime.errors.AckTimeout`, whose ``answers`` are the remote sockets found so far, or
            with :exc:`~txrealtime.errors.BusError` if other servers cannot be asked now.
        """
        people = self._people()
        peers = self._peers
        if peers is None:
            return succeed(people)

        def missing(failure: Failure) -> NoReturn:
            failure.trap(AckTimeout)
            error = cast(AckTimeout, failure.value)
            raise AckTimeout(str(error), people + error.answers, error.servers) from None

        return peers.fetch(self, timeout).addCallbacks(lambda others: people + others, missing)

    def history(self, last: int | timedelta | None = None) -> Deferred[list[PastEvent]]:
        """
        List the last events that were said to any of these rooms, on all servers, the oldest first.

        Events that left out any of the rooms in :attr:`excluded` are not listed.  For a :attr:`local`
        audience, no other server is asked.  See :doc:`/howto/history`.

        :param last: so many events, or those of so much time; by default all that are kept.
        :return: a Deferred that does not fail.  On several servers, the others may be asked first.
        :raises ValueError: if the audience is everybody, or the namespace keeps no history.
        """
        checkLimit(last)
        if self.rooms is None:
            raise ValueError("history() without a room: only events to rooms are kept; call to(room) before")
        return self.namespace._keptHistory().past(self, last)

    def join(self, *rooms: str) -> None:
        """
        Put each of them into some rooms.

        :raises LimitExceeded: if a socket on this server is in ``maxRooms`` already; all other sockets have
            joined then.
        """
        checkRooms(rooms)
        full: LimitExceeded | None = None
        for socket in self.here():
            try:
                socket.join(*rooms)
            except LimitExceeded as error:
                full = error
        if self._peers is not None:
            self._peers.join(self, rooms)
        if full is not None:
            raise full

    def leave(self, *rooms: str) -> None:
        """Take each of them out of some rooms."""
        checkRooms(rooms)
        for socket in self.here():
            socket.leave(*rooms)
        if self._peers is not None:
            self._peers.leave(self, rooms)

    def disconnect(self, close: bool = False) -> None:
        """
        Disconnect each of them.

        :param close: close their connections too, and so leave all their namespaces.
        """
        for socket in self.here():
            socket.disconnect(close)
        if self.namespace._recovery is not None:
            self.namespace._recovery.dismiss(self)
        if self._peers is not None:
            self._peers.disconnect(self, close)

    # -- doing, on this server -----------------------------------------------------

    def here(self) -> list[Socket]:
        """List the sockets of this audience that are on this server."""
        return self.namespace.rooms.select(self.rooms, self.excluded)

    def _deliver(
        self,
        messages: Sequence[engineio.Packet],
        volatile: bool = False,
        sockets: list[Socket] | None = None,
    ) -> list[Socket]:
        """
        Send messages that are encoded already to the sockets on this server.

        :param sockets: these, if they are selected already.
        :return: these sockets.
        """
        if sockets is None:
            sockets = self.here()
        rest = sockets
        if isAccelerated and len(sockets) >= _MANY and len(messages) == 1:
            rest = broadcast(sockets, messages[0])
        for socket in rest:
            # Socket._deliver, with one call less: 8 % of the cost of a receiver.
            if socket.connected:
                socket.session.sendPackets(messages, volatile)
            else:
                socket._deliver(messages, volatile)
        return sockets

    def _ask(self, data: list[Any], early: bool = False) -> list[Deferred[Any]]:
        """
        Send an event to the sockets on this server, and expect their acks.

        :param data: its name and its arguments.
        :param early: expect acks also of sockets that are not admitted yet; see :meth:`Socket._expectAck`.
        :return: a Deferred of each socket's ack, in the form of :func:`~txrealtime.socketio.acks.ackValue`.
        """
        namespace = self.namespace
        id = next(namespace._ids)
        messages = namespace._encode(Packet(PacketType.EVENT, namespace.path, data, id))
        recovery = namespace._recovery
        if recovery is None:
            sockets = self._deliver(messages)
        else:
            sockets = self.here()
            recovery.inOrder(lambda: self._deliver(messages, False, sockets))
        if namespace._hooks.eventSent is not None:
            namespace._hooks.eventSent(sockets, data[0], data[1:])
        return [socket._expectAck(id, early) for socket in sockets]

    def _people(self) -> list[Person]:
        """List the remote sockets of the sockets on this server."""
        return [
            Person(socket.id, socket.rooms, dict(socket.data)) for socket in self.here() if socket.connected
        ]


def _names(rooms: Sequence[str | Socket], method: str) -> tuple[str, ...]:
    if not rooms:
        raise ValueError(f"{method}() without a room; for everybody, emit on the namespace itself")
    names = [room if isinstance(room, str) else getattr(room, "id", room) for room in rooms]
    checkRooms(names)  # type: ignore[arg-type]
    return tuple(names)  # type: ignore[arg-type]
