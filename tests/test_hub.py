"""
The hub, and the bus to it, in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.buses import BusTestsMixin, BusUser, Owner
from tests.hubs import PATH, HubReactor, localBus, startHub
from txrealtime.cluster.bus import hubframes
from txrealtime.cluster.bus.hubframes import HEAD, MAX_FRAME, frame, number
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.cluster.bus.patterns import compilePattern
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.errors import BusError
from txrealtime.testing import Client, makeServer

GREETING = frame(hubframes.HELLO, b"raw", hubframes.VERSION)


class Raw(Protocol):
    """
    A connection that keeps what comes.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class HubTestCase(BusUser, TestCase):
    """
    A hub in memory, with `self.limits`.
    """

    limits: dict[str, int] = {}

    def setUp(self) -> None:
        self.reactor = HubReactor()
        self.hub = startHub(self.reactor, **self.limits)
        self.bus = localBus()
        self.addCleanup(self.stopHub)

    def stopHub(self) -> None:
        stopped = self.hub.stopService()
        self.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def turn(self) -> None:
        for _ in range(20):
            self.reactor.advance(0)

    async def until(self, condition: Callable[[], object]) -> None:
        self.turn()
        self.assertTrue(condition())

    def raw(self, *parts: bytes) -> Raw:
        """Connect a protocol that sends some bytes."""
        client = Raw()
        self.reactor.join(client, self.reactor.factories[PATH].buildProtocol(None))
        for part in parts:
            client.transport.write(part)
            self.turn()
        return client


class HubTests(BusTestsMixin, HubTestCase):
    """
    The suite of all buses, and what is the hub's own.
    """

    async def test_inPieces(self) -> None:
        heard, _ = await self.listen(await self.subscriber(), "t")
        client = self.raw()
        for byte in GREETING + frame(hubframes.PUBLISH, b"t", b"one") * 2:
            client.transport.write(bytes([byte]))
            self.turn()
        self.assertEqual(heard, [("t", b"one")] * 2)

    async def test_onceForTopicAndPattern(self) -> None:
        """The hub sends a message once to a connection whose topic and pattern both fit, and each gets it."""
        subscriber = await self.subscriber()
        (one, _), (two, _) = [await self.listen(subscriber, topic, topic == "a*") for topic in ("ab", "a*")]
        (await self.publisher()).publish("ab", b"1")
        self.turn()
        self.assertEqual((one, two), ([("ab", b"1")], [("ab", b"1")]))
        await self.listen(subscriber, "[b-a]", True)

    async def test_counted(self) -> None:
        first, second = await self.subscriber(), await self.subscriber()
        await self.listen(first, "t")
        await self.listen(second, "t")
        await self.listen(second, "*", True)
        publisher = await self.publisher()
        self.assertEqual(await self.result(publisher.countSubscribers("t")), 2)
        second.abort()
        self.turn()
        counts = [publisher.countSubscribers(topic) for topic in ("t", "other")]
        self.assertEqual([await self.result(count) for count in counts], [1, 0])
        lost = publisher.countSubscribers("t")
        publisher.abort()
        self.failureResultOf(lost, BusError)

    async def test_formerPublisher(self) -> None:
        """Messages of an owner's former publisher that the hub has not read are not read any more."""
        heard, _ = await self.listen(await self.subscriber(), "t")
        owner, stranger = Owner(), Owner()
        former = await self.publisher(owner)
        await self.publisher(stranger)
        pipe = self.reactor.pipes[1]
        pipe.reads = False
        former.publish("t", b"old")
        await self.publisher(owner)
        pipe.read()
        self.turn()
        self.assertEqual((heard, len(owner.losses), stranger.losses), ([], 1, []))

    async def test_answers(self) -> None:
        """Each message's own Deferred fires when the hub has it."""
        publisher = await self.publisher()
        answers: list[Deferred[None]] = [Deferred() for _ in range(3)]
        for answer in answers:
            publisher.publish("t", b"", answer)
        for answer in answers:
            self.assertNoResult(answer)
        self.turn()
        for answer in answers:
            self.assertIsNone(self.successResultOf(answer))

    async def test_tooLarge(self) -> None:
        owner = Owner()
        publisher = await self.publisher(owner)
        answer: Deferred[None] = Deferred()
        publisher.publish("t", bytes(MAX_FRAME), answer)
        self.failureResultOf(answer, BusError)
        self.assertEqual((len(owner.refusals), publisher.unconfirmed), (1, 0))
        await self.flush(publisher, await self.subscriber())

    async def test_stoppedAndStartedAgain(self) -> None:
        owner, losses = Owner(), []
        publisher, subscriber = await self.publisher(owner), await self.subscriber(losses)
        heard, _ = await self.listen(subscriber, "t")
        publisher.publish("t", b"last")
        self.reactor.advance(0)
        self.stopHub()
        self.assertEqual((heard, len(owner.losses), len(losses)), ([("t", b"last")], 1, 1))
        failures = (
            self.bus.openPublisher(self.reactor, owner),
            self.bus.openSubscriber(self.reactor, self.fail),
        )
        self.turn()
        for failed in failures:
            error = self.failureResultOf(failed, BusError)
            self.assertIn("no hub listens at /run/chat.hub: start one", str(error.value))
        self.hub.startService()
        await self.flush(await self.publisher(owner), await self.subscriber())

    async def test_notConfirmedWhenTheHubDies(self) -> None:
        owner = Owner()
        publisher, subscriber = await self.publisher(owner), await self.subscriber()
        asked = subscriber.subscribe(Subscription("t", False, lambda *message: None))
        publisher.publish("t", b"12345")
        for pipe in self.reactor.pipes:
            pipe.lose()
        self.failureResultOf(asked, BusError)
        self.assertEqual((publisher.unconfirmed, publisher.pending, len(owner.losses)), (1, 5, 1))

    async def test_stopsOneThatDoesNotRead(self) -> None:
        """A connection that does not take its last messages is aborted after a second."""
        heard, _ = await self.listen(await self.subscriber(), "t")
        self.reactor.pipes[0].peer.reads = False
        publisher = await self.publisher()
        for _ in range(4):
            publisher.publish("t", bytes(50_000))
        self.turn()
        stopped = self.hub.stopService()
        self.turn()
        self.assertNoResult(stopped)
        self.reactor.advance(1)
        self.turn()
        self.successResultOf(stopped)
        self.assertEqual(heard, [])


class StrictTests(HubTestCase):
    """
    Connections that break the protocol, and others beside them.
    """

    BROKEN = [
        # lengths that contradict each other, or are too large
        HEAD.pack(MAX_FRAME + 1, hubframes.PUBLISH, 0),
        HEAD.pack(4, hubframes.PUBLISH, 0),
        HEAD.pack(5, hubframes.PUBLISH, 1),
        HEAD.pack(0, hubframes.PUBLISH, 0),
        HEAD.pack(2**32 - 1, hubframes.PUBLISH, 2**32 - 1),
        # frames that no client sends
        frame(hubframes.CONFIRM, b"", number(1)),
        frame(hubframes.REFUSE),
        frame(77, b"t"),
        GREETING,
        # topics that are no text
        frame(hubframes.SUBSCRIBE, b"\xff"),
        frame(hubframes.SUBSCRIBE_PATTERN, b"\xff"),
        b"PUBLISH t hello\r\n",
    ]

    async def test_broken(self) -> None:
        """A broken frame ends its connection, and no other; earlier messages arrive."""
        subscriber, publisher = await self.subscriber(), await self.publisher()
        heard, _ = await self.listen(subscriber, "t")
        for broken in self.BROKEN:
            client = self.raw(GREETING, frame(hubframes.PUBLISH, b"t", b"1") + broken)
            self.assertTrue(client.lost, broken)
            self.assertEqual(heard.pop(), ("t", b"1"))
        await self.flush(publisher, subscriber)
        self.assertEqual(heard, [])

    async def test_oneRead(self) -> None:
        """Frames that come in one read have their order, and each goes to its subscribers at that moment."""

        def publish(topic: bytes, payload: bytes) -> bytes:
            return frame(hubframes.PUBLISH, topic, payload)

        subscriber = await self.subscriber()
        heard, _ = await self.listen(subscriber, "t")
        other, _ = await self.listen(subscriber, "u")
        sent = [publish(b"t", b"1"), publish(b"t", b"2"), frame(hubframes.SUBSCRIBE, b"t")]
        sent += [
            publish(b"t", b"3"),
            frame(hubframes.BEAT, b"t", b"4"),
            publish(b"u", b"5"),
            publish(b"t", b"6"),
        ]
        sent += [publish(b"nobody", b"7"), frame(hubframes.UNSUBSCRIBE, b"t"), publish(b"t", b"8")]
        # The subscriptions of the moment, and a confirmation of all but the beat and what needs none.
        replies = [frame(hubframes.HELLO, b"", hubframes.VERSION), publish(b"t", b"3")]
        replies += [frame(hubframes.BEAT, b"t", b"4"), publish(b"t", b"6")]
        replies += [frame(hubframes.CONFIRM, b"", number(8))]
        starred: list[Any] = []
        for patterns in (False, True):
            if patterns:
                starred, _ = await self.listen(await self.subscriber(), "*", True)
            heard.clear()
            other.clear()
            before = self.hub.published
            client = self.raw(GREETING, b"".join(sent))
            self.assertEqual(heard, [("t", b"%d" % number) for number in (1, 2, 3, 4, 6, 8)])
            self.assertEqual(other, [("u", b"5")])
            self.assertEqual(client.data, b"".join(replies))
            self.assertEqual(self.hub.published - before, 7)
        self.assertEqual([payload for _, payload in starred], [b"%d" % number for number in range(1, 9)])

    async def test_topicThatIsNoText(self) -> None:
        await self.listen(await self.subscriber(), "*", True)
        self.assertTrue(self.raw(GREETING, frame(hubframes.PUBLISH, b"\xff")).lost)

    def test_notGreeted(self) -> None:
        for first in (
            frame(hubframes.PUBLISH, b"t", b"1"),
            frame(hubframes.HELLO, b"", hubframes.VERSION),
            frame(hubframes.HELLO, b"x" * 201, hubframes.VERSION),
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            self.assertTrue(self.raw(first).lost, first)
        late = self.raw(GREETING[:-1])
        self.reactor.advance(4.9)
        self.assertFalse(late.lost)
        self.reactor.advance(0.2)
        self.turn()
        self.assertTrue(late.lost)

    def test_anotherVersion(self) -> None:
        """The hub tells its version before it closes."""
        client = self.raw(frame(hubframes.HELLO, b"me", b"txrealtime hub 2"))
        self.assertEqual((client.data, client.lost), (frame(hubframes.HELLO, b"", hubframes.VERSION), True))

    async def test_fewTopics(self) -> None:
        self.hub.maxTopics = 2
        subscriber = await self.subscriber()
        await self.listen(subscriber, "a")
        await self.listen(subscriber, "b*", True)
        with self.assertRaisesRegex(BusError, "at most 2 topics"):
            await self.listen(subscriber, "c")
        _, again = await self.listen(subscriber, "a")
        subscriber.unsubscribe(again)
        await self.listen(subscriber, "d")


class HubThat(Protocol):
    """
    A hub that greets with one frame, then answers each write with another.
    """

    def __init__(self, greeting: bytes, answer: bytes) -> None:
        self.replies = [greeting, answer]

    def dataReceived(self, data: bytes) -> None:
        if self.replies:
            self.transport.write(self.replies.pop(0))


class StrictClientTests(SynchronousTestCase):
    """
    Hubs that break the protocol.
    """

    def setUp(self) -> None:
        self.reactor = HubReactor()
        self.bus = localBus()

    def hub(self, greeting: bytes, answer: bytes = b"") -> None:
        class Factory:
            def buildProtocol(self, address: Any) -> Protocol:
                return HubThat(greeting, answer)

        self.reactor.factories[PATH] = Factory()

    def turn(self) -> None:
        for _ in range(9):
            self.reactor.advance(0)

    def test_greetings(self) -> None:
        for greeting, message in (
            (frame(hubframes.HELLO, b"", b"txrealtime hub 2"), "run the same release"),
            (frame(hubframes.CONFIRM), "has not greeted"),
            (b"-ERR unknown command\r\n", "does not speak the protocol"),
        ):
            self.hub(greeting)
            opening = self.bus.openPublisher(self.reactor, Owner())
            self.turn()
            self.assertIn(message, str(self.failureResultOf(opening, BusError).value))

    def test_repliesToAPublisher(self) -> None:
        for answer in (
            frame(hubframes.CONFIRM, b"", number(2)),
            frame(hubframes.CONFIRM, b"", b"1"),
            frame(hubframes.COUNT, b"", number(1)),
            frame(hubframes.PUBLISH, b"t", b"1"),
            frame(77),
        ):
            self.hub(frame(hubframes.HELLO, b"", hubframes.VERSION), answer)
            owner = Owner()
            opening = self.bus.openPublisher(self.reactor, owner)
            self.turn()
            self.successResultOf(opening).publish("t", b"1")
            self.turn()
            self.assertEqual(len(owner.losses), 1, answer)

    def test_repliesToASubscriber(self) -> None:
        for answer in (
            frame(hubframes.CONFIRM, b"", number(2)),
            frame(hubframes.REFUSE) * 2,
            frame(hubframes.COUNT, b"", number(1)),
            frame(hubframes.PUBLISH, b"\xff", b"1"),
        ):
            self.hub(frame(hubframes.HELLO, b"", hubframes.VERSION), answer)
            losses: list[str] = []
            opening = self.bus.openSubscriber(self.reactor, losses.append)
            self.turn()
            asked = self.successResultOf(opening).subscribe(Subscription("*", True, self.fail))
            asked.addErrback(lambda failure: failure.trap(BusError))
            self.turn()
            self.assertEqual(len(losses), 1, answer)


class SlowTests(HubTestCase):
    """
    A subscriber that does not read.
    """

    limits = {"maxQueued": 1_000_000}

    async def test_waits(self) -> None:
        """Below the limit, everything arrives in order when it reads again."""
        heard, _ = await self.listen(await self.subscriber(), "t")
        self.reactor.pipes[0].peer.reads = False
        publisher = await self.publisher()
        for number_ in range(90):
            publisher.publish("t", b"%d " % number_ + bytes(10_000))
            self.turn()
        self.assertEqual((publisher.unconfirmed, heard), (0, []))
        self.reactor.pipes[0].peer.read()
        self.turn()
        self.assertEqual([int(payload.split()[0]) for _, payload in heard], list(range(90)))
        self.assertEqual(self.hub.cut, 0)

    async def test_cut(self) -> None:
        """Above the limit the subscriber is cut, and the others have everything."""
        losses: list[str] = []
        heard, _ = await self.listen(await self.subscriber(losses), "t")
        well, _ = await self.listen(await self.subscriber(), "t")
        slow = self.reactor.pipes[0].peer
        slow.reads = False
        publisher = await self.publisher()
        for _ in range(120):
            publisher.publish("t", bytes(10_000))
            self.turn()
        self.assertEqual((len(losses), len(well), self.hub.cut, heard), (1, 120, 1, []))
        self.assertEqual(await self.result(publisher.countSubscribers("t")), 1)


class LinkTests(SynchronousTestCase):
    """
    Servers over a hub that dies and comes back.
    """

    def test_reconnects(self) -> None:
        reactor = HubReactor()
        hub = startHub(reactor)
        one, two = (makeServer(reactor=reactor, bus=localBus()) for _ in range(2))
        alice, bob = Client(one), Client(two)
        alice.connect()
        bob.connect()

        def settle(seconds: float) -> None:
            for _ in range(20):
                reactor.advance(seconds / 20)
                for client in (alice, bob):
                    client.flush()

        settle(3)
        self.assertEqual([server.cluster.status for server in (one, two)], ["ready", "ready"])
        one.emit("news", 1)
        one.to(bob.id()).emit("yours", 2)
        settle(1)
        self.assertEqual(bob.received(), [("news", 1), ("yours", 2)])
        self.assertEqual({each.id for each in self.fetched(one, settle)}, {alice.id(), bob.id()})
        hub.stopService()
        settle(1)
        self.assertEqual(one.cluster.status, "deaf")
        one.emit("news", 3)
        settle(1)
        self.assertEqual((alice.received()[-1:], bob.received()), ([("news", 3)], []))
        hub.startService()
        settle(4)
        self.assertEqual([server.cluster.status for server in (one, two)], ["ready", "ready"])
        self.assertEqual(bob.received(), [("news", 3)])
        self.assertEqual(one.cluster.link.counts.outages, 1)
        for client in (alice, bob):
            client.close()
        stopping = [server.stopService() for server in (one, two)]
        settle(6)
        for stopped in stopping:
            self.successResultOf(stopped)

    def test_joins(self) -> None:
        """An ack of a join leaves after the hub's confirmation: another server's next emit arrives."""
        reactor = HubReactor()
        startHub(reactor)
        one, two = (makeServer(reactor=reactor, bus=localBus()) for _ in range(2))

        @one.on("enter")
        def enter(socket: Any, room: str) -> bool:
            socket.join(room)
            return True

        alice = Client(one)
        alice.connect()
        for _ in range(60):
            reactor.advance(0.05)
        turns = []
        for place in range(20):
            acked = alice.call("enter", f"room {place}")
            turn = 0
            while not acked.called:
                self.assertLess(turn, 10)
                turn += 1
                reactor.advance(0)
                alice.flush()
            turns.append(turn)
            two.to(f"room {place}").emit("news", place)
            for _ in range(10):
                reactor.advance(0)
                alice.flush()
        self.assertEqual(alice.received(), [("news", place) for place in range(20)])
        self.assertEqual(set(turns), {1}, "to the hub and back")
        self.assertTrue(alice.call("enter", "room 1").called)
        alice.close()

    def fetched(self, server: Any, settle: Callable[[float], None]) -> list[Any]:
        fetching = server.fetch()
        settle(1)
        return self.successResultOf(fetching)

    def test_aHubThatHangs(self) -> None:
        """The heartbeat notices it, and nothing arrives late or twice."""
        reactor = HubReactor()
        startHub(reactor)
        heard: list[bytes] = []
        link = Link(localBus(), reactor)
        link.subscribe("t", lambda topic, payload: heard.append(payload))
        link.start()
        for _ in range(50):
            reactor.advance(0.1)
        self.assertEqual(link.status, LinkStatus.READY)
        hanging = list(reactor.pipes)
        for pipe in hanging:
            pipe.reads = False
        link.publish("t", b"lost")
        for _ in range(150):
            reactor.advance(0.1)
        for pipe in hanging:
            pipe.read()
        link.publish("t", b"new")
        reactor.advance(0.1)
        reactor.advance(0.1)
        self.assertEqual((link.counts.outages, link.counts.unconfirmed, heard), (1, 1, [b"new"]))
        link.stop()


class PatternTests(SynchronousTestCase):
    def test_sets(self) -> None:
        for pattern, fits, others in (
            ("[a-c]", "abc", "d-"),
            ("[c-a]", "abc", "d-"),
            ("[^a-c]", "d-", "abc"),
            (r"[\]\-]", "]-", "\\a"),
            ("[", "[", "a"),
            ("[^]", "a]", ""),
            ("[]", "", "a]"),
            ("[[:a]", "[:a", "]b"),
            ("[a&&b]", "a&b", "c"),
        ):
            compiled = compilePattern(pattern)
            for text in fits:
                self.assertTrue(compiled.fullmatch(text), (pattern, text))
            for text in others:
                self.assertFalse(compiled.fullmatch(text), (pattern, text))

    def test_stars(self) -> None:
        for pattern, text, fits in (
            ("*", "", True),
            ("a*b*c", "abxbc", True),
            ("a*b*c", "acb", False),
            ("*ab*ab", "ab", False),
            ("*ab*ab", "abab", True),
            ("**", "\n", True),
            ("a*a", "a", False),
            ("*?", "", False),
        ):
            self.assertEqual(bool(compilePattern(pattern).fullmatch(text)), fits, (pattern, text))

    def test_manyStars(self) -> None:
        """Without atomic groups this would take longer than anybody waits."""
        self.assertFalse(compilePattern("*a" * 30 + "b").fullmatch("a" * 2000))
