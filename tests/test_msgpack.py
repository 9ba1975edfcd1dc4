"""
Packets as MessagePack: the bytes of socket.io-msgpack-parser, and broken input.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import msgpack
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.examples import example, given, st
from tests.talk import TalkTestCase
from tests.test_hotpath import counted
from txrealtime.errors import ConnectionRejected, PacketError
from txrealtime.socketio.msgpack import MsgpackParser, packed, unpacked
from txrealtime.socketio.notepack import withBinary
from txrealtime.socketio.packet import IDecoder, IParser, Packet, PacketType

CONNECT, DISCONNECT, EVENT, ACK = (
    PacketType.CONNECT,
    PacketType.DISCONNECT,
    PacketType.EVENT,
    PacketType.ACK,
)

characters = st.characters(codec="utf-8")
dates = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)
).map(lambda date: date.replace(microsecond=date.microsecond // 1000 * 1000))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(characters)
    | st.binary()
    | dates,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(characters), inner),
    max_leaves=20,
)
names = st.text(characters).map(lambda name: "e" + name)
packets = st.one_of(
    st.builds(
        Packet,
        st.just(EVENT),
        st.sampled_from(["/", "/größe"]),
        st.tuples(names, values).map(list),
        st.none() | st.integers(0, 1 << 53),
    ),
    st.builds(Packet, st.just(ACK), st.just("/chat"), st.lists(values), st.integers(0, 1 << 53)),
    st.builds(
        Packet,
        st.just(CONNECT),
        st.just("/"),
        st.none() | st.dictionaries(st.text(characters), values),
        st.none(),
    ),
)

# As of JavaScript's notepack.
mapsOfPackets = st.fixed_dictionaries(
    {},
    optional={
        "type": st.integers(-1, 6) | st.booleans() | st.none() | st.floats(),
        "nsp": st.sampled_from(["/", "/a", "", "a"]) | st.none() | st.integers(),
        "data": values,
        "id": st.none() | st.integers(-2, 9) | st.booleans() | st.text(max_size=1),
        "options": values,
    },
)


def replaced(value: Any) -> Any:
    return msgpack.ExtType(0, bytes(8)) if isinstance(value, datetime) else None


class MsgpackTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.parser = MsgpackParser()

    def encoded(self, *packet: Any) -> bytes:
        [message] = self.parser.encode(Packet(*packet))
        assert isinstance(message, bytes)
        return message

    def decoded(self, message: bytes) -> Packet:
        packet = self.parser.decoder(0).feed(message)
        assert packet is not None
        return packet

    def decodedMap(self, **fields: Any) -> Packet:
        return self.decoded(msgpack.packb(fields))


class WireTests(MsgpackTestCase):
    def test_interfaces(self) -> None:
        verifyObject(IParser, self.parser)
        verifyObject(IDecoder, self.parser.decoder(10))

    def test_absentKeys(self) -> None:
        """The client refuses a DISCONNECT whose data is null."""
        self.assertEqual(msgpack.unpackb(self.encoded(DISCONNECT)), {"type": 1, "nsp": "/"})
        self.assertEqual(
            msgpack.unpackb(self.encoded(EVENT, "/a", ["e", None])),
            {"type": 2, "data": ["e", None], "nsp": "/a"},
        )

    def test_idZero(self) -> None:
        self.assertEqual(
            msgpack.unpackb(self.encoded(ACK, "/", [], 0)), {"type": 3, "data": [], "id": 0, "nsp": "/"}
        )

    def test_connect(self) -> None:
        """As socket.io-msgpack-parser 3.0.2 sends it."""
        message = bytes.fromhex("83 a474797065 00 a464617461 81a17401 a36e7370 a12f")
        self.assertEqual(self.decoded(message), Packet(CONNECT, "/", {"t": 1}))

    def test_event(self) -> None:
        self.assertEqual(
            self.decodedMap(type=2, data=["e", b"\x00"], options={"compress": True}, id=0, nsp="/a"),
            Packet(EVENT, "/a", ["e", b"\x00"], 0),
        )

    def test_numberAsAName(self) -> None:
        self.assertEqual(self.decodedMap(type=2, data=[7, 1], nsp="/").data, ["7", 1])

    def test_undefined(self) -> None:
        """A key whose value is undefined counts as absent."""
        undefined = msgpack.ExtType(0, b"\0")
        packet = self.decodedMap(type=0, data=undefined, id=undefined, nsp="/")
        self.assertEqual(packet, Packet(CONNECT))
        self.assertEqual(self.decodedMap(type=2, data=["e", undefined], nsp="/").data, ["e", None])

    def test_dates(self) -> None:
        date = datetime(2026, 11, 21, 0, 30, 0, 123000, UTC)
        message = self.encoded(EVENT, "/", ["e", date])
        self.assertIn(bytes.fromhex("d700") + round(date.timestamp() * 1000).to_bytes(8, "big"), message)
        self.assertEqual(self.decoded(message).data, ["e", date])

    def test_dateBefore1970(self) -> None:
        date = datetime(1969, 12, 31, 23, 59, 59, 999000, UTC)
        message = self.encoded(EVENT, "/", ["e", date])
        self.assertIn(bytes.fromhex("d700 ffffffffffffffff"), message)
        self.assertEqual(self.decoded(message).data, ["e", date])

    def test_dateOfAnotherZone(self) -> None:
        date = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        self.assertEqual(self.decoded(self.encoded(EVENT, "/", ["e", date])).data[1], date)

    def test_newerDates(self) -> None:
        """notepack 3 sends dates as MessagePack's timestamps."""
        date = datetime(2026, 1, 1, tzinfo=UTC)
        message = msgpack.packb({"type": 2, "data": ["e", date], "nsp": "/"}, datetime=True)
        self.assertEqual(self.decoded(message).data, ["e", date])

    def test_arrayBuffers(self) -> None:
        """Binary data of Node other than Buffer arrives as an extension."""
        for data in (b"", b"\x01", b"abc", bytes(300)):
            packet = self.decodedMap(type=2, data=["e", msgpack.ExtType(0, data)], nsp="/")
            self.assertEqual(packet.data[1], data)

    def test_formsOfExtensions(self) -> None:
        """
        notepack.io's three kinds of extension values differ in their form only.

        The wire bytes are those of notepack.io 2 on Node, for ``["e", value]``.
        """
        for wire, value in (
            ("d4 00 00", None),
            ("d7 00 0000019b8d2e4400", datetime(2026, 1, 5, 8, 2, 58, 176000, UTC)),
            ("c7 01 00 00", b"\0"),
            ("c7 01 00 07", b"\7"),
            ("c7 08 00 3ff8000000000000", bytes.fromhex("3ff8000000000000")),
            ("c7 08 00 7fffffffffffffff", bytes.fromhex("7fffffffffffffff")),
            ("c7 08 00 0000019b8d2e4400", bytes.fromhex("0000019b8d2e4400")),
            ("c8 0008 00 3ff8000000000000", bytes.fromhex("3ff8000000000000")),
            ("c9 00000001 00 00", b"\0"),
            ("c7 00 00", b""),
            ("c7 02 00 0102", b"\1\2"),
        ):
            message = bytes.fromhex("83 a474797065 02 a36e7370 a12f a464617461 92 a165" + wire)
            self.assertEqual(self.decoded(message).data, ["e", value], wire)

    @given(st.lists(st.tuples(values, st.binary(max_size=40) | st.sampled_from([b"\0", bytes(8)]))))
    def test_typedArraysAmongOtherValues(self, pairs: list[tuple[Any, bytes]]) -> None:
        """Whatever stands around them, be it bytes that look like them."""
        message = bytearray(msgpack.Packer().pack_array_header(3 * len(pairs)))
        expected: list[Any] = []
        for value, data in pairs:
            typed = b"\xc7%c\x00%b" % (len(data), data)
            for each, wire in (
                (value, packed(value)),
                (typed, msgpack.packb(typed)),
                (data, typed),
            ):
                message += wire
                expected.append(each)
        self.assertEqual(unpacked(bytes(message)), expected)

    @given(st.binary().map(lambda data: b"\xc7\1\0\0" + data) | st.binary())
    def test_rewrittenGarbage(self, data: bytes) -> None:
        """A malformed message stays malformed, and no message grows."""
        rewritten = withBinary(data)
        self.assertLessEqual(len(rewritten), len(data))
        for cut in range(min(len(data), 8)):
            withBinary(data[:cut])

    def test_timeOfAmbiguousMessages(self) -> None:
        """A message of many small values takes no time in proportion to their number, but for the arrays."""
        for filler in (
            b"\xc0",
            b"\xa0",
            b"\xa1x",
            b"\xc4\0",
            b"\xd9\1x",
            b"\xc4\x1f" + bytes(31),
            b"\x90",
            b"\xcc\0",
        ):
            message = b"\xdd\0\0\0\0\xc7\1\0\0" + filler * (500_000 // len(filler))
            self.assertLess(counted(lambda message=message: withBinary(message))["c_call"], 100, filler[:2])

    def test_asJSONDoes(self) -> None:
        class Colour(enum.Enum):
            RED = "red"

        uuid = UUID(int=5)
        sent = ["e", (1, 2), uuid, Colour.RED, bytearray(b"a"), memoryview(b"b")]
        self.assertEqual(
            self.decoded(self.encoded(EVENT, "/", sent)).data, ["e", [1, 2], str(uuid), "red", b"a", b"b"]
        )


class UnsendableTests(MsgpackTestCase):
    def refused(self, kind: type[Exception], value: Any, type: PacketType = EVENT) -> str:
        data = ["e", {"a": [value]}] if type is EVENT else [value]
        message = str(self.assertRaises(kind, self.parser.encode, Packet(type, "/", data, 1)))
        # One that failed leaves nothing behind.
        self.assertEqual(self.decoded(self.encoded(ACK, "/", [1], 2)), Packet(ACK, "/", [1], 2))
        return message

    def test_path(self) -> None:
        self.assertIn("cannot send object, found at argument 1['a'][0]", self.refused(TypeError, object()))
        self.assertIn("cannot send object, found at argument 1:", self.refused(TypeError, object(), ACK))

    def test_integers(self) -> None:
        for number in (1 << 64, -(1 << 63) - 1):
            self.assertIn(str(number), self.refused(ValueError, number))

    def test_dateWithoutAZone(self) -> None:
        self.assertIn("time zone", self.refused(TypeError, datetime(2026, 1, 1)))

    def test_itself(self) -> None:
        value: list[Any] = []
        value.append(value)
        self.refused(ValueError, value)

    def test_loneSurrogate(self) -> None:
        self.refused(ValueError, "\ud800")


class RefusedTests(MsgpackTestCase):
    def refuse(self, message: str | bytes) -> None:
        self.assertRaises(PacketError, self.parser.decoder(10).feed, message)

    def refuseMap(self, **fields: Any) -> None:
        self.refuse(msgpack.packb({"type": 2, "data": ["e"], "nsp": "/", **fields}))

    def test_text(self) -> None:
        self.refuse('2["e"]')

    def test_noMap(self) -> None:
        for value in (1, None, [], "x", b"x"):
            self.refuse(msgpack.packb(value))

    def test_types(self) -> None:
        for type in (-1, 5, 6, 7, True, None, 2.0, "2", [2]):
            self.refuseMap(type=type)

    def test_namespaces(self) -> None:
        for namespace in ("", "chat", None, 1, b"/"):
            self.refuseMap(nsp=namespace)

    def test_ids(self) -> None:
        for id in (-1, 1.0, "1", True, []):
            self.refuseMap(id=id)

    def test_data(self) -> None:
        for data in ([], {}, None, [None], [b"e"], ["connect"], "e"):
            self.refuseMap(data=data)
        self.refuseMap(type=3)  # without an id
        self.refuseMap(type=3, data={}, id=1)
        self.refuseMap(type=0, data=[])
        self.refuseMap(type=1, data=["e"])

    def test_keys(self) -> None:
        for key in (1, None, b"a"):
            self.refuseMap(data=["e", {key: 1}])

    def test_extensions(self) -> None:
        self.refuseMap(data=["e", msgpack.ExtType(1, b"x")])

    def test_datesNobodyHas(self) -> None:
        self.refuseMap(data=["e", msgpack.ExtType(0, b"\x7f" + bytes(7))])

    def test_notUTF8(self) -> None:
        self.refuse(msgpack.packb({"type": 2, "data": ["e", "x"], "nsp": "/"}).replace(b"\xa1x", b"\xa1\xff"))

    def test_incomplete(self) -> None:
        message = msgpack.packb({"type": 2, "data": ["e", "x"], "nsp": "/"})
        for size in range(len(message)):
            self.refuse(message[:size])
        self.refuse(message + b"\0")

    def test_depth(self) -> None:
        self.refuse(b"\x91" * 100_000 + b"\xc0")

    def test_claims(self) -> None:
        """Arrays in arrays that claim a million items each do not get the memory for them."""
        self.refuse(b"\xdd\x00\x0f\x42\x40" * 1000 + bytes(1_000_000))

    @given(packets)
    def test_roundTrip(self, packet: Packet) -> None:
        self.assertEqual(self.decoded(self.encoded(*packet)), packet)

    @given(st.one_of(st.binary(), mapsOfPackets.map(lambda fields: msgpack.packb(fields, default=replaced))))
    @example(b"\xdf\xff\xff\xff\xff")
    @example(b"\xc9\xff\xff\xff\xff\x00")
    def test_anythingDecodesOrIsRefused(self, message: bytes) -> None:
        try:
            packet = self.parser.decoder(10).feed(message)
        except PacketError:
            return
        assert packet is not None
        self.assertIsInstance(packet.type, PacketType)
        self.encoded(*packet)


class TalkTests(TalkTestCase):
    """A server and clients with this parser."""

    def test_bothWays(self) -> None:
        for transport in ("polling", "websocket"):
            server = self.makeServer(parser=MsgpackParser())
            date = datetime(2026, 1, 1, tzinfo=UTC)
            server.on("echo")(lambda socket, *args: args)
            client = self.join(server, transport=transport)
            answer = client.call("echo", b"\x00", {"a": [b"\xff", None]}, date)
            self.assertEqual(self.successResultOf(answer), (b"\x00", {"a": [b"\xff", None]}, date))
            server.emit("news", "Größe € 日本 𝄞")
            self.assertEqual(client.received(), [("news", "Größe € 日本 𝄞")])

    def test_refusal(self) -> None:
        server = self.makeServer(parser=MsgpackParser())
        client = self.makeClient(server)
        error = self.failureResultOf(client.connect("/nowhere"), ConnectionRejected).value
        self.assertEqual((error.message, error.data), ("Invalid namespace", None))

    def test_protocol3(self) -> None:
        server = self.makeServer(parser=MsgpackParser(), allowEIO3=True)
        server.on("echo")(lambda socket, *args: args)
        client = self.join(server, protocol=3)
        self.assertEqual(self.successResultOf(client.call("echo", "€", b"\x00")), ("€", b"\x00"))
