from __future__ import annotations

import functools
import json
import typing
from collections import OrderedDict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import flask
import flask_login
from flask import Flask
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

import txrealtime.flask as flaskBridge
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.errors import AckTimeout
from txrealtime.flask import (
    ConnectionRefusedError,
    Namespace,
    SocketIO,
    SocketIOTestClient,
    call,
    close_room,
    disconnect,
    emit,
    join_room,
    leave_room,
    rooms,
    routes,
    send,
)
from txrealtime.flask.client import Stage
from txrealtime.flask.contexts import environOf
from txrealtime.testing import Client


class FlaskTestCase(SynchronousTestCase):
    """
    An application whose handlers run at once.
    """

    def setUp(self) -> None:
        self.make()

    def make(self, **options: Any) -> SocketIO:
        self.app = Flask(__name__)
        self.app.secret_key = "for tests"
        self.socketio = SocketIO(self.app, **options)
        return self.socketio

    def join(self, namespace: str | None = None, **options: Any) -> SocketIOTestClient:
        return self.socketio.test_client(self.app, namespace, **options)

    def received(self, client: SocketIOTestClient, namespace: str | None = None) -> list[tuple[str, Any]]:
        return [(event["name"], event["args"]) for event in client.get_received(namespace)]


class WaitingJobs:
    """Threads that are all taken, so that jobs wait."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def submit(self, name: str, job: Callable[[], object]) -> None:
        self.waiting.append(job)


class BacklogTests(FlaskTestCase):
    """
    Slow handlers.
    """

    def setUp(self) -> None:
        self.make(handler_threads=4)
        self.jobs = self.socketio.bridge.jobs = WaitingJobs()
        server = self.socketio.realtime
        server.configure(reactor=Clock())
        server._crossing = Stage()
        server.startService()
        self.client = Client(server)

    def test_comingAndGoing(self) -> None:
        """A client that comes again and again cannot fill the memory with the jobs that it leaves."""
        self.socketio.on_event("slow", lambda text: None)
        for _ in range(300):
            self.client.connect("/").addErrback(lambda failure: None)
            if self.client.isConnected("/"):
                self.client.emit("slow", "x")
                self.client.emit("slow", "x")
                self.client.disconnect("/")
        most = self.socketio.bridge.mostJobs + 2
        self.assertLessEqual(len(self.jobs.waiting), most)
        refused = self.client.connect("/")
        self.client.flush()
        self.assertEqual(str(self.failureResultOf(refused).value), "Too many events wait")
        for job in self.jobs.waiting:
            job()
        self.client.flush()
        self.client.connect("/")
        self.client.flush()
        self.assertTrue(self.client.isConnected("/"))


class HandlerTests(FlaskTestCase):
    def test_whichOneHandles(self) -> None:
        """A function wins over a class, and both win over catch-all handlers."""
        socketio = self.socketio

        class Everything(Namespace):
            def on_mine(self, *args: Any) -> str:
                return "class"

            def on_both(self) -> str:
                return "class"

        socketio.on_namespace(Everything("/a"))
        socketio.on("both", "/a")(lambda: "function")
        socketio.on("*", "/a")(lambda event, *args: f"any {event} {args}")
        socketio.on("elsewhere", "*")(lambda: f"everywhere {flask.request.namespace}")
        socketio.on("*", "*")(lambda event: f"any {event} everywhere {flask.request.namespace}")
        a, b = self.join("/a"), self.join("/b")
        asked = [a.emit(name, callback=True, namespace="/a") for name in ("mine", "both", "other")]
        self.assertEqual(asked, ["class", "function", "any other ()"])
        asked = [b.emit(name, callback=True, namespace="/b") for name in ("elsewhere", "both")]
        self.assertEqual(asked, ["everywhere /b", "any both everywhere /b"])

    def test_nobodyHandles(self) -> None:
        self.assertIsNone(self.join().emit("nothing", callback=True))

    def test_waysToRegister(self) -> None:
        socketio = self.socketio

        @socketio.event
        def one() -> str:
            return "1"

        @socketio.event(namespace="/n")
        def two() -> str:
            return "2"

        socketio.on_event("three", lambda: "3")
        self.assertEqual(one(), "1")  # what is decorated stays a function
        client, other = self.join(), self.join("/n")
        self.assertEqual([client.emit(name, callback=True) for name in ("one", "three")], ["1", "3"])
        self.assertEqual(other.emit("two", callback=True, namespace="/n"), "2")

    def test_eventKeepsTheHandlersType(self) -> None:
        """For mypy, a decorated function keeps its type."""
        bare, given = [typing.get_type_hints(each) for each in typing.get_overloads(SocketIO.event)]
        self.assertIs(bare["handler"], bare["return"])
        ((parameter,), result) = typing.get_args(given["return"])
        self.assertIs(parameter, result)
        self.assertIsInstance(result, typing.TypeVar)

    def test_secondHandler(self) -> None:
        """The last one wins, and the log names both, once."""

        def first() -> str:
            return "first"

        def second() -> str:
            return "second"

        class Mine(Namespace):
            pass

        with capturedLogs() as events:
            for handler in (first, first, second, first, second):
                self.socketio.on("ask")(handler)
            self.socketio.on("ask", namespace="/other")(first)
            for _ in range(3):
                self.socketio.on_namespace(Mine("/n"))
        function, namespace = [formatEvent(event) for event in events]
        self.assertEqual(self.join().emit("ask", callback=True), "second")
        for part in ("event 'ask' of /", "second (", "takes the place of", "first (", "test_flask.py:"):
            self.assertIn(part, function)
        self.assertIn("the namespace of /n has two handlers", namespace)
        self.assertEqual(self.socketio.handlers[-1], ("ask", first, "/other"))

    def test_acks(self) -> None:
        for result, ack in (((1, [2]), [1, [2]]), ([1, 2], [1, 2]), (None, []), (b"x", b"x"), (0, 0)):
            self.socketio.on("ask")(lambda result=result: result)
            self.assertEqual(self.join().emit("ask", callback=True), ack)

    def test_resultIsACopy(self) -> None:
        """Other handlers may change the result later, and the ack stays the same."""
        for kind in (dict, OrderedDict):
            bridge, state = self.socketio.bridge, kind(names=["ann"])
            copy = bridge.sendable(state)
            state["names"].append("bob")
            state["more"] = True
            self.assertEqual(copy, {"names": ["ann"]})

    def test_resultOfAnotherClassIsACopy(self) -> None:
        """An application's own classes of lists and bytes are copied too."""

        class Names(list[str]):
            pass

        class Picture(bytearray):
            pass

        names, picture = Names(["ann"]), Picture(b"png")
        copy = self.socketio.bridge.sendable([names, picture])
        names.append("bob")
        picture.extend(b"!")
        self.assertEqual(copy, [["ann"], b"png"])

    def test_forNobody(self) -> None:
        """An empty list of receivers is not everybody, and room 0 is a room."""
        socketio, client, other = self.socketio, self.join(), self.join()

        @socketio.on("enter")
        def enter() -> None:
            join_room(0)

        @socketio.on("tell")
        def tell() -> None:
            emit("told", "nobody", to=[])
            emit("told", "nobody", room=[])
            emit("told", "room 0", to=0)

        client.emit("enter")
        for nobody in ([], set(), ()):
            socketio.emit("told", "nobody", to=nobody)
        socketio.emit("told", "room 0", to=0)
        other.emit("tell")
        self.assertEqual(self.received(client), [("told", ["room 0"])] * 2)
        self.assertEqual(self.received(other), [])

    def test_noClientNamed(self) -> None:
        """None as a sid means nobody, not everybody."""
        client = self.join()
        self.socketio.disconnect(None)
        self.socketio.leave_room(None, "red")
        self.assertRaises(ValueError, self.socketio.enter_room, None, "red")
        self.socketio.emit("news", to="red")
        self.assertTrue(client.is_connected())
        self.assertEqual(self.received(client), [])

    def test_valuesThatDoNotCompare(self) -> None:
        """The bridge compares no values, since classes may have an equality of their own."""

        class Array:
            def __eq__(self, other: object) -> bool:
                raise ValueError("which of the elements?")

            __hash__ = None  # type: ignore[assignment]

        self.assertRaises(TypeError, self.socketio.emit, "news", Array())
        self.assertRaises(TypeError, self.socketio.call, "news", Array(), to="sid")

    def test_askingNobody(self) -> None:
        """An empty list names no client to ask, and does not mean the default."""
        client, refused = self.join(), []

        @self.socketio.on("ask")
        def ask() -> None:
            refused.append(str(self.assertRaises(ValueError, call, "question", to=[])))

        client.emit("ask")
        error = self.assertRaises(ValueError, self.socketio.call, "question", to=[], room="sid")
        refused.append(str(error))
        for text in refused:
            self.assertIn("expected its sid as to=, not []", text)
        self.assertEqual(len(refused), 2)

    def test_methodsOnly(self) -> None:
        """A client reaches no attribute of a class but its handlers."""
        called: list[str] = []

        class Mine(Namespace):
            on_number = 3

            def on_connect(self) -> None:
                called.append("connect")

            def secret(self) -> None:
                called.append("secret")

        self.socketio.on_namespace(Mine("/n"))
        client = self.join("/n")
        for name in ("secret", "number", "_txrealtimeMethods", "emit"):
            self.assertIsNone(client.emit(name, callback=True, namespace="/n"))
        self.assertEqual(called, ["connect"])

    def test_triggerEvent(self) -> None:
        """A class may handle all events by trigger_event()."""
        seen: list[Any] = []

        class Mine(Namespace):
            def trigger_event(self, event: str, *args: Any) -> Any:
                seen.append((event, args[0] == flask.request.sid, args[1:]))
                return super().trigger_event(event, *args)

            def on_known(self, text: str) -> str:
                return text.upper()

        self.socketio.on_namespace(Mine("/n"))
        client = self.join("/n", auth={"a": 1})
        self.assertEqual(client.emit("known", "x", callback=True, namespace="/n"), "X")
        client.emit("other", namespace="/n")
        self.assertEqual(seen, [("connect", True, ({"a": 1},)), ("known", True, ("x",)), ("other", True, ())])

    def test_classSends(self) -> None:
        class Mine(Namespace):
            def on_go(self, room: str) -> None:
                self.emit("news", 1, room=room)
                self.send("text")
                self.close_room(room)
                self.emit("late", room=room)

            def on_join(self, room: str) -> None:
                join_room(room)

        self.socketio.on_namespace(Mine("/n"))
        ann, bob = self.join("/n"), self.join("/n")
        ann.emit("join", "red", namespace="/n")
        bob.emit("go", "red", namespace="/n")
        self.assertEqual(self.received(ann, "/n"), [("news", [1]), ("message", "text")])
        self.assertEqual(self.received(bob, "/n"), [("message", "text")])
        error = self.assertRaises(RuntimeError, Mine().emit, "x")
        self.assertIn("give it to socketio.on_namespace() first", str(error))
        self.assertRaises(ValueError, self.socketio.on_namespace, Mine)


class ComingAndGoingTests(FlaskTestCase):
    def test_refused(self) -> None:
        for answer in (lambda: False, self.refusing(), self.refusing("no"), self.refusing("no", 1, 2)):
            self.socketio.on("connect")(answer)
            self.assertFalse(self.join().is_connected())

    def refusing(self, *args: Any) -> Any:
        def connect() -> None:
            raise ConnectionRefusedError(*args)

        return connect

    def test_whatARefusedClientIsTold(self) -> None:
        for args, message, data in (
            ((), "Connection rejected by server", None),
            (("no",), "no", None),
            (("no", {"a": 1}), "no", {"a": 1}),
            (("no", 1, 2), "no", [1, 2]),
        ):
            error = ConnectionRefusedError(*args)
            self.assertEqual((error.message, error.data), (message, data))

    def test_connectIsCalledOnce(self) -> None:
        """A TypeError from the body does not make the handler run again."""
        calls: list[Any] = []

        @self.socketio.on("connect")
        def connect(auth: Any) -> None:
            calls.append(auth)
            raise TypeError("of its own")

        self.assertRaises(TypeError, self.join, auth={"a": 1})
        self.assertEqual(calls, [{"a": 1}])

    def test_connectWithoutAuthIsCalledAgain(self) -> None:
        """After a TypeError, once more and no oftener, as published applications need; the log says so."""
        calls: list[int] = []

        @self.socketio.on("connect")
        def connect() -> None:
            calls.append(1)
            if len(calls) != 2:
                raise TypeError(f"number {len(calls)}")

        with capturedLogs() as events:
            self.assertTrue(self.join().is_connected())
        self.assertEqual(len(calls), 2)
        self.assertIn("is called once more", "".join(filter(None, map(formatEvent, events))))
        calls += [1, 1]
        error = self.assertRaises(TypeError, self.join)
        self.assertEqual((str(error), len(calls)), ("number 5", 6))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 2)

    def test_noAuth(self) -> None:
        """An empty auth is None: a client of python-socketio sends {} for none."""
        given: list[Any] = []
        self.socketio.on("connect")(given.append)
        for auth in (None, {}, {"a": 1}):
            self.join(auth=auth)
        self.assertEqual(given, [None, None, {"a": 1}])

    def wrapped(self, handler: Any, *more: Any) -> tuple[Any, list[str]]:
        """
        Return a handler in a decorator that adds arguments, and a list of its calls.
        """
        ran: list[str] = []

        @functools.wraps(handler)
        def wrapper(*args: Any, **keywords: Any) -> Any:
            ran.append("wrapper")
            return handler(*more, *args, **keywords)

        return wrapper, ran

    def test_decorators(self) -> None:
        """A decorator may add an argument, or only look as if it did."""
        for handler, more, expected, times in (
            (lambda: ("none",), (), ("none",), 1),
            (lambda auth: (auth,), (), ({"a": 1},), 1),
            (lambda user, auth: (user, auth), ("ann",), ("ann", {"a": 1}), 1),
            (lambda user: (user,), ("ann",), ("ann",), 2),
            (lambda user=None, *rest: (user, *rest), ("ann",), ("ann", {"a": 1}), 1),
        ):
            connect, ran = self.wrapped(handler, *more)
            results: list[Any] = []
            self.socketio.on("connect")(self.noting(connect, results))
            self.assertTrue(self.join(auth={"a": 1}).is_connected())
            self.assertEqual((results, ran), ([expected], ["wrapper"] * times))

    def noting(self, connect: Any, results: list[Any]) -> Any:
        @functools.wraps(connect)
        def wrapper(*args: Any) -> None:
            results.append(connect(*args))

        return wrapper

    def test_signatureOfTheWrapper(self) -> None:
        """The signature of a wrapper without *args counts."""
        given: list[Any] = []

        def connect(user: str, auth: Any) -> None:
            given.append((user, auth))

        @functools.wraps(connect)
        def without() -> None:
            connect("ann", None)

        @functools.wraps(lambda: None)
        def maybe(auth: Any = None) -> None:
            connect("bob", auth)

        for handler in (without, maybe):
            self.socketio.on("connect")(handler)
            self.join(auth={"a": 1})
        self.assertEqual(given, [("ann", None), ("bob", {"a": 1})])

    def test_decoratedMethods(self) -> None:
        told: list[Any] = []

        def withUser(method: Any) -> Any:
            return functools.wraps(method)(lambda self, *args: method(self, "ann", *args))

        class Mine(Namespace):
            @withUser
            def on_connect(self, user: str) -> None:
                told.append(user)

            @withUser
            def on_disconnect(self, user: str, reason: str) -> None:
                told.append((user, reason))

        self.socketio.on_namespace(Mine("/n"))
        self.join("/n").disconnect("/n")
        self.assertEqual(told, ["ann", ("ann", "client disconnect")])

    def test_namesAlike(self) -> None:
        """The log names methods that are never called, unless the right one is there."""
        warned: list[Any] = []
        self.patch(routes._log, "warn", lambda format, **values: warned.append(format.format(**values)))

        class Mine(Namespace):
            def onConnect(self) -> bool:
                return False

            def connection_lost(self) -> None: ...

            def on_open(self) -> None: ...

        class Right(Namespace):
            def on_connect(self) -> None:
                self.connect()

            def connect(self) -> None: ...

        self.socketio.on_namespace(Mine("/n"))
        self.socketio.on_namespace(Right("/m"))
        self.assertEqual(
            [
                (line.split()[0].rpartition("Mine.")[2], line.split("name it ")[1].split(",")[0])
                for line in warned
            ],
            [("onConnect()", "on_connect()"), ("connection_lost()", "on_disconnect()")],
        )

    def test_decoratedIsCalledOnce(self) -> None:
        """A wrapped handler runs once, also if it raises TypeError or calls itself wrongly."""
        calls: list[Any] = []

        def connect(user: str, auth: Any = None) -> None:
            calls.append((user, auth))
            connect()  # type: ignore[call-arg]

        wrapper, ran = self.wrapped(connect, "ann")
        self.socketio.on("connect")(wrapper)
        error = self.assertRaises(TypeError, self.join, auth={"a": 1})
        self.assertIn("missing 1 required positional argument: 'user'", str(error))
        self.assertEqual((calls, ran), ([("ann", {"a": 1})], ["wrapper"]))

    def test_withoutASignature(self) -> None:
        """A built-in without a signature gets the argument."""
        self.socketio.on("connect")(bool)
        self.assertFalse(self.join().is_connected())

    def test_unknownNamespace(self) -> None:
        self.assertFalse(self.join("/nobody").is_connected("/nobody"))
        self.make(namespaces=["/open"])
        self.assertTrue(self.join("/open").is_connected("/open"))
        self.assertFalse(self.join().is_connected())
        self.make(namespaces="*")
        self.assertTrue(self.join("/any").is_connected("/any"))

    def test_disconnect(self) -> None:
        """The disconnect handler gets the reason, and knows the rooms that the client was in."""
        told: list[Any] = []

        @self.socketio.on("go")
        def go() -> None:
            join_room("red")
            disconnect()

        @self.socketio.on("disconnect")
        def gone(reason: str) -> None:
            told.append((reason, rooms() == sorted([flask.request.sid, "red"])))
            emit("left", to="red")

        client, other = self.join(), self.join()
        client.emit("go")
        self.assertFalse(client.is_connected())
        other.disconnect()
        self.assertEqual(told, [("server disconnect", True), ("client disconnect", False)])
        self.assertEqual(self.socketio.bridge.spaces["/"].parting, {})
        self.assertRaises(RuntimeError, client.emit, "go")
        self.assertRaises(RuntimeError, client.get_received)
        self.assertRaises(RuntimeError, client.disconnect)

    def test_alwaysConnect(self) -> None:
        self.make(always_connect=True)

        @self.socketio.on("connect")
        def connect(auth: Any) -> Any:
            emit("hello")
            return auth

        self.assertTrue(self.join(auth={"a": 1}).is_connected())
        self.socketio.on("connect")(lambda: False)
        self.assertFalse(self.join().is_connected())


class SendingTests(FlaskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.socketio.on("join")(lambda room: join_room(room))
        self.ann, self.bob, self.cat = self.join(), self.join(), self.join()
        self.ann.emit("join", "red")
        self.bob.emit("join", "red")

    def do(self, *what: Any, by: SocketIOTestClient | None = None) -> Any:
        """
        Call a function in a handler of ann's.
        """
        results: list[Any] = []
        self.socketio.on("do")(lambda: results.append(what[0]()))
        (by or self.ann).emit("do")
        return results[0]

    def names(self) -> str:
        """
        Return the initials of the clients that have got something.
        """
        people = {"a": self.ann, "b": self.bob, "c": self.cat}
        return "".join(name * len(client.get_received()) for name, client in people.items())

    def test_whoGetsIt(self) -> None:
        for expected, options in (
            ("a", {}),
            ("abc", {"broadcast": True}),
            ("bc", {"broadcast": True, "include_self": False}),
            ("ab", {"to": "red"}),
            ("b", {"room": "red", "include_self": False}),
            ("ab", {"to": ["red", "nobody"]}),
        ):
            self.do(lambda options=options: emit("x", **options))
            self.assertEqual(self.names(), expected, options)
            self.do(lambda options=options: send("x", **options))
            self.assertEqual(self.names(), expected, options)

    def test_skipping(self) -> None:
        """Both emit and send leave out those named and the sender."""
        bob = self.do(lambda: flask.request.sid, by=self.bob)
        for function in (emit, send):
            self.do(lambda f=function: f("x", broadcast=True, skip_sid=bob, include_self=False))
            self.assertEqual(self.names(), "c")
            self.do(lambda f=function: f("x", broadcast=True, skip_sid=[bob]))
            self.assertEqual(self.names(), "ac")

    def test_arguments(self) -> None:
        for args, expected in (
            ((), []),
            ((None,), []),
            ((1,), [1]),
            ((1, 2), [1, 2]),
            (((1, 2),), [1, 2]),
            (([1, 2],), [[1, 2]]),
            (((None,),), [None]),
            ((([None],),), [[None]]),
            (((),), []),
            ((None, None), [None, None]),
        ):
            self.do(lambda args=args: emit("x", *args))
            self.assertEqual(self.received(self.ann), [("x", expected)])
        for data, expected in ((1, [1]), ((1, 2), [1, 2]), (None, [])):
            self.do(lambda data=data: emit("x", data=data, unknown=3))
            self.socketio.emit("x", data=data, unknown=3, to="red")
            self.assertEqual(self.received(self.ann), [("x", expected)] * 2)
        self.do(lambda: send({"a": 1}, json=True))
        self.assertEqual(self.received(self.ann), [("json", {"a": 1})])

    def test_encodedAtOnce(self) -> None:
        """A value may change after emit(); a value that cannot be sent is an error."""
        data = {"n": 1}

        def handler() -> Any:
            emit("x", data)
            data["n"] = 2
            return self.assertRaises(TypeError, emit, "x", {"bad": object()})

        error = self.do(handler)
        self.assertIn("argument 1['bad']", str(error))
        self.assertEqual(self.received(self.ann), [("x", [{"n": 1}])])

    def test_rooms(self) -> None:

        def handler() -> list[str]:
            join_room(7)
            leave_room("red")
            return [room for room in rooms() if room != flask.request.sid]

        self.assertEqual(self.do(handler), ["7"])
        self.do(lambda: close_room("red"))
        self.socketio.emit("x", to="red")
        self.assertEqual(self.names(), "")
        self.socketio.emit("x", to=7)
        self.assertEqual(self.names(), "a")

    def test_noRoom(self) -> None:
        """``None`` is no room, as in Flask-SocketIO: who joins it is with nobody, and stays where it was."""
        own = self.do(rooms)
        for function in (join_room, leave_room, close_room):
            for none in (None, []):
                self.do(lambda function=function, none=none: function(none))
                self.assertEqual(self.do(rooms), own, function)
        for function in (emit, send):
            self.do(lambda function=function: function("x", to=None))
            self.assertEqual(self.names(), "a")
        self.socketio.emit("x", to=None)
        self.assertEqual(self.names(), "abc")

    def test_notARoom(self) -> None:
        """A value that cannot name a room is refused: strangers would meet in a room of its text."""
        own = self.do(rooms)
        functions = (join_room, leave_room, close_room, lambda room: emit("x", to=room))
        for function in (*functions, lambda room: self.socketio.emit("x", to=room)):
            for room, name in (
                ([None], "NoneType"),
                (["red", None], "NoneType"),
                ({"room": "red"}, "dict"),
                ([["red"]], "list"),
            ):
                error = self.do(lambda f=function, room=room: self.assertRaises(TypeError, f, room))
                self.assertEqual(str(error), f"a room is named by a str or a number, not by {name}")
        self.assertEqual(self.do(rooms), own)
        self.assertEqual(self.names(), "")

    def test_skippingNobody(self) -> None:
        """A sid that an application has not is ``None``, and leaves out nobody."""
        bob = self.do(lambda: flask.request.sid, by=self.bob)
        for skip, expected in (([None], "abc"), ([None, bob], "ac"), (None, "abc"), ([], "abc")):
            self.socketio.emit("x", skip_sid=skip)
            self.assertEqual(self.names(), expected)

    def test_roomOfAnother(self) -> None:
        bob = self.do(lambda: flask.request.sid, by=self.bob)
        error = self.do(lambda: self.assertRaises(ValueError, join_room, bob))
        self.assertIn("another client's own", str(error))

    def test_roomOfAClientIsNotClosed(self) -> None:
        for close in (close_room, self.socketio.close_room):
            error = self.do(lambda close=close: self.assertRaises(ValueError, close, flask.request.sid))
            self.assertIn("is a client's own: disconnect()", str(error))
        self.do(lambda: emit("x"))
        self.assertEqual(self.names(), "a")

    def test_disconnectedAndClosed(self) -> None:
        """The own room of a client may be closed after disconnect(), which does not wait."""
        sid = self.do(lambda: flask.request.sid)
        later: list[Any] = []
        call = self.socketio.realtime._crossing.call
        self.patch(self.socketio.realtime._crossing, "call", lambda *args: later.append(args))
        self.socketio.disconnect(sid)
        self.socketio.close_room(sid)
        for each in later:
            call(*each)
        self.assertFalse(self.ann.is_connected())
        self.socketio.close_room(sid)

    def test_unknownSid(self) -> None:
        """An unknown sid cannot join a room, as in Flask-SocketIO; leaving one is no error."""
        for sid, namespace in (("nobody", "/"), ("nobody", "/nowhere")):
            error = self.assertRaises(ValueError, self.socketio.enter_room, sid, "red", namespace)
            self.assertIn("no client 'nobody' is in /", str(error))
            self.socketio.leave_room(sid, "red", namespace)
            self.assertEqual(self.socketio.rooms(sid, namespace), [])

    def test_joinsWhileLeaving(self) -> None:
        """A handler whose client has left meanwhile may call join_room()."""

        def handler() -> None:
            disconnect()
            join_room("blue")

        self.do(handler)
        self.assertFalse(self.ann.is_connected())

    def test_roomsBeforeTheServerRuns(self) -> None:
        self.assertEqual(SocketIO(Flask(__name__)).rooms("nobody"), [])

    def test_fromOutside(self) -> None:
        self.socketio.emit("x", 1)
        self.assertEqual(self.names(), "abc")
        self.socketio.send("x", to="red")
        self.assertEqual(self.names(), "ab")
        self.socketio.emit("x", namespace="/nobody")
        self.assertEqual(self.names(), "")

    def test_fromAnotherThread(self) -> None:
        """A thread may emit while a handler waits for the thread."""

        def handler() -> None:
            thread = self.socketio.start_background_task(self.socketio.emit, "x", to="red")
            thread.join(30)
            assert not thread.is_alive()

        self.do(handler)
        self.assertEqual(self.names(), "ab")

    def test_askedByAnotherThread(self) -> None:
        """A thread gets an answer from the server while a handler waits for the thread."""

        def handler() -> Any:
            sid, answers = flask.request.sid, []
            task = self.socketio.start_background_task(lambda: answers.append(self.socketio.rooms(sid)))
            task.join(30)
            return answers == [sorted([sid, "red"])]

        self.assertTrue(self.do(handler))

    def test_callbackWithoutAnAnswer(self) -> None:
        """A test client does not ack: call() raises an error that says so."""
        error = self.do(lambda: self.assertRaises(AckTimeout, call, "x"))
        self.assertIn("test that with a real client", str(error))
        self.assertIsInstance(error, TimeoutError)

    def test_callOfEverybody(self) -> None:
        self.assertRaises(ValueError, self.socketio.call, "x")

    def test_inAView(self) -> None:
        """The functions work in a view if the client and the namespace are named."""
        ann = self.do(lambda: flask.request.sid)
        with self.app.test_request_context():
            emit("x", namespace="/", broadcast=True)
            self.assertEqual(self.names(), "abc")
            send("x", namespace="/", to="red")
            self.assertEqual(self.names(), "ab")
            leave_room("red", sid=ann, namespace="/")
            join_room("blue", sid=ann, namespace="/")
            self.assertEqual(rooms(ann, "/"), sorted([ann, "blue"]))
            close_room("blue", namespace="/")
            self.assertEqual(rooms(ann, "/"), [ann])
            self.assertRaises(AckTimeout, call, "x", to=ann, namespace="/")
            disconnect(ann, "/")
            self.assertFalse(self.ann.is_connected())
            self.assertRaises(RuntimeError, emit, "x", namespace="/")
            self.assertRaises(RuntimeError, join_room, "red", namespace="/")
            self.assertRaises(RuntimeError, emit, "x", namespace="/", broadcast=True, include_self=False)

    def test_notForUs(self) -> None:
        for function in (emit, send, call, join_room, leave_room, close_room):
            error = self.assertRaises(RuntimeError, function, "x")
            self.assertIn(f"{function.__name__}() needs to know the client", str(error))
            # Applications catch there what Flask-SocketIO raises, which depends on the place.
            self.assertIsInstance(error, AttributeError)
        for function in (rooms, disconnect):
            self.assertRaises(RuntimeError, function)
        with self.app.test_request_context():
            self.assertRaises(RuntimeError, emit, "x")
        error = self.assertRaises(RuntimeError, self.socketio.emit, "x", include_self=False)
        self.assertIn("skip_sid", str(error))
        self.assertIsInstance(error, AttributeError)
        self.assertRaises(ValueError, self.socketio.emit, "disconnect")


class ErrorTests(FlaskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.socketio.on("fail")(lambda: 1 / 0)
        self.socketio.on("fail", "/n")(lambda: 1 / 0)

    def test_unhandled(self) -> None:
        """The test client raises the exception of a handler."""
        self.assertRaises(ZeroDivisionError, self.join().emit, "fail")

    def test_handlers(self) -> None:
        """The result of an error handler is the ack; the handler knows the event."""
        self.socketio.on_error()(lambda error: f"own {error!r} {flask.request.event}")
        self.socketio.on_error_default(lambda error: "default")
        own = self.join().emit("fail", callback=True)
        self.assertEqual(own, "own ZeroDivisionError('division by zero') {'message': 'fail', 'args': ()}")
        self.assertEqual(self.join("/n").emit("fail", callback=True, namespace="/n"), "default")

    def test_ofAClass(self) -> None:
        """The method error() of a class gets the exceptions that no error handler takes."""

        class Mine(Namespace):
            def on_fail(self) -> None:
                raise KeyError("x")

            def error(self, error: Exception) -> str:
                return f"class {error!r}"

        self.socketio.on_namespace(Mine("/c"))
        client = self.join("/c")
        self.assertEqual(client.emit("fail", callback=True, namespace="/c"), "class KeyError('x')")
        self.socketio.on_error("/c")(lambda error: "own")
        self.assertEqual(client.emit("fail", callback=True, namespace="/c"), "own")

    def test_wrongArguments(self) -> None:
        """Wrong arguments are an error of the handler."""
        self.socketio.on_error()(lambda error: type(error).__name__)
        self.assertEqual(self.join().emit("fail", 1, 2, callback=True), "TypeError")

    def test_resultThatCannotBeSent(self) -> None:
        """A result that cannot be sent is an error only if the client wants an ack."""
        self.socketio.on("bad")(lambda: {"x": object()})
        self.socketio.on("disconnect")(object)
        client = self.join()
        client.emit("bad")
        error = self.assertRaises(TypeError, client.emit, "bad", callback=True)
        self.assertIn("argument 1['x']", str(error))
        client.disconnect()

    def test_notCallable(self) -> None:
        self.assertRaises(ValueError, self.socketio.on_error(), None)
        self.assertRaises(ValueError, self.socketio.on_error_default, 3)


class ContextTests(FlaskTestCase):
    def ask(self, handler: Any, client: SocketIOTestClient | None = None) -> Any:
        self.socketio.on("ask")(handler)
        return (client or self.join()).emit("ask", callback=True)

    def test_request(self) -> None:
        client = self.join(query_string="a=1&a=2", headers={"X-Who": "ann"})

        def handler() -> Any:
            event = {**flask.request.event, "args": list(flask.request.event["args"])}
            given = flask.request.args.getlist("a"), flask.request.headers["x-who"]
            return *given, flask.request.namespace, event, flask.request.path

        event = {"message": "ask", "args": []}
        self.assertEqual(self.ask(handler, client), [["1", "2"], "ann", "/", event, "/socket.io"])

    def test_eachEventHasItsOwn(self) -> None:
        """`g` is new, hooks of requests do not run, and those of the contexts' end do."""
        ran: list[str] = []
        self.app.before_request(lambda: ran.append("before"))
        self.app.teardown_appcontext(lambda error: ran.append("teardown"))
        client = self.join()

        def handler() -> Any:
            seen = flask.g.get("seen", 0)
            flask.g.seen = seen + 1
            return seen, flask.current_app.name, flask.url_for("static", filename="x")

        self.assertEqual(self.ask(handler, client), [0, __name__, "/static/x"])
        self.assertEqual(self.ask(handler, client), [0, __name__, "/static/x"])
        self.assertEqual(set(ran), {"teardown"})

    def test_teardowns(self) -> None:
        """Teardown functions run once for each handler, also for a client's first."""
        ran: list[Any] = []
        self.app.teardown_request(lambda error: ran.append(("request", flask.g.event)))
        self.app.teardown_appcontext(lambda error: ran.append(("app", flask.g.event)))

        def handler(event: str) -> None:
            flask.g.event = event
            flask.request.own = flask.request.__dict__.get("own", 0) + 1
            self.assertEqual(flask.request.own, 1)

        self.socketio.on("ask")(handler)
        client = self.join()
        client.emit("ask", "first")
        client.emit("ask", "second")
        self.assertEqual(ran, [(kind, event) for event in ("first", "second") for kind in ("request", "app")])

    def test_behindAProxy(self) -> None:
        """The request has the address, scheme and host that the proxy has reported."""
        handshake = OpeningRequest(
            headers={"host": "10.0.0.1:8000", "x-forwarded-host": "example.org"},
            query={},
            url="/socket.io/?a=1",
            address="192.0.2.1",
            secure=True,
            host="example.org",
        )
        with self.app.request_context(environOf(self.app, handshake)):
            self.assertEqual(flask.request.url, "https://example.org/socket.io/?a=1")
            self.assertEqual(flask.request.remote_addr, "192.0.2.1")

    def test_headersWithUnderscores(self) -> None:
        """A client cannot overwrite a header of the proxy by one that WSGI gives the same name."""
        handshake = OpeningRequest(
            headers={"x-user": "alice", "x_user": "admin", "only_mine": "x"},
            query={},
            url="/socket.io/",
            address="192.0.2.1",
            secure=False,
            host="example.org",
        )
        environ = environOf(self.app, handshake)
        self.assertEqual(environ["HTTP_X_USER"], "alice")
        self.assertNotIn("HTTP_ONLY_MINE", environ)

    def test_underscores(self) -> None:
        """A header with underscores does not take the place of a proxy's."""
        client = self.join(headers={"X-User": "ann"})
        headers = {"host": "localhost", "x-user": "ann", "x_user": "admin", "x_other": "admin"}
        handshake = OpeningRequest(
            headers=headers, query={}, url="/", address="192.0.2.1", secure=False, host="localhost"
        )
        environ = environOf(self.app, handshake)
        self.assertEqual((environ["HTTP_X_USER"], environ.get("HTTP_X_OTHER")), ("ann", None))
        self.assertEqual(self.ask(lambda: flask.request.headers["X-User"], client), "ann")

    def test_currentApp(self) -> None:
        """init_app() may be given current_app, which is the application only now."""
        socketio = SocketIO()
        socketio.on("ask")(lambda: flask.current_app.name)
        with self.app.app_context():
            socketio.init_app(flask.current_app)
        client = socketio.test_client(self.app)
        self.assertEqual(client.emit("ask", callback=True), __name__)

    def test_copied(self) -> None:
        """A thread may get a handler's context, and answer its client."""
        client = self.join()

        def handler() -> None:
            session = flask.session
            session["user"] = "ann"
            task = flask.copy_current_request_context(lambda: emit("user", flask.session["user"]))
            self.socketio.start_background_task(task).join(30)

        self.ask(handler, client)
        self.assertEqual(self.received(client), [("user", ["ann"])])

    def login(self) -> Any:
        @self.app.get("/login")
        def login() -> str:
            flask.session["user"] = "ann"
            return ""

        @self.app.get("/user")
        def user() -> str:
            return str(flask.session.get("user"))

        browser = self.app.test_client()
        browser.get("/login")
        return browser

    def test_sessionIsForked(self) -> None:
        """The namespaces of a client share the fork; other clients and HTTP do not."""
        browser = self.login()
        self.socketio.on("connect", "/n")(lambda: None)
        self.socketio.on("ask", "/n")(lambda: flask.session["user"])
        client = self.join(flask_test_client=browser)

        def rename() -> Any:
            name = flask.session["user"]
            flask.session["user"] = "bob"
            return name

        self.assertEqual(self.ask(rename, client), "ann")
        self.assertEqual(self.ask(rename, client), "bob")
        self.assertEqual(self.ask(rename, self.join(flask_test_client=browser)), "ann")
        self.assertEqual(browser.get("/user").text, "ann")

    def test_oneForkOfTheSession(self) -> None:
        """Two first events of a client share one fork."""
        opened: list[Any] = []

        class Slow(flask.sessions.SecureCookieSessionInterface):
            def open_session(self, app: Flask, request: Any) -> Any:
                opened.append(request)
                if len(opened) == 1:
                    client.emit("set")
                return super().open_session(app, request)

        self.app.session_interface = Slow()
        self.socketio.on("set")(lambda: flask.session.update(user="ann"))
        client = self.join()
        self.assertEqual(self.ask(lambda: flask.session.get("user"), client), "ann")
        self.assertEqual(len(opened), 2)

    def test_sessionIsShared(self) -> None:
        """With sessions on the server and manage_session=False both sides see each other's changes."""
        store: dict[str, Any] = {}

        class OnTheServer(flask.sessions.SecureCookieSessionInterface):
            def open_session(self, app: Flask, request: Any) -> Any:
                return flask.sessions.SecureCookieSession(store)

            def save_session(self, app: Flask, session: Any, response: Any) -> None:
                store.update(session)

        self.make(manage_session=False)
        self.app.session_interface = OnTheServer()
        browser = self.login()
        client = self.join()

        def rename() -> Any:
            name = flask.session["user"]
            flask.session["user"] = name + "!"
            return name

        self.assertEqual(self.ask(rename, client), "ann")
        self.assertEqual(browser.get("/user").text, "ann!")
        store["user"] = "bob"
        self.assertEqual(self.ask(rename, client), "bob")

    def test_flaskLogin(self) -> None:
        login = flask_login.LoginManager(self.app)
        user = flask_login.UserMixin()
        user.id = "ann"
        login.user_loader(lambda id: user)

        @self.app.get("/in")
        def enter() -> str:
            flask_login.login_user(user)
            return ""

        @self.socketio.on("connect")
        def connect() -> bool:
            return bool(flask_login.current_user.is_authenticated)

        browser = self.app.test_client()
        self.assertFalse(self.join(flask_test_client=browser).is_connected())
        browser.get("/in")
        client = self.join(flask_test_client=browser)
        self.assertEqual(self.ask(lambda: flask_login.current_user.id, client), "ann")

    def test_jsonModule(self) -> None:
        """Types that only Flask's JSON knows can be sent and returned, and so can bytes."""
        self.make(json=flask.json)
        client = self.join()
        self.socketio.on("ask")(lambda: (date(2026, 1, 2), b"x")[0])
        self.assertEqual(client.emit("ask", callback=True), "Fri, 02 Jan 2026 00:00:00 GMT")
        self.socketio.emit("x", {"day": date(2026, 1, 2)})
        self.socketio.emit("x", b"x")
        day = {"day": "Fri, 02 Jan 2026 00:00:00 GMT"}
        self.assertEqual(self.received(client), [("x", [day]), ("x", [b"x"])])

    def test_jsonModuleThatRevives(self) -> None:
        """A module that revives its own forms does so for received values only."""

        class Module:
            @staticmethod
            def dumps(value: Any) -> str:
                return json.dumps(value, default=lambda day: {"day": day.isoformat()})

            @staticmethod
            def loads(text: str) -> Any:
                return json.loads(text, object_hook=lambda found: date.fromisoformat(found["day"]))

        self.make(json=Module)
        client, today = self.join(), date(2026, 1, 2)
        got: list[Any] = []

        @self.socketio.on("ask")
        def ask(*args: Any) -> Any:
            got.append(args)
            return today, b"x", [bytearray(b"y")]

        answer = client.emit("ask", {"day": "2026-01-02"}, [b"x"], b"y", callback=True)
        self.assertEqual(got, [(today, [b"x"], b"y")])
        self.assertEqual(answer, [{"day": "2026-01-02"}, b"x", [b"y"]])
        self.socketio.emit("x", (today, {"picture": b"x", "when": today}, "x"))
        plain = {"day": "2026-01-02"}
        self.assertEqual(self.received(client), [("x", [plain, {"picture": b"x", "when": plain}, "x"])])

    def test_jsonModuleThatRefuses(self) -> None:
        self.make(json=flask.json)
        self.assertRaises(TypeError, self.socketio.emit, "x", [object(), b"x"])
        endless: list[Any] = []
        endless.append(endless)
        self.assertRaises(ValueError, self.socketio.emit, "x", endless)


class HouseTests(SynchronousTestCase):
    def test_noCircleOfTypes(self) -> None:
        """No module needs another one for types only: the imports run one way."""
        folder = Path(flaskBridge.__file__).parent
        for file in folder.glob("*.py"):
            self.assertNotIn("TYPE_CHECKING", file.read_text("utf-8"), file.name)
