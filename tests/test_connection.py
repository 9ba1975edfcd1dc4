"""
One client's connection: admission, events in turn, backpressure, and how it ends.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from tests.talk import Recorder, Steps, TalkTestCase, textOf
from txrealtime import AckTimeout, CloseReason, ConnectionRejected, Disconnected, Socket
from txrealtime.engineio.packet import message
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.socketio.packet import Packet, PacketType
from txrealtime.testing import Client, FakeTransport


class AdmissionTests(TalkTestCase):
    """
    CONNECT, and its refusal or admission by `connected`.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.lobby = Recorder()
        self.server.mount("/lobby", self.lobby)

    def test_connectWithAuth(self) -> None:
        client = self.makeClient(self.server)
        id = self.successResultOf(client.connect("/lobby", {"token": "x", "deep": [1, None]}))
        self.assertEqual(self.lobby.take(), [("connected", id, {"token": "x", "deep": [1, None]})])
        socket = self.lobby.sockets[id]
        self.assertEqual(socket.handshake.auth, {"token": "x", "deep": [1, None]})
        self.assertTrue(socket.connected)

    def test_connectWithoutAuth(self) -> None:
        client = self.makeClient(self.server)
        id = self.successResultOf(client.connect("/lobby"))
        self.assertEqual(self.lobby.take(), [("connected", id, None)])

    def test_onTheWire(self) -> None:
        client = self.makeClient(self.server)
        self.sendText(client, '0/lobby,{"token":1}')
        [socket] = self.lobby.sockets.values()
        self.assertEqual(self.wireOf(client), [f'0/lobby,{{"sid":"{socket.id}"}}'])

    def test_idIsNotTheSessions(self) -> None:
        client = self.join(self.server, "/lobby")
        self.successResultOf(client.connect("/"))
        self.assertEqual(len({client.id("/lobby"), client.id("/"), client.session.sid}), 3)

    def test_refusedWithData(self) -> None:
        self.lobby.admission = ConnectionRejected("who are you?", {"code": 401})
        client = self.makeClient(self.server)
        error = self.failureResultOf(client.connect("/lobby"), ConnectionRejected).value
        self.assertEqual((error.message, error.data), ("who are you?", {"code": 401}))
        self.assertRaises(Disconnected, client.id, "/lobby")

    def test_refusalOnTheWire(self) -> None:
        client = self.makeClient(self.server)
        self.lobby.admission = ConnectionRejected("no")
        self.sendText(client, "0/lobby,")
        self.lobby.admission = ConnectionRejected("no", 0)
        self.sendText(client, "0/lobby,")
        self.assertEqual(
            self.wireOf(client), ['4/lobby,{"message":"no"}', '4/lobby,{"message":"no","data":0}']
        )

    def test_refusedIsNotToldThatItLeft(self) -> None:
        self.lobby.admission = ConnectionRejected()
        client = self.makeClient(self.server)
        self.failureResultOf(client.connect("/lobby"), ConnectionRejected)
        client.close()
        self.assertEqual([call[0] for call in self.lobby.take()], ["connected"])

    def test_refusedMayTryAgain(self) -> None:
        self.lobby.admission = ConnectionRejected()
        client = self.makeClient(self.server)
        self.failureResultOf(client.connect("/lobby"), ConnectionRejected)
        self.lobby.admission = None
        self.successResultOf(client.connect("/lobby"))

    def test_refusedFromRoomsLeavesThem(self) -> None:
        @self.lobby.onConnect
        def connected(socket: Socket) -> None:
            socket.join("red")
            raise ConnectionRejected("no")

        client = self.makeClient(self.server)
        self.failureResultOf(client.connect("/lobby"), ConnectionRejected)
        self.assertNotIn("red", self.lobby.rooms)

    def test_unknownNamespace(self) -> None:
        client = self.makeClient(self.server)
        with capturedLogs() as events:
            error = self.failureResultOf(client.connect("/nowhere"), ConnectionRejected).value
        self.assertEqual((error.message, error.data), ("Invalid namespace", None))
        [line] = [formatEvent(event) for event in events]
        self.assertIn("'/nowhere', which does not exist; clients can join '/', '/lobby'", line)
        self.successResultOf(client.connect("/lobby"))

    def test_failingIsLoggedAndRefused(self) -> None:
        """
        The client learns nothing of an error that was not meant for it.
        """
        self.lobby.admission = ZeroDivisionError("secret")
        client = self.makeClient(self.server)
        error = self.failureResultOf(client.connect("/lobby", {"password": "hush"}), ConnectionRejected).value
        self.assertEqual(error.message, "Internal server error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failingIsLoggedWithoutAuth(self) -> None:
        self.lobby.admission = ZeroDivisionError()
        client = self.makeClient(self.server)
        with capturedLogs() as events:
            self.failureResultOf(client.connect("/lobby", {"password": "hush"}), ConnectionRejected)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertIn("/lobby", textOf(events))
        self.assertNotIn("hush", textOf(events))

    def test_cannotEncodeTheRefusal(self) -> None:
        """
        A refusal that cannot be sent is the application's error; the client is refused all the same.
        """
        self.lobby.admission = ConnectionRejected("no", {"when": object()})
        client = self.makeClient(self.server)
        self.failureResultOf(client.connect("/lobby"), ConnectionRejected)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_asyncFunction(self) -> None:
        login: Deferred[bool] = Deferred()

        @self.lobby.onConnect
        async def connected(socket: Socket, auth: Any) -> None:
            if not await login:
                raise ConnectionRejected("who are you?")

        client = self.makeClient(self.server)
        joined = client.connect("/lobby")
        self.assertNoResult(joined)
        login.callback(True)
        client.flush()
        self.successResultOf(joined)

    def test_emitsAreHeldUntilAdmitted(self) -> None:
        """
        Events sent to a client in admission reach it right after its CONNECT, in order.
        """
        self.lobby.admission = Deferred()
        client = self.makeClient(self.server)
        self.sendText(client, "0/lobby,")
        [socket] = self.lobby.asked
        socket.emit("one", b"1")
        self.lobby.emit("two")
        socket.emit("never", volatile=True)
        self.assertEqual(self.wireOf(client), [])
        self.assertGreater(socket.buffered, 0)
        self.lobby.admission.callback(None)
        connect, *events = self.wireOf(client)
        self.assertEqual(connect, f'0/lobby,{{"sid":"{socket.id}"}}')
        self.assertEqual(events, ['51-/lobby,["one",{"_placeholder":true,"num":0}]', b"1", '2/lobby,["two"]'])
        self.assertEqual(socket.buffered, 0)

    def test_oneSendForAdmission(self) -> None:
        """CONNECT and the events held for it leave together: with polling, in one response."""
        self.lobby.admission = Deferred()
        client = self.makeClient(self.server)
        self.sendText(client, "0/lobby,")
        [socket] = self.lobby.asked
        socket.emit("one", b"1")
        socket.emit("two")
        transport, sizes = client.session.transport, []
        send = transport.send
        self.patch(transport, "send", lambda packets: (sizes.append(len(packets)), send(packets))[1])
        self.lobby.admission.callback(None)
        self.assertEqual(sizes, [4])

    def test_heldOnesOfARefusedAreDropped(self) -> None:
        self.lobby.admission = Deferred()
        client = self.makeClient(self.server)
        joined = client.connect("/lobby")
        self.lobby.asked[0].emit("secret")
        self.lobby.admission.errback(ConnectionRejected())
        client.flush()
        self.failureResultOf(joined, ConnectionRejected)
        self.assertEqual(client.received("/lobby"), [])

    def test_tooMuchHeld(self) -> None:
        """
        A client in a long admission does not fill the memory.
        """
        server = self.makeServer(maxBuffered=1000)
        lobby = Recorder()
        lobby.admission = Deferred()
        server.mount("/lobby", lobby)
        client = self.makeClient(server)
        client.connect("/lobby").addErrback(lambda failure: None)
        for _ in range(3):
            lobby.emit("much", "x" * 400)
        self.assertEqual(client.transport.closed, CloseReason.SLOW_CONSUMER)

    def test_oneHeldMessageMayBeLarge(self) -> None:
        """
        One message always fits, also while it waits for the admission.
        """
        server = self.makeServer(maxBuffered=1000)

        @server.onConnect
        def connected(socket: Socket) -> None:
            socket.emit("large", "x" * 2000)

        client = self.join(server)
        self.assertEqual(client.received(), [("large", "x" * 2000)])

    def test_joinDuringConnected(self) -> None:
        @self.lobby.onConnect
        def connected(socket: Socket) -> None:
            socket.join("red")
            socket.emit("welcome")

        client = self.join(self.server, "/lobby")
        self.lobby.to("red").emit("hi")
        self.assertEqual(client.received("/lobby"), [("welcome",), ("hi",)])

    def test_broadcastDuringConnectedReachesTheOthers(self) -> None:
        alice = self.join(self.server, "/lobby")

        @self.lobby.onConnect
        def connected(socket: Socket) -> None:
            socket.others.emit("joined", socket.id)

        bob = self.join(self.server, "/lobby")
        self.assertEqual(alice.received("/lobby"), [("joined", bob.id("/lobby"))])
        self.assertEqual(bob.received("/lobby"), [])

    def test_pendingIsNotInSockets(self) -> None:
        self.lobby.admission = Deferred()
        client = self.makeClient(self.server)
        client.connect("/lobby")
        self.assertEqual(self.lobby.sockets, {})
        self.assertEqual(self.successResultOf(self.lobby.fetch()), [])
        self.lobby.admission.callback(None)
        self.assertEqual(len(self.successResultOf(self.lobby.fetch())), 1)

    def test_callDuringConnectedFails(self) -> None:
        """
        A client in admission cannot ack: its ack would be awaited without end.
        """
        failures = []

        @self.lobby.onConnect
        async def connected(socket: Socket) -> None:
            try:
                await socket.call("sure?")
            except Disconnected as error:
                failures.append(str(error))

        client = self.join(self.server, "/lobby")
        self.assertEqual(len(failures), 1)
        self.assertIn("before it is admitted", failures[0])
        self.assertEqual(client.received("/lobby"), [])

    def test_disconnectInsideConnected(self) -> None:
        @self.lobby.onConnect
        def connected(socket: Socket) -> None:
            socket.join("red")
            socket.disconnect()
            socket.join("blue")
            self.gone = socket.whenDisconnected()

        client = self.makeClient(self.server)
        self.failureResultOf(client.connect("/lobby"), ConnectionRejected)
        self.assertEqual(self.successResultOf(self.gone), CloseReason.SERVER_DISCONNECT)
        self.assertIsNone(client.transport.closed)
        self.assertEqual(self.lobby.take(), [])

    def test_disconnectAndCloseInsideConnected(self) -> None:
        @self.lobby.onConnect
        def connected(socket: Socket) -> None:
            socket.disconnect(close=True)

        client = self.makeClient(self.server)
        self.assertNoResult(client.connect("/lobby"))
        self.assertEqual(client.transport.closed, CloseReason.SERVER_DISCONNECT)

    def test_disconnectWhilePending(self) -> None:
        self.lobby.admission = Deferred()
        client = self.makeClient(self.server)
        joined = client.connect("/lobby")
        self.lobby.asked[0].disconnect()
        self.lobby.admission.callback(None)
        client.flush()
        self.failureResultOf(joined, ConnectionRejected)

    def test_clientDisconnectsWhilePending(self) -> None:
        """
        The admission is cancelled, and the client may ask again.
        """
        cancelled: list[Deferred[None]] = []
        self.lobby.admission = Deferred(cancelled.append)
        client = self.makeClient(self.server)
        joined = client.connect("/lobby")
        gone = self.lobby.asked[0].whenDisconnected()
        client.disconnect("/lobby")
        self.assertEqual(cancelled, [self.lobby.admission])
        self.assertNoResult(joined)
        self.successResultOf(gone)
        self.lobby.admission = None
        self.successResultOf(client.connect("/lobby"))
        self.assertEqual([call[0] for call in self.lobby.take()], ["connected", "connected"])

    def test_clientGoneWhilePending(self) -> None:
        cancelled: list[Deferred[None]] = []
        self.lobby.admission = Deferred(cancelled.append)
        client = self.makeClient(self.server)
        joined = client.connect("/lobby")
        client.close()
        self.assertEqual(cancelled, [self.lobby.admission])
        self.assertNoResult(joined)
        self.assertEqual([call[0] for call in self.lobby.take()], ["connected"])

    def test_coroutineIsCancelledWithItsClient(self) -> None:
        seen: list[BaseException] = []

        @self.lobby.onConnect
        async def connected(socket: Socket) -> None:
            try:
                await Deferred()
            except CancelledError as error:
                seen.append(error)
                raise

        client = self.makeClient(self.server)
        client.connect("/lobby")
        with capturedLogs() as events:
            client.close()
        self.assertEqual(len(seen), 1)
        self.assertEqual([event for event in events if "log_failure" in event], [])

    def test_applicationIgnoresTheCancellation(self) -> None:
        """
        A client gone while `connected` waited is not admitted, whatever `connected` does then.
        """
        rest: Deferred[None] = Deferred()

        @self.lobby.onConnect
        async def connected(socket: Socket) -> None:
            self.pending = socket
            try:
                await Deferred()
            except CancelledError:
                await rest

        client = self.makeClient(self.server)
        client.connect("/lobby")
        client.close()
        rest.callback(None)
        self.assertFalse(self.pending.connected)
        self.assertIsNotNone(self.pending._leftBecause)

    def test_abandonedAdmissionIsNotTheNextOne(self) -> None:
        """
        An admission that outlives its cancellation is not taken for the client's next, with another auth.
        """
        waits: list[Deferred[None]] = []

        @self.lobby.onConnect
        async def connected(socket: Socket, auth: Any) -> None:
            wait: Deferred[None] = Deferred()
            waits.append(wait)
            try:
                await wait
            except CancelledError:
                rest: Deferred[None] = Deferred()
                waits.append(rest)
                await rest

        client = self.makeClient(self.server)
        client.connect("/lobby", {"user": "alice"})
        client.disconnect("/lobby")
        joined = client.connect("/lobby", {"user": "bob"})
        _, abandoned, current = waits
        abandoned.callback(None)
        client.flush()
        self.assertNoResult(joined)
        current.callback(None)
        client.flush()
        id = self.successResultOf(joined)
        self.assertEqual(self.lobby.sockets[id].handshake.auth, {"user": "bob"})

    def test_goneByWhatItIsSent(self) -> None:
        """A client that goes while `connected` has not waited yet."""
        server = self.makeServer(maxBuffered=100)
        ended = []

        @server.onConnect
        async def connected(socket: Socket) -> None:
            for _ in range(2):
                socket.emit("filler", "x" * 85)
            try:
                await Deferred()
            finally:
                ended.append(socket._leftBecause)

        client = self.makeClient(server)
        client.connect()
        self.assertEqual(client.transport.closed, CloseReason.SLOW_CONSUMER)
        self.assertEqual(len(ended), 1)
        self.assertTrue(server.namespace().rooms.isEmpty)

    def test_secondConnectWhilePending(self) -> None:
        self.lobby.admission = Deferred()
        client = self.makeClient(self.server)
        client.connect("/lobby")
        client.connect("/lobby")
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)

    def test_secondConnectOnceIn(self) -> None:
        client = self.join(self.server, "/lobby")
        self.lobby.take()
        self.sendText(client, "0/lobby,")
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)
        self.assertEqual(
            [call[2] for call in self.lobby.take()],
            [CloseReason.FORCED_SERVER_CLOSE, CloseReason.FORCED_SERVER_CLOSE],
        )

    def test_eventBeforeAdmission(self) -> None:
        self.lobby.admission = Deferred()
        client = self.makeClient(self.server)
        client.connect("/lobby")
        client.emit("early", namespace="/lobby")
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)

    def test_goneByItsOwnGreeting(self) -> None:
        """
        A connection that ends as the CONNECT is sent leaves no socket behind.
        """
        server = self.makeServer(maxBuffered=100)
        lobby = Recorder()
        server.mount("/lobby", lobby)
        client = self.join(server)
        self.setWritable(client, False)
        server.emit("filler", "x" * 85)
        client.connect("/lobby")
        self.assertEqual(client.transport.closed, CloseReason.SLOW_CONSUMER)
        [socket] = lobby.asked
        self.assertFalse(socket.connected)
        self.assertEqual(lobby.sockets, {})
        self.assertEqual([call[0] for call in lobby.take()], ["connected"])


class ConnectTimeoutTests(TalkTestCase):
    """
    A client has `connectTimeout` seconds to join a namespace.
    """

    def test_nobodyCame(self) -> None:
        server = self.makeServer(connectTimeout=10)
        client = self.makeClient(server)
        self.advance(9.9)
        self.assertIsNone(client.transport.closed)
        self.advance(0.1)
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)

    def test_joined(self) -> None:
        client = self.join(self.makeServer(connectTimeout=10))
        self.advance(60)
        self.assertIsNone(client.transport.closed)

    def test_leftAgain(self) -> None:
        """
        The timeout counts once: a client that has left its last namespace may stay.
        """
        client = self.join(self.makeServer(connectTimeout=10))
        client.disconnect()
        self.advance(60)
        self.assertIsNone(client.transport.closed)

    def test_onlyRefused(self) -> None:
        client = self.makeClient(self.makeServer(connectTimeout=10))
        self.failureResultOf(client.connect("/nowhere"), ConnectionRejected)
        self.advance(10)
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)

    def test_slowAdmission(self) -> None:
        """
        A client is not blamed for an admission that takes longer.
        """
        server = self.makeServer(connectTimeout=10)
        login: Deferred[None] = Deferred()
        server.onConnect(lambda socket: login)
        client = self.makeClient(server)
        joined = client.connect()
        self.advance(15)
        login.callback(None)
        client.flush()
        self.successResultOf(joined)

    def test_slowRefusal(self) -> None:
        """
        A client refused after the timeout does not stay for ever.
        """
        server = self.makeServer(connectTimeout=10)
        login: Deferred[None] = Deferred()
        server.onConnect(lambda socket: login)
        client = self.makeClient(server)
        joined = client.connect()
        self.advance(15)
        login.errback(ConnectionRejected())
        client.flush()
        self.failureResultOf(joined, ConnectionRejected)
        self.advance(10)
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)


class ViolationTests(TalkTestCase):
    """
    A packet that the protocol does not allow closes the connection, with a reason and without a traceback.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.root = Recorder()
        self.server.mount("/root", self.root)
        self.heard: list[Any] = []
        self.server.onAny(lambda socket, *args: self.heard.append(args))

    def assertCloses(self, reason: CloseReason, *messages: str | bytes) -> None:
        client = self.join(self.server, "/root")
        self.successResultOf(client.connect("/"))
        self.root.take()
        with capturedLogs() as events:
            self.sendText(client, *messages)
        self.assertEqual(client.transport.closed, reason, messages)
        self.assertEqual([call[2] for call in self.root.take()], [reason, reason])
        self.assertEqual([event for event in events if "log_failure" in event], [])
        self.assertNotIn(client.session.sid, textOf(events))
        self.assertIn(client.session.sid[:6], textOf(events))

    def test_notAPacket(self) -> None:
        for text in ("", "9", "x", "2{", '2["a"', "2{}", "2[]", "2[null]", '0["x"]', '1["x"]', '3["no id"]'):
            self.assertCloses(CloseReason.FORCED_CLOSE, text)

    def test_reservedEvents(self) -> None:
        for name in (
            "connect",
            "connect_error",
            "disconnect",
            "disconnecting",
            "newListener",
            "removeListener",
        ):
            self.assertCloses(CloseReason.FORCED_CLOSE, f'2["{name}","x"]')
        self.assertEqual(self.heard, [])

    def test_attachments(self) -> None:
        head = '51-["image",{"_placeholder":true,"num":0}]'
        self.assertCloses(CloseReason.FORCED_CLOSE, b"unannounced")
        self.assertCloses(CloseReason.FORCED_CLOSE, head, '2["between"]')
        self.assertCloses(CloseReason.FORCED_CLOSE, '50-["image"]')
        self.assertCloses(CloseReason.FORCED_CLOSE, '511-["image"]')
        self.assertCloses(CloseReason.FORCED_CLOSE, '51-["image",{"_placeholder":true,"num":1}]', b"x")
        self.assertEqual(self.heard, [])

    def test_maxAttachments(self) -> None:
        server = self.makeServer(maxAttachments=2)
        heard: list[Any] = []
        server.on("blobs")(lambda socket, *blobs: heard.append(blobs))
        client = self.join(server)
        client.emit("blobs", b"1", b"2")
        self.assertEqual(heard, [(b"1", b"2")])
        client.emit("blobs", b"1", b"2", b"3")
        self.assertEqual(client.transport.closed, CloseReason.FORCED_CLOSE)

    def test_namespaceNotJoined(self) -> None:
        self.assertCloses(CloseReason.FORCED_SERVER_CLOSE, '2/other,["x"]')
        self.assertCloses(CloseReason.FORCED_SERVER_CLOSE, "3/other,1[]")

    def test_disconnectBeforeAnything(self) -> None:
        client = self.makeClient(self.server)
        self.sendText(client, "1/other,")
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)

    def test_disconnectAfterOurs(self) -> None:
        """
        A client's DISCONNECT may meet the server's own on the way.
        """
        client = self.join(self.server, "/root")
        self.successResultOf(client.connect("/"))
        self.socketOf(self.server, client, "/root").disconnect()
        self.sendText(client, "1/root,")
        self.assertIsNone(client.transport.closed)

    def test_attachmentsAfterOurs(self) -> None:
        """Attachments that cross the server's DISCONNECT count for nothing afterwards."""
        server = self.makeServer(maxPayload=1000)
        server.namespace("/root")
        steps = Steps()
        server.on("step")(steps)
        client = self.join(server)
        self.successResultOf(client.connect("/root"))
        self.socketOf(server, client, "/root").disconnect()
        client.emit("step", 0)
        for _ in range(20):
            self.sendText(
                client, '52-/root,["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'
            )
            self.sendText(client, b"x" * 800, b"x" * 800)
        client.emit("step", 1)
        self.assertTrue(client.transport.reading)
        self.assertIsNone(client.transport.closed)
        self.assertEqual(steps.begun, [0])

    def test_connectErrorFromAClient(self) -> None:
        self.assertCloses(CloseReason.FORCED_SERVER_CLOSE, '4/root,{"message":"no"}')

    def test_nothingIsHandledAfterwards(self) -> None:
        client = self.join(self.server)
        self.sendText(client, "x", '2["late"]')
        self.assertEqual(self.heard, [])

    def test_rejoinOnTheSameConnection(self) -> None:
        client = self.join(self.server, "/root")
        first = client.id("/root")
        client.disconnect("/root")
        second = self.successResultOf(client.connect("/root"))
        self.assertNotEqual(first, second)
        self.assertEqual(
            [call[:2] for call in self.root.take()],
            [("connected", first), ("disconnecting", first), ("disconnected", first), ("connected", second)],
        )


class OrderTests(TalkTestCase):
    """
    Events of one socket are handled in the order sent, one at a time unless told otherwise.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.steps = Steps()

    def serve(self, concurrency: int | None) -> Client:
        namespace = Recorder(concurrency)
        namespace.on("step")(self.steps)
        self.server.mount("/steps", namespace)
        return self.join(self.server, "/steps")

    def test_oneAtATime(self) -> None:
        client = self.serve(1)
        for number in range(3):
            client.emit("step", number, namespace="/steps")
        self.assertEqual(self.steps.begun, [0])
        self.steps.waits[0].callback(None)
        self.assertEqual(self.steps.begun, [0, 1])
        client.emit("step", 3, namespace="/steps")
        self.assertEqual(self.steps.begun, [0, 1])
        self.steps.waits[1].callback(None)
        self.steps.waits[2].callback(None)
        self.assertEqual(self.steps.begun, [0, 1, 2, 3])

    def test_disconnectedComesLast(self) -> None:
        """No handler begins after disconnected(); disconnecting() is called at once."""
        client = self.serve(1)
        namespace = self.server.namespace("/steps")
        assert isinstance(namespace, Recorder)
        for number in range(3):
            client.emit("step", number, namespace="/steps")
        namespace.take()
        client.close()
        self.assertEqual([call[0] for call in namespace.take()], ["disconnecting"])
        self.steps.waits[0].callback(None)
        self.assertEqual((self.steps.begun, namespace.take()), ([0, 1], []))
        self.steps.waits[1].callback(None)
        self.assertEqual(self.steps.begun, [0, 1, 2])
        self.assertEqual([call[0] for call in namespace.take()], ["disconnected"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_disconnectedDoesNotWaitForEver(self) -> None:
        """A handler that never ends costs its client's waiting events, with a line in the log."""
        client = self.serve(1)
        namespace = self.server.namespace("/steps")
        assert isinstance(namespace, Recorder)
        for number in range(3):
            client.emit("step", number, namespace="/steps")
        client.close()
        namespace.take()
        with capturedLogs() as captured:
            self.clock.advance(self.server.settings.closeTimeout)
        self.assertEqual([call[0] for call in namespace.take()], ["disconnected"])
        self.assertIn("2 events of a client that has left", formatEvent(captured[-1]))
        self.steps.waits[0].callback(None)
        self.assertEqual(self.steps.begun, [0])

    def test_whatComesAsAnAckLeaves(self) -> None:
        """To answer one request can bring the next: what waits already goes first."""
        client = self.serve(1)
        client.call("step", 0, namespace="/steps")
        client.emit("step", 1, namespace="/steps")
        send = client.transport.send

        def pipelined(packets: Any) -> None:
            send(packets)
            client.transport.send = send  # type: ignore[method-assign]
            self.sendText(client, '2/steps,["step",2]')

        client.transport.send = pipelined  # type: ignore[method-assign]
        self.steps.waits[0].callback(None)
        self.steps.waits[1].callback(None)
        self.assertEqual(self.steps.begun, [0, 1, 2])

    def test_aFailureLetsTheNextOneIn(self) -> None:
        client = self.serve(1)
        client.emit("step", 0, namespace="/steps")
        client.emit("step", 1, namespace="/steps")
        self.steps.waits[0].errback(ZeroDivisionError())
        self.assertEqual(self.steps.begun, [0, 1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_someAtATime(self) -> None:
        client = self.serve(2)
        for number in range(5):
            client.emit("step", number, namespace="/steps")
        self.assertEqual(self.steps.begun, [0, 1])
        self.steps.waits[1].callback(None)
        self.assertEqual(self.steps.begun, [0, 1, 2])
        self.steps.waits[0].callback(None)
        self.steps.waits[2].callback(None)
        self.assertEqual(self.steps.begun, [0, 1, 2, 3, 4])

    def test_allAtATime(self) -> None:
        client = self.serve(None)
        for number in range(500):
            client.emit("step", number, namespace="/steps")
        self.assertEqual(self.steps.begun, list(range(500)))
        self.assertTrue(client.transport.reading)

    def test_acksComeAsHandlersFinish(self) -> None:
        client = self.serve(2)
        first = client.call("step", 0, namespace="/steps")
        second = client.call("step", 1, namespace="/steps")
        self.steps.waits[1].callback("second")
        client.flush()
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second), "second")
        self.steps.waits[0].callback("first")
        client.flush()
        self.assertEqual(self.successResultOf(first), "first")

    def test_socketsDoNotWaitForOneAnother(self) -> None:
        alice = self.serve(1)
        bob = self.join(self.server, "/steps")
        alice.emit("step", "alice", namespace="/steps")
        bob.emit("step", "bob", namespace="/steps")
        self.assertEqual(self.steps.begun, ["alice", "bob"])

    def test_namespacesDoNotWaitForOneAnother(self) -> None:
        client = self.serve(1)
        self.successResultOf(client.connect("/"))
        self.server.on("quick")(lambda socket: "done")
        client.emit("step", 0, namespace="/steps")
        self.assertEqual(self.successResultOf(client.call("quick")), "done")

    def test_namespacesOfOneClientWakeEachOther(self) -> None:
        """
        A handler that finishes another's wait, while its own queue is worked off, leaves nothing behind.
        """
        client = self.serve(1)
        self.successResultOf(client.connect("/"))
        root = Steps()
        self.server.on("step")(root)
        self.server.on("wake")(lambda socket: self.steps.waits[0].callback(None))
        client.emit("step", 0)
        client.emit("wake")
        client.emit("step", 0, namespace="/steps")
        client.emit("step", 1, namespace="/steps")
        root.waits[0].callback(None)
        self.assertEqual(self.steps.begun, [0, 1])

    def assertThousands(self, count: int = 5000) -> None:
        client = self.serve(1)
        namespace = self.server.namespace("/steps")
        numbers: list[int] = []
        namespace.on("number")(lambda socket, number: numbers.append(number))
        namespace.on("later")(lambda socket, number: succeed(numbers.append(number)))

        @namespace.on("soon")
        async def soon(socket: Socket, number: int) -> None:
            await succeed(None)
            numbers.append(number)

        client.emit("step", None, namespace="/steps")
        for number in range(count):
            client.emit(("number", "later", "soon")[number % 3], number, namespace="/steps")
        self.assertEqual(numbers, [])
        self.steps.waits[0].callback(None)
        self.assertEqual(numbers, list(range(count)))
        self.assertTrue(client.transport.reading)

    def test_thousandsWaiting(self) -> None:
        self.assertThousands()

    def test_thousandsWaitingWithMiddleware(self) -> None:
        server = self.server
        namespace = Recorder()
        server.mount("/steps", namespace)
        for _ in range(3):
            namespace.use(lambda incoming, proceed: proceed(incoming))
        namespace.on("step")(self.steps)
        self.serve = lambda concurrency: self.join(server, "/steps")  # type: ignore[method-assign]
        self.assertThousands(2000)

    def test_whatCameBeforeADisconnectIsHandled(self) -> None:
        client = self.serve(1)
        for number in range(3):
            client.emit("step", number, namespace="/steps")
        client.disconnect("/steps")
        self.steps.waits[0].callback(None)
        self.steps.waits[1].callback(None)
        self.assertEqual(self.steps.begun, [0, 1, 2])

    def test_whatCameBeforeTheEndIsHandled(self) -> None:
        client = self.serve(1)
        for number in range(2):
            client.emit("step", number, namespace="/steps")
        client.close()
        self.steps.waits[0].callback(None)
        self.assertEqual(self.steps.begun, [0, 1])

    def test_whatWaitsOfOneWeDisconnectIsForgotten(self) -> None:
        client = self.serve(1)
        for number in range(200):
            client.emit("step", number, namespace="/steps")
        self.assertFalse(client.transport.reading)
        self.socketOf(self.server, client, "/steps").disconnect()
        self.assertTrue(client.transport.reading)
        self.steps.waits[0].callback(None)
        self.assertEqual(self.steps.begun, [0])

    def test_whatIsForgottenCountsNoLonger(self) -> None:
        client = self.serve(1)
        for _ in range(3):
            client.emit("step", "x" * 600_000, namespace="/steps")
        self.assertFalse(client.transport.reading)
        self.socketOf(self.server, client, "/steps").disconnect()
        self.successResultOf(client.connect("/steps"))
        for number in range(2):
            client.emit("step", number, namespace="/steps")
        self.assertTrue(client.transport.reading)

    def test_whatWaitsInOtherNamespacesIsKept(self) -> None:
        client = self.serve(1)
        other = Steps()
        self.server.on("step")(other)
        self.successResultOf(client.connect("/"))
        for number in range(200):
            client.emit("step", number)
            client.emit("step", number, namespace="/steps")
        self.socketOf(self.server, client, "/steps").disconnect()
        self.assertFalse(client.transport.reading)
        other.waits[0].callback(None)
        self.assertEqual(other.begun, [0, 1])

    def test_handlerDisconnectsWhileOthersWait(self) -> None:
        client = self.serve(1)
        self.server.namespace("/steps").on("bye")(lambda socket: socket.disconnect())
        client.emit("step", 0, namespace="/steps")
        client.emit("bye", namespace="/steps")
        client.emit("step", 1, namespace="/steps")
        self.steps.waits[0].callback(None)
        self.assertEqual(self.steps.begun, [0])
        self.assertFalse(client.isConnected("/steps"))


class BackpressureTests(TalkTestCase):
    """
    When too many events wait for handlers, reading pauses.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer(maxWaiting=5, maxPayload=1000)
        self.steps = Steps()
        self.server.on("step")(self.steps)
        self.client = self.join(self.server)

    def emitMany(self, count: int, client: Client | None = None) -> None:
        for number in range(count):
            (client or self.client).emit("step", number)

    def finish(self, count: int) -> None:
        for _ in range(count):
            self.steps.waits.pop(0).callback(None)

    def test_pausedAndResumed(self) -> None:
        self.emitMany(6)  # one is being handled, five wait
        self.assertTrue(self.client.transport.reading)
        self.emitMany(1)
        self.assertFalse(self.client.transport.reading)
        self.finish(1)
        self.assertTrue(self.client.transport.reading)

    def test_pausedByBytes(self) -> None:
        self.client.emit("step", "x")
        self.client.emit("step", b"x" * 600)
        self.assertTrue(self.client.transport.reading)
        self.client.emit("step", b"x" * 600)
        self.assertFalse(self.client.transport.reading)
        self.finish(1)
        self.assertTrue(self.client.transport.reading)

    def test_othersAreRead(self) -> None:
        bob = self.join(self.server)
        self.emitMany(10)
        self.assertTrue(bob.transport.reading)

    def test_allNamespacesCount(self) -> None:
        other = Steps()
        self.server.namespace("/other").on("step")(other)
        self.successResultOf(self.client.connect("/other"))
        self.emitMany(4)
        for number in range(4):
            self.client.emit("step", number, namespace="/other")
        self.assertFalse(self.client.transport.reading)
        other.waits[0].callback(None)
        self.assertTrue(self.client.transport.reading)

    def test_closedWhilePaused(self) -> None:
        self.emitMany(10)
        self.client.close()
        self.finish(1)
        self.assertEqual(len(self.steps.begun), 2)

    def test_pausedClientIsNotTimedOut(self) -> None:
        self.emitMany(10)
        self.client.ignoreHeartbeats()
        self.advance(300)
        self.assertIsNone(self.client.transport.closed)

    def asking(self, **options: Any) -> tuple[Client, list[Any]]:
        """
        A client whose event is handled by asking it something, and the answers.
        """
        answers: list[Any] = []
        server = self.makeServer(maxWaiting=5, **options)
        server.on("step")(lambda socket, number: None)

        @server.on("ask")
        async def ask(socket: Socket) -> None:
            answers.append(await socket.call("sure?", timeout=None))

        return self.join(server), answers

    def test_handlerAwaitsTheClient(self) -> None:
        """
        A handler that awaits an ack of its own client gets it, though many events wait: reading goes on.
        """
        client, answers = self.asking()
        client.emit("ask")
        self.emitMany(30, client)
        self.assertTrue(client.transport.reading)
        client.on("sure?", lambda: "yes")
        # The question came with the first event; it is answered only now, behind much else.
        self.sendText(client, '30["yes"]')
        self.assertEqual(answers, ["yes"])
        self.assertTrue(client.transport.reading)

    def test_pausedAndThenAwaitsTheClient(self) -> None:
        """
        The question may come when reading has been paused already.
        """
        answers: list[Any] = []

        @self.server.on("ask")
        async def ask(socket: Socket) -> None:
            answers.append(await socket.call("sure?"))

        self.emitMany(1)
        self.client.emit("ask")
        self.emitMany(20)
        self.assertFalse(self.client.transport.reading)
        self.finish(1)
        self.assertTrue(self.client.transport.reading)
        self.sendText(self.client, '30["yes"]')
        self.assertEqual(answers, ["yes"])

    def test_patienceEnds(self) -> None:
        client, answers = self.asking()
        client.emit("ask")
        self.emitMany(50, client)
        self.assertIsNone(client.transport.closed)
        self.emitMany(1, client)
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)
        self.assertEqual(answers, [])
        self.flushLoggedErrors(Disconnected)

    def test_patienceEndsByBytes(self) -> None:
        client, _ = self.asking(maxPayload=100)
        client.emit("ask")
        for _ in range(10):
            client.emit("step", "x" * 90)
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)
        self.flushLoggedErrors(Disconnected)

    def test_answeredLate(self) -> None:
        """
        Once no ack is awaited any longer, reading pauses again.
        """
        asked: list[Deferred[Any]] = []
        self.server.on("ask")(lambda socket: asked.append(socket.call("sure?", timeout=5)))
        self.client.emit("ask")
        self.emitMany(10)
        self.assertTrue(self.client.transport.reading)
        self.advance(5)
        self.failureResultOf(asked[0], AckTimeout)
        self.emitMany(1)
        self.assertFalse(self.client.transport.reading)


class NamespacesTests(TalkTestCase):
    """
    The namespaces of one connection are independent.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.red, self.blue = Recorder(), Recorder()
        self.server.mount("/red", self.red)
        self.server.mount("/blue", self.blue)
        self.client = self.join(self.server, "/red", {"as": "red"})
        self.successResultOf(self.client.connect("/blue", {"as": "blue"}))

    def test_independent(self) -> None:
        red = self.socketOf(self.server, self.client, "/red")
        blue = self.socketOf(self.server, self.client, "/blue")
        self.assertNotEqual(red.id, blue.id)
        self.assertEqual(red.handshake.auth, {"as": "red"})
        self.assertEqual(blue.handshake.auth, {"as": "blue"})
        self.assertIs(red.handshake.request, blue.handshake.request)
        red.data["name"] = "alice"
        red.join("room")
        self.assertEqual(blue.data, {})
        self.assertEqual(blue.rooms, {blue.id})
        self.blue.to("room").emit("nobody")
        self.red.emit("news", 1)
        self.assertEqual(self.client.received("/red"), [("news", 1)])
        self.assertEqual(self.client.received("/blue"), [])

    def test_clientLeavesOne(self) -> None:
        self.red.take()
        self.blue.take()
        id = self.client.id("/red")
        self.client.disconnect("/red")
        self.assertEqual(
            self.red.take(),
            [
                ("disconnecting", id, CloseReason.CLIENT_DISCONNECT, {id}),
                ("disconnected", id, CloseReason.CLIENT_DISCONNECT, frozenset()),
            ],
        )
        self.assertEqual(self.blue.take(), [])
        self.blue.emit("still here")
        self.assertEqual(self.client.received("/blue"), [("still here",)])

    def test_serverDisconnectsOne(self) -> None:
        self.socketOf(self.server, self.client, "/red").disconnect()
        self.client.flush()
        self.assertEqual(self.client.disconnections, ["/red"])
        self.assertFalse(self.client.isConnected("/red"))
        self.assertTrue(self.client.isConnected("/blue"))

    def test_serverDisconnectsWhoIsTooSlowToHearIt(self) -> None:
        """The DISCONNECT is what its buffer has no room for."""
        server = self.makeServer(maxBuffered=20)
        client = self.join(server)
        socket = self.socketOf(server, client)
        gone = socket.whenDisconnected()
        self.setWritable(client, False)
        socket.emit("twelve")  # 12 bytes
        socket.emit("4")  # 7 more, and 2 are to come
        socket.disconnect(close=True)
        self.assertEqual(self.successResultOf(gone), CloseReason.SLOW_CONSUMER)
        self.assertEqual(client.transport.closed, CloseReason.SLOW_CONSUMER)

    def test_serverClosesTheConnection(self) -> None:
        self.blue.take()
        self.socketOf(self.server, self.client, "/red").disconnect(close=True)
        self.assertEqual(self.client.transport.closed, CloseReason.SERVER_DISCONNECT)
        # Otherwise the client would take it for an accident, and come back.
        self.client.flush()
        self.assertEqual(self.client.disconnections, ["/red", "/blue"])
        self.assertEqual(
            [call[2] for call in self.blue.take()],
            [CloseReason.SERVER_DISCONNECT, CloseReason.SERVER_DISCONNECT],
        )

    def test_connectionEnds(self) -> None:
        self.red.take()
        self.blue.take()
        self.client.close()
        for namespace in (self.red, self.blue):
            self.assertEqual(
                [(call[0], call[2]) for call in namespace.take()],
                [
                    ("disconnecting", CloseReason.TRANSPORT_CLOSE),
                    ("disconnected", CloseReason.TRANSPORT_CLOSE),
                ],
            )

    def test_leavingOneTakesTheOtherAlong(self) -> None:
        """
        A handler called for a leaving socket may disconnect the client's others, also when the connection
        ends.
        """
        self.red.onDisconnect(lambda socket: self.blue.everyone.disconnect())
        self.blue.onDisconnect(lambda socket: self.red.everyone.disconnect())
        self.server.namespace("/green")
        self.successResultOf(self.client.connect("/green"))
        sockets = [self.socketOf(self.server, self.client, path) for path in ("/red", "/blue", "/green")]
        self.client.close()
        for socket in sockets:
            self.assertIsNotNone(socket._leftBecause)
            self.assertEqual(socket.namespace.sockets, {})

    def test_acksAreOfTheirNamespace(self) -> None:
        """
        An ack's number belongs to its namespace.
        """
        asked = self.socketOf(self.server, self.client, "/red").call("sure?")
        self.sendText(self.client, '3/blue,0["wrong"]')
        self.assertNoResult(asked)
        self.sendText(self.client, '3/red,0["right"]')
        self.assertEqual(self.successResultOf(asked), "right")


class Protocol4Tests(TalkTestCase):
    """
    Clients of Socket.IO 1 and 2, whose revision 4 of the protocol opens namespaces in another way.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer(allowEIO3=True)
        self.lobby = Recorder()
        self.server.mount("/lobby", self.lobby)

    def old(self, **options: Any) -> Client:
        return self.makeClient(self.server, protocol=3, **options)

    def test_inWithoutAsking(self) -> None:
        calls = []
        self.server.onConnect(lambda socket, auth: calls.append((socket.id, auth)))
        client = self.makeClient(self.server, protocol=3)
        self.assertEqual(calls, [(client.id(), None)])
        self.assertEqual(self.successResultOf(client.connect()), client.id())

    def test_onTheWire(self) -> None:
        transport = FakeTransport("polling", EngineIO3())
        handshake = self.server.engine.readHandshake({}, "/socket.io/?EIO=3", "127.0.0.1", False)
        session = self.server.engine.openSession(handshake, transport)
        self.assertEqual([packet.data for packet in transport.take()][1:], ["0"])
        for text in ("0/lobby", "0/lobby?a=1,"):
            session.packetReceived(transport, message(text))
            session.packetReceived(transport, message("1/lobby"))
            self.assertEqual([packet.data for packet in transport.take()], ["0/lobby,"])
        session.packetReceived(transport, message("0/nowhere,"))
        self.assertEqual([packet.data for packet in transport.take()], ['4/nowhere,"Invalid namespace"'])
        session.abort(CloseReason.FORCED_CLOSE)

    def test_ids(self) -> None:
        """Socket ids are the ones that clients 2 derive from the sid."""
        client = self.old()
        sid = client.session.sid
        self.assertEqual(client.id(), sid)
        self.assertEqual(self.successResultOf(client.connect("/lobby")), f"/lobby#{sid}")
        self.assertEqual(list(self.lobby.sockets), [f"/lobby#{sid}"])
        self.assertEqual(list(self.server.namespace().sockets), [sid])

    def test_idsAreNotLogged(self) -> None:
        """They hold the session's secret."""
        self.server.on("fail")(lambda socket: 1 / 0)
        self.lobby.on("fail")(lambda socket: 1 / 0)
        client = self.old()
        self.successResultOf(client.connect("/lobby"))
        sockets = [self.socketOf(self.server, client, path) for path in ("/", "/lobby")]
        with capturedLogs() as events:
            client.emit("fail")
            client.emit("fail", namespace="/lobby")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        secret = client.session.sid
        self.assertNotIn(secret, textOf(events) + repr(sockets))
        self.assertIn(secret[:6], textOf(events))

    def test_queryIsAuth(self) -> None:
        client = self.old()
        id = self.successResultOf(client.connect("/lobby", {"token": "größe & co", "empty": ""}))
        self.assertEqual(self.lobby.take(), [("connected", id, {"token": "größe & co", "empty": ""})])
        self.assertEqual(self.lobby.sockets[id].handshake.auth["token"], "größe & co")

    def test_queryIsNotThePath(self) -> None:
        client = self.old()
        self.successResultOf(client.connect("/lobby", {"a": "1"}))
        self.sendText(client, '2/lobby,0["unknown"]', "1/lobby,", "0/lobby?a=2,")
        self.assertEqual(
            [call[0] for call in self.lobby.take()],
            ["connected", "disconnecting", "disconnected", "connected"],
        )

    def test_refusal(self) -> None:
        """A message, or data in its place."""
        client = self.old()
        for rejection, expected in (
            (ConnectionRejected("no"), ("no", None)),
            (ConnectionRejected("no", {"code": 401}), ("Connection rejected by server", {"code": 401})),
            (ConnectionRejected("no", [0]), ("Connection rejected by server", [0])),
            # It would be taken for the number of an ack.
            (ConnectionRejected("no", 7), ("no", None)),
        ):
            self.lobby.admission = rejection
            error = self.failureResultOf(client.connect("/lobby"), ConnectionRejected).value
            self.assertEqual((error.message, error.data), expected)

    def test_refusedFromTheFirst(self) -> None:
        """Without a namespace it may not stay."""

        @self.server.onConnect
        def refuse(socket: Socket) -> None:
            raise ConnectionRejected("not you")

        client = self.old()
        error = self.failureResultOf(client.connect(), ConnectionRejected).value
        self.assertEqual(error.message, "not you")
        self.assertIsNone(client.transport.closed)
        self.advance(45)
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)

    def test_closedFromTheFirst(self) -> None:
        """Even before the session knows whom it belongs to."""
        reasons = []
        self.server.onDisconnect(lambda socket, reason: reasons.append(reason))
        self.server.onConnect(lambda socket: socket.disconnect(close=True))
        client = self.old()
        self.assertIsNotNone(client.transport.closed)
        self.assertEqual((reasons, self.server.namespace().sockets), ([], {}))

    def test_admissionWaits(self) -> None:
        admission: Deferred[None] = Deferred()
        self.server.onConnect(lambda socket: admission)
        client = self.old()
        joined = client.connect()
        self.advance(100)
        self.assertNoResult(joined)
        admission.callback(None)
        client.flush()
        self.successResultOf(joined)

    def test_lateAdmission(self) -> None:
        """One that outlives its cancellation does not throw out its successor, which has the same id."""
        rest: Deferred[None] = Deferred()
        waits = [Deferred(), succeed(None)]

        @self.lobby.onConnect
        async def connected(socket: Socket) -> None:
            try:
                await waits.pop(0)
            except CancelledError:
                await rest

        client = self.old()
        client.connect("/lobby")
        client.disconnect("/lobby")
        self.successResultOf(client.connect("/lobby"))
        rest.callback(None)
        self.lobby.emit("news", 1)
        self.lobby.to(client.id("/lobby")).emit("news", 2)
        self.assertEqual(client.received("/lobby"), [("news", 1), ("news", 2)])
        self.assertEqual(list(self.lobby.sockets), [client.id("/lobby")])

    def test_asksAllTheSame(self) -> None:
        client = self.old()
        self.sendText(client, "0")
        self.assertEqual(client.transport.closed, CloseReason.FORCED_SERVER_CLOSE)

    def test_talk(self) -> None:
        """Events, acks and rooms are as with everybody."""

        @self.server.on("ask")
        async def ask(socket: Socket, *args: Any) -> Any:
            socket.join("red")
            return await socket.call("answer", *args)

        old, new = self.old(), self.join(self.server)
        for client in (old, new):
            client.on("answer", lambda *args: args[::-1])
            answer = client.call("ask", "€", {"a": b"\x00"})
            self.assertEqual(self.successResultOf(answer), ({"a": b"\x00"}, "€"))
            client.received()
        self.server.to("red").emit("news", "𝄞", b"\x01")
        for client in (old, new):
            self.assertEqual(client.received(), [("news", "𝄞", b"\x01")])
        protocols = {socket.handshake.protocol for socket in self.server.namespace().sockets.values()}
        self.assertEqual(protocols, {3, 4})

    def test_disconnect(self) -> None:
        client = self.old()
        self.successResultOf(client.connect("/lobby"))
        self.socketOf(self.server, client).disconnect()
        self.assertFalse(client.isConnected())
        self.assertTrue(client.isConnected("/lobby"))

    def test_textForEverybody(self) -> None:
        """As long as a client's version is not known, its text is ASCII in JSON's own way."""
        transport = FakeTransport("polling", EngineIO3())
        handshake = self.server.engine.readHandshake({}, "/socket.io/?EIO=3&b64=1", "127.0.0.1", False)
        session = self.server.engine.openSession(handshake, transport)
        [packet] = self.server.namespace()._encode(Packet(PacketType.EVENT, "/", ["€𝄞"]))
        self.assertEqual(session.codec.encodePayload([packet]), rb'24:42["\u20ac\ud834\udd1e"]')
        # But for the name of a namespace, which is no JSON.
        for type, head in ((PacketType.EVENT, "2"), (PacketType.CONNECT_ERROR, "4")):
            [packet] = self.server.namespace()._encode(Packet(type, "/café", ["é"]))
            text = f'4{head}/café,["\\u00e9"]'
            self.assertEqual(session.codec.encodePayload([packet]), f"{len(text)}:{text}".encode())
        session.packetReceived(transport, message("1"))
        session.abort(CloseReason.FORCED_CLOSE)
