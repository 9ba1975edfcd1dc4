"""
What the protocols here do with a transport beyond what its interface offers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.tcp import Server
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

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
    """The address at the other end, as text; ``unix`` for a UNIX socket."""
    return getattr(transport.getPeer(), "host", "unix")


def currentProtocol(transport: Any) -> IProtocol:
    """The protocol that receives what comes."""
    protocol: IProtocol
    protocol = transport.wrappedProtocol if isinstance(transport, ProtocolWrapper) else transport.protocol
    return protocol


def setProtocol(transport: Any, protocol: IProtocol) -> None:
    """Let a protocol receive what comes from now on."""
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol


def replaceProtocol(transport: Any, protocol: IProtocol) -> None:
    """Let a new protocol have a connection."""
    setProtocol(transport, protocol)
    protocol.makeConnection(transport)


def directSend(transport: Any) -> Callable[[bytes], int] | None:
    """
    What writes straight to a transport's socket, while nothing waits before it.

    The transport's own way, a buffer that is sent when the reactor next comes by, costs
    3.5 us more.  For TLS, and whatever else is no plain socket, there is no other:
    ``None``.
    """
    if transport.__class__ is Server and not transport.dataBuffer and not transport._tempDataBuffer:
        # Without a socket, it has lost its connection.
        return getattr(getattr(transport, "socket", None), "send", None)
    return None


def writeNow(transport: Any, data: bytes) -> bool:
    """
    Write, straight to the socket if that is possible.

    :return: whether all of it has left.
    """
    send = directSend(transport)
    if send is not None:
        with contextlib.suppress(OSError):  # it would block, or is broken: the transport knows what to do
            data = data[send(data) :]
        if not data:
            return True
    transport.write(data)
    return False


def whenLost(transport: Any, call: Callable[[], object]) -> None:
    """
    Have a function called when a connection is lost, whichever protocol has it by then.
    """
    lost = transport.connectionLost

    def connectionLost(reason: Failure) -> None:
        del transport.connectionLost
        call()
        lost(reason)

    # Protocols change on a connection, some of them ours and some not; the transport stays.
    transport.connectionLost = connectionLost
