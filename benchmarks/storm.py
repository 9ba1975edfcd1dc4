"""
A server that restarts under its clients: ``python -m benchmarks.storm``.

All clients lose their connection at once, and come back with the delays of socket.io-client.  Measured are
the time until each has its room again, the CPU time and the memory of the server, the accept queue, and
refusals.  The server is killed, and started again after ``--after`` seconds; its clients share the machine.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks.crowd import Crowd, OwnServer, kernelCounts, mostClients
from benchmarks.load import Wrong
from benchmarks.peers import freePort

OPENING, RETURNING = 300.0, 300.0
"Seconds that the clients have to open, and to come back."


def storm(clients: int, workers: int, after: float) -> dict[str, Any]:
    """Kill a server with these clients, start the next one, and return what was measured."""
    most = mostClients() * max(1, workers)
    if clients > most:
        raise Wrong(f"{clients} clients: the limit of open files (ulimit -n) lets {most} in")
    port = freePort()
    with OwnServer(port, workers) as first, Crowd(port, clients) as crowd:
        crowd.until("up", clients, OPENING)
        crowd.tell("reset")
        first.kill()
        killed = time.monotonic()
        time.sleep(after)
        kernel = kernelCounts()
        with OwnServer(port, workers) as server:
            loadBefore = crowd.cpu()
            queue = limit = listening = 0
            curve: list[tuple[float, int]] = []
            deadline = time.monotonic() + RETURNING
            while True:
                counts = crowd.tell()
                waiting, most = server.queue()
                if most and not listening:
                    listening = round((time.monotonic() - killed) * 1000)
                queue, limit = max(queue, waiting), most or limit
                curve.append((time.monotonic() - killed, counts["up"]))
                if counts["up"] == clients:
                    break
                if time.monotonic() > deadline:
                    raise Wrong(f"{counts['up']} of {clients} are back after {RETURNING:g} s: {counts}")
                time.sleep(0.05)
            drops = {name: count - kernel[name] for name, count in kernelCounts().items()}
            return {
                "listening after": listening / 1000,
                "all back after": counts["lastUp"] - killed,
                "half of them": next(at for at, up in curve if up >= clients / 2),
                "half away for": counts["half"],
                "99 % away for": counts["most"],
                "slowest": counts["slowest"],
                "server CPU": server.cpu(),
                "load CPU": crowd.cpu() - loadBefore,
                "peak memory": server.peak(),
                "accept queue": queue,
                "its limit": limit,
                "overflows": drops["ListenOverflows"],
                "refused": counts["refused"],
                "connections failed": counts["failed"],
                "given up after 20 s": counts["late"],
            }


def show(title: str, result: dict[str, Any]) -> None:
    """Print a result, one line for each figure."""
    print(title)
    for name, value in result.items():
        if name == "peak memory":
            text = f"{value / 1e6:,.0f} MB"
        elif isinstance(value, float):
            text = f"{value:.2f} s"
        else:
            text = f"{value:,}"
        print(f"  {name:22} {text:>12}")


def main() -> None:
    """Read the arguments, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm")
    parser.add_argument("--clients", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="0 for none")
    parser.add_argument("--after", type=float, default=1.0, help="seconds until the next server is started")
    arguments = parser.parse_args()
    for workers in arguments.workers:
        clients = min(arguments.clients, mostClients() * max(1, workers))
        title = f"{clients:,} clients, {workers or 'no'} workers"
        show(title, storm(clients, workers, arguments.after))


if __name__ == "__main__":
    main()
