"""
The fate of each message published without a link: over the bus in memory, and with answers of Redis and
RabbitMQ.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.support import requirePart
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
from txrealtime.cluster.link import oneway
from txrealtime.cluster.link.oneway import OneWayLink
from txrealtime.errors import BusError

try:
    from txrealtime.cluster.bus import redis
except ImportError:
    redis = None
try:
    from pika.exceptions import AMQPError, NackError  # type: ignore[import-untyped]

    from txrealtime.cluster.bus import amqp
except ImportError:
    amqp = None


class Bus:
    """A bus whose publisher a function makes, at once or when `opening` fires."""

    name = "bus"

    def __init__(self, make: Any) -> None:
        self.make = make
        self.opening: Deferred[Any] | None = None

    def openPublisher(self, reactor: object, owner: object) -> Deferred[Any]:
        return self.opening or succeed(self.make(owner))


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.hub = MemoryHub()
        self.link = OneWayLink(MemoryBus(self.hub), self.clock, 5)

    def tearDown(self) -> None:
        self.link.close()
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def publish(self, count: int = 1) -> list[Deferred[None]]:
        return [self.link.publish("t", b"12345") for _ in range(count)]

    def settle(self) -> None:
        for _ in range(5):
            self.clock.advance(0)

    def connect(self) -> None:
        (said,) = self.publish()
        self.settle()
        self.successResultOf(said)

    def assertFail(self, messages: list[Deferred[None]], why: str) -> None:
        for said in messages:
            self.assertIn(why, str(self.failureResultOf(said, BusError).value))

    def test_silentBroker(self) -> None:
        self.hub.pause()
        messages = self.publish(2)
        self.clock.advance(5)
        self.assertFail(messages, "memory: no answer within 5 s")
        self.hub.resume()
        self.connect()

    def test_silentBrokerThatIsLeft(self) -> None:
        """A bus may do anything when the attempt is cancelled."""
        bus = Bus(None)
        bus.opening = Deferred(lambda opening: opening.errback(BusError("odd")))
        said = OneWayLink(bus, self.clock, 0.5).publish("t", b"")
        self.clock.advance(0.5)
        self.assertFail([said], "bus: no answer within 0.5 s")

    def test_brokerHangs(self) -> None:
        """The oldest message decides; the others are on the same connection."""
        self.connect()
        self.hub.pause()
        messages = self.publish()
        self.clock.advance(3)
        messages += self.publish()
        self.clock.advance(1.9)
        for said in messages:
            self.assertNoResult(said)
        self.clock.advance(0.1)
        self.assertFail(messages, "memory may not have got it: no answer within 5 s")
        self.assertEqual(self.hub.publishers, [])
        self.hub.resume()
        self.connect()

    def test_slowBroker(self) -> None:
        """Each message has its own time limit."""
        self.connect()
        for _ in range(4):
            self.hub.pause()
            (said,) = self.publish()
            self.clock.advance(4)
            self.hub.resume()
            self.successResultOf(said)

    def test_connectionLost(self) -> None:
        self.connect()
        self.hub.pause()
        messages = self.publish(2)
        self.hub.stop()
        self.assertFail(messages, "may not have got it: the hub was stopped")

    def test_tooMany(self) -> None:
        """The limits are of number and of bytes."""
        for name, limit in (("_MAX_COUNT", 10), ("_MAX_SIZE", 50)):
            patch = self.patch(oneway, name, limit)
            messages = self.publish(10)
            self.assertFail(self.publish(), "too many")
            self.settle()
            for said in messages:
                self.successResultOf(said)
            patch.restore()
            self.connect()

    def test_cancelled(self) -> None:
        """A message may be cancelled before it was sent, or after."""
        for _ in range(2):
            first, second = self.publish(2)
            first.cancel()
            self.failureResultOf(first, CancelledError)
            self.settle()
            self.successResultOf(second)

    def test_close(self) -> None:
        self.connect()
        (said,) = self.publish()
        closings = [self.link.close() for _ in range(2)]
        more = self.publish()
        self.settle()
        for each in (said, *closings, *more):
            self.successResultOf(each)
        self.assertEqual(self.hub.publishers, [])
        self.connect()

    def test_closeWhileConnecting(self) -> None:
        (said,) = self.publish()
        closings = [self.link.close() for _ in range(2)]
        self.settle()
        for each in (said, *closings):
            self.successResultOf(each)
        self.assertEqual(self.hub.publishers, [])

    def test_closeWhileNobodyListens(self) -> None:
        self.hub.pause()
        (said,) = self.publish()
        closings = [self.link.close() for _ in range(2)]
        self.clock.advance(5)
        self.assertFail([said], "no answer")
        for closing in closings:
            self.successResultOf(closing)

    def test_closeWhileTheBrokerHangs(self) -> None:
        self.connect()
        self.hub.pause()
        (said,) = self.publish()
        closings = [self.link.close() for _ in range(2)]
        impatient = self.link.close().addTimeout(1, self.clock)
        self.clock.advance(1)
        self.failureResultOf(impatient, TimeoutError)
        self.assertNoResult(said)
        self.clock.advance(4)
        self.assertFail([said], "no answer")
        for closing in closings:
            self.successResultOf(closing)
        self.hub.resume()
        self.connect()

    def test_closeWhileNobodyIsToldOfTheAnswer(self) -> None:
        """close() waits for the answer all the same."""
        self.connect()
        self.hub.pause()
        (said,) = self.publish()
        said.cancel()
        self.failureResultOf(said, CancelledError)
        closing = self.link.close()
        self.clock.advance(5)
        self.successResultOf(closing)
        self.assertEqual(self.hub.publishers, [])
        self.hub.resume()
        self.connect()

    def test_closeWithoutAConnection(self) -> None:
        self.successResultOf(self.link.close())


class RedisTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(redis, "no txredisapi, or no hiredis: pip install '.[redis]'")
        self.link = OneWayLink(Bus(self.make), Clock(), 5)

    def make(self, owner: object) -> object:
        self.connection = redis.Publisher(owner)
        self.connection.makeConnection(StringTransport())
        self.connection.established = True
        return self.connection

    def test_refused(self) -> None:
        """Only the refused message fails."""
        for number in range(3):
            messages = [self.link.publish("t", b"") for _ in range(3)]
            replies = [b":1\r\n"] * 3
            replies[number] = b"-NOPERM no\r\n"
            self.connection.dataReceived(b"".join(replies))
            refused = self.failureResultOf(messages.pop(number), BusError)
            self.assertEqual(str(refused.value), "the broker refused the message: NOPERM no")
            for said in messages:
                self.successResultOf(said)

    def test_unusable(self) -> None:
        """An error about the server ends the connection too."""
        messages = [self.link.publish("t", b"") for _ in range(2)]
        self.connection.dataReceived(b"-READONLY no\r\n:1\r\n")
        for said, why in zip(messages, ("refused", "may not have got it"), strict=True):
            self.assertIn(why, str(self.failureResultOf(said, BusError).value))


class AMQPTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(amqp, "no pika: pip install '.[amqp]'")
        self.answers: list[Deferred[None]] = []
        self.link = OneWayLink(Bus(self.make), Clock(), 5)

    def make(self, owner: object) -> object:
        self.publisher = amqp._Publisher(amqp.AMQPBus(Address.fromURL("amqp://host")), owner)
        self.publisher.connection = SimpleNamespace(abort=lambda: None, why="cut")
        self.publisher.channel = SimpleNamespace(basic_publish=self.basic_publish)
        return self.publisher

    def basic_publish(self, exchange: str, key: str, payload: bytes) -> Deferred[None]:
        self.answers.append(Deferred())
        return self.answers[-1]

    def test_outOfOrder(self) -> None:
        """RabbitMQ confirms a message when its queues have it, in any order."""
        lost, refused, said = (self.link.publish("t", b"") for _ in range(3))
        self.answers[2].callback(None)
        self.successResultOf(said)
        self.answers[1].errback(NackError([]))
        self.assertIn("basic.nack", str(self.failureResultOf(refused, BusError).value))
        self.assertNoResult(lost)
        self.answers[0].errback(AMQPError("cut"))
        self.link.lost("cut")
        self.assertIn("may not have got it: cut", str(self.failureResultOf(lost, BusError).value))

    def test_answeredTooLate(self) -> None:
        """Answers that arrive after the end of the connection are ignored."""
        said = self.link.publish("t", b"")
        self.link._reactor.advance(5)
        self.failureResultOf(said, BusError)
        self.answers[0].callback(None)

    def test_attemptCancelled(self) -> None:
        """A cancelled attempt is no error of the bus."""
        transport = StringTransport()
        transport.setTcpNoDelay = lambda on: None  # type: ignore[attr-defined]
        self.patch(
            Address,
            "connect",
            lambda self, reactor, protocol, *rest: succeed(protocol.makeConnection(transport)),
        )
        opening = amqp.AMQPBus(Address.fromURL("amqp://host")).openPublisher(Clock(), self.link)
        self.assertNoResult(opening)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertTrue(transport.disconnected)
