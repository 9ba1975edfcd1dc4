"""
The choice of a dialect, by the URL of the bus.

``redis://host?key=chat``
    the native dialect, the default; servers with another ``key`` are another cluster.  So it is with
    ``unix:/run/chat.hub?key=chat``.
``redis://host?dialect=node&key=socket.io``
    Node's servers with ``@socket.io/redis-adapter``; ``key`` is that adapter's option.
``redis+streams://host?dialect=node-streams&stream=socket.io&streams=1&key=socket.io&sessions=sio:session:``
    Node's servers with ``@socket.io/redis-streams-adapter``; the fields are that adapter's options
    ``streamName``, ``streamCount``, ``channelPrefix`` and ``sessionKeyPrefix``, with its defaults, and
    ``sharded=true`` is ``useShardedPubSub``.
``redis://host?dialect=python-socketio&channel=flask-socketio``
    python-socketio and Flask-SocketIO; ``channel`` is their option, by default ``flask-socketio`` in
    Flask-SocketIO.
``redis://one,redis://two,redis://three?key=chat``
    several Redis servers, in the native dialect: see :mod:`~txrealtime.cluster.bus.spread`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final
from urllib.parse import parse_qsl, urlencode

from txrealtime.cluster.bus.address import STREAMS, Address, splitURL
from txrealtime.cluster.bus.spread import MARK, MARKS, Spread, splitBuses
from txrealtime.cluster.dialects.interfaces import Dialect
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.cluster.dialects.pythonsocketio import PythonSocketIODialect
from txrealtime.socketio.namespaces import Namespaces

__all__ = ["DialectChoice"]

# For each dialect: the field of the URL that names a cluster, and its default.
_DIALECTS: Final = {
    "native": ("key", "txrealtime"),
    "node": ("key", "socket.io"),
    "node-streams": ("key", "socket.io"),
    "python-socketio": ("channel", "socketio"),
}


@dataclass(frozen=True)
class DialectChoice:
    """
    A dialect and a cluster, as the URL of a bus names them.

    :ivar dialect: the dialect's name.
    :ivar key: the cluster's name: the beginning of its topics, or their channel.
    :ivar spread: the owners of topics, if the URL names several brokers.
    :ivar sessions: the beginning of the keys of sessions in Redis, among Node's servers.
    """

    dialect: str = "native"
    key: str = "txrealtime"
    spread: Spread | None = None
    sessions: str = "sio:session:"

    @classmethod
    def fromURL(cls, url: str) -> tuple[DialectChoice, str]:
        """
        Read the dialect from the URL of a bus.

        :return: the choice, and the rest of the URL for :func:`~txrealtime.cluster.bus.url.busFromURL`.
        :raises ValueError: if the URL is broken, the dialect is unknown, or it has no such field.
        """
        urls = splitBuses(url)
        if len(urls) > 1:
            return cls._ofMany(urls)
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
        sessions = _checkStreams(name, key, STREAMS in bare.partition("://")[0], fields)
        rest = f"{bare}?{urlencode(fields)}" if fields else bare
        scheme = Address.fromURL(rest).scheme
        if name == "node" and scheme.startswith("amqp"):
            raise ValueError("dialect=node: Node's adapter is for Redis, expected redis://")
        return cls(name, key, sessions=sessions), rest

    @classmethod
    def _ofMany(cls, urls: Sequence[str]) -> tuple[DialectChoice, str]:
        """
        Read a list of brokers.  What names the cluster may be at any of them, and counts for all.

        :raises ValueError: if a URL is broken, or these brokers cannot be spread over.
        """
        common: dict[str, str] = {}
        rests: list[str] = []
        marks: dict[str, str] = {}  # by the name of a broker
        for url in urls:
            bare, fields = url.partition("?")[0], dict(parse_qsl(splitURL(url).query, keep_blank_values=True))
            for name in ("dialect", "key", "channel"):
                value = fields.pop(name, None)
                if value is not None and common.setdefault(name, value) != value:
                    raise ValueError(f"{name}={value}: another of the brokers has {name}={common[name]}")
            mark = fields.pop(MARK, "")
            rests.append(f"{bare}?{urlencode(fields)}" if fields else bare)
            address = Address.fromURL(rests[-1])
            if not address.scheme.startswith("redis") or address.isStreams:
                raise ValueError(f"{address.name}: topics are spread over servers of redis:// only")
            if address.name in marks:
                raise ValueError(f"{address.name} is named twice")
            marks[address.name] = mark
        choice, _ = cls.fromURL(f"redis://?{urlencode(common)}")
        if choice.dialect != "native":
            raise ValueError(
                f"dialect={choice.dialect}: its servers know one broker only, and here are {len(urls)}"
            )
        return replace(choice, spread=_spreadOf(marks, choice.key)), ",".join(rests)

    def urlOf(self, bus: str) -> str:
        """Return the URL of a bus, with this choice in its query."""
        field, _ = _DIALECTS[self.dialect]
        return f"{bus}?{urlencode({'dialect': self.dialect, field: self.key})}"

    @property
    def fanout(self) -> list[str]:
        """The topics that are fanout exchanges, if the broker is RabbitMQ."""
        return [self.key] if self.dialect == "python-socketio" else []

    def create(
        self,
        uid: str,
        known: Mapping[str, str] | None = None,
        namespaces: Namespaces | None = None,
        seconds: Callable[[], float] = monotonic,
    ) -> Dialect:
        """
        Make the dialect for one server.

        :param uid: the server's name among servers.
        :param known: the peer servers: name by uid.
        :param namespaces: the server's namespaces; ``None`` for an emitter.
        :param seconds: returns the time.
        :raises ValueError: if a library that the dialect needs is not installed.
        """
        if self.dialect == "native":
            return NativeDialect(
                uid, self.key, known, seconds, numbered=namespaces is not None, spread=self.spread
            )
        if self.dialect == "python-socketio":
            return PythonSocketIODialect(uid, self.key)
        try:
            if self.dialect == "node-streams":
                from txrealtime.cluster.dialects.nodestreams import EMITTER, NodeStreamsDialect

                name = EMITTER if namespaces is None else uid
                return NodeStreamsDialect(name, self.key, namespaces, self.sessions)
            from txrealtime.cluster.dialects.nodejs import NodeDialect
        except ModuleNotFoundError as error:
            raise ValueError(f"dialect={self.dialect}: {error}; pip install txrealtime[msgpack]") from None
        return NodeDialect(uid, self.key, namespaces)


def _spreadOf(marks: Mapping[str, str], key: str) -> Spread:
    """
    Return the owners of topics among brokers, from the marks by the brokers' names.

    :raises ValueError: if a mark is unknown, or they make no list.
    """
    marked = [name for name, mark in marks.items() if mark]
    kinds = set(marks.values()) - {""}
    if unknown := kinds - set(MARKS):
        raise ValueError(f"{MARK}={min(unknown)}: expected {' or '.join(MARKS)}")
    if len(kinds) > 1:
        raise ValueError(f"{MARK}= differs between the brokers: one step at a time, on all of them")
    if len(marked) == len(marks):
        raise ValueError(f"{MARK}= is at all brokers: it is for those that are added or taken away")
    return Spread(list(marks), key, marked, "".join(kinds))


def _checkStreams(name: str, key: str, isStreams: bool, fields: dict[str, str]) -> str:
    """
    Complete the fields of a URL for streams.

    :param isStreams: true if the scheme has streams.
    :return: the beginning of the keys of sessions.
    :raises ValueError: if the dialect and the scheme do not go together.
    """
    if "entries" in fields:
        raise ValueError(f"entries={fields['entries']}: choose the form of the entries by dialect=")
    sessions = DialectChoice.sessions
    if name == "node-streams":
        if not isStreams:
            raise ValueError("dialect=node-streams: its servers read streams, expected redis+streams://")
        if key.startswith("/"):
            raise ValueError(f"key={key}: expected a name that does not begin like a namespace")
        sessions = fields.pop("sessions", sessions)
        fields.setdefault("stream", "socket.io")
        fields["entries"] = "node"
    elif isStreams:
        if name != "native":
            raise ValueError(f"dialect={name}: its servers do not read streams, expected redis://")
        fields.setdefault("stream", f"{key}:stream")
    return sessions
