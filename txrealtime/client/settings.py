"""
The settings of a client.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypedDict

from txrealtime.engineio.settings import setting

__all__ = ["TRANSPORTS", "ClientSettings", "Options"]

TRANSPORTS: Final = ("polling", "websocket")

# Headers that each request of a client has by itself.
_OWN_HEADERS: Final = frozenset(["connection", "content-length", "host", "transfer-encoding", "upgrade"])


class Options(TypedDict, total=False):
    """The fields of :class:`ClientSettings`, as keyword arguments."""

    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    upgrade: bool
    rememberUpgrade: bool
    tryAllTransports: bool
    reconnection: bool
    reconnectionAttempts: int | None
    reconnectionDelay: float
    reconnectionDelayMax: float
    randomizationFactor: float
    timeout: float
    connectTimeout: float
    upgradeTimeout: float
    requestTimeout: float
    closeTimeout: float
    ackTimeout: float | None
    retries: int | None
    maxPayload: int
    maxBuffered: int
    maxAttachments: int
    maxWaiting: int
    perMessageDeflate: bool


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """
    The behaviour of a client.  Times are in seconds, fractions allowed; sizes in bytes.

    :raises ValueError: if a value makes no sense.
    """

    transports: tuple[str, ...] = setting(TRANSPORTS, "the transports, in the order in which they are used")
    path: str = setting("/socket.io/", "the path of Socket.IO on the server")
    headers: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "HTTP headers to send with each request"}
    )
    query: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "fields of the query of each request"}
    )
    upgrade: bool = setting(True, "upgrade from polling to WebSocket, if both are among the transports")
    rememberUpgrade: bool = setting(False, "begin with WebSocket once an upgrade has succeeded")
    tryAllTransports: bool = setting(False, "try the next transport if one fails to open")
    reconnection: bool = setting(True, "connect again by itself")
    reconnectionAttempts: int | None = setting(
        None, "attempts to connect again before the client gives up; None for no limit"
    )
    reconnectionDelay: float = setting(1.0, "seconds before the first attempt to connect again")
    reconnectionDelayMax: float = setting(5.0, "the longest delay between two attempts")
    randomizationFactor: float = setting(0.5, "the random part of a delay, from 0 to 1")
    timeout: float = setting(20.0, "seconds that an attempt to connect may take")
    connectTimeout: float = setting(
        20.0, "seconds that the server may take to admit the client to a namespace"
    )
    upgradeTimeout: float = setting(10.0, "seconds that an upgrade to WebSocket may take")
    requestTimeout: float = setting(30.0, "seconds that a POST may take")
    closeTimeout: float = setting(5.0, "seconds that an orderly close may take")
    ackTimeout: float | None = setting(
        60.0, "seconds that call() waits, and each try with retries; None for no limit"
    )
    retries: int | None = setting(
        None, "times that an event without an ack is sent again; None to send each event once, unacked"
    )
    maxPayload: int = setting(16_000_000, "the largest message or HTTP response accepted from the server")
    maxBuffered: int = setting(4_000_000, "bytes of events that may wait for the connection")
    maxAttachments: int = setting(1000, "the most binary attachments that one packet may have")
    maxWaiting: int = setting(
        1000, "events that may wait for their handlers before reading from the server pauses"
    )
    perMessageDeflate: bool = setting(False, "offer compression of WebSocket messages")

    def __post_init__(self) -> None:
        names = (self.transports,) if isinstance(self.transports, str) else tuple(self.transports)
        object.__setattr__(self, "transports", names)
        if not names or set(names) - set(TRANSPORTS) or len(set(names)) < len(names):
            raise ValueError(f"transports is {self.transports!r}, expected 'polling', 'websocket' or both")
        object.__setattr__(self, "path", "/" + self.path.strip("/") + "/" if self.path.strip("/") else "/")
        self._checkHeaders()
        for name in (
            "timeout",
            "connectTimeout",
            "upgradeTimeout",
            "requestTimeout",
            "closeTimeout",
            "maxPayload",
            "maxWaiting",
        ):
            self._check(name, 0 < getattr(self, name) < math.inf, "a number above 0")
        for name in ("reconnectionDelay", "reconnectionDelayMax", "maxBuffered", "maxAttachments"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "0 or a number above")
        self._check("randomizationFactor", 0 <= self.randomizationFactor <= 1, "a number from 0 to 1")
        for name in ("reconnectionAttempts", "retries"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 0, "0 or a number above, or None")
        self._check("ackTimeout", self.ackTimeout is None or self.ackTimeout > 0, "a number above 0, or None")

    def _check(self, name: str, isGood: bool, expected: str) -> None:
        if not isGood:
            raise ValueError(f"{name} is {getattr(self, name)!r}, expected {expected}")

    def _checkHeaders(self) -> None:
        for name, value in self.headers.items():
            if name.lower() in _OWN_HEADERS:
                raise ValueError(
                    f"headers has {name!r}, which the client writes itself: for Host, put the host into the "
                    "URL and the address into endpoint="
                )
            if not name.isascii() or any(letter in name + value for letter in "\r\n\0"):
                raise ValueError(f"headers has {name!r} with characters that HTTP does not allow")
