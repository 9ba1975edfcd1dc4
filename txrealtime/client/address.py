"""
The address of a server: its URLs, and the endpoint that connects to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from twisted.internet.endpoints import HostnameEndpoint, clientFromString, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint

from txrealtime.client.tunnel import TunnelEndpoint

__all__ = ["Address"]

_PORTS: Final = {"http": 80, "https": 443}
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Address:
    """
    A server's address.

    :param url: ``http``, ``https``, ``ws`` or ``wss``; its path is a namespace, and its query is sent with
        each request.
    :param path: the path of Socket.IO on the server.
    :param query: further fields of the query.
    :raises ValueError: if the URL is not of that form.
    :ivar namespace: the namespace in the URL's path.
    :ivar host: the server's host, without brackets.
    :ivar secure: true for TLS.
    """

    def __init__(self, url: str, path: str, query: Mapping[str, str]) -> None:
        if not isinstance(url, str):
            raise TypeError(f"url is {type(url).__name__}, expected a str such as 'http://localhost:8000'")
        parts = urlsplit(url)
        scheme = _SCHEMES.get(parts.scheme)
        if scheme is None or not parts.hostname:
            raise ValueError(f"url is {_shown(url)!r}, expected a form like 'http://localhost:8000/chat'")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url has a user name: pass headers={'Authorization': ...} instead")
        self.namespace = "/" + parts.path.strip("/") if parts.path.strip("/") else "/"
        self.host: str = (
            parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        )
        self.secure = scheme == "https"
        self.port: int = parts.port if parts.port is not None else _PORTS[scheme]
        bare = f"[{self.host}]" if ":" in self.host else self.host
        self._netloc = bare if self.port == _PORTS[scheme] else f"{bare}:{self.port}"
        self._scheme = scheme
        self._path = quote(path, safe="/%:@!$&'()*+,;=~")
        self._query = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **query}

    def __str__(self) -> str:
        return f"{self._scheme}://{self._netloc}"

    def url(self, transport: str, sid: str | None, stamp: str = "") -> str:
        """
        Build the URL of a request.

        :param stamp: a text that differs in each request, against caches.
        """
        fields = {**self._query, "EIO": "4", "transport": transport}
        if sid is not None:
            fields["sid"] = sid
        if stamp:
            fields["t"] = stamp
        scheme = self._scheme
        if transport == "websocket":
            scheme = "wss" if self.secure else "ws"
        return f"{scheme}://{self._netloc}{self._path}?{urlencode(fields)}"

    def endpoint(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint | str | None,
        proxy: str | None,
        tls: IOpenSSLClientConnectionCreator | None,
    ) -> IStreamClientEndpoint:
        """
        Make the endpoint that connects to the server.

        :param endpoint: where to connect instead of the URL's host and port; TLS is added for ``https``.
        :param proxy: the URL of an HTTP proxy.
        :param tls: the options of TLS; by default the certificate is verified for the URL's host.
        """
        if endpoint is not None and proxy is not None:
            raise ValueError("endpoint and proxy exclude each other: an endpoint may itself be a tunnel")
        plain: IStreamClientEndpoint
        if isinstance(endpoint, str):
            plain = clientFromString(reactor, endpoint)
        elif endpoint is not None:
            plain = endpoint
        elif proxy is not None:
            plain = TunnelEndpoint.fromURL(reactor, proxy, self.host, self.port)
        else:
            plain = HostnameEndpoint(reactor, self.host, self.port)
        if not self.secure:
            return plain
        # Twisted imports pyOpenSSL here, which plain connections do without.
        from twisted.internet.ssl import optionsForClientTLS

        secured: IStreamClientEndpoint = wrapClientTLS(tls or optionsForClientTLS(self.host), plain)
        return secured


def _shown(url: str) -> str:
    """Return a URL for a message, without its query, which may hold secrets."""
    return url.partition("?")[0][:200]
