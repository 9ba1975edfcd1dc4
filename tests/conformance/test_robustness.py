"""
Clients that vanish, at each stage of what a client does: nothing of them stays on the server.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import cycle, islice

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.tcp import Server as TCPServer
from twisted.trial.unittest import TestCase
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.conformance.servers import DRAIN_TIMEOUT
from tests.conformance.sessions import Loopback
from tests.conformance.wire import DEADLINE, Wire
from txrealtime import Disconnected, Server, Socket

CYCLES = 10_000
AT_A_TIME = 20

# No client answers a heartbeat: long enough for a whole life on a slow machine.
PING_INTERVAL = 6.0
PING_TIMEOUT = 1.0


def census() -> Counter[type]:
    """
    Count the live objects of each class of ours, and of those that Twisted makes for a client.
    """
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    theirs = {Request, HTTPChannel, TCPServer}
    return Counter(
        {
            kind: kinds[kind]
            for kind in kinds
            if kind in theirs or str(kind.__module__).startswith("txrealtime.")
        }
    )


Life = Callable[[Wire], AsyncIterator[str]]
"What a client does, step by step; it names each step once it is done, and may be killed there."

POLLING = {"EIO": "4", "transport": "polling"}
WEBSOCKET = {"EIO": "4", "transport": "websocket"}
JOIN = "40\x1e40/slow,"
ASK = '42["ask"]'


def sidOf(opening: str) -> str:
    return json.loads(opening[1:])["sid"]


async def pollingLife(wire: Wire) -> AsyncIterator[str]:
    connection = await wire.dial()
    yield "connected"
    connection.transport.write(f"GET {wire.target(POLLING)}".encode()[:-3])
    yield "half a request"
    opening = await wire.begin("GET", POLLING)
    yield "a request to open"
    session = {**POLLING, "sid": sidOf((await opening.reply).text)}
    yield "opened"
    await wire.request("POST", session, JOIN)
    yield "joins"
    await wire.request("GET", session)
    yield "joined"
    await wire.request("POST", session, ASK)
    yield "asks"
    await wire.begin("POST", session, '451-["ask",{"_placeholder":true,"num":0}]')
    yield "half a binary event"


async def waitingLife(wire: Wire) -> AsyncIterator[str]:
    session = {**POLLING, "sid": sidOf((await wire.request("GET", POLLING)).text)}
    await wire.begin("GET", session)
    yield "waits"
    await wire.begin("GET", session)
    yield "waits twice"


async def webSocketLife(wire: Wire) -> AsyncIterator[str]:
    connection = await wire.dial()
    connection.transport.write(
        f"GET {wire.target(WEBSOCKET)} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n".encode()
    )
    yield "half a handshake"
    connection.transport.write(b"\r\n")
    yield "a handshake"
    websocket = await wire.websocket(WEBSOCKET)
    yield "accepted"
    await websocket.receive()
    yield "opened"
    websocket.send(*JOIN.split("\x1e"))
    yield "joins"
    await websocket.receive()
    yield "joined"
    websocket.send(ASK)
    yield "asks"
    await websocket.receive()
    yield "is asked"
    websocket.send('452-["ask",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', b"1")
    yield "half a binary event"
    websocket.transport.write(b"\x81\xff\x00\x00")
    yield "half a frame"


async def upgradingLife(wire: Wire) -> AsyncIterator[str]:
    opening = await wire.request("GET", POLLING)
    session = {"sid": sidOf(opening.text)}
    await wire.request("POST", {**POLLING, **session}, JOIN)
    websocket = await wire.websocket({**WEBSOCKET, **session})
    yield "a candidate"
    websocket.send("2probe")
    yield "probes"
    await websocket.receive()
    yield "probed"
    waiting = await wire.begin("GET", {**POLLING, **session})
    yield "probed, and polls"
    await waiting.reply
    yield "told to leave polling"
    websocket.send("5")
    yield "upgrades"
    websocket.send(ASK)
    await websocket.receive()
    yield "upgraded"
    websocket.close()
    yield "closes"


LIVES: tuple[Life, ...] = (pollingLife, waitingLife, webSocketLife, upgradingLife)


async def live(life: Life, url: str, until: int | None = None) -> int:
    """
    Live until some step, or to the last, and then drop every connection without a word.

    :param until: the step's index.
    :return: how many steps were done.
    """
    wire = Wire(url)
    steps = life(wire)
    done = 0
    try:
        async for _ in steps:
            done += 1
            if until is not None and done > until:
                break
    finally:
        await steps.aclose()
        await wire.hangUp()
    return done


class VanishingClientTests(TestCase):
    timeout = 600

    def setUp(self) -> None:
        self.server = Server(
            pingInterval=PING_INTERVAL, pingTimeout=PING_TIMEOUT, drainTimeout=DRAIN_TIMEOUT, reactor=reactor
        )

        @self.server.onConnect
        def enter(socket: Socket) -> None:
            socket.join("red", "blue")

        @self.server.on("ask")
        def ask(socket: Socket, *args: object) -> Deferred[object]:
            return socket.call("ask").addErrback(lambda failure: failure.trap(Disconnected) and None)

        @self.server.namespace("/slow").onConnect
        async def hesitate(socket: Socket) -> None:
            await deferLater(reactor, 0.05)

        # On a site of its own, where plain requests take a fast path, and as a resource, as in any site.
        root = Resource()
        root.putChild(b"resource", self.server.resource())
        self.loopback = Loopback(self.server.site(root), self.server)
        self.addCleanup(self.loopback.stop)
        self.urls = [f"{self.loopback.url}/{path}/" for path in ("socket.io", "resource")]

    async def untilQuiet(self) -> None:
        """
        Wait until no client is left, not even one that has been silent for less than the heartbeat allows.
        """
        deadline = reactor.seconds() + PING_INTERVAL + PING_TIMEOUT + DEADLINE
        while left := [*self.server.engine.sessions.values(), *self.loopback.connections()]:
            if reactor.seconds() > deadline:
                raise AssertionError(f"{len(left)} clients left, such as {left[0]}")
            await deferLater(reactor, 0.05)

    async def test_nothingStays(self) -> None:
        # Each life once to its end: that all steps work, and what the server keeps for good, is seen here.
        stages = [
            (life, url, step) for life in LIVES for url in self.urls for step in range(await live(life, url))
        ]
        await self.untilQuiet()
        objects = census()
        timers = len(reactor.getDelayedCalls())

        deaths = islice(cycle(stages), CYCLES)

        async def liveAndDie() -> None:
            for stage in deaths:
                await live(*stage)

        await gatherResults([Deferred.fromCoroutine(liveAndDie()) for _ in range(AT_A_TIME)])
        await self.untilQuiet()

        for namespace in self.server.namespaces:
            self.assertEqual((namespace.sockets, list(namespace.rooms)), ({}, []))
            self.assertTrue(namespace.rooms.isEmpty)
        self.assertEqual(len(reactor.getDelayedCalls()), timers)
        self.assertEqual(census(), objects)
