"""
Writes to the socket itself: in order, complete, and only for plain sockets; and the queue of a port.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.internet.unix import Server as UNIXServer
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import Link
from txrealtime.engineio.tcp import endNow, lengthenQueue, peerAddress, writeNow


class Socket:
    """
    A socket that accepts some bytes, or fails.
    """

    def __init__(self, *takes: int | OSError) -> None:
        self.takes = list(takes)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> int:
        taken = self.takes.pop(0) if self.takes else len(data)
        if isinstance(taken, OSError):
            raise taken
        self.sent.append(data[:taken])
        return min(taken, len(data))


def connection(socket: Socket | None, waiting: bytes = b"", kind: Any = Server) -> Any:
    """
    Make a TCP connection, or one of another kind, without a reactor.

    The data given to its `write` is kept in `written`.
    """
    transport = kind.__new__(kind)
    transport.dataBuffer = waiting
    transport._tempDataBuffer = []
    if socket is not None:
        transport.socket = socket
    transport.written = []
    transport.write = transport.written.append
    transport.ends = []
    transport.connectionLost = lambda reason: transport.ends.append(reason.type)
    transport.unregisterProducer = lambda: transport.ends.append("unregisterProducer")
    transport.loseConnection = lambda: transport.ends.append("loseConnection")
    return transport


class EndNowTests(SynchronousTestCase):
    def test_nothingIsLeft(self) -> None:
        for kind in (Server, UNIXServer):
            transport = connection(Socket(), kind=kind)
            endNow(transport)
            self.assertEqual(transport.ends, [ConnectionDone])

    def test_behindWhatWaits(self) -> None:
        """A producer that is paused would keep the connection from its end."""
        transport = connection(Socket(), b"before")
        endNow(transport)
        self.assertEqual(transport.ends, ["unregisterProducer", "loseConnection"])

    def test_otherTransports(self) -> None:
        link = Link()
        endNow(link)
        self.assertTrue(link.disconnecting)

    def test_lost(self) -> None:
        """A connection that is lost is told nothing, as by loseConnection()."""
        transport = connection(None)
        transport.connected = False
        endNow(transport)
        self.assertNotIn(ConnectionDone, transport.ends)


class WriteNowTests(SynchronousTestCase):
    def test_oneCallOfTheSystem(self) -> None:
        socket = Socket()
        transport = connection(socket)
        writeNow(transport, b"frame")
        self.assertEqual((socket.sent, transport.written), ([b"frame"], []))

    def test_unixSocket(self) -> None:
        socket = Socket(3)
        transport = connection(socket, kind=UNIXServer)
        writeNow(transport, b"frame")
        self.assertEqual((socket.sent, transport.written), ([b"fra"], [b"me"]))

    def test_restWaitsInTheTransport(self) -> None:
        socket = Socket(3)
        transport = connection(socket)
        writeNow(transport, b"frame")
        self.assertEqual((socket.sent, transport.written), ([b"fra"], [b"me"]))

    def test_notPastWhatWaits(self) -> None:
        for transport in (connection(Socket(), b"before"), connection(Socket())):
            if not transport.dataBuffer:
                transport._tempDataBuffer.append(b"before")
            writeNow(transport, b"frame")
            self.assertEqual((transport.socket.sent, transport.written), ([], [b"frame"]))

    def test_wouldBlock(self) -> None:
        transport = connection(Socket(BlockingIOError()))
        writeNow(transport, b"frame")
        self.assertEqual(transport.written, [b"frame"])

    def test_broken(self) -> None:
        """The transport's own write() finds the failure and tells the protocol."""
        transport = connection(Socket(BrokenPipeError()))
        writeNow(transport, b"frame")
        self.assertEqual(transport.written, [b"frame"])

    def test_lost(self) -> None:
        """A transport that has lost its connection has no socket."""
        transport = connection(None)
        writeNow(transport, b"frame")
        self.assertEqual(transport.written, [b"frame"])

    def test_noPlainSocket(self) -> None:
        """Transports that wrap a socket, as for TLS, write by their own method."""
        transport = StringTransport()
        writeNow(transport, b"frame")
        self.assertEqual(transport.value(), b"frame")


class PeerAddressTests(SynchronousTestCase):
    def test_unix(self) -> None:
        self.assertEqual(peerAddress(StringTransport(peerAddress=object())), "unix")

    def test_ip(self) -> None:
        self.assertEqual(peerAddress(StringTransport()), "192.168.1.1")


class QueueTests(SynchronousTestCase):
    """The connections that wait to be accepted."""

    def lengthened(self, description: str) -> list[int]:
        lengths: list[int] = []
        lengthenQueue(SimpleNamespace(socket=SimpleNamespace(listen=lengths.append)), description)
        return lengths

    def test_longer(self) -> None:
        for description in ("tcp:8000", "unix:/run/chat", "haproxy:tcp:8000", "ssl:443:privateKey=key.pem"):
            self.assertEqual(self.lengthened(description), [1024], description)

    def test_asAsked(self) -> None:
        """The user's number stays, and systemd's."""
        for description in ("tcp:8000:backlog=5", "systemd:domain=INET:index=0"):
            self.assertEqual(self.lengthened(description), [], description)

    def test_noSocket(self) -> None:
        lengthenQueue(object(), "tcp:8000")
