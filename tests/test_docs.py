"""
The code in the documentation, page by page: what a page shows must work, in the order in which it is shown.

Files that a page includes whole are the examples, which tests/interop/test_examples.py runs.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
import tomllib
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
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.brokers import Redis
from tests.interop.clients import NODE, requireJavaScriptClient, untilListening
from tests.support import ROOT, TWISTD, TXREALTIME, Program, freePort, startProgram
from txrealtime import Audience, Handshake, Namespace, Server, Settings, Socket
from txrealtime.clientfiles import NAMES
from txrealtime.cluster.cluster import Cluster
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
        self.follower: Program | None = None
        loaded = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in sys.modules.keys() - loaded])
        self.patch(sys, "path", [str(self.folder), *sys.path])

    async def runPage(self, page: str, *languages: str) -> None:
        """Run the blocks of a page; only those in some languages if these are named."""
        chapter = Path(page).parent.name
        if chapter in ("guide", "coming-from"):
            self.folder /= chapter  # where its programs are
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
        (self.folder / block.name).write_text(block.text)

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
        if arguments[0] != "-ny":
            return await self.serve(TWISTD, *arguments)
        file = self.folder / arguments[1]
        if "tcp:8000" not in file.read_text():
            return await self.follow(TWISTD, *arguments)
        await self.stop()
        self.port = freePort()
        file.write_text(file.read_text().replace("tcp:8000", f"tcp:{self.port}"))
        self.server = self.start(TWISTD, *arguments)
        await untilListening(self.server, self.port)
        await answered(self.port)
        return ""

    async def follow(self, *command: str) -> str:
        """A service that connects to the server must do so, and runs beside it."""
        self.follower = self.start(*command)
        await self.follower.whenPrinted("connected")
        return ""

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
        """A client, which ends by itself, or a server, which serves what comes after it on the page."""
        file = self.folder / script
        text = file.read_text()
        if 'from "socket.io"' in text:
            await self.stop()
            self.port = freePort()
            file.write_text(text.replace("8000", str(self.port)))
            self.server = self.start(str(NODE), script)
            await untilListening(self.server, self.port)
            return ""
        if not (self.folder / "node_modules" / "socket.io-client").exists():
            await self.command_npm("install", "socket.io-client")
        file.write_text(text.replace("8000", str(self.port)))
        return await self.finished(str(NODE), script)

    async def command_npm(self, install: str, *packages: str) -> str:
        """The packages must be those that the tests have."""
        for package in packages:
            installed = "socket.io-client-4" if package == "socket.io-client" else package
            requireJavaScriptClient(installed)
            place = self.folder / "node_modules" / package
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(ROOT / "tests" / "interop" / "node_modules" / installed)
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
        """The server, and the service that follows it, must end well."""
        programs = [program for program in (self.follower, self.server) if program is not None]
        self.follower = self.server = None
        for program in programs:
            code = await program.stop()
            self.assertNotIn("Traceback", program.output)
            if program.command[0] != str(NODE) and "-ny" not in program.command:  # they end by the signal
                self.assertEqual(code, 0, program.output)


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


class FragmentTests(SynchronousTestCase):
    """
    News fragments: towncrier passes over a folder that pyproject.toml does not name.
    """

    def test_folders(self) -> None:
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
        folder = DOCS / "newsfragments"
        used = {str(file.parent.relative_to(folder)) for file in folder.rglob("*.rst")}
        self.assertLessEqual(used - {"."}, {section["path"] for section in settings["section"]})

    def test_facts(self) -> None:
        """Each fact has an item of its own, so that none hides in the paragraph of another."""
        for file in (DOCS / "newsfragments").rglob("*.rst"):
            [_, *lines] = file.read_text().splitlines()
            hidden = [line for line in lines if re.match("(Added|Changed|Fixed|Removed): ", line)]
            self.assertEqual(hidden, [], file.name)


class ClientListTests(SynchronousTestCase):
    """
    The list of clients: what it names is what the tests play.
    """

    PAGE = (DOCS / "clients.rst").read_text()

    def test_tests(self) -> None:
        named = set(re.findall("test_[a-z0-9_]+[.]py", self.PAGE))
        self.assertGreater(len(named), 5)
        self.assertLessEqual(named, {file.name for file in (ROOT / "tests").rglob("test_*.py")})

    def test_versions(self) -> None:
        """The JavaScript and old Python clients are those that the tests install."""
        interop = ROOT / "tests" / "interop"
        packages = json.loads((interop / "package.json").read_text())["dependencies"]
        installed = {
            version.rpartition("@")[2]
            for name, version in packages.items()
            if name.startswith(("socket.io-client-", "socket.io-msgpack-parser"))
        }
        installed.update(
            re.findall(r"(?:client|python-socketio.*)[@=]+([\d.]+)", (interop / "clients.py").read_text())
        )
        played = self.PAGE.partition("Not played whole")[0]
        self.assertEqual(set(re.findall(r"\d+[.]\d+[.]\d+", played)), installed)


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
        "the sockets that can take it at once": "ann bob",  # Carl's connection is full
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


class ComingFromTests(SynchronousTestCase):
    """
    The tables of both APIs side by side: what stands on the right is there, and wrong options are answered.
    """

    OWNERS = {"server": Server, "socket": Socket}

    def rows(self, page: str, count: int) -> list[list[str]]:
        """Find the rows of all tables of a page with so many columns, but their heads."""
        text = (DOCS / "coming-from" / f"{page}.rst").read_text()
        rows = [row.partition("\n\n")[0] for row in re.split(r"\n   \* - ", text)[1:]]
        rows = [re.split(r"\n     -(?: |$)", row) for row in rows]
        return [row for row in rows if len(row) == count]

    def check(self, code: str) -> int:
        """Check the names of a piece of code, if it is one, and count those that are ours."""
        try:
            tree = ast.parse(code.lstrip("@").removeprefix("await "))
        except SyntaxError:
            return 0
        found = 0
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                names = []
                base: Any = node
                while isinstance(base, ast.Attribute | ast.Call | ast.Subscript):
                    if isinstance(base, ast.Attribute):
                        names.insert(0, base.attr)
                        base = base.value
                    else:
                        base = base.func if isinstance(base, ast.Call) else base.value
                if isinstance(base, ast.Name) and base.id in self.OWNERS:
                    found += 1
                    self.assertTrue(self.has(self.OWNERS[base.id], names), code)
        return found

    def has(self, owner: type, names: list[str]) -> bool:
        """Tell if the first name is an attribute, and the second one of the first or of an audience."""
        if not hasattr(owner, names[0]) and names[0] != "cluster":  # which instances have
            return False
        then: tuple[Any, ...] = {
            "cluster": (Cluster,),
            "namespace": (Namespace(),),
            "handshake": (Handshake,),
            "call": (Deferred,),
        }.get(names[0], (Audience,))
        return len(names) == 1 or any(hasattr(each, names[1]) for each in then)

    def test_names(self) -> None:
        for page in ("node", "python-socketio"):
            codes = [code for _, right in self.rows(page, 2) for code in re.findall("``(.+?)``", right)]
            self.assertGreater(sum(map(self.check, codes)), 20, page)

    def answers(self, left: str) -> Iterator[str]:
        """Yield the words of a server to options of others."""
        for name in re.findall(r"(?:^``|, ``)(\w+)", left):
            try:
                Server(**{name: object()})
            except (TypeError, ValueError) as error:
                yield str(error)

    def test_options(self) -> None:
        """An option that is given as it was is refused, with the name of ours, or has the same name."""
        rows = [row[:2] for row in self.rows("node", 3)]
        rows += [row for row in self.rows("python-socketio", 2) if re.match(r"``\w+=", row[0])]
        checked = 0
        for left, right in rows:
            name = re.match(r"``(\w+)", left)
            ours = re.match(r"``(\w+)", right)
            if name is None or ours is None or left == "Node":
                continue
            checked += 1
            self.assertIn(ours[1], [*Settings.__dataclass_fields__, "bus", "parser", "path", "allowRequest"])
            if name[1] != ours[1]:
                [answer] = self.answers(left)
                self.assertIn(f"pass {ours[1]}", answer)
        self.assertEqual(checked, 25)
