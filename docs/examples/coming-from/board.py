"""
The notice board on Twisted.
"""

from twisted.internet import endpoints, reactor
from twisted.internet.task import LoopingCall
from twisted.web.resource import Resource

from txrealtime import ConnectionRejected, Namespace, Server, on

server = Server(pingTimeout=20)
notes = []


@server.onConnect
def connected(socket, auth):
    if not auth or auth.get("token") != "secret":
        raise ConnectionRejected("a wrong token")
    socket.data["name"] = auth["name"]
    socket.emit("notes", notes)


@server.on("follow")
def follow(socket, topic):
    socket.join(topic)
    return topic in socket.rooms, topic


@server.on("note")
def note(socket, topic, text):
    name = socket.data["name"]
    notes.append([topic, name, text])
    socket.to(topic).emit("note", topic, name, text)
    return len(notes)


@server.on("sure")
async def sure(socket, question):
    return await socket.call("sure?", question, timeout=10)


@server.onAny
def other(socket, event, *args):
    return f"no {event} here"


@server.onDisconnect
def gone(socket, reason):
    server.emit("left", socket.data["name"])


class Clock(Namespace):
    def __init__(self):
        super().__init__()
        self.number = 0
        self.ticking = LoopingCall(self.tick)

    @on("start")
    def start(self, socket):
        if not self.ticking.running:
            self.ticking.start(0.05, now=False)

    def tick(self):
        self.number += 1
        self.emit("tick", self.number)


server.mount("/clock", Clock())

if __name__ == "__main__":
    # Or, without these lines: txrealtime serve --app board:server --listen tcp:5000
    server.startService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    endpoints.serverFromString(reactor, "tcp:5000:interface=127.0.0.1").listen(server.site(Resource()))
    reactor.run()
