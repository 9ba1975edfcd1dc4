"""
``txrealtime top``, with pages recorded from a server with two workers.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import BytesIO, StringIO
from math import inf, isnan
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, requirePart
from txrealtime.__main__ import main
from txrealtime.monitor.scraped import Sample, View, parse, quantile, view

BEFORE, AFTER = ((ROOT / "tests" / "pages" / f"{name}.txt").read_text() for name in ("before", "after"))
"""Two pages, 2 seconds apart: ``echo`` fails now and then, and ``report`` takes 1.2 seconds."""


class ScrapedTests(SynchronousTestCase):
    def look(self) -> View:
        return view({"one": parse(BEFORE)}, {"one": parse(AFTER)}, 2.0)

    def test_sums(self) -> None:
        found = self.look()
        self.assertEqual(found.sessions, {"polling": 0, "websocket": 30})
        self.assertEqual(found.sockets, {"/": 30})
        self.assertEqual((found.gauges["handlers_running"], found.gauges["events_waiting"]), (10, 8))

    def test_rates(self) -> None:
        """The increases of all series of a counter, and by label."""
        rates = self.look().rates
        self.assertEqual(rates["events_received"], (42 - 25 + 456 - 247) / 2)
        self.assertEqual(rates["handler_errors"], (44 - 24) / 2)
        self.assertEqual(rates["bytes_received websocket"], (6138 - 3357) / 2)
        self.assertEqual(rates["sessions_opened"], 0)

    def test_handlers(self) -> None:
        """The one with the most time is the first."""
        report, echo = self.look().handlers
        self.assertEqual((report.event, echo.event), ("report", "echo"))
        self.assertEqual(report.rate, (32 - 15) / 2)
        self.assertAlmostEqual(report.mean, 1.2, places=1)
        self.assertTrue(1.0 < report.most < 2.5, report.most)
        self.assertLess(echo.most, 0.0005)
        self.assertEqual(echo.errors, 10)

    def test_parts(self) -> None:
        """Each worker has a line."""
        parts = {part.name: part for part in self.look().parts}
        self.assertEqual(set(parts), {"one worker 0", "one worker 1"})
        for part in parts.values():
            self.assertTrue(part.isUp)
            self.assertEqual(part.servers, 2)
            self.assertLess(part.lag, 0.05)

    def test_servers(self) -> None:
        """Servers are added up; one that was not there before has no rates yet."""
        pages = {"one": parse(AFTER), "two": parse(AFTER)}
        found = view({"one": parse(BEFORE)}, pages, 2.0)
        self.assertEqual(found.sessions["websocket"], 60)
        self.assertEqual(found.rates["handler_errors"], 10)
        self.assertEqual(len(found.parts), 4)

    def test_restarted(self) -> None:
        """A counter that fell began anew."""
        found = view({"one": parse(AFTER)}, {"one": parse(BEFORE)}, 2.0)
        self.assertEqual(found.rates["handler_errors"], 24 / 2)

    def test_parse(self) -> None:
        text = (
            '# HELP x y\nx 1\ntxrealtime_sockets{namespace="/a\\"b\\\\\\nc",q="d,e}"} 2.5e3 1700000000\n'
            "y NaN\n"
        )
        one, two, three = parse(text)
        self.assertEqual(one, Sample("x", {}, 1))
        self.assertEqual(two, Sample("sockets", {"namespace": '/a"b\\\nc', "q": "d,e}"}, 2500))
        self.assertTrue(isnan(three.value))
        (odd,) = parse('x{event="a\u2028b\x85c\rd"} 1\r\n')
        self.assertEqual(odd.labels, {"event": "a\u2028b\x85c\rd"})
        for wrong in ("<html>", "x", "x{ 1", "x one"):
            self.assertRaises(ValueError, parse, wrong)

    def test_quantile(self) -> None:
        self.assertEqual(quantile(0.5, {0.1: 5.0, 0.2: 10.0, inf: 10.0}), 0.1)
        self.assertAlmostEqual(quantile(0.75, {0.1: 5.0, 0.2: 10.0, inf: 10.0}), 0.15)
        self.assertEqual(quantile(0.99, {0.1: 5.0, inf: 10.0}), 0.1)
        for nothing in ({}, {0.1: 0.0, inf: 0.0}):
            self.assertTrue(isnan(quantile(0.5, nothing)))


class TopTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(find_spec("rich"), "no rich: pip install --group test")

    def scraper(self, *pages: Any) -> Any:
        """Make a scraper of two servers; each page is a text, or an error."""
        from txrealtime.monitor.top import Scraper

        given, times = iter(pages), iter(range(100))

        def fetch(url: str) -> str:
            self.urls.append(url)
            page = next(given)
            if isinstance(page, Exception):
                raise page
            return str(page)

        self.urls: list[str] = []
        return Scraper(["one:8000", "https://two.example/m"], fetch, lambda: float(next(times)))

    def drawn(self, scraper: Any) -> str:
        from rich.console import Console

        from txrealtime.monitor.top import draw

        file = StringIO()
        Console(file=file, width=110).print(draw(scraper.look(), scraper.faults))
        return file.getvalue()

    def test_picture(self) -> None:
        scraper = self.scraper(BEFORE, BEFORE, AFTER, AFTER)
        scraper.look()
        picture = self.drawn(scraper)
        self.assertEqual(self.urls[:2], ["http://one:8000/metrics", "https://two.example/m"])
        for pattern in (
            r"sessions +60 ",
            r"websocket +60 ",
            r"received +452/s ",
            r"exceptions +40/s ",
            r"events +16 ",
            r"/ +│ report +│ +34/s │ +1\.20 s │",
            r"one:8000 worker 0 .* up .* 2 ",
            r"two\.example worker 1 .* up .* 2 ",
        ):
            self.assertRegex(picture, pattern)
        self.assertLess(picture.index("report"), picture.index("echo"))

    def test_faults(self) -> None:
        """A server that does not answer is told, and the others are shown; it comes back."""
        scraper = self.scraper(BEFORE, BEFORE, OSError("refused"), AFTER, AFTER, "<html>")
        scraper.look()
        picture = self.drawn(scraper)
        self.assertRegex(picture, "sessions +30 ")
        self.assertIn("one:8000: refused", picture)
        self.assertIn("two.example: this is no page of metrics: '<html>'", self.drawn(scraper))

    def test_control(self) -> None:
        """No name and no fault of a page controls the terminal."""
        page = AFTER.replace('"report"', '"re\x1b[2Jport"')
        before = BEFORE.replace('"report"', '"re\x1b[2Jport"')
        scraper = self.scraper(before, BEFORE, page, OSError("404 \x1b]0;title\x07"))
        scraper.look()
        picture = self.drawn(scraper)
        self.assertNotIn("\x1b", picture)
        self.assertIn("re\\x1b[2Jport", picture)
        self.assertIn("404 \\x1b]0;title", picture)

    def test_pagesOfOneHost(self) -> None:
        """Servers behind one proxy differ by their paths; a page that is named twice counts once."""
        from txrealtime.monitor.top import Scraper

        urls = ["host/one", "http://host/one", "host/two"]
        scraper = Scraper(urls, lambda url: AFTER, lambda: 0.0)
        self.assertEqual(list(scraper.urls), ["host", "http://host/two"])
        self.assertEqual(sum(scraper.look().sessions.values()), 60)

    def test_oneView(self) -> None:
        """``--once``, and exit codes."""
        from txrealtime.monitor import top

        pages = iter([BEFORE, BEFORE, AFTER, AFTER])

        def opened(request: Any, timeout: float) -> BytesIO:
            return BytesIO(next(pages).encode())

        with patch.object(top, "urlopen", opened), patch("sys.stdout", StringIO()) as output:
            self.assertEqual(main(["top", "one:8000", "two", "--once", "--interval", "0.001"]), 0)
        self.assertRegex(output.getvalue(), "sessions +60 ")

    def test_unreachable(self) -> None:
        with redirect_stderr(StringIO()) as errors:
            self.assertEqual(main(["top", "ftp://host", "--once"]), 1)
            self.assertEqual(main(["top", "127.0.0.1:1", "127.0.0.1:1", "--once"]), 1)
        first, second = errors.getvalue().splitlines()
        self.assertIn("ftp://host is no address of a page", first)
        self.assertIn("top: 127.0.0.1:1: ", second)


class WithoutRichTests(SynchronousTestCase):
    def test_notInstalled(self) -> None:
        with patch.dict(sys.modules, {"txrealtime.monitor.top": None}), redirect_stderr(StringIO()) as errors:
            self.assertEqual(main(["top", "host"]), 1)
        self.assertIn("pip install 'txrealtime[top]'", errors.getvalue())

    def test_interval(self) -> None:
        for interval in ("0", "-1", "x", "inf"):
            with redirect_stderr(StringIO()):
                self.assertRaises(SystemExit, main, ["top", "host", "--interval", interval])
