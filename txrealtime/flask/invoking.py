"""
Calls of an application's handlers, in a handler's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flask import Flask
from twisted.python.failure import Failure

from txrealtime.errors import ConnectionRejected
from txrealtime.flask.contexts import Visit, inContext
from txrealtime.flask.copies import copied
from txrealtime.flask.jsonmodule import JSONModule
from txrealtime.flask.options import Configuration
from txrealtime.flask.routes import ANY, Route, Routes
from txrealtime.logs import Logger

__all__ = ["ErrorAck", "Invoker"]

_log = Logger()


class ErrorAck(NamedTuple):
    """
    The result of an error handler.

    :ivar ack: the ack of the event.
    """

    ack: Any


class Invoker:
    """
    The caller of one application's handlers.

    :param app: the Flask application.
    :ivar routes: the handlers.
    :ivar json: the application's JSON module, if it has one.
    """

    def __init__(self, app: Flask, routes: Routes, configuration: Configuration) -> None:
        self.app = app
        self.routes = routes
        self.configuration = configuration
        module = configuration.json
        self.json = None if module is None else JSONModule(module, app)

    def callInContext(
        self, route: Route, visit: Visit, sid: str, path: str, event: str, args: Sequence[Any]
    ) -> Any:
        """
        Call a handler in its contexts, and the error handlers if it fails.

        :return: the result of the handler, or the :class:`ErrorAck` of an error handler.
        """
        shown = [event, *args] if route.message == ANY else tuple(args)
        managed = self.configuration.manageSession
        with inContext(self.app, visit, managed, sid, path, route.message, shown):
            try:
                return self._guard(path, lambda: _invoke(route, event, sid, shown))
            except ConnectionRejected:
                raise
            except Exception as error:
                last = getattr(route.namespace, "error", None)
                if last is None:
                    raise
                return ErrorAck(last(error))

    def _guard(self, path: str, call: Callable[[], Any]) -> Any:
        """Make a call; give an exception to the error handler of the namespace, if there is one."""
        handler = self.routes.errorHandler(path)
        if handler is None:
            return call()
        try:
            return call()
        except ConnectionRejected:
            raise
        except Exception as error:
            return ErrorAck(handler(error))

    def _twice(self, path: str, call: Callable[[], Any]) -> Any:
        """Make a call, and once more after a TypeError.  After two, raise the first one."""
        try:
            return call()
        except TypeError as error:
            first = error
        _log.failure(
            "{namespace}: the connect handler raises TypeError, and is called once more as in Flask-SocketIO",
            Failure(first),
            namespace=path,
        )
        try:
            return call()
        except TypeError:
            raise first from None

    def inContextOf(self, request: Any, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a callback so that it runs in the contexts of the current event."""
        visit, sid, path = request.visit, request.sid, request.namespace

        def call(*args: Any) -> Any:
            result = self.callInContext(Route(callback, None), visit, sid, path, "", args)
            return result.ack if isinstance(result, ErrorAck) else result

        return call

    def sendable(self, value: Any) -> Any:
        """Return a copy of a value to be sent, made by the application's JSON module if it has one."""
        if isinstance(value, ErrorAck):
            return ErrorAck(self.sendable(value.ack))
        return copied(value) if self.json is None else self.json.plain(value)

    def received(self, value: Any) -> Any:
        """Return a received value as the application's JSON module reads it, if it has one."""
        return value if self.json is None else self.json.revived(value)


def _invoke(route: Route, event: str, sid: str, args: Sequence[Any]) -> Any:
    """Call the function of a route."""
    if route.namespace is not None:
        return route.function(event, sid, *args)
    return route.function(*args)
