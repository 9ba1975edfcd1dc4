"""
The engine: a resource that opens sessions, finds them, and refuses the rest.

Each request names a transport and, once it has one, its session ("HTTP
long-polling", "WebSocket").  Refusals carry the protocol's JSON errors:

====  ============================  ======
code  message                       status
====  ============================  ======
0     Transport unknown             400
1     Session ID unknown            400
2     Bad handshake method          400
3     Bad request                   400; 413 for a body too large; 503 and 429 for clients too many
4     Forbidden                     403
5     Unsupported protocol version  400
====  ============================  ======
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR, NO_CONTENT, SERVICE_UNAVAILABLE
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from txrealtime.engineio.handshake import (
    OpeningRequest,
    allowsOrigin,
    checkOrigin,
    proxyFilter,
    readHandshake,
    readQuery,
)
from txrealtime.engineio.http.lease import borrowAfter
from txrealtime.engineio.limits import Tally, Throttle
from txrealtime.engineio.packet import Codec, EngineIO4
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.engineio.polling.jsonp import JSONPRequest
from txrealtime.engineio.polling.request import JSON, HTTPRequest, WebRequest
from txrealtime.engineio.polling.transport import PollingTransport
from txrealtime.engineio.session import CloseReason, IReceiver, ITransport, Session, State
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.timers import Timers
from txrealtime.engineio.websocket.autobahn import takeOver
from txrealtime.engineio.websocket.frames import refusal
from txrealtime.engineio.websocket.transport import WebSocketFactory, WebSocketTransport
from txrealtime.errors import ConnectionRejected, HandshakeError

__all__ = ["Engine"]

_log = Logger()

AllowRequest = Callable[[OpeningRequest], bool | Awaitable[bool | None] | None]

# 15 bytes from the system's CSPRNG: 120 bits, 20 characters.
_SID_BYTES: Final = 15

# RFC 6585, 4; twisted.web has no name for it.
_TOO_MANY_REQUESTS: Final = 429

_OLDEST_TIME: Final = re.compile(r"\d{13}-\d+", re.ASCII)


class _Drain:
    """Sessions that are closing because the engine is."""

    late: IDelayedCall

    def __init__(self, sessions: set[Session]) -> None:
        self.sessions = sessions
        self.done: Deferred[None] = Deferred()


@implementer(IResource)
class Engine:
    """
    An Engine.IO server, to be put into a ``twisted.web`` site as a child.

    :param receiver: called with each new :class:`Session`; gives the
        :class:`~txrealtime.engineio.session.IReceiver` that owns it.
    :param settings: see :class:`Settings`.
    :param reactor: the clock.
    :param allowRequest: called with each opening :class:`OpeningRequest`, before a session is
        made.  Returning ``False`` or raising :exc:`ConnectionRejected` refuses it (403); it
        may be ``async`` or return a Deferred.
    :ivar sessions: the sessions by sid, those included that still deliver what was left.
    :ivar reactor: the clock.
    :ivar webSockets: makes WebSockets for requests that :meth:`render` is not given.
    """

    isLeaf = True

    def __init__(
        self,
        receiver: Callable[[Session], IReceiver],
        settings: Settings | None = None,
        reactor: IReactorTime | None = None,
        allowRequest: AllowRequest | None = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor as installed

            reactor = IReactorTime(installed)
        self.settings = settings or Settings()
        self.sessions: dict[str, Session] = {}
        self._closed = False
        self._drains: list[_Drain] = []
        self._closing: set[WebSocketTransport] = set()
        self._receiver = receiver
        self.reactor = reactor
        # Fine enough that nobody could tell: 80 ms with the defaults, and never more, for what is not
        # a heartbeat is timed by it, too.
        tick = min(self.settings.pingInterval, self.settings.pingTimeout, 20) / 250
        self._timers = Timers(reactor, tick)
        self._allowRequest = allowRequest
        self._versions = (3, 4) if self.settings.allowEIO3 else (4,)
        self.trusts = proxyFilter(self.settings.trustedProxies)
        self._tally = Tally("sessions", self.settings.maxConnections, self.settings.maxConnectionsPerAddress)
        self.webSockets = self.webSocketFactory()

    def webSocketFactory(self) -> WebSocketFactory:
        """A factory for an endpoint that serves WebSocket alone, without ``twisted.web``."""
        return WebSocketFactory(self.settings, self.reactor, self)

    # -- requests ----------------------------------------------------------------

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """There are no children: an engine is a leaf."""
        raise RuntimeError("an Engine is a leaf resource")

    def putChild(self, path: bytes, child: IResource) -> None:
        """There are no children: an engine is a leaf."""
        raise RuntimeError("an Engine is a leaf resource: put the child beside it")

    def render(self, request: Request) -> int | bytes:
        """Serve a request that ``twisted.web`` has read."""
        if (request.getHeader(b"upgrade") or b"").lower() == b"websocket":
            return takeOver(request, self.webSockets)
        if self.settings.shortWays:
            borrowAfter(request, self)
        self.serve(WebRequest(request))
        return NOT_DONE_YET

    def serve(self, request: HTTPRequest) -> None:
        """Serve a request for long polling."""
        query = readQuery(request.url)
        sid = query.get("sid")
        try:
            if "j" in query:
                request = JSONPRequest(request, query["j"])
            if request.header("origin"):
                self._allowOrigin(request)
            if request.method == "OPTIONS":
                self._preflight(request)
            elif sid is None:
                handshake = self._read(request)
                Deferred.fromCoroutine(self._openPolling(request, handshake)).addErrback(
                    self._failed, request
                )
            else:
                self._servePolling(request, self._find(query, sid, "polling"))
        except Exception:
            self._failed(Failure(), request)

    def _servePolling(self, request: HTTPRequest, session: Session) -> None:
        transport = session.transport
        if not isinstance(transport, PollingTransport):
            raise HandshakeError(3, "Bad request: this session has moved to WebSocket")
        if request.method == "GET":
            transport.poll(request)
        elif request.method == "POST":
            transport.push(request)
        else:
            raise HandshakeError(3, f"Bad request: method {request.method}, expected GET or POST")

    def _failed(self, failure: Failure, request: HTTPRequest) -> None:
        error = failure.value
        if isinstance(error, HandshakeError):
            _log.info(
                "refused {address}: {status} {why}",
                address=self._read(request).address,
                status=error.status,
                why=error.message,  # "message" is a key of twisted.python.log
            )
            request.respond(error.status, refusal(error), JSON)
        else:
            _log.failure("a request failed", failure)
            request.respond(INTERNAL_SERVER_ERROR, b'{"code":3,"message":"Internal error"}', JSON)

    def _read(self, request: HTTPRequest) -> OpeningRequest:
        return self.readHandshake(request.headers(), request.url, request.peer, request.secure)

    def readHandshake(self, headers: Mapping[str, str], url: str, peer: str, secure: bool) -> OpeningRequest:
        """Read an opening request, with what a trusted proxy says in place of the proxy itself."""
        return readHandshake(headers, url, peer, secure, self.trusts)

    # -- sessions ----------------------------------------------------------------

    async def verify(self, handshake: OpeningRequest, transport: str, method: str) -> None:
        """
        Whether an opening request may go on.

        :raises HandshakeError: when it may not.
        """
        sid = handshake.query.get("sid")
        if sid is not None:
            self._find(handshake.query, sid, transport)
            if not self.settings.allowUpgrades:
                raise HandshakeError(3, "Bad request: sessions stay on polling (setting allowUpgrades)")
            checkOrigin(handshake, self.settings.origins)
            return
        self._checkTransport(handshake.query, transport)
        if method != "GET":
            raise HandshakeError(2, "Bad handshake method")
        self._checkVersion(handshake)
        checkOrigin(handshake, self.settings.origins)
        self._checkServing(handshake)
        await self._askApplication(handshake)
        self._checkServing(handshake)

    def _checkVersion(self, handshake: OpeningRequest) -> None:
        if handshake.protocol not in self._versions:
            asked = handshake.query.get("EIO", "3, or none named")
            spoken = " and ".join(map(str, self._versions))
            hint = "" if self.settings.allowEIO3 else "; 3 too with the setting allowEIO3 (--allow-eio3)"
            raise HandshakeError(
                5, f"Unsupported protocol version: EIO={asked[:20]}, this server speaks {spoken}{hint}"
            )

    def _checkServing(self, handshake: OpeningRequest) -> None:
        if self._closed:
            raise HandshakeError(3, "Bad request: the server is shutting down", SERVICE_UNAVAILABLE)
        if self._tally.isFull:
            raise HandshakeError(3, "Bad request: the server is full", SERVICE_UNAVAILABLE)
        if self._tally.isFullFor(handshake.address):
            raise HandshakeError(3, "Bad request: too many sessions of this address", _TOO_MANY_REQUESTS)

    async def _askApplication(self, handshake: OpeningRequest) -> None:
        if self._allowRequest is None:
            return
        try:
            allowed = self._allowRequest(handshake)
            if isinstance(allowed, Awaitable):
                allowed = await allowed
        except ConnectionRejected as rejection:
            raise HandshakeError(4, rejection.message) from None
        except HandshakeError:
            raise
        except Exception:
            _log.failure("allowRequest failed; the client is refused")
            raise HandshakeError(4, "Forbidden") from None
        if allowed is False:
            raise HandshakeError(4, "Forbidden")

    def _checkTransport(self, query: Mapping[str, str], transport: str) -> None:
        asked = query.get("transport")
        if asked not in self.settings.transports:
            raise HandshakeError(0, "Transport unknown")
        if asked != transport:
            raise HandshakeError(3, f"Bad request: transport={asked} came as {transport}")

    def _find(self, query: Mapping[str, str], sid: str, transport: str) -> Session:
        self._checkTransport(query, transport)
        session = self.sessions.get(sid)
        if session is None:
            raise HandshakeError(1, "Session ID unknown")
        version = query.get("EIO")
        if version is not None and version != str(session.codec.version):
            raise HandshakeError(3, "Bad request: the session was opened with another EIO")
        return session

    async def _openPolling(self, request: HTTPRequest, handshake: OpeningRequest) -> None:
        gone: list[bool] = []
        request.whenLost(lambda: gone.append(True))
        await self.verify(handshake, "polling", request.method)
        if gone:
            return
        transport = PollingTransport()
        session = transport.session = self._newSession(handshake, transport)
        if self.settings.cookie:
            secure = "; Secure" if handshake.secure else ""
            cookie = f"{self.settings.cookie}={session.sid}; Path=/; HttpOnly; SameSite=Lax{secure}"
            request.extra[b"Set-Cookie"] = cookie.encode("latin-1")
        self._start(session)
        if session.state is State.CLOSED:
            # Too much was sent to it at once; this is what its next request would hear.
            raise HandshakeError(1, "Session ID unknown")
        transport.poll(request)

    def webSocketOpened(self, transport: WebSocketTransport, handshake: OpeningRequest) -> None:
        """A WebSocket has opened: a new session, or one that moves here from polling."""
        sid = handshake.query.get("sid")
        if sid is None:
            session = self._newSession(handshake, transport)
            transport.serve(session, _wantsBase64(handshake))
            with contextlib.suppress(HandshakeError):  # it has been logged, and the session ended
                self._start(session)
            return
        found = self.sessions.get(sid)
        if found is None:
            transport.close(CloseReason.TRANSPORT_ERROR)
            return
        transport.serve(found, _wantsBase64(handshake))
        found.upgrade(transport)

    def webSocketClosing(self, transport: WebSocketTransport) -> None:
        """Called when a WebSocket takes and sends no more messages, but is still connected."""
        self._closing.add(transport)

    def webSocketLost(self, transport: WebSocketTransport) -> None:
        """Called when the connection of a WebSocket is lost."""
        self._closing.discard(transport)
        if self._drains and not self._closing:
            for drain in list(self._drains):
                self._checkDrained(drain)

    def _newSession(self, handshake: OpeningRequest, transport: ITransport) -> Session:
        sid = secrets.token_urlsafe(_SID_BYTES)
        session = Session(
            sid, handshake, _codecFor(handshake), transport, self.settings, self._timers, self._sessionEnded
        )
        self.sessions[sid] = session
        if self._tally.counts:
            self._tally.add(handshake.address)
        return session

    def openSession(self, handshake: OpeningRequest, transport: ITransport) -> Session:
        """A session on a transport of another kind, for a handshake that :meth:`verify` has let through."""
        session = self._newSession(handshake, transport)
        self._start(session)
        return session

    def _start(self, session: Session) -> None:
        settings = self.settings
        upgradable = settings.allowUpgrades and "websocket" in settings.transports
        session.greet(["websocket"] if upgradable and session.transport.name == "polling" else [])
        try:
            receiver = self._receiver(session)
        except Exception:
            _log.failure("session {session}: no receiver could be made", session=session.label)
            session.abort(CloseReason.FORCED_CLOSE)
            raise HandshakeError(3, "Internal error", INTERNAL_SERVER_ERROR) from None
        if settings.maxMessageRate or settings.maxByteRate:
            receiver = Throttle(session, receiver, settings, self._timers)
        session.receiver = receiver
        if session.closeReason is not None:  # it did not like what it saw
            receiver.sessionClosed(session.closeReason)

    # -- the end -------------------------------------------------------------------

    def reopen(self) -> None:
        """Take sessions again, after :meth:`drain`."""
        self._closed = False

    def drain(self, timeout: float) -> Deferred[None]:
        """
        Take no new sessions, and close those there are.

        Each gets what was sent to it, and is told with its transport's own goodbye.  A WebSocket stays until
        the client has closed it too: to a connection that is gone, data from the client is answered by a
        reset, which destroys what the client has not read yet.

        :param timeout: seconds after which those still left are dropped.
        :return: a Deferred that fires when none is left.
        """
        self._closed = True
        drain = _Drain(set(self.sessions.values()))
        drain.late = self.reactor.callLater(timeout, self._dropAll, drain)
        self._drains.append(drain)
        for session in list(drain.sessions):
            session.close(CloseReason.SHUTTING_DOWN)
        self._checkDrained(drain)
        return drain.done

    def _dropAll(self, drain: _Drain) -> None:
        late = len(drain.sessions) + len(self._closing)
        _log.info("{count} clients did not take their last messages in time", count=late)
        for session in list(drain.sessions):
            session.abort(CloseReason.SHUTTING_DOWN)
        for transport in self._closing:
            # Not a reset: what the kernel has may still arrive.
            transport.transport.loseConnection()
        self._closing.clear()
        self._checkDrained(drain)

    def _sessionEnded(self, session: Session) -> None:
        if self.sessions.pop(session.sid, None) is not None and self._tally.counts:
            self._tally.remove(session.handshake.address)
        for drain in list(self._drains):
            drain.sessions.discard(session)
            self._checkDrained(drain)

    def _checkDrained(self, drain: _Drain) -> None:
        if not drain.sessions and not self._closing and drain in self._drains:
            self._drains.remove(drain)
            if drain.late.active():
                drain.late.cancel()
            drain.done.callback(None)

    # -- origins -----------------------------------------------------------------

    def _allowOrigin(self, request: HTTPRequest) -> None:
        """Let a page of an allowed origin read the answer (Fetch standard, "CORS protocol")."""
        handshake = self._read(request)
        if not allowsOrigin(handshake, self.settings.origins):
            return
        if "*" in self.settings.origins:
            # Credentials must not go together with a wildcard.
            request.extra[b"Access-Control-Allow-Origin"] = b"*"
        else:
            request.extra[b"Access-Control-Allow-Origin"] = request.header("origin").encode("latin-1")
            request.extra[b"Access-Control-Allow-Credentials"] = b"true"

    def _preflight(self, request: HTTPRequest) -> None:
        request.extra[b"Access-Control-Allow-Methods"] = b"GET, POST, OPTIONS"
        wanted = request.header("access-control-request-headers")
        if wanted:
            request.extra[b"Access-Control-Allow-Headers"] = wanted.encode("latin-1")
            request.extra[b"Vary"] = b"Origin, Access-Control-Request-Headers"
        request.extra[b"Access-Control-Max-Age"] = b"600"
        request.respond(NO_CONTENT, b"")


def _codecFor(handshake: OpeningRequest) -> Codec:
    """The version of the protocol that a session begins with, and keeps."""
    if handshake.protocol != 3:
        return EngineIO4()
    # Clients before 1.4 say the time and a number, later ones a few letters.
    oldest = _OLDEST_TIME.fullmatch(handshake.query.get("t", "")) is not None
    return EngineIO3(_wantsBase64(handshake), oldest)


def _wantsBase64(handshake: OpeningRequest) -> bool:
    """Whether binary must travel as text on the transport that this request opens."""
    query = handshake.query
    return query.get("b64", "0") not in ("", "0") or "j" in query
