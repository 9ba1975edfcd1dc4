"""
The hub: the broker of the processes on one machine, over a Unix socket.

A server connects to it by ``--bus unix:PATH``, an emitter by ``Emitter("unix:PATH")``.  The hub keeps no
message: a process that is not subscribed when a message is published does not get it.

:mod:`~txrealtime.cluster.bus.hubframes` has the frames, :mod:`~txrealtime.cluster.bus.local` the other end.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txrealtime.cluster.bus import hubframes
from txrealtime.cluster.bus.hubframes import frame
from txrealtime.cluster.bus.interfaces import IBus
from txrealtime.logs import Logger
from txrealtime.workers.forwarding import ForwardingConnection
from txrealtime.workers.hubconnection import HubConnection
from txrealtime.workers.socketfile import PrivateSocket
from txrealtime.workers.topics import Topics
from txrealtime.workers.upstream import Upstream

__all__ = ["Hub"]

_log = Logger()

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
    :param bus: the broker that the hub stands before, for its connections together: see
        :mod:`~txrealtime.workers.upstream`.  ``None`` if the hub is the broker itself.
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
        bus: IBus | None = None,
    ) -> None:
        self.maxQueued = maxQueued
        self.maxTopics = maxTopics
        self.published = 0
        self.cut = 0
        self.reactor = reactor
        self.topics: Topics[HubConnection] = Topics()
        self.touched: dict[HubConnection, None] = {}
        "The connections with frames in their outbox."
        self._endpoint = PrivateSocket(reactor, where) if isinstance(where, str) else where
        self._connections: dict[HubConnection, None] = {}
        self._names: dict[bytes, HubConnection] = {}
        self._confirming: dict[HubConnection, None] = {}
        self._flushing: IDelayedCall | None = None
        self._upstream: Upstream | None = None
        if bus is not None:
            self._upstream = Upstream(bus, reactor, self._deliver, self._upstreamChanged)
            self.topics.left = self._upstream.unsubscribe
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
        factory = Factory.forProtocol(self._connection)
        factory.noisy = False
        self._error = None
        self._listening = self._endpoint.listen(factory).addCallbacks(self._opened, self._failed)
        if self._error is not None:
            self._listening, failure = None, self._error
            failure.raiseException()
        super().startService()  # type: ignore[no-untyped-call]
        if self._upstream is not None:
            self._upstream.start()

    def _connection(self) -> HubConnection:
        upstream = self._upstream
        return HubConnection(self) if upstream is None else ForwardingConnection(self, upstream)

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

        :return: fires when the broker behind the hub has its last messages, or after two seconds, and the
            connections have theirs, or after a second.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        listening.addCallback(lambda port: port.stopListening() if port else None)
        upstream: Deferred[None] = succeed(None) if self._upstream is None else self._upstream.stop()
        upstream.addCallback(lambda _: self._end())
        stopped: Deferred[Any] = DeferredList([listening, upstream])
        return stopped.addCallback(lambda _: None)

    def _end(self) -> Deferred[None]:
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            flushing.cancel()
            self._flushNow()
        late = self.reactor.callLater(CLOSE_TIMEOUT, self._abortAll)
        ended: Deferred[Any] = DeferredList([connection.close() for connection in list(self._connections)])

        def done(result: object) -> None:
            if late.active():
                late.cancel()

        return ended.addCallback(done)

    def _abortAll(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    # -- for its connections -----------------------------------------------------------

    def connected(self, connection: HubConnection) -> None:
        """Called when there is a new connection."""
        self._connections[connection] = None

    def greeted(self, connection: HubConnection, name: bytes) -> None:
        """Called when a connection has told its name: end an earlier one of the same name."""
        former = self._names.get(name)
        self._names[name] = connection
        if former is not None:
            former.abort()

    def left(self, connection: HubConnection) -> None:
        """Called when a connection has ended."""
        self.topics.forget(connection)
        self.touched.pop(connection, None)
        self._confirming.pop(connection, None)
        self._connections.pop(connection, None)
        if self._names.get(connection.name) is connection:
            del self._names[connection.name]

    def flush(self) -> None:
        """Send the frames that one publisher's reading has brought, a single write for each connection."""
        touched, self.touched = self.touched, {}
        for connection in touched:
            outbox, connection.outbox = connection.outbox, []
            connection.send(outbox[0] if len(outbox) == 1 else b"".join(outbox))

    # -- with a broker behind the hub -----------------------------------------------------

    def flushLater(self) -> None:
        """Send in the reactor's next turn: the broker's messages that come together leave together."""
        if self._flushing is None:
            self._flushing = self.reactor.callLater(0, self._flushNow)

    def confirmLater(self, connection: HubConnection) -> None:
        """Let a connection send a confirmation in the reactor's next turn."""
        self._confirming[connection] = None
        self.flushLater()

    def _flushNow(self) -> None:
        self._flushing = None
        confirming, self._confirming = self._confirming, {}
        for connection in confirming:
            connection.confirm()
        self.flush()

    def _deliver(self, topic: bytes, payload: bytes) -> None:
        """Pass on a message of the broker."""
        receivers = self.topics.receivers(topic)
        if receivers:
            whole = frame(hubframes.PUBLISH, topic, payload)
            for connection in receivers:
                connection.outbox.append(whole)
            self.touched |= receivers
            self.flushLater()

    def _upstreamChanged(self, reason: str) -> None:
        if not self.running:
            return
        self.flush()  # what came before
        for connection in list(self._connections):
            if isinstance(connection, ForwardingConnection):
                if not reason:
                    connection.upstreamReady()
                elif connection.name:
                    connection.gone(reason)
