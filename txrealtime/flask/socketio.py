"""
SocketIO, the object that a Flask application holds.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, overload

import flask
from flask import Flask
from twisted.web.resource import IResource
from werkzeug.local import LocalProxy
from zope.interface import implementer

from txrealtime import Namespace as RealtimeNamespace
from txrealtime.flask.askedorigins import AskedOrigins
from txrealtime.flask.bridge import Bridge
from txrealtime.flask.client import SocketIOTestClient
from txrealtime.flask.contexts import environOf
from txrealtime.flask.errors import OutsideOfHandler
from txrealtime.flask.facade import QueueFacade, ServerFacade
from txrealtime.flask.flaskrun import refuseFlaskRun, takeOverRun
from txrealtime.flask.greenlets import Task, leftGreenlets
from txrealtime.flask.hosted import SocketIOPath
from txrealtime.flask.interfaces import Sender
from txrealtime.flask.names import sidsOf
from txrealtime.flask.namespace import Namespace, attach
from txrealtime.flask.options import configured, warning, warningOfOrigins
from txrealtime.flask.queuesender import QueueSender
from txrealtime.flask.routes import Routes, methodsOf, warnOfAlike
from txrealtime.flask.sender import ServerSender
from txrealtime.flask.server import BridgedServer
from txrealtime.flask.serving import rootOf, run, stop
from txrealtime.pool import Threads
from txrealtime.server import IApplication
from txrealtime.socketio.past import Limit, PastEvent

__all__ = ["SocketIO"]

F = TypeVar("F", bound=Callable[..., Any])

_NO_APPLICATION: Final = "this SocketIO has no application yet: call init_app(app) first"


class _Reasons:
    """The reasons that ``disconnect`` handlers are told."""

    SERVER_DISCONNECT = "server disconnect"
    CLIENT_DISCONNECT = "client disconnect"
    PING_TIMEOUT = "ping timeout"
    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"


@implementer(IApplication)
class SocketIO:
    """
    Socket.IO for a Flask application.

    :param app: the application; or give it to :meth:`init_app` later.  Without an application and with
        ``message_queue``, the object only sends, to the clients of the servers that share the queue.
    :param options: those of Flask-SocketIO's class of this name; ``handler_threads``, the most threads in
        which handlers run; any field of :class:`txrealtime.Settings`.
        Others are ignored with a warning, as Flask-SocketIO ignores them without one.
    :raises ValueError: if a value makes no sense.
    """

    reason = _Reasons
    async_mode = "threading"
    """Flask-SocketIO's name for handlers in threads."""

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        self.server_options: dict[str, Any] = {}
        self._routes = Routes()
        self._bridge: Bridge | None = None
        self._histories: dict[str, dict[str, Any]] = {}
        self._serverSender: ServerSender | None = None
        self._queueSender: QueueSender | None = None
        if app is not None or options.get("message_queue"):
            self.init_app(app, **options)
        else:
            self.server_options.update(options)

    def init_app(self, app: Flask | None, **options: Any) -> None:
        """
        Attach to an application; without one and with ``message_queue``, only send until there is one.

        :param options: as for the class; they override those given there.
        """
        if isinstance(app, LocalProxy):
            # current_app is another application in another context, or none.
            app = app._get_current_object()
        self.server_options.update(options)
        given = self.server_options
        configuration = configured(
            {name: value for name, value in given.items() if not isinstance(value, QueueFacade)}
        )
        configuration.histories = self._histories
        if configuration.ignored:
            warnings.warn(warning("SocketIO()", configuration.ignored), stacklevel=3)
        if configuration.strangeOrigins:
            warnings.warn(warningOfOrigins(configuration.strangeOrigins), stacklevel=3)
        bus = configuration.bus
        self._queueSender = None if bus is None else QueueSender(bus, configuration, app)
        if bus is not None:
            self.server_options["client_manager"] = QueueFacade(write_only=app is None)
        if app is None:
            if self._queueSender is not None:
                self._queueSender.emitter()
            return
        refuseFlaskRun(app)
        app.extensions["socketio"] = self
        threads, asks = Threads(configuration.threads, leftovers=leftGreenlets), configuration.asksOrigin
        server = BridgedServer(
            configuration.path,
            parser=configuration.parser(),
            threads=threads,
            packetLog=configuration.packetLog,
            askedOrigins=None if asks is None else AskedOrigins(asks, partial(environOf, app)),
            bus=bus,
            **configuration.settings,
        )
        self._bridge = Bridge(app, self._routes, configuration, server, threads)
        self._serverSender = ServerSender(self._bridge)
        takeOverRun(app, self)
        app.wsgi_app = SocketIOPath(app.wsgi_app, self._bridge)  # type: ignore[method-assign, assignment]

    @property
    def bridge(self) -> Bridge:
        """Return the bridge between the application and its server."""
        if self._bridge is None:
            raise RuntimeError(_NO_APPLICATION)
        return self._bridge

    @property
    def _sender(self) -> Sender:
        """Return the sender: the server once it runs, and before the message queue, if there is one."""
        server, queue = self._serverSender, self._queueSender
        if server is not None and (queue is None or server.isOpen):
            return server
        if queue is None:
            raise RuntimeError(_NO_APPLICATION)
        return queue

    @property
    def realtime(self) -> BridgedServer:
        """Return the server, a :class:`txrealtime.Server`."""
        return self.bridge.server

    @property
    def server(self) -> ServerFacade | None:
        """Return a facade with the methods of python-socketio's server; ``None`` before :meth:`init_app`."""
        return None if self._bridge is None else ServerFacade(self._bridge, self)

    @property
    def manage_session(self) -> bool:
        """Tell if each client has a session of its own, forked from its user's."""
        return self.bridge.configuration.manageSession

    @manage_session.setter
    def manage_session(self, value: bool) -> None:
        self.bridge.configuration.manageSession = value

    # -- registering -------------------------------------------------------------------

    def on(self, message: str, namespace: str | None = None) -> Callable[[F], F]:
        """
        Decorate the handler of an event: ``handler(*args)``; the result is the ack.

        A second handler of one event takes the place of the first, which the log says once.

        :param message: the event.  ``connect`` and ``disconnect`` are called when a client comes and goes,
            ``message`` and ``json`` are the events of ``send``, and ``*`` is every event without a handler.
        :param namespace: ``/`` by default, ``*`` for every namespace.
        """

        def register(handler: F) -> F:
            self.on_event(message, handler, namespace)
            return handler

        return register

    def on_event(self, message: str, handler: Callable[..., Any], namespace: str | None = None) -> None:
        """Register the handler of an event, as :meth:`on` does."""
        path = namespace or "/"
        self._routes.add(message, handler, path)
        self._opened(path)

    @property
    def handlers(self) -> list[tuple[str, Callable[..., Any], str]]:
        """Return the registered functions, each as (event, function, namespace)."""
        return self._routes.registered

    @overload
    def event(self, handler: F, /) -> F: ...

    @overload
    def event(self, namespace: str | None = None) -> Callable[[F], F]: ...

    def event(self, *args: Any, **options: Any) -> Any:
        """Decorate the handler of the event of the function's name: ``handler(*args)`` returns the ack."""
        if len(args) == 1 and not options and callable(args[0]):
            return self.on(args[0].__name__)(args[0])
        return lambda handler: self.on(handler.__name__, *args, **options)(handler)

    def on_namespace(self, namespace_handler: Namespace) -> None:
        """
        Register a class-based namespace.

        :raises ValueError: if the object is no :class:`Namespace`.
        """
        if not isinstance(namespace_handler, Namespace):
            raise ValueError(
                f"on_namespace() takes an instance of a subclass of Namespace, not {namespace_handler!r}"
            )
        warnOfAlike(namespace_handler)
        attach(namespace_handler, self, methodsOf(namespace_handler))
        self._routes.mount(namespace_handler)
        self._opened(namespace_handler.namespace)

    def on_error(self, namespace: str | None = None) -> Callable[[F], F]:
        """Decorate the error handler of a namespace: ``handler(exception)``; the result is the ack."""

        def register(handler: F) -> F:
            if not callable(handler):
                raise ValueError(f"an error handler is callable, not {handler!r}")
            self._routes.errorHandlers[namespace or "/"] = handler
            return handler

        return register

    def on_error_default(self, exception_handler: F) -> F:
        """Decorate the error handler of namespaces without one: ``handler(exception)`` returns the ack."""
        if not callable(exception_handler):
            raise ValueError(f"an error handler is callable, not {exception_handler!r}")
        self._routes.errorDefault = exception_handler
        return exception_handler

    def _opened(self, path: str) -> None:
        if self._bridge is not None and path != "*":
            self._bridge.open(path)

    # -- sending, from any thread ------------------------------------------------------------

    def emit(
        self,
        event: str,
        *args: Any,
        namespace: str | None = "/",
        to: Any = None,
        room: Any = None,
        include_self: bool = True,
        skip_sid: Any = None,
        callback: Callable[..., Any] | None = None,
        ignore_queue: bool = False,
        **options: Any,
    ) -> None:
        """
        Send an event, from a handler or from anywhere else.

        :param args: one JSON value, bytes anywhere in it; a tuple for several values.  ``data=`` is an alias.
        :param to: a room, a sid, or a list of these; everybody by default.  `room` is an alias.
        :param include_self: in a handler, ``False`` leaves out its client.
        :param skip_sid: a sid, or a list of sids, to leave out.
        :param callback: called with the arguments of each ack, in the contexts of the handler that emits.
        :raises TypeError: if a value cannot be sent, with the path to it.
        """
        skip = sidsOf(skip_sid)
        if not include_self:
            skip.append(_sidOfSender())
        if callback is not None:
            callback = self._inItsContext(callback)
        to = room if to is None else to
        self._sender.emit(event, _arguments(args, options), namespace or "/", to, skip, callback)

    def send(
        self,
        data: Any,
        json: bool = False,
        namespace: str | None = None,
        to: Any = None,
        callback: Callable[..., Any] | None = None,
        include_self: bool = True,
        skip_sid: Any = None,
        **options: Any,
    ) -> None:
        """Send the event ``message``, or ``json``, as :meth:`emit` does."""
        self.emit(
            "json" if json else "message",
            data,
            namespace=namespace,
            to=to,
            callback=callback,
            include_self=include_self,
            skip_sid=skip_sid,
            **options,
        )

    def call(
        self,
        event: str,
        *args: Any,
        namespace: str | None = "/",
        to: Any = None,
        room: Any = None,
        timeout: float = 60,
        ignore_queue: bool = False,
        **options: Any,
    ) -> Any:
        """
        Send an event to one client and wait for its ack.

        :param to: the client's sid.
        :param timeout: seconds.
        :return: the ack: ``None`` for nothing, one value as it is, several as a tuple.
        :raises TimeoutError: if no ack comes in time, or the client has gone.
        :raises RuntimeError: if called in the reactor's thread, which would wait for itself.
        """
        to = room if to is None else to
        if not isinstance(to, str):
            raise ValueError(f"call() asks one client: expected its sid as to=, not {to!r}")
        return self._sender.call(event, _arguments(args, options), namespace or "/", to, timeout)

    def _inItsContext(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a callback so that it runs in the contexts of the current handler, if there is one."""
        if not flask.has_request_context() or not hasattr(flask.request, "sid"):
            return callback
        return self.bridge.inContextOf(flask.request, callback)

    # -- rooms, from any thread ---------------------------------------------------------------

    def enter_room(self, sid: str, room: Any, namespace: str | None = None, rewind: Limit = None) -> None:
        """
        Put a client into a room.

        :param rewind: send the client the last events of the room, if it was not there: so many, or those of
            a ``timedelta``.  Then the call waits until the client is in the room.
        :raises ValueError: if the room is another client's own; or with `rewind`, if the namespace keeps no
            history, or the client is on another server.
        """
        self._sender.join(namespace or "/", sid, room, rewind)

    def leave_room(self, sid: str, room: Any, namespace: str | None = None) -> None:
        """Take a client out of a room."""
        self._sender.leave(namespace or "/", sid, room)

    def close_room(self, room: Any, namespace: str | None = None) -> None:
        """
        Take everybody out of a room.

        :raises ValueError: if the room is a client's own.
        """
        self._sender.close(namespace or "/", room)

    def rooms(self, sid: str, namespace: str | None = None) -> list[str]:
        """Return the rooms of a client."""
        return self._sender.rooms(namespace or "/", sid)

    def disconnect(self, sid: str, namespace: str | None = None) -> None:
        """Disconnect a client from a namespace."""
        self._sender.disconnect(namespace or "/", sid)

    # -- history -----------------------------------------------------------------------------------

    def keep_history(
        self,
        events: int = 100,
        seconds: float = 3600.0,
        bytes: int = 16_000_000,
        namespace: str | None = None,
    ) -> None:
        """
        Keep the events that are said to the rooms of a namespace, for :func:`join_room` with ``rewind``.

        Call it before the server runs.  See :doc:`/howto/history`.

        :param events: the most events of one room.
        :param seconds: the time for which an event is kept.
        :param bytes: the most memory for all events of the namespace.
        :param namespace: ``/`` by default.
        :raises ValueError: if a limit is not above 0, or the namespace keeps history already.
        """
        path = namespace or "/"
        limits = {"events": events, "seconds": seconds, "bytes": bytes}
        space = None if self._bridge is None else self._bridge.spaces.get(path)
        # A namespace that does not exist yet is checked by another one.
        (space or RealtimeNamespace()).keepHistory(**limits)  # type: ignore[arg-type]
        if path in self._histories:
            raise ValueError(f"{path} keeps history already")
        self._histories[path] = limits

    def history(self, room: Any, last: Limit = None, namespace: str | None = None) -> list[PastEvent]:
        """
        Return the last events that were said to a room, the oldest first.

        Other servers may be asked first, so the call waits, as :meth:`call` does.

        :param room: a room, or a list of rooms.
        :param last: so many events, or those of a ``timedelta``; by default all that are kept.
        :return: each as a :class:`~txrealtime.PastEvent` with ``event``, ``args`` and ``age``.
        :raises ValueError: if the namespace keeps no history: see :meth:`keep_history`.
        """
        return self._sender.history(namespace or "/", room, last)

    # -- threads ---------------------------------------------------------------------------------

    def start_background_task(
        self, target: Callable[..., Any], *args: Any, **keywords: Any
    ) -> threading.Thread:
        """Run a function in a daemon thread, and return the thread."""
        thread = Task(target=target, args=args, kwargs=keywords, daemon=True)
        thread.start()
        return thread

    def sleep(self, seconds: float = 0) -> None:
        """Sleep in the current thread."""
        time.sleep(seconds)

    # -- serving -----------------------------------------------------------------------------------

    def run(self, app: Flask, host: str | None = None, port: int | None = None, **options: Any) -> None:
        """
        Serve the application and Socket.IO until the process is told to end, by a signal or :meth:`stop`.

        :param host: the address to listen on; 127.0.0.1 by default.
        :param port: 5000 by default, or the one in ``SERVER_NAME``.
        :param options: ``debug``, ``use_reloader``, ``reloader_options``, ``extra_files``, ``log_output``;
            ``keyfile`` and ``certfile`` for TLS.  Those of other servers change nothing.
        """
        run(self.bridge, app, host, port, options)

    def stop(self) -> None:
        """Make :meth:`run` return after the clients have received the rest of their events."""
        stop()

    def root(self, reactor: Any) -> IResource:
        """Return the Flask application as a resource, for ``twistd realtime``."""
        return rootOf(self.bridge, reactor)

    def test_client(self, app: Flask, *args: Any, **options: Any) -> SocketIOTestClient:
        """Return a connected client for tests, a :class:`SocketIOTestClient`."""
        return SocketIOTestClient(app, self, *args, **options)


def _arguments(args: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
    """
    Return the arguments of an event: those of a tuple, and none for a single ``None``.

    :param options: the other keyword arguments, of which only ``data`` counts.
    """
    if not args and "data" in options:
        args = (options["data"],)
    if len(args) != 1:
        return args
    (data,) = args
    return data if isinstance(data, tuple) else () if data is None else args


def _sidOfSender() -> str:
    sid = getattr(flask.request, "sid", None) if flask.has_request_context() else None
    if sid is None:
        raise OutsideOfHandler(
            "include_self=False leaves out the client whose event is handled, and this is no handler: "
            "name the client by skip_sid="
        )
    return str(sid)
