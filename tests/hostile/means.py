"""
Shared means of the tests of hostile input.

A server with an attacker and a bystander, in memory, and measures of memory and of work that do not depend
on the machine.
"""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

from twisted.internet.interfaces import IPushProducer
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.web.resource import Resource
from zope.interface import implementer

from tests.memory import Frame, Link, WebSocket, WireTestCase
from txrealtime import Server, Socket
from txrealtime.engineio.http.site import EngineSite
from txrealtime.engineio.session import Session

SECRET = "xyzzy-payload"
"What an attacker's messages hold: no log may."


@implementer(IPushProducer)
class FullLink(Link):
    """
    A connection whose client reads nothing once :attr:`stuck` is set: what is written waits, as in the
    transport of the reactor, which tells its producer when that is more than 64 KiB.
    """

    LIMIT = 65536

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stuck = False
        self.waiting = 0
        self._told = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.stuck:
            self.waiting += len(data)
            if self.waiting > self.LIMIT and self.producer is not None and not self._told:
                self._told = True
                self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def unstick(self) -> None:
        """The client reads on, and has read all."""
        self.stuck = self._told = False
        self.waiting = 0
        if IPushProducer.providedBy(self.producer):
            self.producer.resumeProducing()


class HostileTestCase(WireTestCase):
    """
    A Socket.IO server at /engine.io/, and a client that minds its own business.

    After each test the bystander is still answered, the log shows no traceback (trial sees to that) and
    nothing of what the attacker sent, and once everybody is gone nothing is left.

    :ivar heard: the events that came from others, with their arguments.
    :ivar ends: why clients left, oldest first, but for the bystander.
    """

    settings: ClassVar[dict[str, Any]] = {}
    "Settings of every server of this class, beside those of a test."

    fastPath = True

    def setUp(self) -> None:
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        super().setUp()

    def makeEngine(self, allowRequest: Any = None, **settings: Any) -> None:
        self.server = self.makeServer(allowRequest=allowRequest, **{**self.settings, **settings})
        self.heard: list[tuple[Any, ...]] = []
        self.ends: list[str] = []

        @self.server.on("echo")
        def echo(socket: Socket, *args: Any) -> Any:
            return args

        @self.server.onAny
        def anything(socket: Socket, event: str, *args: Any) -> None:
            self.heard.append((event, *args))

        @self.server.onDisconnect
        def left(socket: Socket, reason: str) -> None:
            self.ends.append(str(reason))

        self.server.startService()
        self.engine = self.server.engine
        self.root = Resource()
        self.site = EngineSite(self.root, "/engine.io", self.engine, reactor=self.clock, timeout=60)
        self._bystander = self.join()
        self._asked = 0

    def makeServer(self, **options: Any) -> Server:
        return Server("/engine.io", reactor=self.clock, **options)

    def join(self, path: str = "/", **options: Any) -> WebSocket:
        """A client in a namespace, over WebSocket."""
        client = self.openWebSocket(**options)
        client.send("40" if path == "/" else f"40{path},")
        (welcome,) = client.messages()
        assert welcome[:2] == "40", welcome
        return client

    def joinStuck(self) -> tuple[WebSocket, FullLink]:
        """A client whose connection can be full."""
        link = FullLink()
        link.connect(self.site)
        client = WebSocket(link, self.upgradeBytes())
        client.messages()
        client.send("40")
        client.messages()
        return client, link

    def upgradeBytes(self, **headers: str) -> bytes:
        """An opening handshake."""
        return self.requestBytes(
            "GET",
            "/engine.io/?EIO=4&transport=websocket",
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                **headers,
            },
        )

    def joinPolling(self) -> str:
        """A client in the default namespace, over long polling: its sid."""
        sid = self.openPolling()
        self.post(sid, b"40")
        self.assertEqual(self.get(sid).payload[0][:2], b"40")
        return sid

    @property
    def session(self) -> Session:
        """The last session."""
        return list(self.engine.sessions.values())[-1]

    def assertBystander(self) -> None:
        """The bystander gets its echo."""
        self._asked += 1
        for frame in self._bystander.frames():  # what was sent to everybody; heartbeats
            if frame == Frame(1, b"2"):
                self._bystander.send("3")
        self._bystander.send(f'42{self._asked}["echo",{self._asked}]')
        self.assertIn(f"43{self._asked}[{self._asked}]", self._bystander.messages())

    def advance(self, seconds: float) -> None:
        """Let time pass; the bystander keeps up its heartbeat."""
        while seconds > 0:
            self.clock.advance(min(1.0, seconds))
            seconds -= 1.0
            if Frame(1, b"2") in self._bystander.frames():
                self._bystander.send("3")

    def assertClosed(self, client: WebSocket, code: int, reason: str = "") -> None:
        """A WebSocket gets a close frame with this code, and nothing more."""
        last = client.frames()[-1]
        self.assertEqual((last.opcode, int.from_bytes(last.payload[:2], "big")), (8, code))
        if reason:
            self.assertEqual(last.payload[2:].decode(), reason)

    @property
    def log(self) -> str:
        """All that a log file would show."""
        lines = []
        for event in self.logged:
            lines.append(formatEvent(event) or "")
            if "log_failure" in event:
                lines.append(event["log_failure"].getTraceback())
        return "\n".join(lines)

    def tearDown(self) -> None:
        self.assertBystander()
        self.assertNotIn(SECRET, self.log)
        for sid in self.engine.sessions:
            self.assertNotIn(sid, self.log)
        self.server.stopService()
        self.clock.pump([1] * 120)
        self.assertEqual(self.engine.sessions, {})
        for namespace in self.server.namespaces:
            self.assertEqual((namespace.sockets, list(namespace.rooms)), ({}, []))
        super().tearDown()


def event(name: str, *args: Any, id: int | str = "") -> str:
    """An event as it is on a WebSocket."""
    return f"42{id}" + json.dumps([name, *args], separators=(",", ":"))


def peakOf(function: Callable[[], object]) -> int:
    """The most memory that Python held while a function ran, beyond what it held before: in bytes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def keptBy(function: Callable[[], object]) -> int:
    """The memory that Python holds after a function ran, beyond what it held before: in bytes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        function()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def callsOf(function: Callable[[], object]) -> int:
    """Count the calls of functions while a function runs, in Python and in C."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls
