"""
A broadcast in C: every client gets the same bytes as in Python, whatever its socket takes.
"""

from __future__ import annotations

import gc
import socket
import sys
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import Link, clientFrame
from tests.support import requirePart, withoutC
from txrealtime import Server, speedups
from txrealtime.engineio import broadcast
from txrealtime.engineio.websocket.plain import payloadSize, textFrame
from txrealtime.monitor.metrics import Metrics

UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class BroadcastTests(SynchronousTestCase):
    """
    Clients in memory whose server writes straight to a pair of sockets, as it does to a plain TCP connection.
    """

    inC = True

    def setUp(self) -> None:
        if self.inC:
            requirePart(speedups.isAccelerated, "txrealtime._speedups is not built: it takes a C compiler")
        else:
            withoutC(self)
        self.server = Server(reactor=Clock())
        self.server.startService()
        self.addCleanup(self.server.stopService)
        self.pairs: list[tuple[Link, socket.socket, socket.socket]] = []
        self.members: list[Any] = []

    def connect(self, count: int, polling: bool = False) -> None:
        for _ in range(count):
            link = Link().connect(self.server.webSocketFactory())
            link.deliver(UPGRADE)
            link.deliver(clientFrame(1, b"40"))
            link.writes.clear()
            ours, theirs = socket.socketpair()
            for each in ours, theirs:
                each.setblocking(False)
                self.addCleanup(each.close)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            link.protocol._send = ours.send
            self.pairs.append((link, ours, theirs))
        self.members = list(self.server.namespace().sockets.values())

    def taken(self, number: int) -> bytes:
        """All bytes that a client gets, from the kernel and then from its transport."""
        link, _, theirs = self.pairs[number]
        parts = []
        try:
            while part := theirs.recv(1 << 20):
                parts.append(part)
        except BlockingIOError:
            pass
        written, link.writes[:] = b"".join(link.writes), []
        return b"".join(parts) + written

    def frameOf(self, text: str) -> bytes:
        return textFrame("4", f'2["news","{text}"]', None)

    def test_all(self) -> None:
        """More clients than are written to between two looks of the interpreter."""
        self.connect(150)
        for text in ("one", "x" * 1000):
            self.server.emit("news", text)
            for number in range(150):
                self.assertEqual(self.taken(number), self.frameOf(text))
        self.assertEqual([link.writes for link, _, _ in self.pairs], [[]] * 150)

    def test_doneInC(self) -> None:
        """No client that takes a frame at once is left for the ordinary way."""
        self.connect(70)
        rest: list[list[Any]] = []
        send = broadcast.sendAll
        self.patch(broadcast, "sendAll", lambda *given: rest.append(send(*given)) or rest[-1])
        self.server.emit("news", "x")
        if self.inC:
            self.assertEqual([len(members) for members in rest], [0])
        self.assertEqual([self.taken(number) for number in range(70)], [self.frameOf("x")] * 70)

    def test_someReady(self) -> None:
        """Clients who cannot be written to at once are left out, wherever they stand."""
        for absent in (range(7), range(30), range(3, 20), range(12, 40), range(40)):
            self.connect(40)
            for number in absent:
                self.pairs[number][0].protocol._send = None
            self.server.emit("news", "x")
            for number in range(40):
                self.assertEqual(self.taken(number), self.frameOf("x"), (absent, number))
            for link, _, _ in self.pairs:
                link.lose()
            self.pairs.clear()

    def test_references(self) -> None:
        """A broadcast holds no object afterwards: of those who take all, a part, or nothing."""
        self.connect(20)
        self.pairs[1][1].close()
        self.pairs[2][0].protocol._send = None
        self.pairs[3][0].fill()
        kept = [*self.members, *(member.session for member in self.members)]
        kept += [link.protocol for link, _, _ in self.pairs]
        for text in ("x", "x" * 100_000):
            before = [sys.getrefcount(each) for each in kept]
            for _ in range(3):
                self.server.emit("news", text)
            self.assertEqual([sys.getrefcount(each) for each in kept], before)

    def test_full(self) -> None:
        """A socket that takes a part, or nothing, leaves the rest to the transport, in order."""
        self.connect(6)
        text = "x" * 3000
        for _ in range(8):
            self.server.emit("news", text)
        for number in range(6):
            self.assertEqual(self.taken(number), self.frameOf(text) * 8)

    def test_byTransports(self) -> None:
        """Clients over TLS, whose transports write, are left for the ordinary way."""
        self.connect(20)
        for number in range(0, 20, 3):
            self.pairs[number][0].protocol._send = None
        rest: list[list[Any]] = []
        send = broadcast.sendAll
        self.patch(broadcast, "sendAll", lambda *given: rest.append(send(*given)) or rest[-1])
        self.server.emit("news", "x")
        self.assertEqual([len(members) for members in rest], [7 if self.inC else 20])
        for number in range(20):
            self.assertEqual(bool(self.pairs[number][0].writes), number % 3 == 0)
            self.assertEqual(self.taken(number), self.frameOf("x"))

    def test_transportFails(self) -> None:
        """An exception of one client's transport ends the broadcast, and reaches the sender of the event."""
        self.connect(9)
        self.pairs[5][0].protocol._send = None

        def fail(data: bytes) -> None:
            raise RuntimeError("a transport")

        self.pairs[5][0].write = fail  # type: ignore[method-assign]
        held = []
        for _ in range(3):
            self.assertRaises(RuntimeError, self.server.emit, "news", "x")
            self.assertEqual([self.taken(number) != b"" for number in range(6)], [True] * 5 + [False])
            gc.collect()
            held.append([sys.getrefcount(each) for each in self.members])
        self.assertEqual(held[1], held[2])
        del self.pairs[5][0].write

    def test_part(self) -> None:
        """A frame that is larger than the socket's buffer arrives once and whole."""
        self.connect(5)
        text = "x" * 3_000_000
        self.server.emit("news", text)
        for number in range(5):
            self.assertTrue(self.pairs[number][0].writes)
            self.assertIsNone(self.pairs[number][0].protocol._send)
            self.assertEqual(self.taken(number), self.frameOf(text))

    def test_notAtOnce(self) -> None:
        """A client that has gone, is slow, or is in a read of its own, takes the ordinary way."""
        self.connect(8)
        self.pairs[0][1].close()
        self.pairs[1][0].fill()
        self.pairs[2][0].protocol._send = None
        self.pairs[3][0].lose()
        self.pairs[4][2].close()
        self.server.emit("news", "x")
        self.assertEqual(self.pairs[0][0].writes, [self.frameOf("x")])
        self.assertEqual(self.taken(1), b"")
        self.assertEqual(self.taken(2), self.frameOf("x"))
        self.assertEqual(self.taken(3), b"")
        self.assertEqual(self.pairs[4][0].writes, [self.frameOf("x")])
        self.pairs[1][0].drain()
        self.assertEqual(self.taken(1), self.frameOf("x"))
        for number in range(5, 8):
            self.assertEqual(self.taken(number), self.frameOf("x"))

    def test_withinARead(self) -> None:
        """The sender's own copy leaves behind its earlier replies."""
        self.connect(6)
        self.server.on("ask")(lambda client: client.emit("reply") or self.server.emit("news", "x"))
        self.pairs[0][0].deliver(clientFrame(1, b'42["ask"]'))
        self.assertEqual(self.taken(0), textFrame("4", '2["reply"]', None) + self.frameOf("x"))
        self.assertEqual(self.taken(1), self.frameOf("x"))

    def test_attachments(self) -> None:
        """Several messages stay together."""
        self.connect(5)
        self.server.emit("news", b"abc")
        for number in range(5):
            self.assertEqual(
                self.taken(number),
                textFrame("4", '51-["news",{"_placeholder":true,"num":0}]', None) + b"\x82\x03abc",
            )


class PurePythonTests(BroadcastTests):
    inC = False


class CountedTests(BroadcastTests):
    """The same with metrics, which count each message for each of its receivers once."""

    def setUp(self) -> None:
        super().setUp()
        Metrics(self.server)
        self.counts = self.server.engine.counts
        self.got: list[bytes] = []

    def taken(self, number: int) -> bytes:
        data = super().taken(number)
        self.got.append(data)
        return data

    def test_counted(self) -> None:
        """Whatever way a message takes: in C, by its transport, when a full connection takes more."""
        self.connect(40)
        self.pairs[1][0].fill()
        self.pairs[2][0].protocol._send = None
        self.pairs[3][1].close()
        self.pairs[4][0].lose()
        packets, size = self.counts.packetsSent, self.counts.sentByWebSocket
        frames = [self.frameOf(text) for text in ("x" * 1000, "y" * 30_000, "z")]
        for text in ("x" * 1000, "y" * 30_000, "z"):
            self.server.emit("news", text)
        self.pairs[1][0].drain()
        for number in set(range(40)) - {4}:
            self.assertEqual(self.taken(number), b"".join(frames))
        self.assertEqual(self.counts.packetsSent - packets, 39 * 3)
        self.assertEqual(self.counts.sentByWebSocket - size, 39 * sum(map(payloadSize, frames)))


class CountedPurePythonTests(CountedTests):
    inC = False


class ArgumentTests(SynchronousTestCase):
    def test_wrongArguments(self) -> None:
        requirePart(speedups.isAccelerated, "txrealtime._speedups is not built: it takes a C compiler")

        class Member:
            connected = True

        types = (Member, Member, None)
        for arguments in ((), ((), b"", *types), ([], "", *types), ([Member()] * 3, b"x", *types)):
            with self.assertRaises((TypeError, AttributeError)):
                broadcast.sendAll(*arguments)  # type: ignore[call-arg,arg-type]
        self.assertEqual(broadcast.sendAll([], b"x", *types), [])  # type: ignore[arg-type]
