"""
A fast path for a client's WebSocket frames.

Nearly all messages are single, unfragmented, uncompressed data frames.  :class:`Frames` reads these in one
pass over the received bytes, keeps the beginning of the last one, and sends the replies to one read in one
write.  Every other frame goes to the complete protocol with all bytes that follow, so the order is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Any, Final

from txrealtime.engineio.tcp import writeNow
from txrealtime.engineio.websocket.plain import readUnmasked

__all__ = ["Frames", "nextMask"]

# Bytes.  What one read leads to leaves in one write, up to this size.
_CORK_LIMIT: Final = 65536


def _masks() -> Iterator[bytes]:
    """Yield masks of 4 bytes: one system call serves a thousand of them."""
    while True:
        pool = os.urandom(4096)
        for start in range(0, 4096, 4):
            yield pool[start : start + 4]


nextMask: Final = _masks().__next__
"""Return a mask that nobody can foresee (RFC 6455, 5.3)."""


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
            if self._cork:
                self.uncork()
            else:
                self._cork = None

    def _readFrames(self, data: bytes) -> None:
        """Read the complete plain frames, and keep the beginning of an incomplete one."""
        messages, stop = readUnmasked(data, 0, self.maxPayload, -1)
        textReceived = self.textReceived
        rest = iter(messages)
        for message in rest:
            if message.__class__ is str:
                textReceived(message)
            else:
                self.bytesReceived(message)  # type: ignore[arg-type]
            if not self.isFast:  # the message led to a closing handshake
                taken = len(messages) - length_hint(rest)
                self._readRest(data[readUnmasked(data, 0, self.maxPayload, taken)[1] :])
                return
        if stop < len(data):
            if self._isIncomplete(data, stop):
                self._keep(data, stop)
            else:
                self._readRest(data[stop:])

    def _isIncomplete(self, data: bytes, position: int) -> bool:
        """Return ``True`` at the beginning of a plain frame whose rest has not come."""
        end = len(data)
        if end - position < 2:
            return True
        first, size = data[position], data[position + 1]
        if size > 127 or (first != 0x81 and first != 0x82):
            return False
        start = position + 2
        if size > 125:
            start += 2 if size == 126 else 8
            if end < start:
                return True
            size = int.from_bytes(data[position + 2 : start], "big")
            # RFC 6455, 5.2: the length must have its shortest form.
            if size < (65536 if start - position == 10 else 126):
                return False
        return size <= self.maxPayload and start + size > end

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
