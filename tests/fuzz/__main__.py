"""
`python -m tests.fuzz [TARGET ...]`: fuzzes all targets, or those named, one after the other.

What was found worth trying is kept in `.fuzz/`, so the next run begins where this one ended. An input that
breaks a target is left there as `TARGET-crash-...` and shown; put it under FOUND in seeds.py.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.seeds import FOUND, SEEDS, WORDS
from tests.support import ROOT

__all__ = ["Outcome", "fuzz"]

MOST_BYTES = 1000

SLOWEST = 10
"Seconds that an input may take: one that needs more is as good as one that never ends."


class Outcome(NamedTuple):
    """
    The outcome of fuzzing a target.

    :ivar runs: how many inputs were tried.
    :ivar places: how many places in the code they reached.
    :ivar failure: how it failed, and on which input; empty when it did not.
    """

    target: str
    runs: int
    places: int
    failure: str


def fuzz(target: str, seconds: int, folder: Path, seed: int = 0) -> Outcome:
    """
    Fuzz one target.

    :param folder: where its inputs are kept, and what breaks it is left.
    :param seed: for the same choices each time; 0 for others.
    """
    inputs = folder / target
    inputs.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*SEEDS[target], *FOUND.get(target, ())]):
        (inputs / f"seed-{number:02}").write_bytes(data)
    words = folder / f"{target}.dict"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in WORDS[target]))
    command = [sys.executable, "-m", "tests.fuzz.worker", target, str(inputs)]
    command += [f"-dict={words}", f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-seed={seed}"]
    command += [f"-timeout={SLOWEST}", f"-artifact_prefix={folder / target}-", "-print_final_stats=1"]
    done = subprocess.run(
        command, cwd=ROOT, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    runs = re.findall(r"number_of_executed_units: (\d+)", done.stdout)
    places = re.findall(r" cov: (\d+)", done.stdout)
    return Outcome(
        target, int(runs[-1]) if runs else 0, int(places[-1]) if places else 0, _failure(done, target, folder)
    )


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _failure(done: subprocess.CompletedProcess[str], target: str, folder: Path) -> str:
    if done.returncode == 0:
        return ""
    shown = [line for line in done.stdout.splitlines() if not line.startswith(("INFO:", "#"))]
    found = [f"{path.name}: {path.read_bytes()!r}" for path in folder.glob(f"{target}-*")]
    return "\n".join([*shown[-40:], *found])


def main() -> bool:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description="Fuzz the decoders and whole connections."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(SEEDS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--seed", type=int, default=0, help="for the same choices again")
    options = parser.parse_args()
    unknown = set(options.targets) - set(SEEDS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}: there are {', '.join(SEEDS)}")
    if find_spec("atheris") is None:
        parser.error("no atheris, which has wheels for Linux: pip install --group fuzz")
    folder = ROOT / ".fuzz"
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = pool.map(
            lambda target: fuzz(target, options.seconds, folder, options.seed), options.targets or list(SEEDS)
        )
        reports = [_report(outcome) for outcome in outcomes]
        return all(reports)


def _report(outcome: Outcome) -> bool:
    print(f"{outcome.target:20} {outcome.runs:10,} inputs {outcome.places:6,} places", flush=True)
    if outcome.failure:
        print(outcome.failure, flush=True)
    return not outcome.failure


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
