"""
The tunnel: a WebSocket goes to the worker that has its session, byte for byte.

A tunnel serves the upgrades that cannot be handed over, as over TLS.  It is one connection over a UNIX socket
for each WebSocket, with a first line that tells the client's address; the request and all that follows come
behind this line as the client has sent them.  Each end stops reading while the other one is full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.tcp import peerAddress, readPlainly, replaceProtocol
from txrealtime.engineio.websocket.transport import WebSocketFactory

__all__ = ["Carried", "CarriedFactory", "Carriers"]


class Carriers:
    """
    A factory of protocols that carry WebSockets to another worker.

    :param engine: this worker's engine, which refuses them if the other worker is gone.
    :param connect: connects a factory to the other worker.
    :param present: takes the protocols while they are connected.
    """

    def __init__(
        self, engine: Engine, connect: Callable[[Factory], Deferred[Any]], present: set[Protocol]
    ) -> None:
        self._engine = engine
        self._connect = connect
        self._present = present

    def buildProtocol(self, address: object) -> Protocol:
        """Return the protocol for a client's connection."""
        return _Carrier(self._engine, self._connect, address, self._present)


@implementer(IPushProducer)
class _Carrier(Protocol):
    """The client's end of a tunnel."""

    transport: Any

    def __init__(
        self,
        engine: Engine,
        connect: Callable[[Factory], Deferred[Any]],
        address: object,
        present: set[Protocol],
    ) -> None:
        self._engine = engine
        self._connect = connect
        self._address = address
        self._present = present
        self._waiting: list[bytes] = []
        self._owner: Any = None
        self._gone = False

    def connectionMade(self) -> None:
        # Nothing more is read until the tunnel stands, or the bytes before would grow without limit.
        self.transport.pauseProducing()
        self._present.add(self)
        self._connect(Factory.forProtocol(lambda: _Far(self))).addErrback(self._refuse)

    def dataReceived(self, data: bytes) -> None:
        if self._owner is None:
            self._waiting.append(data)
        else:
            self._owner.write(data)

    def stands(self, owner: Any) -> None:
        """Called when the other worker has accepted."""
        if self._gone:
            owner.abortConnection()
            return
        self._owner = owner
        secure = "tls" if ISSLTransport.providedBy(self.transport) else "plain"
        owner.write(f"{secure} {peerAddress(self.transport)}\n".encode())
        owner.writeSequence(self._waiting)
        owner.registerProducer(self, True)
        self.transport.registerProducer(owner, True)
        self.transport.resumeProducing()

    def answered(self, data: bytes) -> None:
        """Called when the other worker has sent something."""
        self._waiting = []
        self.transport.write(data)

    def _refuse(self, failure: Failure | None = None) -> None:
        """Let this worker's own WebSocket refuse the client, with the protocol's error."""
        if self._gone:
            return
        self._present.discard(self)
        protocol = self._engine.webSockets.buildProtocol(self._address)  # type: ignore[arg-type]
        replaceProtocol(self.transport, protocol)
        self.transport.resumeProducing()
        protocol.dataReceived(b"".join(self._waiting))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._gone = True
        self._present.discard(self)
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.unregisterProducer()
            owner.loseConnection()

    def ended(self) -> None:
        """Called when the other worker has closed."""
        if self._owner is not None:
            self._owner = None
            self.transport.unregisterProducer()
            if self._waiting:  # it has died before its first byte
                self._refuse()
            else:
                self.transport.loseConnection()

    # -- IPushProducer, for the connection to the other worker -----------------------

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: :meth:`ended` follows, and the client may have to hear a refusal first."""


class _Far(Protocol):
    """The connection to the other worker."""

    transport: Any

    def __init__(self, carrier: _Carrier) -> None:
        self._carrier = carrier

    def connectionMade(self) -> None:
        readPlainly(self.transport)
        self._carrier.stands(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._carrier.answered(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._carrier.ended()


class _SecureOpener:
    """
    An engine, for WebSockets that came over TLS to another worker.

    The transport cannot provide ``ISSLTransport`` in its place: Autobahn would look for the TLS connection.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.webSocketType = engine.webSocketType
        self.counts = engine.counts
        self.verify = engine.verify
        self.webSocketOpened = engine.webSocketOpened
        self.webSocketClosing = engine.webSocketClosing
        self.webSocketLost = engine.webSocketLost

    def readHandshake(self, headers: Mapping[str, str], url: str, peer: str, secure: bool) -> OpeningRequest:
        """Read an opening request that came over TLS."""
        return self._engine.readHandshake(headers, url, peer, True)


class Carried(ProtocolWrapper):
    """The owner's end of a tunnel: the transport of a WebSocket, with the client's address."""

    factory: Any
    transport: Any
    wrappedProtocol: Any
    _line: bytes | None = b""
    _peer: Any = UNIXAddress(None)

    def connectionMade(self) -> None:
        """Wait for the first line."""
        readPlainly(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self._line is None:
            self.wrappedProtocol.dataReceived(data)
            return
        line, found, rest = (self._line + data).partition(b"\n")
        if not found:
            self._line = line
            return
        self._line = None
        kind, _, host = line.decode().partition(" ")
        if host != "unix":
            self._peer = IPv4Address("TCP", host, 0)
        self.wrappedProtocol = self.factory.webSocket(self._peer, kind == "tls")
        self.wrappedProtocol.makeConnection(self)
        if rest:
            self.wrappedProtocol.dataReceived(rest)

    def getPeer(self) -> Any:
        return self._peer

    def abortConnection(self) -> None:
        """Drop the connection, as a TCP connection does."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.factory.unregisterProtocol(self)
        if self._line is None:
            self.wrappedProtocol.connectionLost(reason)


class CarriedFactory(WrappingFactory):
    """
    A factory of the owner's ends of tunnels.

    :param engine: the engine that has the sessions.
    """

    noisy = False

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.webSockets)  # type: ignore[no-untyped-call]
        self._plain = engine.webSockets
        self._secure = WebSocketFactory(engine.settings, engine.reactor, _SecureOpener(engine))

    def buildProtocol(self, address: Any) -> Any:
        factory: Any = self
        return Carried(factory, Protocol())

    def webSocket(self, peer: Any, secure: bool) -> Any:
        """Return the protocol of a WebSocket, once the first line of its tunnel has come."""
        return (self._secure if secure else self._plain).buildProtocol(peer)
