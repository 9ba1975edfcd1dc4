"""
Events that are handled once, in an application of Flask: a mark on a handler, and the call of a marked one.

The mark is an attribute of the function, read when an event comes.  So the order of the decorators does not
matter, and :func:`functools.wraps` hands the mark on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txrealtime.cluster.once import Key, Once, keyOf
from txrealtime.cluster.results import IResults
from txrealtime.errors import TryAgain
from txrealtime.flask.invoking import ErrorAck
from txrealtime.flask.membership import Membership
from txrealtime.flask.namespace import methodFor
from txrealtime.flask.routes import Route
from txrealtime.socketio.namespace import Incoming
from txrealtime.socketio.sockets import Socket

__all__ = ["handledOnce", "once", "onceOf"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "_txrealtimeOnce"


def once(
    key: Key | None = None,
    header: str | None = None,
    store: IResults | str | None = None,
    seconds: float = 600.0,
    lease: float = 15.0,
) -> Callable[[F], F]:
    """
    Decorate the handler of an event that is handled once, however often its client sends it.

    ``@once(key=0)`` stands above or below ``@socketio.on("order")``; see :doc:`/howto/once`.

    :param key: the argument that names the event, by its place; or the field of the first argument that does;
        or a function of the :class:`~txrealtime.Incoming`, which runs in the reactor's thread.
    :param header: in place of `key`, the name of a header of the opening request.
    :param store: the place of the results: by default the memory of this process; or the URL of a Redis.
    :param seconds: the time for which a result is kept.
    :param lease: the time after which another server may run the handler, if this one was killed meanwhile.
    :raises ValueError: if there is no key.
    :raises TypeError: if the key is none of these.
    """
    middleware = Once((), keyOf(key, header), store, seconds, lease)

    def mark(handler: F) -> F:
        setattr(handler, _MARK, middleware)
        return handler

    return mark


def onceOf(route: Route) -> Once | None:
    """Return the middleware of a marked handler; ``None`` for others."""
    handler: Any = route.function
    if route.namespace is not None:
        handler = methodFor(route.namespace, route.message or "")
    return getattr(handler, _MARK, None)


class _Failed(Exception):
    """
    A handler has failed, and an error handler has returned.

    :ivar ack: its result.
    """

    def __init__(self, ack: Any) -> None:
        super().__init__()
        self.ack = ack


def handledOnce(
    middleware: Once,
    socket: Socket,
    membership: Membership,
    event: str,
    args: Sequence[Any],
    schedule: Callable[[], Deferred[Any]],
) -> Deferred[Any]:
    """
    Handle an event once.

    :param schedule: has the handler called; the Deferred fires with :class:`ErrorAck` if it has failed.
    """

    def proceed(incoming: Incoming) -> Deferred[Any]:
        if membership.hasEnded:
            # No handler may begin after the disconnect handler.
            return fail(TryAgain("the client has left: send the event again"))
        return schedule().addCallback(_raised)

    handling = Deferred.fromCoroutine(middleware(Incoming(socket, event, list(args)), proceed))
    return handling.addErrback(_ackOf)


def _raised(result: Any) -> Any:
    if isinstance(result, ErrorAck):
        raise _Failed(result.ack)
    return result


def _ackOf(failure: Failure) -> Any:
    failure.trap(_Failed)
    assert isinstance(failure.value, _Failed)
    return failure.value.ack
