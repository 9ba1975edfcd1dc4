"""
The functions in C: the same results as the references in Python, for all arguments.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tracemalloc
from collections.abc import Callable
from importlib import import_module
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from tests.memory import BINARY, PING, TEXT, clientFrame
from tests.support import ROOT, requirePart, run, withoutC
from txrealtime import speedups
from txrealtime.engineio.packet import EngineIO4, Packet, PacketType
from txrealtime.engineio.websocket import plain
from txrealtime.engineio.websocket.transport import framed
from txrealtime.errors import PacketError
from txrealtime.socketio import packet as socketio

_speedups: Any = None
with contextlib.suppress(ImportError):
    _speedups = import_module("txrealtime._speedups")

FRAMES = st.one_of(
    st.binary(max_size=20),
    st.builds(clientFrame, st.integers(0, 15), st.binary(max_size=300)),
    st.builds(
        clientFrame,
        st.sampled_from([TEXT, BINARY]),
        st.text(max_size=150).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.booleans(),
        st.sampled_from([0, 0, 0, 4]),
        st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
    ),
    st.sampled_from([125, 126, 127, 4095, 4096, 4097, 65535, 65536]).map(
        lambda size: clientFrame(TEXT, b"x" * size)
    ),
    # Lengths that are not in their shortest form, or larger than any memory.
    st.sampled_from(
        [
            b"\x82\xfe\x00\x05abcd" + b"x" * 5,
            b"\x82\xff" + (126).to_bytes(8, "big") + b"abcd" + b"x" * 126,
            b"\x82\xff" + b"\xff" * 8 + b"abcd",
            b"\x82\xff\x80" + b"\0" * 7 + b"abcd",
            b"\x81\x7f" + b"\xff" * 12,
        ]
    ),
)

FROM_SERVERS = st.builds(
    plain.frame,
    st.one_of(
        st.binary(max_size=300), st.text(max_size=150).map(lambda text: text.encode("utf-8", "replace"))
    ),
    st.booleans(),
)

HEADS = st.one_of(
    st.from_regex(r"[0-6]?([0-9]{1,3}-)?(/[^,]{0,4},?)?[0-9]{0,18}(\[.*)?", fullmatch=True),
    st.text(alphabet='23/,[]019-a\u0661\u00b2"\U0001f600\0', max_size=24),
    st.text(max_size=12),
)

KINDS = (
    socketio.Packet,
    (socketio.PacketType.EVENT, socketio.PacketType.ACK),
    socketio.RESERVED,
)
"""The last arguments of readPlain()."""


def _dumps(data: Any, default: object, options: int) -> bytes:
    """Write JSON by the function that orjson's stands for."""
    return json.dumps(data).encode()


class SameTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(_speedups, "txrealtime._speedups is not built: it takes a C compiler")

    def both(self, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Return a function in C and its reference."""
        return getattr(_speedups, name), speedups.REFERENCES[name]

    def assertSame(self, name: str, *arguments: Any) -> None:
        """Assert that a function in C returns the same as its reference, of the same types."""
        made, expected = (function(*arguments) for function in self.both(name))
        self.assertEqual(made, expected)
        self.assertEqual(repr(made), repr(expected))

    def test_allAreWritten(self) -> None:
        """Each marked function has its like in C, and none in C is without a reference."""
        inC = {name for name in vars(_speedups) if not name.startswith("_")}
        self.assertEqual(inC, set(speedups.REFERENCES))

    @given(
        st.lists(FRAMES, max_size=6).map(b"".join),
        st.integers(0, 400),
        st.integers(0, 5000),
        st.integers(-1, 4),
    )
    def test_readMessages(self, data: bytes, start: int, maxPayload: int, most: int) -> None:
        self.assertSame("readMessages", data, min(start, len(data)), maxPayload, most)
        self.assertSame("readMessages", data, 0, 1_000_000, most)
        self.assertSame("readMessages", data[:-1], 0, 1_000_000, -1)

    @given(
        st.lists(st.one_of(FRAMES, FROM_SERVERS), max_size=6).map(b"".join),
        st.integers(0, 400),
        st.integers(0, 5000),
        st.integers(-1, 4),
    )
    @example(b"\x81\xfe\x00\x7e", 0, 5000, -1)
    @example(b"\x81\x7f" + b"\xff" * 12, 0, 5000, -1)
    @example(b"\x82\x7f" + (65535).to_bytes(8, "big") + b"x" * 65535, 0, 5000, -1)
    def test_readUnmasked(self, data: bytes, start: int, maxPayload: int, most: int) -> None:
        self.assertSame("readUnmasked", data, min(start, len(data)), maxPayload, most)
        self.assertSame("readUnmasked", data, 0, 1_000_000, most)
        self.assertSame("readUnmasked", data[:-1], 0, 1_000_000, -1)

    @given(
        st.text(max_size=150), st.sampled_from("0123456"), st.binary(min_size=4, max_size=4), st.booleans()
    )
    def test_masked(self, text: str, type: str, mask: bytes, isBinary: bool) -> None:
        """A masked frame is as the unmasked one, with its payload under the mask."""
        text = text.encode("utf-8", "replace").decode()
        self.assertSame("maskedTextFrame", type, text, mask)
        self.assertSame("maskedFrame", text.encode(), isBinary, mask)
        self.assertEqual(
            self.both("maskedTextFrame")[0](type, text, mask),
            clientFrame(TEXT, (type + text).encode(), True, 0, mask),
        )

    def test_sizes(self) -> None:
        """Every size around the forms of a head, and all tails of 8 bytes."""
        for size in (*range(20), *range(120, 132), 1499, 1500, 1501, 4095, 4096, 4097, 65535, 65536, 100_003):
            payload = bytes(index * 7 & 127 for index in range(size))
            for opcode in TEXT, BINARY:
                data = clientFrame(opcode, payload) + clientFrame(PING)
                self.assertSame("readMessages", data, 0, 1_000_000, -1)
                self.assertSame("readMessages", data[: size + 3], 0, 1_000_000, -1)
                self.assertSame("readMessages", data, 0, size, -1)
                self.assertSame("readMessages", data, 0, max(0, size - 1), -1)
            self.assertSame("unmask", payload, b"\x01\x7f\x80\xff")
            self.assertSame("maskedFrame", payload, True, b"\x01\x7f\x80\xff")
            self.assertSame("maskedTextFrame", "4", payload.decode(), b"\x01\x7f\x80\xff")
            for isBinary in (True, False):
                data = plain.frame(payload, isBinary) + b"\x89\0"
                self.assertSame("readUnmasked", data, 0, 1_000_000, -1)
                self.assertSame("readUnmasked", data[: size + 1], 0, 1_000_000, -1)
                self.assertSame("readUnmasked", data, 0, size, -1)
                self.assertSame("readUnmasked", data, 0, max(0, size - 1), -1)
            self.assertSame("frame", payload, True)
            self.assertSame("frame", payload, False)
            self.assertSame("textFrame", "4", payload.decode())

    @given(st.binary(max_size=70), st.binary(min_size=4, max_size=4))
    def test_unmask(self, payload: bytes, mask: bytes) -> None:
        plainly = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        for unmask in self.both("unmask"):
            self.assertEqual(unmask(payload, mask), plainly)

    @given(
        st.lists(FRAMES, max_size=6).map(b"".join),
        st.integers(0, 400),
        st.integers(0, 5000),
        st.integers(-1, 4),
        st.text(max_size=150),
    )
    def test_meter(self, data: bytes, start: int, maxPayload: int, most: int, text: str) -> None:
        """A meter's methods do as the functions do, and count the same messages and bytes."""
        encodable = text.encode("utf-8", "replace").decode()
        meters = [meter() for meter in self.both("Meter")]
        results = [
            [
                meter.readMessages(data, min(start, len(data)), maxPayload, most),
                meter.readMessages(data, 0, 1_000_000, -1),
                meter.textFrame("4", encodable),
                meter.frame(data, start % 2 == 0),
                meter.add(start, maxPayload),
            ]
            for meter in meters
        ]
        self.assertEqual(results[0], results[1])
        sums = [(meter.messages, meter.bytes) for meter in meters]
        self.assertEqual(sums[0], sums[1])
        (first, _), (second, _), *_ = results[0]
        came = [message if isinstance(message, bytes) else message.encode() for message in first + second]
        sent = [b"4" + encodable.encode(), data]
        expected = (len(came) + 2 + start, sum(map(len, came + sent)) + maxPayload)
        self.assertEqual(sums[0], expected)

    @given(
        st.lists(st.floats(0, 1), max_size=16).map(sorted),
        st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1, max_value=2), max_size=20),
    )
    @example([0.5], [0.5])
    def test_histogram(self, bounds: list[float], seconds: list[float]) -> None:
        """Durations are in the same buckets, each within its bound."""
        histograms = [histogram(bounds) for histogram in self.both("Histogram")]
        for each in histograms:
            for duration in seconds:
                each.add(duration)
            each.addAll(each.buckets, each.total)
        one, other = histograms
        self.assertEqual(
            (one.bounds, one.buckets, one.total, one.count),
            (other.bounds, other.buckets, other.total, other.count),
        )
        self.assertEqual(one.count, 2 * len(seconds))
        for place, bound in enumerate(bounds):
            within = sum(duration <= bound for duration in seconds)
            if bound not in bounds[place + 1 :]:
                self.assertEqual(sum(one.buckets[: place + 1]), 2 * within)

    def test_times(self) -> None:
        """A time that began some seconds ago is as long, on a clock that only goes forward."""
        for kind in self.both("Histogram"):
            histogram = kind((0.1, 1.0, 10.0))
            histogram.end(histogram.begin())
            histogram.end(histogram.begin() - 0.5)
            histogram.end(histogram.begin() - 5)
            self.assertEqual((histogram.buckets, histogram.count), ([1, 1, 1, 0], 3))
            self.assertTrue(5.5 <= histogram.total < 6)

    def test_subclass(self) -> None:
        """A subclass has slots of its own, and leaves nothing behind."""
        for kind in self.both("Histogram"):
            subclass: Any = type("Sub", (kind,), {"__slots__": ("more",)})
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            for _ in range(2000):
                made = subclass((0.5,))
                made.more = made
                made.add(0.1)
                made.more = None
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(held, 20_000)

    @given(st.text(max_size=70), st.sampled_from("0123456"))
    def test_textFrame(self, text: str, type: str) -> None:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            for function in self.both("textFrame"):
                self.assertRaises(UnicodeEncodeError, function, type, text)
        else:
            self.assertSame("textFrame", type, text)

    @given(HEADS)
    @example("2[")
    @example("[[")
    @example("")
    @example("3[]")
    @example("3/[1]")
    @example('2/a["x"]')
    @example("2/a,,[")
    @example("2" + "9" * 16 + "[")
    @example("2" + "9" * 17 + "[")
    @example("2/a,12\u0661[")
    @example('21["x", 1]')
    @example('3/a,1["x", "\ud800"]')
    @example("2[]")
    @example("2[1]")
    @example('2["connect"]')
    @example('31["connect"]')
    @example('2["x"]]')
    @example("2[" * 2000)
    def test_readPlain(self, message: str) -> None:
        """With the JSON of the standard library, and with what stands for all of it."""
        for loads in (json.loads, lambda text: [text]):
            self.assertSame("readPlain", message, loads, *KINDS)

    def test_readPlainFails(self) -> None:
        """An exception other than for bad JSON passes, from C as from Python."""

        def loads(text: str) -> Any:
            raise LookupError(text)

        for function in self.both("readPlain"):
            self.assertRaises(LookupError, function, '2["x"]', loads, *KINDS)

    @given(st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.text(max_size=40))
    @example("3/\xe9,", 1, "\xe9")
    @example("3", 12, "x" * 5000)
    @example("3", 9007199254740991, "\U0001f600" * 1100)
    def test_encodeBehind(self, head: str, id: int, text: str) -> None:
        head, raw = head.encode("utf-8", "replace").decode(), text.encode("utf-8", "replace")

        def dumps(data: object, default: object, options: int) -> bytes:
            self.assertEqual((data, default, options), (["data"], repr, 4))
            return raw

        self.assertSame("encodeBehind", head, id, ["data"], dumps, repr, 4)

    def test_encodeBehindFails(self) -> None:
        """The result is None for a TypeError, also of a subclass; any other exception passes."""

        def dumps(data: type[Exception], default: object, options: int) -> bytes:
            raise data("no")

        for function in self.both("encodeBehind"):
            for error in (TypeError, type("Subclass", (TypeError,), {})):
                self.assertIsNone(function("3", 1, error, dumps, repr, 0))
            self.assertRaises(LookupError, function, "3", 1, LookupError, dumps, repr, 0)
            self.assertRaises(UnicodeDecodeError, function, "3", 1, None, lambda *rest: b"\xff", repr, 0)

    def test_noLeaks(self) -> None:
        """Calls that succeed, that find nothing and that fail leave no object behind."""
        frame = clientFrame(TEXT, b"some text") + clientFrame(BINARY, b"data") + clientFrame(PING)
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("readMessages", (frame, 0, 100, -1)),
            ("readMessages", (clientFrame(TEXT, b"\xff" * 5000), 0, 5000, -1)),
            ("readMessages", (clientFrame(TEXT, b"x" * 5000), 0, 5000, -1)),
            ("readMessages", (frame, 0, 1 << 80, -1)),
            ("readUnmasked", (plain.frame(b"some text", False) + plain.frame(b"data", True), 0, 100, -1)),
            ("readUnmasked", (plain.frame(b"\xff" * 500, False), 0, 5000, -1)),
            ("maskedFrame", (b"x" * 1000, True, b"abcd")),
            ("maskedFrame", (b"x" * 1000, True, b"abc")),
            ("maskedTextFrame", ("4", "x\xe9" * 500, b"abcd")),
            ("maskedTextFrame", ("4", "x", b"abcde")),
            ("unmask", (b"x" * 1000, b"abcd")),
            ("unmask", (b"x", b"abc")),
            ("frame", (b"x" * 1000, True)),
            ("textFrame", ("4", "x\xe9" * 500)),
            ("textFrame", ("4", "\ud800")),
            ("readPlain", ('2/some-namespace,1234567["x", "some text"]', json.loads, *KINDS)),
            ("readPlain", ('3/some-namespace,1234567["x", "some text"]', json.loads, *KINDS)),
            ("readPlain", ("2/some-namespace[", json.loads, *KINDS)),
            ("readPlain", ('2["x", "some text"', json.loads, *KINDS)),
            ("readPlain", ('2["connect", "some text"]', json.loads, *KINDS)),
            ("readPlain", ('2["x", "some text"]', len, *KINDS)),
            ("readPlain", ('2["x", "some text"]', None, *KINDS)),
            ("readPlain", (b"2", json.loads, *KINDS)),
            ("encodeBehind", ("3", 12, ["some text"], _dumps, repr, 0)),
            ("encodeBehind", ("3", 12, ["x" * 5000], _dumps, repr, 0)),
            ("encodeBehind", ("3", 12, ["\xff"], lambda *rest: b"\xff" * 9, repr, 0)),
            ("encodeBehind", ("3", 12, {1}, _dumps, repr, 0)),
            ("encodeBehind", ("3", 1 << 64, ["some text"], _dumps, repr, 0)),
            ("encodeBehind", ("3", 12, ["some text"], repr, repr, 0)),
        ]

        def often(name: str, arguments: tuple[Any, ...]) -> None:
            function = self.both(name)[0]
            for _ in range(2000):
                with contextlib.suppress(TypeError, ValueError, OverflowError):
                    function(*arguments)

        for name, arguments in calls:
            often(name, arguments)
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            often(name, arguments)
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            # One small object for each call would be 50 kB.
            self.assertLess(held, 20_000, f"{name}{arguments!r}"[:100])

    def test_wrongCounts(self) -> None:
        """So do those of the types."""
        for kind in self.both("Meter"):
            meter = kind()
            self.assertRaises(TypeError, kind, 1)
            for method, arguments in (
                (meter.add, (1,)),
                (meter.add, ("1", 2)),
                (meter.readMessages, (b"", 0)),
                (meter.textFrame, (b"4", "")),
                (meter.frame, ("", True)),
            ):
                self.assertRaises(TypeError, method, *arguments)
        for kind in self.both("Histogram"):
            for bounds in ((), (1,), ((1.0,), (2.0,))):
                self.assertRaises(TypeError, kind, *bounds)
            histogram = kind((1.0,))
            self.assertRaises(TypeError, histogram.add, "1")
            self.assertRaises(TypeError, histogram.end, None)
            self.assertRaises(TypeError, histogram.addAll, [1, 2])
            self.assertRaises(ValueError, histogram.addAll, [1, 2, 3], 1.0)
            self.assertRaises(AttributeError, setattr, histogram, "more", 1)
            self.assertEqual((histogram.buckets, histogram.total), ([0, 0], 0))
        self.assertRaises(ValueError, self.both("Histogram")[0], [1.0] * 17)

    def test_wrongArguments(self) -> None:
        """Wrong arguments raise an exception."""
        frame = clientFrame(TEXT, b"x")
        for name, arguments in (
            ("readMessages", ()),
            ("readMessages", (bytearray(frame), 0, 10, -1)),
            ("readMessages", ("x", 0, 10, -1)),
            ("readMessages", (frame, -1, 10, -1)),
            ("readMessages", (frame, len(frame) + 1, 10, -1)),
            ("readMessages", (frame, 0, -1, -1)),
            ("readMessages", (frame, 1 << 70, 10, -1)),
            ("readMessages", (frame, "0", 10, -1)),
            ("readUnmasked", ("x", 0, 10, -1)),
            ("readUnmasked", (frame, len(frame) + 1, 10, -1)),
            ("maskedFrame", (b"x", True)),
            ("maskedFrame", (b"x", True, b"abc")),
            ("maskedFrame", ("x", True, b"abcd")),
            ("maskedTextFrame", ("4", b"x", b"abcd")),
            ("maskedTextFrame", ("4", "x", "abcd")),
            ("unmask", (b"x", b"abc")),
            ("unmask", (b"x",)),
            ("unmask", ("x", b"abcd")),
            ("frame", ("x", False)),
            ("frame", (b"x",)),
            ("textFrame", (b"4", "x")),
            ("textFrame", ("4",)),
            ("readPlain", (b"2[", json.loads, *KINDS)),
            ("readPlain", ()),
            ("readPlain", ('2["x"]', json.loads, list, *KINDS[1:])),
            ("readPlain", ('2["x"]', json.loads, 1, *KINDS[1:])),
            ("readPlain", ('2["x"]', json.loads, KINDS[0], (1,), KINDS[2])),
            ("readPlain", ('2["x"]', json.loads, KINDS[0], 1, KINDS[2])),
            ("readPlain", ('2["x"]', json.loads, *KINDS[:2], "connect")),
            ("encodeBehind", ("3", 12, ["x"], _dumps, repr)),
            ("encodeBehind", (b"3", 12, ["x"], _dumps, repr, 0)),
            ("encodeBehind", ("3", "12", ["x"], _dumps, repr, 0)),
            ("encodeBehind", ("3", 1 << 64, ["x"], _dumps, repr, 0)),
            ("encodeBehind", ("3", 12, ["x"], lambda *rest: "x", repr, 0)),
        ):
            function = self.both(name)[0]
            with self.assertRaises((TypeError, ValueError, OverflowError)):
                function(*arguments)


class ReferenceTests(SynchronousTestCase):
    """The references alone, also where nothing is built."""

    def test_withoutC(self) -> None:
        withoutC(self)
        self.assertIs(plain.frame, speedups.REFERENCES["frame"])
        self.assertIs(socketio.readPlain, speedups.REFERENCES["readPlain"])

    def test_framed(self) -> None:
        """A frame holds the packet as it is on the wire, in C and in Python."""
        for text in ("", "x", "h\xe9llo", "x" * 125, "x" * 70_000):
            for data in text, text.encode():
                packet = Packet(PacketType.MESSAGE, data)
                expected = plain.frame(EngineIO4.encodeMessage(packet)[0], packet.isBinary)
                self.assertEqual(framed(packet), expected)

    def test_namespaceWithoutComma(self) -> None:
        """A namespace ends at a comma or at the end of the packet, so no data follows here."""
        decoder = socketio.JSONParser().decoder(0)
        self.assertRaises(PacketError, decoder.feed, '2/a["x"]')

    def test_turnedOff(self) -> None:
        """TXREALTIME_PURE=1 leaves the C out."""
        for value, expected in (("1", "False"), ("0", str(_speedups is not None))):
            shown = run(
                sys.executable,
                "-c",
                "from txrealtime import speedups; print(speedups.isAccelerated)",
                cwd=ROOT,
                environment={**os.environ, "TXREALTIME_PURE": value},
            )
            self.assertEqual(shown.strip(), expected)

    def test_readable(self) -> None:
        """The source in C stays small."""
        source = (ROOT / "txrealtime" / "_speedups.c").read_text()
        self.assertLess(source.count("\n"), 640)
        self.assertIsNotNone(re.search("Py_LIMITED_API 0x030b0000", source))
