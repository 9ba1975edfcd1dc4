"""
Metrics for Prometheus: a page with the counts of a server.

The counts are copied in the reactor's thread, which takes milliseconds, and formatted in another thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txrealtime._version import __version__
from txrealtime.engineio.counts import Histogram
from txrealtime.engineio.interfaces import CloseReason
from txrealtime.logs import Logger
from txrealtime.monitor.counts import OTHER, Lag, ServerCounts
from txrealtime.server import Server

__all__ = ["Metrics", "MetricsPage"]

_log = Logger()

_Maker = Callable[[], Metric]


class Metrics:
    """
    The metrics of a server, counted from now on.

    This is a collector of prometheus_client: ``REGISTRY.register(Metrics(server))`` puts the metrics on any
    page of an application that is made in the reactor's thread.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._events = ServerCounts(server)
        self._lag = Lag(server.reactor)

    def start(self) -> None:
        """Begin to measure the lag of the reactor."""
        self._lag.start()

    def stop(self) -> None:
        """End the measurement."""
        self._lag.stop()

    def collect(self) -> list[Metric]:
        """Make the metrics.  To be called in the reactor's thread."""
        return [make() for make in self.copy()]

    def copy(self) -> list[_Maker]:
        """
        Copy the counts.  To be called in the reactor's thread.

        :return: functions that make the metrics of the copies, in any thread.
        """
        return [
            _gauge("info", "1, with the version as a label", ["version"], {(__version__,): 1}),
            *self._ofSessions(),
            *self._ofEvents(),
            *self._ofSockets(),
            *self._ofTheBus(),
            _histogram("reactor_lag_seconds", "lateness of a timer", [], {(): self._lag.seconds}),
        ]

    def _ofSessions(self) -> Iterator[_Maker]:
        engine = self._server.engine
        counts = engine.counts
        sessions = dict.fromkeys(self._server.settings.transports, 0)
        buffered = 0
        for session in engine.sessions.values():
            name = session.transport.name
            sessions[name] = sessions.get(name, 0) + 1
            buffered += session.buffered
        yield _gauge("sessions", "Engine.IO sessions", ["transport"], _labelled(sessions))
        yield _counter(
            "sessions_opened",
            "sessions opened",
            ["transport", "protocol"],
            {(name, str(version)): count for (name, version), count in counts.opened.items()},
        )
        yield _counter("sessions_closed", "sessions closed", ["reason"], _labelled(counts.closed))
        upgrades = {"completed": 0, "failed": 0, **counts.upgrades}
        yield _counter("upgrades", "upgrades from polling to WebSocket", ["result"], _labelled(upgrades))
        yield _counter("handshakes_refused", "refused requests", ["reason"], _labelled(counts.refused))
        received = {"polling": counts.receivedByPolling, "websocket": counts.receivedByWebSocket}
        sent = {"polling": counts.sentByPolling, "websocket": counts.sentByWebSocket}
        yield _counter("bytes_received", "bytes of messages that came", ["transport"], _labelled(received))
        yield _counter("bytes_sent", "bytes of messages sent", ["transport"], _labelled(sent))
        yield _gauge("buffered_bytes", "bytes that wait for slow clients", [], {(): buffered})
        slow = counts.closed[CloseReason.SLOW_CONSUMER]
        yield _counter("slow_consumers", "sessions closed as slow consumers", [], {(): slow})
        paused = {"backpressure": 0, "rate": 0, **counts.paused}
        yield _counter("reading_paused", "pauses of reading from a client", ["why"], _labelled(paused))
        yield _histogram("ping_seconds", "from the server's PING to the PONG", [], {(): counts.pings})

    def _ofEvents(self) -> Iterator[_Maker]:
        events, names = self._events.events, ["namespace", "event"]
        received = {key: counts.received for key, counts in events.items()}
        errors = {key: counts.errors for key, counts in events.items()}
        sent = {(label,): count for label, (count,) in self._events.sent.items()}
        yield _counter("events_received", "events that came", names, received)
        yield _counter("events_sent", "events sent, once for all receivers", ["namespace"], sent)
        yield _counter("handler_errors", "exceptions of handlers", names, errors)
        yield _histogram("handler_seconds", "time of handlers, with their waits", names, events)
        timeouts = self._server._namespaces.ackTimeouts
        yield _counter("ack_timeouts", "acks that did not come in time", [], {(): timeouts})

    def _ofSockets(self) -> Iterator[_Maker]:
        sockets: Counter[tuple[str]] = Counter()
        rooms: Counter[tuple[str]] = Counter()
        running = waiting = acks = 0
        namespaces = self._server._namespaces
        for namespace in namespaces:
            label = OTHER if namespaces.isMade(namespace) else namespace.path
            sockets[(label,)] += len(namespace.sockets)
            rooms[(label,)] += namespace.rooms.count
            for socket in namespace.sockets.values():
                running += socket._running
                waiting += len(socket._waiting)
                acks += len(socket._acks)
        yield _gauge("sockets", "sockets in a namespace", ["namespace"], sockets)
        yield _gauge("rooms", "rooms, without the own ones of sockets", ["namespace"], rooms)
        yield _gauge("handlers_running", "handlers that run or wait", [], {(): running})
        yield _gauge("events_waiting", "events that wait for their handlers", [], {(): waiting})
        yield _gauge("acks_pending", "acks that the server waits for", [], {(): acks})
        threads = self._server.threads
        states = {"busy": 0, "idle": 0, "waiting": 0} if threads is None else threads.states
        yield _gauge("flask_threads", "threads of handlers, and jobs that wait", ["state"], _labelled(states))
        # No server of this version recovers or hands over sessions.
        yield _counter("recoveries", "sessions that came back", ["result"], {})
        yield _counter("handovers", "connections handed to another process", ["way"], {})

    def _ofTheBus(self) -> Iterator[_Maker]:
        cluster = self._server.cluster
        yield _gauge("bus_up", "1 while the link to peer servers is ready", [], {(): int(cluster.isReady)})
        yield _gauge("servers", "servers that are known, with this one", [], {(): 1 + len(cluster.servers)})
        link = cluster.link
        counts = None if link is None else link.counts
        published = (
            {"published": 0, "dropped": 0}
            if counts is None
            else {"published": counts.published, "dropped": counts.dropped}
        )
        lost = dict.fromkeys(("dropped", "unconfirmed", "refused", "oversized"), 0)
        if counts is not None:
            lost = {why: getattr(counts, why) for why in lost}
        yield _counter("bus_published", "messages for the peer servers", ["result"], _labelled(published))
        yield _counter(
            "bus_received", "messages of peer servers", [], {(): 0 if counts is None else counts.received}
        )
        yield _counter("bus_lost", "messages that were lost", ["why"], _labelled(lost))
        yield _counter(
            "bus_outages", "times that the link went down", [], {(): 0 if counts is None else counts.outages}
        )


def _labelled(counts: dict[Any, int]) -> dict[tuple[str, ...], float]:
    return {(str(name),): count for name, count in counts.items()}


def _gauge(name: str, text: str, labels: list[str], values: Any) -> _Maker:
    return partial(_family, GaugeMetricFamily, name, text, labels, values)


def _counter(name: str, text: str, labels: list[str], values: Any) -> _Maker:
    return partial(_family, CounterMetricFamily, name, text, labels, values)


def _family(kind: Any, name: str, text: str, labels: list[str], values: dict[Any, float]) -> Metric:
    family: Metric = kind(f"txrealtime_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)  # type: ignore[attr-defined]
    return family


def _histogram(name: str, text: str, labels: list[str], values: Mapping[Any, Histogram]) -> _Maker:
    copies = [(key, each.bounds, each.buckets.copy(), each.total) for key, each in values.items()]
    return partial(_histogramFamily, name, text, labels, copies)


def _histogramFamily(name: str, text: str, labels: list[str], copies: list[Any]) -> Metric:
    family = HistogramMetricFamily(f"txrealtime_{name}", text, labels=labels)
    for key, bounds, buckets, total in copies:
        names = [*map(str, bounds), "+Inf"]
        family.add_metric(key, list(zip(names, accumulate(buckets), strict=True)), total)
    return family


class _Copy:
    """Copied counts and the application's metrics: all that an encoder needs of a registry."""

    def __init__(self, makers: list[_Maker], registry: Any) -> None:
        self._makers = makers
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for make in self._makers:
            yield make()
        yield from self._registry.collect()


class MetricsPage(Resource):
    """
    A page with the metrics of a server and the application's own, in the text form that the reader asks for.

    The access log leaves these requests out.

    :param registry: the application's metrics; prometheus_client's own by default.
    :param inThread: calls a function in a thread, and returns a Deferred of its result.
    """

    isLeaf = True

    def __init__(
        self,
        metrics: Metrics,
        registry: Any = REGISTRY,
        inThread: Callable[..., Deferred[Any]] = deferToThread,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._metrics = metrics
        self._registry = registry
        self._inThread = inThread

    def render_GET(self, request: Request) -> int:
        request.isQuiet = True  # type: ignore[attr-defined]
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        encode, contentType = choose_encoder((request.getHeader(b"accept") or b"").decode("latin-1"))
        copy = _Copy(self._metrics.copy(), self._registry)

        def encoded(body: bytes) -> None:
            if gone:
                return
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

        self._inThread(encode, copy).addCallback(encoded).addErrback(failed)
        return NOT_DONE_YET

    render_HEAD = render_GET
