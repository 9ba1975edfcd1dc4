"""
The cost of metrics: servers with and without them, taking turns.

``python -m benchmarks.metrics`` prints for an ack and for a broadcast the CPU time of a message without
metrics and with them, and the median of the ratios with the quartiles.  Both are processes, by default behind
sockets, as in use; ``--memory`` leaves the sockets out, so that the ratio is larger and varies less.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from twisted.internet.task import Clock

from benchmarks.peers import ENVIRONMENTS, Peer, Running, twistd
from benchmarks.workloads import WORKLOADS, Effort
from tests.memory import Link, clientFrame
from txrealtime import Server, Socket
from txrealtime.monitor.metrics import Metrics

UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Quiet(Link):
    """A connection that forgets what is written."""

    def write(self, data: bytes) -> None:
        pass

    writeSequence = write


def frame(payload: bytes) -> bytes:
    """Make a client's frame."""
    return clientFrame(1, payload, True, 0, b"\0\0\0\0")


@contextmanager
def serving(counted: bool, clients: int) -> Iterator[Callable[[bytes], Any]]:
    """Run a server with clients, and yield the function that receives the first one's bytes."""
    server = Server(reactor=Clock())
    metrics = Metrics(server) if counted else None

    @server.on("echo")
    def echo(socket: Socket, text: str) -> str:
        return text

    @server.on("broadcast")
    def broadcast(socket: Socket, text: str) -> None:
        server.emit("news", text)

    server.startService()
    links = [Quiet().connect(server.webSocketFactory()) for _ in range(clients)]
    for link in links:
        link.deliver(UPGRADE)
        link.deliver(frame(b"40"))
    yield links[0].protocol.dataReceived
    if metrics is not None:
        metrics.stop()
    server.stopService()


def spent(receive: Callable[[bytes], Any], data: bytes, times: int) -> float:
    """Return the CPU seconds of receiving some data again and again."""
    begun = time.process_time()
    for _ in range(times):
        receive(data)
    return time.process_time() - begun


def serve(turns: Any, counted: bool, clients: int, data: bytes, times: int) -> None:
    """Run a server in a process of its own: take turns, until told to end."""
    with serving(counted, clients) as receive:
        gc.collect()
        gc.disable()
        while turns.recv():
            turns.send(spent(receive, data, times))


def measure(name: str, payload: bytes, clients: int, times: int, rounds: int) -> None:
    """
    Measure one kind of message, and print the result.

    Each server has a process: in one, both would share the interpreter's caches of attributes, which suit one
    class of WebSockets or the other.
    """
    context = multiprocessing.get_context("fork")
    servers = []
    for counted in (False, True):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, counted, clients, frame(payload), times))
        process.start()
        servers.append((here, process))
    off, on = [turns for turns, _ in servers]
    without, withThem = [], []
    for number in range(rounds + 2):
        # The order changes, since the first of a pair has the colder caches.
        seconds = {}
        for turns in [off, on] if number % 2 else [on, off]:
            turns.send(True)
            seconds[turns] = turns.recv()
        if number >= 2:
            without.append(seconds[off] / times * 1e6)
            withThem.append(seconds[on] / times * 1e6)
    for turns, process in servers:
        turns.send(False)
        process.join()
    report(name, without, withThem)


def report(name: str, without: Sequence[float], withThem: Sequence[float]) -> None:
    """Print one line."""
    ratios = [one / other for one, other in zip(withThem, without, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    print(
        f"{name:10} without {median(without):7.2f} us, with {median(withThem):7.2f} us, "
        f"ratio {median(ratios):.3f} ({low:.3f} to {high:.3f})",
        flush=True,
    )


def inMemory(rounds: int) -> None:
    """Measure without sockets."""
    text = b"x" * 64
    measure("ack", b'421["echo","' + text + b'"]', 1, 1000, rounds)
    measure("broadcast", b'42["broadcast","' + text + b'"]', 100, 30, rounds)


@dataclass(frozen=True)
class Here(Peer):
    """A server in the environment of this process."""

    def program(self, secure: bool) -> list[str]:
        name, *arguments = self.command
        return [str(Path(sys.executable).with_name(name)), *arguments]


def behindSockets(
    options: Sequence[str],
    given: argparse.Namespace,
    meanwhile: Callable[[Running], AbstractContextManager[None]] = lambda server: nullcontext(),
) -> None:
    """
    Measure servers in processes of their own, without some options of ``twistd realtime`` and with them.

    The two are started anew several times: each start puts a process elsewhere in memory, which alone makes
    a difference of some 5 %.

    :param given: with the numbers of ``starts``, of ``rounds`` and of ``seconds``.
    :param meanwhile: what goes on at the server with the options.
    """
    ENVIRONMENTS.mkdir(exist_ok=True)
    off = Here("without", "without", "", twistd(), ())
    on = replace(off, name="with", title="with", command=(*off.command, *options))
    effort = Effort(rounds=given.rounds, seconds=given.seconds, warm=1.0)
    workloads = [each for each in WORKLOADS if each.name in ("ack", "broadcast")]
    costs: dict[tuple[str, str], list[float]] = {}
    for workload in workloads:
        busy = 0
        for number in range(given.starts):
            peers = [off, on] if number % 2 else [on, off]
            with Running(off) as one, Running(on) as other, meanwhile(other):
                samples = list(workload.run(peers, effort, {off.name: one, on.name: other}))
            for pair in zip(samples[::2], samples[1::2], strict=True):
                for sample in pair:
                    if sample.wrong:
                        raise SystemExit(f"{workload.name}: {sample.wrong}")
                if any(sample.busy for sample in pair):
                    busy += 1
                    continue
                for sample in pair:
                    costs.setdefault((workload.name, sample.peer), []).append(sample.values["cpu"])
        print(f"{workload.name}: the load was too busy in {busy} of {given.starts * given.rounds} turns")
    for workload in workloads:
        report(workload.name, costs[workload.name, off.name], costs[workload.name, on.name])


def addEffort(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`behindSockets`."""
    parser.add_argument("--memory", action="store_true", help="without sockets")
    parser.add_argument("--starts", type=int, default=8, metavar="N", help="starts of both servers")
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="turns of each server at a start")
    parser.add_argument(
        "--seconds", type=float, default=0.15, metavar="S", help="length of a turn with sockets"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    addEffort(parser)
    given = parser.parse_args()
    if given.memory:
        inMemory(given.rounds)
    else:
        behindSockets(["--metrics", "/metrics"], given)


if __name__ == "__main__":
    main()
