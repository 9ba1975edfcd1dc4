"""
What the namespaces of this server do on the others: :class:`~txrealtime.socketio.peers.Peers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txrealtime.cluster.dialects.messages import Ask, Disconnect, Emit, Fetch, Join, Leave, Target
from txrealtime.cluster.questions import Question
from txrealtime.engineio import packet as engineio
from txrealtime.errors import BusError
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.packet import Packet

if TYPE_CHECKING:
    from txrealtime.cluster.cluster import Cluster

__all__ = ["Reach"]


class Reach:
    """See the module."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    # -- audiences -------------------------------------------------------------------

    def emit(
        self, audience: Audience, packet: Packet, messages: Sequence[engineio.Packet], volatile: bool
    ) -> None:
        target = _targetOf(audience)
        if target is not None:
            self._cluster.say(Emit(target, packet, messages, volatile))

    def call(
        self, audience: Audience, packet: Packet, answered: Callable[[Any], object], timeout: float
    ) -> Question:
        target = _targetOf(audience)
        if target is None:
            return Question.ofNobody()
        uid = self._cluster.uid
        return self._cluster.inquire(lambda request: Ask(target, packet, uid, request, timeout), answered)

    def fetch(self, audience: Audience, timeout: float) -> Deferred[list[Person]]:
        target = _targetOf(audience)
        people: list[Person] = []
        if target is None:
            return succeed(people)
        uid = self._cluster.uid
        try:
            question = self._cluster.inquire(lambda request: Fetch(target, uid, request), people.append)
        except BusError:
            return fail(Failure())
        return question.finished("fetch()", people, timeout, audience.namespace.reactor)

    def join(self, audience: Audience, rooms: Sequence[str]) -> None:
        target = _targetOf(audience)
        if target is not None:
            self._cluster.say(Join(target, tuple(rooms)))

    def leave(self, audience: Audience, rooms: Sequence[str]) -> None:
        target = _targetOf(audience)
        if target is not None:
            self._cluster.say(Leave(target, tuple(rooms)))

    def disconnect(self, audience: Audience, close: bool) -> None:
        target = _targetOf(audience)
        if target is not None:
            self._cluster.say(Disconnect(target, close))

    # -- topics ----------------------------------------------------------------------

    def mounted(self, namespace: Namespace) -> None:
        for topic in self._cluster.dialect.topicsOf(namespace.path):
            self._cluster.subscribe(topic)

    def unmounted(self, namespace: Namespace) -> None:
        for topic in self._cluster.dialect.topicsOf(namespace.path):
            self._cluster.unsubscribe(topic)

    def roomChanged(self, namespace: Namespace, room: str, exists: bool) -> None:
        topic = self._cluster.dialect.topicOf(namespace.path, room)
        if topic is not None:
            (self._cluster.subscribe if exists else self._cluster.unsubscribe)(topic)


def _targetOf(audience: Audience) -> Target | None:
    """An audience as others know it; ``None`` when it is one socket of this server's."""
    namespace, rooms = audience.namespace, audience.rooms
    if rooms is not None and len(rooms) == 1 and rooms[0] in namespace.sockets:
        return None
    return Target(namespace.path, rooms, audience.excluded)
