"""
The bus over RabbitMQ, or another broker of AMQP 0-9-1.

The only importer of pika's adapter for Twisted.  Each subscriber has a queue of its own, which the broker
deletes with its connection.  The queue is bound to the topics' routes, which
:mod:`~txrealtime.cluster.bus.exchanges` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from pika import ConnectionParameters, PlainCredentials  # type: ignore[import-untyped]
from pika.adapters.twisted_connection import (  # type: ignore[import-untyped]
    TwistedProtocolConnection,
)
from pika.exceptions import NackError  # type: ignore[import-untyped]
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.exchanges import EXCHANGE, HEARTBEAT, route
from txrealtime.cluster.bus.interfaces import IBus, IPublisher, IPublisherOwner, ISubscriber, Subscription
from txrealtime.errors import BusError

__all__ = ["AMQPBus"]

TIMEOUT = 5.0
"Seconds for TCP to connect.  The whole attempt has its own limit."


@implementer(IBus)
class AMQPBus:
    """
    A bus over a broker of AMQP 0-9-1.

    :param address: of a scheme that begins with ``amqp``.
    :param fanout: topics that are fanout exchanges.
    """

    patterns = False

    def __init__(self, address: Address, fanout: Collection[str] = ()) -> None:
        self.name = address.name
        self.fanout = frozenset(fanout)
        self._address = address

    def __repr__(self) -> str:
        return f"<AMQPBus {self.name}>"

    def openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> Deferred[IPublisher]:
        return Deferred.fromCoroutine(self._open(reactor, _Publisher(self, owner)))

    def openSubscriber(self, reactor: IReactorTime, lost: Callable[[str], object]) -> Deferred[ISubscriber]:
        return Deferred.fromCoroutine(self._open(reactor, _Subscriber(self, lost)))

    async def _open(self, reactor: IReactorTime, user: Any) -> Any:
        address = self._address
        parameters = ConnectionParameters(
            virtual_host=address.path or "/",
            credentials=PlainCredentials(address.user or "guest", address.password or "guest"),
            heartbeat=HEARTBEAT,
        )
        connection = _Connection(parameters, reactor)
        await address.connect(reactor, connection, *address.hosts[0], TIMEOUT)
        try:
            await connection.ready
            channel = await connection.channel()
            await channel.exchange_declare(EXCHANGE, "direct")
            for topic in self.fanout:
                await channel.exchange_declare(topic, "fanout")
            await user.prepare(connection, channel)
        except Exception as error:
            connection.abort()
            if isinstance(error, CancelledError):
                raise
            raise BusError(connection.why or str(error) or type(error).__name__) from None
        except BaseException:
            connection.abort()
            raise
        # Not earlier: an attempt that fails has only its Deferred to tell so.
        channel.on_closed.addCallback(user.closed)
        return user

    def route(self, topic: str) -> tuple[str, str]:
        """Return the exchange and the routing key of a topic."""
        return route(topic, self.fanout)


class _Connection(TwistedProtocolConnection):  # type: ignore[misc]
    """
    A connection to the broker.

    :ivar why: the reason for the end of the connection, once it has ended.
    """

    def __init__(self, parameters: ConnectionParameters, reactor: IReactorTime) -> None:
        super().__init__(parameters, custom_reactor=reactor)
        self.why = ""

    def makeConnection(self, transport: Any) -> None:
        transport.setTcpNoDelay(True)
        super().makeConnection(transport)

    def connectionLost(self, reason: Failure) -> None:
        # The broker's own reason, if it gave one: the adapter forgets it when the connection was closed
        # cleanly.
        said = getattr(getattr(self, "_impl", None), "_error", None)
        self.why = str(said) if said is not None else reason.getErrorMessage()
        super().connectionLost(reason)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()


class _User:
    """A connection with one channel.  The end of either ends the other."""

    connection: _Connection
    channel: Any  # a TwistedChannel

    def __init__(self, bus: AMQPBus, lost: Callable[[str], object]) -> None:
        self.bus = bus
        self.ended = False
        self._lost = lost

    async def prepare(self, connection: _Connection, channel: Any) -> None:
        self.connection = connection
        self.channel = channel

    def closed(self, reason: BaseException | None) -> None:
        """Called when the connection or the channel has ended, or is of no use."""
        if not self.ended:
            self.abort()
            self._lost(self.connection.why or str(reason) or type(reason).__name__)

    def abort(self) -> None:
        self.ended = True
        self.connection.abort()


@implementer(IPublisher)
class _Publisher(_User):
    def __init__(self, bus: AMQPBus, owner: IPublisherOwner) -> None:
        super().__init__(bus, owner.lost)
        self.unconfirmed = 0
        self.pending = 0
        self._owner = owner
        self._closing: Deferred[None] | None = None

    async def prepare(self, connection: _Connection, channel: Any) -> None:
        await super().prepare(connection, channel)
        await channel.confirm_delivery()

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        size = len(payload)
        self.unconfirmed += 1
        self.pending += size
        what = (size, answer)
        self._send(topic, payload).addCallbacks(self._confirmed, self._refused, what, errbackArgs=what)

    def beat(self, topic: str, payload: bytes) -> None:
        self._send(topic, payload).addErrback(lambda failure: None)

    def _send(self, topic: str, payload: bytes) -> Deferred[Any]:
        # basic_publish raises if the channel is closing, and closed() has not been called yet.
        exchange, key = self.bus.route(topic)
        return maybeDeferred(lambda: self.channel.basic_publish(exchange, key, payload))

    def _confirmed(self, result: object, size: int, answer: Deferred[None] | None) -> None:
        self.unconfirmed -= 1
        self.pending -= size
        if answer is not None and not self.ended:
            answer.callback(None)
        if self._closing is None:
            self._owner.confirmed()
        elif not self.unconfirmed:
            self._close()

    def _refused(self, failure: Failure, size: int, answer: Deferred[None] | None) -> None:
        # Any other failure is the end of the connection, and leaves the message unconfirmed.
        if failure.check(NackError):
            reason = "the broker could not take it (basic.nack)"
            self._owner.refused(reason)
            if answer is not None and not self.ended:
                answer.errback(BusError(f"the broker refused the message: {reason}"))
            self._confirmed(None, size, None)

    def countSubscribers(self, topic: str) -> Deferred[int]:
        return fail(BusError("RabbitMQ does not tell how many subscribers a topic has"))

    def close(self) -> Deferred[None]:
        self._closing = Deferred(lambda closing: self.abort())
        self.channel.on_closed.addCallback(lambda reason: self._close())
        if not self.unconfirmed:
            self._close()
        return self._closing

    def _close(self) -> None:
        self.abort()
        if self._closing is not None and not self._closing.called:
            self._closing.callback(None)

    def closed(self, reason: BaseException | None) -> None:
        if self._closing is None:
            super().closed(reason)


@implementer(ISubscriber)
class _Subscriber(_User):
    def __init__(self, bus: AMQPBus, lost: Callable[[str], object]) -> None:
        super().__init__(bus, lost)
        self._subscriptions: dict[tuple[str, str], Subscription] = {}
        self._queue = ""

    async def prepare(self, connection: _Connection, channel: Any) -> None:
        await super().prepare(connection, channel)
        declared = await channel.queue_declare("", exclusive=True, auto_delete=True)
        self._queue = declared.method.queue
        messages, _ = await channel.basic_consume(self._queue, auto_ack=True, exclusive=True)
        self._next(messages)

    def _next(self, messages: Any) -> None:
        # One get() always waits, so a message is taken at once and never stays in pika's queue.
        messages.get().addCallbacks(self._received, self._cancelled, (messages,), errbackArgs=(messages,))

    def _cancelled(self, failure: Failure, messages: Any) -> None:
        """Called when the connection has ended, or the broker has cancelled: somebody deleted the queue."""
        messages.put = lambda message: None  # put() raises on a closed queue, and pika may still call it
        self.closed(failure.value)

    def _received(self, message: Any, messages: Any) -> None:
        method = message.method
        fanout = method.exchange in self.bus.fanout
        subscription = self._subscriptions.get((method.exchange, "" if fanout else method.routing_key))
        if subscription is not None and not self.ended:
            subscription.deliver(subscription.topic, message.body)
        self._next(messages)

    def subscribe(self, subscription: Subscription) -> Deferred[None]:
        route = self.bus.route(subscription.topic)
        self._subscriptions[route] = subscription
        bound: Deferred[Any] = self.channel.queue_bind(self._queue, *route)
        return bound.addCallback(lambda frame: None)

    def unsubscribe(self, subscription: Subscription) -> None:
        route = self.bus.route(subscription.topic)
        if self._subscriptions.pop(route, None) is not None:
            self.channel.queue_unbind(self._queue, *route).addErrback(lambda failure: None)

    def ping(self) -> None:
        """Do nothing: AMQP has heartbeats of its own."""
