"""
Admission: every check of a request, in one place and one order.

Refusals carry the protocol's JSON errors:

====  ============================  ======
code  message                       status
====  ============================  ======
0     Transport unknown             400
1     Session ID unknown            400
2     Bad handshake method          400
3     Bad request                   400; 413 for a body too large; 503 and 429 for too many clients
4     Forbidden                     403
5     Unsupported protocol version  400
====  ============================  ======
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import Final

from twisted.web.http import SERVICE_UNAVAILABLE

from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.limits import Tally
from txrealtime.engineio.origins import Origins
from txrealtime.engineio.pace import Pace
from txrealtime.engineio.session import Session
from txrealtime.engineio.settings import Settings
from txrealtime.errors import ConnectionRejected, HandshakeError
from txrealtime.logs import Logger

__all__ = ["UNKNOWN", "Admission", "AllowRequest", "isForeignFalse", "isRefusal"]

_log = Logger()

AllowRequest = Callable[[OpeningRequest], bool | Awaitable[bool | None] | None]

# RFC 6585, 4; twisted.web has no name for it.
_TOO_MANY_REQUESTS: Final = 429

UNKNOWN: Final = (
    "the session has ended, or another server has it: a balancer must send a client's requests to one server"
)
"""Advice for a request with an unknown sid."""

_REFUSED: Final = "allowRequest refused the client"


class Admission:
    """
    The checks of an engine: cheap ones first, the application last.

    :param settings: the limits, transports and origins.
    :param sessions: the engine's sessions by sid.
    :param allowRequest: the application's own check, see :class:`~txrealtime.engineio.engine.Engine`.
    :ivar isOpen: whether new sessions are taken.
    :ivar retryAfter: seconds after which a client that is refused meanwhile may try again.
    :ivar tally: the sessions that there are.
    :ivar origins: the origins that may connect.
    :ivar pace: the clients that wait for the application.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: Mapping[str, Session],
        allowRequest: AllowRequest | None,
        pace: Pace,
    ) -> None:
        self.isOpen = True
        self.retryAfter = 1
        self.tally = Tally("sessions", settings.maxConnections, settings.maxConnectionsPerAddress)
        self.origins = Origins(settings.origins)
        self.pace = pace
        self._settings = settings
        self._sessions = sessions
        self._allowRequest = allowRequest
        self._versions = (3, 4) if settings.allowEIO3 else (4,)

    async def checkOpening(self, request: OpeningRequest, transport: str, method: str) -> None:
        """
        Check a request that asks for a new session.

        :param transport: the name of the transport over which the request came.
        :raises HandshakeError: if the request is refused.
        """
        self._checkTransport(request.query, transport)
        if method != "GET":
            raise HandshakeError(
                2,
                "Bad handshake method",
                reason="method",
                advice=f"{method} came, and a session opens by GET: look for a prober",
            )
        self._checkVersion(request)
        self.origins.check(request)
        self._checkRoom(request)
        if self.pace.waiting >= self.pace.few:
            self._checkPace()
        if self._allowRequest is not None:
            await self._askApplication(self._allowRequest, request)
            # While the application thought, others came, or the server began to shut down.
            self._checkRoom(request)

    def checkJoining(self, query: Mapping[str, str], sid: str, transport: str) -> Session:
        """
        Check a request that belongs to a session, and return the session.

        The sid is a secret and stands for the checks that the session passed when it was opened.

        :param transport: the name of the transport over which the request came.
        :raises HandshakeError: if the request is refused.
        """
        self._checkTransport(query, transport)
        session = self._sessions.get(sid)
        if session is None:
            raise HandshakeError(1, "Session ID unknown", reason="sid", advice=UNKNOWN)
        version = query.get("EIO")
        if version is not None and version != str(session.codec.version):
            raise HandshakeError(3, "Bad request: the session was opened with another EIO")
        return session

    def checkUpgrade(self, request: OpeningRequest, sid: str, transport: str) -> None:
        """
        Check a request that moves a session to another transport.

        :raises HandshakeError: if the request is refused.
        """
        self.checkJoining(request.query, sid, transport)
        if not self._settings.allowUpgrades:
            raise HandshakeError(3, "Bad request: sessions stay on polling (setting allowUpgrades)")
        self.origins.check(request)

    # -- one check each, in their order --------------------------------------------

    def _checkTransport(self, query: Mapping[str, str], transport: str) -> None:
        asked = query.get("transport")
        if asked not in self._settings.transports:
            shown, spoken = repr((asked or "")[:20]), " and ".join(self._settings.transports)
            raise HandshakeError(
                0,
                "Transport unknown",
                reason="transport",
                advice=f"transport={shown} came, and the setting transports (--transport) allows {spoken}",
            )
        if asked != transport:
            advice = (
                "a WebSocket was asked for, and no header 'Upgrade: websocket' came: let the proxy pass on "
                "Upgrade and Connection"
                if asked == "websocket"
                else ""
            )
            raise HandshakeError(3, f"Bad request: transport={asked} came as {transport}", advice=advice)

    def _checkVersion(self, request: OpeningRequest) -> None:
        if request.protocol not in self._versions:
            # Escaped, since it goes to the log: the client chose it.
            asked = request.query.get("EIO", "3, or none named")[:20].encode("unicode_escape").decode()
            spoken = " and ".join(map(str, self._versions))
            hint = "" if self._settings.allowEIO3 else "; 3 too with the setting allowEIO3 (--allow-eio3)"
            raise HandshakeError(
                5,
                f"Unsupported protocol version: EIO={asked}, this server speaks {spoken}{hint}",
                reason="version",
            )

    def _checkRoom(self, request: OpeningRequest) -> None:
        if not self.isOpen:
            raise HandshakeError(
                3,
                "Bad request: the server is shutting down",
                SERVICE_UNAVAILABLE,
                reason="stopping",
                retryAfter=self.retryAfter,
            )
        if self.tally.isFull:
            raise HandshakeError(
                3,
                "Bad request: the server is full",
                SERVICE_UNAVAILABLE,
                reason="full",
                advice="raise maxConnections (--max-connections), or add servers",
            )
        if self.tally.isFullFor(request.address):
            raise HandshakeError(
                3,
                "Bad request: too many sessions of this address",
                _TOO_MANY_REQUESTS,
                reason="address",
                advice="raise maxConnectionsPerAddress (--max-connections-per-address); if the address is a "
                "proxy's, set trustedProxies (--trusted-proxy)",
            )

    def _checkPace(self) -> None:
        later = self.pace.retryAfter()
        if later:
            raise HandshakeError(
                3,
                "Bad request: the server is busy",
                SERVICE_UNAVAILABLE,
                reason="busy",
                advice=f"{self.pace.waiting} clients wait for the application, and one more would wait for "
                "more than handshakeTimeout (--handshake-timeout): make connect handlers and allowRequest "
                "faster, or add servers",
                retryAfter=later,
            )

    async def _awaited(self, allowed: Awaitable[bool | None]) -> bool | None:
        """Wait for the application's answer, and count the client as waiting meanwhile."""
        self.pace.began()
        try:
            return await allowed
        finally:
            self.pace.ended(None)

    async def _askApplication(self, allowRequest: AllowRequest, request: OpeningRequest) -> None:
        try:
            allowed = allowRequest(request)
            if isinstance(allowed, Awaitable):
                allowed = await self._awaited(allowed)
            refused = isRefusal(allowed)
        except ConnectionRejected as rejection:
            raise HandshakeError(4, rejection.message, reason="application", advice=_REFUSED) from None
        except HandshakeError:
            raise
        except Exception:
            _log.failure("allowRequest failed; the client is refused")
            raise HandshakeError(4, "Forbidden", reason="application", advice=_REFUSED) from None
        if refused:
            raise HandshakeError(4, "Forbidden", reason="application", advice=_REFUSED)


def isRefusal(answer: object) -> bool:
    """
    Tell if an application's answer to a client's wish is ``False``, or numpy's.

    ``None``, 0 and all other values admit.

    :raises TypeError: if the answer is not known yet, as of a coroutine without ``await``.  Each such object
        is true, and would admit everybody.
    """
    if answer is None:
        return False  # nearly always; the next line takes 1 us
    if isinstance(answer, Awaitable | Generator | AsyncGenerator):
        raise TypeError(
            f"the answer is a {type(answer).__name__} that nothing waits for: await it, "
            "or return a Deferred, such as Deferred.fromFuture(future)"
        )
    return answer is False or isForeignFalse(answer)


def isForeignFalse(answer: object) -> bool:
    """Tell if a value is the ``False`` of numpy, whose comparisons give no ``bool``."""
    kind = type(answer)
    return kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_") and not answer
