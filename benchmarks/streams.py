"""
A stream of Redis against its channels, as buses: ``python -m benchmarks.streams``.

Two servers share a Redis: a client of the one lets it emit, and a client of the other gets the events.  The
figures are CPU times of each process for an event, and the memory that Redis keeps of it: a stream keeps all
events up to its limit, and channels none.  So it is for txrealtime, and for Node with its two adapters.  The
four pairs take turns, and each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from benchmarks import machine
from benchmarks.install import install
from benchmarks.peers import ENVIRONMENTS, ROOT, SERVERS
from txrealtime.client import Client

ENVIRONMENT = "node-streams"
ROUNDS = 7
BATCH = 100
"Events that are on their way at a time."

BATCHES = 20
TEXT = "x" * 200
PATIENCE = 30.0

PAIRS = {
    "txrealtime, redis://": ("txrealtime", "redis://127.0.0.1:{}"),
    "txrealtime, redis+streams://": ("txrealtime", "redis+streams://127.0.0.1:{}?maxlen=100000"),
    "Node, redis-adapter": ("node", "pubsub"),
    "Node, redis-streams-adapter": ("node", "streams"),
}


def freePort() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A process on the servers' core, with a port of its own."""

    def __init__(self, stack: ExitStack, command: list[str], port: int, **variables: str) -> None:
        self.port = port
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=machine.environment(**variables),
            stdout=subprocess.DEVNULL,
            preexec_fn=machine.toServerCore,
        )
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command} does not listen") from None
                time.sleep(0.05)

    def cpu(self) -> float:
        return machine.cpuTime(self.process.pid)


class Pair:
    """Two servers of a kind on a Redis of their own, with a client each."""

    def __init__(self, stack: ExitStack, kind: str, bus: str) -> None:
        port = freePort()
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        self.redis = Program(stack, command, port)
        self.servers = [
            Program(stack, self.command(kind, bus, ours, port), ours, **self.variables(kind))
            for ours in (freePort(), freePort())
        ]
        self.emitted = 0
        self.costs: list[tuple[float, ...]] = []
        self.kept: list[float] = []

    @staticmethod
    def command(kind: str, bus: str, port: int, redis: int) -> list[str]:
        if kind == "node":
            return ["node", str(SERVERS / "bus.cjs"), str(port), str(redis), bus]
        twistd = str(Path(sys.executable).with_name("twistd"))
        listen = f"tcp:{port}:interface=127.0.0.1"
        app = "benchmarks.servers.bus_app:server"
        options = ["--listen", listen, "--app", app, "--bus", bus.format(redis)]
        return [twistd, "-n", "--pidfile=", "realtime", *options]

    @staticmethod
    def variables(kind: str) -> dict[str, str]:
        if kind == "node":
            return {"NODE_PATH": str(ENVIRONMENTS / ENVIRONMENT / "node_modules")}
        return {"PYTHONPATH": str(ROOT)}

    async def start(self, reactor: Any) -> None:
        """Connect the clients."""
        self.reactor = reactor
        self.clients = []
        for server in self.servers:
            client = Client(f"http://127.0.0.1:{server.port}", reactor=reactor, transports=["websocket"])
            client.startService()
            await client.whenConnected()
            self.clients.append(client)
        self.got = 0
        self.waiting: Deferred[None] | None = None
        self.clients[1].on("news")(self.received)
        await self.clients[1].call("enter")
        # Until the servers know each other, and the room is subscribed to.
        await deferLater(reactor, 2)

    def received(self, text: str) -> None:
        self.got += 1
        if self.got == self.emitted and self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(None)

    async def turn(self) -> None:
        """Emit and receive, and note what each process has used."""
        programs = [*self.servers, self.redis]
        before = [program.cpu() for program in programs]
        memory = self.memory()
        for _ in range(BATCHES):
            self.emitted += BATCH
            self.waiting = waiting = Deferred[None]()
            waiting.addTimeout(PATIENCE, self.reactor)
            await self.clients[0].call("go", BATCH, TEXT)
            await waiting
        count = BATCH * BATCHES
        used = [after.cpu() - cpu for after, cpu in zip(programs, before, strict=True)]
        self.costs.append(tuple(seconds / count * 1e6 for seconds in used))
        self.kept.append((self.memory() - memory) / count)

    def memory(self) -> int:
        """Return the bytes that Redis uses for its data."""
        with socket.create_connection(("127.0.0.1", self.redis.port)) as connection:
            connection.sendall(b"INFO memory\r\nQUIT\r\n")
            text = b"".join(iter(lambda: connection.recv(65536), b""))
        return int(text.partition(b"used_memory_dataset:")[2].split()[0])

    def report(self, name: str) -> str:
        emitter, receiver, redis = (median(column) for column in zip(*self.costs, strict=True))
        return (
            f"{name:30} emits {emitter:6.1f} us   receives {receiver:6.1f} us   Redis {redis:6.1f} us"
            f"   kept {median(self.kept):6.0f} bytes"
        )


async def main(reactor: Any, rounds: int) -> None:
    with ExitStack() as stack:
        pairs = {name: Pair(stack, *given) for name, given in PAIRS.items()}
        machine.toLoadCore()
        for pair in pairs.values():
            await pair.start(reactor)
            await pair.turn()  # to warm up
            pair.costs.clear()
            pair.kept.clear()
        for _ in range(rounds):
            for pair in pairs.values():
                await pair.turn()
        print(f"an event of {len(TEXT)} characters, medians of {rounds} rounds of {BATCH * BATCHES} events")
        for name, pair in pairs.items():
            print(pair.report(name), flush=True)
            for client in pair.clients:
                await client.stopService()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    os.chdir(ROOT)
    install(only=[ENVIRONMENT])
    sys.exit(react(lambda reactor: Deferred.fromCoroutine(main(reactor, given.rounds))))
