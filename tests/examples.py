"""
Hypothesis, as all tests use it: they import it from here.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

__all__ = ["HealthCheck", "assume", "example", "given", "settings", "st"]

# The same examples each time where many people depend on the answer; new ones at each run elsewhere.
# How fast a machine is says nothing about the code.
_TIMELESS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("default", **_TIMELESS)
settings.register_profile("ci", derandomize=True, **_TIMELESS)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")
