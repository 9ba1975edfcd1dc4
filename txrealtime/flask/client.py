"""
A client for the tests of a Flask application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.testing import EnvironBuilder, FlaskClient
from twisted.internet.task import Clock

from txrealtime.errors import AckTimeout
from txrealtime.flask.contexts import Visit
from txrealtime.testing import Client
from txrealtime.threads import Waiter

if TYPE_CHECKING:
    from txrealtime.flask.socketio import SocketIO

__all__ = ["SocketIOTestClient"]


class Stage:
    """
    What stands for the reactor's thread and for the threads of handlers in a test.

    Whoever does something there is the reactor's thread meanwhile.  Handlers run at once, in the thread of
    the test, and while one does, the reactor is free: what it and other threads ask for is done at once.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: int | None = None
        self.errors: list[BaseException] = []

    # -- as the handlers' threads

    def submit(self, name: str, job: Callable[[], object]) -> None:
        if self._owner != get_ident():
            job()
            return
        self._owner = None
        self._lock.release()
        try:
            job()
        finally:
            self._lock.acquire()
            self._owner = get_ident()

    # -- as the crossing

    def call(self, function: Callable[..., object], *args: Any) -> None:
        with self._held():
            function(*args)

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        waiter = Waiter()
        self.call(waiter.ask, function, *args)
        if not waiter.answered:
            raise AckTimeout(
                "a test client does not answer what the server asks: test that with a real client"
            )
        return waiter.wait()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Do something in the reactor's thread; what handlers have raised meanwhile is raised."""
        with self._held():
            yield
        if self.errors:
            error = self.errors[0]
            self.errors.clear()
            raise error

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Be the reactor's thread."""
        if self._owner == get_ident():
            yield
            return
        with self._lock:
            self._owner = get_ident()
            try:
                yield
            finally:
                self._owner = None


class SocketIOTestClient:
    """
    A client of an application under test, connected to a namespace.

    It speaks with the server without a network, and handlers run at once, in the thread of the test: when
    :meth:`emit` returns, the event has been handled.  What a handler raises and no error handler takes, it
    raises.

    :param namespace: the first to connect to; ``/`` by default.
    :param query_string: of the opening request.
    :param headers: HTTP headers of the opening request.
    :param auth: what goes with CONNECT.
    :param flask_test_client: the Flask test client whose cookies, and so whose session, this one has.
    :raises RuntimeError: when the server is running, or has a message queue.
    :ivar eio_sid: the sid of its Engine.IO session.
    """

    clients: dict[str, SocketIOTestClient] = {}

    def __init__(
        self,
        app: Flask,
        socketio: SocketIO,
        namespace: str | None = None,
        query_string: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Any = None,
        flask_test_client: FlaskClient | None = None,
    ) -> None:
        self.app = app
        self.socketio = socketio
        self.flask_test_client = flask_test_client
        self._stage = _stageOf(socketio)
        self._client: Client | None = None
        self._connected: set[str] = set()
        self.eio_sid = ""
        self.connect(namespace, query_string, headers, auth)

    def is_connected(self, namespace: str | None = None) -> bool:
        """Whether it is in a namespace."""
        return self._client is not None and self._client.isConnected(namespace or "/")

    def connect(
        self,
        namespace: str | None = None,
        query_string: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Any = None,
    ) -> None:
        """
        Connect to a namespace; in the opening request's place comes another one.

        It is not an error when the application refuses: see :meth:`is_connected`.
        """
        environ = self._environ(query_string, headers)
        with self._stage.turn():
            if self._client is None:
                self._client = Client(self.socketio.realtime)
                assert self._client.session is not None
                self.eio_sid = self._client.session.sid
                self.clients[self.eio_sid] = self
            session = self._client.session
            assert session is not None
            self.socketio.bridge.visits[session] = Visit(environ)
            self._client.connect(namespace or "/", auth).addErrback(lambda failure: None)

    def _environ(self, query: str | None, headers: Mapping[str, str] | None) -> dict[str, Any]:
        path = f"{self.socketio.realtime.path}?{(query or '').removeprefix('?')}".removesuffix("?")
        client = self.flask_test_client
        if client is None:
            environ = EnvironBuilder(self.app, path=path, headers=headers).get_environ()
        else:
            environ = dict(client._request_from_builder_args((), {"path": path, "headers": headers}).environ)
            client._add_cookies_to_wsgi(environ)
        environ["flask.app"] = self.app
        return environ

    def disconnect(self, namespace: str | None = None) -> None:
        """
        Leave a namespace.

        :raises RuntimeError: when it is not there.
        """
        client = self._in(namespace)
        with self._stage.turn():
            client.disconnect(namespace or "/")

    def emit(
        self, event: str, *args: Any, callback: bool = False, namespace: str | None = None, **ignored: Any
    ) -> Any:
        """
        Send an event.

        :param callback: whether to ask for an ack.
        :return: the ack: one value as it is, several as a list; `None` when there is none.
        :raises RuntimeError: when it is not in the namespace.
        """
        client = self._in(namespace)
        answers: list[Any] = []
        with self._stage.turn():
            if callback:
                client.call(event, *args, namespace=namespace or "/").addCallback(answers.append)
            else:
                client.emit(event, *args, namespace=namespace or "/")
            client.flush()
        if not answers:
            return None
        return list(answers[0]) if isinstance(answers[0], tuple) else [] if answers[0] is None else answers[0]

    def send(
        self, data: Any, json: bool = False, callback: bool = False, namespace: str | None = None
    ) -> Any:
        """Send the event ``message``, or ``json``; as :meth:`emit`."""
        return self.emit("json" if json else "message", data, callback=callback, namespace=namespace)

    def get_received(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """
        What came since the last call: dictionaries of ``name``, ``args`` and ``namespace``.

        ``args`` is a list, but for ``message`` and ``json`` their one value.

        :raises RuntimeError: when it is not in the namespace.
        """
        client = self._in(namespace)
        path = namespace or "/"
        with self._stage.turn():
            events = client.received(path)
        return [
            {
                "name": name,
                "args": args[0] if name in ("message", "json") and args else list(args),
                "namespace": path,
            }
            for name, *args in events
        ]

    def _in(self, namespace: str | None) -> Client:
        if self._client is None or not self._client.isConnected(namespace or "/"):
            raise RuntimeError(f"not connected to {namespace or '/'}")
        return self._client


def _stageOf(socketio: SocketIO) -> Stage:
    """The stage on which an application's server is put for its tests."""
    bridge = socketio.bridge
    if isinstance(bridge.jobs, Stage):
        return bridge.jobs
    if bridge.server.running:
        raise RuntimeError("the server is running: a test client is for one that is not")
    if bridge.configuration.bus is not None:
        raise RuntimeError("a test client is for a server alone: leave out message_queue in tests")
    stage = Stage()
    bridge.jobs = stage
    bridge.failed = stage.errors.append
    bridge.server.configure(reactor=Clock())
    bridge.server._crossing = stage
    bridge.server.startService()
    return stage
