"""
The relay: a polling request goes to the worker that has its session, and the response comes back.

A relay serves the connections that cannot be handed over: a kept-alive connection whose next request names
another session, as a proxy's pool sends, TLS, HTTP/2, and any ``twisted.web`` site.  All requests from one
worker to another take one connection over a UNIX socket, so the requests of a session keep their order.

A frame has a head of 13 bytes, which are the length of the rest (4), the kind (1), the number of the request
(4) and the length of the lines (4), in the order of the network.  The rest is the lines, with a line feed
between two, and the body.  No line has a line feed in it: a request with one in a header is refused.

========  ==============================================================================
kind      lines
========  ==============================================================================
REQUEST   method, URL, address of the client, ``1`` for TLS, name and value of each header
RESPONSE  status, content type, name and value of each further header
LOST      none: the client has gone before the response
========  ==============================================================================

The frames that one turn of the reactor makes leave in one write.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, AnyStr, Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.web.http import SERVICE_UNAVAILABLE
from zope.interface import implementer

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import readQuery
from txrealtime.engineio.polling.request import TEXT, HTTPRequest
from txrealtime.engineio.tcp import readPlainly, writeNow
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["Relay", "RelayFactory", "RelayedRequest"]

_log = Logger()

_HEAD: Final = struct.Struct("!IBII")

_REQUEST: Final = 1
_RESPONSE: Final = 2
_LOST: Final = 3

# Bytes that wait for a worker that does not read; more requests are refused with 503.
_MOST_WAITING: Final = 32 * 1024 * 1024


def _packed(kind: int, number: int, lines: Sequence[str] = (), body: bytes = b"") -> bytes:
    """
    Return a frame.

    :raises ValueError: if a line has a line feed, or a character beyond latin-1.
    """
    text = "\n".join(lines)
    if lines and text.count("\n") != len(lines) - 1:
        raise ValueError("a line feed in a line")
    # One string is encoded, not 25: a relayed request costs 10 us less.
    data = text.encode("latin-1")
    return b"%b%b%b" % (_HEAD.pack(len(data) + len(body), kind, number, len(data)), data, body)


def _pairs(lines: list[AnyStr]) -> dict[AnyStr, AnyStr]:
    return dict(zip(lines[::2], lines[1::2], strict=True))


def _goneFor(request: HTTPRequest) -> HandshakeError:
    """Return the refusal of a request whose worker has ended."""
    if "sid" in readQuery(request.url):
        return HandshakeError(1, "Session ID unknown", reason="sid", advice="its worker has ended")
    return _unavailable("has ended", "stopping")


def _unavailable(why: str, reason: str) -> HandshakeError:
    message = f"Bad request: the worker for this request {why}"
    return HandshakeError(3, message, SERVICE_UNAVAILABLE, reason=reason, retryAfter=1)


class _Frames(Protocol):
    """
    A connection between two workers, which cuts what it reads into frames.

    :param reactor: the clock.
    """

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._rest = bytearray()
        self._needed = 0  # bytes that `_rest` must have before it is worth reading
        self._outbox: list[bytes] = []
        self._gathers = False

    def connectionMade(self) -> None:
        readPlainly(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self._rest:
            # Not `data = rest + data`: a large body comes in many pieces.
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, size, head = 0, len(data), _HEAD.size
        self._needed = head
        self._gathers = True
        while size - at >= head:
            length, kind, number, lines = _HEAD.unpack_from(data, at)
            start = at + head
            end = start + length
            if end > size:
                self._needed = end - at
                break
            try:
                self.frameReceived(kind, number, data[start : start + lines], data[start + lines : end])
            except Exception:  # an error that left here would end the requests of all others
                _log.failure("a relayed request failed")
            at = end
        self._rest += data[at:]
        self._flush()

    def frameReceived(self, kind: int, number: int, lines: bytes, body: bytes) -> None:
        """Called when a frame has come."""
        raise NotImplementedError

    def send(self, frame: bytes) -> None:
        """Send a frame together with the others of this turn of the reactor."""
        self._outbox.append(frame)
        if not self._gathers:
            self._gathers = True
            self._reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        self._gathers = False
        outbox, self._outbox = self._outbox, []
        if outbox:
            self.write(b"".join(outbox))

    def end(self) -> None:
        """Close the connection behind all frames."""
        if self.transport is not None:
            self._flush()
            self.transport.loseConnection()

    def write(self, data: bytes) -> None:
        """Write to the connection."""
        # The transport's own write takes a turn and two calls of epoll_ctl more.
        writeNow(self.transport, data)


# -- the worker that accepted the connection -------------------------------------------


@implementer(IPushProducer)
class Relay(_Frames):
    """
    A connection to the worker that has sessions, for requests of these sessions.

    :param reactor: the clock.
    :param most: the most bytes of a body that are passed on: one more than the owner takes.
    :param lost: called once, when the connection is lost, or cannot be had.
    :param refuse: refuses a request.
    """

    def __init__(
        self,
        reactor: Any,
        most: int,
        lost: Callable[[Relay], object],
        refuse: Callable[[HTTPRequest, HandshakeError], object],
    ) -> None:
        super().__init__(reactor)
        self._most = most
        self._lost = lost
        self._refuse = refuse
        self._number = 0
        self._requests: dict[int, HTTPRequest] = {}
        self._queue: list[bytes] = []
        self._waiting = 0
        self._full = True
        self._dead = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    @property
    def waits(self) -> bool:
        """True while a response is awaited."""
        return bool(self._requests)

    def serve(self, request: HTTPRequest) -> None:
        """Pass a request on, and send the response when it comes."""
        if self._dead:
            self._refuse(request, _goneFor(request))
            return
        if self._waiting > _MOST_WAITING:
            self._refuse(request, _unavailable("is busy", "full"))
            return
        number = (self._number + 1) & 0xFFFFFFFF
        headers = chain.from_iterable(request.headers().items())
        lines = [request.method, request.url, request.peer, "1" if request.secure else "", *headers]
        try:
            frame = _packed(_REQUEST, number, lines, request.body(self._most))
        except ValueError:
            self._refuse(request, HandshakeError(3, "Bad request"))
            return
        self._number = number
        self._requests[number] = request
        self._sendOrKeep(frame)
        request.whenLost(partial(self._clientLost, number))

    def _clientLost(self, number: int) -> None:
        if self._requests.pop(number, None) is not None and not self._dead:
            self._sendOrKeep(_packed(_LOST, number))

    def _sendOrKeep(self, frame: bytes) -> None:
        if self._full:
            self._waiting += len(frame)
            self._queue.append(frame)
        else:
            self.send(frame)

    def frameReceived(self, kind: int, number: int, lines: bytes, body: bytes) -> None:
        request = self._requests.pop(number, None)
        if request is None:
            return  # the client has gone
        status, contentType, *extra = lines.split(b"\n")
        request.extra.update(_pairs(extra))
        request.respond(int(status), body, contentType)

    def failed(self) -> None:
        """Refuse all requests: their sessions are gone with the worker that had them, and new ones too."""
        if self._dead:
            return
        self._dead = True
        requests, self._requests = self._requests, {}
        self._queue.clear()
        self._lost(self)
        for request in requests.values():
            self._refuse(request, _goneFor(request))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.failed()

    # -- IPushProducer: what waits for a worker that does not read stays here, and is counted ------

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        queue, self._queue, self._waiting = self._queue, [], 0
        for place, frame in enumerate(queue):
            self.write(frame)
            if self._full:  # write() has called pauseProducing()
                self._queue = queue[place + 1 :]
                self._waiting = sum(map(len, self._queue))
                return

    def stopProducing(self) -> None:
        """Do nothing: :meth:`connectionLost` follows."""


# -- the worker that has the session ---------------------------------------------------


class RelayedRequest:
    """
    A request that another worker has read.

    It provides :class:`~txrealtime.engineio.polling.request.HTTPRequest`.
    """

    __slots__ = ("_answer", "_body", "_fields", "_lost", "extra", "method", "peer", "secure", "url")

    def __init__(self, lines: bytes, body: bytes, answer: Callable[[Sequence[str], bytes], object]) -> None:
        self.method, self.url, self.peer, secure, *fields = lines.decode("latin-1").split("\n")
        self.secure = bool(secure)
        self.extra = {b"Vary": b"Origin"}
        self._fields = _pairs(fields)
        self._body = body
        self._answer: Callable[[Sequence[str], bytes], object] | None = answer
        self._lost: Callable[[], object] | None = None

    def header(self, name: str) -> str:
        return self._fields.get(name, "")

    def headers(self) -> dict[str, str]:
        return self._fields

    def body(self, most: int) -> bytes:
        return self._body[:most]

    def respond(self, status: int, body: bytes, contentType: bytes = TEXT) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            extra = [text.decode("latin-1") for text in chain.from_iterable(self.extra.items())]
            answer([str(status), contentType.decode("latin-1"), *extra], body)

    def whenLost(self, call: Callable[[], object]) -> None:
        self._lost = call

    def lost(self) -> None:
        """Called when the client, or the worker between, has gone before the response."""
        if self._answer is not None:
            self._answer = None
            if self._lost is not None:
                self._lost()


class _Answering(_Frames):
    """
    A connection from another worker, whose requests are for sessions of this one.

    Its writes need no limit of their own: each answers a request in hand, and a client has few.
    """

    def __init__(self, engine: Engine, factory: RelayFactory) -> None:
        super().__init__(engine.reactor)
        self._engine = engine
        self._factory = factory
        self._requests: dict[int, RelayedRequest] = {}

    def frameReceived(self, kind: int, number: int, lines: bytes, body: bytes) -> None:
        if kind == _REQUEST:
            self._factory.received += 1
            request = RelayedRequest(lines, body, partial(self._respond, number))
            self._requests[number] = request
            self._engine.serve(request)
        elif kind == _LOST:
            lost = self._requests.pop(number, None)
            if lost is not None:
                lost.lost()

    def _respond(self, number: int, lines: Sequence[str], body: bytes) -> None:
        if self._requests.pop(number, None) is not None:
            self.send(_packed(_RESPONSE, number, lines, body))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.lost()
        self._factory.connections.discard(self)


class RelayFactory(Factory):
    """
    A factory of connections from other workers.

    :param engine: the engine that has the sessions.
    :ivar received: requests that other workers have passed on.
    :ivar connections: the connections.
    """

    noisy = False

    def __init__(self, engine: Engine) -> None:
        self.received = 0
        self.connections: set[_Answering] = set()
        self._engine = engine

    def buildProtocol(self, address: object) -> Protocol:
        protocol = _Answering(self._engine, self)
        self.connections.add(protocol)
        return protocol
