"""
Emitting to real servers from processes without clients, by our emitters and others', over real brokers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis, rabbitMQ
from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
)
from tests.interop.test_clusters import startMember
from tests.support import ROOT, Program, run, startProgram
from txrealtime import BusError, DeferredEmitter, Emitter
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.cluster.bus.url import busFromURL

FIRST = ['0 ["one",1,{"a":null}]', '0 ["three","<00ff>"]', '0 ["end"]']
SECOND = ['1 ["one",1,{"a":null}]', '1 ["two"]', '1 ["four"]', '1 ["end"]', "1 gone"]


class EmittersTestCase(TestCase):
    """
    One client on each of two servers.
    """

    timeout = 300

    async def serve(self, bus: str, query: str, *others: Sequence[str]) -> None:
        """Start a server of txrealtime, a second one unless there are others, and the clients."""
        requireJavaScriptClient("@socket.io/redis-emitter")
        self.bus = bus + query
        servers = [
            RealtimeServer(self, "--app", "tests.interop.member:server", "--bus", self.bus)
            for _ in range(2 - len(others))
        ]
        for server in servers:
            await server.start()
            await server.program.whenPrinted("is ready")
        urls = [server.url for server in servers] + [await startMember(self, other) for other in others]
        self.clients = startProgram(self, javaScript("listen.cjs", *urls))
        self.ids = (await self.clients.whenPrinted("ids")).split()[1:]

    async def emit(self, *command: str) -> Program:
        program = startProgram(self, [*command, *self.ids], environment={"PYTHONPATH": str(ROOT)})
        self.assertEqual(await program.whenEnded(), 0, program.output)
        return program

    async def assertHeard(self, *expected: Sequence[str]) -> None:
        """Check the events that each client has got, in its order."""
        for lines in expected:
            await self.clients.whenPrinted(lines[-1])
        # Node's servers with streams add an offset to each event.
        got = [re.sub(r',"[0-9]+-[0-9]+"]$', "]", line) for line in self.clients.output.splitlines()]
        for number, lines in enumerate(expected):
            self.assertEqual([line for line in got if line.startswith(f"{number} ")], list(lines))


class RedisTests(EmittersTestCase):
    async def setUp(self) -> None:
        self.redis = await Redis(self).start()

    async def test_emitter(self) -> None:
        await self.serve(self.redis.url, "")
        await self.emit(*python("emitters.py", "Emitter", self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def test_deferredEmitter(self) -> None:
        await self.serve(self.redis.url, "?key=shop")
        await self.emit(*python("emitters.py", "DeferredEmitter", self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def test_commandLine(self) -> None:
        await self.serve(self.redis.url, "")
        command = [sys.executable, "-m", "txrealtime", "emit", "--bus", self.bus]
        run(*command, "--to", "room 1", "hi", '{"json": 1}', "2", cwd=ROOT)
        run(*command, "--excluding", "room 1", "end", cwd=ROOT)
        await self.assertHeard(['0 ["end"]'], ['1 ["hi",{"json":1},2]'])

    async def test_streams(self) -> None:
        await self.serve(self.redis.url.replace("redis", "redis+streams", 1), "?maxlen=1000&key=shop")
        await self.emit(*python("emitters.py", "Emitter", self.bus))
        await self.assertHeard(FIRST, SECOND)
        await self.emit(*python("emitters.py", "DeferredEmitter", self.bus))
        run(sys.executable, "-m", "txrealtime", "emit", "--bus", self.bus, "last", cwd=ROOT)
        await self.clients.whenPrinted('0 ["last"]')
        self.assertEqual(await self.redis.cli("KEYS", "*"), "shop:stream")

    async def test_noBroker(self) -> None:
        await self.redis.stop()
        command = [sys.executable, "-m", "txrealtime", "emit", "--bus", self.redis.url, "hi"]
        program = startProgram(self, command, cwd=str(ROOT))
        self.assertEqual(await program.whenEnded(), 1, program.output)
        self.assertIn(f"{self.redis.url} has not taken the message", program.output)
        self.assertEqual(len(program.output.splitlines()), 1, program.output)

    async def test_nodesEmitter(self) -> None:
        await self.serve(self.redis.url, "?dialect=node", javaScript("member.cjs", "PORT", self.redis.url))
        await self.emit(*javaScript("emitter.cjs", self.redis.url))
        await self.assertHeard(FIRST, SECOND)

    async def test_asNodesEmitter(self) -> None:
        await self.serve(self.redis.url, "?dialect=node", javaScript("member.cjs", "PORT", self.redis.url))
        await self.emit(*python("emitters.py", "Emitter", self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def streamsOfNode(self, kind: str, streams: int) -> None:
        requireJavaScriptClient("@socket.io/redis-streams-adapter")
        member = javaScript("member.cjs", "PORT", self.redis.url, str(streams))
        query = f"?dialect=node-streams&streams={streams}"
        await self.serve(self.redis.url.replace("redis", "redis+streams", 1), query, member)
        await self.emit(*python("emitters.py", kind, self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def test_amongNodesStreams(self) -> None:
        await self.streamsOfNode("Emitter", 1)

    async def test_deferredAmongNodesStreams(self) -> None:
        await self.streamsOfNode("DeferredEmitter", 3)

    async def test_pythonSocketIO(self) -> None:
        requirePythonClient("socketio", "aiohttp", "redis")
        member = python("member.py", "PORT", self.redis.url)
        await self.serve(self.redis.url, "?dialect=python-socketio", member)
        await self.emit(*python("emitters.py", "RedisManager", self.redis.url))
        # Its disconnect() of another process fails before it has said anything.
        await self.assertHeard(FIRST, SECOND[:-1])

    async def test_asPythonSocketIO(self) -> None:
        requirePythonClient("socketio", "aiohttp", "redis")
        member = python("member.py", "PORT", self.redis.url)
        await self.serve(self.redis.url, "?dialect=python-socketio", member)
        await self.emit(*python("emitters.py", "Emitter", self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def test_flaskSocketIO(self) -> None:
        requirePythonClient("flask_socketio", "aiohttp", "redis")
        member = python("member.py", "PORT", self.redis.url, "flask-socketio")
        await self.serve(self.redis.url, "?dialect=python-socketio&channel=flask-socketio", member)
        await self.emit(*python("emitters.py", "Flask", self.redis.url))
        await self.assertHeard(FIRST, [line for line in SECOND[:-1] if "four" not in line])


class RedisFaultTests(TestCase):
    timeout = 300

    async def setUp(self) -> None:
        self.redis = await Redis(self).start()

    def deferred(self, redis: Redis, timeout: float = 30) -> DeferredEmitter:
        emitter = DeferredEmitter(redis.url, reactor=reactor, timeout=timeout)
        self.addCleanup(emitter.close)
        return emitter

    async def test_replica(self) -> None:
        """A replica would take the message, and no server would get it."""
        replica = await Redis(self, replicaof=f"127.0.0.1 {self.redis.port}").start()
        with Emitter(replica.url) as emitter, self.assertRaisesRegex(BusError, "read-only replica"):
            emitter.emit("hi")
        with self.assertRaisesRegex(BusError, "read-only replica"):
            await self.deferred(replica).emit("hi")

    async def test_userWhoMayOnlyPublish(self) -> None:
        await self.redis.cli("ACL", "SETUSER", "joe", "on", ">secret", "resetchannels", "&ours*", "+publish")
        url = f"redis://joe:secret@127.0.0.1:{self.redis.port}?key="
        with Emitter(url + "ours") as emitter:
            emitter.emit("hi")
        with Emitter(url + "theirs") as emitter, self.assertRaisesRegex(BusError, "permission"):
            emitter.emit("hi")

    async def test_halfASurrogatePair(self) -> None:
        heard: list[str] = []
        topic = "txrealtime,/,\ud800"
        subscriber = await busFromURL(self.redis.url).openSubscriber(reactor, self.fail)
        self.addCleanup(subscriber.abort)
        await subscriber.subscribe(Subscription(topic, False, lambda topic, payload: heard.append(topic)))
        with Emitter(self.redis.url) as emitter:
            emitter.to("\ud800").emit("hi")
        await self.deferred(self.redis).to("\ud800").emit("hi")
        while len(heard) < 2:
            await deferLater(reactor, 0.01)
        self.assertEqual(heard, [topic, topic])

    async def test_hangs(self) -> None:
        emitter = self.deferred(self.redis, 5)
        await emitter.emit("hi")
        self.redis.pause()
        with self.assertRaisesRegex(BusError, "no answer within 5 s"):
            await emitter.emit("hi")
        self.redis.resume()
        await emitter.emit("hi")
        self.redis.pause()
        said = emitter.emit("hi")
        await gatherResults([emitter.close(), emitter.close()])
        self.redis.resume()
        with self.assertRaisesRegex(BusError, "no answer within 5 s"):
            await said
        await emitter.emit("hi")


class RabbitMQFaultTests(TestCase):
    timeout = 300

    async def test_hangs(self) -> None:
        """Each wait has its limit, though a connection lives on until heartbeats are missed."""
        rabbit = await rabbitMQ()
        self.addCleanup(rabbit.resume)
        with Emitter(rabbit.url, timeout=5) as emitter:
            emitter.emit("hi")
            rabbit.pause()
            with self.assertRaisesRegex(BusError, "no answer within 5 s"):
                emitter.emit("hi")
            rabbit.resume()
            emitter.emit("hi")
            rabbit.pause()
            emitter.close()
            rabbit.resume()
            emitter.emit("hi")


class RabbitMQTests(EmittersTestCase):
    async def test_emitter(self) -> None:
        await self.serve((await rabbitMQ()).url, "")
        await self.emit(*python("emitters.py", "Emitter", self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def test_deferredEmitter(self) -> None:
        await self.serve((await rabbitMQ()).url, "")
        await self.emit(*python("emitters.py", "DeferredEmitter", self.bus))
        await self.assertHeard(FIRST, SECOND)
