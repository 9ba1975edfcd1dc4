"""
The hub: the broker of the processes on one machine, over a Unix socket.

A server connects to it by ``--bus unix:PATH``, an emitter by ``Emitter("unix:PATH")``.  The hub keeps no
message: a process that is not subscribed when a message is published does not get it.

:mod:`~txrealtime.cluster.bus.hubframes` has the frames, :mod:`~txrealtime.cluster.bus.local` the other end.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IPushProducer, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.cluster.bus import hubframes
from txrealtime.cluster.bus.hubframes import FrameProtocol, decode, frame, number
from txrealtime.cluster.bus.patterns import compilePattern
from txrealtime.engineio.tcp import writeNow
from txrealtime.logs import Logger
from txrealtime.workers.socketfile import PrivateSocket

__all__ = ["Hub"]

_log = Logger()

GREETING_TIMEOUT: Final = 5.0
"Seconds that a new connection has to greet."

CLOSE_TIMEOUT: Final = 1.0
"Seconds that connections have to take their last messages when the hub stops."


class Hub(Service):
    """
    The broker of the processes on one machine.

    A stopped hub may be started again.  Its messages come from processes of the same user, and yet a
    connection that breaks the protocol is ended alone.

    :param where: the path of the socket, or an endpoint to listen at.  Only the user of the hub may connect
        to a path.
    :param maxQueued: bytes that may wait for one connection.  A connection that does not read is ended
        above this, like one of Redis, and connects again.
    :param maxTopics: topics and patterns of one connection.  Further ones are refused.
    :ivar published: messages that publishers have sent.
    :ivar cut: connections ended because they did not read.
    """

    def __init__(
        self,
        where: str | IStreamServerEndpoint,
        reactor: Any,
        *,
        maxQueued: int = 32_000_000,
        maxTopics: int = 1_000_000,
    ) -> None:
        self.maxQueued = maxQueued
        self.maxTopics = maxTopics
        self.published = 0
        self.cut = 0
        self.reactor = reactor
        self.topics = Topics()
        self.touched: dict[_Connection, None] = {}
        "The connections with frames in their outbox."
        self._endpoint = PrivateSocket(reactor, where) if isinstance(where, str) else where
        self._connections: dict[_Connection, None] = {}
        self._names: dict[bytes, _Connection] = {}
        self._listening: Deferred[IListeningPort | None] | None = None
        self._error: Failure | None = None

    # -- life --------------------------------------------------------------------------

    def startService(self) -> None:
        """
        Listen.

        :raises CannotListenError: if the system refuses, or another process listens there.
        """
        if self.running:
            return
        factory = Factory.forProtocol(lambda: _Connection(self))
        factory.noisy = False
        self._error = None
        self._listening = self._endpoint.listen(factory).addCallbacks(self._opened, self._failed)
        if self._error is not None:
            self._listening, failure = None, self._error
            failure.raiseException()
        super().startService()  # type: ignore[no-untyped-call]

    def _opened(self, port: IListeningPort) -> IListeningPort:
        _log.info("the hub listens at {where}", where=getattr(port.getHost(), "name", port.getHost()))
        return port

    def _failed(self, failure: Failure) -> None:
        self._error = failure
        if self.running:  # an endpoint that took its time
            _log.error("the hub does not listen: {reason}", reason=failure.getErrorMessage())

    def stopService(self) -> Deferred[None]:
        """
        Listen no more, and end all connections.

        :return: fires when the connections have their last messages, or after a second.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        listening.addCallback(lambda port: port.stopListening() if port else None)
        ends = [connection.close() for connection in list(self._connections)]
        late = self.reactor.callLater(CLOSE_TIMEOUT, self._abortAll)
        stopped: Deferred[Any] = DeferredList([listening, *ends])

        def done(result: object) -> None:
            if late.active():
                late.cancel()

        return stopped.addCallback(done)

    def _abortAll(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    # -- for its connections -----------------------------------------------------------

    def connected(self, connection: _Connection) -> None:
        """Called when there is a new connection."""
        self._connections[connection] = None

    def greeted(self, connection: _Connection, name: bytes) -> None:
        """Called when a connection has told its name: end an earlier one of the same name."""
        former = self._names.get(name)
        self._names[name] = connection
        if former is not None:
            former.abort()

    def left(self, connection: _Connection) -> None:
        """Called when a connection has ended."""
        self.topics.forget(connection)
        self.touched.pop(connection, None)
        self._connections.pop(connection, None)
        if self._names.get(connection.name) is connection:
            del self._names[connection.name]

    def flush(self) -> None:
        """Send the frames that one publisher's reading has brought, a single write for each connection."""
        touched, self.touched = self.touched, {}
        for connection in touched:
            outbox, connection.outbox = connection.outbox, []
            connection.send(outbox[0] if len(outbox) == 1 else b"".join(outbox))


class Topics:
    """
    The subscriptions of all connections.

    :ivar patterned: true if there is a subscription to a pattern.
    """

    def __init__(self) -> None:
        # Dictionaries serve as sets that keep their order.
        self._topics: dict[bytes, dict[_Connection, None]] = {}
        self._patterns: dict[bytes, tuple[re.Pattern[str], dict[_Connection, None]]] = {}

    def receivers(self, topic: bytes) -> dict[_Connection, None] | None:
        """
        Return the connections that a message goes to.

        :raises UnicodeDecodeError: if the topic is not a text, which is seen only if there are patterns.
        """
        named = self._topics.get(topic)
        if not self._patterns:
            return named
        text = decode(topic)
        found = dict(named or ())
        for pattern, connections in self._patterns.values():
            if pattern.fullmatch(text):
                found |= connections
        return found

    def count(self, topic: bytes) -> int:
        """Count the connections that are subscribed to a topic by its name."""
        return len(self._topics.get(topic, ()))

    def add(self, connection: _Connection, topic: bytes) -> None:
        """Subscribe a connection to a topic."""
        self._topics.setdefault(topic, {})[connection] = None

    def addPattern(self, connection: _Connection, pattern: bytes) -> None:
        """Subscribe a connection to a pattern."""
        known = self._patterns.get(pattern)
        if known is None:
            known = self._patterns[pattern] = compilePattern(decode(pattern)), {}
        known[1][connection] = None

    def remove(self, connection: _Connection, topic: bytes) -> None:
        """Unsubscribe a connection from a topic."""
        connections = self._topics.get(topic, {})
        connections.pop(connection, None)
        if not connections:
            self._topics.pop(topic, None)

    def removePattern(self, connection: _Connection, pattern: bytes) -> None:
        """Unsubscribe a connection from a pattern."""
        _, connections = self._patterns.get(pattern, (None, {}))
        connections.pop(connection, None)
        if not connections:
            self._patterns.pop(pattern, None)

    def forget(self, connection: _Connection) -> None:
        """Unsubscribe a connection from everything."""
        while connection.topics:
            self.remove(connection, connection.topics.pop())
        while connection.patterns:
            self.removePattern(connection, connection.patterns.pop())


@implementer(IPushProducer)
class _Connection(FrameProtocol):
    """
    A connection of a publisher, a subscriber or an emitter.

    :ivar name: its name, once it has greeted.
    :ivar outbox: the frames for it from the publisher that is being read.
    """

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.name = b""
        self.outbox: list[bytes] = []
        self.topics: set[bytes] = set()
        self.patterns: set[bytes] = set()
        self._hub = hub
        self._unconfirmed = 0
        self._paused = False
        self._waiting: deque[bytes] = deque()
        self._queued = 0
        self._greeting: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None

    def connectionMade(self) -> None:
        self._hub.connected(self)
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self._greeting = self._hub.reactor.callLater(
            GREETING_TIMEOUT, self._refuse, f"no greeting within {GREETING_TIMEOUT:g} s"
        )

    # -- input -------------------------------------------------------------------------

    def frameReceived(self, kind: int, topic: bytes, data: bytes, start: int, end: int) -> None:
        if not self.name:
            self._greet(kind, topic, self.payloadOf(topic, data, start, end))
        elif kind in (hubframes.PUBLISH, hubframes.BEAT):
            self._publish(kind, topic, data, start, end)
        else:
            self._reply(kind, topic)

    def _publish(self, kind: int, topic: bytes, data: bytes, start: int, end: int) -> None:
        hub = self._hub
        if kind == hubframes.PUBLISH:
            self._unconfirmed += 1
            hub.published += 1
        try:
            receivers = hub.topics.receivers(topic)
        except UnicodeDecodeError:
            self.malformed("a topic is not UTF-8")
            return
        if receivers:
            whole = data[start:end]
            for connection in receivers:
                connection.outbox.append(whole)
            hub.touched |= receivers

    def _reply(self, kind: int, topic: bytes) -> None:
        """Act on a frame that is rarer than a message."""
        topics = self._hub.topics
        if kind == hubframes.SUBSCRIBE or kind == hubframes.SUBSCRIBE_PATTERN:
            self._subscribe(kind == hubframes.SUBSCRIBE_PATTERN, topic)
        elif kind == hubframes.UNSUBSCRIBE:
            self.topics.discard(topic)
            topics.remove(self, topic)
        elif kind == hubframes.UNSUBSCRIBE_PATTERN:
            self.patterns.discard(topic)
            topics.removePattern(self, topic)
        elif kind == hubframes.COUNT:
            self.outbox.append(frame(hubframes.COUNT, b"", number(topics.count(topic))))
            self._hub.touched[self] = None
        else:
            self.malformed(f"no connection may send a frame of the kind {kind}")

    def _subscribe(self, pattern: bool, topic: bytes) -> None:
        try:
            decode(topic)
        except UnicodeDecodeError:
            self.malformed("a topic is not UTF-8")
            return
        own = self.patterns if pattern else self.topics
        if topic not in own and len(self.topics) + len(self.patterns) >= self._hub.maxTopics:
            self._confirm()
            text = f"a connection has at most {self._hub.maxTopics} topics (maxTopics of the hub)"
            self.outbox.append(frame(hubframes.REFUSE, b"", text.encode()))
            self._hub.touched[self] = None
            return
        own.add(topic)
        (self._hub.topics.addPattern if pattern else self._hub.topics.add)(self, topic)
        self._unconfirmed += 1

    def framesRead(self) -> None:
        if not self.ended:
            self._confirm()
        self._hub.flush()

    def _confirm(self) -> None:
        """Confirm the frames read so far; other connections get their messages in the same turn."""
        if self._unconfirmed:
            self.outbox.append(frame(hubframes.CONFIRM, b"", number(self._unconfirmed)))
            self._hub.touched[self] = None
            self._unconfirmed = 0

    def _greet(self, kind: int, name: bytes, payload: bytes) -> None:
        if kind != hubframes.HELLO or not name or len(name) > 200:
            self._refuse("it has not greeted")
            return
        self._greetingDone()
        self.send(frame(hubframes.HELLO, b"", hubframes.VERSION))
        if payload != hubframes.VERSION:
            # The other end reads this hub's version, and tells its user.
            _log.warn(
                "a process speaks {its!r} and the hub {version!r}",
                its=payload[:40],
                version=hubframes.VERSION,
            )
            self.ended = True
            self._lose()
            return
        self.name = name
        self._hub.greeted(self, name)

    def _greetingDone(self) -> None:
        greeting, self._greeting = self._greeting, None
        if greeting is not None and greeting.active():
            greeting.cancel()

    # -- output ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send frames, or keep them until the other end has read more."""
        if not self._paused:
            # The transport's own buffer takes three times as long for a message that comes alone.
            writeNow(self.transport, data)
            return
        self._waiting.append(data)
        self._queued += len(data)
        if self._queued > self._hub.maxQueued and not self.ended:
            self._hub.cut += 1
            _log.warn(
                "the hub has cut the {name}: {queued} bytes wait for it, which are more than maxQueued",
                name=self.shownName,
                queued=self._queued,
            )
            self.abort()

    def pauseProducing(self) -> None:
        """Called when the transport's buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Called when the transport's buffer is empty."""
        self._paused = False
        while self._waiting and not self._paused:
            data = self._waiting.popleft()
            self._queued -= len(data)
            self.transport.write(data)  # type: ignore[union-attr]
        if self._closed is not None and not self._waiting:
            self._lose()

    def stopProducing(self) -> None:
        """Called when the connection is lost."""

    # -- the end -----------------------------------------------------------------------

    @property
    def shownName(self) -> str:
        """The name for logs, without the random part."""
        return self.name.decode("utf-8", "replace").partition(",")[0]

    def malformed(self, reason: str) -> None:
        self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        if not self.ended:
            name = self.shownName or "connection of a stranger"
            _log.warn("the hub has ended the {name}: {reason}", name=name, reason=reason)
            self.abort()

    def close(self) -> Deferred[None]:
        """
        Read no more, send what waits, and close.

        :return: fires when the connection is closed.
        """
        self.ended = True
        closed: Deferred[None] = Deferred()
        self._closed = closed
        if not self._waiting:
            self._lose()
        return closed

    def _lose(self) -> None:
        self.transport.unregisterProducer()  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def abort(self) -> None:
        """Abort the connection at once, and forget it."""
        self.ended = True
        self._waiting.clear()
        self._greetingDone()
        self._hub.left(self)
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.ended = True
        self._waiting.clear()
        self._greetingDone()
        self._hub.left(self)
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.callback(None)
