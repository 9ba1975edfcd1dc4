"""
The tests, run by trial.
"""

from txrealtime.logs import repeats

# A test counts the failures that it causes; tests/test_logs.py has a Repeats of its own.
repeats.window = 0.0
