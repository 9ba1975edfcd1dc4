"""
Messages to a server that has died, or hangs, for clients that are here now.

The id of a client's socket begins with the uid of a server, and messages for the client go to that server's
topic until its lease is over.  A server that has fetched such a client from Redis hears the topic too, and
takes what is for the client alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txrealtime.cluster.dialects.messages import Disconnect, Emit, Join, Leave
from txrealtime.cluster.dialects.native import UID_LENGTH
from txrealtime.cluster.dialects.nativereading import NativeReader
from txrealtime.cluster.dialects.numbers import Numbers
from txrealtime.cluster.link.link import Link
from txrealtime.cluster.requests import Requests
from txrealtime.errors import PacketError
from txrealtime.socketio.tickets import Ticket

__all__ = ["Deputies"]


class Deputies:
    """
    The topics of servers for which this one is deputy, and the clients of each.

    :param uid: the uid of this server.
    :param topicOf: returns the topic of a server's own.
    """

    def __init__(self, uid: str, topicOf: Callable[[str], str], requests: Requests) -> None:
        self._topicOf = topicOf
        self._requests = requests
        self._numbers = Numbers()
        self._reader = NativeReader(uid, self._numbers)
        # The ids of sockets by the uid of their server.
        self._clients: dict[str, set[str]] = {}

    def takeOver(self, link: Link, ticket: Ticket, server: str) -> None:
        """
        Called when a client has come whose server does not reply: hear that server's topic.

        :param server: the uid of the server.
        """
        if ticket.id[:UID_LENGTH] != server:
            return  # the server of the id is another one, and passes messages on
        if server not in self._clients:
            self._clients[server] = set()
            link.subscribe(self._topicOf(server), self._received, late=self._received)
        self._clients[server].add(ticket.id)

    def ended(self, link: Link, ticket: Ticket) -> None:
        """Called when a client is no longer here."""
        server = ticket.id[:UID_LENGTH]
        if self._has(ticket.id):
            self._clients[server].remove(ticket.id)
            if not self._clients[server]:
                del self._clients[server]
                link.unsubscribe(self._topicOf(server))

    def clear(self) -> None:
        """Forget all: the link ends."""
        self._clients.clear()

    def _received(self, topic: str, data: bytes) -> None:
        try:
            message: Any = self._reader.read(topic, data)
        except PacketError:
            return  # the server for which it is counts it
        if not isinstance(message, Emit | Join | Leave | Disconnect):
            return
        rooms = message.target.rooms
        if rooms is None or len(rooms) != 1 or not self._has(rooms[0]):
            return
        if isinstance(message, Emit):
            self._requests.deliver(message, self._numbers.latest)
        else:
            self._requests.carryOut(message)

    def _has(self, id: str) -> bool:
        return id in self._clients.get(id[:UID_LENGTH], ())
