"""
A model of how many clients a machine holds: ``python -m benchmarks.capacity``.

The model is fitted to the figures of ``benchmarks/capacity.json``, of ``python -m benchmarks.idle`` and
``python -m benchmarks.spread``.  Two numbers of clients are left out of the fit, and the model is compared
with them.  Then it is worked out for one million clients on one machine, and twenty million on many.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

FIGURES = Path(__file__).parent / "capacity.json"

HELD_OUT = 2
"The measured numbers of clients that are not used: the largest one, and the one in the middle."

BUSY = 0.6
"The part of a core that a process may use: the rest is for bursts, and for reconnecting clients."

OVERHEAD = 66
"Bytes of Ethernet, IP and TCP around each small message, and as many for its acknowledgement."

Point = dict[str, float]


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Fit a line by least squares of the relative error; return its value at 0 and its slope."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    x0 = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    y0 = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    above = sum(w * (x - x0) * (y - y0) for w, (x, y) in zip(weights, points, strict=True))
    below = sum(w * (x - x0) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = above / below if below else 0.0
    return y0 - slope * x0, slope


@dataclass(frozen=True)
class Model:
    """
    The costs of one process, by its number of clients.

    :ivar memory: bytes of the process without clients, and for each client.
    :ivar idle: seconds of CPU a second without clients, and for each client: heartbeats.
    :ivar ack: microseconds of an event with its ack, with one client and for each ten times as many.
    :ivar delivery: microseconds of a broadcast without receivers, and for each receiver.
    :ivar opening: microseconds of a client that connects and joins a room.
    :ivar kernel: bytes of the kernel for each connection of the server.
    :ivar redis: microseconds of Redis for each message, in or out.
    """

    memory: tuple[float, float]
    idle: tuple[float, float]
    ack: tuple[float, float]
    delivery: tuple[float, float]
    opening: float
    kernel: float
    redis: float

    @classmethod
    def fit(cls, points: Sequence[Point], kernel: float, redis: float) -> Model:
        """Fit the model to measured numbers of clients."""

        def over(name: str, x: Callable[[float], float]) -> tuple[float, float]:
            return line([(x(point["clients"]), point[name]) for point in points])

        return cls(
            memory=over("memory", float),
            idle=over("idle", float),
            ack=_rising(points, over("ack us", math.log10)),
            delivery=line([(p["clients"], p["broadcast us"] * p["clients"]) for p in points]),
            opening=median(point["open us"] for point in points),
            kernel=kernel,
            redis=redis,
        )

    def at(self, clients: float) -> Point:
        """Return what the model says of one process with so many clients."""
        decades = math.log10(clients)
        return {
            "memory": self.memory[0] + self.memory[1] * clients,
            "idle": self.idle[0] + self.idle[1] * clients,
            "ack us": self.ack[0] + self.ack[1] * decades,
            "broadcast us": self.delivery[0] / clients + self.delivery[1],
        }


@dataclass(frozen=True)
class Load:
    """
    A service and its clients.

    :ivar clients: the clients.
    :ivar events: events with an ack that a client sends in a second.
    :ivar emits: of these, the part that is emitted to a room.
    :ivar room: the members of a room, anywhere.
    :ivar size: bytes of an event.
    :ivar machines: the machines with servers.
    :ivar cores: the cores of a machine.
    :ivar perProcess: clients of a process.
    """

    clients: int
    events: float = 1 / 60
    emits: float = 0.5
    room: int = 20
    size: int = 200
    machines: int = 1
    cores: int = 16
    perProcess: int = 50_000

    def needs(self, model: Model) -> dict[str, float]:
        """Return what the service needs."""
        processes = math.ceil(self.clients / self.perProcess)
        each = self.clients / processes
        costs = model.at(each)
        sent = self.clients * self.events
        emitted = sent * self.emits
        delivered = emitted * self.room
        # The servers of a machine have its processes; each that has a member of the room gets an event once.
        receivers = processes * (1 - (1 - 1 / processes) ** self.room)
        messages = emitted * (1 + receivers) if processes > 1 else 0.0
        cpu = processes * costs["idle"] + (sent * costs["ack us"] + delivered * costs["broadcast us"]) / 1e6
        heartbeats = self.clients / 25
        packets = 2 * heartbeats + 2 * sent + delivered
        return {
            "processes": processes,
            "cores": cpu / BUSY,
            "of them heartbeats": processes * costs["idle"] / BUSY,
            "memory, processes": processes * costs["memory"],
            "memory, kernel": self.clients * model.kernel,
            "events a second": sent,
            "deliveries a second": delivered,
            "Redis messages a second": messages,
            "Redis servers": math.ceil(messages * model.redis / 1e6 / BUSY) if messages else 0,
            "network, bits a second": 8 * (packets * 2 * OVERHEAD + (2 * sent + delivered) * self.size),
            "a restart of all, s": self.clients * model.opening / 1e6 / (self.machines * self.cores),
        }


def _rising(points: Sequence[Point], fitted: tuple[float, float]) -> tuple[float, float]:
    """Return the line of acks, a level one in place of one that falls: more clients make no ack cheaper."""
    if fitted[1] > 0:
        return fitted
    return median(point["ack us"] for point in points), 0.0


def split(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """Return the points to fit to, and those to compare with."""
    ordered = sorted(points, key=lambda point: point["clients"])
    held = [ordered[-1], ordered[len(ordered) // 2]]
    return [point for point in ordered if point not in held], held


def scaled(value: float) -> str:
    """Return a number in three digits, with its prefix."""
    for limit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if name == 'k' else limit):.3g} {name}"
    return f"{value:.3g}"


CASES = {
    "1 million, one machine": Load(1_000_000),
    "the same, only listening": Load(1_000_000, events=0.0),
    "20 million, 100 machines": Load(20_000_000, machines=100),
}


def draw(model: Model, points: Sequence[Point], held: Sequence[Point], file: Path) -> None:
    """Draw the model, the points that it was fitted to, and the others."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels: list[tuple[str, str, float]] = [
        ("memory", "memory of a process, MB", 1e-6),
        ("idle", "heartbeats, % of a core", 100),
        ("ack us", "an ack, us of CPU", 1),
        ("broadcast us", "one receiver of a broadcast, us", 1),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    most = max(point["clients"] for point in [*points, *held])
    xs = [100 * (most / 100) ** (step / 60) for step in range(61)]
    for (name, title, factor), panel in zip(panels, axes.flat, strict=True):
        panel.plot(xs, [model.at(x)[name] * factor for x in xs], color="#1b6ca8", label="model")
        for some, marker, label in ((points, "o", "fitted"), (held, "x", "not used for the fit")):
            panel.plot(
                [p["clients"] for p in some],
                [p[name] * factor for p in some],
                marker,
                color="#0b3c61" if marker == "o" else "#b5533c",
                label=label,
            )
        panel.set_title(title, fontsize=10)
        panel.set_xscale("log")
        panel.set_ylim(bottom=0)
    axes[0][0].legend(fontsize=8)
    for panel in axes[1]:
        panel.set_xlabel("clients of the process")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Read the figures, fit, compare, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity")
    parser.add_argument("figures", nargs="?", type=Path, default=FIGURES)
    parser.add_argument("--chart", type=Path, help="a file for the chart, by matplotlib")
    for name, kind, default in (("clients", int, None), ("events", float, 1 / 60), ("room", int, 20)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    arguments = parser.parse_args()
    figures: dict[str, Any] = json.loads(arguments.figures.read_text())
    fitted, held = split(figures["results"])
    model = Model.fit(fitted, figures["kernel"], figures["redis us"])
    print(
        f"a client: {model.memory[1] / 1000:.2f} kB and {model.kernel / 1000:.2f} kB of the kernel, ", end=""
    )
    print(f"{model.idle[1] * 1e6:.2f} us a second, {model.opening:.0f} us to open")
    print(f"an ack: {model.ack[0]:.1f} us and {model.ack[1]:.1f} for each ten times as many clients")
    print(
        f"a broadcast: {model.delivery[0]:.0f} us and {model.delivery[1]:.2f} for each receiver; "
        f"Redis: {model.redis:.2f} us for each message\n"
    )
    print("not used for the fit          measured      model")
    for point in held:
        for name, said in model.at(point["clients"]).items():
            print(f"{point['clients']:8,.0f} {name:18} {scaled(point[name]):>10} {scaled(said):>10}", end="")
            print(f"   {said / point[name] - 1:+.0%}")
    cases = dict(CASES)
    if arguments.clients:
        cases = {"yours": Load(arguments.clients)}
    cases = {
        name: replace(load, room=arguments.room, events=load.events and arguments.events)
        for name, load in cases.items()
    }
    needs = {name: load.needs(model) for name, load in cases.items()}
    print("\n" + " " * 28 + "".join(f"{name:>27}" for name in needs))
    for row in next(iter(needs.values())):
        print(f"{row:28}" + "".join(f"{scaled(need[row]):>27}" for need in needs.values()))
    if arguments.chart:
        draw(model, fitted, held, arguments.chart)


if __name__ == "__main__":
    main()
