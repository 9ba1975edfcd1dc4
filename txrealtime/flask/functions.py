"""
Functions for handlers, which know the client of the current event.

Outside of handlers, as in a view, they work if the caller names the client and the namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import flask

from txrealtime.flask.contexts import currentEvent
from txrealtime.flask.interfaces import Application
from txrealtime.socketio.past import Limit, PastEvent

__all__ = ["call", "close_room", "disconnect", "emit", "history", "join_room", "leave_room", "rooms", "send"]


def _socketio() -> Application:
    return cast(Application, flask.current_app.extensions["socketio"])


def _named(what: str, sid: str | None, namespace: str | None) -> tuple[str, str]:
    """Return a client and a namespace; those of the current event if they are not given."""
    return sid or currentEvent(what).sid, namespace or currentEvent(what).namespace


def emit(
    event: str,
    *args: Any,
    namespace: str | None = None,
    to: Any = None,
    room: Any = None,
    broadcast: bool = False,
    include_self: bool = True,
    skip_sid: Any = None,
    callback: Callable[..., Any] | None = None,
    ignore_queue: bool = False,
    **options: Any,
) -> None:
    """
    Send an event to the client of the current event, or to others.

    :param args: one JSON value, bytes anywhere in it; a tuple for several values.  ``data=`` is an alias.
    :param namespace: that of the current event by default.
    :param to: a room, a sid, or a list of these; `room` is an alias.
    :param broadcast: send to everybody in the namespace.
    :param include_self: ``False`` leaves out the client of the current event.
    :param skip_sid: a sid, or a list of sids, to leave out.
    :param callback: called with the arguments of each ack.
    :raises RuntimeError: if called outside of a handler without a namespace and receivers; the error is an
        :exc:`AttributeError` too.
    :raises TypeError: if a value cannot be sent.
    """
    namespace = namespace or currentEvent("emit()").namespace
    to = room if to is None else to
    if to is None and not broadcast:
        to = currentEvent("emit()").sid
    _socketio().emit(
        event,
        *args,
        namespace=namespace,
        to=to,
        include_self=include_self,
        skip_sid=skip_sid,
        callback=callback,
        ignore_queue=ignore_queue,
        **options,
    )


def send(message: Any, json: bool = False, namespace: str | None = None, **options: Any) -> None:
    """
    Send the event ``message``, or ``json``; as :func:`emit` does.

    :param json: send ``json``, for data that is not text.
    """
    namespace = namespace or currentEvent("send()").namespace
    emit("json" if json else "message", message, namespace=namespace, **options)


def call(
    event: str,
    *args: Any,
    namespace: str | None = None,
    to: Any = None,
    room: Any = None,
    timeout: float = 60,
    ignore_queue: bool = False,
    **options: Any,
) -> Any:
    """
    Send an event to the client of the current event, or to another one, and wait for its ack.

    :param to: a sid.
    :param timeout: seconds.
    :return: the ack: ``None`` for nothing, one value as it is, several as a tuple.
    :raises TimeoutError: if no ack comes in time, or the client has gone.
    :raises RuntimeError: if called outside of a handler without a namespace and a sid.
    """
    namespace = namespace or currentEvent("call()").namespace
    to = room if to is None else to
    if to is None:
        to = currentEvent("call()").sid
    return _socketio().call(
        event,
        *args,
        namespace=namespace,
        to=to,
        timeout=timeout,
        ignore_queue=ignore_queue,
        **options,
    )


def join_room(room: Any, sid: str | None = None, namespace: str | None = None, rewind: Limit = None) -> None:
    """
    Put the client of the current event, or the one named, into a room.

    :param rewind: send the client the last events of the room: so many, or those of a ``timedelta``.  Then
        the call waits until the client is in the room; see :meth:`SocketIO.keep_history`.
    :raises ValueError: if the room is another client's own; or with `rewind`, if the namespace keeps no
        history, or the client is on another server.
    :raises RuntimeError: if called outside of a handler without a sid and a namespace.
    """
    sid, namespace = _named("join_room()", sid, namespace)
    _socketio().enter_room(sid, room, namespace, rewind)


def history(room: Any, last: Limit = None, namespace: str | None = None) -> list[PastEvent]:
    """
    Return the last events that were said to a room, the oldest first; see :meth:`SocketIO.history`.

    :param namespace: that of the current event by default.
    :raises RuntimeError: if called outside of a handler without a namespace.
    """
    namespace = namespace or currentEvent("history()").namespace
    return _socketio().history(room, last, namespace)


def leave_room(room: Any, sid: str | None = None, namespace: str | None = None) -> None:
    """Take the client of the current event, or the one named, out of a room."""
    sid, namespace = _named("leave_room()", sid, namespace)
    _socketio().leave_room(sid, room, namespace)


def close_room(room: Any, namespace: str | None = None) -> None:
    """Take everybody out of a room."""
    namespace = namespace or currentEvent("close_room()").namespace
    _socketio().close_room(room, namespace)


def rooms(sid: str | None = None, namespace: str | None = None) -> list[str]:
    """Return the rooms of the client of the current event, or of the one named; its sid is one of them."""
    sid, namespace = _named("rooms()", sid, namespace)
    return _socketio().rooms(sid, namespace)


def disconnect(sid: str | None = None, namespace: str | None = None, silent: bool = False) -> None:
    """Disconnect the client of the current event, or the one named, from the namespace."""
    sid, namespace = _named("disconnect()", sid, namespace)
    _socketio().disconnect(sid, namespace)
