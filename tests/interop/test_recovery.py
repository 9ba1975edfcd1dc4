"""
Real clients over a faulty network: those that recover miss nothing, and all others are as ever.

`scripts/recovery` runs it for longer; RECOVERY_MINUTES and RECOVERY_CLIENTS in the environment change it.
`scripts/streams` runs the faults of Redis for longer, and changes FAULTS_MINUTES; FAULTS_OUTPUT names a
folder for the outputs of the clients and of the servers.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

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

FAULTS = float(os.environ.get("FAULTS_MINUTES", MINUTES if ROUNDS > 1 else 0))
"Minutes of faults of Redis and of servers on a bus that keeps; 0 for one of each of two kinds."

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
    timeout = (MINUTES + 2 * FAULTS) * 60 + 400

    killed: list[Program] = []

    began: list[tuple[float, str]] = []
    "When each fault began."

    hangs: list[tuple[float, float]] = []
    "When Redis was away, and when the servers had its messages."

    trims: list[tuple[float, float]] = []
    "When a stream was trimmed before it was read, and when all that follows was over."

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

    async def test_keptByTheClient(self) -> None:
        """JavaScript clients keep an event that comes as they close: it comes twice, and the others once."""
        requireJavaScriptClient("socket.io-client-4")
        server = RealtimeServer(self, *OPTIONS)
        await server.start()
        client = startProgram(self, javaScript("kept.cjs", server.url))
        await client.whenEnded()
        came = json.loads(client.output.splitlines()[-1])["came"]
        self.assertEqual(Counter(came.values())[2], 1, client.output)
        self.assertEqual(set(came.values()), {1, 2})
        numbers = sorted(map(int, came))
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
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
        self.redis, self.servers = redis, servers
        self.trims, self.hangs, self.began, self.killed = [], [], [], []
        if "FAULTS_OUTPUT" in os.environ:
            self.addCleanup(self.write, clients, servers)
        end = reactor.seconds() + FAULTS * 60
        for number in itertools.count():
            fault = self.FAULTS[number % len(self.FAULTS)]
            if number >= 2 and reactor.seconds() > end:
                break
            print(f"\n{fault.__name__}", file=sys.stderr, flush=True)
            self.began.append((time.time(), fault.__name__))
            await fault(self, servers[number // len(self.FAULTS) % 2])
        await self.leave("socket.io-client-4", clients, *(servers if FAULTS else ()))
        for server in servers:
            await server.stop()

    async def redisIsKilled(self, server: RealtimeServer) -> None:
        begin = time.time()
        await self.redis.stop()
        await deferLater(reactor, 0.5)
        await self.redis.start()
        await self.ready()
        await deferLater(reactor, 2)
        self.hangs.append((begin, time.time()))

    async def ready(self) -> None:
        """Wait until the links of all servers are ready again, for a minute at most."""
        end = reactor.seconds() + 60
        for server in self.servers:
            while reactor.seconds() < end:
                lines = [line for line in server.program.output.splitlines() if "the link to" in line]
                if lines and " ready" in lines[-1]:
                    break
                await deferLater(reactor, 0.2)

    async def serverIsKilled(self, server: RealtimeServer) -> None:
        server.program.signal("KILL")
        await server.program.whenEnded()
        self.killed.append(server.program)
        await deferLater(reactor, 7)
        await server.start(timeout=120)
        await deferLater(reactor, 2)

    async def redisHangs(self, server: RealtimeServer) -> None:
        """
        Suspend Redis.

        A client that comes to another server than its own then gets a fresh session: nobody can be asked.
        """
        begin = time.time()
        self.redis.pause()
        await deferLater(reactor, 30)
        self.redis.resume()
        await deferLater(reactor, 5)
        await self.ready()
        await deferLater(reactor, 5)
        self.hangs.append((begin, time.time()))

    async def connectionsAreCut(self, server: RealtimeServer) -> None:
        for _ in range(3):
            await self.redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await deferLater(reactor, 3)

    async def streamIsTrimmed(self, server: RealtimeServer) -> None:
        """
        Throw away what a server has not read.

        Its clients miss some numbers then, or get fresh sessions, but nothing twice or out of order; and it
        counts what it has missed: tests/interop/test_streams.py compares the count.
        """
        begin = time.time()
        pauseProcess(server.program.transport.pid)
        await deferLater(reactor, 4)
        await self.redis.cli("XTRIM", "txrealtime:stream", "MAXLEN", "0")
        os.kill(server.program.transport.pid, signal.SIGCONT)
        await server.program.whenPrinted("has trimmed messages", timeout=30)
        await deferLater(reactor, 10)
        self.trims.append((begin, time.time()))

    FAULTS = (redisIsKilled, serverIsKilled, redisHangs, connectionsAreCut)
    if "FAULTS_MINUTES" in os.environ:
        FAULTS = (*FAULTS, streamIsTrimmed)

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

    def write(self, clients: Program, servers: Sequence[RealtimeServer]) -> None:
        """Write the outputs to the folder of FAULTS_OUTPUT: those of the clients, and of each server."""
        folder = Path(os.environ["FAULTS_OUTPUT"])
        folder.mkdir(parents=True, exist_ok=True)
        programs = [clients, *self.killed, *(server.program for server in servers)]
        for number, program in enumerate(programs):
            (folder / f"{number}.txt").write_text(program.output)
        (folder / "faults.json").write_text(json.dumps([self.began, self.trims, self.hangs]))

    def crowd(self, name: str, url: str, *more: str) -> Program:
        share, able = CROWDS[name]
        count = str(max(1, round(CLIENTS * share)))
        if name == "python-socketio":
            return startProgram(self, python("recovery.py", url, count))
        return startProgram(self, javaScript("recovery.cjs", name, url, count, "1" if able else "0", *more))

    def check(self, name: str, program: Program, told: list[str]) -> None:
        lines = [json.loads(line) for line in program.output.splitlines() if line.startswith("{")]
        violations = [line for line in lines if "violation" in line]
        complaints = [self.placed(line) for line in violations if not self.isPromised(line)]
        totals = Counter(lines[-1]["totals"])
        print(f"\n{name}: {dict(totals)}", file=sys.stderr, flush=True)
        self.assertEqual(complaints[:3], [], "\n".join([f"{len(complaints)} violations", *told]))
        wrongs = ("double", "disordered") if self.trims else ("missing", "double", "disordered")
        self.assertEqual([totals[wrong] for wrong in wrongs], [0] * len(wrongs))
        self.assertGreater(totals["events"], 100)
        self.assertEqual(totals["recovered"] > 0, CROWDS[name][1])

    def placed(self, line: dict[str, Any]) -> str:
        """Return a violation, with the fault before it and the seconds since that began."""
        before = [(at, name) for at, name in self.began if at <= line["at"]]
        when = f", {line['at'] - before[-1][0]:.1f} s after {before[-1][1]}" if before else ""
        return f"{line['violation']}{when}"

    def isPromised(self, line: dict[str, Any]) -> bool:
        """Return true if a stream trimmed too early, or a Redis that was away, explains a violation."""
        isTrim, isHang = [
            any(begin <= line["at"] <= end for begin, end in times) for times in (self.trims, self.hangs)
        ]
        if "not recovered" in line["violation"]:
            return isTrim or isHang
        number = re.search(r" (\d+), expected (\d+), on", line["violation"])
        return isTrim and number is not None and int(number[1]) > int(number[2])
