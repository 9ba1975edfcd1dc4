"""
The map in docs/design.rst: the files of its routes are those that messages pass, and its answers exist.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import Any
from xml.etree import ElementTree

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

import txrealtime
from tests.memory import Link, WebSocket
from tests.support import ROOT, withoutC
from txrealtime import Server
from txrealtime.socketio.packet import JSONParser
from txrealtime.testing import MemoryBus, MemoryHub

PACKAGE = Path(txrealtime.__file__).parent
PAGE = (ROOT / "docs" / "design.rst").read_text()

ROUTE = re.compile(r"^\.\. table:: (?P<title>.+)\n(?P<lines>(?:   .*\n|\n)+)", re.MULTILINE)
STATION = re.compile(r"^   ``(?P<file>\S+\.py)``(?: +``(?P<function>[\w.]+)``)?", re.MULTILINE)
ANSWER = re.compile(r"``(?P<file>[\w/]+\.py)``, ``(?P<name>[\w.]+)``")

Calls = dict[str, set[str]]
"The functions called, by file, in the order in which the files were first entered."


def calledIn(function: Callable[[], object]) -> Calls:
    """
    Call a function, and collect the functions of the package that are called meanwhile.
    """
    calls: Calls = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            calls.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def routes() -> dict[str, list[tuple[str, str]]]:
    """
    Read the routes on the page: by title, pairs of a file and a function, which may be empty.
    """
    found = {}
    for route in ROUTE.finditer(PAGE):
        found[route["title"]] = STATION.findall(route["lines"])
    return found


def isDefined(path: Path, name: str) -> bool:
    """
    Look a function or class up in a source, by its name with those of the classes around it.
    """
    found: Any = ast.parse(path.read_bytes()) if path.exists() else None
    for part in name.split("."):
        defined = {getattr(node, "name", ""): node for node in getattr(found, "body", ())}
        found = defined.get(part)
    return found is not None


class RecordingHub(MemoryHub):
    """
    A broker that keeps the last message it has delivered.
    """

    last: tuple[str, bytes] = ("", b"")

    def deliver(self, topic: str, payload: bytes) -> None:
        self.last = topic, payload
        super().deliver(topic, payload)


class RouteTests(SynchronousTestCase):
    """
    Routes through two servers on one clock and one broker, without accelerators, which would hide files.
    """

    def setUp(self) -> None:
        withoutC(self)
        self.clock = Clock()
        self.hub = RecordingHub()
        self.one, self.two = self.server(), self.server()
        self.heard: list[str] = []
        self.settle(20)

    def tearDown(self) -> None:
        for server in self.one, self.two:
            for session in list(server.engine.sessions.values()):
                session.abort(session.closeReason or txrealtime.CloseReason.FORCED_CLOSE)
            server.stopService()
        self.settle(60)

    def server(self) -> Server:
        parser = JSONParser(accelerated=False)
        server = Server(reactor=self.clock, bus=MemoryBus(self.hub), parser=parser)
        server.on("say")(lambda socket, text: self.heard.append(text))
        server.startService()
        return server

    def settle(self, steps: int) -> None:
        self.clock.pump([0.1] * steps)

    def webSocket(self, server: Server) -> WebSocket:
        """Connect a client by WebSocket, and join `/`."""
        client = WebSocket(
            Link().connect(server.webSocketFactory()),
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n",
        )
        client.link.deliver(self.frame("40"))
        client.messages()
        return client

    def frame(self, text: str) -> bytes:
        payload = text.encode()
        return bytes([0x81, 0x80 + len(payload), 0, 0, 0, 0]) + payload

    def polling(self, method: str, sid: str = "", body: str = "") -> Link:
        """Send a request of long polling to the site."""
        link = self.connect()
        link.deliver(self.request(method, sid, body))
        return link

    def connect(self) -> Link:
        """A connection to the site."""
        link = Link().connect(self.site)
        # Its timeout is the reactor's.
        self.addCleanup(link.lose)
        return link

    def request(self, method: str, sid: str, body: str) -> bytes:
        query = "EIO=4&transport=polling" + (f"&sid={sid}" if sid else "")
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{method} /socket.io/?{query} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}".encode()

    def check(self, title: str, calls: Calls) -> None:
        """Compare a route on the page with the files and functions that were called."""
        page = routes()[title]
        real = list(calls)
        fits = len(page) == len(real) and all(
            fnmatchcase(file, pattern) for file, (pattern, _) in zip(real, page, strict=False)
        )
        self.assertTrue(
            fits, f"{title!r} in docs/design.rst has other files than were called:\n  " + "\n  ".join(real)
        )
        wrong = []
        for file, (_, function) in zip(real, page, strict=True):
            names = {name.partition(".<locals>")[0] for name in calls[file]}
            if function and function not in names:
                wrong.append(f"{file} has {function}, and called were {', '.join(sorted(names))}")
        self.assertEqual(wrong, [], f"{title!r} in docs/design.rst")

    def test_titles(self) -> None:
        self.assertEqual(
            list(routes()),
            ["In, by WebSocket", "In, by polling", "Out", "To other servers", "From other servers"],
        )

    def test_inByWebSocket(self) -> None:
        client = self.webSocket(self.one)
        calls = calledIn(lambda: client.link.deliver(self.frame('42["say","hello"]')))
        self.assertEqual(self.heard, ["hello"])
        self.check("In, by WebSocket", calls)

    def test_inByPolling(self) -> None:
        self.site = self.one.site(Resource())
        opened = self.polling("GET").take()
        sid = json.loads(opened.partition(b"\r\n\r\n")[2][1:])["sid"]
        self.polling("POST", sid, "40")
        self.polling("GET", sid)
        link = self.connect()
        request = self.request("POST", sid, '42["say","hello"]')
        calls = calledIn(lambda: link.deliver(request))
        self.assertEqual(self.heard, ["hello"])
        self.check("In, by polling", calls)

    def test_out(self) -> None:
        client = self.webSocket(self.one)
        (socket,) = self.one.namespace().sockets.values()
        calls = calledIn(lambda: socket.emit("said", "hello"))
        self.assertEqual(client.messages(), ['42["said","hello"]'])
        self.check("Out", calls)

    def test_toOtherServers(self) -> None:
        audience = self.one.to("red")
        calls = calledIn(lambda: audience.emit("said", "hello"))
        self.check("To other servers", calls)

    def test_fromOtherServers(self) -> None:
        client = self.webSocket(self.two)
        (socket,) = self.two.namespace().sockets.values()
        socket.join("red")
        self.settle(3)
        self.one.to("red").emit("said", "hello")
        while b"said" not in self.hub.last[1]:
            self.settle(1)
        client.messages()
        calls = calledIn(lambda: self.hub.deliver(*self.hub.last))
        self.assertEqual(client.messages(), ['42["said","hello"]'])
        self.check("From other servers", calls)


class AnswerTests(SynchronousTestCase):
    """
    Names of modules and functions on the page.
    """

    def test_answersExist(self) -> None:
        answers = ANSWER.findall(PAGE)
        self.assertGreater(len(answers), 35)
        missing = [f"{file} {name}" for file, name in answers if not isDefined(PACKAGE / file, name)]
        self.assertEqual(missing, [], "docs/design.rst")

    def test_filesExist(self) -> None:
        for file in re.findall(r"``((?:\w+/)*\w+\.py)``", PAGE):
            self.assertTrue((PACKAGE / file).exists() or (ROOT / file).exists(), f"docs/design.rst: {file}")


class DrawingTests(SynchronousTestCase):
    """
    The directive that draws the picture.
    """

    def setUp(self) -> None:
        self.patch(sys, "path", [str(ROOT / "docs"), *sys.path])
        self.drawing = importlib.import_module("drawing")
        [found] = re.findall(r"^\.\. drawing:: .+\n\n((?:   .*\n|\n)+)", PAGE, re.MULTILINE)
        self.lines = found.splitlines()

    def test_boxesExist(self) -> None:
        boxes, arrows = self.drawing.read(self.lines)
        parts = [box.name for box in boxes if box.name.endswith(("/", ".py"))]
        self.assertGreater(len(parts), 5)
        for part in parts:
            self.assertTrue((PACKAGE / part).exists(), part)
        self.assertGreater(len(arrows), 6)

    def test_boxesStandApart(self) -> None:
        boxes, _ = self.drawing.read(self.lines)
        for box in boxes:
            for other in boxes:
                apart = box.right < other.left or box.left > other.right or box.top != other.top
                self.assertTrue(box is other or apart, f"{box} and {other}")

    def test_svg(self) -> None:
        svg = ElementTree.fromstring(self.drawing.draw("Title & more", self.lines))
        texts = [element.text for element in svg.iter() if element.text]
        for text in ("Title & more", "engineio/", "your application", "socketio.peers.Peers"):
            self.assertIn(text, texts)

    def test_mistakes(self) -> None:
        for lines, error in (
            (["a | b", "a -> c"], "an arrow to 'c', but the boxes are a, b"),
            (["a | a"], "two boxes are called 'a'"),
            (["a | b", "b"], "neither a row of boxes nor an arrow: 'b'"),
            (["a | .", ". | b", "a -> b"], "'a' and 'b' stand neither beside nor above each other"),
        ):
            self.assertEqual(
                str(self.assertRaises(ValueError, self.drawing.draw, "title", lines)), error, lines
            )
