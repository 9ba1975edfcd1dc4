"""
The two revisions of the Socket.IO protocol: differences between 4 and 5.

JavaScript clients 3 and 4 speak revision 5, clients 1 and 2 revision 4.  Only the packets that open a
namespace differ; a :class:`Revision` reads and writes these for all other modules.

==================  =====================================  =================================
.                   revision 5                             revision 4
==================  =====================================  =================================
namespace ``/``     the client asks for it                 every client joins it, unasked
``auth``            the data of CONNECT                    a query: ``0/admin?token=1``
the welcome         ``0{"sid":"..."}``                     ``0``
a refusal           ``4{"message":"...","data":...}``      ``4"message"``, or ``4`` and data
the socket's id     ``sid`` of the welcome                 made of the session's sid
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

__all__ = ["Revision", "revisionOf"]

_ID_BYTES: Final = 15


class Revision(Protocol):
    """A revision of the protocol, without state."""

    @property
    def joinsUnasked(self) -> bool:
        """True if a client joins ``/`` by opening its session."""

    def wanted(self, packet: Packet) -> tuple[str, Any]:
        """Read the path and the ``auth`` of a CONNECT."""

    def socketId(self, session: Session, path: str, prefix: str) -> str:
        """Make the id of a new socket.  Revision 5 begins it with the prefix; revision 4 cannot."""

    def welcome(self, path: str, id: str, ticket: dict[str, str] | None = None) -> Packet:
        """
        Make the packet that admits the client.

        :param ticket: the fields for a client that may come back.
        """

    def refusal(self, path: str, rejection: ConnectionRejected) -> Packet:
        """Make the packet that refuses the client."""


class _SocketIO5:
    joinsUnasked: Final = False

    @staticmethod
    def wanted(packet: Packet) -> tuple[str, Any]:
        return packet.namespace, packet.data

    @staticmethod
    def socketId(session: Session, path: str, prefix: str) -> str:
        return prefix + secrets.token_urlsafe(_ID_BYTES)

    @staticmethod
    def welcome(path: str, id: str, ticket: dict[str, str] | None = None) -> Packet:
        return Packet(PacketType.CONNECT, path, ticket or {"sid": id})

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
        # The welcome carries no id: clients 2 derive theirs from the session's in this way.
        return session.sid if path == "/" else f"{path}#{session.sid}"

    @staticmethod
    def welcome(path: str, id: str, ticket: dict[str, str] | None = None) -> Packet:
        return Packet(PacketType.CONNECT, path)

    @staticmethod
    def refusal(path: str, rejection: ConnectionRejected) -> Packet:
        data = rejection.data
        # The client would read a number alone as the id of an ack.
        bare = data is None or isinstance(data, (int, float))
        return Packet(PacketType.CONNECT_ERROR, path, rejection.message if bare else data)


# The head of a packet, before its JSON: the type, the number of attachments, the namespace.
_HEAD: Final = re.compile("[0-9](?:[0-9]+-)?(?:/[^,]*,?)?")


def _escaped(text: str) -> str:
    """Write a packet's JSON in ASCII."""
    head = _HEAD.match(text)
    start = 0 if head is None else head.end()
    return text[:start] + escaped(text[start:])


def revisionOf(session: Session, parser: IParser) -> Revision:
    """Choose the revision by the session's Engine.IO protocol: 4 for Engine.IO 3, 5 for Engine.IO 4."""
    codec = session.codec
    if not isinstance(codec, EngineIO3):
        return _SocketIO5
    if isinstance(parser, JSONParser):
        codec.escape = _escaped
    return _SocketIO4
