"""
Timers of many sessions that fire together.

Ten thousand clients with a heartbeat of 25 seconds would wake the reactor 400 times a
second, for one PING each.  These timers share one call of the reactor if they are due within
one tick of each other.  The reactor then wakes a few times a second, and the clients'
PONGs come together too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.logs import Logger

__all__ = ["Timer", "Timers"]

_log = Logger()


class Timer:
    """A delayed call."""

    __slots__ = ("_bucket", "call", "time")

    def __init__(self, bucket: _Bucket, time: float, call: Callable[[], Any]) -> None:
        self._bucket: _Bucket | None = bucket
        self.time = time
        self.call = call

    def active(self) -> bool:
        """Tell if the call has neither been made nor cancelled."""
        return self._bucket is not None

    def cancel(self) -> None:
        """Cancel the call; a second time does nothing."""
        bucket, self._bucket = self._bucket, None
        if bucket is not None:
            bucket.remove(self)

    def fire(self) -> None:
        """Called when the time has come."""
        self._bucket = None
        self.call()


class _Bucket:
    """The timers of one tick."""

    __slots__ = ("_delayed", "_key", "_owner", "timers")

    def __init__(self, owner: Timers, key: int, delay: float) -> None:
        # A dictionary serves as a set that keeps its order.
        self.timers: dict[Timer, None] = {}
        self._owner = owner
        self._key = key
        self._delayed: IDelayedCall = owner.reactor.callLater(delay, self._due)

    def remove(self, timer: Timer) -> None:
        del self.timers[timer]
        if not self.timers and self._delayed.active():
            self._delayed.cancel()
            self._owner.forget(self._key)

    def _due(self) -> None:
        self._owner.forget(self._key)
        while self.timers:  # a timer may cancel others
            timer = next(iter(self.timers))
            del self.timers[timer]
            try:
                timer.fire()
            except Exception:
                _log.failure("a session's timer failed")


class Timers:
    """
    Delayed calls, gathered by ticks.

    :param reactor: the clock.
    :param tick: seconds.  A call is made less than a tick before or after its time, and at its time
        if it is the only one of its tick.
    """

    def __init__(self, reactor: IReactorTime, tick: float) -> None:
        self.reactor = reactor
        self._tick = tick
        self._buckets: dict[int, _Bucket] = {}

    def callLater(self, delay: float, call: Callable[[], Any]) -> Timer:
        """
        Call a function later.

        :param delay: seconds.
        """
        time = self.reactor.seconds() + delay
        key = int(time / self._tick)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self, key, delay)
        timer = Timer(bucket, time, call)
        bucket.timers[timer] = None
        return timer

    def forget(self, key: int) -> None:
        """Called when a bucket is empty or due."""
        del self._buckets[key]
