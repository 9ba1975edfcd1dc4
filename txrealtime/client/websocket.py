"""
The WebSocket transport, by Autobahn's client, with a fast path for plain frames.

Nearly all messages are single, unfragmented, uncompressed data frames.  :class:`_Protocol` reads and writes
those itself.  Everything else is Autobahn's: the handshakes, extensions, fragments, control frames, and
violations of RFC 6455.  No other module of the client imports autobahn.
"""

from __future__ import annotations

import os
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
from txrealtime.client.interfaces import TransportOwner
from txrealtime.client.polling import explained
from txrealtime.client.requests import USER_AGENT
from txrealtime.engineio.packet import EngineIO4, Packet
from txrealtime.engineio.websocket.autobahn import Autobahn, unmask
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


def maskedFrame(payload: bytes, isBinary: bool) -> bytes:
    """Build a masked, unfragmented data frame (RFC 6455, 5.2 and 5.3)."""
    size = len(payload)
    first = 0x82 if isBinary else 0x81
    mask = os.urandom(4)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + mask + unmask(payload, mask) if size else head + mask


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
        self._protocol: _Protocol | None = None
        self._closing = False

    def open(self, sid: str | None) -> None:
        self.url = self._address.url(self.name, sid)
        self._connecting = self._endpoint.connect(self._factory())
        self._connecting.addCallbacks(self._connected, self._failed)

    def _factory(self) -> WebSocketClientFactory:
        headers = dict(self._headers)
        cookie = self.cookies.header(self.url)
        if cookie is not None:
            headers["Cookie"] = cookie
        own = "user-agent" in map(str.lower, headers)
        factory = WebSocketClientFactory(
            self.url, headers=headers, useragent=None if own else USER_AGENT, reactor=self._reactor
        )
        factory.protocol = self._buildProtocol  # type: ignore[assignment]
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

    def _buildProtocol(self) -> _Protocol:
        protocol = _Protocol()
        protocol.owner = self
        return protocol

    def _connected(self, protocol: Any) -> None:
        self._connecting = None

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        self._lost(explained(failure.value))

    def joined(self, sid: str) -> None:
        """Called when the session is open; a WebSocket needs no sid."""

    # -- for the protocol ------------------------------------------------------------

    def made(self, protocol: _Protocol) -> None:
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

    def messageReceived(self, payload: bytes, isBinary: bool) -> None:
        """Called with each message; text has been checked."""
        owner = self._owner
        if owner is None:
            return
        try:
            packet = _CODEC.decodeBytes(payload) if isBinary else _CODEC.decodeText(payload.decode())
        except PacketError as error:
            self._lost(error)
        else:
            owner.packetReceived(self, packet)

    def closedByServer(self, code: int | None, reason: str) -> None:
        """Called when the server has begun or completed the closing handshake."""
        if self._closing:
            return  # until the connection is lost
        # The protocol ends the connection once its reply has left.
        self._protocol = None
        if not code or code in (1000, 1001, 1005):
            self._lost(None)
        else:
            words = _CLOSED.get(code or 0, "")
            quoted = f" ({reason[:100]})" if reason else ""
            self._lost(TransportError(f"the server closed the WebSocket {words}: {code}{quoted}"))

    def lost(self, error: Exception) -> None:
        """Called when the connection is lost."""
        self._lost(None if self._closing else error)

    def violated(self, words: str) -> None:
        """Called when the server has violated the WebSocket protocol."""
        self._lost(ProtocolError(words))

    # -- for the session ---------------------------------------------------------------

    def send(self, packets: Sequence[Packet]) -> None:
        protocol = self._protocol
        if protocol is None:
            return
        if protocol.compresses:
            for packet in packets:
                protocol.sendCompressed(packet.wire, packet.isBinary)
        else:
            protocol.transport.write(
                b"".join([maskedFrame(packet.wire, packet.isBinary) for packet in packets])
            )

    def pauseWriting(self) -> None:
        """Called when the connection is full."""
        self.writable = False

    def resumeWriting(self) -> None:
        """Called when the connection is not full any longer."""
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


class _Protocol(WebSocketClientProtocol):
    """Autobahn's client of one :class:`WebSocket`, with the fast path."""

    log = Autobahn.log

    owner: WebSocket
    transport: Any

    _fragments = 0
    _isFast = False
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
        self._isFast = not self.compresses and stands(
            self, *_READING, without="Autobahn reads all frames of each WebSocket of a client"
        )
        self.owner.opened()

    @property
    def compresses(self) -> bool:
        """True if the handshake agreed on compression."""
        return bool(self.websocket_extensions_in_use)

    # -- reading -----------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._isFast and self._isBetweenMessages:
            data = self._readPlain(data)
        if data:
            _read(self, data)

    @property
    def _isBetweenMessages(self) -> bool:
        return (
            self.state == _OPEN and self.current_frame is None and not self.inside_message and not self.data
        )

    def _readPlain(self, data: bytes) -> bytes:
        """
        Read the plain frames at the start of the data.

        :return: the rest, which begins with an unusual frame, or with one that is not complete.
        """
        start, end, limit = 0, len(data), self.owner.maxPayload
        receive = self.owner.messageReceived
        while end - start >= 2 and data[start] in (0x81, 0x82):
            size, first = data[start + 1], start + 2
            if size == 126:
                first += 2
                size = int.from_bytes(data[start + 2 : first], "big")
                isPlain = size > 125
            elif size == 127:
                first += 8
                size = int.from_bytes(data[start + 2 : first], "big")
                isPlain = size > 65535
            else:
                isPlain = size < 126
            # Autobahn fails masked frames, lengths in a longer form than needed, and what is too large.
            if not isPlain or size > limit or first + size > end:
                break
            payload = data[first : first + size]
            if data[start] == 0x81 and not payload.isascii():
                try:
                    payload.decode()
                except UnicodeDecodeError:
                    break
            receive(payload, data[start] == 0x82)
            start = first + size
            if self.state != _OPEN:
                break
        return data[start:]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.owner.messageReceived(payload, isBinary)

    def onMessageBegin(self, isBinary: bool) -> None:
        self._fragments = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        self._fragments += 1
        if self._fragments > _FRAGMENTS + self.message_data_total_length // 16:
            self.owner.violated("a message with too many fragments")

    # -- writing -----------------------------------------------------------------

    def sendCompressed(self, payload: bytes, isBinary: bool) -> None:
        """Send a message compressed (RFC 7692); ``sendMessage`` would refuse more than ``maxPayload``."""
        deflate = self.websocket_extensions_in_use[0]
        deflate.start_compress_message()
        compressed = deflate.compress_message_data(payload) + deflate.end_compress_message()
        self.sendFrame(opcode=2 if isBinary else 1, payload=compressed, rsv=4)

    # -- the end -----------------------------------------------------------------

    def _hangUp(self) -> None:
        """End the connection, at the latest after a second: TLS may wait for the server without end."""
        self.transport.loseConnection()
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
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if self.failedByMe:
            words = (reasonUtf8 or b"").decode("utf-8", "replace")
            if self.wasMaxFramePayloadSizeExceeded or self.wasMaxMessagePayloadSizeExceeded:
                words = "a message larger than the client's setting maxPayload allows"
            self.owner.violated(f"the server broke the WebSocket protocol: {words or code}")

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        # Autobahn's words tell of the opening handshake, Twisted's of the network and of certificates.
        if isinstance(self._lostBecause, (ConnectionDone, ConnectionAborted, type(None))):
            self.owner.lost(
                TransportError(str(self.wasNotCleanReason or reason or "the connection was lost"))
            )
        else:
            self.owner.lost(explained(self._lostBecause))
