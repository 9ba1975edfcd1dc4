"""
Timers that fire together: near their time, once, and never after they are cancelled.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import given, st
from txrealtime.engineio.timers import Timer, Timers

TICK = 0.5


class TimersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock, TICK)
        self.fired: list[str] = []

    def later(self, delay: float, name: str) -> Timer:
        return self.timers.callLater(delay, lambda: self.fired.append(name))

    def test_aloneAtItsTime(self) -> None:
        timer = self.later(1.23, "a")
        self.assertTrue(timer.active())
        self.clock.advance(1.22)
        self.assertEqual(self.fired, [])
        self.clock.advance(0.01)
        self.assertEqual(self.fired, ["a"])
        self.assertFalse(timer.active())

    def test_togetherInOneCall(self) -> None:
        for index in range(100):
            self.later(10 + index / 1000, str(index))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(10)
        self.assertEqual(self.fired, [str(index) for index in range(100)])

    def test_cancelled(self) -> None:
        timers = [self.later(1, "a"), self.later(1, "b")]
        timers[0].cancel()
        timers[0].cancel()
        self.clock.advance(1)
        self.assertEqual(self.fired, ["b"])
        timers[1].cancel()

    def test_nothingRemains(self) -> None:
        timers = [self.later(1, "a"), self.later(1.1, "b"), self.later(9, "c")]
        for timer in timers:
            timer.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelledByItsNeighbour(self) -> None:
        self.timers.callLater(1, lambda: last.cancel())
        last = self.later(1, "last")
        self.clock.advance(1)
        self.assertEqual(self.fired, [])

    def test_startedByItsNeighbour(self) -> None:
        """A timer started by another of the same tick has a delayed call of its own."""
        self.timers.callLater(1, lambda: self.later(TICK / 4, "next"))
        self.clock.advance(1)
        self.assertEqual(self.fired, [])
        self.clock.advance(TICK / 4)
        self.assertEqual(self.fired, ["next"])

    def test_oneFails(self) -> None:
        self.timers.callLater(1, lambda: 1 / 0)
        self.later(1, "a")
        self.clock.advance(1)
        self.assertEqual(self.fired, ["a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 3), st.booleans()), max_size=20))
    def test_nearTheirTime(self, steps: list[tuple[float, float, bool]]) -> None:
        clock = Clock()
        timers = Timers(clock, TICK)
        fired: dict[int, float] = {}
        wanted: dict[int, float] = {}
        for number, (delay, pause, cancels) in enumerate(steps):

            def fire(number: int = number) -> None:
                self.assertNotIn(number, fired)
                fired[number] = clock.seconds()

            timer = timers.callLater(delay, fire)
            if cancels:
                timer.cancel()
            else:
                wanted[number] = clock.seconds() + delay
            clock.pump([pause / 64] * 64)
        clock.pump([TICK / 8] * 400)
        self.assertEqual(fired.keys(), wanted.keys())
        for number, time in wanted.items():
            self.assertLess(abs(fired[number] - time), 2 * TICK)
        self.assertEqual(clock.getDelayedCalls(), [])
