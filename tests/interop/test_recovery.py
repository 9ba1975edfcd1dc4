"""
Real clients over a faulty network: those that recover miss nothing, and all others are as ever.

`scripts/recovery` runs it for longer; RECOVERY_MINUTES and RECOVERY_CLIENTS in the environment change it.
`scripts/streams` runs the faults of Redis for longer, and changes FAULTS_MINUTES; FAULTS_KINDS names some of
the faults, and FAULTS_OUTPUT a folder for the outputs of the clients and of the servers.
tests/interop/oracle.py judges them.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from urllib.parse import unquote_to_bytes

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
from tests.interop.oracle import Entry, Oracle, Trim, entryOf, reports
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

_TRIM = """
local entries = redis.call("XRANGE", KEYS[1], ARGV[1], "+")
redis.call("XTRIM", KEYS[1], "MAXLEN", 0)
local function escape(char) return string.format("%%%02x", string.byte(char)) end
local lines = {}
for i, entry in ipairs(entries) do
  lines[i] = entry[1] .. " " .. entry[2][2] .. " " .. string.gsub(entry[2][4], "[^!-$&-~]", escape)
end
return lines
"""
"""Trims a stream, and returns the id, the topic and the payload of each entry from one on."""

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

    trims: list[Trim] = []
    "The trimmed streams."

    deaths: dict[int, float] = {}
    "When each server was killed, by its process."

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
        # With "everysec" Redis loses what it has not written yet, if the disk is busy when it is killed.
        redis = await Redis(self, appendonly="yes", appendfsync="always").start()
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
        self.trims, self.hangs, self.began, self.killed, self.deaths = [], [], [], [], {}
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
        if FAULTS:
            os.kill(
                clients.transport.pid, signal.SIGUSR2
            )  # be calm: all are connected at last, and have all numbers
            await deferLater(reactor, 25)
        clients.signal("TERM")
        await clients.whenEnded(timeout=60)
        for server in servers:
            await server.stop()
        self.judge(
            clients, [program.output for program in (*self.killed, *(each.program for each in servers))]
        )

    async def test_oracle(self) -> None:
        """A server that leaves out a number, sends one twice and swaps two is found out."""
        requireJavaScriptClient("socket.io-client-4")
        server = RealtimeServer(self, *OPTIONS)
        server.environment["RECOVERY_FAULTY"] = "1"
        await server.start()
        clients = startProgram(
            self, javaScript("recovery.cjs", "socket.io-client-4", server.url, "4", "1", "calm")
        )
        while clients.output.count('"kind":"disordered"') < 4 and not clients.ended:
            await deferLater(reactor, 0.1)
        clients.signal("TERM")
        await clients.whenEnded(timeout=60)
        await server.stop()
        oracle = Oracle(clients.output, [server.program.output])
        wrong = [oracle.totals[kind] for kind in ("missing", "double", "disordered")]
        self.assertEqual(wrong, [4, 4, 4], oracle.complaints())
        # A swapped number is missing until it comes.
        self.assertEqual(len(oracle.complaints()), 4 * 4, oracle.complaints())

    async def redisIsKilled(self, server: RealtimeServer) -> None:
        begin = time.time()
        await self.redis.stop()
        await deferLater(reactor, 0.5)
        await self.redis.start()
        await self.ready()
        self.hangs.append((begin, time.time()))
        await deferLater(reactor, 2)

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
        self.deaths[server.program.transport.pid] = time.time()
        server.program.signal("KILL")
        await server.program.whenEnded()
        self.killed.append(server.program)
        await deferLater(reactor, 7)
        await server.start(timeout=120)
        await deferLater(reactor, 2)

    async def redisHangs(self, server: RealtimeServer) -> None:
        """
        Suspend Redis.

        A client that comes to another server than its own then gets a fresh session, as nobody can be asked.
        """
        begin = time.time()
        self.redis.pause()
        await deferLater(reactor, 30)
        self.redis.resume()
        await self.ready()
        self.hangs.append((begin, time.time()))
        await deferLater(reactor, 10)

    async def connectionsAreCut(self, server: RealtimeServer) -> None:
        for _ in range(3):
            await self.redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await deferLater(reactor, 3)

    async def streamIsTrimmed(self, server: RealtimeServer) -> None:
        """
        Throw away what a server has not read.

        Its clients miss these numbers then, or get fresh sessions, but nothing twice or out of order; and it
        counts what it has missed.
        """
        begin, before = time.time(), self.gapsOf(server)
        pauseProcess(server.program.transport.pid)
        await deferLater(reactor, 4)
        # Redis does nothing else meanwhile, so the entries are those of the last seconds alone.
        since = f"{(begin - 10) * 1000:.0f}"
        trimmed = await self.redis.cli("EVAL", _TRIM, "1", "txrealtime:stream", since)
        entries = [self.entry(line) for line in trimmed.splitlines()]
        os.kill(server.program.transport.pid, signal.SIGCONT)
        end = reactor.seconds() + 30
        while self.gapsOf(server) == before and reactor.seconds() < end:
            await deferLater(reactor, 0.1)
        self.assertGreater(self.gapsOf(server), before, "a trimmed stream that the server has not noticed")
        # A server hears with the next messages and announcements on a topic what it has missed there.
        await deferLater(reactor, 20)
        self.trims.append(Trim(begin, time.time(), entries))

    @staticmethod
    def entry(line: str) -> Entry:
        id, topic, payload = line.split(" ")
        return entryOf(id, topic, unquote_to_bytes(payload))

    @staticmethod
    def gapsOf(server: RealtimeServer) -> int:
        """Count the gaps in the stream that a server has found."""
        return sum(line.get("report") == "trimmed" for line in reports(server.program.output))

    FAULTS = (redisIsKilled, serverIsKilled, redisHangs, connectionsAreCut)
    if "FAULTS_MINUTES" in os.environ:
        FAULTS = (*FAULTS, streamIsTrimmed)
    if "FAULTS_KINDS" in os.environ:
        FAULTS = tuple(fault for fault in FAULTS if fault.__name__ in os.environ["FAULTS_KINDS"].split(","))

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
        (folder / "faults.json").write_text(
            json.dumps([self.began, self.trims, self.hangs, list(self.deaths.items())])
        )

    def crowd(self, name: str, url: str, *more: str) -> Program:
        share, able = CROWDS[name]
        count = str(max(1, round(CLIENTS * share)))
        if name == "python-socketio":
            return startProgram(self, python("recovery.py", url, count))
        return startProgram(self, javaScript("recovery.cjs", name, url, count, "1" if able else "0", *more))

    def judge(self, clients: Program, servers: Sequence[str]) -> None:
        """Judge a run with faults, and print the figures."""
        oracle = Oracle(clients.output, servers, self.began, self.hangs, self.deaths, self.trims)
        complaints = oracle.complaints()
        print("", oracle.summary(), *complaints, sep="\n", file=sys.stderr, flush=True)
        self.assertEqual(complaints[:5], [], f"{len(complaints)} complaints")
        self.assertGreater(oracle.totals["events"], 100)
        self.assertGreater(oracle.totals["recovered"], 0)

    def check(self, name: str, program: Program, told: list[str]) -> None:
        oracle = Oracle(program.output, ())
        totals = Counter(oracle.totals)
        print(f"\n{name}: {dict(totals)}", file=sys.stderr, flush=True)
        complaints = oracle.complaints()
        self.assertEqual(complaints[:3], [], "\n".join([f"{len(complaints)} violations", *told]))
        wrongs = ("missing", "double", "disordered")
        self.assertEqual([totals[wrong] for wrong in wrongs], [0] * len(wrongs))
        self.assertGreater(totals["events"], 100)
        self.assertEqual(totals["recovered"] > 0, CROWDS[name][1])
