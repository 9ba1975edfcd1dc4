"""
Which wire form the servers speak: the URL of the bus tells.

``redis://host?key=chat``
    servers of ours, which is what is meant where no dialect is named; those of another ``key`` are
    another cluster.
``redis://host?dialect=node&key=socket.io``
    Node's servers with ``@socket.io/redis-adapter``; ``key`` is that adapter's.
``redis://host?dialect=python-socketio&channel=flask-socketio``
    python-socketio, and Flask-SocketIO, whose channel by default is that; ``channel`` is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final
from urllib.parse import parse_qsl, urlencode

from txrealtime.cluster.bus.address import Address, splitURL
from txrealtime.cluster.dialects.interfaces import Dialect
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.cluster.dialects.pythonsocketio import PythonSocketIODialect
from txrealtime.socketio.namespaces import Namespaces

__all__ = ["Language"]

# The field of the URL that names a cluster, and what it is by default.
_DIALECTS: Final = {
    "native": ("key", "txrealtime"),
    "node": ("key", "socket.io"),
    "python-socketio": ("channel", "socketio"),
}


@dataclass(frozen=True)
class Language:
    """
    A dialect, and in which cluster it is spoken.

    :ivar dialect: its name.
    :ivar key: what keeps one cluster from another.
    """

    dialect: str = "native"
    key: str = "txrealtime"

    @classmethod
    def fromURL(cls, url: str) -> tuple[Language, str]:
        """
        What the URL of a bus says.

        :return: that, and the URL without it, for :func:`~txrealtime.cluster.bus.url.busFromURL`.
        :raises ValueError: for an unknown dialect, a field that it does not have, or what is no URL.
        """
        bare = url.partition("?")[0]
        fields = dict(parse_qsl(splitURL(url).query, keep_blank_values=True))
        name = fields.pop("dialect", "native")
        if name not in _DIALECTS:
            raise ValueError(f"dialect={name}: expected {', '.join(_DIALECTS)}")
        field, default = _DIALECTS[name]
        for other in ("key", "channel"):
            if other != field and other in fields:
                raise ValueError(f"{other}={fields[other]}: with the dialect {name} it is {field}=")
        key = fields.pop(field, default)
        if not key:
            raise ValueError(f"{field}= is empty: expected a name")
        rest = f"{bare}?{urlencode(fields)}" if fields else bare
        scheme = Address.fromURL(rest).scheme
        if name == "node" and scheme.startswith("amqp"):
            raise ValueError("dialect=node: Node's adapter is for Redis, expected redis://")
        return cls(name, key), rest

    @property
    def fanout(self) -> list[str]:
        """The topics that are fanout exchanges, if the broker is RabbitMQ."""
        return [self.key] if self.dialect == "python-socketio" else []

    def spokenBy(
        self,
        uid: str,
        known: Mapping[str, str] | None = None,
        directory: Namespaces | None = None,
        seconds: Callable[[], float] = monotonic,
    ) -> Dialect:
        """
        The dialect, as one server speaks it.

        :param uid: the server's.
        :param known: the other servers that are there: name by uid.
        :param directory: its namespaces; ``None`` for one that has none.
        :param seconds: the time.
        :raises ValueError: when what the dialect takes is not installed.
        """
        if self.dialect == "native":
            return NativeDialect(uid, self.key, known, seconds)
        if self.dialect == "python-socketio":
            return PythonSocketIODialect(uid, self.key)
        try:
            from txrealtime.cluster.dialects.nodejs import NodeDialect
        except ModuleNotFoundError as error:
            raise ValueError(f"dialect=node: {error}; pip install txrealtime[msgpack]") from None
        return NodeDialect(uid, self.key, directory)
