"""
The report in docs/conformance.rst: tables, in reStructuredText.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from tests.conformance.fuzzingclient.verdicts import GRADES, OK, Verdicts, grades

UNTITLED = {"9": "Limits and large messages", "10": "Automatic fragmentation"}
"Titles for groups that the suite calls otherwise, or not at all."


def report(
    versions: Mapping[str, str],
    titles: Mapping[str, str],
    runs: Sequence[tuple[str, Sequence[str], Verdicts]],
) -> str:
    """
    The whole of it; of the same results it is always the same.

    :param versions: of what was run, by name.
    :param titles: of the groups of cases.
    :param runs: for each its title, the cases that it has, and what came of them.
    """
    lines = [""]
    lines.append("Of " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    for title, cases, verdicts in runs:
        lines += ["", title, "-" * len(title), "", *_table(titles, cases, verdicts)]
    return "\n".join(lines) + "\n"


def _table(titles: Mapping[str, str], cases: Sequence[str], verdicts: Verdicts) -> Iterator[str]:
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 6 44 10 10 10 10 10", "")
    yield from _row("Group", "", "Cases", *GRADES)
    for group, members in groupby(cases, lambda case: case.partition(".")[0]):
        yield from _counted(f"{group}.*", UNTITLED.get(group, titles[group]), list(members), verdicts)
    yield from _counted("", "All", cases, verdicts)
    other = {case: verdicts[case].grade if case in verdicts else "missing" for case in cases}
    if named := [f"{case} ({grade})" for case, grade in other.items() if grade != OK]:
        yield from ("", "Not OK: " + ", ".join(named) + ".")


def _counted(group: str, title: str, cases: Sequence[str], verdicts: Verdicts) -> Iterator[str]:
    counted = grades(verdicts, cases)
    return _row(group, title, len(cases), *(counted[grade] for grade in GRADES))


def _row(*cells: object) -> Iterator[str]:
    for number, cell in enumerate(cells):
        text = str(cell).replace("*", "\\*")
        yield f"   {'  -' if number else '* -'} {text}".rstrip()
