"""
The cost of recovery: ``python -m benchmarks.recovery``.

All clients are in memory, and times are CPU times of this process.  Servers with recovery and without take
turns, and each figure is the median of the rounds.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from statistics import median
from typing import Any

from twisted.internet.task import Clock

from tests.memory import Link, clientFrame
from txrealtime import Server, Socket

CLIENTS = 1000
EVENTS = 1000
ROUNDS = 7
EMITS = 50
ACKS = 2000
TEXT = "x" * 64

OPEN = (
    b"GET /socket.io/?EIO=4&transport=websocket&recover=1 HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Sink(Link):
    """A connection that keeps nothing of what is written."""

    def write(self, data: bytes) -> None:
        self.written = getattr(self, "written", 0) + len(data)
        self.last = data


def serve(window: float, clients: int) -> tuple[Server, list[Sink]]:
    """Start a server with some clients."""
    server = Server(reactor=Clock(), recoveryWindow=window, recoveryBytes=1 << 30, recoverySessions=100_000)

    @server.on("echo")
    def echo(socket: Socket, text: str) -> str:
        return text

    server.startService()
    return server, [connect(server) for _ in range(clients)]


def connect(server: Server, auth: str = "") -> Sink:
    link = Sink()
    link.connect(server.webSocketFactory())
    link.deliver(OPEN)
    link.deliver(clientFrame(1, b"40" + auth.encode()))
    return link


def spent(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of some work."""
    gc.collect()
    gc.disable()
    before = time.process_time()
    work()
    after = time.process_time()
    gc.enable()
    return after - before


def compare(what: str, unit: float, work: Callable[[Server, list[Sink]], Any], clients: int) -> None:
    """Do the same with recovery and without, in turns, and print both times for one unit of it."""
    servers = {"off": serve(0, clients), "on": serve(120, clients)}
    times: dict[str, list[float]] = {"off": [], "on": []}
    for _ in range(ROUNDS):
        for name, (server, links) in servers.items():
            times[name].append(spent(lambda server=server, links=links: work(server, links)) / unit)
    off, on = median(times["off"]), median(times["on"])
    print(f"{what:44} off {off * 1e6:9.2f} us   on {on * 1e6:9.2f} us   {on / off:.3f} x", flush=True)


def emitAll(server: Server, links: list[Sink]) -> None:
    for _ in range(EMITS):
        server.emit("news", TEXT)


def emitOne(server: Server, links: list[Sink]) -> None:
    for socket in list(server.namespace().sockets.values())[:EVENTS]:
        socket.emit("news", TEXT)


def acks(server: Server, links: list[Sink]) -> None:
    frame = clientFrame(1, b'421["echo","' + TEXT.encode() + b'"]')
    for _ in range(ACKS):
        links[0].deliver(frame)


def replay() -> None:
    """Print the time of the return of clients that missed many events."""
    server, links = serve(120, CLIENTS)
    tickets = list(server.namespace()._recovery.tickets)  # type: ignore[union-attr]
    for link in links:
        link.lose()
    for number in range(EVENTS):
        server.emit("news", number, TEXT)
    back: list[Sink] = []
    used = spent(lambda: back.extend(connect(server, f'{{"pid":"{pid}"}}') for pid in tickets))
    fresh = spent(lambda: [connect(server) for _ in tickets])
    sent = sum(link.written for link in back)
    print(
        f"{CLIENTS} clients come back and get {EVENTS} events each: {used:.2f} s, {sent / 1e6:.0f} MB; "
        f"{(used - fresh) / CLIENTS / EVENTS * 1e9:.0f} ns an event; as fresh clients {fresh:.2f} s"
    )


def memory() -> None:
    """Print the memory of a client that is away, and of an event that is kept."""
    server, links = serve(120, 2)
    for link in [connect(server) for _ in range(CLIENTS)]:
        links.append(link)
    server.emit("warm")
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(EVENTS):
        server.emit("news", number, TEXT)
    gc.collect()
    kept = (tracemalloc.get_traced_memory()[0] - before) / EVENTS
    store = server._namespaces.parking.store  # type: ignore[union-attr]
    counted = store.bytes / store.count
    print(f"an event of 64 characters that is kept: {kept:.0f} bytes; counted as {counted:.0f}")
    tracemalloc.stop()
    tracemalloc.start()
    server, _ = serve(120, 0)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    more = [connect(server) for _ in range(CLIENTS)]
    for link in more:
        link.lose()
    more.clear()
    server.reactor.advance(60)  # type: ignore[attr-defined]
    gc.collect()
    away = (tracemalloc.get_traced_memory()[0] - before) / CLIENTS
    print(f"a client that is away: {away:.0f} bytes")
    tracemalloc.stop()


def main() -> None:
    compare(f"emit to {CLIENTS}, for each receiver", EMITS * CLIENTS, emitAll, CLIENTS)
    compare("emit to one", EVENTS, emitOne, CLIENTS)
    compare("an event and its ack", ACKS, acks, 1)
    replay()
    memory()


if __name__ == "__main__":
    sys.exit(main())
