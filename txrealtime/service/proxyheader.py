"""
The PROXY protocol, versions 1 and 2: a header in which a proxy names the client, before all else.

Twisted has a parser behind endpoint strings that begin with ``haproxy:``.  This one takes its place:

- The site sees a connection only after the header.  Limits for each address then count the client's
  address, and not the proxy's.
- The site gets the transport itself and no wrapper, so the fast path writes to the socket.
- The header comes before TLS, as proxies send it, and not within.
- A header may arrive in pieces, and ``PROXY UNKNOWN`` may stand alone: nginx and HAProxy send this for
  clients of a UNIX socket.
- Addresses are checked, and come in their normal form.  A wrong header ends the connection with one line
  in the log and no traceback.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

from twisted.internet import address
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txrealtime.engineio.tcp import currentProtocol, peerAddress, replaceProtocol
from txrealtime.logs import Logger

__all__ = ["PREFIX", "Header", "ProxiedFactory", "readHeader"]

_log = Logger()

PREFIX: Final = "haproxy:"

# A proxy sends the header at once; section 2 asks for at least 3 seconds.
_PATIENCE: Final = 10.0

# Section 2.1: the longest line has 107 bytes.
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
_LONGEST_LINE: Final = 107

# Section 2.2.
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _IPV4, _IPV6, _UNIX = range(4)
_SIZES: Final = {_IPV4: 4, _IPV6: 16, _UNIX: 108}


class Header(NamedTuple):
    """
    A PROXY header.

    :ivar length: its length in bytes.
    :ivar source: the client's address; ``None`` if the proxy speaks for itself, as in health checks, or
        cannot tell.
    :ivar destination: the address to which the client connected, or ``None``.
    """

    length: int
    source: IAddress | None = None
    destination: IAddress | None = None


def readHeader(data: bytes) -> Header | None:
    """
    Read the header at the start of a connection.

    :return: the header, or ``None`` if more bytes must come.
    :raises ValueError: if the bytes are no header.
    """
    if data.startswith(b"PROXY "[: len(data)]):
        return _readLine(data)
    if data.startswith(_SIGNATURE[: len(data)]):
        return _readBinary(data)
    raise ValueError("no PROXY header")


def _readLine(data: bytes) -> Header | None:
    end = data.find(b"\n", 0, _LONGEST_LINE) + 1
    if not end:
        if len(data) < _LONGEST_LINE:
            return None
        raise ValueError("the line is too long")
    match = _LINE.fullmatch(data[:end])
    if match is None:
        raise ValueError("the line is wrong")
    if match[1] is None:
        return Header(end)
    source, destination, sourcePort, destinationPort = (part.decode() for part in match.groups()[1:])
    make = _ipv4 if match[1] == b"4" else _ipv6
    return Header(end, make(source, int(sourcePort)), make(destination, int(destinationPort)))


def _readBinary(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family, protocol = data[12], data[13] >> 4, data[13] & 15
    if command not in (_LOCAL, _PROXY) or family > _UNIX or protocol > 2:
        raise ValueError("the version, command or family is wrong")
    length = 16 + int.from_bytes(data[14:16])
    size = _SIZES.get(family, 0)
    addressed = command == _PROXY and size and protocol
    if addressed and length < 16 + 2 * size + (4 if family != _UNIX else 0):
        raise ValueError("the addresses are too short")
    if len(data) < length:
        return None
    if not addressed:
        return Header(length)
    source, destination, rest = data[16 : 16 + size], data[16 + size : 16 + 2 * size], data[16 + 2 * size :]
    if family == _UNIX:
        return Header(
            length, *(address.UNIXAddress(name.partition(b"\0")[0]) for name in (source, destination))
        )
    make: Any = _ipv4 if family == _IPV4 else _ipv6
    ports = int.from_bytes(rest[:2]), int.from_bytes(rest[2:4])
    return Header(length, make(source, ports[0]), make(destination, ports[1]))


def _ipv4(value: str | bytes, port: int) -> IAddress:
    return address.IPv4Address("TCP", str(IPv4Address(value)), _port(port))


def _ipv6(value: str | bytes, port: int) -> IAddress:
    found = IPv6Address(value)
    if found.ipv4_mapped:  # HAProxy's form for a client of IPv4 at a port of both families
        return _ipv4(str(found.ipv4_mapped), port)
    return address.IPv6Address("TCP", str(found), _port(port))


def _port(port: int) -> int:
    if port > 65535:
        raise ValueError("a port is too large")
    return port


class ProxiedFactory(Factory):
    """
    A factory of connections that begin with a PROXY header, and go on as another factory's.

    :param factory: the other factory.
    :param where: the endpoint string, for the log.
    """

    noisy = False

    def __init__(self, reactor: IReactorTime, factory: Any, where: str) -> None:
        self.reactor = reactor
        self.factory = factory
        self._where = where
        self._hasWarned = False

    def doStart(self) -> None:
        """Tell the other factory that it listens."""
        self.factory.doStart()

    def doStop(self) -> None:
        """Tell the other factory that it listens no more."""
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return the protocol that reads the header."""
        return _HeaderProtocol(self)

    def warn(self, peer: str, reason: str) -> None:
        """Tell the log, once, that a connection is dropped."""
        if not self._hasWarned:
            self._hasWarned = True
            _log.warn(
                "{where}: dropped a connection of {peer}, and will say so once: {reason}. Expected a PROXY "
                "header, as HAProxy sends with send-proxy; without one, listen without 'haproxy:'",
                where=self._where,
                peer=peer,
                reason=reason,
            )


class _HeaderProtocol(Protocol):
    """The first protocol of a connection: it reads the header, then lets the site's protocol take over."""

    _deadline: IDelayedCall | None = None

    def __init__(self, factory: ProxiedFactory) -> None:
        self._factory = factory
        self._received = b""

    def connectionMade(self) -> None:
        self._deadline = self._factory.reactor.callLater(_PATIENCE, self._late)

    def _late(self) -> None:
        self._deadline = None
        transport: Any = self.transport
        transport.abortConnection()

    def _stopWaiting(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stopWaiting()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        transport: Any = self.transport
        try:
            header = readHeader(self._received)
        except ValueError as error:
            self._factory.warn(peerAddress(transport), str(error))
            transport.abortConnection()
            return
        if header is not None:
            self._stopWaiting()
            self._giveWay(transport, header)

    def _giveWay(self, transport: Any, header: Header) -> None:
        # All that asks for addresses asks the transport.
        if header.source is not None:
            transport.getPeer = lambda: header.source
            transport.getHost = lambda: header.destination
        replaceProtocol(transport, self._factory.factory.buildProtocol(transport.getPeer()))
        rest = self._received[header.length :]
        if rest:
            currentProtocol(transport).dataReceived(rest)
