"""
Exceptions of the Flask bridge.
"""

from __future__ import annotations

from typing import Any

from txrealtime.errors import ConnectionRejected

__all__ = ["ConnectionRefusedError", "OutsideOfHandler"]


class ConnectionRefusedError(ConnectionRejected):
    """
    The refusal of a client, raised by a ``connect`` handler.

    :param args: the message that the client gets, and one value or several that it gets as data.
    """

    def __init__(self, *args: Any) -> None:
        message = str(args[0]) if args else "Connection rejected by server"
        data = None if len(args) < 2 else args[1] if len(args) == 2 else list(args[1:])
        super().__init__(message, data)


class OutsideOfHandler(RuntimeError, AttributeError):
    """
    A function that needs the client of an event was called outside of a handler.

    Applications for Flask-SocketIO catch :exc:`AttributeError` or :exc:`RuntimeError` there, by Flask's
    version and the place of the call.
    """
