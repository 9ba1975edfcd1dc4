"""
The client over the network: TLS, Unix sockets, an HTTP proxy, ports that nobody listens on.
"""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor, ssl
from twisted.internet.endpoints import UNIXServerEndpoint, clientFromString, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource

from tests.support import freePort, makeCertificate
from txrealtime import Server
from txrealtime.client import Client
from txrealtime.errors import TransportError

WAYS = (("polling",), ("websocket",), ("polling", "websocket"))


class Proxy(Protocol):
    """One connection of a proxy that knows CONNECT alone."""

    factory: ProxyFactory
    other: Any = None
    head = b""

    def dataReceived(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)
            return
        self.head += data
        if not self.head.endswith(b"\r\n\r\n"):
            return
        self.factory.heads.append(self.head)
        if b"Basic dXNlcjpwYXNz" not in self.head:
            self.transport.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            self.transport.loseConnection()
            return
        target = self.head.split()[1].decode()
        endpoint = clientFromString(reactor, f"tcp:{target}")
        endpoint.connect(Factory.forProtocol(lambda: Back(self)))

    def connectionLost(self, reason: Any = None) -> None:
        if self.other is not None:
            self.other.transport.loseConnection()


class Back(Protocol):
    """The proxy's connection to the target."""

    def __init__(self, front: Proxy) -> None:
        self.front = front

    def connectionMade(self) -> None:
        self.front.other = self
        self.front.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.front.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.front.transport.loseConnection()


class ProxyFactory(Factory):
    protocol = Proxy
    noisy = False

    def __init__(self) -> None:
        self.heads: list[bytes] = []


class EndpointTests(TestCase):
    timeout = 300

    def setUp(self) -> None:
        self.server = Server()
        self.server.on("echo")(lambda socket, *args: args)
        self.server.on("secure")(lambda socket: socket.handshake.secure)
        self.server.startService()
        self.addCleanup(self.server.stopService)

    async def listen(self, endpoint: Any) -> Any:
        port = await endpoint.listen(self.server.site(Resource()))
        self.addCleanup(port.stopListening)
        return port

    async def talk(self, url: str, secure: bool = False, **options: Any) -> None:
        """Echo something on each way."""
        for transports in WAYS:
            client = Client(url, transports=transports, reactor=reactor, **options)
            client.startService()
            try:
                await client.whenConnected(failAfterFailures=1).addTimeout(90, reactor)
                self.assertEqual(await client.call("echo", "x" * 100_000, timeout=60), "x" * 100_000)
                self.assertEqual(await client.call("secure", timeout=60), secure)
            finally:
                await client.stopService()

    async def test_tls(self) -> None:
        """The certificate is verified: against the system's authorities, or others that are given."""
        certificate = makeCertificate(Path(self.mktemp()))
        port = await self.listen(
            serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={certificate}")
        )
        url = f"https://127.0.0.1:{port.getHost().port}"
        trusted = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(certificate.read_bytes())])
        await self.talk(url, True, tls=ssl.optionsForClientTLS("127.0.0.1", trusted))
        with self.assertRaises(TransportError):
            await self.talk(url)
        with self.assertRaises(TransportError):
            await self.talk(url, tls=ssl.optionsForClientTLS("example.org", trusted))

    async def test_unixSocket(self) -> None:
        folder = mkdtemp()  # the path of a socket is short
        self.addCleanup(rmtree, folder)
        path = f"{folder}/socket"
        await self.listen(UNIXServerEndpoint(reactor, path))
        await self.talk("http://localhost", endpoint=f"unix:{path}")

    async def test_proxy(self) -> None:
        port = await self.listen(serverFromString(reactor, "tcp:0:interface=127.0.0.1"))
        factory = ProxyFactory()
        proxy = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(proxy.stopListening)
        url, place = f"http://127.0.0.1:{port.getHost().port}", f"127.0.0.1:{proxy.getHost().port}"
        await self.talk(url, proxy=f"http://user:pass@{place}")
        self.assertTrue(all(head.startswith(b"CONNECT 127.0.0.1:") for head in factory.heads))
        self.assertGreater(len(factory.heads), 3)
        with self.assertRaises(TransportError) as raised:
            await self.talk(url, proxy=f"http://{place}")
        self.assertIn("407", str(raised.exception))

    async def test_nobodyListens(self) -> None:
        for endpoint in (None, "unix:/nonexistent/socket"):
            with self.assertRaises(TransportError) as raised:
                await self.talk(f"http://127.0.0.1:{freePort()}", endpoint=endpoint)
            self.assertIn("cannot connect", str(raised.exception))
