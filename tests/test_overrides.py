"""
Classes of namespaces that a server refuses to mount, because a method of theirs would have no effect.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial, partialmethod
from typing import Any, Generic, TypeVar
from unittest.mock import Mock

from twisted.internet.defer import inlineCallbacks, succeed

from tests.talk import TalkTestCase
from txrealtime import ConnectionRejected, Namespace, Socket, on
from txrealtime.socketio import overrides
from txrealtime.socketio.registry import DECORATORS, Decorators

T = TypeVar("T")


class Kind(Namespace):
    """A namespace that lets nobody in."""

    def connected(self, socket: Socket, auth: Any) -> None:
        raise ConnectionRejected("kind")


def hiding(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Decorate a function and copy nothing of it.
    """
    return lambda *args: function(*args)


def copying(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Decorate a function as decorators should.
    """

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class OverrideTestCase(TalkTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.makeServer()

    def assertRefused(self, namespace: Namespace, *parts: str) -> None:
        """
        The server refuses to mount a namespace, with some words in the message, and has no part of it left.
        """
        error = self.assertRaises(TypeError, self.server.mount, "/it", namespace)
        for part in parts:
            self.assertIn(part, str(error))
        self.assertNotIn("/it", [each.path for each in self.server.namespaces])
        self.assertEqual(vars(namespace).get("_home"), None)

    def assertClassRefused(self, kind: type[Namespace], *parts: str) -> None:
        """
        The server refuses an instance at a path, and the class at a pattern already when it is mounted.
        """
        self.assertRefused(kind(), *parts)
        error = self.assertRaises(TypeError, self.server.mount, re.compile("/it"), kind)
        for part in parts:
            self.assertIn(part, str(error))

    def ask(self, namespace: Namespace, event: str, *args: Any) -> Any:
        """
        Mount a namespace, and get the ack of an event.
        """
        path = f"/{len(self.server.namespaces)}"
        self.server.mount(path, namespace)
        return self.successResultOf(self.join(self.server, path).call(event, *args, namespace=path))


class OverrideTests(OverrideTestCase):
    """
    Names of `Namespace` that are not meant for overriding.
    """

    def test_everyName(self) -> None:
        """
        Whatever is defined under the name of a member of Namespace is refused, but for the three hooks.
        """
        members = {*vars(Namespace), *vars(Decorators), *vars(Namespace())}
        names = {name for name in members if not name.startswith("__")}
        self.assertEqual(names - overrides._OURS, {"connected", "disconnecting", "disconnected"})
        for name in {"emit", "to", "sockets", "rooms", "use", "on", "_dispatcher", "_handlers"}:
            self.assertIn(name, names)
        for name in sorted(overrides._OURS):
            for value in (lambda self, *args: None, {}, staticmethod(len), partialmethod(len, 1)):
                kind = type("Game", (Kind,), {"__module__": __name__, name: value})
                error = self.assertRaises(TypeError, overrides.checkClass, kind)
                self.assertIn(f"Game.{name} hides Namespace.{name}", str(error))

    def test_method(self) -> None:
        class Game(Namespace):
            def emit(self, event: str) -> None:
                """Send an event to the players."""

        self.assertClassRefused(Game, "Game.emit", "choose another name")

    def test_markedMethod(self) -> None:
        class Game(Namespace):
            @on("use")
            def use(self, socket: Socket, thing: str) -> None:
                """Use a thing of the game."""

        self.assertClassRefused(Game, "Game.use", "on('use') above it may stay")

    def test_formerNamesAreFree(self) -> None:
        """
        Names that once were internals are an application's, and admission goes its way.
        """

        class Game(Namespace):
            def connected(self, socket: Socket, auth: Any) -> None:
                if auth is None:
                    raise ConnectionRejected("no")

            def admit(self, *args: Any) -> None:
                raise AssertionError

            letIn = bind = encode = dispatch = admit

            @on("remove")
            def remove(self, socket: Socket) -> str:
                return "removed"

        self.server.mount("/game", Game())
        client = self.makeClient(self.server)
        self.failureResultOf(client.connect("/game"), ConnectionRejected)
        self.successResultOf(client.connect("/game", {"name": "ann"}))
        self.assertEqual(self.successResultOf(client.call("remove", namespace="/game")), "removed")

    def test_attributes(self) -> None:
        class Game(Namespace):
            rooms = 3

        class Path(Namespace):
            path = "/game"

        class Concurrency(Namespace):
            concurrency = 5

        class Slots(Namespace):
            __slots__ = ("everyone",)

        class Cached(Namespace):
            @cached_property
            def reactor(self) -> None:  # type: ignore[override]
                """Look the reactor up."""

        self.assertClassRefused(Game, "Game.rooms")
        self.assertClassRefused(Path, "Path.path", "give the path to mount()")
        self.assertClassRefused(Concurrency, "Concurrency.concurrency", "super().__init__(concurrency=...)")
        self.assertClassRefused(Slots, "Slots.everyone")
        self.assertClassRefused(Cached, "Cached.reactor", "give the reactor to Server")

    def test_attributesOfInstances(self) -> None:
        for name, value in {
            "rooms": {},
            "sockets": {},
            "emit": print,
            "path": "/game",
            "_handlers": {},
            "_ids": 0,
            "_peers": None,
            "_home": None,
        }.items():
            game = Kind()
            setattr(game, name, value)
            if name == "_home":
                self.assertRaises((TypeError, ValueError), self.server.mount, "/it", game)
            else:
                self.assertRefused(game, f"self.{name} of Kind")

    def test_attributesOnceMounted(self) -> None:
        """
        A mounted namespace refuses an attribute that would break it, and a hook that would not be called.
        """
        game = Kind()
        self.server.mount("/it", game)
        for name, part in {
            "rooms": "rooms of <Kind /it> cannot be set: choose another name",
            "sockets": "choose another name",
            "path": "choose another name",
            "connected": "it would not be called: write onConnect(function)",
            "disconnected": "write onDisconnect(function)",
            "disconnecting": "write onDisconnecting(function)",
            "onConnect": "it is a decorator: write onConnect(function)",
        }.items():
            error = self.assertRaises(TypeError, setattr, game, name, print)
            self.assertIn(part, str(error))
        game.concurrency = 5
        game.emit = print  # type: ignore[method-assign, assignment]
        for name in DECORATORS:
            error = self.assertRaises(TypeError, setattr, self.server, name, print)
            self.assertIn(f"write {name}(function), not {name} = function", str(error))
            self.assertTrue(callable(getattr(Decorators, name)))

    def test_attributesBeforeInit(self) -> None:
        """
        An attribute that Namespace.__init__() would replace is refused there; a second call of it is none.
        """

        class Early(Namespace):
            def __init__(self) -> None:
                self.rooms = {}  # type: ignore[assignment]
                super().__init__()

        class Twice(Namespace):
            def __init__(self) -> None:
                super().__init__()
                Namespace.__init__(self, concurrency=3)

        error = self.assertRaises(TypeError, Early)
        self.assertIn("Early was set before super().__init__()", str(error))
        self.assertIn("self.rooms", str(error))
        self.server.mount("/it", Twice())

    def test_deletedAttribute(self) -> None:
        game = Kind()
        del game.rooms
        self.assertRefused(game, "self.rooms")

    def test_concurrencyOfAnInstance(self) -> None:
        for wrong in (0, None, "2", float("nan")):
            game = Kind()
            game.concurrency = wrong  # type: ignore[assignment]
            self.assertRaises(ValueError, self.server.mount, "/it", game)
        game.concurrency = 2
        self.server.mount("/it", game)

    def test_mixin(self) -> None:
        class Mixin:
            def send(self, text: str) -> None:
                """Send a text."""

        class Game(Mixin, Namespace):  # type: ignore[misc]
            pass

        self.assertClassRefused(Game, "Mixin.send")

    def test_mixinBehind(self) -> None:
        """
        A hook behind Namespace among the bases is never called, which must not let anybody in.
        """

        class Guard:
            def connected(self, socket: Socket, auth: Any) -> None:
                raise ConnectionRejected("no")

        class Open(Namespace, Guard):
            pass

        class Closed(Guard, Namespace):  # type: ignore[misc]
            pass

        self.assertClassRefused(Open, "Guard.connected is never called", "class Open(Guard, Namespace)")
        self.server.mount("/closed", Closed())
        self.failureResultOf(self.makeClient(self.server).connect("/closed"), ConnectionRejected)

    def test_markedMixins(self) -> None:
        """
        Marked methods of a mixin are found before Namespace and, unless it hides them, behind it.
        """

        class Say:
            @on("say")
            def say(self, socket: Socket) -> str:
                return "said"

        class Send:
            @on("send")
            def send(self, socket: Socket) -> str:
                return "sent"

        class Before(Say, Namespace):
            pass

        class Behind(Namespace, Say):
            pass

        class Hidden(Namespace, Send):  # type: ignore[misc]
            pass

        self.assertEqual(self.ask(Before(), "say"), "said")
        self.assertEqual(self.ask(Behind(), "say"), "said")
        self.assertClassRefused(Hidden, "Send.send is never called")

    def test_dataclass(self) -> None:
        @dataclass
        class Game(Namespace):
            size: int = 3

            def __post_init__(self) -> None:
                super().__init__()

            @on("size")
            def howMany(self, socket: Socket) -> int:
                return self.size

        @dataclass
        class Forgetful(Namespace):
            size: int = 3

        @dataclass
        class Wrong(Namespace):
            rooms: int = 3  # type: ignore[assignment]

        self.assertEqual(self.ask(Game(5), "size"), 5)
        self.assertRefused(Forgetful(), "Forgetful.__init__() does not call super().__init__()")
        self.assertClassRefused(Wrong, "Wrong.rooms")

    def test_fineClasses(self) -> None:
        """
        Classes with other members are mounted.
        """

        class Base(Namespace, Generic[T]):
            limit = 3
            mock = Mock()

            class Settings:
                pass

            def __init__(self, name: str = "") -> None:
                super().__init__(concurrency=None)
                self.name = name
                self.connection = object()
                self.players: dict[str, T] = {}

            def __repr__(self) -> str:
                return self.name

            def _connect(self) -> None:
                """Connect the database."""

            @on("name")
            def tell(self, socket: Socket) -> str:
                return repr(self)

        class Derived(Base[int]):
            def connected(self, socket: Socket, auth: Any) -> Any:
                super().connected(socket, auth)
                return succeed(True)

            def tell(self, socket: Socket) -> str:
                return super().tell(socket) + "!"

        self.assertEqual(self.ask(Base("base"), "name"), "base")
        self.assertEqual(self.ask(Derived("derived"), "name"), "derived!")

    def test_factoryOfSomethingElse(self) -> None:
        self.server.mount(re.compile("/dict"), dict)  # type: ignore[arg-type]
        joined = self.makeClient(self.server).connect("/dict")
        self.failureResultOf(joined, ConnectionRejected)
        [failure] = self.flushLoggedErrors(TypeError)
        self.assertIn("no Namespace", str(failure.value))


class AlikeTests(OverrideTestCase):
    """
    Methods that resemble a hook, and would never be called.
    """

    ALIKE = {
        "connected": "connect onConnected on_connect on_connected connection onConnection on_connection "
        "Connected connected_ handle_connect handleConnection connection_made connectionMade onOpen on_open",
        "disconnecting": "on_disconnecting Disconnecting",
        "disconnected": "disconnect on_disconnect on_disconnected onDisconnected disconnection "
        "handleDisconnect Disconnected connectionLost on_close onClose",
    }

    def test_methods(self) -> None:
        for hook, names in self.ALIKE.items():
            for name in names.split():
                for value in (
                    lambda self, socket, *args: False,
                    staticmethod(lambda socket: False),
                    classmethod(lambda kind, socket: False),
                    partialmethod(print, 1),
                    copying(print),
                ):
                    kind = type("Game", (Namespace,), {"__module__": __name__, name: value})
                    self.assertClassRefused(kind, f"Game.{name}() is never called", f"name it {hook}()")

    def test_onConnect(self) -> None:
        """
        A method of the name of a decorator hides the decorator.
        """

        class Game(Namespace):
            def onConnect(self, socket: Socket) -> bool:  # type: ignore[override]
                return False

        self.assertClassRefused(Game, "Game.onConnect", "name it connected()")

    def test_async(self) -> None:
        class Game(Namespace):
            async def on_connect(self, socket: Socket) -> None:
                raise ConnectionRejected

        class Generator(Namespace):
            @inlineCallbacks
            def on_connect(self, socket: Socket) -> Any:
                yield succeed(None)
                raise ConnectionRejected

        self.assertClassRefused(Game, "on_connect")
        self.assertClassRefused(Generator, "on_connect")

    def test_inheritedAndMixedIn(self) -> None:
        class Mixin:
            def on_connect(self, socket: Socket) -> None: ...

        class Game(Mixin, Namespace):
            pass

        class Behind(Namespace, Mixin):
            pass

        class Derived(Game):
            pass

        for kind in (Game, Behind, Derived):
            self.assertClassRefused(kind, "Mixin.on_connect")

    def test_functionOfAnInstance(self) -> None:
        for name in ("on_connect", "connect"):
            game = Namespace()
            setattr(game, name, lambda socket: False)
            self.assertRefused(game, f"self.{name}() is never called")

    def test_hookOfAnInstance(self) -> None:
        """
        Namespace has looked its hooks up before.
        """
        for name, decorator in {"connected": "onConnect", "disconnected": "onDisconnect"}.items():
            game = Namespace()
            setattr(game, name, lambda *args: False)
            self.assertRefused(game, f"self.{name}", f"self.{decorator}(function)")

    def test_registered(self) -> None:
        """
        A method that is registered is called.
        """

        class Game(Namespace):
            def __init__(self) -> None:
                super().__init__()
                self.onConnect(self.on_connect)
                self.onDisconnecting(copying(self.on_disconnecting))
                self.onDisconnect(partial(self.disconnect))

            def on_connect(self, socket: Socket) -> None:
                raise ConnectionRejected("no")

            def disconnect(self, socket: Socket) -> None: ...

            @copying
            def on_disconnecting(self, socket: Socket) -> None: ...

        self.server.mount("/game", Game())
        self.failureResultOf(self.makeClient(self.server).connect("/game"), ConnectionRejected)

    def test_notRegistered(self) -> None:
        class Game(Namespace):
            def __init__(self) -> None:
                super().__init__()
                self.onConnect(self.check)

            def check(self, socket: Socket) -> None: ...

            def on_connect(self, socket: Socket) -> None: ...

        self.assertRefused(Game(), "Game.on_connect()")
        # At a pattern, only the instance shows it: the client is refused.
        self.server.mount(re.compile("/it"), Game)
        self.failureResultOf(self.makeClient(self.server).connect("/it"), ConnectionRejected)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_marked(self) -> None:
        """
        A method that is marked for an event is called for it.
        """

        class Game(Namespace):
            @on("link")
            def connect(self, socket: Socket) -> str:
                return "linked"

        class Derived(Game):
            def connect(self, socket: Socket) -> str:
                return "linked twice"

        self.assertEqual(self.ask(Game(), "link"), "linked")
        self.assertEqual(self.ask(Derived(), "link"), "linked twice")


class MarkTests(OverrideTestCase):
    """
    Marks of `on` that no attribute of the class has.
    """

    def test_staticmethod(self) -> None:
        class Game(Namespace):
            @staticmethod
            @on("say")
            def say(socket: Socket) -> str:
                return "static"

        self.assertClassRefused(Game, "Game.say", "test_overrides.py", "write @on('say') above @staticmethod")

    def test_classmethod(self) -> None:
        class Game(Namespace):
            @classmethod
            @on("say")
            def say(cls, socket: Socket) -> str:
                return "class"

        self.assertClassRefused(Game, "Game.say", "write @on('say') above @classmethod")

    def test_property(self) -> None:
        class Game(Namespace):
            @property
            @on("say")
            def say(self) -> str:
                return "property"

        self.assertClassRefused(Game, "Game.say", "above all other decorators")
        self.assertRaises(TypeError, on("say"), property(lambda self: None))

    def test_decoratorThatCopiesNothing(self) -> None:
        class Game(Namespace):
            @hiding
            @on("say")
            def say(self, socket: Socket) -> str:
                return "hidden"

        class Derived(Game):
            pass

        self.assertClassRefused(Game, "Game.say", "write @on('say') above all other decorators")
        self.assertClassRefused(Derived, "Game.say")

    def test_decoratorThatGivesSomethingElse(self) -> None:
        class Game(Namespace):
            @(lambda function: None)
            @on("say")
            def say(self, socket: Socket) -> None: ...

        self.assertClassRefused(Game, "Game.say")

    def test_oneOfTwoEvents(self) -> None:
        class Game(Namespace):
            @on("outer")
            @hiding
            @on("inner")
            def say(self, socket: Socket) -> None: ...

        self.assertClassRefused(Game, "on('inner') has no effect")

    def test_twoMethodsOfOneName(self) -> None:
        class Game(Namespace):
            @on("one")
            def say(self, socket: Socket) -> None: ...

            @on("two")
            def say(self, socket: Socket) -> None: ...  # noqa: F811

        self.assertClassRefused(Game, "on('one') has no effect on", "another say() in the class")

    def test_helper(self) -> None:
        """
        A function of the application that calls on() is seen through.
        """

        def command(name: str) -> Callable[[Any], Any]:
            return lambda function: hiding(on(name)(function))

        class Game(Namespace):
            @command("say")
            def say(self, socket: Socket) -> None: ...

        self.assertClassRefused(Game, "on('say')")

    def test_kept(self) -> None:
        class Game(Namespace):
            @on("static")
            @staticmethod
            def static(socket: Socket) -> str:
                return "static"

            @on("class")
            @classmethod
            def ofClass(cls, socket: Socket) -> str:
                return cls.__name__

            @copying
            @on("copied")
            def copied(self, socket: Socket) -> str:
                return "copied"

            @on("above")
            @hiding
            def above(self, socket: Socket) -> str:
                return "above"

            @on("twice")
            @copying
            @on("twice")
            def twice(self, socket: Socket) -> str:
                return "twice"

            part = on("partial")(partial(lambda socket: "partial"))

        for event, ack in {
            "static": "static",
            "class": "Game",
            "copied": "copied",
            "above": "above",
            "twice": "twice",
            "partial": "partial",
        }.items():
            self.assertEqual(self.ask(Game(), event), ack)

    def test_slots(self) -> None:
        """
        A dataclass with slots is another class than the one whose body ran.
        """

        @dataclass(slots=True)
        class Game(Namespace):
            size: int = 1

            def __post_init__(self) -> None:
                Namespace.__init__(self)

            @hiding
            @on("say")
            def say(self, socket: Socket) -> None: ...

        self.assertClassRefused(Game, "on('say')")
