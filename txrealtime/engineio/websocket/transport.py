"""
The WebSocket transport of a session: packets in WebSocket messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime, ISSLTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.coroutines import begin
from txrealtime.engineio.counts import Counts
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.packet import DIGITS, Packet, message
from txrealtime.engineio.session import CloseReason, ITransport, Session
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.tcp import peerAddress
from txrealtime.engineio.websocket.autobahn import FrameFactory
from txrealtime.engineio.websocket.frames import FrameProtocol
from txrealtime.engineio.websocket.plain import frame, textFrame
from txrealtime.errors import PacketError

__all__ = ["Opener", "WebSocketFactory", "WebSocketTransport", "framed"]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# RFC 6455, 7.4.1
_CLOSE_CODES: Final = {CloseReason.SHUTTING_DOWN: 1001, CloseReason.PARSE_ERROR: 1002}


class Opener(Protocol):
    """The engine, which checks a WebSocket's opening handshake and finds or opens a session."""

    def readHandshake(
        self, headers: Mapping[str, str], url: str, peer: str, secure: bool
    ) -> OpeningRequest: ...

    @property
    def webSocketType(self) -> type[WebSocketTransport]: ...

    @property
    def counts(self) -> Counts: ...

    async def verify(self, handshake: OpeningRequest, transport: str, method: str) -> None: ...

    def webSocketOpened(self, transport: WebSocketTransport, handshake: OpeningRequest) -> None: ...

    def webSocketClosing(self, transport: WebSocketTransport) -> None: ...

    def webSocketLost(self, transport: WebSocketTransport) -> None: ...


@implementer(ITransport, IPushProducer)
class WebSocketTransport(FrameProtocol):
    """
    A WebSocket that carries a session's packets.

    :param opener: the engine.
    """

    __slots__ = (
        "_base64",
        "_handshake",
        "_opener",
        "_over",
        "_ping",
        "_sharesFrames",
        "session",
        "writable",
    )

    name: Final = "websocket"
    batch: Final = 1 << 16

    def __init__(self, opener: Opener) -> None:
        super().__init__()
        self.session: Session | None = None
        self.writable = False
        self._opener = opener
        self._over = False
        self._sharesFrames = False
        self._base64 = False
        self._handshake: OpeningRequest | None = None
        # The payload of the last PING that came while TCP pushed back.
        self._ping: bytes | None = None

    # -- the opening -------------------------------------------------------------

    async def handshakeReceived(
        self, headers: Mapping[str, str], url: str, protocols: Sequence[str]
    ) -> str | None:
        transport = self.transport
        secure = ISSLTransport.providedBy(transport)
        peer = peerAddress(transport)
        self._handshake = handshake = self._opener.readHandshake(headers, url, peer, secure)
        verifying = begin(self._opener.verify(handshake, self.name, "GET"))
        if verifying is not None:
            # Data that a client sends before the reply must not be read as another request.
            transport.pauseProducing()
            try:
                await verifying
            finally:
                transport.resumeProducing()
        # Engine.IO has no subprotocol, but a browser fails if the server accepts none of its offers.
        # Clients offer one for the sake of proxies.  Take the first, as Node's server does, among those
        # that are tokens (RFC 9110, 5.6.2), since the reply repeats it in a header.
        return next(filter(_TOKEN.fullmatch, protocols), None)

    def opened(self) -> None:
        self.writable = True
        self.transport.registerProducer(self, True)
        handshake, self._handshake = self._handshake, None
        assert handshake is not None
        self._opener.webSocketOpened(self, handshake)

    @property
    def peer(self) -> str:
        # The address that a trusted proxy reported.
        return super().peer if self._handshake is None else self._handshake.address

    def serve(self, session: Session, base64: bool) -> None:
        """
        Carry packets of a session, or its probe.

        :param base64: ``True`` for a client that takes text messages only.
        """
        self.session = session
        self._base64 = base64
        # Clients may share a frame.  Decided once for the session, and not for each message.
        self._sharesFrames = session.codec.sharesFrames and not base64 and not self.compresses

    # -- packets -----------------------------------------------------------------

    def send(self, packets: Sequence[Packet]) -> None:
        if self._sharesFrames:
            for packet in packets:
                frame = packet.frame or framed(packet)
                # A method that is looked up without a call takes three times as long.
                if self._cork is None:
                    self.writeNow(frame)
                else:
                    self.write(frame)
        elif self.session is not None:
            encodeMessage = self.session.codec.encodeMessage
            for packet in packets:
                self.sendPayload(*encodeMessage(packet, self._base64))

    def sendMessage(self, text: str) -> None:
        """Send a message of text, without a packet."""
        if self._sharesFrames:
            # As framed() and send().
            data = textFrame("4", text, None)
            if self._cork is None:
                self.writeNow(data)
            else:
                self.write(data)
        else:
            self.send([message(text)])

    def textReceived(self, text: str) -> None:
        session = self.session
        if session is None:
            return
        if text[:1] == "4" and session.transport is self:
            session.messageReceived(text[1:])
            return
        try:
            packet = session.codec.decodeText(text)
        except PacketError as error:
            session.transportLost(self, CloseReason.PARSE_ERROR, str(error))
        else:
            session.packetReceived(self, packet)

    def bytesReceived(self, data: bytes) -> None:
        session = self.session
        if session is None:
            return
        try:
            packet = session.codec.decodeBytes(data)
        except PacketError as error:
            session.transportLost(self, CloseReason.PARSE_ERROR, str(error))
        else:
            session.packetReceived(self, packet)

    def pinged(self, payload: bytes) -> None:
        if self.writable or self._over:
            super().pinged(payload)
        else:
            # RFC 6455, 5.5.3: "If an endpoint receives a Ping frame and has not yet sent Pong frame(s)
            # in response to previous Ping frame(s), the endpoint MAY elect to send a Pong frame for only
            # the most recently processed Ping frame."  Otherwise a client that sends PINGs and reads
            # nothing would fill the server's memory.
            self._ping = payload

    # -- backpressure: an IPushProducer of written data, and reading on demand ------

    def pauseProducing(self) -> None:
        self.writable = False

    def resumeProducing(self) -> None:
        ping, self._ping = self._ping, None
        if ping is not None and not self._over:
            super().pinged(ping)
        if self.session is not None:
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
        return ()  # the close frame tells the client

    def close(self, reason: CloseReason) -> None:
        self.writable = False
        if reason is CloseReason.SLOW_CONSUMER:
            self.abort()
        elif not self._over:
            # The client's close frame must be read, even if the session had paused reading.
            self.transport.resumeProducing()
            if reason is CloseReason.SHUTTING_DOWN and self._isDeafAfterClose:
                self.closeWithoutFrame()
            else:
                self.startClosing(_CLOSE_CODES.get(reason, 1000), reason)

    @property
    def _isDeafAfterClose(self) -> bool:
        """
        ``True`` for clients on OkHttp, such as Socket.IO's for Java and Android.

        OkHttp reads nothing after a close frame, so these clients would miss the end of the connection until
        their heartbeat fails.  An end without a close frame they notice at once.
        """
        session = self.session
        return session is not None and session.handshake.headers.get("user-agent", "").startswith("okhttp/")

    def ended(self, violation: str) -> None:
        self.writable = False
        if not self._over:
            self._over = True
            self._opener.webSocketClosing(self)
        session, self.session = self.session, None
        if session is not None:
            if violation:
                session.mayReturn = False
                session.transportLost(self, CloseReason.TRANSPORT_ERROR, violation)
            else:
                session.transportLost(self, CloseReason.TRANSPORT_CLOSE)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        self._opener.webSocketLost(self)


def framed(packet: Packet) -> bytes:
    """Frame a packet, and keep the frame for other clients."""
    data = packet.data
    packet.frame = made = (
        frame(data, True) if isinstance(data, bytes) else textFrame(DIGITS[packet.type], data, None)
    )
    return made


class WebSocketFactory(FrameFactory):
    """A factory of an engine's WebSockets."""

    def __init__(self, settings: Settings, reactor: IReactorTime, opener: Opener) -> None:
        super().__init__(settings, reactor, lambda: opener.webSocketType(opener))
        self.counts = opener.counts
