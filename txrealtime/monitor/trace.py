"""
A trace of packets: a line of the log for each Engine.IO packet of some clients.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.interfaces import ITransport
from txrealtime.engineio.packet import Packet, PacketType, message
from txrealtime.engineio.session import Session
from txrealtime.logs import Logger
from txrealtime.monitor.admin.admin import PATH

__all__ = ["Trace"]

_log = Logger()

_CONNECT: Final = "0"
"""The first character of a Socket.IO CONNECT, which may hold a password in its ``auth``."""

_NAMESPACE: Final = re.compile(r"\d+-?(/[^,?]*)")
"""The head of a Socket.IO packet: the type, the number of attachments, and a namespace other than /."""


class Trace:
    """
    A trace of the packets of some sessions, from their opening.

    :param clients: addresses of clients, and beginnings of session ids; an empty text for all sessions.  As a
        session id is random, ``A`` is one session in 64.
    :param shown: characters of each payload that are shown; by default none.  Binary payloads, session ids
        and the ``auth`` of clients are never shown.
    :param hidden: namespaces whose payloads are not shown: by default the admin UI's, which has the sessions
        of logins.
    """

    def __init__(self, clients: Iterable[str], shown: int = 0, hidden: Collection[str] = (PATH,)) -> None:
        self._clients = tuple(clients)
        self._addresses = {_normal(client) for client in self._clients}
        self._shown = shown
        self._hidden = frozenset(hidden)

    def install(self, engine: Engine) -> None:
        """Trace the sessions that an engine opens from now on."""
        engine.makeSession = self._make

    def _make(self, sid: str, handshake: OpeningRequest, *others: Any) -> Session:
        if _normal(handshake.address) in self._addresses or sid.startswith(self._clients):
            return _TracedSession(self, sid, handshake, *others)
        return Session(sid, handshake, *others)

    def _isSecret(self, type: PacketType, data: str) -> bool:
        if type is not PacketType.MESSAGE:
            return type is PacketType.OPEN
        head = _NAMESPACE.match(data)
        return data.startswith(_CONNECT) or (head is not None and head[1] in self._hidden)

    def tell(self, session: Session, way: str, type: PacketType, data: str | bytes) -> None:
        """
        Log a packet.

        :param way: ``in`` or ``out``.
        """
        payload = ""
        if self._shown and data and isinstance(data, str) and not self._isSecret(type, data):
            payload = f": {data[: self._shown]}{'...' if len(data) > self._shown else ''}"
        _log.info(
            "session {session} {address} {transport} {way} {type} {size} {unit}{payload}",
            session=session.label,
            address=session.handshake.address,
            transport=session.transport.name,
            way=way,
            type=type.name,
            size=len(data),
            unit="characters" if isinstance(data, str) else "bytes",
            payload=payload,
        )


def _normal(address: str) -> str:
    """Return the one form of an IP address; any other text as it is."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


class _TracedSession(Session):
    """A session whose packets are logged."""

    __slots__ = ("_trace",)

    def __init__(self, trace: Trace, *others: Any) -> None:
        self._trace = trace
        super().__init__(*others)

    def sendPackets(self, packets: Sequence[Packet], volatile: bool = False) -> None:
        for packet in packets:
            self._trace.tell(self, "out", packet.type, packet.data)
        super().sendPackets(packets, volatile)

    def sendMessages(self, messages: Sequence[str | bytes]) -> None:
        self.sendPackets([message(each) for each in messages])

    def packetReceived(self, transport: ITransport, packet: Packet) -> None:
        if packet.type is not PacketType.MESSAGE:
            self._trace.tell(self, "in", packet.type, packet.data)
        super().packetReceived(transport, packet)

    def messageReceived(self, data: str | bytes) -> None:
        self._trace.tell(self, "in", PacketType.MESSAGE, data)
        super().messageReceived(data)
