"""
The subscriptions at a hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from txrealtime.cluster.bus.hubframes import decode
from txrealtime.cluster.bus.patterns import compilePattern

__all__ = ["Topics"]


class _Subscriber(Protocol):
    topics: set[bytes]
    patterns: set[bytes]


C = TypeVar("C", bound=_Subscriber)


class Topics(Generic[C]):
    """
    The subscriptions of all connections.

    :ivar left: called with a topic, and true if it is a pattern, when its last connection has unsubscribed.
    """

    def __init__(self) -> None:
        self.left: Callable[[bytes, bool], object] | None = None
        # Dictionaries serve as sets that keep their order.
        self._topics: dict[bytes, dict[C, None]] = {}
        self._patterns: dict[bytes, tuple[re.Pattern[str], dict[C, None]]] = {}

    def receivers(self, topic: bytes) -> dict[C, None] | None:
        """
        Return the connections that a message goes to.

        :raises UnicodeDecodeError: if the topic is not a text, which is seen only if there are patterns.
        """
        named = self._topics.get(topic)
        if not self._patterns:
            return named
        text = decode(topic)
        found = dict(named or ())
        for pattern, connections in self._patterns.values():
            if pattern.fullmatch(text):
                found |= connections
        return found

    def count(self, topic: bytes) -> int:
        """Count the connections that are subscribed to a topic by its name."""
        return len(self._topics.get(topic, ()))

    def add(self, connection: C, topic: bytes) -> None:
        """Subscribe a connection to a topic."""
        self._topics.setdefault(topic, {})[connection] = None

    def addPattern(self, connection: C, pattern: bytes) -> None:
        """Subscribe a connection to a pattern."""
        known = self._patterns.get(pattern)
        if known is None:
            known = self._patterns[pattern] = compilePattern(decode(pattern)), {}
        known[1][connection] = None

    def remove(self, connection: C, topic: bytes) -> None:
        """Unsubscribe a connection from a topic."""
        connections = self._topics.get(topic)
        if connections is not None:
            connections.pop(connection, None)
            if not connections:
                del self._topics[topic]
                if self.left is not None:
                    self.left(topic, False)

    def removePattern(self, connection: C, pattern: bytes) -> None:
        """Unsubscribe a connection from a pattern."""
        known = self._patterns.get(pattern)
        if known is not None:
            known[1].pop(connection, None)
            if not known[1]:
                del self._patterns[pattern]
                if self.left is not None:
                    self.left(pattern, True)

    def forget(self, connection: C) -> None:
        """Unsubscribe a connection from everything."""
        while connection.topics:
            self.remove(connection, connection.topics.pop())
        while connection.patterns:
            self.removePattern(connection, connection.patterns.pop())
