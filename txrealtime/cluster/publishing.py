"""
Publishing without a :class:`~txrealtime.cluster.link.Link`: who hears nothing has no need of one.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.cluster.interfaces import IBus, IPublisher, IPublisherOwner
from txrealtime.errors import BusError

__all__ = ["Publishing"]

_MAX_WAITING: Final = 10_000
"""Messages that may wait for the broker."""


@implementer(IPublisherOwner)
class Publishing:
    """
    Publishes, each message at most once, and tells when the broker has it.

    It connects when there is something to publish.

    :param timeout: seconds that an attempt to connect may take.
    """

    def __init__(self, bus: IBus, reactor: IReactorTime, timeout: float) -> None:
        self._bus = bus
        self._reactor = reactor
        self._timeout = timeout
        self._publisher: IPublisher | None = None
        self._opening: Deferred[None] | None = None
        # What waits for a connection, and whom to tell that the broker has what went out, in order.
        self._waiting: list[tuple[str, bytes, Deferred[None]]] = []
        self._sent: deque[Deferred[None]] = deque()

    def publish(self, topic: str, payload: bytes) -> Deferred[None]:
        """
        :return: fires when the broker has it, and fails with :exc:`~txrealtime.errors.BusError` when
            that is not so, or not known.
        """
        said: Deferred[None] = Deferred()
        if len(self._waiting) + len(self._sent) >= _MAX_WAITING:
            said.errback(BusError(f"{_MAX_WAITING} messages wait for {self._bus.name} already"))
        elif self._publisher is not None:
            self._send(self._publisher, topic, payload, said)
        else:
            self._waiting.append((topic, payload, said))
            if self._opening is None:
                opening = self._bus.openPublisher(self._reactor, self)
                opening.addTimeout(self._timeout, self._reactor)
                opened = opening.addCallbacks(self._opened, self._failed)
                if self._waiting:  # it takes its time
                    self._opening = opened
        return said

    def _send(self, publisher: IPublisher, topic: str, payload: bytes, said: Deferred[None]) -> None:
        self._sent.append(said)
        publisher.publish(topic, payload)

    def _opened(self, publisher: IPublisher) -> None:
        self._publisher, self._opening = publisher, None
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._send(publisher, *message)

    def _failed(self, failure: Failure) -> None:
        self._opening = None
        waiting, self._waiting = self._waiting, []
        late = failure.check(TimeoutError)
        why = f"no answer within {self._timeout:g} s" if late else failure.getErrorMessage()
        for _, _, said in waiting:
            said.errback(BusError(f"{self._bus.name}: {why}"))

    # -- IPublisherOwner ---------------------------------------------------------------

    def confirmed(self) -> None:
        publisher = self._publisher
        while publisher is not None and len(self._sent) > publisher.unconfirmed:
            self._sent.popleft().callback(None)

    def refused(self, reason: str) -> None:
        self.confirmed()
        if self._sent:
            self._sent.popleft().errback(BusError(f"{self._bus.name} refused a message: {reason}"))

    def lost(self, reason: str) -> None:
        self.confirmed()
        self._publisher = None
        sent, self._sent = self._sent, deque()
        for said in sent:
            said.errback(BusError(f"{self._bus.name} may not have got it: {reason}"))

    # -- the end -----------------------------------------------------------------------

    def close(self) -> Deferred[None]:
        """Disconnect; the Deferred fires when that is done, and the broker has everything."""
        if self._opening is not None:
            return self._opening.addCallback(lambda _: self.close())
        publisher = self._publisher
        if publisher is None:
            return succeed(None)
        return publisher.close().addCallback(lambda _: self._closed())

    def _closed(self) -> None:
        self.confirmed()
        self.lost("the connection was closed")
