"""
``twistd realtime --workers``: the supervisor's process.

The ports are opened here, so that a fault of an endpoint string ends the program before any worker starts.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.python.failure import Failure

from txrealtime.clock import keepSteady
from txrealtime.cluster.bus.interfaces import IBus
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.logs import Logger
from txrealtime.monitor.health import FleetHealth, FleetReady
from txrealtime.service.listener import Listener, addressOf, announce, cannotListen, whyNoEndpoint
from txrealtime.service.metrics import listenerOf, pageOf
from txrealtime.service.options import Options, StartupError
from txrealtime.service.reactors import moduleOf
from txrealtime.service.signals import Signals
from txrealtime.workers.hub import Hub
from txrealtime.workers.listening import openPorts
from txrealtime.workers.notify import Notifier
from txrealtime.workers.supervisor import Limits, Supervisor, Task

if TYPE_CHECKING:
    from txrealtime.monitor.metrics import Page
    from txrealtime.workers.metrics import Collection

__all__ = ["SupervisedService"]

_log = Logger()


class SupervisedService(MultiService):
    """
    The ports of a command line, and the services ``supervisor``, and ``metrics`` if they have an endpoint.

    On SIGTERM or SIGINT the workers drain together, and the process ends with code 0.  SIGHUP starts a new
    generation of workers and reopens logs, SIGUSR1 reopens logs, SIGTTIN and SIGTTOU ask for one worker more
    or less.

    It provides :class:`~txrealtime.monitor.health.Fleet`.
    """

    def __init__(self, reactor: Any, options: Options) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._options = options
        self._descriptions = options["listen"] or ["tcp:8000"]
        self._places: list[tuple[str, Any]] = []
        self._choice: DialectChoice | None = None
        self._broker = self._brokerOf(options["bus"])
        self.supervisor: Supervisor | None = None
        self._collection: Collection | None = None
        self._withMetrics = options["metrics"] is not None or options["metricsListen"] is not None
        self._ofMetrics = self._listenerOfMetrics() if self._withMetrics else None

    def _listenerOfMetrics(self) -> Listener | None:
        """
        Prepare the endpoint of the metrics, if they have one.

        :raises StartupError: if prometheus_client is not installed, or the string makes no endpoint.
        """
        page = pageOf(lambda accept: self._collected(accept))
        listener = listenerOf(self._options, self._reactor, page, FleetHealth(self), FleetReady(self))
        if listener is not None:
            listener.setName("metrics")  # type: ignore[no-untyped-call]
            listener.setServiceParent(self)  # type: ignore[no-untyped-call]
        return listener

    def report(self) -> list[dict[str, Any]]:
        """Describe the workers."""
        return [] if self.supervisor is None else self.supervisor.report()

    async def _collected(self, accept: str) -> Page:
        """Make the page of all workers."""
        if self._collection is None:
            raise ConnectionError("no worker has started yet")
        return await self._collection.page(accept)

    def _brokerOf(self, url: str | None) -> IBus | None:
        """
        Return the broker that the hub stands before: that of ``--bus``, unless it is a hub itself.

        Workers read a stream of Redis themselves: a hub would have to remember for each of them where it was.
        They also connect to several brokers themselves: a hub has one state for all topics, and would be down
        for all with one of the brokers.

        :raises StartupError: if a library is not installed.
        """
        if url is None or url.startswith("unix:") or "+streams" in url.partition("://")[0]:
            return None
        choice, url = DialectChoice.fromURL(url)
        if choice.spread is not None:
            return None
        self._choice = choice
        try:
            return busFromURL(url, fanout=self._choice.fanout)
        except ValueError as error:
            raise StartupError(f"the bus: {error}") from None

    def privilegedStartService(self) -> None:
        """
        Open the ports; twistd gives up the rights of root after this.

        :raises StartupError: if the system refuses a port, or a string makes no endpoint.
        """
        for description in self._descriptions:
            self._places += [(description, port) for port in self._open(description)]
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def _open(self, description: str) -> list[Any]:
        failures: list[Failure] = []
        try:
            ports = openPorts(self._reactor, description, failures.append)
        except Exception as error:
            raise _told(f"--listen {description}: {whyNoEndpoint(description, error)}") from None
        if failures:
            raise cannotListen(description, failures[0].value)
        if not ports:
            raise _told(f"--listen {description}: workers cannot share this kind of endpoint, use tcp:8000")
        return ports

    def startService(self) -> None:
        """Start the workers."""
        if not self._places:
            self.privilegedStartService()
        keepSteady(self._reactor)
        options = self._options
        supervisor = self.supervisor = Supervisor(
            self._reactor,
            self._command,
            [port for _, port in self._places],
            options["workers"],
            Limits(hangTimeout=options["hangTimeout"], maxRSS=options["maxRSS"]),
            serving=self._serving,
            failed=self._failed,
            notifier=Notifier(),
            hub=self._makeServices if self._withHub or self._withMetrics else None,
        )
        supervisor.setName("supervisor")  # type: ignore[no-untyped-call]
        supervisor.setServiceParent(self)  # type: ignore[no-untyped-call]
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            raise cannotListen(f"unix:{error.port}", error) from None
        if options["notice"] is not None:
            options["notice"].tell([addressOf(description, port) for description, port in self._places])
        self._reactor.callWhenRunning(self._takeSignals)

    def stopService(self) -> Deferred[None]:
        """
        Let the workers drain together.

        :return: a Deferred that fires when all have ended, and the endpoint of the metrics has closed.
        """
        # Not MultiService's, which stops all services at once: operators look at the metrics of a drain.
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        try:
            if self.supervisor is not None:
                await self.supervisor.stopService()
        finally:
            if self._ofMetrics is not None:
                await self._ofMetrics.stopService()

    def _reload(self) -> None:
        """Start a new generation of workers, and read the certificates of the metrics again."""
        assert self.supervisor is not None
        self.supervisor.reload()
        if self._ofMetrics is not None:
            self._ofMetrics.renew()

    @property
    def _withHub(self) -> bool:
        """True if the supervisor is the hub: the workers have no other bus, or others speak to it too."""
        return bool(self._options["hub"] or self._broker or not self._options["bus"])

    def _makeServices(self, path: str) -> MultiService:
        """
        Make what the workers find in the supervisor: their bus, and the collection of their metrics.

        :param path: the path of the bus, unless ``--hub`` gives another.
        """
        services = MultiService()
        if self._withHub:
            hub = Hub(self._options["hub"] or path, self._reactor, bus=self._broker)
            hub.setServiceParent(services)  # type: ignore[no-untyped-call]
        if self._withMetrics:
            from txrealtime.workers.metrics import Collection

            self._collection = Collection(self._reactor, os.path.dirname(path))
            self._collection.setServiceParent(services)  # type: ignore[no-untyped-call]
        return services

    def _hubURL(self, folder: str) -> str | None:
        """Return the URL by which workers reach the broker, if the hub stands before one."""
        if self._choice is None:
            return None
        return self._choice.urlOf(f"unix:{quote(self._options['hub'] or os.path.join(folder, 'hub'))}")

    def _command(self, task: Task) -> list[str]:
        """Return the command line of a worker."""
        terms = {
            "number": task.number,
            "mark": task.mark,
            "folder": task.folder,
            "listen": [description for description, _ in self._places],
            "reactor": moduleOf(self._reactor),
            "bus": self._hubURL(task.folder),
            "broker": self._broker and self._broker.name,
        }
        # Without -P a module in the current folder could hide one of the standard library.
        program = [sys.executable, "-P", "-m", "txrealtime.service.process"]
        return [*program, json.dumps(terms), *self._options["arguments"]]

    def _serving(self, facts: dict[str, Any]) -> None:
        count = self._options["workers"]
        rest = f"; {count} worker{'' if count == 1 else 's'}, {facts['bus']}"
        for description, port in self._places:
            announce(description, port, facts["path"], facts["root"], rest)

    def _failed(self, reason: str) -> None:
        """Stop, with exit code 1, because no worker can start."""
        _log.critical("no worker can start: {reason}", reason=reason)
        # By now sys.stderr is the log.
        print(StartupError(reason), file=sys.__stderr__, flush=True)
        # twistd ends with code 0 whenever the reactor has stopped.
        atexit.register(os._exit, 1)
        self._stopReactor()

    def _stopReactor(self) -> None:
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def _takeSignals(self) -> None:
        supervisor = self.supervisor
        assert supervisor is not None
        Signals(self._reactor, self._stopReactor, self._reload).take()
        for number, action in ((signal.SIGTTIN, supervisor.more), (signal.SIGTTOU, supervisor.less)):
            with suppress(ValueError):  # not the main thread
                signal.signal(number, lambda *_, act=action: self._reactor.callFromThread(act))


def _told(message: str) -> StartupError:
    """Return an error that ends twistd, after standard error was told: twistd's own log has replaced it."""
    error = StartupError(message)
    print(error, file=sys.__stderr__)
    error.code = 1
    return error
