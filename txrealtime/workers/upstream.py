"""
The broker that a hub stands before.

With ``--workers`` and ``--bus redis://...``, the hub of the supervisor has the machine's only two connections
to the broker.  One publishes, the other is subscribed to the topics of all workers together, so an event
crosses the network once for each machine.  To all other servers a worker is still a server of its own, with
its uid, its presence and its questions.

The hub keeps nothing for a broker that is away.  The hub ends its connections then: each worker knows that
its link is down, keeps its messages, and counts its losses.  An event of one worker for another goes by the
broker too, so that an outage is the same for all servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, fail

from txrealtime.cluster.bus import hubframes
from txrealtime.cluster.bus.hubframes import decode, encode
from txrealtime.cluster.bus.interfaces import IBus
from txrealtime.cluster.bus.patterns import compilePattern
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.reconnecting import Backoff
from txrealtime.errors import BusError

__all__ = ["Upstream"]

# After an outage, the workers wait 1 s before they publish, until the others have subscribed: see Backoff.
# This link comes back within 0.15 s, and a worker within 0.8 s after that.
_BACKOFF: Final = Backoff(first=0.1, last=0.15, settle=0.0)

_MOST_QUEUED: Final = 64_000_000
"""Bytes that may wait for the broker.  A worker leaves 256 kB unconfirmed."""


class Upstream:
    """
    The link of a hub to a broker.

    :param deliver: called with the topic and the payload of each message, once for each.
    :param changed: called with ``""`` when the link is ready, and with the reason when it is so no more.
    """

    def __init__(
        self,
        bus: IBus,
        reactor: Any,
        deliver: Callable[[bytes, bytes], None],
        changed: Callable[[str], None],
    ) -> None:
        self.bus = bus
        self.link = Link(
            bus, reactor, maxMessage=hubframes.MAX_FRAME // 2, maxQueued=_MOST_QUEUED, backoff=_BACKOFF
        )
        self._deliver = deliver
        self._changed = changed
        self._asked: set[tuple[bytes, bool]] = set()
        # Confirmed by the broker; a message that comes by several of them is delivered once.
        self._topics: set[bytes] = set()
        self._patterns: dict[bytes, re.Pattern[str]] = {}
        self.link.watch(self._linkChanged)

    @property
    def isReady(self) -> bool:
        """True if messages go out and come in."""
        return self.link.status is LinkStatus.READY

    @property
    def reason(self) -> str:
        """The reason why the link is not ready."""
        return f"the hub has no link to {self.bus.name}: {self.link.reason}"

    def _linkChanged(self, status: LinkStatus) -> None:
        if status is LinkStatus.READY:
            self._changed("")
        elif status is LinkStatus.DEAF:
            self._changed(self.reason)

    # -- messages ------------------------------------------------------------------------

    def subscribe(self, topic: bytes, pattern: bool) -> Deferred[None]:
        """
        Subscribe at the broker, unless the hub is subscribed already.

        :return: fires when the broker has confirmed it.
        """
        name = decode(topic)
        if (topic, pattern) in self._asked:
            return self.link.whenSubscribed(name)
        try:
            self.link.subscribe(
                name, partial(self._receivedByPattern, topic) if pattern else self._received, pattern
            )
        except ValueError as error:
            return fail(BusError(str(error)))
        self._asked.add((topic, pattern))
        confirmed = self.link.whenSubscribed(name)
        # A subscription that is over before, or a link that has stopped, adds nothing.
        return confirmed.addCallback(lambda _: self._confirmed(topic, pattern))

    def _confirmed(self, topic: bytes, pattern: bool) -> None:
        if pattern:
            self._patterns[topic] = compilePattern(decode(topic))
        else:
            self._topics.add(topic)

    def unsubscribe(self, topic: bytes, pattern: bool) -> None:
        """Unsubscribe at the broker: nobody here is subscribed any more."""
        if (topic, pattern) in self._asked:
            self._asked.discard((topic, pattern))
            if pattern:
                self._patterns.pop(topic, None)
            else:
                self._topics.discard(topic)
            self.link.unsubscribe(decode(topic))

    def _received(self, topic: str, payload: bytes) -> None:
        self._deliver(encode(topic), payload)

    def _receivedByPattern(self, pattern: bytes, topic: str, payload: bytes) -> None:
        name = encode(topic)
        if name in self._topics:
            return  # it comes by its name too
        for other, compiled in self._patterns.items():
            if compiled.fullmatch(topic):
                if other == pattern:
                    self._deliver(name, payload)
                return

    # -- life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and stay connected."""
        self.link.start()

    def stop(self) -> Deferred[None]:
        """
        Disconnect.

        :return: fires when the broker has confirmed all messages, or after two seconds.
        """
        return self.link.stop()
