"""
Plain data frames: final, uncompressed, of type text or binary (RFC 6455, 5.2).

The functions marked by ``accelerated`` are the references of those in ``_speedups.c``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, SupportsIndex

from autobahn.websocket.xormasker import create_xor_masker  # type: ignore[attr-defined]

from txrealtime.speedups import accelerated

__all__ = [
    "Meter",
    "frame",
    "maskedFrame",
    "maskedTextFrame",
    "payloadSize",
    "readMessages",
    "readUnmasked",
    "textFrame",
    "unmask",
]

_HEADS: Final = tuple(tuple(bytes((first, size)) for size in range(126)) for first in (0x81, 0x82))

_ZEROS: Final = bytes(16)


class Meter(bytearray):
    """
    A count of messages and of the bytes of their payloads, without the heads of frames.

    The two sums are machine integers in a bytearray: the functions in C count without a call in Python, and
    without an object for each sum.
    """

    __slots__ = ("_sums",)

    def __init__(self, sums: Iterable[SupportsIndex] = _ZEROS) -> None:
        super().__init__(sums)
        self._sums = memoryview(self).cast("q")

    @property
    def messages(self) -> int:
        """The number of messages."""
        return self._sums[0]

    @property
    def bytes(self) -> int:
        """The bytes of their payloads."""
        return self._sums[1]

    def add(self, messages: int, bytes: int) -> None:
        """Count some messages."""
        sums = self._sums
        sums[0] += messages
        sums[1] += bytes


def unmask(payload: bytes, mask: bytes) -> bytes:
    """
    Apply a mask to a payload (RFC 6455, 5.3).

    :param mask: 4 bytes.
    """
    size = len(payload)
    if size > 1500:
        # Autobahn's masker takes 3 us for any size up to a few KiB, and 8 us for 64 KiB.
        unmasked: bytes = create_xor_masker(mask, size).process(payload)
        return unmasked
    # One operation on two large integers: 0.5 us for 64 bytes, 2.3 for 1 KiB.
    key = mask * ((size + 3) >> 2)
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key[:size], "little")).to_bytes(size, "little")


@accelerated
def readMessages(
    data: bytes, position: int, maxPayload: int, most: int, meter: Meter | None, /
) -> tuple[list[str | bytes], int]:
    """
    Read the plain data frames of a client from a position on, up to any other frame or an incomplete one.

    :param maxPayload: the largest size of a payload.
    :param most: the largest number of frames; negative for no limit.
    :param meter: counts the messages, if they are counted.
    :return: the messages, and the position behind the last of them.
    """
    end = len(data)
    taken = 0
    messages: list[str | bytes] = []
    while most and end - position >= 6:
        first = data[position]
        size = data[position + 1] - 128  # RFC 6455, 5.1: a client's frame has the mask bit
        start = position + 6
        if size > 125:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[position + 2 : start - 4], "big")
            # RFC 6455, 5.2: the length must have its shortest form.
            if size < (65536 if start - position == 14 else 126):
                break
        stop = start + size
        if not 0 <= size <= maxPayload or (first != 0x81 and first != 0x82) or stop > end:
            break
        payload = unmask(data[start:stop], data[start - 4 : start])
        if first == 0x82:
            messages.append(payload)
        else:
            try:
                messages.append(payload.decode())
            except UnicodeDecodeError:
                break
        position = stop
        taken += size
        most -= 1
    if meter is not None:
        meter.add(len(messages), taken)
    return messages, position


@accelerated
def readUnmasked(data: bytes, position: int, maxPayload: int, most: int, /) -> tuple[list[str | bytes], int]:
    """Read the plain data frames of a server, as :func:`readMessages` does those of a client."""
    end = len(data)
    messages: list[str | bytes] = []
    while most and end - position >= 2:
        first, size = data[position], data[position + 1]
        start = position + 2
        if size > 125:
            # RFC 6455, 5.1: a server's frame has no mask.
            if size > 127:
                break
            start += 2 if size == 126 else 8
            if end < start:
                break
            size = int.from_bytes(data[position + 2 : start], "big")
            # RFC 6455, 5.2: the length must have its shortest form.
            if size < (65536 if start - position == 10 else 126):
                break
        stop = start + size
        if size > maxPayload or (first != 0x81 and first != 0x82) or stop > end:
            break
        payload = data[start:stop]
        if first == 0x82:
            messages.append(payload)
        else:
            try:
                messages.append(payload.decode())
            except UnicodeDecodeError:
                break
        position = stop
        most -= 1
    return messages, position


def frame(payload: bytes, isBinary: bool) -> bytes:
    """Build an unmasked, unfragmented data frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return _HEADS[isBinary][size] + payload
    first = 0x82 if isBinary else 0x81
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


@accelerated
def textFrame(type: str, text: str, meter: Meter | None, /) -> bytes:
    """
    Build the frame of a text packet: the digit of its type, and its text.

    :param meter: counts the message, if messages are counted.
    """
    payload = (type + text).encode()
    if meter is not None:
        meter.add(1, len(payload))
    return frame(payload, False)


def maskedFrame(payload: bytes, isBinary: bool, mask: bytes) -> bytes:
    """
    Build a masked, unfragmented data frame (RFC 6455, 5.2 and 5.3).

    :param mask: 4 bytes.
    """
    size = len(payload)
    first, masked = 0x82 if isBinary else 0x81, unmask(payload, mask)
    if size < 126:
        return bytes((first, 128 + size)) + mask + masked
    if size < 65536:
        return bytes((first, 254)) + size.to_bytes(2, "big") + mask + masked
    return bytes((first, 255)) + size.to_bytes(8, "big") + mask + masked


@accelerated
def maskedTextFrame(type: str, text: str, mask: bytes, /) -> bytes:
    """Build the masked frame of a text packet: the digit of its type, and its text."""
    return maskedFrame((type + text).encode(), False, mask)


def payloadSize(frame: bytes) -> int:
    """Return the bytes of the payload of a server's frame."""
    # The payload's size is in 1, 3 or 9 bytes of the head (RFC 6455, 5.2).
    size = len(frame)
    return size - (2 if size < 128 else 4 if size < 65540 else 10)
