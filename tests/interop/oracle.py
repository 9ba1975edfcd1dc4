"""
The oracle of the recovery tests: the judge of clients and servers under faults of a bus that keeps.

js/recovery.cjs and tests/interop/recovery.py print the lines.  Each fault of a client is a complaint, unless
one of two promises of docs/howto/recovery.rst and docs/howto/scale-out.rst explains it:

- A stream that is trimmed before a server has read it: the server's clients miss exactly the trimmed numbers,
  or get fresh sessions if they were away, and the server counts exactly the trimmed entries.
- A Redis that is away for a server, or so slow that the server takes it for dead: a client that comes to
  another server than its own gets a fresh session after nine seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from txrealtime.cluster.bus.places import Id, idOf
from txrealtime.cluster.dialects.messages import Emit
from txrealtime.cluster.dialects.nativereading import NativeReader
from txrealtime.cluster.dialects.numbers import Numbers

__all__ = ["Entry", "Oracle", "Trim", "entryOf", "reports"]

PATIENCE: Final = 9.0
"""Seconds that a client waits for Redis."""

SLACK: Final = 0.5
"""Seconds by which the clocks of a client and of a server may differ, as each is late."""

QUIET: Final = 8.0
"""Seconds within which a client that is connected gets a number of each server, on a busy machine, too."""

LAST: Final = 1
"""Numbers that a server which is killed had not given to Redis."""

_NUMBER: Final = re.compile(r'\["(all|even|tick)",(\d+),"(\d+@\d+)"')


class Entry(NamedTuple):
    """
    An entry of the stream.

    :ivar row: the name of its event and of the server that sent it; empty if it is no number.
    :ivar recipient: the id of the socket for which it is alone; empty if it is for several.
    """

    id: Id
    row: str = ""
    number: int = 0
    recipient: str = ""


def entryOf(id: str, topic: str, payload: bytes) -> Entry:
    """Read an entry of the stream."""
    number = None
    if b' ["emit"' in payload[:30]:
        message = NativeReader("", Numbers()).read(topic, payload)
        assert isinstance(message, Emit)
        number = _NUMBER.search(str(message.messages[0].data) if message.messages else "")
    if number is None:
        return Entry(idOf(id.encode()))
    name, digits, server = number.groups()
    rooms = message.target.rooms or ()
    return Entry(
        idOf(id.encode()), f"{name} {server}", int(digits), rooms[0] if name == "tick" and rooms else ""
    )


class Trim(NamedTuple):
    """
    A stream that was trimmed.

    :ivar begin: the time before it.
    :ivar end: the time when the clients that were away are back.
    :ivar entries: the last entries that were in it.
    """

    begin: float
    end: float
    entries: Sequence[Entry]

    def hole(self, gaps: Sequence[dict[str, Any]]) -> Sequence[Entry]:
        """
        Return the entries that a server has not read, by what it says: the last ones of all.

        A server that was behind, but not suspended, notices the hole when it has read on: then its place is
        behind the hole, and its clients alone tell if its count is right.
        """
        place, count = _placeOf(gaps[0]), sum(gap["count"] for gap in gaps)
        if place >= self.entries[-1].id:
            return self.entries[-count:]
        return [entry for entry in self.entries if entry.id > place]


def reports(output: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of JSON of a program, which may stand behind the time in its log."""
    for line in output.splitlines():
        found = re.search(r'\{"(?:report|violation|life|totals)".*\}', line)
        if found:
            yield json.loads(found[0])


class Oracle:
    """
    The judge of one run.

    :param clients: the output of the clients.
    :param servers: the outputs of all servers that ran.
    :param began: the beginnings of the faults, and their names.
    :param outages: the times from which and to which Redis was away.
    :param deaths: the times at which servers were killed, by their processes.
    :param trims: the trimmed streams.
    """

    def __init__(
        self,
        clients: str,
        servers: Iterable[str],
        began: Sequence[tuple[float, str]] = (),
        outages: Sequence[tuple[float, float]] = (),
        deaths: Mapping[int, float] | None = None,
        trims: Sequence[Trim] = (),
    ) -> None:
        lines = list(reports(clients))
        self.totals: dict[str, int] = next(line["totals"] for line in lines if "totals" in line)
        self._violations = [line for line in lines if "violation" in line]
        self._lives = [line for line in lines if "life" in line]
        told = [line for output in servers for line in reports(output) if "report" in line]
        self._servers = {line["name"]: line for line in told if line["report"] == "server"}
        self._names = {line["log"]: name for name, line in self._servers.items()}
        self._gaps = [line for line in told if line["report"] == "trimmed"]
        self._ends = [line for line in told if line["report"] == "totals"]
        self._links = [line for line in told if line["report"] == "link"]
        self._began, self._outages, self._trims = began, outages, trims
        self._deaths = {
            name: at
            for name in self._servers
            for pid, at in (deaths or {}).items()
            if name.startswith(f"{pid}@")
        }
        self.promised = {"missing": 0, "fresh, Redis was away": 0, "fresh, the stream was trimmed": 0}

    def complaints(self) -> list[str]:
        """Return each fault that no promise explains."""
        found = [self._placed(line) for line in self._violations if not self._isPromised(line)]
        return [*found, *self._wronglyCounted(), *self._lost(), *self._ended(), *self._silent()]

    def summary(self) -> str:
        """Return what was sent, what came and what was promised not to come."""
        rows: dict[str, int] = {}
        for life in self._lives:
            for row, (number, _) in life["came"].items():
                if not row.startswith("tick"):
                    rows[row] = max(rows.get(row, 0), number + 1)
        missing = self.totals["missing"] - self.promised["missing"]
        trimmed = sum(line["count"] for line in self._gaps)
        return (
            f"{sum(rows.values())} numbers sent to all by {len(self._servers)} servers, "
            f"{self.totals['events']} came to {len(self._lives)} sessions; {missing} missing, "
            f"{self.totals['double']} double, {self.totals['disordered']} out of order; "
            f"{trimmed} entries trimmed; promised: {self.promised}; "
            f"{self.totals['recovered']} recovered, {self.totals['fresh']} fresh"
        )

    # -- promises ----------------------------------------------------------------------

    def _placed(self, line: dict[str, Any]) -> str:
        """Return a violation, with the fault before it and the seconds since that began."""
        before = [(at, name) for at, name in self._began if at <= line.get("at", 0.0)]
        when = f", {line['at'] - before[-1][0]:.1f} s after {before[-1][1]}" if before else ""
        more = {name: line[name] for name in ("from", "to", "attempts", "opened", "at") if name in line}
        return f"{line['violation']}{when} {more or ''}"

    def _isPromised(self, line: dict[str, Any]) -> bool:
        kind = line.get("kind")
        if kind == "missing":
            missing = set(range(line["expected"], line["number"]))
            server = self._names.get(line["server"])
            if not any(missing == self._trimmed(trim, server, line) for trim in self._trims):
                return False
            self.promised["missing"] += len(missing)
            return True
        if kind != "fresh":
            return False
        server, before = self._names.get(line["to"]), self._names.get(line["from"])
        isUnsure = line["attempts"] > 1  # a server that it came to meanwhile may have fetched it
        if any(self._explains(trim, line["at"], server, before, isUnsure) for trim in self._trims):
            self.promised["fresh, the stream was trimmed"] += 1
        elif (isUnsure or server != before) and self._waitedForRedis(line):
            self.promised["fresh, Redis was away"] += 1
        else:
            return False
        return True

    def _gapsOf(self, trim: Trim, server: str | None) -> list[dict[str, Any]]:
        """Return the gaps that a server has found after a stream was trimmed."""
        return [gap for gap in self._gaps if gap["name"] == server and trim.begin <= gap["at"] <= trim.end]

    def _trimmed(self, trim: Trim, server: str | None, line: dict[str, Any]) -> set[int] | None:
        """Return the numbers that the client of a server misses if a stream was trimmed."""
        gaps = self._gapsOf(trim, server)
        if not gaps or line["at"] < trim.begin:
            return None
        return {
            entry.number
            for entry in trim.hole(gaps)
            if entry.row == line["row"] and entry.recipient in ("", line["id"])
        }

    def _explains(
        self, trim: Trim, at: float, server: str | None, before: str | None, isUnsure: bool
    ) -> bool:
        """Return true if a client was away from a server that missed trimmed entries, or came to one."""
        concerned = {gap["name"] for gap in self._gaps if trim.begin <= gap["at"] <= trim.end}
        return trim.begin <= at <= trim.end and (isUnsure or bool(concerned & {server, before}))

    def _waitedForRedis(self, line: dict[str, Any]) -> bool:
        """Return true if a client waited as long as is promised, and Redis was away until the end."""
        waited = line["at"] - line["opened"]
        outages = [*self._outages, *self._deaf(self._names.get(line["to"]))]
        return waited >= PATIENCE - SLACK and any(
            begin <= line["at"] <= end + SLACK for begin, end in outages
        )

    def _deaf(self, server: str | None) -> Iterator[tuple[float, float]]:
        """Yield the times from which and to which the link of a server was not ready."""
        links = [line for line in self._links if line["name"] == server]
        for line, end in zip(links, [*(each["at"] for each in links[1:]), float("inf")], strict=False):
            if line["status"] != "ready":
                yield line["at"], end

    # -- counts ------------------------------------------------------------------------

    def _wronglyCounted(self) -> Iterator[str]:
        """Compare the servers' counts of trimmed entries with the entries that were in the stream."""
        for trim in self._trims:
            for name in self._servers:
                gaps = self._gapsOf(trim, name)
                count = sum(gap["count"] for gap in gaps)
                expected = len(trim.hole(gaps)) if gaps else 0
                if count != expected:
                    yield f"{name} counted {count} trimmed entries of {expected}"

    def _ended(self) -> Iterator[str]:
        """Check the totals of servers that were stopped: nothing is lost but what was trimmed."""
        for line in self._ends:
            lost = line["lost"]
            if any(lost.get(name) for name in ("dropped", "refused", "oversized")):
                yield f"{line['name']} has lost messages: {lost}"
            if line["missed"] > lost.get("trimmed", 0):
                yield f"{line['name']} has missed {line['missed']} messages of others, and lost {lost}"

    # -- numbers that never came -----------------------------------------------------------

    def _lost(self) -> Iterator[str]:
        """Find clients without the last numbers of a server that was killed."""
        for name, died in self._deaths.items():
            witnesses = [life for life in self._lives if self._witnessed(life, died)]
            for row in (f"all {name}", f"even {name}"):
                last = max((life["came"].get(row, [-1])[0] for life in self._lives), default=-1)
                for life in witnesses:
                    number = life["came"].get(row, [-1])[0]
                    if number < last - LAST:
                        yield f"{life['life']} has {row} up to {number} of {last}, whose server was killed"

    @staticmethod
    def _witnessed(life: dict[str, Any], died: float) -> bool:
        """Return true if a client was there before a death, and back in time after it."""
        isLong = life["began"] < died - QUIET and life["ended"] > died + 2 * QUIET
        return isLong and life["since"] is not None and life["since"] < life["ended"] - QUIET

    def _silent(self) -> Iterator[str]:
        """Find clients that were connected and got nothing of a server any more."""
        hard = [
            *self._outages,
            *((trim.begin, trim.end) for trim in self._trims),
            *((at, at) for at in self._deaths.values()),
        ]
        for life in self._lives:
            ended = life["ended"]
            isCalm = not any(begin - QUIET < ended < end + 3 * QUIET for begin, end in hard)
            if not isCalm or life["since"] is None or life["since"] > ended - QUIET:
                continue
            for name, server in self._servers.items():
                lives = server["at"] < ended - 3 * QUIET and ended < self._deaths.get(name, ended + 1)
                for row in (f"all {name}", f"even {name}"):
                    if lives and life["came"].get(row, [0, 0])[1] < ended - QUIET:
                        yield f"{life['life']} was connected until {ended}, and got nothing of {row} at last"


def _placeOf(gap: dict[str, Any]) -> Id:
    return idOf(gap["place"].replace(".", "-").encode())
