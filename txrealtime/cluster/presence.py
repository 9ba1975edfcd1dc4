"""
Which servers are there: each says so from time to time, and is taken for gone when it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.cluster.dialects.messages import Alive, Gone
from txrealtime.logs import Logger

__all__ = ["Presence"]

_log = Logger()

_BEATS: Final = 3
"""How often a server says that it is there, in the time of its lease."""

_MAX_SERVERS: Final = 10_000


@dataclass(slots=True)
class _Server:
    name: str
    lease: float
    beats: int
    "How many more times we may say that we are there, and not hear of it."


class Presence(Mapping[str, str]):
    """
    The other servers: name by uid.

    A lease runs only while we can hear: what did not reach us is no sign that somebody is gone.  So it is
    counted in our own beats.  One that is late, because this process was busy or the clock has jumped, is
    one beat, and what has come meanwhile is read before the next.

    :param publish: to say that we are there.
    :param lost: called with the uid of a server that has gone.
    """

    def __init__(self, publish: Callable[[Alive | Gone], object], lost: Callable[[str], object]) -> None:
        self._me = Alive("", "", 1.0, "")
        self._publish = publish
        self._lost = lost
        self._servers: dict[str, _Server] = {}
        self._clock: IReactorTime | None = None
        self._timer: IDelayedCall | None = None

    def __getitem__(self, uid: str) -> str:
        return self._servers[uid].name

    def __contains__(self, uid: object) -> bool:
        return uid in self._servers

    def __iter__(self) -> Iterator[str]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    # -- what others say ---------------------------------------------------------------

    def heard(self, alive: Alive) -> None:
        """A server says that it is there."""
        if self._clock is None or alive.sender == self._me.sender:
            return
        server = self._servers.get(alive.sender)
        if server is None:
            if len(self._servers) >= _MAX_SERVERS:
                return
            _log.info("{name} has joined the cluster", name=alive.name)
            if alive.parser != self._me.parser:
                _log.error(
                    "{name} makes packets with {theirs}, this server with {ours}: clients of one "
                    "cannot read what the other sends; give all servers the same parser",
                    name=alive.name,
                    theirs=alive.parser,
                    ours=self._me.parser,
                )
        self._servers[alive.sender] = _Server(alive.name, alive.lease, self._beatsOf(alive.lease))
        if alive.asks:
            self._publish(self._me._replace(recipient=alive.sender))

    def _beatsOf(self, lease: float) -> int:
        """The beats of ours in which a lease is over: one more, as the first may come at once."""
        return ceil(lease * _BEATS / self._me.lease) + 1

    def left(self, gone: Gone) -> None:
        """A server says that it goes."""
        self._remove(gone.sender, "has left the cluster")

    def _remove(self, uid: str, why: str) -> None:
        server = self._servers.pop(uid, None)
        if server is not None:
            _log.info("{name} {why}", name=server.name, why=why)
            self._lost(uid)

    # -- what we do --------------------------------------------------------------------

    def listening(self, clock: IReactorTime, me: Alive) -> None:
        """
        The link is up, for the first time or again: ask who is there, and give all their time.

        :param me: what this server says of itself.
        """
        self._clock, self._me = clock, me
        for server in self._servers.values():
            server.beats = self._beatsOf(server.lease)
        self._publish(self._me._replace(asks=True))
        self._startTimer(clock)

    def deaf(self) -> None:
        """The link is down: nobody can be heard."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Say goodbye, and forget the others."""
        if self._clock is not None:
            self._publish(Gone(self._me.sender))
        self.deaf()
        self._clock = None
        self._servers.clear()

    def _startTimer(self, clock: IReactorTime) -> None:
        self.deaf()
        self._timer = clock.callLater(self._me.lease / _BEATS, self._beat, clock)

    def _beat(self, clock: IReactorTime) -> None:
        self._timer = None
        self._startTimer(clock)
        self._publish(self._me)
        for uid, server in list(self._servers.items()):
            server.beats -= 1
            if server.beats <= 0:
                self._remove(uid, f"was not heard for {server.lease:g} s and is taken for gone")
