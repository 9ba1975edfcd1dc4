"""
Clients that come back to another server than the one they left.

The server that gets the CONNECT fetches the client from its owner, in three steps::

    claim     the owner parks the client, and replies with its id, rooms and data
              the fetching server subscribes to the rooms, and logs what comes from now on
    take      the owner replies with the events so far, and lets go
              the two logs become one: an event in both is known by its sender's number

So every event is in one of the logs at least, whatever is on its way meanwhile.  A server that stops hands
its parked clients to peer servers in the same order, by ``adopt`` and ``carry``.

The pid begins with the uid of the server that made it, which is asked first.  An owner that has let a client
go names the next one; if the owner has gone, all servers are asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults, succeed
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txrealtime.cluster import transfers
from txrealtime.cluster.conversation import Conversation
from txrealtime.cluster.dialects.messages import Reply, Target, Transfer
from txrealtime.cluster.dialects.native import UID_LENGTH
from txrealtime.cluster.hadevents import HadEvents
from txrealtime.errors import BusError, PacketError
from txrealtime.logs import Logger
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.missed import carry
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.recovery import Recovery
from txrealtime.socketio.tickets import Ticket

__all__ = ["Handover"]

_log = Logger()

_PATIENCE: Final = 3.0
"""Seconds in which a peer server has to reply."""

_MOST_MOVED: Final = 100_000
"""Clients that have moved to other servers and whose events are passed on."""

_BATCH: Final = 50
"""Clients in one message."""

_MOST_BYTES: Final = 500_000
"""The size of events in one message, roughly."""

_MOST_STEPS: Final = 3
"""Servers that are asked one after the other for a client."""


class Handover:
    """
    The clients that come from peer servers, and go to them.

    :ivar moved: the uids of the servers that have fetched clients, by pid and by socket's id.
    :ivar had: the events that clients from other servers have before they come from the bus.
    """

    def __init__(self, conversation: Conversation, namespaces: Namespaces) -> None:
        self._conversation = conversation
        self._namespaces = namespaces
        self.moved: OrderedDict[str, str] = OrderedDict()
        self.had = HadEvents()
        self._handlers: dict[str, Callable[..., Any]] = {
            "claim": self._claimed,
            "take": self._taken,
            "adopt": self._adopted,
            "carry": self._carried,
        }
        conversation.receive(Transfer, self.received)

    def movedTo(self, target: Target) -> str:
        """
        Find the server to which an audience's only client has moved from this one.

        :return: its uid; an empty text if this server knows of none.
        """
        moved, rooms = self.moved, target.rooms
        if not moved or rooms is None or len(rooms) != 1 or rooms[0] not in moved:
            return ""
        namespace = self._namespaces.find(target.path)
        if namespace is None or namespace.rooms.find(rooms[0]) is not None:
            return ""
        if namespace._recovery is not None and namespace._recovery.absence.holds(rooms[0]):
            return ""
        return moved[rooms[0]]

    def answer(self, what: str, handler: Callable[..., Any]) -> None:
        """Answer questions of one name by a coroutine function: ``handler(sender, *words)``."""
        self._handlers[what] = handler

    # -- asking --------------------------------------------------------------------------

    async def fetch(self, namespace: Namespace, claim: Claim, address: str) -> Ticket | None:
        """Fetch a client from its owner.  ``None`` if no server has it."""
        recovery = namespace._recovery
        owner = claim.pid[:UID_LENGTH]
        if recovery is None or not self._isNative or not await self._isReady():
            return None
        owner = self.moved.get(claim.pid, owner)
        words = [namespace.path, claim.pid, claim.offset, claim.isSound, address]
        for _ in range(_MOST_STEPS):
            # An owner that stops may hand the client to another server meanwhile.
            if await self._fetch(recovery, owner, words):
                break
            owner = ""
        return recovery.tickets.get(claim.pid)

    async def _isReady(self) -> bool:
        """Wait for the link, for a limited time: clients come to a server that has just started."""
        link = self._conversation.link
        if link is None:
            return False
        ready = link.whenReady().addTimeout(_PATIENCE, self._namespaces.reactor)
        await ready.addErrback(lambda failure: failure if failure.check(CancelledError) else None)
        if not link.status.carries:
            _log.limited(
                "",
                LogLevel.warn,
                "a client that came back gets a fresh session: no server can be asked for it, the link is "
                "{status}: {why}",
                status=link.status.value,
                why=link.reason,
            )
        return link.status.carries

    async def _fetch(self, recovery: Recovery, owner: str, words: list[Any]) -> bool:
        """Fetch a client.  ``False`` if another attempt may be better."""
        known, pid = self._conversation.servers, words[1]
        answer = None
        for _ in range(_MOST_STEPS):
            if owner not in known:
                break
            answer = await self._ask(owner, "claim", *words)
            if answer is None or "moved" not in answer:
                break
            owner = answer["moved"]
        if answer is None or "moved" in answer:
            # The owner has gone, or knows only a server where the client was once.
            answer = await self._ask("", "claim", *words)
        if answer is None or "id" not in answer or not recovery.isFree(pid, answer):
            return True
        ticket = self._adopt(recovery, pid, answer)
        taking = self._take(recovery, ticket, answer["owner"], words)
        # The client may go meanwhile: then it finds its ticket here the next time.
        waiter: Deferred[None] = Deferred()

        def taken(_: object) -> None:
            if not waiter.called:
                waiter.callback(None)

        taking.addCallback(taken)
        await waiter
        return recovery.tickets.get(pid) is ticket

    def _adopt(self, recovery: Recovery, pid: str, session: dict[str, Any]) -> Ticket:
        for key in (pid, session["id"]):
            self.moved.pop(key, None)
        ticket = recovery.adopt(pid, session)
        self.had.came(ticket)
        return ticket

    def _take(self, recovery: Recovery, ticket: Ticket, owner: str, words: list[Any]) -> Deferred[None]:
        def arrived(carried: Any) -> None:
            recovery.arrived(ticket, carried)

        def failed(failure: Failure) -> None:
            _log.failure("a client could not be fetched from its server", failure)
            recovery.arrived(ticket, None)

        listening = self.listening(recovery.namespace, ticket.rooms)
        taking = listening.addCallback(lambda _: self._ask(owner, "take", *words))
        return taking.addCallback(arrived).addErrback(failed)

    def listening(self, namespace: Namespace, rooms: frozenset[str]) -> Deferred[None]:
        """Wait until the subscriptions to rooms are confirmed, for a limited time."""
        link, dialect = self._conversation.link, self._conversation.dialect
        if link is None:
            return succeed(None)
        topics = [topic for room in rooms if (topic := dialect.topicOf(namespace.path, room)) is not None]
        topics += dialect.topicsOf(namespace.path)
        all: Deferred[Any] = DeferredList(
            [link.whenSubscribed(topic.name) for topic in topics], consumeErrors=True
        )
        return all.addTimeout(_PATIENCE, self._namespaces.reactor).addBoth(lambda _: None)

    def _ask(self, recipient: str, *data: Any) -> Deferred[Any]:
        """Ask one server or all, and return the first reply that is not ``None``, in its parts."""
        done: Deferred[Any] = Deferred()
        parts: list[Any] = []

        def collect(value: Any) -> None:
            if value is None or done.called:
                return
            try:
                part = transfers.reply(value)
            except PacketError:
                done.callback(None)
                raise
            if recipient or "moved" not in part:
                parts.append(part)
                if len(parts) == parts[0].get("parts"):
                    parts[0]["events"] = [event for part in parts for event in part["events"]]
                    done.callback(parts[0])

        def late(_: object, seconds: float) -> None:
            if not done.called:
                _log.limited(
                    "",
                    LogLevel.warn,
                    "{servers} did not reply within {seconds} s about a client that came back: is the "
                    "machine overloaded?",
                    servers=", ".join(question.silent),
                    seconds=seconds,
                )

        def ended(_: object) -> None:
            if not done.called:
                done.callback(None)

        uid = self._conversation.uid
        try:
            question = self._conversation.ask(
                lambda request: Transfer(list(data), uid, request, recipient), collect
            )
        except BusError as error:
            _log.limited("", LogLevel.warn, "a client that came back: {error}", error=error)
            return succeed(None)
        except (TypeError, ValueError):
            _log.failure("no server can be asked for a client that comes back")
            return succeed(None)
        clock = self._namespaces.reactor
        question.done.addTimeout(_PATIENCE, clock, onTimeoutCancel=late).addBoth(ended)
        return done

    @property
    def _isNative(self) -> bool:
        return self._conversation.link is not None and self._conversation.dialect.name == "native"

    # -- replying ------------------------------------------------------------------------

    def received(self, transfer: Transfer) -> None:
        """Called with a question of a peer server."""
        what, *words = transfer.data
        arguments, handler = transfers.question(what, words), self._handlers.get(what)
        if arguments is None or handler is None:
            self._reply(transfer, None)
            return
        asked = Deferred.fromCoroutine(handler(transfer.sender, *arguments))
        asked.addErrback(self._failed).addCallback(lambda answer: self._reply(transfer, answer))

    @staticmethod
    def _failed(failure: Failure) -> None:
        _log.failure("a peer server's question about a client that comes back failed", failure)

    def _reply(self, transfer: Transfer, answer: dict[str, Any] | None) -> None:
        pages = [None] if answer is None else _pages(answer)
        total: int | None = len(pages)
        for page in pages:
            self._conversation.say(Reply(transfer, transfer.request, self._conversation.uid, total, [page]))
            total = None

    def _recoveryOf(self, path: str) -> Recovery | None:
        namespace = self._namespaces.find(path)
        return None if namespace is None else namespace._recovery

    async def _claimed(self, sender: str, path: str, claim: Claim, address: str) -> dict[str, Any] | None:
        recovery = self._recoveryOf(path)
        if recovery is None:
            return None
        ticket = await recovery.findFor(claim, address)
        if ticket is not None:
            return {**recovery.described(ticket), "owner": self._conversation.uid}
        moved = self.moved.get(claim.pid)
        return None if moved is None else {"moved": moved}

    async def _taken(self, sender: str, path: str, claim: Claim, address: str) -> dict[str, Any] | None:
        recovery = self._recoveryOf(path)
        ticket = None if recovery is None else recovery.tickets.get(claim.pid)
        if recovery is None or ticket is None or not ticket.isParked or ticket.isArriving:
            return None
        carried = carry(recovery.log, ticket, claim)
        if carried is not None:
            self._release(recovery, ticket, sender)
        return carried

    def _release(self, recovery: Recovery, ticket: Ticket, to: str) -> None:
        for key in (ticket.pid, ticket.id):
            self.moved[key] = to
        while len(self.moved) > 2 * _MOST_MOVED:
            self.moved.popitem(last=False)
        recovery.release(ticket)

    async def _adopted(
        self, sender: str, path: str, tickets: list[tuple[str, dict[str, Any]]]
    ) -> dict[str, Any] | None:
        recovery = self._recoveryOf(path)
        if recovery is None or not recovery.parking.isStaying:
            return None
        adopted = [
            self._adopt(recovery, pid, session) for pid, session in tickets if recovery.isFree(pid, session)
        ]
        await gatherResults([self.listening(recovery.namespace, ticket.rooms) for ticket in adopted])
        return {"adopted": len(adopted)}

    async def _carried(
        self, sender: str, path: str, carried: list[tuple[str, dict[str, Any] | None]]
    ) -> dict[str, Any] | None:
        recovery = self._recoveryOf(path)
        if recovery is None:
            return None
        for pid, events in carried:
            ticket = recovery.tickets.get(pid)
            if ticket is not None and ticket.isArriving:
                recovery.arrived(ticket, events)
        return {"carried": len(carried)}

    # -- a planned stop --------------------------------------------------------------------

    async def handAll(self) -> None:
        """Hand all parked clients to peer servers."""
        peers = list(self._conversation.servers)
        if not peers or not self._isNative:
            return
        batches: list[tuple[Recovery, list[Ticket]]] = []
        for namespace in self._namespaces:
            recovery = namespace._recovery
            if recovery is not None:
                parked = [ticket for ticket in recovery.tickets.values() if ticket.isParked]
                batches += [(recovery, parked[at : at + _BATCH]) for at in range(0, len(parked), _BATCH)]
        await gatherResults(
            [
                Deferred.fromCoroutine(
                    self._hand(
                        recovery, tickets, [*peers[number % len(peers) :], *peers[: number % len(peers)]]
                    )
                )
                for number, (recovery, tickets) in enumerate(batches)
            ]
        )

    async def _hand(self, recovery: Recovery, tickets: Sequence[Ticket], peers: Sequence[str]) -> None:
        """Hand clients to the first peer server that takes them."""
        path = recovery.namespace.path
        for ticket in tickets:
            if ticket.isArriving:
                arrived: Deferred[None] = Deferred()
                ticket.waiting.append(arrived)
                await arrived.addTimeout(_PATIENCE, self._namespaces.reactor).addErrback(lambda late: None)
        sessions = [[ticket.pid, recovery.described(ticket)] for ticket in tickets]
        for peer in peers:
            if await self._ask(peer, "adopt", path, sessions) is not None:
                break
        else:
            return
        page: list[list[Any]] = []
        size = 0
        for ticket in tickets:
            here = recovery.tickets.get(ticket.pid) is ticket and ticket.isParked and not ticket.isArriving
            carried = carry(recovery.log, ticket, None) if here else None
            if here:
                self._release(recovery, ticket, peer)
            page.append([ticket.pid, carried])
            size += 0 if carried is None else _sizeOf(carried["events"])
            if size > _MOST_BYTES:
                await self._ask(peer, "carry", path, page)
                page, size = [], 0
        if page:
            await self._ask(peer, "carry", path, page)


def _sizeOf(events: Sequence[Any]) -> int:
    return sum(len(part) for event in events for part in event[2])


def _pages(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a reply with many events into parts, and tell their number in the first."""
    events = answer.pop("events", [])
    pages = [answer]
    answer["events"], size = [], 0
    for event in events:
        size += _sizeOf([event])
        if size > _MOST_BYTES and pages[-1]["events"]:
            pages.append({"events": []})
            size = 0
        pages[-1]["events"].append(event)
    answer["parts"] = len(pages)
    return pages
