"""
Real clients over a faulty network: those that recover miss nothing, and all others are as ever.

`scripts/recovery` runs it for longer; RECOVERY_MINUTES and RECOVERY_CLIENTS in the environment change it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from itertools import cycle

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop import proxies
from tests.interop.brokers import Redis, pauseProcess, rabbitMQ
from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
)
from tests.soak.proxy import Network
from tests.support import Program, startProgram

MINUTES = float(os.environ.get("RECOVERY_MINUTES", "0.25"))
ROUNDS = 1 if MINUTES < 1 else 3
"Restarts of all workers, or of all servers."

CLIENTS = int(os.environ.get("RECOVERY_CLIENTS", "30"))

CROWDS = {
    "socket.io-client-4": (0.4, True),
    "socket.io-client-4.7": (0.15, True),
    "socket.io-client-4.6": (0.15, True),
    "socket.io-client-2.5": (0.15, False),
    "python-socketio": (0.15, False),
}
"Client -> its share of all clients, and whether it recovers."

OPTIONS = (
    *("--app", "tests.interop.recovery:server", "--allow-eio3", "--recovery-window", "60"),
    # 300 clients are sent 1,500 events a second, each to one alone: the log has to hold a window of these.
    *("--recovery-events", "200000", "--recovery-bytes", "200000000"),
    *("--ping-interval", "3", "--ping-timeout", "3", "--upgrade-timeout", "5", "--connect-timeout", "8"),
)


class RecoveryTests(TestCase):
    timeout = MINUTES * 60 + 240

    async def test_clients(self) -> None:
        """Nothing missing, nothing twice, nothing out of order, and every return is recovered."""
        for name in CROWDS:
            if name == "python-socketio":
                requirePythonClient("socketio", "aiohttp")
            else:
                requireJavaScriptClient(name)
        server = RealtimeServer(self, *OPTIONS)
        await server.start()
        network = Network(server.port, seed=14)
        port = reactor.listenTCP(0, network, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(network.stop)
        url = f"http://127.0.0.1:{port.getHost().port}"
        crowds = {name: self.crowd(name, url) for name in CROWDS}
        await self.sleepInTurn([*crowds.values()], MINUTES * 60)
        for name, program in crowds.items():
            await self.leave(name, program, server)
        network.stop()
        await server.stop()

    async def test_workers(self) -> None:
        """New generations of workers under traffic: the old ones hand their clients over."""
        requireJavaScriptClient("socket.io-client-4")
        server = RealtimeServer(self, *OPTIONS, "--workers", "2" if ROUNDS == 1 else "4")
        await server.start()
        await server.program.whenPrinted("serving Socket.IO", timeout=120)
        clients = self.crowd("socket.io-client-4", server.url)
        await deferLater(reactor, 3)
        for round in range(1, ROUNDS + 1):
            server.program.signal("HUP")
            while server.program.output.count("new workers serve") < round:
                await deferLater(reactor, 0.2)
            await deferLater(reactor, 4)
        await self.leave("socket.io-client-4", clients, server)
        await server.stop()

    async def test_servers(self) -> None:
        """Rolling restarts of servers behind nginx, with one Redis, under traffic."""
        redis = await Redis(self).start()
        await self.roll(redis.url)

    async def test_serversWithRabbitMQ(self) -> None:
        """The same with RabbitMQ, whose queues are not in step with each other."""
        broker = await rabbitMQ()
        await self.roll(broker.url)

    async def roll(self, bus: str) -> None:
        requireJavaScriptClient("socket.io-client-4")
        options = [*OPTIONS, "--bus", bus, "--trusted-proxy", "127.0.0.1"]
        servers = [RealtimeServer(self, *options) for _ in range(3)]
        await gatherResults([Deferred.fromCoroutine(server.start()) for server in servers])
        nginx = proxies.NginxOfCluster(self, [server.port for server in servers])
        await nginx.start()
        clients = self.crowd("socket.io-client-4", nginx.url, "apart")
        await deferLater(reactor, 3)
        for server in servers[: 2 if ROUNDS == 1 else 3] * ROUNDS:
            await server.restart()
            await deferLater(reactor, 2)
        await self.leave("socket.io-client-4", clients, *servers)
        for server in servers:
            await server.stop()

    async def test_killed(self) -> None:
        """Redis and servers are killed under traffic: nobody is lost who comes back to another server."""
        requireJavaScriptClient("socket.io-client-4")
        redis = await Redis(self, appendonly="yes").start()
        # A stream that holds what 120 clients are sent while Redis is suspended.
        bus = redis.url.replace("redis", "redis+streams", 1) + "?maxlen=1000000"
        options = [*OPTIONS, "--bus", bus, "--trusted-proxy", "127.0.0.1"]
        servers = [RealtimeServer(self, *options) for _ in range(2)]
        for server in servers:
            await server.start()
        nginx = proxies.NginxOfCluster(self, [server.port for server in servers])
        await nginx.start()
        clients = self.crowd("socket.io-client-4", nginx.url, "apart")
        await deferLater(reactor, 4)
        end = reactor.seconds() + MINUTES * 60
        for server in cycle(servers):
            await self.strike(redis)
            server.program.signal("KILL")
            await server.program.whenEnded()
            await deferLater(reactor, 7)
            await server.start()
            await deferLater(reactor, 2)
            if reactor.seconds() > end or ROUNDS == 1:
                break
        await self.leave("socket.io-client-4", clients)
        for server in servers:
            await server.stop()

    async def strike(self, redis: Redis) -> None:
        """Kill Redis; and in the long form cut all of its connections, and suspend it."""
        await redis.stop()
        await deferLater(reactor, 0.5)
        await redis.start()
        await deferLater(reactor, 2)
        if ROUNDS > 1:
            await redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await deferLater(reactor, 3)
            redis.pause()
            await deferLater(reactor, 30)
            redis.resume()
            await deferLater(reactor, 5)

    async def sleepInTurn(self, programs: list[Program], seconds: float) -> None:
        """Suspend one program after another for longer than the server waits for a pong, as laptops sleep."""
        end = reactor.seconds() + seconds
        for program in cycle(programs):
            if reactor.seconds() + 12 > end:
                break
            await deferLater(reactor, 3)
            self.assertFalse(program.ended, program.output[-3000:])
            pauseProcess(program.transport.pid)
            await deferLater(reactor, 8)
            os.kill(program.transport.pid, signal.SIGCONT)
        await deferLater(reactor, max(0, end - reactor.seconds()))

    async def leave(self, name: str, program: Program, *servers: RealtimeServer) -> None:
        self.assertFalse(program.ended, program.output[-3000:])
        program.signal("TERM")
        await program.whenEnded(timeout=60)
        self.check(
            name,
            program,
            [
                line
                for server in servers
                for line in server.program.output.splitlines()
                if "totals" in line or "fresh session" in line or "did not reply" in line
            ],
        )

    def crowd(self, name: str, url: str, *more: str) -> Program:
        share, able = CROWDS[name]
        count = str(max(1, round(CLIENTS * share)))
        if name == "python-socketio":
            return startProgram(self, python("recovery.py", url, count))
        return startProgram(self, javaScript("recovery.cjs", name, url, count, "1" if able else "0", *more))

    def check(self, name: str, program: Program, told: list[str]) -> None:
        lines = [json.loads(line) for line in program.output.splitlines() if line.startswith("{")]
        complaints = [line["violation"] for line in lines if "violation" in line]
        totals = Counter(lines[-1]["totals"])
        print(f"\n{name}: {dict(totals)}", file=sys.stderr, flush=True)
        self.assertEqual(complaints[:3], [], "\n".join([f"{len(complaints)} violations", *told]))
        self.assertEqual([totals[wrong] for wrong in ("missing", "double", "disordered")], [0, 0, 0])
        self.assertGreater(totals["events"], 100)
        self.assertEqual(totals["recovered"] > 0, CROWDS[name][1])
