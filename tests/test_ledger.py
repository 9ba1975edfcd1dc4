"""
The ledger and the fleet: counts of all workers in files that they share, and what is chosen by them.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.engineio.limits import Tally
from txrealtime.workers import ledger
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.ledger import CONNECTIONS, SESSIONS, Ledger
from txrealtime.workers.marks import markOf


class LedgerTestCase(SynchronousTestCase):
    """Tests of some workers with one folder."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        Path(self.folder).mkdir()
        self.marks = [markOf(number, number + 1) for number in range(3)]
        self.ledgers = [Ledger(self.folder, mark) for mark in self.marks]
        for each in self.ledgers:
            each.start(True)
            self.addCleanup(each.stop)
        for each in self.ledgers:
            each.follow(self.marks)


class FileTests(LedgerTestCase):
    def test_whole(self) -> None:
        """A file that is being written is not read by others: they would have a part of it for good."""
        [reader, *_] = self.ledgers
        mark = markOf(3, 4)
        late = Ledger(self.folder, mark)
        self.addCleanup(late.stop)
        seen = []

        def rename(former: str, path: str) -> None:
            reader.follow([*self.marks, mark])
            seen.append(reader._others.keys() - {*self.marks})
            os.replace(former, path)

        with patch.object(os, "rename", rename):
            late.start(True)
        self.assertEqual(seen, [set()])
        reader.follow([*self.marks, mark])
        late.column(SESSIONS).noteOf("192.0.2.1", 2)
        self.assertEqual(reader.column(SESSIONS).countOf("192.0.2.1"), 2)


class TallyTests(LedgerTestCase):
    """Limits that hold for all workers together."""

    def tallies(self, inAll: int, perAddress: int) -> list[Tally]:
        made = []
        for each in self.ledgers:
            made.append(Tally("sessions", inAll, perAddress))
            made[-1].elsewhere = each.column(SESSIONS)
        return made

    def test_inAll(self) -> None:
        """A limit in all is reached by the sessions of all workers, exactly."""
        tallies = self.tallies(10, 0)
        taken = 0
        for turn in range(30):
            tally = tallies[turn % 3]
            if not tally.isFull:
                tally.add("192.0.2.1")
                taken += 1
        self.assertEqual(taken, 10)
        self.assertTrue(all(tally.atLimit for tally in tallies))
        tallies[0].remove("192.0.2.1")
        self.assertFalse(any(tally.atLimit for tally in tallies))

    def test_perAddress(self) -> None:
        tallies = self.tallies(0, 4)
        taken: dict[str, int] = {}
        addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "unix"]
        for turn in range(60):
            tally, address = tallies[turn % 3], addresses[turn % 4]
            if not tally.isFullFor(address):
                tally.add(address)
                taken[address] = taken.get(address, 0) + 1
        self.assertEqual(taken, dict.fromkeys(addresses, 4))
        # Another address of the same network.
        self.assertTrue(tallies[1].isFullFor("2001:db8::2"))
        tallies[0].remove("192.0.2.1")
        self.assertFalse(tallies[2].isFullFor("192.0.2.1"))

    def test_told(self) -> None:
        """The warning has the count of all workers."""
        from twisted.logger import capturedLogs, formatEvent

        one, two, _ = self.tallies(3, 0)
        one.add("a")
        two.add("a")
        two.add("a")
        with capturedLogs() as events:
            self.assertTrue(one.isFull)
        self.assertIn("3 sessions, as many as maxConnections allows", formatEvent(events[0]))

    def test_killed(self) -> None:
        """The counts of a worker that was killed go with its file, when the supervisor tells of its end."""
        tallies = self.tallies(3, 3)
        for tally in tallies:
            tally.add("192.0.2.1")
        self.assertTrue(tallies[0].atLimit and tallies[0].isFullFor("192.0.2.1"))
        os.unlink(f"{self.folder}/{self.marks[2]}.counts")
        self.ledgers[0].follow(self.marks[:2])
        self.assertFalse(tallies[0].atLimit or tallies[0].isFullFor("192.0.2.1"))


class TableTests(LedgerTestCase):
    def test_random(self) -> None:
        """Whatever is set and removed, the others read what the worker has."""
        random.seed(4)
        with patch.object(ledger, "_PLACES", 64), patch.object(ledger, "_TABLE", 12 * 64):
            one, two = (Ledger(self.mktemp(), "same") for _ in range(2))
            os.mkdir(one._folder)
            two._folder, two._key, two._mark = one._folder, one._key, "other"
            one.start(True)
            two.follow(["same"])
            writing, reading = one.column(CONNECTIONS), two.column(CONNECTIONS)
            true: dict[str, int] = {}
            for _ in range(5000):
                network, count = f"192.0.2.{random.randrange(40)}", random.choice((0, 0, 1, 2, 3))
                true[network] = count
                writing.noteOf(network, count)
                asked = f"192.0.2.{random.randrange(45)}"
                self.assertEqual(reading.countOf(asked), true.get(asked, 0))
            self.assertEqual(two.column(SESSIONS).countOf("192.0.2.1"), 0)
            one.stop()
            two.stop()

    def test_full(self) -> None:
        """Addresses beyond the table's room are counted by their worker alone; the others stay."""
        with patch.object(ledger, "_MOST", 5):
            one, two = self.ledgers[0].column(SESSIONS), self.ledgers[1].column(SESSIONS)
            for number in range(10):
                one.noteOf(str(number), 1)
            self.assertEqual([two.countOf(str(number)) for number in range(10)], [1] * 5 + [0] * 5)
            one.noteOf("2", 0)
            one.noteOf("9", 4)
            self.assertEqual((two.countOf("2"), two.countOf("9")), (0, 4))

    def test_kinds(self) -> None:
        """Sessions and connections do not mix."""
        one, two, _ = self.ledgers
        one.column(SESSIONS).note(4)
        one.column(CONNECTIONS).noteOf("x", 7)
        self.assertEqual((two.column(SESSIONS).count(), two.column(CONNECTIONS).count()), (4, 0))
        self.assertEqual((two.column(SESSIONS).countOf("x"), two.column(CONNECTIONS).countOf("x")), (0, 7))

    def test_files(self) -> None:
        """Only the user may read a file; it takes its room at once, and goes with the worker."""
        path = Path(self.folder, f"{self.marks[0]}.counts")
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertGreater(path.stat().st_blocks * 512, 1_000_000)
        self.ledgers[0].stop()
        self.assertFalse(path.exists())
        self.ledgers[0].stop()

    def test_withoutAddresses(self) -> None:
        """A worker without a limit for addresses has a small file, and others read it none the less."""
        mark = markOf(8, 8)
        small = Ledger(self.folder, mark)
        small.start(False)
        self.addCleanup(small.stop)
        self.assertEqual(Path(self.folder, f"{mark}.counts").stat().st_size, 64)
        small.follow(self.marks)
        one = self.ledgers[0]
        one.follow([mark])
        small.column(SESSIONS).note(3)
        small.column(SESSIONS).noteOf("x", 2)
        self.assertEqual((one.column(SESSIONS).count(), one.column(SESSIONS).countOf("x")), (3, 0))
        one.column(SESSIONS).noteOf("x", 4)
        self.assertEqual(small.column(SESSIONS).countOf("x"), 4)

    def test_others(self) -> None:
        """A worker that does not live, or has not begun, counts for nothing."""
        one = self.ledgers[0]
        one.follow([*self.marks, markOf(7, 7)])
        self.assertEqual(one.countOf(markOf(7, 7)), 0)
        one.column(SESSIONS).note(5)
        self.assertEqual(one.countOf(self.marks[0]), 5)
        self.assertEqual(one.column(SESSIONS).count(), 0)


class FleetTests(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.fleets = [
            Fleet(mark, each, self.clock.seconds) for mark, each in zip(self.marks, self.ledgers, strict=True)
        ]
        self.tell("ready", "ready", "ready")

    def tell(self, *states: str) -> None:
        members: list[dict[str, Any]] = [
            {
                "number": number,
                "mark": self.marks[number],
                "pid": 100 + number,
                "state": state,
                "status": "ready",
                "fit": state == "ready",
            }
            for number, state in enumerate(states)
        ]
        for fleet in self.fleets:
            fleet.update(members)

    def count(self, *sessions: int) -> None:
        for each, count in zip(self.ledgers, sessions, strict=True):
            each.column(SESSIONS).note(count)

    def test_another(self) -> None:
        self.count(5, 3, 1)
        self.assertEqual(
            [fleet.another() for fleet in self.fleets], [self.marks[2], self.marks[2], self.marks[1]]
        )
        self.tell("ready", "stopping", "starting")
        self.assertEqual([fleet.another() for fleet in self.fleets], [None, self.marks[0], self.marks[0]])

    def test_place(self) -> None:
        self.count(50, 45, 40)
        self.assertEqual([fleet.place() for fleet in self.fleets], [self.marks[2], None, None])
        self.tell("ready", "ready", "stopping")
        self.assertEqual(self.fleets[0].place(), None)
        self.tell("ready", "stopping", "stopping")
        self.assertEqual(self.fleets[0].place(), None)

    def test_evenShares(self) -> None:
        """However unevenly the system gives connections to the workers, the shares are even."""
        random.seed(7)
        counts = [0, 0, 0]
        for _ in range(3000):
            self.count(*counts)
            accepts = random.choices((0, 1, 2), (8, 1, 1))[0]
            chosen = self.fleets[accepts].place()
            counts[accepts if chosen is None else self.marks.index(chosen)] += 1
        self.assertLessEqual(max(counts), 1.1 * min(counts) + 2)

    def test_burst(self) -> None:
        """The shares are even, although none of the sessions is counted while they are placed."""
        for accepts in (0, 1, 2):
            placed = Counter(self.fleets[accepts].place() or self.marks[accepts] for _ in range(40))
            self.assertEqual(len(placed), 3)
            self.assertLessEqual(max(placed.values()), 1.1 * min(placed.values()) + 2)
        # Those that have not come are forgotten.
        self.count(9, 9, 2)
        self.clock.advance(0.2)
        self.assertEqual(self.fleets[0].place(), self.marks[2])
        self.assertEqual(self.fleets[0].another(), self.marks[2])

    def test_affine(self) -> None:
        """All workers choose the same one for an address, and one worker less moves only its clients."""
        addresses = [f"198.51.{number}.1" for number in range(200)]

        def choices() -> list[str]:
            found = []
            for address in addresses:
                chosen = {fleet.affine(address) or fleet.mark for fleet in self.fleets if fleet.mark in ready}
                [mark] = chosen
                found.append(mark)
            return found

        ready = set(self.marks)
        before = choices()
        self.assertTrue(all(40 <= before.count(mark) <= 95 for mark in self.marks))
        self.tell("ready", "ready", "stopping")
        ready.discard(self.marks[2])
        after = choices()
        moved = {old for old, new in zip(before, after, strict=True) if old != new}
        self.assertEqual(moved, {self.marks[2]})

    def test_affineOfOneAddress(self) -> None:
        """Clients of one address spread: their worker has a quarter more, and the others share the rest."""
        counts = [0, 0, 0]
        for turn in range(600):
            self.count(*counts)
            fleet = self.fleets[turn % 3]
            counts[self.marks.index(fleet.affine("192.0.2.1") or fleet.mark)] += 1
        low, middle, high = sorted(counts)
        self.assertLessEqual(high, 1.25 * 200 + 5)
        self.assertLessEqual(middle - low, 1)

    def test_othersLetGo(self) -> None:
        self.count(4, 0, 0)
        self.assertFalse(self.fleets[1].othersLetGo)
        self.tell("stopping", "stopping", "ready")
        self.assertEqual([fleet.othersLetGo for fleet in self.fleets], [False, True, True])
        self.count(0, 0, 9)
        self.assertEqual([fleet.othersLetGo for fleet in self.fleets], [False, False, False])

    def test_report(self) -> None:
        self.count(1, 2, 3)
        self.assertEqual(
            self.fleets[0].report()[1],
            {"number": 1, "pid": 101, "state": "ready", "status": "ready", "fit": True, "clients": 2},
        )
