"""
What the protocols here do with a transport beyond what its interface offers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.tcp import Server
from twisted.protocols.policies import ProtocolWrapper

__all__ = ["peerAddress", "replaceProtocol", "writeNow"]


def peerAddress(transport: Any) -> str:
    """The address at the other end, as text; ``unix`` for a UNIX socket."""
    return getattr(transport.getPeer(), "host", "unix")


def replaceProtocol(transport: Any, protocol: IProtocol) -> None:
    """Let another protocol receive what comes from now on."""
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    protocol.makeConnection(transport)


def writeNow(transport: Any, data: bytes) -> None:
    """
    Write straight to the socket when nothing waits before it.

    The transport's own way, a buffer that is sent when the reactor next comes by, costs
    3.5 us more.  TLS, and whatever else is no plain socket, takes it.
    """
    if transport.__class__ is Server and not transport.dataBuffer and not transport._tempDataBuffer:
        try:
            sent = transport.socket.send(data)
        except (OSError, AttributeError):
            # It would block, or is broken or closed: the transport knows what to do.
            sent = 0
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)
