"""
The quiz on Twisted.
"""

import json
import re

from twisted.internet import endpoints, reactor
from twisted.web.resource import Resource

from txrealtime import AckTimeout, ConnectionRejected, Namespace, Server, on

server = Server(
    pingInterval=25,
    pingTimeout=20,
    maxPayload=1_000_000,
    origins=["https://quiz.example"],
)


@server.onConnect
def admit(socket, auth):
    name = (auth or {}).get("name")
    if not isinstance(name, str):
        raise ConnectionRejected("who are you?", {"code": 401})
    socket.data["name"] = name


@server.use
def limited(incoming, proceed):
    print(f"{incoming.socket.data['name']}: {incoming.event}")
    if len(json.dumps(incoming.args)) <= 1000:
        return proceed(incoming)


@server.on("join")
async def join(socket, room):
    socket.join(room)
    socket.to(room).emit("joined", socket.data["name"])
    return [each.data["name"] for each in await server.to(room).fetch()]


@server.on("ask")
async def ask(socket, room, question):
    try:
        return await socket.to(room).call("question", question, timeout=5)
    except AckTimeout as error:
        return error.answers


@server.on("cheer")
def cheer(socket, room):
    server.to(room).excluding("quiet").emit("cheer", volatile=True)


@server.onDisconnecting
def leaving(socket):
    for room in socket.rooms - {socket.id}:
        socket.to(room).emit("left", socket.data["name"])


class Scores(Namespace):
    @on("point")
    def point(self, socket, name):
        self.emit("point", name)


server.mount(re.compile(r"/scores/\w+"), Scores)

if __name__ == "__main__":
    # Or, without these lines: txrealtime serve --app quiz:server --listen tcp:5000
    server.startService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    endpoints.serverFromString(reactor, "tcp:5000:interface=127.0.0.1").listen(server.site(Resource()))
    reactor.run()
