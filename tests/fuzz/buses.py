"""
Fuzz targets for the decoder of each dialect: messages of the bus, on any of its topics.

The first byte is a topic's place in :data:`TOPICS`, the rest is the message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from txrealtime.cluster.dialects.interfaces import Dialect, Unsupported
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
)
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.cluster.dialects.nodejs import NodeDialect
from txrealtime.cluster.dialects.pythonsocketio import PythonSocketIODialect
from txrealtime.engineio import packet as engineio
from txrealtime.errors import PacketError
from txrealtime.socketio.packet import Packet, PacketType
from txrealtime.socketio.presence import Entry

__all__ = ["TOPICS", "bus", "seeds"]

_OURS, _THEIRS = "a" * 20, "b" * 20


def _dialects(uid: str) -> list[Dialect]:
    return [NativeDialect(uid), PythonSocketIODialect(uid), NodeDialect(uid)]


_OURS_ALONE: Final = (Alive, Gone, Track, Roll, RosterPage, RosterNumbers)
"The messages that the native dialect alone can carry."

TOPICS: Final = [
    (dialect, topic.name)
    for dialect in _dialects(_OURS)
    for topic in (*dialect.topics, *dialect.topicsOf("/"), dialect.topicOf("/", "red"))
    if topic is not None
]
"The dialects as one server speaks them, each with its topics."


def bus(data: bytes) -> None:
    """A message from another server, or from whoever else can write to the bus."""
    dialect, topic = TOPICS[(data[0] if data else 0) % len(TOPICS)]
    with contextlib.suppress(PacketError):
        message = dialect.read(topic, data[1:])
        assert message is None or isinstance(message, Message)


def seeds() -> Iterator[bytes]:
    """Yield messages that another server may send."""
    target = Target("/", ("red",), frozenset(["muted"]))
    event = Packet(PacketType.EVENT, "/", ["say", "hello", b"\0\xff"])
    entry = Entry("red", "id", "key", '{"nick":"Ann"}', 7)
    question = Ask(target, event, _OURS, "1", 2.0)
    messages: list[Message] = [
        Emit(
            target,
            event,
            [engineio.message('51-["say",{"_placeholder":true,"num":0}]'), engineio.message(b"x")],
        ),
        Emit(Target("/"), event._replace(data=["say"]), [engineio.message('2["say"]')]),
        Join(target, ("blue",)),
        Leave(target, ("blue",)),
        Disconnect(Target("/"), True),
        Ask(target, event, _THEIRS, "2", 2.0),
        Fetch(Target("/"), _THEIRS, "3"),
        Tell(["hello", 1], _THEIRS, "4"),
        Reply(question, "1", _THEIRS, 1, [(1, b"x")]),
        Reply(Fetch(target, _OURS, "5"), "5", _THEIRS, 0),
        Alive(_THEIRS, "somebody", 10.0, "json", True),
        Gone(_THEIRS),
        Track("/", _THEIRS, 1, 2, entry, True),
        Roll(["/"], _THEIRS, _OURS),
        RosterPage("/", _THEIRS, _OURS, 2, 0, False, [entry]),
        RosterNumbers(_THEIRS, {"/": 2}),
    ]
    topics = [topic for _, topic in TOPICS]
    for dialect in _dialects(_THEIRS):
        for message in messages:
            if isinstance(message, _OURS_ALONE) and not dialect.announces:
                continue
            with contextlib.suppress(Unsupported, ValueError, TypeError):
                for topic, data in dialect.write(message):
                    place = topics.index(topic) if topic in topics else 0
                    yield bytes([place]) + data
