"""
A trace of packets: a line of the log for each Engine.IO packet of some clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.interfaces import ITransport
from txrealtime.engineio.packet import Packet, PacketType, message
from txrealtime.engineio.session import Session
from txrealtime.logs import Logger

__all__ = ["Trace"]

_log = Logger()

_CONNECT: Final = "0"
"""The first character of a Socket.IO CONNECT, which may hold a password in its ``auth``."""


class Trace:
    """
    A trace of the packets of some sessions, from their opening.

    :param clients: addresses of clients, and beginnings of session ids; an empty text for all sessions.  As a
        session id is random, ``A`` is one session in 64.
    :param shown: characters of each payload that are shown; by default none.  Binary payloads, session ids
        and the ``auth`` of clients are never shown.
    """

    def __init__(self, clients: Iterable[str], shown: int = 0) -> None:
        self._clients = tuple(clients)
        self._shown = shown

    def install(self, engine: Engine) -> None:
        """Trace the sessions that an engine opens from now on."""
        engine.makeSession = self._make

    def _make(self, sid: str, handshake: OpeningRequest, *others: Any) -> Session:
        if handshake.address in self._clients or sid.startswith(self._clients):
            return _TracedSession(self, sid, handshake, *others)
        return Session(sid, handshake, *others)

    def tell(self, session: Session, way: str, type: PacketType, data: str | bytes) -> None:
        """
        Log a packet.

        :param way: ``in`` or ``out``.
        """
        payload = ""
        isSecret = type is PacketType.OPEN or (type is PacketType.MESSAGE and data[:1] == _CONNECT)
        if self._shown and data and isinstance(data, str) and not isSecret:
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
