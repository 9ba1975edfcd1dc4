"""
The application of the soak: it counts what it sends and gets, and tells what is left of it when asked::

    twistd -n realtime --app tests.soak.app:server --wsgi tests.soak.app:report

Every message carries a number that must follow the one before, on both ways and in each room. SEED in the
environment makes the choices.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import LoopingCall
from twisted.internet.threads import blockingCallFromThread

from txrealtime import AckTimeout, Disconnected, Server, Socket

ROOMS = [f"room {number}" for number in range(20)]

TICKS = 80
"Messages to one client each, a second."

PATIENCE = 30.0
"Seconds in which a client that is connected answers."

server = Server()
choices = random.Random(int(os.environ.get("SEED", "0")))
totals: Counter[str] = Counter()
violations: list[str] = []
nextInRoom: Counter[str] = Counter()
here: dict[str, Socket] = {}


def violated(what: str) -> None:
    """Remember what must not happen."""
    totals["violations"] += 1
    if len(violations) < 20:
        violations.append(what)


def described(socket: Socket) -> str:
    """A client, for a complaint."""
    handshake = socket.handshake
    return f"a client of protocol {handshake.protocol}, opened by {handshake.query.get('transport')},"


# -- clients come, talk and go


@server.onConnect
def came(socket: Socket) -> None:
    totals["connects"] += 1
    socket.data.update(sent=0, got=0)
    here[socket.id] = socket


@server.onDisconnect
def gone(socket: Socket, reason: str) -> None:
    totals[f"ended by {reason}"] += 1
    if here.pop(socket.id, None) is not socket:
        violated("disconnected twice, or never connected")


@server.on("say")
def say(socket: Socket, number: int, *data: Any) -> int:
    totals["says"] += 1
    if number != socket.data["got"]:
        violated(f"{described(socket)} said {number}, expected {socket.data['got']}")
    socket.data["got"] = number + 1
    if data and data[0] != bytes([number % 256]) * len(data[0]):
        violated(f"other bytes than {described(socket)} sent")
    return number


@server.on("join")
def join(socket: Socket, room: str) -> int:
    """The ack is the number that comes next in the room."""
    socket.join(room)
    return nextInRoom[room]


@server.on("leave")
def leave(socket: Socket, room: str) -> int:
    """The ack is the number that would have come next."""
    socket.leave(room)
    return nextInRoom[room]


@server.on("kick me")
def kick(socket: Socket, close: bool) -> None:
    socket.disconnect(close=close)


@server.on("slowly")
async def slowly(socket: Socket, number: int) -> int:
    """Wait for the client's own answer, before the ack."""
    return int((await ask(socket, number)) or 0)


async def ask(socket: Socket, number: int) -> Any:
    try:
        answer = await socket.call("question", number, timeout=PATIENCE)
    except Disconnected:
        return None
    except AckTimeout:
        violated(f"{described(socket)} is connected and did not answer")
        return None
    totals["answers"] += 1
    if answer != number + 1:
        violated(f"the answer of {described(socket)} to {number} was {answer!r}")
    return answer


# -- what the server says by itself


def tick() -> None:
    """Something to one client."""
    if not here:
        return
    for _ in range(TICKS // 10):
        socket = choices.choice(list(here.values()))
        number = socket.data["sent"]
        socket.data["sent"] = number + 1
        totals["ticks"] += 1
        if number % 8 == 7:
            socket.emit("tick", number, bytes([number % 256]) * 100)
        else:
            socket.emit("tick", number)


def tell() -> None:
    """Something to one room."""
    if here:
        room = choices.choice(ROOMS)
        server.to(room).emit("told", room, nextInRoom[room])
        nextInRoom[room] += 1
        totals["broadcasts"] += 1


for call, seconds in ((tick, 0.1), (tell, 0.15)):
    LoopingCall(call).start(seconds, now=False)


# -- what is left


def counts() -> dict[str, Any]:
    """Count everything that lives."""
    gc.collect()
    trimMemory()
    namespace = server.namespace()
    kinds = Counter(type(thing).__qualname__ for thing in gc.get_objects() if isOurs(type(thing)))
    return {
        "sessions": len(server.engine.sessions),
        "sockets": len(namespace.sockets),
        "rooms": len(list(namespace.rooms)),
        "delayed calls": len(reactor.getDelayedCalls()),
        "files": len(os.listdir("/proc/self/fd")),
        "objects": kinds,
        "memory": residentBytes(),
        "totals": totals,
        "violations": violations,
    }


OURS = ("txrealtime.engineio", "txrealtime.socketio", "autobahn.twisted")


def isOurs(kind: type) -> bool:
    """True for classes whose objects come and go with the clients."""
    module = kind.__module__
    return isinstance(module, str) and module.startswith(OURS)


def trimMemory() -> None:
    """Give back what malloc keeps for later, where that can be asked for: it is not the server's."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def residentBytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def report(environ: dict[str, Any], startResponse: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application that answers everything with the counts."""
    body = json.dumps(blockingCallFromThread(reactor, counts)).encode()
    startResponse("200 OK", [("Content-Type", "application/json")])
    return [body]
