"""
One packet for many clients.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from txrealtime.engineio.packet import Packet
from txrealtime.engineio.session import Session, State
from txrealtime.engineio.websocket.plain import payloadSize
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
    Write a frame to the members that can take it at once, without a call of Python for each plain socket.

    These have a session of just this type that is open and keeps nothing back, and a WebSocket of just this
    type without compression.  If their sockets are not plain, as over TLS, their transports write.

    :return: the others, who take the ordinary way.  In Python these are all.
    """
    return members


def broadcast(members: list[_M], packet: Packet) -> list[_M]:
    """
    Send a packet to the members, one at least, that can take it at once.

    :return: the others.
    """
    frame = packet.frame or framed(packet)
    counts = members[0].session.counts
    if counts.sent is None or counts.counting is None:
        return sendAll(members, frame, Session, WebSocketTransport, State.OPEN)
    rest = sendAll(members, frame, Session, counts.counting, State.OPEN)
    done = len(members) - len(rest)
    counts.sent.add(done, done * payloadSize(frame))
    return rest
