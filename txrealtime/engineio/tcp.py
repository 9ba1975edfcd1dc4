"""
Operations on a transport beyond its interface: exchange its protocol, write to its socket.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.tcp import Server
from twisted.internet.unix import Server as UNIXServer
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from txrealtime.foreign import report

__all__ = [
    "currentProtocol",
    "directSend",
    "peerAddress",
    "replaceProtocol",
    "setProtocol",
    "whenLost",
    "writeNow",
]


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
    if transport.__class__ is not Server and transport.__class__ is not UNIXServer:
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
        with contextlib.suppress(OSError):  # it would block or is broken: the transport handles both
            data = data[send(data) :]
        if not data:
            return True
    transport.write(data)
    return False


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
