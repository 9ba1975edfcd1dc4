"""
The AsyncClient of python-socketio, for ``python -m benchmarks.clients``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from typing import Any

import socketio

URL = os.environ["URL"]
PAYLOAD = "x" * 64
PAGE = os.sysconf("SC_PAGE_SIZE")


def memory() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


async def connected() -> Any:
    client = socketio.AsyncClient()
    await client.connect(URL, transports=["websocket"])
    return client


class Bench:
    """One command after the other."""

    async def main(self) -> None:
        self.client = await connected()
        self.client.on("news", self.news)
        self.idlers: list[Any] = []
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name, *args = json.loads(line)
            before = time.process_time()
            more = await getattr(self, name)(*args)
            print(json.dumps({"cpu": time.process_time() - before, **(more or {})}), flush=True)

    def news(self, payload: str) -> None:
        self.left -= 1
        if not self.left:
            self.done.set_result(None)

    async def acks(self, count: int, window: int) -> None:
        await asyncio.gather(*[self.ask(count // window) for _ in range(window)])

    async def ask(self, count: int) -> None:
        for _ in range(count):
            await self.client.call("echo", PAYLOAD)

    async def events(self, count: int, chunk: int) -> None:
        self.left, self.done = count, asyncio.get_running_loop().create_future()
        await self.client.emit("stream", (PAYLOAD, count, chunk))
        await self.done

    async def answers(self, count: int, chunk: int) -> None:
        for _ in range(count // chunk):
            await self.events(chunk, chunk)

    async def idle(self, count: int) -> dict[str, Any]:
        before = memory()
        for _ in range(count // 50):
            self.idlers += await asyncio.gather(*[connected() for _ in range(50)])
        return {"memory": memory() - before}

    async def stay(self, seconds: int) -> dict[str, Any]:
        await asyncio.sleep(seconds)
        return {"connected": sum(client.connected for client in self.idlers)}


asyncio.run(Bench().main())
