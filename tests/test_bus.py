"""
The bus in memory, and the URLs of brokers.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.buses import BusTestsMixin, Owner
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.emitter import Emitter
from txrealtime.errors import BusError


class MemoryBusTests(BusTestsMixin, TestCase):
    """
    The bus in memory, the reference for all others.
    """

    def setUp(self) -> None:
        self.reactor = Clock()
        self.hub = MemoryHub()
        self.bus = MemoryBus(self.hub)

    async def until(self, condition: Callable[[], object]) -> None:
        self.reactor.advance(0)
        self.assertTrue(condition())

    async def test_nothingAtOnce(self) -> None:
        heard, _ = await self.listen(await self.subscriber(), "t")
        (await self.publisher()).publish("t", b"")
        self.assertEqual(heard, [])
        self.reactor.advance(0)
        self.assertEqual(heard, [("t", b"")])

    async def test_stopped(self) -> None:
        owner, losses = Owner(), []
        publisher = await self.publisher(owner)
        subscriber = await self.subscriber(losses)
        asked = subscriber.subscribe(Subscription("t", False, lambda *message: None))
        publisher.publish("t", b"1")
        self.hub.stop()
        self.failureResultOf(asked, BusError)
        self.assertEqual((len(owner.losses), len(losses), publisher.unconfirmed), (1, 1, 1))
        self.failureResultOf(self.bus.openPublisher(self.reactor, owner), BusError)
        self.failureResultOf(self.bus.openSubscriber(self.reactor, losses.append), BusError)
        self.hub.start()
        await self.publisher()

    async def test_paused(self) -> None:
        heard, _ = await self.listen(await self.subscriber(), "t")
        publisher = await self.publisher()
        self.hub.pause()
        publisher.publish("t", b"1")
        publisher.publish("t", b"2")
        self.reactor.advance(1)
        self.assertEqual((heard, publisher.unconfirmed), ([], 2))
        self.hub.resume()
        self.assertEqual((heard, publisher.unconfirmed), ([("t", b"1"), ("t", b"2")], 0))

    async def test_closedWhileTheHubStops(self) -> None:
        owner = Owner()
        publisher = await self.publisher(owner)
        publisher.publish("t", b"1")
        closed = publisher.close()
        self.hub.stop()
        self.successResultOf(closed)
        self.assertEqual((owner.losses, publisher.unconfirmed), ([], 1))

    def test_aHubOfItsOwn(self) -> None:
        self.assertIsNot(MemoryBus().hub, MemoryBus().hub)


class AddressTests(SynchronousTestCase):
    def test_parts(self) -> None:
        address = Address.fromURL("redis://joe:p%40ss@example.org:7000/2")
        self.assertEqual(address.hosts, (("example.org", 7000),))
        self.assertEqual((address.user, address.password, address.path), ("joe", "p@ss", "2"))

    def test_defaults(self) -> None:
        for url, port in (
            ("redis://", 6379),
            ("rediss://localhost", 6379),
            ("amqp://localhost", 5672),
            ("amqps://localhost", 5671),
            ("redis+sentinel://localhost/mymaster", 26379),
        ):
            address = Address.fromURL(url)
            self.assertEqual(address.hosts, (("localhost", port),))
            self.assertEqual((address.user, address.password), (None, None))

    def test_many(self) -> None:
        address = Address.fromURL("redis+sentinel://:pw@a,b:1,[::1]:2/0/mymaster")
        self.assertEqual(address.hosts, (("a", 26379), ("b", 1), ("::1", 2)))
        self.assertEqual(address.name, "redis+sentinel://a:26379,b:1,[::1]:2/0/mymaster")

    def test_unix(self) -> None:
        for url, path in (
            ("unix:/run/chat.hub", "/run/chat.hub"),
            ("unix:///run/chat.hub", "/run/chat.hub"),
            ("unix:chat.hub", "chat.hub"),
            ("unix:/a%20b%3F", "/a b?"),
        ):
            address = Address.fromURL(url)
            self.assertEqual((address.path, address.hosts, address.name), (path, (), f"unix:{path}"))
            self.assertEqual(busFromURL(url).name, f"unix:{path}")
        choice, rest = DialectChoice.fromURL("unix:/run/chat.hub?key=shop")
        self.assertEqual((choice.key, rest), ("shop", "unix:/run/chat.hub"))

    def test_secretsAreNotShown(self) -> None:
        for url in (
            "redis://joe:secret@localhost/1",
            "rediss://:secret@localhost",
            "redis+sentinel://:secret@a,b/mymaster",
            "redis+unix://:secret@/run/redis.sock",
            "amqp://joe:secret@localhost",
        ):
            address = Address.fromURL(url)
            bus = busFromURL(url)
            for shown in (address.name, repr(address), bus.name, repr(bus)):
                self.assertNotIn("secret", shown)

    def test_broken(self) -> None:
        for url, message in (
            ("localhost:6379", "expected redis://"),
            ("redis", "the URL of the bus has no scheme: expected redis://"),
            ("http://localhost", "no bus is called http://: expected redis://"),
            ("redis://joe:secret@[::1", "expected something like"),
            ("redis://joe:secret@localhost:port", "has no host: expected HOST or HOST:PORT"),
            ("redis://joe:secret@localhost:99999", "has no host"),
            ("redis://:secret", "has no host"),
            ("redis://joe:sec/secret@localhost", "in a password, write / as %2F"),
            ("redis://joe:123/secret@localhost/1", "in a password, write / as %2F"),
            ("redis://joe:sec?secret@localhost", r"\? as %3F"),
            ("redis://joe:sec#secret@localhost", "# as %23"),
            ("redis://joe:sec#secret", "# as %23"),
            ("redis://joe:123?secret@localhost", r"\? as %3F"),
            ("redis://joe:123?dialect=secret@localhost", r"\? as %3F"),
            ("amqp://joe:123/secret@localhost", "in a password, write / as %2F"),
            ("redis://localhost?ssl_ca_certs=x", "ssl_ca_certs, and no TLS: expected rediss:// or amqps://"),
            ("redis+sentinel://localhost/svc?ssl_certfile=x", "ssl_certfile, and no TLS"),
            ("amqp://localhost?ssl_certfile=x", "ssl_certfile, and no TLS"),
            ("rediss://localhost?ssl_keyfile=x", "ssl_keyfile without ssl_certfile"),
            ("redis://joe:secret@a,b", "redis://a:6379,b:6379 names many hosts: only redis.sentinel:// may"),
            ("redis://:secret@localhost?timeout=3", "unknown option timeout: expected ssl_ca_certs"),
            ("redis://:secret@localhost/users", "has the database 'users': expected a number"),
            ("redis://:secret@localhost/-1", "has the database '-1'"),
            ("redis+sentinel://:secret@localhost", "names no service"),
            ("unix:", "names no file: expected unix:/PATH"),
            ("unix:/run/", "names no file"),
            ("unix://joe:secret/run/chat.hub", "names no file"),
            ("unix://secret/run/chat.hub", "names no file"),
            ("unix:/run/" + "x" * 99, "at most 103 bytes, and this one 104"),
            ("unix:/a%00b", "no zero byte"),
            ("unix:/a?timeout=3", "unknown option timeout"),
            ("unix:/a?ssl_ca_certs=x", "and no TLS"),
            ("redis+sentinel://:secret@localhost/x/mymaster", "has the database 'x'"),
        ):
            for use in (busFromURL, Emitter):
                error = self.assertRaises(ValueError, use, url)
                self.assertRegex(str(error), message)
                self.assertNotIn("secret", str(error))
