"""
A worker's process: ``python -m txrealtime.service.process TERMS [options of twistd realtime]``.

The supervisor starts it; TERMS are in JSON what differs between the workers.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import FileLogObserver, LogEvent, eventAsText, globalLogBeginner

from txrealtime.errors import BusError
from txrealtime.logs import Logger
from txrealtime.server import Server
from txrealtime.service.application import rootOf, serverOf
from txrealtime.service.listener import Listener
from txrealtime.service.metrics import metricsOf
from txrealtime.service.options import Options, StartupError
from txrealtime.service.service import RealtimeService
from txrealtime.workers.handoff import Handoff, PeekingPort
from txrealtime.workers.listening import Inherited, familyOf, withoutPlace
from txrealtime.workers.siblings import WorkerSiblings
from txrealtime.workers.worker import CANNOT_START, REPORTS, Supervision, reportFailure

if TYPE_CHECKING:
    from txrealtime.monitor.metrics import Page
    from txrealtime.workers.metrics import Reporter

__all__ = ["main"]

_log = Logger()

_FIRST_PORT: Final = REPORTS + 1

# Seconds in which a worker that stops still serves as before, but accepts no more connections.
_MOMENT: Final = 0.2


class _PeekingEndpoint:
    """An endpoint of a port that the supervisor has opened, whose connections may go to other workers."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def listen(self, site: Any) -> Deferred[IListeningPort]:
        port = self._make(site)
        port.startListening()
        return succeed(port)


class _Worker:
    """The parts of one worker."""

    def __init__(self, reactor: Any, terms: dict[str, Any], options: Options) -> None:
        self._reactor = reactor
        self._terms = terms
        self._stopping = False
        self.server = self._server(options)
        self._reporter = self._reporterOf(options)
        root, self.rootName = rootOf(options, self.server, reactor)
        self._site = self.server.site(root)
        mark, folder = terms["mark"], terms["folder"]
        self._siblings = WorkerSiblings(reactor, folder, mark, self.server.engine)
        self._handoff = Handoff(reactor, folder, mark, self._adopt)
        self._listeners = [self._listener(place, text) for place, text in enumerate(terms["listen"])]
        self.service = RealtimeService(
            reactor,
            self.server,
            self._listeners,
            self._siblings,
            self._handoff,
            blockedAfter=options["blockedAfter"],
            metrics=self._metrics,
        )
        self.supervision = Supervision(reactor, self.stop, lambda: len(self.server.engine.sessions))

    def _server(self, options: Options) -> Server:
        """Return the application's server, on the hub unless it has another bus."""
        server = serverOf(options)
        self._onHub = server.cluster.status == "alone"
        if self._onHub:
            server.configure(bus=f"unix:{quote(self._terms['folder'])}/hub")
            server.cluster.open()
        return server

    def _reporterOf(self, options: Options) -> Reporter | None:
        """Make the metrics, if an option asks for them; the supervisor makes the page of all workers."""
        terms = self._terms

        def page(accept: str) -> Deferred[Page]:
            return reporter.page(accept)

        self._metrics = metricsOf(options, self.server, self._handovers, page)
        if self._metrics is None:
            return None
        from txrealtime.monitor.metrics import REGISTRY
        from txrealtime.workers.metrics import Reporter

        reporter = Reporter(self._reactor, terms["folder"], terms["number"], self._metrics, REGISTRY)
        return reporter

    def _handovers(self) -> dict[str, int]:
        """Return the connections, requests and WebSockets that went to other workers."""
        siblings = self._siblings
        return {"handoff": self._handoff.sent, "relay": siblings.relayed, "tunnel": siblings.carried}

    def _listener(self, place: int, description: str) -> Listener:
        reactor, descriptor, server = self._reactor, _FIRST_PORT + place, self.server
        os.set_inheritable(descriptor, False)
        kind = description.partition(":")[0]
        endpoint: Any = None
        if kind in ("tcp", "tcp6", "unix", "systemd"):
            listening = socket.socket(fileno=descriptor)
            listening.setblocking(False)
            endpoint = _PeekingEndpoint(
                lambda site: PeekingPort(reactor, listening, place, site, self._handoff, self._terms["mark"])
            )
        return Listener(
            Inherited(reactor, descriptor),
            withoutPlace(description),
            self._site,
            server.path,
            self.rootName,
            endpoint,
            announce=False,
        )

    def _adopt(self, port: int, descriptor: int) -> None:
        """Serve a connection that another worker has accepted."""
        try:
            self._reactor.adoptStreamConnection(descriptor, familyOf(descriptor), self._site)
        except OSError as error:
            _log.debug("a connection from another worker has ended: {error}", error=error)
        finally:
            os.close(descriptor)

    # -- life ------------------------------------------------------------------------

    def takeSignals(self) -> None:
        """Let SIGTERM stop the worker as its supervisor does: the reactor's own handler would do it twice."""
        _ignoreSignals()
        signal.signal(signal.SIGTERM, lambda number, frame: self._reactor.callFromThread(self.stop))

    def start(self) -> None:
        """Serve; the supervisor is told when the bus is ready too."""
        self.supervision.start()
        self.service.privilegedStartService()  # type: ignore[no-untyped-call]
        self.service.startService()
        self._reactor.addSystemEventTrigger("before", "shutdown", self.service.stopService)
        if self._reporter is not None:
            self._reporter.start()
            # Behind the last client.
            self._reactor.addSystemEventTrigger("during", "shutdown", self._reporter.stop)
        ready = self.server.cluster.whenReady()
        ready.addCallback(lambda _: self._tellReady())
        # A worker that is stopped first; the link goes on for as long as the bus is away.
        ready.addErrback(lambda failure: failure.trap(BusError))

    def _tellReady(self) -> None:
        server = self.server
        self.supervision.ready(
            path=server.path,
            root=self.rootName,
            bus="their own bus" if self._onHub else "a bus of the application or of --bus",
            drainTimeout=server.settings.drainTimeout,
        )

    def stop(self) -> None:
        """Accept no more connections, let the clients go, and end."""
        if self._reactor.running and not self._stopping:
            self._stopping = True
            if not self._handoff.hasSuccessor:
                # All workers stop together, and clients fetch what waits for them by these ports.
                self._end()
                return
            for listener in self._listeners:
                listener.stopService()
            # A connection that was accepted a moment ago has not told what it wants.
            self._reactor.callLater(_MOMENT, self._end)

    def _end(self) -> None:
        if self._reactor.running:
            self._reactor.stop()


def _line(event: LogEvent) -> str:
    return eventAsText(event, includeTimestamp=False, includeSystem=False) + "\n"


def _ignoreSignals() -> None:
    """Leave the signals of a terminal to the supervisor, which tells the workers what to do."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)


def main(arguments: list[str]) -> None:
    """Run a worker."""
    terms = json.loads(arguments[0])
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    _ignoreSignals()
    importlib.import_module(terms["reactor"]).install()
    from twisted.internet import reactor

    globalLogBeginner.beginLoggingTo([FileLogObserver(sys.stderr, _line)], redirectStandardIO=False)
    installed: Any = reactor
    try:
        options = Options()
        options.parseOptions(arguments[1:])
        worker = _Worker(installed, terms, options)
        installed.callWhenRunning(worker.takeSignals)
        worker.start()
    except StartupError as error:
        reportFailure(str(error).partition(": ")[2])
        sys.exit(CANNOT_START)
    installed.run()


if __name__ == "__main__":
    main(sys.argv[1:])
