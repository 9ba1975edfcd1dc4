"""
The dialect of Node's servers with ``@socket.io/redis-streams-adapter`` 0.3, and of its emitter.

Messages are those of ``ClusterAdapter`` in socket.io-adapter 2.5 (``lib/cluster-adapter.ts``): a type, the
uid of the sender, the namespace, and ``data``.  Events without acks, joins, leaves and disconnects are
entries of a stream, with data in JSON, or with bytes among them in MessagePack.  Questions and replies are
MessagePack by Redis's pub/sub, where ``socket.io`` stands for the key of the URL:

``socket.io#<namespace>#``
    questions; its subscribers are counted, and each has to reply.
``socket.io#<namespace>#<uid>#``
    replies to one server.

The topic of entries is the path of the namespace: :mod:`~txrealtime.cluster.bus.entries` has their fields.
Servers do not tell their names.  Events between servers are those of ``io.serverSideEmit()`` in ``/``.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final

from txrealtime.cluster.dialects.interfaces import Respondents, Topic, Unsupported
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
    firstOf,
    optionsOf,
    readFlag,
    readNumber,
    readPacket,
    readPerson,
    readRooms,
    readTarget,
    readText,
    readTimeout,
)
from txrealtime.cluster.dialects.ownevents import OwnEvents
from txrealtime.errors import PacketError
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.msgpack import packed, unpacked
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import PacketType, checkedData

__all__ = ["EMITTER", "NodeStreamsDialect"]

EMITTER: Final = "emitter"
"""The uid of Node's emitters."""

_EVENT: Final = PacketType.EVENT.value


class _Type(IntEnum):
    """The types of messages: ``MessageType`` in ``lib/cluster-adapter.ts``."""

    EMIT = 3
    JOIN = 4
    LEAVE = 5
    DISCONNECT = 6
    FETCH = 7
    SOCKETS = 8
    TELL = 9
    TOLD = 10
    COUNT = 11
    ACK = 12


class NodeStreamsDialect:
    """
    The dialect of Node's Streams adapter, of one server.

    :param uid: this server's name among servers.
    :param key: the adapter's option ``channelPrefix``, by default ``socket.io``.
    :param namespaces: the server's namespaces: Node's servers want the handshakes of fetched sockets.
    :param sessions: the adapter's option ``sessionKeyPrefix``.
    :ivar own: this server's events on their way, if its clients get them from the stream; otherwise ``None``.
    """

    name: Final = "node-streams"
    announces: Final = False
    hasPresence: Final = False
    pageSize: Final = 1 << 62
    numbers: Final = None
    idPrefix: Final = ""

    def __init__(
        self,
        uid: str,
        key: str = "socket.io",
        namespaces: Namespaces | None = None,
        sessions: str = "sio:session:",
    ) -> None:
        self.uid = uid
        self.sessions = sessions
        self.own: OwnEvents | None = None
        self._key = key
        self._namespaces = namespaces
        self._json = JSONText()
        # Events between servers go by the topics of "/", which a server of Node always has.
        self.topics: Final = self.topicsOf("/")[1:]
        self._writers: dict[type, Callable[[Any], tuple[str, bytes] | None]] = {
            Emit: self._writeEmit,
            Join: lambda m: self._entry(m.target, _Type.JOIN, rooms=list(m.rooms)),
            Leave: lambda m: self._entry(m.target, _Type.LEAVE, rooms=list(m.rooms)),
            Disconnect: lambda m: self._entry(m.target, _Type.DISCONNECT, close=m.close),
            Fetch: self._writeFetch,
            Ask: self._writeAsk,
            Tell: self._writeTell,
            Reply: self._writeReply,
        }
        self._kept: dict[int, Callable[[str, Any], Message | None]] = {
            _Type.JOIN: lambda path, data: Join(readTarget(path, data["opts"]), readRooms(data["rooms"])),
            _Type.LEAVE: lambda path, data: Leave(readTarget(path, data["opts"]), readRooms(data["rooms"])),
            _Type.DISCONNECT: lambda path, data: Disconnect(
                readTarget(path, data["opts"]), data.get("close") is True
            ),
        }
        self._passing: dict[int, Callable[[str, str, Any], Message | None]] = {
            _Type.EMIT: self._readAsk,
            _Type.FETCH: lambda path, uid, data: Fetch(
                readTarget(path, data["opts"]), uid, readText(data["requestId"])
            ),
            _Type.TELL: self._readTell,
        }

    # -- topics ----------------------------------------------------------------------

    def topicsOf(self, path: str) -> Sequence[Topic]:
        return (
            Topic(path),
            Topic(f"{self._key}#{path}#", isCounted=True),
            Topic(f"{self._key}#{path}#{self.uid}#"),
        )

    def topicOf(self, path: str, room: str) -> Topic | None:
        return None

    def pathOf(self, topic: str) -> str | None:
        return None  # nothing is numbered

    def respondents(self, question: Ask | Fetch | Tell | Transfer) -> Respondents:
        path = "/" if isinstance(question, Tell | Transfer) else question.target.path
        return Respondents({}, topic=f"{self._key}#{path}#")

    # -- writing ---------------------------------------------------------------------

    def write(self, message: Message) -> Sequence[tuple[str, bytes]]:
        writer = self._writers.get(type(message))
        if writer is None:
            raise Unsupported(f"Node's Streams adapter has no message for {type(message).__name__}")
        written = writer(message)
        return () if written is None else (written,)

    def _writeEmit(self, emit: Emit) -> tuple[str, bytes]:
        assert emit.packet is not None
        flags = {"volatile": True} if emit.volatile else {}
        packet = {"type": _EVENT, "data": emit.packet.data}
        data = {"packet": packet, "opts": {**optionsOf(emit.target), "flags": flags}}
        topic, payload = self._added(emit.target.path, _Type.EMIT, data)
        if self.own is not None:
            self.own.sent(payload, emit)
        return topic, payload

    def _entry(self, target: Target, type: _Type, **fields: Any) -> tuple[str, bytes]:
        return self._added(target.path, type, {"opts": {**optionsOf(target), "flags": {}}, **fields})

    def _added(self, path: str, type: _Type, data: dict[str, Any]) -> tuple[str, bytes]:
        """Return an entry: JSON, or MessagePack for bytes and other values that JSON lacks."""
        body = b""
        try:
            text, attachments = self._json.encode(data)
            body = b"" if attachments else text.encode()
        except (TypeError, ValueError):
            attachments = [b""]
        if attachments:
            body = b64encode(packed(data))
        return path, b"%b %d %b" % (self.uid.encode(), type, body)

    def _publish(self, path: str, type: _Type, data: dict[str, Any], to: str = "") -> tuple[str, bytes]:
        topic = f"{self._key}#{path}#{to}#" if to else f"{self._key}#{path}#"
        return topic, packed({"type": type.value, "data": data, "uid": self.uid, "nsp": path})

    def _writeFetch(self, fetch: Fetch) -> tuple[str, bytes]:
        data = {"opts": {**optionsOf(fetch.target), "flags": {}}, "requestId": fetch.request}
        return self._publish(fetch.target.path, _Type.FETCH, data)

    def _writeAsk(self, ask: Ask) -> tuple[str, bytes]:
        data = {
            "packet": {"type": _EVENT, "data": ask.packet.data},
            "requestId": ask.request,
            "opts": {**optionsOf(ask.target), "flags": {"timeout": round(ask.timeout * 1000)}},
        }
        return self._publish(ask.target.path, _Type.EMIT, data)

    def _writeTell(self, tell: Tell) -> tuple[str, bytes]:
        data: dict[str, Any] = {} if tell.request is None else {"requestId": tell.request}
        return self._publish("/", _Type.TELL, {**data, "packet": tell.data})

    def _writeReply(self, reply: Reply) -> tuple[str, bytes] | None:
        question = reply.question
        assert question is not None
        to, fields = question.sender, {"requestId": reply.request}
        if isinstance(question, Fetch):
            if reply.lapsed:
                return None  # the sockets could not be encoded: no response, instead of "there are none"
            path = question.target.path
            sockets = [describedSocket(self._namespaces, path, person) for person in reply.values]
            return self._publish(path, _Type.SOCKETS, {**fields, "sockets": sockets}, to)
        if isinstance(question, Ask):
            path = question.target.path
            if reply.total is not None:
                return self._publish(path, _Type.COUNT, {**fields, "clientCount": reply.total}, to)
            if reply.values:
                (value,) = reply.values
                # Node's servers send only the first of several values.
                return self._publish(path, _Type.ACK, {**fields, "packet": firstOf(value)}, to)
        elif reply.values:
            return self._publish("/", _Type.TOLD, {**fields, "packet": reply.values[0]}, to)
        # A client that has gone, no handler, or one that failed: Node's servers send no response either.
        return None

    # -- reading ---------------------------------------------------------------------

    def read(self, topic: str, data: bytes) -> Message | None:
        try:
            if topic.startswith("/"):
                return self._readEntry(topic, data)
            path, _, private = topic.removeprefix(f"{self._key}#").removesuffix("#").rpartition("#")
            message = unpacked(data)
            if message["uid"] == self.uid:
                return None
            if private == self.uid:
                return self._readReply(message["type"], message["data"])
            path = f"{path}#{private}" if path else private
            if message["nsp"] != path:
                return None
            reader = self._passing.get(message["type"])
            return None if reader is None else reader(path, readText(message["uid"]), message["data"])
        except PacketError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise PacketError("not a message of Node's Streams adapter") from None

    def _readEntry(self, path: str, entry: bytes) -> Message | None:
        id, uid, type, data = entry.split(b" ", 3)
        number = int(type)
        isOwn = uid == self.uid.encode()
        if number == _Type.EMIT:
            if isOwn:
                if self.own is None:
                    return None
                emit = self.own.came(entry[len(id) + 1 :])
                if emit is not None:
                    return emit._replace(place=id.decode())
            return self._readEmit(path, id.decode(), self._body(data))
        reader = self._kept.get(number)
        return None if isOwn or reader is None else reader(path, self._body(data))

    def _body(self, data: bytes) -> Any:
        return (
            self._json.decode(data.decode()) if data[:1] == b"{" else unpacked(b64decode(data, validate=True))
        )

    def _readEmit(self, path: str, id: str, data: Any) -> Emit | None:
        fields, options = data["packet"], data["opts"]
        if fields.get("id") is not None or data.get("requestId") is not None:
            # An event of emit() with an ack, for a client of its sender.  A client that has come here
            # meanwhile would ack to a server that has not asked.
            return None
        packet = readPacket({**fields, "nsp": path})
        volatile = readFlag(options, "volatile") is True
        return Emit(readTarget(path, options), packet, None, volatile, place=id)

    def readEvent(self, path: str, entry: bytes) -> Emit | None:
        """
        Read an entry of a stream, also one of this server's own.

        :return: ``None`` if it is no event that clients may have missed: none at all, a volatile one, or one
            that wants an ack.
        :raises PacketError: if it is broken.
        """
        try:
            id, _, type, data = entry.split(b" ", 3)
            if int(type) != _Type.EMIT:
                return None
            emit = self._readEmit(path, id.decode(), self._body(data))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise PacketError("not an entry of Node's Streams adapter") from None
        return None if emit is None or emit.volatile else emit

    def _readAsk(self, path: str, uid: str, data: Any) -> Message | None:
        options = data["opts"]
        packet = readPacket({**data["packet"], "nsp": path})
        request = readText(data["requestId"])
        return Ask(readTarget(path, options), packet, uid, request, readTimeout(options))

    def _readTell(self, path: str, uid: str, data: Any) -> Message | None:
        if path != "/":
            return None  # Node has these events in each namespace, txrealtime only in "/"
        event = checkedData(PacketType.EVENT, data["packet"], False)
        request = data.get("requestId")
        return Tell(event, uid, None if request is None else readText(request))

    def _readReply(self, type: int, data: Any) -> Message | None:
        request = readText(data["requestId"])
        if type == _Type.SOCKETS:
            people = [readPerson(each) for each in data["sockets"]]
            return Reply(None, request, "", len(people), people)
        if type == _Type.COUNT:
            return Reply(None, request, "", readNumber(data["clientCount"]))
        if type == _Type.ACK:
            return Reply(None, request, "", None, [data.get("packet")])
        if type == _Type.TOLD:
            return Reply(None, request, "", 1, [data.get("packet")])
        raise PacketError("a response of an unknown kind")
