"""
The dialect of python-socketio's managers, which Flask-SocketIO uses too.

Each message is a JSON object on one channel that all servers read.  Bytes among the arguments of an event are
placeholders, followed by base64 (python-socketio, ``pubsub_manager.py``, since 5.14).  Earlier versions
pickled such messages, which are ignored.

The dialect has fewer messages than the native one:

- Events go to everybody, to rooms, or to rooms without some sockets, but cannot leave out rooms.
- Sockets join, leave and are disconnected one by one, or a whole room is closed.
- One socket can be asked for an ack, a room cannot.
- Sockets cannot be fetched.
- Servers have no events of their own, and do not know each other.

All else raises :exc:`~txrealtime.cluster.dialects.interfaces.Unsupported`.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

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
from txrealtime.errors import PacketError
from txrealtime.socketio.acks import ackValue
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.packet import Packet, PacketType, checkedData, filled

__all__ = ["PythonSocketIODialect"]

# The id of a socket at python-socketio's servers and at this one, old clients included.
_ID: Final = re.compile(r"(/[^#]*#)?[A-Za-z0-9_-]{20}(\.[a-z0-9-]{1,16})?")

_TIMEOUT: Final = 600.0
"""Seconds to wait for an ack that another server wants.  Its question does not say how long it waits."""


class PythonSocketIODialect:
    """
    The dialect of python-socketio, of one server.

    :param uid: this server's name among servers.
    :param channel: their option, by default ``socketio``, in Flask-SocketIO ``flask-socketio``.
    """

    name: Final = "python-socketio"
    announces: Final = False
    hasPresence: Final = False
    pageSize: Final = 1 << 62
    numbers: Final = None
    idPrefix: Final = ""

    def __init__(self, uid: str, channel: str = "socketio") -> None:
        self.uid = uid
        self._channel = channel
        self.topics = (Topic(channel),)
        self._json = JSONText()
        self._writers: dict[type, Callable[[Any], list[str]]] = {
            Emit: lambda emit: [self._event(emit.target, emit.packet, None)],
            Ask: self._writeAsk,
            Reply: self._writeReply,
            Join: lambda join: self._moves("enter_room", join.target, join.rooms),
            Leave: self._writeLeave,
            Disconnect: self._writeDisconnect,
            Fetch: lambda fetch: self._lacks("fetch()"),
            Tell: lambda tell: self._lacks("events between servers"),
        }
        self._readers: dict[str, Callable[[dict[str, Any]], Message]] = {
            "emit": self._readEmit,
            "callback": self._readCallback,
            "disconnect": lambda m: Disconnect(_one(m), False),
            "enter_room": lambda m: Join(_one(m), (_room(m["room"]),)),
            "leave_room": lambda m: Leave(_one(m), (_room(m["room"]),)),
            "close_room": lambda m: Leave(Target(_path(m), (_room(m["room"]),)), (_room(m["room"]),)),
        }

    @staticmethod
    def _lacks(what: str) -> NoReturn:
        raise Unsupported(f"the dialect python-socketio has no {what}")

    def topicsOf(self, path: str) -> Sequence[Topic]:
        return ()

    def topicOf(self, path: str, room: str) -> Topic | None:
        return None

    def pathOf(self, topic: str) -> str | None:
        return None  # nothing is numbered

    def respondents(self, question: Ask | Fetch | Tell | Transfer) -> Respondents:
        # One: the server of the socket that is asked.
        return Respondents({}, unnamed=1)

    # -- writing ---------------------------------------------------------------------

    def write(self, message: Message) -> Sequence[tuple[str, bytes]]:
        return [(self._channel, text.encode()) for text in self._writers[type(message)](message)]

    def _object(self, **fields: Any) -> str:
        text, attachments = self._json.encode({"host_id": self.uid, **fields})
        if attachments:
            raise TypeError("cannot send bytes: the dialect python-socketio has them in events only")
        return text

    def _event(self, target: Target, packet: Packet | None, callback: list[Any] | None) -> str:
        assert packet is not None
        for excluded in target.excluded:
            if not _ID.fullmatch(excluded):
                self._lacks(f"exclusion of rooms, only of sockets; {excluded!r} is not the id of one")
        event, *args = packet.data
        data, attachments = self._json.encode(args or [None])
        if attachments:
            encoded = [f'"{b64encode(attachment).decode()}"' for attachment in attachments]
            data = f"[{','.join([data, *encoded])}]"
        rooms = target.rooms
        rest = self._object(
            method="emit",
            event=event,
            binary=bool(attachments),
            namespace=target.path,
            room=None if rooms is None else rooms[0] if len(rooms) == 1 else list(rooms),
            skip_sid=list(target.excluded) or None,
            callback=callback,
        )
        return f'{rest[:-1]},"data":{data}}}'

    def _writeAsk(self, ask: Ask) -> list[str]:
        rooms = ask.target.rooms
        if rooms is None or len(rooms) != 1 or not _ID.fullmatch(rooms[0]):
            self._lacks("way to ask all in a room, only one socket by its id")
        number = int(ask.request.removeprefix(self.uid))
        return [self._event(ask.target, ask.packet, [*rooms, ask.target.path, number])]

    def _writeReply(self, reply: Reply) -> list[str]:
        question = reply.question
        if not isinstance(question, Ask):
            return []
        room, path, number = self._json.decode(question.request)
        return [
            self._object(
                method="callback",
                host_id=question.sender,
                sid=room,
                namespace=path,
                id=number,
                args=_args(value),
            )
            for value in reply.values
        ]

    def _moves(self, method: str, target: Target, rooms: Sequence[str]) -> list[str]:
        return [
            self._object(method=method, sid=sid, room=room, namespace=target.path)
            for sid in self._sockets(target)
            for room in rooms
        ]

    def _sockets(self, target: Target) -> Sequence[str]:
        """Return the ids of an audience that is named by the ids of its sockets."""
        rooms = target.rooms
        if rooms is None or target.excluded or not all(_ID.fullmatch(room) for room in rooms):
            self._lacks(
                "join(), leave() or disconnect() of an audience, only of sockets by their ids; "
                "and a room can leave(), when that is the room to leave"
            )
        return rooms or ()

    def _writeLeave(self, leave: Leave) -> list[str]:
        if leave.target.rooms == leave.rooms and len(leave.rooms) == 1 and not leave.target.excluded:
            return [self._object(method="close_room", room=leave.rooms[0], namespace=leave.target.path)]
        return self._moves("leave_room", leave.target, leave.rooms)

    def _writeDisconnect(self, disconnect: Disconnect) -> list[str]:
        if disconnect.close:
            self._lacks("disconnect(close=True)")
        path = disconnect.target.path
        return [
            self._object(method="disconnect", sid=sid, namespace=path)
            for sid in self._sockets(disconnect.target)
        ]

    # -- reading ---------------------------------------------------------------------

    def read(self, topic: str, data: bytes) -> Message | None:
        try:
            message = self._json.decode(data.decode())
            method = message["method"]
            isOwn = message.get("host_id") == self.uid
            if isOwn is not (method == "callback"):
                return None
            return self._readers[method](message)
        except PacketError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise PacketError("not a message of python-socketio") from None

    def _readEmit(self, message: dict[str, Any]) -> Message:
        args = message["data"]
        if message.get("binary"):
            data, *attachments = args
            args = filled(data, [b64decode(text, validate=True) for text in attachments])
        if not isinstance(args, list):
            args = [args]
        elif args == [None]:
            args = []
        path = _path(message)
        packet = Packet(
            PacketType.EVENT, path, checkedData(PacketType.EVENT, [message["event"], *args], False)
        )
        rooms, skipped, callback = (message.get(key) for key in ("room", "skip_sid", "callback"))
        target = Target(path, None if rooms is None else _rooms(rooms), frozenset(_rooms(skipped or [])))
        if callback is None:
            return Emit(target, packet, None)
        room, path, number = callback
        request, _ = self._json.encode([_room(room), _text(path), number])
        return Ask(target, packet, _text(message["host_id"]), request, _TIMEOUT)

    def _readCallback(self, message: dict[str, Any]) -> Message:
        number, args = message["id"], message["args"]
        if number.__class__ is not int or args.__class__ is not list:
            raise PacketError("a callback whose id or arguments are of the wrong type")
        return Reply(None, f"{self.uid}{number}", "", 1, [ackValue(args)])


def _args(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [] if value is None else [value]


# -- checks of decoded values: each returns its argument, or raises PacketError -------------


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise PacketError("a field that is not text, or is too long")
    return value


def _path(message: dict[str, Any]) -> str:
    return _text(message.get("namespace") or "/")


def _room(room: Any) -> str:
    # Their rooms may be numbers; here and at clients they are text.
    return str(room) if room.__class__ is int else _text(room)


def _rooms(rooms: Any) -> tuple[str, ...]:
    return tuple(_room(room) for room in rooms) if isinstance(rooms, list) else (_room(rooms),)


def _one(message: dict[str, Any]) -> Target:
    """Return the socket that a message is about."""
    return Target(_path(message), (_text(message["sid"]),))
