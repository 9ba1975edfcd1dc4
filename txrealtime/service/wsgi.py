"""
A WSGI application as a resource, in threads of its own.

In the reactor's pool a view that runs while the reactor stops would keep the process for ever: it waits for
the reactor to take its response, and the reactor for the pool to end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.pages import errorPage
from twisted.web.resource import Resource
from twisted.web.wsgi import WSGIResource

from txrealtime.errors import Disconnected
from txrealtime.pool import Threads

__all__ = ["Views", "untilWritten"]


class Views(Resource):
    """
    A WSGI application.

    When the reactor is told to stop, it goes on until the requests that have come are answered, and takes
    no more.  Those that are not answered in time are named in the log, and do not keep the process.

    :param size: the most threads.
    :param drainTimeout: seconds that requests have when the reactor is told to stop.
    """

    isLeaf = True

    def __init__(self, reactor: Any, application: Any, size: int, drainTimeout: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reactor = reactor
        self.threads = Threads(size, "view")
        self.stopped = False
        self._application = application
        self._drainTimeout = drainTimeout
        self._stopping = False
        reactor.addSystemEventTrigger("before", "shutdown", self.drain)

    def render(self, request: Any) -> Any:
        if self._stopping:
            request.setHeader(b"connection", b"close")
            page = errorPage(SERVICE_UNAVAILABLE, "Service Unavailable", "The server is stopping.")
            return page.render(request)
        errand = _Errand(self, f"{request.method.decode()} {request.path.decode('utf-8', 'replace')}")
        return WSGIResource(errand, errand, self._application).render(request)

    def drain(self) -> Deferred[None]:
        """
        Take no more requests, and answer those that have come.

        :return: a Deferred that fires when all is done, or after ``drainTimeout``.
        """
        self._stopping = True
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        deadline = self.reactor.seconds() + self._drainTimeout
        await self.threads.drain(self.reactor, self._drainTimeout)
        self.stopped = True
        await untilWritten(self.reactor, deadline)


class _Errand:
    """
    What ``WSGIResource`` knows of the reactor and its pool: as much as one request needs.

    :param name: the request, for the log.
    """

    def __init__(self, views: Views, name: str) -> None:
        self._views = views
        self._name = name

    def callInThread(self, run: Callable[[], object]) -> None:
        def job() -> None:
            # Whoever would get the answer has gone.
            with suppress(Disconnected):
                if not self._views.stopped:
                    run()

        self._views.threads.submit(self._name, job)

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        if self._views.stopped:
            # A thread that waits for a reactor that has stopped waits for ever.
            raise Disconnected("the server has stopped")
        self._views.reactor.callFromThread(function, *args)


async def untilWritten(reactor: Any, deadline: float) -> None:
    """Wait until the reactor has written what it was given: what it has not when it stops is lost."""
    # What threads have handed over is given to it in its next turn.
    await deferLater(reactor, 0)
    while reactor.getWriters() and reactor.seconds() < deadline:
        await deferLater(reactor, 0.01)
