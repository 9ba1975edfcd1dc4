"""
The engine's resource: the face that :class:`~txrealtime.engineio.engine.Engine` shows to ``twisted.web``.

An embedder puts an :class:`EngineResource` into a site of any kind::

    engine = Engine(receiver)
    root.putChild(b"engine.io", EngineResource(engine))
    site = Site(root)

In a site of its own, :class:`~txrealtime.engineio.http.site.EngineSite` does the same, and does better:
its connections begin on the fast path, and a body too large is refused before it has been read.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.http.lease import borrowAfter
from txrealtime.engineio.polling.request import TEXT
from txrealtime.engineio.websocket.autobahn import takeOver

__all__ = ["EngineResource", "WebRequest"]


@implementer(IResource)
class EngineResource:
    """
    A leaf resource of a ``twisted.web`` site that serves an engine: long polling and WebSocket.

    :param engine: the engine.
    """

    isLeaf = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def render(self, request: Request) -> int | bytes:
        """Serve a request that ``twisted.web`` has read."""
        engine = self._engine
        if (request.getHeader(b"upgrade") or b"").lower() == b"websocket":
            return takeOver(request, engine.webSocketsFor(request.uri.decode("latin-1")))
        if engine.settings.shortWays:
            borrowAfter(request, engine)
        engine.serve(WebRequest(request))
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """Refuse: a leaf has no children."""
        raise RuntimeError("an EngineResource is a leaf and has no children")

    def putChild(self, path: bytes, child: IResource) -> None:
        """Refuse: a leaf has no children."""
        raise RuntimeError("an EngineResource is a leaf: put the child into its parent, beside it")


class WebRequest:
    """
    A request of ``twisted.web``, as the engine reads requests.

    It provides :class:`~txrealtime.engineio.polling.request.HTTPRequest`.

    :param request: the request; its body has arrived.
    """

    __slots__ = ("_request", "extra", "method", "url")

    def __init__(self, request: Request) -> None:
        self._request = request
        self.method = request.method.decode("latin-1")
        self.url = request.uri.decode("latin-1")
        self.extra = {b"Vary": b"Origin"}

    @property
    def peer(self) -> str:
        return getattr(self._request.client, "host", "unix")

    @property
    def secure(self) -> bool:
        return bool(self._request.isSecure())

    def header(self, name: str) -> str:
        value = self._request.getHeader(name.encode())
        return "" if value is None else value.decode("latin-1")

    def headers(self) -> dict[str, str]:
        fields = {}
        for name, values in self._request.requestHeaders.getAllRawHeaders():
            lower = name.lower()
            # Over HTTP/2, browsers send each cookie in a field of its own (RFC 9113, 8.2.3).
            fields[lower.decode("latin-1")] = (
                (b"; " if lower == b"cookie" else b", ").join(values).decode("latin-1")
            )
        return fields

    def body(self, most: int) -> bytes:
        content = self._request.content
        assert content is not None
        body: bytes = content.read(most)
        return body

    def respond(self, status: int, body: bytes, contentType: bytes = TEXT) -> None:
        request = self._request
        # A request has no channel after its end or the loss of the connection.
        if getattr(request, "channel", None) is None:
            return
        # The query holds the session's secret, and the site's access log would write the URL.
        request.uri = request.uri.partition(b"?")[0]
        request.setResponseCode(status)
        headers = request.responseHeaders
        headers.setRawHeaders(b"content-type", [contentType])
        headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
        headers.setRawHeaders(b"cache-control", [b"no-store"])
        for name, value in self.extra.items():
            headers.setRawHeaders(name, [value])
        request.write(body)
        request.finish()

    def whenLost(self, call: Callable[[], object]) -> None:
        self._request.notifyFinish().addErrback(lambda failure: call())
