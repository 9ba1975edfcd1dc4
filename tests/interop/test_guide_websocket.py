"""
The WebSocket chapter of the guide: docs/examples/guide/websocket.py with a browser, and with `ws` of npm.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.browser import CHROMEDRIVER, CHROMIUM, DESKTOP, ChatServer, Window, webdriver
from tests.interop.clients import javaScript, requireJavaScriptClient
from tests.support import ROOT, TWISTD, freePort, makeCertificate, requirePart, run

EXAMPLE = ROOT / "docs" / "examples" / "guide"

SHOWN = [
    "open, subprotocol echo-v1, extensions permessage-deflate",
    "text: Grüße",
    'text: {"message":"payload"}',
    "Blob of 128 bytes",
    "ArrayBuffer of 128 bytes",
    "ArrayBuffer of 11 bytes",
    "all of it waits in the browser when send() returns",
    "1 MB came back whole, in 1 call",
    "then 0 bytes wait",
    "1 MB in 16 pieces",
    "closed: 1000, clean",
    "subprotocol echo-v2",
    'text: {"bytes": 5}',
    "Blob of 5 bytes",
    "error",
    "echo-v9: 1006",
    "end",
]
"What the example's page shows."

OPENED = """
    const [protocols, done] = arguments;
    const path = "/socket.io/?EIO=4&transport=websocket";
    const socket = new WebSocket(location.origin.replace("http", "ws") + path, protocols);
    socket.onopen = () => { done(socket.protocol); socket.close(); };
    socket.onerror = () => done("error");
"""


class ExampleServer(ChatServer):
    """
    docs/examples/guide/websocket.py on free ports.

    :param certificate: a file for its key and certificate, where it serves TLS.
    """

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        super().__init__(folder / "log")
        self.file = folder / "websocket.py"
        self.scheme = "wss" if certificate else "ws"
        text = (EXAMPLE / "websocket.py").read_text()
        self.ports = {8000: freePort(), 9000: freePort(), 9001: self.port}
        for shown, port in self.ports.items():
            text = text.replace(f":{shown}", f":{port}")
        if certificate:
            text = text.replace('"tcp:', f'"ssl:privateKey={certificate}:certKey={certificate}:port=')
            text = text.replace('"http:', '"https:')
        self.file.write_text(text)
        shutil.copy(EXAMPLE / "websocket.html", folder)

    def command(self) -> list[str]:
        return [TWISTD, "-n", "--pidfile=", "-y", str(self.file)]

    def origin(self) -> str:
        """The origin of the page."""
        return f"{self.scheme.replace('ws', 'http')}://127.0.0.1:{self.ports[8000]}"

    def address(self, port: int, path: str) -> str:
        """The address of a WebSocket.

        :param port: as the example has it.
        """
        return f"{self.scheme}://127.0.0.1:{self.ports[port]}{path}"


class WebSocketTests(SynchronousTestCase):
    def serve(self, *, secure: bool = False) -> ExampleServer:
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        self.certificate = makeCertificate(folder / "pair.pem") if secure else None
        server = ExampleServer(folder, self.certificate)
        self.addCleanup(lambda: self.assertNotIn("Traceback", server.stop()))
        server.start()
        return server

    # -- a browser -----------------------------------------------------------------

    def inTheBrowser(self, *, secure: bool) -> None:
        requirePart(webdriver, "selenium is not installed")
        requirePart(CHROMIUM and CHROMEDRIVER, "no chromium, or no chromedriver (Debian: chromium-driver)")
        server = self.serve(secure=secure)
        window = Window(
            server.origin(), str(Path(self.mktemp()).resolve()), DESKTOP, "--ignore-certificate-errors"
        )
        self.addCleanup(window.driver.quit)
        window.driver.get(window.url)
        window.waitFor("the end of the page", lambda: "end" in window.texts("li"))
        self.assertEqual(window.texts("li"), SHOWN)

        # A Socket.IO server has no subprotocols of its own, and must not keep a browser from using one.
        for offered, chosen in (([], ""), (["a", "b"], "a")):
            self.assertEqual(window.driver.execute_async_script(OPENED, offered), chosen)

    def test_browser(self) -> None:
        self.inTheBrowser(secure=False)

    def test_browserOverTLS(self) -> None:
        self.inTheBrowser(secure=True)

    # -- ws of npm -------------------------------------------------------------------

    def report(self, kind: str, url: str, origin: str) -> dict[str, Any]:
        certificate = [str(self.certificate)] if self.certificate else []
        printed = run(*javaScript("websocket.cjs", kind, url, origin, *certificate))
        report: dict[str, Any] = json.loads(printed)
        return report

    def byWS(self, *, secure: bool) -> None:
        requireJavaScriptClient("ws-8")
        server = self.serve(secure=secure)
        for kind, port, path in (
            ("raw", 8000, "/echo"),
            ("raw", 9000, "/"),
            ("socketio", 8000, "/socket.io/?EIO=4&transport=websocket"),
            ("socketio", 9001, "/socket.io/?EIO=4&transport=websocket"),
        ):
            raw = kind == "raw"
            report = self.report(kind, server.address(port, path), server.origin())
            # Autobahn's own refusals say why in the status line.
            refused = report.pop("version"), report.pop("origin")
            self.assertEqual([answer["status"] for answer in refused], [400, 400 if raw else 403], refused)
            self.assertEqual(refused[0]["version"], "13")
            if not raw:
                self.assertIn("version 8 not supported", json.loads(refused[0]["body"])["message"])
                self.assertIn("'https://elsewhere.example'", json.loads(refused[1]["body"])["message"])
            # Half a million characters, 10 of which repeat.
            self.assertLess(report.pop("wire"), 20_000)
            self.assertTrue(report.pop("extensions").startswith("permessage-deflate"))
            expected = {
                "text": "Grüße €",
                "binary": [0, 255, 128],
                "megabytes": [True] * (3 if raw else 2),
                "pong": "are you there",
                "left": 0,
                "plain": ["", ""],
                "closed": 1000,
                "chosen": "echo-v2" if raw else "echo-v1",
                "unknown": 400 if raw else "echo-v9",
                "deflated": True,
            }
            self.assertEqual(report, expected, f"{kind} {port}")

    def test_ws(self) -> None:
        self.byWS(secure=False)

    def test_wsOverTLS(self) -> None:
        self.byWS(secure=True)
