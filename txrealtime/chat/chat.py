"""
The chat that ``twistd -n realtime`` serves: an example to read, and a page to try the server with.

`Chat` is the whole server side: a namespace whose handlers keep the people of each room. `page` serves the
browser's side, the files in ``static``.

The chat is one chat on any number of servers, with ``--workers`` or ``--bus``, and on a server alone:

- `presence` tells each server who is in which room, whichever server they are connected to.
- A message is an event to its room, and the namespace keeps history. So all that was said is there for those
  who come later, on each server, in the form in which everybody gets it.
- A picture is no part of the message that names it, because 100 pictures would be too much for the history.
  The server of its author gives it to all others, and each keeps the newest ones for the pages to fetch.

Everything is kept in the memory of the servers within bounds: the constants below.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Unpack

from twisted.internet.interfaces import IReactorTime

from txrealtime import (
    AckTimeout,
    BusError,
    ConnectionRejected,
    Namespace,
    Present,
    Server,
    Socket,
    on,
)
from txrealtime.chat.checks import MAX_PICTURE, Refusal, line, pictureType, prose
from txrealtime.chat.room import KEPT_PICTURES, Room
from txrealtime.cluster.cluster import Cluster
from txrealtime.server import ServerOptions

__all__ = ["Chat", "makeServer"]

LOBBY = "lobby"
"The room that is always there."

MAX_NICK = 24
MAX_ROOM = 32
"Characters."

MAX_ID = 64
"Characters of what a client makes up: the ids of its messages, and its key."

MAX_ROOMS = 50

KEPT_MESSAGES = 100
KEPT_FOR = 24 * 3600.0
"The messages of a room that a newcomer sees, and their age in seconds."

WITHIN = 2.0
"Seconds that other servers have to tell what they know."


class Chat(Namespace):
    """
    Rooms in which people with a nick send one another text and pictures.

    :param cluster: the server's part in the cluster.
    :param now: the time of day, in seconds since 1970.
    """

    def __init__(self, cluster: Cluster, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.cluster = cluster
        self.now = now
        self.open = {LOBBY: Room(LOBBY)}
        self.outages = 0
        self.keepHistory(KEPT_MESSAGES, KEPT_FOR)
        self.onError(Refusal)(self.refused)
        self.presence().watch(joined=self.came, left=self.went, changed=self.came)
        cluster.on("chat picture")(self.keepPicture)
        cluster.on("chat fetch")(self.pictureOf)

    # -- coming and going ------------------------------------------------------------------

    def connected(self, socket: Socket, auth: Any) -> None:
        """
        Let in a client that brings a nick.

        The `key` is a secret of the page, by which the servers know a client that comes back.
        """
        auth = auth if isinstance(auth, dict) else {}
        try:
            socket.data["nick"] = line(auth.get("nick"), "A name", MAX_NICK)
            socket.data["key"] = line(auth.get("key", socket.id), "A key", MAX_ID)
        except Refusal as refusal:
            raise ConnectionRejected(str(refusal)) from None
        socket.emit("rooms", self.counts())

    def refused(self, socket: Socket, refusal: Refusal) -> dict[str, str]:
        """Acknowledge an event with the reason of its refusal."""
        return {"error": str(refusal)}

    @on("join")
    async def enter(self, socket: Socket, name: Any) -> dict[str, Any]:
        """Go to a room, out of the one before, and acknowledge with all that the page shows there."""
        name = line(name, "The name of a room", MAX_ROOM)
        await self.presence(name).here(timeout=WITHIN)
        if not socket.connected:
            raise Refusal("You have left.")
        if name not in self.open and len(self.open) >= MAX_ROOMS:
            raise Refusal("There are too many rooms already: choose one of them.")
        if socket.data.get("room") != name:
            self.vacate(socket)
        room, key = self.roomNamed(name), socket.data["key"]
        # A key that is there is a lost connection that comes back before its server has noticed.
        self.seat(socket, name, room.people.get(key) or room.freeNick(socket.data["nick"]))
        said = await self.past(name)
        self.checkOutages()
        return {
            "room": name,
            "you": socket.data["seat"],
            "author": authorOf(key, name),
            "people": list(dict.fromkeys(each.data["nick"] for each in self.presence(name).known)),
            "said": said,
            "maxPicture": MAX_PICTURE,
        }

    def seat(self, socket: Socket, name: str, nick: str) -> None:
        """Let all servers know that a client is in a room, and by which nick."""
        socket.data.update(room=name, seat=nick)
        self.presence(name).track(socket, {"nick": nick}, key=socket.data["key"])

    def vacate(self, socket: Socket) -> None:
        """Take a client out of its room, if it is in one, and so end its presence there."""
        name = socket.data.pop("room", None)
        if name is not None:
            socket.leave(name)

    async def came(self, present: Present) -> None:
        """Called when somebody has come to a room, on this server or another, or has another nick."""
        room, nick = self.roomNamed(present.room), present.data["nick"]
        before = list(room.people.values())
        room.people[present.key] = nick
        self.tellPeople(room, before, present)
        # The latest connection of a key takes the place of the others.
        for former in present.entries[:-1]:
            if (socket := self.sockets.get(former.id)) is not None:
                socket.emit("replaced")
                socket.disconnect()
        self.separate(room, nick)
        # The servers that know what was said there may stop soon.
        await self.to(room.name).history(0)
        self.checkOutages()

    def went(self, present: Present) -> None:
        """Called when somebody has left a room; with the last of them the room is off the list."""
        room = self.roomNamed(present.room)
        before = list(room.people.values())
        room.people.pop(present.key, None)
        if not room.people and room.name != LOBBY:
            del self.open[room.name]
        self.tellPeople(room, before, present)

    def tellPeople(self, room: Room, before: list[str], present: Present) -> None:
        """Tell this server's clients the nicks that have come or gone, and the number of people."""
        others = self.to(room.name).excluding(*(entry.id for entry in present.entries)).local
        for nick in set(before).difference(room.people.values()):
            others.emit("left", nick)
        for nick in set(room.people.values()).difference(before):
            others.emit("joined", nick)
        self.local.emit("rooms", self.counts())

    def separate(self, room: Room, nick: str) -> None:
        """
        Separate namesakes who came to two servers at the same moment.

        All servers list them in the same order. The first keeps the nick, and the servers of the others
        choose new ones.
        """
        namesakes = room.keysOf(nick)
        if len(namesakes) > 1:
            listed = [present for present in self.presence(room.name).known if present.key in namesakes]
            for present in listed[1:]:
                if (socket := self.sockets.get(present.entries[-1].id)) is not None:
                    self.seat(socket, room.name, room.freeNick(socket.data["nick"]))
                    socket.emit("renamed", socket.data["seat"])

    # -- messages --------------------------------------------------------------------------

    @on("say")
    async def say(self, socket: Socket, id: Any, text: Any) -> float:
        """Send text to the others in the room, and acknowledge with the time."""
        return await self.publish(socket, id, text=prose(text))

    @on("picture")
    async def sendPicture(self, socket: Socket, id: Any, picture: Any) -> float:
        """Send a picture to the others in the room: its id, by which each page fetches it."""
        return await self.publish(socket, id, type=pictureType(picture), picture=picture)

    @on("fetch")
    async def fetchPicture(self, socket: Socket, id: Any) -> bytes:
        """Acknowledge with a picture."""
        room = self.roomOf(socket)
        past = await self.past(room.name, here=True)
        if id not in [said["id"] for said in past if "type" in said][-KEPT_PICTURES:]:
            raise Refusal("This picture is no longer kept.")
        if id not in room.pictures:
            # A server that is new here, and has heard of the picture by the history alone.
            for picture in filter(None, await self.ask("chat fetch", room.name, id)):
                room.keepPicture(id, picture)
        if id not in room.pictures:
            raise Refusal("This picture is no longer kept.")
        return room.pictures[id]

    @on("typing")
    def typing(self, socket: Socket, busy: Any) -> None:
        """Tell the others who is writing; such an event may get lost, as the next one follows soon."""
        room = self.roomOf(socket)
        socket.to(room.name).emit("typing", socket.data["seat"], busy is True, volatile=True)

    async def publish(
        self, socket: Socket, id: Any, *, picture: bytes | None = None, **content: str
    ) -> float:
        """Send a message, unless this server has heard it: a client without an ack sends it again."""
        name, id = self.roomOf(socket).name, line(id, "An id", MAX_ID)
        author = authorOf(socket.data["key"], name)
        # No other server is asked: a message must not wait for a server that is gone.
        past = await self.past(name, here=True)
        for said in past:
            if (said["id"], said["author"]) == (id, author):
                return float(said["time"])
        # Behind all that was said, even if the servers' clocks differ.
        now: float = max([self.now(), *(said["time"] + 0.001 for said in past[-1:])])
        if picture is not None:
            self.keepPicture(name, id, picture)
            self.cluster.emit("chat picture", name, id, picture)
        message = {"id": id, "nick": socket.data["seat"], "author": author, "time": now}
        socket.to(name).emit("said", message | content)
        return now

    async def past(self, name: str, here: bool = False) -> list[dict[str, Any]]:
        """
        Return what was said in a room, in the order that all servers and pages agree on.

        :param here: as far as this server knows.
        """
        audience = self.to(name).local if here else self.to(name)
        said = [past.args[0] for past in await audience.history()]
        said.sort(key=lambda message: (message["time"], message["id"], message["author"]))
        # Two servers may take a message that a client sends again at the same moment.
        first: dict[tuple[str, str], dict[str, Any]] = {}
        for message in said:
            first.setdefault((message["id"], message["author"]), message)
        return list(first.values())

    def checkOutages(self) -> None:
        """After an outage, let the pages enter again: people may have missed what was said elsewhere."""
        link = self.cluster.link
        outages = 0 if link is None else link.counts.outages
        if self.outages != outages and self.cluster.isReady:
            self.outages = outages
            self.local.emit("again")

    # -- pictures --------------------------------------------------------------------------

    def keepPicture(self, name: str, id: str, picture: bytes) -> None:
        """Keep a picture of a room that has people here or elsewhere."""
        if name in self.open:
            self.open[name].keepPicture(id, picture)

    def pictureOf(self, name: str, id: str) -> bytes | None:
        """Called when another server asks for a picture."""
        return self.open[name].pictures.get(id) if name in self.open else None

    async def ask(self, event: str, *args: Any) -> list[Any]:
        """Ask the other servers, and return the replies of those that can be reached."""
        try:
            return await self.cluster.call(event, *args, timeout=WITHIN)
        except AckTimeout as late:
            return late.answers
        except BusError:
            return []

    # -- rooms -----------------------------------------------------------------------------

    def roomOf(self, socket: Socket) -> Room:
        """Return the client's room."""
        name = socket.data.get("room")
        if name is None:
            raise Refusal("You are in no room.")
        return self.open[name]

    def roomNamed(self, name: str) -> Room:
        """Return the room of a name, which may be new."""
        return self.open.setdefault(name, Room(name))

    def counts(self) -> list[tuple[str, int]]:
        """Return the rooms with the number of people in each; the lobby first."""
        rooms = sorted(self.open.values(), key=lambda room: (room.name != LOBBY, room.name.casefold()))
        return [(room.name, len(room.people)) for room in rooms]


def authorOf(key: str, room: str) -> str:
    """
    Return the mark of an author in a room.

    A page knows its own messages by it.  It does not tell the key, nor who is the same in another room.
    """
    return blake2b(f"{room}\n{key}".encode(), digest_size=9).hexdigest()


def makeServer(reactor: IReactorTime | None = None, **settings: Unpack[ServerOptions]) -> Server:
    """
    Make a server with the chat in its namespace ``/``.

    :param settings: as for :class:`txrealtime.Server`.
    """
    server = Server(reactor=reactor, **settings)
    server.mount("/", Chat(server.cluster))
    return server
