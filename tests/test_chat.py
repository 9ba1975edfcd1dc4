"""
The chat's handlers and page: what people get, and what nobody can get by sending nonsense.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IServiceCollection, loadApplication
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import getChildForRequest
from twisted.web.server import NOT_DONE_YET
from twisted.web.test.requesthelper import DummyRequest

from tests.examples import given, settings, st
from tests.support import ROOT
from txrealtime import ConnectionRejected, Server, Settings
from txrealtime.chat import chat, checks, pages
from txrealtime.chat.room import KEPT_PICTURES
from txrealtime.testing import Client, makeServer

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


class ChatTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.server = makeServer(reactor=self.clock)
        self.chat = chat.Chat(self.server.cluster, now=self.clock.seconds)
        self.server.mount("/", self.chat)

    def come(self, nick: str, key: str = "", room: str | None = None) -> Client:
        """
        Somebody at the chat, and in a room if one is given; what the client got so far is taken.
        """
        client = Client(self.server)
        self.successResultOf(client.connect("/", auth={"nick": nick} | ({"key": key} if key else {})))
        if room is not None:
            self.ask(client, "join", room)
        client.received()
        return client

    def ask(self, client: Client, event: str, *args: Any) -> Any:
        """
        Send an event and return the answer.
        """
        return self.successResultOf(client.call(event, *args))

    def events(self, client: Client, event: str) -> list[Any]:
        """
        The first argument of each event of a kind since the last call; the others are dropped.
        """
        return [args[0] for name, *args in client.received() if name == event]

    def assertRefused(self, client: Client, event: str, *args: Any) -> str:
        """
        The answer is a reason, which is returned.
        """
        answer = self.ask(client, event, *args)
        self.assertEqual(list(answer), ["error"])
        return str(answer["error"])


class EntryTests(ChatTestCase):
    def test_refusedWithoutName(self) -> None:
        """
        A client without a usable name gets a reason and is not let in.
        """
        for auth in (None, {}, {"nick": 5}, {"nick": " \n "}, {"nick": "\u202e\u0000"}, {"nick": "n" * 25}):
            joined = Client(self.server).connect("/", auth=auth)
            rejection = self.failureResultOf(joined, ConnectionRejected).value
            self.assertIn("A name must", str(rejection))
        self.assertEqual(self.chat.sockets, {})

    def test_refusedWithBadKey(self) -> None:
        for key in ("", 5, "k" * 65):
            joined = Client(self.server).connect("/", auth={"nick": "Ada", "key": key})
            self.failureResultOf(joined, ConnectionRejected)

    def test_nameIsTidied(self) -> None:
        """
        Spaces, characters that nobody sees, and look-alikes of the same letter do not make another name.
        """
        ada = self.come("  A\u200bda \n\u202eLove\uff4cace ")
        self.assertEqual(self.ask(ada, "join", "lobby")["you"], "Ada Lovelace")

    def test_answerToJoin(self) -> None:
        self.come("Grace", room="lobby")
        ada = self.come("Ada", key="ada's")
        self.assertEqual(
            self.ask(ada, "join", "lobby"),
            {
                "room": "lobby",
                "you": "Ada",
                "author": chat.authorOf("ada's", "lobby"),
                "people": ["Grace", "Ada"],
                "said": [],
                "maxPicture": checks.MAX_PICTURE,
            },
        )

    def test_namesakesAreNumbered(self) -> None:
        """
        A name is there once in a room, whatever its case; in another room it is free.
        """
        self.come("Ada", room="lobby")
        second, third = self.come("ada"), self.come("ADA")
        self.assertEqual(self.ask(second, "join", "lobby")["you"], "ada 2")
        self.assertEqual(self.ask(third, "join", "lobby")["you"], "ADA 3")
        self.assertEqual(self.ask(third, "join", "hut")["you"], "ADA")

    def test_othersSeeWhoComesAndGoes(self) -> None:
        ada = self.come("Ada", room="lobby")
        grace = self.come("Grace", room="lobby")
        self.assertEqual(
            [event for event in ada.received() if event[0] != "rooms"],
            [("joined", "Grace")],
        )
        grace.close()
        self.assertEqual(ada.received(), [("left", "Grace"), ("rooms", [["lobby", 1]])])

    def test_roomsAreAnnounced(self) -> None:
        """
        Everybody learns which rooms there are; an empty one is forgotten, except the lobby.
        """
        ada = Client(self.server)
        ada.connect("/", auth={"nick": "Ada"})
        self.assertEqual(self.events(ada, "rooms"), [[["lobby", 0]]])
        grace = self.come("Grace", room="hut")
        self.assertEqual(self.events(ada, "rooms"), [[["lobby", 0], ["hut", 1]]])
        self.ask(grace, "join", "lobby")
        self.assertEqual(self.events(ada, "rooms"), [[["lobby", 0]], [["lobby", 1]]])
        self.assertEqual(list(self.chat.open), ["lobby"])

    def test_tooManyRooms(self) -> None:
        """
        The number of rooms has a limit; a client that asks for one more stays in its room.
        """
        for n in range(chat.MAX_ROOMS - 1):
            self.come("Ada", room=f"room {n}")
        grace = self.come("Grace", room="room 1")
        self.assertRefused(grace, "join", "one more")
        self.assertEqual(len(self.chat.open), chat.MAX_ROOMS)
        self.ask(grace, "say", "1", "still here")
        self.ask(grace, "join", "room 2")

    def test_sameRoomAgain(self) -> None:
        """
        A client that asks for its own room again stays, and so does the history.
        """
        ada = self.come("Ada", room="hut")
        self.ask(ada, "say", "1", "Hello")
        self.assertEqual(len(self.ask(ada, "join", "hut")["said"]), 1)
        self.assertEqual(ada.received(), [])

    def test_comeBackBeforeTheLossIsNoticed(self) -> None:
        """
        The same key takes the place of its former connection: same name, and no news to the others.
        """
        grace = self.come("Grace", room="lobby")
        former = self.come("Ada", key="secret", room="lobby")
        grace.received()
        returned = self.come("Ada", key="secret")
        answer = self.ask(returned, "join", "lobby")
        self.assertEqual((answer["you"], answer["people"]), ("Ada", ["Grace", "Ada"]))
        self.assertEqual([name for name, *_ in grace.received()], ["rooms", "rooms"])
        self.assertEqual(former.received()[-1], ("replaced",))
        self.assertEqual(former.disconnections, ["/"])
        returned.close()
        self.assertEqual(self.events(grace, "left"), ["Ada"])


class MessageTests(ChatTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ada = self.come("Ada", key="ada's", room="lobby")
        self.grace = self.come("Grace", key="grace's", room="lobby")
        self.elsewhere = self.come("Alan", room="hut")
        self.ada.received()
        self.author = chat.authorOf("ada's", "lobby")

    def test_textReachesTheOthersInTheRoom(self) -> None:
        self.assertEqual(self.ask(self.ada, "say", "1", "Hello\nyou"), 1000)
        self.assertEqual(
            self.events(self.grace, "said"),
            [{"id": "1", "nick": "Ada", "author": self.author, "time": 1000, "text": "Hello\nyou"}],
        )
        self.assertEqual(self.events(self.ada, "said"), [])
        self.assertEqual(self.events(self.elsewhere, "said"), [])

    def test_controlCharactersAreLeftOut(self) -> None:
        self.ask(self.ada, "say", "1", "a\x00\x1b[31mb\ud800c\td")
        self.assertEqual(self.events(self.grace, "said")[0]["text"], "a[31mbc\td")

    def test_sentAgain(self) -> None:
        """
        A client that missed the answer asks again by the same id: others get it once, the answer is the same.
        """
        self.ask(self.ada, "say", "1", "Hello")
        self.clock.advance(7)
        self.assertEqual(self.ask(self.ada, "say", "1", "Hello"), 1000)
        self.assertEqual(len(self.events(self.grace, "said")), 1)
        self.assertEqual(len(self.ask(self.ada, "join", "lobby")["said"]), 1)

    def test_idOfSomebodyElse(self) -> None:
        """
        Nobody can keep a message of another from being sent by using its id first.
        """
        self.ask(self.grace, "say", "1", "mine")
        self.assertEqual(self.ask(self.ada, "say", "1", "Hello"), 1000.001)
        self.assertEqual(self.events(self.grace, "said")[0]["text"], "Hello")

    def test_newcomerGetsTheNewest(self) -> None:
        """
        A room keeps so many messages and no more; those of the newcomer's key have the newcomer's mark.
        """
        for n in range(chat.KEPT_MESSAGES + 5):
            self.ask(self.ada, "say", str(n), f"text {n}")
        self.ask(self.grace, "say", "last", "the last")
        self.grace.close()
        answer = self.ask(self.come("Grace", key="grace's"), "join", "lobby")
        said = answer["said"]
        self.assertEqual(len(said), chat.KEPT_MESSAGES)
        self.assertEqual([said[0]["text"], said[0]["author"]], ["text 6", self.author])
        self.assertEqual([said[-1]["text"], said[-1]["author"]], ["the last", answer["author"]])
        self.assertNotEqual(answer["author"], self.author)
        self.assertNotIn("ada's", repr(said))

    def test_historyOutlivesThePeople(self) -> None:
        """
        The messages of a room that everybody has left are there for a day.
        """
        self.ask(self.elsewhere, "say", "1", "Hello")
        self.elsewhere.close()
        self.assertNotIn("hut", self.chat.open)
        told = self.ask(self.come("Ada"), "join", "hut")["said"]
        self.assertEqual([said["text"] for said in told], ["Hello"])
        for _ in range(25):
            self.clock.advance(3600)
        self.assertEqual(self.ask(self.come("Grace"), "join", "hut")["said"], [])

    def test_onlyMessagesAreKept(self) -> None:
        """
        Coming, going and typing are not in the history.
        """
        self.ada.emit("typing", True)
        self.ask(self.grace, "join", "hut")
        self.assertEqual(self.successResultOf(self.chat.to("lobby").history()), [])

    def test_picture(self) -> None:
        """
        A picture is named in its message, to those who are here and to those who come, and fetched by its id.
        """
        self.assertEqual(self.ask(self.ada, "picture", "1", PNG), 1000)
        named = {"id": "1", "nick": "Ada", "author": self.author, "time": 1000, "type": "image/png"}
        self.assertEqual(self.events(self.grace, "said"), [named])
        self.assertEqual(self.ask(self.grace, "fetch", "1"), PNG)
        self.assertEqual(self.ask(self.elsewhere, "join", "lobby")["said"], [named])
        self.assertEqual(self.ask(self.elsewhere, "fetch", "1"), PNG)
        self.ask(self.elsewhere, "join", "hut")
        self.assertIn("no longer kept", self.assertRefused(self.elsewhere, "fetch", "1"))

    def test_pictureOfSomebodyElse(self) -> None:
        """
        A picture is not replaced by another one with its id.
        """
        self.ask(self.ada, "picture", "1", PNG)
        self.ask(self.grace, "picture", "1", PNG + b"spam")
        self.assertEqual(self.ask(self.grace, "fetch", "1"), PNG)

    def test_oldPicturesAreForgotten(self) -> None:
        for n in range(KEPT_PICTURES + 1):
            self.ask(self.ada, "picture", str(n), PNG)
        self.assertRefused(self.grace, "fetch", "0")
        self.assertEqual(self.ask(self.grace, "fetch", "1"), PNG)
        self.assertEqual(len(self.chat.open["lobby"].pictures), KEPT_PICTURES)

    def test_kindOfPicture(self) -> None:
        """
        The first bytes tell what a picture is; what is none, or could hold a script, is refused.
        """
        for begin, kind in (
            (PNG, "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF87a", "image/gif"),
            (b"GIF89a", "image/gif"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
        ):
            self.assertEqual(checks.pictureType(begin), kind)
        for data in b"", b"<svg xmlns=", b"RIFF\x10\0\0\0WAVE", b"\x89PNG", b"<!doctype html>":
            self.assertRefused(self.ada, "picture", "1", data)
        self.assertEqual(self.events(self.grace, "said"), [])

    def test_largestPicture(self) -> None:
        """
        The limit on pictures holds, and one at the limit passes maxPayload on long polling too.
        """
        largest = PNG.ljust(checks.MAX_PICTURE, b"\0")
        self.assertEqual(self.ask(self.ada, "picture", "1", largest), 1000)
        self.assertRefused(self.ada, "picture", "2", largest + b"\0")
        self.assertLess(checks.MAX_PICTURE * 4 / 3 + 1000, Settings().maxPayload)

    def test_typing(self) -> None:
        self.ada.emit("typing", True)
        self.ada.emit("typing", False)
        self.assertEqual(
            self.grace.received(),
            [("rooms", [["lobby", 2], ["hut", 1]]), ("typing", "Ada", True), ("typing", "Ada", False)],
        )
        self.assertEqual(self.events(self.ada, "typing"), [])

    def test_nothingGoesOutFromNoRoom(self) -> None:
        nobody = self.come("Nobody")
        for event, *args in ("say", "1", "text"), ("picture", "1", PNG), ("fetch", "1"), ("typing", True):
            self.assertIn("no room", self.assertRefused(nobody, event, *args))

    def test_wrongArguments(self) -> None:
        for wrong in None, 5, [], {}, "", "x" * (checks.MAX_TEXT + 1), b"bytes":
            self.assertRefused(self.ada, "join", wrong)
            self.assertRefused(self.ada, "say", "1", wrong)
            self.assertRefused(self.ada, "say", wrong, "text")
            self.assertRefused(self.ada, "picture", "1", wrong)
            self.assertRefused(self.ada, "fetch", wrong)
        self.assertEqual(self.events(self.grace, "said"), [])

    @settings(deadline=None, max_examples=200)
    @given(
        st.sampled_from(["join", "say", "picture", "fetch", "typing"]),
        st.lists(
            st.recursive(
                st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.binary(),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                max_leaves=5,
            ),
            min_size=2,
            max_size=2,
        ),
    )
    def test_anythingIsAnswered(self, event: str, args: list[Any]) -> None:
        """
        Whatever comes is answered, and no handler fails: trial would show what it logged.
        """
        if event in ("join", "fetch", "typing"):
            args = args[:1]
        self.successResultOf(self.elsewhere.call(event, *args))
        self.assertLessEqual(len(self.chat.open), 3)


class PageTests(SynchronousTestCase):
    def get(self, page: Any, path: str) -> tuple[DummyRequest, bytes]:
        """
        Ask the page's resource for a path.
        """
        request = DummyRequest(path.encode().split(b"/"))
        result = getChildForRequest(page, request).render(request)
        if result is not NOT_DONE_YET:
            request.write(result)
        return request, b"".join(request.written)

    def header(self, request: DummyRequest, name: str) -> Any:
        return request.responseHeaders.getRawHeaders(name)

    def folder(self) -> Path:
        """
        A folder to be in, so that what is installed here does not count.
        """
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        return folder

    def test_index(self) -> None:
        request, body = self.get(pages.page(), "")
        self.assertEqual(self.header(request, "content-type"), ["text/html; charset=utf-8"])
        self.assertIn(b'data-path="/socket.io"', body)

    def test_whereTheServerListens(self) -> None:
        _, body = self.get(pages.page(path='/a"b/'), "")
        self.assertIn(b"data-path='/a\"b/'", body)

    def test_files(self) -> None:
        for name, kind in (
            ("chat.js", "javascript"),
            ("chat.css", "text/css"),
            ("favicon.svg", "image/svg+xml"),
        ):
            request, body = self.get(pages.page(), name)
            self.assertIn(kind, self.header(request, "content-type")[0])
            self.assertEqual(body, (pages.STATIC / name).read_bytes())

    def test_clientFromAFolderAbove(self) -> None:
        """
        The client that npm installed is handed out, also in a folder below.
        """
        folder = self.folder()
        installed = folder / pages.CLIENT
        installed.parent.mkdir(parents=True)
        installed.write_bytes(b"/* the client */")
        below = folder / "below"
        below.mkdir()
        os.chdir(below)
        request, body = self.get(pages.page(), "socket.io.min.js")
        self.assertEqual(body, b"/* the client */")
        self.assertEqual(self.header(request, "content-type"), ["text/javascript"])

    def test_clientByName(self) -> None:
        folder = self.folder()
        (folder / "mine.js").write_bytes(b"/* mine */")
        self.patch(os, "environ", {"TXREALTIME_CLIENT": str(folder / "mine.js")})
        self.assertEqual(self.get(pages.page(), "socket.io.min.js")[1], b"/* mine */")
        (folder / "other.js").write_bytes(b"/* other */")
        self.assertEqual(self.get(pages.page("other.js"), "socket.io.min.js")[1], b"/* other */")

    def test_clientFromTheNetwork(self) -> None:
        """
        Without an installed client the browser is sent to a CDN that the page's security policy names.
        """
        self.patch(os, "environ", {"TXREALTIME_CLIENT": str(self.folder() / "absent.js")})
        request, _ = self.get(pages.page(), "socket.io.min.js")
        self.assertEqual(request.responseCode, 302)
        [location] = self.header(request, "location")
        _, body = self.get(pages.page(), "")
        self.assertIn(location.encode().rpartition(b"/npm/")[0], body)


class ServerTests(SynchronousTestCase):
    def test_makeServer(self) -> None:
        """
        The settings are the server's, and the chat is in its default namespace.
        """
        server = chat.makeServer(reactor=Clock(), pingInterval=7)
        self.assertEqual(server.settings.pingInterval, 7)
        ada = Client(server)
        self.successResultOf(ada.connect("/", auth={"nick": "Ada"}))
        self.assertEqual(self.successResultOf(ada.call("join", "lobby"))["you"], "Ada")

    def test_tac(self) -> None:
        """
        The .tac file makes an application of the chat and of what listens.
        """
        services = list(IServiceCollection(loadApplication(str(ROOT / "tac" / "chat.tac"), "python")))
        self.assertEqual([type(service) for service in services], [Server, StreamServerEndpointService])
