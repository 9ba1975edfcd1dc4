"""
Transports that count the bytes of their messages, for servers whose metrics are read.

They repeat a few lines of the plain transports instead of calling them: a call more for each receiver of a
broadcast would be 5 % of its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txrealtime.engineio.counts import Counts, tallied
from txrealtime.engineio.packet import Packet
from txrealtime.engineio.polling.request import HTTPRequest
from txrealtime.engineio.polling.transport import PollingTransport
from txrealtime.engineio.websocket.transport import WebSocketTransport, framed

if TYPE_CHECKING:
    from txrealtime.engineio.engine import Engine

__all__ = ["countBytes"]


def countBytes(engine: Engine) -> None:
    """Count the bytes of the sessions that an engine opens from now on."""
    engine.webSocketType = _countingWebSocket(engine.counts)
    engine.pollingType = _countingPolling(engine.counts)


def _countingWebSocket(counts: Counts) -> type[WebSocketTransport]:

    class CountingWebSocket(WebSocketTransport):
        """A WebSocket that counts the bytes of messages, without the heads of frames."""

        __slots__ = ()

        def send(self, packets: Sequence[Packet]) -> None:
            if self._sharesFrames:
                write = self.writeNow if self._cork is None else self.write
                for packet in packets:
                    frame = packet.frame
                    if frame is None:
                        frame = framed(packet)
                        write(frame)
                        size = len(frame)
                        # Without the head: the payload's size is in 1, 3 or 9 of its bytes (RFC 6455, 5.2).
                        counts.framedBytes += size - (2 if size < 128 else 4 if size < 65540 else 10)
                        counts.framed += 1
                    else:
                        counts.repeated += packet.tally or tallied(packet)
                        write(frame)
            else:
                counts.framedBytes += sum([len(packet.wire) for packet in packets])
                counts.framed += len(packets)
                super().send(packets)

        def textReceived(self, text: str) -> None:
            counts.packetsReceived += 1
            counts.receivedByWebSocket += len(text) if text.isascii() else len(text.encode())
            session = self.session
            if session is not None and text[:1] == "4" and session.transport is self:
                session.messageReceived(text[1:])
            else:
                super().textReceived(text)

        def bytesReceived(self, data: bytes) -> None:
            counts.packetsReceived += 1
            counts.receivedByWebSocket += len(data)
            super().bytesReceived(data)

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
