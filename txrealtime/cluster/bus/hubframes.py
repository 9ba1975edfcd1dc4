"""
The frames between a hub and its connections, the same in both directions.

A frame, numbers in network order:

======  ==========================================
bytes   content
======  ==========================================
4       the length of the rest
1       the kind
4       the length of the topic
...     the topic in UTF-8, then the payload
======  ==========================================

The first frame of either side is a ``HELLO``, whose payload is :data:`VERSION`.  The topic of a client's is
its name: a new connection ends an earlier one of the same name.

======================  ========================================  =========================
kind                    content                                   reply
======================  ========================================  =========================
``PUBLISH``             topic and payload                         ``CONFIRM`` or ``REFUSE``
``BEAT``                topic and payload                         none
``SUBSCRIBE``           topic                                     ``CONFIRM`` or ``REFUSE``
``SUBSCRIBE_COUNTED``   topic                                     ``CONFIRM`` or ``REFUSE``
``UNSUBSCRIBE``         topic                                     none
``SUBSCRIBE_PATTERN``   pattern as topic                          ``CONFIRM`` or ``REFUSE``
``UNSUBSCRIBE_PATTERN`` pattern as topic                          none
``COUNT``               topic                                     ``COUNT``, a NUMBER
======================  ========================================  =========================

A ``CONFIRM`` has the NUMBER of frames that it confirms, in the order in which they came.  A ``REFUSE`` is for
one frame and has a text.  A ``COUNT`` that cannot be replied to has the reason as its topic, and no payload.
A ``GONE`` of the hub has a text and ends the connection: the hub has lost the broker behind it.

For a ``SUBSCRIBE_COUNTED``, a hub before a broker subscribes there by a connection of its own, so that the
broker counts the server.  ``UNSUBSCRIBE`` ends both kinds.

A subscriber gets the ``PUBLISH`` or ``BEAT`` of a publisher unchanged, and once, however many of its topics
and patterns fit.  A NUMBER is a payload of 4 bytes.

The topic's length has 4 bytes because a room's name, of any length, is a part of its topic.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from twisted.internet.protocol import Protocol

__all__ = ["HEAD", "MAX_FRAME", "VERSION", "FrameProtocol", "decode", "encode", "frame", "number", "numberOf"]

VERSION: Final = b"txrealtime hub 1"

MAX_FRAME: Final = 16 * 1024 * 1024
"Bytes of a frame.  Servers publish and take 2 MB."

HEAD: Final = Struct("!IBI")

HELLO: Final = 0
PUBLISH: Final = 1
BEAT: Final = 2
SUBSCRIBE: Final = 3
UNSUBSCRIBE: Final = 4
SUBSCRIBE_PATTERN: Final = 5
UNSUBSCRIBE_PATTERN: Final = 6
COUNT: Final = 7
CONFIRM: Final = 8
REFUSE: Final = 9
GONE: Final = 10
SUBSCRIBE_COUNTED: Final = 11

_NUMBER: Final = Struct("!I")
_AFTER_LENGTH: Final = HEAD.size - 4


def frame(kind: int, topic: bytes = b"", payload: bytes = b"") -> bytes:
    """Return a frame."""
    size = len(topic)
    return b"%b%b%b" % (HEAD.pack(_AFTER_LENGTH + size + len(payload), kind, size), topic, payload)


def number(value: int) -> bytes:
    """Return a number as a payload."""
    return _NUMBER.pack(value)


def numberOf(payload: bytes) -> int:
    """
    Read a number.

    :raises ValueError: if the payload is not a number.
    """
    if len(payload) != _NUMBER.size:
        raise ValueError("a number has 4 bytes")
    value: int = _NUMBER.unpack(payload)[0]
    return value


def encode(topic: str) -> bytes:
    """Return the bytes of a topic.  A room's name may have half of a surrogate pair, as JavaScript's may."""
    return topic.encode("utf-8", "surrogatepass")


def decode(topic: bytes) -> str:
    """
    Return a topic's text.

    :raises UnicodeDecodeError: if the bytes are not those of a text.
    """
    return topic.decode("utf-8", "surrogatepass")


class FrameProtocol(Protocol):
    """
    A connection whose input are frames.

    :ivar ended: true once the connection is of no use.  No more frames are read.
    """

    def __init__(self) -> None:
        self.ended = False
        self._rest = bytearray()
        self._needed = 0  # bytes that `_rest` must have before it is worth reading

    def dataReceived(self, data: bytes) -> None:
        if self.ended:
            return
        if self._rest:
            # Not `data = rest + data`: a frame of 16 MB comes in 256 pieces.
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        start = self._readFrames(data)
        if not self.ended:
            self._rest += data[start:]
        self.framesRead()

    def _readFrames(self, data: bytes) -> int:
        """Read the whole frames, and return the place of the first that is not whole."""
        start, size, headSize, unpack = 0, len(data), HEAD.size, HEAD.unpack_from
        self._needed = headSize
        while size - start >= headSize:
            length, kind, topicSize = unpack(data, start)
            if length > MAX_FRAME or topicSize + _AFTER_LENGTH > length:
                self.malformed("a frame is too large, or its lengths contradict each other")
                break
            end = start + 4 + length
            if end > size:
                self._needed = end - start
                break
            body = start + headSize
            self.frameReceived(kind, data[body : body + topicSize], data, start, end)
            if self.ended:
                break
            start = end
        return start

    def frameReceived(self, kind: int, topic: bytes, data: bytes, start: int, end: int) -> None:
        """
        Called with each frame.

        :param data: has the frame from `start` to `end`, among others.
        """
        raise NotImplementedError

    def framesRead(self) -> None:
        """Called when all frames that had come have been read, also if one has ended the connection."""

    def malformed(self, reason: str) -> None:
        """Called when the other side has broken the protocol.  Set :attr:`ended`."""
        raise NotImplementedError

    def payloadOf(self, topic: bytes, data: bytes, start: int, end: int) -> bytes:
        """Return the payload of a frame."""
        return data[start + HEAD.size + len(topic) : end]
