"""
A client in memory, which a test moves step by step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txrealtime.client.handlers import NO_ACK, Handlers, Turns
from txrealtime.client.recovery import Recovery
from txrealtime.engineio.packet import EngineIO4, Packet, PacketType, message
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.engineio.session import CloseReason, Session
from txrealtime.errors import ConnectionRejected, Disconnected
from txrealtime.server import Server
from txrealtime.socketio import packet as socketio
from txrealtime.testing.transport import FakeTransport

__all__ = ["Client"]

F = TypeVar("F", bound=Callable[..., Any])


class Client:
    """
    A client of a server under test.

    The client answers heartbeats, and collects the events that it gets.

    :param server: the server, made with a Clock.
    :param parser: the client's parser; the server's by default.
    :param headers: the HTTP headers of the opening request, with names in lower case.
    :param query: the fields of the URL's query.
    :param address: the client's address.
    :param transport: the name of the transport that the client pretends to use; by default ``websocket``,
        or ``polling`` if the server allows that alone.
    :param protocol: the Engine.IO protocol: 4, or 3 for a client of Socket.IO 1 or 2, for a server with
        ``allowEIO3``.
    :param recovers: ask a server with ``recoveryWindow`` to be offered recovery: see :meth:`comeBack`.
    :raises HandshakeError: if the server's engine refuses the client at once.
    :ivar whenOpen: a Deferred that fires when the engine has opened the session, and fails with
        :exc:`~txrealtime.errors.HandshakeError` if ``allowRequest`` refuses the client later.
    """

    def __init__(
        self,
        server: Server,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        transport: Literal["polling", "websocket"] | None = None,
        parser: socketio.IParser | None = None,
        protocol: Literal[3, 4] = 4,
        recovers: bool = True,
    ) -> None:
        self._server = server
        self._parser = server.parser if parser is None else parser
        self._recoveries: dict[str, Recovery] = {}
        self._recovered: set[str] = set()
        self._joined: dict[str, Mapping[str, Any] | None] = {}
        self._ids: dict[str, str] = {}
        self._received: dict[str, list[tuple[Any, ...]]] = {}
        self._connecting: dict[str, Deferred[str]] = {}
        self._calls: dict[tuple[str, int], Deferred[Any]] = {}
        self._handlers: dict[tuple[str, str], Any] = {}
        self._decorated: dict[str, tuple[Handlers, Turns]] = {}
        self._lastCall = -1
        self._early: list[socketio.Packet] = []
        self._refused: dict[str, ConnectionRejected] = {}
        self._isOld = protocol == 3
        self._heartbeat: IDelayedCall | None = None
        self.disconnections: list[str] = []
        if transport is None:
            transport = "websocket" if "websocket" in server.settings.transports else "polling"
        asking = {"recover": "1"} if recovers and server.settings.recoveryWindow and not self._isOld else {}
        fields = {"EIO": str(protocol), "transport": transport, **asking, **(query or {})}
        self._url = f"{server.path}/?{urlencode(fields)}"
        self._headers = {"host": "localhost", **(headers or {})}
        self._open(transport, address)

    def _open(self, transport: Literal["polling", "websocket"], address: str) -> None:
        """Open a session."""
        self._transportName, self._address = transport, address
        self._decoder = self._parser.decoder(maxAttachments=1 << 20)
        self._answersHeartbeats = True
        self._read = 0
        self.transport = FakeTransport(transport, EngineIO3() if self._isOld else EngineIO4())
        engine = self._server.engine
        handshake = engine.readHandshake(self._headers, self._url, address, False)
        self.session: Session | None = None
        self.whenOpen = Deferred.fromCoroutine(engine.verify(handshake, transport, "GET"))
        self.whenOpen.addCallback(lambda _: self._opened(engine.openSession(handshake, self.transport)))
        refused: list[Failure] = []
        if isinstance(getattr(self.whenOpen, "result", None), Failure):
            self.whenOpen.addErrback(refused.append)
            refused[0].raiseException()

    def _opened(self, session: Session) -> None:
        self.session = self.transport.session = session
        self.transport.pinged = self._pinged
        self.transport.ended = self._stopPinging
        if self._isOld and self.transport.closed is None:
            self._startPinging()
        self.flush()

    def _pinged(self) -> None:
        if self._answersHeartbeats:
            # The client has read everything before the PING, whenever the test asks for it.
            self._read = len(self.transport.sent)
            self._deliver(Packet(PacketType.PONG))

    def _startPinging(self) -> None:
        interval = self._server.settings.pingInterval
        self._heartbeat = self._server.namespace().reactor.callLater(interval, self._ping)

    def _ping(self) -> None:
        self._startPinging()
        self._deliver(Packet(PacketType.PING))

    def _stopPinging(self) -> None:
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None and heartbeat.active():
            heartbeat.cancel()

    # -- connecting ----------------------------------------------------------------

    def connect(self, namespace: str = "/", auth: Mapping[str, Any] | None = None) -> Deferred[str]:
        """
        Join a namespace.

        :return: a Deferred of the socket's id, which fails with
            :exc:`~txrealtime.errors.ConnectionRejected` if the client is refused.
        """
        joined: Deferred[str] = Deferred()
        self._connecting[namespace] = joined
        self._joined[namespace] = auth
        if not self._isOld:
            recovery = self._recoveries.setdefault(namespace, Recovery())
            fields = recovery.auth(None if auth is None else dict(auth))
            self._sendPacket(socketio.Packet(socketio.PacketType.CONNECT, namespace, fields))
        elif namespace != "/":
            asked = f"{namespace}?{urlencode(auth)}" if auth else namespace
            self._sendPacket(socketio.Packet(socketio.PacketType.CONNECT, asked))
        elif "/" in self._ids or "/" in self._refused:  # the server has decided without a CONNECT
            self._connected("/", self._refused.pop("/", None))
        return joined

    def _connected(self, namespace: str, rejection: ConnectionRejected | None = None) -> None:
        """Called when the server has admitted or refused the client, in protocol 3 also without a CONNECT."""
        joined = self._connecting.pop(namespace, None)
        if rejection is None:
            if joined is not None:
                joined.callback(self._ids[namespace])
        elif joined is not None:
            joined.errback(rejection)
        else:
            self._refused[namespace] = rejection

    def disconnect(self, namespace: str = "/") -> None:
        """Leave a namespace."""
        self._ids.pop(namespace, None)
        self._joined.pop(namespace, None)
        self._sendPacket(socketio.Packet(socketio.PacketType.DISCONNECT, namespace))

    def close(self) -> None:
        """Close the connection without a word, as a browser does when its window is closed."""
        if self.session is not None:
            self.session.transportLost(self.transport, CloseReason.TRANSPORT_CLOSE)
        self.flush()

    def lose(self, noticed: bool = True) -> None:
        """
        Lose the connection, as when a network is cut: what the client has not read is lost.

        The client reads by :meth:`flush`, :meth:`received` and everything that it sends; and when it answers
        a heartbeat.

        :param noticed: false if the server does not notice before its heartbeat fails.
        """
        del self.transport.sent[self._read :]
        self.flush()
        self.ignoreHeartbeats()
        session, transport, self.session = self.session, self.transport, None
        # Whatever the server sends to the old transport from now on, nobody gets.
        self.transport.writable = True
        self.transport = FakeTransport(self._transportName)
        self.transport.close(CloseReason.TRANSPORT_ERROR)
        self._ids.clear()
        if noticed and session is not None:
            session.transportLost(transport, CloseReason.TRANSPORT_ERROR)

    def comeBack(
        self,
        address: str | None = None,
        transport: Literal["polling", "websocket"] | None = None,
        server: Server | None = None,
    ) -> Deferred[list[str]]:
        """
        Connect again after :meth:`lose` or :meth:`close`, and join the namespaces that the client was in.

        A server with ``recoveryWindow`` restores the sockets: see :meth:`recovered`.

        :param address: another address than before.
        :param transport: another transport than before.
        :param server: another server than before, of the same cluster.
        :return: a Deferred of the ids of the sockets, in the order in which the client joined.
        """
        self.lose()
        self._server = server or self._server
        self._open(transport or self._transportName, address or self._address)
        joined = list(self._joined.items())
        return gatherResults(
            [self.connect(namespace, auth) for namespace, auth in joined], consumeErrors=True
        )

    def recovered(self, namespace: str = "/") -> bool:
        """Tell if the client's last :meth:`comeBack` has restored its socket in a namespace."""
        self.flush()
        return namespace in self._recovered

    def stopReading(self) -> None:
        """Take no more packets, like a client whose connection is full."""
        self.transport.writable = False

    def resumeReading(self) -> None:
        """Take packets again."""
        self.transport.writable = True
        if self.session is not None:
            self.session.transportWritable(self.transport)
        self.flush()

    def id(self, namespace: str = "/") -> str:
        """
        Get the id of the client's socket in a namespace.

        :raises Disconnected: if the client is not in the namespace.
        """
        try:
            return self._ids[namespace]
        except KeyError:
            raise Disconnected(f"the client is not in {namespace}") from None

    def isConnected(self, namespace: str = "/") -> bool:
        """Tell if the client is in a namespace."""
        self.flush()
        return namespace in self._ids

    # -- talking ---------------------------------------------------------------------

    def emit(self, event: str, *args: Any, namespace: str = "/") -> None:
        """Send an event."""
        self._sendPacket(socketio.Packet(socketio.PacketType.EVENT, namespace, [event, *args]))

    def call(self, event: str, *args: Any, namespace: str = "/") -> Deferred[Any]:
        """
        Send an event.

        :return: a Deferred of the server's ack, as in :meth:`Socket.call`.  Without an ack it never fires,
            not even when the client goes.
        """
        self._lastCall += 1
        ack: Deferred[Any] = Deferred()
        self._calls[namespace, self._lastCall] = ack
        self._sendPacket(
            socketio.Packet(socketio.PacketType.EVENT, namespace, [event, *args], self._lastCall)
        )
        return ack

    def on(self, event: str, answer: Any = None, namespace: str = "/") -> Any:
        """
        Handle an event of the server.

        ``client.on("news", answer)`` is for events that want an ack: the result of ``answer(*args)``, a tuple
        for several values.  ``@client.on("news")`` decorates a handler as on a
        :class:`txrealtime.client.Client`: it gets all events of the name, one at a time, and may be
        ``async``.  The handler is called when the client takes in the server's packets: see :meth:`flush`.
        """
        if answer is None:
            return self._registry(namespace).on(event, False)
        self._handlers[namespace, event] = answer

    def onAny(self, function: F, namespace: str = "/") -> F:
        """Decorate the handler of events that have none of their own, as on a real client."""
        self._registry(namespace).register("onAny", function, False, 1)
        return function

    def _registry(self, namespace: str) -> Handlers:
        if namespace not in self._decorated:
            self._decorated[namespace] = Handlers(namespace), Turns(lambda: None)
        return self._decorated[namespace][0]

    def received(self, namespace: str = "/") -> list[tuple[Any, ...]]:
        """Take the events received since the last call, each as ``(name, *arguments)``."""
        self.flush()
        return self._received.pop(namespace, [])

    def ignoreHeartbeats(self) -> None:
        """Stop the client's part of the heartbeat, like a machine that sleeps."""
        self._answersHeartbeats = False
        self._stopPinging()

    # -- the wire --------------------------------------------------------------------

    def _sendPacket(self, packet: socketio.Packet) -> None:
        for part in self._parser.encode(packet):
            self._deliver(self.transport.decoded(message(part)))
        self.flush()

    def _deliver(self, packet: Packet) -> None:
        if self.session is None:
            raise Disconnected("the engine has not opened the session yet: see whenOpen")
        self.session.packetReceived(self.transport, packet)

    def flush(self) -> None:
        """Take the packets that the server has sent."""
        self._read = 0
        for packet in self.transport.take():
            if packet.type is PacketType.MESSAGE:
                decoded = self._decoder.feed(packet.data)
                if decoded is not None:
                    self._packetReceived(decoded)
            elif packet.type is PacketType.OPEN:
                self.opened = json.loads(packet.data)
        if self.transport.closed is not None:
            self._ids.clear()

    def _packetReceived(self, packet: socketio.Packet) -> None:
        namespace, data = packet.namespace, packet.data
        match packet.type:
            case socketio.PacketType.CONNECT:
                self._ids[namespace] = self._oldId(namespace) if self._isOld else data["sid"]
                if not self._isOld:
                    self._admitted(namespace, data)
                self._connected(namespace)
            case socketio.PacketType.CONNECT_ERROR:
                self._connected(namespace, _rejection(data, self._isOld))
            case socketio.PacketType.DISCONNECT:
                self._ids.pop(namespace, None)
                self._joined.pop(namespace, None)
                self.disconnections.append(namespace)
            case socketio.PacketType.ACK:
                args = tuple(data)
                ack = self._calls.pop((namespace, packet.id or 0))
                ack.callback(args[0] if len(args) == 1 else args or None)
            case socketio.PacketType.EVENT:
                self._eventReceived(packet)

    def _admitted(self, namespace: str, data: dict[str, Any]) -> None:
        """Called when the server has admitted the client, after the events that a recovery brings."""
        recovery = self._recoveries.setdefault(namespace, Recovery())
        self._recovered.discard(namespace)
        if recovery.admitted(data.get("pid"), data.get("offset")):
            self._recovered.add(namespace)
        early, self._early = self._early, []
        for packet in early:
            self._eventReceived(packet)

    def _oldId(self, namespace: str) -> str:
        """Derive the id as a client of Socket.IO 2 does."""
        sid: str = self.opened["sid"]
        return sid if namespace == "/" else f"{namespace}#{sid}"

    def _eventReceived(self, packet: socketio.Packet) -> None:
        if packet.namespace not in self._ids:
            self._early.append(packet)
            return
        event, *args = packet.data
        if packet.id is None and not self._isOld:
            args = self._recoveries[packet.namespace].stripped(args)
        self._received.setdefault(packet.namespace, []).append((event, *args))
        answer = self._handlers.get((packet.namespace, event))
        if answer is not None and packet.id is not None:
            result = answer(*args)
            self._acknowledge(result, packet.namespace, packet.id)
        elif answer is None and packet.namespace in self._decorated:
            self._decorated[packet.namespace][1].add(self._handle, packet.namespace, event, args, packet.id)

    def _handle(self, namespace: str, event: str, args: list[Any], id: int | None) -> Any:
        handling = maybeDeferred(self._decorated[namespace][0].dispatch, self, event, args)
        return handling.addCallback(self._acknowledge, namespace, id)

    def _acknowledge(self, result: Any, namespace: str, id: int | None) -> None:
        if id is not None and result is not NO_ACK and self.transport.closed is None:
            data = list(result) if isinstance(result, tuple) else [] if result is None else [result]
            self._sendPacket(socketio.Packet(socketio.PacketType.ACK, namespace, data, id))


def _rejection(data: Any, isOld: bool) -> ConnectionRejected:
    """Make the error of a CONNECT_ERROR, which in protocol 3 has either a message or data."""
    if not isOld:
        return ConnectionRejected(data["message"], data.get("data"))
    return ConnectionRejected(data) if isinstance(data, str) else ConnectionRejected(data=data)
