"""
Engine.IO requests and packets that mean no good.
"""

from __future__ import annotations

import re
import string
from typing import Any, ClassVar

from tests.hostile.means import SECRET, HostileTestCase, callsOf, event, peakOf
from tests.memory import Exchange, Link

MB = 1 << 20


class PollingTests(HostileTestCase):
    def assertRefused(self, exchange: Exchange, status: int, code: int, text: str = "") -> None:
        answer = exchange.answer.error
        self.assertEqual(answer[:2], (status, code), answer)
        self.assertIn(text, answer[2])

    # -- two at a time ---------------------------------------------------------------

    def test_twoGETs(self) -> None:
        """The second gets 400, the session ends, and the first returns."""
        sid = self.joinPolling()
        first = self.get(sid)
        self.assertRefused(self.get(sid), 400, 3, "another GET")
        self.assertEqual(first.payload, [b"1"])
        self.assertEqual(self.ends, ["transport error"])
        self.assertRefused(self.get(sid), 400, 1)

    def test_twoPOSTs(self) -> None:
        """While one is not answered yet, since too much of what the one before brought waits."""
        self.makeEngine(maxMessageRate=1)
        sid = self.joinPolling()
        self.assertEqual(self.post(sid, b"4" + b"\x1e4".join([b'2["a"]'] * 5)).answer.body, b"ok")
        first = self.post(sid, event(SECRET).encode())
        self.assertIsNone(first.response)
        self.assertRefused(self.post(sid, b"6"), 400, 3, "another POST")
        self.assertEqual(first.answer.body, b"ok")
        self.assertNotIn((SECRET,), self.heard)
        self.assertEqual(self.ends, ["transport error"])
        self.advance(10)

    # -- beside an upgrade -------------------------------------------------------------

    def test_POSTDuringAnUpgrade(self) -> None:
        """Until the upgrade is done, polling is where it talks."""
        sid = self.joinPolling()
        client = self.webSocket(sid)
        client.send("2probe")
        self.assertEqual(client.messages(), ["3probe"])
        self.assertEqual(self.post(sid, event("during").encode()).answer.status, 200)
        self.assertEqual(self.heard, [("during",)])
        client.send("5")
        client.send(event("after"))
        self.assertEqual(self.heard, [("during",), ("after",)])

    def test_POSTAfterAnUpgrade(self) -> None:
        sid = self.joinPolling()
        client = self.upgrade(sid)
        for exchange in (self.post(sid, event(SECRET).encode()), self.get(sid)):
            self.assertRefused(exchange, 400, 3, "moved to WebSocket")
        client.send(event("alive"))
        self.assertEqual(self.heard, [("alive",)])

    def test_messageBeforeTheUpgrade(self) -> None:
        """A candidate that talks before it has the session is dropped, and polling goes on."""
        for first in (event(SECRET), "2", "2other", "3probe", "6", "1", "0", "nonsense"):
            sid = self.joinPolling()
            client = self.webSocket(sid)
            client.send(first)
            self.assertClosed(client, 1000)
            self.assertEqual(self.post(sid, event("polling").encode()).answer.status, 200)
            self.assertEqual(self.heard.pop(), ("polling",))
        self.assertEqual(self.heard, [])
        self.assertEqual(self.ends, [])

    def test_probeNeverFinished(self) -> None:
        """After upgradeTimeout the candidate is closed; the session has not noticed."""
        sid = self.joinPolling()
        client = self.webSocket(sid)
        client.send("2probe")
        client.messages()
        self.advance(11)
        self.assertClosed(client, 1000)
        self.assertEqual(self.post(sid, event("polling").encode()).answer.status, 200)

    def test_twoProbesAtOnce(self) -> None:
        """The second is closed, the first may go on."""
        sid = self.joinPolling()
        first, second = self.webSocket(sid), self.webSocket(sid)
        self.assertClosed(second, 1000)
        first.send("2probe")
        self.assertEqual(first.messages(), ["3probe"])
        first.send("5")
        first.send(event("upgraded"))
        self.assertEqual(self.heard, [("upgraded",)])

    def test_upgradeFlood(self) -> None:
        """A thousand candidates for one session leave nothing behind."""
        sid = self.joinPolling()
        self.webSocket(sid)
        for _ in range(1000):
            self.assertClosed(self.webSocket(sid), 1000)
        self.assertEqual(len(self.engine.sessions), 2)

    # -- other people's sessions ---------------------------------------------------------

    def test_upgradeOfASessionOnWebSocket(self) -> None:
        """With another's sid nothing can be had of a session on WebSocket: it neither moves nor ends."""
        other = self.join()
        sid = self.session.sid
        self.assertClosed(self.webSocket(sid), 1000)
        self.assertRefused(self.get(sid), 400, 3, "moved to WebSocket")
        self.assertRefused(self.post(sid, b"1"), 400, 3, "moved to WebSocket")
        other.send(event("still here"))
        self.assertEqual(self.heard, [("still here",)])

    def test_upgradeWithAnotherProtocol(self) -> None:
        """The version of a session is that of its first request: an upgrade that says another is refused."""
        sid = self.joinPolling()
        for version in ("3", "5", "-1", "4.0", "99999999999"):
            response = self.webSocket(sid, EIO=version).response
            assert response is not None
            self.assertEqual(response.error[:2], (400, 3), version)
        client = self.webSocket(sid, EIO="")
        client.send("2probe")
        self.assertEqual(client.messages(), ["3probe"])

    def test_guessing(self) -> None:
        """
        A sid is 120 bits from the system's random source, so 2^60 guesses against a million sessions find one
        with a chance below one in a trillion; each guess is one refused request, and one line in the log.
        """
        sids = [self.openPolling() for _ in range(2000)]
        alphabet = set(string.ascii_letters + string.digits + "-_")
        self.assertEqual({len(sid) for sid in sids}, {20})
        self.assertEqual(set("".join(sids)), alphabet)
        self.assertEqual(len({sid[:8] for sid in sids}), 2000)
        # Each of 20 places takes each of 64 values: of 2000, none more than a few times as often as fair.
        for place in range(20):
            values = [sid[place] for sid in sids]
            self.assertLess(max(map(values.count, alphabet)), 100)

    def test_guessesLeaveNothing(self) -> None:
        for guess in ("x" * 20, "__proto__", "constructor", "\0", "x" * 8000, "../..", SECRET):
            self.assertRefused(self.get(guess), 400, 1, "Session ID unknown")
            response = self.webSocket(guess).response
            assert response is not None
            self.assertEqual(response.error[:2], (400, 1))
        self.assertEqual(len(self.engine.sessions), 1)

    # -- bodies ------------------------------------------------------------------------

    def test_wrongContentType(self) -> None:
        """
        Only a binary body says something else than text; it is answered, so the connection is not held.
        """
        for kind in ("text/html", "application/json", "application/x-www-form-urlencoded", ";;;", "\xff"):
            sid = self.joinPolling()
            exchange = self.post(sid, event("typed").encode(), headers={"Content-Type": kind})
            self.assertEqual(exchange.answer.body, b"ok")
            self.assertEqual(self.heard.pop(), ("typed",))
        sid = self.joinPolling()
        exchange = self.post(sid, SECRET.encode(), headers={"Content-Type": "application/octet-stream"})
        self.assertRefused(exchange, 400, 3, "binary body")
        self.assertEqual(self.ends, ["transport error"])

    def test_packets(self) -> None:
        """A body that is no packet: 400, nothing of it is heard, and the session ends as "parse error"."""
        for body in (
            b"",
            b"\x1e",
            b"4x\x1e",
            b"\x1e4x",
            b"4x\x1e\x1e4x",
            b"7",
            b"9x",
            b"x",
            b"\xff",
            b"b!!!!",
            b"bQUJDR",
            b"bQ UJD",
            b"b\xc3\xa9",
            b" 4x",
            "\uff14x".encode(),  # a digit, but not of ASCII
        ):
            sid = self.joinPolling()
            exchange = self.post(sid, body)
            self.assertRefused(exchange, 400, 3)
            self.assertEqual(self.ends, ["parse error"], body)
            self.ends.clear()

    def test_manyPackets(self) -> None:
        """Half a million packets in one body: linear in time, and in memory a multiple of the body's size."""
        costs = []
        for count in (20_000, 200_000):
            sid = self.joinPolling()
            body = b"\x1e".join([b"6"] * count)
            costs.append(callsOf(lambda sid=sid, body=body: self.post(sid, body)))  # type: ignore[misc]
        self.assertLess(costs[1] / costs[0], 10.5)
        sid = self.joinPolling()
        body = b"\x1e".join([b"6"] * 500_000)
        self.assertLess(peakOf(lambda: self.post(sid, body)), 80 * MB)
        self.assertEqual(self.post(sid, event("after").encode()).answer.body, b"ok")
        self.assertEqual(self.heard, [("after",)])

    def test_tooLarge(self) -> None:
        """413 when it has been announced, or has come; not buffered, and the session stays."""
        sid = self.joinPolling()
        link = Link().connect(self.site)
        url = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
        head = self.requestBytes("POST", url, {"Content-Length": "100000000"})

        def attack() -> None:
            link.deliver(head)
            for _ in range(100):
                link.deliver(b"x" * 65536)

        self.assertLess(peakOf(attack), 4 * MB)
        self.assertTrue(link.take().startswith(b"HTTP/1.1 413 "))
        self.assertEqual(self.ends, [])

    def test_chunksWithoutEnd(self) -> None:
        sid = self.joinPolling()
        link = Link().connect(self.site)
        url = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
        head = self.requestBytes("POST", url, {"Transfer-Encoding": "chunked"})

        def attack() -> None:
            link.deliver(head)
            for _ in range(100):
                link.deliver(b"10000\r\n" + b"x" * 65536 + b"\r\n")

        self.assertLess(peakOf(attack), 6 * MB)
        self.assertTrue(link.take().startswith(b"HTTP/1.1 413 "))
        self.assertTrue(link.disconnecting)
        self.assertEqual(self.ends, [])

    def test_lyingLength(self) -> None:
        """
        Too short: what is left over is the next request, and none.  Too long: it waits for the rest, in vain.
        """
        sid = self.joinPolling()
        url = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
        body = event(SECRET).encode()
        link = Link().connect(self.site)
        link.deliver(self.requestBytes("POST", url, {"Content-Length": str(len(body) - 3)}) + body)
        self.clock.advance(0)
        answers = link.take()
        self.assertTrue(answers.startswith(b"HTTP/1.1 200 OK"), answers)
        self.advance(1)
        link = Link().connect(self.site)
        link.deliver(self.requestBytes("POST", url, {"Content-Length": str(len(body) + 3)}) + body)
        self.advance(31)
        self.assertEqual(link.take(), b"")
        self.assertTrue(link.disconnecting)

    # -- heartbeats --------------------------------------------------------------------

    def test_pongsNobodyAskedFor(self) -> None:
        """They change nothing: no timer is added, and the next heartbeat comes when it would have."""
        sid = self.joinPolling()
        timers = len(self.clock.getDelayedCalls())
        for _ in range(50):
            self.assertEqual(self.post(sid, b"\x1e".join([b"3"] * 1000)).answer.body, b"ok")
        self.assertLessEqual(len(self.clock.getDelayedCalls()), timers + 50)  # idle connections
        poll = self.get(sid)
        self.advance(25)
        self.assertEqual(poll.payload, [b"2"])

    def test_pingOfAClient(self) -> None:
        """Protocol 4 has the server ask."""
        sid = self.joinPolling()
        self.assertEqual(self.post(sid, b"2").answer.body, b"ok")
        self.assertEqual(self.ends, ["transport error"])

    def test_openFromAClient(self) -> None:
        """Types that only a server sends mean nothing here."""
        sid = self.joinPolling()
        for body in (b"0{}", b"5", b"6" + SECRET.encode()):
            self.assertEqual(self.post(sid, body).answer.body, b"ok")
        self.assertEqual(self.ends, [])

    # -- JSONP -------------------------------------------------------------------------

    def test_jsonpIndex(self) -> None:
        """Digits, or 400: nothing of a query gets into a script."""
        for index in (
            "alert(1)",
            "1];alert(1);//",
            "</script>",
            "\r\nX: y",
            "-1",
            "1.5",
            "",
            "1 ",
            "\u0661",
            "9" * 2000,
        ):
            fields = {"j": index} if index else {"j": " "}
            answer = self.get(**fields).answer
            self.assertEqual(answer.status, 400, index)
            self.assertEqual(answer.headers["content-type"], "application/json")
            for part in (b"alert", b"script", b"X: y"):
                self.assertNotIn(part, answer.body)
        answer = self.get(j="7").answer
        self.assertTrue(re.fullmatch(rb'___eio\[7\]\("0\{.*\}"\);', answer.body), answer.body)


class LongWayPollingTests(PollingTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}
