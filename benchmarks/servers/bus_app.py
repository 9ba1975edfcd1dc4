"""A server on a bus: ``twistd -n realtime --app benchmarks.servers.bus_app:server --bus URL``."""

from __future__ import annotations

from txrealtime import Server, Socket

server = Server()


@server.on("enter")
def enter(socket: Socket) -> None:
    socket.join("red")


@server.on("go")
def go(socket: Socket, count: int, text: str) -> None:
    for _ in range(count):
        server.to("red").emit("news", text)
