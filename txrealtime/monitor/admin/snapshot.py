"""
All sockets of all servers, for a client of the admin UI that has just come: the event ``all_sockets``.

Each ``all_sockets`` makes the UI forget the one before, so only the first pages of all servers are one, and
sockets of later pages are told as if they had connected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nsmallest
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txrealtime.errors import AckTimeout, BusError
from txrealtime.logs import Logger
from txrealtime.monitor.admin.verbose import described
from txrealtime.monitor.admin.view import describePerson, timestamp
from txrealtime.server import Server
from txrealtime.socketio.audience import Person
from txrealtime.socketio.sockets import Socket

__all__ = ["Snapshot"]

_log = Logger()

_PAGE: Final = 200
"""Sockets of a server in one message."""

_QUESTION: Final = "txrealtime admin sockets"
_TIMEOUT: Final = 3.0
_MOST_BUFFERED: Final = 1 << 19
"""Bytes that wait for a slow UI, above which it is sent no further page."""

_PAUSE: Final = 0.05
"""Seconds between pages: describing one takes some milliseconds."""

Page = dict[str, Any]


class Snapshot:
    """
    The sockets of a server and its peers.

    Peers of the native dialect are asked for descriptions, page by page; Node's servers for their sockets.

    :ivar describe: describes a socket of this server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        server.cluster.on(_QUESTION)(self._page)

    async def show(self, client: Socket) -> None:
        """Send all sockets to a client of the UI."""
        places: dict[str, str | None] = {}
        isFirst = True
        while client.connected:
            pages = [page for page in await self._pages(places) if isinstance(page, dict)]
            sockets = [socket for page in pages for socket in page.get("sockets", ())]
            if isFirst:
                sockets += await self._ofNode()
                client.emit("all_sockets", sockets)
                isFirst = False
            else:
                for socket in sockets:
                    client.emit("socket_connected", socket, _opened(socket))
            places.update({page["server"]: page["next"] for page in pages})
            if not any(page["next"] for page in pages):
                return
            await self._room(client)

    async def _room(self, client: Socket) -> None:
        """Wait until a client has room for another page."""
        while True:
            await deferLater(self._server.reactor, _PAUSE)
            if client.buffered < _MOST_BUFFERED or not client.connected:
                return

    async def _pages(self, places: dict[str, str | None]) -> list[Any]:
        """Return the next page of each server, this one first."""
        pages = [self._page(places)]
        cluster = self._server.cluster
        if cluster.dialect.announces:
            pages += await _answers(lambda: cluster.call(_QUESTION, places, timeout=_TIMEOUT))
        return [page for page in pages if page is not None]

    def _page(self, places: Any) -> Page | None:
        """
        Return a page of this server's sockets.

        :param places: by server the last id of the page before, ``None`` after the last page.
        :return: ``None`` after the last page.
        """
        uid = self._server.cluster.uid
        last = places.get(uid, "") if isinstance(places, dict) else None
        if not isinstance(last, str):
            return None
        later = {
            socket.id: socket
            for namespace in self._server.namespaces
            for socket in namespace.sockets.values()
            if socket.id > last
        }
        ids = nsmallest(_PAGE, later)
        return {
            "server": uid,
            "sockets": [described(later[id]) for id in ids],
            "next": ids[-1] if len(later) > len(ids) else None,
        }

    async def _ofNode(self) -> list[dict[str, Any]]:
        """Return the sockets of servers that describe them as Node's do."""
        if self._server.cluster.dialect.name != "node":
            return []
        found = []
        for namespace in self._server.namespaces:
            people: Sequence[Person] = await _answers(lambda each=namespace: each.fetch(_TIMEOUT))  # type: ignore[misc]
            for person in people:
                shown = None if person.id in namespace.sockets else describePerson(namespace.path, person)
                if shown is not None:
                    found.append(shown)
        return found


async def _answers(ask: Callable[[], Deferred[Any]]) -> list[Any]:
    """Return the answers of those who answer in time."""
    try:
        return list(await ask())
    except AckTimeout as error:
        _log.info("admin: {error}", error=error)
        return list(error.answers)
    except BusError:
        return []


def _opened(socket: dict[str, Any]) -> str:
    """Return the time at which a socket's session has opened."""
    issued = socket["handshake"].get("issued")
    return timestamp(issued / 1000 if isinstance(issued, int) else 0.0)
