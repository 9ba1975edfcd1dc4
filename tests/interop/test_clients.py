"""
Unmodified clients against a server started by `twistd -n realtime`.

Each test is one client on one transport, and plays every step of its script: see js/scenario.cjs and
py/scenario.py for what a step asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import TestCase

from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    play,
    python,
    requireJavaScriptClient,
    requirePythonClient,
)

STEPS = [
    "connect with auth",
    "refusal with data",
    "ack from the server",
    "ack from the client",
    "binary both ways",
    "1 MB each way",
    "namespaces",
    "rooms",
    "broadcast",
    "text",
    "1000 events in order",
    "disconnect by the server",
    "disconnect by the client",
    "reconnect after a restart",
]


class _ClientTests:
    """One client, on each transport."""

    timeout = 300
    steps = STEPS

    options: Sequence[str] = ()
    "Further options of the server."

    def command(self, transport: str, url: str) -> Sequence[str]:
        """The client's script; where the client cannot be had, skips the test."""
        raise NotImplementedError

    async def scenario(self, transport: str, *steps: str) -> None:
        # Pings fall among everything else; 1 MB in base64 is more than the default of --max-payload.
        options = [
            "--ping-interval",
            "0.3",
            "--ping-timeout",
            "10",
            "--max-payload",
            "5000000",
            *self.options,
        ]
        server = RealtimeServer(self, "--app", "tests.interop.app:server", *options)
        command = self.command(transport, server.url)
        await server.start()
        passed = await play(self, command, server)
        self.assertEqual(sorted(passed), sorted([*self.steps, *steps]))
        await server.stop()

    async def test_polling(self) -> None:
        await self.scenario("polling")

    async def test_webSocket(self) -> None:
        await self.scenario("websocket")

    async def test_upgrade(self) -> None:
        await self.scenario("upgrade")


class _JavaScriptTests(_ClientTests):
    package: str

    steps = [*STEPS, "heartbeat"]

    def command(self, transport: str, url: str) -> Sequence[str]:
        requireJavaScriptClient(self.package)
        return javaScript("scenario.cjs", self.package, transport, url)

    async def test_upgrade(self) -> None:
        # The Python clients upgrade before they join a namespace, so there is nothing to send meanwhile.
        await self.scenario("upgrade", "messages during the upgrade")


class JavaScript4Tests(_JavaScriptTests, TestCase):
    """npm socket.io-client 4.8.4."""

    package = "socket.io-client-4"


class JavaScript3Tests(_JavaScriptTests, TestCase):
    """npm socket.io-client 3.1.3."""

    package = "socket.io-client-3"


class _PythonTests(_ClientTests):
    client: str
    needs: Sequence[str]

    def command(self, transport: str, url: str) -> Sequence[str]:
        requirePythonClient("socketio", *self.needs)
        return python("scenario.py", self.client, transport, url)


class PythonClientTests(_PythonTests, TestCase):
    """python-socketio's Client."""

    client = "Client"
    needs = ["requests", "websocket"]


class PythonAsyncClientTests(_PythonTests, TestCase):
    """python-socketio's AsyncClient."""

    client = "AsyncClient"
    needs = ["aiohttp"]


class _LongWay:
    """To a server that has everything read by Autobahn and twisted.web."""

    options = ("--no-short-ways",)


class JavaScript4LongWayTests(_LongWay, JavaScript4Tests):
    pass


class JavaScript3LongWayTests(_LongWay, JavaScript3Tests):
    pass


class PythonClientLongWayTests(_LongWay, PythonClientTests):
    pass


class PythonAsyncClientLongWayTests(_LongWay, PythonAsyncClientTests):
    pass
