"""
What differs between the two Socket.IO protocols that clients speak.

Clients 3 and 4 speak protocol 5, clients 1 and 2 protocol 4.  The packets are the same but
for those that open a namespace; a :class:`Dialect` knows these, and nobody else has to.

==================  =====================================  =================================
.                   protocol 5                             protocol 4
==================  =====================================  =================================
namespace ``/``     the client asks for it                 every client is in it, unasked
what comes along    the data of CONNECT                    a query: ``0/admin?token=1``
the answer          ``0{"sid":"..."}``                     ``0``
a refusal           ``4{"message":"...","data":...}``      ``4"message"``, or ``4`` and data
the socket's id     as the answer says                     what the client makes of its sid
==================  =====================================  =================================
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.engineio.session import Session
from txrealtime.errors import ConnectionRejected
from txrealtime.socketio.jsontext import escaped
from txrealtime.socketio.packet import IParser, JSONParser, Packet, PacketType

__all__ = ["Dialect", "dialectOf"]

_ID_BYTES: Final = 15


class Dialect(Protocol):
    """One version of the protocol.  It has no state."""

    @property
    def joinsUnasked(self) -> bool:
        """Whether a client joins ``/`` by opening its session."""

    def wanted(self, packet: Packet) -> tuple[str, Any]:
        """The path that a CONNECT asks for, and the ``auth`` that comes along."""

    def socketId(self, session: Session, path: str, prefix: str) -> str:
        """The id of a new socket, which begins with a prefix where it may."""

    def welcome(self, path: str, id: str) -> Packet:
        """What tells the client that it is in."""

    def refusal(self, path: str, rejection: ConnectionRejected) -> Packet:
        """What tells the client that it is not."""


class _SocketIO5:
    joinsUnasked: Final = False

    @staticmethod
    def wanted(packet: Packet) -> tuple[str, Any]:
        return packet.namespace, packet.data

    @staticmethod
    def socketId(session: Session, path: str, prefix: str) -> str:
        return prefix + secrets.token_urlsafe(_ID_BYTES)

    @staticmethod
    def welcome(path: str, id: str) -> Packet:
        return Packet(PacketType.CONNECT, path, {"sid": id})

    @staticmethod
    def refusal(path: str, rejection: ConnectionRejected) -> Packet:
        reply: dict[str, Any] = {"message": rejection.message}
        if rejection.data is not None:
            reply["data"] = rejection.data
        return Packet(PacketType.CONNECT_ERROR, path, reply)


class _SocketIO4:
    joinsUnasked: Final = True

    @staticmethod
    def wanted(packet: Packet) -> tuple[str, Any]:
        path, _, query = packet.namespace.partition("?")
        return path, dict(parse_qsl(query, keep_blank_values=True)) or None

    @staticmethod
    def socketId(session: Session, path: str, prefix: str) -> str:
        # The client is told none: clients 2 make this of the session's.
        return session.sid if path == "/" else f"{path}#{session.sid}"

    @staticmethod
    def welcome(path: str, id: str) -> Packet:
        return Packet(PacketType.CONNECT, path)

    @staticmethod
    def refusal(path: str, rejection: ConnectionRejected) -> Packet:
        data = rejection.data
        # A number alone would be read as the id of an ack.
        bare = data is None or isinstance(data, (int, float))
        return Packet(PacketType.CONNECT_ERROR, path, rejection.message if bare else data)


# What stands before the JSON of a packet: its type, the number of its attachments, its namespace.
_HEAD: Final = re.compile("[0-9](?:[0-9]+-)?(?:/[^,]*,?)?")


def _escaped(text: str) -> str:
    """A packet with its JSON in ASCII."""
    head = _HEAD.match(text)
    start = 0 if head is None else head.end()
    return text[:start] + escaped(text[start:])


def dialectOf(session: Session, parser: IParser) -> Dialect:
    """The protocol that goes with a session's."""
    codec = session.codec
    if not isinstance(codec, EngineIO3):
        return _SocketIO5
    if isinstance(parser, JSONParser):
        codec.escape = _escaped
    return _SocketIO4
