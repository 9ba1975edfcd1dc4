"""
A connection that is made again: the times of the attempts, and attempts that were stopped.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.cluster.link.reconnecting import Backoff, Reconnecting
from txrealtime.errors import BusError


class _Connection:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


class ReconnectingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts: list[Deferred[_Connection]] = []
        self.ended: list[str] = []
        self.opened: list[_Connection] = []
        self.reconnecting: Reconnecting[_Connection] = Reconnecting(
            self.clock, Backoff(timeout=5.0), self.open, self.opened.append, self.ended.append
        )

    def open(self) -> Deferred[_Connection]:
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def stubborn(self) -> Deferred[_Connection]:
        """Return an attempt that goes on when it is cancelled."""
        connecting: Deferred[_Connection] = Deferred()
        attempt: Deferred[_Connection] = Deferred()
        attempt.addErrback(lambda failure: connecting)
        self.patch(self.reconnecting, "_open", lambda: attempt)
        return connecting

    def test_failed(self) -> None:
        self.reconnecting.start()
        self.attempts[0].errback(BusError("no"))
        self.assertEqual((self.ended, len(self.clock.getDelayedCalls())), (["no"], 1))

    def test_lostWhileItConnects(self) -> None:
        """A failed attempt is followed by one attempt, even if its connection is reported lost too."""
        self.reconnecting.start()
        self.reconnecting.lost("cut")
        self.attempts[0].errback(BusError("cut"))
        self.reconnecting.lost("cut")
        self.assertEqual((self.ended, len(self.clock.getDelayedCalls())), (["cut"], 1))

    def test_lostAfterTheStop(self) -> None:
        self.reconnecting.start()
        self.attempts[0].callback(_Connection())
        self.reconnecting.stop()
        self.reconnecting.lost("cut")
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([], []))

    def test_connectsAfterTheStop(self) -> None:
        connecting = self.stubborn()
        self.reconnecting.start()
        self.assertIsNone(self.reconnecting.stop())
        connection = _Connection()
        connecting.callback(connection)
        self.assertTrue(connection.aborted)
        self.assertEqual((self.reconnecting.connection, self.opened), (None, []))

    def test_connectsAfterTheNextStart(self) -> None:
        connecting = self.stubborn()
        self.reconnecting.start()
        self.reconnecting.stop()
        self.patch(self.reconnecting, "_open", self.open)
        self.reconnecting.start()
        late, connection = _Connection(), _Connection()
        connecting.callback(late)
        self.attempts[0].callback(connection)
        self.assertEqual((late.aborted, connection.aborted), (True, False))
        self.assertEqual(self.opened, [connection])

    def test_failsAfterTheNextStart(self) -> None:
        connecting = self.stubborn()
        self.reconnecting.start()
        self.reconnecting.stop()
        self.patch(self.reconnecting, "_open", self.open)
        self.reconnecting.start()
        connecting.errback(BusError("no"))
        self.assertEqual(self.ended, [])
        self.attempts[0].callback(_Connection())
        self.assertEqual(len(self.opened), 1)
