"""
The dialect of Node's Streams adapter: entries, channels, names of streams and sessions.

The golden values are those of two servers with @socket.io/redis-streams-adapter 0.3.1, in
tests/interop/test_nodestreams.py they meet.
"""

from __future__ import annotations

import contextlib
import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests import test_cluster as across
from tests import test_dialects
from tests.examples import given, st
from tests.streams import NODE_STREAMS, StreamsBus, StreamsHub
from txrealtime import AckTimeout
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.entries import NodeEntries, entriesOf
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.dialects.interfaces import Unsupported
from txrealtime.cluster.dialects.messages import (
    Ask,
    Disconnect,
    Emit,
    Fetch,
    Gone,
    Join,
    Leave,
    Reply,
    Target,
    Tell,
)
from txrealtime.cluster.dialects.nodestreams import NodeStreamsDialect
from txrealtime.cluster.dialects.ownevents import OwnEvents
from txrealtime.cluster.nodereturns import readSession
from txrealtime.errors import PacketError
from txrealtime.socketio.msgpack import packed, unpacked
from txrealtime.socketio.packet import Packet, PacketType

UID = "4786061bfb020bae"
DATE = datetime(1970, 1, 1, tzinfo=UTC)
DATE_TEXT = "1970-01-01T00:00:00.000Z"

EVENT = '{"packet":{"type":2,"data":["ev",1,{"a":"é"}]},"opts":{"rooms":[],"except":[],"flags":{}}}'
BINARY = (
    "gqZwYWNrZXSCpHR5cGUCpGRhdGGTo2JpbsQDYmlu1v8AAAAApG9wdHODpXJvb21zkaNyZWSmZXhjZXB0kaRibHVlpWZsYWdzgA=="
)
VOLATILE = (
    '{"packet":{"type":2,"data":["vol","text"]},"opts":{"rooms":[],"except":[],"flags":{"volatile":true}}}'
)
WITH_ACK = (
    '{"packet":{"type":2,"data":["mine"],"id":1},'
    '"opts":{"rooms":["Pgq5OzI2I_ko_Dt_AAAA"],"except":[],"flags":{}}}'
)
JOIN = '{"opts":{"rooms":["red"],"except":[],"flags":{}},"rooms":["a","b"]}'
LEAVE = '{"opts":{"rooms":[],"except":[],"flags":{}},"rooms":["a"]}'
DISCONNECT = '{"opts":{"rooms":["zz"],"except":[],"flags":{}},"close":true}'

SESSION = (
    "hKNzaWS0UGdxNU96STJJX2tvX0R0X0FBQUGjcGlktFV6TW15QmlWMFZzel9xZFFBQUFCpXJvb21zk7RQZ3E1T3pJMklfa29fRHRf"
    "QUFBQaNyZWShYqRkYXRhgaFug6Fk1v8AAAAAoXXAoWLEAXg="
)
PID = "UzMmyBiV0Vsz_qdQAAAB"

ASK = (
    "84a47479706503a46461746183a67061636b657482a47479706502a46461746191a171a9726571756573744964b0373232343164"
    "36353463393038363266a46f70747383a5726f6f6d7390a665786365707490a5666c61677381a774696d656f7574cd012ca37569"
    "64b066386564383362376233646339336331a36e7370a12f"
)
TELL = (
    "84a47479706509a46461746182a9726571756573744964b034373139333764343637623132663764a67061636b657492a361736b"
    "07a3756964b034373836303631626662303230626165a36e7370a12f"
)


def packet(*data: Any, path: str = "/") -> Packet:
    return Packet(PacketType.EVENT, path, list(data))


class EntryTests(SynchronousTestCase):
    """
    Entries of Node's servers, and this server's own in the same form.
    """

    MESSAGES = (
        (b"3", EVENT, Emit(Target("/"), packet("ev", 1, {"a": "é"}), None)),
        (
            b"3",
            BINARY,
            Emit(Target("/", ("red",), frozenset(["blue"])), packet("bin", b"bin", DATE), None),
        ),
        (b"3", VOLATILE, Emit(Target("/"), packet("vol", "text"), None, True)),
        (b"4", JOIN, Join(Target("/", ("red",)), ("a", "b"))),
        (b"5", LEAVE, Leave(Target("/"), ("a",))),
        (b"6", DISCONNECT, Disconnect(Target("/", ("zz",)), True)),
    )

    def setUp(self) -> None:
        self.dialect = NodeStreamsDialect("ours")
        self.entries = NodeEntries("socket.io")

    def read(self, type: bytes, data: str, uid: str = UID, path: str = "/") -> Any:
        fields = [b"uid", uid.encode(), b"nsp", path.encode(), b"type", type, b"data", data.encode()]
        entry = self.entries.read(b"17-3", fields)
        assert entry is not None
        return self.dialect.read(entry[0].decode(), entry[1])

    def test_read(self) -> None:
        for type, data, message in self.MESSAGES:
            expected = message
            if isinstance(message, Emit):
                # Clients of Node's servers get a date as text.
                given = [DATE_TEXT if each == DATE else each for each in message.packet.data]
                expected = message._replace(place="17-3", packet=packet(*given))
            self.assertEqual(self.read(type, data), expected)
            self.assertIsNone(self.read(type, data, "ours"), "its own")

    def test_written(self) -> None:
        dialect = NodeStreamsDialect(UID)
        for type, data, message in self.MESSAGES:
            ((topic, payload),) = dialect.write(message)
            self.assertEqual(
                self.entries.write(topic, payload),
                [b"uid", UID.encode(), b"nsp", b"/", b"type", type, b"data", data.encode()],
            )

    def test_date(self) -> None:
        """A value that JSON lacks goes as MessagePack, and NaN too."""
        for value in (DATE, float("nan")):
            ((_, payload),) = self.dialect.write(Emit(Target("/"), packet("x", value), None))
            self.assertIn("x", str(unpacked(b64decode(payload.split(b" ", 2)[2]))))

    def test_withAck(self) -> None:
        """An event of a socket that wants an ack is for its own server, and is not replayed."""
        self.assertIsNone(self.read(b"3", WITH_ACK))
        entry = b"17-3 %b 3 %b" % (UID.encode(), WITH_ACK.encode())
        self.assertIsNone(self.dialect.readEvent("/", entry))
        self.assertIsNone(self.dialect.readEvent("/", b"17-3 u 3 " + VOLATILE.encode()), "volatile")
        self.assertIsNone(self.dialect.readEvent("/", b"17-3 u 4 " + JOIN.encode()))
        event = self.dialect.readEvent("/", b"17-3 ours 3 " + EVENT.encode())
        self.assertEqual((event.place, event.packet.data[0]), ("17-3", "ev"))

    def test_other(self) -> None:
        """Heartbeats, and entries of other makes."""
        for type in (b"1", b"2", b"13", b"99"):
            self.assertIsNone(self.read(type, "{}"))
        self.assertIsNone(self.entries.read(b"1-1", [b"x", b"y"]))
        self.assertEqual(
            self.entries.read(b"1-1", [b"t", b"beat", b"p", b"7", b"n", b"m-1"]), (b"beat", b"7")
        )
        self.assertEqual(self.entries.write("beat", b"7"), [b"t", b"beat", b"p", b"7"])

    def test_otherPath(self) -> None:
        self.assertEqual(self.read(b"3", EVENT, path="/a").target.path, "/a")

    def test_unsupported(self) -> None:
        self.assertRaises(Unsupported, self.dialect.write, Gone("ours"))

    def test_hostile(self) -> None:
        deep = "[" * 100_000
        for data in (
            "",
            "{",
            "{}",
            "[]",
            "null",
            "%%%%",
            b64encode(b"\xc1").decode(),
            b64encode(b"\xdd\xff\xff\xff\xff").decode(),
            '{"packet":1,"opts":{}}',
            '{"packet":{"type":3,"data":["x"]},"opts":{"rooms":[]}}',
            '{"packet":{"type":2,"data":[]},"opts":{"rooms":[]}}',
            '{"packet":{"type":2,"data":["x"]},"opts":{"rooms":[[1]]}}',
            '{"packet":{"type":2,"data":["connect"]},"opts":{"rooms":[]}}',
            '{"packet":{"type":2,"data":["x"]},"opts":{"rooms":["%s"]}}' % ("x" * 2000),
            f'{{"packet":{{"type":2,"data":["x",{deep}]}}}}',
        ):
            for type in (b"3", b"4"):
                self.assertRaises(PacketError, self.read, type, data)
            self.assertRaises(PacketError, self.dialect.readEvent, "/", b"1-1 u 3 " + data.encode())
        for payload in (b"", b"1", b"1 2 3", b"1-1 u x {}"):
            self.assertRaises(PacketError, self.dialect.read, "/", payload)

    @given(st.binary(max_size=300), st.sampled_from(["/", "socket.io#/#", "socket.io#/#ours#", "x"]))
    def test_anyBytes(self, data: bytes, topic: str) -> None:
        """Nothing but PacketError is raised."""
        for each in (data, b"1-1 u 3 " + data):
            with contextlib.suppress(PacketError):
                self.dialect.read(topic, each)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-5, 99) | st.text(max_size=5) | st.binary(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(["type", "data", "uid", "nsp", "opts", "rooms", "packet", "requestId"]),
                    inner,
                )
            ),
            max_leaves=15,
        )
    )
    def test_anyValue(self, value: Any) -> None:
        for topic in ("socket.io#/#", "socket.io#/#ours#"):
            with contextlib.suppress(PacketError):
                self.dialect.read(topic, packed(value))


class ChannelTests(SynchronousTestCase):
    """
    Questions and replies by pub/sub.
    """

    def setUp(self) -> None:
        self.dialect = NodeStreamsDialect("ours")

    def test_ask(self) -> None:
        ask = self.dialect.read("socket.io#/#", bytes.fromhex(ASK))
        self.assertEqual(ask, Ask(Target("/"), packet("q"), "f8ed83b7b3dc93c1", "72241d654c90862f", 0.3))
        ((topic, data),) = NodeStreamsDialect("f8ed83b7b3dc93c1").write(ask)
        self.assertEqual((topic, data.hex()), ("socket.io#/#", ASK))

    def test_tell(self) -> None:
        tell = self.dialect.read("socket.io#/#", bytes.fromhex(TELL))
        self.assertEqual(tell, Tell(["ask", 7], UID, "471937d467b12f7d"))
        ((topic, data),) = NodeStreamsDialect(UID).write(tell)
        self.assertEqual((topic, data.hex()), ("socket.io#/#", TELL))

    def test_replies(self) -> None:
        """The asking server reads what this one has written, on its own channel."""
        asking = NodeStreamsDialect("theirs")
        ask = Ask(Target("/a#b"), packet("q", path="/a#b"), "theirs", "theirs1", 1.0)
        for reply, expected in (
            (Reply(ask, "theirs1", "ours", 2), Reply(None, "theirs1", "", 2)),
            (Reply(ask, "theirs1", "ours", None, [("yes", 2)]), Reply(None, "theirs1", "", None, ["yes"])),
        ):
            ((topic, data),) = self.dialect.write(reply)
            self.assertEqual(topic, "socket.io#/a#b#theirs#")
            self.assertEqual(asking.read(topic, data), expected)
            self.assertEqual(unpacked(data)["nsp"], "/a#b")
        fetch = Fetch(Target("/a#b"), "theirs", "theirs2")
        ((topic, data),) = self.dialect.write(Reply(fetch, "theirs2", "ours", 0))
        self.assertEqual(asking.read(topic, data), Reply(None, "theirs2", "", 0, []))
        self.assertEqual(self.dialect.write(Reply(ask, "theirs1", "ours", None, lapsed=1)), ())
        self.assertEqual(self.dialect.write(Reply(fetch, "theirs1", "ours", 1, lapsed=1)), ())

    def test_namespaces(self) -> None:
        """A question of a namespace is read on its own channel only."""
        ((topic, data),) = NodeStreamsDialect("theirs").write(Fetch(Target("/a#b"), "theirs", "q"))
        self.assertIn(topic, [each.name for each in self.dialect.topicsOf("/a#b")])
        self.assertIsInstance(self.dialect.read(topic, data), Fetch)
        self.assertIsNone(self.dialect.read("socket.io#/a#", data))


class StreamNameTests(SynchronousTestCase):
    def test_node(self) -> None:
        """As the adapter's hashCode() computes them, with the sign of JavaScript's remainder."""
        entries = NodeEntries("socket.io", 4)
        names = {"/": 3, "/chat": 3, "/news-feed": -3, "/notifications": -3, "/Straße\U0001f600": 0}
        self.assertEqual({path: entries.numberOf(path) for path in names}, names)

    def test_read(self) -> None:
        """Also those to which only Node's servers write; what this one writes is read by all."""
        entries = NodeEntries("s", 3)
        self.assertEqual(entries.streams, ["s--2", "s--1", "s-0", "s-1", "s-2"])
        for path in ("/", "/news-feed", "/notifications", *(f"/{n}" for n in range(50))):
            number = entries.numberOf(path)
            self.assertIn(f"s-{number}", entries.streams)
            self.assertEqual(entries.streamOf(path), f"s-{abs(number)}")
            self.assertEqual(entries.isWhole(path), number >= 0)

    def test_one(self) -> None:
        entries = NodeEntries("s")
        self.assertEqual(
            (entries.streams, entries.streamOf("/news-feed"), entries.streamOf("s#/#")), (["s"], "s", None)
        )


class ChoiceTests(SynchronousTestCase):
    def test_url(self) -> None:
        url = "redis+streams://host/0?dialect=node-streams"
        self.assertEqual(
            DialectChoice.fromURL(url),
            (NODE_STREAMS, "redis+streams://host/0?stream=socket.io&entries=node"),
        )
        choice, rest = DialectChoice.fromURL(f"{url}&key=k&sessions=s:&stream=x&streams=3&maxlen=7")
        self.assertEqual(choice, DialectChoice("node-streams", "k", sessions="s:"))
        address = Address.fromURL(rest)
        self.assertEqual((address.stream, address.streamCount, address.maxLength), ("x", 3, 7))
        self.assertIsInstance(entriesOf(address), NodeEntries)

    def test_mistakes(self) -> None:
        for url, text in (
            ("redis://host?dialect=node-streams", "expected redis+streams://"),
            ("redis+streams://host?dialect=node", "its servers do not read streams"),
            ("redis+streams://host?entries=node", "choose the form of the entries by dialect="),
            ("redis+streams://host?streams=2", "only with dialect=node-streams"),
            ("redis+streams://host?dialect=node-streams&streams=0", "1 to 100"),
            ("redis+streams://host?dialect=node-streams&streams=x", "1 to 100"),
            ("redis+streams://host?sharded=true", "only with dialect=node-streams"),
            ("redis+streams://host?dialect=node-streams&sharded=yes", "expected true or false"),
            ("redis://host?sharded=true", "unknown option sharded"),
            ("redis+streams://host?dialect=node-streams&key=/x", "does not begin like a namespace"),
        ):
            error = self.assertRaises(ValueError, DialectChoice.fromURL, url)
            self.assertIn(text, str(error), url)

    def test_emitter(self) -> None:
        """The uid of Node's emitters, which no server takes for its own."""
        ((_, payload),) = NODE_STREAMS.create("ours").write(Emit(Target("/"), packet("x"), None))
        self.assertTrue(payload.startswith(b"emitter 3 {"))
        self.assertEqual(json.loads(payload[10:])["packet"], {"type": 2, "data": ["x"]})


class SessionTests(SynchronousTestCase):
    """
    The value of a key.
    """

    def test_ofNode(self) -> None:
        session = readSession(SESSION.encode(), PID, "/")
        sid = "Pgq5OzI2I_ko_Dt_AAAA"
        self.assertEqual((session.id, session.rooms), (sid, {sid, "red", "b"}))
        self.assertEqual(session.data, {"n": {"d": DATE, "u": None, "b": b"x"}})
        self.assertEqual((session.offset, session.address), (None, None))

    def test_hostile(self) -> None:
        good = {"sid": "s", "pid": "p", "rooms": ["s"], "data": {}}
        read = readSession
        self.assertEqual(read(b64encode(packed(good)), "p", "/").id, "s")
        for wrong in (
            {"pid": "q"},
            {"sid": 7},
            {"sid": "x" * 2000},
            {"rooms": None},
            {"rooms": [[1]]},
            {"rooms": ["r"] * 20_000},
            {"offset": "x"},
            {"offset": 7},
            {"nsp": "/other"},
        ):
            self.assertIsNone(read(b64encode(packed({**good, **wrong})), "p", "/"), wrong)
        for value in (b"", b"%%", b64encode(b"\xc1"), b64encode(packed([1])), b64encode(packed(None))):
            self.assertIsNone(read(value, "p", "/"))
        self.assertEqual(read(b64encode(packed({**good, "data": [1]})), "p", "/").data, {})


class OwnEventsTests(SynchronousTestCase):
    """
    Events on their way.
    """

    def setUp(self) -> None:
        self.own = OwnEvents()
        self.emits = [Emit(Target("/"), packet(name), None) for name in "abc"]
        for emit in self.emits:
            self.own.sent(emit.packet.data[0].encode(), emit)

    def test_back(self) -> None:
        waiting = self.own.whenDelivered()
        for name, emit in zip((b"a", b"b", b"c"), self.emits, strict=True):
            self.assertIs(self.own.came(name), emit)
            self.assertNoResult(waiting)
            self.own.delivered()
        self.successResultOf(waiting)
        self.successResultOf(self.own.whenDelivered())

    def test_lost(self) -> None:
        """Nobody waits for an event that was lost once a later one has come."""
        self.assertIsNone(self.own.came(b"x"))
        self.assertIs(self.own.came(b"c"), self.emits[2])
        self.assertEqual(list(self.own), [])
        waiting = self.own.whenDelivered()
        self.assertNoResult(waiting)
        self.own.delivered()
        self.successResultOf(waiting)

    def test_bound(self) -> None:
        self.patch(__import__("txrealtime.cluster.dialects.ownevents", fromlist=["x"]), "_MOST", 3)
        waiting = self.own.whenDelivered()
        for _ in range(3):
            self.own.sent(b"d", self.emits[0])
        self.assertEqual(len(list(self.own)), 3)
        self.successResultOf(waiting)
        self.own.clear()
        self.successResultOf(self.own.whenDelivered())


class NodeStreamsCase(across.AcrossTestCase):
    DIALECT = NODE_STREAMS
    HUB = StreamsHub
    BUS = StreamsBus


class EmitTests(NodeStreamsCase, across.EmitTests):
    pass


class OperationTests(NodeStreamsCase, test_dialects.NodeOperationTests):
    pass


class FetchTests(NodeStreamsCase, across.FetchTests):
    """Servers have no names."""

    TOO_LARGE: list[Any] = [{}, {}]
    test_largeData = test_dialects.NodeFetchTests.test_largeData
    test_rightAfterTheStart = test_dialects.NodeFetchTests.test_rightAfterTheStart
    test_everybody = test_dialects.NodeFetchTests.test_everybody
    test_namespaceThatComes = test_dialects.NodeFetchTests.test_namespaceThatComes


class CallTests(NodeStreamsCase, test_dialects.NodeCallTests):
    pass


class ServerEventTests(NodeStreamsCase):
    def test_events(self) -> None:
        heard: list[Any] = []
        self.two.cluster.on("news")(lambda *args: heard.append(args))
        self.two.cluster.on("load?")(lambda number: number + 1)
        self.three.cluster.on("load?")(lambda number: b"\x01")
        self.one.cluster.emit("news", 1, b"2")
        self.settle()
        self.assertEqual(heard, [(1, b"2")])
        self.assertCountEqual(self.resultOf(self.one.cluster.call("load?", 1)), [2, b"\x01"])
        late = self.one.cluster.call("nobody", timeout=1)
        self.advance(1)
        self.assertEqual(self.failureResultOf(late, AckTimeout).value.servers, ["an unnamed server"] * 2)
