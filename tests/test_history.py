"""
History: the last events of a room for those who come later, on one server and on several.
"""

from __future__ import annotations

import random
import re
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred

from tests.clusters import ClusterTestCase, uidOf
from tests.talk import TalkTestCase
from txrealtime import BusError, LimitExceeded, Namespace, PastEvent, Server, Socket, Watcher
from txrealtime.cluster.bus.memory import MemoryBus
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.dialects.messages import Emit, Target
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.engineio.packet import message
from txrealtime.socketio.history import History
from txrealtime.socketio.past import Recalled, Told
from txrealtime.testing import Client


def historyOf(server: Server, path: str = "/") -> History:
    history = server.namespace(path)._history
    assert history is not None
    return history


class HistoryTestCase(TalkTestCase):
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer(**self.options)
        self.server.keepHistory(events=5, seconds=600, bytes=100_000)
        self.history = historyOf(self.server)

    def tearDown(self) -> None:
        for client in self.clients:
            client.close()
        if self.server._namespaces.parking is not None:
            self.server._namespaces.parking.close()
        self.history.clear()
        self.assertEqual((len(self.history), self.history.bytes, self.history._known), (0, 0, {}))
        super().tearDown()

    def say(self, *texts: Any, room: str = "red") -> None:
        for text in texts:
            self.server.to(room).emit("said", text)

    def come(self, rewind: Any = None, *rooms: str) -> tuple[Client, Socket]:
        client = self.join(self.server)
        socket = self.socketOf(self.server, client)
        if rewind is not None:
            self.successResultOf(socket.join(*(rooms or ("red",)), rewind=rewind))
        return client, socket

    def got(self, client: Client) -> list[Any]:
        return [args[0] if args else None for _, *args in client.received()]

    def past(self, last: Any = None, *rooms: str) -> list[PastEvent]:
        return self.successResultOf(self.server.to(*(rooms or ("red",))).history(last))


class RewindTests(HistoryTestCase):
    def test_lastEvents(self) -> None:
        """A client gets the last events of the room, in order, and then the live ones."""
        self.say(1, 2, 3)
        client, _ = self.come(2)
        self.say(4)
        self.assertEqual(self.got(client), [2, 3, 4])

    def test_byTime(self) -> None:
        self.say(1)
        self.advance(60)
        self.say(2)
        self.advance(30)
        client, _ = self.come(timedelta(minutes=1))
        self.assertEqual(self.got(client), [2])

    def test_none(self) -> None:
        self.say(1)
        client, _ = self.come(0)
        self.assertEqual(self.got(client), [])

    def test_joinWithoutRewind(self) -> None:
        self.say(1)
        client, socket = self.come()
        self.assertIsNone(socket.join("red"))
        self.assertEqual(self.got(client), [])

    def test_twice(self) -> None:
        """A socket that is in the room already gets nothing again."""
        self.say(1)
        client, socket = self.come(20)
        self.say(2)
        self.successResultOf(socket.join("red", rewind=20))
        self.assertEqual(self.got(client), [1, 2])

    def test_binary(self) -> None:
        self.say(b"\0lake")
        client, _ = self.come(20)
        self.assertEqual(self.got(client), [b"\0lake"])
        self.assertEqual(self.past()[0].args, [b"\0lake"])

    def test_inAdmission(self) -> None:
        """A client that is being admitted gets the past first, and what is said meanwhile behind it."""
        self.say(1)
        asked: Deferred[None] = Deferred()

        @self.server.onConnect
        async def connected(socket: Socket) -> None:
            await socket.join("red", rewind=20)
            await asked

        client = self.makeClient(self.server)
        joined = client.connect()
        self.say(2)
        asked.callback(None)
        client.flush()
        self.successResultOf(joined)
        self.assertEqual(self.got(client), [1, 2])

    def test_gone(self) -> None:
        client, socket = self.come()
        client.close()
        self.successResultOf(socket.join("red", rewind=20))
        self.assertNotIn("red", self.server.namespace().rooms)

    def test_severalRooms(self) -> None:
        """Events of several rooms come in order, and one for both comes once."""
        self.say(1)
        self.clock.advance(1)
        self.server.to("red", "blue").emit("said", 2)
        self.clock.advance(1)
        self.say(3, room="blue")
        client, _ = self.come(20, "red", "blue")
        self.assertEqual(self.got(client), [1, 2, 3])
        other, socket = self.come(20, "blue")
        self.say(4)
        self.successResultOf(socket.join("red", rewind=20))
        self.assertEqual(self.got(other), [2, 3, 1, 4])

    def test_limitOfRooms(self) -> None:
        _, socket = self.come()
        socket._connection.settings = self.makeServer(start=False, maxRooms=1).settings
        socket.join("blue")
        self.failureResultOf(socket.join("red", rewind=5), LimitExceeded)

    def test_tooMuchForTheClient(self) -> None:
        """The newest events that a client can take are sent, where all of them would end it."""
        client, socket = self.come()
        half = socket.session.settings.maxBuffered // 2
        self.server.namespace()._history = self.history = History(self.server.namespace(), 9, 60, 10**9)
        self.say(*("x" * (half // 3 - 1000) + str(n) for n in range(5)))
        self.setWritable(client, False)
        self.successResultOf(socket.join("red", rewind=20))
        self.setWritable(client, True)
        self.assertEqual([text[-1] for text in self.got(client)], ["2", "3", "4"])

    def test_watchers(self) -> None:
        """A watcher sees the events that a newcomer is sent."""
        self.say(1)
        seen: list[Any] = []

        class Speech(Watcher):
            def eventSent(self, sockets: Any, event: str, args: Any) -> None:
                seen.append(([socket.id for socket in sockets], event, list(args)))

        self.server.watch(Speech())
        _, socket = self.come(20)
        self.assertEqual(seen, [([socket.id], "said", [1])])

    def test_mistakes(self) -> None:
        _, socket = self.come()
        for wrong in (True, 1.5, "20", [1]):
            self.assertIn("timedelta", str(self.assertRaises(TypeError, socket.join, "red", rewind=wrong)))
        for low in (-1, timedelta(seconds=-1)):
            self.assertRaises(ValueError, socket.join, "red", rewind=low)
        self.assertIn(
            "to(room)", str(self.assertRaises(ValueError, self.server.namespace().everyone.history))
        )
        for bounds in ({"events": 0}, {"seconds": -1}, {"bytes": 0}):
            self.assertRaises(ValueError, Namespace().keepHistory, **bounds)
        self.assertRaises(ValueError, self.server.keepHistory)

    def test_off(self) -> None:
        """Without keepHistory() nothing is kept, and the error names it."""
        self.server.namespace("/off")
        client = self.join(self.server, "/off")
        socket = self.socketOf(self.server, client, "/off")
        error = self.assertRaises(ValueError, socket.join, "red", rewind=1)
        self.assertIn("keepHistory()", str(error))
        self.assertRaises(ValueError, self.server.namespace("/off").to("red").history)


class KeptTests(HistoryTestCase):
    def test_history(self) -> None:
        self.say(1)
        self.clock.advance(2)
        self.say(2)
        self.assertEqual(self.past(), [PastEvent("said", [1], 2.0), PastEvent("said", [2], 0.0)])
        self.assertEqual(self.past(1), [PastEvent("said", [2], 0.0)])
        self.assertEqual(self.past(timedelta(seconds=1)), [PastEvent("said", [2], 0.0)])
        self.assertEqual(self.past(None, "blue"), [])

    def test_notKept(self) -> None:
        """Volatile events, those with acks, to everybody, to one socket, and of this server alone."""
        client, socket = self.come(0)
        self.server.to("red").emit("said", 1, volatile=True)
        self.server.to("red").call("said", 2).addErrback(lambda failure: None)
        self.server.emit("said", 3)
        self.server.to(socket).emit("said", 4)
        self.server.to("red").local.emit("said", 5)
        socket.emit("said", 6)
        self.assertEqual(len(client.received()), 6)
        self.assertEqual(len(self.history), 0)

    def test_excluded(self) -> None:
        """An event is not for those whom it left out: themselves, or members of a room."""
        ada, adas = self.come(20)
        adas.to("red").emit("said", "by Ada")
        self.server.to("red").excluding("muted").emit("said", "secret")
        eve, eves = self.come()
        eves.join("muted")
        self.successResultOf(eves.join("red", rewind=20))
        self.assertEqual(self.got(eve), ["by Ada"])
        adas.leave("red")
        self.got(ada)
        self.successResultOf(adas.join("red", rewind=20))
        self.assertEqual(self.got(ada), ["secret"])
        seen = self.successResultOf(adas.to("red").history())
        self.assertEqual([event.args for event in seen], [["secret"]])

    def test_mostEvents(self) -> None:
        self.say(*range(8))
        self.assertEqual([event.args[0] for event in self.past()], [3, 4, 5, 6, 7])

    def test_age(self) -> None:
        """Old events are not shown, and soon after not kept, though nothing is said any more."""
        self.say(1)
        self.advance(300)
        self.say(2)
        self.advance(301)
        self.assertEqual([event.args[0] for event in self.past()], [2])
        self.advance(400)
        self.assertEqual((len(self.history), self.history._rooms), (0, {}))

    def test_memoryAtItsBound(self) -> None:
        """The bytes stay below their limit, and each room keeps its newest events without a hole."""
        said: dict[str, list[int]] = {}
        dice = random.Random(1)
        for number in range(2000):
            rooms = dice.sample("abcdefghijklmnop", dice.choice([1, 1, 1, 2]))
            self.server.to(*rooms).emit("said", number, "x" * dice.randrange(3000))
            for room in rooms:
                said.setdefault(room, []).append(number)
            self.assertLessEqual(self.history.bytes, 100_000)
        kept = {room: [event.args[0] for event in self.past(None, room)] for room in said}
        self.assertGreater(sum(map(len, kept.values())), 10)
        for room, numbers in kept.items():
            self.assertEqual(numbers, said[room][len(said[room]) - len(numbers) :])
        # Each entry is kept once, for all of its rooms.
        sizes = {entry: entry.size for room in self.history._rooms.values() for entry in room.entries}
        self.assertEqual(self.history.bytes, sum(sizes.values()))
        self.assertEqual(len(self.history._known), len(sizes))

    def test_namespaceOfAPattern(self) -> None:
        """With the last client, a namespace of a pattern goes, and its history."""

        class Kept(Namespace):
            def __init__(self) -> None:
                super().__init__()
                self.keepHistory()

        self.server.mount(re.compile("/room-.*"), Kept)
        client = self.join(self.server, "/room-1")
        history = historyOf(self.server, "/room-1")
        self.server.namespace("/room-1").to("red").emit("said", 1)
        self.assertEqual(len(history), 1)
        client.close()
        self.assertEqual(len(history), 0)


class MsgpackTests(HistoryTestCase):
    def setUp(self) -> None:
        try:
            from txrealtime.socketio.msgpack import MsgpackParser
        except ImportError:
            self.skipTest("msgpack is not installed")
        self.options = {"parser": MsgpackParser()}
        super().setUp()

    def test_rewind(self) -> None:
        self.say([b"bytes", 1])
        client, _ = self.come(20)
        self.assertEqual(self.got(client), [[b"bytes", 1]])
        self.assertEqual(self.past()[0].args, [[b"bytes", 1]])


class RecoveryTests(HistoryTestCase):
    options = {"recoveryWindow": 60.0}

    def test_cutWhileThePastWasOnItsWay(self) -> None:
        """A client that lost its connection before the past was there gets it when it is back, once."""
        self.say(1, 2)
        client, socket = self.come()
        client.received()
        self.setWritable(client, False)
        self.successResultOf(socket.join("red", rewind=20))
        self.say(3)
        client.lose()
        self.say(4)
        self.successResultOf(client.comeBack())
        self.assertTrue(client.recovered())
        self.assertEqual(self.got(client), [1, 2, 3, 4])


class ClusterHistoryTestCase(ClusterTestCase):
    def makeServer(self, **options: Any) -> Server:
        server = super().makeServer(**options)
        server.keepHistory(events=50)
        return server

    def come(self, server: Server, rewind: Any = 20) -> Client:
        client = self.join(server)
        self.resultOf(self.socketOf(server, client).join("red", rewind=rewind))
        return client

    def got(self, client: Client) -> list[Any]:
        self.settle()
        return [args[0] for _, *args in client.received()]

    def say(self, server: Server, *texts: Any) -> None:
        for text in texts:
            server.to("red").emit("said", text)
        self.settle()


class SeveralServersTests(ClusterHistoryTestCase):
    def test_serverThatDidNotHear(self) -> None:
        """A server without a member of the room asks those that have the events."""
        self.come(self.one)
        self.say(self.two, 1)
        self.say(self.one, 2)
        self.say(self.three, 3)
        client = self.come(self.three)
        self.say(self.two, 4)
        self.assertEqual(self.got(client), [1, 2, 3, 4])

    def test_nobodyHeard(self) -> None:
        """Events to a room without members are kept by the servers that said them."""
        self.say(self.one, 1)
        self.clock.advance(1)
        self.say(self.two, b"2")
        self.clock.advance(1)
        self.say(self.one, 3)
        self.assertEqual(self.got(self.come(self.three)), [1, b"2", 3])
        self.assertEqual(self.got(self.come(self.three, 1)), [3])

    def test_askedOnce(self) -> None:
        """The first join asks; from then on the server follows the room, also without members."""
        self.say(self.one, 1)
        client = self.come(self.two)
        client.close()
        self.say(self.one, 2)
        self.settle()
        asked: list[Any] = []
        self.patch(self.one.cluster._requests.handover, "received", asked.append)
        self.assertEqual(self.got(self.come(self.two)), [1, 2])
        self.assertEqual(asked, [])

    def test_whatThisServerKnows(self) -> None:
        """The history of a local audience is what the server has heard: no other is asked, nor followed."""
        self.say(self.one, 1)
        here = self.two.to("red").local
        self.assertEqual(self.successResultOf(here.history()), [])
        self.say(self.two, 2)
        self.assertEqual([past.args for past in self.successResultOf(here.history())], [[2]])
        self.assertFalse(historyOf(self.two)._rooms["red"].isFollowed)
        self.assertEqual(self.got(self.come(self.two)), [1, 2])
        self.assertEqual(len(self.successResultOf(here.history())), 2)

    def test_followedWhileItHasEvents(self) -> None:
        """A room that nobody needs any more is not followed."""
        self.say(self.one, 1)
        self.come(self.two).close()
        self.settle()

        def topics() -> set[str]:
            return {
                subscription.topic
                for subscriber in self.hub.subscribers
                if uidOf(subscriber) == self.two.cluster.uid
                for subscription in subscriber._subscriptions
            }

        self.assertIn("txrealtime,/,red", topics())
        for _ in range(800):
            self.clock.advance(5)
            self.settle()
        self.assertNotIn("txrealtime,/,red", topics())

    def test_eventsWhileOthersAreAsked(self) -> None:
        """Events during the wait for other servers come once, whatever the limit of the rewind."""
        self.say(self.one, 1, 2, 3)
        client = self.join(self.two)
        joined = self.socketOf(self.two, client).join("red", rewind=2)
        self.assertNoResult(joined)
        for text in 4, 5, 6:
            self.two.to("red").emit("said", text)
        self.resultOf(joined)
        self.say(self.one, 7)
        self.assertEqual(self.got(client), [2, 3, 4, 5, 6, 7])

    def test_leaveWhileOthersAreAsked(self) -> None:
        client = self.join(self.two)
        socket = self.socketOf(self.two, client)
        joined = socket.join("red", "blue", rewind=2)
        socket.leave("red")
        self.resultOf(joined)
        self.assertEqual(socket.rooms, {socket.id, "blue"})

    def test_goneWhileOthersAreAsked(self) -> None:
        client = self.join(self.two)
        joined = self.socketOf(self.two, client).join("red", rewind=2)
        client.close()
        self.resultOf(joined)
        self.assertEqual(historyOf(self.two)._joining, {})

    def test_silentServer(self) -> None:
        """If a server does not reply in time, the client gets what the others know; the next join asks."""
        self.say(self.one, 1)
        self.clock.advance(0.01)
        self.say(self.two, 2)
        self.hub.loses = lambda sender, receiver: sender == self.two.cluster.uid
        client = self.join(self.three)
        joined = self.socketOf(self.three, client).join("red", rewind=5)
        self.advance(4)
        self.successResultOf(joined)
        self.assertEqual(self.got(client), [1])
        self.hub.heal()
        self.assertEqual(self.got(self.come(self.three)), [1, 2])

    def test_noHoleWhereAServerHasDropped(self) -> None:
        """Older events of one server are left out if another has dropped newer ones."""
        self.one.to("red").emit("said", "old")
        self.clock.advance(1)
        for number in range(70):
            self.two.to("red").emit("said", number)
            self.clock.advance(0.01)
        self.one.to("red").emit("said", "new")
        self.assertEqual(self.got(self.come(self.three, 1000)), [*range(21, 70), "new"])

    def test_afterALoss(self) -> None:
        """When messages were lost, the next newcomer gets them all the same: the others are asked again."""
        old = self.come(self.two)
        self.say(self.one, 1)
        self.hub.loses = lambda sender, receiver: receiver == self.two.cluster.uid
        self.say(self.one, 2)
        self.hub.heal()
        self.say(self.one, 3)
        self.assertEqual(self.got(old), [1, 3])
        self.assertEqual(self.got(self.come(self.two)), [1, 2, 3])

    def test_afterAnOutage(self) -> None:
        self.come(self.two)
        self.say(self.one, 1)
        self.hub.pause()
        self.advance(30)
        self.hub.resume()
        self.advance(30)
        self.say(self.one, 2)
        self.assertEqual(self.got(self.come(self.two)), [1, 2])

    def test_newServer(self) -> None:
        """A server that has just started waits until it knows the others."""
        self.say(self.one, 1)
        four = self.member("four")
        self.settle()
        client = self.join(four)
        joined = self.socketOf(four, client).join("red", rewind=5)
        self.advance(2)
        self.successResultOf(joined)
        self.assertEqual(self.got(client), [1])

    def test_linkIsDown(self) -> None:
        """Without the bus, nobody waits: the client gets what its server knows."""
        self.say(self.one, 1)
        self.hub.pause()
        self.advance(60)
        client = self.join(self.one)
        self.successResultOf(self.socketOf(self.one, client).join("red", rewind=5))
        self.assertEqual(self.got(client), [1])

    def test_serverThatKeepsNone(self) -> None:
        """A server whose namespace keeps no history has none to tell, and is not waited for."""
        self.one.namespace()._history = None
        self.say(self.two, 1)
        self.assertEqual(self.got(self.come(self.three)), [1])

    def test_emitter(self) -> None:
        """An event of an emitter, which several servers have heard, comes once."""
        dialect = NativeDialect("emitter1", numbered=False)
        clients = [self.come(self.one), self.come(self.two)]

        def emit(text: str) -> None:
            emit = Emit(Target("/", ("red",)), None, [message(f'2["said","{text}"]')])
            for topic, data in dialect.write(emit):
                self.hub.deliver(topic, data)
            self.settle()

        emit("a")
        emit("a")
        emit("b")
        for client in (*clients, self.come(self.three)):
            self.assertEqual(self.got(client), ["a", "a", "b"])

    def test_manyPages(self) -> None:
        """A long history comes in several messages, none of which is too large for the bus."""
        sizes: list[int] = []
        deliver = self.hub.deliver

        def measured(topic: str, payload: bytes) -> None:
            sizes.append(len(payload))
            deliver(topic, payload)

        said = [f"{number}" + '"' * 100_000 for number in range(20)]
        for text in said:
            self.clock.advance(0.01)
            self.say(self.one, text)
        self.hub.deliver = measured  # type: ignore[method-assign]
        client = self.join(self.two)
        joined = self.socketOf(self.two, client).join("red", rewind=20)
        self.advance(1)
        self.successResultOf(joined)
        # One megabyte is told: each quote takes two bytes.
        self.assertEqual([text[:2] for text in self.got(client)], ["16", "17", "18", "19"])
        self.assertLess(max(sizes), 1_500_000)

    def test_nonsense(self) -> None:
        """Replies that no server would send are left out."""
        good = [["uid", "topic", 1], 1.0, [b'2["said",1]'], True, ["red"], []]
        bad: list[Any] = [
            None,
            [],
            [["uid", "topic"], *good[1:]],
            [["uid", "topic", 1.5], *good[1:]],
            [good[0], "x", *good[2:]],
            [*good[:2], [10**12], *good[3:]],
            [*good[:2], [], *good[3:]],
            [*good[:4], [7], []],
            [*good[:2], [b"\xff"], *good[3:]],
        ]

        async def nonsense(sender: str, *words: Any) -> Any:
            return {"events": [*bad, good]} if words[0] == "/" else None

        self.patch(self.one.cluster._requests.handover, "_handlers", {"history": nonsense})
        self.patch(
            type(self.one.cluster._requests.handover),
            "_reply",
            lambda handover, transfer, answer: handover._conversation.say(
                _reply(transfer, handover._conversation.uid, answer)
            ),
        )
        self.assertEqual(self.got(self.come(self.two)), [1])

    def test_dialects(self) -> None:
        """A dialect without numbers cannot carry history: the error comes at once, with what to do."""
        four = self.makeServer(start=False)
        four.cluster.use(MemoryBus(self.hub), DialectChoice("node"))
        self.assertIn("native dialect", str(self.assertRaises(ValueError, four.cluster.open)))
        del four.namespace()._history
        four.startService()
        self.assertIn("native dialect", str(self.assertRaises(BusError, four.keepHistory)))

    def test_restart(self) -> None:
        """A server that starts again has forgotten the past, and asks for it."""
        self.say(self.one, 1)
        self.come(self.two).close()
        stopped = self.two.stopService()
        self.advance(5)
        self.successResultOf(stopped)
        self.assertEqual(len(historyOf(self.two)), 0)
        self.two.startService()
        self.advance(2)
        self.say(self.one, 2)
        self.assertEqual(self.got(self.come(self.two)), [1, 2])


def _reply(transfer: Any, uid: str, answer: Any) -> Any:
    from txrealtime.cluster.dialects.messages import Reply

    return Reply(transfer, transfer.request, uid, 1, [answer])


class SeamTests(ClusterHistoryTestCase):
    """Joins and events at random: nobody misses an event, gets one twice, or in another order."""

    def test_random(self) -> None:
        for seed in range(40):
            self.play(random.Random(seed))

    def play(self, dice: random.Random) -> None:
        room, said = f"room {dice.random()}", 0
        said_by: dict[str, list[int]] = {server.cluster.uid: [] for server in self.servers}
        since: list[tuple[Client, Deferred[None], Server]] = []
        for _ in range(60):
            server = dice.choice(self.servers)
            what = dice.random()
            if what < 0.5:
                said += 1
                said_by[server.cluster.uid].append(said)
                other = [f"other {dice.random()}"] if dice.random() < 0.2 else []
                server.to(room, *other).emit("said", said)
            elif what < 0.7 and len(since) < 8:
                client = self.join(server)
                joined = self.socketOf(server, client).join(room, rewind=1000)
                since.append((client, joined, server))
            elif what < 0.9:
                self.clock.advance(dice.choice([0, 0, 0.01]))
                for client in self.clients:
                    client.flush()
            else:
                self.settle()
        self.settle()
        for client, joined, _ in since:
            self.successResultOf(joined)
            got = self.got(client)
            # Fewer are said than the history keeps: each client has all.
            self.assertEqual(sorted(got), list(range(1, said + 1)))
            for numbers in said_by.values():
                self.assertEqual([number for number in got if number in numbers], numbers)
            client.close()
        self.settle()


class EarlyTests(ClusterHistoryTestCase):
    def test_toldBeforeItArrives(self) -> None:
        """An event that another server tells of before the bus brings it comes once to each client."""
        old = self.come(self.two)
        history, uid = historyOf(self.two), self.one.cluster.uid
        early = Recalled((uid, "txrealtime,/,red", 1), 0.0, [message('2["said",1]')], ("red",), frozenset())
        history._learn(history._rooms["red"], Told([[early]]))
        new = self.come(self.two)
        self.assertEqual(self.got(new), [1])
        self.say(self.one, 1)
        self.assertEqual((self.got(old), self.got(new)), ([1], []))
        self.assertEqual(len(self.resultOf(self.two.to("red").history())), 1)
