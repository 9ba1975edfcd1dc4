"""
``twistd realtime``: a server and the places where it listens, as one service.

A fault that keeps it from starting is one line on standard error and an exit code that is not 0.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.task import deferLater

from txrealtime.clock import keepSteady
from txrealtime.logs import Logger
from txrealtime.monitor.admin.admin import Admin
from txrealtime.monitor.blocked import Watch
from txrealtime.monitor.health import Health, Ready
from txrealtime.monitor.trace import Trace
from txrealtime.server import Server
from txrealtime.service.application import adminOf, rootOf, serverOf
from txrealtime.service.background import Notice
from txrealtime.service.build import tellBuild
from txrealtime.service.listener import Listener, cannotListen
from txrealtime.service.memory import Trimming
from txrealtime.service.metrics import listenerOf, metricsOf
from txrealtime.service.options import Options
from txrealtime.service.reactors import quicken
from txrealtime.service.signals import Signals
from txrealtime.service.supervised import SupervisedService
from txrealtime.service.wsgi import untilWritten
from txrealtime.workers.handoff import Handoff
from txrealtime.workers.hub import Hub
from txrealtime.workers.siblings import WorkerSiblings

if TYPE_CHECKING:
    from txrealtime.monitor.metrics import Metrics

__all__ = ["RealtimeService", "makeService"]

_log = Logger()

# Seconds that polling clients have before the port closes.
_FETCH_TIME: Final = 1.5

# Seconds in which requests are answered that another worker has handed over at the last moment: the body
# of a busy client may follow its head by a tenth of a second.
_LAST_REQUESTS: Final = 0.3


def makeService(options: Options, reactor: Any = None) -> Service:
    """
    Make the service that a command line asks for: a server, or with ``--workers`` a supervisor.

    :param reactor: the installed one by default.
    :raises StartupError: if the service cannot be made.
    """
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
    twistd = getattr(options, "parent", None)
    if twistd is None or twistd.get("reactor") is None:
        quicken(reactor)
    tellBuild()
    if options["workers"] is not None:
        return SupervisedService(reactor, options)
    server = serverOf(options)
    metrics = metricsOf(options, server)
    admin = adminOf(options, server)
    root, rootName = rootOf(options, server, reactor)
    site = server.site(root)
    listeners = [
        Listener(reactor, description, site, server.path, rootName)
        for description in options["listen"] or ["tcp:8000"]
    ]
    if options["tracedClients"]:
        Trace(options["tracedClients"], options["traceShown"]).install(server.engine)
    hub = Hub(options["hub"], reactor) if options["hub"] else None
    return RealtimeService(
        reactor,
        server,
        listeners,
        hub=hub,
        blockedAfter=options["blockedAfter"],
        metrics=metrics,
        admin=admin,
        notice=options["notice"],
        ofMetrics=listenerOf(options, reactor, options["metricsPage"], Health(server), Ready(server)),
    )


class RealtimeService(MultiService):
    """
    The services ``server`` and ``listen-0``, ``listen-1`` ..., and ``hub`` and ``metrics`` if there are such.

    On SIGTERM or SIGINT the server retires, the service stops in order, and the process ends with code 0; a
    second signal ends it at once.  SIGHUP reads TLS certificates again and reopens logs; SIGUSR1 reopens
    logs.

    :param siblings: in a worker, the way to the other workers, open until the last client has gone.  A
        worker leaves signals to its supervisor.
    :param handoff: in a worker, the socket for connections from other workers.
    :param blockedAfter: seconds after which a blocked reactor is logged, 0 for never.
    :param metrics: the metrics, started with the service, and stopped behind the last client.
    :param admin: the server's side of the admin UI, likewise.
    :param notice: the words of a daemon to the terminal that started it.
    :param ofMetrics: the endpoint of the metrics, which serves until the last client has gone.
    """

    def __init__(
        self,
        reactor: Any,
        server: Server,
        listeners: list[Listener],
        siblings: WorkerSiblings | None = None,
        handoff: Handoff | None = None,
        hub: Hub | None = None,
        blockedAfter: float = 0,
        metrics: Metrics | None = None,
        admin: Admin | None = None,
        notice: Notice | None = None,
        ofMetrics: Listener | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._server = server
        self._listeners = listeners
        self._siblings = siblings
        self._handoff = handoff
        self._hub = hub
        # The time at which the last client of a worker has gone, if it and its siblings stop.
        self._end: float | None = None
        self._trimming = Trimming(reactor)
        self._metrics = metrics
        self._admin = admin
        self._notice = notice
        self._ofMetrics = ofMetrics
        self._watch = Watch(reactor, blockedAfter) if blockedAfter else None
        # The server connects to the hub.
        children: dict[str, Service] = {"hub": hub} if hub is not None else {}
        children["server"] = server
        children |= {f"listen-{number}": listener for number, listener in enumerate(listeners)}
        if ofMetrics is not None:
            children["metrics"] = ofMetrics
        for name, child in children.items():
            if child.parent is not None:
                # An application that brings its own tree of services, for `twistd -y`.
                child.disownServiceParent()
            child.setName(name)
            child.setServiceParent(self)

    def startService(self) -> None:
        if self._siblings is not None and self._handoff is not None:
            self._siblings.startService()
            self._handoff.start()
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            raise cannotListen(f"unix:{error.port}", error) from None
        keepSteady(self._reactor)
        self._trimming.start()
        if self._watch is not None:
            self._watch.start()
        if self._metrics is not None:
            self._metrics.start()
        if self._admin is not None:
            self._admin.start()
        if self._notice is not None:
            self._notice.tell([listener.address for listener in self._listeners])
        if self._siblings is None:
            self._reactor.callWhenRunning(Signals(self._reactor, self.leave, self.renew).take)

    def renew(self) -> None:
        """Read TLS certificates again, for the connections to come."""
        for listener in self._listeners:
            listener.renew()
        if self._ofMetrics is not None:
            self._ofMetrics.renew()

    def retire(self, delay: float | None = None) -> Deferred[None]:
        """
        Let the clients go over some time, and tell the log: see :meth:`Server.retire`.

        :return: a Deferred that fires behind the last slice.
        """
        server, settings = self._server, self._server.settings
        delay = settings.drainDelay if delay is None else delay
        if self._end is None:
            self._end = self._reactor.seconds() + delay + settings.drain + settings.drainTimeout
        if not server.isRetiring and (delay or settings.drain):
            _log.info(
                "draining: {count} clients go over {seconds:g} seconds, {delay:g} seconds from now",
                count=len(server.engine.sessions),
                seconds=settings.drain,
                delay=delay,
            )
        return server.retire(delay)

    def leave(self, delay: float | None = None) -> None:
        """Retire, and then stop the reactor: pages, and the rest of the application, go on until then."""
        self.retire(delay).addCallback(lambda _: self._stopReactor())

    def stopService(self) -> Deferred[None]:
        """
        Retire, unless that is done; listen no more, and let the rest of the clients go.

        :return: a Deferred that fires when they have gone, or after ``drainTimeout``.
        """
        # Not MultiService's, which stops all services at once.
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.retire()
        reactor, timeout = self._reactor, self._server.settings.drainTimeout
        _log.info(
            "stopping: {count} clients have {seconds:g} seconds to take what is left for them",
            count=len(self._server.engine.sessions),
            seconds=timeout,
        )
        deadline = reactor.seconds() + timeout
        await self._untilFetched(min(deadline, reactor.seconds() + _FETCH_TIME))
        for listener in self._listeners:
            await self._stopListener(listener)
        # The server has its own timeout, which begins later.
        late = reactor.callLater(max(0.0, deadline - reactor.seconds()), self._server.engine.dropLate)
        await self._server.stopService()
        if late.active():
            late.cancel()
        if self._siblings is not None and self._handoff is not None:
            await self._untilPassedOn(self._siblings)
            _log.info(
                "{handed} connections handed over, {relayed} requests relayed, {carried} WebSockets carried, "
                "{kept} connections kept",
                handed=self._handoff.sent,
                relayed=self._siblings.relayed,
                carried=self._siblings.carried,
                kept=self._handoff.kept,
            )
            self._handoff.leave()
            await deferLater(reactor, _LAST_REQUESTS)
            self._handoff.stop()
            await self._siblings.stopService()
        await self._stopMonitors()
        await untilWritten(reactor, deadline)
        if self._hub is not None:
            # After the server, whose last messages go by the hub.
            await self._hub.stopService()
        _log.info("stopped")

    async def _stopListener(self, listener: Listener) -> None:
        try:
            await listener.stopService()
        except Exception:
            _log.failure("{name} did not stop", name=listener.name)

    async def _stopMonitors(self) -> None:
        """Stop all that shows the server to operators, who look at a drain more than at anything else."""
        if self._ofMetrics is not None:
            await self._stopListener(self._ofMetrics)
        for monitor in (self._trimming, self._watch, self._metrics, self._admin):
            if monitor is not None:
                monitor.stop()

    async def _untilPassedOn(self, siblings: WorkerSiblings) -> None:
        """Wait for the clients of other workers that stop: their requests may come by this worker."""
        while siblings.mustStay and self._reactor.seconds() < (self._end or 0.0):
            await deferLater(self._reactor, 0.05)

    async def _untilFetched(self, deadline: float) -> None:
        """
        Wait until polling clients have fetched what waits for them.

        Some open a connection for each request, which the port must accept.
        """
        waiting = [
            session
            for session in self._server.engine.sessions.values()
            if session.buffered and session.transport.name == "polling"
        ]
        while self._reactor.seconds() < deadline:
            waiting = [session for session in waiting if session.buffered]
            if not waiting:
                return
            await deferLater(self._reactor, 0.01)

    def _stopReactor(self) -> None:
        with suppress(ReactorNotRunning):
            self._reactor.stop()
