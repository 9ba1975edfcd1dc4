"""
A state machine that cuts connections at every moment, with an oracle of sequence numbers.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import settings as hypothesisSettings
from tests.examples import st
from txrealtime import Server, Socket
from txrealtime.testing import Client, makeServer

WINDOW = 50.0
CLIENTS = 3
ROOMS = ["red", "blue"]

clients = st.integers(0, CLIENTS - 1)
rooms = st.sampled_from(ROOMS)


class Visitor:
    """
    One client, and the oracle's view of it.

    :ivar owed: the numbers that it has to get before anything else.
    :ivar rooms: the rooms that it is in.
    """

    def __init__(self, server: Server, index: int) -> None:
        self.server = server
        self.index = index
        self.client = Client(server, address=f"192.0.2.{index}")
        self.client.connect()
        self.id = self.client.id()
        self.owed: list[int] = []
        self.rooms: set[str] = set()
        self.cutAt: float | None = None
        self.reads = True
        self.asked: Deferred[None] | None = None

    @property
    def isHere(self) -> bool:
        return self.cutAt is None

    def read(self) -> None:
        """Take what has come: it has to be what is owed, in order, from the first on."""
        for event, *args in self.client.received():
            if event == "number":
                assert self.owed, f"{args[0]} came, and nothing is owed"
                assert args == [self.owed[0]], f"{args} came, expected {self.owed[0]}"
                del self.owed[0]


class RecoveryMachine(RuleBasedStateMachine):
    """
    A random sequence of events, changes of rooms, cuts and returns.

    The oracle promises: a client whose socket was restored has got each number that was for it, once and in
    order; and a client that comes back within the window is restored.
    """

    away = False

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.numbers = itertools.count()
        self.hold: set[str] = set()
        self.server = makeServer(
            self.clock,
            recoveryWindow=WINDOW,
            pingInterval=7,
            pingTimeout=5,
            recoveryAway=self.away,
        )
        self.asks: Deferred[None] | None = None
        self.server.onConnect(self.connected)
        self.visitors = [Visitor(self.server, index) for index in range(CLIENTS)]
        self.plain: list[Client] = []

    def connected(self, socket: Socket, auth: Any) -> Deferred[None] | None:
        asks, self.asks = self.asks, None
        return asks

    def socketOf(self, visitor: Visitor) -> Socket | None:
        return self.server.namespace().rooms.find(visitor.id)

    # -- the application --

    def owe(self, number: int, to: Any) -> None:
        for visitor in self.visitors:
            if to(visitor):
                visitor.owed.append(number)

    @rule()
    def everybody(self) -> None:
        number = next(self.numbers)
        self.owe(number, lambda visitor: True)
        self.server.emit("number", number)

    @rule(room=rooms)
    def room(self, room: str) -> None:
        number = next(self.numbers)
        self.owe(number, lambda visitor: room in visitor.rooms)
        self.server.to(room).emit("number", number)

    @rule()
    def roomsTogether(self) -> None:
        number = next(self.numbers)
        self.owe(number, lambda visitor: visitor.rooms)
        self.server.to(*ROOMS).emit("number", number)

    @rule(room=rooms)
    def excluding(self, room: str) -> None:
        number = next(self.numbers)
        self.owe(number, lambda visitor: room not in visitor.rooms)
        self.server.excluding(room).emit("number", number)

    @rule(index=clients)
    def one(self, index: int) -> None:
        number = next(self.numbers)
        visitor = self.visitors[index]
        visitor.owed.append(number)
        self.server.to(visitor.id).emit("number", number)

    @rule(index=clients)
    def others(self, index: int) -> None:
        number = next(self.numbers)
        socket = self.socketOf(self.visitors[index])
        if socket is not None:
            self.owe(number, lambda visitor: visitor.index != index)
            socket.others.emit("number", number)

    @rule(text=st.sampled_from(["text", 1]))
    def volatile(self, text: Any) -> None:
        self.server.emit("volatile", text, volatile=True)

    @rule(index=clients)
    def ask(self, index: int) -> None:
        socket = self.socketOf(self.visitors[index])
        if socket is not None:
            socket.call("ask", "text", timeout=5).addErrback(lambda failure: None)

    @rule(index=clients, room=rooms)
    def join(self, index: int, room: str) -> None:
        visitor = self.visitors[index]
        socket = self.socketOf(visitor)
        if socket is not None:
            socket.join(room)
            visitor.rooms.add(room)

    @rule(index=clients, room=rooms)
    def leave(self, index: int, room: str) -> None:
        visitor = self.visitors[index]
        socket = self.socketOf(visitor)
        if socket is not None:
            socket.leave(room)
            visitor.rooms.discard(room)

    # -- the network --

    @rule(index=clients)
    def read(self, index: int) -> None:
        if self.visitors[index].isHere:
            self.visitors[index].read()

    @rule(index=clients, noticed=st.booleans())
    def cut(self, index: int, noticed: bool) -> None:
        visitor = self.visitors[index]
        if visitor.isHere:
            visitor.client.lose(noticed)
            visitor.cutAt = self.clock.seconds()

    @rule(index=clients)
    def comeBack(self, index: int) -> None:
        visitor = self.visitors[index]
        if not visitor.isHere:
            self.returned(visitor, visitor.client.comeBack())

    @rule(index=clients)
    def comeBackTwice(self, index: int) -> None:
        """The first new connection is cut while the application is still asked."""
        visitor = self.visitors[index]
        if not visitor.isHere:
            self.asks = Deferred(lambda _: None)
            visitor.client.comeBack().addErrback(lambda failure: None)
            number = next(self.numbers)
            self.owe(number, lambda visitor: True)
            self.server.emit("number", number)
            self.returned(visitor, visitor.client.comeBack())

    @rule(index=clients)
    def comeBackSlowly(self, index: int) -> None:
        """The application takes its time, and goes on to emit."""
        visitor = self.visitors[index]
        if not visitor.isHere:
            self.asks = asked = Deferred()
            coming = visitor.client.comeBack()
            self.everybody()
            self.room("red")
            asked.callback(None)
            self.returned(visitor, coming)

    def returned(self, visitor: Visitor, coming: Deferred[Any]) -> None:
        visitor.client.flush()
        assert coming.called
        assert visitor.cutAt is not None
        late = self.clock.seconds() - visitor.cutAt
        if visitor.client.recovered():
            assert visitor.client.id() == visitor.id
        else:
            assert late >= WINDOW, f"not restored, after {late} s"
            visitor.client.received()
            visitor.id, visitor.owed, visitor.rooms = visitor.client.id(), [], set()
        visitor.cutAt = None

    @rule(seconds=st.sampled_from([0.0, 0.5, 4.0, 7.0, 12.0, 30.0]))
    def wait(self, seconds: float) -> None:
        while seconds > 0:
            self.clock.advance(min(seconds, 1.0))
            seconds -= 1.0

    @rule()
    def plainComes(self) -> None:
        """A client comes that cannot recover."""
        client = Client(self.server, recovers=False, address="192.0.2.99")
        client.connect()
        self.plain.append(client)

    @rule(told=st.booleans())
    def plainGoes(self, told: bool) -> None:
        if self.plain:
            client = self.plain.pop(0)
            client.disconnect() if told else client.lose()

    @invariant()
    def plainIsKnown(self) -> None:
        """The sockets without a ticket are known, and get no offset."""
        namespace = self.server.namespace()
        here = namespace.rooms.select(None, ())
        assert namespace._recovery._plain == {socket for socket in here if socket._ticket is None}
        for client in self.plain:
            assert not any(
                self.server._namespaces.parking.store.epoch in repr(got) for got in client.received()
            )

    @invariant()
    def roomsAreKept(self) -> None:
        for visitor in self.visitors:
            socket = self.socketOf(visitor)
            if visitor.isHere and socket is not None:
                assert socket.rooms == visitor.rooms | {visitor.id}

    @invariant()
    def bounded(self) -> None:
        assert len(self.server.namespace()._recovery.tickets) <= CLIENTS

    def teardown(self) -> None:
        for visitor in self.visitors:
            if visitor.isHere:
                visitor.read()
                assert visitor.owed == [], f"never came: {visitor.owed}"
            visitor.client.close()
        for client in self.plain:
            client.close()
        self.server.stopService()
        assert self.clock.getDelayedCalls() == []
        assert self.server.namespace()._recovery.tickets == {}


class AwayMachine(RecoveryMachine):
    """
    The same, where the application is told at the end of the window.
    """

    away = True


class MachineTests(SynchronousTestCase):
    """
    The machines, as tests.
    """

    def test_recovery(self) -> None:
        self.run_(RecoveryMachine)

    def test_away(self) -> None:
        self.run_(AwayMachine)

    def run_(self, machine: Any) -> None:
        case = machine.TestCase
        case.settings = hypothesisSettings(max_examples=40, stateful_step_count=30)
        result = case("runTest").run()
        for _, text in [*result.errors, *result.failures]:
            self.fail(text)
