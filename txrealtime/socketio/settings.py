"""
The settings of a server, and their names as keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Final, TypedDict

from txrealtime.engineio import settings as engineio
from txrealtime.engineio.settings import setting
from txrealtime.socketio.handshake import Handshake

__all__ = ["Options", "Settings", "makeSettings"]


@dataclass(frozen=True, kw_only=True)
class Settings(engineio.Settings):
    """All settings of a server: those of Engine.IO, and those of Socket.IO."""

    client: str = setting(
        "auto",
        "the JavaScript client to hand out below the path, as socket.io.js and so on: auto for the one in "
        "node_modules or of txrealtime client fetch, a folder of the npm package socket.io-client, or off",
    )
    connectTimeout: float = setting(45.0, "seconds that a client may stay without joining a namespace")
    maxNamespaces: int = setting(100, "namespaces that one client may be in at a time")
    maxRooms: int = setting(10_000, "rooms that one socket may be in at a time")
    maxAttachments: int = setting(10, "the most binary attachments that one packet may have")
    maxWaiting: int = setting(
        100, "events of one client that may wait for their handlers before reading from it pauses"
    )
    drain: float = setting(
        0.0,
        "seconds over which a stopping server lets its clients go, in random order; 0 for all at once",
    )
    drainDelay: float = setting(
        0.0,
        "seconds in which a stopping server only fails its health checks, before it lets clients go",
    )
    drainTimeout: float = setting(
        5.0, "seconds that a client has to take what is left for it when it is let go"
    )
    disconnectOnStop: bool = setting(
        False, "send DISCONNECT when the server stops, so that clients do not connect again by themselves"
    )

    recoveryWindow: float = setting(
        0.0,
        "seconds in which a client that lost its connection may come back and get what it missed; 0 for off",
    )
    recovery: str | Callable[[Handshake], bool] = field(
        default="auto",
        metadata={
            "help": "the clients that may: auto for those known to bear it and those that ask for it, all "
            "for every client of protocol 5"
        },
    )
    recoverySessions: int = setting(10_000, "the most clients that may be away at a time")
    recoveryEvents: int = setting(100_000, "the most events that are kept for clients that come back")
    recoveryBytes: int = setting(32_000_000, "bytes of memory for the events that are kept")
    recoveryAddress: bool = setting(False, "let a client come back only from the address that it had")
    recoveryUnasked: bool = setting(False, "let clients come back without asking the application again")
    recoveryAway: bool = setting(
        False, "tell the application that a client has gone only when it can no longer come back"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._checkPositive("connectTimeout", "maxNamespaces", "maxWaiting", "drainTimeout")
        self._checkPositive("recoverySessions", "recoveryEvents", "recoveryBytes")
        self._checkNotNegative("maxAttachments", "maxRooms", "recoveryWindow", "drain", "drainDelay")
        if not callable(self.recovery) and self.recovery not in ("auto", "all"):
            raise ValueError(f"recovery is {self.recovery!r}, expected 'auto', 'all' or a function")


class Options(TypedDict, total=False):
    """The fields of :class:`Settings` as keyword arguments, for type checkers and editors."""

    pingInterval: float
    pingTimeout: float
    upgradeTimeout: float
    closeTimeout: float
    handshakeTimeout: float
    requestTimeout: float
    maxConnections: int
    maxConnectionsPerAddress: int
    maxHeaderSize: int
    maxPayload: int
    maxUpload: int
    maxBuffered: int
    maxFragments: int
    maxMessageRate: int
    maxByteRate: int
    transports: str | Iterable[str]
    allowUpgrades: bool
    allowEIO3: bool
    origins: str | Iterable[str]
    trustedProxies: str | Iterable[str]
    publicURL: str
    cookie: str
    name: str
    compressionThreshold: int
    perMessageDeflate: bool
    shortWays: bool
    client: str
    connectTimeout: float
    maxNamespaces: int
    maxRooms: int
    maxAttachments: int
    maxWaiting: int
    drain: float
    drainDelay: float
    drainTimeout: float
    disconnectOnStop: bool
    recoveryWindow: float
    recovery: str | Callable[[Handshake], bool]
    recoverySessions: int
    recoveryEvents: int
    recoveryBytes: int
    recoveryAddress: bool
    recoveryUnasked: bool
    recoveryAway: bool


_FOREIGN: Final = {
    "corsallowedorigins": "pass origins, such as origins=['https://example.org']",
    "cors": "pass origins, such as origins=['https://example.org']",
    "corsorigins": "pass origins, such as origins=['https://example.org']",
    "corscredentials": "leave it out: an origin in origins may send credentials",
    "maxhttpbuffersize": "pass maxPayload (in bytes)",
    "maxbuffersize": "pass maxPayload (in bytes)",
    "httpcompression": "pass compressionThreshold (in bytes), 0 to compress nothing",
    "websocketcompression": "pass perMessageDeflate",
    "connectionstaterecovery": "pass recoveryWindow (in seconds)",
    "adapter": "pass bus, such as bus='redis://localhost'",
    "clientmanager": "pass bus, such as bus='redis://localhost'",
    "messagequeue": "pass bus, such as bus='redis://localhost'",
    "json": "pass parser, an object that provides IParser",
    "serializer": "pass parser, an object that provides IParser",
    "socketiopath": "pass path",
    "resource": "pass path",
    "addtrailingslash": "leave it out: the path is served with and without a slash at its end",
    "serveclient": "pass client, such as client='off' to hand out no JavaScript client",
    "logger": "leave it out: the server logs by twisted.logger",
    "engineiologger": "leave it out: the server logs by twisted.logger",
    "asyncmode": "leave it out: the server runs on Twisted's reactor",
    "asynchandlers": "leave it out: pass concurrency to Namespace()",
    "alwaysconnect": "leave it out: a client is in a namespace when connected() has admitted it",
    "namespaces": "leave it out: call server.namespace(path) or server.mount(path, namespace)",
    "cleanupemptychildnamespaces": "leave it out: a namespace made for a pattern goes with its last client",
    "monitorclients": "leave it out: heartbeats are always watched",
    "wsengine": "leave it out: there is one implementation of WebSocket",
    "destroyupgrade": "leave it out: other paths of the site are not touched",
    "destroyupgradetimeout": "leave it out: other paths of the site are not touched",
    "initialpacket": "leave it out: emit to the socket in connected()",
    "host": "leave it out: listen with server.site() on an endpoint, or run twistd realtime --listen",
    "port": "leave it out: listen with server.site() on an endpoint, or run twistd realtime --listen",
}
"""The right way for options of other servers, whose names stand without underscores and in lower case."""


def makeSettings(present: Settings | None, options: Options, others: Collection[str] = ()) -> Settings:
    """
    Make settings of keyword arguments.

    :param present: settings to take all others from; ``None`` for the defaults.
    :param others: names of arguments that are no settings, to suggest them as well.
    :raises TypeError: if an option is no setting.  The message says which option to use.
    """
    known = Options.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(f"unknown option {name!r}: {_advice(name, [*known, *others])}")
    values: Any = options
    settings = Settings(**values) if present is None else replace(present, **values)
    # Not of a present value, which has been warned of.
    settings.warnOfTimes(options)
    return settings


def _advice(name: str, known: Collection[str]) -> str:
    plain = name.replace("_", "").lower()
    for ours in known:
        if ours.lower() == plain:
            return f"pass {ours} (in seconds)" if ours.endswith(("Timeout", "Interval")) else f"pass {ours}"
    if plain in _FOREIGN:
        return _FOREIGN[plain]
    near = get_close_matches(name, known, 1) or get_close_matches(plain, [each.lower() for each in known], 1)
    if near:
        ours = next(each for each in known if each.lower() == near[0].lower())
        return f"did you mean {ours}?"
    return "see txrealtime.Settings for all options"
