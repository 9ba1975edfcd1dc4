"""
A fast path for a client's WebSocket frames.

Nearly all messages are single, unfragmented, uncompressed data frames.  :class:`Frames` reads these in one
pass over the received bytes, keeps the beginning of the last one, and sends the replies to one read in one
write.  Every other frame goes to the complete protocol with all bytes that follow, so the order is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from txrealtime.engineio.tcp import writeNow
from txrealtime.engineio.websocket.plain import unmask

__all__ = ["Frames", "maskedFrame"]

# Bytes.  What one read leads to leaves in one write, up to this size.
_CORK_LIMIT: Final = 65536

_HEADS: Final = tuple(tuple(bytes((first, 128 | size)) for size in range(126)) for first in (0x81, 0x82))


def _masks() -> Iterator[bytes]:
    """Yield masks of 4 bytes: one system call serves a thousand of them."""
    while True:
        pool = os.urandom(4096)
        for start in range(0, 4096, 4):
            yield pool[start : start + 4]


_nextMask: Final = _masks().__next__


def maskedFrame(payload: bytes, isBinary: bool) -> bytes:
    """Build a masked, unfragmented data frame (RFC 6455, 5.2 and 5.3)."""
    size = len(payload)
    mask = _nextMask()
    if size < 126:
        head = _HEADS[isBinary][size]
    elif size < 65536:
        head = (b"\x82\xfe" if isBinary else b"\x81\xfe") + size.to_bytes(2, "big")
    else:
        head = (b"\x82\xff" if isBinary else b"\x81\xff") + size.to_bytes(8, "big")
    return head + mask + unmask(payload, mask) if size else head + mask


class Frames:
    """
    The fast path of one WebSocket; the complete protocol is the other base of the class.

    :ivar isFast: true to use the fast path, once the handshake is complete.
    :ivar maxPayload: bytes that a message may have.
    :ivar textReceived: called with each text message.
    :ivar bytesReceived: called with each binary message.
    """

    textReceived: Callable[[str], None]
    bytesReceived: Callable[[bytes], None]

    transport: Any

    isFast = False
    maxPayload = 0
    _partial: bytearray | None = None
    _readsFully = True
    _wanted = 0
    _cork: list[bytes] | None = None
    _corked = 0

    # -- for the complete protocol ---------------------------------------------------

    def readFully(self, data: bytes) -> None:
        """Read some bytes by the complete protocol."""
        raise NotImplementedError

    @property
    def isBetweenMessages(self) -> bool:
        """True if the WebSocket is open and the complete protocol holds no part of a message."""
        raise NotImplementedError

    # -- reading ---------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        partial = self._partial
        if partial is not None:
            partial += data
            if len(partial) < self._wanted:
                return
            data, self._partial = bytes(partial), None
        if self._readsFully:
            self.readFully(data)
            self._readsFully = not (self.isFast and self.isBetweenMessages)
            return
        self._cork = []
        try:
            self._readFrames(data)
        finally:
            self.uncork()

    def _readFrames(self, data: bytes) -> None:
        """
        Read the complete plain frames, and keep the beginning of an incomplete one.

        The loop runs for every message and contains its helpers' code, since a call costs more.
        """
        position, end, limit = 0, len(data), self.maxPayload
        textReceived = self.textReceived
        while end - position >= 2:
            first, size = data[position], data[position + 1]
            start = position + 2
            if size > 125:
                start += 2 if size == 126 else 8
                if end < start and size < 128:
                    break
                least = 126 if size == 126 else 65536 if size == 127 else limit + 1
                size = int.from_bytes(data[position + 2 : start], "big")
                # RFC 6455, 5.1 and 5.2: a server's frame has no mask, and the length its shortest form.
                if size < least:
                    size = limit + 1
            if size > limit or (first != 0x81 and first != 0x82):
                self._readRest(data[position:])
                return
            stop = start + size
            if stop > end:
                break
            if first == 0x81:
                try:
                    text = data[start:stop].decode()
                except UnicodeDecodeError:
                    self._readRest(data[position:])
                    return
                textReceived(text)
            else:
                self.bytesReceived(data[start:stop])
            position = stop
            if not self.isFast:  # the message led to a closing handshake
                self._readRest(data[position:])
                return
        if position < end:
            self._keep(data, position)

    def leaveFastPath(self) -> None:
        """Leave all frames from now on to the complete protocol."""
        self.isFast = False
        self._readsFully = True

    def _readRest(self, data: bytes) -> None:
        if data:
            self.uncork()
            self.readFully(data)
        self._readsFully = not (self.isFast and self.isBetweenMessages)

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the beginning of a frame until its length, or all of it, has come."""
        rest = self._partial = bytearray(data[position:])
        self._wanted = 2
        if len(rest) >= 2:
            size = rest[1]
            self._wanted = head = 2 if size < 126 else 4 if size == 126 else 10
            if len(rest) >= head:
                if size > 125:
                    size = int.from_bytes(rest[2:head], "big")
                self._wanted = head + size

    # -- writing ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """
        Write whole frames, together with all else that the current read leads to.

        Outside a read, the transport's own buffer joins all that one turn of the reactor writes.
        """
        cork = self._cork
        if cork is None:
            self.transport.write(data)
            return
        cork.append(data)
        self._corked += len(data)
        if self._corked > _CORK_LIMIT:
            self.uncork()
            self._cork = []

    def uncork(self) -> None:
        """Write what has been gathered, at once: the transport's buffer would wait for a turn."""
        cork, self._cork, self._corked = self._cork, None, 0
        if cork:
            writeNow(self.transport, cork[0] if len(cork) == 1 else b"".join(cork))
