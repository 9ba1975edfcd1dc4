"""
A process in which no server runs, and that only sends: a worker, or a script, with a message queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from flask import Flask

from txrealtime.cluster.emitter import Emitter, Receivers
from txrealtime.flask.jsonmodule import JSONModule
from txrealtime.flask.names import roomNames
from txrealtime.flask.options import Configuration

__all__ = ["Outside"]


class Outside:
    """
    What :class:`~txrealtime.flask.sender.Inside` does, as far as it goes without clients.

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
        What publishes, made when it is first needed: what it takes is not installed wherever a server runs.

        :raises ValueError: for a URL that is none, or for which something is not installed.
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
        """Send an event."""
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
        return self.emitter().namespace(path).to(*rooms) if rooms else None


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(
        f"{what} needs an answer, and this process only sends: it has a message_queue and no running server"
    )
