"""
The code in the documentation, page by page: what a page shows must work, in the order in which it is shown.

Files that a page includes whole are the examples, which tests/interop/test_examples.py runs.
"""

from __future__ import annotations

import configparser
import importlib
import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

from twisted import internet
from twisted.internet import endpoints, reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from tests.interop.clients import NODE, requireJavaScriptClient, untilListening
from tests.support import ROOT, TWISTD, TXREALTIME, Program, freePort, startProgram
from txrealtime.clientfiles import NAMES
from txrealtime.testing import Client, MemoryBus, MemoryHub, makeServer

DOCS = ROOT / "docs"
PAGES = {str(page.relative_to(DOCS).with_suffix("")): page for page in sorted(DOCS.rglob("*.rst"))}
PAGES["readme"] = ROOT / "README.md"

BLOCK = re.compile(
    r"^\.\. code-block:: (?P<language>\w+)\n(?:   :caption: (?P<name>.*)\n)?\n(?P<text>(?:   .*\n|\n)+)",
    re.MULTILINE,
)
FENCE = re.compile(r"^```(?P<language>\w+) ?(?P<name>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)

BROKER = "redis://localhost"
"Stands for a Redis that is started for the page."

HUB = "/run/chat"
"Stands for the folder of a hub's socket."

ACTIVATE = ("/bin/sh", "-c", 'exec env LISTEN_FDS=1 LISTEN_FDNAMES=chat.socket LISTEN_PID=$$ "$@"', "sh")
"Runs a command as systemd does, with file 3 a socket that listens."


@dataclass(frozen=True)
class Block:
    """
    A code block: its language, its text, and the name of the file that it is, which its caption tells.
    """

    language: str
    name: str
    text: str


def blocksOf(page: str) -> Iterator[Block]:
    """
    The code blocks of a page, in order.
    """
    source = PAGES[page]
    pattern = BLOCK if source.suffix == ".rst" else FENCE
    for found in pattern.finditer(source.read_text() + "\n"):
        yield Block(found["language"], found["name"] or "", dedent(found["text"]).strip() + "\n")


class Nonsense(Protocol):
    """
    Says what no server understands, and hears how it hangs up.
    """

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"?\r\n\r\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(None)


async def answered(port: int) -> None:
    """
    Wait until a server reacts: one that listens may not be running yet, and would not end well.
    """
    endpoint = endpoints.clientFromString(reactor, f"tcp:127.0.0.1:{port}")
    protocol = await endpoints.connectProtocol(endpoint, Nonsense())
    await protocol.done


class PageTestCase(TestCase):
    """
    Runs pages, in a folder with the examples and the files of the tutorial.

    :ivar names: what the Python blocks of the page have defined so far.
    :ivar clock: what servers made there take for the reactor.
    :ivar port: where the server listens that a command of the page has started.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        shutil.copytree(DOCS / "examples", self.folder)
        for block in blocksOf("tutorial"):
            if block.name:
                (self.folder / block.name).write_text(block.text)
        self.names: dict[str, Any] = {"__name__": "page"}
        self.clock = Clock()
        self.port = 0
        self.server: Program | None = None
        loaded = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in sys.modules.keys() - loaded])
        self.patch(sys, "path", [str(self.folder), *sys.path])

    async def runPage(self, page: str, *languages: str) -> None:
        """Run the blocks of a page; only those in some languages if these are named."""
        if page.startswith("guide/"):
            self.folder /= "guide"  # where its programs are
            sys.path.insert(0, str(self.folder))
        redis = hub = None
        for block in blocksOf(page):
            if BROKER in block.text:
                redis = redis or await Redis(self).start()
                block = replace(block, text=block.text.replace(BROKER, redis.url))
            if HUB in block.text:
                hub = hub or tempfile.mkdtemp()  # the path of a socket is short
                self.addCleanup(shutil.rmtree, hub, True)
                block = replace(block, text=block.text.replace(HUB, hub))
            if not languages or block.language in languages:
                await getattr(self, f"show_{block.language}")(block)

    # -- what a block shows --------------------------------------------------------

    async def show_text(self, block: Block) -> None:
        """Not code."""

    async def show_python(self, block: Block) -> None:
        """A file to import, the continuation of one or of the block before; `main(reactor)` listens."""
        if block.name:
            text = block.text.replace("localhost:8000", f"localhost:{self.port}") if self.port else block.text
            (self.folder / block.name).write_text(text)
            return
        if continued := re.match(r"# (\w+)\.py, continued\n", block.text):
            self.names.update(vars(importlib.import_module(continued[1])))
        real = internet.reactor
        internet.reactor = self.clock
        try:
            exec(compile(block.text, "page", "exec"), self.names)
        finally:
            internet.reactor = real
        if "main" in self.names:
            memory = MemoryReactorClock()
            self.names.pop("main")(memory)
            self.assertEqual([port for port, *_ in memory.tcpServers], [8000])

    async def show_javascript(self, block: Block) -> None:
        """A file, which a command runs."""
        (self.folder / block.name).write_text(block.text.replace("8000", str(self.port)))

    async def show_ini(self, block: Block) -> None:
        """A unit of systemd, whose command must work."""
        unit = configparser.RawConfigParser()
        unit.read_string(block.text)
        if unit.has_section("Service"):
            await self.command_twistd(*shlex.split(unit["Service"]["ExecStart"])[1:])

    async def show_html(self, block: Block) -> None:
        """A page, whose client the server has."""
        for name in re.findall(r'src="/socket\.io/([^"?]*)', block.text):
            self.assertIn(name, NAMES)

    async def show_bash(self, block: Block) -> None:
        """Lines of a start-up file, which the shell must take without a word."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        program = self.start("/bin/bash", "-ec", block.text, environment={"PATH": path})
        self.assertEqual((await program.whenEnded(), program.output), (0, ""))

    async def show_console(self, block: Block) -> None:
        """Commands behind a $, and what each prints, where ... stands for anything."""
        for part in re.split(r"^\$ ", block.text.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            name, *arguments = shlex.split(command)
            printed = await getattr(self, f"command_{name}", partial(self.command, name))(*arguments)
            for shown, line in zip(output.splitlines(), printed.splitlines(), strict=False):
                expected = ".*".join(map(re.escape, shown.split("...")))
                self.assertTrue(re.fullmatch(expected, line), f"{shown!r} is shown, not {line!r}")

    # -- commands --------------------------------------------------------------------

    async def command_twistd(self, *arguments: str) -> str:
        return await self.serve(TWISTD, *arguments)

    async def command_txrealtime(self, *arguments: str) -> str:
        if arguments[0] == "serve":
            return await self.serve(TXREALTIME, *arguments)
        return await self.command("txrealtime", *arguments)

    async def serve(self, *arguments: str) -> str:
        """The server must come up, on free ports, and serves what comes after it on the page."""
        await self.stop()
        command: list[str] = []
        ports: list[int] = []
        for argument in arguments:
            if argument.startswith(("tcp:", "ssl:", "haproxy:")):
                ports.append(freePort())
                argument = re.sub(":[0-9]+", f":{ports[-1]}", argument, count=1)
            command.append(argument)
        if any(argument.startswith("systemd:") for argument in arguments):
            with socket.create_server(("127.0.0.1", 0)) as listening:
                ports.append(listening.getsockname()[1])
                self.server = self.start(*ACTIVATE, *command, childFDs={3: listening.fileno()})
        else:
            if not ports or ({"realtime", "serve"} & set(arguments) and "--listen" not in arguments):
                ports.insert(0, freePort())
                command += ["--listen", f"tcp:{ports[0]}"]
            self.server = self.start(*command)
        for port in ports:
            await untilListening(self.server, port)
            await answered(port)
        self.port = ports[0]
        return ""

    async def command_gunicorn(self, *arguments: str) -> str:
        """The application must come up, on a free port."""
        await self.stop()
        self.port = freePort()
        bind = ["--no-control-socket", "-b", f"127.0.0.1:{self.port}"]
        self.server = self.start(sys.executable, "-m", "gunicorn", *bind, *arguments)
        await untilListening(self.server, self.port)
        await answered(self.port)
        return ""

    async def command(self, name: str, *arguments: str) -> str:
        """A program of the environment, called by its name as a user calls it, and nothing on its path."""
        here = f"localhost:{self.port}" if self.port else "localhost:8000"
        return await self.finished(
            str(Path(sys.executable).with_name(name)),
            *[argument.replace("localhost:8000", here) for argument in arguments],
        )

    async def command_node(self, script: str) -> str:
        requireJavaScriptClient("socket.io-client-4")
        (self.folder / "node_modules").mkdir()
        (self.folder / "node_modules" / "socket.io-client").symlink_to(
            ROOT / "tests" / "interop" / "node_modules" / "socket.io-client-4"
        )
        return await self.finished(str(NODE), script)

    async def command_npm(self, install: str, *packages: str) -> str:
        """The packages must be those that the tests have."""
        for package in packages:
            requireJavaScriptClient(package)
            place = self.folder / "node_modules" / package
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(ROOT / "tests" / "interop" / "node_modules" / package)
        return ""

    async def command_openssl(self, *arguments: str) -> str:
        return await self.finished(str(shutil.which("openssl")), *arguments)

    async def finished(self, *command: str) -> str:
        """Run a command, which must succeed, and return its output."""
        program = self.start(*command)
        self.assertEqual(await program.whenEnded(), 0, program.output)
        return program.output

    def start(self, *command: str, environment: dict[str, str] | None = None, **options: Any) -> Program:
        # Nothing that a user has not: the package is installed, and commands find the current folder or not.
        environment = {"PYTHONPATH": "", **(environment or {})}
        return startProgram(self, command, cwd=str(self.folder), environment=environment, **options)

    async def stop(self) -> None:
        """The server must end well."""
        program, self.server = self.server, None
        if program is not None:
            self.assertEqual(await program.stop(), 0, program.output)
            self.assertNotIn("Traceback", program.output)


class PageTests(PageTestCase):
    """
    One test for each page with code.
    """


def _testOf(page: str) -> Any:
    async def test(self: PageTests) -> None:
        await self.runPage(page)
        await self.stop()

    return test


for page in PAGES:
    if any(blocksOf(page)):
        setattr(PageTests, f"test_{re.sub('[^a-z]', '_', page)}", _testOf(page))


class TutorialTests(PageTestCase):
    """
    The tutorial's words on the application that it builds.
    """

    async def setUp(self) -> None:
        super().setUp()
        # A server takes its clock when the first client comes.
        self.patch(internet, "reactor", self.clock)
        await self.runPage("tutorial", "python")
        self.application = self.names["server"]
        self.alice, self.bob = self.client(), self.client()

    def client(self) -> Client:
        client = Client(self.application)
        self.successResultOf(client.connect())
        return client

    def test_sayReachesEverybodyAndIsAcknowledged(self) -> None:
        self.assertEqual(self.successResultOf(self.alice.call("say", "hello")), "delivered")
        for client in (self.alice, self.bob):
            self.assertEqual(client.received(), [("said", self.alice.id(), "hello")])

    def test_rooms(self) -> None:
        self.alice.emit("enter", "red")
        self.bob.emit("enter", "red")
        self.client().emit("tell", "red", "hello")
        self.assertEqual([name for name, *_ in self.alice.received()], ["entered", "said"])
        self.assertEqual([name for name, *_ in self.bob.received()], ["said"])

    def test_whoIsInTwoRoomsGetsOneEvent(self) -> None:
        carol = self.client()
        for client, room in (
            (self.bob, "red"),
            (self.bob, "blue"),
            (carol, "red"),
            (carol, "muted"),
            (self.alice, "red"),
        ):
            client.emit("enter", room)
        self.bob.received()
        carol.received()
        self.alice.received()
        self.alice.emit("shout", "hello")
        self.assertEqual(self.bob.received(), [("said", self.alice.id(), "HELLO")])
        self.assertEqual(carol.received() + self.alice.received(), [])

    def test_leavingAsksFirst(self) -> None:
        self.alice.emit("enter", "red")
        self.alice.on("sure?", lambda room: False)
        self.assertEqual(self.successResultOf(self.alice.call("leave", "red")), ["red"])
        self.alice.on("sure?", lambda room: True)
        self.assertEqual(self.successResultOf(self.alice.call("leave", "red")), [])


class SheetTests(TestCase):
    """
    The table of ways to send: each line of code sends to those whom it names.
    """

    HEARD = {
        "the client of a socket": "ann",
        "everybody in the namespace": "ann bob carl dora",
        "everybody but the socket": "bob carl dora",
        "a room": "ann bob carl",
        "a room, but not the socket": "bob carl",
        "several rooms, to each socket once": "ann bob carl",
        "everybody but a room": "dora",
        "a room, but not those in another one": "ann bob",
        "one client, by its id": "bob",
        "another namespace": "news",
        "the clients of this server only": "ann bob carl",
        "those to whom it can go at once": "ann bob",  # Carl's connection is full
        "several values, bytes among them": "ann",
        "an event without a name (``message``)": "ann",
        "a client, with its ack": "ann",
        "many clients, with a list of their acks": "ann bob carl",
        "the other servers of the cluster, not clients": "peer",
        "from another thread": "ann bob carl",
    }
    ROOMS = {"ann": ["red"], "bob": ["red", "blue"], "carl": ["red", "muted"], "dora": []}

    def setUp(self) -> None:
        self.heard: list[str] = []
        self.hub = MemoryHub()
        self.clock = MemoryReactorClock()
        self.clock.callFromThread = partial(self.clock.callLater, 0)
        self.server, self.peer = (makeServer(reactor=self.clock, bus=MemoryBus(self.hub)) for _ in range(2))
        self.peer.cluster.on("news")(lambda number: self.heard.append("peer"))
        self.settle()
        self.clients = {name: self.client(name) for name in self.ROOMS}
        self.server.namespace("/news")
        self.clients["news"] = self.client("news", "/news")
        sockets = self.server.namespace().sockets
        self.sockets = {name: sockets[self.clients[name].id()] for name in self.ROOMS}
        for name, rooms in self.ROOMS.items():
            self.sockets[name].join(*rooms)

    def client(self, name: str, path: str = "/") -> Client:
        client = Client(self.server)
        self.successResultOf(client.connect(path))
        for event in ("news", "message"):
            client.on(event, namespace=path)(lambda *values: self.heard.append(name) or name)
        return client

    def settle(self) -> None:
        for _ in range(30):
            self.clock.advance(0.1)
            for client in getattr(self, "clients", {}).values():
                if client.transport.writable:
                    client.flush()

    def test_sheet(self) -> None:
        table = (DOCS / "guide" / "sending.rst").read_text()
        rows = re.findall(r"^   \* - (.+)\n     - ``(.+)``$", table, re.MULTILINE)
        self.assertEqual([to for to, _ in rows], list(self.HEARD))
        names = {"server": self.server, "socket": self.sockets["ann"], "bob": self.sockets["bob"]}
        for to, code in rows:
            with self.subTest(to):
                self.heard = []
                if "volatile" in code:
                    self.clients["carl"].stopReading()
                if code.startswith("await "):
                    result = eval(code.removeprefix("await "), names)
                    self.settle()
                    acks = self.successResultOf(result)
                    self.assertEqual(sorted([acks] if isinstance(acks, str) else acks), sorted(self.heard))
                else:
                    eval(code, names)
                    self.settle()
                if "volatile" in code:
                    self.clients["carl"].resumeReading()
                self.assertEqual(sorted(self.heard), sorted(self.HEARD[to].split()))
