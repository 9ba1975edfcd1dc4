"""
Clusters of real servers over a real Redis: ours alone, and with Node's and python-socketio's.

What clients must see is in js/cluster.cjs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
    untilListening,
)
from tests.support import Program, freePort, startProgram

STEPS = [
    "everybody",
    "rooms",
    "exceptions",
    "one socket",
    "binary",
    "each once, in order",
    "joining and leaving from afar",
    "who is there",
    "answers of clients",
    "answers that do not come",
    "events between servers",
    "disconnecting from afar",
]


async def startMember(case: TestCase, command: Sequence[str]) -> str:
    """Start a server that is not ours, at PORT in its command: its URL."""
    port = freePort()
    program = startProgram(case, [part.replace("PORT", str(port)) for part in command])
    await untilListening(program, port)
    return f"http://127.0.0.1:{port}"


class ClusterTests(TestCase):
    """
    Four servers, each with two clients.
    """

    timeout = 200

    async def setUp(self) -> None:
        requireJavaScriptClient("@socket.io/redis-adapter")
        self.redis = await Redis(self).start()

    async def ours(self, query: str = "") -> RealtimeServer:
        server = RealtimeServer(self, "--app", "tests.interop.member:server", "--bus", self.redis.url + query)
        await server.start()
        return server

    async def play(self, dialect: str, *urls: str) -> Program:
        client = startProgram(self, javaScript("cluster.cjs", dialect, *urls))
        await client.whenEnded(timeout=180)
        reports = [json.loads(line) for line in client.output.splitlines() if line.startswith('{"step"')]
        failed = "\n".join(f"{each['step']}: {each['error']}" for each in reports if not each["ok"])
        self.assertFalse(failed, failed)
        self.assertEqual([each["step"] for each in reports], STEPS, client.output)
        return client

    async def test_ours(self) -> None:
        servers = [await self.ours() for _ in range(4)]
        await self.play("native", *(server.url for server in servers))
        for server in servers:
            await server.stop()

    async def test_withNode(self) -> None:
        servers = [await self.ours("?dialect=node") for _ in range(2)]
        others = [await startMember(self, javaScript("member.cjs", "PORT", self.redis.url)) for _ in range(2)]
        await self.play("node", others[0], servers[0].url, others[1], servers[1].url)
        for server in servers:
            await server.stop()

    async def test_withPythonSocketIO(self) -> None:
        requirePythonClient("socketio", "aiohttp", "redis")
        servers = [await self.ours("?dialect=python-socketio") for _ in range(2)]
        others = [await startMember(self, python("member.py", "PORT", self.redis.url)) for _ in range(2)]
        await self.play("python-socketio", others[0], servers[0].url, others[1], servers[1].url)
        for server in servers:
            await server.stop()
