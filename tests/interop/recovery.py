"""
The server of the recovery tests: it numbers what it sends, so that every client can check what it gets::

    twistd -n realtime --app tests.interop.recovery:server --recovery-window 60

A client that comes anew gets ``begin`` with the number that comes next for everybody.  From then on each
``all`` and each ``tick``, which is for it alone, has to follow the one before of the same server, whatever
happens to its connection.  The second argument names the server: its process, and the milliseconds of its
start.

For tests/interop/oracle.py the server prints lines of JSON: its name, the status of its link, each gap in a
stream of Redis, and the totals when it stops.  With RECOVERY_FAULTY in the environment it is wrong three
times.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from txrealtime import Server, Socket

server = Server()
ticks: dict[str, int] = {}
"""Socket id -> the number of its next tick; kept for clients that are away."""

numbers = {"all": 0, "even": 0}

me = f"{os.getpid()}@{round(time.time() * 1000)}"

FAULTY = {40: [], 45: [45, 45], 50: [], 51: [51, 50]} if "RECOVERY_FAULTY" in os.environ else {}
"""A number for the room -> the numbers that are sent instead: one missing, one double, two swapped."""


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
    server.emit("all", numbers["all"], me)
    for number in FAULTY.get(numbers["even"], [numbers["even"]]):
        server.to("even").emit("even", number, me)
    for name in numbers:
        numbers[name] += 1
    server.emit("volatile", "text", volatile=True)


def tickAll() -> None:
    for id in list(ticks)[-400:]:
        tick(id)


def report(kind: str, **fields: Any) -> None:
    print(json.dumps({"report": kind, "at": time.time(), "name": me, **fields}), flush=True)


def began() -> None:
    parking, link = server._namespaces.parking, server.cluster.link
    report("server", log=None if parking is None else parking.store.epoch)
    if link is None:
        return
    link.watch(lambda status: report("link", status=status.value))
    tellServer, before = link.trimmed, 0

    def trimmed() -> None:
        nonlocal before
        report("trimmed", count=link.counts.trimmed - before, place=link.place)
        before = link.counts.trimmed
        tellServer()

    link.trimmed = trimmed


def told() -> None:
    link = server.cluster.link
    lost = (
        {name: getattr(link.counts, name) for name in ("dropped", "refused", "oversized", "trimmed")}
        if link
        else {}
    )
    report(
        "totals",
        numbers=numbers,
        recoveries=server._namespaces.counts.recoveries,
        lost=lost,
        missed=server.cluster.missed,
    )


for call, seconds in ((tell, 0.1), (tickAll, 0.5)):
    LoopingCall(call).start(seconds, now=False)

reactor.callWhenRunning(began)
reactor.addSystemEventTrigger("before", "shutdown", told)
