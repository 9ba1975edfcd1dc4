"""
The ends of sessions when a server stops: at once, or after a delay and in slices over some time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.engineio.session import Session, State
from txrealtime.engineio.websocket.transport import WebSocketTransport

__all__ = ["Drain", "Retirement", "Slices"]

# Seconds between two slices: few enough clients come back at a time, and few timers run.
_STEP: Final = 0.1


class Drain:
    """
    The sessions and WebSockets that one call of :meth:`Engine.drain` waits for.

    :ivar sessions: the sessions that have not ended.
    :ivar closing: the WebSockets without a session whose connections are still there.
    :ivar late: the call at the drain's timeout.
    :ivar done: fires when all have gone.
    """

    late: IDelayedCall

    def __init__(self, sessions: Collection[Session], closing: Collection[WebSocketTransport]) -> None:
        self.sessions = set(sessions)
        self.closing = set(closing)
        self.done: Deferred[None] = Deferred()


class Slices:
    """
    Sessions that go in slices, in random order.

    Clients connect again when their session has ended, so that all of them at once would be a load.

    :param seconds: the time from the first slice to the last.
    :param letGo: called with the sessions of each slice.
    :ivar done: fires behind the last slice, or when no session is left.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        sessions: Collection[Session],
        seconds: float,
        letGo: Callable[[list[Session]], object],
    ) -> None:
        self.done: Deferred[None] = Deferred()
        self._reactor = reactor
        self._seconds = seconds
        self._letGo = letGo
        self._begun = reactor.seconds()
        self._waiting = random.sample(list(sessions), len(sessions))
        self._count = len(self._waiting)
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Let the first slice go."""
        self._next()

    def _next(self) -> None:
        self._timer = None
        # By the time, and not by the number of calls: the reactor may be late.
        part = (self._reactor.seconds() - self._begun + _STEP) / self._seconds
        remaining = self._count - math.ceil(self._count * min(1.0, part))
        going, self._waiting = self._waiting[remaining:], self._waiting[:remaining]
        self._letGo([session for session in going if session.state is State.OPEN])
        if any(session.state is State.OPEN for session in self._waiting):
            self._timer = self._reactor.callLater(_STEP, self._next)
        else:
            self._end()

    def end(self) -> None:
        """Give up the slices; the rest of the sessions stays."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._end()

    def _end(self) -> None:
        self._waiting.clear()
        self.done.callback(None)


class Retirement:
    """
    The time before a server stops: a delay, and then slices.

    :param slices: begins the slices, if there are any.
    """

    def __init__(self, reactor: IReactorTime, slices: Callable[[], Slices] | None = None) -> None:
        self._reactor = reactor
        self._begin = slices
        self._timer: IDelayedCall | None = None
        self._slices: Slices | None = None
        self._isDone = False
        self._waiting: list[Deferred[None]] = []

    def start(self, delay: float) -> None:
        """
        Begin.

        :param delay: seconds before the first slice.
        """
        if delay:
            self._timer = self._reactor.callLater(delay, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        self._timer = None
        if self._begin is None:
            self._done()
            return
        self._slices = self._begin()
        self._slices.done.addCallback(lambda _: self._done())

    def end(self) -> None:
        """Wait no longer."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._slices is not None:
            self._slices.end()
        self._done()

    def _done(self) -> None:
        self._isDone = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def whenDone(self) -> Deferred[None]:
        """Return a Deferred that fires when the last slice has gone."""
        if self._isDone:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]
