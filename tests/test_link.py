"""
The link to other servers: what it says of itself, what it keeps and what it counts, over a broker in memory.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.cluster.bus import MemoryBus, MemoryHub
from txrealtime.cluster.line import Backoff
from txrealtime.cluster.link import Link, LinkStatus
from txrealtime.errors import BusError

BACKOFF = Backoff(first=0.25, last=1.0, timeout=5.0)


class LinkTestCase(SynchronousTestCase):
    """
    Two servers on a hub.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.hub = MemoryHub()
        self.heard: list[tuple[str, bytes]] = []
        self.statuses: list[LinkStatus] = []
        self.link = self.makeLink()
        self.link.watch(self.statuses.append)
        self.other = self.makeLink()
        self.other.subscribe("t", lambda topic, payload: self.heard.append((topic, payload)))
        self.other.start()
        self.clock.advance(0)

    def makeLink(self, **options: object) -> Link:
        link = Link(MemoryBus(self.hub), self.clock, backoff=BACKOFF, **options)
        self.addCleanup(lambda: (link.stop(), self.clock.advance(2)))
        return link

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.link.publish("t", b"%d" % number)

    def assertHeard(self, *numbers: int) -> None:
        self.clock.advance(0)
        self.assertEqual([int(payload) for _, payload in self.heard], list(numbers))

    def elapse(self, seconds: float) -> None:
        """Let time pass in small steps, as it does."""
        self.clock.pump([0.05] * round(seconds / 0.05))


class MessagesTests(LinkTestCase):
    def test_inOrderWhenReady(self) -> None:
        self.link.start()
        self.say(1, 2)
        self.assertEqual(self.heard, [])
        self.clock.advance(0)
        self.say(3)
        self.assertHeard(1, 2, 3)
        self.assertEqual(self.statuses, [LinkStatus.CONNECTING, LinkStatus.READY])
        self.assertEqual(self.link.counts.published, 3)
        self.assertEqual(self.other.counts.received, 3)

    def test_tooLarge(self) -> None:
        link = self.makeLink(maxMessage=10)
        self.assertRaisesRegex(ValueError, "11 bytes.*limit is 10 .maxMessage", link.publish, "t", b"x" * 11)

    def test_queuedWhileTheBrokerIsAway(self) -> None:
        self.link.start()
        self.clock.advance(0)
        self.hub.stop()
        self.assertIs(self.link.status, LinkStatus.DEAF)
        self.say(1, 2, 3)
        self.elapse(3)
        self.hub.start()
        self.elapse(2.1)
        self.assertIs(self.link.status, LinkStatus.READY)
        self.assertHeard(1, 2, 3)
        self.assertEqual(self.statuses[-2:], [LinkStatus.DEAF, LinkStatus.READY])
        self.assertEqual(self.link.counts.outages, 1)

    def test_afterStop(self) -> None:
        self.link.start()
        self.clock.advance(0)
        self.say(1)
        stopped = self.link.stop()
        self.assertNoResult(stopped)
        self.assertHeard(1)
        self.successResultOf(stopped)
        self.say(2)
        self.assertEqual(self.link.counts.dropped, 1)
        self.failureResultOf(self.makeLink().whenSubscribed("x"), BusError)


class HeartbeatTests(LinkTestCase):
    def test_brokerHangs(self) -> None:
        self.link.start()
        self.clock.advance(0)
        self.hub.pause()
        self.elapse(11)
        self.assertIs(self.link.status, LinkStatus.DEAF)
        self.assertIn("heartbeat", self.link.reason + str(self.link._journal._complaints))
        self.say(1)
        self.hub.resume()
        self.elapse(3)
        self.assertIs(self.link.status, LinkStatus.READY)
        self.assertHeard(1)

    def test_subscriberCut(self) -> None:
        self.link.start()
        self.clock.advance(0)
        self.hub.cutSubscribers()
        self.say(1)
        self.elapse(1)
        self.say(2)
        self.assertHeard(2)
        self.assertEqual(self.link.counts.unconfirmed, 0)
