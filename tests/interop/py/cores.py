"""python-socketio's clients of one server with several workers, as js/cores.cjs.

::

    python cores.py JSON

``by`` may be ``fresh``, ``pool`` or the path of a UNIX socket.
"""

import asyncio
import json
import sys
import time

import aiohttp
import socketio

OPTIONS = json.loads(sys.argv[1])
URL, BY = OPTIONS["url"], OPTIONS["by"]
ALL, ROOMS, MESSAGES = OPTIONS["all"], OPTIONS["rooms"], OPTIONS["messages"]

PATIENCE = 60
"""Seconds in which no client hears anything, after which the rest is lost, see js/cores.cjs."""

EVER = 3600

lost = []

heard = time.monotonic()


async def inTime(*works):
    """Do something, as long as anything comes."""
    global heard
    heard = time.monotonic()
    working = asyncio.gather(*works)
    while not working.done():
        await asyncio.wait([working], timeout=1)
        if time.monotonic() - heard > PATIENCE:
            working.cancel()
    return await working


def connector():
    """Return the connections of one client."""
    if BY == "fresh":
        return aiohttp.TCPConnector(ssl=False, force_close=True)
    if BY == "pool":
        return aiohttp.TCPConnector(ssl=False)
    return aiohttp.UnixConnector(BY, force_close=True)


class Client:
    """A client in a room, with what it has got of each sender."""

    def __init__(self, number):
        self.number = number
        self.room = f"room {number % ROOMS}"
        self.got = {}
        self.total = 0
        self.changed = asyncio.Event()

    async def enter(self):
        """Connect, join, and return the worker's process."""
        self.http = aiohttp.ClientSession(connector=connector())
        # aiohttp would send again a GET whose response was lost, and hide the loss.
        self.http._retry_connection = False
        self.socket = socketio.AsyncClient(reconnection=False, http_session=self.http)
        self.socket.on("posted", self.posted)
        self.socket.on("disconnect", lambda reason: lost.append(f"{self.number}: {reason}"))
        transports = OPTIONS["transports"][self.number % len(OPTIONS["transports"])]
        await self.socket.connect(URL, transports=transports, wait_timeout=EVER, retry=False)
        return await self.ask("enter", self.room)

    async def ask(self, event, argument):
        """Emit an event, and wait for its ack."""
        global heard
        result = await self.socket.call(event, argument, timeout=EVER)
        heard = time.monotonic()
        return result

    def posted(self, sender, value, padding):
        """Keep a number."""
        global heard
        heard = time.monotonic()
        self.got.setdefault(sender, []).append(value)
        self.total += 1
        self.changed.set()

    async def post(self):
        """Post the numbers."""
        for value in range(MESSAGES):
            await self.socket.emit("post", (self.room, self.number, value, bytes(0 if value % 3 else 40)))
            if value % 5 == 4:
                await self.ask("echo", value)

    async def wait(self):
        """Wait until everything has come."""
        due = len(range(self.number % ROOMS, ALL, ROOMS)) * MESSAGES
        while self.total < due:
            self.changed.clear()
            await self.changed.wait()

    def check(self):
        """Return complaints."""
        expected = {sender: list(range(MESSAGES)) for sender in range(self.number % ROOMS, ALL, ROOMS)}
        return [
            f"{self.number} got of {sender}: {self.got.get(sender)}"
            for sender in expected.keys() | self.got.keys()
            if expected.get(sender) != self.got.get(sender)
        ]


async def main():
    clients = [Client(OPTIONS["first"] + place) for place in range(OPTIONS["count"])]
    workers = await inTime(*(client.enter() for client in clients))
    print(json.dumps({"entered": workers}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await inTime(*(client.post() for client in clients))
    try:
        await inTime(*(client.wait() for client in clients))
    except asyncio.CancelledError:
        lost.append(f"nothing came for {PATIENCE} s")
    # A number that came twice would come now.
    await asyncio.sleep(0.3)
    complaints = [complaint for client in clients for complaint in client.check()]
    print(
        json.dumps({"got": sum(client.total for client in clients), "wrong": complaints, "lost": lost}),
        flush=True,
    )
    await asyncio.to_thread(sys.stdin.readline)
    for client in clients:
        await client.socket.disconnect()
        await client.http.close()


asyncio.run(main())
