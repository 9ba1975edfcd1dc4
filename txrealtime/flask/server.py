"""
The server under a Flask application, which starts and stops with the threads of its handlers.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txrealtime import Server
from txrealtime.engineio.engine import Engine
from txrealtime.engineio.origins import Origins
from txrealtime.engineio.session import Session
from txrealtime.flask.eventlog import LoggedReceiver
from txrealtime.pool import Threads

__all__ = ["BridgedServer"]


class BridgedServer(Server):
    """
    A server whose handlers run in threads.

    :param threads: the threads, which start and stop with the server.
    :param askedOrigins: the allowed origins, if a function of the application decides.
    :ivar packetLog: the logger of packets, if there is one.
    :ivar stopped: whether the server has run, and stops or has stopped.
    :ivar unfinished: how many handlers wait, run, or have results that the reactor's thread has not seen.
    """

    def __init__(
        self,
        *args: Any,
        threads: Threads,
        packetLog: logging.Logger | None = None,
        askedOrigins: Origins | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._askedOrigins = askedOrigins
        self.packetLog = packetLog
        self._threads = self.threads = threads
        self.stopped = False
        self.unfinished = 0

    @cached_property
    def engine(self) -> Engine:
        """The Engine.IO server underneath."""
        engine = super().engine
        if self._askedOrigins is not None:
            engine.useOrigins(self._askedOrigins)
        return engine

    def _connection(self, session: Session) -> Any:
        connection = super()._connection(session)
        return connection if self.packetLog is None else LoggedReceiver(connection, session, self.packetLog)

    def startService(self) -> None:
        super().startService()
        if self.stopped:
            self._threads.restart()
            self.stopped = False

    def stopService(self) -> Deferred[None]:
        """
        Refuse new clients, close the others, and wait for the handlers that run.

        :return: a Deferred that fires when all is done, or after ``drainTimeout`` for either.
        """
        self.stopped = True
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, drained: Deferred[None]) -> None:
        await drained
        reactor: Any = self.reactor
        deadline = reactor.seconds() + self.settings.drainTimeout
        # A handler that has returned may make way for its client's disconnect handler.
        while self.unfinished and reactor.seconds() < deadline:
            await deferLater(reactor, 0.02)
        await self._threads.drain(reactor, deadline - reactor.seconds())
