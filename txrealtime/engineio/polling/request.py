"""
The engine's view of an HTTP request.

Three classes look like this: :class:`~txrealtime.engineio.http.resource.WebRequest` for ``twisted.web``, the
request of the fast path in :mod:`~txrealtime.engineio.http.fastpath`, and
:class:`~txrealtime.engineio.polling.jsonp.JSONPRequest` around one of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["JSON", "OCTETS", "TEXT", "HTTPRequest"]

TEXT: Final = b"text/plain; charset=UTF-8"
JSON: Final = b"application/json"
OCTETS: Final = b"application/octet-stream"


class HTTPRequest(Protocol):
    """
    An HTTP request whose body has arrived.

    :ivar method: ``GET``, ``POST`` ...
    :ivar url: the path and query, as sent.
    :ivar peer: the address at the other end of the connection.
    :ivar secure: whether the connection is TLS.
    :ivar extra: headers to send with the response, by name; without one, ``Cache-Control`` is ``no-store``.
    """

    method: str
    url: str
    extra: dict[bytes, bytes]

    @property
    def peer(self) -> str: ...

    @property
    def secure(self) -> bool: ...

    def header(self, name: str) -> str:
        """
        Return one header, or an empty string if it was not sent.

        :param name: its name in lower case.
        """

    def headers(self) -> dict[str, str]:
        """Return all headers: names in lower case, repeats joined by a comma, cookies by a semicolon."""

    def body(self, most: int) -> bytes:
        """
        Return the body, or its beginning.

        :param most: the number of bytes to return at most.
        """

    def respond(self, status: int, body: bytes, contentType: bytes = TEXT) -> None:
        """
        Send the response.  Call this once.  Nothing is sent to a client that is gone.

        :param body: the body; with status 304 only its length is sent (RFC 9110, 8.6).
        """

    def whenLost(self, call: Callable[[], object]) -> None:
        """Register a function to be called if the client goes before the response."""
