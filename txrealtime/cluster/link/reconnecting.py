"""
One connection to a broker, made again whenever it ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txrealtime.errors import BusError

__all__ = ["Backoff", "Reconnecting"]


class _Connection(Protocol):
    def abort(self) -> None: ...


C = TypeVar("C", bound=_Connection)


@dataclass(frozen=True)
class Backoff:
    """
    When to connect again.

    :ivar first: seconds before the first attempt after a connection has ended.  They double with each
        attempt that fails, and each time a random part, at most half, is taken off, so that the servers
        of a cluster do not come all at once.
    :ivar last: what they do not exceed.
    :ivar timeout: seconds that an attempt to connect may take, and then each answer of the broker until
        it has confirmed all subscriptions.
    :ivar settle: seconds for which a server that can publish again does not, so that the others, which
        have lost the broker too, are back to hear it: more than ``last``.
    """

    first: float = 0.2
    last: float = 0.8
    timeout: float = 5.0
    settle: float = 1.0


class Reconnecting(Generic[C]):
    """
    A connection, and the next when that has ended, until it is stopped.

    :param open: makes one attempt.
    :param opened: called with each new connection.
    :param failed: called with the reason each time that an attempt fails or a connection ends, when
        it is gone and before the next attempt.
    :ivar connection: the connection, if there is one.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        backoff: Backoff,
        open: Callable[[], Deferred[C]],
        opened: Callable[[C], None],
        failed: Callable[[str], None],
    ) -> None:
        self.connection: C | None = None
        self._reactor = reactor
        self._backoff = backoff
        self._open = open
        self._opened = opened
        self._failed = failed
        self._failures = 0
        self._attempt: Deferred[C] | None = None
        self._delayed: IDelayedCall | None = None

    def start(self) -> None:
        """Connect now, and stay connected."""
        self._failures = 0
        self._connect()

    def _connect(self) -> None:
        self._delayed = None
        self._attempt = attempt = self._open()
        attempt.addTimeout(self._backoff.timeout, self._reactor, self._late)
        attempt.addCallbacks(self._made, self._notMade, (attempt,), errbackArgs=(attempt,))

    def _late(self, result: object, seconds: float) -> object:
        if isinstance(result, Failure):
            raise BusError(f"no answer within {seconds:g} s")
        return result

    # An attempt that was stopped may still end in any way.

    def _made(self, connection: C, attempt: Deferred[C]) -> None:
        if self._attempt is attempt:
            self._attempt = None
            self.connection = connection
            self._opened(connection)
        else:
            connection.abort()

    def _notMade(self, failure: Failure, attempt: Deferred[C]) -> None:
        if self._attempt is attempt:
            self._attempt = None
            self._again(failure.getErrorMessage())

    def proven(self) -> None:
        """The connection is good: the next one that ends is the first to do so."""
        self._failures = 0

    def lost(self, reason: str) -> None:
        """The connection has ended by itself.  Nothing happens while there is none."""
        if self.connection is not None:
            self.connection = None
            self._again(reason)

    def drop(self, reason: str) -> None:
        """End the connection, and make a new one.  Nothing happens while there is none."""
        if self.connection is not None:
            self.connection.abort()
            self.lost(reason)

    def _again(self, reason: str) -> None:
        delay = min(self._backoff.last, self._backoff.first * 2 ** min(self._failures, 30))
        self._failures += 1
        self._delayed = self._reactor.callLater(delay * (1 - random.random() / 2), self._connect)
        self._failed(reason)

    def stop(self) -> C | None:
        """
        Connect no more.

        :return: the connection, if there is one: it is the caller's now.
        """
        delayed, self._delayed = self._delayed, None
        attempt, self._attempt = self._attempt, None
        for pending in (delayed, attempt):
            if pending is not None:
                pending.cancel()
        connection, self.connection = self.connection, None
        return connection
