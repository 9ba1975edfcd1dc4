"""
Examples of a session: order, heartbeat, upgrade, backpressure, and each way to end.
"""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.memory import Recorder
from txrealtime.engineio.counts import Counts
from txrealtime.engineio.handshake import readHandshake
from txrealtime.engineio.packet import CLOSE, NOOP, PING, Codec, EngineIO4, Packet, PacketType, message
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.engineio.session import CloseReason, ITransport, Pauser, Session, State
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.timers import Timers
from txrealtime.testing import FakeTransport

PONG = Packet(PacketType.PONG)
PROBE = Packet(PacketType.PING, "probe")
PROBED = Packet(PacketType.PONG, "probe")
UPGRADE = Packet(PacketType.UPGRADE)

HANDSHAKE = readHandshake({}, "/engine.io/", "127.0.0.1", False, lambda address: False)


class FakePolling(FakeTransport):
    """
    Long polling in memory, where a GET makes the transport writable for one response.

    :ivar responses: the packets of the response to each GET.
    """

    def __init__(self) -> None:
        super().__init__("polling")
        self.writable = False
        self.responses: list[list[Packet]] = []

    def get(self) -> None:
        assert not self.writable, "two GETs"
        self.writable = True
        assert self.session is not None
        self.session.transportWritable(self)

    def send(self, packets: Sequence[Packet]) -> None:
        assert packets, "an empty response"
        assert len(packets) <= self.batch, "more packets than some clients take"
        assert CLOSE not in packets or len(packets) == 1, "packets that a JavaScript client drops"
        super().send(packets)
        self.responses.append(list(packets))
        self.writable = False

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        return () if reason is CloseReason.SHUTTING_DOWN else (CLOSE,)

    def close(self, reason: CloseReason) -> None:
        if self.writable:
            self.send([NOOP if reason is CloseReason.TRANSPORT_CLOSE else CLOSE])
        super().close(reason)


def openSession(
    clock: Clock,
    transport: FakeTransport,
    settings: Settings,
    ended: Any = None,
    codec: Codec | None = None,
) -> tuple[Session, Recorder]:
    """Open a session on a transport, and return it with its receiver."""
    ends = ended if ended is not None else []
    timers = Timers(clock, 0.001)
    codec = codec or EngineIO4()
    session = Session(
        "0123456789secret", HANDSHAKE, codec, transport, settings, timers, ends.append, Counts()
    )
    transport.session = session
    session.greet(["websocket"] if transport.name == "polling" else [])
    session.receiver = owner = Recorder(session)
    return session, owner


class SessionTestCase(SynchronousTestCase):
    """
    A test with an open session.

    :ivar ended: the sessions reported as ended.
    """

    transport: FakeTransport
    codec: type[EngineIO3 | EngineIO4] = EngineIO4

    def open(self, transport: FakeTransport, **settings: Any) -> None:
        self.clock = Clock()
        self.ended: list[Session] = []
        self.transport = transport
        self.session, self.owner = openSession(
            self.clock, transport, Settings(**settings), self.ended, self.codec()
        )

    def openWebSocket(self, **settings: Any) -> None:
        self.open(FakeTransport(), **settings)
        self.transport.take()

    def openPolling(self, **settings: Any) -> None:
        self.polling = FakePolling()
        self.open(self.polling, **settings)
        self.polling.get()
        self.polling.take()

    def receive(self, *packets: Packet) -> None:
        for packet in packets:
            self.session.packetReceived(self.transport, packet)

    def assertEnded(self, reason: CloseReason, transportReason: CloseReason | None = None) -> None:
        """Assert that the receiver knows the reason, the transport is closed, and nothing remains."""
        self.assertEqual(self.owner.ends, [reason])
        self.assertEqual(self.session.state, State.CLOSED)
        self.assertEqual(self.ended, [self.session])
        self.assertEqual(self.transport.closed, transportReason or reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.session.buffered, 0)

    def assertOpen(self) -> None:
        self.assertEqual((self.owner.ends, self.session.state), ([], State.OPEN))


class OpeningTests(SessionTestCase):
    def test_fakes(self) -> None:
        verifyObject(ITransport, FakePolling())
        verifyObject(ITransport, FakeTransport())

    def test_openPacketFirst(self) -> None:
        self.open(FakeTransport(), pingInterval=0.3, pingTimeout=0.2, maxPayload=7)
        (packet,) = self.transport.take()
        self.assertEqual(packet.type, PacketType.OPEN)
        self.assertEqual(
            json.loads(packet.data),
            {
                "sid": "0123456789secret",
                "upgrades": [],
                "pingInterval": 300,
                "pingTimeout": 200,
                "maxPayload": 7,
            },
        )

    def test_openPacketWaitsForTheFirstGET(self) -> None:
        self.open(FakePolling())
        self.session.send("hello")
        self.assertEqual(self.transport.take(), [])
        self.transport.get()  # type: ignore[attr-defined]
        opened, hello = self.transport.take()
        self.assertEqual(json.loads(opened.data)["upgrades"], ["websocket"])
        self.assertEqual(hello, message("hello"))

    def test_secret(self) -> None:
        """The representation of a session is too little to take the session over."""
        self.openWebSocket()
        self.assertNotIn("secret", repr(self.session))
        self.assertNotIn("secret", self.session.label)
        self.assertIn("websocket open", repr(self.session))


class SendingTests(SessionTestCase):
    def test_atOnce(self) -> None:
        self.openWebSocket()
        self.session.send("hello")
        self.session.send(b"\x00")
        self.assertEqual(self.transport.take(), [message("hello"), message(b"\x00")])
        self.assertEqual(self.session.buffered, 0)

    def test_inOrderAfterAWait(self) -> None:
        self.openWebSocket()
        self.transport.writable = False
        for text in "abc":
            self.session.send(text)
        self.assertEqual(self.transport.take(), [])
        self.assertEqual(self.session.buffered, 6)
        self.transport.writable = True
        self.session.send("d")  # not before the buffered packets
        self.assertEqual(self.transport.take(), [])
        self.session.transportWritable(self.transport)
        self.assertEqual(self.transport.take(), [message(text) for text in "abcd"])
        self.assertEqual(self.session.buffered, 0)

    def test_bufferedInBytes(self) -> None:
        self.openWebSocket()
        self.transport.writable = False
        self.session.send("é")
        self.session.send(b"123")
        self.assertEqual(self.session.buffered, 3 + 3)

    def test_polling(self) -> None:
        """A GET fetches buffered packets, or waits for the next one."""
        self.openPolling()
        self.polling.responses.clear()
        self.session.send("a")
        self.session.send("b")
        self.polling.get()
        self.assertEqual(self.polling.responses, [[message("a"), message("b")]])
        self.polling.get()
        self.assertTrue(self.session.writable)
        self.session.send("c")
        self.assertFalse(self.session.writable)
        self.assertEqual(self.polling.responses[1:], [[message("c")]])

    def test_manyOnPolling(self) -> None:
        """Some clients accept at most 16 packets in a response; other packets wait for the next GET."""
        self.openPolling()
        self.polling.responses.clear()
        for number in range(20):
            self.session.send(str(number))
        self.polling.get()
        self.assertEqual(len(self.polling.responses[0]), 16)
        self.assertEqual(self.session.buffered, sum(len(f"4{number}") for number in range(16, 20)))
        self.polling.get()
        self.assertEqual(self.polling.take(), [message(str(number)) for number in range(20)])
        self.assertEqual(self.session.buffered, 0)

    def test_manyTogetherOnPolling(self) -> None:
        """The limit also holds for packets sent together, such as an event and 20 attachments."""
        self.openPolling()
        packets = [message("x"), *(message(b"%d" % number) for number in range(20))]
        self.polling.get()
        self.session.sendPackets(packets)
        self.polling.get()
        self.assertEqual(self.polling.take(), packets)

    def test_unencodable(self) -> None:
        """A message that cannot be encoded raises at once and does not harm the session."""
        self.openPolling()
        self.polling.get()
        self.assertRaises(ValueError, self.session.send, "\ud800")
        self.session.send("hello")
        self.assertEqual(self.polling.take(), [message("hello")])

    def test_volatile(self) -> None:
        self.openWebSocket()
        self.session.send("a", volatile=True)
        self.transport.writable = False
        self.session.send("b", volatile=True)
        self.session.send("c")
        self.transport.writable = True
        self.session.send("d", volatile=True)  # cannot leave at once, behind buffered packets
        self.session.transportWritable(self.transport)
        self.session.send("e", volatile=True)
        self.assertEqual(self.transport.take(), [message("a"), message("c"), message("e")])

    def test_volatileTogether(self) -> None:
        """A header and its attachments are sent or dropped together."""
        self.openPolling()
        self.session.sendPackets([message("header"), message(b"attachment")], volatile=True)
        self.polling.get()
        self.assertEqual(self.polling.take(), [])
        self.session.sendPackets([message("header"), message(b"attachment")], volatile=True)
        self.assertEqual(self.polling.take(), [message("header"), message(b"attachment")])

    def test_afterTheEnd(self) -> None:
        self.openWebSocket()
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.session.send("late")
        self.assertEqual(self.transport.take(), [])
        self.assertFalse(self.session.writable)

    def test_foreignTransport(self) -> None:
        """Packets and losses of a foreign transport change nothing."""
        self.openWebSocket()
        self.transport.writable = False
        self.session.send("a")
        stranger = FakeTransport()
        self.session.transportWritable(stranger)
        self.session.packetReceived(stranger, message("x"))
        self.session.transportLost(stranger, CloseReason.TRANSPORT_ERROR)
        self.assertEqual((stranger.take(), self.owner.heard), ([], []))
        self.assertOpen()


class SlowConsumerTests(SessionTestCase):
    def test_limit(self) -> None:
        self.openWebSocket(maxBuffered=10)
        self.transport.writable = False
        self.session.send("1234")
        self.session.send("1234")
        self.assertEqual(self.session.buffered, 10)
        self.assertOpen()
        self.session.send("")
        self.assertEnded(CloseReason.SLOW_CONSUMER)

    def test_oneMessageAlwaysGoes(self) -> None:
        self.openWebSocket(maxBuffered=10)
        self.transport.writable = False
        self.session.send("x" * 100)
        self.assertOpen()
        self.session.transportWritable(self.transport)
        self.transport.writable = True
        self.session.transportWritable(self.transport)
        self.assertEqual(self.transport.take(), [message("x" * 100)])

    def test_withItsAttachments(self) -> None:
        """A message may exceed the limit together with its attachments."""
        self.openWebSocket(maxBuffered=10)
        self.transport.writable = False
        self.session.sendPackets([message("header"), message(b"x" * 100)])
        self.assertOpen()

    def test_noLimitWhileItGoes(self) -> None:
        self.openWebSocket(maxBuffered=10)
        for _ in range(10):
            self.session.send("12345678")
        self.assertOpen()

    def test_onPolling(self) -> None:
        """The limit is the same on both transports."""
        self.openPolling(maxBuffered=10)
        self.session.send("12345678")
        self.session.send("12345678")
        self.assertEnded(CloseReason.SLOW_CONSUMER)

    def test_heartbeatCounts(self) -> None:
        """A PING beyond ``maxBuffered`` ends the session, as any packet does."""
        self.openWebSocket(maxBuffered=10)
        self.transport.writable = False
        self.session.send("123456789")
        self.clock.advance(25)
        self.assertEnded(CloseReason.SLOW_CONSUMER)


class ReceivingTests(SessionTestCase):
    def test_messages(self) -> None:
        self.openWebSocket()
        self.receive(message("a"), message(b"b"))
        self.assertEqual(self.owner.heard, ["a", b"b"])

    def test_withoutMeaning(self) -> None:
        """Packets that only servers send, and an UPGRADE without a probe, are ignored."""
        self.openWebSocket()
        self.receive(Packet(PacketType.OPEN, "{}"), UPGRADE, NOOP)
        self.assertOpen()
        self.assertEqual(self.transport.take(), [])

    def test_receiverFails(self) -> None:
        """An exception of the receiver is logged, and the session goes on."""
        self.openWebSocket()
        self.owner.onMessage = lambda data: 1 / 0
        self.receive(message("a"), message("b"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(self.owner.heard, ["a", "b"])
        self.assertOpen()

    def test_receiverFailsOnTheEnd(self) -> None:
        self.openWebSocket()
        self.owner.onEnd = lambda reason: 1 / 0
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_pause(self) -> None:
        self.openWebSocket()
        self.session.pause()
        self.session.pause()
        self.assertTrue(self.session.paused)
        self.assertFalse(self.transport.reading)
        self.receive(message("on its way"))  # read before the pause
        self.assertEqual(self.owner.heard, ["on its way"])
        self.session.resume()
        self.session.resume()
        self.assertFalse(self.session.paused)
        self.assertTrue(self.transport.reading)

    def test_twoPausers(self) -> None:
        """Reading goes on when every pauser has resumed, in any order."""
        for first, second in (tuple(Pauser), tuple(Pauser)[::-1]):
            self.openWebSocket()
            for pauser in (first, second, first):
                self.session.pause(pauser)
            self.session.resume(first)
            self.assertFalse(self.transport.reading)
            self.assertTrue(self.session.paused)
            self.session.resume(first)
            self.assertFalse(self.transport.reading)
            self.session.resume(second)
            self.assertTrue(self.transport.reading)
            self.assertFalse(self.session.paused)

    def test_pauseAfterTheEnd(self) -> None:
        """Reading goes on after the end, since the client's close frame must be read."""
        self.openWebSocket()
        self.session.close()
        self.session.pause()
        self.assertTrue(self.transport.reading)
        self.session.resume()
        self.assertTrue(self.transport.reading)

    def test_resumeAfterTheEnd(self) -> None:
        self.openWebSocket()
        self.session.pause()
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.transport.reading = False
        self.session.resume()
        self.assertFalse(self.transport.reading)


class HeartbeatTests(SessionTestCase):
    def test_ping(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(2.9)
        self.assertEqual(self.transport.take(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.transport.take(), [PING])

    def test_nextAfterThePong(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        for _ in range(3):
            self.clock.advance(3)
            self.assertEqual(self.transport.take(), [PING])
            self.clock.advance(1.9)
            self.receive(PONG)
            self.clock.advance(2.9)
            self.assertEqual(self.transport.take(), [])
            self.clock.advance(0.1)
            self.assertEqual(self.transport.take(), [PING])
            self.receive(PONG)

    def test_missing(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(3)
        self.clock.advance(1.9)
        self.assertOpen()
        self.clock.advance(0.1)
        self.assertEnded(CloseReason.PING_TIMEOUT)

    def test_missingInTheLog(self) -> None:
        """A timeout is one line, with the setting and where to look."""
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(3)
        with capturedLogs() as events:
            self.clock.advance(2)
        [line] = [formatEvent(event) for event in events]
        self.assertIn(": ping timeout: no sign of life in time (pingTimeout, 2 s): ", line)

    def test_noGET(self) -> None:
        """A polling client without another GET times out too."""
        self.openPolling(pingInterval=3, pingTimeout=2)
        self.clock.advance(3)
        self.assertEqual(self.session.buffered, 1)
        self.clock.advance(2)
        self.assertEnded(CloseReason.PING_TIMEOUT)

    def test_unasked(self) -> None:
        """A PONG without a PING does not delay the next PING."""
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(2)
        self.receive(PONG)
        self.clock.advance(1)
        self.assertEqual(self.transport.take(), [PING])

    def test_twice(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(3)
        self.receive(PONG)
        self.clock.advance(2)
        self.receive(PONG)
        self.clock.advance(1)
        self.assertEqual(self.transport.take(), [PING, PING])

    def test_anotherPacketIsASignOfLife(self) -> None:
        """A large upload may delay the PONG; a client that sends nothing times out."""
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(3)
        self.clock.advance(1)
        self.receive(message("x"))
        self.clock.advance(1)
        self.assertOpen()
        self.clock.advance(2)
        self.assertEnded(CloseReason.PING_TIMEOUT)

    def test_lateButThere(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(3)
        self.receive(message("x"))
        self.clock.advance(2)
        self.receive(PONG)
        self.clock.advance(3)
        self.assertEqual(self.transport.take(), [PING, PING])

    def test_messagesDoNotReplaceIt(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(2)
        self.receive(message("x"))
        self.clock.advance(1)
        self.assertEqual(self.transport.take(), [PING])

    def test_notWhilePaused(self) -> None:
        """A paused client cannot time out; after the pause, its time starts anew."""
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(3)
        self.session.pause()
        for _ in range(10):
            self.clock.advance(2)
        self.assertOpen()
        self.session.resume()
        self.clock.advance(2)
        self.assertOpen()
        self.clock.advance(2)
        self.assertEnded(CloseReason.PING_TIMEOUT)

    def test_afterAPause(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(3)
        self.session.pause()
        self.clock.advance(2)
        self.session.resume()
        self.receive(PONG)
        self.clock.advance(3)
        self.assertEqual(self.transport.take(), [PING, PING])

    def test_wrongDirection(self) -> None:
        self.openWebSocket()
        self.receive(Packet(PacketType.PING))
        self.assertEnded(CloseReason.TRANSPORT_ERROR)

    def test_acrossAnUpgrade(self) -> None:
        """A PING sent by polling may be answered by WebSocket, and must be answered."""
        for answers in (True, False):
            self.openPolling(pingInterval=3, pingTimeout=2)
            self.polling.get()
            self.clock.advance(3)
            self.assertEqual(self.polling.take(), [PING])
            candidate = FakeTransport()
            self.session.upgrade(candidate)
            for packet in (PROBE, UPGRADE):
                self.session.packetReceived(candidate, packet)
            self.transport = candidate
            if answers:
                self.receive(PONG)
                self.clock.advance(3)
                self.assertEqual(candidate.take(), [PROBED, PING])
            else:
                self.clock.advance(2)
                self.assertEnded(CloseReason.PING_TIMEOUT)


class ClientHeartbeatTests(SessionTestCase):
    """The heartbeat of Engine.IO 3, where the client sends PING."""

    codec = EngineIO3

    def test_answered(self) -> None:
        self.openWebSocket()
        self.receive(PING, PROBE)
        self.assertEqual(self.transport.take(), [PONG, PROBED])

    def test_nobodyAsksTheClient(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        for _ in range(3):
            self.clock.advance(4.9)
            self.receive(PING)
        self.assertEqual(self.transport.take(), [PONG, PONG, PONG])
        self.assertOpen()

    def test_missing(self) -> None:
        for pings in (0, 1, 3):
            self.openWebSocket(pingInterval=3, pingTimeout=2)
            for _ in range(pings):
                self.clock.advance(3)
                self.receive(PING)
            self.clock.advance(4.9)
            self.assertOpen()
            self.clock.advance(0.1)
            self.assertEnded(CloseReason.PING_TIMEOUT)

    def test_whileAGETWaits(self) -> None:
        """A waiting GET is no sign of life: the client's machine may sleep."""
        self.openPolling(pingInterval=3, pingTimeout=2)
        self.polling.get()
        self.clock.advance(5)
        self.assertEnded(CloseReason.PING_TIMEOUT)

    def test_anotherPacketIsASignOfLife(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.clock.advance(4)
        self.receive(message("x"))
        self.clock.advance(1)
        self.assertOpen()
        self.clock.advance(2)
        self.assertEnded(CloseReason.PING_TIMEOUT)

    def test_notWhilePaused(self) -> None:
        self.openWebSocket(pingInterval=3, pingTimeout=2)
        self.session.pause()
        for _ in range(10):
            self.clock.advance(2)
        self.assertOpen()
        self.session.resume()
        self.clock.advance(2)
        self.assertOpen()
        self.clock.advance(2)
        self.assertEnded(CloseReason.PING_TIMEOUT)

    def test_wrongDirection(self) -> None:
        self.openWebSocket()
        self.receive(PONG)
        self.assertEnded(CloseReason.TRANSPORT_ERROR)

    def test_acrossAnUpgrade(self) -> None:
        """The heartbeat goes on after an upgrade."""
        for pings in (0, 2):
            self.openPolling(pingInterval=3, pingTimeout=2)
            self.polling.get()
            self.clock.advance(1)
            candidate = FakeTransport()
            self.session.upgrade(candidate)
            for packet in (PROBE, UPGRADE):
                self.session.packetReceived(candidate, packet)
            self.transport = candidate
            candidate.take()
            for _ in range(pings):
                self.clock.advance(3)
                self.receive(PING)
                self.assertEqual(candidate.take(), [PONG])
            self.clock.advance(3.9)
            self.assertOpen()
            self.clock.advance(1.1)
            self.assertEnded(CloseReason.PING_TIMEOUT)


class UpgradeTests(SessionTestCase):
    def setUp(self) -> None:
        self.openPolling()
        self.polling.responses.clear()
        self.candidate = FakeTransport()

    def probe(self, *packets: Packet) -> None:
        for packet in packets:
            self.session.packetReceived(self.candidate, packet)

    def assertUpgraded(self) -> None:
        self.assertIs(self.session.transport, self.candidate)
        self.assertIsNotNone(self.polling.closed)
        self.assertIsNone(self.candidate.closed)
        self.assertOpen()

    def assertNotUpgraded(self) -> None:
        """Assert that the probed WebSocket is closed, and polling goes on."""
        self.assertIs(self.session.transport, self.polling)
        self.assertIsNotNone(self.candidate.closed)
        self.assertIsNone(self.polling.closed)
        self.assertOpen()
        self.session.send("still here")
        if not self.polling.responses:
            self.polling.get()
        self.assertIn(message("still here"), self.polling.take())
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # the heartbeat

    def test_steps(self) -> None:
        self.session.upgrade(self.candidate)
        self.assertEqual(self.candidate.take(), [])
        self.probe(PROBE)
        self.assertEqual(self.candidate.take(), [PROBED])
        self.probe(UPGRADE)
        self.assertUpgraded()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.transport = self.candidate
        self.session.send("hello")
        self.receive(message("hi"))
        self.assertEqual((self.candidate.take(), self.owner.heard), ([message("hello")], ["hi"]))
        self.assertEqual(self.polling.take(), [])

    def test_noCircle(self) -> None:
        """The WebSocket is freed with the session, and does not wait for the garbage collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        for packet in (UPGRADE, NOOP):
            self.setUp()
            self.session.upgrade(self.candidate)
            self.probe(packet)
            self.session.abort(CloseReason.FORCED_CLOSE)
            gone = weakref.ref(self.candidate)
            del self.candidate
            self.assertIsNone(gone())

    def test_waitingGETReturns(self) -> None:
        """The waiting GET returns after the probe, since the client waits for it to pause polling."""
        self.polling.get()
        self.session.upgrade(self.candidate)
        self.assertEqual(self.polling.responses, [])
        self.probe(PROBE)
        self.assertEqual(self.polling.responses, [[NOOP]])

    def test_laterGETReturns(self) -> None:
        """A GET that comes after the probe returns too."""
        self.session.upgrade(self.candidate)
        self.probe(PROBE)
        for count in (1, 2):
            self.polling.get()
            self.assertEqual(self.polling.responses, [[NOOP]] * count)

    def test_laterGETReturnsWithMessages(self) -> None:
        self.session.upgrade(self.candidate)
        self.probe(PROBE)
        self.session.send("a")
        self.polling.get()
        self.assertEqual(self.polling.responses, [[message("a")]])

    def test_bufferMovesAlong(self) -> None:
        """The upgrade loses, repeats and reorders no packet."""
        self.session.send("1")
        self.session.upgrade(self.candidate)
        self.session.send("2")
        self.polling.get()
        self.session.send("3")
        self.probe(PROBE)
        self.session.send("4")
        self.assertEqual(self.candidate.take(), [PROBED])
        self.probe(UPGRADE)
        self.session.send("5")
        self.assertEqual(self.polling.take(), [message("1"), message("2")])
        self.assertEqual(self.candidate.take(), [message("3"), message("4"), message("5")])
        self.assertEqual(self.session.buffered, 0)

    def test_bufferWaitsForTCP(self) -> None:
        self.session.send("1")
        self.session.upgrade(self.candidate)
        self.probe(PROBE)
        self.candidate.take()
        self.candidate.writable = False
        self.probe(UPGRADE)
        self.assertEqual((self.candidate.take(), self.session.buffered), ([], 2))
        self.candidate.writable = True
        self.session.transportWritable(self.candidate)
        self.assertEqual(self.candidate.take(), [message("1")])

    def test_waitingGETReturnsAtTheUpgrade(self) -> None:
        """A GET overtaken by the upgrade returns without packets, and without a CLOSE."""
        self.session.upgrade(self.candidate)
        self.polling.get()
        self.probe(PROBE)
        self.polling.writable = True  # a GET unknown to the session
        self.probe(UPGRADE)
        self.assertEqual(self.polling.responses, [[NOOP], [NOOP]])

    def test_messagesMeanwhile(self) -> None:
        """Messages in POSTs are received until the upgrade is complete."""
        self.session.upgrade(self.candidate)
        self.receive(message("a"))
        self.probe(PROBE)
        self.receive(message("b"))
        self.probe(UPGRADE)
        self.assertEqual(self.owner.heard, ["a", "b"])
        self.receive(message("c"))
        self.assertEqual(self.owner.heard, ["a", "b"])

    def test_withoutAProbe(self) -> None:
        """A client may omit the probe, as Elephant.io does."""
        self.session.send("1")
        self.session.upgrade(self.candidate)
        self.probe(UPGRADE)
        self.assertIs(self.session.transport, self.candidate)
        self.assertEqual(self.candidate.take(), [message("1")])
        self.assertIsNone(self.candidate.closed)
        self.assertIsNotNone(self.polling.closed)

    def test_withoutAProbeWhileAGETWaits(self) -> None:
        self.polling.get()
        self.session.upgrade(self.candidate)
        self.probe(UPGRADE)
        self.assertEqual(self.polling.responses, [[NOOP]])

    def test_garbage(self) -> None:
        for packet in (
            Packet(PacketType.PING),
            Packet(PacketType.PING, "prob"),
            message("probe"),
            message(b"2probe"),
            PONG,
            CLOSE,
            NOOP,
        ):
            for before in ([], [PROBE]):
                self.setUp()
                self.session.upgrade(self.candidate)
                self.probe(*before, packet)
                self.assertNotUpgraded()
                self.assertEqual(self.owner.heard, [])

    def test_probeTwice(self) -> None:
        self.session.upgrade(self.candidate)
        self.probe(PROBE, PROBE)
        self.assertNotUpgraded()

    def test_candidateLost(self) -> None:
        for before in ([], [PROBE]):
            self.setUp()
            self.session.upgrade(self.candidate)
            self.probe(*before)
            self.session.transportLost(self.candidate, CloseReason.TRANSPORT_CLOSE)
            self.assertNotUpgraded()

    def test_timeout(self) -> None:
        for before in ([], [PROBE]):
            self.setUp()
            self.session.upgrade(self.candidate)
            self.probe(*before)
            self.clock.advance(9.9)
            self.assertIsNone(self.candidate.closed)
            self.clock.advance(0.1)
            self.assertNotUpgraded()

    def test_lateSteps(self) -> None:
        """Packets of a WebSocket whose upgrade failed are ignored."""
        self.session.upgrade(self.candidate)
        self.clock.advance(10)
        self.probe(PROBE, UPGRADE, message("x"))
        self.session.transportLost(self.candidate, CloseReason.TRANSPORT_CLOSE)
        self.assertNotUpgraded()
        self.assertEqual((self.owner.heard, self.candidate.take()), ([], []))

    def test_another(self) -> None:
        """After a failure, another WebSocket can be probed."""
        self.session.upgrade(self.candidate)
        self.probe(NOOP)
        self.candidate = FakeTransport()
        self.session.upgrade(self.candidate)
        self.probe(PROBE, UPGRADE)
        self.assertUpgraded()

    def test_second(self) -> None:
        """A second WebSocket is closed while the first is probed."""
        second = FakeTransport()
        self.session.upgrade(self.candidate)
        self.session.upgrade(second)
        self.assertIsNotNone(second.closed)
        for packet in (PROBE, UPGRADE):
            self.session.packetReceived(second, packet)
        self.assertEqual(second.take(), [])
        self.probe(PROBE, UPGRADE)
        self.assertUpgraded()

    def test_secondAfterTheUpgrade(self) -> None:
        self.session.upgrade(self.candidate)
        self.probe(PROBE, UPGRADE)
        second = FakeTransport()
        self.session.upgrade(second)
        self.assertIsNotNone(second.closed)
        self.assertUpgraded()

    def test_ofWebSocket(self) -> None:
        self.openWebSocket()
        self.session.upgrade(self.candidate)
        self.assertIsNotNone(self.candidate.closed)
        self.assertIs(self.session.transport, self.transport)

    def test_afterTheEnd(self) -> None:
        self.session.close()
        self.session.upgrade(self.candidate)
        self.assertIsNotNone(self.candidate.closed)

    def test_paused(self) -> None:
        """A paused session is also paused on the new transport."""
        self.session.upgrade(self.candidate)
        self.probe(PROBE)
        self.session.pause()
        self.probe(UPGRADE)
        self.assertFalse(self.candidate.reading)
        self.session.resume()
        self.assertTrue(self.candidate.reading)

    def test_pollingLost(self) -> None:
        """The end of the session closes the probed WebSocket."""
        self.session.upgrade(self.candidate)
        self.probe(PROBE)
        self.session.transportLost(self.polling, CloseReason.TRANSPORT_ERROR)
        self.assertEnded(CloseReason.TRANSPORT_ERROR)
        self.assertIsNotNone(self.candidate.closed)
        self.probe(UPGRADE)
        self.assertEnded(CloseReason.TRANSPORT_ERROR)

    def test_closeMeanwhile(self) -> None:
        """A closing session completes the upgrade, and delivers its packets and the end by WebSocket."""
        self.session.upgrade(self.candidate)
        self.probe(PROBE)
        self.session.send("last")
        self.session.close()
        self.assertEqual(self.owner.ends, [CloseReason.FORCED_CLOSE])
        self.assertEqual(self.polling.take(), [])
        self.probe(UPGRADE)
        self.assertEqual(self.candidate.take(), [PROBED, message("last")])
        self.transport = self.candidate
        self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_closeAndFailMeanwhile(self) -> None:
        """If the upgrade fails, a closing session delivers its packets by polling."""
        self.session.upgrade(self.candidate)
        self.probe(PROBE)
        self.session.send("last")
        self.session.close()
        self.session.transportLost(self.candidate, CloseReason.TRANSPORT_CLOSE)
        self.polling.get()
        self.polling.get()
        self.assertEqual(self.polling.responses[-2:], [[message("last")], [CLOSE]])
        self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_closeAndFetchMeanwhile(self) -> None:
        """A GET during the upgrade fetches packets but no CLOSE: the client will leave polling."""
        self.session.upgrade(self.candidate)
        self.session.send("last")
        self.session.close()
        self.polling.get()
        self.assertEqual(self.polling.take(), [message("last")])
        self.probe(PROBE, UPGRADE)
        self.transport = self.candidate
        self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_closeTimeoutMeanwhile(self) -> None:
        self.openPolling(upgradeTimeout=60)
        self.session.upgrade(self.candidate)
        self.session.close()
        self.clock.advance(30)
        self.assertEnded(CloseReason.FORCED_CLOSE, CloseReason.SLOW_CONSUMER)
        self.assertIsNotNone(self.candidate.closed)


class ClosingTests(SessionTestCase):
    def test_webSocket(self) -> None:
        self.openWebSocket()
        self.session.send("last")
        self.session.close()
        self.assertEqual(self.transport.take(), [message("last")])
        self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_reasons(self) -> None:
        for reason in CloseReason:
            for end in (Session.close, Session.abort):
                self.openWebSocket()
                end(self.session, reason)
                self.assertEnded(reason)

    def test_twice(self) -> None:
        self.openWebSocket()
        self.session.close(CloseReason.SHUTTING_DOWN)
        self.session.close()
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.session.transportLost(self.transport, CloseReason.TRANSPORT_CLOSE)
        self.assertEnded(CloseReason.SHUTTING_DOWN)

    def test_byTheReceiver(self) -> None:
        """A receiver may close the session from messageReceived(), and gets no further message."""
        for end in (Session.close, lambda session: session.abort(CloseReason.FORCED_CLOSE)):
            self.openWebSocket()
            self.owner.onMessage = lambda data, end=end: end(self.session)
            self.receive(message("a"), message("b"), Packet(PacketType.PING), CLOSE)
            self.assertEqual(self.owner.heard, ["a"])
            self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_withinTheEnd(self) -> None:
        """A receiver cannot revive the session from sessionClosed()."""
        self.openWebSocket()

        def onEnd(reason: CloseReason) -> None:
            self.session.send("too late")
            self.session.close()
            self.session.abort(CloseReason.PARSE_ERROR)

        self.owner.onEnd = onEnd
        self.session.transportLost(self.transport, CloseReason.TRANSPORT_CLOSE)
        self.assertEqual(self.transport.take(), [])
        self.assertEnded(CloseReason.TRANSPORT_CLOSE)

    def test_withinAClose(self) -> None:
        self.openWebSocket()
        self.owner.onEnd = lambda reason: self.session.abort(CloseReason.PARSE_ERROR)
        self.session.close()
        self.assertEqual(self.owner.ends, [CloseReason.FORCED_CLOSE])
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([self.session], []))

    def test_waitingGET(self) -> None:
        self.openPolling()
        self.polling.get()
        self.session.close()
        self.assertEqual(self.polling.take(), [CLOSE])
        self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_laterGET(self) -> None:
        """The next GET fetches the buffered packets, and the one after it the CLOSE."""
        self.openPolling()
        self.session.send("last")
        self.session.close()
        self.assertEqual(self.owner.ends, [CloseReason.FORCED_CLOSE])
        self.assertEqual(self.session.state, State.CLOSING)
        self.session.send("too late")
        self.receive(message("too late"))
        self.polling.get()
        self.assertEqual((self.polling.take(), self.session.state), ([message("last")], State.CLOSING))
        self.polling.get()
        self.assertEqual(self.polling.take(), [CLOSE])
        self.assertEnded(CloseReason.FORCED_CLOSE)
        self.assertEqual(self.owner.heard, [])

    def test_closeByBothSides(self) -> None:
        """A CLOSE from the client ends a session that is closing: the client fetches no more."""
        self.openPolling()
        self.session.send("last")
        self.session.close()
        self.polling.get()
        self.receive(CLOSE)
        self.assertEqual(self.polling.take(), [message("last")])
        self.assertEnded(CloseReason.FORCED_CLOSE, CloseReason.TRANSPORT_CLOSE)

    def test_manyAtTheEnd(self) -> None:
        """A closing session delivers in as many GETs as needed, each within the limit of packets."""
        for count in (15, 16, 17, 40):
            self.openPolling()
            for number in range(count):
                self.session.send(str(number))
            self.session.close()
            while self.session.state is not State.CLOSED:
                self.polling.get()
            self.assertEqual(self.polling.take(), [*(message(str(number)) for number in range(count)), CLOSE])
            self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_shuttingDown(self) -> None:
        """A server that shuts down sends no CLOSE, after which some clients do not reconnect."""
        self.openPolling()
        self.session.send("last")
        self.session.close(CloseReason.SHUTTING_DOWN)
        self.polling.get()
        self.assertEqual(self.polling.take(), [message("last")])
        self.assertEnded(CloseReason.SHUTTING_DOWN)

    def test_closeTimeout(self) -> None:
        """A client that does not fetch the buffered packets in time is dropped."""
        self.openPolling(closeTimeout=5)
        self.session.send("last")
        self.session.close()
        self.clock.advance(4.9)
        self.assertEqual(self.session.state, State.CLOSING)
        self.clock.advance(0.1)
        self.assertEnded(CloseReason.FORCED_CLOSE, CloseReason.SLOW_CONSUMER)

    def test_closeTimeoutOfWebSocket(self) -> None:
        self.openWebSocket(closeTimeout=5)
        self.transport.writable = False
        self.session.send("last")
        self.session.close()
        self.assertIsNone(self.transport.closed)
        self.clock.advance(5)
        self.assertEnded(CloseReason.FORCED_CLOSE, CloseReason.SLOW_CONSUMER)
        self.assertEqual(self.transport.take(), [])

    def test_drainsBeforeTheTimeout(self) -> None:
        self.openWebSocket(closeTimeout=5)
        self.transport.writable = False
        self.session.send("last")
        self.session.close()
        self.transport.writable = True
        self.session.transportWritable(self.transport)
        self.assertEqual(self.transport.take(), [message("last")])
        self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_noHeartbeatWhileClosing(self) -> None:
        self.openPolling(pingInterval=3, pingTimeout=2, closeTimeout=60)
        self.session.close()
        self.clock.pump([1] * 59)
        self.assertEqual(self.session.state, State.CLOSING)
        self.polling.get()
        self.assertEqual(self.polling.take(), [CLOSE])

    def test_lostWhileClosing(self) -> None:
        self.openPolling()
        self.session.close()
        self.session.transportLost(self.polling, CloseReason.TRANSPORT_ERROR)
        self.assertEnded(CloseReason.FORCED_CLOSE, CloseReason.TRANSPORT_ERROR)

    def test_abortDropsTheRest(self) -> None:
        self.openPolling()
        self.session.send("last")
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.assertEqual(self.polling.take(), [])
        self.assertEnded(CloseReason.FORCED_CLOSE)

    def test_closeByTheClient(self) -> None:
        """A CLOSE packet ends the session, also over WebSocket."""
        for transport in (FakeTransport(), FakePolling()):
            self.open(transport)
            self.receive(CLOSE, message("too late"))
            self.assertEnded(CloseReason.TRANSPORT_CLOSE)
            self.assertEqual(self.owner.heard, [])

    def test_closeByThePollingClient(self) -> None:
        """The waiting GET of a polling client that closes returns without packets."""
        self.openPolling()
        self.polling.get()
        self.receive(CLOSE)
        self.assertEqual(self.polling.take(), [NOOP])

    def test_lost(self) -> None:
        for reason in (CloseReason.TRANSPORT_CLOSE, CloseReason.TRANSPORT_ERROR, CloseReason.PARSE_ERROR):
            self.openWebSocket()
            self.session.transportLost(self.transport, reason, "why")
            self.assertEnded(reason)

    def test_writableAfterTheEnd(self) -> None:
        self.openPolling()
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.session.transportWritable(self.polling)
        self.assertEqual(self.polling.take(), [])
