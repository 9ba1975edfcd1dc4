"""
What other servers want done on this one.

Nothing of it is looked up but in dictionaries, and nothing is made because a message names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

from txrealtime.cluster.dialects.messages import (
    Ask,
    Disconnect,
    Emit,
    Fetch,
    Join,
    Leave,
    Reply,
    Target,
    Tell,
)
from txrealtime.errors import Disconnected, LimitExceeded, PacketError
from txrealtime.logs import Logger
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.handler import Handler, run
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.namespaces import Directory
from txrealtime.socketio.sockets import Socket

if TYPE_CHECKING:
    from txrealtime.cluster.cluster import Cluster

__all__ = ["Reception"]

_log = Logger()

_MAX_ASKED: Final = 100_000
"""How many clients may owe answers that other servers wait for."""

_MAX_TIMEOUT: Final = 3600.0


class Reception:
    """
    See the module.  What receives an event raises :exc:`~txrealtime.errors.PacketError` for one that clients
    cannot be sent.

    :ivar handlers: the application's, of events between servers, by name.
    :ivar refused: how many questions were not put because too many answers were owed.
    """

    def __init__(self, cluster: Cluster, directory: Directory) -> None:
        self._cluster = cluster
        self._directory = directory
        self._owed = 0
        self._json = JSONText()
        self.refused = 0
        self.handlers: dict[str, Handler] = {}

    def _audience(self, target: Target) -> Audience | None:
        namespace = self._directory.find(target.path)
        return None if namespace is None else Audience(namespace, target.rooms, target.excluded)

    def emit(self, emit: Emit) -> None:
        audience = self._audience(emit.target)
        if audience is None:
            return
        messages = emit.messages
        if messages is None:
            assert emit.packet is not None
            with _forClients():
                messages = self._directory.encode(emit.packet)
        audience.deliver(messages, emit.volatile)

    def join(self, join: Join) -> None:
        for socket in self._here(join.target):
            try:
                socket.join(*join.rooms)
            except (LimitExceeded, ValueError) as error:  # a room too many, or another socket's own
                _log.warn("another server's join() of {socket}: {error}", socket=socket.label, error=error)

    def leave(self, leave: Leave) -> None:
        for socket in self._here(leave.target):
            socket.leave(*leave.rooms)

    def disconnect(self, disconnect: Disconnect) -> None:
        for socket in self._here(disconnect.target):
            socket.disconnect(disconnect.close)

    def _here(self, target: Target) -> list[Socket]:
        audience = self._audience(target)
        return [] if audience is None else audience.here()

    # -- questions -------------------------------------------------------------------

    def _reply(self, to: Ask | Fetch | Tell, total: int | None, *values: Any, lapsed: int = 0) -> None:
        """Say something to who has asked; what cannot be said are values that will not come."""
        try:
            self._say(to, total, values, lapsed)
        except (TypeError, ValueError):
            _log.failure("an answer to another server cannot be sent")
            self._say(to, total, (), len(values))

    def _say(self, to: Ask | Fetch | Tell, total: int | None, values: Sequence[Any], lapsed: int) -> None:
        assert to.request is not None
        self._cluster.say(Reply(to, to.request, self._cluster.uid, total, values, lapsed))

    def ask(self, ask: Ask) -> None:
        audience = self._audience(ask.target)
        if audience is None:
            self._reply(ask, 0)
            return
        if self._owed > _MAX_ASKED:
            self.refused += 1
            return
        with _forClients():
            asked = audience.ask(ask.packet.data)
        answers = []
        for answer in asked:
            if answer.called:
                answer.addErrback(lambda failure: None)  # a client in admission, which cannot answer
            else:
                answers.append(answer)
        self._owed += len(answers)
        self._reply(ask, len(answers))
        timeout = min(max(ask.timeout, 0.0), _MAX_TIMEOUT)
        for answer in answers:
            answer.addTimeout(timeout, self._directory.reactor)
            answer.addCallbacks(partial(self._answered, ask), partial(self._lapsed, ask))

    def _answered(self, ask: Ask, value: Any) -> None:
        self._owed -= 1
        self._reply(ask, None, value)

    def _lapsed(self, ask: Ask, failure: Failure) -> None:
        self._owed -= 1
        if failure.check(Disconnected):  # otherwise it is too late, as whoever asked will see
            self._reply(ask, None, lapsed=1)

    def fetch(self, fetch: Fetch) -> None:
        audience = self._audience(fetch.target)
        people = [] if audience is None else [self._sendable(person) for person in audience.people()]
        total: int | None = len(people)
        size = self._cluster.dialect.pageSize
        for start in range(0, len(people) or 1, size):
            self._tellOf(people[start : start + size], fetch, total)
            total = None

    def _tellOf(self, people: list[Person], fetch: Fetch, total: int | None) -> None:
        """Say who is here; where that is too large, in several messages, and at last without ``data``."""
        try:
            self._say(fetch, total, people, 0)
        except (TypeError, ValueError) as error:
            # A server whose name is not told answers in one message.
            if len(people) > 1 and self._cluster.dialect.hasPresence:
                half = len(people) // 2
                self._tellOf(people[:half], fetch, total)
                self._tellOf(people[half:], fetch, None)
                return
            _log.warn(
                "fetch() is answered without the data of {n} sockets: {error}", n=len(people), error=error
            )
            self._reply(fetch, total, *[replace(person, data={}) for person in people])

    def _sendable(self, person: Person) -> Person:
        """A person with what can be sent of ``data``: it is the application's, and may hold anything."""
        sendable = {}
        for key, value in person.data.items():
            with suppress(TypeError, ValueError):
                # Beside bytes, as others' data may have them, less can be sent.
                self._json.encode({key: [value, b""]})
                sendable[key] = value
        return replace(person, data=sendable)

    # -- events between servers --------------------------------------------------------

    def tell(self, tell: Tell) -> None:
        event, *args = tell.data
        handler = self.handlers.get(event)
        if handler is None:
            if tell.request is not None:
                self._reply(tell, 0)
            return
        handling = maybeDeferred(self._handle, handler, args)
        if tell.request is not None:
            handling.addCallback(partial(self._reply, tell, 1))
        handling.addErrback(self._handlerFailed, tell)

    @staticmethod
    def _handle(handler: Handler, args: list[Any]) -> Any:
        handler.check(len(args))
        return run(handler.function, *args)

    def _handlerFailed(self, failure: Failure, tell: Tell) -> None:
        event = tell.data[0][:100]
        _log.failure("the handler of another server's {event!r} failed", failure, event=event)
        if tell.request is not None:
            self._reply(tell, 1, lapsed=1)


@contextmanager
def _forClients() -> Iterator[None]:
    """Encode an event: a dialect may carry more than clients can be sent."""
    try:
        yield
    except (TypeError, ValueError):
        raise PacketError("an event that clients cannot be sent") from None
