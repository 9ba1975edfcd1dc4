"""
The forms of a message as an entry of a stream.

:class:`~txrealtime.cluster.bus.redisstreams.RedisStreamsBus` and the emitter that blocks write and read
entries with one of them.  The publisher's name and a number follow in a field ``n`` of their own, which a
form need not know.

Servers of txrealtime have one stream::

    t <topic> p <payload>

Node's servers with ``@socket.io/redis-streams-adapter`` have one or several, by namespace, and use Redis's
pub/sub beside them for what need not be kept::

    uid <server> nsp <namespace> type <number> data <JSON, or MessagePack in base64>

So the topic of such an entry is the path of its namespace, and its payload ``<server> <number> <data>``; once
it is read, its id comes first.  Any other topic is a channel of the pub/sub.
"""

from __future__ import annotations

from typing import Protocol

from txrealtime.cluster.bus.address import Address

__all__ = ["Entries", "NativeEntries", "NodeEntries", "entriesOf"]


class Entries(Protocol):
    """
    A form of entries.

    :ivar streams: the names of all streams that servers read.
    """

    streams: list[str]

    def streamOf(self, topic: str) -> str | None:
        """Return the stream for the messages of a topic; ``None`` for Redis's pub/sub."""

    def write(self, topic: str, payload: bytes) -> list[bytes]:
        """Return the fields of an entry: names and values in turn."""

    def read(self, id: bytes, fields: list[bytes]) -> tuple[bytes, bytes] | None:
        """Return the topic and the payload of an entry; ``None`` if it is none of this form."""


class NativeEntries:
    """
    Entries of txrealtime: the topic as ``t``, the payload as ``p``.

    :param stream: the name of the stream.
    """

    def __init__(self, stream: str) -> None:
        self.streams = [stream]

    def streamOf(self, topic: str) -> str | None:
        return self.streams[0]

    def write(self, topic: str, payload: bytes) -> list[bytes]:
        return [b"t", topic.encode("utf-8", "surrogatepass"), b"p", payload]

    def read(self, id: bytes, fields: list[bytes]) -> tuple[bytes, bytes] | None:
        return (fields[1], fields[3]) if len(fields) > 3 else None


class NodeEntries(NativeEntries):
    """
    Entries of Node's servers; heartbeats are native ones, which Node's servers ignore.

    :param stream: the adapter's option ``streamName``.
    :param count: its option ``streamCount``.
    """

    def __init__(self, stream: str, count: int = 1) -> None:
        super().__init__(stream)
        self._stream = stream
        self._count = count
        if count > 1:
            # Node's servers write to streams with a negative number too, and do not read these.
            self.streams = [f"{stream}-{number}" for number in range(1 - count, count)]

    def streamOf(self, topic: str) -> str | None:
        if not topic.startswith("/"):
            return None
        if self._count == 1:
            return self._stream
        # Node's servers take an entry of any stream that they read, so the sign may be left out.
        return f"{self._stream}-{abs(self.numberOf(topic))}"

    def isWhole(self, topic: str) -> bool:
        """Return true if Node's servers write the entries of a namespace where all servers read them."""
        return self._count == 1 or self.numberOf(topic) >= 0

    def numberOf(self, path: str) -> int:
        """Return the number of the stream to which Node's servers write the entries of a namespace."""
        units = path.encode("utf-16-le", "surrogatepass")
        hashed = 0
        for low, high in zip(units[::2], units[1::2], strict=True):
            hashed = (hashed * 31 + low + 256 * high) & 0xFFFF_FFFF
        if hashed >= 1 << 31:
            return -(((1 << 32) - hashed) % self._count)
        return hashed % self._count

    def write(self, topic: str, payload: bytes) -> list[bytes]:
        if not topic.startswith("/"):
            return super().write(topic, payload)
        uid, type, data = payload.split(b" ", 2)
        return [b"uid", uid, b"nsp", topic.encode(), b"type", type, b"data", data]

    def read(self, id: bytes, fields: list[bytes]) -> tuple[bytes, bytes] | None:
        if fields[0] == b"t":
            return super().read(id, fields)
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        try:
            head = b"%b %b %b " % (id, named[b"uid"], named[b"type"])
            return named[b"nsp"], head + named.get(b"data", b"")
        except KeyError:
            return None


def entriesOf(address: Address) -> Entries:
    """Return the form of entries of an address."""
    if address.isNode:
        return NodeEntries(address.stream, address.streamCount)
    return NativeEntries(address.stream)
