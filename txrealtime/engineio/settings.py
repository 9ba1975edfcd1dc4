"""
The engine's settings, each with its help text: ``twistd realtime`` makes an option of every field.
"""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Final

from txrealtime.engineio.handshake import proxyFilter
from txrealtime.engineio.origins import listedOrigin, normalOrigin

__all__ = ["TRANSPORTS", "Settings", "setting"]

TRANSPORTS: Final = ("polling", "websocket")
"The names of the transports that an engine can serve."

# RFC 6265, 4.1.1: the name of a cookie is a token of HTTP.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_NAME: Final = re.compile(r"[a-z0-9-]{1,16}")


def setting(default: Any, help: str) -> Any:
    """Return a dataclass field with a help text."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    The settings of an engine.  Times are in seconds, fractions allowed; sizes in bytes.

    :raises ValueError: if a value makes no sense.
    """

    pingInterval: float = setting(25.0, "seconds between heartbeats")
    pingTimeout: float = setting(20.0, "seconds that a client has to answer a heartbeat")
    upgradeTimeout: float = setting(10.0, "seconds that an upgrade to WebSocket may take")
    closeTimeout: float = setting(
        30.0, "seconds that a closing session waits for a polling client to fetch its last messages"
    )
    handshakeTimeout: float = setting(
        10.0,
        "seconds that each of the opening and the closing handshake of a WebSocket may take; a closing one "
        "has longer while the client still takes what was sent before",
    )
    requestTimeout: float = setting(
        30.0,
        "seconds that an HTTP request may take to arrive, from its first byte to the last of its body, and "
        "as long again for each maxPayload bytes",
    )
    maxConnections: int = setting(0, "the most connections at a time, and the most sessions; 0 for no limit")
    maxConnectionsPerAddress: int = setting(
        0, "the same for one address, or one /64 network of IPv6; 0 for no limit"
    )
    maxHeaderSize: int = setting(16384, "the largest head of an HTTP request that is accepted, in bytes")
    maxPayload: int = setting(1_000_000, "the largest message or request body that is accepted, in bytes")
    maxUpload: int = setting(2**30, "the largest body of a request to a WSGI application, in bytes")
    maxBuffered: int = setting(
        4_000_000, "bytes that may wait for a slow client before its session closes as a slow consumer"
    )
    maxFragments: int = setting(
        1024, "the most fragments of a WebSocket message, plus one for every 16 bytes of it"
    )
    maxMessageRate: int = setting(
        0, "the most messages per second that are read from one client; 0 for no limit"
    )
    maxByteRate: int = setting(
        0, "the most bytes of messages per second that are read from one client; 0 for no limit"
    )
    transports: tuple[str, ...] = setting(TRANSPORTS, "the transports served: polling, websocket")
    allowUpgrades: bool = setting(True, "let polling clients upgrade to WebSocket")
    allowEIO3: bool = setting(False, "serve clients of Socket.IO 1 and 2 too, which speak Engine.IO 3")
    origins: tuple[str, ...] = setting(
        (),
        "origin of pages that may connect beside the server's own, such as https://example.org; * for any",
    )
    trustedProxies: tuple[str, ...] = setting(
        (), "address or network of a proxy whose X-Forwarded-* headers are believed, such as 127.0.0.1"
    )
    publicURL: str = setting(
        "",
        "scheme and host under which clients reach the server, such as https://example.org, where TLS ends "
        "before it and no trusted proxy says so",
    )
    cookie: str = setting(
        "", "name of a cookie with the session id, for load balancers; no cookie by default"
    )
    name: str = setting(
        "",
        "name of this server at the end of each session id, after a dot, for proxies that route by it: up to "
        "16 of a-z, 0-9 and -; no name by default",
    )
    compressionThreshold: int = setting(
        1024,
        "the smallest polling response that is compressed, and with perMessageDeflate the smallest message, "
        "in bytes; 0 for never",
    )
    perMessageDeflate: bool = setting(
        False, "compress WebSocket messages, at a cost of memory and CPU for each client"
    )

    shortWays: bool = setting(
        True,
        "use the fast paths: read plain WebSocket frames and polling requests without Autobahn and "
        "twisted.web",
    )

    def __post_init__(self) -> None:
        self._checkTypes()
        object.__setattr__(self, "origins", tuple(listedOrigin(origin) for origin in self.origins))
        proxyFilter(self.trustedProxies)
        if self.cookie and not _TOKEN.fullmatch(self.cookie):
            raise ValueError(
                f"cookie is {self.cookie!r}, expected a name of letters, digits and !#$%&'*+-.^_`|~"
            )
        if self.name and not _NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}, expected 1 to 16 characters of a-z, 0-9 and -")
        if self.publicURL:
            object.__setattr__(self, "publicURL", _checkedURL(self.publicURL))
        if not self.transports or not set(self.transports) <= set(TRANSPORTS):
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
            "maxUpload",
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

    def _checkTypes(self) -> None:
        """
        Bring each value to the type of its field.

        :raises TypeError: if a value has another type.
        :raises ValueError: if a number is not whole where it must be, or not finite.
        """
        for each in fields(self):
            value = _converted(each.name, str(each.type), getattr(self, each.name))
            object.__setattr__(self, each.name, value)

    def warnOfTimes(self, names: Iterable[str]) -> None:
        """Warn of long times, at the line of the application."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in names and each.type == "float" and value > _LONG:
                warnings.warn(f"{each.name} is {value!r}: times are in seconds", stacklevel=_callersLevel())

    def _checkPositive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a number above 0")

    def _checkNotNegative(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected 0 or a number above")


def _checkedURL(url: str) -> str:
    """Return a URL of scheme, host and port alone, in the form in which browsers send an origin."""
    with suppress(ValueError):
        normal = normalOrigin(url)
        if normal.startswith(("http://", "https://")):
            return normal
    raise ValueError(f"publicURL is {url!r}, expected a form like 'https://example.org'")


_LONG: Final = 3600
"""Seconds.  A longer time was probably meant in milliseconds, as in JavaScript."""


def _callersLevel() -> int:
    """Count the frames from the caller of this function to the application, for a warning."""
    frame, level = inspect.currentframe(), 0
    while frame and frame.f_globals["__name__"].partition(".")[0] in ("txrealtime", "dataclasses"):
        frame, level = frame.f_back, level + 1
    return level


def _converted(name: str, type: str, value: Any) -> Any:
    """Check a setting's value; make an integer of a whole float, and a tuple of one text or several."""
    if type.startswith("tuple"):
        return _texts(name, value)
    if type in ("int", "float"):
        return _number(name, type, value)
    if type.startswith("str |") and callable(value):
        return value
    if not isinstance(value, bool if type == "bool" else str):
        raise TypeError(f"{name} is {value!r}, expected {'True or False' if type == 'bool' else 'a str'}")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        texts = tuple(value)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise TypeError(f"{name} is {value!r}, expected a str or a list of str")


def _number(name: str, type: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Real):
        raise TypeError(f"{name} is {value!r}, expected a number")
    number: Any = value
    if not -math.inf < number < math.inf:
        return float(number)  # the check of its range refuses it
    if type == "int" and number != int(number):
        raise ValueError(f"{name} is {value!r}, expected a whole number")
    return int(number) if type == "int" or isinstance(number, int) else float(number)
