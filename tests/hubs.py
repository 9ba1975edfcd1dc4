"""
A hub and its connections in memory, on a Clock.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.local import LocalBus
from txrealtime.workers.hub import Hub

PATH = "/run/chat.hub"


class Pipe:
    """
    One end of a Unix socket in memory, as lenient as the reactor's.

    :ivar reads: false while the process at this end does not read.
    """

    BUFFER = 65536
    "The bytes at which Twisted pauses a producer."

    def __init__(self, reactor: Clock, protocol: Any) -> None:
        self.protocol = protocol
        self.peer: Pipe
        self.reads = True
        self.connected = True
        self._reactor = reactor
        self._arrived = b""
        self._closing = False
        self._producer: Any = None
        self._paused = False

    def write(self, data: bytes) -> None:
        if not self.connected or self._closing:
            return
        self.peer._arrived += data
        if self._producer is not None and not self._paused and len(self.peer._arrived) > self.BUFFER:
            self._paused = True
            self._producer.pauseProducing()
        self._reactor.callLater(0, self.peer.turn)

    def turn(self) -> None:
        """Take the reactor's next turn."""
        if not self.reads or not self.connected:
            return
        data, self._arrived = self._arrived, b""
        if data:
            self.protocol.dataReceived(data)
        sender = self.peer
        if sender._paused:
            sender._paused = False
            if sender._producer is not None:
                sender._producer.resumeProducing()
        if not self._arrived and sender._closing:
            sender.lose()

    def read(self) -> None:
        """Read again, after `reads` was false."""
        self.reads = True
        self._reactor.callLater(0, self.turn)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def loseConnection(self) -> None:
        self._closing = True
        self._reactor.callLater(0, self.peer.turn)

    def abortConnection(self) -> None:
        # As in the reactor, both ends hear of the end later.
        if self.connected:
            self.connected = False
            self._reactor.callLater(0, self._lost)
            self._reactor.callLater(0, self.peer.lose)

    def lose(self) -> None:
        """Lose the connection at both ends."""
        for end in (self, self.peer):
            if end.connected:
                end.connected = False
                end._lost()

    def _lost(self) -> None:
        if self._producer is not None:
            self._producer.stopProducing()
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Port:
    """A place where a factory listens."""

    def __init__(self, reactor: HubReactor, path: str) -> None:
        self._reactor, self._path = reactor, path

    def getHost(self) -> UNIXAddress:
        return UNIXAddress(self._path)

    def stopListening(self) -> Deferred[None]:
        del self._reactor.factories[self._path]
        return succeed(None)


class Connector:
    """An attempt to connect, which takes a turn."""

    def __init__(self, reactor: HubReactor, path: str, factory: Any) -> None:
        self._reactor, self._path, self._factory = reactor, path, factory
        self._call = reactor.callLater(0, self._connect)

    def getDestination(self) -> UNIXAddress:
        return UNIXAddress(self._path)

    def stopConnecting(self) -> None:
        self._call.cancel()

    def _connect(self) -> None:
        listening = self._reactor.factories.get(self._path)
        if listening is None:
            self._factory.clientConnectionFailed(self, Failure(ConnectError(errno.ENOENT)))
        else:
            client = self._factory.buildProtocol(self.getDestination())
            self._reactor.join(client, listening.buildProtocol(UNIXAddress(None)))


class HubReactor(Clock):
    """
    A Clock with Unix sockets.

    :ivar factories: what listens, by path.
    :ivar pipes: the hub's ends of all connections, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factories: dict[str, Any] = {}
        self.pipes: list[Pipe] = []

    def listenUNIX(self, path: str, factory: Any, backlog: int = 50, mode: int = 0o666) -> Port:
        self.factories[path] = factory
        return Port(self, path)

    def connectUNIX(self, path: str, factory: Any, timeout: float = 30, checkPID: bool = False) -> None:
        factory.startedConnecting(Connector(self, path, factory))

    def join(self, client: Any, served: Any) -> Pipe:
        """Connect a protocol to the hub's, and return the client's end."""
        ends = Pipe(self, client), Pipe(self, served)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        self.pipes.append(ends[1])
        for end in (ends[1], ends[0]):
            end.protocol.makeConnection(end)
        return ends[0]


class MemoryEndpoint:
    """An endpoint at PATH in memory."""

    def __init__(self, reactor: HubReactor) -> None:
        self._reactor = reactor

    def listen(self, factory: Any) -> Deferred[Any]:
        return succeed(self._reactor.listenUNIX(PATH, factory))


def startHub(reactor: HubReactor, **options: Any) -> Hub:
    """Start a hub at PATH."""
    hub = Hub(MemoryEndpoint(reactor), reactor, **options)
    hub.startService()
    return hub


def localBus() -> LocalBus:
    """Return a bus to the hub at PATH."""
    return LocalBus(Address.fromURL(f"unix:{PATH}"))
