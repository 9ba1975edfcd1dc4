"""
The order of one client's handlers in one namespace.

::

    connect  ->  events and callbacks, side by side or in turn  ->  disconnect

A handler runs in a thread and cannot be stopped, so the client may leave at any moment of this.  The
disconnect handler runs once and last, if the connect handler has begun and has not refused the client.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Membership"]


class Membership:
    """
    One client's stay in one namespace, from its CONNECT to the end of its disconnect handler.

    All methods are called in the reactor's thread.

    :param end: called once, when the client has left and no handler of it runs or waits.
    :ivar isConnecting: whether the connect handler waits or runs.
    :ivar isRefused: whether the connect handler has refused the client, or never begun.
    :ivar isLeaving: whether the connect handler has disconnected the client, which is done when it has
    returned.
    :ivar reason: the reason for which the client has left, in Flask-SocketIO's words.  Handlers' threads
    read it.
    :ivar hasEnded: whether `end` has been called.
    """

    __slots__ = ("_end", "_held", "_jobs", "hasEnded", "isConnecting", "isLeaving", "isRefused", "reason")

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end
        self._held: list[Callable[[], object]] = []
        self._jobs = 0
        self.isConnecting = self.isRefused = self.isLeaving = self.hasEnded = False
        self.reason: str | None = None

    def hold(self, call: Callable[[], object]) -> None:
        """Make a call when the connect handler has returned."""
        self._held.append(call)

    def decided(self, admitted: bool) -> None:
        """Called when the connect handler has returned, before the client is told."""
        self.isConnecting = False
        self.isRefused = not admitted

    def release(self) -> None:
        """Make the calls that were held."""
        held, self._held = self._held, []
        for call in held:
            call()
        self._check()

    def started(self) -> None:
        """Called when a handler or callback begins to wait for a thread."""
        self._jobs += 1

    def finished(self) -> None:
        """Called when a handler or callback has returned, after its ack."""
        self._jobs -= 1
        self._check()

    def left(self, reason: str) -> None:
        """Called when the client has left, whether it was let in or not."""
        self.reason = self.reason or reason
        self._check()

    def _check(self) -> None:
        if self.reason is not None and not (self._jobs or self.isConnecting or self._held or self.hasEnded):
            self.hasEnded = True
            self._end()
