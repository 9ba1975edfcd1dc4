"""
The pace at which the application admits clients.

After a restart, all clients come back within seconds.  If each admission waits, for a database say, and more
clients come than the application can admit in time, they give up while they wait and come again: the server
works for clients that have left, and none gets in.  So a new client is refused as long as those before it
will take longer than ``handshakeTimeout``.  Clients come again by themselves, later and later.

The wait of one more client is the number of those that wait, divided by the number that get an answer in a
second (Little's law).  Nothing is counted for admissions that need no wait, so these cost nothing: what waits
for them is the kernel's queue, which has :data:`~txrealtime.engineio.tcp.QUEUE` places.
"""

from __future__ import annotations

from math import ceil
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime

__all__ = ["Pace"]

T = TypeVar("T")

_FEW: Final = 100
"""Clients that may always wait: a single slow admission tells nothing about the others."""

_WINDOW: Final = 1.0
"""Seconds in which answers are counted together."""

_LONGEST: Final = 60
"""The longest time to suggest to a refused client, in seconds."""


class Pace:
    """
    The clients that wait for the application's answer, and the answers a second.

    :param reactor: the clock.
    :param most: seconds that a client may have to wait.
    :ivar waiting: the clients that wait.
    :ivar few: the clients that may always wait.
    """

    def __init__(self, reactor: IReactorTime, most: float) -> None:
        self.waiting = 0
        self.few = _FEW
        self._reactor = reactor
        self._most = most
        self._since = 0.0
        # Since then.  A window goes on until it has an answer.
        self._answered = 0
        # Of the last window; None until the first one is over.
        self._rate: float | None = None

    def began(self) -> None:
        """Called when a client begins to wait."""
        if not self.waiting:
            self._since, self._answered, self._rate = self._reactor.seconds(), 0, None
        self.waiting += 1

    def ended(self, result: T) -> T:
        """Called when a client has its answer, or has gone."""
        self.waiting -= 1
        if self._rate is None and not self._answered:
            # The first answers come late if each takes long, and that says nothing of their number.
            self._since = self._reactor.seconds()
        self._answered += 1
        return result

    def retryAfter(self) -> int:
        """Return 0 if one more client has its answer in time, otherwise seconds until it may try again."""
        if self.waiting < self.few:
            return 0
        now = self._reactor.seconds()
        elapsed = now - self._since
        if self._answered and elapsed >= _WINDOW:
            self._rate, self._answered, self._since = self._answered / elapsed, 0, now
        elif not self._answered and elapsed >= self._most:
            self._rate = 0.0
        if self._rate is None or self.waiting <= self._rate * self._most:
            return 0
        late = self.waiting / self._rate - self._most if self._rate else _LONGEST
        return max(1, min(_LONGEST, ceil(late)))
