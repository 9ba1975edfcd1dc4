"""
HTTP long polling: a GET waits, a POST delivers.

One :class:`PollingTransport` serves the requests of one session ("Transports",
"HTTP long-polling").  Which session a request is for, and whether its origin may
ask at all, :mod:`~txrealtime.engineio.resource` has settled before.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Final

from twisted.python.failure import Failure
from twisted.web.http import OK, REQUEST_ENTITY_TOO_LARGE, SERVICE_UNAVAILABLE
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from txrealtime.engineio.packet import CLOSE, NOOP, Packet
from txrealtime.engineio.session import CloseReason, ITransport, Session
from txrealtime.errors import HandshakeError, PacketError

__all__ = ["PollingTransport", "respond"]


def acceptsGzip(header: bytes) -> bool:
    """Whether an ``Accept-Encoding`` allows gzip: named, or by ``*``, and not with a weight of zero."""
    for coding in header.lower().split(b","):
        name, _, weight = coding.replace(b" ", b"").partition(b";q=")
        if name in (b"gzip", b"*"):
            return weight.strip(b"0.") != b"" or weight == b""
    return False


def respond(
    request: Request, status: int, body: bytes, contentType: bytes = b"text/plain; charset=UTF-8"
) -> None:
    """Answer a request, once and for all."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", contentType)
    request.setHeader(b"content-length", b"%d" % len(body))
    request.setHeader(b"cache-control", b"no-store")
    request.write(body)
    request.finish()


@implementer(ITransport)
class PollingTransport:
    """The requests of one session: at most one GET that waits, and one POST that is not yet answered."""

    __slots__ = ("_get", "_post", "_reading", "session", "writable")

    name: Final = "polling"

    # python-socketio's clients give up on a body with more than 16 packets.
    batch: Final = 16

    session: Session

    def __init__(self) -> None:
        self.writable = False
        self._get: Request | None = None
        self._post: Request | None = None
        self._reading = True

    # -- GET -------------------------------------------------------------------

    def poll(self, request: Request) -> int:
        """
        Keep a GET until there is something to send.

        :raises HandshakeError: when another GET is waiting; that closes the session.
        """
        if self._get is not None:
            self.session.transportLost(self, CloseReason.TRANSPORT_ERROR, "two GETs at a time")
            raise HandshakeError(3, "Bad request: another GET of this session is waiting")
        self._get = request
        self.writable = True
        request.notifyFinish().addErrback(self._pollLost, request)
        self.session.transportWritable(self)
        return NOT_DONE_YET

    def _pollLost(self, failure: Failure, request: Request) -> None:
        if self._get is request:
            self._get = None
            self.writable = False
            self.session.transportLost(self, CloseReason.TRANSPORT_ERROR, "the client dropped its GET")

    def send(self, packets: Sequence[Packet]) -> None:
        request, self._get = self._get, None
        assert request is not None, "send() without a waiting GET"
        self.writable = False
        body = self.session.codec.encodePayload(packets)
        threshold = self.session.settings.compressionThreshold
        if threshold and len(body) >= threshold:
            request.setHeader(b"vary", b"Origin, Accept-Encoding")
            if acceptsGzip(request.getHeader(b"accept-encoding") or b""):
                body = gzip.compress(body, 6, mtime=0)
                request.setHeader(b"content-encoding", b"gzip")
        respond(request, OK, body)

    # -- POST ------------------------------------------------------------------

    def push(self, request: Request) -> int:
        """
        Deliver what a POST carries, and answer it when the session wants more.

        :raises HandshakeError: when the body is refused.  All but the size limit close the session.
        """
        session = self.session
        if self._post is not None:
            session.transportLost(self, CloseReason.TRANSPORT_ERROR, "two POSTs at a time")
            raise HandshakeError(3, "Bad request: another POST of this session is being handled")
        if (request.getHeader(b"content-type") or b"").startswith(b"application/octet-stream"):
            session.transportLost(self, CloseReason.TRANSPORT_ERROR, "a binary body, which protocol 4 lacks")
            raise HandshakeError(3, "Bad request: a binary body, expected text")
        limit = session.settings.maxPayload
        assert request.content is not None
        body = request.content.read(limit + 1)
        if len(body) > limit:
            raise HandshakeError(
                3, f"the body is larger than maxPayload, {limit} bytes", REQUEST_ENTITY_TOO_LARGE
            )
        try:
            packets = session.codec.decodePayload(body)
        except PacketError as error:
            session.transportLost(self, CloseReason.PARSE_ERROR, str(error))
            raise HandshakeError(3, f"Bad request: {error}") from None
        self._post = request
        for packet in packets:
            session.packetReceived(self, packet)
        if self._reading:
            self._answerPost()
        else:
            request.notifyFinish().addErrback(self._pushLost, request)
        return NOT_DONE_YET

    def _pushLost(self, failure: Failure, request: Request) -> None:
        if self._post is request:
            self._post = None

    def _answerPost(self) -> None:
        request, self._post = self._post, None
        if request is not None:
            respond(request, OK, b"ok", b"text/html")

    def pauseReading(self) -> None:
        # The client sends its next POST when this one is answered.
        self._reading = False

    def resumeReading(self) -> None:
        self._reading = True
        self._answerPost()

    # -- the end ---------------------------------------------------------------

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        # After a CLOSE, python-socketio's clients do not come back by themselves; when the
        # server restarts, they should.
        return () if reason is CloseReason.SHUTTING_DOWN else (CLOSE,)

    def close(self, reason: CloseReason) -> None:
        self._reading = True
        self._answerPost()
        if self._get is None:
            return
        if reason is CloseReason.SHUTTING_DOWN:
            request, self._get, self.writable = self._get, None, False
            respond(request, SERVICE_UNAVAILABLE, b"")
        else:
            # The client itself closed, or moved to WebSocket: its GET returns empty ("Closing", "Upgrade").
            self.send([NOOP if reason is CloseReason.TRANSPORT_CLOSE else CLOSE])
