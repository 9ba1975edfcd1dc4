"""
A fast path for WebSocket frames.

Nearly all messages are single, unfragmented, uncompressed data frames.
:class:`FrameProtocol` reads these frames in one pass over the received bytes, and sends the
replies to one read in one write.  Plain control frames are read here as well.  Everything else belongs to a
:class:`~txrealtime.engineio.websocket.handshakes.FullWebSocket`, which
:mod:`~txrealtime.engineio.websocket.autobahn` implements: extensions, fragments, unusual handshakes, and
violations of RFC 6455.  A frame goes to it with all bytes that
follow, and reading returns here once it is between two messages; so the order on the wire is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import length_hint
from typing import Final

from txrealtime.engineio.refusals import headTooLarge
from txrealtime.engineio.tcp import directSend, endAndDiscard
from txrealtime.engineio.websocket.handshakes import FullWebSocket, Handshakes
from txrealtime.engineio.websocket.opening import isPlainClose
from txrealtime.engineio.websocket.plain import frame, readMessages, unmask

__all__ = ["FrameProtocol"]

# Bytes.  The replies to one read leave in one write, up to this size.
_CORK_LIMIT: Final = 65536


class FrameProtocol(Handshakes):
    """
    A server's WebSocket that sends and receives whole messages.

    Its messages belong to no session yet.  Subclasses add one, as
    :class:`~txrealtime.engineio.websocket.transport.WebSocketTransport` does, or make a plain
    WebSocket server with the same limits.
    """

    # Slots, as those of Handshakes.
    __slots__ = ("_corked", "_send")

    def __init__(self) -> None:
        super().__init__()
        self._corked = 0
        self._send: Callable[[bytes], int] | None = None

    # -- for subclasses ----------------------------------------------------------

    def textReceived(self, text: str) -> None:
        """Called when a text message is complete."""

    def bytesReceived(self, data: bytes) -> None:
        """Called when a binary message is complete."""

    def unusualReceived(self, payload: bytes, isBinary: bool) -> None:
        """Called when Autobahn has read a message."""
        if self.factory.counts.received is not None:
            self.factory.counts.received.add(1, len(payload))
        if isBinary:
            self.bytesReceived(payload)
        else:
            self.textReceived(payload.decode())

    def pinged(self, payload: bytes) -> None:
        """Called when a PING has come, which requires a PONG at some time (RFC 6455, 5.5.3)."""
        if self._autobahn is None:
            self.write(bytes((0x8A, len(payload))) + payload)
        else:
            self._autobahn.answerPing(payload)

    # -- reading -----------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._autobahnReads:
            if self._head is not None:
                self._head += len(data)
                if self._head > self.factory.settings.maxHeaderSize:
                    self.refuse(headTooLarge(self.factory.settings.maxHeaderSize), {})
                    endAndDiscard(self.transport)
                    return
            self._readByAutobahn(data)
            return
        partial = self._partial
        if partial is not None:
            partial += data
            if len(partial) < self._wanted:
                return
            data, self._partial = bytes(partial), None
        self._cork = []
        try:
            self._readFrames(data)
        finally:
            self._uncork()

    def _readFrames(self, data: bytes) -> None:
        """Read all complete frames, and keep the beginning of an incomplete one."""
        maxPayload = self.factory.settings.maxPayload
        meter = self.factory.counts.received
        position, end = 0, len(data)
        while True:
            messages, stop = readMessages(data, position, maxPayload, -1, meter)
            rest = iter(messages)
            for message in rest:
                if message.__class__ is str:
                    self.textReceived(message)
                else:
                    self.bytesReceived(message)  # type: ignore[arg-type]
                if self._autobahnReads:  # the message led to a closing handshake
                    taken = len(messages) - length_hint(rest)
                    position = readMessages(data, position, maxPayload, taken, None)[1]
                    self._uncount(list(rest))
                    self._readByAutobahn(data[position:])
                    return
            if stop == end:
                return
            position = self._readOther(data, stop)
            if position in (0, end):
                return

    def _uncount(self, messages: list[str | bytes]) -> None:
        """Take messages out of the counts that were read ahead, and that nobody receives."""
        received = self.factory.counts.received
        if received is not None:
            size = sum([len(each if isinstance(each, bytes) else each.encode()) for each in messages])
            received.add(-len(messages), -size)

    def _readOther(self, data: bytes, position: int) -> int:
        """
        Read a frame that is not a plain message: incomplete, a control frame, or one for Autobahn.

        :return: the position behind the frame, or 0 if all of the data is read.
        """
        first, end = data[position], len(data)
        if end - position < 2:
            self._keep(data, position)
            return 0
        size = data[position + 1] - 128  # RFC 6455, 5.1: a client's frame has the mask bit
        start = position + 6
        if size > 125:
            start += 2 if size == 126 else 8
            if end < start:
                self._keep(data, position)
                return 0
            size = int.from_bytes(data[position + 2 : start - 4], "big")
            # RFC 6455, 5.2: the length must have its shortest form.
            if size < (65536 if start - position == 14 else 126):
                size = -1
        if (first == 0x81 or first == 0x82) and 0 <= size <= self.factory.settings.maxPayload:
            if start + size > end:
                self._keep(data, position)
                return 0
        elif read := self._readControl(data, position, size):
            if not self._autobahnReads:
                return position + read
            position += read
        self._readByAutobahn(data[position:])
        return 0

    def _readControl(self, data: bytes, position: int, size: int) -> int:
        """
        Read a control frame (RFC 6455, 5.5).

        :return: the bytes that were read, or 0 if Autobahn must read the frame.
        """
        start = position + 6
        if not 0 <= size <= 125 or start + size > len(data):
            return 0
        payload = unmask(data[start : start + size], data[start - 4 : start])
        first = data[position]
        if first == 0x89:
            self.pinged(payload)
        elif first == 0x88 and isPlainClose(payload):
            self._closedByPeer()
            return len(data) - position  # RFC 6455, 5.5.1: no data follows
        elif first != 0x8A:
            return 0
        return 6 + size

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the beginning of a frame until its length, or all of it, has come."""
        rest = bytearray(data[position:])
        self._partial = rest
        self._wanted = 2
        if len(rest) >= 2:
            size = rest[1] & 127
            self._wanted = head = 6 if size < 126 else 8 if size == 126 else 14
            if len(rest) >= head:
                if size > 125:
                    size = int.from_bytes(rest[2 : head - 4], "big")
                self._wanted = head + size

    def _readByAutobahn(self, data: bytes) -> None:
        self._uncork()
        if data:
            autobahn = self._ensureAutobahn()
            autobahn.feed(data)
            if self._autobahn is autobahn:
                self._autobahnReads = not (self.factory.settings.shortWays and autobahn.isBetweenMessages)

    def _ensureAutobahn(self) -> FullWebSocket:
        if self._autobahn is None:
            self._autobahn = self.factory.makeAutobahn(self)
            self._autobahn.resume()
        return self._autobahn

    # -- writing -----------------------------------------------------------------

    def sendText(self, text: str) -> None:
        """Send a text message."""
        self.sendPayload(text.encode(), False)

    def sendBytes(self, data: bytes) -> None:
        """Send a binary message."""
        self.sendPayload(data, True)

    def sendPayload(self, payload: bytes, isBinary: bool) -> None:
        """Send a message of any size, compressed if agreed on and from ``compressionThreshold`` bytes on."""
        threshold = self.factory.settings.compressionThreshold
        if self.compresses and threshold and len(payload) >= threshold:
            self._ensureAutobahn().sendCompressed(payload, isBinary)
        else:
            self.write(frame(payload, isBinary))

    @property
    def compresses(self) -> bool:
        """``True`` if the handshake agreed on compression."""
        return self._autobahn is not None and self._autobahn.compresses

    def write(self, data: bytes) -> None:
        """Write whole frames, together with the other replies to the current read."""
        cork = self._cork
        if cork is None:
            self.writeNow(data)
            return
        cork.append(data)
        self._corked += len(data)
        if self._corked > _CORK_LIMIT:
            self._uncork()
            self._cork = []

    def _uncork(self) -> None:
        cork, self._cork, self._corked = self._cork, None, 0
        if cork:
            self.writeNow(cork[0] if len(cork) == 1 else b"".join(cork))

    def writeNow(self, data: bytes) -> None:
        """Write whole frames at once.  Only for use while the cork holds nothing."""
        # As tcp.writeNow, but without reading the transport while all goes well: in a broadcast to a
        # thousand clients, each read is a cache miss.
        send = self._send
        if send is None:
            send = directSend(self.transport) if self.factory.settings.shortWays else None
            if send is None:
                self.transport.write(data)
                return
            self._send = send
        try:
            sent = send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self.wroteLess(data, sent)

    def wroteLess(self, data: bytes, sent: int) -> None:
        """Called when the kernel has taken only the beginning of some data: the transport takes the rest."""
        self._send = None
        self.transport.write(data[sent:])
