"""
The application of the differential test; server.cjs is the same on Node's socket.io::

    twistd -n realtime --app tests.differential.app:server
"""

from __future__ import annotations

from typing import Any

from txrealtime import ConnectionRejected, Namespace, Server, on
from txrealtime.socketio.sockets import Socket

server = Server()


class Talk(Namespace):
    """The handlers of every namespace."""

    @on("barrier")
    def barrier(self, socket: Socket, number: int) -> int:
        return number

    @on("echo")
    def echo(self, socket: Socket, *args: Any) -> tuple[Any, ...]:
        return args

    @on("back")
    def back(self, socket: Socket, *args: Any) -> None:
        socket.emit("back", *args)

    @on("nothing")
    def nothing(self, socket: Socket, *args: Any) -> None:
        pass

    @on("1")
    def one(self, socket: Socket, *args: Any) -> str:
        return "one"

    @on("auth")
    def auth(self, socket: Socket, *args: Any) -> Any:
        return socket.handshake.auth or {}

    @on("join")
    def join(self, socket: Socket, room: str, *args: Any) -> str:
        socket.join(room)
        return "in"

    @on("leave")
    def leave(self, socket: Socket, room: str, *args: Any) -> str:
        socket.leave(room)
        return "out"

    @on("rooms")
    def whichRooms(self, socket: Socket, *args: Any) -> list[str]:
        return sorted(room for room in socket.rooms if room != socket.id)

    @on("room")
    def room(self, socket: Socket, room: str, *args: Any) -> None:
        self.to(room).emit("heard", *args)

    @on("room's others")
    def roomsOthers(self, socket: Socket, room: str, *args: Any) -> None:
        socket.to(room).emit("heard", *args)

    @on("others")
    def others(self, socket: Socket, *args: Any) -> None:
        socket.others.emit("heard", *args)

    @on("everyone")
    def toEveryone(self, socket: Socket, *args: Any) -> None:
        self.emit("heard", *args)

    @on("except")
    def muted(self, socket: Socket, room: str, *args: Any) -> None:
        self.excluding(room).emit("heard", *args)

    @on("ask")
    async def ask(self, socket: Socket, *args: Any) -> None:
        socket.call("question", *args).addCallback(lambda answer: socket.emit("answered", answer))

    @on("bye")
    def bye(self, socket: Socket, *args: Any) -> None:
        socket.disconnect()

    @on("hang up")
    def hangUp(self, socket: Socket, *args: Any) -> None:
        socket.disconnect(close=True)


class Members(Talk):
    """A namespace that asks for a token."""

    def connected(self, socket: Socket, auth: Any) -> None:
        if not auth or auth.get("token") != "open sesame":
            raise ConnectionRejected("who are you?", {"code": 401})


server.mount("/", Talk())
server.mount("/chat", Talk())
server.mount("/members", Members())
