"""
The servers that the official suites, and the JavaScript clients' own suites, expect.

The tests in this folder use the first of these servers; tac/conformance.tac serves all of them, for the
suites themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from twisted.application.internet import SSLServer, TCPServer
from twisted.application.service import MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from txrealtime import AckTimeout, ConnectionRejected, Disconnected, Server
from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.http.resource import EngineResource
from txrealtime.engineio.http.site import EngineSite
from txrealtime.engineio.polling.request import HTTPRequest
from txrealtime.engineio.session import CloseReason, IReceiver, Session
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.websocket.autobahn import FrameFactory
from txrealtime.engineio.websocket.frames import FrameProtocol
from txrealtime.socketio.namespace import NO_ACK
from txrealtime.socketio.sockets import Socket

DRAIN_TIMEOUT = 0.01


class Times(NamedTuple):
    """The times of a server, in seconds."""

    pingInterval: float = 0.3
    pingTimeout: float = 0.2
    connectTimeout: float = 1.0


OFFICIAL = Times()
"As the official suites expect them."


class EngineService(Service):
    """
    Ends the sessions of an engine that is served by itself, when it is stopped.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self.engine.drain(DRAIN_TIMEOUT)


@implementer(IReceiver)
class Echo:
    """
    Sends back each message of a session.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def messageReceived(self, data: str | bytes) -> None:
        self.session.send(data)

    def sessionClosed(self, reason: CloseReason) -> None:
        pass


# -- the protocol suites


class ProtocolServers(MultiService):
    """
    An Engine.IO server that echoes and a Socket.IO server that answers, for the protocol suites.

    :param allowEIO3: whether to serve version 3 of Engine.IO too.
    :param shortWays: whether plain frames and requests are read without Autobahn and twisted.web.
    :param times: the times of both servers.
    :ivar engine: the Engine.IO server.
    :ivar server: the Socket.IO server.
    """

    def __init__(self, allowEIO3: bool = False, shortWays: bool = True, times: Times = OFFICIAL) -> None:
        super().__init__()
        settings = {
            "pingInterval": times.pingInterval,
            "pingTimeout": times.pingTimeout,
            "origins": "*",
            "allowEIO3": allowEIO3,
            "shortWays": shortWays,
        }
        self.engine = Engine(Echo, Settings(**settings), reactor)
        self.server = Server(
            connectTimeout=times.connectTimeout, drainTimeout=DRAIN_TIMEOUT, reactor=reactor, **settings
        )
        answer(self.server)
        EngineService(self.engine).setServiceParent(self)
        self.server.setServiceParent(self)

    def site(self, host: str) -> Site:
        """
        A site with both, at /engine.io and /socket.io.

        :param host: the path of the one whose own site it is, where it answers plain requests without
            twisted.web; the other is a resource there, as it could be in any site.
        """
        root = Resource()
        if host == "/socket.io":
            root.putChild(b"engine.io", EngineResource(self.engine))
            return self.server.site(root)
        root.putChild(b"socket.io", self.server.resource())
        return EngineSite(root, "/engine.io", self.engine)


def answer(server: Server) -> None:
    """
    Greet with the payload of CONNECT in two namespaces, and answer `/`.
    """

    def greet(socket: Socket, auth: Any) -> None:
        socket.emit("auth", auth or {})

    server.onConnect(greet)
    server.namespace("/custom").onConnect(greet)

    @server.on("message")
    def message(socket: Socket, *args: Any) -> None:
        socket.emit("message-back", *args)

    @server.on("message-with-ack")
    def messageWithAck(socket: Socket, *args: Any) -> tuple[Any, ...]:
        return args


# -- the suite of socket.io-client


async def hesitate(handshake: OpeningRequest) -> None:
    """
    Let everybody in, after a moment: the suite tries a client that does not wait so long.
    """
    await deferLater(reactor, 0.01)


def clientServer() -> Server:
    """
    The server that socket.io-client's suite talks to, without connection state recovery.
    """
    server = Server(pingInterval=2.0, allowRequest=hesitate, reactor=reactor)
    answerClient(server)
    answerDates(server)
    answerBinary(server)
    for path in ("/timeout_socket", "/valid", "/asd"):
        server.namespace(path)
    server.namespace("/foo").on("getId")(publicId)

    @server.namespace("/abc").onConnect
    def showHandshake(socket: Socket) -> None:
        socket.emit("handshake", handshake(socket))

    @server.namespace("/no").onConnect
    def refuse(socket: Socket) -> None:
        raise ConnectionRejected("Auth failed (custom namespace)")

    return server


def publicId(socket: Socket) -> str:
    return socket.id


def handshake(socket: Socket) -> dict[str, Any]:
    """
    Return a client's query and auth, which the suite asks for.
    """
    return {"query": dict(socket.handshake.query), "auth": socket.handshake.auth or {}}


def answerClient(server: Server) -> None:
    """
    Admission, and events that carry text.
    """
    server.on("getId")(publicId)
    server.on("getHandshake")(handshake)

    @server.onConnect
    def admit(socket: Socket) -> None:
        if "fail" in socket.handshake.query:
            raise ConnectionRejected("Auth failed (main namespace)")

    @server.on("hi")
    def hi(socket: Socket) -> None:
        socket.emit("hi")

    @server.on("echo")
    def echo(socket: Socket, value: Any) -> tuple[Any]:
        return (value,)

    @server.on("false")
    def false(socket: Socket) -> None:
        socket.emit("false", False)

    @server.on("ack")
    def ack(socket: Socket, *args: Any) -> object:
        def answered(answer: Any) -> None:
            if answer == (5, {"test": True}):
                socket.emit("got it")

        # Most of the suite's clients do not answer, and ask again meanwhile: so the event does not wait.
        socket.call("ack").addCallbacks(answered, lambda failure: failure.trap(AckTimeout, Disconnected))
        return NO_ACK

    @server.on("getUtf8")
    def getUtf8(socket: Socket) -> None:
        for text in ("てすと", "Я Б Г Д Ж Й", "Ä ä Ü ü ß", "utf8 — string", "utf8 — string"):
            socket.emit("takeUtf8", text)


def now() -> str:
    """
    The time as JavaScript's dates are written.
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answerDates(server: Server) -> None:
    """
    Events that carry a date.
    """

    @server.on("getAckDate")
    def getAckDate(socket: Socket, *args: Any) -> str:
        return now()

    @server.on("getDate")
    def getDate(socket: Socket) -> None:
        socket.emit("takeDate", now())

    @server.on("getDateObj")
    def getDateObj(socket: Socket) -> None:
        socket.emit("takeDateObj", {"date": now()})


def answerBinary(server: Server) -> None:
    """
    Events that carry bytes.
    """

    @server.on("doge")
    def doge(socket: Socket) -> None:
        socket.emit("doge", b"asdfasdf")

    @server.on("getbin")
    def getbin(socket: Socket) -> None:
        socket.emit("takebin", b"asdfasdf")

    @server.on("buffa")
    def buffa(socket: Socket, data: Any) -> None:
        if isinstance(data, bytes):
            socket.emit("buffack")

    @server.on("jsonbuff")
    def jsonbuff(socket: Socket, data: Any) -> None:
        message = data.pop("message")
        if isinstance(message, bytes) and data == {"hello": "lol", "goodbye": "gotcha"}:
            socket.emit("jsonbuff-ack")

    @server.on("abuff1")
    def abuff1(socket: Socket, data: Any) -> None:
        socket.data["abuff1"] = isinstance(data, bytes)

    @server.on("abuff2")
    def abuff2(socket: Socket, data: Any) -> None:
        if socket.data.get("abuff1"):
            socket.emit("abuff2-ack")


# -- the suite of engine.io-client


class EngineClientServer(Engine):
    """
    The engine that engine.io-client's suite talks to.

    :ivar headers: the headers of the polling request in hand.
    """

    headers: dict[str, str]

    def __init__(self) -> None:
        settings = Settings(pingInterval=0.5, maxPayload=100)
        super().__init__(self._greet, settings, reactor, self._allow)

    def serve(self, request: HTTPRequest) -> None:
        # All requests of polling come by here, and twisted.web's own render() sees only some of them.
        self.headers = request.headers()
        super().serve(request)

    def _allow(self, handshake: OpeningRequest) -> bool:
        return "deny" not in handshake.query

    def _greet(self, session: Session) -> EngineClientEcho:
        session.send("hi")
        return EngineClientEcho(session, self)


class EngineClientResource(EngineResource):
    """
    The resource of that engine.

    It sets cookies on the response that opens a session.
    """

    COOKIES = (
        "1=1; Max-Age=86400",
        "2=2; Path=/; HttpOnly; Secure; SameSite=Strict",
        "3=3; Max-Age=0",
        "4=4; Expires=Thu, 01 Jan 2026 00:00:00 GMT",
    )

    def render(self, request: Request) -> int | bytes:
        if b"sid" not in request.args:
            for cookie in self.COOKIES:
                request.responseHeaders.addRawHeader(b"set-cookie", cookie.encode())
        return super().render(request)


class EngineClientEcho(Echo):
    """
    An echo that answers some messages otherwise.
    """

    def __init__(self, session: Session, engine: EngineClientServer) -> None:
        super().__init__(session)
        self.engine = engine

    def messageReceived(self, data: str | bytes) -> None:
        match data:
            case "give binary":
                data = bytes(range(5))
            case "give utf8":
                data = "пойду спать всем спокойной ночи"
            case "sendHeaders":
                data = json.dumps(self.engine.headers)
        super().messageReceived(data)


# -- Autobahn's suite, for WebSocket itself


class EchoFrames(FrameProtocol):
    """
    Sends back each message of a WebSocket.
    """

    def textReceived(self, text: str) -> None:
        self.sendText(text)

    def bytesReceived(self, data: bytes) -> None:
        self.sendBytes(data)


def echoFactory(
    shortWays: bool = True, perMessageDeflate: bool = True, protocol: type[EchoFrames] = EchoFrames
) -> FrameFactory:
    """
    WebSocket without Engine.IO: the limits, the framing and the compression that sessions have.

    :param shortWays: whether plain frames are read without Autobahn.
    """
    settings = Settings(
        # The largest messages of the suite have 16 MiB.
        maxPayload=1 << 25,
        perMessageDeflate=perMessageDeflate,
        # Answers of any size are compressed: most cases of compression have small ones.
        compressionThreshold=1,
        shortWays=shortWays,
    )
    return FrameFactory(settings, reactor, protocol)


# -- all together


def conformance(environ: Mapping[str, str]) -> MultiService:
    """
    All servers, on the loopback interface.

    :param environ: may name other ports: PORT for the protocol suites but Engine.IO 3's, EIO3_PORT for that,
        ECHO_PORT for Autobahn's, CLIENT_PORT for socket.io-client's and ENGINE_CLIENT_PORT for
        engine.io-client's. For Autobahn's suite it may also turn off SHORT_WAYS with `no`, and name a PEM
        file with a key and its CERTIFICATE, to speak TLS.
    """
    certificate = environ.get("CERTIFICATE")
    service = MultiService()
    protocols = ProtocolServers()
    protocols3 = ProtocolServers(allowEIO3=True)
    client = clientServer()
    engineClient = EngineClientServer()
    for child in (protocols, protocols3, client, EngineService(engineClient)):
        child.setServiceParent(service)
    engineRoot = Resource()
    engineRoot.putChild(b"engine.io", EngineClientResource(engineClient))
    for variable, port, factory in (
        ("PORT", 3000, protocols.site("/socket.io")),
        ("EIO3_PORT", 3001, protocols3.site("/engine.io")),
        ("ECHO_PORT", 9001, echoFactory(environ.get("SHORT_WAYS") != "no")),
        ("CLIENT_PORT", 3210, client.site(Resource())),
        ("ENGINE_CLIENT_PORT", 3212, Site(engineRoot)),
    ):
        chosen = int(environ.get(variable, port))
        if certificate and variable == "ECHO_PORT":
            pair = PrivateCertificate.loadPEM(Path(certificate).read_bytes())
            listening: Service = SSLServer(chosen, factory, pair.options(), interface="127.0.0.1")
        else:
            listening = TCPServer(chosen, factory, interface="127.0.0.1")
        listening.setServiceParent(service)
    return service
