"""
Requests of ``twisted.web`` whose bodies are measured while they come.

A body too large is refused before it has been read, where ``twisted.web`` reads the whole of a
request before a resource sees it.  A root may keep the bodies of requests that are not the engine's
itself, as a WSGI gateway does.  A form in a body is parsed when a resource asks for its fields, and
not before: ``twisted.web`` would parse each, which holds up all clients for 0.4 s per megabyte.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol

from twisted.python.failure import Failure
from twisted.web.http import (
    BAD_REQUEST,
    REQUEST_ENTITY_TOO_LARGE,
    RESPONSES,
    SERVICE_UNAVAILABLE,
    HTTPChannel,
    _getMultiPartArgs,
    _MultiPartParseException,
    _parseContentType,
    parse_qs,
)
from twisted.web.server import Request

from txrealtime.engineio.websocket.frames import refusal
from txrealtime.errors import HandshakeError

__all__ = ["Bodies", "Body", "MeasuredRequest"]


class Body(Protocol):
    """
    The body of one request, which its root keeps.  It is also a file, as ``twisted.web`` expects.

    :ivar trouble: why it cannot be kept, or ``None``.
    """

    trouble: str | None

    def write(self, data: bytes) -> object: ...

    def whenKept(self, call: Callable[[], object]) -> object:
        """Call a function when all that was written is kept, or cannot be kept."""


class Bodies(Protocol):
    """
    What a root resource may have as ``bodies``: it keeps the bodies of requests that are not the engine's.

    :ivar maxBody: the most bytes of one body.
    """

    maxBody: int

    def newBody(self, pause: Callable[[], object], resume: Callable[[], object]) -> Body:
        """
        Begin to keep a body.

        :param pause: stops reading from the client.
        :param resume: goes on with it.
        """


def _reading(channel: Any) -> Any:
    """What reads from the client: a connection, or a stream of HTTP/2."""
    return channel.transport if isinstance(channel, HTTPChannel) else channel


class _BadForm(Exception):
    """A body is no form, though it says so."""


class MeasuredRequest(Request):
    """
    A request whose body must not grow beyond a limit, if it is for an engine or for a root that keeps bodies.
    """

    _args: Any = None
    _formWaits = False
    _kept: Any = None
    _limit: int | None = None
    _received = 0
    # Of the body, until the client has more time for it.
    _untilMoreTime = 0
    _refusal: tuple[int, bytes, bytes] | None = None
    # How much is taken of a body that was refused.
    _mostToForget = 0

    def gotLength(self, length: int | None) -> None:
        # The path is not given to a request before its body has been read.
        channel: Any = self.channel
        # The one of HTTP/1.1, or a stream of HTTP/2.
        path: bytes = channel._path if isinstance(channel, HTTPChannel) else channel.path
        site = channel.site
        self._untilMoreTime = site.engine.settings.maxPayload
        if site.isForEngine(path):
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
            # The client reads our answer when it has sent its body, and not every client
            # before: take what it sends and forget it, but not without end.
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
            self._refuse(SERVICE_UNAVAILABLE, self._kept.trouble)

    def _giveMoreTime(self) -> None:
        """Let a large body take longer: as long again for each ``maxPayload`` bytes that have come."""
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
        if isinstance(channel, HTTPChannel) and not channel._handlingRequest:
            settings = channel.site.engine.settings  # type: ignore[attr-defined]
            channel.setTimeout(settings.requestTimeout)
        _reading(channel).resumeProducing()

    # -- refusing ------------------------------------------------------------------------

    def _refuseSize(self) -> None:
        if self._kept is None:
            message = f"the body is larger than maxPayload, {self._limit} bytes"
        else:
            message = f"the body is larger than maxUpload, {self._limit} bytes"
        self._refuse(REQUEST_ENTITY_TOO_LARGE, message)

    def _refuse(self, status: int, message: str) -> None:
        """Refuse a request whose body is still to come, or part of it."""
        self._prepareRefusal(status, message)
        # What has come is no more of use.
        if self._kept is not None:
            self._kept.close()
        self.content = BytesIO()
        channel: Any = self.channel
        most = channel.site.engine.settings.maxPayload
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
        """Whether the client has been answered before its body came."""
        return self._refusal is not None

    def _hangUp(self) -> None:
        if isinstance(self.channel, HTTPChannel):
            self.channel.loseConnection()
        else:
            self.channel.abortConnection()  # of HTTP/2, the stream

    # -- when all of it has come -----------------------------------------------------------

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        Called when all of a request has come.

        As ``twisted.web``'s, which here would parse forms of any size, whether somebody wants them or not.
        """
        content: Any = self.content
        content.seek(0, 0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, 1)
        self._formWaits = command == b"POST" and getattr(self, "_parsePOSTFormSubmission", True)
        self.process()

    @property
    def args(self) -> Any:
        """The fields of the query, and of a form in the body: that is parsed at the first look."""
        if self._formWaits:
            self._formWaits = False
            self._parseForm()
        return self._args

    @args.setter
    def args(self, value: Any) -> None:
        self._args = value

    def _parseForm(self) -> None:
        content: Any = self.content
        kind = self.requestHeaders.getRawHeaders(b"content-type", [b""])[0]
        form = _parseContentType(kind) if kind else b""
        if content is None or form not in (b"application/x-www-form-urlencoded", b"multipart/form-data"):
            return
        place = content.tell()
        content.seek(0, 0)
        body = content.read()
        content.seek(place, 0)
        if not body:
            return
        try:
            isMultipart = form == b"multipart/form-data"
            self._args.update(_getMultiPartArgs(body, kind) if isMultipart else parse_qs(body, 1))
        except _MultiPartParseException as error:
            raise _BadForm(str(error)) from error

    def processingFailed(self, reason: Failure) -> Failure:
        if not reason.check(_BadForm) or self.startedWriting:
            return super().processingFailed(reason)  # type: ignore[no-untyped-call, no-any-return]
        self.setResponseCode(BAD_REQUEST)
        self.setHeader(b"content-length", b"0")  # type: ignore[no-untyped-call]
        self.finish()  # type: ignore[no-untyped-call]
        return reason

    def process(self) -> None:
        if self._refusal is not None and isinstance(self.channel, HTTPChannel):
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
