"""
The relay: a polling request goes to the worker that has its session, and the response comes back.

A relay serves the connections that cannot be handed over: a kept-alive connection whose next request names
another session, as a proxy's pool sends, TLS, HTTP/2, and any ``twisted.web`` site.  All requests from one
worker to another take one connection over a UNIX socket, so the requests of a session keep their order.

A frame has a head of 9 bytes, which are the length of the rest (4), the kind (1) and the number of the
request (4), in the order of the network.  The rest is a sequence of byte strings, each after its length (4):

========  ====================================================================================
kind      byte strings
========  ====================================================================================
REQUEST   method, URL, address of the client, ``1`` for TLS, body, name and value of each header
RESPONSE  status, body, content type, name and value of each further header
LOST      none: the client has gone before the response
========  ====================================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.web.http import SERVICE_UNAVAILABLE
from zope.interface import implementer

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import readQuery
from txrealtime.engineio.polling.request import TEXT, HTTPRequest
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["Relay", "RelayFactory", "RelayedRequest"]

_log = Logger()

_HEAD: Final = struct.Struct("!IBI")
_LENGTH: Final = struct.Struct("!I")

_REQUEST: Final = 1
_RESPONSE: Final = 2
_LOST: Final = 3

# Bytes that wait for a worker that does not read; more requests are refused with 503.
_MOST_WAITING: Final = 32 * 1024 * 1024


def _packed(kind: int, number: int, strings: Iterable[bytes]) -> bytes:
    parts = []
    size = 0
    for string in strings:
        parts += [_LENGTH.pack(len(string)), string]
        size += 4 + len(string)
    return _HEAD.pack(size, kind, number) + b"".join(parts)


def _unpacked(data: bytes) -> list[bytes]:
    strings, at = [], 0
    while at < len(data):
        end = at + 4 + _LENGTH.unpack_from(data, at)[0]
        strings.append(data[at + 4 : end])
        at = end
    return strings


def _pairs(strings: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(strings[::2], strings[1::2], strict=True)


def _goneFor(request: HTTPRequest) -> HandshakeError:
    """Return the refusal of a request whose worker has ended."""
    if "sid" in readQuery(request.url):
        return HandshakeError(1, "Session ID unknown", reason="sid", advice="its worker has ended")
    return _unavailable("has ended", "stopping")


def _unavailable(why: str, reason: str) -> HandshakeError:
    message = f"Bad request: the worker for this request {why}"
    return HandshakeError(3, message, SERVICE_UNAVAILABLE, reason=reason, retryAfter=1)


class _Frames(Protocol):
    """A protocol that cuts bytes into frames."""

    transport: Any

    def __init__(self) -> None:
        self._buffer = bytearray()

    def dataReceived(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _HEAD.size:
            size, kind, number = _HEAD.unpack_from(buffer, at)
            end = at + _HEAD.size + size
            if len(buffer) < end:
                break
            try:
                self.frameReceived(kind, number, bytes(buffer[at + _HEAD.size : end]))
            except Exception:  # an error that left here would end the requests of all others
                _log.failure("a relayed request failed")
            at = end
        del buffer[:at]

    def frameReceived(self, kind: int, number: int, data: bytes) -> None:
        """Called when a frame has come."""
        raise NotImplementedError


# -- the worker that accepted the connection -------------------------------------------


@implementer(IPushProducer)
class Relay(_Frames):
    """
    A connection to the worker that has sessions, for requests of these sessions.

    :param most: the most bytes of a body that are passed on: one more than the owner takes.
    :param lost: called once, when the connection is lost, or cannot be had.
    :param refuse: refuses a request.
    """

    def __init__(
        self,
        most: int,
        lost: Callable[[Relay], object],
        refuse: Callable[[HTTPRequest, HandshakeError], object],
    ) -> None:
        super().__init__()
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
        number = self._number = (self._number + 1) & 0xFFFFFFFF
        strings = [
            request.method.encode("latin-1"),
            request.url.encode("latin-1"),
            request.peer.encode(),
            b"1" if request.secure else b"",
            request.body(self._most),
        ]
        for name, value in request.headers().items():
            strings += [name.encode("latin-1"), value.encode("latin-1")]
        self._requests[number] = request
        self._send(_packed(_REQUEST, number, strings))
        request.whenLost(lambda: self._clientLost(number))

    def _clientLost(self, number: int) -> None:
        if self._requests.pop(number, None) is not None and not self._dead:
            self._send(_packed(_LOST, number, ()))

    def _send(self, frame: bytes) -> None:
        if self._full:
            self._waiting += len(frame)
            self._queue.append(frame)
        else:
            self.transport.write(frame)

    def frameReceived(self, kind: int, number: int, data: bytes) -> None:
        request = self._requests.pop(number, None)
        if request is None:
            return  # the client has gone
        status, body, contentType, *extra = _unpacked(data)
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
            self.transport.write(frame)
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

    def __init__(self, strings: list[bytes], answer: Callable[[list[bytes]], object]) -> None:
        method, url, peer, secure, self._body, *fields = strings
        self.method = method.decode("latin-1")
        self.url = url.decode("latin-1")
        self.peer = peer.decode()
        self.secure = bool(secure)
        self.extra = {b"Vary": b"Origin"}
        self._fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in _pairs(fields)}
        self._answer: Callable[[list[bytes]], object] | None = answer
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
            extra = [string for pair in self.extra.items() for string in pair]
            answer([b"%d" % status, body, contentType, *extra])

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
        super().__init__()
        self._engine = engine
        self._factory = factory
        self._requests: dict[int, RelayedRequest] = {}

    def frameReceived(self, kind: int, number: int, data: bytes) -> None:
        if kind == _REQUEST:
            self._factory.received += 1
            request = RelayedRequest(_unpacked(data), lambda strings: self._respond(number, strings))
            self._requests[number] = request
            self._engine.serve(request)
        elif kind == _LOST:
            lost = self._requests.pop(number, None)
            if lost is not None:
                lost.lost()

    def _respond(self, number: int, strings: list[bytes]) -> None:
        self._requests.pop(number, None)
        self.transport.write(_packed(_RESPONSE, number, strings))

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
        self.connections: set[Protocol] = set()
        self._engine = engine

    def buildProtocol(self, address: object) -> Protocol:
        protocol = _Answering(self._engine, self)
        self.connections.add(protocol)
        return protocol
