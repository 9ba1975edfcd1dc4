"""
A worker class for gunicorn: ``gunicorn -k txrealtime.gunicorn.Worker -w 1 module:app``.

The worker runs the reactor on gunicorn's sockets.  The application is a Flask application with a
:class:`txrealtime.flask.SocketIO`, or a middleware around one.

One worker serves at a time: a client that begins with long polling sends many requests, and two workers
that share a socket would each get some of them.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker as BaseWorker  # type: ignore[import-untyped]
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, LogEvent, STDLibLogObserver, globalLogBeginner
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.flask import SocketIO
from txrealtime.flask.listening import contextOf
from txrealtime.flask.serving import rootOf, runService, stop
from txrealtime.service import Listener

__all__ = ["Worker"]

_INTERVAL: Final = 1.0
"""Seconds between two signs of life; gunicorn's timeouts are whole seconds."""

_OTHERS: Final = ("ca_certs", "ciphers", "do_handshake_on_connect", "ssl_version")
"""Options for TLS that have no equivalent here."""


class Worker(BaseWorker):  # type: ignore[misc]
    """
    A gunicorn worker that serves one Flask application and its Socket.IO clients.

    :ivar turn: a file that the serving worker of a master has locked.
    """

    turn: IO[bytes] | None = None

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """
        Check gunicorn's options, in the master, before it starts a worker.

        :raises RuntimeError: if an option cannot work.  gunicorn shows the message and ends.
        """
        fault = _faultOf(cfg)
        if fault is not None:
            raise RuntimeError(fault)
        # Locks of a process end with the process, so a worker that has crashed keeps no turn.
        cls.turn = tempfile.TemporaryFile()  # noqa: SIM115

    # -- life, in the worker's process -------------------------------------------------

    def init_process(self) -> None:
        # SIGHUP may have brought other options, and --preload the application's modules.
        fault = _faultOf(self.cfg) or _faultOfPreloading()
        if fault is not None:
            self._refuse(fault)
        super().init_process()

    def _refuse(self, fault: str) -> None:
        """End gunicorn with one line; it would start another worker after any other code."""
        self.log.error(fault)
        sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def run(self) -> None:
        """Serve until gunicorn ends the worker."""
        socketio = _socketioOf(self.wsgi)
        if socketio is None:
            self._refuse(
                "the application has no txrealtime.flask.SocketIO: expected a Flask application to which one "
                "is attached, or a middleware whose attribute `app` is such an application"
            )
            return
        self._awaitTurn()
        if not self.alive:
            return
        from twisted.internet import reactor as installed

        reactor: Any = installed
        self._startLogging()
        bridge = socketio.bridge
        site = bridge.server.site(rootOf(bridge, reactor, self.count, self._threads))
        tls = self._tls()
        listeners = [
            Listener(
                reactor,
                f"{'ssl' if tls else 'tcp'} socket of gunicorn",
                site,
                bridge.server.path,
                bridge.app.name,
                _Inherited(reactor, each, tls),
            )
            for each in self.sockets
        ]
        beating = LoopingCall(self.beat)
        beating.clock = reactor
        beating.start(min(_INTERVAL, self.timeout or _INTERVAL))
        reactor.addSystemEventTrigger("before", "shutdown", self._endTurn)
        runService(reactor, bridge.server, listeners)

    @property
    def _threads(self) -> int | None:
        """The threads of views: ``--threads``, or as many as the application has for handlers."""
        return self.cfg.threads if self.cfg.threads > 1 else None

    def _tls(self) -> Any:
        """Return a context factory with the certificates that the options name, if there are any."""
        if not self.cfg.certfile:
            return None
        return contextOf(Path(self.cfg.certfile), Path(self.cfg.keyfile or self.cfg.certfile))

    def beat(self) -> None:
        """Give the master a sign of life, and stop if there is a reason."""
        self.notify()
        if not self.alive or self.ppid != os.getppid():
            stop()

    def count(self, environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
        """Count a request for a view, and end the worker after ``--max-requests``."""
        self.nr += 1
        if self.nr == self.max_requests:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        response: Iterable[bytes] = self.wsgi(environ, respond)
        return response

    # -- one at a time -----------------------------------------------------------------

    def _awaitTurn(self) -> None:
        """Wait until no other worker of this master serves."""
        began = time.monotonic()
        said = False
        while self.alive and not self._hasTurn():
            self.notify()
            if not said and time.monotonic() - began > _INTERVAL:
                said = True
                self.log.warning(
                    "worker %s waits until the other worker ends: one worker serves all clients", self.pid
                )
            if self.ppid != os.getppid():
                self.alive = False
            time.sleep(0.05)

    def _hasTurn(self) -> bool:
        """Try to become the worker that serves."""
        assert self.turn is not None
        try:
            fcntl.lockf(self.turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _endTurn(self) -> None:
        """Let the next worker serve.  New clients are its clients, while this one lets its own go."""
        assert self.turn is not None
        fcntl.lockf(self.turn, fcntl.LOCK_UN)

    # -- signals -----------------------------------------------------------------------

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        """Called on SIGTERM."""
        super().handle_exit(number, frame)
        stop()

    def handle_abort(self, number: int, frame: FrameType | None) -> None:
        """Called on SIGABRT: gunicorn has had no sign of life for ``--timeout`` seconds."""
        self.alive = False
        place = "".join(traceback.format_stack(frame))
        self.log.critical(
            "the reactor's thread is blocked, where nothing may block: handlers and views have threads of "
            "their own.  The call is\n%s",
            place,
        )
        self.cfg.worker_abort(self)
        # The reactor would log a SystemExit, and go on.
        os._exit(1)

    # -- logs --------------------------------------------------------------------------

    def _startLogging(self) -> None:
        observer = _Observer(self.log.access_log if self.cfg.accesslog else None)
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)


def _faultOf(cfg: Any) -> str | None:
    """Tell which of gunicorn's options cannot work, and what to do."""
    if cfg.workers > 1:
        return (
            f"{cfg.workers} workers share one socket, and the requests of one client would go to several: "
            "start with -w 1 (and without WEB_CONCURRENCY), or start several gunicorns with a port each, "
            "behind a proxy that keeps clients apart, with message_queue= in the application"
        )
    if cfg.reuse_port:
        return "reuse_port shares one port among processes, and one client would meet several: leave it out"
    given = [name for name in _OTHERS if getattr(cfg, name) != cfg.settings[name].default]
    if given:
        return f"for TLS the worker takes certfile and keyfile, not {', '.join(given)}: leave TLS to a proxy"
    if cfg.keyfile and not cfg.certfile:
        return "there is a keyfile, and no certfile"
    return None


def _faultOfPreloading() -> str | None:
    if "twisted.internet.reactor" not in sys.modules:
        return None
    return (
        "the application, or a hook of gunicorn, has imported the reactor before the worker was made, and "
        "two processes cannot share a reactor: leave out --preload, or import the reactor later"
    )


def _socketioOf(application: Any) -> SocketIO | None:
    """Return the SocketIO of a Flask application, or of one inside middlewares such as ProxyFix."""
    while application is not None:
        extensions = getattr(application, "extensions", None)
        found = extensions.get("socketio") if isinstance(extensions, Mapping) else None
        if isinstance(found, SocketIO):
            return found
        application = getattr(application, "app", None)
    return None


class _UnixPort(unix.Port):
    """A port on a UNIX socket that leaves the socket and its path open: gunicorn's next worker needs both."""

    _shouldShutdown = False

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


@implementer(IStreamServerEndpoint)
class _Inherited:
    """
    A listening socket of gunicorn as an endpoint.

    :param socket: gunicorn's wrapper of the socket.
    :param tls: a context factory; ``None`` for plain TCP.
    """

    def __init__(self, reactor: Any, socket: Any, tls: Any) -> None:
        self._reactor = reactor
        self._socket = socket
        self._tls = tls

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen with a duplicate of the socket's descriptor: gunicorn closes the original."""
        factory: Any = protocolFactory
        if self._tls is not None:
            factory = TLSMemoryBIOFactory(self._tls, False, factory)
        return execute(self._adopt, factory)

    def _adopt(self, factory: Any) -> IListeningPort:
        socket = self._socket
        if isinstance(socket.getsockname(), tuple):
            port: IListeningPort = self._reactor.adoptStreamPort(socket.fileno(), socket.FAMILY, factory)
            return port
        unixPort: Any = _UnixPort._fromListeningDescriptor(self._reactor, socket.fileno(), factory)  # type: ignore[no-untyped-call]
        unixPort.startListening()
        return IListeningPort(unixPort)


@implementer(ILogObserver)
class _Observer:
    """
    An observer that passes Twisted's log to gunicorn's, and access lines to gunicorn's access log.

    :param access: the logger of access lines, if they are wanted.
    """

    def __init__(self, access: Any) -> None:
        self._access = access
        self._errors = STDLibLogObserver("gunicorn.error")

    def __call__(self, event: LogEvent) -> None:
        # twisted.web writes its access lines to the log as if to a file.
        line = event.get("log_io")
        if line is None:
            self._errors(event)
        elif self._access is not None:
            self._access.info(line)
