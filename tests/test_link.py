"""
The link to other servers: its status, its queue and its counts, over a broker in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.streams import NativeBus, NativeHub
from txrealtime.cluster.bus import memory as bus
from txrealtime.cluster.bus.interfaces import IPublisherOwner, Subscription
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
from txrealtime.cluster.link import incoming, outgoing
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.reconnecting import Backoff
from txrealtime.errors import BusError

BACKOFF = Backoff(first=0.25, last=0.8, timeout=5.0, settle=1.0)


class LinkTestCase(SynchronousTestCase):
    """
    Two servers on a hub: `link` publishes, `other` receives.  Only the other has started.
    """

    def setUp(self) -> None:
        self.logged: list[tuple[LogLevel, str]] = []
        observer = lambda event: self.logged.append((event["log_level"], formatEvent(event)))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.clock = Clock()
        self.hub = MemoryHub()
        self.heard: list[int] = []
        self.statuses: list[LinkStatus] = []
        self.link = self.makeLink()
        self.link.watch(self.statuses.append)
        self.other = self.makeLink()
        self.other.subscribe("t", lambda topic, payload: self.heard.append(int(payload.split()[0])))
        self.other.start()
        self.clock.advance(0)

    def makeLink(self, way: MemoryBus | None = None, **options: Any) -> Link:
        link = Link(way or MemoryBus(self.hub), self.clock, backoff=BACKOFF, **options)

        self.addCleanup(lambda: self.clock.advance(10))
        self.addCleanup(link.stop)
        return link

    def ready(self, link: Link | None = None) -> Link:
        link = link or self.link
        link.start()
        self.clock.advance(0)
        self.assertIs(link.status, LinkStatus.READY)
        return link

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.link.publish("t", b"%d" % number)

    def assertHeard(self, *numbers: int) -> None:
        self.clock.advance(0)
        self.assertEqual(self.heard, list(numbers))

    def elapse(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def subscriptionsAreNotAnswered(self) -> list[Deferred[None]]:
        """Have the hub accept subscriptions and leave the answers to the caller, by these Deferreds."""
        asked: list[Deferred[None]] = []
        take = bus._Subscriber.subscribe

        def subscribe(subscriber: bus._Subscriber, subscription: Subscription) -> Deferred[None]:
            take(subscriber, subscription)
            asked.append(Deferred())
            return asked[-1]

        self.patch(bus._Subscriber, "subscribe", subscribe)
        return asked

    def nothingIsTaken(self) -> Callable[[], None]:
        """
        Have the hub let our link connect and subscribe, but ignore its messages.

        :return: a function that ends this.
        """

        def leaving(take: Callable[..., None]) -> Callable[..., None]:
            def leave(publisher: bus._Publisher, *message: Any) -> None:
                if publisher._owner is not self.link._outgoing:
                    take(publisher, *message)

            return leave

        patches = [
            self.patch(bus._Publisher, name, leaving(getattr(bus._Publisher, name)))
            for name in ("_taken", "_beaten")
        ]

        def over() -> None:
            for patch in patches:
                patch.restore()

        return over

    def warnings(self, text: str = "") -> list[str]:
        """Return the log lines from warnings on, if they have this text."""
        return [line for level, line in self.logged if level >= LogLevel.warn and text in line]


class StatusTests(LinkTestCase):
    def test_start(self) -> None:
        self.assertEqual((self.link.status, self.link.reason), (LinkStatus.STOPPED, "not started"))
        ready = self.link.whenReady()
        self.link.start()
        self.link.start()
        self.assertIs(self.link.status, LinkStatus.CONNECTING)
        self.assertNoResult(ready)
        self.clock.advance(0)
        self.successResultOf(ready)
        self.successResultOf(self.link.whenReady())
        self.assertEqual(self.statuses, [LinkStatus.CONNECTING, LinkStatus.READY])
        self.assertEqual((len(self.hub.publishers), len(self.hub.subscribers)), (2, 2))
        self.assertEqual(self.warnings(), [])

    def test_notReadyBeforeAllIsConfirmed(self) -> None:
        asked = self.subscriptionsAreNotAnswered()
        self.link.subscribe("a", print)
        self.link.start()
        self.clock.advance(0)
        self.assertEqual(len(asked), 2)
        asked[0].callback(None)
        self.link.subscribe("b", print)
        asked[1].callback(None)
        self.assertIs(self.link.status, LinkStatus.CONNECTING)
        asked[2].callback(None)
        self.clock.advance(0)
        self.assertIs(self.link.status, LinkStatus.READY)

    def test_neverConfirmed(self) -> None:
        self.subscriptionsAreNotAnswered()
        self.link.start()
        self.elapse(BACKOFF.timeout + 0.1)
        self.assertEqual(self.link.reason, "no answer within 5 s")
        self.assertIs(self.link.status, LinkStatus.CONNECTING)
        self.assertEqual(len(self.hub.subscribers), 1)

    def test_slowlyConfirmed(self) -> None:
        """Only the time without an answer counts, not the time for all."""
        asked = self.subscriptionsAreNotAnswered()
        for topic in "abcdef":
            self.link.subscribe(topic, print)
        self.link.start()
        self.clock.advance(0)
        for confirmed in asked[:-1]:
            self.elapse(BACKOFF.timeout - 0.2)
            self.assertEqual((self.link.status, self.link.reason), (LinkStatus.CONNECTING, "connecting"))
            confirmed.callback(None)
        self.elapse(BACKOFF.timeout + 0.1)
        self.assertEqual(self.link.reason, "no answer within 5 s")
        self.assertEqual(len(self.hub.subscribers), 1)

    def test_stoppedBeforeAllIsConfirmed(self) -> None:
        self.subscriptionsAreNotAnswered()
        self.link.start()
        self.clock.advance(0)
        self.successResultOf(self.link.stop())
        self.assertEqual(len(self.hub.subscribers), 1)
        self.elapse(BACKOFF.timeout + 0.1)
        self.assertEqual(self.link.reason, "stopped")

    def test_cutBeforeAllIsConfirmed(self) -> None:
        asked = self.subscriptionsAreNotAnswered()
        self.link.start()
        self.clock.advance(0)
        self.hub.cutSubscribers()
        self.assertEqual(self.link.reason, "the hub has cut it")
        self.elapse(1)
        asked[0].callback(None)  # of the connection that is gone
        self.assertIs(self.link.status, LinkStatus.CONNECTING)
        for confirmed in asked[1:]:
            confirmed.callback(None)
        self.clock.advance(0)
        self.assertIs(self.link.status, LinkStatus.READY)

    def test_brokerIsNotThere(self) -> None:
        self.other.stop()
        self.hub.stop()
        link = self.makeLink()
        link.start()
        self.elapse(10)
        self.assertEqual((link.status, link.reason), (LinkStatus.CONNECTING, "the hub is stopped"))
        self.assertEqual(len(self.warnings("no link to memory: the hub is stopped")), 1)
        self.hub.start()
        self.elapse(1)
        self.assertEqual((link.status, link.counts.outages), (LinkStatus.READY, 0))

    def test_outage(self) -> None:
        self.ready()
        self.hub.stop()
        self.assertEqual((self.link.status, self.link.counts.outages), (LinkStatus.DEAF, 1))
        self.assertEqual(len(self.warnings("the link to memory is deaf: the hub")), 2)
        ready = self.link.whenReady()
        self.elapse(3)
        self.hub.start()
        # The recovery takes no longer than the longest delay and a second.
        self.elapse(BACKOFF.last + BACKOFF.settle + 0.1)
        self.successResultOf(ready)
        self.assertRegex(self.link.reason, r"^ready again after [345]\.\d s$")
        self.assertEqual(len(self.warnings("is ready again after")), 2)
        self.assertEqual(len(self.warnings("this server: nothing")), 2)
        self.assertTrue(3 < self.link.counts.deafFor < 5)
        expected = [LinkStatus.CONNECTING, LinkStatus.READY, LinkStatus.DEAF, LinkStatus.READY]
        self.assertEqual(self.statuses, expected)

    def test_everyOutageIsLogged(self) -> None:
        self.ready()
        for count in range(1, 4):
            self.hub.cutSubscribers()
            self.elapse(2)
            self.assertEqual(self.link.counts.outages, count)
            self.assertEqual(len(self.warnings("is deaf: the hub has cut it")), 2 * count)
            self.assertEqual(len(self.warnings("is ready again")), 2 * count)

    def test_theReasonIsLoggedOnceInAnOutage(self) -> None:
        self.hub.stop()
        self.logged.clear()
        for number in range(30):
            self.other._changed(f"reason {number}")
            self.other._changed("reason 0")
        self.assertLessEqual(len(self.warnings("reason 0")), 1)
        self.assertLessEqual(len(self.warnings()), 10)

    def test_watcherRaises(self) -> None:
        link = self.makeLink()
        link.watch(lambda status: 1 / 0)
        heard: list[LinkStatus] = []
        link.watch(heard.append)
        self.ready(link)
        link.stop()
        self.assertEqual(heard, [LinkStatus.CONNECTING, LinkStatus.READY, LinkStatus.STOPPED])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_stop(self) -> None:
        waiting = self.link.whenReady()
        self.successResultOf(self.link.stop())  # without effect: the link does not run
        self.assertNoResult(waiting)
        self.successResultOf(self.ready().stop())
        self.assertIs(self.statuses[-1], LinkStatus.STOPPED)
        self.assertEqual((len(self.hub.publishers), len(self.hub.subscribers)), (1, 1))
        self.other.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopWhileItConnects(self) -> None:
        for seconds in (0.0, 0.1, 0.3, 1.0):
            self.hub.stop()
            link = self.makeLink()
            link.subscribe("t", print)
            link.start()
            self.elapse(seconds)
            self.hub.start()
            waiting = [link.whenReady(), link.whenSubscribed("t")]
            cancelled = link.whenReady()
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
            self.successResultOf(link.stop())
            for deferred in waiting:
                self.failureResultOf(deferred, BusError)

    def test_startedAgain(self) -> None:
        self.link.subscribe("a", print)
        self.ready()
        self.successResultOf(self.link.stop())
        self.ready()
        self.say(1)
        self.assertHeard(1)
        self.successResultOf(self.link.whenSubscribed("a"))


class CommandTests(LinkTestCase):
    """
    Commands to a broker that keeps messages.
    """

    def test_fails(self) -> None:
        """A command fails with its connection when the link is deaf, so its caller can wait for the next."""
        hub = NativeHub()
        for end in ("the broker ends it", "the heartbeat is missing"):
            link = self.ready(self.makeLink(NativeBus(hub)))
            hub.pause()
            statuses: list[LinkStatus] = []
            failing = link.command("GET", "a key").addErrback(
                lambda failure, link=link, s=statuses: s.append(link.status)
            )
            if end == "the broker ends it":
                hub.stop()
            self.elapse(11)
            self.assertEqual(statuses, [LinkStatus.DEAF], end)
            self.successResultOf(failing)
            hub.start()
            hub.resume()
            self.elapse(3)
            replied = link.command("GET", "a key")
            self.clock.advance(0)
            self.assertIsNone(self.successResultOf(replied))


class OutgoingTests(LinkTestCase):
    def test_inOrder(self) -> None:
        self.link.start()
        self.say(1, 2)
        self.assertEqual(self.link.counts.published, 0)
        self.ready()
        self.say(3)
        self.assertHeard(1, 2, 3)
        self.assertEqual((self.link.counts.published, self.other.counts.received), (3, 3))

    def test_tooLarge(self) -> None:
        link = self.makeLink(maxMessage=10)
        link.publish("t", b"x" * 10)
        self.assertRaisesRegex(ValueError, "11 bytes.*limit is 10 .maxMessage", link.publish, "t", b"x" * 11)

    def test_waitsWhileTheBrokerIsAway(self) -> None:
        self.ready()
        self.hub.stop()
        self.say(1, 2, 3)
        self.elapse(3)
        self.hub.start()
        self.elapse(2)
        self.assertHeard(1, 2, 3)

    def test_waitsForTheOthers(self) -> None:
        """Nothing is published in the second in which others may not be back; later messages wait too."""
        self.ready()
        self.hub.stop()
        self.say(1)
        self.hub.start()
        self.elapse(0.5)
        self.assertEqual(len(self.hub.publishers), 2)
        self.say(2)
        self.assertHeard()
        self.elapse(1)
        self.say(3)
        self.assertHeard(1, 2, 3)

    def test_cutAgainMeanwhile(self) -> None:
        self.ready()
        self.hub.stop()
        self.say(1)
        self.hub.start()
        self.elapse(0.5)
        self.hub.stop()
        self.hub.start()
        self.elapse(2)
        self.assertHeard(1)

    def test_subscriberCut(self) -> None:
        """A deaf link publishes."""
        self.ready()
        self.link.subscribe("t", lambda topic, payload: None)
        self.clock.advance(0)
        self.hub.subscribers[-1].end("cut")
        self.assertIs(self.link.status, LinkStatus.DEAF)
        self.say(1)
        self.assertHeard(1)

    def test_unconfirmed(self) -> None:
        """Unconfirmed messages are counted, and not sent again."""
        self.ready()
        self.say(1)
        self.clock.advance(0)
        self.say(2, 3)
        self.hub.stop()
        self.say(4)
        self.hub.start()
        self.elapse(2)
        self.assertHeard(1, 4)
        self.assertEqual((self.link.counts.unconfirmed, self.link.counts.published), (2, 4))
        self.assertEqual(len(self.warnings("this server: 2 unconfirmed")), 1)

    def test_theOldestGo(self) -> None:
        link = self.link = self.makeLink(maxQueued=10 * (1 + 2 + outgoing.OVERHEAD))
        link.start()
        self.say(*range(10, 99))
        self.assertEqual(link.counts.dropped, 79)
        self.assertEqual(len(self.warnings("the queue is full")), 1)
        self.ready(link)
        self.assertHeard(*range(89, 99))

    def test_largerThanTheQueue(self) -> None:
        link = self.makeLink(maxQueued=100)
        link.start()
        link.publish("t", b"x" * 101)
        self.assertEqual(link.counts.dropped, 1)
        self.ready(link)
        link.publish("t", b"1" * 101)
        self.clock.advance(0)
        self.assertEqual(self.heard, [int("1" * 101)])

    def test_slowBroker(self) -> None:
        """The broker has no more than the window unconfirmed, and the rest follows in order."""
        self.ready()
        self.hub.pause()
        filling = b"x" * 100_000
        for number in range(10):
            self.link.publish("t", b"%d %b" % (number, filling))
        self.assertEqual(self.link.counts.published, 3)
        self.assertEqual(self.link._outgoing.reconnecting.connection.unconfirmed, 3)
        self.hub.resume()
        self.assertHeard(*range(10))
        self.assertEqual(self.link.counts.dropped, 0)

    def test_refused(self) -> None:
        self.ready()
        self.logged.clear()
        owner: IPublisherOwner = self.link._outgoing
        for _ in range(3):
            owner.refused("NOPERM")
        self.assertEqual(self.link.counts.refused, 3)
        self.assertEqual(self.warnings(), ["memory refused a message: NOPERM"])

    def test_stopSaysWhatWaits(self) -> None:
        self.ready()
        self.hub.pause()
        for number in range(5):
            self.link.publish("t", b"%d %b" % (number, b"x" * 100_000))
        stopped = self.link.stop()
        self.clock.advance(1)
        self.assertNoResult(stopped)
        self.hub.resume()
        self.successResultOf(stopped)
        self.assertHeard(*range(5))
        self.say(9)
        self.assertEqual((self.link.counts.dropped, self.link.counts.unconfirmed), (1, 0))

    def test_startedWhileItStops(self) -> None:
        """The old queue goes first, over its own connection."""
        self.ready()
        self.hub.pause()
        self.say(1, 2)
        stopped = self.link.stop()
        self.link.start()
        self.say(3)
        again = self.link.stop()
        self.link.start()
        self.say(4)
        self.successResultOf(again)
        opened: list[IPublisherOwner] = []
        self.patch(MemoryBus, "openPublisher", lambda bus, reactor, owner: opened.append(owner) or Deferred())
        self.elapse(1)
        self.assertEqual(opened, [])
        self.hub.resume()
        self.successResultOf(stopped)
        self.assertEqual(opened, [self.link._outgoing])
        self.assertHeard(1, 2)
        self.assertEqual((self.link.counts.dropped, self.link.counts.unconfirmed), (1, 0))
        self.assertIs(self.link.status, LinkStatus.CONNECTING)

    def test_stopWithoutTheBroker(self) -> None:
        self.ready()
        self.hub.pause()
        self.say(1, 2)
        stopped = self.link.stop()
        self.clock.advance(outgoing.STOP_WITHIN)
        self.successResultOf(stopped)
        self.assertEqual(self.link.counts.unconfirmed, 2)
        away = self.makeLink()
        self.hub.stop()
        away.start()
        away.publish("t", b"1")
        self.successResultOf(away.stop())
        self.assertEqual(away.counts.dropped, 1)


class IncomingTests(LinkTestCase):
    def test_subscribeAndUnsubscribe(self) -> None:
        self.ready()
        heard: list[tuple[str, bytes]] = []
        self.link.subscribe("a", lambda *message: heard.append(message))
        confirmed = self.link.whenSubscribed("a")
        self.assertNoResult(confirmed)
        self.clock.advance(0)
        self.successResultOf(confirmed)
        self.other.publish("a", b"1")
        self.clock.advance(0)
        self.other.publish("a", b"2")
        self.link.unsubscribe("a")
        self.link.unsubscribe("a")
        self.clock.advance(0)
        self.assertEqual(heard, [("a", b"1")])
        self.failureResultOf(self.link.whenSubscribed("a"), BusError)

    def test_unsubscribedBeforeItIsConfirmed(self) -> None:
        self.ready()
        self.link.subscribe("a", print)
        waiting, cancelled = self.link.whenSubscribed("a"), self.link.whenSubscribed("a")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.link.unsubscribe("a")
        self.failureResultOf(waiting, BusError)
        self.link.subscribe("a", print)
        self.clock.advance(0)
        self.successResultOf(self.link.whenSubscribed("a"))

    def test_unsubscribedWhileItConnects(self) -> None:
        self.link.subscribe("a", print)
        self.link.start()
        self.link.unsubscribe("a")
        self.clock.advance(0)
        self.assertIs(self.link.status, LinkStatus.READY)

    def test_notAllAtOnce(self) -> None:
        """A broker is asked for more when it has answered, and not for subscriptions that have ended."""
        asked = self.subscriptionsAreNotAnswered()
        self.link.start()
        self.clock.advance(0)
        topics = [str(number) for number in range(2 * incoming.WINDOW)]
        for topic in topics:
            self.link.subscribe(topic, print)
        self.assertEqual(len(asked), incoming.WINDOW)
        self.link.unsubscribe(topics[-1])
        self.link.unsubscribe(topics[0])
        for confirmed in asked:  # the list grows meanwhile
            confirmed.callback(None)
        self.assertEqual(len(asked), 2 * incoming.WINDOW)
        self.clock.advance(0)
        self.assertIs(self.link.status, LinkStatus.READY)

    def test_twice(self) -> None:
        self.link.subscribe("a", print)
        self.assertRaisesRegex(ValueError, "'a' has been subscribed to", self.link.subscribe, "a", print)

    def test_pattern(self) -> None:
        heard: list[str] = []
        self.link.subscribe("a*", lambda topic, payload: heard.append(topic), True)
        self.ready()
        for topic in ("a1", "b1", "a2"):
            self.other.publish(topic, b"")
        self.clock.advance(0)
        self.assertEqual(heard, ["a1", "a2"])

    def test_patternsThatTheBrokerLacks(self) -> None:
        way = MemoryBus(self.hub)
        way.patterns = False
        link = self.makeLink(way)
        self.assertRaisesRegex(ValueError, "memory has no patterns.*'a.'", link.subscribe, "a*", print, True)

    def test_againAfterAnOutage(self) -> None:
        self.ready()
        self.hub.stop()
        heard: list[bytes] = []
        self.link.subscribe("late", lambda topic, payload: heard.append(payload))
        self.assertNoResult(self.link.whenSubscribed("late"))
        self.assertNoResult(self.other.whenSubscribed("t"))
        self.hub.start()
        self.elapse(2)
        self.say(1)
        self.other.publish("late", b"2")
        self.assertHeard(1)
        self.assertEqual(heard, [b"2"])
        self.successResultOf(self.other.whenSubscribed("t"))

    def test_receiverRaises(self) -> None:
        failing: list[Callable[[], object]] = [lambda: 1 / 0] * 3 + [lambda: {}["key"]] + [lambda: None]
        self.link.subscribe("t", lambda topic, payload: failing.pop(0)())
        self.ready()
        self.say(*range(5))
        self.assertHeard(*range(5))
        self.assertEqual((self.link.counts.failures, self.link.counts.received), (4, 5))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertIs(self.link.status, LinkStatus.READY)

    def test_tooLarge(self) -> None:
        small = self.makeLink(maxMessage=10)
        heard: list[bytes] = []
        small.subscribe("t", lambda topic, payload: heard.append(payload))
        self.ready(small)
        self.ready()
        for size in (10, 11, 12, 10):
            self.link.publish("t", b"1" * size)
        self.clock.advance(0)
        self.assertEqual([len(payload) for payload in heard], [10, 10])
        self.assertEqual((small.counts.oversized, small.counts.received), (2, 2))
        self.assertEqual(len(self.warnings("too large, and thrown away: t")), 1)

    def test_refusedLater(self) -> None:
        """A link whose subscription is refused is not ready."""
        self.ready()
        self.hub.pause()
        self.link.subscribe("a", print)
        asked = self.hub.subscribers[-1]._asked[-1]
        asked.errback(BusError("NOPERM"))
        self.assertEqual(self.link.reason, "cannot subscribe to 'a': NOPERM")
        self.assertIs(self.link.status, LinkStatus.DEAF)
        self.hub.resume()
        self.elapse(1)
        self.assertIs(self.link.status, LinkStatus.READY)

    def test_refusedAtFirst(self) -> None:
        asked = self.subscriptionsAreNotAnswered()
        self.link.subscribe("a", print)
        self.link.start()
        self.clock.advance(0)
        asked[1].errback(BusError("NOPERM"))
        self.assertEqual(self.link.reason, "cannot subscribe to 'a': NOPERM")
        self.assertIs(self.link.status, LinkStatus.CONNECTING)
        asked[0].callback(None)  # too late
        self.assertEqual(len(self.hub.subscribers), 1)


class HeartbeatTests(LinkTestCase):
    def test_brokerHangs(self) -> None:
        self.ready()
        self.elapse(3)
        self.hub.pause()
        self.elapse(10)
        self.assertIs(self.link.status, LinkStatus.DEAF)
        self.assertEqual(len(self.warnings("is deaf: the heartbeat did not come back within 5 s")), 2)
        self.say(1)
        self.elapse(10)
        self.assertEqual(len(self.warnings("no answer within 5 s")), 2)
        self.hub.resume()
        self.elapse(3)
        self.assertIs(self.link.status, LinkStatus.READY)
        self.assertHeard(1)

    def test_brokerTakesNothing(self) -> None:
        """A broker that accepts connections and no messages, like a full RabbitMQ, makes no link ready."""
        self.ready()
        over = self.nothingIsTaken()
        self.say(1)
        self.elapse(60)
        self.say(2)
        self.elapse(60)
        self.assertEqual(self.statuses, [LinkStatus.CONNECTING, LinkStatus.READY, LinkStatus.DEAF])
        self.assertEqual(self.link.reason, "the heartbeat did not come back within 5 s")
        self.say(3)
        over()
        self.elapse(20)
        self.assertHeard(2, 3)
        counts = self.link.counts
        self.assertEqual((counts.published, counts.unconfirmed, counts.outages), (3, 1, 1))
        self.assertGreater(counts.deafFor, 110)

    def test_brokerTakesNothingAtFirst(self) -> None:
        over = self.nothingIsTaken()
        self.link.start()
        self.say(1)
        self.elapse(20)
        self.assertEqual((self.statuses, self.link.counts.published), ([LinkStatus.CONNECTING], 0))
        over()
        self.elapse(20)
        self.say(2)
        self.assertHeard(1, 2)

    def test_brokerTakesMessagesAgain(self) -> None:
        """Other servers get to know that the broker is well as late as this one does."""
        self.ready()
        over = self.nothingIsTaken()
        self.elapse(12)
        self.say(1)
        over()
        self.assertEqual(len(self.hub.publishers), 2)
        self.link._outgoing.beat(self.link._topic, b"%d" % self.link._beats)
        self.elapse(BACKOFF.settle - 0.1)
        self.assertIs(self.link.status, LinkStatus.DEAF)
        self.assertHeard()
        self.elapse(0.2)
        self.assertIs(self.link.status, LinkStatus.READY)
        self.assertHeard(1)

    def test_cutWhileItWaitsForTheOthers(self) -> None:
        self.ready()
        self.hub.stop()
        self.say(1)
        self.hub.start()
        self.elapse(0.5)
        self.hub.cutSubscribers()
        self.assertIs(self.link.status, LinkStatus.DEAF)
        self.elapse(0.6)
        self.assertHeard()
        self.elapse(2)
        self.assertHeard(1)
        self.assertEqual(self.link.counts.outages, 1)

    def test_messagesOfOthersAreNoHeartbeat(self) -> None:
        """One half of the link may be gone while the other is not."""
        self.ready()
        self.link.subscribe("t", lambda topic, payload: None)
        self.hub.publishers[-1].beat = lambda topic, payload: None
        for number in range(22):
            self.other.publish("t", b"%d" % number)
            self.elapse(0.5)
        self.assertEqual(self.link.counts.outages, 1)
        self.assertEqual(self.other.counts.outages, 0)

    def test_notCounted(self) -> None:
        self.ready()
        self.elapse(60)
        self.assertEqual((self.link.counts.published, self.link.counts.received), (0, 0))
        self.assertEqual(self.link.counts.outages, 0)

    def test_busyProcess(self) -> None:
        """Heartbeats that arrived while the process was busy are read before any is missed."""
        self.ready()
        self.elapse(5.05)
        self.hub.pause()
        self.clock.advance(20)
        self.assertIs(self.link.status, LinkStatus.READY)
        self.hub.resume()
        self.elapse(1)
        self.assertIs(self.link.status, LinkStatus.READY)
        self.hub.pause()
        self.elapse(5)
        self.clock.advance(20)
        self.elapse(2)
        self.assertIs(self.link.status, LinkStatus.DEAF)

    def test_prefix(self) -> None:
        link = self.makeLink(prefix="ours")
        topics: list[str] = []
        self.other.subscribe("ours-heartbeat-*", lambda topic, payload: topics.append(topic), True)
        self.clock.advance(0)
        self.ready(link)
        self.assertEqual(len(topics), 1)


class BackoffTests(LinkTestCase):
    def attempts(self, seconds: float) -> list[float]:
        """Return the times of attempts to connect in these seconds, to publish for example."""
        times: list[float] = []
        opened = MemoryBus.openPublisher

        def openPublisher(bus: MemoryBus, reactor: Any, owner: Any) -> Any:
            if owner is self.link._outgoing:
                times.append(self.clock.seconds())
            return opened(bus, reactor, owner)

        self.patch(MemoryBus, "openPublisher", openPublisher)
        self.elapse(seconds)
        return times

    def test_delays(self) -> None:
        self.ready()
        self.hub.stop()
        times = [0.0, *self.attempts(60)]
        delays = [later - earlier for earlier, later in pairwise(times)]
        self.assertGreaterEqual(delays[0], BACKOFF.first / 2)
        self.assertLessEqual(delays[0], BACKOFF.first + 0.1)
        self.assertLessEqual(max(delays), BACKOFF.last + 0.1)
        self.assertGreaterEqual(min(delays[3:]), BACKOFF.last / 2 - 0.1)
        self.assertGreater(len({round(delay, 2) for delay in delays}), 3)

    def test_heartbeatRefused(self) -> None:
        """Refused heartbeats lengthen the delays between attempts, like refused connections."""
        refuse = lambda publisher, topic, payload: publisher.end("NOPERM")  # noqa: E731
        patched = self.patch(bus._Publisher, "_beaten", refuse)
        self.other.stop()
        self.link.start()
        delays = [later - earlier for earlier, later in pairwise(self.attempts(20))]
        self.assertGreaterEqual(min(delays[3:]), BACKOFF.last / 2 - 0.1)
        self.assertEqual((self.statuses, self.link.reason), ([LinkStatus.CONNECTING], "NOPERM"))
        self.assertEqual(len(self.warnings("no link to memory: NOPERM")), 1)
        patched.restore()
        self.elapse(3)
        self.assertIs(self.link.status, LinkStatus.READY)

    def test_beginsAnewWhenItWasReady(self) -> None:
        self.ready()
        self.hub.stop()
        self.elapse(20)
        self.hub.start()
        self.elapse(3)
        self.hub.stop()
        began = self.clock.seconds()
        self.assertLessEqual(self.attempts(1)[0] - began, BACKOFF.first + 0.1)
