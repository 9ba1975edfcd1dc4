"""
Numbered messages: a server that misses some knows how many.

A bus delivers each message at most once.  A sender numbers its messages topic by topic, from 1 on, and a
receiver compares each number with the last one of the same sender and topic.  The first message that a
receiver hears on a topic begins the comparison, so nothing is missed that was published before.  A hole
behind the last message shows with the sender's next announcement, which has the numbers of the topics that
were used since the one before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from txrealtime.errors import PacketError

__all__ = ["Numbers"]

_MOST_TOPICS: Final = 100_000
"""Topics whose last number a sender keeps; the topic that was not used for longest begins anew with 1."""

_MOST_SENDERS: Final = 10_000
"""Senders that a receiver compares on one topic; then it begins the comparison anew."""

_MOST_ANNOUNCED: Final = 200
"""Topics in one announcement, the latest."""


class Numbers:
    """
    The numbers of one server's messages, and of those that it has received.

    :ivar latest: the sender, topic and number of the message read last, of an emitter's its name in place of
        the number; ``None`` if it had neither.
    :ivar latestSent: the topic and number of the message written last.
    :ivar missed: called with the topic and the number of messages of a hole.
    """

    def __init__(self) -> None:
        self.missed: Callable[[str, int], object] = lambda topic, count: None
        self.latest: list[Any] | None = None
        self.latestSent: tuple[str, int] | None = None
        self._sent: OrderedDict[str, int] = OrderedDict()
        self._used: OrderedDict[str, int] = OrderedDict()
        # By topic, the last number of each sender.
        self._received: dict[str, dict[str, int]] = {}

    # -- sending -----------------------------------------------------------------------

    def next(self, topic: str) -> int:
        """Return the number of the next message on a topic."""
        sent = self._sent
        sent[topic] = number = sent.get(topic, 0) + 1
        sent.move_to_end(topic)
        if len(sent) > _MOST_TOPICS:
            sent.popitem(last=False)
        self.latestSent = topic, number
        used = self._used
        used[topic] = number
        used.move_to_end(topic)
        if len(used) > _MOST_ANNOUNCED:
            used.popitem(last=False)
        return number

    def announced(self) -> dict[str, int]:
        """Return the last numbers of the topics that were used since the last call."""
        used, self._used = self._used, OrderedDict()
        return dict(used)

    # -- receiving -----------------------------------------------------------------------

    def received(self, topic: str, sender: str, number: int) -> None:
        """Called with the number of a message that has come."""
        senders = self._received.get(topic)
        if senders is None or len(senders) >= _MOST_SENDERS:
            senders = self._received[topic] = {}
        last = senders.get(sender)
        senders[sender] = number
        # A lower number is that of a sender which begins anew.
        if last is not None and number > last + 1:
            self.missed(topic, number - last - 1)

    def heard(self, sender: str, announced: Mapping[str, Any]) -> None:
        """
        Called with the last numbers of topics, as the sender announces them.

        :raises PacketError: if one is no number.
        """
        if any(number.__class__ is not int for number in announced.values()):
            raise PacketError("the number of a topic is none")
        for topic, number in announced.items():
            senders = self._received.get(topic)
            # On other topics nothing of this sender was heard yet, or this server has not subscribed.
            if senders is not None and sender in senders and number > senders[sender]:
                count, senders[sender] = number - senders[sender], number
                self.missed(topic, count)

    def forget(self, topic: str) -> None:
        """Called when this server no longer subscribes to a topic."""
        self._received.pop(topic, None)

    def gone(self, sender: str) -> None:
        """Called when a sender has gone."""
        for senders in self._received.values():
            senders.pop(sender, None)
