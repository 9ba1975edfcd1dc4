"""
A state machine that does anything to presence on several servers, in any order.
"""

from __future__ import annotations

from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.clusters import FaultyHub
from tests.examples import settings as hypothesisSettings
from tests.examples import st
from txrealtime import Present, Server
from txrealtime.testing import Client, MemoryBus, makeServer

SERVERS = st.integers(0, 2)
KEYS = st.sampled_from(["ann", "bob", None])
ROOMS = st.sampled_from(["red", "blue"])


class PresenceMachine(RuleBasedStateMachine):
    """
    A random sequence of everything that clients, servers and a broker do to presence.

    The model is the set of the present sockets.  When the broker is well again, and some announcements have
    been made, all servers list the same, and that is the model; and the joins and leaves that each server's
    watchers have heard add up to the list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.hub = FaultyHub()
        self.servers: list[Server] = []
        self.clients: list[tuple[Server, Client]] = []
        self.tracked: dict[tuple[str, str], tuple[str, int]] = {}  # (room, id): (key, data)
        self.heard: list[dict[tuple[str, str], int]] = []

    @initialize()
    def begin(self) -> None:
        for _ in range(3):
            self.start()
        self.wait(30)

    def start(self) -> Server:
        server = makeServer(reactor=self.clock, bus=MemoryBus(self.hub))
        heard: dict[tuple[str, str], int] = {}

        def joined(present: Present) -> None:
            assert (present.room, present.key) not in heard
            heard[present.room, present.key] = len(present.entries)

        def changed(present: Present) -> None:
            assert (present.room, present.key) in heard
            heard[present.room, present.key] = len(present.entries)

        def left(present: Present) -> None:
            del heard[present.room, present.key]

        server.presence().watch(joined, left, changed)
        self.servers.append(server)
        self.heard.append(heard)
        return server

    @rule(tenths=st.integers(1, 100))
    def wait(self, tenths: int) -> None:
        for _ in range(tenths):
            self.clock.advance(0.1)
            for _, client in self.clients:
                client.flush()

    @rule(server=SERVERS, room=ROOMS, key=KEYS, n=st.integers(0, 2))
    def come(self, server: int, room: str, key: str | None, n: int) -> None:
        client = Client(self.servers[server])
        client.connect()
        self.clients.append((self.servers[server], client))
        self.track(len(self.clients) - 1, room, key, n)

    @rule(number=st.integers(0, 9), room=ROOMS, key=KEYS, n=st.integers(0, 2))
    def track(self, number: int, room: str, key: str | None, n: int) -> None:
        if self.clients:
            server, client = self.clients[number % len(self.clients)]
            socket = server.namespace().sockets[client.id()]
            server.presence(room).track(socket, {"n": n}, key=key)
            self.tracked[room, socket.id] = (key or socket.id, n)

    @rule(number=st.integers(0, 9), room=ROOMS)
    def leave(self, number: int, room: str) -> None:
        if self.clients:
            server, client = self.clients[number % len(self.clients)]
            server.namespace().sockets[client.id()].leave(room)
            self.tracked.pop((room, client.id()), None)

    @rule(number=st.integers(0, 9))
    def close(self, number: int) -> None:
        if self.clients:
            _, client = self.clients.pop(number % len(self.clients))
            for room in "red", "blue":
                self.tracked.pop((room, client.id()), None)
            client.close()

    @rule(server=SERVERS)
    def split(self, server: int) -> None:
        self.hub.split(self.servers[server])

    @rule()
    def heal(self) -> None:
        self.hub.heal()

    @rule()
    def cutAll(self) -> None:
        self.hub.cutSubscribers()

    @rule(number=st.integers(2, 5))
    def loseSome(self, number: int) -> None:
        """Lose each second, third ... message."""
        count = 0

        def loses(sender: str, receiver: str) -> bool:
            nonlocal count
            count += 1
            return count % number == 0

        self.hub.loses = loses

    @rule(on=st.booleans())
    def outage(self, on: bool) -> None:
        self.hub.stop() if on else self.hub.start()

    @rule(server=SERVERS)
    def restart(self, server: int) -> None:
        """Kill a server, with its clients, and start another in its place."""
        dead = self.servers.pop(server)
        self.heard.pop(server)
        for owner, client in list(self.clients):
            if owner is dead:
                self.close(self.clients.index((owner, client)))
        dead.stopService()
        self.start()

    def teardown(self) -> None:
        self.hub.start()
        self.hub.heal()
        self.wait(400)
        expected: dict[tuple[str, str], dict[str, int]] = {}
        for (room, id), (key, n) in self.tracked.items():
            expected.setdefault((room, key), {})[id] = n
        lists = [server.presence().known for server in self.servers]
        for listed, heard in zip(lists, self.heard, strict=True):
            assert listed == lists[0]
            got: dict[tuple[str, str], dict[str, Any]] = {
                (each.room, each.key): {entry.id: entry.data["n"] for entry in each.entries}
                for each in listed
            }
            assert got == expected, (got, expected)
            assert heard == {place: len(entries) for place, entries in expected.items()}
        for server in self.servers:
            server.stopService()
        self.wait(60)


class MachineTests(SynchronousTestCase):
    def test_anythingInAnyOrder(self) -> None:
        case = PresenceMachine.TestCase()
        case.settings = hypothesisSettings(max_examples=30, stateful_step_count=25)
        case.runTest()
