"""
The engine: it opens sessions, finds them by their sid, and closes them when the server stops.

:mod:`~txrealtime.engineio.admission` refuses bad requests.  An engine knows no web server:
:class:`~txrealtime.engineio.http.resource.EngineResource` puts it into a ``twisted.web`` site, and
:meth:`Engine.webSocketFactory` serves WebSocket on an endpoint of its own.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR, NO_CONTENT, REQUEST_ENTITY_TOO_LARGE

from txrealtime.coroutines import begin
from txrealtime.engineio.admission import Admission, AllowRequest
from txrealtime.engineio.counts import Counts
from txrealtime.engineio.drain import Drain, Slices
from txrealtime.engineio.handshake import OpeningRequest, proxyFilter, readHandshake, readQuery
from txrealtime.engineio.hooks import SessionHooks
from txrealtime.engineio.limits import Tally, Throttle
from txrealtime.engineio.origins import Origins, preflightHeaders
from txrealtime.engineio.pace import Pace
from txrealtime.engineio.packet import Codec, EngineIO4
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.engineio.polling.jsonp import JSONPRequest
from txrealtime.engineio.polling.request import JSON, HTTPRequest
from txrealtime.engineio.polling.transport import PollingTransport
from txrealtime.engineio.refusals import logRefusal, refusal
from txrealtime.engineio.session import CloseReason, IReceiver, ITransport, Session, State
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.siblings import Siblings
from txrealtime.engineio.timers import Timers
from txrealtime.engineio.websocket.transport import WebSocketFactory, WebSocketTransport
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["Engine"]

_log = Logger()

# 15 bytes from the system's CSPRNG: 120 bits, 20 characters.
_SID_BYTES: Final = 15

# Before a mark of 4 characters: 96 bits, and 20 characters together.
_SID_BYTES_BEFORE_MARK: Final = 12

# Seconds between the response 413 and the end of the session.
_AFTER_REFUSAL: Final = 0.5

_OLDEST_TIME: Final = re.compile(r"\d{13}-\d+", re.ASCII)


class Engine:
    """
    An Engine.IO server.

    ``root.putChild(b"engine.io", EngineResource(engine))`` puts it into a ``twisted.web`` site, with
    :class:`~txrealtime.engineio.http.resource.EngineResource`.

    :param receiver: called with each new :class:`~txrealtime.engineio.session.Session`; returns the
        :class:`~txrealtime.engineio.session.IReceiver` that owns it.
    :param settings: see :class:`~txrealtime.Settings`.
    :param reactor: the clock; the installed reactor by default.
    :param allowRequest: called with each opening request, before a session is made.  Returning ``False`` or
        raising :exc:`ConnectionRejected` refuses the request (403); the function may be ``async`` or return a
        Deferred.
    :param hooks: the hooks of the sessions; by default some that nobody has set.
    :param pace: the pace of admissions, if the receivers wait for the application too.
    :ivar sessions: the sessions by sid, including those that still deliver their last messages.
    :ivar reactor: the clock.
    :ivar trusts: tells whether an address is one of ``trustedProxies``.
    :ivar makeSession: makes the sessions: the class, or a function in its place that traces some of them.
    :ivar pollingType: the class of polling transports; see :mod:`~txrealtime.engineio.counting`.
    :ivar webSocketType: the class of WebSockets, likewise.
    :ivar counts: the counts since the start.
    :ivar webSockets: makes the WebSockets of connections that arrive over HTTP.
    :ivar upgrades: the transports to which a client may move from polling.
    :ivar siblings: the other processes behind the same port; ``None`` without any.
    :ivar files: called with each request outside a session, before it is taken for one that opens a session;
        true if it was for a file, and has its response.
    """

    def __init__(
        self,
        receiver: Callable[[Session], IReceiver],
        settings: Settings | None = None,
        reactor: IReactorTime | None = None,
        allowRequest: AllowRequest | None = None,
        hooks: SessionHooks | None = None,
        pace: Pace | None = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor as installed

            reactor = IReactorTime(installed)
        self.settings = settings or Settings()
        self.sessions: dict[str, Session] = {}
        self.reactor = reactor
        self.trusts = proxyFilter(self.settings.trustedProxies)
        self.makeSession: Callable[..., Session] = Session
        self.counts = Counts()
        self._hooks = hooks or SessionHooks()
        self.pollingType = PollingTransport
        self.webSocketType = WebSocketTransport
        self._drains: list[Drain] = []
        self._closing: set[WebSocketTransport] = set()
        self._receiver = receiver
        # Too fine for anybody to notice: 80 ms with the defaults.  Never more, since these timers serve
        # other purposes than the heartbeat, too.
        tick = min(self.settings.pingInterval, self.settings.pingTimeout, 20) / 250
        self._timers = Timers(reactor, tick)
        # At the end, as logs show the beginning of a sid.  A dot is in no other part.
        self._sidEnd = f".{self.settings.name}" if self.settings.name else ""
        self._admission = Admission(
            self.settings,
            self.sessions,
            allowRequest,
            pace or Pace(reactor, self.settings.handshakeTimeout),
        )
        isUpgradable = self.settings.allowUpgrades and "websocket" in self.settings.transports
        self.upgrades: Sequence[str] = ("websocket",) if isUpgradable else ()
        self.siblings: Siblings | None = None
        self.files: Callable[[HTTPRequest], bool] | None = None
        self.webSockets = self.webSocketFactory()

    def webSocketFactory(self) -> WebSocketFactory:
        """Return a factory for an endpoint that serves WebSocket alone, without ``twisted.web``."""
        return WebSocketFactory(self.settings, self.reactor, self)

    def useOrigins(self, origins: Origins) -> None:
        """Allow other origins than those of the settings."""
        self._admission.origins = origins

    # -- long polling ----------------------------------------------------------------

    def serve(self, request: HTTPRequest) -> None:
        """Serve a request for long polling."""
        query = readQuery(request.url)
        sid = query.get("sid")
        if self.siblings is not None and self._isPassedOn(self.siblings, sid, request):
            return
        try:
            if "j" in query:
                request = JSONPRequest(request, query["j"])
            if request.header("origin"):
                request.extra.update(self._admission.origins.headers(self._read(request)))
            if request.method == "OPTIONS":
                request.extra.update(preflightHeaders(request.header("access-control-request-headers")))
                request.respond(NO_CONTENT, b"")
            elif sid is None:
                if self.files is not None and self.files(request):
                    return
                opening = begin(self._openPolling(request, self._read(request)))
                if opening is not None:
                    opening.addErrback(self._failed, request)
            else:
                self._servePolling(request, self._admission.checkJoining(query, sid, "polling"))
        except Exception:
            self._failed(Failure(), request)

    def _isPassedOn(self, siblings: Siblings, sid: str | None, request: HTTPRequest) -> bool:
        """Pass a request to the process that should serve it, if that is another one."""
        if sid is None:
            return not self._admission.isOpen and request.method == "GET" and siblings.open(request)
        return sid not in self.sessions and siblings.serve(sid, request)

    def refuse(self, request: HTTPRequest, error: HandshakeError) -> None:
        """Refuse a request that another process was to serve."""
        if request.header("origin"):
            request.extra.update(self._admission.origins.headers(self._read(request)))
        self._failed(Failure(error), request)

    async def _openPolling(self, request: HTTPRequest, handshake: OpeningRequest) -> None:
        gone: list[bool] = []
        request.whenLost(lambda: gone.append(True))
        await self._admission.checkOpening(handshake, "polling", request.method)
        if gone:
            return
        transport = self.pollingType()
        session = transport.session = self._newSession(handshake, transport)
        if self.settings.cookie:
            secure = "; Secure" if handshake.secure else ""
            cookie = f"{self.settings.cookie}={session.sid}; Path=/; HttpOnly; SameSite=Lax{secure}"
            request.extra[b"Set-Cookie"] = cookie.encode("latin-1")
        self._start(session)
        if session.state is State.CLOSED:
            # Its receiver closed it, or sent too much at once: the client's next request would hear the same.
            raise HandshakeError(1, "Session ID unknown", reason="sid")
        transport.poll(request)

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
            logRefusal(self._read(request).address, error, self.counts)
            if error.retryAfter:
                request.extra[b"Retry-After"] = b"%d" % error.retryAfter
            request.respond(error.status, refusal(error), JSON)
            if error.status == REQUEST_ENTITY_TOO_LARGE:
                self.bodyTooLarge(request.url)
        else:
            _log.failure("a request failed", failure)
            request.respond(INTERNAL_SERVER_ERROR, b'{"code":3,"message":"Internal error"}', JSON)

    def _read(self, request: HTTPRequest) -> OpeningRequest:
        return self.readHandshake(request.headers(), request.url, request.peer, request.secure)

    # -- WebSocket, and transports of other kinds ------------------------------------

    def webSocketsFor(self, url: str) -> Any:
        """Return the factory for a WebSocket with this URL: :attr:`webSockets`, or one to a sibling."""
        if self.siblings is not None:
            sid = readQuery(url).get("sid")
            if not self._admission.isOpen if sid is None else sid not in self.sessions:
                return self.siblings.webSockets(sid) or self.webSockets
        return self.webSockets

    def readHandshake(self, headers: Mapping[str, str], url: str, peer: str, secure: bool) -> OpeningRequest:
        """Read an opening request; what a trusted proxy reports replaces what the proxy looks like."""
        return readHandshake(headers, url, peer, secure, self.trusts, self.settings.publicURL)

    async def verify(self, handshake: OpeningRequest, transport: str, method: str) -> None:
        """
        Check an opening request, or one that moves a session to this transport.

        :param transport: the name of the transport over which the request came.
        :raises HandshakeError: if the request is refused.
        """
        sid = handshake.query.get("sid")
        if sid is None:
            await self._admission.checkOpening(handshake, transport, method)
        else:
            self._admission.checkUpgrade(handshake, sid, transport)

    def webSocketOpened(self, transport: WebSocketTransport, handshake: OpeningRequest) -> None:
        """Called when a WebSocket has opened: for a new session, or for one that moves here from polling."""
        sid = handshake.query.get("sid")
        if sid is None:
            session = self._newSession(handshake, transport)
            transport.serve(session, _wantsBase64(handshake))
            with contextlib.suppress(HandshakeError):  # logged already, and the session has ended
                self._start(session)
            return
        found = self.sessions.get(sid)
        if found is None:
            transport.close(CloseReason.TRANSPORT_ERROR)
            return
        transport.serve(found, _wantsBase64(handshake))
        found.upgrade(transport)

    def bodyTooLarge(self, url: str) -> None:
        """
        Called when a request body has been refused for its size; the session of the request ends shortly.

        JavaScript clients close by themselves, and report the status, if it reaches them first.
        python-socketio's stop sending, and would notice only by the heartbeat.

        :param url: the request's path and query.
        """
        session = self.sessions.get(readQuery(url).get("sid", ""))
        if session is not None:
            self._timers.callLater(_AFTER_REFUSAL, lambda: session.abort(CloseReason.TRANSPORT_ERROR))

    def webSocketClosing(self, transport: WebSocketTransport) -> None:
        """Called when a WebSocket takes and sends no more messages, but is still connected."""
        self._closing.add(transport)
        for drain in self._drains:
            drain.webSocketClosing(transport)

    def webSocketLost(self, transport: WebSocketTransport) -> None:
        """Called when the connection of a WebSocket is lost."""
        self._closing.discard(transport)
        for drain in list(self._drains):
            drain.webSocketLost(transport)

    def openSession(self, handshake: OpeningRequest, transport: ITransport) -> Session:
        """Open a session on another kind of transport, for a request that :meth:`verify` accepted."""
        session = self._newSession(handshake, transport)
        self._start(session)
        return session

    # -- sessions ----------------------------------------------------------------

    def _newSession(self, handshake: OpeningRequest, transport: ITransport) -> Session:
        if self.siblings is None:
            sid = secrets.token_urlsafe(_SID_BYTES) + self._sidEnd
        else:
            sid = secrets.token_urlsafe(_SID_BYTES_BEFORE_MARK) + self.siblings.mark + self._sidEnd
        session = self.makeSession(
            sid,
            handshake,
            _codecFor(handshake),
            transport,
            self.settings,
            self._timers,
            self._sessionEnded,
            self.counts,
            self._hooks,
        )
        self.sessions[sid] = session
        self.counts.opened[transport.name, session.codec.version] += 1
        self.counts.sessions[transport.name] += 1
        self._admission.tally.add(handshake.address)
        return session

    def _start(self, session: Session) -> None:
        settings = self.settings
        session.greet(self.upgrades if session.transport.name == "polling" else ())
        try:
            receiver = self._receiver(session)
        except Exception:
            _log.failure("session {session}: the receiver could not be created", session=session.label)
            session.abort(CloseReason.FORCED_CLOSE)
            raise HandshakeError(3, "Internal error", INTERNAL_SERVER_ERROR) from None
        if settings.maxMessageRate or settings.maxByteRate:
            receiver = Throttle(session, receiver, settings, self._timers)
        session.receiver = receiver
        if self._hooks.sessionOpened is not None:
            self._hooks.sessionOpened(session)
        if session.closeReason is not None:  # the receiver closed the session while it was created
            receiver.sessionClosed(session.closeReason)

    def _sessionEnded(self, session: Session) -> None:
        if self.sessions.pop(session.sid, None) is not None:
            self.counts.closed[session.closeReason or ""] += 1
            self.counts.sessions[session.transport.name] -= 1
            self._admission.tally.remove(session.handshake.address)
            if self._hooks.sessionClosed is not None:
                self._hooks.sessionClosed(session)
        for drain in list(self._drains):
            drain.sessionEnded(session)

    @property
    def isOpen(self) -> bool:
        """False after :meth:`drain`, when no new sessions are taken."""
        return self._admission.isOpen

    @property
    def tally(self) -> Tally:
        """The count of sessions, with its limits."""
        return self._admission.tally

    @property
    def isFull(self) -> bool:
        """True if there are as many sessions as ``maxConnections`` allows."""
        return self._admission.tally.atLimit

    # -- the end -------------------------------------------------------------------

    def reopen(self) -> None:
        """Take new sessions again, after :meth:`drain`."""
        self._admission.isOpen = True
        self._admission.retryAfter = 1

    def drain(self, timeout: float, dismiss: Callable[[Session], object] | None = None) -> Deferred[None]:
        """
        Take no new sessions, and close those that are open.

        Each session delivers what was sent to it, and ends with its transport's own goodbye.  A WebSocket
        stays until the client has closed it as well: data that arrives for a connection that is gone is
        answered by a reset, which destroys whatever the client has not read yet.

        :param timeout: seconds after which the remaining sessions are dropped.
        :param dismiss: called with each open session before it is closed.
        :return: a Deferred that fires when no session is left.
        """
        self._admission.isOpen = False
        # Also the WebSockets that were closing before.
        return self._letGo(self.sessions.values(), self._closing, timeout, dismiss)

    def drainSlowly(
        self, seconds: float, timeout: float, dismiss: Callable[[Session], object] | None = None
    ) -> Slices:
        """
        Take no new sessions, and close those that are open in slices, in random order.

        Until its slice a session goes on as before, polling included.

        :param seconds: the time from the first slice to the last.
        :param timeout: seconds after which the sessions of a slice are dropped.
        :param dismiss: see :meth:`drain`.
        :return: the slices; :meth:`drain` waits for the sessions.
        """
        self._admission.isOpen = False
        self._admission.retryAfter = math.ceil(seconds)

        def letGo(sessions: list[Session]) -> None:
            self._letGo(sessions, (), timeout, dismiss)

        slices = Slices(self.reactor, self.sessions.values(), seconds, letGo)
        slices.start()
        return slices

    def _letGo(
        self,
        sessions: Collection[Session],
        closing: Collection[WebSocketTransport],
        timeout: float,
        dismiss: Callable[[Session], object] | None,
    ) -> Deferred[None]:
        drain = Drain(self._drains, sessions, closing)
        drain.start(self.reactor, timeout, dismiss)
        return drain.done

    def dropLate(self) -> None:
        """Drop the sessions that a drain still waits for, before its timeout."""
        for drain in list(self._drains):
            drain.drop()


def _codecFor(handshake: OpeningRequest) -> Codec:
    """Return the codec of the client's protocol version, which the session keeps."""
    if handshake.protocol != 3:
        return EngineIO4()
    # Clients before 1.4 send the time and a number, later ones a few letters.
    oldest = _OLDEST_TIME.fullmatch(handshake.query.get("t", "")) is not None
    return EngineIO3(_wantsBase64(handshake), oldest)


def _wantsBase64(handshake: OpeningRequest) -> bool:
    """Return whether the transport that this request opens carries binary as text."""
    query = handshake.query
    return query.get("b64", "0") not in ("", "0") or "j" in query
