"""
The ledger: the sessions and connections of all workers, counted without a message between them.

Each worker has a file in the common folder, mapped into the memory of all workers.  Only the worker itself
writes it; the others read.  So a count is always up to date and nobody waits for anybody, and the counts of a
worker that was killed go with its file.  Two workers that count at the same moment do not see each other:
limits may be exceeded by one for each further worker.

A file begins with 8 numbers of 8 bytes: the sessions, the connections, and room for more.  If addresses are
counted, there are two open hash tables behind them, of sessions and of connections: all keys, 8 bytes each,
then all counts, 4 bytes each.  A key is a hash of the network, under the name of the folder, which clients do
not know.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

__all__ = ["CONNECTIONS", "SESSIONS", "Column", "Ledger"]

SESSIONS: Final = 0
CONNECTIONS: Final = 1

_HEAD: Final = 64

_PLACES: Final = 1 << 16
_TABLE: Final = 12 * _PLACES

# Addresses of one worker; those of more are counted by the worker alone.
_MOST: Final = _PLACES * 3 // 4


class _Table:
    """An open hash table with linear probing; a reader beside the writer may miss an entry that moves."""

    def __init__(self, data: memoryview) -> None:
        self._keys = data[: 8 * _PLACES].cast("Q")
        self._counts = data[8 * _PLACES : _TABLE].cast("I")
        self._used = 0

    def release(self) -> None:
        self._keys.release()
        self._counts.release()

    def _find(self, key: int) -> int:
        """Return the place of a key, or the empty place where it would be."""
        keys, place = self._keys, key % _PLACES
        while (found := keys[place]) and found != key:
            place = (place + 1) % _PLACES
        return place

    def get(self, key: int) -> int:
        """Return the count of a key."""
        return self._counts[self._find(key)]

    def set(self, key: int, count: int) -> None:
        """Change the count of a key."""
        place = self._find(key)
        if self._keys[place]:
            if count:
                self._counts[place] = count
            else:
                self._remove(place)
        elif count and self._used < _MOST:
            self._used += 1
            self._counts[place] = count
            self._keys[place] = key

    def _remove(self, hole: int) -> None:
        """Empty a place, and move later entries up that would not be found behind it."""
        keys, counts, place = self._keys, self._counts, hole
        while key := keys[place := (place + 1) % _PLACES]:
            if (place - key) % _PLACES >= (place - hole) % _PLACES:
                counts[hole] = counts[place]
                keys[hole] = key
                hole = place
        keys[hole] = counts[hole] = 0
        self._used -= 1


class _Book:
    """
    One worker's file, mapped.

    :param owned: unlink the file at the end.
    :ivar tables: the counts of addresses; empty if the worker does not count any.
    """

    def __init__(self, path: str, owned: bool) -> None:
        self._path = path if owned else ""
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._data = memoryview(self._map)
        self.counts = self._data[:_HEAD].cast("Q")
        kinds = (SESSIONS, CONNECTIONS) if len(self._data) > _HEAD else ()
        self.tables = [_Table(self._data[_HEAD + place * _TABLE :]) for place in kinds]

    @classmethod
    def create(cls, path: str, addresses: bool) -> _Book:
        """
        Create a worker's file.  It gets its name when it is whole, as others may map it at once.

        :raises OSError: if the disk is full.  A hole in the file would end the process later, by SIGBUS.
        """
        unnamed = f"{path}.new"
        descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(bytes(_HEAD + 2 * _TABLE * addresses))
        os.rename(unnamed, path)
        return cls(path, True)

    def close(self) -> None:
        for table in self.tables:
            table.release()
        self.counts.release()
        self._data.release()
        self._map.close()
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


class Ledger:
    """
    The counts of this worker and of the others.

    :param folder: the folder of all workers; only this user may enter it.
    :param mark: this worker's mark.
    """

    def __init__(self, folder: str, mark: str) -> None:
        self._folder = folder
        self._mark = mark
        self._key = os.path.basename(folder).encode()[-blake2b.MAX_KEY_SIZE :]
        self._own: _Book | None = None
        self._others: dict[str, _Book] = {}

    def start(self, addresses: bool) -> None:
        """
        Create this worker's file.

        :param addresses: count addresses too, which takes 1.5 MB.
        :raises OSError: if the disk is full.
        """
        self._own = _Book.create(self._pathOf(self._mark), addresses)

    def stop(self) -> None:
        """Close all files, and remove this worker's."""
        self.follow(())
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def _pathOf(self, mark: str) -> str:
        return os.path.join(self._folder, f"{mark}.counts")

    def follow(self, marks: Iterable[str]) -> None:
        """Read the files of these workers from now on, and of no others."""
        wanted = {*marks} - {self._mark}
        for mark in self._others.keys() - wanted:
            self._others.pop(mark).close()
        for mark in wanted - self._others.keys():
            # One that does not serve yet, or does not live any more.
            with contextlib.suppress(OSError, ValueError):
                self._others[mark] = _Book(self._pathOf(mark), False)

    def countOf(self, mark: str, what: int = SESSIONS) -> int:
        """Return a worker's count; 0 if the worker does not live."""
        book = self._own if mark == self._mark else self._others.get(mark)
        return 0 if book is None else book.counts[what]

    def column(self, what: int) -> Column:
        """Return the counts of one kind, for a :class:`~txrealtime.engineio.limits.Tally`."""
        return Column(self, what)

    def _keyOf(self, network: str) -> int:
        return int.from_bytes(blake2b(network.encode(), digest_size=8, key=self._key).digest()) or 1


class Column:
    """
    The counts of one kind: sessions or connections.

    It provides :class:`~txrealtime.engineio.limits.Elsewhere`.
    """

    def __init__(self, ledger: Ledger, what: int) -> None:
        self._ledger = ledger
        self._what = what

    def count(self) -> int:
        return sum([book.counts[self._what] for book in self._ledger._others.values()])

    def countOf(self, network: str) -> int:
        key = self._ledger._keyOf(network)
        return sum(
            [book.tables[self._what].get(key) for book in self._ledger._others.values() if book.tables]
        )

    def note(self, count: int) -> None:
        if self._ledger._own is not None:
            self._ledger._own.counts[self._what] = count

    def noteOf(self, network: str, count: int) -> None:
        if self._ledger._own is not None and self._ledger._own.tables:
            self._ledger._own.tables[self._what].set(self._ledger._keyOf(network), count)
