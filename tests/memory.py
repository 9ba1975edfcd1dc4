"""
An engine in a site, on a Clock, and its clients, all in memory.

A :class:`Link` acts as a TCP connection of the reactor, and records writes for the tests.  Data from a
client arrives at once, unless the server has stopped reading; nothing else happens without a call.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from txrealtime.engineio.engine import Engine
from txrealtime.engineio.http.resource import EngineResource
from txrealtime.engineio.http.site import EngineSite
from txrealtime.engineio.session import CloseReason, IReceiver, Session
from txrealtime.engineio.settings import Settings


@implementer(IReceiver)
class Recorder:
    """
    A receiver of a session that records messages and the end.

    :ivar heard: the messages received.
    :ivar ends: the reasons of the session's end, at most one.
    :ivar onEnd: called with the reason of the end.
    :ivar onMessage: called with each message.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.heard: list[str | bytes] = []
        self.ends: list[CloseReason] = []
        self.onMessage: Callable[[str | bytes], object] = lambda data: None
        self.onEnd: Callable[[CloseReason], object] = lambda reason: None

    def messageReceived(self, data: str | bytes) -> None:
        assert not self.ends, "a message after the end"
        self.heard.append(data)
        self.onMessage(data)

    def sessionClosed(self, reason: CloseReason) -> None:
        self.ends.append(reason)
        self.onEnd(reason)


class Link(StringTransport):
    """
    A TCP connection in memory, as lenient as the reactor's.

    :ivar protocol: the protocol that receives data; an upgrade exchanges it.
    :ivar writes: the written objects, one for each call.
    :ivar outputEnded: ``True`` if the server has ended its output, and may still read.
    """

    outputEnded = False

    def __init__(self, address: str = "192.0.2.7", secure: bool = False) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", address, 40000), lenient=True)
        self.protocol: Any = None
        self.writes: list[bytes] = []
        self._arriving = b""
        self._taken = 0

    def connect(self, factory: Any) -> Link:
        self.protocol = factory.buildProtocol(self.getPeer())
        self.protocol.makeConnection(self)
        return self

    def deliver(self, data: bytes) -> None:
        """Send data from the client; unread data waits for :meth:`turn`."""
        self._arriving += data
        self.turn()

    def turn(self) -> None:
        """Take the reactor's next turn: deliver data if the server reads."""
        while self._arriving and self.reading and not self.disconnected:
            data, self._arriving = self._arriving, b""
            self.protocol.dataReceived(data)

    @property
    def reading(self) -> bool:
        return self.producerState == "producing"

    def fill(self) -> None:
        """Push back, as TCP with a full buffer."""
        self.producer.pauseProducing()

    def drain(self) -> None:
        """Accept data again after :meth:`fill`."""
        self.producer.resumeProducing()

    def lose(self) -> None:
        """Lose the connection."""
        if self.connected:
            self.connected = False
            self.disconnecting = self.disconnected = True
            if self.producer is not None:
                self.producer.stopProducing()
            self.connectionLost(Failure(ConnectionDone()))

    def connectionLost(self, reason: Failure) -> None:
        """Called by :meth:`lose`, as by the reactor."""
        self.protocol.connectionLost(reason)

    def take(self) -> bytes:
        """Return the data written since the last call."""
        taken = self.value()[self._taken :]
        self._taken += len(taken)
        return taken

    # As the reactor's connections do:

    def loseWriteConnection(self) -> None:
        self.outputEnded = True

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        if self.connected and not self.disconnecting and not self.outputEnded:
            super().write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        if self.disconnected:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        self.producer = None


class Response(NamedTuple):
    """
    An HTTP response.

    :ivar headers: names in lower case; repeated ones joined by a comma.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[int, int, str]:
        """The status, code and message of a refusal."""
        refused = json.loads(self.body)
        assert sorted(refused) == ["code", "message"]
        assert self.headers["content-type"] == "application/json"
        return self.status, refused["code"], refused["message"]


def readResponse(data: bytes) -> tuple[Response | None, bytes]:
    """Split the output of a server into the first response and the rest."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        assert not head, head
        return None, b""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    length = int(headers.get("content-length", 0))
    assert "transfer-encoding" not in headers
    return Response(int(first.split()[1]), headers, rest[:length]), rest[length:]


class Exchange:
    """
    A request on a connection of its own, and the response.

    :ivar link: the connection.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._response: Response | None = None

    @property
    def response(self) -> Response | None:
        """The response, or ``None`` before it has come."""
        if self._response is None:
            self._response, rest = readResponse(self.link.take())
            assert not rest, rest
        return self._response

    @property
    def answer(self) -> Response:
        response = self.response
        assert response is not None, "not answered"
        return response

    @property
    def payload(self) -> list[bytes]:
        """The packets of the response to a GET."""
        assert self.answer.status == 200, self.answer
        return self.answer.body.split(b"\x1e")

    def drop(self) -> None:
        """Lose the connection of the client."""
        self.link.lose()


class Frame(NamedTuple):
    """A WebSocket frame from a server."""

    opcode: int
    payload: bytes
    rsv: int = 0
    fin: bool = True


CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def clientFrame(
    opcode: int,
    payload: bytes = b"",
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x01\x7f\x80\xff",
) -> bytes:
    """Make a frame of a client, masked as RFC 6455 demands, or unmasked."""
    size = len(payload)
    bit = 0x80 if mask is not None else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if mask is None:
        return head + payload
    key = (mask * (size // 4 + 1))[:size]
    return head + mask + bytes(a ^ b for a, b in zip(payload, key, strict=True))


def closeFrame(code: int, reason: str = "") -> Frame:
    return Frame(CLOSE, struct.pack("!H", code) + reason.encode())


class WebSocket:
    """
    A client's side of a WebSocket, frame by frame.

    :ivar response: the response to the opening handshake, or ``None`` before it has come.
    """

    def __init__(self, link: Link, request: bytes) -> None:
        self.link = link
        self._data = b""
        self._response: Response | None = None
        link.deliver(request)

    @property
    def response(self) -> Response | None:
        if self._response is None:
            self._response, self._data = readResponse(self.link.take())
        return self._response

    def sendFrame(self, opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> None:
        self.link.deliver(clientFrame(opcode, payload, fin, rsv))

    def send(self, message: str | bytes) -> None:
        """Send a text or binary message in one frame."""
        if isinstance(message, str):
            self.sendFrame(TEXT, message.encode())
        else:
            self.sendFrame(BINARY, message)

    def frames(self) -> list[Frame]:
        """Return the frames that came since the last call."""
        assert self.response is not None and self.response.status == 101, self.response
        self._data += self.link.take()
        frames = []
        while self._data:
            first, size = self._data[:2]
            start = 2
            if size > 125:
                start = 4 if size == 126 else 10
                size = int.from_bytes(self._data[2:start], "big")
            assert len(self._data) >= start + size, "half a frame"
            payload = self._data[start : start + size]
            frames.append(Frame(first & 15, payload, first >> 4 & 7, bool(first >> 7)))
            self._data = self._data[start + size :]
        return frames

    def messages(self) -> list[str | bytes]:
        """Return the messages that came since the last call, and fail on any other frame."""
        frames = self.frames()
        assert all(frame.opcode in (TEXT, BINARY) and frame.fin and not frame.rsv for frame in frames), frames
        return [frame.payload.decode() if frame.opcode == TEXT else frame.payload for frame in frames]


class WireTestCase(SynchronousTestCase):
    """
    A test with an engine at /engine.io/ in a site, and with its clients.

    :ivar clock: the only clock.
    :ivar owners: the receivers of the sessions opened, oldest first.
    """

    HOST = "example.org"

    fastPath = False
    """``True`` for an EngineSite, with its fast path for polling requests; ``False`` for any other Site."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.owners: list[Recorder] = []
        self.makeEngine()

    def makeEngine(self, allowRequest: Any = None, **settings: Any) -> None:
        """Make an engine with some settings, in a site of its own."""
        self.engine = Engine(
            lambda session: self.own(session), Settings(**settings), self.clock, allowRequest
        )
        self.root = Resource()
        options = {"reactor": self.clock, "timeout": None}
        if self.fastPath:
            self.site: Site = EngineSite(self.root, "/engine.io", self.engine, **options)
        else:
            self.root.putChild(b"engine.io", EngineResource(self.engine))
            self.site = Site(self.root, **options)

    def own(self, session: Session) -> Recorder:
        """Create the receiver of a new session."""
        self.owners.append(Recorder(session))
        return self.owners[-1]

    @property
    def owner(self) -> Recorder:
        """The receiver of the last session."""
        return self.owners[-1]

    @property
    def session(self) -> Session:
        """The last session."""
        return self.owner.session

    def requestBytes(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> bytes:
        lines = [f"{method} {url} HTTP/1.1"]
        lines += [
            f"{name}: {value}" for name, value in {"Host": self.HOST, **(headers or {})}.items() if value
        ]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")

    def request(
        self,
        method: str,
        sid: str | None = None,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        address: str = "192.0.2.7",
        **query: str,
    ) -> Exchange:
        """Send a request of a polling client, without the empty fields of its query."""
        fields = {"EIO": "4", "transport": "polling", **query}
        if sid is not None:
            fields["sid"] = sid
        url = "/engine.io/?" + urlencode({name: value for name, value in fields.items() if value})
        link = Link(address).connect(self.site)
        link.deliver(self.requestBytes(method, url, headers, body))
        return Exchange(link)

    def get(self, sid: str | None = None, **options: Any) -> Exchange:
        return self.request("GET", sid, **options)

    def post(self, sid: str, body: bytes, **options: Any) -> Exchange:
        headers = {"Content-Type": "text/plain;charset=UTF-8", **options.pop("headers", {})}
        return self.request("POST", sid, body, headers=headers, **options)

    def openPolling(self, **options: Any) -> str:
        """Open a session over long polling, and return its sid."""
        (packet,) = self.get(**options).payload
        assert packet[:1] == b"0", packet
        sid: str = json.loads(packet[1:])["sid"]
        return sid

    def webSocket(
        self,
        sid: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        factory: Any = None,
        address: str = "192.0.2.7",
        **query: str,
    ) -> WebSocket:
        """Open a client's WebSocket to the site, or to a factory."""
        fields = {"EIO": "4", "transport": "websocket", **query}
        if sid is not None:
            fields["sid"] = sid
        url = "/engine.io/?" + urlencode({name: value for name, value in fields.items() if value})
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **(headers or {}),
        }
        link = Link(address).connect(factory or self.site)
        return WebSocket(link, self.requestBytes("GET", url, upgrade))

    def openWebSocket(self, **options: Any) -> WebSocket:
        """Open a session over WebSocket, and read its open packet."""
        client = self.webSocket(**options)
        (opened,) = client.messages()
        assert opened[:1] == "0", opened
        return client

    def upgrade(self, sid: str) -> WebSocket:
        """Upgrade a session to WebSocket."""
        client = self.webSocket(sid)
        client.send("2probe")
        self.assertEqual(client.messages(), ["3probe"])
        client.send("5")
        return client

    def assertNothingLeft(self) -> None:
        """Assert that no session and no delayed call is left."""
        self.assertEqual(self.engine.sessions, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])
