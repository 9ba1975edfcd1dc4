"""
A join is in force on all servers when the ack of the event whose handler joined leaves.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.clusters import ClusterTestCase
from txrealtime import Server, Socket
from txrealtime.testing import Client


class JoinTests(ClusterTestCase):
    """
    Servers whose bus confirms a subscription in the reactor's next turn, or when it is resumed.
    """

    NAMES = ("one", "two")
    one: Server
    two: Server

    def setUp(self) -> None:
        super().setUp()
        self.inside: Deferred[None] | None = None

        @self.one.on("enter")
        def enter(socket: Socket, *rooms: str) -> str:
            socket.join(*rooms)
            return "entered"

        @self.one.on("enterLater")
        async def enterLater(socket: Socket, room: str) -> str:
            await deferLater(self.clock, 1)
            socket.join(room)
            return "entered"

        @self.one.on("bring")
        def bring(socket: Socket, id: str, room: str) -> str:
            self.one.to(id).join(room)
            return "brought"

        @self.one.on("echo")
        def echo(socket: Socket, value: Any) -> Any:
            return value

        @self.one.on("echoLater")
        async def echoLater(socket: Socket, value: Any) -> Any:
            await deferLater(self.clock, 1)
            return value

        self.alice, self.bob = self.client(self.one), self.client(self.one)

    def client(self, server: Server) -> Client:
        client = Client(server)
        self.clients.append(client)
        client.connect()
        return client

    def ask(self, client: Client, event: str, *args: Any) -> list[Any]:
        """Emit an event, and return the list to which its ack will be added."""
        acks: list[Any] = []
        client.call(event, *args).addCallbacks(acks.append, lambda failure: None)
        client.flush()
        return acks

    def test_waits(self) -> None:
        """The ack leaves when the bus has confirmed the subscription, and not before."""
        self.hub.pause()
        acks = self.ask(self.alice, "enter", "red", "blue")
        self.settle()
        self.assertEqual(acks, [])
        self.hub.resume()
        self.settle()
        self.assertEqual(acks, ["entered"])
        for room in ("red", "blue"):
            self.two.to(room).emit("news", room)
        self.assertEqual(self.get(self.alice), [[("news", "red"), ("news", "blue")]])

    def test_nothingIsMissed(self) -> None:
        """The first message that another server emits after the ack arrives."""
        missed = []
        for number in range(20):
            acks = self.ask(self.alice, "enter", f"room {number}")
            while not acks:
                self.clock.advance(0)
                self.alice.flush()
            self.two.to(f"room {number}").emit("news", number)
            missed.append(self.get(self.alice) != [[("news", number)]])
        self.assertEqual(missed, [False] * 20)

    def test_onlyThatAck(self) -> None:
        """Acks of other events do not wait, of the same client neither if they are before."""
        self.hub.pause()
        entering = self.ask(self.alice, "enter", "red")
        self.assertEqual(self.ask(self.bob, "echo", 1), [1])
        self.assertEqual(self.ask(self.bob, "enter"), ["entered"])
        after = self.ask(self.alice, "echo", 2)
        self.assertEqual((entering, after), ([], []))
        self.hub.resume()
        self.settle()
        self.assertEqual((entering, after), (["entered"], [2]))

    def test_secondMember(self) -> None:
        """A second member waits with the first; a member of a room that is known does not."""
        self.hub.pause()
        first, second = self.ask(self.alice, "enter", "red"), self.ask(self.bob, "enter", "red")
        self.settle()
        self.assertEqual((first, second), ([], []))
        self.hub.resume()
        self.settle()
        self.assertEqual((first, second), (["entered"], ["entered"]))
        self.hub.pause()
        self.assertEqual(self.ask(self.client(self.one), "enter", "red"), ["entered"])

    def test_later(self) -> None:
        """A handler that takes its time waits if it has joined; else only for joins in its time."""
        entering = self.ask(self.alice, "enterLater", "red")
        echoing = self.ask(self.bob, "echoLater", 1)
        self.clock.advance(0.5)
        self.hub.pause()
        self.clock.advance(0.6)
        self.settle()
        self.assertEqual(entering, [])
        self.hub.resume()
        self.settle()
        self.assertEqual((entering, echoing), (["entered"], [1]))

    def test_ofAnother(self) -> None:
        """A handler that lets another socket join waits too."""
        self.hub.pause()
        acks = self.ask(self.alice, "bring", self.bob.id(), "red")
        self.settle()
        self.assertEqual(acks, [])
        self.hub.resume()
        self.settle()
        self.assertEqual(acks, ["brought"])

    def test_withoutAck(self) -> None:
        """An event without an ack holds nothing up."""
        self.hub.pause()
        self.alice.emit("enter", "red")
        self.alice.flush()
        self.assertEqual(self.ask(self.alice, "echo", 1), [1])

    def test_left(self) -> None:
        """A room that is left before it is confirmed is waited for no more."""
        self.hub.pause()
        entering = self.ask(self.alice, "enter", "red")
        self.one.namespace().sockets[self.alice.id()].leave("red")
        self.settle()
        self.assertEqual(self.ask(self.bob, "enter", "blue"), [])
        self.assertEqual(entering, ["entered"])
        self.hub.resume()
        self.settle()

    def test_outage(self) -> None:
        """Without the bus, acks wait for nothing."""
        self.hub.pause()
        entering = self.ask(self.alice, "enter", "red")
        self.hub.stop()
        self.settle()
        self.assertEqual((self.one.cluster.status, entering), ("deaf", ["entered"]))
        self.assertEqual(self.ask(self.bob, "enter", "blue"), ["entered"])
        self.hub.resume()
        self.hub.start()
        self.advance(4)
        self.two.to("blue").emit("news", 1)
        self.assertEqual(self.get(self.bob), [[("news", 1)]])

    def test_serverStops(self) -> None:
        self.hub.pause()
        entering = self.ask(self.alice, "enter", "red")
        stopping = self.one.stopService()
        self.alice.close()
        self.settle()
        self.clock.advance(3)
        self.hub.resume()
        self.settle()
        self.successResultOf(stopping)
        self.assertEqual(entering, [])

    def test_clientGone(self) -> None:
        """A client that has gone meanwhile is sent nothing, and its events that wait are handled."""
        self.hub.pause()
        entering = self.ask(self.alice, "enter", "red")
        self.alice.emit("echo", 1)
        self.alice.close()
        self.settle()
        self.hub.resume()
        self.settle()
        self.assertEqual(entering, [])
        self.assertEqual(self.one.namespace().rooms.count, 0)
