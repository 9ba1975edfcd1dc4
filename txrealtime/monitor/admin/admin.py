"""
The server's side of Socket.IO's admin UI (npm ``@socket.io/admin-ui``): the namespace ``/admin``.

Each server tells the clients of all servers of itself, so the UI shows a cluster as one.  In production mode
that is a message every two seconds.  In development mode each event is told too, while a client of the UI
is connected to any server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

from txrealtime.errors import AckTimeout, BusError
from txrealtime.logs import Logger
from txrealtime.monitor.admin.logins import Logins
from txrealtime.monitor.admin.namespace import AdminNamespace
from txrealtime.monitor.admin.passwords import Passwords
from txrealtime.monitor.admin.snapshot import Snapshot
from txrealtime.monitor.admin.stats import Stats
from txrealtime.monitor.admin.verbose import Verbose
from txrealtime.monitor.admin.view import clientId
from txrealtime.server import Server
from txrealtime.socketio.packet import Packet, PacketType
from txrealtime.socketio.sockets import Socket

__all__ = ["PATH", "Admin"]

_log = Logger()

PATH: Final = "/admin"
"""The namespace by default."""

_PERIOD: Final = 2.0
"""Seconds between two statistics, as with Node."""

_WATCHED: Final = "txrealtime admin watched"
_SESSION: Final = "txrealtime admin session"
_FAILED: Final = "txrealtime admin failed"
_PATIENCE: Final = 1.0
"""Seconds in which peers tell of a login's session."""


class Admin:
    """
    The admin UI of a server.

    ::

        admin = Admin(server, Passwords.fromFile("admins"))
        admin.start()

    To be made in the reactor's thread, after the server's settings are set: sessions that open from then on
    count their bytes.

    :param passwords: the users; ``None`` lets everybody in who can reach the server.
    :param development: tell of each socket, room and event, with the values that applications send.
    :param write: let users of the UI join, leave, disconnect and emit.
    :param path: the namespace.
    :param inThread: calls a function in a thread, and returns a Deferred of its result.
    :param now: the time of day, in seconds since 1970.
    :raises ValueError: if the application has a namespace at the path.
    """

    def __init__(
        self,
        server: Server,
        passwords: Passwords | None,
        *,
        development: bool = False,
        write: bool = False,
        path: str = PATH,
        inThread: Callable[..., Deferred[Any]] = deferToThread,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._logins = Logins(passwords, server.reactor.seconds, inThread, self._askPeers, self._tellFailed)
        self._namespace = AdminNamespace(server, self._logins, write, self._arrives)
        server.mount(path, self._namespace)
        self._stats = Stats(server, now)
        self._features = (
            ["EMIT", "JOIN", "LEAVE", "DISCONNECT", "MJOIN", "MLEAVE", "MDISCONNECT"] if write else []
        )
        self._features += ["AGGREGATED_EVENTS", *(["ALL_EVENTS"] if development else [])]
        self._loop = LoopingCall(self._tick)
        self._loop.clock = server.reactor
        self._verbose: Verbose | None = None
        self._unwatch: Callable[[], None] | None = None
        self._watchedUntil = 0.0
        if passwords is None:
            _log.warn("the admin namespace {path} lets in everybody who can reach the server", path=path)
        server.cluster.on(_SESSION)(lambda digest: self._logins.sessions.left(str(digest)))
        server.cluster.on(_FAILED)(lambda network: self._logins.attempts.add(str(network)))
        if development:
            self._verbose = Verbose(server, self._namespace, self._publish, now)
            self._snapshot = Snapshot(server)
            server.cluster.on(_WATCHED)(self._peerWatched)
            server._namespaces.clientOf = _clientOf

    # -- life --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to tell."""
        self._loop.start(_PERIOD)

    def stop(self) -> None:
        """Tell nothing more."""
        if self._loop.running:
            self._loop.stop()
        self._endWatch()

    def _tick(self) -> None:
        try:
            self._namespace.dismissExpired()
            self._publish(["server_stats", self._stats.take()])
            if self._verbose is not None:
                self._lookForWatchers()
                if self._unwatch is not None:
                    self._verbose.tick()
        except Exception:
            _log.failure("the admin UI's statistics cannot be sent")

    def _publish(self, data: list[Any]) -> None:
        """Send an event to the clients of the UI on all servers."""
        namespace, cluster = self._namespace, self._server.cluster
        packet = Packet(PacketType.EVENT, namespace.path, data)
        if namespace._peers is not None and cluster.isReady:
            namespace.everyone._transmit(packet, namespace._encode(packet))
        elif namespace.sockets:
            # Nothing of this waits for a broker that is away.
            namespace.everyone._deliver(namespace._encode(packet))

    # -- watching while somebody looks ---------------------------------------------------

    def _lookForWatchers(self) -> None:
        """Watch while a client of the UI is connected here, or to a peer that has told so of late."""
        if self._namespace.sockets:
            self._announce()
            self._beginWatch()
        elif self._peersAreSilent or self._server.reactor.seconds() < self._watchedUntil:
            self._beginWatch()
        else:
            self._endWatch()

    @property
    def _peersAreSilent(self) -> bool:
        """True if there are peers that do not announce watchers: servers of other makes."""
        cluster = self._server.cluster
        return cluster.status != "alone" and not cluster.dialect.announces

    def _announce(self) -> None:
        self._tellPeers(_WATCHED)

    def _tellFailed(self, network: str) -> None:
        """Tell peers of a failed login."""
        self._tellPeers(_FAILED, network)

    def _tellPeers(self, event: str, *args: Any) -> None:
        """Tell the admins of peers, if they are of this make; nothing of this waits for a broker."""
        cluster = self._server.cluster
        if cluster.isReady and cluster.status != "alone" and not self._peersAreSilent:
            cluster.emit(event, *args)

    def _peerWatched(self) -> None:
        self._watchedUntil = self._server.reactor.seconds() + 3 * _PERIOD
        self._beginWatch()

    def _beginWatch(self) -> None:
        if self._verbose is not None and self._unwatch is None:
            self._verbose.begin()
            self._unwatch = self._server.watch(self._verbose)

    def _endWatch(self) -> None:
        unwatch, self._unwatch = self._unwatch, None
        if self._verbose is not None and unwatch is not None:
            unwatch()
            self._verbose.end()

    # -- clients of the UI -----------------------------------------------------------------

    def _arrives(self, socket: Socket) -> Callable[[], object]:
        """Called before a client of the UI is admitted: nothing may happen between this and its snapshot."""
        if self._verbose is not None:
            self._announce()
            self._beginWatch()

        def admitted() -> None:
            socket.emit("config", {"supportedFeatures": self._features})
            if self._verbose is not None:
                shown = Deferred.fromCoroutine(self._snapshot.show(socket))
                shown.addErrback(lambda failure: _log.failure("the sockets cannot be shown", failure))

        return admitted

    async def _askPeers(self, digest: str) -> float:
        """Return the seconds that a login's session has left by the account of peers."""
        cluster = self._server.cluster
        try:
            found = await cluster.call(_SESSION, digest, timeout=_PATIENCE)
        except AckTimeout as error:
            found = error.answers
        except BusError:
            found = []
        return max((float(left) for left in found if isinstance(left, int | float)), default=0.0)


def _clientOf(socket: Socket) -> dict[str, Any]:
    """Describe the client of a socket to the admin UI of Node's servers."""
    return {"clientId": clientId(socket.session), "transport": socket.transport}
