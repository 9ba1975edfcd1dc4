"""
The application on txrealtime, for ``twistd realtime --app txrealtime_app:server``.

BUS in the environment connects it with others. Run as a program it is the resource in an ordinary site of
twisted.web, as in somebody's existing application.
"""

from __future__ import annotations

import os
from typing import Any

from txrealtime import Server, Socket

server = Server(bus=os.environ.get("BUS"))


@server.on("echo")
def echo(socket: Socket, payload: Any) -> Any:
    return payload


@server.on("join")
def join(socket: Socket, room: str) -> None:
    socket.join(room)


@server.on("broadcast")
def broadcast(socket: Socket, payload: Any) -> None:
    server.emit("news", payload)


def main() -> None:
    from twisted.internet import reactor
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    root = Resource()
    root.putChild(b"socket.io", server.resource())
    reactor.listenTCP(int(os.environ["PORT"]), Site(root), backlog=1024, interface="127.0.0.1")
    server.startService()
    reactor.run()


if __name__ == "__main__":
    main()
