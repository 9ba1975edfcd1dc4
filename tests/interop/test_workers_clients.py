"""
Official clients before four workers, on every way of their connections: each number comes once and in order.

Clients of socket.io-client 4.8 and 2.5 and of python-socketio share the rooms, so what one posts to a worker
has to reach the others on all workers.  `scripts/workers` runs all variants with 300 clients.
WORKERS_CLIENTS in the environment changes the number; more than 100 are tried with each transport by itself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.interop import proxies
from tests.interop.browser import CHROMEDRIVER, CHROMIUM, DESKTOP, Window, webdriver
from tests.interop.clients import (
    FOLDER,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
)
from tests.interop.test_workers import APPLICATION, WorkersTestCase
from tests.support import Program, freePort, makeCertificate, requirePart, startProgram

CLIENTS = int(os.environ.get("WORKERS_CLIENTS", "40"))

FULL = CLIENTS > 100

LONGEST = 900 if FULL else 180
"Seconds for a program of clients, which ends by itself when its clients hear nothing for a minute."

MESSAGES = 10
"Numbers that each client posts."

ROOMS = max(4, CLIENTS // 30)

KINDS = {"socket.io-client-4": 0.6, "socket.io-client-2.5": 0.2, "python-socketio": 0.2}
"Client -> its share of all clients."

EACH = [["polling"], ["websocket"], ["polling", "websocket"]]


class ClientsTestCase(WorkersTestCase):
    """
    Tests with programs of many clients.

    :ivar proxy: the URL of a proxy before the workers, in tests that have one.
    """

    timeout = 3600 if FULL else 900
    proxy = ""

    def setUp(self) -> None:
        for name in KINDS:
            if name.startswith("socket.io"):
                requireJavaScriptClient(name)
        requirePythonClient("socketio", "aiohttp")
        super().setUp()

    async def serveAll(self, *arguments: str, **options: Any) -> tuple[Program, str]:
        """Start four workers with as much patience as the slowest machine wants."""
        place = {"listen": "tcp:0:interface=127.0.0.1", **options}
        return await self.serve(4, "--allow-eio3", "--connect-timeout", "60", *arguments, **place)

    async def play(
        self, server: Program, url: str, by: str, transports: list[list[str]], *kinds: str
    ) -> None:
        """
        Let clients of some kinds, or of all, post to one another.

        :param by: the way of their connections, see js/cores.cjs.
        """
        shares = {kind: KINDS[kind] for kind in kinds or KINDS}
        counts = {kind: round(CLIENTS * share / sum(shares.values())) for kind, share in shares.items()}
        common = {
            "url": url,
            "all": sum(counts.values()),
            "rooms": ROOMS,
            "messages": MESSAGES,
            "transports": transports,
            "by": by,
        }
        programs = []
        first = 0
        for kind, count in counts.items():
            options = json.dumps({**common, "package": kind, "first": first, "count": count})
            command = python if kind == "python-socketio" else javaScript
            script = "cores.py" if kind == "python-socketio" else "cores.cjs"
            programs.append(startProgram(self, command(script, options), cwd=str(self.folder)))
            first += count
        workers: set[int] = set()
        for program in programs:
            workers.update(json.loads(await program.whenPrinted('{"entered"', LONGEST))["entered"])
        for program in programs:
            program.transport.write(b"go\n")
        got = 0
        for program in programs:
            line = json.loads(await program.whenPrinted('"wrong"', LONGEST))
            self.assertEqual((line["wrong"], line["lost"]), ([], []))
            got += line["got"]
        # A poll that meets the client's own goodbye may be refused.
        self.assertNotIn("refused", server.output)
        for program in programs:
            program.transport.write(b"bye\n")
        for program in programs:
            await program.whenEnded()
        sizes = [len(range(room, common["all"], ROOMS)) for room in range(ROOMS)]
        self.assertEqual(got, sum(size * size for size in sizes) * MESSAGES)
        # Fresh connections over TCP are placed evenly.  A session that opens on a used connection stays with
        # the worker of this connection, and over TLS an address has one worker until others have far fewer.
        direct = by == "fresh" and url.startswith("http:") and not self.proxy
        self.assertGreater(len(workers), 3 if direct else 1)

    async def playAll(self, way: str, by: str, *arguments: str, **options: Any) -> dict[str, int]:
        """
        Let all kinds of clients play, the transports mixed; in a full run each by itself on a new server.

        :param way: a name for the way of their connections, by which a full run prints the counts.
        :param by: see :meth:`play`.
        :return: the counts of connections.
        """
        total: Counter[str] = Counter()
        for transports in [[each] for each in EACH] if FULL else [EACH]:
            program, url = await self.serveAll(*arguments, **options)
            begun = reactor.seconds()
            await self.play(program, self.proxy or url, by, transports)
            name = f"{way}, {' and '.join(transports[0])}" if FULL else way
            total.update(await self.served(program, name, reactor.seconds() - begun))
        return total

    async def served(self, program: Program, way: str, seconds: float) -> dict[str, int]:
        """
        Stop the server.

        :return: the counts of connections, which a full run prints.
        """
        await self.stopped(program)
        counts = self.counts(program)
        if FULL:
            shown = ", ".join(f"{count} {name}" for name, count in counts.items())
            print(f"\n{way}, {CLIENTS} clients, {seconds:.1f} s: {shown}")
        return counts


class PathTests(ClientsTestCase):
    """Every way to the workers, with clients of all kinds."""

    def setUp(self) -> None:
        super().setUp()
        # A busy machine may be late by more than the second that a connection has for its request line.
        self.application(f"{APPLICATION}\nfrom txrealtime.workers import ports\nports._PATIENCE = 20.0\n")

    def assertHardlyRelayed(self, counts: dict[str, int]) -> None:
        """
        Check that connections for one request were handed over.

        A client whose request line comes late is served where it came; so is one whose owner is busy.
        """
        self.assertLessEqual(counts["relayed"] + counts["carried"], counts["handed"] / 20)

    async def test_fresh(self) -> None:
        """Connections that were made for one request are handed over, and hardly anything is relayed."""
        counts = await self.playAll("TCP, fresh", "fresh")
        self.assertGreater(counts["handed"], 100)
        self.assertGreater(counts["kept"], 20)
        self.assertHardlyRelayed(counts)

    async def test_pool(self) -> None:
        """Connections that carry the requests of many clients are relayed."""
        counts = await self.playAll("TCP, pools", "pool")
        self.assertGreater(counts["relayed"], 10)

    async def test_nginx(self) -> None:
        """nginx with `keepalive 32`, and without ip_hash."""
        proxy = proxies.Nginx(self, edits={"events {}": "events { worker_connections 4096; }"})
        self.assertIn("keepalive 32;", proxy.text())
        await self.throughProxy(proxy, "nginx")

    async def test_haproxy(self) -> None:
        """HAProxy that sends requests of all clients over any connection."""
        backend = "    http-reuse always\n    balance roundrobin\n    server one 127.0.0.1:8000\n"
        more = "    server two 127.0.0.1:8000"
        proxy = proxies.HAProxy(self, edits={"    server one 127.0.0.1:8000": backend + more})
        await self.throughProxy(proxy, "HAProxy")

    async def throughProxy(self, proxy: proxies.Proxy, way: str) -> None:
        port = freePort()
        await proxy.start(port)
        self.proxy = proxy.url
        place = f"tcp:{port}:interface=127.0.0.1"
        counts = await self.playAll(way, "fresh", "--trusted-proxy", "127.0.0.1", listen=place)
        self.assertGreater(counts["relayed"], 10)

    def secure(self) -> str:
        """Return an endpoint with TLS."""
        makeCertificate(self.folder / "both.pem")
        return "ssl:0:interface=127.0.0.1:privateKey=both.pem:certKey=both.pem"

    async def test_tls(self) -> None:
        """Over TLS the address chooses the worker; of many clients behind one, requests are relayed."""
        counts = await self.playAll("TLS", "fresh", listen=self.secure())
        for way in ("handed", "relayed", "carried"):
            self.assertGreater(counts[way], 0, way)

    async def test_http2(self) -> None:
        """The requests of many clients are streams of a few connections."""
        program, url = await self.serveAll(listen=self.secure())
        begun = reactor.seconds()
        await self.play(program, url, "http2", [["polling"]], "socket.io-client-4")
        counts = await self.served(program, "HTTP/2", reactor.seconds() - begun)
        self.assertGreater(counts["relayed"], 10)
        self.assertLess(counts["handed"] + counts["kept"], counts["relayed"])

    async def test_unix(self) -> None:
        path = self.folder / "shop.socket"
        counts = await self.playAll("UNIX socket", path.name, "--listen", f"unix:{path.name}")
        self.assertGreater(counts["handed"], 100)
        self.assertHardlyRelayed(counts)


PAGE = """<!doctype html>
<ul></ul>
<script src="client.js"></script>
<script>
  // Not before the page has loaded: it would load for as long as a script is on its way.
  window.onload = () => setTimeout(begin, 100);
  // Chromium has six connections to a server, of which each client's GET takes one.
  const COUNT = 4, MESSAGES = 10;
  let entered = 0;
  const begin = () => {
    const postAll = () => clients.forEach((post) => post());
    const clients = Array.from({ length: COUNT }, (_, number) => open(number, postAll));
  };
  function open(number, all) {
    const line = document.querySelector("ul").appendChild(document.createElement("li"));
    const got = Array.from({ length: COUNT }, () => []);
    const socket = io({ transports: ["polling"], forceJSONP: true, forceNew: true });
    const show = (...words) => (line.textContent = words.join(" "));
    socket.on("connect_error", (error) => show("lost:", error));
    socket.on("disconnect", (reason) => show("lost:", reason));
    socket.on("posted", (sender, value) => {
      got[sender].push(value);
      show(got.map((values) => values.join("")));
    });
    socket.on("connect", () => socket.emit("enter", "room", (worker) => {
      document.title += ` ${worker}`;
      if (++entered === COUNT) all();
    }));
    return () => {
      for (let value = 0; value < MESSAGES; value++) socket.emit("post", "room", number, value, "");
    };
  }
</script>
"""


class BrowserTests(ClientsTestCase):
    timeout = 300

    async def test_jsonp(self) -> None:
        """JSONP in Chromium, of several clients of 2.5 over the connections of one browser."""
        requirePart(webdriver, "selenium is not installed")
        requirePart(CHROMIUM and CHROMEDRIVER, "no chromium, or no chromedriver (Debian: chromium-driver)")
        public = self.folder / "public"
        public.mkdir()
        (public / "index.html").write_text(PAGE)
        bundle = FOLDER / "node_modules" / "socket.io-client-2.5" / "dist" / "socket.io.js"
        shutil.copy(bundle, public / "client.js")
        program, url = await self.serveAll("--static", "public")
        seen, title, complaints = await deferToThread(self.browse, f"{url}/", str(self.folder / "browser"))
        self.assertEqual(seen, [",".join(["0123456789"] * 4)] * 4)
        self.assertGreater(len(set(title.split())), 1)
        self.assertEqual([line for line in complaints if "favicon" not in line], [])
        self.assertNotIn("refused", program.output)
        counts = await self.served(program, "JSONP", 0.0)
        self.assertGreater(counts["handed"] + counts["relayed"], 10)

    def browse(self, url: str, folder: str) -> tuple[list[str], str, list[str]]:
        """Open the page; return its lines, the processes of the workers, and what the console tells."""
        window = Window(url, folder, DESKTOP)
        try:
            window.driver.get(url)
            window.waitFor("all numbers", lambda: sum(map(len, window.texts("li"))) >= 4 * 43)
            return window.texts("li"), window.driver.title, window.complaints()
        finally:
            window.driver.quit()
