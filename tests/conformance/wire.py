"""
A client that knows HTTP and WebSocket and nothing above them, so that a test says each byte itself.

h11 and wsproto do the parsing: neither Twisted's HTTP nor autobahn, which the server is made of, so a mistake
in those cannot cancel itself out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import h11
import wsproto
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from wsproto import events
from wsproto.extensions import Extension

T = TypeVar("T")
C = TypeVar("C", bound="Connection")

DEADLINE = 60.0
"Seconds after which what a test waits for counts as missing; far more than any case needs."

TEXT = "text/plain;charset=UTF-8"
"The content type with which browsers send text."


def bounded(waiter: Deferred[T], what: str) -> Deferred[T]:
    """
    The same Deferred, which fails with AssertionError when `what` has not come by the `DEADLINE`.
    """

    def late(result: object, seconds: float) -> object:
        raise AssertionError(f"{what}: not within {seconds:g} s")

    return waiter.addTimeout(DEADLINE, reactor, late)


class Reply(NamedTuple):
    """
    An HTTP response.

    :ivar headers: by their names in lower case.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body, which must be UTF-8."""
        return self.body.decode()


class Connection(Protocol):
    """
    One TCP connection to the server.

    :ivar lost: fires, always with None, when the connection is gone.
    """

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def abort(self) -> None:
        """
        Drop the connection without a word.
        """
        self.transport.abortConnection()


class Exchange(Connection):
    """
    One HTTP request and its response.

    :ivar reply: fires with the Reply; fails with ConnectionLost when the connection ends before it.
    """

    def __init__(self, request: h11.Request, body: bytes) -> None:
        super().__init__()
        self.reply: Deferred[Reply] = Deferred()
        self._outgoing = (request, h11.Data(data=body), h11.EndOfMessage())
        self._http = h11.Connection(h11.CLIENT)
        self._response: h11.Response | None = None
        self._body = b""

    def connectionMade(self) -> None:
        for event in self._outgoing:
            self.transport.write(self._http.send(event))

    def dataReceived(self, data: bytes) -> None:
        self._http.receive_data(data)
        while (event := self._http.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.Response():
                    self._response = event
                case h11.Data():
                    self._body += event.data
                case h11.EndOfMessage():
                    headers = {name.decode(): value.decode() for name, value in self._response.headers}
                    self.reply.callback(Reply(self._response.status_code, headers, self._body))
                    self.transport.loseConnection()
                    return

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.reply.called:
            self.reply.errback(ConnectionLost("no response"))
        super().connectionLost(reason)

    def abort(self) -> None:
        self.reply.addErrback(lambda failure: failure.trap(ConnectionLost) and None)
        super().abort()


class Closed(Exception):
    """
    A WebSocket is closed and has no more messages.
    """


class WebSocket(Connection):
    """
    One WebSocket connection.

    :ivar settled: fires with None when the server has accepted or refused, or the connection is gone.
    :ivar accepted: whether the server switched to WebSocket (101).
    :ivar refusal: the HTTP status of a refusal.
    :ivar closeCode: what the server's close frame said.
    """

    def __init__(self, host: str, target: str, extensions: Sequence[Extension] = ()) -> None:
        super().__init__()
        self.settled: Deferred[None] = Deferred()
        self.accepted = False
        self.refusal: int | None = None
        self.closeCode: int | None = None
        self._request = events.Request(host=host, target=target, extensions=list(extensions))
        self._websocket = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._partial: str | bytes | None = None
        self._messages: DeferredQueue[str | bytes] = DeferredQueue()

    def send(self, *messages: str | bytes) -> None:
        """
        Send messages: str as text, bytes as binary.
        """
        for message in messages:
            event = events.TextMessage if isinstance(message, str) else events.BytesMessage
            self.transport.write(self._websocket.send(event(data=message)))

    async def receive(self) -> str | bytes:
        """
        The next message; Closed when the connection ends first, AssertionError at the deadline.
        """
        return await bounded(self._messages.get(), "a message")

    async def rest(self) -> list[str | bytes]:
        """
        Return the data until the server closes the connection; AssertionError if it stays open.
        """
        messages = []
        while True:
            try:
                messages.append(await self.receive())
            except Closed:
                return messages

    def close(self) -> None:
        """
        Begin the closing handshake.
        """
        self.transport.write(self._websocket.send(events.CloseConnection(code=1000)))

    # -- Protocol

    def connectionMade(self) -> None:
        self.transport.write(self._websocket.send(self._request))

    def dataReceived(self, data: bytes) -> None:
        try:
            self._websocket.receive_data(data)
            for event in self._websocket.events():
                self._eventReceived(event)
        except wsproto.utilities.RemoteProtocolError:
            # No WebSocket any more: Node's server writes an HTTP error into one that it has accepted.
            self.abort()

    def _eventReceived(self, event: events.Event) -> None:
        match event:
            case events.AcceptConnection():
                self.accepted = True
                self.settled.callback(None)
            case events.RejectConnection():
                self.refusal = event.status_code
                self.transport.loseConnection()
            case events.Message():
                data = event.data if isinstance(event.data, str) else bytes(event.data)
                self._partial = data if self._partial is None else self._partial + data
                if event.message_finished:
                    self._messages.put(self._partial)
                    self._partial = None
            case events.Ping():
                self.transport.write(self._websocket.send(event.response()))
            case events.CloseConnection():
                self.closeCode = event.code
                if self._websocket.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                    self.transport.write(self._websocket.send(event.response()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.accepted:
            self.settled.callback(None)
        self._messages.put(Failure(Closed(f"refused with {self.refusal}" if self.refusal else "closed")))
        super().connectionLost(reason)


class Wire:
    """
    The way to one server: each request and each WebSocket on a connection of its own.

    :param url: the server's, with the path that is asked for: ``http://127.0.0.1:3000/engine.io/``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._path = parts.path
        self._endpoint = TCP4ClientEndpoint(reactor, parts.hostname, parts.port)
        self._connections: set[Connection] = set()

    async def begin(
        self, method: str, query: dict[str, str], body: str | bytes = "", contentType: str = TEXT
    ) -> Exchange:
        """
        Send a request, and do not wait for its response.

        Whatever another connection sends after this has returned, the server reads after the request.
        """
        data = body.encode() if isinstance(body, str) else body
        headers = [("host", self._host)]
        if method != "GET":
            headers += [("content-type", contentType), ("content-length", str(len(data)))]
        request = h11.Request(method=method, target=self.target(query), headers=headers)
        return await self._connect(Exchange(request, data))

    async def request(
        self, method: str, query: dict[str, str], body: str | bytes = "", contentType: str = TEXT
    ) -> Reply:
        """
        Send a request and wait for its response.
        """
        exchange = await self.begin(method, query, body, contentType)
        return await bounded(exchange.reply, f"the response to {method}")

    async def websocket(self, query: dict[str, str], extensions: Sequence[Extension] = ()) -> WebSocket:
        """
        Ask for a WebSocket, and wait until the server has accepted or refused.
        """
        websocket = await self._connect(WebSocket(self._host, self.target(query), extensions))
        await bounded(websocket.settled, "the end of the opening handshake")
        return websocket

    async def hangUp(self) -> None:
        """
        Drop every connection that is still open, and wait until all are gone.
        """
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        await gatherResults([connection.lost for connection in connections])

    async def dial(self) -> Connection:
        """
        Connect, and say nothing.
        """
        return await self._connect(Connection())

    async def _connect(self, connection: C) -> C:
        await connectProtocol(self._endpoint, connection)
        self._connections.add(connection)
        connection.lost.addCallback(lambda _: self._connections.discard(connection))
        return connection

    def target(self, query: dict[str, str]) -> str:
        """
        Return the target of a request: the path and a query.
        """
        return f"{self._path}?{urlencode(query)}"
