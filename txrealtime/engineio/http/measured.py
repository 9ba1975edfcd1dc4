"""
Requests of ``twisted.web`` with a limit for their bodies.

A body that is too large is refused before it has been read, while ``twisted.web`` reads all of a request
before its resource sees it. A root resource may keep the bodies of requests for others than the engine
itself, as a WSGI gateway does. A form in a body is parsed when a resource reads its fields, and not
before: ``twisted.web`` would parse each form, and stop all clients for up to 0.4 s per megabyte.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol

from twisted.python.failure import Failure
from twisted.web.http import (
    REQUEST_ENTITY_TOO_LARGE,
    RESPONSES,
    SERVICE_UNAVAILABLE,
    HTTPChannel,
    parse_qs,
)
from twisted.web.server import Request

from txrealtime.engineio.polling.transport import bodyTooLarge
from txrealtime.engineio.refusals import logRefusal, refusal
from txrealtime.engineio.tcp import peerAddress
from txrealtime.errors import HandshakeError
from txrealtime.foreign import stands

__all__ = ["Bodies", "Body", "MeasuredRequest"]


class Body(Protocol):
    """
    The body of one request, kept by the root resource.  It is also a file, as ``twisted.web`` expects.

    :ivar trouble: the reason if the body cannot be kept, for the client; otherwise ``None``.
    """

    trouble: str | None

    def write(self, data: bytes) -> object: ...

    def whenKept(self, call: Callable[[], object]) -> object:
        """Call a function as soon as all data is kept, or cannot be kept."""


class Bodies(Protocol):
    """
    The attribute ``bodies`` of a root resource that keeps the bodies of its requests itself.

    :ivar maxBody: the most bytes of one body.
    """

    maxBody: int

    def newBody(self, pause: Callable[[], object], resume: Callable[[], object]) -> Body:
        """
        Begin to keep a body.

        :param pause: stops reading from the client.
        :param resume: starts reading again.
        """


def _reading(channel: Any) -> Any:
    """Return the producer of a channel's data: the connection, or a stream of HTTP/2."""
    return channel.transport if isinstance(channel, HTTPChannel) else channel


class _BadForm(Exception):
    """A malformed form, which ``twisted.web`` has refused."""


class MeasuredRequest(Request):
    """
    A request of ``twisted.web``, with measures for its body.

    A body for the engine has a limit, and so has one for a root that keeps bodies.
    """

    isQuiet = False
    """True for a request that the access log leaves out, such as a health check each second."""

    _args: Any = None
    _formWaits = False
    _isComplete = False
    _isParsing = False
    _kept: Any = None
    _limit: int | None = None
    _received = 0
    # The bytes of the body at which its deadline moves.
    _untilMoreTime = 0
    _refusal: tuple[int, bytes, bytes] | None = None
    # The bytes of a refused body that are read and dropped.
    _mostToForget = 0

    def gotLength(self, length: int | None) -> None:
        # A request learns its path only after its body has been read.
        channel: Any = self.channel
        # The channel of HTTP/1.1, or a stream of HTTP/2.
        name = "_path" if isinstance(channel, HTTPChannel) else "path"
        site = channel.site
        self._untilMoreTime = site.engine.settings.maxPayload
        isKnown = stands(channel, name, without="a body is measured after it was read")
        if isKnown and site.isForEngine(getattr(channel, name)):
            self._limit = site.engine.settings.maxPayload
            self.content = BytesIO()
        elif site.bodies is not None:
            self._limit = site.bodies.maxBody
            self._kept = self.content = site.bodies.newBody(self._pauseReading, self._resumeReading)
        else:
            super().gotLength(length)  # type: ignore[no-untyped-call]
        if length is not None and self._limit is not None and length > self._limit:
            self._refuseSize()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._refusal is not None:
            # Some clients read the response only after they have sent the whole body: drop what
            # arrives, up to a second limit.
            if self._received > self._mostToForget:
                self._hangUp()
            return
        if self._limit is not None and self._received > self._limit:
            self._refuseSize()
            return
        if self._received > self._untilMoreTime:
            self._giveMoreTime()
        super().handleContentChunk(data)  # type: ignore[no-untyped-call]
        if self._kept is not None and self._kept.trouble is not None:
            self._refuse(HandshakeError(3, self._kept.trouble, SERVICE_UNAVAILABLE, reason="disk"))

    def _giveMoreTime(self) -> None:
        """Move the deadline of a large body, after each ``maxPayload`` bytes."""
        channel: Any = self.channel
        settings = channel.site.engine.settings
        self._untilMoreTime = self._received + settings.maxPayload
        if isinstance(channel, HTTPChannel):
            channel.setTimeout(settings.requestTimeout)

    def _pauseReading(self) -> None:
        channel: Any = self.channel
        if isinstance(channel, HTTPChannel):
            channel.setTimeout(None)
        _reading(channel).pauseProducing()

    def _resumeReading(self) -> None:
        channel: Any = self.channel
        if channel is None:
            return  # the client has gone
        if isinstance(channel, HTTPChannel) and not self._isComplete:
            settings = channel.site.engine.settings  # type: ignore[attr-defined]
            channel.setTimeout(settings.requestTimeout)
        _reading(channel).resumeProducing()

    # -- refusing ------------------------------------------------------------------------

    def _refuseSize(self) -> None:
        if self._kept is not None:
            self._refuse(
                HandshakeError(
                    3,
                    f"the body is larger than maxUpload, {self._limit} bytes",
                    REQUEST_ENTITY_TOO_LARGE,
                    reason="size",
                    advice="raise maxUpload (--max-upload) if the application needs more",
                )
            )
            return
        length = self.requestHeaders.getRawHeaders(b"content-length", [b""])[0]
        self._refuse(bodyTooLarge(self._limit or 0, length.decode("latin-1")))
        channel: Any = self.channel
        path = channel._path if isinstance(channel, HTTPChannel) else channel.path
        channel.site.engine.bodyTooLarge(path.decode("latin-1"))

    def _refuse(self, error: HandshakeError) -> None:
        """Refuse a request before its whole body has arrived."""
        channel: Any = self.channel
        engine = channel.site.engine
        logRefusal(peerAddress(channel), error, engine.counts)
        self._prepareRefusal(error.status, error.message)
        # The part that has arrived is of no use.
        if self._kept is not None:
            self._kept.close()
        self.content = BytesIO()
        most = engine.settings.maxPayload
        self._mostToForget = 2 * most if self._kept is None else self._received + most
        assert self._refusal is not None
        if isinstance(channel, HTTPChannel):
            status, kind, body = self._refusal
            channel.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n%s" % (status, RESPONSES[status], kind, len(body), body)
            )

    def _prepareRefusal(self, status: int, message: str) -> None:
        if self._kept is None:
            self._refusal = status, b"application/json", refusal(HandshakeError(3, message, status))
        else:
            self._refusal = status, b"text/plain; charset=utf-8", message.encode()

    @property
    def isRefused(self) -> bool:
        """True if the request was refused before its whole body arrived."""
        return self._refusal is not None

    def _hangUp(self) -> None:
        if isinstance(self.channel, HTTPChannel):
            self.channel.loseConnection()
        else:
            self.channel.abortConnection()  # in HTTP/2, the stream's

    # -- the whole request -----------------------------------------------------------------

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        Called when all of a request has arrived.

        ``twisted.web``'s method would parse a form of any size here, used or not.
        """
        content: Any = self.content
        content.seek(0, 0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, 1)
        self._formWaits = command == b"POST"
        self._isComplete = True
        self.process()

    @property
    def args(self) -> Any:
        """The fields of the query, and of a form in the body, which the first reading parses."""
        if self._formWaits:
            self._formWaits = False
            self._parseForm()
        return self._args

    @args.setter
    def args(self, value: Any) -> None:
        self._args = value

    def _parseForm(self) -> None:
        """
        Let ``twisted.web`` parse the form.

        :raises _BadForm: if it has refused the form with 400.
        """
        content: Any = self.content
        if content is None:
            return
        place = content.tell()
        content.seek(0, 2)
        self._isParsing = True
        super().requestReceived(self.method, self.uri, self.clientproto)  # type: ignore[no-untyped-call]
        if self._isParsing:
            raise _BadForm("the body is no form")
        content.seek(place, 0)

    def processingFailed(self, reason: Failure) -> Failure:
        if reason.check(_BadForm):
            return reason
        return super().processingFailed(reason)  # type: ignore[no-untyped-call, no-any-return]

    def process(self) -> None:
        if self._isParsing:
            # Called by twisted.web after it has parsed the form.
            self._isParsing = False
        elif self._refusal is not None and isinstance(self.channel, HTTPChannel):
            self.channel.loseConnection()
        elif self._refusal is not None:
            self._answerRefusal()
        elif self._kept is not None:
            self._kept.whenKept(self._processKept)
        else:
            super().process()  # type: ignore[no-untyped-call]

    def _processKept(self) -> None:
        if self._disconnected:
            return
        if self._kept.trouble is None:
            super().process()  # type: ignore[no-untyped-call]
        else:
            self._prepareRefusal(SERVICE_UNAVAILABLE, self._kept.trouble)
            self._answerRefusal()

    def _answerRefusal(self) -> None:
        assert self._refusal is not None
        status, kind, body = self._refusal
        self.setResponseCode(status)
        self.setHeader(b"content-type", kind)  # type: ignore[no-untyped-call]
        self.setHeader(b"content-length", b"%d" % len(body))  # type: ignore[no-untyped-call]
        self.write(body)  # type: ignore[no-untyped-call]
        self.finish()  # type: ignore[no-untyped-call]
