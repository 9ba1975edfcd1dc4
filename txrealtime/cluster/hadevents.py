"""
Events that come late from the bus, and that some clients have already.

A server that is cut off from the bus goes on to speak to its own clients.  A client that then comes to
another server, which takes its session from Redis, has events that nobody else has yet: they wait at the
server that it left, and come when that one is back.  So a client's session says how many of a server's
events the client has, on each server to which the client goes from there.
"""

from __future__ import annotations

from collections.abc import Sequence

from txrealtime.socketio.tickets import Ticket

__all__ = ["HadEvents"]


class HadEvents:
    """The clients of this server that may have events before these come from the bus."""

    def __init__(self) -> None:
        # By the uid of the sender and the path of the namespace, by the id of the socket.
        self._tickets: dict[tuple[str, str], dict[str, Ticket]] = {}

    def came(self, ticket: Ticket) -> None:
        """Called when a client has come from another server."""
        for sender in ticket.had:
            key = sender, ticket.recovery.namespace.path
            self._tickets.setdefault(key, {})[ticket.id] = ticket

    def ended(self, ticket: Ticket) -> None:
        """Called when a client is no longer here."""
        for sender in ticket.had:
            self._remove((sender, ticket.recovery.namespace.path), ticket)

    def _remove(self, key: tuple[str, str], ticket: Ticket) -> None:
        tickets = self._tickets.get(key, {})
        if tickets.get(ticket.id) is ticket:
            del tickets[ticket.id]
            if not tickets:
                del self._tickets[key]

    def owners(self, sender: str, path: str, logged: int) -> Sequence[str]:
        """
        List the ids of the clients that have an event already.

        :param logged: the event's number in its sender's log of the namespace.
        """
        key = sender, path
        owners = []
        for id, ticket in list(self._tickets.get(key, {}).items()):
            if logged <= ticket.had[sender]:
                owners.append(id)
            else:
                # A sender's events come in order, so all others are new to this client.
                self._remove(key, ticket)
                del ticket.had[sender]
        return owners
