"""
Types as users see them: the programs of docs/guide/types.rst, and what an editor completes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, requirePart
from tests.test_docs import blocksOf

try:
    import mypy
except ImportError:
    mypy = None

CACHE = ROOT / ".mypy_cache" / "users"
"The first run reads the whole package, and later ones what has changed."

SEEN = """
from datetime import timedelta
from typing import Any, assert_type

from twisted.internet.defer import Deferred
from twisted.web.server import Site

import txrealtime.client
import txrealtime.flask
from txrealtime import (
    Audience, CloseReason, Emitter, Handshake, Incoming, Namespace, Person, Presence, Server, Settings,
    Socket, on,
)
from txrealtime.flask import Namespace as FlaskNamespace, SocketIO
from txrealtime.testing import Client as TestClient, makeServer

server = Server(recoveryWindow=120, origins="*", bus="redis://localhost")


def handler(socket: Socket, text: str) -> int:
    assert_type(socket.id, str)
    assert_type(socket.handshake, Handshake)
    assert_type(socket.handshake.cookies.get("a"), str | None)
    assert_type(socket.rooms, frozenset[str])
    assert_type(socket.data, dict[str, Any])
    assert_type(socket.others, Audience)
    assert_type(socket.to("red").excluding(socket), Audience)
    assert_type(socket.namespace, Namespace)
    assert_type(socket.join("red"), None)
    assert_type(socket.join("red", rewind=timedelta(minutes=1)), Deferred[None])
    assert_type(socket.call("a", 1, timeout=None), Deferred[Any])
    assert_type(socket.whenDisconnected(), Deferred[CloseReason])
    return len(text)


def middleware(incoming: Incoming, proceed: Any) -> Any:
    assert_type(incoming.event, str)
    return proceed(incoming)


async def waiting() -> None:
    assert_type(await server.fetch(), list[Person])
    assert_type(await server.to("red").call("a"), list[Any])


# A decorated function is what it was.
assert_type(server.on("say")(handler)(server.namespace().sockets["a"], "b"), int)
assert_type(on("say")(handler)(server.namespace().sockets["a"], "b"), int)
assert_type(server.onAny(handler)(server.namespace().sockets["a"], "b"), int)
assert_type(server.use(middleware)(Incoming(server.namespace().sockets["a"], "b", []), None), Any)
assert_type(server.settings, Settings)
assert_type(server.namespace("/a"), Namespace)
assert_type(server.to("red").here(), list[Socket])
assert_type(server.presence("red"), Presence)
assert_type(server.site(server.resource()), Site)
assert_type(makeServer(pingInterval=1).emit("a"), None)
assert_type(TestClient(server).received(), list[tuple[Any, ...]])
assert_type(Emitter("redis://localhost").to("red").emit("a"), None)

client = txrealtime.client.Client("http://localhost", auth={"a": 1})


def heard(text: str) -> int:
    return len(text)


assert_type(client.on("said")(heard)("a"), int)
assert_type(client.connected, bool)
assert_type(client.call("a"), Deferred[Any])

socketio = SocketIO(ping_timeout=5)
assert_type(socketio.on("said")(heard)("a"), int)
assert_type(socketio.event(heard)("a"), int)
assert_type(socketio.emit("a", 1, to="red"), None)


class Chat(FlaskNamespace):
    def on_say(self, text: str) -> None:
        assert_type(self.emit("said", text, room="red"), None)


# Each is refused: an ignore that ignores nothing is an error of --strict.
Server(pingInterval="abc")  # type: ignore[arg-type]
Server(nosuch=1)  # type: ignore[call-arg]
server.configure(maxPayload="1 MB")  # type: ignore[arg-type]
makeServer(nosuch=1)  # type: ignore[call-arg]
server.emit(1)  # type: ignore[arg-type]
server.to(1)  # type: ignore[arg-type]
server.nosuch  # type: ignore[attr-defined]
client.emit()  # type: ignore[call-arg]
"""


class TypeTests(SynchronousTestCase):
    def setUp(self) -> None:
        requirePart(mypy, "no mypy: pip install --group dev")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def check(self) -> None:
        """Check the folder's files as a user would, who has the package installed."""
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}", "."],
            cwd=self.folder,
            text=True,
            capture_output=True,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

    def test_programs(self) -> None:
        """The three programs and the lines of an editor, in one run."""
        programs = [block for block in blocksOf("guide/types") if block.name]
        self.assertEqual(
            [program.name for program in programs], ["typed_server.py", "typed_flask.py", "typed_client.py"]
        )
        for program in programs:
            (self.folder / program.name).write_text(program.text)
        (self.folder / "seen.py").write_text(SEEN)
        self.check()
