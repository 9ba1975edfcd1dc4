"""
Deadlines that share one delayed call of the reactor.

Nearly all acks come in time, so a delayed call of its own for each would be made and cancelled for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Deadlines"]

# Entries of keys that are gone may be as many as those that wait, and this many more.
_SLACK: Final = 64


class Deadlines:
    """
    The deadlines of some keys.

    :param waits: tells if a key still waits.
    :param late: called with each key that still waits at its deadline.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        waits: Callable[[int], bool],
        late: Callable[[int], object],
    ) -> None:
        self._reactor = reactor
        self._waits = waits
        self._late = late
        self._heap: list[tuple[float, int]] = []
        self._timer: IDelayedCall | None = None
        self._next = 0.0
        # Entries above which those whose keys are gone are dropped.
        self._most = _SLACK

    def add(self, key: int, delay: float) -> None:
        """
        Add a key.

        :param delay: seconds.
        """
        time = self._reactor.seconds() + delay
        heappush(self._heap, (time, key))
        if self._timer is None or time < self._next:
            self._start(time, delay)
        if len(self._heap) > self._most:
            self._heap = [entry for entry in self._heap if self._waits(entry[1])]
            heapify(self._heap)
            self._most = 2 * len(self._heap) + _SLACK

    def _start(self, time: float, delay: float) -> None:
        self._next = time
        if self._timer is not None:
            self._timer.reset(delay)
        else:
            self._timer = self._reactor.callLater(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        while self._heap:
            time, key = self._heap[0]
            if not self._waits(key):
                heappop(self._heap)
            elif time > now:
                # A key that was added meanwhile may have set the timer to a later time.
                if self._timer is None or time < self._next:
                    self._start(time, time - now)
                return
            else:
                heappop(self._heap)
                self._late(key)

    def stop(self) -> None:
        """Forget all keys."""
        self._heap.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
