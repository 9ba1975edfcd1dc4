"""
The prose of the code, as CONTRIBUTING asks for it: docstrings start with a verb or a noun phrase.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT

FOLDERS = ("txrealtime", "tests", "benchmarks", "tac", "twisted", "docs/examples")

FORBIDDEN = frozenset(
    ["what", "who", "whom", "whoever", "whose", "whether", "where", "how", "which", "there", "it", "of"]
)
"First words that leave the thing unnamed."

_FOREIGN = ("node_modules", "__pycache__")


def sources() -> Iterator[Path]:
    """Yield the files of Python that are ours; a tac is one."""
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            parts = file.relative_to(ROOT).parts
            foreign = any(part in _FOREIGN or part.startswith(".") for part in parts)
            if file.suffix in (".py", ".tac") and not foreign:
                yield file


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield each docstring with its line, of the module and of all classes and functions in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text


def faults(text: str) -> Iterator[str]:
    """Yield the faults of a docstring."""
    first = re.match(r"\W*(\w*)", text)
    if first and first[1].lower() in FORBIDDEN:
        yield f"starts with {first[1]!r}: {text.splitlines()[0]}"
    for name, word in re.findall(r":raises ([\w.]+):\s+(\S+)", text):
        if word != "if":
            yield f":raises {name}: continues with {word!r}, expected 'if'"


class ProseTests(SynchronousTestCase):
    def test_docstrings(self) -> None:
        found, count = [], 0
        for file in sources():
            for line, text in docstrings(file.read_text()):
                count += 1
                found += [f"{file.relative_to(ROOT)}:{line}: {fault}" for fault in faults(text)]
        self.assertEqual(found, [], "\n" + "\n".join(found))
        # Else a wrong folder would pass.
        self.assertGreater(count, 1000)

    def test_faults(self) -> None:
        for text in (
            "What is asked.",
            "It's over.",
            "``Where`` it is.",
            "of a room, all",
            "Send.\n\n:raises ValueError: when late",
        ):
            self.assertEqual(len(list(faults(text))), 1, text)
        for text in ("Send a message.", "Iterate over all.", "Send.\n\n:raises ValueError: if late"):
            self.assertEqual(list(faults(text)), [], text)
