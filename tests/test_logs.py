"""
The logger for events that clients cause.
"""

from __future__ import annotations

import ast
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import WireTestCase
from tests.support import ROOT
from txrealtime import logs
from txrealtime.logs import Logger, Repeats, printable
from txrealtime.testing import Client, makeServer


def lineOf(event: LogEvent) -> str:
    """Return an event as an observer writes it, but for the time, the system and a traceback."""
    return eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)


class LogsTestCase(SynchronousTestCase):
    """
    Tests with a log in memory.

    :ivar events: the logged events.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.patch(logs, "repeats", Repeats(self.clock.seconds))
        self.events: list[LogEvent] = []
        self.log = Logger("namespace", observer=self.events.append)

    @property
    def lines(self) -> list[str]:
        return [lineOf(event) for event in self.events]

    @property
    def tracebacks(self) -> int:
        return sum("log_failure" in event for event in self.events)


class PrintableTests(LogsTestCase):
    def test_controls(self) -> None:
        """Nothing that moves a cursor, ends a line or begins a sequence of a terminal is left."""
        for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029):
            self.assertTrue(printable(f"a{chr(code)}b").isprintable(), hex(code))
        self.assertEqual(printable("a\x1b[2J\nb\x9b"), r"a\x1b[2J\nb\x9b")

    def test_allElse(self) -> None:
        for text in ("", "plain", "größer ☃ 😀", "\\n"):
            self.assertEqual(printable(text), text)

    def test_values(self) -> None:
        """Values of each kind, by each way into the log."""
        for write in (self.log.debug, self.log.info, self.log.warn, self.log.error, self.log.critical):
            write("{text} {number} {error}", text="a\nb", number=3, error=ValueError("\x1bc"))
        self.log.failure("{text}", Failure(ValueError()), text="a\nb")
        self.assertEqual(self.lines[:5], [r"a\nb 3 \x1bc"] * 5)
        self.assertEqual(self.lines[5].splitlines()[0], r"a\nb")

    def test_tracebacks(self) -> None:
        """An exception's text, perhaps a client's, controls no terminal; the application's failure stays."""
        for cause in (None, ValueError("\x1b[2J")):
            try:
                raise ValueError("a\x1b[31m\r\x9b\x00\u2028\nb") from cause
            except ValueError:
                failure = Failure()
            self.events.clear()
            self.clock.advance(60)
            self.log.failure("failed", failure)
            [event] = self.events
            text = eventAsText(event)
            self.assertEqual([line for line in text.split("\n") if not line.isprintable()], [])
            self.assertIn("ValueError: a\\x1b[31m\\r\\x9b\\x00\\u2028\nb", text)
            self.assertIn("test_tracebacks", text)
            self.assertIs(event["log_failure"].value, failure.value)
            self.assertTrue(event["log_failure"].check(ValueError))
            self.assertIn("\x1b", failure.getTraceback())

    def test_quotedOnce(self) -> None:
        self.log.info("{text!r}", text="a\nb")
        self.assertEqual(self.lines, [r"'a\nb'"])


class RepeatsTests(LogsTestCase):
    def fail(self, times: int, kind: type[Exception] = ValueError) -> None:  # type: ignore[override]
        for number in range(times):
            try:
                raise kind(f"number {number}\n")
            except kind:
                self.log.failure("{name} failed", name="it")

    def test_first(self) -> None:
        """The first has its traceback, the 10th, 100th and 1000th a line, the others nothing."""
        self.fail(7675)
        self.assertEqual(self.tracebacks, 1)
        self.assertEqual(
            self.lines[1:],
            [
                rf"it failed: number {number - 1}\n; {number} times within a minute, "
                "see the traceback of the first"
                for number in (10, 100, 1000)
            ],
        )

    def test_kinds(self) -> None:
        """Another type or another way through the code is another failure."""
        self.fail(3)
        self.fail(3, KeyError)
        try:
            raise ValueError
        except ValueError:
            self.log.failure("elsewhere")
        self.assertEqual((self.tracebacks, len(self.events)), (3, 3))

    def test_recursion(self) -> None:
        """A recursion is one failure, however deep it goes, and wherever Python ends it."""

        def deep(number: int, leaf: int) -> None:
            if number:
                deep(number - 1, leaf)
            elif leaf == 1:
                raise RecursionError
            else:
                [][number]

        def fail(number: int, leaf: int) -> None:
            try:
                deep(number, leaf)
            except (RecursionError, IndexError):
                self.log.failure("it failed")

        for number in range(2, 50):
            fail(number, 1)
        self.assertEqual(self.tracebacks, 1)

        def far(left: int) -> None:
            far(left - 1) if left else fail(20, 1)

        for left in range(2, 20):
            far(left)
        self.assertEqual(self.tracebacks, 1)
        # Another end of the same recursion is another failure.
        for number in range(2, 50):
            fail(number, 2)
        self.assertEqual(self.tracebacks, 2)

    def test_nextMinute(self) -> None:
        self.fail(5)
        self.clock.advance(59)
        self.fail(5)
        self.assertEqual(self.tracebacks, 1)
        self.clock.advance(1)
        self.fail(1)
        self.assertEqual(self.tracebacks, 2)

    def test_bounded(self) -> None:
        """Kinds without end take no memory without end."""
        known = logs.repeats
        for number in range(5000):
            known.count(str(number), Failure(ValueError()))
        self.assertLessEqual(len(known._kinds), Repeats.MOST)


class LimitedTests(LogsTestCase):
    """
    Lines that a client can cause at any rate.
    """

    def test_flood(self) -> None:
        """1,000 a second for 10 s are 13 lines, which tell the number."""
        for _ in range(1000):
            for number in range(10):
                self.log.limited("full", LogLevel.info, "refused {address}", address=number)
            self.clock.advance(0.01)
        self.assertFalse(self.log.limited("full", LogLevel.info, "refused {address}", address=1))
        self.assertEqual(self.lines[:10], [f"refused {number}" for number in range(10)])
        self.assertEqual(
            self.lines[10:],
            [f"refused 9 (line {number} of this kind within a minute)" for number in (100, 1000, 10000)],
        )
        self.clock.advance(60)
        self.assertTrue(self.log.limited("full", LogLevel.info, "refused {address}", address=1))

    def test_kinds(self) -> None:
        """A flood of one kind does not hide another."""
        for kind in ("full", "origin"):
            for _ in range(20):
                self.log.limited(kind, LogLevel.warn, "refused")
        self.assertEqual(len(self.lines), 20)


class RefusalTests(WireTestCase):
    """
    The log of refused clients.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(logs, "repeats", Repeats(self.clock.seconds))
        self.lines: list[str] = []
        observer = lambda event: self.lines.append(lineOf(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def refused(self, **options: Any) -> list[str]:
        """Return the lines about one request, over both transports."""
        self.lines.clear()
        self.get(**options)
        self.webSocket(**options)
        return self.lines

    def assertAdvice(self, wanted: str, **options: Any) -> None:
        lines = [line for line in self.refused(**options) if line.startswith("refused")]
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertIn(wanted, line)

    def test_advice(self) -> None:
        """Each line says what to change."""
        self.assertAdvice("allowEIO3 (--allow-eio3)", EIO="3")
        self.assertAdvice("the setting transports (--transport)", transport="carrier pigeon")
        self.assertAdvice("a balancer must send a client's requests to one server", sid="unknown")
        self.assertAdvice("the setting origins", headers={"Origin": "https://evil.example"})
        self.makeEngine(maxConnections=1)
        self.openPolling()
        self.lines.clear()
        self.assertAdvice("raise maxConnections (--max-connections)")
        self.makeEngine(maxConnectionsPerAddress=1)
        self.openPolling()
        self.lines.clear()
        self.assertAdvice("set trustedProxies (--trusted-proxy)")
        self.makeEngine(allowRequest=lambda request: False)
        self.assertAdvice("allowRequest refused the client")
        self.lines.clear()
        self.request("PUT")
        self.assertIn("PUT came, and a session opens by GET", self.lines[0])

    def test_flood(self) -> None:
        """1,000 refusals a second for 10 s, of four kinds and many addresses: fewer than 100 lines."""
        kinds: list[dict[str, Any]] = [
            {"EIO": "3"},
            {"transport": "x"},
            {"sid": "unknown"},
            {"headers": {"Origin": "https://evil.example"}},
        ]
        for number in range(10_000):
            self.get(address=f"192.0.2.{number % 250}", **kinds[number % 4])
            self.clock.advance(0.001)
        self.assertGreaterEqual(len(self.lines), 40)
        self.assertLess(len(self.lines), 100)

    def test_upgrades(self) -> None:
        """Upgrades that fail, all of one session."""
        sid = self.openPolling()
        self.lines.clear()
        for _ in range(100):
            self.webSocket(sid).send("4no probe")
        self.assertEqual(len([line for line in self.lines if "upgrade failed" in line]), 11)

    def test_sessions(self) -> None:
        """Sessions that break the protocol, one after the other."""
        for _ in range(100):
            client = self.openWebSocket()
            client.send("9")
        self.assertEqual(len(self.lines), 11)


class ClientTests(WireTestCase):
    """
    Lines of the log whose values a client has chosen.
    """

    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.write)
        self.addCleanup(globalLogPublisher.removeObserver, self.write)

    def write(self, event: LogEvent) -> None:
        self.lines.append(lineOf(event))

    def test_refusals(self) -> None:
        evil = "\nforged\x1b[31m\x9b2J"
        for query in ({"EIO": evil}, {"transport": evil}, {"sid": evil}, {"EIO": "4", "j": evil}):
            self.request("GET", **query)  # type: ignore[arg-type]
        self.assertGreaterEqual(len(self.lines), 3)
        for line in self.lines:
            self.assertTrue(line.isprintable(), ascii(line))

    def test_addresses(self) -> None:
        """A trusted proxy hands on the words of a client."""
        self.makeEngine(trustedProxies=("192.0.2.7",))
        self.get(headers={"X-Forwarded-For": "forged\x1b[31m evil"}, EIO="9")
        self.openPolling(headers={"X-Forwarded-For": "forged\x9b31m evil"})
        self.session.close()
        for line in self.lines:
            self.assertTrue(line.isprintable(), ascii(line))
        self.assertNotEqual(self.lines, [])


class FloodTests(SynchronousTestCase):
    def test_failingHandler(self) -> None:
        """An event of 30 bytes is no traceback of 1.6 kB each time."""
        server = makeServer()
        self.patch(logs, "repeats", Repeats(server.reactor.seconds))

        @server.on("fail")
        def fail(socket: Any) -> None:
            raise ValueError("broken")

        client = Client(server)
        client.connect("/")
        for _ in range(2000):
            client.emit("fail")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        server.reactor.advance(60)  # type: ignore[attr-defined]
        client.emit("fail")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class UseTests(SynchronousTestCase):
    def test_everywhere(self) -> None:
        """No module of the package logs past this logger."""
        for file in (ROOT / "txrealtime").rglob("*.py"):
            if file.name == "logs.py":
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.logger":
                    self.assertNotIn("Logger", [alias.name for alias in node.names], str(file))
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.python":
                    self.assertNotIn("log", [alias.name for alias in node.names], str(file))
