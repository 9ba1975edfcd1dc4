"""
A program of our own that uses Flask-SocketIO as published applications do, here and on the real library.

The applications themselves are tried by ``scripts/applications``, and so are the modes for gevent.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, ClassVar

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.clients import FOLDER, untilListening
from tests.interop.environments import OTHERS, environmentOf
from tests.interop.visitors import Visitor, requests, socketio
from tests.support import ROOT, freePort, requirePart, startProgram


def ended(visitor: Visitor) -> bool:
    """Tell if the server ends a client's connection."""
    deadline = time.monotonic() + 30
    while visitor.client.connected and time.monotonic() < deadline:
        time.sleep(0.01)
    return not visitor.client.connected


def counted(url: str, transport: str) -> list[Any]:
    path = "/counted"
    one, two = (Visitor().connect(url, path, transport=transport) for _ in range(2))
    told = []
    for visitor in (one, two):
        visitor.emit("join", {"room": "red"}, namespace=path)
        told.append(visitor.next(path))
    two.emit("unheard of", 1, {"two": [None]}, namespace=path)
    told.append(two.next(path))
    one.emit("close", {"room": "red"}, namespace=path)
    told += [one.next(path), two.next(path)]
    one.emit("join", {"room": "blue"}, namespace=path)
    told.append(one.next(path))
    one.emit("end", namespace=path)
    told += [one.next(path), ended(one)]
    two.close()
    return told


def members(url: str, transport: str) -> list[Any]:
    path = "/members"
    told: list[Any] = []
    try:
        Visitor().connect(url, path, transport=transport)
    except socketio.exceptions.ConnectionError as error:
        told.append(str(error))
    ann = Visitor().connect(f"{url}/?name=ann", path, transport=transport)
    told += [ann.next(path), ann.next(path)]
    bob = Visitor().connect(f"{url}/?name=bob", path, transport=transport)
    told += [visitor.next(path) for visitor in (ann, ann, bob, bob)]
    bob.emit("to", "ann", "psst", namespace=path)
    told += [ann.next(path), bob.next(path)]
    bob.emit("expire", namespace=path)
    told += [bob.next(path), ended(bob)]
    told += [ann.next(path), ann.next(path), ann.left(path)]
    ann.close()
    return told


def worker(url: str, transport: str) -> list[Any]:
    path = "/worker"
    one, two = (Visitor().connect(url, path, transport=transport) for _ in range(2))
    told: list[Any] = [one.call("search", ["red", "grün"], namespace=path)]
    told += [one.next(path), one.next(path)]
    two.emit("preview", "nobody", namespace=path)
    told += [two.next(path), one.left(path)]
    one.close()
    two.close()
    return told


def log(url: str, transport: str) -> list[Any]:
    visitor = Visitor().connect(url, "/log", transport=transport)
    visitor.emit("here", {"data": None}, namespace="/log")
    told = [visitor.next("/log"), visitor.next("/log")]
    visitor.close()
    return told


def wrapped(url: str, transport: str) -> list[Any]:
    path = "/wrapped"
    visitor = Visitor().connect(url, path, transport=transport, auth={"key": 1})
    told: list[Any] = [visitor.next(path)]
    visitor.emit("fail", "why", namespace=path)
    told.append(visitor.next(path))
    visitor.emit("everywhere", namespace=path)
    told += [visitor.next(path), visitor.next(path)]
    told += [requests.get(f"{url}/view", timeout=30).text, visitor.next(path)]
    visitor.close()
    return told


def office(url: str, transport: str) -> list[Any]:
    path = "/office"
    one, two = (Visitor().connect(url, path, transport=transport) for _ in range(2))
    told: list[Any] = [one.next(path), two.next(path)]
    told.append(two.call("say", "ä", namespace=path))
    told += [one.next(path), two.next(path)]
    one.emit("trigger_error", namespace=path)
    told.append(one.next(path))
    two.close()
    told.append(one.next(path))
    one.close()
    return told


def visit(url: str) -> dict[str, Any]:
    """Visit all parts on both transports, and end the server; call this in a thread."""
    parts = (counted, members, worker, log, wrapped, office)
    said: dict[str, Any] = {}
    for transport in ("polling", "websocket"):
        said |= {f"{part.__name__} by {transport}": part(url, transport) for part in parts}
    said["stop"] = requests.get(f"{url}/stop", timeout=30).text
    return said


class StylesTests(TestCase):
    timeout = 600
    said: ClassVar[dict[str, dict[str, Any]]] = {}

    async def play(self, executable: str, module: str, *patched: str) -> dict[str, Any]:
        requirePart(socketio, "no python-socketio: pip install --group test")
        port = freePort()
        command = [executable, str(FOLDER / "py" / "flask_styles.py"), module, str(port), *patched]
        program = startProgram(self, command, environment={"PYTHONPATH": str(ROOT)})
        await untilListening(program, port)
        try:
            said: dict[str, Any] = await deferToThread(visit, f"http://127.0.0.1:{port}")
        except Exception:
            print(program.output)
            raise
        if module == "txrealtime.flask":
            self.assertEqual(await program.whenEnded(), 0, program.output)
            self.assertIn("run has returned", program.output)
            self.assertNotIn("Traceback", program.output)
        else:
            program.signal("KILL")
            await program.whenEnded()
        return said

    async def compare(self, executable: str, *patched: str) -> None:
        """Compare with the real library in threads; what clients see does not depend on its mode."""
        ours = await self.play(executable, "txrealtime.flask", *patched)
        theirs = self.said.get("theirs") or await self.play(sys.executable, "flask_socketio")
        self.said["theirs"] = theirs
        self.maxDiff = None
        for part, said in theirs.items():
            self.assertEqual(ours[part], said, part)

    async def test_threads(self) -> None:
        await self.compare(sys.executable)

    async def test_eventlet(self) -> None:
        """Without patched threads, the greenlets of handlers and views run in their threads."""
        await self.compare(environmentOf(*OTHERS), "eventlet")

    if os.environ.get("APPLICATIONS") == "all":

        async def test_gevent(self) -> None:
            await self.compare(environmentOf(*OTHERS), "gevent")

        async def test_geventUnpatched(self) -> None:
            await self.compare(environmentOf(*OTHERS), "gevent-unpatched")
