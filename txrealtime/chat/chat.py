"""
The chat that ``twistd -n realtime`` serves: an example to read, and a page to try the server with.

`Chat` is the whole server side: a namespace whose handlers keep the people of each room and its newest
messages. Messages travel by the rooms of Socket.IO. `page` serves the browser's side, the files in
``static``.

Everything is kept in the memory of this process within bounds: the constants below, and a room is
forgotten when the last person leaves.
"""

from __future__ import annotations

import time
import unicodedata
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Unpack

from twisted.internet.interfaces import IReactorTime

from txrealtime import ConnectionRejected, Namespace, Server, Socket, on
from txrealtime.server import ServerOptions

__all__ = ["Chat", "makeServer"]

LOBBY = "lobby"
"The room that is always there."

MAX_NICK = 24
MAX_ROOM = 32
MAX_TEXT = 2000
"Characters."

MAX_ID = 64
"Characters of what a client makes up: the ids of its messages, and its key."

MAX_PICTURE = 700_000
"Bytes. Long polling carries it in base64, a third longer, and that has to pass the default maxPayload."

MAX_ROOMS = 50
KEPT_MESSAGES = 100
KEPT_PICTURES = 5
"The messages and pictures that a newcomer to a room sees."

SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
"The first bytes of pictures that a browser shows and that hold no scripts; WebP is RIFF, a size, WEBP."


class Refusal(ValueError):
    """A client's request is refused; the text is for the person at the page."""


@dataclass
class Message:
    """A message. `key` identifies its author, and stays on the server."""

    id: str
    key: str
    nick: str
    time: float
    text: str = ""
    type: str = ""

    def seenBy(self, key: str) -> dict[str, Any]:
        """Return the message as the page gets it, with `mine` true for its author."""
        seen = {"id": self.id, "nick": self.nick, "time": self.time, "mine": self.key == key}
        return seen | ({"type": self.type} if self.type else {"text": self.text})


@dataclass
class Room:
    """A room: its people by nick, the newest messages, and the newest pictures by id."""

    name: str
    people: dict[str, Socket] = field(default_factory=dict)
    said: deque[Message] = field(default_factory=lambda: deque(maxlen=KEPT_MESSAGES))
    pictures: dict[str, bytes] = field(default_factory=dict)

    def nickOf(self, key: str) -> str | None:
        """Return the nick of the person with this key, or ``None``."""
        return next((nick for nick, socket in self.people.items() if socket.data["key"] == key), None)

    def freeNick(self, nick: str) -> str:
        """Return the nick, with a number if somebody here has it already."""
        taken = {other.casefold() for other in self.people}
        numbered = (nick if n == 1 else f"{nick} {n}" for n in count(1))
        return next(candidate for candidate in numbered if candidate.casefold() not in taken)

    def keep(self, message: Message, picture: bytes | None) -> None:
        """Remember a message, and forget the oldest."""
        self.said.append(message)
        if picture is not None:
            self.pictures[message.id] = picture
            while len(self.pictures) > KEPT_PICTURES:
                del self.pictures[next(iter(self.pictures))]


class Chat(Namespace):
    """
    Rooms in which people with a nick send one another text and pictures.

    :param now: the time of day, in seconds since 1970.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.now = now
        self.open = {LOBBY: Room(LOBBY)}
        self.onError(Refusal)(self.refused)

    def connected(self, socket: Socket, auth: Any) -> None:
        """
        Let in a client that brings a nick.

        The `key` is a secret of the page, by which the server knows a client that comes back.
        """
        auth = auth if isinstance(auth, dict) else {}
        try:
            socket.data["nick"] = line(auth.get("nick"), "A name", MAX_NICK)
            socket.data["key"] = line(auth.get("key", socket.id), "A key", MAX_ID)
        except Refusal as refusal:
            raise ConnectionRejected(str(refusal)) from None
        socket.emit("rooms", self.counts())

    def disconnected(self, socket: Socket, reason: object) -> None:
        self.vacate(socket)
        self.emit("rooms", self.counts())

    def refused(self, socket: Socket, refusal: Refusal) -> dict[str, str]:
        """Acknowledge an event with the reason of its refusal."""
        return {"error": str(refusal)}

    @on("join")
    def enter(self, socket: Socket, name: Any) -> dict[str, Any]:
        """Go to a room, out of the one before, and acknowledge with all that the page shows there."""
        name = line(name, "The name of a room", MAX_ROOM)
        if name not in self.open and len(self.open) >= MAX_ROOMS:
            raise Refusal("There are too many rooms already: choose one of them.")
        self.vacate(socket)
        room = self.open.setdefault(name, Room(name))
        key = socket.data["key"]
        nick = room.nickOf(key)
        if nick is None:
            nick = room.freeNick(socket.data["nick"])
            self.to(name).emit("joined", nick)
        else:
            # A lost connection that comes back before the server noticed: the others need not know.
            previous = room.people[nick]
            del previous.data["room"]
            previous.emit("replaced")
            previous.disconnect()
        room.people[nick] = socket
        socket.data.update(room=name, seat=nick)
        socket.join(name)
        self.emit("rooms", self.counts())
        return {
            "room": name,
            "you": nick,
            "people": list(room.people),
            "said": [message.seenBy(key) for message in room.said],
            "maxPicture": MAX_PICTURE,
        }

    @on("say")
    def say(self, socket: Socket, id: Any, text: Any) -> float:
        """Send text to the others in the room, and acknowledge with the time."""
        return self.publish(socket, id, text=prose(text))

    @on("picture")
    def show(self, socket: Socket, id: Any, picture: Any) -> float:
        """Send a picture to the others in the room, as bytes."""
        return self.publish(socket, id, type=pictureType(picture), picture=picture)

    @on("fetch")
    def fetchPicture(self, socket: Socket, id: Any) -> bytes:
        """Acknowledge with a picture that was sent before the client came."""
        room = self.roomOf(socket)
        if not isinstance(id, str) or id not in room.pictures:
            raise Refusal("This picture is no longer kept.")
        return room.pictures[id]

    @on("typing")
    def typing(self, socket: Socket, busy: Any) -> None:
        """Tell the others who is writing; such an event may get lost, as the next one follows soon."""
        room = self.roomOf(socket)
        socket.to(room.name).emit("typing", socket.data["seat"], busy is True, volatile=True)

    def publish(self, socket: Socket, id: Any, *, picture: bytes | None = None, **content: str) -> float:
        """Keep and send a message, unless the server has it: a client without an ack sends it again."""
        room = self.roomOf(socket)
        id, key = line(id, "An id", MAX_ID), socket.data["key"]
        for known in room.said:
            if (known.id, known.key) == (id, key):
                return known.time
        message = Message(id, key, socket.data["seat"], self.now(), **content)
        room.keep(message, picture)
        seen = message.seenBy("")
        socket.to(room.name).emit("said", seen if picture is None else seen | {"picture": picture})
        return message.time

    def roomOf(self, socket: Socket) -> Room:
        """Return the client's room."""
        name = socket.data.get("room")
        if name is None:
            raise Refusal("You are in no room.")
        return self.open[name]

    def vacate(self, socket: Socket) -> None:
        """Take the client out of its room, if it is in one, and forget the room with the last of them."""
        name = socket.data.pop("room", None)
        if name is None:
            return
        socket.leave(name)
        room, nick = self.open[name], socket.data["seat"]
        del room.people[nick]
        self.to(name).emit("left", nick)
        if not room.people and name != LOBBY:
            del self.open[name]

    def counts(self) -> list[tuple[str, int]]:
        """Return the rooms with the number of people in each; the lobby first."""
        return [(room.name, len(room.people)) for room in self.open.values()]


def line(value: Any, what: str, most: int) -> str:
    """Return one line of text without invisible characters; `what` names the text in a refusal."""
    if not isinstance(value, str):
        raise Refusal(f"{what} must be text.")
    visible = "".join(
        c for c in unicodedata.normalize("NFKC", value[: most * 4]) if c.isprintable() or c.isspace()
    )
    tidy = " ".join(visible.split())
    if not 0 < len(tidy) <= most:
        raise Refusal(f"{what} must have 1 to {most} characters.")
    return tidy


def prose(value: Any) -> str:
    """Return text of several lines without control characters."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise Refusal(f"A message must have 1 to {MAX_TEXT} characters.")
    return "".join(c for c in value if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))


def pictureType(data: Any) -> str:
    """Return the MIME type of a picture by its first bytes, whatever the client calls it."""
    if not isinstance(data, bytes) or len(data) > MAX_PICTURE:
        raise Refusal(f"A picture must be bytes, {MAX_PICTURE} at most.")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for signature, kind in SIGNATURES.items():
        if data.startswith(signature):
            return kind
    raise Refusal("A picture can be PNG, JPEG, GIF or WebP.")


def makeServer(reactor: IReactorTime | None = None, **settings: Unpack[ServerOptions]) -> Server:
    """
    Make a server with the chat in its namespace ``/``.

    :param settings: as for :class:`txrealtime.Server`.
    """
    server = Server(reactor=reactor, **settings)
    server.mount("/", Chat())
    return server
