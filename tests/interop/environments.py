"""
Virtual environments for what does not install beside the rest, made where they are missing, and kept.
"""

from __future__ import annotations

import sys

from tests.interop.clients import FETCHED
from tests.support import ROOT, requirePart, run


def environmentOf(name: str, *requirements: str) -> str:
    """
    Return the Python of an environment with this project, editable, and other packages.

    Where the environment cannot be made, the test is skipped (or fails, see `requirePart`).
    """
    folder = FETCHED / name
    executable = str(folder / "bin" / "python")
    ready = folder / "ready"
    wanted = "\n".join(requirements)
    if not ready.exists() or ready.read_text() != wanted:
        install = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            run(sys.executable, "-m", "venv", "--clear", folder)
            run(*install, *requirements)
            # Afterwards: an application's own versions come first.
            run(*install, "--editable", f"{ROOT}[flask]")
        except AssertionError as error:
            requirePart(False, f"{name} cannot be installed: {error}")
        ready.write_text(wanted)
    return executable
