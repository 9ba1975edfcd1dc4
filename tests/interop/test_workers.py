"""
`twistd realtime --workers` as processes: starts, crashes, reloads, and the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support import ROOT, TWISTD, Program, requirePart, startProgram

APPLICATION = """
import os, time
from txrealtime import Server

server = Server(pingInterval=60, pingTimeout=60)

@server.on("enter")
def enter(socket, room):
    socket.join(room)
    return os.getpid()

@server.on("post")
def post(socket, room, sender, value, padding):
    server.to(room).emit("posted", sender, value, padding)

@server.on("echo")
def echo(socket, *args):
    return args

@server.on("where")
def where(socket, value):
    return [value, VERSION, os.getpid()]

@server.onConnect
def connected(socket, auth):
    if auth == {"block": True}:
        time.sleep(1000)

VERSION = "first"

def wsgi(environment, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.getpid()}".encode()]
"""

PLACE = "tcp:0:interface=127.0.0.1"

ADDRESS = re.compile(r"serving Socket.IO at (\S+?)/socket\.io/")

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


def alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class WorkersTestCase(TestCase):
    """Tests of a supervisor with an application, `shop.py`, in a folder of its own."""

    timeout = 300

    def setUp(self) -> None:
        requirePart(Path("/proc/self/stat").exists(), "no /proc: the tests look for processes there")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir(parents=True)
        self.application(APPLICATION)

    def application(self, text: str) -> None:
        """Write the application; a change within a second must not meet the compiled one before."""
        (self.folder / "shop.py").write_text(text)

    def start(self, *arguments: str) -> Program:
        command = [TWISTD, "-n", "--pidfile=", "realtime", *arguments]
        environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        program = startProgram(self, command, cwd=str(self.folder), environment=environment)
        # Also where a test fails, no worker stays; a worker by itself ends soon after its supervisor.
        self.addCleanup(lambda: [os.kill(pid, signal.SIGKILL) for pid in self.pids(program) if alive(pid)])
        return program

    async def serve(self, count: int, *arguments: str, listen: str = PLACE) -> tuple[Program, str]:
        """Start a supervisor and return it, and its URL, when all workers serve."""
        program = self.start(
            *("--app", "shop:server", "--workers", str(count), "--listen", listen), *arguments
        )
        await program.whenPrinted("serving Socket.IO at", 120)
        found = ADDRESS.search(program.output)
        assert found is not None
        return program, found[1]

    def pids(self, program: Program) -> list[int]:
        """The processes that have served as workers, in the order of their starts."""
        return [int(pid) for pid in re.findall(r"worker \d+ serves, as process (\d+)", program.output)]

    async def until(self, condition: Any, seconds: float = 120.0) -> None:
        """Wait until a condition holds."""
        deadline = reactor.seconds() + seconds
        while not condition():
            self.assertLess(reactor.seconds(), deadline, "too late; the programs of the test say more")
            await deferLater(reactor, 0.05)

    async def stopped(self, program: Program, name: str = "TERM") -> None:
        """Stop it: it ends with code 0, and its workers with it."""
        program.signal(name)
        self.assertEqual(await program.whenEnded(), 0, program.output)
        self.assertEqual(
            [line for line in program.output.splitlines() if "Traceback" in line or "Error" in line], []
        )
        self.assertEqual([pid for pid in self.pids(program) if alive(pid)], [])

    def folderOf(self, pid: int) -> Path:
        """Return the folder of a worker's sockets."""
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        [terms] = [json.loads(argument) for argument in arguments if argument.startswith(b'{"number"')]
        return Path(terms["folder"])

    def counts(self, program: Program) -> dict[str, int]:
        """The sums of what the workers told when they stopped."""
        found = re.findall(
            r"(\d+) connections handed over, (\d+) requests relayed, (\d+) WebSockets carried, (\d+) connect",
            program.output,
        )
        names = ("handed", "relayed", "carried", "kept")
        return {name: sum(int(line[place]) for line in found) for place, name in enumerate(names)}

    def open(self, url: str) -> str:
        """Open a session by polling and return its sid."""
        with urlopen(url + HANDSHAKE, timeout=30) as response:
            sid: str = json.loads(response.read()[1:])["sid"]
            return sid

    def post(self, url: str, sid: str, body: bytes = b"3") -> bytes:
        """Send packets to a session."""
        with urlopen(f"{url}{HANDSHAKE}&sid={sid}", data=body, timeout=30) as response:
            answer: bytes = response.read()
            return answer


class LifeTests(WorkersTestCase):
    """Processes that start, fail and end."""

    async def test_oneWorker(self) -> None:
        """With one worker too, the process of twistd is the supervisor, and keeps its id."""
        program, url = await self.serve(1)
        [pid] = self.pids(program)
        self.assertNotEqual(pid, program.transport.pid)
        self.open(url)
        self.assertEqual(program.output.count("serving Socket.IO at"), 1)
        await self.stopped(program, "INT")

    async def test_cannotStart(self) -> None:
        """An application that no worker can load is one line, and code 1, and the port is free."""
        self.application("import sys; sys.exit(7)")
        program = self.start("--app", "shop:server", "--workers", "2", "--listen", PLACE)
        self.assertEqual(await program.whenEnded(), 1, program.output)
        told = [line for line in program.output.splitlines() if line.startswith("twistd realtime: ")]
        self.assertEqual(len(told), 1, program.output)
        self.assertIn("--app shop:server: shop called sys.exit(7)", told[0])

    async def test_placeTaken(self) -> None:
        """A port that is taken ends the program before a worker starts."""
        program, url = await self.serve(1)
        port = url.rpartition(":")[2]
        other = self.start(
            "--app", "shop:server", "--workers", "2", "--listen", f"tcp:{port}:interface=127.0.0.1"
        )
        self.assertEqual(await other.whenEnded(), 1)
        self.assertIn(f"twistd realtime: cannot listen on tcp:{port}:interface=127.0.0.1: ", other.output)
        await self.stopped(program)

    async def test_places(self) -> None:
        """Several ports, of several kinds, are one server."""
        program, url = await self.serve(2, "--listen", "unix:shop.socket", "--listen", PLACE)
        await self.until(lambda: program.output.count("serving Socket.IO at") == 3)
        self.assertEqual(program.output.count("serving Socket.IO at"), 3)
        second = ADDRESS.findall(program.output)[-1]
        sid = self.open(url)
        for _ in range(6):
            self.assertEqual(await deferToThread(self.post, second, sid), b"ok")
        await self.stopped(program)
        self.assertFalse((self.folder / "shop.socket").exists())

    def block(self, url: str, sid: str) -> None:
        """Have a handler block the only worker, which serves nobody then."""
        with (
            contextlib.suppress(TimeoutError),
            urlopen(f"{url}{HANDSHAKE}&sid={sid}", data=b'40{"block":true}', timeout=1),
        ):
            pass
        with self.assertRaises(TimeoutError), urlopen(url + HANDSHAKE, timeout=1):
            pass

    async def test_hub(self) -> None:
        """Programs beside the workers emit by the hub, if it has a path."""
        folder = mkdtemp()  # the path of a socket is short
        self.addCleanup(rmtree, folder)
        hub = Path(folder, "chat.hub")
        program, url = await self.serve(2, "--hub", str(hub))
        sid = self.open(url)
        await deferToThread(self.post, url, sid, b"40")
        emit = [sys.executable, "-m", "txrealtime", "emit", "--bus", f"unix:{hub}", "news", "1"]
        emitting = startProgram(self, emit, cwd=str(self.folder), environment={"PYTHONPATH": str(ROOT)})
        self.assertEqual(await emitting.whenEnded(), 0, emitting.output)
        body = b""
        while b'42["news",1]' not in body:
            with await deferToThread(urlopen, f"{url}{HANDSHAKE}&sid={sid}", timeout=30) as response:
                body += response.read()
        await self.stopped(program)
        self.assertFalse(hub.exists())

    async def test_killed(self) -> None:
        """A worker that is killed is started again; its sessions are refused at once, the others go on."""
        program, url = await self.serve(4)
        sids = [self.open(url) for _ in range(30)]
        pids = self.pids(program)
        os.kill(pids[0], signal.SIGKILL)
        await self.until(lambda: "was ended by SIGKILL" in program.output)
        outcomes = {}
        for sid in sids:
            begun = time.monotonic()
            try:
                outcomes[sid] = await deferToThread(self.post, url, sid)
            except HTTPError as error:
                outcomes[sid] = error.read()
                # Otherwise it would be the ping timeout, which is a minute.
                self.assertLess(time.monotonic() - begun, 40)
        lost = {sid[-4:] for sid, outcome in outcomes.items() if outcome != b"ok"}
        self.assertLessEqual(len(lost), 1)
        self.assertEqual(
            set(outcomes.values()) - {b"ok"} or {b'{"code":1,"message":"Session ID unknown"}'},
            {b'{"code":1,"message":"Session ID unknown"}'},
        )
        self.assertGreater(list(outcomes.values()).count(b"ok"), 0)
        await self.until(lambda: len(self.pids(program)) == 5)
        await self.stopped(program)

    async def test_supervisorKilled(self) -> None:
        """
        The workers of a supervisor that was killed end, however slow their drain, and the port is free.

        The next supervisor removes their folder.
        """
        program, url = await self.serve(2, "--drain", "60", "--drain-delay", "60")
        self.open(url)
        pids = self.pids(program)
        folder = self.folderOf(pids[0])
        self.assertTrue(folder.exists())
        program.signal("KILL")
        # Before the delay and the drain are over.
        await self.until(lambda: not any(map(alive, pids)), 50)
        again, _ = await self.serve(1, listen=f"tcp:{url.rpartition(':')[2]}:interface=127.0.0.1")
        self.assertFalse(folder.exists())
        await self.stopped(again)

    async def test_supervisorKilledWhileAWorkerIsBlocked(self) -> None:
        """A handler that blocks its worker does not keep the worker alive."""
        program, url = await self.serve(1, "--hang-timeout", "0")
        sid = self.open(url)
        self.block(url, sid)
        [pid] = self.pids(program)
        program.signal("KILL")
        await self.until(lambda: not alive(pid))

    async def test_hangs(self) -> None:
        """A worker that hangs is killed, after its stacks have gone to the log, and replaced."""
        program, url = await self.serve(1, "--hang-timeout", "8")
        sid = self.open(url)
        self.block(url, sid)
        await self.until(lambda: len(self.pids(program)) >= 2)
        self.assertIn("hangs: its stacks follow", program.output)
        self.assertRegex(program.output, r'worker 0: +File ".*shop.py", line \d+ in connected')
        self.open(url)
        await self.stopped(program)

    async def test_reload(self) -> None:
        """A reload under traffic refuses nobody; then the new code answers."""
        program, url = await self.serve(2, "--wsgi", "shop:wsgi")
        old = self.pids(program)
        seen: list[tuple[str, int]] = []
        failures: list[Exception] = []
        ends: list[bool] = []

        def visit() -> None:
            while not ends:
                try:
                    with urlopen(url + "/", timeout=30) as response:
                        version, pid = response.read().decode().split()
                        seen.append((version, int(pid)))
                    self.open(url)
                except Exception as error:
                    failures.append(error)
                time.sleep(0.01)

        visiting = deferToThread(visit)
        try:
            self.application(APPLICATION.replace('"first"', '"second"'))
            program.signal("HUP")
            await program.whenPrinted("new workers serve")
            await self.until(lambda: not any(map(alive, old)))
            count = len(seen)
            await self.until(lambda: len(seen) > count + 20)
        finally:
            ends.append(True)
            await visiting
        self.assertEqual(failures, [])
        self.assertEqual({version for version, _ in seen[count + 1 :]}, {"second"})
        self.assertEqual({pid for _, pid in seen[count + 1 :]} & set(old), set())
        await self.stopped(program)

    async def test_reloadThatFails(self) -> None:
        """New workers that cannot load the application are given up, and the old ones stay."""
        program, url = await self.serve(2)
        sid = self.open(url)
        self.application("import nothere")
        program.signal("HUP")
        await program.whenPrinted("the new workers are given up")
        self.assertEqual(await deferToThread(self.post, url, sid), b"ok")
        self.assertEqual(len([pid for pid in self.pids(program) if alive(pid)]), 2)
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0)

    async def test_moreAndLess(self) -> None:
        program, _ = await self.serve(1)
        os.kill(program.transport.pid, signal.SIGTTIN)
        await self.until(lambda: len(self.pids(program)) == 2)
        os.kill(program.transport.pid, signal.SIGTTOU)
        await self.until(lambda: not alive(self.pids(program)[1]))
        os.kill(program.transport.pid, signal.SIGTTOU)
        await self.until(lambda: alive(self.pids(program)[0]))
        await self.stopped(program)
