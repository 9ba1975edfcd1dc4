"""
The history of rooms on several servers: the questions of :mod:`txrealtime.socketio.history`.

Each server keeps the events of the rooms that it hears, and those that it has sent itself.  A server that
needs a room's history subscribes to the room first, and then asks all others.  So each event is in a reply,
or arrives from the bus, or both; an event in both is known by its sender's number on the topic.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txrealtime.cluster.conversation import Conversation
from txrealtime.cluster.dialects.interfaces import Dialect
from txrealtime.cluster.dialects.messages import Transfer
from txrealtime.cluster.handover import Handover
from txrealtime.engineio import packet as engineio
from txrealtime.errors import AckTimeout, BusError
from txrealtime.logs import Logger
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.past import Recalled, Told

__all__ = ["Histories", "cannotTellHistory"]

_log = Logger()

_PATIENCE: Final = 3.0
"""Seconds in which a peer server has to reply."""

_QUESTION: Final = "history"


class Histories:
    """The history of this server's rooms, among those of the peer servers."""

    def __init__(self, conversation: Conversation, namespaces: Namespaces, handover: Handover) -> None:
        self._conversation = conversation
        self._namespaces = namespaces
        self._handover = handover
        handover.answer(_QUESTION, self._asked)
        conversation.watch(self)

    def kept(self, namespace: Namespace) -> None:
        """
        Called when a namespace begins to keep history.

        :raises BusError: if the dialect has no form for the questions.
        """
        if self._conversation.dialect.numbers is None:
            raise BusError(cannotTellHistory(self._conversation.dialect))

    # -- asking --------------------------------------------------------------------------

    def recall(self, namespace: Namespace, room: str) -> Deferred[Told]:
        """See :meth:`txrealtime.socketio.peers.Peers.recall`."""
        if not self._conversation.isReady:
            return succeed(Told())
        listening = self._handover.listening(namespace, frozenset([room]))
        return listening.addCallback(lambda _: self._ask(namespace, room))

    def _ask(self, namespace: Namespace, room: str) -> Deferred[Told]:
        uid, clock = self._conversation.uid, self._namespaces.reactor
        # With the time of the arrival: some servers may take their time.
        pages: list[tuple[float, Any]] = []

        def collect(page: Any) -> None:
            pages.append((clock.seconds(), page))

        try:
            question = self._conversation.ask(
                lambda request: Transfer([_QUESTION, namespace.path, room], uid, request), collect
            )
        except (BusError, ValueError):
            _log.failure("{namespace}: no server can be asked for history", namespace=namespace.path)
            return succeed(Told())

        def failed(failure: Failure) -> bool:
            failure.trap(AckTimeout, BusError)
            _log.limited(
                namespace.path,
                LogLevel.warn,
                "{namespace}: the history of a room lacks what other servers know: {reason}",
                namespace=namespace.path,
                reason=str(failure.value),
            )
            return False

        asked = question.finished("history()", pages, _PATIENCE, clock)
        answered: Deferred[bool] = asked.addCallbacks(lambda _: True, failed)
        return answered.addCallback(lambda isAll: self._read(namespace, pages, isAll))

    def _read(self, namespace: Namespace, pages: list[tuple[float, Any]], isAll: bool) -> Told:
        """Read the replies.  An event in a form that no server would send is left out."""
        chains: list[list[Recalled]] = []
        floors = []
        now = self._namespaces.reactor.seconds()
        for time, page in pages:
            if not isinstance(page, dict):
                continue
            if isinstance(page.get("floor"), float | int):
                floors.append(now - time + page["floor"])
            chains.append([])
            for event in page.get("events", ()):
                try:
                    chains[-1].append(_recalled(event, now - time))
                except (TypeError, ValueError, AttributeError):
                    _log.limited(
                        namespace.path,
                        LogLevel.warn,
                        "{namespace}: an event of a peer server's history is none",
                        namespace=namespace.path,
                    )
        return Told(chains, min(floors, default=None), isAll)

    # -- replying ------------------------------------------------------------------------

    async def _asked(self, sender: str, path: Any, room: Any) -> dict[str, Any] | None:
        namespace = self._namespaces.find(path) if isinstance(path, str) else None
        history = None if namespace is None else namespace._history
        if history is None or not isinstance(room, str):
            return None
        told = history.told(room)
        events = [_written(event) for chain in told.chains for event in chain]
        return {"events": events, "floor": told.floor}

    # -- for the conversation --------------------------------------------------------------

    def _doubt(self) -> None:
        for namespace in self._namespaces:
            if namespace._history is not None:
                namespace._history.doubt()

    def met(self, uid: str) -> None:
        """Called when a peer server has announced itself for the first time: it may know more."""
        self._doubt()

    def lost(self, uid: str) -> None:
        """Called when a peer server has gone."""

    def linkChanged(self, isReady: bool) -> None:
        """Called when the link is ready, or is so no longer: events may be lost meanwhile."""
        self._doubt()

    def settled(self) -> None:
        """Called when the peer servers have had the time to announce themselves."""

    def announced(self) -> None:
        """Called when this server has announced itself."""


def cannotTellHistory(dialect: Dialect) -> str:
    """Return the text of the error for a dialect without history."""
    return (
        f"the dialect {dialect.name} cannot carry history, because its messages are not numbered: use the "
        "native dialect, or leave out keepHistory()"
    )


def _written(event: Recalled) -> list[Any]:
    """Write an event.  Its text is sent as bytes, which are not escaped again."""
    parts = [message.data for message in event.messages]
    isText = isinstance(parts[0], str)
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    return [list(event.key), event.age, encoded, isText, list(event.rooms), sorted(event.excluded)]


def _recalled(event: Any, ago: float) -> Recalled:
    key, age, parts, isText, rooms, excluded = event
    if not parts or not all(isinstance(part, bytes) for part in parts):
        raise TypeError("an event without bytes")
    texts = [key[0], key[1], *rooms, *excluded]
    if len(key) != 3 or not isinstance(key[2], int | str) or not all(isinstance(each, str) for each in texts):
        raise ValueError("an event with a wrong key or room")
    messages = [
        engineio.message(part.decode() if isText and not index else part) for index, part in enumerate(parts)
    ]
    return Recalled(tuple(key), ago + float(age), messages, tuple(rooms), frozenset(excluded))
