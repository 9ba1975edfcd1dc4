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
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)

from txrealtime.errors import BusError
from txrealtime.logs import Logger
from txrealtime.monitor.trace import Trace
from txrealtime.server import Server
from txrealtime.service.application import adminOf, rootOf, serverOf
from txrealtime.service.listener import Listener
from txrealtime.service.metrics import metricsOf
from txrealtime.service.options import Options, ServeOptions, StartupError
from txrealtime.service.service import RealtimeService
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.folder import holdFolder
from txrealtime.workers.handoff import Handoff
from txrealtime.workers.ledger import CONNECTIONS, SESSIONS, Ledger
from txrealtime.workers.listening import Inherited, withoutPlace
from txrealtime.workers.loglines import toLine
from txrealtime.workers.ports import AffinePort, PeekingPort
from txrealtime.workers.sharedport import SharedPort
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

    def __init__(self, make: Callable[[Any], IListeningPort]) -> None:
        self._make = make

    def listen(self, site: Any) -> Deferred[IListeningPort]:
        return succeed(self._make(site))


class _Worker:
    """
    The parts of one worker.

    It provides :class:`~txrealtime.workers.worker.Supervised`.
    """

    def __init__(self, reactor: Any, terms: dict[str, Any], options: Options) -> None:
        self._reactor = reactor
        self._terms = terms
        self._stopping = False
        mark, folder = terms["mark"], terms["folder"]
        holdFolder(folder)  # for as long as this process lives
        self._ledger = Ledger(folder, mark)
        self._fleet = Fleet(mark, self._ledger, reactor.seconds)
        self.server = self._server(options)
        if options["tracedClients"]:
            Trace(options["tracedClients"], options["traceShown"]).install(self.server.engine)
        self._reporter = self._reporterOf(options)
        admin = adminOf(options, self.server)
        root, self.rootName = rootOf(options, self.server, reactor, self._fleet)
        self._site: Any = self.server.site(root)
        self._shareLimits()
        self._siblings = WorkerSiblings(reactor, folder, self._fleet, self.server.engine)
        self._handoff = Handoff(reactor, folder, mark, self._adopt)
        self._ports: dict[int, SharedPort] = {}
        self._listeners = [self._listener(place, text) for place, text in enumerate(terms["listen"])]
        self.service = RealtimeService(
            reactor,
            self.server,
            self._listeners,
            self._siblings,
            self._handoff,
            blockedAfter=options["blockedAfter"],
            metrics=self._metrics,
            admin=admin,
        )
        self.supervision = Supervision(reactor, self)

    def _shareLimits(self) -> None:
        """Count sessions and connections together with the other workers."""
        self._ledger.start(self.server.settings.maxConnectionsPerAddress > 0)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._ledger.stop)
        self.server.engine.tally.elsewhere = self._ledger.column(SESSIONS)
        self._site.tally.elsewhere = self._ledger.column(CONNECTIONS)

    def _server(self, options: Options) -> Server:
        """Return the application's server, on the hub unless it has another bus."""
        if self._terms["bus"]:
            options["bus"] = self._terms["bus"]  # the hub, which stands before the broker of --bus
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
        descriptor = _FIRST_PORT + place
        os.set_inheritable(descriptor, False)
        kind = description.partition(":")[0]
        endpoint: Any = None
        accept: Callable[[Any], IListeningPort] | None = None
        if kind in ("tcp", "tcp6", "unix", "systemd"):
            endpoint = _PeekingEndpoint(partial(self._share, PeekingPort, place))
        elif kind in ("ssl", "tls"):
            accept = partial(self._share, AffinePort, place)
        return Listener(
            Inherited(self._reactor, descriptor, accept),
            withoutPlace(description),
            self._site,
            self.server.path,
            self.rootName,
            endpoint,
            announce=False,
        )

    def _share(self, kind: type[SharedPort], place: int, factory: Any) -> IListeningPort:
        """Start a port that all workers share."""
        listening = socket.socket(fileno=_FIRST_PORT + place)
        listening.setblocking(False)
        port = kind(self._reactor, listening, place, factory, self._handoff, self._fleet)
        self._ports[place] = port
        port.startListening()
        return port

    def _adopt(self, port: int, descriptor: int) -> None:
        """Serve a connection that another worker has accepted."""
        self._ports[port].take(descriptor)

    # -- life ------------------------------------------------------------------------

    def takeSignals(self) -> None:
        """Let SIGTERM stop the worker as its supervisor does: the reactor's own handler would do it twice."""
        _ignoreSignals()
        signal.signal(signal.SIGTERM, lambda number, frame: self._reactor.callFromThread(self.stop, True))

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
            bus=self._terms["broker"]
            or ("their own bus" if self._onHub else "a bus of the application or of --bus"),
            patience=server.settings.drainDelay + server.settings.drain + server.settings.drainTimeout,
            **self.status(),
        )

    # -- for the supervisor ----------------------------------------------------------

    def status(self) -> dict[str, Any]:
        server = self.server
        return {
            "status": server.cluster.status,
            "fit": bool(server.running) and not server.isRetiring and server.cluster.isReady,
        }

    def fleetChanged(self, members: list[dict[str, Any]]) -> None:
        self._fleet.update(members)

    def stop(self, together: bool) -> None:
        if self._reactor.running and not self._stopping:
            self._stopping = True
            if together:
                # Clients fetch what waits for them by these ports.
                self.service.leave()
                return
            for listener in self._listeners:
                listener.stopService()
            self._site.endsConnections = True
            # A connection that was accepted a moment ago has not told what it wants.  No balancer has to
            # notice: the other workers have the port.
            self._reactor.callLater(_MOMENT, self.service.leave, 0.0)

    def orphaned(self) -> None:
        self.server.hasten()
        if self._reactor.running:
            self._reactor.stop()


def _beginLog(level: str) -> None:
    """Send events from this level on to the supervisor, who writes the log."""
    observer = FileLogObserver(sys.stderr, toLine)
    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    globalLogBeginner.beginLoggingTo([FilteringLogObserver(observer, [predicate])], redirectStandardIO=False)


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

    installed: Any = reactor
    try:
        options = ServeOptions()
        options.parseOptions(arguments[1:])
        _beginLog(options["logLevel"] or "debug")
        worker = _Worker(installed, terms, options)
        installed.callWhenRunning(worker.takeSignals)
        worker.start()
    except StartupError as error:
        reportFailure(str(error).partition(": ")[2])
        sys.exit(CANNOT_START)
    installed.run()


if __name__ == "__main__":
    main(sys.argv[1:])
