"""
Metrics for Prometheus: a page with the counts of a server, and the application's own metrics.

Nothing but the reactor's thread reads the counts.  It writes the page in pieces, and serves clients between
them.  The application's own metrics are read in another thread, since nobody knows how long they take.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txrealtime.engineio.counts import Histogram
from txrealtime.logs import Logger
from txrealtime.monitor.counts import Lag, ServerCounts
from txrealtime.monitor.exposition import Writer
from txrealtime.monitor.families import Family, Reader, Value
from txrealtime.server import Server

__all__ = ["REGISTRY", "Metrics", "MetricsPage", "Page", "Pages", "Together", "copied"]

_log = Logger()

InThread = Callable[..., Deferred[Any]]
Families = Iterable[tuple[Family, Mapping[tuple[str, ...], Value]]]


class Metrics:
    """
    The metrics of a server, counted from now on.

    This is a collector of prometheus_client: ``REGISTRY.register(Metrics(server))`` puts the metrics on any
    page of an application that is made in the reactor's thread.

    :param handovers: returns the connections handed to other processes, by the way.
    """

    def __init__(self, server: Server, handovers: Callable[[], Mapping[str, int]] = dict) -> None:
        self.reactor: Any = server.reactor
        self._lag = Lag(server.reactor)
        self._reader = Reader(server, ServerCounts(server), self._lag, handovers)

    def start(self) -> None:
        """Begin to measure the lag of the reactor."""
        self._lag.start()

    def stop(self) -> None:
        """End the measurement."""
        self._lag.stop()

    def read(self) -> Families:
        """Return the metrics with their values.  To be called in the reactor's thread."""
        return self._reader.read()

    def collect(self) -> Iterator[Metric]:
        """Make the metrics for prometheus_client.  To be called in the reactor's thread."""
        for family, values in self.read():
            yield _metric(family, values)


_KINDS: dict[str, Any] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


def _metric(family: Family, values: Mapping[tuple[str, ...], Value]) -> Metric:
    kind = _KINDS.get(family.kind, HistogramMetricFamily)
    metric: Any = kind(f"txrealtime_{family.name}", family.text, labels=family.labels)
    for key, value in values.items():
        if isinstance(value, Histogram):
            names = [*map(str, value.bounds), "+Inf"]
            metric.add_metric(key, list(zip(names, accumulate(value.buckets), strict=True)), value.total)
        else:
            metric.add_metric(key, value)
    return metric  # type: ignore[no-any-return]


Page = tuple[str, bytes]
"""A content type, and a body."""

Maker = Callable[[str], Awaitable[Page]]


class Pages:
    """
    The maker of pages in the text forms that readers ask for.

    :param reactor: the clock, and the giver of turns.
    :param inThread: calls a function in a thread, and returns a Deferred of its result.
    """

    def __init__(self, reactor: Any, inThread: InThread = deferToThread) -> None:
        self._reactor = reactor
        self._inThread = inThread
        self._writers = {isOpen: Writer(isOpen) for isOpen in (False, True)}

    async def make(self, accept: str, families: Families, registry: Any) -> Page:
        """
        Make a page.

        :param accept: the reader's header Accept.
        :param registry: an object with ``collect()``: the application's own metrics.
        """
        encode, contentType = choose_encoder(accept)
        writer = self._writers[contentType.startswith("application/openmetrics-text")]
        pieces: list[bytes] = []
        for piece in writer.write(families):
            if pieces:
                await deferLater(self._reactor, 0)
            pieces.append(piece.encode())
        pieces.append(await self._inThread(encode, registry))
        return contentType, b"".join(pieces)


class MetricsPage(Resource):
    """
    A page with the metrics of a server and the application's own, in the text form that the reader asks for.

    The access log leaves these requests out.

    :param registry: the application's metrics; prometheus_client's own by default.
    :param inThread: calls a function in a thread, and returns a Deferred of its result.
    :param make: with workers, makes the page of all workers for a header Accept, in place of `metrics`.
    """

    isLeaf = True

    def __init__(
        self,
        metrics: Metrics | None,
        registry: Any = REGISTRY,
        inThread: InThread = deferToThread,
        make: Maker | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if make is None:
            assert metrics is not None
            read, pages = metrics.read, Pages(metrics.reactor, inThread)
            make = lambda accept: pages.make(accept, read(), registry)  # noqa: E731
        self._make = make

    def render_GET(self, request: Request) -> int:
        request.isQuiet = True  # type: ignore[attr-defined]
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")

        def made(page: Page) -> None:
            if gone:
                return
            contentType, body = page
            request.setHeader(b"content-type", contentType.encode())
            request.setHeader(b"content-length", b"%d" % len(body))
            if request.method != b"HEAD":
                request.write(body)
            request.finish()

        def failed(failure: Failure) -> None:
            _log.failure("the metrics cannot be shown", failure)
            if not gone:
                request.setResponseCode(INTERNAL_SERVER_ERROR)
                request.setHeader(b"content-length", b"0")
                request.finish()

        making: Deferred[Page] = Deferred.fromCoroutine(self._await(accept))
        making.addCallback(made).addErrback(failed)
        return NOT_DONE_YET

    async def _await(self, accept: str) -> Page:
        return await self._make(accept)

    render_HEAD = render_GET


# -- the application's own metrics, of several processes -----------------------------------------

_SUMMED = frozenset(["counter", "histogram", "summary"])


def copied(registry: Any) -> list[Any]:
    """Copy the metrics of a registry, as plain lists."""
    return [
        [
            metric.name,
            metric.documentation,
            metric.type,
            [
                [sample.name, sample.labels, sample.value]
                for sample in metric.samples
                # The time of the first count: no sum.
                if sample.name.rpartition("_")[2] != "created"
            ],
        ]
        for metric in registry.collect()
    ]


class Together:
    """
    The metrics of several registries, as one.

    Counters, histograms and summaries are sums.  Of all others nobody knows if a sum has a meaning: they get
    a label ``worker``.

    :param living: copies, each with its label.
    :param ended: copies of registries whose processes have ended.
    """

    def __init__(self, living: Iterable[tuple[str, list[Any]]], *ended: list[Any]) -> None:
        self._living = list(living)
        self._ended = ended

    def collect(self) -> Iterator[Metric]:
        """Make the metrics for prometheus_client."""
        metrics: dict[str, Metric] = {}
        values: dict[str, dict[Any, float]] = {}
        for worker, copy in [*self._living, *((None, copy) for copy in self._ended)]:
            for name, text, kind, samples in copy:
                if worker is None and kind not in _SUMMED:
                    continue
                metrics.setdefault(name, Metric(name, text, kind))
                sums = values.setdefault(name, {})
                for sample, labels, value in samples:
                    if kind not in _SUMMED and worker is not None:
                        labels = {"worker": worker, **labels}
                    key = sample, tuple(labels.items())
                    sums[key] = sums.get(key, 0.0) + value
        for name, metric in metrics.items():
            for (sample, labels), value in values[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
