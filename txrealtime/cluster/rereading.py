"""
Events that are read again from a stream, for clients that have missed them.

When a server has died, its clients come to the others at the same time, and all want the same entries.  A
:class:`Rereading` reads the stream once for all that wait, from the oldest of their places on.  Those that
come meanwhile wait for the next turn.  So the cost is that of the entries, not of entries times clients, and
the heartbeat, which uses the same connection, waits for one page at most.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txrealtime.cluster.bus.places import Id, Info, idOf, infoOf
from txrealtime.cluster.dialects.messages import Emit
from txrealtime.errors import BusError
from txrealtime.socketio.eventlog import Mark

__all__ = ["Found", "Rereading", "Wanting"]

_PAGE: Final = 500
"""Entries of the stream in one reply."""


class Found(NamedTuple):
    """
    An event in the stream.

    :ivar sender: the uid of the server that has sent it.
    :ivar mark: its place on the bus.
    """

    id: Id
    emit: Emit
    topic: str = ""
    sender: str = ""
    mark: Mark = None


class Wanting(Protocol):
    """
    A client that has missed events.

    :ivar path: the path of the client's namespace.
    :ivar rooms: the rooms of the client.
    :ivar place: the id of the entry behind which the events are.
    :ivar isBounded: false once it has missed more than it may have: it needs no more events.
    """

    path: str
    rooms: frozenset[str]
    place: Id

    @property
    def isBounded(self) -> bool: ...

    def found(self, event: Found) -> None:
        """Called with each event behind the place, for everybody or for one of the rooms."""


Command = Callable[..., Deferred[Any]]
"""Sends a command to Redis: :meth:`~txrealtime.cluster.link.link.Link.command`."""

Reader = Callable[[bytes, list[bytes], Container[str]], Found | None]
"""
Returns the event in an entry; ``None`` if there is none.  Takes the id and the fields of the entry, and the
paths of the namespaces of which events are wanted.
"""

_Turn = list[tuple[Wanting, Deferred[bool]]]


class Rereading:
    """
    Reads one stream again, once for all clients that wait.

    :param stream: the name of the stream.
    :param read: reads an entry.
    """

    def __init__(self, stream: str, read: Reader) -> None:
        self._stream = stream
        self._read = read
        self._waiting: _Turn = []
        self._isReading = False

    def tell(self, command: Command, client: Wanting) -> Deferred[bool]:
        """
        Tell a client of the events that it has missed, up to the newest entry.

        :return: fires with ``False`` if the stream does not reach back so far; fails with
            :exc:`~txrealtime.errors.BusError` if the connection ends before.
        """
        told: Deferred[bool] = Deferred()
        self._waiting.append((client, told))
        if not self._isReading:
            self._isReading = True
            Deferred.fromCoroutine(self._readAll(command))
        return told

    async def _readAll(self, command: Command) -> None:
        while self._waiting:
            # Clients may have gone while they waited: then their Deferreds are cancelled.
            turn = [(client, told) for client, told in self._waiting if not told.called]
            self._waiting = []
            if not turn:
                break
            try:
                state = await self._turn(command, turn)
            except Exception:
                failure = Failure()
                for _, told in turn:
                    told.errback(failure)
            else:
                for client, told in turn:
                    told.callback(state.reaches(client.place))
        self._isReading = False

    async def _turn(self, command: Command, turn: _Turn) -> Info:
        clients = [client for client, _ in turn]
        paths = {client.path for client in clients}
        members: dict[tuple[str, str | None], list[Wanting]] = {}
        for client in clients:
            for room in (None, *client.rooms):
                members.setdefault((client.path, room), []).append(client)
        start = min(client.place for client in clients)
        last = (await self._state(command)).last
        while start < last:
            page = await command("XRANGE", self._stream, f"({_text(start)}", _text(last), "COUNT", str(_PAGE))
            for id, fields in page:
                event = self._read(id, fields, paths)
                if event is not None:
                    _tell(event, members)
            if len(page) < _PAGE or not any(client.isBounded and not told.called for client, told in turn):
                break
            start = idOf(page[-1][0])
        # Asked for last: the stream may be trimmed while it is read.
        return await self._state(command)

    async def _state(self, command: Command) -> Info:
        try:
            return infoOf(await command("XINFO", "STREAM", self._stream))
        except BusError as error:
            if "no such key" in str(error):
                return infoOf(error)
            raise


def _text(id: Id) -> str:
    return f"{id[0]}-{id[1]}"


def _tell(event: Found, members: Mapping[tuple[str, str | None], Sequence[Wanting]]) -> None:
    """Tell an event to the clients for which it may be."""
    path, rooms, _ = event.emit.target
    names = (None,) if rooms is None else rooms
    clients = [client for name in names for client in members.get((path, name), ())]
    for client in dict.fromkeys(clients):
        if event.id > client.place:
            client.found(event)
