"""
History and events handled once, on two real servers over a real Redis and a hub.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from tests.interop.brokers import Redis
from tests.interop.clients import RealtimeServer, javaScript, requireJavaScriptClient
from tests.interop.test_hub import HubProcess
from tests.support import startProgram
from txrealtime.client import Client

SERVERS = 2
REPEATS = 10


def wait(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)


class RoomsTestCase(TestCase):
    timeout = 300

    async def serve(self, bus: str, store: str | None = None) -> None:
        self.servers = []
        for _ in range(SERVERS):
            options = ("--bus", bus, "--health", "/health")
            server = RealtimeServer(self, "--app", "tests.interop.rooms:server", *options)
            if store is not None:
                server.environment["ONCE_STORE"] = store
            self.servers.append(server)
        await gatherResults([Deferred.fromCoroutine(server.start()) for server in self.servers])
        for server in self.servers:
            await server.program.whenPrinted("is ready")
            while (await self.health(server))["servers"] < SERVERS - 1:
                await wait(0.1)
        await wait(1.5)

    async def health(self, server: RealtimeServer) -> Any:
        """Return the server's own report."""
        response = await Agent(reactor).request(b"GET", f"{server.url}/health".encode())
        return json.loads(await readBody(response))

    async def come(self, server: RealtimeServer, **options: Any) -> Client:
        client = Client(server.url, reactor=reactor, **options)
        client.startService()
        self.addCleanup(client.stopService)
        await client.whenConnected()
        return client

    async def checkRuns(self, expected: dict[str, int]) -> None:
        """Check the counts of the runs of the handler of ``order`` on all servers, by key."""
        # An ack may overtake what a server prints.
        deadline = reactor.seconds() + 30
        while self.runs().total() < sum(expected.values()) and reactor.seconds() < deadline:
            await wait(0.1)
        await wait(0.5)
        self.assertEqual(self.runs(), expected)

    def runs(self) -> Counter[str]:
        lines = [line for server in self.servers for line in server.program.output.splitlines()]
        return Counter(line.split("ran ")[1] for line in lines if "ran " in line)


class OnceTests(RoomsTestCase):
    async def test_oneRun(self) -> None:
        """Ten equal events at one moment, on two servers, and a handler of two seconds: one run, ten acks."""
        redis = await Redis(self).start()
        await self.serve(redis.url, redis.url)
        clients = [await self.come(self.servers[number % SERVERS]) for number in range(REPEATS)]
        acks = await gatherResults([client.call("order", "a", 2) for client in clients])
        self.assertEqual(len(set(acks)), 1, acks)
        self.assertTrue(acks[0].startswith("a by "), acks)
        await self.checkRuns({"a": 1})
        # The result stays.
        self.assertEqual(await clients[1].call("order", "a", 2), acks[0])
        await self.checkRuns({"a": 1})

    async def test_killedInTheMiddle(self) -> None:
        """The clients of the other server are told to try again; then one run, and equal acks."""
        redis = await Redis(self).start()
        await self.serve(redis.url, redis.url)
        first = await self.come(self.servers[0])
        others = [await self.come(self.servers[1]) for _ in range(REPEATS - 1)]
        lost = first.call("order", "a", 60)
        lost.addErrback(lambda failure: None)
        await self.servers[0].program.whenPrinted("ran a")
        waits = gatherResults([client.call("order", "a", 60) for client in others])
        await wait(2)
        self.servers[0].program.signal("KILL")
        for ack in await waits:
            self.assertIn("send it again", ack["error"])
        await self.checkRuns({"a": 1})
        acks = [client.call("order", "b", 0.5) for client in others]
        self.assertEqual(len(set(await gatherResults(acks))), 1)
        await self.checkRuns({"a": 1, "b": 1})

    async def test_runsAgainAfterTheLease(self) -> None:
        """An event whose server was killed is handled by another, once its lease is over."""
        redis = await Redis(self).start()
        await self.serve(redis.url, redis.url)
        first, other = [await self.come(server) for server in self.servers]
        first.call("order", "a", 1).addErrback(lambda failure: None)
        await self.servers[0].program.whenPrinted("ran a")
        self.servers[0].program.signal("KILL")
        ack = await other.call("order", "a", 1)
        self.assertIn("send it again", ack["error"])
        ack = await other.call("order", "a", 1)
        self.assertTrue(ack.startswith("a by "))
        await self.checkRuns({"a": 2})

    async def test_redisIsAway(self) -> None:
        redis = await Redis(self).start()
        await self.serve(redis.url, redis.url)
        client = await self.come(self.servers[0])
        redis.program.signal("KILL")
        await redis.program.whenEnded()
        self.assertIn("send it again", (await client.call("order", "a", 0))["error"])
        await redis.start()
        self.assertTrue((await client.call("order", "a", 0)).startswith("a by "))
        await self.checkRuns({"a": 1})

    async def test_javaScriptRetries(self) -> None:
        """A JavaScript client whose acks are lost sends again, and gets the first ack; one run each."""
        requireJavaScriptClient("socket.io-client-4")
        redis = await Redis(self).start()
        await self.serve(redis.url, redis.url)
        keys = ["lost 1", "plain", "lost 2"]
        client = startProgram(self, javaScript("retries.cjs", self.servers[0].url, *keys))
        await client.whenEnded()
        reports = [json.loads(line) for line in client.output.splitlines()]
        self.assertEqual([report["key"] for report in reports], keys)
        for report in reports:
            self.assertTrue(report["ack"].startswith(report["key"] + " by "), report)
        await self.checkRuns(dict.fromkeys(keys, 1))


class HistoryTests(RoomsTestCase):
    async def seam(self, bus: str) -> None:
        """Clients join two servers while a client at each says numbers: all get all, once and in order."""
        await self.serve(bus)
        speakers = [await self.come(server) for server in self.servers]
        said = [0, 0]
        got: list[list[tuple[int, int, bytes]]] = []

        async def join(server: RealtimeServer) -> None:
            client, events = await self.come(server), list[tuple[int, int, bytes]]()
            got.append(events)
            client.on("said")(lambda *args: events.append(args))
            await client.call("enter", "red")

        joining: list[Deferred[None]] = []
        for turn in range(300):
            for number, speaker in enumerate(speakers):
                speaker.emit("say", "red", number, said[number], bytes([said[number] % 256]))
                said[number] += 1
            if turn % 30 == 15:
                joining += [Deferred.fromCoroutine(join(server)) for server in self.servers]
            await wait(0.005)
        await gatherResults(joining)
        # Two servers say each number once to each of the twenty.
        deadline = reactor.seconds() + 60
        while sum(map(len, got)) < 20 * sum(said) and reactor.seconds() < deadline:
            await wait(0.1)
        await wait(0.5)
        self.assertEqual(len(got), 20)
        for events in got:
            for number in range(2):
                numbers = [(event[1], event[2]) for event in events if event[0] == number]
                self.assertEqual(numbers, [(each, bytes([each % 256])) for each in range(said[number])])

    async def test_redis(self) -> None:
        await self.seam((await Redis(self).start()).url)

    async def test_hub(self) -> None:
        await self.seam((await HubProcess(self).start()).url)
