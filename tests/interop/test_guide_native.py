"""
The programs of the native guide: a site's session, uploads, and asyncio's libraries in handlers.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.clients import FOLDER, NODE, requireJavaScriptClient, requirePythonClient, untilListening
from tests.interop.visitors import GUIDE, GuideTestCase
from tests.support import TXREALTIME, Program, freePort, startProgram
from txrealtime.client import Client


class SessionTests(GuideTestCase):
    def test_session(self) -> None:
        """Socket.IO knows the user of a login at the site, until the session ends."""
        self.serve("session")
        self.assertIn("failed to connect", self.refused())
        browser = self.browser()
        wrong = browser.post(f"{self.url}/login", {"name": "ada", "password": "x"})
        self.assertEqual(wrong.status_code, 403)
        self.assertIn("failed to connect", self.refused(http=browser))
        self.assertEqual(
            browser.post(f"{self.url}/login", {"name": "ada", "password": "lovelace"}).text, "welcome"
        )
        for transport in ("polling", "websocket"):
            client = self.visitor(http=browser, transport=transport)
            self.assertEqual(client.call("who am I"), "ada")
        gone = []
        client.client.on("disconnect", lambda reason: gone.append(reason))
        self.assertEqual(browser.post(f"{self.url}/logout").text, "bye")
        client.client.wait()
        self.assertEqual(gone, ["server disconnect"])
        self.assertIn("failed to connect", self.refused(http=browser))


JAVASCRIPT = """
const { io } = require("socket.io-client");
const fs = require("fs");
globalThis.crypto ??= require("crypto").webcrypto;  // as browsers have it, and Node from version 20 on
eval(fs.readFileSync("upload.js", "utf8") + "\\nglobalThis.upload = upload;");
const socket = io(process.argv[2], { transports: ["websocket"], reconnectionDelay: 100 });
const data = Buffer.from(Array.from({ length: 1000000 }, (_, index) => index % 251));
let cuts = 2;
socket.on("connect", async () => {
  if (globalThis.begun) return;
  globalThis.begun = true;
  const id = await upload(socket, new Blob([data]), (part) => {
    // The connection is lost in the middle, with a slice on its way.
    if (part > 0.2 && cuts > 0) {
      cuts -= 1;
      setImmediate(() => socket.io.engine.transport.ws.terminate());
    }
  });
  const ack = await socket.emitWithAck("upload slice", "../../etc/passwd", 0, Buffer.from("x"));
  console.log(JSON.stringify({ id, error: ack.error, cuts }));
  socket.disconnect();
});
"""


class ProgramTestCase(TestCase):
    """
    Tests of a server in a folder of its own.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.port = freePort()

    async def serve(self, *arguments: str) -> Program:
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        command = [TXREALTIME, "serve", "--listen", listen, *arguments]
        server = startProgram(self, command, cwd=str(self.folder))
        await untilListening(server, self.port)
        return server

    async def stop(self, server: Program) -> None:
        self.assertEqual(await server.stop(), 0, server.output)
        self.assertNotIn("Traceback", server.output)


class UploadTests(ProgramTestCase):
    async def test_upload(self) -> None:
        """A file of 1 MB comes whole although its connection is lost twice; no other path is written."""
        requireJavaScriptClient("socket.io-client-4")
        for name in ("upload.py", "upload.js"):
            shutil.copy(GUIDE / name, self.folder)
        (self.folder / "node_modules").mkdir()
        package = FOLDER / "node_modules" / "socket.io-client-4"
        (self.folder / "node_modules" / "socket.io-client").symlink_to(package)
        (self.folder / "send.js").write_text(JAVASCRIPT)
        server = await self.serve("--app", "upload:server")
        client = startProgram(
            self, [str(NODE), "send.js", f"http://127.0.0.1:{self.port}"], cwd=str(self.folder)
        )
        self.assertEqual(await client.whenEnded(timeout=60), 0, client.output)
        report = json.loads(client.output)
        self.assertEqual((report["error"], report["cuts"]), ("no id of an upload", 0))
        [upload] = (self.folder / "uploads").iterdir()
        self.assertEqual(upload.name, str(uuid.UUID(report["id"])))
        self.assertEqual(upload.read_bytes(), bytes(index % 251 for index in range(1_000_000)))
        await self.stop(server)


ASYNCIO = """
import asyncio

import aiohttp

from txrealtime import Server

server = Server()


@server.onConnect
async def admit(socket, auth):
    async with aiohttp.ClientSession() as session, session.get(auth["url"]) as response:
        socket.data["page"] = await response.text()


@server.on("page")
async def page(socket):
    await asyncio.sleep(0.01)
    answer = await socket.call("sure?")
    return answer, socket.data["page"]


@server.on("slow")
async def slow(socket):
    async with asyncio.timeout(0.01):
        await asyncio.sleep(60)


@server.onError(TimeoutError)
async def late(socket, error):
    await asyncio.sleep(0)
    return "late"
"""


class AsyncioTests(ProgramTestCase):
    async def test_aiohttp(self) -> None:
        """A client of asyncio fetches a page in an admission, beside Deferreds of Twisted."""
        requirePythonClient("aiohttp")
        (self.folder / "app.py").write_text(ASYNCIO)
        (self.folder / "public").mkdir()
        (self.folder / "public" / "index.html").write_text("a page")
        options = ["--app", "app:server", "--static", "public"]
        server = await self.serve("--reactor", "asyncio", *options)
        url = f"http://127.0.0.1:{self.port}"
        for transport in ("polling", "websocket"):
            client = Client(url, auth={"url": f"{url}/"}, transports=[transport])
            client.on("sure?")(lambda: True)
            client.startService()
            await client.whenConnected()
            self.assertEqual(await client.call("page"), (True, "a page"))
            self.assertEqual(await client.call("slow"), "late")
            await client.stopService()
        await self.stop(server)

    async def test_anotherReactor(self) -> None:
        """The log says what is missing."""
        (self.folder / "app.py").write_text(ASYNCIO.replace("@server.onConnect\n", ""))
        server = await self.serve("--app", "app:server")
        client = Client(f"http://127.0.0.1:{self.port}", transports=["websocket"])
        client.startService()
        await client.whenConnected()
        client.emit("page")
        await server.whenPrinted("--reactor asyncio")
        await client.stopService()
        await server.stop()
        self.assertIn("no running event loop", server.output)
