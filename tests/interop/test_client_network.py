"""
The client and Node's server with the network of the soak between them: numbered messages both ways.

Connections are delayed, cut, reset and swallowed.  In CI the traffic takes some seconds;
``scripts/clientsoak`` runs the same for ten minutes, and prints what there was.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.clients import NODE, requireJavaScriptClient, untilListening
from tests.soak.proxy import Network
from tests.support import ROOT, freePort, startProgram
from txrealtime.client import Client

WAYS = (("polling", "websocket"), ("websocket",), ("polling",))

SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "0")) or 5.0
"The time of the traffic; a connection that is swallowed ends 4 s later."

SEED = int(os.environ.get("SEED", "5"))

EVERY = 0.03
"Seconds between two messages of a client."

QUEUE = 5
"Messages of a client with retries that wait at most."

LIFE = 30.0
"Seconds that a connection lives at most before it meets a fault."

SETTLING = 60.0
"Seconds that the end of the traffic may take."


class Visitor:
    """
    A client, and the numbers that it got.

    :ivar sent: how many numbers it has sent.
    :ivar faults: what was wrong, as lines.
    :ivar eras: for each era of the server, the last number that came.
    """

    def __init__(self, url: str, way: tuple[str, ...], key: str, careful: bool) -> None:
        options: dict[str, Any] = {"retries": 1 << 30, "ackTimeout": 3.0} if careful else {}
        self.key = f"{key} by {'+'.join(way)}"
        self.careful = careful
        self.client = Client(
            url,
            auth={"key": self.key},
            transports=way,
            reactor=reactor,
            # Node notices a swallowed connection after 4 s.  An earlier recovery loses its rooms.
            reconnectionDelay=5 if careful else 0.5,
            reconnectionDelayMax=6 if careful else 2,
            randomizationFactor=0.1 if careful else 0.5,
            timeout=5,
            **options,
        )
        self.sent = 0
        self.acked: list[int] = []
        self.waiting: list[Deferred[Any]] = []
        self.faults: list[str] = []
        self.eras: dict[int, int] = {}
        self.came = 0
        self.connects = Counter[str]()
        self.client.on("down")(self.down)
        self.client.onConnect(self.connected)
        self.client.startService()

    def connected(self) -> None:
        first = not self.connects
        self.connects["first" if first else "recovered" if self.client.recovered else "anew"] += 1

    def down(self, era: int, number: int) -> None:
        """Check a number of the server: greater than the last one, and its next if nothing may be lost."""
        self.came += 1
        last = self.eras.get(era, -1)
        if number <= last or any(other > era for other in self.eras):
            self.faults.append(f"{self.key}: {number} of era {era} came after {last} of {max(self.eras)}")
        elif self.careful and number != last + 1:
            self.faults.append(f"{self.key}: {number} of era {era} came after {last}: some are lost")
        self.eras[era] = max(last, number)

    def send(self) -> None:
        """Send the next number; with retries, which have one on its way, when few wait."""
        if self.careful and self.sent - len(self.acked) > QUEUE:
            return
        if self.careful:
            self.waiting.append(self.client.call("up", self.sent).addCallback(self.acked.append))
        else:
            self.client.emit("up", self.sent)
        self.sent += 1

    def check(self, state: dict[str, int]) -> None:
        """Compare with the state of the server, at the end."""
        self.connects["overlapping"] += state["overlaps"]
        if state["backwards"]:
            self.faults.append(f"{self.key}: {state['backwards']} came to the server in a wrong order")
        if not self.careful:
            if state["repeated"]:
                self.faults.append(f"{self.key}: {state['repeated']} came twice to the server")
            if state["came"] < self.sent // 10:
                self.faults.append(f"{self.key}: only {state['came']} of {self.sent} came to the server")
            return
        if state["missing"] or state["last"] != self.sent - 1:
            self.faults.append(f"{self.key}: the server has {state} of {self.sent}")
        if self.acked != list(range(self.sent)):
            self.faults.append(f"{self.key}: the acks are not those of 0 to {self.sent}, in order")
        if self.eras.get(state["era"], -1) != state["next"] - 1:
            self.faults.append(f"{self.key}: the server sent {state['next']}, {self.eras[state['era']]} came")

    def isDone(self, state: dict[str, int]) -> bool:
        """Tell if nothing is on its way any longer."""
        return not self.careful or self.eras.get(state["era"], -1) == state["next"] - 1


class NetworkTests(TestCase):
    timeout: ClassVar[float] = SECONDS + SETTLING + 240

    async def start(self, seed: int, *arguments: str) -> str:
        """Start a server behind a network of its own; return the URL."""
        port = freePort()
        command = [str(NODE), str(ROOT / "tests/soak/clientserver.cjs"), str(port), *arguments]
        program = startProgram(self, command)
        self.programs.append(program)
        await untilListening(program, port)
        network = Network(port, seed, LIFE)
        listening = reactor.listenTCP(0, network, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.addCleanup(network.stop)
        self.networks.append(network)
        return f"http://127.0.0.1:{listening.getHost().port}"

    async def test_numberedMessages(self) -> None:
        """
        In order and none twice, both ways; with retries and recovery none lost.
        """
        requireJavaScriptClient("socket.io")
        self.programs: list[Any] = []
        self.networks: list[Network] = []
        plain = await self.start(SEED)
        careful = await self.start(SEED + 1, "recovery")
        visitors = [Visitor(plain, way, f"plain {n}", False) for n in range(3) for way in WAYS]
        visitors += [Visitor(careful, way, f"careful {n}", True) for n in range(3) for way in WAYS]
        self.addCleanup(lambda: gatherResults([visitor.client.stopService() for visitor in visitors]))
        await self.talk(visitors)
        await self.settle(visitors)
        faults = [fault for visitor in visitors for fault in visitor.faults]
        print(self.report(visitors), flush=True)
        self.assertEqual(faults, [], "\n".join(faults[:50]))
        total = sum([network.faults for network in self.networks], Counter())
        self.assertGreater(sum(total.values()), total["none"] + 4)
        # Some connections are lost before an event with an offset has come.
        connects = sum([visitor.connects for visitor in visitors if visitor.careful], Counter())
        self.assertLess(connects["anew"], 5 + connects["recovered"] // 2)

    async def talk(self, visitors: list[Visitor]) -> None:
        end = reactor.seconds() + SECONDS
        while reactor.seconds() < end:
            for visitor in visitors:
                visitor.send()
            await deferLater(reactor, EVERY)
        for program in self.programs:
            program.signal("INT")
        for network in self.networks:
            network.calm = True

    async def settle(self, visitors: list[Visitor]) -> None:
        """Wait until all that must arrive has arrived, and check."""
        for visitor in visitors:
            await gatherResults(visitor.waiting).addTimeout(SETTLING, reactor)
        for visitor in visitors:
            deadline = reactor.seconds() + SETTLING
            while True:
                # In case the connection is lost now, the question is asked again.
                self.state = await visitor.client.call("state", timeout=3).addErrback(lambda _: None)
                if self.state and (visitor.isDone(self.state) or reactor.seconds() > deadline):
                    break
                self.assertLess(reactor.seconds(), deadline + 30, visitor.key)
                await deferLater(reactor, 0.1)
            visitor.check(self.state)

    def report(self, visitors: list[Visitor]) -> str:
        """Return what there was."""
        lines = []
        for careful, network in zip((False, True), self.networks, strict=True):
            some = [visitor for visitor in visitors if visitor.careful is careful]
            connects = sum([visitor.connects for visitor in some], Counter())
            lines.append(
                f"{'retries and recovery' if careful else 'plain'}: {len(some)} clients, {SECONDS:.0f} s; "
                f"{sum(v.sent for v in some)} up, {sum(v.came for v in some)} down; "
                f"connects {dict(connects)}; connections of TCP {dict(network.faults)}"
            )
        return "\n".join(lines)
