"""
A process that serves nobody, and only sends: a worker, or a script, with a message queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from txrealtime.cluster.emitter import Emitter, Receivers
from txrealtime.flask.names import roomNames

__all__ = ["Outside"]


class Outside:
    """
    What :class:`~txrealtime.flask.inside.Inside` does, as far as it goes without clients.

    :param url: the bus of the servers.
    :raises ValueError: for a URL that is none, or for which something is not installed.
    """

    def __init__(self, url: str) -> None:
        self._emitter = Emitter(url)

    def emit(
        self,
        event: str,
        args: Sequence[Any],
        path: str,
        to: Any,
        skip: Any,
        callback: Callable[..., Any] | None,
    ) -> None:
        """Send an event."""
        if callback is not None:
            _refuse("a callback")
        receivers: Receivers[None] | None = self._emitter.namespace(path)
        if to is not None:
            receivers = self._to(path, to)
        left = roomNames(skip)
        if receivers is not None:
            (receivers.excluding(*left) if left else receivers).emit(event, *args)

    def call(self, *args: Any) -> NoReturn:
        """Not possible."""
        _refuse("call()")

    def rooms(self, *args: Any) -> NoReturn:
        """Not possible."""
        _refuse("rooms()")

    def join(self, path: str, sid: str, room: Any) -> None:
        """Put a client into a room."""
        self.doTo(path, sid, "join", *roomNames(room))

    def close(self, path: str, room: Any) -> None:
        """Take everybody out of a room."""
        self.doTo(path, room, "leave", *roomNames(room))

    def doTo(self, path: str, to: Any, method: str, *args: Any) -> None:
        """Have a method of an audience called, on the servers."""
        receivers = self._to(path, to)
        if receivers is not None:
            getattr(receivers, method)(*args)

    def _to(self, path: str, to: Any) -> Receivers[None] | None:
        rooms = roomNames(to)
        return self._emitter.namespace(path).to(*rooms) if rooms else None


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(
        f"{what} needs an answer, and this process only sends: it has a message_queue and no application"
    )
