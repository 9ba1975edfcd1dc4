"""
Socket.IO in an application that another WSGI server serves: long polling only.

Another server, such as gevent's, waitress or Werkzeug's, hands each request to the application in a thread
or a greenlet.  For Socket.IO's path, that thread gives the request to the engine, in the reactor's thread,
and waits for the response.  The reactor runs in a background thread, from the first such request on.  There
is no WebSocket, because WSGI has no way to pass the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event, Thread
from typing import Any, Final
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.web.http import NOT_IMPLEMENTED, RESPONSES, SERVICE_UNAVAILABLE

from txrealtime.engineio.polling.request import TEXT
from txrealtime.errors import Disconnected
from txrealtime.flask.bridge import Bridge
from txrealtime.flask.greenlets import threadsAreGreen
from txrealtime.flask.serving import hasRun, startLogging
from txrealtime.logs import Logger

__all__ = ["SocketIOPath"]

_log = Logger()

_SERVE: Final = (
    "Serve the application by socketio.run(app), by: twistd -n realtime --app MODULE:socketio, "
    "or by: gunicorn -k txrealtime.gunicorn.Worker -w 1 MODULE:app"
)

_STOPPED: Final = "The reactor has stopped in this process, and cannot run again: start another process."

_Response = tuple[int, bytes, bytes]
"""Status, body and content type."""

_background: dict[str, Event] = {}
"""The background thread, as an event that is set when the reactor runs there."""


class SocketIOPath:
    """
    A WSGI middleware that serves Socket.IO's path if another WSGI server serves the application.

    The log says once that there is long polling only.  Where even that cannot work, clients get a 501 that
    says why and how to serve the application, and the log gets the same once.

    :param application: the Flask application's own WSGI application.
    :param bridge: the bridge to the server.
    """

    def __init__(self, application: Any, bridge: Bridge) -> None:
        self._application = application
        self._bridge = bridge
        self._said: set[str] = set()

    def __call__(self, environ: dict[str, Any], respond: Any) -> Any:
        path: str = environ.get("PATH_INFO", "")
        # twistd's --path may have changed the server's path.
        served = self._bridge.server.path
        if path != served and not path.startswith(f"{served}/"):
            return self._application(environ, respond)
        reason = _whyNot(environ)
        if reason is not None:
            message = f"{reason} {_SERVE}"
            if reason not in self._said:
                self._said.add(reason)
                environ["wsgi.errors"].write(message + "\n")
            return _plain(respond, NOT_IMPLEMENTED, message)
        if not _reactorRuns():
            return _plain(respond, SERVICE_UNAVAILABLE, _STOPPED)
        server = self._bridge.server
        request = HostedRequest(environ, server.settings.maxPayload)
        try:
            status, body, contentType = server.blockingCallFromThread(self._serve, request)
        except Disconnected:
            return _plain(respond, SERVICE_UNAVAILABLE, _STOPPED)
        return _respond(respond, status, body, contentType, request.extra)

    def _serve(self, request: HostedRequest) -> Deferred[_Response]:
        """Serve a request, in the reactor's thread."""
        server = self._bridge.server
        if not (server.running or server.stopped):
            self._start()
        server.engine.serve(request)
        return request.response

    def _start(self) -> None:
        """Start the server, which has no listener of its own."""
        _log.warn(
            "another WSGI server serves this application: Socket.IO has long polling only, no WebSocket, and "
            "each client occupies one of that server's threads. " + _SERVE
        )
        server: Any = self._bridge.server
        server.engine.upgrades = ()
        server.startService()
        server.reactor.addSystemEventTrigger("before", "shutdown", server.stopService)


class HostedRequest:
    """
    A request of another WSGI server, as the engine reads requests.

    It provides :class:`~txrealtime.engineio.polling.request.HTTPRequest`.  WSGI does not tell when a client
    leaves: the heartbeat does.

    :param environ: the WSGI environment (PEP 3333).
    :param most: the most bytes of a body that count; one more is read, which shows that there are more.
    :ivar response: a Deferred of the response.
    """

    def __init__(self, environ: dict[str, Any], most: int) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        self.url = quote(path, safe="/:@!$&'()*+,;=~", encoding="latin-1") + (f"?{query}" if query else "")
        self.extra = {b"Vary": b"Origin"}
        # A UNIX socket has no address: gunicorn gives an empty one, others give none.
        self.peer: str = environ.get("REMOTE_ADDR") or "unix"
        self.secure = environ.get("wsgi.url_scheme") == "https"
        self.response: Deferred[_Response] = Deferred()
        self._headers = _headersOf(environ)
        self._body = _bodyOf(environ, most + 1)

    def header(self, name: str) -> str:
        return self._headers.get(name, "")

    def headers(self) -> dict[str, str]:
        return self._headers

    def body(self, most: int) -> bytes:
        return self._body[:most]

    def respond(self, status: int, body: bytes, contentType: bytes = TEXT) -> None:
        if not self.response.called:
            self.response.callback((status, body, contentType))

    def whenLost(self, call: Callable[[], object]) -> None:
        """Do nothing: WSGI does not tell."""


def _whyNot(environ: dict[str, Any]) -> str | None:
    """Tell why a server cannot pass Socket.IO's requests, if it cannot."""
    if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
        return "WebSocket does not pass through this WSGI server: only long polling does."
    if environ["wsgi.multiprocess"]:
        return (
            "Socket.IO does not pass through several processes of a WSGI server, because the requests of one "
            "client go to any of them."
        )
    if not environ["wsgi.multithread"] and not threadsAreGreen():
        return (
            "Socket.IO does not pass through this WSGI server, which handles one request at a time, while "
            "each client of long polling waits in one: give the server threads, or with gevent call "
            "gevent.monkey.patch_all() before all other imports."
        )
    return None


def _headersOf(environ: dict[str, Any]) -> dict[str, str]:
    names = [name for name in environ if name.startswith("HTTP_")]
    headers = {name[5:].lower().replace("_", "-"): str(environ[name]) for name in names}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.lower().replace("_", "-")] = environ[name]
    return headers


def _bodyOf(environ: dict[str, Any], most: int) -> bytes:
    """Read a request's body up to so many bytes.  Without its length, only some servers end the stream."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdecimal():
        most = min(most, int(length))
    elif not environ.get("wsgi.input_terminated"):
        return b""
    parts = []
    while most:
        part: bytes = environ["wsgi.input"].read(most)
        if not part:
            break
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _reactorRuns() -> bool:
    """Run the reactor in a thread, unless it runs; return false if it has run before and has stopped."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    if reactor.running or hasRun():
        return bool(reactor.running)
    started = Event()
    # Not a lock, which would stop all greenlets if it was made before gevent has patched the module.
    first = _background.setdefault("reactor", started)
    if first is started:
        startLogging(all=False)
        reactor.callWhenRunning(started.set)
        # The other server has the signals, and may end the process at any time.
        Thread(target=_run, args=(reactor, started), name="reactor", daemon=True).start()
    first.wait()
    return bool(reactor.running)


def _run(reactor: Any, started: Event) -> None:
    try:
        reactor.run(installSignalHandlers=False)
    finally:
        # An application of its own may have run the reactor before.
        started.set()


def _plain(respond: Any, status: int, text: str) -> Iterable[bytes]:
    return _respond(respond, status, text.encode(), TEXT, {})


def _respond(
    respond: Any, status: int, body: bytes, contentType: bytes, extra: dict[bytes, bytes]
) -> Iterable[bytes]:
    fields = {
        b"Content-Type": contentType,
        b"Content-Length": b"%d" % len(body),
        b"Cache-Control": b"no-store",
        **extra,
    }
    respond(
        f"{status} {RESPONSES.get(status, b'Unknown').decode()}",
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields.items()],
    )
    return [body]
