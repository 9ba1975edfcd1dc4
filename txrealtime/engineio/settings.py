"""
The engine's settings.

Each field carries the help text from which ``twistd realtime`` makes an option.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from txrealtime.engineio.handshake import proxyFilter

__all__ = ["Settings", "setting"]

# RFC 6265, 4.1.1: the name of a cookie is a token of HTTP.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def setting(default: Any, help: str) -> Any:
    """A dataclass field with its help text."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    How an engine treats its clients.  Times are in seconds, fractions allowed; sizes in bytes.

    :raises ValueError: when a value makes no sense.
    """

    pingInterval: float = setting(25.0, "seconds between heartbeats")
    pingTimeout: float = setting(20.0, "seconds that a client has to answer a heartbeat")
    upgradeTimeout: float = setting(10.0, "seconds that an upgrade to WebSocket may take")
    closeTimeout: float = setting(
        30.0, "seconds that a closing session waits for a polling client to fetch what is left"
    )
    handshakeTimeout: float = setting(
        10.0, "seconds that the opening and the closing handshake of a WebSocket may each take"
    )
    requestTimeout: float = setting(
        30.0, "seconds that an HTTP request may take to arrive, from its first byte to the last of its body"
    )
    maxConnections: int = setting(
        0, "connections, and likewise sessions, that there may be at a time; 0 for no limit"
    )
    maxConnectionsPerAddress: int = setting(
        0, "the same from one address, or one /64 network of IPv6; 0 for no limit"
    )
    maxHeaderSize: int = setting(16384, "the largest head of an HTTP request accepted, in bytes")
    maxPayload: int = setting(1_000_000, "the largest message or request body accepted, in bytes")
    maxBuffered: int = setting(
        4_000_000, "bytes that may wait for a slow client before it is closed as a slow consumer"
    )
    maxFragments: int = setting(
        1024, "fragments that a WebSocket message may have, beside one for every 16 bytes"
    )
    maxMessageRate: int = setting(0, "messages per second that are read from one client; 0 for no limit")
    maxByteRate: int = setting(
        0, "bytes of messages per second that are read from one client; 0 for no limit"
    )
    transports: tuple[str, ...] = setting(
        ("polling", "websocket"), "the transports served: polling, websocket"
    )
    allowUpgrades: bool = setting(True, "let polling clients upgrade to WebSocket")
    allowEIO3: bool = setting(False, "serve clients of Socket.IO 1 and 2 too, which speak Engine.IO 3")
    origins: tuple[str, ...] = setting(
        (), "origin of pages that may connect beside the server's own, such as https://example.org; * for any"
    )
    trustedProxies: tuple[str, ...] = setting(
        (), "address or network of a proxy whose X-Forwarded-* headers are believed, such as 127.0.0.1"
    )
    cookie: str = setting("", "name of a cookie with the session id, for load balancers; none by default")
    compressionThreshold: int = setting(
        1024,
        "smallest polling response that is compressed, and with perMessageDeflate the smallest message, "
        "in bytes; 0 for never",
    )
    perMessageDeflate: bool = setting(False, "compress WebSocket messages (costs memory and CPU per client)")

    shortWays: bool = setting(
        True, "read plain WebSocket frames and polling requests without Autobahn and twisted.web"
    )

    def __post_init__(self) -> None:
        for name in ("transports", "origins", "trustedProxies"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        object.__setattr__(self, "origins", tuple(_checkedOrigin(origin) for origin in self.origins))
        proxyFilter(self.trustedProxies)
        if self.cookie and not _TOKEN.fullmatch(self.cookie):
            raise ValueError(
                f"cookie is {self.cookie!r}, expected a name of letters, digits and !#$%&'*+-.^_`|~"
            )
        if not self.transports or set(self.transports) - {"polling", "websocket"}:
            raise ValueError(f"transports is {self.transports!r}, expected 'polling', 'websocket' or both")
        self._checkPositive(
            "pingInterval",
            "pingTimeout",
            "upgradeTimeout",
            "closeTimeout",
            "handshakeTimeout",
            "requestTimeout",
            "maxHeaderSize",
            "maxPayload",
        )
        self._checkNotNegative(
            "maxBuffered",
            "compressionThreshold",
            "maxConnections",
            "maxConnectionsPerAddress",
            "maxFragments",
            "maxMessageRate",
            "maxByteRate",
        )

    def _checkPositive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a number above 0")

    def _checkNotNegative(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected 0 or a number above")


def _checkedOrigin(origin: str) -> str:
    """An origin in the form in which browsers send it, or ``*`` or ``null``."""
    if origin in ("*", "null"):
        return origin
    try:
        parts = urlsplit(origin)
        whole = parts.scheme and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or parts.path.strip("/") or parts.query:
        raise ValueError(f"origin {origin!r}, expected a form like 'https://example.org' or '*'")
    # Browsers leave out the port that the scheme implies.
    usual = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc}".lower().removesuffix(usual)
