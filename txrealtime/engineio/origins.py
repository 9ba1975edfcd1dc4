"""
Origins of web pages (RFC 6454): the Origin check and the CORS headers.

Every origin is compared in one normal form, see :func:`normalOrigin`, whether it stands in a setting, in a
header, or is the server's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["Origins", "listedOrigin", "normalOrigin", "originOfPage", "preflightHeaders"]

# scheme "://" host [":" port], with the slash that people add in settings.
_ORIGIN: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.\-]*)://(\[[0-9A-Fa-f:.]+\]|[^\s\x00-\x20\x7f/?#@:\[\]\\%*]*)(?::([0-9]{0,5}))?/?"
)

# Starscream, the WebSocket of Socket.IO's iOS client, names its URL's scheme in Origin.
_SCHEMES: Final = {"ws": "http", "wss": "https"}

_PORTS: Final = {"http": 80, "https": 443}

# Browsers take a host that ends in a number for an address: "127.1" is 127.0.0.1.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

_NO_NAME: Final = frozenset("<>^|")

_log = Logger()

_EXPECTED: Final = "expected a form like 'https://example.org', 'https://*.example.org', 'null' or '*'"


# A browser sends the same Origin with each of its requests: 0.1 us instead of 1.2.
@lru_cache(maxsize=512)
def normalOrigin(origin: str) -> str:
    """
    Return an origin in the form in which browsers send it.

    Scheme and host are in lower case, ``ws`` and ``wss`` become ``http`` and ``https``, an international
    host takes its ASCII form, and the port is left out if the scheme implies it.  ``null`` stays as it is.
    Only ``http`` and ``https`` need a host: ``file://`` and ``app://`` are origins of web views.

    :raises ValueError: if the text is no origin, with the reason.
    """
    if origin == "null":
        return origin
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        raise ValueError(_EXPECTED)
    scheme = match[1].lower()
    scheme = _SCHEMES.get(scheme, scheme)
    host = _normalHost(match[2])
    port = int(match[3] or 0)
    if match[3] and not 0 < port < 65536:
        raise ValueError("expected a port from 1 to 65535")
    if not host and (scheme in _PORTS or port):
        raise ValueError(_EXPECTED)
    suffix = "" if port in (0, _PORTS.get(scheme)) else f":{port}"
    return f"{scheme}://{host}{suffix}"


def _normalHost(host: str) -> str:
    if host.startswith("["):
        return f"[{IPv6Address(host[1:-1]).compressed}]"
    host = host.lower()
    if host.isascii():
        return host
    # Python's codec follows IDNA 2003, and browsers follow UTS 46, so some names come out differently:
    # "straße" must not silently become "strasse".
    try:
        encoded = host.encode("idna").decode("ascii")
        if encoded.encode("ascii").decode("idna") == host:
            return encoded
    except UnicodeError:
        pass
    raise ValueError("expected the host in its ASCII form, which begins with 'xn--'")


def listedOrigin(text: str) -> str:
    """
    Return a value of the setting ``origins`` in normal form.

    :param text: an origin; ``*`` for any; or a wildcard such as ``https://*.example.org`` for every host
        below ``example.org``, at any depth, and not ``example.org`` itself.
    :raises ValueError: if no page could ever match it.
    """
    if text == "*":
        return text
    try:
        scheme, separator, host = text.partition("://*.")
        normal = normalOrigin(f"{scheme}://{host}" if separator else text)
        _checkHost(normal)
        if not separator:
            return normal
        if not host or _isAddress(normal):
            raise ValueError("expected a host name after '*.'")
        return normal.replace("://", "://*.", 1)
    except ValueError as error:
        raise ValueError(f"origin {text!r}, {error}") from None


def _checkHost(normal: str) -> None:
    """
    Check that browsers send the host of an origin as it is (URL standard, "host parsing").

    :raises ValueError: if a name is missing beside a dot, or if an address has another form.
    """
    scheme, _, host = normal.partition("://")
    if scheme not in _PORTS or host.startswith("["):
        return
    labels = host.partition(":")[0].removesuffix(".").split(".")
    if "" in labels:
        raise ValueError("expected a name before each dot; 'https://*.example.org' is every host below one")
    if _NUMBER.fullmatch(labels[-1]) and not _isAddress(normal):
        raise ValueError("expected an address of four numbers, such as 'http://192.0.2.1'")
    if not _NO_NAME.isdisjoint(host):
        raise ValueError(_EXPECTED)


def _isAddress(normal: str) -> bool:
    """Return whether the host of an origin is an IP address."""
    try:
        ip_address(urlsplit(normal).hostname or "")
    except ValueError:
        return False
    return True


class Origins:
    """
    The origins whose pages may connect, beside the server's own.

    :param listed: values of the setting ``origins``, see :func:`listedOrigin`.
    """

    def __init__(self, listed: Iterable[str]) -> None:
        normal = [listedOrigin(text) for text in listed]
        self._any = "*" in normal
        self._advised = False
        self._exact = frozenset(normal)
        wildcards = (text.partition("*") for text in normal if "://*." in text)
        self._wildcards = [(scheme, end) for scheme, _, end in wildcards]

    def allow(self, request: OpeningRequest) -> bool:
        """Return whether the page that sends a request may connect; clients other than browsers may."""
        origin = request.origin
        if origin is None or self._any:
            return True
        try:
            normal = normalOrigin(origin)
            if normal in self._exact or self._matchesWildcard(normal):
                return True
            return normal == normalOrigin(request.ownOrigin)
        except ValueError:
            return False

    def _matchesWildcard(self, normal: str) -> bool:
        return any(
            normal.startswith(scheme) and normal.endswith(end) and len(normal) > len(scheme) + len(end)
            for scheme, end in self._wildcards
        )

    def check(self, request: OpeningRequest) -> None:
        """
        Refuse a page of a foreign origin, on both transports: browsers let any page open a WebSocket.

        :raises HandshakeError: if the origin is not allowed (403).  The message names both origins and the
            setting that helps.
        """
        if not self.allow(request):
            text = (
                f"Origin {request.origin!r} is neither this server's own, {request.ownOrigin!r}, "
                "nor listed in the setting origins (twistd realtime --origin)"
            )
            advice = _advice(request)
            if advice and not self._advised:
                self._advised = True
                _log.warn("refused a page, and will say so once: {text}. {advice}", text=text, advice=advice)
            raise HandshakeError(4, f"{text}. {advice}" if advice else text, reason="origin")

    def headers(self, request: OpeningRequest) -> dict[bytes, bytes]:
        """Return the headers that let an allowed page read the response (Fetch standard, "CORS protocol")."""
        if request.origin is None or not self.allow(request):
            return {}
        if self._any:
            # A wildcard excludes credentials.
            return {b"Access-Control-Allow-Origin": b"*"}
        return {
            b"Access-Control-Allow-Origin": request.origin.encode("latin-1"),
            b"Access-Control-Allow-Credentials": b"true",
        }


def _advice(request: OpeningRequest) -> str:
    """Return a sentence on the setting that helps if the page is the server's own after all, or nothing."""
    try:
        page, own = normalOrigin(request.origin or ""), normalOrigin(request.ownOrigin)
    except ValueError:
        return ""
    (scheme, _, host), (ownScheme, _, ownHost) = page.partition("://"), own.partition("://")
    if scheme not in _PORTS:
        return ""
    protos = [_SCHEMES.get(proto, proto) for proto in _listed(request, "x-forwarded-proto")]
    hosts = _listed(request, "x-forwarded-host")
    if (scheme != ownScheme and scheme in protos) or (host != ownHost and host in hosts):
        return (
            "If a proxy sent this request, set trustedProxies (--trusted-proxy) to the proxy's address; "
            f"if the proxy speaks the PROXY protocol, set publicURL (--public-url) to {page!r}"
        )
    if scheme != ownScheme and host == ownHost:
        return f"If TLS ends at a proxy that says nothing of it, set publicURL (--public-url) to {page!r}"
    return ""


def _listed(request: OpeningRequest, name: str) -> list[str]:
    return [value.strip().lower() for value in request.headers.get(name, "").split(",")]


def preflightHeaders(wanted: str) -> dict[bytes, bytes]:
    """
    Return the headers of the response to a preflight request (Fetch standard, "CORS-preflight request").

    :param wanted: the request's ``Access-Control-Request-Headers``, or an empty string.
    """
    headers = {
        b"Access-Control-Allow-Methods": b"GET, POST, OPTIONS",
        b"Access-Control-Max-Age": b"600",
    }
    if wanted:
        headers[b"Access-Control-Allow-Headers"] = wanted.encode("latin-1")
        headers[b"Vary"] = b"Origin, Access-Control-Request-Headers"
    return headers


def originOfPage(headers: Mapping[str, str]) -> str | None:
    """
    Return the origin of the page that sends a request without an ``Origin``, as far as its headers tell.

    A browser sends no ``Origin`` for a ``<script>``, and runs the response in any page.  ``Referer`` names
    the page; without it, ``Sec-Fetch-Site`` tells whether the page is foreign; its origin is then ``null``.

    :param headers: names in lower case.
    """
    try:
        page = urlsplit(headers.get("referer", ""))
    except ValueError:
        page = urlsplit("")
    if page.scheme and page.netloc:
        return f"{page.scheme}://{page.netloc}"
    return None if headers.get("sec-fetch-site", "none") in ("none", "same-origin") else "null"
