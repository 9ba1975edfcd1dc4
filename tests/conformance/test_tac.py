"""
tac/conformance.tac, started as its users start it.
"""

from __future__ import annotations

import http.client
import json

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from wsproto.extensions import PerMessageDeflate

from tests.conformance.wire import Wire
from tests.support import ROOT, TWISTD, freePort, startProgram


class ConformanceTacTests(TestCase):
    async def setUp(self) -> None:
        names = ("PORT", "EIO3_PORT", "ECHO_PORT", "CLIENT_PORT", "ENGINE_CLIENT_PORT")
        self.ports = {name: freePort() for name in names}
        command = [TWISTD, "-n", "--pidfile=", "-y", str(ROOT / "tac" / "conformance.tac")]
        environment = {name: str(port) for name, port in self.ports.items()}
        # From another folder: the file finds the tests by itself.
        program = startProgram(self, command, cwd="/", environment=environment)
        for port in self.ports.values():
            await program.whenPrinted(f"starting on {port}")

    def wireTo(self, name: str, path: str) -> Wire:
        wire = Wire(f"http://127.0.0.1:{self.ports[name]}{path}")
        self.addCleanup(wire.hangUp)
        return wire

    async def test_opensSessions(self) -> None:
        for name, path, pingInterval, maxPayload in (
            ("PORT", "/engine.io/", 300, 1_000_000),
            ("PORT", "/socket.io/", 300, 1_000_000),
            ("EIO3_PORT", "/engine.io/", 300, 1_000_000),
            ("CLIENT_PORT", "/socket.io/", 2000, 1_000_000),
            ("ENGINE_CLIENT_PORT", "/engine.io/", 500, 100),
        ):
            wire = self.wireTo(name, path)
            reply = await wire.request("GET", {"EIO": "4", "transport": "polling"})
            opening = json.loads(reply.text.partition("\x1e")[0][1:])
            self.assertEqual((opening["pingInterval"], opening["maxPayload"]), (pingInterval, maxPayload))

    async def test_onePortServesVersion3(self) -> None:
        for name, status in (("PORT", 400), ("EIO3_PORT", 200)):
            reply = await self.wireTo(name, "/engine.io/").request(
                "GET", {"EIO": "3", "transport": "polling"}
            )
            self.assertEqual(reply.status, status)

    async def test_echoesCompressedMessages(self) -> None:
        deflate = PerMessageDeflate()
        websocket = await self.wireTo("ECHO_PORT", "/").websocket({}, [deflate])
        self.assertTrue(deflate.enabled())
        for message in ("", "short", "long " * 100_000, b"", b"\x00\x01", b"\x00\x01" * 100_000):
            websocket.send(message)
            self.assertEqual(await websocket.receive(), message)

    async def test_headersOfTheRequestThatAsks(self) -> None:
        """``sendHeaders`` is about its own POST, also on a connection that has served others."""
        received = await deferToThread(askForHeaders, self.ports["ENGINE_CLIENT_PORT"])
        self.assertEqual([headers["x-number"] for headers in received], ["1", "2", "3"])


def askForHeaders(port: int) -> list[dict[str, str]]:
    """Send ``sendHeaders`` several times over one connection, each with another header."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    received = []

    def request(method: str, query: str, number: int = 0, body: str | None = None) -> str:
        headers = {"X-Number": str(number), "Content-Type": "text/plain"}
        connection.request(method, f"/engine.io/?EIO=4&transport=polling{query}", body, headers)
        return connection.getresponse().read().decode()

    opened, *_ = request("GET", "").split("\x1e")
    session = f"&sid={json.loads(opened[1:])['sid']}"
    for number in (1, 2, 3):
        request("POST", session, number, "4sendHeaders")
        while (answer := request("GET", session))[:2] != "4{":
            pass
        received.append(json.loads(answer[1:]))
    connection.close()
    return received
