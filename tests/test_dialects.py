"""
The dialects of other makes: what works among servers of txrealtime works in them too, as far as they go.

tests/interop/test_clusters.py tests that other makes understand them.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests import test_cluster as across
from tests.clusters import SETTLED
from tests.examples import given, st
from txrealtime import AckTimeout, Namespace, Person, Server
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.cluster.bus.memory import MemoryBus, _Subscriber
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.dialects.interfaces import Topic, Unsupported
from txrealtime.cluster.dialects.messages import Emit, Fetch, Join, Leave, Reply, Target, Tell
from txrealtime.cluster.dialects.nodejs import NodeDialect
from txrealtime.cluster.dialects.pythonsocketio import PythonSocketIODialect
from txrealtime.errors import BusError, PacketError
from txrealtime.socketio.msgpack import MsgpackParser, packed
from txrealtime.socketio.packet import Packet, PacketType

NODE = DialectChoice("node", "socket.io")
PYTHON = DialectChoice("python-socketio", "flask-socketio")


class DialectChoiceTests(SynchronousTestCase):
    """
    The dialect in the URL of a bus.
    """

    def test_default(self) -> None:
        self.assertEqual(DialectChoice.fromURL("redis://host"), (DialectChoice(), "redis://host"))
        self.assertEqual(
            DialectChoice.fromURL("redis://host?key=chat"), (DialectChoice("native", "chat"), "redis://host")
        )

    def test_others(self) -> None:
        for query, language in (
            ("dialect=node", NODE),
            ("dialect=node&key=chat", DialectChoice("node", "chat")),
            ("dialect=python-socketio", DialectChoice("python-socketio", "socketio")),
            ("dialect=python-socketio&channel=flask-socketio", PYTHON),
        ):
            self.assertEqual(DialectChoice.fromURL(f"redis://host/1?{query}"), (language, "redis://host/1"))

    def test_restIsTheBuss(self) -> None:
        self.assertEqual(
            DialectChoice.fromURL("rediss://host?key=chat&ssl_ca_certs=%2Fca.pem"),
            (DialectChoice("native", "chat"), "rediss://host?ssl_ca_certs=%2Fca.pem"),
        )

    def test_mistakes(self) -> None:
        for query, text in (
            ("dialect=java", "dialect=java: expected native, node, node-streams, python-socketio"),
            ("channel=x", "it is key="),
            ("dialect=python-socketio&key=x", "it is channel="),
            ("key=", "key= is empty"),
            ("colour=red", "unknown option colour"),
        ):
            error = self.assertRaises(ValueError, DialectChoice.fromURL, f"redis://host?{query}")
            self.assertIn(text, str(error))
        self.assertRaises(ValueError, DialectChoice.fromURL, "http://host")
        self.assertIn(
            "Redis", str(self.assertRaises(ValueError, DialectChoice.fromURL, "amqp://host?dialect=node"))
        )


class NodeEmitTests(across.EmitTests):
    DIALECT = NODE

    def test_keys(self) -> None:
        """Keys that JSON turns into text are text on all servers."""
        self.one.emit("scores", {1: {True: "a", None: "b", 1.5: "c", "d": "e"}})
        scores = {"1": {"true": "a", "null": "b", "1.5": "c", "d": "e"}}
        self.assertEqual(self.get(*self.people), [[("scores", scores)]] * 3)

    def test_namespaceWithAHash(self) -> None:
        for server in self.servers:
            server.namespace("/a#b")
        self.settle()
        dave = self.join(self.two, "/a#b")
        for isBesideAnother in (False, True):
            if isBesideAnother:
                self.two.namespace("/a")
                erin = self.join(self.two, "/a")
                self.socketOf(self.two, erin, "/a").join("b")
                self.socketOf(self.two, dave, "/a#b").join("c#d")
            self.settle()
            self.one.namespace("/a#b").emit("hi")
            self.one.namespace("/a#b").to(dave.id("/a#b")).emit("you")
            self.assertEqual(self.get(dave, namespace="/a#b"), [[("hi",), ("you",)]])
        self.three.namespace("/a").to("b").emit("room")
        self.one.namespace("/a#b").to("c#d").emit("both")
        self.assertEqual(self.get(erin, namespace="/a"), [[("room",)]])
        self.assertEqual(self.get(dave, namespace="/a#b"), [[("both",)]])


class NodeOperationTests(across.OperationTests):
    DIALECT = NODE

    def test_joinAnothersOwnRoom(self) -> None:
        """As among Node's servers, a socket may join a room named by the id of a remote socket."""
        dave = self.join(self.three)
        self.settle()
        self.one.to(self.carol.id()).join(self.bob.id(), dave.id())
        self.settle()
        self.one.to(dave.id()).emit("secret")
        self.assertEqual(self.get(dave, self.carol), [[("secret",)], []])
        self.one.to(self.bob.id()).emit("hi")
        self.assertEqual(self.get(self.bob, self.carol), [[("hi",)], [("hi",)]])


class NodeFetchTests(across.FetchTests):
    """Servers have no names, and bytes are in the form that Node gives them."""

    DIALECT = NODE

    TOO_LARGE: list[Any] = [{}, {}]
    "A server replies in one message, with the data of all sockets or of none."

    def test_largeData(self) -> None:
        for _ in range(30):
            self.socketOf(self.two, self.join(self.two)).data["text"] = "x" * 80_000
        self.assertEqual(len(self.resultOf(self.one.fetch())), 33)

    def test_answersOfAnotherKind(self) -> None:
        fetched = self.one.fetch()
        request = next(iter(self.one.cluster._conversation.questions._waiting))
        self.hub.deliver("socket.io-response#/#", f'{{"type":6,"requestId":"{request}","data":1}}'.encode())
        people = self.resultOf(fetched)
        self.assertEqual([type(person) for person in people], [Person] * 3)

    def test_rightAfterTheStart(self) -> None:
        """The number of other servers is known at once."""
        self.assertEqual(len(self.resultOf(self.one.fetch())), 3)

    def test_everybody(self) -> None:
        self.socketOf(self.two, self.bob).data.update(name="bob", photo=b"\x01", secret=object())
        people = self.resultOf(self.one.fetch())
        self.assertEqual([person.server for person in people], ["", "an unnamed server", "an unnamed server"])
        self.assertEqual(people[1].data, {"name": "bob", "photo": {"type": "Buffer", "data": [1]}})
        self.assertEqual(people[1].rooms, {self.bob.id(), "red", "blue"})

    def test_namespaceThatComes(self) -> None:
        """A question in a namespace just mounted waits until this server hears the replies."""
        subscribe = _Subscriber.subscribe

        def subscribeLater(subscriber: Any, subscription: Subscription) -> Deferred[None]:
            return deferLater(self.clock, 1, subscribe, subscriber, subscription)

        for server in self.servers:
            server.mount(re.compile("/game/.*"), Namespace)
        self.join(self.two, "/game/1")
        self.settle()
        self.patch(_Subscriber, "subscribe", subscribeLater)
        client = self.join(self.one, "/game/1")
        game = self.one.namespace("/game/1")
        fetched = game.fetch()
        self.settle()
        self.assertNoResult(fetched)
        self.advance(1)
        self.assertEqual(len(self.successResultOf(fetched)), 2)
        client.close()
        self.assertIn("not subscribed", str(self.failureResultOf(game.fetch(), BusError)))

    def test_tooMuchForOneMessage(self) -> None:
        """A reply that cannot be encoded does not mean that nobody is there."""
        for _ in range(3):
            self.join(self.two, auth={"story": "x" * 800_000})
        fetched = self.one.fetch(timeout=1)
        self.advance(1)
        error = self.failureResultOf(fetched, AckTimeout).value
        self.assertEqual(error.servers, ["an unnamed server"])
        self.assertEqual(len(error.answers), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_whatJSONLacks(self) -> None:
        """No client keeps a server from replying."""
        deep = "[" * 600 + "]" * 600
        for auth in ('{"a":[1e999,1]}', f'{{"a":{deep}}}', '{"a":{"_placeholder":true}}'):
            self.sendText(self.makeClient(self.two), f"0{auth}")
        self.socketOf(self.two, self.bob).data.update(photo=b"\x01", deep=json.loads(deep))
        self.assertEqual(len(self.resultOf(self.one.fetch())), 6)
        auths = [person["handshake"]["auth"] for person in self.described(self.two)]
        self.assertEqual(auths, [{}, {"a": [None, 1]}, {}, {"a": {"_placeholder": True}}])

    def test_whatMessagePackHas(self) -> None:
        server = self.makeServer(parser=MsgpackParser())
        self.join(server, auth={"when": datetime(2030, 1, 2, tzinfo=UTC), "key": b"\x01"})
        (person,) = self.described(server)
        shown = {"when": "2030-01-02T00:00:00.000Z", "key": {"type": "Buffer", "data": [1]}}
        self.assertEqual(person["handshake"]["auth"], shown)

    def described(self, server: Server) -> list[dict[str, Any]]:
        """Return the description that a server gives of its clients."""
        dialect = NodeDialect("READER", namespaces=server._namespaces)
        question = Fetch(Target("/"), "u", "q")
        people = server.namespace().everyone._people()
        ((_, data),) = dialect.write(Reply(question, "q", "", len(people), people))
        found: list[dict[str, Any]] = json.loads(data)["sockets"]
        return found


class NodeCallTests(across.CallTests):
    """Acks carry the first of several values, and lapsed acks are not reported."""

    DIALECT = NODE
    THREE = "an unnamed server"

    def test_unsendable(self) -> None:
        answers = self.unsendable()
        self.advance(1)
        self.assertEqual(self.failureResultOf(answers, AckTimeout).value.answers, [])

    def test_all(self) -> None:
        for name, client in zip(self.NAMES, self.people, strict=True):
            self.answer(client, [name, b"\x02"])
        answers = self.one.call("ready?", {"a": b"\x01"})
        self.assertCountEqual(self.resultOf(answers), [[name, b"\x02"] for name in self.NAMES])
        self.assertEqual(self.carol.received(), [("ready?", {"a": b"\x01"})])

    def test_clientThatGoes(self) -> None:
        answers = self.one.to("blue").call("ready?", timeout=2)
        self.settle()
        self.carol.close()
        self.advance(2)
        self.failureResultOf(answers, AckTimeout)

    def test_severalValues(self) -> None:
        self.answer(self.carol, (1, 2))
        self.assertEqual(self.resultOf(self.one.to(self.carol.id()).call("ready?")), [1])


class NodeServerEventTests(across.ServerEventTests):
    """Like `io.serverSideEmit()`: a server without a result does not reply."""

    DIALECT = NODE

    def test_emit(self) -> None:
        told: list[Any] = []
        self.two.cluster.on("reload")(lambda *args: told.append(args))
        self.one.cluster.emit("reload", "all", b"\x01")
        self.settle()
        self.assertEqual(told, [("all", {"type": "Buffer", "data": [1]})])

    def test_withoutRoot(self) -> None:
        """A server without the namespace "/" takes part, as every server of Node has one."""
        four = Server(reactor=self.clock)
        self.servers.append(four)
        four.cluster.use(MemoryBus(self.hub), NODE)
        four.startService()
        self.advance(SETTLED)
        told: list[Any] = []
        four.cluster.on("reload")(lambda *args: told.append(args))
        for server in (self.one, self.two, self.three):
            server.cluster.on("load?")(lambda: 1)
        self.one.cluster.emit("reload")
        self.assertEqual(self.resultOf(four.cluster.call("load?")), [1, 1, 1])
        self.assertEqual(told, [()])
        self.assertEqual(self.resultOf(self.one.fetch()), [])
        self.assertEqual(self.resultOf(self.one.call("ready?")), [])

    def failing(self, handler: Any) -> None:
        self.two.cluster.on("load?")(handler)
        self.three.cluster.on("load?")(lambda: 3)
        answers = self.one.cluster.call("load?", timeout=1)
        self.advance(1)
        error = self.failureResultOf(answers, AckTimeout).value
        self.assertEqual((error.answers, error.servers), ([3], ["an unnamed server"]))
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_handlerThatFails(self) -> None:
        self.failing(lambda: 1 / 0)

    def test_handlerOfOtherArguments(self) -> None:
        self.failing(lambda missing: 1)

    def test_answerThatCannotBeSent(self) -> None:
        self.failing(object)

    def test_nobodyListens(self) -> None:
        answers = self.one.cluster.call("load?", timeout=1)
        self.advance(1)
        self.assertEqual(self.failureResultOf(answers, AckTimeout).value.servers, ["an unnamed server"] * 2)


class NodeOutageTests(across.OutageTests):
    DIALECT = NODE

    def test_recovers(self) -> None:
        self.hub.stop()
        self.advance(20)
        self.hub.start()
        self.advance(5)
        self.get(*self.people)
        self.assertReaches(self.one.to("red"), self.alice, self.bob)
        self.assertEqual(len(self.resultOf(self.one.fetch())), 3)


class NodeUnsendableTests(across.AcrossTestCase):
    """MessagePack carries more than clients can be sent: such an event is ignored."""

    DIALECT = NODE
    EVENT = {"type": 2, "data": ["x", b"1", {"_placeholder": 1}], "nsp": "/"}
    OPTIONS = {"rooms": [], "except": [], "flags": {}}

    def assertIgnored(self, topic: str, message: Any) -> None:
        self.hub.deliver(topic, packed(message))
        self.assertEqual(self.get(self.bob), [[]])
        self.assertEqual(self.two.cluster.ignored, 1)
        self.assertEqual(self.two.cluster.link.counts.failures, 0)

    def test_emit(self) -> None:
        self.assertIgnored("socket.io#/#", ["other", self.EVENT, self.OPTIONS])

    def test_ask(self) -> None:
        request = {"uid": "other", "requestId": "r", "type": 7, "packet": self.EVENT, "opts": self.OPTIONS}
        self.assertIgnored("socket.io-request#/#", request)


class PythonEmitTests(across.EmitTests):
    """Sockets can be excluded, but rooms cannot."""

    DIALECT = PYTHON

    def test_volatile(self) -> None:
        """An event that is volatile here is not so there: it arrives later."""
        self.setWritable(self.bob, False)
        self.one.to("red").emit("position", volatile=True)
        self.settle()
        self.setWritable(self.bob, True)
        self.assertEqual(self.get(self.bob), [[("position",)]])

    def test_excluding(self) -> None:
        for server in self.servers:
            self.assertReaches(server.to("red").excluding(self.bob.id()), self.alice)
            error = self.assertRaises(Unsupported, server.excluding("red").emit, "hi")
            self.assertIn("python-socketio has no exclusion of rooms", str(error))
            self.get(*self.people)

    def test_namespaceThatComesAndGoes(self) -> None:
        """All servers hear the events of all namespaces."""


class PythonOperationTests(across.AcrossTestCase):
    DIALECT = PYTHON

    def test_sockets(self) -> None:
        ids = self.one.to(self.bob.id(), self.carol.id())
        ids.join("final", "last")
        self.settle()
        self.assertReaches(self.two.to("final"), self.bob, self.carol)
        ids.leave("final")
        self.settle()
        self.assertReaches(self.two.to("final"))
        self.assertReaches(self.two.to("last"), self.bob, self.carol)
        ids.disconnect()
        self.settle()
        self.assertEqual([client.isConnected() for client in self.people], [True, False, False])

    def test_closeRoom(self) -> None:
        self.one.to("blue").leave("blue")
        self.settle()
        self.assertReaches(self.one.to("blue"))

    def test_lacks(self) -> None:
        for act in (
            lambda: self.one.to("red").join("blue"),
            lambda: self.one.to("red").leave("blue"),
            lambda: self.one.to("red").disconnect(),
            lambda: self.one.to(self.bob.id()).disconnect(close=True),
            lambda: self.one.cluster.emit("reload"),
        ):
            self.assertIn("python-socketio has no", str(self.assertRaises(Unsupported, act)))
        for ask in (
            self.one.fetch,
            lambda: self.one.cluster.call("x"),
            lambda: self.one.to("blue").call("x"),
        ):
            self.failureResultOf(ask(), Unsupported)
        self.assertTrue(issubclass(Unsupported, BusError))

    def test_call(self) -> None:
        for answer, expected in (((1, 2), (1, 2)), (None, None), ([3], [3])):
            self.carol.on("ready?", lambda *args, answer=answer: answer)
            answers = self.one.to(self.carol.id()).call("ready?", b"\x01")
            self.assertEqual(self.resultOf(answers), [expected])
        self.assertEqual(self.carol.received(), [("ready?", b"\x01")] * 3)

    def test_callNobody(self) -> None:
        answers = self.one.to("x" * 20).call("ready?", timeout=1)
        self.advance(1)
        self.failureResultOf(answers, AckTimeout)


EVENT = Packet(PacketType.EVENT, "/x", ["ev", {"a": 1}])


class PythonFormTests(SynchronousTestCase):
    """
    The messages, compared with those that python-socketio 5.18 was seen to send.
    """

    READER = PythonSocketIODialect("READER")

    def read(self, text: str) -> Any:
        return self.READER.read("socketio", text.encode())

    def emit(self, **fields: str) -> Any:
        parts = {
            "event": '"ev"', "data": "[1]", "binary": "false", "namespace": '"/"', "room": "null",
            "skip_sid": "null", "callback": "null", "host_id": '"HOST"', **fields,
        }  # fmt: skip
        body = ", ".join(f'"{name}": {value}' for name, value in parts.items())
        return self.read('{"method": "emit", ' + body + "}")

    def args(self, **fields: str) -> Any:
        return self.emit(**fields).packet.data[1:]

    def test_arguments(self) -> None:
        self.assertEqual(self.args(data='["a", 2]'), ["a", 2])
        self.assertEqual(self.args(data="[null]"), [])
        self.assertEqual(self.args(data="[[1, 2]]"), [[1, 2]])
        self.assertEqual(self.args(data='"bare"'), ["bare"])
        binary = '[["a", {"_placeholder": true, "num": 0}], "AQ=="]'
        self.assertEqual(self.args(data=binary, binary="true"), ["a", b"\x01"])

    def test_target(self) -> None:
        self.assertEqual(self.emit().target, Target("/"))
        self.assertEqual(self.emit(room='"r"', namespace="null").target, Target("/", ("r",)))
        self.assertEqual(self.emit(room='["r", 5]').target.rooms, ("r", "5"))
        self.assertEqual(self.emit(skip_sid='"s"').target.excluded, {"s"})
        self.assertEqual(self.emit(skip_sid='["s", "t"]').target.excluded, {"s", "t"})

    def test_operations(self) -> None:
        one = Target("/", ("SID",))
        self.assertEqual(
            self.read(
                '{"method": "enter_room", "sid": "SID", "room": "r", "namespace": "/", "host_id": "H"}'
            ),
            Join(one, ("r",)),
        )
        self.assertEqual(
            self.read('{"method": "close_room", "room": "r", "namespace": "/", "host_id": "H"}'),
            Leave(Target("/", ("r",)), ("r",)),
        )

    def test_callback(self) -> None:
        ask = self.emit(room='"SID"', callback='["SID", "/", 3]')
        self.assertEqual(ask.sender, "HOST")
        ((_, data),) = self.READER.write(Reply(ask, ask.request, "READER", None, [("x", {"y": 1})]))
        self.assertEqual(
            data.decode(),
            '{"host_id":"HOST","method":"callback","sid":"SID","namespace":"/","id":3,"args":["x",{"y":1}]}',
        )
        self.assertEqual(
            PythonSocketIODialect("HOST").read("socketio", data),
            Reply(None, "HOST3", "", 1, [("x", {"y": 1})]),
        )

    def test_written(self) -> None:
        ((topic, data),) = self.READER.write(Emit(Target("/x", ("r",), frozenset(["s" * 20])), EVENT, None))
        self.assertEqual(topic, "socketio")
        self.assertEqual(
            data.decode(),
            '{"host_id":"READER","method":"emit","event":"ev","binary":false,"namespace":"/x","room":"r",'
            '"skip_sid":["ssssssssssssssssssss"],"callback":null,"data":[{"a":1}]}',
        )

    def test_ownMessages(self) -> None:
        self.assertIsNone(self.emit(host_id='"READER"'))
        self.assertIsNone(self.read('{"method": "callback", "host_id": "OTHER"}'))

    def test_broken(self) -> None:
        for text in (
            "", "[]", "1", "{}", '"x"', "{", '{"method": 1}', '{"method": "toString"}', '{"method": "emit"}',
            '{"method": "enter_room", "sid": null, "room": "r"}', '{"method": "close_room", "room": null}',
            '{"method": "callback", "host_id": "READER", "id": "1", "args": []}', "[" * 100_000,
            '{"method": "callback", "host_id": "READER", "id": 1, "args": 1}', "\x80\x04\x95",
        ):  # fmt: skip
            self.assertRaises(PacketError, self.read, text)
        for fields in (
            {"event": "null"},
            {"event": '"connect"'},
            {"namespace": "1"},
            {"room": "1.5"},
            {"room": '[["r"]]'},
            {"skip_sid": "[null]"},
            {"callback": "[1]"},
            {"callback": "1"},
            {"binary": "true", "data": '[[{"_placeholder":true,"num":1}], "AQ=="]'},
            {"binary": "true", "data": '[[], "?"]'},
            {"callback": '["r", "/", 1]', "host_id": "null"},
        ):  # fmt: skip
            self.assertRaises(PacketError, self.emit, **fields)

    @given(st.binary(max_size=100))
    def test_anything(self, data: bytes) -> None:
        self.assertRaises(PacketError, self.READER.read, "socketio", data)


class NodeFormTests(SynchronousTestCase):
    """
    The messages, compared with those that Node was seen to send.
    """

    READER = NodeDialect("READER")
    GOLDEN = bytes.fromhex(
        "93a6774b78744e6b83a474797065""02a464617461""95a568656c6c6f01a178""81a161c0c4020102a36e7370a12f"
        "83a5726f6f6d7390a665786365707490a5666c61677380"
    )  # fmt: skip
    "`io.emit('hello', 1, 'x', {a: null}, <01 02>)`"

    def test_golden(self) -> None:
        emit = self.READER.read("socket.io#/#", self.GOLDEN)
        self.assertEqual(emit.packet.data, ["hello", 1, "x", {"a": None}, b"\x01\x02"])
        self.assertEqual(emit.target, Target("/"))
        self.assertEqual(NodeDialect("wKxtNk").write(emit), (("socket.io#/#", self.GOLDEN),))
        self.assertIsNone(NodeDialect("wKxtNk").read("socket.io#/#", self.GOLDEN))

    def test_room(self) -> None:
        ((topic, _),) = self.READER.write(Emit(Target("/x", ("r",)), EVENT, None))
        self.assertEqual(topic, "socket.io#/x#r#")
        pattern = self.READER.topicsOf("/x*[")[0]
        self.assertEqual(pattern, Topic("socket.io#/x\\*\\[#*", True))

    def test_otherNamespace(self) -> None:
        self.assertIsNone(self.READER.read("socket.io#/chat#", self.GOLDEN))

    def test_dates(self) -> None:
        """Dates arrive as clients of Node would get them."""
        timestamp = bytes.fromhex("d6ff00000001")
        data = b"\x93\xa1u\x82\xa4type\x02\xa4data\x92\xa1e\x81\xa1d\x91" + timestamp + b"\x81\xa5rooms\x90"
        emit = self.READER.read("socket.io#/#", data)
        self.assertEqual(emit.packet.data, ["e", {"d": ["1970-01-01T00:00:01.000Z"]}])

    def event(self, *args: Any, **options: Any) -> Any:
        fields = {"type": 2, "data": ["e", *args]}
        return self.READER.read("socket.io#/#", packed(["u", fields, {"rooms": [], **options}]))

    def test_numbersThatAreNone(self) -> None:
        """Infinity and NaN arrive as clients of Node would get them."""
        emit = self.event(math.nan, [math.inf, {"a": -math.inf}], 1.5)
        self.assertEqual(emit.packet.data, ["e", None, [None, {"a": None}], 1.5])

    def test_flags(self) -> None:
        for flags in ([], None, {}, 1, {"volatile": 1}):
            self.assertFalse(self.event(flags=flags).volatile)
        self.assertTrue(self.event(flags={"volatile": True}).volatile)

    def test_keys(self) -> None:
        self.assertEqual(self.event({1: 2, "a": 3}).packet.data, ["e", {"1": 2, "a": 3}])
        for data in (b"\x81\x90\x01", b"\x81\xc4\x01a\x01", packed({math.nan: 1})):
            self.assertRaises(PacketError, self.READER.read, "socket.io#/#", b"\x93\xa1u" + data + b"\x80")

    def test_timeouts(self) -> None:
        def seconds(flags: Any) -> float:
            message = {
                "type": 7, "uid": "u", "requestId": "q", "packet": {"type": 2, "data": ["e"]},
                "opts": {"rooms": [], "flags": flags},
            }  # fmt: skip
            ask = self.READER.read("socket.io-request#/#", packed(message))
            return ask.timeout

        self.assertEqual(seconds({"timeout": 1500}), 1.5)
        self.assertEqual(seconds({"timeout": 0}), 0)
        for timeout in (math.nan, math.inf, 1e300, -1, None, "1", True, []):
            self.assertEqual(seconds({"timeout": timeout}), 3600)
        for flags in ([], None, {}):
            self.assertEqual(seconds(flags), 3600)

    def request(self, text: str) -> Any:
        return self.READER.read("socket.io-request#/x#", text.encode())

    def test_requests(self) -> None:
        opts = '"opts":{"rooms":["r",5],"except":["e"]}'
        target = Target("/x", ("r", "5"), frozenset(["e"]))
        self.assertEqual(self.request(f'{{"uid":"u","type":2,{opts},"rooms":["a"]}}'), Join(target, ("a",)))
        self.assertEqual(self.request(f'{{"type":3,{opts},"rooms":["a"]}}'), Leave(target, ("a",)))
        self.assertEqual(
            self.request(f'{{"uid":"u","requestId":"q","type":5,{opts}}}'), Fetch(target, "u", "q")
        )
        self.assertEqual(
            self.request('{"uid":"u","requestId":"q","type":1}'), Fetch(Target("/x"), "u", "q", "rooms")
        )
        self.assertEqual(
            self.request('{"type":2,"sid":"s","room":"a","requestId":"q"}'),
            Join(Target("/x", ("s",)), ("a",)),
        )
        self.assertEqual(
            self.READER.read("socket.io-request#/#", b'{"uid":"u","type":6,"data":["hi",1]}'),
            Tell(["hi", 1], "u"),
        )
        self.assertIsNone(self.request('{"uid":"u","type":6,"data":["hi",1]}'))

    def test_broken(self) -> None:
        for text in (
            "",
            "[]",
            "{}",
            "{",
            '{"type":2}',
            '{"type":99}',
            '{"type":[]}',
            '{"type":2,"opts":1,"rooms":[]}',
            '{"type":2,"opts":{"rooms":1},"rooms":[]}',
            '{"type":2,"opts":{"rooms":[]},"rooms":[null]}',
            '{"type":5,"opts":{"rooms":[]},"uid":"u"}',
            '{"type":5,"opts":{"rooms":[]},"uid":1,"requestId":"q"}',
            '{"type":1,"uid":"u"}',
            '{"type":7,"uid":"u","requestId":"q","opts":{}}',
        ):  # fmt: skip
            self.assertRaises(PacketError, self.request, text)
        for text in (
            "{}", '{"requestId":"READER1"}', '{"requestId":"READER1","type":8,"clientCount":-1}',
            '{"requestId":"READER1","sockets":[1]}', '{"requestId":"READER1","sockets":[{"id":1}]}', "\x00",
        ):  # fmt: skip
            self.assertRaises(PacketError, self.READER.read, "socket.io-response#/#", text.encode())
        for value in (
            1,
            [],
            ["u", 1, 2],
            ["u", {}, {}],
            ["u", {"type": 2, "data": ["e"]}, {}],
            ["u", {"type": 2, "data": ["connect"]}, {"rooms": []}],
            ["u", {"type": 3, "data": ["e"]}, {"rooms": []}],
            ["u", {"type": 2, "data": ["e"], "nsp": 1}, {"rooms": []}],
            ["u", {"type": 2, "data": ["e"]}, {"rooms": [[]]}],
            ["u", {"type": 2, "data": ["e"]}, {"rooms": "x"}, 1],
        ):  # fmt: skip
            self.assertRaises(PacketError, self.READER.read, "socket.io#/#", packed(value))

    @given(st.binary(max_size=100))
    def test_anything(self, data: bytes) -> None:
        for topic in ("socket.io#/#", "socket.io-request#/#", "socket.io-response#/#"):
            self.assertRaises(PacketError, self.READER.read, topic, data)
