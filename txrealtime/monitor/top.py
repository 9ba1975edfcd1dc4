"""
``txrealtime top``: running servers in a terminal, from their pages of metrics.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException
from math import isnan
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from txrealtime.logs import printable
from txrealtime.monitor.scraped import Handler, Part, Sample, View, parse, view

__all__ = ["Scraper", "draw", "run"]

_TIMEOUT: Final = 5.0
"""Seconds that a server has for its page."""

_MOST: Final = 64 * 1024 * 1024
"""Bytes of a page."""

_LAGGING: Final = 0.1
_SLOW: Final = 1.0


def addressOf(url: str) -> tuple[str, str]:
    """
    Complete an address of a page.

    :return: a short name, and the URL: by default of HTTP, and of ``/metrics``.
    :raises ValueError: if it is no address.
    """
    full = url if "://" in url else f"http://{url}"
    parts = urlsplit(full)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{url} is no address of a page, such as http://localhost:8000/metrics")
    if parts.path in ("", "/"):
        full = f"{parts.scheme}://{parts.netloc}/metrics"
    return parts.netloc.rpartition("@")[2], full


def fetch(url: str) -> str:
    """
    Fetch a page.

    :raises OSError: if the server does not answer with one.
    """
    request = Request(url, headers={"Accept": "text/plain; version=0.0.4"})
    try:
        with urlopen(request, timeout=_TIMEOUT) as response:
            body: bytes = response.read(_MOST)
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from None
    return body.decode("utf-8", "replace")


class Scraper:
    """
    A reader of the pages of some servers.

    :param urls: the addresses.
    :param fetch: fetches a page.
    :param seconds: the clock.
    :ivar urls: the addresses of the pages by the name of the server, each page once.
    :ivar faults: by the server, why it has no page.
    """

    def __init__(
        self,
        urls: Sequence[str],
        fetch: Callable[[str], str] = fetch,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.faults: dict[str, str] = {}
        self.urls: dict[str, str] = {}
        for name, full in map(addressOf, urls):
            if full not in self.urls.values():
                # Behind a proxy, several servers may differ by their paths alone.
                self.urls[full if name in self.urls else name] = full
        self._fetch = fetch
        self._seconds = seconds
        self._pages: dict[str, list[Sample]] = {}
        self._read = seconds()

    def look(self) -> View:
        """Read the pages, and compare them with the ones before."""
        pages, faults = {}, {}
        for name, url in self.urls.items():
            try:
                pages[name] = parse(self._fetch(url))
            except (OSError, ValueError) as error:
                faults[name] = str(error)
        now = self._seconds()
        found = view(self._pages, pages, max(now - self._read, 0.001))
        self._pages, self._read, self.faults = pages, now, faults
        return found


# -- the picture ---------------------------------------------------------------------------------


def draw(found: View, faults: dict[str, str], rows: int = 15) -> RenderableType:
    """Draw a view; of the handlers only the first `rows`."""
    parts: list[RenderableType] = [_numbers(found), _handlers(found.handlers[:rows]), _servers(found.parts)]
    parts += [_plain(f"{name}: {fault}", style="red") for name, fault in faults.items()]
    return Group(*parts)


def _numbers(found: View) -> RenderableType:
    rates, gauges = found.rates, found.gauges
    grid = Table.grid(expand=True, padding=(0, 2))
    for _ in range(3):
        grid.add_column(ratio=1)
    grid.add_row(
        _list(
            "Clients",
            ("sessions", _count(sum(found.sessions.values()))),
            *((f"  {name}", _count(count)) for name, count in found.sessions.items()),
            ("sockets", _count(sum(found.sockets.values()))),
            ("opened", _rate(rates.get("sessions_opened"))),
            ("closed", _rate(rates.get("sessions_closed"))),
            ("refused", _rate(rates.get("handshakes_refused"), isBad=True)),
        ),
        _list(
            "Events",
            ("received", _rate(rates.get("events_received"))),
            ("sent", _rate(rates.get("events_sent"))),
            ("bytes received", _bytes(rates.get("bytes_received"))),
            ("bytes sent", _bytes(rates.get("bytes_sent"))),
            ("exceptions", _rate(rates.get("handler_errors"), isBad=True)),
            ("acks too late", _rate(rates.get("ack_timeouts"), isBad=True)),
        ),
        _list(
            "Waiting",
            ("handlers running", _count(gauges["handlers_running"])),
            ("events", _count(gauges["events_waiting"])),
            ("acks", _count(gauges["acks_pending"])),
            ("bytes for clients", _count(gauges["buffered_bytes"])),
            ("slow clients closed", _rate(rates.get("slow_consumers"), isBad=True)),
            *((f"Flask threads {name}", _count(count)) for name, count in found.threads.items() if count),
        ),
    )
    return grid


def _list(title: str, *lines: tuple[str, Text]) -> RenderableType:
    table = Table.grid(expand=True)
    table.add_column()
    table.add_column(justify="right")
    for name, value in lines:
        table.add_row(name, value)
    return Panel(table, title=title)


def _handlers(handlers: Sequence[Handler]) -> RenderableType:
    table = Table(title="Handlers, by their time in all", expand=True)
    table.add_column("namespace")
    table.add_column("event", ratio=1)
    for name in ("events/s", "mean", "99 %", "exceptions/s"):
        table.add_column(name, justify="right")
    for each in handlers:
        table.add_row(
            _plain(each.namespace),
            _plain(each.event),
            _rate(each.rate),
            _time(each.mean, _SLOW),
            _time(each.most, _SLOW),
            _rate(each.errors, isBad=True),
        )
    return table


def _servers(parts: Sequence[Part]) -> RenderableType:
    table = Table(title="Servers", expand=True)
    table.add_column("server", ratio=1)
    for name in ("lag, 99 %", "link", "servers known"):
        table.add_column(name, justify="right")
    for part in parts:
        link = Text("up") if part.isUp else Text("down", style="bold red")
        table.add_row(_plain(part.name), _time(part.lag, _LAGGING), link, _count(part.servers))
    return table


def _plain(text: str, style: str = "") -> Text:
    """Return a text of a page, which cannot control the terminal."""
    return Text(printable(text), style=style)


def _count(value: float) -> Text:
    return Text(f"{value:,.0f}")


def _rate(value: float | None, isBad: bool = False) -> Text:
    if value is None:
        return Text("-")
    text = f"{value:,.0f}/s" if value >= 100 or value == 0 else f"{value:.3g}/s"
    return Text(text, style="bold red" if isBad and value else "")


def _bytes(value: float | None) -> Text:
    if value is None:
        return Text("-")
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return Text(f"{value:.3g} {unit}/s")
        value /= 1000
    return Text(f"{value:,.3g} GB/s")


def _time(seconds: float, limit: float) -> Text:
    if isnan(seconds):
        return Text("-")
    text = f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
    return Text(text, style="bold red" if seconds > limit else "")


# -- the command -----------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """
    Show the servers until an interrupt; with ``--once`` one view.

    :return: the exit code: 1 if no server has a page.
    """
    try:
        scraper = Scraper(options.urls)
    except ValueError as error:
        print(f"txrealtime top: {error}", file=sys.stderr)
        return 1
    found = scraper.look()
    if len(scraper.faults) == len(scraper.urls):
        for name, fault in scraper.faults.items():
            print(f"txrealtime top: {printable(f'{name}: {fault}')}", file=sys.stderr)
        return 1
    console = Console()
    try:
        if options.once:
            time.sleep(options.interval)
            console.print(draw(scraper.look(), scraper.faults))
        else:
            _show(console, scraper, found, options.interval)
    except KeyboardInterrupt:
        pass
    return 0


def _show(console: Console, scraper: Scraper, found: View, interval: float) -> None:
    def picture() -> Any:
        return draw(found, scraper.faults, max(3, console.height - 22))

    with Live(picture(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            found = scraper.look()
            live.update(picture(), refresh=True)
