"""
A fast path for the beginning and the end of a WebSocket (RFC 6455, 4.2 and 7.1).

Nearly all clients open a WebSocket by a plain request, and close it by a plain close frame.  For these,
:func:`replyTo` makes the response, :func:`isPlainClose` reads the client's close frame, and :class:`Closing`
waits for it.  Anything unusual goes to Autobahn byte for byte.  Autobahn takes 250 us and 8 kB for an opening
handshake, and as much again for a close frame.

Autobahn accepts every request that :func:`replyTo` accepts, with the same response.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha1
from typing import Any, Final

from twisted.python.failure import Failure

from txrealtime.engineio.tcp import endNow

__all__ = ["Closing", "acceptOf", "closeFrame", "isPlainClose", "replyTo"]

_HOST: Final = r"(?:[A-Za-z0-9.\-_]+|\[[0-9A-Fa-f:.]+\])"
_PORT: Final = r"(?::[0-9]{1,4}|:[1-5][0-9]{4})?"

_PATH: Final = re.compile(r"/(?!/)[!-\"$-~]*")
_AUTHORITY: Final = re.compile(_HOST + _PORT)
_ORIGIN: Final = re.compile("https?://" + _HOST + _PORT)
# RFC 6455, 4.1: 16 bytes in base64, so the last digit has four bits of zero.
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
# RFC 6455, 9.1, without quoted values.
_OFFER: Final = r"[A-Za-z0-9\-]+(?:; ?[A-Za-z0-9_\-]+(?:=[A-Za-z0-9]+)?)*"
_EXTENSIONS: Final = re.compile(f"{_OFFER}(?:, ?{_OFFER})*")

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# A request with one of these headers is not plain.
_UNUSUAL: Final = ("sec-websocket-protocol", "content-length", "transfer-encoding", "expect")


def acceptOf(key: bytes) -> bytes:
    """Return the ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455, 4.2.2)."""
    return b64encode(sha1(key + _GUID).digest())


def replyTo(url: str, headers: Mapping[str, str]) -> bytes | None:
    """
    Return the response that accepts a plain opening handshake without extensions (RFC 6455, 4.2).

    :param url: the path and query of a GET of HTTP/1.1.
    :param headers: the values by name in lower case; each header came once.
    :return: the response, or ``None`` if Autobahn must read the request.
    """
    given = headers.get
    key = given("sec-websocket-key", "")
    if (
        given("sec-websocket-version") != "13"
        or given("upgrade", "").lower() != "websocket"
        or not _KEY.fullmatch(key)
        or not _AUTHORITY.fullmatch(given("host", ""))
        or not _PATH.fullmatch(url)
        # Autobahn ends a line at U+0085, which the fast path takes for a letter.
        or not "".join(headers.values()).isascii()
    ):
        return None
    connection = given("connection", "").lower()
    if connection != "upgrade" and "upgrade" not in [option.strip() for option in connection.split(",")]:
        return None
    origin, extensions = given("origin"), given("sec-websocket-extensions")
    if (origin is not None and not _ORIGIN.fullmatch(origin)) or (
        extensions is not None and not _EXTENSIONS.fullmatch(extensions)
    ):
        return None
    for name in _UNUSUAL:
        if name in headers:
            return None
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % acceptOf(key.encode())
    )


def isPlainClose(payload: bytes) -> bool:
    """Tell if a close frame has no code, or one that browsers send, and a reason in UTF-8 (7.4.1)."""
    if payload[:2] not in (b"", b"\x03\xe8", b"\x03\xe9"):
        return False
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return False
    return True


def closeFrame(code: int, reason: str = "") -> bytes:
    """
    Build a server's close frame (RFC 6455, 5.5.1).

    :param reason: at most 123 bytes in UTF-8.
    """
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes((0x88, len(payload))) + payload


class Closing:
    """
    A WebSocket behind the server's close frame: messages are dropped until the client's close frame comes.

    It provides :class:`~txrealtime.engineio.websocket.handshakes.FullWebSocket`.

    :param transport: closed at the client's close frame; ``None`` if that frame has come already.
    :param partial: the beginning of a frame that has arrived.
    """

    __slots__ = ("_rest", "_skip", "_transport")

    compresses: Final = False
    isBetweenMessages: Final = False

    def __init__(self, transport: Any, partial: bytes = b"") -> None:
        self._transport = transport
        self._rest = partial
        # The bytes of a payload that have not come yet.
        self._skip = 0

    def feed(self, data: bytes) -> None:
        """Read some bytes."""
        if self._transport is None:
            return
        data = self._rest + data
        position, end = self._skip, len(data)
        while end - position >= 2:
            size = data[position + 1] & 127
            start = position + (6 if size < 126 else 8 if size == 126 else 14)
            if start > end:
                break
            if data[position] & 15 == 8:
                transport, self._transport = self._transport, None
                endNow(transport)
                return
            if size > 125:
                size = int.from_bytes(data[position + 2 : start - 4], "big")
            position = start + size
        self._skip = max(0, position - end)
        self._rest = data[position:]

    def readNothing(self) -> None:
        """Drop all that comes."""
        self._transport = None

    def connectionLost(self, reason: Failure) -> None:
        self._transport = None

    def takeRest(self) -> bytes | None:
        """Return nothing: the opening handshake is long over."""
        return None

    def ignore(self, *arguments: Any) -> None:
        """Do nothing: a closing WebSocket sends no more."""

    resume = startClosing = answerPing = sendCompressed = ignore
