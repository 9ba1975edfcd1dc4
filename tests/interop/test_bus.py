"""
The buses with brokers, tested like the bus in memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.buses import BusTestsMixin, Owner
from tests.interop.brokers import Redis, rabbitMQ
from txrealtime.cluster.bus.interfaces import IBus, Subscription
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.errors import BusError
from txrealtime.workers.hub import Hub


class _BrokerTests(BusTestsMixin):
    """The tests of a bus, on a real clock."""

    timeout = 300
    reactor = reactor

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0.005)


class _RedisTests(_BrokerTests):
    async def test_formerPublisher(self) -> None:
        """A new publisher has Redis end the one before, and no other."""
        owner, stranger = Owner(), Owner()
        await self.publisher(owner)
        await self.publisher(stranger)
        await self.publisher(owner)
        await self.until(lambda: owner.losses)
        self.assertEqual((len(owner.losses), stranger.losses), (1, []))


class RedisTests(_RedisTests, TestCase):
    """
    Redis with a password and a database, over TCP.
    """

    async def setUp(self) -> None:
        self.redis = await Redis(self, requirepass="p@ss").start()
        self.bus = busFromURL(f"redis://default:p%40ss@127.0.0.1:{self.redis.port}/3")

    async def test_databaseThatIsNone(self) -> None:
        bus = busFromURL(f"redis://:p%40ss@127.0.0.1:{self.redis.port}/99")
        with self.assertRaisesRegex(BusError, "DB index is out of range"):
            await bus.openPublisher(reactor, Owner())

    async def test_user(self) -> None:
        """A user may have certain topics only."""
        await self.redis.cli("ACL", "SETUSER", "joe", "on", ">secret", "resetchannels", "&ours*", "+@all")
        self.bus = busFromURL(f"redis://joe:secret@127.0.0.1:{self.redis.port}")
        owner = Owner()
        publisher, subscriber = await self.publisher(owner), await self.subscriber()
        heard, _ = await self.listen(subscriber, "ours")
        with self.assertRaisesRegex(BusError, "NOPERM"):
            await subscriber.subscribe(Subscription("theirs", False, lambda *message: None))
        publisher.publish("theirs", b"1")
        publisher.publish("ours", b"2")
        await self.until(lambda: heard)
        self.assertEqual(len(owner.refusals), 1)
        self.assertRegex(owner.refusals[0], "NOPERM")
        self.assertEqual((owner.losses, publisher.unconfirmed, publisher.pending), ([], 0, 0))

    async def test_userWhoMayOnlyPublish(self) -> None:
        """The other commands may be forbidden."""
        await self.redis.cli(
            "ACL", "SETUSER", "joe", "on", ">secret", "allchannels", "+publish", "+subscribe"
        )
        self.bus = busFromURL(f"redis://joe:secret@127.0.0.1:{self.redis.port}")
        owner = Owner()
        publisher = await self.publisher(owner)
        heard, _ = await self.listen(await self.subscriber(), "t")
        publisher.beat("t", b"1")
        publisher.publish("t", b"2")
        await self.until(lambda: len(heard) == 2 and not publisher.unconfirmed)
        (await self.subscriber()).ping()
        await (await self.publisher(owner)).close()
        self.assertEqual((owner.refusals, owner.losses), ([], []))


class RedisStreamsTests(_RedisTests, TestCase):
    """
    A stream of Redis.
    """

    async def setUp(self) -> None:
        self.redis = await Redis(self).start()
        self.bus = busFromURL(f"redis+streams://127.0.0.1:{self.redis.port}/1")


class RedisSocketTests(_RedisTests, TestCase):
    """
    Redis by a Unix socket.
    """

    async def setUp(self) -> None:
        self.redis = Redis(self)
        path = f"{self.redis.folder}/redis.sock"
        self.redis.options["unixsocket"] = path
        await self.redis.start()
        self.bus = busFromURL(f"redis+unix://{path}")

    async def test_numbersBeginAnew(self) -> None:
        """After a restart of Redis the id of the connection before is a stranger's."""
        owner, strangers = Owner(), [Owner() for _ in range(8)]
        await self.publisher(owner)
        number = self.bus._formerly[owner][0]
        await self.redis.stop()
        await self.redis.start()
        for stranger in strangers:
            await self.publisher(stranger)
        self.assertIn(number, [self.bus._formerly[stranger][0] for stranger in strangers])
        publisher = await self.publisher(owner)
        await self.flush(publisher, await self.subscriber())
        self.assertEqual([stranger.losses for stranger in strangers], [[]] * 8)


class RabbitMQTests(_BrokerTests, TestCase):
    """
    RabbitMQ, each topic a routing key.
    """

    isOrderedOverTopics = False

    async def setUp(self) -> None:
        self.bus = busFromURL((await rabbitMQ()).url + "//")

    async def test_vhostThatIsNone(self) -> None:
        bus = busFromURL((await rabbitMQ()).url + "/nowhere")
        with self.assertRaisesRegex(BusError, "NOT_ALLOWED.*vhost nowhere"):
            await bus.openPublisher(reactor, Owner())


class RabbitMQFanoutTests(_BrokerTests, TestCase):
    """
    RabbitMQ, where a topic is a fanout exchange.
    """

    isOrderedOverTopics = False

    async def setUp(self) -> None:
        self.bus = busFromURL((await rabbitMQ()).url, fanout=["t", "beat"])


class LocalTests(_BrokerTests, TestCase):
    """
    The hub of this machine, over a Unix socket.
    """

    async def setUp(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        hub = Hub(f"{folder}/hub", reactor)
        hub.startService()
        self.addCleanup(hub.stopService)
        self.bus = busFromURL(f"unix:{folder}/hub")


class _BeforeBrokerTests(_BrokerTests):
    """A hub that stands before a broker, over a Unix socket."""

    async def serve(self, bus: IBus) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        hub = Hub(f"{folder}/hub", reactor, bus=bus)
        hub.startService()
        self.addCleanup(hub.stopService)
        self.bus = busFromURL(f"unix:{folder}/hub")


class BeforeRedisTests(_BeforeBrokerTests, TestCase):
    async def setUp(self) -> None:
        self.redis = await Redis(self).start()
        await self.serve(busFromURL(self.redis.url))

    async def test_refused(self) -> None:
        """Redis's refusal of a message reaches the publisher that has sent it."""
        await self.redis.cli("ACL", "SETUSER", "joe", "on", ">secret", "resetchannels", "&t*", "+@all")
        await self.serve(busFromURL(f"redis://joe:secret@127.0.0.1:{self.redis.port}"))
        owner, other = Owner(), Owner()
        heard, _ = await self.listen(await self.subscriber(), "t")
        publisher, stranger = await self.publisher(owner), await self.publisher(other)
        stranger.publish("t", b"0")
        for number, topic in enumerate(("t", "theirs", "u", "t")):
            publisher.publish(topic, b"%d" % number)
        await self.until(lambda: len(heard) == 3 and not publisher.unconfirmed)
        self.assertRegex(owner.refusals[0], "NOPERM")
        self.assertEqual((len(owner.refusals), other.refusals, owner.losses), (1, [], []))


class BeforeRabbitMQTests(_BeforeBrokerTests, TestCase):
    isOrderedOverTopics = False

    async def setUp(self) -> None:
        await self.serve(busFromURL((await rabbitMQ()).url))

    async def test_patterns(self) -> None:
        """RabbitMQ has no patterns, and the subscriber is told so."""
        subscriber = await self.subscriber()
        with self.assertRaisesRegex(BusError, "has no patterns"):
            await subscriber.subscribe(Subscription("a*", True, self.fail))

    async def test_notCounted(self) -> None:
        with self.assertRaisesRegex(BusError, "RabbitMQ does not tell how many"):
            await (await self.publisher()).countSubscribers("t")
