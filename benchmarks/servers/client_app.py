"""
The server that the clients of ``python -m benchmarks.clients`` talk to.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor

from txrealtime import Server, Socket

server = Server(pingInterval=float(os.environ.get("PING_INTERVAL", "25")))


@server.on("echo")
def echo(socket: Socket, payload: Any) -> Any:
    return payload


@server.on("stream")
def stream(socket: Socket, payload: Any, count: int, chunk: int) -> None:
    """Send events, so many in one turn of the reactor."""
    for _ in range(min(chunk, count)):
        socket.emit("news", payload)
    if count > chunk:
        reactor.callLater(0, stream, socket, payload, count - chunk, chunk)  # type: ignore[attr-defined]
