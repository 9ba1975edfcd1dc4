"""
The counts of events, taken while metrics are read: nothing of this runs otherwise.

Each namespace gets a counting function in place of its own, so that counting costs no look-up where it is
off.  Names are bounded: an event without a handler counts as ``other``, and so does a namespace at a path
that a client chose.
"""

from __future__ import annotations

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
from txrealtime.speedups import accelerated

if TYPE_CHECKING:
    from txrealtime.socketio.sockets import Socket

__all__ = ["TIMED", "EventCounts", "Lag", "ServerCounts", "timed"]


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
        return self.number + self.pending

    def follow(self, result: Any, seconds: float) -> Any:
        """
        Count the time of a result that may have to be waited for.

        :param seconds: the time until now.
        :return: a result that is there, or a Deferred.
        """
        begun = perf_counter() - seconds
        if result.__class__ is CoroutineType:
            try:
                result = start(result)
            except BaseException:
                self.add(perf_counter() - begun)
                raise
        if isinstance(result, Deferred):
            self.pending += 1
            return result.addBoth(self._ended, begun)
        self.add(perf_counter() - begun)
        return result

    def _ended(self, result: Any, begun: float) -> Any:
        self.pending -= 1
        self.add(perf_counter() - begun)
        return result


@accelerated
def timed(function: Callable[..., Any], first: Any, others: list[Any], counts: EventCounts, /) -> Any:
    """
    Call a function, and count the time.

    :param first: its first argument.
    :param others: the others.
    :return: its result; or what :meth:`EventCounts.follow` returns for one that may have to be waited for.
    """
    begun = perf_counter()
    try:
        result = function(first, *others)
    except BaseException:
        counts.add(perf_counter() - begun)
        raise
    seconds = perf_counter() - begun
    if result is not None and result.__class__ not in PLAIN:
        return counts.follow(result, seconds)
    counts.add(seconds)
    return result


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


TIMED: Final[set[CodeType]] = set()
"""The code that calls handlers and counts them, for those who read stacks."""


def _timing(namespace: Namespace, find: Callable[[str], EventCounts]) -> Callable[..., Any]:
    """
    Make a function that dispatches an event, and counts it and its time.

    The function repeats lines of ``Dispatcher.dispatch``: with a call of it, an ack would cost 2 % more.
    """
    events, middleware, hooks = namespace._handlers.events, namespace._handlers.middleware, namespace._hooks
    dispatcher = namespace._dispatcher

    def take(socket: Socket, event: str, args: list[Any]) -> Any:
        if hooks.eventReceived is not None:
            hooks.eventReceived(socket, event, args)
        handler = events.get(event)
        counts: EventCounts = find(event) if handler is None else handler.counts or find(event)
        try:
            if middleware:
                result: Any = timed(dispatcher.proceed, 0, [Incoming(socket, event, args)], counts)
            elif handler is None or not handler.least <= len(args) + 1 <= handler.most:
                result = timed(dispatcher.handle, socket, [event, args], counts)
            else:
                result = timed(handler.function, socket, args, counts)
        except Exception:
            return dispatcher.failed(Failure(), socket, event)
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            result.addErrback(dispatcher.failed, socket, event)
        return result

    TIMED.add(take.__code__)
    return take


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
