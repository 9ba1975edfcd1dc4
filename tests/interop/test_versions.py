"""
Clients of all versions of Socket.IO since 1.4, against a server started by `twistd -n realtime --allow-eio3`.

Each test but the last is one client on one transport, and plays every step of its script: see
js/versions.cjs and py/versions.py. On each transport the client is frozen then, which the server must notice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    oldPython,
    python,
    requireJavaScriptClient,
    requirePythonClient,
)
from tests.support import Program, startProgram

# Short enough to be waited for, long enough for a client on a slow machine.
OPTIONS = ["--app", "tests.interop.app:server", "--ping-interval", "0.3", "--ping-timeout", "1.5"]
ALLOW = "--allow-eio3"

STEPS = [
    "heartbeat begins",
    "connect with query",
    "connect with auth",
    "refusal",
    "acks",
    "binary",
    "text",
    "namespaces",
    "disconnect by the server",
    "disconnect by the client",
    "events in order",
    "heartbeat",
]


def reports(client: Program) -> list[dict[str, Any]]:
    """Return the reports that a script has printed, one line of JSON for each."""
    return [json.loads(line) for line in client.lines if line.startswith("{")]


class _VersionTests:
    """One client, on one transport after the other."""

    timeout = 600
    steps = STEPS
    options = [ALLOW]

    def command(self, transport: str, format: str, url: str) -> Sequence[str]:
        """The client's script; where the client cannot be had, skips the test."""
        raise NotImplementedError

    async def scenario(
        self, transport: str, *steps: str, format: str = "binary", freezes: bool = False
    ) -> None:
        server = RealtimeServer(self, *OPTIONS, *self.options)
        command = self.command(transport, format, server.url)
        await server.start()
        client = startProgram(self, command)
        frozen = json.loads(await client.whenPrinted('"ask"', timeout=240))
        *passed, _ = reports(client)
        failed = "\n".join(f"{report['step']}: {report['error']}" for report in passed if not report["ok"])
        self.assertFalse(failed, f"{failed}\nThe server's log:\n{server.program.output[-3000:]}")
        self.assertEqual(sorted(report["step"] for report in passed), sorted([*self.steps, *steps]))
        if freezes:
            await self.freeze(client, frozen["id"], server)
        client.signal("KILL")
        await client.whenEnded()
        await server.stop()

    async def freeze(self, client: Program, id: str, server: RealtimeServer) -> None:
        """The server gives up a client that lives, but does not answer any more."""
        client.signal("STOP")
        await server.program.whenPrinted(f"{id} is gone: ping timeout")

    async def test_polling(self) -> None:
        await self.scenario("polling", freezes=True)

    async def test_webSocket(self) -> None:
        await self.scenario("websocket", freezes=True)

    async def test_upgrade(self) -> None:
        await self.scenario("upgrade")


class _JavaScriptTests(_VersionTests):
    package: str

    def command(self, transport: str, format: str, url: str) -> Sequence[str]:
        requireJavaScriptClient(self.package)
        return javaScript("versions.cjs", self.package, transport, format, url)

    async def test_upgrade(self) -> None:
        await self.scenario("upgrade", "messages during the upgrade")

    async def test_pollingInBase64(self) -> None:
        await self.scenario("polling", format="base64")

    async def test_webSocketInBase64(self) -> None:
        await self.scenario("websocket", format="base64")


class JavaScript14Tests(_JavaScriptTests, TestCase):
    """npm socket.io-client 1.4.8."""

    package = "socket.io-client-1.4"


class JavaScript17Tests(_JavaScriptTests, TestCase):
    """npm socket.io-client 1.7.4."""

    package = "socket.io-client-1.7"


class JavaScript20Tests(_JavaScriptTests, TestCase):
    """npm socket.io-client 2.0.4."""

    package = "socket.io-client-2.0"


class JavaScript25Tests(_JavaScriptTests, TestCase):
    """npm socket.io-client 2.5.0."""

    package = "socket.io-client-2.5"


class JavaScript3Tests(_JavaScriptTests, TestCase):
    """npm socket.io-client 3.1.3."""

    package = "socket.io-client-3"


class JavaScript4Tests(_JavaScriptTests, TestCase):
    """npm socket.io-client 4.8.4."""

    package = "socket.io-client-4"


class MsgpackTests(_VersionTests, TestCase):
    """npm socket.io-client 4.8.4 with socket.io-msgpack-parser 3.0.2."""

    steps = [*STEPS, "dates and undefined"]
    options = ["--parser", "msgpack"]

    def command(self, transport: str, format: str, url: str) -> Sequence[str]:
        requireJavaScriptClient("socket.io-client-4")
        requireJavaScriptClient("socket.io-msgpack-parser")
        return javaScript("versions.cjs", "socket.io-client-4", transport, "msgpack", url)

    async def test_upgrade(self) -> None:
        await self.scenario("upgrade", "messages during the upgrade")


class _PythonTests(_VersionTests):
    steps = [
        "connect with query",
        "refusal",
        "acks",
        "binary",
        "text",
        "namespaces",
        "disconnects",
        "heartbeat",
    ]

    def interpreter(self) -> str:
        raise NotImplementedError

    def command(self, transport: str, format: str, url: str) -> Sequence[str]:
        _, *script = python("versions.py", transport, url)
        return [self.interpreter(), *script]


class Python4Tests(_PythonTests, TestCase):
    """python-socketio 4.6.1."""

    def interpreter(self) -> str:
        return oldPython()


class Python5Tests(_PythonTests, TestCase):
    """The python-socketio of today."""

    def interpreter(self) -> str:
        requirePythonClient("socketio", "requests", "websocket")
        return sys.executable


class MeetingTests(TestCase):
    """
    All versions at once on one server, each on every transport that it has.
    """

    CLIENTS = [
        ("1.4", "binary"),
        ("1.7", "base64"),
        ("2.0", "base64"),
        ("2.5", "binary"),
        ("3", "base64"),
        ("4", "binary"),
    ]
    TRANSPORTS = ["polling", "websocket", "upgrade"]

    async def test_inOneRoom(self) -> None:
        """Each client of a room hears the text and the bytes of all, whatever version they are."""
        interpreters = [oldPython(), sys.executable]
        requirePythonClient("socketio", "requests", "websocket")
        server = RealtimeServer(self, *OPTIONS, ALLOW, "--ping-timeout", "20")
        commands = []
        for transport in self.TRANSPORTS:
            for version, format in self.CLIENTS:
                requireJavaScriptClient(f"socket.io-client-{version}")
                commands.append(
                    javaScript("versions.cjs", f"socket.io-client-{version}", transport, format, server.url)
                )
        for interpreter in interpreters:
            _, *script = python("versions.py", "upgrade", server.url)
            commands.append([interpreter, *script])

        names = sorted(f"client {number}" for number in range(len(commands)))
        await server.start()
        clients = [
            startProgram(self, [*command, name, str(len(names))])
            for name, command in zip(names, commands, strict=True)
        ]
        await gatherResults([client.whenEnded(150) for client in clients])
        for client in clients:
            self.assertEqual(reports(client)[0], {"heard": names}, client.output)
            self.assertEqual(client.exitCode, 0, client.output)
        await server.stop()
