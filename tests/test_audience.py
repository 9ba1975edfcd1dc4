"""
Rooms, and the audiences chosen from them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.talk import Recorder, TalkTestCase
from txrealtime import AckTimeout, Audience, CloseReason, Person, Server, Socket
from txrealtime.testing import Client


class AudienceTestCase(TalkTestCase):
    """
    Alice in red, bob in red and blue, carol in blue, dave in none.
    """

    NAMES = ("alice", "bob", "carol", "dave")

    def setUp(self) -> None:
        super().setUp()
        self.server: Server = self.makeServer()
        self.chat = Recorder()
        self.server.mount("/chat", self.chat)
        self.people = {name: self.join(self.server, "/chat") for name in self.NAMES}
        self.sockets = {
            name: self.socketOf(self.server, client, "/chat") for name, client in self.people.items()
        }
        for name, *rooms in (("alice", "red"), ("bob", "red", "blue"), ("carol", "blue")):
            self.sockets[name].join(*rooms)

    def reached(self) -> dict[str, int]:
        """
        Count the events of each client that got any.
        """
        counts = {name: len(client.received("/chat")) for name, client in self.people.items()}
        return {name: count for name, count in counts.items() if count}

    def assertReaches(self, audience: Audience, *names: str) -> None:
        audience.emit("hi")
        self.assertEqual(self.reached(), dict.fromkeys(names, 1))


class ChoosingTests(AudienceTestCase):
    """
    The choice of receivers, each once.
    """

    def test_everybody(self) -> None:
        self.assertReaches(self.chat.everyone, *self.NAMES)
        self.chat.emit("hi", 1)
        self.assertEqual(self.reached(), dict.fromkeys(self.NAMES, 1))

    def test_room(self) -> None:
        self.assertReaches(self.chat.to("red"), "alice", "bob")

    def test_severalRooms(self) -> None:
        self.assertReaches(self.chat.to("red", "blue"), "alice", "bob", "carol")
        self.assertReaches(self.chat.to("red").to("blue"), "alice", "bob", "carol")
        self.assertReaches(self.chat.to("red", "red", self.sockets["alice"]), "alice", "bob")

    def test_nobody(self) -> None:
        self.assertReaches(self.chat.to("empty"))
        self.assertReaches(self.chat.to("red").excluding("red"))

    def test_socket(self) -> None:
        self.assertReaches(self.chat.to(self.sockets["dave"]), "dave")
        self.assertReaches(self.chat.to(self.sockets["dave"].id), "dave")

    def test_excluding(self) -> None:
        self.assertReaches(self.chat.excluding("red"), "carol", "dave")
        self.assertReaches(self.chat.to("red", "blue").excluding("blue"), "alice")
        self.assertReaches(self.chat.to("red").excluding(self.sockets["bob"]), "alice")
        self.assertReaches(self.chat.to("red").excluding(self.sockets["bob"].id), "alice")
        self.assertReaches(self.chat.excluding("red").excluding("blue"), "dave")
        self.assertReaches(self.chat.excluding("blue", self.sockets["dave"]).to("red"), "alice")
        self.assertReaches(self.chat.excluding("empty"), *self.NAMES)

    def test_fromASocket(self) -> None:
        alice = self.sockets["alice"]
        self.assertReaches(alice.to("red"), "bob")
        self.assertReaches(alice.to("red").to("blue"), "bob", "carol")
        self.assertReaches(alice.others, "bob", "carol", "dave")
        self.assertReaches(alice.others.excluding("blue"), "dave")

    def test_otherNamespaces(self) -> None:
        """
        A room of the same name elsewhere is another room.
        """
        client = self.join(self.server)
        self.socketOf(self.server, client).join("red")
        self.chat.to("red").emit("hi")
        self.assertEqual(client.received(), [])
        self.reached()
        self.server.to("red").emit("hi")
        self.assertEqual(self.reached(), {})
        self.assertEqual(client.received(), [("hi",)])

    def test_neverChanges(self) -> None:
        red = self.chat.to("red")
        red.to("blue")
        red.excluding("blue")
        self.assertReaches(red, "alice", "bob")
        self.assertRaises(dataclasses.FrozenInstanceError, setattr, red, "rooms", ("blue",))
        self.assertEqual(red, self.chat.to("red"))
        self.assertEqual(len({red, self.chat.to("red"), self.chat.to("blue")}), 2)

    def test_chosenAnewEachTime(self) -> None:
        red = self.chat.to("red")
        self.sockets["alice"].leave("red")
        self.sockets["dave"].join("red")
        self.assertReaches(red, "bob", "dave")

    def test_withoutARoom(self) -> None:
        """
        An empty list of rooms is not everybody.
        """
        for choose in (self.chat.to, self.chat.excluding, self.chat.to("red").to, self.server.to):
            self.assertRaises(ValueError, choose)

    def test_notARoom(self) -> None:
        for choose in (self.chat.to, self.chat.excluding):
            for wrong in (1, None, ["red"]):
                self.assertRaises(TypeError, choose, wrong)


class SendingTests(AudienceTestCase):
    """
    One event to many.
    """

    def test_onTheWire(self) -> None:
        self.chat.to("red").emit("image", {"png": b"1"}, 2)
        for name in ("alice", "bob"):
            self.assertEqual(
                self.wireOf(self.people[name]),
                ['51-/chat,["image",{"png":{"_placeholder":true,"num":0}},2]', b"1"],
            )

    def test_encodedOnce(self) -> None:
        """
        Each receiver gets the same bytes, made once.
        """

        class Value(dict[str, Any]):
            """Counts how often it is read."""

            reads = 0

            def items(self) -> Any:
                Value.reads += 1
                return super().items()

        self.chat.emit("hi", Value(a=1))
        self.assertEqual(self.reached(), dict.fromkeys(self.NAMES, 1))
        self.assertEqual(Value.reads, 1)

    def test_send(self) -> None:
        self.chat.to("red").send("text")
        self.assertEqual(self.people["alice"].received("/chat"), [("message", "text")])
        self.chat.send("all")
        self.assertEqual(self.people["dave"].received("/chat"), [("message", "all")])

    def test_callersMistakes(self) -> None:
        """
        Mistakes raise before anything is sent, also without a receiver.
        """
        for audience in (self.chat.everyone, self.chat.to("empty")):
            for send in (audience.emit, audience.call):
                self.assertRaises(ValueError, send, "disconnect")
                self.assertRaises(ValueError, send, "hi", float("nan"))
                self.assertRaises(TypeError, send, 1)
                error = self.assertRaises(TypeError, send, "hi", [object()])
                self.assertIn("argument 1[0]", str(error))
        self.assertEqual(self.reached(), {})

    def test_volatile(self) -> None:
        """
        Clients that cannot get the event at once get no part of it, header and attachments alike.
        """
        self.setWritable(self.people["alice"], False)
        self.chat.emit("position", b"1", volatile=True)
        self.chat.send("text", volatile=True)
        self.chat.emit("end")
        self.setWritable(self.people["alice"], True)
        self.assertEqual(self.people["alice"].received("/chat"), [("end",)])
        self.assertEqual(
            self.people["bob"].received("/chat"), [("position", b"1"), ("message", "text"), ("end",)]
        )

    def test_slowConsumerAmongThem(self) -> None:
        """
        A client that does not read is closed, and the others get everything.
        """
        server = self.makeServer(maxBuffered=100)
        slow, other = self.join(server), self.join(server)
        self.setWritable(slow, False)
        for number in range(3):
            server.emit("number", number, "x" * 50)
        self.assertEqual(slow.transport.closed, CloseReason.SLOW_CONSUMER)
        self.assertEqual([number for _, number, _ in other.received()], [0, 1, 2])

    def test_goneInTheMiddle(self) -> None:
        """
        A client disconnected during the delivery misses the rest, and nothing breaks.
        """
        server = self.makeServer(maxBuffered=100)
        slow, other = self.join(server), self.join(server)
        otherSocket = self.socketOf(server, other)
        server.onDisconnect(lambda socket: otherSocket.disconnect())
        self.setWritable(slow, False)
        server.emit("first", "x" * 60)
        server.emit("second", "x" * 60)
        self.assertEqual([event for event, _ in other.received()], ["first"])
        self.assertEqual(other.disconnections, ["/"])


class CallTests(AudienceTestCase):
    """
    Events with acks of many.
    """

    def answer(self, name: str, answer: Any) -> None:
        self.people[name].on("ready?", lambda *args: answer, namespace="/chat")
        self.people[name].flush()

    def test_all(self) -> None:
        answers = self.chat.to("red").call("ready?", 1, b"2")
        self.assertEqual(self.people["carol"].received("/chat"), [])
        self.answer("bob", "bob")
        self.assertNoResult(answers)
        self.answer("alice", (1, 2))
        self.assertEqual(self.successResultOf(answers), ["bob", (1, 2)])
        self.assertEqual(self.people["bob"].received("/chat"), [("ready?", 1, b"2")])

    def test_theNamespacesOwn(self) -> None:
        for name in self.NAMES:
            self.people[name].on("ready?", lambda *args: None, namespace="/chat")
        answers = self.chat.call("ready?")
        for client in self.people.values():
            client.flush()
        self.assertEqual(self.successResultOf(answers), [None] * 4)

    def test_nobodyThere(self) -> None:
        self.assertEqual(self.successResultOf(self.chat.to("empty").call("ready?")), [])

    def test_someTimeOut(self) -> None:
        answers = self.chat.to("red", "blue").call("ready?", timeout=2)
        self.answer("carol", "carol")
        self.advance(1.9)
        self.assertNoResult(answers)
        self.advance(0.1)
        error = self.failureResultOf(answers, AckTimeout).value
        self.assertEqual(error.answers, ["carol"])
        self.assertEqual(str(error), "1 of 3 acked 'ready?' within 2 s")
        for socket in self.sockets.values():
            self.assertFalse(socket._awaitsAck)

    def test_lateAnswer(self) -> None:
        """
        Acks after the timeout change nothing.
        """
        answers = self.chat.to("red").call("ready?", timeout=2)
        self.answer("alice", "alice")
        self.advance(2)
        error = self.failureResultOf(answers, AckTimeout).value
        self.sendText(self.people["bob"], '3/chat,0["late"]')
        self.assertEqual(error.answers, ["alice"])

    def test_someDisconnect(self) -> None:
        """
        The ack of a client that goes is no longer awaited.
        """
        answers = self.chat.to("red", "blue").call("ready?")
        self.answer("carol", "carol")
        self.people["alice"].close()
        self.assertNoResult(answers)
        self.sockets["bob"].disconnect()
        self.assertEqual(self.successResultOf(answers), ["carol"])

    def test_pendingIsNotWaitedFor(self) -> None:
        self.chat.admission = Deferred()
        pending = self.makeClient(self.server)
        pending.connect("/chat")
        self.chat.asked[-1].join("lonely")
        self.assertEqual(self.successResultOf(self.chat.to("lonely").call("ready?")), [])

    def test_severalAtOnce(self) -> None:
        first = self.chat.to("red").call("first?")
        second = self.chat.to("red").call("second?")
        for name in ("alice", "bob"):
            self.people[name].on("first?", lambda: 1, namespace="/chat")
            self.people[name].on("second?", lambda: 2, namespace="/chat")
            self.people[name].flush()
        self.assertEqual(self.successResultOf(first), [1, 1])
        self.assertEqual(self.successResultOf(second), [2, 2])

    def test_cancel(self) -> None:
        answers = self.chat.to("red").call("ready?")
        answers.cancel()
        self.failureResultOf(answers, CancelledError)
        for socket in self.sockets.values():
            self.assertFalse(socket._awaitsAck)

    def test_excluding(self) -> None:
        answers = self.sockets["alice"].to("red").call("ready?")
        self.answer("bob", True)
        self.assertEqual(self.successResultOf(answers), [True])


class TogetherTests(AudienceTestCase):
    """
    Rooms and disconnection of many sockets.
    """

    def test_fetch(self) -> None:
        bob = self.sockets["bob"]
        bob.data["name"] = "bob"
        [alice, person] = self.successResultOf(self.chat.to("red").fetch())
        self.assertEqual(alice.id, self.sockets["alice"].id)
        self.assertEqual(person, Person(bob.id, frozenset({bob.id, "red", "blue"}), {"name": "bob"}))
        person.data["name"] = "changed"
        self.assertEqual(bob.data, {"name": "bob"})

    def test_fetchAll(self) -> None:
        everybody = {socket.id for socket in self.sockets.values()}
        self.assertEqual({person.id for person in self.successResultOf(self.chat.fetch())}, everybody)
        self.assertEqual(self.successResultOf(self.chat.to("empty").fetch()), [])

    def test_fetchWhileOneGoes(self) -> None:
        fetched: list[list[Person]] = []
        self.chat.onDisconnecting(
            lambda socket: self.chat.to("red").fetch().addCallback(fetched.append) and None
        )
        self.people["alice"].close()
        self.assertEqual([[person.id for person in people] for people in fetched], [[self.sockets["bob"].id]])

    def test_join(self) -> None:
        self.chat.to("red").join("final", "green")
        self.assertReaches(self.chat.to("final"), "alice", "bob")
        self.assertReaches(self.chat.to("green"), "alice", "bob")

    def test_leave(self) -> None:
        self.chat.to("blue").leave("red", "blue", "nowhere")
        self.assertReaches(self.chat.to("red"), "alice")
        self.assertNotIn("blue", self.chat.rooms)

    def test_joinAnothersOwnRoom(self) -> None:
        self.assertRaises(ValueError, self.chat.to("red").join, self.sockets["dave"].id)

    def test_disconnect(self) -> None:
        self.chat.take()
        self.chat.to("red").disconnect()
        self.assertEqual(
            {call[1] for call in self.chat.take()}, {self.sockets["alice"].id, self.sockets["bob"].id}
        )
        for name in ("alice", "bob"):
            self.assertFalse(self.people[name].isConnected("/chat"))
            self.assertIsNone(self.people[name].transport.closed)
        self.assertReaches(self.chat.everyone, "carol", "dave")

    def test_disconnectAndClose(self) -> None:
        self.chat.to("red").disconnect(close=True)
        for name in ("alice", "bob"):
            self.assertEqual(self.people[name].transport.closed, CloseReason.SERVER_DISCONNECT)

    def test_disconnectIncludesThePending(self) -> None:
        self.chat.admission = Deferred()
        pending: Client = self.makeClient(self.server)
        joined = pending.connect("/chat")
        self.chat.everyone.disconnect()
        self.chat.admission.callback(None)
        pending.flush()
        self.failureResultOf(joined)


class RoomsTests(AudienceTestCase):
    """
    A room exists while it has a member.
    """

    def test_contains(self) -> None:
        self.assertIn("red", self.chat.rooms)
        self.assertIn(self.sockets["dave"].id, self.chat.rooms)
        self.assertNotIn("empty", self.chat.rooms)

    def test_iteration(self) -> None:
        """
        Iteration gives the rooms' names without own rooms; rooms may go meanwhile.
        """
        self.assertEqual(list(self.chat.rooms), ["red", "blue"])
        for room in self.chat.rooms:
            self.chat.to(room).leave(room)
        self.assertEqual(list(self.chat.rooms), [])

    def test_emptyRoomsGo(self) -> None:
        self.people["alice"].close()
        self.assertIn("red", self.chat.rooms)
        self.sockets["bob"].leave("red")
        self.assertNotIn("red", self.chat.rooms)

    def test_leaveARoomOfOthers(self) -> None:
        self.sockets["dave"].leave("red")
        self.assertReaches(self.chat.to("red"), "alice", "bob")

    def test_watchedBy(self) -> None:
        """The watcher is called once for each room, beginning with the rooms that exist."""
        told: list[tuple[str, bool]] = []
        rooms, dave = self.chat.rooms, self.sockets["dave"]
        rooms.watchedBy(lambda room, exists: told.append((room, exists)))
        self.assertCountEqual(told, [(room, True) for room in ("red", "blue", *self.chat.sockets)])
        del told[:]
        rooms.add(dave)  # again: in protocol 4, two can meet under one id
        rooms.join(dave, "green")
        rooms.remove(dave)
        self.assertEqual(told, [("green", True), ("green", False), (dave.id, False)])

    def test_isEmpty(self) -> None:
        self.assertFalse(self.chat.rooms.isEmpty)
        for client in self.people.values():
            client.close()
        self.assertTrue(self.chat.rooms.isEmpty)

    def test_members(self) -> None:
        def ids(room: str) -> set[Socket]:
            return set(self.chat.rooms.members(room))

        self.assertEqual(ids("red"), {self.sockets["alice"], self.sockets["bob"]})
        self.assertEqual(ids(self.sockets["dave"].id), {self.sockets["dave"]})
        self.assertEqual(ids("empty"), set())
