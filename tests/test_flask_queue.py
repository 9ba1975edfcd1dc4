"""
The Flask bridge with a message queue: servers that are one, and processes in which none runs.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from flask import Flask
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.clusters import ClusterTestCase
from tests.test_emitter import Broker
from txrealtime.cluster import emitter
from txrealtime.cluster.bus.memory import MemoryBus
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.flask import SocketIO, join_room
from txrealtime.flask.client import Stage
from txrealtime.testing import Client

QUEUE = "redis://localhost"


class TwoServersTestCase(ClusterTestCase):
    """
    Two servers of Flask applications, `self.here` and `self.there`.
    """

    NAMES = ()
    DIALECT = DialectChoice("python-socketio", "flask-socketio")

    def setUp(self) -> None:
        super().setUp()
        self.here, self.there = self.serve(), self.serve(namespaces="*")
        self.advance(1.5)

    def serve(self, **options: Any) -> SocketIO:
        socketio = SocketIO(Flask(__name__), **options)
        socketio.on("join")(lambda room: join_room(room))
        server = socketio.realtime
        server.configure(reactor=self.clock)
        server.cluster.use(MemoryBus(self.hub), self.DIALECT)
        stage = Stage()
        socketio.bridge.jobs = server._crossing = stage
        server.startService()
        self.servers.append(server)
        return socketio

    def joined(self, socketio: SocketIO, namespace: str = "/") -> Client:
        client = self.makeClient(socketio.realtime)
        client.connect(namespace)
        client.flush()
        client.emit("join", "red", namespace=namespace)
        self.assertTrue(client.isConnected(namespace))
        return client


class CallbackTests(TwoServersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.near, self.far = self.joined(self.here), self.joined(self.there)
        self.answers: list[tuple[Any, ...]] = []

    def ask(self, **options: Any) -> list[tuple[Any, ...]]:
        self.answers.clear()
        self.here.emit("question", 1, callback=lambda *args: self.answers.append(args), **options)
        self.settle()
        return self.answers

    def test_room(self) -> None:
        """Clients of other servers get the event too."""
        self.near.on("question", lambda number: "near")
        for options in ({"to": "red"}, {}):
            self.assertEqual(self.ask(**options), [("near",)])
            self.assertEqual(self.get(self.near, self.far), [[("question", 1)]] * 2)

    def test_oneClient(self) -> None:
        """Other servers are asked only for a client that is not here."""
        for client in (self.near, self.far):
            client.on("question", lambda number: "answer")
            self.assertEqual(self.ask(to=client.id()), [("answer",)])
        published = self.here.realtime.cluster.link.counts.published
        self.ask(to=self.near.id())
        self.assertEqual(self.here.realtime.cluster.link.counts.published, published)
        self.assertEqual([len(got) for got in self.get(self.near, self.far)], [2, 1])

    def test_null(self) -> None:
        """An ack of null has one argument, and an empty ack none."""
        for client in (self.near, self.far):
            for answer, args in (((None,), (None,)), (None, ()), ((None, 1), (None, 1)), ([], ([],))):
                client.on("question", lambda number, answer=answer: answer)
                self.assertEqual(self.ask(to=client.id()), [args])
            client.on("question", lambda: (None,))
            self.assertEqual(self.resultOf(self.here.realtime.to(client.id()).call("question")), [None])


class NativeCallbackTests(CallbackTests):
    """
    The same in a dialect that can ask a room.
    """

    DIALECT = DialectChoice()

    def test_room(self) -> None:
        self.near.on("question", lambda number: "near")
        self.far.on("question", lambda number: "far")
        for options in ({"to": "red"}, {}):
            self.assertEqual(sorted(self.ask(**options)), [("far",), ("near",)])


class NamespaceTests(TwoServersTestCase):
    def test_onlyThere(self) -> None:
        """Other servers may have a namespace that this server refuses to its own clients."""
        far = self.joined(self.there, "/x")
        self.here.emit("news", 1, namespace="/x")
        self.here.enter_room(far.id("/x"), "blue", namespace="/x")
        self.settle()
        self.here.emit("news", 2, namespace="/x", to="blue")
        self.assertEqual(self.get(far, namespace="/x"), [[("news", 1), ("news", 2)]])
        refused = self.makeClient(self.here.realtime).connect("/x")
        self.settle()
        self.failureResultOf(refused)
        self.assertEqual([space.path for space in self.here.realtime.namespaces], ["/"])


class SenderTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.broker = Broker()
        self.patch(emitter, "publisherFromURL", lambda *arguments: self.broker)

    def said(self) -> list[dict[str, Any]]:
        got, self.broker.got = self.broker.got, []
        return [json.loads(payload) for _, payload in got]


class NotRunningTests(SenderTestCase):
    """
    An application with a queue, as a worker has it, or a server before it runs.
    """

    def test_sends(self) -> None:
        socketio = SocketIO(Flask(__name__), message_queue=QUEUE)
        socketio.emit("news", 1, to="red", namespace="/x")
        socketio.close_room("red")
        emitted, closed = self.said()
        self.assertEqual([emitted[key] for key in ("event", "data", "room")], ["news", [1], "red"])
        self.assertEqual((emitted["namespace"], closed["method"]), ("/x", "close_room"))
        error = self.assertRaises(RuntimeError, socketio.call, "question", to="sid")
        self.assertIn("no running server", str(error))

    def test_noRoom(self) -> None:
        """Nothing is published for ``None``, which is no room; what cannot name a room is refused."""
        socketio = SocketIO(Flask(__name__), message_queue=QUEUE)
        for none in (None, []):
            socketio.enter_room("sid", none)
            socketio.leave_room("sid", none)
            socketio.close_room(none)
        for wrong in ([None], {"room": "red"}):
            self.assertRaises(TypeError, socketio.enter_room, "sid", wrong)
            self.assertRaises(TypeError, socketio.leave_room, "sid", wrong)
            self.assertRaises(TypeError, socketio.close_room, wrong)
            self.assertRaises(TypeError, socketio.emit, "news", to=wrong)
        self.assertEqual(self.said(), [])

    def test_servesAfterAll(self) -> None:
        """A running server sends by itself, and so does a stopping one, for its disconnect handlers."""
        for state in ("running", "stopped"):
            socketio = SocketIO(Flask(__name__), message_queue=QUEUE)
            setattr(socketio.realtime, state, True)
            socketio.realtime._crossing = Stage()
            socketio.emit("news")
            self.assertEqual(self.said(), [])

    def test_withoutAQueue(self) -> None:
        """The log says once that nobody can be there."""
        socketio = SocketIO(Flask(__name__))
        with capturedLogs() as events:
            socketio.emit("news")
            socketio.emit("news")
            socketio.close_room("red")
        (said,) = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertIn("before the server runs", said["log_format"])

    def test_json(self) -> None:
        """The application's JSON module is used there too."""
        module = SimpleNamespace(dumps=lambda value: json.dumps(value, default=str), loads=json.loads)
        for app in (None, Flask(__name__)):
            socketio = SocketIO(app, message_queue=QUEUE, json=module)
            socketio.emit("news", {"x": 1j})
            self.assertEqual(self.said()[0]["data"], [{"x": "1j"}])


class LaterTests(SenderTestCase):
    def test_anApplicationComes(self) -> None:
        """A sender becomes a server once init_app() gets the application."""
        socketio, app = SocketIO(message_queue=QUEUE), Flask(__name__)
        socketio.emit("news")
        self.assertEqual(len(self.said()), 1)
        socketio.init_app(app)
        self.assertIs(socketio.realtime, socketio.bridge.server)
        socketio.realtime._crossing = Stage()
        socketio.realtime.running = True
        self.assertEqual(socketio.rooms("sid"), [])

    def test_noQueue(self) -> None:
        """None means no queue, and no application yet."""
        socketio = SocketIO(message_queue=None)
        socketio.init_app(None, message_queue=None)
        self.assertRaises(RuntimeError, socketio.emit, "news")
        socketio.init_app(Flask(__name__))
        self.assertFalse(socketio.realtime.running)

    def test_badURL(self) -> None:
        """A malformed URL is refused at once."""
        self.assertRaises(ValueError, SocketIO, message_queue="nowhere")
