"""
Flask's contexts around handlers: what ``request``, ``session`` and ``current_app`` are in there.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote_to_bytes

import flask
from flask import Flask
from flask.sessions import SessionMixin

from txrealtime.engineio.handshake import Handshake

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
    """

    __slots__ = ("__weakref__", "environ", "session")

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.session: ManagedSession | None = None


def environOf(app: Flask, handshake: Handshake) -> dict[str, Any]:
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
        key = header.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return environ


@contextmanager
def inContext(
    app: Flask, visit: Visit, manageSession: bool, sid: str, namespace: str, message: str | None, args: Any
) -> Iterator[None]:
    """
    What a handler runs in: an application context and a request context of the opening request.

    The hooks of requests, `before_request` and `after_request`, do not run; those of the contexts'
    end, `teardown_request` and `teardown_appcontext`, do.
    """
    with app.request_context(visit.environ) as context:
        request: Any = flask.request._get_current_object()  # type: ignore[attr-defined]
        request.sid, request.namespace, request.visit = sid, namespace, visit
        request.event = {"message": message, "args": args}
        if manageSession:
            if visit.session is None:
                visit.session = ManagedSession(flask.session)
            # Flask has no public way to put a session in.
            context._session = visit.session
            yield
            return
        yield
        session: Any = flask.session._get_current_object()  # type: ignore[attr-defined]
        if session.modified:
            app.session_interface.save_session(app, session, app.response_class())


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
