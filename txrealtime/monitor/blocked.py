"""
A watch over the reactor: a thread that logs the stack of a reactor that is blocked.

A handler that computes or sleeps stops all clients, and nothing else in the log says so.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel

from txrealtime.logs import Logger
from txrealtime.monitor.counts import TIMED
from txrealtime.socketio.dispatch import Dispatcher
from txrealtime.socketio.handler import CONTINUING

__all__ = ["Watch"]

_log = Logger()

_DEEPEST: Final = 20
"""Frames of a logged stack."""


class _Stack:
    """A stack as lines of text: an object, as a logged text would have its line ends escaped."""

    def __init__(self, frame: FrameType) -> None:
        summary = traceback.extract_stack(frame, _DEEPEST)
        self._text = "".join(traceback.format_list(summary)).rstrip()

    def __str__(self) -> str:
        return self._text


class Watch:
    """
    A watch over a reactor.

    The reactor reports four times in `after` seconds, and a thread looks as often if it has.  A blocked
    reactor is one line with its stack, and another when it turns again.

    :param after: seconds without a turn after which the reactor counts as blocked.
    :param seconds: the clock, for any thread.
    """

    def __init__(self, reactor: Any, after: float, seconds: Callable[[], float] = time.monotonic) -> None:
        self._reactor = reactor
        self._after = after
        self._period = after / 4
        self._seconds = seconds
        self._turned = 0.0
        # The last turn before the block that the log has told.
        self._told: float | None = None
        self._watched = 0
        self._call: IDelayedCall | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch as soon as the reactor runs."""
        self._reactor.callWhenRunning(self._begin)

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _begin(self) -> None:
        if not self._stopped.is_set():
            self.turn()
            threading.Thread(target=self._run, name="txrealtime watch", daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.wait(self._period):
            try:
                self.look()
            except Exception:
                _log.failure("the watch over the reactor failed")

    def turn(self) -> None:
        """Called in the reactor's thread, again and again."""
        now = self._seconds()
        if self._told is not None:
            _log.limited(
                "",
                LogLevel.warn,
                "the reactor turns again after {seconds:.1f} s",
                seconds=now - self._told,
            )
            self._told = None
        self._watched = threading.get_ident()
        self._turned = now
        self._call = self._reactor.callLater(self._period, self.turn)

    def look(self) -> None:
        """Called in the watching thread: log a blocked reactor, once."""
        turned = self._turned
        blocked = self._seconds() - turned
        if blocked < self._after + self._period or turned == self._told:
            return
        frame = sys._current_frames().get(self._watched)
        if frame is None or frame.f_code.co_name in ("doPoll", "doSelect"):
            return  # It waits for events: the process was stopped, and goes on.
        self._told = turned
        name = next(_handlersOf(frame), "a callback")
        _log.limited(
            name,
            LogLevel.warn,
            "the reactor is blocked for {seconds:.1f} s by {name}, and all clients wait: run slow work in a "
            "thread (deferToThread) or await it.\n{stack}",
            seconds=blocked,
            name=name,
            stack=_Stack(frame),
        )


def _handlersOf(frame: FrameType | None) -> Iterator[str]:
    """Yield the handlers that run in a stack, the innermost first."""
    while frame is not None:
        values = frame.f_locals
        # With middleware, the frame of Dispatcher.handle is further in.
        isTimed = frame.f_code in TIMED and not values["middleware"]
        if (isTimed or frame.f_code is Dispatcher.handle.__code__) and values.get("handler") is not None:
            event, dispatcher = values["event"][:100], values["dispatcher" if isTimed else "self"]
            yield f"{values['handler'].name}, the handler of {event!r} in {dispatcher.namespace.path}"
        elif frame.f_code in CONTINUING:
            yield f"{values['coroutine'].__qualname__}, a handler that was waiting"
        frame = frame.f_back
