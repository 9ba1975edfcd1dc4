"""
A client's handshake, as applications see it.
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
        which is asked before a client can send one.
    """

    request: OpeningRequest
    auth: Any = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers, names in lower case."""
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
        """The ``Host`` that the client asked for; behind a trusted proxy, the one it reports."""
        return self.request.host

    @property
    def origin(self) -> str | None:
        """The origin of the page that asks, or ``None``: only browsers send one."""
        return self.request.origin

    @property
    def url(self) -> str:
        """The path and query."""
        return self.request.url

    @property
    def address(self) -> str:
        """The client's address; behind a trusted proxy, the one it reports."""
        return self.request.address

    @property
    def secure(self) -> bool:
        """Whether the client speaks TLS."""
        return self.request.secure

    @property
    def time(self) -> float:
        """When the request came, in seconds since 1970."""
        return self.request.time

    @property
    def protocol(self) -> int:
        """The Engine.IO protocol that the client speaks."""
        return self.request.protocol
