"""
Faults between a server and its broker, and their effect on the link: over real Redis and RabbitMQ.

A publisher counts upwards all the time, and a subscriber checks the numbers: none twice, none out of order,
and none missing but those that the fault explains.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols.portforward import ProxyFactory
from twisted.trial.unittest import TestCase

from tests.buses import Owner
from tests.interop.brokers import RabbitMQ, Redis, rabbitMQ
from tests.support import freePort, makeCertificate
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.reconnecting import Backoff

INTERVAL = 0.005
"Seconds between two numbers."

BACKOFF = Backoff(first=0.1, last=0.8, timeout=2.0, settle=1.0)

SOON = 6.0
"Seconds after which a heartbeat is missed, in tests of that: a busy machine may be late by some."

SECRET = "s3cr3t"
"A password that must not be in the log."


class LinkTestCase(TestCase):
    """
    Links and their log lines.

    A busy machine may be late by seconds: heartbeats that are soon missed are for tests of that alone.
    """

    timeout = 300

    def setUp(self) -> None:
        self.logged: list[str] = []
        observer = lambda event: self.logged.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def link(self, url: str, **options: object) -> Link:
        settings = {"heartbeat": 0.5, "heartbeatTimeout": 10.0, "backoff": BACKOFF, **options}
        link = Link(busFromURL(url), reactor, **settings)
        self.addCleanup(link.stop)
        return link

    async def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = reactor.seconds() + seconds
        while not condition():
            self.assertLess(reactor.seconds(), deadline, f"it did not happen; the log: {self.logged}")
            await deferLater(reactor, 0.01)

    def assertLogged(self, text: str, times: int = 1) -> None:
        found = [line for line in self.logged if text in line]
        self.assertEqual(len(found), times, self.logged)

    def assertNoSecrets(self) -> None:
        self.assertFalse([line for line in self.logged if SECRET in line])


class CountingTestCase(LinkTestCase):
    """
    A publishing link and a listening one.

    :ivar unsure: numbers published while the listener was deaf, or the connection about to be lost.
    """

    async def count(self, speakerURL: str, listenerURL: str, **options: object) -> None:
        """Start counting, and wait until the first numbers have come."""
        self.heard: list[int] = []
        self.said = 0
        self.whenDeaf: list[int] = []
        self.whenReady: list[int] = []
        self.speaker = self.link(speakerURL, **options)
        self.listener = self.link(listenerURL, **options)
        self.listener.subscribe("numbers", lambda topic, payload: self.heard.append(int(payload.split()[0])))
        self.speaker.start()
        self.listener.start()
        await self.speaker.whenReady()
        await self.listener.whenReady()
        self.counting = LoopingCall(self.say)
        self.counting.start(INTERVAL)
        self.addCleanup(lambda: self.counting.running and self.counting.stop())
        await self.until(lambda: len(self.heard) > 20)

    def say(self, filling: bytes = b"") -> None:
        self.said += 1
        self.speaker.publish("numbers", b"%d %b" % (self.said, filling))

    async def recovered(self) -> None:
        """Wait until both are ready, and all numbers published from then on arrive."""
        await self.until(lambda: self.speaker.status is self.listener.status is LinkStatus.READY)
        self.safe = self.said + 1
        await self.until(lambda: self.heard and self.heard[-1] > self.safe + 50)

    async def finished(self) -> list[int]:
        """Stop counting; check the numbers that came, and return those that did not."""
        self.counting.stop()
        await self.until(lambda: self.heard[-1] == self.said)
        self.assertEqual(self.heard, sorted(set(self.heard)), "twice, or out of order")
        counts = self.speaker.counts
        self.assertEqual(counts.published + counts.dropped, self.said)
        return sorted(set(range(1, self.said + 1)) - set(self.heard))


class RedisFaultsTests(CountingTestCase):
    async def begin(self, **options: object) -> None:
        self.redis = await Redis(self).start()
        await self.count(self.redis.url, self.redis.url, **options)

    async def test_killedAndRestarted(self) -> None:
        """Numbers wait while the broker is away; only the unconfirmed ones are lost, and counted."""
        await self.begin()
        await self.redis.stop()
        await self.until(lambda: self.speaker.status is self.listener.status is LinkStatus.DEAF)
        noticed = self.said
        await deferLater(reactor, 2)
        await self.redis.start()
        await self.recovered()
        missing = await self.finished()
        self.assertLessEqual(len(missing), self.speaker.counts.unconfirmed + 2)
        self.assertTrue(all(number <= noticed for number in missing), (missing, noticed))
        self.assertEqual((self.speaker.counts.dropped, self.speaker.counts.outages), (0, 1))
        self.assertLogged("is deaf", 2)
        self.assertLogged("is ready again", 2)

    async def test_paused(self) -> None:
        """The heartbeat shows it, and what Redis had not read of the old connection overtakes nothing."""
        await self.begin(heartbeatTimeout=SOON)
        before = self.said
        self.redis.pause()
        for _ in range(3000):
            self.say(b"x" * 1000)
        await self.until(lambda: self.speaker.status is self.listener.status is LinkStatus.DEAF)
        self.assertLogged("is deaf: the heartbeat did not come back within 6 s", 2)
        await deferLater(reactor, 2)
        self.redis.resume()
        await self.recovered()
        missing = await self.finished()
        counts = self.speaker.counts
        self.assertGreater(counts.unconfirmed, 0)
        self.assertLessEqual(len(missing), counts.unconfirmed + 2)
        self.assertTrue(all(number >= before for number in missing))
        self.assertEqual(counts.dropped, 0)
        self.assertLogged(f"{counts.unconfirmed} unconfirmed")

    async def test_pausedUntilTheQueueIsFull(self) -> None:
        """The oldest are dropped, counted, and logged once."""
        await self.begin(maxQueued=100_000, heartbeatTimeout=SOON)
        self.redis.pause()
        await self.until(lambda: self.speaker.status is LinkStatus.DEAF)
        for _ in range(1000):
            self.say(b"x" * 1000)
        self.redis.resume()
        await self.recovered()
        missing = await self.finished()
        counts = self.speaker.counts
        self.assertGreater(counts.dropped, 800)
        self.assertLessEqual(len(missing), counts.dropped + counts.unconfirmed + 2)
        self.assertGreaterEqual(len(missing), counts.dropped)
        self.assertLogged("the queue is full", 1)
        self.assertLogged(f"Lost messages of this server: {counts.dropped} dropped", 1)

    async def test_subscribersKilled(self) -> None:
        """Publishers go on, and only deaf subscribers lose numbers."""
        await self.begin()
        deaf: list[int] = []
        self.listener.watch(lambda status: deaf.append(self.said))
        await self.redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await self.recovered()
        missing = await self.finished()
        self.assertEqual(self.speaker.counts.unconfirmed, 0)
        # Numbers that Redis had sent and nobody had read when it cut the connection are lost too.
        self.assertTrue(all(number <= deaf[1] for number in missing), (missing, deaf))
        self.assertEqual((self.listener.counts.outages, len(deaf)), (1, 2))
        self.assertGreater(self.listener.counts.deafFor, 0)

    async def test_cutByTheLimitOfItsBuffer(self) -> None:
        """A stranger publishes more than Redis keeps for one subscriber."""
        await self.begin()
        deaf: list[int] = []
        self.listener.watch(lambda status: deaf.append(self.said))
        publisher = await busFromURL(self.redis.url).openPublisher(reactor, Owner())
        publisher.publish("numbers", b"0" * 40_000_000)
        await self.until(lambda: not publisher.unconfirmed)
        publisher.abort()
        await self.until(lambda: deaf)
        await self.recovered()
        missing = await self.finished()
        self.assertTrue(all(number <= deaf[1] for number in missing), (missing, deaf))
        self.assertEqual((self.speaker.counts.outages, self.speaker.counts.unconfirmed), (0, 0))

    async def test_largerThanAllowed(self) -> None:
        """A message too large to deliver, and small enough for Redis, is thrown away alone."""
        await self.begin(maxMessage=1_000_000)
        publisher = await busFromURL(self.redis.url).openPublisher(reactor, Owner())
        publisher.publish("numbers", b"0" * 1_000_001)
        await publisher.close()
        await self.recovered()
        self.assertEqual(await self.finished(), [])
        self.assertEqual((self.listener.counts.oversized, self.listener.counts.outages), (1, 0))
        self.assertLogged("too large, and thrown away: numbers")

    async def test_becomesAReplica(self) -> None:
        """A replica takes messages and tells nobody, so nothing is published to one."""
        master = await Redis(self).start()
        await self.begin()
        await self.redis.cli("REPLICAOF", "127.0.0.1", str(master.port))
        await self.until(lambda: self.speaker.status is LinkStatus.DEAF)
        self.assertIn("a read-only replica", "".join(self.logged))
        await self.redis.cli("REPLICAOF", "NO", "ONE")
        await self.recovered()
        self.assertLessEqual(len(await self.finished()), self.speaker.counts.unconfirmed)


class RabbitMQFaultsTests(CountingTestCase):
    async def test_killedAndRestarted(self) -> None:
        rabbit: RabbitMQ = await rabbitMQ()
        await self.count(rabbit.url, rabbit.url)
        rabbit.stop()
        await self.until(lambda: self.speaker.status is self.listener.status is LinkStatus.DEAF)
        noticed = self.said
        await rabbit.start()
        await self.recovered()
        missing = await self.finished()
        self.assertTrue(all(number <= noticed for number in missing), (missing, noticed))
        self.assertLessEqual(len(missing), self.speaker.counts.unconfirmed + 2)
        self.assertEqual(self.speaker.counts.dropped, 0)

    async def test_wrongPassword(self) -> None:
        port = (await rabbitMQ()).port
        link = self.link(f"amqp://guest:{SECRET}@127.0.0.1:{port}")
        link.start()
        await self.until(lambda: "ACCESS_REFUSED" in link.reason)
        self.assertIs(link.status, LinkStatus.CONNECTING)
        self.assertNoSecrets()

    async def test_memoryIsFull(self) -> None:
        """RabbitMQ accepts connections and subscriptions, but no message: numbers wait, and come later."""
        rabbit = await rabbitMQ()
        await self.count(rabbit.url, rabbit.url, heartbeatTimeout=SOON)
        await rabbit.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            await self.until(lambda: self.speaker.status is self.listener.status is LinkStatus.DEAF)
            noticed = self.said
            await self.until(lambda: self.speaker._outgoing.open)
            await self.until(lambda: not self.speaker._outgoing.open)
            self.assertEqual(self.speaker.reason, "the heartbeat did not come back within 6 s")
        finally:
            await rabbit.control("set_vm_memory_high_watermark", "0.4")
        await self.recovered()
        missing = await self.finished()
        counts = self.speaker.counts
        self.assertTrue(all(number <= noticed for number in missing), (missing, noticed))
        self.assertLessEqual(len(missing), counts.unconfirmed)
        self.assertEqual((counts.dropped, counts.outages), (0, 1))

    async def test_queueDeleted(self) -> None:
        """A stranger deletes the subscriber's queue."""
        rabbit = await rabbitMQ()
        await self.count(rabbit.url, rabbit.url)
        subscriber = self.listener._incoming.reconnecting.connection
        subscriber.channel.queue_delete(subscriber._queue).addErrback(lambda failure: None)
        await self.until(lambda: self.listener.status is LinkStatus.DEAF)
        await self.recovered()
        await self.finished()
        self.assertEqual(self.speaker.counts.unconfirmed, 0)


class _Hangup(Protocol):
    """A server that reads the first bytes and hangs up."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.calls += 1
        self.transport.abortConnection()


class _Silence(Protocol):
    """A server that reads and never answers."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.calls += 1


class RedisAuthenticationTests(LinkTestCase):
    async def test_wrongPassword(self) -> None:
        """The link logs the reason once, retries, and is ready when the password is right."""
        redis = await Redis(self, requirepass="right").start()
        link = self.link(f"redis://:{SECRET}@127.0.0.1:{redis.port}")
        link.start()
        await self.until(lambda: "WRONGPASS" in link.reason)
        await deferLater(reactor, 2)
        self.assertIs(link.status, LinkStatus.CONNECTING)
        self.assertLogged("WRONGPASS", 1)
        self.assertNoSecrets()
        await redis.cli("CONFIG", "SET", "requirepass", SECRET)
        await link.whenReady()
        self.assertNoSecrets()

    async def test_noPassword(self) -> None:
        redis = await Redis(self, requirepass="right").start()
        link = self.link(redis.url)
        link.start()
        await self.until(lambda: "NOAUTH" in link.reason)
        self.assertIs(link.status, LinkStatus.CONNECTING)

    async def test_mayNotPublish(self) -> None:
        """A user who may not publish never has a ready link, and is told why."""
        redis = await Redis(self).start()
        await redis.cli("ACL", "SETUSER", "mute", "on", f">{SECRET}", "allchannels", "+@all", "-publish")
        link = self.link(f"redis://mute:{SECRET}@127.0.0.1:{redis.port}")
        statuses: list[LinkStatus] = []
        link.watch(statuses.append)
        link.start()
        await self.until(lambda: "NOPERM" in link.reason)
        await deferLater(reactor, 2)
        self.assertEqual(statuses, [LinkStatus.CONNECTING])
        self.assertLogged("NOPERM", 1)
        await redis.cli("ACL", "SETUSER", "mute", "+publish")
        await link.whenReady()
        self.assertNoSecrets()

    async def fake(self, protocol: type[Protocol]) -> Factory:
        """Start a server on a port that is not Redis."""
        self.port = freePort()
        factory = Factory.forProtocol(protocol)
        factory.calls = 0
        self.listening = await serverFromString(reactor, f"tcp:{self.port}:interface=127.0.0.1").listen(
            factory
        )
        self.addCleanup(lambda: self.listening.stopListening())
        return factory

    async def instead(self, redis: Redis) -> None:
        """Replace that server by Redis."""
        await self.listening.stopListening()
        endpoint = serverFromString(reactor, f"tcp:{self.port}:interface=127.0.0.1")
        self.listening = await endpoint.listen(ProxyFactory("127.0.0.1", redis.port))

    async def test_droppedWhileItAuthenticates(self) -> None:
        redis = await Redis(self, requirepass=SECRET).start()
        fake = await self.fake(_Hangup)
        link = self.link(f"redis://:{SECRET}@127.0.0.1:{self.port}")
        link.start()
        await self.until(lambda: fake.calls >= 6)
        self.assertIs(link.status, LinkStatus.CONNECTING)
        self.assertLessEqual(len([line for line in self.logged if "no link to" in line]), 3)
        await self.instead(redis)
        await link.whenReady()
        self.assertNoSecrets()
        await link.stop()

    async def test_noAnswerWhileItAuthenticates(self) -> None:
        redis = await Redis(self, requirepass=SECRET).start()
        fake = await self.fake(_Silence)
        link = self.link(f"redis://:{SECRET}@127.0.0.1:{self.port}", backoff=Backoff(timeout=0.5))
        link.start()
        await self.until(lambda: fake.calls >= 4)
        self.assertEqual(link.reason, "no answer within 0.5 s")
        await self.instead(redis)
        await link.whenReady()
        await link.stop()

    async def test_notRedis(self) -> None:
        """No answer of a server causes a traceback."""

        class Web(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        await self.fake(Web)
        link = self.link(f"redis://127.0.0.1:{self.port}")
        link.start()
        await self.until(lambda: "not speak Redis" in link.reason)
        self.assertIs(link.status, LinkStatus.CONNECTING)

    async def test_replica(self) -> None:
        master, replica = await Redis(self).start(), await Redis(self).start()
        await replica.cli("REPLICAOF", "127.0.0.1", str(master.port))
        link = self.link(replica.url)
        link.start()
        await self.until(lambda: "a read-only replica" in link.reason)
        self.assertIs(link.status, LinkStatus.CONNECTING)
        await replica.cli("REPLICAOF", "NO", "ONE")
        await link.whenReady()


class RedisTLSTests(LinkTestCase):
    async def test_certificates(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        pair, stranger = (
            str(makeCertificate(folder / f"{name}.pem").absolute()) for name in ("pair", "stranger")
        )
        port = freePort()
        redis = Redis(
            self,
            tls_port=str(port),
            tls_cert_file=pair,
            tls_key_file=pair,
            tls_ca_cert_file=pair,
            tls_auth_clients="no",
        )
        await redis.start()
        link = self.link(f"rediss://127.0.0.1:{port}?ssl_ca_certs={quote(pair)}")
        link.start()
        await link.whenReady()
        for options, problem in (
            ("", "certificate verify failed"),
            (f"?ssl_ca_certs={quote(stranger)}", "certificate verify failed"),
            ("?ssl_ca_certs=/nowhere.pem", "No such file"),
        ):
            link = self.link(f"rediss://127.0.0.1:{port}{options}")
            link.start()
            await self.until(lambda link=link, problem=problem: problem in link.reason)
            await link.stop()
        await redis.cli("CONFIG", "SET", "tls-auth-clients", "yes")
        link = self.link(f"rediss://127.0.0.1:{port}?ssl_ca_certs={quote(pair)}&ssl_certfile={quote(pair)}")
        link.start()
        await link.whenReady()


class RedisSentinelTests(LinkTestCase):
    async def test_failover(self) -> None:
        master, replica = await Redis(self).start(), await Redis(self).start()
        await replica.cli("REPLICAOF", "127.0.0.1", str(master.port))
        sentinel = await Redis(self).startSentinel("chat", master)
        nobody = freePort()
        link = self.link(f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{sentinel.port}/0/chat")
        heard: list[bytes] = []
        link.subscribe("t", lambda topic, payload: heard.append(payload))
        link.start()
        await link.whenReady()
        for number in itertools.count():
            # A Sentinel knows the replicas after it has asked the master for them.
            if f"port={replica.port}" in (await master.cli("INFO", "replication")) and "slaves=1" in (
                await sentinel.cli("INFO", "sentinel")
            ):
                break
            self.assertLess(number, 300)
            await deferLater(reactor, 0.2)
        await master.stop()
        await self.until(lambda: link.status is LinkStatus.DEAF)
        link.publish("t", b"later")
        await self.until(lambda: link.status is LinkStatus.READY)
        await self.until(lambda: heard == [b"later"])
        unknown = self.link(f"redis+sentinel://127.0.0.1:{sentinel.port}/stranger")
        unknown.start()
        await self.until(lambda: "it does not know stranger" in unknown.reason)
