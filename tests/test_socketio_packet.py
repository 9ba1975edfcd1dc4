"""
Socket.IO 5 packets: the bytes of the specification, values that cannot be sent, and broken input.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.examples import assume, example, given, st
from txrealtime.errors import PacketError, ProtocolError
from txrealtime.socketio.packet import (
    RESERVED,
    IDecoder,
    IParser,
    JSONParser,
    Packet,
    PacketType,
    ackEncoder,
    checkName,
)

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = PacketType

parser = JSONParser()


def decode(*messages: str | bytes, maxAttachments: int = 10) -> Packet | None:
    """Decode the packet in some messages, of which only the last completes it."""
    decoder = parser.decoder(maxAttachments)
    for message in messages[:-1]:
        assert decoder.feed(message) is None
    return decoder.feed(messages[-1])


# Half of a surrogate pair is a JavaScript string too.
text = st.text(st.characters(), max_size=8)
keys = text.filter(lambda key: key != "_placeholder")
# Larger integers come as floats, as in JavaScript: see test_jsontext.
plainScalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    text,
)
scalars = plainScalars | st.binary(max_size=8)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


values = nested(scalars)
namespaces = st.one_of(
    st.just("/"), st.text(st.characters(exclude_characters=",", codec="utf-8")).map(lambda name: "/" + name)
)
ids = st.integers(0, 2**53)
names = st.text(st.characters()).filter(lambda name: name not in RESERVED)
eventPackets = st.builds(
    lambda namespace, name, args, id: Packet(EVENT, namespace, [name, *args], id),
    namespaces,
    names,
    st.lists(values, max_size=4),
    st.none() | ids,
)
ackPackets = st.builds(
    lambda namespace, args, id: Packet(ACK, namespace, args, id),
    namespaces,
    st.lists(values, max_size=4),
    ids,
)


class EncodeTests(SynchronousTestCase):
    def assertEncodes(self, packet: Packet, *messages: str | bytes) -> None:
        self.assertEqual(list(parser.encode(packet)), list(messages))

    def test_interface(self) -> None:
        verifyObject(IParser, parser)
        verifyObject(IDecoder, parser.decoder(1))

    def test_connect(self) -> None:
        self.assertEncodes(Packet(CONNECT, "/", {"sid": "x"}), '0{"sid":"x"}')
        self.assertEncodes(Packet(CONNECT, "/admin", {"sid": "x"}), '0/admin,{"sid":"x"}')

    def test_disconnect(self) -> None:
        self.assertEncodes(Packet(DISCONNECT), "1")
        self.assertEncodes(Packet(DISCONNECT, "/admin"), "1/admin,")

    def test_event(self) -> None:
        self.assertEncodes(Packet(EVENT, "/", ["hello", 1]), '2["hello",1]')
        self.assertEncodes(
            Packet(EVENT, "/admin", ["project:delete", 123], 456), '2/admin,456["project:delete",123]'
        )

    def test_idZero(self) -> None:
        self.assertEncodes(Packet(EVENT, "/", ["a"], 0), '20["a"]')
        self.assertEncodes(Packet(ACK, "/", [], 0), "30[]")

    def test_ack(self) -> None:
        self.assertEncodes(Packet(ACK, "/admin", [True, None], 456), "3/admin,456[true,null]")

    def test_connectError(self) -> None:
        self.assertEncodes(Packet(CONNECT_ERROR, "/", {"message": "no"}), '4{"message":"no"}')

    def test_binaryEvent(self) -> None:
        self.assertEncodes(
            Packet(EVENT, "/", ["baz", b"\x01\x02"]), '51-["baz",{"_placeholder":true,"num":0}]', b"\x01\x02"
        )

    def test_binaryAck(self) -> None:
        self.assertEncodes(
            Packet(ACK, "/admin", [b"\x03"], 7), '61-/admin,7[{"_placeholder":true,"num":0}]', b"\x03"
        )

    def test_binaryAnywhere(self) -> None:
        """Bytes-like values of each kind, in the order in which they stand."""
        self.assertEncodes(
            Packet(EVENT, "/", ["a", [{"b": bytearray(b"1")}], memoryview(b"-2-")[1:2], b""]),
            '53-["a",[{"b":{"_placeholder":true,"num":0}}],'
            '{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]',
            b"1",
            b"2",
            b"",
        )

    def test_attachmentsAreCopies(self) -> None:
        """Waiting attachments do not change when the application writes into its buffer."""
        data = bytearray(b"1")
        encoded = parser.encode(Packet(EVENT, "/", ["a", data]))
        data[0] = 0
        self.assertEqual(encoded[1], b"1")

    def test_textIsNotEscaped(self) -> None:
        self.assertEncodes(Packet(EVENT, "/", ["é", "\x1e"]), '2["é","\\u001e"]')

    def test_loneSurrogate(self) -> None:
        """JavaScript has such strings, UTF-8 has not: escaped, they pass."""
        self.assertEncodes(
            Packet(EVENT, "/", ["a", "\ud83d", b"x"]),
            '51-["a","\\ud83d",{"_placeholder":true,"num":0}]',
            b"x",
        )

    def test_jsonKinds(self) -> None:
        class Point(NamedTuple):
            x: int
            y: float

        self.assertEncodes(
            Packet(EVENT, "/", ("a", Point(1, 2.5), {1: False})),
            '2["a",[1,2.5],{"1":false}]',
        )

    def test_messagesInARow(self) -> None:
        """No part of a packet that could not be sent is in the next."""
        self.assertRaises(TypeError, parser.encode, Packet(EVENT, "/", ["a", b"1", object()]))
        self.assertEncodes(Packet(EVENT, "/", ["a"]), '2["a"]')


class UnsendableTests(SynchronousTestCase):
    """A value that JSON lacks is the caller's error, with the path to the value."""

    def refused(self, error: type[Exception], *args: Any, type: PacketType = EVENT) -> str:
        return str(self.assertRaises(error, parser.encode, Packet(type, "/", ["event", *args], 1)))

    def test_type(self) -> None:
        self.assertIn("datetime", self.refused(TypeError, datetime.now(UTC)))
        self.assertIn("set", self.refused(TypeError, {1}))
        self.assertIn("complex", self.refused(TypeError, 1j))

    def test_path(self) -> None:
        message = self.refused(TypeError, "ok", {"when": [1, datetime.now(UTC)]})
        self.assertIn("['when'][1]", message)

    def test_pathBesideBytes(self) -> None:
        self.assertIn("['when']", self.refused(TypeError, b"x", {"when": object()}))

    def test_key(self) -> None:
        self.assertIn("a key of", self.refused(TypeError, {"a": {(1, 2): 3}}))
        self.assertIn("a key of", self.refused(TypeError, {b"a": 3}))

    def test_notANumber(self) -> None:
        for number in (math.nan, math.inf, -math.inf):
            self.assertIn(repr(number), self.refused(ValueError, {"a": [number]}))

    def test_notANumberAsKey(self) -> None:
        self.refused(ValueError, {math.nan: 1})

    def test_containsItself(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        self.assertIn("contains itself", self.refused(ValueError, circle))

    def test_tooDeep(self) -> None:
        deep: Any = 1
        for _ in range(100_000):
            deep = [deep]
        self.assertIn("nested too deeply", self.refused(ValueError, deep))

    def test_deepAndUnsendable(self) -> None:
        """The error names the value also in deeply nested data."""
        for depth in range(100, 1100, 10):
            for leaf in (object(), math.nan):
                deep: Any = leaf
                for _ in range(depth):
                    deep = [deep]
                try:
                    parser.encode(Packet(EVENT, "/", ["a", deep]))
                except (TypeError, ValueError):
                    continue
                self.fail(f"sent at depth {depth}")

    def test_hugeNumber(self) -> None:
        """Python writes no integer of more than 4300 digits in decimal."""
        self.refused(ValueError, 10**5000)

    def test_placeholderBesideBytes(self) -> None:
        """A dictionary that a receiver would take for a placeholder is refused."""
        self.assertIn("_placeholder", self.refused(ValueError, b"x", {"_placeholder": True, "num": 0}))
        self.assertIn("_placeholder", self.refused(ValueError, b"x", {"_placeholder": 1}))

    def test_placeholderAlone(self) -> None:
        """Without attachments, placeholders are not searched."""
        packet = Packet(EVENT, "/", ["a", {"_placeholder": True, "num": 0}])
        self.assertEqual(decode(*parser.encode(packet)), packet)

    def test_placeholderAsText(self) -> None:
        packet = Packet(
            EVENT, "/", ["a", b"x", '"_placeholder":', {'"_placeholder":': '{"_placeholder":true}'}]
        )
        self.assertEqual(decode(*parser.encode(packet)), packet)

    def test_bytesWithoutAnAttachment(self) -> None:
        """Only events and acks carry attachments."""
        for type in (CONNECT, DISCONNECT, CONNECT_ERROR):
            self.assertRaises(
                TypeError, parser.encode, Packet(type, "/", {"message": "no", "data": {"key": b"x"}})
            )


class NameTests(SynchronousTestCase):
    def test_name(self) -> None:
        checkName("hello")
        checkName("")

    def test_notAString(self) -> None:
        for name in (1, None, b"hello"):
            self.assertIn("a str", str(self.assertRaises(TypeError, checkName, name)))

    def test_reserved(self) -> None:
        for name in (
            "connect",
            "connect_error",
            "disconnect",
            "disconnecting",
            "newListener",
            "removeListener",
        ):
            self.assertIn("reserved", str(self.assertRaises(ValueError, checkName, name)))


class DecodeTests(SynchronousTestCase):
    def refused(self, *messages: str | bytes, **options: Any) -> str:
        return str(self.assertRaises(PacketError, decode, *messages, **options))

    def test_connect(self) -> None:
        self.assertEqual(decode("0"), Packet(CONNECT))
        self.assertEqual(decode('0{"token":"x"}'), Packet(CONNECT, "/", {"token": "x"}))
        self.assertEqual(decode('0/admin,{"token":"x"}'), Packet(CONNECT, "/admin", {"token": "x"}))

    def test_withoutComma(self) -> None:
        """Old clients leave it out when nothing follows, and so does the specification's test suite."""
        self.assertEqual(decode("0/custom"), Packet(CONNECT, "/custom"))
        self.assertEqual(decode("1/custom"), Packet(DISCONNECT, "/custom"))

    def test_namespaceWithQuery(self) -> None:
        self.assertEqual(decode("0/a?token=1,"), Packet(CONNECT, "/a?token=1"))

    def test_disconnect(self) -> None:
        self.assertEqual(decode("1"), Packet(DISCONNECT))
        self.assertEqual(decode("1/admin,"), Packet(DISCONNECT, "/admin"))

    def test_event(self) -> None:
        self.assertEqual(decode('2["hello",1]'), Packet(EVENT, "/", ["hello", 1]))
        self.assertEqual(decode('2/admin,456["a"]'), Packet(EVENT, "/admin", ["a"], 456))
        self.assertEqual(decode('20["a"]'), Packet(EVENT, "/", ["a"], 0))

    def test_rootNamespaceByName(self) -> None:
        self.assertEqual(decode('2/,["a"]'), Packet(EVENT, "/", ["a"]))

    def test_ack(self) -> None:
        self.assertEqual(decode('3/admin,456["ok"]'), Packet(ACK, "/admin", ["ok"], 456))
        self.assertEqual(decode("30[]"), Packet(ACK, "/", [], 0))

    def test_connectError(self) -> None:
        self.assertEqual(decode('4{"message":"no"}'), Packet(CONNECT_ERROR, "/", {"message": "no"}))

    def test_binaryEvent(self) -> None:
        self.assertEqual(
            decode(
                '52-/a,7["b",{"c":{"_placeholder":true,"num":1}},[{"_placeholder":true,"num":0}]]', b"1", b"2"
            ),
            Packet(EVENT, "/a", ["b", {"c": b"2"}, [b"1"]], 7),
        )

    def test_binaryAck(self) -> None:
        self.assertEqual(decode('61-3[{"num":0,"_placeholder":true}]', b"x"), Packet(ACK, "/", [b"x"], 3))

    def test_onePlaceTwice(self) -> None:
        place = '{"_placeholder":true,"num":0}'
        self.assertEqual(decode(f'51-["a",{place},{place}]', b"x"), Packet(EVENT, "/", ["a", b"x", b"x"]))

    def test_packetsInARow(self) -> None:
        decoder = parser.decoder(10)
        place = '{"_placeholder":true,"num":0}'
        for attachment in (b"1", b"2"):
            self.assertIsNone(decoder.feed(f'51-["a",{place}]'))
            self.assertEqual(decoder.feed(attachment), Packet(EVENT, "/", ["a", attachment]))
            self.assertEqual(decoder.feed('2["b"]'), Packet(EVENT, "/", ["b"]))

    def test_decodersAreApart(self) -> None:
        """Each connection has a decoder of its own."""
        mine, other = parser.decoder(10), parser.decoder(10)
        self.assertIsNone(mine.feed('51-["a",{"_placeholder":true,"num":0}]'))
        self.assertEqual(other.feed('2["b"]'), Packet(EVENT, "/", ["b"]))
        self.assertEqual(mine.feed(b"x"), Packet(EVENT, "/", ["a", b"x"]))

    def test_numericName(self) -> None:
        """To JavaScript the event 1 and the event "1" are the same."""
        self.assertEqual(decode("2[1,2]"), Packet(EVENT, "/", ["1", 2]))
        self.assertEqual(decode("2[1.5]"), Packet(EVENT, "/", ["1.5"]))

    def test_notAType(self) -> None:
        for message in ("", "7", "x", "-", "/", "\u0662", " 2", '"2"', "\x00"):
            self.refused(message)

    def test_notAnEvent(self) -> None:
        for data in ("[]", "{}", "null", "1", '"a"', "[null]", "[true]", '[["a"]]', "[{}]", ""):
            self.refused("2" + data)

    def test_reservedName(self) -> None:
        for name in RESERVED:
            self.assertIn("reserved", self.refused(json.dumps(["x", name]).replace('["x", ', "2[")))

    def test_notAnAck(self) -> None:
        for data in ("3[]", "3", "30", "30{}", '30"a"', "30null"):
            self.refused(data)

    def test_authIsAnObject(self) -> None:
        for data in ("[]", '["x"]', "-1", '"x"', "true"):
            self.refused("0" + data)

    def test_disconnectHasNoData(self) -> None:
        self.refused("1{}")

    def test_notJSON(self) -> None:
        for text in (
            "[",
            '["a"',
            '["a"]]',
            '["a"] x',
            "['a']",
            '["a",]',
            '["a",NaN]',
            '["a",-Infinity]',
            '["a\n"]',
        ):
            self.refused("2" + text)

    def test_hugeNumber(self) -> None:
        self.refused(f'2["a",{"9" * 5000}]')

    def test_deepNesting(self) -> None:
        self.refused('2["a",' + "[" * 100_000 + "]" * 100_000 + "]")
        self.refused("2" + "[" * 100_000)
        self.refused('51-["a",' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "]")

    def test_deepNestingAroundAttachments(self) -> None:
        """Data that the JSON decoder just accepts may be nested too deeply for the search of placeholders."""
        for depth in range(100, 1100, 10):
            try:
                decode('51-["a",' + "[" * depth + "]" * depth + "]", b"x")
            except PacketError:
                break
        else:
            self.fail("no limit was met")

    def test_longID(self) -> None:
        self.assertEqual(decode(f'2{2**53}["a"]'), Packet(EVENT, "/", ["a"], 2**53))
        for digits in (17, 100, 10_000):
            self.refused(f'2{"1" * digits}["a"]')

    def test_foreignDigits(self) -> None:
        """Only ASCII digits are digits."""
        self.refused('2\u0663["a"]')
        self.refused('5\u0661-["a"]', b"x")

    def test_attachmentCount(self) -> None:
        for head in ("50-", "5-", "5", "511-", "5999999999-", "51000000000-", "5-1-", "51", "6", "60-"):
            self.refused(head + '1["a"]')

    def test_maxAttachments(self) -> None:
        self.assertIn("maxAttachments", self.refused('53-["a"]', maxAttachments=2))
        self.assertEqual(decode('52-["a"]', b"", b"", maxAttachments=2), Packet(EVENT, "/", ["a"]))

    def test_attachmentsOfOtherTypes(self) -> None:
        for message in ("01-", "11-", '21-["a"]', "31-1[]", "41-{}"):
            self.refused(message)

    def test_binaryUnasked(self) -> None:
        self.refused(b"x")
        decoder = parser.decoder(10)
        self.assertIsNone(decoder.feed('51-["a"]'))
        self.assertIsNotNone(decoder.feed(b"x"))
        self.assertRaises(PacketError, decoder.feed, b"x")

    def test_textBetweenAttachments(self) -> None:
        self.refused('52-["a"]', b"x", '2["b"]')

    def test_placeholders(self) -> None:
        for place in (
            '{"_placeholder":true}',
            *(
                f'{{"_placeholder":true,"num":{num}}}'
                for num in ("1", "-1", "true", "0.0", '"0"', "null", "[0]", "1e3")
            ),
        ):
            self.refused(f'51-["a",{place}]', b"x")

    def test_notAPlaceholder(self) -> None:
        """Only ``true`` makes one."""
        for value in ("1", "false", '"true"', "[]"):
            packet = decode(f'51-["a",{{"_placeholder":{value},"num":0}}]', b"x")
            assert packet is not None
            self.assertEqual(packet.data[1]["num"], 0)

    def test_nameFromAnAttachment(self) -> None:
        """The name of an event cannot come as an attachment."""
        self.refused('51-[{"_placeholder":true,"num":0}]', b"connect")


class PropertyTests(SynchronousTestCase):
    @given(st.one_of(eventPackets, ackPackets))
    def test_roundTrip(self, packet: Packet) -> None:
        messages = parser.encode(packet)
        assume(len(messages) <= 11)
        for message in messages:
            if isinstance(message, str):
                message.encode()  # UTF-8 can carry it
        self.assertEqual(decode(*messages), packet)

    @given(
        namespaces,
        st.none() | st.dictionaries(keys, nested(plainScalars), max_size=3),
    )
    def test_connectRoundTrip(self, namespace: str, auth: Any) -> None:
        packet = Packet(CONNECT, namespace, auth)
        self.assertEqual(decode(*parser.encode(packet)), packet)

    @given(
        st.one_of(
            st.text(),
            st.text('0123456[]{}",-/:einu1'),
            st.builds(
                lambda type, count, namespace, id, data: type + count + namespace + id + data,
                st.sampled_from("0123456789x"),
                st.sampled_from(["", "1-", "2-", "0-", "11-", "-", "1" * 100 + "-"]),
                st.sampled_from(["", "/,", "/a,", "/a", "a,"]),
                st.one_of(st.just(""), st.integers(0).map(str), st.just("1" * 100)),
                st.one_of(
                    st.just(""),
                    values.map(lambda value: json.dumps(value, default=repr)),
                    st.lists(values).map(lambda value: json.dumps(["a", *value], default=repr)),
                    st.just('["a",{"_placeholder":true,"num":0}]'),
                ),
            ),
        ),
        st.lists(st.binary(max_size=4), max_size=3),
    )
    @example('2["\\ud800"]', [])
    @example('51-["a",{"_placeholder":true,"num":1e999}]', [b""])
    def test_anythingDecodesOrIsRefused(self, message: str, attachments: list[bytes]) -> None:
        decoder = parser.decoder(10)
        for part in (message, *attachments):
            try:
                packet = decoder.feed(part)
            except ProtocolError:
                return
            if packet is not None and packet.type in (EVENT, ACK) and "inf" not in repr(packet.data):
                self.assertEqual(decode(*parser.encode(packet), maxAttachments=99), packet)

    @given(
        st.recursive(
            st.one_of(scalars, st.floats(), st.datetimes(), st.sets(st.integers()), st.builds(object)),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(text | st.tuples(), inner, max_size=3)
            ),
            max_leaves=8,
        )
    )
    def test_anythingIsSentOrRefusedAtTheCaller(self, value: Any) -> None:
        try:
            messages = parser.encode(Packet(EVENT, "/", ["a", value]))
        except (TypeError, ValueError):
            return
        self.assertIsNotNone(decode(*messages, maxAttachments=99))


class AckTests(SynchronousTestCase):
    """The encoder of acks: the parser's own, in less time."""

    def assertSame(self, path: str, data: list[Any], id: int) -> None:
        """Assert that all ways to encode make the same messages, or fail alike."""
        for accelerated in (True, False):
            parser = JSONParser(accelerated)

            def slowly(parser: JSONParser = parser) -> list[str | bytes]:
                text, *attachments = parser.encode(Packet(PacketType.ACK, path, data))
                assert isinstance(text, str)
                head, bracket, rest = text.partition("[")
                return [f"{head}{id}{bracket}{rest}", *attachments]

            results: list[Any] = []
            for encode in (
                slowly,
                lambda parser=parser: parser.encode(Packet(PacketType.ACK, path, data, id)),
                lambda parser=parser: ackEncoder(parser)(path, data, id),
                # The encoder leaves nothing behind.
                slowly,
            ):
                try:
                    results.append(list(encode()))
                except (TypeError, ValueError) as error:
                    results.append((type(error), str(error)))
            self.assertEqual(results[1:], results[:-1])

    @given(
        st.sampled_from(["/", "/a", "/null", "/h\xe9"]),
        st.lists(
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
                lambda each: st.one_of(st.lists(each), st.dictionaries(st.text(), each)),
                max_leaves=5,
            ),
            max_size=3,
        ),
        st.integers(0, 2**53),
    )
    @example("/", [None, "null"], 0)
    @example("/", [math.nan], 1)
    @example("/", [b"x", {"_placeholder": True, "num": 0}], 1)
    @example("/", ["\ud800"], 1)
    @example("/", [2**64], 1)
    @example("/", [object()], 1)
    @example("/", [datetime.now(UTC)], 1)
    @example("/a", [], 1)
    def test_same(self, path: str, data: list[Any], id: int) -> None:
        self.assertSame(path, data, id)

    def test_others(self) -> None:
        """Other parsers are asked for a packet."""

        class Own(JSONParser):
            def encode(self, packet: Packet) -> list[str]:
                return [repr(packet)]

        packet = Packet(PacketType.ACK, "/a", [1], 2)
        self.assertEqual(ackEncoder(Own())("/a", [1], 2), [repr(packet)])
