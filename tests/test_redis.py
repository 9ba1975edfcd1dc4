"""
The answers of Redis to publishers and subscribers, without a Redis.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.buses import Owner
from tests.support import requirePart
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.errors import BusError

try:
    from txrealtime.cluster.bus import redis
except ImportError:
    redis = None


MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
"The reply to ROLE."


class _BusTestCase(SynchronousTestCase):
    """
    A bus whose connections are in memory.

    :ivar hosts: the hosts that it has connected to.
    """

    def setUp(self) -> None:
        requirePart(redis, "no txredisapi, or no hiredis: pip install '.[redis]'")
        self.hosts: list[str] = []
        self.owner = Owner()
        self.patch(Address, "connect", self.connect)

    def connect(self, reactor: object, protocol: Any, host: str, *rest: object) -> Deferred[Any]:
        self.hosts.append(host)
        self.protocol = protocol
        protocol.makeConnection(StringTransport())
        return succeed(protocol)

    def asked(self) -> str:
        """Return the command that the last connection has sent since the last call."""
        sent = self.protocol.transport.value()
        self.protocol.transport.clear()
        return b" ".join(sent.split(b"\r\n")[2::2]).decode().strip()

    def answer(self, reply: bytes) -> None:
        self.protocol.dataReceived(reply)


class FormerPublisherTests(_BusTestCase):
    """
    A new connection has Redis end the one before, and no other.
    """

    def setUp(self) -> None:
        super().setUp()
        self.bus = redis.RedisBus(Address.fromURL("redis://broker"))
        opening = self.open()
        self.name = self.named()
        self.answer(b":7\r\n")
        self.successResultOf(opening)

    def open(self) -> Deferred[Any]:
        opening = self.bus.openPublisher(Clock(), self.owner)
        self.assertEqual(self.asked(), "ROLE")
        self.answer(MASTER)
        return opening

    def named(self) -> str:
        """Return the name that the connection has asked for now."""
        command, name = self.asked().rsplit(" ", 1)
        self.assertEqual(command, "CLIENT SETNAME")
        self.answer(b"+OK\r\n")
        self.assertEqual(self.asked(), "CLIENT ID")
        return name

    def listed(self, name: str) -> bytes:
        line = f"id=7 addr=/run/redis.sock:0 name={name} age=1 idle=0 flags=U"
        return b"$%d\r\n%b\r\n" % (len(line), line.encode())

    def test_ended(self) -> None:
        opening = self.open()
        self.assertEqual(self.asked(), "CLIENT LIST ID 7")
        self.answer(self.listed(self.name))
        self.assertEqual(self.asked(), "CLIENT KILL ID 7")
        self.answer(b":1\r\n")
        self.assertNotEqual(self.named(), self.name)
        self.answer(b":8\r\n")
        self.successResultOf(opening)
        self.open()
        self.assertEqual(self.asked(), "CLIENT LIST ID 8")

    def test_strangers(self) -> None:
        """After a restart the id may be a stranger's, or nobody's, or may not be asked for."""
        nobody = b"$0\r\n\r\n"
        for reply in (self.listed(""), self.listed("x" + self.name), nobody, b"-NOPERM no\r\n"):
            opening = self.open()
            self.assertEqual(self.asked(), "CLIENT LIST ID 7")
            self.answer(reply)
            self.name = self.named()
            self.answer(b":7\r\n")
            self.successResultOf(opening)

    def test_attemptEndsBeforeTheReply(self) -> None:
        """The next attempt ends the connection before."""
        for _ in range(2):
            opening = self.open()
            self.assertEqual(self.asked(), "CLIENT LIST ID 7")
            self.answer(self.listed(self.name))
            self.assertEqual(self.asked(), "CLIENT KILL ID 7")
            opening.cancel()
            self.failureResultOf(opening)


class AttemptTests(_BusTestCase):
    """
    Attempts to connect that fail.
    """

    def test_notRedis(self) -> None:
        """The error tells the server's mistake, and not that we closed the connection."""
        bus = redis.RedisBus(Address.fromURL("redis://broker"))
        opening = bus.openPublisher(Clock(), self.owner)
        self.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.protocol.connectionLost(Failure(ConnectionAborted()))
        self.assertIn(
            "the server does not speak Redis's protocol", str(self.failureResultOf(opening, BusError).value)
        )
        self.assertEqual(self.owner.losses, [])

    def test_sentinels(self) -> None:
        """The next Sentinel is asked when one does not answer."""
        clock = Clock()
        bus = redis.RedisBus(Address.fromURL("redis+sentinel://one,two/chat"))
        bus.openPublisher(clock, self.owner)
        self.assertEqual(self.hosts, ["one"])
        clock.advance(redis.SENTINEL_TIMEOUT)
        self.assertEqual(self.hosts, ["one", "two"])
        self.answer(b"*2\r\n$6\r\nmaster\r\n$4\r\n6379\r\n")
        self.assertEqual(self.hosts, ["one", "two", "master"])
        self.assertEqual(self.asked(), "ROLE")

    def test_sentinelCancelled(self) -> None:
        """A cancelled attempt asks no other Sentinel."""
        opening = redis.RedisBus(Address.fromURL("redis+sentinel://one,two/chat")).openPublisher(
            Clock(), self.owner
        )
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(self.hosts, ["one"])


class CancelTests(SynchronousTestCase):
    """
    Attempts that are cancelled before TCP has connected, or before the name of the host is resolved.
    """

    def attempt(self, reactor: Any) -> None:
        requirePart(redis, "no txredisapi, or no hiredis: pip install '.[redis]'")
        bus = redis.RedisBus(Address.fromURL("redis+sentinel://one,two/chat"))
        opening = bus.openSubscriber(reactor, self.fail)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)

    def test_whileItConnects(self) -> None:
        reactor = MemoryReactorClock()
        reactor.nameResolver = _Names(["10.0.0.1"])
        self.attempt(reactor)
        self.assertEqual(len(reactor.tcpClients), 1)

    def test_whileItResolves(self) -> None:
        reactor = MemoryReactorClock()
        reactor.nameResolver = names = _Names(None)
        self.attempt(reactor)
        self.assertEqual(names.asked, ["one"])


@implementer(IHostnameResolver)
class _Names:
    """
    A resolver that gives all names the same addresses; without any, it never answers.
    """

    def __init__(self, addresses: list[str] | None) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *rest: Any, **more: Any
    ) -> Any:
        self.asked.append(hostName)
        if self.addresses is not None:
            for address in self.addresses:
                receiver.addressResolved(IPv4Address("TCP", address, portNumber))
            receiver.resolutionComplete()


class PublisherTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(redis, "no txredisapi, or no hiredis: pip install '.[redis]'")
        self.owner = Owner()
        self.publisher = redis.Publisher(self.owner)
        self.publisher.makeConnection(StringTransport())
        self.publisher.established = True

    def test_refusals(self) -> None:
        """An error about a message is for that message alone."""
        for size in (1, 2, 3):
            self.publisher.publish("t", b"x" * size)
        self.publisher.dataReceived(b":1\r\n-NOPERM no\r\n")
        self.assertEqual((self.owner.refusals, self.owner.losses), (["NOPERM no"], []))
        self.assertEqual((self.publisher.unconfirmed, self.publisher.pending), (1, 3))

    def test_unusable(self) -> None:
        """An error about the server ends the connection, and the other messages are unconfirmed."""
        for error in ("READONLY You can't write", "LOADING Redis is loading", "MASTERDOWN Link", "NOAUTH"):
            self.setUp()
            self.publisher.publish("t", b"1")
            self.publisher.publish("t", b"2")
            self.publisher.dataReceived(f"-{error}\r\n:1\r\n".encode())
            self.assertEqual((self.owner.refusals, self.owner.losses), ([error], [error]))
            self.assertTrue(self.publisher.transport.disconnecting)
            self.publisher.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.owner.losses, [error])

    def test_heartbeatRefused(self) -> None:
        """A user who may not publish a heartbeat is told so."""
        self.publisher.beat("t", b"1")
        self.publisher.dataReceived(b"-NOPERM no\r\n")
        self.assertEqual((self.owner.refusals, self.owner.losses), ([], ["NOPERM no"]))
        self.assertTrue(self.publisher.transport.disconnecting)

    def test_repliesOfAllKinds(self) -> None:
        """Each reply goes to the command that it is to, in order."""
        first = self.publisher.countSubscribers("t")
        self.publisher.publish("t", b"xx")
        self.publisher.beat("t", b"1")
        refused = self.publisher.countSubscribers("t")
        self.publisher.publish("t", b"xxx")
        self.publisher.dataReceived(
            b"*2\r\n$1\r\nt\r\n:3\r\n:1\r\n:1\r\n*1\r\n$6\r\nmaster\r\n-NOPERM no\r\n"
        )
        self.assertEqual(self.successResultOf(first), 3)
        self.assertIn("NOPERM no", str(self.failureResultOf(refused, BusError).value))
        self.assertEqual((self.publisher.unconfirmed, self.publisher.pending), (1, 3))
        self.publisher.dataReceived(b"-NOPERM no\r\n")
        self.assertEqual((self.owner.refusals, self.owner.losses), (["NOPERM no"], []))
        self.assertEqual((self.publisher.unconfirmed, self.publisher.pending), (0, 0))

    def test_demoted(self) -> None:
        """A master that has become a replica is given up at the next heartbeat."""
        self.publisher.beat("t", b"1")
        self.publisher.dataReceived(b":1\r\n*1\r\n$5\r\nslave\r\n")
        self.assertIn("read-only replica", self.owner.losses[0])

    def test_repliesInPieces(self) -> None:
        self.publisher.publish("t", b"1")
        self.publisher.beat("t", b"2")
        for byte in b":1\r\n:1\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n":
            self.publisher.dataReceived(bytes([byte]))
        self.assertEqual((self.owner.losses, self.publisher.unconfirmed), ([], 0))

    def test_notARedis(self) -> None:
        for what in (b"HTTP/1.1 400\r\n\r\n", b":1\r\n", b"\x00\r\n"):
            self.setUp()
            self.publisher.dataReceived(what)
            self.assertEqual(len(self.owner.losses), 1, what)


class SubscriberTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(redis, "no txredisapi, or no hiredis: pip install '.[redis]'")
        self.losses: list[str] = []
        self.heard: list[tuple[str, bytes]] = []
        self.subscriber = redis._Subscriber(self.losses.append)
        self.subscriber.makeConnection(StringTransport())
        self.subscriber.established = True

    def subscribe(self, topic: str) -> object:
        deliver = lambda *message: self.heard.append(message)  # noqa: E731
        return self.subscriber.subscribe(Subscription(topic, False, deliver))

    def test_answersInOrder(self) -> None:
        first, second = self.subscribe("a"), self.subscribe("b")
        self.subscriber.dataReceived(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n-NOPERM no\r\n")
        self.successResultOf(first)
        self.assertEqual(str(self.failureResultOf(second, BusError).value), "NOPERM no")
        self.assertEqual(self.losses, [])

    def test_messagesBetweenAnswers(self) -> None:
        asked = self.subscribe("a")
        self.subscriber.ping()
        self.subscriber.dataReceived(
            b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\n12\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n"
            b"*3\r\n$7\r\nmessage\r\n$5\r\nother\r\n$1\r\nx\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
        )
        self.successResultOf(asked)
        self.assertEqual((self.heard, self.losses), ([("a", b"12")], []))

    def test_lostBeforeTheAnswer(self) -> None:
        asked = self.subscribe("a")
        self.subscriber.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(asked, BusError)
        self.assertEqual(len(self.losses), 1)
