"""
JSON text: the same with and without orjson, for all values and all input.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import Any
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from tests.support import requirePart
from txrealtime.socketio import jsontext
from txrealtime.socketio.jsontext import JSONText

plain = JSONText(accelerated=False)


class Colour(Enum):
    RED = "red"
    DATA = b"\x00"
    NESTED = (1, "x")
    WRONG = object()
    NUMBER = math.nan


class Kind(StrEnum):
    A = "a"


class Level(IntEnum):
    HIGH = 3


class Flags(IntFlag):
    READ = 1
    WRITE = 2


class Text(str):
    pass


class Number(int):
    pass


@dataclass
class Point:
    x: int


Pair = namedtuple("Pair", "a b")

text = st.text(st.characters(), max_size=8)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    text,
    st.binary(max_size=4),
    st.binary(max_size=4).map(bytearray),
    st.uuids(),
    st.sampled_from([*Colour, *Kind, *Level, *Flags, Flags.READ | Flags.WRITE]),
    st.sampled_from(
        [Text("x"), Number(5), Point(1), datetime.now(UTC), {1}, 1j, range(3), UserDict(), object()]
    ),
)
keys = st.one_of(text, st.integers(), st.floats(), st.none(), st.booleans(), st.tuples(), st.just(Text("k")))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Pair, inner, inner),
        st.dictionaries(text, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(text, inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """Call a function, and return its result or the kind and message of its error."""
    try:
        return call(*args)
    except (TypeError, ValueError) as error:
        return type(error), str(error)


class SamenessTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(jsontext.orjson, "orjson is not installed, so there is nothing to compare with")
        self.fast = JSONText()

    def assertSameEncoding(self, value: Any) -> None:
        self.assertSameArguments(["event", value])
        # What is long is encoded in other ways.
        self.assertSameArguments(["x" * 300, value])
        if isinstance(value, str):
            self.assertSameArguments([value + "x" * 300, {"a": value + "x" * 300}])

    def assertSameArguments(self, data: list[Any]) -> None:
        fast, slow = (outcome(codec.encode, data) for codec in (self.fast, plain))
        if isinstance(slow[0], type):
            self.assertEqual(fast, slow)
            return
        # Floats may be written in other ways that mean the same.
        self.assertEqual(json.loads(fast[0]), json.loads(slow[0]))
        self.assertEqual(list(fast[1]), list(slow[1]))

    def assertSameDecoding(self, text: str) -> None:
        for padded in (text, text + " " * 300, " " * 300 + text, '["' + "x" * 300 + '",' + text + "]"):
            fast, slow = (outcome(codec.decode, padded) for codec in (self.fast, plain))
            if isinstance(slow, tuple):
                slow, fast = slow[0], fast[0]
            self.assertEqual(repr(fast), repr(slow), padded[:100])

    @given(values)
    @example(Colour.DATA)
    @example({"a": [Colour.NESTED, b"x", Colour.DATA, bytearray(b"y")]})
    @example([10**30, 2**63, 2**64, -(2**63) - 1])
    @example([1e16, 1e-7, 5e-324, 1.7976931348623157e308, -0.0])
    @example(["\ud800", b"x"])
    @example(["null"])
    @example([b"x", {"_placeholder": True}])
    @example(['\u2028\x7f\x00"\\/'])
    def test_encoding(self, value: Any) -> None:
        self.assertSameEncoding(value)

    def test_deepEncoding(self) -> None:
        for depth in (100, 250, 260, 500, 900, 100_000):
            value: Any = 1
            for _ in range(depth):
                value = [value]
            self.assertSameEncoding(value)

    def test_circle(self) -> None:
        circle: list[Any] = [b"x"]
        circle.append(circle)
        self.assertSameEncoding(circle)

    @given(
        st.one_of(
            st.text(st.characters(), max_size=30),
            st.text('0123456789.eE+-[]{}",:tfn \\u\n\r\t', max_size=20),
            values.map(lambda value: json.dumps(value, default=repr, skipkeys=True)),
        )
    )
    @example("1e999")
    @example("[1e400,-1e400]")
    @example("123456789012345678901234567890")
    @example("-123456789012345678901234567890")
    @example("18446744073709551615")
    @example("18446744073709551616")
    @example("9223372036854775808")
    @example("-9223372036854775808")
    @example("-9223372036854775809")
    @example("9" * 400)
    @example("9" * 5000)
    @example("[-0, 0, -0.0, 1.0, 1E5, 0.1e-7]")
    @example('{"a":1,"a":2}')
    @example('"\\ud83d\\ude00 \\ud83d \\u0000"')
    @example('"\\ud800\\u0041"')
    @example('"\x7f\x80\u2028"')
    @example('"\t"')
    @example("NaN")
    @example("[Infinity,-Infinity]")
    @example("\ufeff1")
    @example("01")
    @example("1.")
    @example(".5")
    @example("[1,]")
    @example("\xa01")
    @example("\x0b1")
    @example("1 \x0c")
    @example('{"a":1}}')
    @example("")
    @example("'a'")
    @example("{1:2}")
    @example("nul")
    @example('"\\x41"')
    @example('"\ud800"')
    def test_decoding(self, text: str) -> None:
        self.assertSameDecoding(text)

    def test_deepDecoding(self) -> None:
        for depth in (100, 500, 900, 100_000):
            self.assertSameDecoding("[" * depth + "]" * depth)
            self.assertSameDecoding("[" * depth)


class JSONTextTests(SynchronousTestCase):
    """Both encoders, by example."""

    codecs = (plain, JSONText())

    def test_more(self) -> None:
        """Values beyond JSON's own."""
        value = [UUID(int=1), Colour.RED, Kind.A, Level.HIGH, Colour.NESTED, Pair(1, Text("x")), Number(7)]
        for codec in self.codecs:
            self.assertEqual(
                json.loads(codec.encode(value)[0]),
                ["00000000-0000-0000-0000-000000000001", "red", "a", 3, [1, "x"], [1, "x"], 7],
            )

    def test_longStrings(self) -> None:
        """As the standard library writes them, whatever is in them and wherever they are."""
        for character in (*map(chr, range(0x80)), "\xe9", "\u2028", "\U0001f600", "\ud800"):
            long = "x" * 300 + character + "x" * 300
            for value in ([long], [{"a": long}], [[long]], [{long: 1}], [1, {"a": [long]}, long]):
                expected = json.dumps(value, ensure_ascii=character == "\ud800", separators=(",", ":"))
                self.assertEqual(plain.encode(value)[0], expected)
                self.assertEqual(json.loads(JSONText().encode(value)[0]), value)

    def test_refused(self) -> None:
        for codec in self.codecs:
            for value in (Point(1), datetime.now(UTC), {1}, Colour.WRONG, 1j, object()):
                error = self.assertRaises(TypeError, codec.encode, ["a", {"b": value}])
                self.assertIn("['b']", str(error))
            for number in (math.nan, math.inf, Colour.NUMBER):
                error = self.assertRaises(ValueError, codec.encode, ["a", {"b": number}])
                self.assertIn("['b']", str(error))

    def test_nothingStays(self) -> None:
        """Attachments of a value that could not be sent are not in the next."""
        for codec in self.codecs:
            self.assertRaises(TypeError, codec.encode, [b"x", object()])
            self.assertEqual(list(codec.encode(["a"])[1]), [])

    def test_firstArgument(self) -> None:
        """Arguments are counted as the caller counts them."""
        for codec in self.codecs:
            error = self.assertRaises(TypeError, codec.encode, ["ok", object()], 5)
            self.assertIn("argument 6", str(error))

    def test_from(self) -> None:
        for codec in self.codecs:
            self.assertEqual(codec.decode('2["a"]', 1), ["a"])
            self.assertEqual(codec.decode("2" + '["' + "x" * 500 + '"]', 1), ["x" * 500])

    def test_hugeIntegers(self) -> None:
        """As in JavaScript, to which all numbers are floats."""
        for codec in self.codecs:
            for padding in ("", " " * 500):
                self.assertEqual(codec.decode(f"[{2**64}]" + padding), [float(2**64)])
                self.assertIsInstance(codec.decode(f"[{2**64}]" + padding)[0], float)
                self.assertIsInstance(codec.decode(f"[{2**63 - 1}]" + padding)[0], int)
