"""
The counts of events, taken while metrics are read: nothing of this runs otherwise.

Each namespace gets a counting function in place of its own, so that counting costs no look-up where it is
off.  Names are bounded: an event without a handler counts as ``other``, and so does a namespace at a path
that a client chose.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter
from types import CodeType, CoroutineType
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txrealtime.engineio.counting import countBytes
from txrealtime.engineio.counts import BOUNDS, Histogram
from txrealtime.server import Server
from txrealtime.socketio.counts import OTHER
from txrealtime.socketio.handler import PLAIN, start
from txrealtime.socketio.namespace import Incoming, Namespace

if TYPE_CHECKING:
    from txrealtime.socketio.sockets import Socket

__all__ = ["TIMED", "EventCounts", "Lag", "ServerCounts"]


class EventCounts(Histogram):
    """
    The counts of one event: the times from the call of its handler to the result, also of one that waits.

    :ivar errors: exceptions of handlers.
    :ivar pending: handlers that have not ended.
    """

    __slots__ = ("errors", "pending")

    def __init__(self) -> None:
        super().__init__(BOUNDS)
        self.errors = 0
        self.pending = 0

    @property
    def received(self) -> int:
        """The events that came."""
        return self.count + self.pending


class ServerCounts:
    """
    The counts of a server's events and bytes, from now on.

    :ivar events: by the namespace's label and the event's.
    """

    def __init__(self, server: Server) -> None:
        self.events: dict[tuple[str, str], EventCounts] = {}
        countBytes(server.engine)
        server._namespaces.watchedBy(self._count)

    def _count(self, namespace: Namespace, made: bool) -> None:
        """Count the events of a namespace."""
        label = OTHER if made else namespace.path
        counts = self.events

        def find(event: str) -> EventCounts:
            """Find the counts of an event; of one without a handler, those of all such."""
            key = label, event if event in namespace._eventsHandled() else OTHER
            found = counts.get(key)
            if found is None:
                found = counts[key] = EventCounts()
            handler = namespace._handlers.events.get(event)
            if handler is not None:
                handler.counts = found
            return found

        def erred(event: str) -> None:
            find(event).errors += 1

        for handler in namespace._handlers.events.values():
            handler.counts = None
        namespace._dispatcher.erred = erred
        replacements: Any = namespace
        replacements._take = _timing(namespace, find)


_SHORT: Final = BOUNDS[0]

TIMED: Final[set[CodeType]] = set()
"""The code that calls handlers and counts them, for those who read stacks."""


def _timing(namespace: Namespace, find: Callable[[str], EventCounts]) -> Callable[..., Any]:
    """
    Make a function that dispatches an event, and counts it and its time.

    The function repeats the lines of ``Dispatcher.dispatch`` and ``Dispatcher.handle``: the call that this
    saves pays for a reading of the clock, of which there are two.
    """
    events, middleware, hooks = namespace._handlers.events, namespace._handlers.middleware, namespace._hooks
    dispatcher = namespace._dispatcher

    def take(socket: Socket, event: str, args: list[Any]) -> Any:
        if hooks.eventReceived is not None:
            hooks.eventReceived(socket, event, args)
        handler = events.get(event)
        counts: EventCounts = find(event) if handler is None else handler.counts or find(event)
        begun = perf_counter()
        try:
            if middleware:
                result: Any = dispatcher.proceed(0, Incoming(socket, event, args))
            elif handler is None:
                result = dispatcher.handle(socket, event, args)
            else:
                given = len(args) + 1
                if not handler.least <= given <= handler.most:
                    handler.check(given)
                result = handler.function(socket, *args)
                if result.__class__ is CoroutineType:
                    result = start(result)
        except Exception:
            result = dispatcher.failed(Failure(), socket, event)
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            counts.pending += 1
            result.addErrback(dispatcher.failed, socket, event)
            return result.addBoth(_ended, counts, begun)
        seconds = perf_counter() - begun
        # As add(), without the call, and for most handlers without the search.
        counts.buckets[0 if seconds <= _SHORT else bisect_left(BOUNDS, seconds)] += 1
        counts.total += seconds
        return result

    TIMED.add(take.__code__)
    return take


def _ended(result: Any, counts: EventCounts, begun: float) -> Any:
    counts.pending -= 1
    counts.add(perf_counter() - begun)
    return result


class Lag:
    """
    The lateness of a timer: the time that an event waits for the reactor.

    :ivar seconds: the lateness of each turn.
    """

    PERIOD: Final = 0.25

    def __init__(self, reactor: Any) -> None:
        self.seconds = Histogram(BOUNDS)
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
