"""
Faults between servers, as their clients see them: three servers, fifteen clients, and a real broker.

All the time each server counts upwards to everybody. Whatever happens, a server's own clients miss nothing
and stay connected, and nobody gets a number twice or out of order. Clients of other servers miss only numbers
of the time of the fault, which the servers have logged.
"""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis, rabbitMQ
from tests.interop.clients import RealtimeServer, javaScript, requireJavaScriptClient
from tests.support import Program, freePort, startProgram

SERVERS = 3
CLIENTS = 5
"The number of clients of each server."

LEASE = 15.0
"Seconds without a message after which a server has gone."


FLOOD = """
for _, channel in ipairs(redis.call("PUBSUB", "CHANNELS")) do
    if redis.call("PUBSUB", "NUMSUB", channel)[2] == 3 then
        return redis.call("PUBLISH", channel, string.rep("0", 40000000))
    end
end
return redis.error_reply("no channel that all read")
"""
"Has Redis publish more than it keeps for one subscriber, on a topic of all servers."

HUGE = 'return redis.call("PUBLISH", ARGV[1], string.rep("nonsense", 300000))'
"Has Redis publish more than a server takes, and less than Redis cuts a subscriber for."

NONSENSE = (
    # Only the first is logged at once, so it is the one with text that must not be in the log.
    "nonsense",
    "",
    '{"emit": "nonsense"}',
    "nonsense" * 10_000,
    # Heads as servers write them: cut off, without their packet, and with fields of another type.
    'txr1 nonsense ["emit","/",nu',
    'txr1 nonsense ["emit","/",null,[],false,[18]]',
    'txr1 nonsense ["emit",1,null,[],false,[4]]\n2[1]',
    'txr1 nonsense ["alive",1,1,"p",false,[4]]\n2[1]',
)
"Messages that no server would send."


class FaultsTestCase(TestCase):
    timeout = 300

    async def start(self, bus: str) -> None:
        """Start the servers, and let the clients count."""
        await self.startServers(bus)
        await self.printed("is ready")
        self.startClients()
        await self.reported("counting")
        await deferLater(reactor, 0.5)
        self.began = time.time()

    async def startServers(self, bus: str) -> None:
        self.servers = [
            RealtimeServer(self, "--app", "tests.interop.member:server", "--bus", bus) for _ in range(SERVERS)
        ]
        for server in self.servers:
            await server.start()

    def startClients(self) -> None:
        urls = [server.url for server in self.servers]
        self.clients: Program = startProgram(self, javaScript("faults.cjs", str(CLIENTS), *urls))

    async def reported(self, event: str) -> Any:
        """Return the report of the clients, once it is there."""
        return json.loads(await self.clients.whenPrinted(f'{{"event":"{event}"', timeout=120))

    async def asked(self) -> Any:
        """Ask once more, and return the report."""
        count = len(self.clients.lines)
        self.order("ask")
        while len(self.clients.lines) == count:
            await deferLater(reactor, 0.05)
        return json.loads(self.clients.lines[count])

    def order(self, line: str) -> None:
        self.clients.transport.write(f"{line}\n".encode())

    async def printed(self, text: str) -> None:
        """Wait until each server has logged a text."""
        for server in self.servers:
            await server.program.whenPrinted(text, timeout=90)

    async def finished(self) -> Any:
        """Count a second longer, then check what holds after each fault, and return the report."""
        ended = time.time()
        await deferLater(reactor, 1)
        self.order("finish")
        report = await self.reported("finished")
        self.assertEqual((report["wrong"], report["disconnected"]), ([], 0))
        self.assertTrue(report["complete"], report)
        for sender, receiver, first, last, _ in report["missing"]:
            self.assertNotEqual(sender, receiver, "a server's own clients miss nothing")
            self.assertGreater(first, (self.began - 1) * 1000, report["missing"])
            self.assertLess(last, ended * 1000, report["missing"])
        return report

    async def stopServers(self) -> None:
        for server in self.servers:
            await server.stop()

    async def checkRestarted(self, noticed: float) -> None:
        """
        Check what holds when the broker was killed and is back.

        :param noticed: the time when all servers had logged the loss.
        """
        await self.printed("is ready again")
        report = await self.finished()
        for sender, _, _, last, count in report["missing"]:
            # Numbers emitted when the loss was known have waited, and came.
            self.assertLess(last, (noticed + 0.5) * 1000)
            self.assertLessEqual(count, report["counts"][sender]["unconfirmed"] + 5)
        self.assertEqual([counts["dropped"] for counts in report["counts"]], [0] * SERVERS)
        self.assertEqual([counts["outages"] for counts in report["counts"]], [1] * SERVERS)
        await self.stopServers()


class RabbitMQFaultsTests(FaultsTestCase):
    async def test_killedAndRestarted(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        rabbit = await rabbitMQ()
        await self.start(rabbit.url)
        rabbit.stop()
        await self.printed("is deaf")
        noticed = time.time()
        await rabbit.start()
        await self.checkRestarted(noticed)


class RedisLockedTests(FaultsTestCase):
    async def test_wrongPasswordAtStart(self) -> None:
        """The servers serve their own clients, log the reason, and are a cluster once they get in."""
        requireJavaScriptClient("socket.io-client-4")
        redis = await Redis(self, requirepass="right").start()
        await self.startServers(f"redis://:s3cr3t@127.0.0.1:{redis.port}")
        await self.printed("WRONGPASS")
        self.began = time.time()
        self.startClients()
        await self.reported("served")
        self.assertNotIn('"counting"', self.clients.output)
        for server in self.servers:
            self.assertNotIn("is ready", server.program.output)
        await redis.cli("CONFIG", "SET", "requirepass", "s3cr3t")
        await self.printed("is ready")
        await self.reported("counting")
        await self.finished()
        for server in self.servers:
            self.assertNotIn("s3cr3t", server.program.output)
        await self.stopServers()


class RedisFaultsTests(FaultsTestCase):
    async def setUp(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        self.redis = await Redis(self).start()
        await self.start(self.redis.url)

    async def test_redisKilledAndRestarted(self) -> None:
        await self.redis.stop()
        await self.printed("is deaf")
        noticed = time.time()
        await deferLater(reactor, 2)
        await self.redis.start()
        await self.checkRestarted(noticed)

    async def test_cutByTheLimitOfTheirBuffers(self) -> None:
        """A stranger publishes more than Redis keeps for one subscriber."""
        self.assertEqual(await self.redis.cli("EVAL", FLOOD, "0"), "3")
        await self.printed("is ready again")
        report = await self.finished()
        self.assertEqual([counts["outages"] for counts in report["counts"]], [1] * SERVERS)
        await self.stopServers()

    async def test_whatIsNoMessage(self) -> None:
        """Servers ignore and log the messages, without their content, and no client misses anything."""
        for topic in (await self.redis.cli("PUBSUB", "CHANNELS")).split():
            for nonsense in NONSENSE:
                await self.redis.cli("PUBLISH", topic, nonsense)
            await self.redis.cli("EVAL", HUGE, "0", topic)
        await self.printed("ignored a message on")
        report = await self.finished()
        self.assertEqual(report["missing"], [])
        self.assertEqual([counts["outages"] for counts in report["counts"]], [0] * SERVERS)
        for server, counts in zip(self.servers, report["counts"], strict=True):
            # A server reads three topics at least: everybody's, its own, and its namespace's.
            self.assertGreaterEqual(counts["ignored"], 3 * len(NONSENSE))
            self.assertGreaterEqual(counts["oversized"], 3)
            self.assertEqual(counts["failures"], 0)
            self.assertIn("too large, and thrown away", server.program.output)
            self.assertNotIn("nonsense", server.program.output)
        await self.stopServers()

    async def test_becomesAReplica(self) -> None:
        """Servers publish nothing to a replica: no other server would get it."""
        await self.redis.cli("REPLICAOF", "127.0.0.1", str(freePort()))
        await self.printed("replica")
        await self.redis.cli("REPLICAOF", "NO", "ONE")
        await self.printed("is ready again")
        report = await self.finished()
        self.assertEqual([counts["outages"] for counts in report["counts"]], [1] * SERVERS)
        await self.stopServers()

    async def test_wrongPassword(self) -> None:
        """The servers lose their connections, log why, and retry until the broker lets them in."""
        await self.redis.cli("CONFIG", "SET", "requirepass", "secret")
        self.redis.options["requirepass"] = "secret"
        for kind in ("pubsub", "normal"):
            await self.redis.cli("CLIENT", "KILL", "TYPE", kind)
        await self.printed("NOAUTH")
        await self.redis.cli("CONFIG", "SET", "requirepass", "")
        await self.printed("is ready again")
        report = await self.finished()
        self.assertEqual([counts["outages"] for counts in report["counts"]], [1] * SERVERS)
        await self.stopServers()

    async def test_redisPaused(self) -> None:
        self.redis.pause()
        await deferLater(reactor, 20)
        self.redis.resume()
        await self.printed("is ready again")
        report = await self.finished()
        for sender, _, _, _, count in report["missing"]:
            self.assertLessEqual(count, report["counts"][sender]["unconfirmed"] + 5)
        self.assertEqual([counts["outages"] for counts in report["counts"]], [1] * SERVERS)
        for server, counts in zip(self.servers, report["counts"], strict=True):
            self.assertIn("the heartbeat did not come back", server.program.output)
            self.assertIn(f"{counts['unconfirmed']} unconfirmed", server.program.output)
        await self.stopServers()

    async def test_subscribersKilled(self) -> None:
        await self.redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await self.printed("is ready again")
        report = await self.finished()
        self.assertEqual([counts["unconfirmed"] for counts in report["counts"]], [0] * SERVERS)
        self.assertEqual([counts["outages"] for counts in report["counts"]], [1] * SERVERS)
        await self.stopServers()

    async def test_serverKilled(self) -> None:
        """A killed server's sockets stay until its lease ends; no call waits beyond its timeout."""
        self.order("gone 2")
        await self.reported("gone")
        self.servers[2].program.signal("KILL")
        await self.servers[2].program.whenEnded()
        killed = reactor.seconds()
        self.order("ask")
        first = await self.reported("asked")
        self.assertTrue(first["answers"].get("timeout"), first)
        self.assertEqual(sorted(first["answers"]["answers"]), [0] * CLIENTS + [1] * CLIENTS)
        self.assertEqual(len(first["answers"]["servers"]), 1)
        self.assertLess(first["took"], 60_000)
        await deferLater(reactor, max(0.0, killed + LEASE + 5 - reactor.seconds()))
        while len((second := await self.asked())["people"]) != 2 * CLIENTS:
            self.assertLess(reactor.seconds(), killed + LEASE + 60, second)
        self.assertEqual(sorted(second["answers"]["answers"]), [0] * CLIENTS + [1] * CLIENTS)
        self.assertNotIn("timeout", second["answers"])
        del self.servers[2]
        report = await self.finished()
        self.assertEqual(report["missing"], [])
        await self.stopServers()
