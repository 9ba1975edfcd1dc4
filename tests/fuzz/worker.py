"""
`python -m tests.fuzz.worker TARGET [libFuzzer's arguments]`: fuzzes one target, by Atheris.

This is the only module that imports it. It takes over the process, and ends it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import atheris

import tests


def target(name: str) -> Callable[[bytes], None]:
    """The target of a name, in code that tells the fuzzer where it has been."""
    # The package of the tests has imported ours, before it could be instrumented.
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "txrealtime"]:
        del sys.modules[loaded]
    with atheris.instrument_imports(include=["txrealtime"], enable_loader_override=False):
        importlib.reload(tests)
        from tests.fuzz.targets import TARGETS
    return TARGETS[name]


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    atheris.Setup([sys.argv[0], *arguments], target(name))
    atheris.Fuzz()
