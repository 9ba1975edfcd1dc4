"""
A ``twisted.web`` site with an engine in it, which serves the engine's requests better
than any other site could.

They take the short way of :mod:`~txrealtime.engineio.http.fastpath`; and a body too large is
refused before it has been read, where ``twisted.web`` reads the whole of a request
before a resource sees it.  All other requests are as in any site.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import REQUEST_ENTITY_TOO_LARGE, RESPONSES, HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.http.fastpath import EngineChannel
from txrealtime.engineio.limits import Tally
from txrealtime.engineio.tcp import peerAddress, replaceProtocol, whenLost
from txrealtime.engineio.websocket.frames import refusal
from txrealtime.errors import HandshakeError
from txrealtime.foreign import stands

__all__ = ["Beside", "EngineSite"]


_Wrapper: Any = None
if stands(http, "_GenericHTTPChannelProtocol", without="there is no HTTP/2"):
    _Wrapper = http._GenericHTTPChannelProtocol


class _MeasuredRequest(Request):
    """A request whose body must not grow beyond a limit, if it is for an engine."""

    _limit: int | None = None
    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        # The path is not given to a request before its body has been read.
        channel: Any = self.channel
        # The one of HTTP/1.1, or a stream of HTTP/2.
        name = "_path" if isinstance(channel, HTTPChannel) else "path"
        if not stands(channel, name, without="a body is measured after it was read") or not (
            channel.site.isForEngine(getattr(channel, name))
        ):
            super().gotLength(length)  # type: ignore[no-untyped-call]
            return
        self._limit = channel.site.engine.settings.maxPayload
        self.content = BytesIO()
        if length is not None and length > self._limit:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        if self._limit is not None:
            self._received += len(data)
            if self._refused:
                # The client reads our answer when it has sent its body, and not every client
                # before: take what it sends and forget it, but not without end.
                if self._received > 2 * self._limit:
                    self._hangUp()
                return
            if self._received > self._limit:
                self._refuse()
                return
        super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def _refuse(self) -> None:
        self._refused = True
        self.content = BytesIO()
        if isinstance(self.channel, HTTPChannel):
            body = self._refusal
            self.channel.write(
                b"HTTP/1.1 413 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n%s" % (RESPONSES[REQUEST_ENTITY_TOO_LARGE], len(body), body)
            )

    @property
    def _refusal(self) -> bytes:
        return refusal(
            HandshakeError(
                3, f"the body is larger than maxPayload, {self._limit} bytes", REQUEST_ENTITY_TOO_LARGE
            )
        )

    def _hangUp(self) -> None:
        if isinstance(self.channel, HTTPChannel):
            self.channel.loseConnection()
        else:
            self.channel.abortConnection()  # of HTTP/2, the stream

    def process(self) -> None:
        if not self._refused:
            super().process()  # type: ignore[no-untyped-call]
        elif isinstance(self.channel, HTTPChannel):
            self.channel.loseConnection()
        else:
            self.setResponseCode(REQUEST_ENTITY_TOO_LARGE)
            self.setHeader(b"content-type", b"application/json")
            self.write(self._refusal)
            self.finish()


class _GuardedChannel(HTTPChannel):
    """
    ``twisted.web``'s part of a connection, where a request must be complete in time, and none
    is read while the answers to others wait.

    By itself, ``twisted.web`` waits as long as something comes, be it a byte a minute; and when
    an answer fills the connection, it reads on, so a client that reads nothing fills the memory.
    """

    site: EngineSite
    _begun = False
    _guards = True

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._guards = stands(
            self,
            "_handlingRequest",
            "_waitingForTransport",
            "_networkProducer",
            without="requests that the fast path leaves out have no deadline, and go on while answers wait",
        )
        self.totalHeadersSize = self.site.engine.settings.maxHeaderSize
        self.setTimeout(self.site.firstTimeOut)  # type: ignore[no-untyped-call]

    def resetTimeout(self) -> None:
        # Called for whatever has come.
        if not self._guards:
            super().resetTimeout()  # type: ignore[no-untyped-call]
        elif not self._begun and not self._handlingRequest:
            self._begun = True
            self.setTimeout(self.site.engine.settings.requestTimeout)  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:
        self._begun = False
        # It cancels this, and starts it anew when the request has been answered.
        self.setTimeout(self.site.timeOut)  # type: ignore[no-untyped-call]
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Request) -> None:
        if self._guards and self._waitingForTransport:
            self._networkProducer.pauseProducing()
        super().requestDone(request)  # type: ignore[no-untyped-call]


class _Doorman(Protocol):
    """
    A connection that has just come: it is let in if there is room, and otherwise dropped.

    :param addr: from where.
    """

    def __init__(self, site: EngineSite, addr: IAddress | None) -> None:
        self._site = site
        self._addr = addr

    def connectionMade(self) -> None:
        transport: Any = self.transport
        address = peerAddress(transport)
        # Who comes through a proxy of ours is counted when its session opens.
        counted = not self._site.engine.trusts(address)
        tally = self._site.tally
        if tally.isFull or (counted and tally.isFullFor(address)):
            transport.abortConnection()
            return
        tally.add(address if counted else None)
        whenLost(transport, lambda: tally.remove(address if counted else None))
        replaceProtocol(transport, self._site.protocolFor(self._addr))


class Beside(Resource):
    """
    One resource at a path, and another everywhere else.

    :param path: such as ``/socket.io``.
    :param resource: what is there: a leaf.
    :param root: the rest of the site.  It may be a leaf, as a WSGI application is.
    """

    def __init__(self, path: str, resource: IResource, root: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._segments = [segment.encode() for segment in path.strip("/").split("/")]
        self._resource = resource
        self._root = root

    def getChild(self, path: bytes, request: Any) -> IResource:
        wanted = self._segments
        if [path, *request.postpath[: len(wanted) - 1]] == wanted:
            for _ in wanted[1:]:
                request.prepath.append(request.postpath.pop(0))
            return self._resource
        if self._root.isLeaf:
            request.postpath.insert(0, request.prepath.pop())
            return self._root
        return IResource(self._root.getChildWithDefault(path, request))


class EngineSite(Site):
    """
    A site with an engine in it.

    :param root: the rest of the site.
    :param path: where the engine is, such as ``/socket.io``.
    :param engine: the engine.
    """

    noisy = False
    heedsTransport = False

    def __init__(self, root: IResource, path: str, engine: Engine, **options: Any) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            Beside(path, engine, root), requestFactory=_MeasuredRequest, **options
        )
        self.engine = engine
        settings = engine.settings
        self.tally = Tally("connections", settings.maxConnections, settings.maxConnectionsPerAddress)
        self._segments = [segment.encode() for segment in path.strip("/").split("/")]

    @property
    def firstTimeOut(self) -> float | None:
        """Seconds that a new connection may be silent."""
        return None if self.timeOut is None else min(self.timeOut, self.engine.settings.requestTimeout)

    def isForEngine(self, uri: bytes) -> bool:
        """Whether a request with this path and query is the engine's."""
        path = uri.partition(b"?")[0]
        segments = path.split(b"/")[1 : len(self._segments) + 1]
        if b"%" in path:  # as twisted.web reads it
            segments = [unquote_to_bytes(segment) for segment in segments]
        return segments == self._segments

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection begins with the short way, and where connections are counted before that."""
        return _Doorman(self, addr) if self.tally.counts else self.protocolFor(addr)

    def protocolFor(self, addr: IAddress | None) -> Any:
        """What serves a connection."""
        return EngineChannel(self, addr) if self.engine.settings.shortWays else self._longWay(addr)

    def protocol(self) -> Any:
        """What :meth:`HTTPFactory.buildProtocol` makes: as its own, but for the class of the channel."""
        # The wrapper takes another channel in its place where TLS agrees on HTTP/2.
        channel = _GuardedChannel()  # type: ignore[no-untyped-call]
        return channel if _Wrapper is None else _Wrapper(channel)

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols that TLS may agree on."""
        return [b"http/1.1"] if _Wrapper is None else super().acceptableProtocols()  # type: ignore[no-untyped-call]

    def _longWay(self, addr: IAddress | None) -> Any:
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def giveWay(self, transport: Any, address: IAddress | None) -> IProtocol:
        """``twisted.web``'s own way, for what the short one does not take."""
        channel: IProtocol = self._longWay(address)
        replaceProtocol(transport, channel)
        return channel

    def connectionLost(self, reason: Failure) -> None:
        """A connection is lost that was not given to ``twisted.web``, so nobody else need know."""

    def log(self, request: Any) -> None:
        """Log a request, unless it is for the engine: its URL holds the session's secret."""
        if not self.isForEngine(request.uri):
            super().log(request)
