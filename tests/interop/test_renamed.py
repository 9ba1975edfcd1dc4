"""
A client of a server whose libraries have renamed their private names.
"""

from __future__ import annotations

import sys

from twisted.trial.unittest import TestCase

from tests.interop.clients import RealtimeServer, play, python, requirePythonClient
from tests.support import ROOT, requirePart

try:
    import txrealtime.reactor
except ImportError:
    txrealtime = None  # type: ignore[assignment]


class RenamedTests(TestCase):
    """Each test plays every step of py/scenario.py, as tests/interop/test_clients.py does."""

    timeout = 300

    async def scenario(self, transport: str, *options: str) -> str:
        """Play a client, and return the server's log."""
        requirePythonClient("socketio", "requests", "websocket")
        requirePart(txrealtime, "epoll is Linux's")
        options = ("--app", "tests.interop.app:server", "--max-payload", "5000000", *options)
        server = RealtimeServer(self, *options)
        server._command[:1] = [sys.executable, str(ROOT / "tests" / "renamed.py"), "--reactor=quickepoll"]
        await server.start()
        await play(self, python("scenario.py", "Client", transport, server.url), server)
        await server.stop()
        return server.program.output

    def assertTold(self, log: str, *names: str) -> None:
        """Assert that the log has one line about each name."""
        for name in names:
            lines = [line for line in log.splitlines() if "any more" in line and name in line.split()]
            self.assertEqual(len(lines), 1, (name, log))

    async def test_webSocket(self) -> None:
        log = await self.scenario("websocket")
        self.assertTold(log, "_tempDataBuffer", "_dataReceived", "_poller", "_logger")
        self.assertTold(log, "c_make_encoder", "scan_once", "_GenericHTTPChannelProtocol")

    async def test_webSocketByAutobahn(self) -> None:
        """With compression switched on, Autobahn reads all opening handshakes."""
        log = await self.scenario("websocket", "--per-message-deflate")
        self.assertTold(log, "current_frame")

    async def test_polling(self) -> None:
        log = await self.scenario("polling")
        self.assertTold(log, "_tempDataBuffer", "_poller", "c_make_encoder")

    async def test_upgrade(self) -> None:
        await self.scenario("upgrade")

    async def test_pollingByTwistedWeb(self) -> None:
        log = await self.scenario("polling", "--no-short-ways")
        self.assertTold(log, "_path", "_handlingRequest")
