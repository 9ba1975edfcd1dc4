"""
The members of this server's audiences who are on peer servers: :class:`~txrealtime.socketio.peers.Peers`.

Namespaces and audiences call :class:`RemotePeers` after they have done the same for this server's own
sockets.  It turns an audience into a message of the cluster and never touches a socket itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from txrealtime.cluster.conversation import Conversation
from txrealtime.cluster.dialects.messages import Ask, Disconnect, Emit, Fetch, Join, Leave, Target
from txrealtime.cluster.handover import Handover
from txrealtime.cluster.histories import Histories
from txrealtime.cluster.joins import Joins
from txrealtime.cluster.keeping import Keeping
from txrealtime.cluster.questions import Question
from txrealtime.cluster.rosters import Rosters
from txrealtime.engineio import packet as engineio
from txrealtime.errors import BusError
from txrealtime.logs import Logger
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.clients import Claim
from txrealtime.socketio.eventlog import Mark
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.past import Told
from txrealtime.socketio.presence import Entry
from txrealtime.socketio.tickets import Ticket

if TYPE_CHECKING:
    from txrealtime.cluster.nodesessions import NodeSessions

__all__ = ["RemotePeers"]

_log = Logger()


class RemotePeers:
    """
    The peer servers, as this server's namespaces and audiences see them.

    :ivar keeping: the sessions of clients in the broker, if it keeps them.
    """

    def __init__(
        self,
        conversation: Conversation,
        namespaces: Namespaces,
        joins: Joins,
        handover: Handover,
        keeping: Keeping | NodeSessions,
    ) -> None:
        self._conversation = conversation
        self._joins = joins
        self._rosters = Rosters(conversation)
        self._handover = handover
        self.keeping = keeping
        self._histories = Histories(conversation, namespaces, handover)

    # -- audiences -------------------------------------------------------------------

    def emit(
        self,
        audience: Audience,
        packet: Packet,
        messages: Sequence[engineio.Packet],
        volatile: bool,
        logged: int = 0,
    ) -> Mark:
        target = _targetOf(audience)
        if target is None and logged and self.keeping.isOn and audience.rooms is not None:
            target = Target(audience.namespace.path, audience.rooms, audience.excluded)
        if target is None:
            return False
        conversation = self._conversation
        conversation.say(Emit(target, packet, messages, volatile, logged if self.keeping.isOn else 0))
        if self.keeping.isOn:
            self.keeping.said()
        numbers = conversation.dialect.numbers
        if numbers is None or numbers.latestSent is None or conversation.link is None:
            return False
        return [conversation.uid, *numbers.latestSent]

    def fetchClient(self, namespace: Namespace, claim: Claim, address: str) -> Deferred[Ticket | None]:
        return Deferred.fromCoroutine(self._fetched(namespace, claim, address))

    async def _fetched(self, namespace: Namespace, claim: Claim, address: str) -> Ticket | None:
        """Fetch a client from its owner, or if that has died, its session from Redis."""
        try:
            ticket = await self._handover.fetch(namespace, claim, address)
            return ticket or await self.keeping.fetch(namespace, claim, address)
        except CancelledError:
            raise  # the client has gone
        except Exception:
            _log.failure("a client that came back could not be fetched: a reply makes no sense")
            return None

    def call(
        self, audience: Audience, packet: Packet, answered: Callable[[Any], object], timeout: float
    ) -> Question:
        target = _targetOf(audience)
        if target is None:
            return Question.ofNobody()
        uid, to = self._conversation.uid, self._movedTo(target)
        return self._conversation.ask(
            lambda request: Ask(target, packet, uid, request, timeout, to), answered
        )

    def fetch(self, audience: Audience, timeout: float) -> Deferred[list[Person]]:
        target = _targetOf(audience)
        sockets: list[Person] = []
        if target is None:
            return succeed(sockets)
        uid, to = self._conversation.uid, self._movedTo(target)
        try:
            question = self._conversation.ask(
                lambda request: Fetch(target, uid, request, recipient=to), sockets.append
            )
        except BusError:
            return fail(Failure())
        return question.finished("fetch()", sockets, timeout, audience.namespace.reactor)

    def _movedTo(self, target: Target) -> str:
        """Return the uid of the peer server to which a client of this server has moved, if it is there."""
        to = self._handover.movedTo(target)
        return to if to in self._conversation.servers else ""

    def join(self, audience: Audience, rooms: Sequence[str]) -> None:
        target = _targetOf(audience)
        if target is not None:
            self._conversation.say(Join(target, tuple(rooms)))

    def leave(self, audience: Audience, rooms: Sequence[str]) -> None:
        target = _targetOf(audience)
        if target is not None:
            self._conversation.say(Leave(target, tuple(rooms)))

    def disconnect(self, audience: Audience, close: bool) -> None:
        target = _targetOf(audience)
        if target is not None:
            self._conversation.say(Disconnect(target, close))

    # -- topics ----------------------------------------------------------------------

    def mounted(self, namespace: Namespace) -> None:
        for topic in self._conversation.dialect.topicsOf(namespace.path):
            self._conversation.subscribe(topic)

    def unmounted(self, namespace: Namespace) -> None:
        for topic in self._conversation.dialect.topicsOf(namespace.path):
            self._conversation.unsubscribe(topic)
        self._rosters.unmounted(namespace)

    def roomChanged(self, namespace: Namespace, room: str, exists: bool) -> None:
        conversation = self._conversation
        topic = conversation.dialect.topicOf(namespace.path, room)
        if topic is None:
            return
        if not exists:
            conversation.unsubscribe(topic)
            return
        conversation.subscribe(topic)
        if conversation.link is not None:
            self._joins.subscribed(conversation.link, topic.name)

    def joined(self) -> None:
        self._joins.joined()

    def whenInForce(self) -> Deferred[None]:
        return self._joins.whenInForce()

    # -- history ---------------------------------------------------------------------

    def historyKept(self, namespace: Namespace) -> None:
        self._histories.kept(namespace)

    def recall(self, namespace: Namespace, room: str) -> Deferred[Told]:
        return self._histories.recall(namespace, room)

    # -- presence --------------------------------------------------------------------

    def presenceUsed(self, namespace: Namespace) -> None:
        self._rosters.used(namespace)

    def tracked(self, namespace: Namespace, entry: Entry) -> None:
        self._rosters.changed(namespace, entry, True)

    def untracked(self, namespace: Namespace, entry: Entry) -> None:
        self._rosters.changed(namespace, entry, False)

    def whenPresenceKnown(self, namespace: Namespace) -> Deferred[None]:
        return self._rosters.whenKnown(namespace)


def _targetOf(audience: Audience) -> Target | None:
    """Name an audience for peer servers.  ``None`` if the audience is one client of this server."""
    namespace, rooms = audience.namespace, audience.rooms
    if rooms is not None and len(rooms) == 1:
        recovery = namespace._recovery
        isAway = recovery is not None and recovery.absence.holds(rooms[0])
        if isAway or namespace.rooms.find(rooms[0]) is not None:
            return None
    return Target(namespace.path, rooms, audience.excluded)
