"""
The object that a Flask application holds.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import flask
from flask import Flask
from twisted.web.resource import IResource
from zope.interface import implementer

from txrealtime.flask.bridge import Bridge
from txrealtime.flask.names import roomNames
from txrealtime.flask.namespace import Namespace
from txrealtime.flask.options import configured, warning
from txrealtime.flask.queuesender import Outside
from txrealtime.flask.routes import Handlers, methodsOf
from txrealtime.flask.sender import Inside
from txrealtime.flask.server import BridgedServer
from txrealtime.flask.serving import Signpost, refuseFlaskRun, rootOf, run, stop
from txrealtime.pool import Threads
from txrealtime.server import IApplication

if TYPE_CHECKING:
    from txrealtime.flask.client import SocketIOTestClient

__all__ = ["SocketIO"]

F = TypeVar("F", bound=Callable[..., Any])

_NO_APPLICATION: Final = "this SocketIO has no application yet: call init_app(app) first"


class _Reasons:
    """Why a client has gone, as ``disconnect`` handlers are told."""

    SERVER_DISCONNECT = "server disconnect"
    CLIENT_DISCONNECT = "client disconnect"
    PING_TIMEOUT = "ping timeout"
    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"


@implementer(IApplication)
class SocketIO:
    """
    Socket.IO for a Flask application.

    :param app: the application; without it, :meth:`init_app` is to be called.  Without it and with
        ``message_queue``, this only sends to the clients of the servers that have this queue.
    :param options: those of Flask-SocketIO's class of this name; ``handler_threads``, the most threads in
        which handlers run; or any field of :class:`txrealtime.Settings`.
    :raises TypeError: for an option that does not exist.
    :raises ValueError: for a value that makes no sense.
    """

    reason = _Reasons
    async_mode = "threading"
    """What handlers run in, as Flask-SocketIO would call it."""

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        self.server_options: dict[str, Any] = {}
        self.handlers = Handlers()
        self._bridge: Bridge | None = None
        self._inside: Inside | None = None
        self._outside: Outside | None = None
        if app is not None or options.get("message_queue"):
            self.init_app(app, **options)
        else:
            self.server_options.update(options)

    def init_app(self, app: Flask | None, **options: Any) -> None:
        """
        Belong to an application; without one and with ``message_queue``, only send until there is one.

        :param options: as for the class; they take the place of those given there.
        """
        self.server_options.update(options)
        configuration = configured(self.server_options)
        if configuration.ignored:
            warnings.warn(warning("SocketIO()", configuration.ignored), stacklevel=3)
        bus = configuration.bus
        self._outside = None if bus is None else Outside(bus, configuration, app)
        if app is None:
            if self._outside is not None:
                self._outside.emitter()
            return
        refuseFlaskRun(app)
        app.extensions["socketio"] = self
        threads = Threads(configuration.threads)
        server = BridgedServer(
            configuration.path,
            parser=configuration.parser(),
            threads=threads,
            bus=bus,
            **configuration.settings,
        )
        self._bridge = Bridge(app, self.handlers, configuration, server, threads)
        self._inside = Inside(self._bridge)
        app.wsgi_app = Signpost(app, configuration.path)  # type: ignore[method-assign, assignment]

    @property
    def bridge(self) -> Bridge:
        """What connects the application with its server."""
        if self._bridge is None:
            raise RuntimeError(_NO_APPLICATION)
        return self._bridge

    @property
    def _sender(self) -> Inside | Outside:
        """What sends: the server once it runs, and otherwise the message queue, if there is one."""
        inside, outside = self._inside, self._outside
        if inside is not None and (outside is None or inside.isOpen):
            return inside
        if outside is None:
            raise RuntimeError(_NO_APPLICATION)
        return outside

    @property
    def realtime(self) -> BridgedServer:
        """The server, a :class:`txrealtime.Server`."""
        return self.bridge.server

    @property
    def manage_session(self) -> bool:
        """Whether each client has a session of its own, forked from its user's."""
        return self.bridge.configuration.manageSession

    @manage_session.setter
    def manage_session(self, value: bool) -> None:
        self.bridge.configuration.manageSession = value

    # -- registering -------------------------------------------------------------------

    def on(self, message: str, namespace: str | None = None) -> Callable[[F], F]:
        """
        Decorate the handler of an event: ``handler(*args)``; what it returns is the ack.

        :param message: the event.  ``connect`` and ``disconnect`` are told of a client's coming and going,
            ``message`` and ``json`` are what ``send`` sends, and ``*`` is every event without a handler.
        :param namespace: ``/`` by default, ``*`` for every namespace.
        """

        def register(handler: F) -> F:
            self.on_event(message, handler, namespace)
            return handler

        return register

    def on_event(self, message: str, handler: Callable[..., Any], namespace: str | None = None) -> None:
        """Register the handler of an event; as :meth:`on`."""
        path = namespace or "/"
        self.handlers.add(message, handler, path)
        self._opened(path)

    def event(self, *args: Any, **options: Any) -> Any:
        """Decorate the handler of the event that has the function's name."""
        if len(args) == 1 and not options and callable(args[0]):
            return self.on(args[0].__name__)(args[0])
        return lambda handler: self.on(handler.__name__, *args, **options)(handler)

    def on_namespace(self, namespace_handler: Namespace) -> None:
        """
        Register a namespace of a class.

        :raises ValueError: when it is none.
        """
        if not isinstance(namespace_handler, Namespace):
            raise ValueError(
                f"on_namespace() takes an instance of a subclass of Namespace, not {namespace_handler!r}"
            )
        namespace_handler.attach(self, methodsOf(namespace_handler))
        self.handlers.mount(namespace_handler)
        self._opened(namespace_handler.namespace)

    def on_error(self, namespace: str | None = None) -> Callable[[F], F]:
        """Decorate what gets the exceptions of a namespace's handlers; what it returns is the ack."""

        def register(handler: F) -> F:
            if not callable(handler):
                raise ValueError(f"an error handler is callable, not {handler!r}")
            self.handlers.errorHandlers[namespace or "/"] = handler
            return handler

        return register

    def on_error_default(self, exception_handler: F) -> F:
        """Decorate what gets the exceptions in namespaces without an error handler of their own."""
        if not callable(exception_handler):
            raise ValueError(f"an error handler is callable, not {exception_handler!r}")
        self.handlers.errorDefault = exception_handler
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
    ) -> None:
        """
        Send an event, from a handler or from anywhere else.

        :param args: one JSON value, bytes anywhere in it; a tuple for several values.
        :param to: a room, a sid, or a list of these; everybody by default.  `room` is the same.
        :param include_self: in a handler: whether its client is among those who get it.
        :param skip_sid: a sid, or a list of sids, of those who do not.
        :param callback: called with what a client acks; in a handler's contexts when emitted from a handler.
        :raises TypeError: for a value that cannot be sent, with the path to it.
        """
        skip = roomNames(skip_sid)
        if not include_self:
            skip.append(_sidOfSender())
        data = args[0] if len(args) == 1 and isinstance(args[0], tuple) else args
        if callback is not None:
            callback = self._inItsContext(callback)
        to = room if to is None else to
        self._sender.emit(event, _withoutNone(data), namespace or "/", to, skip, callback)

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
        """Send the event ``message``, or ``json``; as :meth:`emit`."""
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
    ) -> Any:
        """
        Send an event to one client and wait for its ack.

        :param to: its sid.
        :param timeout: seconds.
        :return: what it acked: `None` for nothing, one value as it is, several as a tuple.
        :raises TimeoutError: when it does not answer in time, or has gone.
        :raises RuntimeError: in the reactor's thread, which would wait for itself.
        """
        to = room if to is None else to
        if not isinstance(to, str):
            raise ValueError(f"call() asks one client: expected its sid as to=, not {to!r}")
        data = args[0] if len(args) == 1 and isinstance(args[0], tuple) else args
        return self._sender.call(event, _withoutNone(data), namespace or "/", to, timeout)

    def _inItsContext(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """A callback that runs in the contexts of the handler that emits."""
        if not flask.has_request_context() or not hasattr(flask.request, "sid"):
            return callback
        return self.bridge.inContextOf(flask.request, callback)

    # -- rooms, from any thread ---------------------------------------------------------------

    def enter_room(self, sid: str, room: Any, namespace: str | None = None) -> None:
        """
        Put a client into a room.

        :raises ValueError: when it is another client's own room.
        """
        self._sender.join(namespace or "/", sid, room)

    def leave_room(self, sid: str, room: Any, namespace: str | None = None) -> None:
        """Take a client out of a room."""
        self._sender.doTo(namespace or "/", sid, "leave", *roomNames(room))

    def close_room(self, room: Any, namespace: str | None = None) -> None:
        """
        Take everybody out of a room.

        :raises ValueError: when it is a client's own room.
        """
        self._sender.close(namespace or "/", room)

    def rooms(self, sid: str, namespace: str | None = None) -> list[str]:
        """The rooms that a client is in."""
        return self._sender.rooms(namespace or "/", sid)

    def disconnect(self, sid: str, namespace: str | None = None) -> None:
        """Disconnect a client from a namespace."""
        self._sender.doTo(namespace or "/", sid, "disconnect")

    # -- threads ---------------------------------------------------------------------------------

    def start_background_task(
        self, target: Callable[..., Any], *args: Any, **keywords: Any
    ) -> threading.Thread:
        """Run a function in a thread of its own, which ends with the process: the thread, to be joined."""
        thread = threading.Thread(target=target, args=args, kwargs=keywords, daemon=True)
        thread.start()
        return thread

    def sleep(self, seconds: float = 0) -> None:
        """Let this thread sleep."""
        time.sleep(seconds)

    # -- serving -----------------------------------------------------------------------------------

    def run(self, app: Flask, host: str | None = None, port: int | None = None, **options: Any) -> None:
        """
        Serve the application and Socket.IO until the process is told to end.

        :param host: the address to listen on; 127.0.0.1 by default.
        :param port: 5000 by default, or the one in ``SERVER_NAME``.
        :param options: ``debug``, ``use_reloader``, ``reloader_options``, ``extra_files``, ``log_output``;
            ``keyfile`` and ``certfile`` for TLS.  Those of other servers change nothing.
        """
        run(self, app, host, port, options)

    def stop(self) -> None:
        """Make :meth:`run` return, once the clients have taken what was left for them."""
        stop()

    def root(self, reactor: Any) -> IResource:
        """The Flask application as a resource, for ``twistd realtime``."""
        return rootOf(self, self.bridge.app, reactor)

    def test_client(self, app: Flask, *args: Any, **options: Any) -> SocketIOTestClient:
        """A client for tests, connected: see :class:`SocketIOTestClient`."""
        from txrealtime.flask.client import SocketIOTestClient

        return SocketIOTestClient(app, self, *args, **options)


def _withoutNone(data: Sequence[Any]) -> Sequence[Any]:
    """Arguments to send: a single ``None`` stands for none."""
    return () if len(data) == 1 and data[0] is None else data


def _sidOfSender() -> str:
    sid = getattr(flask.request, "sid", None) if flask.has_request_context() else None
    if sid is None:
        raise RuntimeError(
            "include_self=False leaves out the client whose event is handled, and this is no handler: "
            "name the client by skip_sid="
        )
    return str(sid)
