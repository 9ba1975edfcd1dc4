"""
The oracle of the recovery tests: it finds each fault, and accepts what a promise explains and no more.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.oracle import Entry, Oracle, Trim, entryOf
from txrealtime.cluster.dialects.messages import Emit, Target
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.engineio.packet import message

ONE, TWO = "1@1000", "2@1000"
TOTALS = {"totals": {"missing": 0, "double": 0, "disordered": 0, "events": 0, "recovered": 0, "fresh": 0}}


def server(name: str, log: str) -> dict[str, Any]:
    return {"report": "server", "name": name, "log": log, "at": 1.0}


def missing(row: str, expected: int, number: int, **fields: Any) -> dict[str, Any]:
    line = {"violation": "a gap", "kind": "missing", "at": 106.0, "row": row, "server": "log1", "id": "anna"}
    return {**line, "expected": expected, "number": number, **fields}


def fresh(**fields: Any) -> dict[str, Any]:
    line = {"violation": "not recovered", "kind": "fresh", "at": 112.0, "opened": 103.0, "attempts": 1}
    return {**line, "from": "log1", "to": "log2", **fields}


def life(name: str, **fields: Any) -> dict[str, Any]:
    came = {f"{row} {each}": [90, 199.5] for row in ("all", "even") for each in (ONE, TWO)}
    return {"life": name, "began": 50.0, "ended": 200.0, "since": 150.0, "came": came, **fields}


class OracleTests(SynchronousTestCase):
    def complaints(
        self, *lines: dict[str, Any], told: list[dict[str, Any]] | None = None, **faults: Any
    ) -> int:
        """Return the number of complaints about the lines of clients and servers."""
        clients = "\n".join(json.dumps(line) for line in (*lines, TOTALS))
        servers = [server(ONE, "log1"), server(TWO, "log2"), *(told or ())]
        outputs = "\n".join(f"2026-11-29 [stdout] {json.dumps(line)}" for line in servers)
        return len(Oracle(clients, [outputs], **faults).complaints())

    def test_nothingWrong(self) -> None:
        self.assertEqual(self.complaints(life("anna")), 0)

    def test_withoutFaults(self) -> None:
        """No promise explains anything."""
        for kind in ("double", "disordered", "early", "recovered", "begin"):
            self.assertEqual(self.complaints({"violation": "it", "kind": kind, "at": 1.0}), 1, kind)
        self.assertEqual(self.complaints(missing(f"all {TWO}", 3, 4), fresh()), 2)

    def test_redisAway(self) -> None:
        """A client of another server is fresh after nine seconds, and nothing else is wrong."""
        away = {"outages": [(100.0, 130.0)]}
        self.assertEqual(self.complaints(fresh(), **away), 0)
        self.assertEqual(self.complaints(fresh(opened=104.0), **away), 1, "it waited for 8 s")
        self.assertEqual(self.complaints(fresh(to="log1"), **away), 1, "its own server knows it")
        self.assertEqual(self.complaints(fresh(to="log1", attempts=2), **away), 0, "the other has fetched it")
        self.assertEqual(self.complaints(fresh(at=131.0), **away), 1, "Redis was back")
        self.assertEqual(self.complaints(fresh(at=99.0, opened=80.0), **away), 1, "Redis was not away yet")
        self.assertEqual(self.complaints(missing(f"all {TWO}", 3, 4), **away), 1)
        self.assertEqual(self.complaints({"violation": "it", "kind": "double", "at": 112.0}, **away), 1)

    def test_deafLink(self) -> None:
        """A server that took Redis for dead says so."""
        told = [
            {"report": "link", "name": TWO, "status": status, "at": at}
            for status, at in (("ready", 1.0), ("deaf", 100.0), ("ready", 130.0))
        ]
        self.assertEqual(self.complaints(fresh(), told=told), 0)
        self.assertEqual(self.complaints(fresh(opened=104.0), told=told), 1)
        self.assertEqual(self.complaints(fresh(at=99.0, opened=80.0), told=told), 1)
        self.assertEqual(
            self.complaints(fresh(to="log1", **{"from": "log2"}), told=told), 1, "the other's link"
        )

    def trimmed(self, *lines: dict[str, Any], count: int = 4, place: str = "100.0") -> int:
        """Trim six entries, of which the first server has read two."""
        entries = [
            Entry((99, 0), f"all {TWO}", 2),
            Entry((100, 0), f"all {TWO}", 3),
            Entry((100, 1), f"all {TWO}", 4),
            Entry((101, 0), f"tick {TWO}", 7, "anna"),
            Entry((101, 1), f"all {TWO}", 5),
            Entry((101, 2)),
        ]
        told = [{"report": "trimmed", "name": ONE, "at": 105.0, "count": count, "place": place}]
        return self.complaints(*lines, told=told, trims=[Trim(100.0, 115.0, entries)])

    def test_trimmed(self) -> None:
        """The clients of the server that has not read the entries miss exactly these."""
        self.assertEqual(self.trimmed(missing(f"all {TWO}", 4, 6)), 0)
        self.assertEqual(self.trimmed(missing(f"all {TWO}", 4, 7)), 1, "one too many")
        self.assertEqual(self.trimmed(missing(f"all {TWO}", 5, 6)), 1, "one came although it was trimmed")
        self.assertEqual(self.trimmed(missing(f"all {ONE}", 4, 6)), 1, "its own numbers")
        self.assertEqual(self.trimmed(missing(f"all {TWO}", 4, 6, server="log2")), 1, "the other server's")
        self.assertEqual(self.trimmed(missing(f"tick {TWO}", 7, 8)), 0)
        self.assertEqual(self.trimmed(missing(f"tick {TWO}", 7, 8, id="bob")), 1, "it was for anna")

    def test_trimmedSessions(self) -> None:
        self.assertEqual(self.trimmed(fresh()), 0)
        self.assertEqual(self.trimmed(fresh(**{"from": "log2"})), 1, "that server has missed nothing")
        self.assertEqual(self.trimmed(fresh(at=116.0)), 1)

    def test_trimmedCount(self) -> None:
        self.assertEqual(self.trimmed(count=3), 1)
        self.assertEqual(self.trimmed(place="99.0"), 1)

    def test_trimmedNoticedLate(self) -> None:
        """A server that has read on meanwhile: the last entries were gone, as many as it says."""
        late = {"place": "150.0", "count": 2}
        self.assertEqual(self.trimmed(missing(f"all {TWO}", 5, 6), **late), 0)
        self.assertEqual(self.trimmed(missing(f"all {TWO}", 4, 6), **late), 1)

    def test_lost(self) -> None:
        """Counts of losses are complaints, and so are missed messages above the trimmed ones."""
        end = {"report": "totals", "name": ONE, "at": 201.0, "missed": 0, "lost": {"trimmed": 0}}
        self.assertEqual(self.complaints(told=[end]), 0)
        self.assertEqual(self.complaints(told=[{**end, "lost": {"dropped": 1}}]), 1)
        self.assertEqual(self.complaints(told=[{**end, "missed": 1}]), 1)
        self.assertEqual(self.complaints(told=[{**end, "missed": 1, "lost": {"trimmed": 2}}]), 0)

    def test_killed(self) -> None:
        """Everybody has the last numbers but one of a server that was killed."""
        deaths = {"deaths": {2: 120.0}}
        rows = {f"all {TWO}": [88, 119.0], f"even {TWO}": [89, 119.0]}
        other = life("bob")
        self.assertEqual(self.complaints(life("anna"), other, **deaths), 0)
        other["came"] |= rows
        self.assertEqual(self.complaints(life("anna"), other, **deaths), 1)
        self.assertEqual(self.complaints(life("anna"), {**other, "began": 119.0}, **deaths), 0)
        self.assertEqual(self.complaints(life("anna"), {**other, "since": None}, **deaths), 0)

    def test_silent(self) -> None:
        """A client that is connected and gets nothing of a server."""
        silent = life("anna")
        silent["came"] |= {f"all {TWO}": [80, 190.0]}
        self.assertEqual(self.complaints(silent), 1)
        self.assertEqual(self.complaints({**silent, "since": 195.0}), 0)
        self.assertEqual(self.complaints(silent, outages=[(150.0, 180.0)]), 0)
        del silent["came"][f"all {TWO}"]
        self.assertEqual(self.complaints(silent), 1)

    def test_entries(self) -> None:
        """The entries of a stream are read as servers write them."""
        dialect = NativeDialect("q8Zk3x9a")
        event = message(f'2["tick",3,"{TWO}","log2.1.0-9"]')
        ((topic, payload),) = dialect.write(Emit(Target("/", ("anna",)), None, [event]))
        self.assertEqual(entryOf("5-1", topic, payload), Entry((5, 1), f"tick {TWO}", 3, "anna"))
        ((topic, payload),) = dialect.write(Emit(Target("/"), None, [message(f'2["all",12,"{TWO}"]')]))
        self.assertEqual(entryOf("5-2", topic, payload), Entry((5, 2), f"all {TWO}", 12))
        self.assertEqual(entryOf("5-3", "a heartbeat", b"1"), Entry((5, 3)))
