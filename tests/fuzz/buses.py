"""
Fuzz targets for messages between servers.

``bus`` is the decoder of each dialect, on any of its topics: the first byte is a topic's place in
:data:`TOPICS`, the rest is the message.

``transfers`` is a server that hears of clients that come back, as a story of lines; the first byte of a line
says what happens:

====== ========================================================================================
byte   what happens; the rest of the line is the data
====== ========================================================================================
``q``  the other server asks: the name of the question and its words, as JSON
``r``  the other server replies to each question that waits: the value, as JSON
``c``  a client comes that was the other server's
``h``  a client comes that was this server's
``e``  an event is emitted to everybody
====== ========================================================================================
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from txrealtime import Server
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
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
    Transfer,
)
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.cluster.dialects.nodejs import NodeDialect
from txrealtime.cluster.dialects.pythonsocketio import PythonSocketIODialect
from txrealtime.engineio import packet as engineio
from txrealtime.errors import PacketError
from txrealtime.socketio.packet import Packet, PacketType
from txrealtime.socketio.presence import Entry
from txrealtime.testing import Client

__all__ = ["TOPICS", "bus", "seeds", "stories", "transfers"]

_OURS, _THEIRS = "a" * 20, "b" * 20


def _dialects(uid: str) -> list[Dialect]:
    return [NativeDialect(uid), PythonSocketIODialect(uid), NodeDialect(uid)]


_OURS_ALONE: Final = (Alive, Gone, Track, Roll, RosterPage, RosterNumbers, Transfer)
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
        Reply(Fetch(target, _OURS, "6"), "6", _THEIRS, 0, moved="cccccccc"),
        Transfer(["claim", "/", "p" * 32, None, True, "192.0.2.1"], _THEIRS, "7"),
        Reply(Transfer(["take"], _OURS, "8"), "8", _THEIRS, 1, [{"events": [], "parts": 1}]),
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
            carried = message.question if isinstance(message, Reply) else message
            if isinstance(carried, _OURS_ALONE) and not dialect.announces:
                continue
            with contextlib.suppress(Unsupported, ValueError, TypeError):
                for topic, data in dialect.write(message):
                    place = topics.index(topic) if topic in topics else 0
                    yield bytes([place]) + data


class TransferStory:
    """
    A server with clients of its own and one that the other server claims to have; nobody else is harmed.
    """

    OTHER = NativeDialect("bbbbbbbb")
    MOST_STEPS = 40

    def __init__(self) -> None:
        self.clock = Clock()
        self.hub = MemoryHub()
        self.server = Server(reactor=self.clock, recoveryWindow=10, recoverySessions=20, recoveryEvents=50)
        self.server.cluster.use(MemoryBus(self.hub))
        self.server.startService()
        self.turn(2)
        self.say(Alive("bbbbbbbb", "other", 86400.0, "JSONParser"))
        self.bystander = Client(self.server, address="192.0.2.7")
        self.bystander.connect()
        self.lost = Client(self.server)
        self.lost.connect()
        self.turn()

    def turn(self, seconds: float = 0) -> None:
        for _ in range(4):
            self.clock.advance(seconds / 4)

    def say(self, message: Message) -> None:
        for topic, data in self.OTHER.write(message):
            self.hub.deliver(topic, data)

    def play(self, step: bytes) -> None:
        kind, rest = step[:1], step[1:]
        if kind in (b"q", b"r"):
            try:
                value = json.loads(rest)
            except (ValueError, RecursionError):
                return
            self.hear(kind, value)
        elif kind == b"c":
            self.come("bbbbbbbb" + rest.decode("latin-1"))
        elif kind == b"h":
            self.lost.lose()
            with contextlib.suppress(ValueError):
                self.lost.comeBack().addErrback(lambda failure: None)
        elif kind == b"e":
            self.server.emit("news", "text")
        self.turn()

    def hear(self, kind: bytes, value: Any) -> None:
        uid = self.server.cluster.uid
        with contextlib.suppress(
            TypeError, ValueError, RecursionError
        ):  # JSON knows numbers that we do not send
            if kind == b"q" and isinstance(value, list) and value and isinstance(value[0], str):
                self.say(Transfer(value, "bbbbbbbb", "1", uid))
            elif kind == b"r":
                for request in list(self.server.cluster._conversation.questions._waiting):
                    question = Transfer(["claim"], uid, request)
                    self.say(Reply(question, request, "bbbbbbbb", 1, [value]))

    def come(self, pid: str) -> None:
        client = Client(self.server, address="192.0.2.8")
        client.connect(auth={"pid": pid}).addErrback(lambda failure: None)
        client.flush()

    def look(self) -> None:
        """Raise AssertionError if a client was harmed, or something grows without a bound."""
        assert self.bystander.isConnected(), "a client had to leave for another server's message"
        self.server.emit("still", "here")
        self.turn()
        assert ("still", "here") in self.bystander.received()
        parking = self.server._namespaces.parking
        assert parking is not None and len(parking) <= 20 and parking.store.count <= 50
        assert self.server.cluster.link is not None and self.server.cluster.link.counts.failures == 0


def transfers(data: bytes) -> None:
    """Play a story, with any log of a failure as one."""
    failures: list[str] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        story = TransferStory()
        for step in data.split(b"\n")[: TransferStory.MOST_STEPS]:
            story.play(step)
        story.look()
        story.server.stopService()
        story.turn(20)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not failures, failures


def stories() -> Iterator[bytes]:
    """Yield stories in which the other server says what servers say."""
    session = '{"id":"bbbbbbbb01234567890123456789","rooms":["red"],"data":{"a":1},"address":"192.0.2.8"}'
    owned = session.replace("{", '{"owner":"bbbbbbbb","parts":1,', 1)
    event = '["abcdefgh-1",["bbbbbbbb","txrealtime,/",1],["2[\\"news\\",1]"]]'
    for lines in (
        ["c0", f"r{owned}", 'r{"events":[' + event + '],"parts":1}', "e"],
        ["c0", 'r{"moved":"bbbbbbbb","parts":1}', f"r{owned}", "rnull"],
        [
            f'q["adopt","/",[["bbbbbbbb0",{session}]]]',
            "e",
            "c0",
            'q["carry","/",[["bbbbbbbb0",{"events":[' + event + "]}]]]",
        ],
        [
            'q["claim","/","x",null,true,"192.0.2.1"]',
            'q["take","/","x","y-1",false,"192.0.2.1"]',
            "h",
            "e",
            "h",
        ],
        [
            f'q["adopt","/",[["bbbbbbbb0",{session}]]]',
            'q["carry","/",[["bbbbbbbb0",null]]]',
            "c0",
            'q["later",1]',
        ],
    ):
        yield "\n".join(lines).encode()
