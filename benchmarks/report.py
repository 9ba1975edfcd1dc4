"""
Samples as tables: medians over the rounds, and ratios to the reference of the same round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.peers import PEERS, REFERENCE
from benchmarks.workloads import WORKLOADS, Sample

TITLES = {peer.name: peer.title for peer in PEERS}


class Results:
    """
    The samples of a run.

    :ivar problems: what does not count, and why: one line for each. No figure of it is shown.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples: dict[tuple[str, str], list[Sample]] = {}
        for sample in samples:
            self._samples.setdefault((sample.workload, sample.peer), []).append(sample)
        self.problems = list(self._check())
        self._workloads = {sample.workload for sample in samples}
        self._peers = {sample.peer for sample in samples}
        self.workloads = [workload for workload in WORKLOADS if workload.name in self._workloads]
        self.peers = [peer.name for peer in PEERS if peer.name in self._peers]

    def _check(self) -> Iterator[str]:
        """Drop what does not count."""
        for (workload, peer), samples in list(self._samples.items()):
            reason = next((sample.wrong for sample in samples if sample.wrong), "")
            quiet = [sample for sample in samples if not sample.busy]
            if not reason and len(quiet) * 2 < len(samples):
                reason = next(sample.busy for sample in samples if sample.busy)
            if reason:
                del self._samples[workload, peer]
                yield f"{workload}, {peer}: {reason}"
            else:
                self._samples[workload, peer] = quiet

    def connections(self, workload: str) -> list[int]:
        """The numbers of connections that a workload was measured with."""
        return sorted(
            {
                sample.connections
                for (name, _), samples in self._samples.items()
                if name == workload
                for sample in samples
            }
        )

    def _values(self, workload: str, peer: str, value: str, connections: int | None) -> dict[int, float]:
        return {
            sample.round: sample.values[value]
            for sample in self._samples.get((workload, peer), ())
            if value in sample.values and connections in (None, sample.connections)
        }

    def figure(self, workload: str, peer: str, value: str, connections: int | None = None) -> float:
        """The median of a value over the rounds; 0 when there is none."""
        values = self._values(workload, peer, value, connections)
        return median(values.values()) if values else 0.0

    def ratio(self, workload: str, peer: str, value: str, connections: int | None = None) -> float:
        """The median of the ratios to the reference, each within a round; 0 when there is none."""
        reference = self._values(workload, REFERENCE, value, connections)
        values = self._values(workload, peer, value, connections)
        ratios = [values[turn] / reference[turn] for turn in values if reference.get(turn)]
        return median(ratios) if ratios else 0.0

    def markdown(self, run: dict[str, Any]) -> str:
        """The report."""
        sections = [self._summary(), *self._details(), *self._series(), self._conditions(run)]
        if self.problems:
            sections.append("## Not reported\n\n" + "\n".join(f"- {problem}" for problem in self.problems))
        return "\n\n".join(section for section in sections if section) + "\n"

    def _summary(self) -> str:
        rows = [
            [
                f"{w.title}, per {w.unit}",
                *(
                    _withRatio(self.figure(w.name, p, "cpu"), self.ratio(w.name, p, "cpu"))
                    for p in self.peers
                ),
            ]
            for w in self.workloads
            if w.kind == "messages"
        ]
        head = ["", *(TITLES[peer] for peer in self.peers)]
        return f"# CPU of the server, in microseconds (ratio to Node)\n\n{_table(head, rows)}" if rows else ""

    def _details(self) -> Iterator[str]:
        for workload in self.workloads:
            if workload.kind != "messages":
                continue
            name = workload.name
            rows = [
                [
                    TITLES[peer],
                    f"{self.figure(name, peer, 'cpu'):.1f}",
                    f"{self.ratio(name, peer, 'cpu'):.2f}",
                    f"{self.figure(name, peer, 'generator'):.1f}",
                    f"{self.figure(name, peer, 'busy'):.0%}",
                    f"{self.figure(name, peer, 'generatorBusy'):.0%}",
                    f"{self.figure(name, peer, 'p50'):.2f}",
                    f"{self.figure(name, peer, 'p99'):.2f}",
                    f"{self.figure(name, peer, 'memory') / 1e6:.0f}",
                ]
                for peer in self.peers
                if self.figure(name, peer, "cpu")
            ]
            head = ["server", f"us / {workload.unit}", "to Node", "load us", "core", "load's core"]
            yield f"## {workload.title}\n\n{_table([*head, 'p50 ms', 'p99 ms', 'RSS MB'], rows)}"

    def _series(self) -> Iterator[str]:
        kinds = {
            "memory": ("each", "kB of memory for each connection", 1e-3),
            "load": ("load", "percent of a core", 1.0),
            "growth": ("cpu", "microseconds for each message", 1.0),
        }
        for workload in self.workloads:
            if workload.kind not in kinds:
                continue
            value, unit, scale = kinds[workload.kind]
            steps = self.connections(workload.name)
            rows = []
            for peer in self.peers:
                figures = [self.figure(workload.name, peer, value, step) * scale for step in steps]
                ratios = [self.ratio(workload.name, peer, value, step) for step in steps]
                if any(figures):
                    cells = [_withRatio(*pair) for pair in zip(figures, ratios, strict=True)]
                    rows.append([TITLES[peer], *cells])
            if rows:
                head = ["server", *(f"{step:,}" for step in steps)]
                yield f"## {workload.title}: {unit} (ratio to Node)\n\n{_table(head, rows)}"

    def _conditions(self, run: dict[str, Any]) -> str:
        machine = ", ".join(f"{name} {value}" for name, value in run["machine"].items())
        lines = [f"- {run['date']}, {machine}", f"- {run['effort']}"]
        for peer, versions in run["versions"].items():
            lines.append(f"- {TITLES[peer]}: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
        lines += [f"- not installed: {reason}" for reason in run["missing"]]
        return "## Conditions\n\n" + "\n".join(lines)


def _withRatio(figure: float, ratio: float) -> str:
    if not figure:
        return ""
    shown = f"{figure:.1f}" if figure < 100 else f"{figure:.0f}"
    return f"{shown} ({ratio:.2f})" if ratio else shown


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, also to be read as it is."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        shown = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        return "| " + " | ".join([first.ljust(widths[0]), *shown]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(lines[0]), rule, *(line(cells) for cells in lines[1:])])
