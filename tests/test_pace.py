"""
The pace of admissions: clients that would wait too long are refused, and no others.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import WireTestCase
from tests.talk import TalkTestCase
from txrealtime import ConnectionRejected, Socket
from txrealtime.engineio import pace
from txrealtime.engineio.pace import Pace
from txrealtime.testing import Client

POLLING = "/socket.io/?EIO=4&transport=polling"


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pace = Pace(self.clock, 10.0)

    def wait(self, count: int) -> None:
        for _ in range(count):
            self.pace.began()

    def answer(self, count: int) -> None:
        for _ in range(count):
            self.assertEqual(self.pace.ended("result"), "result")

    def run_(self, seconds: float, arrivals: float, capacity: float) -> tuple[int, int]:
        """Let clients come at a rate, and be answered at another; return how many are taken and refused."""
        taken = refused = 0
        come = done = 0.0
        while seconds > 0:
            self.clock.advance(0.01)
            seconds -= 0.01
            come += arrivals * 0.01
            done = min(done + capacity * 0.01, self.pace.waiting)
            self.answer(int(done))
            done -= int(done)
            for _ in range(int(come)):
                if self.pace.retryAfter():
                    refused += 1
                else:
                    taken += 1
                    self.pace.began()
            come -= int(come)
        return taken, refused

    def test_overload(self) -> None:
        """As many wait as are answered within the limit: none of these waits longer."""
        taken, refused = self.run_(60, arrivals=1000, capacity=200)
        self.assertGreater(refused, 40_000)
        self.assertTrue(1900 <= self.pace.waiting <= 2100, self.pace.waiting)
        self.assertTrue(12_000 <= taken <= 15_000, taken)

    def test_afterwards(self) -> None:
        """When fewer come, all are taken again."""
        self.run_(30, arrivals=1000, capacity=200)
        self.run_(15, arrivals=0, capacity=200)
        self.assertEqual(self.run_(30, arrivals=150, capacity=200)[1], 0)

    def test_enough(self) -> None:
        self.assertEqual(self.run_(60, arrivals=1000, capacity=1100)[1], 0)

    def test_slowButParallel(self) -> None:
        """Each answer takes 3 s, however many wait: that is in time."""
        refused = 0
        for turn in range(3000):
            self.clock.advance(0.01)
            if turn >= 300:
                self.answer(2)
            refused += bool(self.pace.retryAfter())
            self.wait(2)
        self.assertEqual((refused, self.pace.waiting), (0, 600))

    def test_batches(self) -> None:
        """All that wait are answered together, each 4 s."""
        refused = 0
        for turn in range(4000):
            self.clock.advance(0.01)
            if turn % 400 == 399:
                self.answer(self.pace.waiting)
            refused += bool(self.pace.retryAfter())
            self.wait(2)
        self.assertEqual(refused, 0)

    def test_noAnswers(self) -> None:
        """The database is down: after the time that one may wait, nobody else needs to."""
        self.wait(500)
        self.clock.advance(9)
        self.assertEqual(self.pace.retryAfter(), 0)
        self.clock.advance(2)
        self.assertEqual(self.pace.retryAfter(), 60)
        self.answer(450)
        self.assertEqual(self.pace.retryAfter(), 0)

    def test_few(self) -> None:
        """One admission that hangs does not refuse the others."""
        self.wait(99)
        self.clock.advance(1000)
        self.assertEqual(self.pace.retryAfter(), 0)

    def test_retryAfter(self) -> None:
        """The time by which those too many are gone."""
        self.wait(3000)
        self.answer(1)
        self.clock.advance(1)
        self.answer(99)
        self.assertEqual(self.pace.retryAfter(), 19)  # 2900 at 100 a second, less 10 s


class ServerTests(TalkTestCase):
    """A server whose connect handler waits."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(pace, "_FEW", 3)
        self.server = self.makeServer(start=False)
        self.waiting: list[Deferred[None]] = []
        self.server.startService()

        @self.server.onConnect
        def connected(socket: Socket) -> Deferred[None]:
            self.waiting.append(Deferred())
            return self.waiting[-1]

    def wait(self, count: int) -> list[Client]:
        clients = []
        for _ in range(count):
            client = self.makeClient(self.server)
            client.connect().addErrback(lambda failure: failure.trap(ConnectionRejected) and None)
            clients.append(client)
        self.assertEqual(self.server._namespaces.pace.waiting, len(self.waiting))  # type: ignore[union-attr]
        return clients

    def test_refused(self) -> None:
        self.wait(4)
        self.clock.advance(11)
        error = self.failureResultOf(self.verify()).value
        self.assertEqual((error.status, error.code, error.reason), (503, 3, "busy"))
        self.assertEqual(error.retryAfter, 60)
        for waiting in self.waiting[:2]:
            waiting.callback(None)
        self.successResultOf(self.verify())
        for waiting in self.waiting[2:]:
            waiting.callback(None)
        self.assertEqual(self.server._namespaces.pace.waiting, 0)  # type: ignore[union-attr]

    def verify(self) -> Deferred[None]:
        engine = self.server.engine
        opening = engine.readHandshake({"host": "h"}, POLLING, "192.0.2.1", False)
        return Deferred.fromCoroutine(engine.verify(opening, "polling", "GET"))

    def test_gone(self) -> None:
        """A client that goes while it waits is counted no longer; one that is refused neither."""
        clients = self.wait(4)
        random.Random(1).shuffle(clients)
        clients[0].close()
        self.assertEqual(self.server._namespaces.pace.waiting, 3)  # type: ignore[union-attr]
        self.waiting[0].errback(ValueError("no"))
        self.flushLoggedErrors(ValueError)
        for waiting in self.waiting:
            if not waiting.called:
                waiting.callback(None)
        self.assertEqual(self.server._namespaces.pace.waiting, 0)  # type: ignore[union-attr]

    def test_allowRequest(self) -> None:
        """Its waits count too."""
        asked: list[Deferred[bool]] = []

        def allow(handshake: Any) -> Deferred[bool]:
            asked.append(Deferred())
            return asked[-1]

        self.server = self.makeServer(allowRequest=allow)
        opening = [self.verify() for _ in range(4)]
        self.clock.advance(11)
        self.assertEqual(self.failureResultOf(self.verify()).value.reason, "busy")
        self.assertEqual(len(asked), 4)
        for each in asked:
            each.callback(True)
        for each in opening:
            self.successResultOf(each)


class WireTests(WireTestCase):
    """The response by each transport."""

    def test_busy(self) -> None:
        for _ in range(150):
            self.engine._admission.pace.began()
        self.assertEqual(self.get().answer.status, 200)
        self.clock.advance(11)
        for response in (self.get().answer, self.webSocket().response):
            assert response is not None
            self.assertEqual(response.error, (503, 3, "Bad request: the server is busy"))
            self.assertEqual(response.headers["retry-after"], "60")
