"""
``socketio.run(app)``: the reactor, a site with the application at / and Socket.IO at its path.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from _thread import interrupt_main
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from flask import Flask
from flask.cli import run_command
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.web.resource import IResource

from txrealtime.flask.listening import Place, takeTLS
from txrealtime.flask.options import warning
from txrealtime.service import Listener, RealtimeService
from txrealtime.service.wsgi import Views

if TYPE_CHECKING:
    from txrealtime.flask.socketio import SocketIO

__all__ = ["Signpost", "rootOf", "run", "stop"]


class Signpost:
    """
    The WSGI application of a Flask application that some other server serves.

    Socket.IO does not pass through WSGI, so to its clients it says, once in the log too, what would.
    """

    def __init__(self, app: Flask, path: str) -> None:
        self._app: Any = app.wsgi_app
        self._path = path
        self._message = (
            "Socket.IO does not pass through this WSGI server. Serve the application by socketio.run(app), "
            "or by: twistd -n realtime --app MODULE:socketio"
        )
        self._said = False

    def __call__(self, environ: Any, respond: Any) -> Any:
        path: str = environ.get("PATH_INFO", "")
        if path != self._path and not path.startswith(f"{self._path}/"):
            return self._app(environ, respond)
        if not self._said:
            self._said = True
            environ["wsgi.errors"].write(self._message + "\n")
        respond("501 Not Implemented", [("Content-Type", "text/plain; charset=utf-8")])
        return [self._message.encode()]


def refuseFlaskRun(app: Flask) -> None:
    """
    Say how to serve an application that ``flask run`` is about to serve.

    :raises click.ClickException: which the ``flask`` command shows, and ends.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.command is run_command:
        raise click.ClickException(
            "flask run cannot serve Socket.IO. Serve the application by socketio.run(app), as in "
            f"'python {app.import_name}.py', or by: twistd -n realtime --app {app.import_name}:socketio"
        )


def rootOf(socketio: SocketIO, app: Flask, reactor: Any) -> IResource:
    """The application as what is at /, in as many threads as handlers may have."""
    return Views(reactor, app, socketio.bridge.configuration.threads, socketio.realtime.settings)


def run(socketio: SocketIO, app: Flask, host: str | None, port: int | None, options: dict[str, Any]) -> None:
    """Serve until the reactor stops."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    if reactor.running:
        raise RuntimeError(
            "run() runs the reactor, which runs already: start socketio.realtime, a service, and let an "
            "endpoint listen for socketio.realtime.site(socketio.root(reactor)), or serve the application "
            f"by: twistd -n realtime --app {app.import_name}:socketio"
        )
    if port is None:
        name, _, given = str(app.config["SERVER_NAME"] or "").rpartition(":")
        port = int(given) if name and given.isdecimal() else 5000
    app.debug = debug = options.pop("debug", app.debug)
    logOutput = options.pop("log_output", debug)
    useReloader = options.pop("use_reloader", debug)
    reloaderOptions = dict(options.pop("reloader_options", {}))
    extraFiles = options.pop("extra_files", None)
    if extraFiles:
        reloaderOptions["extra_files"] = extraFiles
    tls = takeTLS(options)
    options.pop("allow_unsafe_werkzeug", None)
    if options:
        warnings.warn(warning("SocketIO.run()", options), stacklevel=3)
    place = Place(host or "127.0.0.1", int(port), tls)
    if debug:
        from werkzeug.debug import DebuggedApplication

        app.wsgi_app = DebuggedApplication(app.wsgi_app, evalex=True)  # type: ignore[method-assign]

    def serve() -> None:
        _serve(socketio, app, reactor, place, logOutput)

    if useReloader:
        _reloading(serve, reloaderOptions)
    else:
        serve()


def _reloading(serve: Callable[[], None], options: dict[str, Any]) -> None:
    """
    Serve in a thread, and whenever a source changes in a new process, until it ends or fails.

    The reloader keeps the main thread, and would not end with the other.
    """
    from werkzeug._reloader import run_with_reloader

    ends: list[BaseException | None] = []

    def serveAndEnd() -> None:
        try:
            serve()
        except BaseException as error:
            ends.append(error)
        else:
            ends.append(None)
        # The reloader takes this signal, and raises SystemExit.
        interrupt_main(signal.SIGTERM)

    try:
        run_with_reloader(serveAndEnd, **options)
    except SystemExit:
        if not ends:
            raise
    if ends and ends[0] is not None:
        raise ends[0]


def _serve(socketio: SocketIO, app: Flask, reactor: Any, place: Place, logOutput: bool) -> None:
    _startLogging(logOutput)
    server = socketio.realtime
    site = server.site(rootOf(socketio, app, reactor))
    site.noisy = False
    listener = Listener(reactor, str(place), site, server.path, app.name, place.endpoint(reactor))
    service = RealtimeService(reactor, server, [listener])
    service.privilegedStartService()  # type: ignore[no-untyped-call]
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    # The reloader has the main thread, and signals come to that alone.
    reactor.run(installSignalHandlers=threading.current_thread() is threading.main_thread())


def stop() -> None:
    """Stop the reactor, from any thread."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    def stopReactor() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callFromThread(stopReactor)


def _startLogging(all: bool) -> None:
    """Show on standard error what goes wrong, or all."""
    if not globalLogBeginner._temporaryObserver:
        return  # somebody has started it
    level = LogLevel.info if all else LogLevel.warn
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
