"""
A client and a server in memory, on one clock, and servers that violate the protocol.

Bytes travel in the clock's next turn; :meth:`World.settle` makes turns until nothing is on its way.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha1
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
        # What the reactor has not sent is gone, and a reset destroys what the peer has not read.
        self.other._arriving.clear()
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


class Wire(Protocol):
    """A connection of a :class:`FakeServer`: HTTP requests, and frames after an upgrade."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.isWebSocket = False
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        while self.data:
            taken = self._frame() if self.isWebSocket else self._request()
            if not taken:
                return

    def _request(self) -> bool:
        head, end, rest = self.data.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            return False
        method, url, _ = first.split()
        self.data = rest[size:]
        self.server.requests.append((method, url, headers, rest[:size]))
        if "upgrade" in headers:
            self.server.webSocketAsked(self, headers)
        elif method == "GET":
            self.server.polled(self, url)
        else:
            self.server.posted(self, rest[:size])
        return True

    def connectionLost(self, reason: Any = None) -> None:
        if self.server.waiting is self:
            self.server.waiting = None
        if self.server.webSocket is self:
            self.server.webSocket = None

    def accept(self, key: str, more: str = "") -> None:
        """Complete the opening handshake of a WebSocket."""
        accept = b64encode(sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        self.isWebSocket = True
        self.transport.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{more}\r\n".encode()
        )

    def _frame(self) -> bool:
        if len(self.data) < 6:
            return False
        opcode, size, start = self.data[0] & 15, self.data[1] & 127, 2
        assert self.data[1] & 128, "a client's frame without a mask"
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(self.data[2:start], "big")
        if len(self.data) < start + 4 + size:
            return False
        mask, payload = self.data[start : start + 4], self.data[start + 4 : start + 4 + size]
        self.data = self.data[start + 4 + size :]
        plain = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.server.frameReceived(self, opcode, plain)
        return True

    def reply(self, body: bytes | str, status: str = "200 OK", headers: str = "") -> None:
        """Send an HTTP response."""
        body = body.encode() if isinstance(body, str) else body
        self.transport.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body
        )

    def frame(self, payload: bytes | str, opcode: int = 0) -> None:
        """Send a frame; by default a data frame of the payload's type."""
        data = payload.encode() if isinstance(payload, str) else payload
        first = 128 | (opcode or (1 if isinstance(payload, str) else 2))
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        self.transport.write(bytes([first]) + size + data)


class FakeServer(Factory):
    """
    A server that behaves well, until a test replaces one of its methods.

    :ivar got: the Engine.IO packets that came, as text or bytes.
    :ivar requests: method, URL, headers and body of each HTTP request.
    :ivar handshake: the fields of the OPEN packet.
    :ivar welcome: the answer to a CONNECT of the main namespace.
    """

    noisy = False

    def __init__(self) -> None:
        self.got: list[str | bytes] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.handshake: dict[str, Any] = {
            "sid": "the-sid",
            "upgrades": [],
            "pingInterval": 25000,
            "pingTimeout": 20000,
            "maxPayload": 1000000,
        }
        self.welcome = '40{"sid":"the-id"}'
        self.waiting: Wire | None = None
        self.webSocket: Wire | None = None
        self._queue: list[str] = []

    def buildProtocol(self, addr: Any) -> Wire:
        return Wire(self)

    @property
    def messages(self) -> list[str | bytes]:
        """The packets that came, without heartbeats."""
        return [packet for packet in self.got if packet not in ("3", "2probe", "5")]

    def send(self, *packets: str) -> None:
        """Send packets over the current transport."""
        if self.webSocket is not None:
            for packet in packets:
                self.webSocket.frame(packet)
            return
        self._queue += packets
        if self.waiting is not None and self._queue:
            waiting, self.waiting = self.waiting, None
            queue, self._queue = self._queue, []
            waiting.reply("\x1e".join(queue))

    def opening(self) -> str:
        """Return the OPEN packet."""
        return "0" + json.dumps(self.handshake)

    def polled(self, wire: Wire, url: str) -> None:
        """Called with a GET."""
        if "sid=" not in url:
            wire.reply(self.opening())
            return
        self.waiting = wire
        self.send()

    def posted(self, wire: Wire, body: bytes) -> None:
        """Called with a POST."""
        wire.reply("ok", headers="Content-Type: text/html\r\n")
        for packet in body.decode().split("\x1e"):
            self.packetReceived(packet)

    def webSocketAsked(self, wire: Wire, headers: dict[str, str]) -> None:
        """Called with the opening handshake of a WebSocket."""
        wire.accept(headers["sec-websocket-key"])
        if "sid=" not in self.requests[-1][1]:
            self.webSocket = wire
            wire.frame(self.opening())

    def frameReceived(self, wire: Wire, opcode: int, payload: bytes) -> None:
        """Called with each frame."""
        if opcode == 8:
            wire.frame(payload, 8)
            wire.transport.loseConnection()
            self.webSocket = None
        elif payload == b"2probe":
            self.probed(wire)
        elif payload == b"5":
            self.webSocket = wire
            self.got.append("5")
        elif opcode in (1, 2):
            self.packetReceived(payload.decode() if opcode == 1 else payload)

    def probed(self, wire: Wire) -> None:
        """Called with a probe."""
        wire.frame("3probe")
        self.send("6")

    def packetReceived(self, packet: str | bytes) -> None:
        """Called with each packet."""
        self.got.append(packet)
        if isinstance(packet, str) and packet[:2] == "40":
            self.asked(packet)

    def asked(self, packet: str) -> None:
        """Called with a CONNECT."""
        self.send(self.welcome)


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

    def useFake(self, fake: FakeServer | None = None) -> FakeServer:
        """Make a server that the test has in its hands."""
        self.server = None
        fake = fake or FakeServer()
        self.endpoint = MemoryEndpoint(self.clock, fake)
        return fake

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
