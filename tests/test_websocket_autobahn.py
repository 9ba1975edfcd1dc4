"""
Autobahn's part of WebSockets: requests taken over from twisted.web, TLS, and masks.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, KeyPair
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import Data
from twisted.web.test.requesthelper import DummyRequest

from tests.memory import CLOSE, TEXT, Link, WebSocket, WireTestCase, clientFrame, readResponse
from txrealtime.engineio.http.resource import EngineResource
from txrealtime.engineio.session import CloseReason

REQUEST = (
    b"GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: example.org\r\nOrigin: %s\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class TakeOverTests(WireTestCase):
    """A connection leaves twisted.web for good."""

    REQUEST = REQUEST % b"http://example.org"

    def test_open(self) -> None:
        client = self.openWebSocket()
        assert client.response is not None
        self.assertEqual(client.response.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        client.send("4hello")
        self.assertEqual(self.owner.heard, ["hello"])

    def test_anyCase(self) -> None:
        client = self.webSocket(headers={"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"})
        self.assertEqual(len(client.messages()), 1)

    def test_afterOtherRequests(self) -> None:
        """A connection that has served other requests becomes a WebSocket."""
        self.root.putChild(b"hello", Data(b"hello", "text/plain"))
        link = Link().connect(self.site)
        link.deliver(self.requestBytes("GET", "/hello"))
        response, rest = readResponse(link.take())
        assert response is not None
        self.assertEqual((response.body, rest), (b"hello", b""))
        client = WebSocket(link, self.REQUEST)
        self.assertEqual(len(client.messages()), 1)

    def test_hastyClient(self) -> None:
        """Frames that came with the request are read."""
        hasty = clientFrame(TEXT, b"4a") + clientFrame(TEXT, b"4b")
        client = WebSocket(Link().connect(self.site), self.REQUEST + hasty)
        self.assertEqual(len(client.messages()), 1)
        self.assertEqual(self.owner.heard, ["a", "b"])

    def test_inPieces(self) -> None:
        link = Link().connect(self.site)
        client = WebSocket(link, b"")
        for index in range(len(self.REQUEST)):
            self.assertEqual(link.value(), b"")
            link.deliver(self.REQUEST[index : index + 1])
        self.assertEqual(len(client.messages()), 1)

    def test_noTimerStays(self) -> None:
        """twisted.web's own timeout must not end a WebSocket, nor stay when it has ended."""
        root = Resource()
        root.putChild(b"engine.io", EngineResource(self.engine))
        self.site = Site(root, reactor=self.clock, timeout=60)
        client = self.openWebSocket()
        for _ in range(10):
            self.clock.advance(25)
            client.send("3")
        self.assertFalse(client.link.disconnecting)
        client.frames()
        self.session.close()
        client.sendFrame(CLOSE, b"\x03\xe8")
        client.link.lose()
        self.assertNothingLeft()

    def test_notLogged(self) -> None:
        """The site does not log the request, which for it never ends."""
        client = self.openWebSocket()
        client.link.lose()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertNothingLeft()

    def test_offersThatDoNotSuit(self) -> None:
        """Unsuitable offers are declined, and the WebSocket opens nevertheless (RFC 7692, 5 and 7.1)."""
        declined = (
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; foo=1",
            "permessage-bzip2; x",
            "permessage-snappy",
            "unheard-of; a=1, permessage-deflate; server_max_window_bits=16",
        )
        for deflate in (False, True):
            self.makeEngine(perMessageDeflate=deflate)
            for offer in declined:
                client = self.openWebSocket(headers={"Sec-WebSocket-Extensions": offer})
                assert client.response is not None
                self.assertNotIn("sec-websocket-extensions", client.response.headers, offer)
                client = self.openWebSocket(
                    headers={"Sec-WebSocket-Extensions": f"{offer}, permessage-deflate"}
                )
                assert client.response is not None
                taken = client.response.headers.get("sec-websocket-extensions", "")
                self.assertEqual(taken.startswith("permessage-deflate"), deflate, offer)

    def test_refused(self) -> None:
        """A refusal has an Engine.IO error as its body, and ends the connection."""
        client = self.webSocket(EIO="3")
        assert client.response is not None
        self.assertEqual(client.response.error[:2], (400, 5))
        self.assertTrue(client.link.disconnecting)
        client.link.deliver(self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling"))
        self.assertEqual(self.owners, [])
        client.link.lose()
        self.assertNothingLeft()

    def test_method(self) -> None:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        answer = self.request("POST", body=b"", transport="websocket", headers=headers).answer
        self.assertEqual(answer.status // 100, 4)
        self.assertEqual(self.owners, [])

    def test_notAWebSocketAfterAll(self) -> None:
        answer = self.get(transport="websocket", headers={"Upgrade": "websocket"}).answer
        self.assertEqual(answer.status, 400)
        self.assertEqual(self.owners, [])

    def test_otherUpgrade(self) -> None:
        """A client that offers another protocol is served by HTTP."""
        self.openPolling(headers={"Upgrade": "h2c"})

    def test_HTTP2(self) -> None:
        """A request over HTTP/2, without a connection to take over, gets 426 and the protocol to use."""
        for channel in (type("H2Stream", (), {"transport": None}), type("H2Stream", (), {"transport": 1})):
            request = DummyRequest([b""])
            request.requestHeaders.addRawHeader(b"upgrade", b"websocket")
            request.channel = channel()
            body = EngineResource(self.engine).render(request)
            self.assertNotEqual(body, NOT_DONE_YET)
            self.assertEqual(request.responseCode, 426)
            self.assertEqual(request.responseHeaders.getRawHeaders(b"upgrade"), [b"websocket"])
            self.assertEqual(json.loads(body)["code"], 3)


class FastPathTakeOverTests(TakeOverTests):
    fastPath = True


def certificate() -> CertificateOptions:
    """Make a server's TLS options with a self-signed certificate."""
    key = KeyPair.generate(size=2048)
    own = key.selfSignedCert(1, CN="example.org")
    return CertificateOptions(privateKey=own.privateKey.original, certificate=own.original)


class Peer(Protocol):
    """A client above TLS that records received data."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[override,assignment]
        self.lost = reason


class TLSTests(WireTestCase):
    """A WebSocket over real TLS, in memory."""

    options: Any = None

    def connectTLS(self, factory: Any) -> tuple[Peer, IOPump]:
        if TLSTests.options is None:
            TLSTests.options = certificate()
        peer = Peer()
        client = TLSMemoryBIOFactory(
            CertificateOptions(), True, Factory.forProtocol(lambda: peer), self.clock
        ).buildProtocol(None)
        server = TLSMemoryBIOFactory(TLSTests.options, False, factory, self.clock).buildProtocol(
            Link().getPeer()
        )
        serverSide = FakeTransport(server, isServer=True, peerAddress=Link().getPeer())
        clientSide = FakeTransport(client, isServer=False)
        server.makeConnection(serverSide)
        client.makeConnection(clientSide)
        pump = IOPump(client, server, clientSide, serverSide, False, self.clock)
        pump.flush()
        return peer, pump

    def open(self) -> tuple[Peer, IOPump]:
        peer, pump = self.connectTLS(self.site)
        assert peer.transport is not None
        peer.transport.write(REQUEST % b"https://example.org")
        pump.flush()
        self.assertIn(b" 101 ", peer.received)
        return peer, pump

    def test_messages(self) -> None:
        peer, pump = self.open()
        self.assertTrue(self.session.handshake.secure)
        assert peer.transport is not None
        peer.transport.write(clientFrame(TEXT, b"4hello"))
        pump.flush()
        self.assertEqual(self.owner.heard, ["hello"])
        self.session.send("answer" * 10_000)
        pump.flush()
        self.assertTrue(peer.received.endswith(b"4" + b"answer" * 10_000))

    def test_close(self) -> None:
        """The connection ends with the closing handshake, before the deadline."""
        peer, pump = self.open()
        self.session.close()
        pump.flush()
        assert peer.transport is not None
        peer.transport.write(clientFrame(CLOSE, b"\x03\xe8"))
        pump.flush()
        self.assertIsNotNone(peer.lost)
        self.assertNothingLeft()

    def test_closeByTheClient(self) -> None:
        peer, pump = self.open()
        assert peer.transport is not None
        peer.transport.write(clientFrame(CLOSE, b"\x03\xe8"))
        pump.flush()
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_CLOSE])
        self.assertIsNotNone(peer.lost)
        self.assertNothingLeft()

    def test_polling(self) -> None:
        peer, pump = self.connectTLS(self.site)
        assert peer.transport is not None
        headers = {"Origin": "https://example.org"}
        peer.transport.write(self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling", headers))
        pump.flush()
        response, _ = readResponse(peer.received)
        assert response is not None
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers["access-control-allow-origin"], "https://example.org")
        self.assertTrue(self.session.handshake.secure)


class FastPathTLSTests(TLSTests):
    fastPath = True
