"""
A client's WebSocket without Autobahn, and the moments at which Autobahn takes it over.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.clientmemory import FakeServer, Wire, World
from txrealtime.client import Client
from txrealtime.client.opening import Plain, isAccepted, request
from txrealtime.engineio.websocket.opening import acceptOf

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class RequestTests(SynchronousTestCase):
    def test_request(self) -> None:
        written = request("ws://example.org/socket.io/?EIO=4", {"Cookie": "a=b"}, KEY)
        head, *lines = written.split(b"\r\n")
        self.assertEqual(head, b"GET /socket.io/?EIO=4 HTTP/1.1")
        self.assertEqual(lines[-2:], [b"", b""])
        for line in (b"Host: example.org:80", b"Cookie: a=b", b"Sec-WebSocket-Key: " + KEY):
            self.assertIn(line, lines)

    def test_hosts(self) -> None:
        for url, host in (
            ("wss://example.org/", b"example.org:443"),
            ("ws://example.org:8000/", b"example.org:8000"),
            ("ws://[::1]:8000/", b"[::1]:8000"),
        ):
            self.assertIn(b"\r\nHost: " + host + b"\r\n", request(url, {}, KEY))


class ResponseTests(SynchronousTestCase):
    """
    The key and its answer are those of RFC 6455, 1.3.
    """

    def isAccepted(self, status: str = "HTTP/1.1 101 Switching Protocols", **changed: str | None) -> bool:
        headers: dict[str, str | None] = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": ACCEPT.decode(),
        }
        headers.update({name.replace("_", "-"): value for name, value in changed.items()})
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        return isAccepted("\r\n".join([status, *lines]).encode(), KEY)

    def test_plain(self) -> None:
        self.assertEqual(acceptOf(KEY), ACCEPT)
        self.assertTrue(self.isAccepted())
        self.assertTrue(self.isAccepted("HTTP/1.1 101"))
        self.assertTrue(
            self.isAccepted(Upgrade="WebSocket", Connection="upgrade", Server="nginx", Date="now")
        )

    def test_others(self) -> None:
        """Autobahn reads these, and refuses or understands them."""
        for status in (
            "HTTP/1.0 101 X",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 1011",
            " HTTP/1.1 101",
            "",
            "HTTP/1.1 101 \t",
        ):
            self.assertFalse(self.isAccepted(status), status)
        for name in ("Upgrade", "Connection", "Sec_WebSocket_Accept"):
            for value in (None, "", "h2c", ACCEPT.decode().lower(), "keep-alive, x"):
                self.assertFalse(self.isAccepted(**{name: value}), (name, value))
        for name in ("Set_Cookie", "Sec_WebSocket_Extensions", "Sec_WebSocket_Protocol", "Content_Length"):
            self.assertFalse(self.isAccepted(**{name: "1"}), name)
        for changed in ({"upgrade": "websocket"}, {"a b": "c"}, {"a": "\x7f"}, {"a": "b\nc"}, {"a": "ü"}):
            self.assertFalse(self.isAccepted(**changed), changed)


class ConnectionTests(World):
    """
    Connections to a server that the test leads.
    """

    def join(self, **options: Any) -> Client:
        """Connect a client by WebSocket."""
        self.fake = FakeServer()
        self.useFake(self.fake)
        self.events: list[Any] = []
        client = self.makeClient(start=False, transports=("websocket",), **options)
        client.onAny(lambda *event: self.events.append(event))
        client.startService()
        self.settle()
        return client

    def protocol(self) -> Any:
        return self.endpoint.connections[-1].protocol

    def wire(self) -> Wire:
        assert self.fake.webSocket is not None
        return self.fake.webSocket

    def assertWorks(self, client: Client) -> None:
        """Events go both ways, behind each other."""
        self.events.clear()
        self.fake.got.clear()
        self.fake.send('42["one",1]', '42["two",2]')
        client.emit("three", 3)
        self.settle()
        self.assertEqual(self.events, [("one", 1), ("two", 2)])
        self.assertEqual(self.fake.messages, ['42["three",3]'])

    def test_plain(self) -> None:
        """No object of Autobahn is made."""
        client = self.join()
        self.assertWorks(client)
        self.assertIsInstance(self.protocol(), Plain)
        headers = self.fake.requests[0][2]
        self.assertTrue(headers["user-agent"].startswith("txrealtime/"))
        self.assertEqual(len(headers["sec-websocket-key"]), len(b64encode(bytes(16))))

    def test_ping(self) -> None:
        """Autobahn answers a PING, and has the connection from then on."""
        client = self.join()
        pongs: list[bytes] = []
        received = self.fake.frameReceived

        def frameReceived(wire: Wire, opcode: int, payload: bytes) -> None:
            if opcode == 10:
                pongs.append(payload)
            else:
                received(wire, opcode, payload)

        self.fake.frameReceived = frameReceived  # type: ignore[method-assign]
        self.wire().frame(b"hello", 9)
        self.wire().frame('42["behind"]')
        self.settle()
        self.assertEqual(pongs, [b"hello"])
        self.assertEqual(self.events, [("behind",)])
        self.assertNotIsInstance(self.protocol(), Plain)
        self.assertWorks(client)

    def test_fragments(self) -> None:
        """Two fragments, the second of which comes with the next message, in pieces."""
        client = self.join()
        frames = b'\x01\x0642["on' + b'\x80\x03e"]' + b'\x81\x0942["two"]'
        for byte in range(len(frames)):
            self.wire().transport.write(frames[byte : byte + 1])
            self.settle()
        self.assertEqual(self.events, [("one",), ("two",)])
        self.assertWorks(client)

    def test_cookies(self) -> None:
        """A cookie of the response is kept, and sent with the next request."""
        fake = FakeServer()
        accept = Wire.accept
        self.patch(Wire, "accept", lambda wire, key: accept(wire, key, "Set-Cookie: node=7\r\n"))
        self.useFake(fake)
        client = self.makeClient(start=False, transports=("websocket",))
        client.startService()
        self.settle()
        self.assertTrue(client.connected)
        self.endpoint.cut()
        self.wait(5)
        self.assertEqual(fake.requests[-1][2].get("cookie"), "node=7")

    def test_wrongAccept(self) -> None:
        """The answer to another key: the client does not go on."""
        accept = Wire.accept
        self.patch(Wire, "accept", lambda wire, key: accept(wire, b64encode(bytes(16)).decode()))
        self.useFake(FakeServer())
        client = self.makeClient(start=False, transports=("websocket",))
        errors: list[Exception] = []
        client.onConnectError(errors.append)
        client.startService()
        self.settle()
        self.assertIn("Sec-WebSocket-Accept", str(errors[0]))
        self.assertFalse(client.connected)

    def test_close(self) -> None:
        """Closing frames of either side are Autobahn's."""
        client = self.join()
        closed = client.stopService()
        self.settle()
        self.assertIn("41", self.fake.messages)
        self.successResultOf(closed)

    def test_closeBehindHalfAFrame(self) -> None:
        client = self.join()
        self.wire().transport.write(b'\x81\x0942["la')
        self.settle()
        closed = client.stopService()
        self.settle()
        self.successResultOf(closed)

    def test_lost(self) -> None:
        """The client comes back, by another plain connection."""
        client = self.join()
        self.endpoint.cut()
        self.assertFalse(client.connected)
        self.wait(5)
        self.assertTrue(client.connected)
        self.assertEqual(self.endpoint.attempts, 2)
        self.assertIsInstance(self.protocol(), Plain)
