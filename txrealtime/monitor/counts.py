"""
The counts of events, taken while metrics are read: nothing of this runs otherwise.

Each namespace gets counting functions in place of two of its own, so that counting costs no look-up where it
is off.  Names are bounded: an event without a handler counts as ``other``, and so does a namespace at a path
that a client chose.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.counting import countBytes
from txrealtime.engineio.counts import BOUNDS, Histogram
from txrealtime.server import Server
from txrealtime.socketio.handler import PLAIN
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.packet import Packet, PacketType

__all__ = ["OTHER", "EventCounts", "Lag", "ServerCounts"]

OTHER: Final = "other"
"""The label of all names that clients choose."""

_EVENT: Final = PacketType.EVENT


class EventCounts(Histogram):
    """
    The counts of one event: the times from the call of its handler to the result, also of one that waits.

    :ivar errors: exceptions of handlers.
    :ivar pending: handlers that have not ended.
    """

    __slots__ = ("errors", "pending")

    def __init__(self) -> None:
        super().__init__()
        self.errors = 0
        self.pending = 0

    @property
    def received(self) -> int:
        """The events that came."""
        return self.count + self.pending


class ServerCounts:
    """
    The counts of a server's events and bytes, from now on.

    :param seconds: the clock of handlers.
    :ivar events: by the namespace's label and the event's.
    :ivar sent: events that this server's application has sent, each once for all its receivers, by label of
        the namespace.
    """

    def __init__(self, server: Server, seconds: Callable[[], float] = perf_counter) -> None:
        self.events: dict[tuple[str, str], EventCounts] = {}
        self.sent: dict[str, list[int]] = {}
        self._seconds = seconds
        countBytes(server.engine)
        server._namespaces.watchedBy(self._count)

    def _count(self, namespace: Namespace, made: bool) -> None:
        """Count the events of a namespace."""
        label = OTHER if made else namespace.path
        known: dict[str, EventCounts] = {}
        counts = self.events

        def find(event: str) -> EventCounts:
            """Find the counts of an event; of one without a handler, those of all such."""
            isHandled = event in namespace._eventsHandled()
            key = label, event if isHandled else OTHER
            found = counts.get(key)
            if found is None:
                found = counts[key] = EventCounts()
            if isHandled:
                known[event] = found
            return found

        failed = namespace._handlerFailed

        def handlerFailed(failure: Failure, socket: Any, event: str) -> Any:
            find(event).errors += 1
            return failed(failure, socket, event)

        replacements: Any = namespace
        replacements._handlerFailed = handlerFailed
        replacements._encode = _counting(namespace, self.sent.setdefault(label, [0]))
        replacements._dispatch = _timing(namespace._dispatch, known, find, self._seconds)


def _timing(
    dispatch: Callable[..., Any],
    known: dict[str, EventCounts],
    find: Callable[[str], EventCounts],
    seconds: Callable[[], float],
) -> Callable[..., Any]:
    """Make a function that dispatches an event and counts its time."""

    def timed(socket: Any, event: str, args: list[Any]) -> Any:
        begun = seconds()
        result = dispatch(socket, event, args)
        counts = known.get(event) or find(event)
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            counts.pending += 1
            return result.addBoth(_ended, counts, begun, seconds)
        # As counts.add(), without the call.
        spent = seconds() - begun
        counts.total += spent
        counts.buckets[bisect_left(BOUNDS, spent)] += 1
        return result

    return timed


def _counting(namespace: Namespace, sent: list[int]) -> Callable[[Packet], list[engineio.Packet]]:
    """Make a function that encodes a packet as the namespace does, and counts events."""
    encode = namespace._home.parser.encode
    make, kind = engineio.Packet, engineio.PacketType.MESSAGE

    def counted(packet: Packet) -> list[engineio.Packet]:
        if packet[0] is _EVENT:
            sent[0] += 1
        # As Namespace._encode, without the call.
        parts = encode(packet)
        if len(parts) == 1:
            return [make(kind, parts[0])]
        return [engineio.message(part) for part in parts]

    return counted


def _ended(result: Any, counts: EventCounts, begun: float, seconds: Callable[[], float]) -> Any:
    counts.pending -= 1
    counts.add(seconds() - begun)
    return result


class Lag:
    """
    The lateness of a timer: the time that an event waits for the reactor.

    :ivar seconds: the lateness of each turn.
    """

    PERIOD: Final = 0.25

    def __init__(self, reactor: Any) -> None:
        self.seconds = Histogram()
        self._reactor = reactor
        self._call: Any = None

    def start(self) -> None:
        """Begin."""
        self._call = self._reactor.callLater(self.PERIOD, self._turn, self._reactor.seconds() + self.PERIOD)

    def _turn(self, due: float) -> None:
        self.seconds.add(max(0.0, self._reactor.seconds() - due))
        self.start()

    def stop(self) -> None:
        """Leave no call behind."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
