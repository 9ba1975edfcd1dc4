"""
Dispatch: the way of an event through the middleware to its handler, whose result is the ack.

An exception goes to the first error handler that fits, or to the log.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txrealtime.errors import ArgumentsMismatch, Disconnected, TryAgain
from txrealtime.logs import Logger
from txrealtime.socketio.handler import PLAIN, run, start
from txrealtime.socketio.hooks import NO_HOOKS, Hooks
from txrealtime.socketio.registry import Registry

if TYPE_CHECKING:
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.sockets import Socket

__all__ = ["NO_ACK", "Dispatcher", "Incoming"]

# Applications filter the log by this name.
_log = Logger("txrealtime.socketio.namespace")

NO_ACK: Final = object()
"""The result of an event that is not acked."""

_MOST_UNHANDLED: Final = 100
"""Names of events without a handler that a namespace logs: clients choose them."""

_MOST_NAMED: Final = 50
"""Names of handled events in one line of the log."""


class Incoming(NamedTuple):
    """
    An event on its way through the middleware.

    :ivar socket: its sender.
    :ivar event: its name.
    :ivar args: its arguments.
    """

    socket: Socket
    event: str
    args: list[Any]


def _ignore(event: str) -> None:
    pass


class Dispatcher:
    """
    The dispatch of a namespace's events.

    :param handlers: those of the namespace.
    :ivar namespace: the namespace.
    :ivar hooks: the server's, once the namespace is mounted.
    :ivar erred: called with the name of an event whose handler has raised: see
        :mod:`txrealtime.monitor.counts`.
    """

    __slots__ = ("_handlers", "_unhandled", "erred", "hooks", "namespace")

    def __init__(self, namespace: Namespace, handlers: Registry) -> None:
        self.namespace = namespace
        self._handlers = handlers
        # The events without a handler that the log has named.
        self._unhandled: set[str] = set()
        self.erred: Callable[[str], object] = _ignore
        self.hooks: Hooks = NO_HOOKS

    def dispatch(self, socket: Socket, event: str, args: list[Any]) -> Any:
        """
        Handle an event.

        :return: the value to ack, or :data:`NO_ACK`; or a Deferred of it, which never fails.
        """
        if self.hooks.eventReceived is not None:
            self.hooks.eventReceived(socket, event, args)
        try:
            if self._handlers.middleware:
                result: Any = self.proceed(0, Incoming(socket, event, args))
            else:
                result = self.handle(socket, event, args)
        except Exception:
            return self.failed(Failure(), socket, event)
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            result.addErrback(self.failed, socket, event)
        return result

    def proceed(self, depth: int, incoming: Incoming) -> Deferred[Any]:
        """Call the middleware at some depth, or the handler behind the last."""
        middleware = self._handlers.middleware
        if depth == len(middleware):
            return maybeDeferred(self.handle, *incoming)
        return maybeDeferred(
            run, middleware[depth].function, incoming, lambda further: self.proceed(depth + 1, further)
        )

    def handle(self, socket: Socket, event: str, args: list[Any]) -> Any:
        """Call the handler of an event."""
        handler = self._handlers.events.get(event)
        if handler is None:
            handler, args = self._handlers.any, [event, *args]
            if handler is None:
                self.nobodyHandles(event)
                return NO_ACK
        given = len(args) + 1
        if not handler.least <= given <= handler.most:
            handler.check(given)
        result = handler.function(socket, *args)
        return start(result) if result.__class__ is CoroutineType else result

    def failed(self, failure: Failure, socket: Socket, event: str) -> Any:
        """Called when a handler or a middleware has raised: return the value to ack."""
        self.erred(event)
        for kinds, handler in self._handlers.errors:
            if isinstance(failure.value, kinds):
                try:
                    result = handler.callWith(socket, failure.value, event)
                except Exception:
                    failure = Failure()
                    break
                if isinstance(result, Deferred):
                    result.addErrback(self._logFailure, socket, event)
                return result
        return self._logFailure(failure, socket, event)

    def _logFailure(self, failure: Failure, socket: Socket, event: str) -> Any:
        if failure.check(TryAgain):
            return {"error": str(failure.value)}
        if failure.check(Disconnected) and not socket.connected:
            # The handler waited for a client that has gone, which is no fault.
            _log.debug(
                "{namespace} {socket}: {event!r}: {reason}",
                namespace=self.namespace.path,
                socket=socket.label,
                event=event[:100],
                reason=str(failure.value),
            )
        elif failure.check(ArgumentsMismatch):
            # As likely the client's fault as the application's: no traceback.
            _log.limited(
                event if event in self._handlers.events else None,
                LogLevel.warn,
                "{namespace} {socket}: event {event!r} not handled: {reason}",
                namespace=self.namespace.path,
                socket=socket.label,
                event=event[:100],
                reason=str(failure.value),
            )
        else:
            _log.failure(
                "{namespace} {socket}: the handler of {event!r} failed",
                failure,
                namespace=self.namespace.path,
                socket=socket.label,
                event=event[:100],
            )
        return NO_ACK

    def nobodyHandles(self, event: str) -> None:
        """Log an event without a handler: once for each name, and for few names."""
        if event in self._unhandled or len(self._unhandled) >= _MOST_UNHANDLED:
            return
        handled = sorted(self.namespace._eventsHandled())
        shown = _log.limited(
            "",
            LogLevel.info,
            "{namespace}: no handler for the event {event!r}; handlers are registered for {handled}",
            namespace=self.namespace.path,
            event=event[:100],
            handled=", ".join(map(repr, handled[:_MOST_NAMED])) + (", ..." if handled[_MOST_NAMED:] else "")
            or "no event",
        )
        if shown:
            self._unhandled.add(event)
