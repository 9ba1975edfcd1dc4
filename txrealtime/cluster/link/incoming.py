"""
The receiving half of a link: subscriptions, which are made again on each new connection.

:class:`~txrealtime.cluster.link.link.Link` has one :class:`Incoming`.  It never publishes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txrealtime.cluster.bus.interfaces import IBus, ISubscriber, Subscription
from txrealtime.cluster.link.counts import Journal
from txrealtime.cluster.link.reconnecting import Backoff, Reconnecting
from txrealtime.errors import BusError
from txrealtime.logs import Logger

__all__ = ["Incoming", "Receiver"]

_log = Logger()

WINDOW = 500
"""
Subscriptions that the broker is asked for at a time: a server with very many of them does other things in
between.
"""

Receiver = Callable[[str, bytes], object]
"A function that takes the topic and the payload of a message."


class Incoming:
    """
    The subscriptions of a link, which outlive its connections.

    :param maxMessage: bytes.  A larger message is not delivered.
    :param changed: called with ``""`` when the broker has confirmed all subscriptions of a connection, and
        with the reason when there is no such connection any more.
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
        self.reconnecting: Reconnecting[ISubscriber] = Reconnecting(
            reactor,
            backoff,
            lambda: bus.openSubscriber(reactor, self.reconnecting.lost),
            self._opened,
            self._ended,
        )
        self._reactor = reactor
        self._timeout = backoff.timeout
        self._maxMessage = maxMessage
        self._journal = journal
        self._counts = journal.counts
        self._changed = changed
        self._subscriptions: dict[str, Subscription] = {}
        self._unconfirmed: dict[Subscription, list[Deferred[None]]] = {}
        self._unasked: deque[Subscription] = deque()
        self._asked = 0  # subscriptions that the broker was asked for and has not answered
        # The deadline of the broker's next confirmation.  None once a connection has all of them.
        self._overdue: IDelayedCall | None = None

    @property
    def open(self) -> bool:
        """True if the messages of all topics come in that were subscribed to when the connection was made."""
        return self.reconnecting.connection is not None and self._overdue is None

    # -- subscriptions -----------------------------------------------------------------

    def subscribe(
        self, topic: str, receive: Receiver, pattern: bool, counted: bool, late: Receiver | None
    ) -> None:
        """Deliver the messages of a topic, and count them."""
        since = self._reactor.seconds()
        lately = None if late is None else self._delivery(late)
        self.add(Subscription(topic, pattern, self._delivery(receive), counted, lately, since))

    def add(self, subscription: Subscription) -> None:
        """Add a subscription whose messages are not counted."""
        self._subscriptions[subscription.topic] = subscription
        self._unconfirmed[subscription] = []
        if self.reconnecting.connection is not None:
            self._unasked.append(subscription)
            self._ask()

    def __contains__(self, topic: str) -> bool:
        return topic in self._subscriptions

    def unsubscribe(self, topic: str) -> None:
        """Stop the delivery of a topic's messages at once."""
        subscription = self._subscriptions.pop(topic, None)
        if subscription is None:
            return
        subscription.deliver = subscription.late = _ignore
        if self.reconnecting.connection is not None:
            self.reconnecting.connection.unsubscribe(subscription)
        for waiting in self._unconfirmed.pop(subscription, []):
            waiting.errback(BusError(f"unsubscribed from {topic!r} before it was confirmed"))
        self._checkAll()

    def whenConfirmed(self, topic: str) -> Deferred[None]:
        """Wait for the broker's confirmation: see :meth:`Link.whenSubscribed`."""
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

    def _opened(self, subscriber: ISubscriber) -> None:
        self._overdue = self._reactor.callLater(self._timeout, self._late)
        self._asked = 0
        self._unasked = deque(self._subscriptions.values())
        self._ask()

    def _ask(self) -> None:
        """Ask the broker for the next subscriptions, up to `WINDOW` at a time."""
        while (
            self._unasked
            and self._asked < WINDOW
            and (subscriber := self.reconnecting.connection) is not None
        ):
            subscription = self._unasked.popleft()
            if subscription in self._unconfirmed:  # not unsubscribed from meanwhile
                self._asked += 1
                both = (subscriber, subscription)
                asked = subscriber.subscribe(subscription)
                asked.addCallbacks(self._confirmed, self._refused, both, errbackArgs=both)

    def _confirmed(self, result: None, subscriber: ISubscriber, subscription: Subscription) -> None:
        if self.reconnecting.connection is not subscriber:
            return  # an answer of an earlier connection
        self._asked -= 1
        if self._overdue is not None:
            self._overdue.reset(self._timeout)
        for waiting in self._unconfirmed.pop(subscription, []):
            waiting.callback(None)
        self._ask()
        self._checkAll()

    def _refused(self, failure: Failure, subscriber: ISubscriber, subscription: Subscription) -> None:
        if self.reconnecting.connection is subscriber:
            self.reconnecting.drop(f"cannot subscribe to {subscription.topic!r}: {failure.getErrorMessage()}")

    def _checkAll(self) -> None:
        if self._overdue is not None and not self._unconfirmed:
            self._inTime()
            self._changed("")

    def _late(self) -> None:
        self._overdue = None
        self.reconnecting.drop(f"no answer within {self._timeout:g} s")

    def _inTime(self) -> None:
        overdue, self._overdue = self._overdue, None
        if overdue is not None:
            overdue.cancel()

    def ping(self) -> None:
        """Send anything: a network may drop a connection that only receives."""
        if self.reconnecting.connection is not None:
            self.reconnecting.connection.ping()

    def _ended(self, reason: str) -> None:
        self._inTime()
        for subscription in self._subscriptions.values():
            self._unconfirmed.setdefault(subscription, [])
        self._changed(reason)

    def stop(self) -> None:
        """Disconnect, and fail the Deferreds that wait for a confirmation."""
        subscriber = self.reconnecting.stop()
        self._inTime()
        if subscriber is not None:
            subscriber.abort()
        for subscription in self._subscriptions.values():
            waiters = self._unconfirmed.setdefault(subscription, [])
            while waiters:
                waiters.pop().errback(BusError("the link was stopped"))


def _ignore(topic: str, payload: bytes) -> None:
    """Ignore a message that was on its way when its subscription ended."""
