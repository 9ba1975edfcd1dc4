"""
The order of handlers of the Flask bridge, while clients come and go at any moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
from flask import Flask
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.errors import AckTimeout
from txrealtime.flask import ConnectionRefusedError, SocketIO, call, disconnect, emit, join_room, rooms
from txrealtime.flask.client import Stage
from txrealtime.testing import Client


class WaitingJobs:
    """Threads that begin a job when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def submit(self, name: str, job: Callable[[], object]) -> None:
        self.waiting.append(job)

    def run(self, index: int = 0) -> None:
        self.waiting.pop(index)()

    def runAll(self) -> None:
        while self.waiting:
            self.run()


class Application:
    """
    A Flask application whose handlers write down when they begin and end.

    :ivar log: pairs of a sid and a word, such as ``connect begins``.
    :ivar during: called by handlers in their middle, with the event.
    """

    def __init__(self, **options: Any) -> None:
        self.socketio = socketio = SocketIO(Flask(__name__), **options)
        self.jobs = socketio.bridge.jobs = WaitingJobs()
        self.clock = Clock()
        server = socketio.realtime
        server.configure(reactor=self.clock)
        server._crossing = Stage()
        server.startService()
        self.log: list[tuple[str, str]] = []
        self.during: Callable[[str], object] = lambda event: None
        socketio.on("connect")(self.connect)
        socketio.on("disconnect")(self.disconnect)
        socketio.on("work")(self.work)

    def note(self, word: str) -> None:
        self.log.append((flask.request.sid, word))

    def around(self, event: str) -> Any:
        self.note(f"{event} begins")
        try:
            return self.during(event)
        finally:
            self.note(f"{event} ends")

    def connect(self) -> Any:
        return self.around("connect")

    def disconnect(self, reason: str) -> Any:
        self.reason = reason
        return self.around("disconnect")

    def work(self) -> Any:
        return self.around("work")

    def client(self) -> Client:
        client = Client(self.socketio.realtime)
        client.connect("/").addErrback(lambda failure: None)
        return client

    @property
    def words(self) -> list[str]:
        return [word for _, word in self.log]


WHOLE = ["connect begins", "connect ends", "disconnect begins", "disconnect ends"]


class LeavingTests(SynchronousTestCase):
    """
    Clients that leave at awkward moments.
    """

    def make(self, **options: Any) -> Application:
        self.app = Application(**options)
        return self.app

    def test_whileConnecting(self) -> None:
        """The disconnect handler runs after the connect handler, and knows the reason and the rooms."""
        for leave, reason in ((Client.close, "transport close"), (Client.disconnect, "client disconnect")):
            for options in ({}, {"always_connect": True}):
                app = self.make(**options)
                client, known = app.client(), []

                def during(event: str, client: Any = client, leave: Any = leave, known: Any = known) -> None:
                    if event == "connect":
                        join_room("red")
                        leave(client)
                    else:
                        known.append(rooms() == sorted([flask.request.sid, "red"]))

                app.during = during
                app.jobs.runAll()
                self.assertEqual((app.words, app.reason, known), (WHOLE, reason, [True]))
                self.assertEqual(app.socketio.bridge.spaces["/"].parting, {})
                self.assertEqual(app.socketio.bridge.spaces["/"].connecting, {})

    def test_beforeTheConnectHandlerBegins(self) -> None:
        """Neither handler runs."""
        app = self.make()
        app.client().close()
        app.jobs.runAll()
        self.assertEqual(app.words, [])

    def test_refusedAfterLeaving(self) -> None:
        for refuse in (lambda: False, lambda: (_ for _ in ()).throw(ConnectionRefusedError("no"))):
            for options in ({}, {"always_connect": True}):
                app = self.make(**options)
                client = app.client()
                app.during = lambda event, client=client, refuse=refuse: (client.close(), refuse())[1]
                app.jobs.runAll()
                self.assertEqual(app.words, WHOLE[:2])

    def test_failedAfterLeaving(self) -> None:
        """An error of the handler is in the log, though nobody is left to be refused."""
        app = self.make()
        client = app.client()
        app.during = lambda event: (client.close(), 1 / 0)
        app.jobs.runAll()
        self.assertEqual(app.words, WHOLE[:2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_refusedLate(self) -> None:
        """With always_connect, a refused client is disconnected without a disconnect handler."""
        app = self.make(always_connect=True)
        client = app.client()
        self.assertTrue(client.isConnected())
        app.during = lambda event: False
        client.emit("work")
        app.jobs.runAll()
        self.assertEqual(app.words, WHOLE[:2])
        self.assertFalse(client.isConnected())

    def test_eventsWaitForConnect(self) -> None:
        """With always_connect an event may come while the connect handler runs."""
        app = self.make(always_connect=True)
        client = app.client()
        client.emit("work")
        self.assertEqual(len(app.jobs.waiting), 1)
        app.jobs.runAll()
        self.assertEqual(app.words, ["connect begins", "connect ends", "work begins", "work ends"])

    def test_inTurn(self) -> None:
        """With async_handlers=False all events of a client are handled before its disconnect handler."""
        for leave in (Client.close, Client.disconnect):
            app = self.make(async_handlers=False)
            client = app.client()
            app.jobs.runAll()
            app.log.clear()
            client.emit("work")
            client.emit("work")

            def during(event: str, client: Any = client, leave: Any = leave, app: Any = app) -> None:
                if app.words == ["work begins"]:
                    leave(client)

            app.during = during
            app.jobs.runAll()
            self.assertEqual(app.words, ["work begins", "work ends"] * 2 + WHOLE[2:])

    def test_sideBySide(self) -> None:
        """The disconnect handler waits for the last of the events."""
        app = self.make()
        client = app.client()
        app.jobs.runAll()
        app.log.clear()
        client.emit("work")
        client.emit("work")
        client.close()
        self.assertEqual(len(app.jobs.waiting), 2)
        app.during = lambda event: app.jobs.runAll() if event == "work" else None
        app.jobs.run()
        app.jobs.runAll()
        self.assertEqual(app.words, ["work begins"] * 2 + ["work ends"] * 2 + WHOLE[2:])

    def test_stopping(self) -> None:
        """A server that stops waits for disconnect handlers that have to wait themselves."""
        app = self.make(drainTimeout=3)
        app.client()
        app.jobs.runAll()
        client = app.client()
        app.log.clear()
        stopped: list[Any] = []
        server = app.socketio.realtime

        def during(event: str) -> None:
            if event == "connect":
                server.stopService().addCallback(stopped.append)

        app.during = during
        app.jobs.run()
        for _ in range(100):
            app.clock.advance(0.02)
        self.assertEqual((stopped, server.unfinished), ([], 2))
        app.jobs.runAll()
        self.assertEqual(app.words.count("disconnect ends"), 2)
        app.clock.advance(0.02)
        app.clock.advance(0.02)
        self.assertEqual((len(stopped), server.unfinished), (1, 0))
        self.assertFalse(client.isConnected())


class FirstMomentTests(SynchronousTestCase):
    """
    Connect handlers that send, ask and disconnect.
    """

    def setUp(self) -> None:
        self.app = Application()
        self.answers: list[Any] = []

    def test_callback(self) -> None:
        """A callback given in a connect handler gets the ack, before the disconnect handler runs."""
        client = self.app.client()
        client.on("riddle", lambda number: number + 1)

        def during(event: str) -> None:
            if event == "connect":
                emit("riddle", 7, callback=self.answers.append)

        self.app.during = during
        self.app.jobs.run()
        client.flush()
        client.close()
        self.assertEqual((self.answers, len(self.app.jobs.waiting)), ([], 1))
        self.app.jobs.run()
        self.assertEqual((self.answers, self.app.words), ([8], WHOLE[:2]))
        self.app.jobs.run()
        self.assertEqual(self.app.words, WHOLE)

    def test_callbackOfARefusedClient(self) -> None:
        client = self.app.client()
        self.app.during = lambda event: (emit("riddle", callback=self.answers.append), False)[1]
        self.app.jobs.runAll()
        client.flush()
        self.assertEqual((self.answers, self.app.jobs.waiting), ([], []))

    def test_call(self) -> None:
        """The client cannot answer before it is let in: the error says so, and that it has not gone."""
        errors: list[str] = []

        def during(event: str) -> None:
            if event == "connect":
                errors.append(str(self.assertRaises(AckTimeout, call, "riddle", 8)))

        self.app.during = during
        client = self.app.client()
        self.app.jobs.runAll()
        self.assertIn("before this connect handler has returned", errors[0])
        self.assertIn("always_connect=True", errors[0])
        self.assertEqual(client.received(), [])

    def test_callWithAlwaysConnect(self) -> None:
        self.app = Application(always_connect=True)
        client = self.app.client()
        client.on("riddle", lambda number: number + 1)
        stage = self.app.socketio.realtime._crossing
        ask = stage.ask

        def asking(function: Any, *args: Any) -> Any:
            return ask(lambda: (function(*args), client.flush())[0])

        self.patch(stage, "ask", asking)
        self.app.during = lambda event: self.answers.append(call("riddle", 8)) if event == "connect" else None
        self.app.jobs.runAll()
        self.assertEqual(self.answers, [9])

    def test_callFromAnotherThread(self) -> None:
        """A task that a connect handler starts may ask before the handler has returned."""
        client = self.app.client()
        client.on("riddle", lambda number: number + 1)
        sid = next(iter(self.app.socketio.bridge.spaces["/"].connecting))
        socketio = self.app.socketio
        waiting: list[Any] = []
        self.patch(socketio.realtime._crossing, "ask", lambda function: waiting.append(function()) or [None])
        socketio.call("riddle", 8, to=sid)
        self.app.jobs.runAll()
        client.flush()
        self.assertEqual(self.successResultOf(waiting[0]), [9])
        # One who leaves instead leaves nobody waiting.
        client = self.app.client()
        sid = next(iter(self.app.socketio.bridge.spaces["/"].connecting))
        socketio.call("riddle", 8, to=sid)
        client.close()
        self.assertEqual(self.successResultOf(waiting[1]), [])

    def test_callTimesOut(self) -> None:
        client = self.app.client()
        sid = next(iter(self.app.socketio.bridge.spaces["/"].connecting))
        waiting: list[Any] = []
        self.patch(self.app.socketio.realtime._crossing, "ask", lambda f: waiting.append(f()) or [None])
        self.app.socketio.call("riddle", 8, to=sid, timeout=3)
        self.app.clock.advance(3)
        self.failureResultOf(waiting[0], AckTimeout)
        self.assertFalse(client.isConnected())

    def test_reasonThenDisconnect(self) -> None:
        """A client gets the events that a connect handler emits before it disconnects the client."""
        for namespaces in (None, "*"):
            self.app = Application(namespaces=namespaces)
            client = self.app.client()

            def during(event: str) -> None:
                if event == "connect":
                    emit("why", "you are banned")
                    disconnect()

            self.app.during = during
            self.app.jobs.runAll()
            client.flush()
            self.assertEqual(client.received(), [("why", "you are banned")])
            self.assertFalse(client.isConnected())
            self.assertEqual((self.app.words, self.app.reason), (WHOLE, "server disconnect"))

    def test_disconnectThenRefuse(self) -> None:
        self.app.client()
        self.app.during = lambda event: (disconnect(), False)[1]
        self.app.jobs.runAll()
        self.assertEqual(self.app.words, WHOLE[:2])

    def test_testClient(self) -> None:
        """The same with a test client, whose handlers run at once."""
        app = Flask(__name__)
        socketio, told = SocketIO(app), []

        @socketio.on("connect")
        def connect() -> None:
            emit("why", "banned")
            disconnect()

        socketio.on("disconnect")(told.append)
        self.assertFalse(socketio.test_client(app).is_connected())
        self.assertEqual(told, ["server disconnect"])


class SlowClientTests(SynchronousTestCase):
    def test_greetingTooMuch(self) -> None:
        """A client that goes during the CONNECT packet gets its disconnect handler."""
        app = Application(maxBuffered=1)
        client = app.client()
        client.stopReading()

        def during(event: str) -> None:
            if event == "connect":
                # What waits already makes the CONNECT packet one too many.
                client.session.send("x" * 10)

        app.during = during
        with capturedLogs():
            app.jobs.runAll()
        self.assertEqual((app.words, app.reason), (WHOLE, "slow consumer"))


ACTIONS = ("close", "leave", "send", "kick", "ask", "other job", "nothing")


class Coming(RuleBasedStateMachine):
    """
    Clients that come, send and leave, and handlers that begin in any order, also while others run.
    """

    @initialize(always=st.booleans(), sideBySide=st.booleans())
    def start(self, always: bool, sideBySide: bool) -> None:
        self.app = Application(always_connect=always, async_handlers=sideBySide)
        self.app.during = self.during
        self.clients: list[Client] = []
        self.script: list[tuple[str, int]] = []
        self.refusing = False
        self.refused: set[str] = set()
        self.asked: set[str] = set()

    def during(self, event: str) -> Any:
        """Do what the script says, as if it happened in other threads meanwhile."""
        script, self.script = self.script, []
        refusing, self.refusing = self.refusing, False
        for action, number in script:
            if action == "kick" and event != "disconnect":
                disconnect()
            elif action == "ask" and event != "disconnect":
                emit("riddle", callback=self.answered)
            else:
                self.act(action, number)
        if event == "connect" and refusing:
            self.refused.add(flask.request.sid)
            return False
        return None

    def answered(self, answer: Any) -> None:
        assert answer == "answer"
        self.app.log.append((flask.request.sid, "callback begins"))
        self.app.log.append((flask.request.sid, "callback ends"))

    def act(self, action: str, number: int) -> None:
        if action == "other job" and self.app.jobs.waiting:
            self.app.jobs.run(number % len(self.app.jobs.waiting))
        if not self.clients:
            return
        client = self.clients[number % len(self.clients)]
        if client.transport.closed is not None:
            return
        if action == "close":
            client.close()
        elif client.isConnected():
            if action == "leave":
                client.disconnect()
            elif action == "send":
                client.emit("work")

    @rule()
    def come(self) -> None:
        client = self.app.client()
        client.on("riddle", lambda: "answer")
        self.clients.append(client)

    @rule(
        index=st.integers(0, 9),
        script=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5)), max_size=3),
        refusing=st.booleans(),
    )
    def handle(self, index: int, script: list[tuple[str, int]], refusing: bool) -> None:
        if self.app.jobs.waiting:
            self.script, self.refusing = script, refusing
            self.app.jobs.run(index % len(self.app.jobs.waiting))
            self.script, self.refusing = [], False

    @rule(action=st.sampled_from(ACTIONS), number=st.integers(0, 5))
    def happen(self, action: str, number: int) -> None:
        self.act(action, number)

    @invariant()
    def inOrder(self) -> None:
        for sid, words in self.stays().items():
            assert words[0] == "connect begins", words
            if "disconnect begins" in words:
                first = words.index("disconnect begins")
                assert words.count("disconnect begins") == 1, words
                before = words[:first]
                assert all(
                    before.count(f"{event} begins") == before.count(f"{event} ends")
                    for event in ("connect", "work", "callback")
                ), words
                assert set(words[first:]) <= {"disconnect begins", "disconnect ends"}, words
            # With always_connect, acks come while the connect handler runs, or after it has refused.
            always = self.app.socketio.bridge.configuration.alwaysConnect
            words = [word for word in words if not (always and word.startswith("callback"))]
            work = [word for word in words if word.startswith(("work", "callback"))]
            if work:
                assert "connect ends" in words[: words.index(work[0])], words
            if sid in self.refused:
                assert words == ["connect begins", "connect ends"][: len(words)], words

    def stays(self) -> dict[str, list[str]]:
        stays: dict[str, list[str]] = {}
        for sid, word in self.app.log if hasattr(self, "app") else ():
            stays.setdefault(sid, []).append(word)
        return stays

    def teardown(self) -> None:
        if not hasattr(self, "app"):
            return
        for client in self.clients:
            client.flush()
            if client.transport.closed is None:
                client.close()
        self.app.jobs.runAll()
        self.inOrder()
        for sid, words in self.stays().items():
            assert ("disconnect begins" in words) == (sid not in self.refused), words
        space = self.app.socketio.bridge.spaces["/"]
        assert not (
            space.memberships or space.connecting or space.parting or self.app.socketio.realtime.unfinished
        )


class AnyOrderTests(SynchronousTestCase):
    def test_anyOrder(self) -> None:
        case = Coming.TestCase()
        case.settings = hypothesis(max_examples=200, stateful_step_count=25, deadline=None)
        case.runTest()
