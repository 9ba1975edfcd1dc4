"""
Clusters of real servers over a real Redis: of txrealtime alone, and with Node's and python-socketio's.

The expectations of the clients are in js/cluster.cjs.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Sequence
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from tests.interop.brokers import Redis
from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
    untilListening,
)
from tests.interop.test_examples import EXAMPLES, NGINX
from tests.support import freePort, requirePart, startProgram

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
    """Start a server of another make, at PORT in its command, and return its URL."""
    port = freePort()
    program = startProgram(case, [part.replace("PORT", str(port)) for part in command])
    await untilListening(program, port)
    return f"http://127.0.0.1:{port}"


async def played(case: TestCase, command: Sequence[str]) -> list[str]:
    """Return the steps that a script has passed."""
    client = startProgram(case, command)
    await client.whenEnded(timeout=180)
    reports = [json.loads(line) for line in client.output.splitlines() if line.startswith('{"step"')]
    failed = "\n".join(f"{each['step']}: {each['error']}" for each in reports if not each["ok"])
    case.assertFalse(failed, failed)
    case.assertEqual(client.exitCode, 0, client.output)
    return [each["step"] for each in reports]


class ClusterTests(TestCase):
    """
    Four servers, each with two clients.
    """

    timeout = 300

    async def setUp(self) -> None:
        requireJavaScriptClient("@socket.io/redis-adapter")
        self.redis = await Redis(self).start()

    async def ours(self, query: str = "", scheme: str = "redis") -> RealtimeServer:
        bus = self.redis.url.replace("redis", scheme, 1) + query
        server = RealtimeServer(self, "--app", "tests.interop.member:server", "--bus", bus)
        await server.start()
        return server

    async def play(self, dialect: str, *urls: str) -> None:
        self.assertEqual(await played(self, javaScript("cluster.cjs", dialect, *urls)), STEPS)

    async def test_ours(self) -> None:
        servers = [await self.ours() for _ in range(4)]
        await self.play("native", *(server.url for server in servers))
        for server in servers:
            await server.stop()

    async def test_oursByStreams(self) -> None:
        servers = [await self.ours(scheme="redis+streams") for _ in range(4)]
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


class ScaleTests(TestCase):
    """
    Three servers behind docs/examples/nginx-cluster.conf, and 300 clients.
    """

    timeout = 300
    CLIENTS = 300

    async def test_servers(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        requirePart(NGINX, "no nginx: apt install nginx-light")
        redis = await Redis(self).start()
        options = ["--bus", redis.url, "--trusted-proxy", "127.0.0.1", "--health", "/health"]
        servers = [RealtimeServer(self, "--app", "tests.interop.member:server", *options) for _ in range(3)]
        for server in servers:
            await server.start()
            await server.program.whenPrinted("is ready")
        url = await self.proxy(*(server.port for server in servers))
        steps = await played(self, javaScript("scale.cjs", url, str(self.CLIENTS), "3"))
        self.assertEqual(len(steps), 8, steps)
        # A server that was late for a while may have been missed.
        deadline, seen = reactor.seconds() + 60, None
        while seen != (200, "ready", 2):
            self.assertLess(reactor.seconds(), deadline, seen)
            response = await Agent(reactor).request(b"GET", f"{servers[0].url}/health".encode())
            body = json.loads(await readBody(response))
            seen = response.code, body["status"], body["servers"]
        for server in servers:
            await server.stop()

    async def proxy(self, *ports: int) -> str:
        """Start nginx in front of servers at some ports, and return its URL."""
        port = freePort()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        text = (EXAMPLES / "nginx-cluster.conf").read_text().replace("8080", str(port))
        for number, own in enumerate(ports, 1):
            text = re.sub(f"\\b800{number}\\b", str(own), text)
        (folder / "nginx.conf").write_text(text)
        command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        nginx = startProgram(self, [*command, "-g", f"user {getpass.getuser()};"])
        await untilListening(nginx, port)
        return f"http://127.0.0.1:{port}"
