"""
Reading messages of the native dialect: from the bytes of a topic to what they say.

The bytes may come from anybody who reaches the broker, so everything in them is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from txrealtime.cluster.dialects import checks
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
    Tell,
    Track,
    Transfer,
)
from txrealtime.cluster.dialects.numbers import Numbers
from txrealtime.engineio import packet as engineio
from txrealtime.errors import PacketError, ProtocolError
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.packet import JSONParser, Packet, PacketType
from txrealtime.socketio.presence import MAX_DATA, MAX_NAME, Entry

__all__ = ["MAGIC", "MAX_HEAD", "NUMBERED", "UID_LENGTH", "NativeReader"]

MAGIC: Final = b"txr1 "
"""The beginning of each message."""

UID_LENGTH: Final = 8

_HEAD: Final = len(MAGIC) + UID_LENGTH + 1
"""The offset of the head."""

MAX_HEAD: Final = 1 << 20
"""Bytes.  The rooms of an audience are named in the head."""

NUMBERED: Final = {"emit": 7, "join": 7, "leave": 7, "disconnect": 7, "tell": 4}
"""The length of a head with a number, by the kind of message."""

_MAX_ATTACHMENTS: Final = 1 << 16

_MAX_ORDER: Final = 1 << 53


class NativeReader:
    """
    The reading half of a :class:`~txrealtime.cluster.dialects.native.NativeDialect`.

    :param uid: this server's name among servers; its own messages are passed over.
    :param numbers: the numbers of messages, which reading goes on with.
    """

    def __init__(self, uid: str, numbers: Numbers) -> None:
        self._uid = uid
        self._mine = MAGIC + uid.encode() + b" "
        self._numbers = numbers
        self._json = JSONText()
        self._parser = JSONParser()
        self._readers: dict[str, Callable[[str, list[Any], list[engineio.Packet]], Message]] = {
            "emit": self._readEmit,
            "join": lambda uid, f, parts: Join(checks.target(f), checks.rooms(checks.last(f, 4)[3])),
            "leave": lambda uid, f, parts: Leave(checks.target(f), checks.rooms(checks.last(f, 4)[3])),
            "disconnect": lambda uid, f, parts: Disconnect(
                checks.target(f), checks.typed(checks.last(f, 4)[3], bool)
            ),
            "ask": self._readAsk,
            "fetch": lambda uid, f, parts: Fetch(checks.target(f), uid, checks.name(checks.last(f, 4)[3])),
            "tell": self._readTell,
            "transfer": self._readTransfer,
            "reply": self._readReply,
            "alive": self._readAlive,
            "gone": self._readGone,
            "track": self._readTrack,
            "roll": lambda uid, f, parts: Roll(checks.rooms(self._listed(parts)), uid),
            "page": self._readPage,
            "rosters": self._readRosterNumbers,
        }

    def read(self, topic: str, data: bytes) -> Message | None:
        """Decode a message: see :meth:`~txrealtime.cluster.dialects.interfaces.Dialect.read`."""
        if data.startswith(self._mine):
            return None
        end = data.find(b"\n", _HEAD, _HEAD + MAX_HEAD)
        if not data.startswith(MAGIC) or data[_HEAD - 1 : _HEAD] != b" " or end < 0:
            raise PacketError(f"not a message of the form {MAGIC.decode().strip()}")
        try:
            uid = data[len(MAGIC) : _HEAD - 1].decode("ascii")
            head = self._json.decode(data[_HEAD:end].decode())
            kind, sizes = head[0], head[-1]
            reader = self._readers.get(kind)
            if reader is None:
                raise PacketError(f"a message of an unknown kind, {str(kind)[:20]!r}")
            number = None
            if len(head) == NUMBERED.get(kind):
                number = head.pop(-2)
                number = checks.name(number) if isinstance(number, str) else checks.number(number)
            self._numbers.latest = None if number is None else [uid, topic, number]
            message = reader(uid, head[1:-1], checks.parts(data, end + 1, sizes))
            if isinstance(number, int):
                self._numbers.received(topic, uid, number)
            return message
        except PacketError:
            raise
        except ProtocolError as error:
            raise PacketError(str(error)) from None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            # A hostile head can fail in very many ways.  The fuzz tests show that these are all.
            raise PacketError("a message with a malformed head") from None

    def _readEmit(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        if not parts:
            raise PacketError("an event without its packet")
        flag = checks.last(fields, 4)[3]
        if flag.__class__ is int and flag:  # not volatile, and kept in the sender's log
            return Emit(checks.target(fields), None, parts, False, checks.number(flag))
        return Emit(checks.target(fields), None, parts, checks.typed(flag, bool))

    def _readAsk(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        packet = self._packetOf(parts, PacketType.EVENT)
        timeout = checks.typed(checks.last(fields, 5)[4], (int, float))
        return Ask(checks.target(fields), packet, uid, checks.name(fields[3]), float(timeout))

    def _readTell(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        request = checks.last(fields, 1)[0]
        return Tell(
            self._packetOf(parts, PacketType.EVENT).data,
            uid,
            None if request is None else checks.name(request),
        )

    def _readTransfer(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        return Transfer(
            self._packetOf(parts, PacketType.EVENT).data, uid, checks.name(checks.last(fields, 1)[0])
        )

    def _readReply(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        request, total, lapsed, form = checks.last(fields, 4)
        read = _READERS[form]
        values = [read(value) for value in self._packetOf(parts, PacketType.ACK).data] if parts else []
        if total is not None:
            checks.number(total)
        moved = ""
        if form == "moved":
            (moved,) = values
            values = []
        return Reply(None, checks.name(request), uid, total, values, checks.number(lapsed), moved)

    def _readAlive(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        if len(fields) > 4 and isinstance(fields[-1], dict):
            self._numbers.heard(uid, fields.pop())
        publishes, *hears = checks.rooms(fields.pop()) if len(fields) == 5 else ("", "")
        name, lease, parser, asks = checks.last(fields, 4)
        lease = float(checks.typed(lease, (int, float)))
        if not 0 < lease <= 86400:
            raise PacketError("a lease that is not above 0 and at most 86400 seconds")
        return Alive(
            uid,
            checks.name(name),
            lease,
            checks.name(parser),
            checks.typed(asks, bool),
            publishes=publishes,
            hears=tuple(hears),
        )

    def _readGone(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        if fields:
            self._numbers.heard(uid, checks.last(fields, 1)[0])
        self._numbers.gone(uid)
        return Gone(uid)

    def _readTrack(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        path, before, number, isPresent = checks.last(fields, 4)
        return Track(
            checks.typed(path, str),
            uid,
            checks.number(before),
            checks.number(number),
            self._entry(self._listed(parts)),
            checks.typed(isPresent, bool),
        )

    def _readPage(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        path, number, page, more = checks.last(fields, 4)
        entries = [self._entry(entry) for entry in self._listed(parts)]
        return RosterPage(
            checks.typed(path, str),
            uid,
            self._uid,
            checks.number(number),
            checks.number(page),
            checks.typed(more, bool),
            entries,
        )

    def _readRosterNumbers(self, uid: str, fields: list[Any], parts: list[engineio.Packet]) -> Message:
        return RosterNumbers(
            uid, {checks.typed(path, str): checks.number(number) for path, number in self._listed(parts)}
        )

    def _listed(self, parts: list[engineio.Packet]) -> list[Any]:
        (part,) = parts
        listed: list[Any] = checks.typed(self._json.decode(checks.typed(part.data, str)), list)
        return listed

    def _entry(self, fields: list[Any]) -> Entry:
        room, id, key, text, order = fields
        for name in (room, id, key):
            if len(checks.typed(name, str)) > MAX_NAME:
                raise PacketError("an entry of presence with a name that is too long")
        if len(checks.typed(text, str)) > MAX_DATA or checks.number(order) >= _MAX_ORDER:
            raise PacketError("an entry of presence that is too large")
        checks.typed(self._json.decode(text), dict)
        return Entry(room, id, key, text, order)

    def _packetOf(self, parts: list[engineio.Packet], type: PacketType) -> Packet:
        decoder = self._parser.decoder(_MAX_ATTACHMENTS)
        packet = None
        for part in parts:
            if packet is not None:
                raise PacketError("a packet with too many parts")
            packet = decoder.feed(part.data)
        if packet is None or packet.type is not type:
            raise PacketError("a packet that is incomplete, or of the wrong type")
        return packet


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "acks": checks.ack,
    "people": checks.person,
    "answers": lambda value: value,
    "moved": checks.name,
}
