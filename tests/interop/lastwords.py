"""
The application of test_lastwords.py; js/lastwords-server.cjs is the same on Node's socket.io.

It writes a line for all that it hears from a client, with the name that the client gives in its query.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from txrealtime import CloseReason, ConnectionRejected, Namespace, Server, Socket

server = Server()


def heard(socket: Socket, what: str) -> None:
    """Report what a client has said."""
    print("HEARD", json.dumps([socket.handshake.query["name"], what]), flush=True)


@server.on("note")
def note(socket: Socket, number: int, *rest: Any) -> None:
    heard(socket, f"note {number}")


@server.on("end")
async def end(socket: Socket, how: str, wait: float) -> None:
    """After so many seconds, send three events, and end the connection of the client who asks for it."""
    await deferLater(reactor, wait)
    if how == "flood":
        for _ in range(400):
            socket.emit("flood", "x" * 100_000)
        return
    for number in range(3):
        socket.emit("note", number)
    if how == "close":
        socket.disconnect(close=True)
    elif how == "leave":
        socket.disconnect()


@server.on("burst and stop")
def burstAndStop(socket: Socket, count: int) -> None:
    """Send large events, and stop."""
    for number in range(count):
        socket.emit("note", number, "x" * 100_000)
    os.kill(os.getpid(), signal.SIGTERM)


@server.on("stop")
def stop(socket: Socket) -> None:
    """Send three events to every client, and stop."""
    for number in range(3):
        server.emit("note", number)
    os.kill(os.getpid(), signal.SIGTERM)


@server.onDisconnect
def disconnected(socket: Socket, reason: CloseReason) -> None:
    heard(socket, f"disconnect: {reason}")


class Closed(Namespace):
    """A namespace that lets nobody in."""

    def connected(self, socket: Socket, auth: Any) -> None:
        raise ConnectionRejected("members only")


server.mount("/closed", Closed())
