"""
Reconnection, retries and recovery of the client, on a clock.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.clientmemory import FakeServer, World
from tests.support import requirePart
from txrealtime import CloseReason
from txrealtime.client.backoff import Backoff
from txrealtime.client.recovery import Recovery, offsetTime
from txrealtime.errors import AckTimeout, Disconnected, LimitExceeded, PayloadTooLarge, TransportError


class BackoffTests(SynchronousTestCase):
    def test_asInJavaScript(self) -> None:
        """Values of backo2 for the same random numbers: the sign comes from the first digit."""
        for random, expected in (
            (0.0, [1.0, 2.0, 4.0, 5.0, 5.0]),
            (0.25, [0.875, 1.75, 3.5, 5.0, 5.0]),
            (0.5, [1.25, 2.5, 5.0, 5.0, 5.0]),
            (0.99, [1.495, 2.99, 5.0, 5.0, 5.0]),
            (0.89, [0.555, 1.11, 2.22, 4.44, 5.0]),
        ):
            backoff = Backoff(1, 5, 0.5, lambda random=random: random)
            self.assertEqual([backoff.next() for _ in expected], expected, random)

    def test_range(self) -> None:
        for number in range(1000):
            delay = Backoff(1, 5, 0.5, lambda number=number: number / 1000).next()
            self.assertTrue(0.5 <= delay <= 1.5, delay)

    def test_reset(self) -> None:
        backoff = Backoff(1, 5, 0, lambda: 0.5)
        self.assertEqual([backoff.next() for _ in range(3)], [1, 2, 4])
        backoff.reset()
        self.assertEqual((backoff.attempts, backoff.next()), (0, 1))

    def test_manyAttempts(self) -> None:
        backoff = Backoff(1, 5, 0.5, lambda: 0.3)
        self.assertEqual({backoff.next() for _ in range(5000)} - {1.15, 2.3, 4.6}, {5.0})


class ReconnectTests(World):
    def test_delays(self) -> None:
        """The first failure starts the loop, with growing delays and the longest one at its end."""
        self.endpoint.refuses = True
        self.makeClient(transports=("websocket",), randomizationFactor=0)
        times: list[float] = []
        for _ in range(400):
            if self.endpoint.attempts > len(times):
                times.append(self.clock.seconds())
            self.clock.advance(0.05)
        self.assertEqual([round(b - a, 1) for a, b in pairwise(times)][:5], [1, 2, 4, 5, 5])

    def test_delaysBeginAgain(self) -> None:
        client = self.connect(transports=("websocket",), randomizationFactor=0)
        for _ in range(3):
            self.endpoint.cut()
            self.settle()
            self.assertFalse(client.connected)
            self.clock.advance(0.99)
            self.settle()
            self.assertFalse(client.connected)
            self.clock.advance(0.02)
            self.settle()
            self.assertTrue(client.connected)

    def test_attempts(self) -> None:
        self.endpoint.refuses = True
        client = self.makeClient(start=False, transports=("websocket",), reconnectionAttempts=3)
        errors: list[Exception] = []
        client.onConnectError(errors.append)
        waiting = client.whenConnected()
        client.startService()
        self.wait(30)
        self.assertEqual(self.endpoint.attempts, 4)
        self.assertEqual(len(errors), 4)
        self.failureResultOf(waiting, TransportError)
        self.failureResultOf(client.whenConnected(), TransportError)
        self.endpoint.refuses = False
        client.connect()
        self.settle()
        self.assertTrue(client.connected)

    def test_noReconnection(self) -> None:
        client = self.connect(reconnection=False)
        self.endpoint.cut()
        self.wait(20)
        self.assertFalse(client.connected)
        self.failureResultOf(client.whenConnected(), TransportError)
        client.connect()
        self.settle()
        self.assertTrue(client.connected)

    def test_whenConnected(self) -> None:
        self.endpoint.refuses = True
        client = self.makeClient(start=False, transports=("websocket",))
        twice, always = client.whenConnected(failAfterFailures=2), client.whenConnected()
        client.startService()
        self.settle()
        self.assertNoResult(twice)
        self.wait(2)
        self.failureResultOf(twice, TransportError)
        cancelled = client.whenConnected()
        cancelled.cancel()
        self.failureResultOf(cancelled)
        self.endpoint.refuses = False
        self.wait(5)
        self.assertIs(self.successResultOf(always), client)
        self.assertIs(self.successResultOf(client.whenConnected()), client)
        self.assertIs(self.successResultOf(client.namespace("/").whenConnected()), client.namespace("/"))

    def test_stopWhileWaiting(self) -> None:
        self.endpoint.refuses = True
        client = self.makeClient()
        self.settle()
        client.stopService()
        attempts = self.endpoint.attempts
        self.wait(20)
        self.assertEqual(self.endpoint.attempts, attempts)

    def test_aNamespaceAddedDuringADelay(self) -> None:
        """The namespace comes with the next attempt, and starts none of its own."""
        client = self.connect(randomizationFactor=0, transports=("websocket",))
        self.endpoint.cut()
        self.settle()
        attempts = self.endpoint.attempts
        self.server.namespace("/chat")
        chat = client.namespace("/chat")
        self.clock.advance(0.5)
        self.assertEqual(self.endpoint.attempts, attempts)
        self.wait(1)
        self.assertTrue(chat.connected)

    def test_handlersThatStopTheClient(self) -> None:
        """A handler of the disconnect may stop the client, or connect it again."""
        client = self.connect()
        client.onDisconnect(lambda: client.stopService())
        self.endpoint.cut()
        self.wait(10)
        self.assertEqual(self.endpoint.alive, [])
        client = self.connect()
        client.onDisconnect(lambda: client.connect())
        self.server.namespace().sockets[client.id].disconnect()
        self.settle()
        self.assertTrue(client.connected)


class RetryTests(World):
    """At least once, in order, one at a time."""

    def setUp(self) -> None:
        super().setUp()
        self.got: list[Any] = []
        self.answers: list[Deferred[Any]] = []

        @self.server.on("n")
        def handle(socket: Any, number: int) -> Any:
            self.got.append(number)
            return self.answers.pop(0) if self.answers else f"ack {number}"

    def test_inOrderAndOneAtATime(self) -> None:
        gate: Deferred[Any] = Deferred()
        self.answers.append(gate)
        client = self.connect(retries=3, ackTimeout=10)
        for number in range(3):
            client.emit("n", number)
        acked = client.call("n", 3)
        self.settle()
        self.assertEqual(self.got, [0])
        gate.callback(None)
        self.settle()
        self.assertEqual(self.got, [0, 1, 2, 3])
        self.assertEqual(self.successResultOf(acked), "ack 3")
        self.assertEqual(client.buffered, 0)

    def test_again(self) -> None:
        """An event whose ack does not come is sent again, and given up after the last try."""
        self.server.namespace().concurrency = 10
        client = self.connect(retries=2, ackTimeout=1)
        self.answers += [Deferred() for _ in range(3)]
        lost, kept = client.call("n", 1), client.call("n", 2)
        self.wait(2.5)
        self.assertEqual(self.got, [1, 1, 1])
        self.assertNoResult(lost)
        self.wait(1)
        self.failureResultOf(lost, AckTimeout)
        self.assertEqual(self.successResultOf(kept), "ack 2")
        self.assertEqual(self.got, [1, 1, 1, 2])

    def test_notWhileDisconnected(self) -> None:
        client = self.makeClient(start=False, retries=3, ackTimeout=1)
        client.emit("n", 1)
        client.emit("n", 2, volatile=True)
        self.wait(30)
        client.startService()
        self.settle()
        self.assertEqual(self.got, [1])

    def test_acrossConnections(self) -> None:
        """An event that was on its way is sent again first."""
        client = self.connect(retries=5, ackTimeout=10)
        self.answers.append(Deferred())
        acked = [client.call("n", number) for number in range(3)]
        self.settle()
        self.endpoint.cut()
        self.wait(3)
        self.assertEqual(self.got, [0, 0, 1, 2])
        self.assertEqual([self.successResultOf(each) for each in acked], ["ack 0", "ack 1", "ack 2"])

    def test_emitInTheConnectHandler(self) -> None:
        """Not sent twice."""
        client = self.makeClient(start=False, retries=3, ackTimeout=10)
        client.onConnect(lambda: client.emit("n", "connect"))
        client.emit("n", "before")
        client.startService()
        self.settle()
        self.assertEqual(self.got, ["before", "connect"])

    def test_room(self) -> None:
        """Events in the queue count, each once."""
        client = self.makeClient(start=False, retries=3, maxBuffered=1000)
        client.emit("n", "x" * 600)
        self.assertRaises(LimitExceeded, client.emit, "n", "y" * 600)
        client.startService()
        self.settle()
        self.assertEqual(self.got, ["x" * 600])
        self.assertEqual(client.buffered, 0)

    def test_tooLarge(self) -> None:
        self.useServer(maxPayload=1000)
        self.server.on("n")(lambda socket, number: self.got.append(number))
        client = self.makeClient(retries=3)
        lost = client.call("n", "x" * 2000)
        client.emit("n", 2)
        self.settle()
        self.failureResultOf(lost, PayloadTooLarge)
        self.assertEqual(self.got, [2])

    def test_cancelAndStop(self) -> None:
        self.answers.append(Deferred())
        client = self.connect(retries=3, ackTimeout=10)
        first, second, third = (client.call("n", number) for number in range(3))
        self.settle()
        second.cancel()
        self.failureResultOf(second)
        first.cancel()
        self.failureResultOf(first)
        self.answers.clear()
        client.stopService()
        self.failureResultOf(third, Disconnected)

    def test_emitThatIsGivenUpIsLogged(self) -> None:
        client = self.connect(retries=0, ackTimeout=1)
        self.answers.append(Deferred())
        client.emit("n", 1)
        self.wait(2)
        self.assertTrue(client.connected)


YEAST = "Q8Z3_xd"
"An offset of Node, of the time below."
NOW = offsetTime(YEAST)


class OffsetTests(SynchronousTestCase):
    def recovery(self, now: float | None = NOW) -> Recovery:
        recovery = Recovery(lambda: now)
        recovery.admitted("pid")
        return recovery

    def test_forms(self) -> None:
        self.assertEqual(NOW, 1795884580.583)  # 2026-11-28
        for offset in (
            YEAST,
            YEAST + ".0",
            YEAST + ".1f",
            "1795884580583-0",
            f"{1795884580:x}0123456789abcdef",
        ):
            seconds = offsetTime(offset)
            self.assertTrue(seconds is not None and abs(seconds - NOW) < 60, (offset, seconds))
            recovery = self.recovery()
            self.assertEqual(recovery.stripped([1, offset]), [1], offset)
            self.assertEqual(recovery.auth(None), {"pid": "pid", "offset": offset})

    def test_otherTexts(self) -> None:
        """The last argument of a volatile event, and of a server without recovery, is the application's."""
        for text in (
            "Goodbye",
            "goodbye",
            "Preview",
            "",
            "1795884580583",
            "12-34",
            "deadbeef" * 3,
            "x" * 50,
            5,
        ):
            recovery = self.recovery()
            self.assertEqual(recovery.stripped([text]), [text])
            self.assertEqual(recovery.auth({"a": 1}), {"pid": "pid", "a": 1})
        without = Recovery(lambda: NOW)
        without.admitted(None)
        self.assertEqual(without.stripped([YEAST]), [YEAST])
        self.assertEqual(without.auth(None), None)

    def test_state(self) -> None:
        recovery = Recovery(lambda: NOW)
        self.assertFalse(recovery.admitted("one"))
        recovery.stripped([YEAST])
        self.assertTrue(recovery.admitted("one"))
        self.assertEqual(recovery.auth(None), {"pid": "one", "offset": YEAST})
        # Not recovered: the old offset would spoil the next recovery.
        self.assertFalse(recovery.admitted("two"))
        self.assertEqual(recovery.auth(None), {"pid": "two"})
        self.assertEqual(recovery.auth({"pid": "mine"}), {"pid": "mine"})
        self.assertFalse(recovery.admitted(None))
        self.assertEqual(recovery.auth(None), None)


class RecoveryTests(World):
    """A server with recovery, as Node's."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(Recovery.__init__, "__defaults__", (lambda: NOW,))

    def connectAuth(self, fake: FakeServer) -> Any:
        packets = [packet for packet in fake.got if isinstance(packet, str) and packet[:2] == "40"]
        return json.loads(packets[-1][2:] or "null")

    def test_recovered(self) -> None:
        for transport in ("polling", "websocket"):
            self.recovers(transport)

    def recovers(self, transport: str) -> None:
        fake = self.useFake()
        fake.welcome = '40{"sid":"the-id","pid":"the-pid"}'
        client = self.makeClient(start=False, transports=(transport,), auth={"token": "x"})
        log: list[Any] = []
        client.on("n")(lambda *args: log.append(args))
        client.onConnect(lambda: log.append(("connect", client.recovered)))
        client.onDisconnect(lambda reason: log.append(reason))
        client.startService()
        self.settle()
        self.assertEqual(self.connectAuth(fake), {"token": "x"})
        fake.send(f'42["n",1,"{YEAST}"]', '42["n","Goodbye"]', f'421["n",2,"{YEAST}.1"]')
        self.settle()

        def asked(packet: str) -> None:
            # The missed events come before the admission.
            fake.send(
                f'42["n",3,"{YEAST}.2"]',
                f'451-["n",{{"_placeholder":true,"num":0}},"{YEAST}.3"]',
                "b/w==",
            )
            fake.send(fake.welcome)

        if transport == "polling":
            fake.asked = asked
        self.endpoint.cut()
        self.wait(3)
        self.assertEqual(self.connectAuth(fake), {"token": "x", "pid": "the-pid", "offset": YEAST}, transport)
        missed = [(3,), (b"\xff",)] if transport == "polling" else []
        self.assertEqual(
            log,
            [
                ("connect", False),
                (1,),
                ("Goodbye",),
                (2, f"{YEAST}.1"),
                CloseReason.TRANSPORT_ERROR,
                *missed,
                ("connect", True),
            ],
        )
        self.assertTrue(client.recovered)

    def test_notRecovered(self) -> None:
        fake = self.useFake()
        fake.welcome = '40{"sid":"one","pid":"p1"}'
        client = self.connect(transports=("websocket",))
        fake.send(f'42["n",1,"{YEAST}"]')
        self.settle()
        fake.welcome = '40{"sid":"two","pid":"p2"}'
        self.endpoint.cut()
        self.wait(3)
        self.assertEqual((client.id, client.recovered), ("two", False))
        self.endpoint.cut()
        self.wait(3)
        self.assertEqual(self.connectAuth(fake), {"pid": "p2"})


class MsgpackTests(World):
    def test_msgpack(self) -> None:
        try:
            from txrealtime.socketio.msgpack import MsgpackParser
        except ImportError:
            requirePart(False, "no msgpack: pip install --group test")
        for transports in (("polling",), ("websocket",), ("polling", "websocket")):
            self.useServer(parser=MsgpackParser())
            self.server.on("echo")(lambda socket, *args: args)
            self.server.on("ask")(lambda socket: socket.call("question", b"2").addCallback(lambda a: a))
            client = self.connect(transports=transports, parser=MsgpackParser())
            client.on("question")(lambda data: data + b"!")
            acked, asked = client.call("echo", {"a": b"x"}, 1.5), client.call("ask")
            self.settle()
            self.assertEqual(self.successResultOf(acked), ({"a": b"x"}, 1.5))
            self.assertEqual(self.successResultOf(asked), b"2!")

    def test_theOtherParser(self) -> None:
        """A client with the wrong parser gets a clear end, and does not loop quickly."""
        from txrealtime.socketio.msgpack import MsgpackParser

        self.useServer(parser=MsgpackParser())
        client = self.makeClient()
        self.wait(20)
        self.assertFalse(client.connected)
        self.assertLess(self.endpoint.attempts, 60)
