"""
Time that only goes forward.

Twisted's reactors tell the time of day, so a step of the system's clock (NTP at the boot of a Raspberry Pi, a
suspended virtual machine, a hand) moves every timer: forward, all heartbeats are overdue at once and every
client is closed; back, none is sent for as long.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.python import runtime

__all__ = ["keepSteady"]


def keepSteady(reactor: Any) -> None:
    """
    Let a reactor's timers run by a clock that no step of the time of day moves.

    ``reactor.seconds()`` goes on from its value, in step with ``time.monotonic()``, so timers that are
    set already stay right.  A reactor with another clock, such as asyncio's or that of a test, is left
    alone.  ``twistd realtime`` and ``socketio.run()`` call this; a program that runs the reactor itself
    calls it before ``reactor.run()``.
    """
    if getattr(reactor, "seconds", None) is runtime.seconds:
        offset, monotonic = runtime.seconds() - time.monotonic(), time.monotonic
        reactor.seconds = lambda: monotonic() + offset
