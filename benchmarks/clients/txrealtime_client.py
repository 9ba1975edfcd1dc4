"""
The client of txrealtime, for ``python -m benchmarks.clients``: reads commands, and prints a line for each.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

if os.environ.get("REACTOR") == "quickepoll":
    from txrealtime.reactor import install

    install()

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver

from txrealtime.client import Client

URL = os.environ["URL"]
PAYLOAD = "x" * 64
PAGE = os.sysconf("SC_PAGE_SIZE")


def memory() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def make() -> Client:
    client = Client(URL, transports=["websocket"], reactor=reactor)
    client.startService()
    return client


class Bench(LineReceiver):
    """One command after the other."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self.client = make()
        self.idlers: list[Client] = []
        self.left = 0
        self.done: Deferred[None] = Deferred()
        self.client.on("news")(self.news)

    def news(self, payload: str) -> None:
        self.left -= 1
        if not self.left:
            self.done.callback(None)

    def lineReceived(self, line: bytes) -> None:
        Deferred.fromCoroutine(self.command(*json.loads(line))).addErrback(print, file=sys.stderr)

    async def command(self, name: str, *args: int) -> None:
        await self.client.whenConnected()
        before = time.process_time()
        more = await getattr(self, name)(*args)
        result = {"cpu": time.process_time() - before, **(more or {})}
        print(json.dumps(result), flush=True)

    async def acks(self, count: int, window: int) -> None:
        await gatherResults([Deferred.fromCoroutine(self.ask(count // window)) for _ in range(window)])

    async def ask(self, count: int) -> None:
        for _ in range(count):
            await self.client.call("echo", PAYLOAD)

    async def events(self, count: int, chunk: int) -> None:
        self.left, self.done = count, Deferred()
        self.client.emit("stream", PAYLOAD, count, chunk)
        await self.done

    async def answers(self, count: int, chunk: int) -> None:
        for _ in range(count // chunk):
            await self.events(chunk, chunk)

    async def idle(self, count: int) -> dict[str, Any]:
        before = memory()
        for _ in range(count // 50):
            some = [make() for _ in range(50)]
            await gatherResults([client.whenConnected() for client in some])
            self.idlers += some
        return {"memory": memory() - before}

    async def stay(self, seconds: int) -> dict[str, Any]:
        done: Deferred[None] = Deferred()
        reactor.callLater(seconds, done.callback, None)  # type: ignore[attr-defined]
        await done
        return {"connected": sum([client.connected for client in self.idlers])}


StandardIO(Bench())
reactor.run()  # type: ignore[attr-defined]
