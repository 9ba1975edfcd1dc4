"""
A ``twisted.web`` site made for one engine.

Requests for the engine take the fast path of :mod:`~txrealtime.engineio.http.fastpath`.  A body that is too
large is refused before it has been read, while a plain ``twisted.web`` site reads all of a request before
its resource sees it.  A root resource may keep the bodies of its requests itself, as a WSGI gateway does.  A
form in a body is parsed when a resource reads its fields, and not before.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import HTTPChannel, combinedLogFormatter, datetimeToLogString
from twisted.web.iweb import IAccessLogFormatter
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import provider

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.http.fastpath import EngineChannel
from txrealtime.engineio.http.measured import Bodies, MeasuredRequest
from txrealtime.engineio.http.resource import EngineResource
from txrealtime.engineio.limits import Tally
from txrealtime.engineio.refusals import headTooLarge, logRefusal, refusal
from txrealtime.engineio.tcp import endAndDiscard, peerAddress, replaceProtocol, whenLost
from txrealtime.foreign import stands

__all__ = ["Beside", "EngineSite"]

_Wrapper: Any = None
if stands(http, "_GenericHTTPChannelProtocol", without="there is no HTTP/2"):
    _Wrapper = http._GenericHTTPChannelProtocol


class _GuardedChannel(HTTPChannel):
    """
    ``twisted.web``'s channel, with a deadline for each request, and no reading while responses wait.

    By itself, ``twisted.web`` waits as long as any byte arrives, be it one a minute.  It also reads on when a
    response fills the connection, so a client that reads nothing fills the memory.
    """

    site: EngineSite
    _begun = False
    _guards = True
    _headSize = 0

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._guards = stands(
            self,
            "_handlingRequest",
            "_waitingForTransport",
            "_networkProducer",
            without="requests that the fast path leaves out have no deadline, and go on while answers wait",
        )
        self.totalHeadersSize = self.MAX_LENGTH = self.site.engine.settings.maxHeaderSize
        self.setTimeout(self.site.firstTimeOut)  # type: ignore[no-untyped-call]

    def resetTimeout(self) -> None:
        # twisted.web calls this for each read.
        if not self._guards:
            super().resetTimeout()  # type: ignore[no-untyped-call]
        elif not self._begun and not self._handlingRequest:
            self._begun = True
            self.setTimeout(self.site.engine.settings.requestTimeout)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        # By itself, twisted.web responds 400 to a head of many lines, and not at all to a line too long.
        self._headSize += len(line)
        if self._headSize > self.site.engine.settings.maxHeaderSize:
            self._refuseHead()
        else:
            super().lineReceived(line)  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuseHead()

    def _refuseHead(self) -> None:
        engine = self.site.engine
        error = headTooLarge(engine.settings.maxHeaderSize)
        logRefusal(peerAddress(self), error, engine.counts)
        body = refusal(error)
        transport: Any = self.transport
        transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        )
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        endAndDiscard(transport)

    def allContentReceived(self) -> None:
        self._begun = False
        self._headSize = 0
        # twisted.web cancels this timeout, and starts it anew after the response.
        self.setTimeout(self.site.timeOut)  # type: ignore[no-untyped-call]
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def _send100Continue(self) -> None:
        # A refused client has its response and need not send the body.
        if not getattr(self.requests[-1], "isRefused", False):
            super()._send100Continue()  # type: ignore[no-untyped-call]

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        if self.site.endsConnections:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
            return False
        return bool(super().checkPersistence(request, version))  # type: ignore[no-untyped-call]

    def requestDone(self, request: Request) -> None:
        if self._guards and self._waitingForTransport:
            self._networkProducer.pauseProducing()
        super().requestDone(request)  # type: ignore[no-untyped-call]


class _Doorman(Protocol):
    """
    The first protocol of a connection, if connections are counted: it admits the connection or drops it.

    :param addr: the client's address.
    """

    def __init__(self, site: EngineSite, addr: IAddress | None) -> None:
        self._site = site
        self._addr = addr

    def connectionMade(self) -> None:
        transport: Any = self.transport
        address = peerAddress(transport)
        # A client behind a trusted proxy is counted when its session opens.
        counted = not self._site.engine.trusts(address)
        tally = self._site.tally
        full = tally.isFull
        if full or (counted and tally.isFullFor(address)):
            self._site.engine.counts.refused["full" if full else "address"] += 1
            transport.abortConnection()
            return
        tally.add(address if counted else None)
        whenLost(transport, lambda: tally.remove(address if counted else None))
        replaceProtocol(transport, self._site.protocolFor(self._addr))


class Beside(Resource):
    """
    A resource with one leaf at a path, and another resource everywhere else.

    :param path: the path, such as ``/socket.io``.
    :param resource: the leaf at the path.
    :param root: the rest of the site; possibly a leaf, as a WSGI application is.
    """

    def __init__(self, path: str, resource: IResource, root: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._segments = [segment.encode() for segment in path.strip("/").split("/")]
        self._resource = resource
        self._root = root
        self.bodies: Bodies | None = getattr(root, "bodies", None)

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


@provider(IAccessLogFormatter)
def _accessLine(timestamp: object, request: Request) -> str:
    """Return a line of the access log with the time of day, where a site has the reactor's time."""
    line: str = combinedLogFormatter(datetimeToLogString(), request)
    return line


class EngineSite(Site):
    """
    A site with an engine and other resources.

    :param root: the other resources.
    :param path: the engine's path, such as ``/socket.io``.
    :param engine: the engine.
    :param options: further arguments of ``twisted.web.server.Site``.
    :ivar endsConnections: end each connection with the next response, because another process has the port
        and this one will end; the pools of proxies go there.
    """

    noisy = False
    heedsTransport = False
    endsConnections = False

    def __init__(self, root: IResource, path: str, engine: Engine, **options: Any) -> None:
        options.setdefault("logFormatter", _accessLine)
        super().__init__(  # type: ignore[no-untyped-call]
            Beside(path, EngineResource(engine), root), requestFactory=MeasuredRequest, **options
        )
        self.engine = engine
        self.bodies: Bodies | None = getattr(root, "bodies", None)
        settings = engine.settings
        most = settings.maxConnections
        if most:
            most += getattr(root, "reserved", 0)
        self.tally = Tally("connections", most, settings.maxConnectionsPerAddress)
        self._segments = [segment.encode() for segment in path.strip("/").split("/")]
        self._start = b"/%b/" % b"/".join(self._segments)

    @property
    def firstTimeOut(self) -> float | None:
        """The seconds that a new connection may be silent."""
        return None if self.timeOut is None else min(self.timeOut, self.engine.settings.requestTimeout)

    def isForEngine(self, uri: bytes) -> bool:
        """Return whether a request with this path and query is for the engine."""
        if uri.startswith(self._start):
            return True  # nearly always
        path = uri.partition(b"?")[0]
        segments = path.split(b"/")[1 : len(self._segments) + 1]
        if b"%" in path:  # as twisted.web reads it
            segments = [unquote_to_bytes(segment) for segment in segments]
        return segments == self._segments

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the first protocol of a connection: the doorman where connections are counted."""
        return _Doorman(self, addr) if self.tally.counts else self.protocolFor(addr)

    def protocolFor(self, addr: IAddress | None) -> Any:
        """Return the protocol that serves a connection: the fast path, unless it is turned off."""
        return EngineChannel(self, addr) if self.engine.settings.shortWays else self._twistedWeb(addr)

    def protocol(self) -> Any:
        """Return the protocol that ``HTTPFactory.buildProtocol`` needs, with this module's channel."""
        # Where TLS negotiates HTTP/2, the wrapper replaces the channel.
        channel = _GuardedChannel()  # type: ignore[no-untyped-call]
        return channel if _Wrapper is None else _Wrapper(channel)

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols that TLS may negotiate."""
        return [b"http/1.1"] if _Wrapper is None else super().acceptableProtocols()  # type: ignore[no-untyped-call]

    def _twistedWeb(self, addr: IAddress | None) -> Any:
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def giveWay(self, transport: Any, address: IAddress | None) -> IProtocol:
        """Give a connection to ``twisted.web``, at the first request that the fast path does not take."""
        channel: IProtocol = self._twistedWeb(address)
        replaceProtocol(transport, channel)
        return channel

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: ``twisted.web`` never knew of this connection."""

    def log(self, request: Any) -> None:
        """Log a request, but none of the engine, whose URL holds the session's secret, and no quiet one."""
        if not (self.isForEngine(request.uri) or getattr(request, "isQuiet", False)):
            super().log(request)
