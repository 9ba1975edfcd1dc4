"""
`python -m tests [NAME ...]`: trial over all tests, or over those named; the last line is the count.
"""

from __future__ import annotations

import faulthandler
import sys

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

HUNG = 35 * 60
"Seconds after which a run that has not ended shows where it stands, and ends."


def main(names: list[str]) -> bool:
    """
    Run the tests, print the report and the count, and tell whether all passed.
    """
    faulthandler.dump_traceback_later(HUNG, exit=True)
    suite = TestLoader().loadByNames(names or ["tests"], recurse=True)
    result = TrialRunner(TreeReporter, workingDirectory="_trial_temp", logfile="test.log").run(suite)
    # A test marked todo passes by failing as it foretold, and fails by passing.
    passed = result.successes + len(result.expectedFailures)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"{passed} passed, {failed} failed, {len(result.skips)} skipped", flush=True)
    return failed == 0


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
