"""
The cost of history: ``python -m benchmarks.history``.

All clients are in memory, and times are CPU times of this process.  Servers with history and without take
turns, and each figure is the median of the rounds.
"""

from __future__ import annotations

import gc
import tracemalloc
from statistics import median

from benchmarks.recovery import TEXT, Sink, serve, spent
from txrealtime import Server

ROUNDS = 7
EMITS = 2000
READS = 300
KEPT = 100
REWIND = 20
ROOM = "red"


class Turn:
    """A server with or without history, and the members of its room."""

    def __init__(self, keeps: bool, members: int) -> None:
        self.server, self.links = serve(0, members)
        if keeps:
            self.server.keepHistory(events=KEPT)
        for socket in self.server.namespace().sockets.values():
            socket.join(ROOM)
        self.times: list[float] = []

    def emit(self, count: int = EMITS) -> None:
        for _ in range(count):
            self.server.to(ROOM).emit("said", TEXT)


def emits(members: int) -> None:
    """Print the time of an emit to a room with some members, with history and without."""
    count = max(EMITS // max(members // 10, 1), 20)
    turns = {"off": Turn(False, members), "on": Turn(True, members)}
    for turn in turns.values():
        turn.emit(2 * KEPT)
    for _ in range(ROUNDS):
        for turn in turns.values():
            turn.times.append(spent(lambda turn=turn: turn.emit(count)) / count * 1e6)  # type: ignore[misc]
    off, on = (median(turn.times) for turn in turns.values())
    print(
        f"emit to a room of {members:4}   off {off:8.2f} us   on {on:8.2f} us   +{on - off:.2f} us",
        flush=True,
    )


def memory(size: int) -> None:
    """Print the memory of a kept event, and the server's own count of it."""
    server, _ = serve(0, 0)
    server.keepHistory(events=10_000, bytes=1 << 30)
    gc.collect()
    tracemalloc.start()
    for number in range(5000):
        server.to(ROOM).emit("said", f"{number:0{size}}")
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    history = server.namespace()._history
    assert history is not None
    print(f"event of {size:5} characters    {used / 5000:8.0f} bytes, counted as {history.bytes / 5000:.0f}")


def joins() -> None:
    """Print the times of joins with the past and without, and of reading it."""
    server, links = Turn(True, 0).server, list[Sink]()
    for _ in range(KEPT):
        server.to(ROOM).emit("said", TEXT)
    works = {
        "join": lambda: rejoin(server, None),
        f"join, rewind={REWIND}": lambda: rejoin(server, REWIND),
        f"join, rewind={KEPT}": lambda: rejoin(server, KEPT),
        f"history({REWIND})": lambda: read(server, REWIND),
        f"history({KEPT})": lambda: read(server, KEPT),
    }
    from benchmarks.recovery import connect

    links.append(connect(server))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(spent(work) / READS * 1e6)
    for name, took in times.items():
        print(f"{name:24} {median(took):8.1f} us")


def rejoin(server: Server, rewind: int | None) -> None:
    """Let the client join and leave."""
    (socket,) = server.namespace().sockets.values()
    for _ in range(READS):
        if rewind is None:
            socket.join(ROOM)
        else:
            socket.join(ROOM, rewind=rewind)
        socket.leave(ROOM)


def read(server: Server, last: int) -> None:
    for _ in range(READS):
        server.to(ROOM).history(last)


def main() -> None:
    """Measure and print."""
    for members in 0, 1, 10, 100:
        emits(members)
    for size in 64, 1000:
        memory(size)
    joins()


if __name__ == "__main__":
    main()
