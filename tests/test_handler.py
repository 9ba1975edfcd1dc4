"""
Calls of functions that an application has registered.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from txrealtime import ArgumentsMismatch
from txrealtime.socketio.handler import Handler, run

variable: ContextVar[str] = ContextVar("variable", default="unset")


class ArityTests(SynchronousTestCase):
    """
    The number of a handler's arguments is read at registration.
    """

    def assertTakes(self, function: Callable[..., Any], *counts: int, of: int = 6) -> None:
        handler = Handler(function)
        for given in range(of):
            if given in counts:
                handler.check(given)
            else:
                self.assertRaises(ArgumentsMismatch, handler.check, given)

    def test_positional(self) -> None:
        self.assertTakes(lambda socket: None, 1)
        self.assertTakes(lambda socket, text, /: None, 2)

    def test_defaults(self) -> None:
        self.assertTakes(lambda socket, text, size=1, color=None: None, 2, 3, 4)

    def test_anyNumber(self) -> None:
        self.assertTakes(lambda socket, *rest: None, 1, 2, 3, 4, 5)

    def test_method(self) -> None:
        class Application:
            def hello(self, socket: Any, text: str) -> None: ...

        self.assertTakes(Application().hello, 2)

    def test_callableObject(self) -> None:
        class Hello:
            def __call__(self, socket: Any, text: str) -> None: ...

        self.assertTakes(Hello(), 2)

    def test_partial(self) -> None:
        self.assertTakes(functools.partial(lambda greeting, socket, text: None, "hello"), 2)

    def test_decorated(self) -> None:
        """
        A decorator with `__wrapped__` shows the arguments of the wrapped function.
        """

        @inlineCallbacks
        def hello(socket: Any, text: str) -> Generator[Any, Any, None]:
            yield None

        self.assertTakes(hello, 2)

    def test_keywordsWithDefaults(self) -> None:
        self.assertTakes(lambda socket, *, loud=False, **more: None, 1)

    def test_builtinThatDoesNotSay(self) -> None:
        self.assertTakes(dict.pop, 0, 1, 2, 3, 4, 5)

    def test_keywordOnlyIsRefused(self) -> None:
        error = self.assertRaises(TypeError, Handler, lambda socket, *, loud: None)
        self.assertIn("'loud'", str(error))

    def test_notCallable(self) -> None:
        error = self.assertRaises(TypeError, Handler, "say")
        self.assertIn("not str", str(error))

    def test_generatorFunction(self) -> None:
        """
        The body of a generator function would never run, and a check there would let everybody in.
        """

        def forgotten(socket: Any) -> Generator[Any, Any, None]:
            yield None

        async def both(socket: Any) -> AsyncGenerator[None, None]:
            yield None

        class Forgotten:
            def method(self, socket: Any) -> Generator[Any, Any, None]:
                yield None

            __call__ = method

        for function in (forgotten, both, Forgotten(), Forgotten().method, functools.partial(forgotten)):
            error = self.assertRaises(TypeError, Handler, function)
            self.assertIn("is a generator function", str(error))
            self.assertIn("inlineCallbacks", str(error))

    def test_takesTooFew(self) -> None:
        """
        A handler that could never be called is refused at registration.
        """
        self.assertRaises(TypeError, Handler, lambda: None)
        error = self.assertRaises(TypeError, Handler, lambda socket: None, 2)
        self.assertIn("takes 1 arguments, but is called with 2", str(error))

    def test_needsTooMany(self) -> None:
        """
        So is one that always gets fewer arguments than it needs.
        """
        error = self.assertRaises(TypeError, Handler, lambda sid, environ, auth: None, 1, 2)
        self.assertIn("takes 3 arguments, but is called with 2 at most", str(error))
        Handler(lambda socket, auth, *rest: None, 1, 2)
        Handler(lambda socket, auth, more=None: None, 1, 2)

    def test_messageSaysWhatItTakes(self) -> None:
        def say(socket: Any, text: str) -> None: ...

        error = self.assertRaises(ArgumentsMismatch, Handler(say).check, 4)
        self.assertIn("say takes 2 arguments; 4 came", str(error))
        error = self.assertRaises(ArgumentsMismatch, Handler(lambda a, b=1: None).check, 0)
        self.assertIn("takes 1 to 2 arguments", str(error))
        error = self.assertRaises(ArgumentsMismatch, Handler(lambda a, *b: None).check, 0)
        self.assertIn("takes 1 to any number of arguments", str(error))

    def test_callWithAsManyAsItTakes(self) -> None:
        self.assertEqual(Handler(lambda *args: args).callWith(1, 2, 3), (1, 2, 3))
        self.assertEqual(Handler(lambda a: a).callWith(1, 2, 3), 1)


class RunTests(SynchronousTestCase):
    """
    A function, one that returns a Deferred and an `async` one are called alike.
    """

    def test_plain(self) -> None:
        self.assertEqual(run(lambda a, b: a + b, 1, 2), 3)

    def test_plainRaises(self) -> None:
        self.assertRaises(ZeroDivisionError, run, lambda: 1 / 0)

    def test_deferredIsPassedOn(self) -> None:
        deferred: Deferred[None] = Deferred()
        self.assertIs(run(lambda: deferred), deferred)

    def test_asyncThatDoesNotWait(self) -> None:
        async def double(value: int) -> int:
            return 2 * value

        self.assertEqual(run(double, 4), 8)

    def test_asyncThatRaisesAtOnce(self) -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, run, fail)

    def test_asyncThatWaits(self) -> None:
        waits: list[Deferred[int]] = [Deferred(), Deferred()]

        async def add() -> int:
            return await waits[0] + await waits[1]

        result = run(add)
        self.assertNoResult(result)
        waits[0].callback(1)
        self.assertNoResult(result)
        waits[1].callback(2)
        self.assertEqual(self.successResultOf(result), 3)

    def test_asyncThatWaitsForWhatIsThere(self) -> None:
        async def add() -> int:
            there: Deferred[int] = Deferred()
            there.callback(1)
            return await there + 1

        self.assertEqual(run(add), 2)

    def test_errorReachesTheCoroutine(self) -> None:
        wait: Deferred[None] = Deferred()

        async def recover() -> str:
            try:
                await wait
            except ZeroDivisionError:
                return "recovered"
            return "not reached"

        result = run(recover)
        wait.errback(ZeroDivisionError())
        self.assertEqual(self.successResultOf(result), "recovered")

    def test_errorAfterAWait(self) -> None:
        wait: Deferred[None] = Deferred()

        async def fail() -> None:
            await wait
            raise ZeroDivisionError

        result = run(fail)
        wait.callback(None)
        self.failureResultOf(result, ZeroDivisionError)

    def test_cancel(self) -> None:
        """
        Cancelling the result cancels what the coroutine waits for.
        """
        cancelled = []
        wait: Deferred[None] = Deferred(cancelled.append)

        async def handler() -> None:
            await wait

        result = run(handler)
        result.cancel()
        self.assertEqual(cancelled, [wait])
        self.failureResultOf(result, CancelledError)

    def test_forgotten(self) -> None:
        """
        A coroutine that waits for a Deferred without references is closed by Python, without a log entry.
        """
        ended = []
        unraisable: list[object] = []

        async def handler() -> None:
            try:
                await Deferred()
            finally:
                ended.append(True)

        self.patch(sys, "unraisablehook", unraisable.append)
        run(handler)
        gc.collect()
        self.assertEqual((ended, unraisable), ([True], []))

    def test_manyWaitsAreNotDeep(self) -> None:
        async def handler() -> int:
            await first
            for _ in range(3000):
                there: Deferred[None] = Deferred()
                there.callback(None)
                await there
            return 1

        first: Deferred[None] = Deferred()
        result = run(handler)
        first.callback(None)
        self.assertEqual(self.successResultOf(result), 1)


class ContextTests(SynchronousTestCase):
    """
    Context variables set in a coroutine stay in it.
    """

    def test_doesNotLeak(self) -> None:
        async def handler() -> None:
            variable.set("mine")

        run(handler)
        self.assertEqual(variable.get(), "unset")

    def test_isKeptAcrossWaits(self) -> None:
        waits: list[Deferred[None]] = [Deferred(), Deferred(), Deferred()]
        seen = []

        async def handler() -> None:
            variable.set("first")
            await waits[0]
            seen.append(variable.get())
            variable.set("second")
            await waits[1]
            seen.append(variable.get())
            await waits[2]

        result = run(handler)
        for wait in waits:
            self.assertEqual(variable.get(), "unset")
            wait.callback(None)
        self.successResultOf(result)
        self.assertEqual(seen, ["first", "second"])
        self.assertEqual(variable.get(), "unset")

    def test_eachHasItsOwn(self) -> None:
        waits: dict[str, Deferred[None]] = {"alice": Deferred(), "bob": Deferred()}

        async def handler(name: str) -> str:
            variable.set(name)
            await waits[name]
            return variable.get()

        alice, bob = run(handler, "alice"), run(handler, "bob")
        waits["bob"].callback(None)
        waits["alice"].callback(None)
        self.assertEqual(self.successResultOf(alice), "alice")
        self.assertEqual(self.successResultOf(bob), "bob")

    def test_callersIsInherited(self) -> None:
        async def handler() -> str:
            return variable.get()

        token = variable.set("the caller's")
        self.addCleanup(variable.reset, token)
        self.assertEqual(run(handler), "the caller's")
