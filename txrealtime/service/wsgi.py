"""
A WSGI application as a resource, in threads of its own.

In the reactor's pool a view that runs while the reactor stops would keep the process for ever: it waits for
the reactor to take its response, and the reactor for the pool to end.

A request is read by ``engineio/http/site.py``, which keeps its body by :mod:`~txrealtime.service.body`;
:mod:`~txrealtime.service.environ` says what the application is told of it,
:mod:`~txrealtime.service.gateway` calls the application, and :mod:`~txrealtime.service.outlet`
takes the response.
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

from txrealtime.pool import Threads
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

    When the reactor is told to stop, it goes on until the requests that have come are answered, and takes
    no more.  Those that are not answered in time are named in the log, and do not keep the process.

    :param size: the most threads.
    :param settings: of these ``drainTimeout``, the seconds that requests have when the reactor is told to
        stop, and ``maxUpload``.
    """

    isLeaf = True

    def __init__(self, reactor: Any, application: Any, size: int, settings: Settings) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reactor = reactor
        self.threads = Threads(size, "view")
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
        # The application decides whether there is one.
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
        # A thread that waits for a reactor that has stopped waits for ever.
        for outlet in tuple(self._outlets):
            outlet.abandon()
        await self.bodies.drain(0)
        await untilWritten(self.reactor, deadline)


def _bodyOf(request: Request) -> tuple[IO[bytes], int, Callable[[], object]]:
    """The body of a request, at its beginning; its size; and what closes it when a thread is done with it."""
    content: Any = request.content
    if isinstance(content, Body):
        return content.take(), content.size, content.dispose
    # In a site that is not ours.
    size = content.seek(0, 2)
    content.seek(0)
    return content, size, lambda: None


async def untilWritten(reactor: Any, deadline: float) -> None:
    """Wait until the reactor has written what it was given: what it has not when it stops is lost."""
    # What threads have handed over is given to it in its next turn.
    await deferLater(reactor, 0)
    while reactor.getWriters() and reactor.seconds() < deadline:
        await deferLater(reactor, 0.01)
