"""
The metrics of several processes as one page.

Counters and histograms are sums, and so are gauges whose sum has a meaning.  Where a sum would be wrong, each
process has a label ``worker``.  The last values of processes that have ended stay in the sums: without them a
sum would fall, and Prometheus would take this for a restart of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from txrealtime.engineio.counts import BOUNDS, Histogram
from txrealtime.monitor.families import FAMILIES, GAUGE, Family, Value, Values

__all__ = ["Snapshot", "Sums", "snapshot"]

Snapshot = dict[str, list[Any]]
"""Values by name: lists of the labels and a number, or of the labels, the buckets and the total."""

_CHUNK: Final = 200
"""Values that are added in one piece: some 0.5 ms."""


def snapshot(families: Iterable[tuple[Family, Values]]) -> Snapshot:
    """Copy the values of one process."""
    return {
        family.name: [
            [key, [*value.buckets], value.total] if isinstance(value, Histogram) else [key, value]
            for key, value in values.items()
        ]
        for family, values in families
    }


class Sums:
    """The values of several processes."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], Value]] = {name: {} for name in FAMILIES}

    def add(self, taken: Snapshot, worker: str | None) -> Iterator[None]:
        """
        Add the values of a process, in pieces.

        :param taken: its snapshot.
        :param worker: its label; ``None`` for one that has ended, which has no gauges any more.
        """
        added = 0
        for name, family in FAMILIES.items():
            if worker is None and (family.isApart or family.kind == GAUGE):
                continue
            values = self._values[name]
            more = (worker,) if worker is not None and family.isApart else ()
            for key, *value in taken.get(name, ()):
                _add(values, (*key, *more), value)
                added += 1
                if added % _CHUNK == 0:
                    yield

    def families(self) -> Iterator[tuple[Family, Values]]:
        """Yield the metrics with their values."""
        for family in FAMILIES.values():
            values = self._values[family.name]
            if family.isApart:
                yield Family(family.name, family.kind, family.text, (*family.labels, "worker")), values
            elif family.name == "info":
                yield family, dict.fromkeys(values, 1)
            else:
                yield family, values

    def ended(self) -> Snapshot:
        """Copy the sums, for processes that have ended."""
        return {
            name: rows
            for name, rows in snapshot(self.families()).items()
            if FAMILIES[name].kind != GAUGE and not FAMILIES[name].isApart
        }


def _add(values: dict[tuple[str, ...], Value], key: tuple[str, ...], value: list[Any]) -> None:
    found: Any = values.get(key)
    if len(value) == 1:
        values[key] = value[0] if found is None else found + value[0]
        return
    buckets, total = value
    if found is None:
        found = values[key] = Histogram(BOUNDS)
    found.addAll(buckets, total)
