"""
Clients for browsers since 1.3.6, in Chromium: beside one another on one page, and on a page of their time.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.browser import CHROMEDRIVER, CHROMIUM, DESKTOP, WITHIN, ChatServer, Window, webdriver
from tests.interop.clients import FOLDER, oldBundle, requireJavaScriptClient
from tests.support import ROOT, TWISTD, requirePart

EXAMPLE = ROOT / "docs" / "examples" / "old-client"
CDN = "//cdnjs.cloudflare.com/ajax/libs/socket.io/1.3.6/socket.io.min.js"

TEXT = "Größe € 日本 𝄞"

BUNDLES = {
    "1.4.8.js": "socket.io-client-1.4/socket.io.js",
    "1.7.4.js": "socket.io-client-1.7/dist/socket.io.js",
    "2.5.0.js": "socket.io-client-2.5/dist/socket.io.js",
    "4.8.4.js": "socket.io-client-4/dist/socket.io.js",
}

# What the names on the page say: the client, and how it is connected.
CLIENTS = [
    "jsonp-136 by JSONP",
    "polling-136 by polling",
    "upgraded-136 by websocket",
    "polling-148 by polling",
    "jsonp-174 by JSONP",
    "polling-174 by polling",
    "upgraded-174 by websocket",
    "jsonp-250 by JSONP",
    "polling-250 by polling",
    "upgraded-250 by websocket",
    "polling-484 by polling",
    "upgraded-484 by websocket",
]


class ExampleServer(ChatServer):
    """
    `twistd -ny FILE`.
    """

    def command(self) -> list[str]:
        return [TWISTD, "-n", "--pidfile=", "-y", *self.arguments]


class OldClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(webdriver, "selenium is not installed")
        requirePart(CHROMIUM and CHROMEDRIVER, "no chromium, or no chromedriver (Debian: chromium-driver)")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def serve(self, server: ChatServer) -> ChatServer:
        self.addCleanup(lambda: self.assertNotIn("Traceback", server.stop()))
        server.start()
        return server

    def window(self, url: str) -> Window:
        window = Window(url, str(self.folder / "browser"), DESKTOP)
        self.addCleanup(window.driver.quit)
        window.driver.set_page_load_timeout(WITHIN)
        window.driver.get(url)
        return window

    def test_versionsOnOnePage(self) -> None:
        """
        Clients 1.3.6 to 4.8.4, the old ones by JSONP too, hear the text and the bytes of one another.
        """
        public = self.folder / "public"
        public.mkdir()
        shutil.copy(FOLDER / "pages" / "old.html", public / "index.html")
        (public / "1.3.6.js").write_text(oldBundle(), "utf-8")
        for name, bundle in BUNDLES.items():
            requireJavaScriptClient(bundle.partition("/")[0])
            shutil.copy(FOLDER / "node_modules" / bundle, public / name)

        options = ["--app", "tests.interop.app:server", "--static", str(public), "--allow-eio3"]
        server = ChatServer(self.folder / "log", *options)
        # By name: old clients send credentials, and browsers none to a server that is open to all origins.
        server.arguments += ("--origin", server.url.rstrip("/"))
        window = self.window(self.serve(server).url)
        expected = sorted(f"{client}: {TEXT}, {TEXT}" for client in CLIENTS)
        for client in CLIENTS:
            selector = f"#{client.partition(' ')[0]} li"
            window.waitFor(
                f"all at {selector}", lambda selector=selector: len(window.texts(selector)) >= len(expected)
            )
            self.assertEqual(sorted(window.texts(selector)), expected)
        self.assertEqual(window.complaints(), [])

    def test_example(self) -> None:
        """
        docs/examples/old-client, with the client from npm in place of the one from the network.
        """
        server = ExampleServer(self.folder / "log", str(self.folder / "example" / "app.py"))
        example = self.folder / "example"
        shutil.copytree(EXAMPLE, example)
        (example / "app.py").write_text((EXAMPLE / "app.py").read_text().replace("8000", str(server.port)))
        page = (example / "page.html").read_text()
        self.assertIn(CDN, page)
        script = oldBundle().replace("</script", "<\\/script")
        page = page.replace(f' src="{CDN}">', f">{script}")
        (example / "page.html").write_text(page)
        window = self.window(self.serve(server).url)
        window.waitFor("all that comes", lambda: len(window.texts("li")) >= 3)
        self.assertEqual(
            sorted(window.texts("li")),
            [f"/test answered: {TEXT}", "connected", "my response: I'm connected!"],
        )
        self.assertEqual(window.complaints(), [])
        line = "Received json: {'data': \"I'm connected!\"}"
        window.waitFor("the line in the log", lambda: line in server.log.read_text())
