"""
The namespace of the admin UI: logins, and the tasks that the UI asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txrealtime.errors import BusError, LimitExceeded
from txrealtime.logs import Logger
from txrealtime.monitor.admin.logins import Logins
from txrealtime.server import Server
from txrealtime.socketio.audience import Audience
from txrealtime.socketio.namespace import Namespace
from txrealtime.socketio.sockets import Socket

__all__ = ["AdminNamespace"]

_log = Logger()


class AdminNamespace(Namespace):
    """
    The clients of the admin UI.

    :param server: the server that is shown.
    :param logins: the decision on who may come in.
    :param mayWrite: whether the UI may join, leave, disconnect and emit.
    :param arrives: called with a client that is about to be admitted, and returns a function to call after.
    :ivar until: the sockets, each with the time at which it has to log in again.
    """

    def __init__(
        self,
        server: Server,
        logins: Logins,
        mayWrite: bool,
        arrives: Callable[[Socket], Callable[[], object]],
    ) -> None:
        super().__init__()
        self._server = server
        self._logins = logins
        self._arrives = arrives
        self.until: dict[Socket, float] = {}
        if mayWrite:
            self.on("emit")(self._emit)
            self.on("join")(self._join)
            self.on("leave")(self._leave)
            self.on("_disconnect")(self._disconnect)

    @property
    def _recovery(self) -> None:
        """None: a UI that comes back is shown everything anew, so nothing is kept for it."""
        return None

    @_recovery.setter
    def _recovery(self, recovery: object) -> None:
        """Leave out the recovery that a server with ``recoveryWindow`` offers."""

    # -- coming and going ------------------------------------------------------------

    async def connected(self, socket: Socket, auth: Any) -> None:
        session, left = await self._logins.admit(socket.handshake.address, auth)
        self.until[socket] = self.reactor.seconds() + left
        socket.whenDisconnected().addBoth(lambda _: self.until.pop(socket, None))
        if session is not None:
            socket.emit("session", session)

    def _letIn(self, socket: Socket) -> None:
        admitted = self._arrives(socket)
        super()._letIn(socket)
        admitted()

    def dismissExpired(self) -> None:
        """Disconnect those who have to log in again."""
        now = self.reactor.seconds()
        for socket, until in list(self.until.items()):
            if until <= now:
                socket.disconnect()

    # -- tasks -------------------------------------------------------------------------

    def _audience(self, path: Any, filter: Any) -> Audience:
        """
        Choose the sockets of a task.

        :param filter: a room or the id of a socket; nothing for all.
        """
        if not isinstance(path, str) or not (filter is None or isinstance(filter, str)):
            raise TypeError("expected the path of a namespace, and a room or nothing")
        namespaces = self._server._namespaces
        namespace = namespaces.find(path)
        if namespace is None:
            # A namespace of peer servers, such as one made for a pattern: here nobody is in it.
            namespace = Namespace()
            namespace.path, namespace._home, namespace._peers = path, namespaces, namespaces.peers
        return namespace.to(filter) if filter else namespace.everyone

    def _do(self, socket: Socket, task: str, call: Callable[[], None]) -> None:
        """Carry out a task, and log it."""
        try:
            call()
        except (TypeError, ValueError, LimitExceeded, BusError) as error:
            _log.warn("admin: {socket} asked to {task}: {error}", socket=socket.label, task=task, error=error)
        else:
            _log.info("admin: {socket} asked to {task}", socket=socket.label, task=task)

    def _emit(self, socket: Socket, path: Any, filter: Any, event: Any, *args: Any) -> None:
        self._do(
            socket,
            f"emit {event!r:.100} in {path!r:.100}",
            lambda: self._audience(path, filter).emit(event, *args),
        )

    def _join(self, socket: Socket, path: Any, room: Any, filter: Any = None) -> None:
        self._do(
            socket,
            f"let {filter or 'all'!r:.100} in {path!r:.100} join {room!r:.100}",
            lambda: self._audience(path, filter).join(room),
        )

    def _leave(self, socket: Socket, path: Any, room: Any, filter: Any = None) -> None:
        self._do(
            socket,
            f"let {filter or 'all'!r:.100} in {path!r:.100} leave {room!r:.100}",
            lambda: self._audience(path, filter).leave(room),
        )

    def _disconnect(self, socket: Socket, path: Any, close: Any = False, filter: Any = None) -> None:
        self._do(
            socket,
            f"disconnect {filter or 'all'!r:.100} in {path!r:.100}",
            lambda: self._audience(path, filter).disconnect(close is True),
        )
