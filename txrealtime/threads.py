"""
Calls from other threads into the reactor's.

A server belongs to the thread of the reactor.  A :class:`Handover` takes calls from any thread and makes
them there, those of one thread in their order, many in one turn of the reactor, which is woken once for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Event
from typing import Any, Final, Protocol

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from txrealtime.errors import Disconnected
from txrealtime.logs import Logger

__all__ = ["Crossing", "Handover", "Waiter"]

_log = Logger()

# Calls made before sockets have their turn again.
_BATCH: Final = 1000


class Crossing(Protocol):
    """An object that takes calls to a server's thread: a :class:`Handover`, or its double in a test."""

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called, and do not wait."""

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """Have a function called, and wait for its result."""


class Waiter:
    """A thread that waits for a result."""

    __slots__ = ("_event", "_result")

    def __init__(self) -> None:
        self._event = Event()
        self._result: Any = None

    def ask(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function, which may return a Deferred, in the reactor's thread."""
        maybeDeferred(function, *args).addBoth(self.answer)

    def answer(self, result: Any) -> None:
        """Let the thread go on with a result, or with a :class:`~twisted.python.failure.Failure`."""
        if not self._event.is_set():
            self._result = result
            self._event.set()

    @property
    def answered(self) -> bool:
        """True when the result has come."""
        return self._event.is_set()

    def wait(self) -> Any:
        """Wait for the result, and return or raise it."""
        self._event.wait()
        if isinstance(self._result, Failure):
            self._result.raiseException()
        return self._result


class Handover:
    """
    A bridge for calls from any thread to the reactor's.

    ``reactor.callFromThread`` writes a byte to a pipe for each call.  Here only the first call wakes the
    reactor, and calls that come before it has woken go along.

    :param reactor: provides ``IReactorThreads`` and ``IReactorCore``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False
        self._waiters: set[Waiter] = set()
        self._stopped = False
        reactor.addSystemEventTrigger("after", "shutdown", self._stop)

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """
        Have a function called in the reactor's thread, and do not wait.

        The calls of one thread are made in their order; an error is logged.  In the reactor's thread the
        function is called at once.
        """
        if isInIOThread() and self._reactor.running:
            self._make(function, args)
            return
        self._calls.append((function, args))
        # A thread that sees True has put its call before _drain() looks, which sets False first.
        if not self._woken:
            self._woken = True
            self._reactor.callFromThread(self._drain)

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Have a function called in the reactor's thread, and wait for its result.

        Earlier calls of this thread are made before.

        :param function: may return a Deferred, which is waited for: give the Deferred a timeout.
        :raises RuntimeError: if called in the reactor's thread, which would wait for itself, or if the
            reactor does not run.
        :raises Disconnected: if the reactor stops before there is a result.
        """
        name = _nameOf(function)
        if not self._reactor.running:
            raise RuntimeError(f"{name} waits for the reactor, which does not run: start the server first")
        if isInIOThread():
            raise RuntimeError(
                f"{name} was called in the reactor's thread and would wait for itself for ever: "
                "call it in another thread, such as a handler's or one of deferToThread"
            )
        waiter = Waiter()
        self._waiters.add(waiter)
        try:
            if self._stopped:
                raise Disconnected("the server has stopped")
            self.call(waiter.ask, function, *args)
            return waiter.wait()
        finally:
            self._waiters.discard(waiter)

    def _drain(self) -> None:
        """Make the waiting calls, up to a batch."""
        self._woken = False
        calls = self._calls
        for _ in range(_BATCH):
            try:
                function, args = calls.popleft()
            except IndexError:
                return
            self._make(function, args)
        if not self._woken:
            self._woken = True
            self._reactor.callFromThread(self._drain)

    def _make(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except Exception:
            _log.failure(
                "{name}, called from another thread, failed",
                name=_nameOf(function),
            )

    def _stop(self) -> None:
        self._stopped = True
        for waiter in list(self._waiters):
            waiter.answer(Failure(Disconnected("the server has stopped")))


def _nameOf(function: Callable[..., object]) -> str:
    """Return a function's name for an error or a log; of a ``partial``, that of the function inside."""
    function = getattr(function, "func", function)
    return getattr(function, "__qualname__", type(function).__name__)
