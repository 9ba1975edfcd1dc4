"""
Autobahn's client of a WebSocket, for all that is rare.

A :class:`Full` has compressed WebSockets from the beginning, and any other one from the first unusual byte:
see :mod:`~txrealtime.client.opening`.  No other module of the client imports autobahn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from txrealtime.client.cookies import Cookies
from txrealtime.client.frames import Frames
from txrealtime.client.opening import PlainOwner
from txrealtime.client.polling import explained
from txrealtime.client.requests import MAX_HEAD
from txrealtime.engineio.tcp import endConnection, setProtocol
from txrealtime.engineio.websocket.autobahn import Autobahn
from txrealtime.engineio.websocket.opening import acceptOf
from txrealtime.errors import ProtocolError, TransportError
from txrealtime.foreign import stands

__all__ = ["Full", "FullFactory", "FullOwner"]

_OPEN: Final = WebSocketClientProtocol.STATE_OPEN

# Attributes that tell how far Autobahn has read, once the handshake is complete.
_READING: Final = ("state", "data", "current_frame", "inside_message")

# Fragments of a message beside one for every 16 bytes: empty ones cost memory beyond the message's size.
_FRAGMENTS: Final = 1024

# Seconds that a connection has to end after the closing handshake.
_HANG_UP: Final = 1.0

_read: Callable[[Any, bytes], None] = WebSocketClientProtocol.dataReceived
if stands(WebSocketClientProtocol, "_dataReceived", without="reading an unusual frame takes 3 us more"):
    # dataReceived() first builds coloured strings for a debug log.
    _read = WebSocketClientProtocol._dataReceived


class FullOwner(PlainOwner, Protocol):
    """
    The transport, as Autobahn's client of its WebSocket knows it.

    :ivar isFull: true while the connection takes no more bytes.
    :ivar deflate: true to offer compression.
    """

    cookies: Cookies
    deflate: bool
    isFull: bool
    reactor: Any

    def closedByServer(self, code: int | None, reason: str) -> None: ...

    def hungUp(self, error: Exception | None) -> None: ...

    def lost(self, error: Exception) -> None: ...

    def violated(self, words: str) -> None: ...


class FullFactory(WebSocketClientFactory):
    """Makes the protocol of one connection."""

    noisy = False

    def __init__(self, owner: FullOwner) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            owner.url, headers=owner.headers(), useragent=None, reactor=owner.reactor
        )
        self._owner = owner
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            maxMessagePayloadSize=owner.maxPayload,
            maxFramePayloadSize=owner.maxPayload,
            failByDrop=False,
            # The session has deadlines on the reactor that it was given.
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            # Engine.IO has its own heartbeat.
            autoPingInterval=0,
            perMessageCompressionOffers=[PerMessageDeflateOffer()] if owner.deflate else [],
            perMessageCompressionAccept=self._acceptDeflate,
        )

    def _acceptDeflate(self, response: Any) -> PerMessageDeflateResponseAccept | None:
        owner = self._owner
        if owner.deflate and isinstance(response, PerMessageDeflateResponse):
            return PerMessageDeflateResponseAccept(response, max_message_size=owner.maxPayload)
        return None

    def buildProtocol(self, address: Any) -> Full:
        protocol = Full()
        for name in WebSocketClientProtocol.CONFIG_ATTRS:
            setattr(protocol, name, getattr(self, name))
        owner = protocol.owner = self._owner
        protocol.maxPayload = owner.maxPayload
        # The methods that the protocol calls for each message are those of the owner: a call less.
        protocol.textReceived = owner.textReceived
        protocol.bytesReceived = owner.bytesReceived
        protocol.factory = self
        return protocol

    def takeOver(self, transport: Any, key: bytes, isOpen: bool) -> Full:
        """
        Make the protocol of a connection whose opening request was sent.

        :param key: the request's ``Sec-WebSocket-Key``.
        :param isOpen: true if the handshake is complete.
        """
        protocol = self.buildProtocol(None)
        setProtocol(transport, protocol)
        protocol.takeOver(transport, key, isOpen)
        return protocol


class Full(Frames, WebSocketClientProtocol):  # type: ignore[misc]
    """Autobahn's client of one WebSocket, with the fast path."""

    log = Autobahn.log

    # Autobahn would copy these settings from the factory, and make a text of them for a debug log: 0.3 ms.
    CONFIG_ATTRS = []

    owner: FullOwner
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
        """Go on with a connection, as :meth:`FullFactory.takeOver` has it."""
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
