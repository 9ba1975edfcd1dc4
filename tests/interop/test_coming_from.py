"""
The programs of docs/examples/coming-from: each before and its port do the same for the same clients.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.interop.browser import ChatServer
from tests.interop.clients import FOLDER, NODE, requireJavaScriptClient, requirePythonClient
from tests.interop.environments import OTHERS, environmentOf
from tests.interop.visitors import GuideTestCase, Visitor
from tests.support import ROOT

PROGRAMS = ROOT / "docs" / "examples" / "coming-from"


class Ported(ChatServer):
    """
    A program on a free port in the place of 5000.

    :param interpreter: what runs it.
    """

    def __init__(self, folder: Path, name: str, interpreter: str) -> None:
        super().__init__(folder / f"{name}.log")
        self.url = self.url.rstrip("/")
        self.folder = folder
        self.interpreter = interpreter
        self.file = folder / name
        self.file.write_text((PROGRAMS / name).read_text().replace("5000", str(self.port)))

    def command(self) -> list[str]:
        return [self.interpreter, str(self.file)]


class PortedTestCase(GuideTestCase):
    def serve(self, name: str, interpreter: str = sys.executable) -> Ported:
        """Run a program, which ends without a traceback."""
        program = Ported(self.folder, name, interpreter)
        self.addCleanup(lambda: self.assertNotIn("Traceback", program.stop()))
        program.start()
        self.url = program.url
        return program

    def sameSet(self, came: list[Any], expected: list[Any]) -> None:
        self.assertEqual(sorted(map(repr, came)), sorted(map(repr, expected)))


class NodeTests(PortedTestCase):
    def play(self) -> None:
        self.assertIn("failed to connect", self.refused())
        ada = self.visitor(auth={"name": "Ada"})
        bob = self.visitor(auth={"name": "Bob"}, answers={"question": lambda text: f"{text} yes"})
        self.assertEqual(ada.call("join", "red"), ["Ada"])
        self.sameSet(bob.call("join", "red"), ["Ada", "Bob"])
        self.assertEqual(ada.next(), ("joined", "Bob"))
        self.assertEqual(ada.call("ask", "red", "tea?"), ["tea? yes"])
        self.assertEqual(bob.next(), ("question", "tea?"))
        ada.emit("join", "x" * 2000)  # too long: not handled
        bob.emit("cheer", "red")
        self.assertEqual([bob.next(), ada.next()], [("cheer",), ("cheer",)])

        scores, others = (self.visitor(f"/scores/{room}", auth={"name": "Ada"}) for room in ("red", "blue"))
        scores.emit("point", "Ada", namespace="/scores/red")
        self.assertEqual(scores.next("/scores/red"), ("point", "Ada"))
        self.assertEqual(others.left("/scores/blue"), [])
        self.assertIn("failed to connect", self.refused("/scores/no/such"))

        bob.client.disconnect()
        self.assertEqual(ada.next(), ("left", "Bob"))
        self.assertEqual(ada.call("join", "blue"), ["Ada"])
        self.assertEqual(ada.left(), [])

    def test_before(self) -> None:
        requireJavaScriptClient("socket.io")
        (self.folder / "node_modules").symlink_to(FOLDER / "node_modules")
        self.serve("quiz.mjs", str(NODE))
        self.play()

    def test_after(self) -> None:
        self.serve("quiz.py")
        self.play()


class PythonSocketIOTests(PortedTestCase):
    def play(self) -> None:
        self.assertTrue(self.refused(auth={"token": "x", "name": "Eve"}))
        ada = self.visitor("/", "/clock", auth={"token": "secret", "name": "Ada"})
        self.assertEqual(ada.next(), ("notes", []))
        bob = self.visitor(
            auth={"token": "secret", "name": "Bob"}, answers={"sure?": lambda text: f"{text} yes"}
        )
        self.assertEqual(bob.next(), ("notes", []))
        for client in (ada, bob):
            self.assertEqual(tuple(client.call("follow", "tea")), (True, "tea"))
        self.assertEqual(ada.call("note", "tea", "it is ready"), 1)
        self.assertEqual(bob.next(), ("note", "tea", "Ada", "it is ready"))
        self.assertEqual(bob.call("sure", "really?"), "really? yes")
        self.assertEqual(bob.next(), ("sure?", "really?"))
        self.assertEqual(ada.call("dance"), "no dance here")

        ada.emit("start", namespace="/clock")
        ada.emit("start", namespace="/clock")
        self.assertEqual([ada.next("/clock") for _ in range(3)], [("tick", 1), ("tick", 2), ("tick", 3)])
        bob.client.disconnect()
        self.assertEqual(ada.next(), ("left", "Bob"))
        self.assertEqual(ada.left(), [])

    def test_before(self) -> None:
        requirePythonClient("aiohttp")
        self.serve("board_before.py")
        self.play()

    def test_after(self) -> None:
        self.serve("board.py")
        self.play()


class EventletTests(PortedTestCase):
    CLIENTS = 8
    EACH = 30

    def play(self) -> None:
        """Many buy at once, more than there is: nothing is sold twice, and the numbers come in order."""
        watching = self.visitor()
        self.assertEqual(watching.call("watch", "tea"), 200)
        buyers = [self.visitor() for _ in range(self.CLIENTS)]

        def buy(buyer: Visitor) -> list[Any]:
            return [buyer.call("buy", "tea") for _ in range(self.EACH)]

        with ThreadPoolExecutor(self.CLIENTS) as pool:
            answers = [answer for each in pool.map(buy, buyers) for answer in each]
        self.assertEqual((answers.count("sold"), answers.count("sold out")), (200, 40))
        self.assertEqual([watching.next()[2] for _ in range(200)], list(range(199, -1, -1)))
        self.assertEqual(self.browser().get(f"{self.url}/stock").json(), {"stock": {"tea": 0}, "sold": 200})

        self.assertEqual(watching.call("print", "label"), "LABEL")
        watching.emit("order")
        self.assertEqual(watching.next(), ("left", "tea", 1))
        self.assertEqual(watching.call("buy", "tea"), "sold")

    def test_before(self) -> None:
        self.serve("stock_before.py", environmentOf(*OTHERS))
        self.play()

    def test_after(self) -> None:
        self.serve("stock.py")
        self.play()
