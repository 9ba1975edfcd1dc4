"""
Flask's contexts around handlers: the values of ``request``, ``session`` and ``current_app``.

The contexts are made by Flask's public API, so every release from 2.2 on will do.
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
from txrealtime.flask.errors import OutsideOfHandler

__all__ = ["ManagedSession", "Visit", "currentEvent", "environOf", "inContext"]


class ManagedSession(dict[str, Any], SessionMixin):
    """A client's own copy of its user's session, kept in memory as long as the client is connected."""

    # SessionMixin declares these as properties without storage.
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
    A client's opening request as Flask sees it, shared by the client's namespaces.

    :ivar environ: the WSGI environment.
    :ivar session: the fork of the user's session, empty until :meth:`openSession`.
    :ivar jobs: how many handlers run or wait, also those of sockets that are gone.
    :ivar recovered: the namespaces to which the client has come back.
    """

    __slots__ = ("__weakref__", "_isOpen", "_lock", "environ", "jobs", "recovered", "session")

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self._lock = Lock()
        self._isOpen = False
        self.jobs = 0
        # Replaced and never changed: handlers' threads read it.
        self.recovered: frozenset[str] = frozenset()
        self.session = ManagedSession()

    def noteReturn(self, namespace: str, recovered: bool) -> None:
        """Note whether a client has come to a namespace, or has come back to it."""
        self.recovered = self.recovered | {namespace} if recovered else self.recovered - {namespace}

    def openSession(self, app: Flask, request: flask.Request) -> None:
        """Copy the user's session into the fork, before the client's first handler."""
        if self._isOpen:
            return
        # Two first events both open the session.  No lock is held meanwhile: applications' code runs there.
        session = app.session_interface.open_session(app, request)
        with self._lock:
            if not self._isOpen:
                self.session.update(session or {})
                self._isOpen = True


def environOf(app: Flask, handshake: OpeningRequest) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of an opening request."""
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
        "SERVER_SOFTWARE": "txrealtime",
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
            # X_User would overwrite the X-User of a proxy.
            continue
        key = header.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    if handshake.host:
        # Behind a proxy, the Host of the client, not of the proxy.
        environ["HTTP_HOST"] = handshake.host
    return environ


@contextmanager
def inContext(
    app: Flask, visit: Visit, manageSession: bool, sid: str, namespace: str, message: str | None, args: Any
) -> Iterator[None]:
    """
    Enter the contexts of a handler: an application context, and a request context of the opening request.

    The hooks ``before_request`` and ``after_request`` do not run.  Those of the contexts' ends do,
    ``teardown_request`` and ``teardown_appcontext``.
    """
    with _contextOf(app, visit, manageSession):
        request: Any = flask.request
        if manageSession:
            visit.openSession(app, request)
        request.sid, request.namespace, request.visit = sid, namespace, visit
        request.recovered = namespace in visit.recovered
        request.event = {"message": message, "args": args}
        yield
        if not manageSession:
            session: Any = flask.session._get_current_object()  # type: ignore[attr-defined]
            if session.modified:
                app.session_interface.save_session(app, session, app.response_class())


def _contextOf(app: Flask, visit: Visit, manageSession: bool) -> RequestContext:
    """Return a request context that has not been pushed."""
    # werkzeug stores the request in its environ, and each event has a request of its own.
    environ = dict(visit.environ)
    return _EventContext(app, environ, session=visit.session if manageSession else None)


class _EventContext(RequestContext):
    """A request context of an event."""

    def match_request(self) -> None:
        """Do nothing, as Flask allows: no view has Socket.IO's path, and a search takes 30 us."""


def currentEvent(what: str) -> Any:
    """
    Return the ``request`` of the current event.

    :param what: the function that needs the request, for the error.
    :raises OutsideOfHandler: if no handler runs in this thread.
    """
    if not flask.has_request_context() or not hasattr(flask.request, "sid"):
        raise OutsideOfHandler(
            f"{what} needs to know the client, and this is no handler of a Socket.IO event: elsewhere, "
            "as in a view or a background task, use the method of the SocketIO object, which has to be "
            "told the room or the sid"
        )
    return flask.request
