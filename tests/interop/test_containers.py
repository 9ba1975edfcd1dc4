"""
The files for containers in docs/examples/container: their commands run here, as there is no container engine.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import metadata
from itertools import pairwise
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.clients import untilListening
from tests.support import ROOT, freePort, startProgram
from tests.test_docs import blocksOf
from txrealtime import Settings
from txrealtime.service.options import ServeOptions

FILES = ROOT / "docs" / "examples" / "container"


def commands(name: str) -> list[list[str]]:
    """Return the commands in a file, which are lists in the form of JSON."""
    lists = re.findall(r'^[^#\n]*?(?:CMD|command:) (\[".*"\])$', (FILES / name).read_text(), re.MULTILINE)
    return [json.loads(each) for each in lists]


class ContainerTests(TestCase):
    timeout = 300

    async def test_dockerfile(self) -> None:
        """The server starts, its health check tells whether it serves, and SIGTERM ends it in order."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for block in blocksOf("tutorial"):
            if block.name == "chat.py":
                (folder / block.name).write_text(block.text)
        health, serve = commands("Dockerfile")
        port = str(freePort())
        bin_ = Path(sys.executable).parent
        environment = {"PYTHONPATH": "", "PATH": f"{bin_}:/bin:/usr/bin"}

        def command(parts: list[str]) -> list[str]:
            named = [str(bin_ / parts[0]), *(part.replace("8000", port) for part in parts[1:])]
            return [sys.executable if parts[0] == "python" else named[0], *named[1:]]

        server = startProgram(self, command(serve), cwd=str(folder), environment=environment)
        await untilListening(server, int(port))
        for code in (0, 1):
            # A busy machine may keep the check waiting for longer than it waits: it comes again, as there.
            for _ in range(6):
                check = startProgram(self, command(health), environment=environment)
                if await check.whenEnded() == code:
                    break
            self.assertEqual(check.exitCode, code, check.output)
            if code == 0:
                self.assertEqual(await server.stop(), 0, server.output)

    def test_options(self) -> None:
        """The server knows all options, and the grace period covers the times of the drain."""
        for name, period in (
            ("compose.yaml", "stop_grace_period"),
            ("kubernetes.yaml", "GracePeriodSeconds"),
        ):
            [command] = commands(name)
            self.assertEqual(command[:2], ["txrealtime", "serve"])
            ServeOptions().parseOptions(command[2:])
            given = dict(pairwise(command))
            drain = (
                float(given.get("--drain", 0))
                + float(given.get("--drain-delay", 0))
                + Settings().drainTimeout
            )
            [grace] = re.findall(rf"{period}: (\d+)", (FILES / name).read_text())
            self.assertLess(drain, int(grace))

    def test_extras(self) -> None:
        """Whatever the files install exists."""
        wanted = (FILES / "requirements.txt").read_text()
        extras = set(metadata("txrealtime").get_all("Provides-Extra") or [])
        self.assertLessEqual(set(re.findall(r"[\w-]+", wanted.partition("[")[2])), extras)

    def test_everyFileIsShown(self) -> None:
        page = (ROOT / "docs" / "operate" / "containers.rst").read_text()
        for file in FILES.iterdir():
            self.assertIn(f"examples/container/{file.name}", page)
