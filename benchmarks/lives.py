"""
The load generator's clients that come and go: each connects, enters a namespace and a room, and leaves.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from time import perf_counter

from benchmarks.frames import CLOSE, masked
from benchmarks.load import CHUNK, Address, Loop, Wrong
from benchmarks.polling import PollingClient
from benchmarks.websocket import Exchange, WebSocketClient

JOIN, JOINED = b'42100["join","red"]', b"43100["
LEAVE, END = b"41", b"1"

_JOIN = masked(JOIN)
# The JavaScript client's disconnect(): Socket.IO's packet, then WebSocket's close frame with code 1000.
_GOODBYE = masked(LEAVE) + masked(b"\x03\xe8", CLOSE)


class WebSocketLife(WebSocketClient):
    """
    A life by WebSocket, which ends when the server has closed the TCP connection (RFC 6455, 7.1.1).

    :param ended: called at the end.
    :ivar endedAt: the time of the end.
    """

    __slots__ = ("_ended", "_leaving", "endedAt")

    def __init__(
        self,
        loop: Loop,
        address: Address,
        ended: Callable[[], None],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._ended = ended
        self._leaving = False
        self.endedAt = 0.0
        super().__init__(loop, address, self._connected, context)

    def _connected(self) -> None:
        self.write(_JOIN)

    def message(self, payload: bytes, now: float) -> None:
        if not payload.startswith(JOINED) or self._leaving:
            raise Wrong(f"not the acknowledgement that is due: {payload[:80]!r}")
        self._leaving = True
        self.loop.readers[self.fd] = self._left
        self.write(_GOODBYE)

    def _left(self) -> None:
        try:
            # Over TLS one read may have both the close frame and the end, and the loop calls only once.
            while self.receive(CHUNK):
                pass
        except (ConnectionResetError, ssl.SSLError):
            pass
        self.close()
        self.endedAt = perf_counter()
        self._ended()


class PollingLife(PollingClient):
    """
    A life by long polling, which ends when its last POST has been answered.

    :param ended: called at the end.
    """

    def __init__(self, loop: Loop, address: Address, ended: Callable[[], None]) -> None:
        self.startedAt = perf_counter()
        self.endedAt = 0.0
        self._ended = ended
        self._loop = loop
        self._leaving = False
        super().__init__(loop, address, self._entered, Exchange([""], 0), 0)

    def _entered(self) -> None:
        self._post(JOIN)

    def _received(self, body: bytes, now: float) -> None:
        self._down.request(self._get(), self._received)
        for packet in body.split(b"\x1e"):
            if packet == b"2":
                self._post(b"3")
            elif packet.startswith(JOINED) and not self._leaving:
                self._leaving = True
                # The GET that waits may have any answer, or none: servers differ.
                self._loop.readers[self._down.fd] = self._down.close
                self._post(LEAVE)
                self._post(END)
            else:
                raise Wrong(f"not the acknowledgement that is due: {packet[:80]!r}")

    def _taken(self, body: bytes, now: float) -> None:
        super()._taken(body, now)
        if self._leaving and not self._posting:
            self.close()
            self.endedAt = now
            self._ended()
