"""
What an application sends through its own server, from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.python.failure import Failure

from txrealtime import Namespace
from txrealtime.errors import AckTimeout, BusError, Disconnected
from txrealtime.flask.copies import snapshot
from txrealtime.flask.names import roomNames
from txrealtime.logs import Logger
from txrealtime.socketio.audience import Audience
from txrealtime.socketio.packet import Packet, PacketType, checkName
from txrealtime.socketio.peers import Peers

if TYPE_CHECKING:
    from txrealtime.flask.bridge import Bridge

__all__ = ["Inside"]

_log = Logger()

_TIMEOUT: Final = 60.0
"""Seconds in which clients of other servers may answer to a callback."""


class _Elsewhere(Namespace):
    """
    A namespace that only other servers have: what is sent there goes to them.

    :param like: one of this server's.
    """

    def __init__(self, path: str, like: Namespace) -> None:
        super().__init__()
        self.path, self._peers, self._home = path, like._peers, like._home


class Inside:
    """
    What reaches the clients of a server and, with a message queue, of the others.

    :param bridge: what encodes, knows the namespaces, and runs callbacks.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._server = bridge.server
        self._saidSo = False

    @property
    def isOpen(self) -> bool:
        """Whether the server runs, or has run: what is said at its end goes the same way."""
        return bool(self._server.running or self._server.stopped)

    def _nobody(self) -> None:
        """Something was for clients, and there can be none."""
        if not self._saidSo:
            self._saidSo = True
            _log.warn(
                "nobody gets what is emitted before the server runs; a process that serves nobody, as a "
                "worker's, needs the message_queue of the servers for that"
            )

    def _space(self, path: str) -> Namespace | None:
        """The namespace at a path, here or on other servers; `None` when there is none."""
        space: Namespace | None = self._bridge.spaces.get(path)
        if space is None:
            root = self._bridge.spaces["/"]
            space = None if root._peers is None else _Elsewhere(path, root)
        return space

    def _audience(self, path: str, to: Any, skip: Any) -> Audience | None:
        """
        The clients that an application names, or `None` for a namespace that does not exist.

        :param to: a room, a sid, or a list of these; `None` for everybody.
        :param skip: likewise, those left out.
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
        """Send an event; its callback is called for each client that acks."""
        checkName(event)
        if self._bridge.json is not None:
            args = self._bridge.json.plain(tuple(args))
        packet = Packet(PacketType.EVENT, path, [event, *args])
        messages = self._bridge.encode(packet)
        audience = self._audience(path, to, skip)
        if not self.isOpen:
            self._nobody()
            return
        if audience is None:
            return
        if audience.namespace._peers is not None:
            # They are told later, in their own terms.
            packet = packet._replace(data=snapshot(packet.data))
        if callback is None:
            self._server.callFromThread(audience._transmit, packet, messages)
        else:
            self._server.callFromThread(self._ask, audience, snapshot(packet.data), callback)

    def _ask(self, audience: Audience, data: list[Any], callback: Callable[..., Any]) -> None:
        def answered(answer: Any) -> None:
            job = partial(self._callBack, callback, answer)
            self._bridge.jobs.submit(f"the callback of {data[0][:100]!r}", job)

        for answer in audience._ask(data):
            answer.addCallbacks(answered, lambda failure: failure.trap(Disconnected))
        if audience.namespace._peers is not None:
            self._askElsewhere(audience, audience.namespace._peers, data, answered)

    def _callBack(self, callback: Callable[..., Any], answer: Any) -> None:
        answer = self._bridge.received(answer)
        callback(*(answer if isinstance(answer, tuple) else () if answer is None else (answer,)))

    def _askElsewhere(
        self, audience: Audience, peers: Peers, data: list[Any], answered: Callable[[Any], None]
    ) -> None:
        """Ask clients on other servers; where those cannot be asked, let them have the event at least."""

        def failed(failure: Failure) -> None:
            _log.warn("no ack of {event!r}: {reason}", event=data[0][:100], reason=str(failure.value))

        space = audience.namespace
        packet = Packet(PacketType.EVENT, space.path, data)
        try:
            inquiry = peers.call(audience, packet, answered, _TIMEOUT)
        except BusError:
            peers.emit(audience, packet, space._encode(packet), False)
        else:
            inquiry.done.addTimeout(_TIMEOUT, space.reactor).addErrback(failed)

    def call(self, event: str, args: Sequence[Any], path: str, to: Any, timeout: float) -> Any:
        """
        Send an event and wait for the ack of the one who gets it.

        :raises AckTimeout: a :exc:`TimeoutError`, when it does not come, or the client has gone.
        """
        checkName(event)
        args = self._bridge.sendable(tuple(args))
        self._bridge.encode(Packet(PacketType.EVENT, path, [event, *args]))
        audience = self._audience(path, to, None)
        answers = []
        if audience is not None:
            ask = partial(audience.call, event, *args, timeout=timeout)
            answers = self._server.blockingCallFromThread(ask)
        if not answers:
            raise AckTimeout(
                f"nobody is there to answer {event!r}: the client has gone, or the sid is not one"
            )
        return self._bridge.received(answers[0])

    def join(self, path: str, sid: str, room: Any) -> None:
        """
        Put a client into a room.

        :raises ValueError: when it is another client's own room.
        """
        names = roomNames(room)
        own = self._ownRoom(path, [name for name in names if name != sid])
        if own is not None:
            raise ValueError(f"room {own!r} is another client's own: nobody else can join it")
        self.doTo(path, sid, "join", *names)

    def close(self, path: str, room: Any) -> None:
        """
        Take everybody out of a room.

        :raises ValueError: when it is a client's own room.
        """
        names = roomNames(room)
        own = self._ownRoom(path, names)
        if own is not None:
            raise ValueError(f"room {own!r} is a client's own: disconnect() the client instead")
        self.doTo(path, room, "leave", *names)

    def _ownRoom(self, path: str, names: Sequence[str]) -> str | None:
        """Of these rooms one that is a client's own."""
        space = self._bridge.spaces.get(path)
        return None if space is None else next((name for name in names if name in space.sockets), None)

    def doTo(self, path: str, to: Any, method: str, *args: Any) -> None:
        """Have a method of an audience called; of nobody where no client or room is named."""
        audience = self._audience(path, to, None)
        if not self.isOpen:
            self._nobody()
        elif to is not None and audience is not None:
            self._server.callFromThread(getattr(audience, method), *args)

    def rooms(self, path: str, sid: str) -> list[str]:
        """The rooms of a client, its own included."""
        space = self._bridge.spaces.get(path)
        return [] if space is None else self._server.blockingCallFromThread(space.roomsOf, sid)
