"""
One page of metrics for all workers, with the connections in memory.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families as parseText
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.test_metrics import Samples, samplesOf
from txrealtime import Server
from txrealtime.monitor.metrics import Metrics
from txrealtime.testing import Client
from txrealtime.workers.metrics import Collection, Reporter, _Collecting, _Reporting


class End:
    """
    The transport of one end of a connection.

    :ivar peer: the protocol at the other end.
    :ivar held: what waits while the other end is silent; ``None`` while it is not.
    """

    def __init__(self) -> None:
        self.peer: Any = None
        self.other: End | None = None
        self.held: list[bytes] | None = None
        self.lost = False
        # Shared by both ends: data is delivered in turns, as by the reactor.
        self.turns: list[tuple[End, bytes]] = []
        self.isDelivering: list[bool] = []

    def write(self, data: bytes) -> None:
        if self.held is not None:
            self.held.append(data)
        elif not self.lost:
            self.turns.append((self, data))
            self._deliver()

    def _deliver(self) -> None:
        if not self.isDelivering:
            self.isDelivering.append(True)
            while self.turns:
                end, data = self.turns.pop(0)
                end.peer.dataReceived(data)
            self.isDelivering.clear()

    def loseConnection(self) -> None:
        for end in (self, self.other):
            assert end is not None
            if not end.lost:
                end.lost = True
                end.peer.connectionLost(Failure(ConnectionDone()))


class Worker:
    """A worker with a server, a registry of its application, and a connection to the collection."""

    def __init__(self, clock: Clock, collection: Collection, number: int) -> None:
        self.server = Server(reactor=clock)
        self.server.on("ask")(lambda socket: "yes")
        self.server.on("join")(lambda socket, room: socket.join(room))
        self.server.startService()
        self.registry = CollectorRegistry()
        self.orders = Counter("shop_orders", "Orders", registry=self.registry)
        self.stock = Gauge("shop_stock", "Stock", ["kind"], registry=self.registry)
        self.seconds = Histogram("shop_seconds", "Times", registry=self.registry)
        metrics = Metrics(self.server, lambda: {"relay": 1})
        self.reporter = Reporter(clock, "", number, metrics, self.registry, maybeDeferred)
        ours, theirs = End(), End()
        ours.other, theirs.other = theirs, ours
        theirs.turns, theirs.isDelivering = ours.turns, ours.isDelivering
        self.end = ours
        here, there = _Reporting(self.reporter), _Collecting(collection)
        ours.peer, theirs.peer = there, here
        there.makeConnection(theirs)  # type: ignore[arg-type]
        here.makeConnection(ours)  # type: ignore[arg-type]

    def join(self) -> Client:
        client = Client(self.server)
        client.connect("/")
        return client


class WorkersMetricsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.collection = Collection(self.clock, "", maybeDeferred)
        self.workers: list[Worker] = []
        for number in range(2):
            self.addWorker(number)

    def addWorker(self, number: int) -> Worker:
        worker = Worker(self.clock, self.collection, number)
        self.workers.append(worker)
        self.addCleanup(worker.server.stopService)
        return worker

    def samples(self, patience: float = 0.0) -> Samples:
        page: Deferred[Any] = Deferred.fromCoroutine(self.collection.page(""))
        self.clock.advance(patience)
        _, body = self.successResultOf(page)
        return samplesOf(parseText(body.decode()))

    def assertAll(self, samples: Samples, **wanted: float) -> None:
        for name, value in wanted.items():
            self.assertEqual(samples.get(name), value, name)

    def test_sums(self) -> None:
        """Counters, histograms and most gauges."""
        for worker, times in zip(self.workers, (2, 3), strict=True):
            client = worker.join()
            for _ in range(times):
                client.emit("ask")
        samples = self.samples()
        for name, value in (
            ('events_received_total{event="ask",namespace="/"}', 5),
            ('handler_seconds_count{event="ask",namespace="/"}', 5),
            ('handler_seconds_bucket{event="ask",le="+Inf",namespace="/"}', 5),
            ('sessions{transport="websocket"}', 2),
            ('sockets{namespace="/"}', 2),
            ('handovers_total{way="relay"}', 2),
        ):
            self.assertEqual(samples.get(f"txrealtime_{name}"), value, name)
        [version] = [value for name, value in samples.items() if name.startswith("txrealtime_info{")]
        self.assertEqual(version, 1)

    def test_apart(self) -> None:
        """A room with members in two workers is one room, and not two."""
        for worker in self.workers:
            worker.join().emit("join", "red")
        samples = self.samples()
        for number in ("0", "1"):
            self.assertEqual(samples[f'txrealtime_rooms{{namespace="/",worker="{number}"}}'], 1)
            self.assertEqual(samples[f'txrealtime_bus_up{{worker="{number}"}}'], 1)
            self.assertEqual(samples[f'txrealtime_reactor_lag_seconds_count{{worker="{number}"}}'], 0)
        self.assertNotIn('txrealtime_rooms{namespace="/"}', samples)

    def test_applications(self) -> None:
        """The application's counters and histograms are sums, and its gauges have the worker's label."""
        for worker, number in zip(self.workers, (2, 3), strict=True):
            worker.orders.inc(number)
            worker.stock.labels("tea").set(number)
            worker.seconds.observe(0.2)
        samples = self.samples()
        for name, value in (
            ("shop_orders_total", 5),
            ('shop_stock{kind="tea",worker="0"}', 2),
            ('shop_stock{kind="tea",worker="1"}', 3),
            ("shop_seconds_count", 2),
            ('shop_seconds_bucket{le="0.25"}', 2),
        ):
            self.assertEqual(samples.get(name), value, name)

    def test_ended(self) -> None:
        """No sum falls when a worker ends, and another takes its number; its gauges go."""
        first = self.workers[0]
        client = first.join()
        client.emit("ask")
        first.orders.inc()
        first.reporter.stop()
        for turn in range(2):
            samples = self.samples()
            self.assertEqual(samples['txrealtime_events_received_total{event="ask",namespace="/"}'], 1 + turn)
            self.assertEqual(samples["shop_orders_total"], 1 + turn)
            self.assertEqual(samples['txrealtime_sockets{namespace="/"}'], turn)
            self.assertEqual('txrealtime_bus_up{worker="0"}' in samples, bool(turn))
            if not turn:
                second = self.addWorker(0)
                second.join().emit("ask")
                second.orders.inc()

    def test_killed(self) -> None:
        """The last values that a killed worker has told stay."""
        client = self.workers[0].join()
        client.emit("ask")
        self.samples()
        client.emit("ask")
        self.workers[0].end.loseConnection()
        for _ in range(2):
            samples = self.samples()
            self.assertEqual(samples['txrealtime_events_received_total{event="ask",namespace="/"}'], 1)

    def test_endedMeanwhile(self) -> None:
        """A worker that ends while the page is made counts once."""
        first = self.workers[0]
        for number in range(300):  # more than are added in one turn
            first.server.on(f"event {number}")(lambda socket: None)
        client = first.join()
        for number in range(300):
            client.emit(f"event {number}")
        page: Deferred[Any] = Deferred.fromCoroutine(self.collection.page(""))
        self.assertNoResult(page)
        first.reporter.stop()
        self.clock.pump([0.0] * 100)
        samples = samplesOf(parseText(self.successResultOf(page)[1].decode()))
        self.assertEqual(samples['txrealtime_events_received_total{event="event 7",namespace="/"}'], 1)
        self.assertEqual(self.samples()['txrealtime_events_received_total{event="event 7",namespace="/"}'], 1)

    def test_failingCollector(self) -> None:
        """An application's collector that raises hides nothing of the server, also at the end of a worker."""

        class Failing:
            def collect(self) -> Any:
                raise ValueError("no database")

        first = self.workers[0]
        first.registry.register(Failing())  # type: ignore[arg-type]
        first.join().emit("ask")
        name = 'txrealtime_events_received_total{event="ask",namespace="/"}'
        self.assertEqual(self.samples()[name], 1)
        first.join().emit("ask")
        self.successResultOf(first.reporter.stop())
        self.assertEqual(self.samples()[name], 2)
        self.assertTrue(self.flushLoggedErrors(ValueError))

    def test_twoOfANumber(self) -> None:
        """A worker that leaves, and the one in its place, are told apart."""
        self.addWorker(0).join().emit("join", "red")
        samples = self.samples()
        self.assertEqual(samples['txrealtime_rooms{namespace="/",worker="0"}'], 1)
        self.assertEqual(samples['txrealtime_rooms{namespace="/",worker="0 leaving"}'], 0)

    def test_silent(self) -> None:
        """A worker that does not answer in time has its last values on the page."""
        client = self.workers[0].join()
        client.emit("ask")
        self.samples()
        self.workers[0].end.held = []
        client.emit("ask")
        samples = self.samples(patience=2.0)
        self.assertEqual(samples['txrealtime_events_received_total{event="ask",namespace="/"}'], 1)

    def test_pageOfAWorker(self) -> None:
        """A worker that is asked has the page of all."""
        self.workers[1].orders.inc()
        contentType, body = self.successResultOf(
            self.workers[0].reporter.page("application/openmetrics-text")
        )
        self.assertIn("application/openmetrics-text", contentType)
        self.assertTrue(body.endswith(b"# EOF\n"))
        self.assertIn(b"shop_orders_total 1.0", body)

    def test_pagesInTime(self) -> None:
        """A reader gets an error from a worker whose supervisor is silent, or gone."""
        first = self.workers[0]
        first.end.held = []
        page = first.reporter.page("")
        self.clock.advance(8)
        self.failureResultOf(page)
        page = first.reporter.page("")
        first.end.loseConnection()
        self.failureResultOf(page, ConnectionError)
        self.failureResultOf(first.reporter.page(""), ConnectionError)

    def test_stop(self) -> None:
        """A worker's end waits until its last values are on their way."""
        self.assertIsNone(self.successResultOf(self.workers[0].reporter.stop()))
        self.assertIsNone(self.successResultOf(self.workers[0].reporter.stop()))
