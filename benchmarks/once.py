"""
The cost of ``once``: CPU time of the server for each event, without it, in memory, and in a Redis.

::

    python -m benchmarks.once [redis://localhost]

The forms take turns in one process, and each event has a key of its own.  ``repeated`` events have the ack
already.  The client is in memory and in the same process: its part is in all figures, the first line's too.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from txrealtime import Namespace, once
from txrealtime.cluster.results import RedisResults
from txrealtime.testing import Client, makeServer

EVENTS = 500
ROUNDS = 7
PAUSE = 0.002
"Seconds between two looks for acks."


class Turn:
    """A server with or without the middleware, and a client of it."""

    def __init__(self, middleware: Any = None) -> None:
        self.server = makeServer(reactor=reactor)
        self.server.mount("/", Namespace(concurrency=None))
        if middleware is not None:
            self.server.use(middleware)
        self.server.on("order")(lambda socket, key, text: text)
        self.client = Client(self.server)
        self.client.connect()
        self.took: list[float] = []
        self.repeated: list[float] = []
        self.number = 0

    async def measure(self) -> None:
        for times in self.took, self.repeated:
            began = time.process_time()
            acks: list[Deferred[Any]] = [
                self.client.call("order", f"{self.number}-{each}", "x" * 50) for each in range(EVENTS)
            ]
            while not all(ack.called for ack in acks):
                self.client.flush()
                await _turned()
            await gatherResults(acks)
            times.append((time.process_time() - began) / EVENTS * 1e6)
        self.number += 1


def _turned() -> Deferred[None]:
    """Let the reactor do its work."""
    turned: Deferred[None] = Deferred()
    reactor.callLater(PAUSE, turned.callback, None)  # type: ignore[attr-defined]
    return turned


async def main() -> None:
    turns = {"without": Turn(), "in memory": Turn(once("order", key=0))}
    stores = [RedisResults(url, f"once-benchmark:{time.time()}:") for url in sys.argv[1:]]
    for url, store in zip(sys.argv[1:], stores, strict=True):
        turns[url] = Turn(once("order", key=0, store=store, seconds=60))
    for _ in range(ROUNDS):
        for turn in turns.values():
            await turn.measure()
    print(f"us of CPU time for each event, the median of {ROUNDS} turns of {EVENTS} events")
    for name, turn in turns.items():
        print(f"{name:30} first {median(turn.took):7.1f}   repeated {median(turn.repeated):7.1f}")
        turn.client.close()
        await turn.server.stopService()
    for store in stores:
        store.close()


if __name__ == "__main__":
    react(lambda _: Deferred.fromCoroutine(main()))
