"""
Presence: who is in a room, on all servers.

An application tracks a socket in a room, with data for the others.  Each namespace has one :class:`Roster`:
the entries of this server's sockets and, in a cluster, those of the peer servers.  :class:`Presence` is the
application's handle of one room.  Only the server of a socket changes the socket's entries, so servers
never contradict each other, and what two separated servers know is merged by putting it together.
``cluster/rosters.py`` tells the servers' rosters to each other; nothing here knows of a bus.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import LogLevel

from txrealtime.errors import LimitExceeded
from txrealtime.logs import Logger
from txrealtime.socketio.handler import Handler
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.rooms import checkRooms

if TYPE_CHECKING:
    from txrealtime.socketio.namespace import Namespace
    from txrealtime.socketio.sockets import Socket

__all__ = ["MAX_DATA", "MAX_ENTRIES", "MAX_NAME", "Entry", "Presence", "Present", "Roster"]

_log = Logger()
_json = JSONText()

MAX_ENTRIES: Final = 100_000
"""Entries in one namespace, of all servers."""

MAX_DATA: Final = 4096
"""Characters of one entry's data, as JSON."""

MAX_NAME: Final = 256
"""Characters of a key, and of a room with presence."""

_HERE: Final = ""
"""The name of this server, in its own roster."""

_Place = tuple[str, str]
"""The place of an entry on its server: the room, and the socket's id."""

Told = Callable[["Present"], object]


class Entry(NamedTuple):
    """
    A socket that is present in a room.

    :ivar room: the room.
    :ivar id: the socket's id.
    :ivar key: the key that the socket is present by.
    :ivar order: the entry's place among those of the room.  On all servers, entries are sorted by it, and
        by the id if two servers have chosen the same.
    """

    room: str
    id: str
    key: str
    text: str
    order: int

    @property
    def data(self) -> dict[str, Any]:
        """A copy of the data."""
        data: dict[str, Any] = _json.decode(self.text)
        return data

    @property
    def rank(self) -> tuple[int, str]:
        """The order, and the id to break a tie."""
        return self.order, self.id


@dataclass(frozen=True, slots=True)
class Present:
    """
    Somebody who is present in a room: a key, with an entry for each of its sockets.

    :ivar room: the room.
    :ivar key: the key: a socket's id, or the application's name for a user with several sockets.
    :ivar entries: the entries, the earliest first; at least one.
    """

    room: str
    key: str
    entries: tuple[Entry, ...]

    @property
    def data(self) -> dict[str, Any]:
        """A copy of the data of the latest entry."""
        return self.entries[-1].data


class Presence:
    """
    The presence of a room, or of all rooms: see :meth:`Namespace.presence`.

    :ivar room: the room; ``None`` for all rooms of the namespace.
    """

    __slots__ = ("_roster", "room")

    def __init__(self, roster: Roster, room: str | None) -> None:
        self._roster = roster
        self.room = room

    def __repr__(self) -> str:
        return f"<Presence {'of all rooms' if self.room is None else repr(self.room)}>"

    def track(self, socket: Socket, data: dict[str, Any] | None = None, *, key: str | None = None) -> None:
        """
        Put a socket into the room, present for all servers until it leaves the room or the namespace.

        Track it again to change its data.  Once the client has gone, do nothing.

        :param data: a dictionary of JSON values, by default empty, for everybody who asks :meth:`here`.
        :param key: the same for all sockets of one user; by default the socket's id.
        :raises TypeError: if the data are no dictionary of JSON values, or the key is no string.
        :raises ValueError: if this is the presence of all rooms; if the data have more than 4,096 characters
            as JSON; if the key is empty, or the key or the room has more than 256 characters; or if
            :meth:`Socket.join` would.
        :raises LimitExceeded: if the namespace has 100,000 entries, or :meth:`Socket.join` would.
        """
        self._roster.track(socket, self._room("track"), {} if data is None else data, key)

    def untrack(self, socket: Socket) -> None:
        """End a socket's presence.  It stays in the room.  If it is not present, do nothing."""
        self._roster.left(socket, self._room("untrack"))

    def here(self, timeout: float = 5.0) -> Deferred[list[Present]]:
        """
        List who is present, on all servers.

        :param timeout: seconds that peer servers have to tell, if this server does not know yet.
        :return: a Deferred of the list, the earliest first, in the same order on all servers.  It does not
            fail: without a peer server's reply, or without the bus, the list is what this server knows.
        """
        return self._roster.whenKnown(timeout).addCallback(lambda _: self.known)

    @property
    def known(self) -> list[Present]:
        """The list of :meth:`here` as far as this server knows, without waiting."""
        return self._roster.known(self.room)

    def get(self, key: str) -> Present | None:
        """Find who is present in the room by a key, as far as this server knows."""
        return self._roster.get(self._room("get"), key)

    def watch(
        self,
        joined: Told | None = None,
        left: Told | None = None,
        changed: Told | None = None,
    ) -> Callable[[], None]:
        """
        Call functions with a :class:`Present` when somebody comes or goes, on any server.

        Each server calls its own watchers, so a watcher that tells clients uses ``local``:
        ``namespace.to("red").local.emit("joined", present.data)``.  The watchers may be ``async``; their
        errors are logged.

        :param joined: called when a key gets its first entry, and at once for each key that is present.
        :param left: called when a key has lost its last entry, with that entry.
        :param changed: called when the entries of a key have changed otherwise: one more, one less, new data.
        :return: a function to call for an end of the watch.
        """
        return self._roster.watch(self.room, joined, left, changed)

    def _room(self, method: str) -> str:
        if self.room is None:
            raise ValueError(f"presence() of all rooms cannot {method}(): name the room, as presence('red')")
        return self.room


@dataclass(eq=False, slots=True)
class _Watch:
    """The watchers of one call of :meth:`Presence.watch`, by the kind of change."""

    room: str | None
    handlers: dict[str, Handler]


class Roster:
    """
    The entries of one namespace.

    :ivar isUsed: true once the application has asked for the namespace's presence.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.isUsed = False
        self._namespace = namespace
        # Each entry is in both: by server and place, and by room and key.
        self._servers: dict[str, dict[_Place, Entry]] = {_HERE: {}}
        self._rooms: dict[str, dict[str, tuple[Entry, ...]]] = {}
        self._sockets: dict[_Place, Socket] = {}
        self._count = 0
        # The greatest order known.
        self._order = 0
        self._watches: list[_Watch] = []
        # Changes that watchers have to hear.  A watcher may make the next change, or add a watch.
        self._untold: deque[tuple[str, Present, list[_Watch]]] = deque()
        self._isTelling = False

    def use(self) -> None:
        """Begin to listen for sockets that leave rooms, and to exchange entries with peer servers."""
        if not self.isUsed:
            peers = self._namespace._peers
            if peers is not None:
                peers.presenceUsed(self._namespace)
            self.isUsed = True
            self._namespace.rooms.left = self.left

    # -- this server's sockets -----------------------------------------------------------

    def track(self, socket: Socket, room: str, data: dict[str, Any], key: str | None) -> None:
        """Put a socket into a room, and into the roster; see :meth:`Presence.track`."""
        key = socket.id if key is None else key
        text = _checked(room, socket.id, key, data)
        if socket._leftBecause is not None:
            return
        place = room, socket.id
        known = self._servers[_HERE].get(place)
        if known is None and self._count >= MAX_ENTRIES:
            raise LimitExceeded(f"{self._namespace!r} has {MAX_ENTRIES} entries of presence already")
        socket.join(room)
        order = known.order if known is not None and known.key == key else self._nextOrder()
        entry = Entry(room, socket.id, key, text, order)
        if entry == known:
            return
        self._sockets[place] = socket
        self._put(_HERE, entry)
        # Before a watcher can make the next change.
        if self._namespace._peers is not None:
            self._namespace._peers.tracked(self._namespace, entry)
        self._tell()

    def _nextOrder(self) -> int:
        """
        Return the order of a new entry.

        It is the time in milliseconds, but behind all entries that this server knows, whatever the clocks of
        their servers say (a hybrid logical clock).
        """
        return max(self._order + 1, int(self._namespace.reactor.seconds() * 1000))

    def left(self, socket: Socket, room: str) -> None:
        """Called when a socket has left a room, or is to be present there no longer."""
        place = room, socket.id
        if self._sockets.get(place) is socket:
            del self._sockets[place]
            entry = self._remove(_HERE, place)
            if self._namespace._peers is not None:
                self._namespace._peers.untracked(self._namespace, entry)
            self._tell()

    @property
    def own(self) -> list[Entry]:
        """The entries of this server's sockets."""
        return list(self._servers[_HERE].values())

    # -- peer servers ----------------------------------------------------------------------

    def put(self, server: str, entry: Entry) -> None:
        """Called when a peer server's socket is present, or has other data."""
        self._put(server, entry)
        self._tell()

    def remove(self, server: str, room: str, id: str) -> None:
        """Called when a peer server's socket is present no longer."""
        if (room, id) in self._servers.get(server, ()):
            self._remove(server, (room, id))
            self._tell()

    def replace(self, server: str, entries: Iterable[Entry]) -> None:
        """Called with all entries of a peer server.  Others that it had are removed."""
        present = {(entry.room, entry.id): entry for entry in entries}
        for place in self._servers.get(server, {}).keys() - present.keys():
            self._remove(server, place)
        for entry in present.values():
            self._put(server, entry)
        self._tell()

    # -- both --------------------------------------------------------------------------------

    def _put(self, server: str, entry: Entry) -> None:
        place = entry.room, entry.id
        known = self._servers.get(server, {}).get(place)
        if known == entry:
            return
        if known is not None and known.key != entry.key:
            self._remove(server, place)
            known = None
        if known is None and self._count >= MAX_ENTRIES:
            _log.limited(
                "presence",
                LogLevel.warn,
                "{namespace}: ignored entries of presence above {most}",
                namespace=self._namespace.path,
                most=MAX_ENTRIES,
            )
            return
        self._order = max(self._order, entry.order)
        self._servers.setdefault(server, {})[place] = entry
        keys = self._rooms.setdefault(entry.room, {})
        others = keys.get(entry.key, ())
        keys[entry.key] = tuple(
            sorted((*(each for each in others if each is not known), entry), key=lambda each: each.rank)
        )
        self._count += known is None
        self._note("changed" if others else "joined", entry.room, entry.key, keys[entry.key])

    def _remove(self, server: str, place: _Place) -> Entry:
        entries = self._servers[server]
        entry = entries.pop(place)
        if not entries and server != _HERE:
            del self._servers[server]
        self._count -= 1
        keys = self._rooms[entry.room]
        others = keys[entry.key] = tuple(each for each in keys[entry.key] if each is not entry)
        if not others:
            del keys[entry.key]
            if not keys:
                del self._rooms[entry.room]
        self._note("changed" if others else "left", entry.room, entry.key, others or (entry,))
        return entry

    # -- questions ---------------------------------------------------------------------------

    def known(self, room: str | None) -> list[Present]:
        """List who is present in a room, or in all, as far as this server knows; the earliest first."""
        rooms = self._rooms if room is None else [room]
        present = [
            Present(name, key, entries)
            for name in rooms
            for key, entries in self._rooms.get(name, {}).items()
        ]
        return sorted(present, key=lambda each: each.entries[0].rank)

    def get(self, room: str, key: str) -> Present | None:
        """Find who is present in a room by a key."""
        entries = self._rooms.get(room, {}).get(key)
        return None if entries is None else Present(room, key, entries)

    def whenKnown(self, timeout: float) -> Deferred[None]:
        """Wait until the peer servers have told their entries, or for `timeout` seconds."""
        peers = self._namespace._peers
        if peers is None:
            return succeed(None)
        known = peers.whenPresenceKnown(self._namespace)
        return known.addTimeout(timeout, self._namespace.reactor, onTimeoutCancel=lambda _, seconds: None)

    # -- watchers ----------------------------------------------------------------------------

    def watch(self, room: str | None, *watchers: Told | None) -> Callable[[], None]:
        """
        Call functions with each change; see :meth:`Presence.watch`.

        :param watchers: those of "joined", "left" and "changed".
        """
        kinds = ("joined", "left", "changed")
        watch = _Watch(
            room,
            {
                kind: Handler(watcher, atMost=1)
                for kind, watcher in zip(kinds, watchers, strict=True)
                if watcher is not None
            },
        )
        for present in self.known(room):
            self._call(watch, "joined", present)
        self._watches.append(watch)

        def unwatch() -> None:
            if watch in self._watches:
                self._watches.remove(watch)

        return unwatch

    def _note(self, kind: str, room: str, key: str, entries: tuple[Entry, ...]) -> None:
        if self._watches:
            self._untold.append((kind, Present(room, key, entries), list(self._watches)))

    def _tell(self) -> None:
        """Call the watchers, in the order of the changes, also of those that watchers make."""
        if self._isTelling:
            return
        self._isTelling = True
        try:
            while self._untold:
                kind, present, watches = self._untold.popleft()
                for watch in watches:
                    if watch.room in (None, present.room) and watch in self._watches:
                        self._call(watch, kind, present)
        finally:
            self._isTelling = False

    def _call(self, watch: _Watch, kind: str, present: Present) -> None:
        handler = watch.handlers.get(kind)
        if handler is not None:
            maybeDeferred(handler.callWith, present).addErrback(
                lambda failure: _log.failure(
                    "{namespace}: {watcher}, a watcher of presence, failed",
                    failure,
                    namespace=self._namespace.path,
                    watcher=handler.name,
                )
            )


def _checked(room: str, id: str, key: str, data: dict[str, Any]) -> str:
    """Return an entry's data as JSON, after a check of all its parts."""
    checkRooms([room])
    if not isinstance(key, str):
        raise TypeError(f"key is {key!r}, expected a str, such as a user's name")
    if not key:
        raise ValueError("key is empty, expected a user's name, or None for the socket's id")
    for what, name in ("key", key), ("room", room), ("socket's id", id):
        if len(name) > MAX_NAME:
            raise ValueError(f"the {what} has {len(name)} characters, expected {MAX_NAME} at most")
    if not isinstance(data, dict):
        raise TypeError(f"data are {data!r}, expected a dictionary of JSON values")
    text, attachments = _json.encode(data)
    if attachments:
        raise TypeError("data have bytes, expected JSON values: send bytes as an event")
    if len(text) > MAX_DATA:
        raise ValueError(
            f"data of {len(text)} characters as JSON, expected {MAX_DATA} at most: "
            "every server keeps them, so put a name in, and the rest into a database"
        )
    _json.decode(text)  # as other servers will
    return text
