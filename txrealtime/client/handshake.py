"""
The handshake of Engine.IO 4: what a server says in its OPEN packet.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from txrealtime.errors import ProtocolError

__all__ = ["Handshake", "readHandshake"]

# The longest heartbeat that a server may ask for, in milliseconds: a day.
_MAX_INTERVAL: Final = 86_400_000


class Handshake(NamedTuple):
    """
    The fields of an OPEN packet ("Handshake" in the protocol's text).

    :ivar sid: the session's id.
    :ivar upgrades: the transports to which the client may upgrade.
    :ivar patience: seconds after which a PING is overdue.
    :ivar maxPayload: bytes that the server accepts in one message or request, or ``None`` if it does not say.
    """

    sid: str
    upgrades: list[Any]
    patience: float
    maxPayload: int | None


def readHandshake(data: str | bytes) -> Handshake:
    """
    Read the data of an OPEN packet.

    :raises ProtocolError: if a field is missing, or is none that this protocol has.
    """
    try:
        fields = json.loads(data)
        sid, upgrades = fields["sid"], fields["upgrades"]
        interval, timeout = fields["pingInterval"], fields["pingTimeout"]
        limit = fields.get("maxPayload")
        good = isinstance(sid, str) and 0 < len(sid) <= 1024 and isinstance(upgrades, list)
        good = good and 0 < interval <= _MAX_INTERVAL and 0 < timeout <= _MAX_INTERVAL
        good = good and (limit is None or (isinstance(limit, int) and limit > 0))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        good = False
    if not good:
        raise ProtocolError("the server's handshake is not that of Engine.IO 4")
    return Handshake(sid, upgrades, (interval + timeout) / 1000, limit)
