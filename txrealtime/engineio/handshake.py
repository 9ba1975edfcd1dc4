"""
What a client's first request said, and whether its origin may talk to us.

The same for long polling and WebSocket, and for both ways in: a request of
twisted.web, or a WebSocket opening handshake on an endpoint of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from ipaddress import ip_address, ip_network
from urllib.parse import parse_qsl, urlsplit

from txrealtime.errors import HandshakeError

__all__ = ["OpeningRequest", "allowsOrigin", "checkOrigin", "proxyFilter", "readHandshake", "readQuery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningRequest:
    """
    A client's opening request.

    :ivar headers: the HTTP headers, names in lower case, repeated ones joined by a comma, ``cookie``
        by a semicolon.
    :ivar query: the query's fields; of a repeated one, the last.
    :ivar url: the path and query as they came.
    :ivar address: the client's address, as text.  Behind a proxy named in
        ``trustedProxies`` it is the one that the proxy reports.
    :ivar secure: whether the client speaks TLS, to us or to a trusted proxy.
    :ivar host: the ``Host`` that the client asked for.
    :ivar time: when it came, in seconds since 1970.
    """

    headers: Mapping[str, str]
    query: Mapping[str, str]
    url: str
    address: str
    secure: bool
    host: str
    time: float = field(default_factory=time.time)

    @property
    def cookies(self) -> dict[str, str]:
        """
        The cookies sent with the request (RFC 6265, 5.4); of a repeated one, the first, which is the
        one of the nearest path.
        """
        cookies: dict[str, str] = {}
        # SimpleCookie itself would give up all of them for one that it does not like.
        for pair in self.headers.get("cookie", "").split(";"):
            name, equals, value = pair.partition("=")
            if equals:
                cookies.setdefault(name.strip(), SimpleCookie().value_decode(value.strip())[0])
        return cookies

    @property
    def protocol(self) -> int:
        """The Engine.IO protocol that the client speaks; 3 when it does not say."""
        version = self.query.get("EIO", "3")
        return int(version) if version.isdecimal() and len(version) < 3 else 0

    @property
    def origin(self) -> str | None:
        """The origin of the page that asks, or ``None``: only browsers say."""
        return self.headers.get("origin")

    @property
    def ownOrigin(self) -> str:
        """The origin of a page that came from the host that was asked."""
        return f"{'https' if self.secure else 'http'}://{self.host}"


def readHandshake(
    headers: Mapping[str, str], url: str, peer: str, secure: bool, trusts: Callable[[str], bool]
) -> OpeningRequest:
    """
    Read an opening request, with what a trusted proxy says of the client in
    place of what the proxy itself looks like.

    :param headers: names in lower case.
    :param peer: the address at the other end of the connection.
    :param secure: whether that connection is TLS.
    :param trusts: whether an address is a proxy of ours, see :func:`proxyFilter`.
    """
    host = headers.get("host", "")
    if trusts(peer):
        # The lists grow to the right: the last address that is not a proxy of ours is the
        # client; what stands left of it anybody can have written.
        distance = 0
        for hop in reversed(headers.get("x-forwarded-for", "").split(",")):
            distance += 1
            if hop.strip():
                peer = _withoutPort(hop.strip())
            if not trusts(peer):
                break
        secure = _forwarded(headers, "proto", "https" if secure else "http", distance).lower() == "https"
        host = _forwarded(headers, "host", host, distance)
    return OpeningRequest(
        headers=headers, query=readQuery(url), url=url, address=peer, secure=secure, host=host
    )


def _forwarded(headers: Mapping[str, str], name: str, default: str, distance: int) -> str:
    """
    What the proxy before the client has said of it.

    :param distance: how many proxies away the client is.  Not each need have added to the list.
    """
    said = headers.get(f"x-forwarded-{name}", default).split(",")
    return said[-min(distance, len(said))].strip()


def _withoutPort(address: str) -> str:
    """The address alone: some gateways write ``192.0.2.1:4711`` and ``[2001:db8::1]:4711``."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def readQuery(url: str) -> dict[str, str]:
    """The fields of a URL's query; of a repeated one, the last."""
    query = url.partition("?")[2].partition("#")[0]
    if "%" in query or "+" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    # Most need no decoding: 1 us instead of 5.
    return dict([pair.partition("=")[::2] for pair in query.split("&")])


def proxyFilter(proxies: tuple[str, ...]) -> Callable[[str], bool]:
    """
    A test for the addresses of proxies.

    :param proxies: addresses and networks such as ``"127.0.0.1"`` and ``"10.0.0.0/8"``,
        ``"unix"`` for whoever connects through a UNIX socket.
    :raises ValueError: when one of them is neither.
    """
    networks = [ip_network(proxy, strict=False) for proxy in proxies if proxy != "unix"]
    unix = "unix" in proxies

    def trusts(address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return unix and address == "unix"
        # What reaches a dual-stack socket over IPv4 shows as ::ffff:a.b.c.d.
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in networks)

    return trusts


def allowsOrigin(handshake: OpeningRequest, origins: tuple[str, ...]) -> bool:
    """Whether the page that asks may talk to us."""
    origin = handshake.origin
    if origin is None or "*" in origins or origin.lower() in origins:
        return True
    return _normal(origin) == _normal(handshake.ownOrigin)


def checkOrigin(handshake: OpeningRequest, origins: tuple[str, ...]) -> None:
    """
    Refuse a page of a foreign origin, on both transports: a browser asks no
    leave before it opens a WebSocket.

    :param origins: the origins allowed beside our own, in lower case; ``"*"`` for any.
    :raises HandshakeError: 403, with the two origins compared and the option that allows it.
    """
    if not allowsOrigin(handshake, origins):
        raise HandshakeError(
            4,
            f"Origin {handshake.origin!r} is neither this server's own, {handshake.ownOrigin!r}, "
            "nor listed in the setting origins (twistd realtime --origin). "
            "Behind a TLS proxy, set trustedProxies (--trusted-proxy)",
        )


def _normal(origin: str) -> tuple[str, str | None, int | None]:
    """An origin's scheme, host and port, for comparison."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return ("", origin, None)
    return (parts.scheme, parts.hostname, port or {"http": 80, "https": 443}.get(parts.scheme))
