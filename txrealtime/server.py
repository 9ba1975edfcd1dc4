"""
The server: namespaces, an engine and a cluster as one service and one resource.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Final, Unpack
from weakref import WeakKeyDictionary

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import Attribute, Interface

from txrealtime.clientfiles import ClientFiles
from txrealtime.cluster.bus.interfaces import IBus
from txrealtime.cluster.cluster import Cluster
from txrealtime.engineio.drain import Retirement, Slices
from txrealtime.engineio.engine import Engine
from txrealtime.engineio.http.resource import EngineResource
from txrealtime.engineio.http.site import EngineSite
from txrealtime.engineio.pace import Pace
from txrealtime.engineio.session import CloseReason, Session
from txrealtime.engineio.websocket.transport import WebSocketFactory
from txrealtime.pool import Threads
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.connection import Connection
from txrealtime.socketio.handler import Handler, asTask
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.hooks import Watcher, Watchers
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.namespaces import Factory, Namespaces, Where
from txrealtime.socketio.packet import IParser, JSONParser
from txrealtime.socketio.presence import Presence
from txrealtime.socketio.registry import DECORATORS, Decorators, Registry
from txrealtime.socketio.settings import Options, Settings, makeSettings
from txrealtime.socketio.sockets import Socket
from txrealtime.threads import Crossing, Handover

__all__ = ["IApplication", "Server", "ServerOptions", "Settings"]

AllowRequest = Callable[[Handshake], bool | Awaitable[bool | None] | None]


# RFC 3986, 3.3: a path neither has spaces nor begins a query or a fragment.
_PATH: Final = re.compile(r"[^\s?#]*")

_OTHERS: Final = ("path", "parser", "allowRequest", "reactor", "bus")
"""The arguments of a server that are no settings."""


class ServerOptions(Options, total=False):
    """All keyword arguments of :class:`Server` but ``reactor``."""

    path: str
    parser: IParser | None
    allowRequest: AllowRequest | None
    bus: IBus | str | None


class IApplication(Interface):
    """A server with pages of its own: ``twistd realtime --app`` takes it as it takes a :class:`Server`."""

    realtime: Server = Attribute("The server.")

    def root(reactor: Any) -> IResource:
        """
        Make the resource at ``/``, unless the command line puts another one there.

        :param reactor: the reactor that serves it.
        """


class Server(Decorators, Service):
    """
    A Socket.IO server.

    Handlers for the default namespace, ``/``, are registered on the server itself, by the decorators of
    :class:`~txrealtime.socketio.namespace.Namespace`.  The server is a service: it serves while it runs, and
    closes every client when it is stopped.

    :param path: the server's path in the URL.
    :param parser: another :class:`~txrealtime.socketio.packet.IParser`, which the clients must use too.
    :param allowRequest: called with the :class:`~txrealtime.Handshake` of each client before its session is
        made.  To refuse the client (403), the function returns ``False`` or raises
        :exc:`ConnectionRejected`.  It may be ``async`` or return a Deferred.
    :param reactor: the clock; the installed reactor by default.
    :param bus: the bus to other servers, or its URL, such as ``redis://localhost``: see
        :doc:`/howto/scale-out`.
    :param options: any field of :class:`Settings`.
    :raises TypeError: if an option is no setting, or a value has the wrong type.
    :raises ValueError: if a value is out of range, or the path has characters that no path of a URL has.
    :ivar cluster: this server's :class:`~txrealtime.cluster.cluster.Cluster`; without a bus, the server is
        alone in it.
    :ivar settings: the :class:`Settings`.
    :ivar path: the path, with a slash at its beginning.
    :ivar parser: the parser.
    """

    threads: Threads | None = None
    """The threads of handlers, if handlers run in threads."""

    def __init__(
        self,
        path: str = "/socket.io",
        *,
        parser: IParser | None = None,
        allowRequest: AllowRequest | None = None,
        reactor: IReactorTime | None = None,
        bus: IBus | str | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.settings = makeSettings(None, options, _OTHERS)
        self.path = _checkedPath(path)
        self._allowRequest = None if allowRequest is None else Handler(allowRequest, atMost=1).function
        self.parser = JSONParser() if parser is None else _provider("parser", IParser, parser)
        self._namespaces = Namespaces(self.parser, reactor)
        self._watchers = Watchers(self._namespaces.hooks)
        self._retirement: Retirement | None = None
        # Only with disconnectOnStop: nothing else goes from a session to its connection.
        self._connections: WeakKeyDictionary[Session, Connection] = WeakKeyDictionary()
        self.cluster = Cluster(self._namespaces)
        if bus is not None:
            self.cluster.use(_checkedBus(bus))

    def configure(
        self,
        *,
        path: str | None = None,
        parser: IParser | None = None,
        allowRequest: AllowRequest | None = None,
        bus: IBus | str | None = None,
        reactor: IReactorTime | None = None,
        **options: Unpack[Options],
    ) -> None:
        """
        Change the arguments and settings of a server that has not been used yet.

        ``twistd realtime`` calls this with the options of its command line.

        :param options: any field of :class:`Settings`.
        :raises TypeError: if a value has the wrong type, or an option is no setting.
        :raises ValueError: if a value is out of range.
        :raises RuntimeError: if the server is in a site already, which has taken its settings.
        """
        if "engine" in self.__dict__:
            raise RuntimeError("the server is in use: its settings cannot change any more")
        self.settings = makeSettings(self.settings, options, _OTHERS)
        if path is not None:
            self.path = _checkedPath(path)
        if parser is not None:
            self.parser = _provider("parser", IParser, parser)
            self._namespaces.useParser(self.parser)
        if allowRequest is not None:
            self._allowRequest = Handler(allowRequest, atMost=1).function
        if bus is not None:
            self.cluster.use(_checkedBus(bus))
        if reactor is not None:
            self._namespaces.reactor = reactor

    def __setattr__(self, name: str, value: Any) -> None:
        if name in DECORATORS:
            raise TypeError(
                f"{name} of a Server is a decorator: write {name}(function), not {name} = function"
            )
        super().__setattr__(name, value)

    # -- from other threads ------------------------------------------------------------

    @property
    def reactor(self) -> IReactorTime:
        """The clock: in a process that serves, the reactor."""
        return self._namespaces.reactor

    @cached_property
    def _crossing(self) -> Crossing:
        """The queue of calls from other threads to the reactor's."""
        return Handover(self.reactor)

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        """
        Call a function in the reactor's thread, from any thread, without waiting for it.

        ::

            server.callFromThread(server.to("red").emit, "goal", 3)

        The calls of one thread keep their order; many are made in one turn of the reactor.  Errors are
        logged. See :meth:`txrealtime.threads.Handover.call`.
        """
        self._crossing.call(function, *args)

    def blockingCallFromThread(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Call a function in the reactor's thread, and wait for its result, or that of its Deferred.

        ::

            people = server.blockingCallFromThread(server.to("red").fetch)

        :raises RuntimeError: if the caller is in the reactor's thread, which would wait for itself, or if the
            reactor does not run.
        :raises Disconnected: if the reactor stops before there is a result.
        """
        return self._crossing.ask(function, *args)

    # -- in a site -------------------------------------------------------------------

    @cached_property
    def engine(self) -> Engine:
        """The Engine.IO server underneath."""
        allowRequest = self._allowRequest
        asked = None if allowRequest is None else lambda request: asTask(allowRequest(Handshake(request)))
        namespaces = self._namespaces
        namespaces.recover(self.settings)
        namespaces.pace = pace = Pace(namespaces.reactor, self.settings.handshakeTimeout)
        engine = Engine(self._connection, self.settings, namespaces.reactor, asked, namespaces.hooks, pace)
        engine.files = ClientFiles(self.settings.client).serve
        return engine

    def _connection(self, session: Session) -> Connection:
        connection = Connection(session, self._namespaces, self.settings)
        if self.settings.disconnectOnStop:
            self._connections[session] = connection
        return connection

    def resource(self) -> IResource:
        """Get the resource to put at :attr:`path` of a ``twisted.web`` site."""
        return EngineResource(self.engine)

    def site(self, root: IResource) -> Site:
        """
        Make a site with a root resource of the application and this server at :attr:`path`.

        The site refuses a request body larger than ``maxPayload`` before it is read; a resource in another
        site can do so only afterwards.
        """
        return EngineSite(root, self.path, self.engine)

    def webSocketFactory(self) -> WebSocketFactory:
        """Make a factory for an endpoint that serves WebSocket alone, without ``twisted.web``."""
        return self.engine.webSocketFactory()

    # -- namespaces ------------------------------------------------------------------

    def namespace(self, path: str = "/") -> Namespace:
        """Get the namespace at a path.  If none exists, make it."""
        return self._namespaces.get(path)

    def mount(self, where: Where, what: Namespace | Factory) -> None:
        """
        Put a namespace of the application at a path, or a factory at a pattern.

        :param where: a path; a compiled pattern that matches paths in full; or a predicate
            ``f(path, auth)``, which may be ``async``.
        :param what: a :class:`Namespace`; for a pattern or predicate, its class or another factory.  A
            namespace made for a pattern lives while a socket is in it.
        :raises ValueError: if the path is taken, or no namespace can be there.
        :raises TypeError: if the two do not go together.  Likewise if a method of the namespace's class has
            no effect, because it resembles a hook and is never called, or hides one of :class:`Namespace`
            that is not meant for overriding.
        """
        self._namespaces.mount(where, what)

    @property
    def namespaces(self) -> list[Namespace]:
        """The present namespaces."""
        return list(self._namespaces)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """
        Tell an object of sessions, sockets, rooms and events, in all namespaces, from now on.

        ::

            class Speech(Watcher):
                def eventReceived(self, socket, event, args):
                    print(socket.id, event)

            stop = server.watch(Speech())

        Only events of this server's own clients are told, also those that peer servers send them.

        :return: a function that ends the watch.
        :raises TypeError: if the object is no :class:`Watcher`, or defines none of its methods.
        """
        return self._watchers.add(watcher)

    # -- the default namespace ---------------------------------------------------------

    def _registry(self) -> Registry:
        return self.namespace()._registry()

    def to(self, *rooms: str | Socket) -> Audience:
        """Choose the sockets in any of these rooms: see :meth:`Audience.to`."""
        return self.namespace().to(*rooms)

    @property
    def local(self) -> Audience:
        """The audience of everybody on this server: see :attr:`Audience.local`."""
        return self.namespace().local

    def presence(self, room: str | None = None) -> Presence:
        """Get the presence of a room: see :meth:`Namespace.presence`."""
        return self.namespace().presence(room)

    def keepHistory(self, events: int = 100, seconds: float = 3600.0, bytes: int = 16_000_000) -> None:
        """Keep the events that are said to rooms: see :meth:`Namespace.keepHistory`."""
        self.namespace().keepHistory(events, seconds, bytes)

    def excluding(self, *rooms: str | Socket) -> Audience:
        """Choose everybody but the sockets in any of these rooms: see :meth:`Audience.excluding`."""
        return self.namespace().excluding(*rooms)

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """Send an event to everybody: see :meth:`Audience.emit`."""
        self.namespace().emit(event, *args, volatile=volatile)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``, to everybody."""
        self.namespace().send(*args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float = 60.0) -> Deferred[list[Any]]:
        """Send an event to everybody and gather their acks: see :meth:`Audience.call`."""
        return self.namespace().call(event, *args, timeout=timeout)

    def fetch(self, timeout: float = 5.0) -> Deferred[list[Person]]:
        """Fetch the remote sockets of everybody: see :meth:`Audience.fetch`."""
        return self.namespace().fetch(timeout)

    # -- as a service ------------------------------------------------------------------

    def startService(self) -> None:
        """Admit clients, and connect to the bus."""
        super().startService()  # type: ignore[no-untyped-call]
        retirement, self._retirement = self._retirement, None
        if retirement is not None:
            retirement.end()
        self.engine.reopen()  # makes the engine, and so decides if clients may come back
        self.cluster.start()
        if self._namespaces.parking is not None:
            self._namespaces.parking.reopen()

    @property
    def isRetiring(self) -> bool:
        """True from :meth:`retire` on, or the stop of the service: health checks fail."""
        return self._retirement is not None

    def retire(self, delay: float | None = None) -> Deferred[None]:
        """
        Let the clients go over some time, before the service stops and while everything else goes on.

        Health checks fail at once.  After ``drainDelay`` new clients are refused (503, ``Retry-After``), and
        the present ones go in slices over ``drain`` seconds, in random order; until its slice a client is
        served as before.  :meth:`stopService` calls this first.

        :param delay: another delay than ``drainDelay``.
        :return: a Deferred that fires when the last slice has gone; at once if both times are 0.
        """
        if self._retirement is None:
            if self._namespaces.parking is not None:
                self._namespaces.parking.isStaying = False
            self._retirement = Retirement(self.reactor, self._slices if self.settings.drain else None)
            self._retirement.start(self.settings.drainDelay if delay is None else delay)
        return self._retirement.whenDone()

    def hasten(self) -> None:
        """Give up the times of :meth:`retire`: it is done now, and :meth:`stopService` stops at once."""
        if self._retirement is None:
            self._retirement = Retirement(self.reactor)
        self._retirement.end()

    def _slices(self) -> Slices:
        return self.engine.drainSlowly(self.settings.drain, self.settings.drainTimeout, self._dismiss)

    def _dismiss(self, session: Session) -> None:
        """Send DISCONNECT for each namespace that a client is in."""
        connection = self._connections.get(session)
        if connection is not None:
            connection.dismiss(CloseReason.SHUTTING_DOWN)

    def stopService(self) -> Deferred[None]:
        """
        Let the clients go as :meth:`retire` does; then leave the cluster.

        :return: a Deferred that fires when the last client has taken its waiting messages, or after
            ``drainTimeout``.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self.retire().addCallback(lambda _: self._letGo())

    def _letGo(self) -> Deferred[None]:
        if self.running:
            # It was started again during the slices.
            return succeed(None)
        drained = self.engine.drain(self.settings.drainTimeout, self._dismiss)
        if self._namespaces.parking is not None:
            drained.addCallback(lambda _: self.cluster.handOver())
        drained.addCallback(lambda _: self._namespaces.nobodyComesBack())
        return drained.addCallback(lambda _: self.cluster.stop())


def _checkedPath(path: str) -> str:
    """Return a server's path with a slash at its beginning, and none at its end."""
    if not isinstance(path, str):
        raise TypeError(f"path is {path!r}, expected a str such as '/socket.io'")
    if not _PATH.fullmatch(path):
        raise ValueError(f"path is {path!r}, expected a form like '/socket.io'")
    return "/" + path.strip("/")


def _provider(name: str, interface: Any, value: Any) -> Any:
    """Return an argument of the application that has to have the methods of an interface."""
    if isinstance(value, type):
        raise TypeError(f"{name} is a class; did you mean {value.__name__}()?")
    missing = [method for method in sorted(interface.names(all=True)) if not hasattr(value, method)]
    if missing:
        expected = f"an object that provides {interface.__name__}"
        raise TypeError(f"{name} is {value!r}, expected {expected}: it has no {missing[0]}()")
    return value


def _checkedBus(bus: IBus | str) -> IBus | str:
    return bus if isinstance(bus, str) else _provider("bus", IBus, bus)
