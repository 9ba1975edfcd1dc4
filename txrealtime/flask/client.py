"""
A client for the tests of a Flask application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, Protocol

from flask import Flask
from flask.testing import EnvironBuilder, FlaskClient
from twisted.internet.task import Clock

from txrealtime.errors import AckTimeout
from txrealtime.flask.bridge import Bridge
from txrealtime.flask.contexts import Visit
from txrealtime.testing import Client
from txrealtime.threads import Waiter

__all__ = ["SocketIOTestClient"]


class Bridged(Protocol):
    """An object with a bridge: :class:`~txrealtime.flask.SocketIO`."""

    @property
    def bridge(self) -> Bridge: ...


class Stage:
    """
    A stand-in for the reactor's thread and for the threads of handlers, for tests.

    A thread that has work for the reactor becomes the reactor's thread for that time.  Handlers run at
    once, in the thread of the test, which gives up the reactor meanwhile: calls of handlers and of other
    threads are made at once, too.
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
        """Be the reactor's thread for a block, then raise the first exception of a handler."""
        with self._held():
            yield
        if self.errors:
            error = self.errors[0]
            self.errors.clear()
            raise error

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Be the reactor's thread for a block."""
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

    The client needs no network.  Handlers run at once, in the thread of the test: when :meth:`emit`
    returns, the event has been handled.  An exception of a handler that no error handler takes is raised by
    the client's method.

    :param namespace: the first namespace; ``/`` by default.
    :param query_string: the query of the opening request.
    :param headers: HTTP headers of the opening request.
    :param auth: the data of the CONNECT packet.
    :param flask_test_client: a Flask test client, whose cookies and thereby session this client gets.
    :raises RuntimeError: if the server is running, or has a message queue.
    :ivar eio_sid: the sid of the Engine.IO session.
    """

    clients: dict[str, SocketIOTestClient] = {}

    def __init__(
        self,
        app: Flask,
        socketio: Bridged,
        namespace: str | None = None,
        query_string: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Any = None,
        flask_test_client: FlaskClient | None = None,
    ) -> None:
        self.app = app
        self.socketio = socketio
        self.flask_test_client = flask_test_client
        self._stage = _stageOf(socketio.bridge)
        self._client: Client | None = None
        self._connected: set[str] = set()
        self.eio_sid = ""
        self.connect(namespace, query_string, headers, auth)

    def is_connected(self, namespace: str | None = None) -> bool:
        """Tell if the client is in a namespace."""
        return self._client is not None and self._client.isConnected(namespace or "/")

    def connect(
        self,
        namespace: str | None = None,
        query_string: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Any = None,
    ) -> None:
        """
        Connect to a namespace, with another opening request.

        A refusal by the application is no error: see :meth:`is_connected`.
        """
        environ = self._environ(query_string, headers)
        with self._stage.turn():
            if self._client is None:
                self._client = Client(self.socketio.bridge.server)
                assert self._client.session is not None
                self.eio_sid = self._client.session.sid
                self.clients[self.eio_sid] = self
            session = self._client.session
            assert session is not None
            self.socketio.bridge.visits[session] = Visit(environ)
            self._client.connect(namespace or "/", auth).addErrback(lambda failure: None)

    def _environ(self, query: str | None, headers: Mapping[str, str] | None) -> dict[str, Any]:
        path = f"{self.socketio.bridge.server.path}?{(query or '').removeprefix('?')}".removesuffix("?")
        client = self.flask_test_client
        if client is None:
            environ = EnvironBuilder(self.app, path=path, headers=headers).get_environ()
        else:
            environ = _environOf(self.app, client, path, headers)
        environ["flask.app"] = self.app
        return environ

    def disconnect(self, namespace: str | None = None) -> None:
        """
        Leave a namespace.

        :raises RuntimeError: if the client is not in the namespace.
        """
        client = self._in(namespace)
        with self._stage.turn():
            client.disconnect(namespace or "/")

    def emit(
        self, event: str, *args: Any, callback: bool = False, namespace: str | None = None, **ignored: Any
    ) -> Any:
        """
        Send an event.

        :param callback: ask for an ack.
        :return: the ack: one value as it is, several as a list; ``None`` if there is none.
        :raises RuntimeError: if the client is not in the namespace.
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
        Return the events since the last call: dictionaries of ``name``, ``args`` and ``namespace``.

        ``args`` is a list; of ``message`` and ``json``, their one value.

        :raises RuntimeError: if the client is not in the namespace.
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


def _environOf(
    app: Flask, client: FlaskClient, path: str, headers: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return the environment of a GET request as a Flask test client sends it, cookies included."""
    caught: list[dict[str, Any]] = []

    def catch(environ: dict[str, Any], respond: Callable[..., Any]) -> list[bytes]:
        caught.append(environ)
        respond("204 No Content", [])
        return []

    whole = app.wsgi_app
    app.wsgi_app = catch  # type: ignore[method-assign, assignment]
    try:
        client.get(path, headers=headers)
    finally:
        app.wsgi_app = whole  # type: ignore[method-assign]
    return dict(caught[0])


def _stageOf(bridge: Bridge) -> Stage:
    """Return the stage of an application's server, after putting the server on one."""
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
