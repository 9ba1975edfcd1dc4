"""
A load test of a Socket.IO server: many clients, events with acks, and how long the acks took.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater

from txrealtime.client.chart import drawer, percentile
from txrealtime.client.client import Client

__all__ = ["Load"]

# Seconds between two looks at the clock of this process.
_TICK: Final = 0.1

# The part of the time that this process may be busy before its figures are in doubt.
_BUSY: Final = 0.85

_PERCENTILES: Final = (50, 90, 99, 99.9)


class Load:
    """
    A load test.

    :param options: the command line.
    :param make: makes a client, not started.
    :ivar succeeded: true if all clients connected, none was lost, and all acks came.
    """

    @staticmethod
    def addArguments(parser: argparse.ArgumentParser, positive: Callable[..., Any], asJSON: Any) -> None:
        """Add the options of the command line."""
        number = positive(float)
        parser.add_argument("--clients", metavar="N", type=positive(int), default=100, help="default: 100")
        parser.add_argument(
            "--rate",
            metavar="N",
            type=number,
            default=50.0,
            help="clients that connect in a second (default: 50)",
        )
        parser.add_argument(
            "--events",
            metavar="N",
            type=number,
            default=1.0,
            help="events that each client sends in a second (default: 1)",
        )
        parser.add_argument(
            "--duration", metavar="SECONDS", type=number, default=10.0, help="of the events (default: 10)"
        )
        parser.add_argument(
            "--event", metavar="NAME", default="echo", help="one that the server acks (default: echo)"
        )
        parser.add_argument("--chart", metavar="FILE", help="write a chart as PNG; needs matplotlib")
        parser.add_argument(
            "--data", metavar="JSON", action="append", default=[], type=asJSON, help="an argument; repeatable"
        )

    def __init__(
        self, options: argparse.Namespace, reactor: IReactorTime, make: Callable[[], Client]
    ) -> None:
        self._options = options
        self._reactor = reactor
        self._make = make
        self._clients: list[Client] = []
        self._connected = 0
        self._refused: dict[str, int] = {}
        self._lost = 0
        self._sent = 0
        self._failed: dict[str, int] = {}
        self._received = 0
        self._connectTimes: list[float] = []
        self._ackTimes: list[float] = []
        # For the chart, counted from the start: the time of each event acked, of each client connected.
        self._acks: list[tuple[float, float]] = []
        self._connects: list[float] = []
        self._sending = 0.0
        self.succeeded = False
        self._chart = drawer(options.chart) if options.chart else None
        self._started = reactor.seconds()
        self._lags: list[float] = []
        self._isStopping = False

    async def run(self, progress: Callable[[str], object] | None) -> list[str]:
        """
        Connect the clients, send events, stop.

        :param progress: takes the text of a progress bar, if there is one to draw.
        :return: the lines of the summary.
        """
        options = self._options
        lag = LoopingCall(self._look, progress)
        lag.clock = self._reactor
        self._lastLook = self._reactor.seconds()
        lag.start(_TICK, now=False)
        started, busy = self._reactor.seconds(), time.process_time()
        self._started = started
        await self._connectAll()
        ramp = self._reactor.seconds() - started
        await self._sendAll()
        busy = (time.process_time() - busy) / max(self._reactor.seconds() - started, 1e-9)
        self._isStopping = True
        lag.stop()
        if progress is not None:
            progress("\r\x1b[K")
        await DeferredList([client.stopService() for client in self._clients])
        summary = self._summary(ramp, busy)
        if self._chart is not None:
            title = f"{options.clients} clients, {options.events:g} events per second each"
            try:
                self._chart.draw(options.chart, title, self._acks, self._connects)
            except OSError as error:
                self.succeeded = False
                summary.append(f"error       no chart: {error}")
        return summary

    # -- connecting ------------------------------------------------------------------

    async def _connectAll(self) -> None:
        waiting = []
        began = self._reactor.seconds()
        for number in range(self._options.clients):
            client = self._make()
            self._clients.append(client)
            client.onAny(self._eventReceived)
            client.onDisconnect(self._wasLost)
            asked = self._reactor.seconds()
            client.startService()
            waiting.append(client.whenConnected().addCallbacks(self._isConnected, self._wasRefused, (asked,)))
            due = began + (number + 1) / self._options.rate
            await deferLater(self._reactor, max(0.0, due - self._reactor.seconds()))
        await DeferredList(waiting)

    def _isConnected(self, client: Client, asked: float) -> None:
        self._connected += 1
        now = self._reactor.seconds()
        self._connectTimes.append(now - asked)
        self._connects.append(now - self._started)

    def _wasRefused(self, failure: Any) -> None:
        words = str(failure.value)[:200]
        self._refused[words] = self._refused.get(words, 0) + 1

    def _wasLost(self) -> None:
        self._lost += not self._isStopping

    def _eventReceived(self, event: str, *args: Any) -> None:
        self._received += 1

    # -- sending ---------------------------------------------------------------------

    async def _sendAll(self) -> None:
        """Have each client send its events at even distances, all clients spread over one distance."""
        clients = [client for client in self._clients if client.connected]
        if not clients:
            return
        distance = 1 / (self._options.events * len(clients))
        total = int(self._options.duration / distance)
        start = self._reactor.seconds()
        waiting: set[Deferred[Any]] = set()
        while self._sent < total:
            due = min(total, int((self._reactor.seconds() - start) / distance) + 1)
            while self._sent < due:
                self._send(clients[self._sent % len(clients)], waiting)
            await deferLater(self._reactor, max(0.0, start + self._sent * distance - self._reactor.seconds()))
        self._sending = self._reactor.seconds() - start
        if waiting:
            await DeferredList(list(waiting))

    def _send(self, client: Client, waiting: set[Deferred[Any]]) -> None:
        self._sent += 1
        asked = self._reactor.seconds()
        timeout = self._options.timeout or 10.0
        try:
            ack = client.call(self._options.event, *self._options.data, timeout=timeout)
        except Exception as error:
            self._hasFailed(str(error))
            return
        waiting.add(ack)
        ack.addCallbacks(
            lambda _: self._hasAcked(asked),
            lambda failure: self._hasFailed(str(failure.value)),
        )
        ack.addCallback(lambda _: waiting.discard(ack))

    def _hasAcked(self, asked: float) -> None:
        seconds = self._reactor.seconds() - asked
        self._ackTimes.append(seconds)
        if self._chart is not None:
            self._acks.append((asked - self._started, seconds))

    def _hasFailed(self, words: str) -> None:
        self._failed[words[:200]] = self._failed.get(words[:200], 0) + 1

    # -- this process itself ---------------------------------------------------------

    def _look(self, progress: Callable[[str], object] | None) -> None:
        now = self._reactor.seconds()
        self._lags.append(max(0.0, now - self._lastLook - _TICK))
        self._lastLook = now
        if progress is not None:
            options = self._options
            total = max(1, int(options.duration * options.events * options.clients))
            part = (self._connected / options.clients + self._sent / total) / 2
            bar = ("#" * round(30 * part)).ljust(30)
            progress(
                f"\r[{bar}] {self._connected} connected, {self._sent} sent, {len(self._ackTimes)} acked "
            )

    # -- the summary -----------------------------------------------------------------

    def _summary(self, ramp: float, busy: float) -> list[str]:
        options, seconds = self._options, self._sending
        self.succeeded = not self._refused and not self._lost and not self._failed
        lines = [
            f"clients     {self._connected} of {options.clients} connected in {ramp:.1f} s, "
            f"{self._lost} lost",
            *self._times("connecting", self._connectTimes),
            f"events      {self._sent} sent in {seconds:.1f} s, {self._received} received",
            f"acks        {len(self._ackTimes)} came, {sum(self._failed.values())} did not",
            *self._times("acks", self._ackTimes),
        ]
        for words, count in (*self._refused.items(), *self._failed.items()):
            lines.append(f"error       {count} x {words}")
        lag = max(self._lags, default=0.0)
        lines.append(f"this load   {busy:.0%} of a core, at most {lag * 1000:.0f} ms late")
        wanted = options.duration * options.events * self._connected
        if busy > _BUSY or self._sent < 0.95 * int(wanted) or seconds > options.duration * 1.1 + 1:
            lines.append(
                "doubt       this process was busy itself, and times include its own delays: use fewer "
                "clients, or several processes"
            )
        return lines

    @staticmethod
    def _times(what: str, times: list[float]) -> list[str]:
        if not times:
            return []
        ordered = sorted(times)
        shown = [f"{each:g} % {percentile(ordered, each) * 1000:.1f}" for each in _PERCENTILES]
        return [f"{what:<12}{', '.join(shown)}, most {ordered[-1] * 1000:.1f} ms"]
