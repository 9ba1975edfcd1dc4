"""
Extension values of notepack.io 2, the encoder of JavaScript clients, in a form that can be told apart.

notepack.io uses one extension type for three kinds of values, and tells them apart by their form on the wire:

===========  ====================  =========================================
form         first bytes           value
===========  ====================  =========================================
fixext 1     ``d4 00``             ``undefined``
fixext 8     ``d7 00``             a ``Date``
ext 8 to 32  ``c7``, ``c8``, ``c9``  an ``ArrayBuffer`` or typed array of Node
===========  ====================  =========================================

msgpack's decoder reports the type and the data of an extension value, but not its form.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["withBinary"]


def _token(heads: list[int], size: int) -> bytes:
    """Return a pattern for values with one of these first bytes, and some more bytes."""
    return b"[%s].{%d}" % (b"".join(b"\\x%02x" % head for head in heads), size)


# The values and heads of values whose size the first byte gives, in order of their number in most messages;
# at the end short text and bytes, so that no message has many that take a turn of the loop below.
_SIZED: Final = re.compile(
    b"(?:%s)*+"
    % b"|".join(
        [
            _token([*range(0x00, 0xA0), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)], 0),
            *(_token([0xA0 + size], size) for size in range(32)),
            *(_token([0xCC + power, 0xD0 + power], 1 << power) for power in range(4)),
            _token([0xCA], 4),
            _token([0xCB], 8),
            _token([0xDC, 0xDE], 2),
            _token([0xDD, 0xDF], 4),
            *(_token([0xD4 + power], 1 + (1 << power)) for power in range(5)),
            *(b"[\\xc4\\xd9]\\x%02x.{%d}" % (size, size) for size in range(32)),
        ]
    ),
    re.DOTALL,
)

# For each other first byte, how many bytes give the size.
_WIDTHS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}

# To the first byte of an extension value of any size, that of bytes as large.
_BINARY: Final = {0xC7: 0xC4, 0xC8: 0xC5, 0xC9: 0xC6}

# A value whose size is that of undefined or of a date.
_AMBIGUOUS: Final = re.compile(rb"\xc7[\x01\x08]\x00|\xc8\x00[\x01\x08]\x00|\xc9\x00\x00\x00[\x01\x08]\x00")


def withBinary(message: bytes) -> bytes:
    """
    Rewrite a message so that its ``ArrayBuffer`` values and typed arrays are plain bytes.

    Few messages contain what looks like one of ambiguous size, and only those are read.

    :param message: MessagePack, malformed or not; no malformed message becomes another's well-formed one.
    """
    if not _AMBIGUOUS.search(message):
        return message
    parts: list[bytes] = []
    done = position = 0
    while True:
        sized = _SIZED.match(message, position)
        position = position if sized is None else sized.end()
        head = message[position] if position < len(message) else -1
        width = _WIDTHS.get(head)
        if width is None:  # the end, or a message that is cut off or malformed
            return b"".join([*parts, message[done:]])
        start = position + 1 + width
        size = int.from_bytes(message[position + 1 : start], "big")
        if head in _BINARY:
            if message[start : start + 1] == b"\0":
                parts += [message[done:position], bytes([_BINARY[head]]), message[position + 1 : start]]
                done = start + 1
            start += 1
        position = start + size
