"""
The options of Flask-SocketIO's servers, as settings of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from txrealtime.flask.names import busURL
from txrealtime.server import Settings
from txrealtime.socketio.packet import IParser, JSONParser

__all__ = ["Configuration", "configured"]

_POINTLESS: Final = {
    "logger",
    "engineio_logger",
    "monitor_clients",
    "cors_credentials",
    "async_mode",
    "host_id",
    "websocket_compression",
}
"""Options that tune another server's workings, and have nothing to tune here."""


@dataclass
class Configuration:
    """
    What the options of one :class:`SocketIO` mean.

    :ivar settings: fields of :class:`~txrealtime.server.Settings`.
    :ivar queue: the URL of what connects servers, and ``channel`` the name of theirs there.
    :ivar json: a module whose ``dumps`` knows more types.
    :ivar ignored: names of the options that mean nothing here.
    """

    path: str = "/socket.io"
    settings: dict[str, Any] = field(default_factory=dict)
    parser: Callable[[], IParser] = JSONParser
    manageSession: bool = True
    asyncHandlers: bool = True
    alwaysConnect: bool = False
    namespaces: frozenset[str] = frozenset("/")
    threads: int = 64
    json: Any = None
    queue: str | None = None
    channel: str = "flask-socketio"
    ignored: list[str] = field(default_factory=list)

    @property
    def bus(self) -> str | None:
        """The URL of the servers' bus."""
        return busURL(self.queue, self.channel) if self.queue else None


def configured(options: dict[str, Any]) -> Configuration:
    """
    Read the options of a :class:`SocketIO`.

    :raises TypeError: for one that Flask-SocketIO does not have either.
    :raises ValueError: for a value that makes no sense.
    """
    result = Configuration()
    for name, value in options.items():
        if name in _READERS:
            _READERS[name](result, value)
        elif name in _POINTLESS:
            if value not in (None, False, "threading") or name == "monitor_clients":
                result.ignored.append(name)
        else:
            raise TypeError(
                f"SocketIO() has no option {name!r}: expected one of Flask-SocketIO's, "
                "or a field of txrealtime.Settings"
            )
    if options.get("http_compression") is False:
        result.settings["compressionThreshold"] = 0
    return result


def _as(setting: str) -> Callable[[Configuration, Any], None]:
    """Reads what is a setting as it is, of this name."""

    def read(result: Configuration, value: Any) -> None:
        result.settings[setting] = value

    return read


def _path(result: Configuration, value: Any) -> None:
    if value:
        result.path = "/" + str(value).strip("/")


def _manageSession(result: Configuration, value: Any) -> None:
    result.manageSession = bool(value)


def _asyncHandlers(result: Configuration, value: Any) -> None:
    result.asyncHandlers = bool(value)


def _alwaysConnect(result: Configuration, value: Any) -> None:
    result.alwaysConnect = bool(value)


def _namespaces(result: Configuration, value: Any) -> None:
    result.namespaces = frozenset([value] if isinstance(value, str) else value or ["/"])


def _threads(result: Configuration, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"handler_threads is {value!r}, expected a number above 0")
    result.threads = value


def _pingInterval(result: Configuration, value: Any) -> None:
    # A pair is the interval and a grace period, which a client is to wait longer.
    interval, grace = value if isinstance(value, (tuple, list)) else (value, 0)
    result.settings["pingInterval"] = interval + grace


def _origins(result: Configuration, value: Any) -> None:
    if callable(value):
        raise ValueError(
            "cors_allowed_origins is a function, expected origins: a list of texts, or '*' for any; "
            "what a function would check, a connect handler can, by request.origin"
        )
    if value is None:
        return
    origins = (value,) if isinstance(value, str) else tuple(value)
    # An empty list turns Flask-SocketIO's own check off.
    result.settings["origins"] = origins or ("*",)


def _transports(result: Configuration, value: Any) -> None:
    if value is not None:
        result.settings["transports"] = (value,) if isinstance(value, str) else tuple(value)


def _cookie(result: Configuration, value: Any) -> None:
    if isinstance(value, dict):
        if set(value) - {"name"}:
            result.ignored.append("cookie (all but its name)")
        value = value.get("name", "io")
    if value:
        result.settings["cookie"] = value


def _serializer(result: Configuration, value: Any) -> None:
    if value in (None, "default"):
        return
    if value != "msgpack":
        raise ValueError(f"serializer is {value!r}, expected 'default' or 'msgpack'")
    from txrealtime.socketio.msgpack import MsgpackParser

    result.parser = MsgpackParser


def _compression(result: Configuration, value: Any) -> None:
    """Read after all others."""


def _compressionThreshold(result: Configuration, value: Any) -> None:
    # 0 stands for everything there, and for nothing here.
    result.settings["compressionThreshold"] = 1 if value == 0 else value


def _queue(result: Configuration, value: Any) -> None:
    result.queue = value


def _channel(result: Configuration, value: Any) -> None:
    result.channel = value or result.channel


def _clientManager(result: Configuration, value: Any) -> None:
    if value is not None:
        raise ValueError("client_manager takes objects of python-socketio: give message_queue, a URL")


def _json(result: Configuration, value: Any) -> None:
    result.json = value


# Of two options that have one name, Flask-SocketIO's counts.
_READERS: Final[dict[str, Callable[[Configuration, Any], None]]] = {
    **{setting.name: _as(setting.name) for setting in fields(Settings)},
    "ping_timeout": _as("pingTimeout"),
    "max_http_buffer_size": _as("maxPayload"),
    "allow_upgrades": _as("allowUpgrades"),
    "compression_threshold": _compressionThreshold,
    "path": _path,
    "resource": _path,
    "manage_session": _manageSession,
    "async_handlers": _asyncHandlers,
    "always_connect": _alwaysConnect,
    "namespaces": _namespaces,
    "handler_threads": _threads,
    "ping_interval": _pingInterval,
    "cors_allowed_origins": _origins,
    "transports": _transports,
    "cookie": _cookie,
    "serializer": _serializer,
    "http_compression": _compression,
    "message_queue": _queue,
    "client_manager": _clientManager,
    "channel": _channel,
    "json": _json,
}


def warning(where: str, ignored: Iterable[str]) -> str:
    """What is said of options that mean nothing here."""
    names = ", ".join(sorted(ignored))
    return f"{where}: these options belong to other servers and change nothing here: {names}"
