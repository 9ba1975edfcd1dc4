"""
The HTTP long-polling transport: a GET waits for messages, a POST delivers them.

One :class:`PollingTransport` serves the requests of one session ("Transports", "HTTP long-polling").
:mod:`~txrealtime.engineio.engine` has found the session and checked the request before.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from twisted.web.http import OK, REQUEST_ENTITY_TOO_LARGE, SERVICE_UNAVAILABLE
from zope.interface import implementer

from txrealtime.engineio.packet import CLOSE, NOOP, Packet
from txrealtime.engineio.polling.request import OCTETS, TEXT, HTTPRequest
from txrealtime.engineio.refusals import LARGER
from txrealtime.engineio.session import CloseReason, ITransport, Session
from txrealtime.errors import HandshakeError, PacketError

__all__ = ["PollingTransport", "acceptsGzip", "bodyTooLarge"]


def acceptsGzip(header: str) -> bool:
    """Return whether an ``Accept-Encoding`` allows gzip: by name or ``*``, and not with a weight of zero."""
    accepted = {}
    for coding in header.lower().split(","):
        name, _, weight = coding.replace(" ", "").partition(";q=")
        accepted[name] = weight == "" or weight.strip("0.") != ""
    return accepted.get("gzip", accepted.get("*", False))


def bodyTooLarge(limit: int, size: str) -> HandshakeError:
    """
    Create the error that refuses a request body.

    :param limit: ``maxPayload``.
    :param size: the ``Content-Length``, or empty for a body in chunks.
    """
    body = f"a body of {size} bytes" if size else "a body"
    return HandshakeError(
        3,
        f"{body}, larger than maxPayload, {limit} bytes",
        REQUEST_ENTITY_TOO_LARGE,
        reason="size",
        advice=LARGER,
    )


@implementer(ITransport)
class PollingTransport:
    """The requests of one session: at most one GET that waits, and one POST without a response yet."""

    __slots__ = ("_get", "_packets", "_post", "_reading", "_taking", "session", "writable")

    name: Final = "polling"

    # python-socketio's clients give up on a body with more than 16 packets.
    batch: Final = 16

    session: Session

    def __init__(self) -> None:
        self.writable = False
        self._get: HTTPRequest | None = None
        self._post: HTTPRequest | None = None
        self._packets: Sequence[Packet] = ()
        self._reading = True
        self._taking = False

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

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Keep the packets that the session sends meanwhile, and send them together."""
        self.writable = False
        try:
            yield
        finally:
            self.writable = self._get is not None
            self.session.transportWritable(self)

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
        Respond to a POST and deliver its packets, or keep both until the session reads on.

        :raises HandshakeError: if the body is refused.  The session ends, in case of a body too large later.
        """
        session = self.session
        if self._post is not None:
            session.transportLost(self, CloseReason.TRANSPORT_ERROR, "two POSTs at a time")
            raise HandshakeError(3, "Bad request: another POST of this session is being handled")
        octets = request.header("content-type").startswith("application/octet-stream")
        if octets and not session.codec.takesOctets:
            session.mayReturn = False
            session.transportLost(self, CloseReason.TRANSPORT_ERROR, "a binary body, which protocol 4 lacks")
            raise HandshakeError(3, "Bad request: a binary body, expected text")
        limit = session.settings.maxPayload
        body = self.bodyOf(request, limit + 1)
        if len(body) > limit:
            raise bodyTooLarge(limit, request.header("content-length"))
        try:
            self._packets = session.codec.decodePayload(body, octets)
        except PacketError as error:
            session.transportLost(self, CloseReason.PARSE_ERROR, str(error))
            raise HandshakeError(3, f"Bad request: {error}") from None
        self._post = request
        if self._reading and not self._taking:
            self._takePosts()
        else:
            request.whenLost(self._pushLost)

    def bodyOf(self, request: HTTPRequest, most: int) -> bytes:
        """Read the body of a POST."""
        return request.body(most)

    def _pushLost(self) -> None:
        # Called only for a POST that is kept, for instance by a pause.  If the session went on, the client
        # might believe that the packets are lost, or send others, which would not be in order.
        self._post = None
        self.session.transportLost(self, CloseReason.TRANSPORT_ERROR, "the client dropped its POST")

    def _takePosts(self) -> None:
        """Respond to the POST and deliver its packets, until no POST is left or a pause begins."""
        self._taking = True
        session = self.session
        while self._post is not None and self._reading:
            request, packets = self._post, self._packets
            self._post, self._packets = None, ()
            # First the response: replies to the packets may leave at once, on the waiting GET.  A client of
            # python-socketio that gets such a reply and disconnects while its POST waits may hang until
            # the next PING.  With pipelined requests, twisted.web has the next POST arrive in this call.
            request.respond(OK, b"ok", b"text/html")
            for packet in packets:
                session.packetReceived(self, packet)
        self._taking = False

    def pauseReading(self) -> None:
        # The client's next POST gets no response, so the client sends no other.
        self._reading = False

    def resumeReading(self) -> None:
        self._reading = True
        if not self._taking:
            self._takePosts()

    # -- the end ---------------------------------------------------------------

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        # After a CLOSE, python-socketio's clients do not reconnect by themselves.  When the server restarts,
        # they should.
        return () if reason is CloseReason.SHUTTING_DOWN else (CLOSE,)

    def close(self, reason: CloseReason) -> None:
        self.resumeReading()
        if self._get is None:
            return
        if reason is CloseReason.SHUTTING_DOWN:
            request, self._get, self.writable = self._get, None, False
            request.respond(SERVICE_UNAVAILABLE, b"")
        else:
            # After a close by the client, or an upgrade to WebSocket, the waiting GET returns empty
            # ("Closing", "Upgrade").
            self.send([NOOP if reason is CloseReason.TRANSPORT_CLOSE else CLOSE])
