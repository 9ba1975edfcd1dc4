"""
The other workers, as a worker's engine sees them.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.polling.request import HTTPRequest
from txrealtime.engineio.tcp import QUEUE
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.marks import ownerOf
from txrealtime.workers.relay import Relay, RelayFactory
from txrealtime.workers.tunnel import CarriedFactory, Carriers

__all__ = ["WorkerSiblings"]


class WorkerSiblings(Service):
    """
    The other workers of this machine, found by the sockets that they have in one folder.

    A worker without a socket there does not live.  The supervisor removes the sockets of a worker that was
    killed, and a connection to such a socket fails at once.

    :param folder: the folder of all workers' sockets; only this user may enter it.
    :param fleet: the workers.
    :param engine: this worker's engine.
    :ivar mark: this worker's mark.
    :ivar relayed: requests passed to other workers.
    :ivar carried: WebSockets passed to other workers, byte for byte.
    :ivar carriers: those that are connected.
    """

    def __init__(self, reactor: Any, folder: str, fleet: Fleet, engine: Engine) -> None:
        self.mark = fleet.mark
        self._fleet = fleet
        self.relayed = 0
        self.carried = 0
        self.carriers: set[Protocol] = set()
        self.relays = RelayFactory(engine)
        self.tunnels = CarriedFactory(engine)
        self._reactor = reactor
        self._folder = folder
        self._engine = engine
        self._open: dict[str, Relay] = {}
        self._ports: list[IListeningPort] = []

    def startService(self) -> None:
        """Open this worker's sockets, and let the engine ask the others."""
        super().startService()  # type: ignore[no-untyped-call]
        for kind, factory in (("relay", self.relays), ("tunnel", self.tunnels)):
            # A burst of WebSockets is refused beyond the queue.
            path = self._pathOf(self.mark, kind)
            self._ports.append(self._reactor.listenUNIX(path, factory, QUEUE, 0o600))
        self._engine.siblings = self

    async def _close(self) -> None:
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        for connection in (*self._open.values(), *self.relays.connections):
            connection.end()

    def stopService(self) -> Deferred[None]:
        """Close this worker's sockets."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._close())

    def _pathOf(self, mark: str, kind: str) -> str:
        return os.path.join(self._folder, f"{mark}.{kind}")

    def _ownerOf(self, sid: str, kind: str) -> str | None:
        """Return the mark of the other worker that has a session, if that worker lives."""
        owner = ownerOf(sid)
        # A worker to which there is a connection lives: no call of the system for each request.
        if owner in self._open:
            return owner
        if owner is None or owner == self.mark or not os.path.exists(self._pathOf(owner, kind)):
            return None
        return owner

    # -- for the engine --------------------------------------------------------------

    def has(self, sid: str) -> bool:
        """See :class:`~txrealtime.engineio.siblings.Siblings`."""
        return self._ownerOf(sid, "relay") is not None

    def serve(self, sid: str, request: HTTPRequest) -> bool:
        """See :class:`~txrealtime.engineio.siblings.Siblings`."""
        owner = self._ownerOf(sid, "relay")
        if owner is None:
            return False
        self.relayed += 1
        self._relayTo(owner).serve(request)
        return True

    def open(self, request: HTTPRequest) -> bool:
        """See :class:`~txrealtime.engineio.siblings.Siblings`."""
        another = self._fleet.another()
        if another is None:
            return False
        self.relayed += 1
        self._relayTo(another).serve(request)
        return True

    def webSockets(self, sid: str | None) -> Carriers | None:
        """See :class:`~txrealtime.engineio.siblings.Siblings`."""
        owner = self._fleet.another() if sid is None else self._ownerOf(sid, "tunnel")
        if owner is None:
            return None
        self.carried += 1
        return Carriers(self._engine, partial(self._connect, owner, "tunnel"), self.carriers)

    @property
    def mustStay(self) -> bool:
        """True while this worker passes something on, or may have to: another one that stops has sessions."""
        passing = bool(self.carriers) or any(relay.waits for relay in self._open.values())
        return passing or self._fleet.othersLetGo

    def _connect(self, owner: str, kind: str, factory: Factory) -> Deferred[Any]:
        factory.noisy = False
        endpoint = UNIXClientEndpoint(self._reactor, self._pathOf(owner, kind))
        connecting: Deferred[Any] = endpoint.connect(factory)
        return connecting

    def _relayTo(self, owner: str) -> Relay:
        relay = self._open.get(owner)
        if relay is None:
            relay = made = Relay(
                self._reactor,
                self._engine.settings.maxPayload + 1,
                partial(self._relayLost, owner),
                self._engine.refuse,
            )
            self._open[owner] = relay
            connecting = self._connect(owner, "relay", Factory.forProtocol(lambda: made))
            connecting.addErrback(lambda failure: made.failed())
        return relay

    def _relayLost(self, owner: str, relay: Relay) -> None:
        if self._open.get(owner) is relay:
            del self._open[owner]
