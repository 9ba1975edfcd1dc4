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

__all__ = ["Metrics", "MetricsPage", "Pages"]

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

    async def make(self, accept: str, families: Families, registry: Any) -> tuple[str, bytes]:
        """
        Make a page.

        :param accept: the reader's header Accept.
        :param registry: an object with ``collect()``: the application's own metrics.
        :return: its content type, and its body.
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


Maker = Callable[[str], Awaitable[tuple[str, bytes]]]


class MetricsPage(Resource):
    """
    A page with the metrics of a server and the application's own, in the text form that the reader asks for.

    The access log leaves these requests out.

    :param registry: the application's metrics; prometheus_client's own by default.
    :param inThread: calls a function in a thread, and returns a Deferred of its result.
    :param make: makes the page for a header Accept, in place of these metrics: with workers, of all of them.
    """

    isLeaf = True

    def __init__(
        self,
        metrics: Metrics,
        registry: Any = REGISTRY,
        inThread: InThread = deferToThread,
        make: Maker | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        pages = Pages(metrics.reactor, inThread)
        self._make = make or (lambda accept: pages.make(accept, metrics.read(), registry))

    def render_GET(self, request: Request) -> int:
        request.isQuiet = True  # type: ignore[attr-defined]
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")

        def made(page: tuple[str, bytes]) -> None:
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

        making: Deferred[tuple[str, bytes]] = Deferred.fromCoroutine(self._await(accept))
        making.addCallback(made).addErrback(failed)
        return NOT_DONE_YET

    async def _await(self, accept: str) -> tuple[str, bytes]:
        return await self._make(accept)

    render_HEAD = render_GET
