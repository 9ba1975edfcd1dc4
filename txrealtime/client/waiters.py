"""
The Deferreds that ``whenConnected()`` returns before there is a connection.
"""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Waiters"]


class _Waiter(Deferred[Any]):
    """
    The Deferred of one call.

    :ivar attempts: the attempts to connect after which it fails.
    """

    attempts: float


class Waiters:
    """Deferreds that fire together, and that may fail after a number of attempts to connect."""

    def __init__(self) -> None:
        self._waiting: list[_Waiter] = []

    def add(self, attempts: int | None) -> Deferred[Any]:
        """
        Make a Deferred.

        :param attempts: the attempts to connect after which it fails; ``None`` for no limit.
        """
        waiter = _Waiter(self._forget)
        waiter.attempts = math.inf if attempts is None else attempts
        self._waiting.append(waiter)
        return waiter

    def _forget(self, waiter: Any) -> None:
        self._waiting = [each for each in self._waiting if each is not waiter]

    def _take(self) -> list[_Waiter]:
        taken, self._waiting = self._waiting, []
        return taken

    def fire(self, result: object) -> None:
        """Fire all Deferreds."""
        for waiter in self._take():
            # A callback may have cancelled others.
            if not waiter.called:
                waiter.callback(result)

    def fail(self, error: Exception) -> None:
        """Fail all Deferreds."""
        for waiter in self._take():
            if not waiter.called:
                waiter.errback(Failure(error))

    def attemptFailed(self, error: Exception) -> None:
        """Fail the Deferreds whose last attempt was this one."""
        for waiter in list(self._waiting):
            waiter.attempts -= 1
            if waiter.attempts <= 0 and not waiter.called:
                self._forget(waiter)
                waiter.errback(Failure(error))
