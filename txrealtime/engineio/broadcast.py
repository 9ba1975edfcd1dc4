"""
One packet for many clients.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from txrealtime.engineio.packet import Packet
from txrealtime.engineio.session import Session, State
from txrealtime.engineio.websocket.transport import WebSocketTransport, framed
from txrealtime.speedups import accelerated

__all__ = ["Member", "broadcast"]


class Member(Protocol):
    """
    A receiver of a broadcast.

    :ivar connected: ``True`` if its session takes packets.
    """

    connected: bool
    session: Session


_M = TypeVar("_M", bound=Member)


@accelerated
def sendAll(members: list[_M], frame: bytes, sessionType: type, transportType: type, open: State) -> list[_M]:
    """
    Write a frame to the members whose sockets take it at once, without a call of Python for each.

    These have a session of just this type that is open and keeps nothing back, and a plain WebSocket.

    :return: the others, who take the ordinary way.  In Python these are all.
    """
    return members


def broadcast(members: list[_M], packet: Packet) -> list[_M]:
    """
    Send a packet to the members that can take it at once.

    :return: the others.
    """
    return sendAll(members, packet.frame or framed(packet), Session, WebSocketTransport, State.OPEN)
