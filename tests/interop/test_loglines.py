"""
The lines of the log that say what to change, each caused by a client of python-socketio.
"""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

from twisted.internet.threads import deferToThread

from tests.interop.test_operations import OperationsTestCase
from tests.interop.test_twistd import FREE
from tests.support import Program, requirePart

try:
    import socketio

    from tests.interop.py.orderly import Client
except ImportError:
    socketio = None

APPLICATION = """
import time
from txrealtime import Server

server = Server()

@server.on("echo")
def echo(socket, *args):
    return args

@server.on("unsendable")
def unsendable(socket):
    return {"when": object()}

@server.on("block")
def report(socket):
    time.sleep(4)
"""


class LineTests(OperationsTestCase):
    timeout = 300

    def setUp(self) -> None:
        super().setUp()
        (self.folder / "lines.py").write_text(APPLICATION)

    async def start(self, *options: str) -> tuple[Program, str]:
        program, [url] = await self.serve("--app", "lines:server", "--listen", FREE, *options)
        return program, url

    async def fail(self, url: str, **options: Any) -> None:  # type: ignore[override]
        """Have a client try to connect in vain."""
        requirePart(socketio, "no python-socketio: pip install python-socketio requests websocket-client")
        client = Client(reconnection=False)
        options = {"transports": ["websocket"], "wait_timeout": 30, **options}
        connecting = deferToThread(client.connect, url, **options)
        await self.assertFailure(connecting, socketio.exceptions.ConnectionError)

    async def talk(self, url: str, transport: str = "websocket", **options: Any) -> Any:
        """Connect a client that stays."""
        requirePart(socketio, "no python-socketio: pip install python-socketio requests websocket-client")
        client = Client(reconnection=False)
        await deferToThread(client.connect, url, transports=[transport], wait_timeout=30, **options)
        self.addCleanup(deferToThread, client.disconnect)
        return client

    async def test_refusals(self) -> None:
        """A foreign origin, and a transport that is not offered."""
        program, url = await self.start("--transport", "polling")
        # websocket-client sends an Origin of its own.
        foreign = {"Origin": "https://evil.example"}
        await self.fail(url, headers=foreign, transports=["polling"])
        line = await program.whenPrinted("refused 127.0.0.1: 403")
        self.assertIn("https://evil.example", line)
        self.assertIn("the setting origins", line)
        await self.fail(url)
        await program.whenPrinted("the setting transports (--transport)")

    async def test_full(self) -> None:
        """A client that is one too many, and the one that is there goes on."""
        program, url = await self.start("--max-connections", "1")
        client = await self.talk(url)
        await self.fail(url)
        await program.whenPrinted("raise maxConnections (--max-connections)")
        self.assertEqual(await deferToThread(client.call, "echo", "hello"), "hello")

    async def test_tooLarge(self) -> None:
        """A message that is too large is told alike over both transports."""
        program, url = await self.start("--max-payload", "50000")
        for number, transport in enumerate(("polling", "websocket"), 1):
            client = await self.talk(url, transport)
            client.emit("echo", "x" * 100_000)
            await self.until(
                lambda number=number: program.output.count("larger than maxPayload, 50000 bytes") == number,
                f"no line with {transport}",
            )

    async def test_events(self) -> None:
        """An event that nobody handles, once for its name; and an ack that cannot be sent."""
        program, url = await self.start()
        client = await self.talk(url)
        for _ in range(3):
            client.emit("ecko", "hello")
        client.emit("ekko")
        line = await program.whenPrinted("no handler for the event 'ecko'")
        self.assertIn("handlers are registered for 'block', 'echo', 'unsendable'", line)
        client.emit("unsendable", callback=lambda *args: None)
        line = await program.whenPrinted("cannot be sent as an ack")
        self.assertIn("the result of unsendable for the event 'unsendable'", line)
        self.assertEqual(await deferToThread(client.call, "echo", "hello"), "hello")
        self.assertEqual(program.output.count("no handler for the event 'ecko'"), 1)
        self.assertEqual(program.output.count("no handler for the event 'ekko'"), 1)

    async def test_trace(self) -> None:
        """Packets of one address, cut, and without the client's ``auth``."""
        program, url = await self.start("--trace-packets", "127.0.0.1,12")
        client = await self.talk(url, auth={"token": "secret"})
        await deferToThread(client.call, "echo", "long and private")
        await program.whenPrinted('websocket out MESSAGE 22 characters: 31["long and...')
        sent = await program.whenPrinted("websocket in MESSAGE 29 characters: ")
        self.assertTrue(sent.endswith('21["echo","l...'), sent)
        self.assertNotIn("secret", program.output)
        self.assertNotIn("private", program.output)

    async def test_blocked(self) -> None:
        """A handler that blocks the reactor has its name and stack in the log."""
        program, url = await self.start()
        client = await self.talk(url)
        client.emit("block")
        # On a busy machine, something before may have taken long enough for a line.
        line = await program.whenPrinted("by report, the handler of 'block' in /")
        self.assertIn("the reactor is blocked for", line)
        await program.whenPrinted("time.sleep(4)")
        await program.whenPrinted("the reactor turns again after")

    async def test_json(self) -> None:
        """Each line is one object with the same keys, in their order; nothing below the level is there."""
        program, url = await self.start("--log-format", "json", "--log-level", "info")
        await self.fail(url, headers={"Origin": "https://evil.example"}, transports=["polling"])
        await program.whenPrinted("refused 127.0.0.1")
        program.signal("TERM")
        await program.whenEnded()
        lines = [json.loads(line) for line in program.output.splitlines()]
        for line in lines:
            self.assertEqual(list(line)[:5], ["time", "level", "system", "message", "values"])
            self.assertIn(line["level"], ("info", "warn", "error", "critical"))
        [refused] = [line for line in lines if line["message"].startswith("refused ")]
        self.assertEqual(refused["system"], "txrealtime.engineio.refusals")
        self.assertEqual((refused["values"]["address"], refused["values"]["status"]), ("127.0.0.1", 403))

    async def test_flood(self) -> None:
        """More than a thousand refusals of a real server within a minute are a few lines."""
        program, url = await self.start()
        await deferToThread(self.flood, url, 1200)
        program.signal("TERM")
        await program.whenEnded()
        lines = [line for line in program.output.splitlines() if "refused 127.0.0.1" in line]
        self.assertEqual(len(lines), 12, lines)
        self.assertIn("line 1000 of this kind within a minute", lines[-1])

    def flood(self, url: str, count: int) -> None:
        """Send requests that are refused, over one connection."""
        host = re.search("//(.*?)/", url)
        assert host is not None
        connection = http.client.HTTPConnection(host[1])
        for _ in range(count):
            connection.request("GET", "/socket.io/?EIO=9&transport=polling")
            connection.getresponse().read()
        connection.close()
