"""
The complete WebSocket protocol, by Autobahn, for all frames that the fast path leaves out.

No other module imports autobahn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.web.server import NOT_DONE_YET, Request

from txrealtime.engineio.counts import Counts
from txrealtime.engineio.refusals import LARGER, refusal
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.tcp import replaceProtocol
from txrealtime.engineio.websocket.frames import FrameProtocol
from txrealtime.errors import HandshakeError
from txrealtime.foreign import stands

__all__ = ["Autobahn", "FrameFactory", "takeOver"]

# RFC 9110, 15.5.22; absent from twisted.web.
_UPGRADE_REQUIRED: Final = 426

_OPEN: Final = WebSocketServerProtocol.STATE_OPEN
_CLOSED: Final = WebSocketServerProtocol.STATE_CLOSED

# Attributes that tell how far Autobahn has read, once the handshake is complete.
_READING: Final = ("state", "data", "current_frame", "inside_message")

_read: Callable[[Autobahn, bytes], None] = WebSocketServerProtocol.dataReceived
if stands(WebSocketServerProtocol, "_dataReceived", without="reading an unusual frame takes 3 us more"):
    # dataReceived() first builds coloured strings for a debug log.
    _read = WebSocketServerProtocol._dataReceived


def _canBeRead(extension: str, parameters: Any) -> bool:
    """
    Check that Autobahn can read an offer.

    RFC 7692, 5 and 7.1, has a server decline an unsuitable offer; Autobahn refuses the WebSocket instead.
    """
    if extension != "permessage-deflate":
        return False
    try:
        PerMessageDeflateOffer.parse(parameters)
    except Exception:
        return False
    return True


class _Silent:
    """A logger that drops everything: Autobahn's logs each refusal twice, with text from the client."""

    def ignore(self, *args: Any, **values: Any) -> None:
        """Log nothing."""

    debug = info = warn = error = failure = ignore


class Autobahn(WebSocketServerProtocol):
    """Autobahn's part of one :class:`FrameProtocol`."""

    log = _Silent()

    # Autobahn copies these settings from the factory to each connection.  FrameFactory makes them
    # attributes of a class instead.
    CONFIG_ATTRS = []

    owner: FrameProtocol

    # Until the handshake sets it.
    websocket_extensions_in_use: list[Any] = []

    _fragments = 0
    _violation = ""
    _refusal: HandshakeError | None = None

    async def onConnect(self, request: ConnectionRequest) -> str | None:  # type: ignore[override]
        offers = self.websocket_extensions if self.owner.factory.settings.perMessageDeflate else []
        self.websocket_extensions = [offer for offer in offers if _canBeRead(*offer)]
        try:
            return await self.owner.handshakeReceived(
                request.headers, self.http_request_uri, request.protocols
            )
        except HandshakeError as error:
            self._refusal = error
            raise ConnectionDeny(error.status, error.message) from None

    def onOpen(self) -> None:
        self.owner.handshakeDone()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        # Behind the server's close frame messages are dropped, as by Closing.
        if self.state == _OPEN:
            self.owner.unusualReceived(payload, isBinary)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self.owner.write(data)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        # Autobahn's reason quotes the client after a first part in words of its own.
        error = self._refusal or HandshakeError(3, reason.partition('"')[0], code)
        self.owner.refuse(error, dict(responseHeaders or ()))

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self.owner.closing(self._violation)

    def onPing(self, payload: bytes) -> None:
        self.owner.pinged(payload)

    def onMessageBegin(self, isBinary: bool) -> None:
        self._fragments = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        # Empty and tiny fragments cost memory beyond the message's size, which alone is limited.
        self._fragments += 1
        allowed = self.owner.factory.settings.maxFragments + self.message_data_total_length // 16
        # A message in one frame has no fragments.
        if self._fragments > max(1, allowed) and not self.failedByMe:
            self._failWith(1008, "too many fragments", "a message in more fragments than maxFragments allows")

    def _max_message_size_exceeded(self, size: int, limit: int, reason: str) -> None:
        # Clients expect the bare code, and need not know the limit.
        violation = f"a message of {size} bytes or more, larger than maxPayload, {limit} bytes: {LARGER}"
        self._failWith(1009, "", violation)

    def _fail_connection(self, code: int = 1002, reason: str = "") -> None:
        # Autobahn's reasons name rules and numbers, and quote no text of the client.
        self._failWith(code, reason[:123], f"WebSocket protocol violation: {reason}")

    def _failWith(self, code: int, reason: str, violation: str) -> None:
        """
        Fail the connection (RFC 6455, 7.1.7): send a close frame and ignore what follows.

        After a close frame, from whichever side, further violations change nothing.  Autobahn itself would
        drop the connection, and a reset would destroy what the client has not read yet.

        :param violation: for the log.
        """
        self.failedByMe = True
        if self.state == _OPEN:
            self._violation = violation
            self.sendCloseFrame(code, reason.encode())

    def dropConnection(self, abort: bool = False) -> None:
        # Autobahn resets a connection after a closing handshake begun by the server.  The owner's deadline
        # ends a connection whose client does not.
        super().dropConnection(False)

    # -- for the owner -------------------------------------------------------------

    @property
    def compresses(self) -> bool:
        """``True`` if the handshake agreed on compression."""
        return bool(self.websocket_extensions_in_use)

    @property
    def isBetweenMessages(self) -> bool:
        """``True`` if the next byte begins a message, so that the fast path may read it."""
        try:
            return (
                self.state == _OPEN
                and self.current_frame is None
                and not self.inside_message
                and not self.data
            )
        except AttributeError:
            return False

    def feed(self, data: bytes) -> None:
        """Read some bytes."""
        # Of a closed WebSocket, Autobahn would keep them.
        if self.state != _CLOSED:
            _read(self, data)

    def readNothing(self) -> None:
        """Drop all that comes, also the messages behind the present one."""
        self.state = _CLOSED

    def takeRest(self) -> bytes | None:
        """Give up the bytes behind the opening handshake; ``None`` to read the whole connection."""
        if not stands(self, *_READING, without="Autobahn reads all frames of each WebSocket"):
            return None
        rest: bytes
        rest, self.data = self.data, b""
        return rest

    def resume(self) -> None:
        """Take the state that follows an opening handshake without extensions."""
        self.websocket_version = 13
        self.websocket_extensions_in_use = []
        self.websocket_protocol_in_use = None
        self.state = _OPEN
        self.inside_message = False
        self.current_frame: Any = None

    def startClosing(self, code: int, reason: str) -> None:
        """Begin the closing handshake, unless it has begun."""
        if self.state == _OPEN:
            self.sendCloseFrame(code, reason.encode())

    def answerPing(self, payload: bytes) -> None:
        """Send a PONG."""
        if self.state == _OPEN:
            self.sendPong(payload)  # type: ignore[no-untyped-call]

    def sendCompressed(self, payload: bytes, isBinary: bool) -> None:
        """Send a message compressed (RFC 7692); ``sendMessage`` would refuse more than ``maxPayload``."""
        deflate = self.websocket_extensions_in_use[0]
        deflate.start_compress_message()
        compressed = deflate.compress_message_data(payload) + deflate.end_compress_message()
        self.sendFrame(opcode=2 if isBinary else 1, payload=compressed, rsv=4)


class FrameFactory(ServerFactory):
    """
    A factory of WebSockets.

    Its WebSockets are requests that twisted.web has read (:func:`takeOver`), or connections to an endpoint of
    its own.

    :param settings: limits and deadlines.
    :param reactor: the clock.
    :param protocol: creates a :class:`FrameProtocol`.
    :ivar isPlain: ``True`` if plain opening handshakes take the fast path.
    """

    noisy = False

    def __init__(
        self, settings: Settings, reactor: IReactorTime, protocol: Callable[[], FrameProtocol]
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.counts = Counts()
        # A plain handshake never leads to compression.
        self.isPlain = settings.shortWays and not settings.perMessageDeflate
        self._protocol = protocol
        self._autobahn = autobahn = WebSocketServerFactory(server="", reactor=reactor)
        autobahn.setProtocolOptions(
            webStatus=False,
            versions=[13],
            maxMessagePayloadSize=settings.maxPayload,
            maxFramePayloadSize=settings.maxPayload,
            failByDrop=False,
            # The engine checks the Origin, for both transports.
            allowedOrigins=["*"],
            allowNullOrigin=True,
            # FrameProtocol has deadlines on the reactor that it was given.
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            # Engine.IO has its own heartbeat.
            autoPingInterval=0,
            perMessageCompressionAccept=self._acceptDeflate if settings.perMessageDeflate else None,
        )
        options = {name: getattr(autobahn, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}
        options["perMessageCompressionAccept"] = staticmethod(options["perMessageCompressionAccept"])
        self._autobahnProtocol: type[Autobahn] = type("Autobahn", (Autobahn,), options)

    def _acceptDeflate(self, offers: Sequence[Any]) -> PerMessageDeflateOfferAccept | None:
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer):
                return PerMessageDeflateOfferAccept(offer, max_message_size=self.settings.maxPayload)
        return None

    def buildProtocol(self, addr: IAddress | None) -> FrameProtocol:  # type: ignore[override]
        protocol = self._protocol()
        protocol.factory = self
        return protocol

    def makeAutobahn(self, owner: FrameProtocol) -> Autobahn:
        """Create Autobahn's part of a protocol."""
        autobahn = self._autobahnProtocol()
        autobahn.factory = self._autobahn
        autobahn.owner = owner
        autobahn.makeConnection(owner.transport)  # type: ignore[no-untyped-call]
        return autobahn


def takeOver(request: Request, factory: FrameFactory) -> int | bytes:
    """
    Turn a request into a WebSocket, whose connection leaves twisted.web for good.

    A request over HTTP/2 has no connection of its own and gets 426 Upgrade Required.
    """
    channel: Any = request.channel
    transport: Any = channel.transport
    if transport is None or not hasattr(channel, "clearLineBuffer"):
        request.setResponseCode(_UPGRADE_REQUIRED)
        request.setHeader(b"upgrade", b"websocket")
        request.setHeader(b"content-type", b"application/json")
        return refusal(HandshakeError(3, "WebSocket takes HTTP/1.1, not HTTP/2"))
    # The channel is the transport's producer, and would be told to write.
    transport.unregisterProducer()
    channel.transport = None
    protocol = factory.buildProtocol(transport.getPeer())
    head = [request.method + b" " + request.uri + b" HTTP/1.1"]
    for name, values in request.requestHeaders.getAllRawHeaders():
        head += [name + b": " + value for value in values]
    replaceProtocol(transport, protocol)
    # twisted.web stops reading while it handles a request.
    transport.resumeProducing()
    protocol.dataReceived(b"\r\n".join([*head, b"", b""]) + channel.clearLineBuffer())
    return NOT_DONE_YET
