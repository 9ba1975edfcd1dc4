"""
What an application has registered: which function handles which event.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from txrealtime.flask.namespace import Namespace

__all__ = ["ANY", "Handlers", "Route", "methodsOf"]

ANY: Final = "*"
"""Stands for every event, or every namespace."""

_OWN: Final = ("connect", "disconnect")
"""Events that are no client's to send, and no catch-all's to handle."""


class Route(NamedTuple):
    """
    Where an event goes.

    :ivar function: what handles it.
    :ivar message: what ``request.event`` shows as its name: the event's, or ``*``.
    :ivar namespace: the object whose method it is; ``None`` for a function of its own.
    """

    function: Callable[..., Any]
    message: str | None
    namespace: Namespace | None = None


class Handlers:
    """The handlers of all namespaces, and of their errors."""

    def __init__(self) -> None:
        self._functions: dict[str, dict[str, Callable[..., Any]]] = {}
        self._objects: dict[str, Namespace] = {}
        self.errorHandlers: dict[str, Callable[[Exception], Any]] = {}
        self.errorDefault: Callable[[Exception], Any] | None = None
        self._found: dict[tuple[str, str], Route | None] = {}

    def add(self, message: str, function: Callable[..., Any], namespace: str) -> None:
        """Register a function; ``*`` for every event, or every namespace."""
        if message in _OWN:
            function = _fitted(function)
        self._functions.setdefault(namespace, {})[message] = function
        self._found = {}

    def mount(self, namespace: Namespace) -> None:
        """Register an object for a namespace, or for every."""
        self._objects[namespace.namespace] = namespace
        self._found = {}

    @property
    def paths(self) -> set[str]:
        """The namespaces for which there is something, ``*`` included."""
        return {*self._functions, *self._objects}

    def find(self, path: str, event: str) -> Route | None:
        """
        What handles an event: what was registered for it, before what was for any event or namespace.

        A client chooses the names, so what was not found is not remembered.
        """
        route = self._found.get((path, event))
        if route is None:
            route = self._search(path, event)
            if (
                route is not None
                and route.message != ANY
                and (path in self._functions or path in self._objects)
            ):
                self._found[path, event] = route
        return route

    def _search(self, path: str, event: str) -> Route | None:
        here = self._functions.get(path, {})
        everywhere = self._functions.get(ANY, {})
        if event in here:
            return Route(here[event], event)
        route = self._method(path, event)
        if route is not None:
            return route
        if ANY in here and event not in _OWN:
            return Route(here[ANY], ANY)
        if event in everywhere:
            return Route(everywhere[event], event)
        route = self._method(ANY, event)
        if route is None and ANY in everywhere and event not in _OWN:
            return Route(everywhere[ANY], ANY)
        return route

    def _method(self, path: str, event: str) -> Route | None:
        found = self._objects.get(path)
        if found is None or not found.handles(event):
            return None
        return Route(found.trigger_event, event, found)

    def errorHandler(self, path: str) -> Callable[[Exception], Any] | None:
        """What is called with an error of a namespace's handlers."""
        return self.errorHandlers.get(path, self.errorDefault)


def _fitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    A handler of `connect` or `disconnect` that may leave out its one argument.

    Its signature is read once: to call it and see would run it twice when the TypeError is its own.
    That of a wrapper with ``*args`` does not say, and that of the function in it is a hint only: the
    wrapper may give it arguments of its own.
    """
    own = _signature(function, follow_wrapped=False)
    if not _fits(own, 1):
        return lambda _: function()
    inner = inspect.unwrap(function)
    if inner is function or not _isOpen(own):
        return function
    hint = _signature(function)
    if _fits(hint, 0) and not _fits(hint, 1):
        return lambda _: function()

    def call(argument: Any) -> Any:
        try:
            return function(argument)
        except TypeError as error:
            if not _wasNotCalled(inner, error):
                raise
        return function()

    return call


def methodsOf(namespace: Namespace) -> dict[str, Callable[..., Any]]:
    """What handles the events of a class's namespace, by event: its methods ``on_<event>``."""
    methods = {}
    for name in dir(namespace):
        if name.startswith("on_"):
            method = getattr(namespace, name)
            if callable(method):
                event = name.removeprefix("on_")
                methods[event] = _fitted(method) if event in _OWN else method
    return methods


def _signature(function: Callable[..., Any], **options: Any) -> inspect.Signature | None:
    """A function's signature; `None` where it has none that can be read, as some built-ins."""
    try:
        return inspect.signature(function, **options)
    except ValueError:
        return None


def _fits(signature: inspect.Signature | None, count: int) -> bool:
    """Whether a function can be called with so many arguments."""
    try:
        if signature is not None:
            signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _isOpen(signature: inspect.Signature | None) -> bool:
    """Whether a function has ``*args``."""
    kinds = [parameter.kind for parameter in signature.parameters.values()] if signature is not None else []
    return inspect.Parameter.VAR_POSITIONAL in kinds


def _wasNotCalled(function: Callable[..., Any], error: TypeError) -> bool:
    """Whether an error says that a call did not fit a function, and it has not run."""
    # Python names it by the qualified name, which functools.wraps() gives to its wrappers too.
    if not str(error).startswith(f"{getattr(function, '__qualname__', '')}() "):
        return False
    code = getattr(function, "__code__", None)
    return all(frame.f_code is not code for frame, _ in traceback.walk_tb(error.__traceback__))
