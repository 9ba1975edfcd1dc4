"""
Events handled once: a repeated event gets the ack of the first, and its handler runs once.
"""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from tests.talk import TalkTestCase
from txrealtime import BusError, Incoming, Server, TryAgain, once
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.results import MISSING, IResults, MemoryResults, RedisResults, packed, unpacked
from txrealtime.socketio.namespace import NO_ACK
from txrealtime.testing import Client


class OnceTestCase(TalkTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ran: list[Any] = []
        self.results = MemoryResults()
        self.one, self.two = [self.serve(self.results) for _ in range(2)]
        self.ann, self.bob = self.join(self.one), self.join(self.two)

    def serve(self, store: IResults | None, **options: Any) -> Server:
        server = self.makeServer()
        server.use(once("order", "slow", "fails", key=0, store=store, **options))
        self.slow: list[Deferred[Any]] = []

        @server.on("order")
        def order(socket: Any, key: Any, *args: Any) -> Any:
            self.ran.append((key, *args))
            return {"number": len(self.ran)}

        @server.on("slow")
        async def slow(socket: Any, key: Any) -> Any:
            self.ran.append(key)
            self.slow.append(Deferred())
            return await self.slow[-1]

        @server.on("fails")
        def fails(socket: Any, key: Any) -> Any:
            self.ran.append(key)
            raise ValueError("out of stock")

        return server

    def tearDown(self) -> None:
        for handling in self.slow:
            if not handling.called:
                handling.callback(None)
        super().tearDown()

    def settle(self) -> None:
        for client in self.clients:
            client.flush()

    def ack(self, client: Client, event: str, *args: Any) -> Any:
        return self.successResultOf(client.call(event, *args))


class OnceTests(OnceTestCase):
    def test_repeated(self) -> None:
        """The second event gets the first ack, on this server or another with the same store."""
        self.assertEqual(self.ack(self.ann, "order", "a", 3), {"number": 1})
        self.assertEqual(self.ack(self.ann, "order", "a", 3), {"number": 1})
        self.assertEqual(self.ack(self.bob, "order", "a", 3), {"number": 1})
        self.assertEqual(self.ack(self.bob, "order", "b", 3), {"number": 2})
        self.assertEqual(self.ran, [("a", 3), ("b", 3)])

    def test_otherArguments(self) -> None:
        """A key that has come with other arguments does not tell the result of these."""
        self.ack(self.ann, "order", "a", 3)
        self.assertIn("choose a new key", self.ack(self.bob, "order", "a", 4)["error"])
        self.ack(self.ann, "order", "c", b"1")
        self.assertIn("choose a new key", self.ack(self.ann, "order", "c", b"2")["error"])
        self.assertEqual(len(self.ran), 2)

    def test_otherEvent(self) -> None:
        """Keys of different events and namespaces have nothing to do with each other."""
        self.ack(self.ann, "order", "a")
        self.ann.call("slow", "a")
        self.assertEqual(self.ran, [("a",), "a"])

    def test_otherEventsGoOn(self) -> None:
        @self.one.on("plain")
        def plain(socket: Any, key: Any) -> int:
            self.ran.append(key)
            return len(self.ran)

        self.assertEqual([self.ack(self.ann, "plain", "a") for _ in range(2)], [1, 2])

    def test_withoutKey(self) -> None:
        """An event whose key is missing is handled each time."""
        self.assertEqual([self.ack(self.ann, "order", None)["number"] for _ in range(2)], [1, 2])

    def test_tenAtTheSameMoment(self) -> None:
        """Ten equal events of ten clients, on two servers: one run, ten equal acks."""
        clients = [self.join(server) for server in (self.one, self.two) for _ in range(5)]
        acks = [client.call("slow", "a") for client in clients]
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.ran, ["a"])
        self.slow[0].callback(["done", b"\0"])
        for _ in range(4):
            self.clock.advance(0.5)
            self.settle()
        self.assertEqual([self.successResultOf(ack) for ack in acks], [["done", b"\0"]] * 10)
        self.assertEqual(self.ran, ["a"])

    def test_firstFails(self) -> None:
        """Whenever the first run fails, nothing is kept: those that wait are told, and the next runs anew."""
        waits = self.ann.call("slow", "a")
        here, there = self.join(self.one).call("slow", "a"), self.bob.call("slow", "a")
        self.slow[0].errback(ValueError("no"))
        self.clock.advance(1)
        self.settle()
        self.assertNoResult(waits)
        for ack in (here, there):
            self.assertIn("send it again", self.successResultOf(ack)["error"])
        self.bob.call("slow", "a")
        self.assertEqual(self.ran, ["a", "a"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_errorHandler(self) -> None:
        """An ack of an error handler is not kept either."""
        self.one.onError(ValueError)(lambda socket, error: str(error))
        for _ in range(2):
            self.assertEqual(self.ack(self.ann, "fails", "a"), "out of stock")
        self.assertEqual(self.ran, ["a", "a"])

    def test_ackOfTheApplication(self) -> None:
        self.one.onError(TryAgain)(lambda socket, error: "once more")
        self.ack(self.ann, "order", "a", 1)
        self.assertEqual(self.ack(self.ann, "order", "a", 2), "once more")

    def test_expiry(self) -> None:
        self.ack(self.ann, "order", "a")
        self.advance(599)
        self.assertEqual(self.ack(self.ann, "order", "a"), {"number": 1})
        self.advance(2)
        self.assertEqual(self.ack(self.ann, "order", "a"), {"number": 2})

    def test_leaseIsRenewed(self) -> None:
        """A handler may take longer than the lease."""
        first, second = self.ann.call("slow", "a"), self.bob.call("slow", "a")
        self.advance(50)
        self.slow[0].callback(7)
        self.advance(1)
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (7, 7))
        self.assertEqual(self.ran, ["a"])

    def test_serverIsKilled(self) -> None:
        """When the lease of a killed server is over, those that wait are told, and the next event runs."""
        self.ann.call("slow", "a")
        waits = self.bob.call("slow", "a")
        self.patch(self.results, "renew", lambda *args: fail(OSError("killed")))
        self.advance(14)
        self.assertNoResult(waits)
        self.advance(2)
        self.assertIn("send it again", self.successResultOf(waits)["error"])
        again = self.bob.call("slow", "a")
        self.slow[1].callback(8)
        self.settle()
        self.assertEqual(self.successResultOf(again), 8)
        self.slow[0].callback(7)  # it was not dead: its result does not replace the other
        self.assertEqual(self.ack(self.bob, "slow", "a"), 8)

    def test_patience(self) -> None:
        """A repeated event does not wait for ever."""
        self.ann.call("slow", "a")
        waits = self.bob.call("slow", "a")
        self.advance(62)
        self.assertIn("later", self.successResultOf(waits)["error"])
        self.slow[0].callback(None)

    def test_storeIsAway(self) -> None:
        """Without the store, nothing is handled, and the client is told."""

        class Broken(MemoryResults):
            def claim(self, clock: IReactorTime, name: str, mine: bytes, lease: float) -> Any:
                return fail(OSError("no Redis"))

        client = self.join(self.serve(Broken()))
        self.assertIn("send it again", self.ack(client, "order", "a")["error"])
        self.assertEqual(self.ran, [])

    def test_storeGoesMeanwhile(self) -> None:
        """If the result cannot be kept, the first client has it all the same."""

        class Broken(MemoryResults):
            def finish(self, clock: IReactorTime, name: str, *rest: Any) -> Any:
                return fail(OSError("no Redis"))

        client = self.join(self.serve(Broken()))
        self.assertEqual(self.ack(client, "order", "a"), {"number": 1})


class UnusualEndTests(OnceTestCase):
    """Runs that end without a result and without an exception of the application: nothing of them stays."""

    def setUp(self) -> None:
        super().setUp()
        (handler,) = self.one.namespace()._handlers.middleware
        self.once: Any = handler.function

    def begin(self, proceed: Any = None) -> Deferred[Any]:
        """Handle the event "slow" with the key "a", past the server."""
        socket = self.socketOf(self.one, self.ann)
        handle = proceed or (lambda incoming: self.one.namespace()._dispatcher.handle(*incoming))
        return Deferred.fromCoroutine(self.once(Incoming(socket, "slow", ["a"]), handle))

    def assertNothingStays(self) -> None:
        """The next event of the key is handled at once, on either server."""
        self.settle()
        self.assertEqual((self.once._runs, len(self.results)), ({}, 0))
        before = len(self.ran)
        self.bob.call("slow", "a")
        self.assertEqual(len(self.ran), before + 1)

    def test_handlerExits(self) -> None:
        """sys.exit() and its like in a handler end a run, too."""
        for error in SystemExit(1), KeyboardInterrupt(), GeneratorExit(), CancelledError():
            self.ann.call("slow", "a")
            waits = self.join(self.one).call("slow", "a")
            self.slow[-1].errback(Failure(error))
            self.settle()
            self.assertIn("send it again", self.successResultOf(waits)["error"])
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)
            self.assertEqual((self.once._runs, len(self.results)), ({}, 0))
        self.assertNothingStays()

    def test_collected(self) -> None:
        """A handler that waits for something which nobody will tell is collected, and its run ends."""

        @self.one.on("slow", replace=True)
        async def forgets(socket: Any, key: Any) -> None:
            await Deferred()

        self.ann.call("slow", "a")
        self.assertEqual(len(self.once._runs), 1)
        gc.collect()
        self.assertNothingStays()
        self.assertEqual(len(self.clock.getDelayedCalls()), self.delayed(self.bob))

    def delayed(self, client: Client) -> int:
        """Return the number of timers while a client's event is handled, and none other."""
        again = len(self.clock.getDelayedCalls())
        self.slow[-1].callback(None)
        self.settle()
        self.assertEqual(len(self.clock.getDelayedCalls()), again - 1)
        return again

    def test_cancelledWhileHandling(self) -> None:
        run = self.begin()
        waits = self.begin()
        run.cancel()
        self.failureResultOf(run, CancelledError)
        self.failureResultOf(waits, TryAgain)
        self.assertNothingStays()

    def test_cancelledWhileClaiming(self) -> None:
        """A claim that has been sent is released."""
        claim, asked = self.results.claim, Deferred[Any]()

        def slow(*args: Any) -> Deferred[Any]:
            claim(*args)
            return asked

        self.patch(self.results, "claim", slow)
        run = self.begin()
        self.assertEqual(len(self.results), 1)
        run.cancel()
        self.failureResultOf(run, CancelledError)
        self.patch(self.results, "claim", claim)
        self.assertNothingStays()

    def test_cancelledWhileWaiting(self) -> None:
        """An event that does not wait any more gets no result, and takes none from the others."""
        run = self.begin()
        first, second = self.begin(), self.begin()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.slow[0].callback(7)
        self.assertEqual([self.successResultOf(each) for each in (run, second)], [7, 7])

    def test_closed(self) -> None:
        """A coroutine that is closed, whatever it waits for, cannot wait for the store."""
        socket = self.socketOf(self.one, self.ann)
        for waits in Deferred[Any](), None:
            if waits is not None:
                self.patch(self.results, "claim", lambda *args, waits=waits: waits)
            else:
                self.patch(self.results, "claim", MemoryResults.claim.__get__(self.results))
            coroutine = self.once(Incoming(socket, "slow", ["a"]), lambda incoming: Deferred())
            coroutine.send(None)
            coroutine.close()
            self.assertEqual((self.once._runs, len(self.results)), ({}, 0))
        self.assertNothingStays()

    def test_patienceOnOneServer(self) -> None:
        """A repeated event does not wait for ever for a run on its own server, either."""
        self.ann.call("slow", "a")
        waits = self.join(self.one).call("slow", "a")
        self.advance(59)
        self.assertNoResult(waits)
        self.advance(2)
        self.assertIn("later", self.successResultOf(waits)["error"])
        self.slow[0].callback(None)
        self.settle()
        self.assertEqual(self.once._runs, {})

    def test_serverStops(self) -> None:
        """A handler that goes on while its server stops leaves its result for the other servers."""
        self.ann.call("slow", "a")
        stopped = self.one.stopService()
        waits = self.bob.call("slow", "a")
        self.advance(1)
        self.slow[0].callback(7)
        self.advance(1)
        self.assertEqual(self.successResultOf(waits), 7)
        self.advance(5)
        self.successResultOf(stopped)
        self.assertEqual(self.ran, ["a"])

    def test_storeRaises(self) -> None:
        """A store that raises is as one that fails."""

        def broken(*args: Any) -> Any:
            raise OSError("no store")

        for name in "renew", "release", "finish":
            self.patch(self.results, name, broken)
        run, waits = self.ann.call("slow", "a"), self.join(self.one).call("slow", "a")
        self.advance(12)
        self.slow[0].callback(7)
        self.settle()
        self.assertEqual((self.successResultOf(run), self.successResultOf(waits)), (7, 7))
        self.patch(self.results, "claim", broken)
        self.assertIn("send it again", self.ack(self.ann, "order", "b")["error"])


class KeyTests(TalkTestCase):
    def runs(self, middleware: Any, *events: tuple[Any, ...], **headers: str) -> int:
        server, ran = self.makeServer(), []
        server.use(middleware)
        server.on("order")(lambda socket, *args: ran.append(args))
        client = self.makeClient(server, headers=headers) if headers else self.makeClient(server)
        self.successResultOf(client.connect())
        for args in events:
            client.call("order", *args)
        return len(ran)

    def test_field(self) -> None:
        twice = ({"id": "a", "n": 1},), ({"id": "a", "n": 1},), ({"id": "b"},), ("text",), ()
        self.assertEqual(self.runs(once("order", key="id"), *twice), 4)

    def test_last(self) -> None:
        self.assertEqual(self.runs(once("order", key=-1), (1, "a"), (1, "a"), (1, "b"), ()), 3)

    def test_function(self) -> None:
        def key(incoming: Incoming) -> Any:
            return [incoming.socket.id, incoming.args[0]] if incoming.args else None

        self.assertEqual(self.runs(once(key=key), ("a",), ("a",), (), ()), 3)

    def test_header(self) -> None:
        middleware = once("order", header="Idempotency-Key")
        self.assertEqual(self.runs(middleware, (1,), (1,), **{"idempotency-key": "x"}), 1)
        self.assertEqual(self.runs(middleware, (1,), (1,)), 2)

    def test_mistakes(self) -> None:
        for wrong in ({}, {"key": 0, "header": "x"}):
            self.assertRaises(ValueError, once, "order", **wrong)
        self.assertIn("names of the events", str(self.assertRaises(ValueError, once, key=0)))
        self.assertRaises(TypeError, once, "order", key=1.5)
        self.assertRaises(TypeError, once, "order", key=True)
        for wrong in ({"seconds": 0}, {"lease": -1}):
            self.assertRaises(ValueError, once, "order", key=0, **wrong)
        self.assertRaises(ValueError, RedisResults, "amqp://localhost")
        self.assertIn("'order'", repr(once("order", key=0)))


class CommandsTests(TalkTestCase):
    """Commands to a Redis whose connection is made when the first of them wants it."""

    def setUp(self) -> None:
        super().setUp()
        try:
            from txrealtime.cluster.bus import redis, rediscommands
        except ImportError as error:
            self.skipTest(str(error))
        self.attempts: list[tuple[Any, Deferred[None]]] = []

        def connect(bus: Any, reactor: Any, connection: Any) -> Deferred[None]:
            self.attempts.append((connection, Deferred()))
            return self.attempts[-1][1]

        self.patch(redis.RedisBus, "connect", connect)
        self.patch(redis.Connection, "execute_command", lambda connection, *words: succeed(words))
        self.commands = rediscommands.RedisCommands(Address.fromURL("redis://localhost"))

    def ask(self, number: int) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.commands.ask(self.clock, str(number)))

    def test_veryManyAtOnce(self) -> None:
        """All that wait for the connection get it, or hear at once that there is none."""
        asked = [self.ask(number) for number in range(3000)]
        self.assertEqual(len(self.attempts), 1)
        self.attempts[0][1].errback(BusError("refused"))
        for each in asked:
            self.failureResultOf(each, BusError)
        asked = [self.ask(number) for number in range(3000)]
        connection, connecting = self.attempts[1]
        connection.connected = 1
        connecting.callback(None)
        self.assertEqual([self.successResultOf(each) for each in asked][-1], ("2999",))
        self.successResultOf(self.ask(1))
        self.assertEqual(len(self.attempts), 2)

    def test_lost(self) -> None:
        """A command after the loss of the connection waits for the next, also before the loss is known."""
        self.ask(1)
        connection, connecting = self.attempts[0]
        connection.connected = 1
        connecting.callback(None)
        connection.connected = 0
        self.assertNoResult(self.ask(2))
        self.assertEqual(len(self.attempts), 2)


class ResultsTests(TalkTestCase):
    def test_packed(self) -> None:
        values: list[Any] = [None, 0, "text", [1, 2], [], {"a": [b"\0\xff", None]}, (1, b"x"), b"x", [None]]
        for value in values:
            self.assertEqual(unpacked(packed(value)), value)
        self.assertIs(unpacked(b""), MISSING)
        self.assertRaises(TypeError, packed, object())

    def test_bounds(self) -> None:
        """The results take no more than their bounds; the oldest go first."""
        results = MemoryResults(most=5, mostBytes=10_000)
        for number in range(100):
            results.claim(self.clock, str(number), b"R", 10)
            results.finish(self.clock, str(number), b"R", b"D" * number * 40, 600)
            self.assertLessEqual(len(results), 5)
            self.assertLessEqual(results.bytes, 10_000)
        self.assertIsNone(self.successResultOf(results.find(self.clock, "1")))
        self.assertIsNotNone(self.successResultOf(results.find(self.clock, "99")))

    def test_expiredGo(self) -> None:
        results = MemoryResults()
        results.finish(self.clock, "a", b"R", b"D", 10)
        self.clock.advance(11)
        results.finish(self.clock, "b", b"R", b"D", 10)
        self.assertEqual(len(results), 1)

    def test_withoutAck(self) -> None:
        """A handler without an ack has none the second time, either."""
        server, ran = self.makeServer(), []
        server.use(once("order", key=0))
        server.on("order")(lambda socket, key: ran.append(key) or NO_ACK)
        client = self.join(server)
        for _ in range(2):
            self.assertNoResult(client.call("order", "a"))
        self.assertEqual(ran, ["a"])
