"""
What Redis may answer to those who publish and subscribe, without a Redis.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.buses import Owner
from tests.support import requirePart
from txrealtime.cluster.interfaces import Subscription
from txrealtime.errors import BusError

try:
    from txrealtime.cluster import redis
except ImportError:
    redis = None


class PublisherTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(redis, "no txredisapi, or no hiredis: pip install '.[redis]'")
        self.owner = Owner()
        self.publisher = redis._Publisher(self.owner)
        self.publisher.makeConnection(StringTransport())
        self.publisher.established = True

    def test_refusals(self) -> None:
        """An error that is about a message is about that one."""
        for size in (1, 2, 3):
            self.publisher.publish("t", b"x" * size)
        self.publisher.dataReceived(b":1\r\n-NOPERM no\r\n")
        self.assertEqual((self.owner.refusals, self.owner.losses), (["NOPERM no"], []))
        self.assertEqual((self.publisher.unconfirmed, self.publisher.pending), (1, 3))

    def test_unusable(self) -> None:
        """An error that is about the server ends the connection, and the rest is unconfirmed."""
        for error in ("READONLY You can't write", "LOADING Redis is loading", "MASTERDOWN Link", "NOAUTH"):
            self.setUp()
            self.publisher.publish("t", b"1")
            self.publisher.publish("t", b"2")
            self.publisher.dataReceived(f"-{error}\r\n:1\r\n".encode())
            self.assertEqual((self.owner.refusals, self.owner.losses), ([error], [error]))
            self.assertTrue(self.publisher.transport.disconnecting)
            self.publisher.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.owner.losses, [error])

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
