"""
A hub that stands before a broker, in memory: two connections for all of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.components import proxyForInterface
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.buses import BusTestsMixin, BusUser, Owner
from tests.hubs import HubReactor, MemoryEndpoint, localBus, startHub
from txrealtime import Server
from txrealtime.cluster.bus.interfaces import IPublisher, Subscription
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.errors import BusError
from txrealtime.testing import Client
from txrealtime.workers.hub import Hub


class Strict(MemoryBus):
    """
    A bus whose broker refuses messages on the topic "forbidden", and counts nothing.
    """

    def openPublisher(self, reactor: Any, owner: Any) -> Deferred[Any]:
        class Publisher(proxyForInterface(IPublisher)):  # type: ignore[misc]
            def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
                if topic != "forbidden":
                    self.original.publish(topic, payload, answer)
                else:
                    owner.refused("not here")
                    assert answer is not None
                    answer.errback(BusError("not here"))

            def countSubscribers(self, topic: str) -> Deferred[int]:
                raise AssertionError

        return super().openPublisher(reactor, owner).addCallback(Publisher)


class UpstreamTestCase(BusUser, TestCase):
    """
    A hub before a broker in memory.
    """

    Bus = MemoryBus

    def setUp(self) -> None:
        self.reactor = HubReactor()
        self.broker = MemoryHub()
        self.hub = startHub(self.reactor, bus=self.Bus(self.broker))
        self.bus = localBus()
        self.addCleanup(self.stopHub)
        self.turn()

    def stopHub(self) -> None:
        self.broker.resume()
        stopped = self.hub.stopService()
        self.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def turn(self, seconds: float = 0) -> None:
        for _ in range(40):
            self.reactor.advance(seconds / 40)

    async def until(self, condition: Callable[[], object]) -> None:
        self.turn()
        self.assertTrue(condition())

    @property
    def upstream(self) -> Any:
        """The broker's end of the hub's subscriber."""
        (subscriber,) = self.broker.subscribers
        return subscriber

    def topics(self) -> set[str]:
        """The topics and patterns that the hub is subscribed to, without its heartbeat's."""
        subscribed = {each.topic for each in self.upstream._subscriptions}
        return {topic for topic in subscribed if "heartbeat" not in topic}


class UpstreamTests(BusTestsMixin, UpstreamTestCase):
    """
    The suite of all buses, and what is this hub's own.
    """

    async def test_twoConnections(self) -> None:
        """The broker has two connections, one subscription to a topic, and each message comes once."""
        subscribers = [await self.subscriber() for _ in range(5)]
        heard = [(await self.listen(subscriber, "t"))[0] for subscriber in subscribers]
        delivered: list[str] = []
        received = self.upstream.received
        self.upstream.received = lambda topic, payload: (delivered.append(topic), received(topic, payload))
        for number in range(3):
            (await self.publisher()).publish("t", b"%d" % number)
        self.turn()
        self.assertEqual((len(self.broker.publishers), len(self.broker.subscribers)), (1, 1))
        self.assertEqual(delivered, ["t"] * 3)
        self.assertEqual(heard, [[("t", b"0"), ("t", b"1"), ("t", b"2")]] * 5)

    async def test_unionOfTopics(self) -> None:
        """The hub is subscribed to a topic while one of its connections is."""
        first, second = await self.subscriber(), await self.subscriber()
        _, subscription = await self.listen(first, "t")
        await self.listen(second, "t")
        await self.listen(second, "a*", True)
        first.unsubscribe(subscription)
        self.turn()
        self.assertEqual(self.topics(), {"t", "a*"})
        second.abort()
        self.turn()
        self.assertEqual(self.topics(), set())
        heard, _ = await self.listen(first, "t")
        (await self.publisher()).publish("t", b"again")
        self.turn()
        self.assertEqual(heard, [("t", b"again")])

    async def test_onceForTopicsAndPatterns(self) -> None:
        """A message that comes by its topic and by patterns goes once to each subscription."""
        first, second = await self.subscriber(), await self.subscriber()
        (one, topic), (two, _), (three, _) = [
            await self.listen(first, name, "*" in name) for name in ("ab", "a*", "*b")
        ]
        four, _ = await self.listen(second, "a*", True)
        publisher = await self.publisher()
        publisher.publish("ab", b"1")
        self.turn()
        self.assertEqual((one, two, three, four), ([("ab", b"1")],) * 4)
        first.unsubscribe(topic)
        publisher.publish("ab", b"2")
        self.turn()
        self.assertEqual([len(heard) for heard in (one, two, three, four)], [1, 2, 2, 2])

    async def test_topicThatIsAPattern(self) -> None:
        """A text is not a topic and a pattern at a time."""
        subscriber = await self.subscriber()
        await self.listen(subscriber, "a*")
        refused = subscriber.subscribe(Subscription("a*", True, self.fail))
        self.turn()
        self.failureResultOf(refused, BusError)

    async def test_confirmedByTheBroker(self) -> None:
        """The hub confirms nothing that the broker has not confirmed, and keeps the order of replies."""
        owner = Owner()
        subscriber, publisher = await self.subscriber(), await self.publisher(owner)
        await self.listen(await self.subscriber(), "known")
        self.broker.pause()
        answers: list[Deferred[None]] = [Deferred(), Deferred()]
        for answer in answers:
            publisher.publish("t", b"12345", answer)
        asked = [
            subscriber.subscribe(Subscription(topic, False, lambda *message: None))
            for topic in ("new", "known")
        ]
        self.turn()
        for waiting in (*answers, *asked):
            self.assertNoResult(waiting)
        self.assertEqual((publisher.unconfirmed, publisher.pending, owner.confirmations), (2, 10, 0))
        self.broker.resume()
        self.turn()
        for waiting in (*answers, *asked):
            self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual((publisher.unconfirmed, publisher.pending), (0, 0))

    async def test_counted(self) -> None:
        """The broker sees each subscriber of a topic whose subscribers others count, and sends to each."""
        heard: list[bytes] = []
        subscribers = [await self.subscriber() for _ in range(3)]
        subscriptions = [
            Subscription("t", False, lambda topic, payload: heard.append(payload), counted=True)
            for _ in subscribers
        ]
        for subscriber, subscription in zip(subscribers, subscriptions, strict=True):
            await self.result(subscriber.subscribe(subscription))
            await self.listen(subscriber, "other")
        publisher = await self.publisher()
        publisher.publish("t", b"1")
        counts = [publisher.countSubscribers(topic) for topic in ("t", "other")]
        self.assertEqual([await self.result(count) for count in counts], [3, 1])
        self.assertEqual(heard, [b"1"] * 3)
        subscribers[0].unsubscribe(subscriptions[0])
        subscribers[1].abort()
        self.turn()
        self.assertEqual(self.broker.count("t"), 1)
        publisher.publish("t", b"2")
        self.turn()
        self.assertEqual(heard, [b"1"] * 3 + [b"2"])

    async def test_countedConnectionLost(self) -> None:
        """A worker hears that the connection of its own is lost; the others go on."""
        losses: list[str] = []
        counted, other = await self.subscriber(losses), await self.subscriber()
        await self.result(counted.subscribe(Subscription("t", False, self.fail, counted=True)))
        self.broker.subscribers[1].end("the broker has cut it")
        heard, _ = await self.listen(other, "u")
        self.assertEqual(losses, ["the broker has cut it"])
        (await self.publisher()).publish("u", b"1")
        self.turn()
        self.assertEqual(heard, [("u", b"1")])

    async def test_outage(self) -> None:
        """Connections end with the broker's, for its reason; new ones wait for it."""
        owner, losses = Owner(), []
        publisher, subscriber = await self.publisher(owner), await self.subscriber(losses)
        await self.listen(subscriber, "t")
        self.broker.pause()
        publisher.publish("t", b"1")
        asked = subscriber.subscribe(Subscription("u", False, lambda *message: None))
        self.turn()
        self.broker.stop()
        self.broker.resume()
        self.turn()
        for told in (owner.losses, losses):
            self.assertEqual(len(told), 1)
            self.assertRegex(told[0], "the hub has no link to memory: .*the hub has cut it")
        self.failureResultOf(asked, BusError)
        self.assertEqual(publisher.unconfirmed, 1)
        opening = self.bus.openSubscriber(self.reactor, losses.append)
        self.turn(2)
        self.assertNoResult(opening)
        self.turn(2)
        error = self.failureResultOf(opening, BusError)
        self.assertIn("no link to memory: the hub is stopped", str(error.value))
        opening = self.bus.openSubscriber(self.reactor, losses.append)
        self.turn()
        self.broker.start()
        self.turn(0.4)
        again = self.successResultOf(opening)
        self.addCleanup(again.abort)
        self.assertEqual(self.topics(), set())
        await self.flush(await self.publisher(owner), again)

    async def test_beforeTheBroker(self) -> None:
        """A hub may start before its broker."""
        await self.publisher()
        self.stopHub()
        self.broker.stop()
        self.hub.startService()
        opening = self.bus.openPublisher(self.reactor, Owner())
        self.turn(1)
        self.assertNoResult(opening)
        self.broker.start()
        self.turn(1)
        self.successResultOf(opening).abort()

    async def test_brokerHangs(self) -> None:
        """The hub's own heartbeat notices."""
        losses: list[str] = []
        await self.subscriber(losses)
        self.broker.pause()
        self.turn(9)
        self.assertEqual(losses, [])
        self.turn(2)
        self.assertIn("the heartbeat did not come back within 5 s", losses[0])

    async def test_lastMessages(self) -> None:
        """Messages sent before the hub stops reach the broker, and their publisher hears so."""
        owner = Owner()
        publisher = await self.publisher(owner)
        for _ in range(100):
            publisher.publish("t", b"1")
        self.reactor.advance(0)
        self.stopHub()
        self.assertEqual((publisher.unconfirmed, len(owner.losses)), (0, 1))

    async def test_greetsTwice(self) -> None:
        """A connection that does not wait for the greeting is ended, alone."""
        self.broker.stop()
        self.turn()
        opening = self.bus.openPublisher(self.reactor, Owner())
        self.reactor.advance(0)
        self.reactor.advance(0)
        client = self.reactor.pipes[-1].peer
        client.write(b"\0\0\0\x06\x01\0\0\0\x01t")
        self.turn()
        self.failureResultOf(opening, BusError)
        self.broker.start()
        self.turn(1)

    async def test_notUTF8(self) -> None:
        publisher = await self.publisher(owner := Owner())
        self.reactor.pipes[-1].peer.write(b"\0\0\0\x06\x01\0\0\0\x01\xff")
        self.turn()
        self.assertEqual(len(owner.losses), 1)
        publisher.abort()


class RefusalTests(UpstreamTestCase):
    Bus = Strict

    async def test_refused(self) -> None:
        """A refusal reaches the publisher of the message, in the place of its confirmation."""
        owner, other = Owner(), Owner()
        publisher = await self.publisher(owner)
        (await self.publisher(other)).publish("t", b"1")
        answers: list[Deferred[None]] = [Deferred() for _ in range(3)]
        for answer, topic in zip(answers, ("t", "forbidden", "t"), strict=True):
            publisher.publish(topic, b"12345", answer)
        self.turn()
        self.successResultOf(answers[0])
        self.assertIn("not here", str(self.failureResultOf(answers[1], BusError).value))
        self.successResultOf(answers[2])
        self.assertEqual((owner.refusals, other.refusals), (["not here"], []))
        self.assertEqual((publisher.unconfirmed, publisher.pending), (0, 0))

    async def test_withoutAnswers(self) -> None:
        owner = Owner()
        publisher = await self.publisher(owner)
        publisher.publish("forbidden", b"1")
        self.turn()
        self.assertEqual((owner.refusals, publisher.unconfirmed, owner.losses), (["not here"], 0, []))

    async def test_fewTopics(self) -> None:
        """A refusal of the hub's own comes after the replies to what was before it."""
        self.hub.maxTopics = 1
        subscriber = await self.subscriber()
        asked = [
            subscriber.subscribe(Subscription(topic, False, lambda *message: None)) for topic in ("a", "b")
        ]
        self.turn()
        self.assertIsNone(self.successResultOf(asked[0]))
        self.assertIn("at most 1 topics", str(self.failureResultOf(asked[1], BusError).value))


class Machines(SynchronousTestCase):
    """
    Two machines, each with a hub and two servers, on one broker.
    """

    DIALECT = DialectChoice()

    def setUp(self) -> None:
        self.broker = MemoryHub()
        self.reactors = [HubReactor(), HubReactor()]
        self.hubs = [
            Hub(MemoryEndpoint(reactor), reactor, bus=MemoryBus(self.broker)) for reactor in self.reactors
        ]
        for hub in self.hubs:
            hub.startService()
        self.servers: list[Server] = []
        for number in range(4):
            server = Server(reactor=self.reactors[number // 2])
            server.cluster.use(localBus(), self.DIALECT)
            server.cluster.name = f"server {number}"
            server.startService()
            self.servers.append(server)
        self.clients = [Client(server) for server in self.servers]
        for client in self.clients:
            client.connect()
        self.settle(3)

    def tearDown(self) -> None:
        for client in self.clients:
            client.close()
        stopping = [server.stopService() for server in self.servers]
        self.settle(3)
        stopping += [hub.stopService() for hub in self.hubs]
        self.settle(3)
        for stopped in stopping:
            self.successResultOf(stopped)
        for reactor in self.reactors:
            self.assertEqual(reactor.getDelayedCalls(), [])

    def settle(self, seconds: float = 0) -> None:
        for _ in range(round(seconds * 20) + 20):
            for reactor in self.reactors:
                reactor.advance(seconds / (round(seconds * 20) + 20))
            for client in self.clients:
                client.flush()

    def received(self) -> list[list[Any]]:
        self.settle()
        return [client.received() for client in self.clients]


class MachinesTests(Machines):
    def test_together(self) -> None:
        """Each worker is a server to all others: by name, by questions, by the ids of its sockets."""
        one, *others = self.servers
        self.assertEqual(set(one.cluster.servers), {"server 1", "server 2", "server 3"})
        self.assertEqual((len(self.broker.publishers), len(self.broker.subscribers)), (2, 2))
        one.emit("news", 1)
        self.assertEqual(self.received(), [[("news", 1)]] * 4)
        one.to(self.clients[3].id()).emit("yours", 2)
        self.assertEqual(self.received(), [[], [], [], [("yours", 2)]])
        fetching = one.fetch()
        self.settle(1)
        self.assertEqual(
            {person.id for person in self.successResultOf(fetching)}, {client.id() for client in self.clients}
        )
        for number, server in enumerate(others):
            server.cluster.on("who")(lambda number=number: number)
        calling = one.cluster.call("who")
        self.settle(1)
        self.assertEqual(sorted(self.successResultOf(calling)), [0, 1, 2])

    def test_outage(self) -> None:
        """Servers see an outage as on the broker itself, and what they publish meanwhile arrives after it."""
        self.broker.stop()
        self.settle(1)
        for server in self.servers:
            self.assertEqual(server.cluster.status, "deaf")
            self.assertIn("no link to memory", server.cluster.link.reason)
        with self.assertRaises(BusError):
            self.failureResultOf(self.servers[0].fetch()).raiseException()
        self.servers[0].emit("meanwhile", 1)
        self.settle(5)
        self.assertEqual(self.received(), [[("meanwhile", 1)], [], [], []])
        self.broker.start()
        self.settle(4)
        self.assertEqual([server.cluster.status for server in self.servers], ["ready"] * 4)
        self.assertEqual(self.received(), [[]] + [[("meanwhile", 1)]] * 3)
        self.assertEqual({server.cluster.link.counts.outages for server in self.servers}, {1})
        self.assertEqual(len(self.servers[0].cluster.servers), 3)

    def test_workerGone(self) -> None:
        """A server that ends is missed by its lease or its goodbye, not by the hub's connections."""
        last = self.servers.pop()
        self.clients.pop().close()
        stopping = last.stopService()
        self.settle(3)
        self.successResultOf(stopping)
        self.assertEqual(set(self.servers[0].cluster.servers), {"server 1", "server 2"})


class NodeMachinesTests(Machines):
    """
    In Node's dialect, servers count the subscribers of a topic of requests.
    """

    DIALECT = DialectChoice("node", "socket.io")

    def test_fetch(self) -> None:
        """The broker counts each worker, and each worker replies."""
        self.assertEqual(self.broker.count("socket.io-request#/#"), 4)
        self.assertEqual(len(self.broker.publishers), 2)
        self.assertEqual(len(self.broker.subscribers), 2 + 4)
        fetching = self.servers[0].fetch()
        self.settle(1)
        self.assertEqual(
            {person.id for person in self.successResultOf(fetching)}, {client.id() for client in self.clients}
        )

    def test_emit(self) -> None:
        self.servers[2].emit("news", 1)
        self.servers[0].to("room").emit("none", 2)
        self.assertEqual(self.received(), [[("news", 1)]] * 4)


class PythonMachinesTests(Machines):
    DIALECT = DialectChoice("python-socketio", "socketio")

    def test_emit(self) -> None:
        self.servers[2].emit("news", 1)
        self.servers[2].to(self.clients[3].id()).emit("yours", 2)
        self.assertEqual(self.received(), [[("news", 1)]] * 3 + [[("news", 1), ("yours", 2)]])


class OverloadTests(SynchronousTestCase):
    def test_queue(self) -> None:
        """A message that the queue has no room for fails its own Deferred."""
        reactor, broker = HubReactor(), MemoryHub()
        link = Link(MemoryBus(broker), reactor, maxQueued=1100)
        link.start()
        for _ in range(20):
            reactor.advance(0)
        self.assertEqual(link.status, LinkStatus.READY)
        broker.pause()
        answers: list[Deferred[None]] = [Deferred() for _ in range(4)]
        for answer, size in zip(answers, (300_000, 400, 400, 400), strict=True):
            link.publish("t", bytes(size), answer)
        self.assertIn("queue", str(self.failureResultOf(answers[1], BusError).value))
        broker.resume()
        for _ in range(20):
            reactor.advance(0)
        for answer in (answers[0], *answers[2:]):
            self.assertIsNone(self.successResultOf(answer))
        link.stop()
