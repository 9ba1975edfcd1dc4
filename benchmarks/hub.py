"""
The CPU time of the hub for each publish: ``python -m benchmarks.hub``.

The hub has one core, and the publisher and its four subscribers another. A publish has 200 bytes. It comes
alone, after the one before has arrived everywhere, or many are on their way, as under load: to one room, or
to 16 rooms in turn.
"""

from __future__ import annotations

import argparse
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import machine
from txrealtime.cluster.bus import hubframes
from txrealtime.cluster.bus.hubframes import frame

SERVE = """
import sys
from twisted.internet import reactor
from txrealtime.workers.hub import Hub
Hub(sys.argv[1], reactor).startService()
print("up", flush=True)
reactor.run()
"""

ROUNDS = 5
COUNT = 20_000

WINDOW = 200_000
"Bytes on their way at a time: a server leaves 256 kB with its hub unconfirmed."

TOPICS = [b"txrealtime,/,room%d" % number for number in range(16)]


def connect(path: str) -> socket.socket:
    """Connect, and greet."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(frame(hubframes.HELLO, b"%d" % connection.fileno(), hubframes.VERSION))
    receive(connection, len(frame(hubframes.HELLO, b"", hubframes.VERSION)))
    return connection


def receive(connection: socket.socket, size: int) -> None:
    """Receive some bytes, and throw them away."""
    while size > 0:
        size -= len(connection.recv(size))


def publish(
    publisher: socket.socket,
    subscribers: list[socket.socket],
    count: int,
    at: int,
    window: int,
    topics: list[bytes],
) -> None:
    """
    Publish messages, `at` in one write, and wait until all have arrived.

    :param window: bytes that may be on their way to a subscriber.
    :param topics: the topics, which take turns.
    """
    messages = [frame(hubframes.PUBLISH, topic, bytes(200)) for topic in topics] * at
    writes = [b"".join(messages[place : place + at]) for place in range(0, len(messages), at)]
    left = dict.fromkeys(subscribers, 0)

    def arrive(limit: int) -> None:
        while max(left.values()) > limit:
            for readable in select.select([*subscribers, publisher], [], [])[0]:
                received = len(readable.recv(1 << 20))
                if readable is not publisher:
                    left[readable] -= received

    for number in range(count // at):
        data = writes[number % len(writes)]
        publisher.sendall(data)
        for subscriber in subscribers:
            left[subscriber] += len(data)
        arrive(window)
    arrive(0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub")
    parser.add_argument("--subscribers", type=int, default=4)
    for shown, cost in measureHub(parser.parse_args().subscribers):
        print(f"{shown:50} {cost:6.2f} us of the hub's CPU for a publish")


def measureHub(count: int) -> list[tuple[str, float]]:
    """Return the CPU time of a hub for a publish to some subscribers in microseconds, for several loads."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/hub"
        hub = subprocess.Popen(
            [sys.executable, "-c", SERVE, path],
            stdout=subprocess.PIPE,
            preexec_fn=machine.toServerCore,
        )
        try:
            assert hub.stdout is not None and hub.stdout.readline() == b"up\n"
            machine.toLoadCore()
            return list(measure(path, hub.pid, count))
        finally:
            hub.kill()
            hub.wait()


def measure(path: str, process: int, count: int) -> Iterator[tuple[str, float]]:
    """Yield the CPU time of the hub for a publish to `count` subscribers, load by load."""
    subscribers = [connect(path) for _ in range(count)]
    for subscriber in subscribers:
        for topic in TOPICS:
            subscriber.sendall(frame(hubframes.SUBSCRIBE, topic))
            receive(subscriber, len(frame(hubframes.CONFIRM, b"", hubframes.number(1))))
    publisher = connect(path)
    for total, at, window, topics, shown in (
        (COUNT // 10, 1, 0, TOPICS[:1], "each alone"),
        (COUNT, 1, WINDOW, TOPICS[:1], "many to a room, one in a write"),
        (COUNT, 10, WINDOW, TOPICS[:1], "many to a room, ten in a write"),
        (COUNT, 1, WINDOW, TOPICS, "many to many rooms, one in a write"),
        (COUNT, 10, WINDOW, TOPICS, "many to many rooms, ten in a write"),
    ):
        costs = []
        for _ in range(ROUNDS):
            before = cpuOf(process)
            publish(publisher, subscribers, total, at, window, topics)
            costs.append((cpuOf(process) - before) / total / 1000)
        yield f"{count} subscribers, {shown}", median(costs)


def cpuOf(process: int) -> int:
    """Return the CPU time of a process's main thread in nanoseconds."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0])


if __name__ == "__main__":
    main()
