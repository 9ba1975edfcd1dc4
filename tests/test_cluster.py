"""
Many servers as one, over a bus in memory: each operation of one server works across servers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.clusters import SETTLED, ClusterTestCase
from tests.talk import textOf
from txrealtime import AckTimeout, Namespace, Person
from txrealtime.cluster import requests as reception
from txrealtime.cluster.dialects.messages import Alive, Reply
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.cluster.dialects.nativereading import NativeReader
from txrealtime.errors import BusError
from txrealtime.socketio.msgpack import MsgpackParser
from txrealtime.testing import Client, MemoryBus, MemoryHub, makeServer


class AcrossTestCase(ClusterTestCase):
    """
    Alice on server one, bob on two, carol on three. Alice and bob are in red, bob and carol in blue.
    """

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob, self.carol = (self.join(server) for server in self.servers)
        self.people = (self.alice, self.bob, self.carol)
        for server, client, *rooms in (
            (self.one, self.alice, "red"),
            (self.two, self.bob, "red", "blue"),
            (self.three, self.carol, "blue"),
        ):
            self.socketOf(server, client).join(*rooms)
        self.settle()

    def assertReaches(self, audience: Any, *clients: Client) -> None:
        audience.emit("hi", 1)
        got = self.get(*self.people)
        self.assertEqual(got, [[("hi", 1)] if client in clients else [] for client in self.people])


class EmitTests(AcrossTestCase):
    def test_everybody(self) -> None:
        self.assertReaches(self.one, *self.people)
        self.assertReaches(self.three.namespace(), *self.people)

    def test_room(self) -> None:
        for server in self.servers:
            self.assertReaches(server.to("red"), self.alice, self.bob)

    def test_severalRooms(self) -> None:
        for server in self.servers:
            self.assertReaches(server.to("red", "blue"), *self.people)

    def test_excluding(self) -> None:
        for server in self.servers:
            self.assertReaches(server.excluding("red"), self.carol)
            self.assertReaches(server.to("red").excluding("blue"), self.alice)
            self.assertReaches(server.to("red").excluding(self.bob.id()), self.alice)

    def test_nobody(self) -> None:
        self.assertReaches(self.one.to("green"))

    def test_socketElsewhere(self) -> None:
        for server in self.servers:
            self.assertReaches(server.to(self.bob.id()), self.bob)
            self.assertReaches(server.to(self.bob.id(), self.carol.id()), self.bob, self.carol)

    def test_fromASocket(self) -> None:
        bob = self.socketOf(self.two, self.bob)
        self.assertReaches(bob.to("red"), self.alice)
        self.assertReaches(bob.others, self.alice, self.carol)

    def test_localFirst(self) -> None:
        """Clients of this server get an event before the bus is asked."""
        self.hub.pause()
        self.one.emit("hi")
        self.assertEqual(self.alice.received(), [("hi",)])
        self.assertEqual(self.get(self.bob), [[]])
        self.hub.resume()
        self.assertEqual(self.get(self.bob), [[("hi",)]])

    def test_binary(self) -> None:
        self.one.to("blue").emit("image", {"png": b"\x00\xff"}, b"", "é\u2028")
        expected = [("image", {"png": b"\x00\xff"}, b"", "é\u2028")]
        self.assertEqual(self.get(self.bob, self.carol), [expected, expected])

    def test_order(self) -> None:
        for number in range(50):
            self.one.to("blue").emit("n", number)
        self.assertEqual([n for _, n in self.get(self.carol)[0]], list(range(50)))

    def test_volatile(self) -> None:
        self.setWritable(self.bob, False)
        self.one.to("red").emit("position", volatile=True)
        self.one.to("red").emit("end")
        self.settle()
        self.setWritable(self.bob, True)
        self.assertEqual(self.get(self.bob), [[("end",)]])

    def test_namespaces(self) -> None:
        """Each namespace has rooms of its own, on all servers."""
        for server in self.servers:
            server.namespace("/chat")
        dave, erin = self.join(self.one, "/chat"), self.join(self.two, "/chat")
        self.socketOf(self.two, erin, "/chat").join("red")
        self.settle()
        self.one.namespace("/chat").to("red").emit("hi")
        self.assertEqual(self.get(dave, erin, namespace="/chat"), [[], [("hi",)]])
        self.one.namespace("/chat").emit("all")
        self.assertEqual(self.get(dave, erin, namespace="/chat"), [[("all",)], [("all",)]])
        self.assertEqual(self.get(*self.people), [[], [], []])

    def test_namespaceThatComesAndGoes(self) -> None:
        for server in self.servers[:2]:
            server.mount(re.compile("/game/[0-9]+"), Namespace)
        dave = self.join(self.one, "/game/1")
        erin = self.join(self.two, "/game/1")
        self.settle()
        self.socketOf(self.one, dave, "/game/1").namespace.emit("hi")
        self.assertEqual(self.get(erin, namespace="/game/1"), [[("hi",)]])
        erin.disconnect("/game/1")
        self.settle()
        received = self.two.cluster.link.counts.received
        self.socketOf(self.one, dave, "/game/1").namespace.emit("hi")
        self.settle()
        self.assertEqual(self.two.cluster.link.counts.received, received)

    def test_oldClients(self) -> None:
        """A client of protocol 3 chooses its own id, and is found by it all the same."""
        two = self.member("four", allowEIO3=True)
        self.advance(SETTLED)
        old = self.join(two, protocol=3)
        self.settle()
        self.one.to(old.id()).emit("hi")
        self.assertEqual(self.get(old), [[("hi",)]])

    def test_tooLarge(self) -> None:
        """The caller gets the error; this server's own clients have got the event."""
        error = self.assertRaises(ValueError, self.one.emit, "hi", "x" * 3_000_000)
        self.assertIn("too large", str(error))
        self.assertEqual(len(self.alice.received()), 1)


class EconomyTests(AcrossTestCase):
    """
    The number of messages that an operation costs each server.
    """

    def received(self) -> list[int]:
        return [server.cluster.link.counts.received for server in self.servers]

    def cost(self, act: Any) -> list[int]:
        """Return the number of messages that each server receives for an operation."""
        before = self.received()
        act()
        self.settle()
        return [now - then for now, then in zip(self.received(), before, strict=True)]

    def test_crossesOnce(self) -> None:
        published = self.one.cluster.link.counts.published
        self.one.to("red", "blue").emit("hi", "x" * 1000)
        self.settle()
        self.assertEqual(self.one.cluster.link.counts.published, published + 1)

    def test_roomBothersThoseWhoHaveIt(self) -> None:
        self.assertEqual(self.cost(lambda: self.one.to("blue").emit("hi")), [0, 1, 1])
        self.socketOf(self.three, self.carol).leave("blue")
        self.settle()
        self.assertEqual(self.cost(lambda: self.one.to("blue").emit("hi")), [0, 1, 0])

    def test_roomThatWasJoinedFromAfar(self) -> None:
        self.one.to(self.carol.id()).join("final")
        self.settle()
        self.assertEqual(self.cost(lambda: self.one.to("final").emit("hi")), [1, 1, 1])
        self.advance(5)
        self.assertEqual(self.cost(lambda: self.one.to("final").emit("hi")), [0, 0, 1])

    def test_socketBothersItsServer(self) -> None:
        self.assertEqual(self.cost(lambda: self.one.to(self.carol.id()).emit("hi")), [0, 0, 1])
        self.assertEqual(self.cost(lambda: self.one.to(self.alice.id()).emit("hi")), [0, 0, 0])
        # One for the question, and one for the reply.
        self.assertEqual(self.cost(lambda: self.one.to(self.carol.id()).fetch()), [1, 0, 1])

    def test_namespaceBothersThoseWhoHaveIt(self) -> None:
        self.two.namespace("/only/here")
        self.one.namespace("/only/here")
        self.settle()
        self.assertEqual(self.cost(lambda: self.one.namespace("/only/here").emit("hi")), [1, 1, 0])

    def test_notReadWhereForwarded(self) -> None:
        """A server that forwards an event does not decode it."""

        def refuse(*args: Any) -> Any:
            raise AssertionError("decoded")

        self.patch(NativeReader, "_packetOf", refuse)
        self.patch(self.two, "parser", None)
        self.one.emit("hi")
        self.assertEqual(self.get(self.bob), [[("hi",)]])


class OperationTests(AcrossTestCase):
    def test_join(self) -> None:
        self.one.to("blue").join("final", "last")
        self.settle()
        for client, server in ((self.bob, self.two), (self.carol, self.three)):
            self.assertLessEqual({"final", "last"}, self.socketOf(server, client).rooms)
        self.assertReaches(self.two.to("final"), self.bob, self.carol)

    def test_joinBySocket(self) -> None:
        self.one.to(self.carol.id()).join("red")
        self.settle()
        self.assertReaches(self.one.to("red"), *self.people)

    def test_joinIsNotOvertaken(self) -> None:
        """Sockets that join get the next event, though their server has not subscribed to the room yet."""
        self.one.to(self.carol.id()).join("final")
        self.one.to("final").emit("hi")
        self.one.to("final").leave("final")
        self.assertEqual(self.get(self.carol), [[("hi",)]])
        self.assertReaches(self.one.to("final"))

    def test_joinAnothersOwnRoom(self) -> None:
        """No socket joins another one's own room: its server refuses, and others do not know the room."""
        dave = self.join(self.three)
        self.settle()
        self.one.to(self.carol.id()).join(self.bob.id(), dave.id(), "a room")
        self.settle()
        self.assertNotIn(dave.id(), self.socketOf(self.three, self.carol).rooms)
        for private in (self.bob, dave):
            self.one.to(private.id()).emit("secret")
            self.assertEqual(self.get(private, self.carol), [[("secret",)], []])

    def test_joinTooMany(self) -> None:
        """A socket that has maxRooms stays out, and its server logs that; the others join."""
        socket = self.socketOf(self.three, self.carol)
        connection = socket._connection
        connection.settings = replace(connection.settings, maxRooms=1)
        self.one.to("blue").join("final")
        self.settle()
        self.assertNotIn("final", socket.rooms)
        self.assertIn("final", self.socketOf(self.two, self.bob).rooms)

    def test_leave(self) -> None:
        self.three.to("red").leave("red")
        self.settle()
        self.assertReaches(self.one.to("red"))
        self.assertReaches(self.one.to("blue"), self.bob, self.carol)

    def test_disconnect(self) -> None:
        self.one.to("blue").excluding(self.carol.id()).disconnect()
        self.settle()
        self.assertEqual([client.isConnected() for client in self.people], [True, False, True])
        self.assertEqual(self.bob.disconnections, ["/"])

    def test_disconnectAndClose(self) -> None:
        self.one.to(self.carol.id()).disconnect(close=True)
        self.settle()
        self.assertIsNotNone(self.carol.transport.closed)

    def test_mistakesAreToldAtOnce(self) -> None:
        self.assertRaises(TypeError, self.one.to("red").join, 1)
        self.assertRaises(TypeError, self.one.to("red").leave, None)


class FetchTests(AcrossTestCase):
    TOO_LARGE: list[Any] = [{}, {"text": "short"}]
    "The description of two sockets of one server, when the data of the first are too large."

    def test_everybody(self) -> None:
        self.socketOf(self.two, self.bob).data.update(name="bob", photo=b"\x01", secret=object())
        people = self.resultOf(self.one.fetch())
        self.assertEqual([person.server for person in people], ["", "two", "three"])
        self.assertEqual(
            people[1],
            Person(
                self.bob.id(),
                frozenset([self.bob.id(), "red", "blue"]),
                {"name": "bob", "photo": b"\x01"},
                "two",
            ),
        )

    def test_audience(self) -> None:
        fetched = self.resultOf(self.three.to("red").excluding("blue").fetch())
        self.assertEqual([person.id for person in fetched], [self.alice.id()])

    def test_socket(self) -> None:
        (person,) = self.resultOf(self.one.to(self.carol.id()).fetch())
        self.assertEqual(person.rooms, {self.carol.id(), "blue"})

    def test_largeData(self) -> None:
        """Send in several messages what one cannot hold."""
        for number in range(200):
            self.socketOf(self.two, self.join(self.two)).data.update(number=number, text="x" * 11_000)
        people = self.resultOf(self.one.excluding("red", "blue").fetch())
        self.assertEqual([person.data["number"] for person in people], list(range(200)))

    def test_tooLargeData(self) -> None:
        """Describe a socket without its data if they are too large."""
        self.socketOf(self.two, self.bob).data["text"] = "x" * 3_000_000
        self.socketOf(self.two, self.join(self.two)).data["text"] = "short"
        people = self.resultOf(self.one.excluding(self.alice.id(), self.carol.id()).fetch())
        self.assertEqual([person.data for person in people], self.TOO_LARGE)

    def test_placeholders(self) -> None:
        """Leave out an entry that would read as a placeholder where another entry has bytes."""
        self.socketOf(self.two, self.bob).data.update(profile={"_placeholder": 1}, name="bob")
        self.socketOf(self.two, self.join(self.two)).data["photo"] = b"1"
        people = self.resultOf(self.one.fetch())
        self.assertEqual(len(people), 4)
        self.assertEqual(people[1].data, {"name": "bob"})

    def test_namespaceThatOthersLack(self) -> None:
        self.assertEqual(self.resultOf(self.one.namespace("/here").fetch()), [])

    def test_many(self) -> None:
        """Fetch more sockets than one message describes."""
        clients = [self.join(self.two) for _ in range(450)]
        people = self.resultOf(self.one.excluding("red", "blue").fetch())
        self.assertEqual([person.id for person in people], [client.id() for client in clients])

    def test_rightAfterTheStart(self) -> None:
        """A server that has just started asks only when the others had the time to announce themselves."""
        four = self.member("four")
        self.settle()
        fetched = four.fetch()
        self.settle()
        self.assertNoResult(fetched)
        self.advance(SETTLED)
        self.assertEqual(len(self.successResultOf(fetched)), 3)


class CallTests(AcrossTestCase):
    THREE = "three"
    "The third server's name, as the others know it."

    def answer(self, client: Client, answer: Any) -> None:
        client.on("ready?", lambda *args: answer)

    def test_all(self) -> None:
        for name, client in zip(self.NAMES, self.people, strict=True):
            self.answer(client, (name, b"\x02"))
        answers = self.one.call("ready?", {"a": b"\x01"})
        self.assertCountEqual(self.resultOf(answers), [(name, b"\x02") for name in self.NAMES])
        self.assertEqual(self.carol.received(), [("ready?", {"a": b"\x01"})])

    def test_nothingAndOneAndMany(self) -> None:
        self.answer(self.bob, None)
        self.answer(self.carol, [1, 2])
        self.assertCountEqual(self.resultOf(self.one.to("blue").call("ready?")), [None, [1, 2]])

    def test_socketElsewhere(self) -> None:
        self.answer(self.carol, "carol")
        self.assertEqual(self.resultOf(self.one.to(self.carol.id()).call("ready?")), ["carol"])

    def test_nobody(self) -> None:
        self.assertEqual(self.resultOf(self.one.to("green").call("ready?")), [])

    def test_clientThatDoesNotAnswer(self) -> None:
        self.answer(self.bob, "bob")
        answers = self.one.to("blue").call("ready?", timeout=2)
        self.advance(2)
        error = self.failureResultOf(answers, AckTimeout).value
        self.assertEqual((error.answers, error.servers), (["bob"], []))
        self.assertEqual(str(error), "1 of 2 acked 'ready?' within 2 s")
        self.advance(1)
        self.assertFalse(self.socketOf(self.three, self.carol)._awaitsAck)

    def test_clientThatGoes(self) -> None:
        self.answer(self.bob, "bob")
        answers = self.one.to("blue").call("ready?")
        self.settle()
        self.assertNoResult(answers)
        self.carol.close()
        self.assertEqual(self.resultOf(answers), ["bob"])

    def test_socketHere(self) -> None:
        """No other server is asked about a socket of this one."""
        self.hub.stop()
        self.settle()
        answers = self.one.to(self.alice.id()).call("ready?")
        self.answer(self.alice, 1)
        self.assertEqual(self.resultOf(answers), [1])

    def test_tooManyAreAsked(self) -> None:
        """A server refuses further questions while too many acks are owed, and the asking server hears so."""
        self.patch(reception, "_MAX_OWED", 0)
        self.answer(self.carol, 1)
        first = self.one.to(self.carol.id()).call("ready?", timeout=5)
        second = self.one.to(self.carol.id()).call("ready?", timeout=5)
        self.assertEqual(self.resultOf(first), [1])
        self.advance(5)
        self.assertEqual(self.failureResultOf(second, AckTimeout).value.servers, [self.THREE])

    def test_namespaceThatOthersLack(self) -> None:
        self.assertEqual(self.resultOf(self.one.namespace("/here").call("ready?")), [])

    def unsendable(self) -> Deferred[list[Any]]:
        """Ask carol, whose ack her server cannot encode."""

        def refuse(reply: Any) -> Any:
            raise ValueError("too large")

        writers = self.three.cluster.dialect._writers
        good = writers[Reply]
        writers[Reply] = lambda reply: refuse(reply) if reply.values else good(reply)
        self.answer(self.carol, 1)
        answers = self.one.to(self.carol.id()).call("ready?", timeout=1)
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        return answers

    def test_unsendable(self) -> None:
        """A server reports an ack that will not come."""
        self.assertEqual(self.resultOf(self.unsendable()), [])

    def test_cancelled(self) -> None:
        answers = self.one.call("ready?")
        self.settle()
        answers.cancel()
        self.failureResultOf(answers)
        self.assertEqual(len(self.one.cluster._conversation.questions), 0)

    def test_isNotOvertaken(self) -> None:
        """An event that is emitted after a call arrives after it."""
        for audience in (self.one, self.one.to("red")):
            answers = audience.call("prepare")
            audience.emit("go")
            self.assertEqual(self.get(self.bob), [[("prepare",), ("go",)]])
            answers.cancel()
            self.failureResultOf(answers)

    def test_tooLarge(self) -> None:
        """The caller gets the error, and nothing is left of the question."""
        for call in (self.one.call, self.one.cluster.call):
            error = self.assertRaises(ValueError, call, "ready?", "x" * 3_000_000)
            self.assertIn("too large", str(error))
        self.assertEqual(len(self.one.cluster._conversation.questions), 0)
        self.assertFalse(self.socketOf(self.one, self.alice)._awaitsAck)

    def test_inAdmission(self) -> None:
        """A client in admission cannot ack, and is not waited for."""
        self.answer(self.bob, "bob")
        admitted: Deferred[None] = Deferred()
        self.two.namespace().onConnect(lambda socket: admitted)
        client = self.makeClient(self.two)
        client.connect()
        self.settle()
        answers = self.one.excluding(self.alice.id(), self.carol.id()).call("ready?")
        self.assertEqual(self.resultOf(answers), ["bob"])
        admitted.callback(None)
        self.settle()

    def test_ownNumbers(self) -> None:
        """Two servers may ask one client at a time, and each gets its ack."""
        first = self.one.to(self.carol.id()).call("ready?", 1)
        second = self.two.to(self.carol.id()).call("ready?", 2)
        own = self.socketOf(self.three, self.carol).call("ready?", 3)
        self.carol.on("ready?", lambda number: number * 10)
        self.settle()
        self.assertEqual(self.successResultOf(first), [10])
        self.assertEqual(self.successResultOf(second), [20])
        self.assertEqual(self.successResultOf(own), 30)

    def test_mistakes(self) -> None:
        self.assertRaises(TypeError, self.one.call, "hi", object())
        self.assertRaises(ValueError, self.one.call, "disconnect")


class SettlingTests(AcrossTestCase):
    """
    Questions of a server that has just started, and waits for the others to announce themselves.
    """

    def setUp(self) -> None:
        super().setUp()
        self.four = self.member("four")
        self.settle()

    def test_tooLarge(self) -> None:
        self.assertRaises(ValueError, self.four.call, "ready?", "x" * 3_000_000)
        self.assertEqual(len(self.four.cluster._conversation.questions), 0)

    def test_changedMeanwhile(self) -> None:
        """A question that can no longer be encoded fails; the others are asked."""
        args: list[Any] = []
        changed = [self.four.call("ready?", args), self.four.cluster.call("ready?", args)]
        fetched = self.four.fetch()
        args.append(object())
        self.advance(SETTLED)
        for question in changed:
            self.failureResultOf(question, TypeError)
        self.assertEqual(len(self.successResultOf(fetched)), 3)
        self.assertEqual(len(self.four.cluster._conversation.questions), 0)


class ServerEventTests(ClusterTestCase):
    def test_emit(self) -> None:
        told: list[Any] = []
        for server in self.servers:
            server.cluster.on("reload")(lambda *args, name=server.cluster.name: told.append((name, args)))
        self.one.cluster.emit("reload", "all", b"\x01")
        self.settle()
        self.assertCountEqual(told, [("two", ("all", b"\x01")), ("three", ("all", b"\x01"))])

    def test_call(self) -> None:
        later: Deferred[int] = Deferred()
        self.two.cluster.on("load?")(lambda: later)

        @self.three.cluster.on("load?")
        async def load() -> float:
            return 0.5

        answers = self.one.cluster.call("load?")
        self.settle()
        self.assertNoResult(answers)
        later.callback(2)
        self.assertEqual(self.resultOf(answers), [0.5, 2])

    def test_nobodyListens(self) -> None:
        self.one.cluster.emit("reload")
        self.assertEqual(self.resultOf(self.one.cluster.call("load?")), [])

    def test_handlerThatFails(self) -> None:
        self.two.cluster.on("load?")(lambda: 1 / 0)
        self.three.cluster.on("load?")(lambda: 3)
        answers = self.one.cluster.call("load?")
        self.settle()
        error = self.failureResultOf(answers, AckTimeout).value
        self.assertEqual((error.answers, error.servers), ([3], ["two"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_handlerOfOtherArguments(self) -> None:
        """A handler that does not take so many arguments is not called."""
        self.two.cluster.on("load?")(lambda: 2)
        answers = self.one.cluster.call("load?", 1)
        self.settle()
        self.failureResultOf(answers, AckTimeout)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_answerThatCannotBeSent(self) -> None:
        self.two.cluster.on("load?")(object)
        answers = self.one.cluster.call("load?")
        self.settle()
        self.assertEqual(self.failureResultOf(answers, AckTimeout).value.servers, ["two"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_late(self) -> None:
        self.two.cluster.on("load?")(Deferred)
        answers = self.one.cluster.call("load?", timeout=1)
        self.advance(1)
        self.assertEqual(self.failureResultOf(answers, AckTimeout).value.answers, [])

    def test_mistakes(self) -> None:
        cluster = self.one.cluster
        self.assertRaises(ValueError, cluster.on, "disconnect")
        self.assertRaises(TypeError, cluster.on("x"), None)
        self.assertRaises(TypeError, cluster.emit, "x", object())
        self.assertRaises(TypeError, cluster.call, "x", object())
        self.assertEqual(len(cluster._conversation.questions), 0)


class EventHandlerTests(ClusterTestCase):
    """
    One handler for each event between servers.
    """

    def test_secondHandler(self) -> None:
        """Refuse a second handler of an event, and name both with their places."""
        cluster = self.two.cluster

        @cluster.on("load?")
        def first() -> int:
            return 1

        def second() -> int:
            return 2

        error = self.assertRaises(ValueError, cluster.on("load?"), second)
        for handler in (first, second):
            line = handler.__code__.co_firstlineno
            self.assertIn(f"{handler.__qualname__} ({__file__}:{line})", str(error))
        self.assertIn("replace=True", str(error))
        self.assertEqual(self.resultOf(self.one.cluster.call("load?")), [1])

    def test_replacedHandler(self) -> None:
        self.two.cluster.on("load?")(lambda: 1)
        self.two.cluster.on("load?", replace=True)(lambda: 2)
        self.assertEqual(self.resultOf(self.one.cluster.call("load?")), [2])

    def test_refusedHandlerReplacesNothing(self) -> None:
        """A mistake in a handler leaves the earlier one in place."""
        self.two.cluster.on("load?")(lambda: 1)
        self.assertRaises(TypeError, self.two.cluster.on("load?", replace=True), None)
        self.assertEqual(self.resultOf(self.one.cluster.call("load?")), [1])


class ServersTests(ClusterTestCase):
    def others(self) -> list[list[str]]:
        return [sorted(server.cluster.servers) for server in self.servers]

    def test_known(self) -> None:
        self.assertEqual(self.others(), [["three", "two"], ["one", "three"], ["one", "two"]])

    def test_goodbye(self) -> None:
        stopped = self.two.stopService()
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual(self.others(), [["three"], [], ["one"]])

    def test_again(self) -> None:
        stopped = self.two.stopService()
        self.settle()
        self.successResultOf(stopped)
        self.two.startService()
        self.advance(SETTLED)
        self.assertEqual(self.others(), [["three", "two"], ["one", "three"], ["one", "two"]])
        client = self.join(self.two)
        self.one.emit("hi")
        self.assertEqual(self.get(client), [[("hi",)]])

    def test_namespaceMadeWhileStopped(self) -> None:
        stopped = self.two.stopService()
        self.settle()
        self.successResultOf(stopped)
        for server in self.servers:
            server.namespace("/new")
        self.two.startService()
        self.advance(SETTLED)
        client = self.join(self.two, "/new")
        self.one.namespace("/new").emit("hi")
        self.assertEqual(self.get(client, namespace="/new"), [[("hi",)]])

    def test_clientsBeforeTheStart(self) -> None:
        """Rooms that exist at the start are subscribed to, and left when they are empty."""
        server = self.makeServer(start=False)
        server.cluster.use(MemoryBus(self.hub))
        client = self.join(server)
        self.socketOf(server, client).join("early")
        server.startService()
        self.advance(SETTLED)
        self.one.to("early").emit("hi")
        self.one.to(client.id()).emit("you")
        self.assertEqual(self.get(client), [[("hi",), ("you",)]])
        topics = len(server.cluster._conversation._subscribers)
        client.disconnect()
        self.settle()
        self.assertEqual(len(server.cluster._conversation._subscribers), topics - 2)

    def test_staysKnown(self) -> None:
        self.advance(100)
        self.assertEqual(len(self.one.cluster.servers), 2)

    def test_alone(self) -> None:
        alone = self.makeServer()
        self.assertEqual(alone.cluster.status, "alone")
        self.assertTrue(alone.cluster.isReady)
        self.assertEqual(alone.cluster.servers, [])
        alone.cluster.emit("reload")
        self.assertEqual(self.successResultOf(alone.cluster.call("load?")), [])
        self.failureResultOf(alone.cluster.whenReady(), BusError)

    def test_anotherParser(self) -> None:
        """Servers with different parsers log an error."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.member("other", parser=MsgpackParser())
        self.advance(SETTLED)
        self.assertIn("give all servers the same parser", textOf(events))


class SilentServerTests(AcrossTestCase):
    """
    A server that was there and is silent now: killed, or cut off.
    """

    def setUp(self) -> None:
        super().setUp()
        self.uid = "ghost123"
        self.sendAs(Alive(self.uid, "ghost", 15.0, "txrealtime.socketio.packet.JSONParser"))

    def sendAs(self, message: Any) -> None:
        ((topic, data),) = NativeDialect(self.uid).write(message)
        self.hub.deliver(topic, data)

    def test_fetch(self) -> None:
        fetched = self.one.fetch(timeout=2)
        self.advance(2)
        error = self.failureResultOf(fetched, AckTimeout).value
        self.assertEqual(error.servers, ["ghost"])
        self.assertEqual(len(error.answers), 3)

    def test_call(self) -> None:
        for client in self.people:
            client.on("ready?", lambda: 1)
        answers = self.one.call("ready?", timeout=2)
        self.advance(2)
        error = self.failureResultOf(answers, AckTimeout).value
        self.assertEqual((error.answers, error.servers), ([1, 1, 1], ["ghost"]))
        self.assertIn("ghost", str(error))

    def test_afterTheLease(self) -> None:
        self.advance(21)
        self.assertEqual(sorted(self.one.cluster.servers), ["three", "two"])
        self.assertEqual(len(self.resultOf(self.one.fetch())), 3)

    def test_leaseEndsWhileAsked(self) -> None:
        """Nobody waits any longer for a server that has gone, but the error names it."""
        for client in self.people:
            client.on("ready?", lambda: 1)
        self.advance(14)
        answers = self.one.call("ready?", timeout=60)
        self.advance(10)
        self.assertEqual(self.failureResultOf(answers, AckTimeout).value.servers, ["ghost"])

    def test_othersAreNotKeptWaiting(self) -> None:
        """A question about a socket of another server goes to that server alone."""
        self.assertEqual(len(self.resultOf(self.one.to(self.bob.id()).fetch())), 1)


class OutageTests(AcrossTestCase):
    def test_localGoesOn(self) -> None:
        self.hub.stop()
        self.settle()
        self.assertEqual(self.one.cluster.status, "deaf")
        self.assertFalse(self.one.cluster.isReady)
        self.assertReaches(self.one, self.alice)
        self.assertEqual(
            self.successResultOf(self.one.to(self.alice.id()).fetch())[0].id,
            self.alice.id(),
        )

    def test_whatOthersKnowFails(self) -> None:
        self.hub.stop()
        self.settle()
        for ask in (self.one.fetch, lambda: self.one.call("ready?"), lambda: self.one.cluster.call("x")):
            self.failureResultOf(ask(), BusError)
        self.assertFalse(self.socketOf(self.one, self.alice)._awaitsAck)

    def test_pendingQuestionsFail(self) -> None:
        asked = [self.one.call("ready?"), self.one.fetch(timeout=60)]
        self.hub.stop()
        self.settle()
        for question in asked:
            self.failureResultOf(question, BusError)

    def test_askedAgainAtTheEnd(self) -> None:
        """A question asked because the server stops fails at once."""
        again: list[Deferred[Any]] = []
        self.one.fetch(timeout=60).addErrback(lambda _: again.append(self.one.fetch()))
        stopped = self.one.stopService()
        self.failureResultOf(again[0], BusError)
        self.settle()
        self.successResultOf(stopped)

    def test_recovers(self) -> None:
        self.hub.stop()
        self.advance(20)
        self.hub.start()
        self.advance(5)
        self.assertEqual({server.cluster.status for server in self.servers}, {"ready"})
        self.assertEqual(len(self.one.cluster.servers), 2, "an outage is no reason to take others for gone")
        self.get(*self.people)
        self.assertReaches(self.one.to("red"), self.alice, self.bob)
        self.assertEqual(len(self.resultOf(self.one.fetch())), 3)

    def test_queued(self) -> None:
        """An event emitted in an outage arrives after it."""
        self.hub.stop()
        self.settle()
        self.one.emit("hi")
        self.advance(1)
        self.hub.start()
        self.advance(5)
        self.assertEqual(self.get(self.bob), [[("hi",)]])


HEADS = [
    "[]",
    "{}",
    "1",
    '"emit"',
    "[1]",
    '["emit"]',
    '["emit","/",null,[],false]',
    '["toString","/",[]]',
    '["emit","/",null,[],false,[]]',
    '["emit","/",null,[],0,[4]]',
    '["emit","/",[1],[],false,[4]]',
    '["emit",1,null,[],false,[4]]',
    '["emit","/",null,[],false,["4"]]',
    '["emit","/",null,[],false,[5]]',
    '["emit","/",null,[],false,[3]]',
    '["emit","/",null,[],false,[true]]',
    '["emit","/",null,[],false,[-99]]',
    '["join","/",null,[],"red",[]]',
    '["join","/",null,[],[null],[4]]',
    '["disconnect","/",null,[],1,[4]]',
    '["ask","/",null,[],"r","1",[4]]',
    '["ask","/",null,[],1,1,[4]]',
    '["fetch","/",null,[],1,[4]]',
    '["tell",1,[4]]',
    '["reply","r",-1,0,"acks",[4]]',
    '["reply","r",1,0,"people",[4]]',
    '["reply","r",1,0,[],[4]]',
    '["gone",{}]',
    '["alive","n",0,"p",false,[4]]',
    '["alive","n",1e99,"p",false,[4]]',
    '["alive",1,1,"p",false,[4]]',
    f'["alive","{"n" * 301}",1,"p",false,[4]]',
    "[" * 100_000,
    '["emit","/",null,[],false,[1e400]]',
]
"Heads that no server would send."


class HostileTests(AcrossTestCase):
    """
    Messages from strangers on the cluster's topics do no harm.
    """

    TOPICS = ("txrealtime", "txrealtime,/", "txrealtime,/,red")

    def test_garbage(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        topics = [*self.TOPICS, f"txrealtime@{self.one.cluster.uid}"]
        for topic in topics:
            for data in (b"", b"\x00" * 100, b"{}", b"txr1 ", b"txr2 abcdefgh []\n", b"SECRET" * 10):
                self.hub.deliver(topic, data)
        self.settle()
        self.assertEqual(self.one.cluster.ignored, 24)
        self.assertEqual(self.one.cluster.link.counts.failures, 0)
        text = textOf([event for event in events if "ignored" in event.get("log_format", "")])
        self.assertEqual(text.count("ignored a message"), 3, "once for each server")
        self.assertNotIn("SECRET", text)
        self.assertReaches(self.one.to("red"), self.alice, self.bob)

    def test_heads(self) -> None:
        for head in HEADS:
            before = self.one.cluster.ignored
            self.hub.deliver("txrealtime,/", b"txr1 abcdefgh " + head.encode() + b"\n2[1]")
            self.assertEqual(self.one.cluster.ignored, before + 1, head[:60])
        self.assertEqual(self.one.cluster.link.counts.failures, 0)
        self.assertReaches(self.one, *self.people)

    def test_repliesToNothing(self) -> None:
        topic = f"txrealtime@{self.one.cluster.uid}"
        for request in ("x", f"{self.one.cluster.uid}1"):
            self.hub.deliver(topic, f'txr1 abcdefgh ["reply","{request}",1,0,"acks",[]]\n'.encode())
        fetched = self.one.fetch()
        # A server that was not asked replies too.
        request = next(iter(self.one.cluster._conversation.questions._waiting))
        self.hub.deliver(topic, f'txr1 abcdefgh ["reply","{request}",null,5,"acks",[]]\n'.encode())
        self.assertEqual(len(self.resultOf(fetched)), 3)

    def test_repliesTwice(self) -> None:
        fetched = self.one.fetch()
        request = next(iter(self.one.cluster._conversation.questions._waiting))
        data = f'txr1 {self.two.cluster.uid} ["reply","{request}",0,0,"people",[]]\n'.encode()
        self.hub.deliver(f"txrealtime@{self.one.cluster.uid}", data)
        self.assertEqual(len(self.resultOf(fetched)), 2, "what it said first counts")

    def test_answersOfAnotherKind(self) -> None:
        """Replies of another kind are ignored, and the true ones still come."""
        for client in self.people:
            client.on("ready?", lambda: 1)
        person = '{"id":"x","rooms":[],"data":{}}'
        fetch, call = self.one.fetch, partial(self.one.call, "ready?")
        for ask, form, packet in ((fetch, "acks", "30[[1]]"), (call, "people", f"30[{person}]")):
            asked = ask()
            request = next(iter(self.one.cluster._conversation.questions._waiting))
            head = f'txr1 {self.two.cluster.uid} ["reply","{request}",1,0,"{form}",[{len(packet)}]]'
            self.hub.deliver(f"txrealtime@{self.one.cluster.uid}", f"{head}\n{packet}".encode())
            answers = self.resultOf(asked)
            self.assertEqual([isinstance(answer, Person) for answer in answers], [ask is fetch] * 3)
        self.assertEqual(self.one.cluster.ignored, 0)

    def test_huge(self) -> None:
        self.hub.deliver("txrealtime,/", b"x" * 3_000_000)
        self.assertEqual(self.one.cluster.link.counts.oversized, 1)


class SlowClockTests(SynchronousTestCase):
    """
    Two servers whose clocks differ.
    """

    def setUp(self) -> None:
        self.here, self.there, hub = Clock(), Clock(), MemoryHub()
        self.one, self.two = (
            makeServer(reactor=clock, bus=MemoryBus(hub)) for clock in (self.here, self.there)
        )
        self.silent = Client(self.two)
        self.silent.connect()
        self.pass_(3)

    def tearDown(self) -> None:
        for server in (self.one, self.two):
            server.stopService()
        self.silent.close()
        self.pass_(5)

    def pass_(self, seconds: float) -> None:
        for _ in range(20):
            self.here.advance(seconds / 20)
            self.there.advance(seconds / 20)
            self.silent.flush()

    def test_notAnsweredInTime(self) -> None:
        """A server's own timeout is no reply: the asking server times out."""
        answers = self.one.call("ready?", timeout=2)
        self.pass_(1)
        for _ in range(5):
            self.there.advance(1)
            self.here.advance(0)
        self.assertNoResult(answers)
        self.here.advance(2)
        self.failureResultOf(answers, AckTimeout)

    def test_jump(self) -> None:
        """No server has gone because a clock jumped, or a server hung."""
        for seconds in (1, 20, 1000, -20):
            self.here.rightNow += seconds
            self.pass_(0.2)
            self.assertEqual(len(self.one.cluster.servers), 1)
            fetched = self.one.fetch()
            self.pass_(0.2)
            self.assertEqual(len(self.successResultOf(fetched)), 1)
        self.there.rightNow += 20
        self.pass_(10)
        self.assertEqual(len(self.one.cluster.servers), 1)
