"""
Everything that a user supplies fails: one entry in the log, its client is told what the protocol has for it,
and nobody else is touched.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogEvent
from zope.interface import implementer

from tests.hostile.means import SECRET, HostileTestCase, event
from txrealtime import Incoming, Namespace, Server, Socket
from txrealtime.socketio.packet import IDecoder, IParser, JSONParser, Packet


class Broken(Exception):
    """The error that the hooks raise."""


def broken(*args: Any) -> Any:
    raise Broken("on purpose")


async def brokenAsync(*args: Any) -> Any:
    raise Broken("on purpose")


async def brokenLater(*args: Any) -> Any:
    await succeed(None)
    raise Broken("on purpose")


def brokenDeferred(*args: Any) -> Any:
    return fail(Broken("on purpose"))


KINDS: tuple[Callable[..., Any], ...] = (broken, brokenAsync, brokenLater, brokenDeferred)
"The ways in which a hook may fail."


class HookTests(HostileTestCase):
    def assertOneFailure(self) -> None:
        """One entry in the log, with its traceback, since the last call."""
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)
        failures: list[LogEvent] = [event for event in self.logged if "log_failure" in event]
        self.assertEqual(len(failures), 1)
        self.logged.clear()
        self.assertBystander()

    # -- coming ------------------------------------------------------------------------

    def test_allowRequest(self) -> None:
        """403, on both transports."""
        for kind in KINDS:
            answers = [lambda handshake: True]

            def allow(handshake: Any, kind: Any = kind, answers: Any = answers) -> Any:
                return answers.pop()(handshake) if answers else kind(handshake)

            self.makeEngine(allow)
            self.assertEqual(self.get().answer.error, (403, 4, "Forbidden"))
            self.assertOneFailure()
            response = self.webSocket().response
            assert response is not None
            self.assertEqual(response.error, (403, 4, "Forbidden"))
            self.assertOneFailure()
            self.assertEqual(len(self.engine.sessions), 1)

    def test_connected(self) -> None:
        """CONNECT_ERROR, which does not say what went wrong."""
        for kind in KINDS:
            self.server.namespace("/broken").onConnect(lambda socket, auth, kind=kind: kind(), replace=True)
            client = self.openWebSocket()
            client.send(f'40/broken,{{"token":"{SECRET}"}}')
            self.assertEqual(client.messages(), ['44/broken,{"message":"Internal server error"}'])
            self.assertOneFailure()
            client.send("40")
            self.assertEqual(len(client.messages()), 1)
            client.link.lose()

    def test_predicate(self) -> None:
        for kind in KINDS[:3]:
            self.makeEngine()
            self.server.mount(lambda path, auth, kind=kind: kind(), Namespace)
            client = self.openWebSocket()
            client.send("40/any,")
            self.assertEqual(client.messages(), ['44/any,{"message":"Internal server error"}'])
            self.assertOneFailure()

    def test_factory(self) -> None:
        self.server.mount(lambda path, auth: True, broken)
        client = self.openWebSocket()
        client.send("40/any,")
        self.assertEqual(client.messages(), ['44/any,{"message":"Internal server error"}'])
        self.assertOneFailure()
        self.assertEqual(len(self.server.namespaces), 1)

    # -- events ------------------------------------------------------------------------

    def test_handler(self) -> None:
        """No ack, and the client stays."""
        for kind in KINDS:
            self.server.on("break", replace=True)(lambda socket, *args, kind=kind: kind())
            client = self.join()
            client.send(event("break", SECRET, id=1))
            self.assertOneFailure()
            client.send(event("echo", id=2))
            self.assertEqual(client.messages(), ["432[]"])
            client.link.lose()

    def test_onAny(self) -> None:
        for kind in KINDS:
            self.server.onAny(lambda socket, *args, kind=kind: kind(), replace=True)
            client = self.join()
            client.send(event("whatever", id=1))
            self.assertOneFailure()
            self.assertEqual(client.messages(), [])
            client.link.lose()

    def test_middleware(self) -> None:
        for kind in KINDS:
            namespace = self.server.namespace("/guarded")
            namespace._handlers.middleware.clear()

            @namespace.use
            def guard(incoming: Incoming, proceed: Any, kind: Any = kind) -> Any:
                return kind()

            namespace.on("echo", replace=True)(lambda socket: "never")
            client = self.join("/guarded")
            client.send('42/guarded,1["echo"]')
            self.assertOneFailure()
            self.assertEqual(client.messages(), [])
            client.link.lose()

    def test_errorHandler(self) -> None:
        """One that fails itself is logged in place of what it was for."""

        class Other(Exception):
            """The error that the handler raises."""

        def other(*args: Any) -> Any:
            raise Other

        self.server.on("break")(other)
        for kind in KINDS:
            self.server.namespace()._handlers.errors.clear()
            self.server.onError()(lambda socket, error, event, kind=kind: kind())
            client = self.join()
            client.send(event("break", id=1))
            self.assertOneFailure()
            self.assertEqual(client.messages(), [])
            client.link.lose()

    def test_unsendableAck(self) -> None:
        """A handler that answers what cannot be sent: a TypeError of its own making."""
        self.server.on("break")(lambda socket: object())
        client = self.join()
        client.send(event("break", id=1))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(client.messages(), [])
        client.send(event("echo", id=2))
        self.assertEqual(client.messages(), ["432[]"])

    def test_whatAnAckLeadsTo(self) -> None:
        """An error in a callback of an ack's Deferred stays there: the connection does not notice."""
        client = self.join()
        (socket,) = [s for s in self.server.namespace().sockets.values() if s.session is self.session]
        asked = socket.call("sure?")
        asked.addCallback(broken)
        asked.addErrback(lambda failure: failure.trap(Broken))
        client.messages()
        client.send('430["yes"]')
        client.send(event("echo", id=1))
        self.assertEqual(client.messages(), ["431[]"])

    # -- going -------------------------------------------------------------------------

    def test_disconnecting(self) -> None:
        for kind in KINDS:
            namespace = self.server.namespace(f"/{kind.__name__}")
            told: list[Any] = []
            namespace.onDisconnecting(lambda socket, reason, kind=kind: kind())
            namespace.onDisconnect(lambda socket, reason, told=told: told.append(reason))
            self.join(f"/{kind.__name__}").link.lose()
            self.assertOneFailure()
            self.assertEqual(told, ["transport close"])
            self.assertEqual(namespace.sockets, {})

    def test_disconnected(self) -> None:
        for kind in KINDS:
            namespace = self.server.namespace(f"/{kind.__name__}")
            namespace.onDisconnect(lambda socket, reason, kind=kind: kind())
            client = self.join(f"/{kind.__name__}")
            client.send("40")
            client.link.lose()
            self.assertOneFailure()
            self.assertEqual(namespace.sockets, {})
            self.assertEqual(self.ends.pop(), "transport close")

    # -- what stays --------------------------------------------------------------------

    def test_nothingStays(self) -> None:
        """A client whose every hook failed leaves no object behind."""
        namespace = self.server.namespace("/broken")
        namespace.on("break")(brokenLater)
        namespace.onDisconnecting(broken)
        namespace.onDisconnect(brokenAsync)
        gone: list[weakref.ref[Any]] = []
        for _ in range(20):
            client = self.join("/broken")
            socket = next(iter(namespace.sockets.values()))
            gone += [weakref.ref(socket), weakref.ref(socket.session)]
            client.send('42/broken,1["break"]')
            client.link.lose()
            del socket, client
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 60)
        self.logged.clear()
        gc.collect()
        self.assertEqual([reference() for reference in gone if reference() is not None], [])


@implementer(IDecoder)
class BrokenDecoder:
    """A decoder of a parser with a defect: it fails on one event as no decoder may."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def feed(self, message: str | bytes) -> Packet | None:
        if "break decoding" in str(message):
            raise Broken("in the decoder")
        packet: Packet | None = self._decoder.feed(message)
        return packet


@implementer(IParser)
class BrokenParser:
    """
    A parser with defects.

    :ivar decoders: whether it makes decoders.
    """

    def __init__(self) -> None:
        self._parser = JSONParser()
        self.decoders = True

    def encode(self, packet: Packet) -> Any:
        if packet.data and "break encoding" in str(packet.data):
            raise Broken("in the encoder")
        return self._parser.encode(packet)

    def decoder(self, maxAttachments: int) -> Any:
        if not self.decoders:
            raise Broken("no decoder")
        return BrokenDecoder(self._parser.decoder(maxAttachments))


class ParserTests(HookTests):
    """A parser of the user's; all that the hooks do, they do with it too."""

    def makeEngine(self, allowRequest: Any = None, **settings: Any) -> None:
        self.parser = BrokenParser()
        super().makeEngine(allowRequest, **settings)

    def makeServer(self, **options: Any) -> Server:
        return super().makeServer(parser=self.parser, **options)

    def test_decoder(self) -> None:
        """A failing decoder is logged; the message is lost, the session stays."""
        client = self.join()
        client.send(event("break decoding"))
        self.assertOneFailure()
        client.send(event("echo", id=1))
        self.assertEqual(client.messages(), ["431[]"])

    def test_noDecoder(self) -> None:
        """Without one there is no session: 500, or the WebSocket is closed."""
        self.parser.decoders = False
        self.assertEqual(self.get().answer.status, 500)
        self.assertOneFailure()
        client = self.webSocket()
        self.assertClosed(client, 1000)
        self.assertOneFailure()
        self.assertEqual(len(self.engine.sessions), 1)
        self.parser.decoders = True

    def test_encoder(self) -> None:
        """The caller of emit gets the error; an ack is a handler's result, so its error is logged."""
        self.assertRaises(Broken, self.server.emit, "break encoding")
        client = self.join()
        client.send(event("echo", "break encoding", id=1))
        self.assertOneFailure()
        client.send(event("echo", id=2))
        self.assertEqual(client.messages(), ["432[]"])


class LateTests(HostileTestCase):
    """Hooks that fail after their client has gone."""

    def test_handler(self) -> None:
        waits: list[Deferred[None]] = []

        @self.server.on("wait")
        async def wait(socket: Socket) -> None:
            waits.append(Deferred())
            await waits[-1]
            broken()

        client = self.join()
        client.send(event("wait", id=1))
        client.link.lose()
        waits[0].callback(None)
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)
        self.assertEqual(self.ends, ["transport close"])

    def test_admission(self) -> None:
        """A pending admission is cancelled; its later outcome is dropped."""

        @self.server.namespace("/slow").onConnect
        async def hesitate(socket: Socket) -> None:
            try:
                await Deferred()
            finally:
                broken()

        client = self.openWebSocket()
        client.send("40/slow,")
        client.link.lose()
        self.assertEqual(self.flushLoggedErrors(), [])
