"""
The tasks that every server gets, and their measurements.

`Steady` workloads are measured again and again on servers that stay, the servers taking turns in each round,
so that what else the computer does meets all of them alike. `Fresh` ones get a new process each time.
"""

from __future__ import annotations

import gc
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from random import Random
from statistics import quantiles
from typing import Any

from benchmarks.lives import PollingLife, WebSocketLife
from benchmarks.load import Busy, Loop, Tally, Wrong, openAll
from benchmarks.peers import Peer, Running, RunningCluster
from benchmarks.polling import PollingClient
from benchmarks.websocket import Asker, Crowd, Exchange, Listener, Rotation, WebSocketClient, dumps

HEARTBEAT = 25.0
"Seconds between heartbeats: what all servers do unless they are told otherwise."

SATURATED = 0.95
"The part of its core above which the load generator has been what limits the server."


@dataclass(frozen=True)
class Effort:
    """
    The amount of measuring: seconds, rounds and numbers of clients.

    :ivar rounds: how often each server has its turn.
    :ivar seconds: how long a turn takes.
    :ivar warm: for how long a server is loaded before its first turn: Node compiles what runs often.
    :ivar opened: connections that come and go in a turn of `life`.
    :ivar idle: numbers of idle connections whose memory is measured.
    :ivar secure: the same over TLS.
    :ivar beating: idle clients whose heartbeats are measured; 0 for none.  Over TLS, the last of `secure`.
    :ivar growth: numbers of connections at which the cost of a message is measured.
    """

    rounds: int = 5
    seconds: float = 2.0
    warm: float = 2.0
    opened: int = 2000
    idle: Sequence[int] = (100, 1000, 2500, 5000, 10_000)
    secure: Sequence[int] = (100, 1000, 2000)
    beating: int = 10_000
    growth: Sequence[int] = (100, 300, 1000, 3000, 10_000)


_OPENING = 30.0
"Seconds in which the clients of an exchange connect: the other servers await their heartbeats meanwhile."

SHORT = Effort(
    rounds=3,
    seconds=0.3,
    warm=0.5,
    opened=200,
    idle=(100, 500, 1000),
    secure=(100, 250),
    beating=0,
    growth=(100, 1000),
)


@dataclass
class Sample:
    """
    One measurement of a server.

    :ivar connections: how many there were.
    :ivar values: what was measured, by name: ``cpu`` and ``generator`` in microseconds for each message (or
        connection), ``p50`` and ``p99`` in milliseconds, ``busy`` and ``generatorBusy`` as part of a core,
        ``memory`` and ``each`` (for each connection) in bytes, ``load`` in percent of a core.
    :ivar wrong: why nothing of the server and workload counts.
    :ivar busy: why this sample alone does not count: the load was too busy.
    """

    workload: str
    peer: str
    round: int
    connections: int
    values: dict[str, float] = field(default_factory=dict)
    wrong: str = ""
    busy: str = ""

    def asDict(self) -> dict[str, Any]:
        """The sample for JSON."""
        return asdict(self)


class Meter:
    """The CPU time of a server and of the load generator since the object was made."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._redis: Callable[[], float] | None = getattr(running, "redisCPU", None)
        self._redisBefore = self._redis() if self._redis else 0.0
        self._server, self._generator, self._wall = running.cpu(), time.process_time(), time.perf_counter()

    def read(self, count: int, latencies: Sequence[float]) -> dict[str, float]:
        """The values of a sample, for so many messages."""
        server = self._running.cpu() - self._server
        generator = time.process_time() - self._generator
        wall = time.perf_counter() - self._wall
        if len(latencies) < 2:
            raise Wrong(f"{count} answers in {wall:.1f} s")
        percentiles = quantiles(latencies, n=100)
        return {
            "cpu": server / count * 1e6,
            "generator": generator / count * 1e6,
            "p50": percentiles[49] * 1e3,
            "p99": percentiles[98] * 1e3,
            "busy": server / wall,
            "generatorBusy": generator / wall,
            "rate": count / wall,
            "memory": self._running.memory(),
            **({"redis": (self._redis() - self._redisBefore) / count * 1e6} if self._redis else {}),
        }


def measure(running: Running, loop: Loop, tally: Tally, seconds: float) -> dict[str, float]:
    """
    Load a server for so long, after a moment to get warm.

    From nothing under way to nothing under way: all that the server does is for the messages counted.
    """
    for duration in (seconds / 4, seconds):
        tally.done = tally.asked = 0
        tally.latencies.clear()
        meter = Meter(running)
        tally.start()
        loop.run(duration)
        tally.stop(loop)
    values = meter.read(tally.done, tally.latencies)
    if values["generatorBusy"] > SATURATED:
        raise Busy(f"the load generator was busy for {values['generatorBusy']:.0%} of the time")
    return values


class Workload(ABC):
    """
    Something to ask of every server.

    :ivar name: for the command line.
    :ivar title: for tables and charts.
    :ivar unit: what the cost is for.
    """

    kind: str

    def __init__(self, name: str, title: str, unit: str) -> None:
        self.name = name
        self.title = title
        self.unit = unit

    @abstractmethod
    def run(self, peers: Sequence[Peer], effort: Effort, running: dict[str, Running]) -> Iterator[Sample]:
        """
        Measure servers.

        :param running: their processes, for workloads that need no fresh ones.
        """


# -- on servers that stay ------------------------------------------------------------------


class Steady(Workload):
    """Clients that stay connected all the time, and rounds in which the servers take turns."""

    kind = "messages"

    def __init__(self, name: str, title: str, unit: str, connections: int) -> None:
        super().__init__(name, title, unit)
        self.connections = connections

    @abstractmethod
    def prepare(self, loop: Loop, running: Running) -> Clients:
        """Open the clients of a server."""

    def run(self, peers: Sequence[Peer], effort: Effort, running: dict[str, Running]) -> Iterator[Sample]:
        ready: dict[str, Clients] = {}
        wrong: dict[str, str] = {}
        for peer in peers:
            _catchUp(peers, ready, wrong)
            with _noted(wrong, peer):
                ready[peer.name] = clients = self.prepare(Loop(), running[peer.name])
                measure(running[peer.name], clients.loop, clients.tally, effort.warm)
        for turn in range(effort.rounds):
            for peer in peers:
                _catchUp(peers, ready, wrong)
                sample = Sample(self.name, peer.name, turn, self.connections)
                if peer.name not in wrong:
                    with _noted(wrong, peer, sample):
                        clients = ready[peer.name]
                        sample.values = measure(
                            running[peer.name], clients.loop, clients.tally, effort.seconds
                        )
                sample.wrong = wrong.get(peer.name, "")
                yield sample
        for clients in ready.values():
            clients.close()


@dataclass
class Clients:
    """The clients of one server."""

    loop: Loop
    tally: Tally
    opened: Sequence[Any]

    def close(self) -> None:
        """End them."""
        for client in self.opened:
            client.close()


def _catchUp(peers: Sequence[Peer], ready: Mapping[str, Clients], wrong: dict[str, str]) -> None:
    """Answer the heartbeats of servers whose turn it is not."""
    for peer in peers:
        if peer.name in ready and peer.name not in wrong:
            with _noted(wrong, peer):
                ready[peer.name].loop.catchUp()


@contextmanager
def _noted(wrong: dict[str, str], peer: Peer, sample: Sample | None = None) -> Iterator[None]:
    """
    Keep what a server does wrong for its samples; the others are measured all the same.

    :param sample: the one being taken, which alone does not count if the load is too busy.
    """
    try:
        yield
    except Busy as error:
        if sample is not None:
            sample.busy = str(error)
    except Wrong as error:
        wrong[peer.name] = str(error)


class Acknowledged(Steady):
    """
    Events that are echoed by their acknowledgement.

    :param value: makes what is echoed, from a number.
    :param values: how many different ones.
    """

    def __init__(
        self,
        name: str,
        title: str,
        value: Callable[[int], Any],
        values: int = 64,
        inFlight: int = 1,
        connections: int = 100,
        client: Callable[..., Any] = Asker,
        unit: str = "message",
    ) -> None:
        super().__init__(name, title, unit, connections)
        self._value = value
        self._values = values
        self._inFlight = inFlight
        self._client = client

    def prepare(self, loop: Loop, running: Running) -> Clients:
        exchange = Exchange([self._value(i) for i in range(self._values)], self._inFlight)
        numbers = count()
        exchange.clients = openAll(
            loop,
            self.connections,
            lambda opened: self._client(loop, running.address, opened, exchange, next(numbers)),
            seconds=_OPENING,
        )
        return Clients(loop, exchange, exchange.clients)


class Broadcast(Steady):
    """One client speaks and everybody hears it; the cost is that of one delivery."""

    def prepare(self, loop: Loop, running: Running) -> Clients:
        crowd = Crowd([text(i) for i in range(4)])
        crowd.clients = openAll(
            loop, self.connections, lambda opened: Listener(loop, running.address, opened, crowd)
        )
        return Clients(loop, crowd, crowd.clients)


class Across(Steady):
    """
    One client speaks on its own server, and all on four others hear it; the cost is that of one delivery, of
    all five together.
    """

    PEERS = frozenset({"txrealtime", "txrealtime-pure", "node-ws", "python-socketio"})

    def run(self, peers: Sequence[Peer], effort: Effort, running: dict[str, Running]) -> Iterator[Sample]:
        chosen = [peer for peer in peers if peer.name in self.PEERS]
        with ExitStack() as stack:
            clusters: dict[str, Any] = {
                peer.name: stack.enter_context(RunningCluster(peer)) for peer in chosen
            }
            yield from super().run(chosen, effort, clusters)

    def prepare(self, loop: Loop, running: Any) -> Clients:
        crowd = Crowd([text(i) for i in range(4)])
        first, *others = running.servers
        crowd.clients = openAll(loop, 1, lambda opened: Listener(loop, first.address, opened, crowd))
        for server in others:
            crowd.clients += openAll(
                loop,
                self.connections // len(others),
                partial(self._listener, loop, server.address, crowd),
            )
        return Clients(loop, crowd, crowd.clients)

    @staticmethod
    def _listener(loop: Loop, address: Any, crowd: Crowd, opened: Callable[[], None]) -> Listener:
        return Listener(loop, address, opened, crowd)


class Lives(Workload):
    """
    Whole lives of connections: opened, let into the namespace and into a room, and closed.

    :param life: begins a life, and calls its last argument at the end.
    """

    kind = "messages"

    def __init__(self, name: str, title: str, life: Callable[..., Any], secure: bool = False) -> None:
        super().__init__(name, title, "life")
        self._life = life
        self._secure = secure

    def run(self, peers: Sequence[Peer], effort: Effort, running: dict[str, Running]) -> Iterator[Sample]:
        with ExitStack() as stack:
            if self._secure:
                running = {peer.name: stack.enter_context(Running(peer, secure=True)) for peer in peers}
            wrong: dict[str, str] = {}
            for turn in range(effort.rounds):
                for peer in peers:
                    sample = Sample(self.name, peer.name, turn, effort.opened)
                    if peer.name not in wrong:
                        with _noted(wrong, peer, sample):
                            sample.values = self._measure(running[peer.name], effort.opened)
                    sample.wrong = wrong.get(peer.name, "")
                    yield sample

    def _measure(self, running: Running, number: int) -> dict[str, float]:
        loop = Loop()
        context = (_trusting(),) if self._secure else ()
        for lives in (min(number, 500), number):
            meter = Meter(running)
            ended = openAll(loop, lives, lambda end: self._life(loop, running.address, end, *context))
            _untilIdle(running)
            values = meter.read(lives, [life.endedAt - life.startedAt for life in ended])
        return values


def _untilIdle(running: Running, seconds: float = 10.0) -> None:
    """Wait until a server has nothing left to do."""
    end = time.monotonic() + seconds
    quiet = 0
    while quiet < 3 and time.monotonic() < end:
        before = running.cpu()
        time.sleep(0.05)
        quiet = quiet + 1 if running.cpu() - before < 0.005 else 0


# -- on fresh servers ----------------------------------------------------------------------


class Fresh(Workload):
    """
    A process for each measurement.

    :param secure: over TLS.
    """

    def __init__(self, name: str, title: str, unit: str, secure: bool = False) -> None:
        super().__init__(name, title, unit)
        self._secure = secure

    @abstractmethod
    def measure(self, running: Running, effort: Effort) -> Iterator[tuple[int, dict[str, float]]]:
        """Numbers of connections, and what is measured with so many."""

    def rounds(self, effort: Effort) -> int:
        """Return the number of turns of each server."""
        return 1

    def run(self, peers: Sequence[Peer], effort: Effort, running: dict[str, Running]) -> Iterator[Sample]:
        for turn in range(self.rounds(effort)):
            for peer in peers:
                try:
                    with Running(peer, self._secure) as fresh:
                        for connections, values in self.measure(fresh, effort):
                            yield Sample(self.name, peer.name, turn, connections, values)
                except Wrong as error:
                    yield Sample(self.name, peer.name, turn, 0, wrong=str(error))
                # Connections and their loop refer to one another: without this, thousands stay open.
                gc.collect()


class Memory(Fresh):
    """The memory of idle connections, above that of a server whose earlier clients have left."""

    kind = "memory"

    def measure(self, running: Running, effort: Effort) -> Iterator[tuple[int, dict[str, float]]]:
        loop = Loop()
        make = partial(_idle, loop, running, _trusting() if self._secure else None)
        for client in openAll(loop, 20, make):
            client.close()
        _untilIdle(running)
        before = running.memory()
        clients: list[WebSocketClient] = []
        for connections in effort.secure if self._secure else effort.idle:
            clients += openAll(loop, connections - len(clients), make)
            _untilIdle(running)
            loop.catchUp()
            memory = running.memory()
            yield connections, {"memory": memory, "each": (memory - before) / connections}


class Heartbeats(Fresh):
    """The CPU time that the heartbeats of idle clients take."""

    kind = "load"

    def measure(self, running: Running, effort: Effort) -> Iterator[tuple[int, dict[str, float]]]:
        clients = effort.secure[-1] if self._secure else effort.beating
        if not effort.beating:
            return
        loop = Loop()
        openAll(loop, clients, partial(_idle, loop, running, _trusting() if self._secure else None))
        _untilIdle(running)
        loop.run(1.0)
        meter = Meter(running)
        loop.run(HEARTBEAT)
        values = meter.read(clients, [0.0, 0.0])
        if values["generatorBusy"] > SATURATED:
            raise Wrong("the load generator was saturated")
        yield clients, {"load": values["busy"] * 100, "generatorBusy": values["generatorBusy"]}


class Growth(Fresh):
    """The cost of an acknowledged event while the connections grow in number, and the clients take turns."""

    kind = "growth"

    def rounds(self, effort: Effort) -> int:
        return max(1, effort.rounds // 2)

    def measure(self, running: Running, effort: Effort) -> Iterator[tuple[int, dict[str, float]]]:
        loop = Loop()
        exchange = Rotation([text(i) for i in range(4)], atOnce=100)
        numbers = count()
        for connections in effort.growth:
            exchange.clients += openAll(
                loop,
                connections - len(exchange.clients),
                lambda opened: Asker(loop, running.address, opened, exchange, next(numbers)),
            )
            _untilIdle(running)
            if connections == effort.growth[0]:
                measure(running, loop, exchange, effort.warm)
            yield connections, measure(running, loop, exchange, effort.seconds)


def _idle(
    loop: Loop, running: Running, context: ssl.SSLContext | None, opened: Callable[[], None]
) -> WebSocketClient:
    return WebSocketClient(loop, running.address, opened, context)


def _trusting() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# -- what is echoed --------------------------------------------------------------------------


def text(number: int, size: int = 64) -> str:
    """A text of so many bytes, another for each number, and the same in each run."""
    return "".join(Random(number).choices("etaoin shrdlucmfwypvbgkjqxz,.-0123456789", k=size))


def record(number: int) -> dict[str, Any]:
    """An object of 1 KiB as JSON, such as a page would get."""
    line = {"sku": "4006381333931", "title": "Fineliner 0.4 mm", "amount": 12, "price": 1.25, "taxed": True}
    value: dict[str, Any] = {
        "id": 100_000 + number,
        "customer": {"name": "", "mail": "ada@example.org", "tags": ["early", "paper"]},
        "lines": [line] * 8,
        "shipped": None,
        "note": "",
    }
    value["customer"]["name"] = text(number, 20)
    value["note"] = "x" * (1024 - len(dumps(value)))
    return value


WORKLOADS: list[Workload] = [
    Acknowledged("ack", "ack, 64 bytes, 1 in flight", text),
    Acknowledged("ack-8", "ack, 64 bytes, 8 in flight", text, inFlight=8),
    Acknowledged("json", "ack, 1 KiB JSON, 1 in flight", record),
    Acknowledged("json-8", "ack, 1 KiB JSON, 8 in flight", record, inFlight=8),
    Acknowledged("large", "ack, 64 KiB, 1 in flight", partial(text, size=1 << 16), values=8, connections=20),
    Broadcast("broadcast", "broadcast to 1,000", "delivery", connections=1000),
    Across("cluster", "broadcast to 4 servers x 250", "delivery", connections=1000),
    Acknowledged("polling", "long polling, POST and GET", text, client=PollingClient, unit="round trip"),
    Lives("life", "life by WebSocket", WebSocketLife),
    Lives("life-polling", "life by long polling", PollingLife),
    Lives("life-tls", "life by WebSocket over TLS", WebSocketLife, secure=True),
    Memory("memory", "idle WebSocket connections", "connection"),
    Memory("memory-tls", "idle WebSocket connections over TLS", "connection", secure=True),
    Heartbeats("heartbeat", "heartbeats of idle clients", "client"),
    Heartbeats("heartbeat-tls", "heartbeats of idle clients over TLS", "client", secure=True),
    Growth("growth", "ack, 64 bytes, 100 in flight over all connections", "message"),
]


def run(
    workloads: Sequence[Workload], peers: Sequence[Peer], effort: Effort, say: Callable[[str], None]
) -> Iterator[Sample]:
    """Measure workload after workload, with the servers taking turns in each."""
    with ExitStack() as stack:
        steady = any(not isinstance(workload, Fresh) for workload in workloads)
        running = {peer.name: stack.enter_context(Running(peer)) for peer in peers if steady}
        for workload in workloads:
            say(f"{workload.name}: {workload.title}")
            chosen = [peer for peer in peers if not peer.only or workload.name in peer.only]
            yield from workload.run(chosen, effort, running)
