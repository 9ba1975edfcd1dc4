"""
`python -m tests`: trial over all tests; the last line is the count.

Each module has a process of its own, some run at a time, and what one prints is shown when it ends.
`python -m tests NAME ...` runs those named in this process, and shows it as it comes.
"""

from __future__ import annotations

import faulthandler
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import astuple, dataclass
from pathlib import Path
from time import monotonic

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

ROOT = Path(__file__).resolve().parent.parent

AT_A_TIME = (os.cpu_count() or 1) + 1
"Modules that run at a time: one more than there are processors, because most of them often wait."

HUNG = 15 * 60
"Seconds after which a module in a process of its own shows where it stands, and ends."

COUNT = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)

FAILURE = re.compile(r"^\[(?:FAIL|ERROR|PROGRAM)\]\n.*?(?=^=====|^-----)", re.MULTILINE | re.DOTALL)

LONG = (
    "tests.soak",
    "tests.conformance",
    "tests.interop",
    "tests.fuzz",
    "tests.hostile",
    "tests.differential",
    "tests.test_docs",
    "tests.test_packaging",
)
"Where the long modules are. They begin first, so that none is still running when all others are done."


@dataclass
class Count:
    """The numbers of tests that have passed, failed and been skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def run(names: list[str], folder: str = "") -> Count:
    """
    Run tests in this process, and print the report.

    :param folder: where they work, as a part of a run of all tests; otherwise nobody waits for their end.
    """
    if folder:
        faulthandler.dump_traceback_later(HUNG, exit=True)
    suite = TestLoader().loadByNames(names, recurse=True)
    result = TrialRunner(TreeReporter, workingDirectory=folder or "_trial_temp", logfile="test.log").run(
        suite
    )
    faulthandler.cancel_dump_traceback_later()
    # A test marked todo passes by failing as it foretold, and fails by passing.
    passed = result.successes + len(result.expectedFailures)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    return Count(passed, failed, len(result.skips))


def modules() -> list[str]:
    """All test modules, the long ones first."""
    files = [file.relative_to(ROOT) for file in (ROOT / "tests").rglob("test_*.py")]
    names = [".".join(file.with_suffix("").parts) for file in files if not _isForeign(file)]
    return sorted(names, key=lambda name: (not name.startswith(LONG), name))


def _isForeign(file: Path) -> bool:
    """True for a file that the tests have installed or fetched."""
    return any(part == "node_modules" or part.startswith((".", "_")) for part in file.parts)


def runApart(name: str) -> tuple[str, str, float]:
    """
    Run a module in a process of its own.

    :return: its name, what it printed, and the seconds it took.
    """
    begun = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests", f"--folder=_trial_temp/{name}", name],
        cwd=ROOT,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return name, done.stdout, monotonic() - begun


def runAll() -> Iterator[tuple[str, Count]]:
    """
    Run every module, print what each has printed, and tell its count; one that gave none has failed.

    The reports of failures come again at the end, where they are found, with what the programs of a failed
    test have printed.
    """
    failures = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for future in as_completed([pool.submit(runApart, name) for name in modules()]):
            name, output, seconds = future.result()
            counts = COUNT.findall(output)
            count = Count(*map(int, counts[-1])) if counts else Count(failed=1)
            print(f"{COUNT.sub('', output).rstrip()}\n-- {name}: {count}, {seconds:.0f} s\n", flush=True)
            failures += FAILURE.findall(output)
            yield name, count
    print("\n".join(failures))


def main(arguments: list[str]) -> bool:
    """
    Run what was asked for, print the count, and tell whether all passed.
    """
    names = [argument for argument in arguments if not argument.startswith("--folder=")]
    if names:
        folders = [argument.partition("=")[2] for argument in arguments if argument not in names]
        total = run(names, *folders)
    else:
        folder = ROOT / "_trial_temp"
        folder.mkdir(exist_ok=True)
        # Without it, trial refuses to use the folder for a run of its own afterwards.
        (folder / "_trial_marker").touch()
        counts = dict(runAll())
        failed = [name for name, count in counts.items() if count.failed]
        if failed:
            print(f"failed: {', '.join(failed)}")
        total = sum(counts.values(), Count())
    print(total, flush=True)
    return total.failed == 0


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
