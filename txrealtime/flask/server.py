"""
The server under a Flask application: it brings the threads up and down with it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from txrealtime import Server
from txrealtime.pool import Threads

__all__ = ["BridgedServer"]


class BridgedServer(Server):
    """
    A server whose handlers run in threads.

    :param threads: theirs.
    :ivar stopped: whether it has run, and stops or has stopped.
    """

    def __init__(self, *args: Any, threads: Threads, **options: Any) -> None:
        super().__init__(*args, **options)
        self._threads = threads
        self.stopped = False

    def startService(self) -> None:
        super().startService()
        if self.stopped:
            self._threads.restart()
            self.stopped = False

    def stopService(self) -> Deferred[None]:
        """
        Take no more clients, close those there are, and wait for the handlers that run.

        :return: a Deferred that fires when all is done, or after ``drainTimeout`` for either.
        """
        self.stopped = True
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, drained: Deferred[None]) -> None:
        await drained
        await self._threads.drain(self.reactor, self.settings.drainTimeout)
