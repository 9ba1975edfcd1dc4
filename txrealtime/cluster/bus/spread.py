"""
Topics spread over several brokers.

Each topic belongs to one broker, by rendezvous hashing (highest random weight): every server and emitter
with the same list of brokers, in any order, finds the same owner and asks nobody.  A broker that is added
takes its share from all others, and no topic moves between these.

While a list changes, servers with the old and with the new one run at the same time.  So a broker in the
list may have a mark, ``?spread=listen`` or ``?spread=both``.  A server with marks hears each topic at its
owner by either list, with and without the marked brokers.  It publishes by the list without them
(``listen``) or with them (``both``).  Two servers miss nothing of each other if each hears by the list by
which the other publishes.  Servers announce their lists, and complain of each other otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any, Final

from txrealtime.cluster.bus.interfaces import IBus

__all__ = ["MARK", "MARKS", "Buses", "Spread", "splitBuses"]

MARK: Final = "spread"
"""The field of a URL that marks a broker as one that is added or taken away."""

MARKS: Final = ("listen", "both")

_SEPARATOR: Final = re.compile(",(?=[a-z][a-z+]*://)")

_MOST_KNOWN: Final = 100_000
"""Topics whose owners are remembered."""


def splitBuses(url: str) -> list[str]:
    """
    Return the URLs in a list of URLs, which commas separate.

    The hosts of Sentinels have commas between them too, but no scheme.
    """
    return _SEPARATOR.split(url)


class Spread:
    """
    The owners of topics among several brokers.

    :param names: the brokers' names, alike on all servers.
    :param key: the topic that each broker has: servers announce themselves there.
    :param marked: the names of the brokers that are added or taken away.
    :param mark: ``listen`` or ``both``; empty without marked brokers.
    :ivar controls: for each broker, a name for the topic `key` there and nowhere else.
    :ivar publishes: a digest of the list by which this server publishes; empty for a list of one.
    :ivar hears: the digests of the lists by which this server hears.
    """

    def __init__(self, names: Sequence[str], key: str, marked: Sequence[str] = (), mark: str = "") -> None:
        self.names = tuple(names)
        self.key = key
        self.controls = tuple(f"{key}#{place}" for place in range(len(names)))
        every = range(len(names))
        old = [place for place in every if names[place] not in marked]
        lists = [list(every), old] if marked else [list(every)]
        self._publishing = old if mark == "listen" else lists[0]
        self._hearing = lists
        self.publishes = self._digest(self._publishing)
        self.hears = tuple(self._digest(each) for each in lists)
        self._hashes = [blake2b(name.encode(), digest_size=8) for name in names]
        self._owners: dict[str, int] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spread) and (self.key, self.names, self.publishes, self.hears) == (
            other.key,
            other.names,
            other.publishes,
            other.hears,
        )

    def __hash__(self) -> int:
        return hash((self.key, self.names))

    def _digest(self, places: Sequence[int]) -> str:
        if len(places) == 1:
            return ""
        names = "\n".join(sorted(self.names[place] for place in places))
        return sha256(names.encode()).hexdigest()[:16]

    def ownerOf(self, topic: str) -> int:
        """Return the place of the broker to which this server publishes the messages of a topic."""
        owner = self._owners.get(topic)
        if owner is None:
            if len(self._owners) >= _MOST_KNOWN:
                self._owners.clear()
            owner = self._owners[topic] = self._choose(topic, self._publishing)
        return owner

    def placesOf(self, topic: str) -> Sequence[int]:
        """Return the places of the brokers at which this server hears a topic; some have two in a change."""
        if topic == self.key:
            return range(len(self.names))
        return sorted({self._choose(topic, places) for places in self._hearing})

    def _choose(self, topic: str, places: Sequence[int]) -> int:
        name = topic.encode("utf-8", "surrogatepass")
        best = (b"", "", -1)
        for place in places:
            weight = self._hashes[place].copy()
            weight.update(name)
            best = max(best, (weight.digest(), self.names[place], place))
        return best[2]


@dataclass(frozen=True)
class Buses:
    """
    Several buses, and the share of each.

    :ivar spread: the owners of topics; its names are those of the buses, in their order.
    """

    spread: Spread
    buses: Sequence[IBus]
    patterns: bool = False

    @property
    def name(self) -> str:
        """The names of the buses, for logs."""
        names: list[Any] = [bus.name for bus in self.buses]
        return ", ".join(names)
