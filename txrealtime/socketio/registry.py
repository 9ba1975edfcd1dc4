"""
Registration: handlers, middleware and error handlers of a namespace, and the decorators that register them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, NoReturn, TypeVar, overload

from txrealtime.socketio.handler import Handler

__all__ = [
    "DECORATORS",
    "Decorators",
    "Registry",
    "checkHandled",
    "checkUnregistered",
    "eventsOf",
    "marksIn",
    "on",
    "place",
]

F = TypeVar("F", bound=Callable[..., Any])

_EVENTS: Final = "_txrealtimeEvents"
"""The attribute of a method with the events that it is marked for."""

_MARKS: Final = "_txrealtimeMarks"
"""The attribute of a class with the methods that were marked in its body."""

_CONNECT: Final = "use @server.onConnect, or define connected(self, socket, auth) in a Namespace class"
_DISCONNECT: Final = (
    "use @server.onDisconnect, or define disconnected(self, socket, reason) in a Namespace class"
)
_NO_LISTENERS: Final = "no event tells of new handlers; choose another name for an event of clients"

_NOT_EVENTS: Final = {
    "connect": _CONNECT,
    "connection": _CONNECT,
    "disconnect": _DISCONNECT,
    "disconnecting": "use @server.onDisconnecting, or define disconnecting(self, socket, reason) "
    "in a Namespace class",
    "connect_error": "only clients hear it; to refuse a client, raise ConnectionRejected in "
    "@server.onConnect, or in connected() of a Namespace class",
    "connection_error": "a refused request is in the log; pass allowRequest to Server to refuse requests",
    "new_namespace": "mount a Namespace class with a pattern: server.mount(pattern, Namespace)",
    "newListener": _NO_LISTENERS,
    "removeListener": _NO_LISTENERS,
    "*": "use @server.onAny, whose handler gets all events that have no handler of their own",
}
"""Names that are events on other servers, and all reserved ones, each with the right way on this server."""


def checkHandled(event: str) -> None:
    """
    Check the name of an event to register a handler for.

    :raises TypeError: if it is not a string.
    :raises ValueError: if no client can send an event of that name, or if other servers use the name for
        something that has another way here.
    """
    if not isinstance(event, str):
        raise TypeError(f"on() takes an event's name, not {type(event).__name__}")
    if event in _NOT_EVENTS:
        raise ValueError(f"{event!r} is not an event that clients send: {_NOT_EVENTS[event]}")


# -- marks in a class ----------------------------------------------------------------


def on(event: str, *, replace: bool = False) -> Callable[[F], F]:
    """
    Mark a method of a :class:`Namespace` class as an event's handler: ``handler(self, socket, *args)``.

    :param replace: take the event from another method of the same class.
    :raises ValueError: if the name is no event of clients (``connected``, ``disconnecting`` and
        ``disconnected`` are methods of their own), or if the class has a second method for the event
        without ``replace``.
    """
    checkHandled(event)

    def mark(method: F) -> F:
        if isinstance(method, property):
            raise TypeError(f"on({event!r}) marks a method, not a property")
        marks = _marksOfBody(inspect.currentframe(), method)
        if marks is not None:
            first = next((marked for marked, each in marks if each == event), None)
            if first is not None and first is not inspect.unwrap(method) and not replace:
                _refuseSecond(f"on({event!r})", first, method)
            marks[:] = [mark for mark in marks if mark[1] != event]
            marks.append((method, event))
        setattr(method, _EVENTS, (*getattr(method, _EVENTS, ()), event))
        return method

    return mark


def _marksOfBody(frame: FrameType | None, method: Any) -> list[tuple[Callable[..., Any], str]] | None:
    """
    Find the list of marks of the class whose body runs now, or ``None`` outside of a class.

    The body keeps the list, because a decorator further out may hide the marked method: see ``overrides``.

    :param frame: the decorator's; its caller is the body, or a helper of the application.
    """
    owner = getattr(method, "__qualname__", "").rpartition(".")[0]
    for depth in range(_MAX_DEPTH):
        frame = None if frame is None else frame.f_back
        if frame is None:
            break
        body = frame.f_locals
        isBody = "__qualname__" in body and "__module__" in body and body is not frame.f_globals
        if isBody and (depth == 0 or body["__qualname__"] == owner):
            marks: list[tuple[Callable[..., Any], str]] = body.setdefault(_MARKS, [])
            return marks
    return None


_MAX_DEPTH: Final = 10
"""Frames between on() and the class's body, where a helper of the application calls on()."""


def eventsOf(attribute: object) -> tuple[str, ...]:
    """List the events that an attribute of a class is marked for."""
    events = getattr(attribute, _EVENTS, ())
    return events if isinstance(events, tuple) else ()  # a mock has every attribute


def marksIn(kind: type) -> list[tuple[Callable[..., Any], str]]:
    """List the methods that were marked in a class's body, each with its event."""
    marks: list[tuple[Callable[..., Any], str]] = vars(kind).get(_MARKS, [])
    return marks


# -- one handler for one event ---------------------------------------------------------


def place(function: Any) -> str:
    """Name a function and the file and line where it stands, for messages."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    code = _codeOf(function)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def _codeOf(function: Any) -> CodeType | None:
    function = inspect.unwrap(getattr(function, "func", function))
    return getattr(getattr(function, "__func__", function), "__code__", None)


def checkUnregistered(
    what: str, previous: Callable[..., Any] | None, function: Callable[..., Any], replace: bool
) -> None:
    """
    Check that nothing is registered yet, or the same function.

    :param what: the decorator, for the message.
    :param previous: the function registered before.
    :raises ValueError: if another one is, unless it may be replaced.
    """
    if previous is not None and not replace and not _isSame(previous, function):
        _refuseSecond(what, previous, function)


def _refuseSecond(what: str, first: Callable[..., Any], second: Callable[..., Any]) -> NoReturn:
    raise ValueError(
        f"a second {what}: {place(second)} would replace {place(first)}; "
        "make one function of the two, or pass replace=True"
    )


def _isSame(first: Any, second: Any) -> bool:
    """
    Compare two functions.

    A module that is loaded again registers its functions again: they stand at the same places.  Functions
    made by a call of another one, and lambdas, may differ though they stand at the same place.
    """
    if first == second:
        return True
    if isinstance(first, FunctionType) and isinstance(second, FunctionType):
        return "<" not in first.__qualname__ and _places(first) == _places(second)
    return False


def _places(function: Any) -> list[tuple[Any, ...]]:
    """List the places of a function and of the functions that it wraps."""
    places = []
    while function is not None:
        code = getattr(function, "__code__", None)
        where = (None, id(function)) if code is None else (code.co_filename, code.co_firstlineno)
        places.append((function.__module__, function.__qualname__, *where))
        function = getattr(function, "__wrapped__", None)
    return places


class Registry:
    """
    The handlers of a namespace.

    :ivar events: those of events, by name.
    :ivar any: the handler of events that have none of their own.
    :ivar middleware: from the outermost to the innermost.
    :ivar errors: the error handlers, each with the kinds of its errors.
    """

    __slots__ = (
        "_decorated",
        "any",
        "connected",
        "disconnected",
        "disconnecting",
        "errors",
        "events",
        "middleware",
    )

    def __init__(self, connected: Handler, disconnecting: Handler, disconnected: Handler) -> None:
        self.events: dict[str, Handler] = {}
        self.any: Handler | None = None
        self.middleware: list[Handler] = []
        self.errors: list[tuple[tuple[type[BaseException], ...], Handler]] = []
        self.connected = connected
        self.disconnecting = disconnecting
        self.disconnected = disconnected
        # By decorator: a function replaces a method without being asked, and not another function.
        self._decorated: dict[str, Callable[..., Any]] = {}

    def decorated(
        self,
        what: str,
        function: Callable[..., Any],
        replace: bool,
        given: int = 1,
        atMost: int | None = None,
    ) -> Handler:
        """
        Make the handler of a decorated function.

        :param what: the decorator, for instance ``on('say')``.
        :param given: the smallest number of arguments that it is called with.
        :param atMost: the largest; ``None`` for no limit.
        :raises TypeError: if :class:`Handler` refuses the function.
        :raises ValueError: if another function was decorated in the same way.
        """
        handler = Handler(function, given, atMost)
        checkUnregistered(what, self._decorated.get(what), function, replace)
        self._decorated[what] = function
        return handler

    def functions(self) -> Iterator[Callable[..., Any]]:
        """Iterate over all functions and methods that are registered."""
        yield from self._decorated.values()
        yield from (handler.function for handler in self.events.values())
        yield from (handler.function for handler in self.middleware)
        yield from (handler.function for _, handler in self.errors)


DECORATORS: Final = frozenset(
    ["on", "onAny", "onConnect", "onDisconnect", "onDisconnecting", "onError", "use"]
)
"""The names of :class:`Decorators`."""


class Decorators:
    """The decorators of a namespace, and of a server for its default namespace."""

    __slots__ = ()

    def _registry(self) -> Registry:
        """Get the handlers to add to."""
        raise NotImplementedError

    def on(self, event: str, *, replace: bool = False) -> Callable[[F], F]:
        """
        Decorate the handler of an event: ``handler(socket, *args)``.

        The handler's result is the ack: no value for ``None``, several values for a tuple, one value for
        anything else.

        :param replace: replace a handler that was decorated before.
        :raises ValueError: if the event has a handler already, or the name is no event of clients.
        :raises TypeError: if the handler cannot be called with a socket.
        """
        checkHandled(event)

        def register(function: F) -> F:
            registry = self._registry()
            registry.events[event] = registry.decorated(f"on({event!r})", function, replace)
            return function

        return register

    @overload
    def onAny(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onAny(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onAny(self, function: Any = None, *, replace: bool = False) -> Any:
        """
        Decorate the handler of events that have none of their own: ``handler(socket, event, *args)``.

        :param replace: as for :meth:`on`: ``@server.onAny(replace=True)``.
        """
        return self._decorate("onAny", "any", function, replace, given=2)

    @overload
    def onConnect(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onConnect(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onConnect(self, function: Any = None, *, replace: bool = False) -> Any:
        """
        Decorate a function in place of :meth:`Namespace.connected`: ``f(socket)`` or ``f(socket, auth)``.

        :param replace: as for :meth:`on`.
        """
        return self._decorate("onConnect", "connected", function, replace, atMost=2)

    @overload
    def onDisconnecting(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onDisconnecting(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onDisconnecting(self, function: Any = None, *, replace: bool = False) -> Any:
        """
        Decorate a function for :meth:`Namespace.disconnecting`: ``f(socket)`` or ``f(socket, reason)``.

        :param replace: as for :meth:`on`.
        """
        return self._decorate("onDisconnecting", "disconnecting", function, replace, atMost=2)

    @overload
    def onDisconnect(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onDisconnect(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onDisconnect(self, function: Any = None, *, replace: bool = False) -> Any:
        """
        Decorate a function for :meth:`Namespace.disconnected`: ``f(socket)`` or ``f(socket, reason)``.

        :param replace: as for :meth:`on`.
        """
        return self._decorate("onDisconnect", "disconnected", function, replace, atMost=2)

    def _decorate(self, what: str, field: str, function: Any, replace: bool, **counts: int) -> Any:
        def register(function: F) -> F:
            registry = self._registry()
            setattr(registry, field, registry.decorated(what, function, replace, **counts))
            return function

        return register if function is None else register(function)

    def onError(self, *kinds: type[BaseException]) -> Callable[[F], F]:
        """
        Decorate an error handler: ``f(socket, error)`` or ``f(socket, error, event)``.

        The first error handler whose kinds fit gets the error of an event's handler; its result is the ack.

        :param kinds: exception classes; none for any :exc:`Exception`.
        :raises TypeError: if a kind is no exception class, as the function in ``@server.onError`` is.
        """
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"onError() takes exception classes, not {kind!r}; did you mean @onError()?")

        def register(function: F) -> F:
            self._registry().errors.append((kinds or (Exception,), Handler(function, atMost=3)))
            return function

        return register

    def use(self, function: F) -> F:
        """
        Decorate a middleware around events: ``f(incoming, proceed)``.

        ``proceed(incoming)`` is a Deferred of the result of the next middleware inwards or, in the end, of
        the handler.
        """
        self._registry().middleware.append(Handler(function, given=2, atMost=2))
        return function
