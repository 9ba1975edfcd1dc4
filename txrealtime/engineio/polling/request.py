"""
What the engine needs of an HTTP request.

A request comes from ``twisted.web``, as a :class:`WebRequest`, or from the short way of
:mod:`~txrealtime.engineio.http.fastpath`; the engine does not ask which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.web.server import Request

__all__ = ["JSON", "OCTETS", "TEXT", "HTTPRequest", "WebRequest"]

TEXT: Final = b"text/plain; charset=UTF-8"
JSON: Final = b"application/json"
OCTETS: Final = b"application/octet-stream"


class HTTPRequest(Protocol):
    """
    A request whose body has come.

    :ivar method: ``GET``, ``POST`` ...
    :ivar url: the path and query, as they came.
    :ivar peer: the address at the other end of the connection.
    :ivar secure: whether the connection is TLS.
    :ivar extra: headers to go with the answer, by name.
    """

    method: str
    url: str
    extra: dict[bytes, bytes]

    @property
    def peer(self) -> str: ...

    @property
    def secure(self) -> bool: ...

    def header(self, name: str) -> str:
        """One header, named in lower case; empty when it was not sent."""

    def headers(self) -> dict[str, str]:
        """All headers, names in lower case, repeated ones joined by a comma, cookies by a semicolon."""

    def body(self, most: int) -> bytes:
        """
        :param most: how much is wanted, in bytes.
        """

    def respond(self, status: int, body: bytes, contentType: bytes = TEXT) -> None:
        """Answer, once and for all.  Does nothing when the client is gone."""

    def whenLost(self, call: Callable[[], object]) -> None:
        """Have a function called if the client goes before it is answered."""


class WebRequest:
    """A request of ``twisted.web``."""

    __slots__ = ("_request", "extra", "method", "url")

    def __init__(self, request: Request) -> None:
        self._request = request
        self.method = request.method.decode("latin-1")
        self.url = request.uri.decode("latin-1")
        self.extra = {b"Vary": b"Origin"}

    @property
    def peer(self) -> str:
        return getattr(self._request.client, "host", "unix")

    @property
    def secure(self) -> bool:
        return bool(self._request.isSecure())

    def header(self, name: str) -> str:
        value = self._request.getHeader(name.encode())
        return "" if value is None else value.decode("latin-1")

    def headers(self) -> dict[str, str]:
        fields = {}
        for name, values in self._request.requestHeaders.getAllRawHeaders():
            lower = name.lower()
            # Over HTTP/2, browsers send each cookie by itself (RFC 9113, 8.2.3).
            fields[lower.decode("latin-1")] = (
                (b"; " if lower == b"cookie" else b", ").join(values).decode("latin-1")
            )
        return fields

    def body(self, most: int) -> bytes:
        content = self._request.content
        assert content is not None
        body: bytes = content.read(most)
        return body

    def respond(self, status: int, body: bytes, contentType: bytes = TEXT) -> None:
        request = self._request
        # Gone when the connection is lost, or the request finished.
        if getattr(request, "channel", None) is None:
            return
        # The query holds the session's secret, and the site's access log the URL.
        request.uri = request.uri.partition(b"?")[0]
        request.setResponseCode(status)
        headers = request.responseHeaders
        headers.setRawHeaders(b"content-type", [contentType])
        headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
        headers.setRawHeaders(b"cache-control", [b"no-store"])
        for name, value in self.extra.items():
            headers.setRawHeaders(name, [value])
        request.write(body)
        request.finish()

    def whenLost(self, call: Callable[[], object]) -> None:
        self._request.notifyFinish().addErrback(lambda failure: call())
