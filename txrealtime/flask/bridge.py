"""
Between a server, in the reactor's thread, and the handlers of a Flask application, in others.

::

    reactor's thread                             a handler's thread
    BridgedNamespace: an event has come  ----->  Bridge: contexts, the handler, error handlers
    Connection: the ack                  <-----  the result, a copy
    Audience._transmit                    <-----  Inside: emit(), encoded already

Both ways back are one queue, so a client gets what a handler has emitted before its ack.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from flask import Flask
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txrealtime import Namespace, Socket
from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason, Session
from txrealtime.errors import ConnectionRejected
from txrealtime.flask.contexts import Visit, environOf, inContext
from txrealtime.flask.copies import snapshot
from txrealtime.flask.jsonmodule import JSONModule
from txrealtime.flask.options import Configuration
from txrealtime.flask.routes import ANY, Handlers, Route
from txrealtime.flask.server import BridgedServer
from txrealtime.logs import Logger
from txrealtime.pool import Jobs
from txrealtime.socketio.namespace import NO_ACK
from txrealtime.socketio.packet import Packet

__all__ = ["Bridge", "BridgedNamespace"]

_log = Logger()

_REASONS: Final = {
    CloseReason.CLIENT_DISCONNECT: "client disconnect",
    CloseReason.SERVER_DISCONNECT: "server disconnect",
}
"""What Flask-SocketIO's documentation calls them, where the words are not the same."""


class BridgedNamespace(Namespace):
    """A namespace whose events go to an application's handlers, in threads."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(concurrency=bridge.concurrency)
        self._bridge = bridge
        # The rooms of clients whose disconnect handler runs: they have left them.
        self.parting: dict[str, frozenset[str]] = {}
        self.onAny(self._received)

    def _bind(self, path: str, home: Any) -> None:
        super()._bind(path, home)
        self._bridge.spaces[path] = self

    def connected(self, socket: Socket, auth: Any) -> Any:
        bridge = self._bridge
        if not bridge.accepts(self.path):
            raise ConnectionRejected("Invalid namespace")
        if bridge.visitOf(socket).jobs > bridge.mostJobs:
            # What was running for sockets that it has left is counted nowhere else.
            raise ConnectionRejected("Too many events wait")
        route = bridge.handlers.find(self.path, "connect")
        if route is None:
            return None
        # A client of python-socketio always gives one, {} for none.
        asked = bridge.start(route, socket, "connect", (auth or None,))
        asked.addCallbacks(_admit, _refuse)
        if not bridge.configuration.alwaysConnect:
            return asked
        asked.addErrback(self._refusedLate, socket)
        return None

    def _refusedLate(self, failure: Failure, socket: Socket) -> None:
        if not failure.check(ConnectionRejected):
            _log.failure("{namespace}: the connect handler failed", failure, namespace=self.path)
        socket.disconnect()

    def disconnecting(self, socket: Socket, reason: CloseReason) -> None:
        self.parting[socket.id] = frozenset((socket.id, *socket.rooms, *socket._joined))

    def disconnected(self, socket: Socket, reason: CloseReason) -> Any:
        route = self._bridge.handlers.find(self.path, "disconnect")
        if route is None:
            del self.parting[socket.id]
            return None

        def done(result: Any) -> Any:
            self.parting.pop(socket.id, None)
            return result

        told = _REASONS.get(reason, reason.value)
        return self._bridge.start(route, socket, "disconnect", (told,)).addBoth(done)

    def _received(self, socket: Socket, event: str, *args: Any) -> Any:
        route = self._bridge.handlers.find(self.path, event)
        if route is None:
            return NO_ACK
        return self._bridge.start(route, socket, event, args)

    def _ackFailed(self, socket: Socket, error: Exception) -> None:
        if self._bridge.failed is None:
            super()._ackFailed(socket, error)
        else:
            self._bridge.failed(error)

    def roomsOf(self, sid: str) -> list[str]:
        """The rooms that a client is in, or was in until its disconnect handler was called."""
        socket = self.rooms.find(sid)
        return sorted(self.parting.get(sid, ()) if socket is None else socket.rooms)


def _call(route: Route, event: str, sid: str, args: Sequence[Any]) -> Any:
    if route.namespace is not None:
        return route.function(event, sid, *args)
    return route.function(*args)


def _admit(result: Any) -> None:
    if result is False:
        raise ConnectionRejected()


def _refuse(failure: Failure) -> Any:
    # The built-in one, which an application may have meant.
    if failure.check(ConnectionRefusedError):
        raise ConnectionRejected("Connection refused by server")
    return failure


class Bridge:
    """
    One application's handlers and its server.

    :param app: the Flask application.
    :ivar server: the server; its thread is the reactor's.
    :ivar spaces: the namespaces there are, by path.
    :ivar jobs: where handlers run.
    :ivar json: the application's JSON module, if it has one.
    :ivar failed: for tests: gets what handlers raise, in place of the log.
    """

    def __init__(
        self, app: Flask, handlers: Handlers, configuration: Configuration, server: BridgedServer, jobs: Jobs
    ) -> None:
        self.app = app
        self.handlers = handlers
        self.configuration = configuration
        self.server = server
        self.jobs = jobs
        module = configuration.json
        self.json = None if module is None else JSONModule(module, app)
        self.failed: Callable[[BaseException], object] | None = None
        # One client cannot have all threads.
        self.concurrency = max(1, configuration.threads // 2) if configuration.asyncHandlers else 1
        self.spaces: WeakValueDictionary[str, BridgedNamespace] = WeakValueDictionary()
        self.visits: WeakKeyDictionary[Session, Visit] = WeakKeyDictionary()
        self._local = threading.local()
        settings = server.settings
        self.mostJobs = self.concurrency + settings.maxWaiting + settings.maxNamespaces
        for path in {"/", *configuration.namespaces, *handlers.paths} - {ANY}:
            self.open(path)
        server.mount(lambda path, auth: self.accepts(path), lambda: BridgedNamespace(self))

    # -- in the reactor's thread -----------------------------------------------------

    def open(self, path: str) -> None:
        """Have a namespace at a path."""
        if path not in self.spaces:
            self.server.mount(path, BridgedNamespace(self))

    def accepts(self, path: str) -> bool:
        """Whether clients may come to a path: it was named, or has handlers."""
        named = self.configuration.namespaces
        return path in named or ANY in named or bool({path, ANY} & self.handlers.paths)

    def visitOf(self, socket: Socket) -> Visit:
        """A client's opening request."""
        visit = self.visits.get(socket.session)
        if visit is None:
            visit = self.visits[socket.session] = Visit(environOf(self.app, socket.handshake.request))
        return visit

    def start(self, route: Route, socket: Socket, event: str, args: Sequence[Any]) -> Deferred[Any]:
        """Have a handler called: a Deferred of its result."""
        done: Deferred[Any] = Deferred()
        path = socket.namespace.path
        visit = self.visitOf(socket)
        visit.jobs += 1
        job = partial(self._work, done, route, visit, socket.id, path, event, args)
        self.jobs.submit(f"{path} {event[:100]!r}", job)
        return done

    def _done(self, visit: Visit, fire: Callable[[Any], None], result: Any) -> None:
        """A handler has returned, or failed."""
        visit.jobs -= 1
        fire(result)

    # -- in a handler's thread ---------------------------------------------------------

    def _work(
        self,
        done: Deferred[Any],
        route: Route,
        visit: Visit,
        sid: str,
        path: str,
        event: str,
        args: Sequence[Any],
    ) -> None:
        try:
            result = self.sendable(self.handle(route, visit, sid, path, event, self.received(args)))
        except BaseException as error:
            if self.failed is None or isinstance(error, ConnectionRejected):
                self.server.callFromThread(self._done, visit, done.errback, Failure())
                return
            self.failed(error)
            result = False if event == "connect" else NO_ACK
        self.server.callFromThread(self._done, visit, done.callback, result)

    def handle(self, route: Route, visit: Visit, sid: str, path: str, event: str, args: Sequence[Any]) -> Any:
        """Call a handler in its contexts, and the error handlers when it fails: the result of either."""
        shown = [event, *args] if route.message == ANY else tuple(args)
        managed = self.configuration.manageSession
        with inContext(self.app, visit, managed, sid, path, route.message, shown):
            try:
                return self._handle(route, path, lambda: _call(route, event, sid, shown))
            except ConnectionRejected:
                raise
            except Exception as error:
                last = getattr(route.namespace, "error", None)
                if last is None:
                    raise
                return last(error)

    def _handle(self, route: Route, path: str, call: Callable[[], Any]) -> Any:
        handler = self.handlers.errorHandler(path)
        if handler is None:
            return call()
        try:
            return call()
        except ConnectionRejected:
            raise
        except Exception as error:
            return handler(error)

    def inContextOf(self, request: Any, callback: Callable[..., Any]) -> Callable[..., Any]:
        """A callback that runs in the contexts of the event that is handled now."""
        visit, sid, path = request.visit, request.sid, request.namespace
        return lambda *args: self.handle(Route(callback, None), visit, sid, path, "", args)

    def sendable(self, value: Any) -> Any:
        """A copy of a value to be sent, through the application's JSON module if it has one."""
        return snapshot(value) if self.json is None else self.json.plain(value)

    def received(self, value: Any) -> Any:
        """What a client has sent, as the application's JSON module reads it if it has one."""
        return value if self.json is None else self.json.revived(value)

    def encode(self, packet: Packet) -> list[engineio.Packet]:
        """
        The messages of a packet.

        :raises TypeError: for a value that cannot be sent, with the path to it.
        :raises ValueError: likewise.
        """
        # A parser is no two threads'.
        parser: Any = getattr(self._local, "parser", None)
        if parser is None:
            kind: Any = type(self.server.parser)
            parser = self._local.parser = kind()
        return [engineio.message(part) for part in parser.encode(packet)]
