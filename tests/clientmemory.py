"""
A client and a server in memory, on one clock, and servers that violate the protocol.

Bytes travel in the clock's next turn; :meth:`World.settle` makes turns until nothing is on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IConsumer, IPushProducer, IStreamClientEndpoint, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from zope.interface import implementer

from txrealtime import Server
from txrealtime.client import Client
from txrealtime.testing import makeServer


@implementer(ITransport, IConsumer, IPushProducer)
class End:
    """
    One end of a connection.

    :ivar other: the other end.
    :ivar sent: all bytes that were written here.
    :ivar frozen: true to keep what was written from arriving, as a cable that was pulled out.
    """

    disconnecting = False

    def __init__(self, clock: Clock, address: str) -> None:
        self.clock = clock
        self.protocol: Any = None
        self.other: End = self
        self.sent = b""
        self.frozen = False
        self.connected = True
        self.reading = True
        self.producer: Any = None
        self._arriving: list[bytes] = []
        self._address = IPv4Address("TCP", address, 40000)

    def getPeer(self) -> IPv4Address:
        return self.other._address

    def getHost(self) -> IPv4Address:
        return self._address

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    # -- writing

    def write(self, data: bytes) -> None:
        if self.connected and not self.disconnecting:
            self.sent += data
            if not self.frozen:
                self.other._arriving.append(data)
                self.clock.callLater(0, self.other.turn)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def turn(self) -> None:
        while self._arriving and self.reading and self.connected:
            self.protocol.dataReceived(self._arriving.pop(0))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    # -- reading

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True
        self.clock.callLater(0, self.turn)

    def stopProducing(self) -> None:
        self.loseConnection()

    # -- the end

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self.clock.callLater(0, self._end, ConnectionDone())
            if not self.frozen:
                self.clock.callLater(0, self.other._end, ConnectionDone())

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.clock.callLater(0, self._end, ConnectionAborted())
        if not self.frozen:
            self.clock.callLater(0, self.other._end, ConnectionLost())

    def _end(self, reason: Exception) -> None:
        if self.connected:
            self.turn()
            self.connected = False
            self.disconnecting = True
            if self.producer is not None:
                self.producer.stopProducing()
            self.protocol.connectionLost(Failure(reason))


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects to a factory in memory.

    :ivar connections: the client's ends, oldest first.
    :ivar attempts: the attempts to connect so far.
    :ivar refuses: true to refuse connections.
    :ivar hangs: true to leave attempts to connect without an answer.
    """

    def __init__(self, clock: Clock, factory: Any) -> None:
        self.clock = clock
        self.factory = factory
        self.connections: list[End] = []
        self.attempts = 0
        self.refuses = False
        self.hangs = False

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        self.attempts += 1
        if self.refuses:
            return fail(ConnectionRefusedError())
        connected: Deferred[Any] = Deferred(lambda _: None)
        if not self.hangs:
            self.clock.callLater(0, self._connect, protocolFactory, connected)
        return connected

    def _connect(self, protocolFactory: Any, connected: Deferred[Any]) -> None:
        if connected.called:
            return
        client, server = End(self.clock, "192.0.2.7"), End(self.clock, "192.0.2.1")
        client.other, server.other = server, client
        self.connections.append(client)
        server.protocol = self.factory.buildProtocol(server.getPeer())
        client.protocol = protocolFactory.buildProtocol(client.getPeer())
        server.protocol.makeConnection(server)
        client.protocol.makeConnection(client)
        connected.callback(client.protocol)

    @property
    def alive(self) -> list[End]:
        """The connections that are not lost."""
        return [end for end in self.connections if end.connected]

    def cut(self) -> None:
        """Lose all connections."""
        for end in self.alive:
            end._end(ConnectionLost())
            end.other._end(ConnectionLost())

    def freeze(self) -> None:
        """Let nothing arrive any more, in either direction."""
        for end in self.alive:
            end.frozen = end.other.frozen = True


class Scripted(Protocol):
    """
    A server that answers each piece of data by a function: ``answer(protocol, data)``.
    """

    def __init__(self, answer: Callable[[Any, bytes], object]) -> None:
        self.answer = answer

    def dataReceived(self, data: bytes) -> None:
        self.answer(self, data)

    def reply(self, body: bytes, status: str = "200 OK", headers: str = "") -> None:
        """Send an HTTP response."""
        self.transport.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body
        )


class World(SynchronousTestCase):
    """
    A test with a clock, a server and clients.

    :ivar clock: the only clock.
    :ivar server: the server.
    :ivar endpoint: connects clients to it.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clients: list[Client] = []
        self.useServer()

    def tearDown(self) -> None:
        stopping = [client.stopService() for client in self.clients]
        if self.server is not None:
            stopping.append(self.server.stopService())
        for _ in range(60):
            self.settle()
            self.clock.advance(1)
        for stopped in stopping:
            self.successResultOf(stopped)
        self.endpoint.cut()
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def useServer(self, **options: Any) -> None:
        """Make a server of ours, which the next clients connect to."""
        options.setdefault("shortWays", True)
        self.server: Server | None = makeServer(reactor=self.clock, **options)
        site = self.server.site(Resource())
        site.timeOut = None
        self.endpoint = MemoryEndpoint(self.clock, site)

    def useScript(self, answer: Callable[[Any, bytes], object]) -> None:
        """Make a server that answers by a function, see :class:`Scripted`."""
        self.server = None
        factory = Factory.forProtocol(lambda: Scripted(answer))
        self.endpoint = MemoryEndpoint(self.clock, factory)

    def makeClient(self, url: str = "http://example.org", start: bool = True, **options: Any) -> Client:
        """Make a client of the server, and start it."""
        options.setdefault("random", lambda: 0.5)
        client = Client(url, reactor=self.clock, endpoint=self.endpoint, **options)
        self.clients.append(client)
        if start:
            client.startService()
        return client

    def connect(self, url: str = "http://example.org", **options: Any) -> Client:
        """Make a client, and wait until it is connected."""
        client = self.makeClient(url, **options)
        self.settle()
        self.assertTrue(client.connected, client)
        return client

    def settle(self) -> None:
        """Make turns until nothing is on its way."""
        for _ in range(2000):
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                return
            self.clock.advance(0)
        raise AssertionError(f"it does not settle: {self.clock.getDelayedCalls()}")

    def wait(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass."""
        passed = 0.0
        while passed < seconds:
            self.settle()
            self.clock.advance(min(step, seconds - passed))
            passed += step
        self.settle()

    def heard(self, client: Any, event: str) -> list[Any]:
        """Collect the arguments of an event."""
        got: list[Any] = []
        client.on(event)(lambda *args: got.append(args))
        return got
