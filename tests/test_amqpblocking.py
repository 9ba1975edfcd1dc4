"""
The end of a connection to RabbitMQ without a reactor, by a stand-in for pika's connection.

The real one is in tests/interop/test_emitters.py.
"""

from __future__ import annotations

from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from tests.support import requirePart
from txrealtime.cluster.bus.address import Address
from txrealtime.errors import BusError

try:
    from pika.exceptions import AMQPError, ConnectionClosedByBroker  # type: ignore[import-untyped]

    from txrealtime.cluster.bus import amqpblocking
except ImportError:
    amqpblocking = None


class Connection:
    """
    A stand-in for pika's connection and its channel.

    :ivar said: the payloads that were published.
    :ivar problems: for names of methods, the errors that they raise.
    """

    def __init__(self, problems: dict[str, BaseException]) -> None:
        self.problems = problems
        self.said: list[bytes] = []
        self.is_open = True
        loop = SimpleNamespace(
            call_later=lambda *arguments: None, remove_timeout=lambda timer: None, close=lambda: None
        )
        self._impl = SimpleNamespace(ioloop=loop, _transport=SimpleNamespace(_sock=self.Socket(self)))

    class Socket:
        def __init__(self, connection: Connection) -> None:
            self.connection = connection

        def close(self) -> None:
            self.connection.is_open = False

    def _do(self, name: str) -> None:
        if name in self.problems:
            raise self.problems[name]

    def process_data_events(self, limit: float) -> None:
        self._do("process_data_events")

    def channel(self) -> Connection:
        return self

    def exchange_declare(self, name: str, type: str) -> None:
        self._do("exchange_declare")

    def confirm_delivery(self) -> None:
        pass

    def basic_publish(self, exchange: str, key: str, payload: bytes) -> None:
        self._do("basic_publish")
        self.said.append(payload)

    def close(self) -> None:
        self._do("close")
        self.is_open = False


class BlockingAMQPTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(amqpblocking, "no pika: pip install '.[amqp]'")
        self.problems: dict[str, BaseException] = {}
        self.connections: list[Connection] = []
        self.patch(amqpblocking, "BlockingConnection", self.connect)
        self.amqp = amqpblocking.BlockingAMQP(Address.fromURL("amqp://host"), (), 0.1)

    def connect(self, parameters: object) -> Connection:
        self.connections.append(Connection(self.problems))
        return self.connections[-1]

    def open(self) -> list[bool]:
        """Return for each connection that was made whether it is open."""
        return [connection.is_open for connection in self.connections]

    def test_one(self) -> None:
        for payload in (b"1", b"2"):
            self.amqp.publish("t", payload)
        self.assertEqual([connection.said for connection in self.connections], [[b"1", b"2"]])
        self.amqp.close()
        self.assertEqual(self.open(), [False])
        self.amqp.publish("t", b"3")
        self.assertEqual(self.open(), [False, True])

    def test_errors(self) -> None:
        """Each error ends the connection, and the next message makes another one."""
        for where, error in (
            ("exchange_declare", AMQPError("inequivalent arg")),
            ("basic_publish", AMQPError("nack")),
            ("basic_publish", OSError("cut")),
        ):
            self.connections.clear()
            self.problems[where] = error
            for _ in range(2):
                raised = self.assertRaises(BusError, self.amqp.publish, "t", b"1")
                self.assertIn(f"amqp://host:5672 has not taken the message: {error}", str(raised))
            self.assertEqual(self.open(), [False, False])
            self.problems.clear()
            self.amqp.publish("t", b"2")
            self.assertEqual(self.open(), [False, False, True])
            self.amqp.close()

    def test_interrupted(self) -> None:
        """The soft time limit of a task, or control-C, ends the connection."""

        class Interrupt(BaseException):
            pass

        for where in ("exchange_declare", "basic_publish"):
            self.connections.clear()
            self.problems[where] = Interrupt()
            self.assertRaises(Interrupt, self.amqp.publish, "t", b"1")
            self.problems.clear()
            self.amqp.publish("t", b"2")
            self.assertEqual(self.open(), [False, True])
            self.amqp.close()

    def test_diedWhileIdle(self) -> None:
        self.amqp.publish("t", b"1")
        self.problems["process_data_events"] = ConnectionClosedByBroker(320, "CONNECTION_FORCED")
        self.amqp.publish("t", b"2")
        self.assertEqual([connection.said for connection in self.connections], [[b"1"], [b"2"]])
        self.assertEqual(self.open(), [False, True])

    def test_closedByTheBroker(self) -> None:
        for where in ("process_data_events", "close"):
            self.amqp.publish("t", b"1")
            self.problems[where] = ConnectionClosedByBroker(320, "CONNECTION_FORCED")
            self.amqp.close()
            self.problems.clear()
        self.assertEqual(self.open(), [False, False])

    def test_otherThreadWaits(self) -> None:
        """A thread waits for another one no longer than its time limit."""
        self.amqp._publisher._lock.acquire()
        raised = self.assertRaises(BusError, self.amqp.publish, "t", b"1")
        self.assertIn("no answer within 0.1 s", str(raised))
        self.assertEqual(self.connections, [])

    def test_forked(self) -> None:
        """A fork has a connection of its own, even if a thread of its parent was publishing."""
        self.amqp.publish("t", b"1")
        self.amqp._publisher._lock.acquire()
        self.patch(amqpblocking, "os", SimpleNamespace(getpid=lambda: 1))
        self.amqp.publish("t", b"2")
        self.amqp.close()
        self.assertEqual([connection.said for connection in self.connections], [[b"1"], [b"2"]])
        self.assertEqual(self.open(), [True, False])
