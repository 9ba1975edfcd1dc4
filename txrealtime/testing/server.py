"""
A server for a test, on a clock.
"""

from __future__ import annotations

from typing import Any, Unpack

from twisted.internet.task import Clock

from txrealtime.logs import repeats
from txrealtime.server import Server, ServerOptions

__all__ = ["makeServer"]


def makeServer(reactor: Any = None, **options: Unpack[ServerOptions]) -> Server:
    """
    Make a server for a test, and start it.

    :param reactor: the clock; a new :class:`~twisted.internet.task.Clock` by default.
    :param options: as for :class:`~txrealtime.server.Server`.
    """
    # A test counts failures by flushLoggedErrors(): log each of them.
    repeats.window = 0.0
    server = Server(reactor=reactor or Clock(), **options)
    server.startService()
    return server
