"""
A Flask application that another WSGI server serves, with python-socketio's clients: long polling only.
"""

from __future__ import annotations

import queue
import sys
from importlib.util import find_spec
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.clients import FOLDER, untilListening
from tests.interop.environments import OTHERS, environmentOf
from tests.interop.visitors import Visitor, requests, socketio
from tests.support import ROOT, Program, freePort, requirePart, startProgram

APP = str(FOLDER / "py" / "flask_hosted.py")


def visit(url: str) -> dict[str, Any]:
    """Visit the application by two clients; call this in a thread."""
    one = Visitor({"riddle": lambda number: number * 6}).connect(
        url, transport="polling", auth={"name": "ann"}
    )
    # As most clients do, this one would move to a WebSocket that it is offered.
    two = Visitor()
    two._came["/"] = queue.Queue()
    two.client.on("*", two._listener("/"))
    two.client.connect(url, wait_timeout=30, retry=False)
    said = {
        "welcome": one.next(),
        "transport": two.client.transport(),
        "echo": one.call("echo", "text", b"bytes", {"key": "ä"}),
        "ask": one.call("ask"),
        "long": len(two.call("echo", "x" * 200_000)),
        "page": requests.get(url, timeout=30).text,
        "news": (one.next(), one.next(), two.next(), two.next()),
    }
    base = f"{url}/socket.io/?EIO=4&transport="
    refused = requests.get(f"{base}websocket", timeout=30, headers={"Upgrade": "websocket"})
    said["websocket"] = refused.status_code
    said["unknown"] = requests.get(f"{base}polling&sid=unknown", timeout=30).json()
    said["origin"] = requests.get(
        f"{base}polling", timeout=30, headers={"Origin": "http://a.example"}
    ).status_code
    one.close()
    two.close()
    return said


EXPECTED = {
    "welcome": ("welcome", {"name": "ann"}),
    "transport": "polling",
    "echo": ("text", b"bytes", {"key": "ä"}),
    "ask": 42,
    "long": 200_000,
    "page": "a page",
    "news": (("riddle", 7), ("news", "from a view"), ("welcome",), ("news", "from a view")),
    "websocket": 501,
    "unknown": {"code": 1, "message": "Session ID unknown"},
    "origin": 403,
}


class HostedTests(TestCase):
    timeout = 600

    def setUp(self) -> None:
        requirePart(socketio, "no python-socketio: pip install --group test")
        self.port = freePort()
        self.url = f"http://127.0.0.1:{self.port}"

    async def served(self, *command: str) -> Program:
        environment = {"PYTHONPATH": f"{ROOT}:{FOLDER / 'py'}"}
        program = startProgram(self, list(command), environment=environment)
        await untilListening(program, self.port)
        return program

    async def play(self, program: Program) -> None:
        """Visit the application; all is as with its own server, but by polling, which the log says."""
        self.assertEqual(await deferToThread(visit, self.url), EXPECTED)
        # Not by lines: two threads may print both, and then both ends of line.
        while program.output.count("left: client disconnect") < 2:
            await deferLater(reactor, 0.05)
        self.assertEqual(program.output.count("has long polling only"), 1, program.output)
        self.assertNotIn("Traceback", program.output)

    async def test_werkzeug(self) -> None:
        await self.play(await self.served(sys.executable, APP, "werkzeug", str(self.port)))

    async def test_waitress(self) -> None:
        executable = environmentOf(*OTHERS)
        await self.play(await self.served(executable, APP, "waitress", str(self.port)))

    async def test_gevent(self) -> None:
        """In a process that gevent has patched, the reactor runs in a greenlet."""
        executable = environmentOf(*OTHERS)
        await self.play(await self.served(executable, APP, "gevent", str(self.port)))

    async def gunicorn(self, *options: str) -> Program:
        requirePart(find_spec("gunicorn"), "no gunicorn: pip install --group test")
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "-b", f"127.0.0.1:{self.port}"]
        return await self.served(*command, *options, "flask_hosted:app")

    async def test_gunicorn(self) -> None:
        """A worker with threads, also of an application that the master has loaded; SIGTERM ends it well."""
        program = await self.gunicorn("--threads", "8", "--preload")
        await self.play(program)
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0, program.output)

    async def refused(self, program: Program, reason: str, processes: int = 1) -> None:
        """Ask for a session; the answer and the log tell the reason, once for each process."""
        for _ in range(2):
            answer = await deferToThread(
                requests.get, f"{self.url}/socket.io/?EIO=4&transport=polling", timeout=30
            )
            self.assertEqual(answer.status_code, 501)
            self.assertIn(reason, answer.text)
        await program.whenPrinted(reason)
        self.assertIn(program.output.count(reason), range(1, processes + 1), program.output)

    async def test_refused(self) -> None:
        """Servers that cannot: several processes, one request at a time, gevent without its patches."""
        await self.refused(await self.gunicorn("-w", "2", "--threads", "8"), "several processes", 2)
        oneByOne = "handles one request at a time"
        self.setUp()
        await self.refused(await self.served(sys.executable, APP, "one by one", str(self.port)), oneByOne)
        self.setUp()
        executable = environmentOf(*OTHERS)
        await self.refused(await self.served(executable, APP, "gevent unpatched", str(self.port)), oneByOne)
