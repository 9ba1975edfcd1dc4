"""
Emitting to real servers from processes that serve nobody, by our emitters and others', over real brokers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

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

FIRST = ['0 ["one",1,{"a":null}]', '0 ["three","<00ff>"]', '0 ["end"]']
SECOND = ['1 ["one",1,{"a":null}]', '1 ["two"]', '1 ["four"]', '1 ["end"]', "1 gone"]


class EmittersTestCase(TestCase):
    """
    One client on each of two servers.
    """

    timeout = 150

    async def serve(self, bus: str, query: str, *others: Sequence[str]) -> None:
        """Start a server of ours, a second one unless there are others, and the clients."""
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
        """What each client has got, in its order."""
        for lines in expected:
            await self.clients.whenPrinted(lines[-1])
        got = self.clients.output.splitlines()
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


class RabbitMQTests(EmittersTestCase):
    async def test_emitter(self) -> None:
        await self.serve((await rabbitMQ()).url, "")
        await self.emit(*python("emitters.py", "Emitter", self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def test_deferredEmitter(self) -> None:
        await self.serve((await rabbitMQ()).url, "")
        await self.emit(*python("emitters.py", "DeferredEmitter", self.bus))
        await self.assertHeard(FIRST, SECOND)
