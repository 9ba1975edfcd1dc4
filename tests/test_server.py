"""
The server as a service, and as its own default namespace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.memory import Link
from tests.talk import Recorder, Steps, TalkTestCase, textOf
from txrealtime import CloseReason, Handshake, HandshakeError, IParser, PacketError, Server, Settings, Socket
from txrealtime.engineio.http.resource import EngineResource
from txrealtime.engineio.websocket.transport import WebSocketFactory
from txrealtime.socketio.packet import IDecoder, JSONParser, Packet, PacketType
from txrealtime.testing import Client


class ServiceTests(TalkTestCase):
    """
    Start and stop.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server: Server = self.makeServer(drainTimeout=5)
        self.lobby = Recorder()
        self.server.mount("/lobby", self.lobby)

    def test_interfaces(self) -> None:
        verifyObject(IService, self.server)
        verifyObject(IResource, self.server.resource())

    def test_stopClosesClients(self) -> None:
        clients = [self.join(self.server, "/lobby"), self.join(self.server, "/lobby", transport="polling")]
        lonely = self.makeClient(self.server)
        self.lobby.take()
        stopped = self.server.stopService()
        self.assertIsNone(self.successResultOf(stopped))
        for client in [*clients, lonely]:
            self.assertEqual(client.transport.closed, CloseReason.SHUTTING_DOWN)
            self.assertEqual(self.wireOf(client), [])
        self.assertEqual({call[2] for call in self.lobby.take()}, {CloseReason.SHUTTING_DOWN})
        self.assertEqual(CloseReason.SHUTTING_DOWN, "server shutting down")

    def test_nobodyThere(self) -> None:
        self.successResultOf(self.server.stopService())
        self.assertFalse(self.server.running)

    def test_nobodyMayComeMeanwhile(self) -> None:
        self.setWritable(self.join(self.server, "/lobby"), False)
        self.server.namespace("/lobby").emit("last")
        stopped = self.server.stopService()
        self.assertNoResult(stopped)
        error = self.assertRaises(HandshakeError, Client, self.server)
        self.assertEqual(error.status, 503)
        self.advance(5)
        self.successResultOf(stopped)

    def test_pendingAdmissionIsCancelled(self) -> None:
        cancelled: list[Any] = []
        self.lobby.admission = Deferred(cancelled.append)
        client = self.makeClient(self.server)
        client.connect("/lobby")
        self.successResultOf(self.server.stopService())
        self.assertEqual(len(cancelled), 1)

    def test_lastWordsAreDelivered(self) -> None:
        self.lobby.onDisconnecting(lambda socket: None)
        client = self.join(self.server, "/lobby")
        self.setWritable(client, False)
        self.lobby.emit("bye", b"now")
        stopped = self.server.stopService()
        self.assertNoResult(stopped)
        self.assertIsNone(client.transport.closed)
        self.setWritable(client, True)
        self.successResultOf(stopped)
        self.assertEqual(client.received("/lobby"), [("bye", b"now")])
        self.assertEqual(client.transport.closed, CloseReason.SHUTTING_DOWN)

    def test_drainIsBounded(self) -> None:
        client = self.join(self.server, "/lobby")
        self.setWritable(client, False)
        self.lobby.emit("bye")
        stopped = self.server.stopService()
        self.clock.advance(4.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.2)
        self.successResultOf(stopped)
        self.assertEqual(client.transport.closed, CloseReason.SHUTTING_DOWN)

    def test_disconnectOnStop(self) -> None:
        """
        With disconnectOnStop, clients get a DISCONNECT, which keeps them from coming back.
        """
        server = self.makeServer(disconnectOnStop=True)
        lobby = Recorder()
        server.mount("/lobby", lobby)
        client = self.join(server, "/lobby")
        self.successResultOf(client.connect("/"))
        lobby.take()
        self.successResultOf(server.stopService())
        self.assertEqual(set(self.wireOf(client)), {"1", "1/lobby,"})
        self.assertEqual(client.transport.closed, CloseReason.SHUTTING_DOWN)
        self.assertEqual({call[2] for call in lobby.take()}, {CloseReason.SHUTTING_DOWN})

    def test_disconnectOnStopOfAPollingClient(self) -> None:
        """
        The GET that waits takes the DISCONNECT of each namespace, since the port closes meanwhile.
        """
        server = self.makeServer(disconnectOnStop=True)
        for path in ("/lobby", "/bar"):
            server.mount(path, Recorder())
        site: Any = server.site(Resource())
        site.reactor = server.reactor  # a timer of the real one would be found by another test
        link = Link().connect(site)
        head = b"%s /socket.io/?EIO=4&transport=polling%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
        link.deliver(head % (b"GET", b"", 0, b""))
        opened = re.search(rb'"sid":"([^"]+)"', link.take())
        assert opened is not None
        sid = b"&sid=" + opened[1]
        body = b"40\x1e40/lobby,\x1e40/bar,"
        for request in (head % (b"POST", sid, len(body), body), head % (b"GET", sid, 0, b"")):
            link.deliver(request)
        link.take()
        link.deliver(head % (b"GET", sid, 0, b""))
        self.assertEqual(link.take(), b"")
        server.stopService()
        self.assertEqual(link.take().partition(b"\r\n\r\n")[2], b"41\x1e41/lobby,\x1e41/bar,")
        link.lose()

    def test_startAgain(self) -> None:
        self.join(self.server, "/lobby")
        self.successResultOf(self.server.stopService())
        self.server.startService()
        self.assertTrue(self.server.running)
        client = self.join(self.server, "/lobby")
        self.server.on("ask")(lambda socket: "yes")
        self.successResultOf(client.connect("/"))
        self.assertEqual(self.successResultOf(client.call("ask")), "yes")
        self.successResultOf(self.server.stopService())
        self.assertEqual(client.transport.closed, CloseReason.SHUTTING_DOWN)

    def test_startAgainBeforeItHasStopped(self) -> None:
        """
        Clients that come after the start have nothing to do with the stop before.
        """
        slow = self.join(self.server, "/lobby")
        self.setWritable(slow, False)
        self.lobby.emit("bye")
        stopped = self.server.stopService()
        self.server.startService()
        client = self.join(self.server, "/lobby")
        self.advance(10)
        self.successResultOf(stopped)
        self.assertEqual(slow.transport.closed, CloseReason.SHUTTING_DOWN)
        self.assertIsNone(client.transport.closed)

    def test_stopTwice(self) -> None:
        """
        Both Deferreds of two stops fire when the server has stopped.
        """
        self.setWritable(self.join(self.server, "/lobby"), False)
        self.lobby.emit("bye")
        first, second = self.server.stopService(), self.server.stopService()
        self.advance(6)
        self.successResultOf(first)
        self.successResultOf(second)

    def test_handlersThatRunOn(self) -> None:
        """
        A handler that runs while the server stops may finish.
        """
        steps = Steps()
        self.lobby.on("step")(steps)
        client = self.join(self.server, "/lobby")
        client.call("step", namespace="/lobby")
        self.successResultOf(self.server.stopService())
        steps.waits[0].callback("done")
        self.assertEqual(self.wireOf(client), [])


class SettingsTests(TalkTestCase):
    """
    Options of a server.
    """

    def test_defaults(self) -> None:
        settings = Settings()
        self.assertEqual(settings.pingInterval, 25)
        self.assertEqual(settings.pingTimeout, 20)
        self.assertEqual(settings.connectTimeout, 45)
        self.assertEqual(settings.maxAttachments, 10)
        self.assertEqual(settings.maxPayload, 1_000_000)
        self.assertEqual(settings.maxBuffered, 4_000_000)
        self.assertFalse(settings.disconnectOnStop)

    def test_unknown(self) -> None:
        error = self.assertRaises(TypeError, Server, pingInterwal=5)
        self.assertIn("pingInterwal", str(error))

    def test_senseless(self) -> None:
        for name in ("connectTimeout", "maxWaiting", "drainTimeout", "pingInterval"):
            for value in (0, -1):
                error = self.assertRaises(ValueError, Server, **{name: value})
                self.assertIn(name, str(error))
        self.assertRaises(ValueError, Server, maxAttachments=-1)

    def test_noAttachments(self) -> None:
        client = self.join(self.makeServer(maxAttachments=0))
        client.emit("blob", b"1")
        self.assertEqual(client.transport.closed, CloseReason.FORCED_CLOSE)

    def test_reachTheClients(self) -> None:
        server = self.makeServer(pingInterval=0.3, pingTimeout=0.2, maxPayload=5000)
        opened = self.makeClient(server).opened
        self.assertEqual(
            (opened["pingInterval"], opened["pingTimeout"], opened["maxPayload"]), (300, 200, 5000)
        )

    def test_path(self) -> None:
        for path in ("chat", "/chat", "/chat/", "chat/"):
            self.assertEqual(Server(path, reactor=self.clock).path, "/chat")
        self.assertEqual(Server(reactor=self.clock).path, "/socket.io")
        self.assertEqual(Server("/a/b", reactor=self.clock).path, "/a/b")

    def test_wrongArguments(self) -> None:
        """
        Each argument is checked at once, in the class and in `configure`, and the message names it.
        """

        def generator(handshake: Handshake) -> Any:
            yield False

        for error, part, arguments in (
            (TypeError, "path is 8000, expected a str such as '/socket.io'", {"path": 8000}),
            (TypeError, "path is", {"path": b"/socket.io"}),
            (ValueError, "path is '/a?x', expected a form like '/socket.io'", {"path": "/a?x"}),
            (ValueError, "path is", {"path": "/a b"}),
            (ValueError, "path is", {"path": "/a#b"}),
            (
                TypeError,
                "parser is 'msgpack', expected an object that provides IParser",
                {"parser": "msgpack"},
            ),
            (TypeError, "parser is a class; did you mean JSONParser()?", {"parser": JSONParser}),
            (TypeError, "expected an object that provides IBus: it has no", {"bus": 5}),
            (TypeError, "bus is ['redis://a']", {"bus": ["redis://a"]}),
            (TypeError, "a handler is callable, not bool", {"allowRequest": True}),
            (TypeError, "takes 0 arguments, but is called with 1", {"allowRequest": lambda: True}),
            (TypeError, "is a generator function", {"allowRequest": generator}),
        ):
            for call in (Server, Server().configure):
                self.assertIn(part, str(self.assertRaises(error, call, **arguments)))

    def test_argumentsByDuck(self) -> None:
        """
        A parser without the interface's declaration is taken, if it has the methods.
        """

        class Parser:
            def encode(self, packet: Packet) -> list[str | bytes]:
                return JSONParser().encode(packet)

            def decoder(self, maxAttachments: int) -> IDecoder:
                return JSONParser().decoder(maxAttachments)

        parser: Any = Parser()
        self.assertIs(Server(parser=parser).parser, parser)

    def test_configureTheCheck(self) -> None:
        """
        `configure` takes each argument of the class.
        """
        server = Server(reactor=self.clock)
        server.configure(allowRequest=lambda handshake: False)
        server.startService()
        self.addCleanup(server.stopService)
        self.assertRaises(HandshakeError, Client, server)


class ConfigureTests(TalkTestCase):
    """
    Settings that change between the making of a server and its use.
    """

    def test_configure(self) -> None:
        server = Server(reactor=self.clock, pingInterval=5)
        server.configure(pingTimeout=3)
        self.assertEqual((server.settings.pingInterval, server.settings.pingTimeout), (5, 3))
        self.assertEqual(server.path, "/socket.io")
        server.configure(path="chat/")
        self.assertEqual(server.path, "/chat")

    def test_parser(self) -> None:
        """A parser that comes after a namespace encodes the acks there too, and a subclass as it likes."""

        class Loud(JSONParser):
            def encode(self, packet: Packet) -> Sequence[str | bytes]:
                if packet.type is PacketType.ACK:
                    packet = packet._replace(data=[each.upper() for each in packet.data])
                return super().encode(packet)

        server = self.makeServer(start=False)
        server.on("echo")(lambda socket, text: text)
        server.configure(parser=Loud())
        server.startService()
        self.addCleanup(server.stopService)
        client = self.makeClient(server)
        client.connect()
        self.assertEqual(self.successResultOf(client.call("echo", "quiet")), "QUIET")

    def test_mistakes(self) -> None:
        server = Server(reactor=self.clock)
        self.assertRaises(TypeError, server.configure, pingInterwal=5)
        self.assertRaises(ValueError, server.configure, pingInterval=0)

    def test_inUse(self) -> None:
        server = Server(reactor=self.clock)
        server.resource()
        error = self.assertRaises(RuntimeError, server.configure, pingInterval=5)
        self.assertIn("in use", str(error))


class SiteTests(TalkTestCase):
    """
    A server's resource, site and factory.
    """

    def test_resource(self) -> None:
        server = self.makeServer()
        self.assertIsInstance(server.resource(), EngineResource)

    def test_site(self) -> None:
        self.assertIsInstance(self.makeServer().site(Resource()), Site)

    def test_webSocketFactory(self) -> None:
        self.assertIsInstance(self.makeServer().webSocketFactory(), WebSocketFactory)


class DefaultNamespaceTests(TalkTestCase):
    """
    A server is its own default namespace.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server: Server = self.makeServer()

    def test_handlers(self) -> None:
        told: list[Any] = []
        server = self.server

        @server.onConnect
        def connected(socket: Socket, auth: Any) -> None:
            told.append(("connected", auth))

        @server.onDisconnecting
        def disconnecting(socket: Socket, reason: CloseReason) -> None:
            told.append(("disconnecting", reason))

        @server.onDisconnect
        def disconnected(socket: Socket, reason: CloseReason) -> None:
            told.append(("disconnected", reason))

        @server.on("fail")
        def failing(socket: Socket) -> None:
            raise ZeroDivisionError

        @server.onError(ZeroDivisionError)
        def sorry(socket: Socket, error: Exception) -> str:
            return "sorry"

        @server.onAny
        def anything(socket: Socket, event: str) -> str:
            return event

        @server.use
        async def quoted(incoming: Any, proceed: Any) -> str:
            return f"'{await proceed(incoming)}'"

        client = self.join(server, auth={"token": "x"})
        self.assertEqual(self.successResultOf(client.call("any")), "'any'")
        self.assertEqual(self.successResultOf(client.call("fail")), "sorry")
        client.close()
        self.assertEqual(
            told,
            [
                ("connected", {"token": "x"}),
                ("disconnecting", CloseReason.TRANSPORT_CLOSE),
                ("disconnected", CloseReason.TRANSPORT_CLOSE),
            ],
        )

    def test_audience(self) -> None:
        server = self.server
        alice, bob = self.join(server), self.join(server)
        self.socketOf(server, alice).join("red")
        server.emit("all", 1)
        server.emit("volatile", volatile=True)
        server.send("text", volatile=True)
        server.to("red").emit("red")
        server.excluding("red").emit("not red")
        common = [("all", 1), ("volatile",), ("message", "text")]
        self.assertEqual(alice.received(), [*common, ("red",)])
        self.assertEqual(bob.received(), [*common, ("not red",)])

    def test_call(self) -> None:
        client = self.join(self.server)
        client.on("ready?", lambda number: number + 1)
        answers = self.server.call("ready?", 1, timeout=5)
        client.flush()
        self.assertEqual(self.successResultOf(answers), [2])

    def test_fetch(self) -> None:
        client = self.join(self.server)
        [person] = self.successResultOf(self.server.fetch())
        self.assertEqual(person.id, client.id())

    def test_otherNamespacesAreNotMeant(self) -> None:
        self.server.namespace("/chat")
        client = self.join(self.server, "/chat")
        self.server.emit("all")
        self.assertEqual(client.received("/chat"), [])


@implementer(IDecoder)
class LineDecoder:
    """The decoder of `LineParser`."""

    def feed(self, message: str | bytes) -> Packet | None:
        if isinstance(message, bytes):
            raise PacketError("a line is text")
        try:
            type, namespace, id, data = message.split("\n")
            return Packet(PacketType(int(type)), namespace, json.loads(data), int(id) if id else None)
        except ValueError:
            raise PacketError("not four lines") from None


@implementer(IParser)
class LineParser:
    """
    Another parser: four lines, with the type, namespace, id and JSON; bytes are beyond it.

    :ivar limits: `maxAttachments` of each decoder, which it does not need.
    """

    def __init__(self) -> None:
        self.limits: list[int] = []

    def encode(self, packet: Packet) -> Sequence[str | bytes]:
        id = "" if packet.id is None else packet.id
        return [f"{packet.type:d}\n{packet.namespace}\n{id}\n{json.dumps(packet.data)}"]

    def decoder(self, maxAttachments: int) -> LineDecoder:
        self.limits.append(maxAttachments)
        return LineDecoder()


class ParserTests(TalkTestCase):
    """
    Another parser in place of the default one.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server: Server = self.makeServer(parser=LineParser(), maxAttachments=3)
        self.server.on("echo")(lambda socket, *args: args)

    def test_interfaces(self) -> None:
        for parser in (LineParser(), JSONParser()):
            verifyObject(IParser, parser)
            verifyObject(IDecoder, parser.decoder(1))

    def test_onTheWire(self) -> None:
        client = self.makeClient(self.server)
        self.sendText(client, "0\n/\n\nnull")
        [socket] = self.server.namespace().sockets.values()
        self.assertEqual(self.wireOf(client), [f'0\n/\n\n{{"sid": "{socket.id}"}}'])
        self.sendText(client, '2\n/\n7\n["echo", 1, "two"]')
        self.assertEqual(self.wireOf(client), ['3\n/\n7\n[1, "two"]'])
        self.server.emit("hi", {"a": None})
        self.assertEqual(self.wireOf(client), ['2\n/\n\n["hi", {"a": null}]'])
        answer = socket.call("sure?")
        self.assertEqual(self.wireOf(client), ['2\n/\n0\n["sure?"]'])
        self.sendText(client, '3\n/\n0\n["yes"]')
        self.assertEqual(self.successResultOf(answer), "yes")
        self.sendText(client, "0\n/nowhere\n\nnull")
        self.assertEqual(self.wireOf(client), ['4\n/nowhere\n\n{"message": "Invalid namespace"}'])
        socket.disconnect()
        self.assertEqual(self.wireOf(client), ["1\n/\n\nnull"])

    def test_itsErrorsAreTheCallers(self) -> None:
        self.assertRaises(TypeError, self.server.emit, "hi", b"bytes")

    def test_brokenMessage(self) -> None:
        client = self.makeClient(self.server)
        with capturedLogs() as events:
            self.sendText(client, '2["echo"]')
        self.assertEqual(client.transport.closed, CloseReason.FORCED_CLOSE)
        self.assertIn("not four lines", textOf(events))

    def test_oneDecoderForEachConnection(self) -> None:
        parser = LineParser()
        server = self.makeServer(parser=parser, maxAttachments=3)
        clients = [self.makeClient(server), self.makeClient(server)]
        for client in clients:
            self.sendText(client, "0\n/\n\nnull")
        # The clients of the kit have one each, too.
        self.assertEqual([limit for limit in parser.limits if limit == 3], [3, 3])

    def test_kitSpeaksIt(self) -> None:
        """
        A client of the testing kit takes the server's parser.
        """
        client = self.join(self.server)
        self.assertEqual(self.successResultOf(client.call("echo", 1)), 1)


class RoundTripTests(TalkTestCase):
    """
    Values through the default parser, as a client and a handler see them.
    """

    def echo(self, *args: Any) -> Any:
        server = self.makeServer()
        server.on("echo")(lambda socket, *args: args)
        return self.successResultOf(self.join(server).call("echo", *args))

    def test_binaryAnywhere(self) -> None:
        for value in (
            b"",
            [b"1", [b"2"]],
            {"deep": {"er": [b"3", {"est": b"4"}]}},
            {"a": b"1", "b": b"1", "c": [b"1", "text"]},
        ):
            self.assertEqual(self.echo(value), value)

    def test_textAnywhere(self) -> None:
        for value in ("", "\u2028 \U0001f600 \u00fc \x00", {"": {"": []}}, [None, True, 1.5, -(2**53)]):
            self.assertEqual(self.echo(value), value)

    def test_bytesLike(self) -> None:
        self.assertEqual(self.echo([bytearray(b"1"), memoryview(b"2")]), [b"1", b"2"])
