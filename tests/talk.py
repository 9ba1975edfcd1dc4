"""
Servers and clients on one Clock for the tests of THE TALK, and a check that they leave nothing behind.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txrealtime import Namespace, Server, Socket
from txrealtime.engineio.packet import Packet, PacketType, message
from txrealtime.testing import Client, makeServer


class TalkTestCase(SynchronousTestCase):
    """
    Tests of servers and clients on `clock`.

    After each test every client is closed, and then nothing may be left of it: no session, socket or room,
    and no delayed call.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.servers: list[Server] = []
        self.clients: list[Client] = []

    def tearDown(self) -> None:
        for client in self.clients:
            client.close()
        for server in self.servers:
            self.assertEqual(server.engine.sessions, {})
            for namespace in server.namespaces:
                self.assertEqual(namespace.sockets, {}, namespace)
                self.assertEqual(list(namespace.rooms), [], namespace)
                self.assertTrue(namespace.rooms.isEmpty, namespace)
                self.assertEqual(namespace._roster.own, [], namespace)
        # A handler that a test has not ended holds up its client's disconnected(), for closeTimeout seconds.
        left = [call for call in self.clock.getDelayedCalls() if call.func.__name__ != "_giveUp"]
        self.assertEqual(left, [])
        self.clock.advance(max((server.settings.closeTimeout for server in self.servers), default=0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def makeServer(self, **options: Any) -> Server:
        """
        Make a server with a default namespace, and start it unless `start=False`.
        """
        start = options.pop("start", True)
        server = makeServer(reactor=self.clock, **options) if start else Server(reactor=self.clock, **options)
        server.namespace()
        self.servers.append(server)
        return server

    def makeClient(self, server: Server, **options: Any) -> Client:
        """
        Make a client that has not joined a namespace yet.
        """
        client = Client(server, **options)
        self.clients.append(client)
        return client

    def join(self, server: Server, namespace: str = "/", auth: Any = None, **options: Any) -> Client:
        """
        Make a client and join a namespace.
        """
        client = self.makeClient(server, **options)
        self.successResultOf(client.connect(namespace, auth))
        return client

    def socketOf(self, server: Server, client: Client, path: str = "/") -> Socket:
        """
        Find the server's socket of a client.
        """
        return server.namespace(path).sockets[client.id(path)]

    def advance(self, seconds: float) -> None:
        """
        Let time pass, while the clients answer heartbeats.
        """
        while seconds > 0:
            step = min(seconds, 5.0)
            self.clock.advance(step)
            seconds -= step
            for client in self.clients:
                client.flush()

    def setWritable(self, client: Client, writable: bool) -> None:
        """
        Fill a client's connection, or empty it.
        """
        client.transport.writable = writable
        if writable:
            client.session.transportWritable(client.transport)

    def sendText(self, client: Client, *messages: str | bytes) -> None:
        """
        Send messages that the testing kit's client never would.
        """
        for text in messages:
            client.session.packetReceived(client.transport, message(text))

    def wireOf(self, client: Client) -> list[str | bytes]:
        """
        Take the messages that a client has not read yet, as they were on the wire.
        """
        return [packet.data for packet in client.transport.take() if packet.type is PacketType.MESSAGE]


def textOf(events: list[LogEvent]) -> str:
    """
    Format events as a log file shows them, with tracebacks.
    """
    lines = []
    for event in events:
        lines.append(formatEvent(event))
        if "log_failure" in event:
            lines.append(event["log_failure"].getTraceback())
    return "\n".join(lines)


class Recorder(Namespace):
    """
    A namespace that records the calls of its hooks.

    :ivar calls: `("connected", id, auth)`, and `("disconnecting", id, reason, rooms)` as `disconnected`.
    :ivar admission: the result of `connected`, or an exception for it to raise.
    """

    def __init__(self, concurrency: int | None = 1) -> None:
        super().__init__(concurrency)
        self.calls: list[tuple[Any, ...]] = []
        self.admission: Any = None
        self.asked: list[Socket] = []

    def connected(self, socket: Socket, auth: Any) -> Any:
        self.calls.append(("connected", socket.id, auth))
        self.asked.append(socket)
        if isinstance(self.admission, Exception):
            raise self.admission
        return self.admission

    def disconnecting(self, socket: Socket, reason: Any) -> None:
        self.calls.append(("disconnecting", socket.id, reason, socket.rooms))

    def disconnected(self, socket: Socket, reason: Any) -> None:
        self.calls.append(("disconnected", socket.id, reason, socket.rooms))

    def take(self) -> list[tuple[Any, ...]]:
        """
        Take the calls since the last one.
        """
        calls, self.calls = self.calls, []
        return calls


class Steps:
    """
    A handler that waits: each call adds its arguments to `begun` and a Deferred to `waits`.
    """

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.waits: list[Deferred[Any]] = []

    def __call__(self, socket: Socket, *args: Any) -> Deferred[Any]:
        self.begun.append(args[0] if len(args) == 1 else args)
        wait: Deferred[Any] = Deferred()
        self.waits.append(wait)
        return wait


PONG = Packet(PacketType.PONG)
