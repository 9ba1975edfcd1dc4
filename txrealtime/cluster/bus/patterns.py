r"""
Patterns of topics in Redis's form.

They have ``*``, ``?``, ``[ab]``, ``[^ab]``, and a backslash before a character that stands for itself.
"""

from __future__ import annotations

import re

__all__ = ["compilePattern"]


def compilePattern(pattern: str) -> re.Pattern[str]:
    """
    Return the regular expression of a pattern, for ``fullmatch``.

    The first place at which a part between two stars fits is never wrong.  So each part is an atomic group,
    and the time is at most the product of both lengths: a broker must not hang on ``*a*a*a*a*b``.
    """
    parts = re.findall(r"\\.|\[\^?(?:\\.|[^\]])*\]|.", pattern, re.DOTALL)
    runs: list[list[str]] = [[]]
    for part in parts:
        if part == "*":
            runs.append([])
        elif part == "?":
            runs[-1].append(".")
        else:
            isSet = part.startswith("[") and len(part) > 1
            runs[-1].append(_set(part) if isSet else re.escape(part[-1]))
    first, *others = ("".join(run) for run in runs)
    if not others:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{run})" for run in others[:-1] if run)
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL)


def _set(part: str) -> str:
    """Return the form of a set of characters, in which a range may be the wrong way round."""
    inside = part[1:-1]
    negated = inside.startswith("^")
    items = []
    for escaped, low, high, plain in re.findall(r"\\(.)|(.)-(.)|(.)", inside[negated:], re.DOTALL):
        if low:
            low, high = sorted((low, high))
            items.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            items.append(re.escape(escaped or plain))
    if not items:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{''.join(items)}]"
