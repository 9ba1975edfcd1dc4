"""
The watched connection of this server to the broker.

A broker may be gone, hang, refuse, or have cut one of our connections without a word.  So a link has a
status, watched by a heartbeat: a message on a private topic that must come back through the broker, for the
first time before the link is ready.  A publisher neither waits for the broker nor fails with it.

:class:`~txrealtime.cluster.cluster.Cluster` makes a link of a bus;
:class:`~txrealtime.cluster.conversation.Conversation` publishes and subscribes on it.  A link knows topics
and bytes, and nothing of dialects.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater

from txrealtime.cluster.bus.interfaces import IBus, IKeepingBus, Subscription
from txrealtime.cluster.link.counts import Counts, Journal
from txrealtime.cluster.link.incoming import Incoming, Receiver
from txrealtime.cluster.link.outgoing import Outgoing
from txrealtime.cluster.link.reconnecting import Backoff
from txrealtime.errors import BusError
from txrealtime.logs import Logger

__all__ = ["Link", "LinkStatus"]

_log = Logger()


GRACE = 1.0
"Seconds by which a heartbeat's timer may be late, and that are added once when it was later."


class LinkStatus(StrEnum):
    """The status of a link."""

    CONNECTING = "connecting"
    "Started, and not ready yet."
    READY = "ready"
    "All subscriptions are confirmed, messages go out, and the heartbeat comes back."
    DEAF = "deaf"
    "Ready before, but not now: messages that other servers publish meanwhile may be lost for this one."
    STOPPED = "stopped"
    "Not started, or stopped."
    PARTLY = "partly"
    "Of several links, some are ready: only the topics of the others suffer."

    @property
    def carries(self) -> bool:
        """True if messages are carried: of all topics, or of those whose brokers are ready."""
        return self is LinkStatus.READY or self is LinkStatus.PARTLY


class Link:
    """
    A link to the topics of a bus.

    Messages go out in order, and each at most once.  While the broker does not take them they wait, up to
    a limit; then the oldest are dropped.  Losses are counted, and logged in total when the outage is over.

    :param maxMessage: bytes.  A larger message is neither published nor delivered.
    :param maxQueued: bytes that may wait for the broker.
    :param heartbeat: seconds between heartbeats.
    :param heartbeatTimeout: seconds within which a heartbeat must come back.  If it does not, both
        connections are made anew.
    :param backoff: the delays before reconnecting and before publishing again.
    :param prefix: the beginning of the private topic, for brokers that permit certain topics only.
    :ivar status: the :class:`LinkStatus`.
    :ivar reason: the cause of the status, for logs and health checks.
    :ivar trimmed: called when the broker has thrown away messages before this server read them.
    """

    def __init__(
        self,
        bus: IBus,
        reactor: IReactorTime,
        *,
        maxMessage: int = 2_000_000,
        maxQueued: int = 4_000_000,
        heartbeat: float = 5.0,
        heartbeatTimeout: float = 5.0,
        backoff: Backoff | None = None,
        prefix: str = "txrealtime",
    ) -> None:
        self.bus = bus
        self.maxMessage = maxMessage
        self.status = LinkStatus.STOPPED
        self.reason = "not started"
        self._reactor = reactor
        self._heartbeat = heartbeat
        self._heartbeatTimeout = heartbeatTimeout
        self._watchers: list[Callable[[LinkStatus], object]] = []
        self._whenReady: list[Deferred[None]] = []
        self._since = 0.0  # the time at which the link became deaf
        self._journal = Journal(bus.name)
        backoff = backoff or Backoff()
        self._outgoing = Outgoing(bus, reactor, backoff, maxQueued, self._journal, self._changed)
        self._incoming = Incoming(bus, reactor, backoff, maxMessage, self._journal, self._changed)
        self._beats = 0
        self._beating: IDelayedCall | None = None
        self._topic = f"{prefix}-heartbeat-{uuid4().hex}"
        self._beat = Subscription(self._topic, False, self._beatReturned)
        self._beat.trimmed = self._trimmed
        self.trimmed: Callable[[], object] = lambda: None
        self._incoming.add(self._beat)

    @property
    def counts(self) -> Counts:
        """The counts of messages and losses: always the same object, which goes on counting."""
        return self._journal.counts

    # -- messages ----------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        """
        Send a message to all subscribers of a topic, this server included if it is one.

        While the broker does not take it, the message waits: see :class:`Link`.

        :param answer: as that of :meth:`IPublisher.publish`; fails as well if the message is dropped.
        :raises ValueError: if the payload is larger than ``maxMessage``.
        """
        if len(payload) > self.maxMessage:
            raise ValueError(
                f"a message of {len(payload)} bytes is too large for the other servers: the limit "
                f"is {self.maxMessage} (maxMessage)"
            )
        if self.status is LinkStatus.STOPPED:
            self.counts.dropped += 1
        else:
            self._outgoing.publish(topic, payload, answer)

    def beat(self, topic: str, payload: bytes) -> None:
        """Send a heartbeat of another link at once.  Without a connection, do nothing."""
        self._outgoing.beat(topic, payload)

    def subscribe(
        self,
        topic: str,
        receive: Receiver,
        pattern: bool = False,
        counted: bool = False,
        late: Receiver | None = None,
    ) -> None:
        """
        Receive the messages of a topic, on each connection from now on.

        :param receive: called with the topic and the payload of each message.
        :param pattern: true if `topic` is a pattern of topics: see :class:`Subscription`.
        :param counted: true if other servers count the subscribers: see :class:`Subscription`.
        :param late: called instead of `receive` with the messages of an outage, which a bus that keeps
            messages delivers when the outage is over; by default `receive`.
        :raises ValueError: if the topic is subscribed to already, or the broker has no patterns.
        """
        if topic in self._incoming:
            raise ValueError(f"{topic!r} has been subscribed to already")
        if pattern and not self.bus.patterns:
            raise ValueError(f"{self.bus.name} has no patterns, so nobody can subscribe to {topic!r}")
        if counted:
            # A hub may have a connection to the broker for these topics: the heartbeat watches it.
            self._beat.counted = True
        self._incoming.subscribe(topic, receive, pattern, counted, late)

    def unsubscribe(self, topic: str) -> None:
        """Stop receiving the messages of a topic.  Without a subscription, do nothing."""
        self._incoming.unsubscribe(topic)

    def whenSubscribed(self, topic: str) -> Deferred[None]:
        """
        Wait for the broker's confirmation of a subscription.

        :return: fires when the broker has confirmed it, at once if it has; fails with
            :exc:`~txrealtime.errors.BusError` if it is unsubscribed from or the link is stopped before.
        """
        return self._incoming.whenConfirmed(topic)

    def countSubscribers(self, topic: str) -> Deferred[int]:
        """
        Count the connections that are subscribed to a topic, this server's included.

        :return: fires with the number; fails with :exc:`~txrealtime.errors.BusError` if the broker does not
            count them, or there is no connection.
        """
        publisher = self._outgoing.reconnecting.connection
        if publisher is None:
            return fail(BusError(f"the link to {self.bus.name} is {self.status.value}"))
        return publisher.countSubscribers(topic)

    @property
    def place(self) -> str:
        """The id of the last message that a bus which keeps messages has delivered."""
        bus: Any = self.bus
        place: str = bus.placeOf(self._incoming.reconnecting.lost)
        return place

    def placeOf(self, topic: str) -> str:
        """Return the id of the last message delivered, on a bus that has several places, for a topic."""
        bus: Any = self.bus
        place: str = bus.placeOf(self._incoming.reconnecting.lost, topic)
        return place

    @property
    def isWaiting(self) -> bool:
        """True if messages wait for the broker."""
        return self._outgoing.isWaiting

    def command(self, *words: str | bytes) -> Deferred[Any]:
        """
        Send a command to a broker that keeps messages: see :class:`IKeepingPublisher`.

        A command fails with its connection, but not before the link is deaf.
        """
        publisher: Any = self._outgoing.reconnecting.connection
        if publisher is None:
            return fail(BusError(f"the link to {self.bus.name} is {self.status.value}"))
        replied: Deferred[Any] = publisher.command(*words)
        return replied.addErrback(lambda failure: deferLater(self._reactor, 0, lambda: failure))

    # -- status ------------------------------------------------------------------------

    def carries(self, *topics: str) -> bool:
        """Return true if the link is ready by which these topics are published and heard."""
        return self.status is LinkStatus.READY

    def watch(self, callback: Callable[[LinkStatus], object]) -> None:
        """Call a function with the new status at each change from now on."""
        self._watchers.append(callback)

    def whenReady(self) -> Deferred[None]:
        """
        Wait until the link is ready.

        :return: fires when the link is ready, at once if it is; fails with
            :exc:`~txrealtime.errors.BusError` if the link is stopped before.
        """
        if self.status is LinkStatus.READY:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._whenReady.remove)
        self._whenReady.append(waiting)
        return waiting

    def start(self) -> None:
        """Connect, and stay connected.  If the link has been started, do nothing."""
        if self.status is LinkStatus.STOPPED:
            self._become(LinkStatus.CONNECTING, "connecting")
            self._outgoing.start()
            self._incoming.reconnecting.start()

    def stop(self) -> Deferred[None]:
        """
        Hand out the queue, and disconnect.

        :return: fires when the broker has confirmed all messages, or after two seconds.
        """
        if self.status is LinkStatus.STOPPED:
            return succeed(None)
        self._stopBeating()
        self._become(LinkStatus.STOPPED, "stopped")
        self._incoming.stop()
        waiting, self._whenReady = self._whenReady, []
        for deferred in waiting:
            deferred.errback(BusError("the link was stopped"))
        return self._outgoing.stop().addCallback(self._stopped)

    def _stopped(self, result: None) -> None:
        text = "the link to {bus} is stopped. Lost messages of this server: {lost}"
        _log.info(text, bus=self.bus.name, lost=self._journal.losses())

    def _changed(self, problem: str) -> None:
        """Called when a half of the link has connected, with ``""``, or has a problem."""
        if self.status is LinkStatus.STOPPED:
            return
        if problem:
            self._notReady(problem)
        elif self._outgoing.open and self._incoming.open:
            self._sendBeat()  # not ready yet: a broker may accept connections and take no message

    def _notReady(self, problem: str) -> None:
        self._stopBeating()
        if self.status is LinkStatus.READY:
            self.counts.outages += 1
            self._since = self._reactor.seconds()
            _log.warn("the link to {bus} is deaf: {why}", bus=self.bus.name, why=problem)
            self._become(LinkStatus.DEAF, problem)
        else:
            self._journal.complain("no link to {bus}: {why}", problem)
            self.reason = problem

    def _becomeReady(self) -> None:
        self._beating = self._reactor.callLater(self._heartbeat, self._sendBeat)
        self._outgoing.proven()
        self._incoming.reconnecting.proven()
        self._journal.over()
        if self.status is LinkStatus.DEAF:
            duration = self._reactor.seconds() - self._since
            self.counts.deafFor += duration
            reason = f"ready again after {duration:.1f} s"
            _log.warn(
                "the link to {bus} is {reason}. Lost messages of this server: {lost}. "
                "Messages that other servers published meanwhile {arrive}",
                arrive="arrive now" if IKeepingBus.providedBy(self.bus) else "may not have arrived",
                bus=self.bus.name,
                reason=reason,
                lost=self._journal.losses(),
            )
        else:
            reason = "ready"
            _log.info("the link to {bus} is ready", bus=self.bus.name)
        self._become(LinkStatus.READY, reason)
        waiting, self._whenReady = self._whenReady, []
        for deferred in waiting:
            deferred.callback(None)

    def _become(self, status: LinkStatus, reason: str) -> None:
        self.status, self.reason = status, reason
        for callback in list(self._watchers):
            try:
                callback(status)
            except Exception:
                _log.failure("a watcher of the link failed")

    def _trimmed(self, count: int) -> None:
        """Called when the broker has thrown away messages before this server read them."""
        self.counts.trimmed += count
        self._journal.complain(
            "{bus} has trimmed messages that this server had not read (server.cluster.link.counts.trimmed): "
            "raise maxlen in the URL of the bus"
        )
        self.trimmed()

    # -- heartbeat ---------------------------------------------------------------------

    def _sendBeat(self) -> None:
        self._beats += 1
        self._outgoing.beat(self._topic, b"%d" % self._beats)
        self._incoming.ping()
        due = self._reactor.seconds() + self._heartbeatTimeout
        self._beating = self._reactor.callLater(self._heartbeatTimeout, self._beatMissing, due)

    def _beatReturned(self, topic: str, payload: bytes) -> None:
        if payload == b"%d" % self._beats and self._beating is not None:
            self._beating.cancel()
            if self.status is LinkStatus.READY:
                self._beating = self._reactor.callLater(self._heartbeat, self._sendBeat)
            else:  # the broker is well, but other servers may need as long to find out
                self._beating = self._reactor.callLater(self._outgoing.settle, self._becomeReady)

    def _beatMissing(self, due: float) -> None:
        now = self._reactor.seconds()
        if now > due + GRACE:
            # This process was busy or asleep: the heartbeat may have arrived and not been read yet.
            self._beating = self._reactor.callLater(GRACE, self._beatMissing, now + GRACE)
            return
        self._beating = None
        problem = f"the heartbeat did not come back within {self._heartbeatTimeout:g} s"
        self._outgoing.reconnecting.drop(problem)
        self._incoming.reconnecting.drop(problem)

    def _stopBeating(self) -> None:
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.cancel()
