"""
The decorators that register an application's functions with a client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from txrealtime.client.handlers import Handlers

__all__ = ["Decorators"]

F = TypeVar("F", bound=Callable[..., Any])


class Decorators:
    """The decorators of a namespace, and of a client for its own namespace."""

    def _registry(self) -> Handlers:
        """Get the handlers to add to."""
        raise NotImplementedError

    def on(self, event: str, *, replace: bool = False) -> Callable[[F], F]:
        """
        Decorate the handler of an event: ``handler(*args)``, with the event's arguments.

        The result is the ack, if the server wants one: nothing for ``None``, a tuple as several values,
        anything else as one.  Handlers may be plain, ``async`` or return a Deferred; they are called one at a
        time, in the order of the events.

        :param replace: take the event from an earlier handler.
        :raises ValueError: if the name is reserved, or has a handler and ``replace`` is false.
        """
        return self._registry().on(event, replace)

    @overload
    def onAny(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onAny(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onAny(self, function: Any = None, *, replace: bool = False) -> Any:
        """Decorate the handler of events that have none of their own: ``handler(event, *args)``."""
        return self._decorate("onAny", function, replace, 1)

    @overload
    def onConnect(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onConnect(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onConnect(self, function: Any = None, *, replace: bool = False) -> Any:
        """Decorate a function to call after each connect, and after the events that were missed: ``f()``."""
        return self._decorate("onConnect", function, replace)

    @overload
    def onDisconnect(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onDisconnect(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onDisconnect(self, function: Any = None, *, replace: bool = False) -> Any:
        """
        Decorate a function to call after each disconnect: ``f()`` or ``f(reason)``.

        The reason is a :class:`~txrealtime.CloseReason`.
        """
        return self._decorate("onDisconnect", function, replace)

    @overload
    def onConnectError(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onConnectError(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onConnectError(self, function: Any = None, *, replace: bool = False) -> Any:
        """
        Decorate a function to call after each failure to connect: ``f()`` or ``f(error)``.

        After :exc:`~txrealtime.errors.ConnectionRejected`, the client does not try again until ``connect()``
        is called.  Any other error is one of the connection, and the client tries again.
        """
        return self._decorate("onConnectError", function, replace)

    def _decorate(self, what: str, function: Any, replace: bool, given: int = 0) -> Any:
        def register(function: F) -> F:
            self._registry().register(what, function, replace, given)
            return function

        return register if function is None else register(function)

    def onError(self, *kinds: type[BaseException]) -> Callable[[F], F]:
        """
        Decorate a handler of errors that event handlers raise: ``f(error)`` or ``f(error, event)``.

        Its result is the ack.

        :param kinds: exception classes; none for any :exc:`Exception`.
        """
        return self._registry().onError(kinds)

    def use(self, function: F) -> F:
        """
        Decorate a middleware around events that come: ``f(incoming, proceed)``.

        ``proceed(incoming)`` is a Deferred of the result of the next middleware, or of the handler behind the
        last one.
        """
        return self._registry().use(function)
