"""
History and events that are handled once, in an application of Flask.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import Flask
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.test_flask import FlaskTestCase
from tests.test_flask_recovery import Jobs
from txrealtime import LimitExceeded
from txrealtime.cluster.bus.memory import MemoryBus, MemoryHub
from txrealtime.flask import Namespace, SocketIO, SocketIOTestClient, emit, history, join_room, once
from txrealtime.flask.client import Stage
from txrealtime.testing import Client


class HistoryTests(FlaskTestCase):
    def setUp(self) -> None:
        self.make()
        self.socketio.keep_history(events=5)
        self.register()

    def register(self) -> None:
        self.socketio.on("enter")(lambda room, count: join_room(room, rewind=count))
        self.socketio.on("say")(lambda room, text: emit("said", text, to=room, include_self=False))
        self.socketio.on("past")(lambda room, last: [[each.event, each.args] for each in history(room, last)])

    def said(self, client: SocketIOTestClient, namespace: str | None = None) -> list[Any]:
        return [args[0] for name, args in self.received(client, namespace) if name == "said"]

    def test_rewind(self) -> None:
        """A client that joins gets the last events before all that the handler sends afterwards."""
        speaker = self.join()
        for number in range(8):
            speaker.emit("say", "red", number)

        @self.socketio.on("greet")
        def greet() -> None:
            join_room("red", rewind=20)
            emit("said", "welcome")

        client = self.join()
        client.emit("greet")
        speaker.emit("say", "red", 8)
        self.assertEqual(self.said(client), [3, 4, 5, 6, 7, "welcome", 8])

    def test_limits(self) -> None:
        speaker = self.join()
        for number in range(4):
            speaker.emit("say", 7, number)
        one, two = self.join(), self.join()
        one.emit("enter", 7, 1)
        two.emit("enter", "7", 2)
        self.assertEqual((self.said(one), self.said(two)), ([3], [2, 3]))
        self.assertRaises(ValueError, one.emit, "enter", "blue", -1)
        self.assertRaises(TypeError, one.emit, "enter", "blue", "20")
        self.assertEqual(self.socketio.rooms(one.emit("sid", callback=True) or "", None), [])

    def test_inConnectHandler(self) -> None:
        """A client gets the past of a room that its connect handler puts it into."""
        self.join().emit("say", "red", 1)
        self.socketio.on("connect")(lambda: join_room("red", rewind=10))
        self.assertEqual(self.said(self.join()), [1])

    def test_leftOut(self) -> None:
        """An event is not for those whom it left out."""
        client = self.join()
        client.emit("say", "red", 1)
        client.emit("enter", "red", 10)
        self.assertEqual(self.said(client), [])

    def test_history(self) -> None:
        """Handlers, views and background tasks list the events of a room."""
        client = self.join()
        client.emit("say", "red", "a")
        self.socketio.realtime.reactor.advance(60)  # type: ignore[attr-defined]
        client.emit("say", "red", b"b")
        self.assertEqual(client.emit("past", "red", None, callback=True), [["said", ["a"]], ["said", [b"b"]]])
        self.assertEqual(client.emit("past", "red", 1, callback=True), [["said", [b"b"]]])
        both = self.socketio.history(["red", "blue"])
        self.assertEqual([(each.args, each.age) for each in both], [(["a"], 60), ([b"b"], 0)])
        self.assertEqual(len(self.socketio.history("red", timedelta(seconds=30))), 1)
        self.assertEqual(self.socketio.history([]), [])
        self.assertEqual(self.socketio.history("blue"), [])
        with self.app.test_request_context():
            self.assertRaises(RuntimeError, history, "red")
            self.assertEqual(len(history("red", namespace="/")), 2)

    def test_beforeTheServerRuns(self) -> None:
        self.assertEqual(self.socketio.history("red"), [])

    def test_otherNamespaces(self) -> None:
        """Each namespace keeps history by itself, also a class, and one that is opened later."""

        class Chat(Namespace):
            def on_enter(self, sid: str, room: str) -> int:
                self.enter_room(sid, room, rewind=5)
                return len(self.history(room))

        self.socketio.keep_history(namespace="/chat")
        self.socketio.on_namespace(Chat("/chat"))
        client = self.join("/chat")
        self.socketio.emit("said", 1, namespace="/chat", to="red")
        sid = next(iter(self.socketio.bridge.spaces["/chat"].sockets))
        self.assertEqual(client.emit("enter", sid, "red", namespace="/chat", callback=True), 1)
        self.assertEqual(self.said(client, "/chat"), [1])
        self.assertEqual(self.socketio.history("red"), [])

    def test_mistakes(self) -> None:
        self.assertRaises(ValueError, self.socketio.keep_history)
        self.assertRaises(ValueError, self.socketio.keep_history, events=0, namespace="/b")
        self.socketio.keep_history(namespace="/b")
        self.assertRaises(ValueError, self.socketio.keep_history, namespace="/b")
        self.socketio.on("enter", "/c")(lambda: join_room("red", rewind=1))
        client = self.join("/c")
        error = self.assertRaises(ValueError, client.emit, "enter", namespace="/c")
        self.assertIn("keep_history(namespace='/c')", str(error))
        self.assertRaises(ValueError, self.socketio.history, "red", namespace="/c")
        elsewhere = self.assertRaises(ValueError, self.socketio.enter_room, "nobody", "red", rewind=1)
        self.assertIn("nobody", str(elsewhere))

    def test_limitOfRooms(self) -> None:
        self.make(maxRooms=1)
        self.socketio.keep_history()
        self.register()
        client = self.join()
        client.emit("enter", "red", 1)
        self.assertRaises(LimitExceeded, client.emit, "enter", "blue", 1)

    def test_beforeTheApplication(self) -> None:
        """keep_history() may be called before init_app()."""
        self.app = Flask(__name__)
        self.socketio = SocketIO()
        self.assertRaises(ValueError, self.socketio.keep_history, seconds=-1)
        self.socketio.keep_history()
        self.socketio.init_app(self.app)
        self.register()
        self.join().emit("say", "red", 1)
        client = self.join()
        client.emit("enter", "red", 1)
        self.assertEqual(self.said(client), [1])

    def test_ownJSON(self) -> None:
        """The application's JSON module reads the events of the past."""

        class Shouting:
            dumps = staticmethod(lambda value, **options: json.dumps(value))
            loads = staticmethod(lambda text, **options: json.loads(text.upper()))

        self.make(json=Shouting)
        self.socketio.keep_history()
        self.join()
        self.socketio.emit("said", "a", to="red")
        self.assertEqual(self.socketio.history("red")[0].args, ["A"])

    def test_queue(self) -> None:
        """A process that only sends cannot wait for the past."""
        socketio = SocketIO(message_queue="redis://")
        self.assertIn("only sends", str(self.assertRaises(RuntimeError, socketio.history, "red")))
        self.assertRaises(RuntimeError, socketio.enter_room, "sid", "red", rewind=1)


class ClusterTests(SynchronousTestCase):
    """Two applications on one bus, whose handlers run when the test says so."""

    def setUp(self) -> None:
        self.clock, hub = Clock(), MemoryHub()
        self.clients: list[Client] = []
        for name in "one", "two":
            socketio = SocketIO(Flask(name))
            socketio.keep_history()
            server = socketio.realtime
            server.configure(reactor=self.clock)
            server._crossing = Stage()
            server.cluster.use(MemoryBus(hub))
            server.startService()
            self.addCleanup(self.stop, server)
            setattr(self, name, socketio)
        self.advance(2)

    def stop(self, server: Any) -> None:
        stopped = server.stopService()
        self.advance(4)
        self.successResultOf(stopped)

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.1] * int(seconds * 10))

    def test_otherServer(self) -> None:
        """A server asks the others for what they know, and the handler waits: its own threads do not."""
        one, two = self.one, self.two  # type: ignore[attr-defined]
        one.emit("said", 1, to="red")
        self.advance(0.5)
        asked: list[Deferred[Any]] = []
        # In place of a thread that waits.
        self.patch(
            two.realtime, "blockingCallFromThread", lambda call, *args: asked.append(call(*args)) or []
        )
        client = Client(two.realtime)
        client.connect()
        two.enter_room(client.id(), "red", rewind=5)
        two.history("red")
        self.assertNoResult(asked[0])
        self.advance(0.5)
        self.successResultOf(asked[0])
        self.assertEqual([past.args for past in self.successResultOf(asked[1])], [[1]])
        self.assertEqual(client.received(), [("said", 1)])
        one.emit("said", 2, to="red")
        self.advance(0.5)
        self.assertEqual(client.received(), [("said", 2)])
        client.close()


class OnceTests(FlaskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ran: list[Any] = []

    def order(self, key: str, *args: Any) -> dict[str, int]:
        self.ran.append((key, *args))
        return {"number": len(self.ran)}

    def wrap(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a handler as applications do, as by a check of the user."""

        @functools.wraps(handler)
        def checked(*args: Any) -> Any:
            return handler(*args)

        return checked

    def ask(self, event: str, *args: Any) -> Any:
        return self.join().emit(event, *args, callback=True)

    def test_orderOfDecorators(self) -> None:
        """The mark counts above and below @socketio.on, and below a decorator of the application."""
        on = self.socketio.on

        @on("below")
        @once(key=0)
        def below(*args: Any) -> Any:
            return self.order(*args)

        @once(key=0)
        @on("above")
        def above(*args: Any) -> Any:
            return self.order(*args)

        @on("wrapped")
        @self.wrap
        @once(key=0)
        def wrapped(*args: Any) -> Any:
            return self.order(*args)

        for number, event in enumerate(["below", "above", "wrapped"], 1):
            for _ in range(2):
                self.assertEqual(self.ask(event, event, "tea"), {"number": number})
            self.assertIn("choose a new key", self.ask(event, event, "coffee")["error"])
        self.assertEqual(len(self.ran), 3)

    def test_class(self) -> None:
        test = self

        class Shop(Namespace):
            @once(key="id")
            def on_order(self, order: dict[str, Any]) -> Any:
                return test.order(order["id"])

            def on_look(self) -> Any:
                return test.order("look")

        self.socketio.on_namespace(Shop())
        self.assertEqual([self.ask("order", {"id": "a"})["number"] for _ in range(3)], [1, 1, 1])
        self.assertEqual([self.ask("look")["number"] for _ in range(2)], [2, 3])

    def test_handlerFails(self) -> None:
        """After an error, the next event is handled anew, whatever the error handler acks."""

        @self.socketio.on("order")
        @once(key=0)
        def order(key: str) -> Any:
            self.order(key)
            raise LookupError("out of stock")

        client = self.join()
        for _ in range(2):
            self.assertRaises(LookupError, client.emit, "order", "a")
        self.socketio.on_error()(lambda error: f"sorry, {error}")
        for _ in range(2):
            self.assertEqual(self.ask("order", "a"), "sorry, out of stock")
        self.assertEqual(len(self.ran), 4)

    def test_errorMethod(self) -> None:
        """The same with the method `error` of a class."""
        test = self

        class Shop(Namespace):
            @once(key=0)
            def on_order(self, key: str) -> Any:
                test.order(key)
                raise LookupError

            def error(self, error: Exception) -> str:
                return "sorry"

        self.socketio.on_namespace(Shop())
        self.assertEqual([self.ask("order", "a") for _ in range(2)], ["sorry", "sorry"])
        self.assertEqual(len(self.ran), 2)

    def test_mistakes(self) -> None:
        self.assertRaises(ValueError, once)
        self.assertRaises(ValueError, once, key=0, header="x")
        self.assertRaises(TypeError, once, key=1.5)


class OnceInThreadsTests(SynchronousTestCase):
    """An application whose handlers run when the test says so."""

    def setUp(self) -> None:
        app = Flask(__name__)
        self.socketio = SocketIO(app)
        self.jobs = self.socketio.bridge.jobs = Jobs()
        server = self.socketio.realtime
        self.clock = Clock()
        server.configure(reactor=self.clock)
        server._crossing = Stage()
        self.ran: list[Any] = []

        @self.socketio.on("order")
        @once(key=0)
        def order(key: str) -> int:
            self.ran.append(key)
            return len(self.ran)

        @self.socketio.on("disconnect")
        def disconnect(reason: str) -> None:
            self.ran.append(reason)

        server.startService()
        self.addCleanup(server.stopService)
        self.clients = [Client(server) for _ in range(3)]
        for client in self.clients:
            client.connect()

    def test_noThreadWaits(self) -> None:
        """A repeated event waits for the first without a thread of its own."""
        acks = [client.call("order", "a") for client in self.clients]
        self.assertEqual(len(self.jobs.waiting), 1)
        self.jobs.runAll()
        for client in self.clients:
            client.flush()
        self.assertEqual([self.successResultOf(ack) for ack in acks], [1, 1, 1])
        self.assertEqual(self.ran, ["a"])

    def test_clientLeaves(self) -> None:
        """A client that repeats an event and leaves is gone: nothing waits for the first run."""
        first, second, _ = self.clients
        first.call("order", "a")
        second.call("order", "a").addErrback(lambda failure: None)
        second.close()
        self.jobs.waiting.pop(1)()  # the disconnect handler of the second
        self.assertEqual(self.ran, ["transport close"])
        self.jobs.runAll()
        self.assertEqual(self.ran, ["transport close", "a"])
