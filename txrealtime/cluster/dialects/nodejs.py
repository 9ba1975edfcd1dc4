"""
The dialect of Node's servers with ``@socket.io/redis-adapter`` 8, and of ``@socket.io/redis-emitter``.

Events are MessagePack arrays ``[uid, packet, opts]``.  Requests and responses are JSON objects, except those
with the arguments of clients, which are MessagePack too (redis-adapter, ``lib/index.ts``).

Topics, where ``socket.io`` stands for the key of the URL:

``socket.io#<namespace>#``
    events for everybody, or for several rooms.
``socket.io#<namespace>#<room>#``
    events for one room.  Like a server of Node, each server receives those for all rooms and reads those for
    its own.
``socket.io-request#<namespace>#``, ``socket.io-response#<namespace>#``
    requests, and responses to them.

Servers do not tell their names; only their number is known.  Events between servers are those of
``io.serverSideEmit()``: they carry JSON alone.  Their replies, and the acks of clients, carry one value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final

from txrealtime.cluster.dialects.interfaces import Respondents, Topic
from txrealtime.cluster.dialects.messages import (
    Ask,
    Disconnect,
    Emit,
    Fetch,
    Join,
    Leave,
    Message,
    Reply,
    Target,
    Tell,
    Transfer,
)
from txrealtime.cluster.dialects.nodevalues import (
    describedSocket,
    eventOf,
    firstOf,
    optionsOf,
    readAudience,
    readFlag,
    readMoved,
    readNumber,
    readPacket,
    readPerson,
    readRooms,
    readTarget,
    readText,
    readTimeout,
    shown,
)
from txrealtime.errors import PacketError
from txrealtime.socketio.audience import Person
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.msgpack import packed, unpacked
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import PacketType, checkedData

__all__ = ["NodeDialect"]


class _Type(IntEnum):
    """The types of requests and responses: ``RequestType`` in ``lib/index.ts``."""

    SOCKETS = 0
    ROOMS = 1
    JOIN = 2
    LEAVE = 3
    DISCONNECT = 4
    FETCH = 5
    TELL = 6
    ASK = 7
    COUNT = 8
    ACK = 9


class NodeDialect:
    """
    Node's dialect, of one server.

    :param uid: this server's name among servers.
    :param key: the adapter's option, by default ``socket.io``.
    :param namespaces: the server's namespaces: Node's servers want the handshakes of fetched sockets.
    """

    name: Final = "node"
    announces: Final = False
    hasPresence: Final = False
    pageSize: Final = 1 << 62
    numbers: Final = None
    idPrefix: Final = ""

    def __init__(self, uid: str, key: str = "socket.io", namespaces: Namespaces | None = None) -> None:
        self.uid = uid
        self._key = key
        self._namespaces = namespaces
        self._json = JSONText()
        # Events between servers go by the topics of "/", which a server of Node always has.
        self.topics: Final = self.topicsOf("/")[1:]
        self._writers: dict[type, Callable[[Any], tuple[str, bytes] | None]] = {
            Emit: self._writeEmit,
            Join: lambda m: self._request(m.target, _Type.JOIN, rooms=list(m.rooms)),
            Leave: lambda m: self._request(m.target, _Type.LEAVE, rooms=list(m.rooms)),
            Disconnect: lambda m: self._request(m.target, _Type.DISCONNECT, close=m.close),
            Fetch: lambda m: self._request(m.target, _Type.FETCH, requestId=m.request),
            Ask: self._writeAsk,
            Tell: self._writeTell,
            Reply: self._writeReply,
        }
        self._readers: dict[int, Callable[[str, dict[str, Any]], Message | None]] = {
            _Type.SOCKETS: lambda path, m: self._readList(path, m, "sockets"),
            _Type.ROOMS: lambda path, m: self._readList(path, m, "rooms"),
            _Type.JOIN: lambda path, m: Join(readAudience(path, m), readMoved(m)),
            _Type.LEAVE: lambda path, m: Leave(readAudience(path, m), readMoved(m)),
            _Type.DISCONNECT: lambda path, m: Disconnect(readAudience(path, m), m.get("close") is True),
            _Type.FETCH: self._readFetch,
            _Type.TELL: self._readTell,
            _Type.ASK: self._readAsk,
        }

    # -- topics ----------------------------------------------------------------------

    def topicsOf(self, path: str) -> Sequence[Topic]:
        # A topic that begins with "/a#" may be of a room in /a, or of the namespace /a#b.  One pattern is for
        # both: with two patterns a message would come twice.
        stem = path.partition("#")[0]
        return (
            Topic(re.sub(r"([*?\[\]\\])", r"\\\1", f"{self._key}#{stem}#") + "*", isPattern=True),
            Topic(f"{self._key}-request#{path}#", isCounted=True),
            Topic(f"{self._key}-response#{path}#"),
            Topic(f"{self._key}-response#{path}#{self.uid}#"),
        )

    def topicOf(self, path: str, room: str) -> Topic | None:
        return None

    def pathOf(self, topic: str) -> str | None:
        return None  # nothing is numbered

    def respondents(self, question: Ask | Fetch | Tell | Transfer) -> Respondents:
        path = "/" if isinstance(question, Tell | Transfer) else question.target.path
        return Respondents({}, topic=f"{self._key}-request#{path}#")

    # -- writing ---------------------------------------------------------------------

    def write(self, message: Message) -> Sequence[tuple[str, bytes]]:
        written = self._writers[type(message)](message)
        return () if written is None else (written,)

    def _writeEmit(self, emit: Emit) -> tuple[str, bytes]:
        target, packet = emit.target, emit.packet
        assert packet is not None
        topic = f"{self._key}#{target.path}#"
        if target.rooms is not None and len(target.rooms) == 1:
            topic += f"{target.rooms[0]}#"
        flags = {"volatile": True} if emit.volatile else {}
        return topic, packed([self.uid, eventOf(packet), {**optionsOf(target), "flags": flags}])

    def _request(self, target: Target, type: _Type, **fields: Any) -> tuple[str, bytes]:
        message = {"uid": self.uid, "type": type.value, "opts": optionsOf(target), **fields}
        return f"{self._key}-request#{target.path}#", self._plain(message)

    def _writeAsk(self, ask: Ask) -> tuple[str, bytes]:
        message = {
            "uid": self.uid,
            "requestId": ask.request,
            "type": _Type.ASK.value,
            "packet": eventOf(ask.packet),
            "opts": {**optionsOf(ask.target), "flags": {"timeout": round(ask.timeout * 1000)}},
        }
        return f"{self._key}-request#{ask.target.path}#", packed(message)

    def _writeTell(self, tell: Tell) -> tuple[str, bytes]:
        message: dict[str, Any] = {"uid": self.uid, "type": _Type.TELL.value, "data": tell.data}
        if tell.request is not None:
            message["requestId"] = tell.request
        return f"{self._key}-request#/#", self._plain(message)

    def _writeReply(self, reply: Reply) -> tuple[str, bytes] | None:
        question, request = reply.question, reply.request
        path = "/"
        if isinstance(question, Fetch):
            if reply.lapsed:
                return None  # the sockets could not be encoded: no response, instead of "there are none"
            path = question.target.path
            data = self._plain({"requestId": request, **self._found(question, reply.values)})
        elif isinstance(question, Ask):
            path = question.target.path
            if reply.total is not None:
                data = self._plain(
                    {"type": _Type.COUNT.value, "requestId": request, "clientCount": reply.total}
                )
            elif reply.values:
                (value,) = reply.values
                # Node's servers send only the first of several values.
                data = packed({"type": _Type.ACK.value, "requestId": request, "packet": firstOf(value)})
            else:
                return None  # the adapter has no response for a client that has gone
        elif reply.values:
            data = self._plain({"type": _Type.TELL.value, "requestId": request, "data": reply.values[0]})
        else:
            return None  # no handler, or one that failed: Node's servers send no response either
        return f"{self._key}-response#{path}#", data

    def _found(self, fetch: Fetch, people: Sequence[Person]) -> dict[str, Any]:
        """Return the fields of a response to a fetch."""
        if fetch.form == "rooms":
            return {"rooms": sorted({room for person in people for room in person.rooms})}
        if fetch.form == "sockets":
            return {"sockets": [person.id for person in people]}
        return {
            "sockets": [describedSocket(self._namespaces, fetch.target.path, person) for person in people]
        }

    def _plain(self, message: dict[str, Any]) -> bytes:
        """Encode a message as JSON, with bytes in the long form that ``JSON.stringify`` has for them."""
        text, attachments = self._json.encode(message)
        if attachments:
            text, _ = self._json.encode(shown(message))
        return text.encode()

    # -- reading ---------------------------------------------------------------------

    def read(self, topic: str, data: bytes) -> Message | None:
        try:
            if topic.startswith(f"{self._key}#"):
                return self._readEmit(topic, data) if self._concerns(topic) else None
            kind, path = topic.removeprefix(f"{self._key}-").split("#", 1)
            message = self._json.decode(data.decode()) if data[:1] == b"{" else unpacked(data)
            if kind == "response":
                return self._readResponse(message)
            if message.get("uid") == self.uid:
                return None
            return self._readers[message["type"]](path.rpartition("#")[0], message)
        except PacketError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise PacketError("not a message of Node's Redis adapter") from None

    def _concerns(self, topic: str) -> bool:
        """Return false if an event is for nobody here, as far as its topic tells."""
        where = topic[len(self._key) + 1 : -1]
        path, _, room = where.partition("#")
        if not room or self._namespaces is None:
            return True
        namespace = self._namespaces.find(path)
        if namespace is not None and room in namespace.rooms:
            return True
        # The name of the namespace may have a # in it.
        return "#" in room or self._namespaces.find(where) is not None

    def _readEmit(self, topic: str, data: bytes) -> Message | None:
        uid, fields, options = unpacked(data)
        if uid == self.uid:
            return None
        packet = readPacket(fields)
        if not topic.startswith(f"{self._key}#{packet.namespace}#"):
            return None  # of a namespace whose name begins like the one of the topic
        volatile = readFlag(options, "volatile") is True
        return Emit(readTarget(packet.namespace, options), packet, None, volatile)

    def _readFetch(self, path: str, message: dict[str, Any]) -> Message:
        return Fetch(readAudience(path, message), readText(message["uid"]), readText(message["requestId"]))

    def _readList(self, path: str, message: dict[str, Any], form: str) -> Message:
        target = Target(path, readRooms(message.get("rooms") or []) or None)
        return Fetch(target, readText(message["uid"]), readText(message["requestId"]), form)

    def _readTell(self, path: str, message: dict[str, Any]) -> Message | None:
        if path != "/":
            return None  # Node has these events in each namespace, txrealtime only in "/"
        data = checkedData(PacketType.EVENT, message["data"], False)
        request = message.get("requestId")
        return Tell(data, readText(message["uid"]), None if request is None else readText(request))

    def _readAsk(self, path: str, message: dict[str, Any]) -> Message:
        packet = readPacket(message["packet"])._replace(namespace=path)
        seconds = readTimeout(message["opts"])
        return Ask(
            readAudience(path, message),
            packet,
            readText(message["uid"]),
            readText(message["requestId"]),
            seconds,
        )

    def _readResponse(self, message: dict[str, Any]) -> Message | None:
        request = message["requestId"]
        if not isinstance(request, str) or not request.startswith(self.uid):
            return None
        if "sockets" in message:
            people = [readPerson(each) for each in message["sockets"]]
            return Reply(None, request, "", len(people), people)
        kind = message["type"]
        if kind == _Type.COUNT:
            return Reply(None, request, "", readNumber(message["clientCount"]))
        if kind == _Type.ACK:
            return Reply(None, request, "", None, [message.get("packet")])
        if kind == _Type.TELL:
            return Reply(None, request, "", 1, [message.get("data")])
        raise PacketError("a response of an unknown kind")
