"""
Very many idle clients of one server: ``python -m benchmarks.idle``.

Measured are the memory of each WebSocket client, the CPU time of heartbeats, the time until a broadcast is at
the last client, and the cost of an ack, with more and more clients beside.  A process may have only so many
open files (``ulimit -n``); where that is too few for all clients, ``--workers`` has them share the clients.

Of the CPU time, ``own`` is the part in user mode, which is the one to compare between machines where system
calls are slow on one of them.  Slow clients need a slow heartbeat: ``--option=--ping-interval=120``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.crowd import Crowd, OwnServer, mostClients
from benchmarks.load import Loop, Wrong, openAll
from benchmarks.websocket import Asker, Exchange, dumps, masked
from benchmarks.workloads import text

ASKERS = 50
"Clients that ask, beside those that are idle."

ACKS = 15_000
"Acks in one measurement."

OPENING = 600.0


class Beside(Asker):
    """An asker that passes over broadcasts."""

    def message(self, payload: bytes, now: float) -> None:
        if not payload.startswith(b"42"):
            super().message(payload, now)


class Server(OwnServer):
    """A server with its askers."""

    def __enter__(self) -> Server:
        super().__enter__()
        return self

    def open(self) -> None:
        """Wait until it listens, and open the askers."""
        deadline = time.monotonic() + 30
        while not self.queue()[1]:
            if time.monotonic() > deadline:
                raise Wrong("the server does not listen")
            time.sleep(0.1)
        time.sleep(1.0)
        self.loop = Loop()
        self.exchange = Exchange([text(number, 32) for number in range(100)], 1)
        self.exchange.clients = []
        openAll(self.loop, ASKERS, self._asker)

    def _asker(self, opened: Any) -> Asker:
        number = len(self.exchange.clients)
        asker = Beside(self.loop, ("127.0.0.1", self.port), opened, self.exchange, number)
        self.exchange.clients.append(asker)
        return asker

    def acks(self) -> tuple[float, float]:
        """Return microseconds of CPU of an ack, and what of them is own, without heartbeats meanwhile."""
        idle, idleOwn = self.idle(2.0)
        at, done = time.monotonic(), self.exchange.done
        before, beforeOwn = self.cpu(), self.ownTime()
        self.exchange.start()
        while self.exchange.done - done < ACKS:
            self.loop.turn(0.5)
        self.exchange.stop(self.loop)
        passed, done = time.monotonic() - at, self.exchange.done - done
        spent, own = self.cpu() - before - idle * passed, self.ownTime() - beforeOwn - idleOwn * passed
        return spent / done * 1e6, own / done * 1e6

    def idle(self, seconds: float) -> tuple[float, float]:
        """Return the CPU time a second while the askers are silent, and what of it is own."""
        before, beforeOwn, at = self.cpu(), self.ownTime(), time.monotonic()
        self.loop.run(seconds)
        passed = time.monotonic() - at
        return (self.cpu() - before) / passed, (self.ownTime() - beforeOwn) / passed


def measure(server: Server, crowd: Crowd, count: int, resting: float, broadcasts: int) -> dict[str, float]:
    """Open clients up to a number, and measure."""
    began, spent = time.monotonic(), server.cpu()
    have = crowd.tell(f"open {count}")["up"]
    deadline = began + OPENING
    while crowd.tell()["up"] < count:
        server.loop.run(0.1)
        if time.monotonic() > deadline:
            raise Wrong(f"not all are open: {crowd.tell()}")
    opening = (server.cpu() - spent) / max(1, count - have)
    server.loop.run(1.0)
    result = {
        "clients": float(count),
        "open us": opening * 1e6,
        "memory": float(server.memory()),
        "kernel": float(kernelMemory()),
    }
    before, load = crowd.tell()["pings"], crowd.cpu()
    result["idle"], result["idle own"] = server.idle(resting)
    result["heartbeats"] = (crowd.tell()["pings"] - before) / resting
    result["load idle"] = (crowd.cpu() - load) / resting
    result["ack us"], result["ack own us"] = map(median, zip(*(server.acks() for _ in range(3)), strict=True))
    times, costs = [], []
    for number in range(broadcasts):
        crowd.tell("reset")
        before, at = server.cpu(), time.monotonic()
        server.exchange.clients[0].write(masked(b"42" + dumps(["broadcast", {"number": number}])))  # type: ignore[attr-defined]
        while crowd.tell()["messages"] < count:
            server.loop.run(0.02)
        times.append(crowd.tell()["lastMessage"] - at)
        costs.append(server.cpu() - before)
    result["broadcast s"] = min(times)
    result["broadcast us"] = min(costs) / count * 1e6
    return result


KERNEL = ("TCP", "eventpoll_epi", "sock_inode_cache", "filp")
"The kernel's objects of a connection.  Its entry in the cache of names, 192 bytes, is lost among others."


def kernelMemory() -> int:
    """Return the bytes of the kernel's objects of connections, and of the buffers of sockets."""
    total = 0
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        name, active, _, size = line.split()[:4]
        if name in KERNEL:
            total += int(active) * int(size)
    pages = Path("/proc/net/sockstat").read_text().partition("TCP: ")[2].split()
    return total + int(pages[pages.index("mem") + 1]) * machine.PAGE


def show(result: dict[str, float]) -> None:
    """Print the figures of one number of clients."""
    print(
        f"{result['clients']:8,.0f} clients: {result['memory each'] / 1000:5.2f} kB each, "
        f"kernel {result['kernel each'] / 1000:.2f}, "
        f"open {result['open us']:4.0f} us, heartbeats {result['idle each us']:5.2f} us a second each "
        f"({result['heartbeats']:,.0f}/s, own {result['idle own'] / result['clients'] * 1e6:.2f}), "
        f"ack {result['ack us']:5.1f} us (own {result['ack own us']:.1f}), "
        f"broadcast {result['broadcast s']:.3f} s to the last, {result['broadcast us']:.2f} us each",
        flush=True,
    )


def main() -> None:
    """Read the arguments, measure with more and more clients, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle")
    parser.add_argument("--clients", type=int, nargs="*", default=[100, 10_000, 100_000])
    parser.add_argument("--workers", type=int, default=0, help="0 for one process, without a supervisor")
    parser.add_argument(
        "--resting", type=float, default=50.0, help="seconds in which heartbeats are measured"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        help="a further option of twistd realtime, such as --option=--ping-interval=120",
    )
    parser.add_argument("--broadcasts", type=int, default=3)
    parser.add_argument("--json", help="a file for the figures")
    arguments = parser.parse_args()
    most = (mostClients() - ASKERS) * max(1, arguments.workers)
    counts = sorted({min(count, most) for count in arguments.clients})
    results = []
    with Server(workers=arguments.workers, options=arguments.option) as server:
        server.open()
        empty, kernel = server.memory(), kernelMemory()
        with Crowd(server.port, counts[-1], atOnce=400) as crowd:
            crowd.tell("open 0")
            for count in counts:
                result = measure(server, crowd, count, arguments.resting, arguments.broadcasts)
                # Both ends of a connection are on this machine.
                result["kernel each"] = (result["kernel"] - kernel) / count / 2
                result["memory each"] = (result["memory"] - empty) / count
                result["idle each us"] = result["idle"] / count * 1e6
                results.append(result)
                show(result)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"machine": machine.describe(), "workers": arguments.workers, "results": results}, file)


if __name__ == "__main__":
    main()
