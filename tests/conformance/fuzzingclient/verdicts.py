"""
The results of the cases.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

OK: Final = "OK"
NON_STRICT: Final = "NON-STRICT"
INFORMATIONAL: Final = "INFORMATIONAL"
FAILED: Final = "failed"

GRADES: Final = (OK, NON_STRICT, INFORMATIONAL, FAILED)

UNGRADED: Final = frozenset({"7.1.6", "7.13.1", "7.13.2"})
"Of these the suite reports what the server does, and calls nothing wrong: their verdicts are INFORMATIONAL."

TIMED: Final = frozenset({"6.4.1", "6.4.2", "6.4.3", "6.4.4"})
"These give the server a second to find a fault, so a busy machine may make NON-STRICT of a good answer."


@dataclass(frozen=True)
class Verdict:
    """
    The suite's verdict on one case.

    :ivar behavior: of what the server did.
    :ivar close: of how the connection ended.
    :ivar why: in words, with the last frames.
    """

    behavior: str
    close: str
    why: str = ""

    @property
    def grade(self) -> str:
        """
        One word for both, of `GRADES`.

        A mute server has OK for the behavior of cases in which nothing is to be answered, so the end counts
        as well. Whatever else the suite says, such as UNIMPLEMENTED, is failed.
        """
        if self.behavior in GRADES and self.close in (OK, INFORMATIONAL):
            return self.behavior
        return FAILED


Verdicts = Mapping[str, Verdict]
"By the ids of the cases."


def read(output: str) -> dict[str, Verdict]:
    """
    The verdicts that `fuzzer` printed.

    :raises AssertionError: if the suite did not come to its end, or failed itself: then nothing counts.
    """
    _, found, last = output.rpartition('{"verdicts": ')
    if not found:
        raise AssertionError(f"the fuzzer did not come to its end:\n{output[-3000:]}")
    report = json.loads(found + last)
    if report["errors"]:
        raise AssertionError("an exception in the fuzzer:\n" + "\n".join(report["errors"]))
    return {
        case: Verdict(
            told["behavior"],
            told["behaviorClose"],
            "\n    ".join(
                [f"{told['result']} {told['resultClose']} ({told['remoteCloseCode']})", *told["frames"]]
            ),
        )
        for case, told in report["verdicts"].items()
    }


def problems(verdicts: Verdicts, cases: Iterable[str], strict: bool = False) -> list[str]:
    """
    Return the reasons why a run is no pass, one line or more for each.

    :param cases: those that had to be played: one without a verdict is a problem.
    :param strict: whether a late answer is a problem in the cases that measure time, too.
    """
    found = []
    for case in cases:
        verdict = verdicts.get(case)
        if verdict is None:
            found.append(f"{case}: missing")
        elif not (
            verdict.grade == OK
            or (verdict.grade == INFORMATIONAL and case in UNGRADED)
            or (verdict.grade == NON_STRICT and case in TIMED and not strict)
        ):
            found.append(f"{case}: {verdict.behavior}, {verdict.close}: {verdict.why}")
    return found


def grades(verdicts: Verdicts, cases: Iterable[str]) -> Counter[str]:
    """Count the cases of each grade; a case without a verdict has failed."""
    return Counter(verdicts[case].grade if case in verdicts else FAILED for case in cases)


def matching(cases: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """
    The cases that patterns name, each once and in order; ValueError for one that names none.

    :param patterns: ids, in which a `*` stands for anything: `6.*`.
    """
    cases, chosen = list(cases), set()
    for pattern in patterns:
        named = [case for case in cases if fnmatchcase(case, pattern)]
        if not named:
            raise ValueError(f"{pattern!r} names no case, expected an id such as 6.4.1, or 6.* for a group")
        chosen.update(named)
    return [case for case in cases if case in chosen]
