"""
The checks that are programs of their own, as tests, so that each is reported and counted like any other.
"""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, run


class LintTests(SynchronousTestCase):
    """
    Ruff's settings are in pyproject.toml.
    """

    def test_format(self) -> None:
        run(sys.executable, "-m", "ruff", "format", "--check", cwd=ROOT)

    def test_rules(self) -> None:
        run(sys.executable, "-m", "ruff", "check", cwd=ROOT)


class TypeTests(SynchronousTestCase):
    """
    Mypy's settings are in pyproject.toml.
    """

    def test_types(self) -> None:
        run(sys.executable, "-m", "mypy", cwd=ROOT)
