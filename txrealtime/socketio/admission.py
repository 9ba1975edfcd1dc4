"""
Admission: a client's CONNECT to one namespace, until the client is let in or refused.

::

    CONNECT -> the namespace is found -> a client that comes back gets its socket -> the namespace is asked

Each step may take its time, and the client may leave meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.admission import isRefusal
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import ConnectionRejected
from txrealtime.logs import Logger
from txrealtime.socketio.clients import readClaim
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.revisions import Revision
from txrealtime.socketio.sockets import Socket

if TYPE_CHECKING:
    from txrealtime.socketio.connection import Connection
    from txrealtime.socketio.namespace import Namespace

__all__ = ["Admission"]

_log = Logger()


class Admission:
    """
    A CONNECT that is not decided yet.

    :param connection: the client's connection, which lets the client in or refuses it.
    :param namespaces: those of the server.
    :param pending: the client's admissions, by path; this one is removed when it is decided.
    :ivar asked: the Deferred of :meth:`decide`, once that waits for something.
    """

    __slots__ = ("_connection", "_namespaces", "_path", "_pending", "_returning", "asked")

    def __init__(
        self, connection: Connection, namespaces: Namespaces, pending: dict[str, Admission], path: str
    ) -> None:
        self._connection = connection
        self._namespaces = namespaces
        self._pending = pending
        self._path = path
        # The socket of a client that comes back.
        self._returning: Socket | None = None
        self.asked: Deferred[None] | None = None

    async def decide(self, revision: Revision, auth: Any) -> None:
        """Find the namespace, ask it, and let the client in or refuse it."""
        connection, namespaces, path = self._connection, self._namespaces, self._path
        claim, wanted = None, False
        if namespaces.parking is not None and not revision.joinsUnasked:
            auth, claim, wanted = readClaim(auth)
        namespace: Namespace | None = None
        socket: Socket | None = None
        missed: Sequence[engineio.Packet] = ()
        rejection: ConnectionRejected | None = None
        try:
            namespace = await namespaces.open(path, auth)
            handshake = Handshake(connection.session.handshake, auth)
            if claim is not None and namespace._recovery is not None:
                returned = await namespace._recovery.claim(claim, handshake)
                if returned is not None:
                    missed = returned.missed
                    socket = namespace._recovery.revive(returned.ticket, connection, handshake)
                    self._returning = socket
            if socket is None:
                id = revision.socketId(connection.session, path, namespaces.idPrefix)
                socket = Socket(namespace, connection, handshake, id)
                if namespace._recovery is not None and (wanted or self._isOffered(handshake)):
                    namespace._recovery.offer(socket)
            admitted = namespace._admit(socket)
            if isinstance(admitted, Deferred):
                admitted = await admitted
            if isRefusal(admitted) or socket._leftBecause is not None:
                rejection = ConnectionRejected()
        except ConnectionRejected as error:
            rejection = error
        except Exception:
            if self._pending.get(path) is self:
                _log.failure("{namespace}: admission failed; the client is refused", namespace=path)
            rejection = ConnectionRejected("Internal server error")
        # The client may have gone meanwhile, or left the namespace and asked for it again.
        stillWanted = self._pending.get(path) is self
        if stillWanted:
            del self._pending[path]
        elif self._returning is not None:
            return  # parked again
        if socket is not None:
            if rejection is None and stillWanted:
                connection.letIn(socket, missed)
                return
            socket.namespace._remove(socket, CloseReason.FORCED_CLOSE)
        if namespace is not None:
            namespaces.socketGone(namespace)
        if rejection is not None and stillWanted:
            connection.refuse(path, rejection)

    def _isOffered(self, handshake: Handshake) -> bool:
        """Return true if the client is offered recovery, by its handshake."""
        parking = self._namespaces.parking
        return parking is not None and parking.isOffered(handshake)

    def cancel(self) -> None:
        """Called when the client leaves before the decision."""
        if self._returning is not None:
            ticket = self._returning._ticket
            if ticket is not None:
                ticket.recovery.parkAgain(self._returning)
        if self.asked is not None:
            self.asked.cancel()
