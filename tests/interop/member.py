"""
A server of a cluster that does what its clients tell it, as js/member.cjs and py/member.py do::

    twistd -n realtime --app tests.interop.member:server --bus redis://localhost

An event `do` has an object: `op`, the audience as `rooms` and `except`, and what the operation takes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from txrealtime import AckTimeout, Audience, Server, Socket

server = Server()

told: list[Any] = []
"What other servers have said."


def audienceOf(order: dict[str, Any]) -> Audience:
    audience = server.namespace().everyone
    if order.get("rooms"):
        audience = audience.to(*order["rooms"])
    return audience.excluding(*order["except"]) if order.get("except") else audience


@server.on("do")
async def do(socket: Socket, order: dict[str, Any]) -> Any:
    try:
        return await OPERATIONS[order["op"]](socket, audienceOf(order), order)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


async def enter(socket: Socket, audience: Audience, order: Any) -> None:
    socket.join(*order["names"])


async def emit(socket: Socket, audience: Audience, order: Any) -> None:
    for args in order["each"]:
        audience.emit(order["event"], *args)


async def join(socket: Socket, audience: Audience, order: Any) -> None:
    audience.join(*order["names"])


async def leave(socket: Socket, audience: Audience, order: Any) -> None:
    audience.leave(*order["names"])


async def disconnect(socket: Socket, audience: Audience, order: Any) -> None:
    audience.disconnect(close=order.get("close", False))


async def fetch(socket: Socket, audience: Audience, order: Any) -> list[Any]:
    return [
        {"id": person.id, "rooms": sorted(person.rooms), "data": person.data}
        for person in await audience.fetch()
    ]


async def call(socket: Socket, audience: Audience, order: Any) -> Any:
    try:
        return {"answers": await audience.call(order["event"], *order["args"], timeout=order["timeout"])}
    except AckTimeout as error:
        return {"answers": error.answers, "timeout": True, "servers": error.servers}


async def keep(socket: Socket, audience: Audience, order: Any) -> None:
    socket.data.update(order["data"])


async def tell(socket: Socket, audience: Audience, order: Any) -> None:
    server.cluster.emit("news", *order["args"])


async def ask(socket: Socket, audience: Audience, order: Any) -> list[Any]:
    return await server.cluster.call("double", *order["args"])


async def heard(socket: Socket, audience: Audience, order: Any) -> list[Any]:
    return told


async def counts(socket: Socket, audience: Audience, order: Any) -> dict[str, Any]:
    return {**asdict(server.cluster.link.counts), "ignored": server.cluster.ignored}


@server.cluster.on("news")
def news(*args: Any) -> None:
    told.append(list(args))


@server.cluster.on("double")
def double(number: int) -> int:
    return 2 * number


OPERATIONS = {
    function.__name__: function
    for function in (enter, emit, join, leave, disconnect, fetch, call, keep, tell, ask, heard, counts)
}
