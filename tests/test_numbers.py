"""
Numbered messages between servers: what was lost on the way is counted.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.clusters import ClusterTestCase
from tests.examples import given, st
from txrealtime import Server
from txrealtime.cluster.cluster import LEASE
from txrealtime.cluster.dialects import numbers
from txrealtime.cluster.dialects.numbers import Numbers
from txrealtime.errors import PacketError
from txrealtime.testing import Client


class NumbersTests(SynchronousTestCase):
    """The rules, for one receiver."""

    def setUp(self) -> None:
        self.sender, self.receiver = Numbers(), Numbers()
        self.missed: list[tuple[str, int]] = []
        self.receiver.missed = lambda topic, count: self.missed.append((topic, count))

    def send(self, topic: str = "t", arrives: bool = True) -> None:
        number = self.sender.next(topic)
        if arrives:
            self.receiver.received(topic, "s", number)

    def announce(self) -> None:
        self.receiver.heard("s", self.sender.announced())

    def test_hole(self) -> None:
        for arrives in (True, False, False, True, True, False, True):
            self.send(arrives=arrives)
        self.assertEqual(self.missed, [("t", 2), ("t", 1)])

    def test_beforeTheFirst(self) -> None:
        self.send(arrives=False)
        self.send()
        self.assertEqual(self.missed, [])

    def test_behindTheLast(self) -> None:
        self.send()
        self.send(arrives=False)
        self.announce()
        self.assertEqual(self.missed, [("t", 1)])
        self.announce()
        self.send()
        self.assertEqual(self.missed, [("t", 1)])

    def test_announcedOnce(self) -> None:
        """A topic that is not used is not announced again."""
        self.send()
        self.assertEqual(self.sender.announced(), {"t": 1})
        self.assertEqual(self.sender.announced(), {})

    def test_otherTopics(self) -> None:
        """On a topic that the receiver does not hear, nothing is missed."""
        self.send("mine")
        for _ in range(3):
            self.send("other", arrives=False)
        self.announce()
        self.assertEqual(self.missed, [])

    def test_forgotten(self) -> None:
        self.send()
        self.receiver.forget("t")
        self.send(arrives=False)
        self.send()
        self.assertEqual(self.missed, [])

    def test_senderBeginsAnew(self) -> None:
        for _ in range(5):
            self.send()
        self.sender = Numbers()
        self.send()
        self.send(arrives=False)
        self.send()
        self.assertEqual(self.missed, [("t", 1)])

    def test_gone(self) -> None:
        self.send()
        self.receiver.gone("s")
        self.send(arrives=False)
        self.send()
        self.assertEqual(self.missed, [])

    def test_bounds(self) -> None:
        self.patch(numbers, "_MOST_TOPICS", 10)
        self.patch(numbers, "_MOST_ANNOUNCED", 5)
        self.patch(numbers, "_MOST_SENDERS", 3)
        for index in range(30):
            self.send(f"t{index}")
            self.receiver.received("t", f"s{index}", 1)
        self.assertEqual(len(self.sender._sent), 10)
        self.assertEqual(len(self.sender.announced()), 5)
        self.assertLessEqual(len(self.receiver._received["t"]), 3)
        self.send("t0")
        self.assertEqual(self.missed, [], "a topic that begins anew is no hole")

    def test_noNumber(self) -> None:
        self.assertRaises(PacketError, self.receiver.heard, "s", {"t": "1"})
        self.assertRaises(PacketError, self.receiver.heard, "s", {"t": True})

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=25))
    def test_allAreCounted(self, story: list[tuple[str, bool]]) -> None:
        """From the first message on that has come, each one has come or is counted."""
        self.setUp()
        began: set[str] = set()
        lost = 0
        for topic, arrives in story:
            self.send(topic, arrives)
            lost += topic in began and not arrives
            if arrives:
                began.add(topic)
        self.announce()
        self.assertEqual(sum(count for _, count in self.missed), lost)


class HolesTests(ClusterTestCase):
    """Servers that were cut off."""

    def setUp(self) -> None:
        super().setUp()
        self.people = [self.join(server) for server in self.servers]
        self.lines: list[str] = []

        def keep(event: Any) -> None:
            text = formatEvent(event)
            if text.startswith("missed "):
                self.lines.append(text)

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        self.seen: list[str | None] = []
        self.two.cluster._conversation.holeSeen = self.seen.append
        self.one.emit("first")
        self.settle()

    def missed(self) -> list[int]:
        return [server.cluster.missed for server in self.servers]

    def test_nothing(self) -> None:
        for _ in range(3):
            self.one.emit("hi")
        self.advance(LEASE)
        self.assertEqual(self.missed(), [0, 0, 0])
        self.assertEqual(self.lines, [])

    def test_counted(self) -> None:
        self.hub.cutSubscribers()
        for _ in range(3):
            self.one.emit("lost")
        self.settle()
        self.advance(5)
        self.one.emit("heard")
        self.settle()
        self.assertEqual(self.missed(), [0, 3, 3])
        self.assertEqual(self.seen, ["/"])
        self.advance(2)
        self.assertEqual(len(self.lines), 2)
        self.assertIn("missed 3 messages of the other servers", self.lines[0])

    def test_behindTheLast(self) -> None:
        self.hub.cutSubscribers()
        self.one.to("red").emit("nobody was there")
        self.one.emit("lost")
        self.one.cluster.emit("lost too")
        self.settle()
        self.advance(LEASE)
        self.assertEqual(self.missed(), [0, 1, 1], "cluster.emit() was the first on its topic")

    def test_goodbye(self) -> None:
        """A server that stops tells what it has sent."""
        self.hub.cutSubscribers()
        self.one.emit("lost")
        self.settle()
        self.advance(3)
        self.one.stopService()
        self.settle()
        self.assertEqual(self.two.cluster.missed, 1)

    def test_oneLineAnOutage(self) -> None:
        for _ in range(5):
            self.hub.cutSubscribers()
            self.one.emit("lost")
            self.settle()
            self.advance(5)
            self.one.emit("heard")
            self.settle()
        self.assertEqual(self.missed(), [0, 5, 5])
        self.advance(2)
        self.assertEqual(len(self.lines), 2)
        self.advance(60)
        self.assertEqual(len(self.lines), 4)

    def test_leftMeanwhile(self) -> None:
        """A server misses nothing on topics that it does not subscribe to."""
        bob = self.people[1]
        socket = self.socketOf(self.two, bob)
        socket.join("red")
        self.settle()
        self.one.to("red").emit("hi")
        self.settle()
        socket.leave("red")
        self.settle()
        self.one.to("red").emit("not for two")
        self.settle()
        socket.join("red")
        self.settle()
        self.one.to("red").emit("again")
        self.settle()
        self.assertEqual(self.missed(), [0, 0, 0])


class RecoveryTests(ClusterTestCase):
    """Clients that come back while events of other servers are missing."""

    NAMES = ("one", "two")

    def member(self, name: str, **options: Any) -> Server:
        return super().member(name, recoveryWindow=60, recovery="all", **options)

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.join(self.two)
        self.one.emit("first")
        self.settle()

    def lose(self, *clients: Client) -> None:
        for client in clients:
            client.received()
            client.lose()

    def back(self, client: Client) -> tuple[bool, list[Any]]:
        coming = client.comeBack()
        self.settle()
        self.successResultOf(coming)
        return client.recovered(), client.received()

    def test_whole(self) -> None:
        self.lose(self.alice)
        self.one.emit("missed", 1)
        self.settle()
        self.assertEqual(self.back(self.alice), (True, [("missed", 1)]))

    def test_hole(self) -> None:
        """A client that came back would never get the lost event: it gets a fresh session instead."""
        bob = self.join(self.two)
        self.lose(self.alice)
        self.hub.cutSubscribers()
        self.one.emit("lost")
        self.settle()
        self.advance(5)
        self.one.emit("heard")
        self.settle()
        self.assertEqual(self.two.cluster.missed, 1)
        self.assertEqual(self.back(self.alice), (False, []))
        self.lose(bob)
        self.one.emit("missed", 2)
        self.settle()
        self.assertEqual(self.back(bob), (True, [("missed", 2)]), "bob had what came after the hole")

    def test_newcomer(self) -> None:
        """A client that came after the hole misses nothing by it."""
        self.hub.cutSubscribers()
        self.one.emit("lost")
        self.settle()
        self.advance(LEASE)
        self.assertEqual(self.two.cluster.missed, 1)
        carol = self.join(self.two)
        self.lose(carol)
        self.assertEqual(self.back(carol), (True, []))

    def test_eventsOfServers(self) -> None:
        """A lost event between servers is none of a client."""
        self.one.cluster.emit("first")
        self.settle()
        self.lose(self.alice)
        self.hub.cutSubscribers()
        self.one.cluster.emit("lost")
        self.settle()
        self.advance(LEASE)
        self.assertEqual(self.two.cluster.missed, 1)
        self.assertEqual(self.back(self.alice), (True, []))
