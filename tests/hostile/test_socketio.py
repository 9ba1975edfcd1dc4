"""
Socket.IO packets that mean no good.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from tests.hostile.means import SECRET, HostileTestCase, callsOf, event, keptBy, peakOf
from tests.memory import TEXT, WebSocket, clientFrame
from txrealtime import CloseReason, LimitExceeded, Namespace, Socket

MB = 1 << 20

PLACEHOLDER = {"_placeholder": True, "num": 0}


class PacketTests(HostileTestCase):
    """A packet that is none ends the session, and a line in the log says why and holds nothing of it."""

    def assertEnds(self, reason: str, why: str, *messages: str | bytes) -> None:
        client = self.join()
        for message in messages:
            client.send(message)
        self.assertClosed(client, 1000, reason)
        self.assertEqual((messages, self.ends), (messages, [reason]))
        self.assertIn(why, self.log)
        self.assertEqual(self.heard, [])
        self.ends.clear()
        self.logged.clear()
        self.assertBystander()

    # -- attachments -------------------------------------------------------------------

    def test_attachmentCounts(self) -> None:
        for count in ("0", "11", "99", "999999999", "9999999999", "-1", "+1", "1.5", "1e1", "", "\u0661"):
            self.assertEnds("forced close", ": ", f'45{count}-["a",{json.dumps(PLACEHOLDER)}]', b"x")

    def test_attachmentsOfPacketsThatHaveNone(self) -> None:
        for type in "012346":
            if type != "6":
                self.assertEnds("forced close", "attachments on", f"4{type}1-[]")
        self.assertEnds("forced close", "", '461-["no id"]', b"x")

    def test_unannounced(self) -> None:
        self.assertEnds("forced close", "no packet announced", SECRET.encode())
        self.assertEnds("forced close", "no packet announced", "b" + "QUJD")

    def test_extra(self) -> None:
        client = self.join()
        client.send(f'451-["a",{json.dumps(PLACEHOLDER)}]')
        client.send(b"one")
        self.assertEqual(self.heard, [("a", b"one")])
        client.send(b"two")
        self.assertClosed(client, 1000, "forced close")

    def test_interleaved(self) -> None:
        self.assertEnds(
            "forced close",
            "attachments were expected",
            f'452-["a",{json.dumps(PLACEHOLDER)}]',
            b"x",
            event("b"),
        )

    def test_missing(self) -> None:
        """
        Those that never come hold what came before them, at most maxAttachments of maxPayload each, and no
        longer than the client lives.
        """
        client = self.join()
        places = ",".join(json.dumps({"_placeholder": True, "num": n}) for n in range(10))
        attachment = clientFrame(2, b"x" * 1_000_000)

        def attack() -> None:
            client.send(f'4510-["a",{places}]')
            for _ in range(9):
                client.link.deliver(attachment)

        def attackAndGo() -> None:
            attack()
            client.link.lose()

        kept = keptBy(attack)
        self.assertLess(kept, 9 * 1_000_000 + MB)
        self.assertGreater(kept, 9 * 1_000_000)
        client.link.lose()
        client = self.join()
        self.assertLess(keptBy(attackAndGo), MB // 4)
        self.assertEqual(self.heard, [])

    def test_beforeConnect(self) -> None:
        """No attachment is kept of a client that is in no namespace."""
        client = self.openWebSocket()
        client.send(f'451-["{SECRET}",{json.dumps(PLACEHOLDER)}]')
        self.assertClosed(client, 1000, "forced server close")
        self.assertIn("attachments before a namespace was joined", self.log)

    def test_placeholders(self) -> None:
        for number in (
            "-1",
            "1",
            "0.5",
            "0.0",
            "1e0",
            '"0"',
            "null",
            "true",
            "false",
            "[]",
            "{}",
            "1e99",
            "99999999999999999999",
        ):
            self.assertEnds(
                "forced close", "placeholder", f'451-["a",{{"_placeholder":true,"num":{number}}}]', b"x"
            )
        self.assertEnds("forced close", "placeholder", '451-["a",{"_placeholder":true}]', b"x")

    def test_duplicatePlaceholder(self) -> None:
        """Two places for one attachment: both get it, as with the JavaScript parser."""
        client = self.join()
        client.send(f'451-["a",{json.dumps(PLACEHOLDER)},{json.dumps(PLACEHOLDER)}]')
        client.send(b"x")
        self.assertEqual(self.heard, [("a", b"x", b"x")])

    def test_forgedPlaceholder(self) -> None:
        """In a plain event it is a dictionary like any other."""
        client = self.join()
        client.send(event("a", PLACEHOLDER))
        self.assertEqual(self.heard, [("a", PLACEHOLDER)])

    def test_placeholderForTheName(self) -> None:
        self.assertEnds("forced close", "", f"451-[{json.dumps(PLACEHOLDER)}]", b"connect")

    # -- events ------------------------------------------------------------------------

    def test_reservedNames(self) -> None:
        for name in (
            "connect",
            "connect_error",
            "disconnect",
            "disconnecting",
            "newListener",
            "removeListener",
        ):
            self.assertEnds("forced close", "reserved", event(name, SECRET))
            self.assertEnds("forced close", "reserved", f'451-["{name}",{json.dumps(PLACEHOLDER)}]', b"x")

    def test_names(self) -> None:
        for text in (
            "42",
            "42[]",
            "42{}",
            "42null",
            '42"a"',
            "42[null]",
            "42[{}]",
            "42[[]]",
            "42[true]",
            '42[{"toString":"x"}]',
            "427[]",
        ):
            self.assertEnds("forced close", "", text)

    def test_namesOfAttributes(self) -> None:
        """A name is looked up among the events registered, nowhere else."""
        client = self.join()
        names = [
            "__class__",
            "__init__",
            "__proto__",
            "constructor",
            "disconnect_",
            "sockets",
            "rooms",
            "",
            "\0",
        ]
        for name in names:
            client.send(event(name))
        self.assertEqual([name for name, *_ in self.heard], names)

    def test_ids(self) -> None:
        self.assertEnds("forced close", "ack id of 100 digits", event("a", id="9" * 100))
        self.assertEnds("forced close", "ack id of 500000 digits", event("a", id="9" * 500_000))
        for id in ("-1", "1.5", "0x1", "\u0661"):
            self.assertEnds("forced close", "", event("a", id=id))
        client = self.join()
        client.send(event("echo", id=9_007_199_254_740_991))
        self.assertEqual(client.messages(), ["439007199254740991[]"])

    def test_digitsAreLinear(self) -> None:
        """A megabyte of digits costs no more than a megabyte of anything."""
        client = self.join()
        self.assertLess(peakOf(lambda: client.send("42" + "9" * 999_000)), 8 * MB)
        self.assertClosed(client, 1000, "forced close")
        client = self.join()
        data = clientFrame(TEXT, b"42" + b"9" * 999_000)
        self.assertLess(callsOf(lambda: client.link.deliver(data)), 500)

    # -- JSON --------------------------------------------------------------------------

    def test_deepNesting(self) -> None:
        for depth in (10_000, 400_000):
            for opening, closing in (("[", "]"), ('{"a":', "}")):
                if depth * len(opening) > 900_000:
                    continue
                text = '42["a",' + opening * depth + "0" + closing * depth + "]"
                if len(text) < 1_000_000:
                    self.assertEnds("forced close", "nested too deeply", text)
            self.assertEnds("forced close", "", '42["a",' + "[" * depth)

    def test_deepNestingAroundAttachments(self) -> None:
        for depth in (500, 900, 5000):
            client = self.join()
            client.send('451-["a",' + "[" * depth + json.dumps(PLACEHOLDER) + "]" * depth + "]")
            client.send(b"x")
            self.assertTrue(self.heard.pop() if self.heard else self.ends.pop())

    def test_notJSON(self) -> None:
        for text in (
            "NaN",
            "Infinity",
            "-Infinity",
            "9" * 5000,
            "'a'",
            "01",
            "1.",
            "\ufeff1",
            '"\x01"',
            '"\\x"',
            '"\\ud800',
            "// comment\n1",
            "[1,]",
            "undefined",
        ):
            self.assertEnds("forced close", "", f'42["a",{text}]')

    def test_numbersBeyondAll(self) -> None:
        """1e999 is JSON, and infinity as in JavaScript; JSON cannot say it, so it is not sent on."""
        client = self.join()
        client.send('42["a",1e999,-1e999]')
        self.assertEqual(self.heard, [("a", math.inf, -math.inf)])
        client.send('421["echo",1e999]')
        self.assertEqual(client.messages(), [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_loneSurrogates(self) -> None:
        """JavaScript can send half a pair, and gets it back as it was."""
        client = self.join()
        client.send('421["echo","\\ud800"]')
        self.assertEqual(client.messages(), ['431["\\ud800"]'])
        client.send('42["a","\\ud83d\\ude00"]')
        self.assertEqual(self.heard, [("a", "\U0001f600")])

    def test_longKeys(self) -> None:
        """A key as long as maxPayload is taken; one of 10 MB is too large a message: 1009."""
        client = self.join()
        client.send(event("a", {SECRET * 50_000: 1}))
        self.assertEqual(len(self.heard), 1)
        client.link.deliver(clientFrame(TEXT, event("a", {"k" * 10_000_000: 1}).encode()))
        self.assertClosed(client, 1009)

    def test_manyKeys(self) -> None:
        """Keys that collide, were they hashed as in other languages; memory is a multiple of the text."""
        costs = []
        for count in (4_000, 40_000):
            keys = {f"{number:016b}": 0 for number in range(count)}
            link = self.join().link
            data = clientFrame(TEXT, event("a", keys).encode())
            costs.append(callsOf(lambda link=link, data=data: link.deliver(data)))  # type: ignore[misc]
            self.assertEqual(self.heard.pop(), ("a", keys))
        self.assertLess(costs[1], costs[0] + 200)
        text = "42" + json.dumps(["a"] + [[] for _ in range(240_000)], separators=(",", ":"))
        data = clientFrame(TEXT, text.encode())
        self.assertLess(peakOf(lambda: link.deliver(data)), 40 * MB)

    def test_duplicateKeys(self) -> None:
        client = self.join()
        client.send('42["a",{"k":1,"k":2,"__proto__":{"x":1}}]')
        self.assertEqual(self.heard, [("a", {"k": 2, "__proto__": {"x": 1}})])

    # -- types and namespaces ----------------------------------------------------------

    def test_types(self) -> None:
        for text in ("47", "49", "4x", "4-", "4\0", "4 2", "4"):
            self.assertEnds("forced close", "", text)
        self.assertEnds("forced server close", "CONNECT_ERROR", '44{"message":"no"}')

    def test_connectTwice(self) -> None:
        self.assertEnds("forced server close", "a second CONNECT", "40")

    def test_auth(self) -> None:
        for auth in ('"text"', "[]", "null,", "true", "{", "NaN"):
            client = self.openWebSocket()
            client.send(f"40{auth}")
            self.assertClosed(client, 1000, "forced close")

    def test_namespaceNotJoined(self) -> None:
        self.assertEnds("forced server close", "not joined", f'42/other,["{SECRET}"]')
        self.assertEnds("forced server close", "not joined", "43/other,1[]")
        self.assertEnds("forced server close", "not joined", "41/other,")

    def test_eventBeforeConnect(self) -> None:
        for message in (event(SECRET), "430[]", "41", "44{}"):
            client = self.openWebSocket()
            client.send(message)
            self.assertClosed(client, 1000, "forced server close")

    def test_namespaceNames(self) -> None:
        """An unknown one is refused, and its name, which the client chose, is no path and no pattern."""
        client = self.join()
        for path in ("/" + "x" * 100_000, "/../..", "/%2e", "/.*", "/\0", "/\u202e", "/a?b=c", "/a/b"):
            client.send(f"40{path},")
            (reply,) = client.messages()
            self.assertTrue(str(reply).startswith("44/"), reply)
            self.assertTrue(str(reply).endswith(',{"message":"Invalid namespace"}'))
        self.assertEqual(len(self.server.namespaces), 1)


class ManyTests(HostileTestCase):
    """Much of what is allowed."""

    def test_namespaces(self) -> None:
        """A client gets maxNamespaces of 1,000 that match a pattern, and they go with the client."""
        self.server.mount(re.compile(r"/game/\d+"), Namespace)
        client = self.openWebSocket()
        for number in range(1000):
            client.send(f"40/game/{number},")
        answers = [str(message) for message in client.messages()]
        self.assertEqual(sum(answer.startswith("40/game/") for answer in answers), 100)
        self.assertEqual(
            sum(answer.endswith(',{"message":"Too many namespaces"}') for answer in answers), 900
        )
        self.assertEqual(len(self.server.namespaces), 101)
        client.link.lose()
        self.assertEqual(len(self.server.namespaces), 1)

    def test_connectAndLeave(self) -> None:
        """Over and over: nothing grows."""
        self.server.mount(re.compile(r"/game/\d+"), Namespace)
        client = self.join()

        def attack() -> None:
            for number in range(1000):
                client.send(f"40/game/{number},")
                client.send(f"41/game/{number},")
            client.messages()
            client.link.clear()
            client.link._taken = 0
            client.link.writes.clear()

        attack()
        self.assertLess(keptBy(attack), 200_000)
        self.assertEqual(len(self.server.namespaces), 1)

    def test_rooms(self) -> None:
        """A socket gets maxRooms of 100,000 rooms; then its handler hears why."""
        full: list[str] = []

        @self.server.on("enter")
        def enter(socket: Socket, *rooms: str) -> None:
            try:
                socket.join(*rooms)
            except LimitExceeded as error:
                full.append(str(error))

        client = self.join()

        def attack() -> None:
            for start in range(0, 100_000, 1000):
                client.send(event("enter", *[f"room {number}" for number in range(start, start + 1000)]))

        self.assertLess(keptBy(attack), 12 * MB)
        self.assertEqual(len(full), 90)
        self.assertIn("as many as maxRooms allows", full[0])
        rooms = self.server.namespace().rooms
        self.assertEqual(len(list(rooms)), 10_000)
        client.link.lose()
        self.assertEqual(list(rooms), [])

    def test_events(self) -> None:
        """Those that wait for a slow handler are bounded: reading pauses, and others do not wait."""
        waits: list[Deferred[None]] = []

        @self.server.on("slow")
        def slow(socket: Socket) -> Deferred[None]:
            waits.append(Deferred())
            return waits[-1]

        client = self.join()
        data = clientFrame(TEXT, event("slow").encode()) * (65536 // 16)
        kept = keptBy(lambda: client.link.deliver(data))
        self.assertLess(kept, 2 * MB)
        self.assertFalse(client.link.reading)
        self.assertEqual(len(waits), 1)
        self.assertBystander()
        sid = self.joinPolling()
        body = b"\x1e".join([event("slow").encode()] * 90_000)
        exchanges = []
        self.assertLess(keptBy(lambda: exchanges.append(self.post(sid, body))), 40 * MB)
        self.assertIsNone(self.post(sid, body).response, "the next POST is answered when less waits")
        for _ in range(5000):
            waits[0].callback(None)
            waits[0:1] = []
            if not waits:
                break

    def test_acksOfAClientThatReadsNothing(self) -> None:
        """Acks for a client that does not read wait up to maxBuffered; then the client is closed as slow."""
        self.makeEngine(maxBuffered=500_000)
        client, link = self.joinStuck()
        link.stuck = True
        text = event("echo", "x" * 10_000, id=1)
        most = 0
        for _ in range(1000):
            if self.ends:
                break
            client.send(text)
            most = max(most, self.session.buffered)
        self.assertEqual(self.ends, ["slow consumer"])
        self.assertLessEqual(most, 500_000)
        self.assertLess(link.waiting, 65536 + 20_000)
        self.assertTrue(link.disconnected)


class AckTests(HostileTestCase):
    def asked(self) -> tuple[WebSocket, list[Any]]:
        """A client that has been asked one thing, and what it was taken to answer."""
        answers: list[Any] = []

        @self.server.on("ask me")
        def ask(socket: Socket) -> None:
            socket.call("sure?").addBoth(answers.append)

        client = self.join()
        client.send(event("ask me"))
        self.assertEqual(client.messages(), [event("sure?", id=0)])
        return client, answers

    def test_replay(self) -> None:
        """The first counts; the same again is nothing."""
        client, answers = self.asked()
        for _ in range(1000):
            client.send('430["yes"]')
        self.assertEqual(answers, ["yes"])
        self.assertEqual(self.ends, [])

    def test_foreign(self) -> None:
        """An ack that another client was asked for."""
        client, answers = self.asked()
        other = self.join()
        other.send(f'430["{SECRET}"]')
        self.assertEqual(answers, [])
        client.send('430["mine"]')
        self.assertEqual(answers, ["mine"])

    def test_otherNamespace(self) -> None:
        self.server.namespace("/other")
        client, answers = self.asked()
        client.send("40/other,")
        client.send('43/other,0["x"]')
        self.assertEqual(answers, [])
        client.link.lose()
        self.assertEqual(len(answers), 1)

    def test_flood(self) -> None:
        """Acks of what nobody asked cost nothing."""
        client = self.join()
        data = b"".join(clientFrame(TEXT, f'43{number}["x"]'.encode()) for number in range(3000))
        client.link.deliver(data)
        self.assertLess(keptBy(lambda: client.link.deliver(data)), 50_000)
        self.assertEqual((self.ends, client.frames()), ([], []))

    def test_malformed(self) -> None:
        for text in ("43[]", "430", "430{}", "430null", '430"x"', "43-1[]"):
            client = self.join()
            client.send(text)
            self.assertClosed(client, 1000, "forced close")


class AdmissionTests(HostileTestCase):
    """While the application decides whether to let a client in."""

    def makeEngine(self, allowRequest: Any = None, **settings: Any) -> None:
        super().makeEngine(allowRequest, **settings)
        self.waits: list[Deferred[None]] = []
        self.cancelled = 0

        def cancel(wait: Deferred[None]) -> None:
            self.cancelled += 1

        @self.server.namespace("/slow").onConnect
        def hesitate(socket: Socket) -> Deferred[None]:
            self.waits.append(Deferred(cancel))
            return self.waits[-1]

        self.told: list[str] = []
        self.server.namespace("/slow").onDisconnect(lambda socket, reason: self.told.append(reason))

    def attacker(self) -> WebSocket:
        client = self.openWebSocket()
        client.send("40/slow,")
        return client

    def test_connectTwice(self) -> None:
        client = self.attacker()
        client.send("40/slow,")
        self.assertClosed(client, 1000, "forced server close")
        self.assertEqual((len(self.waits), self.cancelled, self.told), (1, 1, []))

    def test_eventMeanwhile(self) -> None:
        client = self.attacker()
        client.send(f'42/slow,["{SECRET}"]')
        self.assertClosed(client, 1000, "forced server close")
        self.assertEqual(self.cancelled, 1)

    def test_attachmentMeanwhile(self) -> None:
        client = self.attacker()
        client.send(f'451-/slow,["a",{json.dumps(PLACEHOLDER)}]')
        self.assertClosed(client, 1000, "forced server close")
        self.assertEqual(self.cancelled, 1)

    def test_disconnectMeanwhile(self) -> None:
        client = self.attacker()
        client.send("41/slow,")
        self.assertEqual(self.cancelled, 1)
        client.send("40/slow,")
        self.waits[-1].callback(None)
        (welcome,) = client.messages()
        self.assertTrue(str(welcome).startswith("40/slow,"))
        client.link.lose()
        self.assertEqual(self.told, ["transport close"])

    def test_goneMeanwhile(self) -> None:
        for _ in range(50):
            self.attacker().link.lose()
        self.assertEqual((self.cancelled, self.told), (50, []))

    def test_connectAndDisconnectFlood(self) -> None:
        client = self.openWebSocket()
        for _ in range(500):
            client.send("40/slow,")
            client.send("41/slow,")
        self.assertEqual((self.cancelled, self.told, client.messages()), (500, [], []))

    def test_neverDecided(self) -> None:
        """A client may wait as long as the application makes it; its place among the namespaces is taken."""
        self.makeEngine(maxNamespaces=1)
        client = self.attacker()
        client.send("40")
        self.assertEqual(client.messages(), ['44{"message":"Too many namespaces"}'])

    def test_neverJoins(self) -> None:
        """connectTimeout ends a session that joins nothing, also one that is refused all the time."""
        client = self.openWebSocket()
        for _ in range(44):
            client.send("40/unknown,")
            if "2" in client.messages():
                client.send("3")
            self.advance(1)
        self.advance(2)
        self.assertClosed(client, 1000, "forced server close")
        self.assertIn("no namespace joined within connectTimeout", self.log)


class ClosingTests(HostileTestCase):
    """Handlers that end what they handle."""

    def test_closeInAHandler(self) -> None:
        """The rest of the payload is dropped, and nothing is acknowledged."""
        called: list[str] = []

        @self.server.on("go")
        def go(socket: Socket, how: str) -> str:
            called.append(how)
            if how == "close":
                socket.disconnect(close=True)
            elif how == "disconnect":
                socket.disconnect()
            else:
                socket.session.abort(self.reason)
            return "gone"

        self.reason = CloseReason.FORCED_CLOSE
        for how in ("close", "disconnect", "abort"):
            client = self.join()
            frames = clientFrame(TEXT, event("go", how, id=1).encode()) * 5
            client.link.deliver(frames)
            self.assertEqual(called, [how])
            self.assertNotIn(
                '431["gone"]', [frame.payload.decode() for frame in client.frames() if frame.opcode == TEXT]
            )
            called.clear()
            client.link.lose()

    def test_closeInAnAsyncHandler(self) -> None:
        waits: list[Deferred[None]] = []

        @self.server.on("wait")
        async def wait(socket: Socket) -> str:
            waits.append(Deferred())
            await waits[-1]
            return "late"

        client = self.join()
        client.send(event("wait", id=1))
        client.send(event("wait", id=2))
        client.link.lose()
        waits[0].callback(None)
        # What was sent before is handled, and answered to nobody.
        self.assertEqual(len(waits), 2)
        waits[1].callback(None)
        self.assertEqual(self.ends, ["transport close"])


class LongWayPacketTests(PacketTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}
