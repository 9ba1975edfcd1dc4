"""
The load generator's long polling clients: a GET that waits, and a POST for each event.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import perf_counter

from benchmarks.load import CHUNK, Address, Connection, Loop, Wrong
from benchmarks.websocket import Exchange, loads

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)

_HEADERS = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: */*\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Connection: keep-alive\r\n"
)


class HTTPConnection(Connection):
    """A connection for one request after the other."""

    __slots__ = ("_address", "_answered", "_data", "_open")

    def __init__(self, loop: Loop, address: Address) -> None:
        self._address = address
        self._answered: Callable[[bytes, float], None] | None = None
        self._data = b""
        self._open = True
        super().__init__(loop, address)

    def request(self, data: bytes, answered: Callable[[bytes, float], None]) -> None:
        """Send a request; `answered` gets the body of the response, and the time."""
        if not self._open:
            # Servers do not keep an unused connection for long.
            self.connect(self._address)
            self._open = True
        self._answered = answered
        self.write(data)

    def readable(self) -> None:
        data = self.receive(CHUNK)
        now = perf_counter()
        if not data:
            if self._answered is not None:
                raise Wrong("closed instead of answered")
            self.close()
            return
        if self._answered is None:
            raise Wrong(f"an answer without a question: {data[:80]!r}")
        if self._data:
            data = self._data + data
        body = _body(data)
        if body is None:
            self._data = data
            return
        self._data = b""
        answered, self._answered = self._answered, None
        answered(body, now)

    def close(self) -> None:
        if self._open:
            self._open = False
            super().close()


def _body(data: bytes) -> bytes | None:
    """The body of a response, when it is complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    if not data.startswith(b"HTTP/1.1 200 "):
        raise Wrong(f"not the answer that was due: {data[:200]!r}")
    found = _LENGTH.search(data, 0, end)
    if found:
        size = end + 4 + int(found[1])
        if len(data) > size:
            raise Wrong(f"more than an answer: {data[size:][:80]!r}")
        return data[end + 4 :] if len(data) == size else None
    if not _CHUNKED.search(data, 0, end):
        raise Wrong(f"an answer of no length: {data[:200]!r}")
    return _joined(data, end + 4)


def _joined(data: bytes, position: int) -> bytes | None:
    """A chunked body in one piece (RFC 9112, 7.1), when it is complete."""
    chunks: list[bytes] = []
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        size = int(data[position:end], 16)
        position = end + 2 + size + 2
        if len(data) < position:
            return None
        if not size:
            return b"".join(chunks)
        chunks.append(data[end + 2 : position - 2])


class PollingClient:
    """
    A client that emits an event by POST and gets its acknowledgement by GET, over and over.

    A GET always waits, as with the clients in browsers, and as with these each URL has another ``t``. A round
    trip is done when both have been answered.

    :cvar connection: makes its connections.
    """

    connection: type[HTTPConnection] = HTTPConnection

    def __init__(
        self, loop: Loop, address: Address, opened: Callable[[], None], exchange: Exchange, number: int
    ) -> None:
        self._exchange = exchange
        self._index = number % len(exchange.values)
        self._opened = opened
        self._host = b"Host: %b:%d\r\n" % (address[0].encode(), address[1]) + _HEADERS
        self._outgoing: list[bytes] = []
        self._posting = self._acknowledged = False
        self._startedAt = 0.0
        self._down, self._up = self.connection(loop, address), self.connection(loop, address)
        self._requests = 0
        self._query = b""
        self._down.request(self._get(), self._handshaken)

    def close(self) -> None:
        """End it, without a word."""
        self._down.close()
        self._up.close()

    def _path(self) -> bytes:
        self._requests += 1
        return b"/socket.io/?EIO=4&transport=polling&t=%08x%b" % (self._requests, self._query)

    def _get(self) -> bytes:
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (self._path(), self._host)

    def _handshaken(self, body: bytes, now: float) -> None:
        if body[:1] != b"0":
            raise Wrong(f"not the opening of a session: {body[:80]!r}")
        self._query = b"&sid=" + loads(body[1:])["sid"].encode()
        self._post(b"40")
        self._down.request(self._get(), self._connected)

    def _connected(self, body: bytes, now: float) -> None:
        if not body.startswith(b'40{"sid"'):
            raise Wrong(f"not let in: {body[:80]!r}")
        self._down.request(self._get(), self._received)
        self._opened()

    def ask(self, count: int, now: float) -> None:
        """Emit the next event."""
        self._exchange.asked += 1
        self._startedAt = now
        self._acknowledged = False
        self._post(self._exchange.events[self._index])

    def _post(self, body: bytes) -> None:
        if self._posting:
            self._outgoing.append(body)
            return
        self._posting = True
        self._up.request(
            b"POST %b HTTP/1.1\r\n%bContent-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n\r\n%b"
            % (self._path(), self._host, len(body), body),
            self._taken,
        )

    def _taken(self, body: bytes, now: float) -> None:
        if body not in (b"ok", b"OK"):
            raise Wrong(f"a POST was answered by {body[:80]!r}")
        self._posting = False
        if self._outgoing:
            self._post(self._outgoing.pop(0))
        elif self._acknowledged:
            self._finished(now)

    def _received(self, body: bytes, now: float) -> None:
        self._down.request(self._get(), self._received)
        for packet in body.split(b"\x1e"):
            if packet == b"2":
                self._post(b"3")
            elif packet != b"6":
                self._acked(packet)
        if self._acknowledged and not self._posting:
            self._finished(now)

    def _acked(self, packet: bytes) -> None:
        exchange = self._exchange
        if packet != exchange.acks[self._index] and exchange.check(packet) != self._index:
            raise Wrong(f"not the acknowledgement that is due: {packet[:80]!r}")
        if self._acknowledged or not self._startedAt:
            raise Wrong("the same came twice")
        self._index = (self._index + 1) % len(exchange.values)
        self._acknowledged = True

    def _finished(self, now: float) -> None:
        exchange = self._exchange
        self._acknowledged = False
        exchange.latencies.append(now - self._startedAt)
        self._startedAt = 0.0
        exchange.done += 1
        exchange.again(self, 1, now)
