"""
Sessions in Redis: clients come back to another server although theirs has died.

On a bus that keeps messages, with ``recoveryWindow`` above 0, each ticket is a key of Redis while it lives,
and for as long after as its client may be away: the id of the socket, its rooms and its ``data``.  A server
to which a client comes back asks the one that the client left, as on each bus; if that has died, it takes the
key, which only one server can, and reads the events that the client has missed from the stream.

The offset of a client's last event says what the client has: ``<epoch>.<place>-<number>``, all that other
servers have published up to a place in the stream, and its own server's events up to a number of its log.
For the latter each event in the stream has its number in its sender's log, and events for one client of a
server are in the stream too, on a topic that nobody else reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txrealtime.cluster.bus.interfaces import IKeepingBus
from txrealtime.cluster.conversation import Conversation
from txrealtime.cluster.dialects.messages import Emit
from txrealtime.cluster.dialects.native import UID_LENGTH
from txrealtime.cluster.dialects.nativereading import NativeReader
from txrealtime.cluster.dialects.numbers import Numbers
from txrealtime.cluster.joins import Joins
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.links import Links
from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import BusError, PacketError
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.recovery import Recovery
from txrealtime.socketio.tickets import Ticket

__all__ = ["Keeping"]

_log = Logger()

_LOOK: Final = 1.0
"""Seconds between two looks at the data of all sockets."""

_REFRESH: Final = 3
"""Times that a key is refreshed before it expires."""

_PAGE: Final = 500
"""Entries of the stream in one reply."""

_WAIT: Final = 0.02
_MOST_WAITS: Final = 100
"""Seconds, and how often, to wait for this server's own messages to go out."""

_HEAD: Final = len("txr1 ") + UID_LENGTH + 1
"""The place of the head in a message."""

_TAKE: Final = """
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[3])
return 1
"""
"""Replaces a key if it is as it was read: only one server gets 1."""

_WRITE: Final = """
local value = redis.call("GET", KEYS[1])
if value and string.sub(value, 1, 8) ~= ARGV[1] then return 0 end
if ARGV[2] == "" then redis.call("DEL", KEYS[1])
else redis.call("SET", KEYS[1], ARGV[1] .. " " .. ARGV[2], "PX", ARGV[3]) end
return 1
"""
"""Writes or deletes a key, unless another server has taken it."""


class Keeping:
    """
    The sessions of this server's clients in Redis.

    :ivar isOn: true on a bus that keeps messages, if clients may come back.
    """

    def __init__(self, conversation: Conversation, namespaces: Namespaces, joins: Joins) -> None:
        self._conversation = conversation
        self._namespaces = namespaces
        self._joins = joins
        self.isOn = False
        self._link: Link | None = None
        self._timer: IDelayedCall | None = None
        self._looks = 0
        # What Redis has, by pid.
        self._written: dict[str, str] = {}
        self._reader = NativeReader("", Numbers())

    def start(self, link: Link | Links) -> None:
        """Take a link that has not been started yet."""
        parking, dialect = self._namespaces.parking, self._conversation.dialect
        if (
            parking is None
            or isinstance(link, Links)
            or not IKeepingBus.providedBy(link.bus)
            or dialect.name != "native"
        ):
            return
        self._link, self.isOn = link, True
        parking.keeper = self
        link.watch(self._linkChanged)
        parking.store.place = lambda: link.place
        self._milliseconds = str(round(parking.store.age * 1000))
        self._refresh = max(1, int(parking.store.age / _REFRESH / _LOOK))
        self._timer = self._namespaces.reactor.callLater(_LOOK, self._look)

    def said(self) -> None:
        """Called when this server has emitted an event: its clients have it already."""

    def parked(self, ticket: Ticket) -> None:
        """Called in no case: a ticket is parked on its server."""

    def place(self, namespace: Namespace) -> str:
        return self._link.place if self._link is not None else ""

    def whenDelivered(self) -> Deferred[None]:
        return succeed(None)

    def onTheWay(self, namespace: Namespace) -> Sequence[Any]:
        return ()

    def _linkChanged(self, status: LinkStatus) -> None:
        if status is not LinkStatus.READY:
            self._written.clear()  # keys may expire meanwhile

    def stop(self) -> None:
        """Leave the keys in Redis: their clients may come back when a server has started again."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        parking = self._namespaces.parking
        if self._link is not None and parking is not None:
            parking.keeper = None
        self._link, self.isOn = None, False
        self._written.clear()

    # -- writing -----------------------------------------------------------------------

    def _key(self, pid: str) -> str:
        bus: Any = self._link.bus if self._link is not None else None
        return f"{bus.stream}:session:{pid}"

    def changed(self, ticket: Ticket) -> None:
        if ticket.admitted != float("inf"):
            written = self._write(ticket)
            if written is not None:
                self._joins.wait(written)

    def _write(self, ticket: Ticket) -> Deferred[None] | None:
        """Write a ticket, if it differs from what Redis has."""
        link, recovery = self._link, ticket.recovery
        if link is None or link.status is not LinkStatus.READY:
            return None  # all are written when the link is ready
        session = recovery.described(ticket)
        kept = {**session, "path": recovery.namespace.path}
        ticket.offset = ticket.offset or recovery.log.offset()
        kept["offset"] = ticket.offset
        try:
            text = json.dumps(kept)
        except (TypeError, ValueError):
            text = json.dumps({**kept, "data": _plain(session["data"])})
        if self._written.get(ticket.pid) == text:
            return None
        self._written[ticket.pid] = text
        return self._put(ticket, text)

    def _put(self, ticket: Ticket, text: str) -> Deferred[None]:
        """Write the key of a ticket, or delete it if the text is empty."""
        assert self._link is not None
        key, uid = self._key(ticket.pid), self._conversation.uid
        putting = self._link.command("EVAL", _WRITE, "1", key, uid, text, self._milliseconds)
        return putting.addCallbacks(self._wasPut, self._failed, (ticket,))

    def _wasPut(self, isOurs: int, ticket: Ticket) -> None:
        """Called with the reply to a key: another server may have taken it while this one hung."""
        recovery = ticket.recovery
        if isOurs or recovery.tickets.get(ticket.pid) is not ticket:
            return
        self._written.pop(ticket.pid, None)
        text = "{namespace}: a client has come back to another server"
        _log.limited("", LogLevel.info, text, namespace=recovery.namespace.path)
        if not ticket.isParked and ticket.socket is not None:
            ticket.socket.session.abort(CloseReason.TRANSPORT_CLOSE, "the client is on another server")
        if recovery.tickets.get(ticket.pid) is ticket:
            recovery.release(ticket)

    def _failed(self, failure: Failure) -> None:
        """Called when Redis refuses a key or is away: the next look writes all again."""
        self._written.clear()

    def ended(self, ticket: Ticket) -> None:
        if self._written.pop(ticket.pid, None) is not None and self._link is not None:
            self._put(ticket, "")

    def emitted(self, ticket: Ticket, messages: Sequence[engineio.Packet], packet: Packet) -> None:
        recovery = ticket.recovery
        peers = recovery.namespace._peers
        if peers is None or ticket.socket is None:
            return
        try:
            peers.emit(recovery.namespace.to(ticket.socket), packet, messages, False, recovery.log.top)
        except ValueError as error:
            _log.limited(
                "",
                LogLevel.warn,
                "an event for one client is not in Redis, and is lost if this server dies now: {error}",
                error=error,
            )

    def _look(self) -> None:
        """Write the tickets whose data have changed, and refresh all now and then."""
        self._timer = self._namespaces.reactor.callLater(_LOOK, self._look)
        self._looks += 1
        refreshes = self._looks % self._refresh == 0
        for namespace in self._namespaces:
            recovery = namespace._recovery
            for ticket in list(recovery.tickets.values()) if recovery is not None else ():
                if ticket.admitted == float("inf"):
                    continue
                if refreshes:
                    self._written.pop(ticket.pid, None)
                self._write(ticket)

    # -- reading -----------------------------------------------------------------------

    async def fetch(self, namespace: Namespace, claim: Claim, address: str) -> Ticket | None:
        """Fetch a client whose server has died.  ``None`` if Redis does not have it."""
        link, recovery = self._link, namespace._recovery
        if link is None or recovery is None or not claim.isSound:
            return None
        try:
            key, value = self._key(claim.pid), await link.command("GET", self._key(claim.pid))
            if value is None:
                return None
            owner, _, text = value.decode().partition(" ")
            session = json.loads(text)
            known = _placeOf(session["offset"] if claim.offset is None else claim.offset)
            start = _placeOf(session["offset"])
            if session["path"] != namespace.path or known is None or start is None or known[0] != start[0]:
                return None  # the session stays: the client may come back with a better offset
            if recovery.parking.settings.recoveryAddress and session["address"] != address:
                return None
            taken = f"{self._conversation.uid} {text}"
            if not await link.command("EVAL", _TAKE, "1", key, value.decode(), taken, self._milliseconds):
                return None
        except BusError as error:
            _log.warn("a client cannot be looked up in Redis: {error}", error=error)
            return None
        ticket = recovery.adopt(claim.pid, session)
        carried = None
        try:
            carried = await self._missed(link, recovery, ticket, owner, max(known, start))
        except BusError as error:
            _log.warn("the events of a client cannot be read from Redis: {error}", error=error)
        finally:
            recovery.arrived(ticket, carried)
        return recovery.tickets.get(claim.pid)

    async def _missed(
        self, link: Link, recovery: Recovery, ticket: Ticket, owner: str, known: tuple[str, Any, int]
    ) -> dict[str, Any] | None:
        """
        Read the events from the stream that a client has missed, up to those that this server hears itself.

        :return: ``None`` if the stream does not reach back so far, or there are too many.
        """
        _, place, number = known
        here, top = _idOf(link.place), recovery.log.top
        for _ in range(_MOST_WAITS):
            if not link.isWaiting:
                break
            await deferLater(self._namespaces.reactor, _WAIT)
        bus: Any = link.bus
        stream = bus.stream
        newest = await link.command("XREVRANGE", stream, "+", "-", "COUNT", "1")
        oldest = await link.command("XRANGE", stream, "-", "+", "COUNT", "1")
        if place != (0, 0) and (not oldest or _idOf(oldest[0][0].decode()) > place):
            return None
        end = newest[0][0].decode() if newest else "-"
        events: list[Any] = []
        size, at = 0, f"{place[0]}-{place[1]}"
        most = recovery.parking.settings.maxBuffered
        while True:
            page = await link.command("XRANGE", stream, f"({at}", end, "COUNT", str(_PAGE))
            for id, fields in page:
                emit = self._emitOf(fields, recovery.namespace.path)
                if emit is None:
                    continue
                sender, event = emit
                if sender == owner:
                    isMissed = event.logged > number
                elif sender == self._conversation.uid:
                    isMissed = event.logged <= top  # later ones are in this server's log
                else:
                    isMissed = _idOf(id.decode()) <= here
                if isMissed and _concerns(event, ticket.rooms):
                    messages = [message.data for message in event.messages or ()]
                    size += sum(len(message) for message in messages)
                    events.append(["-0", False, messages])
            if size > most:
                return None
            if len(page) < _PAGE:
                return {"events": events}
            at = page[-1][0].decode()

    def _emitOf(self, fields: list[bytes], path: str) -> tuple[str, Emit] | None:
        """Read an entry of the stream: an event for clients of a namespace."""
        if len(fields) < 4:
            return None
        with suppress(PacketError):
            message = self._reader.read("", fields[3]) if fields[3].startswith(b'["emit"', _HEAD) else None
            if isinstance(message, Emit) and message.target.path == path and not message.volatile:
                return fields[3][_HEAD - UID_LENGTH - 1 : _HEAD - 1].decode(), message
        return None


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out the values that JSON does not carry, such as bytes."""
    plain = {}
    for key, value in data.items():
        with suppress(TypeError, ValueError):
            json.dumps(value)
            plain[key] = value
    return plain


def _concerns(emit: Emit, rooms: frozenset[str]) -> bool:
    target = emit.target
    return (target.rooms is None or not rooms.isdisjoint(target.rooms)) and rooms.isdisjoint(target.excluded)


def _idOf(text: str) -> tuple[int, int]:
    milliseconds, _, number = text.replace(".", "-").partition("-")
    return int(milliseconds), int(number)


def _placeOf(offset: str) -> tuple[str, tuple[int, int], int] | None:
    """Read an offset: the epoch of a log, the place in the stream, and the number in the log."""
    head, _, number = offset.rpartition("-")
    epoch, _, place = head.partition(".")
    milliseconds, _, rest = place.partition(".")
    if not all(part.isascii() and part.isdecimal() for part in (number, milliseconds, rest)):
        return None
    return epoch, (int(milliseconds), int(rest)), int(number)
