"""
Namespaces as classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txrealtime.flask.socketio import SocketIO

__all__ = ["Namespace"]


class Namespace:
    """
    The handlers of one namespace: a method ``on_<event>`` for each event.

    ``on_connect(self)`` or ``on_connect(self, auth)`` admits clients, ``on_disconnect(self)`` or
    ``on_disconnect(self, reason)`` is told when they have left.  A method ``error(self, exception)``, if
    there is one, gets what no error handler of the application has taken; what it returns is the ack.

    :param namespace: where it is: ``/`` by default, ``*`` for every namespace that has nothing of its own.
    :ivar socketio: the :class:`SocketIO` that it was given to.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self.namespace = namespace or "/"
        self.socketio: SocketIO | None = None
        self._methods: dict[str, Callable[..., Any]] = {}

    def attach(self, socketio: SocketIO, methods: dict[str, Callable[..., Any]]) -> None:
        """
        Belong to an application.

        :param methods: what handles its events, read from the class once: a client chooses the events'
            names, and must not reach other attributes by them.
        """
        self.socketio = socketio
        self._methods = methods

    def handles(self, event: str) -> bool:
        """Whether events of this name come to :meth:`trigger_event`."""
        return event in self._methods or type(self).trigger_event is not Namespace.trigger_event

    def trigger_event(self, event: str, *args: Any) -> Any:
        """
        Handle an event: call its method, if there is one.

        A subclass that overrides this gets all events, those without a method too.

        :param args: the client's sid, and the event's arguments.
        """
        method = self._methods.get(event)
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

    @property
    def _attached(self) -> SocketIO:
        if self.socketio is None:
            raise RuntimeError(
                f"{type(self).__name__} belongs to no server yet: give it to socketio.on_namespace() first"
            )
        return self.socketio
