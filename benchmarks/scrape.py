"""
The cost of a scrape: the metrics of a server with 10,000 sessions and 1,000 registered events.

``python -m benchmarks.scrape`` prints for some scrapes the CPU time of a page, and the longest time that the
reactor was held.  The sessions are in memory, and each event was handled ten times.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from prometheus_client import REGISTRY
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from txrealtime import Server
from txrealtime.monitor.metrics import Metrics, Pages
from txrealtime.testing import Client


class Turns:
    """
    A watch over the turns of the reactor.

    :ivar longest: the longest turn, in CPU seconds of the reactor's thread.
    """

    def __init__(self, reactor: Any) -> None:
        self.longest = 0.0
        self._reactor = reactor
        self._last = time.thread_time()
        self._call = reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._call = self._reactor.callLater(0, self._turn)

    def stop(self) -> None:
        """Watch no more."""
        self._call.cancel()


def prepare(reactor: Any, sessions: int, events: int) -> tuple[Metrics, list[Client]]:
    """Make a server with clients that have sent all events."""
    server = Server(reactor=reactor)
    metrics = Metrics(server)
    for number in range(events):
        server.on(f"event {number}")(lambda socket: "yes")
    server.startService()
    clients = []
    for number in range(sessions):
        client = Client(server)
        client.connect("/")
        client.emit(f"event {number % events}")
        clients.append(client)
    return metrics, clients


async def measure(reactor: Any, sessions: int, events: int, scrapes: int) -> None:
    """Measure, and print a line for each scrape."""
    metrics, clients = prepare(reactor, sessions, events)
    pages = Pages(reactor)
    for number in range(scrapes):
        await deferLater(reactor, 0.1)
        begun = time.process_time()
        _, body = await pages.make("", metrics.read(), REGISTRY)
        spent = time.process_time() - begun
        # Another page, since the watch takes turns of its own.
        turns = Turns(reactor)
        await pages.make("", metrics.read(), REGISTRY)
        turns.stop()
        print(
            f"scrape {number + 1}: {len(clients)} sessions, {events} events, {len(body)} bytes: "
            f"{spent * 1000:.1f} ms of CPU time, the reactor held for {turns.longest * 1000:.1f} ms at most",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scrape", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000, metavar="N")
    parser.add_argument("--events", type=int, default=1000, metavar="N")
    parser.add_argument("--scrapes", type=int, default=5, metavar="N")
    given = parser.parse_args()
    react(
        lambda reactor: Deferred.fromCoroutine(measure(reactor, given.sessions, given.events, given.scrapes))
    )


if __name__ == "__main__":
    main()
