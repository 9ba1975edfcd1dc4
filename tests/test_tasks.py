"""
Handlers on asyncio's event loop, and the advice for those that lack it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txrealtime import ConnectionRejected, Namespace
from txrealtime.errors import HandshakeError
from txrealtime.socketio.handler import run
from txrealtime.testing import Client, MemoryClient, makeServer

variable: ContextVar[str] = ContextVar("variable", default="unset")


class LoopTestCase(SynchronousTestCase):
    """
    Scenes on an event loop: as under Twisted's asyncio reactor, all code of the test runs in the loop.
    """

    def play(self, scene: Callable[[], Awaitable[None]]) -> None:
        """Play a scene to its end.  The loop's own complaints are failures."""
        complaints: list[dict[str, Any]] = []

        async def played() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, told: complaints.append(told))
            await scene()
            await turns()

        asyncio.run(played())
        self.assertEqual(complaints, [])


async def turns(number: int = 5) -> None:
    """Let the loop turn."""
    for _ in range(number):
        await asyncio.sleep(0)


class TaskTests(LoopTestCase):
    def test_resultsAtOnce(self) -> None:
        """A handler that does not wait has its result at once, and its error, as without a loop."""

        async def double(value: int) -> int:
            return 2 * value

        async def fail() -> None:
            raise ZeroDivisionError

        async def scene() -> None:
            self.assertEqual(run(double, 4), 8)
            self.assertRaises(ZeroDivisionError, run, fail)

        self.play(scene)

    def test_futuresAndDeferreds(self) -> None:
        """A handler waits for either, one after the other, and gets results and errors."""
        log: list[Any] = []

        async def handler(future: Any, deferred: Any, failing: Any) -> str:
            log.append(await future)
            log.append(await deferred)
            try:
                await failing
            except ZeroDivisionError:
                log.append("caught")
            await asyncio.sleep(0)
            return "done"

        async def scene() -> None:
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            deferred: Deferred[str] = Deferred()
            failing: Deferred[None] = Deferred()
            result = run(handler, future, deferred, failing)
            self.assertNoResult(result)
            future.set_result("future")
            await turns()
            self.assertEqual(log, ["future"])
            deferred.callback("deferred")
            await turns()
            self.assertEqual(log, ["future", "deferred"])
            failing.errback(ZeroDivisionError())
            await turns()
            self.assertEqual(log[2:], ["caught"])
            self.assertEqual(self.successResultOf(result), "done")

        self.play(scene)

    def test_firedDeferreds(self) -> None:
        """Deferreds that have fired, and coroutines that wait for others, hold nothing up."""

        async def inner(deferred: Deferred[int]) -> int:
            return await deferred + 1

        async def handler(first: Deferred[int]) -> int:
            total = await inner(first)
            for _ in range(2000):
                there: Deferred[int] = Deferred()
                there.callback(1)
                total += await there
            return total

        async def scene() -> None:
            first: Deferred[int] = Deferred()
            result = run(handler, first)
            first.callback(1)
            await turns()
            self.assertEqual(self.successResultOf(result), 2002)

        self.play(scene)

    def test_currentTask(self) -> None:
        """Whatever asks for the current task works, from the first step on: timeouts and task groups."""

        async def answer(value: int) -> int:
            await asyncio.sleep(0)
            return value

        async def handler() -> list[int]:
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                tasks = [group.create_task(answer(value)) for value in range(3)]
            return [task.result() for task in tasks]

        async def late() -> str:
            try:
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                return "late"
            return "not reached"

        async def scene() -> None:
            outer = asyncio.current_task()
            results = run(handler), run(late)
            self.assertIs(asyncio.current_task(), outer)
            await turns(20)
            self.assertEqual([self.successResultOf(result) for result in results], [[0, 1, 2], "late"])

        self.play(scene)

    def test_deferredsOfLibraries(self) -> None:
        """Twisted's generators wait for Deferreds of a task, and a task for theirs."""

        @inlineCallbacks
        def twice(value: int) -> Any:
            first = yield run(later, value)
            second = yield run(later, value)
            return first + second

        async def later(value: int) -> int:
            await asyncio.sleep(0)
            return value

        async def handler() -> Any:
            return await twice(4)

        async def scene() -> None:
            result = run(handler)
            await turns(10)
            self.assertEqual(self.successResultOf(result), 8)

        self.play(scene)

    def test_errorAfterAWait(self) -> None:
        async def handler() -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        async def scene() -> None:
            result = run(handler)
            await turns()
            self.failureResultOf(result, ZeroDivisionError)

        self.play(scene)

    def test_cancel(self) -> None:
        """Cancelling the result cancels the task, and what it waits for, at once and later."""
        cancelled: list[str] = []

        async def handler(wait: Any) -> None:
            try:
                await wait
            except asyncio.CancelledError:
                cancelled.append("task")
                raise

        async def scene() -> None:
            for later in (0, 1, 5):
                del cancelled[:]
                wait: Deferred[None] = Deferred(lambda _: cancelled.append("deferred"))
                result = run(handler, wait)
                await turns(later)
                result.cancel()
                await turns()
                self.assertEqual(sorted(cancelled), ["deferred", "task"])
                # Twisted's: asyncio's is no Exception, and passes by most handlers of errors.
                self.failureResultOf(result, CancelledError)

        self.play(scene)

    def test_context(self) -> None:
        """Context variables stay in the handler, through all of its steps."""
        seen: list[str] = []

        async def handler() -> None:
            variable.set("mine")
            await asyncio.sleep(0)
            seen.append(variable.get())

        async def scene() -> None:
            result = run(handler)
            await turns()
            self.successResultOf(result)
            self.assertEqual((seen, variable.get()), (["mine"], "unset"))

        self.play(scene)


class ServerTests(LoopTestCase):
    """
    Handlers, middleware, admission and clients on a loop.
    """

    def test_everywhere(self) -> None:
        async def scene() -> None:
            server = makeServer()
            log: list[Any] = []

            @server.onConnect
            async def admit(socket: Any, auth: Any) -> bool:
                async with asyncio.timeout(60):
                    await asyncio.sleep(0)
                return auth is not None

            @server.use
            async def middleware(incoming: Any, proceed: Any) -> Any:
                await asyncio.sleep(0)
                return await proceed(incoming)

            @server.on("ask")
            async def ask(socket: Any, value: int) -> Any:
                async with asyncio.timeout(60):
                    return await socket.call("answer", value)

            @server.on("fail")
            async def fail(socket: Any) -> None:
                await asyncio.sleep(0)
                raise ZeroDivisionError

            @server.onError(ZeroDivisionError)
            async def mend(socket: Any, error: Exception) -> str:
                await asyncio.sleep(0)
                return "mended"

            @server.onDisconnect
            async def gone(socket: Any) -> None:
                await asyncio.sleep(0)
                log.append("gone")

            client = Client(server)
            refused = client.connect("/")
            await turns()
            client.flush()
            self.failureResultOf(refused, ConnectionRejected)
            joined = client.connect("/", auth={})
            await turns()
            client.flush()
            self.successResultOf(joined)
            client.on("answer", lambda value: value + 1)
            asked, failed = client.call("ask", 1), client.call("fail")
            for _ in range(10):
                await turns()
                client.flush()
            self.assertEqual(self.successResultOf(asked), 2)
            self.assertEqual(self.successResultOf(failed), "mended")
            client.close()
            await turns()
            self.assertEqual(log, ["gone"])

        self.play(scene)

    def test_allowRequest(self) -> None:
        async def scene() -> None:
            async def allow(handshake: Any) -> bool:
                async with asyncio.timeout(60):
                    await asyncio.sleep(0)
                return handshake.query.get("key") == "right"

            server = makeServer(allowRequest=allow)
            for key, isAllowed in (("right", True), ("wrong", False)):
                client = Client(server, query={"key": key})
                await turns()
                if isAllowed:
                    self.successResultOf(client.whenOpen)
                    self.successResultOf(client.connect())
                else:
                    self.failureResultOf(client.whenOpen, HandshakeError)

        self.play(scene)

    def test_namespacesByPredicate(self) -> None:
        async def scene() -> None:
            async def exists(path: str, auth: Any) -> bool:
                loop = asyncio.get_running_loop()
                future = loop.create_future()
                loop.call_soon(future.set_result, path == "/right")
                return await future

            server = makeServer()
            server.mount(exists, Namespace)
            client = Client(server)
            there, missing = client.connect("/right"), client.connect("/wrong")
            for _ in range(3):
                await turns()
            client.flush()
            self.successResultOf(there)
            self.failureResultOf(missing, ConnectionRejected)

        self.play(scene)

    def test_client(self) -> None:
        """Handlers of the client are tasks, too."""

        async def scene() -> None:
            server = makeServer()
            server.namespace()
            client = MemoryClient(server)

            @client.on("sum?")
            async def add(a: int, b: int) -> int:
                async with asyncio.timeout(60):
                    await asyncio.sleep(0)
                return a + b

            client.startService()
            sums = server.call("sum?", 1, 2)
            await turns()
            self.assertEqual(self.successResultOf(sums), [3])
            client.stopService()

        self.play(scene)


class AdviceTests(SynchronousTestCase):
    """
    Without a loop, the log says what asyncio needs.
    """

    ADVICE = "(--reactor asyncio)"

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.server = makeServer(reactor=Clock())
        observe = lambda event: self.lines.append(str(event.get("log_format")))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def said(self, handler: Callable[[], Awaitable[Any]]) -> Exception:
        """Run a handler, which fails, and return its error."""

        @self.server.on("do", replace=True)
        async def do(socket: Any) -> None:
            await handler()

        client = Client(self.server)
        client.connect()
        client.emit("do")
        [failure] = self.flushLoggedErrors()
        assert isinstance(failure, Failure)
        return failure.value

    def test_noLoop(self) -> None:
        error = self.said(lambda: asyncio.sleep(1))
        self.assertIsInstance(error, RuntimeError)
        self.assertIn(self.ADVICE, "".join(self.lines))

    def test_futureOfALoopThatDoesNotRun(self) -> None:
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def handler() -> None:
            await loop.create_future()

        self.assertIn("await of a Future of asyncio", str(self.said(handler)))
        self.assertIn(self.ADVICE, "".join(self.lines))

    def test_admission(self) -> None:
        @self.server.onConnect
        async def admit(socket: Any) -> None:
            asyncio.get_running_loop()

        self.failureResultOf(Client(self.server).connect(), ConnectionRejected)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn(self.ADVICE, "".join(self.lines))

    def test_otherErrors(self) -> None:
        async def handler() -> None:
            raise RuntimeError("out of tea")

        self.said(handler)
        self.assertNotIn(self.ADVICE, "".join(self.lines))
