"""
The metrics of a server by name, and their values, read from its counts.

Reading costs nothing for each session: all sums are kept where things happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from txrealtime._version import __version__
from txrealtime.cluster.link.link import LinkStatus
from txrealtime.engineio.counts import Histogram
from txrealtime.engineio.interfaces import CloseReason
from txrealtime.monitor.counts import Lag, ServerCounts
from txrealtime.server import Server
from txrealtime.socketio.counts import OTHER

__all__ = [
    "COUNTER",
    "FAMILIES",
    "GAUGE",
    "HISTOGRAM",
    "Family",
    "Reader",
    "Value",
]

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"

Value = float | Histogram
Values = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """
    A metric.

    :ivar name: without ``txrealtime_``, and without the ``_total`` of a counter.
    :ivar kind: :data:`COUNTER`, :data:`GAUGE` or :data:`HISTOGRAM`.
    :ivar text: the help.
    :ivar labels: the names of the labels.
    :ivar isApart: true if a sum over several processes would be wrong: each has a label of its own.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    isApart: bool = False


FAMILIES: Final = {
    family.name: family
    for family in (
        Family("info", GAUGE, "1, with the version as a label", ("version",)),
        Family("sessions", GAUGE, "Engine.IO sessions", ("transport",)),
        Family("sessions_opened", COUNTER, "sessions opened", ("transport", "protocol")),
        Family("sessions_closed", COUNTER, "sessions closed", ("reason",)),
        Family("upgrades", COUNTER, "upgrades from polling to WebSocket", ("result",)),
        Family("handshakes_refused", COUNTER, "refused requests", ("reason",)),
        Family("bytes_received", COUNTER, "bytes of messages that came", ("transport",)),
        Family("bytes_sent", COUNTER, "bytes of messages sent", ("transport",)),
        Family("buffered_bytes", GAUGE, "bytes that wait for slow clients"),
        Family("slow_consumers", COUNTER, "sessions closed as slow consumers"),
        Family("reading_paused", COUNTER, "pauses of reading from a client", ("why",)),
        Family("ping_seconds", HISTOGRAM, "from the server's PING to the PONG"),
        Family("events_received", COUNTER, "events that came", ("namespace", "event")),
        Family("events_sent", COUNTER, "events sent, once for all receivers", ("namespace",)),
        Family("handler_errors", COUNTER, "exceptions of handlers", ("namespace", "event")),
        Family("handler_seconds", HISTOGRAM, "time of handlers, with their waits", ("namespace", "event")),
        Family("ack_timeouts", COUNTER, "acks that did not come in time"),
        Family("sockets", GAUGE, "sockets in a namespace", ("namespace",)),
        # A room with members in several processes would count several times.
        Family("rooms", GAUGE, "rooms, without the own ones of sockets", ("namespace",), isApart=True),
        Family("handlers_running", GAUGE, "handlers that run or wait"),
        Family("events_waiting", GAUGE, "events that wait for their handlers"),
        Family("acks_pending", GAUGE, "acks that the server waits for"),
        Family("flask_threads", GAUGE, "threads of handlers, and jobs that wait", ("state",)),
        Family("recoveries", COUNTER, "sessions that asked to come back", ("result",)),
        Family("handovers", COUNTER, "connections and requests handed to other workers", ("way",)),
        Family("bus_up", GAUGE, "1 while the link to peer servers is ready", isApart=True),
        Family("bus_link_up", GAUGE, "1 while the link to this broker is ready", ("bus",), isApart=True),
        Family("bus_link_published", COUNTER, "messages for this broker", ("bus",)),
        Family("bus_link_lost", COUNTER, "messages that were lost with this broker", ("bus",)),
        Family("servers_apart", GAUGE, "peer servers that spread topics over other brokers", isApart=True),
        Family("servers", GAUGE, "servers that are known, with this one", isApart=True),
        Family("bus_published", COUNTER, "messages for the peer servers", ("result",)),
        Family("bus_received", COUNTER, "messages of peer servers"),
        Family("bus_lost", COUNTER, "messages that were lost", ("why",)),
        Family("bus_outages", COUNTER, "times that the link went down"),
        # One blocked process among many would not be seen in the sum.
        Family("reactor_lag_seconds", HISTOGRAM, "lateness of a timer", isApart=True),
    )
}
"""All metrics by name, in the order of the page."""


class Reader:
    """
    The values of one server.

    :param handovers: returns the connections handed to other processes, by the way.
    """

    def __init__(
        self, server: Server, events: ServerCounts, lag: Lag, handovers: Callable[[], Mapping[str, int]]
    ) -> None:
        self._server = server
        self._events = events
        self._lag = lag
        self._handovers = handovers

    def read(self) -> Iterator[tuple[Family, Values]]:
        """Yield the metrics with their values, which go on counting.  Only for the reactor's thread."""
        values = {**self._ofSessions(), **self._ofEvents(), **self._ofSockets(), **self._ofTheBus()}
        for family in FAMILIES.values():
            yield family, values[family.name]

    def _ofSessions(self) -> dict[str, Values]:
        counts = self._server.engine.counts
        sessions = {**dict.fromkeys(self._server.settings.transports, 0), **counts.sessions}
        opened = {(name, str(version)): count for (name, version), count in counts.opened.items()}
        return {
            "info": {(__version__,): 1},
            "sessions": _labelled(sessions),
            "sessions_opened": opened,
            "sessions_closed": _labelled(counts.closed),
            "upgrades": _labelled({"completed": 0, "failed": 0, **counts.upgrades}),
            "handshakes_refused": _labelled(counts.refused),
            "bytes_received": _labelled(
                {"polling": counts.receivedByPolling, "websocket": counts.receivedByWebSocket}
            ),
            "bytes_sent": _labelled({"polling": counts.sentByPolling, "websocket": counts.sentByWebSocket}),
            "buffered_bytes": {(): counts.buffered},
            "slow_consumers": {(): counts.closed[CloseReason.SLOW_CONSUMER]},
            "reading_paused": _labelled({"backpressure": 0, "rate": 0, **counts.paused}),
            "ping_seconds": {(): counts.pings},
            "reactor_lag_seconds": {(): self._lag.seconds},
        }

    def _ofEvents(self) -> dict[str, Values]:
        events, talk = self._events.events, self._server._namespaces.counts
        return {
            "events_received": {key: counts.received for key, counts in events.items()},
            "events_sent": {(label,): sent.count for label, sent in talk.sent.items()},
            "handler_errors": {key: counts.errors for key, counts in events.items()},
            "handler_seconds": events,
            "handlers_running": {(): sum([counts.pending for counts in events.values()])},
            "events_waiting": {(): talk.eventsWaiting},
            "acks_pending": {(): talk.acksPending},
            "ack_timeouts": {(): talk.ackTimeouts},
            "recoveries": _labelled(talk.recoveries),
        }

    def _ofSockets(self) -> dict[str, Values]:
        sockets: Counter[tuple[str, ...]] = Counter()
        rooms: Counter[tuple[str, ...]] = Counter()
        namespaces = self._server._namespaces
        for namespace in namespaces:
            label = OTHER if namespaces.isMade(namespace) else namespace.path
            sockets[(label,)] += len(namespace.sockets)
            rooms[(label,)] += namespace.rooms.count
        threads = self._server.threads
        states = {"busy": 0, "idle": 0, "waiting": 0} if threads is None else threads.states
        return {
            "sockets": sockets,
            "rooms": rooms,
            "flask_threads": _labelled(states),
            "handovers": _labelled({"handoff": 0, "relay": 0, "tunnel": 0, **self._handovers()}),
        }

    def _ofTheBus(self) -> dict[str, Values]:
        cluster = self._server.cluster
        counts = None if cluster.link is None else cluster.link.counts
        lost = ("dropped", "unconfirmed", "refused", "oversized", "trimmed")
        return {
            "bus_up": {(): int(cluster.isReady)},
            "servers": {(): 1 + len(cluster.servers)},
            "servers_apart": {(): len(cluster.apart)},
            "bus_link_up": {(link.bus.name,): int(link.status is LinkStatus.READY) for link in cluster.links},
            "bus_link_published": {(link.bus.name,): link.counts.published for link in cluster.links},
            "bus_link_lost": {
                (link.bus.name,): sum([getattr(link.counts, name) for name in lost]) for link in cluster.links
            },
            "bus_published": {(name,): getattr(counts, name, 0) for name in ("published", "dropped")},
            "bus_received": {(): getattr(counts, "received", 0)},
            "bus_lost": {(name,): getattr(counts, name, 0) for name in lost} | {("missed",): cluster.missed},
            "bus_outages": {(): getattr(counts, "outages", 0)},
        }


def _labelled(counts: Mapping[str, int]) -> dict[tuple[str, ...], Value]:
    return {(str(name),): count for name, count in counts.items()}
