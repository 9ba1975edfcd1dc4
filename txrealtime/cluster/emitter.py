"""
Emit from anywhere: from a worker, a script or a web application, which serve no clients themselves.

::

    emitter = Emitter("redis://localhost")
    emitter.to("red").emit("news", {"headline": "hello"})

It says what a server of the cluster would say, and hears nothing.  The URL is that of the servers, the
dialect included.  :class:`Emitter` blocks until the broker has the message; :class:`DeferredEmitter` is
for processes in which Twisted's reactor runs.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from threading import RLock
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

from txrealtime.cluster.bus.blocking import publisherFromURL
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.dialects.messages import Disconnect, Emit, Join, Leave, Message, Target
from txrealtime.cluster.dialects.native import UID_LENGTH
from txrealtime.cluster.link.oneway import OneWayLink
from txrealtime.engineio import packet as engineio
from txrealtime.socketio.packet import IParser, JSONParser, Packet, PacketType, checkName
from txrealtime.socketio.rooms import checkRooms

__all__ = ["DeferredEmitter", "Emitter", "Receivers"]

# What saying something returns: None, or a Deferred of it.
R = TypeVar("R", covariant=True)

MAX_MESSAGE = 2_000_000
"""Bytes: servers throw away what is larger."""

_writing = RLock()
"""
Held while a message is written, as parsers and dialects have a state meanwhile.  One for all emitters, so
that a fork can wait for it: its child has no thread that would release it.
"""
os.register_at_fork(
    before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_writing.release
)


class _Speaker(Protocol[R]):
    def say(self, message: Message) -> R: ...


class Receivers(Generic[R]):
    """
    Some sockets of a namespace, wherever they are.

    It never changes: :meth:`to` and :meth:`excluding` make another one.
    """

    def __init__(self, speaker: _Speaker[R], target: Target) -> None:
        self._speaker = speaker
        self._target = target

    def to(self, *rooms: str) -> Receivers[R]:
        """
        Those in any of these rooms, and of the rooms named before.

        :param rooms: names, or ids of sockets.
        :raises ValueError: without a room, which would otherwise mean everybody.
        """
        _checkNamed(rooms, "to")
        return Receivers(self._speaker, self._target._replace(rooms=(self._target.rooms or ()) + rooms))

    def excluding(self, *rooms: str) -> Receivers[R]:
        """
        Without those in any of these rooms.

        :param rooms: names, or ids of sockets.
        :raises ValueError: without a room.
        """
        _checkNamed(rooms, "excluding")
        excluded = self._target.excluded.union(rooms)
        return Receivers(self._speaker, self._target._replace(excluded=excluded))

    def emit(self, event: str, *args: Any, volatile: bool = False) -> R:
        """
        Send an event to each of them.

        :param args: JSON values, bytes-like ones anywhere among them.
        :param volatile: leave out those to whom it cannot go at once.
        :raises TypeError: for a value that cannot be sent, with the path to it.
        :raises ValueError: for a reserved event name, a number that JSON lacks, or too large an event.
        :raises BusError: when the broker has not taken it; then nobody, or for a connection that broke
            meanwhile, perhaps nobody has got it.
        """
        checkName(event)
        packet = Packet(PacketType.EVENT, self._target.path, [event, *args])
        return self._speaker.say(Emit(self._target, packet, None, volatile))

    def send(self, *args: Any, volatile: bool = False) -> R:
        """Send the unnamed event, ``message``."""
        return self.emit("message", *args, volatile=volatile)

    def join(self, *rooms: str) -> R:
        """Put each of them into some rooms."""
        checkRooms(rooms)
        return self._speaker.say(Join(self._target, rooms))

    def leave(self, *rooms: str) -> R:
        """Take each of them out of some rooms."""
        checkRooms(rooms)
        return self._speaker.say(Leave(self._target, rooms))

    def disconnect(self, close: bool = False) -> R:
        """
        Disconnect each of them.

        :param close: end their connections too, with all their namespaces.
        """
        return self._speaker.say(Disconnect(self._target, close))


def _checkNamed(rooms: Sequence[str], method: str) -> None:
    if not rooms:
        raise ValueError(f"{method}() without a room; for everybody, emit on the emitter itself")
    checkRooms(rooms)


class _Anybody(Receivers[R]):
    """
    Everybody in ``/``, and the way to the other namespaces.

    :param url: the servers' bus.
    :param parser: what their clients speak, if it is not the default.
    :raises ValueError: for a URL that is none, or for which something is not installed.
    """

    def __init__(self, url: str, parser: IParser | None = None) -> None:
        super().__init__(self, Target("/"))
        self.parser = parser or JSONParser()
        self._choice, self._url = DialectChoice.fromURL(url)
        self._dialect = self._choice.create(secrets.token_urlsafe(6)[:UID_LENGTH])

    def say(self, message: Message) -> R:
        """Say something to all servers that it concerns."""
        raise NotImplementedError

    def namespace(self, path: str) -> Receivers[R]:
        """
        Everybody in a namespace.

        :raises ValueError: for a path that cannot be one.
        """
        if not path.startswith("/") or "," in path:
            raise ValueError(f"a namespace is at a path like '/chat', without a comma, not {path!r}")
        return Receivers(self, Target(path))

    def _written(self, message: Message) -> Sequence[tuple[str, bytes]]:
        with _writing:
            if isinstance(message, Emit) and message.packet is not None:
                parts = self.parser.encode(message.packet)
                message = message._replace(messages=[engineio.message(part) for part in parts])
            written = self._dialect.write(message)
        for _, data in written:
            if len(data) > MAX_MESSAGE:
                raise ValueError(f"a message of {len(data)} bytes is too large: servers take {MAX_MESSAGE}")
        return written


class Emitter(_Anybody[None]):
    """
    Emits and waits until the broker has it: for workers of Celery, scripts and threads.

    It connects when it is first used, and again when the connection was lost.  Threads may share it, and
    a process that was forked makes a connection of its own.

    :param url: the servers' bus, as for ``twistd realtime --bus``.
    :param parser: what their clients speak, if it is not the default.
    :param timeout: seconds that the broker has to answer: to take us, and then each message.
    """

    def __init__(self, url: str, parser: IParser | None = None, timeout: float = 5.0) -> None:
        super().__init__(url, parser)
        self._publisher = publisherFromURL(self._url, self._choice.fanout, timeout)

    def say(self, message: Message) -> None:
        for topic, data in self._written(message):
            self._publisher.publish(topic, data)

    def close(self) -> None:
        """Disconnect from the broker; whatever is said later connects again."""
        self._publisher.close()

    def __enter__(self) -> Emitter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class DeferredEmitter(_Anybody[Deferred[None]]):
    """
    Emits, and tells by a Deferred when the broker has it: for processes in which the reactor runs.

    The Deferreds fail with :exc:`~txrealtime.errors.BusError`; a mistake of the caller is raised at once.

    :param url: the servers' bus, as for ``twistd realtime --bus``.
    :param parser: what their clients speak, if it is not the default.
    :param reactor: the installed one by default.
    :param timeout: seconds that the broker has to answer: to take us, and then each message.
    """

    def __init__(
        self, url: str, parser: IParser | None = None, reactor: Any = None, timeout: float = 5.0
    ) -> None:
        super().__init__(url, parser)
        if reactor is None:
            from twisted.internet import reactor
        self._link = OneWayLink(busFromURL(self._url, fanout=self._choice.fanout), reactor, timeout)

    def say(self, message: Message) -> Deferred[None]:
        said = [self._link.publish(topic, data) for topic, data in self._written(message)]
        return gatherResults(said, consumeErrors=True).addCallbacks(lambda _: None, _firstError)

    def close(self) -> Deferred[None]:
        """
        Disconnect from the broker; whatever is said later connects again.

        :return: fires when the broker has everything, or has not answered in its time.
        """
        return self._link.close()


def _firstError(failure: Failure) -> Failure:
    error: FirstError = failure.value  # type: ignore[assignment]
    return error.subFailure
