"""
A reactor for many small messages, which ``twistd realtime`` takes unless ``--reactor`` chooses another one.

The reactor is Twisted's epoll reactor without a logging context for each event.  Setting up this
context costs 2.4 us, and reading an event 0.5 us.  In twistd's log, lines written while an event is
handled lack the prefix of the connection, such as ``[HTTPChannel,7,127.0.0.1]``.  And a turn in which only
connections have something to do does not look for other work in seven calls, but in one condition: 0.1 us in
place of 0.5.  Nothing else differs.

twistd installs Twisted's own reactor before it reads any option of ours, so
:func:`quicken` gives that one the same loop.  In other programs
``twistd --reactor=quickepoll`` installs the reactor by name.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from txrealtime.foreign import stands
from txrealtime.logs import Logger

__all__ = ["QuickEPollReactor", "install", "isQuick", "quicken"]

_log = Logger()

_READABLE: Final = 1  # EPOLLIN alone

# The most events of one call of poll().  Twisted asks for as many events as it has connections, and
# Python allocates room for all of them in each call.  Events beyond the limit come first next time.
_AT_ONCE: Final = 512

# Seconds: Twisted's own loop knows how to wait longer.
_LONGEST: Final = 86400.0


def _canBeQuick(reactor: object) -> bool:
    return stands(
        reactor,
        *("_poller", "_selectables", "_doReadOrWrite", "_disconnectSelectable"),
        *("_started", "_justStopped", "threadCallQueue", "_newTimedCalls", "_pendingTimedCalls"),
        without="quickepoll is as slow as epoll",
    )


class QuickEPollReactor(EPollReactor):
    """An epoll reactor with less to do for each event and each turn."""

    _poller: Any
    _selectables: dict[int, Any]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not _canBeQuick(self):
            self.doIteration = super().doPoll  # type: ignore[method-assign]
            self.mainLoop = super().mainLoop  # type: ignore[method-assign]

    def mainLoop(self) -> None:
        while self._started:
            try:
                self.runUntilCurrent()
                self.doIteration(self.timeout() if self.running else 0)
                # As the two lines above, while no call is due.
                while self.running and not (self._newTimedCalls or self.threadCallQueue or self._justStopped):
                    calls = self._pendingTimedCalls
                    timeout = calls[0].time - self.seconds() if calls else None
                    if timeout is not None and not 0 < timeout < _LONGEST:
                        break
                    self.doIteration(timeout)
            except BaseException:  # as in Twisted's loop
                _log.failure("unexpected error in the main loop")
        _log.info("Main loop terminated.")

    def doPoll(self, timeout: float | None) -> None:
        try:
            ready = self._poller.poll(-1 if timeout is None else timeout, _AT_ONCE)
        except InterruptedError:
            return
        find = self._selectables.get
        for fd, event in ready:
            selectable = find(fd)
            if selectable is None:
                continue  # closed while an earlier event was handled
            if event != _READABLE:
                self._doReadOrWrite(selectable, fd, event)  # type: ignore[no-untyped-call]
                continue
            # As _doReadOrWrite, for the most frequent event.
            try:
                why = selectable.doRead()
            except BaseException as error:
                _log.failure("a connection failed")
                why = error
            if why:
                self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]

    doIteration = doPoll


def install() -> None:
    """Install this reactor as the one of the process."""
    installReactor(QuickEPollReactor())


def quicken(reactor: Any) -> None:
    """
    Give Twisted's epoll reactor the loop of a :class:`QuickEPollReactor`, or a part of it if it runs already.

    Any other reactor is left alone, also one of a subclass.
    """
    if reactor.__class__ is EPollReactor and _canBeQuick(reactor):
        reactor.doIteration = MethodType(QuickEPollReactor.doPoll, reactor)  # type: ignore[method-assign]
        reactor.mainLoop = MethodType(QuickEPollReactor.mainLoop, reactor)  # type: ignore[method-assign]


def isQuick(reactor: Any) -> bool:
    """Tell if a reactor is a :class:`QuickEPollReactor`, or waits for events as one does."""
    poll = getattr(reactor, "doIteration", None)
    return getattr(poll, "__func__", None) is QuickEPollReactor.doPoll
