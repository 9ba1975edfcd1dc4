"""
A transport in memory, for tests of what sends to a session's client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from zope.interface import implementer

from txrealtime.engineio.packet import Codec, EngineIO4, Packet, PacketType
from txrealtime.engineio.session import CloseReason, ITransport, Session

__all__ = ["FakeTransport"]


@implementer(ITransport)
class FakeTransport:
    """
    A transport that collects packets in a list.

    :ivar sent: the packets sent and not yet taken, as a client decodes them.
    :ivar writable: true while the transport takes packets; see :meth:`Client.stopReading`.
    :ivar closed: the reason, once closed.
    :ivar reading: false while the session pauses reading.  Packets of a :class:`Client` are delivered all the
        same, where a network would hold them back.
    :ivar pinged: called after a PING was sent.
    :ivar ended: called after the transport was closed.

    :param codec: the client's version of Engine.IO; 4 by default.
    """

    batch: Final = 16

    def __init__(
        self, name: Literal["polling", "websocket"] = "websocket", codec: Codec | None = None
    ) -> None:
        self.name: str = name
        self._codec = codec or EngineIO4()
        self.writable = True
        self.sent: list[Packet] = []
        self.closed: CloseReason | None = None
        self.reading = True
        self.session: Session | None = None
        self.pinged: Callable[[], object] = lambda: None
        self.ended: Callable[[], object] = lambda: None

    def send(self, packets: Sequence[Packet]) -> None:
        assert self.writable, "send() while the transport is not writable"
        assert self.closed is None, "send() after close()"
        codec = self._codec
        for packet in packets:
            if self.name == "polling":
                body = codec.encodePayload([packet])
                self.sent += codec.decodePayload(body, codec.isOctets(body))
            else:
                self.sent.append(self.decoded(packet))
            if packet.type is PacketType.PING:
                self.pinged()

    def take(self) -> list[Packet]:
        """Take the packets sent since the last call."""
        taken, self.sent = self.sent, []
        return taken

    def decoded(self, packet: Packet) -> Packet:
        """Decode a packet as the other side of a WebSocket would."""
        wire, isBinary = self._codec.encodeMessage(packet)
        return self._codec.decodeBytes(wire) if isBinary else self._codec.decodeText(wire.decode())

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        return ()

    def close(self, reason: CloseReason) -> None:
        self.closed = self.closed or reason
        self.writable = False
        self.ended()

    def pauseReading(self) -> None:
        self.reading = False

    def resumeReading(self) -> None:
        self.reading = True
