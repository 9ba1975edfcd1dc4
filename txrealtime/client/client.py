"""
The client: a service that stays connected to a Socket.IO server.
"""

from __future__ import annotations

import random as randomNumbers
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from http.cookiejar import CookieJar
from typing import Any, Unpack

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint

from txrealtime.client.address import Address
from txrealtime.client.connection import Connection
from txrealtime.client.cookies import Cookies
from txrealtime.client.decorators import Decorators
from txrealtime.client.handlers import Handlers
from txrealtime.client.interfaces import Receiver, Transport
from txrealtime.client.namespace import ACK_TIMEOUT, Namespace
from txrealtime.client.polling import Polling
from txrealtime.client.requests import Requests
from txrealtime.client.session import Session, State
from txrealtime.client.settings import TRANSPORTS, ClientSettings, Options
from txrealtime.client.websocket import WebSocket
from txrealtime.socketio.packet import IParser, JSONParser

__all__ = ["Client"]

Auth = Mapping[str, Any] | Callable[[], Any] | None


class Client(Decorators, Service):
    """
    A Socket.IO client.

    As long as the service runs, the client stays connected: it connects again after a failure, with the
    delays of the JavaScript client.  Handlers for the namespace in the URL's path are registered on the
    client itself; see :class:`~txrealtime.client.Namespace`.

    :param url: the server, as ``http``, ``https``, ``ws`` or ``wss``.  Its path is a namespace, ``/`` by
        default; its query is sent with each request.
    :param auth: a dictionary for the server, or a function that returns one, called at each connect; it may
        be ``async`` or return a Deferred.
    :param transports: the transports to use, in order.
    :param reactor: the reactor; the installed one by default.
    :param parser: the :class:`~txrealtime.socketio.packet.IParser` of the server; JSON by default.
    :param endpoint: an endpoint to connect to instead of the URL's host, or its description for
        :func:`~twisted.internet.endpoints.clientFromString`, such as ``unix:/run/app.sock``.  With ``https``,
        TLS is added.
    :param proxy: the URL of an HTTP proxy to connect through, ``http://[user:password@]host:port``.
    :param tls: the options of TLS, such as those of :func:`~twisted.internet.ssl.optionsForClientTLS`; by
        default, the server's certificate is verified for the URL's host.
    :param cookies: a jar of cookies to send; cookies of the server are kept there.
    :param random: returns a number from 0 to 1, without 1, for the delays.
    :param options: any field of :class:`~txrealtime.client.ClientSettings`.
    :raises TypeError: if an option is no setting.
    :raises ValueError: if a value makes no sense.
    """

    def __init__(
        self,
        url: str,
        auth: Auth = None,
        transports: Sequence[str] = TRANSPORTS,
        reactor: Any = None,
        *,
        parser: IParser | None = None,
        endpoint: IStreamClientEndpoint | str | None = None,
        proxy: str | None = None,
        tls: IOpenSSLClientConnectionCreator | None = None,
        cookies: CookieJar | None = None,
        random: Callable[[], float] = randomNumbers.random,
        **options: Unpack[Options],
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.settings = ClientSettings(transports=transports, **options)  # type: ignore[arg-type]
        self._reactor = reactor
        self._address = Address(url, self.settings.path, self.settings.query)
        headers = self.settings.headers
        self._headers = {name: headers[name] for name in headers if name.lower() != "cookie"}
        self._cookies = Cookies(
            cookies, "; ".join([headers[name] for name in headers if name not in self._headers])
        )
        self._connectTo = (endpoint, proxy, tls)
        if endpoint is not None or proxy is not None:
            # A mistake in them is told here, and not when the service starts.
            self._endpoint  # noqa: B018
        self._connection = Connection(
            self._openSession, self.settings, reactor, parser or JSONParser(), random
        )
        self._own = self._connection.namespace(self._address.namespace, auth)

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<{type(self).__name__} {self._address} {self._own.path} {state}>"

    # -- transports ------------------------------------------------------------------

    @cached_property
    def _endpoint(self) -> IStreamClientEndpoint:
        return self._address.endpoint(self._reactor, *self._connectTo)

    def _openSession(self, receiver: Receiver, transports: Sequence[str]) -> Session:
        return Session(receiver, transports, self._makeTransport, self.settings, self._reactor)

    def _makeTransport(self, name: str, session: Session) -> Transport:
        settings = self.settings
        if name == "polling":
            requests = Requests(
                self._reactor, self._endpoint, self._headers, self._cookies, settings.maxPayload
            )
            return Polling(session, self._address, requests, self._reactor, settings.requestTimeout)
        return WebSocket(
            session,
            self._address,
            self._endpoint,
            self._cookies,
            self._reactor,
            self._headers,
            settings.maxPayload,
            settings.perMessageDeflate,
        )

    @property
    def transport(self) -> str | None:
        """The name of the current transport, ``polling`` or ``websocket``; ``None`` without a connection."""
        session = self._connection.session
        return session.transportName if session is not None and session.state is State.OPEN else None

    @property
    def buffered(self) -> int:
        """Bytes that wait for the connection, with all namespaces."""
        return self._connection.buffered

    # -- namespaces ------------------------------------------------------------------

    def namespace(self, path: str, auth: Auth = None) -> Namespace:
        """
        Return another namespace on the same connection.  It connects at once, and after each reconnection.

        :param auth: as for the client.
        """
        return self._connection.namespace("/" + path.strip("/") if path.strip("/") else "/", auth)

    # -- the client's own namespace ----------------------------------------------------

    @property
    def connected(self) -> bool:
        """True while the server has admitted the client."""
        return self._own.connected

    @property
    def id(self) -> str | None:
        """The id that the server has given, or ``None``."""
        return self._own.id

    @property
    def recovered(self) -> bool:
        """True if the server has restored the last connection's state: see :attr:`Namespace.recovered`."""
        return self._own.recovered

    def _registry(self) -> Handlers:
        return self._own._registry()

    def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """Send an event: see :meth:`Namespace.emit`."""
        self._own.emit(event, *args, volatile=volatile)

    def send(self, *args: Any, volatile: bool = False) -> None:
        """Send the unnamed event, ``message``."""
        self._own.send(*args, volatile=volatile)

    def call(self, event: str, *args: Any, timeout: float | None = ACK_TIMEOUT) -> Deferred[Any]:
        """Send an event and wait for its ack: see :meth:`Namespace.call`."""
        return self._own._ask(event, args, timeout)

    def connect(self) -> None:
        """Connect again after a refusal or a disconnect: see :meth:`Namespace.connect`."""
        self._own.connect()

    def disconnect(self) -> None:
        """Leave the client's own namespace: see :meth:`Namespace.disconnect`."""
        self._own.disconnect()

    def whenConnected(self, failAfterFailures: int | None = None) -> Deferred[Client]:
        """Wait for the client to be connected: see :meth:`Namespace.whenConnected`; fires with the client."""
        waiting: Deferred[Any] = self._own.whenConnected(failAfterFailures)
        return waiting.addCallback(lambda _: self)

    # -- as a service ------------------------------------------------------------------

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._connection.start()

    def stopService(self) -> Deferred[None]:
        """
        Send what waits, leave all namespaces and close the connection.

        :return: a Deferred that fires when the connection has ended, at the latest after ``closeTimeout``.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self._connection.stop().addCallback(lambda _: None)
