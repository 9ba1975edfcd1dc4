"""
The client against Node's socket.io, python-socketio and our own server, on polling, on WebSocket and with an
upgrade.  The cases are in :mod:`tests.interop.connectioncases` and :mod:`tests.interop.eventcases`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.interop import connectioncases, eventcases
from tests.interop.clients import (
    NODE,
    RealtimeServer,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
    untilListening,
)
from tests.interop.visits import WAYS, Case, Visit, events, notice, wait, within
from tests.support import freePort, requirePart, startProgram


async def heartbeats(visit: Visit) -> None:
    """The server pings after 2 s, and ends a session without an answer 10 s later: beside all other cases."""
    client = await visit.connected()
    id = client.id
    await wait(14)
    visit.equal(client.id, id)


class ServerCases:
    """All cases against one server on one way; each failure is told."""

    timeout = 300
    server: ClassVar[str]

    async def start(self: Any, *arguments: str) -> str:
        """Start the server; return its URL."""
        if self.server == "ours":
            name = "recovering" if "recovery" in arguments else "server"
            own = RealtimeServer(self, "--app", f"tests.interop.clientapp:{name}")
            await own.start()
            return own.url
        port = freePort()
        if self.server == "node":
            requireJavaScriptClient("socket.io")
            requirePart(NODE, "no node: apt install nodejs")
            command = javaScript("clientserver.cjs", str(port), *arguments)
        else:
            requirePythonClient("socketio", "aiohttp")
            command = python("clientserver.py", str(port))
        self.program = startProgram(self, command)
        await untilListening(self.program, port)
        return f"http://127.0.0.1:{port}"

    async def play(self: Any, way: str) -> None:
        url = await self.start()
        failures: list[str] = []

        async def run(each: Case) -> None:
            visit = Visit(self, self.server, url, WAYS[way])
            try:
                await each(visit)
            except Exception as error:
                failures.append(f"{each.__name__}: {type(error).__name__} {error}")
            finally:
                await visit.leave()

        beating = Deferred.fromCoroutine(run(heartbeats))
        for each in (*connectioncases.cases, *eventcases.cases):
            await run(each)
        await beating
        self.assertFalse(failures, "\n".join(failures))

    async def test_polling(self) -> None:
        await self.play("polling")

    async def test_websocket(self) -> None:
        await self.play("websocket")

    async def test_upgrade(self) -> None:
        await self.play("upgrade")


class RecoveryCases(ServerCases):
    """The cases of a server that lets its clients recover, which python-socketio's cannot."""

    async def test_recovery(self: Any) -> None:
        """The same id after a cut, the events that were missed, and never an offset."""
        url = await self.start("json", "recovery")
        for transports in WAYS.values():
            visit = Visit(self, self.server, url, transports)
            try:
                await self.recovers(visit)
            finally:
                await visit.leave()

    async def recovers(self: Any, visit: Visit) -> None:
        client = visit.client(start=False, reconnectionDelay=0.5)
        log: list[Any] = []
        client.on("back")(lambda *args: log.append(args))
        client.startService()
        await within(client.whenConnected())
        first = client.id
        client.emit("back", 1)
        client.emit("back", "the end")
        await within(client.call("echo"))
        self.assertFalse(client.recovered)
        gone = notice(client.onDisconnect)
        # The server handles both before it closes: the event is missed.
        client.emit("cut then back", "missed")
        await gone
        await within(client.whenConnected())
        self.assertEqual((client.id, client.recovered), (first, True))
        await within(client.call("echo"))
        self.assertEqual(log, [(1,), ("the end",), ("missed",)])


class NodeTests(RecoveryCases, TestCase):
    server = "node"

    async def test_msgpack(self) -> None:
        """The parser that Node's users have as socket.io-msgpack-parser."""
        requirePythonClient("msgpack")
        from txrealtime.socketio.msgpack import MsgpackParser

        url = await self.start("msgpack")
        for transports in WAYS.values():
            visit = Visit(self, self.server, url, transports)
            try:
                client = await visit.connected(parser=MsgpackParser())
                self.assertEqual(await within(client.call("echo", {"a": b"b"}, 1.5)), ({"a": b"b"}, 1.5))
                client.on("ask")(lambda *args: args)
                answer = events(client, "answer", 1)
                client.emit("question", b"x", None)
                self.assertEqual(await answer, [(b"x", None)])
            finally:
                await visit.leave()


class PythonTests(ServerCases, TestCase):
    server = "python"


class OwnTests(RecoveryCases, TestCase):
    server = "ours"
