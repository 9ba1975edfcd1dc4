"""
An application's own signal handlers under ``socketio.run()``.

The reactor takes the place of a SIGTERM handler without calling it, and swallows the SystemExit of any
handler.  Under other servers an exception of a signal handler ends the server, so that applications may
call sys.exit() there.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

__all__ = ["OwnHandlers", "inMainThread"]

_Handler = Callable[[int, FrameType | None], Any]


class OwnHandlers:
    """
    The signal handlers that an application has installed before the reactor runs.

    :param stop: called to end the server.
    """

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._error: BaseException | None = None
        self._handlers: dict[int, _Handler] = {}
        self._ignored: list[int] = []
        # The reactor needs SIGCHLD for the processes that it spawns.
        for number in signal.valid_signals() - {getattr(signal, "SIGCHLD", None)}:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self._handlers[number] = handler
            elif handler is signal.SIG_IGN and number == signal.SIGTERM:
                self._ignored.append(number)

    def install(self) -> None:
        """Put the handlers back in place of the reactor's.  Call this when the reactor runs."""
        for number, handler in self._handlers.items():
            signal.signal(number, partial(self._call, handler))
        for number in self._ignored:
            signal.signal(number, signal.SIG_IGN)

    def _call(self, handler: _Handler, number: int, frame: FrameType | None) -> None:
        """Call a handler; end the server if it raises."""
        try:
            handler(number, frame)
        except BaseException as error:
            # Other servers return from run() after KeyboardInterrupt.
            self._error = None if isinstance(error, KeyboardInterrupt) else error
            self._stop()

    def restore(self) -> None:
        """Install the handlers as they were.  Call this when the reactor has stopped."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def raiseError(self) -> None:
        """Raise the exception with which a handler has ended the server, if one has."""
        if self._error is not None:
            raise self._error


def inMainThread() -> bool:
    """Tell if this is the main thread, also after eventlet has changed what `threading` says."""
    try:
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1))
    except ValueError:
        return False
    return True
