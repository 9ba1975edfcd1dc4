"""
The publishing half of a link: messages handed to the broker, and the queue of those that wait for it.

:class:`~txrealtime.cluster.link.link.Link` has one :class:`Outgoing`.  It never reads a message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from txrealtime.cluster.bus.interfaces import IBus, IPublisher, IPublisherOwner
from txrealtime.cluster.link.counts import Journal
from txrealtime.cluster.link.reconnecting import Backoff, Reconnecting
from txrealtime.errors import BusError

__all__ = ["Outgoing"]

WINDOW = 256 * 1024
"""
Bytes that the broker may have unconfirmed.  Further messages wait in the queue, where they are not lost with
the connection.
"""

OVERHEAD = 100
"Bytes that each waiting message counts beside its topic and payload, so that empty ones are bounded too."

STOP_WITHIN = 2.0
"Seconds that the broker has to take the queue when the link is stopped."


@implementer(IPublisherOwner)
class Outgoing:
    """
    A queue of messages, each handed to the broker in order and at most once.

    :param limit: bytes that may wait.  Above it the oldest messages are dropped: the newest tell the current
        state.
    :param changed: called with ``""`` when there is a connection, and with the reason when there is none.
    :ivar settle: seconds to wait between the first heartbeat that comes back and :meth:`proven`.  After an
        outage of the broker, other servers need that time to subscribe again.
    """

    def __init__(
        self,
        bus: IBus,
        reactor: IReactorTime,
        backoff: Backoff,
        limit: int,
        journal: Journal,
        changed: Callable[[str], None],
    ) -> None:
        self.limit = limit
        self.reconnecting: Reconnecting[IPublisher] = Reconnecting(
            reactor, backoff, lambda: bus.openPublisher(reactor, self), self._opened, self._ended
        )
        self.settle = 0.0
        self._reactor = reactor
        self._backoff = backoff
        self._journal = journal
        self._counts = journal.counts
        self._changed = changed
        self._publisher: IPublisher | None = None
        self._outlet: IPublisher | None = None  # the publisher, once it is proven
        self._closing = False  # true while a stopped connection hands out the rest of the queue
        self._starting = False  # true if start() was called meanwhile
        self._waiting: deque[tuple[str, bytes, Deferred[None] | None]] = deque()
        self._size = 0

    @property
    def open(self) -> bool:
        """True if there is a connection."""
        return self._publisher is not None

    @property
    def isWaiting(self) -> bool:
        """True if messages wait for the broker."""
        return bool(self._waiting)

    # -- messages ----------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        """Hand a message to the broker, or queue it."""
        outlet = self._outlet
        if outlet is not None and not self._waiting and outlet.pending < WINDOW:
            self._counts.published += 1
            outlet.publish(topic, payload, answer)
            return
        self._waiting.append((topic, payload, answer))
        self._size += len(topic) + len(payload) + OVERHEAD
        while self._size > self.limit:
            _, _, dropped = self._pop()
            self._counts.dropped += 1
            self._journal.complain("{bus} takes no messages, and the queue is full: the oldest are dropped")
            if dropped is not None:
                dropped.errback(BusError(f"the queue of {self.limit} bytes for the broker is full"))

    def beat(self, topic: str, payload: bytes) -> None:
        """Send a heartbeat at once, past the queue.  Without a connection, do nothing."""
        if self._publisher is not None:
            self._publisher.beat(topic, payload)

    def _pop(self) -> tuple[str, bytes, Deferred[None] | None]:
        topic, payload, _ = message = self._waiting.popleft()
        self._size -= len(topic) + len(payload) + OVERHEAD
        return message

    def _hand(self, publisher: IPublisher) -> None:
        self._counts.published += 1
        publisher.publish(*self._pop())

    def confirmed(self) -> None:
        """Called when the broker has confirmed messages: hand out more of the queue."""
        outlet = self._outlet
        while self._waiting and outlet is not None and outlet.pending < WINDOW:
            self._hand(outlet)

    def refused(self, reason: str) -> None:
        """Called when the broker has refused a message: count it."""
        self._counts.refused += 1
        self._journal.complain("{bus} refused a message: {why}", reason)
        self.confirmed()

    # -- the connection ----------------------------------------------------------------

    def start(self) -> None:
        """
        Connect.

        After a stop, wait until that is done, so that no new message overtakes the old queue.
        """
        self._starting = self._closing
        if not self._closing:
            self.reconnecting.start()

    def lost(self, reason: str) -> None:
        """Called when the connection has ended by itself."""
        self.reconnecting.lost(reason)

    def _opened(self, publisher: IPublisher) -> None:
        self._publisher = publisher
        self._changed("")

    def proven(self) -> None:
        """Called when a heartbeat has come back, so the broker takes messages: hand out the queue."""
        self.reconnecting.proven()
        self.settle = 0.0
        self._outlet = self._publisher
        self.confirmed()

    def _ended(self, reason: str) -> None:
        publisher, self._publisher, self._outlet = self._publisher, None, None
        if publisher is not None:
            self.settle = self._backoff.settle
            self._counts.unconfirmed += publisher.unconfirmed
        self._changed(reason)

    def stop(self) -> Deferred[None]:
        """
        Hand out the queue, and disconnect.

        :return: fires when the broker has confirmed all messages, or after ``STOP_WITHIN`` seconds.
        """
        self.settle = 0.0
        self._starting = False
        self._publisher = self._outlet = None
        publisher = self.reconnecting.stop()
        if publisher is None:
            closed: Deferred[None] = succeed(None)
        else:
            while self._waiting:
                self._hand(publisher)
            self._closing = True
            closed = publisher.close().addTimeout(STOP_WITHIN, self._reactor)
            closed.addErrback(lambda failure: None)  # late or cut: the unconfirmed messages are counted
            closed.addCallback(lambda result: self._closed(publisher))
        self._counts.dropped += len(self._waiting)
        self._waiting.clear()
        self._size = 0
        return closed

    def _closed(self, publisher: IPublisher) -> None:
        self._counts.unconfirmed += publisher.unconfirmed
        self._closing = False
        if self._starting:
            self.start()
