"""
A WebSocket whose handshake and frames are plain, as nearly all of a client's are.

:class:`Plain` writes the opening request, and reads a response that says no more than RFC 6455, 4.2.2
asks for.  Everything else goes to the complete protocol, which then has the connection for good: other
responses, extensions, cookies, control frames, fragments, violations, and the closing handshake.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from txrealtime.client.frames import Frames
from txrealtime.engineio.tcp import setProtocol
from txrealtime.engineio.websocket.opening import acceptOf

__all__ = ["Plain", "PlainFactory", "PlainOwner", "isAccepted", "request"]

# Bytes of a head that is read here; Autobahn reads longer ones, up to the limit of all heads.
_MOST: Final = 4096

_STATUS: Final = re.compile(rb"HTTP/1\.1 101(?: [\x20-\x7e]*)?")
_HEADER: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*"
)

# Headers of a response that change the connection, or that the client keeps.
_UNUSUAL: Final = frozenset(
    [
        b"content-length",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"set-cookie",
        b"transfer-encoding",
    ]
)


def request(url: str, headers: Mapping[str, str], key: bytes) -> bytes:
    """Write an opening request (RFC 6455, 4.1)."""
    parts = urlsplit(url)
    target = parts.path + ("?" + parts.query if parts.query else "")
    host = parts.hostname or ""
    if ":" in host:  # IPv6
        host = f"[{host}]"
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}:{parts.port or (443 if parts.scheme == 'wss' else 80)}",
        "Upgrade: WebSocket",
        "Connection: Upgrade",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        *[f"{name}: {value}" for name, value in headers.items()],
        f"Sec-WebSocket-Key: {key.decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def isAccepted(head: bytes, key: bytes) -> bool:
    """
    Tell if a response accepts a WebSocket, and says nothing unusual (RFC 6455, 4.1).

    :param head: the head, up to the empty line.
    """
    status, *lines = head.split(b"\r\n")
    if not _STATUS.fullmatch(status):
        return False
    headers: dict[bytes, bytes] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            return False
        name = match[1].lower()
        if name in headers or name in _UNUSUAL:
            return False
        headers[name] = match[2]
    return (
        headers.get(b"upgrade", b"").lower() == b"websocket"
        and headers.get(b"connection", b"").lower() == b"upgrade"
        and headers.get(b"sec-websocket-accept") == acceptOf(key)
    )


class PlainOwner(Protocol):
    """The transport, as its plain WebSocket knows it."""

    maxPayload: int
    url: str

    def headers(self) -> dict[str, str]: ...

    def textReceived(self, text: str) -> None: ...

    def bytesReceived(self, data: bytes) -> None: ...

    def made(self, protocol: Any) -> None: ...

    def opened(self) -> None: ...

    def becomeFull(self, transport: Any, key: bytes, isOpen: bool) -> Any:
        """
        Give a connection to the complete protocol.

        :param key: the ``Sec-WebSocket-Key`` that was sent.
        :param isOpen: true if the handshake is complete.
        :return: that protocol.
        """

    @property
    def isOver(self) -> bool:
        """True if nobody hears of the connection's end."""


class Plain(Frames):
    """
    The protocol of a connection while all is plain.

    :param owner: the transport.
    """

    compresses: Final = False

    def __init__(self, owner: PlainOwner) -> None:
        self.transport: Any = None
        self.maxPayload = owner.maxPayload
        self.textReceived = owner.textReceived
        self.bytesReceived = owner.bytesReceived
        self._owner = owner
        self._key = b64encode(os.urandom(16))
        self._head = b""
        self._full: Any = None

    def makeConnection(self, transport: Any) -> None:
        """Called when the connection is made."""
        self.transport = transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        owner = self._owner
        transport.write(request(owner.url, owner.headers(), self._key))
        owner.made(self)

    # -- reading -----------------------------------------------------------------

    @property
    def isBetweenMessages(self) -> bool:
        return self._full is None

    def readFully(self, data: bytes) -> None:
        if self._full is not None:
            # The rest of a read that the complete protocol has begun.
            self._full.dataReceived(data)
            return
        if self.isFast:
            self._become(True).dataReceived(data)
            return
        head = self._head + data
        end = head.find(b"\r\n\r\n")
        if end < 0 and len(head) <= _MOST:
            self._head = head
            return
        self._head = b""
        if end < 0 or not isAccepted(head[:end], self._key):
            self._become(False).dataReceived(head)
            return
        self.isFast = True
        # Without the wrapper of the endpoint, a call for each read.
        setProtocol(self.transport, self)  # type: ignore[arg-type]
        self._owner.opened()
        rest = head[end + 4 :]
        if rest and self._full is None:
            self._readsFully = False
            self.dataReceived(rest)
        elif rest:
            self._full.dataReceived(rest)

    def _become(self, isOpen: bool) -> Any:
        self.uncork()
        self.leaveFastPath()
        self._full = self._owner.becomeFull(self.transport, self._key, isOpen)
        return self._full

    # -- rare --------------------------------------------------------------------

    def sendClose(self, code: int) -> None:
        """Begin the closing handshake."""
        partial, self._partial = self._partial, None
        full = self._become(self.isFast)
        if partial:
            full.dataReceived(bytes(partial))
        full.sendClose(code)

    def sendLatePong(self) -> None:
        """Do nothing: PINGs go to the complete protocol."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called when the connection is lost."""
        if self._full is None and not self._owner.isOver:
            self._become(self.isFast).connectionLost(reason)


class PlainFactory(Factory):
    """Makes the protocol of one connection."""

    noisy = False

    def __init__(self, owner: PlainOwner) -> None:
        self._owner = owner

    def buildProtocol(self, address: Any) -> Any:
        return Plain(self._owner)
