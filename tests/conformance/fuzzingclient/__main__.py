"""
All cases of Autobahn's suite against tac/conformance.tac and the client, and the report: see
``scripts/conformance --help``.

What has come of a case is kept, and the case is not played again until something changes that it could depend
on: so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from threading import Lock

from tests.conformance.fuzzingclient.report import report
from tests.conformance.fuzzingclient.runs import CLIENT, RUNS, SERVER, Run
from tests.conformance.fuzzingclient.suite import FETCHED, VERSION, Suite, fetch
from tests.conformance.fuzzingclient.verdicts import OK, Verdict, grades, matching, problems
from tests.support import ROOT

PAGE = ROOT / "docs" / "conformance.rst"

REPORTS = {
    "The server's results": SERVER,
    "The client's results": CLIENT,
}
"The runs of each report, by its heading. The reports stand below one another at the end of the page."

MARK = ".. make conformance writes what is below this line: "
"The beginning of the line before a report; its heading ends the line."


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/conformance",
        description="Play all cases of Autobahn's suite against tac/conformance.tac and against the client, "
        f"and write the reports in {PAGE.relative_to(ROOT)}, each once all of its cases have been played. It "
        "takes most of an hour; one that is interrupted goes on where it was. Ends with 1 when a case is not "
        "OK that could be.",
    )
    parser.add_argument(
        "--run",
        action="append",
        choices=[run.name for run in RUNS],
        help="only this way to play (repeats)",
    )
    parser.add_argument("--case", action="append", metavar="PATTERN", help="only such cases: 6.* (repeats)")
    parser.add_argument("--again", action="store_true", help="play what has been played already, too")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many fuzzers at a time; one for each core"
    )
    return parser.parse_args()


# -- what has been played


def versions() -> dict[str, str]:
    """Return the versions of the programs that the results depend on."""
    return {
        "autobahntestsuite": VERSION,
        "txrealtime": version("txrealtime"),
        "autobahn": version("autobahn"),
        "Twisted": version("twisted"),
        "Python": platform.python_version(),
    }


def state() -> str:
    """Changes with whatever the results could depend on."""
    files = [
        *(ROOT / "txrealtime").rglob("*.py"),
        *(ROOT / "txrealtime").rglob("*.[ch]"),
        ROOT / "tests" / "conformance" / "servers.py",
    ]
    files += Path(__file__).parent.glob("*.py")
    texts = [f"{file.relative_to(ROOT)}\n{file.read_text()}" for file in sorted(files)]
    return hashlib.sha256("\n".join([str(versions()), *texts]).encode()).hexdigest()


class Results:
    """
    Verdicts, by the name of the run and the case; kept in a file from one run of this command to the next.
    """

    def __init__(self) -> None:
        self._file = FETCHED / "fuzzingclient-results.json"
        self._state = state()
        self._lock = Lock()
        self._of: dict[str, dict[str, Verdict]] = {run.name: {} for run in RUNS}
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        if kept.get("state") == self._state:
            for name, told in kept["verdicts"].items():
                self._of[name] = {case: Verdict(**verdict) for case, verdict in told.items()}

    def of(self, run: Run) -> dict[str, Verdict]:
        """Those of a run."""
        return self._of[run.name]

    def add(self, run: Run, verdicts: dict[str, Verdict]) -> None:
        """Keep some more; from any thread."""
        with self._lock:
            self._of[run.name].update(verdicts)
            told = {name: {case: asdict(it) for case, it in of.items()} for name, of in self._of.items()}
            self._file.write_text(json.dumps({"state": self._state, "verdicts": told}))


# -- playing


def play(suite: Suite, run: Run, cases: Sequence[str], folder: Path) -> dict[str, Verdict]:
    """
    Play some cases, and tell how it went.
    """
    began = time.monotonic()
    verdicts = run.play(suite, cases, folder / f"{run.name}-{cases[0]}.log")
    well = grades(verdicts, cases)[OK]
    what = cases[0] if len(cases) == 1 else f"{cases[0]} to {cases[-1]}"
    print(
        f"-- {run.name}: {what}: {well} of {len(cases)} OK, {time.monotonic() - began:.0f} s", file=sys.stderr
    )
    return verdicts


def units(cases: Sequence[str]) -> Iterator[list[str]]:
    """Cases in the portions that are played and kept together: groups, and subgroups of compression."""

    def unit(case: str) -> str:
        group, _, rest = case.partition(".")
        return f"{group}.{rest.partition('.')[0]}" if group in ("12", "13") else group

    for _, together in groupby(cases, unit):
        yield list(together)


def write(heading: str, text: str) -> None:
    """Write a report to its place on the page."""
    page, *reports = PAGE.read_text().split(MARK)
    written = {report.partition("\n")[0]: report.rstrip() + "\n" for report in reports}
    written[heading] = "\n".join([heading, "", heading, "=" * len(heading), text])
    PAGE.write_text(page + "\n".join([MARK + written[each] for each in REPORTS if each in written]))
    print(f"-- wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)


def main() -> int:
    """Returns the exit code."""
    given = options()
    suite = fetch()
    results = Results()
    runs = [run for run in RUNS if run.name in (given.run or [run.name])]
    wanted = {run: matching(suite.cases, run.patterns) for run in RUNS}
    chosen = {
        run: [c for c in wanted[run] if c in matching(suite.cases, given.case or ["*"])] for run in runs
    }
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:

        def playUnit(run: Run, cases: list[str]) -> None:
            results.add(run, play(suite, run, cases, Path(folder)))

        waiting = []
        for run in runs:
            cases = [case for case in chosen[run] if given.again or case not in results.of(run)]
            waiting += [pool.submit(playUnit, run, unit) for unit in units(cases)]
        for each in waiting:
            each.result()
    found = [f"{run.name}: {line}" for run in runs for line in problems(results.of(run), chosen[run], True)]
    for heading, some in REPORTS.items():
        if all(case in results.of(run) for run in some for case in wanted[run]):
            told = [(run.title, wanted[run], results.of(run)) for run in some]
            write(heading, report(versions(), suite.titles, told))
    print(*found, f"{sum(map(len, chosen.values()))} cases, {len(found)} not passed", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
