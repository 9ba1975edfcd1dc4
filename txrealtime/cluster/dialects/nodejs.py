"""
The wire form of Node's servers with ``@socket.io/redis-adapter`` 8, and of ``@socket.io/redis-emitter``.

Events are MessagePack arrays ``[uid, packet, opts]``, requests and responses JSON objects, but for those
with the arguments of clients, which are MessagePack as well (redis-adapter, ``lib/index.ts``).  Topics,
where ``socket.io`` stands for the key of the URL:

``socket.io#<namespace>#``
    events for everybody, or for several rooms.
``socket.io#<namespace>#<room>#``
    events for one room.  As Node's, each server hears those for all rooms, and reads those for its own.
``socket.io-request#<namespace>#``, ``socket.io-response#<namespace>#``
    requests, and responses to them.

Servers do not tell their names, and nobody knows which are there, but how many.  Events between servers
are those of ``io.serverSideEmit()``; they carry JSON alone, and their acks, like those of clients, one
value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

from txrealtime.cluster.dialects.interfaces import Answerers, Topic
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
)
from txrealtime.errors import PacketError
from txrealtime.socketio.audience import Person
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.msgpack import packed, unpacked
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import Packet, PacketType, checkedData

__all__ = ["NodeDialect"]

_EVENT: Final = PacketType.EVENT.value
_EVENTS: Final = (_EVENT, PacketType.BINARY_EVENT.value)

# RequestType in lib/index.ts.
_SOCKETS, _ROOMS, _JOIN, _LEAVE, _DISCONNECT, _FETCH, _TELL, _ASK, _COUNT, _ACK = range(10)

_MAX_TIMEOUT: Final = 3600.0


class NodeDialect:
    """
    See the module.

    :param directory: where to look up how a socket came, which Node's servers want to know too.
    :param key: the adapter's, ``socket.io`` by default.
    """

    name: Final = "node"
    hasPresence: Final = False
    pageSize: Final = 1 << 62
    idPrefix: Final = ""

    def __init__(self, uid: str, key: str = "socket.io", directory: Namespaces | None = None) -> None:
        self.uid = uid
        self._key = key
        self._directory = directory
        self._json = JSONText()
        # Events between servers go by way of "/", which a server of Node always has.
        self.topics: Final = self.topicsOf("/")[1:]
        self._writers: dict[type, Callable[[Any], tuple[str, bytes] | None]] = {
            Emit: self._writeEmit,
            Join: lambda m: self._request(m.target, _JOIN, rooms=list(m.rooms)),
            Leave: lambda m: self._request(m.target, _LEAVE, rooms=list(m.rooms)),
            Disconnect: lambda m: self._request(m.target, _DISCONNECT, close=m.close),
            Fetch: lambda m: self._request(m.target, _FETCH, requestId=m.request),
            Ask: self._writeAsk,
            Tell: self._writeTell,
            Reply: self._writeReply,
        }
        self._readers: dict[int, Callable[[str, dict[str, Any]], Message | None]] = {
            _SOCKETS: lambda path, m: self._readList(path, m, "sockets"),
            _ROOMS: lambda path, m: self._readList(path, m, "rooms"),
            _JOIN: lambda path, m: Join(_audience(path, m), _moved(m)),
            _LEAVE: lambda path, m: Leave(_audience(path, m), _moved(m)),
            _DISCONNECT: lambda path, m: Disconnect(_audience(path, m), m.get("close") is True),
            _FETCH: self._readFetch,
            _TELL: self._readTell,
            _ASK: self._readAsk,
        }

    # -- topics ----------------------------------------------------------------------

    def topicsOf(self, path: str) -> Sequence[Topic]:
        # What begins with "/a#" may be for a room in /a, or for /a#b: one pattern for both, as with two
        # it would come twice.
        stem = path.partition("#")[0]
        return (
            Topic(re.sub(r"([*?\[\]\\])", r"\\\1", f"{self._key}#{stem}#") + "*", isPattern=True),
            Topic(f"{self._key}-request#{path}#"),
            Topic(f"{self._key}-response#{path}#"),
            Topic(f"{self._key}-response#{path}#{self.uid}#"),
        )

    def topicOf(self, path: str, room: str) -> Topic | None:
        return None

    def answerers(self, question: Ask | Fetch | Tell) -> Answerers:
        path = "/" if isinstance(question, Tell) else question.target.path
        return Answerers({}, topic=f"{self._key}-request#{path}#")

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
        return topic, packed([self.uid, _event(packet), {**_listed(target), "flags": flags}])

    def _request(self, target: Target, number: int, **fields: Any) -> tuple[str, bytes]:
        message = {"uid": self.uid, "type": number, "opts": _listed(target), **fields}
        return f"{self._key}-request#{target.path}#", self._plain(message)

    def _writeAsk(self, ask: Ask) -> tuple[str, bytes]:
        message = {
            "uid": self.uid,
            "requestId": ask.request,
            "type": _ASK,
            "packet": _event(ask.packet),
            "opts": {**_listed(ask.target), "flags": {"timeout": round(ask.timeout * 1000)}},
        }
        return f"{self._key}-request#{ask.target.path}#", packed(message)

    def _writeTell(self, tell: Tell) -> tuple[str, bytes]:
        message: dict[str, Any] = {"uid": self.uid, "type": _TELL, "data": tell.data}
        if tell.request is not None:
            message["requestId"] = tell.request
        return f"{self._key}-request#/#", self._plain(message)

    def _writeReply(self, reply: Reply) -> tuple[str, bytes] | None:
        question, request = reply.question, reply.request
        path = "/"
        if isinstance(question, Fetch):
            if reply.lapsed:
                return None  # it could not be sent, which is something else than that nobody is here
            path = question.target.path
            data = self._plain({"requestId": request, **self._found(question, reply.values)})
        elif isinstance(question, Ask):
            path = question.target.path
            if reply.total is not None:
                data = self._plain({"type": _COUNT, "requestId": request, "clientCount": reply.total})
            elif reply.values:
                (value,) = reply.values
                # Of several values, theirs send the first.
                data = packed({"type": _ACK, "requestId": request, "packet": _first(value)})
            else:
                return None  # they have no way to say that a client is gone
        elif reply.values:
            data = self._plain({"type": _TELL, "requestId": request, "data": reply.values[0]})
        else:
            return None  # nobody has a handler, or it has failed: theirs say nothing either
        return f"{self._key}-response#{path}#", data

    def _found(self, fetch: Fetch, people: Sequence[Person]) -> dict[str, Any]:
        """What a fetch is answered by."""
        if fetch.form == "rooms":
            return {"rooms": sorted({room for person in people for room in person.rooms})}
        if fetch.form == "sockets":
            return {"sockets": [person.id for person in people]}
        return {"sockets": [self._described(fetch.target.path, person) for person in people]}

    def _described(self, path: str, person: Person) -> dict[str, Any]:
        """A person as a RemoteSocket of Node."""
        namespace = None if self._directory is None else self._directory.find(path)
        socket = None if namespace is None else namespace.sockets.get(person.id)
        return {
            "id": person.id,
            "handshake": {} if socket is None else _handshake(socket.handshake),
            "rooms": sorted(person.rooms),
            "data": _shownIfPossible(person.data),
        }

    def _plain(self, message: dict[str, Any]) -> bytes:
        """A message as JSON; it shows bytes as Node does in such places, which is longer but possible."""
        text, attachments = self._json.encode(message)
        if attachments:
            text, _ = self._json.encode(_shown(message))
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
            raise PacketError("not a message of the Redis adapter's") from None

    def _concerns(self, topic: str) -> bool:
        """Whether an event may be for somebody here: all that can be said before it is read."""
        where = topic[len(self._key) + 1 : -1]
        path, _, room = where.partition("#")
        if not room or self._directory is None:
            return True
        namespace = self._directory.find(path)
        if namespace is not None and room in namespace.rooms:
            return True
        # There may be a # in the name of the namespace.
        return "#" in room or self._directory.find(where) is not None

    def _readEmit(self, topic: str, data: bytes) -> Message | None:
        uid, fields, options = unpacked(data)
        if uid == self.uid:
            return None
        packet = _packet(fields)
        if not topic.startswith(f"{self._key}#{packet.namespace}#"):
            return None  # of a namespace whose name begins like ours
        volatile = _flag(options, "volatile") is True
        return Emit(_targetOf(packet.namespace, options), packet, None, volatile)

    def _readFetch(self, path: str, message: dict[str, Any]) -> Message:
        return Fetch(_audience(path, message), _text(message["uid"]), _text(message["requestId"]))

    def _readList(self, path: str, message: dict[str, Any], form: str) -> Message:
        target = Target(path, _rooms(message.get("rooms") or []) or None)
        return Fetch(target, _text(message["uid"]), _text(message["requestId"]), form)

    def _readTell(self, path: str, message: dict[str, Any]) -> Message | None:
        if path != "/":
            return None  # an event of the servers is one of all their namespaces here
        data = checkedData(PacketType.EVENT, message["data"], False)
        request = message.get("requestId")
        return Tell(data, _text(message["uid"]), None if request is None else _text(request))

    def _readAsk(self, path: str, message: dict[str, Any]) -> Message:
        packet = _packet(message["packet"])._replace(namespace=path)
        timeout = _flag(message["opts"], "timeout")
        isSane = timeout.__class__ in (int, float) and 0 <= timeout <= _MAX_TIMEOUT * 1000  # NaN is not
        seconds = timeout / 1000 if isSane else _MAX_TIMEOUT
        return Ask(
            _audience(path, message), packet, _text(message["uid"]), _text(message["requestId"]), seconds
        )

    def _readResponse(self, message: dict[str, Any]) -> Message | None:
        request = message["requestId"]
        if not isinstance(request, str) or not request.startswith(self.uid):
            return None
        if "sockets" in message:
            people = [_person(each) for each in message["sockets"]]
            return Reply(None, request, "", len(people), people)
        kind = message["type"]
        if kind == _COUNT:
            return Reply(None, request, "", _number(message["clientCount"]))
        if kind == _ACK:
            return Reply(None, request, "", None, [message.get("packet")])
        if kind == _TELL:
            return Reply(None, request, "", 1, [message.get("data")])
        raise PacketError("a response of an unknown kind")


# -- to theirs -------------------------------------------------------------------------


def _event(packet: Packet) -> dict[str, Any]:
    return {"type": _EVENT, "data": packet.data, "nsp": packet.namespace}


def _listed(target: Target) -> dict[str, Any]:
    return {"rooms": list(target.rooms or ()), "except": list(target.excluded)}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _handshake(handshake: Handshake) -> dict[str, Any]:
    came = datetime.fromtimestamp(handshake.time, UTC)
    return {
        "headers": dict(handshake.headers),
        "time": came.strftime("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)"),
        "address": handshake.address,
        "xdomain": "origin" in handshake.headers,
        "secure": handshake.secure,
        "issued": round(handshake.time * 1000),
        "url": handshake.url,
        "query": dict(handshake.query),
        "auth": _shownIfPossible(handshake.auth or {}),
    }


def _shown(value: Any) -> Any:
    """A value as ``JSON.stringify`` shows it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"type": "Buffer", "data": list(bytes(value))}
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, (list, tuple)) else _leaf(value)


def _shownIfPossible(value: dict[str, Any]) -> Any:
    """The same of what may have come from a client, which can be too deep for JSON."""
    try:
        return _shown(value)
    except RecursionError:
        return {}


def _leaf(value: Any) -> Any:
    """What is no container as JSON of Node has it: there are no dates, and no numbers that are none."""
    kind = value.__class__
    if kind is float:
        return value if isfinite(value) else None
    if kind is datetime:
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


# -- from theirs: each gives what it was given, or raises PacketError ------------------------


def _packet(fields: dict[str, Any]) -> Packet:
    if fields["type"] not in _EVENTS:
        raise PacketError("a packet that is no event")
    path = _text(fields.get("nsp", "/"))
    args = checkedData(PacketType.EVENT, fields["data"], False)
    return Packet(PacketType.EVENT, path, _given(args))


def _given(value: Any) -> Any:
    """An argument as clients of Node would get it."""
    kind = value.__class__
    if kind is dict:
        return {key: _given(item) for key, item in value.items()}
    return [_given(item) for item in value] if kind is list else _leaf(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise PacketError("a field that is no text, or too long a one")
    return value


def _number(value: Any) -> int:
    if value.__class__ is not int or value < 0:
        raise PacketError("a count that is none")
    number: int = value
    return number


def _flag(options: dict[str, Any], name: str) -> Any:
    # Some emitters write an empty array, or nil, for no flags.
    flags = options.get("flags")
    return flags.get(name) if isinstance(flags, dict) else None


def _rooms(rooms: Any) -> tuple[str, ...]:
    # Theirs may be numbers; ours, and those of clients, are text.
    return tuple(str(room) if room.__class__ is int else _text(room) for room in rooms)


def _targetOf(path: str, options: dict[str, Any]) -> Target:
    return Target(path, _rooms(options["rooms"]) or None, frozenset(_rooms(options.get("except") or [])))


def _audience(path: str, message: dict[str, Any]) -> Target:
    """Whom a request is about; those of emitters before version 5 are about one socket."""
    options = message.get("opts")
    return Target(path, (_text(message["sid"]),)) if options is None else _targetOf(path, options)


def _moved(message: dict[str, Any]) -> tuple[str, ...]:
    """The rooms to join or leave."""
    return _rooms(message["rooms"] if "opts" in message else [message["room"]])


def _person(fields: dict[str, Any]) -> Person:
    data = fields.get("data")
    return Person(
        _text(fields["id"]), frozenset(_rooms(fields["rooms"])), data if isinstance(data, dict) else {}
    )
