"""
Handlers on the event loop of asyncio, for libraries that need a task.

Under Twisted's asyncio reactor each ``async`` handler is an :class:`asyncio.Task`, because
``asyncio.timeout()``, task groups and most libraries ask for the current task.  The handler awaits Deferreds
and Futures alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

__all__ = ["STEPS", "runAsTask"]


def runAsTask(coroutine: Any, context: Context, loop: asyncio.AbstractEventLoop) -> Any:
    """
    Run a coroutine as a task of a running loop: to its first wait at once, then step by step.

    The first step does not wait for the next turn of the loop, so a handler that never waits is as quick,
    and begins as early, as without a task.

    :return: the coroutine's result, or a Deferred of it if it waits.  Cancelling the Deferred cancels the
        task.
    """
    steps = _Steps(coroutine, loop)
    task = asyncio.Task(steps, loop=loop, context=context)
    outer = asyncio.current_task(loop)
    # The first step is the task's, as the documentation of asyncio ("Extending") wants it told.
    if outer is not None:
        asyncio._leave_task(loop, outer)
    asyncio._enter_task(loop, task)
    try:
        context.run(steps.begin)
    except StopIteration as stop:
        return stop.value
    finally:
        asyncio._leave_task(loop, task)
        if outer is not None:
            asyncio._enter_task(loop, outer)
    return Deferred.fromFuture(task).addErrback(_cancelled)


def _cancelled(failure: Failure) -> Failure:
    """Return a failure with Twisted's error for a cancelled task: asyncio's is no :exc:`Exception`."""
    return Failure(CancelledError()) if failure.check(asyncio.CancelledError) else failure


class _Steps(Coroutine[Any, Any, Any]):
    """
    A coroutine whose first step has been made, in the form that a task takes: it waits for Futures only.

    :ivar _first: the result of the first step until the task asks for it, in a list.
    :ivar _future: stands for the Deferred that the coroutine waits for.
    """

    def __init__(self, coroutine: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._first: list[Any] = []
        self._future: asyncio.Future[Any] | None = None
        self._isDone = False

    def begin(self) -> None:
        """Make the first step."""
        try:
            self._first.append(self._translated(self._coroutine.send(None)))
        except BaseException:
            self._isDone = True
            raise

    def send(self, value: Any) -> Any:
        """Make the next step.  Called by the task."""
        if self._first:
            return self._first.pop()
        if self._isDone:
            raise StopIteration
        future, self._future = self._future, None
        result = None if future is None else future.result()
        if isinstance(result, Failure):
            return self._step(self._coroutine.throw, result.value)
        return self._step(self._coroutine.send, result)

    def throw(self, *error: Any) -> Any:
        """Raise an error in the coroutine.  Called by the task when it is cancelled."""
        for waitsFor in self._first:
            if waitsFor is not None:  # a bare yield
                waitsFor.cancel()  # as the task does with later ones
        self._first.clear()
        self._future = None
        if self._isDone:
            raise error[-1]
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        """End the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Any:
        raise NotImplementedError("a task makes the steps")

    def _step(self, step: Callable[..., Any], *argument: Any) -> Any:
        # The name is the one by which monitor/blocked.py finds the handler.
        coroutine = self._coroutine  # noqa: F841
        try:
            waitsFor = step(*argument)
        except BaseException:
            self._isDone = True
            raise
        return self._translated(waitsFor)

    def _translated(self, waitsFor: Any) -> Any:
        """Return what a task waits for in place of a Deferred: a Future."""
        if isinstance(waitsFor, Deferred):
            self._future = waitsFor = _futureOf(waitsFor, self._loop)
            waitsFor._asyncio_future_blocking = True
        return waitsFor


STEPS: Final = _Steps._step.__code__
"""The code that runs a coroutine, for those who read stacks."""


def _futureOf(deferred: Deferred[Any], loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    """
    Make a Future of a Deferred's result, or of its Failure.

    The result also stays in the Deferred: its ``await`` looks there.
    """
    future: asyncio.Future[Any] = loop.create_future()

    def fired(result: Any) -> Any:
        if not future.done():
            future.set_result(result)
            # An error of the future reaches the coroutine, so the Deferred's is handled.
            return None if isinstance(result, Failure) else result
        return None

    def ended(future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            deferred.cancel()

    deferred.addBoth(fired)
    future.add_done_callback(ended)
    return future
