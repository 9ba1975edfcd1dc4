"""
A bus in memory, for tests: the reference for all others.

:class:`MemoryHub` is the broker, with methods for faults; :class:`MemoryBus` connects a server to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from txrealtime.cluster.bus.interfaces import IBus, IPublisher, IPublisherOwner, ISubscriber, Subscription
from txrealtime.cluster.bus.patterns import compilePattern
from txrealtime.errors import BusError

__all__ = ["MemoryBus", "MemoryHub"]


class MemoryHub:
    """
    The broker.  All buses of one hub hear each other.

    The hub acts not in the call itself but in the reactor's next turn, in order, like a broker in another
    process.  So a test sees what users see: ``clock.advance(0)`` lets everything arrive.
    """

    def __init__(self) -> None:
        self.subscribers: list[_Subscriber] = []
        self.publishers: list[_Publisher] = []
        self._waiting: list[Callable[[], object]] = []
        self._running = True
        self._paused = False

    # -- faults, for tests -------------------------------------------------------------

    def stop(self) -> None:
        """Refuse connections, and end the present ones."""
        self._running = False
        self.cutSubscribers()
        for publisher in list(self.publishers):
            publisher.end("the hub was stopped")

    def start(self) -> None:
        """Accept connections again."""
        self._running = True

    def cutSubscribers(self) -> None:
        """End the connections of subscribers."""
        for subscriber in list(self.subscribers):
            subscriber.end("the hub has cut it")

    def pause(self) -> None:
        """Accept everything and act on nothing until :meth:`resume`, like a broker that hangs."""
        self._paused = True

    def resume(self) -> None:
        """Act on everything that came meanwhile, in order."""
        self._paused = False
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act()

    # -- for its connections -----------------------------------------------------------

    def later(self, reactor: IReactorTime, act: Callable[[], object]) -> None:
        """Call a function in the next turn, or after :meth:`resume`."""
        reactor.callLater(0, lambda: self._waiting.append(act) if self._paused else act())

    def opened(self, reactor: IReactorTime, connection: Any, among: list[Any]) -> Deferred[Any]:
        """
        Accept a new connection.

        :param among: the list to add the connection to.
        """
        if not self._running:
            return fail(BusError("the hub is stopped"))
        opening: Deferred[Any] = Deferred()

        def take() -> None:
            if not opening.called:
                among.append(connection)
                opening.callback(connection)

        self.later(reactor, take)
        return opening

    def count(self, topic: str) -> int:
        """Count the subscribers to a topic by its name."""
        return sum(subscriber.hears(topic) for subscriber in self.subscribers)

    def deliver(self, topic: str, payload: bytes) -> None:
        """Deliver a message to the present subscribers of its topic."""
        for subscriber in list(self.subscribers):
            subscriber.received(topic, payload)


@implementer(IBus)
class MemoryBus:
    """
    A bus to a hub in this process.

    :param hub: by default a new one, that no other bus is connected to.
    """

    name = "memory"
    patterns = True

    def __init__(self, hub: MemoryHub | None = None) -> None:
        self.hub = hub or MemoryHub()

    def openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> Deferred[IPublisher]:
        return self.hub.opened(reactor, _Publisher(self.hub, reactor, owner), self.hub.publishers)

    def openSubscriber(self, reactor: IReactorTime, lost: Callable[[str], object]) -> Deferred[ISubscriber]:
        return self.hub.opened(reactor, _Subscriber(self.hub, reactor, lost), self.hub.subscribers)


@implementer(IPublisher)
class _Publisher:
    def __init__(self, hub: MemoryHub, reactor: IReactorTime, owner: IPublisherOwner) -> None:
        self.unconfirmed = 0
        self.pending = 0
        self._hub = hub
        self._reactor = reactor
        self._owner = owner
        self._closing: Deferred[None] | None = None

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        self.unconfirmed += 1
        self.pending += len(payload)
        self._hub.later(self._reactor, lambda: self._taken(topic, payload, answer))

    def _taken(self, topic: str, payload: bytes, answer: Deferred[None] | None) -> None:
        if self not in self._hub.publishers:
            return  # the connection ended before the hub read the message
        self._hub.deliver(topic, payload)
        self.unconfirmed -= 1
        self.pending -= len(payload)
        if answer is not None:
            answer.callback(None)
        if self._closing is None:
            self._owner.confirmed()
        elif not self.unconfirmed:
            self.abort()
            self._closing.callback(None)

    def beat(self, topic: str, payload: bytes) -> None:
        self._hub.later(self._reactor, lambda: self._beaten(topic, payload))

    def _beaten(self, topic: str, payload: bytes) -> None:
        if self in self._hub.publishers:
            self._hub.deliver(topic, payload)

    def countSubscribers(self, topic: str) -> Deferred[int]:
        counted: Deferred[int] = Deferred()
        self._hub.later(self._reactor, lambda: counted.callback(self._hub.count(topic)))
        return counted

    def close(self) -> Deferred[None]:
        self._closing = Deferred(lambda closing: self.abort())
        if not self.unconfirmed:
            self.abort()
            self._closing.callback(None)
        return self._closing

    def abort(self) -> None:
        if self in self._hub.publishers:
            self._hub.publishers.remove(self)

    def end(self, reason: str) -> None:
        self.abort()
        if self._closing is None:
            self._owner.lost(reason)
        elif not self._closing.called:
            self._closing.callback(None)


@implementer(ISubscriber)
class _Subscriber:
    def __init__(self, hub: MemoryHub, reactor: IReactorTime, lost: Callable[[str], object]) -> None:
        self._hub = hub
        self._reactor = reactor
        self._lost = lost
        self._subscriptions: dict[Subscription, re.Pattern[str]] = {}
        self._asked: list[Deferred[None]] = []

    def subscribe(self, subscription: Subscription) -> Deferred[None]:
        confirmed: Deferred[None] = Deferred()
        self._asked.append(confirmed)

        def take() -> None:
            if confirmed in self._asked:
                self._asked.remove(confirmed)
                topic = subscription.topic
                self._subscriptions[subscription] = (
                    compilePattern(topic) if subscription.pattern else re.compile(re.escape(topic))
                )
                confirmed.callback(None)

        self._hub.later(self._reactor, take)
        return confirmed

    def unsubscribe(self, subscription: Subscription) -> None:
        self._hub.later(self._reactor, lambda: self._subscriptions.pop(subscription, None))

    def hears(self, topic: str) -> bool:
        return any(each.topic == topic and not each.pattern for each in self._subscriptions)

    def received(self, topic: str, payload: bytes) -> None:
        for subscription, pattern in list(self._subscriptions.items()):
            if pattern.fullmatch(topic):
                subscription.deliver(topic, payload)

    def ping(self) -> None:
        pass

    def abort(self) -> None:
        self._asked.clear()
        self._subscriptions.clear()
        if self in self._hub.subscribers:
            self._hub.subscribers.remove(self)

    def end(self, reason: str) -> None:
        asked = list(self._asked)
        self.abort()
        for confirmed in asked:
            confirmed.errback(BusError(reason))
        self._lost(reason)
