"""
A connection to the broker that is made again whenever it ends.

:class:`~txrealtime.cluster.link.incoming.Incoming` and
:class:`~txrealtime.cluster.link.outgoing.Outgoing` have one :class:`Reconnecting` each.

It is not :class:`twisted.application.internet.ClientService`, because:

- A connection counts as good only when a heartbeat came back over both halves of the link (:meth:`proven`).
  ClientService sets its number of failed attempts to 0 as soon as a connection is made.  A broker that
  accepts connections and ends them at once would be asked again after the shortest delay, for ever.
- A connection that hangs has to be given up at once (:meth:`drop`), and the next attempt must not wait for
  its ``connectionLost``.  ClientService reconnects only after ``connectionLost``.
- An attempt includes the login, the choice of a host by Sentinel and the broker's role, and has one limit of
  time for all of these.  ClientService's ``prepareConnection`` has none.
- The link has to know at once that a connection was lost and why.  ClientService tells only of new
  connections.
- A bus need not have a transport or an endpoint: the bus in memory has neither.
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
    The delays before the next attempt to connect.

    :ivar first: seconds before the first attempt after a connection has ended.  The delay doubles with each
        attempt that fails.  A random part of each delay, at most half, is taken off, so that the servers of
        a cluster do not all come at once.
    :ivar last: seconds that a delay does not exceed.
    :ivar timeout: seconds that an attempt may take, and that the broker then has for each answer until it has
        confirmed all subscriptions.
    :ivar settle: seconds to wait before publishing after an outage of the broker, so that the other servers
        have subscribed again: more than ``last``.
    """

    first: float = 0.2
    last: float = 0.8
    timeout: float = 5.0
    settle: float = 1.0


class Reconnecting(Generic[C]):
    """
    A connection that is replaced by the next when it ends, until :meth:`stop`.

    :param open: makes one attempt to connect.
    :param opened: called with each new connection.
    :param failed: called with the reason when an attempt has failed or a connection has ended, before the
        next attempt.
    :ivar connection: the current connection, if there is one.
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

    # An attempt that was stopped may still succeed or fail.

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
        """Called when the connection is known to be good: the next delay is the first one again."""
        self._failures = 0

    def lost(self, reason: str) -> None:
        """Called when the connection has ended by itself.  Without a connection, do nothing."""
        if self.connection is not None:
            self.connection = None
            self._again(reason)

    def drop(self, reason: str) -> None:
        """Abort the connection, and make a new one.  Without a connection, do nothing."""
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
        Stop connecting.

        :return: the current connection, if there is one, for the caller to close.
        """
        delayed, self._delayed = self._delayed, None
        attempt, self._attempt = self._attempt, None
        for pending in (delayed, attempt):
            if pending is not None:
                pending.cancel()
        connection, self.connection = self.connection, None
        return connection
