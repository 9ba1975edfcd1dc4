"""
The server under a Flask application: it brings the threads up and down with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txrealtime import Server
from txrealtime.flask.pool import Pool

__all__ = ["BridgedServer", "Threads"]

_log = Logger()


class Threads:
    """
    The handlers' pool of one server.

    :param size: the most threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool = Pool(size)

    def submit(self, name: str, job: Callable[[], object]) -> None:
        self._pool.submit(name, job)

    def restart(self) -> None:
        """Take jobs again after :meth:`drain`."""
        self._pool = Pool(self._size)

    async def drain(self, reactor: Any, timeout: float) -> None:
        """Wait for the handlers that run; name those that do not end."""
        pool, deadline = self._pool, reactor.seconds() + timeout
        while not pool.isDone and reactor.seconds() < deadline:
            await deferLater(reactor, 0.02)
        for thread, job, seconds in pool.busy:
            _log.warn(
                "{thread} is left behind: {job} has run for {seconds:.1f} s. A handler that waits for "
                "something should give up when the server stops; drainTimeout says how long it is waited for",
                thread=thread,
                job=job,
                seconds=seconds,
            )
        pool.stop()


class BridgedServer(Server):
    """
    A server whose handlers run in threads.

    :param threads: theirs.
    """

    def __init__(self, *args: Any, threads: Threads, **options: Any) -> None:
        super().__init__(*args, **options)
        self._threads = threads
        self._stopped = False

    def startService(self) -> None:
        super().startService()
        if self._stopped:
            self._threads.restart()
            self._stopped = False

    def stopService(self) -> Deferred[None]:
        """
        Take no more clients, close those there are, and wait for the handlers that run.

        :return: a Deferred that fires when all is done, or after ``drainTimeout`` for either.
        """
        self._stopped = True
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, drained: Deferred[None]) -> None:
        await drained
        await self._threads.drain(self.reactor, self.settings.drainTimeout)
