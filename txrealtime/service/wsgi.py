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
from txrealtime.server import Server
from txrealtime.service.body import Bodies, Body
from txrealtime.service.environ import environOf
from txrealtime.service.gateway import Call
from txrealtime.service.outlet import Outlet

__all__ = ["Views", "untilWritten"]

_SEND_TIMEOUT: Final = 60.0
"""Seconds that a client may take for a piece of a response: a view waits for it, in one of few threads."""

_LAST_REQUESTS: Final = 0.3
"""Seconds in which connections that were accepted at the last moment may bring their requests."""


class Views(Resource):
    """
    A WSGI application.

    When the reactor stops, it answers requests until a moment after the ports of the server have closed, and
    then refuses those that come on old connections.  The log names the views that do not end in time, and the
    process ends without them.

    :param size: the most threads.
    :param server: the server beside it.  Its settings supply ``drainTimeout``, the seconds that views have
        when the reactor stops, and ``maxUpload``.
    :param leftovers: see :class:`txrealtime.pool.Pool`.
    """

    isLeaf = True

    def __init__(
        self,
        reactor: Any,
        application: Any,
        size: int,
        server: Server,
        leftovers: Leftovers | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reactor = reactor
        self.threads = Threads(size, "view", leftovers)
        self.bodies = Bodies(reactor, server.settings.maxUpload)
        self.stopped = False
        self._application = application
        self._server = server
        self._stopping = self._refusing = False
        self._outlets: set[Outlet] = set()
        reactor.addSystemEventTrigger("before", "shutdown", self.drain)

    def render(self, request: Any) -> Any:
        if self._stopping:
            request.setHeader(b"connection", b"close")
        if self._refusing:
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
        Answer the requests that have come, and those that come while the ports of the server are open.

        :return: a Deferred that fires when all is done, or ``drainTimeout`` after the ports have closed.
        """
        self._stopping = True
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        reactor, settings = self.reactor, self._server.settings
        latest = reactor.seconds() + settings.drainDelay + settings.drain + settings.drainTimeout
        while self._server.running and reactor.seconds() < latest:
            await deferLater(reactor, 0.02)
        await deferLater(reactor, _LAST_REQUESTS)
        self._refusing = True
        deadline = reactor.seconds() + settings.drainTimeout
        await self.threads.drain(reactor, settings.drainTimeout)
        self.stopped = True
        # A stopped reactor releases no threads.
        for outlet in tuple(self._outlets):
            outlet.abandon()
        await self.bodies.drain(0)
        await untilWritten(reactor, deadline)


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
