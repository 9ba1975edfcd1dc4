"""
What a server hears from others: its subscriptions, made again with each connection.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txrealtime.cluster.interfaces import IBus, ISubscriber, Subscription
from txrealtime.cluster.journal import Journal
from txrealtime.cluster.line import Backoff, Line
from txrealtime.errors import BusError

__all__ = ["Incoming", "Receiver"]

_log = Logger()

Receiver = Callable[[str, bytes], object]
"What is called with the topic and the payload of a message."


class Incoming:
    """
    Subscriptions, which outlive connections.

    :param maxMessage: bytes; what is larger is not delivered.
    :param changed: called with ``""`` when a connection has all subscriptions, confirmed by the
        broker, and with the reason when there is no such connection.
    """

    def __init__(
        self,
        bus: IBus,
        reactor: IReactorTime,
        backoff: Backoff,
        maxMessage: int,
        journal: Journal,
        changed: Callable[[str], None],
    ) -> None:
        self.line: Line[ISubscriber] = Line(
            reactor,
            backoff,
            lambda: Deferred.fromCoroutine(self._connect()),
            lambda subscriber: changed(""),
            self._ended,
        )
        self._bus = bus
        self._reactor = reactor
        self._maxMessage = maxMessage
        self._journal = journal
        self._counts = journal.counts
        self._changed = changed
        self._subscriptions: dict[str, Subscription] = {}
        self._subscriber: ISubscriber | None = None  # also while it confirms the first subscriptions
        self._unconfirmed: dict[Subscription, list[Deferred[None]]] = {}
        self._allConfirmed: Deferred[None] | None = None

    @property
    def open(self) -> bool:
        """Whether messages come in, of all that was subscribed to when the connection was made."""
        return self.line.connection is not None

    # -- subscriptions -----------------------------------------------------------------

    def subscribe(self, topic: str, receive: Receiver, pattern: bool) -> None:
        """Deliver the messages of a topic, counted."""
        self.add(Subscription(topic, pattern, self._delivery(receive)))

    def add(self, subscription: Subscription) -> None:
        """Have a subscription as it is."""
        self._subscriptions[subscription.topic] = subscription
        self._unconfirmed[subscription] = []
        if self._subscriber is not None:
            self._ask(self._subscriber, subscription)

    def __contains__(self, topic: str) -> bool:
        return topic in self._subscriptions

    def unsubscribe(self, topic: str) -> None:
        """Deliver them no more, from now on."""
        subscription = self._subscriptions.pop(topic, None)
        if subscription is None:
            return
        subscription.deliver = _nobody
        if self._subscriber is not None:
            self._subscriber.unsubscribe(subscription)
        for waiting in self._unconfirmed.pop(subscription, []):
            waiting.errback(BusError(f"unsubscribed from {topic!r} before it was confirmed"))
        self._checkAll()

    def whenConfirmed(self, topic: str) -> Deferred[None]:
        """See :meth:`Link.whenSubscribed`."""
        subscription = self._subscriptions.get(topic)
        if subscription is None:
            return fail(BusError(f"not subscribed to {topic!r}"))
        waiters = self._unconfirmed.get(subscription)
        if waiters is None:
            return succeed(None)
        waiting: Deferred[None] = Deferred(lambda cancelled: waiters.remove(cancelled))
        waiters.append(waiting)
        return waiting

    def _delivery(self, receive: Receiver) -> Callable[[str, bytes], None]:
        counts = self._counts
        complained: set[type[Exception]] = set()

        def deliver(topic: str, payload: bytes) -> None:
            if len(payload) > self._maxMessage:
                counts.oversized += 1
                self._journal.complain("a message from {bus} was too large, and thrown away: {why}", topic)
                return
            counts.received += 1
            try:
                receive(topic, payload)
            except Exception as error:
                counts.failures += 1
                if type(error) not in complained:
                    complained.add(type(error))
                    _log.failure(
                        "the receiver of {topic} failed; from now on such failures are only counted",
                        topic=topic,
                    )

        return deliver

    # -- the connection ----------------------------------------------------------------

    async def _connect(self) -> ISubscriber:
        """One attempt: to connect, and to have every subscription confirmed."""
        subscriber = await self._bus.openSubscriber(self._reactor, self._lost)
        self._subscriber = subscriber
        self._allConfirmed = Deferred()
        try:
            for subscription in list(self._subscriptions.values()):
                self._ask(subscriber, subscription)
            await self._allConfirmed
        except BaseException:  # also when the attempt is cancelled
            self._subscriber = None
            subscriber.abort()
            raise
        finally:
            self._allConfirmed = None
        return subscriber

    def _ask(self, subscriber: ISubscriber, subscription: Subscription) -> None:
        def confirmed(result: None) -> None:
            if self._subscriber is subscriber:
                for waiting in self._unconfirmed.pop(subscription, []):
                    waiting.callback(None)
                self._checkAll()

        def refused(failure: Failure) -> None:
            if self._subscriber is not subscriber:
                return  # it is gone, and so are its answers
            error = BusError(f"cannot subscribe to {subscription.topic!r}: {failure.getErrorMessage()}")
            if self._allConfirmed is not None:
                self._allConfirmed.errback(error)
            else:
                self.line.drop(str(error))

        subscriber.subscribe(subscription).addCallbacks(confirmed, refused)

    def _checkAll(self) -> None:
        if not self._unconfirmed and self._allConfirmed is not None and not self._allConfirmed.called:
            self._allConfirmed.callback(None)

    def ping(self) -> None:
        """Send something, as whoever only listens may be forgotten."""
        if self._subscriber is not None:
            self._subscriber.ping()

    def _lost(self, reason: str) -> None:
        # While an attempt runs, it fails by the subscriptions that nobody confirms.
        if self.line.connection is not None:
            self.line.lost(reason)

    def _ended(self, reason: str) -> None:
        self._subscriber = None
        for subscription in self._subscriptions.values():
            self._unconfirmed.setdefault(subscription, [])
        self._changed(reason)

    def stop(self) -> None:
        """Disconnect."""
        subscriber = self.line.stop()
        self._subscriber = None
        if subscriber is not None:
            subscriber.abort()
        for subscription in self._subscriptions.values():
            waiters = self._unconfirmed.setdefault(subscription, [])
            while waiters:
                waiters.pop().errback(BusError("the link was stopped"))


def _nobody(topic: str, payload: bytes) -> None:
    """What is delivered after the end of a subscription."""
