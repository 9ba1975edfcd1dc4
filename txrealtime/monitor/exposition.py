"""
The text of the metrics, in the forms that Prometheus reads.

prometheus_client's encoder takes 0.3 s for a page of 1,000 events.  Here a line that was written once is a
template, and the page takes some 10 ms; ``tests/test_metrics.py`` compares both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from txrealtime.engineio.counts import BOUNDS, Histogram
from txrealtime.monitor.families import COUNTER, Family, Value

__all__ = ["Writer"]

_ENDS: Final = ("_bucket", "_count", "_sum")


class Writer:
    """
    A writer of pages.

    :param isOpenMetrics: true for OpenMetrics 1.0, false for the text form 0.0.4 of Prometheus.
    """

    CHUNK = 100
    """Samples, or histograms, in one piece: 0.4 ms at most."""

    def __init__(self, isOpenMetrics: bool) -> None:
        self._isOpenMetrics = isOpenMetrics
        # By the family and the values of the labels, which are bounded.
        self._templates: dict[str, dict[tuple[str, ...], str]] = {}

    def write(self, families: Iterable[tuple[Family, Mapping[tuple[str, ...], Value]]]) -> Iterator[str]:
        """Yield the page in pieces, each of which takes a short time to write."""
        pieces: list[str] = []
        for family, values in families:
            name = f"txrealtime_{family.name}"
            suffix = "_total" if family.kind == COUNTER else ""
            headed = name if self._isOpenMetrics else name + suffix
            pieces.append(f"# HELP {headed} {family.text}\n# TYPE {headed} {family.kind}\n")
            templates = self._templates.setdefault(f"{family.name} {' '.join(family.labels)}", {})
            # Tuples, since events may be registered while a page is written.
            for key, value in tuple(values.items()):
                template = templates.get(key)
                if template is None:
                    template = templates[key] = _templateFor(name + suffix, family.labels, key, value)
                if isinstance(value, Histogram):
                    sums = tuple(accumulate(value.buckets))
                    pieces.append(template % (*sums, sums[-1], value.total))
                else:
                    pieces.append(template % value)
                if len(pieces) >= self.CHUNK:
                    yield "".join(pieces)
                    pieces.clear()
        yield "".join(pieces)


def _templateFor(name: str, labels: tuple[str, ...], key: tuple[str, ...], value: Value) -> str:
    """Write the lines of a sample with places for its numbers."""
    pairs = [_pair(label, each) for label, each in zip(labels, key, strict=True)]
    if not isinstance(value, Histogram):
        return f"{_named(name, pairs)} %s\n"
    bucket, count, total = (f"{name}{end}" for end in _ENDS)
    bounds = [*map(str, BOUNDS), "+Inf"]
    lines = [f"{_named(bucket, [*pairs, _pair('le', bound)])} %d\n" for bound in bounds]
    return "".join([*lines, f"{_named(count, pairs)} %d\n", f"{_named(total, pairs)} %r\n"])


def _pair(label: str, value: str) -> str:
    return f'{label}="{_escaped(value)}"'


def _named(name: str, pairs: list[str]) -> str:
    return f"{name}{{{','.join(pairs)}}}" if pairs else name


def _escaped(value: str) -> str:
    """Escape the value of a label, for the page and for a template."""
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    # A lone surrogate, which JSON may bring in a name, has no place in UTF-8.
    return escaped.encode("utf-8", "replace").decode().replace("%", "%%")
