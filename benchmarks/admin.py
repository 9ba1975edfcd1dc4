"""
The cost of the admin UI: servers without it, and with it while somebody looks, taking turns.

``python -m benchmarks.admin`` prints for an ack and for a broadcast the CPU time of a message without
``--admin``, and with it while a client of the UI is connected, and the median of the ratios with the
quartiles.  By default both are processes behind sockets, as in use; ``--memory`` leaves the sockets out, so
that the ratio is larger.  ``--development`` has each event told to the UI too.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.task import Clock

from benchmarks.metrics import UPGRADE, Quiet, addEffort, behindSockets, frame, report
from benchmarks.peers import Running
from txrealtime import Server, Socket
from txrealtime.monitor.admin.admin import Admin


@contextmanager
def serving(administered: bool, development: bool, clients: int) -> Iterator[Callable[[bytes, int], float]]:
    """Run a server with clients; yield a function that has the first one send data, and returns the time."""
    clock = Clock()
    server = Server(reactor=clock, pingInterval=3600, pingTimeout=3600)
    admin = Admin(server, None, development=development) if administered else None

    @server.on("echo")
    def echo(socket: Socket, text: str) -> str:
        return text

    @server.on("broadcast")
    def broadcast(socket: Socket, text: str) -> None:
        server.emit("news", text)

    server.startService()
    if admin is not None:
        admin.start()
        operator = Quiet().connect(server.webSocketFactory())
        operator.deliver(UPGRADE)
        operator.deliver(frame(b"40/admin,"))
        assert server.namespace("/admin").sockets
    links = [Quiet().connect(server.webSocketFactory()) for _ in range(clients)]
    for link in links:
        link.deliver(UPGRADE)
        link.deliver(frame(b"40"))
    receive = links[0].protocol.dataReceived

    def spent(data: bytes, times: int) -> float:
        begun = time.process_time()
        for _ in range(times):
            receive(data)
        # Time for the statistics: as much as has passed.
        clock.advance(time.process_time() - begun)
        return time.process_time() - begun

    yield spent
    if admin is not None:
        admin.stop()
    server.stopService()


def measure(name: str, payload: bytes, development: bool, clients: int, times: int, rounds: int) -> None:
    """Measure one kind of message, and print the result."""
    data = frame(payload)
    with serving(False, False, clients) as off, serving(True, development, clients) as on:
        gc.collect()
        gc.disable()
        costs: dict[Any, list[float]] = {off: [], on: []}
        for number in range(rounds + 2):
            # The order changes, since the first of a pair has the colder caches.
            for spent in [off, on] if number % 2 else [on, off]:
                seconds = spent(data, times)
                if number >= 2:
                    costs[spent].append(seconds / times * 1e6)
        gc.enable()
    report(name, costs[off], costs[on])


def inMemory(development: bool, rounds: int) -> None:
    """Measure in this process."""
    text = b"x" * 64
    measure("ack", b'421["echo","' + text + b'"]', development, 1, 1000, rounds)
    measure("broadcast", b'42["broadcast","' + text + b'"]', development, 100, 30, rounds)


@contextmanager
def _looking(server: Running) -> Iterator[None]:
    """Have a client of the UI connected."""
    host, port = server.address
    command = [sys.executable, "-m", "txrealtime", "listen", f"http://{host}:{port}", "--namespace", "/admin"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()  # it has been told something
        # A full pipe would stop the client.
        threading.Thread(target=client.stdout.read, daemon=True).start()
        try:
            yield
        finally:
            client.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admin", description=__doc__)
    addEffort(parser)
    parser.add_argument("--development", action="store_true", help="the UI is told of each event")
    given = parser.parse_args()
    if given.memory:
        inMemory(given.development, given.rounds)
    else:
        mode = "development" if given.development else "production"
        behindSockets(["--admin", "--admin-auth", "none", "--admin-mode", mode], given, _looking)


if __name__ == "__main__":
    main()
