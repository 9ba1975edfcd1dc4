"""
The fleet: all workers of a supervisor, as each of them knows it.

The supervisor writes a line to all workers whenever one of them starts, serves, begins to stop or ends.  The
counts of sessions come from the ledger, and so are never old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from txrealtime.engineio.limits import networkOf
from txrealtime.workers.ledger import SESSIONS, Ledger

__all__ = ["Fleet", "Member"]

# The part of the mean by which the sessions of one address may overload a worker.
_EXCESS: Final = 0.25

# Sessions by which a worker may always differ.
_FEW: Final = 4

# Seconds in which a placed session has been opened, and is counted.
_MOMENT: Final = 0.2


@dataclass(frozen=True, slots=True)
class Member:
    """
    One worker.

    :ivar number: its number, from 0.
    :ivar mark: its mark.
    :ivar pid: its process.
    :ivar state: ``starting``, ``ready`` or ``stopping``.
    :ivar status: the status of its link to the other servers.
    :ivar fit: whether the worker is ready for clients.
    """

    number: int
    mark: str
    pid: int
    state: str
    status: str
    fit: bool


class Fleet:
    """
    All workers, as one of them knows them.

    :param mark: the mark of this worker.
    :param ledger: the counts of all workers.
    :param seconds: the clock.
    :ivar mark: the mark of this worker.
    :ivar members: the workers, this one included.
    """

    def __init__(self, mark: str, ledger: Ledger, seconds: Callable[[], float]) -> None:
        self.members: list[Member] = []
        self.mark = mark
        self._ledger = ledger
        self._seconds = seconds
        self._ready: list[Member] = []
        # By mark: the sessions that the worker has with those placed in this moment.
        self._placed: dict[str, int] = {}
        self._since = 0.0

    def update(self, members: Iterable[dict[str, Any]]) -> None:
        """Called when the supervisor has told the present workers."""
        self.members = [Member(**each) for each in members]
        self._ready = [member for member in self.members if member.state == "ready"]
        self._ledger.follow([member.mark for member in self.members])

    def sessionsOf(self, member: Member) -> int:
        """Return the number of a worker's sessions."""
        return self._ledger.countOf(member.mark, SESSIONS)

    @property
    def othersLetGo(self) -> bool:
        """True while another worker that stops has sessions, whose requests may come to this one."""
        return any(
            self.sessionsOf(member)
            for member in self.members
            if member.state == "stopping" and member.mark != self.mark
        )

    def another(self) -> str | None:
        """Return the mark of the other worker with the fewest sessions that takes new clients."""
        now = self._seconds()
        if now - self._since >= _MOMENT:
            self._since = now
            self._placed.clear()
        others = [member.mark for member in self._ready if member.mark != self.mark]
        return min(others, key=self._loadOf) if others else None

    def place(self) -> str | None:
        """
        Choose the worker for a new session.

        :return: the mark of the worker with the fewest sessions, if this one has more by over a tenth;
            ``None`` for this worker.
        """
        if len(self._ready) < 2:
            return None
        least = self.another()
        if least is None:
            return None
        own, fewest = self._loadOf(self.mark), self._loadOf(least)
        away = own > 1.1 * fewest + 1
        self._placed[least if away else self.mark] = 1 + (fewest if away else own)
        return least if away else None

    def _loadOf(self, mark: str) -> int:
        """Return the sessions of a worker, with those placed a moment ago: a burst comes before its count."""
        return max(self._ledger.countOf(mark), self._placed.get(mark, 0))

    def affine(self, address: str) -> str | None:
        """
        Choose the worker for a connection by the client's address alone.

        All connections of a client go to one worker, unless this worker has a quarter more sessions than the
        mean: then the worker with the fewest gets them, so that many clients behind one address spread.

        :return: the mark of another worker; ``None`` for this one.
        """
        ready = self._ready
        if len(ready) < 2:
            return None
        counts = {member.number: self.sessionsOf(member) for member in ready}
        marks = {member.number: member.mark for member in ready}
        number = _home(networkOf(address), tuple(sorted(marks)))
        if counts[number] > (1 + _EXCESS) * sum(counts.values()) / len(counts) + _FEW:
            number = min(counts, key=counts.__getitem__)
        return None if marks[number] == self.mark else marks[number]

    def report(self) -> list[dict[str, Any]]:
        """Describe the workers, for a health check."""
        fields = ("number", "pid", "state", "status", "fit")
        return [
            {name: value for name, value in asdict(member).items() if name in fields}
            | {"clients": self.sessionsOf(member)}
            for member in self.members
        ]


@lru_cache(maxsize=4096)
def _home(network: str, numbers: tuple[int, ...]) -> int:
    """
    Choose a worker for an address.

    By rendezvous hashing: one worker less moves the clients of this worker, and nobody else.
    """
    return max(numbers, key=lambda number: blake2b(f"{number} {network}".encode(), digest_size=8).digest())
