"""
The mark of a worker: a part of the sids that it makes, and the name of its sockets.

A sid has 16 random characters, the mark, and with ``--name`` a dot and the server's name.
"""

from __future__ import annotations

import base64
import re
from typing import Final

__all__ = ["MOST_WORKERS", "markOf", "ownerOf"]

MOST_WORKERS: Final = 256
"""The most workers of a supervisor: a mark has 8 bits for the number, and 16 for the generation."""

_SID: Final = re.compile(r"[A-Za-z0-9_-]{16}([A-Za-z0-9_-]{4})(?:\.[a-z0-9-]{1,16})?", re.ASCII)


def markOf(number: int, generation: int) -> str:
    """
    Return the mark of a worker: 4 characters, safe in a URL and in the name of a file.

    :param number: below :data:`MOST_WORKERS`.
    :param generation: the count of processes that the supervisor has started; the mark repeats after 65,536.
    """
    return base64.urlsafe_b64encode(bytes([number]) + (generation & 0xFFFF).to_bytes(2)).decode()


def ownerOf(sid: str) -> str | None:
    """Return the mark in a sid, or ``None`` if no worker has made this sid."""
    match = _SID.fullmatch(sid)
    return None if match is None else match[1]
