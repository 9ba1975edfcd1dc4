"""
Sockets: an application's handle of one client in one namespace.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import gc
import uuid
import weakref
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.talk import TalkTestCase
from txrealtime import AckTimeout, CloseReason, Disconnected, Socket
from txrealtime.testing import Client

RESERVED = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]


class Color(enum.Enum):
    RED = "red"
    SHADES = [1, 2]
    NONE = object()


@dataclasses.dataclass
class Point:
    x: int = 0


class SocketTestCase(TalkTestCase):
    """
    A server, and alice in its default namespace.
    """

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer(**self.options)
        self.alice = self.join(self.server)
        self.socket = self.socketOf(self.server, self.alice)


class EmitTests(SocketTestCase):
    """
    Sending events to one client.
    """

    def test_emit(self) -> None:
        self.join(self.server)
        self.assertIsNone(self.socket.emit("tick", 1, None, [True, {"a": "b"}], 1.5))
        self.assertEqual(self.wireOf(self.alice), ['2["tick",1,null,[true,{"a":"b"}],1.5]'])

    def test_onlyToThisClient(self) -> None:
        bob = self.join(self.server)
        self.socket.emit("tick")
        self.assertEqual(bob.received(), [])

    def test_namespaceOnTheWire(self) -> None:
        self.server.namespace("/chat")
        self.successResultOf(self.alice.connect("/chat"))
        self.socketOf(self.server, self.alice, "/chat").emit("tick")
        self.assertEqual(self.wireOf(self.alice), ['2/chat,["tick"]'])

    def test_send(self) -> None:
        self.socket.send("text", 1)
        self.assertEqual(self.wireOf(self.alice), ['2["message","text",1]'])

    def test_binaryAnywhere(self) -> None:
        self.socket.emit("image", b"1", {"a": [bytearray(b"2"), {"b": memoryview(b"3")}]})
        self.assertEqual(
            self.wireOf(self.alice),
            [
                '53-["image",{"_placeholder":true,"num":0},'
                '{"a":[{"_placeholder":true,"num":1},{"b":{"_placeholder":true,"num":2}}]}]',
                b"1",
                b"2",
                b"3",
            ],
        )

    def test_bytesAreCopied(self) -> None:
        """
        Changes after the emit do not reach the client, also when the event has to wait.
        """
        self.setWritable(self.alice, False)
        buffer = bytearray(b"before")
        items = ["before"]
        self.socket.emit("data", buffer, items)
        buffer[:] = b"after!"
        items[0] = "after"
        self.setWritable(self.alice, True)
        self.assertEqual(self.alice.received(), [("data", b"before", ["before"])])

    def test_unsendable(self) -> None:
        """
        The caller gets the error, with the path to the value and not the value.
        """
        for value in (
            Point(),
            datetime.datetime(2026, 1, 1),
            datetime.date(2026, 1, 1),
            {1, 2},
            decimal.Decimal("1.5"),
            object(),
            range(3),
            1j,
            (number for number in ()),
            self.socket,
        ):
            error = self.assertRaises(TypeError, self.socket.emit, "tick", 1, {"a": [None, {"when": value}]})
            self.assertIn(type(value).__name__, str(error))
            self.assertIn("argument 2['a'][1]['when']", str(error))
            self.assertRaises(TypeError, self.socket.call, "tick", value)
        self.assertEqual(self.wireOf(self.alice), [])

    def test_uuidsAndMembers(self) -> None:
        number = uuid.uuid4()
        self.socket.emit("tick", number, [Color.RED], {"shades": Color.SHADES})
        self.assertEqual(self.alice.received(), [("tick", str(number), ["red"], {"shades": [1, 2]})])

    def test_unsendableMember(self) -> None:
        error = self.assertRaises(TypeError, self.socket.emit, "tick", [Color.NONE])
        self.assertIn("argument 1[0]", str(error))

    def test_unsendableKey(self) -> None:
        error = self.assertRaises(TypeError, self.socket.emit, "tick", {"a": {(1, 2): "b"}})
        self.assertIn("a key of argument 1['a']", str(error))
        self.assertRaises(TypeError, self.socket.emit, "tick", {b"bytes": 1})

    def test_numbersThatJSONLacks(self) -> None:
        for value in (float("nan"), float("inf"), float("-inf")):
            error = self.assertRaises(ValueError, self.socket.emit, "tick", [0, value])
            self.assertIn("argument 1[1]", str(error))
        self.assertEqual(self.wireOf(self.alice), [])

    def test_cycles(self) -> None:
        items: list[Any] = []
        items.append(items)
        mapping: dict[str, Any] = {}
        mapping["self"] = {"deep": [mapping]}
        for value in (items, mapping):
            error = self.assertRaises(ValueError, self.socket.emit, "tick", value)
            self.assertIn("contains itself", str(error))

    def test_sendableAfterAnUnsendable(self) -> None:
        """
        A failed emit leaves nothing behind for the next one.
        """
        self.assertRaises(TypeError, self.socket.emit, "tick", b"1", object())
        self.socket.emit("tick", b"2")
        self.assertEqual(self.alice.received(), [("tick", b"2")])

    def test_reservedNames(self) -> None:
        for name in RESERVED:
            for send in (self.socket.emit, self.socket.call):
                error = self.assertRaises(ValueError, send, name, 1)
                self.assertIn(repr(name), str(error))
        self.assertEqual(self.wireOf(self.alice), [])

    def test_nameIsAString(self) -> None:
        for name in (1, None, b"tick", ["tick"]):
            self.assertRaises(TypeError, self.socket.emit, name)
            self.assertRaises(TypeError, self.socket.call, name)

    def test_onceGone(self) -> None:
        self.alice.close()
        self.socket.emit("tick")
        self.socket.send("tick")
        self.assertEqual(self.wireOf(self.alice), [])
        self.assertRaises(TypeError, self.socket.emit, "tick", object())


class VolatileTests(SocketTestCase):
    """
    Volatile events are dropped when they cannot leave at once.
    """

    def test_writable(self) -> None:
        self.socket.emit("tick", 1, volatile=True)
        self.socket.send("text", volatile=True)
        self.assertEqual(self.alice.received(), [("tick", 1), ("message", "text")])

    def test_notWritable(self) -> None:
        self.setWritable(self.alice, False)
        self.socket.emit("tick", 1, volatile=True)
        self.socket.emit("tock", 2)
        self.setWritable(self.alice, True)
        self.assertEqual(self.alice.received(), [("tock", 2)])

    def test_attachmentsTooOrNone(self) -> None:
        """
        The header and its attachments go together, or not at all.
        """
        self.setWritable(self.alice, False)
        self.socket.emit("image", b"1", b"2", volatile=True)
        self.assertEqual(self.socket.buffered, 0)
        self.setWritable(self.alice, True)
        self.assertEqual(self.wireOf(self.alice), [])
        self.socket.emit("image", b"3", b"4", volatile=True)
        self.assertEqual(self.alice.received(), [("image", b"3", b"4")])


class BufferTests(SocketTestCase):
    """
    Messages that wait for a client's connection.
    """

    options = {"maxBuffered": 1000}

    def test_buffered(self) -> None:
        self.socket.emit("tick")
        self.assertEqual(self.socket.buffered, 0)
        self.setWritable(self.alice, False)
        self.socket.emit("tick")
        self.assertEqual(self.socket.buffered, len('42["tick"]'))
        self.socket.emit("data", b"x" * 100)
        self.assertGreater(self.socket.buffered, 100)
        self.setWritable(self.alice, True)
        self.assertEqual(self.socket.buffered, 0)

    def test_slowConsumer(self) -> None:
        gone = self.socket.whenDisconnected()
        self.setWritable(self.alice, False)
        for _ in range(9):
            self.socket.emit("much", "x" * 90)
        self.assertNoResult(gone)
        self.socket.emit("much", "x" * 90)
        self.assertEqual(self.successResultOf(gone), CloseReason.SLOW_CONSUMER)
        self.assertEqual(self.alice.transport.closed, CloseReason.SLOW_CONSUMER)
        self.assertEqual(self.server.engine.sessions, {})
        self.assertEqual(self.socket.buffered, 0)

    def test_oneLargeMessageAlwaysGoes(self) -> None:
        self.setWritable(self.alice, False)
        self.socket.emit("large", "x" * 5000)
        self.assertTrue(self.socket.connected)
        self.setWritable(self.alice, True)
        self.assertEqual(self.alice.received(), [("large", "x" * 5000)])

    def test_slowConsumerInCall(self) -> None:
        self.setWritable(self.alice, False)
        self.socket.emit("much", "x" * 900)
        self.failureResultOf(self.socket.call("much", "x" * 900), Disconnected)

    def test_othersAreNotSlowed(self) -> None:
        bob = self.join(self.server)
        self.setWritable(self.alice, False)
        for _ in range(20):
            self.server.emit("much", "x" * 90)
        self.assertFalse(self.socket.connected)
        self.assertEqual(len(bob.received()), 20)


class CallTests(SocketTestCase):
    """
    Events with acks.
    """

    def asked(self, ack: str) -> Any:
        answer = self.socket.call("sure?", 1)
        self.sendText(self.alice, ack)
        return self.successResultOf(answer)

    def test_onTheWire(self) -> None:
        self.socket.call("sure?", 1).addErrback(lambda failure: None)
        self.assertEqual(self.wireOf(self.alice), ['20["sure?",1]'])

    def test_idZeroAndOn(self) -> None:
        self.assertEqual(self.asked('30["first"]'), "first")
        self.assertEqual(self.asked('31["second"]'), "second")

    def test_nothing(self) -> None:
        self.assertIsNone(self.asked("30[]"))

    def test_value(self) -> None:
        self.assertEqual(self.asked("30[false]"), False)
        self.assertEqual(self.asked("31[[1,2]]"), [1, 2])
        self.assertIsNone(self.asked("32[null]"))

    def test_several(self) -> None:
        self.assertEqual(self.asked('30[1,"two"]'), (1, "two"))

    def test_binary(self) -> None:
        self.alice.on("sure?", lambda number: {"image": [b"png"]})
        answer = self.socket.call("sure?", 1)
        self.alice.flush()
        self.assertEqual(self.successResultOf(answer), {"image": [b"png"]})

    def test_ackedTwice(self) -> None:
        answer = self.socket.call("sure?")
        self.sendText(self.alice, '30["yes"]', '30["no"]')
        self.assertEqual(self.successResultOf(answer), "yes")
        self.assertIsNone(self.alice.transport.closed)

    def test_unknownAck(self) -> None:
        self.sendText(self.alice, '30["what?"]', "3999[]")
        self.assertIsNone(self.alice.transport.closed)

    def test_anotherClientsAck(self) -> None:
        bob = self.join(self.server)
        answer = self.socket.call("sure?")
        self.sendText(bob, '30["forged"]')
        self.assertNoResult(answer)
        self.sendText(self.alice, '30["mine"]')
        self.assertEqual(self.successResultOf(answer), "mine")

    def test_timeout(self) -> None:
        answer = self.socket.call("sure?", timeout=2.5)
        self.advance(2.4)
        self.assertNoResult(answer)
        self.advance(0.1)
        error = self.failureResultOf(answer, AckTimeout).value
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual(str(error), "no ack of 'sure?' within 2.5 s")
        self.assertEqual(error.answers, [])
        self.assertFalse(self.socket._awaitsAck)
        self.sendText(self.alice, '30["late"]')
        self.assertIsNone(self.alice.transport.closed)

    def test_aMinuteByDefault(self) -> None:
        answer = self.socket.call("sure?")
        self.advance(59)
        self.assertNoResult(answer)
        self.advance(2)
        self.failureResultOf(answer, AckTimeout)

    def test_noTimeout(self) -> None:
        answer = self.socket.call("sure?", timeout=None)
        self.advance(3600)
        self.assertNoResult(answer)
        self.sendText(self.alice, "30[]")
        self.assertIsNone(self.successResultOf(answer))

    def test_answeredLeavesNoTimer(self) -> None:
        before = len(self.clock.getDelayedCalls())
        self.asked("30[]")
        self.assertEqual(len(self.clock.getDelayedCalls()), before)

    def test_cancel(self) -> None:
        answer = self.socket.call("sure?")
        self.assertTrue(self.socket._awaitsAck)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertFalse(self.socket._awaitsAck)
        self.sendText(self.alice, '30["late"]')

    def test_clientGoes(self) -> None:
        """
        The caller need not wait for the timeout.
        """
        for leave in (Client.disconnect, Client.close):
            client = self.join(self.server)
            socket = self.socketOf(self.server, client)
            answers = [socket.call("sure?"), socket.call("sure?", timeout=None)]
            leave(client)
            for answer in [*answers, socket.call("sure?")]:
                self.failureResultOf(answer, Disconnected)

    def test_cancelledWhileOthersFail(self) -> None:
        """
        An errback of one ack may cancel the others.
        """
        first, second = self.socket.call("sure?"), self.socket.call("really?")
        first.addErrback(lambda failure: second.cancel())
        gone = self.socket.whenDisconnected()
        self.alice.close()
        self.failureResultOf(second, CancelledError)
        self.successResultOf(gone)

    def test_whatIsAskedWhileItGoesFails(self) -> None:
        answers: list[Deferred[Any]] = []
        self.server.onDisconnecting(lambda socket: answers.append(socket.call("sure?")))
        self.server.onDisconnect(lambda socket: answers.append(socket.call("sure?")))
        self.alice.close()
        for answer in answers:
            self.failureResultOf(answer, Disconnected)
        self.assertEqual(len(answers), 2)

    def test_acksDoNotWait(self) -> None:
        """
        A handler may await the client whose event it handles.
        """

        @self.server.on("buy")
        async def buy(socket: Socket) -> str:
            return "bought" if await socket.call("sure?") else "left"

        self.alice.on("sure?", lambda: True)
        answer = self.alice.call("buy")
        self.alice.flush()
        self.assertEqual(self.successResultOf(answer), "bought")


class RoomTests(SocketTestCase):
    """
    Rooms, seen from a socket.
    """

    def test_joinAndLeave(self) -> None:
        self.assertEqual(self.socket.rooms, {self.socket.id})
        self.socket.join("red", "blue")
        self.assertEqual(self.socket.rooms, {self.socket.id, "red", "blue"})
        self.socket.leave("red", "nowhere")
        self.assertEqual(self.socket.rooms, {self.socket.id, "blue"})
        self.assertNotIn("red", self.server.namespace().rooms)
        self.assertIn("blue", self.server.namespace().rooms)

    def test_joinTwice(self) -> None:
        self.socket.join("red")
        self.socket.join("red")
        self.server.to("red").emit("once")
        self.assertEqual(self.alice.received(), [("once",)])
        self.socket.leave("red")
        self.assertNotIn("red", self.server.namespace().rooms)

    def test_ownRoom(self) -> None:
        self.socket.join(self.socket.id)
        self.socket.leave(self.socket.id)
        self.server.to(self.socket.id).emit("mine")
        self.assertEqual(self.alice.received(), [("mine",)])
        self.assertEqual(self.socket.rooms, {self.socket.id})

    def test_ownRoomIsPrivate(self) -> None:
        bob = self.socketOf(self.server, self.join(self.server))
        error = self.assertRaises(ValueError, bob.join, self.socket.id)
        self.assertIn("another socket's own", str(error))
        self.assertEqual(bob.rooms, {bob.id})

    def test_leftOnDisconnect(self) -> None:
        self.socket.join("red", "blue")
        self.alice.disconnect()
        self.assertEqual(self.socket.rooms, frozenset())
        self.assertEqual(list(self.server.namespace().rooms), [])

    def test_joinOnceGone(self) -> None:
        self.alice.disconnect()
        self.socket.join("red")
        self.socket.leave("red")
        self.assertEqual(list(self.server.namespace().rooms), [])

    def test_roomsAreNames(self) -> None:
        """
        A list of rooms, or a number, is the caller's mistake, told at once.
        """
        for wrong in (["red", "blue"], 1, None):
            self.assertRaises(TypeError, self.socket.join, wrong)
            self.assertRaises(TypeError, self.socket.to, wrong)
        self.assertEqual(self.socket.rooms, {self.socket.id})

    def test_to(self) -> None:
        bob = self.join(self.server)
        self.socketOf(self.server, bob).join("red")
        self.socket.join("red")
        carol = self.join(self.server)
        self.socket.to("red").emit("hi")
        self.assertEqual(bob.received(), [("hi",)])
        self.assertEqual(self.alice.received(), [])
        self.assertEqual(carol.received(), [])

    def test_others(self) -> None:
        bob = self.join(self.server)
        self.socket.others.emit("hi")
        self.assertEqual(bob.received(), [("hi",)])
        self.assertEqual(self.alice.received(), [])

    def test_toWithoutRooms(self) -> None:
        self.assertRaises(ValueError, self.socket.to)


class DisconnectTests(SocketTestCase):
    """
    The end of a socket, by the server or by the client.
    """

    def test_disconnect(self) -> None:
        self.assertTrue(self.socket.connected)
        self.socket.disconnect()
        self.assertFalse(self.socket.connected)
        self.assertEqual(self.wireOf(self.alice), ["1"])
        self.assertIsNone(self.alice.transport.closed)
        self.assertEqual(self.server.namespace().sockets, {})

    def test_twice(self) -> None:
        self.socket.disconnect()
        self.socket.disconnect()
        self.assertEqual(self.wireOf(self.alice), ["1"])

    def test_close(self) -> None:
        self.socket.disconnect(close=True)
        self.assertEqual(self.wireOf(self.alice), ["1"])
        self.assertEqual(self.alice.transport.closed, CloseReason.SERVER_DISCONNECT)

    def test_closeAfterDisconnect(self) -> None:
        self.socket.disconnect()
        self.socket.disconnect(close=True)
        self.assertEqual(self.alice.transport.closed, CloseReason.SERVER_DISCONNECT)

    def test_theOldOneDoesNotEndTheNew(self) -> None:
        self.alice.disconnect()
        self.successResultOf(self.alice.connect())
        self.socket.disconnect()
        self.assertTrue(self.alice.isConnected())

    def test_whatWasSentComesBefore(self) -> None:
        self.setWritable(self.alice, False)
        self.socket.emit("last", b"words")
        self.socket.disconnect(close=True)
        self.setWritable(self.alice, True)
        self.assertEqual(
            self.wireOf(self.alice), ['51-["last",{"_placeholder":true,"num":0}]', b"words", "1"]
        )

    def test_whenDisconnected(self) -> None:
        waiting = self.socket.whenDisconnected(), self.socket.whenDisconnected()
        for deferred in waiting:
            self.assertNoResult(deferred)
        self.alice.disconnect()
        for deferred in waiting:
            self.assertEqual(self.successResultOf(deferred), CloseReason.CLIENT_DISCONNECT)
        later = self.socket.whenDisconnected()
        self.assertEqual(self.successResultOf(later), "client namespace disconnect")

    def test_reasons(self) -> None:
        ended = self.socket.whenDisconnected()
        self.alice.ignoreHeartbeats()
        self.advance(45)
        self.assertEqual(self.successResultOf(ended), CloseReason.PING_TIMEOUT)

    def test_whenDisconnectedIsCancelled(self) -> None:
        waiting = self.socket.whenDisconnected()
        other = self.socket.whenDisconnected()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.alice.close()
        self.successResultOf(other)

    def test_cancelledWhileOthersAreTold(self) -> None:
        """
        A callback of one wait may cancel another.
        """
        first, second = self.socket.whenDisconnected(), self.socket.whenDisconnected()
        first.addCallback(lambda reason: second.cancel())
        self.alice.close()
        self.failureResultOf(second, CancelledError)

    def test_nothingHoldsIt(self) -> None:
        """
        A socket without other references is freed when its client goes.
        """
        socket, connection = weakref.ref(self.socket), weakref.ref(self.alice.session)
        self.socket.join("red")
        self.socket.call("sure?").addErrback(lambda failure: None)
        self.alice.close()
        del self.socket, self.alice
        self.clients.clear()
        gc.collect()
        self.assertIsNone(socket())
        self.assertIsNone(connection())


class DescriptionTests(TalkTestCase):
    """
    A socket's properties of its client.
    """

    def test_handshake(self) -> None:
        client = self.join(
            self.makeServer(),
            auth={"token": "x"},
            headers={"user-agent": "test", "cookie": "a=1; b=2"},
            query={"color": "red"},
            address="192.0.2.1",
        )
        handshake = self.socketOf(self.servers[0], client).handshake
        self.assertEqual(handshake.auth, {"token": "x"})
        self.assertEqual(handshake.headers["user-agent"], "test")
        self.assertEqual(handshake.query["color"], "red")
        self.assertEqual(handshake.cookies, {"a": "1", "b": "2"})
        self.assertEqual(handshake.address, "192.0.2.1")
        self.assertEqual(handshake.protocol, 4)
        self.assertFalse(handshake.secure)
        self.assertIn("/socket.io/?EIO=4", handshake.url)
        self.assertGreater(handshake.time, 0)

    def test_behindAProxy(self) -> None:
        server = self.makeServer(trustedProxies="127.0.0.1")
        client = self.join(server, headers={"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https"})
        handshake = self.socketOf(server, client).handshake
        self.assertEqual((handshake.address, handshake.secure), ("192.0.2.1", True))

    def test_transport(self) -> None:
        server = self.makeServer()
        for name in ("polling", "websocket"):
            client = self.join(server, transport=name)
            self.assertEqual(self.socketOf(server, client).transport, name)

    def test_data(self) -> None:
        server = self.makeServer()
        alice, bob = (self.socketOf(server, self.join(server)) for _ in range(2))
        alice.data["name"] = "alice"
        self.assertEqual(bob.data, {})

    def test_repr(self) -> None:
        server = self.makeServer()
        server.namespace("/chat")
        client = self.join(server, "/chat")
        self.assertEqual(repr(self.socketOf(server, client, "/chat")), f"<Socket {client.id('/chat')} /chat>")

    def test_ids(self) -> None:
        """
        Ids are not predictable.
        """
        server = self.makeServer()
        ids = {self.join(server).id() for _ in range(20)}
        self.assertEqual(len(ids), 20)
        self.assertEqual({len(id) for id in ids}, {20})
