"""
The connections of the bus among Node's servers with the Streams adapter, which live and end together.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import requirePart
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.errors import BusError

try:
    from txrealtime.cluster.bus import nodestreams
    from txrealtime.cluster.bus.redis import Reply
except ImportError:
    nodestreams = None


class Part:
    """
    One connection of a subscriber.
    """

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []
        self.asked: list[Deferred[None]] = []
        self.pings = 0
        self.isAborted = False

    def subscribe(self, subscription: Subscription) -> Deferred[None]:
        self.subscriptions.append(subscription)
        self.asked.append(Deferred())
        return self.asked[-1]

    def unsubscribe(self, subscription: Subscription) -> None:
        self.subscriptions.remove(subscription)

    def ping(self) -> None:
        self.pings += 1

    def abort(self) -> None:
        self.isAborted = True


class SubscriberTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(nodestreams, "no txredisapi, or no hiredis: pip install '.[redis]'")
        self.lost: list[str] = []
        self.heard: list[tuple[str, bytes]] = []
        self.subscriber, self.parts = self.connected()

    def connected(self) -> tuple[Any, list[Part]]:
        subscriber = nodestreams._Subscriber(self.lost.append)
        parts = [Part(), Part(), Part()]
        subscriber.readers = {"s-0": parts[0], "s-1": parts[1]}
        subscriber.pubsub = parts[2]
        return subscriber, parts

    def subscription(self, topic: str) -> Subscription:
        return Subscription(topic, False, lambda *message: self.heard.append(message))

    def counts(self, parts: list[Part]) -> list[int]:
        return [len(part.subscriptions) for part in parts]

    def test_namespace(self) -> None:
        """Its entries may be in any stream; it is confirmed when all readers have it."""
        subscription = self.subscription("/chat")
        asked = self.subscriber.subscribe(subscription)
        self.assertEqual(self.counts(self.parts), [1, 1, 0])
        self.parts[0].asked[0].callback(None)
        self.assertNoResult(asked)
        self.parts[1].asked[0].callback(None)
        self.successResultOf(asked)
        self.parts[1].subscriptions[0].deliver("/chat", b"1")
        self.parts[0].subscriptions[0].late("/chat", b"2")
        self.assertEqual(self.heard, [("/chat", b"1"), ("/chat", b"2")])
        self.subscriber.unsubscribe(subscription)
        self.assertEqual(self.counts(self.parts), [0, 0, 0])

    def test_goesOn(self) -> None:
        """The next connection knows where the subscription began in each stream."""
        subscription = self.subscription("/chat")
        self.subscriber.subscribe(subscription)
        before = [part.subscriptions[0] for part in self.parts[:2]]
        before[0].start, before[1].start = (1, 0), (2, 0)
        subscriber, parts = self.connected()
        subscriber.subscribe(subscription)
        self.assertEqual([part.subscriptions[0].start for part in parts[:2]], [(1, 0), (2, 0)])

    def test_channel(self) -> None:
        subscription = self.subscription("socket.io#/#")
        self.subscriber.subscribe(subscription)
        self.assertEqual(self.counts(self.parts), [0, 0, 1])
        self.subscriber.unsubscribe(subscription)
        self.assertEqual(self.counts(self.parts), [0, 0, 0])

    def test_refused(self) -> None:
        asked = self.subscriber.subscribe(self.subscription("/chat"))
        self.parts[1].asked[0].errback(BusError("no"))
        self.assertEqual(str(self.failureResultOf(asked, BusError).value), "no")

    def test_heartbeat(self) -> None:
        """A heartbeat comes back when all connections have brought it."""
        beat = self.subscription("beat")
        trimmed: list[int] = []
        beat.trimmed = trimmed.append
        self.subscriber.subscribe(beat)
        self.assertEqual(self.counts(self.parts), [1, 1, 1])
        for payload in (b"1", b"2"):
            for part in self.parts:
                self.assertNotIn(("beat", payload), self.heard)
                part.subscriptions[0].deliver("beat", payload)
            self.assertEqual(self.heard[-1], ("beat", payload))
        self.parts[0].subscriptions[0].deliver("beat", b"3")
        self.parts[2].subscriptions[0].deliver("beat", b"3")
        self.assertEqual(len(self.heard), 2)
        for part in self.parts[:2]:
            part.subscriptions[0].trimmed(7)
        self.assertEqual(trimmed, [7, 7])
        self.subscriber.ping()
        self.assertEqual([part.pings for part in self.parts], [1, 1, 1])

    def test_oneIsLost(self) -> None:
        self.subscriber.partLost("cut")
        self.subscriber.partLost("cut too")
        self.assertEqual(self.lost, ["cut"])
        self.assertTrue(all(part.isAborted for part in self.parts))

    def test_lostWhileOpening(self) -> None:
        """The attempt fails; the owner has no connection that could be lost."""
        self.subscriber.pubsub = None
        self.subscriber.partLost("cut")
        self.assertEqual((self.lost, self.subscriber.why), ([], "cut"))
        self.subscriber.abort()

    def test_aborted(self) -> None:
        self.subscriber.abort()
        self.subscriber.partLost("late")
        self.assertEqual(self.lost, [])


class PublisherTests(SynchronousTestCase):
    """
    Entries and messages of the pub/sub on one connection.
    """

    options = ""

    def setUp(self) -> None:
        requirePart(nodestreams, "no txredisapi, or no hiredis: pip install '.[redis]'")
        url = f"redis+streams://broker?stream=s&streams=2&entries=node&maxlen=7{self.options}"
        self.bus = nodestreams.NodeStreamsBus(Address.fromURL(url))
        self.told: list[str] = []
        owner = type(
            "Owner", (), {"confirmed": lambda _: None, "lost": lambda _, why: self.told.append(why)}
        )()
        boxes = {stream: nodestreams.Outbox() for stream in self.bus.streams}
        self.boxes = boxes
        self.publisher = self.bus._newPublisher(owner, boxes)
        self.written = b""

        class Transport:
            def write(_, data: bytes) -> None:
                self.written += data

            def abortConnection(_) -> None:
                pass

        self.publisher.transport = Transport()
        self.publisher.established = True

    def test_order(self) -> None:
        """Each reply belongs to its own message."""
        self.publisher.publish("/", b"u 3 {}")
        self.publisher.publish("socket.io#/#", b"x")
        self.publisher.publish("/c", b"u 3 {}")
        self.assertEqual([self.written.count(name) for name in (b"s-0", b"s-1")], [1, 1])
        self.assertEqual(self.publisher.unconfirmed, 3)
        for reply in (b"5-0", 2, b"6-0"):
            self.publisher.received(reply)
        self.assertEqual(self.publisher.unconfirmed, 0)
        confirmed = {stream: box.confirmed for stream, box in self.boxes.items() if box.confirmed != "-"}
        self.assertEqual(set(confirmed.values()), {"5-0", "6-0"})

    def test_cut(self) -> None:
        """An entry is sent again by the next connection, and a message of the pub/sub is lost."""
        self.publisher.publish("/", b"u 3 {}")
        self.publisher.publish("socket.io#/#", b"x")
        self.publisher.connectionLost(Failure(ConnectionDone("cut")))
        self.assertEqual(self.publisher.unconfirmed, 1)
        self.assertEqual(sum(len(box.sent) for box in self.boxes.values()), 1)

    def test_beat(self) -> None:
        """To the pub/sub and to each stream, those of negative numbers too; nobody misses it."""
        self.publisher.beat("beat", b"1")
        self.assertEqual(self.written.count(b"XADD"), 3)
        self.assertEqual(self.written.count(b"PUBLISH"), 1)
        self.assertEqual(self.publisher.unconfirmed, 0)
        self.assertEqual(list(self.publisher._expected), [Reply.BEAT] * 4 + [Reply.ROLE])


class ShardedTests(PublisherTests):
    """
    The same with sharded pub/sub.
    """

    options = "&sharded=true"

    def test_commands(self) -> None:
        self.publisher.publish("socket.io#/#", b"x")
        self.assertEqual(self.written, b"*3\r\n$8\r\nSPUBLISH\r\n$12\r\nsocket.io#/#\r\n$1\r\nx\r\n")
        self.written = b""
        counted = self.publisher.countSubscribers("socket.io#/#")
        self.assertEqual(self.written, b"*3\r\n$6\r\nPUBSUB\r\n$11\r\nSHARDNUMSUB\r\n$12\r\nsocket.io#/#\r\n")
        self.publisher.received(1)
        self.publisher.received([b"socket.io#/#", 2])
        self.assertEqual(self.successResultOf(counted), 2)
