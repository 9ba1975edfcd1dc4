"""
The PROXY protocol: headers byte by byte, and connections that begin with them.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.examples import given, st
from tests.memory import Exchange, Link, WireTestCase
from txrealtime.service.listener import Listener
from txrealtime.service.proxyheader import Header, ProxiedFactory, readHeader

PROXY = "192.0.2.1"

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def line(text: str) -> bytes:
    return f"PROXY {text}\r\n".encode()


def binary(first: int, family: int, rest: bytes = b"", length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", first, family, len(rest) if length is None else length) + rest


IPV4 = socket.inet_aton("203.0.113.9") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 40000, 443)
IPV6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 40000, 443)
)
MAPPED = b"".join((*(b"\0" * 10 + b"\xff\xff" + IPV4[i : i + 4] for i in (0, 4)), IPV4[8:]))
PATHS = b"/client".ljust(108, b"\0") + b"/run/proxy".ljust(108, b"\0")
TLV = b"\x20\0\x05\x01\0\0\0\0"

TO4 = IPv4Address("TCP", "203.0.113.9", 40000), IPv4Address("TCP", "198.51.100.1", 443)
TO6 = IPv6Address("TCP", "2001:db8::9", 40000), IPv6Address("TCP", "2001:db8::1", 443)
TO_PATHS = UNIXAddress(b"/client"), UNIXAddress(b"/run/proxy")

HEADERS: dict[bytes, tuple[Any, ...]] = {
    line("TCP4 203.0.113.9 198.51.100.1 40000 443"): TO4,
    line("TCP6 2001:db8::9 2001:db8::1 40000 443"): TO6,
    line("TCP6 2001:DB8:0:0::9 2001:0db8::1 40000 443"): TO6,
    line("TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.1 40000 443"): TO4,
    line("UNKNOWN"): (),
    line("UNKNOWN 203.0.113.9 198.51.100.1 40000 443"): (),
    line(f"UNKNOWN {'x' * 91}"): (),
    binary(0x21, 0x11, IPV4): TO4,
    binary(0x21, 0x12, IPV4): TO4,
    binary(0x21, 0x11, IPV4 + TLV): TO4,
    binary(0x21, 0x21, IPV6): TO6,
    binary(0x21, 0x21, IPV6 + TLV * 1000): TO6,
    binary(0x21, 0x21, MAPPED): TO4,
    binary(0x21, 0x31, PATHS): TO_PATHS,
    # The proxy speaks for itself, or does not tell.
    binary(0x20, 0x00): (),
    binary(0x20, 0x11, IPV4): (),
    binary(0x20, 0x00, TLV): (),
    binary(0x21, 0x00): (),
    binary(0x21, 0x01): (),
    binary(0x21, 0x10, IPV4): (),
    binary(0x21, 0x00, IPV4 + TLV): (),
}
"""Headers, and the addresses of client and server in them, or none."""

WRONG = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b"proxy TCP4 203.0.113.9 198.51.100.1 40000 443\r\n",
    b"PROXY\r\n",
    b"PROXYUNKNOWN\r\n",
    b"PROXY UNKNOWN\n",
    line(""),
    line("UNKNOWNX"),
    line("TCP5 203.0.113.9 198.51.100.1 40000 443"),
    line("TCP4 203.0.113.9 198.51.100.1 40000"),
    line("TCP4 203.0.113.9 198.51.100.1 40000 443 1"),
    line("TCP4 203.0.113.9  198.51.100.1 40000 443"),
    line("TCP4 203.0.113.9 198.51.100.1 x 443"),
    line("TCP4 203.0.113.9 198.51.100.1 65536 443"),
    line("TCP4 203.0.113.256 198.51.100.1 40000 443"),
    line("TCP4 010.0.0.1 198.51.100.1 40000 443"),
    line("TCP4 e\x1b[31m 198.51.100.1 40000 443"),
    line("TCP4 \xe9 198.51.100.1 40000 443"),
    line("TCP4 2001:db8::9 2001:db8::1 40000 443"),
    line("TCP6 203.0.113.9 198.51.100.1 40000 443"),
    line("TCP6 fe80::1%eth0 fe80::2 40000 443"),
    line(f"UNKNOWN {'x' * 92}"),
    b"PROXY " + b"x" * 101,
    b"\r\n\r\n\0\r\nQUIT\r",
    binary(0x11, 0x11, IPV4),
    binary(0x22, 0x11, IPV4),
    binary(0x21, 0x41, IPV4),
    binary(0x21, 0x13, IPV4),
    binary(0x21, 0x11, IPV4, 11),
    binary(0x21, 0x21, IPV4),
    binary(0x21, 0x31, PATHS, 215),
]


class HeaderTests(SynchronousTestCase):
    def test_headers(self) -> None:
        for data, addresses in HEADERS.items():
            for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", SIGNATURE):
                self.assertEqual(readHeader(data + rest), Header(len(data), *addresses), data)

    def test_pieces(self) -> None:
        """TCP may break a header anywhere."""
        for data in HEADERS:
            for end in range(min(len(data), 300)):
                self.assertIs(readHeader(data[:end]), None, data[:end])

    def test_wrong(self) -> None:
        for data in WRONG:
            self.assertRaises(ValueError, readHeader, data)

    def test_asTwisted(self) -> None:
        """Twisted's parser finds the same clients in the headers that it takes."""
        for data, addresses in HEADERS.items():
            if data == line("UNKNOWN"):
                continue
            parser: Any = V1Parser if data.startswith(b"PROXY") else V2Parser
            found = parser().feed(data)[0].source
            wanted = addresses[0] if addresses else None
            if isinstance(wanted, UNIXAddress):
                self.assertEqual(found.name, wanted.name)
            elif wanted is None:
                self.assertIs(found, None)
            else:
                host = ip_address(found.host)
                self.assertEqual(str(getattr(host, "ipv4_mapped", None) or host), wanted.host)

    @given(
        st.binary(max_size=300),
        st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"!\x11\0"]),
    )
    def test_anythingIsReadOrWrong(self, data: bytes, start: bytes) -> None:
        try:
            header = readHeader(start + data)
        except ValueError:
            return
        if header is not None:
            self.assertLessEqual(header.length, len(start + data))


class ConnectionTests(WireTestCase):
    """Connections to the engine's site, through a proxy."""

    fastPath = True

    def proxied(self) -> ProxiedFactory:
        return ProxiedFactory(self.clock, self.site, "haproxy:tcp:8000")

    def open(self, *head: bytes, factory: ProxiedFactory | None = None, **headers: str) -> Exchange:
        link = Link(PROXY).connect(factory or self.proxied())
        for piece in head[:-1]:
            link.deliver(piece)
        link.deliver(head[-1] + self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling", headers))
        return Exchange(link)

    def address(self, *head: bytes, **headers: str) -> str:
        self.assertEqual(self.open(*head, **headers).answer.status, 200)
        address: str = self.session.handshake.address
        return address

    def test_addresses(self) -> None:
        for data, addresses in HEADERS.items():
            wanted = getattr(addresses[0], "host", "unix") if addresses else PROXY
            self.assertEqual(self.address(data), wanted, data)
            self.assertEqual(self.address(data[:3], data[3:9], data[9:]), wanted, data)

    def test_trusted(self) -> None:
        """X-Forwarded-For is believed of the client in the header, or of a proxy that speaks for itself."""
        self.makeEngine(trustedProxies=[PROXY, "198.18.0.1"])
        forwarded = {"X-Forwarded-For": "198.18.0.99"}
        self.assertEqual(self.address(line("UNKNOWN"), **forwarded), "198.18.0.99")
        self.assertEqual(self.address(line("TCP4 198.18.0.1 198.18.0.2 1 2"), **forwarded), "198.18.0.99")
        self.assertEqual(self.address(line("TCP4 198.18.0.3 198.18.0.2 1 2"), **forwarded), "198.18.0.3")

    def test_limitForEachAddress(self) -> None:
        """Connections count for the client, and not for the proxy."""
        self.makeEngine(maxConnectionsPerAddress=1)
        factory = self.proxied()
        one, other = (line(f"TCP4 203.0.113.{number} 192.0.2.2 1 2") for number in (1, 2))
        first = self.open(one, factory=factory)
        self.assertEqual(first.answer.status, 200)
        self.assertTrue(self.open(one, factory=factory).link.disconnected)
        self.assertEqual(self.open(other, factory=factory).answer.status, 200)
        first.link.lose()
        self.session.close()
        self.assertFalse(self.open(one, factory=factory).link.disconnected)

    def test_webSocket(self) -> None:
        """The fast path has the transport itself."""
        link = Link(PROXY).connect(self.proxied())
        link.deliver(line("TCP4 203.0.113.9 198.51.100.1 40000 443"))
        self.assertEqual((link.getPeer(), link.getHost()), TO4)
        self.assertIs(link.protocol.transport, link)

    def test_silent(self) -> None:
        """A connection must send its header within 10 seconds, and may be silent after it as any other."""
        half, whole = (Link(PROXY).connect(self.proxied()) for _ in range(2))
        half.deliver(b"PROXY TCP4 ")
        whole.deliver(line("UNKNOWN"))
        self.clock.advance(9.9)
        self.assertFalse(half.disconnected)
        self.clock.advance(0.1)
        self.assertEqual((half.disconnected, whole.disconnected), (True, False))

    def test_leaves(self) -> None:
        """Health checks connect and leave."""
        for head in (b"", b"PROXY", line("UNKNOWN"), binary(0x20, 0)):
            link = Link(PROXY).connect(self.proxied())
            if head:
                link.deliver(head)
            link.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrong(self) -> None:
        """The log has a warning for the first of many wrong headers, and no traceback."""
        factory = self.proxied()
        with capturedLogs() as events:
            for data in WRONG:
                link = Link(PROXY).connect(factory)
                link.deliver(data)
                self.assertTrue(link.disconnected, data)
                self.assertEqual(link.take(), b"")
        [event] = events
        self.assertEqual(
            formatEvent(event),
            "haproxy:tcp:8000: dropped a connection of 192.0.2.1, and will say so once: no PROXY header. "
            "Expected a PROXY header, as HAProxy sends with send-proxy; without one, listen without "
            "'haproxy:'",
        )


class Addresses(Resource):
    """The addresses that pages see."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return f"from {request.getClientAddress().host} to {request.getHost().port}".encode()


class EndpointTests(SynchronousTestCase):
    """Endpoint strings of `twistd realtime --listen`."""

    def listen(self, description: str) -> Any:
        """Listen, and return the arguments for the reactor."""
        reactor = MemoryReactorClock()
        site = Site(Addresses(), reactor=reactor, timeout=None)
        Listener(reactor, description, site, "/socket.io").startService()
        [server] = reactor.tcpServers
        return server

    def test_listens(self) -> None:
        port, factory, _, interface = self.listen("haproxy:tcp:8000:interface=127.0.0.1")
        self.assertEqual((port, interface), (8000, "127.0.0.1"))
        self.assertIsInstance(factory, ProxiedFactory)
        link = Link(PROXY).connect(factory)
        link.deliver(line("TCP4 203.0.113.9 198.51.100.1 40000 443") + b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"from 203.0.113.9 to 443", link.take())

    def test_plain(self) -> None:
        self.assertIsInstance(self.listen("tcp:8000")[1], Site)
