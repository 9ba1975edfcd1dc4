"""
This server's link to the others, through a broker, and the truth about it.

A broker may be gone, hang, refuse, or have cut one of our connections without a word.  Here the
link is a state, watched by a heartbeat of its own: a message on a private topic, which must come back
through the broker, for the first time before the link is ready.  Whoever publishes neither waits for the
broker nor fails with it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from uuid import uuid4

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.cluster.bus.interfaces import IBus, Subscription
from txrealtime.cluster.link.counts import Counts, Journal
from txrealtime.cluster.link.incoming import Incoming, Receiver
from txrealtime.cluster.link.outgoing import Outgoing
from txrealtime.cluster.link.reconnecting import Backoff
from txrealtime.errors import BusError
from txrealtime.logs import Logger

__all__ = ["Link", "LinkStatus"]

_log = Logger()


GRACE = 1.0
"Seconds by which the timer of a heartbeat may be late, and that are granted when it was later."


class LinkStatus(StrEnum):
    """What is known of a link."""

    CONNECTING = "connecting"
    "It has not been ready yet."
    READY = "ready"
    "All subscriptions are confirmed, messages go out, and the heartbeat comes back."
    DEAF = "deaf"
    "It was ready, and is not: what other servers say meanwhile may be lost for this one."
    STOPPED = "stopped"
    "It was not started, or was stopped."


class Link:
    """
    A link to the topics of a bus.

    Messages go out in order, and each at most once.  While the broker does not take them, they wait, up to
    a limit; then the oldest are dropped.  What is lost here is counted, and logged in total when the
    outage is over.

    :param maxMessage: bytes.  A larger message is not published, and not delivered.
    :param maxQueued: bytes that may wait for the broker.
    :param heartbeat: seconds between heartbeats.
    :param heartbeatTimeout: seconds within which one must come back.  If it does not, both connections
        are made anew.
    :param backoff: when to connect again, and to go on publishing.
    :param prefix: how the private topic begins, where the broker lets us have certain topics only.
    :ivar status: the :class:`LinkStatus`.
    :ivar reason: what led to it: a text for logs and health checks.
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
        self._since = 0.0  # when it became deaf
        self._journal = Journal(bus.name)
        backoff = backoff or Backoff()
        self._outgoing = Outgoing(bus, reactor, backoff, maxQueued, self._journal, self._changed)
        self._incoming = Incoming(bus, reactor, backoff, maxMessage, self._journal, self._changed)
        self._beats = 0
        self._beating: IDelayedCall | None = None
        self._topic = f"{prefix}-heartbeat-{uuid4().hex}"
        self._incoming.add(Subscription(self._topic, False, self._beatReturned))

    @property
    def counts(self) -> Counts:
        """What went over it up to now.  The object is the same each time, and goes on counting."""
        return self._journal.counts

    # -- messages ----------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes) -> None:
        """
        Send a message to all who have subscribed to a topic, this server too if it has.

        It goes out when the broker takes it: see :class:`Link`.

        :raises ValueError: when the payload is larger than ``maxMessage``.
        """
        if len(payload) > self.maxMessage:
            raise ValueError(
                f"a message of {len(payload)} bytes is too large for the other servers: the limit "
                f"is {self.maxMessage} (maxMessage)"
            )
        if self.status is LinkStatus.STOPPED:
            self.counts.dropped += 1
        else:
            self._outgoing.publish(topic, payload)

    def subscribe(self, topic: str, receive: Receiver, pattern: bool = False) -> None:
        """
        Have the messages of a topic, now and after each time that the link was lost.

        :param receive: called with the topic and the payload of each.
        :param pattern: whether it is a pattern of topics: see :class:`Subscription`.
        :raises ValueError: when it has been subscribed to, or the broker has no patterns.
        """
        if topic in self._incoming:
            raise ValueError(f"{topic!r} has been subscribed to already")
        if pattern and not self.bus.patterns:
            raise ValueError(f"{self.bus.name} has no patterns, so nobody can subscribe to {topic!r}")
        self._incoming.subscribe(topic, receive, pattern)

    def unsubscribe(self, topic: str) -> None:
        """Have them no more.  Nothing happens when it was not subscribed to."""
        self._incoming.unsubscribe(topic)

    def whenSubscribed(self, topic: str) -> Deferred[None]:
        """
        :return: fires when the broker has confirmed that the messages of a topic come here, at once
            if it has; fails with :exc:`~txrealtime.errors.BusError` when it is unsubscribed from,
            or the link stopped, before.
        """
        return self._incoming.whenConfirmed(topic)

    def countSubscribers(self, topic: str) -> Deferred[int]:
        """
        :return: fires with how many connections are subscribed to a topic, ours included; fails with
            :exc:`~txrealtime.errors.BusError` when the broker does not tell, or cannot be asked now.
        """
        publisher = self._outgoing.line.connection
        if publisher is None:
            return fail(BusError(f"the link to {self.bus.name} is {self.status.value}"))
        return publisher.countSubscribers(topic)

    # -- status ------------------------------------------------------------------------

    def watch(self, callback: Callable[[LinkStatus], object]) -> None:
        """Call `callback` with the new status at each change from now on."""
        self._watchers.append(callback)

    def whenReady(self) -> Deferred[None]:
        """
        :return: fires when the link is ready, at once if it is; fails with
            :exc:`~txrealtime.errors.BusError` when it is stopped before.
        """
        if self.status is LinkStatus.READY:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._whenReady.remove)
        self._whenReady.append(waiting)
        return waiting

    def start(self) -> None:
        """Connect, and stay connected.  Nothing happens when it runs already."""
        if self.status is LinkStatus.STOPPED:
            self._become(LinkStatus.CONNECTING, "connecting")
            self._outgoing.start()
            self._incoming.line.start()

    def stop(self) -> Deferred[None]:
        """
        Say what waits, and disconnect.

        :return: fires when that is done; a broker that does not take it in two seconds does not get it.
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
        text = "the link to {bus} is stopped. Lost of what was published here: {lost}"
        _log.info(text, bus=self.bus.name, lost=self._journal.losses())

    def _changed(self, problem: str) -> None:
        """A part of the link is there, or there is a problem with it."""
        if self.status is LinkStatus.STOPPED:
            return
        if problem:
            self._notReady(problem)
        elif self._outgoing.open and self._incoming.open:
            self._sendBeat()  # a broker that lets us connect may yet take no message

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

    def _isReady(self) -> None:
        self._beating = self._reactor.callLater(self._heartbeat, self._sendBeat)
        self._outgoing.proven()
        self._incoming.line.proven()
        self._journal.over()
        if self.status is LinkStatus.DEAF:
            duration = self._reactor.seconds() - self._since
            self.counts.deafFor += duration
            reason = f"ready again after {duration:.1f} s"
            _log.warn(
                "the link to {bus} is {reason}. Lost of what was published here: {lost}. "
                "What other servers published meanwhile may not have come",
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
            else:  # the broker is well, and the others may know that no sooner than we do
                self._beating = self._reactor.callLater(self._outgoing.settle, self._isReady)

    def _beatMissing(self, due: float) -> None:
        now = self._reactor.seconds()
        if now > due + GRACE:
            # This process was busy or asleep: what has arrived meanwhile has not been read yet.
            self._beating = self._reactor.callLater(GRACE, self._beatMissing, now + GRACE)
            return
        self._beating = None
        problem = f"the heartbeat did not come back within {self._heartbeatTimeout:g} s"
        self._outgoing.line.drop(problem)
        self._incoming.line.drop(problem)

    def _stopBeating(self) -> None:
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.cancel()
