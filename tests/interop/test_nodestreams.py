"""
Servers of txrealtime among Node's servers with the Streams adapter: two of each kind.

THROWN clients are thrown from one server to another in the second step, by default a few; scripts/streams
takes more.
"""

from __future__ import annotations

import json
import os

from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from tests.interop.clients import RealtimeServer, javaScript, requireJavaScriptClient
from tests.interop.test_clusters import STEPS, played, startMember
from tests.support import startProgram

THROWS = int(os.environ.get("THROWN", "48"))

LONG = 500
"""Throws from which on the module takes its time."""


class NodeStreamsTests(TestCase):
    """
    All servers have three streams, and their clients may come back to any of them.
    """

    timeout = 400 + THROWS

    async def start(self, streams: int, *options: str, sharded: bool = False) -> None:
        requireJavaScriptClient("@socket.io/redis-streams-adapter")
        self.redis = await Redis(self).start()
        bus = f"{self.redis.url.replace('redis', 'redis+streams', 1)}?dialect=node-streams&streams={streams}"
        bus += "&sharded=true" if sharded else ""
        app = ("--app", "tests.interop.member:server", "--bus", bus)
        self.ours = [RealtimeServer(self, *app, *options) for _ in range(2)]
        for server in self.ours:
            await server.start()
        own = ("sharded",) if sharded else ()
        node = javaScript("member.cjs", "PORT", self.redis.url, str(streams), *own)
        self.node = [await startMember(self, node) for _ in range(2)]

    async def stop(self) -> None:
        for server in self.ours:
            await server.stop()

    async def test_cluster(self) -> None:
        """Events, rooms, acks, fetch, events between servers; then recovery both ways."""
        await self.start(3, "--recovery-window", "60", "--recovery", "all")
        urls = [server.url for server in self.ours]
        mixed = (self.node[0], urls[0], self.node[1], urls[1])
        self.assertEqual(await played(self, javaScript("cluster.cjs", "node-streams", *mixed)), STEPS)
        clients = str(8 if THROWS < LONG else 16)
        thrown = startProgram(self, javaScript("thrown.cjs", str(THROWS), clients, "2", *urls, *self.node))
        await thrown.whenEnded(timeout=200 + THROWS)
        reports = [json.loads(line) for line in thrown.output.splitlines() if line.startswith("{")]
        self.assertEqual([each for each in reports if "violation" in each], [])
        totals = reports[-1]["totals"]
        if THROWS >= LONG:
            print(totals)
        wrong = [totals[name] for name in ("fresh", "missing", "double", "disordered")]
        self.assertEqual(wrong, [0, 0, 0, 0])
        self.assertGreaterEqual(totals["throws"], THROWS)
        self.assertTrue(totals["toNode"] and totals["numbers"] > THROWS)
        await self.stop()

    async def test_sharded(self) -> None:
        """By sharded pub/sub; clients of txrealtime's servers get its own events at once, and no offsets."""
        await self.start(1, sharded=True)
        mixed = (self.node[0], self.ours[0].url, self.node[1], self.ours[1].url)
        self.assertEqual(await played(self, javaScript("cluster.cjs", "node-streams", *mixed)), STEPS)
        self.assertEqual((await self.redis.cli("PUBSUB", "SHARDNUMSUB", "socket.io#/#")).split()[-1], "4")
        self.assertEqual(await self.redis.cli("PUBSUB", "CHANNELS"), "")
        await self.stop()
