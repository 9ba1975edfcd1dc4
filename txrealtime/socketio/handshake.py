"""
The handshake: a client's opening request and its ``auth``, as applications see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from txrealtime.engineio.handshake import OpeningRequest

__all__ = ["Handshake"]


@dataclass(frozen=True, slots=True)
class Handshake:
    """
    The request that opened a client's session, and the ``auth`` that it sent to a namespace.

    :ivar request: the opening request, shared by the client's namespaces.
    :ivar auth: the client's ``auth``, a dictionary or ``None``; always ``None`` for ``allowRequest``,
        because a client sends ``auth`` only afterwards.
    """

    request: OpeningRequest
    auth: Any = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers, with names in lower case."""
        return self.request.headers

    @property
    def query(self) -> Mapping[str, str]:
        """The fields of the URL's query."""
        return self.request.query

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies."""
        return self.request.cookies

    @property
    def host(self) -> str:
        """The ``Host`` header; behind a trusted proxy, the host that the proxy reports."""
        return self.request.host

    @property
    def origin(self) -> str | None:
        """
        The page's origin, from the ``Origin`` header; ``None`` without one, since only browsers send it.
        """
        return self.request.origin

    @property
    def url(self) -> str:
        """The request's path and query."""
        return self.request.url

    @property
    def address(self) -> str:
        """The client's address; behind a trusted proxy, the address that the proxy reports."""
        return self.request.address

    @property
    def secure(self) -> bool:
        """True if the client uses TLS."""
        return self.request.secure

    @property
    def time(self) -> float:
        """The time at which the request arrived, in seconds since 1970."""
        return self.request.time

    @property
    def protocol(self) -> int:
        """The client's version of the Engine.IO protocol, 3 or 4."""
        return self.request.protocol
