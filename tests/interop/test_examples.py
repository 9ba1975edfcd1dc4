"""
The programs of docs/examples, each run as its docstring says and visited by a real client.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    play,
    requireJavaScriptClient,
    untilListening,
)
from tests.interop.test_clients import STEPS
from tests.support import ROOT, TWISTD, Program, freePort, requirePart, startProgram, withPorts

EXAMPLES = ROOT / "docs" / "examples"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


class ExampleTests(TestCase):
    """
    Examples with a page at / and the event `say`, which is acknowledged and reaches everyone as `said`.
    """

    def setUp(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        self.port = freePort()
        # The examples name the port that their docstrings speak of.
        self.folder = Path(self.mktemp())
        shutil.copytree(EXAMPLES, self.folder)
        for file in self.folder.glob("*.py"):
            file.write_text(file.read_text().replace("8000", str(self.port)))

    def start(self, *command: str) -> Program:
        return startProgram(self, command, cwd=str(self.folder), environment={"PYTHONPATH": str(ROOT)})

    async def visited(self, program: Program, *path: str) -> list[str]:
        """Return the client's messages; AssertionError if anything else failed."""
        await untilListening(program, self.port)
        url = f"http://127.0.0.1:{self.port}"
        client = startProgram(self, javaScript("visit.cjs", url, *path))
        self.assertEqual(await client.whenEnded(), 0, client.output)
        report = json.loads(client.output)
        self.assertEqual(report["page"], (EXAMPLES / "page.html").read_text())
        self.assertEqual((report["transport"], report["answer"]), ("websocket", ["delivered"]))
        await program.stop()
        # Not the exit code: after a clean stop, `twistd -y` ends itself by the signal it got.
        self.assertIn("Main loop terminated.", program.output)
        self.assertNotIn("Traceback", program.output)
        return report["heard"]

    async def test_embed(self) -> None:
        program = self.start(TWISTD, "-n", "--pidfile=", "-y", "embed.py")
        self.assertEqual(await self.visited(program), ["Größe"])

    async def test_klein(self) -> None:
        program = self.start(sys.executable, "klein_app.py")
        self.assertEqual(await self.visited(program), ["Größe"])

    async def test_flaskByWSGI(self) -> None:
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        options = ["--listen", listen, "--app", "flask_wsgi:realtime", "--wsgi", "flask_wsgi:app"]
        program = self.start(TWISTD, "-n", "--pidfile=", "realtime", *options)
        self.assertEqual(await self.visited(program, "/announce"), ["Größe", "posted"])


class NginxTests(TestCase):
    """
    docs/examples/nginx.conf in front of the application under test.
    """

    async def test_scenario(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        requirePart(NGINX, "no nginx: apt install nginx-light")
        options = ["--trusted-proxy", "127.0.0.1", "--ping-interval", "0.3", "--max-payload", "5000000"]
        server = RealtimeServer(self, "--app", "tests.interop.app:server", *options)
        await server.start()

        port = freePort()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        configuration = (EXAMPLES / "nginx.conf").read_text()
        (folder / "nginx.conf").write_text(withPorts(configuration, {8000: server.port, 8080: port}))
        # Started by root, nginx would take a user that cannot enter this folder.
        command = [NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        nginx = startProgram(self, [*command, "-g", f"user {getpass.getuser()};"])
        await untilListening(nginx, port)

        scenario = javaScript("scenario.cjs", "socket.io-client-4", "upgrade", f"http://127.0.0.1:{port}")
        passed = await play(self, scenario, server)
        self.assertEqual(sorted(passed), sorted([*STEPS, "heartbeat", "messages during the upgrade"]))
        self.assertEqual(await nginx.stop(), 0, nginx.output)
        await server.stop()
