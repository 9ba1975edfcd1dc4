"""
The list of the peer servers.

Each server announces itself from time to time, and with each announcement takes a lease.  A server whose
lease has run out has gone.  :class:`~txrealtime.cluster.conversation.Conversation` has one
:class:`PeerServers`, passes it the announcements and tells it when the link is ready or deaf.  Dialects
without announcements leave the list empty.  Nothing here asks the broker who is connected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.cluster.dialects.messages import Alive, Gone
from txrealtime.logs import Logger

__all__ = ["PeerServers"]

_log = Logger()

_BEATS: Final = 3
"""Announcements that a server makes in the time of its lease."""

_MAX_SERVERS: Final = 10_000


@dataclass(slots=True)
class _Server:
    name: str
    lease: float
    beats: int
    "This server's announcements after which the peer server has gone, unless it was heard meanwhile."
    isApart: bool
    "True if events between the two servers are lost, as they spread topics over different brokers."


class PeerServers(Mapping[str, str]):
    """
    The peer servers: name by uid.

    A lease runs only while this server can hear, so its length is counted in this server's own
    announcements ("beats").  A beat that is late, because the process was busy or the clock has jumped,
    counts as one beat; announcements that have arrived meanwhile are read before the next.

    :param publish: publishes an announcement or a goodbye.
    :param met: called with the uid of a server that has announced itself for the first time.
    :param lost: called with the uid of a server that has gone.
    :param announced: called when this server has announced itself because it was time.
    """

    def __init__(
        self,
        publish: Callable[[Alive | Gone], object],
        met: Callable[[str], object],
        lost: Callable[[str], object],
        announced: Callable[[], object],
    ) -> None:
        self._me = Alive("", "", 1.0, "")
        self._publish = publish
        self._met = met
        self._lost = lost
        self._announced = announced
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

    @property
    def apart(self) -> list[str]:
        """The names of the peer servers that spread topics over other brokers than this server."""
        return [server.name for server in self._servers.values() if server.isApart]

    # -- from peer servers -------------------------------------------------------------

    def heard(self, alive: Alive) -> None:
        """Called when a server has announced itself."""
        if self._clock is None or alive.sender == self._me.sender:
            return
        server = self._servers.get(alive.sender)
        if server is None:
            if len(self._servers) >= _MAX_SERVERS:
                return
            _log.info("{name} has joined the cluster", name=alive.name)
            if alive.parser != self._me.parser:
                _log.error(
                    "{name} encodes packets with {theirs}, this server with {ours}: clients of one "
                    "cannot read what the other sends; give all servers the same parser",
                    name=alive.name,
                    theirs=alive.parser,
                    ours=self._me.parser,
                )
            if not self._me.hearsAll(alive):
                _log.error(
                    "{name} spreads topics over other brokers than this server: events between the two are "
                    "lost; give all servers the same --bus, and change it in steps, by spread=listen and "
                    "spread=both",
                    name=alive.name,
                )
        self._servers[alive.sender] = _Server(
            alive.name, alive.lease, self._beatsOf(alive.lease), not self._me.hearsAll(alive)
        )
        if alive.asks:
            self._publish(self._me._replace(recipient=alive.sender))
        if server is None:
            self._met(alive.sender)

    def _beatsOf(self, lease: float) -> int:
        """Return a lease's length in beats of this server: one more, as the first may come at once."""
        return ceil(lease * _BEATS / self._me.lease) + 1

    def left(self, gone: Gone) -> None:
        """Called when a server has said goodbye."""
        self._remove(gone.sender, "has left the cluster")

    def _remove(self, uid: str, why: str) -> None:
        server = self._servers.pop(uid, None)
        if server is not None:
            _log.info("{name} {why}", name=server.name, why=why)
            self._lost(uid)

    # -- this server -------------------------------------------------------------------

    def listening(self, clock: IReactorTime, me: Alive) -> None:
        """
        Called when the link is ready: ask the others to announce themselves, and begin their leases anew.

        :param me: this server's announcement.
        """
        self._clock, self._me = clock, me
        for server in self._servers.values():
            server.beats = self._beatsOf(server.lease)
        self._publish(self._me._replace(asks=True))
        self._startTimer(clock)

    def deaf(self) -> None:
        """Called when the link is down: stop the leases."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Say goodbye, and forget the peer servers."""
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
        self._announced()
        for uid, server in list(self._servers.items()):
            server.beats -= 1
            if server.beats <= 0:
                self._remove(uid, f"was not heard for {server.lease:g} s and has gone")
