"""
A state machine that does anything to a session in any order.
"""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import settings as hypothesisSettings
from tests.examples import st
from tests.test_session import PONG, PROBE, PROBED, UPGRADE, FakePolling, openSession
from txrealtime.engineio.packet import CLOSE, NOOP, Packet, PacketType, message
from txrealtime.engineio.session import CloseReason, Session, State
from txrealtime.engineio.settings import Settings
from txrealtime.testing import FakeTransport


class SessionMachine(RuleBasedStateMachine):
    """
    A random sequence of everything that applications, clients and networks do to a session.

    The model holds the promises of a session.  The client receives a prefix of the sent packets, apart
    from volatile ones, in order, and none twice.  The receiver is told of the end once, and gets nothing
    afterwards.  Buffered bytes are counted and limited.  After the end nothing remains.
    """

    SETTINGS = Settings(
        pingInterval=5, pingTimeout=4, upgradeTimeout=6, closeTimeout=8, maxBuffered=200, maxPayload=1000
    )

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ended: list[Session] = []
        self.sent: list[Packet] = []  # packets for the client, in this order
        self.got: list[Packet] = []
        self.toClient = 0
        self.fromClient = 0
        self.expected: list[str] = []  # messages for the receiver
        self.candidate: FakeTransport | None = None
        self.probed = False

    @initialize(start=st.sampled_from(["websocket", "polling", "upgrading"]))
    def open(self, start: str) -> None:
        self.transport: FakeTransport = FakeTransport() if start == "websocket" else FakePolling()
        self.transports = [self.transport]
        self.session, self.owner = openSession(self.clock, self.transport, self.SETTINGS, self.ended)
        if start == "upgrading":
            self.knock()

    # -- helpers of the model --

    @property
    def isOpen(self) -> bool:
        return self.session.state is State.OPEN

    @property
    def hasLived(self) -> bool:
        """Tell if the session is old enough for the rules that end it, and with it the sequence."""
        return self.toClient > 20

    @property
    def isPolling(self) -> bool:
        return isinstance(self.transport, FakePolling)

    def collect(self) -> None:
        """Gather the packets that the client has received on all transports."""
        for transport in self.transports:
            for packet in transport.take():
                if packet.type is PacketType.MESSAGE:
                    self.got.append(packet)

    def nextMessage(self, size: int, binary: bool) -> Packet:
        self.toClient += 1
        text = f"{self.toClient}".ljust(size, "x")
        return message(text.encode() if binary else text)

    # -- the application --

    @precondition(lambda self: self.isOpen)
    @rule(size=st.sampled_from([0, 0, 0, 50, 99, 150, 500]), binary=st.booleans())
    def send(self, size: int, binary: bool) -> None:
        packet = self.nextMessage(size, binary)
        before = self.session.buffered
        self.sent.append(packet)
        self.session.send(packet.data)
        if not self.isOpen:
            assert self.owner.ends == [CloseReason.SLOW_CONSUMER]
            assert before and before + len(packet.wire) > self.SETTINGS.maxBuffered

    @precondition(lambda self: self.isOpen)
    @rule(count=st.integers(1, 24), volatile=st.booleans())
    def sendTogether(self, count: int, volatile: bool) -> None:
        packets = [self.nextMessage(0, index > 0) for index in range(count)]
        goes = not volatile or self.session.writable
        if goes:
            self.sent += packets
        self.session.sendPackets(packets, volatile)

    @rule()
    def sendVolatile(self) -> None:
        packet = self.nextMessage(0, False)
        if self.session.writable:
            self.sent.append(packet)
        self.session.send(packet.data, volatile=True)

    @precondition(lambda self: not self.isOpen)
    @rule()
    def sendTooLate(self) -> None:
        self.session.send(self.nextMessage(0, False).data)

    @rule()
    def pause(self) -> None:
        self.session.pause()

    @rule()
    def resume(self) -> None:
        self.session.resume()

    @rule(reason=st.sampled_from([CloseReason.FORCED_CLOSE, CloseReason.SHUTTING_DOWN]), abort=st.booleans())
    def end(self, reason: CloseReason, abort: bool) -> None:
        if abort:
            self.session.abort(reason)
        else:
            self.session.close(reason)

    # -- the client and its network --

    @precondition(lambda self: self.transport.closed is None and not self.isPolling)
    @rule(writable=st.booleans())
    def tcp(self, writable: bool) -> None:
        changed = writable and not self.transport.writable
        self.transport.writable = writable
        if changed:
            self.session.transportWritable(self.transport)

    @precondition(
        lambda self: self.transport.closed is None and self.isPolling and not self.transport.writable
    )
    @rule()
    def get(self) -> None:
        self.transport.get()  # type: ignore[attr-defined]

    @rule(
        packet=st.sampled_from([PONG, NOOP, UPGRADE, Packet(PacketType.OPEN)]),
        old=st.integers(0, 3),
    )
    def receivePacket(self, packet: Packet, old: int) -> None:
        transport = self.transports[min(old, len(self.transports) - 1)]
        if transport is not self.candidate:
            self.session.packetReceived(transport, packet)

    @rule(last=st.booleans())
    def receiveMessage(self, last: bool) -> None:
        """Receive a message from the client, unheard on an old transport and after the end."""
        self.fromClient += 1
        text = str(self.fromClient)
        transport = self.transport if last else self.transports[0]
        if self.isOpen and transport is self.session.transport:
            self.expected.append(text)
        self.session.packetReceived(transport, message(text))

    @precondition(lambda self: self.hasLived)
    @rule(packet=st.sampled_from([CLOSE, Packet(PacketType.PING)]))
    def endByTheClient(self, packet: Packet) -> None:
        self.session.packetReceived(self.transport, packet)
        assert not self.isOpen

    @precondition(lambda self: self.hasLived)
    @rule(reason=st.sampled_from([CloseReason.TRANSPORT_CLOSE, CloseReason.TRANSPORT_ERROR]))
    def lose(self, reason: CloseReason) -> None:
        self.transport.writable = False
        self.session.transportLost(self.transport, reason)
        assert self.session.state is State.CLOSED

    # -- the upgrade --

    @precondition(lambda self: len(self.transports) < 20)
    @rule()
    def knock(self) -> None:
        """Have a WebSocket ask for an upgrade, allowed or not."""
        newcomer = FakeTransport()
        newcomer.session = self.session
        self.transports.append(newcomer)
        self.session.upgrade(newcomer)
        welcome = self.isOpen and self.isPolling and self.candidate is None
        assert (newcomer.closed is None) is welcome
        if welcome:
            self.candidate, self.probed = newcomer, False

    @precondition(lambda self: self.candidate is not None)
    @rule(writable=st.booleans(), probe=st.sampled_from([True, True, True, False]))
    def upgradeStep(self, writable: bool, probe: bool) -> None:
        """Take the next step of an upgrade: the probe, which a client may omit, then the UPGRADE."""
        candidate = self.candidate
        assert candidate is not None
        if probe and not self.probed:
            self.session.packetReceived(candidate, PROBE)
            assert candidate.take() == [PROBED]
            self.probed = True
            assert not self.transport.writable, "a GET waits after the probe"
        else:
            self.collect()
            candidate.writable = writable
            self.transport, self.candidate = candidate, None
            self.session.packetReceived(candidate, UPGRADE)
            assert self.session.transport is candidate or self.session.state is State.CLOSED

    @precondition(lambda self: self.candidate is not None)
    @rule(packet=st.sampled_from([None, PONG, NOOP, CLOSE, message("x"), message(b"x"), PROBE]))
    def spoilUpgrade(self, packet: Packet | None) -> None:
        """Lose the probed WebSocket, or receive a wrong packet from it."""
        candidate = self.candidate
        assert candidate is not None
        if packet is PROBE and not self.probed:
            return
        self.candidate = None
        if packet is None:
            self.session.transportLost(candidate, CloseReason.TRANSPORT_CLOSE)
        else:
            self.session.packetReceived(candidate, packet)
        assert candidate.closed is not None

    # -- time --

    @rule(seconds=st.sampled_from([0.5, 1, 2, 4, 8]), answers=st.booleans())
    def wait(self, seconds: float, answers: bool) -> None:
        if answers:
            self.session.packetReceived(self.transport, PONG)
        self.clock.advance(seconds)

    # -- what holds at all times --

    @invariant()
    def clientGetsAPrefix(self) -> None:
        self.collect()
        assert self.got == self.sent[: len(self.got)]

    @invariant()
    def ownerHearsAll(self) -> None:
        assert self.owner.heard == self.expected

    @invariant()
    def endsOnce(self) -> None:
        assert len(self.owner.ends) == (0 if self.isOpen else 1)
        assert len(self.ended) == (1 if self.session.state is State.CLOSED else 0)

    @invariant()
    def bufferIsCounted(self) -> None:
        self.collect()
        buffered = self.session.buffered
        if self.session.state is State.CLOSED:
            assert buffered == 0
            return
        waiting = self.sent[len(self.got) :]
        size = sum(len(packet.wire) for packet in waiting)
        # Besides messages, the buffer may hold the open packet and a PING.
        assert size <= buffered <= size + 200, (size, buffered)
        if self.transport.writable and self.candidate is None:
            assert not waiting and not buffered, "writable, and yet something waits"

    @invariant()
    def bufferIsBounded(self) -> None:
        # A single message in an empty buffer has no limit.
        assert self.session.buffered <= max(self.SETTINGS.maxBuffered, 501 + 200)

    @invariant()
    def candidateGoesWithTheSession(self) -> None:
        if self.candidate is not None and self.candidate.closed is not None:
            self.candidate = None  # after upgradeTimeout, or the end of the session
        if self.session.state is State.CLOSED:
            assert all(transport.closed is not None for transport in self.transports)

    @invariant()
    def readsUnlessPaused(self) -> None:
        if self.isOpen:
            assert self.transport.reading is not self.session.paused

    @invariant()
    def nothingRemains(self) -> None:
        calls = len(self.clock.getDelayedCalls())
        if self.session.state is State.CLOSED:
            assert calls == 0, self.clock.getDelayedCalls()
        else:
            # The timers of the upgrade and of the session may share a delayed call.
            assert 1 <= calls <= (2 if self.candidate is not None else 1)

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        # A client that reads to the end gets all packets.
        for _ in range(100):
            if self.isOpen and self.session.buffered:
                self.transport.writable = True
                self.session.transportWritable(self.transport)
        if self.isOpen:
            self.collect()
            assert self.got == self.sent
        self.session.close()
        self.clock.advance(100)
        assert self.session.state is State.CLOSED
        assert len(self.owner.ends) == len(self.ended) == 1
        assert self.clock.getDelayedCalls() == []


class MachineTests(SynchronousTestCase):
    def test_anythingInAnyOrder(self) -> None:
        case = SessionMachine.TestCase()
        case.settings = hypothesisSettings(max_examples=300, stateful_step_count=50)
        case.runTest()
