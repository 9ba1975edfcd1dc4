"""
The server of the recovery tests: it numbers what it sends, so that every client can check what it gets::

    twistd -n realtime --app tests.interop.recovery:server --recovery-window 60

A client that comes anew gets ``begin`` with the number that comes next for everybody.  From then on each
``all`` and each ``tick``, which is for it alone, has to follow the one before of the same server, whatever
happens to its connection.  The second argument is the server's process id.
"""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from txrealtime import Server, Socket

server = Server()
ticks: dict[str, int] = {}
"Socket id -> the number of its next tick; kept for clients that are away."

numbers = {"all": 0, "even": 0}

me = os.getpid()


@server.onConnect
def came(socket: Socket) -> None:
    if not socket.recovered:
        socket.join("even")
        socket.emit("begin", numbers["all"], numbers["even"], me)
        ticks[socket.id] = 0


@server.onDisconnect
def left(socket: Socket, reason: str) -> None:
    if reason == "client namespace disconnect":
        gone(socket.id)


@server.on("was")
def was(socket: Socket, id: str) -> None:
    gone(id)


def gone(id: str) -> None:
    """Send no more ticks to a client that does not come back, from no server."""
    forget(id)
    server.cluster.emit("gone", id)


@server.cluster.on("gone")
def forget(id: str) -> None:
    ticks.pop(id, None)


@server.on("close")
def close(socket: Socket) -> None:
    socket.session.close()


@server.on("ask")
def ask(socket: Socket, number: int) -> int:
    if socket.id in ticks:
        tick(socket.id)
    return number


def tick(id: str) -> None:
    number, ticks[id] = ticks[id], ticks[id] + 1
    if number % 5 == 4:
        server.to(id).emit("tick", number, me, bytes([number % 256]) * 50)
    else:
        server.to(id).emit("tick", number, me)


def tell() -> None:
    for name, audience in (("all", server.namespace().everyone), ("even", server.to("even"))):
        audience.emit(name, numbers[name], me)
        numbers[name] += 1
    server.emit("volatile", "text", volatile=True)


def tickAll() -> None:
    for id in list(ticks)[-400:]:
        tick(id)


def told() -> None:
    print("totals", numbers, dict(server._namespaces.counts.recoveries), flush=True)


for call, seconds in ((tell, 0.1), (tickAll, 0.5)):
    LoopingCall(call).start(seconds, now=False)

reactor.addSystemEventTrigger("before", "shutdown", told)
