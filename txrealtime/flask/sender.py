"""
Sending through the application's own server, from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txrealtime import Namespace
from txrealtime.engineio import packet as engineio
from txrealtime.errors import AckTimeout, BusError, Disconnected
from txrealtime.flask.bridge import Bridge, BridgedNamespace
from txrealtime.flask.copies import copied
from txrealtime.flask.membership import Membership
from txrealtime.flask.names import roomNames
from txrealtime.logs import Logger
from txrealtime.socketio.acks import simplified
from txrealtime.socketio.audience import Audience
from txrealtime.socketio.packet import Packet, PacketType, checkName
from txrealtime.socketio.past import Limit, PastEvent
from txrealtime.socketio.peers import Peers

__all__ = ["ServerSender"]

_log = Logger()

_TIMEOUT: Final = 60.0
"""Seconds that clients of other servers have to answer a callback."""


class _Elsewhere(Namespace):
    """
    A namespace that only other servers have.

    :param like: a namespace of this server, with the same encoder and peers.
    """

    def __init__(self, path: str, like: Namespace) -> None:
        super().__init__()
        self.path, self._peers, self._home = path, like._peers, like._home


class ServerSender:
    """
    A :class:`~txrealtime.flask.interfaces.Sender` to the clients of this server and, with a queue, of others.

    :param bridge: the bridge to the server.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._server = bridge.server
        self._warned = False
        # The clients that the reactor's thread has yet to disconnect.
        self._leaving: set[tuple[str, str]] = set()

    @property
    def isOpen(self) -> bool:
        """Tell if the server runs or has run: disconnect handlers still send while the server stops."""
        return bool(self._server.running or self._server.stopped)

    def _warnOfNobody(self) -> None:
        """Log once that an emit before the server runs reaches nobody."""
        if not self._warned:
            self._warned = True
            _log.warn(
                "nobody gets what is emitted before the server runs; a process that serves nobody, as a "
                "worker's, needs the message_queue of the servers for that"
            )

    def _space(self, path: str) -> Namespace | None:
        """Return the namespace at a path, here or on other servers; ``None`` if there is none."""
        space: Namespace | None = self._bridge.spaces.get(path)
        if space is None:
            root = self._bridge.spaces["/"]
            space = None if root._peers is None else _Elsewhere(path, root)
        return space

    def _audience(self, path: str, to: Any, skip: Any) -> Audience | None:
        """
        Return the audience that an application names; ``None`` if it is certainly empty.

        :param to: a room, a sid, or a list of these; ``None`` for everybody.
        :param skip: likewise, the clients that are left out.
        """
        space = self._space(path)
        if space is None:
            return None
        audience = space.everyone
        if to is not None:
            rooms = roomNames(to)
            if not rooms:
                return None
            audience = audience.to(*rooms)
        left = roomNames(skip)
        return audience.excluding(*left) if left else audience

    def emit(
        self,
        event: str,
        args: Sequence[Any],
        path: str,
        to: Any,
        skip: Any,
        callback: Callable[..., Any] | None,
    ) -> None:
        """Send an event; the callback is called for each client that acks."""
        checkName(event)
        if self._bridge.json is not None:
            args = self._bridge.json.plain(tuple(args))
        packet = Packet(PacketType.EVENT, path, [event, *args])
        messages = self._bridge.encode(packet)
        audience = self._audience(path, to, skip)
        log = self._bridge.configuration.eventLog
        if log is not None:
            log.info("emitting event %.100r to %s [%s]", event, "all" if to is None else to, path)
        if not self.isOpen:
            self._warnOfNobody()
            return
        if audience is None:
            return
        if audience.namespace._peers is not None:
            # The packet is encoded for other servers later.
            packet = packet._replace(data=copied(packet.data))
        if callback is None:
            self._server.callFromThread(self._transmit, audience, packet, messages)
        else:
            self._server.callFromThread(self._ask, audience, copied(packet.data), callback)

    @staticmethod
    def _transmit(audience: Audience, packet: Packet, messages: Sequence[engineio.Packet]) -> None:
        """Send an event that is encoded already."""
        audience.namespace._sent.count += 1
        audience._transmit(packet, messages)

    def _ask(self, audience: Audience, data: list[Any], callback: Callable[..., Any]) -> None:
        """Send an event, and have the callback called with each ack."""
        space = audience.namespace
        space._sent.count += 1
        submit = partial(self._submitCallback, callback, f"the callback of {data[0][:100]!r}")
        sockets = audience.here()
        for socket, answer in zip(sockets, audience._ask(data, early=True), strict=True):
            assert isinstance(space, BridgedNamespace)
            answered = partial(submit, partial(space.membershipOf, socket))
            answer.addCallbacks(answered, lambda failure: failure.trap(Disconnected))
        if space._peers is not None:
            self._askElsewhere(audience, space._peers, data, partial(submit, None))

    def _submitCallback(
        self, callback: Callable[..., Any], name: str, find: Callable[[], Membership] | None, answer: Any
    ) -> None:
        """Have a callback called in a thread, before the disconnect handler of the client that has acked."""
        membership = None if find is None else find()
        if membership is not None:
            membership.started()

        def job() -> None:
            try:
                args = self._bridge.received(answer)
                callback(*(args if isinstance(args, tuple) else () if args is None else (args,)))
            finally:
                if membership is not None:
                    self._server.callFromThread(membership.finished)

        self._bridge.jobs.submit(name, job)

    def _askElsewhere(
        self, audience: Audience, peers: Peers, data: list[Any], answered: Callable[[Any], None]
    ) -> None:
        """Ask clients on other servers; if the dialect has no acks for rooms, only send the event."""

        def failed(failure: Failure) -> None:
            _log.limited(
                "",
                LogLevel.warn,
                "no ack of {event!r}: {reason}",
                event=data[0][:100],
                reason=str(failure.value),
            )

        space = audience.namespace
        packet = Packet(PacketType.EVENT, space.path, data)
        try:
            question = peers.call(audience, packet, answered, _TIMEOUT)
        except BusError:
            peers.emit(audience, packet, space._encode(packet), False)
        else:
            question.done.addTimeout(_TIMEOUT, space.reactor).addErrback(failed)

    def call(self, event: str, args: Sequence[Any], path: str, to: Any, timeout: float) -> Any:
        """
        Send an event to one client and wait for its ack.

        :raises AckTimeout: if no ack comes in time or the client has gone; a :exc:`TimeoutError`, too.
        """
        checkName(event)
        if self._bridge.admits(path, to):
            raise AckTimeout(
                f"{event!r} cannot be answered before this connect handler has returned, since the client is "
                "not let in before: give emit() a callback=, call in a background task, or set "
                "always_connect=True"
            )
        args = self._bridge.sendable(tuple(args))
        self._bridge.encode(Packet(PacketType.EVENT, path, [event, *args]))
        audience = self._audience(path, to, None)
        answers = []
        if audience is not None:
            ask = partial(self._askOne, audience, to, [event, *args], timeout)
            answers = self._server.blockingCallFromThread(ask)
        if not answers:
            raise AckTimeout(
                f"nobody is there to answer {event!r}: the client has gone, or the sid is not one"
            )
        return self._bridge.received(answers[0])

    def _askOne(self, audience: Audience, sid: str, data: list[Any], timeout: float) -> Deferred[list[Any]]:
        """Send an event to one client, let in or not; return a Deferred of a list of its ack."""
        space = audience.namespace
        socket = space.rooms.find(sid)
        if socket is None or socket.connected:
            return audience.call(*data, timeout=timeout)
        (answer,) = audience._ask(data, early=True)
        space._sent.count += 1

        def late(result: object, seconds: float) -> NoReturn:
            space._home.counts.ackTimeouts += 1
            raise AckTimeout(f"no ack of {data[0]!r} within {seconds} s")

        answer.addTimeout(timeout, space.reactor, onTimeoutCancel=late)
        return answer.addCallbacks(lambda given: [simplified(given)], _nobody)

    def join(self, path: str, sid: str, room: Any, rewind: Limit = None) -> None:
        """
        Put a client into a room.

        :param rewind: wait until the client is there and has been sent so much of the past.
        :raises ValueError: if the room is another client's own, or the sid is unknown and no other server may
            know it; with `rewind`, if this server does not, or the namespace keeps no history.
        """
        names = roomNames(room)
        if not self._mayKnow(path, sid):
            raise ValueError(f"no client {sid!r} is in {path}: expected the sid of a connected client")
        own = self._ownRoom(path, [name for name in names if name != sid])
        if own is not None:
            raise ValueError(f"room {own!r} is another client's own: nobody else can join it")
        audience = self._named(path, sid)
        if audience is None or not names:
            return
        if rewind is None:
            self._server.callFromThread(audience.join, *names)
        else:
            join = partial(self._rewind, self._keeper(path), sid, names, rewind)
            self._server.blockingCallFromThread(join)

    @staticmethod
    def _rewind(space: BridgedNamespace, sid: str, names: list[str], rewind: Limit) -> Deferred[None] | None:
        """Put a client into rooms, and send it their last events."""
        socket = space.rooms.find(sid)
        if socket is not None:
            assert rewind is not None
            return socket.join(*names, rewind=rewind)
        if sid not in space.parting:
            raise ValueError(f"rewind= is for a client of this server, and {sid!r} is none in {space.path}")
        return None

    def history(self, path: str, room: Any, last: Limit) -> list[PastEvent]:
        """
        Return the last events of a room; none before the server runs.

        :raises ValueError: if the namespace keeps no history.
        """
        names, space = roomNames(room), self._keeper(path)
        if not names or not self.isOpen:
            return []
        past: list[PastEvent] = self._server.blockingCallFromThread(space.to(*names).history, last)
        return [each._replace(args=list(self._bridge.received(each.args))) for each in past]

    def _keeper(self, path: str) -> BridgedNamespace:
        """
        Return the namespace at a path, which keeps history.

        :raises ValueError: if it keeps none.
        """
        space = self._bridge.spaces.get(path)
        if space is None or space._history is None:
            raise ValueError(f"{path} keeps no history: call socketio.keep_history(namespace={path!r}) first")
        return space

    def leave(self, path: str, sid: str, room: Any) -> None:
        """Take a client out of a room."""
        names, audience = roomNames(room), self._named(path, sid)
        if names and audience is not None:
            self._server.callFromThread(audience.leave, *names)

    def close(self, path: str, room: Any) -> None:
        """
        Take everybody out of a room.

        :raises ValueError: if the room is a client's own.
        """
        names = roomNames(room)
        own = self._ownRoom(path, names)
        if own is not None:
            raise ValueError(f"room {own!r} is a client's own: disconnect() the client instead")
        audience = self._named(path, room)
        if audience is not None:
            self._server.callFromThread(audience.leave, *names)

    def disconnect(self, path: str, sid: str) -> None:
        """Disconnect a client from a namespace."""
        audience = self._named(path, sid)
        if audience is not None:
            self._leaving.add((path, sid))
            self._server.callFromThread(self._sendAway, audience, path, sid)

    def _sendAway(self, audience: Audience, path: str, sid: str) -> None:
        """Disconnect a client, in the reactor's thread."""
        self._leaving.discard((path, sid))
        space = audience.namespace
        if isinstance(space, BridgedNamespace):
            space.sendAway(audience, roomNames(sid))
        else:
            audience.disconnect()

    def rooms(self, path: str, sid: str) -> list[str]:
        """Return the rooms of a client, its own included; none before the server runs."""
        space = self._bridge.spaces.get(path)
        return (
            []
            if space is None or not self.isOpen
            else self._server.blockingCallFromThread(space.roomsOf, sid)
        )

    def _ownRoom(self, path: str, names: Sequence[str]) -> str | None:
        """Return the first of these rooms that is the own one of a client that stays, if any."""
        space = self._bridge.spaces.get(path)
        if space is None:
            return None
        return next(
            (name for name in names if name in space.sockets and (path, name) not in self._leaving), None
        )

    def _mayKnow(self, path: str, sid: str) -> bool:
        """Tell if a client is in a namespace, has just left, or may be on another server."""
        space = self._bridge.spaces.get(path)
        if space is None or space._peers is not None:
            return self._space(path) is not None
        return space.rooms.find(sid) is not None or sid in space.parting

    def _named(self, path: str, to: Any) -> Audience | None:
        """Return the audience of a room or sid; ``None`` if it is certainly empty."""
        if not self.isOpen:
            self._warnOfNobody()
            return None
        return None if to is None else self._audience(path, to, None)


def _nobody(failure: Failure) -> list[Any]:
    failure.trap(Disconnected)
    return []
