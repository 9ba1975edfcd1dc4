"""
Which namespace is at which path: those that were mounted, and those that come by pattern.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import cached_property
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from txrealtime.engineio import packet as engineio
from txrealtime.errors import ConnectionRejected
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.packet import IParser, Packet
from txrealtime.socketio.peers import Peers

__all__ = ["Directory"]

_MESSAGE: Final = engineio.PacketType.MESSAGE

Predicate = Callable[[str, Any], bool | Awaitable[bool]]
Where = str | re.Pattern[str] | Predicate
Factory = Callable[[], Namespace]


class Directory:
    """
    The namespaces of a server.

    A namespace made for a pattern lives while somebody is in it.

    :ivar peers: the other servers, if there may be some; see :meth:`meet`.
    :ivar idPrefix: what the ids of its sockets begin with, where they may be chosen.
    """

    peers: Peers | None = None
    idPrefix = ""

    def __init__(self, parser: IParser, reactor: IReactorTime | None = None) -> None:
        self.parser = parser
        if reactor is not None:
            self.reactor = reactor
        self._namespaces: dict[str, Namespace] = {}
        self._patterns: list[tuple[re.Pattern[str] | Predicate, Factory]] = []
        self._made: set[str] = set()

    @cached_property
    def reactor(self) -> IReactorTime:
        """The clock: the installed reactor, looked up when it is first needed."""
        from twisted.internet import reactor

        return IReactorTime(reactor)

    def __iter__(self) -> Iterator[Namespace]:
        return iter(list(self._namespaces.values()))

    def meet(self, peers: Peers, idPrefix: str) -> None:
        """There may be other servers from now on, which know sockets of ours by how their ids begin."""
        self.peers, self.idPrefix = peers, idPrefix
        for namespace in self:
            namespace.meet(peers)

    def find(self, path: str) -> Namespace | None:
        """The namespace at a path, if there is one."""
        return self._namespaces.get(path)

    def get(self, path: str) -> Namespace:
        """
        The namespace at a path, made if there is none yet.

        :raises ValueError: for a path that cannot be one.
        """
        path = _checkedPath(path)
        return self._namespaces.get(path) or self._put(path, Namespace())

    def mount(self, where: Where, what: Namespace | Factory) -> None:
        """
        Put a namespace at a path, or have one made for each path that a client asks for
        and a pattern matches in full.

        :param where: a path; a compiled pattern; or a predicate ``f(path, auth)``, which
            may be ``async``.
        :param what: the namespace; for a pattern or predicate, what makes one.
        :raises ValueError: for a path that is taken, or cannot be one.
        :raises TypeError: when the two do not go together.
        """
        if isinstance(where, str):
            if not isinstance(what, Namespace):
                raise TypeError(f"at a path goes a Namespace, not {what!r}; did you mean {what!r}()?")
            path = _checkedPath(where)
            if path in self._namespaces:
                raise ValueError(f"there is a namespace at {path} already")
            self._put(path, what)
        elif not isinstance(where, re.Pattern) and not callable(where):
            raise TypeError(
                f"a namespace is mounted at a path, a compiled pattern or a predicate, not {where!r}"
            )
        elif isinstance(what, Namespace) or not callable(what):
            raise TypeError(f"for a pattern goes what makes a Namespace, such as its class, not {what!r}")
        else:
            self._patterns.append((where, what))

    def _put(self, path: str, namespace: Namespace) -> Namespace:
        namespace.bind(path, self)
        self._namespaces[path] = namespace
        return namespace

    async def open(self, path: str, auth: Any) -> Namespace:
        """
        The namespace that a client asks for, made if a pattern matches.

        :raises ConnectionRejected: when there is none.
        """
        namespace = self._namespaces.get(path)
        if namespace is not None:
            return namespace
        for pattern, factory in self._patterns:
            if await _matches(pattern, path, auth):
                # Another client may have asked for it while the predicate took its time.
                if path not in self._namespaces:
                    self._put(path, factory())
                    self._made.add(path)
                return self._namespaces[path]
        if path == "/":  # there always is one
            return self.get(path)
        raise ConnectionRejected("Invalid namespace")

    def encode(self, packet: Packet) -> list[engineio.Packet]:
        """The messages of a packet, ready for any number of clients."""
        parts = self.parser.encode(packet)
        if len(parts) == 1:
            return [engineio.Packet(_MESSAGE, parts[0])]
        return [engineio.message(part) for part in parts]

    def socketGone(self, namespace: Namespace) -> None:
        """A socket has left a namespace, or was not let in."""
        if namespace.path in self._made and namespace.rooms.isEmpty:
            self._made.discard(namespace.path)
            del self._namespaces[namespace.path]
            if self.peers is not None:
                self.peers.unmounted(namespace)


async def _matches(pattern: re.Pattern[str] | Predicate, path: str, auth: Any) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(path) is not None
    answer = pattern(path, auth)
    return bool(await answer if isinstance(answer, Awaitable) else answer)


def _checkedPath(path: str) -> str:
    if not path.startswith("/") or "," in path:
        raise ValueError(f"a namespace is at a path like '/chat', without a comma, not {path!r}")
    return path
