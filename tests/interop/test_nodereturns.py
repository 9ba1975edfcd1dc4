"""
Many clients that come back to one server by the streams of Node's servers: a real Redis is read once for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from txrealtime import Server
from txrealtime.testing import Client

CLIENTS = 30
EVENTS = 1200


class ReturnTests(TestCase):
    """
    Two servers in this process.
    """

    timeout = 180

    async def setUp(self) -> None:
        self.redis = await Redis(self).start()
        self.one, self.two = [await self.serve() for _ in range(2)]

    async def serve(self) -> Server:
        server = Server(
            reactor=reactor,
            recoveryWindow=60,
            recovery="all",
            bus=f"redis+streams://127.0.0.1:{self.redis.port}?dialect=node-streams",
        )
        server.startService()
        self.addCleanup(server.stopService)
        await server.cluster.whenReady()
        return server

    async def until(self, condition: Callable[[], object], *clients: Client) -> None:
        """Wait for a condition, and meanwhile move the packets of clients."""
        deadline = reactor.seconds() + 60
        while not condition():
            self.assertLess(reactor.seconds(), deadline)
            await deferLater(reactor, 0.01)
            for client in clients:
                client.flush()

    async def pages(self) -> int:
        """Return the number of pages that Redis has been asked for."""
        calls = re.search(r"cmdstat_xrange:calls=(\d+)", await self.redis.cli("INFO", "commandstats"))
        return int(calls[1]) if calls else 0

    async def test_together(self) -> None:
        clients = [Client(self.one) for _ in range(CLIENTS)]
        came: list[object] = []
        for client in clients:
            self.addCleanup(client.close)
            client.connect().addBoth(came.append)
        await self.until(lambda: len(came) == CLIENTS, *clients)
        ids = [client.id() for client in clients]
        for client in clients:
            client.lose()
        while len((await self.redis.cli("KEYS", "sio:session:*")).split()) < CLIENTS:
            await deferLater(reactor, 0.05)
        for number in range(EVENTS):
            (self.one if number % 2 else self.two).emit("n", number)
            if number % 100 == 0:
                await deferLater(reactor, 0)
        before = await self.pages()
        came.clear()
        for client in clients:
            client.comeBack(server=self.two).addBoth(came.append)
        await self.until(lambda: len(came) == CLIENTS, *clients)
        self.two.emit("live", EVENTS)
        got: list[list[object]] = [[] for _ in clients]

        def look() -> bool:
            for client, numbers in zip(clients, got, strict=True):
                numbers.extend(number for _, number in client.received())
            return all(len(numbers) > EVENTS for numbers in got)

        await self.until(look, *clients)
        await deferLater(reactor, 0.1)
        look()
        self.assertEqual(sorted(got[0]), list(range(EVENTS + 1)))
        self.assertEqual([numbers == got[0] for numbers in got], [True] * CLIENTS, "one order for all")
        self.assertEqual([client.id() for client in clients], ids)
        self.assertTrue(all(client.recovered() for client in clients))
        self.assertLess(await self.pages() - before, CLIENTS)
