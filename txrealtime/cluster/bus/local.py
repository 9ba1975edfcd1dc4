"""
The bus of one machine: connections to a hub, over a Unix socket.

:class:`~txrealtime.workers.hub.Hub` is the broker, :mod:`~txrealtime.cluster.bus.hubframes` has the frames.
"""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.cluster.bus import hubframes
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.hubframes import FrameProtocol, decode, encode, frame
from txrealtime.cluster.bus.interfaces import IBus, IPublisher, IPublisherOwner, ISubscriber, Subscription
from txrealtime.cluster.bus.patterns import compilePattern
from txrealtime.engineio.tcp import readPlainly
from txrealtime.errors import BusError

__all__ = ["LocalBus", "checkGreeting", "nameOf", "whyNoHub"]

TIMEOUT = 5.0
"Seconds for the socket to connect.  The whole attempt has its own limit."

C = TypeVar("C", bound="_Connection")


def nameOf(kind: str) -> bytes:
    """Return a name for a connection, which tells the process in the hub's log."""
    return f"{kind} of process {os.getpid()}, {uuid4().hex}".encode()


def checkGreeting(payload: bytes) -> None:
    """
    Check the greeting of a hub.

    :raises BusError: if the hub speaks another version.
    """
    if payload != hubframes.VERSION:
        raise BusError(
            f"the hub speaks {payload[:40]!r} and this process {hubframes.VERSION!r}: "
            "run the same release of txrealtime in all processes"
        )


def whyNoHub(path: str, error: OSError | ConnectError) -> str:
    """Explain why there is no connection to a hub."""
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ECONNREFUSED):
        return f"no hub listens at {path}: start one, for instance with twistd realtime --hub {path}"
    if number == errno.EACCES:
        return f"no permission to connect to {path}: the hub and its clients must run as the same user"
    return str(error)


@implementer(IBus)
class LocalBus:
    """
    A bus over the hub of this machine.

    :param address: of the scheme ``unix``.
    """

    patterns = True

    def __init__(self, address: Address) -> None:
        self.name = address.name
        self._address = address
        # By owner: the name of its publishers.  A hub that hung may not have read all messages of the last
        # one.  Read later, they would arrive between newer ones, so the hub ends it for the next one's sake.
        self._names: WeakKeyDictionary[IPublisherOwner, bytes] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<LocalBus {self.name}>"

    def openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> Deferred[IPublisher]:
        name = self._names.setdefault(owner, nameOf("publisher"))
        return Deferred.fromCoroutine(self._open(reactor, _Publisher(name, owner)))

    def openSubscriber(self, reactor: IReactorTime, lost: Callable[[str], object]) -> Deferred[ISubscriber]:
        return Deferred.fromCoroutine(self._open(reactor, _Subscriber(nameOf("subscriber"), lost)))

    async def _open(self, reactor: IReactorTime, connection: C) -> C:
        try:
            await self._address.connect(reactor, connection, "", 0, TIMEOUT)
            await connection.greeted
        except ConnectError as error:
            raise BusError(whyNoHub(self._address.path, error)) from None
        except BaseException:  # a cancelled attempt too
            connection.abort()
            raise
        return connection


class _Connection(FrameProtocol):
    """
    A connection to the hub.

    :ivar greeted: fires when the hub has greeted; fails if it does not.
    """

    def __init__(self, name: bytes, lost: Callable[[str], object]) -> None:
        super().__init__()
        self.greeted: Deferred[None] = Deferred()
        self._name = name
        self._lost = lost
        self._established = False

    def connectionMade(self) -> None:
        readPlainly(self.transport)
        self._write(frame(hubframes.HELLO, self._name, hubframes.VERSION))

    def _write(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    def frameReceived(self, kind: int, topic: bytes, data: bytes, start: int, end: int) -> None:
        if kind == hubframes.GONE:
            self.fail(self.payloadOf(topic, data, start, end).decode("utf-8", "replace"))
        elif self._established:
            self.received(kind, topic, self.payloadOf(topic, data, start, end))
        elif kind != hubframes.HELLO:
            self.fail("the hub has not greeted")
        else:
            try:
                checkGreeting(self.payloadOf(topic, data, start, end))
            except BusError as error:
                self.fail(str(error))
            else:
                self._established = True
                self.greeted.callback(None)

    def received(self, kind: int, topic: bytes, payload: bytes) -> None:
        """Called with each frame after the greeting."""
        raise NotImplementedError

    def finished(self, reason: str) -> None:
        """Called when an established connection has ended by itself."""
        self._lost(reason)

    def malformed(self, reason: str) -> None:
        self.fail(f"the hub does not speak the protocol of hubs: {reason}")

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.fail(reason.getErrorMessage())

    def fail(self, reason: str) -> None:
        """End the connection as if it had ended by itself."""
        if self.ended:
            return
        self.abort()
        if self._established:
            self.finished(reason)
        elif not self.greeted.called:
            self.greeted.errback(BusError(reason))

    def abort(self) -> None:
        self.ended = True
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


@implementer(IPublisher)
class _Publisher(_Connection):
    def __init__(self, name: bytes, owner: IPublisherOwner) -> None:
        super().__init__(name, owner.lost)
        self.unconfirmed = 0
        self.pending = 0
        self._owner = owner
        self._sizes: deque[int] = deque()  # of the unconfirmed messages
        self._answers: deque[Deferred[None]] = deque()
        self._counting: deque[Deferred[int]] = deque()
        self._closing: Deferred[None] | None = None
        self._heard = False  # true if messages were confirmed since the owner was told

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        name, size = encode(topic), len(payload)
        if len(name) + size > hubframes.MAX_FRAME // 2:
            self._tooLarge(len(name) + size, answer)
            return
        self.unconfirmed += 1
        self.pending += size
        self._sizes.append(size)
        if answer is not None:
            self._answers.append(answer)
        self._write(frame(hubframes.PUBLISH, name, payload))

    def _tooLarge(self, size: int, answer: Deferred[None] | None) -> None:
        reason = f"a message of {size} bytes is too large for a hub, which takes {hubframes.MAX_FRAME // 2}"
        self._owner.refused(reason)
        if answer is not None:
            answer.errback(BusError(reason))

    def beat(self, topic: str, payload: bytes) -> None:
        self._write(frame(hubframes.BEAT, encode(topic), payload))

    def countSubscribers(self, topic: str) -> Deferred[int]:
        counting: Deferred[int] = Deferred()
        self._counting.append(counting)
        self._write(frame(hubframes.COUNT, encode(topic)))
        return counting

    def received(self, kind: int, topic: bytes, payload: bytes) -> None:
        try:
            if kind == hubframes.CONFIRM:
                self._confirmed(hubframes.numberOf(payload))
            elif kind == hubframes.REFUSE:
                self._refused(payload.decode("utf-8", "replace"))
            elif kind == hubframes.COUNT and topic:
                self._counting.popleft().errback(BusError(topic.decode("utf-8", "replace")))
            elif kind == hubframes.COUNT:
                self._counting.popleft().callback(hubframes.numberOf(payload))
            else:
                self.malformed(f"a publisher got a frame of the kind {kind}")
        except (IndexError, ValueError) as error:
            self.malformed(f"a reply without a question: {error}")

    def _confirmed(self, count: int) -> None:
        for _ in range(count):
            self.pending -= self._sizes.popleft()
            self.unconfirmed -= 1
            if self._answers:
                self._answers.popleft().callback(None)
        self._heard = True

    def _refused(self, reason: str) -> None:
        self.pending -= self._sizes.popleft()
        self.unconfirmed -= 1
        if self._answers:
            self._answers.popleft().errback(BusError(f"the broker refused the message: {reason}"))
        self._owner.refused(reason)

    def framesRead(self) -> None:
        if self.ended:
            return
        if self._closing is not None:
            if not self.unconfirmed:
                self._closed()
        elif self._heard:
            self._heard = False
            self._owner.confirmed()

    def close(self) -> Deferred[None]:
        self._closing = Deferred(lambda closing: self.abort())
        if not self.unconfirmed:
            self._closed()
        return self._closing

    def _closed(self) -> None:
        self.abort()
        if self._closing is not None and not self._closing.called:
            self._closing.callback(None)

    def finished(self, reason: str) -> None:
        if self._closing is not None:
            self._closed()
        else:
            self._lost(reason)

    def abort(self) -> None:
        super().abort()
        while self._counting:
            self._counting.popleft().errback(BusError("the connection to the hub has ended"))


@implementer(ISubscriber)
class _Subscriber(_Connection):
    def __init__(self, name: bytes, lost: Callable[[str], object]) -> None:
        super().__init__(name, lost)
        self._topics: dict[bytes, Subscription] = {}
        self._patterns: dict[bytes, tuple[Subscription, re.Pattern[str]]] = {}
        self._asked: deque[Deferred[None]] = deque()

    def subscribe(self, subscription: Subscription) -> Deferred[None]:
        name = encode(subscription.topic)
        if subscription.pattern:
            self._patterns[name] = subscription, compilePattern(subscription.topic)
        else:
            self._topics[name] = subscription
        asked: Deferred[None] = Deferred()
        self._asked.append(asked)
        kind = hubframes.SUBSCRIBE_PATTERN if subscription.pattern else hubframes.SUBSCRIBE
        if subscription.counted and not subscription.pattern:
            kind = hubframes.SUBSCRIBE_COUNTED
        self._write(frame(kind, name))
        return asked

    def unsubscribe(self, subscription: Subscription) -> None:
        name = encode(subscription.topic)
        subscribed: dict[bytes, Any] = self._patterns if subscription.pattern else self._topics
        subscribed.pop(name, None)
        kind = hubframes.UNSUBSCRIBE_PATTERN if subscription.pattern else hubframes.UNSUBSCRIBE
        self._write(frame(kind, name))

    def ping(self) -> None:
        pass  # between the socket's ends is no network that would drop the connection

    def received(self, kind: int, topic: bytes, payload: bytes) -> None:
        if kind in (hubframes.PUBLISH, hubframes.BEAT):
            self._deliver(topic, payload)
            return
        try:
            if kind == hubframes.CONFIRM:
                for _ in range(hubframes.numberOf(payload)):
                    self._asked.popleft().callback(None)
            elif kind == hubframes.REFUSE:
                self._asked.popleft().errback(BusError(payload.decode("utf-8", "replace")))
            else:
                self.malformed(f"a subscriber got a frame of the kind {kind}")
        except (IndexError, ValueError) as error:
            self.malformed(f"a reply without a question: {error}")

    def _deliver(self, topic: bytes, payload: bytes) -> None:
        subscription = self._topics.get(topic)
        if subscription is not None:
            subscription.deliver(subscription.topic, payload)
        if self._patterns:
            try:
                text = decode(topic)
            except UnicodeDecodeError:
                self.malformed("a topic is not UTF-8")
                return
            for subscription, pattern in list(self._patterns.values()):
                if pattern.fullmatch(text) and not self.ended:
                    subscription.deliver(text, payload)

    def finished(self, reason: str) -> None:
        asked, self._asked = self._asked, deque()
        for deferred in asked:
            deferred.errback(BusError(reason))
        self._lost(reason)
