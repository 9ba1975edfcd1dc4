"""
Time that only goes forward.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.python import runtime
from twisted.trial.unittest import SynchronousTestCase

from tests.test_service import RunningTestCase
from txrealtime import clock
from txrealtime.clock import keepSteady


class StillReactor(ReactorBase):
    """A reactor that does not run, with Twisted's own timers."""

    def installWaker(self) -> None: ...


class SteadyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wall, self.monotonic = 1_800_000_000.0, 50.0
        self.patch(runtime, "seconds", lambda: self.wall)
        self.patch(clock.time, "monotonic", lambda: self.monotonic)
        self.patch(ReactorBase, "seconds", staticmethod(runtime.seconds))
        self.reactor: Any = StillReactor()
        self.calls: list[str] = []

    def advance(self, seconds: float) -> None:
        """Let real time go on."""
        self.wall += seconds
        self.monotonic += seconds
        self.reactor.runUntilCurrent()

    def test_steps(self) -> None:
        """Neither a step forward makes a timer fire, nor one back holds it up."""
        for step in (-7200, -1, 1, 30, 3600, 28 * 3600):
            reactor = self.reactor = StillReactor()
            keepSteady(reactor)
            self.calls.clear()
            reactor.callLater(25, self.calls.append, "ping")
            self.advance(24)
            self.wall += step
            self.advance(0.5)
            self.assertEqual(self.calls, [], step)
            self.assertAlmostEqual(reactor.timeout(), 0.5)
            self.advance(0.5)
            self.assertEqual(self.calls, ["ping"], step)

    def test_withoutIt(self) -> None:
        """Twisted's own time does step, or this module were of no use."""
        self.reactor.callLater(25, self.calls.append, "ping")
        self.wall += 3600
        self.advance(0)
        self.assertEqual(self.calls, ["ping"])

    def test_timersThatAreSet(self) -> None:
        """A timer set before keeps its moment, also when it is set anew."""
        first = self.reactor.callLater(25, self.calls.append, "first")
        second = self.reactor.callLater(10, self.calls.append, "second")
        self.advance(5)
        keepSteady(self.reactor)
        second.reset(10)
        self.advance(9.9)
        self.assertEqual(self.calls, [])
        self.advance(0.2)
        self.assertEqual(self.calls, ["second"])
        self.advance(10)
        self.assertEqual((self.calls, first.active()), (["second", "first"], False))

    def test_twice(self) -> None:
        keepSteady(self.reactor)
        seconds = self.reactor.seconds
        keepSteady(self.reactor)
        self.assertIs(self.reactor.seconds, seconds)

    def test_otherClocks(self) -> None:
        """The clock of a test, and asyncio's, stay."""
        for reactor in (Clock(), type("Reactor", (), {"seconds": time.perf_counter})()):
            seconds = reactor.seconds
            keepSteady(reactor)
            self.assertEqual(reactor.seconds, seconds)
        keepSteady(object())


class ServiceTests(RunningTestCase):
    def test_started(self) -> None:
        self.patch(runtime, "seconds", self.reactor.seconds)
        self.reactor.seconds = runtime.seconds  # type: ignore[method-assign]
        self.start()
        self.assertIsNot(self.reactor.seconds, runtime.seconds)
