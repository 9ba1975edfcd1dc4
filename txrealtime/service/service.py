"""
``twistd realtime``: a server and where it listens, as one service.

Whatever keeps it from starting is one line on standard error and an exit code that is not 0.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning

from txrealtime.logs import Logger
from txrealtime.server import Server
from txrealtime.service.application import rootOf, serverOf
from txrealtime.service.listener import Listener
from txrealtime.service.options import Options
from txrealtime.service.wsgi import untilWritten

__all__ = ["RealtimeService", "makeService"]

_log = Logger()


def makeService(options: Options, reactor: Any = None) -> RealtimeService:
    """
    The service that a command line asks for.

    :param reactor: the installed one by default.
    :raises StartupError: when it cannot be made.
    """
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
    server = serverOf(options)
    root, rootName = rootOf(options, server, reactor)
    site = server.site(root)
    listeners = [
        Listener(reactor, description, site, server.path, rootName)
        for description in options["listen"] or ["tcp:8000"]
    ]
    return RealtimeService(reactor, server, listeners)


class RealtimeService(MultiService):
    """
    The services ``server`` and ``listen-0``, ``listen-1`` ...

    On SIGTERM or SIGINT it stops in order, and the process ends with code 0; a second signal ends it at once.
    """

    def __init__(self, reactor: Any, server: Server, listeners: list[Listener]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._server = server
        self._listeners = listeners
        children: dict[str, Service] = {"server": server}
        children |= {f"listen-{number}": listener for number, listener in enumerate(listeners)}
        for name, child in children.items():
            if child.parent is not None:
                # An application that brings its own tree of services, for `twistd -y`.
                child.disownServiceParent()
            child.setName(name)
            child.setServiceParent(self)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._takeSignals)

    def stopService(self) -> Deferred[None]:
        """
        Listen no more, then let the clients go.

        :return: a Deferred that fires when they have gone, or after ``drainTimeout``.
        """
        # Not MultiService's, which stops all of them at once.
        Service.stopService(self)
        _log.info(
            "stopping: {count} clients have {seconds:g} seconds to take what is left for them",
            count=len(self._server.engine.sessions),
            seconds=self._server.settings.drainTimeout,
        )
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for listener in self._listeners:
            try:
                await listener.stopService()
            except Exception:
                _log.failure("{name} did not stop", name=listener.name)
        reactor = self._reactor
        deadline = reactor.seconds() + self._server.settings.drainTimeout
        await self._server.stopService()
        await untilWritten(reactor, deadline)
        _log.info("stopped")

    # -- signals -------------------------------------------------------------------------

    def _takeSignals(self) -> None:
        """
        Put a handler of ours in place of the reactor's.

        The reactor's makes twistd end by the signal even when all was stopped well, and
        ignores a second one.  Handlers that others have installed stay.
        """
        for number, theirs in ((signal.SIGTERM, "sigTerm"), (signal.SIGINT, "sigInt")):
            if signal.getsignal(number) == getattr(self._reactor, theirs, None):
                signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            # The system's own handler, not Python's: it needs no loop that runs.
            signal.signal(each, signal.SIG_DFL)
        self._reactor.callFromThread(self._stopReactor, signal.Signals(number).name)

    def _stopReactor(self, name: str) -> None:
        _log.info("{name} received", name=name)
        with suppress(ReactorNotRunning):
            self._reactor.stop()
