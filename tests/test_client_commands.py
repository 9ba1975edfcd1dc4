"""
The commands of the client: on a clock, with a server in memory.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.clientmemory import World
from tests.support import requirePart
from txrealtime import ConnectionRejected
from txrealtime.__main__ import _parser, main
from txrealtime.client import chart
from txrealtime.client.chart import percentile
from txrealtime.client.commands import FAILED, LATE, call, clientOf, guarded, listen, load

COMMANDS = {"listen": listen, "call": call, "load": load}


class CommandTests(World):
    def setUp(self) -> None:
        super().setUp()
        self.output: list[str] = []
        self.warnings: list[str] = []
        self.server.on("echo")(lambda socket, *args: args)
        self.server.on("news")(lambda socket, *args: self.server.emit("news", *args))

    def start(self, *arguments: str) -> Deferred[int]:
        """Run a command; its Deferred fires with the exit code."""
        self.output, self.warnings = [], []
        options = _parser().parse_args([arguments[0], "http://example.org", *arguments[1:]])
        options.endpoint = self.endpoint
        command = COMMANDS[arguments[0]]
        client = clientOf(options, self.clock)
        running = Deferred.fromCoroutine(
            guarded(command, options, client, self.clock, self.output.append, self.warnings.append)
        )
        self.settle()
        return running

    def test_call(self) -> None:
        for way in ("polling", "websocket"):
            code = self.start("call", "--transport", way, "echo", '{"a": 1}', '"ä"', "null")
            self.assertEqual((self.successResultOf(code), self.output), (0, ['{"a": 1}', '"ä"', "null"]))
        code = self.start("call", "echo")
        self.assertEqual((self.successResultOf(code), self.output), (0, []))

    def test_callWithBytesInTheAck(self) -> None:
        self.server.on("bytes")(lambda socket: b"\x00\xff")
        self.successResultOf(self.start("call", "bytes"))
        self.assertEqual(self.output, ['{"base64": "AP8="}'])

    def test_callWithoutAnAck(self) -> None:
        self.server.on("never")(lambda socket: Deferred(lambda _: None))
        code = self.start("call", "--timeout", "2", "never")
        self.wait(4)
        self.assertEqual(self.successResultOf(code), LATE)
        self.assertIn("'never'", self.warnings[0])
        arrived: list[Any] = []
        self.server.on("one way")(lambda socket, *args: arrived.append(args))
        self.assertEqual(self.successResultOf(self.start("call", "--no-ack", "one way", "1")), 0)
        self.assertEqual(arrived, [(1,)])

    def test_failures(self) -> None:
        @self.server.onConnect
        def connected(socket: Any, auth: Any) -> None:
            if auth != {"token": "x"}:
                raise ConnectionRejected("who are you?")

        for command in (("call", "echo"), ("listen",), ("load", "--clients", "2")):
            self.assertEqual(self.successResultOf(self.start(*command)), FAILED)
            self.assertEqual(self.warnings, ["who are you?"])
        good = ("--auth", '{"token": "x"}', "--header", "X-A: b")
        self.assertEqual(self.successResultOf(self.start("call", *good, "echo")), 0)
        self.endpoint.refuses = True
        for command in (("call", "echo"), ("listen",), ("load",)):
            self.assertEqual(self.successResultOf(self.start(*command)), FAILED)
            self.assertIn("cannot connect", self.warnings[0])
        self.endpoint.refuses, self.endpoint.hangs = False, True
        code = self.start("call", "--timeout", "3", "echo")
        self.wait(4)
        self.assertEqual(self.successResultOf(code), LATE)

    def test_listen(self) -> None:
        code = self.start("listen", "--count", "3")
        self.server.emit("news", 1, {"a": b"b"})
        self.server.emit("other")
        self.settle()
        self.endpoint.cut()
        self.wait(3)
        self.assertNoResult(code)
        self.server.emit("news", "again")
        self.settle()
        self.assertEqual(self.successResultOf(code), 0)
        self.assertEqual(self.output, ['news 1 {"a": {"base64": "Yg=="}}', "other", 'news "again"'])

    def test_listenToSomeAsJSON(self) -> None:
        code = self.start("listen", "--json", "--event", "news", "--event", "more", "--count", "2")
        for event in ("news", "other", "more"):
            self.server.emit(event, 1)
        self.settle()
        self.assertEqual(self.successResultOf(code), 0)
        self.assertEqual(
            [json.loads(line) for line in self.output],
            [{"event": "news", "args": [1]}, {"event": "more", "args": [1]}],
        )

    def test_listenEnds(self) -> None:
        code = self.start("listen", "--timeout", "5")
        self.wait(7)
        self.assertEqual(self.successResultOf(code), LATE)
        code = self.start("listen")
        for socket in list(self.server.namespace().sockets.values()):
            socket.disconnect()
        self.settle()
        self.assertEqual(self.successResultOf(code), FAILED)
        self.assertIn("disconnected", self.warnings[0])

    def test_callAsJSON(self) -> None:
        """An ack is one line, also without values."""
        self.server.on("values")(lambda socket, *args: args)
        for arguments, expected in ((("1", '"b"'), '[1, "b"]'), (("1",), "[1]"), ((), "[]")):
            self.output.clear()
            code = self.start("call", "--json", "values", *arguments)
            self.settle()
            self.assertEqual((self.successResultOf(code), self.output), (0, [expected]))

    def test_namespace(self) -> None:
        self.server.namespace("/chat").on("where")(lambda socket: "chat")
        self.assertEqual(self.successResultOf(self.start("call", "--namespace", "/chat", "where")), 0)
        self.assertEqual(self.output, ['"chat"'])

    def test_load(self) -> None:
        code = self.start(
            "load", "--clients", "10", "--rate", "20", "--events", "4", "--duration", "3", "--data", '"x"'
        )
        self.wait(10, 0.01)
        self.assertEqual(self.successResultOf(code), 0)
        text = "\n".join(self.output)
        self.assertIn("10 of 10 connected", text)
        self.assertIn("120 sent in 3.0 s", text)
        self.assertIn("120 came, 0 did not", text)
        self.assertNotIn("doubt", text)

    def test_progress(self) -> None:
        """A bar on a terminal, which grows, counts, and is gone before the summary."""
        terminal = StringIO()
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        self.patch(sys, "stderr", terminal)
        code = self.start("load", "--clients", "3", "--duration", "3")
        self.wait(10, 0.01)
        self.assertEqual(self.successResultOf(code), 0)
        _, *bars, gone = terminal.getvalue().split("\r")
        self.assertEqual(gone, "\x1b[K")
        filled = [bar.count("#") for bar in bars]
        self.assertEqual(filled, sorted(filled))
        self.assertLess(filled[0], filled[-1])
        self.assertIn("3 connected", bars[-1])
        self.assertNotIn(" 0 sent, 0 acked", bars[-1])

    def test_chart(self) -> None:
        requirePart(find_spec("matplotlib"), "no matplotlib: pip install --group test")
        file = Path(self.mktemp())
        code = self.start("load", "--clients", "3", "--duration", "3", "--chart", str(file))
        self.wait(10, 0.01)
        self.assertEqual(self.successResultOf(code), 0)
        self.assertEqual(file.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")

    def test_noChart(self) -> None:
        """Without matplotlib a mistake is told before the test begins."""
        self.patch(chart, "import_module", lambda name: import_module("no such module"))
        code = self.start("load", "--chart", self.mktemp())
        self.assertEqual(self.successResultOf(code), FAILED)
        self.assertIn("txrealtime[chart]", self.warnings[0])
        self.assertEqual(self.endpoint.attempts, 0)

    def test_chartThatCannotBeWritten(self) -> None:
        """Told before the test begins; if the disk fails after it, the summary is not lost."""
        code = self.start("load", "--chart", "/no such folder/x.png")
        self.assertEqual(self.successResultOf(code), FAILED)
        self.assertEqual(self.warnings, ["--chart /no such folder/x.png: No such file or directory"])
        self.assertEqual(self.endpoint.attempts, 0)
        requirePart(find_spec("matplotlib"), "no matplotlib: pip install --group test")

        def full(*args: Any) -> None:
            raise OSError("the disk is full")

        self.patch(chart.Chart, "draw", full)
        code = self.start("load", "--clients", "1", "--duration", "1", "--chart", self.mktemp())
        self.wait(5, 0.01)
        self.assertEqual(self.successResultOf(code), FAILED)
        self.assertIn("1 of 1 connected", self.output[0])
        self.assertEqual(self.output[-1], "error       no chart: the disk is full")

    def test_acksThatDoNotCome(self) -> None:
        """The wait for them is neither sending nor a sign of a busy process."""
        self.server.on("never")(lambda socket: Deferred(lambda _: None))
        code = self.start("load", "--clients", "2", "--duration", "1", "--event", "never")
        self.wait(15, 0.01)
        self.assertEqual(self.successResultOf(code), FAILED)
        text = "\n".join(self.output)
        self.assertIn("2 sent in 1.0 s", text)
        self.assertNotIn("doubt", text)

    def test_loadOfAServerThatFails(self) -> None:
        """Some clients are refused, some acks do not come, and some clients are lost: each is told."""
        self.server.on("sometimes")(lambda socket: Deferred(lambda _: None))
        admitted: list[Any] = []

        @self.server.onConnect
        def connected(socket: Any) -> None:
            admitted.append(socket)
            if len(admitted) == 4:
                raise ConnectionRejected("enough")

        code = self.start(
            "load",
            "--clients",
            "5",
            "--events",
            "1",
            "--duration",
            "2",
            "--event",
            "sometimes",
            "--timeout",
            "1",
        )
        self.wait(1.2, 0.01)
        admitted[-1].disconnect()
        self.wait(10, 0.01)
        self.assertEqual(self.successResultOf(code), FAILED)
        text = "\n".join(self.output)
        for words in ("4 of 5 connected", "1 lost", "1 x enough", "no ack of 'sometimes'"):
            self.assertIn(words, text)


class ArgumentTests(SynchronousTestCase):
    def test_mistakes(self) -> None:
        for arguments in (
            ("call", "http://h", "x", "{"),
            ("call", "http://h"),
            ("call", "http://h", "x", "--header", "novalue"),
            ("listen", "http://h", "--count", "0"),
            ("listen", "http://h", "--timeout", "never"),
            ("load", "http://h", "--rate", "-1"),
            ("listen", "http://h", "--transport", "pigeon"),
        ):
            self.patch(sys, "stderr", StringIO())
            self.assertEqual(self.assertRaises(SystemExit, main, arguments).code, 2, arguments)

    def test_percentiles(self) -> None:
        numbers = [float(number) for number in range(1, 101)]
        for percent, expected in ((50, 50.0), (90, 90.0), (99, 99.0), (99.9, 100.0), (0, 1.0)):
            self.assertEqual(percentile(numbers, percent), expected)
        self.assertEqual(percentile([7.0], 99.9), 7.0)
