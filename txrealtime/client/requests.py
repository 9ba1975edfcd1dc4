"""
The HTTP requests of long polling, by Twisted's agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from txrealtime._version import __version__
from txrealtime.client.cookies import Cookies
from txrealtime.errors import PayloadTooLarge, TransportError

__all__ = ["MAX_HEAD", "USER_AGENT", "Reply", "Requests"]

# Bytes of the head of a response, with all informational ones before it.  Twisted limits a line alone.
MAX_HEAD: Final = 65536

# The end of a head; Twisted takes lines that end without a carriage return.
_HEAD_END: Final = re.compile(rb"\n\r?\n")

# Seconds.  Node's servers close a connection that was idle for 5 seconds: a request sent on it at that
# moment would fail, and with it the session.
_IDLE: Final = 4

USER_AGENT: Final = f"txrealtime/{__version__}"


class Reply(NamedTuple):
    """
    A response.

    :ivar status: the status.
    :ivar body: the body.
    :ivar location: the target of a redirection.
    """

    status: int
    body: bytes
    location: str


class Requests:
    """
    Requests to one server, on connections that are kept.

    :param reactor: the clock of idle connections.
    :param endpoint: connects to the server.
    :param headers: the headers of each request.
    :param maxBody: bytes that a response may have.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        headers: Mapping[str, str],
        cookies: Cookies,
        maxBody: int,
    ) -> None:
        self._pool = HTTPConnectionPool(reactor)
        # One for the GET that waits, one for POSTs.
        self._pool.maxPersistentPerHost = 2
        self._pool.cachedConnectionTimeout = _IDLE
        # A GET that is repeated loses the packets in the response to the first one.
        self._pool.retryAutomatically = False
        self._agent = Agent.usingEndpointFactory(reactor, _One(endpoint), self._pool)
        self._headers = Headers({"User-Agent": [USER_AGENT]})
        for name, value in headers.items():
            self._headers.setRawHeaders(name, [value])
        self._cookies = cookies
        self._maxBody = maxBody

    def request(self, method: str, url: str, body: bytes | None = None) -> Deferred[Reply]:
        """
        Send a request.

        :return: a Deferred of the response.  To cancel it ends the connection.
        """
        headers = self._headers.copy()
        cookie = self._cookies.header(url)
        if cookie is not None:
            headers.setRawHeaders("Cookie", [cookie])
        producer = None
        if body is not None:
            headers.setRawHeaders("Content-Type", ["text/plain;charset=UTF-8"])
            producer = _Body(body)
        asked: Deferred[Any] = self._agent.request(method.encode(), url.encode(), headers, producer)
        return asked.addCallback(self._read, url)

    def _read(self, response: Any, url: str) -> Deferred[Reply]:
        headers: Headers = response.headers
        self._cookies.received(url, headers.getRawHeaders("set-cookie", []))
        collector = _Collector(
            response.code, headers.getRawHeaders("location", [""])[0], self._maxBody, response.length
        )
        encoding = headers.getRawHeaders("content-encoding", ["identity"])[0]
        response.deliverBody(collector)
        if encoding.lower() != "identity":
            collector.fail(
                TransportError(f"the response is compressed ({encoding[:20]}), which no request asked for")
            )
        return collector.done

    def close(self) -> Deferred[None]:
        """End the connections that wait for a request."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _One:
    """The endpoint of the only server."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        return self

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        # Otherwise two lines in the log tell of each connection.
        protocolFactory.noisy = False
        connected: Deferred[IProtocol] = self._endpoint.connect(_Bounded(protocolFactory))
        return connected


@implementer(IProtocolFactory)
class _Bounded:
    """The factory of Twisted's HTTP clients, each with a :class:`_HeadLimit`."""

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self.doStart = factory.doStart
        self.doStop = factory.doStop

    def buildProtocol(self, addr: Any) -> Any:
        protocol: Any = self._factory.buildProtocol(addr)
        if protocol is not None:
            _HeadLimit(protocol)
        return protocol


class _HeadLimit:
    """
    A limit of the heads of responses, before one of Twisted's HTTP clients.

    :param protocol: the HTTP client, whose methods this object wraps.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._request = protocol.request
        self._data = protocol.dataReceived
        self._lost = protocol.connectionLost
        self._head: bytearray | None = None
        self._size = 0
        self._error: Exception | None = None
        protocol.request = self.request
        protocol.dataReceived = self.dataReceived
        protocol.connectionLost = self.connectionLost

    def request(self, request: Any) -> Any:
        self._head, self._size = bytearray(), 0
        return self._request(request)

    def dataReceived(self, data: bytes) -> None:
        if self._head is not None:
            self._measure(self._head, data)
        if self._error is None:
            self._data(data)

    def _measure(self, head: bytearray, data: bytes) -> None:
        head += data
        self._size += len(data)
        while (end := _HEAD_END.search(head)) is not None:
            if head[9:10] != b"1":
                self._head = None
                return
            # An informational response; another one follows.
            del head[: end.end()]
        if self._size > MAX_HEAD:
            self._head = None
            self._error = PayloadTooLarge(f"a response with a head of more than {MAX_HEAD} bytes")
            self._protocol.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost(reason if self._error is None else Failure(self._error))


@implementer(IBodyProducer)
class _Body:
    """The body of a POST."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Called when the connection is full: the body has been written whole."""

    def resumeProducing(self) -> None:
        """Called when the connection is not full any longer."""

    def stopProducing(self) -> None:
        """Called when the connection is lost."""


class _Collector(Protocol):
    """The body of a response, up to a limit."""

    transport: Any

    def __init__(self, status: int, location: str, limit: int, length: Any) -> None:
        self._status = status
        self._location = location
        self._limit = limit
        self._length = length
        self._parts: list[bytes] = []
        self._size = 0
        self.done: Deferred[Reply] = Deferred(lambda _: self._drop())

    def connectionMade(self) -> None:
        if isinstance(self._length, int) and self._length > self._limit:
            self._tooLarge()

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._size += len(data)
        if self._size > self._limit:
            self._tooLarge()
        else:
            self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # Without a length, the end of the connection is the end of the body.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(Reply(self._status, b"".join(self._parts), self._location))
        else:
            self.done.errback(reason)

    def _tooLarge(self) -> None:
        self.fail(
            PayloadTooLarge(
                f"a response of more than {self._limit} bytes: the client's setting maxPayload allows no more"
            )
        )

    def fail(self, error: Exception) -> None:
        """End the connection with an error."""
        self._parts.clear()
        if not self.done.called:
            self.done.errback(Failure(error))
        self._drop()

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()
