"""
Emitting from processes that serve no clients: workers, scripts, web applications.

::

    emitter = Emitter("redis://localhost")
    emitter.to("red").emit("news", {"headline": "hello"})

An emitter publishes the messages that a server of the cluster would publish, and receives nothing.  Its URL
is that of the servers, with the same dialect and the same list of brokers.  :class:`Emitter` blocks until the
broker has the message; :class:`DeferredEmitter` is for processes in which Twisted's reactor runs.
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
from txrealtime.cluster.bus.spread import splitBuses
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.dialects.messages import Disconnect, Emit, Join, Leave, Message, Target
from txrealtime.cluster.dialects.native import UID_LENGTH
from txrealtime.cluster.link.oneway import OneWayLink
from txrealtime.engineio import packet as engineio
from txrealtime.socketio.packet import IParser, JSONParser, Packet, PacketType, checkName
from txrealtime.socketio.rooms import checkRooms

__all__ = ["DeferredEmitter", "Emitter", "Receivers"]

# The result of an emit: None, or a Deferred of None.
R = TypeVar("R", covariant=True)

MAX_MESSAGE = 2_000_000
"""Bytes.  Servers throw away larger messages."""

_writing = RLock()
"""
Held while a message is encoded, because parsers and dialects keep state meanwhile.  There is one for all
emitters, and a fork acquires it: the child has no thread that would release it.
"""
os.register_at_fork(
    before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_writing.release
)


class _Speaker(Protocol[R]):
    def say(self, message: Message) -> R: ...


class Receivers(Generic[R]):
    """
    Some sockets of a namespace, on any server.

    It never changes: :meth:`to` and :meth:`excluding` return another one.
    """

    def __init__(self, speaker: _Speaker[R], target: Target) -> None:
        self._speaker = speaker
        self._target = target

    def to(self, *rooms: str) -> Receivers[R]:
        """
        Select the sockets in any of these rooms, or of the rooms named before.

        :param rooms: names of rooms, or ids of sockets.
        :raises ValueError: if there is no room: that would mean everybody.
        """
        _checkNamed(rooms, "to")
        return Receivers(self._speaker, self._target._replace(rooms=(self._target.rooms or ()) + rooms))

    def excluding(self, *rooms: str) -> Receivers[R]:
        """
        Leave out the sockets in any of these rooms.

        :param rooms: names of rooms, or ids of sockets.
        :raises ValueError: if there is no room.
        """
        _checkNamed(rooms, "excluding")
        excluded = self._target.excluded.union(rooms)
        return Receivers(self._speaker, self._target._replace(excluded=excluded))

    def emit(self, event: str, *args: Any, volatile: bool = False) -> R:
        """
        Send an event to each of the sockets.

        :param args: JSON values, with bytes-like values anywhere among them.
        :param volatile: leave out clients that it cannot be sent to at once.
        :raises TypeError: if a value cannot be sent; the text has the path to it.
        :raises ValueError: if the name is reserved, JSON has no such number, or the event is too large.
        :raises BusError: if the broker has not confirmed the event.  Nobody has got it, unless the connection
            broke while it was sent.
        """
        checkName(event)
        packet = Packet(PacketType.EVENT, self._target.path, [event, *args])
        return self._speaker.say(Emit(self._target, packet, None, volatile))

    def send(self, *args: Any, volatile: bool = False) -> R:
        """Send an event named ``message``."""
        return self.emit("message", *args, volatile=volatile)

    def join(self, *rooms: str) -> R:
        """Put each of the sockets into some rooms."""
        checkRooms(rooms)
        return self._speaker.say(Join(self._target, rooms))

    def leave(self, *rooms: str) -> R:
        """Take each of the sockets out of some rooms."""
        checkRooms(rooms)
        return self._speaker.say(Leave(self._target, rooms))

    def disconnect(self, close: bool = False) -> R:
        """
        Disconnect each of the sockets.

        :param close: close their connections too, with all their namespaces.
        """
        return self._speaker.say(Disconnect(self._target, close))


def _checkNamed(rooms: Sequence[str], method: str) -> None:
    if not rooms:
        raise ValueError(f"{method}() without a room; for everybody, emit on the emitter itself")
    checkRooms(rooms)


class _Everybody(Receivers[R]):
    """
    Everybody in ``/``, and the way to the other namespaces.

    :param url: the URL of the servers' bus.
    :param parser: the servers' parser, if it is not the default.
    :raises ValueError: if the URL is broken, or a library that it needs is not installed.
    """

    def __init__(self, url: str, parser: IParser | None = None) -> None:
        super().__init__(self, Target("/"))
        self.parser = JSONParser() if parser is None else parser
        self._choice, rest = DialectChoice.fromURL(url)
        self._urls = splitBuses(rest)
        self._dialect = self._choice.create(secrets.token_urlsafe(6)[:UID_LENGTH])

    def say(self, message: Message) -> R:
        """Publish a message to the servers that it concerns."""
        raise NotImplementedError

    def _ownerOf(self, topic: str) -> int:
        """Return the place of the broker that a message on a topic goes to."""
        return 0 if self._choice.spread is None else self._choice.spread.ownerOf(topic)

    def namespace(self, path: str) -> Receivers[R]:
        """
        Select everybody in a namespace.

        :raises ValueError: if there can be no namespace at the path.
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


class Emitter(_Everybody[None]):
    """
    An emitter that waits until the broker has each message: for Celery's workers, scripts and threads.

    It connects when it is first used, and again when the connection was lost.  Threads may share it.  A
    forked process makes a connection of its own.

    :param url: the URL of the servers' bus, as for ``twistd realtime --bus``.
    :param parser: the servers' parser, if it is not the default.
    :param timeout: seconds that the broker has to accept the connection, and then to confirm each message.
    """

    def __init__(self, url: str, parser: IParser | None = None, timeout: float = 5.0) -> None:
        super().__init__(url, parser)
        self._publishers = [publisherFromURL(each, self._choice.fanout, timeout) for each in self._urls]

    def say(self, message: Message) -> None:
        for topic, data in self._written(message):
            self._publishers[self._ownerOf(topic)].publish(topic, data)

    def close(self) -> None:
        """Disconnect from the broker.  The next message connects again."""
        for publisher in self._publishers:
            publisher.close()

    def __enter__(self) -> Emitter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class DeferredEmitter(_Everybody[Deferred[None]]):
    """
    An emitter for processes in which the reactor runs: a Deferred fires when the broker has the message.

    The Deferreds fail with :exc:`~txrealtime.errors.BusError`.  A mistake of the caller is raised at once.

    :param url: the URL of the servers' bus, as for ``twistd realtime --bus``.
    :param parser: the servers' parser, if it is not the default.
    :param reactor: by default the installed one.
    :param timeout: seconds that the broker has to accept the connection, and then to confirm each message.
    """

    def __init__(
        self, url: str, parser: IParser | None = None, reactor: Any = None, timeout: float = 5.0
    ) -> None:
        super().__init__(url, parser)
        if reactor is None:
            from twisted.internet import reactor
        self._links = [
            OneWayLink(busFromURL(each, fanout=self._choice.fanout), reactor, timeout) for each in self._urls
        ]

    def say(self, message: Message) -> Deferred[None]:
        published = [
            self._links[self._ownerOf(topic)].publish(topic, data) for topic, data in self._written(message)
        ]
        return gatherResults(published, consumeErrors=True).addCallbacks(lambda _: None, _firstError)

    def close(self) -> Deferred[None]:
        """
        Disconnect from the broker.  The next message connects again.

        :return: fires when the broker has all messages, or has not answered in time.
        """
        return gatherResults([link.close() for link in self._links]).addCallback(lambda _: None)


def _firstError(failure: Failure) -> Failure:
    error: FirstError = failure.value  # type: ignore[assignment]
    return error.subFailure
