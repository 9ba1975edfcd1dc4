"""
Clients that come back to another server when theirs was killed: sessions and events in Redis.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from txrealtime import Server
from txrealtime.socketio.clients import Claim
from txrealtime.testing import Client


class KilledTests(TestCase):
    """
    Two servers in this process on a real Redis, one of which loses all connections to Redis at once.
    """

    timeout = 300

    async def setUp(self) -> None:
        self.redis = await Redis(self).start()
        self.one, self.two = [await self.serve() for _ in range(2)]
        await self.until(lambda: self.one.cluster.servers and self.two.cluster.servers)
        await deferLater(reactor, 1.1)
        self.alice = await self.connected(self.one)
        self.socket = self.one.namespace().sockets[self.alice.id()]

    async def serve(self, query: str = "") -> Server:
        server = Server(
            reactor=reactor,
            recoveryWindow=30,
            recovery="all",
            bus=f"redis+streams://127.0.0.1:{self.redis.port}{query}",
        )
        server.startService()
        self.addCleanup(self.stop, server)
        await server.cluster.whenReady()
        return server

    async def stop(self, server: Server) -> None:
        if server.running:
            await server.stopService()

    async def connected(self, server: Server) -> Client:
        client = Client(server)
        self.addCleanup(client.close)
        await self.flushed(client, client.connect())
        return client

    async def flushed(self, client: Client, waiting: Deferred[str]) -> None:
        """Wait for a result of a client, whose packets are moved by hand."""
        done: list[object] = []
        waiting.addBoth(done.append)

        def look() -> bool:
            client.flush()
            return bool(done)

        await self.until(look)
        self.assertIsInstance(done[0], str | list)

    async def until(self, condition: Callable[[], object], seconds: float = 90.0) -> None:
        deadline = reactor.seconds() + seconds
        while not condition():
            self.assertLess(reactor.seconds(), deadline)
            await deferLater(reactor, 0.01)

    async def keys(self) -> list[str]:
        return (await self.redis.cli("KEYS", "*:session:*")).split()

    async def key(self) -> str:
        """Return the key of the only session, once Redis has it."""
        while not (keys := await self.keys()):
            await deferLater(reactor, 0.05)
        (key,) = keys
        return key

    async def kept(self, key: str) -> dict[str, Any]:
        session: dict[str, Any] = json.loads((await self.redis.cli("GET", key))[9:])
        return session

    def kill(self, server: Server) -> None:
        """Let a server say nothing any more, as if its process had been killed."""
        server.cluster._keeping.stop()
        link = server.cluster.link
        for half in (link._outgoing, link._incoming):
            half.reconnecting.stop().abort()
        link._stopBeating()
        self.two.cluster._conversation.servers._remove(server.cluster.uid, "was killed")

    async def got(self, client: Client, count: int = 1) -> list[tuple[object, ...]]:
        """Return the events of a client, once so many have come."""
        events: list[tuple[object, ...]] = []

        def look() -> bool:
            events.extend(client.received())
            return len(events) >= count

        await self.until(look)
        await deferLater(reactor, 0.1)
        return [*events, *client.received()]

    async def settled(self) -> None:
        """Wait until Redis has all that the servers have said; it is read a moment later."""
        publishers = [server.cluster.link._outgoing.reconnecting for server in (self.one, self.two)]
        await self.until(lambda: not any(each.connection.unconfirmed for each in publishers))
        await deferLater(reactor, 0.1)

    async def untilKept(self, key: str, **values: Any) -> dict[str, Any]:
        """Wait until a session in Redis has some values, and return it."""
        while True:
            kept = await self.kept(key)
            if values.items() <= kept.items():
                return kept
            await deferLater(reactor, 0.05)

    async def back(self, client: Client) -> None:
        await self.flushed(client, client.comeBack(server=self.two))

    async def test_written(self) -> None:
        self.socket.join("red")
        self.socket.data["name"] = "alice"
        key = await self.key()
        kept = await self.untilKept(key, data={"name": "alice"})
        self.assertEqual(kept["id"], self.socket.id)
        self.assertEqual(kept["rooms"], sorted(["red", self.socket.id]))
        self.socket.disconnect()
        while await self.keys():
            await deferLater(reactor, 0.05)

    async def test_comesBack(self) -> None:
        """Its events of before and after the death of its server, of all servers, once and in order."""
        self.socket.join("red")
        self.socket.data["name"] = "alice"
        self.one.emit("first")
        self.two.emit("second")
        self.assertEqual(sorted(await self.got(self.alice, 2)), [("first",), ("second",)])
        rooms = sorted(["red", self.socket.id])
        await self.untilKept(await self.key(), data={"name": "alice"}, rooms=rooms)
        self.alice.lose()
        for number in range(3):
            self.socket.emit("direct", number)
            self.one.to("red").emit("room", number, b"1")
            self.one.to(self.socket.id).emit("id", number)
        self.one.emit("position", volatile=True)
        self.one.to("blue").emit("not for her")
        await self.settled()
        self.two.to("red").emit("theirs", 1)
        await self.settled()
        self.kill(self.one)
        self.two.to("red").emit("theirs", 2)
        self.two.emit("theirs", 3)
        await self.back(self.alice)
        self.two.to("red").emit("live")
        got = await self.got(self.alice, 13)
        own = [("direct", n) for n in range(3)], [("room", n, b"1") for n in range(3)]
        expected = [each for n in range(3) for each in (own[0][n], own[1][n], ("id", n))]
        self.assertEqual(got, [*expected, ("theirs", 1), ("theirs", 2), ("theirs", 3), ("live",)])
        self.assertEqual((self.alice.id(), self.alice.recovered()), (self.socket.id, True))
        socket = self.two.namespace().sockets[self.alice.id()]
        self.assertEqual((socket.data, "red" in socket.rooms), ({"name": "alice"}, True))
        (key,) = await self.keys()
        self.assertEqual((await self.redis.cli("GET", key))[:8], self.two.cluster.uid)

    async def test_withoutAnEvent(self) -> None:
        """A client that never had an event sends no offset, or the one of its admission."""
        await self.key()
        self.alice.lose()
        self.two.emit("one")
        self.kill(self.one)
        await self.back(self.alice)
        self.assertEqual((await self.got(self.alice), self.alice.recovered()), ([("one",)], True))

    async def test_joinBeforeTheAck(self) -> None:
        """An ack that has arrived promises that the rooms of its handler are in Redis."""
        self.one.on("enter")(lambda socket, room: socket.join(room))
        for room in ("red", "green", "blue"):
            await self.flushed(self.alice, self.alice.call("enter", room).addCallback(str))
            (key,) = await self.keys()
            self.assertIn(room, (await self.kept(key))["rooms"])

    async def test_allServersStopped(self) -> None:
        """The last server leaves its clients in Redis, for the next one."""
        await self.two.stopService()
        self.socket.join("red")
        self.one.to("red").emit("first")
        await self.got(self.alice)
        self.alice.lose()
        self.one.to("red").emit("second")
        await self.one.stopService()
        self.assertEqual(len(await self.keys()), 1)
        self.two = await self.serve()
        await self.back(self.alice)
        self.assertEqual((await self.got(self.alice), self.alice.recovered()), ([("second",)], True))

    async def test_trimmed(self) -> None:
        """A client whose events are gone gets a fresh session."""
        self.one.emit("first")
        await self.got(self.alice)
        self.alice.lose()
        self.two.emit("second")
        await self.settled()
        self.kill(self.one)
        await self.redis.cli("XTRIM", "txrealtime:stream", "MAXLEN", "0")
        await self.back(self.alice)
        self.assertFalse(self.alice.recovered())

    async def test_wrongOffset(self) -> None:
        """A text that is no offset does not delete the session."""
        self.one.emit("first")
        await self.got(self.alice)
        self.alice.lose()
        key = await self.key()
        self.kill(self.one)
        await self.two.cluster._keeping.fetch(
            self.two.namespace(), Claim(key.rpartition(":")[2], "1795884975163-0", True), ""
        )
        self.assertEqual(await self.keys(), [key])
        await self.back(self.alice)
        self.assertTrue(self.alice.recovered())

    async def test_hung(self) -> None:
        """A server that only seemed dead leaves its client to the one that has taken it."""
        key = await self.key()
        claim = Claim(key.rpartition(":")[2], None, True)
        fetching = [self.two.cluster._keeping.fetch(self.two.namespace(), claim, "") for _ in range(2)]
        found = [await each for each in [Deferred.fromCoroutine(each) for each in fetching]]
        self.assertIsNotNone(found[0])
        self.assertIs(found[0], found[1], "taken once")
        self.assertEqual(len(self.one.namespace()._recovery.tickets), 1)
        self.socket.data["late"] = True
        await self.until(lambda: not self.one.namespace()._recovery.tickets)
        self.assertFalse(self.socket.connected)
        self.assertEqual((await self.redis.cli("GET", key))[:8], self.two.cluster.uid)
        self.assertEqual((await self.kept(key))["data"], {})
