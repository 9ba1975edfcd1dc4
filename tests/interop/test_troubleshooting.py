"""
The lines of the log in docs/howto/troubleshooting.rst, each caused by a client and compared with the real.

A scene is a method `cause_LABEL` for the section with the label `trouble-LABEL`.
"""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from twisted.internet.threads import deferToThread

from tests.interop.browser import CHROMEDRIVER, CHROMIUM, DESKTOP, Window, webdriver
from tests.interop.clients import FOLDER, NODE, requireJavaScriptClient, untilListening
from tests.interop.proxies import Nginx
from tests.interop.test_operations import OperationsTestCase
from tests.interop.test_twistd import FREE
from tests.support import ROOT, TWISTD, Program, freePort, requirePart, startProgram

try:
    import socketio

    from tests.interop.py.orderly import Client
except ImportError:
    socketio = None

PAGE = (ROOT / "docs" / "howto" / "troubleshooting.rst").read_text()

BLOCK = re.compile(r"^( *)\.\. code-block:: text\n\n((?:\1   .*\n|\n)+)", re.MULTILINE)

GROUPS = (
    ("tls", "sid", "version", "client", "silent", "port"),
    ("namespace", "event", "large", "slow", "blocked", "twice"),
    ("ping",),
    ("polling",),
    ("cors",),
)
"The scenes; those of a group share a server."

APPLICATION = """
import time
from txrealtime import Server

server = Server()

@server.on("say")
def say(socket, text):
    return text

@server.on("message")
def message(socket):
    raise ValueError("an example")

@server.on("report")
def report(socket):
    time.sleep(4)

@server.on("flood")
def flood(socket):
    for _ in range(50):
        socket.emit("x", "x" * 100_000)

server.namespace("/lobby").on("say")(say)
"""

TWICE = """
const { io } = require(process.argv[1]);
const [url, options] = [process.argv[2], { transports: ["websocket"] }];
const sockets = [io(url, options), io(url, options), io(`${url}lobby`, options)];
let count = 0;
const end = () => sockets.forEach((each) => each.disconnect());
for (const socket of sockets) socket.on("connect", () => ++count === 3 && end());
"""
"Three sockets on two connections: two calls for one namespace share none, another namespace shares one."


def sections() -> dict[str, list[str]]:
    """Return the lines of each section of the page, by its label; lines that are broken there are whole."""
    parts = re.split(r"^\.\. _trouble-(\w+):$", PAGE, flags=re.MULTILINE)[1:]
    found = {}
    for label, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = (dedent(block) for _, block in BLOCK.findall(text))
        found[label] = [line for block in blocks for line in re.sub("\n +", " ", block).strip().splitlines()]
    return found


def matches(shown: str, line: str) -> bool:
    """Return whether a line is the one that the page shows, where ``...`` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("..."))), line) is not None


def messages(program: Program) -> list[str]:
    """Return the lines of a log without time and system."""
    return [line.partition("] ")[2] for line in program.output.splitlines()]


class TroubleTests(OperationsTestCase):
    """
    One test for each group of scenes.

    :ivar lines: the lines of the section whose scene plays, that are still to be seen.
    """

    timeout = 300

    def setUp(self) -> None:
        super().setUp()
        requirePart(socketio, "no python-socketio: pip install --group test")
        (self.folder / "trouble.py").write_text(APPLICATION)

    def test_everySymptomIsCaused(self) -> None:
        """Each section has a scene, and each scene a section."""
        self.assertEqual(sorted(sections()), sorted(label for group in GROUPS for label in group))

    async def start(self, *options: str, app: str = "trouble:server") -> tuple[Program, str]:
        program, [url] = await self.serve("--app", app, "--listen", FREE, *options)
        return program, url

    async def play(self, group: tuple[str, ...], program: Program, url: str) -> None:
        """Play scenes, each of which sees all lines of its section."""
        for label in group:
            self.lines = sections()[label]
            await getattr(self, f"cause_{label}")(program, url)
            self.assertEqual(self.lines, [], f"lines of {label} that the scene has not seen")

    async def logged(self, program: Program, count: int = 1) -> None:
        """Wait until the log has the next line of the section, `count` times."""
        shown = self.lines.pop(0)
        for _ in range(count - 1):
            self.assertEqual(self.lines.pop(0), shown)
        # The end of the program is a case for the condition, which then never holds.
        await self.until(
            lambda: sum(matches(shown, line) for line in messages(program)) >= count,
            f"not in the log, {count} times: {shown}\n",
        )

    async def request(self, url: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Send a request, and return status and body."""

        def send() -> tuple[int, str]:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            try:
                with urlopen(Request(url, data, named), timeout=30) as response:
                    return response.status, response.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await deferToThread(send)

    async def talk(self, url: str, *transports: str) -> Any:
        """Connect a client that stays."""
        client = Client(reconnection=False)
        await deferToThread(client.connect, url, transports=list(transports) or None, wait_timeout=30)
        self.addCleanup(deferToThread, client.disconnect)
        return client

    async def open(self, url: str) -> str:
        """Open a session by long polling, and return its URL."""
        opening = f"{url}socket.io/?EIO=4&transport=polling"
        status, body = await self.request(opening)
        self.assertEqual(status, 200)
        return f"{opening}&sid={self.opened(body.encode())['sid']}"

    # -- what is caused by requests -----------------------------------------------------

    async def cause_tls(self, program: Program, url: str) -> None:
        own, opening = url.rstrip("/"), f"{url}socket.io/?EIO=4&transport=polling"
        page = {"Origin": own.replace("http:", "https:"), "X_Forwarded_Proto": "https"}
        self.assertEqual((await self.request(opening, **page))[0], 403)
        await self.logged(program)
        # The cure.
        _, url = await self.start("--trusted-proxy", "127.0.0.1")
        page["Origin"] = url.rstrip("/").replace("http:", "https:")
        self.assertEqual((await self.request(f"{url}socket.io/?EIO=4&transport=polling", **page))[0], 200)

    async def cause_sid(self, program: Program, url: str) -> None:
        """A client's second request comes to another server."""
        _, other = await self.start()
        session = (await self.open(other)).replace(other, url)
        self.assertEqual((await self.request(session))[0], 400)
        await self.logged(program)

    async def cause_version(self, program: Program, url: str) -> None:
        self.assertEqual((await self.request(f"{url}socket.io/?EIO=3&transport=polling"))[0], 400)
        await self.logged(program)

    async def cause_client(self, program: Program, url: str) -> None:
        self.assertEqual((await self.request(f"{url}socket.io/socket.io.js"))[0], 400)
        await self.logged(program)

    async def cause_silent(self, program: Program, url: str) -> None:
        command, reply = self.lines[:2]
        del self.lines[:2]
        shown = re.search("http://localhost:8000(/[^']*)", command)
        assert shown is not None
        status, body = await self.request(url.rstrip("/") + shown[1])
        self.assertTrue(matches(reply, body), body)
        status, _ = await self.request(f"{url}ws/?EIO=4&transport=polling")
        self.assertEqual(status, 404)
        await self.logged(program)
        # The level hides lines.
        port = freePort()
        listen = f"tcp:{port}:interface=127.0.0.1"
        # A busy machine may block the reactor, which would be a warning.
        quiet = self.begin("--listen", listen, "--log-level", "warn", "--blocked-after", "0")
        await untilListening(quiet, port)
        self.assertEqual((await self.request(f"http://127.0.0.1:{port}/socket.io/?EIO=3"))[0], 400)
        self.assertEqual(await quiet.stop(), 0)
        self.assertEqual(quiet.output, "")

    def begin(self, *options: str) -> Program:
        """Start a server, and do not wait."""
        command = [TWISTD, "-n", "--pidfile=", "realtime", "--app", "trouble:server", *options]
        return startProgram(self, command, cwd=str(self.folder), environment={"PYTHONPATH": str(ROOT)})

    async def cause_port(self, program: Program, url: str) -> None:
        port = re.findall(r":(\d+)/", url)[0]
        second = self.begin("--listen", f"tcp:{port}:interface=127.0.0.1")
        await second.whenEnded()
        await self.logged(second)

    # -- what is caused by clients --------------------------------------------------------

    async def cause_namespace(self, program: Program, url: str) -> None:
        client = Client(reconnection=False)
        connecting = deferToThread(
            client.connect, url, namespaces=["/loby"], transports=["websocket"], wait_timeout=30
        )
        await self.assertFailure(connecting, socketio.exceptions.ConnectionError)
        await self.logged(program)

    async def cause_event(self, program: Program, url: str) -> None:
        client = await self.talk(url, "websocket")
        client.emit("mesage", "hello")
        await self.logged(program)
        client.emit("say")
        await self.logged(program)
        client.emit("message")
        await self.logged(program)
        self.assertEqual(await deferToThread(client.call, "say", "hello"), "hello")

    async def cause_large(self, program: Program, url: str) -> None:
        for transport in ("polling", "websocket"):
            client = await self.talk(url, transport)
            client.emit("say", "x" * 1_000_001)
            await self.logged(program)

    async def cause_slow(self, program: Program, url: str) -> None:
        session = await self.open(url)
        for packet in (b"40", b'42["flood"]'):
            await self.request(session, packet)
        await self.logged(program)

    async def cause_blocked(self, program: Program, url: str) -> None:
        client = await self.talk(url, "websocket")
        client.emit("report")
        await self.logged(program)

    async def cause_twice(self, program: Program, url: str) -> None:
        """Two connections for two calls and one namespace, and none for the other namespace."""
        requireJavaScriptClient("socket.io-client-4")
        traced, url = await self.start("--trace-packets", "all")
        client = str(FOLDER / "node_modules" / "socket.io-client-4")
        command = [str(NODE), "-e", TWICE, client, url]
        node = startProgram(self, command)
        self.assertEqual(await node.whenEnded(), 0, node.output)
        shown = self.lines[0]
        await self.logged(traced, 2)
        self.assertEqual(sum(matches(shown, line) for line in messages(traced)), 2)

    # -- one server each --------------------------------------------------------------------

    async def cause_ping(self, program: Program, url: str) -> None:
        """A plain WebSocket that does not answer; a client that does stays."""
        client = await self.talk(url, "websocket")
        import websocket

        address = url.replace("http:", "ws:") + "socket.io/?EIO=4&transport=websocket"
        silent = await deferToThread(partial(websocket.create_connection, address, suppress_origin=True))
        self.addCleanup(silent.close)
        await self.logged(program)
        self.assertEqual(await deferToThread(client.call, "say", "hello"), "hello")

    async def cause_polling(self, program: Program, url: str) -> None:
        """A proxy that does not pass on the two headers."""
        headers = ("Upgrade $http_upgrade;", "Connection $connection_upgrade;")
        proxy = Nginx(self, edits={f"proxy_set_header {each}": "" for each in headers})
        await proxy.start(int(re.findall(r":(\d+)/", url)[0]))
        client = await self.talk(proxy.url)
        await self.logged(program)
        self.assertEqual(await deferToThread(client.call, "say", "hello"), "hello")
        self.assertEqual(client.transport(), "polling")

    async def cause_cors(self, program: Program, url: str) -> None:
        """A page of another server, in Chromium."""
        requirePart(webdriver, "selenium is not installed")
        requirePart(CHROMIUM and CHROMEDRIVER, "no chromium, or no chromedriver (Debian: chromium-driver)")
        requireJavaScriptClient("socket.io-client-4")
        client = FOLDER / "node_modules" / "socket.io-client-4" / "dist" / "socket.io.js"
        shutil.copy(client, self.folder / "public" / "client.js")
        (self.folder / "public" / "index.html").write_text(
            f"""<!doctype html><body><script src="client.js"></script><script>
            const socket = io("{url}", {{ reconnection: false }});
            socket.on("connect_error", (error) => (document.title = error.message));
            socket.on("connect", () => (document.title = "connected"));
            </script>"""
        )
        _, pageURL = await self.start("--static", "public")
        consoleLine = self.lines.pop(0)

        def visit() -> tuple[str, list[str]]:
            window = Window(pageURL, str(Path(self.folder, "profile")), DESKTOP)
            try:
                window.driver.get(pageURL)
                window.waitFor("a title", lambda: window.driver.title)
                return window.driver.title, window.complaints()
            finally:
                window.driver.quit()

        title, complaints = await deferToThread(visit)
        self.assertEqual(title, "xhr poll error")
        texts = [re.sub(r"^\S+ \S+ ", "", each) for each in complaints]
        self.assertTrue(any(matches(consoleLine, each) for each in texts), complaints)
        await self.logged(program)
        # The cure.
        _, url = await self.start("--origin", pageURL.rstrip("/"))
        page = {"Origin": pageURL.rstrip("/")}
        self.assertEqual((await self.request(f"{url}socket.io/?EIO=4&transport=polling", **page))[0], 200)


def _testOf(group: tuple[str, ...]) -> Any:
    async def test(self: TroubleTests) -> None:
        options = ("--ping-interval", "0.5", "--ping-timeout", "10") if group == ("ping",) else ()
        await self.play(group, *await self.start(*options))

    return test


for _group in GROUPS:
    setattr(TroubleTests, f"test_{'_'.join(_group)}", _testOf(_group))
