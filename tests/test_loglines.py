"""
The log of a worker, on its way to the supervisor's.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import LogEvent, Logger, LogLevel, formatEventAsClassicLogText
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.monitor.output import jsonLine
from txrealtime.workers.loglines import logAgain, toLine


class LoglinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        self.log = Logger("txrealtime.shop", observer=self.events.append)  # type: ignore[arg-type]

    def again(self) -> LogEvent:
        """Take the last event to another process, and return the event there."""
        line = toLine(self.events[-1])
        self.assertEqual(line.count("\n"), 1)
        got: list[LogEvent] = []
        self.assertTrue(logAgain(3, line.rstrip("\n"), got.append))
        return got[0]

    def test_event(self) -> None:
        """Level, system, time, values and text are those of the event, with the worker's number."""
        self.log.warn("{count} clients of {address}: {why}", count=3, address="192.0.2.1", why=["{no}"])
        event = self.again()
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertEqual(event["log_time"], self.events[0]["log_time"])
        line = json.loads(jsonLine(event))
        self.assertEqual(line["message"], "worker 3: 3 clients of 192.0.2.1: ['{no}']")
        self.assertEqual((line["level"], line["system"]), ("warn", "txrealtime.shop"))
        self.assertEqual(line["values"], {"count": 3, "address": "192.0.2.1", "worker": 3})
        self.assertIn("[txrealtime.shop#warn]", formatEventAsClassicLogText(event) or "")

    def test_failure(self) -> None:
        """A traceback is shown in text, and has its own key in JSON."""
        try:
            raise ValueError("two\nlines")
        except ValueError:
            self.log.failure("no luck")
        event = self.again()
        text = formatEventAsClassicLogText(event) or ""
        self.assertIn("worker 3: no luck\n", text)
        self.assertIn("ValueError: two", text)
        line = json.loads(jsonLine(event))
        self.assertEqual(line["message"], "worker 3: no luck")
        self.assertIn("ValueError: two", line["traceback"])

    def test_valuesThatJSONLacks(self) -> None:
        self.log.info("{a} {b}", a=float("nan"), b=object())
        self.assertIn("worker 3: nan <object", json.loads(jsonLine(self.again()))["message"])

    def test_long(self) -> None:
        """The text of an event is bounded, as is a line that the supervisor keeps in one piece."""
        self.log.info("{text}", text="\U0001f600" * 1_000_000)
        self.assertLess(len(toLine(self.events[-1])), 2_000_000)
        self.again()

    def test_noEvents(self) -> None:
        """Other lines, and such as only look like events, are logged as text."""
        got: list[Any] = []
        for line in (
            "",
            "hello",
            "\x1e",
            "\x1e{}",
            "\x1e[]",
            '\x1e{"level":"x","text":"","values":{}}',
            "\x1e1",
        ):
            self.assertFalse(logAgain(1, line, got.append), line)
        self.assertEqual(got, [])
