"""
The forms of a message as an entry of a stream.

:class:`~txrealtime.cluster.bus.redisstreams.RedisStreamsBus` and the emitter that blocks write and read
entries with one of them.  The publisher's name and a number follow in a field ``n`` of their own, which a
form need not know.
"""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["NATIVE", "Entries", "NativeEntries"]


class Entries(Protocol):
    """A form of entries."""

    def write(self, topic: str, payload: bytes) -> list[bytes]:
        """Return the fields of an entry: names and values in turn."""

    def read(self, id: bytes, fields: list[bytes]) -> tuple[bytes, bytes] | None:
        """Return the topic and the payload of an entry; ``None`` if it is none of this form."""


class NativeEntries:
    """Entries of txrealtime: the topic as ``t``, the payload as ``p``."""

    def write(self, topic: str, payload: bytes) -> list[bytes]:
        return [b"t", topic.encode("utf-8", "surrogatepass"), b"p", payload]

    def read(self, id: bytes, fields: list[bytes]) -> tuple[bytes, bytes] | None:
        return (fields[1], fields[3]) if len(fields) > 3 else None


NATIVE: Final = NativeEntries()
