"""
The CPU time of several Redis servers for each event: ``python -m benchmarks.spread``.

One publisher and three subscribers share 400 rooms, over one, two and four Redis servers in turn.  A Redis
uses one core, so the busiest one decides how many events go through.  Events come in bursts of 20 for each:
each has the same load, as in a system that has more of them because it needs them.  The load's own time is
printed too, as the servers choose the owner of each topic.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from statistics import median
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from benchmarks import machine
from benchmarks.peers import freePort
from txrealtime.cluster.bus.spread import Buses, Spread
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.cluster.link.links import Links

COUNTS = (1, 2, 4)
ROOMS = 400
SUBSCRIBERS = 3
BURST = 20
PAYLOAD = b"x" * 200

reactor: Any = installed


async def measure(ports: list[int], pids: list[int], events: int) -> tuple[float, float, float]:
    """Return the CPU time for each event in microseconds: of all brokers, the busiest one, and the load."""
    urls = [f"redis://127.0.0.1:{port}" for port in ports]
    spread = Spread(urls, "bench")
    every = [Links(Buses(spread, [busFromURL(url) for url in urls]), reactor) for _ in range(1 + SUBSCRIBERS)]
    topics = [f"bench,/,room {number}" for number in range(ROOMS)]
    heard = 0

    def count(topic: str, payload: bytes) -> None:
        nonlocal heard
        heard += 1

    for links in every[1:]:
        for topic in topics:
            links.subscribe(topic, count)
    for links in every:
        links.start()
        await links.whenReady()
    speaker, burst = every[0], BURST * len(ports)
    before, mine = [machine.cpuTime(pid) for pid in pids], time.process_time()
    for first in range(0, events, burst):
        for number in range(first, first + burst):
            speaker.publish(topics[number * 7 % ROOMS], PAYLOAD)
        while heard < (first - 20 * burst) * SUBSCRIBERS:
            await deferLater(reactor, 0.0005)
    while heard < events * SUBSCRIBERS:
        await deferLater(reactor, 0.0005)
    mine = time.process_time() - mine
    spent = [machine.cpuTime(pid) - was for pid, was in zip(pids, before, strict=True)]
    for links in every:
        await links.stop()
    return sum(spent) / events * 1e6, max(spent) / events * 1e6, mine / events * 1e6


async def main(_: Any, events: int, rounds: int) -> None:
    """Measure with each number of brokers in turn, and print the medians."""
    ports = [freePort() for _ in range(max(COUNTS))]
    redises = [
        subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        for port in ports
    ]
    samples: dict[int, list[tuple[float, float, float]]] = {count: [] for count in COUNTS}
    try:
        await deferLater(reactor, 0.5)
        for _ in range(rounds):
            for count in COUNTS:
                pids = [redis.pid for redis in redises[:count]]
                samples[count].append(await measure(ports[:count], pids, events))
    finally:
        for redis in redises:
            redis.kill()
            redis.wait()
    print("Redis servers   all of them   the busiest   events a core   the load")
    for count, values in samples.items():
        every, busiest, load = (median(each) for each in zip(*values, strict=True))
        print(f"{count:13} {every:10.2f} us {busiest:10.2f} us {1e6 / busiest:13,.0f}/s {load:7.2f} us")


def run() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spread")
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, arguments.events, arguments.rounds)))


if __name__ == "__main__":
    run()
