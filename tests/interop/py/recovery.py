"""Clients of python-socketio for the recovery tests: they get no offset, and are never recovered.

python recovery.py URL COUNT
"""

import asyncio
import json
import logging
import random
import signal
import sys

import aiohttp
import socketio

URL, COUNT = sys.argv[1], int(sys.argv[2])
TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]]
totals = {"connects": 0, "recovered": 0, "fresh": 0, "events": 0, "missing": 0, "double": 0, "disordered": 0}

for name in ("asyncio", "engineio.client"):
    logging.getLogger(name).setLevel(logging.CRITICAL)


def report(**line):
    print(json.dumps(line), flush=True)


async def live(index):
    while True:
        await Client(TRANSPORTS[index % 3]).live()
        await asyncio.sleep(random.uniform(0.1, 0.5))


class Client:
    def __init__(self, transports):
        self.transports = transports
        self.expected = None
        self.gone = asyncio.Event()
        # aiohttp would send a GET again by itself whose response was lost, and its messages would be missing.
        self.http = aiohttp.ClientSession()
        self.http._retry_connection = False
        self.socket = socketio.AsyncClient(reconnection=False, http_session=self.http)
        # Each handler takes the arguments that the server gave, and not one more.
        self.socket.on("begin", self.begin)
        self.socket.on("all", lambda number, server: self.got("all", number))
        self.socket.on("even", lambda number, server: self.got("even", number))
        self.socket.on("tick", self.tick)
        self.socket.on("volatile", lambda text: None)
        self.socket.on("disconnect", lambda reason: self.gone.set())

    async def live(self):
        async with self.http:
            await self.liveOn()

    async def liveOn(self):
        try:
            await self.socket.connect(URL, transports=self.transports, wait_timeout=8)
        except (socketio.exceptions.ConnectionError, OSError, TimeoutError):
            return
        totals["connects"] += 1
        try:
            await asyncio.wait_for(self.gone.wait(), random.uniform(2, 8))
        except TimeoutError:
            await self.socket.disconnect()

    def begin(self, all, even, server):
        self.expected = {"all": all, "even": even, "tick": 0}

    def tick(self, number, server, data=None):
        if data is not None and not isinstance(data, bytes):
            report(violation=f"python-socketio: an offset, {data!r}")
        self.got("tick", number)

    def got(self, name, number):
        totals["events"] += 1
        if self.expected is None or number != self.expected[name]:
            expected = number if self.expected is None else self.expected[name]
            totals["missing"] += max(0, number - expected)
            totals["double"] += number < expected
            report(violation=f"python-socketio: {name} {number}, expected {self.expected}")
        else:
            self.expected[name] = number + 1


async def main():
    lives = [asyncio.create_task(live(index)) for index in range(COUNT)]
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    for each in lives:
        each.cancel()
    await asyncio.wait(lives, timeout=5)
    report(totals=totals)


asyncio.run(main())
