"""
Presence on one server and on several: everybody sees the same, and nobody stays who has gone.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from twisted.internet.defer import CancelledError

from tests.clusters import SETTLED, ClusterTestCase
from tests.talk import TalkTestCase
from txrealtime import BusError, LimitExceeded, Namespace, Presence, Present, Server
from txrealtime.cluster import rosters
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.dialects.messages import Roll, RosterNumbers, RosterPage, Track
from txrealtime.cluster.rosters import _pages
from txrealtime.socketio import presence
from txrealtime.socketio.presence import Entry
from txrealtime.testing import Client, MemoryBus, MemoryHub


class Diary:
    """The events of a presence, each as its kind, the key, and the data of all entries."""

    def __init__(self, presence: Presence) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.stop = presence.watch(
            lambda present: self.note("joined", present),
            lambda present: self.note("left", present),
            lambda present: self.note("changed", present),
        )

    def note(self, kind: str, present: Present) -> None:
        self.events.append((kind, present.key, *(entry.data.get("n") for entry in present.entries)))

    def take(self) -> list[tuple[Any, ...]]:
        """Take the events since the last call."""
        taken, self.events = self.events, []
        return taken


def keys(people: list[Present]) -> list[str]:
    return [present.key for present in people]


class OneServerTests(TalkTestCase):
    """A server without a bus."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.red = self.server.presence("red")
        self.diary = Diary(self.red)
        self.ann, self.bob = self.join(self.server), self.join(self.server)
        self.ann1, self.bob1 = (self.socketOf(self.server, client) for client in (self.ann, self.bob))

    def test_track(self) -> None:
        """A tracked socket is in the room, and listed with its data."""
        self.red.track(self.ann1, {"n": 1})
        self.assertIn("red", self.ann1.rooms)
        [present] = self.successResultOf(self.red.here())
        self.assertEqual((present.room, present.key, present.data), ("red", self.ann1.id, {"n": 1}))
        self.assertEqual(self.diary.take(), [("joined", self.ann1.id, 1)])
        self.assertEqual(self.red.get(self.ann1.id), present)
        self.assertIsNone(self.red.get("nobody"))

    def test_leave(self) -> None:
        """Presence ends with the room, with the namespace, by untrack(), or by an order to the room."""
        for leave in (
            lambda: self.ann1.leave("red"),
            lambda: self.red.untrack(self.ann1),
            lambda: self.server.to("red").leave("red"),
            lambda: self.ann.disconnect(),
        ):
            self.red.track(self.ann1, {"n": 1})
            leave()
            self.assertEqual([kind for kind, *_ in self.diary.take()], ["joined", "left"])
            self.assertEqual(self.red.known, [])

    def test_untrackedStaysInTheRoom(self) -> None:
        self.red.track(self.ann1)
        self.red.untrack(self.ann1)
        self.red.untrack(self.bob1)
        self.assertIn("red", self.ann1.rooms)

    def test_gone(self) -> None:
        """A socket that has gone cannot be tracked, which is no error."""
        self.ann.close()
        self.red.track(self.ann1)
        self.assertEqual(self.red.known, [])

    def test_tabs(self) -> None:
        """Sockets with one key come once, and leave with the last of them."""
        self.red.track(self.ann1, {"n": 1}, key="ann")
        self.red.track(self.bob1, {"n": 2}, key="ann")
        [present] = self.red.known
        self.assertEqual([entry.id for entry in present.entries], [self.ann1.id, self.bob1.id])
        self.assertEqual(present.data, {"n": 2})
        self.ann.close()
        self.bob.close()
        self.assertEqual(
            self.diary.take(),
            [("joined", "ann", 1), ("changed", "ann", 1, 2), ("changed", "ann", 2), ("left", "ann", 2)],
        )

    def test_newData(self) -> None:
        """A socket that is tracked again keeps its place, and the same data are no event."""
        self.red.track(self.ann1, {"n": 1}, key="ann")
        self.red.track(self.bob1, {"n": 2}, key="bob")
        self.red.track(self.ann1, {"n": 3}, key="ann")
        self.red.track(self.ann1, {"n": 3}, key="ann")
        self.assertEqual(keys(self.red.known), ["ann", "bob"])
        self.assertEqual(
            self.diary.take(), [("joined", "ann", 1), ("joined", "bob", 2), ("changed", "ann", 3)]
        )

    def test_newKey(self) -> None:
        """A socket that is tracked by another key has left under the first."""
        self.red.track(self.ann1, {"n": 1}, key="ann")
        self.red.track(self.bob1, {"n": 2}, key="bob")
        self.red.track(self.ann1, {"n": 1}, key="anna")
        self.assertEqual(keys(self.red.known), ["bob", "anna"])
        self.assertEqual(self.diary.take()[2:], [("left", "ann", 1), ("joined", "anna", 1)])

    def test_severalRooms(self) -> None:
        everywhere = Diary(self.server.presence())
        self.red.track(self.ann1, key="ann")
        self.server.presence("blue").track(self.ann1, key="ann")
        self.assertEqual([present.room for present in self.server.presence().known], ["red", "blue"])
        self.ann.close()
        self.assertEqual(Counter(kind for kind, *_ in everywhere.take()), Counter({"joined": 2, "left": 2}))
        self.assertEqual([kind for kind, *_ in self.diary.take()], ["joined", "left"])

    def test_allRoomsAreNoRoom(self) -> None:
        everywhere = self.server.presence()
        for call in (
            lambda: everywhere.track(self.ann1),
            lambda: everywhere.untrack(self.ann1),
            lambda: everywhere.get("ann"),
        ):
            self.assertIn("name the room", str(self.assertRaises(ValueError, call)))

    def test_namespaces(self) -> None:
        """Each namespace has presences of its own."""
        self.red.track(self.ann1)
        self.assertEqual(self.server.namespace("/other").presence("red").known, [])

    def test_copies(self) -> None:
        """Nobody can change the data by changing what they gave or got."""
        data = {"n": 1, "list": [1]}
        self.red.track(self.ann1, data)
        data["list"].append(2)  # type: ignore[attr-defined]
        self.red.known[0].data["list"].append(3)
        self.assertEqual(self.red.known[0].data, {"n": 1, "list": [1]})

    def test_watchLater(self) -> None:
        """A watch begins with those who are there, and ends when asked."""
        self.red.track(self.ann1, {"n": 1}, key="ann")
        later = Diary(self.red)
        self.assertEqual(later.take(), [("joined", "ann", 1)])
        later.stop()
        later.stop()
        self.red.untrack(self.ann1)
        self.assertEqual(later.take(), [])

    def test_watchersMayChange(self) -> None:
        """A watcher may track, and all watchers hear the changes in their order."""

        def rename(present: Present) -> None:
            if present.data["n"] == 1:
                self.red.track(self.ann1, {"n": 2}, key="ann")

        self.red.watch(rename)
        last = Diary(self.red)
        self.red.track(self.ann1, {"n": 1}, key="ann")
        expected = [("joined", "ann", 1), ("changed", "ann", 2)]
        self.assertEqual((self.diary.take(), last.take()), (expected, expected))

    def test_watchersMayWatch(self) -> None:
        """A watch that begins in the middle of a change hears it once."""
        begun: list[Diary] = []
        self.red.watch(lambda present: begun.append(Diary(self.red)))
        self.red.track(self.ann1, {"n": 1}, key="ann")
        self.assertEqual(begun[0].take(), [("joined", "ann", 1)])

    def test_watchersThatFail(self) -> None:
        """The error of a watcher is logged, and the others hear the change."""

        async def fails(present: Present) -> None:
            raise RuntimeError("as planned")

        self.red.watch(fails)
        self.red.watch(lambda present: 1 / 0)
        last = Diary(self.red)
        self.red.track(self.ann1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(last.take()), 1)
        self.assertRaises(TypeError, self.red.watch, lambda: None)

    def test_wrong(self) -> None:
        """A mistake is an error at once, and the socket is not in the room."""
        for error, data, options, text in (
            (TypeError, ["n"], {}, "expected a dictionary"),
            (TypeError, {"n": b"x"}, {}, "have bytes"),
            (TypeError, {"n": object()}, {}, "object"),
            (ValueError, {"n": float("nan")}, {}, ""),
            (ValueError, {"n": "x" * presence.MAX_DATA}, {}, "4096 at most"),
            (TypeError, {}, {"key": 5}, "expected a str"),
            (ValueError, {}, {"key": ""}, "is empty"),
            (ValueError, {}, {"key": "k" * 257}, "256 at most"),
        ):
            raised = self.assertRaises(error, self.red.track, self.ann1, data, **options)
            self.assertIn(text, str(raised))
        for name in (5, 0, b"red", ["red"]):
            self.assertRaises(TypeError, self.server.presence, name)
        self.assertRaises(ValueError, self.server.presence("r" * 257).track, self.ann1)
        self.assertRaises(ValueError, self.server.presence(self.bob1.id).track, self.ann1)
        self.assertEqual((self.red.known, self.ann1.rooms), ([], {self.ann1.id}))

    def test_tooMany(self) -> None:
        """The entries of a namespace have a bound; new data for an entry are no new entry."""
        self.patch(presence, "MAX_ENTRIES", 1)
        self.red.track(self.ann1, {"n": 1})
        self.assertRaises(LimitExceeded, self.red.track, self.bob1)
        self.assertNotIn("red", self.bob1.rooms)
        self.red.track(self.ann1, {"n": 2})
        self.ann.close()
        self.red.track(self.bob1)

    def test_inAdmission(self) -> None:
        """A handler of connections may track; who is refused then has left."""
        admitted = []

        def connected(socket: Any, auth: Any) -> bool:
            self.red.track(socket, {"n": 3}, key="carl")
            admitted.append(keys(self.red.known))
            return False

        self.server.onConnect(connected)
        self.failureResultOf(self.makeClient(self.server).connect("/"))
        self.assertEqual(admitted, [["carl"]])
        self.assertEqual(self.red.known, [])

    def test_successorWithTheSameId(self) -> None:
        """In revision 4 a socket that leaves late does not end the presence of its successor."""
        self.red.track(self.ann1, {"n": 1})
        self.red._roster.left(self.bob1, "red")
        other = self.bob1
        other.id, kept = self.ann1.id, other.id
        self.red._roster.left(other, "red")
        self.assertEqual(len(self.red.known), 1)
        other.id = kept

    def test_beforeMounting(self) -> None:
        """A class may watch in __init__()."""

        class Meeting(Namespace):
            def __init__(self) -> None:
                super().__init__()
                self.diary = Diary(self.presence("red"))

        meeting = Meeting()
        self.server.mount("/meeting", meeting)
        client = self.join(self.server, "/meeting")
        meeting.presence("red").track(self.socketOf(self.server, client, "/meeting"), {"n": 1}, key="ann")
        self.assertEqual(meeting.diary.take(), [("joined", "ann", 1)])

    def test_recovery(self) -> None:
        """
        A client that comes back is present when it is tracked in connected().

        With `recoveryAway` it has not left meanwhile, as it has stayed in its rooms.
        """
        for away, expected in (False, ["joined", "left", "joined"]), (True, ["joined"]):
            server = self.makeServer(recoveryWindow=60, recoveryAway=away)
            red = server.presence("red")
            diary = Diary(red)
            server.onConnect(self.trackedIn(red))
            client = self.join(server)
            client.lose()
            self.assertEqual(len(red.known), int(away))
            client.comeBack()
            self.advance(0.1)
            self.assertEqual([kind for kind, *_ in diary.take()], expected)
            self.assertEqual(len(red.known), 1)
            client.close()
            self.advance(60)
            self.assertEqual(diary.take(), [("left", "ann", None)])

    def trackedIn(self, presence: Presence) -> Any:
        """Return a handler of connections that tracks each client."""

        def connected(socket: Any) -> None:
            presence.track(socket, key="ann")

        return connected

    def test_patternNamespace(self) -> None:
        """A namespace that was made for a pattern takes its presence with it."""
        self.server.mount(re.compile("/room/[0-9]+"), Namespace)
        client = self.join(self.server, "/room/1")
        socket = self.socketOf(self.server, client, "/room/1")
        socket.namespace.presence("red").track(socket)
        client.disconnect("/room/1")
        again = self.join(self.server, "/room/1")
        namespace = self.socketOf(self.server, again, "/room/1").namespace
        self.assertEqual(namespace.presence("red").known, [])


class LocalTests(ClusterTestCase):
    def test_local(self) -> None:
        """A local audience is that of one server, whatever is done to it."""
        ann, bob = self.join(self.one), self.join(self.two)
        self.one.local.join("red")
        bob.received()
        self.socketOf(self.two, bob).join("red")
        self.settle()
        for audience in (
            self.one.local,
            self.one.local.to("red"),
            self.one.to("red").local,
            self.one.local.excluding("blue"),
        ):
            audience.emit("hi")
            self.assertEqual(self.get(ann, bob), [[("hi",)], []])
        self.assertEqual(len(self.resultOf(self.one.to("red").local.fetch())), 1)
        ann.on("name?", lambda: "ann")
        bob.on("name?", lambda: "bob")
        self.assertEqual(self.resultOf(self.one.local.call("name?")), ["ann"])
        self.one.local.leave("red")
        self.one.local.disconnect()
        self.settle()
        self.assertEqual((ann.isConnected(), bob.isConnected()), (False, True))
        self.assertIn("red", self.socketOf(self.two, bob).rooms)


class ClusterPresenceTestCase(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.diaries = [Diary(server.presence("red")) for server in self.servers]
        self.settle()

    def come(self, server: Server, key: str | None = None, n: int = 0, room: str = "red") -> Client:
        """A client on a server, present in a room."""
        client = self.join(server)
        server.presence(room).track(self.socketOf(server, client), {"n": n}, key=key)
        return client

    def lists(self) -> list[list[str]]:
        """Return the keys in red, as each running server knows them."""
        self.settle()
        return [keys(server.presence("red").known) for server in self.servers if server.running]

    def assertAlike(self, *expected: str) -> None:
        for listed in self.lists():
            self.assertEqual(listed, list(expected))

    def events(self) -> list[list[tuple[Any, ...]]]:
        """Take the events of each server."""
        self.settle()
        return [diary.take() for diary in self.diaries]


class ClusterTests(ClusterPresenceTestCase):
    def test_joinsAndLeaves(self) -> None:
        ann = self.come(self.one, "ann", 1)
        self.assertEqual(self.events(), [[("joined", "ann", 1)]] * 3)
        self.come(self.two, "bob", 2)
        self.assertEqual(self.events(), [[("joined", "bob", 2)]] * 3)
        self.assertAlike("ann", "bob")
        here = [self.resultOf(server.presence("red").here()) for server in self.servers]
        self.assertEqual(here[0], here[1])
        self.assertEqual(here[0], here[2])
        ann.close()
        self.assertEqual(self.events(), [[("left", "ann", 1)]] * 3)
        self.assertAlike("bob")

    def test_tabsOnSeveralServers(self) -> None:
        first, second = self.come(self.one, "ann", 1), self.come(self.two, "ann", 2)
        self.settle()
        first.close()
        self.settle()
        second.close()
        for events in self.events():
            self.assertEqual(events[0][:2], ("joined", "ann"))
            self.assertEqual(Counter(kind for kind, *_ in events)["left"], 1)
            self.assertEqual(events[-1], ("left", "ann", 2))

    def test_newData(self) -> None:
        ann = self.come(self.one, "ann", 1)
        self.one.presence("red").track(self.socketOf(self.one, ann), {"n": 2}, key="ann")
        self.assertEqual(self.events(), [[("joined", "ann", 1), ("changed", "ann", 2)]] * 3)
        self.one.presence("red").track(self.socketOf(self.one, ann), {"n": 2}, key="anna")
        self.assertEqual(self.events(), [[("left", "ann", 2), ("joined", "anna", 2)]] * 3)
        # The only entry of its server: peers kept the new key for good.
        ann.close()
        self.assertEqual(self.events(), [[("left", "anna", 2)]] * 3)
        self.assertAlike()

    def test_takenOutFromAfar(self) -> None:
        """To put somebody out of the room from another server ends the presence too."""
        ann = self.come(self.one, "ann")
        self.settle()
        self.two.to(ann.id()).leave("red")
        self.assertAlike()

    def test_sameOrderEverywhere(self) -> None:
        """People who come at the same moment to several servers are listed in one order."""
        for n in range(4):
            for number, server in enumerate(self.servers):
                self.come(server, f"{number}-{n}")
        first, *others = self.lists()
        self.assertEqual(len(first), 12)
        self.assertEqual(others, [first, first])

    def test_causalOrder(self) -> None:
        """People who come after a server has heard of others are listed behind them."""
        for n in range(6):
            self.come(self.servers[n % 3], str(n))
            self.settle()
        self.assertAlike(*"012345")

    def test_timeOrder(self) -> None:
        """Entries of servers that have not heard of each other are sorted by time."""
        self.hub.pause()
        for n in range(6):
            self.come(self.servers[-n % 3], str(n))
            self.clock.advance(0.01)
        self.hub.resume()
        self.assertAlike(*"012345")

    def test_beforeAnEventOfTheSame(self) -> None:
        """A server knows who is there before the next thing that they say."""
        known: list[list[str]] = []
        bob = self.come(self.two, "bob")
        self.settle()
        bob.on("said", lambda: known.append(keys(self.two.presence("red").known)))
        ann = self.come(self.one, "ann")
        self.socketOf(self.one, ann).to("red").call("said")
        self.settle()
        self.assertEqual(known, [["bob", "ann"]])

    def test_rename(self) -> None:
        """A watcher that tracks does not let others see the changes in another order."""

        def rename(present: Present) -> None:
            if present.data["n"] == 1 and present.key == "ann":
                self.one.presence("red").track(
                    self.one.namespace().sockets[present.entries[0].id], {"n": 2}, key="ann"
                )

        self.one.presence("red").watch(rename)
        self.come(self.one, "ann", 1)
        self.assertEqual(self.events(), [[("joined", "ann", 1), ("changed", "ann", 2)]] * 3)

    def test_onlyWhereUsed(self) -> None:
        """A server that does not use presence in a namespace is told nothing, and learns all at first use."""
        for server in self.servers[:2]:
            server.namespace("/chat").presence("red")
        ann = self.join(self.one, "/chat")
        self.one.namespace("/chat").presence("red").track(self.socketOf(self.one, ann, "/chat"), key="ann")
        self.settle()
        here = self.three.namespace("/chat").presence("red").here()
        self.assertNoResult(here)
        self.assertEqual(keys(self.resultOf(here)), ["ann"])

    def test_newcomer(self) -> None:
        """A server that starts later learns who is there, also those whom nobody has changed since."""
        ann = self.come(self.one, "ann", 1)
        self.settle()
        self.come(self.two, "bob", 2)
        self.settle()
        four = self.member("four")
        early = four.presence("red").here()
        self.assertEqual(keys(self.successResultOf(early)), [])  # no link yet
        self.clock.advance(0)
        self.advance(1.1)
        waiting = four.presence("red").here()
        self.advance(SETTLED)
        self.assertEqual(keys(self.successResultOf(waiting)), ["ann", "bob"])
        ann.close()
        self.assertAlike("bob")

    def test_newcomerWaits(self) -> None:
        """A server that has just become ready waits until it knows the others."""
        self.come(self.one, "ann")
        four = self.member("four")
        for _ in range(60):
            self.clock.advance(0.05)
            if four.cluster.isReady:
                break
        here = four.presence("red").here()
        self.assertNoResult(here)
        self.advance(SETTLED)
        self.assertEqual(keys(self.successResultOf(here)), ["ann"])

    def test_presentBeforeTheStart(self) -> None:
        """Sockets that a server got before it had a bus are told when it has one."""
        four = self.makeServer(start=False)
        self.come(four, "ann", 1)
        four.cluster.use(MemoryBus(self.hub))
        four.startService()
        self.advance(SETTLED)
        self.assertAlike("ann")
        self.come(four, "bob", 2)
        self.assertAlike("ann", "bob")

    def test_stop(self) -> None:
        """The people of a server that stops have left, and are back with it."""
        self.come(self.one, "ann", 1)
        self.settle()
        self.come(self.two, "bob", 2)
        self.events()
        stopping = self.one.stopService()
        self.clients[0].close()
        self.settle()
        self.successResultOf(stopping)
        self.assertEqual(
            self.events(), [[("left", "ann", 1), ("left", "bob", 2)]] + [[("left", "ann", 1)]] * 2
        )
        self.one.startService()
        self.advance(SETTLED)
        self.assertAlike("bob")

    def test_lostByItsLease(self) -> None:
        """The people of a server that was killed have left when its lease is over."""
        self.come(self.one, "ann", 1)
        self.settle()
        self.come(self.two, "bob", 2)
        self.events()
        self.kill(self.one)
        self.advance(10)
        self.assertEqual(self.lists()[1:], [["ann", "bob"]] * 2)
        self.advance(15)
        self.assertEqual(self.lists()[1:], [["bob"]] * 2)
        self.assertEqual(self.events()[1:], [[("left", "ann", 1)]] * 2)

    def kill(self, server: Server) -> None:
        """Let nothing come from a server or to it any more."""
        uid = server.cluster.uid
        self.hub.loses = lambda sender, receiver: uid in (sender, receiver)

    def test_netsplit(self) -> None:
        """Servers that were separated list their own people, and all again when they are together."""
        self.come(self.one, "ann", 1)
        bob = self.come(self.two, "bob", 2)
        self.events()
        self.hub.split(self.one)
        self.advance(25)
        self.assertEqual(self.lists(), [["ann"], ["bob"], ["bob"]])
        self.come(self.one, "anna", 3)
        bob.close()
        self.come(self.three, "carl", 4)
        self.events()
        self.hub.heal()
        self.advance(10)
        first = self.lists()[0]
        self.assertEqual(set(first), {"ann", "anna", "carl"})
        self.assertAlike(*first)
        self.assertEqual(
            [sorted(events) for events in self.events()],
            [[("joined", "carl", 4)]] + [[("joined", "ann", 1), ("joined", "anna", 3)]] * 2,
        )

    def test_outage(self) -> None:
        """Without the bus each server knows its own changes, and all when it is back."""
        ann = self.come(self.one, "ann", 1)
        self.settle()
        self.hub.stop()
        self.settle()
        self.come(self.two, "bob", 2)
        ann.close()
        here = self.three.presence("red").here()
        self.assertEqual(keys(self.successResultOf(here)), ["ann"])
        self.hub.start()
        self.advance(5)
        self.assertAlike("bob")

    def test_lostChange(self) -> None:
        """A change that was lost without a word is noticed with the next, or the next announcement."""
        self.come(self.one, "ann", 1)
        self.settle()
        self.hub.split(self.one)
        ann2 = self.come(self.one, "ann2", 2)
        self.settle()
        self.hub.heal()
        self.assertEqual(self.lists()[1:], [["ann"]] * 2)
        self.come(self.one, "ann3", 3)
        self.assertAlike("ann", "ann2", "ann3")
        self.hub.split(self.one)
        ann2.close()
        self.settle()
        self.hub.heal()
        self.advance(5.5)
        self.assertAlike("ann", "ann3")

    def test_lostReply(self) -> None:
        """The entries that were asked for and did not come are asked for again."""
        self.come(self.one, "ann", 1)
        self.settle()
        self.hub.split(self.one)
        here = self.two.namespace("/late").presence("red").here()
        self.advance(5)
        self.assertEqual(self.successResultOf(here), [])
        # The servers that owe are not waited for again.
        self.assertEqual(self.resultOf(self.two.namespace("/late").presence("red").here()), [])
        self.one.namespace("/late")
        dave = self.join(self.one, "/late")
        self.one.namespace("/late").presence("red").track(self.socketOf(self.one, dave, "/late"), key="dave")
        self.hub.heal()
        self.advance(5.5)
        self.assertEqual(keys(self.two.namespace("/late").presence("red").known), ["dave"])

    def test_cancelled(self) -> None:
        self.hub.split(self.one)
        here = self.two.namespace("/late").presence("red").here()
        here.cancel()
        self.failureResultOf(here, CancelledError)
        self.assertEqual(self.successResultOf(self.two.namespace("/late").presence("red").here()), [])

    def test_unmountedNamespace(self) -> None:
        """The last leave of a namespace that goes with it may be lost; its ghost does not stay."""
        for server in self.servers:
            server.mount(re.compile("/game/[0-9]+"), Namespace)
        ann, bob = self.join(self.one, "/game/1"), self.join(self.two, "/game/1")
        for server, client, key in ((self.one, ann, "ann"), (self.two, bob, "bob")):
            socket = self.socketOf(server, client, "/game/1")
            socket.namespace.presence("red").track(socket, key=key)
        self.settle()
        presence = self.socketOf(self.two, bob, "/game/1").namespace.presence("red")
        self.assertEqual(set(keys(presence.known)), {"ann", "bob"})
        self.hub.split(self.one)
        ann.disconnect("/game/1")
        self.settle()
        self.hub.heal()
        self.assertEqual(set(keys(presence.known)), {"ann", "bob"})
        self.advance(5.5)
        self.assertEqual(keys(presence.known), ["bob"])

    def test_manyNamespaces(self) -> None:
        """Announcements name some namespaces each, in turn."""
        self.patch(rosters, "_TOLD", 2)
        for n in range(5):
            self.one.namespace(f"/{n}").presence()
            self.two.namespace(f"/{n}").presence()
        self.settle()
        self.hub.split(self.one)
        for n in range(5):
            client = self.join(self.one, f"/{n}")
            socket = self.socketOf(self.one, client, f"/{n}")
            socket.namespace.presence("red").track(socket, key="ann")
        self.settle()
        self.hub.heal()
        self.advance(16)
        for n in range(5):
            self.assertEqual(keys(self.two.namespace(f"/{n}").presence("red").known), ["ann"])

    def test_thousand(self) -> None:
        """A thousand members are alike on all servers, also on a later one, and a join is one message."""
        for n in range(1000):
            self.come(self.servers[n % 3], f"{n:04}")
        self.settle()
        first, *others = self.lists()
        self.assertEqual(sorted(first), [f"{n:04}" for n in range(1000)])
        self.assertEqual(others, [first, first])
        published = self.one.cluster.link.counts.published
        self.come(self.one, "last")
        self.settle()
        self.assertEqual(self.one.cluster.link.counts.published, published + 1)
        four = self.member("four")
        four.presence("red")
        self.advance(SETTLED)
        self.assertEqual(self.lists()[3], [*first, "last"])

    def test_bound(self) -> None:
        """Entries of peer servers above the bound are ignored, with a line in the log, and nothing fails."""
        self.patch(presence, "MAX_ENTRIES", 2)
        clients = [self.come(self.one, "ann"), self.come(self.one, "bob")]
        self.come(self.two, "carl")
        self.settle()
        self.assertEqual([len(each) for each in self.lists()], [2, 2, 2])
        for client in clients:
            client.close()
        self.settle()
        self.come(self.three, "dave")
        self.settle()

    def test_otherDialects(self) -> None:
        """The dialects of others cannot carry presence, and say so."""
        for name in ("python-socketio", "node"):
            server = self.makeServer(start=False)
            server.cluster.use(MemoryBus(MemoryHub()), DialectChoice(name, "x"))
            server.startService()
            self.advance(SETTLED)
            error = self.assertRaises(BusError, server.presence, "red")
            self.assertIn(f"dialect {name}", str(error))

    def test_otherDialectAtTheStart(self) -> None:
        """Presence that is in use already refuses the bus."""
        server = self.makeServer(start=False)
        server.presence("red")
        server.cluster.use(MemoryBus(MemoryHub()), DialectChoice("node", "x"))
        error = self.assertRaises(ValueError, server.cluster.open)
        self.assertIn("dialect node", str(error))

    def test_unknownServer(self) -> None:
        """Entries of a server that has not announced itself, and has no lease, are ignored."""
        dialect = DialectChoice().create("stranger")
        entry = Entry("red", "x", "x", "{}", 1)
        for message in (
            Track("/", "stranger", 0, 1, entry, True),
            RosterPage("/", "stranger", self.one.cluster.uid, 1, 0, False, [entry]),
            RosterNumbers("stranger", {"/": 5}),
            Roll(["/", "/none"], "stranger", self.one.cluster.uid),
        ):
            for topic, data in dialect.write(message):
                self.hub.deliver(topic, data)
        self.assertAlike()

    def test_pages(self) -> None:
        """Large rosters go in several messages, each below the limit, and a lost one is noticed."""
        entry = Entry("r" * 256, "i" * 256, "k" * 256, "\U0001f600" * 4096, 1)
        pages = _pages([entry] * 500)
        self.assertGreater(len(pages), 1)
        self.assertEqual(sum(map(len, pages)), 500)
        dialect = DialectChoice().create("abcdefgh")
        for page in pages:
            [(_, data)] = dialect.write(RosterPage("/", "abcdefgh", "x", 1, 0, False, page))
            self.assertLess(len(data), 2_000_000)
        self.assertEqual(_pages([]), [[]])
        self.patch(rosters, "_PAGE", 1)
        for n in range(5):
            self.come(self.one, f"ann{n}")
        self.settle()
        four = self.member("four")
        four.presence("red")
        self.advance(SETTLED)
        self.assertEqual(self.lists()[3], [f"ann{n}" for n in range(5)])
