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
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txrealtime.cluster.bus.interfaces import IKeepingBus
from txrealtime.cluster.bus.places import Id, idOf
from txrealtime.cluster.conversation import Conversation
from txrealtime.cluster.deputies import Deputies
from txrealtime.cluster.dialects.messages import Emit
from txrealtime.cluster.dialects.native import UID_LENGTH, NativeDialect
from txrealtime.cluster.dialects.nativereading import NativeReader
from txrealtime.cluster.dialects.numbers import Numbers
from txrealtime.cluster.joins import Joins
from txrealtime.cluster.link.again import askedAgain, latest
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.links import Links
from txrealtime.cluster.missedevents import Missed, startOf
from txrealtime.cluster.requests import Requests
from txrealtime.cluster.rereading import Found, Rereading
from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import BusError, PacketError
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.recovery import Recovery
from txrealtime.socketio.refusals import REASONS, logRefusal
from txrealtime.socketio.tickets import Ticket

__all__ = ["Keeping"]

_log = Logger()

_LOOK: Final = 1.0
"""Seconds between two looks at the data of all sockets."""

_REFRESH: Final = 3
"""Times that a key is refreshed before it expires."""

_WAIT: Final = 0.05
_MOST_WAITS: Final = 200
"""Seconds, and how often, to wait until this server has read as far as the one that died."""

_MOST_TAKES: Final = 3
"""How often a server tries to take a key that others take at the same time."""

_NOBODY: Final = "txrealtime-nobody"
"""A topic without subscribers."""

_HEAD: Final = len("txr1 ") + UID_LENGTH + 1
"""The place of the head in a message."""

_TAKE: Final = """
if tonumber(redis.call("TIME")[1]) > tonumber(ARGV[4]) then return 0 end
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[3])
return 1
"""
"""Replaces a key if it is as it was read, and not too late: only one server gets 1."""

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

    def __init__(
        self, conversation: Conversation, namespaces: Namespaces, joins: Joins, requests: Requests
    ) -> None:
        self._conversation = conversation
        self._requests = requests
        self._namespaces = namespaces
        self._joins = joins
        self.isOn = False
        self._link: Link | None = None
        self._timer: IDelayedCall | None = None
        self._looks = 0
        # What Redis has, by pid.
        self._written: dict[str, str] = {}
        self._numbers = Numbers()
        self._reader = NativeReader("", self._numbers)

    def start(self, link: Link | Links) -> None:
        """Take a link that has not been started yet."""
        parking, dialect = self._namespaces.parking, self._conversation.dialect
        if (
            parking is None
            or isinstance(link, Links)
            or not IKeepingBus.providedBy(link.bus)
            or not isinstance(dialect, NativeDialect)
        ):
            return
        bus: Any = link.bus
        self._rereading = Rereading(bus.stream, self._eventOf)
        self._deputies = Deputies(self._conversation.uid, dialect.topicOfServer, self._requests)
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
        if self._link is not None:
            self._deputies.clear()
        self._link, self.isOn = None, False
        self._written.clear()

    # -- writing -----------------------------------------------------------------------

    def _key(self, pid: str) -> str:
        bus: Any = self._link.bus if self._link is not None else None
        return f"{bus.stream}:session:{pid}"

    def offered(self, ticket: Ticket) -> None:
        ticket.offset = ticket.recovery.log.offset()

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
        kept = {
            **session,
            "path": recovery.namespace.path,
            "server": self._conversation.uid,
            "since": ticket.start,
        }
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

    async def check(self, ticket: Ticket) -> None:
        link = self._link
        if link is None or link.status is not LinkStatus.READY:
            return
        with suppress(BusError):
            value = await link.command("GET", self._key(ticket.pid))
            if value is not None and not value.startswith(self._conversation.uid.encode()):
                self._wasPut(0, ticket)

    def ended(self, ticket: Ticket) -> None:
        self._requests.handover.had.ended(ticket)
        if self._link is not None:
            self._deputies.ended(self._link, ticket)
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
        # The client may go meanwhile.  What is taken by then stays here, for the next server to take.
        waiter: Deferred[None] = Deferred()

        def fetched(_: object) -> None:
            if not waiter.called:
                waiter.callback(None)

        fetching = Deferred.fromCoroutine(
            self._fetched(link, recovery, claim, address, lambda: waiter.called)
        )
        fetching.addErrback(_notFetched).addCallback(fetched)
        await waiter
        return recovery.tickets.get(claim.pid)

    async def _fetched(
        self, link: Link, recovery: Recovery, claim: Claim, address: str, hasLeft: Callable[[], bool]
    ) -> None:
        clock = self._namespaces.reactor
        try:
            taken = await askedAgain(link, clock, lambda: self._take(link, recovery, claim, address, hasLeft))
        except BusError as error:
            _log.warn("a client cannot be looked up in Redis: {error}", error=error)
            return
        if taken is None or not recovery.isFree(claim.pid, taken):
            return
        start = startOf(taken, claim)
        assert start is not None
        taken["had"] = {**taken.get("had", {}), taken["server"]: start[1]}
        ticket = recovery.adopt(claim.pid, taken)
        self._requests.handover.had.came(ticket)
        carried = None
        try:
            self._deputies.takeOver(link, ticket, taken["server"])
            await self._requests.handover.listening(recovery.namespace, ticket.rooms)
            missed = Missed(self._conversation.uid, ticket, claim, taken, recovery.log.top)
            if await askedAgain(link, clock, lambda: self._read(link, missed)):
                carried = {"events": missed.upTo(_placeOf(link))}
        except BusError as error:
            _log.warn("the events of a client cannot be read from Redis: {error}", error=error)
        finally:
            recovery.arrived(ticket, carried)

    async def _take(
        self, link: Link, recovery: Recovery, claim: Claim, address: str, hasLeft: Callable[[], bool]
    ) -> dict[str, Any] | None:
        """
        Take the key of a client.

        :param hasLeft: tells if the client has gone: it may be on another server already.
        :return: the session, with its ``server``, whose offset it has.  ``None`` if there is no key, or the
            client may not come, or has left.
        """
        key = self._key(claim.pid)
        for _ in range(_MOST_TAKES):
            value = await link.command("GET", key)
            session = self._sessionOf(value, recovery, claim, address)
            if session is None:
                return None
            until = await latest(link)
            if hasLeft():
                return None
            taken = f"{self._conversation.uid} {json.dumps(session)}"
            if await link.command("EVAL", _TAKE, "1", key, value, taken, self._milliseconds, until):
                return session
            # Another server has taken it meanwhile, for a connection that the client has left.
        return None

    @staticmethod
    def _sessionOf(
        value: bytes | None, recovery: Recovery, claim: Claim, address: str
    ) -> dict[str, Any] | None:
        """Read the value of a key.  ``None`` if there is none, or the client may not come."""
        if value is None:
            return None
        owner, _, text = value.decode().partition(" ")
        session: dict[str, Any] = {"server": owner, **json.loads(text)}
        if session["path"] != recovery.namespace.path:
            return None
        if startOf(session, claim) is None:
            # The session stays: the client may come back with a better offset.
            why = "its offset is none, or it had a part of what it had missed when its server died"
            logRefusal(session["path"], why)
            return None
        if recovery.parking.settings.recoveryAddress and session["address"] != address:
            return None
        return session

    async def _read(self, link: Link, missed: Missed) -> bool:
        """Read the events from the stream that a client has missed.  ``False`` if they are not all there."""
        if link.isWaiting:
            # This server's own events from before the client came stand in the queue.
            published: Deferred[None] = Deferred()
            link.publish(_NOBODY, b"", published)
            await published
        missed.clear()
        path = missed.path
        if not await self._rereading.tell(link.command, missed):
            logRefusal(path, REASONS["trimmed"])
        elif not missed.isBounded:
            logRefusal(path, REASONS["size"])
        elif not await self._hasRead(link, missed.place):
            logRefusal(path, "this server is behind the one that died: is the machine overloaded?")
        else:
            return True
        return False

    async def _hasRead(self, link: Link, place: Id) -> bool:
        """Wait until this server has read the entries that the client has, or they would come twice."""
        for _ in range(_MOST_WAITS):
            if _placeOf(link) >= place:
                return True
            await deferLater(self._namespaces.reactor, _WAIT)
        return False

    def _eventOf(self, id: bytes, fields: list[bytes], paths: Container[str]) -> Found | None:
        """Read an entry of the stream: an event for clients."""
        if len(fields) < 4 or not fields[3].startswith(b'["emit"', _HEAD):
            return None
        with suppress(PacketError):
            topic = fields[1].decode("utf-8", "surrogatepass")
            message = self._reader.read(topic, fields[3])
            if isinstance(message, Emit) and not message.volatile:
                sender = fields[3][_HEAD - UID_LENGTH - 1 : _HEAD - 1].decode()
                return Found(idOf(id), message, topic, sender, self._numbers.latest)
        return None


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out the values that JSON does not carry, such as bytes."""
    plain = {}
    for key, value in data.items():
        with suppress(TypeError, ValueError):
            json.dumps(value)
            plain[key] = value
    return plain


def _placeOf(link: Link) -> Id:
    return idOf(link.place.replace(".", "-").encode())


def _notFetched(failure: Failure) -> None:
    """Called when a key makes no sense."""
    _log.failure("a client that came back could not be fetched from Redis", failure)
