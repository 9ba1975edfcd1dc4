"""
Virtual environments for what does not install beside the rest, made where they are missing, and kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Final

from tests.interop.clients import FETCHED
from tests.support import ROOT, alone, requirePart, run

OTHERS: Final = ("others", "eventlet>=0.40", "flask-socketio>=5.7", "gevent>=24", "waitress>=3")
"""The environment with other servers, as the arguments of :func:`environmentOf`."""

BUILD: Final = FETCHED / "build"
"""Stands for the folders of this project that pip builds in: two at a time would disturb each other."""


def environmentOf(name: str, *requirements: str, later: Sequence[str] = ()) -> str:
    """
    Return the Python of an environment with this project, editable, and other packages.

    :param later: packages to install after this project, against what others ask for.

    Where the environment cannot be made, the test is skipped (or fails, see `requirePart`).
    """
    folder = FETCHED / name
    executable = str(folder / "bin" / "python")
    ready = folder / "ready"
    wanted = "\n".join([*requirements, *later])
    with alone(folder):
        if not ready.exists() or ready.read_text() != wanted:
            install = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            try:
                run(sys.executable, "-m", "venv", "--clear", folder)
                run(*install, *requirements)
                # Afterwards: an application's own versions come first.
                with alone(BUILD):
                    run(*install, "--editable", f"{ROOT}[flask]")
                if later:
                    run(*install, *later)
            except AssertionError as error:
                requirePart(False, f"{name} cannot be installed: {error}")
            ready.write_text(wanted)
    return executable


def packagesFor(executable: str, name: str, extras: str) -> str:
    """
    Return a folder of packages for another Python, with what this project needs, and without itself.

    :param extras: of this project, separated by commas.
    """
    folder = FETCHED / name
    ready = folder / "ready"
    with alone(folder):
        if not ready.exists():
            pip = [sys.executable, "-m", "pip", "--python", executable, "install", "--quiet"]
            try:
                with alone(BUILD):
                    run(*pip, "--upgrade", "--target", folder, f"{ROOT}[{extras}]")
            except AssertionError as error:
                requirePart(False, f"packages for {executable} cannot be installed: {error}")
            shutil.rmtree(folder / "txrealtime")
            ready.touch()
    return str(folder)
