"""
The interfaces between the modules of the Flask bridge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from txrealtime.socketio.past import Limit, PastEvent

__all__ = ["Application", "Sender"]


class Sender(Protocol):
    """
    The way from an application to its clients: through its own server, or through a message queue.

    All methods may be called in any thread.  ``path`` is a namespace; ``to`` and ``skip`` are a room, a
    sid, or a list of these.
    """

    def emit(
        self,
        event: str,
        args: Sequence[Any],
        path: str,
        to: Any,
        skip: Any,
        callback: Callable[..., Any] | None,
    ) -> None:
        """Send an event; `to` is ``None`` for everybody in the namespace."""

    def call(self, event: str, args: Sequence[Any], path: str, to: str, timeout: float) -> Any:
        """Send an event to one client and wait for its ack."""

    def rooms(self, path: str, sid: str) -> list[str]:
        """Return the rooms of a client."""

    def join(self, path: str, sid: str, room: Any, rewind: Limit = None) -> None:
        """Put a client into a room, and send it the last events of the room."""

    def leave(self, path: str, sid: str, room: Any) -> None:
        """Take a client out of a room."""

    def close(self, path: str, room: Any) -> None:
        """Take everybody out of a room."""

    def history(self, path: str, room: Any, last: Limit) -> list[PastEvent]:
        """Return the last events of a room."""

    def disconnect(self, path: str, sid: str) -> None:
        """Disconnect a client from a namespace."""


class Application(Protocol):
    """The methods of :class:`~txrealtime.flask.SocketIO` that functions and class-based namespaces call."""

    def emit(self, event: str, *args: Any, **options: Any) -> None:
        """Send an event."""

    def send(self, data: Any, *args: Any, **options: Any) -> None:
        """Send the event ``message`` or ``json``."""

    def call(self, event: str, *args: Any, **options: Any) -> Any:
        """Send an event and wait for its ack."""

    def enter_room(self, sid: str, room: Any, namespace: str | None = None, rewind: Limit = None) -> None:
        """Put a client into a room, and send it the last events of the room."""

    def history(self, room: Any, last: Limit = None, namespace: str | None = None) -> list[PastEvent]:
        """Return the last events of a room."""

    def leave_room(self, sid: str, room: Any, namespace: str | None = None) -> None:
        """Take a client out of a room."""

    def close_room(self, room: Any, namespace: str | None = None) -> None:
        """Take everybody out of a room."""

    def rooms(self, sid: str, namespace: str | None = None) -> list[str]:
        """Return the rooms of a client."""

    def disconnect(self, sid: str, namespace: str | None = None) -> None:
        """Disconnect a client from a namespace."""

    def start_background_task(self, target: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Run a function in a thread of its own."""

    def sleep(self, seconds: float = 0) -> None:
        """Sleep in the current thread."""

    @property
    def server(self) -> Any:
        """Return the facade of python-socketio's server."""
