"""
A testing kit: clients without sockets, on a clock of yours.

::

    clock = Clock()
    server = makeServer(reactor=clock)
    alice = Client(server)
    alice.connect("/", auth={"token": "x"})
    self.assertEqual(self.successResultOf(alice.call("say", "hello")), "delivered")
    self.assertEqual(alice.received(), [("said", alice.id(), "hello")])

A :class:`Client` speaks real Engine.IO and Socket.IO: what passes between it and the
server is encoded and decoded by the codecs that are used in production.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.engineio.packet import EngineIO4, Packet, PacketType, message
from txrealtime.engineio.session import CloseReason, ITransport, Session
from txrealtime.errors import ConnectionRejected, Disconnected
from txrealtime.server import Server
from txrealtime.socketio import packet as socketio

__all__ = ["Client", "FakeTransport", "makeServer"]


def makeServer(reactor: Any = None, **options: Any) -> Server:
    """
    A server for a test, started.

    :param reactor: the clock; a new :class:`~twisted.internet.task.Clock` by default.
    :param options: as for :class:`~txrealtime.server.Server`.
    """
    server = Server(reactor=reactor or Clock(), **options)
    server.startService()
    return server


@implementer(ITransport)
class FakeTransport:
    """
    A transport that ends in a list.

    :ivar sent: the packets sent and not yet taken, as a client decodes them.
    :ivar writable: settable: ``False`` plays a client whose connection is full.
    :ivar closed: the reason, once closed.
    :ivar reading: whether the session wants to read.
    """

    batch: Final = 16

    def __init__(self, name: Literal["polling", "websocket"] = "websocket") -> None:
        self.name: str = name
        self.writable = True
        self.sent: list[Packet] = []
        self.closed: CloseReason | None = None
        self.reading = True
        self.session: Session | None = None

    def send(self, packets: Sequence[Packet]) -> None:
        assert self.writable, "send() while the transport is not writable"
        assert self.closed is None, "send() after close()"
        codec = EngineIO4()
        for packet in packets:
            if self.name == "polling":
                self.sent += codec.decodePayload(codec.encodePayload([packet]))
            else:
                self.sent.append(_decoded(packet))

    def take(self) -> list[Packet]:
        """The packets sent since the last call."""
        taken, self.sent = self.sent, []
        return taken

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        return ()

    def close(self, reason: CloseReason) -> None:
        self.closed = self.closed or reason
        self.writable = False

    def pauseReading(self) -> None:
        self.reading = False

    def resumeReading(self) -> None:
        self.reading = True


class Client:
    """
    A client of a server under test.

    It answers heartbeats, and collects what it gets; it does nothing by itself.

    :param server: the server, made with a Clock.
    :param headers: HTTP headers of its opening request, names in lower case.
    :param query: fields of its URL's query.
    :param address: where it comes from.
    :param transport: the name of the transport that it seems to be on.
    :raises HandshakeError: when the server's engine refuses it.
    """

    def __init__(
        self,
        server: Server,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        transport: Literal["polling", "websocket"] = "websocket",
    ) -> None:
        self._server = server
        self._parser = socketio.JSONParser()
        self._decoder = self._parser.decoder(maxAttachments=1 << 20)
        self._ids: dict[str, str] = {}
        self._received: dict[str, list[tuple[Any, ...]]] = {}
        self._connecting: dict[str, Deferred[str]] = {}
        self._calls: dict[tuple[str, int], Deferred[Any]] = {}
        self._handlers: dict[tuple[str, str], Any] = {}
        self._lastCall = -1
        self._answersHeartbeats = True
        self.transport = FakeTransport(transport)
        self.disconnections: list[str] = []
        url = f"{server.path}/?" + urlencode({"EIO": "4", "transport": transport, **(query or {})})
        engine = server.engine
        handshake = engine.readHandshake({"host": "localhost", **(headers or {})}, url, address, False)
        self._opening = Deferred.fromCoroutine(engine.verify(handshake, transport, "GET"))
        self._opening.addCallback(lambda _: self._opened(engine.openSession(handshake, self.transport)))
        if isinstance(getattr(self._opening, "result", None), Failure):
            self._opening.addErrback(self._refused)
            raise self._refusal

    _refusal: Exception

    def _refused(self, failure: Failure) -> None:
        self._refusal = failure.value  # type: ignore[assignment]

    def _opened(self, session: Session) -> None:
        self.session = self.transport.session = session
        self.flush()

    # -- connecting ----------------------------------------------------------------

    def connect(self, namespace: str = "/", auth: Mapping[str, Any] | None = None) -> Deferred[str]:
        """
        Join a namespace.

        :return: a Deferred of the socket's id, which fails with
            :exc:`~txrealtime.errors.ConnectionRejected` when it is refused.
        """
        joined: Deferred[str] = Deferred()
        self._connecting[namespace] = joined
        self._sendPacket(socketio.Packet(socketio.PacketType.CONNECT, namespace, auth))
        return joined

    def disconnect(self, namespace: str = "/") -> None:
        """Leave a namespace."""
        self._ids.pop(namespace, None)
        self._sendPacket(socketio.Packet(socketio.PacketType.DISCONNECT, namespace))

    def close(self) -> None:
        """Close the connection, as a browser does with its window."""
        self.session.transportLost(self.transport, CloseReason.TRANSPORT_CLOSE)

    def id(self, namespace: str = "/") -> str:
        """
        The id of its socket in a namespace.

        :raises Disconnected: when it is not there.
        """
        try:
            return self._ids[namespace]
        except KeyError:
            raise Disconnected(f"the client is not in {namespace}") from None

    def isConnected(self, namespace: str = "/") -> bool:
        """Whether it is in a namespace."""
        self.flush()
        return namespace in self._ids

    # -- talking ---------------------------------------------------------------------

    def emit(self, event: str, *args: Any, namespace: str = "/") -> None:
        """Send an event."""
        self._sendPacket(socketio.Packet(socketio.PacketType.EVENT, namespace, [event, *args]))

    def call(self, event: str, *args: Any, namespace: str = "/") -> Deferred[Any]:
        """Send an event; a Deferred of the server's ack, as in :meth:`Socket.call`."""
        self._lastCall += 1
        answer: Deferred[Any] = Deferred()
        self._calls[namespace, self._lastCall] = answer
        self._sendPacket(
            socketio.Packet(socketio.PacketType.EVENT, namespace, [event, *args], self._lastCall)
        )
        return answer

    def on(self, event: str, answer: Any, namespace: str = "/") -> None:
        """Answer an event of the server: ``answer(*args)`` gives the ack, a tuple for several values."""
        self._handlers[namespace, event] = answer

    def received(self, namespace: str = "/") -> list[tuple[Any, ...]]:
        """The events that came since the last call, each as ``(name, *arguments)``."""
        self.flush()
        return self._received.pop(namespace, [])

    def ignoreHeartbeats(self) -> None:
        """Answer no PING any more, as a machine that sleeps."""
        self._answersHeartbeats = False

    # -- the wire --------------------------------------------------------------------

    def _sendPacket(self, packet: socketio.Packet) -> None:
        for part in self._parser.encode(packet):
            self.session.packetReceived(self.transport, _decoded(message(part)))
        self.flush()

    def flush(self) -> None:
        """Take in what the server has sent."""
        for packet in self.transport.take():
            if packet.type is PacketType.MESSAGE:
                decoded = self._decoder.feed(packet.data)
                if decoded is not None:
                    self._packetReceived(decoded)
            elif packet.type is PacketType.PING and self._answersHeartbeats:
                self.session.packetReceived(self.transport, Packet(PacketType.PONG))
            elif packet.type is PacketType.OPEN:
                self.opened = json.loads(packet.data)

    def _packetReceived(self, packet: socketio.Packet) -> None:
        namespace, data = packet.namespace, packet.data
        match packet.type:
            case socketio.PacketType.CONNECT:
                self._ids[namespace] = data["sid"]
                self._connecting.pop(namespace).callback(data["sid"])
            case socketio.PacketType.CONNECT_ERROR:
                rejection = ConnectionRejected(data["message"], data.get("data"))
                self._connecting.pop(namespace).errback(rejection)
            case socketio.PacketType.DISCONNECT:
                self._ids.pop(namespace, None)
                self.disconnections.append(namespace)
            case socketio.PacketType.ACK:
                args = tuple(data)
                answer = self._calls.pop((namespace, packet.id or 0))
                answer.callback(args[0] if len(args) == 1 else args or None)
            case socketio.PacketType.EVENT:
                self._eventReceived(packet)

    def _eventReceived(self, packet: socketio.Packet) -> None:
        event, *args = packet.data
        self._received.setdefault(packet.namespace, []).append((event, *args))
        answer = self._handlers.get((packet.namespace, event))
        if answer is not None and packet.id is not None:
            result = answer(*args)
            data = list(result) if isinstance(result, tuple) else [] if result is None else [result]
            self._sendPacket(socketio.Packet(socketio.PacketType.ACK, packet.namespace, data, packet.id))


def _decoded(packet: Packet) -> Packet:
    """What the other side of a WebSocket makes of a packet."""
    codec = EngineIO4()
    return codec.decodeBytes(packet.wire) if packet.isBinary else codec.decodeText(packet.wire.decode())
