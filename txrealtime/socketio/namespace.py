"""
Namespaces: the clients at one path, and the application's handlers of their events.

Handlers are registered by decorators on an instance, or marked in a class by :func:`on`.  An event goes
through the middleware, from the first registered inwards, to the handler of its name; the handler's result
is the ack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.logs import Logger
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.counts import EventsSent, TalkCounts
from txrealtime.socketio.dispatch import NO_ACK, Dispatcher, Incoming
from txrealtime.socketio.handler import Handler
from txrealtime.socketio.history import History
from txrealtime.socketio.hooks import NO_HOOKS, Hooks
from txrealtime.socketio.packet import AckEncoder, IParser, Packet
from txrealtime.socketio.peers import Peers
from txrealtime.socketio.presence import Presence, Roster
from txrealtime.socketio.recovery import Recovery
from txrealtime.socketio.registry import DECORATORS, Decorators, Registry, eventsOf, on
from txrealtime.socketio.rooms import Rooms, checkRooms

if TYPE_CHECKING:
    from txrealtime.socketio.parking import Parking
    from txrealtime.socketio.sockets import Socket

__all__ = ["NO_ACK", "Incoming", "Namespace", "on"]

_log = Logger()

_MESSAGE: Final = engineio.PacketType.MESSAGE


class Home(Protocol):
    """The part of a server that a namespace mounted on it uses."""

    @property
    def reactor(self) -> IReactorTime: ...

    @property
    def peers(self) -> Peers | None: ...

    @property
    def joining(self) -> object: ...

    @property
    def parser(self) -> IParser: ...

    @property
    def encodeAck(self) -> AckEncoder: ...

    @property
    def counts(self) -> TalkCounts: ...

    @property
    def hooks(self) -> Hooks: ...

    idPrefix: str
    parking: Parking | None
    recoveryClass: type[Recovery]

    def socketGone(self, namespace: Namespace) -> None: ...


_SET: Final = frozenset(
    ["concurrency", "sockets", "rooms", "_ids", "_dispatcher", "_handlers", "_made", "_roster"]
)
"""The attributes that ``Namespace.__init__`` sets."""


_FIXED: Final = {
    "path": "choose another name",
    "sockets": "choose another name",
    "rooms": "choose another name",
    "connected": "it would not be called: write onConnect(function)",
    "disconnecting": "it would not be called: write onDisconnecting(function)",
    "disconnected": "it would not be called: write onDisconnect(function)",
    **{name: f"it is a decorator: write {name}(function)" for name in DECORATORS},
}
"""The attributes that cannot be set once a namespace is mounted, each with the right way."""


def checkConcurrency(concurrency: object) -> None:
    """
    Check a namespace's concurrency, where infinity stands for no limit.

    :raises ValueError: if it is no number above 0.
    """
    isNumber = isinstance(concurrency, int | float) and not isinstance(concurrency, bool)
    if not isNumber or not concurrency >= 1:  # type: ignore[operator]
        raise ValueError(f"concurrency is {concurrency!r}, expected a number above 0, or None for no limit")


class Namespace(Decorators):
    """
    The clients at one path, and the application's handlers of their events.

    A subclass defines :meth:`connected`, :meth:`disconnecting` and :meth:`disconnected`, and marks methods
    with :func:`on`; an instance takes decorators.  A decorated function replaces a method for the same
    event.

    No other name of this class is meant for overriding: a server refuses to mount a subclass that has a
    method or attribute of such a name, and one with a method that resembles a hook and is never called,
    such as ``on_connect``.

    :param concurrency: the number of one socket's events that are handled at a time, or ``None`` for no
        limit. The next event waits for the Deferred of the one before.
    :raises TypeError: if a subclass has set an attribute of the same name before.
    :raises ValueError: if ``concurrency`` is no number above 0.
    :ivar path: ``/``, ``/chat`` ...; empty until the namespace is mounted on a server.
    :ivar sockets: the sockets admitted on this server, by id.
    :ivar rooms: the :class:`~txrealtime.socketio.rooms.Rooms` of this server's sockets.
    """

    path: str = ""
    _peers: Peers | None = None
    _recovery: Recovery | None = None
    _history: History | None = None
    _home: Home
    # Replaced when the namespace is mounted.
    _hooks: Hooks = NO_HOOKS
    # Set when the namespace is mounted, to the dispatcher's or to a function that counts too.
    _take: Callable[[Socket, str, list[Any]], Any]
    # Set likewise: encodes an ack.
    _encodeAck: AckEncoder
    _sent = EventsSent()

    def __init__(self, concurrency: int | None = 1) -> None:
        early = sorted(_SET.intersection(vars(self)))
        if early and "_made" not in early:  # otherwise this is a second call
            raise TypeError(
                f"self.{early[0]} of {type(self).__qualname__} was set before super().__init__(), "
                "which sets it too: choose another name"
            )
        self.concurrency: float = float("inf") if concurrency is None else concurrency
        checkConcurrency(self.concurrency)
        self.sockets: dict[str, Socket] = {}
        self.rooms = Rooms()
        self._roster = Roster(self)
        # The numbers of acks, unique in the namespace.
        self._ids = count()
        hooks = (self.connected, self.disconnecting, self.disconnected)
        self._handlers = Registry(*(Handler(hook, atMost=2) for hook in hooks))
        self._handlers.events.update(self._marked())
        self._dispatcher = Dispatcher(self, self._handlers)
        # For the check that an application has not put other values in their places.
        self._made = dict(vars(self))

    def __setattr__(self, name: str, value: Any) -> None:
        # Before, overrides.checkInstance() has yet to see the whole instance.
        if name in _FIXED and "_home" in vars(self):
            raise TypeError(f"{name} of {self!r} cannot be set: {_FIXED[name]}")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path or '(not mounted)'}>"

    def _registry(self) -> Registry:
        return self._handlers

    def _marked(self) -> Iterator[tuple[str, Handler]]:
        """Make the handlers marked in the class: a subclass's replace those of its bases."""
        for kind in reversed(type(self).__mro__):
            for name, attribute in vars(kind).items():
                for event in eventsOf(attribute):
                    yield event, Handler(getattr(self, name))

    # -- hooks, for subclasses -------------------------------------------------------

    def connected(self, socket: Socket, auth: Any) -> Any:
        """
        Called when a client wants to come in.

        To refuse it, raise :exc:`~txrealtime.errors.ConnectionRejected` or return ``False``.  While the
        Deferred of an ``async`` method is not fired, the client waits; events emitted to it meanwhile reach
        it once it is admitted.

        :param auth: the client's ``auth``: a dictionary, or ``None``.
        """

    def disconnecting(self, socket: Socket, reason: CloseReason) -> Any:
        """Called at once when a client leaves, while ``socket.rooms`` are still known."""

    def disconnected(self, socket: Socket, reason: CloseReason) -> Any:
        """
        Called once when an admitted client has left and its last event has gone to a handler.

        Events that the client sent before it left, and that still wait for their turn, come first: no handler
        begins after this.  Handlers that have begun may still run; :meth:`disconnecting`, which is called at
        once, is the place to cancel what they wait for.
        """

    # -- the way in ----------------------------------------------------------------

    def _admit(self, socket: Socket) -> Any:
        """Ask the application to admit a socket.  ``False``, or a Deferred of it, is a refusal."""
        if socket.recovered and socket._ticket is not None:
            socket._ticket.recovery.restore(socket._ticket)
            if socket._ticket.recovery.parking.settings.recoveryUnasked:
                return None
        else:
            self.rooms.add(socket)
            if self._recovery is not None:
                self._recovery.came(socket)
        return self._handlers.connected.callWith(socket, socket.handshake.auth)

    def _ackFailed(self, socket: Socket, error: Exception, event: str) -> None:
        """Called when a handler's result cannot be sent as an ack."""
        _log.failure(
            "{namespace} {socket}: the result of {handler} for the event {event!r} cannot be sent as an ack",
            Failure(error),
            namespace=self.path,
            socket=socket.label,
            handler=self._nameOf(event),
            event=event[:100],
        )

    def _nameOf(self, event: str) -> str:
        """Return the name of the function that handles an event, for the log."""
        handler = self._handlers.events.get(event) or self._handlers.any
        return "nobody" if handler is None else handler.name

    def _eventsHandled(self) -> Iterable[str]:
        """Return the names of the events that have handlers."""
        return self._handlers.events

    # -- coming and going ----------------------------------------------------------

    def _letIn(self, socket: Socket) -> None:
        """Called when a socket was admitted."""
        self.sockets[socket.id] = socket
        socket._admitted()
        if self._hooks.socketConnected is not None:
            self._hooks.socketConnected(socket)

    def _remove(self, socket: Socket, reason: CloseReason) -> None:
        """Remove a socket that leaves, admitted or not."""
        admitted = socket.connected or socket.away
        socket.connected = False
        if admitted:
            self._tell(self._handlers.disconnecting, socket, reason)
        if socket._ticket is not None and not socket._ticket.isParked:
            socket._ticket.recovery.forget(socket._ticket)
        self.rooms.remove(socket)
        if self._recovery is not None:
            self._recovery.left(socket)
        if self.sockets.get(socket.id) is socket:
            del self.sockets[socket.id]
        socket._left(reason)
        if admitted and self._hooks.socketLeft is not None:
            self._hooks.socketLeft(socket, reason)
        if admitted and not socket._waiting:
            self._tellDisconnected(socket)

    def _tellDisconnected(self, socket: Socket) -> None:
        """Call :meth:`disconnected`.  No handler of the socket's events begins after this."""
        assert socket._leftBecause is not None
        self._tell(self._handlers.disconnected, socket, socket._leftBecause)
        if socket._ticket is not None:
            socket._ticket.recovery.told(socket._ticket)

    def _tell(self, handler: Handler, socket: Socket, reason: CloseReason) -> None:
        def failed(failure: Failure) -> None:
            _log.failure(
                "{namespace} {socket}: {handler} failed",
                failure,
                namespace=self.path,
                socket=socket.label,
                handler=getattr(handler.function, "__qualname__", "a handler"),
            )

        try:
            telling = handler.callWith(socket, reason)
        except Exception:
            failed(Failure())
        else:
            if telling is not None:
                maybeDeferred(lambda: telling).addErrback(failed)

    # -- on a server -----------------------------------------------------------------

    def _bind(self, path: str, home: Home) -> None:
        """Take a place on a server."""
        self.path, self._home = path, home
        self._take = self._dispatcher.dispatch
        self._useParser()
        self._hooks = self.rooms.hooks = self._dispatcher.hooks = home.hooks
        if home.peers is not None:
            self._meet(home.peers)
        if home.parking is not None:
            self._recovery = home.recoveryClass(self, home.parking)

    def _useParser(self) -> None:
        """Encode by the server's parser, which may be replaced until the server is in use."""
        self._encodeAck = self._home.encodeAck

    def _meet(self, peers: Peers) -> None:
        """Tell other servers, from now on, of this namespace and its rooms."""
        self._peers = peers
        peers.mounted(self)
        self.rooms.watchedBy(partial(peers.roomChanged, self))
        if self._roster.isUsed:
            peers.presenceUsed(self)

    @property
    def reactor(self) -> IReactorTime:
        """The clock."""
        return self._home.reactor

    # -- the way out -----------------------------------------------------------------

    def _encode(self, packet: Packet) -> list[engineio.Packet]:
        """Encode a packet, for any number of clients."""
        parts = self._home.parser.encode(packet)
        if len(parts) == 1:
            return [engineio.Packet(_MESSAGE, parts[0])]
        return [engineio.message(part) for part in parts]

    @property
    def everyone(self) -> Audience:
        """The audience of everybody in the namespace."""
        return Audience(self)

    def to(self, *rooms: str | Socket) -> Audience:
        """Choose the sockets in any of these rooms; see :meth:`Audience.to`."""
        return Audience(self).to(*rooms)

    @property
    def local(self) -> Audience:
        """The audience of everybody in the namespace who is on this server; see :attr:`Audience.local`."""
        return Audience(self).local

    def presence(self, room: str | None = None) -> Presence:
        """
        Get the presence of a room: who is there on all servers, with data of the application.

        See :doc:`/howto/presence`.

        :param room: ``None`` for all rooms, to watch or list them.
        :raises TypeError: if the room's name is not a string.
        :raises BusError: if the dialect of the cluster cannot carry presence: only the native one can.
        """
        checkRooms(() if room is None else (room,))
        self._roster.use()
        return Presence(self._roster, room)

    def keepHistory(self, events: int = 100, seconds: float = 3600.0, bytes: int = 16_000_000) -> None:
        """
        Keep the events that are said to rooms, for ``join(rewind=)`` and :meth:`Audience.history`.

        See :doc:`/howto/history`.  All servers need the same.

        :param events: the most events of one room.
        :param seconds: the time for which an event is kept.
        :param bytes: the most memory for all events of the namespace.
        :raises ValueError: if a limit is not above 0, or the namespace keeps history already.
        :raises BusError: if the dialect of the cluster cannot carry history: only the native one can.
        """
        if self._history is not None:
            raise ValueError(f"{self!r} keeps history already")
        history = History(self, events, seconds, bytes)
        if self._peers is not None:
            self._peers.historyKept(self)
        self._made["_history"] = self._history = history

    def _keptHistory(self) -> History:
        """
        Return the history.

        :raises ValueError: if the namespace keeps none.
        """
        if self._history is None:
            raise ValueError(f"{self!r} keeps no history: call keepHistory() on it first")
        return self._history

    def excluding(self, *rooms: str | Socket) -> Audience:
        """Choose everybody but the sockets in any of these rooms; see :meth:`Audience.excluding`."""
        return Audience(self).excluding(*rooms)

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """Send an event to everybody; see :meth:`Audience.emit`."""
        Audience(self).emit(event, *args, volatile=volatile)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``, to everybody."""
        Audience(self).send(*args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float = 60.0) -> Deferred[list[Any]]:
        """Send an event to everybody and gather their acks; see :meth:`Audience.call`."""
        return Audience(self).call(event, *args, timeout=timeout)

    def fetch(self, timeout: float = 5.0) -> Deferred[list[Person]]:
        """Fetch the remote sockets of everybody; see :meth:`Audience.fetch`."""
        return Audience(self).fetch(timeout)
