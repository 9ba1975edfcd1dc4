"""
Coroutines that seldom wait: a Deferred only for those that do.
"""

from __future__ import annotations

import gc
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.coroutines import begin

variable: ContextVar[str] = ContextVar("variable", default="unset")


class BeginTests(SynchronousTestCase):
    def test_result(self) -> None:
        """A Deferred that has fired is no wait."""

        async def coroutine() -> int:
            return 1 + await succeed(1)

        self.assertEqual(begin(coroutine()), 2)

    def test_error(self) -> None:
        """An error before the first wait is raised, and a later one is the Deferred's."""

        async def coroutine(wait: Deferred[None] | None) -> None:
            if wait is not None:
                await wait
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, begin, coroutine(None))
        wait: Deferred[None] = Deferred()
        begun = begin(coroutine(wait))
        self.assertNoResult(begun)
        wait.callback(None)
        self.failureResultOf(begun, ZeroDivisionError)

    def test_waits(self) -> None:
        waits: list[Deferred[int]] = [Deferred(), Deferred()]

        async def coroutine() -> list[Any]:
            got: list[Any] = [await waits[0]]
            try:
                await waits[1]
            except KeyError as error:
                got.append(error.args[0])
            return got

        begun = begin(coroutine())
        waits[0].callback(1)
        self.assertNoResult(begun)
        waits[1].errback(KeyError("two"))
        self.assertEqual(self.successResultOf(begun), [1, "two"])

    def test_cancel(self) -> None:
        cancelled: list[Deferred[None]] = []
        wait: Deferred[None] = Deferred(cancelled.append)

        async def coroutine() -> None:
            await wait

        begun = begin(coroutine())
        begun.cancel()
        self.assertEqual(cancelled, [wait])
        self.failureResultOf(begun, CancelledError)

    def test_context(self) -> None:
        """A coroutine keeps its context to itself, before and after a wait."""
        wait: Deferred[None] = Deferred()
        seen: list[str] = []

        async def coroutine() -> None:
            variable.set("first")
            await wait
            seen.append(variable.get())
            variable.set("second")

        begun = begin(coroutine())
        self.assertEqual(variable.get(), "unset")
        wait.callback(None)
        self.successResultOf(begun)
        self.assertEqual((seen, variable.get()), (["first"], "unset"))

    def test_nobodyFires(self) -> None:
        """A coroutine whose Deferred is gone ends, and runs what it has to."""
        ended: list[bool] = []

        async def coroutine() -> None:
            try:
                await Deferred()
            finally:
                ended.append(True)

        begin(coroutine())
        gc.collect()
        self.assertEqual(ended, [True])
