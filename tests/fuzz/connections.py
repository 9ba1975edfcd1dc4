r"""
Fuzz targets for whole connections: a story of clients, their networks and the application.

A story is lines, and the first byte of a line says what happens:

====== ==============================================================================================
byte   what happens; the rest of the line is the data
====== ==============================================================================================
``P``  a session is opened over long polling, the rest is added to its query; it is the current one
``W``  a session is opened over WebSocket, likewise
``U``  a WebSocket is opened for the current session
``g``  a GET for it
``p``  a POST for it, with the rest as its body
``o``  the same, as ``application/octet-stream``
``j``  the same, as a JSONP form
``t``  a text message on the current WebSocket
``b``  a binary message on it
``z``  a text message on it, compressed
``f``  a frame on it, the first byte of the rest as its first
``d``  bytes on the connection that was opened last
``h``  bytes on a new connection
``r``  the connection that was opened last is lost
``s``  TCP takes no more on the current WebSocket
``c``  it does again
``w``  time passes: as many tenths of a second as the next byte
``e``  the application emits the rest to everybody
``k``  the application disconnects somebody
``a``  handlers that wait get their answer
====== ==============================================================================================

``{sid}`` in any of it stands for the current session's, ``\r`` and ``\n`` for themselves.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.web.resource import Resource

from tests.memory import BINARY, CLOSE, PING, PONG, TEXT, Link, WebSocket, clientFrame, readResponse
from txrealtime import AckTimeout, ConnectionRejected, Disconnected, Server, Socket
from txrealtime.engineio.packet import EngineIO4
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import LimitExceeded
from txrealtime.socketio.msgpack import MsgpackParser
from txrealtime.socketio.packet import JSONParser
from txrealtime.testing import Client

__all__ = ["CONNECTIONS", "play"]

MOST_STEPS = 60

MAX_PAYLOAD = 1000
MAX_BUFFERED = 3000
MAX_WAITING = 4

_STATUSES = {101, 200, 204, 400, 403, 404, 405, 408, 411, 413, 414, 426, 429, 431, 501, 503}
_CLOSE_CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009}


class Application:
    """
    The clients' application, which remembers all who come and leave, and answers every message.

    :ivar here: the sockets admitted and not yet gone, by id.
    :ivar waiting: what handlers wait for.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.here: dict[str, Socket] = {}
        self.waiting: list[Deferred[Any]] = []
        for namespace in (server.namespace(), server.namespace("/chat"), server.namespace("/slow")):
            namespace.onDisconnect(self.gone)
            for name in ("echo", "back", "join", "leave", "shout", "ask", "wait", "bye", "bytes"):
                namespace.on(name)(getattr(self, name))
        server.onConnect(self.came)
        server.namespace("/chat").onConnect(self.cameIfPolite)
        server.namespace("/slow").onConnect(self.cameLater)

    def came(self, socket: Socket) -> None:
        assert socket.id not in self.here, "came twice"
        self.here[socket.id] = socket
        socket.emit("welcome")

    def cameIfPolite(self, socket: Socket, auth: Any) -> None:
        if not auth:
            raise ConnectionRejected("say please", {"code": 401})
        self.came(socket)

    async def cameLater(self, socket: Socket) -> None:
        await self.pause()
        self.came(socket)

    def gone(self, socket: Socket, reason: Any) -> None:
        assert isinstance(reason, CloseReason), reason
        assert self.here.pop(socket.id) is socket, "gone twice, or never here"
        assert not socket.rooms

    def pause(self) -> Deferred[None]:
        wait: Deferred[None] = Deferred()
        self.waiting.append(wait)
        return wait

    def goOn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for wait in waiting:
            if not wait.called:
                wait.callback(None)

    def echo(self, socket: Socket, *args: Any) -> Any:
        return args

    def back(self, socket: Socket, *args: Any) -> None:
        with contextlib.suppress(ValueError):  # it has no way to send what is nested so deeply
            socket.emit("back", *args)

    def join(self, socket: Socket, room: Any) -> None:
        with contextlib.suppress(LimitExceeded):
            socket.join(str(room))

    def leave(self, socket: Socket, room: Any) -> None:
        socket.leave(str(room))

    def shout(self, socket: Socket, room: Any) -> None:
        socket.to(str(room)).emit("heard", b"shouted")

    async def ask(self, socket: Socket) -> Any:
        with contextlib.suppress(AckTimeout, Disconnected):
            await socket.call("question", timeout=5)

    async def wait(self, socket: Socket, *args: Any) -> int:
        await self.pause()
        return len(args)

    def bye(self, socket: Socket, close: Any = False) -> None:
        socket.disconnect(close=bool(close))

    def bytes(self, socket: Socket) -> tuple[bytes, bytes]:
        return b"\0", b""


class Story:
    """
    A server, its application, and clients that do as a story says.

    :param protocol: 3 or 4, the version of Engine.IO that the clients' URLs name.
    :param isBinary: whether the server speaks MessagePack.
    :param settings: more of the server's.
    """

    def __init__(self, protocol: int = 4, isBinary: bool = False, **settings: Any) -> None:
        self.clock = Clock()
        self.server = Server(
            reactor=self.clock,
            parser=MsgpackParser() if isBinary else JSONParser(),
            allowEIO3=True,
            maxPayload=MAX_PAYLOAD,
            maxBuffered=MAX_BUFFERED,
            maxWaiting=MAX_WAITING,
            **settings,
        )
        self.server.startService()
        self.application = Application(self.server)
        self.site = self.server.site(Resource())
        self.protocol = protocol
        self.bystander = Client(self.server)
        self.bystander.connect()
        self.links: list[Link] = []
        self.written: dict[Link, bytes] = {}
        self.webSocket: Link | None = None
        self.sid = "none"

    # -- what happens ------------------------------------------------------------------

    def step(self, line: bytes) -> None:
        rest = line[1:].replace(b"{sid}", self.sid.encode())
        rest = rest.replace(b"\\r", b"\r").replace(b"\\n", b"\n")
        action = self.ACTIONS.get(line[:1])
        if action is None:
            return
        known = set(self.server.engine.sessions)
        action(self, rest)
        self.turn()
        for sid in set(self.server.engine.sessions) - known:
            self.sid = sid
        self.look()

    def url(self, transport: str, query: bytes = b"", sid: str | None = None) -> bytes:
        known = b"" if sid is None else b"&sid=" + sid.encode()
        return b"/socket.io/?EIO=%d&transport=%s%s%s" % (self.protocol, transport.encode(), known, query)

    def connect(self) -> Link:
        link = Link().connect(self.site)
        self.links.append(link)
        self.written[link] = b""
        return link

    def request(self, method: bytes, url: bytes, headers: bytes = b"", body: bytes | None = None) -> Link:
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        link = self.connect()
        url = re.sub(rb"[^!-~]", b"", url)
        link.deliver(b"%s %s HTTP/1.1\r\nHost: a\r\n%s%s\r\n%s" % (method, url, headers, length, body or b""))
        return link

    _UPGRADE = (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )

    @property
    def upgradeHeaders(self) -> bytes:
        if not self.server.settings.perMessageDeflate:
            return self._UPGRADE
        return self._UPGRADE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

    def openPolling(self, query: bytes) -> None:
        self.request(b"GET", self.url("polling", query))

    def openWebSocket(self, query: bytes) -> None:
        self.webSocket = self.request(b"GET", self.url("websocket", query), self.upgradeHeaders)

    def upgrade(self, query: bytes) -> None:
        self.webSocket = self.request(b"GET", self.url("websocket", query, self.sid), self.upgradeHeaders)

    def get(self, query: bytes) -> None:
        self.request(b"GET", self.url("polling", query, self.sid))

    def post(self, body: bytes) -> None:
        self.request(b"POST", self.url("polling", sid=self.sid), b"Content-Type: text/plain\r\n", body)

    def postOctets(self, body: bytes) -> None:
        octets = b"Content-Type: application/octet-stream\r\n"
        self.request(b"POST", self.url("polling", sid=self.sid), octets, body)

    def postForm(self, form: bytes) -> None:
        self.request(b"POST", self.url("polling", b"&j=0", self.sid), b"", b"d=" + form)

    def sendText(self, text: bytes) -> None:
        self.sendFrame(TEXT, text)

    def sendBytes(self, data: bytes) -> None:
        self.sendFrame(BINARY, data)

    def sendCompressed(self, text: bytes) -> None:
        deflate = zlib.compressobj(wbits=-15)
        compressed = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        self.sendFrame(TEXT, compressed.removesuffix(b"\0\0\xff\xff"), rsv=4)

    def sendAnyFrame(self, rest: bytes) -> None:
        first = rest[0] if rest else 0
        self.sendFrame(first & 15, rest[1:], bool(first >> 7), first >> 4 & 7)

    def sendFrame(self, opcode: int, payload: bytes, fin: bool = True, rsv: int = 0) -> None:
        if self.webSocket is not None:
            self.webSocket.deliver(clientFrame(opcode, payload, fin, rsv))

    def sendRaw(self, data: bytes) -> None:
        if self.links:
            self.links[-1].deliver(data)

    def sendRawFirst(self, data: bytes) -> None:
        self.connect().deliver(data)

    def lose(self, _: bytes) -> None:
        if self.links:
            self.links[-1].lose()

    def fill(self, _: bytes) -> None:
        if self.webSocket is not None and self.webSocket.producer is not None:
            self.webSocket.fill()

    def drain(self, _: bytes) -> None:
        if self.webSocket is not None and self.webSocket.producer is not None:
            self.webSocket.drain()

    def wait(self, rest: bytes) -> None:
        self.clock.advance(rest[0] / 10 if rest else 1)
        self.bystander.flush()

    def emit(self, rest: bytes) -> None:
        self.server.emit("news", rest)

    def kick(self, rest: bytes) -> None:
        for socket in list(self.application.here.values()):
            if socket.id != self.bystander.id():
                socket.disconnect(close=bool(rest))
                break

    def answer(self, _: bytes) -> None:
        self.application.goOn()

    ACTIONS: Mapping[bytes, Callable[[Story, bytes], None]] = {
        b"P": openPolling,
        b"W": openWebSocket,
        b"U": upgrade,
        b"g": get,
        b"p": post,
        b"o": postOctets,
        b"j": postForm,
        b"t": sendText,
        b"b": sendBytes,
        b"z": sendCompressed,
        b"f": sendAnyFrame,
        b"d": sendRaw,
        b"h": sendRawFirst,
        b"r": lose,
        b"s": fill,
        b"c": drain,
        b"w": wait,
        b"e": emit,
        b"k": kick,
        b"a": answer,
    }

    def turn(self) -> None:
        """The reactor goes round, until nothing happens at once any more."""
        for _ in range(3):
            self.clock.advance(0)
            for link in self.links:
                link.turn()
                if link.disconnecting and not link.disconnected:
                    link.lose()

    # -- what must hold at all times -----------------------------------------------------

    def look(self) -> None:
        for link in self.links:
            self.written[link] += link.take()
        for session in self.server.engine.sessions.values():
            assert session.buffered <= MAX_BUFFERED + 2 * MAX_PAYLOAD + 1000, session.buffered
            receiver: Any = session.receiver
            waiting = getattr(receiver, "_waiting", 0)
            # One body, or one read, may hold many events; and more are read while an ack is owed.
            assert waiting <= 10 * MAX_WAITING + MAX_PAYLOAD, waiting
        self.bystander.flush()
        assert self.bystander.isConnected(), "another client was thrown out"

    def end(self) -> None:
        """Everybody leaves; nothing may remain but the bystander, and in the end nothing at all."""
        answers: list[Any] = []
        self.bystander.call("echo", 1).addCallback(answers.append)
        self.bystander.flush()
        assert answers == [1], "another client is not served any more"
        for link in self.links:
            link.lose()
        self.look()
        for link in self.links:
            self.read(self.written[link])
        for _ in range(20):
            self.clock.advance(5)
            self.application.goOn()
            self.bystander.flush()
        assert list(self.server.engine.sessions.values()) == [self.bystander.session]
        assert set(self.application.here) == {self.bystander.id()}
        for namespace in self.server.namespaces:
            assert set(namespace.sockets) <= {self.bystander.id()}, namespace
        self.bystander.close()
        assert not self.server.engine.sessions and not self.application.here
        for namespace in self.server.namespaces:
            assert not namespace.sockets and namespace.rooms.isEmpty, namespace
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()

    def read(self, data: bytes) -> None:
        """All that a client gets is what its protocol allows."""
        while data:
            answer, data = readResponse(data)
            if answer is None:
                return
            assert answer.status in _STATUSES, (answer.status, answer.body[:200])
            if answer.status == 101:
                self.readFrames(data)
                return
            if answer.status == 400 and answer.body[:1] == b"{":
                assert sorted(json.loads(answer.body)) == ["code", "message"]

    def readFrames(self, data: bytes) -> None:
        client = WebSocket.__new__(WebSocket)
        client.link, client._data = Link(), data
        client._response = readResponse(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")[0]
        frames = client.frames()
        inflate = zlib.decompressobj(-15)
        for index, frame in enumerate(frames):
            if frame.rsv == 4 and self.server.settings.perMessageDeflate:
                frame = frame._replace(payload=inflate.decompress(frame.payload + b"\0\0\xff\xff"), rsv=0)
            assert frame.fin and not frame.rsv
            if frame.opcode == CLOSE:
                code = int.from_bytes(frame.payload[:2], "big")
                # To a client that closes, its own code is sent back.
                assert not frame.payload or code in _CLOSE_CODES or 3000 <= code < 5000, frame
                assert index == len(frames) - 1, "something after a close frame"
            elif frame.opcode == TEXT and self.protocol == 4:
                EngineIO4.decodeText(frame.payload.decode())
            else:
                assert frame.opcode in (TEXT, BINARY, PING, PONG), frame


@contextlib.contextmanager
def _failuresRaised() -> Iterator[None]:
    """Let what the server logs as a failure of its own count as one here."""
    failures: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    for event in failures:
        raise AssertionError(f"{formatEvent(event)}\n{event['log_failure'].getTraceback()}")


def play(data: bytes, **options: Any) -> None:
    """
    Play a story.

    :param options: as for :class:`Story`.
    :raises AssertionError: if the server breaks a rule.
    """
    with _failuresRaised():
        story = Story(**options)
        for line in data.split(b"\n")[:MOST_STEPS]:
            story.step(line)
        story.end()


def connections(data: bytes) -> None:
    """Clients of Engine.IO 4, on any transport."""
    play(data)


def connectionsLongWays(data: bytes) -> None:
    """The same, all by Autobahn and twisted.web."""
    play(data, shortWays=False)


def connectionsOld(data: bytes) -> None:
    """Clients of Engine.IO 3."""
    play(data, protocol=3)


def connectionsMsgpack(data: bytes) -> None:
    """Clients with MessagePack."""
    play(data, isBinary=True)


def connectionsLimited(data: bytes) -> None:
    """With compression, and where limits are soon reached."""
    play(
        data,
        perMessageDeflate=True,
        compressionThreshold=8,
        maxConnectionsPerAddress=4,
        maxNamespaces=2,
        maxRooms=3,
        maxFragments=2,
        maxMessageRate=5,
        maxByteRate=500,
        maxAttachments=1,
    )


CONNECTIONS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (connections, connectionsLongWays, connectionsOld, connectionsMsgpack, connectionsLimited)
}
