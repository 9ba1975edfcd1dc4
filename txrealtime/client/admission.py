"""
The admission of a client to one namespace of its server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from txrealtime.client.recovery import Recovery
from txrealtime.engineio.interfaces import CloseReason
from txrealtime.errors import ConnectionRejected, TransportError
from txrealtime.logs import Logger
from txrealtime.socketio.handler import run
from txrealtime.socketio.packet import Packet, PacketType

if TYPE_CHECKING:
    from txrealtime.client.connection import Connection

__all__ = ["Admission", "rejection"]

_log = Logger()


class Admission:
    """
    One request for admission: a CONNECT, and the time until the server's answer.

    :param auth: the auth value, or a function that returns it.
    :param failed: called if there is no auth value that can be sent.
    :ivar early: events that came before the answer, each with its size: those that a recovery brings.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        auth: Any,
        recovery: Recovery,
        failed: Callable[[Exception], object],
    ) -> None:
        self.early: list[tuple[Packet, int]] = []
        self._connection = connection
        self._path = path
        self._recovery = recovery
        self._failed = failed
        self._earlySize = 0
        self._timer = connection.reactor.callLater(connection.settings.connectTimeout, self._late)
        self._auth = auth
        self._asking: Deferred[Any] | None = None

    def ask(self) -> None:
        """Get the auth value and send the CONNECT."""
        auth = self._auth
        self._asking = maybeDeferred(run, auth) if callable(auth) else maybeDeferred(lambda: auth)
        self._asking.addCallback(self._send).addErrback(self._noAuth)

    def _send(self, auth: Any) -> None:
        if auth is not None and not isinstance(auth, Mapping):
            raise TypeError(f"auth is {type(auth).__name__}, expected a dict or None, or a function of one")
        fields = self._recovery.auth(None if auth is None else dict(auth))
        packet = Packet(PacketType.CONNECT, self._path, fields)
        self._connection.send(self._connection.encode(packet))

    def _noAuth(self, failure: Failure) -> None:
        """Called if there is no auth value, or one that cannot be sent: as final as a refusal."""
        if self._timer.active():
            _log.failure("{namespace}: no auth value to send", failure, namespace=self._path)
            error = failure.value
            self._failed(error if isinstance(error, Exception) else TransportError(repr(error)))

    def _late(self) -> None:
        _log.warn(
            "{namespace}: the server did not admit the client within {timeout:g} s (setting connectTimeout)",
            namespace=self._path,
            timeout=self._connection.settings.connectTimeout,
        )
        self._connection.abort(CloseReason.TRANSPORT_ERROR)

    def hold(self, packet: Packet, size: int) -> None:
        """Keep an event until the server's answer."""
        self.early.append((packet, size))
        self._earlySize += size
        if self._earlySize > self._connection.settings.maxPayload:
            _log.warn("{namespace}: too many events before the admission", namespace=self._path)
            self._connection.abort(CloseReason.PARSE_ERROR)

    def stop(self) -> None:
        """Called when the server has answered, or the answer is of no use any longer."""
        if self._timer.active():
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()


def rejection(data: Any) -> ConnectionRejected:
    """Make an error of the data of a CONNECT_ERROR."""
    if isinstance(data, dict) and isinstance(data.get("message"), str):
        return ConnectionRejected(data["message"], data.get("data"))
    return ConnectionRejected(data) if isinstance(data, str) else ConnectionRejected(data=data)
