"""
One suite for every bus: the one in memory and those with brokers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txrealtime.cluster.bus.interfaces import IBus, IPublisher, IPublisherOwner, ISubscriber, Subscription

EVERY_BYTE = bytes(range(256))


@implementer(IPublisherOwner)
class Owner:
    """
    An owner of a publisher, which keeps the calls.
    """

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.losses: list[str] = []
        self.confirmations = 0

    def confirmed(self) -> None:
        self.confirmations += 1

    def refused(self, reason: str) -> None:
        self.refusals.append(reason)

    def lost(self, reason: str) -> None:
        self.losses.append(reason)


class BusUser:
    """
    Helpers for a TestCase of trial with `bus`, `reactor`, and `until`, which waits for a condition.
    """

    bus: IBus
    reactor: Any

    async def until(self, condition: Callable[[], object]) -> None:
        raise NotImplementedError

    async def publisher(self, owner: Owner | None = None) -> IPublisher:
        return await self._opened(self.bus.openPublisher(self.reactor, owner or Owner()))

    async def subscriber(self, losses: list[str] | None = None) -> ISubscriber:
        append = (losses if losses is not None else []).append
        return await self._opened(self.bus.openSubscriber(self.reactor, append))

    async def _opened(self, opening: Deferred[Any]) -> Any:
        opened = await self.result(opening)
        self.addCleanup(opened.abort)
        return opened

    async def result(self, deferred: Deferred[Any]) -> Any:
        """Wait as `until` does, which may have to advance a clock."""
        done: list[Any] = []
        deferred.addBoth(done.append)
        await self.until(lambda: done)
        if hasattr(done[0], "raiseException"):
            done[0].raiseException()
        return done[0]

    async def listen(
        self, subscriber: ISubscriber, topic: str, pattern: bool = False
    ) -> tuple[list[tuple[str, bytes]], Subscription]:
        """Subscribe, and return the list that messages will be added to."""
        heard: list[tuple[str, bytes]] = []
        subscription = Subscription(topic, pattern, lambda *message: heard.append(message))
        await self.result(subscriber.subscribe(subscription))
        return heard, subscription

    async def flush(self, publisher: IPublisher, *subscribers: ISubscriber) -> None:
        """Wait until these subscribers have all earlier messages, by one more on a topic for that."""
        for subscriber in subscribers:
            heard, subscription = await self.listen(subscriber, "flush")
            publisher.publish("flush", b"")
            await self.until(lambda heard=heard: heard)
            subscriber.unsubscribe(subscription)


class BusTestsMixin(BusUser):
    """
    The tests of every bus.
    """

    isOrderedOverTopics = True
    "True if the messages of one publisher arrive in order over all topics, not only on each."

    async def test_interfaces(self) -> None:
        verifyObject(IBus, self.bus)
        verifyObject(IPublisher, await self.publisher())
        verifyObject(ISubscriber, await self.subscriber())

    async def test_toAllWhoSubscribed(self) -> None:
        first, second, third = [await self.subscriber() for _ in range(3)]
        (one, _), (two, _), (other, _) = [
            await self.listen(subscriber, topic)
            for subscriber, topic in ((first, "t"), (second, "t"), (third, "other"))
        ]
        publisher = await self.publisher()
        publisher.publish("t", b"hello")
        await self.flush(publisher, first, second, third)
        self.assertEqual((one, two, other), ([("t", b"hello")], [("t", b"hello")], []))

    async def test_inOrderOfEachPublisher(self) -> None:
        heard, _ = await self.listen(await self.subscriber(), "t")
        publishers = [await self.publisher() for _ in range(2)]
        for number in range(500):
            for name, publisher in zip(b"ab", publishers, strict=True):
                publisher.publish("t", b"%c%d" % (name, number))
        await self.until(lambda: len(heard) >= 1000)
        for name in (b"a", b"b"):
            self.assertEqual(
                [int(payload[1:]) for _, payload in heard if payload.startswith(name)], list(range(500))
            )

    async def test_inOrderOverAllTopics(self) -> None:
        subscriber = await self.subscriber()
        heard: list[tuple[str, bytes]] = []
        topics = [f"room {number}" for number in range(20)]
        for topic in topics:
            subscription = Subscription(topic, False, lambda *message: heard.append(message))
            await self.result(subscriber.subscribe(subscription))
        publisher = await self.publisher()
        sent = [(topics[turn * 7 % 20], b"%d" % turn) for turn in range(1000)]
        for topic, payload in sent:
            publisher.publish(topic, payload)
        await self.until(lambda: len(heard) >= len(sent))
        if self.isOrderedOverTopics:
            self.assertEqual(heard, sent)
        for topic in topics:
            self.assertEqual([each for each in heard if each[0] == topic], [e for e in sent if e[0] == topic])

    async def test_anyPayload(self) -> None:
        payloads = [b"", b"12", b"-1.5", b"\r\n$3\r\n", EVERY_BYTE, b"\xff\xfe", b"null", EVERY_BYTE * 8192]
        heard, _ = await self.listen(await self.subscriber(), "t")
        publisher = await self.publisher()
        for payload in payloads:
            publisher.publish("t", payload)
        await self.until(lambda: len(heard) >= len(payloads))
        self.assertEqual([payload for _, payload in heard], payloads)

    async def test_anyTopic(self) -> None:
        topics = ["", "a b", "*", "socket.io#/#red#", "Straße\n", "x" * 300, "x" * 301, "a.b", "#"]
        subscriber = await self.subscriber()
        listened = [(await self.listen(subscriber, topic))[0] for topic in topics]
        publisher = await self.publisher()
        for topic in topics:
            publisher.publish(topic, topic.encode())
        await self.flush(publisher, subscriber)
        self.assertEqual(listened, [[(topic, topic.encode())] for topic in topics])

    async def test_unsubscribed(self) -> None:
        subscriber, publisher = await self.subscriber(), await self.publisher()
        heard, subscription = await self.listen(subscriber, "t")
        subscriber.unsubscribe(subscription)
        # Commands are in order, so the unsubscription is done when this is confirmed.
        again, _ = await self.listen(subscriber, "again")
        publisher.publish("t", b"1")
        await self.flush(publisher, subscriber)
        self.assertEqual(heard, [])
        anew, _ = await self.listen(subscriber, "t")
        publisher.publish("t", b"2")
        await self.flush(publisher, subscriber)
        self.assertEqual((heard, again, anew), ([], [], [("t", b"2")]))

    async def test_patterns(self) -> None:
        subscriber, publisher = await self.subscriber(), await self.publisher()
        if not self.bus.patterns:
            return
        patterns = ["socket.io#/#*", "a?c", "[ab]\\*", "x[^y]*"]
        topics = [
            "socket.io#/#",
            "socket.io#/#red#",
            "socket.io#/b#",
            "abc",
            "abbc",
            "a*",
            "ab",
            "xa1",
            "xy1",
        ]
        listened = [(await self.listen(subscriber, pattern, True))[0] for pattern in patterns]
        for topic in topics:
            publisher.publish(topic, b"")
        await self.flush(publisher, subscriber)
        self.assertEqual(
            [[topic for topic, _ in heard] for heard in listened],
            [["socket.io#/#", "socket.io#/#red#"], ["abc"], ["a*"], ["xa1"]],
        )

    async def test_confirmed(self) -> None:
        owner = Owner()
        publisher = await self.publisher(owner)
        for _ in range(3):
            publisher.publish("nobody", b"12345")
        publisher.beat("nobody", b"123")
        self.assertEqual((publisher.unconfirmed, publisher.pending), (3, 15))
        await self.until(lambda: not publisher.unconfirmed)
        self.assertEqual(publisher.pending, 0)
        self.assertTrue(owner.confirmations)
        self.assertEqual((owner.refusals, owner.losses), ([], []))

    async def test_beat(self) -> None:
        heard, _ = await self.listen(await self.subscriber(), "beat")
        owner = Owner()
        publisher = await self.publisher(owner)
        publisher.beat("beat", b"1")
        publisher.publish("beat", b"2")
        publisher.beat("beat", b"3")
        await self.until(lambda: len(heard) >= 3 and not publisher.unconfirmed)
        self.assertEqual(heard, [("beat", b"1"), ("beat", b"2"), ("beat", b"3")])
        self.assertEqual(owner.losses, [])

    async def test_closedAfterTheLastMessage(self) -> None:
        heard, _ = await self.listen(await self.subscriber(), "t")
        owner = Owner()
        publisher = await self.publisher(owner)
        for number in range(100):
            publisher.publish("t", b"%d" % number)
        await self.result(publisher.close())
        self.assertEqual(publisher.unconfirmed, 0)
        await self.until(lambda: len(heard) >= 100)
        self.assertEqual(owner.losses, [])
        await self.result((await self.publisher()).close())

    async def test_aborted(self) -> None:
        losses: list[str] = []
        gone, stays = await self.subscriber(losses), await self.subscriber()
        heard, _ = await self.listen(gone, "t")
        owner = Owner()
        cut, publisher = await self.publisher(owner), await self.publisher()
        gone.abort()
        cut.abort()
        publisher.publish("t", b"1")
        await self.flush(publisher, stays)
        self.assertEqual((heard, losses, owner.losses), ([], [], []))

    async def test_attemptCancelled(self) -> None:
        for open, told in ((self.bus.openPublisher, Owner()), (self.bus.openSubscriber, self.fail)):
            opening = open(self.reactor, told)
            opening.cancel()
            with self.assertRaises(CancelledError):
                await self.result(opening)

    async def test_manySubscriptions(self) -> None:
        subscriber, publisher = await self.subscriber(), await self.publisher()
        heard: list[str] = []
        subscriptions = [
            Subscription(f"room {number}", False, lambda topic, payload: heard.append(topic))
            for number in range(300)
        ]
        for confirmed in [subscriber.subscribe(subscription) for subscription in subscriptions]:
            await self.result(confirmed)
        for subscription in subscriptions:
            publisher.publish(subscription.topic, b"")
        await self.until(lambda: len(heard) >= 300)
        self.assertEqual(heard, [subscription.topic for subscription in subscriptions])
