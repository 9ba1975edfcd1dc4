"""
The application of the soak on a server that loses a message now and then, to see whether the clients notice.
"""

from __future__ import annotations

from typing import Any

from tests.soak.app import report, server
from txrealtime.socketio.sockets import Socket

__all__ = ["report", "server"]

_emit = Socket.emit


def _lossyEmit(self: Socket, event: str, *args: Any, **options: Any) -> None:
    if event != "tick" or args[0] % 5 < 4:
        _emit(self, event, *args, **options)


Socket.emit = _lossyEmit
