"""
Coroutines that seldom wait.

Most clients are admitted without a wait.  ``Deferred.fromCoroutine`` makes a Deferred in any case, with
several objects beside it.
"""

from __future__ import annotations

from asyncio import isfuture
from collections.abc import Generator
from contextvars import copy_context
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

__all__ = ["begin", "steps"]


def begin(coroutine: Any) -> Any:
    """
    Run a coroutine to its first wait, in a context of its own: context variables stay inside.

    :return: the coroutine's result, or a Deferred of it if it waits.  Cancelling the Deferred cancels the
        wait.
    :raises Exception: if the coroutine raises it before its first wait.
    """
    context = copy_context()
    try:
        waitsFor = context.run(coroutine.send, None)
    except StopIteration as stop:
        return stop.value
    return context.run(_rest, coroutine, waitsFor)


def steps(coroutine: Any, waitsFor: Any) -> Generator[Any, Any, Any]:
    """
    Run the rest of a coroutine that waits for a Deferred; for ``inlineCallbacks``.

    :param waitsFor: what the coroutine has given at its first wait.
    """
    while True:
        try:
            if waitsFor.__class__ is not Deferred and isfuture(waitsFor):
                raise RuntimeError("await of a Future of asyncio, but no running event loop")
            value = yield waitsFor
        except GeneratorExit:
            # Nothing can fire the Deferred any longer, and the garbage collector ends the wait.
            coroutine.close()
            raise
        except BaseException as error:
            step, argument = coroutine.throw, error
        else:
            step, argument = coroutine.send, value
        try:
            waitsFor = step(argument)
        except StopIteration as stop:
            return stop.value


_rest = inlineCallbacks(steps)
