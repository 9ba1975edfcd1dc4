"""
A real Prometheus that scrapes loaded servers: each panel of the dashboard has data, and each alert fires.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from tests.interop.test_twistd import FREE, ProcessTestCase
from tests.memory import clientFrame
from tests.support import ROOT, TWISTD, Program, freePort, requirePart, run, startProgram

FOLDER = ROOT / "docs" / "monitoring"

PLAIN = """
import time
from txrealtime import Server
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

server = Server(pingInterval=2, pingTimeout=10, maxBuffered=10_000)

@server.on("echo")
def echo(socket, *args):
    return args

@server.on("fail")
def fail(socket):
    raise ValueError

@server.on("block")
def block(socket):
    time.sleep(0.3)

@server.on("slow")
async def slow(socket):
    await deferLater(reactor, 1.5)

@server.on("wait")
def wait(socket):
    return Deferred()

@server.on("question")
async def question(socket):
    socket.call("question", timeout=0.5).addErrback(lambda failure: None)

@server.on("flood")
def flood(socket):
    for number in range(200):
        socket.emit("flood", "x" * 100_000)

@server.on("large")
def large(socket):
    for number in range(40):
        server.to("nobody").emit("large", "x" * 1_500_000)
"""

FLASK = """
import time
from flask import Flask
from txrealtime.flask import SocketIO

app = Flask(__name__)
socketio = SocketIO(app, handler_threads=2)

@socketio.on("wait")
def wait():
    time.sleep(3600)
"""

FASTER = 60
"""The durations of the rules are shorter by this factor."""


def faster(rules: str) -> str:
    """Shorten the durations of rules, to 3 seconds at least."""

    def shorter(match: re.Match[str]) -> str:
        seconds = int(match[2]) * {"s": 1, "m": 60}[match[3]]
        return f"{match[1]}{max(3, seconds // FASTER)}s"

    return re.sub(r"(\[|offset |for: )(\d+)([ms])\b", shorter, rules)


class Raw(Protocol):
    """A client that does what real ones should not."""

    def __init__(self, host: str, isLively: bool) -> None:
        self._host = host
        self._isLively = isLively
        self._head = b""

    def connectionMade(self) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(  # type: ignore[union-attr]
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {self._host}\r\n"
            "Upgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.send("40")

    def send(self, text: str) -> None:
        """Send a message."""
        self.transport.write(clientFrame(1, text.encode()))  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        # A PING comes alone: other messages are rare here.
        if self._isLively and b"\x81\x012" in data:
            self.send("3")

    def stopReading(self) -> None:
        """Read nothing more."""
        self.transport.pauseProducing()  # type: ignore[union-attr]


class MetricsTestCase(ProcessTestCase):
    async def client(self, url: str, isLively: bool = True) -> Raw:
        """Connect a client."""
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        factory = Factory.forProtocol(lambda: Raw(parts.netloc, isLively))
        client: Raw = await TCP4ClientEndpoint(reactor, parts.hostname, parts.port).connect(factory)
        self.addCleanup(client.transport.abortConnection)  # type: ignore[union-attr]
        return client

    async def clients(self, url: str, count: int, isLively: bool = True) -> list[Raw]:
        return [await self.client(url, isLively) for _ in range(count)]

    async def until(self, condition: Callable[[], Any], what: Callable[[], str], seconds: float) -> Any:
        """Wait for the result of a function that waits itself."""
        deadline = reactor.seconds() + seconds
        while True:
            found = await condition()
            if found:
                return found
            self.assertLess(reactor.seconds(), deadline, what())
            await deferLater(reactor, 0.25)

    async def page(self, url: str) -> str:
        return (await deferToThread(self.get, url)).decode()


class Prometheus:
    """
    A Prometheus of this test.

    :param targets: the addresses of the pages, by instance.
    """

    def __init__(self, case: MetricsTestCase, targets: Iterable[str]) -> None:
        path = shutil.which("prometheus")
        requirePart(path, "no prometheus: apt install prometheus")
        self._case = case
        self._port = freePort()
        folder = case.folder / "prometheus"
        folder.mkdir()
        (folder / "alerts.yml").write_text(faster((FOLDER / "alerts.yml").read_text()))
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 450ms, evaluation_interval: 500ms}\n"
            "rule_files: [alerts.yml]\n"
            "scrape_configs:\n"
            "  - job_name: txrealtime\n"
            f"    static_configs: [{{targets: {json.dumps(list(targets))}}}]\n"
        )
        self.program = startProgram(
            case,
            [
                str(path),
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--log.level=warn",
            ],
            cwd=str(folder),
        )

    async def ask(self, path: str, **arguments: str) -> Any:
        """Ask the HTTP API; ``None`` while it does not answer."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urlencode(arguments)}"
        try:
            return json.loads(await deferToThread(self._case.get, url))["data"]
        except URLError:
            self._case.assertFalse(self.program.ended, self.program.output)
            return None

    async def healthy(self) -> int:
        """Return the number of pages that were read without an error."""
        found = await self.ask("targets")
        return len([each for each in (found or {}).get("activeTargets", ()) if each["health"] == "up"])

    async def isDown(self) -> bool:
        """Return whether a page cannot be read."""
        return await self.healthy() < 3

    async def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = await self.ask("alerts")
        return {
            each["labels"]["alertname"]
            for each in (found or {}).get("alerts", ())
            if each["state"] == "firing"
        }

    async def values(self, query: str) -> list[str]:
        """Return the values that are numbers."""
        found = await self.ask("query", query=query)
        values = [each["value"][1] for each in (found or {}).get("result", ())]
        return [value for value in values if value != "NaN"]


@dataclass
class Servers:
    """
    The servers of the test.

    :ivar plain: the address of one that is alone.
    :ivar flasked: the address of one for Flask.
    :ivar workers: the address of one with workers.
    :ivar ofFlask: the program of the one for Flask.
    :ivar targets: the addresses of their pages.
    """

    plain: str
    flasked: str
    workers: str
    ofFlask: Program
    targets: list[str]


class RulesTests(MetricsTestCase):
    def test_promtool(self) -> None:
        """The rules are well-formed; and so is a page, in the test of workers."""
        requirePart(shutil.which("promtool"), "no promtool: apt install prometheus")
        self.assertIn("SUCCESS", run("promtool", "check", "rules", FOLDER / "alerts.yml"))

    def test_faster(self) -> None:
        """Nothing but the durations of the rules is changed for the tests."""
        self.assertEqual(
            faster("rate(x[5m]) > 0.1\nfor: 1m y offset 5m"), "rate(x[5s]) > 0.1\nfor: 3s y offset 5s"
        )


class PrometheusTests(MetricsTestCase):
    timeout = 600

    async def start(self) -> Servers:
        """Start a server that is alone, one for Flask with the hub of both, and one with workers."""
        (self.folder / "plain.py").write_text(PLAIN)
        (self.folder / "flasked.py").write_text(FLASK)
        # Of the folder of a test the path may be too long for a socket.
        short = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, short)
        hub, port = f"{short}/hub", freePort()
        commands = [
            # The lowest limit at which the alert of descriptors needs few clients.
            self.command("--app plain:server --metrics /metrics --bus", f"unix:{hub}", limit=64),
            self.command(
                "--app flasked:socketio --hub", hub, "--metrics-listen", f"tcp:{port}:interface=127.0.0.1"
            ),
            self.command("--app plain:server --workers 2 --metrics /metrics"),
        ]
        environment = {"PYTHONPATH": str(ROOT)}
        programs = [
            startProgram(self, command, cwd=str(self.folder), environment=environment) for command in commands
        ]
        [plain], [flasked], [workers] = [await self.serving(program) for program in programs]
        targets = [urlsplit(plain).netloc, f"127.0.0.1:{port}", urlsplit(workers).netloc]
        return Servers(plain, flasked, workers, programs[1], targets)

    def command(self, options: str, *more: str, limit: int = 1024) -> list[str]:
        """Return the command line of a server with a limit of descriptors."""
        twistd = [TWISTD, "-n", "--pidfile=", "realtime", "--listen", FREE, *options.split(), *more]
        return ["bash", "-c", f"ulimit -n {limit}; exec {shlex.join(twistd)}"]

    async def test_dashboardAndAlerts(self) -> None:
        """Load without faults fires no alert; each alert's cause fires it; each panel shows a number."""
        servers = await self.start()
        prometheus = Prometheus(self, servers.targets)
        crowd = await self.clients(servers.plain, 16)
        others = [*await self.clients(servers.workers, 6), *await self.clients(servers.flasked, 2)]
        load = LoopingCall(lambda: [client.send('421["echo","hello"]') for client in (*crowd, *others)])
        load.start(0.2)
        self.addCleanup(lambda: load.running and load.stop())
        await self.until(lambda: self.calm(prometheus), lambda: prometheus.program.output, 180)
        await self.causeAll(prometheus, servers, crowd)
        await self.showAll(prometheus)
        page = await self.page(f"{servers.workers}metrics")
        self.assertRegex(page, r'txrealtime_sessions\{transport="websocket"\} 6\n')
        self.assertRegex(page, r'txrealtime_rooms\{namespace="/",worker="1"\} 0\n')
        self.assertRegex(page, r'process_resident_memory_bytes\{worker="0"\} ')
        await self.seenByTop(servers)
        self.checkPage(page)
        self.checkPage(await self.page(f"{servers.plain}metrics"))

    async def calm(self, prometheus: Prometheus) -> bool:
        """
        Return true if all is read and no alert fires for 4 seconds.

        On a machine that is too busy to read the pages in time, an alert fires for a while.
        """
        for _ in range(9):
            if await prometheus.healthy() != 3 or await prometheus.firing():
                return False
            await deferLater(reactor, 0.5)
        return True

    async def seenByTop(self, servers: Servers) -> None:
        """Look at two servers by ``python -m txrealtime top``."""
        requirePart(find_spec("rich"), "no rich: pip install --group test")
        command = [sys.executable, "-m", "txrealtime", "top", servers.workers, servers.plain, "--once"]
        top = startProgram(self, command, cwd=str(ROOT), environment={"COLUMNS": "120"})
        self.assertEqual(await top.whenEnded(), 0, top.output)
        for pattern in (
            r"received +[1-9][\d.]*/s ",
            r"/ +│ echo +│ +[1-9]",
            "worker 0 .* up ",
            "worker 1 .* up ",
            " down ",
        ):
            self.assertRegex(top.output, pattern)

    def checkPage(self, page: str) -> None:
        """Check a page by promtool."""
        file = self.folder / "page.txt"
        file.write_text(page)
        # Without the application's: those of prometheus_client itself do not pass.
        run("bash", "-c", f"grep txrealtime_ {file} | promtool check metrics")

    async def causeAll(self, prometheus: Prometheus, servers: Servers, crowd: list[Raw]) -> None:
        """Cause what the alerts tell of, until all have fired."""
        wanted = set(re.findall(r"alert: (\w+)", (FOLDER / "alerts.yml").read_text()))
        fired: set[str] = set()
        plain = servers.plain
        one, two, three = crowd[:3]
        await self.clients(plain, 2, isLively=False)
        silent = await self.clients(plain, 22, isLively=True)
        for client in await self.clients(servers.flasked, 3):
            for _ in range(3):
                client.send('42["wait"]')
        for _ in range(20):
            three.send('42["wait"]')

        def cause() -> None:
            one.send('42["fail"]')
            one.send('42["block"]')
            two.send('42["slow"]')
            one.send('42["question"]')
            reactor.callInThread(self.refused, plain)

        causing = LoopingCall(cause)
        causing.start(0.7)
        self.addCleanup(lambda: causing.running and causing.stop())
        flooded = await self.client(plain)
        flooded.stopReading()
        flooded.send('42["flood"]')

        async def allFired(names: set[str]) -> bool:
            fired.update(await prometheus.firing())
            return names <= fired

        late = {"RealtimeSessionsFell", "RealtimeClientsVanish", "RealtimeDown"}
        late |= {"RealtimeBusDown", "RealtimeBusLost"}
        missing = lambda: f"not fired: {sorted(wanted - fired)}"  # noqa: E731
        await self.until(lambda: allFired(wanted - late), missing, 120)
        causing.stop()
        for client in silent[:18]:
            client._isLively = False
        servers.ofFlask.signal("KILL")
        await self.until(prometheus.isDown, missing, 120)
        # More than waits for a hub that is away; again and again, as a busy Prometheus misses pages.
        losing = LoopingCall(lambda: one.send('42["large"]'))
        losing.start(3)
        self.addCleanup(lambda: losing.running and losing.stop())
        await self.until(lambda: allFired(wanted), missing, 120)
        losing.stop()

    def refused(self, url: str) -> None:
        """Make some requests that are refused."""
        for _ in range(4):
            with contextlib.suppress(OSError):
                urlopen(f"{url}socket.io/?EIO=9&transport=polling", timeout=5).close()

    async def showAll(self, prometheus: Prometheus) -> None:
        """Check that each panel has a number."""
        dashboard = json.loads((FOLDER / "dashboard.json").read_text())
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        self.assertGreater(len(panels), 25)
        for panel in panels:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "30s")
                query = query.replace("$job", ".*").replace("$instance", ".*")
                # A busy Prometheus misses pages.
                await self.until(
                    partial(prometheus.values, query), partial("{}: {}".format, panel["title"], query), 20
                )
