"""
`twistd realtime` as processes: what it serves and where, what keeps it from starting, how it stops.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.memory import clientFrame
from tests.support import (
    ROOT,
    TWISTD,
    TXREALTIME,
    Program,
    freePort,
    makeCertificate,
    requirePart,
    startProgram,
)

try:
    import socketio

    from tests.interop.py.orderly import Client
except ImportError:
    socketio = None

APPLICATION = """
import os, signal, time
from txrealtime import Server

server = Server(pingInterval=7, pingTimeout=6)

@server.on("echo")
def echo(socket, *args):
    return args

@server.on("burst")
def burst(socket, count):
    for number in range(count):
        socket.emit("number", number, "x" * 10_000)
    os.kill(os.getpid(), signal.SIGTERM)

def wsgi(environment, start):
    if environment["PATH_INFO"] == "/last":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
    start("200 OK", [("Content-Type", "text/plain")])
    return [environment["PATH_INFO"].encode()]
"""

FREE = "tcp:0:interface=127.0.0.1"
"An endpoint on a port that is free; the log tells which."

ADDRESS = re.compile(r"serving Socket.IO at (\S+?/)socket\.io/")

HANDSHAKE = "socket.io/?EIO=4&transport=polling"

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class ProcessTestCase(TestCase):
    """
    Tests in a folder with an application, `shop.py`.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        (self.folder / "public").mkdir(parents=True)
        (self.folder / "shop.py").write_text(APPLICATION)

    async def serve(self, *arguments: str, addresses: int = 1) -> tuple[Program, list[str]]:
        """
        Start `twistd -n realtime` and wait until it listens.

        :return: it, and its addresses as it logs them.
        """
        command = [TWISTD, "-n", "--pidfile=", "realtime", *arguments]
        environment = {"PYTHONPATH": str(ROOT)}
        program = startProgram(self, command, cwd=str(self.folder), environment=environment)
        return program, await self.serving(program, addresses)

    async def serving(self, program: Program, addresses: int = 1) -> list[str]:
        while True:
            found = ADDRESS.findall(program.output)
            if len(found) == addresses:
                return found
            self.assertFalse(program.ended, program.output)
            await deferLater(reactor, 0.05)

    def get(self, url: str, **options: Any) -> bytes:
        """Fetch a URL; the server is another process, so that this one may wait for it."""
        with urlopen(url, timeout=30, **options) as response:
            body: bytes = response.read()
            return body

    def opened(self, body: bytes) -> dict[str, Any]:
        """Return the content of a handshake."""
        self.assertEqual(body[:1], b"0")
        content: dict[str, Any] = json.loads(body[1:])
        return content

    async def stopped(self, program: Program, name: str = "TERM", within: float = 60) -> None:
        """Stop it; it must end well, and in time."""
        program.signal(name)
        self.assertEqual(await program.whenEnded(within), 0, program.output)
        self.assertNotIn("Traceback", program.output)
        self.assertIn("stopped", program.output)


class ServingTests(ProcessTestCase):
    async def test_theChat(self) -> None:
        """Without --app twistd serves a page, and the server that the page talks to."""
        program, [url] = await self.serve("--listen", FREE)
        self.assertIn(b"<html", self.get(url))
        self.assertIn("upgrades", self.opened(self.get(url + HANDSHAKE)))
        await self.stopped(program)

    async def test_settings(self) -> None:
        """Those of the command line take the place of the application's; no log has the session's secret."""
        arguments = ["--app", "shop:server", "--listen", FREE, "--ping-timeout", "0.5", "--no-allow-upgrades"]
        program, [url] = await self.serve(*arguments)
        opened = self.opened(self.get(url + HANDSHAKE))
        self.assertEqual((opened["pingInterval"], opened["pingTimeout"]), (7000, 500))
        self.assertEqual(opened["upgrades"], [])
        await self.stopped(program)
        self.assertNotIn(opened["sid"], program.output)

    async def test_severalPlaces(self) -> None:
        program, [first, second, last] = await self.serve(
            *["--app", "shop:server", "--listen", FREE, "--listen", FREE, "--listen", "unix:shop.socket"],
            addresses=3,
        )
        for url in (first, second):
            self.opened(self.get(url + HANDSHAKE))
        self.assertEqual(last, "unix:shop.socket:/")
        with closing(http.client.HTTPConnection("shop", timeout=30)) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            # A path in the sun_path of a socket is short, and that of the test's folder need not be.
            folder = os.open(self.folder, os.O_DIRECTORY)
            self.addCleanup(os.close, folder)
            connection.sock.connect(f"/proc/self/fd/{folder}/shop.socket")
            connection.request("GET", f"/{HANDSHAKE}")
            self.opened(connection.getresponse().read())
        await self.stopped(program)
        self.assertFalse((self.folder / "shop.socket").exists())

    async def test_static(self) -> None:
        (self.folder / "public" / "index.html").write_text("the page")
        (self.folder / "public" / ".hidden").write_text("hidden")
        (self.folder / "public" / "empty").mkdir()
        program, [url] = await self.serve("--app", "shop:server", "--static", "public", "--listen", FREE)
        self.assertEqual(self.get(url), b"the page")
        self.opened(self.get(url + HANDSHAKE))
        host = url.removeprefix("http://").rstrip("/")
        for path in (
            "/../shop.py",
            "/%2e%2e/shop.py",
            "/..%2fshop.py",
            "/.hidden",
            "/empty/",
            "/%ff",
            "/a%00",
        ):
            with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
                connection.request("GET", path)  # urlopen would tidy the path up
                self.assertEqual(connection.getresponse().status, 404, path)
        await self.stopped(program)

    async def test_wsgi(self) -> None:
        program, [url] = await self.serve("--app", "shop:server", "--wsgi", "shop:wsgi", "--listen", FREE)
        self.assertEqual(self.get(f"{url}deep/path"), b"/deep/path")
        self.assertEqual(self.get(url), b"/")
        self.opened(self.get(url + HANDSHAKE))
        await self.stopped(program)

    async def test_tls(self) -> None:
        certificate = makeCertificate(self.folder / "pair.pem")
        listen = "ssl:0:interface=127.0.0.1:privateKey=pair.pem"
        program, [url] = await self.serve("--app", "shop:server", "--listen", listen)
        self.assertTrue(url.startswith("https://127.0.0.1:"))
        trusting = ssl.create_default_context(cafile=certificate)
        self.opened(self.get(url + HANDSHAKE, context=trusting))
        await self.stopped(program)

    async def test_systemd(self) -> None:
        """A socket that is there before the process, as systemd passes it on."""
        inherited = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(inherited.close)
        arguments = f"{TWISTD} -n --pidfile= realtime --app shop:server --listen systemd:domain=INET:index=0"
        # systemd tells the process that it is meant, by its number.
        command = [
            "/bin/sh",
            "-c",
            f"export LISTEN_FDS=1 LISTEN_FDNAMES=shop LISTEN_PID=$$; exec {arguments}",
        ]
        program = Program(command)
        environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
        files: dict[int, int | str] = {0: "w", 1: "r", 2: "r", 3: inherited.fileno()}
        reactor.spawnProcess(program, command[0], command, environment, str(self.folder), childFDs=files)
        self.addCleanup(program.stop)
        [url] = await self.serving(program)
        self.assertEqual(url, f"http://127.0.0.1:{inherited.getsockname()[1]}/")
        self.opened(self.get(url + HANDSHAKE))
        await self.stopped(program)


class StartTests(ProcessTestCase):
    """
    Failed starts: one line on standard error, exit code 1, and no traceback of ours.
    """

    def execute(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TWISTD, *arguments],
            cwd=self.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def failed(self, *arguments: str) -> str:
        """Return standard error of a failed start."""
        ended = self.execute("-n", "realtime", *arguments)
        self.assertEqual(ended.returncode, 1, ended)
        self.assertNotIn("Traceback", ended.stdout + ended.stderr)
        self.assertFalse((self.folder / "twistd.pid").exists())
        return ended.stderr

    async def gone(self, file: Path) -> None:
        """Wait until a file has been removed."""
        deadline = time.monotonic() + 60
        while file.exists():
            self.assertLess(time.monotonic(), deadline)
            await deferLater(reactor, 0.05)

    def test_oneLine(self) -> None:
        here = f"(sought in {self.folder} and on PYTHONPATH)"
        for arguments, wanted in [
            (["--app", "shoe:server"], f"--app shoe:server: No module named 'shoe' {here}"),
            (["--app", "shop:sever"], "--app shop:sever: shop has no sever"),
            (
                ["--listen", "8000"],
                "--listen 8000: Unknown endpoint type: '8000'; expected a form like tcp:8000 or "
                "ssl:443:privateKey=key.pem:certKey=cert.pem",
            ),
            (["--ping-interval", "x"], "--ping-interval x: expected a number (see twistd realtime --help)"),
        ]:
            self.assertEqual(self.failed(*arguments), f"twistd realtime: {wanted}\n")

    def test_theApplicationExits(self) -> None:
        """With the code of a failure, whatever its own is, and not without a word."""
        for code in (0, 3):
            (self.folder / f"exits{code}.py").write_text(f"import sys; sys.exit({code})")
            wanted = f"--app exits{code}:server: exits{code} called sys.exit({code}): "
            stderr = self.failed("--app", f"exits{code}:server")
            self.assertTrue(stderr.startswith(f"twistd realtime: {wanted}"), stderr)
            self.assertEqual(len(stderr.splitlines()), 1)

    def test_theApplicationFails(self) -> None:
        (self.folder / "broken.py").write_text("import shoe")
        self.assertEqual(
            [line.strip() for line in self.failed("--app", "broken:server").splitlines()],
            [
                "twistd realtime: --app broken:server: broken failed",
                f'File "{self.folder}/broken.py", line 1, in <module>',
                "import shoe",
                "ModuleNotFoundError: No module named 'shoe'",
            ],
        )

    async def test_portTaken(self) -> None:
        """Also when another place could be had."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            stderr = self.failed("--app", "shop:server", "--listen", FREE, "--listen", listen)
            self.assertEqual(stderr, f"twistd realtime: cannot listen on {listen}: Address already in use\n")

            # In the background the words around it are twistd's.
            ended = self.execute("realtime", "--listen", listen)
            self.assertEqual(ended.returncode, 1, ended)
            self.assertIn(f"Address already in use: {listen}", ended.stderr)
            self.assertNotIn("Traceback", ended.stderr)
            await self.gone(self.folder / "twistd.pid")
            log = (self.folder / "twistd.log").read_text()
            self.assertIn(f"cannot listen on {listen}: Address already in use", log)

    def test_help(self) -> None:
        ended = self.execute("realtime", "--help")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertTrue(ended.stdout.startswith("Usage: twistd [options] realtime [--app MODULE:NAME]"))

    async def test_background(self) -> None:
        """As a daemon it serves as soon as the command returns, and ends well on SIGTERM."""
        ended = self.execute("realtime", "--app", "shop:server", "--listen", FREE)
        self.assertEqual((ended.returncode, ended.stdout), (0, ""))
        pidfile = self.folder / "twistd.pid"
        pid = int(pidfile.read_text())

        def kill() -> None:
            if pidfile.exists():
                os.kill(pid, signal.SIGKILL)

        self.addCleanup(kill)
        log = self.folder / "twistd.log"
        [url] = ADDRESS.findall(log.read_text())
        self.assertEqual(
            ended.stderr,
            f"twistd realtime: serving in the background, at {url.rstrip('/')}\n"
            f"  the log:    {log}\n  to stop it: kill $(cat {pidfile})\n",
        )
        second = self.execute("realtime", "--app", "shop:server", "--listen", FREE)
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"twistd realtime: process {pid}, whose number is in {pidfile}", second.stderr)
        self.opened(self.get(url + HANDSHAKE))
        os.kill(pid, signal.SIGTERM)
        await self.gone(pidfile)
        self.assertIn("SIGTERM received", log.read_text())
        self.assertIn("stopped", log.read_text())


class ForegroundTests(ProcessTestCase):
    """
    Commands as the pages print them, in one folder.
    """

    async def started(self, *command: str, **environment: str) -> tuple[Program, str]:
        """Start a command, and return it with its address."""
        program = startProgram(
            self, command, cwd=str(self.folder), environment={**ENVIRONMENT, **environment}
        )
        [url] = await self.serving(program)
        return program, url

    async def test_twoInOneFolder(self) -> None:
        both = [
            await self.started(TWISTD, "-n", "realtime", "--app", "shop:server", "--listen", FREE),
            await self.started(TXREALTIME, "serve", "--app", "shop:server", "--listen", FREE),
        ]
        self.assertFalse((self.folder / "twistd.pid").exists())
        for program, url in both:
            self.opened(self.get(url + HANDSHAKE))
            self.assertIn(b"Socket.IO is at /socket.io/", self.get(url))
            await self.stopped(program)

    async def test_aPidFileThatIsAskedFor(self) -> None:
        command = [TWISTD, "-n", "--pidfile=twistd.pid", "realtime", "--app", "shop:server", "--listen", FREE]
        program, _ = await self.started(*command)
        self.assertEqual((self.folder / "twistd.pid").read_text(), str(program.transport.pid))
        await self.stopped(program)

    async def test_workers(self) -> None:
        """Their own command line may have options that only the foreground has."""
        program, url = await self.started(
            *[TXREALTIME, "serve", "--reactor", "select", "--workers", "1"],
            *["--app", "shop:server", "--listen", FREE],
        )
        self.opened(self.get(url + HANDSHAKE))
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0, program.output)

    async def test_reload(self) -> None:
        """A change starts the server anew, and also the repair of a file that is no Python."""
        requirePart(find_spec("watchfiles"), "no watchfiles: pip install watchfiles")
        port = freePort()
        source = self.folder / "shop.py"
        program, url = await self.started(
            *[TXREALTIME, "serve", "--reload", "--app", "shop:server"],
            *["--listen", f"tcp:{port}:interface=127.0.0.1"],
            PYTHONPATH="",  # or the files of all tests that run now would be watched
        )
        text = source.read_text()
        for change, words in (
            (text.replace("pingInterval=7", "pingInterval=9"), "serving Socket.IO"),
            ("def", "SyntaxError"),
            (text.replace("pingInterval=7", "pingInterval=11"), "serving Socket.IO"),
        ):
            program.output = ""
            # In one step: a file that is half written would be a change of its own.
            (self.folder / "next").write_text(change)
            os.replace(self.folder / "next", source)
            await program.whenPrinted("txrealtime serve: changed: shop.py; starting anew")
            await program.whenPrinted(words)
        self.assertEqual(self.opened(self.get(url + HANDSHAKE))["pingInterval"], 11000)
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0, program.output)
        self.assertIn("stopped", program.output)


class StopTests(ProcessTestCase):
    """
    Signals to a server with clients.
    """

    async def serveShop(self, *arguments: str) -> tuple[Program, str]:
        program, [url] = await self.serve("--app", "shop:server", "--listen", FREE, *arguments)
        return program, url

    async def clientsSee(self, name: str) -> None:
        requirePart(socketio, "no python-socketio: pip install python-socketio requests websocket-client")
        program, url = await self.serveShop()
        gone = []
        for transport in ("polling", "websocket"):
            client = Client(reconnection=False)
            left = threading.Event()
            client.on("disconnect", lambda *reason, left=left: left.set())
            await deferToThread(client.connect, url, transports=[transport], wait_timeout=30)
            self.addCleanup(deferToThread, client.disconnect)
            self.assertEqual(await deferToThread(client.call, "echo", "hello"), "hello")
            gone.append(left)
        await self.stopped(program, name)
        for left in gone:
            self.assertTrue(await deferToThread(left.wait, 60))

    async def test_terminated(self) -> None:
        await self.clientsSee("TERM")

    async def test_interrupted(self) -> None:
        await self.clientsSee("INT")

    async def test_nothingIsLost(self) -> None:
        """Messages sent before the signal arrive, though they are more than the system buffers."""
        requirePart(socketio, "no python-socketio: pip install python-socketio requests websocket-client")
        for transport in ("websocket", "polling"):
            # Time enough for a client on a busy machine, to which the closing handshake comes last.
            program, url = await self.serveShop("--drain-timeout", "50", "--handshake-timeout", "50")
            client = Client(reconnection=False)
            numbers: list[int] = []
            left = threading.Event()
            client.on("number", lambda number, text, numbers=numbers: numbers.append(number))
            client.on("disconnect", lambda *reason, left=left: left.set())
            await deferToThread(client.connect, url, transports=[transport], wait_timeout=30)
            self.addCleanup(deferToThread, client.disconnect)
            await deferToThread(client.emit, "burst", 300)
            self.assertEqual(await program.whenEnded(), 0, program.output)
            self.assertTrue(await deferToThread(left.wait, 60))
            self.assertEqual(numbers, list(range(300)), f"{transport}\n{program.output}")

    goodbye = b"\x88\x16\x03\xe9server shutting down"

    async def test_slowLine(self) -> None:
        """A client whose line is slow hears all, though the closing handshake takes longer than it may."""
        program, url = await self.serveShop("--drain-timeout", "50", "--handshake-timeout", "5")
        heard = await deferToThread(self.hearSlowly, url)
        self.assertEqual(heard.count(b'["number",'), 100, program.output)
        self.assertTrue(heard.endswith(self.goodbye))
        self.assertEqual(await program.whenEnded(40), 0, program.output)

    def hearSlowly(self, url: str) -> bytes:
        """Have a burst sent, and read it at 100 kB a second, until the server's close frame."""
        connection = socket.socket()
        self.addCleanup(connection.close)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        connection.settimeout(30)
        parts = urlsplit(url)
        connection.connect((parts.hostname, parts.port))
        connection.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
            + clientFrame(1, b"40", True, 0, b"0000")
            + clientFrame(1, b'42["burst",100]', True, 0, b"0000")
        )
        heard = bytearray()
        while not heard.endswith(self.goodbye):
            data = connection.recv(10_000)
            heard += data
            if not data:
                break
            time.sleep(len(data) / 100_000)
        connection.sendall(clientFrame(8, b"\x03\xe9", True, 0, b"0000"))
        return bytes(heard)

    def occupy(self, url: str) -> None:
        """A client that holds up the stop: it connects, and then never fetches what is left for it."""
        sid = self.opened(self.get(url + HANDSHAKE))["sid"]
        self.get(f"{url}{HANDSHAKE}&sid={sid}", data=b"40")

    async def test_bounded(self) -> None:
        program, url = await self.serveShop("--drain-timeout", "1.5")
        self.occupy(url)
        began = time.monotonic()
        await self.stopped(program)
        self.assertGreaterEqual(time.monotonic() - began, 1.5)

    async def test_noMoreClients(self) -> None:
        """While it stops, nobody new gets in."""
        program, url = await self.serveShop("--drain-timeout", "600")
        self.occupy(url)
        program.signal("TERM")
        await program.whenPrinted("stopping: 1 clients")
        with self.assertRaises(OSError):
            while not program.ended:
                self.get(url + HANDSHAKE)
        program.signal("KILL")

    async def test_wsgi(self) -> None:
        """A request that runs when the signal comes is answered."""
        program, url = await self.serveShop("--wsgi", "shop:wsgi")
        self.assertEqual(await deferToThread(self.get, f"{url}last"), b"/last")
        self.assertEqual(await program.whenEnded(), 0, program.output)

    async def test_secondSignal(self) -> None:
        """A second signal ends the process at once, whoever is still connected."""
        for first, second in (("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")):
            program, url = await self.serveShop("--drain-timeout", "600")
            self.occupy(url)
            program.signal(first)
            await program.whenPrinted("stopping: 1 clients have 600 seconds")
            program.signal(second)
            self.assertIsNone(await program.whenEnded(), program.output)  # ended by the signal
            self.assertNotIn("stopped", program.output)
