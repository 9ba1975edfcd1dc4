"""
Calling what an application registered: plain functions, ``async def`` and those that
return a Deferred, alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextvars import copy_context
from types import CoroutineType
from typing import Any, Final

from twisted.internet.defer import inlineCallbacks

from txrealtime.errors import ArgumentsMismatch

__all__ = ["PLAIN", "Handler", "run", "start"]

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handler:
    """
    A function and how many positional arguments it takes: read once, when it is
    registered, never found out by calling.

    :ivar least: the fewest arguments it can be called with.
    :ivar most: the most.
    :param given: the fewest that it will be called with.
    :raises TypeError: when it is not callable, takes fewer, or needs keyword arguments.
    """

    __slots__ = ("function", "least", "most")

    def __init__(self, function: Callable[..., Any], given: int = 1) -> None:
        if not callable(function):
            raise TypeError(f"a handler is callable, not {type(function).__name__}")
        self.function = function
        self.least, self.most = _arity(function)
        if self.most < given:
            raise TypeError(f"{self.describe()}, but is called with {given} or more")

    def check(self, given: int) -> None:
        """
        :param given: how many arguments there are.
        :raises ArgumentsMismatch: when the function does not take so many.
        """
        if not self.least <= given <= self.most:
            raise ArgumentsMismatch(f"{self.describe()}; {given} came (the socket counts as one)")

    def describe(self) -> str:
        """What it takes, in words."""
        name = getattr(self.function, "__qualname__", repr(self.function))
        if self.least == self.most:
            return f"{name} takes {self.least} arguments"
        return f"{name} takes {self.least} to {self.most if self.most < _MANY else 'any number of'} arguments"

    def callWith(self, *available: Any) -> Any:
        """Call it with as many of these, from the left, as it takes."""
        return run(self.function, *available[: self.most])


_MANY: Final = 1 << 30


def _arity(function: Callable[..., Any]) -> tuple[int, int]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-ins do not say
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


def run(function: Callable[..., Any], *args: Any) -> Any:
    """
    Call a function; of an ``async`` one, run as much as it can do now.

    :return: what it returned: a Deferred if it has not finished.
    """
    result = function(*args)
    return start(result) if result.__class__ is CoroutineType else result


def start(coroutine: Any) -> Any:
    """
    Run a coroutine to its first wait.

    Most handlers never wait, and ``Deferred.fromCoroutine`` costs 2.8 us where this
    takes 0.6.  A context of its own keeps what it sets from leaking into others.
    """
    context = copy_context()
    try:
        waitsFor = context.run(coroutine.send, None)
    except StopIteration as stop:
        return stop.value
    return context.run(_continue, coroutine, waitsFor)


@inlineCallbacks
def _continue(coroutine: Any, waitsFor: Any) -> Generator[Any, Any, Any]:
    """Run the rest of a coroutine that waits for a Deferred."""
    while True:
        try:
            value = yield waitsFor
        except GeneratorExit:
            # Nobody can fire what it waits for, and the garbage collector ends it.
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


PLAIN: Final = frozenset([type(None), str, int, float, bool, list, tuple, dict, bytes, object])
"""
Classes of results that are no Deferred: to look here first saves an ``isinstance``, which
takes 0.3 us because Deferred is an abstract base class in the sense of ``abc``.
"""
