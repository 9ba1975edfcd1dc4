"""
Socket.IO's admin UI in Chromium: against one server, four workers, and a cluster with a server of Node.

TXREALTIME_SCREENSHOTS=1 in the environment renews the pictures in docs/images.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from tests.interop.browser import CHROMEDRIVER, CHROMIUM, DESKTOP, Window, webdriver
from tests.interop.clients import FOLDER, RealtimeServer, javaScript, requireJavaScriptClient, untilListening
from tests.support import Program, freePort, requirePart, run, startProgram

UI = FOLDER / "node_modules" / "@socket.io" / "admin-ui"

APPLICATION = """
from txrealtime import Server

server = Server()

@server.onConnect
def connected(socket, auth):
    socket.data["name"] = auth["name"]
    socket.join("lobby")
"""


class Operator(Window):
    """A browser with the admin UI, and what an operator does in it."""

    def visit(self, page: str = "") -> None:
        """Go to a page of the UI by its link, as loading it again would begin anew."""
        self.driver.execute_script("location.hash = arguments[0]", f"#/{page}")

    def logIn(self, name: str, password: str) -> None:
        """Open the UI, fill in its form, and see the dashboard."""
        self.driver.get(self.url)
        self.waitFor("the form", lambda: self.texts("form button"))
        fields = self.driver.find_elements("css selector", "form input")
        fields[1].send_keys(name)
        fields[2].send_keys(password)
        self["form button"].click()

    def seesConnected(self) -> None:
        self.waitFor("the status", lambda: "Connected" in self["header"].text.title())

    def rows(self) -> list[list[str]]:
        """Return the cells of the table in view, row by row."""
        script = """
            return [...document.querySelectorAll("tbody tr")].filter((row) => row.offsetParent)
              .map((row) => [...row.querySelectorAll("td")].map((cell) => cell.innerText.trim()))
        """
        rows: list[list[str]] = self.driver.execute_script(script)
        return rows

    def seesRows(self, what: str, test: Callable[[list[list[str]]], bool]) -> list[list[str]]:
        """
        Wait until the rows in view pass a test, and return them.

        The rows of the page before are in view for a moment: a test of their number alone may see those.
        """
        rows: list[list[str]] = []

        def seen() -> bool:
            rows[:] = self.rows()
            return test(rows)

        self.waitFor(what, seen)
        return rows

    def openRow(self, first: str) -> None:
        """Click the row whose first cell has a text, until its page is there: the page before fades out."""
        script = """
            const cells = [...document.querySelectorAll("tbody tr td:first-child")];
            const found = cells.filter((cell) => cell.offsetParent && cell.innerText.trim() === arguments[0]);
            if (!location.hash.startsWith("#/n/") && found.length) found.at(-1).click();
            return location.hash.startsWith("#/n/");
        """
        self.waitFor(f"the page of {first}", lambda: self.driver.execute_script(script, first))

    def press(self, icon: str) -> None:
        """Press the button in view with an icon."""
        self.waitFor(
            f"the button {icon}", lambda: self.driver.find_elements("css selector", f"button .{icon}")
        )
        self.driver.execute_script("arguments[0].closest('button').click()", self[f"button .{icon}"])

    def photograph(self, name: str) -> None:
        if os.environ.get("TXREALTIME_SCREENSHOTS"):
            time.sleep(2)  # charts and pages move
            super().photograph(name)

    def foreign(self) -> list[str]:
        """List what the page has loaded from other hosts."""
        script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        return [name for name in self.driver.execute_script(script) if not name.startswith(self.url[:22])]


class AdminTestCase(TestCase):
    timeout = 300

    def setUp(self) -> None:
        requirePart(webdriver, "selenium is not installed")
        requirePart(CHROMIUM and CHROMEDRIVER, "no chromium, or no chromedriver (Debian: chromium-driver)")
        requireJavaScriptClient("@socket.io/admin-ui")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir(parents=True)
        (self.folder / "shop.py").write_text(APPLICATION)
        line = run("sh", "-c", f"echo pony | {sys.executable} -m txrealtime password ann")
        (self.folder / "admins").write_text(line)

    async def serve(self, *options: str) -> RealtimeServer:
        server = RealtimeServer(
            self,
            *("--app", "shop:server", "--admin", "--admin-auth", str(self.folder / "admins")),
            *("--admin-ui", str(UI)),
            *options,
        )
        server.environment["PYTHONPATH"] += f":{self.folder}"
        await server.start()
        return server

    def client(self, url: str, name: str, *options: str) -> Program:
        """Start a client with a name, which stays until it is sent away."""
        command = [sys.executable, "-m", "txrealtime", "listen", url, "--auth", json.dumps({"name": name})]
        return startProgram(self, [*command, *options])

    async def operate(self, server: RealtimeServer, act: Callable[[Operator], Any]) -> Any:
        """Do something with a browser, in a thread."""

        def browse() -> Any:
            operator = Operator(f"{server.url}/admin/", str(self.folder / "browser"), DESKTOP)
            try:
                result = act(operator)
                self.assertEqual(operator.complaints(), [])
                self.assertEqual(operator.foreign(), [])
                return result
            finally:
                operator.driver.quit()

        return await deferToThread(browse)


class OneServerTests(AdminTestCase):
    async def test_development(self) -> None:
        """Log in, look at everything, put a client into a room, and send it away."""
        server = await self.serve("--admin-mode", "development", "--admin-write")
        self.client(server.url, "Ada", "--header", "Cookie:token=SECRET")

        def act(operator: Operator) -> None:
            operator.logIn("ann", "donkey")
            operator.waitFor("the refusal", lambda: "Invalid credentials" in operator["form"].text)
            operator.logIn("ann", "pony")
            operator.seesConnected()
            operator.seesRows("both namespaces", lambda rows: ["/", "1"] in rows and ["/admin", "1"] in rows)
            operator.waitFor("the charts", lambda: operator.texts("canvas"))
            operator.photograph("admin-dashboard")

            operator.visit("sockets/")
            [[id, *_]] = operator.seesRows(
                "the client", lambda rows: [len(row) > 1 for row in rows] == [True]
            )
            operator.openRow(id)
            operator.waitFor(
                "the socket", lambda: all(word in operator["main"].text for word in ("(hidden)", "lobby"))
            )
            self.assertNotIn("SECRET", operator["main"].text)
            operator["form input"].send_keys("vip")
            operator.press("mdi-tag-plus-outline")
            operator.waitFor("the room", lambda: ["vip", ""] in operator.rows())
            operator.photograph("admin-socket")

            operator.visit("rooms/")
            operator.seesRows("the rooms", lambda rows: {"lobby", "vip"} <= {row[0] for row in rows})
            operator.openRow("lobby")
            operator.seesRows("the members", lambda rows: any(row[0] == id for row in rows))
            operator.visit("events/")
            operator.seesRows("the event", lambda rows: any("vip" in row[3] for row in rows))
            operator.visit("clients/")
            operator.seesRows("the clients", lambda rows: len(rows) == 2)

            # Loaded again, the page shows its session.
            operator.driver.get("about:blank")
            operator.driver.get(operator.url)
            operator.seesConnected()
            operator.visit("sockets/")
            operator.seesRows("the client", lambda rows: [row[0] for row in rows] == [id])
            operator.press("mdi-logout")
            operator.waitFor("the end", lambda: "DISCONNECTED" in operator["main"].text.upper())

        await self.operate(server, act)
        await server.program.whenPrinted("disconnect")
        self.assertNotIn("SECRET", server.program.output)
        await server.stop()

    async def test_production(self) -> None:
        """In production mode the UI has numbers and no buttons."""
        server = await self.serve()
        self.client(server.url, "Ada")

        def act(operator: Operator) -> None:
            operator.logIn("ann", "pony")
            operator.seesConnected()
            operator.seesRows("both namespaces", lambda rows: ["/", "1"] in rows and ["/admin", "1"] in rows)
            self.assertEqual(operator.texts("nav a .v-list-item__title"), ["Dashboard", "Servers"])

        await self.operate(server, act)
        await server.stop()


class WorkersTests(AdminTestCase):
    async def test_workers(self) -> None:
        """Four workers are four servers in one view; a client of any of them is sent away."""
        server = await self.serve("--workers", "4", "--admin-mode", "development", "--admin-write")
        await server.program.whenPrinted("serving Socket.IO at", 60)
        clients = [self.client(server.url, f"guest {number}") for number in range(6)]

        def act(operator: Operator) -> None:
            operator.logIn("ann", "pony")
            operator.seesConnected()
            operator.visit("servers/")
            operator.seesRows(
                "four servers", lambda rows: [row[6].title() for row in rows] == ["Healthy"] * 4
            )
            operator.seesRows("all clients", lambda rows: sum(int(row[4]) for row in rows) == 7)
            operator.photograph("admin-workers")
            operator.visit("sockets/")
            ids = {row[0] for row in operator.seesRows("all sockets", lambda rows: len(rows) == 6)}
            self.assertGreater(len({id[:8] for id in ids}), 1, "clients of several workers")
            operator.visit("rooms/")
            operator.seesRows("one room", lambda rows: [row[0] for row in rows] == ["lobby"])
            operator.press("mdi-logout")
            operator.waitFor("the end of the room", lambda: "DELETED" in operator["main"].text.upper())
            # A page that is loaded again reaches any worker, whose peers know the session.
            for _ in range(3):
                operator.driver.get("about:blank")
                operator.driver.get(operator.url)
                operator.seesConnected()

        await self.operate(server, act)
        del clients
        await server.stop()


class MixedTests(AdminTestCase):
    async def shownBy(self, url: str) -> dict[str, Any]:
        """Return the clients that Node's admin tells of, as its UI would hear it, by their names."""
        listen = [sys.executable, "-m", "txrealtime", "listen", url, "--namespace", "/admin", "--json"]
        heard = startProgram(self, [*listen, "--event", "all_sockets", "--count", "1"])
        self.assertEqual(await heard.whenEnded(), 0, heard.output)
        [sockets] = json.loads(heard.output)["args"]
        return {each["data"]["name"]: each for each in sockets if each["nsp"] == "/"}

    async def test_withNode(self) -> None:
        """A UI at our server shows Node's clients, and one at Node's server ours; both may send them away."""
        requireJavaScriptClient("@socket.io/redis-adapter")
        redis = await Redis(self).start()
        server = await self.serve(
            *("--bus", f"{redis.url}?dialect=node", "--admin-mode", "development", "--admin-write")
        )
        port = freePort()
        node = startProgram(self, javaScript("admin.cjs", str(port), redis.url))
        await untilListening(node, port)
        other = f"http://127.0.0.1:{port}"
        self.client(server.url, "Ada", "--header", "Cookie:token=SECRET")
        self.client(other, "Grace", "--header", "Cookie:token=SECRET")
        deadline = reactor.seconds() + 60
        while set(shown := await self.shownBy(other)) != {"Ada", "Grace"}:
            self.assertLess(reactor.seconds(), deadline, shown)
            await deferLater(reactor, 0.2)
        self.assertEqual([len(each["clientId"]) for each in shown.values()], [12, 12])

        def act(operator: Operator) -> None:
            operator.logIn("ann", "pony")
            operator.seesConnected()
            operator.visit("servers/")
            operator.seesRows(
                "both servers", lambda rows: len(rows) == 2 and "node" in [row[0] for row in rows]
            )
            operator.photograph("admin-mixed")
            operator.visit("sockets/")
            ids = sorted(each["id"] for each in shown.values())
            operator.seesRows("both sockets", lambda rows: sorted(row[0] for row in rows) == ids)
            grace = shown["Grace"]["id"]
            operator.openRow(grace)
            operator.waitFor("the socket", lambda: "lobby" in operator["main"].text)
            self.assertNotIn("SECRET", operator["main"].text)
            operator["form input"].send_keys("vip")
            operator.press("mdi-tag-plus-outline")
            operator.waitFor("the room", lambda: ["vip", ""] in operator.rows())
            operator.visit("rooms/")
            operator.seesRows("the rooms", lambda rows: ["lobby"] in [row[:1] for row in rows])
            operator.press("mdi-logout")
            operator.waitFor("the end of the room", lambda: "DELETED" in operator["main"].text.upper())

        await self.operate(server, act)
        await server.stop()
