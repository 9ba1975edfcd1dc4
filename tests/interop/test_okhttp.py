"""
OkHttp, the WebSocket of Socket.IO's clients for Java and Android: java/OkHttp.java against the real server.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.interop.clients import FOLDER, RealtimeServer
from tests.support import Program, requirePart, startProgram

JAVA = shutil.which("java")
JARS = [Path("/usr/share/java/okhttp.jar"), Path("/usr/share/java/okio.jar")]


class OkHttpTests(TestCase):
    timeout = 300

    async def setUp(self) -> None:
        requirePart(JAVA and shutil.which("javac"), "no java: apt install default-jdk-headless")
        requirePart(all(jar.exists() for jar in JARS), "no OkHttp: apt install libokhttp-java")
        self.server = RealtimeServer(self, "--app", "tests.interop.lastwords:server")
        await self.server.start()

    async def connect(self) -> Program:
        """Start a client, and wait until it is in the namespace."""
        source = str(FOLDER / "java" / "OkHttp.java")
        path = ":".join(map(str, JARS))
        client = startProgram(
            self, [str(JAVA), "-cp", path, source, self.server.url + "/socket.io/?name=okhttp&"]
        )
        await client.whenPrinted("message 40")
        return client

    async def test_stop(self) -> None:
        """A client hears of a stop at once, and not by its heartbeat, after 45 seconds."""
        client = await self.connect()
        began = reactor.seconds()
        await self.server.stop()
        await client.whenPrinted("end: ", timeout=40)
        self.assertLess(reactor.seconds() - began, 40)
        self.assertIn("server shutting down", self.server.program.output)
