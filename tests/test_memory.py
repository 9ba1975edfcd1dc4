"""
Memory that is given back to the system after a burst.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.test_service import RunningTestCase
from txrealtime.service import memory
from txrealtime.service.memory import Trimming, freeBytes, trim

MB = 1024 * 1024


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class TrimmingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.free, self.trims = Clock(), 0, 0
        self.trimming = Trimming(self.clock, lambda: self.free, self.trim)
        self.trimming.start()

    def trim(self) -> None:
        self.trims += 1
        self.free = 0

    def test_much(self) -> None:
        self.free = 1000 * MB
        self.clock.advance(59)
        self.assertEqual(self.trims, 0)
        self.clock.advance(1)
        self.assertEqual(self.trims, 1)
        self.clock.pump([60] * 10)
        self.assertEqual(self.trims, 1)

    def test_little(self) -> None:
        """A pause of the reactor is not worth it."""
        self.free = 100 * MB
        self.clock.pump([60] * 10)
        self.assertEqual(self.trims, 0)

    def test_startAndStop(self) -> None:
        self.trimming.start()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.trimming.stop()
        self.trimming.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LibraryTests(SynchronousTestCase):
    def test_burst(self) -> None:
        """Most of 300 MB goes back: blocks of 10 kB, all freed but the last."""
        if memory._library is None:
            raise SkipTest("not glibc")
        blocks = [bytes(10_000) for _ in range(30_000)]
        last = blocks.pop()
        blocks.clear()
        self.assertGreater(freeBytes(), 250 * MB)
        before = resident()
        trim()
        self.assertLess(resident(), before - 200 * MB)
        self.assertEqual(len(last), 10_000)

    def test_otherLibraries(self) -> None:
        self.patch(memory, "_library", None)
        self.assertEqual(freeBytes(), 0)
        trim()


class ServiceTests(RunningTestCase):
    def test_asLongAsItRuns(self) -> None:
        trims: list[int] = []
        self.patch(memory._library, "malloc_trim", trims.append)
        self.patch(memory, "_WORTH", 0)
        service = self.start()
        self.reactor.advance(60)
        self.assertEqual(trims, [0])
        service.stopService()
        self.reactor.pump([60] * 3)
        self.assertEqual(trims, [0])
