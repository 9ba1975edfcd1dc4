"""
The handlers of an application, by namespace and event.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from txrealtime.flask.namespace import Namespace, handles
from txrealtime.logs import Logger
from txrealtime.socketio.overrides import hookLike

__all__ = ["ANY", "Route", "Routes", "methodsOf", "warnOfAlike"]

_log = Logger()

ANY: Final = "*"
"""Every event, or every namespace."""

_OWN: Final = ("connect", "disconnect")
"""Events that a client cannot send and a catch-all does not handle."""


class Route(NamedTuple):
    """
    The handler of an event.

    :ivar function: the function.
    :ivar message: the name that ``request.event`` shows: the event's, or ``*``.
    :ivar namespace: the class-based namespace whose method the function is, if any.
    """

    function: Callable[..., Any]
    message: str | None
    namespace: Namespace | None = None


class Routes:
    """
    The handlers of all namespaces, and of their errors.

    :ivar registered: the functions, each as (event, function, namespace).
    """

    def __init__(self) -> None:
        self._functions: dict[str, dict[str, Callable[..., Any]]] = {}
        self._objects: dict[str, Namespace] = {}
        self.errorHandlers: dict[str, Callable[[Exception], Any]] = {}
        self.errorDefault: Callable[[Exception], Any] | None = None
        # A cache.  Clients choose the names of events, so misses are not kept.
        self._found: dict[tuple[str, str], Route | None] = {}
        self._last: dict[tuple[str, str | None], Any] = {}
        self._warned: set[tuple[str, str | None]] = set()
        self.registered: list[tuple[str, Callable[..., Any], str]] = []

    def add(self, message: str, function: Callable[..., Any], namespace: str) -> None:
        """
        Register a function; ``*`` for every event, or every namespace.

        A second function for one event takes the place of the first, as in Flask-SocketIO.  The log names
        both.
        """
        here = self._functions.setdefault(namespace, {})
        self._warnOfReplacing((namespace, message), function)
        self.registered.append((message, function, namespace))
        here[message] = _fitted(function) if message in _OWN else function
        self._found = {}

    def mount(self, namespace: Namespace) -> None:
        """Register a class-based namespace for its path, or for every path."""
        self._warnOfReplacing((namespace.namespace, None), namespace)
        self._objects[namespace.namespace] = namespace
        self._found = {}

    def _warnOfReplacing(self, place: tuple[str, str | None], handler: Any) -> None:
        """Log once for each event that a handler takes the place of another one."""
        before, self._last[place] = self._last.get(place), handler
        if before is None or before is handler or place in self._warned:
            return
        self._warned.add(place)
        path, event = place
        _log.warn(
            "{what} of {path} has two handlers, and the last one wins: {after} takes the place of {before}",
            what="the namespace" if event is None else f"event {event!r}",
            path=path,
            after=_described(handler),
            before=_described(before),
        )

    @property
    def paths(self) -> set[str]:
        """The paths that have handlers, ``*`` included."""
        return {*self._functions, *self._objects}

    def find(self, path: str, event: str) -> Route | None:
        """
        Return the handler of an event; ``None`` if there is none.

        A handler of this event and namespace comes before those of any event or any namespace.
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

    def names(self, path: str) -> set[str]:
        """Return the names of the events that have handlers of their own."""
        names: set[str] = set()
        for place in (path, ANY):
            names.update(self._functions.get(place, {}))
            names.update(name[3:] for name in dir(self._objects.get(place)) if name.startswith("on_"))
        return names - set(_OWN) - {ANY}

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
        if found is None or not handles(found, event):
            return None
        return Route(found.trigger_event, event, found)

    def errorHandler(self, path: str) -> Callable[[Exception], Any] | None:
        """Return the function that gets the exceptions of a namespace's handlers, if there is one."""
        return self.errorHandlers.get(path, self.errorDefault)


def _described(handler: Any) -> str:
    """Name a function or a class-based namespace and the place of its definition."""
    if isinstance(handler, Namespace):
        handler = type(handler)
    name = f"{getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', repr(handler))}"
    code = getattr(inspect.unwrap(handler), "__code__", None) if callable(handler) else None
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def _fitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Adapt a handler of ``connect`` or ``disconnect`` that may leave out its one argument.

    The signature is read once: a trial call would run the handler twice if the TypeError came from its
    body. A wrapper with ``*args`` tells nothing, and the signature of the wrapped function is only a hint:
    the wrapper may pass arguments of its own.
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
    """Return the methods ``on_<event>`` of a class-based namespace, by event."""
    methods = {}
    for name in dir(namespace):
        if name.startswith("on_"):
            method = getattr(namespace, name)
            if callable(method):
                event = name.removeprefix("on_")
                methods[event] = _fitted(method) if event in _OWN else method
    return methods


def warnOfAlike(namespace: Namespace) -> None:
    """Log the methods of a class-based namespace that look like handlers of connect or disconnect."""
    kind = type(namespace)
    for owner in kind.__mro__[: kind.__mro__.index(Namespace)]:
        for name, value in vars(owner).items():
            hook = None if name.startswith("on_") or not callable(value) else hookLike(name)
            instead = "on_connect" if hook == "connected" else "on_disconnect"
            if hook is not None and not hasattr(kind, instead):
                _log.warn(
                    "{owner}.{name}() is never called by the server, though it resembles a handler: "
                    "name it {instead}(), or choose another name",
                    owner=owner.__qualname__,
                    name=name,
                    instead=instead,
                )


def _signature(function: Callable[..., Any], **options: Any) -> inspect.Signature | None:
    """Return a function's signature; ``None`` if it cannot be read, as of some built-ins."""
    try:
        return inspect.signature(function, **options)
    except ValueError:
        return None


def _fits(signature: inspect.Signature | None, count: int) -> bool:
    """Tell if a function can be called with so many arguments."""
    try:
        if signature is not None:
            signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _isOpen(signature: inspect.Signature | None) -> bool:
    """Tell if a function has ``*args``."""
    kinds = [parameter.kind for parameter in signature.parameters.values()] if signature is not None else []
    return inspect.Parameter.VAR_POSITIONAL in kinds


def _wasNotCalled(function: Callable[..., Any], error: TypeError) -> bool:
    """Tell if an error says that the arguments did not fit, and the function has not run."""
    # Python names the function by __qualname__, which functools.wraps() copies to wrappers too.
    if not str(error).startswith(f"{getattr(function, '__qualname__', '')}() "):
        return False
    code = getattr(function, "__code__", None)
    return all(frame.f_code is not code for frame, _ in traceback.walk_tb(error.__traceback__))
