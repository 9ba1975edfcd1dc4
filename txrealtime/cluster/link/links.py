"""
The watched connections of this server to several brokers.

:class:`Links` has one :class:`~txrealtime.cluster.link.link.Link` for each broker, and the face of a single
link.  Each link is watched, reconnects and queues by itself, so a broker that is away takes its own topics
along and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.cluster.bus.spread import Buses
from txrealtime.cluster.link.counts import Counts
from txrealtime.cluster.link.incoming import Receiver
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.errors import BusError

__all__ = ["Links"]

_PATIENCE: Final = 2.0
"""
Seconds to wait for the last broker after the first is ready.  Servers greet each other once, when their links
are ready, and the greeting of one that has no link to a broker yet would be lost.
"""


class Links:
    """
    Links to several brokers, each with the topics that it owns.

    :param buses: the brokers.
    :param options: as for each :class:`~txrealtime.cluster.link.link.Link`.
    :ivar links: the links, in the order of the brokers.
    :ivar bus: the brokers.
    :ivar trimmed: never called: these brokers keep no messages.
    """

    def __init__(self, buses: Buses, reactor: IReactorTime, **options: Any) -> None:
        self.bus = buses
        self.links = [Link(bus, reactor, **options) for bus in buses.buses]
        self.maxMessage = self.links[0].maxMessage
        self.trimmed: Callable[[], object] = lambda: None
        self.status = LinkStatus.STOPPED
        self._reactor = reactor
        self._spread = buses.spread
        self._watchers: list[Callable[[LinkStatus], object]] = []
        self._whenReady: list[Deferred[None]] = []
        self._patience: IDelayedCall | None = None
        self._isPatient = True
        for link in self.links:
            link.watch(self._changed)

    # -- messages ----------------------------------------------------------------------

    def _ownerOf(self, topic: str) -> tuple[Link, str]:
        """Return the link by which a topic is published, and the topic's name there."""
        spread = self._spread
        if topic in spread.controls:
            return self.links[spread.controls.index(topic)], spread.key
        return self.links[spread.ownerOf(topic)], topic

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        """Send a message to all subscribers of a topic: see :meth:`Link.publish`."""
        link, name = self._ownerOf(topic)
        link.publish(name, payload, answer)

    def subscribe(
        self,
        topic: str,
        receive: Receiver,
        pattern: bool = False,
        counted: bool = False,
        late: Receiver | None = None,
    ) -> None:
        """Receive the messages of a topic: see :meth:`Link.subscribe`."""
        if pattern:
            raise ValueError(f"several brokers have no patterns, so nobody can subscribe to {topic!r}")
        for place in self._spread.placesOf(topic):
            self.links[place].subscribe(topic, receive, False, counted, late)

    def unsubscribe(self, topic: str) -> None:
        """Stop receiving the messages of a topic.  Without a subscription, do nothing."""
        for place in self._spread.placesOf(topic):
            self.links[place].unsubscribe(topic)

    def whenSubscribed(self, topic: str) -> Deferred[None]:
        """Wait for the confirmation of a subscription by each broker at which it is made."""
        waits = [self.links[place].whenSubscribed(topic) for place in self._spread.placesOf(topic)]
        if len(waits) == 1:
            return waits[0]
        together = gatherResults(waits, consumeErrors=True)
        return together.addCallbacks(lambda _: None, lambda failure: failure.value.subFailure)

    def countSubscribers(self, topic: str) -> Deferred[int]:
        """Count the connections that are subscribed to a topic: see :meth:`Link.countSubscribers`."""
        link, name = self._ownerOf(topic)
        return link.countSubscribers(name)

    @property
    def isWaiting(self) -> bool:
        """True if messages wait for a broker."""
        return any(link.isWaiting for link in self.links)

    # -- status ------------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        """The counts of all links together, as they are now."""
        total = Counts()
        for field in fields(Counts):
            setattr(total, field.name, sum(getattr(link.counts, field.name) for link in self.links))
        return total

    @property
    def reason(self) -> str:
        """The cause of the status: the brokers that are not ready, with their reasons."""
        away = [link for link in self.links if link.status is not LinkStatus.READY]
        return "; ".join(f"{link.bus.name}: {link.reason}" for link in away) or "ready"

    def carries(self, *topics: str) -> bool:
        """Return true if the links are ready by which these topics are published and heard."""
        links = {self._ownerOf(topic)[0] for topic in topics}
        return self.status.carries and all(link.status is LinkStatus.READY for link in links)

    def watch(self, callback: Callable[[LinkStatus], object]) -> None:
        """Call a function with the status whenever that of a link has changed, from now on."""
        self._watchers.append(callback)

    def whenReady(self) -> Deferred[None]:
        """
        Wait until messages are carried.

        :return: fires when all links are ready, or some are and the others let wait for two seconds; fails
            with :exc:`~txrealtime.errors.BusError` if the links are stopped before.
        """
        if self.status.carries:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._whenReady.remove)
        self._whenReady.append(waiting)
        return waiting

    def start(self) -> None:
        """Connect to each broker, and stay connected."""
        self._isPatient = True
        for link in self.links:
            link.start()

    def stop(self) -> Deferred[None]:
        """
        Hand out the queues, and disconnect.

        :return: fires when the brokers have confirmed all messages, or after two seconds.
        """
        self._forgetPatience()
        waiting, self._whenReady = self._whenReady, []
        stopping = DeferredList([link.stop() for link in self.links])
        for deferred in waiting:
            deferred.errback(BusError("the link was stopped"))
        return stopping.addCallback(lambda _: None)

    def _forgetPatience(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.cancel()

    def _changed(self, _: LinkStatus) -> None:
        """Called when the status of a link has changed."""
        statuses = [link.status for link in self.links]
        isReady = LinkStatus.READY in statuses
        if len(set(statuses)) == 1:
            self._forgetPatience()
            self._isPatient = not isReady
            self._become(statuses[0])
        elif not isReady:
            self._forgetPatience()
            self._isPatient = True
            self._become(LinkStatus.DEAF if LinkStatus.DEAF in statuses else LinkStatus.CONNECTING)
        elif not self._isPatient:
            self._become(LinkStatus.PARTLY)
        elif self._patience is None:
            self._patience = self._reactor.callLater(_PATIENCE, self._waitNoLonger)

    def _waitNoLonger(self) -> None:
        self._patience = None
        self._isPatient = False
        self._become(LinkStatus.PARTLY)

    def _become(self, status: LinkStatus) -> None:
        self.status = status
        for callback in list(self._watchers):
            callback(status)
        if status.carries:
            waiting, self._whenReady = self._whenReady, []
            for deferred in waiting:
                deferred.callback(None)
