"""
The options of Flask-SocketIO's servers, translated to settings of this server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from logging import Logger
from typing import Any, Final

from txrealtime.flask.eventlog import loggerOf
from txrealtime.flask.names import busURL
from txrealtime.server import Settings
from txrealtime.socketio.packet import IParser, JSONParser

__all__ = ["Configuration", "configured"]

_POINTLESS: Final = {
    "monitor_clients",
    "cors_credentials",
    "async_mode",
    "host_id",
    "websocket_compression",
}
"""Options whose usual values need no warning, although they change nothing here."""


@dataclass
class Configuration:
    """
    The meaning of the options of one :class:`SocketIO`.

    :ivar settings: fields of :class:`~txrealtime.server.Settings`.
    :ivar queue: the URL of the message queue that connects servers.
    :ivar channel: the servers' name in the queue.
    :ivar json: a module whose ``dumps`` knows more types.
    :ivar eventLog: the logger of events, if ``logger`` asks for one.
    :ivar packetLog: the logger of packets, if ``engineio_logger`` asks for one.
    :ivar histories: the limits of the namespaces that keep history, by path.
    :ivar ignored: the names of options that change nothing here.
    :ivar asksOrigin: the function that decides which origins are allowed, if there is one.
    :ivar strangeOrigins: allowed origins that no browser sends.
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
    eventLog: Logger | None = None
    packetLog: Logger | None = None
    histories: dict[str, dict[str, Any]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    asksOrigin: Callable[..., object] | None = None
    strangeOrigins: list[str] = field(default_factory=list)

    @property
    def bus(self) -> str | None:
        """Return the URL of the servers' bus, if they have one."""
        return busURL(self.queue, self.channel) if self.queue else None


def configured(options: dict[str, Any]) -> Configuration:
    """
    Read the options of a :class:`SocketIO`.

    An unknown option is ignored, as in Flask-SocketIO, and listed in :attr:`Configuration.ignored`.

    :raises ValueError: if a value makes no sense.
    """
    result = Configuration()
    for name, value in options.items():
        if name in _READERS:
            _READERS[name](result, value)
        elif name in _POINTLESS:
            if value not in (None, False, "threading") or name == "monitor_clients":
                result.ignored.append(name)
        else:
            result.ignored.append(name)
    if options.get("http_compression") is False:
        result.settings["compressionThreshold"] = 0
    return result


def _as(setting: str) -> Callable[[Configuration, Any], None]:
    """Return a reader of an option that is a setting."""
    kind = _NUMBERS.get(setting)

    def read(result: Configuration, value: Any) -> None:
        result.settings[setting] = value if kind is None else _number(setting, value, kind)

    return read


def _number(name: str, value: Any, kind: type[int | float]) -> int | float:
    """
    Read a number, which applications may take from the environment, as a string, or write as ``1e8``.

    :raises ValueError: if the value is no number, or no finite one.
    """
    try:
        number = float(value)
        return number if kind is float else int(value if isinstance(value, int) else number)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {value!r}, expected a number") from None


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
    result.threads = int(_number("handler_threads", value, int))
    if result.threads < 1:
        raise ValueError(f"handler_threads is {value!r}, expected a number above 0")


def _pingInterval(result: Configuration, value: Any) -> None:
    # Of a pair, the second is a grace period, by which clients wait longer.
    given = value if isinstance(value, (tuple, list)) else (value,)
    result.settings["pingInterval"] = sum(_number("ping_interval", each, float) for each in given)


def _origins(result: Configuration, value: Any) -> None:
    if callable(value):
        result.asksOrigin = value
        return
    if value is None or value is True:
        return
    isOne = isinstance(value, str) or (value and not isinstance(value, Iterable))
    origins = [value] if isOne else list(value or ())
    if not origins:
        # An empty list turns Flask-SocketIO's own check off.
        result.settings["origins"] = ("*",)
        return
    result.settings["origins"] = tuple(origin for origin in origins if _isOrigin(origin))
    result.strangeOrigins += [repr(origin) for origin in origins if origin and not _isOrigin(origin)]


def _isOrigin(value: Any) -> bool:
    """Tell if a value is an origin that a browser may send, or ``*``."""
    try:
        Settings(origins=(value,))
    except (AttributeError, TypeError, ValueError):
        return False
    return True


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
    """Leave it to :func:`configured`: the order of the options must not matter."""


def _compressionThreshold(result: Configuration, value: Any) -> None:
    # 0 compresses everything there, and nothing here.
    value = _number("compression_threshold", value, int)
    result.settings["compressionThreshold"] = 1 if value == 0 else value


def _queue(result: Configuration, value: Any) -> None:
    result.queue = value


def _channel(result: Configuration, value: Any) -> None:
    result.channel = value or result.channel


def _logger(result: Configuration, value: Any) -> None:
    result.eventLog = loggerOf(value, "txrealtime.flask.events")


def _engineLogger(result: Configuration, value: Any) -> None:
    result.packetLog = loggerOf(value, "txrealtime.flask.packets")


def _clientManager(result: Configuration, value: Any) -> None:
    if value is not None:
        raise ValueError("client_manager takes objects of python-socketio: give message_queue, a URL")


def _json(result: Configuration, value: Any) -> None:
    result.json = value


_NUMBERS: Final[dict[str, type[int | float]]] = {
    setting.name: int if setting.type == "int" else float
    for setting in fields(Settings)
    if setting.type in ("int", "float")
}
"""The settings that are numbers."""

# If an option has the name of a setting, Flask-SocketIO's meaning counts.
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
    "logger": _logger,
    "engineio_logger": _engineLogger,
    "json": _json,
}


def warning(where: str, ignored: Iterable[str]) -> str:
    """Return the warning about options that change nothing here."""
    names = ", ".join(sorted(ignored))
    return f"{where}: these options are unknown here, or belong to other servers, and change nothing: {names}"


def warningOfOrigins(origins: Iterable[str]) -> str:
    """Return the warning about origins that match nothing, as in Flask-SocketIO."""
    return (
        f"cors_allowed_origins: no browser sends {', '.join(origins)} as an origin, so it matches nothing; "
        "expected 'https://example.org', a list of such strings, or '*'"
    )
