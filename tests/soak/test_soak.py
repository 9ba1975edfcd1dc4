"""
The soak: hundreds of real clients on all transports come, talk, join, go and die, over a faulty network.

Every message has a number, and whoever gets it checks that it follows the one before: in order, nothing
twice, nothing lost while connected. There are two rounds, the first to warm up; after each everybody leaves,
and then nothing may be left of them, and after the second no more memory be in use than after the first.

`scripts/soak` runs it for longer; SOAK_MINUTES, SOAK_CLIENTS and SEED in the environment change it.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.clients import NODE, RealtimeServer, requireJavaScriptClient, requirePythonClient
from tests.soak.proxy import Network
from tests.support import ROOT, Program, startProgram

MINUTES = float(os.environ.get("SOAK_MINUTES", "2"))
CLIENTS = int(os.environ.get("SOAK_CLIENTS", "500"))
SEED = int(os.environ.get("SEED", "1"))

CROWDS = {"socket.io-client-4": 0.64, "socket.io-client-2.5": 0.18, "python-socketio": 0.18}
"Client -> its share of all clients."

CROWD = 40
"Clients in one process, of which there are that many: what dies when it is killed."

KILLS = 15.0
"Seconds between two kills of a process."

SETTLING = 90.0
"Seconds in which all traces of the clients must be gone; the heartbeat finds the last after a few."

GROWTH = 1.10
"How much memory may be in use at the end, for that after the warm-up."

HEARTBEAT = (
    "--ping-interval",
    "4",
    "--ping-timeout",
    "6",
    "--upgrade-timeout",
    "8",
    "--connect-timeout",
    "10",
)


def crowd(name: str, url: str, clients: int, seed: int) -> list[str]:
    """The command that runs clients of one kind."""
    arguments = [url, str(clients), str(seed)]
    if name == "python-socketio":
        return [sys.executable, str(ROOT / "tests/soak/crowd.py"), *arguments]
    return [str(NODE), str(ROOT / "tests/soak/crowd.cjs"), name, *arguments]


def requireClients() -> None:
    """Skip (or fail) without what the crowds are made of."""
    for name in ("socket.io-client-4", "socket.io-client-2.5"):
        requireJavaScriptClient(name)
    requirePythonClient("socketio", "aiohttp")


class Round:
    """Crowds of clients that live for a while."""

    def __init__(self, case: SoakTests, url: str, choices: random.Random) -> None:
        self._case = case
        self._url = url
        self._choices = choices
        self.crowds: list[tuple[str, int, Program]] = []
        self.ended: list[Program] = []
        self.kills = 0

    def gather(self) -> None:
        for name, share in CROWDS.items():
            clients = round(CLIENTS * share)
            while clients > 0:
                self.start(name, min(clients, CROWD))
                clients -= CROWD

    def start(self, name: str, clients: int) -> None:
        command = crowd(name, self._url, clients, self._choices.randrange(1 << 30))
        self.crowds.append((name, clients, startProgram(self._case, command)))

    async def live(self, seconds: float) -> None:
        """Let time pass; now and then a process is killed, and another takes its place."""
        end = reactor.seconds() + seconds
        while (left := end - reactor.seconds()) > 0:
            await deferLater(reactor, min(left, KILLS))
            if left > KILLS:
                name, clients, program = self.crowds.pop(self._choices.randrange(len(self.crowds)))
                self._case.assertFalse(program.ended, program.output[-3000:])
                program.signal("KILL")
                self.kills += 1
                self.ended.append(program)
                self.start(name, clients)

    async def leave(self) -> None:
        """Everybody says goodbye."""
        programs = [program for _, _, program in self.crowds]
        self.crowds = []
        self.ended += programs
        for program in programs:
            self._case.assertFalse(program.ended, program.output[-3000:])
            program.signal("TERM")
        for program in programs:
            await program.whenEnded(timeout=60)

    def heard(self) -> tuple[Counter[str], list[str]]:
        """Return the clients' counts and complaints."""
        totals: Counter[str] = Counter()
        complaints = []
        for program in self.ended:
            for line in program.output.splitlines():
                if not line.startswith("{"):
                    complaints.append(line)
                    continue
                said = json.loads(line)
                if "violation" in said:
                    complaints.append(said["violation"])
                else:
                    totals.update({key: said["totals"][key] for key in ("connects", "ticks", "told", "acks")})
        return totals, complaints


class HonestyTests(TestCase):
    async def test_clientsNoticeALoss(self) -> None:
        """Each kind of client complains of a server that loses a message in five."""
        requireClients()
        server = RealtimeServer(self, "--app", "tests.soak.mutant:server", "--allow-eio3")
        await server.start()
        for name in CROWDS:
            program = startProgram(self, crowd(name, server.url, 3, SEED))
            complaint = await program.whenPrinted('"violation"')
            self.assertIn("tick", complaint)
            await program.stop()


class SoakTests(TestCase):
    timeout = MINUTES * 60 + 400

    async def test_soak(self) -> None:
        requireClients()
        print(f"\nsoak: {CLIENTS} clients for {MINUTES:g} minutes, seed {SEED}", flush=True)
        choices = random.Random(SEED)
        await self.startServer()
        before = await self.counts()
        network = Network(self.server.port, SEED)
        port = reactor.listenTCP(0, network, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(network.stop)
        url = f"http://127.0.0.1:{port.getHost().port}"
        warmUp = max(20.0, MINUTES * 60 / 6)
        started = time.monotonic()
        first = await self.round(url, choices, warmUp, network)
        warm = await self.settled(before)
        spent = time.monotonic() - started
        second = await self.round(url, choices, max(20.0, MINUTES * 60 - spent - SETTLING / 4), network)
        after = await self.settled(before)
        self.check(first, second, warm, after, network)

    async def startServer(self) -> None:
        # The environment is inherited by the server.
        self.patch(os, "environ", {**os.environ, "SEED": str(SEED)})
        app = ("--app", "tests.soak.app:server", "--wsgi", "tests.soak.app:report", "--allow-eio3")
        self.server = RealtimeServer(self, *app, *HEARTBEAT)
        await self.server.start()

    async def counts(self) -> dict[str, Any]:
        """Return the counts of the server now."""

        def ask() -> dict[str, Any]:
            with urlopen(f"{self.server.url}/report", timeout=60) as answer:
                counts: dict[str, Any] = json.load(answer)
                return counts

        return await deferToThread(ask)

    async def round(self, url: str, choices: random.Random, seconds: float, network: Network) -> Round:
        round = Round(self, url, choices)
        round.gather()
        await round.live(seconds / 2)
        middle = await self.counts()
        self.report("in the middle", middle)
        self.assertGreater(middle["sockets"], CLIENTS / 3, "most clients are there most of the time")
        await round.live(seconds / 2)
        await round.leave()
        return round

    async def settled(self, before: dict[str, Any]) -> dict[str, Any]:
        """The counts when all is as it was before; AssertionError when something is left."""
        deadline = reactor.seconds() + SETTLING
        while True:
            counts = await self.counts()
            left = self.left(before, counts)
            if not left:
                self.report("all gone", counts)
                return counts
            self.assertLess(reactor.seconds(), deadline, f"left behind: {left}")
            await deferLater(reactor, 1)

    def left(self, before: dict[str, Any], now: dict[str, Any]) -> dict[str, int]:
        """Return the growth of each count."""
        more = {
            key: now[key] - before[key] for key in ("sessions", "sockets", "rooms", "delayed calls", "files")
        }
        kinds = Counter(now["objects"])
        kinds.subtract(before["objects"])
        return {key: count for key, count in {**more, **kinds}.items() if count > 0}

    def report(self, when: str, counts: dict[str, Any]) -> None:
        print(
            f"soak: {when}: {counts['sessions']} sessions, {counts['rooms']} rooms, "
            f"{counts['memory'] / 1e6:.1f} MB, {counts['totals']}",
            flush=True,
        )

    def check(
        self, first: Round, second: Round, warm: dict[str, Any], after: dict[str, Any], network: Network
    ) -> None:
        totals, complaints = second.heard()
        for key, count in first.heard()[0].items():
            totals[key] += count
        complaints += first.heard()[1]
        growth = after["memory"] / warm["memory"]
        print(
            f"soak: clients counted {dict(totals)}; {first.kills + second.kills} processes killed; "
            f"connections by fault {dict(network.faults)}; memory {growth:.3f} of that after the warm-up",
            flush=True,
        )
        self.assertEqual("\n".join([*after["violations"], *complaints[:50]]), "")
        self.assertLess(growth, GROWTH)
        for key in ("connects", "ticks", "told", "acks"):
            self.assertGreater(totals[key], CLIENTS / 5, f"too few {key} to show anything")
        self.assertNotIn("Traceback", self.server.program.output)
