"""
Charts of a run: run in the environment that has matplotlib, as ``python -m benchmarks.chart FOLDER``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.peers import REFERENCE
from benchmarks.report import TITLES, Results
from benchmarks.workloads import Sample

COLOURS = [
    *("#1b6ca8", "#4a90c2", "#0b3c61", "#7fb2d9", "#a9cfe8"),
    *("#5a9e4b", "#9fce8f", "#e0a030"),
    *("#b5533c", "#7d5ba6", "#b9a3d6", "#3f8f8a"),
]
"""One for each server, in the order of ``PEERS``."""


def colours(results: Results) -> dict[str, str]:
    """A colour for each server, the same in all charts."""
    all = dict(zip(TITLES, COLOURS, strict=True))
    return {peer: all[peer] for peer in results.peers}


def drawRatios(results: Results, file: Path) -> None:
    """Bars: the CPU of each server by that of the reference, workload by workload."""
    workloads = [workload for workload in results.workloads if workload.kind == "messages"]
    if not workloads or REFERENCE not in results.peers:
        return
    colour = colours(results)
    bars = [
        [peer for peer in results.peers if results.figure(workload.name, peer, "cpu")]
        for workload in workloads
    ]
    rows = sum(map(len, bars)) + len(workloads)
    figure, axes = plt.subplots(figsize=(9, 1 + 0.23 * rows), layout="constrained")
    y, ticks = 0.0, []
    for workload, peers in zip(workloads, bars, strict=True):
        ticks.append(y + (len(peers) - 1) / 2)
        for peer in peers:
            ratio = results.ratio(workload.name, peer, "cpu")
            label = f" {ratio:.2f}   ({results.figure(workload.name, peer, 'cpu'):,.1f} µs)"
            axes.barh(y, ratio, 0.9, color=colour[peer])
            axes.text(
                ratio, y, label, va="center", fontsize=8, bbox={"fc": "white", "ec": "none", "pad": 0.5}
            )
            y += 1
        y += 1
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ratios = [
        results.ratio(w.name, peer, "cpu") for w, peers in zip(workloads, bars, strict=True) for peer in peers
    ]
    axes.set_xlim(min(ratios, default=1.0) / 3, max(ratios, default=1.0) * 4)
    axes.margins(y=0.01)
    axes.set_yticks(ticks, [f"{w.title}\nper {w.unit}" for w in workloads])
    axes.invert_yaxis()
    axes.set_xlabel(f"CPU of the server by that of {TITLES[REFERENCE]}: less is better")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour[peer]) for peer in results.peers]
    figure.legend(handles, [TITLES[p] for p in results.peers], loc="outside upper center", ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def drawGrowth(results: Results, file: Path) -> None:
    """Lines over the number of connections: CPU for each message, and memory in all."""
    shown = [
        ("growth", "cpu", 1.0, "CPU per acknowledged message (µs)"),
        ("memory", "memory", 1e-6, "memory, idle (MB)"),
        ("memory-tls", "memory", 1e-6, "memory, idle, over TLS (MB)"),
    ]
    shown = [each for each in shown if results.connections(each[0])]
    if not shown:
        return
    colour = colours(results)
    figure, panels = plt.subplots(
        1, len(shown), figsize=(5 * len(shown), 4.2), layout="constrained", squeeze=False
    )
    for axes, (workload, value, scale, title) in zip(panels[0], shown, strict=True):
        for peer in results.peers:
            points = [
                (step, figure_ * scale)
                for step in results.connections(workload)
                if (figure_ := results.figure(workload, peer, value, step))
            ]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=colour[peer], label=TITLES[peer])
        if value == "cpu":
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda cost, _: ""))
        else:
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("connections")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(shown))
    figure.savefig(file, dpi=120)


def main(folder: Path) -> None:
    """Draw what ``results.json`` in a folder holds."""
    run: dict[str, Any] = json.loads((folder / "results.json").read_text())
    results = Results([Sample(**sample) for sample in run["samples"]])
    drawRatios(results, folder / "ratios.png")
    drawGrowth(results, folder / "growth.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
