"""
Transports that count the bytes of their messages, for servers whose metrics are read.

They repeat a few lines of the plain transports instead of calling them: a call more for each receiver of a
broadcast would be 5 % of its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txrealtime.engineio.counts import Counts
from txrealtime.engineio.packet import Packet
from txrealtime.engineio.polling.request import HTTPRequest
from txrealtime.engineio.polling.transport import PollingTransport
from txrealtime.engineio.websocket.transport import WebSocketTransport, framed

if TYPE_CHECKING:
    from txrealtime.engineio.engine import Engine

__all__ = ["countBytes"]


def countBytes(engine: Engine) -> None:
    """Count the bytes that come from now on, and those sent by the sessions that an engine opens."""
    engine.counts.countsBytes = True
    engine.webSocketType = _countingWebSocket(engine.counts)
    engine.pollingType = _countingPolling(engine.counts)


def _countingWebSocket(counts: Counts) -> type[WebSocketTransport]:

    class CountingWebSocket(WebSocketTransport):
        """A WebSocket that counts the bytes of the messages sent, without the heads of frames."""

        __slots__ = ()

        def send(self, packets: Sequence[Packet]) -> object:
            if self._sharesFrames:
                write = self.writeNow if self._cork is None else self.write
                uncounted = False
                for packet in packets:
                    frame = packet.frame
                    if frame is not None and packet.isShared:
                        uncounted = True
                    else:
                        frame = frame or framed(packet)
                        counts.sentByWebSocket += len(packet.encoded)  # type: ignore[arg-type]
                        counts.packetsByWebSocket += 1
                    write(frame)
                return uncounted
            counts.sent(packets, 1)
            return super().send(packets)

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
            counts.packetsReceived += 1
            return body

    return CountingPolling
