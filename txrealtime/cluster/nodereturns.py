"""
Clients that come back from the streams of Node's servers, to this server from any other.

A client's session is a key of Redis, written by a server of Node or by
:class:`~txrealtime.cluster.nodesessions.NodeSessions`.  The events that the client has missed are read from
the stream, from the id of its last one on: :class:`~txrealtime.cluster.rereading.Rereading` reads for all
clients that come at the same time.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txrealtime.cluster.bus.entries import NodeEntries
from txrealtime.cluster.bus.places import Id, idOf
from txrealtime.cluster.dialects.nodestreams import NodeStreamsDialect
from txrealtime.cluster.dialects.nodevalues import readRooms, readText
from txrealtime.cluster.link.again import askedAgain, latest
from txrealtime.cluster.link.link import Link
from txrealtime.cluster.rereading import Found, Rereading
from txrealtime.engineio import packet as engineio
from txrealtime.errors import BusError, PacketError
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.eventlog import sizeOf
from txrealtime.socketio.msgpack import unpacked
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.refusals import REASONS, logRefusal
from txrealtime.socketio.settings import Settings
from txrealtime.socketio.streamed import StreamedRecovery
from txrealtime.socketio.tickets import Ticket

__all__ = ["NodeReturns", "Session", "readSession"]

_log = Logger()

_PATIENCE: Final = 3.0
"""Seconds that a client waits for this server to have read as far as the last one."""

_WAIT: Final = 0.02
"""Seconds between two looks."""

_TRIES: Final = 5
_TRY: Final = 0.1
"""Looks for a key, and seconds between two: Node's servers write it once they know of the cut."""

_MOST_ROOMS: Final = 10_000

_OFFSET: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")

_TAKE: Final = """
if tonumber(redis.call("TIME")[1]) > tonumber(ARGV[2]) then return 0 end
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
redis.call("DEL", KEYS[1])
return 1
"""
"""Deletes a key if it is as it was read, and not too late: only one server gets 1."""


_Encode = Callable[[StreamedRecovery, Found], list[engineio.Packet]]


class Session(NamedTuple):
    """A session as a key has it."""

    id: str
    rooms: frozenset[str]
    data: dict[str, Any]
    offset: str | None
    address: str | None


class _Missed:
    """
    The events that one client has missed.

    :param place: the id of the client's last entry.
    :param end: the id of the last entry that this server had read when the client came.  Later events come to
        the client's arrival.
    :param encode: returns an event as clients get it.
    """

    def __init__(
        self, recovery: StreamedRecovery, rooms: frozenset[str], place: Id, end: Id, encode: _Encode
    ) -> None:
        self.path = recovery.namespace.path
        self.rooms = rooms
        self.place = place
        self.events: list[engineio.Packet] = []
        self._recovery = recovery
        self._end = end
        self._encode = encode
        self._left = recovery.parking.settings.maxBuffered

    def found(self, event: Found) -> None:
        """Called with each event for the client behind its place in the stream."""
        if event.id > self._end or not self.rooms.isdisjoint(event.emit.target.excluded):
            return
        messages = self._encode(self._recovery, event)
        self._left -= sizeOf(messages)
        if self.isBounded:
            self.events += messages
        else:
            self.events.clear()

    @property
    def isBounded(self) -> bool:
        """False if more has come than a client may have missed."""
        return self._left >= 0


class NodeReturns:
    """
    The clients that come to this server, whose sessions are in Redis.

    :param link: to a bus of Node's servers.
    """

    def __init__(
        self, link: Link, dialect: NodeStreamsDialect, settings: Settings, reactor: IReactorTime
    ) -> None:
        bus: Any = link.bus
        self._link = link
        self._entries: NodeEntries = bus.entries
        self._dialect = dialect
        self._settings = settings
        self._reactor = reactor
        self._window = str(round(settings.recoveryWindow * 1000))
        self._rereadings = {stream: Rereading(stream, self._eventOf) for stream in bus.entries.streams}
        # The event that was encoded last: it is told to all clients in a row.
        self._encoded: tuple[Found | None, list[engineio.Packet]] = None, []

    async def fetch(self, namespace: Namespace, claim: Claim, address: str) -> Ticket | None:
        """Fetch a client from Redis.  ``None`` if no server has left it there, or events are gone."""
        link, recovery = self._link, namespace._recovery
        if not isinstance(recovery, StreamedRecovery) or not claim.isSound:
            return None
        if not self._entries.isWhole(namespace.path):
            return None  # events of Node's servers are in a stream with ids of its own
        try:
            return await askedAgain(
                link, self._reactor, lambda: self._fetched(link, recovery, claim, address)
            )
        except BusError as error:
            _log.warn("a client cannot be fetched from Redis: {error}", error=error)
            return None

    async def _fetched(
        self, link: Link, recovery: StreamedRecovery, claim: Claim, address: str
    ) -> Ticket | None:
        key, path = f"{self._dialect.sessions}{claim.pid}", recovery.namespace.path
        value = await self._valueAt(link, key)
        session = None if value is None else readSession(value, claim.pid, path)
        if value is None or session is None:
            return None
        place = _startOf(session, claim)
        if place is None or (self._settings.recoveryAddress and session.address != address):
            return None  # the session stays: the client may come back with a better offset
        if not await self._hasRead(link, path, place):
            return None
        with recovery.arriving(session.rooms) as arrival:
            missed = _Missed(recovery, session.rooms, place, _placeOf(link, path), self._encode)
            if not await self._read(link, missed) or not await self._take(link, key, value):
                return None
            found = {
                "id": session.id,
                "rooms": sorted(session.rooms),
                "data": session.data,
                "address": address,
            }
            if not arrival.isWhole or not recovery.isFree(claim.pid, found):
                return None
            return recovery.take(claim.pid, found, [*missed.events, *arrival.events])

    async def _valueAt(self, link: Link, key: str) -> bytes | None:
        for turn in range(_TRIES):
            if turn:
                await deferLater(self._reactor, _TRY)
            value: bytes | None = await link.command("GET", key)
            if value is not None:
                return value
        return None

    async def _hasRead(self, link: Link, path: str, place: Id) -> bool:
        """Wait until this server has read an entry, which the server that the client left had read."""
        clock = self._reactor
        until = clock.seconds() + _PATIENCE
        while _placeOf(link, path) < place:
            if clock.seconds() > until:
                return False
            await deferLater(clock, _WAIT)
        return True

    async def _read(self, link: Link, missed: _Missed) -> bool:
        """Read the events from the stream that a client has missed.  ``False`` if they are not all there."""
        stream = self._entries.streamOf(missed.path)
        assert stream is not None
        if not await self._rereadings[stream].tell(link.command, missed):
            logRefusal(missed.path, REASONS["trimmed"])
        elif not missed.isBounded:
            logRefusal(missed.path, REASONS["size"])
        else:
            return True
        return False

    def _eventOf(self, id: bytes, fields: list[bytes], paths: Container[str]) -> Found | None:
        """Read an entry of the stream: an event for clients."""
        topic, entry = self._entries.read(id, fields) or (b"", b"")
        path = topic.decode("utf-8", "surrogateescape")
        if path in paths:
            with suppress(PacketError):
                emit = self._dialect.readEvent(path, entry)
                return None if emit is None else Found(idOf(id), emit)
        return None

    def _encode(self, recovery: StreamedRecovery, event: Found) -> list[engineio.Packet]:
        """Return an event as clients get it: nothing if they cannot be sent such an event."""
        if event is not self._encoded[0]:
            packet, messages = event.emit.packet, list[engineio.Packet]()
            assert packet is not None
            with suppress(TypeError, ValueError, RecursionError):
                messages = recovery.replayed(recovery.namespace._encode(packet), packet, event.emit.place)
            self._encoded = event, messages
        return self._encoded[1]

    async def _take(self, link: Link, key: str, value: bytes) -> bool:
        """Take a session, or leave it if the client goes meanwhile."""
        until = await latest(link)
        taken: Deferred[Any] = Deferred()

        def replied(result: Any) -> None:
            if not taken.called:
                taken.callback(result)
            elif result == 1:
                link.command("SET", key, value, "PX", self._window).addErrback(lambda failure: None)

        link.command("EVAL", _TAKE, "1", key, value, until).addBoth(replied)
        return bool(await taken == 1)


def _placeOf(link: Link, path: str) -> Id:
    """Return the id of the last entry that this server has read in a namespace's stream."""
    return idOf(link.placeOf(path).replace(".", "-").encode())


def _startOf(session: Session, claim: Claim) -> Id | None:
    """
    Return the id behind which the events are that a client has missed.

    JavaScript clients keep an offset that is older than their session.
    """
    offset, start = claim.offset, session.offset
    if offset is not None and not _OFFSET.fullmatch(offset):
        # A client that has had no event since it came from a server of another kind.
        offset = None
    places = [idOf(each.encode()) for each in (offset, start) if each is not None]
    return max(places, default=None)


def readSession(value: bytes, pid: str, path: str) -> Session | None:
    """Read the value of a key.  ``None`` if it is none of the client's for the namespace."""
    try:
        fields = unpacked(b64decode(value, validate=True))
        offset, address = fields.get("offset"), fields.get("address")
        rooms, data = readRooms(fields["rooms"]), fields["data"]
        if fields["pid"] != pid or fields.get("nsp", path) != path or len(rooms) > _MOST_ROOMS:
            return None
        if offset is not None and not (isinstance(offset, str) and _OFFSET.fullmatch(offset)):
            return None
        id = readText(fields["sid"])
    except (PacketError, ValueError, TypeError, LookupError, AttributeError):
        return None
    data = data if isinstance(data, dict) else {}
    return Session(id, frozenset((id, *rooms)), data, offset, address if isinstance(address, str) else None)
