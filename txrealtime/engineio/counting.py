"""
The counting of bytes, for servers whose metrics are read.

What comes is counted once for each read, and what a broadcast writes in C once for all its receivers.  The
transports here count the rest.  They repeat a few lines of the plain transports instead of calling them: a
call more for each receiver of a broadcast would be 5 % of its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from txrealtime.engineio.counts import Counts
from txrealtime.engineio.packet import Packet, PacketType, message
from txrealtime.engineio.polling.request import HTTPRequest
from txrealtime.engineio.polling.transport import PollingTransport
from txrealtime.engineio.websocket.plain import Meter, payloadSize, textFrame
from txrealtime.engineio.websocket.transport import WebSocketTransport, framed

if TYPE_CHECKING:
    from txrealtime.engineio.engine import Engine

__all__ = ["countBytes"]

_MESSAGE: Final = PacketType.MESSAGE


def countBytes(engine: Engine) -> None:
    """Count the bytes that come from now on, and those sent by the sessions that open from now on."""
    counts = engine.counts
    if counts.sent is None:
        counts.received, counts.sent = Meter(), Meter()
        engine.webSocketType = counts.counting = _countingWebSocket(counts, counts.sent)
        engine.pollingType = _countingPolling(counts)


def _countingWebSocket(counts: Counts, sent: Meter) -> type[WebSocketTransport]:
    def toFirst(packet: Packet) -> bytes:
        """Count a packet for a receiver, the first one unless it was framed for others; return the frame."""
        made = packet.frame
        # A PING, say, is the same object for all engines.
        if made is None or packet.type is not _MESSAGE:
            made = made or framed(packet)
            sent.add(1, payloadSize(made))
        else:
            counts.share(packet)
        return made

    class CountingWebSocket(WebSocketTransport):
        """A WebSocket that counts the bytes of the messages sent, without the heads of frames."""

        __slots__ = ()

        def send(self, packets: Sequence[Packet]) -> None:
            if self._sharesFrames:
                for packet in packets:
                    times = packet.times
                    if times:
                        packet.times = times + 1
                        frame: bytes = packet.frame  # type: ignore[assignment]
                    else:
                        frame = toFirst(packet)
                    if self._cork is None:
                        self.writeNow(frame)
                    else:
                        self.write(frame)
            elif self.session is not None:
                sent.add(len(packets), sum([len(packet.wire) for packet in packets]))
                super().send(packets)

        def sendMessage(self, text: str) -> None:
            if self._sharesFrames:
                frame = textFrame("4", text, sent)
                if self._cork is None:
                    self.writeNow(frame)
                else:
                    self.write(frame)
            else:
                self.send([message(text)])

    return CountingWebSocket


def _countingPolling(counts: Counts) -> type[PollingTransport]:

    class CountingPolling(PollingTransport):
        """A polling transport that counts the bytes of bodies, before their compression."""

        __slots__ = ()

        def send(self, packets: Sequence[Packet]) -> None:
            counts.packetsByPolling += len(packets)
            counts.sentByPolling += sum([len(packet.wire) for packet in packets])
            super().send(packets)

        def bodyOf(self, request: HTTPRequest, most: int) -> bytes:
            body = super().bodyOf(request, most)
            counts.receivedByPolling += len(body)
            counts.bodies += 1
            return body

    return CountingPolling
