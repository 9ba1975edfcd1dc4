"""
The namespaces of a server: those mounted at a path, and those made for a pattern.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tests.talk import Recorder, TalkTestCase
from txrealtime import ConnectionRejected, Namespace, Server, Socket
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import JSONParser
from txrealtime.testing import Client

GAME = re.compile(r"/game/\d+")


class MountTests(TalkTestCase):
    """
    Putting namespaces at paths.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server: Server = self.makeServer()

    def test_madeOnce(self) -> None:
        chat = self.server.namespace("/chat")
        self.assertIs(self.server.namespace("/chat"), chat)
        self.assertEqual(chat.path, "/chat")

    def test_mount(self) -> None:
        lobby = Recorder()
        self.assertEqual(lobby.path, "")
        self.server.mount("/lobby", lobby)
        self.assertEqual(lobby.path, "/lobby")
        self.assertIs(self.server.namespace("/lobby"), lobby)
        self.assertIn(lobby, self.server.namespaces)
        self.assertIs(lobby.reactor, self.clock)

    def test_emptyOne(self) -> None:
        """
        A namespace whose class has a length, and which is empty, keeps its place.
        """

        class Empty(Namespace):
            def __len__(self) -> int:
                return len(self.sockets)

            def connected(self, socket: Socket, auth: Any) -> bool:
                return False

        for path in ("/empty", "/"):
            server = Server(reactor=self.clock)
            self.servers.append(server)
            empty = Empty()
            server.mount(path, empty)
            server.on("say")(lambda socket: None)
            self.assertIs(server.namespace(path), empty)
            self.failureResultOf(self.makeClient(server).connect(path), ConnectionRejected)

    def test_mountTheDefault(self) -> None:
        server = Server(reactor=self.clock)
        root = Recorder()
        server.mount("/", root)
        self.assertIs(server.namespace(), root)
        server.engine.drain(1)

    def test_taken(self) -> None:
        self.server.namespace("/chat")
        error = self.assertRaises(ValueError, self.server.mount, "/chat", Namespace())
        self.assertIn("/chat already", str(error))

    def test_mountedTwice(self) -> None:
        lobby = Recorder()
        self.server.mount("/lobby", lobby)
        self.assertRaises(ValueError, self.server.mount, "/other", lobby)
        self.assertEqual(lobby.path, "/lobby")
        self.assertNotIn("/other", [namespace.path for namespace in self.server.namespaces])

    def test_pathsThatCannotBe(self) -> None:
        for path in ("", "chat", "a/b", "/a,b", "*"):
            self.assertRaises(ValueError, self.server.namespace, path)
            self.assertRaises(ValueError, self.server.mount, path, Namespace())

    def test_whatDoesNotGoTogether(self) -> None:
        for where, what in (
            ("/lobby", Namespace),
            ("/lobby", None),
            (GAME, Namespace()),
            (GAME, "Game"),
            (lambda path, auth: True, Namespace()),
            (5, Namespace),
            (None, Namespace),
            (["/lobby"], Namespace),
        ):
            self.assertRaises(TypeError, self.server.mount, where, what)

    def test_pathIsText(self) -> None:
        for path in (None, b"/chat", 5):
            error = self.assertRaises(TypeError, self.server.namespace, path)
            self.assertIn("'/chat'", str(error))

    def test_predicatesThatCannotBeCalled(self) -> None:
        """
        A predicate that fails for each client is refused when it is mounted.
        """

        def generator(path: str, auth: Any) -> Any:
            yield True

        for predicate in (lambda path: True, lambda: True, generator):
            self.assertRaises(TypeError, self.server.mount, predicate, Namespace)

    def test_theDefaultIsThere(self) -> None:
        """
        A server admits clients to `/`, whether handlers are registered there or not.
        """
        server = Server(reactor=self.clock)
        self.servers.append(server)
        self.join(server)

    def test_installedReactor(self) -> None:
        """
        The reactor is looked up on first use, not when a module is imported.
        """
        namespaces = Namespaces(JSONParser())
        self.assertIs(namespaces.reactor, IReactorTime(reactor))


class Game(Recorder):
    """A namespace that is made for each game."""

    made: list[Game]

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)
        self.on("ask")(lambda socket: self.path)


class PatternTests(TalkTestCase):
    """
    Namespaces made for the first client, and removed with the last.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server: Server = self.makeServer()
        Game.made = []

    def paths(self) -> list[str]:
        return [namespace.path for namespace in self.server.namespaces]

    def assertRefused(self, client: Client, path: str, auth: Any = None) -> str:
        error = self.failureResultOf(client.connect(path, auth), ConnectionRejected).value
        self.assertEqual(self.paths(), ["/"])
        return str(error)

    def test_unfinishedAnswerOfAPredicate(self) -> None:
        """
        A predicate that forgets to wait matches nothing: a coroutine is true.
        """

        async def unfinished(path: str, auth: Any) -> Any:
            return later()

        async def later() -> bool:
            return False

        self.server.mount(unfinished, Game)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            self.assertRefused(self.makeClient(self.server), "/any")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_anyAwaitable(self) -> None:
        class Answer:
            def __await__(self) -> Any:
                yield from ()
                return True

        self.server.mount(lambda path, auth: Answer(), Game)
        self.successResultOf(self.makeClient(self.server).connect("/any"))

    def test_madeOnDemand(self) -> None:
        self.server.mount(GAME, Game)
        self.assertEqual(self.paths(), ["/"])
        client = self.join(self.server, "/game/1")
        self.assertEqual(self.paths(), ["/", "/game/1"])
        self.assertEqual(self.successResultOf(client.call("ask", namespace="/game/1")), "/game/1")

    def test_sharedByItsPath(self) -> None:
        self.server.mount(GAME, Game)
        alice, bob = self.join(self.server, "/game/1"), self.join(self.server, "/game/1")
        carol = self.join(self.server, "/game/2")
        self.assertEqual(len(Game.made), 2)
        Game.made[0].emit("move")
        self.assertEqual(alice.received("/game/1"), [("move",)])
        self.assertEqual(bob.received("/game/1"), [("move",)])
        self.assertEqual(carol.received("/game/2"), [])

    def test_removedWhenEmpty(self) -> None:
        self.server.mount(GAME, Game)
        alice, bob = self.join(self.server, "/game/1"), self.join(self.server, "/game/1")
        alice.disconnect("/game/1")
        self.assertEqual(self.paths(), ["/", "/game/1"])
        bob.close()
        self.assertEqual(self.paths(), ["/"])
        self.join(self.server, "/game/1")
        self.assertEqual(len(Game.made), 2)

    def test_mountedAfterItWasRemoved(self) -> None:
        """
        A namespace mounted by hand, where one was made and removed, stays.
        """
        self.server.mount(GAME, Game)
        client = self.join(self.server, "/game/1")
        client.disconnect("/game/1")
        self.server.mount("/game/1", Recorder())
        self.successResultOf(client.connect("/game/1"))
        client.disconnect("/game/1")
        self.assertEqual(self.paths(), ["/", "/game/1"])

    def test_removedAfterItsOwnDisconnect(self) -> None:
        self.server.mount(GAME, Game)
        self.join(self.server, "/game/1")
        Game.made[0].everyone.disconnect()
        self.assertEqual(self.paths(), ["/"])

    def test_removedWhenTheOnlyClientIsRefused(self) -> None:
        for refuse in (self.refuseNow, self.refuseLater):
            namespace = Recorder()
            namespace.onConnect(refuse)
            server = self.server = self.makeServer()
            server.mount(GAME, lambda namespace=namespace: namespace)
            self.assertEqual(self.assertRefused(self.makeClient(server), "/game/1"), "no")

    def refuseNow(self, socket: Socket) -> None:
        raise ConnectionRejected("no")

    async def refuseLater(self, socket: Socket) -> None:
        there: Deferred[None] = Deferred()
        there.callback(None)
        await there
        raise ConnectionRejected("no")

    def test_removedWhenTheOnlyClientGoesWhilePending(self) -> None:
        self.server.mount(GAME, Game)
        for leave in (Client.close, lambda client: client.disconnect("/game/1")):
            Game.made.clear()
            namespace: list[Recorder] = []

            def make(made: list[Recorder] = namespace) -> Recorder:
                made.append(Recorder())
                made[0].admission = Deferred()
                return made[0]

            server = self.server = self.makeServer()
            server.mount(GAME, make)
            client = self.makeClient(server)
            client.connect("/game/1")
            self.assertEqual(self.paths(), ["/", "/game/1"])
            leave(client)
            self.assertEqual(self.paths(), ["/"])

    def test_keptForThePending(self) -> None:
        """
        A client in admission keeps the namespace.
        """
        self.server.mount(GAME, Game)
        alice = self.join(self.server, "/game/1")
        Game.made[0].admission = Deferred()
        bob = self.makeClient(self.server)
        joined = bob.connect("/game/1")
        alice.close()
        self.assertEqual(self.paths(), ["/", "/game/1"])
        Game.made[0].admission.callback(None)
        bob.flush()
        self.successResultOf(joined)
        self.assertEqual(len(Game.made), 1)

    def test_patternMatchesInFull(self) -> None:
        self.server.mount(GAME, Game)
        client = self.makeClient(self.server)
        for path in ("/game/", "/game/1x", "/game/1/2", "/a/game/1", "/game/1\n", "/nowhere"):
            self.assertEqual(self.assertRefused(client, path), "Invalid namespace")

    def test_firstMatchWins(self) -> None:
        self.server.mount(GAME, Game)
        self.server.mount(re.compile("/.*"), Recorder)
        self.join(self.server, "/game/1")
        self.join(self.server, "/other")
        self.assertEqual([namespace.path for namespace in Game.made], ["/game/1"])

    def test_mountedGoesBeforePattern(self) -> None:
        lobby = Recorder()
        self.server.mount(GAME, Game)
        self.server.mount("/game/0", lobby)
        self.join(self.server, "/game/0").close()
        self.assertEqual(len(lobby.take()), 3)
        self.assertEqual(Game.made, [])
        self.assertEqual(self.paths(), ["/", "/game/0"])

    def test_predicate(self) -> None:
        asked: list[Any] = []

        def mayPlay(path: str, auth: Any) -> bool:
            asked.append((path, auth))
            return auth == {"token": "x"}

        self.server.mount(mayPlay, Game)
        client = self.makeClient(self.server)
        self.assertEqual(self.assertRefused(client, "/game/1"), "Invalid namespace")
        self.successResultOf(client.connect("/game/1", {"token": "x"}))
        self.assertEqual(asked, [("/game/1", None), ("/game/1", {"token": "x"})])

    def test_asyncPredicate(self) -> None:
        waits: list[Deferred[bool]] = []

        async def mayPlay(path: str, auth: Any) -> bool:
            waits.append(Deferred())
            return await waits[-1]

        self.server.mount(mayPlay, Game)
        alice, bob = self.makeClient(self.server), self.makeClient(self.server)
        joined = alice.connect("/game/1"), bob.connect("/game/1")
        self.assertEqual(self.paths(), ["/"])
        for wait in reversed(waits):
            wait.callback(True)
        alice.flush()
        bob.flush()
        for deferred in joined:
            self.successResultOf(deferred)
        self.assertEqual(len(Game.made), 1)
        carol = self.makeClient(self.server)
        self.successResultOf(carol.connect("/game/1"))
        self.assertEqual(len(waits), 2)

    def test_deferredPredicate(self) -> None:
        answer: Deferred[bool] = Deferred()
        self.server.mount(lambda path, auth: answer, Game)
        client = self.makeClient(self.server)
        joined = client.connect("/game/1")
        answer.callback(False)
        client.flush()
        self.failureResultOf(joined, ConnectionRejected)
        self.assertEqual(Game.made, [])

    def test_goneDuringThePredicate(self) -> None:
        for leave in (Client.close, lambda client: client.disconnect("/game/1")):
            cancelled: list[Any] = []
            answer: Deferred[bool] = Deferred(cancelled.append)
            server = self.server = self.makeServer()
            server.mount(lambda path, auth, answer=answer: answer, Game)
            client = self.makeClient(server)
            client.connect("/game/1")
            leave(client)
            self.assertEqual(cancelled, [answer])
            self.assertEqual(self.paths(), ["/"])
        self.assertEqual(Game.made, [])

    def test_predicateRejects(self) -> None:
        def mayPlay(path: str, auth: Any) -> bool:
            raise ConnectionRejected("not you")

        self.server.mount(mayPlay, Game)
        self.assertEqual(self.assertRefused(self.makeClient(self.server), "/game/1"), "not you")

    def test_predicateFails(self) -> None:
        self.server.mount(lambda path, auth: 1 / 0, Game)
        self.assertEqual(self.assertRefused(self.makeClient(self.server), "/game/1"), "Internal server error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_factoryFails(self) -> None:
        """
        A failed factory leaves nothing behind: a namespace mounted by hand later stays.
        """
        self.server.mount(GAME, lambda: 1 / 0)
        client = self.makeClient(self.server)
        self.assertEqual(self.assertRefused(client, "/game/1"), "Internal server error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        game = self.server.namespace("/game/1")
        self.successResultOf(client.connect("/game/1"))
        client.disconnect("/game/1")
        self.assertIs(self.server.namespace("/game/1"), game)

    def test_factoryMakesTheSameAgain(self) -> None:
        """
        A namespace has one path.
        """
        shared = Recorder()
        self.server.mount(GAME, lambda: shared)
        alice = self.join(self.server, "/game/1")
        error = self.failureResultOf(alice.connect("/game/2"), ConnectionRejected).value
        self.assertEqual(error.message, "Internal server error")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.paths(), ["/", "/game/1"])
