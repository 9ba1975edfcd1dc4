"""
Clients that recover by the streams of Node's servers.

Among them are the faults of @socket.io/redis-streams-adapter 0.3, as tests of what is right.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError

from tests.streams import NODE_STREAMS, SlowHub, StreamsBus, StreamsHub
from tests.test_handover import HandoverTestCase
from txrealtime import ConnectionRejected, Server
from txrealtime.cluster import rereading
from txrealtime.cluster.link.link import LinkStatus
from txrealtime.errors import BusError
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.msgpack import packed, unpacked
from txrealtime.testing import Client


class StreamsTestCase(HandoverTestCase):
    """
    Alice and bob, on the first server; alice is in red.
    """

    DIALECT = NODE_STREAMS
    HUB = StreamsHub
    BUS = StreamsBus
    options: dict[str, Any] = {"recovery": "all"}
    hub: StreamsHub

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.join(self.one), self.join(self.one)
        self.socket = self.socketOf(self.one, self.alice)
        self.first = self.alice.id()
        self.socket.join("red")
        self.settle()
        self.one.emit("first")
        self.settle()
        self.assertEqual(self.alice.received(), [("first",)])
        self.key = f"sio:session:{self.socket._ticket.pid}".encode()

    def session(self) -> dict[str, Any]:
        fields: dict[str, Any] = unpacked(b64decode(self.hub.keys[self.key]))
        return fields

    def back(self, client: Client, server: Server, seconds: float = 1.0) -> None:
        coming = client.comeBack(server=server)
        for _ in range(round(4 * seconds)):
            self.advance(0.25)
        self.successResultOf(coming)

    def node(self, name: str, *args: Any, type: int = 3, rooms: Any = (), **fields: Any) -> None:
        """Add an entry as a server of Node does."""
        data = {
            "packet": {"type": 2, "data": [name, *args], **fields},
            "opts": {"rooms": list(rooms), "except": [], "flags": fields.pop("flags", {})},
        }
        self.hub.deliver("/", b"4786061bfb020bae %d %b" % (type, b64encode(packed(data))))

    def interfere(self, act: Callable[[Any], object], isAfter: bool = False) -> Any:
        """Do something before or after each command to Redis, until the result's ``restore()``."""
        command = self.hub.command

        def interfering(*words: str | bytes) -> Any:
            if not isAfter:
                act(words)
            reply = command(*words)
            if isAfter:
                act(words)
            return reply

        return self.patch(self.hub, "command", interfering)


class ReturnTests(StreamsTestCase):
    def test_moves(self) -> None:
        """The client gets once, in one order, what all servers have said; it has its room and its data."""
        self.socket.data["n"] = 7
        self.alice.lose()
        self.settle()
        self.one.to("red").emit("a", b"1")
        self.two.emit("b")
        self.settle()
        self.node("c", b"2", rooms=["red"])
        self.one.to("blue").emit("not hers")
        self.three.to(self.first).emit("d")
        self.settle()
        self.back(self.alice, self.two)
        self.assertEqual(self.alice.received(), [("a", b"1"), ("b",), ("c", b"2"), ("d",)])
        self.assertEqual((self.alice.id(), self.alice.recovered()), (self.first, True))
        socket = self.socketOf(self.two, self.alice)
        self.assertEqual((socket.data, socket.rooms), ({"n": 7}, {self.first, "red"}))
        self.assertEqual(self.results(self.two), {"moved": 1})
        self.one.to("red").emit("e")
        self.assertEqual(self.get(self.alice), [[("e",)]])
        self.alice.lose()
        self.settle()
        self.two.to("red").emit("f")
        self.settle()
        self.back(self.alice, self.three)
        self.assertEqual(self.alice.received(), [("f",)])

    def test_sameServer(self) -> None:
        self.alice.lose()
        self.one.emit("a")
        self.settle()
        self.socket.emit("to the old socket")
        self.settle()
        self.back(self.alice, self.one)
        self.assertEqual(self.alice.received(), [("a",), ("to the old socket",)])
        self.assertEqual(self.alice.id(), self.first)

    def test_withoutAnEvent(self) -> None:
        """A client that never had an event sends no offset: its session has its beginning."""
        carol = self.join(self.one)
        self.settle()
        carol.lose()
        self.two.emit("a")
        self.settle()
        self.back(carol, self.two)
        self.assertEqual((carol.received(), carol.recovered()), ([("a",)], True))

    def test_takeover(self) -> None:
        """The server has not noticed that the client is gone."""
        self.alice.lose(noticed=False)
        self.one.emit("a")
        self.settle()
        self.back(self.alice, self.one)
        self.assertEqual((self.alice.received(), self.alice.id()), ([("a",)], self.first))
        self.assertEqual(self.results(self.one), {"takeover": 1})

    def test_takenByAnother(self) -> None:
        """A server that has not noticed the cut lets the client go when its key has gone."""
        self.alice.lose(noticed=False)
        self.back(self.alice, self.two)
        self.assertTrue(self.alice.recovered())
        self.socket.data["late"] = True
        self.advance(2)
        self.assertFalse(self.socket.connected)
        self.assertEqual(self.session()["data"], {}, "the other server's key stays")
        self.assertEqual(self.one.namespace()._recovery.tickets.keys(), {self.bob_pid})

    @property
    def bob_pid(self) -> str:
        return self.socketOf(self.one, self.bob)._ticket.pid

    def test_killed(self) -> None:
        """The key is there while the client is, with its latest data a second later."""
        self.socket.join("blue")
        self.socket.data["n"] = 1
        self.advance(1.5)
        session = self.session()
        self.assertEqual(session["rooms"], sorted([self.first, "blue", "red"]))
        self.assertEqual((session["data"], session["sid"], session["nsp"]), ({"n": 1}, self.first, "/"))

    def test_ended(self) -> None:
        """A client that leaves, or is sent away, leaves nothing."""
        self.assertEqual(len(self.hub.keys), 2)
        self.socket.disconnect()
        self.bob.disconnect()
        self.settle()
        self.assertEqual(self.hub.keys, {})

    def test_fromNode(self) -> None:
        """Its session has no field but Node's four."""
        self.alice.lose()
        self.settle()
        fields = self.session()
        node = {name: fields[name] for name in ("sid", "pid", "rooms", "data")}
        self.hub.keys[self.key] = b64encode(packed(node))
        self.node("a")
        self.back(self.alice, self.two)
        self.assertEqual((self.alice.received(), self.alice.id()), ([("a",)], self.first))

    def test_fasterThanTheKey(self) -> None:
        """Node's servers write the key when they notice the cut: a client may be here before."""
        self.alice.lose()
        self.settle()
        value = self.hub.keys.pop(self.key)
        coming = self.alice.comeBack(server=self.two)
        self.advance(0.25)
        self.hub.keys[self.key] = value
        self.advance(0.5)
        self.successResultOf(coming)
        self.assertTrue(self.alice.recovered())

    def test_serverStops(self) -> None:
        stopping = self.one.stopService()
        self.advance(1)
        self.two.emit("a")
        self.advance(3)
        self.successResultOf(stopping)
        self.back(self.alice, self.two)
        self.assertEqual((self.alice.received(), self.alice.recovered()), ([("a",)], True))

    def test_refusedAgain(self) -> None:
        """A client that the application does not want is sent nothing of what it missed."""

        @self.two.onConnect
        def came(socket: Any) -> None:
            raise ConnectionRejected("no")

        self.alice.lose()
        self.one.emit("secret")
        self.settle()
        coming = self.alice.comeBack(server=self.two)
        for _ in range(4):
            self.advance(0.25)
        self.failureResultOf(coming)
        self.assertEqual(self.alice.received(), [])
        self.assertNotIn(self.key, self.hub.keys)

    def test_takenTooLate(self) -> None:
        """A Redis that hung leaves the session for the next server."""
        self.alice.lose()
        self.settle()
        namespace = self.two.namespace()
        pid = self.key.decode().rpartition(":")[2]

        def hang(words: Any) -> None:
            if words[0] == "EVAL":
                self.hub.now += 30

        hub = self.interfere(hang)
        fetching = namespace._peers.fetchClient(namespace, Claim(pid, None, True), "")
        self.advance(1)
        hub.restore()
        self.assertIsNone(self.successResultOf(fetching))
        self.assertIn(b"EVAL", [words[0] for words in self.hub.asked])
        self.assertIn(self.key, self.hub.keys)

    def test_goesWhileAsked(self) -> None:
        """The session is put back, and the next attempt succeeds."""
        self.alice.lose()
        self.one.emit("a")
        self.settle()
        namespace = self.two.namespace()
        pid = self.key.decode().rpartition(":")[2]
        for step in ("GET", "XINFO", "XRANGE", "EVAL"):
            fetching: list[Any] = []
            hub = self.interfere(lambda words, step=step, its=fetching: words[0] == step and its[0].cancel())
            fetching.append(namespace._peers.fetchClient(namespace, Claim(pid, None, True), ""))
            self.settle()
            hub.restore()
            self.failureResultOf(fetching[0], CancelledError)
            self.assertIn(self.key, self.hub.keys, step)
            self.assertEqual(namespace._recovery._arrivals, [])
        self.assertIn([b"SET", self.key], [words[:2] for words in self.hub.asked], "put back")
        self.back(self.alice, self.two)
        self.assertEqual(self.alice.received(), [("a",)])


class OrderTests(StreamsTestCase):
    """
    A server's own events go round, and nothing that is sent past them overtakes them.
    """

    def test_oneOrder(self) -> None:
        """Clients of all servers get the events of all in one order, each with the id of its entry."""
        people = [self.alice, self.join(self.two), self.join(self.three)]
        for number in range(20):
            self.servers[number % 3].emit("n", number)
        got = self.get(*people)
        self.assertEqual(len(got[0]), 20)
        self.assertEqual((got[1], got[2]), (got[0], got[0]))

    def test_ack(self) -> None:
        @self.one.on("ask")
        def ask(socket: Any) -> str:
            socket.emit("before")
            return "ack"

        order: list[Any] = []
        self.alice.call("ask").addCallback(lambda ack: order.append((ack, self.alice.received())))
        self.settle()
        self.assertEqual(order, [("ack", [("before",)])])

    def test_disconnect(self) -> None:
        self.socket.emit("goodbye")
        self.one.to("red").emit("red", 1)
        self.one.to("blue").emit("not hers")
        self.socket.disconnect()
        self.assertEqual(self.get(self.alice), [[("goodbye",), ("red", 1)]])

    def test_call(self) -> None:
        """Nor do events that want an ack, to one or to many."""
        self.alice.on("ready?", lambda: True)
        self.socket.emit("news")
        answer = self.socket.call("ready?")
        self.settle()
        self.successResultOf(answer)
        self.socket.emit("news")
        answers = self.one.to("red").call("ready?")
        self.settle()
        self.successResultOf(answers)
        self.assertEqual(self.alice.received(), [("news",), ("ready?",)] * 2)

    def test_inAdmission(self) -> None:
        """An event that is emitted before the client is admitted reaches it right after."""

        @self.one.onConnect
        def came(socket: Any) -> None:
            socket.emit("hello")

        self.assertEqual(self.get(self.join(self.one)), [[("hello",)]])

    def test_volatile(self) -> None:
        self.one.emit("position", volatile=True)
        self.one.emit("text", "text", volatile=True)
        self.assertEqual(self.get(self.alice), [[("position",), ("text", "text")]])

    def test_local(self) -> None:
        """An event for this server's clients does not cross, and its last text is not taken for an offset."""
        before = len(self.hub.entries)
        self.one.namespace().everyone.local.emit("here", "a text")
        self.assertEqual(self.get(self.alice), [[("here", "a text")]])
        self.assertEqual(len(self.hub.entries), before)
        self.alice.lose()
        self.settle()
        self.back(self.alice, self.two)
        self.assertTrue(self.alice.recovered())

    def test_refusedByRedis(self) -> None:
        """An event that does not come back holds up acks for some seconds, and no longer."""
        self.one.on("ask")(lambda socket: socket.emit("lost"))
        deliver, self.hub.deliver = self.hub.deliver, lambda *message: None  # type: ignore[method-assign]
        acked = self.alice.call("ask")
        self.settle()
        self.hub.deliver = deliver  # type: ignore[method-assign]
        self.assertNoResult(acked)
        self.advance(10)
        self.successResultOf(acked)

    def test_outage(self) -> None:
        """Without the bus, this server's events wait; acks do not."""
        self.one.on("ask")(lambda socket: socket.emit("later"))
        self.hub.stop()
        self.advance(6)
        acked = self.alice.call("ask")
        self.settle()
        self.successResultOf(acked)
        self.assertEqual(self.alice.received(), [])
        self.hub.start()
        self.advance(20)
        self.assertEqual(self.alice.received(), [("later",)])


class FaultTests(StreamsTestCase):
    """
    The faults of Node's adapter.
    """

    def test_volatileIsNotReplayed(self) -> None:
        self.alice.lose()
        self.one.emit("position", "text", volatile=True)
        self.node("theirs", flags={"volatile": True})
        self.one.emit("a")
        self.settle()
        self.back(self.alice, self.two)
        self.assertEqual(self.alice.received(), [("a",)])

    def test_withAckIsNotReplayed(self) -> None:
        self.alice.lose()
        self.node("acked", id=1, rooms=[self.first])
        self.node("a")
        self.settle()
        self.back(self.alice, self.two)
        self.assertEqual(self.alice.received(), [("a",)])
        self.node("acked", id=2, rooms=[self.first])
        self.assertEqual(self.get(self.alice), [[]])

    def test_unknownOffset(self) -> None:
        """No offset deletes a session: neither one of the future nor one that cannot be."""
        self.alice.lose()
        self.one.emit("a")
        self.settle()
        namespace = self.two.namespace()
        pid = self.key.decode().rpartition(":")[2]
        for claim in (
            Claim(pid, "9999999999999-0", True),
            Claim(pid, None, False),
            Claim("another", None, True),
        ):
            fetching = namespace._peers.fetchClient(namespace, claim, "")
            self.advance(4)
            self.assertIsNone(self.successResultOf(fetching))
        self.assertIn(self.key, self.hub.keys)
        self.back(self.alice, self.two)
        self.assertEqual((self.alice.received(), self.alice.recovered()), ([("a",)], True))

    def test_oldOffset(self) -> None:
        """JavaScript clients keep an offset that is older than their session: nothing comes twice."""
        carol = self.join(self.one)
        self.settle()
        pid = self.socketOf(self.one, carol)._ticket.pid
        carol.lose()
        self.settle()
        namespace = self.two.namespace()
        oldest = f"{self.hub.entries[0][0]}-0"
        fetching = namespace._peers.fetchClient(namespace, Claim(pid, oldest, True), "")
        self.settle()
        self.assertIsNotNone(self.successResultOf(fetching))
        self.assertEqual(namespace._recovery._replays.pop(pid), [])
        namespace._recovery.end(namespace._recovery.tickets[pid])

    def test_trimmed(self) -> None:
        """A client whose events are gone gets a fresh session, and not a part of them."""
        self.alice.lose()
        for number in range(5):
            self.one.emit("n", number)
        self.settle()
        self.hub.trim()
        self.back(self.alice, self.two)
        self.assertEqual((self.alice.received(), self.alice.recovered()), ([], False))
        self.assertEqual(self.results(self.two), {"unknown": 1})

    def test_trimmedWhileItIsRead(self) -> None:
        self.patch(rereading, "_PAGE", 2)
        self.alice.lose()
        for number in range(5):
            self.one.emit("n", number)
        self.settle()

        def trim(words: list[bytes]) -> None:
            if words[0] == "XRANGE" and words[-1] == "2":
                self.hub.trim()

        self.interfere(trim, isAfter=True)
        self.back(self.alice, self.two)
        self.assertEqual((self.alice.received(), self.alice.recovered()), ([], False))

    def test_longGap(self) -> None:
        """The stream is read page by page."""
        self.patch(rereading, "_PAGE", 7)
        self.alice.lose()
        for number in range(50):
            self.one.emit("n", number)
            self.two.to("blue").emit("not hers")
        self.settle()
        self.hub.asked.clear()
        self.back(self.alice, self.two)
        self.assertEqual(self.alice.received(), [("n", number) for number in range(50)])
        pages = [words for words in self.hub.asked if words[0] == b"XRANGE" and words[-1] == b"7"]
        self.assertEqual(len(pages), 15)

    def test_tooMuch(self) -> None:
        """More than a client may have buffered is refused, whether it was missed or comes meanwhile."""
        self.alice.lose()
        for _ in range(5):
            self.one.emit("n", "x" * 1_000_000)
        self.settle()
        self.back(self.alice, self.two)
        self.assertEqual((self.alice.received(), self.alice.recovered()), ([], False))

    def test_betweenTheReadAndTheJoin(self) -> None:
        """Before and after each command of a return, an event comes once."""
        counts: list[Any] = []

        def adds(words: Any, at: int) -> None:
            counts.append(words)
            if len(counts) == at:
                self.node("meanwhile")

        for step in range(10):
            for isAfter in (False, True):
                self.alice.lose()
                self.settle()
                self.node("before")
                counts.clear()
                hub = self.interfere(lambda words, at=step: adds(words, at), isAfter)
                self.back(self.alice, self.servers[step % 3])
                hub.restore()
                self.node("after")
                (got,) = self.get(self.alice)
                names = ["before", "meanwhile", "after"] if 0 < step <= len(counts) else ["before", "after"]
                self.assertEqual([name for (name,) in got], names, (step, isAfter))
                self.assertTrue(self.alice.recovered())
                self.assertGreaterEqual(len(counts), 4)

    def test_aheadOfThisServer(self) -> None:
        """The server that the client left may have read further: its events do not come again."""
        self.alice.lose()
        self.settle()
        bus = self.two.cluster.link.bus
        self.patch(bus, "placeOf", lambda lost, topic="": f"{self.hub.last - 1}.0")
        coming = self.alice.comeBack(server=self.two)
        self.advance(0.1)
        self.assertNoResult(coming)
        self.patch(bus, "placeOf", lambda lost, topic="": f"{self.hub.last}.0")
        self.advance(1)
        self.successResultOf(coming)
        self.assertEqual((self.alice.received(), self.alice.recovered()), ([], True))

    def test_onlyOne(self) -> None:
        """One of two servers gets a client that comes to both at the same time."""
        self.alice.lose()
        self.settle()
        pid = self.key.decode().rpartition(":")[2]
        fetching = []
        for server in (self.two, self.three):
            namespace = server.namespace()
            fetching.append(namespace._peers.fetchClient(namespace, Claim(pid, None, True), ""))
        self.advance(1)
        found = [self.successResultOf(each) for each in fetching]
        self.assertEqual(found.count(None), 1)
        for ticket in found:
            if ticket is not None:
                ticket.recovery._replays.clear()
                ticket.recovery.end(ticket)


class TogetherTests(StreamsTestCase):
    """
    Many clients that come back to one server at the same time.
    """

    HUB = SlowHub
    hub: SlowHub

    def away(self, count: int) -> list[Client]:
        """Return clients of the first server in red that have gone."""
        clients = [self.join(self.one) for _ in range(count)]
        self.pids: dict[Client, str] = {}
        for client in clients:
            socket = self.socketOf(self.one, client)
            socket.join("red")
            self.pids[client] = socket._ticket.pid
        self.settle()
        for client in clients:
            client.lose()
        self.settle()
        return clients

    def come(self, clients: list[Client], seconds: float = 1.0) -> None:
        """Let clients come back to the second server."""
        self.hub.asked.clear()
        coming = [client.comeBack(server=self.two) for client in clients]
        self.advance(seconds)
        for each in coming:
            self.successResultOf(each)

    def fetch(self, client: Client) -> Any:
        """Fetch a client that has gone to the second server."""
        namespace = self.two.namespace()
        return namespace._peers.fetchClient(namespace, Claim(self.pids[client], None, True), "")

    def pages(self) -> int:
        return sum(words[0] == b"XRANGE" for words in self.hub.asked)

    def test_once(self) -> None:
        """One reading for all of them, and one encoding of each event, whatever places they come from."""
        clients = self.away(10)
        self.node("a", 1)
        clients += self.away(10)
        self.node("b", 2, rooms=["red"])
        self.node("not theirs", rooms=["blue"])
        self.one.excluding("red").emit("nor this")
        self.settle()
        self.node("c", b"3")
        encoded: list[str] = []
        recovery = self.two.namespace()._recovery
        replayed = recovery.replayed

        def replaying(messages: Any, packet: Any, place: str) -> Any:
            encoded.append(packet.data[0])
            return replayed(messages, packet, place)

        self.patch(recovery, "replayed", replaying)
        self.come(clients)
        self.two.emit("live")
        self.settle()
        for number, client in enumerate(clients):
            first = [("a", 1)] if number < 10 else []
            self.assertEqual(client.received(), [*first, ("b", 2), ("c", b"3"), ("live",)])
            self.assertTrue(client.recovered())
        self.assertLess(self.pages(), 4)
        self.assertLess(len(encoded), 3 * 3 + 1)
        self.assertGreaterEqual(set(encoded), {"a", "b", "c"})
        self.assertNotIn("not theirs", encoded)

    def test_heartbeat(self) -> None:
        """The heartbeat stands behind one page at most, however many clients come: the link stays ready."""
        self.patch(rereading, "_PAGE", 50)
        clients = self.away(30)
        for number in range(400):
            self.node("n", number)
        statuses: list[LinkStatus] = []
        link = self.two.cluster.link
        link.watch(statuses.append)
        self.hub.cost = 0.005
        self.come(clients, 25)
        self.hub.cost = 0.0
        for client in clients:
            self.assertEqual(client.received(), [("n", number) for number in range(400)])
            self.assertTrue(client.recovered())
        self.assertLess(self.pages(), 8 * 3 + 1)
        self.assertEqual((statuses, link.counts.outages), ([], 0))

    def test_tooMuch(self) -> None:
        """A client that missed too much does not keep the others; without others the reading ends."""
        self.patch(rereading, "_PAGE", 1)
        (early,) = self.away(1)
        for _ in range(5):
            self.node("large", "x" * 1_000_000)
        self.hub.asked.clear()
        fetching = self.fetch(early)
        self.advance(1)
        self.assertIsNone(self.successResultOf(fetching))
        self.assertEqual(self.pages(), 4)
        (late,) = self.away(1)
        for number in range(20):
            self.node("n", number)
        self.come([early, late])
        self.assertEqual((early.received(), early.recovered()), ([], False))
        self.assertEqual((late.received(), late.recovered()), ([("n", n) for n in range(20)], True))

    def test_goneMeanwhile(self) -> None:
        """Nothing is read for clients that have gone again: neither on, nor in the next turn."""
        self.patch(rereading, "_PAGE", 1)
        one, two, three = self.away(3)
        for number in range(20):
            self.node("n", number)
        fetching = [self.fetch(one)]

        def asked(words: Any) -> None:
            if self.pages() == 3 and len(fetching) == 1:
                fetching.append(self.fetch(two))
            elif self.pages() == 6:
                for each in fetching:
                    each.cancel()

        self.hub.asked.clear()
        hub = self.interfere(asked)
        self.advance(1)
        hub.restore()
        for each in fetching:
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.pages(), 7, "the seventh had been asked for")
        self.come([one, two, three])
        for client in (one, two, three):
            self.assertEqual(client.received(), [("n", number) for number in range(20)])

    def test_namespaces(self) -> None:
        """The events of namespaces of which nobody comes back are not decoded."""
        clients = self.away(2)
        self.hub.deliver("/news", b"4786061bfb020bae 3 {no JSON")
        self.hub.deliver("/", b"4786061bfb020bae 3 {no JSON")
        self.node("a")
        read: list[str] = []
        dialect: Any = self.two.cluster._conversation.dialect
        readEvent = dialect.readEvent
        self.patch(dialect, "readEvent", lambda path, entry: read.append(path) or readEvent(path, entry))
        self.come(clients)
        for client in clients:
            self.assertEqual((client.received(), client.recovered()), ([("a",)], True))
        self.assertEqual(set(read), {"/"})
        fields = [b"uid", b"emitter", b"nsp", b"/\xff", b"type", b"3", b"data", b"{}"]
        self.assertIsNone(self.two.cluster._keeping._returns._eventOf(b"1-0", fields, {"/"}))


class FailureTests(StreamsTestCase):
    """
    The connection to Redis ends at each of the commands, and is there again.
    """

    def check(self, name: str) -> None:
        failing = [name]

        def asked(words: Any) -> None:
            if [words[0]] == failing:
                failing.clear()
                for publisher in list(self.hub.publishers):
                    publisher.end("a test")
                raise BusError("the connection was ended")

        self.alice.lose()
        self.node("a")
        self.settle()
        hub = self.interfere(asked)
        self.back(self.alice, self.two, 7)
        hub.restore()
        self.assertEqual(failing, [])
        self.assertEqual((self.alice.received(), self.alice.recovered()), ([("a",)], True))

    def test_get(self) -> None:
        self.check("GET")

    def test_xinfo(self) -> None:
        self.check("XINFO")

    def test_xrange(self) -> None:
        self.check("XRANGE")

    def test_eval(self) -> None:
        self.check("EVAL")

    def test_refused(self) -> None:
        """The client gets a fresh session, and the one in Redis stays."""

        def asked(words: Any) -> None:
            if words[0] == "XRANGE":
                raise BusError("OOM command not allowed")

        self.alice.lose()
        self.node("a")
        hub = self.interfere(asked)
        self.back(self.alice, self.two)
        hub.restore()
        self.assertFalse(self.alice.recovered())
        self.assertIn(self.key, self.hub.keys)


class AddressTests(StreamsTestCase):
    options = {"recovery": "all", "recoveryAddress": True}

    def test_another(self) -> None:
        """A session of Node's servers has no address, so it is not given to anybody."""
        self.alice.lose()
        self.settle()
        fields = self.session()
        del fields["address"]
        self.hub.keys[self.key] = b64encode(packed(fields))
        self.back(self.alice, self.two)
        self.assertFalse(self.alice.recovered())
        self.assertIn(self.key, self.hub.keys)


class AwayTests(HandoverTestCase):
    NAMES = ()

    def test_refused(self) -> None:
        """No socket can stay while its client may come to any server."""
        server = self.makeServer(start=False, recoveryAway=True)
        server.cluster.use(StreamsBus(StreamsHub()), NODE_STREAMS)
        self.assertIn("recoveryAway", str(self.assertRaises(ValueError, server.startService)))
        self.servers.clear()
