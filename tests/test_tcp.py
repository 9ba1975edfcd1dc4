"""
Writing straight to a socket: nothing lost, nothing twice, nothing out of order.
"""

from __future__ import annotations

import errno
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

import tests.memory  # noqa: F401  the settings of hypothesis
from txrealtime.engineio.tcp import peerAddress, writeNow


class Socket:
    """
    A socket's sending side.

    :ivar room: what it takes at once: so many bytes, or an error.
    """

    def __init__(self, room: int | Exception) -> None:
        self.room = room
        self.sent = b""

    def send(self, data: bytes) -> int:
        if isinstance(self.room, Exception):
            raise self.room
        if not self.room:
            raise BlockingIOError(errno.EWOULDBLOCK, "no room")
        taken = bytes(data[: self.room])
        self.sent += taken
        return len(taken)


class Reactor:
    """Whom a connection asks to be told when there is room again."""

    def __init__(self) -> None:
        self.writers: list[Any] = []

    def addWriter(self, writer: Any) -> None:
        self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.clear()


def connection(room: int | Exception) -> Any:
    """A connection of the reactor's own kind, on a socket with so much room."""
    made = Server.__new__(Server)
    made.socket = Socket(room)
    made.reactor = Reactor()
    made.connected = 1
    made.dataBuffer = b""
    made._tempDataBuffer = []
    made._tempDataLen = 0
    return made


def waiting(made: Any) -> bytes:
    """What is buffered for a socket."""
    data: bytes = made.dataBuffer + b"".join(made._tempDataBuffer)
    return data


class WriteNowTests(SynchronousTestCase):
    def test_room(self) -> None:
        """All of it at once, without the reactor."""
        made = connection(100)
        writeNow(made, b"hello")
        self.assertEqual((made.socket.sent, waiting(made)), (b"hello", b""))
        self.assertEqual(made.reactor.writers, [])

    def test_someRoom(self) -> None:
        made = connection(2)
        writeNow(made, b"hello")
        self.assertEqual((made.socket.sent, waiting(made)), (b"he", b"llo"))
        self.assertEqual(made.reactor.writers, [made])

    def test_noRoom(self) -> None:
        made = connection(0)
        writeNow(made, b"hello")
        self.assertEqual((made.socket.sent, waiting(made)), (b"", b"hello"))
        self.assertEqual(made.reactor.writers, [made])

    def test_behindOthers(self) -> None:
        """What waits goes first, even if there would be room by now."""
        made = connection(2)
        writeNow(made, b"hello")
        made.socket.room = 100
        writeNow(made, b" world")
        self.assertEqual((made.socket.sent, waiting(made)), (b"he", b"llo world"))
        made.doWrite()
        self.assertEqual((made.socket.sent, waiting(made)), (b"hello world", b""))
        writeNow(made, b"!")
        self.assertEqual(made.socket.sent, b"hello world!")

    def test_broken(self) -> None:
        """The reactor finds out, and says so, in its own time."""
        made = connection(ConnectionResetError())
        writeNow(made, b"hello")
        self.assertEqual(waiting(made), b"hello")

    def test_closed(self) -> None:
        """A connection that is lost takes nothing, and complains about nothing."""
        made = connection(100)
        made.connected = 0
        del made.socket
        writeNow(made, b"hello")
        self.assertEqual(waiting(made), b"")

    def test_otherTransports(self) -> None:
        """TLS, and whatever else is no plain socket."""
        made = StringTransport()
        writeNow(made, b"hello")
        self.assertEqual(made.value(), b"hello")

    @given(st.lists(st.tuples(st.binary(max_size=6), st.integers(0, 8), st.booleans())))
    def test_order(self, steps: list[tuple[bytes, int, bool]]) -> None:
        """Whatever room there is, and whenever the reactor comes by."""
        made = connection(0)
        written = b""
        for data, room, comesBy in steps:
            made.socket.room = room
            if comesBy and waiting(made):
                made.doWrite()
            writeNow(made, data)
            written += data
            self.assertEqual(made.socket.sent + waiting(made)[made.offset :], written)


class PeerAddressTests(SynchronousTestCase):
    def test_address(self) -> None:
        self.assertEqual(peerAddress(StringTransport()), "192.168.1.1")

    def test_unix(self) -> None:
        self.assertEqual(peerAddress(StringTransport(peerAddress=object())), "unix")
