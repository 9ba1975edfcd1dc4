"""
The cost of a message in numbers that do not vary: function calls and writes, on the server and in the client.

``benchmarks/`` measures time.  These tests notice a dearer message long before the next run of a
benchmark.  Each bound is a little above today's count; a commit that raises a bound gives the reason.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from tests.clientmemory import MemoryEndpoint
from tests.memory import Link, clientFrame
from tests.support import requirePart, withoutC
from txrealtime import Server, Socket, speedups
from txrealtime.client import Client
from txrealtime.engineio.websocket import plain
from txrealtime.engineio.websocket.plain import frame
from txrealtime.monitor.admin.admin import Admin
from txrealtime.monitor.metrics import Metrics
from txrealtime.socketio import jsontext
from txrealtime.socketio.packet import JSONParser

MESSAGE = b'["echo","' + b"x" * 64 + b'"]'
ROUNDS = 100


def counted(function: Callable[[], object]) -> Counter[str]:
    """Call a function, and count calls of functions in Python (`call`) and in C (`c_call`)."""
    events: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        events[event] += 1

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return events


class HotPathTests(SynchronousTestCase):
    """
    Counts without accelerators, which would hide calls.
    """

    def setUp(self) -> None:
        self.server = Server(reactor=Clock(), parser=JSONParser(accelerated=False))
        self.server.startService()
        self.addCleanup(self.server.stopService)
        withoutC(self)
        self.patch(plain, "unmask", lambda payload, mask: payload)

        @self.server.on("echo")
        def echo(socket: Socket, text: str) -> str:
            return text

        @self.server.on("broadcast")
        def broadcast(socket: Socket, text: str) -> None:
            self.server.emit("news", text)

    def connect(self) -> Link:
        link = Link().connect(self.server.webSocketFactory())
        link.deliver(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        link.deliver(self.frame(b"40"))
        link.writes.clear()
        return link

    def frame(self, payload: bytes) -> bytes:
        return clientFrame(1, payload, True, 0, b"\0\0\0\0")

    def repeat(self, link: Link, *reads: bytes) -> Counter[str]:
        """Count the calls for receiving some data, on average."""
        received = link.protocol.dataReceived

        def once() -> None:
            for data in reads:
                received(data)

        once()  # objects that are made once
        link.writes.clear()

        def often() -> None:
            for _ in range(ROUNDS):
                for data in reads:
                    received(data)

        events = counted(often)
        return Counter({event: round(number / ROUNDS) for event, number in events.items()})

    def test_ack(self) -> None:
        link = self.connect()
        events = self.repeat(link, self.frame(b"421" + MESSAGE))
        self.assertEqual(len(link.writes), ROUNDS)
        self.assertLessEqual(events["call"], 30)
        self.assertLessEqual(events["c_call"], 29)

    def test_acksOfOneReadLeaveInOneWrite(self) -> None:
        link = self.connect()
        events = self.repeat(link, self.frame(b"421" + MESSAGE) * 8)
        self.assertEqual(len(link.writes), ROUNDS)
        self.assertLessEqual(events["call"], 178)
        self.assertLessEqual(events["c_call"], 178)

    def test_ackWithMetrics(self) -> None:
        """Without the part in C, metrics add four calls in Python: a read, a frame, and two for the time."""
        Metrics(self.server)
        link = self.connect()
        events = self.repeat(link, self.frame(b"421" + MESSAGE))
        self.assertLessEqual(events["call"], 35)
        self.assertLessEqual(events["c_call"], 36)

    def test_deliveryWithMetrics(self) -> None:
        """A receiver costs no call more."""
        Metrics(self.server)
        sender = self.connect()
        message = self.frame(b'42["broadcast","' + b"x" * 64 + b'"]')
        alone = self.repeat(sender, message)
        for _ in range(50):
            self.connect()
        together = self.repeat(sender, message)
        self.assertLessEqual(together["call"] - alone["call"], 50 * 7.5)
        self.assertLessEqual(together["c_call"] - alone["c_call"], 50 * 4.5)

    def test_adminUI(self) -> None:
        """While the admin UI looks, in production mode, a message costs the count of its bytes alone."""
        admin = Admin(self.server, None)
        admin.start()
        self.addCleanup(admin.stop)
        self.connect().deliver(self.frame(b"40/admin,"))
        self.assertEqual(len(self.server.namespace("/admin").sockets), 1)
        link = self.connect()
        events = self.repeat(link, self.frame(b"421" + MESSAGE))
        self.assertLessEqual(events["call"], 33)
        self.assertLessEqual(events["c_call"], 34)
        message = self.frame(b'42["broadcast","' + b"x" * 64 + b'"]')
        alone = self.repeat(link, message)
        for _ in range(50):
            self.connect()
        together = self.repeat(link, message)
        self.assertLessEqual(together["call"] - alone["call"], 50 * 7.5)
        self.assertLessEqual(together["c_call"] - alone["c_call"], 50 * 4.5)

    def test_delivery(self) -> None:
        """Another receiver of a broadcast costs a few calls."""
        sender = self.connect()
        message = self.frame(b'42["broadcast","' + b"x" * 64 + b'"]')
        alone = self.repeat(sender, message)
        others = [self.connect() for _ in range(50)]
        together = self.repeat(sender, message)
        self.assertEqual({len(link.writes) for link in others}, {ROUNDS + 1})
        self.assertEqual(len({id(link.writes[-1]) for link in others}), 1, "framed once")
        # The test's own connection makes four of these calls, and two of those in C.
        self.assertLessEqual(together["call"] - alone["call"], 50 * 7.5)
        self.assertLessEqual(together["c_call"] - alone["c_call"], 50 * 4.5)

    def test_polling(self) -> None:
        """
        A POST and the GET that takes its ack; with the Origin that browsers send, and without.

        Each has a connection, on which a client repeats its headers; a proxy may send all on one.  The URLs
        differ, as those of browsers do.
        """
        for headers, repeats, calls, inC in (
            (b"", True, 83, 91),
            (b"", False, 89, 118),
            (b"Origin: http://localhost\r\n", True, 123, 127),
        ):
            site = self.server.site(Resource())
            site.reactor = self.server.reactor
            down = Link().connect(site)
            up = Link().connect(site) if repeats else down
            end = b"HTTP/1.1\r\nHost: localhost\r\n" + headers
            url = b"/socket.io/?EIO=4&transport=polling"
            down.deliver(b"GET %s %s\r\n" % (url, end))
            opened = re.search(rb'"sid":"([^"]+)"', down.take())
            assert opened is not None
            url += b"&sid=" + opened[1]
            get = b"GET %s %s\r\n" % (url, end)
            up.deliver(self.post(url, end, b"40"))
            down.deliver(get)
            down.writes.clear()
            post = self.post(url, end, b"421" + MESSAGE)
            requests = [
                [data.replace(b"&sid", b"&t=%d&sid" % number) for data in (post, get)]
                for number in range(ROUNDS + 1)
            ]

            def exchange(up: Link = up, down: Link = down, requests: list[list[bytes]] = requests) -> None:
                posted, polled = requests.pop()
                up.protocol.dataReceived(posted)
                down.protocol.dataReceived(polled)

            exchange()  # objects that are made once
            events = counted(lambda: [exchange() for _ in range(ROUNDS)])
            self.assertEqual(len(down.writes), (2 - repeats) * (ROUNDS + 1))
            self.assertIn(b"431[", down.writes[-1])
            self.assertLessEqual(round(events["call"] / ROUNDS), calls)
            self.assertLessEqual(round(events["c_call"] / ROUNDS), inC)

    def post(self, url: bytes, end: bytes, body: bytes) -> bytes:
        return b"POST %s %sContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (
            url,
            end,
            len(body),
            body,
        )

    def test_life(self) -> None:
        """A connection's life by WebSocket: opened, let into the namespace, and closed by the client."""
        site = self.server.site(Resource())
        site.reactor = self.server.reactor
        opening = (
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        goodbye = self.frame(b"41") + clientFrame(8, b"\x03\xe8", True, 0, b"\0\0\0\0")
        links: list[Link] = []

        def live() -> None:
            link = Link().connect(site)
            for data in (opening, self.frame(b"40"), goodbye):
                link.deliver(data)
            link.lose()
            links.append(link)

        live()
        events = counted(lambda: [live() for _ in range(ROUNDS)])
        # The response with the open packet, the welcome, and the close frame.
        self.assertEqual({len(link.writes) for link in links}, {3})
        self.assertEqual(self.server.engine.sessions, {})
        # Three are of plain.py's functions, which are one call in C where that is built.
        self.assertLessEqual(events["call"] / ROUNDS, 291.5)
        self.assertLessEqual(events["c_call"] / ROUNDS, 178.5)


class AcceleratedTests(SynchronousTestCase):
    """
    Counts with the functions in C and with orjson.
    """

    connect = HotPathTests.connect
    frame = HotPathTests.frame
    repeat = HotPathTests.repeat

    def setUp(self) -> None:
        requirePart(speedups.isAccelerated, "txrealtime._speedups is not built: it takes a C compiler")
        requirePart(jsontext.orjson, "orjson is not installed")
        self.server = Server(reactor=Clock())
        self.server.startService()
        self.addCleanup(self.server.stopService)
        self.server.on("echo")(lambda socket, text: text)

    def test_ack(self) -> None:
        link = self.connect()
        events = self.repeat(link, self.frame(b"421" + MESSAGE))
        self.assertLessEqual(events["call"], 22)
        self.assertLessEqual(events["c_call"], 18)

    def test_eight(self) -> None:
        link = self.connect()
        events = self.repeat(link, self.frame(b"421" + MESSAGE) * 8)
        self.assertLessEqual(events["call"], 114)
        self.assertLessEqual(events["c_call"], 98)

    def test_ackWithMetrics(self) -> None:
        """Metrics add no call in Python, and two in C: the clock is read before a handler and after it."""
        link = self.connect()
        plain = self.repeat(link, self.frame(b"421" + MESSAGE))
        Metrics(self.server)
        link = self.connect()
        counted = self.repeat(link, self.frame(b"421" + MESSAGE))
        self.assertLessEqual(counted["call"] - plain["call"], 0)
        self.assertLessEqual(counted["c_call"] - plain["c_call"], 2)

    def test_deliveryWithMetrics(self) -> None:
        """A broadcast is counted once for all receivers: 50 of them cost three calls more."""
        costs = []
        self.server.on("broadcast")(lambda socket, text: self.server.emit("news", text))
        message = self.frame(b'42["broadcast","' + b"x" * 64 + b'"]')
        for _ in range(2):
            sender = self.connect()
            alone = self.repeat(sender, message)
            others = [self.connect() for _ in range(50)]
            together = self.repeat(sender, message)
            costs.append([together[kind] - alone[kind] for kind in ("call", "c_call")])
            for link in (sender, *others):
                link.lose()
            Metrics(self.server)
        self.assertLessEqual(costs[1][0] - costs[0][0], 3)
        self.assertLessEqual(costs[1][1] - costs[0][1], 8)


class ClientTests(SynchronousTestCase):
    """
    The calls of the client with functions in C, and of Twisted's Deferred and coroutine: 15 for an ack.

    :ivar wrote: the frames of the client, since its connection is cut behind the handshake.
    """

    def setUp(self) -> None:
        requirePart(speedups.isAccelerated, "txrealtime._speedups is not built: it takes a C compiler")
        clock = Clock()
        server = Server(reactor=clock)
        server.startService()
        self.addCleanup(server.stopService)
        endpoint = MemoryEndpoint(clock, server.webSocketFactory())
        self.client = Client(
            "http://localhost",
            transports=["websocket"],
            reactor=clock,
            endpoint=endpoint,
            parser=JSONParser(accelerated=False),
        )
        self.client.startService()
        for _ in range(10):
            clock.advance(0)
        self.assertTrue(self.client.connected)
        (end,) = endpoint.connections
        self.wrote: list[bytes] = []
        end.write = self.wrote.append  # type: ignore[method-assign]
        self.receive = end.protocol.dataReceived

    def test_ack(self) -> None:
        """One at a time, by a coroutine that calls again as soon as it has the ack."""
        acks: list[str] = []

        async def ask() -> None:
            while True:
                acks.append(await self.client.call("echo", "x" * 64))

        asking = Deferred.fromCoroutine(ask())
        frames = [frame(b'43%d["%s"]' % (id, b"x" * 64), False) for id in range(2 * ROUNDS)]
        for each in frames[:ROUNDS]:
            self.receive(each)
        events = counted(lambda: [self.receive(each) for each in frames[ROUNDS:]])
        self.assertEqual((len(acks), len(self.wrote)), (2 * ROUNDS, 2 * ROUNDS + 1))
        self.assertLessEqual(events["call"] / ROUNDS, 36.5)
        self.assertLessEqual(events["c_call"] / ROUNDS, 36)
        asking.addErrback(lambda failure: failure.trap(CancelledError)).cancel()

    def test_event(self) -> None:
        got: list[str] = []
        self.client.on("news")(got.append)
        news = frame(b'42["news","%s"]' % (b"x" * 64), False) * ROUNDS
        self.receive(news)
        events = counted(lambda: self.receive(news))
        self.assertEqual(len(got), 2 * ROUNDS)
        self.assertLessEqual(events["call"] / ROUNDS, 6.5)
        # One takes the name out: an index and a slice, which are no calls, take 1.6 times as long.
        self.assertLessEqual(events["c_call"] / ROUNDS, 8.5)

    def test_eventWithAck(self) -> None:
        """One in a read, whose ack leaves at once."""
        self.client.on("ask")(lambda text: text)
        asks = [frame(b'42%d["ask","%s"]' % (id, b"x" * 64), False) for id in range(ROUNDS)]
        self.receive(asks[0])
        del self.wrote[:]
        events = counted(lambda: [self.receive(each) for each in asks])
        self.assertEqual(len(self.wrote), ROUNDS)
        self.assertLessEqual(events["call"] / ROUNDS, 24.5)
        self.assertLessEqual(events["c_call"] / ROUNDS, 23.5)
