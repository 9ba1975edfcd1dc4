"""
Flask-SocketIO's own test suite, run against txrealtime.flask by changing its import.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.clients import FETCHED
from tests.support import ROOT, requirePart, run, startProgram

VERSION = "5.7.0"

EXPECTED: dict[str, str] = {}
"The tests that fail, and why; everything else that they look at has tests of our own in tests/test_flask.py."


def suite() -> str:
    """
    Return the text of test_socketio.py from the source archive, which is fetched once.
    """
    archive = FETCHED / f"flask_socketio-{VERSION}.tar.gz"
    if not archive.exists():
        FETCHED.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        try:
            run(*command, "--dest", FETCHED, f"flask-socketio=={VERSION}")
        except AssertionError as error:
            requirePart(False, f"the source of Flask-SocketIO cannot be fetched: {error}")
    with tarfile.open(archive) as files:
        return files.extractfile(f"flask_socketio-{VERSION}/test_socketio.py").read().decode()


class SuiteTests(TestCase):
    async def test_suite(self) -> None:
        """
        Exactly the listed tests fail: a test that passes must leave the list.
        """
        theirs, ours = r"^from flask_socketio import", "from txrealtime.flask import"
        text, count = re.subn(theirs, ours, suite(), flags=re.M)
        self.assertEqual(count, 1)
        self.assertNotIn("flask_socketio", text)
        script = Path(self.mktemp()) / "test_socketio.py"
        script.parent.mkdir()
        script.write_text(text, "utf-8")
        command = [sys.executable, "-m", "pytest", "-rA", "--tb=short", "-p", "no:cacheprovider", str(script)]
        program = startProgram(
            self, command, environment={"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        )
        await program.whenEnded(timeout=240)
        reports = re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\w+)", program.output, re.M)
        outcomes = {name: outcome for outcome, name in reports}
        self.assertEqual(len(outcomes), text.count("    def test_"), program.output)
        failed = {name for name, outcome in outcomes.items() if outcome != "PASSED"}
        self.assertEqual(failed, set(EXPECTED), program.output)
