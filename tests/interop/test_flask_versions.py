"""
The oldest release of Flask that the bridge supports: ``scripts/flasks`` has the others.
"""

from __future__ import annotations

import sys

from twisted.trial.unittest import TestCase

from tests.interop.clients import FETCHED
from tests.support import ROOT, requirePart, run, startProgram

OLDEST = "2.2.5"


class OldestTests(TestCase):
    timeout = 600

    async def test_oldest(self) -> None:
        folder = FETCHED / f"flask-{OLDEST}"
        if not folder.exists():
            FETCHED.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
            try:
                # Flask 2.2 does not say so, but it cannot be imported with Werkzeug 3.
                run(*command, f"flask=={OLDEST}", "werkzeug<3")
            except AssertionError as error:
                requirePart(False, f"Flask {OLDEST} cannot be fetched: {error}")
        code = "import flask, importlib.metadata as m; print('version', m.version('flask'), flask.__file__)"
        environment = {"PYTHONPATH": f"{folder}:{ROOT}"}
        found = startProgram(self, [sys.executable, "-c", code], environment=environment)
        await found.whenEnded()
        self.assertIn(f"version {OLDEST} {folder}", found.output)
        command = [
            sys.executable,
            "-m",
            "tests",
            "tests.test_flask",
            "tests.test_flask_facade",
            "tests.test_flask_order",
        ]
        program = startProgram(self, command, environment=environment)
        self.assertEqual(await program.whenEnded(timeout=400), 0, program.output)
        self.assertRegex(program.output, r"\n\d\d+ passed, 0 failed, 0 skipped\n$")
