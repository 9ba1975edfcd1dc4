"""
Clients that come back to another server of the cluster, and servers that stop.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher

from tests.clusters import ClusterTestCase
from txrealtime import AckTimeout, CloseReason, ConnectionRejected, Server, Socket
from txrealtime.socketio.packet import Packet, PacketType
from txrealtime.testing import Client

WINDOW = 60.0


class HandoverTestCase(ClusterTestCase):
    """
    Three servers with a window of a minute.
    """

    options: dict[str, Any] = {}

    def makeServer(self, **options: Any) -> Server:
        return super().makeServer(recoveryWindow=WINDOW, **self.options, **options)

    def tearDown(self) -> None:
        super().tearDown()
        for server in self.servers:
            self.assertEqual(len(server._namespaces.parking), 0)
            for namespace in server.namespaces:
                self.assertEqual(namespace._recovery.tickets, {})
                self.assertEqual(namespace._recovery.absence.rooms, {})

    def back(self, client: Client, server: Server) -> None:
        coming = client.comeBack(server=server)
        self.settle()
        self.successResultOf(coming)

    def results(self, server: Server) -> dict[str, int]:
        return dict(server._namespaces.counts.recoveries)


class FetchTests(HandoverTestCase):
    """
    A client that comes back to another server.
    """

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.join(self.one, auth={"token": "x"})
        self.socket = self.socketOf(self.one, self.alice)
        self.socket.join("red")
        self.socket.data.update(name="Alice", secret=object())
        self.first = self.alice.id()
        self.seen: list[tuple[Any, ...]] = []
        for server in self.servers:
            server.onConnect(
                lambda socket, auth: self.seen.append((socket.recovered, socket.rooms, auth, socket.data))
            )

    def test_moves(self) -> None:
        self.three.emit("one")
        self.settle()
        self.alice.received()
        self.alice.lose()
        self.three.to("red").emit("two", b"2")
        self.settle()
        self.one.emit("three")
        self.settle()
        self.two.to(self.first).emit("four")
        self.settle()
        self.back(self.alice, self.two)
        self.assertEqual(self.alice.received(), [("two", b"2"), ("three",), ("four",)])
        self.assertEqual((self.alice.id(), self.alice.recovered()), (self.first, True))
        self.assertEqual(self.seen, [(True, {self.first, "red"}, {"token": "x"}, {"name": "Alice"})])
        self.assertEqual(self.results(self.two), {"moved": 1})
        self.assertEqual(self.one.namespace()._recovery.tickets, {})

    def test_eventsAfterwards(self) -> None:
        """Everything finds the client at its new server, also what goes to the id of the socket alone."""
        self.alice.lose()
        self.back(self.alice, self.two)
        for server in (self.one, self.two, self.three):
            server.emit("all")
            server.to("red").emit("room")
            server.to(self.first).emit("one")
            self.settle()
        self.socket.emit("from a handler that still runs")
        self.settle()
        self.assertEqual(
            self.alice.received(),
            [("all",), ("room",), ("one",)] * 3 + [("from a handler that still runs",)],
        )
        self.three.to(self.first).join("blue")
        self.settle()
        self.assertIn("blue", self.socketOf(self.two, self.alice).rooms)
        self.three.to(self.first).disconnect()
        self.settle()
        self.assertFalse(self.alice.isConnected())

    def test_questionsAfterwards(self) -> None:
        """Questions for the id of the socket follow the client, from any server."""
        self.alice.on("ask", lambda number: number + 1)
        for target in (self.two, self.three, self.one, self.two):
            self.alice.lose()
            self.back(self.alice, target)
            self.assertTrue(self.alice.recovered())
            for server in self.servers:
                self.assertEqual(self.resultOf(server.to(self.first).call("ask", 1)), [2])
                [person] = self.resultOf(server.to(self.first).fetch())
                where = "" if server is target else target.cluster.name
                self.assertEqual((person.id, "red" in person.rooms, person.server), (self.first, True, where))

    def test_questionsToAServerThatIsSilent(self) -> None:
        """The client's new server does not reply: the asking server tells its name."""
        self.alice.lose()
        self.back(self.alice, self.two)
        self.hub.loses = lambda sender, receiver: sender == self.two.cluster.uid
        late = self.three.to(self.first).fetch()
        self.advance(6)
        self.assertEqual(self.failureResultOf(late, AckTimeout).value.servers, ["two"])
        self.hub.heal()
        self.advance(1)
        self.hub.loses = lambda sender, receiver: receiver == self.two.cluster.uid
        gone = self.three.to(self.first).fetch()
        self.settle()
        self.two.cluster.stop()
        self.settle()
        self.assertEqual(self.failureResultOf(gone, AckTimeout).value.servers, ["two"])

    def test_takeOver(self) -> None:
        """The server that the client left believes that it is still there."""
        self.alice.lose(noticed=False)
        self.three.emit("one")
        self.settle()
        self.back(self.alice, self.two)
        self.assertEqual(self.alice.received(), [("one",)])
        self.assertEqual(self.socket._leftBecause, CloseReason.TRANSPORT_CLOSE)

    def test_onTheWay(self) -> None:
        """Events that are published while the client moves come once, and in the order of their sender."""
        choices = random.Random(427677)
        for _ in range(60):
            self.alice.lose(noticed=choices.random() < 0.5)
            target = choices.choice(self.servers)
            expected = 0
            coming = self.alice.comeBack(server=target)
            for _ in range(choices.randrange(1, 14)):
                for _ in range(choices.randrange(3)):
                    self.three.to("red").emit("number", expected)
                    expected += 1
                self.clock.advance(0)
                if choices.random() < 0.5:
                    self.alice.flush()
            self.settle()
            self.successResultOf(coming)
            self.assertTrue(self.alice.recovered(), [self.results(server) for server in self.servers])
            self.assertEqual(self.alice.received(), [("number", number) for number in range(expected)])

    def test_fromAllServers(self) -> None:
        """The same, from each server, to everybody, the room and the socket."""
        choices = random.Random(427677)
        for _ in range(60):
            self.alice.lose(noticed=choices.random() < 0.5)
            coming = self.alice.comeBack(server=choices.choice(self.servers))
            sent = {0: 0, 1: 0, 2: 0}
            for _ in range(choices.randrange(1, 14)):
                for index, server in enumerate(self.servers[:3]):
                    if choices.random() < 0.4:
                        audience = choices.choice(
                            [server.namespace().everyone, server.to("red"), server.to(self.first)]
                        )
                        audience.emit("number", index, sent[index])
                        sent[index] += 1
                self.clock.advance(0)
                if choices.random() < 0.3:
                    self.alice.flush()
            self.settle()
            self.successResultOf(coming)
            self.assertTrue(self.alice.recovered())
            got = self.alice.received()
            self.assertEqual(len(got), len(set(got)), "nothing twice")
            for index, count in sent.items():
                self.assertEqual(
                    sorted(number for _, sender, number in got if sender == index), list(range(count))
                )

    def test_cutOnTheWay(self) -> None:
        """A client whose connection is lost while it moves moves on the next time."""
        choices = random.Random(427677)
        expected = 0
        for _ in range(60):
            self.alice.lose()
            for server in choices.choices(self.servers, k=2):
                self.alice.comeBack(server=server).addErrback(lambda failure: None)
                for _ in range(choices.randrange(8)):
                    self.clock.advance(0)
                self.three.emit("number", expected)
                expected += 1
                self.alice.lose()
            self.settle()
            self.back(self.alice, choices.choice(self.servers))
            self.assertTrue(self.alice.recovered())
        numbers = [number for _, number in self.alice.received()]
        self.assertEqual(numbers[-2:], [expected - 2, expected - 1])

    def test_refused(self) -> None:
        self.alice.lose()
        self.one.emit("secret")

        @self.two.onConnect(replace=True)
        def connected(socket: Socket, auth: Any) -> None:
            raise ConnectionRejected("banned")

        coming = self.alice.comeBack(server=self.two)
        self.settle()
        self.failureResultOf(coming, Exception)
        self.assertEqual(self.alice.received(), [])

    def test_thePid(self) -> None:
        """A pid that no server knows, or an offset of the future, moves nobody."""
        pid = self.alice._recoveries["/"]._pid
        epoch = self.one._namespaces.parking.store.epoch
        for auth in (f'{{"pid":"{pid}x"}}', f'{{"pid":"{pid}","offset":"{epoch}-99"}}', '{"pid":"x"}'):
            thief = self.makeClient(self.two)
            self.sendText(thief, f"0{auth}")
            self.settle()
            self.assertNotIn(pid + '"', repr(thief._recoveries))
            self.assertTrue(thief.isConnected())
            self.assertTrue(self.alice.isConnected())

    def test_serverThatHasJustStarted(self) -> None:
        """The client comes before the server has a link to the others."""
        self.alice.lose()
        self.one.emit("missed")
        self.hub.pause()
        four = self.member("four")
        coming = self.alice.comeBack(server=four)
        self.advance(2)
        self.assertNoResult(coming)
        self.hub.resume()
        self.advance(2)
        self.successResultOf(coming)
        self.assertEqual((self.alice.recovered(), self.alice.received()), (True, [("missed",)]))

    def test_serverWithoutALink(self) -> None:
        """A server that finds no broker gives the client a fresh session, and tells why in a line."""
        self.alice.lose()
        self.hub.stop()
        coming = self.alice.comeBack(server=self.two)
        self.advance(6)
        self.successResultOf(coming)
        self.assertFalse(self.alice.recovered())
        self.assertEqual(self.flushLoggedErrors(), [])
        self.hub.start()
        self.advance(20)

    def test_ownerSilent(self) -> None:
        """A client whose server does not reply gets a fresh session, and a line names the server."""
        lines: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.alice.lose()
        self.hub.loses = lambda sender, receiver: sender == self.one.cluster.uid
        coming = self.alice.comeBack(server=self.two)
        self.advance(12)
        self.successResultOf(coming)
        self.assertFalse(self.alice.recovered())
        self.assertTrue(any("one did not reply within 3.0 s" in line for line in lines), lines)
        self.hub.heal()

    def test_ownerGone(self) -> None:
        """A client of a server that died gets a fresh session."""
        self.alice.lose()
        self.hub.cut(self.one) if hasattr(self.hub, "cut") else self.one.cluster.stop()
        self.settle()
        self.back(self.alice, self.two)
        self.assertEqual((self.alice.recovered(), self.alice.received()), (False, []))
        self.assertEqual(self.results(self.two), {"unknown": 1})


class AddressTests(HandoverTestCase):
    """
    The option that ties a client to its address.
    """

    options = {"recoveryAddress": True}

    def test_otherAddress(self) -> None:
        alice = self.join(self.one, address="192.0.2.1")
        alice.lose()
        coming = alice.comeBack(address="192.0.2.2", server=self.two)
        self.settle()
        self.successResultOf(coming)
        self.assertFalse(alice.recovered())


class StopTests(HandoverTestCase):
    """
    Servers that stop hand their clients to others.
    """

    def stop(self, server: Server) -> None:
        stopped = server.stopService()
        self.settle()
        for _ in range(20):
            self.advance(0.5)
        self.successResultOf(stopped)

    def test_stop(self) -> None:
        clients = [self.join(self.one) for _ in range(120)]
        for client in clients:
            self.socketOf(self.one, client).join("red")
        self.two.emit("one")
        self.settle()
        for client in clients:
            self.assertEqual(client.received(), [("one",)])
        self.two.emit("two")
        self.settle()
        for client in clients:
            client.lose()
        self.stop(self.one)
        self.two.to("red").emit("three")
        self.settle()
        for client in clients:
            self.back(client, self.three)
            self.assertTrue(client.recovered())
            self.assertEqual(client.received(), [("two",), ("three",)])

    def test_rollingRestart(self) -> None:
        """Three rounds: nothing missing, and nothing twice."""
        clients = [self.join(server) for server in self.servers for _ in range(5)]
        numbers = [0] * len(clients)
        count = 0
        for round in range(3):
            old = self.servers[round]
            stopped = old.stopService()
            new = self.member(f"new {round}")
            for step in range(12):
                if step != 4:
                    new.emit("number", count)
                    count += 1
                self.advance(0.5)
            self.successResultOf(stopped)
            for index, client in enumerate(clients):
                if client.transport.closed is not None or client.session is None:
                    self.back(client, self.servers[(index + round) % 3 + round + 1])
                    self.assertTrue(client.recovered())
                for _, number in client.received():
                    self.assertEqual(number, numbers[index])
                    numbers[index] += 1
        self.assertEqual(numbers, [count] * len(clients))

    def test_eventsMeanwhile(self) -> None:
        """Events from all servers, in each step of the stop."""
        clients = [self.join(self.one) for _ in range(4)]
        for client in clients:
            self.socketOf(self.one, client).join("red")
        stopped = self.one.stopService()
        counts = {server.cluster.name: 0 for server in self.servers}
        for _ in range(40):
            for server in self.servers:
                if server.running:
                    name = server.cluster.name
                    server.emit("all", name, counts[name])
                    server.to("red").emit("red", name, counts[name])
                    counts[name] += 1
            self.clock.advance(0.01)
        self.settle()
        self.successResultOf(stopped)
        for client in clients:
            self.back(client, self.three)
            self.assertTrue(client.recovered())
            got = client.received()
            for name, count in counts.items():
                for event in ("all", "red"):
                    numbers = [number for what, sender, number in got if (what, sender) == (event, name)]
                    self.assertEqual(numbers, list(range(count)))

    def test_lateOnTheBus(self) -> None:
        """An event that was in the old server's log comes from the bus only after the return: not twice."""
        alice, bob = self.join(self.one), self.join(self.two)
        alice.lose()
        self.three.emit("number", 0)
        self.settle()
        self.back(alice, self.two)
        recovery = self.two.namespace()._recovery
        topic = f"txrealtime,{self.two.namespace().path}"
        mark = [self.three.cluster.uid, topic, 1]
        messages = self.two.namespace()._encode(Packet(PacketType.EVENT, "/", ["number", 0]))
        recovery.deliver(self.two.namespace().everyone, messages, mark=mark)
        self.assertEqual(alice.received(), [("number", 0)])
        self.assertEqual(bob.received(), [("number", 0)] * 2)
        alice.lose()
        self.back(alice, self.two)
        self.assertEqual((alice.recovered(), alice.received()), (True, []))

    def test_inTheLogsOfThreeServers(self) -> None:
        """A server that stops hands a client to another one, and the client comes to a third."""
        alice = self.join(self.one)
        alice.lose()
        self.two.emit("number", 0)
        self.three._namespaces.parking.isStaying = False
        self.stop(self.one)
        recovery = self.three.namespace()._recovery
        adopt = recovery.adopt

        def adoptMeanwhile(pid: str, session: dict[str, Any]) -> Any:
            ticket = adopt(pid, session)
            self.two.emit("number", 1)
            return ticket

        self.patch(recovery, "adopt", adoptMeanwhile)
        self.back(alice, self.three)
        self.assertTrue(alice.recovered())
        self.assertEqual(alice.received(), [("number", 0), ("number", 1)])

    def test_handedOnTwice(self) -> None:
        """The client's last offset is that of the first server, and stays valid."""
        alice = self.join(self.one)
        for number in range(3):
            self.three.emit("number", number)
            self.settle()
        self.assertEqual(len(alice.received()), 3)
        alice.lose()
        self.three.emit("number", 3)
        self.advance(1)
        self.two._namespaces.parking.isStaying, self.three._namespaces.parking.isStaying = True, False
        self.stop(self.one)
        self.assertEqual(len(self.two._namespaces.parking), 1)
        self.three.emit("number", 4)
        self.settle()
        self.three._namespaces.parking.isStaying = True
        self.stop(self.two)
        self.three.emit("number", 5)
        self.back(alice, self.three)
        self.assertTrue(alice.recovered())
        self.assertEqual(alice.received(), [("number", 3), ("number", 4), ("number", 5)])

    def test_alone(self) -> None:
        """The last server has nobody to hand its clients to."""
        alice = self.join(self.one)
        self.stop(self.two)
        self.stop(self.three)
        self.stop(self.one)
        self.assertFalse(alice.isConnected())
