"""
A testing kit: clients without sockets, on a clock of the test.

::

    clock = Clock()
    server = makeServer(reactor=clock)
    alice = Client(server)
    alice.connect("/", auth={"token": "x"})
    self.assertEqual(self.successResultOf(alice.call("say", "hello")), "delivered")
    self.assertEqual(alice.received(), [("said", alice.id(), "hello")])

A :class:`Client` speaks real Engine.IO and Socket.IO: packets between it and the server are encoded and
decoded by the codecs of production.

A :class:`MemoryClient` is a :class:`txrealtime.client.Client` in all, for tests of what is written for one::

    bob = MemoryClient(server, "/chat")
    bob.startService()
    self.assertEqual(self.successResultOf(bob.call("say", "hello")), "delivered")

Servers that share a hub and a clock are a cluster::

    hub, clock = MemoryHub(), Clock()
    one, two = (makeServer(reactor=clock, bus=MemoryBus(hub)) for _ in range(2))

Messages between the servers arrive while the clock advances: call ``clock.advance(0)`` some times.  Servers
know each other, and so each other's presence, a second after their links are ready.
"""

from __future__ import annotations

from txrealtime.client.memory import MemoryClient
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
from txrealtime.testing.client import Client
from txrealtime.testing.server import makeServer
from txrealtime.testing.transport import FakeTransport

__all__ = ["Client", "FakeTransport", "MemoryBus", "MemoryClient", "MemoryHub", "makeServer"]
