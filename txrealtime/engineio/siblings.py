"""
The seam to other processes behind the same port.

A client that polls sends each request over any of its connections, and each connection may reach another
process.  An engine with :class:`Siblings` passes such a request to the process that has the session, and
puts into its own sids the mark by which the others find this process.  The mark stands behind the random
part, since logs show the beginning of a sid.
"""

from __future__ import annotations

from typing import Any, Protocol

from txrealtime.engineio.polling.request import HTTPRequest

__all__ = ["Siblings"]


class Siblings(Protocol):
    """
    The other processes behind the same port, as an engine sees them.

    :ivar mark: the 4 characters behind the random part of each sid that this process makes; they name the
        process, and are no secret.
    """

    mark: str

    def has(self, sid: str) -> bool:
        """Return whether a sid is that of another process, which lives; the session may have ended."""

    def serve(self, sid: str, request: HTTPRequest) -> bool:
        """
        Pass a request to the process that has its session.

        :return: ``False`` if the sid is of this process, or of none that lives; nothing was done then.
        """

    def open(self, request: HTTPRequest) -> bool:
        """
        Pass on a request that opens a session, while this process takes no new ones.

        :return: ``False`` if no other process takes new ones either; nothing was done then.
        """

    def webSockets(self, sid: str | None) -> Any:
        """
        Return a factory of protocols that carry a WebSocket to the process that has its session.

        :param sid: ``None`` for a WebSocket that opens a session, while this process takes no new ones.
        :return: ``None`` if the sid is of this process, or of none that lives; for a new session if no other
            process takes new ones either.
        """
