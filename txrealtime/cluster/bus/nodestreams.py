"""
The bus of Node's servers with ``@socket.io/redis-streams-adapter``: streams of Redis, and its pub/sub.

A message on the topic of a namespace, such as ``/news``, is an entry of the namespace's stream; all others
go by pub/sub, and are not kept: :mod:`~txrealtime.cluster.bus.entries` has the forms.  So a subscriber is a
connection for each stream and one for the pub/sub.  A heartbeat has to come back by all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.cluster.bus.interfaces import IPublisherOwner, ISubscriber, Subscription
from txrealtime.cluster.bus.redis import RedisBus, Reply
from txrealtime.cluster.bus.redisstreams import Outbox, RedisStreamsBus, StreamPublisher
from txrealtime.errors import BusError

__all__ = ["NodeStreamsBus"]


class NodeStreamsBus(RedisStreamsBus):
    """
    A bus among Node's servers, over one Redis or the master that Sentinels name.

    :param address: of a scheme that ends with ``+streams``, with ``entries=node``.
    """

    def _newPublisher(self, owner: IPublisherOwner, outboxes: dict[str, Outbox]) -> StreamPublisher:
        return _Publisher(owner, self, outboxes)

    async def _openSubscriber(self, reactor: IReactorTime, lost: Callable[[str], object]) -> ISubscriber:
        subscriber = _Subscriber(lost)
        try:
            for stream in self.streams:
                reader = await self._openReader(reactor, subscriber.partLost, lost, stream)
                subscriber.readers[stream] = reader
            subscriber.pubsub = await RedisBus._openSubscriber(self, reactor, subscriber.partLost)
            if subscriber.why:
                raise BusError(subscriber.why)
        except BaseException:  # a cancelled attempt too
            subscriber.abort()
            raise
        return subscriber


class _Publisher(StreamPublisher):
    """A connection that adds entries and publishes."""

    def beat(self, topic: str, payload: bytes) -> None:
        name = topic.encode()
        self._expected.append(Reply.BEAT)
        self.transport.write(
            b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (self._publishing, len(name), name, len(payload), payload)
        )
        super().beat(topic, payload)


@implementer(ISubscriber)
class _Subscriber:
    """
    The connections of one subscriber, which end together.

    :ivar why: the reason of the end, once one of them has ended.
    """

    def __init__(self, lost: Callable[[str], object]) -> None:
        self._lost = lost
        self.readers: dict[str, ISubscriber] = {}
        self.pubsub: ISubscriber | None = None
        self.why = ""
        self._isAborted = False
        # For each heartbeat on its way, the number of connections that have brought it back.
        self._returned: dict[bytes, int] = {}

    def _connections(self) -> list[ISubscriber]:
        return [*self.readers.values(), *([] if self.pubsub is None else [self.pubsub])]

    def partLost(self, reason: str) -> None:
        """Called when one of the connections has ended by itself."""
        if self.why or self._isAborted:
            return
        self.why = reason
        for connection in self._connections():
            connection.abort()
        if self.pubsub is not None:  # otherwise the attempt fails
            self._lost(reason)

    # -- ISubscriber -------------------------------------------------------------------

    def subscribe(self, subscription: Subscription) -> Deferred[None]:
        topic, pubsub = subscription.topic, self.pubsub
        assert pubsub is not None
        if topic.startswith("/"):
            asked = [self.readers[stream].subscribe(part) for stream, part in self._partsOf(subscription)]
        elif subscription.trimmed is None:
            return pubsub.subscribe(subscription)
        else:  # the heartbeat
            everywhere = Subscription(topic, False, lambda _, payload: self._beat(subscription, payload))
            asked = [pubsub.subscribe(everywhere)]
            asked += [self.readers[stream].subscribe(part) for stream, part in self._partsOf(subscription)]
        return gatherResults(asked, consumeErrors=True).addCallbacks(lambda _: None, _firstError)

    def _partsOf(self, subscription: Subscription) -> list[tuple[str, Subscription]]:
        """Return a subscription for each stream, which remembers where it begins in this one."""
        if subscription.start is None:
            subscription.start = {}
        parts: dict[str, Subscription] = subscription.start
        for stream in self.readers:
            if stream not in parts:
                parts[stream] = _part(subscription)
            part = parts[stream]
            if subscription.trimmed is not None:
                part.deliver = part.late = lambda _, payload: self._beat(subscription, payload)
                part.trimmed = subscription.trimmed
        return list(parts.items())

    def _beat(self, subscription: Subscription, payload: bytes) -> None:
        """Called when a heartbeat has come back by one of the connections."""
        count = self._returned.pop(payload, 0) + 1
        if count == len(self._connections()):
            self._returned.clear()
            subscription.deliver(subscription.topic, payload)
        elif len(self._returned) < 100:
            self._returned[payload] = count

    def unsubscribe(self, subscription: Subscription) -> None:
        if subscription.topic.startswith("/"):
            for stream, part in (subscription.start or {}).items():
                self.readers[stream].unsubscribe(part)
        elif self.pubsub is not None:
            self.pubsub.unsubscribe(subscription)

    def ping(self) -> None:
        for connection in self._connections():
            connection.ping()

    def abort(self) -> None:
        self._isAborted = True
        for connection in self._connections():
            connection.abort()


def _part(subscription: Subscription) -> Subscription:
    """Make a part of a subscription, for one stream."""
    return Subscription(
        subscription.topic,
        False,
        lambda topic, payload: subscription.deliver(topic, payload),
        late=lambda topic, payload: subscription.late(topic, payload),
        since=subscription.since,
    )


def _firstError(failure: Failure) -> Failure:
    error: Any = failure.value
    first: Failure = error.subFailure if isinstance(error, FirstError) else failure
    return first
