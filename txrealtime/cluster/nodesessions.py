"""
Sessions in Redis as Node's Streams adapter keeps them: clients come from Node's servers, and go to them.

A session is a key, ``sio:session:<pid>``, with MessagePack in base64: ``sid``, ``pid``, ``rooms`` and
``data``.  A server of Node writes it when a client has gone, and deletes it when the client comes.  This one
writes it from the admission on, and at each change of rooms, so that the client may come to another server
although this one was killed; its keys have the fields ``nsp``, ``offset`` and ``address`` more, which Node's
servers ignore.  Each write compares the key with the last one, so a client that has gone to another server is
noticed, and that server's key stays.

:class:`~txrealtime.cluster.nodereturns.NodeReturns` takes the clients that come, and
:class:`~txrealtime.socketio.streamed.StreamedRecovery` has the other half.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txrealtime.cluster.bus.interfaces import IKeepingBus
from txrealtime.cluster.conversation import Conversation
from txrealtime.cluster.dialects.messages import Emit
from txrealtime.cluster.dialects.nodestreams import NodeStreamsDialect
from txrealtime.cluster.dialects.ownevents import OwnEvents
from txrealtime.cluster.joins import Joins
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.links import Links
from txrealtime.cluster.nodereturns import NodeReturns
from txrealtime.cluster.requests import Requests
from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.msgpack import packed
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.tickets import Ticket

__all__ = ["NodeSessions"]

_log = Logger()

_LOOK: Final = 1.0
"""Seconds between two looks at the data of all sockets."""

_REFRESH: Final = 3
"""Times that a key is refreshed before it expires."""

_STUCK: Final = 5
"""Looks after which an event that has not come back is taken for lost: Redis has refused or trimmed it."""

_WRITE: Final = """
local value = redis.call("GET", KEYS[1])
if ARGV[1] ~= "" and value ~= ARGV[1] and (value or ARGV[4] == "") then return 0 end
if ARGV[2] == "" then redis.call("DEL", KEYS[1])
else redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[3]) end
return 1
"""
"""Writes or deletes a key, unless another server has taken it.  ``ARGV[4]`` lets a key be missing."""


class NodeSessions:
    """
    The sessions of clients in Redis, for this server and Node's.

    :ivar isOn: true if clients may come back.
    """

    def __init__(
        self, conversation: Conversation, namespaces: Namespaces, joins: Joins, requests: Requests
    ) -> None:
        self._conversation = conversation
        self._namespaces = namespaces
        self._joins = joins
        self._requests = requests
        self.isOn = False
        self._link: Link | None = None
        self._own = OwnEvents()
        self._timer: IDelayedCall | None = None
        self._looks = 0
        self._stuck = (0, 0)
        # What Redis has, by pid.
        self._written: dict[str, bytes] = {}
        # The pids of keys that may have expired in an outage; and the keys of clients that went in one.
        self._doubtful: set[str] = set()
        self._late: dict[str, bytes] = {}

    # -- life --------------------------------------------------------------------------

    def start(self, link: Link | Links) -> None:
        """Take a link that has not been started yet."""
        parking, dialect = self._namespaces.parking, self._conversation.dialect
        assert isinstance(dialect, NodeStreamsDialect)
        if parking is None or isinstance(link, Links) or not IKeepingBus.providedBy(link.bus):
            dialect.own = None
            return
        self._link, self.isOn, self._dialect, self._parking = link, True, dialect, parking
        self._own = dialect.own = OwnEvents()
        self._conversation.receive(Emit, self._emitCame)
        parking.keeper = self
        link.watch(self._linkChanged)
        self._trimmed, link.trimmed = link.trimmed, self._wasTrimmed
        self._window = str(round(parking.settings.recoveryWindow * 1000))
        self._returns = NodeReturns(link, dialect, parking.settings, self._namespaces.reactor)
        self._age = str(round(parking.store.age * 1000))
        self._refresh = max(1, int(parking.store.age / _REFRESH / _LOOK))
        self._timer = self._namespaces.reactor.callLater(_LOOK, self._look)

    def stop(self) -> None:
        """Leave the keys in Redis: their clients may come back to another server."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._parking.keeper = None
            self._own.clear()
            self._dialect.own = None
            self._conversation.receive(Emit, self._requests.emit)
        self._link, self.isOn = None, False
        self._written.clear()

    def _linkChanged(self, status: LinkStatus) -> None:
        if status is not LinkStatus.READY:
            self._doubtful.update(self._written)
            return
        late, self._late = self._late, {}
        for pid, value in late.items():
            self._put(pid, self._written.pop(pid, b""), value, self._window)

    def _wasTrimmed(self) -> None:
        """Called when Redis has thrown away entries unread: some may have been this server's own."""
        self._own.clear()
        self._trimmed()

    # -- events --------------------------------------------------------------------------

    def _emitCame(self, emit: Emit) -> None:
        self._requests.emit(emit)
        self._own.delivered()

    def said(self) -> None:
        """Called when this server has emitted an event: acks wait until its clients have it."""
        if self._link is not None and self._link.status is LinkStatus.READY:
            self._joins.wait(self._own.whenDelivered())

    def whenDelivered(self) -> Deferred[None]:
        link = self._link
        return succeed(None) if link is None else self._own.whenDelivered()

    def onTheWay(
        self, namespace: Namespace
    ) -> Iterator[tuple[tuple[str, ...] | None, frozenset[str], Sequence[engineio.Packet]]]:
        for emit in self._own:
            if emit.target.path == namespace.path:
                yield emit.target.rooms, emit.target.excluded, emit.messages or ()

    def place(self, namespace: Namespace) -> str:
        assert self._link is not None
        return self._link.placeOf(namespace.path).replace(".", "-")

    def emitted(self, ticket: Ticket, messages: Sequence[engineio.Packet], packet: Packet) -> None:
        """Called in no case: the events for one client are on the bus."""

    # -- writing -------------------------------------------------------------------------

    def offered(self, ticket: Ticket) -> None:
        ticket.offset = self.place(ticket.recovery.namespace)

    def changed(self, ticket: Ticket) -> None:
        if ticket.admitted != float("inf"):
            written = self._write(ticket)
            if written is not None:
                self._joins.wait(written)

    def _valueOf(self, ticket: Ticket) -> bytes:
        """Return the value of a ticket's key, without ``data`` that cannot be sent."""
        recovery = ticket.recovery
        ticket.offset = ticket.offset or self.place(recovery.namespace)
        described = recovery.described(ticket)
        session = {
            "sid": ticket.id,
            "pid": ticket.pid,
            "rooms": described["rooms"],
            "data": described["data"],
            "nsp": recovery.namespace.path,
            "offset": ticket.offset,
            "address": ticket.address,
        }
        return b64encode(packed(session))

    def _write(self, ticket: Ticket) -> Deferred[None] | None:
        """Write a ticket, if it differs from what Redis has."""
        link = self._link
        if link is None or link.status is not LinkStatus.READY:
            return None  # all are written when the link is ready
        value, last = self._valueOf(ticket), self._written.get(ticket.pid, b"")
        if value == last and ticket.pid not in self._doubtful:
            return None
        self._written[ticket.pid] = value
        putting = self._put(ticket.pid, last, value, self._age)
        return putting.addCallback(self._wasPut, ticket)

    def _put(self, pid: str, last: bytes, value: bytes, milliseconds: str) -> Deferred[Any]:
        """Write a key, or delete it if the value is empty, unless another server has taken it."""
        assert self._link is not None
        mayBeMissing = "1" if pid in self._doubtful else ""
        self._doubtful.discard(pid)
        key = f"{self._dialect.sessions}{pid}"
        putting = self._link.command("EVAL", _WRITE, "1", key, last, value, milliseconds, mayBeMissing)
        return putting.addErrback(self._failed, pid)

    def _failed(self, failure: Failure, pid: str) -> int:
        """Called when Redis refuses a key or is away: the next look writes it again."""
        self._doubtful.add(pid)
        return 1

    def _wasPut(self, isOurs: int, ticket: Ticket) -> None:
        """Called with the reply to a key: another server may have taken it while this one hung."""
        recovery = ticket.recovery
        if isOurs or recovery.tickets.get(ticket.pid) is not ticket:
            return
        self._written.pop(ticket.pid, None)
        text = "{namespace}: a client has come back to another server"
        _log.limited("", LogLevel.info, text, namespace=recovery.namespace.path)
        ticket.isElsewhere = True
        del recovery.tickets[ticket.pid]
        if ticket.socket is not None:
            ticket.socket.session.abort(CloseReason.TRANSPORT_CLOSE, "the client is on another server")

    def parked(self, ticket: Ticket) -> None:
        value, last = self._valueOf(ticket), self._written.pop(ticket.pid, b"")
        link = self._link
        if link is not None and link.status is LinkStatus.READY:
            self._put(ticket.pid, last, value, self._window)
            return
        self._written[ticket.pid] = last
        self._late[ticket.pid] = value
        if len(self._late) > self._parking.settings.recoverySessions:
            forgotten = next(iter(self._late))
            del self._late[forgotten]
            self._written.pop(forgotten, None)

    async def check(self, ticket: Ticket) -> None:
        """Do nothing: no ticket is parked, so no other server can have taken one."""

    def ended(self, ticket: Ticket) -> None:
        last = self._written.pop(ticket.pid, b"")
        if last and self._link is not None:
            self._put(ticket.pid, last, b"", self._window)
        self._doubtful.discard(ticket.pid)

    def _look(self) -> None:
        """Write the tickets whose data have changed, and refresh all now and then."""
        self._timer = self._namespaces.reactor.callLater(_LOOK, self._look)
        self._looks += 1
        self._checkStuck()
        refreshes = self._looks % self._refresh == 0
        for namespace in self._namespaces:
            recovery = namespace._recovery
            for ticket in list(recovery.tickets.values()) if recovery is not None else ():
                if ticket.admitted != float("inf"):
                    if refreshes and ticket.pid in self._written:
                        self._refreshed(ticket)
                    self._write(ticket)

    def _refreshed(self, ticket: Ticket) -> None:
        last = self._written[ticket.pid]
        if self._link is not None and self._link.status is LinkStatus.READY:
            self._put(ticket.pid, last, last, self._age).addCallback(self._wasPut, ticket)

    def _checkStuck(self) -> None:
        """Give up events that do not come back although the link is ready."""
        settled, since = self._stuck
        link = self._link
        if self._own.settled != settled or not any(True for _ in self._own):
            self._stuck = self._own.settled, self._looks
        elif link is None or link.status is not LinkStatus.READY or link.isWaiting:
            self._stuck = settled, self._looks
        elif self._looks - since >= _STUCK:
            self._own.clear()

    # -- reading -------------------------------------------------------------------------

    async def fetch(self, namespace: Namespace, claim: Claim, address: str) -> Ticket | None:
        """Fetch a client from Redis.  ``None`` if no server has left it there, or events are gone."""
        return await self._returns.fetch(namespace, claim, address) if self._link is not None else None
