"""
WebSocket: Autobahn's protocol, fitted to a session.

Autobahn does the opening handshake, extensions, fragments, control frames and the
closing handshake (RFC 6455).  Here stands what it leaves to us: safe limits, writing
one frame to many clients, backpressure, and deadlines on the session's own clock.

This is the only module that imports autobahn.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web.http import REQUEST_ENTITY_TOO_LARGE, RESPONSES
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from txrealtime.engineio.handshake import Handshake
from txrealtime.engineio.packet import Packet
from txrealtime.engineio.session import CloseReason, ITransport, Session
from txrealtime.engineio.settings import Settings
from txrealtime.errors import HandshakeError, PacketError

__all__ = ["FrameProtocol", "WebSocketFactory", "WebSocketTransport", "frame", "peerAddress", "takeOver"]

# RFC 9110, 15.5.22; twisted.web has no name for it.
_UPGRADE_REQUIRED: Final = 426

# RFC 6455, 7.4.1
_CLOSE_CODES: Final = {CloseReason.SHUTTING_DOWN: 1001, CloseReason.PARSE_ERROR: 1002}


def frame(payload: bytes, isBinary: bool) -> bytes:
    """One unmasked, unfragmented data frame (RFC 6455, 5.2)."""
    first = 0x82 if isBinary else 0x81
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def peerAddress(address: Any) -> str:
    """A peer's address as text; ``unix`` for a UNIX socket."""
    return getattr(address, "host", "unix")


class FrameProtocol(WebSocketServerProtocol):
    """
    A server's WebSocket: whole messages in by :meth:`onMessage`, out by :meth:`sendPayload`.

    It knows no session.  :class:`WebSocketTransport` is built on it, and so is any plain
    WebSocket server that wants the same limits.
    """

    factory: WebSocketFactory
    transport: Any

    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._closeWithin(self.factory.settings.handshakeTimeout)

    def dataReceived(self, data: bytes) -> None:
        # Autobahn's own builds coloured strings for a debug log, at 3 us a call.
        self._dataReceived(data)

    def onOpen(self) -> None:
        self._cancelDeadline()

    def sendPayload(self, payload: bytes, isBinary: bool) -> None:
        """
        Send one message of any size (Autobahn's ``sendMessage`` refuses to send what is
        larger than we would receive).

        :param payload: bytes; of a text, its UTF-8.
        """
        deflate = self._perMessageCompress
        threshold = self.factory.settings.compressionThreshold
        if deflate is None or not threshold or len(payload) < threshold:
            self.transport.write(frame(payload, isBinary))
            return
        deflate.start_compress_message()
        compressed = deflate.compress_message_data(payload) + deflate.end_compress_message()
        self.sendFrame(opcode=2 if isBinary else 1, payload=compressed, rsv=4)

    def _max_message_size_exceeded(self, size: int, limit: int, reason: str) -> None:
        # What the limit is, is not the peer's business: clients expect the bare code.
        self._fail_connection(1009, "")

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        self.sendRefusal(HandshakeError(3, reason, code), dict(responseHeaders or ()))

    def sendRefusal(self, error: HandshakeError, headers: dict[str, str]) -> None:
        """Refuse the opening handshake with the protocol's own error as the body."""
        body = refusal(error)
        lines = [
            f"HTTP/1.1 {error.status} {RESPONSES.get(error.status, b'Refused').decode()}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self._closeWithin(self.factory.settings.handshakeTimeout)

    def _closeWithin(self, seconds: float) -> None:
        """
        Drop the connection after so long: a peer need not answer a closing handshake,
        and over TLS may leave even ``loseConnection`` waiting for ever.
        """
        if self._deadline is None:
            self._deadline = self.factory.reactor.callLater(seconds, self._abort)

    def _abort(self) -> None:
        self._deadline = None
        self.transport.abortConnection()

    def _cancelDeadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._cancelDeadline()
        super().connectionLost(reason)


@implementer(ITransport)
class WebSocketTransport(FrameProtocol):
    """A session's WebSocket."""

    name: Final = "websocket"
    batch: Final = 1 << 16

    session: Session | None = None
    writable = False

    _handshake: Handshake
    _refusal: HandshakeError | None = None

    # -- the opening -------------------------------------------------------------

    async def onConnect(self, request: ConnectionRequest) -> None:  # type: ignore[override]
        transport = self.transport
        opener = self.factory.opener
        # What a hasty client sends before it has our answer must not be taken for another request.
        transport.pauseProducing()
        try:
            self._handshake = opener.readHandshake(
                request.headers,
                self.http_request_uri,
                peerAddress(transport.getPeer()),
                ISSLTransport.providedBy(transport),
            )
            await opener.verify(self._handshake, "websocket", "GET")
        except HandshakeError as error:
            self._refusal = error
            raise ConnectionDeny(error.status, error.message) from None
        finally:
            transport.resumeProducing()

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        self.sendRefusal(self._refusal or HandshakeError(3, reason, code), dict(responseHeaders or ()))

    def onOpen(self) -> None:
        super().onOpen()
        self.writable = True
        self.transport.registerProducer(self, True)
        self.factory.opener.webSocketOpened(self, self._handshake)

    # -- packets -----------------------------------------------------------------

    def send(self, packets: Sequence[Packet]) -> None:
        if self._perMessageCompress is not None:
            for packet in packets:
                self.sendPayload(packet.wire, packet.isBinary)
        elif len(packets) == 1:
            packet = packets[0]
            self.transport.write(packet.frame or _framed(packet))
        else:
            self.transport.write(b"".join([packet.frame or _framed(packet) for packet in packets]))

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        session = self.session
        if session is None:
            return
        try:
            packet = session.codec.decodeMessage(payload, isBinary)
        except PacketError as error:
            session.transportLost(self, CloseReason.PARSE_ERROR, str(error))
        else:
            session.packetReceived(self, packet)

    # -- backpressure: IPushProducer for what we write, and reading on demand ------

    def pauseProducing(self) -> None:
        self.writable = False

    def resumeProducing(self) -> None:
        if self.session is not None and self.state == self.STATE_OPEN:
            self.writable = True
            self.session.transportWritable(self)

    def stopProducing(self) -> None:
        self.writable = False

    def pauseReading(self) -> None:
        self.transport.pauseProducing()

    def resumeReading(self) -> None:
        self.transport.resumeProducing()

    # -- the end -----------------------------------------------------------------

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        return ()  # the close frame says it

    def close(self, reason: CloseReason) -> None:
        self.writable = False
        if reason is CloseReason.SLOW_CONSUMER:
            self.transport.abortConnection()
        elif self.state == self.STATE_OPEN:
            # What reads the client's answer must run, even if the session had paused it.
            self.transport.resumeProducing()
            self.sendCloseFrame(_CLOSE_CODES.get(reason, 1000), reason.encode())

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self._ended()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self._ended()

    def _ended(self) -> None:
        """No more messages either way: a close frame was sent, or the connection is lost."""
        self.writable = False
        session, self.session = self.session, None
        if session is not None:
            if self.failedByMe:
                session.transportLost(self, CloseReason.TRANSPORT_ERROR, "WebSocket protocol violation")
            else:
                session.transportLost(self, CloseReason.TRANSPORT_CLOSE)


def _framed(packet: Packet) -> bytes:
    """A packet's frame, kept for the next client that it goes to."""
    packet.frame = frame(packet.wire, packet.isBinary)
    return packet.frame


class Opener(Protocol):
    """What decides on a WebSocket's opening handshake, and finds its session: the engine."""

    def readHandshake(self, headers: Any, url: str, peer: str, secure: bool) -> Handshake: ...

    def verify(self, handshake: Handshake, transport: str, method: str) -> Awaitable[None]: ...

    def webSocketOpened(self, transport: WebSocketTransport, handshake: Handshake) -> None: ...


class WebSocketFactory(WebSocketServerFactory):
    """
    Makes the WebSockets of one engine: for requests that twisted.web has read
    (:func:`takeOver`), or for connections of an endpoint of its own.
    """

    noisy = False
    opener: Opener

    def __init__(
        self,
        settings: Settings,
        reactor: IReactorTime,
        protocol: Callable[[], FrameProtocol] = WebSocketTransport,
    ) -> None:
        super().__init__(server="", reactor=reactor)  # type: ignore[no-untyped-call]
        self.settings = settings
        self.protocol = protocol  # type: ignore[assignment]
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            webStatus=False,
            versions=[13],
            maxMessagePayloadSize=settings.maxPayload,
            maxFramePayloadSize=settings.maxPayload,
            failByDrop=False,
            # The engine compares origins, for both transports.
            allowedOrigins=["*"],
            allowNullOrigin=True,
            # Deadlines are ours, on the clock that we were given.
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            # Engine.IO has a heartbeat of its own.
            autoPingInterval=0,
            perMessageCompressionAccept=self._acceptDeflate if settings.perMessageDeflate else None,
        )

    def _acceptDeflate(self, offers: Sequence[Any]) -> PerMessageDeflateOfferAccept | None:
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer):
                return PerMessageDeflateOfferAccept(offer, max_message_size=self.settings.maxPayload)
        return None


def refusal(error: HandshakeError) -> bytes:
    """The body of a refused request, as Socket.IO clients expect it."""
    if error.status == REQUEST_ENTITY_TOO_LARGE:
        return b""
    return json.dumps({"code": error.code, "message": error.message}, separators=(",", ":")).encode()


def takeOver(request: Request, factory: WebSocketFactory) -> int | bytes:
    """
    Turn a request into a WebSocket: its connection leaves twisted.web for good.

    Over HTTP/2 there is no connection to take, so the answer is 426 Upgrade Required.
    """
    channel: Any = request.channel
    transport: Any = channel.transport
    if transport is None or not hasattr(channel, "clearLineBuffer"):
        request.setResponseCode(_UPGRADE_REQUIRED)
        request.setHeader(b"upgrade", b"websocket")
        request.setHeader(b"content-type", b"application/json")
        return refusal(HandshakeError(3, "WebSocket takes HTTP/1.1, not HTTP/2"))
    # The channel is registered as the connection's producer, and would be told to write.
    transport.unregisterProducer()
    channel.transport = None
    protocol: Any = factory.buildProtocol(transport.getPeer())
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    head = [request.method + b" " + request.uri + b" HTTP/1.1"]
    for name, values in request.requestHeaders.getAllRawHeaders():
        head += [name + b": " + value for value in values]
    protocol.makeConnection(transport)
    # twisted.web reads no further while it handles a request.
    transport.resumeProducing()
    protocol.dataReceived(b"\r\n".join([*head, b"", b""]) + channel.clearLineBuffer())
    return NOT_DONE_YET
