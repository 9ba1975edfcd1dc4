"""
The acks that an application waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txrealtime.client.deadlines import Deadlines
from txrealtime.errors import AckTimeout
from txrealtime.socketio.acks import ackValue

__all__ = ["Acks"]


class _Ack(Deferred[Any]):
    """The Deferred of an ack, with the ack's number: a function of its own for each would cost more."""

    id: int
    event: str
    timeout: float | None


class Acks:
    """
    Deferreds by the number of their ack.

    The Deferreds have no callbacks here, and their timeouts share a delayed call: ``addTimeout`` would take
    five times the time.

    :param forget: called with the number of an ack that is not awaited any longer.
    """

    def __init__(self, reactor: IReactorTime, forget: Callable[[int], object]) -> None:
        self._forget = forget
        self._awaited: dict[int, _Ack] = {}
        self._deadlines = Deadlines(reactor, self._awaited.__contains__, self._late)

    def __len__(self) -> int:
        return len(self._awaited)

    def expect(self, id: int, event: str, timeout: float | None) -> Deferred[Any]:
        """
        Make the Deferred of an ack.

        :param timeout: seconds, or ``None`` for no limit.
        """
        ack = self._awaited[id] = _Ack(self._giveUp)
        ack.id, ack.event, ack.timeout = id, event, timeout
        if timeout is not None:
            self._deadlines.add(id, timeout)
        return ack

    def _late(self, id: int) -> None:
        ack = self._awaited[id]
        self._forget(id)
        self.fail(id, AckTimeout(f"no ack of {ack.event!r} within {ack.timeout:g} s"))

    def _giveUp(self, ack: Any) -> None:
        self._forget(ack.id)
        self._awaited.pop(ack.id, None)

    def received(self, id: int | None, data: list[Any]) -> None:
        """Called with an ack of the server; one that nobody awaits is ignored."""
        ack = self._awaited.pop(id, None)  # type: ignore[arg-type]
        if ack is not None:
            ack.callback(data[0] if len(data) == 1 else ackValue(data))

    def fail(self, id: int, error: Exception) -> bool:
        """Fail an ack, if it is awaited; return ``True`` then."""
        ack = self._awaited.pop(id, None)
        if ack is None:
            return False
        ack.errback(Failure(error))
        return True

    def failAll(self, error: Exception, isLost: Callable[[int], bool]) -> None:
        """Fail all acks whose number is lost."""
        for id in [id for id in self._awaited if isLost(id)]:
            # The application may cancel others meanwhile.
            self.fail(id, error)
        if not self._awaited:
            self._deadlines.stop()

    def drop(self, id: int) -> None:
        """Forget an ack whose event was not sent; nobody has its Deferred."""
        self._awaited.pop(id, None)
