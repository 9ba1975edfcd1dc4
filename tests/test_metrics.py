"""
The metrics, as Prometheus reads them from a page, after the traffic that causes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parseOpenMetrics
from prometheus_client.parser import text_string_to_metric_families as parseText
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from tests.memory import Exchange, Link, Response, clientFrame
from txrealtime import AckTimeout, Server, Socket, Watcher
from txrealtime.engineio.counts import BOUNDS, Histogram
from txrealtime.engineio.http.site import Beside, EngineSite
from txrealtime.engineio.session import CloseReason
from txrealtime.monitor.exposition import Writer
from txrealtime.monitor.families import FAMILIES
from txrealtime.monitor.metrics import Metrics, MetricsPage
from txrealtime.monitor.sums import snapshot
from txrealtime.pool import Threads
from txrealtime.socketio.namespace import Namespace
from txrealtime.testing import Client, MemoryBus, MemoryHub

POLLING = "/socket.io/?EIO=4&transport=polling"

NAMES = {
    "gauge": [
        "info{version}",
        "sessions{transport}",
        "sockets{namespace}",
        "rooms{namespace}",
        "handlers_running",
        "events_waiting",
        "acks_pending",
        "buffered_bytes",
        "bus_up",
        "bus_link_up{bus}",
        "servers_apart",
        "servers",
        "flask_threads{state}",
    ],
    "counter": [
        "sessions_opened{transport,protocol}",
        "sessions_closed{reason}",
        "upgrades{result}",
        "handshakes_refused{reason}",
        "events_received{namespace,event}",
        "events_sent{namespace}",
        "bytes_received{transport}",
        "bytes_sent{transport}",
        "handler_errors{namespace,event}",
        "ack_timeouts",
        "slow_consumers",
        "reading_paused{why}",
        "bus_published{result}",
        "bus_received",
        "bus_lost{why}",
        "bus_outages",
        "bus_link_published{bus}",
        "bus_link_lost{bus}",
        "recoveries{result}",
        "handovers{way}",
    ],
    "histogram": ["handler_seconds{namespace,event}", "ping_seconds", "reactor_lag_seconds"],
}

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Samples = dict[str, float]


def samplesOf(families: Any) -> Samples:
    """Return the samples of a page: ``name{label="value"}`` with the labels in order -> value."""
    samples = {}
    for family in families:
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def siteOf(server: Server, root: Any) -> EngineSite:
    """Make a site as ``server.site(root)`` does, with the server's clock."""
    return EngineSite(root, server.path, server.engine, reactor=server.reactor, timeout=None)


class MetricsTestCase(SynchronousTestCase):
    """
    Tests with a server, its metrics, and their page in its site.

    :ivar registry: the application's own metrics.
    """

    def setUp(self) -> None:
        self.makeServer()

    def makeServer(self, **options: Any) -> None:
        self.clock = Clock()
        self.server = Server(reactor=self.clock, **options)
        self.server.startService()
        self.addCleanup(self.server.stopService)
        self.metrics = Metrics(self.server, lambda: {"relay": 3})
        self.registry = CollectorRegistry()
        page = MetricsPage(self.metrics, self.registry, maybeDeferred)
        self.site = siteOf(self.server, Beside("/metrics", page, Resource()))

    def ask(self, url: str, accept: str = "*/*", method: str = "GET", body: bytes = b"") -> Exchange:
        link = Link().connect(self.site)
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
        head = f"{method} {url} HTTP/1.1\r\nHost: example.org\r\nAccept: {accept}\r\n{length}\r\n"
        link.deliver(head.encode() + body)
        return Exchange(link)

    def page(self, accept: str = "*/*") -> Response:
        return self.ask("/metrics", accept).answer

    def samples(self) -> Samples:
        """Read the page as Prometheus does, in both forms, which have the same values."""
        text = samplesOf(parseText(self.page().body.decode()))
        self.assertEqual(samplesOf(parseOpenMetrics(self.page(OPENMETRICS).body.decode())), text)
        return text

    def assertSamples(self, **wanted: float) -> None:
        samples = self.samples()
        for name, value in wanted.items():
            self.assertEqual(samples.get(f"txrealtime_{name}"), value, name)

    def assertAll(self, *wanted: tuple[str, float]) -> None:
        samples = self.samples()
        for name, value in wanted:
            self.assertEqual(samples.get(f"txrealtime_{name}"), value, name)

    def join(self, path: str = "/") -> Client:
        client = Client(self.server)
        self.successResultOf(client.connect(path))
        return client

    def webSocket(self, more: str = "", *messages: bytes, headers: Mapping[str, str] | None = None) -> Link:
        """Open a WebSocket and send messages: by default, join the default namespace."""
        link = Link().connect(self.server.webSocketFactory())
        link.deliver(
            f"GET /socket.io/?EIO=4&transport=websocket{more} HTTP/1.1\r\nHost: localhost\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n".encode()
            + "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode()
            + b"\r\n"
        )
        for message in messages or (b"40",):
            link.deliver(textFrame(message))
        return link


def textFrame(payload: bytes) -> bytes:
    """Make a client's frame."""
    return clientFrame(1, payload, True, 0, b"\0\0\0\0")


class NameTests(MetricsTestCase):
    """
    All names, which are an interface: dashboards and alerts use them.
    """

    def test_names(self) -> None:
        """Each metric has its type and its labels."""
        self.server.threads = Threads(2)
        self.server.on("ask")(lambda socket: "yes")
        self.join().emit("ask")
        self.ask(f"{POLLING}")
        self.ask("/socket.io/?EIO=9&transport=polling")
        self.webSocket().lose()
        self.server._namespaces.counts.recoveries["ok"] += 1
        families = {family.name: family for family in parseText(self.page().body.decode())}
        self.assertEqual(
            {name: family.type for name, family in families.items()},
            {f"txrealtime_{name.partition('{')[0]}": kind for kind, names in NAMES.items() for name in names},
        )
        for name in (name for names in NAMES.values() for name in names):
            name, _, labels = name.rstrip("}").partition("{")
            samples = families[f"txrealtime_{name}"].samples
            # This server has no bus.
            self.assertEqual(samples == [], name.startswith("bus_link_"), name)
            for sample in samples:
                wanted = set(labels.split(",")) - {""}
                self.assertEqual(set(sample.labels) - {"le"}, wanted, name)

    def test_handovers(self) -> None:
        self.assertAll(('handovers_total{way="relay"}', 3))

    def test_flaskThreads(self) -> None:
        self.server.threads = Threads(2)
        self.assertAll(
            ('flask_threads{state="busy"}', 0),
            ('flask_threads{state="idle"}', 0),
            ('flask_threads{state="waiting"}', 0),
        )


class PageTests(MetricsTestCase):
    def test_forms(self) -> None:
        self.assertIn("text/plain", self.page().headers["content-type"])
        response = self.page(OPENMETRICS)
        self.assertIn("application/openmetrics-text", response.headers["content-type"])
        self.assertTrue(response.body.endswith(b"# EOF\n"))

    def test_head(self) -> None:
        text = self.ask("/metrics", method="HEAD").link.take()
        head, _, body = text.partition(b"\r\n\r\n")
        self.assertEqual(body, b"")
        self.assertIn(b"200", head)

    def test_theApplicationsOwn(self) -> None:
        Gauge("shop_orders", "Orders", registry=self.registry).set(3)
        self.assertEqual(self.samples()["shop_orders"], 3)

    def test_asPrometheusClientWrites(self) -> None:
        """The writer's text is that of prometheus_client's encoder, in both forms."""
        self.makeServer()
        for event in ("ask", "100 %", 'a "quoted" one', "two\nlines\\"):
            self.server.on(event)(lambda socket: None)
            self.join().emit(event)
        self.registry.register(self.metrics)
        for accept in ("", OPENMETRICS):
            encode, _ = choose_encoder(accept)
            theirs = encode(self.registry).decode()
            self.registry.unregister(self.metrics)
            ours = self.page(accept).body.decode()
            self.registry.register(self.metrics)
            for page in (theirs, ours):
                self.assertIn(r'event="two\nlines\\"', page)
            parse: Any = parseOpenMetrics if accept else parseText
            self.assertEqual(samplesOf(parse(ours)), samplesOf(parse(theirs)))
            heads = [[line for line in page.splitlines() if line.startswith("# ")] for page in (ours, theirs)]
            self.assertEqual(heads[0], heads[1])

    def test_pieces(self) -> None:
        """A large page takes turns of the reactor, and is whole."""
        for number in range(300):
            self.server.on(f"event {number}")(lambda socket: None)
        client = self.join()
        for number in range(300):
            client.emit(f"event {number}")
        self.assertGreater(len(list(Writer(False).write(self.metrics.read()))), 5)
        exchange = self.ask("/metrics")
        self.assertIsNone(exchange.response)
        self.clock.advance(0)
        samples = samplesOf(parseText(exchange.answer.body.decode()))
        name = 'txrealtime_handler_seconds_count{event="event 299",namespace="/"}'
        self.assertEqual(samples[name], 1)

    def test_readerGone(self) -> None:
        """A reader that goes while the page is made is no error."""
        later: Deferred[bytes] = Deferred()
        page = MetricsPage(self.metrics, self.registry, lambda *arguments: later)
        self.site = siteOf(self.server, Beside("/metrics", page, Resource()))
        exchange = self.ask("/metrics")
        exchange.drop()
        later.callback(b"page")
        self.assertIsNone(exchange.response)

    def test_failure(self) -> None:
        def fail(*arguments: Any) -> Any:
            return maybeDeferred(lambda: 1 / 0)

        page = MetricsPage(self.metrics, self.registry, fail)
        self.site = siteOf(self.server, Beside("/metrics", page, Resource()))
        self.assertEqual(self.page().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SessionTests(MetricsTestCase):
    def test_opened(self) -> None:
        self.join()
        self.webSocket()
        self.ask("/socket.io/?EIO=4&transport=polling")
        self.assertAll(
            ('sessions{transport="polling"}', 1),
            ('sessions{transport="websocket"}', 2),
            ('sessions_opened_total{protocol="4",transport="polling"}', 1),
            ('sessions_opened_total{protocol="4",transport="websocket"}', 2),
        )

    def test_closed(self) -> None:
        self.webSocket().lose()
        samples = self.samples()
        self.assertEqual(samples['txrealtime_sessions_closed_total{reason="transport close"}'], 1)
        self.assertEqual(
            samples['txrealtime_sessions{transport="websocket"}'], len(self.server.engine.sessions)
        )

    def test_refused(self) -> None:
        """Over both transports."""
        for _ in range(3):
            self.ask("/socket.io/?EIO=9&transport=polling")
        self.webSocket("&sid=x")
        self.assertAll(
            ('handshakes_refused_total{reason="version"}', 3), ('handshakes_refused_total{reason="sid"}', 1)
        )

    def test_bytes(self) -> None:
        """The bytes of messages in UTF-8, without the heads of frames."""
        link = self.webSocket()
        before = self.samples()
        link.deliver(clientFrame(1, '42["größer"]'.encode(), True, 0, b"\0\0\0\0"))
        self.server.emit("news", "x" * 1000)
        after = self.samples()
        for name, size in (("received", 14), ("sent", 1013)):
            name = f'txrealtime_bytes_{name}_total{{transport="websocket"}}'
            self.assertEqual(after[name] - before[name], size, name)

    def test_bytesForMany(self) -> None:
        """Each receiver of a broadcast counts: at once, or when its connection takes the event."""
        links = [self.webSocket() for _ in range(4)]
        sid = json.loads(self.ask(POLLING).answer.body[1:])["sid"]
        self.ask(f"{POLLING}&sid={sid}", method="POST", body=b"40")
        self.ask(f"{POLLING}&sid={sid}")
        slow = links[0].protocol
        slow.pauseProducing()
        before = self.samples()

        def more(name: str) -> float:
            key = f'txrealtime_bytes_sent_total{{transport="{name}"}}'
            return self.samples()[key] - before[key]

        self.server.emit("news", "x" * 1000)
        self.server.emit("news", "x" * 1000, volatile=True)
        self.assertEqual((more("websocket"), more("polling")), (2 * 3 * 1013, 0))
        slow.resumeProducing()
        self.assertEqual((more("websocket"), more("polling")), (7 * 1013, 0))
        self.ask(f"{POLLING}&sid={sid}")
        self.assertEqual((more("websocket"), more("polling")), (7 * 1013, 1013))
        links[1].lose()
        self.server.emit("files", *[b"abc"] * 20)
        size = len('451-["files"') + sum(len(f',{{"_placeholder":true,"num":{n}}}') for n in range(20)) + 1
        size += len("20") - len("1") + 20 * 3
        self.assertEqual(more("websocket"), 7 * 1013 + 3 * size)

    def test_bytesOfMany(self) -> None:
        """Every frame of a read counts, of any size; those behind one that ends the WebSocket do not."""
        link = self.webSocket()
        counts = self.server.engine.counts
        before = counts.packetsReceived, counts.receivedByWebSocket
        sizes = [4, 118, 119, 120, 65_528, 65_529, 300]
        events = [f'42["{"x" * size}"]'.encode() for size in sizes]
        link.deliver(b"".join(map(textFrame, events)))
        self.assertEqual(counts.packetsReceived - before[0], len(sizes))
        self.assertEqual(counts.receivedByWebSocket - before[1], sum(sizes) + 6 * len(sizes))
        self.server.on("leave")(lambda socket: socket.disconnect(close=True))
        before = counts.packetsReceived, counts.receivedByWebSocket
        behind = textFrame('42["größer"]'.encode()) + clientFrame(2, b"abc", True, 0, b"\0\0\0\0")
        link.deliver(textFrame(b'42["leave"]') + behind)
        self.assertEqual(counts.packetsReceived - before[0], 1)
        self.assertEqual(counts.receivedByWebSocket - before[1], 11)

    def test_bytesBehindTheEnd(self) -> None:
        """Messages do not count that come behind one that drops the WebSocket, whoever reads it."""
        for reason, headers in (
            (CloseReason.SLOW_CONSUMER, {}),
            (CloseReason.SHUTTING_DOWN, {"User-Agent": "okhttp/4"}),
            (CloseReason.SLOW_CONSUMER, {"Sec-WebSocket-Extensions": "permessage-deflate"}),
            (CloseReason.SHUTTING_DOWN, {"Sec-WebSocket-Extensions": "permessage-deflate"}),
        ):
            self.server = Server(reactor=Clock(), perMessageDeflate=True)
            self.server.startService()
            self.addCleanup(self.server.stopService)
            Metrics(self.server)
            link = self.webSocket(headers=headers)
            end = lambda socket, reason=reason: socket.session.abort(reason)  # noqa: E731
            self.server.on("leave")(end)
            counts = self.server.engine.counts
            before = counts.packetsReceived, counts.receivedByWebSocket
            behind = textFrame(b'42["news"]') + clientFrame(2, b"abc", True, 0, b"\0\0\0\0")
            link.deliver(textFrame(b'42["leave"]') + behind)
            link.deliver(behind)
            self.assertEqual(counts.packetsReceived - before[0], 1, (reason, headers))
            self.assertEqual(counts.receivedByWebSocket - before[1], 11)

    def test_alreadyOpen(self) -> None:
        """Messages count that come from clients who were there before."""
        self.server = Server(reactor=Clock())
        self.server.startService()
        self.addCleanup(self.server.stopService)
        link, counts = self.webSocket(), self.server.engine.counts
        for _ in range(2):  # the second one changes nothing
            Metrics(self.server)
            link.deliver(textFrame(b'42["news"]'))
        self.assertEqual((counts.packetsReceived, counts.receivedByWebSocket), (2, 20))

    def test_bytesOfUnusualFrames(self) -> None:
        """Autobahn reads fragments; each message counts once."""
        link = self.webSocket()
        before = self.samples()
        link.deliver(clientFrame(1, b'42["ne', False, 0, b"\0\0\0\0"))
        link.deliver(clientFrame(0, b'ws"]', True, 0, b"\0\0\0\0") + textFrame(b'42["news"]'))
        name = 'txrealtime_bytes_received_total{transport="websocket"}'
        self.assertEqual(self.samples()[name] - before[name], 20)
        self.assertEqual(self.server.engine.counts.packetsReceived, 3)

    def test_bytesOfPolling(self) -> None:
        sid = json.loads(self.ask("/socket.io/?EIO=4&transport=polling").answer.body[1:])["sid"]
        before = self.samples()
        self.ask(f"/socket.io/?EIO=4&transport=polling&sid={sid}", method="POST", body=b"40")
        self.ask(f"/socket.io/?EIO=4&transport=polling&sid={sid}")
        after = self.samples()
        name = 'txrealtime_bytes_received_total{transport="polling"}'
        self.assertEqual(after[name] - before[name], 2)
        name = 'txrealtime_bytes_sent_total{transport="polling"}'
        self.assertGreater(after[name] - before[name], 20)

    def test_pings(self) -> None:
        link = self.webSocket()
        self.clock.advance(25)
        self.clock.advance(0.03)
        link.deliver(clientFrame(1, b"3", True, 0, b"\0\0\0\0"))
        self.assertAll(
            ("ping_seconds_count", 1),
            ('ping_seconds_bucket{le="0.025"}', 0),
            ('ping_seconds_bucket{le="0.05"}', 1),
            ('ping_seconds_bucket{le="+Inf"}', 1),
        )

    def test_slowConsumers(self) -> None:
        self.makeServer(maxBuffered=1000)
        link = self.webSocket()
        link.fill()
        self.server.emit("news", "x" * 500)
        self.assertGreater(self.samples()["txrealtime_buffered_bytes"], 500)
        for _ in range(3):
            self.server.emit("news", "x" * 500)
        self.assertAll(
            ("slow_consumers_total", 1),
            ('sessions_closed_total{reason="slow consumer"}', 1),
            ("buffered_bytes", 0),
        )

    def test_upgrades(self) -> None:
        """One that is completed, and one that is given up."""
        for last in (b"5", b"6"):
            sid = json.loads(self.ask(f"{POLLING}").answer.body[1:])["sid"]
            self.webSocket(f"&sid={sid}", b"2probe", last)
        self.assertAll(('upgrades_total{result="completed"}', 1), ('upgrades_total{result="failed"}', 1))

    def test_lag(self) -> None:
        self.metrics.start()
        for seconds in (0.25, 0.25, 0.65):
            self.clock.advance(seconds)
        self.metrics.stop()
        self.assertAll(
            ("reactor_lag_seconds_count", 3),
            ('reactor_lag_seconds_bucket{le="0.25"}', 2),
            ('reactor_lag_seconds_bucket{le="1.0"}', 3),
        )


class EventTests(MetricsTestCase):
    def test_events(self) -> None:
        """Those with handlers by name, all others as one."""
        self.server.on("ask")(lambda socket: "yes")
        client = self.join()
        client.emit("ask")
        client.emit("ask")
        for number in range(5):
            client.emit(f"made up {number}")
        self.server.emit("news")
        self.assertAll(
            ('events_received_total{event="ask",namespace="/"}', 2),
            ('events_received_total{event="other",namespace="/"}', 5),
            ('events_sent_total{namespace="/"}', 1),
            ('handler_seconds_count{event="ask",namespace="/"}', 2),
            ('handler_errors_total{event="ask",namespace="/"}', 0),
            ('sockets{namespace="/"}', 1),
        )
        self.assertEqual(
            len([name for name in self.samples() if name.startswith("txrealtime_events_rec")]), 2
        )

    def test_handledLater(self) -> None:
        """Registered after the first of its name came."""
        client = self.join()
        client.emit("ask")
        self.server.on("ask")(lambda socket: "yes")
        client.emit("ask")
        self.assertAll(('events_received_total{event="ask",namespace="/"}', 1))

    def test_watchers(self) -> None:
        """Hooks and middleware are called with metrics as without."""
        calls: list[str] = []

        class Seeing(Watcher):
            def eventReceived(self, socket: Socket, event: str, args: list[Any]) -> None:
                calls.append(f"hook {event}")

        @self.server.use
        def middleware(incoming: Any, proceed: Any) -> Any:
            calls.append(f"middleware {incoming.event}")
            return proceed(incoming)

        self.server.on("ask")(lambda socket: calls.append("handler"))
        self.server.watch(Seeing())
        self.join().emit("ask")
        self.assertEqual(calls, ["hook ask", "middleware ask", "handler"])
        self.assertAll(('handler_seconds_count{event="ask",namespace="/"}', 1))

    def test_errors(self) -> None:
        self.server.on("fail")(lambda socket: 1 / 0)
        client = self.join()
        client.emit("fail")
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertAll(('handler_errors_total{event="fail",namespace="/"}', 1))

    def test_waiting(self) -> None:
        """Handlers that run, and events behind them; the time of a handler ends with its Deferred."""
        later: Deferred[None] = Deferred()
        self.server.on("wait")(lambda socket: later)
        client = self.join()
        for _ in range(3):
            client.emit("wait")
        self.assertAll(
            ("handlers_running", 1),
            ("events_waiting", 2),
            ('handler_seconds_count{event="wait",namespace="/"}', 0),
        )
        later.callback(None)
        self.assertAll(
            ("handlers_running", 0),
            ("events_waiting", 0),
            ('handler_seconds_count{event="wait",namespace="/"}', 3),
        )

    def test_acks(self) -> None:
        client = self.join()
        (socket,) = self.server.namespace().sockets.values()
        one, two = socket.call("ask", timeout=5), self.server.call("ask", timeout=5)
        self.assertAll(("acks_pending", 2), ("ack_timeouts_total", 0))
        self.clock.advance(5)
        for late in (one, two):
            self.failureResultOf(late, AckTimeout)
        self.assertAll(("acks_pending", 0), ("ack_timeouts_total", 2))
        self.assertEqual(client.received(), [("ask",), ("ask",)])

    def test_rooms(self) -> None:
        @self.server.on("join")
        def join(socket: Socket, room: str) -> None:
            socket.join(room)

        client = self.join()
        for room in ("red", "blue"):
            client.emit("join", room)
        self.assertAll(('rooms{namespace="/"}', 2))

    def test_pauses(self) -> None:
        self.makeServer(maxWaiting=1)
        self.server.on("wait")(lambda socket: Deferred())
        client = self.join()
        for _ in range(4):
            client.emit("wait")
        self.assertAll(
            ('reading_paused_total{why="backpressure"}', 1), ('reading_paused_total{why="rate"}', 0)
        )

    def test_rate(self) -> None:
        self.makeServer(maxMessageRate=1)
        client = self.join()
        for _ in range(4):
            client.emit("news")
        self.assertAll(('reading_paused_total{why="rate"}', 1))

    def test_namespacesOfClients(self) -> None:
        """Paths that clients choose are one label."""
        self.server.mount(re.compile("/room-.*"), Namespace)
        for number in range(20):
            self.join(f"/room-{number}").emit("news", namespace=f"/room-{number}")
        samples = self.samples()
        self.assertEqual(samples['txrealtime_sockets{namespace="other"}'], 20)
        self.assertEqual(samples['txrealtime_events_received_total{event="other",namespace="other"}'], 20)
        self.assertFalse([name for name in samples if "/room-" in name])


class SumTests(MetricsTestCase):
    """
    Sums that are kept where things happen are those of all sessions and sockets.
    """

    def setUp(self) -> None:
        super().setUp()
        self.makeServer(maxBuffered=3000)
        self.sockets: set[Socket] = set()
        self.server.on("wait")(lambda socket: Deferred())
        self.server.on("ask")(lambda socket: socket.call("question").addErrback(lambda failure: None))

    def check(self) -> None:
        """Compare the sums with those of the sessions and sockets."""
        sessions = list(self.server.engine.sessions.values())
        # Events and handlers of sockets that have left still wait and run.
        self.sockets |= {socket for space in self.server._namespaces for socket in space.sockets.values()}
        sockets = self.sockets
        samples = self.samples()
        for name in ("polling", "websocket"):
            count = len([session for session in sessions if session.transport.name == name])
            self.assertEqual(samples[f'txrealtime_sessions{{transport="{name}"}}'], count)
        for name, wanted in (
            ("buffered_bytes", sum(session.buffered for session in sessions)),
            ("events_waiting", sum(len(socket._waiting) for socket in sockets)),
            ("acks_pending", sum(len(socket._acks) for socket in sockets)),
            ("handlers_running", sum(socket._running for socket in sockets)),
        ):
            self.assertEqual(samples[f"txrealtime_{name}"], wanted, name)

    def test_sums(self) -> None:
        """Over upgrades, full and lost connections, dropped events, and what ends late."""
        links = [self.webSocket() for _ in range(6)]
        polling = [json.loads(self.ask(POLLING).answer.body[1:])["sid"] for _ in range(3)]
        self.check()
        upgraded = self.webSocket(f"&sid={polling[0]}", b"2probe", b"5", b"40")
        self.check()
        for link in (*links[:4], upgraded):
            for event in (b'42["wait"]', b'42["wait"]', b'42["ask"]'):
                link.deliver(textFrame(event))
        self.check()
        for link in links[3:]:
            link.deliver(textFrame(b'42["ask"]'))
        self.check()
        links[0].lose()
        self.check()
        links[5].fill()
        for _ in range(5):
            self.server.emit("news", "x" * 500)
            self.check()
        links[5].drain()
        self.check()
        links[4].fill()
        for _ in range(8):
            self.server.emit("news", "x" * 500)
        self.check()
        self.server.namespace().everyone.disconnect(close=True)
        self.check()
        for _ in range(10):
            self.clock.advance(30)
            self.check()
        counts = self.server._namespaces.counts
        self.assertEqual((counts.eventsWaiting, counts.acksPending), (0, 0))
        self.assertEqual((self.server.engine.counts.buffered, len(self.server.engine.sessions)), (0, 0))


class BusTests(MetricsTestCase):
    def test_bus(self) -> None:
        hub = MemoryHub()
        self.makeServer(bus=MemoryBus(hub))
        other = Server(reactor=self.clock, bus=MemoryBus(hub))
        other.startService()
        self.addCleanup(other.stopService)
        self.assertAll(("bus_up", 0), ("servers", 1), ("bus_outages_total", 0))
        for _ in range(20):
            self.clock.advance(0)
        other.emit("news")
        self.server.emit("news")
        for _ in range(20):
            self.clock.advance(0)
        self.assertAll(("bus_up", 1), ("servers", 2))
        self.assertGreaterEqual(self.samples()["txrealtime_bus_received_total"], 1)
        self.assertGreaterEqual(self.samples()['txrealtime_bus_published_total{result="published"}'], 1)
        hub.stop()
        self.clock.advance(0)
        self.assertAll(("bus_up", 0), ('bus_lost_total{why="missed"}', 0), ("bus_outages_total", 1))


class OffTests(SynchronousTestCase):
    def test_nothingCounts(self) -> None:
        """Without metrics, namespaces and transports are the plain ones."""
        server = Server(reactor=Clock())
        namespace = server.namespace()
        self.assertEqual(namespace._take, namespace._dispatcher.dispatch)
        self.assertEqual(server.engine.webSocketType.__name__, "WebSocketTransport")
        Metrics(server)
        self.assertNotEqual(namespace._take, namespace._dispatcher.dispatch)
        self.assertEqual(server.engine.webSocketType.__name__, "CountingWebSocket")


class HistogramTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        """A duration at a bound is within it, as Prometheus's ``le`` says."""
        histogram = Histogram((0.1, 1.0))
        for seconds in (0.0, 0.1, 0.100001, 1.0, 2.0):
            histogram.add(seconds)
        self.assertEqual(histogram.buckets, [2, 2, 1])
        self.assertAlmostEqual(histogram.total, 3.200001)

    def test_snapshot(self) -> None:
        """A snapshot keeps its numbers while the histogram goes on."""
        histogram = Histogram(BOUNDS)
        taken = snapshot([(FAMILIES["ping_seconds"], {(): histogram})])
        histogram.add(0.1)
        ((_, buckets, total),) = taken["ping_seconds"]
        self.assertEqual((sum(buckets), total, histogram.number), (0, 0.0, 1))
