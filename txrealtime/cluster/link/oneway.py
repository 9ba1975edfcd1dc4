"""
A link for processes that only publish: no subscriptions, no heartbeat, no queue across outages.

:class:`~txrealtime.cluster.emitter.DeferredEmitter` has one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.cluster.bus.interfaces import IBus, IPublisher, IPublisherOwner
from txrealtime.errors import BusError

__all__ = ["OneWayLink"]

_MAX_COUNT: Final = 10_000
_MAX_SIZE: Final = 64_000_000
"""Messages, and bytes of messages, that may wait for the connection or for the broker's answer."""


@implementer(IPublisherOwner)
class OneWayLink:
    """
    A publisher that connects when it is needed, and tells each message's fate.

    Each message is published at most once.

    :param timeout: seconds that the broker has to accept the connection, and then to confirm each message.
    """

    def __init__(self, bus: IBus, reactor: IReactorTime, timeout: float) -> None:
        self._bus = bus
        self._reactor = reactor
        self._timeout = timeout
        self._publisher: IPublisher | None = None
        self._opening: Deferred[Any] | None = None
        self._closers: list[Deferred[None]] = []
        # Messages that wait for a connection, and messages that wait for an answer with their deadlines:
        # the oldest first.
        self._waiting: list[tuple[str, bytes, Deferred[None]]] = []
        self._sent: dict[Deferred[None], float] = {}
        self._watch: IDelayedCall | None = None
        self._size = 0

    def publish(self, topic: str, payload: bytes) -> Deferred[None]:
        """
        Publish a message.

        :return: fires when the broker has the message; fails with :exc:`~txrealtime.errors.BusError` if the
            broker does not have it, or may not have it.
        """
        taken: Deferred[None] = Deferred()
        size = len(payload)
        if len(self._waiting) + len(self._sent) >= _MAX_COUNT or self._size + size > _MAX_SIZE:
            taken.errback(BusError(f"too many messages wait for {self._bus.name} already"))
            return taken
        self._size += size
        taken.addBoth(self._answered, taken, size)
        if self._publisher is not None:
            self._send(self._publisher, topic, payload, taken)
        else:
            self._waiting.append((topic, payload, taken))
            self._open()
        return taken

    def _send(self, publisher: IPublisher, topic: str, payload: bytes, taken: Deferred[None]) -> None:
        self._sent[taken] = self._reactor.seconds() + self._timeout
        if self._watch is None:
            self._watch = self._reactor.callLater(self._timeout, self._look)
        publisher.publish(topic, payload, taken)

    def _answered(self, result: Any, taken: Deferred[None], size: int) -> Any:
        self._size -= size
        self._sent.pop(taken, None)
        return result

    # -- the connection ----------------------------------------------------------------

    def _open(self) -> None:
        if self._opening is None:
            self._opening = self._bus.openPublisher(self._reactor, self)
            self._opening.addTimeout(self._timeout, self._reactor, self._lateToOpen)
            self._opening.addCallbacks(self._opened, self._failed)

    def _opened(self, publisher: IPublisher) -> None:
        self._publisher, self._opening = publisher, None
        waiting, self._waiting = self._waiting, []
        for topic, payload, taken in waiting:
            if not taken.called:
                self._send(publisher, topic, payload, taken)
        if self._closers:
            self._close()

    def _failed(self, failure: Failure) -> None:
        self._opening = None
        waiting, self._waiting = self._waiting, []
        self._fail([taken for _, _, taken in waiting], f": {failure.getErrorMessage()}")

    def _lateToOpen(self, result: object, seconds: float) -> NoReturn:
        raise BusError(f"no answer within {seconds:g} s")

    def _look(self) -> None:
        """Abort the connection if the broker's answer to the oldest message is late."""
        self._watch = None
        if self._sent:
            left = next(iter(self._sent.values())) - self._reactor.seconds()
            if left > 0:
                self._watch = self._reactor.callLater(left, self._look)
            elif self._publisher is not None:
                self._publisher.abort()
                self.lost(f"no answer within {self._timeout:g} s")

    def _fail(self, messages: Collection[Deferred[None]], why: str) -> None:
        """Fail messages, and fire the Deferreds of :meth:`close`."""
        for taken in messages:
            if not taken.called:
                taken.errback(BusError(f"{self._bus.name}{why}"))
        self._closed()

    # -- IPublisherOwner ---------------------------------------------------------------

    def confirmed(self) -> None:
        """Called when the broker has confirmed messages.  Each has its own Deferred, so do nothing."""

    def refused(self, reason: str) -> None:
        """Called when the broker has refused a message.  Each has its own Deferred, so do nothing."""

    def lost(self, reason: str) -> None:
        self._publisher = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._fail(list(self._sent), f" may not have got it: {reason}")

    # -- the end -----------------------------------------------------------------------

    def close(self) -> Deferred[None]:
        """
        Disconnect.

        :return: fires when the broker has all messages, or did not answer in time.
        """
        closed: Deferred[None] = Deferred()
        self._closers.append(closed)
        if self._opening is None and len(self._closers) == 1:
            self._close()
        return closed

    def _close(self) -> None:
        publisher = self._publisher
        if publisher is None:
            self._closed()
        else:
            closing = publisher.close().addTimeout(self._timeout, self._reactor)
            closing.addBoth(lambda _: self._ended(publisher))

    def _ended(self, publisher: IPublisher) -> None:
        if publisher is self._publisher:  # not aborted meanwhile
            self.lost("the connection was closed")

    def _closed(self) -> None:
        closers, self._closers = self._closers, []
        for closed in closers:
            closed.callback(None)
