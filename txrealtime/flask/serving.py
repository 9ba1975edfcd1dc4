"""
``socketio.run(app)``: the reactor, a site with the application at / and Socket.IO at its path.
"""

from __future__ import annotations

import signal
import sys
import warnings
from _thread import interrupt_main
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Flask
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.web.resource import IResource

from txrealtime.flask.bridge import Bridge
from txrealtime.flask.greenlets import leftGreenlets
from txrealtime.flask.listening import ListeningAddress, takeTLS
from txrealtime.flask.options import warning
from txrealtime.flask.signals import OwnHandlers, inMainThread
from txrealtime.server import Server
from txrealtime.service import Listener, RealtimeService
from txrealtime.service.reactors import quicken
from txrealtime.service.wsgi import Views

__all__ = ["hasRun", "rootOf", "run", "runService", "startLogging", "stop"]


_ran: list[str] = []
"""The application that run() has served: the reactor runs once in a process."""


def hasRun() -> bool:
    """Tell if :func:`run` serves in this process, or has served."""
    return bool(_ran)


def rootOf(bridge: Bridge, reactor: Any, application: Any = None, threads: int | None = None) -> IResource:
    """
    Return the application as the root resource.

    :param application: a middleware in place of the Flask application.
    :param threads: the most threads; by default as many as handlers have.
    """
    threads = threads or bridge.configuration.threads
    return Views(reactor, application or bridge.app, threads, bridge.server, leftGreenlets)


def run(bridge: Bridge, app: Flask, host: str | None, port: int | None, options: dict[str, Any]) -> None:
    """Serve until the reactor stops."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    if reactor.running:
        raise RuntimeError(
            "run() runs the reactor, which runs already: start socketio.realtime, a service, and let an "
            "endpoint listen for socketio.realtime.site(socketio.root(reactor)), or serve the application "
            f"by: twistd -n realtime --app {app.import_name}:socketio"
        )
    if _ran:
        raise RuntimeError(
            "run() has returned once in this process, and Twisted's reactor cannot run again: start another "
            "process, or call run() once, in a thread that stays"
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
    address = ListeningAddress(host or "127.0.0.1", int(port), tls)
    if debug:
        from werkzeug.debug import DebuggedApplication

        app.wsgi_app = DebuggedApplication(app.wsgi_app, evalex=True)  # type: ignore[method-assign]

    def serve() -> None:
        _serve(bridge, app, reactor, address, logOutput)

    if useReloader:
        _reloading(serve, reloaderOptions)
    else:
        serve()


def _reloading(serve: Callable[[], None], options: dict[str, Any]) -> None:
    """
    Serve in a thread, in a new process after each change of a source, until the thread ends or fails.

    The reloader keeps the main thread, and would not end with the other thread.
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
        # The reloader turns this signal into SystemExit.
        interrupt_main(signal.SIGTERM)

    try:
        run_with_reloader(serveAndEnd, **options)
    except SystemExit:
        if not ends:
            raise
    if ends and ends[0] is not None:
        raise ends[0]


def _serve(bridge: Bridge, app: Flask, reactor: Any, address: ListeningAddress, logOutput: bool) -> None:
    """Serve until the reactor stops."""
    startLogging(logOutput)
    _ran.append(app.name)
    server = bridge.server
    site = server.site(rootOf(bridge, reactor))

    def tell(where: str) -> None:
        print(f" * Serving {app.name} on {where} (Press CTRL+C to quit)", file=sys.stderr, flush=True)

    listener = Listener(
        reactor, str(address), site, server.path, app.name, address.endpoint(reactor), opened=tell
    )
    runService(reactor, server, [listener])


def runService(reactor: Any, server: Server, listeners: list[Listener]) -> None:
    """
    Run the reactor with a server until it stops.

    The signal handlers that have been installed before are called, and may end the server by an exception,
    which is raised here afterwards.
    """
    quicken(reactor)
    service = RealtimeService(reactor, server, listeners)
    service.privilegedStartService()  # type: ignore[no-untyped-call]
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    # Under the reloader this is not the main thread.
    handlers = OwnHandlers(stop) if inMainThread() else None
    if handlers is None:
        reactor.run(installSignalHandlers=False)
        return
    reactor.callWhenRunning(handlers.install)
    reactor.run()
    handlers.restore()
    handlers.raiseError()


def stop() -> None:
    """Stop the reactor, from any thread."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    def stopReactor() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callFromThread(stopReactor)


def startLogging(all: bool) -> None:
    """Log to standard error: everything, or only warnings and errors."""
    if not globalLogBeginner._temporaryObserver:
        return  # the application has begun logging already
    level = LogLevel.info if all else LogLevel.warn
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
