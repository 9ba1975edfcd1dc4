"""
Watchers: what they are told, in which order, and that a server without any pays nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from tests.talk import Recorder, TalkTestCase
from txrealtime import CloseReason, ConnectionRejected, Namespace, Server, Socket, Watcher
from txrealtime.engineio.packet import Packet, PacketType
from txrealtime.engineio.session import Session
from txrealtime.testing import Client, FakeTransport, MemoryBus, MemoryHub


class Diary(Watcher):
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def take(self) -> list[Any]:
        """Return the entries since the last call."""
        entries, self.entries = self.entries, []
        return entries

    def sessionOpened(self, session: Session) -> None:
        self.entries.append(("opened", session.sid))

    def sessionUpgraded(self, session: Session) -> None:
        self.entries.append(("upgraded", session.transport.name))

    def sessionClosed(self, session: Session) -> None:
        self.entries.append(("closed", session.closeReason))

    def socketConnected(self, socket: Socket) -> None:
        self.entries.append(("connected", socket.namespace.path, socket.id, socket.connected))

    def socketLeft(self, socket: Socket, reason: CloseReason) -> None:
        self.entries.append(("left", socket.namespace.path, socket.id, reason))

    def roomJoined(self, socket: Socket, room: str) -> None:
        self.entries.append(("joined room", socket.id, room))

    def roomLeft(self, socket: Socket, room: str) -> None:
        self.entries.append(("left room", socket.id, room))

    def eventReceived(self, socket: Socket, event: str, args: list[Any]) -> None:
        self.entries.append(("received", socket.id, event, list(args)))

    def eventSent(self, sockets: Sequence[Socket], event: str, args: Sequence[Any]) -> None:
        self.entries.append(("sent", {socket.id for socket in sockets}, event, list(args)))


class WatchTestCase(TalkTestCase):
    def watched(self, **options: Any) -> tuple[Server, Diary]:
        server, diary = self.makeServer(**options), Diary()
        server.watch(diary)
        return server, diary


class LivesTests(WatchTestCase):
    def test_session(self) -> None:
        """A session is told from its opening to its end; its socket comes and goes in between."""
        server, diary = self.watched()
        client = self.join(server)
        id, sid = client.id(), client.session.sid
        self.assertEqual(diary.take(), [("opened", sid), ("connected", "/", id, True)])
        client.close()
        self.assertEqual(
            diary.take(), [("left", "/", id, "transport close"), ("closed", CloseReason.TRANSPORT_CLOSE)]
        )

    def test_sessionWithoutSocket(self) -> None:
        server, diary = self.watched()
        client = self.makeClient(server)
        client.close()
        self.assertEqual([entry[0] for entry in diary.take()], ["opened", "closed"])

    def test_upgrade(self) -> None:
        server, diary = self.watched()
        client = self.join(server, transport="polling")
        diary.take()
        probed = FakeTransport("websocket")
        session = client.session
        probed.session = session
        session.upgrade(probed)
        session.packetReceived(probed, Packet(PacketType.PING, "probe"))
        self.assertEqual(diary.take(), [])
        session.packetReceived(probed, Packet(PacketType.UPGRADE, ""))
        self.assertEqual(diary.take(), [("upgraded", "websocket")])
        session.abort(CloseReason.FORCED_CLOSE)

    def test_refused(self) -> None:
        """A client that a namespace refuses never was a socket there."""
        server, diary = self.watched()
        recorder = Recorder()
        recorder.admission = ConnectionRejected("no")
        server.mount("/x", recorder)
        client = self.makeClient(server)
        self.failureResultOf(client.connect("/x"), ConnectionRejected)
        self.assertEqual([entry[0] for entry in diary.take()], ["opened"])

    def test_namespacesOfAllKinds(self) -> None:
        """Namespaces made later are watched too, such as those of a pattern."""
        server, diary = self.watched()
        server.mount(re.compile("/room-[0-9]+"), Namespace)
        client = self.join(server, "/room-7")
        id = client.id("/room-7")
        self.assertIn(("connected", "/room-7", id, True), diary.take())
        client.disconnect("/room-7")
        self.assertIn(("left", "/room-7", id, "client namespace disconnect"), diary.take())


class RoomTests(WatchTestCase):
    def test_joinsAndLeaves(self) -> None:
        """Each change is told once; the own room never changes."""
        server, diary = self.watched()
        client = self.join(server)
        socket, id = self.socketOf(server, client), client.id()
        diary.take()
        socket.join("red", "blue", id)
        socket.join("red")
        self.assertEqual(diary.take(), [("joined room", id, "red"), ("joined room", id, "blue")])
        socket.leave("red", "green")
        socket.leave("red")
        self.assertEqual(diary.take(), [("left room", id, "red")])
        server.to("blue").join("all")
        self.assertEqual(diary.take(), [("joined room", id, "all")])

    def test_roomsOfAClientThatLeaves(self) -> None:
        server, diary = self.watched()
        client = self.join(server)
        self.socketOf(server, client).join("red")
        id = client.id()
        diary.take()
        client.disconnect()
        self.assertEqual(
            diary.take(), [("left room", id, "red"), ("left", "/", id, "client namespace disconnect")]
        )

    def test_roomBeforeTheAdmission(self) -> None:
        server, diary = self.watched()
        server.onConnect(lambda socket: socket.join("red"))
        client = self.join(server)
        self.assertEqual([entry[0] for entry in diary.take()], ["opened", "joined room", "connected"])
        self.assertEqual(client.received(), [])


class RecoveryTests(WatchTestCase):
    def test_comesBack(self) -> None:
        """A client that comes back is told as one that connects, in the rooms that it had left."""
        server, diary = self.watched(recoveryWindow=60)
        client = self.makeClient(server)
        self.successResultOf(client.connect("/"))
        id = client.id()
        self.socketOf(server, client).join("red")
        client.lose()
        diary.take()
        server.to("red").emit("missed", 1)
        self.assertEqual(diary.take(), [("sent", set(), "missed", [1])])
        self.successResultOf(client.comeBack())
        self.assertEqual(client.id(), id)
        told = diary.take()
        self.assertEqual([entry[0] for entry in told], ["opened", "joined room", "connected"])
        self.assertEqual(told[1:], [("joined room", id, "red"), ("connected", "/", id, True)])
        self.assertEqual(client.received(), [("missed", 1)])
        client.close()
        server.stopService()


class EventTests(WatchTestCase):
    def test_received(self) -> None:
        """An event is told once, whether it has a handler, an ack, middleware, or none."""
        server, diary = self.watched()
        server.on("say")(lambda socket, text: text)
        client = self.join(server)
        id = client.id()
        diary.take()
        client.emit("say", "hello")
        self.successResultOf(client.call("say", b"\0"))
        client.emit("nobody", 1, {"a": 2})
        self.assertEqual(
            diary.take(),
            [
                ("received", id, "say", ["hello"]),
                ("received", id, "say", [b"\0"]),
                ("received", id, "nobody", [1, {"a": 2}]),
            ],
        )

    def test_waitingEvents(self) -> None:
        """An event that waits for its turn is told when the turn comes."""
        server, diary = self.watched()
        first: Deferred[None] = Deferred()
        server.on("slow")(lambda socket: first)
        client = self.join(server)
        diary.take()
        client.emit("slow")
        client.emit("next")
        self.assertEqual([entry[2] for entry in diary.take()], ["slow"])
        first.callback(None)
        self.assertEqual([entry[2] for entry in diary.take()], ["next"])

    def test_sent(self) -> None:
        """Every way of sending is told, once for all receivers."""
        server, diary = self.watched()
        one, two = self.join(server), self.join(server)
        ids = {one.id(), two.id()}
        socket = self.socketOf(server, one)
        socket.join("red")
        diary.take()
        socket.emit("a", 1)
        socket.call("b", 2).addErrback(lambda failure: None)
        server.emit("c", 3)
        server.to("red").emit("d")
        server.to("none").emit("e")
        server.call("f", b"6").addErrback(lambda failure: None)
        socket.others.send("g")
        self.assertEqual(
            diary.take(),
            [
                ("sent", {one.id()}, "a", [1]),
                ("sent", {one.id()}, "b", [2]),
                ("sent", ids, "c", [3]),
                ("sent", {one.id()}, "d", []),
                ("sent", set(), "e", []),
                ("sent", ids, "f", [b"6"]),
                ("sent", {two.id()}, "message", ["g"]),
            ],
        )
        self.advance(61)

    def test_nothingToOneThatHasGone(self) -> None:
        server, diary = self.watched()
        client = self.join(server)
        socket = self.socketOf(server, client)
        client.disconnect()
        diary.take()
        socket.emit("late")
        self.failureResultOf(socket.call("late"))
        self.assertEqual(diary.take(), [])


class PeerTests(WatchTestCase):
    def test_eventsOfPeers(self) -> None:
        """An event of a peer server is told where its receivers are, with its arguments."""
        hub = MemoryHub()
        (one, first), (two, second) = (self.watched(bus=MemoryBus(hub)) for _ in range(2))
        self.advance(1)
        client = self.join(two)
        first.take()
        second.take()
        one.emit("news", "x", b"\1", {"b": [b"\2"]})
        one.call("asked", 5).addErrback(lambda failure: None)
        self.advance(1)
        sent = [("news", ["x", b"\1", {"b": [b"\2"]}]), ("asked", [5])]
        self.assertEqual(first.take(), [("sent", set(), event, args) for event, args in sent])
        self.assertEqual(second.take(), [("sent", {client.id()}, event, args) for event, args in sent])
        self.advance(61)
        for server in (one, two):
            server.stopService()
        self.advance(1)


class RegistrationTests(WatchTestCase):
    def test_onlyDefinedMethodsAreHooks(self) -> None:
        """A watcher of rooms leaves all other hooks unset."""

        class Rooms(Watcher):
            def roomJoined(self, socket: Socket, room: str) -> None:
                pass

        server = self.makeServer()
        hooks = server._namespaces.hooks
        names = [name for kind in type(hooks).__mro__[:-1] for name in kind.__slots__]
        self.assertEqual({name for name in names if getattr(hooks, name)}, set())
        stop = server.watch(Rooms())
        self.assertEqual({name for name in names if getattr(hooks, name)}, {"roomJoined"})
        stop()
        self.assertEqual({name for name in names if getattr(hooks, name)}, set())

    def test_allMethodsHaveHooks(self) -> None:
        server, _ = self.watched()
        hooks = server._namespaces.hooks
        for name in vars(Watcher):
            if not name.startswith("_"):
                self.assertIsNotNone(getattr(hooks, name), name)

    def test_severalWatchers(self) -> None:
        """All are told, in the order of their registration; each ends by itself."""
        server, told = self.makeServer(), []
        stops = []
        for name in ("first", "second"):
            watcher = Diary()
            watcher.socketConnected = lambda socket, name=name: told.append(name)  # type: ignore[method-assign]
            stops.append(server.watch(watcher))
        self.join(server)
        self.assertEqual(told, ["first", "second"])
        stops[0]()
        stops[0]()
        self.join(server)
        self.assertEqual(told, ["first", "second", "second"])

    def test_failingWatcher(self) -> None:
        """An exception of a watcher is logged; the others are told, and the client notices nothing."""

        class Bad(Watcher):
            def eventReceived(self, socket: Socket, event: str, args: list[Any]) -> None:
                raise ZeroDivisionError

        server = self.makeServer()
        server.watch(Bad())
        diary = Diary()
        server.watch(diary)
        server.on("say")(lambda socket, text: text)
        client = self.join(server)
        self.assertEqual(self.successResultOf(client.call("say", "x")), "x")
        self.assertIn(("received", client.id(), "say", ["x"]), diary.take())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_refused(self) -> None:
        server = self.makeServer()
        self.assertRaises(TypeError, server.watch, Watcher())
        self.assertRaises(TypeError, server.watch, object())

    def test_watchBeforeTheSettings(self) -> None:
        """An application may watch a server that twistd configures afterwards."""
        server = self.makeServer(start=False)
        diary = Diary()
        server.watch(diary)
        server.configure(maxRooms=7)
        server.startService()
        client = Client(server)
        self.clients.append(client)
        self.assertEqual([entry[0] for entry in diary.take()], ["opened"])
