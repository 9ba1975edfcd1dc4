"""
The acks that an application waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txrealtime.errors import AckTimeout
from txrealtime.socketio.acks import ackValue, simplified

__all__ = ["Acks"]


class Acks:
    """
    Deferreds by the number of their ack.

    A Deferred has no callbacks here, and its timeout is a plain delayed call: ``addTimeout`` would take twice
    the time.

    :param forget: called with the number of an ack that is not awaited any longer.
    """

    def __init__(self, reactor: IReactorTime, forget: Callable[[int], object]) -> None:
        self._reactor = reactor
        self._forget = forget
        self._awaited: dict[int, tuple[Deferred[Any], IDelayedCall | None]] = {}

    def __len__(self) -> int:
        return len(self._awaited)

    def expect(self, id: int, event: str, timeout: float | None) -> Deferred[Any]:
        """
        Make the Deferred of an ack.

        :param timeout: seconds, or ``None`` for no limit.
        """
        ack: Deferred[Any] = Deferred(lambda _: self._giveUp(id))
        timer = None
        if timeout is not None:
            timer = self._reactor.callLater(timeout, self._late, id, event, timeout)
        self._awaited[id] = ack, timer
        return ack

    def _late(self, id: int, event: str, timeout: float) -> None:
        self._forget(id)
        self.fail(id, AckTimeout(f"no ack of {event!r} within {timeout:g} s"))

    def _giveUp(self, id: int) -> None:
        self._forget(id)
        self._take(id)

    def _take(self, id: int) -> Deferred[Any] | None:
        ack, timer = self._awaited.pop(id, (None, None))
        if timer is not None and timer.active():
            timer.cancel()
        return ack

    def received(self, id: int | None, data: list[Any]) -> None:
        """Called with an ack of the server; one that nobody awaits is ignored."""
        ack = None if id is None else self._take(id)
        if ack is not None:
            ack.callback(simplified(ackValue(data)))

    def fail(self, id: int, error: Exception) -> bool:
        """Fail an ack, if it is awaited; return ``True`` then."""
        ack = self._take(id)
        if ack is None:
            return False
        ack.errback(Failure(error))
        return True

    def failAll(self, error: Exception, isLost: Callable[[int], bool]) -> None:
        """Fail all acks whose number is lost."""
        for id in [id for id in self._awaited if isLost(id)]:
            # The application may cancel others meanwhile.
            self.fail(id, error)

    def drop(self, id: int) -> None:
        """Forget an ack whose event was not sent; nobody has its Deferred."""
        self._take(id)
