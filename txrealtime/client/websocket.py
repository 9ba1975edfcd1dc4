"""
The WebSocket transport.

A connection begins as a :class:`~txrealtime.client.opening.Plain`, and nearly all stay one.  Everything
unusual is Autobahn's: extensions, fragments, control frames, closing handshakes and violations of RFC 6455;
messages have the fast path of :mod:`~txrealtime.client.frames` there too.  No other module of the client
imports autobahn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from txrealtime.client.address import Address
from txrealtime.client.cookies import Cookies
from txrealtime.client.frames import Frames, nextMask
from txrealtime.client.interfaces import TransportOwner
from txrealtime.client.opening import Plain, PlainFactory
from txrealtime.client.polling import explained
from txrealtime.client.requests import MAX_HEAD, USER_AGENT
from txrealtime.engineio.packet import DIGITS, EngineIO4, Packet, message
from txrealtime.engineio.tcp import endConnection, setProtocol
from txrealtime.engineio.websocket.autobahn import Autobahn
from txrealtime.engineio.websocket.opening import acceptOf
from txrealtime.engineio.websocket.plain import maskedFrame, maskedTextFrame
from txrealtime.errors import PacketError, ProtocolError, TransportError
from txrealtime.foreign import stands

__all__ = ["WebSocket"]

_CODEC: Final = EngineIO4()

_OPEN: Final = WebSocketClientProtocol.STATE_OPEN

# Attributes that tell how far Autobahn has read, once the handshake is complete.
_READING: Final = ("state", "data", "current_frame", "inside_message")

# Fragments of a message beside one for every 16 bytes: empty ones cost memory beyond the message's size.
_FRAGMENTS: Final = 1024

# Seconds that a connection has to end after the closing handshake.
_HANG_UP: Final = 1.0

_CLOSED: Final = {
    1000: "in order",
    1001: "because it goes away",
    1002: "for a violation of the protocol",
    1007: "for text that is not UTF-8",
    1008: "for a violation of its policy",
    1009: "because a message was too large for it",
    1011: "after an internal error",
}

_read: Callable[[Any, bytes], None] = WebSocketClientProtocol.dataReceived
if stands(WebSocketClientProtocol, "_dataReceived", without="reading an unusual frame takes 3 us more"):
    # dataReceived() first builds coloured strings for a debug log.
    _read = WebSocketClientProtocol._dataReceived


class WebSocket:
    """
    A transport over a WebSocket.

    :param owner: the session.
    :param endpoint: connects to the server.
    :param headers: HTTP headers of the opening request.
    :param maxPayload: bytes that a message may have.
    :param deflate: offer compression.
    """

    name: str = "websocket"

    def __init__(
        self,
        owner: TransportOwner,
        address: Address,
        endpoint: IStreamClientEndpoint,
        cookies: Cookies,
        reactor: Any,
        headers: Mapping[str, str],
        maxPayload: int,
        deflate: bool,
    ) -> None:
        self.writable = False
        self.isFull = False
        self.cookies = cookies
        self.url = ""
        self._owner: TransportOwner | None = owner
        self._address = address
        self._endpoint = endpoint
        self._reactor = reactor
        self._headers = headers
        self.maxPayload = maxPayload
        self._deflate = deflate
        self._connecting: Deferred[Any] | None = None
        self._protocol: _Protocol | Plain | None = None
        self._closing = False

    def open(self, sid: str | None) -> None:
        self.url = self._address.url(self.name, sid)
        # A compressed WebSocket has no fast path.
        factory = self._factory() if self._deflate else PlainFactory(self)
        self._connecting = self._endpoint.connect(factory)
        self._connecting.addCallbacks(self._connected, self._failed)

    def headers(self) -> dict[str, str]:
        """Return the headers of the opening request that the handshake does not need."""
        headers = dict(self._headers)
        cookie = self.cookies.header(self.url)
        if cookie is not None:
            headers["Cookie"] = cookie
        if "user-agent" not in map(str.lower, headers):
            headers["User-Agent"] = USER_AGENT
        return headers

    def _factory(self) -> WebSocketClientFactory:
        factory = WebSocketClientFactory(
            self.url, headers=self.headers(), useragent=None, reactor=self._reactor
        )
        factory.protocol = lambda: self._buildProtocol(factory)  # type: ignore[assignment]
        factory.noisy = False
        factory.setProtocolOptions(
            maxMessagePayloadSize=self.maxPayload,
            maxFramePayloadSize=self.maxPayload,
            failByDrop=False,
            # The session has deadlines on the reactor that it was given.
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            # Engine.IO has its own heartbeat.
            autoPingInterval=0,
            perMessageCompressionOffers=[PerMessageDeflateOffer()] if self._deflate else [],
            perMessageCompressionAccept=self._acceptDeflate,
        )
        return factory

    def _acceptDeflate(self, response: Any) -> PerMessageDeflateResponseAccept | None:
        if self._deflate and isinstance(response, PerMessageDeflateResponse):
            return PerMessageDeflateResponseAccept(response, max_message_size=self.maxPayload)
        return None

    def _buildProtocol(self, factory: WebSocketClientFactory) -> _Protocol:
        protocol = _Protocol()
        for name in WebSocketClientProtocol.CONFIG_ATTRS:
            setattr(protocol, name, getattr(factory, name))
        protocol.owner = self
        protocol.maxPayload = self.maxPayload
        # The methods that the protocol calls for each message are those of this object: a call less.
        protocol.textReceived = self.textReceived
        protocol.bytesReceived = self.bytesReceived
        return protocol

    def _connected(self, protocol: Any) -> None:
        self._connecting = None

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        self._lost(explained(failure.value))

    def joined(self, sid: str) -> None:
        """Called when the session is open; a WebSocket needs no sid."""

    # -- for the protocol ------------------------------------------------------------

    def becomeFull(self, transport: Any, key: bytes, isOpen: bool) -> _Protocol:
        """Give a connection to Autobahn: see :class:`~txrealtime.client.opening.Plain`."""
        factory = self._factory()
        protocol = self._buildProtocol(factory)
        protocol.factory = factory
        setProtocol(transport, protocol)
        protocol.takeOver(transport, key, isOpen)
        return protocol

    @property
    def isOver(self) -> bool:
        return self._owner is None

    def made(self, protocol: _Protocol | Plain) -> None:
        """Called when the connection is made."""
        self._protocol = protocol
        if self._owner is None:
            protocol.transport.abortConnection()

    def opened(self) -> None:
        """Called when the opening handshake is complete."""
        owner, protocol = self._owner, self._protocol
        if owner is not None and protocol is not None:
            self.writable = True
            protocol.transport.registerProducer(_Pauses(self), True)
            owner.transportOpened(self)

    def textReceived(self, text: str) -> None:
        """Called with each text message."""
        owner = self._owner
        if owner is None:
            return
        if text[:1] == "4":
            owner.messageReceived(self, text[1:])
            return
        try:
            packet = _CODEC.decodeText(text)
        except PacketError as error:
            self._lost(error)
        else:
            owner.packetReceived(self, packet)

    def bytesReceived(self, data: bytes) -> None:
        """Called with each binary message."""
        if self._owner is not None:
            self._owner.messageReceived(self, data)

    def closedByServer(self, code: int | None, reason: str) -> None:
        """Called when the server has begun or completed the closing handshake."""
        if self._closing:
            return  # until the connection is lost
        if not code or code in (1000, 1001, 1005):
            self.hungUp(None)
        else:
            words = _CLOSED.get(code or 0, "")
            quoted = f" ({reason[:100]})" if reason else ""
            self.hungUp(TransportError(f"the server closed the WebSocket {words}: {code}{quoted}"))

    def hungUp(self, error: Exception | None) -> None:
        """Called when the protocol ends the connection by itself, once its close frame has left."""
        self._protocol = None
        self._lost(error)

    def lost(self, error: Exception) -> None:
        """Called when the connection is lost."""
        self._lost(None if self._closing else error)

    def violated(self, words: str) -> None:
        """Called when the server has violated the protocol of the opening handshake."""
        self._lost(ProtocolError(words))

    # -- for the session ---------------------------------------------------------------

    def send(self, packets: Sequence[Packet]) -> None:
        protocol = self._protocol
        if protocol is None:
            return
        if protocol.compresses:
            assert isinstance(protocol, _Protocol)
            for packet in packets:
                protocol.sendCompressed(packet.wire, packet.isBinary)
        else:
            for packet in packets:
                data = packet.data
                protocol.write(
                    maskedFrame(data, True, nextMask())
                    if isinstance(data, bytes)
                    else maskedTextFrame(DIGITS[packet.type], data, nextMask())
                )

    def sendMessage(self, data: str | bytes) -> None:
        protocol = self._protocol
        if protocol is None or protocol.compresses:
            self.send((message(data),))
        elif isinstance(data, str):
            protocol.write(maskedTextFrame("4", data, nextMask()))
        else:
            protocol.write(maskedFrame(data, True, nextMask()))

    def pauseWriting(self) -> None:
        """Called when the connection is full."""
        self.writable = False
        self.isFull = True

    def resumeWriting(self) -> None:
        """Called when the connection is not full any longer."""
        self.isFull = False
        if self._protocol is not None:
            self._protocol.sendLatePong()
        if self._owner is not None and self._protocol is not None:
            self.writable = True
            self._owner.transportWritable(self)

    def pauseReading(self) -> None:
        if self._protocol is not None:
            self._protocol.transport.pauseProducing()

    def resumeReading(self) -> None:
        if self._protocol is not None:
            self._protocol.transport.resumeProducing()

    def pause(self, done: Callable[[], None]) -> None:
        """Not called: nothing follows a WebSocket."""
        raise NotImplementedError

    def resume(self) -> None:
        """Not called: nothing follows a WebSocket."""
        raise NotImplementedError

    def close(self) -> None:
        self.writable = False
        self._closing = True
        if self._protocol is not None:
            self._protocol.sendClose(1000)

    def abort(self) -> None:
        self._owner = None
        self.writable = False
        connecting, self._connecting = self._connecting, None
        protocol, self._protocol = self._protocol, None
        if connecting is not None:
            connecting.cancel()
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abortConnection()

    def _lost(self, error: Exception | None) -> None:
        owner = self._owner
        if owner is not None:
            self.abort()
            owner.transportLost(self, error)


class _Pauses:
    """The producer of a connection."""

    def __init__(self, webSocket: WebSocket) -> None:
        self.pauseProducing = webSocket.pauseWriting
        self.resumeProducing = webSocket.resumeWriting

    def stopProducing(self) -> None:
        """Called when the connection is lost, which the protocol hears too."""


class _Protocol(Frames, WebSocketClientProtocol):  # type: ignore[misc]
    """Autobahn's client of one :class:`WebSocket`, with the fast path."""

    log = Autobahn.log

    # Autobahn would copy these settings from the factory, and make a text of them for a debug log: 0.3 ms.
    CONFIG_ATTRS = []

    owner: WebSocket
    transport: Any

    compresses = False
    """True if the handshake agreed on compression."""

    _isOpening = True
    _isMute = False
    _fragments = 0
    _latePong: bytes | None = None
    _hangingUp: IDelayedCall | None = None
    _lostBecause: BaseException | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self.owner.made(self)

    def onConnect(self, response: Any) -> None:
        cookie = response.headers.get("set-cookie")
        if cookie:
            self.owner.cookies.received(self.owner.url, [cookie])

    def onOpen(self) -> None:
        self.compresses = bool(self.websocket_extensions_in_use)
        self.isFast = not self.compresses and stands(
            self, *_READING, without="Autobahn reads all frames of each WebSocket of a client"
        )
        if self._isOpening:
            self.owner.opened()

    def takeOver(self, transport: Any, key: bytes, isOpen: bool) -> None:
        """
        Go on with a connection whose opening request was sent.

        :param key: the request's ``Sec-WebSocket-Key``.
        :param isOpen: true if the handshake is complete.
        """
        self._isMute = True
        self.makeConnection(transport)  # type: ignore[no-untyped-call]
        self._isMute = False
        self.websocket_key = key
        if isOpen:
            self._isOpening = False
            self.readFully(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % acceptOf(key)
            )
            self._readsFully = False

    # -- reading -----------------------------------------------------------------

    @property
    def isBetweenMessages(self) -> bool:
        return (
            self.state == _OPEN and self.current_frame is None and not self.inside_message and not self.data
        )

    def readFully(self, data: bytes) -> None:
        if self.state != WebSocketClientProtocol.STATE_CONNECTING:
            _read(self, data)
            return
        try:
            _read(self, data)
        except ValueError:
            self.owner.violated("the response to the opening handshake cannot be read")
        if self.state == WebSocketClientProtocol.STATE_CONNECTING and len(self.data) > MAX_HEAD:
            self.owner.violated(
                f"the response to the opening handshake has a head of more than {MAX_HEAD} bytes"
            )

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.owner.bytesReceived(payload)
        else:
            self.owner.textReceived(payload.decode())

    def onMessageBegin(self, isBinary: bool) -> None:
        self._fragments = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        self._fragments += 1
        most = _FRAGMENTS + self.message_data_total_length // 16
        if self._fragments > most and not self.failedByMe:
            self._fail_connection(1008, "a message with too many fragments")

    # -- writing -----------------------------------------------------------------

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        if not self._isMute:
            self.write(data)

    def onPing(self, payload: bytes) -> None:
        # RFC 6455, 5.5.3: one PONG for the last of several PINGs is enough.
        if self.owner.isFull:
            self._latePong = payload
        else:
            super().onPing(payload)

    def sendLatePong(self) -> None:
        """Answer the last PING that came while the connection was full."""
        payload, self._latePong = self._latePong, None
        if payload is not None:
            super().onPing(payload)

    def dropConnection(self, abort: bool = False) -> None:
        self.uncork()
        super().dropConnection(abort)

    def sendCompressed(self, payload: bytes, isBinary: bool) -> None:
        """Send a message compressed (RFC 7692); ``sendMessage`` would refuse more than ``maxPayload``."""
        deflate = self.websocket_extensions_in_use[0]
        deflate.start_compress_message()
        compressed = deflate.compress_message_data(payload) + deflate.end_compress_message()
        self.sendFrame(opcode=2 if isBinary else 1, payload=compressed, rsv=4)

    # -- the end -----------------------------------------------------------------

    def _hangUp(self) -> None:
        """End the connection, at the latest after a second: TLS may wait for the server without end."""
        if self._hangingUp is not None:
            return  # behind a second close frame
        self.uncork()
        # A producer would keep TLS from closing.
        endConnection(self.transport)
        self._hangingUp = self.factory.reactor.callLater(_HANG_UP, self.transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        hangingUp, self._hangingUp = self._hangingUp, None
        if hangingUp is not None and hangingUp.active():
            hangingUp.cancel()
        self._lostBecause = reason.value
        super().connectionLost(reason)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        result = super().onCloseFrame(code, reasonRaw)
        if self.state != WebSocketClientProtocol.STATE_OPEN and not self.failedByMe:
            # Autobahn waits for the server to end the connection, which some never do.
            self._hangUp()
            self.owner.closedByServer(code, self.remoteCloseReason or "")
        return result

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        self.leaveFastPath()
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if self.failedByMe:
            words = (reasonUtf8 or b"").decode("utf-8", "replace")
            if self.wasMaxFramePayloadSizeExceeded or self.wasMaxMessagePayloadSizeExceeded:
                words = "a message larger than the client's setting maxPayload allows"
            # RFC 6455, 7.1.7: the code is for the server, which also gets what was sent before.
            self._hangUp()
            self.owner.hungUp(ProtocolError(f"the server broke the WebSocket protocol: {words or code}"))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        # Autobahn's words tell of the opening handshake, Twisted's of the network and of certificates.
        if isinstance(self._lostBecause, (ConnectionDone, ConnectionAborted, type(None))):
            self.owner.lost(
                TransportError(str(self.wasNotCleanReason or reason or "the connection was lost"))
            )
        else:
            self.owner.lost(explained(self._lostBecause))
