"""
The handlers of a client: registration, and calls one at a time and in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from txrealtime.errors import ArgumentsMismatch, Disconnected
from txrealtime.logs import Logger
from txrealtime.socketio.handler import PLAIN, Handler, run, start
from txrealtime.socketio.packet import RESERVED
from txrealtime.socketio.registry import checkUnregistered

if TYPE_CHECKING:
    from txrealtime.client.namespace import Namespace

__all__ = ["NO_ACK", "Handlers", "Incoming", "Turns"]

_log = Logger()

F = TypeVar("F", bound=Callable[..., Any])

NO_ACK: Final = object()
"""The result of an event that is not acked."""

_NOTICES: Final = {
    "connect": "onConnect",
    "disconnect": "onDisconnect",
    "connect_error": "onConnectError",
}
"""Names of events of the JavaScript client that have a decorator of their own here."""


class Incoming(NamedTuple):
    """
    An event on its way through the middleware.

    :ivar namespace: the namespace that it came to.
    :ivar event: its name.
    :ivar args: its arguments.
    """

    namespace: Namespace
    event: str
    args: list[Any]


class Handlers:
    """
    The functions that an application has registered for one namespace.

    :param path: the namespace's path, for the log.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._events: dict[str, Handler] = {}
        self._middleware: list[Handler] = []
        self._errors: list[tuple[tuple[type[BaseException], ...], Handler]] = []
        # By decorator: onAny, onConnect, onDisconnect, onConnectError.
        self._named: dict[str, Handler] = {}

    # -- registering ---------------------------------------------------------------

    def on(self, event: str, replace: bool) -> Callable[[F], F]:
        if not isinstance(event, str):
            raise TypeError(f"on() takes an event's name, not {type(event).__name__}")
        if event == "*":
            raise ValueError("'*' is no event: use onAny, for the events that have no handler of their own")
        if event in RESERVED:
            advice = f": use {_NOTICES[event]}" if event in _NOTICES else ""
            raise ValueError(f"{event!r} is a reserved name that no server sends{advice}")

        def register(function: F) -> F:
            handler = Handler(function, given=0)
            _check(f"on({event!r})", self._events.get(event), function, replace)
            self._events[event] = handler
            return function

        return register

    def register(self, what: str, function: Callable[..., Any], replace: bool, given: int) -> None:
        """
        Register a function by the name of its decorator.

        :param given: the smallest number of arguments that it is called with.
        """
        handler = Handler(function, given)
        _check(what, self._named.get(what), function, replace)
        self._named[what] = handler

    def onError(self, kinds: tuple[type[BaseException], ...]) -> Callable[[F], F]:
        if any(not (isinstance(kind, type) and issubclass(kind, BaseException)) for kind in kinds):
            raise TypeError("onError() takes classes of exceptions; write @client.onError() for all of them")

        def register(function: F) -> F:
            self._errors.append((kinds or (Exception,), Handler(function)))
            return function

        return register

    def use(self, function: F) -> F:
        self._middleware.append(Handler(function, given=2))
        return function

    # -- calling -------------------------------------------------------------------

    def dispatch(self, namespace: Any, event: str, args: list[Any]) -> Any:
        """
        Handle an event.

        :param namespace: the receiver, for middleware.
        :return: the value to ack, or :data:`NO_ACK`; or a Deferred of it, which never fails.
        """
        try:
            if self._middleware:
                result: Any = self._proceed(0, Incoming(namespace, event, args))
            elif (handler := self._events.get(event)) is not None and handler.least <= len(
                args
            ) <= handler.most:
                # As _handle(), without the call.
                result = handler.function(*args)
                if result is None:
                    return None  # Nearly always: the rest would do no more.
                if result.__class__ is CoroutineType:
                    result = start(result)
            else:
                result = self._handle(event, args)
        except Exception:
            return self._failed(Failure(), event)
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            result.addErrback(self._failed, event)
        return result

    def _proceed(self, depth: int, incoming: Incoming) -> Deferred[Any]:
        """Call the middleware at some depth, or the handler behind the last."""
        if depth == len(self._middleware):
            return maybeDeferred(self._handle, incoming.event, incoming.args)
        return maybeDeferred(
            run, self._middleware[depth].function, incoming, lambda further: self._proceed(depth + 1, further)
        )

    def _handle(self, event: str, args: list[Any]) -> Any:
        handler = self._events.get(event)
        if handler is None:
            handler, args = self._named.get("onAny"), [event, *args]
            if handler is None:
                return NO_ACK
        if not handler.least <= len(args) <= handler.most:
            raise ArgumentsMismatch(f"{handler.describe()}; {len(args)} came")
        result = handler.function(*args)
        return start(result) if result.__class__ is CoroutineType else result

    def _failed(self, failure: Failure, event: str) -> Any:
        for kinds, handler in self._errors:
            if isinstance(failure.value, kinds):
                try:
                    result = handler.callWith(failure.value, event)
                except Exception:
                    failure = Failure()
                    break
                if isinstance(result, Deferred):
                    result.addErrback(self._logFailure, event)
                return result
        return self._logFailure(failure, event)

    def _logFailure(self, failure: Failure, event: str) -> Any:
        names: dict[str, Any] = {
            "namespace": self._path,
            "event": event[:100],
            "reason": str(failure.value),
        }
        if failure.check(Disconnected):
            _log.debug("{namespace}: the handler of {event!r} ended: {reason}", **names)
        elif failure.check(ArgumentsMismatch):
            # As likely the server's doing: no traceback.
            _log.warn("{namespace}: event {event!r} not handled: {reason}", **names)
        else:
            _log.failure("{namespace}: the handler of {event!r} failed", failure, **names)
        return NO_ACK

    def tell(self, name: str, *args: Any) -> Any:
        """Call the handler of a notice; return a Deferred that never fails, or nothing."""
        handler = self._named.get(name)
        if handler is None:
            return None
        told = maybeDeferred(handler.callWith, *args)
        return told.addErrback(
            lambda failure: _log.failure(
                "{namespace}: the handler of {name} failed", failure, namespace=self._path, name=name
            )
        )

    def has(self, name: str) -> bool:
        """Tell if a notice has a handler."""
        return name in self._named


def _check(what: str, previous: Handler | None, function: Callable[..., Any], replace: bool) -> None:
    checkUnregistered(what, None if previous is None else previous.function, function, replace)


class Turns:
    """
    Calls that are made one after the other, each when the Deferred of the one before has fired.

    :ivar waiting: the calls that wait, with their arguments and the bytes of their events.
    :ivar size: the bytes of their events.
    :ivar isBusy: ``True`` while a call runs or waits.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.waiting: deque[tuple[Callable[..., Any], tuple[Any, ...], int]] = deque()
        self._isRunning = False
        self._isDraining = False
        self.isBusy = False
        self._changed = changed
        self.size = 0

    def add(self, call: Callable[..., Any], *args: Any, size: int = 0) -> None:
        """
        Make a call in its turn, at once if nothing waits.

        :param call: returns a value, or a Deferred that never fails.
        """
        if self.isBusy:
            self.waiting.append((call, args, size))
            self.size += size
            self._changed()
        else:
            self.isBusy = True
            self.ended(call(*args))

    def ended(self, result: Any) -> None:
        """
        Called at the end of a call that was made while :attr:`isBusy` was false, and has set it.

        :param result: a value, or a Deferred that never fails.
        """
        if result.__class__ in PLAIN and not self.waiting:
            # Nearly always: the rest of _ran() and _done() would do no more.
            self.isBusy = False
        else:
            self._isRunning = True
            self._ran(result)

    def _run(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._isRunning = True
        self._ran(call(*args))

    def _ran(self, result: Any) -> None:
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            result.addCallback(self._done)
        else:
            self._done(None)

    def _done(self, _: object) -> None:
        self._isRunning = False
        if self._isDraining:
            return  # The loop below goes on.
        if not self.waiting:
            self.isBusy = False
            return
        self._isDraining = True
        try:
            while self.waiting and not self._isRunning:
                call, args, size = self.waiting.popleft()
                self.size -= size
                self._run(call, args)
        finally:
            self._isDraining = False
            self.isBusy = self._isRunning or bool(self.waiting)
        self._changed()
