"""
The address of a broker, read from its URL.

The buses and the blocking publishers take an :class:`Address`.  No error message here has a password in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ssl import SSLContext, create_default_context
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from txrealtime.cluster.bus.spread import splitBuses

__all__ = ["Address", "splitURL"]

PORTS = {
    "redis": 6379,
    "rediss": 6379,
    "redis+unix": 0,
    "redis+sentinel": 26379,
    "amqp": 5672,
    "amqps": 5671,
    "unix": 0,
}
"The schemes, and the usual ports of their brokers."

SECURE = ("rediss", "amqps")
"The schemes with TLS."

SOCKETS = ("redis+unix", "unix")
"The schemes of a Unix socket, without hosts."

MAX_PATH = 103
"Bytes of the path of a Unix socket: the least that systems allow, with a zero at its end."

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

STREAMS = "+streams"
"The end of a scheme of Redis, for its streams in place of its pub/sub."

STREAM_OPTIONS = ("stream", "maxlen", "streams", "entries", "sharded")

MAX_LENGTH = 10_000
"""Messages that Redis keeps in a stream, roughly, if the URL does not tell."""

MOST_STREAMS = 100
"""Streams of one cluster: each takes a connection to Redis."""


@dataclass(frozen=True)
class Address:
    """
    The parts of a URL.  Neither its ``repr`` nor :attr:`name` has the password.

    :ivar scheme: the scheme, without ``+streams``.
    :ivar hosts: hosts with ports; several only of Sentinels; none for a Unix socket.
    :ivar path: the text after the hosts, without the first slash; of ``unix:`` the path of the socket.
    :ivar options: the query.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    path: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    options: dict[str, str] = field(default_factory=dict)
    isStreams: bool = False

    @classmethod
    def fromURL(cls, url: str) -> Address:
        """
        Read a URL.

        :raises ValueError: if the text is not the URL of a broker.  The error does not show the password.
        """
        parts = splitURL(url)
        scheme = parts.scheme.removesuffix(STREAMS)
        user, password = parts.netloc.rpartition("@")[0].partition(":")[::2]
        address = cls(
            scheme=scheme,
            hosts=() if scheme in SOCKETS else tuple(_hosts(parts)),
            path=unquote(parts.path if scheme == "unix" else parts.path[1:]),
            user=unquote(user) or None,
            password=unquote(password) or None,
            options=dict(parse_qsl(parts.query, keep_blank_values=True)),
            isStreams=scheme != parts.scheme,
        )
        if parts.scheme == "unix":
            _checkSocket(parts.netloc, address.path)
        address._check()
        return address

    def _check(self) -> None:
        known = FILES + STREAM_OPTIONS if self.isStreams else FILES
        unknown = self.options.keys() - set(known)
        if unknown:
            raise ValueError(
                f"{self.name} has the unknown option {min(unknown)}: expected {', '.join(known)}"
            )
        files = self.options.keys() & set(FILES)
        if files and self.scheme not in SECURE:
            raise ValueError(
                f"{self.name} has the option {min(files)}, and no TLS: expected {':// or '.join(SECURE)}://"
            )
        if self.isStreams:
            _ = self.maxLength
            _ = self.streamCount
            _ = self.isSharded
        if "ssl_keyfile" in self.options and "ssl_certfile" not in self.options:
            raise ValueError(f"{self.name} has the option ssl_keyfile without ssl_certfile")
        if len(self.hosts) > 1 and self.scheme != "redis+sentinel":
            raise ValueError(f"{self.name} names many hosts: only redis+sentinel:// may")
        if self.scheme.startswith("redis"):
            _ = self.database
            if self.scheme == "redis+sentinel" and not self.service:
                raise ValueError(
                    f"{self.name} names no service: expected {self.scheme}://HOST[:PORT]/SERVICE"
                )

    @property
    def service(self) -> str:
        """The name of the service that the Sentinels watch; empty for other schemes."""
        return self.path.rpartition("/")[2] if self.scheme == "redis+sentinel" else ""

    @property
    def database(self) -> int:
        """
        The number of the Redis database.

        :raises ValueError: if it is not a number.
        """
        path = "" if self.scheme == "redis+unix" else self.path
        if self.scheme == "redis+sentinel":
            path = path.rpartition("/")[0]
        if not (path == "" or (path.isascii() and path.isdigit())):
            raise ValueError(f"{self.name} has the database {path!r}: expected a number, or nothing")
        return int(path or 0)

    @property
    def maxLength(self) -> int:
        """
        The number of messages that Redis keeps in a stream, roughly.

        :raises ValueError: if it is no number, or less than 1.
        """
        text = self.options.get("maxlen", str(MAX_LENGTH))
        if not (text.isascii() and text.isdigit() and int(text)):
            raise ValueError(f"{self.name} has maxlen={text}: expected a number of messages, at least 1")
        return int(text)

    @property
    def isNode(self) -> bool:
        """True if the entries of the stream are those of Node's servers."""
        return self.options.get("entries") == "node"

    @property
    def streamCount(self) -> int:
        """
        The number of the streams.

        :raises ValueError: if it is no number from 1 to 100, or servers that are not Node's have several.
        """
        text = self.options.get("streams", "1")
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= MOST_STREAMS):
            raise ValueError(
                f"{self.name} has streams={text}: expected a number of streams, 1 to {MOST_STREAMS}"
            )
        if int(text) > 1 and not self.isNode:
            raise ValueError(
                f"{self.name} has streams={text}: only with dialect=node-streams there are several"
            )
        return int(text)

    @property
    def isSharded(self) -> bool:
        """
        True if messages that are not kept go by sharded pub/sub, as between Node's servers that are told so.

        :raises ValueError: if the option is neither ``true`` nor ``false``, or servers are not Node's.
        """
        text = self.options.get("sharded", "false")
        if text not in ("true", "false"):
            raise ValueError(f"{self.name} has sharded={text}: expected true or false")
        if text == "true" and not self.isNode:
            raise ValueError(f"{self.name} has sharded=true: only with dialect=node-streams there is pub/sub")
        return text == "true"

    @property
    def stream(self) -> str:
        """The name of the stream, or the beginning of the names of several."""
        return self.options.get("stream", "txrealtime:stream")

    @property
    def name(self) -> str:
        """The URL for logs, without user, password and query."""
        if self.scheme == "unix":
            return f"unix:{self.path}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        scheme = f"{self.scheme}{STREAMS}" if self.isStreams else self.scheme
        return f"{scheme}://{hosts}/{self.path}".rstrip("/")

    def connect(
        self, reactor: IReactorTime, protocol: Protocol, host: str, port: int, timeout: float
    ) -> Deferred[IProtocol]:
        """
        Connect a protocol to a host, or to the Unix socket at :attr:`path`, with TLS if the scheme has it.

        :param timeout: seconds to connect in.
        :return: fires with the connected protocol; fails if there is no connection, or a file named in the
            options cannot be read; fails with ``CancelledError`` and nothing else if it is cancelled.
        """
        endpoint: IStreamClientEndpoint
        if self.scheme in SOCKETS:
            path = self.path if self.scheme == "unix" else f"/{self.path}"
            endpoint = UNIXClientEndpoint(reactor, path, timeout)
        else:
            endpoint = HostnameEndpoint(reactor, host, port, timeout)
        if self.scheme in SECURE:
            try:
                endpoint = wrapClientTLS(self._tls(host), endpoint)
            except Exception as error:
                return fail(error)
        connecting: Deferred[IProtocol] = endpoint.connect(_Once(protocol))

        # A cancelled endpoint fails in ways of its own, for instance as if the host had no name.
        def cancel(connected: Deferred[IProtocol]) -> None:
            connected.errback(CancelledError())
            connecting.cancel()

        def ended(result: IProtocol | Failure) -> None:
            if not connected.called:
                connected.callback(result)

        connected: Deferred[IProtocol] = Deferred(cancel)
        connecting.addBoth(ended)
        return connected

    def clientContext(self) -> SSLContext:
        """
        Return the TLS context for the standard library's sockets.

        :raises OSError: if a file named in the options cannot be read.
        """
        authorities, certificate, key = (self.options.get(name) for name in FILES)
        context = create_default_context(cafile=authorities)
        if certificate:
            context.load_cert_chain(certificate, key)
        return context

    def _tls(self, host: str) -> IOpenSSLClientConnectionCreator:
        authorities, certificate, key = (self.options.get(name) for name in FILES)
        trusted = own = None
        if authorities:
            pem = FilePath(authorities).getContent()
            end = b"-----END CERTIFICATE-----"
            trusted = trustRootFromCertificates(
                [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]
            )
        if certificate:
            pem = FilePath(certificate).getContent()
            own = PrivateCertificate.loadPEM(pem + (FilePath(key).getContent() if key else b""))
        return optionsForClientTLS(host, trustRoot=trusted, clientCertificate=own)


def splitURL(url: str) -> SplitResult:
    """
    Split a broker's URL.

    :raises ValueError: if the text is not the URL of a broker.  The error does not show the password.
    """
    if len(splitBuses(url)) > 1:
        raise ValueError("the URL names several brokers, and here one is expected")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"the URL of the bus is broken: {_example(url)}") from None
    scheme = parts.scheme.removesuffix(STREAMS) if parts.scheme.startswith("redis") else parts.scheme
    if scheme not in PORTS:
        known = ", ".join(f"{scheme}://" if scheme != "unix" else "unix:PATH" for scheme in PORTS)
        # The text may be a password, so the error shows no more of it.
        asked = f"no bus is called {parts.scheme}://" if parts.scheme else "the URL of the bus has no scheme"
        raise ValueError(f"{asked}: expected {known}")
    if parts.fragment or "@" in f"{parts.path}{parts.query}":
        # Either may be the second half of a password, so the error does not show it.
        raise ValueError(
            f"the URL of the bus is broken: {_example(url)}; "
            "in a password, write / as %2F, ? as %3F, # as %23"
        )
    return parts


class _Once(Factory):
    """A factory of one protocol, without log lines of its own."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, address: object) -> Protocol:
        return self._protocol


def _hosts(parts: SplitResult) -> list[tuple[str, int]]:
    """Return the hosts with their ports.  ``urlsplit`` reads only one host."""
    hosts = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        try:
            one = urlsplit(f"//{text}")
            port = one.port or PORTS[parts.scheme.removesuffix(STREAMS)]
            hosts.append((one.hostname or "localhost", port))
        except ValueError:
            # The error does not show the text: without an @ it may be a password.
            raise ValueError("the URL of the bus has no host: expected HOST or HOST:PORT") from None
    return hosts


def _checkSocket(host: str, path: str) -> None:
    """
    Check the path of a hub's socket.

    :raises ValueError: if there can be no such socket.
    """
    if host or not path or path.endswith("/"):
        # Without the host, which may be a password.
        raise ValueError("the URL of the hub names no file: expected unix:/PATH")
    if "\0" in path:
        raise ValueError("the path of a socket has no zero byte")
    size = len(os.fsencode(path))
    if size > MAX_PATH:
        raise ValueError(f"the path of a socket has at most {MAX_PATH} bytes, and this one {size}")


def _example(url: str) -> str:
    """Describe a URL that must not be shown, because it may have a password."""
    return f"expected something like redis://user:password@host:6379, and came {len(url)} characters"
