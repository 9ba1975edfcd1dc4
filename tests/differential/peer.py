"""
A client that sends what it is told, and writes down what it gets, so that two servers' can be compared.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import websocket

__all__ = ["Got", "Peer", "request"]

DEADLINE = 20.0
"Seconds in which a server must have answered."

_PACKET = re.compile(r"([0-6])(?:(\d+)-)?(?:(/[^,]*),)?(\d*)(.*)", re.DOTALL)

_OPEN_KEYS = ("upgrades", "pingInterval", "pingTimeout", "maxPayload")


class Got(NamedTuple):
    """
    A Socket.IO packet that came.

    :ivar id: of the ack; `"*"` for one that the server chose.
    :ivar data: as JSON has it, without random ids.
    """

    type: int
    namespace: str
    id: int | str | None
    data: Any
    attachments: tuple[bytes, ...]


class Closed(Exception):
    """The server has ended the session."""


def request(url: str, method: str, target: str, body: bytes | None = None) -> tuple[int, str]:
    """Make an HTTP request, and return the status and the body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE)
    headers = {"Content-Type": "text/plain;charset=UTF-8"} if body is not None else {}
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


class Peer:
    """
    A client of one server.

    :param transport: polling, websocket, upgrade (polling first), or unprobed (polling first, and no probe
        of the WebSocket); with a 3 behind it, as a client of Engine.IO 3, which takes no binary bodies.
    :ivar sid: of its session.
    :ivar got: what came, in order; the last is ``"closed"`` when the session has ended.
    """

    def __init__(self, url: str, transport: str) -> None:
        self.isOld = transport.endswith("3")
        transport = transport.rstrip("3")
        self._url = url
        self._query = "?EIO=3&b64=1" if self.isOld else "?EIO=4"
        self._webSocket: websocket.WebSocket | None = None
        self.got: list[Any] = []
        self.joined: set[str] = set()
        self._barriers = 9000
        self._pending: list[Any] = []
        self._partial: tuple[Got, int] | None = None
        self.isClosed = False
        if transport == "websocket":
            self._open("")
        else:
            self._target = f"/socket.io/{self._query}&transport=polling"
            status, text = request(url, "GET", self._target)
            assert status == 200, (status, text)
            opened, *rest = self._split(text)
            self._opened(opened)
            for packet in rest:
                self._packetReceived(packet)
            self._target += f"&sid={self.sid}"
            if transport == "upgrade":
                self._upgrade()
            elif transport == "unprobed":
                self._open(f"&sid={self.sid}")
                self._webSocket.send("5")
        if self.isOld and "/" not in self.joined:
            self.readUntil(lambda got: got.type == 0)

    # -- the session -------------------------------------------------------------------

    def _open(self, query: str) -> None:
        target = f"/socket.io/{self._query}&transport=websocket{query}".replace("&b64=1", "")
        url = self._url.replace("http", "ws") + target
        self._webSocket = websocket.create_connection(url, timeout=DEADLINE)
        if not query:
            self._opened(self._webSocket.recv())

    def _opened(self, text: str) -> None:
        opened = json.loads(text[1:])
        self.sid = opened["sid"]
        self.got.append({key: opened.get(key) for key in _OPEN_KEYS})

    def _upgrade(self) -> None:
        self._open(f"&sid={self.sid}")
        assert self._webSocket is not None
        self._webSocket.send("2probe")
        assert self._webSocket.recv() == "3probe"
        for packet in self._split(request(self._url, "GET", self._target)[1]):
            if packet != "6":
                self._packetReceived(packet)
        if packet != "6":
            assert request(self._url, "GET", self._target)[1] in ("6", "1:6")
        self._webSocket.send("5")

    def send(self, *packets: str | bytes) -> None:
        """Send Engine.IO packets, bytes as binary messages, together where the transport can."""
        if self.isClosed:
            return
        if self._webSocket is None:
            status, _ = request(self._url, "POST", self._target, self._joined(packets).encode())
            if status != 200:
                self._end()
            return
        try:
            for packet in packets:
                if isinstance(packet, bytes):
                    self._webSocket.send_binary(b"\x04" + packet if self.isOld else packet)
                else:
                    self._webSocket.send(packet)
        except (OSError, websocket.WebSocketException):
            pass  # what it has sent before may still be there to be read

    def _receive(self) -> list[str | bytes]:
        """The Engine.IO packets that come next."""
        if self._webSocket is not None:
            try:
                opcode, data = self._webSocket.recv_data()
            except (ConnectionError, websocket.WebSocketConnectionClosedException):
                raise Closed from None
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                raise Closed
            if opcode == websocket.ABNF.OPCODE_BINARY:
                return [data[1:] if self.isOld else data]
            return [data.decode()]
        status, text = request(self._url, "GET", self._target)
        if status != 200:
            raise Closed
        return self._split(text)

    # -- bodies ------------------------------------------------------------------------

    def _joined(self, packets: Sequence[str | bytes]) -> str:
        """The body of a POST."""
        prefix = "b4" if self.isOld else "b"
        parts = [
            part if isinstance(part, str) else prefix + base64.b64encode(part).decode() for part in packets
        ]
        if not self.isOld:
            return "\x1e".join(parts)
        return "".join([f"{len(part.encode('utf-16-le')) // 2}:{part}" for part in parts])

    def _split(self, text: str) -> list[str | bytes]:
        """The packets in the answer to a GET."""
        if not self.isOld:
            return [base64.b64decode(part[1:]) if part[:1] == "b" else part for part in text.split("\x1e")]
        parts: list[str | bytes] = []
        units = text.encode("utf-16-le")
        while units:
            size, _, _ = units.decode("utf-16-le").partition(":")
            start = 2 * (len(size) + 1)
            part = units[start : start + 2 * int(size)].decode("utf-16-le")
            units = units[start + 2 * int(size) :]
            parts.append(base64.b64decode(part[2:]) if part[:1] == "b" else part)
        return parts

    def _end(self) -> None:
        if not self.isClosed:
            self.isClosed = True
            self.got.append("closed")

    # -- the talk ------------------------------------------------------------------------

    def settle(self) -> None:
        """Take all that the server has sent until now, as far as a client that is in ``/`` can tell."""
        while not self.isClosed and "/" in self.joined:
            self._barriers += 1
            number = self._barriers
            self.send(f'42{number}["barrier",{number}]')
            barrier = Got(3, "/", number, [number], ())
            if not self.readUntil(barrier.__eq__):
                return
            self.got.remove(barrier)
            if not self._pending:
                return
            pending, self._pending = self._pending, []
            self.send(*pending)

    def connect(self, namespace: str, message: str) -> None:
        """Ask for a namespace, and wait for the answer."""
        self.send(message)
        self.readUntil(lambda got: got.type in (0, 4) and got.namespace == namespace)

    def roundTrip(self) -> None:
        """Wait until the server has taken in what was sent, when nothing is to come."""
        if self._webSocket is None or self.isClosed:
            return  # a POST is answered when that is so
        try:
            self._webSocket.ping()
            while self._webSocket.recv_data(control_frame=True)[0] != websocket.ABNF.OPCODE_PONG:
                pass
        except (ConnectionError, websocket.WebSocketConnectionClosedException):
            self._end()

    def readUntil(self, isLast: Any) -> bool:
        """Read until something has come; False when the session has ended."""
        found = False
        try:
            while not self.isClosed and not found:
                for packet in self._receive():
                    if packet in ("2", "6"):
                        if packet == "2":
                            self.send("3")
                    elif packet == "1":
                        raise Closed
                    else:
                        self._packetReceived(packet)
                        found = found or (isinstance(self.got[-1], Got) and isLast(self.got[-1]))
        except Closed:
            self._end()
        return found

    def _packetReceived(self, packet: str | bytes) -> None:
        if isinstance(packet, bytes):
            assert self._partial is not None, "binary that nothing announced"
            got, missing = self._partial
            got = got._replace(attachments=(*got.attachments, packet))
            self._partial = (got, missing - 1) if missing > 1 else None
            if self._partial is None:
                self._complete(got)
            return
        match = _PACKET.fullmatch(packet[1:])
        assert packet[0] == "4" and match is not None, packet
        type, count, namespace, id, text = match.groups()
        got = Got(
            int(type), namespace or "/", int(id) if id else None, json.loads(text) if text else None, ()
        )
        if count and int(count):
            self._partial = (got, int(count))
        else:
            self._complete(got)

    def _complete(self, got: Got) -> None:
        if got.type == 0:
            self.joined.add(got.namespace)
            got = got._replace(data=sorted(got.data or {}))
        elif got.type == 1:
            self.joined.discard(got.namespace)
        elif got.type in (2, 5) and got.id is not None:
            path = "" if got.namespace == "/" else f"{got.namespace},"
            self._pending.append(f'43{path}{got.id}["yes"]')
            got = got._replace(id="*")
        self.got.append(got)

    def leave(self) -> None:
        """Go away."""
        if self._webSocket is not None:
            self._webSocket.close(timeout=0)
        elif not self.isClosed:
            request(self._url, "POST", self._target, b"1:1" if self.isOld else b"1")
