"""
The results of events that are handled once: in memory, or in Redis for several servers.

A value is either the claim of an event that is being handled, or its result; :mod:`txrealtime.cluster.once`
writes both.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from txrealtime.cluster.bus.address import Address
from txrealtime.socketio.packet import JSONParser, Packet, PacketType

__all__ = ["MISSING", "NOTHING", "IResults", "MemoryResults", "RedisResults", "packed", "unpacked"]

MISSING: Final = object()
"""The result of an event that is not acked."""

NOTHING: Final = b""
"""The same, packed."""

_OVERHEAD: Final = 250
_MOST_ATTACHMENTS: Final = 1 << 16
_PART: Final = struct.Struct("!?I")
_parser: Final = JSONParser()


class IResults(Protocol):
    """
    A place for claims and results, by name.  Each method returns a Deferred, which may fail.

    All are called with the clock first.
    """

    def claim(self, clock: IReactorTime, name: str, mine: bytes, lease: float) -> Deferred[bytes | None]:
        """
        Put a claim, unless there is a value.

        :param lease: seconds after which the claim goes.
        :return: the value that is there, or ``None`` if the claim was put.
        """

    def find(self, clock: IReactorTime, name: str) -> Deferred[bytes | None]:
        """Return the value, or ``None``."""

    def renew(self, clock: IReactorTime, name: str, mine: bytes, lease: float) -> Deferred[Any]:
        """Extend a claim, if it is still there."""

    def finish(
        self, clock: IReactorTime, name: str, mine: bytes, result: bytes, seconds: float
    ) -> Deferred[Any]:
        """Put a result in the place of a claim or of nothing, for some seconds."""

    def release(self, clock: IReactorTime, name: str, mine: bytes) -> Deferred[Any]:
        """Remove a claim, if it is still there."""


class MemoryResults:
    """
    Results in the memory of this process.

    :param most: the most results.
    :param mostBytes: the most bytes that they take.  The oldest go first.
    :ivar bytes: the bytes that they take.
    """

    def __init__(self, most: int = 10_000, mostBytes: int = 16_000_000) -> None:
        self.bytes = 0
        self._most = most
        self._mostBytes = mostBytes
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def claim(self, clock: IReactorTime, name: str, mine: bytes, lease: float) -> Deferred[bytes | None]:
        found = self._find(clock, name)
        if found is None:
            self._put(clock, name, mine, lease)
        return succeed(found)

    def find(self, clock: IReactorTime, name: str) -> Deferred[bytes | None]:
        return succeed(self._find(clock, name))

    def renew(self, clock: IReactorTime, name: str, mine: bytes, lease: float) -> Deferred[Any]:
        if self._find(clock, name) == mine:
            self._put(clock, name, mine, lease)
        return succeed(None)

    def finish(
        self, clock: IReactorTime, name: str, mine: bytes, result: bytes, seconds: float
    ) -> Deferred[Any]:
        if self._find(clock, name) in (None, mine):
            self._put(clock, name, result, seconds)
        return succeed(None)

    def release(self, clock: IReactorTime, name: str, mine: bytes) -> Deferred[Any]:
        if self._find(clock, name) == mine:
            self._remove(name)
        return succeed(None)

    def _find(self, clock: IReactorTime, name: str) -> bytes | None:
        value, until = self._values.get(name, (None, 0.0))
        return value if until > clock.seconds() else None

    def _remove(self, name: str) -> None:
        value, _ = self._values.pop(name)
        self.bytes -= len(value) + _OVERHEAD

    def _put(self, clock: IReactorTime, name: str, value: bytes, seconds: float) -> None:
        values, now = self._values, clock.seconds()
        if name in values:
            self._remove(name)
        values[name] = (value, now + seconds)
        self.bytes += len(value) + _OVERHEAD
        while values:
            oldest, (_, until) = next(iter(values.items()))
            if until > now and len(values) <= self._most and self.bytes <= self._mostBytes:
                break
            self._remove(oldest)


_CLAIM: Final = """
local found = redis.call('GET', KEYS[1])
if not found then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return found"""

_RENEW: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end"""

_FINISH: Final = """
local found = redis.call('GET', KEYS[1])
if not found or found == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end"""

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"""


class RedisResults:
    """
    Results in a Redis, for all servers that use it.

    Redis bounds them by its own ``maxmemory``; each goes when its time is over.

    :param url: the URL, as for a bus: ``redis://``, ``rediss://``, ``redis+unix://``, ``redis+sentinel://``.
    :param prefix: the beginning of the names of the keys.
    :raises ValueError: if the URL is not that of a Redis.
    """

    def __init__(self, url: str, prefix: str = "txrealtime:once:") -> None:
        address = Address.fromURL(url)
        if not address.scheme.startswith("redis"):
            raise ValueError(f"results are kept in a Redis, not in {address.scheme}://")
        self._address = address
        self._prefix = prefix
        self._commands: Any = None

    def _ask(self, clock: IReactorTime, *command: str | bytes) -> Deferred[Any]:
        if self._commands is None:
            # txredisapi imports the reactor, and may not be installed where memory is enough.
            from txrealtime.cluster.bus.rediscommands import RedisCommands

            self._commands = RedisCommands(self._address)
        asked: Deferred[Any] = Deferred.fromCoroutine(self._commands.ask(clock, *command))
        return asked

    def _run(self, clock: IReactorTime, script: str, name: str, *args: bytes | str) -> Deferred[Any]:
        return self._ask(clock, "EVAL", script, "1", self._prefix + name, *args)

    def claim(self, clock: IReactorTime, name: str, mine: bytes, lease: float) -> Deferred[bytes | None]:
        return self._run(clock, _CLAIM, name, mine, _milliseconds(lease))

    def find(self, clock: IReactorTime, name: str) -> Deferred[bytes | None]:
        return self._ask(clock, "GET", self._prefix + name)

    def renew(self, clock: IReactorTime, name: str, mine: bytes, lease: float) -> Deferred[Any]:
        return self._run(clock, _RENEW, name, mine, _milliseconds(lease))

    def finish(
        self, clock: IReactorTime, name: str, mine: bytes, result: bytes, seconds: float
    ) -> Deferred[Any]:
        return self._run(clock, _FINISH, name, mine, result, _milliseconds(seconds))

    def release(self, clock: IReactorTime, name: str, mine: bytes) -> Deferred[Any]:
        return self._run(clock, _RELEASE, name, mine)

    def close(self) -> None:
        """Disconnect.  The next event connects again."""
        if self._commands is not None:
            self._commands.close()


def _milliseconds(seconds: float) -> str:
    return str(max(round(seconds * 1000), 1))


def packed(result: Any) -> bytes:
    """
    Write the result of a handler, as its ack has it.

    :raises TypeError: if a value cannot be sent.
    :raises ValueError: if a value cannot be sent.
    """
    values = [] if result is None else list(result) if isinstance(result, tuple) else [result]
    parts = []
    for part in _parser.encode(Packet(PacketType.ACK, "/", values, 0)):
        data = part.encode() if isinstance(part, str) else part
        parts += [_PART.pack(isinstance(part, str), len(data)), data]
    return b"".join(parts)


def unpacked(data: bytes) -> Any:
    """Read a result; :data:`MISSING` for none."""
    if not data:
        return MISSING
    decoder, at, packet = _parser.decoder(_MOST_ATTACHMENTS), 0, None
    while at < len(data):
        isText, size = _PART.unpack_from(data, at)
        at += _PART.size + size
        part = data[at - size : at]
        packet = decoder.feed(part.decode() if isText else part)
    assert packet is not None
    values = packet.data
    return None if not values else values[0] if len(values) == 1 else tuple(values)
