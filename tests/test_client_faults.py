"""
The client over a network that fails at random, against our own server.

The order is kept and nothing comes twice; with retries, nothing is lost.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.clientmemory import World
from txrealtime.errors import Disconnected

WAYS = (("polling",), ("websocket",), ("polling", "websocket"))
SEEDS = range(12)


class FaultTests(World):
    """
    Each scene is made by a seed, which an error names.

    :ivar up: the numbers that the server got.
    :ivar down: the numbers that the client got.
    """

    def scene(self, seed: int, transports: tuple[str, ...], **options: Any) -> Any:
        self.useServer(pingInterval=2, pingTimeout=2)
        self.up: list[int] = []
        self.down: list[int] = []

        @self.server.on("up")
        def up(socket: Any, number: int, data: Any) -> int:
            self.up.append(number)
            return number

        client = self.makeClient(
            transports=transports, reconnectionDelay=0.2, reconnectionDelayMax=1, timeout=3, **options
        )
        client.on("down")(lambda number, data: self.down.append(number))
        return client

    def fault(self, random: Random) -> None:
        """Let something happen to the network."""
        alive = self.endpoint.alive
        kind = random.randrange(6)
        if kind == 0:
            self.endpoint.cut()
        elif kind == 1 and alive:
            end = random.choice(alive)
            end._end(Exception("reset"))
            end.other._end(Exception("reset"))
        elif kind == 2 and alive:
            # A cable that was pulled out: each side finds out by itself.
            end = random.choice(alive)
            end.frozen = end.other.frozen = True
        elif kind == 3:
            self.endpoint.refuses = True
            self.clock.callLater(random.random(), setattr, self.endpoint, "refuses", False)
        elif kind == 4 and alive:
            random.choice(alive).pauseProducing()
        elif alive:
            for end in alive:
                if end.connected and not end.reading:
                    end.resumeProducing()

    def play(self, seed: int, client: Any, emit: Any) -> int:
        """Send numbers in both directions among faults, then let the network be well; return how many."""
        random = Random(seed)
        for number in range(150):
            emit(number, b"x" if random.random() < 0.2 else "x")
            self.server.emit("down", number, b"x" if random.random() < 0.2 else "x")
            for _ in range(random.randrange(4)):
                self.clock.advance(0)
            if random.random() < 0.08:
                self.fault(random)
            if random.random() < 0.2:
                self.clock.advance(random.random())
        self.endpoint.refuses = False
        for end in self.endpoint.alive:
            end.resumeProducing()
        for end in [end for end in self.endpoint.alive if end.frozen]:
            end._end(Exception("reset"))
            end.other._end(Exception("reset"))
        self.wait(30, 0.2)
        return 150

    def test_inOrderAndNothingTwice(self) -> None:
        for transports in WAYS:
            for seed in SEEDS:
                client = self.scene(seed, transports)
                self.play(seed, client, lambda number, data, client=client: client.emit("up", number, data))
                for got in (self.up, self.down):
                    self.assertEqual(got, sorted(set(got)), (seed, transports))
                # Neither side was silent.
                self.assertGreater(len(self.up), 50, (seed, transports))
                self.assertGreater(len(self.down), 10, (seed, transports))
                self.assertTrue(client.connected, (seed, transports))
                client.stopService()
                self.wait(6)
                self.assertEqual(self.server.engine.sessions, {}, (seed, transports))

    def test_retriesLoseNothing(self) -> None:
        """Each number at least once, and each for the first time in order."""
        for transports in WAYS:
            for seed in SEEDS:
                client = self.scene(seed, transports, retries=1000, ackTimeout=2)
                count = self.play(
                    seed, client, lambda number, data, client=client: client.emit("up", number, data)
                )
                self.wait(60, 0.2)
                self.assertEqual(list(dict.fromkeys(self.up)), list(range(count)), (seed, transports))
                self.assertEqual(client.buffered, 0)
                client.stopService()
                self.wait(6)

    def test_eachCallEnds(self) -> None:
        """With its own ack, or with an error: no Deferred is forgotten, and none has the ack of another."""
        for transports in WAYS:
            for seed in SEEDS:
                client = self.scene(seed, transports)
                results: list[Any] = []

                def emit(number: int, data: Any, client: Any = client, results: list[Any] = results) -> None:
                    called = client.call("up", number, data, timeout=20)
                    called.addCallbacks(
                        lambda ack: results.append(ack == number),
                        lambda failure: results.append(failure.trap(Disconnected, TimeoutError)),
                    )

                count = self.play(seed, client, emit)
                self.assertEqual(len(results), count, (seed, transports))
                self.assertNotIn(False, results)
                client.stopService()
                self.wait(6)


PIECES = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 101 X\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"5\r\n4hell\r\n0\r\n\r\n",
    b'0{"sid":"x","upgrades":["websocket"],"pingInterval":1000,"pingTimeout":1000}',
    b'40{"sid":"x"}',
    b"\x1e",
    b"2",
    b'42["x",1]',
    b'451-["x",{"_placeholder":true,"num":0}]',
    b"bAAAA",
    b"44{",
    b"41",
    b"1",
    b"6",
    b"3probe",
]
"What a server may say, in the wrong place."


class NonsenseTests(World):
    """Servers that say anything at all: the client stays within its bounds, and is well after."""

    def nonsense(self, random: Random) -> bytes:
        said = b""
        for _ in range(random.randrange(1, 8)):
            kind = random.randrange(4)
            if kind < 2:
                said += random.choice(PIECES)
            elif kind == 2:
                said += random.randbytes(random.randrange(12))
            else:
                payload = random.choice(PIECES)
                said += (
                    bytes([random.choice((0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0xC1)), len(payload)]) + payload
                )
        return said

    def test_inPlaceOfAnything(self) -> None:
        """Each request or frame may be answered by nonsense; then the server behaves."""
        for seed in range(250):
            random = Random(seed)
            fake = self.useFake()
            fake.handshake["upgrades"] = ["websocket"]
            client = self.makeClient(
                transports=WAYS[seed % 3], timeout=3, connectTimeout=3, upgradeTimeout=3, maxPayload=10_000
            )
            client.on("x")(lambda *args: args)
            for _ in range(12):
                self.settle()
                client.emit("x", seed, volatile=True)
                self.clock.advance(random.random())
                for end in self.endpoint.alive:
                    if random.random() < 0.4:
                        end.other.write(self.nonsense(random))
            self.wait(120, 1)
            self.endpoint.cut()
            self.wait(8)
            # The nonsense may have been a refusal or a DISCONNECT: final, as from any server.
            client.connect()
            self.wait(8)
            self.assertTrue(client.connected, seed)
            client.stopService()
            self.wait(8)
            self.assertEqual(self.endpoint.alive, [], seed)
