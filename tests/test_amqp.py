"""
The answers of RabbitMQ to a connection, without a RabbitMQ.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.buses import Owner
from tests.support import requirePart
from txrealtime.cluster.bus.address import Address
from txrealtime.errors import BusError

try:
    from pika import frame, spec

    from txrealtime.cluster.bus import amqp
except ImportError:
    amqp = None

LOST = Failure(ConnectionLost("cut"))


class _Transport(StringTransport):
    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


class AttemptTests(SynchronousTestCase):
    """
    Attempts to connect, and how they end.
    """

    def setUp(self) -> None:
        requirePart(amqp, "no pika: pip install '.[amqp]'")
        self.owner = Owner()
        self.bus = amqp.AMQPBus(Address.fromURL("amqp://broker"))
        self.patch(Address, "connect", self.connect)

    def connect(self, reactor: Any, protocol: Any, *where: Any) -> Deferred[Any]:
        self.protocol = protocol
        protocol.makeConnection(_Transport())
        return succeed(protocol)

    def answer(self, channel: int, *methods: Any) -> None:
        for method in methods:
            self.protocol.dataReceived(frame.Method(channel, method).marshal())

    def untilConfirmSelect(self) -> Deferred[Any]:
        """Return an attempt that waits for the last answer only."""
        opening = self.bus.openPublisher(Clock(), self.owner)
        able = {"capabilities": {"publisher_confirms": True, "basic.nack": True}}
        self.answer(0, spec.Connection.Start(server_properties=able))
        self.answer(0, spec.Connection.Tune(9, 131072, 0), spec.Connection.OpenOk())
        self.answer(1, spec.Channel.OpenOk(), spec.Exchange.DeclareOk())
        self.assertNoResult(opening)
        return opening

    def test_cut(self) -> None:
        """The attempt fails, and the owner is not told."""
        opening = self.untilConfirmSelect()
        self.protocol.connectionLost(LOST)
        self.failureResultOf(opening, BusError)
        self.assertEqual(self.owner.losses, [])

    def test_cancelled(self) -> None:
        opening = self.untilConfirmSelect()
        opening.cancel()
        self.failureResultOf(opening)
        self.protocol.connectionLost(LOST)
        self.assertEqual(self.owner.losses, [])

    def test_cutLater(self) -> None:
        opening = self.untilConfirmSelect()
        self.answer(1, spec.Confirm.SelectOk())
        self.successResultOf(opening)
        self.protocol.connectionLost(LOST)
        self.assertEqual(len(self.owner.losses), 1)
