"""A crowd of python-socketio's clients for the soak: as crowd.cjs, with what they have.

python crowd.py URL COUNT SEED
"""

import asyncio
import json
import logging
import random
import signal
import sys
from collections import Counter

import aiohttp
import socketio

URL, COUNT, SEED = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

ROOMS = 20
PATIENCE = 40.0
EVERY = 3.0
TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]]

# What aiohttp says of a session that was cancelled is not of the server.
for name in ("asyncio", "engineio.client"):  # what they have to say of a faulty network
    logging.getLogger(name).setLevel(logging.CRITICAL)

choices = random.Random(SEED)
totals = {"connects": 0, "ticks": 0, "told": 0, "acks": 0}
ends = Counter()


def report(**line):
    print(json.dumps(line), flush=True)


def violated(what):
    report(violation=f"python-socketio: {what}")


async def live(index):
    """One connection after the other."""
    await asyncio.sleep(choices.uniform(0, 5))
    while True:
        await Client(TRANSPORTS[index % 3]).live()
        await asyncio.sleep(choices.uniform(0.5, 3.5))


class Client:
    """One connection."""

    def __init__(self, transports):
        self.transports = transports
        self.ticks = self.says = self.acks = 0
        self.rooms = {}
        self.pending = set()
        self.gone = asyncio.Event()
        # A GET whose answer was lost with its connection, aiohttp would send again by itself: the messages in
        # that answer would be missing, and neither the server nor python-socketio know of it.
        self.http = aiohttp.ClientSession()
        self.http._retry_connection = False
        self.socket = socketio.AsyncClient(reconnection=False, http_session=self.http)
        self.socket.on("tick", self.tick)
        self.socket.on("told", self.told)
        self.socket.on("question", lambda number: number + 1)
        self.socket.on("disconnect", self.disconnected)

    async def live(self):
        async with self.http:
            await self.liveOn()

    async def liveOn(self):
        try:
            await self.socket.connect(URL, transports=self.transports, wait_timeout=10)
        except (socketio.exceptions.ConnectionError, OSError, TimeoutError):
            return
        totals["connects"] += 1
        acting = asyncio.create_task(self.act())
        try:
            await self.gone.wait()
        finally:
            acting.cancel()
            await asyncio.gather(acting, return_exceptions=True)
            await self.socket.disconnect()

    def disconnected(self, reason):
        ends[str(reason)] += 1
        self.gone.set()

    def tick(self, number, data=None):
        totals["ticks"] += 1
        if number != self.ticks:
            violated(f"tick {number}, expected {self.ticks}, on {self.transports}")
        self.ticks = number + 1
        if data is not None and data != bytes([number % 256]) * len(data):
            violated("other bytes than the server sent")

    def told(self, room, number):
        totals["told"] += 1
        # After its own goodbye python-socketio delivers events, but no acks, not even that of the "join".
        if self.rooms.get(room) != number and not self.gone.is_set():
            violated(f"told {number} in {room}, expected {self.rooms.get(room)}")
        self.rooms[room] = number + 1

    async def call(self, then, event, *args):
        """An event whose ack must come while the client is connected."""
        late = asyncio.get_running_loop().call_later(PATIENCE, self.late, event)

        def answered(answer):
            late.cancel()
            totals["acks"] += 1
            then(answer)

        self.pending.add(late)
        await self.socket.emit(event, args, callback=answered)

    @property
    def isDeaf(self):
        """True if the client has silently stopped reading, as it does when an answer ends in the middle."""
        reading = self.socket.eio.read_loop_task
        return reading is not None and reading.done()

    def late(self, event):
        if not self.gone.is_set() and not self.isDeaf:
            violated(f"no ack of {event} on {self.transports}")

    async def act(self):
        try:
            while True:
                await asyncio.sleep(EVERY / 2 + choices.uniform(0, EVERY))
                if self.isDeaf:
                    self.disconnected("deaf")
                    return
                await self.actOnce(choices.randrange(100))
        except socketio.exceptions.SocketIOError:
            pass  # it has just been disconnected
        finally:
            for late in self.pending:
                late.cancel()

    async def actOnce(self, dice):
        if dice < 60:
            for _ in range(choices.randrange(4) + 1):
                await self.say()
        elif dice < 70:
            await self.say(bytes([self.says % 256]) * choices.randrange(1, 5000))
        elif dice < 90:
            await self.move(f"room {choices.randrange(ROOMS)}")
        elif dice < 94:
            await self.socket.disconnect()
        elif dice < 96:
            await self.socket.emit("kick me", choices.random() < 0.5)

    async def say(self, *data):
        number = self.says
        self.says += 1

        def answered(answer):
            if answer != number or number != self.acks:
                violated(f"ack {answer} of {number}, expected {self.acks}")
            self.acks += 1

        await self.call(answered, "say", number, *data)

    async def move(self, room):
        if room not in self.rooms:
            await self.call(lambda number: self.rooms.__setitem__(room, number), "join", room)
        else:
            await self.call(lambda number: self.left(room, number), "leave", room)

    def left(self, room, number):
        if self.rooms[room] != number:
            violated(f"left {room} at {self.rooms[room]}, expected {number}")
        del self.rooms[room]


async def main():
    lives = [asyncio.create_task(live(index)) for index in range(COUNT)]
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    for life in lives:
        life.cancel()
    await asyncio.wait(lives, timeout=5)
    report(totals={**totals, "ends": ends})


asyncio.run(main())
