"""
The lease: the fast path for polling requests on a site of another kind.

Connections there belong to ``twisted.web``, and every request that opens a session passes the resources
before the engine, such as authentication.  The later polling requests of a session carry its secret and may
take the fast path of :mod:`~txrealtime.engineio.http.fastpath`: the connection is borrowed after such a
request, and returned with the first request of any other kind.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import readQuery
from txrealtime.engineio.http.fastpath import EngineChannel
from txrealtime.engineio.tcp import currentProtocol, setProtocol
from txrealtime.foreign import report

__all__ = ["borrowAfter"]


def borrowAfter(request: Request, engine: Engine) -> None:
    """Borrow a request's connection after the response, if that is possible."""
    channel: Any = request.channel
    if isinstance(channel, HTTPChannel):
        path = request.uri.partition(b"?")[0]
        request.notifyFinish().addCallbacks(lambda _: _borrow(channel, path, engine), lambda failure: None)


def _borrow(channel: Any, path: bytes, engine: Engine) -> None:
    transport: Any = channel.transport
    if transport is None or channel.requests or not channel.persistent:
        return
    owner: Any = currentProtocol(transport)
    # By itself, twisted.web wraps the channel, for HTTP/2.
    if owner is not channel and getattr(owner, "_channel", None) is not channel:
        if type(owner).__module__ == HTTPChannel.__module__:
            report(owner, "_channel", without="polling requests are read by twisted.web alone")
        return  # another library has wrapped or replaced twisted.web's protocol
    borrowed = EngineChannel(_ForeignSite(engine, path, channel, owner), None)
    channel.setTimeout(None)
    setProtocol(transport, borrowed)
    borrowed.makeConnection(transport)  # type: ignore[no-untyped-call]
    rest = channel.clearLineBuffer()
    if rest:
        borrowed.dataReceived(rest)


class _ForeignSite:
    """The :class:`~txrealtime.engineio.http.fastpath.ChannelSite` of one borrowed connection."""

    endsConnections = False
    # The channel of twisted.web is still registered as the connection's producer.
    heedsTransport = True

    def __init__(self, engine: Engine, path: bytes, channel: Any, owner: IProtocol) -> None:
        self.engine = engine
        self.reactor = engine.reactor
        self.timeOut: float | None = channel.timeOut or None
        self.firstTimeOut = self.timeOut
        self._path = path
        self._channel = channel
        self._owner = owner

    def isForEngine(self, uri: bytes) -> bool:
        if uri.partition(b"?")[0] != self._path:
            return False
        query = readQuery(uri.decode("latin-1"))
        if query.get("transport") != "polling":
            return False
        sid, siblings = query.get("sid", ""), self.engine.siblings
        return sid in self.engine.sessions or (siblings is not None and siblings.has(sid))

    def giveWay(self, transport: Any, address: IAddress | None) -> IProtocol:
        setProtocol(transport, self._owner)
        self._channel.setTimeout(self.timeOut)
        return self._owner

    def connectionLost(self, reason: Failure) -> None:
        self._owner.connectionLost(reason)
