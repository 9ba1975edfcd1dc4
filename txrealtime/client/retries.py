"""
Events that are sent again until the server has acked them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txrealtime.logs import Logger

__all__ = ["Retries"]

_log = Logger()


class _Entry:
    """An event in the queue."""

    __slots__ = ("args", "asked", "event", "isSent", "result", "size", "timeout", "tries")

    def __init__(self, event: str, args: tuple[Any, ...], timeout: float | None, size: int) -> None:
        self.event = event
        self.args = args
        self.timeout = timeout
        self.size = size
        self.tries = 0
        self.isSent = False
        self.asked: Deferred[Any] | None = None
        self.result: Deferred[Any] = Deferred(lambda _: None)


class Retries:
    """
    A queue with one event on its way at a time, so that the order is kept.

    Each event is sent with an ack.  Without the ack in time, or when the connection is lost, the event is
    sent again, as often as allowed.  A server may get an event twice, if only its ack was lost.

    :param most: times that an event is sent again.
    :param ask: sends an event, with a timeout in seconds, and returns a Deferred of its ack.
    :ivar size: bytes of the events in the queue.
    """

    def __init__(self, most: int, ask: Callable[[str, tuple[Any, ...], float | None], Deferred[Any]]) -> None:
        self._most: Final = most
        self._ask = ask
        self._queue: deque[_Entry] = deque()
        self._isConnected = False
        self.size = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, event: str, args: tuple[Any, ...], timeout: float | None, size: int) -> Deferred[Any]:
        """
        Append an event.

        :param timeout: seconds that each try waits for the ack.
        :return: a Deferred of the ack, which fails with the error of the last try.  To cancel it takes the
            event out of the queue.
        """
        entry = _Entry(event, args, timeout, size)
        entry.result = Deferred(lambda _: self._cancelled(entry))
        self._queue.append(entry)
        self.size += size
        self._sendHead()
        return entry.result

    def connected(self) -> None:
        """Called when the namespace is connected: the first event is sent, possibly again."""
        self._isConnected = True
        self._sendHead()

    def disconnected(self) -> None:
        """Called before the acks of a lost connection fail."""
        self._isConnected = False

    def drop(self, error: Exception) -> None:
        """Give up all events."""
        queue, self._queue, self.size = self._queue, deque(), 0
        for entry in queue:
            if entry.asked is not None:
                entry.asked.cancel()
            if not entry.result.called:
                entry.result.errback(Failure(error))

    def _sendHead(self) -> None:
        if not self._isConnected or not self._queue or self._queue[0].isSent:
            return
        entry = self._queue[0]
        entry.isSent = True
        entry.tries += 1
        try:
            entry.asked = self._ask(entry.event, entry.args, entry.timeout)
        except Exception:
            # A value that has changed since it was checked, or an event too large for this server.
            self._finished(entry, Failure())
            return
        entry.asked.addBoth(self._answered, entry)

    def _answered(self, result: Any, entry: _Entry) -> None:
        entry.asked = None
        entry.isSent = False
        if not self._queue or self._queue[0] is not entry:
            return
        if isinstance(result, Failure) and entry.tries <= self._most:
            self._sendHead()
        else:
            self._finished(entry, result)

    def _finished(self, entry: _Entry, result: Any) -> None:
        self._queue.popleft()
        self.size -= entry.size
        if not entry.result.called:
            if isinstance(result, Failure):
                entry.result.errback(result)
            else:
                entry.result.callback(result)
        self._sendHead()

    def _cancelled(self, entry: _Entry) -> None:
        if entry in self._queue:
            self._queue.remove(entry)
            self.size -= entry.size
        if entry.asked is not None:
            entry.asked.cancel()
        self._sendHead()
