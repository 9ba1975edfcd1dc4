"""
The opening request: a client's first HTTP request, as it came and as a trusted proxy reports it.

Long polling and WebSocket share this, on a ``twisted.web`` site and on an endpoint of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.cookies import SimpleCookie
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import parse_qsl

__all__ = ["OpeningRequest", "proxyFilter", "readHandshake", "readQuery"]

_ADDRESS: Final = re.compile(r"[0-9A-Za-z.:%_\-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningRequest:
    """
    A client's opening request.

    :ivar headers: the HTTP headers, names in lower case, repeated ones joined by a comma, ``cookie``
        by a semicolon.
    :ivar query: the query's fields; of a repeated one, the last.
    :ivar url: the path and query as they came.
    :ivar address: the client's address, as text.  Behind a proxy named in ``trustedProxies``, the address
        that the proxy reports.  ``unix`` for a client of a UNIX socket, ``unknown`` if a PROXY header names
        no address.
    :ivar secure: whether the client speaks TLS: to this server, to a trusted proxy, or by ``publicURL``.
    :ivar host: the ``Host`` that the client asked for, or the one of ``publicURL``.
    :ivar time: the time of arrival, in seconds since 1970.
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
        The cookies sent with the request (RFC 6265, 5.4).

        Of a repeated cookie, this has the first, whose path is the nearest.
        """
        cookies: dict[str, str] = {}
        # Pair by pair, since SimpleCookie drops all cookies for one that it cannot read.
        for pair in self.headers.get("cookie", "").split(";"):
            name, equals, value = pair.partition("=")
            if equals:
                cookies.setdefault(name.strip(), SimpleCookie().value_decode(value.strip())[0])
        return cookies

    @property
    def protocol(self) -> int:
        """The Engine.IO protocol that the client speaks; 3 if it names none, 0 if it names no number."""
        version = self.query.get("EIO", "3")
        return int(version) if version.isdecimal() and len(version) < 3 else 0

    @property
    def origin(self) -> str | None:
        """The ``Origin`` of the page that sends the request, or ``None``: only browsers name one."""
        return self.headers.get("origin")

    @property
    def ownOrigin(self) -> str:
        """The server's own origin: that of a page loaded from the host that the client asked for."""
        return f"{'https' if self.secure else 'http'}://{self.host}"


def readHandshake(
    headers: Mapping[str, str],
    url: str,
    peer: str,
    secure: bool,
    trusts: Callable[[str], bool],
    publicURL: str = "",
) -> OpeningRequest:
    """
    Read an opening request; what a trusted proxy reports of the client replaces what the proxy looks like.

    :param headers: names in lower case.
    :param peer: the address at the other end of the connection.
    :param secure: whether that connection is TLS.
    :param trusts: tells whether an address is a trusted proxy, see :func:`proxyFilter`.
    :param publicURL: the scheme and host that every client asked for, whatever the request says.
    """
    host = headers.get("host", "")
    if not _isAddress(peer):
        # Twisted's parser of PROXY headers takes any text.
        peer = "unknown"
    elif trusts(peer):
        peer, distance = _clientOf(headers.get("x-forwarded-for", ""), peer, trusts)
        proto = _forwarded(headers, "proto", "https" if secure else "http", distance)
        # Traefik names the scheme of a WebSocket.
        secure = proto.lower() in ("https", "wss")
        host = _forwarded(headers, "host", host, distance)
    if publicURL:
        scheme, _, host = publicURL.partition("://")
        secure = scheme == "https"
    return OpeningRequest(
        headers=headers, query=readQuery(url), url=url, address=peer, secure=secure, host=host
    )


def _clientOf(hops: str, peer: str, trusts: Callable[[str], bool]) -> tuple[str, int]:
    """
    Return the client's address, and its distance from the end of ``X-Forwarded-For``.

    The list grows to the right.  The last address that is not a trusted proxy is the client's; anybody can
    have written the addresses to its left.

    :param hops: the header.
    :param peer: the proxy's own address, which stands for the client if the header tells no better.
    """
    distance = 0
    for hop in reversed(hops.split(",")):
        distance += 1
        address = _withoutPort(hop.strip())
        if address:
            if not _isAddress(address):
                break
            peer = address
        if not trusts(peer):
            break
    return peer, distance


# A client sends all its requests from one address: 0.1 us instead of 5.
@lru_cache(maxsize=1024)
def _isAddress(text: str) -> bool:
    """Return whether a text is an IP address, or ``unix``."""
    if text == "unix":
        return True
    try:
        ip_address(text)
    except ValueError:
        return False
    # The zone of an IPv6 address may hold any text, and addresses go to the log.
    return _ADDRESS.fullmatch(text) is not None


def _forwarded(headers: Mapping[str, str], name: str, default: str, distance: int) -> str:
    """
    Return a value that the proxy nearest to the client has reported.

    Each proxy may add to ``X-Forwarded-Proto`` and ``-Host``, as all do to ``X-Forwarded-For``, or may leave
    them as they are.

    :param distance: the number of addresses from the end of ``X-Forwarded-For`` to the client's.
    """
    values = headers.get(f"x-forwarded-{name}", default).split(",")
    return values[-min(distance, len(values))].strip()


def _withoutPort(address: str) -> str:
    """Return an address without its port: gateways write ``192.0.2.1:4711`` and ``[2001:db8::1]:4711``."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def readQuery(url: str) -> dict[str, str]:
    """Return the fields of a URL's query; of a repeated one, the last."""
    query = url.partition("?")[2].partition("#")[0]
    if "%" in query or "+" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    # Most queries need no decoding: 1 us instead of 5.
    return dict([pair.partition("=")[::2] for pair in query.split("&")])


def _network(proxy: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(proxy, strict=False)
    except ValueError:
        raise ValueError(
            f"trustedProxies has {proxy!r}, expected an address such as '127.0.0.1', a network such as "
            "'10.0.0.0/8', or 'unix'"
        ) from None


def proxyFilter(proxies: tuple[str, ...]) -> Callable[[str], bool]:
    """
    Return a function that tells whether an address is one of these proxies.

    :param proxies: addresses and networks such as ``"127.0.0.1"`` and ``"10.0.0.0/8"``, and ``"unix"`` for
        every connection through a UNIX socket.
    :raises ValueError: if one of them is none of these.
    """
    if not proxies:
        return lambda address: False
    networks = [_network(proxy) for proxy in proxies if proxy != "unix"]
    unix = "unix" in proxies

    def trusts(address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return unix and address == "unix"
        # A dual-stack socket shows an IPv4 peer as ::ffff:a.b.c.d.
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in networks)

    return trusts
