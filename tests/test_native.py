"""
The native dialect: encoded messages can be decoded, and anything else is decoded or refused.
"""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import given, st
from txrealtime.cluster.dialects.messages import (
    Alive,
    Ask,
    Disconnect,
    Emit,
    Fetch,
    Gone,
    Join,
    Leave,
    Message,
    Reply,
    Roll,
    RosterNumbers,
    RosterPage,
    Target,
    Tell,
    Track,
)
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.engineio.packet import message
from txrealtime.errors import PacketError
from txrealtime.socketio.audience import Person
from txrealtime.socketio.packet import JSONParser, Packet, PacketType
from txrealtime.socketio.presence import MAX_DATA, MAX_NAME, Entry

SENDER, READER = NativeDialect("abcdefgh"), NativeDialect("ABCDEFGH")

TARGET = Target("/chat", ("red", "bl,ue\n"), frozenset(["é"]))
EVENT = Packet(PacketType.EVENT, "/chat", ["hi", {"a": b"\x00\n"}, None])
PERSON = Person("id", frozenset(["id", "red"]), {"name": "x", "photo": b"1"})
ASK = Ask(TARGET, EVENT, "abcdefgh", "r1", 2.5)
FETCH = Fetch(Target("/"), "abcdefgh", "r2")
TELL = Tell(["reload", b"\x00", 1], "abcdefgh", "r3")

ENTRY = Entry("red", "id", "é\n", '{"nick":"Ann","list":[1,null]}', 7)

MESSAGES: list[Message] = [
    Emit(
        TARGET, None, [message('51-["hi",{"_placeholder":true,"num":0}]'), message(b"\x00\n"), message("é")]
    ),
    Join(TARGET, ("a", "b")),
    Leave(TARGET, ()),
    Disconnect(TARGET, True),
    ASK,
    FETCH,
    TELL,
    Tell(["reload"], "abcdefgh"),
    Alive("abcdefgh", "host:1", 15.0, "parser", True),
    Gone("abcdefgh"),
    Track("/chat", "abcdefgh", 3, 4, ENTRY, True),
    Track("/", "abcdefgh", 0, 1, ENTRY, False),
    Roll(("/", "/chat"), "abcdefgh"),
    RosterPage("/chat", "abcdefgh", "ABCDEFGH", 4, 1, True, [ENTRY, ENTRY._replace(id="x")]),
    RosterPage("/", "abcdefgh", "ABCDEFGH", 0, 0, False, []),
    RosterNumbers("abcdefgh", {"/": 0, "/chat": 4}),
]

WRONG_ENTRIES = [
    ENTRY._replace(room="r" * (MAX_NAME + 1)),
    ENTRY._replace(id=None),  # type: ignore[arg-type]
    ENTRY._replace(key=7),  # type: ignore[arg-type]
    ENTRY._replace(text="[1]"),
    ENTRY._replace(text="{"),
    ENTRY._replace(text='{"a":"' + "x" * MAX_DATA + '"}'),
    ENTRY._replace(order=-1),
    ENTRY._replace(order=1 << 53),
    ENTRY[:4],
]

REPLIES = [
    Reply(ASK, "r1", "abcdefgh", 3),
    Reply(ASK, "r1", "abcdefgh", None, ["one", ("two", b"2"), None, [1, 2]]),
    Reply(ASK, "r1", "abcdefgh", None, (), 1),
    Reply(FETCH, "r2", "abcdefgh", 1, [PERSON]),
    Reply(TELL, "r3", "abcdefgh", 1, [{"load": [0.5, b"1"]}]),
]


class FormTests(SynchronousTestCase):
    def read(self, written: Any) -> Any:
        ((topic, data),) = written
        return READER.read(topic, data)

    def test_roundTrip(self) -> None:
        for each in MESSAGES:
            self.assertEqual(self.read(SENDER.write(each)), each)

    def test_wrongEntries(self) -> None:
        """Entries of presence that no server would send are refused."""
        for wrong in WRONG_ENTRIES:
            for each in (
                Track("/", "abcdefgh", 0, 1, wrong, True),  # type: ignore[arg-type]
                RosterPage("/", "abcdefgh", "ABCDEFGH", 1, 0, False, [wrong]),  # type: ignore[list-item]
            ):
                self.assertRaises(PacketError, self.read, SENDER.write(each))

    def test_replies(self) -> None:
        for each in REPLIES:
            read = self.read(SENDER.write(each))
            self.assertEqual(
                read._replace(values=list(read.values)),
                each._replace(question=None, values=list(each.values)),
            )

    def test_onTheWire(self) -> None:
        """The form on the wire is that of the module's docstring and docs/protocol.rst."""
        emit = Emit(Target("/chat", ("red",)), None, [message('2/chat,["hi",1,{}]')])
        self.assertEqual(
            NativeDialect("q8Zk3x9a").write(emit),
            [
                (
                    "txrealtime,/chat,red",
                    b'txr1 q8Zk3x9a ["emit","/chat",["red"],[],false,1,[18]]\n2/chat,["hi",1,{}]',
                )
            ],
        )

    def test_ownMessagesAreSkipped(self) -> None:
        for each in MESSAGES:
            self.assertIsNone(SENDER.read(*SENDER.write(each)[0]))

    def test_longHead(self) -> None:
        """A message that no server would decode is not encoded."""
        for length in range((1 << 20) - 40, 1 << 20):
            emit = Emit(Target("/", ("x" * length,)), None, [message("2[]")])
            try:
                written = SENDER.write(emit)
            except ValueError as error:
                self.assertIn("the limit is 1048576", str(error))
                break
            self.assertEqual(self.read(written), emit)
        else:
            self.fail("written, whatever its length")

    def test_cut(self) -> None:
        """A message that was cut anywhere is refused."""
        for each in MESSAGES:
            ((topic, data),) = SENDER.write(each)
            for end in range(len(data)):
                self.assertRaises(PacketError, READER.read, topic, data[:end])
            self.assertRaises(PacketError, READER.read, topic, data + b"x")

    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        self.assertRaises(PacketError, READER.read, "txrealtime", data)

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: (
                st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
        ),
        st.sampled_from(
            ["emit", "join", "leave", "disconnect", "ask", "fetch", "tell", "reply", "alive", "gone"]
        ),
        st.binary(max_size=20),
    )
    def test_anyHead(self, fields: Any, kind: str, body: bytes) -> None:
        head = [kind, *fields] if isinstance(fields, list) else fields
        text, _ = JSONParser()._json.encode(head)
        with contextlib.suppress(PacketError):
            READER.read("txrealtime", b"txr1 abcdefgh " + text.encode() + b"\n" + body)

    @given(st.sampled_from(range(len(MESSAGES) + len(REPLIES))), st.data())
    def test_anyChange(self, number: int, data: st.DataObject) -> None:
        # A sender of its own, since each message has another number.
        ((topic, wire),) = NativeDialect("sendsend").write([*MESSAGES, *REPLIES][number])
        at = data.draw(st.integers(0, len(wire) - 1))
        with contextlib.suppress(PacketError):
            READER.read(topic, wire[:at] + data.draw(st.binary(max_size=3)) + wire[at + 1 :])


class TopicTests(SynchronousTestCase):
    ID = "ABCDEFGH" + "x" * 20

    def topic(self, *rooms: str, known: tuple[str, ...] = ("ABCDEFGH",)) -> str:
        dialect = NativeDialect("abcdefgh", "key", dict.fromkeys(known, ""))
        ((topic, _),) = dialect.write(Join(Target("/a", rooms or None), ()))
        return topic

    def test_topics(self) -> None:
        self.assertEqual(self.topic(), "key,/a")
        self.assertEqual(self.topic("red"), "key,/a,red")
        self.assertEqual(self.topic("red", "blue"), "key,/a")
        self.assertEqual(self.topic(self.ID), "key@ABCDEFGH")

    def test_unknownServer(self) -> None:
        """A server may have come this moment, so all that have the namespace are told."""
        self.assertEqual(self.topic(self.ID, known=()), "key,/a")

    def test_longRoom(self) -> None:
        """RabbitMQ limits topics; so does the dialect, equally for subscribers and publishers."""
        room = "é" * 300
        topic = self.topic(room)
        self.assertLess(len(topic), 100)
        self.assertEqual(NativeDialect("abcdefgh", "key").topicOf("/a", room).name, topic)

    def test_manyJoins(self) -> None:
        """Joins of other servers are remembered for a while, at a cost that does not grow."""
        compared = 0

        class Time(float):
            def __sub__(self, other: float) -> float:
                nonlocal compared
                compared += 1
                return float(self) - other

        now = Time(0)
        dialect = NativeDialect("abcdefgh", "key", seconds=lambda: now)

        def join(room: str) -> None:
            dialect.write(Join(Target("/a", ("x",)), (room,)))

        def topic(room: str) -> str:
            ((topic, _),) = dialect.write(Leave(Target("/a", (room,)), ()))
            return topic

        for number in range(3000):
            join(str(number))
        self.assertLess(compared, 4000)
        now = Time(4)
        join("0")
        now = Time(6)
        join("last")
        self.assertEqual(list(dialect._joined), [("/a", "0"), ("/a", "last")])
        self.assertEqual([topic(room) for room in ("0", "1", "last")], ["key,/a", "key,/a,1", "key,/a"])

    def test_ownSocketsNeedNoTopic(self) -> None:
        self.assertIsNone(NativeDialect("ABCDEFGH").topicOf("/a", self.ID))
        self.assertIsNotNone(NativeDialect("abcdefgh").topicOf("/a", self.ID))
