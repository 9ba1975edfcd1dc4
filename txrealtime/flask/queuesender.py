"""
Sending from a process in which no server runs, such as a worker or a script, through a message queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from flask import Flask

from txrealtime.cluster.emitter import Emitter, Receivers
from txrealtime.flask.jsonmodule import JSONModule
from txrealtime.flask.names import roomNames
from txrealtime.flask.options import Configuration
from txrealtime.socketio.past import Limit

__all__ = ["QueueSender"]


class QueueSender:
    """
    A :class:`~txrealtime.flask.interfaces.Sender` that publishes to a message queue.

    A process without clients gets no answers: :meth:`call`, :meth:`rooms` and callbacks are refused.

    :param bus: the URL of the servers' bus.
    :param app: the application, if there is one.
    """

    def __init__(self, bus: str, configuration: Configuration, app: Flask | None) -> None:
        self._bus = bus
        self._parser = configuration.parser
        self._json = None if configuration.json is None else JSONModule(configuration.json, app)
        self._emitter: Emitter | None = None

    def emitter(self) -> Emitter:
        """
        Create the emitter on first use: redis-py may not be installed on servers.

        :raises ValueError: if the URL is malformed, or a package that it needs is not installed.
        """
        if self._emitter is None:
            self._emitter = Emitter(self._bus, self._parser())
        return self._emitter

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
        if callback is not None:
            _refuse("a callback")
        if self._json is not None:
            args = self._json.plain(tuple(args))
        receivers: Receivers[None] | None = self.emitter().namespace(path)
        if to is not None:
            receivers = self._to(path, to)
        left = roomNames(skip)
        if receivers is not None:
            (receivers.excluding(*left) if left else receivers).emit(event, *args)

    def call(self, event: str, args: Sequence[Any], path: str, to: str, timeout: float) -> NoReturn:
        """Refuse: no answer can come back."""
        _refuse("call()")

    def rooms(self, path: str, sid: str) -> NoReturn:
        """Refuse: no answer can come back."""
        _refuse("rooms()")

    def history(self, path: str, room: Any, last: Limit) -> NoReturn:
        """Refuse: no answer can come back."""
        _refuse("history()")

    def join(self, path: str, sid: str, room: Any, rewind: Limit = None) -> None:
        """Put a client into a room; refuse to wait for the past."""
        if rewind is not None:
            _refuse("rewind=")
        self._move(Receivers.join, path, sid, room)

    def leave(self, path: str, sid: str, room: Any) -> None:
        """Take a client out of a room."""
        self._move(Receivers.leave, path, sid, room)

    def _move(self, move: Callable[..., None], path: str, to: Any, room: Any) -> None:
        """Publish that clients join or leave rooms, if there is a room."""
        names, receivers = roomNames(room), self._to(path, to)
        if names and receivers is not None:
            move(receivers, *names)

    def close(self, path: str, room: Any) -> None:
        """Take everybody out of a room."""
        self.leave(path, room, room)

    def disconnect(self, path: str, sid: str) -> None:
        """Disconnect a client from a namespace."""
        receivers = self._to(path, sid)
        if receivers is not None:
            receivers.disconnect()

    def _to(self, path: str, to: Any) -> Receivers[None] | None:
        """Return the clients in rooms; ``None`` if no room is named."""
        rooms = roomNames(to)
        return self.emitter().namespace(path).to(*rooms) if rooms else None


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(
        f"{what} needs an answer, and this process only sends: it has a message_queue and no running server"
    )
