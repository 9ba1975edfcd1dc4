"""
Functions that an application registers on a namespace: handlers, middleware and error handlers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.talk import Recorder, Steps, TalkTestCase, textOf
from txrealtime import (
    ArgumentsMismatch,
    CloseReason,
    ConnectionRejected,
    Incoming,
    Namespace,
    Socket,
    logs,
    on,
)
from txrealtime.logs import Repeats
from txrealtime.testing import Client

current: ContextVar[str] = ContextVar("current", default="unset")

RESERVED = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]


class HandlerTests(TalkTestCase):
    """
    Handlers of events.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.heard: list[Any] = []

    def test_function(self) -> None:
        @self.server.on("say")
        def say(socket: Socket, text: str, *more: Any) -> None:
            self.heard.append((socket, text, more))

        client = self.join(self.server)
        client.emit("say", "hello", 1, {"two": 2})
        socket = self.socketOf(self.server, client)
        self.assertEqual(self.heard, [(socket, "hello", (1, {"two": 2}))])

    def test_decoratorsLeaveTheFunctionAsItIs(self) -> None:
        def function(socket: Socket, *args: Any) -> None: ...

        namespace = Namespace()
        for decorator in (
            namespace.on("say"),
            namespace.onAny,
            namespace.onConnect,
            namespace.onDisconnecting,
            namespace.onDisconnect,
            namespace.onError(),
            namespace.use,
            on("say"),
        ):
            self.assertIs(decorator(function), function)

    def test_inlineCallbacks(self) -> None:
        wait: Deferred[str] = Deferred()

        @self.server.on("ask")
        @inlineCallbacks
        def ask(socket: Socket, question: str) -> Any:
            return (yield wait) + question

        client = self.join(self.server)
        answer = client.call("ask", "?")
        wait.callback("yes")
        client.flush()
        self.assertEqual(self.successResultOf(answer), "yes?")

    def test_sameFunctionTwice(self) -> None:
        """
        A function may be registered again, and in an instance a method, too.
        """

        def ask(socket: Socket) -> str:
            return "yes"

        for _ in range(2):
            self.server.on("ask")(ask)
            self.server.onAny(self.anything)
            self.server.onConnect(ask)
        self.assertEqual(self.successResultOf(self.join(self.server).call("ask")), "yes")

    def anything(self, socket: Socket, event: str) -> None: ...

    def assertSecond(self, what: str, decorator: Callable[..., Any], *names: str) -> None:
        """
        The decorator refuses a second function, and names both with their places; the first stays.
        """

        def first(socket: Socket, *args: Any) -> str:
            return "first"

        def second(socket: Socket, *args: Any) -> str:
            return "second"

        decorator(first)
        error = str(self.assertRaises(ValueError, decorator, second))
        for function in (first, second):
            code = function.__code__
            self.assertIn(f"{function.__qualname__} ({code.co_filename}:{code.co_firstlineno})", error)
        for part in (f"a second {what}", "replace=True", *names):
            self.assertIn(part, error)

    def test_secondHandler(self) -> None:
        server, namespace = self.server, self.server.namespace("/chat")
        self.assertSecond("on('ask')", server.on("ask"))
        self.assertEqual(self.successResultOf(self.join(server).call("ask")), "first")
        self.assertSecond("on('ask')", namespace.on("ask"))
        for owner in (server, namespace):
            self.assertSecond("onAny", owner.onAny)
            self.assertSecond("onConnect", owner.onConnect)
            self.assertSecond("onDisconnecting", owner.onDisconnecting)
            self.assertSecond("onDisconnect", owner.onDisconnect)

    def test_secondHandlerOnTheServersNamespace(self) -> None:
        """
        A server and its default namespace have the same handlers.
        """
        self.server.onConnect(lambda socket: None)
        self.assertRaises(ValueError, self.server.namespace().onConnect, lambda socket: None)

    def test_replace(self) -> None:
        told: list[str] = []
        server = self.server
        for name in ("first", "second"):
            replace = name == "second"
            server.on("ask", replace=replace)(lambda socket, name=name: name)
            server.onAny(lambda socket, event, name=name: name, replace=replace)
            server.onConnect(replace=replace)(lambda socket, *, name=name: told.append(f"{name} in"))
            server.onDisconnecting(replace=replace)(lambda socket, *, name=name: told.append(f"{name} out"))
            server.onDisconnect(replace=replace)(lambda socket, *, name=name: told.append(f"{name} gone"))
        client = self.join(server)
        self.assertEqual(self.successResultOf(client.call("ask")), "second")
        self.assertEqual(self.successResultOf(client.call("any")), "second")
        client.close()
        self.assertEqual(told, ["second in", "second out", "second gone"])
        self.assertRaises(ValueError, server.on("ask"), lambda socket: "third")

    def test_secondOfOtherKinds(self) -> None:
        """
        Functions of one factory, wrapped functions, objects and methods are told apart.
        """

        def make(value: str) -> Callable[..., Any]:
            return lambda socket: value

        @wraps(make)
        def wrapped(socket: Socket) -> str:
            return "wrapped"

        pairs: list[tuple[Any, Any]] = [
            (make("one"), make("two")),
            (Steps(), Steps()),
            (partial(print, 1), partial(print, 2)),
            (HandlerTests("test_function").anything, self.anything),
            (make, wrapped),
            (wrapped, make),
        ]
        for number, (one, two) in enumerate(pairs):
            self.server.on(f"ask{number}")(one)
            error = self.assertRaises(ValueError, self.server.on(f"ask{number}"), two)
            self.assertIn(f"a second on('ask{number}')", str(error))

    def test_moduleThatIsLoadedAgain(self) -> None:
        """
        A function of a module stands at the same place when the module is loaded again, also in a wrapper.
        """
        source = (
            "from functools import wraps\n"
            "def checked(function):\n"
            "    @wraps(function)\n"
            "    def wrapper(socket): return function(socket)\n"
            "    return wrapper\n"
            "@server.on('ask')\n"
            "def ask(socket): return ANSWER\n"
            "@server.on('checked')\n"
            "@checked\n"
            "def alike(socket): return ANSWER\n"
        )
        for answer in ("old", "new"):
            code = compile(source, "application.py", "exec")
            exec(code, {"server": self.server, "ANSWER": answer, "__name__": "application"})
        client = self.join(self.server)
        self.assertEqual(self.successResultOf(client.call("ask")), "new")
        self.assertEqual(self.successResultOf(client.call("checked")), "new")
        moved = compile("\n" + source, "application.py", "exec")
        names = {"server": self.server, "ANSWER": "moved", "__name__": "application"}
        error = self.assertRaises(ValueError, exec, moved, names)
        self.assertIn("ask (application.py:7) would replace ask (application.py:6)", str(error))

    def test_registeredLater(self) -> None:
        client = self.join(self.server)
        self.server.on("ask")(lambda socket: "yes")
        self.assertEqual(self.successResultOf(client.call("ask")), "yes")

    def test_unknownEvent(self) -> None:
        """
        An event without a handler is ignored, and not acked.  The log names it once, and those with handlers.
        """
        self.server.on("ask")(lambda socket: "yes")
        self.server.on("answer")(lambda socket: "yes")
        client = self.join(self.server)
        with capturedLogs() as events:
            for _ in range(3):
                self.assertNoResult(client.call("ansver\x1b"))
        self.assertEqual(
            [formatEvent(event) for event in events],
            [r"/: no handler for the event 'ansver\x1b'; handlers are registered for 'answer', 'ask'"],
        )
        self.assertIsNone(client.transport.closed)

    def test_unknownEvents(self) -> None:
        """A client's many names fill neither the log nor the memory; a name not shown is shown later."""
        repeats = Repeats(self.server.reactor.seconds)
        self.patch(logs, "repeats", repeats)
        client = self.join(self.server)
        with capturedLogs() as events:
            for number in range(5000):
                client.emit(f"made up {number}")
        self.assertEqual(len([event for event in events if "handled" in event]), 12)
        self.assertLessEqual(len(self.server.namespace()._dispatcher._unhandled), 100)
        self.assertEqual(len(repeats._kinds), 1)
        with capturedLogs() as events:
            client.emit("made up 0")
            self.server.reactor.advance(60)  # type: ignore[attr-defined]
            client.emit("made up 4998")
        self.assertEqual(["'made up 4998'" in str(formatEvent(event)) for event in events], [True])

    def test_ackThatCannotBeSent(self) -> None:
        """The log names the event and the handler, at once and later."""
        later: Deferred[object] = Deferred()

        @self.server.on("now")
        def now(socket: Socket) -> object:
            return object

        @self.server.on("later")
        def after(socket: Socket) -> Deferred[object]:
            return later

        client = self.join(self.server)
        for event, name in (("now", "now"), ("later", "after")):
            with capturedLogs() as events:
                self.assertNoResult(client.call(event))
                if event == "later":
                    later.callback(object)
            line = str(formatEvent(events[0]))
            self.assertIn(f"<locals>.{name} for the event {event!r} cannot be sent as an ack", line)
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_numericName(self) -> None:
        """
        To JavaScript, the event 1 and the event "1" are the same.
        """
        self.server.on("1")(lambda socket, *args: self.heard.append(args))
        self.sendText(self.join(self.server), '2[1,"x"]')
        self.assertEqual(self.heard, [("x",)])

    def test_message(self) -> None:
        """
        `send()` at the other end is the event `message`.
        """
        self.server.on("message")(lambda socket, text: self.heard.append(text))
        self.sendText(self.join(self.server), '2["message","hi"]')
        self.assertEqual(self.heard, ["hi"])

    def test_catchAll(self) -> None:
        @self.server.onAny
        def anything(socket: Socket, event: str, *args: Any) -> str:
            self.heard.append((event, args))
            return "caught"

        self.server.on("known")(lambda socket: "known")
        client = self.join(self.server)
        self.assertEqual(self.successResultOf(client.call("known")), "known")
        self.assertEqual(self.successResultOf(client.call("other", 1)), "caught")
        self.assertEqual(self.heard, [("other", (1,))])

    def test_attributesAreNotHandlers(self) -> None:
        """
        The name of a client's event is never looked up among a namespace's attributes.
        """
        namespace = Recorder()
        self.server.mount("/recorder", namespace)
        client = self.join(self.server, "/recorder")
        namespace.take()
        for name in ("connected", "disconnected", "take", "emit", "__init__", "path", "_handlers"):
            self.assertNoResult(client.call(name, namespace="/recorder"))
        self.assertEqual(namespace.take(), [])

    def test_reservedNames(self) -> None:
        """
        Names that are events on other servers are refused, with the right way on this one.
        """
        for name, right in {
            "connect": ("@server.onConnect", "connected(self, socket, auth)"),
            "connection": ("@server.onConnect", "connected(self, socket, auth)"),
            "disconnect": ("@server.onDisconnect,", "disconnected(self, socket, reason)"),
            "disconnecting": ("@server.onDisconnecting", "disconnecting(self, socket, reason)"),
            "connect_error": ("ConnectionRejected",),
            "connection_error": ("allowRequest",),
            "new_namespace": ("server.mount",),
            "newListener": ("another name",),
            "removeListener": ("another name",),
            "*": ("@server.onAny",),
        }.items():
            for decorator in (self.server.on, self.server.namespace("/x").on, on):
                error = self.assertRaises(ValueError, decorator, name)
                for part in (name, *right):
                    self.assertIn(part, str(error))
        for name in RESERVED:
            self.assertRaises(ValueError, on, name)

    def test_nameIsAString(self) -> None:
        """
        `@server.on` without the parentheses is told at once.
        """
        error = self.assertRaises(TypeError, self.server.on, lambda socket: None)
        self.assertIn("event's name", str(error))

    def test_handlerWithoutASocket(self) -> None:
        self.assertRaises(TypeError, self.server.on("say"), lambda: None)
        self.assertRaises(TypeError, self.server.onAny, lambda socket: None)
        self.assertRaises(TypeError, self.server.use, lambda incoming: None)
        self.assertRaises(TypeError, self.server.onError(), lambda: None)

    def test_hooksThatNeedMore(self) -> None:
        """
        A hook of python-socketio's shape, with `sid, environ, auth`, would fail for each client.
        """

        class Door(Namespace):
            def connected(self, sid: str, environ: Any, auth: Any) -> None:  # type: ignore[override]
                """Refuse nobody."""

        for register in (self.server.onConnect, self.server.onDisconnecting, self.server.onDisconnect):
            error = self.assertRaises(TypeError, register, lambda sid, environ, auth: None)
            self.assertIn("takes 3 arguments, but is called with 2 at most", str(error))
        self.assertRaises(TypeError, self.server.use, lambda socket, event, proceed: None)
        self.assertRaises(TypeError, self.server.onError(), lambda socket, error, event, more: None)
        self.assertRaises(TypeError, Door)

    def test_notCallable(self) -> None:
        self.assertRaises(TypeError, self.server.on("say"), "say")

    def test_repr(self) -> None:
        self.assertEqual(repr(Namespace()), "<Namespace (not mounted)>")
        self.assertEqual(repr(self.server.namespace("/chat")), "<Namespace /chat>")

    def test_concurrency(self) -> None:
        for wrong in (0, -1, "3", True, float("nan")):
            error = self.assertRaises(ValueError, Namespace, wrong)
            self.assertIn("concurrency is", str(error))

    def test_contextVariablesDoNotLeak(self) -> None:
        """
        A context variable set by one `async` handler is not set in another, and keeps its value over a wait.
        """
        waits: dict[str, Deferred[None]] = {"alice": Deferred(), "bob": Deferred()}

        @self.server.on("enter")
        async def enter(socket: Socket, name: str) -> tuple[str, str]:
            before = current.get()
            current.set(name)
            await waits[name]
            return before, current.get()

        alice, bob = self.join(self.server), self.join(self.server)
        answers = [alice.call("enter", "alice"), bob.call("enter", "bob")]
        waits["bob"].callback(None)
        waits["alice"].callback(None)
        alice.flush()
        bob.flush()
        self.assertEqual(
            [self.successResultOf(answer) for answer in answers], [("unset", "alice"), ("unset", "bob")]
        )
        self.assertEqual(current.get(), "unset")


class Greeter(Namespace):
    """A class with handlers, as an application writes it."""

    def __init__(self, greeting: str) -> None:
        super().__init__()
        self.greeting = greeting

    @on("greet")
    def greet(self, socket: Socket, name: str) -> str:
        return f"{self.greeting}, {name}"

    @on("one")
    @on("two")
    async def either(self, socket: Socket) -> str:
        return await succeed("either")

    @on("static")
    @staticmethod
    def static(socket: Socket) -> str:
        return "static"

    def helper(self, socket: Socket) -> str:
        return "not for peers"


class Loud(Greeter):
    def greet(self, socket: Socket, name: str) -> str:
        return super().greet(socket, name).upper()

    @on("extra")
    def extra(self, socket: Socket) -> str:
        return "extra"


class Other(Greeter):
    @on("one")
    def other(self, socket: Socket) -> str:
        return "other"


class ClassTests(TalkTestCase):
    """
    Namespaces written as a class.
    """

    def answers(self, namespace: Namespace) -> Callable[..., Any]:
        server = self.makeServer()
        server.mount("/it", namespace)
        client = self.join(server, "/it")
        return lambda *args: self.successResultOf(client.call(*args, namespace="/it"))

    def test_marked(self) -> None:
        ask = self.answers(Greeter("hello"))
        self.assertEqual(ask("greet", "bob"), "hello, bob")
        self.assertEqual(ask("one"), "either")
        self.assertEqual(ask("two"), "either")
        self.assertEqual(ask("static"), "static")

    def test_unmarked(self) -> None:
        self.assertRaises(self.failureException, self.answers(Greeter("hello")), "helper")

    def test_inheritedAndOverridden(self) -> None:
        """
        The overriding method needs no mark of its own.
        """
        ask = self.answers(Loud("hello"))
        self.assertEqual(ask("greet", "bob"), "HELLO, BOB")
        self.assertEqual(ask("one"), "either")
        self.assertEqual(ask("extra"), "extra")

    def test_subclassTakesAnEvent(self) -> None:
        ask = self.answers(Other("hello"))
        self.assertEqual(ask("one"), "other")
        self.assertEqual(ask("two"), "either")

    def test_functionWinsOverMethod(self) -> None:
        namespace = Greeter("hello")
        namespace.on("one")(lambda socket: "function")
        self.assertRaises(ValueError, namespace.on("one"), lambda socket: "another")
        self.assertEqual(self.answers(namespace)("one"), "function")

    def test_twoMethodsForOneEvent(self) -> None:
        """
        Two methods of one class are refused; a subclass's method may take an event from a method of its base.
        """

        def define(**options: Any) -> type[Namespace]:
            class Game(Namespace):
                @on("ask")
                def first(self, socket: Socket) -> str:
                    return "first"

                @on("ask", **options)
                def second(self, socket: Socket) -> str:
                    return "second"

            return Game

        error = str(self.assertRaises(ValueError, define))
        for part in ("a second on('ask')", "Game.first (", "Game.second (", "test_namespace.py:"):
            self.assertIn(part, error)
        self.assertEqual(self.answers(define(replace=True)())("ask"), "second")

    def test_instancesAreIndependent(self) -> None:
        first, second = Greeter("hello"), Greeter("good day")
        first.on("one")(lambda socket: "first's")
        self.assertEqual(self.answers(second)("one"), "either")
        self.assertEqual(self.answers(first)("greet", "bob"), "hello, bob")

    def test_wrongMethodsAreToldAtOnce(self) -> None:
        class Wrong(Namespace):
            @on("say")
            def say(self, socket: Socket, *, text: str) -> None: ...

        self.assertRaises(TypeError, Wrong)


class ArityTests(TalkTestCase):
    """
    Arguments that do not fit the handler's signature.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.calls: list[Any] = []

        @self.server.on("say")
        def say(socket: Socket, text: str, size: int = 1) -> str:
            self.calls.append((text, size))
            return "said"

    def assertMismatch(self, *args: Any) -> None:
        client = self.join(self.server)
        with capturedLogs() as events:
            self.assertNoResult(client.call("say", *args))
        self.assertEqual(self.calls, [])
        self.assertEqual(len(events), 1)
        self.assertEqual(events[0]["log_level"], LogLevel.warn)
        self.assertNotIn("log_failure", events[0])
        text = textOf(events)
        self.assertNotIn("\n", text)
        for part in ("/", client.id(), "'say'", "say takes 2 to 3 arguments"):
            self.assertIn(part, text)
        self.assertNotIn("hush", text)
        self.assertIsNone(client.transport.closed)

    def test_tooFew(self) -> None:
        self.assertMismatch()

    def test_tooMany(self) -> None:
        self.assertMismatch("hush", 2, 3)

    def test_fits(self) -> None:
        client = self.join(self.server)
        self.assertEqual(self.successResultOf(client.call("say", "a")), "said")
        self.assertEqual(self.successResultOf(client.call("say", "a", 2)), "said")

    def test_behindMiddleware(self) -> None:
        self.server.use(lambda incoming, proceed: proceed(incoming))
        self.assertMismatch("hush", 2, 3)

    def test_catchAll(self) -> None:
        self.server.onAny(lambda socket, event, one: self.calls.append(one))
        client = self.join(self.server)
        with capturedLogs() as events:
            client.emit("other")
        self.assertEqual(self.calls, [])
        self.assertEqual(len(events), 1)

    def test_typeErrorOfTheHandlerIsItsOwn(self) -> None:
        """
        A handler is never called twice to find out what it takes.
        """

        @self.server.on("broken")
        def broken(socket: Socket) -> None:
            self.calls.append("called")
            raise TypeError("broken() takes 0 positional arguments but 1 was given")

        self.join(self.server).emit("broken")
        self.assertEqual(self.calls, ["called"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_longNamesAreCutInTheLog(self) -> None:
        self.server.onAny(lambda socket, event: None)
        client = self.join(self.server)
        with capturedLogs() as events:
            client.emit("x" * 10000, 1)
        self.assertLess(len(textOf(events)), 500)


class MiddlewareTests(TalkTestCase):
    """
    Middleware around events.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.steps: list[Any] = []

        @self.server.on("say")
        def say(socket: Socket, *args: Any) -> Any:
            self.steps.append(("handler", *args))
            return args

        self.client: Client = self.join(self.server)

    def use(self, name: str) -> None:
        @self.server.use
        async def step(incoming: Incoming, proceed: Callable[[Incoming], Deferred[Any]]) -> Any:
            self.steps.append(f"{name} in")
            result = await proceed(incoming)
            self.steps.append(f"{name} out")
            return result

    def test_order(self) -> None:
        """
        The first registered is the outermost.
        """
        self.use("outer")
        self.use("inner")
        self.assertEqual(self.successResultOf(self.client.call("say", 1)), 1)
        self.assertEqual(self.steps, ["outer in", "inner in", ("handler", 1), "inner out", "outer out"])

    def test_seesTheEvent(self) -> None:
        seen: list[Incoming] = []

        @self.server.use
        def look(incoming: Incoming, proceed: Any) -> Any:
            seen.append(incoming)
            return proceed(incoming)

        self.client.emit("say", 1, b"2")
        self.assertEqual(seen, [(self.socketOf(self.server, self.client), "say", [1, b"2"])])

    def test_changesArguments(self) -> None:
        @self.server.use
        def double(incoming: Incoming, proceed: Any) -> Any:
            return proceed(incoming._replace(args=[2 * arg for arg in incoming.args]))

        self.assertEqual(self.successResultOf(self.client.call("say", 1, 2)), (2, 4))

    def test_changesTheEvent(self) -> None:
        self.server.use(lambda incoming, proceed: proceed(incoming._replace(event="say")))
        self.assertEqual(self.successResultOf(self.client.call("anything", 1)), 1)

    def test_changesTheAck(self) -> None:
        self.server.use(lambda incoming, proceed: proceed(incoming).addCallback(lambda result: "changed"))
        self.assertEqual(self.successResultOf(self.client.call("say", 1)), "changed")

    def test_answersItself(self) -> None:
        self.server.use(lambda incoming, proceed: "forbidden")
        self.assertEqual(self.successResultOf(self.client.call("say", 1)), "forbidden")
        self.assertEqual(self.steps, [])

    def test_refusesByRaising(self) -> None:
        for refuse in (self.raiseNow, self.raiseLater):
            server = self.makeServer()
            server.on("say")(lambda socket: self.steps.append("not reached"))
            server.use(refuse)
            client = self.join(server)
            self.assertNoResult(client.call("say"))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertTrue(client.isConnected())
        self.assertEqual(self.steps, [])

    def raiseNow(self, incoming: Incoming, proceed: Any) -> None:
        raise ZeroDivisionError

    async def raiseLater(self, incoming: Incoming, proceed: Any) -> None:
        await succeed(None)
        raise ZeroDivisionError

    def test_refusalAsAnAck(self) -> None:
        self.server.use(self.raiseNow)
        self.server.onError(ZeroDivisionError)(lambda socket, error: {"error": "no"})
        self.assertEqual(self.successResultOf(self.client.call("say")), {"error": "no"})

    def test_seesTheHandlersError(self) -> None:
        @self.server.on("fail")
        def failing(socket: Socket) -> None:
            raise ZeroDivisionError

        @self.server.use
        async def rescue(incoming: Incoming, proceed: Any) -> Any:
            try:
                return await proceed(incoming)
            except ZeroDivisionError:
                return "rescued"

        self.assertEqual(self.successResultOf(self.client.call("fail")), "rescued")

    def test_waits(self) -> None:
        """
        An event that waits in the middleware keeps the next one waiting.
        """
        waits: list[Deferred[None]] = []

        @self.server.use
        async def slowly(incoming: Incoming, proceed: Any) -> Any:
            waits.append(Deferred())
            await waits[-1]
            return await proceed(incoming)

        self.client.emit("say", 1)
        self.client.emit("say", 2)
        self.assertEqual(len(waits), 1)
        waits[0].callback(None)
        self.assertEqual(self.steps, [("handler", 1)])
        waits[1].callback(None)
        self.assertEqual(self.steps, [("handler", 1), ("handler", 2)])

    def test_unknownEventIsNotAcked(self) -> None:
        self.use("any")
        self.assertNoResult(self.client.call("nobody"))
        self.assertEqual(self.steps, ["any in", "any out"])

    def test_contextIsTheHandlers(self) -> None:
        """
        A context variable set by middleware is set in the handler, and nowhere else.
        """

        @self.server.use
        async def name(incoming: Incoming, proceed: Any) -> Any:
            current.set(incoming.args[0])
            return await proceed(incoming)

        @self.server.on("whoami")
        async def whoami(socket: Socket, name: str) -> str:
            return current.get()

        self.assertEqual(self.successResultOf(self.client.call("whoami", "alice")), "alice")
        self.assertEqual(self.successResultOf(self.client.call("whoami", "bob")), "bob")
        self.assertEqual(current.get(), "unset")


class ErrorTests(TalkTestCase):
    """
    Handlers that raise.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.client: Client = self.join(self.server)

    def failing(self, *errors: Exception) -> None:
        """
        Handlers of `fail0`, `fail1` ..., one for each way to fail of each error.
        """
        number = 0
        for error in errors:
            for handler in (self.plain(error), self.deferred(error), self.coroutine(error)):
                self.server.on(f"fail{number}")(handler)
                number += 1

    def plain(self, error: Exception) -> Any:
        def handler(socket: Socket, *args: Any) -> None:
            raise error

        return handler

    def deferred(self, error: Exception) -> Any:
        return lambda socket, *args: fail(error)

    def coroutine(self, error: Exception) -> Any:
        async def handler(socket: Socket, *args: Any) -> None:
            await succeed(None)
            raise error

        return handler

    def test_loggedNotAckedAndTheSocketStays(self) -> None:
        self.failing(ZeroDivisionError("oh"))
        for number in range(3):
            with capturedLogs() as events:
                self.assertNoResult(self.client.call(f"fail{number}", "hush", {"password": "hush"}))
            self.assertEqual(len(events), 1)
            [event] = events
            self.assertEqual(event["log_namespace"], "txrealtime.socketio.namespace")
            self.assertEqual(event["namespace"], "/")
            self.assertEqual(event["socket"], self.client.id())
            self.assertEqual(event["event"], f"fail{number}")
            self.assertIsInstance(event["log_failure"].value, ZeroDivisionError)
            text = textOf(events)
            for part in ("/", self.client.id(), f"fail{number}", "ZeroDivisionError: oh"):
                self.assertIn(part, text)
            self.assertNotIn("hush", text)
            self.assertNotIn(self.client.session.sid, text)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.client.isConnected())

    def test_tracebackShowsTheHandler(self) -> None:
        self.failing(ZeroDivisionError())
        with capturedLogs() as events:
            self.client.emit("fail0")
            self.client.emit("fail2")
        self.flushLoggedErrors()
        for event in events:
            self.assertIn("test_namespace", event["log_failure"].getTraceback())

    def test_errorHandlersAnswerIsTheAck(self) -> None:
        self.failing(ZeroDivisionError("oh"))
        seen: list[Any] = []

        @self.server.onError(ZeroDivisionError)
        def sorry(socket: Socket, error: Exception, event: str) -> dict[str, str]:
            seen.append((socket.id, event))
            return {"error": str(error)}

        for number in range(3):
            answer = self.successResultOf(self.client.call(f"fail{number}"))
            self.assertEqual(answer, {"error": "oh"})
        self.assertEqual(seen, [(self.client.id(), f"fail{number}") for number in range(3)])

    def test_errorHandlersByKind(self) -> None:
        self.failing(ZeroDivisionError(), KeyError(), OSError())
        self.server.onError(KeyError, ArithmeticError)(lambda socket, error: "known")
        self.server.onError()(lambda socket, error: "any")
        self.server.onError(OSError)(lambda socket, error: "too late")
        answers = [self.successResultOf(self.client.call(f"fail{number}")) for number in range(9)]
        self.assertEqual(answers, ["known"] * 6 + ["any"] * 3)

    def test_errorHandlerOfNoKind(self) -> None:
        """
        `@server.onError` without the parentheses would register nothing.
        """
        for wrong in (lambda socket, error: None, "KeyError", KeyError(), int):
            error = self.assertRaises(TypeError, self.server.onError, wrong)
            self.assertIn("@onError()", str(error))

    def test_errorHandlerForOthers(self) -> None:
        self.failing(ZeroDivisionError())
        self.server.onError(KeyError)(lambda socket, error: "not this")
        self.assertNoResult(self.client.call("fail0"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_asyncErrorHandler(self) -> None:
        self.failing(ZeroDivisionError())
        wait: Deferred[None] = Deferred()

        @self.server.onError()
        async def sorry(socket: Socket, error: Exception) -> str:
            await wait
            return "sorry"

        answers = [self.client.call(f"fail{number}") for number in range(3)]
        self.assertNoResult(answers[0])
        wait.callback(None)
        self.client.flush()
        self.assertEqual([self.successResultOf(answer) for answer in answers], ["sorry"] * 3)

    def test_errorHandlerFails(self) -> None:
        """
        The error handler's error is logged in place of the handler's.
        """
        self.failing(ZeroDivisionError())
        self.server.onError(ZeroDivisionError)(lambda socket, error: {}["missing"])
        for number in range(3):
            self.assertNoResult(self.client.call(f"fail{number}"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 3)

    def test_asyncErrorHandlerFails(self) -> None:
        self.failing(ZeroDivisionError())

        @self.server.onError()
        async def sorry(socket: Socket, error: Exception) -> None:
            await succeed(None)
            raise KeyError

        self.server.on("fine")(lambda socket: "fine")
        for number in range(3):
            with capturedLogs() as events:
                self.assertNoResult(self.client.call(f"fail{number}"))
            self.assertIn(f"the handler of 'fail{number}' failed", textOf(events))
            self.assertEqual(self.successResultOf(self.client.call("fine")), "fine")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 3)

    def test_mismatchReachesErrorHandlers(self) -> None:
        """
        Error handlers get the mismatch, and their result is the ack.
        """
        self.server.on("say")(lambda socket, text: text)
        self.server.onError(ArgumentsMismatch)(lambda socket, error: "wrong arguments")
        self.assertEqual(self.successResultOf(self.client.call("say")), "wrong arguments")

    def test_onDisconnectFails(self) -> None:
        """
        Errors are logged and change nothing: both hooks are called.
        """
        self.server.onDisconnecting(lambda socket: 1 / 0)

        @self.server.onDisconnect
        async def disconnected(socket: Socket) -> None:
            await succeed(None)
            raise KeyError

        with capturedLogs() as events:
            self.client.close()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertIn("disconnected failed", textOf(events))


class ComingAndGoingTests(TalkTestCase):
    """
    `connected`, `disconnecting` and `disconnected`.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()
        self.lobby = Recorder()
        self.server.mount("/lobby", self.lobby)

    def test_roomsAreKnownUntilItHasLeft(self) -> None:
        client = self.join(self.server, "/lobby")
        id = client.id("/lobby")
        self.lobby.sockets[id].join("red")
        client.close()
        self.assertEqual(
            self.lobby.take(),
            [
                ("connected", id, None),
                ("disconnecting", id, CloseReason.TRANSPORT_CLOSE, {id, "red"}),
                ("disconnected", id, CloseReason.TRANSPORT_CLOSE, frozenset()),
            ],
        )

    def test_goodbyeToTheRoom(self) -> None:
        """
        `disconnecting` may still tell the rooms, and its own socket gets nothing more.
        """
        self.lobby.onConnect(lambda socket: socket.join("red"))

        @self.lobby.onDisconnecting
        def disconnecting(socket: Socket) -> None:
            socket.to(*socket.rooms).emit("left", socket.id)
            self.lobby.emit("left")

        alice, bob = self.join(self.server, "/lobby"), self.join(self.server, "/lobby")
        gone = alice.id("/lobby")
        alice.disconnect("/lobby")
        self.assertEqual(bob.received("/lobby"), [("left", gone), ("left",)])
        self.assertEqual(alice.received("/lobby"), [])

    def test_onceWhateverHappens(self) -> None:
        client = self.join(self.server, "/lobby")
        socket = self.socketOf(self.server, client, "/lobby")

        @self.lobby.onDisconnecting
        def disconnecting(socket: Socket, reason: CloseReason) -> None:
            self.lobby.calls.append(("disconnecting", reason))
            socket.disconnect()
            socket.disconnect(close=True)
            client.close()

        self.lobby.take()
        client.disconnect("/lobby")
        socket.disconnect(close=True)
        client.close()
        self.assertEqual(
            [(call[0], call[-1]) for call in self.lobby.take()],
            [("disconnecting", CloseReason.CLIENT_DISCONNECT), ("disconnected", frozenset())],
        )
        self.assertEqual(socket._leftBecause, CloseReason.CLIENT_DISCONNECT)

    def test_joinWhileLeaving(self) -> None:
        """
        A room joined in the last moment is left like the others.
        """
        self.lobby.onDisconnecting(lambda socket: socket.join("last"))
        self.lobby.onDisconnect(lambda socket: socket.join("later"))
        self.join(self.server, "/lobby").close()
        self.assertEqual(list(self.lobby.rooms), [])

    def test_falseRefuses(self) -> None:
        """
        `False` refuses, as on other servers; no other false value does.
        """

        async def later(value: Any) -> Any:
            return await succeed(value)

        for value in (False, None, 0, "", [], True):
            for hook in (
                lambda socket, auth, value=value: value,
                lambda socket, auth, value=value: succeed(value),
                lambda socket, auth, value=value: later(value),
            ):
                self.lobby.onConnect(hook, replace=True)
                client = self.makeClient(self.server)
                joined = client.connect("/lobby")
                if value is False:
                    error = self.failureResultOf(joined, ConnectionRejected).value
                    self.assertEqual(error.message, "Connection rejected by server")
                    self.assertEqual(self.lobby.sockets, {})
                else:
                    self.successResultOf(joined)
                    client.close()
        self.assertEqual({call[0] for call in self.lobby.take()}, {"disconnecting", "disconnected"})

    def test_falseOfNumpy(self) -> None:
        """
        The comparisons of numpy give values of its own, whose `False` refuses.
        """

        def valueOf(name: str, module: str, truth: bool) -> Any:
            return type(name, (), {"__module__": module, "__bool__": lambda self: truth})()

        for name, module, truth, admits in (
            ("bool_", "numpy", False, False),
            ("bool", "numpy", False, False),
            ("bool", "numpy", True, True),
            ("int64", "numpy", False, True),
            ("bool", "shop", False, True),
        ):
            value = valueOf(name, module, truth)
            self.lobby.onConnect(lambda socket, auth, value=value: value, replace=True)
            joined = self.makeClient(self.server).connect("/lobby")
            if admits:
                self.successResultOf(joined)
            else:
                self.failureResultOf(joined, ConnectionRejected)

    def test_unfinishedAnswerRefuses(self) -> None:
        """
        A coroutine without `await`, a future or a generator is true, and must not let anybody in.
        """

        async def check() -> bool:
            return False

        async def unfinished(value: Any) -> Any:
            return value

        def lazy() -> Generator[bool, None, None]:
            yield False

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        coroutine = check()
        self.addCleanup(coroutine.close)
        for answer in (loop.create_future(), lazy(), unfinished(coroutine), unfinished(loop.create_future())):
            self.lobby.onConnect(lambda socket, auth, answer=answer: answer, replace=True)
            joined = self.makeClient(self.server).connect("/lobby")
            self.failureResultOf(joined, ConnectionRejected)
            [error] = self.flushLoggedErrors(TypeError)
            self.assertIn("that nothing waits for: await it", str(error.value))
        self.assertEqual(self.lobby.sockets, {})

    def test_falseOfAMethodRefuses(self) -> None:
        self.lobby.admission = False
        joined = self.makeClient(self.server).connect("/lobby")
        self.failureResultOf(joined, ConnectionRejected)
        self.lobby.admission = admission = Deferred()
        joined = self.makeClient(self.server).connect("/lobby")
        admission.callback(False)
        self.clients[-1].flush()
        self.failureResultOf(joined, ConnectionRejected)
        self.assertEqual([call[0] for call in self.lobby.take()], ["connected", "connected"])

    def test_asyncDisconnected(self) -> None:
        wait: Deferred[None] = Deferred()
        told: list[str] = []

        @self.lobby.onDisconnect
        async def disconnected(socket: Socket, reason: CloseReason) -> None:
            await wait
            told.append(reason)

        self.join(self.server, "/lobby").close()
        self.assertEqual(told, [])
        wait.callback(None)
        self.assertEqual(told, ["transport close"])

    def test_withoutTheSecondArgument(self) -> None:
        calls: list[Any] = []
        self.lobby.onConnect(lambda socket: calls.append("connect"))
        self.lobby.onDisconnecting(lambda socket: calls.append("disconnecting"))
        self.lobby.onDisconnect(lambda socket: calls.append("disconnect"))
        self.join(self.server, "/lobby").close()
        self.assertEqual(calls, ["connect", "disconnecting", "disconnect"])

    def test_withoutASocket(self) -> None:
        for register in (self.lobby.onConnect, self.lobby.onDisconnecting, self.lobby.onDisconnect):
            self.assertRaises(TypeError, register, lambda: None)

    def test_aHandlerThatRunsOnSeesItGone(self) -> None:
        steps = Steps()
        self.lobby.on("step")(steps)
        client = self.join(self.server, "/lobby")
        socket = self.socketOf(self.server, client, "/lobby")
        client.emit("step", namespace="/lobby")
        client.close()
        self.assertFalse(socket.connected)
        socket.emit("nothing")
        steps.waits[0].callback(None)


class AckTests(TalkTestCase):
    """
    A handler's result is the ack.
    """

    def acked(self, handler: Callable[..., Any], *args: Any, **options: Any) -> Any:
        server = self.makeServer(**options)
        server.on("ask")(handler)
        client = self.join(server)
        return self.successResultOf(client.call("ask", *args))

    def acksOnTheWire(self, handler: Callable[..., Any]) -> list[str | bytes]:
        server = self.makeServer()
        server.on("ask")(handler)
        client = self.join(server)
        self.sendText(client, '20["ask"]')
        return self.wireOf(client)

    def test_nothing(self) -> None:
        self.assertEqual(self.acksOnTheWire(lambda socket: None), ["30[]"])

    def test_value(self) -> None:
        self.assertEqual(self.acksOnTheWire(lambda socket: "yes"), ['30["yes"]'])
        self.assertEqual(self.acksOnTheWire(lambda socket: 0), ["30[0]"])
        self.assertEqual(self.acksOnTheWire(lambda socket: False), ["30[false]"])
        self.assertEqual(self.acksOnTheWire(lambda socket: ""), ['30[""]'])

    def test_tuple(self) -> None:
        self.assertEqual(self.acksOnTheWire(lambda socket: ("yes", 1)), ['30["yes",1]'])
        self.assertEqual(self.acksOnTheWire(lambda socket: ()), ["30[]"])
        self.assertEqual(self.acksOnTheWire(lambda socket: (None,)), ["30[null]"])

    def test_list(self) -> None:
        self.assertEqual(self.acksOnTheWire(lambda socket: ["yes", 1]), ['30[["yes",1]]'])
        self.assertEqual(self.acksOnTheWire(lambda socket: []), ["30[[]]"])

    def test_binary(self) -> None:
        self.assertEqual(
            self.acksOnTheWire(lambda socket: {"image": b"png"}),
            ['61-0[{"image":{"_placeholder":true,"num":0}}]', b"png"],
        )

    def test_inANamespace(self) -> None:
        server = self.makeServer()
        server.namespace("/chat").on("ask")(lambda socket: "yes")
        client = self.join(server, "/chat")
        self.sendText(client, '2/chat,7["ask"]')
        self.assertEqual(self.wireOf(client), ['3/chat,7["yes"]'])

    def test_notAsked(self) -> None:
        server = self.makeServer()
        server.on("ask")(lambda socket: "yes")
        client = self.join(server)
        self.sendText(client, '2["ask"]')
        self.assertEqual(self.wireOf(client), [])

    def test_deferredAndAsync(self) -> None:
        async def handler(socket: Socket, number: int) -> int:
            return await succeed(number) + 1

        self.assertEqual(self.acked(handler, 1), 2)
        self.assertEqual(self.acked(lambda socket, number: succeed(number + 1), 1), 2)

    def test_binaryThere(self) -> None:
        self.assertEqual(
            self.acked(lambda socket, value: value, {"a": [b"1", {"b": b"2"}], "c": None}),
            {"a": [b"1", {"b": b"2"}], "c": None},
        )

    def test_afterTheClientLeft(self) -> None:
        server = self.makeServer()
        steps = Steps()
        server.on("step")(steps)
        client = self.join(server)
        client.call("step", 1)
        client.disconnect()
        self.successResultOf(client.connect())
        steps.waits[0].callback("late")
        self.assertEqual(self.wireOf(client), [])

    def test_cannotBeSent(self) -> None:
        """
        A result that cannot be sent is the handler's error: logged, not acked, and the client stays.
        """
        server = self.makeServer()
        server.on("ask")(lambda socket, value: {"value": {1, 2}, "secret": "hush"})
        server.on("nan")(lambda socket: succeed(float("nan")))
        server.on("fine")(lambda socket: "fine")
        client = self.join(server)
        with capturedLogs() as events:
            asked = [client.call("ask", "confidential"), client.call("nan")]
        for answer in asked:
            self.assertNoResult(answer)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertIn(client.id(), textOf(events))
        self.assertNotIn("hush", textOf(events))
        self.assertNotIn("confidential", textOf(events))
        self.assertEqual(self.successResultOf(client.call("fine")), "fine")
