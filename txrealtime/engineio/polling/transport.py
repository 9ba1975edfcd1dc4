"""
The HTTP long-polling transport: a GET waits for messages, a POST delivers them.

One :class:`PollingTransport` serves the requests of one session ("Transports", "HTTP long-polling").
:mod:`~txrealtime.engineio.engine` has found the session and checked the request before.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Final

from twisted.web.http import OK, REQUEST_ENTITY_TOO_LARGE, SERVICE_UNAVAILABLE
from zope.interface import implementer

from txrealtime.engineio.packet import CLOSE, NOOP, Packet
from txrealtime.engineio.polling.request import OCTETS, TEXT, HTTPRequest
from txrealtime.engineio.session import CloseReason, ITransport, Session
from txrealtime.errors import HandshakeError, PacketError

__all__ = ["PollingTransport", "acceptsGzip"]


def acceptsGzip(header: str) -> bool:
    """Return whether an ``Accept-Encoding`` allows gzip: by name or ``*``, and not with a weight of zero."""
    accepted = {}
    for coding in header.lower().split(","):
        name, _, weight = coding.replace(" ", "").partition(";q=")
        accepted[name] = weight == "" or weight.strip("0.") != ""
    return accepted.get("gzip", accepted.get("*", False))


@implementer(ITransport)
class PollingTransport:
    """The requests of one session: at most one GET that waits, and one POST without a response yet."""

    __slots__ = ("_get", "_post", "_reading", "session", "writable")

    name: Final = "polling"

    # python-socketio's clients give up on a body with more than 16 packets.
    batch: Final = 16

    session: Session

    def __init__(self) -> None:
        self.writable = False
        self._get: HTTPRequest | None = None
        self._post: HTTPRequest | None = None
        self._reading = True

    # -- GET -------------------------------------------------------------------

    def poll(self, request: HTTPRequest) -> None:
        """
        Keep a GET until the session has something to send.

        :raises HandshakeError: if another GET is waiting; the session closes.
        """
        if self._get is not None:
            self.session.transportLost(self, CloseReason.TRANSPORT_ERROR, "two GETs at a time")
            raise HandshakeError(3, "Bad request: another GET of this session is waiting")
        self._get = request
        self.writable = True
        self.session.transportWritable(self)
        if self._get is request:
            request.whenLost(self._pollLost)

    def _pollLost(self) -> None:
        # Called for the waiting GET only: after its response, a GET cannot be lost.
        self._get = None
        self.writable = False
        self.session.transportLost(self, CloseReason.TRANSPORT_ERROR, "the client dropped its GET")

    def send(self, packets: Sequence[Packet]) -> None:
        codec = self.session.codec
        body = codec.encodePayload(packets)
        contentType = OCTETS if codec.takesOctets and codec.isOctets(body) else TEXT
        request, self._get = self._get, None
        assert request is not None, "send() without a waiting GET"
        self.writable = False
        threshold = self.session.settings.compressionThreshold
        if threshold and len(body) >= threshold:
            request.extra[b"Vary"] = b"Origin, Accept-Encoding"
            if acceptsGzip(request.header("accept-encoding")):
                body = gzip.compress(body, 6, mtime=0)
                request.extra[b"Content-Encoding"] = b"gzip"
        request.respond(OK, body, contentType)

    # -- POST ------------------------------------------------------------------

    def push(self, request: HTTPRequest) -> None:
        """
        Deliver the packets of a POST, and respond when the session reads on.

        :raises HandshakeError: if the body is refused.  The session closes, except for a body too large.
        """
        session = self.session
        if self._post is not None:
            session.transportLost(self, CloseReason.TRANSPORT_ERROR, "two POSTs at a time")
            raise HandshakeError(3, "Bad request: another POST of this session is being handled")
        octets = request.header("content-type").startswith("application/octet-stream")
        if octets and not session.codec.takesOctets:
            session.transportLost(self, CloseReason.TRANSPORT_ERROR, "a binary body, which protocol 4 lacks")
            raise HandshakeError(3, "Bad request: a binary body, expected text")
        limit = session.settings.maxPayload
        body = self.bodyOf(request, limit + 1)
        if len(body) > limit:
            raise HandshakeError(
                3, f"the body is larger than maxPayload, {limit} bytes", REQUEST_ENTITY_TOO_LARGE
            )
        try:
            packets = session.codec.decodePayload(body, octets)
        except PacketError as error:
            session.transportLost(self, CloseReason.PARSE_ERROR, str(error))
            raise HandshakeError(3, f"Bad request: {error}") from None
        self._post = request
        for packet in packets:
            session.packetReceived(self, packet)
        if self._reading:
            self._answerPost()
        else:
            request.whenLost(self._pushLost)

    def bodyOf(self, request: HTTPRequest, most: int) -> bytes:
        """Read the body of a POST."""
        return request.body(most)

    def _pushLost(self) -> None:
        self._post = None

    def _answerPost(self) -> None:
        request, self._post = self._post, None
        if request is not None:
            request.respond(OK, b"ok", b"text/html")

    def pauseReading(self) -> None:
        # A client sends its next POST after the response to this one.
        self._reading = False

    def resumeReading(self) -> None:
        self._reading = True
        self._answerPost()

    # -- the end ---------------------------------------------------------------

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        # After a CLOSE, python-socketio's clients do not reconnect by themselves.  When the server restarts,
        # they should.
        return () if reason is CloseReason.SHUTTING_DOWN else (CLOSE,)

    def close(self, reason: CloseReason) -> None:
        self._reading = True
        self._answerPost()
        if self._get is None:
            return
        if reason is CloseReason.SHUTTING_DOWN:
            request, self._get, self.writable = self._get, None, False
            request.respond(SERVICE_UNAVAILABLE, b"")
        else:
            # After a close by the client, or an upgrade to WebSocket, the waiting GET returns empty
            # ("Closing", "Upgrade").
            self.send([NOOP if reason is CloseReason.TRANSPORT_CLOSE else CLOSE])
