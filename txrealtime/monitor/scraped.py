"""
Pages of metrics, read: the state of servers, and their rates between two pages.

The pages are in the text form of Prometheus, whose grammar is so simple that no library is needed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf, isnan
from typing import Final

__all__ = ["Handler", "Part", "Sample", "View", "parse", "view"]

_LINE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: -?\d+)?")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One value of a page.

    :ivar name: the name without ``txrealtime_``, but for the application's own.
    :ivar labels: the labels.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def parse(text: str) -> list[Sample]:
    """
    Read a page.

    :raises ValueError: if there is a line that is none of a page of metrics.
    """
    samples = []
    # Not splitlines(): a name may hold what Python takes for a line end, such as U+2028.
    for line in text.split("\n"):
        line = line.removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"this is no page of metrics: {line[:60]!r}")
        labels = {name: _ESCAPE.sub(_unescaped, value) for name, value in _LABEL.findall(match[2] or "")}
        samples.append(Sample(match[1].removeprefix("txrealtime_"), labels, float(match[3])))
    return samples


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


@dataclass(slots=True)
class Handler:
    """
    The handler of an event, between two pages.

    :ivar rate: events a second.
    :ivar mean: seconds; ``nan`` without an event.
    :ivar most: the time that 99 % of the events did not exceed, in seconds; ``nan`` without an event.
    :ivar errors: exceptions a second.
    """

    namespace: str
    event: str
    rate: float
    mean: float
    most: float
    errors: float


@dataclass(slots=True)
class Part:
    """
    A server, or a worker of one.

    :ivar name: its address, and its number if it is a worker.
    :ivar lag: the lag of the reactor that 99 % of the turns did not exceed, in seconds.
    :ivar isUp: whether the link to other servers is ready.
    :ivar servers: the servers that it knows, with itself.
    """

    name: str
    lag: float
    isUp: bool
    servers: int


@dataclass(slots=True)
class View:
    """
    The state of all servers together, and rates a second.

    :ivar sessions: by the transport.
    :ivar gauges: by the name: ``events_waiting``, ``handlers_running``, ``acks_pending``, ``buffered_bytes``.
    :ivar rates: of counters, by the name without ``_total``; those with labels also by ``name label``.
    :ivar handlers: the handlers, those with the most time first.
    :ivar parts: the servers and workers.
    """

    sessions: dict[str, float] = field(default_factory=dict)
    sockets: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    handlers: list[Handler] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    threads: dict[str, float] = field(default_factory=dict)


Pages = Mapping[str, list[Sample]]

_GAUGES: Final = ("events_waiting", "handlers_running", "acks_pending", "buffered_bytes")


def view(before: Pages, now: Pages, seconds: float) -> View:
    """
    Look at the pages of some servers.

    :param before: the pages before, by the address of the server; those of a new one are missing.
    :param now: the pages of now.
    :param seconds: the time between them.
    """
    found = View()
    found.sessions = _sums(now, "sessions", "transport")
    found.sockets = _sums(now, "sockets", "namespace")
    found.threads = _sums(now, "flask_threads", "state")
    found.gauges = {name: sum(_sums(now, name).values()) for name in _GAUGES}
    found.rates = _rates(before, now, seconds)
    found.handlers = sorted(_handlers(before, now, seconds), key=lambda each: -_orZero(each.mean) * each.rate)
    found.parts = [part for address in now for part in _partsOf(address, before, now)]
    return found


def _orZero(value: float) -> float:
    return 0.0 if isnan(value) else value


def _sums(pages: Pages, name: str, *labels: str) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for samples in pages.values():
        for sample in samples:
            if sample.name == name:
                sums[" ".join(sample.labels.get(label, "") for label in labels)] += sample.value  # type: ignore[assignment]
    return dict(sums)


Key = tuple[str, str, tuple[tuple[str, str], ...]]


def _increases(before: Pages, now: Pages) -> Iterator[tuple[Key, Sample, float]]:
    """Yield the samples of counters and histograms with their increases; a counter that fell began anew."""
    earlier = {_keyOf(address, sample): sample.value for address in before for sample in before[address]}
    for address, samples in now.items():
        # Without a page before nobody knows since when a counter counts.
        if address in before:
            for sample in samples:
                last = earlier.get(_keyOf(address, sample), 0.0)
                increase = sample.value - last
                yield _keyOf(address, sample), sample, sample.value if increase < 0 else increase


def _keyOf(address: str, sample: Sample) -> Key:
    return address, sample.name, tuple(sorted(sample.labels.items()))


def _rates(before: Pages, now: Pages, seconds: float) -> dict[str, float]:
    rates: Counter[str] = Counter()
    for _, sample, increase in _increases(before, now):
        if sample.name.endswith("_total"):
            name = sample.name.removesuffix("_total")
            rates[name] += increase / seconds  # type: ignore[assignment]
            for label in ("reason", "why", "transport", "result", "way"):
                if label in sample.labels:
                    rates[f"{name} {sample.labels[label]}"] += increase / seconds  # type: ignore[assignment]
    return dict(rates)


def _handlers(before: Pages, now: Pages, seconds: float) -> Iterable[Handler]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    buckets: dict[tuple[str, str], Counter[float]] = {}
    for _, sample, increase in _increases(before, now):
        key = sample.labels.get("namespace", ""), sample.labels.get("event", "")
        if sample.name == "handler_seconds_bucket":
            buckets.setdefault(key, Counter())[float(sample.labels["le"])] += increase  # type: ignore[assignment]
        elif sample.name in ("handler_seconds_count", "handler_seconds_sum", "handler_errors_total"):
            counts.setdefault(key, Counter())[sample.name] += increase  # type: ignore[assignment]
    for (namespace, event), count in counts.items():
        number = count["handler_seconds_count"]
        yield Handler(
            namespace,
            event,
            number / seconds,
            count["handler_seconds_sum"] / number if number else float("nan"),
            quantile(0.99, buckets.get((namespace, event), {})),
            count["handler_errors_total"] / seconds,
        )


def _partsOf(address: str, before: Pages, now: Pages) -> Iterator[Part]:
    lags: dict[str, dict[float, float]] = {}
    for (where, *_), sample, increase in _increases(before, now):
        if where == address and sample.name == "reactor_lag_seconds_bucket":
            worker = sample.labels.get("worker", "")
            lags.setdefault(worker, {})[float(sample.labels["le"])] = increase
    up = {sample.labels.get("worker", ""): sample.value for sample in now[address] if sample.name == "bus_up"}
    servers = {
        sample.labels.get("worker", ""): sample.value for sample in now[address] if sample.name == "servers"
    }
    for worker, value in up.items():
        name = f"{address} worker {worker}" if worker else address
        yield Part(name, quantile(0.99, lags.get(worker, {})), bool(value), int(servers.get(worker, 1)))


def quantile(part: float, buckets: Mapping[float, float]) -> float:
    """
    Estimate a quantile of a histogram, as Prometheus does: evenly within a bucket.

    :param buckets: the numbers up to each bound, the last one infinite.
    :return: ``nan`` for an empty histogram.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return float("nan")
    wanted = part * buckets[bounds[-1]]
    low = below = 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == inf:
                return low
            within = buckets[bound] - below
            return low + (bound - low) * ((wanted - below) / within if within else 1.0)
        low, below = bound, buckets[bound]
    return low
