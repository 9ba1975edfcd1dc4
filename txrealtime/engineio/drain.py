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
from twisted.logger import LogLevel

from txrealtime.engineio.session import CloseReason, Session, State
from txrealtime.engineio.websocket.transport import WebSocketTransport
from txrealtime.logs import Logger

__all__ = ["Drain", "Retirement", "Slices"]

_log = Logger()

# Seconds between two slices: few enough clients come back at a time, and few timers run.
_STEP: Final = 0.1


class Drain:
    """
    The sessions and WebSockets that one call of :meth:`Engine.drain` waits for.

    :param drains: the engine's drains; this one is removed when all have gone.
    :ivar sessions: the sessions that have not ended.
    :ivar closing: the WebSockets without a session whose connections are still there.
    :ivar done: fires when all have gone.
    """

    def __init__(
        self,
        drains: list[Drain],
        sessions: Collection[Session],
        closing: Collection[WebSocketTransport],
    ) -> None:
        self.sessions = set(sessions)
        self.closing = set(closing)
        self.done: Deferred[None] = Deferred()
        self._drains = drains
        self._late: IDelayedCall | None = None

    def start(
        self, reactor: IReactorTime, timeout: float, dismiss: Callable[[Session], object] | None
    ) -> None:
        """
        Close the sessions.

        :param timeout: seconds after which the remaining sessions are dropped.
        :param dismiss: called with each open session before it is closed.
        """
        self._late = reactor.callLater(timeout, self.drop)
        self._drains.append(self)
        for session in list(self.sessions):
            if dismiss is not None and session.state is State.OPEN:
                dismiss(session)
            session.close(CloseReason.SHUTTING_DOWN)
        self._check()

    def sessionEnded(self, session: Session) -> None:
        """Called when any session has ended."""
        self.sessions.discard(session)
        self._check()

    def webSocketClosing(self, transport: WebSocketTransport) -> None:
        """Called when any WebSocket takes and sends no more messages, but is still connected."""
        if transport.session in self.sessions:
            self.closing.add(transport)

    def webSocketLost(self, transport: WebSocketTransport) -> None:
        """Called when the connection of any WebSocket is lost."""
        self.closing.discard(transport)
        self._check()

    def drop(self) -> None:
        """Wait no longer: drop the remaining sessions."""
        late = len(self.sessions) + len(self.closing)
        # Limited, since there may be ten slices in a second.
        _log.limited(
            "", LogLevel.info, "{count} clients did not take their last messages in time", count=late
        )
        for session in list(self.sessions):
            session.abort(CloseReason.SHUTTING_DOWN)
        for transport in list(self.closing):
            # Not a reset: what the kernel has may still arrive.
            transport.transport.loseConnection()
        self.closing.clear()
        self._check()

    def _check(self) -> None:
        if not self.sessions and not self.closing and self in self._drains:
            self._drains.remove(self)
            if self._late is not None and self._late.active():
                self._late.cancel()
            self.done.callback(None)


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
