"""
The heartbeat of a session: the PINGs that the server has to send (Engine.IO, "Heartbeat").
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Heartbeat"]


class Heartbeat:
    """
    The deadline of a server's next PING.

    A delayed call that fires before the deadline is set again for the rest: a PING resets none.

    :param missed: called once, when a PING has not come in time.
    :ivar due: the time at which the next PING is late; infinite before :meth:`start`.
    """

    __slots__ = ("_hasExpired", "_isPaused", "_missed", "_patience", "_reactor", "_timer", "due")

    def __init__(self, reactor: IReactorTime, missed: Callable[[], None]) -> None:
        self.due = math.inf
        self._reactor = reactor
        self._missed = missed
        self._patience = 0.0
        self._timer: IDelayedCall | None = None
        self._isPaused = False
        self._hasExpired = False

    def start(self, patience: float) -> None:
        """
        Begin to wait for PINGs.

        :param patience: seconds from one PING to the next, at most.
        """
        self._patience = patience
        self.due = self._reactor.seconds() + patience
        self._timer = self._reactor.callLater(patience, self._check)

    def pinged(self) -> None:
        """Called with each PING."""
        if not self._hasExpired:
            self.due = self._reactor.seconds() + self._patience

    def pause(self) -> None:
        """Do not expect PINGs: they may wait among what is not read."""
        self._isPaused = True

    def resume(self) -> None:
        """Expect PINGs again, the next one as if one had come now."""
        self._isPaused = False
        self.due = self._reactor.seconds() + self._patience

    def _check(self) -> None:
        self._timer = None
        rest = self._patience if self._isPaused else self.due - self._reactor.seconds()
        if rest > 0 and not self._hasExpired:
            self._timer = self._reactor.callLater(rest, self._check)
        else:
            self._missed()

    def isOverdue(self) -> bool:
        """
        Tell if a PING is missing whose timer has not fired yet, as after a computer was asleep.

        It counts as missed from then on, even if it comes before the timer fires.
        """
        if not self._hasExpired and not self._isPaused and self._reactor.seconds() >= self.due:
            self._hasExpired = True
            if self._timer is not None:
                self._timer.reset(0)
        return self._hasExpired

    def stop(self) -> None:
        """Expect no more PINGs."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
