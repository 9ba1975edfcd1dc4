"""
The statistics of a server for the admin UI: the event ``server_stats``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from heapq import nlargest
from typing import Any, Final

from txrealtime.engineio.counting import countBytes
from txrealtime.server import Server
from txrealtime.socketio.namespace import Namespace

__all__ = ["Stats"]

_MOST: Final = 1000
"""Namespaces that are told."""

_LONGEST: Final = 200
"""Characters of the path of one that is told."""


class Stats:
    """
    The statistics of a server, from its counts.

    The bytes and packets of sessions that open from now on are counted.

    :param time: the time of day, in seconds since 1970.
    """

    def __init__(self, server: Server, time: Callable[[], float]) -> None:
        self._server = server
        self._time = time
        self._begun = time()
        self._told: dict[tuple[str, str | None], int] = {}
        countBytes(server.engine)

    def take(self) -> dict[str, Any]:
        """Return the statistics; events are counted since the last call."""
        engine = self._server.engine
        return {
            "serverId": self._server.cluster.name,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "uptime": self._time() - self._begun,
            "clientsCount": len(engine.sessions),
            "pollingClientsCount": engine.counts.sessions["polling"],
            "aggregatedEvents": list(self._events()),
            "namespaces": [
                {"name": namespace.path, "socketsCount": len(namespace.sockets)}
                for namespace in self._shown()
            ],
        }

    def _shown(self) -> list[Namespace]:
        """Return the namespaces, or those with the most sockets: clients choose paths for a pattern."""
        shown = [each for each in self._server.namespaces if len(each.path) <= _LONGEST]
        if len(shown) > _MOST:
            shown = nlargest(_MOST, shown, key=lambda each: len(each.sockets))
        return shown

    def _events(self) -> Iterator[dict[str, Any]]:
        now = int(self._time()) * 1000
        for (kind, subKind), count in self._counts():
            more = count - self._told.get((kind, subKind), 0)
            if more:
                self._told[kind, subKind] = count
                event = {"timestamp": now, "type": kind, "count": more}
                yield event if subKind is None else {**event, "subType": subKind}

    def _counts(self) -> Iterator[tuple[tuple[str, str | None], int]]:
        """Yield the counts since the start, by the UI's type and subtype."""
        counts = self._server.engine.counts
        yield ("rawConnection", None), counts.opened.total()
        for reason, count in counts.closed.items():
            yield ("rawDisconnection", str(reason)), count
        yield ("packetsIn", None), counts.packetsReceived
        yield ("packetsOut", None), counts.packetsSent
        yield ("bytesIn", None), counts.receivedByPolling + counts.receivedByWebSocket
        yield ("bytesOut", None), counts.sentByPolling + counts.sentByWebSocket
