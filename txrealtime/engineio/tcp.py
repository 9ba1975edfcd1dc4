"""
Operations on a transport beyond its interface: exchange its protocol, write to its socket.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from types import MethodType
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Client, Connection, Server
from twisted.internet.unix import Client as UNIXClient
from twisted.internet.unix import Server as UNIXServer
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from txrealtime.foreign import report

__all__ = [
    "QUEUE",
    "currentProtocol",
    "directSend",
    "endAndDiscard",
    "endConnection",
    "endNow",
    "endOutput",
    "lengthenQueue",
    "peerAddress",
    "readPlainly",
    "replaceProtocol",
    "setProtocol",
    "takenBytes",
    "unsentBytes",
    "whenLost",
    "writeNow",
]


_PLAIN: Final[frozenset[Any]] = frozenset([Server, UNIXServer, Client, UNIXClient])

_UNIX: Final[frozenset[Any]] = frozenset([UNIXServer, UNIXClient])

# The place of tcpi_bytes_acked in Linux's struct tcp_info.
_ACKED: Final = slice(120, 128)

QUEUE: Final = 1024
"""Connections that may wait to be accepted."""


def peerAddress(transport: Any) -> str:
    """Return the address of the other end as text; ``unix`` for a UNIX socket."""
    return getattr(transport.getPeer(), "host", "unix")


def currentProtocol(transport: Any) -> IProtocol:
    """Return the protocol to which a transport delivers data."""
    protocol: IProtocol
    protocol = transport.wrappedProtocol if isinstance(transport, ProtocolWrapper) else transport.protocol
    return protocol


def setProtocol(transport: Any, protocol: IProtocol) -> None:
    """Have a transport deliver data to another protocol from now on."""
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol


def replaceProtocol(transport: Any, protocol: IProtocol) -> None:
    """Connect a transport to another protocol, and tell that protocol."""
    setProtocol(transport, protocol)
    protocol.makeConnection(transport)


def directSend(transport: Any) -> Callable[[bytes], int] | None:
    """
    Return the ``send`` of a plain TCP or Unix socket while the transport has nothing buffered.

    The transport's own ``write`` fills a buffer, which the reactor sends in its next turn: 3.5 us more.
    TLS and other wrapped sockets have only this ``write``, for which the result is ``None``.
    """
    if transport.__class__ not in _PLAIN:
        return None
    try:
        if transport.dataBuffer or transport._tempDataBuffer:
            return None
        send: Callable[[bytes], int] = transport.socket.send
    except AttributeError:
        # A transport deletes its socket when the connection is lost.
        if transport.connected:
            report(transport, "dataBuffer", "_tempDataBuffer", "socket", without="writes wait for a turn")
        return None
    return send


def writeNow(transport: Any, data: bytes) -> bool:
    """
    Write at once to the socket if possible, and otherwise to the transport.

    :return: ``True`` if the kernel has taken all of the data.
    """
    send = directSend(transport)
    if send is not None:
        try:  # noqa: SIM105 - suppress() takes 0.3 us
            data = data[send(data) :]
        except OSError:
            pass  # it would block or is broken: the transport handles both
        if not data:
            return True
    transport.write(data)
    return False


def readPlainly(transport: Any) -> None:
    """
    Let a UNIX socket read bytes alone, and no descriptors, which the system closes if the peer sends any.

    The transport's own reading makes room for descriptors: 6.9 us for a read instead of 1.3.
    """
    if transport.__class__ in _UNIX:
        transport.doRead = MethodType(Connection.doRead, transport)


def endOutput(transport: Any) -> None:
    """
    End a connection's output behind all written data, and go on reading until the peer ends its own.

    After ``loseConnection``, data that arrives is answered by a reset, and a reset destroys what the peer has
    not read yet.  TLS cannot end one direction alone; its ``loseConnection`` waits for the peer.
    """
    # A producer that is paused would keep the connection's output from ending.
    transport.unregisterProducer()
    if ISSLTransport.providedBy(transport):
        transport.loseConnection()
    else:
        transport.loseWriteConnection()


def endConnection(transport: Any) -> None:
    """Close a connection behind all written data, also if its producer is paused."""
    # TLS waits for the producer, and TCP for one that is paused.
    transport.unregisterProducer()
    transport.loseConnection()


def endNow(transport: Any) -> None:
    """
    Close a connection behind all written data: in this call, if all of it has left.

    ``loseConnection`` waits for a turn of the reactor in any case, and registers for it: 9 us.
    """
    if directSend(transport) is None:
        endConnection(transport)
    else:
        transport.connectionLost(Failure(ConnectionDone()))


def unsentBytes(transport: Any) -> int:
    """Return the bytes in the system's queue that the peer has not acknowledged (``SIOCOUTQ``)."""
    try:
        data = fcntl.ioctl(_socketOf(transport), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError):  # no connection of the system, or it is lost
        return 0
    return int.from_bytes(data, sys.byteorder)


def takenBytes(transport: Any) -> int:
    """Return the bytes that the peer has acknowledged; 0 where the system does not tell, for UNIX sockets."""
    try:
        data = _socketOf(transport).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.stop)
    except (AttributeError, OSError):
        return 0
    return int.from_bytes(data[_ACKED], sys.byteorder)


def _socketOf(transport: Any) -> socket.socket:
    while isinstance(transport, ProtocolWrapper):  # TLS
        transport = transport.transport
    handle: socket.socket = transport.getHandle()
    return handle


class _Discard(Protocol):
    """A protocol that drops what it reads, and tells the former protocol of the loss of the connection."""

    def __init__(self, former: IProtocol) -> None:
        self._former = former

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._former.connectionLost(reason)


def endAndDiscard(transport: Any) -> None:
    """
    End a connection behind a refusal: end the output, and drop whatever the peer still sends.

    The former protocol keeps its deadlines, and ends the connection if the peer does not.
    """
    former = currentProtocol(transport)
    endOutput(transport)
    replaceProtocol(transport, _Discard(former))


def lengthenQueue(port: Any, description: str) -> None:
    """
    Let 1,024 connections wait for a port to accept them, unless its endpoint string has a number.

    By itself, Twisted lets 50 wait.  When all clients come back at once, TCP makes the others try again a
    second later, and a UNIX socket refuses them.  The kernel's ``somaxconn`` is the upper bound.

    :param description: the endpoint string.
    """
    listening = getattr(port, "socket", None)
    if listening is not None and "backlog=" not in description and "systemd:" not in description:
        listening.listen(QUEUE)


def whenLost(transport: Any, call: Callable[[], object]) -> None:
    """
    Call a function when a connection is lost, whichever protocol the transport has by then.
    """
    lost = transport.connectionLost

    def connectionLost(reason: Failure) -> None:
        del transport.connectionLost
        call()
        lost(reason)

    # A connection changes its protocol, also to classes of twisted.web, but never its transport.
    transport.connectionLost = connectionLost
