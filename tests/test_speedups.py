"""
The functions in C: the same results as the references in Python, for all arguments.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
import tracemalloc
from collections.abc import Callable
from copy import copy
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from tests.memory import BINARY, PING, TEXT, clientFrame
from tests.support import ROOT, requirePart, run, withoutC
from txrealtime import speedups
from txrealtime.engineio.counts import Histogram
from txrealtime.engineio.packet import EngineIO4, Packet, PacketType
from txrealtime.engineio.websocket import plain
from txrealtime.engineio.websocket.plain import Meter
from txrealtime.engineio.websocket.transport import framed
from txrealtime.errors import PacketError
from txrealtime.monitor.counts import EventCounts
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


class SameTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(_speedups, "txrealtime._speedups is not built: it takes a C compiler")

    def both(self, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Return a function in C and its reference."""
        return getattr(_speedups, name), speedups.REFERENCES[name]

    def assertSame(self, name: str, *arguments: Any) -> None:
        """Assert that a function in C returns the same as its reference, of the same types."""
        given = [
            [Meter(each) if isinstance(each, Meter) else copy(each) for each in arguments] for _ in range(2)
        ]
        made, expected = (function(*each) for function, each in zip(self.both(name), given, strict=True))
        self.assertEqual(made, expected)
        self.assertEqual(repr(made), repr(expected))
        self.assertEqual(given[0], given[1])  # with the same sums in a meter

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
        for meter in (None, Meter()):
            self.assertSame("readMessages", data, min(start, len(data)), maxPayload, most, meter)
            self.assertSame("readMessages", data, 0, 1_000_000, most, meter)
            self.assertSame("readMessages", data[:-1], 0, 1_000_000, -1, meter)

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
        self.assertEqual(
            plain.maskedFrame(text.encode(), isBinary, mask),
            clientFrame(BINARY if isBinary else TEXT, text.encode(), True, 0, mask),
        )
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
                self.assertSame("readMessages", data, 0, 1_000_000, -1, Meter())
                self.assertSame("readMessages", data[: size + 3], 0, 1_000_000, -1, Meter())
                self.assertSame("readMessages", data, 0, size, -1, Meter())
                self.assertSame("readMessages", data, 0, max(0, size - 1), -1, Meter())
            self.assertSame("maskedTextFrame", "4", payload.decode(), b"\x01\x7f\x80\xff")
            for isBinary in (True, False):
                data = plain.frame(payload, isBinary) + b"\x89\0"
                self.assertSame("readUnmasked", data, 0, 1_000_000, -1)
                self.assertSame("readUnmasked", data[: size + 1], 0, 1_000_000, -1)
                self.assertSame("readUnmasked", data, 0, size, -1)
                self.assertSame("readUnmasked", data, 0, max(0, size - 1), -1)
            self.assertSame("textFrame", "4", payload.decode(), Meter())

    @given(st.text(max_size=70), st.sampled_from("0123456"))
    def test_textFrame(self, text: str, type: str) -> None:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            for function in self.both("textFrame"):
                self.assertRaises(UnicodeEncodeError, function, type, text, None)
        else:
            self.assertSame("textFrame", type, text, None)
            self.assertSame("textFrame", type, text, Meter())

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

    def test_timed(self) -> None:
        """A result comes back, and its time is in the histogram; a Deferred's is not until it fires."""
        waiting, name = Deferred[str](), object()
        for function in self.both("timed"):
            for result in (None, "x", 5, True, 0.5, ["x"], {"x": 1}, (1,), b"x", name, waiting):
                counts = EventCounts()
                given = function(lambda *args, result=result: (args, result)[1], 1, ["x", [2]], counts)
                self.assertIs(given, result)
                self.assertEqual((counts.number, counts.pending), (0, 1) if result is waiting else (1, 0))
            counts = EventCounts()
            self.assertEqual(function(lambda *args: list(args), 1, ["x", [2]], counts), [1, "x", [2]])
            self.assertRaises(ZeroDivisionError, function, lambda first: first / 0, 1, [], counts)
            self.assertEqual(counts.number, 2)

    def test_timedBuckets(self) -> None:
        """A time is in the bucket of its size, and in the sum."""
        for function in self.both("timed"):
            for bounds, buckets in (
                ((1e9,), [1, 0]),
                ((1e-12,), [0, 1]),
                ((1e-12, 1e9), [0, 1, 0]),
                ((1e-12, 2e-12, 1e9, 2e9), [0, 0, 1, 0, 0]),
            ):
                histogram = Histogram(bounds)
                begun = time.perf_counter()
                function(sum, range(1000), [], histogram)
                self.assertEqual(histogram.buckets, buckets)
                self.assertTrue(0 < histogram.total <= time.perf_counter() - begun, histogram.total)

    async def waits(self, other: Deferred[str]) -> str:
        return await other

    def test_timedCoroutine(self) -> None:
        """The time of a coroutine ends with its result, and with its exception."""
        for function in self.both("timed"):
            counts, other = EventCounts(), Deferred[str]()
            result = function(self.waits, other, [], counts)
            self.assertEqual((counts.number, counts.pending), (0, 1))
            other.callback("x")
            self.assertEqual((self.successResultOf(result), counts.number, counts.pending), ("x", 1, 0))
            self.assertEqual(function(self.waits, succeed("y"), [], counts), "y")
            self.assertRaises(ZeroDivisionError, function, self.fails, 1, [], counts)
            self.assertEqual((counts.number, counts.pending), (3, 0))

    async def fails(self, first: int) -> float:
        return first / 0

    def test_noLeaks(self) -> None:
        """Calls that succeed, that find nothing and that fail leave no object behind."""
        frame = clientFrame(TEXT, b"some text") + clientFrame(BINARY, b"data") + clientFrame(PING)
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("readMessages", (frame, 0, 100, -1, None)),
            ("readMessages", (frame, 0, 100, -1, Meter())),
            ("readMessages", (frame, 0, 100, -1, [None, 0])),
            ("readMessages", (clientFrame(TEXT, b"\xff" * 5000), 0, 5000, -1, None)),
            ("readMessages", (clientFrame(TEXT, b"x" * 5000), 0, 5000, -1, None)),
            ("readMessages", (frame, 0, 1 << 80, -1, None)),
            ("readUnmasked", (plain.frame(b"some text", False) + plain.frame(b"data", True), 0, 100, -1)),
            ("readUnmasked", (plain.frame(b"\xff" * 500, False), 0, 5000, -1)),
            ("maskedTextFrame", ("4", "x\xe9" * 500, b"abcd")),
            ("maskedTextFrame", ("4", "x", b"abcde")),
            ("textFrame", ("4", "x\xe9" * 500, Meter())),
            ("textFrame", ("4", "x", [0])),
            ("textFrame", ("4", "\ud800", None)),
            ("readPlain", ('2/some-namespace,1234567["x", "some text"]', json.loads, *KINDS)),
            ("readPlain", ('3/some-namespace,1234567["x", "some text"]', json.loads, *KINDS)),
            ("readPlain", ("2/some-namespace[", json.loads, *KINDS)),
            ("readPlain", ('2["x", "some text"', json.loads, *KINDS)),
            ("readPlain", ('2["connect", "some text"]', json.loads, *KINDS)),
            ("readPlain", ('2["x", "some text"]', len, *KINDS)),
            ("readPlain", ('2["x", "some text"]', None, *KINDS)),
            ("readPlain", (b"2", json.loads, *KINDS)),
            ("timed", (str.upper, "some text" * 50, [], EventCounts())),
            ("timed", (divmod, 1000, [0], EventCounts())),
            ("timed", (str, "some text", [b"x" * 500], EventCounts())),
            ("timed", (frozenset, "some text", [], EventCounts())),
            ("timed", (len, "some text", [], "x")),
        ]

        def often(name: str, arguments: tuple[Any, ...]) -> None:
            function = self.both(name)[0]
            for _ in range(2000):
                with contextlib.suppress(TypeError, ValueError, ArithmeticError, IndexError):
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

    def test_wrongArguments(self) -> None:
        """Wrong arguments raise an exception."""
        frame = clientFrame(TEXT, b"x")
        for name, arguments in (
            ("readMessages", ()),
            ("readMessages", (bytearray(frame), 0, 10, -1, None)),
            ("readMessages", ("x", 0, 10, -1, None)),
            ("readMessages", (frame, -1, 10, -1, None)),
            ("readMessages", (frame, len(frame) + 1, 10, -1, None)),
            ("readMessages", (frame, 0, -1, -1, None)),
            ("readMessages", (frame, 1 << 70, 10, -1, None)),
            ("readMessages", (frame, "0", 10, -1, None)),
            ("readUnmasked", ("x", 0, 10, -1)),
            ("readUnmasked", (frame, len(frame) + 1, 10, -1)),
            ("maskedTextFrame", ("4", b"x", b"abcd")),
            ("maskedTextFrame", ("4", "x", "abcd")),
            ("readMessages", (frame, 0, 10, -1, (0, 0))),
            ("textFrame", (b"4", "x", None)),
            ("textFrame", ("4", "x")),
            ("textFrame", ("4", "x", [0])),
            ("textFrame", ("4", "x", ["0", 0])),
            ("textFrame", ("4", "x", [1 << 70, 0])),
            ("readPlain", (b"2[", json.loads, *KINDS)),
            ("readPlain", ()),
            ("readPlain", ('2["x"]', json.loads, list, *KINDS[1:])),
            ("readPlain", ('2["x"]', json.loads, 1, *KINDS[1:])),
            ("readPlain", ('2["x"]', json.loads, KINDS[0], (1,), KINDS[2])),
            ("readPlain", ('2["x"]', json.loads, KINDS[0], 1, KINDS[2])),
            ("readPlain", ('2["x"]', json.loads, *KINDS[:2], "connect")),
            ("timed", (len, "x", [])),
            ("timed", (len, "x", (), EventCounts())),
            ("timed", (len, "x", [], b"x" * 208)),
            ("timed", (len, "x", [], bytearray(8))),
            ("timed", (None, "x", [], EventCounts())),
        ):
            function = self.both(name)[0]
            with self.assertRaises((TypeError, ValueError, OverflowError, IndexError, SystemError)):
                function(*arguments)


class ReferenceTests(SynchronousTestCase):
    """The references alone, also where nothing is built."""

    def test_withoutC(self) -> None:
        withoutC(self)
        self.assertIs(plain.textFrame, speedups.REFERENCES["textFrame"])
        self.assertIs(socketio.readPlain, speedups.REFERENCES["readPlain"])

    @given(st.binary(max_size=70), st.binary(min_size=4, max_size=4))
    def test_unmask(self, payload: bytes, mask: bytes) -> None:
        plainly = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.assertEqual(plain.unmask(payload, mask), plainly)

    @given(st.lists(FRAMES, max_size=6).map(b"".join), st.text(max_size=150))
    def test_meter(self, data: bytes, text: str) -> None:
        """A meter has the messages that were read and built, and the bytes of their payloads."""
        text = text.encode("utf-8", "replace").decode()
        meter = Meter()
        came, _ = plain.readMessages(data, 0, 1_000_000, -1, meter)
        plain.textFrame("4", text, meter)
        meter.add(7, 100)
        payloads = [each if isinstance(each, bytes) else each.encode() for each in (*came, "4" + text)]
        self.assertEqual((meter.messages, meter.bytes), (len(payloads) + 7, sum(map(len, payloads)) + 100))

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
        """The source in C stays small, in one file."""
        (path,) = (ROOT / "txrealtime").rglob("*.[ch]")
        source = path.read_text()
        lines = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL).split("\n")
        self.assertLess(len([line for line in lines if line.strip()]), 500)
        self.assertIsNotNone(re.search("Py_LIMITED_API 0x030b0000", source))
