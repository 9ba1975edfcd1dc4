"""
The events of this server on their way through a stream, until they come back.

Where the stream gives all events one order, this server's clients get its own events from there, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from twisted.internet.defer import Deferred, succeed

from txrealtime.cluster.dialects.messages import Emit

__all__ = ["OwnEvents"]

_MOST: Final = 20_000
"""Events on their way; the oldest of more is forgotten.  The queue for the broker has its own bound."""


class OwnEvents:
    """
    The events that this server has sent and not delivered yet, in order.

    :ivar settled: the number of events that were delivered, or lost before one that was.
    """

    def __init__(self) -> None:
        self._sent: deque[tuple[bytes, Emit]] = deque()
        # The number of events that were sent.
        self._last = 0
        self.settled = 0
        self._came = 0
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()

    def __iter__(self) -> Iterator[Emit]:
        return (emit for _, emit in list(self._sent))

    def sent(self, payload: bytes, emit: Emit) -> None:
        """Called with an event that goes to the stream."""
        self._last += 1
        self._sent.append((payload, emit))
        if len(self._sent) > _MOST:
            self._sent.popleft()
            self._came = self._last - len(self._sent)
            self.delivered()

    def came(self, payload: bytes) -> Emit | None:
        """Find the event that has come back, and give up those before it: they were lost on the way."""
        for index, (its, emit) in enumerate(self._sent):
            if its == payload:
                for _ in range(index + 1):
                    self._sent.popleft()
                self._came = self._last - len(self._sent)
                return emit
        return None

    def delivered(self) -> None:
        """Called when the event that came back has been delivered."""
        self.settled = self._came
        waiting = self._waiting
        while waiting and waiting[0][0] <= self.settled:
            waiting.popleft()[1].callback(None)

    def whenDelivered(self) -> Deferred[None]:
        """Wait until the events of now are delivered."""
        if not self._sent and self.settled == self._came:
            return succeed(None)
        waiting: Deferred[None] = Deferred(lambda _: None)
        self._waiting.append((self._last, waiting))
        return waiting

    def clear(self) -> None:
        """Forget all events, and let nobody wait for them."""
        self._sent.clear()
        self._came = self._last
        self.delivered()
