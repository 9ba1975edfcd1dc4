"""
Flask's contexts around handlers: what ``request``, ``session`` and ``current_app`` are in there.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from urllib.parse import unquote_to_bytes

import flask
from flask import Flask
from flask.ctx import RequestContext
from flask.sessions import SessionMixin

from txrealtime.engineio.handshake import OpeningRequest

__all__ = ["ManagedSession", "Visit", "currentEvent", "environOf", "inContext"]


class ManagedSession(dict[str, Any], SessionMixin):
    """A client's own copy of its user's session, kept in memory as long as the client stays."""

    # What SessionMixin makes of these are properties that store nothing.
    new = False
    modified = True
    accessed = True

    @property
    def permanent(self) -> bool:
        return bool(self.get("_permanent", False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self["_permanent"] = bool(value)


class Visit:
    """
    A client's opening request as Flask sees it, shared by its namespaces.

    :ivar environ: as of a WSGI request.
    :ivar session: the fork of the user's session, once a handler has run.
    :ivar jobs: how many handlers run or wait, also those of sockets that are gone.
    """

    __slots__ = ("__weakref__", "adapter", "environ", "jobs", "lock", "request", "session")

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.lock = Lock()
        self.jobs = 0
        self.session: ManagedSession | None = None
        self.request: flask.Request | None = None
        self.adapter: Any = None

    def opened(self, context: RequestContext) -> None:
        """Remember of the first event's context what serves the others."""
        with self.lock:
            if self.request is None:
                self.session = ManagedSession(context.session)
                self.adapter = context.url_adapter
                self.request = _copyOf(context.request)


def environOf(app: Flask, handshake: OpeningRequest) -> dict[str, Any]:
    """The WSGI environment (PEP 3333) of an opening request."""
    path, _, query = handshake.url.partition("?")
    scheme = "https" if handshake.secure else "http"
    name, _, port = handshake.host.rpartition(":") if not handshake.host.endswith("]") else ("", "", "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        # PEP 3333: bytes, decoded as Latin-1.
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.partition("#")[0],
        "REQUEST_URI": handshake.url,
        "SERVER_NAME": (name if port.isdecimal() else handshake.host) or "localhost",
        "SERVER_PORT": port if port.isdecimal() else ("443" if handshake.secure else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": handshake.address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "flask.app": app,
    }
    for header, value in handshake.headers.items():
        if "_" in header:
            # It would be the same key as with "-", and a client could overwrite what a proxy has set.
            continue
        key = header.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    if handshake.host:
        # Behind a proxy, what the client asked for.
        environ["HTTP_HOST"] = handshake.host
    return environ


def _copyOf(request: flask.Request) -> flask.Request:
    """The same request for one event, whose handler may give it attributes."""
    copy = request.__class__.__new__(request.__class__)
    copy.__dict__.update(request.__dict__)
    return copy


class _EventContext(RequestContext):
    """
    A request context for one more event of a client.

    Flask makes one of the opening request in 70 us: it reads the request, finds its route, opens the
    session.  All of that is the same for each event, so what the first one has found serves the others.
    """

    def __init__(self, app: Flask, visit: Visit, session: SessionMixin | None) -> None:
        assert visit.request is not None
        self.app = app
        self.request = _copyOf(visit.request)
        self.url_adapter = visit.adapter
        self.flashes = None
        self._session = session
        self._after_request_functions = []
        self._cv_tokens = []

    def copy(self) -> RequestContext:
        """What ``copy_current_request_context`` gives to a callback or a task."""
        return RequestContext(self.app, self.request.environ, request=self.request, session=self._session)

    def match_request(self) -> None:
        """The first event's context has."""


@contextmanager
def inContext(
    app: Flask, visit: Visit, manageSession: bool, sid: str, namespace: str, message: str | None, args: Any
) -> Iterator[None]:
    """
    What a handler runs in: an application context and a request context of the opening request.

    The hooks of requests, `before_request` and `after_request`, do not run; those of the contexts'
    end, `teardown_request` and `teardown_appcontext`, do.
    """
    with _contextOf(app, visit, manageSession) as context:
        if visit.request is None:
            visit.opened(context)
        if manageSession:
            # Of two first events, each has opened the session.
            context._session = visit.session
        request: Any = context.request
        request.sid, request.namespace, request.visit = sid, namespace, visit
        request.event = {"message": message, "args": args}
        if manageSession:
            yield
            return
        yield
        session: Any = flask.session._get_current_object()  # type: ignore[attr-defined]
        if session.modified:
            app.session_interface.save_session(app, session, app.response_class())


def _contextOf(app: Flask, visit: Visit, manageSession: bool) -> RequestContext:
    """A request context that has not been pushed."""
    if visit.request is None:
        return app.request_context(visit.environ)
    return _EventContext(app, visit, visit.session if manageSession else None)


def currentEvent(what: str) -> Any:
    """
    The ``request`` of the handler that runs.

    :param what: what needs it, for the error.
    :raises RuntimeError: outside of a handler.
    """
    if not flask.has_request_context() or not hasattr(flask.request, "sid"):
        raise RuntimeError(
            f"{what} needs to know the client, and this is no handler of a Socket.IO event: elsewhere, "
            "as in a view or a background task, use the method of the SocketIO object, which has to be "
            "told the room or the sid"
        )
    return flask.request
