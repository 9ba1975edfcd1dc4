"""
The namespaces of a server: those mounted at a path, and those made for a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogLevel

from txrealtime.engineio.admission import isRefusal
from txrealtime.engineio.pace import Pace
from txrealtime.errors import ConnectionRejected
from txrealtime.logs import Logger
from txrealtime.socketio.counts import OTHER, TalkCounts
from txrealtime.socketio.handler import Handler, asTask
from txrealtime.socketio.hooks import Hooks
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.overrides import checkClass, checkInstance
from txrealtime.socketio.packet import IParser, ackEncoder
from txrealtime.socketio.parking import Parking
from txrealtime.socketio.peers import Peers
from txrealtime.socketio.recovery import Recovery
from txrealtime.socketio.settings import Settings
from txrealtime.socketio.sockets import Socket

__all__ = ["Namespaces", "invalidNamespace"]

_log = Logger()

_MOST_NAMED = 10
"""Namespaces that a line of the log names."""

Predicate = Callable[[str, Any], bool | Awaitable[bool]]
Where = str | re.Pattern[str] | Predicate
Factory = Callable[[], Namespace]


def invalidNamespace(path: str, known: Iterable[str]) -> ConnectionRejected:
    """
    Make the refusal of a client that asks for a namespace that nobody has made, and log it.

    :param known: the paths of the namespaces that exist.
    """
    names = sorted(known)
    _log.limited(
        "",
        LogLevel.info,
        "a client asked for the namespace {path!r}, which does not exist; clients can join {known}",
        path=path[:100],
        known=", ".join(map(repr, names[:_MOST_NAMED])) + (", ..." if names[_MOST_NAMED:] else "")
        or "no namespace",
    )
    return ConnectionRejected("Invalid namespace")


class Namespaces:
    """
    The namespaces of a server, by path.

    A namespace made for a pattern lives while a socket is in it.

    :ivar peers: the other servers, or ``None`` without a cluster; see :meth:`meet`.
    :ivar hooks: the hooks of the server.
    :ivar clientOf: describes a socket's client to the admin UI of Node's servers; ``None`` without an admin.
    :ivar counts: the counts of all namespaces.
    :ivar pace: the pace at which clients are let in; ``None`` without an engine.
    :ivar encodeAck: encodes acks as the parser does.
    :ivar idPrefix: the beginning of the ids of sockets, where the server may choose them.
    :ivar joining: ``None`` as a rule; while other servers do not know of all joins, another object with each
        join.
    """

    peers: Peers | None = None
    idPrefix = ""
    recoveryClass: type[Recovery] = Recovery

    def __init__(self, parser: IParser, reactor: IReactorTime | None = None) -> None:
        # No class attribute: each event reads it twice, and an instance's is read faster.
        self.joining: object = None
        if reactor is not None:
            self.reactor = reactor
        self._namespaces: dict[str, Namespace] = {}
        self._patterns: list[tuple[re.Pattern[str] | Predicate, Factory]] = []
        self._made: set[str] = set()
        self.useParser(parser)
        self.parking: Parking | None = None
        self.counts = TalkCounts()
        self.hooks = Hooks()
        self.pace: Pace | None = None
        self.clientOf: Callable[[Socket], dict[str, Any]] | None = None
        self.watch: Callable[[Namespace, bool], object] | None = None

    @cached_property
    def reactor(self) -> IReactorTime:
        """The clock: by default the installed reactor, looked up on first use."""
        from twisted.internet import reactor

        return IReactorTime(reactor)

    def __iter__(self) -> Iterator[Namespace]:
        return iter(list(self._namespaces.values()))

    def useParser(self, parser: IParser) -> None:
        """Encode and decode by a parser, from now on and before any client is here."""
        self.parser = parser
        self.encodeAck = ackEncoder(parser)
        for namespace in self:
            namespace._useParser()

    def meet(self, peers: Peers, idPrefix: str) -> None:
        """
        Take part in a cluster from now on.

        :param idPrefix: the beginning of the ids of this server's sockets, by which other servers know them.
        """
        self.peers, self.idPrefix = peers, idPrefix
        for namespace in self:
            namespace._meet(peers)

    def recover(self, settings: Settings) -> None:
        """Let clients come back from now on, if the settings say so."""
        if settings.recoveryWindow:
            self.parking = Parking(settings, self.reactor, self.parser, self.counts.recoveries)
            for namespace in self:
                namespace._recovery = self.recoveryClass(namespace, self.parking)

    def recoverBy(self, recoveryClass: type[Recovery]) -> None:
        """Let clients come back by another class of recovery, before any client is here."""
        self.recoveryClass = recoveryClass
        if self.parking is not None:
            for namespace in self:
                if type(namespace._recovery) is not recoveryClass:
                    namespace._recovery = recoveryClass(namespace, self.parking)

    def nobodyComesBack(self) -> None:
        """Called when the server has stopped."""
        if self.parking is not None:
            self.parking.close()
        for namespace in self:
            if namespace._history is not None:
                namespace._history.clear()

    def find(self, path: str) -> Namespace | None:
        """Find the namespace at a path, or ``None``."""
        return self._namespaces.get(path)

    def get(self, path: str) -> Namespace:
        """
        Get the namespace at a path.  If none exists, make it.

        :raises ValueError: if no namespace can be at the path.
        """
        path = _checkedPath(path)
        found = self._namespaces.get(path)
        # Not by its truth: a class of the application may have __len__(), and be empty.
        return self._put(path, Namespace()) if found is None else found

    def mount(self, where: Where, what: Namespace | Factory) -> None:
        """
        Put a namespace at a path, or a factory at a pattern.

        :param where: a path; a compiled pattern that matches paths in full; or a predicate ``f(path, auth)``,
            which may be ``async``.
        :param what: the namespace; for a pattern or predicate, a class or another factory of namespaces.
        :raises ValueError: if the path is taken, or no namespace can be there.
        :raises TypeError: if the two do not go together; if the predicate does not take two arguments; or if
            the namespace's class is refused, as :func:`~txrealtime.socketio.overrides.checkClass` says.
        """
        if isinstance(where, str):
            if not isinstance(what, Namespace):
                raise TypeError(f"a Namespace is mounted at a path, not {what!r}; did you mean {what!r}()?")
            path = _checkedPath(where)
            if path in self._namespaces:
                raise ValueError(f"there is a namespace at {path} already")
            self._put(path, what)
        elif not isinstance(where, re.Pattern) and not callable(where):
            raise TypeError(
                f"a namespace is mounted at a path, a compiled pattern or a predicate, not {where!r}"
            )
        elif isinstance(what, Namespace) or not callable(what):
            raise TypeError(f"a class of namespaces, or a factory, is mounted at a pattern, not {what!r}")
        else:
            if not isinstance(where, re.Pattern):
                Handler(where, given=2, atMost=2)
            if isinstance(what, type) and issubclass(what, Namespace):
                checkClass(what)
            self._patterns.append((where, what))

    def isMade(self, namespace: Namespace) -> bool:
        """Return whether a namespace was made for a pattern, at a path that a client chose."""
        return namespace.path in self._made

    def watchedBy(self, watch: Callable[[Namespace, bool], object]) -> None:
        """Tell a function of each namespace, present and future, and whether a client chose its path."""
        self.watch = watch
        for namespace in self:
            watch(namespace, self.isMade(namespace))

    def _put(self, path: str, namespace: Namespace, made: bool = False) -> Namespace:
        if not isinstance(namespace, Namespace):
            raise TypeError(f"the factory mounted for {path} made {namespace!r}, which is no Namespace")
        if "_home" in vars(namespace):
            raise ValueError(f"this namespace is mounted at {namespace.path} already")
        checkClass(type(namespace))
        checkInstance(namespace)
        namespace._sent = self.counts.sentIn(OTHER if made else path)
        namespace._bind(path, self)
        self._namespaces[path] = namespace
        if self.watch is not None:
            self.watch(namespace, made)
        return namespace

    async def open(self, path: str, auth: Any) -> Namespace:
        """
        Get the namespace that a client asks for.  If none exists and a pattern matches, make it.

        :raises ConnectionRejected: if there is none.
        """
        namespace = self._namespaces.get(path)
        if namespace is not None:
            return namespace
        for pattern, factory in self._patterns:
            if await _matches(pattern, path, auth):
                # Another client may have asked for it while the predicate took its time.
                if path not in self._namespaces:
                    self._put(path, factory(), made=True)
                    self._made.add(path)
                return self._namespaces[path]
        if path == "/":  # the default namespace always exists
            return self.get(path)
        raise invalidNamespace(path, self._namespaces)

    def socketGone(self, namespace: Namespace) -> None:
        """Called when a socket has left a namespace, or was refused."""
        recovery = namespace._recovery
        mayComeBack = recovery is not None and not recovery.isEmpty
        if namespace.path in self._made and namespace.rooms.isEmpty and not mayComeBack:
            self._made.discard(namespace.path)
            del self._namespaces[namespace.path]
            if namespace._history is not None:
                namespace._history.clear()
            if self.peers is not None:
                self.peers.unmounted(namespace)


async def _matches(pattern: re.Pattern[str] | Predicate, path: str, auth: Any) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(path) is not None
    answer = asTask(pattern(path, auth))
    if isinstance(answer, Awaitable):
        answer = await answer
    return not isRefusal(answer) and bool(answer)


def _checkedPath(path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"a namespace's path is a str, such as '/chat', not {path!r}")
    if not path.startswith("/") or "," in path:
        raise ValueError(f"a namespace's path looks like '/chat', without a comma, not {path!r}")
    return path
