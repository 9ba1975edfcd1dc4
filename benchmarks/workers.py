"""
All cores: several workers beside one process and beside Node's cluster, ``python -m benchmarks.workers``.

First the cost: the CPU time of all processes of a server for each message, in user and kernel mode, the
servers taking turns on one core while the load has another.  The load's own time is not part of it.

- All servers of a comparison get the same load from the same number of clients: 100 for each of 4 workers, so
  400 for one process too.  Each worker then finds as many messages at a wake-up as one process with 100
  clients does; with fewer clients, wake-ups are compared and not messages.
- Here all workers share one core; in use each has its own, where messages for another do not interrupt it.
  So all servers run under ``SCHED_BATCH``, which keeps them from it.
- ``handed``: each request of a polling client has a connection of its own, also with one process.  Any worker
  accepts it, so three of four connections are handed over.  The cost is that of a POST and a GET, with both
  connections.
- ``relayed``: each client has two connections that stay, also with one process, and any worker has got them
  before, for a request of something else.  So three of four requests are relayed, as from a proxy's pool.
- ``hub`` is the CPU time of the hub alone: see :mod:`benchmarks.hub`.

Then the throughput of one worker and of two on all cores, load included.  The results go to a folder, with a
chart of the throughput; ``--chart`` measures this alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.hub import measureHub
from benchmarks.install import install
from benchmarks.load import Address, Loop, Wrong
from benchmarks.metrics import Here
from benchmarks.peers import ENVIRONMENTS, ROOT, Peer, Running, twistd
from benchmarks.polling import HTTPConnection, PollingClient
from benchmarks.workloads import Acknowledged, Broadcast, Effort, Steady, measure, text

CROWD = 1000
WORKERS = 4
CLIENTS = 100 * WORKERS

PASSED = re.compile(r"(\d+) connections handed over, (\d+) requests relayed, (\d+) WebSockets")


# -- servers of several processes --------------------------------------------------------------


def familyOf(pid: int) -> Iterator[int]:
    """Yield a process and all that it has started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from familyOf(int(child))


class RunningFamily(Running):
    """A server whose CPU time and memory are those of all its processes."""

    def _untilListening(self, seconds: float = 60.0) -> None:
        # The port of a supervisor takes connections before a worker does.
        deadline = time.monotonic() + seconds
        while "serving Socket.IO at" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Wrong(f"{self.peer.name} does not serve\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        self.family = list(familyOf(self.pid))

    def _end(self) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        super()._end()

    def cpu(self) -> float:
        return sum(map(machine.cpuTime, self.family))

    def supervisorCPU(self) -> float:
        """Seconds of CPU of the first process."""
        return machine.cpuTime(self.pid)

    def memory(self) -> int:
        return sum(map(machine.residentMemory, self.family))

    def _tasks(self) -> Iterator[int]:
        """Yield the threads of all processes."""
        for pid in self.family:
            for task in Path(f"/proc/{pid}/task").iterdir():
                yield int(task.name)

    def spread(self) -> None:
        """Let all processes run on all cores."""
        for task in self._tasks():
            os.sched_setaffinity(task, machine.CORES)

    def uninterrupted(self) -> None:
        """Let no process interrupt another when a message wakes it up."""
        for task in self._tasks():
            os.sched_setscheduler(task, os.SCHED_BATCH, os.sched_param(0))

    def passed(self) -> tuple[int, ...]:
        """Return the connections handed over, requests relayed and WebSockets carried, after the end."""
        found = PASSED.findall(self.log.read_text())
        return tuple(sum(int(line[place]) for line in found) for place in range(3))


def ours(name: str, title: str, *options: str) -> Peer:
    """Make a server of this checkout."""
    command = (*twistd(), "--health", "/health", *options)
    return Here(name, title, "", command, versions=())


ONE = ours("one", "one process")
MANY = ours("workers", f"{WORKERS} workers", "--workers", str(WORKERS))
NODE = Peer(
    "node-cluster",
    f"Node, {WORKERS} workers, cluster-adapter and sticky",
    "node-cluster",
    ("node", "node_cluster.cjs"),
    versions=(),
    variables={"WORKERS": str(WORKERS)},
)


# -- polling clients whose connections reach any worker ------------------------------------------


class FreshConnection(HTTPConnection):
    """A connection that is made anew for each request."""

    __slots__ = ("_used",)

    def __init__(self, loop: Loop, address: Address) -> None:
        self._used = False
        super().__init__(loop, address)

    def request(self, data: bytes, answered: Callable[[bytes, float], None]) -> None:
        if self._used:
            self.close()
        self._used = True
        super().request(data, answered)


class PooledConnection(HTTPConnection):
    """A connection that any worker has got before it names a session: as one of a proxy's pool."""

    __slots__ = ("_pooled",)

    def __init__(self, loop: Loop, address: Address) -> None:
        self._pooled = False
        super().__init__(loop, address)

    def request(self, data: bytes, answered: Callable[[bytes, float], None]) -> None:
        if self._pooled:
            super().request(data, answered)
            return
        self._pooled = True
        super().request(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", lambda body, now: self.request(data, answered)
        )


class FreshClient(PollingClient):
    """A polling client with a connection for each request."""

    connection = FreshConnection


class PooledClient(PollingClient):
    """A polling client behind a proxy: any connection may carry its requests."""

    connection = PooledConnection

    def __init__(self, loop: Loop, address: Address, *rest: Any) -> None:
        self._place = loop, address
        super().__init__(loop, address, *rest)

    def _handshaken(self, body: bytes, now: float) -> None:
        # The worker of this connection has opened the session.
        self._down.close()
        self._down = self.connection(*self._place)
        super()._handshaken(body, now)


# -- what is measured --------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """
    A ratio of costs, which shall not be more than a limit.

    :ivar most: the limit.
    """

    workload: str
    peer: str
    reference: str
    most: float


ACK = Acknowledged("ack", "WebSocket, ack of 64 bytes", text, connections=CLIENTS)
HANDED = Acknowledged(
    "handed",
    "polling, fresh connections",
    text,
    client=FreshClient,
    unit="round trip",
    connections=CLIENTS,
)
RELAYED = Acknowledged(
    "relayed",
    "polling, pooled connections",
    text,
    client=PooledClient,
    unit="round trip",
    connections=CLIENTS,
)
BROADCAST = Broadcast("broadcast", f"broadcast to {CROWD:,}", "delivery", connections=CROWD)

COSTS: dict[Steady, list[Peer]] = {
    ACK: [ONE, MANY],
    HANDED: [ONE, MANY],
    RELAYED: [ONE, MANY],
    BROADCAST: [ONE, MANY, NODE],
}

GOALS = [
    Goal("ack", "workers", "one", 1.05),
    Goal("handed", "workers", "one", 1.25),
    Goal("relayed", "workers", "one", 1.6),
    Goal("broadcast", "workers", "one", 1.15),
    Goal("broadcast", "workers", "node-cluster", 0.6),
]

MOST_HUB = 4.0
"Microseconds of the hub's CPU for a publish to four workers."

Costs = dict[tuple[str, str], list[float]]


def measureCosts(effort: Effort, chosen: Sequence[str], starts: int) -> tuple[Costs, dict[str, list[int]]]:
    """
    Measure the CPU time of a message.

    The servers are started anew several times: each start puts a process elsewhere in memory, which alone
    makes a difference of some 5 %, and with several processes on one core more.

    :return: by workload and server, the microseconds of each turn; and by workload, what was passed on.
    """
    costs: Costs = {}
    passed: dict[str, list[int]] = {}
    for workload in COSTS:
        if workload.name not in chosen:
            continue
        passed[workload.name] = [0, 0, 0]
        good = 0
        for number in range(2 * starts):
            good += measureStart(workload, effort, number, costs, passed[workload.name])
            if good == starts:
                break
        else:
            raise SystemExit(f"{workload.name}: the load was too slow at {2 * starts - good} starts")
    return costs, passed


def measureStart(workload: Steady, effort: Effort, number: int, costs: Costs, passed: list[int]) -> bool:
    """
    Measure all servers of a workload, started anew.

    :return: ``False`` if one was faster than the load; then nothing of this start counts.
    """
    peers = COSTS[workload] if number % 2 else COSTS[workload][::-1]
    samples = []
    with ExitStack() as stack:
        running = {peer.name: stack.enter_context(RunningFamily(peer)) for peer in peers}
        for server in running.values():
            server.uninterrupted()
        for sample in workload.run(peers, effort, dict(running)):
            if wrong := sample.wrong or sample.busy:
                say(f"   {workload.name}, {sample.peer}: {wrong}: this start does not count")
                return False
            samples.append(sample)
            say(f"   {workload.name:10} {sample.peer:14} {sample.values['cpu']:8.2f} us")
    for sample in samples:
        costs.setdefault((workload.name, sample.peer), []).append(sample.values["cpu"])
    for place, count in enumerate(running["workers"].passed()):
        passed[place] += count
    gc.collect()
    return True


def ratio(costs: Costs, workload: str, peer: str, reference: str) -> float:
    """Return the median of the ratios of two servers in the same round."""
    pairs = zip(costs[workload, peer], costs[workload, reference], strict=True)
    return median(cost / other for cost, other in pairs)


LOADS: list[Steady] = [
    Acknowledged("ack-8", "WebSocket, ack, 8 in flight", text, inFlight=8),
    Acknowledged("polling", "polling, POST and GET", text, client=PollingClient, unit="round trip"),
    Broadcast("broadcast", f"broadcast to {CROWD:,}", "delivery", connections=CROWD),
]


def measureThroughput(effort: Effort) -> dict[str, dict[int, float]]:
    """Return messages per second, by workload and number of workers, with the load on the same two cores."""
    os.sched_setaffinity(0, machine.CORES)
    rates: dict[str, dict[int, float]] = {}
    peers = {count: ours(f"{count}-workers", "", "--workers", str(count)) for count in (1, 2)}
    for workload in LOADS:
        with ExitStack() as stack:
            clients = {}
            for count, peer in peers.items():
                running = stack.enter_context(RunningFamily(peer))
                running.spread()
                clients[count] = running, workload.prepare(Loop(), running)
            found: dict[int, list[float]] = {count: [] for count in peers}
            for _ in range(effort.rounds):
                for count, (running, opened) in clients.items():
                    for _, other in clients.values():
                        other.loop.catchUp()
                    values = measure(running, opened.loop, opened.tally, effort.seconds)
                    found[count].append(values["rate"])
                    say(f"   {workload.name:10} {count} workers {values['rate']:10,.0f}/s")
            for _, opened in clients.values():
                opened.close()
        rates[workload.title] = {count: median(each) for count, each in found.items()}
        gc.collect()
    return rates


# -- the report --------------------------------------------------------------------------------


def report(record: dict[str, Any], costs: Costs) -> str:
    """Make the report."""
    facts = ", ".join(f"{name} {value}" for name, value in record["machine"].items())
    lines = [f"{record['date']}, {facts}", ""]
    for (workload, peer), values in costs.items():
        lines.append(
            f"{workload:10} {peer:14} {median(values):8.2f} us ({min(values):.2f} to {max(values):.2f})"
        )
    lines.append("")
    for goal in GOALS:
        if (goal.workload, goal.peer) in costs:
            found = ratio(costs, goal.workload, goal.peer, goal.reference)
            pair = f"{goal.peer} / {goal.reference}"
            verdict = "" if found <= goal.most else "  MISSED"
            lines.append(f"{goal.workload:10} {pair}: {found:.2f} (at most {goal.most}){verdict}")
    for workload, (handed, relayed, carried) in record["passed"].items():
        lines.append(
            f"{workload:10} {handed} connections handed over, {relayed} requests relayed, {carried} carried"
        )
    for shown, cost in record["hub"]:
        # A publish that comes alone pays for the whole turn of the reactor.
        verdict = "  MISSED" if "many" in shown and cost >= MOST_HUB else ""
        lines.append(f"hub, {shown}: {cost:.2f} us (at most {MOST_HUB:g} of many){verdict}")
    for workload, rates in record["throughput"].items():
        lines.append(
            f"{workload}: {rates[1]:,.0f}/s by 1 worker, {rates[2]:,.0f}/s by 2: {rates[2] / rates[1]:.2f} x"
        )
    return "\n".join(lines) + "\n"


def draw(throughput: dict[str, dict[int, float]], file: Path) -> None:
    """Draw the throughput of one worker and of two."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, len(throughput), figsize=(3 * len(throughput), 3.2), layout="constrained"
    )
    for axes, (title, rates) in zip(panels, throughput.items(), strict=True):
        bars = axes.bar(
            ["1 worker", "2 workers"], [rates[1], rates[2]], color=["#7fb2d9", "#1b6ca8"], width=0.6
        )
        axes.bar_label(bars, [f"{rates[count]:,.0f}" for count in (1, 2)], fontsize=9)
        axes.set_title(f"{title}\n{rates[2] / rates[1]:.2f} x", fontsize=10)
        axes.set_ylim(0, 1.15 * max(rates.values()))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("messages per second")
    figure.savefig(file, dpi=120)


def say(line: str) -> None:
    """Tell what happens."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    names = ",".join(workload.name for workload in COSTS)
    parser.add_argument("--only", default=names, metavar="WORKLOAD,...", help=f"of {names}")
    parser.add_argument("--starts", type=int, default=6, metavar="N", help="starts of each server")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="turns of each server at a start")
    parser.add_argument("--chart", action="store_true", help="the throughput and its chart alone")
    parser.add_argument("--seconds", type=float, default=0.6, metavar="S", help="length of a turn")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    given = parser.parse_args()
    if len(machine.CORES) < 2:
        raise SystemExit("one core for the servers and one for the load: this needs two")
    machine.raiseFileLimit(8 * CROWD)
    effort = replace(Effort(), rounds=given.rounds, seconds=given.seconds, warm=1.0)
    hub: list[tuple[str, float]] = []
    costs: Costs = {}
    passed: dict[str, list[int]] = {}
    if not given.chart:
        install(only=["node-cluster"])
        hub = measureHub(WORKERS)
        machine.toLoadCore()
        costs, passed = measureCosts(effort, given.only.split(","), given.starts)
    throughput = measureThroughput(effort)
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine.describe(),
        "effort": str(effort),
        "costs": {f"{workload}, {peer}": values for (workload, peer), values in costs.items()},
        "passed": passed,
        "hub": hub,
        "throughput": throughput,
    }
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "workers.json").write_text(json.dumps(record, indent=1))
    draw(throughput, given.output / "workers.png")
    print(report(record, costs))


if __name__ == "__main__":
    ENVIRONMENTS.mkdir(exist_ok=True)
    main()
