"""
Clients that come back when their server has died or hangs: their sessions and events are in Redis.
"""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.internet.defer import Deferred

from tests.streams import NativeBus, NativeHub
from tests.test_handover import HandoverTestCase
from txrealtime import Namespace, Server, Socket
from txrealtime.cluster import missedevents
from txrealtime.cluster.dialects.messages import Emit, Target
from txrealtime.cluster.rereading import Found
from txrealtime.engineio import packet as engineio
from txrealtime.errors import BusError
from txrealtime.socketio.clients import Claim
from txrealtime.testing import Client


class KeepingTestCase(HandoverTestCase):
    """
    Three servers on one stream; alice is on the first, in red, has the events 1, and is away.
    """

    HUB = NativeHub
    BUS = NativeBus
    options: dict[str, Any] = {"recovery": "all"}
    hub: NativeHub

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.arrive()
        self.tell(1)
        self.assertEqual(self.get(self.alice), [[("one", 1), ("two", 1)]])
        self.sid = self.alice.id()
        self.alice.lose()
        self.settle()

    def tearDown(self) -> None:
        self.hub.heal()
        super().tearDown()

    def arrive(self) -> Client:
        client = self.join(self.one)
        self.socketOf(self.one, client).join("red")
        self.settle()
        return client

    def hang(self, *servers: Server) -> None:
        """Let servers hear nothing from now on."""
        uids = {server.cluster.uid for server in servers}
        self.hub.loses = lambda sender, receiver: receiver in uids

    def kill(self, *servers: Server) -> None:
        """Let servers do nothing from now on that the test does not do."""
        self.hang(*servers)
        for server in servers:
            server.cluster._keeping.stop()

    def during(self, name: bytes, act: Any) -> None:
        """Do something once when the next command of a name comes to Redis."""

        def came(words: list[bytes]) -> None:
            if words[0] == name:
                self.hub.answers = lambda words: None
                act()

        self.hub.answers = came

    def back(self, client: Client, server: Server, seconds: float = 10.0) -> None:
        coming = client.comeBack(server=server)
        self.advance(seconds)
        self.successResultOf(coming)

    def tell(self, *numbers: int) -> None:
        """Send numbers to everybody, from two servers."""
        for number in numbers:
            self.one.emit("one", number)
            self.two.emit("two", number)
            self.settle()

    def assertGot(self, client: Client, **numbers: list[int]) -> None:
        """Compare what a client that was recovered has got since the last time, by the name of the event."""
        self.settle()
        got = client.received()
        self.assertTrue(client.recovered())
        for name, expected in numbers.items():
            self.assertEqual([number for event, number in got if event == name], expected, name)
        self.assertEqual(len(got), sum(map(len, numbers.values())))


class DiedTests(KeepingTestCase):
    def test_all(self) -> None:
        """The events of all servers, in the order of each, and then the live ones."""
        self.tell(2)
        self.kill(self.one)
        self.two.emit("two", 3)
        self.back(self.alice, self.two)
        self.two.emit("two", 4)
        self.assertGot(self.alice, one=[2], two=[2, 3, 4])

    def test_firstEvents(self) -> None:
        """A client that has had no event gets those of the handler that admitted it."""

        @self.one.onConnect
        def came(socket: Socket) -> None:
            socket.emit("begin", 1)

        bob = self.join(self.one)
        self.settle()
        (key,) = [key for key in self.hub.keys if bob.id() in self.hub.keys[key].decode()]
        session = json.loads(self.hub.keys[key].decode().partition(" ")[2])
        bob.lose()
        self.kill(self.one)
        claim = Claim(key.decode().rpartition(":")[2], None, True)
        Deferred.fromCoroutine(self.two.cluster._keeping.fetch(self.two.namespace(), claim, "127.0.0.1"))
        self.advance(4)
        ticket = self.two.namespace()._recovery.tickets[claim.pid]
        self.assertEqual([messages for _, _, messages in ticket.carried.events], [['2["begin",1]']])
        self.assertEqual(missedevents.placeOf(session["offset"])[2], session["since"])

    def test_goesWhileItIsFetched(self) -> None:
        """
        The connection is cut again while the second server reads.

        The offset of the client's last event stays one of the first server's, whoever has the key.
        """
        self.tell(2)
        self.kill(self.one)
        self.during(b"XRANGE", self.alice.lose)
        self.alice.comeBack(server=self.two).addErrback(lambda failure: None)
        self.advance(10)
        self.two.emit("two", 3)
        self.back(self.alice, self.two)
        self.assertGot(self.alice, one=[2], two=[2, 3])

    def test_twoServersDie(self) -> None:
        """The second server dies after it has taken the key, and before the client is there."""
        self.tell(2)
        self.kill(self.one)
        (key,) = self.hub.keys
        claim = Claim(key.decode().rpartition(":")[2], None, True)
        fetching = self.two.cluster._keeping.fetch(self.two.namespace(), claim, "127.0.0.1")
        Deferred.fromCoroutine(fetching)
        self.settle()
        uid, _, text = self.hub.keys[key].decode().partition(" ")
        self.assertEqual((uid, json.loads(text)["server"]), (self.two.cluster.uid, self.one.cluster.uid))
        self.two.emit("two", 3)
        self.settle()
        self.kill(self.one, self.two)
        self.back(self.alice, self.three)
        self.assertGot(self.alice, one=[2], two=[2, 3])

    def test_takenMeanwhile(self) -> None:
        """Another server, from which the client has gone, takes the key while this one has just read it."""
        self.tell(2)
        self.kill(self.one)
        (key,) = self.hub.keys

        def take() -> None:
            uid, _, text = self.hub.keys[key].decode().partition(" ")
            taken = json.dumps({"server": uid, **json.loads(text)})
            self.hub.keys[key] = f"{self.two.cluster.uid} {taken}".encode()

        self.during(b"EVAL", take)
        self.back(self.alice, self.three)
        self.assertGot(self.alice, one=[2], two=[2])

    def test_takenTooLate(self) -> None:
        """A Redis that hung does nothing for those who asked long ago; they ask again, if they are there."""
        self.tell(2)
        self.kill(self.one)
        ((key, value),) = self.hub.keys.items()
        changed: list[bool] = []

        def hang() -> None:
            self.hub.now += 30
            self.clock.callLater(0, lambda: changed.append(self.hub.keys[key] != value))

        self.during(b"EVAL", hang)
        self.back(self.alice, self.two)
        self.assertEqual(changed, [False])
        self.assertGot(self.alice, one=[2], two=[2])

    def test_takenAgainAndAgain(self) -> None:
        """A key that changes each time is given up."""
        self.kill(self.one)
        (key,) = self.hub.keys

        def change(words: list[bytes]) -> None:
            if words[0] == b"EVAL":
                self.hub.keys[key] += b" "

        self.hub.answers = change
        self.hub.asked.clear()
        self.back(self.alice, self.two)
        self.assertFalse(self.alice.recovered())
        self.assertLess(len([words for words in self.hub.asked if words[0] == b"GET"]), 5)

    def test_heardWhileItIsRead(self) -> None:
        """An event that comes while the second server reads is in the stream and in that server's log."""
        self.kill(self.one)

        def speak() -> None:
            self.three.emit("three", 1)
            self.two.emit("two", 2)
            self.three.to("red").emit("three", 2)
            self.clock.advance(0)

        self.during(b"XINFO", speak)
        self.back(self.alice, self.two)
        self.three.emit("three", 3)
        self.assertGot(self.alice, three=[1, 2, 3], two=[2])

    def test_handedOn(self) -> None:
        """The second server stops before the client is there, and hands it to the third."""
        self.tell(2)
        self.kill(self.one)
        self.during(b"XRANGE", self.alice.lose)
        self.alice.comeBack(server=self.two).addErrback(lambda failure: None)
        self.advance(10)
        for server in (self.two, self.three):
            server.cluster._conversation.servers._remove(self.one.cluster.uid, "was killed")
        stopping = self.two.stopService()
        self.advance(4)
        self.successResultOf(stopping)
        self.hub.keys.clear()
        self.three.emit("three", 1)
        self.back(self.alice, self.three)
        self.assertGot(self.alice, one=[2], two=[2], three=[1])

    def test_fromTheQueue(self) -> None:
        """An event of the second server's own that waits for Redis when the client comes."""
        self.kill(self.one)
        outgoing = self.two.cluster.link._outgoing
        self.during(b"EVAL", lambda: setattr(outgoing, "_outlet", None))
        self.clock.callLater(6.5, lambda: self.two.emit("two", 2))
        self.clock.callLater(8, outgoing.proven)
        self.back(self.alice, self.two)
        self.assertGot(self.alice, two=[2])

    def test_trimmedWhileItIsRead(self) -> None:
        self.tell(2, 3)
        self.kill(self.one)

        def trim() -> None:
            del self.hub.entries[:-1]

        self.during(b"XRANGE", trim)
        self.back(self.alice, self.two)
        self.assertFalse(self.alice.recovered())

    def test_once(self) -> None:
        """Many clients of a dead server read the stream together."""
        others = [self.arrive() for _ in range(20)]
        for each in others:
            each.lose()
        self.tell(2)
        self.kill(self.one)
        self.hub.asked.clear()
        coming = [each.comeBack(server=self.two) for each in (self.alice, *others)]
        self.advance(10)
        for each in coming:
            self.successResultOf(each)
        for each in others:
            self.assertGot(each, one=[2], two=[2])
        self.assertGot(self.alice, one=[2], two=[2])
        self.assertLess(sum(words[0] == b"XRANGE" for words in self.hub.asked), 4)


class FailureTests(KeepingTestCase):
    """
    The connection to Redis ends at each of the commands, and is there again.
    """

    def check(self, name: bytes) -> None:
        def fail() -> None:
            for publisher in list(self.hub.publishers):
                publisher.end("a test")
            raise BusError("the connection was ended")

        self.tell(2)
        self.kill(self.one)
        self.during(name, fail)
        self.back(self.alice, self.two)
        self.assertGot(self.alice, one=[2], two=[2])

    def test_get(self) -> None:
        self.check(b"GET")

    def test_eval(self) -> None:
        self.check(b"EVAL")

    def test_xinfo(self) -> None:
        self.check(b"XINFO")

    def test_xrange(self) -> None:
        self.check(b"XRANGE")


class AwayTests(KeepingTestCase):
    """
    Redis is away when a client of a dead server comes, and is there again some seconds later.
    """

    def test_cut(self) -> None:
        """The connection ends while a command waits for its reply."""
        self.tell(2)
        self.kill(self.one)
        self.hub.pause()
        (key,) = self.hub.keys
        claim = Claim(key.decode().rpartition(":")[2], None, True)
        fetching = self.two.cluster._keeping.fetch(self.two.namespace(), claim, "127.0.0.1")
        fetched = Deferred.fromCoroutine(fetching)
        self.settle()
        for publisher in list(self.hub.publishers):
            publisher.end("a test")
        self.hub.resume()
        self.advance(4)
        self.assertEqual(self.successResultOf(fetched).id, self.sid)

    def leaves(self, seconds: float) -> None:
        """
        A server takes nothing for a client that has left it: the client is on another one, perhaps.

        The application is not asked to let it in.
        """
        asked: list[Socket] = []
        self.two.onConnect(asked.append)
        self.kill(self.one)
        self.hub.stop()
        coming = self.alice.comeBack(server=self.two)
        coming.addErrback(lambda failure: None)
        self.advance(seconds)
        self.alice.lose()
        ((key, value),) = self.hub.keys.items()
        self.hub.start()
        self.advance(7)
        self.assertEqual(self.hub.keys, {key: value})
        self.assertEqual(asked, [])

    def test_leavesANamespaceOfAPattern(self) -> None:
        """A namespace that was made for the client goes with it."""
        for server in (self.one, self.two):
            server.mount(re.compile("/room-.*"), Namespace)
        bob = self.join(self.one, "/room-1")
        self.settle()
        self.hub.stop()
        bob.comeBack(server=self.two).addErrback(lambda failure: None)
        self.advance(1)
        self.assertEqual(len(self.two.namespaces), 2)
        bob.lose()
        self.advance(1)
        self.assertEqual(len(self.two.namespaces), 1)
        self.hub.start()

    def test_leavesBeforeOthersAreAsked(self) -> None:
        self.leaves(1)

    def test_leavesBeforeRedisIsAsked(self) -> None:
        self.leaves(5)

    def away(self, seconds: float) -> None:
        """Let Redis be away for so long, from a moment before the client comes."""
        self.tell(2)
        self.kill(self.one)
        self.hub.stop()
        coming = self.alice.comeBack(server=self.two)
        self.advance(seconds)
        self.hub.start()
        self.advance(4)
        self.successResultOf(coming)

    def test_nineSeconds(self) -> None:
        self.away(9)
        self.assertGot(self.alice, one=[2], two=[2])

    def test_tooLong(self) -> None:
        self.away(14)
        self.assertFalse(self.alice.recovered())

    def test_refused(self) -> None:
        """A Redis that refuses the commands is not asked again and again."""
        self.kill(self.one)

        def refuse(words: list[bytes]) -> None:
            raise BusError("OOM command not allowed")

        self.hub.answers = refuse
        self.hub.asked.clear()
        self.back(self.alice, self.two, 7)
        self.assertFalse(self.alice.recovered())
        self.assertEqual([words[0] for words in self.hub.asked if words[0] == b"GET"], [b"GET"])


class CutOffTests(KeepingTestCase):
    """
    The first server is cut off from Redis and speaks to its own clients; then alice comes to another one.
    """

    def setUp(self) -> None:
        super().setUp()
        self.back(self.alice, self.one)
        self.hang(self.one)
        self.outgoing = self.one.cluster.link._outgoing
        self.outgoing._outlet = None
        self.one.emit("one", 2)
        self.one.to("red").emit("one", 3)
        self.socketOf(self.one, self.alice).emit("one", 4)
        self.assertGot(self.alice, one=[2, 3, 4])
        self.alice.lose()
        self.settle()
        self.one.emit("one", 5)

    def tearDown(self) -> None:
        self.reconnect()
        super().tearDown()

    def reconnect(self) -> None:
        """Let the first server publish what has waited."""
        self.outgoing.proven()
        self.settle()

    def test_afterwards(self) -> None:
        self.back(self.alice, self.two)
        self.reconnect()
        self.one.emit("one", 6)
        self.assertGot(self.alice, one=[5, 6])

    def test_whileItIsRead(self) -> None:
        self.during(b"XINFO", self.outgoing.proven)
        self.back(self.alice, self.two)
        self.one.emit("one", 6)
        self.assertGot(self.alice, one=[5, 6])

    def test_movedOn(self) -> None:
        """By the word of the second server, and without."""
        self.back(self.alice, self.two)
        self.alice.lose()
        self.settle()
        self.back(self.alice, self.three)
        self.reconnect()
        self.one.emit("one", 6)
        self.assertGot(self.alice, one=[5, 6])

    def test_twoServersGone(self) -> None:
        self.back(self.alice, self.two)
        self.two.emit("two", 2)
        self.assertGot(self.alice, two=[2])
        self.alice.lose()
        self.settle()
        self.hang(self.one, self.two)
        self.back(self.alice, self.three)
        self.reconnect()
        self.one.emit("one", 6)
        self.assertGot(self.alice, one=[5, 6])

    def test_forgotten(self) -> None:
        """Nothing is left when all has come, or the client is gone."""
        self.back(self.alice, self.two)
        had = self.two.cluster._requests.handover.had
        self.assertTrue(had._tickets)
        self.reconnect()
        self.assertEqual(had._tickets, {})
        self.assertEqual(self.two.namespace().sockets[self.sid]._ticket.had, {})

    def test_clientLeft(self) -> None:
        self.back(self.alice, self.two)
        self.alice.close()
        self.advance(100)
        self.assertEqual(self.two.cluster._requests.handover.had._tickets, {})


class HungTests(KeepingTestCase):
    """
    The first server hears nothing, and goes on to speak.
    """

    def setUp(self) -> None:
        super().setUp()
        self.hang(self.one)

    def test_toItsClient(self) -> None:
        """Both the first server and a third one send to the client alone, which is on the second."""
        self.one.to(self.sid).emit("one", 2)
        self.three.to(self.sid).emit("three", 1)
        self.back(self.alice, self.two)
        self.one.to(self.sid).emit("one", 3)
        self.three.to(self.sid).emit("three", 2)
        self.assertGot(self.alice, one=[2, 3], three=[1, 2])

    def test_back(self) -> None:
        """The client comes back to the first server before that knows that the client was elsewhere."""
        self.back(self.alice, self.two, 6.3)
        self.two.to(self.sid).emit("two", 2)
        self.settle()
        self.assertGot(self.alice, two=[2])
        self.alice.lose()
        self.two.to(self.sid).emit("two", 3)
        self.settle()
        self.assertIn(self.sid, self.one.namespace()._recovery.absence._ids)
        self.hub.heal()
        self.back(self.alice, self.one)
        self.assertGot(self.alice, two=[3])

    def test_requests(self) -> None:
        self.back(self.alice, self.two)
        self.three.to(self.sid).join("blue")
        self.settle()
        self.three.to("blue").emit("three", 1)
        self.assertGot(self.alice, three=[1])
        self.three.to(self.sid).leave("blue")
        self.three.to(self.sid).disconnect()
        self.settle()
        self.assertEqual(self.two.namespace().sockets, {})

    def test_ends(self) -> None:
        """Its topic is heard for as long as the client is there."""
        topic = f"txrealtime@{self.one.cluster.uid}"
        counted = self.hub.count(topic)
        self.back(self.alice, self.two)
        self.assertEqual(self.hub.count(topic), counted + 1)
        self.alice.close()
        self.settle()
        self.advance(100)
        self.assertEqual(self.hub.count(topic), counted)


class MovedTests(KeepingTestCase):
    """
    A client that has moved to another server, by the word of both, which then dies.
    """

    def test_eventsOfOthers(self) -> None:
        """The client has all that it missed, and others have had events since."""
        bob = self.join(self.two)

        @self.two.onConnect
        def came(socket: Socket) -> None:
            self.two.to(bob.id()).emit("two", 0)

        self.tell(2)
        coming = self.alice.comeBack(server=self.two)
        self.settle()
        self.successResultOf(coming)
        self.assertGot(self.alice, one=[2], two=[2])
        self.alice.lose()
        self.two.emit("two", 3)
        self.settle()
        self.kill(self.two)
        self.back(self.alice, self.three)
        self.assertGot(self.alice, two=[3])

    def test_cutInTheReplay(self) -> None:
        """The client has had a part of what it missed, and nobody can tell which: a fresh session."""
        self.tell(2)
        coming = self.alice.comeBack(server=self.two)
        self.settle()
        self.successResultOf(coming)
        self.alice.recovered()
        (key,) = self.hub.keys
        session = json.loads(self.hub.keys[key].decode().partition(" ")[2])
        offset = session["offset"].rpartition("-")
        part = f"{offset[0]}-{int(offset[2]) - 1}"
        claim = Claim(key.decode().rpartition(":")[2], part, True)
        self.assertIsNone(missedevents.startOf(session, claim))
        self.assertIsNotNone(missedevents.startOf(session, claim._replace(offset=session["offset"])))

    def test_events(self) -> None:
        """Events from that server to the client alone are in the stream once."""
        self.back(self.alice, self.two, 1)
        socket = self.two.namespace().sockets[self.alice.id()]
        self.alice.lose()
        for number in range(3):
            socket.emit("direct", number)
            self.two.to(socket.id).emit("id", number)
            self.three.to(socket.id).emit("three", number)
            self.settle()
        self.kill(self.two)
        self.back(self.alice, self.three)
        self.assertGot(self.alice, direct=[0, 1, 2], id=[0, 1, 2], three=[0, 1, 2])


class SeamTests(KeepingTestCase):
    """
    The stream, and the place up to which the second server has read it.
    """

    def missed(self) -> missedevents.Missed:
        """Return the choice for a client whose last event was the entry 5 of the first server, number 7."""
        (ticket,) = self.one.namespace()._recovery.tickets.values()
        session = {"offset": "epoch.5.0-7", "server": "theirsss"}
        return missedevents.Missed("oursours", ticket, Claim("pid"), session, 30)

    def found(self, id: int, sender: str, topic: str = "txrealtime,/", logged: int = 0) -> Found:
        target = Target("/", (self.sid,), frozenset())
        emit = Emit(target, None, [engineio.message(f"2[{id}]")], False, logged)
        return Found((id, 0), emit, topic, sender, [sender, topic, id])

    def chosen(self, place: int, *events: Found) -> list[int]:
        missed = self.missed()
        for event in events:
            missed.found(event)
        return [mark[2] for _, mark, _ in missed.upTo((place, 0))]

    def test_place(self) -> None:
        """The second server hears later events itself, and never its own."""
        events = [self.found(id, sender, logged=9) for id in (8, 9) for sender in ("theirsss", "a third1")]
        self.assertEqual(self.chosen(8, *events), [8, 8])
        self.assertEqual(self.chosen(9, *events), [8, 8, 9, 9])
        self.assertEqual(self.chosen(8, self.found(9, "oursours", logged=30)), [9])

    def test_numbers(self) -> None:
        """Events of the client's server by its log, those of the second one before it had the client."""
        for sender, logged, expected in (
            ("theirsss", 7, []),
            ("theirsss", 8, [8]),
            ("theirsss", 0, []),
            ("oursours", 30, [8]),
            ("oursours", 31, []),
            ("oursours", 0, [8]),
            ("a third1", 0, [8]),
            ("a third1", 99, [8]),
        ):
            self.assertEqual(self.chosen(9, self.found(8, sender, logged=logged)), expected, (sender, logged))

    def test_topicsOfServers(self) -> None:
        """A server passes on what came on its topic for a client that has left, and not its own events."""
        for topic, sender, expected in (
            ("txrealtime@theirsss", "a third1", [8]),
            ("txrealtime@another1", "a third1", []),
            ("txrealtime@another1", "oursours", []),
            ("txrealtime@another1", "another1", [8]),
            ("txrealtime@oursours", "oursours", [8]),
            ("txrealtime,/,me@home", "a third1", [8]),
        ):
            self.assertEqual(self.chosen(9, self.found(8, sender, topic, 1)), expected, (topic, sender))
