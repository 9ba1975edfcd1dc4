"""
Namespaces: what an application does with the clients that come to one path.

Handlers are registered by decorators on an instance, or marked in a class by
:func:`on`.  An event goes through the middleware, from the first registered inwards,
to the handler of its name; what that returns is the ack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import ArgumentsMismatch, Disconnected
from txrealtime.logs import Logger
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.handler import PLAIN, Handler, run, start
from txrealtime.socketio.packet import RESERVED, Packet
from txrealtime.socketio.peers import Peers
from txrealtime.socketio.rooms import Rooms

if TYPE_CHECKING:
    from txrealtime.socketio.sockets import Socket

__all__ = ["NO_ACK", "Incoming", "Namespace", "on"]

_log = Logger()

F = TypeVar("F", bound=Callable[..., Any])

NO_ACK: Final = object()
"""What :meth:`Namespace.dispatch` gives when there is nothing to answer."""

_MARK: Final = "_txrealtimeEvents"


class Incoming(NamedTuple):
    """
    An event on its way to its handler, as middleware sees it.

    :ivar socket: from whom.
    :ivar event: its name.
    :ivar args: its arguments.
    """

    socket: Socket
    event: str
    args: list[Any]


class Home(Protocol):
    """What a namespace needs of the server that it is mounted on."""

    @property
    def reactor(self) -> IReactorTime: ...

    @property
    def peers(self) -> Peers | None: ...

    def encode(self, packet: Packet) -> list[engineio.Packet]: ...


def on(event: str) -> Callable[[F], F]:
    """
    Mark a method of a :class:`Namespace` class as the handler of an event.

    :raises ValueError: for a reserved name; ``connected``, ``disconnecting`` and
        ``disconnected`` are methods of their own.
    """
    _checkHandled(event)

    def mark(method: F) -> F:
        setattr(method, _MARK, (*getattr(method, _MARK, ()), event))
        return method

    return mark


def _checkHandled(event: str) -> None:
    if not isinstance(event, str):
        raise TypeError(f"on() takes an event's name, not {type(event).__name__}")
    if event in RESERVED:
        raise ValueError(
            f"{event!r} is reserved: use onConnect, onDisconnecting or onDisconnect, "
            "or in a class connected, disconnecting or disconnected"
        )


class Namespace:
    """
    The clients at one path, and what is done with them.

    A subclass defines :meth:`connected`, :meth:`disconnecting` and :meth:`disconnected`,
    and marks methods with :func:`on`; an instance takes decorators.  Of a method and a
    decorated function for the same event, the function wins.

    :param concurrency: how many events of one socket may be handled at a time; the next
        waits for the Deferred of the one before.  ``None`` for no limit.
    :ivar path: ``/``, ``/chat`` ...; empty until it is mounted on a server.
    :ivar sockets: the sockets admitted on this server, by id.
    :ivar rooms: who is where, :class:`~txrealtime.socketio.rooms.Rooms`.
    :ivar peers: the other servers, if there may be some.
    """

    path: str = ""
    peers: Peers | None = None
    encode: Callable[[Packet], list[engineio.Packet]]
    _home: Home

    def __init__(self, concurrency: int | None = 1) -> None:
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency is {concurrency!r}, expected a number above 0, or None")
        self.concurrency: float = float("inf") if concurrency is None else concurrency
        self.sockets: dict[str, Socket] = {}
        self.rooms = Rooms()
        self._lastId = -1
        self._handlers: dict[str, Handler] = dict(self._marked())
        self._anyHandler: Handler | None = None
        self._middleware: list[Handler] = []
        self._errorHandlers: list[tuple[tuple[type[BaseException], ...], Handler]] = []
        self._connected = Handler(self.connected)
        self._disconnecting = Handler(self.disconnecting)
        self._disconnected = Handler(self.disconnected)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path or '(not mounted)'}>"

    def _marked(self) -> Iterator[tuple[str, Handler]]:
        """The handlers marked in the class: a subclass's win over its bases'."""
        for kind in reversed(type(self).__mro__):
            for name, attribute in vars(kind).items():
                for event in getattr(attribute, _MARK, ()):
                    yield event, Handler(getattr(self, name))

    # -- for subclasses ------------------------------------------------------------

    def connected(self, socket: Socket, auth: Any) -> Any:
        """
        A client wants to come in.

        Raise :exc:`~txrealtime.errors.ConnectionRejected` to refuse it.  A Deferred or an
        ``async`` method lets it wait; what is emitted to it meanwhile reaches it once it
        is in.

        :param auth: what the client gave as ``auth``: a dictionary, or ``None``.
        """

    def disconnecting(self, socket: Socket, reason: CloseReason) -> Any:
        """A client is about to leave; ``socket.rooms`` are still known."""

    def disconnected(self, socket: Socket, reason: CloseReason) -> Any:
        """A client has left.  Called once, and only for a client that was let in."""

    # -- registering ---------------------------------------------------------------

    def on(self, event: str) -> Callable[[F], F]:
        """
        Decorate the handler of an event: ``handler(socket, *args)``.

        What it returns is the ack: nothing for ``None``, a tuple as several values,
        anything else as one.

        :raises ValueError: for a reserved name.
        :raises TypeError: for a handler that cannot be called with a socket.
        """
        _checkHandled(event)

        def register(function: F) -> F:
            self._handlers[event] = Handler(function)
            return function

        return register

    def onAny(self, function: F) -> F:
        """Decorate the handler of events that have none of their own: ``handler(socket, event, *args)``."""
        self._anyHandler = Handler(function, given=2)
        return function

    def onConnect(self, function: F) -> F:
        """Decorate what :meth:`connected` does, as ``f(socket)`` or ``f(socket, auth)``."""
        self._connected = Handler(function)
        return function

    def onDisconnecting(self, function: F) -> F:
        """Decorate what :meth:`disconnecting` does, as ``f(socket)`` or ``f(socket, reason)``."""
        self._disconnecting = Handler(function)
        return function

    def onDisconnect(self, function: F) -> F:
        """Decorate what :meth:`disconnected` does, as ``f(socket)`` or ``f(socket, reason)``."""
        self._disconnected = Handler(function)
        return function

    def onError(self, *kinds: type[BaseException]) -> Callable[[F], F]:
        """
        Decorate what is done with errors of some kinds that event handlers raise:
        ``f(socket, error)`` or ``f(socket, error, event)``; what it returns is the ack.

        :param kinds: exception classes; none for any :exc:`Exception`.
        """

        def register(function: F) -> F:
            self._errorHandlers.append((kinds or (Exception,), Handler(function)))
            return function

        return register

    def use(self, function: F) -> F:
        """
        Decorate a middleware around events: ``f(incoming, proceed)``.

        ``proceed(incoming)`` is a Deferred of what the next one inwards, and in the end
        the handler, returns.
        """
        self._middleware.append(Handler(function, given=2))
        return function

    # -- the way in ----------------------------------------------------------------

    def admit(self, socket: Socket) -> Any:
        """Ask the application whether a socket may come in: a result, or a Deferred of one."""
        self.rooms.add(socket)
        return self._connected.callWith(socket, socket.handshake.auth)

    def dispatch(self, socket: Socket, event: str, args: list[Any]) -> Any:
        """
        Handle an event.

        :return: what to ack, or :data:`NO_ACK`; or a Deferred of that, which never fails.
        """
        try:
            if self._middleware:
                result: Any = self._proceed(0, Incoming(socket, event, args))
            else:
                result = self._handle(socket, event, args)
        except Exception:
            return self._handlerFailed(Failure(), socket, event)
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            result.addErrback(self._handlerFailed, socket, event)
        return result

    def _proceed(self, depth: int, incoming: Incoming) -> Deferred[Any]:
        """Call the middleware at some depth, or the handler at the core."""
        if depth == len(self._middleware):
            return maybeDeferred(self._handle, *incoming)
        return maybeDeferred(
            run, self._middleware[depth].function, incoming, lambda further: self._proceed(depth + 1, further)
        )

    def _handle(self, socket: Socket, event: str, args: list[Any]) -> Any:
        handler = self._handlers.get(event)
        if handler is None:
            if self._anyHandler is None:
                return NO_ACK
            handler, args = self._anyHandler, [event, *args]
        given = len(args) + 1
        if not handler.least <= given <= handler.most:
            handler.check(given)
        result = handler.function(socket, *args)
        return start(result) if result.__class__ is CoroutineType else result

    def _handlerFailed(self, failure: Failure, socket: Socket, event: str) -> Any:
        for kinds, handler in self._errorHandlers:
            if isinstance(failure.value, kinds):
                try:
                    result = handler.callWith(socket, failure.value, event)
                except Exception:
                    failure = Failure()
                    break
                if isinstance(result, Deferred):
                    result.addErrback(self._logFailure, socket, event)
                return result
        return self._logFailure(failure, socket, event)

    def _logFailure(self, failure: Failure, socket: Socket, event: str) -> Any:
        if failure.check(Disconnected) and not socket.connected:
            # It waited for a client that is gone: that happens.
            _log.debug(
                "{namespace} {socket}: {event!r}: {reason}",
                namespace=self.path,
                socket=socket.label,
                event=event[:100],
                reason=str(failure.value),
            )
        elif failure.check(ArgumentsMismatch):
            # The client's doing, as likely as ours: no traceback.
            _log.warn(
                "{namespace} {socket}: event {event!r} not handled: {reason}",
                namespace=self.path,
                socket=socket.label,
                event=event[:100],
                reason=str(failure.value),
            )
        else:
            _log.failure(
                "{namespace} {socket}: the handler of {event!r} failed",
                failure,
                namespace=self.path,
                socket=socket.label,
                event=event[:100],
            )
        return NO_ACK

    def ackFailed(self, socket: Socket, error: Exception) -> None:
        """A handler has returned what cannot be sent as an ack."""
        _log.failure(
            "{namespace} {socket}: a handler returned what cannot be sent as an ack",
            Failure(error),
            namespace=self.path,
            socket=socket.label,
        )

    # -- coming and going ----------------------------------------------------------

    def letIn(self, socket: Socket) -> None:
        """A socket has been admitted."""
        self.sockets[socket.id] = socket
        socket.admitted()

    def dismiss(self, reason: CloseReason) -> None:
        """Disconnect everybody, and tell the application this reason."""
        for socket in list(self.sockets.values()):
            socket.dismiss(reason)

    def remove(self, socket: Socket, reason: CloseReason) -> None:
        """A socket is gone, admitted or not."""
        admitted = socket.connected
        socket.connected = False
        if admitted:
            self._tell(self._disconnecting, socket, reason)
        self.rooms.remove(socket)
        if self.sockets.get(socket.id) is socket:
            del self.sockets[socket.id]
        socket.left(reason)
        if admitted:
            self._tell(self._disconnected, socket, reason)

    def _tell(self, handler: Handler, socket: Socket, reason: CloseReason) -> None:
        def failed(failure: Failure) -> None:
            _log.failure(
                "{namespace} {socket}: {handler} failed",
                failure,
                namespace=self.path,
                socket=socket.label,
                handler=getattr(handler.function, "__qualname__", "a handler"),
            )

        maybeDeferred(handler.callWith, socket, reason).addErrback(failed)

    # -- the way out ---------------------------------------------------------------

    def bind(self, path: str, home: Home) -> None:
        """
        Take a place on a server.

        :raises ValueError: when it has one already.
        """
        if self.path:
            raise ValueError(f"this namespace is mounted at {self.path} already")
        if not hasattr(self, "rooms"):
            raise TypeError(f"{type(self).__name__}.__init__() does not call super().__init__()")
        self.path, self._home, self.encode = path, home, home.encode
        if home.peers is not None:
            self.meet(home.peers)

    def meet(self, peers: Peers) -> None:
        """There may be other servers from now on."""
        self.peers = peers
        peers.mounted(self)
        self.rooms.watchedBy(partial(peers.roomChanged, self))

    @property
    def reactor(self) -> IReactorTime:
        """The clock."""
        return self._home.reactor

    def nextId(self) -> int:
        """A number for an ack, unique in the namespace."""
        self._lastId += 1
        return self._lastId

    @property
    def everyone(self) -> Audience:
        """Everybody in the namespace."""
        return Audience(self)

    def to(self, *rooms: str | Socket) -> Audience:
        """Those in any of these rooms; see :meth:`Audience.to`."""
        return Audience(self).to(*rooms)

    def excluding(self, *rooms: str | Socket) -> Audience:
        """Everybody without those in any of these rooms; see :meth:`Audience.excluding`."""
        return Audience(self).excluding(*rooms)

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """Send an event to everybody; see :meth:`Audience.emit`."""
        Audience(self).emit(event, *args, volatile=volatile)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``, to everybody."""
        Audience(self).send(*args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float = 60.0) -> Deferred[list[Any]]:
        """Ask everybody; see :meth:`Audience.call`."""
        return Audience(self).call(event, *args, timeout=timeout)

    def fetch(self, timeout: float = 5.0) -> Deferred[list[Person]]:
        """Who is in the namespace; see :meth:`Audience.fetch`."""
        return Audience(self).fetch(timeout)
