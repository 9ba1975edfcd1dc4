r"""
The native dialect: the wire form among servers of txrealtime.

A message is one line of text, and then the packet that it carries, if there is one::

    txr1 <sender> <head>\n<packet>

``txr1`` names the form and its version.  The sender is a server's uid of 8 characters.  The head is a JSON
array: the kind of message, its fields, and at last a list with the size of each part of the packet, in bytes.
The size of a binary part of n bytes is written as ``-n - 1``::

    txr1 q8Zk3x9a ["emit","/chat",["red"],[],false,7,[18]]\n2/chat,["hi",1,{}]

Each message that is neither a question, a reply nor an announcement has its number among the sender's
messages on the topic, before the sizes: see :mod:`~txrealtime.cluster.dialects.numbers`.  A message without
a number is read too.  An emitter's event has a random text in place of the number, by which servers know the
event again.

An event for clients is carried in the form that clients get.  So it is encoded once for all servers, and a
server that forwards it does not decode it.  A packet for a server itself is in the form of Socket.IO's
default parser, whatever parser the clients have.

Topics, where ``txrealtime`` stands for the key of the URL:

``txrealtime``
    for every server: announcements, and questions to all.
``txrealtime#<n>``
    the same topic, at one of several brokers: see :mod:`~txrealtime.cluster.bus.spread`.  There, an
    announcement has the numbers of the topics that this broker owns, as it would overtake messages of others.
``txrealtime@<uid>``
    for one server: replies, and messages about a single socket of the server.  The id of a socket begins with
    the uid of its server.
``txrealtime,<namespace>``
    for the servers that have the namespace.
``txrealtime,<namespace>,<room>``
    for the servers that have members of the room.

A server subscribes to a room when its first member joins, and hears what is published from then on.  So that
no event overtakes a join that a server has asked another one for, the asking server publishes to all that
have the namespace for five seconds after.  With several brokers, the join itself goes to these too, as topics
of different brokers have no order among each other.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from secrets import token_urlsafe
from time import monotonic
from typing import Any, Final

from txrealtime.cluster.bus.spread import Spread
from txrealtime.cluster.dialects.interfaces import Respondents, Topic
from txrealtime.cluster.dialects.messages import (
    Alive,
    Ask,
    Disconnect,
    Emit,
    Fetch,
    Gone,
    Join,
    Leave,
    Message,
    Reply,
    Roll,
    RosterNumbers,
    RosterPage,
    Target,
    Tell,
    Track,
    Transfer,
)
from txrealtime.cluster.dialects.nativereading import MAGIC, MAX_HEAD, NUMBERED, UID_LENGTH, NativeReader
from txrealtime.cluster.dialects.numbers import Numbers
from txrealtime.engineio import packet as engineio
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.packet import JSONParser, Packet, PacketType

__all__ = ["UID_LENGTH", "NativeDialect"]

_MAX_TOPIC_ROOM: Final = 100

_SUBSCRIBING: Final = 5.0
"""Seconds after which a server has certainly subscribed to a room."""

_NAME_BYTES: Final = 9
"""Bytes of an event's random name."""

# The id of a socket: the uid of its server and 20 random characters.
_ID: Final = re.compile("[A-Za-z0-9_-]{28}")

_MESSAGE: Final = engineio.PacketType.MESSAGE

Wire = Sequence[str | bytes]


class NativeDialect:
    """
    The native dialect of one server.

    :param uid: this server's name among servers.
    :param key: the beginning of the topics.
    :param known: the peer servers: name by uid.
    :param seconds: returns the time.
    :param numbered: ``False`` for an emitter: after a fork, two processes would use one row of numbers.
    :param spread: the owners of topics, if there are several brokers.
    """

    name: Final = "native"
    announces: Final = True
    hasPresence: Final = True
    pageSize: Final = 200

    def __init__(
        self,
        uid: str,
        key: str = "txrealtime",
        known: Mapping[str, str] | None = None,
        seconds: Callable[[], float] = monotonic,
        numbered: bool = True,
        spread: Spread | None = None,
    ) -> None:
        self.uid = self.idPrefix = uid
        self._key = key
        self._known: Mapping[str, str] = {} if known is None else known
        self._mine = MAGIC + uid.encode() + b" "
        self._own = self.topicOfServer(uid)
        self.topics = (Topic(key), Topic(self._own))
        self._seconds = seconds
        self._spread = spread
        # Rooms that others were asked to let sockets join, with the times, the latest last.
        self._joined: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.numbers = Numbers()
        self._numbered: Mapping[str, int] = NUMBERED if numbered else {}
        self._json = JSONText()
        self._parser = JSONParser()
        self._writers: dict[type, Callable[[Any], tuple[str, list[Any], Wire]]] = {
            Emit: self._writeEmit,
            Join: self._writeJoin,
            Leave: lambda m: (self._leaveTopic(m), ["leave", *_listed(m.target), list(m.rooms)], ()),
            Disconnect: lambda m: (self._topicOf(m.target), ["disconnect", *_listed(m.target), m.close], ()),
            Ask: self._writeAsk,
            Fetch: lambda m: (self._askedOn(m), ["fetch", *_listed(m.target), m.request], ()),
            Tell: self._writeTell,
            Transfer: self._writeTransfer,
            Reply: self._writeReply,
            Alive: self._writeAlive,
            Gone: lambda m: (self._key, ["gone"], ()),
            Track: self._writeTrack,
            Roll: lambda m: (f"{self._key}@{m.recipient}", ["roll"], self._list(m.paths)),
            RosterPage: self._writePage,
            RosterNumbers: lambda m: (self._key, ["rosters"], ()),
        }
        # Not a method of its own, which would be one more call for each message.
        self.read = NativeReader(uid, self.numbers).read

    # -- topics ----------------------------------------------------------------------

    def topicOfServer(self, uid: str) -> str:
        """Return the topic of a server's own."""
        return f"{self._key}@{uid}"

    def topicsOf(self, path: str) -> Sequence[Topic]:
        return (Topic(f"{self._key},{path}"),)

    def topicOf(self, path: str, room: str) -> Topic | None:
        # Messages for one socket with an id of this server's come on this server's own topic.
        if room.startswith(self.uid) and _ID.fullmatch(room):
            return None
        return Topic(self._roomTopic(path, room))

    def _roomTopic(self, path: str, room: str) -> str:
        if len(room) > _MAX_TOPIC_ROOM // 4 and len(room.encode("utf-8", "replace")) > _MAX_TOPIC_ROOM:
            # The limit of RabbitMQ's routing keys is 255 bytes.
            room = sha256(room.encode("utf-8", "replace")).hexdigest()
        return f"{self._key},{path},{room}"

    def pathOf(self, topic: str) -> str | None:
        _, comma, rest = topic.removeprefix(self._key).partition(",")
        return rest.partition(",")[0] if comma else "" if topic == self._key else None

    def _topicOf(self, target: Target) -> str:
        """Return the topic of the servers that may have members of an audience."""
        rooms = target.rooms
        if rooms is None or len(rooms) != 1:
            return f"{self._key},{target.path}"
        server = self._serverOf(rooms[0])
        if server is None:
            if self._joined and self._wasJoined(target.path, rooms[0]):
                return f"{self._key},{target.path}"
            return self._roomTopic(target.path, rooms[0])
        # An unknown server may have come this moment.  All that have the namespace look for the socket.
        return f"{self._key}@{server}" if server in self._known else f"{self._key},{target.path}"

    def _wasJoined(self, path: str, room: str) -> bool:
        """Return true if other servers may still be subscribing to a room after a join that this one sent."""
        at = self._joined.get((path, room))
        return at is not None and self._seconds() - at < _SUBSCRIBING

    def _serverOf(self, room: str) -> str | None:
        """Return the uid of a socket's server, if the room is the id of a socket."""
        return room[:UID_LENGTH] if len(room) == 28 and _ID.fullmatch(room) else None

    def respondents(self, question: Ask | Fetch | Tell | Transfer) -> Respondents:
        if isinstance(question, Transfer):
            to = question.recipient
            return Respondents({to: self._known[to]} if to in self._known else self._known)
        if isinstance(question, Tell):
            return Respondents(self._known)
        sole = question.recipient if question.recipient in self._known else self._soleServer(question.target)
        return Respondents(self._known if sole is None else {sole: self._known[sole]})

    def _soleServer(self, target: Target) -> str | None:
        """Return the uid of the only server that can have members of an audience, if there is one."""
        if target.rooms is None or len(target.rooms) != 1:
            return None
        server = self._serverOf(target.rooms[0])
        return server if server is not None and server in self._known else None

    def _askedOn(self, question: Ask | Fetch) -> str:
        server = question.recipient or self._soleServer(question.target)
        return f"{self._key}@{server}" if server else self._key

    # -- writing ---------------------------------------------------------------------

    def write(self, message: Message) -> Sequence[tuple[str, bytes]]:
        topic, head, packet = self._writers[type(message)](message)
        if topic == self._key and head[0] in _ANNOUNCED:
            return self._writeAnnounced(message, head)
        if head[0] in self._numbered and (head[0] != "tell" or head[1] is None):
            head.append(self.numbers.next(topic))
        elif head[0] == "emit":
            head.append(token_urlsafe(_NAME_BYTES))
        return [(topic, self._encode(head, packet))]

    def _encode(self, head: list[Any], packet: Wire) -> bytes:
        parts = []
        sizes = []
        for part in packet:
            if isinstance(part, str):
                parts.append(part.encode())
                sizes.append(len(parts[-1]))
            else:
                parts.append(part)
                sizes.append(-len(part) - 1)
        head.append(sizes)
        text, _ = self._json.encode(head)
        encoded = text.encode()
        if len(encoded) >= MAX_HEAD:
            raise ValueError(
                f"the names of the rooms are too long for the other servers: {len(encoded)} bytes with all "
                f"that belongs to them, the limit is {MAX_HEAD}"
            )
        return b"".join((self._mine, encoded, b"\n", *parts))

    def _writeAnnounced(self, message: Any, head: list[Any]) -> Sequence[tuple[str, bytes]]:
        """Write an announcement for each broker, with the numbers of the topics that the broker owns."""
        isRosters = head[0] == "rosters"
        numbers = message.numbers if isRosters else self.numbers.announced()
        written = []
        for place, topic in enumerate((self._key,) if self._spread is None else self._spread.controls):
            share = {
                name: number
                for name, number in numbers.items()
                if self._spread is None
                or self._spread.ownerOf(f"{self._key},{name}" if isRosters else name) == place
            }
            if not isRosters:
                written.append((topic, self._encode([*head, share], ())))
            elif share or self._spread is None:
                written.append((topic, self._encode(head.copy(), self._list(list(share.items())))))
        return written

    def _writeEmit(self, emit: Emit) -> tuple[str, list[Any], Wire]:
        assert emit.messages is not None
        wire = [message.data for message in emit.messages]
        topic, rooms = self._topicOf(emit.target), emit.target.rooms
        if emit.logged and rooms is not None and len(rooms) == 1 and self._serverOf(rooms[0]) == self.uid:
            # For a client of this server; kept for a server to which the client may come back.
            topic = f"{self._key}@{self.uid}"
        return topic, ["emit", *_listed(emit.target), emit.volatile or emit.logged or False], wire

    def _writeJoin(self, join: Join) -> tuple[str, list[Any], Wire]:
        topic = self._topicOf(join.target) if self._spread is None else f"{self._key},{join.target.path}"
        now, path, joined = self._seconds(), join.target.path, self._joined
        for room in join.rooms:
            joined[path, room] = now
            joined.move_to_end((path, room))
        while joined and now - next(iter(joined.values())) >= _SUBSCRIBING:
            joined.popitem(last=False)
        return topic, ["join", *_listed(join.target), list(join.rooms)], ()

    def _leaveTopic(self, leave: Leave) -> str:
        path = leave.target.path
        if self._spread is not None and any(self._wasJoined(path, room) for room in leave.rooms):
            return f"{self._key},{path}"
        return self._topicOf(leave.target)

    def _writeAsk(self, ask: Ask) -> tuple[str, list[Any], Wire]:
        head = ["ask", *_listed(ask.target), ask.request, ask.timeout]
        return self._askedOn(ask), head, self._parser.encode(ask.packet)

    def _writeTell(self, tell: Tell) -> tuple[str, list[Any], Wire]:
        return self._key, ["tell", tell.request], self._event(PacketType.EVENT, tell.data)

    def _writeTransfer(self, transfer: Transfer) -> tuple[str, list[Any], Wire]:
        topic = f"{self._key}@{transfer.recipient}" if transfer.recipient else self._key
        return topic, ["transfer", transfer.request], self._event(PacketType.EVENT, transfer.data)

    def _writeReply(self, reply: Reply) -> tuple[str, list[Any], Wire]:
        assert reply.question is not None
        form, write = _FORMS[type(reply.question)]
        values = [write(value) for value in reply.values]
        if reply.moved:
            form, values = "moved", [reply.moved]
        head = ["reply", reply.request, reply.total, reply.lapsed, form]
        packet = self._event(PacketType.ACK, values) if values else ()
        return f"{self._key}@{reply.question.sender}", head, packet

    def _event(self, type: PacketType, data: list[Any]) -> Wire:
        return self._parser.encode(Packet(type, "/", data, 0 if type is PacketType.ACK else None))

    def _writeAlive(self, alive: Alive) -> tuple[str, list[Any], Wire]:
        topic = f"{self._key}@{alive.recipient}" if alive.recipient else self._key
        head: list[Any] = ["alive", alive.name, alive.lease, alive.parser, alive.asks]
        if alive.publishes or alive.hears != ("",):
            head.append([alive.publishes, *alive.hears])
        return topic, head, ()

    def _writeTrack(self, track: Track) -> tuple[str, list[Any], Wire]:
        head = ["track", track.path, track.before, track.number, track.isPresent]
        return f"{self._key},{track.path}", head, self._list(track.entry)

    def _writePage(self, page: RosterPage) -> tuple[str, list[Any], Wire]:
        head = ["page", page.path, page.number, page.page, page.more]
        return f"{self._key}@{page.recipient}", head, self._list(page.entries)

    def _list(self, values: Sequence[Any]) -> Wire:
        """Write a list, which may be longer than a head."""
        return (self._json.encode(list(values))[0],)


_ANNOUNCED: Final = ("alive", "gone", "rosters")
"""Kinds of messages that go to each broker, if there are several."""

# The values of a reply: for each class of question the name of their form, and how to write one.
_FORMS: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    Ask: (
        "acks",
        lambda value: list(value) if isinstance(value, tuple) else [] if value is None else [value],
    ),
    Fetch: ("people", lambda value: {"id": value.id, "rooms": list(value.rooms), "data": value.data}),
    Tell: ("answers", lambda value: value),
    Transfer: ("answers", lambda value: value),
}


def _listed(target: Target) -> list[Any]:
    rooms = None if target.rooms is None else list(target.rooms)
    return [target.path, rooms, list(target.excluded)]
