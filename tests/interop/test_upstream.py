"""
Machines whose hubs stand before a real Redis: servers of three makes, and `twistd realtime --workers --bus`.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
)
from tests.interop.test_clusters import STEPS, played, startMember
from tests.interop.test_workers import HANDSHAKE, WorkersTestCase
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.workers.hub import Hub


class MachinesTests(TestCase):
    """
    Four servers, each with two clients; two of ours share a hub, and the hub's connections to Redis.
    """

    timeout = 300

    async def setUp(self) -> None:
        requireJavaScriptClient("@socket.io/redis-adapter")
        self.redis = await Redis(self).start()

    async def machine(self, query: str = "") -> list[RealtimeServer]:
        """Start a hub with two servers."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder, True)
        hub = Hub(f"{folder}/hub", reactor, bus=busFromURL(self.redis.url))
        hub.startService()
        self.addCleanup(hub.stopService)
        servers = []
        for _ in range(2):
            bus = f"unix:{folder}/hub{query}"
            server = RealtimeServer(self, "--app", "tests.interop.member:server", "--bus", bus)
            await server.start()
            servers.append(server)
        return servers

    async def play(self, dialect: str, *urls: str) -> None:
        self.assertEqual(await played(self, javaScript("cluster.cjs", dialect, *urls)), STEPS)

    async def test_ours(self) -> None:
        first, second = await self.machine(), await self.machine()
        await self.play("native", *(server.url for server in (*first, *second)))
        # One to publish and one to subscribe for each machine, and that of the question.
        clients = await self.redis.cli("CLIENT", "LIST")
        self.assertEqual(len(re.findall(r"^id=.* addr=", clients, re.M)), 2 * 2 + 1, clients)
        for server in (*first, *second):
            await server.stop()

    async def test_withNode(self) -> None:
        servers = await self.machine("?dialect=node")
        others = [await startMember(self, javaScript("member.cjs", "PORT", self.redis.url)) for _ in range(2)]
        await self.play("node", others[0], servers[0].url, others[1], servers[1].url)
        for server in servers:
            await server.stop()

    async def test_withPythonSocketIO(self) -> None:
        requirePythonClient("socketio", "aiohttp", "redis")
        servers = await self.machine("?dialect=python-socketio")
        others = [await startMember(self, python("member.py", "PORT", self.redis.url)) for _ in range(2)]
        await self.play("python-socketio", others[0], servers[0].url, others[1], servers[1].url)
        for server in servers:
            await server.stop()


class SupervisedTests(WorkersTestCase):
    """
    Two supervisors, each with two workers and two connections to Redis.
    """

    def post(self, url: str, sid: str, body: bytes) -> None:
        with urlopen(f"{url}{HANDSHAKE}&sid={sid}", data=body, timeout=30) as response:
            self.assertEqual(response.read(), b"ok")

    def poll(self, url: str, sid: str) -> bytes:
        with urlopen(f"{url}{HANDSHAKE}&sid={sid}", timeout=30) as response:
            body: bytes = response.read()
            return body

    async def test_bus(self) -> None:
        redis = await Redis(self).start()
        place = Path(tempfile.mkdtemp(), "hub")
        self.addCleanup(shutil.rmtree, place.parent, True)
        one, first = await self.serve(2, "--bus", redis.url)
        two, second = await self.serve(2, "--bus", redis.url, "--hub", str(place))
        self.assertRegex(one.output, rf"2 workers, redis://127\.0\.0\.1:{redis.port}")
        # The hubs connect as the workers do, and the worker of the last line need not be the slowest.
        while len(re.findall(r"^id=.* addr=", await redis.cli("CLIENT", "LIST"), re.M)) - 1 < 4:
            await deferLater(reactor, 0.1)
        clients = await redis.cli("CLIENT", "LIST")
        self.assertEqual(len(re.findall(r"^id=.* addr=", clients, re.M)) - 1, 4, clients)
        members = [(url, self.open(url)) for url in (first, first, first, second, second, second)]
        for url, sid in members:
            await deferToThread(self.post, url, sid, b"40")
            await deferToThread(self.post, url, sid, b'420["enter","red"]')
        # One delivery of an event for each machine, not for each worker.
        while (await redis.cli("PUBSUB", "NUMSUB", "txrealtime,/,red")).split() < ["txrealtime,/,red", "2"]:
            await deferLater(reactor, 0.1)
        self.assertEqual(await redis.cli("PUBSUB", "NUMSUB", "txrealtime,/,red"), "txrealtime,/,red\n2")
        await deferToThread(self.post, *members[0], b'42["post","red","me",1,""]')
        for url, sid in members:
            body = b""
            while b'42["posted","me",1,""]' not in body:
                body += await deferToThread(self.poll, url, sid)
        # Workers see the outage, keep what they publish, and go on when Redis is back.
        await redis.stop()
        for program in (one, two):
            await program.whenPrinted("is deaf: the hub has no link to redis", 60)
        await redis.start()
        for program in (one, two):
            await program.whenPrinted("ready again after", 60)
        await self.until(lambda: all(each.output.count("ready again") >= 3 for each in (one, two)))
        await deferToThread(self.post, *members[5], b'42["post","red","me",2,""]')
        for url, sid in members:
            body = b""
            while b'42["posted","me",2,""]' not in body:
                body += await deferToThread(self.poll, url, sid)
        self.assertEqual([len(set(self.pids(program))) for program in (one, two)], [2, 2])
        for program in (one, two):
            await self.stopped(program)
