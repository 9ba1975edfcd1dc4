"""
WebSocket frames that mean no good.
"""

from __future__ import annotations

import struct
from typing import Any, ClassVar

from tests.hostile.means import SECRET, HostileTestCase, callsOf, event, keptBy, peakOf
from tests.memory import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, WebSocket, clientFrame

KB = 1024


class FloodTests(HostileTestCase):
    """Much of what is little."""

    def flood(self, client: WebSocket, data: bytes, times: int) -> int:
        """Send something over and over, as long as the server listens: how often that was."""
        for sent in range(times):
            if not self.engine.sessions.get(self.sid):
                return sent
            client.link.deliver(data)
        return times

    def attacker(self) -> WebSocket:
        client = self.join()
        self.sid = self.session.sid
        return client

    def test_emptyFragments(self) -> None:
        """As many as maxFragments, then 1008 in less memory than one message may have."""
        client = self.attacker()
        client.sendFrame(TEXT, SECRET.encode(), fin=False)
        sent = 0

        def attack() -> None:
            nonlocal sent
            sent = self.flood(client, clientFrame(CONTINUATION, fin=False), 100_000)

        self.assertLess(peakOf(attack), 500 * KB)
        self.assertEqual(sent, 1024)
        self.assertClosed(client, 1008, "too many fragments")
        self.assertEqual(self.ends, ["transport error"])
        self.assertIn("a message in more fragments than maxFragments allows", self.log)

    def test_fragmentsOfOneByte(self) -> None:
        client = self.attacker()
        client.sendFrame(BINARY, b"x", fin=False)
        sent = 0

        def attack() -> None:
            nonlocal sent
            sent = self.flood(client, clientFrame(CONTINUATION, b"x", fin=False), 100_000)

        self.assertLess(peakOf(attack), 500 * KB)
        self.assertLess(sent, 1100)
        self.assertClosed(client, 1008, "too many fragments")

    def test_manyFragmentsOfAGoodSize(self) -> None:
        """A client may send a megabyte in fragments of 64 bytes."""
        client = self.attacker()
        client.sendFrame(TEXT, b'42["large","', fin=False)
        for _ in range(15_000):
            client.sendFrame(CONTINUATION, b"x" * 64, fin=False)
        client.sendFrame(CONTINUATION, b'"]')
        self.assertEqual(len(self.heard[0][1]), 960_000)

    def test_messageWithoutEnd(self) -> None:
        """A message ends at maxPayload, 1009, whatever the size of its fragments."""
        for size in (64, 1000, 65_000):
            client = self.attacker()
            client.sendFrame(TEXT, b"", fin=False)
            data = clientFrame(CONTINUATION, b"x" * size, fin=False)

            def attack(client: WebSocket = client, data: bytes = data) -> None:
                self.flood(client, data, 1_100_000 // size)  # noqa: B023

            # What it has sent, and an object for each fragment.
            self.assertLess(peakOf(attack), 1_000_000 + 1_000_000 // size * 250 + 500 * KB)
            self.assertClosed(client, 1009)
            client.link.lose()

    def test_tinyFramesInOneSegment(self) -> None:
        """Ten times as many cost ten times as much: nothing is copied for each of those that follow it."""
        # Text that is no Socket.IO event: a NOOP of Engine.IO.
        costs = []
        for count in (1000, 10_000):
            client = self.attacker()
            data = clientFrame(TEXT, b"6") * count
            costs.append(callsOf(lambda link=client.link, data=data: link.deliver(data)))  # type: ignore[misc]
        self.assertLess(costs[1] / costs[0], 10.5)
        events = []
        for count in (1000, 10_000):
            client = self.attacker()
            data = clientFrame(TEXT, event("e").encode()) * count
            self.assertLess(peakOf(lambda link=client.link, data=data: link.deliver(data)), 3000 * KB)  # type: ignore[misc]
            events.append(len(self.heard))
            self.heard.clear()
        self.assertEqual(events, [1000, 10_000])

    def test_pings(self) -> None:
        """Each is answered, and that is all that it costs."""
        client = self.attacker()
        data = clientFrame(PING, SECRET.encode())
        kept = keptBy(lambda: client.link.deliver(data * 1000))
        self.assertEqual(client.frames(), [Frame(PONG, SECRET.encode())] * 1000)
        # The link keeps what was written.
        self.assertLess(kept, 1000 * (len(data) + 200))
        client.send(event("after"))
        self.assertEqual(self.heard, [("after",)])

    def test_pingsOfAClientThatReadsNothing(self) -> None:
        """The last of the pings that come while TCP is full is answered when TCP has room."""
        client, link = self.joinStuck()
        link.stuck = True
        for number in range(10_000):
            link.deliver(clientFrame(PING, b"%0100d" % number))
        self.assertLess(link.waiting, FULL)
        link.unstick()
        answered = client.frames()
        self.assertLess(len(answered), 1000)
        self.assertEqual(answered[-1], Frame(PONG, b"%0100d" % 9999))
        client.sendFrame(PING, b"after")
        self.assertEqual(client.frames(), [Frame(PONG, b"after")])

    def test_pongs(self) -> None:
        """Nobody asked for them: nothing is said, and nothing kept."""
        client = self.attacker()
        data = clientFrame(PONG, SECRET.encode()) * 1000
        self.assertLess(keptBy(lambda: client.link.deliver(data)), 50 * KB)
        self.assertEqual(client.frames(), [])

    def test_noopsAreNoHeartbeat(self) -> None:
        """A flood of what means nothing keeps nobody alive who does not answer."""
        client = self.attacker()
        for _ in range(60):
            client.link.deliver(clientFrame(TEXT, b"6") * 100)
            self.advance(1)
        # It showed that it lives, each second; when it stops, it does so no longer.
        self.advance(60)
        self.assertEqual(self.ends, ["ping timeout"])


FULL = 65536 + 65536


class SlowTests(HostileTestCase):
    """Messages that take too long: the heartbeat ends them, for nothing can be sent within a message."""

    def assertTimedOut(self, client: WebSocket, data: bytes, piece: int = 1) -> None:
        seconds = 0
        while not self.ends and seconds < 200:
            client.link.deliver(data[:piece])
            data = data[piece:]
            self.advance(1)
            seconds += 1
        self.assertEqual(self.ends, ["ping timeout"])
        self.assertLessEqual(seconds, 46)

    def test_dribbledFrame(self) -> None:
        self.assertTimedOut(self.join(), clientFrame(TEXT, b"4" + b"x" * 200))

    def test_dribbledHead(self) -> None:
        self.assertTimedOut(self.join(), clientFrame(TEXT, b"4" + b"x" * 200)[:3])

    def test_dribbledFragments(self) -> None:
        fragments = b"".join(clientFrame(CONTINUATION, b"x", fin=False) for _ in range(200))
        self.assertTimedOut(self.join(), clientFrame(TEXT, b"4", fin=False) + fragments, 7)

    def test_pingsBetweenFragments(self) -> None:
        """A WebSocket's PING is no sign of life of Engine.IO's: the message must end all the same."""
        client = self.join()
        client.sendFrame(TEXT, b"4", fin=False)
        self.assertTimedOut(client, clientFrame(PING, b"x") * 200, len(clientFrame(PING, b"x")))


class ViolationTests(HostileTestCase):
    """Frames that RFC 6455 forbids: the code that it names, and the session ends as "transport error"."""

    def test_each(self) -> None:
        text = SECRET.encode()
        for what, code, data in (
            ("a bit that nobody agreed on", 1002, clientFrame(TEXT, text, rsv=4)),
            ("another", 1002, clientFrame(TEXT, text, rsv=2)),
            ("the third", 1002, clientFrame(TEXT, text, rsv=1)),
            ("no mask", 1002, clientFrame(TEXT, text, mask=None)),
            ("an unknown opcode", 1002, clientFrame(5, text)),
            ("an unknown control frame", 1002, clientFrame(13, text)),
            ("a control frame too long", 1002, clientFrame(PING, b"x" * 126)),
            ("a control frame in pieces", 1002, clientFrame(PING, text, fin=False)),
            ("no beginning", 1002, clientFrame(CONTINUATION, text)),
            ("not UTF-8", 1007, clientFrame(TEXT, b"\xc3\x28" + text)),
            ("half a surrogate pair", 1007, clientFrame(TEXT, b"\xed\xa0\x80" + text)),
            ("2^63 - 1 bytes", 1009, b"\x82\xff\x7f" + b"\xff" * 7 + b"mask" + text),
            ("2^63 bytes", 1002, b"\x82\xff\x80" + b"\0" * 7 + b"mask" + text),
            ("2^32 bytes", 1009, b"\x82\xff" + struct.pack("!Q", 1 << 32) + b"mask" + text),
            ("one byte too many", 1009, b"\x82\xff" + struct.pack("!Q", 1_000_001) + b"mask"),
        ):
            client = self.join()
            client.link.deliver(data)
            last = client.frames()[-1]
            self.assertEqual(
                (what, last.opcode, int.from_bytes(last.payload[:2], "big")), (what, CLOSE, code)
            )
            self.assertEqual(self.ends, ["transport error"], what)
            self.ends.clear()
            self.assertBystander()

    def test_dataAfterClose(self) -> None:
        for close in (b"\x03\xe8", b""):
            client = self.join()
            client.link.deliver(clientFrame(CLOSE, close) + clientFrame(TEXT, event("late").encode()))
            client.link.deliver(clientFrame(TEXT, event("later").encode()))
            self.assertEqual(self.heard, [])
            self.assertEqual(client.frames(), [Frame(CLOSE, b"\x03\xe8")])
        self.assertEqual(self.ends, ["transport close"] * 2)

    def test_claimsCostNothing(self) -> None:
        """A frame that announces what is allowed, and never comes, holds no memory."""
        client = self.join()
        head = clientFrame(BINARY, b"x" * 1_000_000)[:14]
        self.assertLess(peakOf(lambda: client.link.deliver(head)), 10 * KB)
        self.advance(60)
        self.assertEqual(self.ends, ["ping timeout"])


class LongWayFloodTests(FloodTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}


class LongWaySlowTests(SlowTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}


class LongWayViolationTests(ViolationTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}
