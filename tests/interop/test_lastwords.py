"""
Last words: whatever ends a connection, both sides hear what was sent before, in order, and the end once.

The table says what each side hears.  Node's server, on which the same clients play the same rows, must agree,
but for the differences that the table names.
"""

from __future__ import annotations

import getpass
import json
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import websocket
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.clients import (
    NODE,
    RealtimeServer,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
    untilListening,
)
from tests.interop.test_examples import EXAMPLES, NGINX
from tests.support import ROOT, Program, freePort, requirePart, startProgram, withPorts

MAX_PAYLOAD = 100_000

CLIENTS = ("socket.io-client-4", "socket.io-client-2.5", "python-socketio")


class Row(NamedTuple):
    """
    The end of a connection, and what is heard of it.  The numbers are events sent before.

    :ivar end: see js/lastwords.cjs.
    :ivar transport: polling or websocket.
    :ivar javaScript: heard by clients in JavaScript.
    :ivar python: heard by those of python-socketio.
    :ivar server: heard by the server.
    :ivar onNode: what Node's server does: the ``same``, ``fewer`` if it loses events of the client, or
        ``other`` if it is not to be compared.
    """

    end: str
    transport: str
    javaScript: str
    python: str
    server: str
    onNode: str = "same"


FROM_SERVER = "0 1 2; io server disconnect"
FROM_SERVER_PYTHON = "0 1 2; server disconnect"
CLIENT_LEFT = "0 1 2; client namespace disconnect"
TOO_LARGE = "0 1 2; transport error"

TABLE = (
    Row("close", "polling", FROM_SERVER, FROM_SERVER_PYTHON, "server namespace disconnect"),
    Row("close", "websocket", FROM_SERVER, FROM_SERVER_PYTHON, "server namespace disconnect"),
    Row("leave", "polling", FROM_SERVER, FROM_SERVER_PYTHON, "server namespace disconnect"),
    Row("leave", "websocket", FROM_SERVER, FROM_SERVER_PYTHON, "server namespace disconnect"),
    Row("client closes", "polling", "io client disconnect", "client disconnect", CLIENT_LEFT, "fewer"),
    Row("client closes", "websocket", "io client disconnect", "client disconnect", CLIENT_LEFT, "fewer"),
    Row("violation", "polling", "transport close", "server disconnect", "0 1 2; forced close", "fewer"),
    Row("violation", "websocket", "transport close", "transport error", "0 1 2; forced close", "fewer"),
    # A JavaScript client closes on the 413, and so learns the status; on Node the end may overtake it.
    Row("too large", "polling", "transport error", "server disconnect", TOO_LARGE),
    Row("too large", "websocket", "transport close", "transport error", TOO_LARGE),
    Row("refused", "polling", "refused: members only", "refused: members only", ""),
    Row("refused", "websocket", "refused: members only", "refused: members only", ""),
    Row("flood", "polling", "transport error", "transport error", "slow consumer", "other"),
    Row("flood", "websocket", "transport close", "transport error", "slow consumer", "other"),
)

STOP = (
    # Node's server loses two of the three events.  It sends CLOSE, after which python-socketio's clients do
    # not come back.
    Row(
        "stop", "polling", "0 1 2; transport error", "0 1 2; transport error", "server shutting down", "other"
    ),
    Row("stop", "websocket", "0 1 2; transport close", "0 1 2; transport error", "server shutting down"),
)


def said(words: Sequence[str]) -> str:
    """Return what was heard as the table has it: the numbers of events, then the rest."""
    notes = [word[5:] for word in words if word.startswith("note ")]
    rest = [word.removeprefix("disconnect: ") for word in words if not word.startswith("note ")]
    # In this order: an event that comes behind the end is not heard in time.
    ordered = [*(f"note {note}" for note in notes), *words[len(notes) :]] == list(words)
    return "; ".join([*([" ".join(notes)] if notes else []), *rest]) if ordered else repr(words)


class LastWordsTests(TestCase):
    timeout = 400

    async def setUp(self) -> None:
        for package in ("socket.io", "socket.io-client-4", "socket.io-client-2.5"):
            requireJavaScriptClient(package)
        requirePythonClient("socketio", "requests", "websocket")
        # Time enough for slow clients on a slow machine.
        options = ["--allow-eio3", "--max-payload", str(MAX_PAYLOAD), "--drain-timeout", "90"]
        options += ["--trusted-proxy", "127.0.0.1"]
        self.server = RealtimeServer(self, "--app", "tests.interop.lastwords:server", *options)
        await self.server.start()

    async def startNode(self) -> tuple[Program, str]:
        """Start the same application on Node's server."""
        port = freePort()
        script = str(ROOT / "tests/interop/js/lastwords-server.cjs")
        node = startProgram(self, [str(NODE), script, str(port), str(MAX_PAYLOAD)])
        await node.whenPrinted("listening")
        return node, f"http://127.0.0.1:{port}"

    async def startNginx(self, port: int) -> str:
        """Start nginx, as documented, in front of a server, and return its URL."""
        requirePart(NGINX, "no nginx: apt install nginx-light")
        front = freePort()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        configuration = (EXAMPLES / "nginx.conf").read_text()
        (folder / "nginx.conf").write_text(withPorts(configuration, {8000: port, 8080: front}))
        command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        nginx = startProgram(self, [*command, "-g", f"user {getpass.getuser()};"])
        await untilListening(nginx, front)
        return f"http://127.0.0.1:{front}"

    # -- playing -----------------------------------------------------------------

    def start(self, client: str, url: str, slow: bool, name: str, rows: Sequence[Row]) -> Program:
        """Start a client's driver for some rows of the table."""
        cells = [f"{row.end}:{row.transport}" for row in rows]
        arguments = [url, "slow" if slow else "reading", *cells]
        if client == "python-socketio":
            command = python("lastwords.py", *arguments)
        else:
            command = javaScript("lastwords.cjs", client, *arguments)
        return startProgram(self, command, environment={"NAME": name})

    async def heardBy(self, driver: Program) -> dict[str, str]:
        """Return what the clients of a driver have heard, by cell."""
        await driver.whenEnded(150)
        line = next((line for line in driver.output.splitlines() if line.startswith("RESULT ")), None)
        self.assertIsNotNone(line, driver.output)
        heard: dict[str, list[str]] = json.loads(line[7:])
        return {cell: said(words) for cell, words in heard.items()}

    def heardByServer(self, server: Program, name: str, rows: Sequence[Row]) -> dict[str, str]:
        """Return what a server has heard from the clients of a driver, by cell."""
        heard: dict[str, list[str]] = {f"{row.end}:{row.transport}": [] for row in rows}
        for line in server.output.splitlines():
            if "HEARD " in line:
                client, what = json.loads(line.partition("HEARD ")[2])
                if client.startswith(name + ":"):
                    heard[client[len(name) + 1 :]].append(what)
        return {cell: said(words) for cell, words in heard.items()}

    async def assertTable(
        self,
        rows: Sequence[Row],
        client: str,
        heard: dict[str, str],
        told: Callable[[], dict[str, str]],
        onNode: bool,
    ) -> None:
        """
        Compare both sides of each row with the table, and show all that differ.

        :param told: returns what the server has heard, which may be later than a client ends.
        """
        deadline = reactor.seconds() + 60
        while wrong := self.differences(rows, client, heard, told(), onNode):
            if reactor.seconds() > deadline:
                break
            await deferLater(reactor, 0.1)
        self.assertEqual(wrong, [], f"{client} on {'Node' if onNode else 'this server'}")

    def differences(
        self, rows: Sequence[Row], client: str, heard: dict[str, str], server: dict[str, str], onNode: bool
    ) -> list[str]:
        """Return the rows of the table that differ from what both sides have heard."""
        isPython = client == "python-socketio"
        wrong = []
        for row in rows:
            cell = f"{row.end}:{row.transport}"
            expected = [row.python if isPython else row.javaScript, row.server]
            got = [heard[cell], server[cell]]
            if row.end == "refused":
                got[1] = ""  # this client is in / until its process ends
            elif row.end == "client closes" and isPython:
                # In this client, the end of the connection may overtake its DISCONNECT and its CLOSE.
                expected[1], got[1] = (text.partition("; ")[0] for text in (expected[1], got[1]))
                got[1] = "" if onNode else got[1]
                expected[1] = "" if onNode else expected[1]
            elif row.end == "too large" and row.transport == "polling" and not isPython:
                # Which side closes first is left to chance.
                got = [each.replace("transport close", "transport error") for each in got]
            if onNode and row.onNode == "fewer":
                expected[1], got[1] = (text.rpartition("; ")[2] for text in (expected[1], got[1]))
            if got != expected:
                wrong.append(f"{cell}: {got}, expected {expected}")
        return wrong

    async def play(self, server: Program, url: str, rows: Sequence[Row], slow: bool, onNode: bool) -> None:
        """Play the rows with all clients."""
        route = f"{url.rpartition(':')[2]}-{slow}"
        drivers = [self.start(client, url, slow, f"{client}-{route}", rows) for client in CLIENTS]
        heard = await gatherResults([Deferred.fromCoroutine(self.heardBy(driver)) for driver in drivers])
        for client, each in zip(CLIENTS, heard, strict=True):
            told = partial(self.heardByServer, server, f"{client}-{route}", rows)
            await self.assertTable(rows, client, each, told, onNode)

    # -- the table ---------------------------------------------------------------

    async def test_table(self) -> None:
        for slow in (False, True):
            await self.play(self.server.program, self.server.url, TABLE, slow, onNode=False)
        await self.server.stop()

    async def test_tableBehindNginx(self) -> None:
        url = await self.startNginx(self.server.port)
        # How much a slow client leaves unread is up to the proxy's buffers.
        rows = [row for row in TABLE if row.end != "flood"]
        for slow in (False, True):
            await self.play(self.server.program, url, rows, slow, onNode=False)
        await self.server.stop()

    async def test_tableOnNode(self) -> None:
        node, url = await self.startNode()
        rows = [row for row in TABLE if row.onNode != "other"]
        for slow in (False, True):
            await self.play(node, url, rows, slow, onNode=True)

    # -- the stop of the server ----------------------------------------------------

    async def playStop(self, server: Program, url: str, slow: bool, onNode: bool) -> None:
        """Stop a server while clients of all kinds are connected."""
        rows = [row for row in STOP if not onNode or row.onNode != "other"]
        drivers = [self.start(client, url, slow, f"{client}-{slow}", rows) for client in CLIENTS]
        for driver in drivers:
            await driver.whenPrinted("READY")
        stopper = startProgram(self, javaScript("lastwords-stop.cjs", url))
        heard = await gatherResults([Deferred.fromCoroutine(self.heardBy(driver)) for driver in drivers])
        for client, each in zip(CLIENTS, heard, strict=True):
            told = partial(self.heardByServer, server, f"{client}-{slow}", rows)
            await self.assertTable(rows, client, each, told, onNode)
        await stopper.whenEnded()

    async def test_stop(self) -> None:
        for slow in (False, True):
            await self.playStop(self.server.program, self.server.url, slow, onNode=False)
            self.assertEqual(await self.server.program.whenEnded(), 0, self.server.program.output)
            await self.server.start()

    async def test_stopBehindNginx(self) -> None:
        url = await self.startNginx(self.server.port)
        await self.playStop(self.server.program, url, False, onNode=False)
        self.assertEqual(await self.server.program.whenEnded(), 0, self.server.program.output)

    async def test_stopOnNode(self) -> None:
        node, url = await self.startNode()
        await self.playStop(node, url, False, onNode=True)

    async def test_stopWhileAClientSends(self) -> None:
        """
        A slow client that still sends gets all that was sent to it, and a close frame.

        To a process that is gone, what the client sends is answered by a reset, which destroys the rest.
        """
        heard, code = await deferToThread(readSlowly, self.server.url, 35)
        self.assertEqual((heard, code), (35, 1001))
        self.assertEqual(await self.server.program.whenEnded(), 0, self.server.program.output)


def readSlowly(url: str, count: int) -> tuple[int, int]:
    """Have a server send large events and stop, read them slowly and send small ones all the while."""
    client = websocket.create_connection(
        url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket&name=slow",
        sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 65536),),
        timeout=30,
    )
    client.send("40")
    client.send(f'42["burst and stop",{count}]')
    heard = 0
    while True:
        opcode, data = client.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return heard, int.from_bytes(data[:2], "big")
        heard += data.startswith(b'42["note"')
        time.sleep(0.05)
        client.send('42["note",1]')
