"""
The bus over a stream of Redis, without a Redis; and messages that come late.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.clusters import ClusterTestCase
from tests.support import requirePart
from tests.test_redis import MASTER, _BusTestCase
from txrealtime.cluster.bus import places
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.errors import BusError

try:
    from txrealtime.cluster.bus import redisstreams
except ImportError:
    redisstreams = None


def bulk(*texts: object) -> bytes:
    """Write a reply: bytes and texts as they are, tuples and lists as arrays, whole numbers as such."""
    parts = []
    for text in texts:
        if isinstance(text, list):
            parts.append(b"*%d\r\n" % len(text) + bulk(*text))
        elif isinstance(text, int):
            parts.append(b":%d\r\n" % text)
        else:
            encoded = text if isinstance(text, bytes) else str(text).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(encoded), encoded))
    return b"".join(parts)


def info(first: int, last: int, length: int, added: int | None) -> Any:
    return places.Info((first, 0), (last, 0), length, added)


class PlaceTests(SynchronousTestCase):
    """
    The place of a reader, compared with the state of the stream.
    """

    def setUp(self) -> None:
        requirePart(redisstreams, "no txredisapi, or no hiredis: pip install '.[redis]'")
        self.place = places.Place()
        self.assertIsNone(self.place.opened(info(10, 50, 20, 100)))

    def read(self, id: int, count: int) -> None:
        self.place.id = (id, 0)
        self.place.count += count

    def test_begins(self) -> None:
        """A first connection reads what comes from now on."""
        self.assertEqual((self.place.id, self.place.count, self.place.goal), ((50, 0), 100, (50, 0)))
        empty = places.Place()
        self.assertIsNone(empty.opened(places.infoOf(Exception("ERR no such key"))))
        self.assertEqual((empty.id, empty.count), ((0, 0), 0))

    def test_nothingMissing(self) -> None:
        self.assertIsNone(self.place.opened(info(30, 90, 100, 150)))
        self.assertEqual((self.place.id, self.place.goal), ((50, 0), (90, 0)))
        self.read(90, 50)
        self.assertIsNone(self.place.compare(info(30, 90, 100, 150)))

    def test_trimmedDuringAnOutage(self) -> None:
        self.assertEqual(self.place.opened(info(70, 90, 20, 150)), 30)
        self.read(90, 20)
        self.assertIsNone(self.place.compare(info(70, 90, 20, 150)))

    def test_trimmedBehindItsBack(self) -> None:
        """The number is right once everything is read, although entries were passed over unseen."""
        self.read(90, 20)
        self.assertEqual(self.place.compare(info(70, 90, 20, 150)), 30)
        self.assertIsNone(self.place.compare(info(70, 90, 20, 150)))

    def test_trimmedWhileBehind(self) -> None:
        self.assertEqual(self.place.compare(info(60, 90, 40, 160)), 20)
        self.assertEqual(self.place.compare(info(65, 90, 35, 160)), 5)
        self.read(90, 35)
        self.assertIsNone(self.place.compare(info(65, 90, 35, 160)))

    def test_trimmedUnderTraffic(self) -> None:
        """Three entries are gone behind the place: known when what was there at the comparison is read."""
        self.read(60, 10)
        self.assertIsNone(self.place.compare(info(40, 90, 40, 140)))
        ids = [b"%d-0" % id for id in range(64, 93)]
        self.assertIsNone(self.place.read(ids[:10]))
        self.assertIsNone(self.place.compare(info(40, 92, 42, 142)))
        self.assertEqual(self.place.read(ids[10:]), 3)
        self.assertEqual((self.place.id, self.place.count), ((92, 0), 142))
        self.assertIsNone(self.place.compare(info(40, 92, 42, 142)))

    def test_trimmedTwiceUnderTraffic(self) -> None:
        self.assertIsNone(self.place.compare(info(40, 90, 40, 120)))
        self.assertEqual(self.place.compare(info(95, 100, 6, 130)), 24)
        self.assertIsNone(self.place.read([b"%d-0" % id for id in range(95, 102)]))
        self.assertEqual(self.place.count, 131)
        self.assertIsNone(self.place.compare(info(95, 101, 7, 131)))

    def test_notTrimmedUnderTraffic(self) -> None:
        self.assertIsNone(self.place.compare(info(40, 60, 40, 110)))
        self.assertIsNone(self.place.read([b"%d-0" % id for id in range(51, 62)]))
        self.assertEqual(self.place.count, 111)

    def test_countedAgain(self) -> None:
        """After a comparison that could not count, the next one can."""
        self.assertEqual(self.place.compare(info(60, 90, 5, 5)), 0)
        self.assertIsNone(self.place.count)
        self.assertIsNone(self.place.read([b"%d-0" % id for id in (60, 61, 90, 91)]))
        self.assertEqual(self.place.count, 6)

    def test_anotherStream(self) -> None:
        """An older state, such as that of a restarted Redis without its file, is a gap of unknown size."""
        self.assertEqual(self.place.opened(info(10, 40, 10, 80)), 0)
        self.assertEqual((self.place.id, self.place.count), ((40, 0), 80))
        self.assertEqual(self.place.opened(info(0, 0, 0, 0)), 0)
        self.assertEqual((self.place.id, self.place.count), ((0, 0), 0))

    def test_aNewStreamWithLaterEntries(self) -> None:
        self.assertEqual(self.place.compare(info(60, 90, 5, 5)), 0)
        self.place.id = (90, 0)
        self.assertIsNone(self.place.compare(info(60, 90, 5, 5)))
        self.assertEqual(self.place.count, 5)

    def test_beforeRedis7(self) -> None:
        """Without the number of added entries, a gap is known and its size is not."""
        place = places.Place()
        self.assertIsNone(place.opened(info(10, 50, 20, None)))
        self.assertIsNone(place.compare(info(50, 90, 20, None)))
        self.assertEqual(place.compare(info(60, 90, 20, None)), 0)


class PublisherTests(_BusTestCase):
    """
    Messages that Redis has not confirmed when a connection ends.
    """

    def setUp(self) -> None:
        super().setUp()
        self.bus = redisstreams.RedisStreamsBus(Address.fromURL("redis+streams://broker?stream=s&maxlen=7"))
        self.publisher = self.successResultOf(self.opened(self.open()))

    def open(self) -> Deferred[Any]:
        opening = self.bus.openPublisher(Clock(), self.owner)
        self.asked()
        self.answer(MASTER)
        if "LIST" in self.asked():
            self.answer(b"$0\r\n\r\n")
        self.answer(b"+OK\r\n")
        self.asked()
        return opening

    def opened(self, opening: Deferred[Any]) -> Deferred[Any]:
        self.answer(b":7\r\n")
        return opening

    def cut(self) -> None:
        self.protocol.connectionLost(Failure(BusError("cut")))

    def entry(self, id: str, mark: str) -> list[Any]:
        return [id, ["t", "a", "p", "x", "n", mark]]

    @property
    def mark(self) -> str:
        return self.bus._outboxes[self.owner]["s"].mark

    def test_added(self) -> None:
        self.publisher.publish("a", b"x")
        self.assertEqual(self.asked(), f"XADD s MAXLEN ~ 7 * t a p x n {self.mark}-1")

    def test_sentAgain(self) -> None:
        """Those behind the last one that is in the stream, in order, and only once."""
        for number in range(4):
            self.publisher.publish("a", b"%d" % number)
        self.answer(bulk("5-0"))
        self.cut()
        self.assertEqual((self.publisher.unconfirmed, len(self.owner.losses)), (0, 1))
        opening = self.opened(self.open())
        self.assertEqual(self.asked(), "XREVRANGE s + (5-0 COUNT 200")
        others = [self.entry("9-0", "stranger-77"), ["8-1", ["foreign", "entry"]]]
        self.answer(bulk([*others, self.entry("8-0", f"{self.mark}-2"), self.entry("7-0", "stranger-76")]))
        publisher = self.successResultOf(opening)
        again = self.protocol.transport.value().decode()
        self.assertEqual([f"{self.mark}-{n}" in again for n in (1, 2, 3, 4)], [False, False, True, True])
        self.assertEqual(publisher.unconfirmed, 2)
        self.answer(bulk("10-0", "11-0"))
        self.assertEqual(publisher.unconfirmed, 0)
        self.cut()
        self.asked()
        self.successResultOf(self.opened(self.open()))
        self.assertEqual(self.asked(), "")

    def test_pages(self) -> None:
        self.publisher.publish("a", b"x")
        self.cut()
        opening = self.opened(self.open())
        self.assertEqual(self.asked(), "XREVRANGE s + - COUNT 200")
        self.answer(bulk([self.entry(f"{999 - n}-0", "stranger-1") for n in range(200)]))
        self.assertEqual(self.asked(), "XREVRANGE s (800-0 - COUNT 200")
        self.answer(bulk([self.entry("700-0", f"{self.mark}-1")]))
        self.successResultOf(opening)
        self.assertEqual(self.asked(), "")

    def test_trimmedMeanwhile(self) -> None:
        """Redis may have had them and trimmed them: they are counted and not sent twice."""
        self.publisher.publish("a", b"x")
        self.answer(bulk("5-0"))
        self.publisher.publish("a", b"y")
        self.cut()
        opening = self.opened(self.open())
        self.answer(bulk([]))
        self.answer(bulk([self.entry("8-0", "stranger-1")]))
        self.successResultOf(opening)
        self.assertEqual(len(self.owner.refusals), 1)

    def test_awaited(self) -> None:
        """An owner that was told of a message's loss does not get it sent behind its back."""
        self.publisher.publish("a", b"x", Deferred())
        self.cut()
        self.assertEqual(self.publisher.unconfirmed, 1)
        self.successResultOf(self.opened(self.open()))
        self.assertEqual(self.asked(), "")

    def test_heartbeats(self) -> None:
        self.publisher.beat("a", b"1")
        self.publisher.publish("a", b"2")
        self.answer(bulk("5-0") + MASTER + bulk("6-0"))
        self.assertEqual(
            (self.publisher.unconfirmed, self.bus._outboxes[self.owner]["s"].confirmed), (0, "6-0")
        )
        self.publisher.beat("a", b"3")
        self.cut()
        self.successResultOf(self.opened(self.open()))


class SubscriberTests(_BusTestCase):
    """
    Readers that go on where they were.
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.bus = redisstreams.RedisStreamsBus(Address.fromURL("redis+streams://broker?stream=s"))
        self.heard: list[tuple[str, bytes]] = []
        self.subscription = Subscription(
            "a",
            False,
            lambda topic, payload: self.heard.append(("now", payload)),
            late=lambda topic, payload: self.heard.append(("late", payload)),
        )
        self.trimmed: list[int] = []
        self.subscription.trimmed = self.trimmed.append

    def open(self, first: str, last: str, length: int, added: int) -> Any:
        opening = self.bus.openSubscriber(self.clock, self.heard.append)
        self.answer(bulk([str(int(self.clock.seconds())), "0"]))
        self.asked()
        state = ["length", length, "last-generated-id", last, "entries-added", added]
        self.answer(bulk([*state, "first-entry", [first, ["t", "a"]]]))
        return self.successResultOf(opening)

    def entries(self, *entries: tuple[str, str, str]) -> bytes:
        listed = [[id, ["t", topic, "p", payload, "n", "-"]] for id, topic, payload in entries]
        return bulk([["s", listed]])

    def test_goesOn(self) -> None:
        subscriber = self.open("1-0", "5-0", 5, 5)
        subscriber.subscribe(self.subscription)
        self.assertEqual(self.asked(), "")
        self.clock.advance(0)
        self.assertEqual(self.asked(), "XREAD COUNT 100 BLOCK 5000 STREAMS s 5-0")
        self.answer(self.entries(("6-0", "a", "1"), ("7-0", "b", "2")))
        self.assertEqual(self.asked(), "XREAD COUNT 100 BLOCK 5000 STREAMS s 7-0")
        self.protocol.connectionLost(Failure(BusError("cut")))
        self.heard.clear()
        subscriber = self.open("1-0", "9-0", 9, 9)
        subscriber.subscribe(self.subscription)
        new = Subscription("b", False, lambda *message: self.heard.append(message), since=9 / 1000)
        subscriber.subscribe(new)
        self.clock.advance(0)
        self.assertEqual(self.asked(), "XREAD COUNT 100 BLOCK 5000 STREAMS s 7-0")
        self.answer(
            self.entries(("8-0", "a", "3"), ("8-1", "b", "before"), ("9-0", "b", "after"), ("10-0", "a", "4"))
        )
        self.assertEqual(self.heard, [("late", b"3"), ("b", b"after"), ("now", b"4")])
        self.assertEqual(self.trimmed, [])

    def test_trimmed(self) -> None:
        self.open("1-0", "5-0", 5, 5)
        subscriber = self.open("8-0", "9-0", 2, 9)
        subscriber.subscribe(self.subscription)
        self.assertEqual(self.trimmed, [])
        self.clock.advance(0)
        self.assertEqual(self.trimmed, [2])

    def test_asksForTheStateNowAndThen(self) -> None:
        subscriber = self.open("1-0", "5-0", 5, 5)
        subscriber.subscribe(self.subscription)
        self.clock.advance(0)
        self.asked()
        subscriber.ping()
        self.assertEqual(self.asked(), "")
        self.answer(b"*-1\r\n")
        self.assertTrue(self.asked().startswith("XINFO STREAM s "))
        self.answer(bulk(["length", 2, "last-generated-id", "5-0", "entries-added", 12]))
        self.assertEqual(self.trimmed, [7])
        self.answer(self.entries(("13-0", "a", "1")))
        self.assertEqual(self.heard, [("now", b"1")])

    def test_suspended(self) -> None:
        """Behind the first reply after a while the stream may have been trimmed."""
        subscriber = self.open("1-0", "5-0", 5, 5)
        subscriber.subscribe(self.subscription)
        self.clock.advance(0)
        self.asked()
        self.answer(self.entries(("6-0", "a", "1")))
        self.assertTrue(self.asked().startswith("XREAD "))
        self.clock.advance(4)
        self.answer(self.entries(("7-0", "a", "2")))
        self.assertTrue(self.asked().startswith("XINFO STREAM s "))
        self.answer(
            bulk(["length", 1, "last-generated-id", "13-0", "entries-added", 13, "first-entry", ["13-0", []]])
        )
        self.assertEqual((self.trimmed, len(self.heard)), ([5], 2))
        self.answer(self.entries(("13-0", "a", "3")))
        self.assertEqual((self.trimmed, len(self.heard)), ([5], 3))

    def test_foreignEntries(self) -> None:
        subscriber = self.open("1-0", "5-0", 5, 5)
        subscriber.subscribe(self.subscription)
        self.clock.advance(0)
        self.answer(bulk([["s", [["6-0", ["x", "a"]], ["7-0", ["t", "a", "p", "1"]]]]]))
        self.assertEqual(self.heard, [("now", b"1")])


class LateTests(ClusterTestCase):
    """
    Messages of an outage: what has happened is carried out, and questions have expired.
    """

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.join(self.two)
        self.socketOf(self.two, self.alice).join("red")
        self.asked: list[str] = []
        for server in (self.one, self.two):
            server.cluster.on("told")(lambda *args: self.asked.append("told"))
        self.settle()
        self.hub.deliver = self.deliverLate

    def deliverLate(self, topic: str, payload: bytes) -> None:
        for subscriber in list(self.hub.subscribers):
            for subscription in list(subscriber._subscriptions):
                if subscription.topic == topic:
                    subscription.late(topic, payload)

    def test_events(self) -> None:
        self.one.to("red").emit("story")
        self.one.to("red").emit("position", volatile=True)
        self.one.to("red").join("blue")
        self.settle()
        self.one.to("blue").emit("end")
        self.assertEqual(self.get(self.alice), [[("story",), ("end",)]])
        self.one.cluster.emit("told")
        self.one.to("red").disconnect()
        self.settle()
        self.assertEqual(self.asked, ["told"])
        self.assertFalse(self.two.namespace().sockets)

    def test_questions(self) -> None:
        asked = [
            self.one.to("red").call("question", timeout=1),
            self.one.to("red").fetch(timeout=1),
            self.one.cluster.call("told", timeout=1),
        ]
        self.settle()
        self.assertEqual((self.get(self.alice), self.asked), ([[]], []))
        self.advance(2)
        for each in asked:
            self.failureResultOf(each)

    def test_announcements(self) -> None:
        """A server that was there is not there; a goodbye counts."""
        self.assertIn("one", self.two.cluster.servers)
        stopped = self.one.stopService()
        self.settle()
        self.advance(3)
        self.successResultOf(stopped)
        self.assertNotIn("one", self.two.cluster.servers)
        self.member("four")
        self.settle()
        self.assertNotIn("four", self.two.cluster.servers)


class URLTests(SynchronousTestCase):
    def test_parts(self) -> None:
        for url, scheme in (
            ("redis+streams://h/2", "redis"),
            ("rediss+streams://h/2", "rediss"),
            ("redis+sentinel+streams://h/2/chat", "redis+sentinel"),
        ):
            address = Address.fromURL(url)
            self.assertTrue(address.isStreams)
            self.assertEqual((address.scheme, address.database, address.maxLength), (scheme, 2, 10_000))
            self.assertTrue(address.name.startswith(f"{scheme}+streams://h:"))
        self.assertEqual(Address.fromURL("redis+streams://h?maxlen=5").maxLength, 5)

    def test_key(self) -> None:
        for url, stream in (
            ("redis+streams://h", "txrealtime:stream"),
            ("redis+streams://h?key=shop&maxlen=9", "shop:stream"),
            ("redis+streams://h?key=shop&stream=mine", "mine"),
        ):
            _, rest = DialectChoice.fromURL(url)
            self.assertEqual(Address.fromURL(rest).stream, stream)

    def test_refused(self) -> None:
        for url, message in (
            ("redis+streams://h?maxlen=0", "at least 1"),
            ("redis+streams://h?maxlen=x", "expected a number of messages"),
            ("redis://h?maxlen=5", "unknown option maxlen"),
            ("amqp+streams://h", "no bus is called"),
            ("redis+streams://h?dialect=node", "do not read streams"),
            ("redis+streams://h?dialect=python-socketio", "do not read streams"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                DialectChoice.fromURL(url)
