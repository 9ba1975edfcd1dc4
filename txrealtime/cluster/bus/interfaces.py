"""
What carries the messages of servers to one another: a broker with topics.

A bus only opens connections, each once.  :class:`~txrealtime.cluster.link.link.Link` opens them again,
subscribes again, and knows what was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

__all__ = ["IBus", "IPublisher", "IPublisherOwner", "ISubscriber", "Subscription"]


class IBus(Interface):
    """
    A message broker, and how to connect to it.

    A message reaches each subscriber of its topic at most once, also the one who published it, and
    those that one publisher sent to a topic come in the order sent.  A payload is bytes, any bytes.
    """

    name: str = Attribute("What logs call it: an address without secrets.")
    patterns: bool = Attribute("Whether one subscription may be to all topics of a pattern.")

    def openPublisher(reactor: IReactorTime, owner: IPublisherOwner) -> Deferred[IPublisher]:
        """
        Make one attempt to connect.

        :return: fires when messages can be published; fails, with an error whose text has no
            secrets, when they cannot.  When it is cancelled it fails, and nothing remains.
        """

    def openSubscriber(reactor: IReactorTime, lost: Callable[[str], object]) -> Deferred[ISubscriber]:
        """
        Make one attempt to connect.

        :param lost: called once, with the reason, if the connection ends by itself.
        :return: as for :meth:`openPublisher`.
        """


class IPublisher(Interface):
    """A connection that messages are published by."""

    unconfirmed: int = Attribute("How many messages the broker has not confirmed yet.")
    pending: int = Attribute("How many bytes these are.")

    def publish(topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        """
        Send a message.  It never waits, and never raises.

        :param answer: fires when the broker has confirmed it, fails with
            :exc:`~txrealtime.errors.BusError` when the broker refuses, and is left alone when the
            connection ends before.  An owner gives one with each message, or with none.
        """

    def beat(topic: str, payload: bytes) -> None:
        """
        Send a heartbeat: a message that does not count as unconfirmed.  The occasion to ask, too,
        whether the broker is still one to publish to.
        """

    def countSubscribers(topic: str) -> Deferred[int]:
        """
        How many connections are subscribed to a topic by its name, not by a pattern.

        :return: fails with :exc:`~txrealtime.errors.BusError` when the broker does not tell, or the
            connection ends before it has.
        """

    def close() -> Deferred[None]:
        """End it when all messages have been confirmed.  The owner is told no more of its end."""

    def abort() -> None:
        """End it at once.  The owner is told nothing more."""


class IPublisherOwner(Interface):
    """Who opened a publisher."""

    def confirmed() -> None:
        """The broker has confirmed some messages."""

    def refused(reason: str) -> None:
        """The broker has refused a message."""

    def lost(reason: str) -> None:
        """The connection has ended by itself.  Called once, when ``unconfirmed`` is final."""


class ISubscriber(Interface):
    """A connection that messages come by."""

    def subscribe(subscription: Subscription) -> Deferred[None]:
        """
        :return: fires when the broker has confirmed it; fails when the broker refuses, or the
            connection ends before.
        """

    def unsubscribe(subscription: Subscription) -> None:
        """Have no more of it.  What is on its way may still be delivered."""

    def ping() -> None:
        """Send something, so that a connection which only listens is seen to live."""

    def abort() -> None:
        """End it at once.  Nothing more is delivered, and ``lost`` is not called."""


class Subscription:
    """
    A wish to have the messages of a topic.

    :ivar topic: the topic, or a pattern of topics as Redis has them: ``*``, ``?``, ``[ab]``, and a
        backslash before one of these that means itself.
    :ivar pattern: which of both.
    :ivar deliver: called with each message's topic and payload; it must not raise.
    """

    __slots__ = ("deliver", "pattern", "topic")

    def __init__(self, topic: str, pattern: bool, deliver: Callable[[str, bytes], None]) -> None:
        self.topic = topic
        self.pattern = pattern
        self.deliver = deliver
