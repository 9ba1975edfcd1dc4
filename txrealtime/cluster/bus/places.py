"""
The place in a stream of Redis up to which a server has read, and the entries that were trimmed before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Id", "Info", "Place", "idOf", "infoOf"]

Id = tuple[int, int]
"The id of an entry."


class Info(NamedTuple):
    """
    The state of the stream.

    :ivar added: the number of entries that were ever added; ``None`` before Redis 7.
    """

    first: Id
    last: Id
    length: int
    added: int | None

    def reaches(self, place: Id) -> bool:
        """Return true if the stream has each entry that was added after a place."""
        if place >= self.last:
            return place == self.last
        if place == (0, 0):
            return self.added in (None, self.length)
        return self.length > 0 and self.first <= place


class Place:
    """
    The place in the stream up to which one server has read.

    The stream does not tell the number of an entry.  So a comparison under traffic is over when the server
    has read as far as the stream went then: the entries that it has read are counted up to there.

    :ivar id: the id of the last entry read; ``None`` before the first connection.
    :ivar count: the number of entries up to it that were ever added; ``None`` if that is not known.
    :ivar goal: the id of the last entry of an outage.
    :ivar delivered: the id of the last entry delivered, as in ``1795884975163.0``.
    """

    def __init__(self) -> None:
        self.id: Id | None = None
        self.count: int | None = None
        self.goal: Id = (0, 0)
        self.delivered = "0.0"
        # The last entry at the time of a comparison, and the number of those up to it.
        self._ahead: tuple[Id, int] | None = None

    def opened(self, info: Info) -> int | None:
        """Called with the state of the stream on a new connection: see :meth:`compare`."""
        if self.id is None:
            self.id, self.count = info.last, info.added
            self.delivered = f"{info.last[0]}.{info.last[1]}"
        self.goal = info.last
        return self.compare(info)

    def compare(self, info: Info) -> int | None:
        """
        Compare the place with the state of the stream at the same time.

        :return: the number of entries that are gone and were not read, 0 if that is not known; ``None`` if
            there are none, or :meth:`read` tells it.
        """
        assert self.id is not None
        count, added = self.count, info.added
        if info.last < self.id:
            # Another stream, or an older state of this one.
            self.id, self.count, self._ahead = info.last, added, None
            return 0
        if added is None:
            return 0 if self.id != (0, 0) and info.first > self.id else None
        if count is not None and added < count:
            self.count, self._ahead = None, (info.last, added)
            return self._arrived(self.id, 0) or 0
        self._ahead = self._ahead or (info.last, added)
        missed = self._arrived(self.id, 0)
        before = added - info.length
        if missed is None and count is not None and count < before:
            self.count, self._ahead = before, (info.last, added)
            return before - count
        return missed

    def read(self, ids: Sequence[bytes]) -> int | None:
        """Called with the ids of entries that were read, in order: see :meth:`compare`."""
        last = idOf(ids[-1])
        self.id = last
        ahead, number = self._ahead, len(ids)
        if ahead is not None and last >= ahead[0]:
            number = sum(idOf(id) <= ahead[0] for id in ids)
        if self.count is not None:
            self.count += number
        return self._arrived(last, len(ids) - number)

    def _arrived(self, last: Id, beyond: int) -> int | None:
        """
        End a comparison if the server has read as far as the stream went then.

        :param beyond: the number of entries read behind.
        """
        ahead, count = self._ahead, self.count
        if ahead is None or last < ahead[0]:
            return None
        self._ahead, self.count = None, ahead[1] + beyond
        return ahead[1] - count if count is not None and count < ahead[1] else None


def idOf(text: bytes) -> Id:
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number)


def infoOf(reply: Any) -> Info:
    """Read the reply to XINFO STREAM; an error stands for a stream that is not there."""
    if isinstance(reply, Exception):
        return Info((0, 0), (0, 0), 0, 0)
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    first = fields.get(b"first-entry")
    return Info(
        idOf(first[0]) if first else (0, 0),
        idOf(fields[b"last-generated-id"]),
        fields[b"length"],
        fields.get(b"entries-added"),
    )
