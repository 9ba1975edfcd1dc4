"""
Shortages: file descriptors, memory, patience.  Real sockets and a server in a process of its own, but for
the herd.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.hostile.means import HostileTestCase, callsOf, keptBy
from tests.interop import test_twistd
from tests.memory import clientFrame
from tests.support import ROOT, TWISTD, Program, alone, makeCertificate, requirePart, run, startProgram

APPLICATION = """
from twisted.internet import reactor

from txrealtime import Server

server = Server()

reactor.callWhenRunning(print, "the reactor runs", flush=True)

@server.onConnect
def came(socket, auth):
    pass

@server.onDisconnect
def left(socket, reason):
    print("left:", reason, flush=True)

@server.on("echo")
def echo(socket, *args):
    return args

@server.on("flood")
def flood(socket):
    for number in range(5000):
        socket.emit("number", number, "x" * 10_000)

@server.on("close me")
def close(socket):
    socket.disconnect(close=True)
"""

MB = 1 << 20

KEY = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

FETCHED = ROOT / "tests" / "interop" / ".fetched"


class Peer:
    """
    A client by its socket, which does no more than it is told.

    :ivar socket: its socket.
    """

    def __init__(self, url: str, room: int = 0) -> None:
        """
        :param room: how much its system takes that it does not read, in bytes; 0 for the usual.
        """
        parts = urlsplit(url)
        plain = socket.socket()
        plain.settimeout(30)
        if room:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        plain.connect((parts.hostname, parts.port))
        if parts.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            plain = context.wrap_socket(plain)
        self.socket = plain

    def request(self, method: str, target: str, body: str = "", headers: str = "") -> bytes:
        """A request, and its answer."""
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}"
        self.socket.sendall(f"{head}\r\n{body}".encode())
        return self.answer()

    def answer(self) -> bytes:
        """The next answer, whole."""
        data = b""
        while True:
            head, separator, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if separator and len(body) >= (int(length[1]) if length else 0):
                return data
            more = self.socket.recv(65536)
            if not more:
                return data
            data += more

    def webSocket(self) -> None:
        """Become a WebSocket in the default namespace."""
        self.socket.sendall(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\n{KEY}\r\n".encode()
        )
        self.until(b'"maxPayload"')
        self.send("40")
        self.until(b'40{"sid":"')

    def send(self, text: str) -> None:
        self.socket.sendall(clientFrame(1, text.encode()))

    def until(self, text: bytes) -> bytes:
        """Read until something has come."""
        data = b""
        while text not in data:
            more = self.socket.recv(65536)
            assert more, f"the connection ended before {text!r}: {data[-300:]!r}"
            data += more
        return data

    def echo(self, word: str) -> None:
        """Ask for an echo, and wait for it."""
        self.send(f'421["echo","{word}"]')
        self.until(f'431["{word}"]'.encode())

    def ended(self) -> bool:
        """Wait until the server has ended the connection, whatever it says before."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self.socket.recv(65536):
                pass
        return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


class ResourceTestCase(TestCase):
    """
    A server in a process of its own.
    """

    timeout = 400

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        (self.folder / "public" / "deep").mkdir(parents=True)
        (self.folder / "shop.py").write_text(APPLICATION)
        self.peers = ExitStack()
        self.addCleanup(self.peers.close)

    async def serve(
        self, *arguments: str, files: int = 0, secure: bool = False, path: str = ""
    ) -> tuple[Program, str]:
        """
        Start it, with this application and these options.

        :param files: how many file descriptors it may have.
        :param secure: whether it speaks TLS.
        :param path: more of PYTHONPATH.
        """
        listen = "tcp:0:interface=127.0.0.1"
        if secure:
            makeCertificate(self.folder / "pair.pem")
            listen = "ssl:0:interface=127.0.0.1:privateKey=pair.pem"
        command = [
            TWISTD,
            "-n",
            "--pidfile=",
            "realtime",
            "--app",
            "shop:server",
            "--listen",
            listen,
            *arguments,
        ]
        if files:
            command = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)]))}
        program = startProgram(self, command, cwd=str(self.folder), environment=environment)
        while not (found := test_twistd.ADDRESS.findall(program.output)):
            self.assertFalse(program.ended, program.output)
            await deferLater(reactor, 0.05)
        # It says where it listens before its reactor has opened the files that it needs itself.
        await program.whenPrinted("the reactor runs")
        return program, found[0]

    def peer(self, url: str, room: int = 0) -> Peer:
        peer = Peer(url, room)
        self.peers.callback(peer.close)
        return peer

    def webSocket(self, url: str, room: int = 0) -> Peer:
        peer = self.peer(url, room)
        peer.webSocket()
        return peer

    def memory(self, program: Program) -> int:
        """Return the resident memory of a process, in bytes."""
        status = Path(f"/proc/{program.transport.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def files(self, program: Program) -> int:
        """Return the number of open file descriptors of a process."""
        return len(os.listdir(f"/proc/{program.transport.pid}/fd"))

    async def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = reactor.seconds() + seconds
        while not condition():
            self.assertLess(reactor.seconds(), deadline, what)
            await deferLater(reactor, 0.05)

    async def stopped(self, program: Program) -> None:
        """Assert that the server ends well, and has had no trouble."""
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0, program.output)
        self.assertNotIn("Traceback", program.output)


class FloodTests(ResourceTestCase):
    async def test_acceptFlood(self) -> None:
        """
        At the limit of file descriptors: those that are in are served, newcomers are dropped and told of
        once, and when there is room again all is as before.
        """
        program, url = await self.serve(files=80)
        bystander = await deferToThread(self.webSocket, url)

        def flood() -> list[Peer]:
            peers = []
            for _ in range(300):
                with contextlib.suppress(OSError):
                    peers.append(self.peer(url))
            return peers

        for _ in range(2):
            peers = await deferToThread(flood)
            await deferToThread(bystander.echo, "during")
            await self.until(lambda: "out of file descriptors" in program.output, "the log says nothing")
            for peer in peers:
                peer.close()
            await self.until(lambda: self.files(program) < 30, "the connections stay")
            newcomer = await deferToThread(self.webSocket, url)
            await deferToThread(newcomer.echo, "after")
            newcomer.close()
        self.assertEqual(program.output.count("out of file descriptors"), 1, program.output)
        self.assertNotIn("EMFILE", program.output)
        self.assertLess(len(program.output.splitlines()), 40, program.output)
        await self.stopped(program)

    async def test_connectionLimits(self) -> None:
        """Beyond maxConnectionsPerAddress they are closed at once; told once, too."""
        program, url = await self.serve("--max-connections-per-address", "5")
        peers = [await deferToThread(self.webSocket, url) for _ in range(5)]

        def late() -> bool:
            try:
                return self.peer(url).ended()
            except ConnectionError:
                return True

        for _ in range(20):
            self.assertTrue(await deferToThread(late))
        await deferToThread(peers[0].echo, "during")
        peers[1].close()
        await self.until(lambda: "left: transport close" in program.output, "it has not left")
        newcomer = await deferToThread(self.webSocket, url)
        await deferToThread(newcomer.echo, "after")
        self.assertEqual(program.output.count("as many as maxConnectionsPerAddress allows"), 1)
        await self.stopped(program)

    async def test_slowloris(self) -> None:
        """Heads and bodies that come byte by byte end after requestTimeout; others are served meanwhile."""
        program, url = await self.serve("--request-timeout", "2")
        bystander = await deferToThread(self.webSocket, url)
        before = self.files(program)
        beginnings = (
            b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nX: ",
            b"GET /page HTTP/1.1\r\nHost: x\r\nX: ",
            b"POST /socket.io/?EIO=4&sid=x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
            b"POST /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n",
        )

        def attack() -> None:
            peers = [(self.peer(url), beginning) for beginning in beginnings for _ in range(25)]
            for peer, beginning in peers:
                peer.socket.sendall(beginning)
            deadline = time.monotonic() + 60
            while peers and time.monotonic() < deadline:
                for entry in list(peers):
                    try:
                        entry[0].socket.sendall(b"x")
                    except OSError:
                        peers.remove(entry)
                bystander.echo("during")
                time.sleep(0.2)
            self.assertEqual(peers, [], "some are still served")

        await deferToThread(attack)
        await self.until(lambda: self.files(program) <= before, "some are still there")
        await self.stopped(program)


class SlowReaderTests(ResourceTestCase):
    """
    A client that asks for 50 MB and reads nothing: it is closed when more than maxBuffered waits, as a slow
    consumer; the memory of the server has grown by a few times that.
    """

    SETTINGS: ClassVar = ("--max-buffered", "1000000")

    async def assertSlowConsumer(self, program: Program, url: str, attack: Callable[[], object]) -> None:
        bystander = await deferToThread(self.webSocket, url)
        await deferToThread(bystander.echo, "before")
        before = self.memory(program)
        await deferToThread(attack)
        await self.until(lambda: "left: slow consumer" in program.output, program.output)
        await deferToThread(bystander.echo, "after")
        self.assertLess(self.memory(program) - before, 25 * MB)
        await self.stopped(program)

    async def test_webSocket(self) -> None:
        program, url = await self.serve(*self.SETTINGS)
        peer = await deferToThread(self.webSocket, url)
        await self.assertSlowConsumer(program, url, lambda: peer.send('42["flood"]'))

    async def test_TLS(self) -> None:
        program, url = await self.serve(*self.SETTINGS, secure=True)
        peer = await deferToThread(self.webSocket, url)
        await self.assertSlowConsumer(program, url, lambda: peer.send('42["flood"]'))

    async def test_polling(self) -> None:
        program, url = await self.serve(*self.SETTINGS)
        peer = await deferToThread(self.peer, url)

        def attack() -> None:
            target = "/socket.io/?EIO=4&transport=polling"
            opened = peer.request("GET", target).partition(b"\r\n\r\n")[2]
            target += f"&sid={json.loads(opened[1:])['sid']}"
            peer.request("POST", target, "40")
            peer.request("POST", target, '42["flood"]')

        await self.assertSlowConsumer(program, url, attack)

    async def test_pings(self) -> None:
        """PINGs whose answers are never read: no memory is kept for them."""
        program, url = await self.serve("--ping-interval", "4", "--ping-timeout", "2")
        peer = await deferToThread(self.webSocket, url, 4096)
        before = self.memory(program)
        data = clientFrame(9, b"x" * 125) * 500

        def attack() -> None:
            peer.socket.settimeout(0.5)
            with contextlib.suppress(OSError):  # it takes no more, or is gone
                for _ in range(500):  # 33 MB
                    peer.socket.sendall(data)

        await deferToThread(attack)
        # Nothing of it is a sign of life, and the heartbeat is not answered.
        await self.until(lambda: "left: ping timeout" in program.output, program.output)
        self.assertLess(self.memory(program) - before, 10 * MB)
        await self.stopped(program)

    async def test_pipelined(self) -> None:
        """Requests one behind the other, whose answers are never read: they are read no further."""
        (self.folder / "public" / "large.txt").write_text("x" * 100_000)
        program, url = await self.serve("--static", "public")
        peer = await deferToThread(self.peer, url, 4096)
        before = self.memory(program)
        data = b"GET /large.txt HTTP/1.1\r\nHost: x\r\n\r\n" * 500

        def attack() -> bool:
            peer.socket.settimeout(5)
            try:
                for _ in range(500):  # 9 MB, and 25 GB of answers
                    peer.socket.sendall(data)
            except TimeoutError:
                return True
            return False

        self.assertTrue(await deferToThread(attack), "all of it was read")
        bystander = await deferToThread(self.webSocket, url)
        await deferToThread(bystander.echo, "during")
        self.assertLess(self.memory(program) - before, 25 * MB)
        await self.stopped(program)


class DeadPeerTests(ResourceTestCase):
    async def test_halfOpen(self) -> None:
        """A peer that is gone without a word is found by the heartbeat."""
        program, url = await self.serve(
            "--ping-interval", "4", "--ping-timeout", "1", "--handshake-timeout", "2"
        )
        before = self.files(program)
        for _ in range(5):
            await deferToThread(self.webSocket, url)
        await self.until(lambda: program.output.count("left: ping timeout") == 5, program.output)
        await self.until(lambda: self.files(program) <= before + 5, "the connections stay")
        # They do not answer the closing handshake either: handshakeTimeout ends them.
        await self.until(lambda: self.files(program) <= before, "the connections stay")
        await self.stopped(program)

    async def test_neverAnswersClose(self) -> None:
        """Neither the closing handshake of the WebSocket nor TLS's: the connection is dropped in time."""
        await self.assertDropped(secure=False)

    async def test_neverAnswersTLSClose(self) -> None:
        await self.assertDropped(secure=True)

    async def assertDropped(self, secure: bool) -> None:
        program, url = await self.serve("--handshake-timeout", "1", secure=secure)
        before = self.files(program)
        peers = [await deferToThread(self.webSocket, url) for _ in range(5)]
        for peer in peers:
            await deferToThread(peer.send, '42["close me"]')
        await self.until(lambda: program.output.count("left: ") == 5, program.output)
        await self.until(lambda: self.files(program) <= before, "the connections stay")
        await self.stopped(program)

    async def test_silentTLS(self) -> None:
        """TCP peers of a TLS port that never begin a handshake."""
        program, url = await self.serve("--request-timeout", "1", secure=True)
        before = self.files(program)

        def attack() -> None:
            for _ in range(20):
                peer = Peer(url.replace("https", "http"))
                self.peers.callback(peer.close)
                peer.socket.sendall(b"\x16\x03\x01")

        await deferToThread(attack)
        bystander = await deferToThread(self.webSocket, url)
        await deferToThread(bystander.echo, "during")
        await self.until(lambda: self.files(program) <= before + 1, "the connections stay")
        await self.stopped(program)


class StaticTests(ResourceTestCase):
    """The files of --static, by real requests."""

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        for name in ("public/index.html", "public/.env", "public/deep/.git", "secret"):
            (self.folder / name).write_text("the page" if name.endswith("html") else "a secret")
        self.program, self.url = await self.serve("--static", "public")

    async def test_traversal(self) -> None:
        """Neither above the folder, nor what is hidden in it: 404, or 400 for what is no request."""

        def attack() -> None:
            self.assertIn(b"the page", self.peer(self.url).request("GET", "/index.html"))
            self.assertIn(b"the page", self.peer(self.url).request("GET", "/"))
            for path in (
                "/../secret",
                "/..%2fsecret",
                "/%2e%2e/secret",
                "/%2e%2e%2fsecret",
                "/deep/../../secret",
                "/deep/..%2f..%2fsecret",
                "/..%5csecret",
                "/..\\secret",
                "/%252e%252e/secret",
                "/....//secret",
                "//../secret",
                "/.env",
                "/%2eenv",
                "/deep/.git",
                "/deep/../.env",
                "/deep/",
                "/index.html%00.png",
                "/%c0%ae%c0%ae/secret",
                "/socket.io/../secret",
                "/socket.io/../../secret",
                "/%",
                "/%zz",
                "/" + "a/" * 4000,
                "http://x/../secret",
            ):
                for method in ("GET", "POST", "PUT"):
                    answer = self.peer(self.url).request(method, path, headers="Connection: close\r\n")
                    self.assertNotIn(b"a secret", answer, path)
                    self.assertIn(answer.split(b" ")[1], (b"404", b"400", b"405", b"501"), (method, path))

        await deferToThread(attack)
        await self.stopped(self.program)

    async def test_ranges(self) -> None:
        """A thousand ranges of one file, and some that are none."""

        def attack() -> None:
            many = ",".join(f"{n}-{n + 1}" for n in range(1000))
            for value in (f"bytes={many}", "bytes=0-" * 500, "bytes=--1", "x", "bytes=9-1"):
                answer = self.peer(self.url).request("GET", "/index.html", headers=f"Range: {value}\r\n")
                self.assertIn(answer.split(b" ")[1], (b"200", b"206", b"416"), value[:20])
                self.assertLess(len(answer), 200_000)

        await deferToThread(attack)
        await self.stopped(self.program)


def http2Folder() -> str:
    """
    A folder with what makes twisted.web speak HTTP/2 (the extra http2), beside the environment of the tests,
    whose other servers go on without.
    """
    folder = FETCHED / "http2"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", folder]
    with alone(folder):
        if not (folder / "ready").exists():
            try:
                run(*pip, "h2>=3.2,<5", "priority>=1.1,<2")
            except AssertionError as error:
                requirePart(False, f"h2 and priority cannot be installed: {error}")
            (folder / "ready").touch()
    return str(folder)


class HTTP2Tests(ResourceTestCase):
    async def test_polling(self) -> None:
        """Long polling works over HTTP/2; a WebSocket does not, and is told so."""
        folder = http2Folder()
        program, url = await self.serve(secure=True, path=folder)
        client = startProgram(
            self,
            [sys.executable, str(Path(__file__).with_name("http2.py")), str(urlsplit(url).port)],
            environment={"PYTHONPATH": folder},
        )
        self.assertEqual(await client.whenEnded(60), 0, client.output)
        found: dict[str, Any] = json.loads(client.output.splitlines()[-1])
        self.assertEqual(found["agreed"], "h2")
        self.assertEqual(found["open"][0], 200)
        self.assertEqual(found["join"], [200, "ok"])
        self.assertEqual(found["joined"][0], 200)
        self.assertEqual(found["answer"], [200, '431["over HTTP/2"]'])
        self.assertEqual(found["too large"], [413, ""])
        self.assertEqual(found["far too large"], ["stream reset", ""])
        self.assertEqual(found["after that"][0], 200)
        self.assertEqual(found["WebSocket"][0], 400)
        self.assertEqual(
            json.loads(found["WebSocket"][1]),
            {"code": 3, "message": "Bad request: transport=websocket came as polling"},
        )
        self.assertEqual(found["page"][0], 404)
        # A WebSocket on the same port, over HTTP/1.1, as browsers open it.
        peer = await deferToThread(self.webSocket, url)
        await deferToThread(peer.echo, "over HTTP/1.1")
        await self.stopped(program)


class HerdTests(HostileTestCase):
    """Everybody at once, as after a restart; in memory, so that it is exact."""

    def herd(self, count: int) -> list[Any]:
        return [self.join(address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(count)]

    def test_fiveThousand(self) -> None:
        """Each costs what the first cost; what they leave is nothing; and they may come again."""
        few = callsOf(lambda: self.herd(250))
        for sid in list(self.engine.sessions)[1:]:
            self.engine.sessions[sid].transport.transport.lose()
        many = callsOf(lambda: self.herd(1000))
        self.assertLess(many / few, 4.2)
        for sid in list(self.engine.sessions)[1:]:
            self.engine.sessions[sid].transport.transport.lose()
        clients: list[Any] = []
        kept = keptBy(lambda: clients.extend(self.herd(1000)))
        self.assertLess(kept / 1000, 25_000)
        clients += self.herd(4000)
        self.assertEqual(len(self.server.namespace().sockets), 5001)
        self.server.emit("hello")
        self.assertEqual({tuple(client.messages()) for client in clients}, {('42["hello"]',)})
        timers = len(self.clock.getDelayedCalls())
        self.assertLess(timers, 300, "one timer for each client")
        for client in clients:
            client.link.lose()
        self.assertEqual(len(self.engine.sessions), 1)
        self.assertEqual(len(self.herd(1000)), 1000)
        for sid in list(self.engine.sessions)[1:]:
            self.engine.sessions[sid].transport.transport.lose()
