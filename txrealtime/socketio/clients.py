"""
The clients that can recover: the signs by which they are known, and the words by which they come back.

An offset is one more argument of every event.  A client that does not expect it breaks: python-socketio calls
``handler(*args)``, and the clients for Java, Swift and C++ hand the argument to the application.  JavaScript
ignores arguments that a function does not name.  The protocol does not tell which client has connected, so
the opening request has to.  In doubt the answer is no.

========================================  ================================================================
client, and the versions seen             signs of its opening request
========================================  ================================================================
socket.io-client 4.6.2, 4.7.5, 4.8.4 on   By polling: ``User-Agent: node-XMLHttpRequest``.  By WebSocket
Node 20; 4.6.2 and 4.8.4 on bun and Deno  alone: no ``User-Agent``, no ``Origin``, the extensions that ``ws``
                                          offers, and ``EIO`` before ``transport`` in the query.
the same in browsers                      ``User-Agent: Mozilla/...``
socket.io-client 3.1.3 and 4.5.4          The same: they ignore the pid, and their functions the offset.
txrealtime.client                         ``User-Agent: txrealtime/...``
========================================  ================================================================

Other clients have none of these: python-socketio 5.18 (``Python/... aiohttp/...`` or ``python-requests/...``;
by WebSocket alone an ``Origin``, and ``transport`` before ``EIO``), Java (``okhttp/...``), C++
(``WebSocket++/...``), Swift (an ``Origin``, and ``transport`` before ``EIO``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from txrealtime.socketio.handshake import Handshake

__all__ = ["Claim", "asks", "isKnownToRecover", "readClaim"]

_MOST_CHARACTERS: Final = 64
"""The longest pid and offset that a client may send: none of a server's is as long."""

_WS_EXTENSIONS: Final = "permessage-deflate; client_max_window_bits"
"""The extensions that ``ws`` offers on Node with the options of engine.io-client."""


class Claim(NamedTuple):
    """
    The words of a client that comes back.

    :ivar offset: the offset of the last event that it has handled; ``None`` if it has had none.
    :ivar isSound: false if the offset cannot be one.
    """

    pid: str
    offset: str | None = None
    isSound: bool = True


def readClaim(auth: Any) -> tuple[Any, Claim | None, bool]:
    """
    Take the words for recovery out of a client's ``auth``.

    :return: the application's ``auth``, ``None`` if nothing is left; the claim, if there is one; and true if
        the client asks to be offered recovery.
    """
    if not isinstance(auth, dict) or not ("pid" in auth or auth.get("recover") is True):
        return auth, None, False
    rest = dict(auth)
    claim = None
    if isinstance(rest.get("pid"), str):
        claim = _claimOf(rest.pop("pid"), rest.pop("offset", None))
    wanted = rest.get("recover") is True
    if wanted:
        del rest["recover"]
    return rest or None, claim, wanted


def _claimOf(pid: str, offset: Any) -> Claim:
    if offset is None or (isinstance(offset, str) and len(offset) <= _MOST_CHARACTERS):
        return Claim(pid[: _MOST_CHARACTERS + 1], offset)
    return Claim(pid[: _MOST_CHARACTERS + 1], None, False)


def asks(handshake: Handshake) -> bool:
    """Return true if the query of the opening request asks to be offered recovery."""
    return handshake.query.get("recover") == "1"


def isKnownToRecover(handshake: Handshake) -> bool:
    """Return true if the opening request has the signs of a client that bears offsets."""
    agent = handshake.headers.get("user-agent")
    if agent is None:
        return _isWS(handshake)
    return any(agent.startswith(beginning) for beginning in _AGENTS)


_AGENTS: Final = ("Mozilla/", "node-XMLHttpRequest", "txrealtime/")


def _isWS(handshake: Handshake) -> bool:
    """Return true for socket.io-client on Node that opens by WebSocket."""
    headers, fields = handshake.headers, list(handshake.query)
    return (
        headers.get("sec-websocket-extensions") == _WS_EXTENSIONS
        and "origin" not in headers
        and "t" not in fields
        and "transport" in fields
        and "EIO" in fields[: fields.index("transport")]
    )


Chooser = Callable[[Handshake], bool]
"""A predicate of the application: true for clients that are offered recovery."""
