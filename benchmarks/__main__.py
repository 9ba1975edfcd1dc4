"""
The command: install, measure, report. See ``--help``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine
from benchmarks.install import install
from benchmarks.load import Wrong
from benchmarks.peers import ENVIRONMENTS, PEERS, ROOT, Peer, versionsOf
from benchmarks.report import Results
from benchmarks.workloads import SHORT, WORKLOADS, Effort, Sample, run


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark",
        description="Measure txrealtime and its peers side by side: the CPU time of the server's process for "
        "each message, latencies and memory. The server has one core and the load another. Takes half an "
        "hour, or two minutes with --short.",
    )
    parser.add_argument("--short", action="store_true", help="less of everything")
    parser.add_argument("--only", metavar="WORKLOAD,...", help="of " + ", ".join(w.name for w in WORKLOADS))
    parser.add_argument("--servers", metavar="SERVER,...", help="of " + ", ".join(p.name for p in PEERS))
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each server has its turn")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long a turn takes")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "benchmarks" / "results",
        metavar="FOLDER",
        help="for the report",
    )
    parser.add_argument("--reinstall", action="store_true", help="make the environments anew")
    parser.add_argument("--install-only", action="store_true", help="make the environments, and stop")
    given = parser.parse_args()
    for names, known in ((given.only, WORKLOADS), (given.servers, PEERS)):
        unknown = set(names.split(",") if names else ()) - {each.name for each in known}
        if unknown:
            parser.error(f"there is no {', '.join(sorted(unknown))}")
    return given


def choosePeers(names: str | None) -> list[Peer]:
    """The servers to measure, those that are installed."""
    wanted = names.split(",") if names else [peer.name for peer in PEERS if not peer.optional]
    chosen = [peer for peer in PEERS if peer.name in wanted]
    for peer in chosen:
        if names and not peer.installed:
            raise SystemExit(f"{peer.name} could not be installed")
    return [peer for peer in chosen if peer.installed]


def measureAll(given: argparse.Namespace, effort: Effort, peers: Sequence[Peer]) -> list[Sample]:
    """Run, and tell how it goes."""
    only = given.only.split(",") if given.only else [workload.name for workload in WORKLOADS]
    workloads = [workload for workload in WORKLOADS if workload.name in only]
    samples = []
    for sample in run(workloads, peers, effort, say):
        samples.append(sample)
        values = sample.values
        shown = sample.wrong or sample.busy or ", ".join(f"{name} {values[name]:.4g}" for name in values)
        print(f"   {sample.peer:18} {sample.connections:6} {shown}", file=sys.stderr)
    return samples


def say(line: str) -> None:
    """Tell what comes."""
    print(f"-- {time.strftime('%H:%M:%S')} {line}", file=sys.stderr)


def main() -> int:
    """Returns the exit code: 1 when something was wrong, so that not all could be reported."""
    given = options()
    if len(machine.CORES) < 2:
        raise SystemExit("one core for the server and one for the load: this needs two")
    missing = install(given.reinstall)
    for reason in missing:
        say(f"not installed: {reason}")
    if given.install_only:
        return 0
    effort = SHORT if given.short else Effort()
    changes = {name: getattr(given, name) for name in ("rounds", "seconds") if getattr(given, name)}
    effort = replace(effort, **changes)
    most = max(*effort.idle, *effort.growth, effort.beating) + 200
    if machine.raiseFileLimit(2 * most) < most:
        raise SystemExit(f"{most} open files are needed: raise the limit (ulimit -Hn)")
    peers = choosePeers(given.servers)
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine.describe(),
        "effort": str(effort),
        "versions": {peer.name: versionsOf(peer) for peer in peers},
        "missing": missing,
    }
    machine.toLoadCore()
    try:
        samples = measureAll(given, effort, peers)
    except Wrong as error:
        raise SystemExit(str(error)) from None
    return report(
        given.output, record | {"samples": [sample.asDict() for sample in samples]}, Results(samples)
    )


def report(folder: Path, record: dict[str, object], results: Results) -> int:
    """Save and print it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(record, indent=1))
    text = results.markdown(record)
    (folder / "results.md").write_text(text)
    print(text)
    subprocess.run(
        [ENVIRONMENTS / "report" / "bin" / "python", "-m", "benchmarks.chart", folder], cwd=ROOT, check=True
    )
    print(f"saved in {folder}")
    if results.problems:
        print("\nNOT ALL COULD BE REPORTED:", *results.problems, sep="\n- ", file=sys.stderr)
    return 1 if results.problems else 0


if __name__ == "__main__":
    sys.exit(main())
