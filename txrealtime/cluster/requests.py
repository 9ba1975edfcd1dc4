"""
The requests of peer servers, carried out on this server's sockets.

:class:`~txrealtime.cluster.conversation.Conversation` calls :class:`Requests` with each message that it has
read: emits, joins, leaves, disconnects, questions, and events between servers.  A message's names are only
ever keys of dictionaries: no request creates a namespace or a room, or reaches an attribute by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

from txrealtime.cluster.conversation import Conversation
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
from txrealtime.cluster.handover import Handover
from txrealtime.engineio import packet as engineio
from txrealtime.errors import Disconnected, LimitExceeded, PacketError, ProtocolError
from txrealtime.logs import Logger
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.eventlog import Mark
from txrealtime.socketio.handler import Handler, run
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.sockets import Socket

__all__ = ["Requests"]

_log = Logger()

_MAX_OWED: Final = 100_000
"""Clients that may owe acks to peer servers at a time."""

_MAX_TIMEOUT: Final = 3600.0
"""Seconds for which a peer server can have this one wait for an ack."""


class Requests:
    """
    The receiver of peer servers' requests.

    An event that clients cannot be sent raises :exc:`~txrealtime.errors.PacketError`, which the conversation
    counts.

    :ivar handlers: the application's handlers of events between servers, by event.
    :ivar refused: the number of questions that were not put to clients because too many acks were owed.
    """

    def __init__(self, conversation: Conversation, namespaces: Namespaces) -> None:
        self._conversation = conversation
        self._namespaces = namespaces
        self._owed = 0
        self._json = JSONText()
        self.refused = 0
        self.handlers: dict[str, Handler] = {}
        self.handover = Handover(conversation, namespaces)
        conversation.holeSeen = self.holeSeen
        conversation.receive(Emit, self.emit)
        conversation.receive(Join, self.join)
        conversation.receive(Leave, self.leave)
        conversation.receive(Disconnect, self.disconnect)
        conversation.receive(Ask, self.ask)
        conversation.receive(Fetch, self.fetch)
        conversation.receive(Tell, self.tell)

    def _audience(self, target: Target) -> Audience | None:
        namespace = self._namespaces.find(target.path)
        return None if namespace is None else Audience(namespace, target.rooms, target.excluded)

    def emit(self, emit: Emit) -> None:
        """Send an event to the members of an audience who are here, or pass it on."""
        namespace = self._namespaces.find(emit.target.path)
        if namespace is None:
            return
        # A sender that has an event for one client in its log has the client.
        if namespace._recovery is not None and not emit.logged and self._passOn(emit):
            return
        numbers = self._conversation.dialect.numbers
        self.deliver(emit, [emit.place] if emit.place else None if numbers is None else numbers.latest)

    def deliver(self, emit: Emit, mark: Mark) -> None:
        """
        Send an event to the members of an audience who are here.

        :param mark: the event's place on the bus.
        """
        audience = self._audience(emit.target)
        if audience is None:
            return
        messages = emit.messages
        if messages is None:
            assert emit.packet is not None
            with _forClients():
                messages = audience.namespace._encode(emit.packet)
        recovery, history = audience.namespace._recovery, audience.namespace._history
        if history is not None and not emit.volatile and audience.rooms is not None:
            audience = history.arrived(audience, messages, mark)
        if recovery is None:
            sockets = audience._deliver(messages, emit.volatile)
        else:
            if emit.logged and isinstance(mark, list):
                owners = self.handover.had.owners(mark[0], emit.target.path, emit.logged)
                audience = audience.excluding(*owners) if owners else audience
            sockets, _ = recovery.deliver(audience, messages, emit.volatile, emit.packet, mark)
        told = audience.namespace._hooks.eventSent
        if told is not None:
            data = self._dataOf(emit.packet, messages)
            if data is not None:
                told(sockets, data[0], data[1:])

    def _dataOf(self, packet: Packet | None, messages: Sequence[engineio.Packet]) -> list[Any] | None:
        """Return the data of an event, which the native dialect carries as clients get it."""
        if packet is None:
            decoder = self._namespaces.parser.decoder(len(messages))
            try:
                for message in messages:
                    packet = decoder.feed(message.data)
            except ProtocolError:
                return None
        return None if packet is None else packet.data

    def holeSeen(self, path: str | None) -> None:
        """
        Called when messages for a namespace were lost.

        Clients that are away do not get all that they missed, and other servers know more of the past.

        :param path: ``None`` if any namespace may be concerned.
        """
        for namespace in self._namespaces:
            if path in (None, namespace.path):
                if namespace._recovery is not None:
                    namespace._recovery.log.addHole()
                if namespace._history is not None:
                    namespace._history.doubt()

    def _passOn(self, message: Emit | Join | Leave | Disconnect) -> bool:
        """Pass on a message for one client that has moved to another server."""
        if not self.handover.movedTo(message.target):
            return False
        numbers = self._conversation.dialect.numbers
        if numbers is None or numbers.latest is None or "@" not in numbers.latest[1].partition(",")[0]:
            return False  # the new server hears the topics of namespaces and rooms itself
        self._conversation.say(message)
        return True

    def carryOut(self, message: Join | Leave | Disconnect) -> None:
        """Carry out a request that came on the topic of another server."""
        if isinstance(message, Join):
            self.join(message)
        elif isinstance(message, Leave):
            self.leave(message)
        else:
            self.disconnect(message)

    def join(self, join: Join) -> None:
        """Put the members of an audience who are here into rooms."""
        if self._passOn(join):
            return
        for socket in self._here(join.target):
            try:
                socket.join(*join.rooms)
            except (LimitExceeded, ValueError) as error:  # a room too many, or another socket's id
                _log.warn(
                    "a peer server's join() of {socket} failed: {error}", socket=socket.label, error=error
                )

    def leave(self, leave: Leave) -> None:
        """Take the members of an audience who are here out of rooms."""
        if self._passOn(leave):
            return
        for socket in self._here(leave.target):
            socket.leave(*leave.rooms)

    def disconnect(self, disconnect: Disconnect) -> None:
        """Disconnect the members of an audience who are here."""
        if self._passOn(disconnect):
            return
        for socket in self._here(disconnect.target):
            socket.disconnect(disconnect.close)
        audience = self._audience(disconnect.target)
        if audience is not None and audience.namespace._recovery is not None:
            audience.namespace._recovery.dismiss(audience)

    def _here(self, target: Target) -> list[Socket]:
        audience = self._audience(target)
        return [] if audience is None else audience.here()

    # -- questions -------------------------------------------------------------------

    def _reply(self, to: Ask | Fetch | Tell, total: int | None, *values: Any, lapsed: int = 0) -> None:
        """Send a reply.  If its values cannot be encoded, report them as lapsed."""
        try:
            self._send(to, total, values, lapsed)
        except (TypeError, ValueError):
            _log.failure("a reply to a peer server cannot be encoded")
            self._send(to, total, (), len(values))

    def _send(self, to: Ask | Fetch | Tell, total: int | None, values: Sequence[Any], lapsed: int) -> None:
        assert to.request is not None
        self._conversation.say(Reply(to, to.request, self._conversation.uid, total, values, lapsed))

    def _redirected(self, question: Ask | Fetch) -> bool:
        """Reply with the server to which the client has moved that a question is for, if it has."""
        to = self.handover.movedTo(question.target)
        if to:
            uid = self._conversation.uid
            self._conversation.say(Reply(question, question.request, uid, 0, moved=to))
        return bool(to)

    def ask(self, ask: Ask) -> None:
        """Send an event to the members of an audience who are here, and reply with their acks."""
        if self._redirected(ask):
            return
        audience = self._audience(ask.target)
        if audience is None:
            self._reply(ask, 0)
            return
        if self._owed > _MAX_OWED:
            self.refused += 1
            return
        with _forClients():
            asked = audience._ask(ask.packet.data)
        acks = []
        for ack in asked:
            if ack.called:
                ack.addErrback(lambda failure: None)  # of a client in admission, which cannot ack
            else:
                acks.append(ack)
        self._owed += len(acks)
        self._reply(ask, len(acks))
        timeout = min(max(ask.timeout, 0.0), _MAX_TIMEOUT)
        for ack in acks:
            ack.addTimeout(timeout, self._namespaces.reactor)
            ack.addCallbacks(partial(self._acked, ask), partial(self._lapsed, ask))

    def _acked(self, ask: Ask, value: Any) -> None:
        self._owed -= 1
        self._reply(ask, None, value)

    def _lapsed(self, ask: Ask, failure: Failure) -> None:
        self._owed -= 1
        if failure.check(Disconnected):  # any other failure is the timeout, which the asking server has too
            self._reply(ask, None, lapsed=1)

    def fetch(self, fetch: Fetch) -> None:
        """Reply with descriptions of the members of an audience who are here."""
        if self._redirected(fetch):
            return
        audience = self._audience(fetch.target)
        sockets = [] if audience is None else [self._sendable(person) for person in audience._people()]
        total: int | None = len(sockets)
        size = self._conversation.dialect.pageSize
        for start in range(0, len(sockets) or 1, size):
            self._sendSockets(sockets[start : start + size], fetch, total)
            total = None

    def _sendSockets(self, sockets: list[Person], fetch: Fetch, total: int | None) -> None:
        """Reply to a fetch.  If that is too large, send several messages, or at last leave out ``data``."""
        try:
            self._send(fetch, total, sockets, 0)
        except (TypeError, ValueError) as error:
            # A server whose dialect does not tell its name has to reply in one message.
            if len(sockets) > 1 and self._conversation.dialect.announces:
                half = len(sockets) // 2
                self._sendSockets(sockets[:half], fetch, total)
                self._sendSockets(sockets[half:], fetch, None)
                return
            _log.warn(
                "replied to fetch() without the data of {n} sockets: {error}", n=len(sockets), error=error
            )
            self._reply(fetch, total, *[replace(person, data={}) for person in sockets])

    def _sendable(self, person: Person) -> Person:
        """Return a remote socket without the entries of its ``data`` that cannot be encoded."""
        sendable = {}
        for key, value in person.data.items():
            with suppress(TypeError, ValueError):
                # With bytes beside it, as the data of other sockets may have: fewer values can be encoded
                # then.
                self._json.encode({key: [value, b""]})
                sendable[key] = value
        return replace(person, data=sendable)

    # -- events between servers --------------------------------------------------------

    def tell(self, tell: Tell) -> None:
        """Call the handler of an event between servers, and reply with its result if a reply is wanted."""
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
        _log.failure("the handler of a peer server's event {event!r} failed", failure, event=event)
        if tell.request is not None:
            self._reply(tell, 1, lapsed=1)


@contextmanager
def _forClients() -> Iterator[None]:
    """Turn an encoding error into a PacketError: a dialect may carry more than clients can be sent."""
    try:
        yield
    except (TypeError, ValueError):
        raise PacketError("an event that clients cannot be sent") from None
