"""
Rooms: the members of each room of a namespace, on this server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from txrealtime.socketio.hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from txrealtime.socketio.sockets import Socket

__all__ = ["Rooms", "checkRooms"]


class Rooms:
    """
    The rooms of one namespace.

    A room exists while it has a member.  Each socket is also alone in a room of its own, named by its id;
    own rooms are not stored.

    :ivar hooks: the server's.
    """

    __slots__ = ("_members", "_sockets", "hooks", "left", "watch")

    def __init__(self) -> None:
        self.hooks: Hooks = NO_HOOKS
        self.watch: Callable[[str, bool], object] | None = None
        """Called with ``(room, exists)`` when a room gets its first member or loses its last."""
        self.left: Callable[[Socket, str], object] | None = None
        """Called when a socket has left a room; for presence."""
        self._sockets: dict[str, Socket] = {}
        # Dictionaries serve as sets that keep their order.
        self._members: dict[str, dict[Socket, None]] = {}

    def __contains__(self, room: str) -> bool:
        return room in self._members or room in self._sockets

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._members))

    @property
    def count(self) -> int:
        """The number of rooms, without the sockets' own."""
        return len(self._members)

    @property
    def isEmpty(self) -> bool:
        """True if the namespace has no socket, not even one in admission."""
        return not self._sockets

    def watchedBy(self, watch: Callable[[str, bool], object]) -> None:
        """Report the rooms that exist, and each change from now on, to :attr:`watch`."""
        self.watch = watch
        for room in (*self._members, *self._sockets):
            watch(room, True)

    def add(self, socket: Socket) -> None:
        """Add a socket, in its own room."""
        isNew = socket.id not in self._sockets
        self._sockets[socket.id] = socket
        if isNew and self.watch is not None:
            self.watch(socket.id, True)

    def remove(self, socket: Socket) -> None:
        """Take a socket out of all its rooms, its own included."""
        for room in list(socket._joined):
            self.leave(socket, room)
        # In revision 4, a socket that was admitted late can meet its successor under the same id.
        if self._sockets.get(socket.id) is socket:
            del self._sockets[socket.id]
            if self.watch is not None:
                self.watch(socket.id, False)

    def join(self, socket: Socket, room: str) -> None:
        """
        Put a socket into a room.

        :raises ValueError: if it is another socket's own room.
        """
        if room == socket.id:
            return
        if room in self._sockets:
            raise ValueError(f"room {room!r} is another socket's own: nobody else can join it")
        members = self._members.get(room)
        if members is None:
            members = self._members[room] = {}
            if self.watch is not None:
                self.watch(room, True)
        members[socket] = None
        isNew = room not in socket._joined
        socket._joined.add(room)
        if isNew and self.hooks.roomJoined is not None:
            self.hooks.roomJoined(socket, room)

    def leave(self, socket: Socket, room: str) -> None:
        """Take a socket out of a room.  If it is not there, do nothing."""
        members = self._members.get(room)
        if members is not None:
            members.pop(socket, None)
            if not members:
                del self._members[room]
                if self.watch is not None:
                    self.watch(room, False)
        if room in socket._joined:
            socket._joined.discard(room)
            if self.left is not None:
                self.left(socket, room)
            if self.hooks.roomLeft is not None:
                self.hooks.roomLeft(socket, room)

    def find(self, id: str) -> Socket | None:
        """Find the socket with an id."""
        return self._sockets.get(id)

    def members(self, room: str) -> Iterable[Socket]:
        """List the sockets in a room."""
        members = self._members.get(room)
        if members is not None:
            return members
        socket = self._sockets.get(room)
        return () if socket is None else (socket,)

    def select(self, rooms: Sequence[str] | None, excluded: Iterable[str]) -> list[Socket]:
        """
        Select the sockets that are in at least one of some rooms, each once.

        :param rooms: ``None`` for everybody.
        :param excluded: rooms whose members are left out.
        """
        if rooms is None:
            chosen = list(self._sockets.values())
        elif len(rooms) == 1:
            chosen = list(self.members(rooms[0]))
        else:
            chosen = list(dict.fromkeys(socket for room in rooms for socket in self.members(room)))
        if excluded:
            absent = {socket for room in excluded for socket in self.members(room)}
            chosen = [socket for socket in chosen if socket not in absent]
        return chosen


def checkRooms(rooms: Sequence[str]) -> None:
    """
    Check the names of rooms.

    :raises TypeError: if a name is not a string.
    """
    for room in rooms:
        if not isinstance(room, str):
            raise TypeError(
                f"a room is named by a str, not by {room!r}; several are given as several arguments"
            )
