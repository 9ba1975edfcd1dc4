"""
A connection to a hub that stands before a broker.

The broker confirms here what a hub on its own confirms itself: messages and subscriptions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed

from txrealtime.cluster.bus import hubframes
from txrealtime.cluster.bus.hubframes import decode, encode, frame, number
from txrealtime.cluster.bus.interfaces import IBus, ISubscriber, Subscription
from txrealtime.workers.hubconnection import HubConnection, Owner
from txrealtime.workers.upstream import Upstream

__all__ = ["ForwardingConnection", "ForwardingOwner"]

_PATIENCE: Final = 3.0
"""Seconds that a connection waits for the broker, before it is told the reason."""

_TIMEOUT: Final = 5.0
"""Seconds for a connection to the broker."""


class ForwardingOwner(Owner, Protocol):
    """The hub, as a connection sees it."""

    def flushLater(self) -> None: ...

    def confirmLater(self, connection: HubConnection) -> None: ...


class _Owed:
    """
    A reply that is owed: ``None`` until the broker has replied, then the reason of a refusal, or ``""``.
    """

    __slots__ = ("refusal",)

    def __init__(self) -> None:
        self.refusal: str | None = None


class ForwardingConnection(HubConnection):
    """A connection whose messages go to the broker."""

    _hub: ForwardingOwner

    def __init__(self, hub: ForwardingOwner, upstream: Upstream) -> None:
        super().__init__(hub)
        self._upstream = upstream
        self._owed: deque[_Owed] = deque()
        self._held = b""
        self._alone: _Alone | None = None

    # -- greeting ------------------------------------------------------------------------

    def welcome(self, name: bytes) -> None:
        """Greet in return, when there is a link to the broker."""
        if self._upstream.isReady:
            super().welcome(name)
        elif self._held:
            self._refuse("it has greeted twice")
        else:
            self._held = name
            self._greeting = self._hub.reactor.callLater(_PATIENCE, lambda: self.gone(self._upstream.reason))

    def upstreamReady(self) -> None:
        """Called when there is a link to the broker."""
        if self._held and not self.ended:
            self._greetingDone()
            name, self._held = self._held, b""
            super().welcome(name)

    def gone(self, reason: str) -> None:
        """Tell that there is no link to the broker, and close."""
        if self.ended:
            return
        if self._paused:
            self.abort()
            return
        self.send(frame(hubframes.GONE, b"", reason.encode()[:900]))
        self.ended = True
        self.forget()
        self._lose()

    def forget(self) -> None:
        super().forget()
        self._owed.clear()
        alone, self._alone = self._alone, None
        if alone is not None:
            alone.abort()

    # -- frames --------------------------------------------------------------------------

    def _publish(self, kind: int, topic: bytes, data: bytes, start: int, end: int) -> None:
        try:
            name = decode(topic)
        except UnicodeDecodeError:
            self.malformed("a topic is not UTF-8")
            return
        payload = self.payloadOf(topic, data, start, end)
        if kind == hubframes.BEAT:
            self._upstream.link.beat(name, payload)
            return
        self._hub.published += 1
        answer: Deferred[None] = Deferred()
        self._owe(answer)
        try:
            self._upstream.link.publish(name, payload, answer)
        except ValueError as error:
            answer.errback(error)

    def subscribe(self, kind: int, topic: bytes) -> None:
        """Subscribe to a topic or pattern.  The broker confirms."""
        if kind == hubframes.SUBSCRIBE_COUNTED:
            if self._alone is None:
                self._alone = _Alone(self._upstream.bus, self._hub.reactor, self._deliver, self.gone)
            self._owe(self._alone.subscribe(topic))
            return
        pattern = kind == hubframes.SUBSCRIBE_PATTERN
        topics = self._hub.topics
        (topics.addPattern if pattern else topics.add)(self, topic)
        self._owe(self._upstream.subscribe(topic, pattern))

    def _deliver(self, topic: str, payload: bytes) -> None:
        """Send a message that is for this connection alone."""
        self.reply(frame(hubframes.PUBLISH, encode(topic), payload))
        self._hub.flushLater()

    def unsubscribe(self, topic: bytes) -> None:
        """Unsubscribe from a topic."""
        super().unsubscribe(topic)
        if self._alone is not None:
            self._alone.unsubscribe(topic)

    def count(self, topic: bytes) -> None:
        """Reply with the number of subscribers that the broker has."""

        def counted(count: int) -> None:
            self._replyLater(frame(hubframes.COUNT, b"", number(count)))

        def failed(failure: Any) -> None:
            reason = failure.getErrorMessage() or "the broker does not count them"
            self._replyLater(frame(hubframes.COUNT, reason.encode()))

        self._upstream.link.countSubscribers(decode(topic)).addCallbacks(counted, failed)

    def _replyLater(self, data: bytes) -> None:
        if not self.ended:
            self.reply(data)
            self._hub.flushLater()

    def refuse(self, text: str) -> None:
        """Refuse the frame being read, after the replies to the frames before it."""
        owed = _Owed()
        self._owed.append(owed)
        self._settled(text, owed)

    # -- replies, in the order of the frames ----------------------------------------------

    def _owe(self, answer: Deferred[None]) -> None:
        owed = _Owed()
        self._owed.append(owed)
        answer.addCallbacks(
            lambda _: self._settled("", owed),
            lambda failure: self._settled(failure.getErrorMessage() or "no reason", owed),
        )

    def _settled(self, refusal: str, owed: _Owed) -> None:
        owed.refusal = refusal
        waiting = self._owed
        if self.ended or not waiting or waiting[0].refusal is None:
            return
        while waiting and (reason := waiting[0].refusal) is not None:
            waiting.popleft()
            if reason:
                self.confirm()
                self.reply(frame(hubframes.REFUSE, b"", reason.encode()[:900]))
            else:
                self._unconfirmed += 1
        self._hub.confirmLater(self)


class _Alone:
    """
    A connection to the broker of one worker's own.

    Servers of Node count the subscribers of some topics, and expect a reply of each.

    :param deliver: called with the topic and the payload of each message.
    :param lost: called with the reason, when the connection is lost or cannot be had.
    """

    def __init__(
        self,
        bus: IBus,
        reactor: Any,
        deliver: Callable[[str, bytes], None],
        lost: Callable[[str], object],
    ) -> None:
        self._deliver = deliver
        self._lost = lost
        self._subscriptions: dict[bytes, Subscription] = {}
        self._subscriber: ISubscriber | None = None
        self._waiting: list[Deferred[ISubscriber]] = []
        self._opening = bus.openSubscriber(reactor, lost).addTimeout(_TIMEOUT, reactor)
        self._opening.addCallbacks(self._opened, lambda failure: self._lost(failure.getErrorMessage()))

    def _opened(self, subscriber: ISubscriber) -> None:
        self._subscriber = subscriber
        waiting, self._waiting = self._waiting, []
        for opened in waiting:
            opened.callback(subscriber)

    def _whenOpen(self) -> Deferred[ISubscriber]:
        if self._subscriber is not None:
            return succeed(self._subscriber)
        opened: Deferred[ISubscriber] = Deferred()
        self._waiting.append(opened)
        return opened

    def subscribe(self, topic: bytes) -> Deferred[None]:
        """
        Subscribe to a topic.

        :return: fires when the broker has confirmed it.
        """
        subscription = self._subscriptions[topic] = Subscription(decode(topic), False, self._deliver)
        return self._whenOpen().addCallback(lambda subscriber: subscriber.subscribe(subscription))

    def unsubscribe(self, topic: bytes) -> None:
        """Unsubscribe from a topic."""
        subscription = self._subscriptions.pop(topic, None)
        if subscription is not None:
            self._whenOpen().addCallback(lambda subscriber: subscriber.unsubscribe(subscription))

    def abort(self) -> None:
        """End the connection."""
        self._waiting.clear()
        self._lost = lambda reason: None
        if self._subscriber is not None:
            self._subscriber.abort()
        else:
            self._opening.cancel()
