"""
Servers that want the client's memory, and frames that are cut anywhere.
"""

from __future__ import annotations

import random
from typing import Any

from tests.clientmemory import FakeServer, Wire, World
from txrealtime.client import Client
from txrealtime.client.cookies import Cookies

LINE = b"X-Filler: " + b"x" * 1000 + b"\r\n"


class Talker(FakeServer):
    """A server that answers each GET, or each request for a WebSocket, with the beginning of a head."""

    start = b"HTTP/1.1 200 OK\r\n"
    wire: Wire | None = None

    def polled(self, wire: Wire, url: str) -> None:
        self.begin(wire)

    def webSocketAsked(self, wire: Wire, headers: Any) -> None:
        self.begin(wire)

    def begin(self, wire: Wire) -> None:
        self.wire = wire
        wire.transport.write(self.start)


class HeadTests(World):
    """The head of a response is bounded."""

    def visit(self, fake: FakeServer, **options: Any) -> tuple[Client, list[Exception]]:
        self.useFake(fake)
        errors: list[Exception] = []
        client = self.makeClient(start=False, **options)
        client.onConnectError(errors.append)
        client.startService()
        self.settle()
        return client, errors

    def test_headsWithoutEnd(self) -> None:
        for transport in ("polling", "websocket"):
            ok, interim = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"
            for start in (ok, interim + ok) if transport == "polling" else (ok, b"HTTP/1.1 "):
                fake = Talker()
                fake.start = start
                _, errors = self.visit(fake, transports=[transport])
                assert fake.wire is not None
                for _ in range(20):
                    fake.wire.transport.write(LINE * 10)
                    self.settle()
                self.assertEqual(len(errors), 1, (transport, start))
                self.assertIn("head", str(errors[0]))

    def test_interimResponses(self) -> None:
        """Informational responses without an end count as one head."""
        fake = Talker()
        fake.start = b"HTTP/1.1 103 Early Hints\r\n"
        _, errors = self.visit(fake, transports=["polling"])
        assert fake.wire is not None
        for _ in range(20):
            fake.wire.transport.write(b"X: y\r\n\r\nHTTP/1.1 103 Early Hints\r\n" * 200)
            self.settle()
        self.assertEqual(len(errors), 1)
        self.assertIn("head", str(errors[0]))

    def test_headsThatAreNoText(self) -> None:
        for transport, status in (("polling", b"200"), ("websocket", b"101")):
            fake = Talker()
            fake.start = b"HTTP/1.1 " + status + b" \xff\xfe\r\nContent-Length: 0\r\nX: \xff\r\n\r\n"
            _, errors = self.visit(fake, transports=[transport])
            self.assertEqual(len(errors), 1, transport)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_largeBodiesAreNoHeads(self) -> None:
        """Behind its head, a response may be as large as maxPayload."""
        fake = FakeServer()
        client, errors = self.visit(fake, transports=["polling"])
        got = self.heard(client, "large")
        for size in (200_000, 3_000_000):
            fake.send('42["large","' + "x" * size + '"]')
            self.settle()
        self.assertEqual([len(text) for (text,) in got], [200_000, 3_000_000])
        self.assertEqual(errors, [])


class PingTests(World):
    """PINGs are answered once, when the client can write again."""

    def opened(self) -> tuple[FakeServer, Any]:
        fake = self.useFake()
        client = self.connect(transports=["websocket"])
        return fake, client

    def test_engine(self) -> None:
        fake, client = self.opened()
        self.endpoint.connections[-1].producer.pauseProducing()
        session = client._connection.session
        for _ in range(500):
            fake.send("2")
        self.settle()
        self.assertLess(len(session._queue), 3)
        before = len(fake.got)
        client.emit("hello")
        self.endpoint.connections[-1].producer.resumeProducing()
        self.settle()
        self.assertEqual(fake.got[before:], ["3", '42["hello"]'])
        fake.send("2")
        self.settle()
        self.assertEqual(fake.got[-1], "3")

    def test_webSocket(self) -> None:
        fake, _ = self.opened()
        wire = fake.webSocket
        end = self.endpoint.connections[-1]
        pongs: list[bytes] = []
        handle = fake.frameReceived

        def frameReceived(wire: Wire, opcode: int, payload: bytes) -> None:
            if opcode == 10:
                pongs.append(payload)
            else:
                handle(wire, opcode, payload)

        fake.frameReceived = frameReceived  # type: ignore[method-assign]
        wire.frame(b"one", 9)
        self.settle()
        self.assertEqual(pongs, [b"one"])
        end.producer.pauseProducing()
        before = len(end.sent)
        for number in range(200):
            wire.frame(b"%d" % number, 9)
        self.settle()
        self.assertEqual(len(end.sent), before)
        end.producer.resumeProducing()
        self.settle()
        self.assertEqual(pongs, [b"one", b"199"])


def frame(first: int, payload: bytes) -> bytes:
    """Build a server's frame."""
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


class PieceTests(World):
    """Frames of all kinds, cut anywhere: the messages come whole and in order."""

    def test_anyPieces(self) -> None:
        for seed in range(25):
            choices = random.Random(seed)
            fake = self.useFake()
            client = self.connect(transports=["websocket"])
            got: list[Any] = []
            client.on("n")(lambda *args, got=got: got.append(args))
            stream, expected = b"", []
            for number in range(40):
                size = choices.choice((0, 1, 90, 108, 109, 110, 111, 300, 65510, 65520, 65530, 70000))
                text = f'42["n",{number},"{"ä" * (size % 7)}{"x" * size}"]'.encode()
                kind = choices.choice(("plain", "plain", "plain", "fragments", "ping", "binary"))
                if kind == "binary":
                    stream += frame(0x81, b'451-["n",%d,{"_placeholder":true,"num":0}]' % number)
                    stream += frame(0x82, b"y" * size)
                    expected.append((number, b"y" * size))
                    continue
                expected.append((number, "ä" * (size % 7) + "x" * size))
                if kind == "fragments":
                    middle = choices.randrange(len(text))
                    stream += frame(0x01, text[:middle]) + frame(0x89, b"p") + frame(0x80, text[middle:])
                else:
                    stream += (frame(0x89, b"ping") if kind == "ping" else b"") + frame(0x81, text)
            assert fake.webSocket is not None
            while stream:
                size = choices.choice((1, 2, 3, 9, 100, 5000, 65536, 200_000))
                fake.webSocket.transport.write(stream[:size])
                stream = stream[size:]
                self.settle()
            self.assertEqual(got, expected, f"seed {seed}")


class CookieTests(World):
    def test_many(self) -> None:
        """New cookies beyond some hundred are not kept; those that are there may change."""
        cookies = Cookies()
        url = "http://example.org/socket.io/"
        cookies.received(url, ["first=1"])
        for number in range(50):
            cookies.received(url, [f"c{number}x{more}=1" for more in range(100)])
        self.assertLess(len(cookies.jar), 400)
        cookies.received(url, ["first=2"])
        self.assertIn("first=2", cookies.header(url) or "")
