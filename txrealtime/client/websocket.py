"""
The WebSocket transport.

A connection begins as a :class:`~txrealtime.client.opening.Plain`, and nearly all stay one.  Everything
unusual is Autobahn's, in :mod:`~txrealtime.client.autobahn`: extensions, fragments, control frames, closing
handshakes and violations of RFC 6455; messages have the fast path of :mod:`~txrealtime.client.frames` there
too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from txrealtime.client.address import Address
from txrealtime.client.autobahn import Full, FullFactory
from txrealtime.client.cookies import Cookies
from txrealtime.client.frames import nextMask
from txrealtime.client.interfaces import TransportOwner
from txrealtime.client.opening import Plain, PlainFactory
from txrealtime.client.polling import explained
from txrealtime.client.requests import USER_AGENT
from txrealtime.engineio.packet import DIGITS, EngineIO4, Packet, message
from txrealtime.engineio.websocket.plain import maskedFrame, maskedTextFrame
from txrealtime.errors import PacketError, ProtocolError, TransportError

__all__ = ["WebSocket"]

_CODEC: Final = EngineIO4()

_CLOSED: Final = {
    1000: "in order",
    1001: "because it goes away",
    1002: "for a violation of the protocol",
    1007: "for text that is not UTF-8",
    1008: "for a violation of its policy",
    1009: "because a message was too large for it",
    1011: "after an internal error",
}


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
        self.deliver: Callable[[str | bytes], None] | None = None
        self.isFull = False
        self.cookies = cookies
        self.url = ""
        self._owner: TransportOwner | None = owner
        self._address = address
        self._endpoint = endpoint
        self.reactor = reactor
        self._headers = headers
        self.maxPayload = maxPayload
        self.deflate = deflate
        self._connecting: Deferred[Any] | None = None
        self._protocol: Full | Plain | None = None
        self._closing = False

    def open(self, sid: str | None) -> None:
        self.url = self._address.url(self.name, sid)
        # A compressed WebSocket has no fast path.
        factory = FullFactory(self) if self.deflate else PlainFactory(self)
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

    def _connected(self, protocol: Any) -> None:
        self._connecting = None

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        self._lost(explained(failure.value))

    def joined(self, sid: str) -> None:
        """Called when the session is open; a WebSocket needs no sid."""

    # -- for the protocol ------------------------------------------------------------

    def becomeFull(self, transport: Any, key: bytes, isOpen: bool) -> Full:
        """Give a connection to Autobahn: see :class:`~txrealtime.client.opening.Plain`."""
        return FullFactory(self).takeOver(transport, key, isOpen)

    @property
    def isOver(self) -> bool:
        return self._owner is None

    def made(self, protocol: Full | Plain) -> None:
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
        deliver = self.deliver
        if deliver is not None and text[:1] == "4":
            deliver(text[1:])
            return
        owner = self._owner
        if owner is None:
            return
        try:
            packet = _CODEC.decodeText(text)
        except PacketError as error:
            self._lost(error)
        else:
            owner.packetReceived(self, packet)

    def bytesReceived(self, data: bytes) -> None:
        """Called with each binary message."""
        if self.deliver is not None:
            self.deliver(data)
        elif self._owner is not None:
            self._owner.packetReceived(self, message(data))

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
            assert isinstance(protocol, Full)
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
        self.deliver = None
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
