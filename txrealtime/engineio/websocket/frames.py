"""
WebSocket frames: the short way for the messages that are most.

Nearly all messages are single, unfragmented, uncompressed data frames.
:class:`FrameProtocol` takes those itself, in one pass over what arrived, and writes what
answers them in one go.  All else is Autobahn's, behind
:mod:`~txrealtime.engineio.websocket.autobahn`: the opening handshake, extensions, fragments,
control frames, the closing handshake, and whatever breaks RFC 6455.  A frame is handed
over with all that follows it, and reading comes back here when Autobahn is between two
messages; the order on the wire stays what it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.http import REQUEST_ENTITY_TOO_LARGE, RESPONSES

from txrealtime.engineio.tcp import directSend, peerAddress
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

if TYPE_CHECKING:
    from txrealtime.engineio.websocket.autobahn import Autobahn, FrameFactory

__all__ = ["FrameProtocol", "frame", "refusal"]

# Replies made while one read is handled leave in one write, unless they grow beyond this.
_CORK_LIMIT: Final = 65536

_log = Logger()

_HEADS: Final = tuple(tuple(bytes((first, size)) for size in range(126)) for first in (0x81, 0x82))


def frame(payload: bytes, isBinary: bool) -> bytes:
    """One unmasked, unfragmented data frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return _HEADS[isBinary][size] + payload
    first = 0x82 if isBinary else 0x81
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def refusal(error: HandshakeError) -> bytes:
    """The body of a refused request, as Socket.IO clients expect it."""
    if error.status == REQUEST_ENTITY_TOO_LARGE:
        return b""
    return json.dumps({"code": error.code, "message": error.message}, separators=(",", ":")).encode()


class FrameProtocol(Protocol):
    """
    A server's WebSocket, message by message.

    It knows no session: :class:`~txrealtime.engineio.websocket.transport.WebSocketTransport` is
    built on it, and so can be any plain WebSocket server that wants the same limits.
    """

    # In a broadcast to a thousand, each part of an object is a miss of the processor's cache: a slot is
    # in the object, a value of its dictionary elsewhere.
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

    factory: FrameFactory
    transport: Any

    def __init__(self) -> None:
        self._autobahn: Autobahn | None = None
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
        A client asks for a WebSocket.

        :param headers: names in lower case.
        :return: one of the subprotocols it offers, or ``None``.
        :raises HandshakeError: to refuse.
        """
        return None

    def opened(self) -> None:
        """The WebSocket is open."""

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        return peerAddress(self.transport)

    def textReceived(self, text: str) -> None:
        """A text message has come."""

    def bytesReceived(self, data: bytes) -> None:
        """A binary message has come."""

    def ended(self, broken: bool) -> None:
        """
        Nothing more may be sent: the connection is closing, or lost.  May be called again.

        :param broken: whether the peer broke the WebSocket protocol.
        """

    def pinged(self, payload: bytes) -> None:
        """A PING has come: answer it, sooner or later (RFC 6455, 5.5.3)."""
        self._ensureAutobahn().answerPing(payload)

    # -- reading -----------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._autobahnReads:
            if self._head is not None:
                self._head += len(data)
                if self._head > self.factory.settings.maxHeaderSize:
                    self.transport.abortConnection()
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
        Take the frames that are whole, and keep the beginning of one that is not.

        This loop runs for every message; it calls nothing it can do itself.
        """
        unmask = self.factory.unmask
        maxPayload = self.factory.settings.maxPayload
        position, end = 0, len(data)
        while end - position >= 2:
            first = data[position]
            size = data[position + 1] - 128  # the mask bit, which a client's frame must have
            start = position + 6
            if size > 125:
                start += 2 if size == 126 else 8
                if end < start:
                    break
                size = int.from_bytes(data[position + 2 : start - 4], "big")
                # Not in the shortest form?
                if size < (65536 if start - position == 14 else 126):
                    size = -1
            if not 0 <= size <= maxPayload or (first != 0x81 and first != 0x82):
                self._readByAutobahn(data[position:])
                return
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
            if self._autobahnReads:  # what was received has led to a closing handshake
                self._readByAutobahn(data[position:])
                return
        if position < end:
            self._keep(data, position)

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the beginning of a frame until enough has come to go on."""
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

    def _ensureAutobahn(self) -> Autobahn:
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
        """Send a message of any size, compressed if that was agreed on and is worth it."""
        threshold = self.factory.settings.compressionThreshold
        if self.compresses and threshold and len(payload) >= threshold:
            self._ensureAutobahn().sendCompressed(payload, isBinary)
        else:
            self.write(frame(payload, isBinary))

    @property
    def compresses(self) -> bool:
        """Whether compression was agreed on."""
        return self._autobahn is not None and self._autobahn.compresses

    def write(self, data: bytes) -> None:
        """Write whole frames."""
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
        """Write whole frames past the cork: only where nothing is held by it."""
        # As tcp.writeNow, but as long as all goes well without a look at the transport:
        # in a broadcast to a thousand, each look is a miss of the processor's cache.
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

    def connectionMade(self) -> None:
        self._closeWithin(self.factory.settings.handshakeTimeout)
        self._autobahn = self.factory.makeAutobahn(self)

    def handshakeDone(self) -> None:
        """The opening handshake is complete."""
        self._cancelDeadline()
        self._head = None
        autobahn = self._autobahn
        if autobahn is None:
            return  # the connection was lost while somebody thought about it
        if self.factory.settings.shortWays and not autobahn.compresses:
            # It took 8 kB; another is made if something extraordinary comes.
            rest = autobahn.takeRest()
            self._autobahn = None
            self._autobahnReads = False
            self.opened()
            if rest:
                self.dataReceived(rest)
        else:
            self.opened()

    def refuse(self, error: HandshakeError, headers: Mapping[str, str]) -> None:
        """Refuse the opening handshake, with the protocol's own error as the body."""
        _log.info(
            "refused {address}: {status} {why}",
            address=self.peer,
            status=error.status,
            why=error.message,  # "message" is a key of twisted.python.log
        )
        body = refusal(error)
        lines = [
            f"HTTP/1.1 {error.status} {RESPONSES.get(error.status, b'Refused').decode()}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.write("\r\n".join([*lines, "", ""]).encode() + body)

    def startClosing(self, code: int, reason: str) -> None:
        """Begin the closing handshake (RFC 6455, 7.1.2), unless it has begun."""
        self._autobahnReads = True
        self._ensureAutobahn().startClosing(code, reason)

    def closing(self, broken: bool) -> None:
        """A close frame was sent."""
        self._autobahnReads = True
        self._closeWithin(self.factory.settings.handshakeTimeout)
        self.ended(broken)

    def abort(self) -> None:
        """Drop the connection at once."""
        self.transport.abortConnection()

    def _closeWithin(self, seconds: float) -> None:
        """
        Drop the connection after so long: a peer need not answer a closing handshake,
        and over TLS may leave even ``loseConnection`` waiting for ever.
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
        self.ended(False)
