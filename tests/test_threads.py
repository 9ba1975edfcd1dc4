from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txrealtime.errors import Disconnected
from txrealtime.threads import Handover


class ManualReactor:
    """
    A reactor whose turns the test takes.
    """

    running = True

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.atTheEnd: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.calls.append(call)

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        assert (phase, event) == ("after", "shutdown")
        self.atTheEnd.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def elsewhere(call: Callable[[], Any]) -> list[Any]:
    """
    Return a call's result, or its error, in another thread.
    """
    results: list[Any] = []

    def body() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    return results


class HandoverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ManualReactor()
        self.handover = Handover(self.reactor)
        self.made: list[Any] = []

    def give(self, *values: Any) -> None:
        for value in values:
            self.handover.call(self.made.append, value)

    def test_manyCallsWakeTheReactorOnce(self) -> None:
        elsewhere(lambda: self.give(1, 2, 3))
        self.assertEqual((self.made, len(self.reactor.calls)), ([], 1))
        self.reactor.turn()
        self.assertEqual(self.made, [1, 2, 3])
        elsewhere(lambda: self.give(4))
        self.reactor.turn()
        self.assertEqual(self.made, [1, 2, 3, 4])

    def test_callsMadeMeanwhile(self) -> None:
        """A call that another thread hands over during the others is made too."""
        elsewhere(lambda: self.handover.call(elsewhere, lambda: self.give(1)))
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.made, [1])

    def test_socketsHaveTheirTurn(self) -> None:
        """A thread that never ends giving does not keep the reactor for itself."""
        elsewhere(lambda: self.give(*range(2500)))
        self.reactor.turn()
        self.assertEqual(len(self.made), 1000)
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.made, list(range(2500)))
        self.assertEqual(self.reactor.calls, [])

    def test_errors(self) -> None:
        """One that fails is logged, and the next is made."""
        elsewhere(lambda: self.handover.call(int, "x"))
        elsewhere(lambda: self.give(1))
        self.reactor.turn()
        self.assertEqual(self.made, [1])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_inTheReactorsThread(self) -> None:
        """A call is made at once."""
        self.give(1)
        self.assertEqual((self.made, self.reactor.calls), ([1], []))

    def test_waitingForOneself(self) -> None:
        error = self.assertRaises(RuntimeError, self.handover.ask, len, "")
        self.assertIn("len was called in the reactor's thread and would wait for itself", str(error))

    def test_noArgumentsInErrors(self) -> None:
        """Neither in what is raised nor in what is logged."""
        error = self.assertRaises(RuntimeError, self.handover.ask, partial(len, "secret"))
        self.assertIn("len was called", str(error))
        self.assertNotIn("secret", str(error))
        with capturedLogs() as logged:
            elsewhere(lambda: self.handover.call(partial(int, "secret")))
            self.reactor.turn()
        self.assertEqual([event["name"] for event in logged if "name" in event], ["int"])
        self.flushLoggedErrors(ValueError)

    def test_notRunning(self) -> None:
        self.reactor.running = False
        (error,) = elsewhere(lambda: self.handover.ask(len, ""))
        self.assertIn("which does not run: start the server first", str(error))
        self.assertIsInstance(error, RuntimeError)

    def test_stoppedMeanwhile(self) -> None:
        """Stopping the reactor ends every wait."""
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda: results.extend(elsewhere(lambda: self.handover.ask(Deferred)))
        )
        thread.start()
        while not self.reactor.calls:
            thread.join(0.001)
        self.reactor.turn()
        for call in self.reactor.atTheEnd:
            call()
        thread.join(30)
        self.assertIsInstance(results[0], Disconnected)
        (error,) = elsewhere(lambda: self.handover.ask(len, ""))
        self.assertIsInstance(error, Disconnected)


class AskingTests(TestCase):
    """
    With the reactor that runs the tests.
    """

    @inlineCallbacks
    def test_results(self) -> Any:
        handover = Handover(reactor)
        order: list[int] = []

        def body() -> Any:
            handover.call(order.append, 1)
            later: Deferred[str] = Deferred()
            reactor.callFromThread(reactor.callLater, 0, later.callback, "later")
            return handover.ask(order.copy), handover.ask(lambda: later), threading.get_ident()

        copy, later, thread = yield deferToThread(body)
        self.assertEqual((copy, later), ([1], "later"))
        self.assertNotEqual(thread, threading.get_ident())

    @inlineCallbacks
    def test_errors(self) -> Any:
        handover = Handover(reactor)
        error = yield self.assertFailure(deferToThread(handover.ask, int, "x"), ValueError)
        self.assertIn("'x'", str(error))
