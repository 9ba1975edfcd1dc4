"""
The exception that refuses a client, under the name that Flask applications know.
"""

from __future__ import annotations

from typing import Any

from txrealtime.errors import ConnectionRejected

__all__ = ["ConnectionRefusedError"]


class ConnectionRefusedError(ConnectionRejected):
    """
    Raise this in a ``connect`` handler to refuse a client.

    :param args: the message that the client gets, and one value or several that it gets as data.
    """

    def __init__(self, *args: Any) -> None:
        message = str(args[0]) if args else "Connection rejected by server"
        data = None if len(args) < 2 else args[1] if len(args) == 2 else list(args[1:])
        super().__init__(message, data)
