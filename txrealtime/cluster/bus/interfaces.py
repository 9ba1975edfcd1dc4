"""
The interfaces of a bus: a message broker with topics, which carries the messages between servers.

A bus makes connections, one at a time, and nothing more.  :class:`~txrealtime.cluster.link.link.Link`
reconnects, subscribes again and counts losses.

To teach txrealtime another broker:

- Implement :class:`IBus`, :class:`IPublisher` and :class:`ISubscriber`.
- Give an instance to ``Server(bus=...)``.
- Compare with :mod:`~txrealtime.cluster.bus.memory`, the shortest bus and the reference for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

__all__ = [
    "IBus",
    "IKeepingBus",
    "IKeepingPublisher",
    "IPublisher",
    "IPublisherOwner",
    "ISubscriber",
    "Subscription",
]


class IBus(Interface):
    """
    A message broker, and how to connect to it.

    A message reaches each subscriber of its topic at most once, its own publisher included.  Messages of one
    publisher on one topic arrive in the order of publishing.  A payload is any bytes.
    """

    name: str = Attribute("The name in logs: an address without secrets.")
    patterns: bool = Attribute("True if a subscription may be to all topics of a pattern.")

    def openPublisher(reactor: IReactorTime, owner: IPublisherOwner) -> Deferred[IPublisher]:
        """
        Make one attempt to connect.

        :return: fires when messages can be published; fails if there is no such connection, with an error
            whose text has no secrets.  If it is cancelled, it fails and leaves nothing behind.
        """

    def openSubscriber(reactor: IReactorTime, lost: Callable[[str], object]) -> Deferred[ISubscriber]:
        """
        Make one attempt to connect.

        :param lost: called once with the reason, if the connection ends by itself.  An owner gives an equal
            function with each attempt.  By it a bus that keeps messages knows where the owner's last
            connection has ended.
        :return: fires when topics can be subscribed to; fails as that of :meth:`openPublisher`.
        """


class IPublisher(Interface):
    """A connection to publish on."""

    unconfirmed: int = Attribute("The number of messages that the broker has not confirmed yet.")
    pending: int = Attribute("The size of these messages, in bytes.")

    def publish(topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        """
        Send a message.  Never wait and never raise.

        :param answer: fires when the broker has confirmed the message; fails with
            :exc:`~txrealtime.errors.BusError` if the broker refuses it; is left alone if the connection
            ends before.  An owner gives one with each message, or with none.
        """

    def beat(topic: str, payload: bytes) -> None:
        """
        Send a heartbeat: a message that does not count as unconfirmed.

        A publisher may also use the occasion to check that the broker still takes messages.
        """

    def countSubscribers(topic: str) -> Deferred[int]:
        """
        Count the connections that are subscribed to a topic by its name, not by a pattern.

        :return: fails with :exc:`~txrealtime.errors.BusError` if the broker does not count them, or the
            connection ends before.
        """

    def close() -> Deferred[None]:
        """Close the connection when all messages are confirmed.  Do not call the owner's ``lost``."""

    def abort() -> None:
        """Abort the connection at once.  Do not call the owner any more."""


class IKeepingBus(IBus):
    """
    A bus whose broker keeps messages.

    A subscriber goes on where the last one of the same owner ended.  A publisher sends the messages again
    that the broker did not take from the last one of the same owner.
    """

    stream: str = Attribute("The name of the place where the broker keeps the messages.")

    def placeOf(lost: Callable[[str], object], topic: str = "") -> str:
        """
        Return how far an owner's subscribers have delivered the messages.

        :param lost: as that of :meth:`openSubscriber`.
        :param topic: a topic, on a bus that has several places.
        """


class IKeepingPublisher(IPublisher):
    """A publisher of such a bus."""

    def command(*words: str | bytes) -> Deferred[Any]:
        """
        Send a command of the broker, behind the messages that were published before.

        :return: fires with the reply; fails with :exc:`~txrealtime.errors.BusError` if that is an error, or
            the connection ends before.
        """


class IPublisherOwner(Interface):
    """The owner of a publisher, which hears of its messages and its end."""

    def confirmed() -> None:
        """Called when the broker has confirmed some messages."""

    def refused(reason: str) -> None:
        """Called when the broker has refused a message."""

    def lost(reason: str) -> None:
        """Called once when the connection has ended by itself and ``unconfirmed`` is final."""


class ISubscriber(Interface):
    """A connection to receive messages on."""

    def subscribe(subscription: Subscription) -> Deferred[None]:
        """
        Ask the broker for the messages of a topic.

        :return: fires when the broker has confirmed the subscription; fails if the broker refuses it, or
            the connection ends before.
        """

    def unsubscribe(subscription: Subscription) -> None:
        """End a subscription.  Messages that are on their way may still be delivered."""

    def ping() -> None:
        """Send anything: a network may drop a connection that only receives."""

    def abort() -> None:
        """Abort the connection at once.  Do not deliver anything more, and do not call ``lost``."""


class Subscription:
    """
    A subscription to a topic.

    :ivar topic: the topic, or a pattern of topics in Redis's form: ``*``, ``?``, ``[ab]``, and a backslash
        before one of these characters that stands for itself.
    :ivar pattern: true if `topic` is a pattern.
    :ivar deliver: called with the topic and the payload of each message; it must not raise.
    :ivar counted: true if other servers ask the broker for the number of the topic's subscribers, and expect
        a reply of each.  A hub then subscribes for each of its servers, not once for all of them.
    :ivar late: called instead of `deliver` with a message that was published during an outage of this
        connection, on a bus that keeps messages.
    :ivar since: the time of subscribing, by the reactor's clock.
    :ivar trimmed: called, if it is set, with the number of messages of any topic that the broker has thrown
        away before they were read; 0 if the number is not known.
    :ivar start: a bus that keeps messages remembers here where the subscription begins.
    """

    __slots__ = ("counted", "deliver", "late", "pattern", "since", "start", "topic", "trimmed")

    def __init__(
        self,
        topic: str,
        pattern: bool,
        deliver: Callable[[str, bytes], None],
        counted: bool = False,
        late: Callable[[str, bytes], None] | None = None,
        since: float = 0.0,
    ) -> None:
        self.topic = topic
        self.pattern = pattern
        self.deliver = deliver
        self.counted = counted
        self.late = late or deliver
        self.since = since
        self.trimmed: Callable[[int], object] | None = None
        self.start: Any = None
