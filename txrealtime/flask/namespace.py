"""
Class-based namespaces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txrealtime.flask.interfaces import Application
from txrealtime.socketio.past import Limit, PastEvent

__all__ = ["Namespace", "attach", "handles", "methodFor"]


class Namespace:
    """
    The handlers of one namespace: a method ``on_<event>`` for each event.

    ``on_connect(self)`` or ``on_connect(self, auth)`` admits clients; ``on_disconnect(self)`` or
    ``on_disconnect(self, reason)`` is called when they have left.  A method ``error(self, exception)``, if
    there is one, gets the exceptions that no error handler of the application takes; its result is the ack.

    :param namespace: the path: ``/`` by default, ``*`` for every namespace without handlers of its own.
    :ivar socketio: the :class:`SocketIO` that the namespace was given to, or ``None``.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self.namespace = namespace or "/"
        self.socketio: Any = None
        self._txrealtimeMethods: dict[str, Callable[..., Any]] = {}

    def trigger_event(self, event: str, *args: Any) -> Any:
        """
        Handle an event: call its method, if there is one.

        An override gets all events, also those without a method.

        :param args: the client's sid, and the event's arguments.
        """
        method = self._txrealtimeMethods.get(event)
        return None if method is None else method(*args[1:])

    def emit(
        self,
        event: str,
        data: Any = None,
        room: Any = None,
        include_self: bool = True,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
    ) -> None:
        """Send an event to everybody in a room of this namespace, or to everybody in it."""
        self._attached.emit(
            event,
            data,
            room=room,
            include_self=include_self,
            namespace=namespace or self.namespace,
            callback=callback,
        )

    def send(
        self,
        data: Any,
        room: Any = None,
        include_self: bool = True,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
    ) -> None:
        """Send the event ``message``, as :meth:`emit` does."""
        self._attached.send(
            data,
            room=room,
            include_self=include_self,
            namespace=namespace or self.namespace,
            callback=callback,
        )

    def close_room(self, room: Any, namespace: str | None = None) -> None:
        """Take everybody out of a room."""
        self._attached.close_room(room, namespace=namespace or self.namespace)

    def call(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        sid: Any = None,
        namespace: str | None = None,
        timeout: float = 60,
        ignore_queue: bool = False,
    ) -> Any:
        """Send an event to one client and wait for its ack; see :meth:`SocketIO.call`."""
        to = sid if to is None else to
        return self._attached.call(event, data, namespace=namespace or self.namespace, to=to, timeout=timeout)

    def enter_room(self, sid: str, room: Any, namespace: str | None = None, rewind: Limit = None) -> None:
        """Put a client into a room; see :meth:`SocketIO.enter_room`."""
        self._attached.enter_room(sid, room, namespace or self.namespace, rewind)

    def history(self, room: Any, last: Limit = None, namespace: str | None = None) -> list[PastEvent]:
        """Return the last events of a room; see :meth:`SocketIO.history`."""
        return self._attached.history(room, last, namespace or self.namespace)

    def leave_room(self, sid: str, room: Any, namespace: str | None = None) -> None:
        """Take a client out of a room."""
        self._attached.leave_room(sid, room, namespace or self.namespace)

    def rooms(self, sid: str, namespace: str | None = None) -> list[str]:
        """Return the rooms of a client."""
        return self._attached.rooms(sid, namespace or self.namespace)

    def disconnect(self, sid: str, namespace: str | None = None) -> None:
        """Disconnect a client from the namespace."""
        self._attached.disconnect(sid, namespace or self.namespace)

    def get_session(self, sid: str, namespace: str | None = None) -> Any:
        """Return the dictionary that the application keeps for a client; another one than Flask's session."""
        return self._attached.server.get_session(sid, namespace or self.namespace)

    def save_session(self, sid: str, session: dict[str, Any], namespace: str | None = None) -> None:
        """Replace the dictionary that the application keeps for a client."""
        self._attached.server.save_session(sid, session, namespace or self.namespace)

    def session(self, sid: str, namespace: str | None = None) -> Any:
        """Return a context manager that edits the dictionary that the application keeps for a client."""
        return self._attached.server.session(sid, namespace or self.namespace)

    @property
    def _attached(self) -> Application:
        if self.socketio is None:
            raise RuntimeError(
                f"{type(self).__name__} belongs to no server yet: give it to socketio.on_namespace() first"
            )
        application: Application = self.socketio
        return application


# Functions and not methods: a subclass may have methods of any name.


def attach(namespace: Namespace, socketio: Application, methods: dict[str, Callable[..., Any]]) -> None:
    """
    Attach a namespace to an application.

    :param methods: the handlers by event, read from the class once: clients choose the names of events and
    must
        not reach other attributes by them.
    """
    namespace.socketio = socketio
    namespace._txrealtimeMethods = methods


def methodFor(namespace: Namespace, event: str) -> Callable[..., Any] | None:
    """Return the method that handles an event; ``None`` if there is none."""
    return namespace._txrealtimeMethods.get(event)


def handles(namespace: Namespace, event: str) -> bool:
    """Tell if an event goes to :meth:`Namespace.trigger_event`."""
    overridden = type(namespace).trigger_event is not Namespace.trigger_event
    return overridden or event in namespace._txrealtimeMethods
