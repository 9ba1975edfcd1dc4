"""
An endpoint that connects through an HTTP proxy by CONNECT (RFC 9110, 9.3.6).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.errors import TransportError

__all__ = ["TunnelEndpoint"]

# Bytes of the head of the proxy's response.
_MAX_HEAD: Final = 16384


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """
    A connection to a host through a proxy.

    :param proxy: the endpoint of the proxy.
    :param host: the host that the proxy connects to, with its port.
    :param authorization: the value of ``Proxy-Authorization``, if the proxy asks for one.
    """

    def __init__(
        self, proxy: IStreamClientEndpoint, host: str, port: int, authorization: bytes | None = None
    ) -> None:
        self._proxy = proxy
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        head = "\r\n".join(lines).encode("ascii")
        if authorization is not None:
            head += b"\r\nProxy-Authorization: " + authorization
        self._request = head + b"\r\n\r\n"

    @classmethod
    def fromURL(cls, reactor: Any, proxy: str, host: str, port: int) -> TunnelEndpoint:
        """
        Make an endpoint from the URL of a proxy.

        :param proxy: ``http://[user:password@]host[:port]``, with port 80 by default.
        :raises ValueError: if the URL is not of that form.
        """
        parts = urlsplit(proxy)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("proxy is not a URL of the form 'http://proxy.example.org:3128'")
        authorization = None
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = b"Basic " + b64encode(user.encode())
        endpoint = HostnameEndpoint(reactor, parts.hostname, parts.port or 80)
        return cls(endpoint, host, port, authorization)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        opened: Deferred[IProtocol] = Deferred(lambda _: cancel())
        factory = _TunnelFactory(protocolFactory, self._request, opened)
        connecting = self._proxy.connect(factory)
        giveUp: Callable[[], object] = connecting.cancel

        def cancel() -> None:
            giveUp()

        def connected(tunnel: Any) -> None:
            nonlocal giveUp
            giveUp = tunnel.abortConnection

        def failed(failure: Failure) -> None:
            if not opened.called:
                opened.errback(failure)

        connecting.addCallbacks(connected, failed)
        return opened


class _Tunnel(ProtocolWrapper):
    """A connection to a proxy, and behind the proxy's response the connection to the host."""

    factory: _TunnelFactory

    def __init__(self, factory: _TunnelFactory, wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)  # type: ignore[arg-type]
        self._head = b""
        self._isOpen = False

    def makeConnection(self, transport: Any) -> None:
        # The wrapper's own would connect the wrapped protocol at once.
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)  # type: ignore[no-untyped-call]
        transport.write(self.factory.request)

    def dataReceived(self, data: bytes) -> None:
        if self._isOpen:
            self.wrappedProtocol.dataReceived(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            self._answered(head, rest)
        elif len(self._head) > _MAX_HEAD:
            self._fail(f"the proxy's response has a head of more than {_MAX_HEAD} bytes")

    def _answered(self, head: bytes, rest: bytes) -> None:
        words = head.partition(b"\r\n")[0].split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or words[1][:1] != b"2":
            status = words[1].decode("latin-1")[:3] if len(words) > 1 else "no status"
            advice = ": put user and password into its URL" if status == "407" else ""
            self._fail(f"the proxy refused to connect ({status}){advice}")
            return
        self._isOpen = True
        self._head = b""
        self.wrappedProtocol.makeConnection(self)  # type: ignore[arg-type]
        self.factory.opened.callback(self.wrappedProtocol)
        if rest:
            self.wrappedProtocol.dataReceived(rest)

    def _fail(self, message: str) -> None:
        if not self.factory.opened.called:
            self.factory.opened.errback(Failure(TransportError(message)))
        self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._isOpen:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
            return
        self.factory.unregisterProtocol(self)  # type: ignore[no-untyped-call]
        if not self.factory.opened.called:
            self.factory.opened.errback(
                Failure(TransportError("the proxy ended the connection without a response"))
            )


class _TunnelFactory(WrappingFactory):
    """Makes the tunnel of one connection."""

    protocol = _Tunnel
    noisy = False

    def __init__(self, wrapped: Any, request: bytes, opened: Deferred[IProtocol]) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.request = request
        self.opened = opened

    def doStart(self) -> None:
        self.wrappedFactory.doStart()
        Factory.doStart(self)  # type: ignore[arg-type]
