"""
Streams in memory: a hub that keeps entries and keys, as a Redis does, for Node's servers and for the native
dialect.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from tests.clusters import FaultyHub
from txrealtime.cluster import keeping, nodereturns
from txrealtime.cluster.bus.entries import NativeEntries, NodeEntries
from txrealtime.cluster.bus.interfaces import IKeepingBus, IKeepingPublisher, IPublisher, IPublisherOwner
from txrealtime.cluster.bus.memory import MemoryBus, _Publisher
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.errors import BusError

NODE_STREAMS = DialectChoice("node-streams", "socket.io")

ENTRIES = NodeEntries("socket.io")


class StreamsHub(FaultyHub):
    """
    A Redis with one stream.

    :ivar entries: the entries: id, topic and payload.
    :ivar keys: the values of the keys.
    :ivar asked: the commands so far.
    :ivar now: the time by its clock, in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[bytes, bytes] = {}
        self.asked: list[list[bytes]] = []
        self.now = 1_000
        self.last = int(time.time() * 1000)
        self.entries: list[tuple[int, str, bytes]] = [(self.last, "a heartbeat", b"1")]
        self.added = 1

    def deliver(self, topic: str, payload: bytes) -> None:
        if topic.startswith("/"):
            self.last += 1
            self.added += 1
            self.entries.append((self.last, topic, payload))
            payload = b"%d-0 %b" % (self.last, payload)
        super().deliver(topic, payload)

    def trim(self) -> None:
        """Throw away all entries but the last."""
        del self.entries[:-1]

    def command(self, *words: str | bytes) -> Any:
        name, *rest = [word if isinstance(word, bytes) else word.encode() for word in words]
        self.asked.append([name, *rest])
        if name == b"TIME":
            return [b"%d" % self.now, b"0"]
        if name == b"GET":
            return self.keys.get(rest[0])
        if name == b"SET":
            self.keys[rest[0]] = rest[1]
            return "OK"
        if name == b"EVAL":
            return self._take(*rest[2:]) if rest[0] == nodereturns._TAKE.encode() else self._write(*rest[2:])
        if name == b"XINFO":
            state = [b"length", len(self.entries), b"last-generated-id", b"%d-0" % self.last]
            return [*state, b"entries-added", self.added, b"first-entry", [b"%d-0" % self.entries[0][0], []]]
        assert name == b"XRANGE"
        start, end = int(rest[1][1:].partition(b"-")[0]), int(rest[2].partition(b"-")[0])
        found = [
            [b"%d-0" % id, ENTRIES.write(topic, payload)]
            for id, topic, payload in self.entries
            if start < id <= end
        ]
        return found[: int(rest[4])]

    def _take(self, key: bytes, value: bytes, until: bytes) -> int:
        if self.now > int(until) or self.keys.get(key) != value:
            return 0
        del self.keys[key]
        return 1

    def _write(self, key: bytes, last: bytes, value: bytes, age: bytes, mayBeMissing: bytes) -> int:
        present = self.keys.get(key)
        if last and present != last and (present is not None or not mayBeMissing):
            return 0
        if value:
            self.keys[key] = value
        else:
            self.keys.pop(key, None)
        return 1


class SlowHub(StreamsHub):
    """
    A Redis that does one thing at a time.

    :ivar cost: the seconds that an entry of a page takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cost = 0.0
        self._took = 0.0
        self._line: deque[Callable[[], object]] = deque()

    def later(self, reactor: IReactorTime, act: Callable[[], object]) -> None:
        def work() -> None:
            self._took = 0.0
            self._line[0]()
            took, self._took = self._took, 0.0
            reactor.callLater(took, ended)

        def ended() -> None:
            self._line.popleft()
            if self._line:
                work()

        self._line.append(act)
        if len(self._line) == 1:
            reactor.callLater(0, work)

    def command(self, *words: str | bytes) -> Any:
        reply = super().command(*words)
        if words[0] == "XRANGE":
            self._took = self.cost * len(reply)
        return reply


@implementer(IKeepingBus)
class StreamsBus(MemoryBus):
    """A bus to such a hub."""

    entries = ENTRIES
    stream = "socket.io"
    hub: StreamsHub

    def streamOf(self, topic: str) -> str | None:
        return ENTRIES.streamOf(topic)

    def placeOf(self, lost: Callable[[str], object], topic: str = "") -> str:
        return f"{self.hub.last}.0"

    def openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> Deferred[IPublisher]:
        return self.hub.opened(reactor, KeepingPublisher(self.hub, reactor, owner), self.hub.publishers)


@implementer(IKeepingPublisher)
class KeepingPublisher(_Publisher):
    """A connection whose commands fail when it ends, before its owner knows of the end."""

    def __init__(self, hub: FaultyHub, reactor: IReactorTime, owner: IPublisherOwner) -> None:
        super().__init__(hub, reactor, owner)
        self._commands: list[Deferred[Any]] = []

    def command(self, *words: str | bytes) -> Deferred[Any]:
        replied: Deferred[Any] = Deferred()

        def take() -> None:
            if replied not in self._commands:
                return
            self._commands.remove(replied)
            try:
                replied.callback(self._hub.command(*words))  # type: ignore[attr-defined]
            except BusError as error:
                replied.errback(error)

        self._commands.append(replied)
        self._hub.later(self._reactor, take)
        return replied

    def abort(self) -> None:
        commands, self._commands = self._commands, []
        for replied in commands:
            replied.errback(BusError("the connection was ended"))
        super().abort()


class NativeHub(FaultyHub):
    """
    A Redis with the stream of the native dialect.

    :ivar entries: the entries: id, topic and payload.
    :ivar keys: the values of the keys.
    :ivar asked: the commands so far.
    :ivar answers: called before each command that reads or writes; may raise.
    :ivar now: the time by its clock, in seconds.
    """

    ENTRIES = NativeEntries("txrealtime:stream")

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[bytes, bytes] = {}
        self.asked: list[list[bytes]] = []
        self.answers: Callable[[list[bytes]], object] = lambda words: None
        self.now = 1_000
        self.last = 1_000
        self.entries: list[tuple[int, str, bytes]] = []
        self.added = 0

    def deliver(self, topic: str, payload: bytes) -> None:
        self.last += 1
        self.added += 1
        self.entries.append((self.last, topic, payload))
        super().deliver(topic, payload)

    def command(self, *words: str | bytes) -> Any:
        command = [word if isinstance(word, bytes) else word.encode() for word in words]
        self.asked.append(command)
        self.answers(command)
        return getattr(self, command[0].decode().lower())(*command[1:])

    def get(self, key: bytes) -> bytes | None:
        return self.keys.get(key)

    def time(self) -> list[bytes]:
        return [b"%d" % self.now, b"0"]

    def eval(self, script: bytes, count: bytes, key: bytes, *words: bytes) -> int:
        present = self.keys.get(key)
        if script == keeping._TAKE.encode():
            if self.now > int(words[3]) or present != words[0]:
                return 0
            self.keys[key] = words[1]
            return 1
        if present is not None and present[:8] != words[0]:
            return 0
        if words[1]:
            self.keys[key] = words[0] + b" " + words[1]
        else:
            self.keys.pop(key, None)
        return 1

    def xinfo(self, what: bytes, stream: bytes) -> list[Any]:
        state = [b"length", len(self.entries), b"last-generated-id", b"%d-0" % self.last]
        state += [b"entries-added", self.added]
        return state + ([b"first-entry", [b"%d-0" % self.entries[0][0], []]] if self.entries else [])

    def xrange(self, stream: bytes, low: bytes, high: bytes, count: bytes, most: bytes) -> list[Any]:
        start, end = int(low[1:].partition(b"-")[0]), int(high.partition(b"-")[0])
        found = [
            [b"%d-0" % id, self.ENTRIES.write(topic, payload)]
            for id, topic, payload in self.entries
            if start < id <= end
        ]
        return found[: int(most)]


@implementer(IKeepingBus)
class NativeBus(MemoryBus):
    """A bus to such a hub."""

    entries = NativeHub.ENTRIES
    stream = "txrealtime:stream"
    hub: NativeHub

    def streamOf(self, topic: str) -> str | None:
        return self.stream

    def placeOf(self, lost: Callable[[str], object], topic: str = "") -> str:
        return f"{self.hub.last}.0"

    def openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> Deferred[IPublisher]:
        return self.hub.opened(reactor, KeepingPublisher(self.hub, reactor, owner), self.hub.publishers)
