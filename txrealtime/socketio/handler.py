"""
Handlers: functions that an application has registered, and how they are called.

Plain functions, ``async`` functions and functions that return a Deferred are called alike.
"""

from __future__ import annotations

import inspect
from asyncio import _get_running_loop
from collections.abc import Callable, Generator
from contextvars import copy_context
from types import CoroutineType
from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks

from txrealtime.coroutines import steps
from txrealtime.errors import ArgumentsMismatch
from txrealtime.socketio.tasks import STEPS, runAsTask

__all__ = ["CONTINUING", "PLAIN", "Handler", "asTask", "run", "start"]

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handler:
    """
    A function with the number of its positional arguments.

    The signature is read once, at registration: a trial call would run a handler twice if the
    ``TypeError`` came from its body.

    :ivar least: the smallest number of arguments that the function takes.
    :ivar most: the largest.
    :ivar counts: the counts of its event, kept here by :mod:`txrealtime.monitor.counts`.
    :param given: the smallest number of arguments that it will be called with.
    :param atMost: the largest; ``None`` for no limit.
    :raises TypeError: if it is not callable, takes fewer, needs more or keyword arguments, or is a generator
        function, whose body would never run.
    """

    __slots__ = ("counts", "function", "least", "most")

    def __init__(self, function: Callable[..., Any], given: int = 1, atMost: int | None = None) -> None:
        if not callable(function):
            raise TypeError(f"a handler is callable, not {type(function).__name__}")
        self.function = function
        self.counts: Any = None
        self.least, self.most = _arity(function)
        if self.most < given:
            raise TypeError(f"{self.describe()}, but is called with {given} or more")
        if atMost is not None and self.least > atMost:
            raise TypeError(f"{self.describe()}, but is called with {atMost} at most")
        if _isGenerator(function):
            raise TypeError(
                f"{self.name} is a generator function, whose body would never run: "
                "decorate it with inlineCallbacks, or use async def with await"
            )

    def check(self, given: int) -> None:
        """
        Check a number of arguments.

        :raises ArgumentsMismatch: if the function does not take so many.
        """
        if not self.least <= given <= self.most:
            raise ArgumentsMismatch(f"{self.describe()}; {given} came (the socket counts as one)")

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return getattr(self.function, "__qualname__", repr(self.function))

    def describe(self) -> str:
        """Say in words how many arguments the function takes."""
        if self.least == self.most:
            return f"{self.name} takes {self.least} arguments"
        most = self.most if self.most < _MANY else "any number of"
        return f"{self.name} takes {self.least} to {most} arguments"

    def callWith(self, *available: Any) -> Any:
        """Call the function with as many of these arguments, from the left, as it takes."""
        return run(self.function, *available[: self.most])


_MANY: Final = 1 << 30


def _arity(function: Callable[..., Any]) -> tuple[int, int]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-ins have no signature
        return 0, _MANY
    least = most = 0
    for parameter in parameters:
        if parameter.kind in _POSITIONAL:
            most += 1
            least += parameter.default is parameter.empty
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = _MANY
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise TypeError(
                f"a handler is called with positional arguments; {parameter.name!r} is keyword-only"
            )
    return least, most


def _isGenerator(function: Any) -> bool:
    call = type(function).__call__  # of a callable object
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (function, call)
    )


def run(function: Callable[..., Any], *args: Any) -> Any:
    """
    Call a function.  Run an ``async`` one up to its first wait.

    :return: its result, or a Deferred of the result if it is not finished.
    """
    result = function(*args)
    return start(result) if result.__class__ is CoroutineType else result


def start(coroutine: Any) -> Any:
    """
    Run a coroutine to its first wait.

    Most handlers never wait, and ``Deferred.fromCoroutine`` costs 2.8 us where this takes 0.6.
    The coroutine runs in its own context: context variables that it sets do not reach other handlers.
    Under the asyncio reactor it is a task: see :mod:`txrealtime.socketio.tasks`.
    """
    context = copy_context()
    loop = _get_running_loop()
    if loop is not None:
        return runAsTask(coroutine, context, loop)
    try:
        waitsFor = context.run(coroutine.send, None)
    except StopIteration as stop:
        return stop.value
    return context.run(_continue, coroutine, waitsFor)


def asTask(answer: Any) -> Any:
    """
    Return an application's answer; for a coroutine one that runs as a handler does: see :func:`start`.

    It is for those who await the answer themselves.
    """
    return _awaited(answer) if answer.__class__ is CoroutineType else answer


async def _awaited(coroutine: Any) -> Any:
    result = start(coroutine)
    return await result if isinstance(result, Deferred) else result


@inlineCallbacks
def _continue(coroutine: Any, waitsFor: Any) -> Generator[Any, Any, Any]:
    """Run the rest of a handler that waits for a Deferred."""
    return (yield from steps(coroutine, waitsFor))


CONTINUING: Final = frozenset([_continue.__wrapped__.__code__, STEPS])  # type: ignore[attr-defined]
"""The code that runs a handler step by step, as ``coroutine``, for those who read stacks."""

PLAIN: Final = frozenset([type(None), str, int, float, bool, list, tuple, dict, bytes, object])
"""
Classes of results that are no Deferred.  A look here first saves an ``isinstance``, which takes 0.3 us
because ``Deferred`` has the metaclass of an abstract base class.
"""
