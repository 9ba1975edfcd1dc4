"""
Greenlets that handlers start, in a process whose threads eventlet or gevent has left alone.

A greenlet belongs to the thread that has started it.  In Flask-SocketIO's modes for eventlet and gevent, all
handlers share one thread, which runs all greenlets.  Here each handler has a thread of the pool, which runs
the handler's greenlets once the handler has returned.
"""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Final

__all__ = ["Task", "leftGreenlets", "threadsAreGreen"]

_TURN: Final = 0.05
"""The most seconds between two looks at the greenlets that are left."""


def threadsAreGreen() -> bool:
    """Tell if gevent or eventlet has put greenlets in the place of threads."""
    return _thread.start_new_thread.__module__ != "_thread"


def leftGreenlets() -> Callable[[], object] | None:
    """Return a function that runs the greenlets that are left in this thread, if there are any."""
    eventlet, gevent = sys.modules.get("eventlet"), sys.modules.get("gevent")
    if (eventlet is None and gevent is None) or threadsAreGreen():
        return None
    if eventlet is not None and _eventletWaits():
        return _runEventlet
    if gevent is not None and not gevent.wait(timeout=0):
        return gevent.wait  # type: ignore[no-any-return]
    return None


class Task(Thread):
    """A thread that runs the greenlets of its target after the target, and is joined after the target."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._returned = Event()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._returned.set()
        work = leftGreenlets()
        if work is not None:
            work()

    def join(self, timeout: float | None = None) -> None:
        self._returned.wait(timeout)


def _eventletWaits() -> bool:
    """Tell if eventlet's hub of this thread has greenlets that wait for a time or a file."""
    from eventlet.hubs import get_hub  # type: ignore[import-not-found,unused-ignore]

    hub: Any = get_hub()
    return bool(
        hub.get_timers_count() > hub.timers_canceled or any(hub.get_readers()) or any(hub.get_writers())
    )


def _runEventlet() -> None:
    import eventlet  # type: ignore[import-not-found,unused-ignore]

    while _eventletWaits():
        eventlet.sleep(_TURN)
