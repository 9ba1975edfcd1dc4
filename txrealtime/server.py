"""
The server: namespaces and an engine as one service and one resource.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import Attribute, Interface

from txrealtime.cluster.bus.interfaces import IBus
from txrealtime.cluster.cluster import Cluster
from txrealtime.engineio import settings as engineio
from txrealtime.engineio.engine import Engine
from txrealtime.engineio.http.resource import EngineResource
from txrealtime.engineio.http.site import EngineSite
from txrealtime.engineio.session import CloseReason, Session
from txrealtime.engineio.settings import setting
from txrealtime.engineio.websocket.transport import WebSocketFactory
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.connection import Connection
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.namespaces import Directory, Factory, Where
from txrealtime.socketio.packet import IParser, JSONParser
from txrealtime.socketio.sockets import Socket
from txrealtime.threads import Crossing, Handover

__all__ = ["IApplication", "Server", "Settings"]

F = TypeVar("F", bound=Callable[..., Any])

AllowRequest = Callable[[Handshake], bool | Awaitable[bool | None] | None]


@dataclass(frozen=True, kw_only=True)
class Settings(engineio.Settings):
    """All settings of a server: the engine's, and those of Socket.IO on top."""

    connectTimeout: float = setting(45.0, "seconds that a client may stay without joining a namespace")
    maxNamespaces: int = setting(100, "namespaces that one client may be in at a time")
    maxRooms: int = setting(10_000, "rooms that one socket may be in at a time")
    maxAttachments: int = setting(10, "the most binary attachments that one packet may have")
    maxWaiting: int = setting(
        100, "events of one client that may wait for their handlers before reading from it pauses"
    )
    drainTimeout: float = setting(5.0, "seconds that clients have to take what is left when the server stops")
    disconnectOnStop: bool = setting(
        False, "send DISCONNECT when the server stops, so that clients do not connect again by themselves"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._checkPositive("connectTimeout", "maxNamespaces", "maxWaiting", "drainTimeout")
        self._checkNotNegative("maxAttachments", "maxRooms")


class IApplication(Interface):
    """What ``twistd realtime --app`` takes beside a :class:`Server`: a server, and pages with it."""

    realtime: Server = Attribute("The server.")

    def root(reactor: Any) -> IResource:
        """
        What is at /, unless the command line puts something else there.

        :param reactor: what serves it.
        """


class Server(Service):
    """
    A Socket.IO server.

    Handlers for the default namespace, ``/``, are registered on the server itself; see
    :class:`~txrealtime.socketio.namespace.Namespace` for the decorators.  It is a service:
    as long as it runs it serves, and when it is stopped it says goodbye to every client.

    :param path: where it is, in the URL.
    :param parser: another :class:`~txrealtime.socketio.packet.IParser`, which the clients
        must use too.
    :param allowRequest: called with the :class:`~txrealtime.Handshake` of each client before its session is
        made.  Returning ``False`` or raising :exc:`ConnectionRejected` refuses the client (403); the
        function may be ``async`` or return a Deferred.
    :param reactor: the clock; the installed reactor by default.
    :param bus: what connects this server with others, or its URL, such as ``redis://localhost``: see
        :doc:`/howto/scale-out`.
    :param options: any field of :class:`Settings`.
    :raises TypeError: for an option that is no setting.
    :raises ValueError: for a value that makes no sense.
    :ivar cluster: this server among others; without a bus, alone.
    """

    def __init__(
        self,
        path: str = "/socket.io",
        *,
        parser: IParser | None = None,
        allowRequest: AllowRequest | None = None,
        reactor: IReactorTime | None = None,
        bus: IBus | str | None = None,
        **options: Any,
    ) -> None:
        self.settings = Settings(**options)
        self.path = "/" + path.strip("/")
        self._allowRequest = allowRequest
        self.parser = parser or JSONParser()
        self._directory = Directory(self.parser, reactor)
        self.cluster = Cluster(self._directory)
        if bus is not None:
            self.cluster.use(bus)

    def configure(
        self,
        *,
        path: str | None = None,
        parser: IParser | None = None,
        bus: IBus | str | None = None,
        reactor: IReactorTime | None = None,
        **options: Any,
    ) -> None:
        """
        Change the path, parser, bus, clock or settings of a server that has not been used yet.

        ``twistd realtime`` does, where its command line says something else than the application.

        :param options: any field of :class:`Settings`.
        :raises RuntimeError: when the server is in a site already, which has taken its settings.
        """
        if "engine" in self.__dict__:
            raise RuntimeError("the server is in use: its settings cannot change any more")
        self.settings = replace(self.settings, **options)
        if path is not None:
            self.path = "/" + path.strip("/")
        if parser is not None:
            self.parser = self._directory.parser = parser
        if bus is not None:
            self.cluster.use(bus)
        if reactor is not None:
            self._directory.reactor = reactor

    # -- from other threads ------------------------------------------------------------

    @property
    def reactor(self) -> IReactorTime:
        """The clock, and in a process that serves the reactor."""
        return self._directory.reactor

    @cached_property
    def crossing(self) -> Crossing:
        """What takes calls from other threads to the reactor's."""
        return Handover(self.reactor)

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        """
        Have a function called in the reactor's thread, and do not wait: from any thread.

        ::

            server.callFromThread(server.to("red").emit, "goal", 3)

        The calls of one thread are made in their order, many in one turn of the reactor; an error is
        logged.  See :meth:`txrealtime.threads.Handover.call`.
        """
        self.crossing.call(function, *args)

    def blockingCallFromThread(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Have a function called in the reactor's thread, and wait for what it or its Deferred gives.

        ::

            people = server.blockingCallFromThread(server.to("red").fetch)

        :raises RuntimeError: in the reactor's thread, which would wait for itself, and when the reactor
            does not run.
        :raises Disconnected: when the reactor stops before there is a result.
        """
        return self.crossing.ask(function, *args)

    # -- in a site -------------------------------------------------------------------

    @cached_property
    def engine(self) -> Engine:
        """The Engine.IO server underneath."""
        allowRequest = self._allowRequest
        asked = None if allowRequest is None else lambda request: allowRequest(Handshake(request))
        return Engine(self._connection, self.settings, self._directory.reactor, asked)

    def _connection(self, session: Session) -> Connection:
        settings = self.settings
        return Connection(
            session,
            self._directory,
            settings.connectTimeout,
            settings.maxAttachments,
            settings.maxWaiting,
            settings.maxNamespaces,
            settings.maxRooms,
        )

    def resource(self) -> IResource:
        """The resource to put at :attr:`path` of a ``twisted.web`` site."""
        return EngineResource(self.engine)

    def site(self, root: IResource) -> Site:
        """
        A site with a root resource of yours and this server at :attr:`path`.

        It refuses a request body larger than ``maxPayload`` before it has read it, which
        a resource in another site can do only after.
        """
        return EngineSite(root, self.path, self.engine)

    def webSocketFactory(self) -> WebSocketFactory:
        """A factory for an endpoint that serves WebSocket alone, without ``twisted.web``."""
        return self.engine.webSocketFactory()

    # -- namespaces ------------------------------------------------------------------

    def namespace(self, path: str = "/") -> Namespace:
        """The namespace at a path, made if there is none yet."""
        return self._directory.get(path)

    def mount(self, where: Where, what: Namespace | Factory) -> None:
        """
        Put a namespace of yours at a path, or what makes one at a pattern.

        :param where: a path; a compiled pattern that matches paths in full; or a predicate
            ``f(path, auth)``, which may be ``async``.
        :param what: a :class:`Namespace`; for a pattern or predicate, its class or
            whatever makes one.  Such a namespace lives while somebody is in it.
        """
        self._directory.mount(where, what)

    @property
    def namespaces(self) -> list[Namespace]:
        """The namespaces there are now."""
        return list(self._directory)

    # -- the default namespace ---------------------------------------------------------

    def on(self, event: str) -> Callable[[F], F]:
        """Decorate the handler of an event: see :meth:`Namespace.on`."""
        return self.namespace().on(event)

    def onAny(self, function: F) -> F:
        """Decorate the handler of events that have none: see :meth:`Namespace.onAny`."""
        return self.namespace().onAny(function)

    def onConnect(self, function: F) -> F:
        """Decorate what admits clients: see :meth:`Namespace.connected`."""
        return self.namespace().onConnect(function)

    def onDisconnecting(self, function: F) -> F:
        """Decorate what is told before a client leaves: see :meth:`Namespace.disconnecting`."""
        return self.namespace().onDisconnecting(function)

    def onDisconnect(self, function: F) -> F:
        """Decorate what is told when a client has left: see :meth:`Namespace.disconnected`."""
        return self.namespace().onDisconnect(function)

    def onError(self, *kinds: type[BaseException]) -> Callable[[F], F]:
        """Decorate what is done with handlers' errors: see :meth:`Namespace.onError`."""
        return self.namespace().onError(*kinds)

    def use(self, function: F) -> F:
        """Decorate a middleware around events: see :meth:`Namespace.use`."""
        return self.namespace().use(function)

    def to(self, *rooms: str | Socket) -> Audience:
        """Those in any of these rooms: see :meth:`Audience.to`."""
        return self.namespace().to(*rooms)

    def excluding(self, *rooms: str | Socket) -> Audience:
        """Everybody but those in any of these rooms: see :meth:`Audience.excluding`."""
        return self.namespace().excluding(*rooms)

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """Send an event to everybody: see :meth:`Audience.emit`."""
        self.namespace().emit(event, *args, volatile=volatile)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``, to everybody."""
        self.namespace().send(*args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float = 60.0) -> Deferred[list[Any]]:
        """Ask everybody: see :meth:`Audience.call`."""
        return self.namespace().call(event, *args, timeout=timeout)

    def fetch(self, timeout: float = 5.0) -> Deferred[list[Person]]:
        """Who is here: see :meth:`Audience.fetch`."""
        return self.namespace().fetch(timeout)

    # -- as a service ------------------------------------------------------------------

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.cluster.start()
        self.engine.reopen()

    def stopService(self) -> Deferred[None]:
        """
        Take no more clients and close those there are; then leave the cluster.

        :return: a Deferred that fires when the last has taken what was left for it, or
            after ``drainTimeout``.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self.settings.disconnectOnStop:
            for namespace in self._directory:
                namespace.dismiss(CloseReason.SHUTTING_DOWN)
        return self.engine.drain(self.settings.drainTimeout).addCallback(lambda _: self.cluster.stop())
