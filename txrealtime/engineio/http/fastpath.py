"""
A fast path for the engine's own requests, before ``twisted.web``.

Every connection to an :class:`~txrealtime.engineio.http.site.EngineSite` begins here.
:class:`EngineChannel` reads a plain request for the engine and responds itself, at a third of
``twisted.web``'s cost; the plain opening handshake of a WebSocket needs no Autobahn either.  With the first
request that is neither, the connection becomes ``twisted.web``'s for good.

A plain request is a GET or POST of HTTP/1.1 with each header once, no transfer coding, no expectations, and
a body of known and allowed length.  A request that two parsers could read in two ways is never read here, so
no request can be smuggled.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple
from typing import Protocol as Interface

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.http import NOT_MODIFIED, RESPONSES
from zope.interface import implementer

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.polling.request import TEXT
from txrealtime.engineio.tcp import peerAddress, replaceProtocol, setProtocol, writeNow
from txrealtime.engineio.websocket.opening import replyTo

__all__ = ["ChannelSite", "EngineChannel"]

# RFC 9112, 3
_REQUEST: Final = re.compile(rb"(GET|POST) (/[!-~]*) HTTP/1\.1\r\n")

# RFC 9112, 5.  A value holds no control character but the tab.
_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*+\r\n")

_VERSION: Final = b"HTTP/1.1\r\n"

# The bytes that may arrive before the response to a request, until reading pauses.
_MAX_AHEAD: Final = 65536

# Characters of a line; longer ones are read for each client anew.
_SHARED: Final = 250

_LENGTH: Final = re.compile(r"[0-9]{1,9}")


class ChannelSite(Interface):
    """
    The site of an :class:`EngineChannel`.

    :ivar timeOut: seconds that a connection may be idle; ``None`` for any time.
    :ivar firstTimeOut: the same, until the first request.
    :ivar endsConnections: whether each connection ends with the next response.
    :ivar heedsTransport: whether another producer is registered already, and stops reading when the transport
        is full.
    """

    engine: Engine
    reactor: IReactorTime
    timeOut: float | None
    endsConnections: bool
    heedsTransport: bool

    @property
    def firstTimeOut(self) -> float | None: ...

    def isForEngine(self, uri: bytes) -> bool:
        """Return whether a request with this path and query may take the fast path."""

    def giveWay(self, transport: Any, address: IAddress | None) -> IProtocol:
        """Give the connection to ``twisted.web``, and return the protocol for the bytes already read."""

    def connectionLost(self, reason: Failure) -> None:
        """Called when the connection is lost while it is the channel's."""


class _PlainHead(NamedTuple):
    """The head of a plain request without its URL, as it came and as it was read."""

    verb: bytes
    lines: bytes
    method: str
    fields: dict[str, str]
    size: int
    """Bytes of the body."""


class _ChannelRequest:
    """A request that an :class:`EngineChannel` has read."""

    __slots__ = ("_body", "_channel", "_fields", "_lost", "extra", "method", "url")

    def __init__(self, channel: EngineChannel, head: _PlainHead, url: str, body: bytes) -> None:
        self.method = head.method
        self.url = url
        self.extra = {b"Vary": b"Origin"}
        self._channel: EngineChannel | None = channel
        self._fields = head.fields
        self._body = body
        self._lost: Callable[[], object] | None = None

    @property
    def peer(self) -> str:
        return "" if self._channel is None else peerAddress(self._channel.transport)

    @property
    def secure(self) -> bool:
        return self._channel is not None and ISSLTransport.providedBy(self._channel.transport)

    def header(self, name: str) -> str:
        return self._fields.get(name, "")

    def headers(self) -> dict[str, str]:
        return self._fields.copy()  # the channel keeps the head for the client's next request

    def body(self, most: int) -> bytes:
        return self._body[:most]

    def respond(self, status: int, body: bytes, contentType: bytes = TEXT) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        head = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: %s\r\n" % (
            status,
            RESPONSES.get(status, b"Unknown"),
            contentType,
            len(body),
            self.extra.pop(b"Cache-Control", b"no-store"),
        )
        if status == NOT_MODIFIED:
            body = b""
        for name, value in self.extra.items():
            head += b"%s: %s\r\n" % (name, value)
        persistent = (
            not channel._site.endsConnections and "close" not in self._fields.get("connection", "").lower()
        )
        channel.answered(head + (b"\r\n" if persistent else b"Connection: close\r\n\r\n") + body, persistent)

    def whenLost(self, call: Callable[[], object]) -> None:
        self._lost = call

    def lost(self) -> None:
        """Called when the client has gone before the response."""
        self._channel = None
        if self._lost is not None:
            self._lost()


@implementer(IPushProducer)
class EngineChannel(Protocol):
    """
    A connection on the fast path.

    :param site: its site.
    :param address: the client's address.
    """

    transport: Any

    def __init__(self, site: ChannelSite, address: IAddress | None) -> None:
        self._site = site
        self._address = address
        self._buffer = b""
        self._head: _PlainHead | None = None
        self._request: _ChannelRequest | None = None
        self._reading = True
        self._partial: bytearray | None = None
        self._wanted = 0
        self._active = False
        self._last = False
        self._timer: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        self._full = False
        self._heeds = False

    def connectionMade(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # a UNIX socket has no such option
            self.transport.setTcpNoDelay(True)
        self._startTimer(self._site.firstTimeOut)

    def dataReceived(self, data: bytes) -> None:
        if self._last:
            return
        if self._partial is not None:
            self._partial += data
            if len(self._partial) < self._wanted:
                return
            data, self._partial = bytes(self._partial), None
        self._buffer = self._buffer + data if self._buffer else data
        if self._request is None:
            self._read()
        elif len(self._buffer) > _MAX_AHEAD and self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def _read(self) -> None:
        """Read the next request, if all of it has arrived."""
        buffer = self._buffer
        most = self._site.engine.settings.maxHeaderSize
        end = buffer.find(b"\r\n\r\n", 0, most) + 4
        if end < 4:
            if len(buffer) > most or not self._mayBeOurs(buffer):
                self._giveWay()
            else:
                self._awaitRest()
            return
        url = self._readHead(buffer, end)
        head = self._head
        if url is None or head is None:
            return
        end += head.size
        if len(buffer) < end:
            self._partial, self._wanted, self._buffer = bytearray(buffer), end, b""
            self._awaitRest()
        else:
            if self._deadline is not None:
                self._stopWaiting()
            self._buffer = buffer[end:]
            self._request = request = _ChannelRequest(self, head, url, buffer[end - head.size : end])
            self._site.engine.serve(request)

    def _readHead(self, buffer: bytes, end: int) -> str | None:
        """Read the head of a plain request, and return its URL; or give the connection away."""
        start = buffer.find(b"\r\n") + 2
        match = _REQUEST.fullmatch(buffer, 0, start)
        if match is None or not self._site.isForEngine(match[2]):
            self._giveWay()
            return None
        verb, target = match[1], match[2]
        lines, last = buffer[start:end], self._head
        # A browser changes its URL with each request, and nothing else but the length of a body.
        if last is None or lines != last.lines or verb != last.verb:
            fields = _readFields(lines[:-2]) if _FIELDS.fullmatch(lines) else None
            if fields is not None and "upgrade" in fields:
                self._upgrade(verb, target.decode(), fields, end)
                return None
            size = None if fields is None else self._bodySize(verb, fields)
            if fields is None or size is None:
                self._giveWay()
                return None
            self._head = _PlainHead(verb, lines, verb.decode(), fields, size)
        return target.decode()

    def _mayBeOurs(self, beginning: bytes) -> bool:
        """Return whether an unfinished head can still become that of a request for the engine."""
        method, space, rest = beginning.partition(b" ")
        if not space:
            return b"GET".startswith(method) or b"POST".startswith(method)
        path, space, version = rest.partition(b" ")
        if method not in (b"GET", b"POST"):
            return False
        if not space:
            return b"\n" not in path
        return _VERSION.startswith(version[: len(_VERSION)]) and self._site.isForEngine(path)

    def _bodySize(self, method: bytes, fields: dict[str, str]) -> int | None:
        """Return the length of the body, or ``None`` if ``twisted.web`` must judge."""
        if "transfer-encoding" in fields or "expect" in fields or "host" not in fields:
            return None
        length = fields.get("content-length")
        if length is None:
            return 0 if method == b"GET" else None
        if not _LENGTH.fullmatch(length) or int(length) > self._site.engine.settings.maxPayload:
            return None
        return int(length)

    def _awaitRest(self) -> None:
        """Set a deadline for the rest of a request."""
        if self._deadline is None:
            self._deadline = self._site.reactor.callLater(
                self._site.engine.settings.requestTimeout, self._tooSlow
            )

    def _stopWaiting(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _tooSlow(self) -> None:
        self._deadline = None
        self.transport.abortConnection()

    # -- giving way ----------------------------------------------------------------

    def _upgrade(self, method: bytes, url: str, fields: dict[str, str], end: int) -> None:
        if fields["upgrade"].lower() != "websocket" or method != b"GET" or "content-length" in fields:
            self._giveWay()
            return
        self._ignoreTransport()
        engine = self._site.engine
        factory = engine.webSocketsFor(url)
        protocol = factory.buildProtocol(self._address)
        reply = replyTo(url, fields) if factory is engine.webSockets and factory.isPlain else None
        if reply is None:
            replaceProtocol(self.transport, protocol)
            self._handOver(protocol)
        else:
            self._stopTimer()
            self._stopWaiting()
            setProtocol(self.transport, protocol)
            protocol.open(self.transport, url, fields, reply, self._buffer[end:])

    def _giveWay(self) -> None:
        """Give the connection to ``twisted.web`` for good."""
        self._ignoreTransport()
        self._handOver(self._site.giveWay(self.transport, self._address))

    def _handOver(self, protocol: IProtocol) -> None:
        self._stopTimer()
        self._stopWaiting()
        buffer, self._buffer = self._buffer, b""
        protocol.dataReceived(buffer)

    # -- responses -----------------------------------------------------------------

    def answered(self, response: bytes, persistent: bool) -> None:
        """Send the response to the request in hand, and go on to the next."""
        self._request = None
        if not writeNow(self.transport, response):
            self._heedTransport()
        if not persistent:
            self._last = True
            self._ignoreTransport()
            self.transport.loseConnection()
            return
        self._active = True
        if self._full:
            return
        if not self._reading:
            self._reading = True
            self.transport.resumeProducing()
        if self._buffer:
            # Later, since responses that are sent at once would nest without end.
            self._site.reactor.callLater(0, self._readOn)

    def _readOn(self) -> None:
        if self._request is None and self.connected and self._buffer and not self._full:
            self._read()

    # -- backpressure: IPushProducer for the responses ---------------------------------

    def _heedTransport(self) -> None:
        """
        Register as the transport's producer.

        Otherwise a client that sends one request after the other and reads no response fills the memory.
        """
        if not self._heeds and not self._site.heedsTransport:
            self._heeds = True
            self.transport.registerProducer(self, True)

    def _ignoreTransport(self) -> None:
        if self._heeds:
            self._heeds = False
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._full = True
        if self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._full = False
        if self._request is None:
            self._reading = True
            self.transport.resumeProducing()
            self._readOn()

    def stopProducing(self) -> None:
        """Do nothing: :meth:`connectionLost` follows."""

    # -- time and the end ------------------------------------------------------------

    def _startTimer(self, seconds: float | None) -> None:
        if seconds is not None:
            self._timer = self._site.reactor.callLater(seconds, self._timedOut)

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _timedOut(self) -> None:
        """Drop the connection if there was no request since the last time, and none is in hand."""
        if self._active or self._request is not None:
            self._active = False
            self._startTimer(self._site.timeOut)
        else:
            self._timer = None
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.connected = 0
        self._stopTimer()
        self._stopWaiting()
        request, self._request = self._request, None
        if request is not None:
            request.lost()
        self._site.connectionLost(reason)


def _readFields(lines: bytes) -> dict[str, str] | None:
    """Return the headers by name in lower case, or ``None`` if one is repeated."""
    fields: dict[str, str] = {}
    count = 0
    for line in lines.decode("latin-1").split("\r\n")[:-1]:
        name, value = _sharedField(line) if len(line) < _SHARED else _readField(line)
        fields[name] = value
        count += 1
    return fields if len(fields) == count else None


def _readField(line: str) -> tuple[str, str]:
    """Return a header's name in lower case, and its value."""
    name, _, value = line.partition(":")
    return name.lower(), value.strip(" \t")


# Clients share the texts of equal headers: 1.2 kB less for an idle one.
_sharedField: Final = lru_cache(maxsize=1024)(_readField)
