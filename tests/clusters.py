"""
Servers on one clock and one hub, for the tests of several servers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.talk import TalkTestCase
from txrealtime import Server
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.testing import Client

SETTLED = 1.5
"Seconds after which servers know each other."


class FaultyHub(MemoryHub):
    """
    A broker that can lose messages between servers without a word to them.

    Heartbeats pass, so the links stay ready.

    :ivar loses: called with the uids of a message's sender and of its receiver; returns true to lose it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loses: Callable[[str, str], bool] = lambda sender, receiver: False

    def split(self, *servers: Server) -> None:
        """Let these servers and the others no longer hear each other."""
        apart = {server.cluster.uid for server in servers}
        self.loses = lambda sender, receiver: (sender in apart) != (receiver in apart)

    def heal(self) -> None:
        """Lose nothing any more."""
        self.loses = lambda sender, receiver: False

    def deliver(self, topic: str, payload: bytes) -> None:
        for subscriber in list(self.subscribers):
            if not payload.startswith(b"txr1 ") or not self.loses(payload[5:13].decode(), uidOf(subscriber)):
                subscriber.received(topic, payload)


def uidOf(subscriber: Any) -> str:
    """Return the uid of the server that a subscriber of the hub belongs to, by its own topic."""
    topics = [subscription.topic for subscription in subscriber._subscriptions]
    return next((topic.partition("@")[2] for topic in topics if "@" in topic), "")


class ClusterTestCase(TalkTestCase):
    """
    Servers of one cluster: `self.one`, `self.two` and `self.three`, with these words as names. Their dialect
    is `DIALECT`.

    They stop after each test, and nothing is left of them.
    """

    NAMES = ("one", "two", "three")
    DIALECT = DialectChoice()
    HUB: Any = FaultyHub
    BUS: Any = MemoryBus

    def setUp(self) -> None:
        super().setUp()
        self.hub = self.HUB()
        for name in self.NAMES:
            setattr(self, name, self.member(name))
        self.advance(SETTLED)

    def member(self, name: str, **options: Any) -> Server:
        """Start one more server."""
        server = self.makeServer(start=False, **options)
        server.cluster.use(self.BUS(self.hub), self.DIALECT)
        server.cluster.name = name
        server.startService()
        return server

    def tearDown(self) -> None:
        for client in self.clients:
            client.close()
        self.hub.resume()
        stopping = [server.stopService() for server in self.servers if server.running]
        self.settle()
        for stopped in stopping:
            self.clock.advance(3)
            self.successResultOf(stopped)
        self.settle()
        super().tearDown()

    def settle(self) -> None:
        """Let messages on their way arrive, with all that they lead to."""
        for _ in range(12):
            self.clock.advance(0)
            for client in self.clients:
                client.flush()

    def advance(self, seconds: float) -> None:
        while seconds > 0:
            self.settle()
            step = min(seconds, 0.5)
            super().advance(step)
            seconds -= step
        self.settle()

    def resultOf(self, deferred: Deferred[Any]) -> Any:
        """Return the result of an operation that takes messages to other servers."""
        self.settle()
        return self.successResultOf(deferred)

    def get(self, *clients: Client, namespace: str = "/") -> list[list[Any]]:
        """Return the events that each client has got, once everything has arrived."""
        self.settle()
        return [client.received(namespace) for client in clients]
