"""
A fast path for WebSocket frames.

Nearly all messages are single, unfragmented, uncompressed data frames.
:class:`FrameProtocol` reads these frames in one pass over the received bytes, and sends the
replies to one read in one write.  Plain control frames and plain handshakes take a fast path as well,
with :mod:`~txrealtime.engineio.websocket.opening`.  Everything else belongs to a
:class:`FullWebSocket`, which :mod:`~txrealtime.engineio.websocket.autobahn` implements: extensions,
fragments, unusual handshakes, and violations of RFC 6455.  A frame goes to it with all bytes that
follow, and reading returns here once it is between two messages; so the order on the wire is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR, REQUEST_ENTITY_TOO_LARGE, RESPONSES

from txrealtime.engineio.counts import Counts
from txrealtime.engineio.refusals import logRefusal
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.tcp import directSend, endAndDiscard, endConnection, endOutput, peerAddress
from txrealtime.engineio.websocket.opening import Closing, closeFrame, isPlainClose
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["FrameMaker", "FrameProtocol", "FullWebSocket", "frame", "headTooLarge", "refusal"]

_log = Logger()

# Bytes.  The replies to one read leave in one write, up to this size.
_CORK_LIMIT: Final = 65536

# RFC 6585, 5; absent from twisted.web.
HEAD_TOO_LARGE: Final = 431

_HEADS: Final = tuple(tuple(bytes((first, size)) for size in range(126)) for first in (0x81, 0x82))


def frame(payload: bytes, isBinary: bool) -> bytes:
    """Build an unmasked, unfragmented data frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return _HEADS[isBinary][size] + payload
    first = 0x82 if isBinary else 0x81
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def refusal(error: HandshakeError) -> bytes:
    """Build the body of a refused request in the form that Socket.IO clients expect."""
    if error.status == REQUEST_ENTITY_TOO_LARGE:
        return b""
    return json.dumps({"code": error.code, "message": error.message}, separators=(",", ":")).encode()


def headTooLarge(limit: int) -> HandshakeError:
    """
    Create the error that refuses the head of a request (RFC 6585, 5).

    :param limit: ``maxHeaderSize``.
    """
    return HandshakeError(
        3, f"the head of the request is larger than maxHeaderSize, {limit} bytes", HEAD_TOO_LARGE
    )


class FullWebSocket(Interface):
    """
    The complete WebSocket protocol of one connection, for everything that the fast path leaves out.

    It reports to its :class:`FrameProtocol`: ``handshakeReceived``, ``handshakeDone``, ``refuse``,
    ``textReceived``, ``bytesReceived``, ``pinged``, ``closing``, and ``write`` for its output.
    """

    @property
    def compresses(self) -> bool:
        """``True`` if the handshake agreed on compression."""

    @property
    def isBetweenMessages(self) -> bool:
        """``True`` if the next byte begins a message, so that the fast path may read it."""

    def feed(self, data: bytes, /) -> None:
        """Read some bytes."""

    def takeRest(self) -> bytes | None:
        """
        Give up the bytes behind the opening handshake, in order to be dropped.

        :return: the bytes, or ``None`` to read the whole connection to its end.
        """

    def resume(self) -> None:
        """Take the state that follows an opening handshake without extensions."""

    def startClosing(self, code: int, reason: str, /) -> None:
        """Begin the closing handshake, unless it has begun."""

    def answerPing(self, payload: bytes, /) -> None:
        """Send a PONG."""

    def sendCompressed(self, payload: bytes, isBinary: bool, /) -> None:
        """Send a message compressed (RFC 7692)."""

    def connectionLost(self, reason: Failure, /) -> None:
        """Called when the connection is lost."""


class FrameMaker(Interface):
    """
    The factory of a :class:`FrameProtocol`.

    :ivar settings: limits and deadlines.
    :ivar reactor: the clock of the deadlines.
    :ivar unmask: applies a mask of 4 bytes to a payload (RFC 6455, 5.3).
    :ivar counts: the counts of the engine.
    """

    settings: Settings
    reactor: IReactorTime
    counts: Counts

    @property
    def unmask(self) -> Callable[[bytes, bytes], bytes]: ...

    def makeAutobahn(self, owner: FrameProtocol, /) -> FullWebSocket:
        """Create the :class:`FullWebSocket` of a protocol, before or after its opening handshake."""


class FrameProtocol(Protocol):
    """
    A server's WebSocket that sends and receives whole messages.

    Its messages belong to no session yet.  Subclasses add one, as
    :class:`~txrealtime.engineio.websocket.transport.WebSocketTransport` does, or make a plain
    WebSocket server with the same limits.
    """

    # In a broadcast to a thousand clients, each part of an object is a cache miss: a slot lies inside
    # the object, an entry of its dictionary elsewhere.
    __slots__ = (
        "_autobahn",
        "_autobahnReads",
        "_cork",
        "_corked",
        "_deadline",
        "_head",
        "_partial",
        "_send",
        "_wanted",
        "factory",
        "transport",
    )

    factory: FrameMaker
    transport: Any

    def __init__(self) -> None:
        self._autobahn: FullWebSocket | None = None
        self._autobahnReads = True
        self._head: int | None = 0
        self._partial: bytearray | None = None
        self._wanted = 0
        self._cork: list[bytes] | None = None
        self._corked = 0
        self._send: Callable[[bytes], int] | None = None
        self._deadline: IDelayedCall | None = None

    # -- for subclasses ----------------------------------------------------------

    async def handshakeReceived(
        self, headers: Mapping[str, str], url: str, protocols: Sequence[str]
    ) -> str | None:
        """
        Called when a client asks for a WebSocket.

        :param headers: names in lower case.
        :return: one of the offered subprotocols, or ``None``.
        :raises HandshakeError: if the client is refused.
        """
        return None

    def opened(self) -> None:
        """Called when the WebSocket is open."""

    @property
    def peer(self) -> str:
        """The client's address in the log."""
        return peerAddress(self.transport)

    def textReceived(self, text: str) -> None:
        """Called when a text message is complete."""

    def bytesReceived(self, data: bytes) -> None:
        """Called when a binary message is complete."""

    def ended(self, violation: str) -> None:
        """
        Called when the connection is closing or lost and takes no more messages; possibly several times.

        :param violation: the peer's violation of the WebSocket protocol or a limit, for the log; else empty.
        """

    def pinged(self, payload: bytes) -> None:
        """Called when a PING has come, which requires a PONG at some time (RFC 6455, 5.5.3)."""
        if self._autobahn is None:
            self.write(bytes((0x8A, len(payload))) + payload)
        else:
            self._autobahn.answerPing(payload)

    # -- reading -----------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._autobahnReads:
            if self._head is not None:
                self._head += len(data)
                if self._head > self.factory.settings.maxHeaderSize:
                    self.refuse(headTooLarge(self.factory.settings.maxHeaderSize), {})
                    endAndDiscard(self.transport)
                    return
            self._readByAutobahn(data)
            return
        partial = self._partial
        if partial is not None:
            partial += data
            if len(partial) < self._wanted:
                return
            data, self._partial = bytes(partial), None
        self._cork = []
        try:
            self._readFrames(data)
        finally:
            self._uncork()

    def _readFrames(self, data: bytes) -> None:
        """
        Read all complete frames, and keep the beginning of an incomplete one.

        The loop runs for every message and contains its helpers' code, since a call costs more.
        """
        unmask = self.factory.unmask
        maxPayload = self.factory.settings.maxPayload
        position, end = 0, len(data)
        while end - position >= 2:
            first = data[position]
            size = data[position + 1] - 128  # RFC 6455, 5.1: a client's frame has the mask bit
            start = position + 6
            if size > 125:
                start += 2 if size == 126 else 8
                if end < start:
                    break
                size = int.from_bytes(data[position + 2 : start - 4], "big")
                # RFC 6455, 5.2: the length must have its shortest form.
                if size < (65536 if start - position == 14 else 126):
                    size = -1
            if not 0 <= size <= maxPayload or (first != 0x81 and first != 0x82):
                read = self._readControl(data, position, size)
                position += read
                if not read or self._autobahnReads:
                    self._readByAutobahn(data[position:])
                    return
                continue
            stop = start + size
            if stop > end:
                break
            payload = unmask(data[start:stop], data[start - 4 : start])
            if first == 0x82:
                self.bytesReceived(payload)
            else:
                try:
                    text = payload.decode()
                except UnicodeDecodeError:
                    self._readByAutobahn(data[position:])
                    return
                self.textReceived(text)
            position = stop
            if self._autobahnReads:  # the message led to a closing handshake
                self._readByAutobahn(data[position:])
                return
        if position < end:
            self._keep(data, position)

    def _readControl(self, data: bytes, position: int, size: int) -> int:
        """
        Read a control frame (RFC 6455, 5.5).

        :return: the length of the frame, or 0 if Autobahn must read it.
        """
        start = position + 6
        if not 0 <= size <= 125 or start + size > len(data):
            return 0
        payload = self.factory.unmask(data[start : start + size], data[start - 4 : start])
        first = data[position]
        if first == 0x89:
            self.pinged(payload)
        elif first == 0x88 and isPlainClose(payload):
            self._closedByPeer()
        elif first != 0x8A:
            return 0
        return 6 + size

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the beginning of a frame until its length, or all of it, has come."""
        rest = bytearray(data[position:])
        self._partial = rest
        self._wanted = 2
        if len(rest) >= 2:
            size = rest[1] & 127
            self._wanted = head = 6 if size < 126 else 8 if size == 126 else 14
            if len(rest) >= head:
                if size > 125:
                    size = int.from_bytes(rest[2 : head - 4], "big")
                self._wanted = head + size

    def _readByAutobahn(self, data: bytes) -> None:
        self._uncork()
        if data:
            autobahn = self._ensureAutobahn()
            autobahn.feed(data)
            if self._autobahn is autobahn:
                self._autobahnReads = not (self.factory.settings.shortWays and autobahn.isBetweenMessages)

    def _ensureAutobahn(self) -> FullWebSocket:
        if self._autobahn is None:
            self._autobahn = self.factory.makeAutobahn(self)
            self._autobahn.resume()
        return self._autobahn

    # -- writing -----------------------------------------------------------------

    def sendText(self, text: str) -> None:
        """Send a text message."""
        self.sendPayload(text.encode(), False)

    def sendBytes(self, data: bytes) -> None:
        """Send a binary message."""
        self.sendPayload(data, True)

    def sendPayload(self, payload: bytes, isBinary: bool) -> None:
        """Send a message of any size, compressed if agreed on and from ``compressionThreshold`` bytes on."""
        threshold = self.factory.settings.compressionThreshold
        if self.compresses and threshold and len(payload) >= threshold:
            self._ensureAutobahn().sendCompressed(payload, isBinary)
        else:
            self.write(frame(payload, isBinary))

    @property
    def compresses(self) -> bool:
        """``True`` if the handshake agreed on compression."""
        return self._autobahn is not None and self._autobahn.compresses

    def write(self, data: bytes) -> None:
        """Write whole frames, together with the other replies to the current read."""
        cork = self._cork
        if cork is None:
            self.writeNow(data)
            return
        cork.append(data)
        self._corked += len(data)
        if self._corked > _CORK_LIMIT:
            self._uncork()
            self._cork = []

    def _uncork(self) -> None:
        cork, self._cork, self._corked = self._cork, None, 0
        if cork:
            self.writeNow(cork[0] if len(cork) == 1 else b"".join(cork))

    def writeNow(self, data: bytes) -> None:
        """Write whole frames at once.  Only for use while the cork holds nothing."""
        # As tcp.writeNow, but without reading the transport while all goes well: in a broadcast to a
        # thousand clients, each read is a cache miss.
        send = self._send
        if send is None:
            send = directSend(self.transport) if self.factory.settings.shortWays else None
            if send is None:
                self.transport.write(data)
                return
            self._send = send
        try:
            sent = send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self._send = None
            self.transport.write(data[sent:])

    # -- opening and closing -----------------------------------------------------

    def open(self, transport: Any, url: str, headers: Mapping[str, str], reply: bytes, rest: bytes) -> None:
        """
        Begin with a plain opening handshake that has been read already.

        :param transport: the connection, in place of a call of ``makeConnection``.
        :param headers: names in lower case.
        :param reply: the response that accepts the WebSocket.
        :param rest: the bytes behind the request.
        """
        self.transport = transport
        self._autobahnReads = False
        self._head = None
        # Bytes that come during an asynchronous check are kept.
        self._partial, self._wanted = bytearray(rest), sys.maxsize
        opening = Deferred.fromCoroutine(self.handshakeReceived(headers, url, ()))
        if not opening.called:
            self._closeWithin(self.factory.settings.handshakeTimeout)
        opening.addCallbacks(self._accept, self._decline, callbackArgs=(reply,))

    def _accept(self, protocol: object, reply: bytes) -> None:
        if self._autobahnReads:
            return  # the connection was lost during an asynchronous check
        self._cancelDeadline()
        rest, self._partial = self._partial, None
        # The response and the open packet leave in one write.
        self._cork = [reply]
        try:
            self.opened()
        finally:
            self._uncork()
        if rest:
            self.dataReceived(bytes(rest))

    def _decline(self, failure: Failure) -> None:
        if self._autobahnReads:
            return
        error = failure.value
        if not isinstance(error, HandshakeError):
            _log.failure("an opening handshake failed", failure)
            error = HandshakeError(3, "Internal error", INTERNAL_SERVER_ERROR)
        self._closeWithin(self.factory.settings.handshakeTimeout)
        self.refuse(error, {})
        self.transport.loseConnection()

    def connectionMade(self) -> None:
        self._closeWithin(self.factory.settings.handshakeTimeout)
        self._autobahn = self.factory.makeAutobahn(self)

    def handshakeDone(self) -> None:
        """Called when the opening handshake is complete."""
        self._cancelDeadline()
        self._head = None
        autobahn = self._autobahn
        if autobahn is None:
            return  # the connection was lost during an asynchronous check
        if self.factory.settings.shortWays and not autobahn.compresses:
            rest = autobahn.takeRest()
            if rest is not None:
                # It holds 8 kB.  An unusual frame will need another.
                self._autobahn = None
                self._autobahnReads = False
                self.opened()
                if rest:
                    self.dataReceived(rest)
                return
        self.opened()

    def refuse(self, error: HandshakeError, headers: Mapping[str, str]) -> None:
        """Refuse the opening handshake with an Engine.IO error as the body."""
        logRefusal(self.peer, error, self.factory.counts)
        body = refusal(error)
        lines = [
            f"HTTP/1.1 {error.status} {RESPONSES.get(error.status, b'Refused').decode()}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if error.retryAfter:
            lines.append(f"Retry-After: {error.retryAfter}")
        self.write("\r\n".join([*lines, "", ""]).encode() + body)

    def startClosing(self, code: int, reason: str) -> None:
        """Begin the closing handshake (RFC 6455, 7.1.2), unless it has begun."""
        self._autobahnReads = True
        if self._autobahn is not None:
            self._autobahn.startClosing(code, reason)
            return
        partial, self._partial = self._partial, None
        self._autobahn = Closing(self.transport, bytes(partial or b""))
        self.write(closeFrame(code, reason))
        self.closing("")

    def _closedByPeer(self) -> None:
        """Answer the client's plain close frame, and end the connection (RFC 6455, 7.1.1)."""
        self._autobahn = Closing(None)
        self.write(closeFrame(1000))
        self._uncork()
        self.closing("")
        endConnection(self.transport)

    def closing(self, violation: str) -> None:
        """Called when a close frame was sent."""
        self._autobahnReads = True
        self._closeWithin(self.factory.settings.handshakeTimeout)
        self.ended(violation)

    def closeWithoutFrame(self) -> None:
        """End the output behind all written frames, then drop what is read until the peer ends its own."""
        self._closeWithin(self.factory.settings.handshakeTimeout)
        endOutput(self.transport)
        self.ended("")

    def abort(self) -> None:
        """Drop the connection at once."""
        self.transport.abortConnection()

    def _closeWithin(self, seconds: float) -> None:
        """
        Drop the connection after some time.

        A peer may ignore a closing handshake, and over TLS keep even ``loseConnection`` waiting for ever.
        """
        if self._deadline is None:
            self._deadline = self.factory.reactor.callLater(seconds, self._late)

    def _late(self) -> None:
        self._deadline = None
        self.transport.abortConnection()

    def _cancelDeadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._cancelDeadline()
        self._autobahnReads = True
        if self._autobahn is not None:
            self._autobahn.connectionLost(reason)
            self._autobahn = None
        self.ended("")
