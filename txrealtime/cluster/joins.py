"""
Rooms that other servers do not know yet: the bus has not confirmed this server's subscription.

A join that makes this server subscribe is in force everywhere when the bus has confirmed the subscription.
The ack of the event whose handler joined waits for that.  So a client that has its ack misses nothing that
any server emits to the room from then on.  :class:`~txrealtime.cluster.remote.RemotePeers` has one
:class:`Joins`.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred, succeed

from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.links import Links
from txrealtime.socketio.namespaces import Namespaces

__all__ = ["Joins"]


class Joins:
    """
    The subscriptions to rooms that are not confirmed yet.

    While the link is not ready, nothing is awaited: acks go on without the other servers.

    :param namespaces: those of the server, whose ``joining`` is kept.
    """

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._last = 0
        # By number, in order.
        self._pending: dict[int, None] = {}
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()

    def watch(self, link: Link | Links) -> None:
        """Take a link that has not been started yet."""
        link.watch(self._linkChanged)

    def subscribed(self, link: Link | Links, topic: str) -> None:
        """Called when this server has subscribed to the topic of a room."""
        if not link.carries(topic):
            return
        self.wait(link.whenSubscribed(topic))

    def wait(self, confirmed: Deferred[None]) -> None:
        """Let acks wait until a Deferred has fired."""
        if not confirmed.called:
            self._last += 1
            self._pending[self._last] = None
            self.joined()
            confirmed.addBoth(self._settled, self._last)

    def joined(self) -> None:
        """Called when a socket has joined a room, while subscriptions are pending."""
        self._namespaces.joining = object()

    def whenInForce(self) -> Deferred[None]:
        """Wait until the subscriptions of now are confirmed, or the link is not ready any more."""
        if not self._pending:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append((self._last, waiting))
        return waiting

    def _settled(self, result: object, number: int) -> None:
        """Called when a subscription is confirmed, or over."""
        self._pending.pop(number, None)
        self._release()

    def _linkChanged(self, status: LinkStatus) -> None:
        if status is not LinkStatus.READY:
            self._pending.clear()
            self._release()

    def _release(self) -> None:
        oldest = next(iter(self._pending), None)
        if oldest is None:
            self._namespaces.joining = None
        waiting = self._waiting
        while waiting and (oldest is None or waiting[0][0] < oldest):
            waiting.popleft()[1].callback(None)
