"""
Published applications for Flask-SocketIO on this server, beside the same on the real library.

``scripts/applications`` tries all; without ``APPLICATIONS=all``, those that install quickly.  Those that are
published as sources only are tried if ``SOURCES`` names a folder with them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.applications import LONG, SHORT, Published
from tests.interop.clients import FOLDER, untilListening
from tests.interop.environments import environmentOf
from tests.interop.sources import FROM_SOURCE
from tests.interop.visitors import socketio
from tests.support import ROOT, freePort, requirePart, startProgram

SOURCES = Path(os.environ.get("SOURCES", ""))

OURS = [str(FOLDER / "py" / "substitute"), str(ROOT)]
THEIRS = [str(FOLDER / "py" / "terminal")]
"""The front of PYTHONPATH with each library."""


class ApplicationTests(TestCase):
    timeout = 900

    def setUp(self) -> None:
        requirePart(socketio, "no python-socketio: pip install --group test")

    async def visited(self, application: Published, front: list[str]) -> dict[str, Any]:
        """Start an application, visit it, and end it by SIGINT."""
        name = application.environmentName or application.name
        bin = Path(environmentOf(name, *application.requirements, later=application.later)).parent
        port = freePort()
        folder = Path(self.mktemp()).resolve()
        if application.source:
            shutil.copytree(SOURCES / application.source.replace("/", "+"), folder)
        else:
            folder.mkdir()
        for name, text in application.files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text.format(port=port, folder=folder))
            (folder / name).chmod(0o755 if text.startswith("#!") else 0o644)
        environment = {"PYTHONPATH": os.pathsep.join([*front, str(folder)]), "HOME": str(folder)}
        environment |= {
            name: value.format(port=port, folder=folder) for name, value in application.environment
        }
        command = application.arguments(bin, port, folder)
        cwd = str(folder / application.below)
        program = startProgram(self, command, cwd=cwd, environment=environment)
        await untilListening(program, port, 120)
        try:
            seen: dict[str, Any] = await deferToThread(application.visit, f"http://127.0.0.1:{port}")
        except Exception:
            print(program.output)
            raise
        if front is OURS:
            program.signal("INT")
            await program.whenEnded()
            self.assertNotIn("Unhandled", program.output)
        else:
            program.signal("KILL")
            await program.whenEnded()
        return seen

    async def compare(self, application: Published) -> None:
        for tool in application.tools:
            requirePart(shutil.which(tool), f"no {tool}: apt install {tool}")
        ours = await self.visited(application, OURS)
        theirs = await self.visited(application, THEIRS)
        self.assertEqual(ours, theirs)


def add(application: Published) -> None:
    """Add the test of an application."""

    async def test(self: ApplicationTests) -> None:
        await self.compare(application)

    setattr(ApplicationTests, f"test_{application.name}", test)


for each in SHORT:
    add(each)
if os.environ.get("APPLICATIONS") == "all":
    for each in LONG:
        add(each)
if "SOURCES" in os.environ:
    for each in FROM_SOURCE:
        add(each)
