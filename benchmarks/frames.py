"""
WebSocket frames (RFC 6455, 5.2), as a client sends and a server answers them.
"""

from __future__ import annotations

import os

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
"How a whole frame of that kind begins."


def size(length: int) -> bytes:
    """A payload's length as a frame has it, without the mask bit."""
    if length < 126:
        return bytes((length,))
    if length < 65536:
        return b"\x7e" + length.to_bytes(2, "big")
    return b"\x7f" + length.to_bytes(8, "big")


def masked(payload: bytes, kind: int = TEXT) -> bytes:
    """A frame from a client."""
    key = os.urandom(4)
    length = size(len(payload))
    mask = (key * (len(payload) // 4 + 1))[: len(payload)]
    hidden = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(payload), "big")
    return bytes((kind, length[0] | 0x80)) + length[1:] + key + hidden


def plain(payload: bytes) -> bytes:
    """A text frame from a server."""
    return bytes((TEXT,)) + size(len(payload)) + payload


def bounds(data: bytes, start: int) -> tuple[int, int]:
    """
    Return the bounds of the payload of the frame at `start`, as its header gives them.

    The end lies behind the data when there is too little of it to tell.
    """
    have = len(data) - start
    if have < 2:
        return start + 2, start + 2
    length = data[start + 1]
    if length < 126:
        return start + 2, start + 2 + length
    wide = 4 if length == 126 else 10
    if have < wide:
        return start + wide, start + wide
    body = start + wide
    return body, body + int.from_bytes(data[start + 2 : body], "big")


HEARTBEAT = masked(b"3")
"The answer to Engine.IO's ping."

CONNECT = masked(b"40")
"Asks to be let into the namespace /."
