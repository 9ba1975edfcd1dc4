"""
Clients that come back from the streams of Node's servers, to this server from any other.

A client's session is a key of Redis, written by a server of Node or by
:class:`~txrealtime.cluster.nodesessions.NodeSessions`.  The events that the client has missed are read from
the stream, from the id of its last one on.
"""

from __future__ import annotations

import re
from base64 import b64decode
from contextlib import suppress
from typing import Any, Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txrealtime.cluster.bus.entries import NodeEntries
from txrealtime.cluster.bus.places import Id, idOf
from txrealtime.cluster.dialects.messages import Emit
from txrealtime.cluster.dialects.nodestreams import NodeStreamsDialect
from txrealtime.cluster.dialects.nodevalues import readRooms, readText
from txrealtime.cluster.link.link import Link
from txrealtime.engineio import packet as engineio
from txrealtime.errors import BusError, PacketError
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.eventlog import sizeOf
from txrealtime.socketio.msgpack import unpacked
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.settings import Settings
from txrealtime.socketio.streamed import StreamedRecovery, concerns
from txrealtime.socketio.tickets import Ticket

__all__ = ["NodeReturns", "Session", "readSession"]

_log = Logger()

_PAGE: Final = 500
"""Entries of the stream in one reply."""

_PATIENCE: Final = 3.0
"""Seconds that a client waits for the link, or for this server to have read as far as the last one."""

_WAIT: Final = 0.02
"""Seconds between two looks."""

_TRIES: Final = 5
_TRY: Final = 0.1
"""Looks for a key, and seconds between two: Node's servers write it once they know of the cut."""

_MOST_ROOMS: Final = 10_000

_OFFSET: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")

_TAKE: Final = """
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
redis.call("DEL", KEYS[1])
return 1
"""
"""Deletes a key if it is as it was read: only one server gets 1."""


class Session(NamedTuple):
    """A session as a key has it."""

    id: str
    rooms: frozenset[str]
    data: dict[str, Any]
    offset: str | None
    address: str | None


class NodeReturns:
    """
    The clients that come to this server, whose sessions are in Redis.

    :param link: to a bus of Node's servers.
    """

    def __init__(
        self, link: Link, dialect: NodeStreamsDialect, settings: Settings, reactor: IReactorTime
    ) -> None:
        self._link = link
        self._dialect = dialect
        self._settings = settings
        self._reactor = reactor
        self._window = str(round(settings.recoveryWindow * 1000))

    async def fetch(self, namespace: Namespace, claim: Claim, address: str) -> Ticket | None:
        """Fetch a client from Redis.  ``None`` if no server has left it there, or events are gone."""
        link, recovery = self._link, namespace._recovery
        if not isinstance(recovery, StreamedRecovery) or not claim.isSound:
            return None
        bus: Any = link.bus
        if isinstance(bus.entries, NodeEntries) and not bus.entries.isWhole(namespace.path):
            return None  # events of Node's servers are in a stream with ids of its own
        try:
            return await self._fetched(link, recovery, claim, address)
        except BusError as error:
            _log.warn("a client cannot be fetched from Redis: {error}", error=error)
            return None

    async def _fetched(
        self, link: Link, recovery: StreamedRecovery, claim: Claim, address: str
    ) -> Ticket | None:
        await link.whenReady().addTimeout(_PATIENCE, self._reactor).addErrback(_asBusError)
        key = f"{self._dialect.sessions}{claim.pid}"
        value = await self._valueAt(link, key)
        session = None if value is None else readSession(value, claim.pid, recovery.namespace.path)
        if value is None or session is None:
            return None
        place = _startOf(session, claim)
        if place is None or (self._settings.recoveryAddress and session.address != address):
            return None  # the session stays: the client may come back with a better offset
        if not await self._hasRead(link, recovery.namespace.path, place):
            return None
        with recovery.arriving(session.rooms) as arrival:
            events = await self._missed(link, recovery, session, place)
            if events is None or not await self._take(link, key, value):
                return None
            found = {
                "id": session.id,
                "rooms": sorted(session.rooms),
                "data": session.data,
                "address": address,
            }
            if not arrival.isWhole or not recovery.isFree(claim.pid, found):
                return None
            return recovery.take(claim.pid, found, [*events, *arrival.events])

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
        while idOf(link.placeOf(path).replace(".", "-").encode()) < place:
            if clock.seconds() > until:
                return False
            await deferLater(clock, _WAIT)
        return True

    async def _missed(
        self, link: Link, recovery: StreamedRecovery, session: Session, place: Id
    ) -> list[engineio.Packet] | None:
        """
        Read the events that a client has missed, up to those that this server reads from now on.

        :return: ``None`` if the stream does not reach back so far, or there are too many.
        """
        bus: Any = link.bus
        path = recovery.namespace.path
        stream, end = bus.streamOf(path), link.placeOf(path).replace(".", "-")
        events: list[engineio.Packet] = []
        left, at = self._settings.maxBuffered, f"{place[0]}-{place[1]}"
        while True:
            page = await link.command("XRANGE", stream, at, end, "COUNT", str(_PAGE))
            for id, fields in page:
                entry = bus.entries.read(id, fields)
                if idOf(id) == place or entry is None or entry[0] != path.encode():
                    continue
                with suppress(PacketError):
                    event = self._dialect.readEvent(path, entry[1])
                    if event is not None and concerns(
                        event.target.rooms, event.target.excluded, session.rooms
                    ):
                        messages = self._encoded(recovery, event)
                        left -= sizeOf(messages)
                        events += messages
            if left < 0:
                self._refused(path, "it missed more than maxBuffered (--max-buffered) allows")
                return None
            if len(page) < _PAGE:
                break
            milliseconds, number = idOf(page[-1][0])
            at = f"{milliseconds}-{number + 1}"
        # Asked for last: the stream may be trimmed while it is read.
        oldest = await link.command("XRANGE", stream, "-", "+", "COUNT", "1")
        if not oldest or idOf(oldest[0][0]) > place:
            self._refused(path, "the stream does not reach back so far: raise maxlen in the URL of the bus")
            return None
        return events

    @staticmethod
    def _encoded(recovery: StreamedRecovery, event: Emit) -> list[engineio.Packet]:
        packet = event.packet
        assert packet is not None
        try:
            return recovery.replayed(recovery.namespace._encode(packet), packet, event.place)
        except (TypeError, ValueError):
            raise PacketError("an event that clients cannot be sent") from None

    @staticmethod
    def _refused(path: str, why: str) -> None:
        _log.limited(
            why[:8],
            LogLevel.info,
            "{namespace}: a client came back and gets a fresh session: {why}",
            namespace=path,
            why=why,
        )

    async def _take(self, link: Link, key: str, value: bytes) -> bool:
        """Take a session, or leave it if the client goes meanwhile."""
        taken: Deferred[Any] = Deferred()

        def replied(result: Any) -> None:
            if not taken.called:
                taken.callback(result)
            elif result == 1:
                link.command("SET", key, value, "PX", self._window).addErrback(lambda failure: None)

        link.command("EVAL", _TAKE, "1", key, value).addBoth(replied)
        return bool(await taken == 1)


def _asBusError(failure: Failure) -> None:
    """Called when the link is not ready in time."""
    if failure.check(CancelledError):
        failure.raiseException()
    raise BusError("the link is not ready")


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
