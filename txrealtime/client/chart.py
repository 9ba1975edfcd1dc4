"""
The chart of a load test.

This is the only module that imports matplotlib, and only when a chart is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from typing import Any

__all__ = ["drawer", "percentile"]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile of numbers in order, by the nearest rank."""
    rank = max(0, -(-len(ordered) * percent // 100) - 1)
    return ordered[min(int(rank), len(ordered) - 1)]


class Chart:
    """
    A picture of how the times of acks and the number of clients changed.

    :param figure: matplotlib's class of figures, which needs no display.
    """

    def __init__(self, figure: Any) -> None:
        self._figure = figure

    def draw(
        self, file: str, title: str, acks: Sequence[tuple[float, float]], connected: Sequence[float]
    ) -> None:
        """
        Write the chart as a PNG.

        :param acks: the time at which each event was sent, and the seconds until its ack.
        :param connected: the time at which each client was connected.
        """
        figure = self._figure(figsize=(9, 6), layout="constrained")
        times, counts = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        bySecond: dict[int, list[float]] = defaultdict(list)
        # Counted from the first event, so that no second but the last is a part of one.
        first = min([when for when, _ in acks], default=0.0)
        for when, took in acks:
            bySecond[int(when - first)].append(took * 1000)
        seconds = sorted(bySecond)
        middles = [first + second + 0.5 for second in seconds]
        for percent, colour in ((50, "#1b6ca8"), (90, "#5a9e4b"), (99, "#e0a030"), (100, "#b5533c")):
            label = f"{percent} %" if percent < 100 else "most"
            values = [percentile(sorted(bySecond[second]), percent) for second in seconds]
            times.plot(middles, values, marker=".", color=colour, label=label)
        times.set_ylabel("ms until the ack")
        times.set_ylim(bottom=0)
        times.legend()
        times.set_title(title)
        end = max([*connected, *[when for when, _ in acks]], default=0.0)
        counts.plot(
            [*sorted(connected), end],
            [*range(1, len(connected) + 1), len(connected)],
            color="#0b3c61",
            label="clients connected",
        )
        counts.plot(
            middles,
            [len(bySecond[second]) for second in seconds],
            color="#7fb2d9",
            label="acks per second",
        )
        counts.set_ylim(bottom=0)
        counts.set_xlabel("seconds")
        counts.legend()
        figure.savefig(file, format="png")


def drawer(file: str) -> Chart:
    """
    Create the artist of a chart.

    :raises ValueError: if matplotlib is not installed, or the file cannot be written.
    """
    try:
        with open(file, "ab"):
            pass
    except OSError as error:
        raise ValueError(f"--chart {file}: {error.strerror}") from None
    try:
        figure = import_module("matplotlib.figure").Figure
    except ImportError:
        raise ValueError("--chart needs matplotlib: pip install 'txrealtime[chart]'") from None
    return Chart(figure)
