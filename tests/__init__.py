"""
The tests, run by trial.
"""

from twisted.trial import util

from txrealtime.logs import repeats

# A test counts the failures that it causes; tests/test_logs.py has a Repeats of its own.
repeats.window = 0.0

# Seconds for a test that names none.  Some tests wait for an environment that another process makes.
util.DEFAULT_TIMEOUT_DURATION = 300.0
