"""
A call of a WSGI application in a thread (PEP 3333).

No library's own version of this fits a transport of Twisted.  gunicorn, cheroot, waitress and Werkzeug
write HTTP/1 to a socket of their own, without HTTP/2 and without the transport's backpressure.
``wsgiref.handlers`` sends the head before the body begins, and more bytes than Content-Length says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final
from wsgiref.util import is_hop_by_hop

from twisted.web.server import Request

from txrealtime.errors import Disconnected
from txrealtime.logs import Logger
from txrealtime.service.outlet import Outlet

__all__ = ["PIECE", "Call", "StatusAndHeaders"]

_log = Logger()

PIECE: Final = 65536
"""The most bytes handed to the reactor at once, so that none of its turns takes long."""

_STATUS: Final = re.compile(r"([2-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")

_ERROR_PAGE: Final = (
    b"<!doctype html><title>500 Internal Server Error</title><h1>Internal Server Error</h1>\n"
)

# RFC 9110, 15.3.5 and 15.4.5.
_WITHOUT_BODY: Final = frozenset({204, 304})


class StatusAndHeaders:
    """
    The arguments of ``start_response``, checked.

    Headers about the connection, such as ``Transfer-Encoding``, are dropped, as by gunicorn: PEP 3333
    leaves the connection to the server ("Other HTTP Features").

    :raises TypeError: if the status or a header is no text.
    :raises ValueError: if one cannot be sent, such as a header with a line feed.
    """

    def __init__(self, status: str, headers: Iterable[tuple[str, str]]) -> None:
        if not isinstance(status, str):
            raise TypeError(f"the status is a str such as '200 OK', not {status!r}")
        match = _STATUS.fullmatch(status)
        if match is None:
            raise ValueError(f"the status is three digits and a reason, such as '200 OK', not {status!r}")
        self.code = int(match[1])
        self.length: int | None = None
        self._reason = (match[2] or "").encode("latin-1")
        self._fields: list[tuple[bytes, bytes]] = []
        for name, value in headers:
            self._add(name, value)

    def _add(self, name: str, value: str) -> None:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"a header is a tuple of two str, not {(name, value)!r}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"no header can have the name {name!r}")
        value = value.strip(" \t")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"the header {name} cannot have the value {value!r}: expected Latin-1 on one line"
            )
        if is_hop_by_hop(name):
            return
        if name.lower() == "content-length":
            if not _LENGTH.fullmatch(value):
                raise ValueError(f"Content-Length is a number, not {value!r}")
            if self.length is not None:
                # RFC 9112, 6.3: clients and proxies would disagree on the end of the response.
                raise ValueError(f"two Content-Length headers, {self.length} and {int(value)}")
            self.length = int(value)
        self._fields.append((name.encode("latin-1"), value.encode("latin-1")))

    def hasBody(self, method: str) -> bool:
        """Tell if the response to a request with this method has a body."""
        return method != "HEAD" and self.code not in _WITHOUT_BODY

    def setLength(self, length: int) -> None:
        """Add the Content-Length that the application has left out."""
        self.length = length
        self._fields.append((b"Content-Length", b"%d" % length))

    def writeTo(self, request: Request) -> None:
        """Set the status and the headers of a request, which sends them with the first piece of the body."""
        request.setResponseCode(self.code, self._reason)
        sent = request.responseHeaders
        for name, _ in self._fields:
            if name.lower() in (b"server", b"date"):
                sent.removeHeader(name)
        for name, value in self._fields:
            sent.addRawHeader(name, value)


class Call:
    """
    One call of the application, for one request.

    :param name: the request, for the log.
    """

    def __init__(self, name: str, application: Any, environ: dict[str, Any], outlet: Outlet) -> None:
        self._name = name
        self._application = application
        self._environ = environ
        # Kept here, because an application may change its environ.
        self._method: str = environ["REQUEST_METHOD"]
        self._errors = environ["wsgi.errors"]
        self._outlet = outlet
        self._head: StatusAndHeaders | None = None
        self._begun = False
        self._sent = 0
        # PEP 3333: the length of a single piece is that of the body.
        self._isWhole = False

    def run(self) -> None:
        """Call the application, and send its response."""
        result: Any = ()
        try:
            result = self._application(self._environ, self._startResponse)
            self._iterate(result)
            self._finish()
        except BaseException as error:
            self._failed(error)
        finally:
            self._close(result)
            self._errors.flush()

    def _iterate(self, result: Iterable[bytes]) -> None:
        with suppress(TypeError):
            self._isWhole = len(result) == 1  # type: ignore[arg-type]
        for data in result:
            if self._outlet.gone:
                # A view that waits may yield empty pieces, which are never sent.
                raise Disconnected("the client has gone")
            if data and not self._write(data):
                return

    def _close(self, result: Any) -> None:
        close = getattr(result, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException:
            _log.failure("{name}: close() of the response failed", name=self._name)

    # -- what the application calls ---------------------------------------------------------

    def _startResponse(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        if exc_info is not None:
            try:
                if self._begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head is not None:
            raise RuntimeError("start_response() was called before, and without exc_info it is called once")
        self._head = StatusAndHeaders(status, headers)
        return self._writeAll

    def _writeAll(self, data: bytes) -> None:
        """Send a part of the body, as the ``write()`` of PEP 3333."""
        head = self._head
        assert head is not None
        if not self._write(data) and head.hasBody(self._method):
            raise ValueError(f"the response is larger than its Content-Length, {head.length} bytes")

    # -- sending --------------------------------------------------------------------------

    def _write(self, data: bytes) -> bool:
        """
        Send a part of the body.

        :return: False if the response takes no more bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"the body of a response is bytes, not {type(data).__name__}")
        head = self._head
        if head is None:
            raise RuntimeError("start_response() was not called before the first bytes of the body")
        if not data:
            return True
        if not head.hasBody(self._method):
            return False
        if not self._begun and head.length is None and self._isWhole:
            head.setLength(len(data))
        room = len(data) if head.length is None else head.length - self._sent
        for start in range(0, min(len(data), room), PIECE):
            piece = data[start : min(start + PIECE, room)] if len(data) > min(PIECE, room) else data
            begun, self._begun = self._begun, True
            self._outlet.send(None if begun else head, piece)
            self._sent += len(piece)
        return len(data) <= room

    def _finish(self) -> None:
        head = self._head
        if head is None:
            raise RuntimeError("the application has not called start_response()")
        if self._begun:
            if head.length is not None and self._sent < head.length:
                raise ValueError(
                    f"the response ends after {self._sent} bytes, and its Content-Length is {head.length}"
                )
            self._outlet.finish(None)
            return
        if head.hasBody(self._method):
            if head.length:
                raise ValueError(f"the response has no body, and its Content-Length is {head.length}")
            if head.length is None:
                head.setLength(0)
        self._begun = True
        self._outlet.finish(head)

    def _failed(self, error: BaseException) -> None:
        if self._outlet.gone and isinstance(error, Disconnected):
            return
        _log.failure("{name} failed", name=self._name)
        if self._begun:
            self._outlet.fail()
            return
        page = StatusAndHeaders("500 Internal Server Error", [("Content-Type", "text/html; charset=utf-8")])
        page.setLength(len(_ERROR_PAGE))
        if not page.hasBody(self._method):
            self._outlet.finish(page)
            return
        with suppress(Disconnected):
            self._outlet.send(page, _ERROR_PAGE)
            self._outlet.finish(None)
