"""
The application that the clients of `tests/interop` talk to::

    twistd -n realtime --app tests.interop.app:server --max-payload 5000000
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from txrealtime import ConnectionRejected, Server

server = Server()

farewells: dict[str, Deferred[str]] = defaultdict(Deferred)
"Socket id -> the reason why it went, once it has gone."


@server.on("echo")
def echo(socket, *args):
    return args


@server.on("back")
def back(socket, *args):
    socket.emit("back", *args)


@server.on("Grüße")
def greetings(socket, *args):
    socket.emit("Grüße", *args)


@server.on("ask")
async def ask(socket, *args):
    return await socket.call("question", *args, timeout=60)


@server.on("auth")
def auth(socket):
    return socket.handshake.auth


@server.on("id")
def ownId(socket):
    return socket.id


@server.on("handshake")
def handshake(socket):
    return {"protocol": socket.handshake.protocol, "query": dict(socket.handshake.query)}


@server.on("seen")
def seen(socket):
    """Return what the server sees of the client, through the proxies between them."""
    handshake = socket.handshake
    return {"address": handshake.address, "secure": handshake.secure, "host": handshake.host}


@server.on("number")
def number(socket, n):
    socket.data.setdefault("numbers", []).append(n)
    socket.emit("number", n)


@server.on("numbers")
def numbers(socket):
    return socket.data["numbers"]


@server.on("join")
def join(socket, room):
    socket.join(room)


@server.on("leave")
def leave(socket, room):
    socket.leave(room)


@server.on("tell room")
def tellRoom(socket, room, text):
    server.to(room).emit("heard", text)


@server.on("tell room's others")
def tellRoomOthers(socket, room, text):
    socket.to(room).emit("heard", text)


@server.on("tell room except")
def tellRoomExcept(socket, room, muted, text):
    server.to(room).excluding(muted).emit("heard", text)


@server.on("tell others")
def tellOthers(socket, text):
    socket.others.emit("heard", text)


@server.on("tell everyone")
def tellEveryone(socket, text):
    server.emit("heard", text)


@server.on("ask room")
async def askRoom(socket, room, text):
    return await server.to(room).call("question", text, timeout=60)


@server.on("gather")
async def gather(socket, room, count):
    """Join; who comes last tells all of them that the room is complete."""
    socket.join(room)
    if len(await server.to(room).fetch()) == count:
        server.to(room).emit("complete")


@server.on("kick me")
def kick(socket):
    socket.disconnect()


@server.on("hang up")
def hangUp(socket):
    socket.disconnect(close=True)


@server.on("start ticking")
def startTicking(socket):
    def tick():
        socket.emit("tick", socket.data["ticks"])
        socket.data["ticks"] += 1

    socket.data["ticks"] = 0
    socket.data["ticking"] = LoopingCall(tick)
    socket.data["ticking"].start(0.001)


@server.on("stop ticking")
def stopTicking(socket):
    socket.data.pop("ticking").stop()
    return socket.data["ticks"]


@server.on("farewell")
async def farewell(socket, id):
    return await farewells[id]


@server.onDisconnect
def gone(socket, reason):
    if "ticking" in socket.data:
        stopTicking(socket)
    farewells[socket.id].callback(reason)
    print(f"{socket.id} is gone: {reason}")


for path in ("/red", "/blue"):
    namespace = server.namespace(path)

    @namespace.on("where")
    def where(socket: Any, *args: Any) -> tuple[Any, ...]:
        socket.emit("here", socket.namespace.path, *args)
        return (socket.namespace.path, *args)

    namespace.on("kick me")(kick)

members = server.namespace("/members")
members.on("echo")(echo)


@members.onConnect
async def admit(socket, auth):
    if auth != {"token": "open sesame"}:
        raise ConnectionRejected("who are you?", {"code": 401})


guests = server.namespace("/guests")
guests.on("echo")(echo)


@guests.onConnect
def receive(socket, auth):
    """Clients of the first versions can send a token in the query of the URL only."""
    token = (auth or {}).get("token") or socket.handshake.query.get("token")
    if token != "open sesame":
        raise ConnectionRejected("who are you?", {"code": 401})
