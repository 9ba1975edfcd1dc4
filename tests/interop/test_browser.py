"""
The chat in Chromium, as people meet it: `twistd -n realtime` serves it, chromedriver presses the keys.

TXREALTIME_SCREENSHOTS=1 in the environment renews the pictures in docs/images.
"""

from __future__ import annotations

import hashlib
import random
import signal
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.browser import (
    CHROMEDRIVER,
    CHROMIUM,
    DESKTOP,
    PHONE,
    ChatServer,
    Window,
    dusk,
    png,
    webdriver,
)
from tests.support import ROOT, requirePart
from txrealtime.chat import checks, pages


class PageTestCase(SynchronousTestCase):
    """Tests of a server of the chat, with browsers."""

    ARGUMENTS: tuple[str, ...] = ()

    def setUp(self) -> None:
        requirePart(webdriver, "selenium is not installed")
        requirePart(CHROMIUM and CHROMEDRIVER, "no chromium, or no chromedriver (Debian: chromium-driver)")
        requirePart((ROOT / pages.CLIENT).exists(), "no socket.io-client in node_modules")
        self.server = ChatServer(Path(self.mktemp()).resolve(), *self.ARGUMENTS)
        self.addCleanup(lambda: self.assertNotIn("Traceback", self.server.stop()))
        self.server.start()

    def window(self, size: tuple[int, int] = DESKTOP) -> Window:
        """
        A browser of somebody else than before.
        """
        window = Window(self.server.url, str(Path(self.mktemp()).resolve()), size)
        self.addCleanup(window.driver.quit)
        return window

    def file(self, name: str, content: bytes) -> Path:
        """
        A file to send.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder.resolve() / name
        path.write_bytes(content)
        return path


class ChatPageTests(PageTestCase):
    def test_twoPeopleChat(self) -> None:
        """
        Two people see one another come, type, and write, and their own ticks; both are upgraded to WebSocket.
        """
        ada, grace = self.window(), self.window(PHONE)
        ada.enter("Ada")
        ada.sees("#link-log span", "Connecting…", "Connected by polling", "Upgraded to WebSocket")
        ada.sees("#link-text", "WebSocket")
        ada.sees("#room-count", "Only you so far")
        grace.enter("Grace")
        grace.sees("#link-log span", "Connecting…", "Connected by polling", "Upgraded to WebSocket")
        ada.sees("#log .event", "Grace joined")
        ada.sees("#people .grow", "Ada", "Grace")
        grace.sees("#people .grow", "Grace", "Ada")
        grace.sees("#room-count", "2 people here")

        ada["#text"].send_keys("Good eve")
        grace.seesTyping(ada, "Ada is typing")
        ada.say("ning!")
        grace.sees("#log .said", "Good evening!")
        grace.sees(".typing.on")
        grace.sees("#log .message .name", "Ada")
        ada.sees("#log .mine[data-state=delivered] .said", "Good evening!")

        grace.say("It is.")
        ada.sees("#log .said", "Good evening!", "It is.")
        grace.sees("#log .mine[data-state=delivered] .said", "It is.")
        grace.driver.quit()
        ada.sees("#log .event", "Grace joined", "Grace left")
        self.assertEqual(ada.complaints(), [])

    def test_pictureArrivesByteForByte(self) -> None:
        """
        A received picture is saved as the very file that was sent.
        """
        file = self.file("dusk.png", png(600, 400, dusk))
        ada, grace = self.window(), self.window(PHONE)
        ada.enter("Ada")
        grace.enter("Grace")
        grace.say("Are you there already?")
        ada.sees("#log .said", "Are you there already?")
        ada.say("Since noon. The line is thin up here, but what I wrote in the tunnel went out by itself.")
        ada.pick(file)
        ada.waitFor("both ticks", lambda: len(ada.texts("#log .mine[data-state=delivered]")) == 2)
        received, sent = hashlib.sha256(grace.save()), hashlib.sha256(file.read_bytes())
        self.assertEqual(received.hexdigest(), sent.hexdigest())

        # Somebody who comes later gets it as well, as the answer to a question.
        alan = self.window()
        alan.enter("Alan")
        self.assertEqual(alan.save(), file.read_bytes())

        alan.say("Hello you two. Is that the lake from your talk?")
        grace.waitFor("Alan's words", lambda: len(grace.texts("#log .said")) == 3)
        grace.say("Oh, lovely!")
        ada.seesAmong("#log .said", "Oh, lovely!")
        ada.say("Yes 🙂")
        grace.seesAmong("#log .said", "Yes 🙂")
        alan["#text"].send_keys("I wi")
        for window in ada, grace:
            window.seesTyping(alan, "Alan is typing")
        ada.photograph("chat-desktop")
        grace.photograph("chat-phone")
        for window in ada, grace, alan:
            self.assertEqual(window.complaints(), [])

    def test_largePictureIsSentSmaller(self) -> None:
        """
        A picture over the limit arrives as a JPEG below it; what is no picture is refused with a message.
        """
        noise = random.Random(1).randbytes
        file = self.file("noise.png", png(700, 700, lambda x, y: tuple(noise(3))))  # type: ignore[arg-type, return-value]
        self.assertGreater(file.stat().st_size, checks.MAX_PICTURE)
        ada, grace = self.window(), self.window()
        ada.enter("Ada")
        grace.enter("Grace")
        ada.pick(file)
        received = grace.save()
        self.assertEqual(checks.pictureType(received), "image/jpeg")
        self.assertLessEqual(len(received), checks.MAX_PICTURE)
        ada.pick(self.file("notes.txt", b"no picture"))
        ada.sees("#notice:not([hidden])", "A picture can be PNG, JPEG, GIF or WebP.")
        ada.pick(self.file("fake.png", b"no picture either"))
        refusal = "A picture can be PNG, JPEG, GIF or WebP. Try again"
        ada.sees("#log .again", refusal)
        ada.click("#log .again")
        ada.sees("#log .again", refusal)

    def test_pastedAndDropped(self) -> None:
        """
        A picture comes from the clipboard, or is dropped anywhere on the page.
        """
        ada, grace = self.window(), self.window()
        ada.enter("Ada")
        grace.enter("Grace")
        for way in "paste", "drop":
            ada.give(way, png(8, 8, lambda x, y: (30 * x, 30 * y, 90)))
        ada.waitFor("both ticks", lambda: len(ada.texts("#log .mine[data-state=delivered]")) == 2)
        grace.waitFor("both pictures", lambda: len(grace.texts("#log .picture img")) == 2)

    def test_noAnswer(self) -> None:
        """
        A message without an ack is marked; sent again by a click it is delivered, and only once.
        """
        ada, grace = self.window(), self.window()
        ada.enter("Ada")
        grace.enter("Grace")
        self.server.signal(signal.SIGSTOP)
        ada.say("Anybody?")
        ada.sees("#log .again", "The server did not answer. Try again")
        self.server.signal(signal.SIGCONT)
        ada.click("#log .again")
        ada.sees("#log .mine[data-state=delivered] .said", "Anybody?")
        ada.sees("#log .again")
        ada.say("Good.")
        grace.sees("#log .said", "Anybody?", "Good.")

    def test_serverRestart(self) -> None:
        """
        When the server comes back so does everybody, under the same name, and what was written meanwhile is
        delivered once.
        """
        ada, grace = self.window(), self.window()
        ada.enter("Ada", "hut")
        grace.enter("Grace", "hut")
        ada.say("before")
        grace.sees("#log .said", "before")
        self.server.stop()
        for window in ada, grace:
            window.waitFor(
                "offline", lambda w=window: w.texts("#link:not([data-state=connected]) #link-text")
            )
        ada.say("meanwhile")
        ada.sees("#log .mine[data-state=sending] .said", "meanwhile")
        self.server.start()
        for window, others in (ada, ["Ada", "Grace"]), (grace, ["Grace", "Ada"]):
            window.sees("#link[data-state=connected] #link-text", "WebSocket")
            window.sees("#people .grow", *others)
        ada.sees("#log .mine[data-state=delivered] .said", "before", "meanwhile")
        grace.sees("#log .said", "before", "meanwhile")
        grace.say("after")
        ada.sees("#log .said", "before", "meanwhile", "after")

    def test_lineLost(self) -> None:
        """
        A person who loses the line and comes back is the same in the same room, and misses nothing.
        """
        ada, grace = self.window(PHONE), self.window()
        ada.enter("Ada")
        grace.enter("Grace")
        ada.say("into the tunnel")
        grace.sees("#log .said", "into the tunnel")
        ada.offline(True)
        ada.waitFor("offline", lambda: ada.texts("#link:not([data-state=connected])"))
        ada.say("in the tunnel")
        grace.say("Hello?")
        grace.sees("#log .mine[data-state=delivered] .said", "Hello?")
        ada.offline(False)
        ada.sees("#link[data-state=connected] #link-text", "WebSocket")
        ada.sees("#log .said", "into the tunnel", "Hello?", "in the tunnel")
        ada.sees("#me-name", "Ada")
        grace.sees("#log .said", "into the tunnel", "Hello?", "in the tunnel")
        grace.sees("#people .grow", "Grace", "Ada")

    def test_rooms(self) -> None:
        """
        A room is a link: people go there and back, names are unique there, and what was said is kept.
        """
        ada, grace = self.window(), self.window()
        ada.enter("Ada")
        grace.enter("ada")
        grace.sees("#me-name", "ada 2")
        ada.say("in the lobby")
        grace.sees("#log .said", "in the lobby")
        grace["#room"].send_keys("cats & dogs\n")
        grace.sees("#room-name", "cats & dogs")
        grace.sees("#log .said")
        grace.sees("#me-name", "ada")
        ada.sees("#log .event", "ada 2 joined", "ada 2 left")
        ada.sees("#rooms .grow", "lobby", "cats & dogs")
        ada.sees("#rooms .count", "1", "1")
        ada.click("#rooms li:last-child a")
        ada.sees("#room-name", "cats & dogs")
        grace.sees("#log .event", "Ada 2 joined")
        grace.driver.back()
        grace.sees("#room-name", "lobby")
        grace.sees("#log .said", "in the lobby")
        # The same tab, loaded again, needs no form.
        grace.driver.refresh()
        grace.sees("#log .said", "in the lobby")
        grace.sees("#me-name", "ada")

    def test_links(self) -> None:
        """Addresses in messages are links, without the point behind them; nothing else is."""
        ada, grace = self.window(), self.window()
        ada.enter("Ada")
        grace.enter("Grace")
        text = (
            "See https://a.example/x_(y)?q=1&r=<2. Or (http://b.example), javascript:alert(1) "
            "and https://c.example/é!"
        )
        ada.say(text)
        for window in ada, grace:
            window.sees("#log .said", text)
            links = window.driver.execute_script(
                "return [...document.querySelectorAll('#log .said a')].map("
                "(a) => [a.textContent, a.protocol, a.target, a.rel])"
            )
            rest = ["_blank", "noopener noreferrer nofollow"]
            self.assertEqual(
                links,
                [
                    ["https://a.example/x_(y)?q=1&r=", "https:", *rest],
                    ["http://b.example", "http:", *rest],
                    ["https://c.example/é", "https:", *rest],
                ],
            )
            self.assertEqual(window.complaints(), [])

    def test_oneTick(self) -> None:
        """A message that the server has taken has one tick, with its meaning in words."""
        ada = self.window()
        ada.enter("Ada")
        ada.say("hello")
        ada.sees("#log .mine[data-state=delivered] .said", "hello")
        path = ada.driver.execute_script(
            "return document.querySelector('#icon-delivered path').getAttribute('d')"
        )
        self.assertEqual(path.count("M"), 1)
        title = ada.driver.execute_script("return document.querySelector('.mine .stamp [title]').title")
        self.assertEqual(title, "Taken by the server")

    def test_panelOfAPhone(self) -> None:
        """The page behind the open panel takes no focus; Escape gives the focus back."""
        ada = self.window(PHONE)
        ada.enter("Ada")
        ada.sees("#link-text", "WebSocket")
        inert = "return document.getElementById('talk').inert"
        focus = "return document.activeElement.id"
        self.assertFalse(ada.driver.execute_script(inert))
        ada.click("#side-open")
        ada.waitFor("the panel", lambda: ada.driver.execute_script(inert))
        ada.driver.execute_script(
            "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))"
        )
        self.assertFalse(ada.driver.execute_script(inert))
        self.assertEqual(ada.driver.execute_script(focus), "side-open")
        self.assertEqual(ada.complaints(), [])

    def test_longName(self) -> None:
        """A name that is too long is kept, and refused with the reason, until it is short enough."""
        ada = self.window()
        ada.driver.get(ada.url)
        ada["#nick"].send_keys("A" * 25)
        ada.sees("#entry-error", "A name has at most 24 characters; this one has 25.")
        value = "return document.getElementById('nick').value.length"
        self.assertEqual(ada.driver.execute_script(value), 25)
        ada["#enter"].click()
        self.assertFalse(ada.driver.execute_script("return document.getElementById('entry').hidden"))
        ada["#nick"].send_keys("\ue003")  # backspace, as WebDriver writes it
        ada["#enter"].click()
        ada.sees("#link-text", "WebSocket")

    def test_markupStaysText(self) -> None:
        """
        HTML in a name, a room or a message is shown as it was written.
        """
        markup = "<img src=x onerror=alert(1)>"
        nick, room = "<b>Eve</b>", "<i>room</i>"
        ada, eve = self.window(), self.window()
        ada.enter("Ada", room)
        eve.enter(nick, room)
        eve.say(markup)
        ada.sees("#log .said", markup)
        ada.sees("#log .name", nick)
        ada.sees("#people .grow", "Ada", nick)
        ada.seesAmong("#rooms .grow", room)
        self.assertEqual(ada.texts("#chat :is(b, i:not(.dots i), .said *)"), [])
        self.assertEqual(ada.complaints(), [])


class WorkersPageTests(PageTestCase):
    """The page on four workers."""

    ARGUMENTS = ("--workers", "4")

    def setUp(self) -> None:
        super().setUp()
        log = self.server.log
        until = time.monotonic() + 60
        while "serving Socket.IO at" not in log.read_text():
            self.assertLess(time.monotonic(), until, log.read_text())
            time.sleep(0.1)

    def workerOf(self, window: Window) -> str:
        """Return the mark of the worker that has the page's session: the end of the sid."""
        return str(window.driver.execute_script("return socket.io.engine.id"))[-4:]

    def test_twoWorkers(self) -> None:
        """People on two workers see one another come, type, write, send pictures, and go."""
        ada, grace = self.window(), self.window()
        ada.enter("Ada")
        grace.enter("Grace")
        grace.sees("#link[data-state=connected] #link-text", "WebSocket")
        while self.workerOf(grace) == self.workerOf(ada):
            grace.driver.refresh()
            grace.sees("#link[data-state=connected] #link-text", "WebSocket")
        ada.sees("#people .grow", "Ada", "Grace")
        grace.sees("#people .grow", "Grace", "Ada")
        ada["#text"].send_keys("Good eve")
        grace.seesTyping(ada, "Ada is typing")
        ada.say("ning!")
        grace.sees("#log .said", "Good evening!")
        grace.say("It is.")
        ada.sees("#log .said", "Good evening!", "It is.")
        ada.pick(self.file("dusk.png", png(60, 40, dusk)))
        self.assertEqual(grace.save(), png(60, 40, dusk))
        # Namesakes get numbers, and somebody who comes later the history.
        alan = self.window(PHONE)
        alan.enter("ada")
        alan.sees("#me-name", "ada 2")
        alan.sees("#log .said", "Good evening!", "It is.")
        self.assertEqual(alan.save(), png(60, 40, dusk))
        for window in ada, grace, alan:
            window.sees("#room-count", "3 people here")
            window.sees("#rooms .count", "3")
        alan.driver.quit()
        ada.seesAmong("#log .event", "ada 2 left")
        for window in ada, grace:
            self.assertEqual(window.complaints(), [])
