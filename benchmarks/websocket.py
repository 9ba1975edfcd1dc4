"""
The load generator's WebSocket clients: those that ask and wait for acknowledgements, and those that listen.
"""

from __future__ import annotations

import json
import re
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter, sleep
from typing import Any, Protocol

from benchmarks.frames import CLOSE, CONNECT, HEARTBEAT, PING, PONG, TEXT, bounds, masked, plain
from benchmarks.load import CHUNK, Address, Connection, Loop, Tally, Wrong

# The example of RFC 6455, 1.3.
_KEY, _ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

_UPGRADE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
    "Host: {}:{}\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept: */*\r\n"
    "Accept-Language: en-US,en;q=0.5\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {_KEY}\r\n"
    "Connection: keep-alive, Upgrade\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache\r\n"
    "Upgrade: websocket\r\n"
    "\r\n"
)

REST = 0.15
"The part of a broadcast's time for which a crowd rests before the next."

_ACK = re.compile(rb"43(\d+)(\[.*)", re.DOTALL)


def dumps(value: Any) -> bytes:
    """JSON as most servers write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def loads(text: bytes) -> Any:
    """JSON from a server."""
    try:
        return json.loads(text)
    except ValueError:
        raise Wrong(f"no JSON: {text[:80]!r}") from None


class WebSocketClient(Connection):
    """
    A client in the namespace ``/`` that wants no messages.

    :ivar startedAt: when it began to connect.
    :ivar openedAt: when it was in the namespace.
    """

    __slots__ = ("_have", "_need", "_opened", "_parts", "openedAt", "startedAt")

    def __init__(
        self,
        loop: Loop,
        address: Address,
        opened: Callable[[], None],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.startedAt = perf_counter()
        self.openedAt = 0.0
        self._opened: Callable[[], None] | None = opened
        self._parts: list[bytes] = []
        self._have = self._need = 0
        super().__init__(loop, address, context)
        loop.readers[self.fd] = self._upgraded
        self.write(_UPGRADE.format(*address).encode())

    def _upgraded(self) -> None:
        data = self.receive(CHUNK)
        if not data:
            raise Wrong("closed instead of upgraded")
        self._parts.append(data)
        head, end, rest = b"".join(self._parts).partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 101 ") or _ACCEPT not in head:
            raise Wrong(f"not upgraded: {head!r}")
        self._parts = []
        self.loop.readers[self.fd] = self.readable
        if rest:
            self.take(rest, perf_counter())

    def readable(self) -> None:
        self.take(self.receive(CHUNK), perf_counter())

    def take(self, data: bytes, now: float) -> None:
        """Handle any frames, or parts of them: the way for what was not just the bytes that must come."""
        if not data:
            raise Wrong("the server closed a connection")
        parts = self._parts
        parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        position = 0
        while True:
            start, end = bounds(data, position)
            if end > len(data):
                break
            self._frame(data[position], data[start:end], now)
            position = end
        self._parts = [data[position:]] if position < len(data) else []
        self._have = len(data) - position
        self._need = end - position

    def _frame(self, kind: int, payload: bytes, now: float) -> None:
        if kind == TEXT:
            self._packet(payload, now)
        elif kind == PING:
            # Not Engine.IO's but WebSocket's own: uvicorn sends these as well.
            self.write(masked(payload, PONG))
        elif kind == CLOSE:
            raise Wrong(f"the server closed a WebSocket: {payload!r}")
        else:
            raise Wrong(f"a frame that begins with {kind:#x}")

    def _packet(self, payload: bytes, now: float) -> None:
        if payload == b"2":
            self.write(HEARTBEAT)
        elif self._opened is None:
            self.message(payload, now)
        elif payload.startswith(b"0{") and "sid" in loads(payload[1:]):
            self.write(CONNECT)
        elif payload.startswith(b"40{") and "sid" in loads(payload[2:]):
            opened, self._opened = self._opened, None
            self.openedAt = now
            opened()
        else:
            raise Wrong(f"not the opening of a session: {payload[:80]!r}")

    def message(self, payload: bytes, now: float) -> None:
        """A message that is neither a heartbeat nor part of the opening."""
        raise Wrong(f"a message that nobody asked for: {payload[:80]!r}")


class Asking(Protocol):
    """A client of an exchange."""

    def ask(self, count: int, now: float) -> None:
        """Emit the next events."""

    def close(self) -> None:
        """End it."""


class Exchange(Tally):
    """
    Events and the acknowledgements that must follow, the same for all clients of a server.

    They go round: a client asks one after the other, and begins anew after the last. All are of one size, so
    that several that come at once can be compared in one go.

    :param values: what is echoed.
    :param inFlight: how many events of one client wait for their acknowledgement.
    """

    def __init__(self, values: Sequence[Any], inFlight: int) -> None:
        super().__init__()
        self.values = values
        self.inFlight = inFlight
        self.clients: list[Asking] = []
        self.events = [b"42%d" % self.idOf(i) + dumps(["echo", value]) for i, value in enumerate(values)]
        self.acks = [b"43%d" % self.idOf(i) + dumps([value]) for i, value in enumerate(values)]
        requests = [masked(event) for event in self.events]
        replies = [plain(ack) for ack in self.acks]
        self.requestSize, self.replySize = len(requests[0]), len(replies[0])
        if {*map(len, requests)} != {self.requestSize} or {*map(len, replies)} != {self.replySize}:
            raise ValueError("the values differ in size")
        self.chunk = min(max(CHUNK, inFlight * self.replySize), 1 << 16)
        if inFlight * 2 > len(values):
            raise ValueError("too few values")
        # Twice, so that several can be taken from any place.
        self.requests, self.replies = b"".join(requests) * 2, b"".join(replies) * 2

    @staticmethod
    def idOf(index: int) -> int:
        """The id that stands for a value on the wire: always of three digits."""
        return 100 + index

    def check(self, payload: bytes) -> int:
        """
        Look into an acknowledgement that is not, byte by byte, the one that was expected.

        :return: the index of its value.
        """
        found = _ACK.fullmatch(payload)
        index = int(found[1]) - 100 if found else -1
        if found is None or not 0 <= index < len(self.values) or loads(found[2]) != [self.values[index]]:
            raise Wrong(f"not an acknowledgement that is due: {payload[:80]!r}")
        return index

    def start(self) -> None:
        super().start()
        for client in self.clients:
            client.ask(self.inFlight, perf_counter())

    def again(self, client: Asking, count: int, now: float) -> None:
        """A client got answers: it asks as often again."""
        if self.active:
            client.ask(count, now)


class Rotation(Exchange):
    """
    An exchange in which the clients take turns, so that as many events wait however many clients there are.

    :param atOnce: how many.
    """

    def __init__(self, values: Sequence[Any], atOnce: int) -> None:
        super().__init__(values, 1)
        self._atOnce = atOnce
        self._next = 0

    def start(self) -> None:
        Tally.start(self)
        for _ in range(self._atOnce):
            self._ask(perf_counter())

    def again(self, client: Asking, count: int, now: float) -> None:
        if self.active:
            for _ in range(count):
                self._ask(now)

    def _ask(self, now: float) -> None:
        self.clients[self._next].ask(1, now)
        self._next = (self._next + 1) % len(self.clients)


class Asker(WebSocketClient):
    """A client that emits events and waits for their acknowledgements."""

    __slots__ = ("_asked", "_due", "_early", "_exchange", "_times")

    def __init__(
        self, loop: Loop, address: Address, opened: Callable[[], None], exchange: Exchange, number: int
    ) -> None:
        self._exchange = exchange
        # Each begins at another place.
        self._asked = self._due = number % len(exchange.values)
        self._times: deque[float] = deque()
        self._early: set[int] = set()
        super().__init__(loop, address, opened)

    def ask(self, count: int, now: float) -> None:
        """Emit the next events, in one write."""
        exchange = self._exchange
        size, first = exchange.requestSize, self._asked
        self._asked = (first + count) % len(exchange.values)
        exchange.asked += count
        if count == 1:
            self._times.append(now)
        else:
            self._times.extend([now] * count)
        self.write(exchange.requests[first * size : (first + count) * size])

    def readable(self) -> None:
        exchange = self._exchange
        data = self.receive(exchange.chunk)
        now = perf_counter()
        count, rest = divmod(len(data), exchange.replySize)
        due = self._due
        if (
            rest
            or not 0 < count <= len(self._times)
            or self._parts
            or not exchange.replies.startswith(data, due * exchange.replySize)
        ):
            self.take(data, now)
            return
        self._due = (due + count) % len(exchange.values)
        self._answered(count, now)

    def message(self, payload: bytes, now: float) -> None:
        exchange = self._exchange
        total, due, early = len(exchange.values), self._due, self._early
        index = due if payload == exchange.acks[due] else exchange.check(payload)
        # Acknowledgements may come in another order than the events went.
        if index in early or (index - due) % total >= len(self._times) + len(early):
            raise Wrong(f"an acknowledgement that nobody asked for: {payload[:80]!r}")
        early.add(index)
        while due in early:
            early.remove(due)
            due = (due + 1) % total
        self._due = due
        self._answered(1, now)

    def _answered(self, count: int, now: float) -> None:
        exchange = self._exchange
        sent, add = self._times.popleft, exchange.latencies.append
        for _ in range(count):
            add(now - sent())
        exchange.done += count
        exchange.again(self, count, now)


class Crowd(Tally):
    """
    Everybody hears what the first says, and then the first says the next, after a short rest.

    :param values: what is said, one after the other.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        super().__init__()
        self._events = [masked(b"42" + dumps(["broadcast", value])) for value in values]
        self._values = values
        self.clients: list[Listener] = []
        self.round = 0
        self.left = 0
        self.saidAt = 0.0
        self._say(0)

    def start(self) -> None:
        super().start()
        self._next(perf_counter())

    def heard(self, client: Listener, now: float) -> None:
        """A client has got what was said last."""
        if client.heard == self.round or not self.left:
            raise Wrong("the same came twice")
        client.heard = self.round
        self.latencies.append(now - self.saidAt)
        self.done += 1
        self.left -= 1
        if not self.left and self.active:
            # Without a rest, the load is busy all the time beside a server that is faster than it.
            sleep(REST * (now - self.saidAt))
            self._next(perf_counter())

    def check(self, payload: bytes) -> None:
        """Look into a message that is not, byte by byte, the one that was expected."""
        if payload != self.news and (payload[:2] != b"42" or loads(payload[2:]) != ["news", self._value]):
            raise Wrong(f"not what was said: {payload[:80]!r}")

    def _next(self, now: float) -> None:
        self.round += 1
        self.asked += len(self.clients)
        self.left = len(self.clients)
        self._say(self.round % len(self._values))
        self.saidAt = now
        self.clients[0].write(self._event)

    def _say(self, index: int) -> None:
        self._event = self._events[index]
        self._value = self._values[index]
        self.news = b"42" + dumps(["news", self._value])
        self.frame = plain(self.news)


class Listener(WebSocketClient):
    """One of a crowd."""

    __slots__ = ("_crowd", "heard")

    def __init__(self, loop: Loop, address: Address, opened: Callable[[], None], crowd: Crowd) -> None:
        self._crowd = crowd
        self.heard = 0
        super().__init__(loop, address, opened)

    def readable(self) -> None:
        data = self.receive(CHUNK)
        if data == self._crowd.frame and not self._parts:
            self._crowd.heard(self, perf_counter())
        else:
            self.take(data, perf_counter())

    def message(self, payload: bytes, now: float) -> None:
        self._crowd.check(payload)
        self._crowd.heard(self, now)
