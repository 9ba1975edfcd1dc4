"""
The beginning and the end of a WebSocket connection: its handshakes and its deadlines.

:class:`Handshakes` opens a connection by a plain request, with
:mod:`~txrealtime.engineio.websocket.opening`, or by a :class:`FullWebSocket`, and closes it likewise.  The
messages between are read and written by :mod:`~txrealtime.engineio.websocket.frames`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR, RESPONSES

from txrealtime.coroutines import begin
from txrealtime.engineio.counts import Counts
from txrealtime.engineio.refusals import logRefusal, refusal
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.tcp import endNow, endOutput, peerAddress, takenBytes, unsentBytes
from txrealtime.engineio.websocket.opening import Closing, closeFrame
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["FrameMaker", "FullWebSocket", "Handshakes"]

_log = Logger()

_SLOWEST: Final = 4096
"""Bytes a second that a closing connection must take if it is to stay."""


class FullWebSocket(Interface):
    """
    The complete WebSocket protocol of one connection, for everything that the fast path leaves out.

    It reports to its :class:`~txrealtime.engineio.websocket.frames.FrameProtocol`: ``handshakeReceived``,
    ``handshakeDone``, ``refuse``, ``unusualReceived``, ``pinged``, ``closing``, and ``write`` for its output.
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

    def readNothing(self) -> None:
        """Drop all that comes, also the messages behind the present one."""

    def connectionLost(self, reason: Failure, /) -> None:
        """Called when the connection is lost."""


class FrameMaker(Interface):
    """
    The factory of a :class:`~txrealtime.engineio.websocket.frames.FrameProtocol`.

    :ivar settings: limits and deadlines.
    :ivar reactor: the clock of the deadlines.
    :ivar counts: the counts of the engine.
    """

    settings: Settings
    reactor: IReactorTime
    counts: Counts

    def makeAutobahn(self, owner: Any, /) -> FullWebSocket:
        """Create the :class:`FullWebSocket` of a protocol, before or after its opening handshake."""


class Handshakes(Protocol):
    """
    A server's WebSocket without its messages.

    :class:`~txrealtime.engineio.websocket.frames.FrameProtocol` reads and writes these.
    """

    # In a broadcast to a thousand clients, each part of an object is a cache miss: a slot lies inside
    # the object, an entry of its dictionary elsewhere.
    __slots__ = (
        "_autobahn",
        "_autobahnReads",
        "_cork",
        "_deadline",
        "_head",
        "_partial",
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

    def ended(self, violation: str) -> None:
        """
        Called when the connection is closing or lost and takes no more messages; possibly several times.

        :param violation: the peer's violation of the WebSocket protocol or a limit, for the log; else empty.
        """

    # -- for FrameProtocol --------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write whole frames, together with the other replies to the current read."""
        raise NotImplementedError

    def _uncork(self) -> None:
        """Write what the cork holds."""
        raise NotImplementedError

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
        try:
            opening = begin(self.handshakeReceived(headers, url, ()))
        except Exception:
            self._decline(Failure())
            return
        if isinstance(opening, Deferred):
            self._closeWithin(self.factory.settings.handshakeTimeout)
            opening.addCallbacks(self._accept, self._decline, callbackArgs=(reply,))
        else:
            self._accept(opening, reply)

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
        self._autobahnReads = True
        endNow(self.transport)
        if self._autobahn is not None:  # it is connected still
            self.closing("")

    def closing(self, violation: str) -> None:
        """Called when a close frame was sent."""
        self._autobahnReads = True
        self._awaitEnd()
        self.ended(violation)

    def closeWithoutFrame(self) -> None:
        """End the output behind all written frames, then drop what is read until the peer ends its own."""
        self._uncork()
        self._readNothing()
        self._awaitEnd()
        endOutput(self.transport)
        self.ended("")

    def abort(self) -> None:
        """Drop the connection at once."""
        self._readNothing()
        self.transport.abortConnection()

    def _readNothing(self) -> None:
        """Drop all that comes: the messages behind the present one are received by nobody."""
        self._autobahnReads = True
        if self._autobahn is None:
            self._autobahn = Closing(None)
        else:
            self._autobahn.readNothing()

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

    def _awaitEnd(self, taken: int | None = None) -> None:
        """
        Drop the connection if the closing handshake does not end in time.

        :param taken: the bytes that the peer has taken so far; ``None`` at first.
        """
        if self._deadline is None:
            seconds = self.factory.settings.handshakeTimeout
            self._deadline = self.factory.reactor.callLater(seconds, self._checkEnd, seconds, taken)

    def _checkEnd(self, seconds: float, taken: int | None) -> None:
        """Wait on for a peer that still takes what was sent before the close frame, and reads it then."""
        now = takenBytes(self.transport)
        if unsentBytes(self.transport) if taken is None else now - taken >= _SLOWEST * seconds:
            self._deadline = None
            self._awaitEnd(now)
        else:
            self._late()

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
