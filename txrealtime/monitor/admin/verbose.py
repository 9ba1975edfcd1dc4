"""
The events of development mode: what happens to each socket, told to the admin UI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from txrealtime.engineio.session import CloseReason, Session
from txrealtime.monitor.admin.view import describe, sendable, timestamp
from txrealtime.server import Server
from txrealtime.socketio.hooks import Watcher
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.sockets import Socket

__all__ = ["Publish", "Verbose", "described"]

Publish = Callable[[list[Any]], None]

_MOST_EVENTS: Final = 1000
"""Clients' events told between two ticks; the UI keeps 1000 in all."""

_LARGEST: Final = 1 << 16
"""Bytes of an event that is told in full."""

_MOST_COMPARED: Final = 1000
"""Sockets whose data are compared in one tick."""

_json: Final = JSONText()


def described(socket: Socket) -> dict[str, Any]:
    """Describe a socket, without its data if these are large."""
    shown = describe(socket)
    size = _size(shown["data"])
    if size > _LARGEST:
        shown["data"] = {"data": f"({size} bytes)"}
    return shown


def _size(value: Any) -> int:
    text, attachments = _json.encode(value)
    return len(text) + sum(map(len, attachments))


class Verbose(Watcher):
    """
    A watcher that tells the admin UI of sockets, rooms and events.

    :param namespace: the UI's own; its events are not told.
    :param publish: sends an event to all clients of the UI.
    :param time: the time of day, in seconds since 1970.
    """

    def __init__(
        self, server: Server, namespace: Namespace, publish: Publish, time: Callable[[], float]
    ) -> None:
        self._server = server
        self._namespace = namespace
        self._publish = publish
        self._time = time
        self._left = _MOST_EVENTS
        # The sockets of each session, for upgrades.
        self._sockets: dict[Session, list[Socket]] = {}
        # The data that were told last: a dictionary tells nobody of its changes.
        self._data: dict[Socket, Any] = {}
        self._touched: dict[Socket, None] = {}
        # The rooms of a socket that is leaving: the UI is told of them after its end, as with Node.
        self._roomsLeft: list[str] = []
        self._next: Iterator[Socket] = iter(())

    # -- life --------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the present sockets for known."""
        for socket in self._all():
            self._know(socket)

    def end(self) -> None:
        """Forget them."""
        self._sockets.clear()
        self._data.clear()
        self._touched.clear()
        self._next = iter(())

    def _all(self) -> list[Socket]:
        return [socket for namespace in self._server.namespaces for socket in namespace.sockets.values()]

    def _know(self, socket: Socket) -> None:
        self._sockets.setdefault(socket.session, []).append(socket)
        self._data[socket] = _json.encode(sendable(socket.data))

    def tick(self) -> None:
        """Tell of changed data: of the sockets with events since the last tick, and of some others."""
        self._left = _MOST_EVENTS
        touched, self._touched = self._touched, {}
        for socket in touched:
            self._compare(socket)
        for _ in range(_MOST_COMPARED):
            socket = next(self._next, None)  # type: ignore[assignment]
            if socket is None:
                self._next = iter(self._all())
                return
            self._compare(socket)

    def _compare(self, socket: Socket) -> None:
        if socket not in self._data:
            return
        data = sendable(socket.data)
        encoded = _json.encode(data)
        if encoded != self._data[socket]:
            self._data[socket] = encoded
            self._tell("socket_updated", {"id": socket.id, "nsp": socket.namespace.path, "data": data})

    # -- told by the server ----------------------------------------------------------------

    def socketConnected(self, socket: Socket) -> None:
        self._know(socket)
        # The rooms first: the UI adds them to the socket that it is told of next.
        for room in (socket.id, *sorted(socket._joined)):
            self._room("room_joined", socket, room)
        self._tell("socket_connected", described(socket), self._now())

    def socketLeft(self, socket: Socket, reason: CloseReason) -> None:
        self._data.pop(socket, None)
        self._touched.pop(socket, None)
        sockets = self._sockets.get(socket.session, [])
        if socket in sockets:
            sockets.remove(socket)
        if not sockets:
            self._sockets.pop(socket.session, None)
        self._tell("socket_disconnected", socket.namespace.path, socket.id, str(reason), self._now())
        rooms, self._roomsLeft = self._roomsLeft, []
        for room in (*rooms, socket.id):
            self._room("room_left", socket, room)

    def sessionUpgraded(self, session: Session) -> None:
        for socket in self._sockets.get(session, ()):
            self._tell(
                "socket_updated",
                {"id": socket.id, "nsp": socket.namespace.path, "transport": socket.transport},
            )

    def roomJoined(self, socket: Socket, room: str) -> None:
        if socket.connected:
            self._room("room_joined", socket, room)

    def roomLeft(self, socket: Socket, room: str) -> None:
        if socket.connected:
            self._room("room_left", socket, room)
        elif socket in self._data:
            self._roomsLeft.append(room)

    def eventReceived(self, socket: Socket, event: str, args: list[Any]) -> None:
        if socket.namespace is not self._namespace:
            self._touched[socket] = None
            self._event("event_received", socket, event, args)

    def eventSent(self, sockets: Sequence[Socket], event: str, args: Sequence[Any]) -> None:
        for socket in sockets:
            if socket.namespace is self._namespace or not self._left:
                return
            self._event("event_sent", socket, event, args)

    # -- to the UI ---------------------------------------------------------------------

    def _event(self, kind: str, socket: Socket, event: str, args: Sequence[Any]) -> None:
        if self._left:
            self._left -= 1
            size = _size(args)
            shown = list(args) if size <= _LARGEST else [f"({size} bytes)"]
            self._tell(kind, socket.namespace.path, socket.id, [event, *shown], self._now())

    def _room(self, kind: str, socket: Socket, room: str) -> None:
        self._tell(kind, socket.namespace.path, room, socket.id, self._now())

    def _now(self) -> str:
        return timestamp(self._time())

    def _tell(self, event: str, *args: Any) -> None:
        self._publish([event, *args])
