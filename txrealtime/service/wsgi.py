"""
A WSGI application as a resource, in threads of its own.

The reactor's thread pool does not fit: a view that still runs when the reactor stops would wait for the
reactor to take its response, and the reactor for the pool to end.

:mod:`~txrealtime.service.body` keeps the body of a request, :mod:`~txrealtime.service.environ` describes the
request to the application, :mod:`~txrealtime.service.gateway` calls the application, and
:mod:`~txrealtime.service.outlet` carries the response to the client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.pages import errorPage
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txrealtime.pool import Leftovers, Threads
from txrealtime.service.body import Bodies, Body
from txrealtime.service.environ import environOf
from txrealtime.service.gateway import Call
from txrealtime.service.outlet import Outlet
from txrealtime.socketio.settings import Settings

__all__ = ["Views", "untilWritten"]

_SEND_TIMEOUT: Final = 60.0
"""Seconds that a client may take for a piece of a response: a view waits for it, in one of few threads."""


class Views(Resource):
    """
    A WSGI application.

    When the reactor stops, it first answers the requests that have arrived, and refuses new ones. The
    log names the views that do not end in time, and the process ends without them.

    :param size: the most threads.
    :param settings: supplies ``drainTimeout``, the seconds that views have when the reactor stops, and
        ``maxUpload``.
    :param leftovers: see :class:`txrealtime.pool.Pool`.
    """

    isLeaf = True

    def __init__(
        self,
        reactor: Any,
        application: Any,
        size: int,
        settings: Settings,
        leftovers: Leftovers | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reactor = reactor
        self.threads = Threads(size, "view", leftovers)
        self.bodies = Bodies(reactor, settings.maxUpload)
        self.stopped = False
        self._application = application
        self._drainTimeout = settings.drainTimeout
        self._stopping = False
        self._outlets: set[Outlet] = set()
        reactor.addSystemEventTrigger("before", "shutdown", self.drain)

    def render(self, request: Any) -> Any:
        if self._stopping:
            request.setHeader(b"connection", b"close")
            page = errorPage(SERVICE_UNAVAILABLE, "Service Unavailable", "The server is stopping.")
            return page.render(request)
        # The application decides if there is a Content-Type.
        request.defaultContentType = None
        self._call(request)
        return NOT_DONE_YET

    def _call(self, request: Request) -> None:
        file, size, dispose = _bodyOf(request)
        name = f"{request.method.decode('latin-1')} {request.path.decode('utf-8', 'replace')}"
        environ = environOf(request, file, size, self.threads.size > 1)
        outlet = Outlet(self.reactor, request, _SEND_TIMEOUT, self._outlets.discard)
        self._outlets.add(outlet)
        call = Call(name, self._application, environ, outlet)

        def job() -> None:
            try:
                if not self.stopped:
                    call.run()
            finally:
                dispose()

        self.threads.submit(name, job)

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
        # A stopped reactor releases no threads.
        for outlet in tuple(self._outlets):
            outlet.abandon()
        await self.bodies.drain(0)
        await untilWritten(self.reactor, deadline)


def _bodyOf(request: Request) -> tuple[IO[bytes], int, Callable[[], object]]:
    """Return the body of a request, its size, and a function that closes it, for the thread that reads it."""
    content: Any = request.content
    if isinstance(content, Body):
        return content.take(), content.size, content.dispose
    # Any other site has stored the body itself, and closes it.
    size = content.seek(0, 2)
    content.seek(0)
    return content, size, lambda: None


async def untilWritten(reactor: Any, deadline: float) -> None:
    """Wait until the reactor has written all pending data: its stop loses the rest."""
    # The reactor takes what threads have handed over in its next turn.
    await deferLater(reactor, 0)
    while reactor.getWriters() and reactor.seconds() < deadline:
        await deferLater(reactor, 0.01)
