"""
The ground of the benchmark's figures: wrong answers do not pass, and all that does not count is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.frames import HEARTBEAT, PING, PONG, bounds, masked, plain
from benchmarks.load import Address, Loop, Wrong
from benchmarks.polling import _body
from benchmarks.report import Results
from benchmarks.websocket import Asker, Crowd, Exchange, Listener, Rotation, WebSocketClient
from benchmarks.workloads import Sample, record, text

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
OPENING = ACCEPTED + plain(b'0{"sid":"a"}') + plain(b'40{"sid":"b"}')


class FakeLoop:
    """A loop that waits for nothing."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}


class Fed:
    """In front of a client's class: what it gets is told, what it sends is kept, and there is no socket."""

    fd = 3
    loop: FakeLoop
    readable: Callable[[], None]

    def connect(self, address: Address, context: object = None) -> None:
        self.sent = b""
        self.loop.readers[self.fd] = self.readable

    def write(self, data: bytes) -> None:
        self.sent += data

    def feed(self, data: bytes) -> None:
        self.receive = lambda size: data
        self.loop.readers[self.fd]()


class FedAsker(Fed, Asker):
    pass


class FedListener(Fed, Listener):
    pass


class FrameTests(SynchronousTestCase):
    def test_plain(self) -> None:
        for size in (0, 1, 125, 126, 65535, 65536):
            frame = plain(b"x" * size)
            self.assertEqual(frame[slice(*bounds(frame, 0))], b"x" * size)
            self.assertEqual(bounds(b"before" + frame, 6)[1], 6 + len(frame))

    def test_tooShortToTell(self) -> None:
        frame = plain(b"x" * 65536)
        for size in range(10):
            self.assertGreater(bounds(frame[:size], 0)[1], size)

    def test_masked(self) -> None:
        frame = masked(b"hello!")
        self.assertEqual(frame[:2], b"\x81\x86")
        key, hidden = frame[2:6], frame[6:]
        self.assertEqual(bytes(byte ^ key[i % 4] for i, byte in enumerate(hidden)), b"hello!")


class AskerTests(SynchronousTestCase):
    """
    Two events are in flight, whose answers are in `acks`.
    """

    def setUp(self) -> None:
        self.exchange = Exchange([text(number) for number in range(8)], 2)
        self.opened: list[bool] = []
        loop = cast(Loop, FakeLoop())
        self.client = FedAsker(loop, ("host", 80), lambda: self.opened.append(True), self.exchange, 0)
        self.client.feed(OPENING)
        self.client.ask(2, 1.0)
        self.acks = [plain(ack) for ack in self.exchange.acks]

    def test_opens(self) -> None:
        self.assertEqual(self.opened, [True])

    def test_notUpgraded(self) -> None:
        client = FedAsker(cast(Loop, FakeLoop()), ("host", 80), lambda: None, self.exchange, 0)
        self.assertRaises(Wrong, client.feed, b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def test_counts(self) -> None:
        self.client.feed(self.acks[0])
        self.assertEqual((self.exchange.asked, self.exchange.done), (2, 1))
        self.client.feed(self.acks[1])
        self.assertEqual((self.exchange.asked, self.exchange.done), (2, 2))
        self.assertEqual(len(self.exchange.latencies), 2)

    def test_severalAtOnce(self) -> None:
        self.client.feed(self.acks[0] + self.acks[1])
        self.assertEqual(self.exchange.done, 2)

    def test_inPieces(self) -> None:
        both = self.acks[0] + self.acks[1]
        for position in range(len(both)):
            self.client.feed(both[position : position + 1])
        self.assertEqual(self.exchange.done, 2)

    def test_asksAgain(self) -> None:
        self.exchange.active = True
        for _ in range(5):
            for ack in self.acks:
                self.client.feed(ack)
        self.assertEqual((self.exchange.done, self.exchange.asked), (40, 42))

    def test_inAnotherOrder(self) -> None:
        self.client.feed(self.acks[1])
        self.client.feed(self.acks[0])
        self.client.ask(2, 2.0)
        self.client.feed(self.acks[2] + self.acks[3])
        self.assertEqual(self.exchange.done, 4)

    def test_writtenInAnotherWay(self) -> None:
        self.client.feed(plain(self.exchange.acks[0].replace(b"[", b"[ ")))
        self.assertEqual(self.exchange.done, 1)

    def test_heartbeats(self) -> None:
        self.client.sent = b""
        self.client.feed(plain(b"2") + self.acks[0])
        self.assertEqual(self.client.sent, HEARTBEAT)
        self.client.sent = b""
        self.client.feed(bytes((PING, 1)) + b"x")
        self.assertEqual(self.client.sent[0], PONG)
        self.assertEqual(self.exchange.done, 1)

    def test_wrong(self) -> None:
        ack = self.exchange.acks[0]
        for answer in (
            self.acks[0].replace(ack[-5:-3], b"??"),
            plain(ack.replace(b"100", b"102")),  # of an event that was not sent
            self.acks[2],
            self.acks[0] + self.acks[0],
            self.acks[1] + self.acks[1],
            plain(ack[:-1]),
            plain(b"42" + ack[5:]),
            plain(ack)[1:],
            b"\x88\x02\x03\xe8",
            b"",
        ):
            self.setUp()
            self.assertRaises(Wrong, self.client.feed, answer)

    def test_moreThanWasAskedFor(self) -> None:
        self.client.feed(self.acks[0] + self.acks[1])
        self.assertRaises(Wrong, self.client.feed, self.acks[2])

    def test_idleClientsGetNothing(self) -> None:
        class FedClient(Fed, WebSocketClient):
            pass

        client = FedClient(cast(Loop, FakeLoop()), ("host", 80), lambda: None)
        client.feed(OPENING)
        self.assertRaises(Wrong, client.feed, plain(b'42["news"]'))

    def test_rotation(self) -> None:
        exchange = Rotation([text(number) for number in range(4)], 2)
        exchange.clients = clients = [
            FedAsker(cast(Loop, FakeLoop()), ("host", 80), lambda: None, exchange, 0) for _ in range(3)
        ]
        for client in clients:
            client.feed(OPENING)
            client.sent = b""
        exchange.start()
        self.assertEqual([bool(client.sent) for client in clients], [True, True, False])
        clients[0].feed(plain(exchange.acks[0]))
        self.assertTrue(clients[2].sent)


class ListenerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.crowd = Crowd([text(0), text(1)])
        self.crowd.clients = self.clients = [
            FedListener(cast(Loop, FakeLoop()), ("host", 80), lambda: None, self.crowd) for _ in range(2)
        ]
        for client in self.clients:
            client.feed(OPENING)
        self.crowd.start()
        self.first = self.crowd.frame

    def test_everybodyHearsThenTheNextIsSaid(self) -> None:
        self.clients[0].feed(self.first)
        self.assertEqual(self.crowd.frame, self.first)
        self.clients[1].feed(self.first[:9])
        self.clients[1].feed(self.first[9:])
        self.assertNotEqual(self.crowd.frame, self.first)
        self.assertEqual((self.crowd.asked, self.crowd.done), (4, 2))

    def test_twice(self) -> None:
        self.clients[0].feed(self.first)
        self.assertRaises(Wrong, self.clients[0].feed, self.first)

    def test_somethingElse(self) -> None:
        self.assertRaises(Wrong, self.clients[0].feed, plain(b'42["news","other"]'))


class ResponseTests(SynchronousTestCase):
    def test_length(self) -> None:
        response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n43100"
        self.assertEqual(_body(response), b"43100")
        for size in range(len(response)):
            self.assertIdentical(_body(response[:size]), None)
        self.assertRaises(Wrong, _body, response + b"x")

    def test_chunked(self) -> None:
        response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n43\r\n3\r\n100\r\n0\r\n\r\n"
        self.assertEqual(_body(response), b"43100")
        self.assertIdentical(_body(response[:-1]), None)

    def test_refused(self) -> None:
        self.assertRaises(Wrong, _body, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


class ResultsTests(SynchronousTestCase):
    def results(self, peer: str, **values: Any) -> Results:
        """Return the results of three rounds in which Node needs 10, 20 and 40 us."""
        samples = []
        for turn, cost in enumerate((10.0, 20.0, 40.0)):
            samples.append(Sample("ack", "node-ws", turn, 100, {"cpu": cost, "generator": 5.0}))
            samples.append(Sample("ack", peer, turn, 100, {"cpu": cost / 2, "generator": 4.0} | values))
        return Results(samples)

    def test_ratioIsWithinTheRound(self) -> None:
        results = self.results("txrealtime")
        self.assertEqual(results.figure("ack", "txrealtime", "cpu"), 10.0)
        self.assertEqual(results.ratio("ack", "txrealtime", "cpu"), 0.5)
        self.assertEqual(results.problems, [])

    def busy(self, *turns: int) -> Results:
        """Return the results of three rounds; in some of them the load was busy."""
        return Results(
            [
                Sample("ack", "txrealtime", turn, 100, {"cpu": 10.0 + turn})
                for turn in range(3)
                if turn not in turns
            ]
            + [Sample("ack", "txrealtime", turn, 100, busy="it was busy") for turn in turns]
        )

    def test_busyTurns(self) -> None:
        """A turn in which the load was busy does not count; nor does anything, if most were."""
        self.assertEqual(self.busy(1).figure("ack", "txrealtime", "cpu"), 11.0)
        self.assertEqual(self.busy(1).problems, [])
        results = self.busy(0, 1)
        self.assertEqual(results.problems, ["ack, txrealtime: it was busy"])
        self.assertEqual(results.figure("ack", "txrealtime", "cpu"), 0.0)

    def test_oneWrongAnswerIsEnough(self) -> None:
        good = Sample("ack", "txrealtime", 0, 100, {"cpu": 10.0, "generator": 5.0})
        results = Results([good, Sample("ack", "txrealtime", 1, 100, wrong="what came")])
        self.assertEqual(results.problems, ["ack, txrealtime: what came"])
        self.assertEqual(results.figure("ack", "txrealtime", "cpu"), 0.0)


class ValueTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        self.assertEqual(len(text(7)), 64)
        exchange = Exchange([record(number) for number in range(64)], 8)
        self.assertEqual(len(exchange.acks[0]), len(b"43100[]") + 1024)
