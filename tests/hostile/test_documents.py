"""
The documents on security: each test that they name exists, and each limit is listed as it is.
"""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from txrealtime import Settings
from txrealtime.service import helptext

ADVISORY = re.compile(r"CVE-\d{4}-\d{4,}|GHSA(?:-[23456789cfghjmpqrvwx]{4}){3}|PYSEC-\d{4}-\d+")
TEST = re.compile(r"``((?:\w+\.)+test_\w+)``")


class AdvisoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        page = (ROOT / "docs" / "security-advisories.rst").read_text()
        self.rows = [row.split("\n     - ") for row in page.split("   * - ")[1:]]
        self.rows = [row for row in self.rows if row[0].strip() != "advisory"]

    def test_rows(self) -> None:
        self.assertGreater(len(self.rows), 35)
        for row in self.rows:
            self.assertEqual(len(row), 3, row)
            names = [name.strip() for name in row[0].split(",")]
            for name in names:
                self.assertTrue(ADVISORY.fullmatch(name), name)
        self.assertEqual(len({row[0] for row in self.rows}), len(self.rows))

    def test_testsExist(self) -> None:
        named = 0
        for row in self.rows:
            for name in TEST.findall(row[2]):
                module, case, method = name.rsplit(".", 2)
                if not module.startswith("tests."):
                    module = f"tests.hostile.{module}"
                found = getattr(importlib.import_module(module), case)
                self.assertTrue(callable(getattr(found, method, None)), name)
                named += 1
        self.assertGreaterEqual(named, len(self.rows))


class HardeningTests(SynchronousTestCase):
    def test_eachLimit(self) -> None:
        """Each setting that is a time or a limit stands in a table of the page, with its default."""
        page = (ROOT / "docs" / "howto" / "harden.rst").read_text()
        listed = dict(re.findall(r"^``(\w+)`` +(\d+) ", page, re.MULTILINE))
        defaults = {field.name: field.default for field in fields(Settings)}
        limits = {
            name
            for subject, names in helptext.SUBJECTS.items()
            if subject == "Times" or "imit" in subject
            for name in names
            if not isinstance(defaults[name], bool)
        }
        self.assertEqual(set(listed), limits)
        for name, default in listed.items():
            self.assertEqual(float(default), defaults[name], name)


class SourceTests(SynchronousTestCase):
    def test_nothingIsExecuted(self) -> None:
        """Nothing is unpickled, evaluated or compiled in the whole package."""
        for path in sorted((ROOT / "txrealtime").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    names = [node.func.id]
                forbidden = {"pickle", "marshal", "shelve", "dill", "eval", "exec", "compile", "__import__"}
                self.assertFalse(forbidden & set(names), path)
