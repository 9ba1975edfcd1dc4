"""
TLS certificates that are read again while the server listens: on a reactor in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from tests.support import makeCertificate
from tests.test_service import RunningTestCase, SlowEndpoint
from txrealtime.service import Listener
from txrealtime.service.proxyheader import ProxiedFactory


def serialOf(factory: Any, clock: Any, head: bytes = b"") -> int:
    """
    Shake hands as a client of TLS, and return the serial number of the server's certificate.

    :param head: sent before TLS begins.
    """
    transport: Any = StringTransport()
    protocol = transport.protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 1))
    protocol.makeConnection(transport)
    if head:
        protocol.dataReceived(head)
        protocol = transport.protocol
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    client.set_tlsext_host_name(b"localhost")
    client.set_connect_state()
    while True:
        try:
            client.do_handshake()
            break
        except SSL.WantReadError:
            protocol.dataReceived(client.bio_read(65536))
            clock.advance(0)
            client.bio_write(transport.value())
            transport.clear()
    certificate = client.get_peer_certificate()
    assert certificate is not None
    protocol.connectionLost(Failure(ConnectionDone()))
    return certificate.get_serial_number()


class RenewalTests(RunningTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.pair = Path(self.folder / "pair.pem")
        makeCertificate(self.pair)

    def factory(self) -> Any:
        """Return the factory of the port."""
        [(_, factory, *_)] = self.reactor.tcpServers
        return factory

    def serial(self) -> int:
        factory = self.factory()
        head = b"PROXY UNKNOWN\r\n" if isinstance(factory, ProxiedFactory) else b""
        return serialOf(factory, self.reactor, head)

    def test_renewed(self) -> None:
        """Endpoints that speak TLS in one way or the other, alone and in another."""
        for endpoint in (
            "ssl:443:privateKey=pair.pem",
            "haproxy:ssl:443:privateKey=pair.pem",
            "tls:.:443",
        ):
            self.reactor.tcpServers.clear()
            service = self.start(endpoint)
            before = self.serial()
            makeCertificate(self.pair)
            self.assertEqual(self.serial(), before)
            service.renew()
            self.assertNotEqual(self.serial(), before)
            self.assertIn(f"{endpoint}: the certificates have been read again", self.messages)
            # Nothing else listens.
            self.assertEqual(len(self.reactor.tcpServers), 1)
            self.assertEqual(self.reactor.sslServers, [])

    def test_madeElsewhere(self) -> None:
        """The log says what to do for an endpoint without a string, such as that of socketio.run()."""
        endpoint: Any = SlowEndpoint()
        site: Any = self.server.site(Resource())
        Listener(self.reactor, "ssl:443:interface=::", site, "/", endpoint=endpoint).renew()
        Listener(self.reactor, "tcp:80:interface=::", site, "/", endpoint=endpoint).renew()
        self.assertEqual(len(self.lines("restart it for new ones")), 1)

    def test_manyTimes(self) -> None:
        service = self.start("ssl:443:privateKey=pair.pem")
        serials = {self.serial()}
        for _ in range(3):
            makeCertificate(self.pair)
            service.renew()
            serials.add(self.serial())
        self.assertEqual(len(serials), 4)

    def test_fails(self) -> None:
        """The server goes on with the certificate that it has, and says why."""
        service = self.start("ssl:443:privateKey=pair.pem")
        before = self.serial()
        self.pair.write_text("text")
        service.renew()
        self.pair.unlink()
        service.renew()
        self.assertEqual(self.serial(), before)
        wrong, missing = self.lines("cannot be read again, and the old ones stay in use: ")
        self.assertIn("expected PEM", wrong)
        self.assertIn("No such file or directory", missing)

    def test_plain(self) -> None:
        """An endpoint without certificates has the site itself, and nothing is done."""
        service = self.start("tcp:80", "unix:x.sock")
        service.renew()
        self.assertEqual(self.lines("certificates"), [])
        self.assertEqual(type(self.factory()).__name__, "EngineSite")

    def test_socketOfSystemd(self) -> None:
        """The socket is not taken again: the number of its descriptor may be another file's by now."""
        service = self.start("ssl:443:privateKey=pair.pem")
        renewable: Any = service._listeners[0]._endpoint
        renewable._description = "tls:.:systemd\\:domain=INET\\:index=0"
        service.renew()
        self.assertEqual(len(self.lines("a socket from systemd can be taken only once")), 1)

    def test_stopAndStart(self) -> None:
        """The site hears of one start and one stop."""
        self.start("ssl:443:privateKey=pair.pem")
        factory = self.factory()
        factory.doStart()
        makeCertificate(self.pair)
        site = factory.factory.wrappedFactory
        self.assertEqual(site.numPorts, 1)
        factory.doStop()
        self.assertEqual(site.numPorts, 0)
