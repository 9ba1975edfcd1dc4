"""
A Flask application served by gunicorn, with the worker class of this project and real clients.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tests.interop.clients import FOLDER, javaScript, requireJavaScriptClient, untilListening
from tests.interop.visitors import requests
from tests.support import ROOT, Program, freePort, makeCertificate, requirePart, startProgram

TRANSPORTS = ("polling", "websocket")


def get(url: str) -> str:
    """Return the body at a URL; call this in a thread."""
    with urlopen(url, timeout=30, context=ssl._create_unverified_context()) as response:
        body: bytes = response.read()
        return body.decode()


@implementer(IAgentEndpointFactory)
class ToSocket:
    """Endpoints that lead to a UNIX socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def endpointForURI(self, uri: object) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(reactor, self._path)


class GunicornTests(TestCase):
    timeout = 300

    def setUp(self) -> None:
        requirePart(find_spec("gunicorn"), "no gunicorn: pip install --group test")
        self.port = freePort()

    def gunicorn(self, *options: str, bind: str = "", app: str = "app", **environment: str) -> Program:
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "-k",
            "txrealtime.gunicorn.Worker",
            "--no-control-socket",
        ]
        command += ["-b", bind or f"127.0.0.1:{self.port}", *options, f"gunicorn_app:{app}"]
        environment = {"PYTHONPATH": f"{ROOT}:{FOLDER / 'py'}", **environment}
        return startProgram(self, command, environment=environment)

    async def serving(self, *options: str, **more: str) -> Program:
        program = self.gunicorn(*options, **more)
        await untilListening(program, self.port)
        return program

    def clients(self, scheme: str = "http") -> Program:
        requireJavaScriptClient("socket.io-client-4")
        return startProgram(self, javaScript("worker.cjs", f"{scheme}://127.0.0.1:{self.port}"))

    async def told(
        self, clients: Program, key: str, count: int = 1, transports: Any = TRANSPORTS
    ) -> list[Any]:
        """Return the `count`-th value of a key that each client has printed or will print."""
        found = []
        for at in transports:
            start = json.dumps({"at": at, key: 0}, separators=(",", ":")).removesuffix("0}")
            deadline = reactor.seconds() + 120
            while len(lines := [line for line in clients.lines if line.startswith(start)]) < count:
                self.assertLess(reactor.seconds(), deadline, clients.output)
                await deferLater(reactor, 0.02)
            found.append(json.loads(lines[count - 1])[key])
        return found

    async def page(self, scheme: str = "http") -> str:
        while True:
            try:
                return str(await deferToThread(get, f"{scheme}://127.0.0.1:{self.port}/"))
            except HTTPError as error:
                # A connection that a worker has accepted right before it was told to stop.
                self.assertEqual(error.code, 503)

    async def test_terminated(self) -> None:
        """Clients on both transports, a view; SIGTERM lets a slow view end and clients go, by code 0."""
        program = await self.serving("--access-logfile", "-")
        clients = self.clients()
        self.assertEqual(len({*await self.told(clients, "who"), (await self.page()).split()[0]}), 2)
        # A client that keeps the connection: one that closes it at once may be missing in the access log.
        with requests.Session() as browser:
            await deferToThread(browser.get, f"http://127.0.0.1:{self.port}/", timeout=30)
            await program.whenPrinted('"GET / HTTP/1.1" 200')
        slow = deferToThread(get, f"http://127.0.0.1:{self.port}/slow")
        await program.whenPrinted("a slow view begins")
        program.signal("TERM")
        self.assertEqual(await slow, "slow, but here")
        self.assertEqual(await program.whenEnded(), 0, program.output)
        await self.told(clients, "gone")
        self.assertEqual(program.output.count("handler: "), 2)
        self.assertNotIn("Traceback", program.output)

    async def test_interrupted(self) -> None:
        """SIGINT and SIGQUIT end it too, and the clients are told."""
        for name in (signal.SIGINT, signal.SIGQUIT):
            program = await self.serving()
            clients = self.clients()
            await self.told(clients, "who")
            os.kill(program.transport.pid, name)
            self.assertEqual(await program.whenEnded(), 0, program.output)
            await self.told(clients, "gone")
            await clients.stop()

    async def test_hangUp(self) -> None:
        """SIGHUP brings a new worker, which the clients come back to; no connection is refused meanwhile."""
        program = await self.serving()
        clients = self.clients()
        [before, _] = await self.told(clients, "who")
        program.signal("HUP")
        for _ in range(20):
            await self.page()
        await self.told(clients, "gone")
        [after, other] = await self.told(clients, "who", 2)
        self.assertEqual(after, other)
        self.assertNotEqual(before, after)
        self.assertEqual(await program.stop(), 0, program.output)

    async def test_secondWorker(self) -> None:
        """After SIGTTIN, a second worker waits and takes no client, until the first one ends."""
        program = await self.serving()
        first = (await self.page()).split()[0]
        os.kill(program.transport.pid, signal.SIGTTIN)
        await program.whenPrinted("waits until the other worker ends")
        self.assertEqual({(await self.page()).split()[0] for _ in range(20)}, {first})
        os.kill(program.transport.pid, signal.SIGTTOU)
        while (second := (await self.page()).split()[0]) == first:
            await deferLater(reactor, 0.05)
        self.assertNotEqual(second, first)
        self.assertEqual(await program.stop(), 0, program.output)

    async def test_blocked(self) -> None:
        """A handler may take longer than --timeout; a blocked reactor is ended, named, and replaced."""
        program = await self.serving("--timeout", "4", HANDLER_SECONDS="6")
        clients = self.clients()
        [before, _] = await self.told(clients, "who")
        with contextlib.suppress(OSError):  # the response may not get out any more
            await deferToThread(get, f"http://127.0.0.1:{self.port}/block")
        [after, _] = await self.told(clients, "who", 2)
        self.assertNotEqual(before, after)
        await program.whenPrinted("WORKER TIMEOUT")
        await program.whenPrinted("the reactor's thread is blocked")

    async def test_requests(self) -> None:
        """--max-requests counts views: the worker that has answered so many is replaced."""
        program = await self.serving("--max-requests", "3")
        pages = [(await self.page()).split()[0] for _ in range(3)]
        self.assertEqual(len(set(pages)), 1)
        while (await self.page()).split()[0] == pages[0]:
            await deferLater(reactor, 0.05)
        self.assertEqual(await program.stop(), 0, program.output)

    async def test_reload(self) -> None:
        """--reload restarts the worker when a source has changed."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        source = folder / "gunicorn_app.py"
        source.write_text((FOLDER / "py" / "gunicorn_app.py").read_text())
        program = await self.serving("--reload", PYTHONPATH=f"{ROOT}:{folder}")
        before = (await self.page()).split()[0]
        changed = f"{source.read_text()}\nprint('it was read again')\n"
        while "it was read again" not in program.output:
            # The reloader notices changes after its first look at the file.
            source.write_text(changed)
            await deferLater(reactor, 0.5)
        self.assertNotEqual((await self.page()).split()[0], before)

    async def test_tls(self) -> None:
        pem = str(makeCertificate(Path(self.mktemp()).resolve()))
        await self.serving("--certfile", pem, "--keyfile", pem)
        self.assertIn(" https ", await self.page("https"))
        await self.told(self.clients("https"), "who")

    async def test_middleware(self) -> None:
        """The application may be inside of a middleware, which views pass through."""
        await self.serving(app="wrapped")
        url = f"http://127.0.0.1:{self.port}/"
        agent = Agent(reactor)
        response = await agent.request(b"GET", url.encode(), Headers({"X-Forwarded-For": ["192.0.2.7"]}))
        self.assertIn(b"192.0.2.7", await readBody(response))

    async def test_unix(self) -> None:
        """A UNIX socket stays where it is when a worker takes the place of another."""
        folder = mkdtemp()  # the path of a socket is short
        self.addCleanup(rmtree, folder)
        path = f"{folder}/socket"
        program = self.gunicorn(bind=f"unix:{path}")
        await program.whenPrinted("serving Socket.IO")
        agent = Agent.usingEndpointFactory(reactor, ToSocket(path))

        async def pid() -> bytes:
            response = await agent.request(b"GET", b"http://localhost/")
            self.assertEqual(response.code, 200)
            return bytes(await readBody(response)).split()[0]

        before = await pid()
        program.signal("HUP")
        while await pid() == before:
            await deferLater(reactor, 0.05)
        self.assertEqual(await program.stop(), 0, program.output)

    async def test_refused(self) -> None:
        """Options and applications that cannot work end gunicorn with one line that says what to do."""
        for options, app, code, wanted in (
            (["-w", "2"], "app", 1, "start with -w 1"),
            (["--reuse-port"], "app", 1, "leave it out"),
            (["--ciphers", "HIGH"], "app", 1, "leave TLS to a proxy"),
            ([], "bare", 3, "the application has no txrealtime.flask.SocketIO"),
        ):
            program = self.gunicorn(*options, app=app)
            self.assertEqual(await program.whenEnded(), code, program.output)
            self.assertIn(wanted, program.output)
            self.assertNotIn("Traceback", program.output)
            self.assertLessEqual(program.output.count("Booting worker"), 1)

    async def test_refusedLater(self) -> None:
        """After SIGHUP, a configuration that cannot work ends gunicorn too, with the same line."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        file = folder / "gunicorn.conf.py"
        file.write_text("workers = 1")
        program = await self.serving("-c", str(file))
        file.write_text("workers = 2")
        program.signal("HUP")
        # If both new workers have ended before gunicorn looks, it raises again on the second: code 1.
        self.assertIn(await program.whenEnded(), (1, 3), program.output)
        self.assertIn("start with -w 1", program.output)
        self.assertNotIn("txrealtime/gunicorn.py", program.output)
