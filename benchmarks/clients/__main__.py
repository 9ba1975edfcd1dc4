"""
The CPU time of clients for each ack and each event, and their memory: ``python -m benchmarks.clients``.

The client of txrealtime, that of python-socketio and that of Node talk to the same server, which has a core
of its own. All of them stay connected during the whole run and take turns at each workload: what else the
computer does hits all of them. The figures are medians of the rounds. Needs what the interop tests install.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.peers import HERE, ROOT, SERVERS, freePort

CLIENTS = HERE / "clients"
MODULES = ROOT / "tests" / "interop" / "node_modules"

PYTHON = (sys.executable,)
NODE = ("node", "--expose-gc")


@dataclass(frozen=True)
class Peer:
    """A client to measure: its title, its command, the variables of its process."""

    name: str
    title: str
    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


PEERS = [
    Peer("txrealtime", "txrealtime", (*PYTHON, "txrealtime_client.py")),
    Peer(
        "quickepoll",
        "txrealtime, quickepoll reactor",
        (*PYTHON, "txrealtime_client.py"),
        {"REACTOR": "quickepoll"},
    ),
    Peer("python-socketio", "python-socketio, AsyncClient", (*PYTHON, "python_socketio_client.py")),
    Peer("node", "Node, emitWithAck and timeout", (*NODE, "node_client.cjs")),
    Peer("node-callback", "Node, callbacks", (*NODE, "node_client.cjs"), {"CALL": "callback"}),
]

WORKLOADS: list[tuple[str, str, int, int]] = [
    ("an ack, one at a time", "acks", 1000, 1),
    ("an ack, 100 in flight", "acks", 5000, 100),
    ("an event, one in a turn of the server", "events", 5000, 1),
    ("an event, 50 in a turn of the server", "events", 10000, 50),
    ("an event, 50 in a write of the server", "answers", 10000, 50),
]
"Title, command, and the command's arguments: how many, and how many at a time."


class Running:
    """A client's process: a context manager."""

    def __init__(self, peer: Peer, url: str) -> None:
        self.process = subprocess.Popen(
            peer.command,
            cwd=CLIENTS,
            env=machine.environment(
                **peer.variables, URL=url, MODULES=str(MODULES), NODE_ENV="production", PYTHONPATH=str(ROOT)
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *command: Any) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        result: dict[str, float] = json.loads(self.process.stdout.readline())
        return result

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def server(port: int, pingInterval: float) -> subprocess.Popen[str]:
    """Start the server on its core; return when it listens."""
    program = subprocess.Popen(
        [
            *(sys.executable, "-m", "twisted", "--log-format=text", "realtime"),
            *("--app", "client_app:server"),
            *("--listen", f"tcp:{port}:interface=127.0.0.1:backlog=1024"),
        ],
        cwd=SERVERS,
        env=machine.environment(PYTHONPATH=f"{SERVERS}{os.pathsep}{ROOT}", PING_INTERVAL=str(pingInterval)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=machine.toServerCore,
    )
    assert program.stdout is not None
    for line in program.stdout:
        if "starting on" in line.lower() or "listening" in line.lower():
            return program
    raise SystemExit("the server did not start")


def measureTimes(running: dict[str, Running], rounds: int) -> dict[tuple[str, str], float]:
    """Return microseconds of CPU, by workload and client."""
    costs: dict[tuple[str, str], float] = {}
    for title, command, count, many in WORKLOADS:
        for program in running.values():
            program(command, count, many)  # for the compilers of Node, and all caches
        samples: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(rounds):
            for name, program in running.items():
                samples[name].append(program(command, count, many)["cpu"] / count * 1e6)
        for name, values in samples.items():
            costs[title, name] = median(values)
    return costs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients")
    parser.add_argument("--only", metavar="CLIENT,...", help="of " + ", ".join(p.name for p in PEERS))
    parser.add_argument("--rounds", type=int, metavar="N", default=9)
    parser.add_argument("--idle", type=int, metavar="N", default=500, help="idle clients in each process")
    parser.add_argument("--many", type=int, metavar="N", default=5000, help="of txrealtime, in one process")
    given = parser.parse_args()
    peers = [peer for peer in PEERS if not given.only or peer.name in given.only.split(",")]
    needed = given.many + given.idle * len(peers) + 500
    if machine.raiseFileLimit(needed) < needed:
        raise SystemExit(f"{needed} open files are needed: raise the limit (ulimit -Hn), or lower --many")
    port = freePort()
    program = server(port, 5)
    machine.toLoadCore()
    running = {peer.name: Running(peer, f"http://127.0.0.1:{port}") for peer in peers}
    try:
        costs = measureTimes(running, given.rounds)
        print(f"{'us of the CPU for':40}", *[f"{peer.name:>16}" for peer in peers])
        for title, *_ in WORKLOADS:
            print(f"{title:40}", *[f"{costs[title, peer.name]:16.1f}" for peer in peers], flush=True)
        if given.idle:
            idle = [running[peer.name]("idle", given.idle) for peer in peers]
            print(
                f"{'kB for an idle client':40}", *[f"{r['memory'] / given.idle / 1000:16.1f}" for r in idle]
            )
            print(f"{'us of the CPU to connect':40}", *[f"{r['cpu'] / given.idle * 1e6:16.0f}" for r in idle])
        if given.many:
            for each in running.values():
                each.end()
            running["many"] = Running(peers[0], f"http://127.0.0.1:{port}")
            made = running["many"]("idle", given.many)
            stayed = running["many"]("stay", 20)
            print(
                f"{given.many} clients of {peers[0].name} in one process: {made['memory'] / 1e6:.0f} MB, "
                f"{made['cpu']:.1f} s of the CPU to connect; after 20 s, four heartbeats, "
                f"{stayed['connected']:.0f} are connected, at {stayed['cpu'] / 20:.1%} of a core"
            )
    finally:
        for each in running.values():
            each.end()
        program.kill()
        program.wait()


if __name__ == "__main__":
    main()
