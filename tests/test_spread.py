"""
Topics spread over several brokers: the owners, the links, servers and emitters, and a list that changes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.buses import BusTestsMixin, BusUser, Owner
from tests.clusters import SETTLED, ClusterTestCase, FaultyHub
from tests.examples import given, st
from txrealtime import BusError, DeferredEmitter, Emitter, Server
from txrealtime.cluster import emitter
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
from txrealtime.cluster.bus.spread import Buses, Spread, splitBuses
from txrealtime.cluster.bus.url import busesFromURL
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.link.link import LinkStatus
from txrealtime.cluster.link.links import Links

NAMES = ("redis://a:6379", "redis://b:6379", "redis://c:6379")
TOPICS = [f"txrealtime,/,room {number}" for number in range(3000)]


class NamedBus(MemoryBus):
    """A bus in memory with a name of its own."""

    patterns = False

    def __init__(self, name: str, hub: MemoryHub) -> None:
        super().__init__(hub)
        self.name = name


class SpreadTests(SynchronousTestCase):
    def owners(self, spread: Spread) -> list[str]:
        return [spread.names[spread.ownerOf(topic)] for topic in TOPICS]

    def test_alikeInAnyOrder(self) -> None:
        self.assertEqual(self.owners(Spread(NAMES, "k")), self.owners(Spread(NAMES[::-1], "k")))

    def test_knownOwners(self) -> None:
        """The owners are the same in the next release: servers of both run at the same time."""
        spread = Spread(NAMES, "txrealtime")
        topics = ["txrealtime@abcdefgh", "txrealtime,/", "txrealtime,/,red", "txrealtime,/chat,Straße", ""]
        self.assertEqual([spread.ownerOf(topic) for topic in topics], KNOWN)

    def test_even(self) -> None:
        shares = Counter(self.owners(Spread(NAMES, "k")))
        self.assertEqual(len(shares), 3)
        # The standard deviation of each is 26.
        self.assertTrue(all(abs(count - 1000) < 130 for count in shares.values()), shares)

    def test_added(self) -> None:
        """A broker takes its share from the others, and nothing moves between these."""
        before, after = self.owners(Spread(NAMES[:2], "k")), self.owners(Spread(NAMES, "k"))
        moved = [new for old, new in zip(before, after, strict=True) if new != old]
        self.assertEqual(set(moved), {NAMES[2]})
        self.assertTrue(870 < len(moved) < 1130, len(moved))

    @given(st.text(max_size=50), st.integers(1, 5))
    def test_marks(self, topic: str, count: int) -> None:
        """Each server hears by the lists by which servers of the steps before and after publish."""
        names = [f"redis://{number}" for number in range(count + 1)]
        new = names[-1:]
        steps = [
            Spread(names[:-1], "key"),
            Spread(names, "key", new, "listen"),
            Spread(names, "key", new, "both"),
            Spread(names, "key"),
        ]
        for one, other in itertools.pairwise(steps):
            for speaker, hearer in ((one, other), (other, one), (one, one)):
                self.assertIn(speaker.publishes, hearer.hears)
                heard = [hearer.names[place] for place in hearer.placesOf(topic)]
                self.assertIn(speaker.names[speaker.ownerOf(topic)], heard)
        self.assertNotIn(steps[0].publishes, steps[3].hears)
        self.assertEqual(list(steps[2].placesOf("key")), list(range(count + 1)))
        self.assertEqual(len(steps[0].placesOf(f"not key {topic}")), 1)

    def test_rememberedOwnersAreBounded(self) -> None:
        from txrealtime.cluster.bus import spread as module

        self.patch(module, "_MOST_KNOWN", 10)
        spread = Spread(NAMES, "k")
        first = [spread.ownerOf(topic) for topic in TOPICS[:100]]
        self.assertLessEqual(len(spread._owners), 10)
        self.assertEqual([spread.ownerOf(topic) for topic in TOPICS[:100]], first)


KNOWN = [2, 2, 1, 0, 2]


class ChoiceTests(SynchronousTestCase):
    def choice(self, url: str) -> DialectChoice:
        return DialectChoice.fromURL(url)[0]

    def test_list(self) -> None:
        choice, rest = DialectChoice.fromURL("redis://joe:pw@a/1,rediss://b:7?ssl_ca_certs=f&key=chat")
        self.assertEqual((choice.dialect, choice.key), ("native", "chat"))
        assert choice.spread is not None
        self.assertEqual(choice.spread.names, ("redis://a:6379/1", "rediss://b:7"))
        self.assertEqual(choice.spread.key, "chat")
        self.assertEqual(splitBuses(rest), ["redis://joe:pw@a/1", "rediss://b:7?ssl_ca_certs=f"])
        buses = busesFromURL(rest, choice.spread)
        assert isinstance(buses, Buses)
        self.assertEqual([bus.name for bus in buses.buses], list(choice.spread.names))
        self.assertEqual(buses.name, "redis://a:6379/1, rediss://b:7")

    def test_sentinels(self) -> None:
        spread = self.choice("redis+sentinel://a,b:1/one,redis+sentinel://a,b/two").spread
        assert spread is not None
        self.assertEqual(
            spread.names, ("redis+sentinel://a:26379,b:1/one", "redis+sentinel://a:26379,b:26379/two")
        )

    def test_one(self) -> None:
        self.assertIsNone(self.choice("redis+sentinel://a,b:1/one").spread)

    def test_marks(self) -> None:
        listen = self.choice("redis://a,redis://b?spread=listen").spread
        both = self.choice("redis://a,redis://b?spread=both").spread
        every = self.choice("redis://a,redis://b").spread
        assert listen is not None and both is not None and every is not None
        self.assertEqual((listen.publishes, both.publishes), ("", every.publishes))
        self.assertEqual(listen.hears, both.hears)
        self.assertEqual(set(both.hears), {"", every.publishes})

    def test_refused(self) -> None:
        for url, why in (
            ("redis://a,redis://b?dialect=node", "one broker only"),
            ("redis://a,redis://b?dialect=python-socketio", "one broker only"),
            ("redis://a,amqp://b", "redis:// only"),
            ("redis+streams://a,redis+streams://b", "redis:// only"),
            ("redis://a,redis://a:6379", "named twice"),
            ("redis://a?key=x,redis://b?key=y", "another of the brokers"),
            ("redis://a,redis://b?spread=no", "expected listen or both"),
            ("redis://a?spread=both,redis://b?spread=both", "at all brokers"),
            ("redis://a,redis://b?spread=both,redis://c?spread=listen", "differs"),
            ("redis://a,http://b", "no bus is called http"),
            ("redis://a?spread=both", "spread"),
        ):
            error = str(self.assertRaises(ValueError, DialectChoice.fromURL, url))
            self.assertIn(why, error)

    def test_noSecrets(self) -> None:
        for url in (
            "redis://joe:s3cret@a,redis://b?spread=no",
            "redis://joe:s3cret@a,redis://joe:s3cret@a",
            "redis://joe:s3cret@a,amqp://joe:s3cret@b",
            "redis://joe:s3cret@a,redis://joe:s3cret@b:x",
            "redis://joe:s3cret@a,redis://joe:s3c/r@b#s3cret",
        ):
            self.assertNotIn("s3c", str(self.assertRaises(ValueError, DialectChoice.fromURL, url)))
        choice, rest = DialectChoice.fromURL("redis://joe:s3cret@a,redis://joe:s3cret@b")
        buses: Any = busesFromURL(rest, choice.spread)
        for shown in (repr(choice.spread), repr(choice), repr(buses), buses.name, str(choice.spread.names)):
            self.assertNotIn("s3cret", shown)


class SpreadTestCase(ClusterTestCase):
    """Servers over three brokers in memory: `hubs`."""

    def setUp(self) -> None:
        self.hubs = [FaultyHub() for _ in NAMES]
        self.logged: list[str] = []
        observer = lambda event: self.logged.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        super().setUp()

    def buses(self, count: int = 3, new: int = 0, mark: str = "") -> Buses:
        names = NAMES[:count]
        spread = Spread(names, "txrealtime", names[count - new :], mark)
        return Buses(spread, [NamedBus(*each) for each in zip(names, self.hubs, strict=False)])

    def member(self, name: str, buses: Any = None, **options: Any) -> Server:
        server = self.makeServer(start=False, **options)
        server.cluster.use(buses or self.buses())
        server.cluster.name = name
        server.startService()
        return server

    def tearDown(self) -> None:
        for hub in self.hubs:
            hub.resume()
        super().tearDown()

    def rooms(self, count: int = 30) -> list[list[str]]:
        """Return names of rooms by the place of their owner."""
        spread = Spread(NAMES, "txrealtime")
        owned: list[list[str]] = [[], [], []]
        number = 0
        while min(map(len, owned)) < count:
            room = f"room {number}"
            owned[spread.ownerOf(f"txrealtime,/,{room}")].append(room)
            number += 1
        return [rooms[:count] for rooms in owned]


class ServerTests(SpreadTestCase):
    """Servers one, two and three over three brokers."""

    def everybody(self) -> list[Server]:
        return [self.one, self.two, self.three]  # type: ignore[attr-defined]

    def test_known(self) -> None:
        for server in self.everybody():
            self.assertEqual(server.cluster.status, "ready")
            self.assertEqual(len(server.cluster.servers), 2)
            self.assertEqual(server.cluster.apart, [])

    def test_eachTopicAtItsOwner(self) -> None:
        client = self.join(self.two)
        socket = self.socketOf(self.two, client)
        for place, rooms in enumerate(self.rooms(10)):
            heard: list[Any] = []
            for other in self.hubs:
                note = lambda topic, payload, on=other, heard=heard: heard.append((on, topic))  # noqa: E731
                self.patch(other, "deliver", note)
            for room in rooms:
                socket.join(room)
                self.one.to(room).emit("hi", room)
            self.settle()
            events = [hub for hub, topic in heard if topic.startswith("txrealtime,/,")]
            self.assertEqual(events, [self.hubs[place]] * 10)

    def test_operations(self) -> None:
        """All works as with one broker."""
        clients = [self.join(server) for server in self.everybody()]
        for room in ("red", "blue", "green"):
            for server in self.everybody():
                server.to(*[client.id() for client in clients]).join(room)
            self.settle()
            self.one.to(room).emit("hi", room)
            self.assertEqual(self.get(*clients), [[("hi", room)]] * 3)
            people = self.resultOf(self.two.to(room).fetch())
            self.assertEqual(len(people), 3)
            self.one.to(room).leave(room)
            self.settle()
            self.one.to(room).emit("hi", room)
            self.assertEqual(self.get(*clients), [[], [], []])
        for server in self.everybody():
            server.to(clients[0].id()).emit("you")
        self.assertEqual(self.get(*clients), [[("you",)] * 3, [], []])
        self.one.namespace().everyone.disconnect()
        self.settle()
        self.assertFalse(any(client.isConnected() for client in clients))

    def test_orderOfARoom(self) -> None:
        """One broker lags behind another: each room's events are in order, and none is taken for missed."""
        client = self.join(self.two)
        socket = self.socketOf(self.two, client)
        rooms = [rooms[0] for rooms in self.rooms(1)]
        for room in rooms:
            socket.join(room)
        self.settle()
        for number in range(40):
            self.hubs[number % 3].resume()
            self.hubs[(number + 1) % 3].pause()
            for room in rooms:
                self.one.to(room).emit("n", room, number)
            self.advance(0.4)  # and announcements, in 16 s
        for hub in self.hubs:
            hub.resume()
        (events,) = self.get(client)
        for room in rooms:
            numbers = [number for _, where, number in events if where == room]
            self.assertEqual(numbers, list(range(40)))
        self.advance(6)
        self.assertEqual([server.cluster.missed for server in self.everybody()], [0, 0, 0])
        self.assertEqual([server.cluster.ignored for server in self.everybody()], [0, 0, 0])

    def test_joinBeforeAnEmit(self) -> None:
        """An event right after a join of a remote socket reaches it, whichever broker is faster."""
        client = self.join(self.two)
        rooms = [room for rooms in self.rooms(3) for room in rooms]
        for slow in self.hubs:
            for room in rooms:
                slow.pause()
                self.one.to(client.id()).join(room)
                self.one.to(room).emit("hi", room)
                self.settle()
                slow.resume()
                self.assertEqual(self.get(client), [[("hi", room)]])
                self.one.to(room).leave(room)
                self.settle()
                self.advance(5)

    def test_aBrokerAway(self) -> None:
        """Only its topics suffer; the losses of each broker are counted."""
        client = self.join(self.two)
        socket = self.socketOf(self.two, client)
        rooms = self.rooms(5)
        for room in [room for each in rooms for room in each]:
            socket.join(room)
        self.settle()
        self.hubs[1].stop()
        self.advance(20)
        for server in self.everybody():
            self.assertEqual((server.cluster.status, server.cluster.isReady), ("partly", True))
            self.assertEqual(len(server.cluster.servers), 2)  # announced on the other brokers
            assert server.cluster.link is not None
            self.assertIn(f"{NAMES[1]}: ", server.cluster.link.reason)
            self.assertEqual([link.status for link in server.cluster.links], ["ready", "deaf", "ready"])
        for place in (0, 2, 1):
            for room in rooms[place]:
                self.one.to(room).emit("hi", room)
            expected = [] if place == 1 else [("hi", room) for room in rooms[place]]
            self.assertEqual(self.get(client), [expected])
        self.hubs[1].start()
        self.advance(5)
        self.assertEqual(self.get(client), [[("hi", room) for room in rooms[1]]])  # from the queue
        self.assertEqual([server.cluster.status for server in self.everybody()], ["ready"] * 3)
        link = self.one.cluster.link
        assert isinstance(link, Links)
        self.assertEqual([each.counts.outages for each in link.links], [0, 1, 0])
        self.assertEqual(link.counts.outages, 1)
        self.assertEqual(link.counts.published, sum(each.counts.published for each in link.links))
        self.assertEqual([server.cluster.missed for server in self.everybody()], [0, 0, 0])
        self.assertTrue([line for line in self.logged if f"the link to {NAMES[1]} is deaf" in line])
        self.assertFalse([line for line in self.logged if f"the link to {NAMES[0]} is deaf" in line])

    def test_lossesAreCounted(self) -> None:
        """A server misses events of one broker: the announcement there tells how many."""
        client = self.join(self.two)
        socket = self.socketOf(self.two, client)
        rooms = self.rooms(4)
        for room in [room for each in rooms for room in each]:
            socket.join(room)
            self.one.to(room).emit("first")
        self.settle()
        self.hubs[2].loses = lambda sender, receiver: True
        for room in rooms[2]:
            self.one.to(room).emit("lost")
            self.one.to(room).emit("lost")
        self.settle()
        self.hubs[2].heal()
        self.advance(6)
        self.assertEqual([server.cluster.missed for server in self.everybody()], [0, 8, 0])

    def test_questionsWithABrokerAway(self) -> None:
        """Each fails at once, or is answered in full."""
        self.join(self.two)
        for place, hub in enumerate(self.hubs):
            hub.stop()
            self.advance(1)
            asked = self.one.namespace().everyone.fetch()
            self.settle()
            topics = ["txrealtime", f"txrealtime@{self.one.cluster.uid}"]
            spread = Spread(NAMES, "txrealtime")
            if place in [spread.ownerOf(topic) for topic in topics]:
                self.assertIn(NAMES[place], str(self.failureResultOf(asked, BusError).value))
            elif place == spread.ownerOf(f"txrealtime@{self.two.cluster.uid}"):
                self.successResultOf(asked)
            else:
                self.assertEqual(len(self.successResultOf(asked)), 1)
            hub.start()
            self.advance(5)

    def test_presenceSurvivesABroker(self) -> None:
        presences = [server.presence("red") for server in self.everybody()]
        self.advance(SETTLED)
        for server, presence in zip((self.one, self.two), presences, strict=False):
            presence.track(self.socketOf(server, self.join(server)), key=server.cluster.name)
        self.settle()
        self.hubs[0].stop()
        self.advance(30)
        for presence in presences:
            here = self.resultOf(presence.here())
            self.assertEqual(sorted(present.key for present in here), ["one", "two"])
        self.hubs[0].start()
        self.advance(6)

    def test_stopped(self) -> None:
        """A goodbye is said at each broker."""
        self.resultOf(self.three.stopService())
        self.settle()
        self.assertEqual([len(server.cluster.servers) for server in (self.one, self.two)], [1, 1])

    def test_startsWithoutABroker(self) -> None:
        """After two seconds the other brokers are used."""
        self.hubs[1].stop()
        late = self.member("late")
        self.settle()
        self.assertEqual((late.cluster.status, late.cluster.isReady), ("connecting", False))
        ready = late.cluster.whenReady()
        self.assertNoResult(ready)
        self.advance(2.5)
        self.assertEqual(late.cluster.status, "partly")
        self.successResultOf(ready)
        self.advance(6)
        self.assertEqual(len(late.cluster.servers), 3)
        self.hubs[1].start()
        self.advance(5)
        self.assertEqual(late.cluster.status, "ready")

    def test_allAway(self) -> None:
        for hub in self.hubs:
            hub.stop()
        self.advance(1)
        self.assertEqual([server.cluster.status for server in self.everybody()], ["deaf"] * 3)
        self.assertFalse(self.one.cluster.isReady)
        for hub in self.hubs:
            hub.start()
        self.advance(5)
        self.assertEqual([server.cluster.status for server in self.everybody()], ["ready"] * 3)
        client = self.join(self.two)
        self.one.emit("hi")
        self.assertEqual(self.get(client), [[("hi",)]])


class ChangeTests(SpreadTestCase):
    """A broker is added to, or taken from, a list, while servers with both lists run."""

    NAMES = ()

    def steps(self, before: int, after: int) -> list[Callable[[], Buses]]:
        count, new = max(before, after), abs(after - before)
        marks = ["listen", "both"] if after > before else ["both", "listen"]
        return [
            lambda: self.buses(before),
            lambda: self.buses(count, new, marks[0]),
            lambda: self.buses(count, new, marks[1]),
            lambda: self.buses(after),
        ]

    def exchange(self, one: Server, other: Server, rooms: Sequence[str]) -> list[int]:
        """Emit to each room from each server; return how many events the other's clients lack."""
        lacking = []
        for speaker, hearer in ((one, other), (other, one)):
            client = self.join(hearer)
            for room in rooms:
                self.socketOf(hearer, client).join(room)
            self.settle()
            for number in range(2):
                for room in rooms:
                    speaker.to(room).emit("hi", room, number)
            (events,) = self.get(client)
            self.assertEqual(len(events), len(set(events)))  # none twice
            for room in rooms:
                numbers = [number for _, where, number in events if where == room]
                self.assertEqual(numbers, sorted(numbers))
            lacking.append(2 * len(rooms) - len(events))
            client.close()
            self.settle()
        return lacking

    def restart(self, before: int, after: int) -> None:
        steps = self.steps(before, after)
        rooms = [f"room {number}" for number in range(60)]
        old = self.member("old", steps[0]())
        self.advance(SETTLED)
        for number, step in enumerate(steps[1:], 1):
            new = self.member(f"step {number}", step())
            self.advance(SETTLED)
            self.assertEqual(self.exchange(old, new, rooms), [0, 0])
            self.assertEqual([old.cluster.apart, new.cluster.apart], [[], []])
            self.assertEqual((len(old.cluster.servers), len(new.cluster.servers)), (1, 1))
            self.resultOf(old.stopService())
            self.settle()
            self.assertEqual((new.cluster.missed, new.cluster.ignored), (0, 0))
            old = new
        self.assertFalse([line for line in self.logged if "over other brokers" in line])

    def test_oneToTwo(self) -> None:
        self.restart(1, 2)

    def test_twoToThree(self) -> None:
        self.restart(2, 3)

    def test_threeToOne(self) -> None:
        self.restart(3, 1)

    def test_withoutSteps(self) -> None:
        """Events are lost, and both servers say so."""
        old = self.member("old", self.buses(2))
        self.advance(SETTLED)
        new = self.member("new", self.buses(3))
        self.advance(6)
        self.assertNotEqual(self.exchange(old, new, [f"room {number}" for number in range(60)]), [0, 0])
        self.assertEqual((old.cluster.apart, new.cluster.apart), (["new"], ["old"]))
        for name in ("old", "new"):
            self.assertTrue(
                [line for line in self.logged if line.startswith(f"{name} spreads topics over other")]
            )
        self.resultOf(old.stopService())
        self.settle()
        self.assertEqual(new.cluster.apart, [])

    def test_fromOneWithoutSteps(self) -> None:
        """Also a server with a single broker says so."""
        single = self.makeServer(start=False)
        single.cluster.use(NamedBus(NAMES[0], self.hubs[0]))
        single.startService()
        self.advance(SETTLED)
        new = self.member("new", self.buses(2))
        self.advance(6)
        self.assertEqual(single.cluster.apart, ["new"])
        self.assertEqual(len(new.cluster.apart), 1)

    def test_fromOneWithSteps(self) -> None:
        """A server with a single broker and no list understands the first step."""
        single = self.makeServer(start=False)
        single.cluster.use(NamedBus(NAMES[0], self.hubs[0]))
        single.startService()
        self.advance(SETTLED)
        new = self.member("new", self.buses(2, 1, "listen"))
        self.advance(SETTLED)
        self.assertEqual((single.cluster.apart, new.cluster.apart), ([], []))
        self.assertEqual(self.exchange(single, new, [f"room {number}" for number in range(60)]), [0, 0])


class EmitterTests(SpreadTestCase):
    NAMES = ("one",)
    URL = "redis://joe:s3cret@a,redis://b,redis://c"

    def emitterOf(self, url: str) -> DeferredEmitter:
        byName = dict(zip("abc", self.hubs, strict=True))
        self.patch(emitter, "busFromURL", lambda url, fanout: MemoryBus(byName[url[-1]]))
        return DeferredEmitter(url, reactor=self.clock)

    def test_sameOwners(self) -> None:
        client = self.join(self.one)
        rooms = [room for each in self.rooms(5) for room in each]
        for room in rooms:
            self.socketOf(self.one, client).join(room)
        self.settle()
        speaker = self.emitterOf(self.URL)
        for room in rooms:
            self.resultOf(speaker.to(room).emit("hi", room))
        self.assertEqual(self.get(client), [[("hi", room) for room in rooms]])
        self.resultOf(speaker.close())

    def test_oneAway(self) -> None:
        speaker = self.emitterOf(self.URL)
        self.hubs[1].stop()
        for place, rooms in enumerate(self.rooms(3)):
            for room in rooms:
                said = speaker.to(room).emit("hi")
                self.settle()
                if place == 1:
                    self.failureResultOf(said, BusError)
                else:
                    self.assertIsNone(self.successResultOf(said))
        self.resultOf(speaker.close())

    def test_blocking(self) -> None:
        published: list[tuple[str, str]] = []

        class Publisher:
            def __init__(self, url: str) -> None:
                self.url = url

            def publish(self, topic: str, payload: bytes) -> None:
                published.append((self.url, topic))

            def close(self) -> None:
                published.append((self.url, "closed"))

        self.patch(emitter, "publisherFromURL", lambda url, fanout, timeout: Publisher(url))
        urls = splitBuses(self.URL)
        with Emitter(self.URL) as speaker:
            for place, rooms in enumerate(self.rooms(3)):
                for room in rooms:
                    speaker.to(room).emit("hi")
                    self.assertEqual(published.pop(), (urls[place], f"txrealtime,/,{room}"))
        self.assertEqual(published, [(url, "closed") for url in urls])


class LinksBus:
    """
    A face of a bus for :class:`Links`, so that the tests of every bus run on it.

    A publisher and a subscriber are links of their own.
    """

    name = "several"
    patterns = False

    def __init__(self, buses: Buses) -> None:
        self._buses = buses

    def _open(self, reactor: Any, make: Callable[[Links], Any]) -> Deferred[Any]:
        links = Links(self._buses, reactor, maxMessage=4_000_000)
        opened: Deferred[Any] = Deferred(lambda _: links.stop())
        links.start()
        links.whenReady().addCallbacks(lambda _: opened.callback(make(links)), lambda failure: None)
        return opened

    def openPublisher(self, reactor: Any, owner: Owner) -> Deferred[Any]:
        return self._open(reactor, LinksPublisher)

    def openSubscriber(self, reactor: Any, lost: Callable[[str], object]) -> Deferred[Any]:
        return self._open(reactor, LinksSubscriber)


class LinksPublisher:
    def __init__(self, links: Links) -> None:
        self._links = links
        self.publish = links.publish
        self.countSubscribers = links.countSubscribers

    def close(self) -> Deferred[None]:
        return self._links.stop()

    def abort(self) -> None:
        self._links.stop()

    @property
    def unconfirmed(self) -> int:
        return sum(link.counts.unconfirmed for link in self._links.links)


class LinksSubscriber:
    def __init__(self, links: Links) -> None:
        self._links = links

    def subscribe(self, subscription: Subscription) -> Deferred[None]:
        self._links.subscribe(subscription.topic, subscription.deliver)
        return self._links.whenSubscribed(subscription.topic)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._links.unsubscribe(subscription.topic)

    def ping(self) -> None:
        pass

    def abort(self) -> None:
        self._links.stop()


class LinksTests(BusUser, TestCase):
    """The tests of every bus, as far as they are about topics and messages, on links to three brokers."""

    isOrderedOverTopics = False

    test_toAllWhoSubscribed = BusTestsMixin.test_toAllWhoSubscribed
    test_inOrderOfEachPublisher = BusTestsMixin.test_inOrderOfEachPublisher
    test_inOrderOverAllTopics = BusTestsMixin.test_inOrderOverAllTopics
    test_anyPayload = BusTestsMixin.test_anyPayload
    test_anyTopic = BusTestsMixin.test_anyTopic
    test_unsubscribed = BusTestsMixin.test_unsubscribed
    test_closedAfterTheLastMessage = BusTestsMixin.test_closedAfterTheLastMessage
    test_aborted = BusTestsMixin.test_aborted
    test_manySubscriptions = BusTestsMixin.test_manySubscriptions

    def setUp(self) -> None:
        self.clock = self.reactor = Clock()
        hubs = [MemoryHub() for _ in NAMES]
        buses = [NamedBus(*each) for each in zip(NAMES, hubs, strict=True)]
        self.bus = LinksBus(Buses(Spread(NAMES, "key"), buses))  # type: ignore[assignment]

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(1000):
            if condition():
                return
            self.clock.advance(0.001)
        self.fail("it did not happen")

    def test_twoPlaces(self) -> None:
        """While a list changes, a topic is heard at both owners and confirmed by both."""
        hubs = [MemoryHub() for _ in range(2)]
        spread = Spread(NAMES[:2], "key", NAMES[1:2], "both")
        topic = next(t for t in TOPICS if len(spread.placesOf(t)) == 2)
        links = Links(Buses(spread, [NamedBus(*each) for each in zip(NAMES, hubs, strict=False)]), self.clock)
        self.addCleanup(links.stop)
        heard: list[bytes] = []
        links.subscribe(topic, lambda topic, payload: heard.append(payload))
        confirmed = links.whenSubscribed(topic)
        hubs[1].pause()
        links.start()
        self.clock.pump([0.01] * 10)
        self.assertNoResult(confirmed)
        hubs[1].resume()
        self.clock.pump([0.01] * 10)
        self.successResultOf(confirmed)
        self.assertIs(links.status, LinkStatus.READY)
        for number, hub in enumerate(hubs):
            hub.deliver(topic, b"%d" % number)
        self.assertEqual(heard, [b"0", b"1"])
        links.unsubscribe(topic)
        for hub in hubs:
            hub.deliver(topic, b"late")
        self.assertEqual(len(heard), 2)
        self.assertRaises(ValueError, links.subscribe, "*", print, True)

    def test_stoppedBeforeReady(self) -> None:
        hub = MemoryHub()
        hub.stop()
        links = Links(Buses(Spread(NAMES[:1], "key"), [NamedBus(NAMES[0], hub)]), self.clock)
        links.start()
        ready = links.whenReady()
        links.stop()
        self.failureResultOf(ready, BusError)
        self.assertIs(links.status, LinkStatus.STOPPED)


class MonitorTests(SpreadTestCase):
    """Health checks and metrics name each broker."""

    NAMES = ("one",)

    def test_health(self) -> None:
        import json

        from txrealtime.monitor.health import Health, Ready

        self.hubs[1].stop()
        self.advance(1)
        request: Any = type("Request", (), {"uri": b"/readyz?verbose"})()
        fit, body = Health(self.one)._answer(request)
        self.assertTrue(fit)
        self.assertEqual(json.loads(body)["buses"], {NAMES[0]: "ready", NAMES[1]: "deaf", NAMES[2]: "ready"})
        fit, body = Ready(self.one)._answer(request)
        self.assertTrue(fit)
        self.assertIn(f"[+] bus: partly, without {NAMES[1]}\n".encode(), body)
        for hub in self.hubs:
            hub.stop()
        self.advance(1)
        self.assertFalse(Ready(self.one)._answer(request)[0])
        self.assertFalse(Health(self.one)._answer(request)[0])
        for hub in self.hubs:
            hub.start()
        self.advance(3)

    def test_metrics(self) -> None:
        from txrealtime.monitor.counts import ServerCounts
        from txrealtime.monitor.families import Reader

        self.hubs[1].stop()
        self.advance(1)
        reader: Any = Reader(self.one, ServerCounts(self.one), None, dict)  # type: ignore[arg-type]
        values = reader._ofTheBus()
        self.assertEqual(values["bus_link_up"], {(NAMES[0],): 1, (NAMES[1],): 0, (NAMES[2],): 1})
        self.assertEqual(set(values["bus_link_published"]), {(name,) for name in NAMES})
        self.assertEqual(values["servers_apart"], {(): 0})
        self.hubs[1].start()
        self.advance(3)
