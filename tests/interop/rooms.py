"""
The server of the tests of history and of events that are handled once::

    ONCE_STORE=redis://localhost twistd -n realtime --app tests.interop.rooms:server --bus redis://localhost

It prints each run of the handler of ``order``.  The acks of keys that begin with ``lost`` are lost twice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txrealtime import Incoming, Server, Socket, once
from txrealtime.socketio.namespace import NO_ACK

LEASE = 6.0

server = Server()
server.keepHistory(events=10_000)
lost = Counter[str]()


@server.use
async def lose(incoming: Incoming, proceed: Callable[[Incoming], Deferred[Any]]) -> Any:
    ack = await proceed(incoming)
    key = str(incoming.args[0]) if incoming.args else ""
    lost[key] += key.startswith("lost")
    return NO_ACK if 0 < lost[key] <= 2 else ack


server.use(once("order", key=0, store=os.environ.get("ONCE_STORE"), lease=LEASE))


@server.on("order")
async def order(socket: Socket, key: str, seconds: float) -> str:
    print("ran", key, flush=True)
    await deferLater(reactor, seconds)  # type: ignore[arg-type]
    return f"{key} by {os.getpid()}"


@server.on("enter")
async def enter(socket: Socket, room: str) -> None:
    await socket.join(room, rewind=10_000)


@server.on("say")
def say(socket: Socket, room: str, *what: Any) -> None:
    server.to(room).emit("said", *what)
