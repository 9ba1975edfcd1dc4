"""
A network with faults: a TCP proxy that delays, cuts, resets and swallows.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

__all__ = ["FAULTS", "Network"]

FAULTS = {"none": 60, "slow": 15, "cut": 8, "reset": 8, "hole": 5, "deaf": 4}
"""
Fault -> its share of all connections.

After some seconds they are cut (closed), reset, or swallow what comes from both sides (hole) or from the
client only (deaf); all but `none` are slow as well.
"""

EARLIEST, LATEST = 0.2, 12.0
"Seconds after which a connection's fault sets in."

LONGEST_DELAY = 0.2
"Seconds that a slow connection keeps what passes."

SILENCE = 25.0
"Seconds after which a connection that swallows is reset."


class _Side(Protocol):
    """
    One end of a connection through the network.

    :ivar other: the end on the other side.
    """

    def __init__(self, connection: _Connection) -> None:
        self.connection = connection
        self.other: _Side | None = None
        self._kept: list[bytes] = []
        self._delayed: deque[bytes] = deque()
        self._due = 0.0

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        if self.connection.swallows(self):
            return
        delay = self.connection.delay()
        if delay:
            # What came first leaves first, as two calls at almost the same time need not.
            self._delayed.append(data)
            self._due = max(self._due, reactor.seconds() + delay)
            self.connection.later(self._due - reactor.seconds(), self._passNext)
        else:
            self._pass(data)

    def _passNext(self) -> None:
        self._pass(self._delayed.popleft())

    def _pass(self, data: bytes) -> None:
        if self.other is None:
            self._kept.append(data)
        elif self.other.transport.connected:
            self.other.transport.write(data)

    def connectTo(self, other: _Side) -> None:
        """The other end is there."""
        self.other, other.other = other, self
        for data in self._kept:
            other.transport.write(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.connection.swallows(self):
            return
        # Behind what is on its way.
        self.connection.later(self._due + 0.001 - reactor.seconds(), self.connection.close)


class _Connection:
    """One connection through the network, and its fault."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._choices = random.Random(network.choices.random())
        self.fault = self._choices.choices(list(FAULTS), list(FAULTS.values()))[0]
        if network.calm:
            self.fault = "none"
        network.faults[self.fault] += 1
        self._calls: set[IDelayedCall] = set()
        self._hasSetIn = False
        self._hasEnded = False
        self.client = _Side(self)
        if self.fault not in ("none", "slow"):
            self.later(self._choices.uniform(EARLIEST, LATEST), self._setIn)
        elif network.life is not None and not network.calm:
            self.later(self._choices.uniform(EARLIEST, network.life), self._breakLate)

    def later(self, delay: float, call: Any, *args: Any) -> None:
        """A call to come, unless the connection ends before."""

        def due() -> None:
            self._calls.discard(delayed)
            call(*args)

        delayed = reactor.callLater(max(0.0, delay), due)
        self._calls.add(delayed)

    def delay(self) -> float:
        return 0.0 if self.fault == "none" else self._choices.uniform(0, LONGEST_DELAY)

    def swallows(self, side: _Side) -> bool:
        """True if the bytes of a side get lost, its end included."""
        return self._hasSetIn and (self.fault == "hole" or (self.fault == "deaf" and side is self.client))

    def _breakLate(self) -> None:
        """A connection that was well has lived long enough."""
        faults = [fault for fault in FAULTS if fault not in ("none", "slow")]
        self.fault = self._choices.choices(faults, [FAULTS[fault] for fault in faults])[0]
        self._network.faults[f"{self.fault} later"] += 1
        self._setIn()

    def _setIn(self) -> None:
        self._hasSetIn = True
        if self.fault == "cut":
            self.close()
        elif self.fault == "reset":
            self.abort()
        else:
            self.later(SILENCE, self.abort)

    def close(self) -> None:
        """The end, for both sides."""
        self._end("loseConnection")

    def abort(self) -> None:
        """The end, without a goodbye."""
        self._end("abortConnection")

    def reached(self, server: _Side) -> None:
        """The server has accepted the connection."""
        if self._hasEnded:
            server.transport.abortConnection()
        else:
            self.client.connectTo(server)

    def _end(self, how: str) -> None:
        self._hasEnded = True
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        self._network.connections.discard(self)
        for side in (self.client, self.client.other):
            if side is not None and side.transport.connected:
                getattr(side.transport, how)()


class Network(Factory):
    """
    The proxy, as a factory for what clients connect to.

    :param port: the server's, on 127.0.0.1.
    :param seed: makes the choices.
    :param life: seconds after which a connection meets a fault, if it has none; None for no limit.
    :ivar connections: those there are.
    :ivar faults: how many there were of each fault.
    :ivar calm: true to make no more faulty connections.
    """

    noisy = False

    def __init__(self, port: int, seed: int, life: float | None = None) -> None:
        self.life = life
        self.calm = False
        self.choices = random.Random(seed)
        self.connections: set[_Connection] = set()
        self.faults: Counter[str] = Counter()
        self._server = TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    def buildProtocol(self, addr: object) -> _Side:
        connection = _Connection(self)
        self.connections.add(connection)
        server = _Side(connection)
        factory = Factory.forProtocol(lambda: server)
        factory.noisy = False
        connecting = self._server.connect(factory)
        connecting.addCallbacks(lambda _: connection.reached(server), lambda _: connection.abort())
        return connection.client

    def stop(self) -> None:
        """Reset all there are."""
        for connection in list(self.connections):
            connection.abort()
