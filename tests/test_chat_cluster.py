"""
The chat on several servers is one chat: the same people, the same history, each nick once.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.clusters import SETTLED, ClusterTestCase
from txrealtime import Server
from txrealtime.chat import chat
from txrealtime.chat.chat import KEPT_MESSAGES
from txrealtime.service.application import StartupError, serverOf
from txrealtime.service.options import Options
from txrealtime.testing import Client

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


class ChatTestCase(ClusterTestCase):
    """Three servers with the chat, whose clocks differ by some seconds."""

    def setUp(self) -> None:
        self.chats: list[chat.Chat] = []
        super().setUp()

    def makeServer(self, **options: Any) -> Server:
        server = super().makeServer(**options)
        slow = 7 * len(self.chats)
        self.chats.append(chat.Chat(server.cluster, lambda: 1000 + self.clock.seconds() - slow))
        del server._namespaces._namespaces["/"]
        server.mount("/", self.chats[-1])
        return server

    def come(self, server: Server, nick: str, room: str | None = "lobby", key: str = "") -> Client:
        """Somebody at a server, and in a room unless it is `None`."""
        client = self.makeClient(server)
        self.successResultOf(client.connect("/", {"nick": nick, "key": key or f"{nick}'s key"}))
        if room is not None:
            self.ask(client, "join", room)
        return client

    def ask(self, client: Client, event: str, *args: Any) -> Any:
        """Return the answer to an event."""
        return self.resultOf(client.call(event, *args))

    def events(self, client: Client, *kinds: str) -> list[tuple[Any, ...]]:
        """Take the events of some kinds that a client has got."""
        self.settle()
        return [event for event in client.received() if event[0] in kinds]

    def told(self, client: Client) -> list[str]:
        """Return the texts in the answer to a client that joins the lobby again."""
        return [each.get("text", "") for each in self.ask(client, "join", "lobby")["said"]]

    def known(self, each: chat.Chat, *names: str) -> list[Any]:
        """Return what a server knows of what was said in the lobby, without asking the others."""
        self.settle()
        past = self.successResultOf(Deferred.fromCoroutine(each.past("lobby", here=True)))
        return [said[name] for said in past for name in names]

    def histories(self) -> list[list[str]]:
        return [self.known(each, "text") for each in self.chats]


class StartTests(SynchronousTestCase):
    def test_dialects(self) -> None:
        """On a bus that cannot carry presence the chat does not start, and one line tells why."""
        for dialect in "node", "python-socketio":
            options = Options()
            options.parseOptions(["--bus", f"redis://localhost?dialect={dialect}"])
            error = self.assertRaises(StartupError, serverOf, options)
            self.assertIn(f"the bus: the dialect {dialect} cannot carry presence", str(error))


class PeopleTests(ChatTestCase):
    def test_everybodySeesEverybody(self) -> None:
        ada = self.come(self.one, "Ada")
        grace = self.come(self.two, "Grace")
        answer = self.ask(self.come(self.three, "Alan", None), "join", "lobby")
        self.assertEqual(answer["people"], ["Ada", "Grace", "Alan"])
        self.assertEqual(self.events(ada, "joined", "left"), [("joined", "Grace"), ("joined", "Alan")])
        self.assertEqual(self.events(grace, "joined", "left"), [("joined", "Alan")])
        grace.close()
        self.assertEqual(self.events(ada, "left", "rooms"), [("left", "Grace"), ("rooms", [["lobby", 2]])])

    def test_roomsOfAllServers(self) -> None:
        """The list of rooms is the same everywhere; an empty one is forgotten everywhere."""
        ada = self.come(self.one, "Ada")
        grace = self.come(self.two, "Grace", "hut")
        self.settle()
        for each in self.chats:
            self.assertEqual(each.counts(), [("lobby", 1), ("hut", 1)])
        self.assertEqual(self.events(ada, "rooms")[-1], ("rooms", [["lobby", 1], ["hut", 1]]))
        grace.close()
        self.settle()
        self.assertEqual([list(each.open) for each in self.chats], [["lobby"]] * 3)

    def test_namesakes(self) -> None:
        """A nick is there once, on all servers."""
        self.come(self.one, "Ada", key="1")
        self.settle()
        self.assertEqual(self.ask(self.come(self.two, "ada", None, "2"), "join", "lobby")["you"], "ada 2")

    def test_namesakesAtTheSameMoment(self) -> None:
        """The first of namesakes who come at once, in the common order, keeps the nick on all servers."""
        watcher = self.come(self.one, "Grace")
        clients = [self.come(server, "Ada", None, f"key {n}") for n, server in enumerate(self.servers)]
        self.settle()
        watcher.received()
        answers = [client.call("join", "lobby") for client in clients]
        self.settle()
        for answer in answers:
            self.successResultOf(answer)
        nicks = [list(each.open["lobby"].people.values()) for each in self.chats]
        for known in nicks:
            self.assertEqual(sorted(known), ["Ada", "Ada 2", "Ada 3", "Grace"])
        renamed = [args for client in clients for name, *args in self.events(client, "renamed")]
        self.assertEqual(sorted({nick for [nick] in renamed}), ["Ada 2", "Ada 3"])
        # A page that counts joined and left has the same people.
        people: set[str] = set()
        for kind, nick in self.events(watcher, "joined", "left"):
            (people.add if kind == "joined" else people.discard)(nick)
        self.assertEqual(people, {"Ada", "Ada 2", "Ada 3"})
        seats = [self.socketOf(s, c).data["seat"] for s, c in zip(self.servers, clients, strict=True)]
        self.assertEqual(sorted(seats), ["Ada", "Ada 2", "Ada 3"])

    def test_comeBackElsewhere(self) -> None:
        """A client that comes back to another server before the first has noticed keeps its nick."""
        grace = self.come(self.three, "Grace")
        former = self.come(self.one, "Ada", key="secret")
        self.settle()
        grace.received()
        returned = self.come(self.two, "Ada", None, "secret")
        answer = self.ask(returned, "join", "lobby")
        self.assertEqual((answer["you"], answer["people"]), ("Ada", ["Grace", "Ada"]))
        self.assertEqual(self.events(grace, "joined", "left"), [])
        self.assertEqual(self.events(former, "replaced"), [("replaced",)])
        self.assertFalse(former.isConnected())
        self.assertTrue(returned.isConnected())

    def test_serverKilled(self) -> None:
        """The people of a server that has died have left when its lease is over, and not before."""
        ada = self.come(self.one, "Ada")
        self.come(self.two, "Grace")
        self.settle()
        ada.received()
        dead = self.two.cluster.uid
        self.hub.loses = lambda sender, receiver: dead in (sender, receiver)
        self.advance(10)
        self.assertEqual(self.events(ada, "left"), [])
        self.advance(15)
        self.assertEqual(self.events(ada, "left", "rooms"), [("left", "Grace"), ("rooms", [["lobby", 1]])])

    def test_typing(self) -> None:
        ada, grace = self.come(self.one, "Ada"), self.come(self.two, "Grace")
        self.settle()
        ada.emit("typing", True)
        self.assertEqual(self.events(grace, "typing"), [("typing", "Ada", True)])

    def test_goneWhileEntering(self) -> None:
        """A client that goes while its server asks the others leaves no room behind."""
        four = self.member("four")
        for _ in range(60):
            self.clock.advance(0.05)
            if four.cluster.isReady:
                break
        ada = self.come(four, "Ada", None)
        entering = ada.call("join", "hut")
        self.assertNoResult(entering)
        ada.close()
        self.advance(3)
        self.assertEqual([list(each.open) for each in self.chats], [["lobby"]] * 4)


class HistoryTests(ChatTestCase):
    def test_sameOnAllServers(self) -> None:
        """Messages are shown and kept on all servers, in one order, though their clocks differ."""
        people = [self.come(server, nick) for server, nick in zip(self.servers, "ABC", strict=True)]
        self.settle()
        for n in range(6):
            self.ask(people[n % 3], "say", str(n), f"text {n}")
        self.assertEqual(self.histories(), [[f"text {n}" for n in range(6)]] * 3)
        self.assertEqual(self.told(people[1]), [f"text {n}" for n in range(6)])
        said = [args["text"] for _, args in self.events(people[0], "said")]
        self.assertEqual(said, ["text 1", "text 2", "text 4", "text 5"])

    def test_atTheSameMoment(self) -> None:
        """Messages that cross on the bus stand in one order everywhere."""
        people = [self.come(server, nick) for server, nick in zip(self.servers, "ABC", strict=True)]
        self.settle()
        for n, client in enumerate(people * 3):
            client.call("say", f"{n}", f"text {n}")
        first, *others = self.histories()
        self.assertEqual(len(first), 9)
        self.assertEqual(others, [first, first])

    def test_authorStaysUnknown(self) -> None:
        """The key of an author is not told to clients.  A mark tells the author's own messages."""
        ada, grace = self.come(self.one, "Ada", key="secret"), self.come(self.two, "Grace")
        self.settle()
        self.ask(ada, "say", "1", "Hello")
        [(_, said)] = self.events(grace, "said")
        self.assertNotIn("secret", repr(said))
        again = self.ask(self.come(self.three, "Ada", None, "secret"), "join", "lobby")
        self.assertEqual([each["author"] for each in again["said"]], [again["author"]])
        self.assertNotEqual(again["author"], self.ask(grace, "join", "lobby")["author"])
        elsewhere = self.ask(self.come(self.three, "Ada", None, "secret"), "join", "hut")
        self.assertNotEqual(again["author"], elsewhere["author"])

    def test_sentAgainElsewhere(self) -> None:
        """A message that is sent again to another server is shown once."""
        ada, grace = self.come(self.one, "Ada"), self.come(self.three, "Grace")
        self.settle()
        time = self.ask(ada, "say", "1", "Hello")
        ada.close()
        self.settle()
        self.assertEqual(self.ask(self.come(self.two, "Ada"), "say", "1", "Hello"), time)
        self.assertEqual(len(self.events(grace, "said")), 1)

    def test_sentAgainAtTheSameMoment(self) -> None:
        """A message that two servers take before they hear of each other stands in the history once."""
        ada, grace = self.come(self.one, "Ada"), self.come(self.three, "Grace")
        again = self.come(self.two, "Ada", key="other")
        self.settle()
        self.socketOf(self.two, again).data["key"] = "Ada's key"
        for client in ada, again:
            client.call("say", "1", "Hello")
        self.settle()
        self.assertEqual(len(self.successResultOf(self.chats[2].to("lobby").history())), 2)
        self.assertEqual(self.told(grace), ["Hello"])

    def test_picture(self) -> None:
        """A picture reaches the other servers with its message, where clients fetch it."""
        ada, grace = self.come(self.one, "Ada"), self.come(self.two, "Grace")
        self.settle()
        self.ask(ada, "picture", "1", PNG)
        [(_, said)] = self.events(grace, "said")
        self.assertEqual((said["id"], said["type"]), ("1", "image/png"))
        self.patch(self.chats[1], "ask", None)  # it is here already
        self.assertEqual(self.ask(grace, "fetch", "1"), PNG)
        alan = self.come(self.three, "Alan")
        self.assertEqual(self.ask(alan, "fetch", "1"), PNG)

    def test_newServer(self) -> None:
        """A server that starts later knows the history and gets a picture where it is."""
        ada = self.come(self.one, "Ada")
        self.ask(ada, "say", "1", "Hello")
        self.ask(ada, "picture", "2", PNG)
        four = self.member("four")
        self.advance(SETTLED)
        self.assertEqual(self.known(self.chats[3], "id"), ["1", "2"])
        grace = self.come(four, "Grace", None)
        answer = self.ask(grace, "join", "lobby")
        self.assertEqual([each["id"] for each in answer["said"]], ["1", "2"])
        self.assertEqual(self.ask(grace, "fetch", "2"), PNG)
        self.assertIn("2", self.chats[3].open["lobby"].pictures)
        # The lobby is known though nobody is there any more.
        ada.close()
        grace.close()
        self.settle()
        self.assertEqual(self.told(self.come(four, "Alan", None))[:1], ["Hello"])

    def test_rollingReload(self) -> None:
        """The history outlives the servers that heard it, if others serve before those stop."""
        ada = self.come(self.one, "Ada")
        self.ask(ada, "say", "1", "Hello")
        four = self.member("four")
        self.advance(SETTLED)
        stopping = [server.stopService() for server in self.servers[:3]]
        ada.close()
        self.advance(3)
        for stopped in stopping:
            self.successResultOf(stopped)
        self.assertEqual(
            [each["text"] for each in self.ask(self.come(four, "Ada", None), "join", "lobby")["said"]],
            ["Hello"],
        )

    def test_outage(self) -> None:
        """After an outage of the bus servers tell each other what they have missed."""
        ada, grace = self.come(self.one, "Ada"), self.come(self.two, "Grace")
        self.settle()
        self.hub.split(self.one)
        self.ask(ada, "say", "1", "from Ada")
        self.ask(grace, "say", "2", "from Grace")
        self.settle()
        self.hub.stop()
        self.settle()
        self.hub.heal()
        self.hub.start()
        self.advance(5)
        self.assertEqual(self.events(grace, "said"), [])
        self.ask(ada, "join", "lobby")
        self.come(self.three, "Alan")
        self.assertEqual(self.events(grace, "again"), [("again",)])
        self.assertEqual(sorted(self.told(grace)), ["from Ada", "from Grace"])
        first, *others = self.histories()
        self.assertEqual(others, [first, first])
        self.come(self.one, "Eve")
        self.assertEqual(self.events(grace, "again"), [])

    def test_withoutTheBus(self) -> None:
        """While the bus is away each server is a chat of its own."""
        self.hub.stop()
        self.settle()
        ada = self.come(self.one, "Ada", "hut")
        self.ask(ada, "say", "1", "Hello")
        self.assertEqual(
            self.ask(self.come(self.one, "Grace", None), "join", "hut")["people"], ["Ada", "Grace"]
        )
        self.assertIn("no longer kept", self.ask(ada, "fetch", "9")["error"])
        self.hub.start()
        self.advance(5)

    def test_largestHistory(self) -> None:
        """A history of the longest texts fits into one message between servers."""
        ada = self.come(self.one, "\U0001f600" * chat.MAX_NICK, key="\U0001f600" * chat.MAX_ID)
        for n in range(KEPT_MESSAGES):
            self.ask(ada, "say", f"{n:03}".ljust(chat.MAX_ID, "\U0001f600"), "\U0001f600" * 2000)
        self.member("four")
        self.advance(SETTLED)
        self.assertEqual(len(self.known(self.chats[3], "id")), KEPT_MESSAGES)

    def test_unknownRoom(self) -> None:
        """News and questions of a room that a server does not know make none there."""
        one = self.chats[0]
        one.keepPicture("hut", "1", PNG)
        self.assertIsNone(one.pictureOf("hut", "1"))
        self.assertEqual(list(one.open), ["lobby"])

    def test_serverThatHangs(self) -> None:
        """A message does not wait for a server that does not reply; who enters waits for some seconds."""
        ada, grace = self.come(self.one, "Ada"), self.come(self.two, "Grace")
        self.settle()
        dead = self.three.cluster.uid
        self.hub.loses = lambda sender, receiver: dead in (sender, receiver)
        self.chats[0]._history.doubt()  # type: ignore[union-attr]
        self.ask(ada, "say", "1", "Hello")
        self.assertEqual([said["text"] for _, said in self.events(grace, "said")], ["Hello"])
        entering = self.come(self.one, "Alan", None).call("join", "lobby")
        self.advance(5)
        self.assertEqual([said["text"] for said in self.successResultOf(entering)["said"]], ["Hello"])
