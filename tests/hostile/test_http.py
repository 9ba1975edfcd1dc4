"""
HTTP that means no good: slow, large, ambiguous, forged.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.hostile.means import SECRET, FullLink, HostileTestCase, callsOf, peakOf
from tests.memory import Link, WebSocket, readResponse
from txrealtime.engineio.http.site import EngineSite

KB = 1024

POLL = "/engine.io/?EIO=4&transport=polling"


class Page(Resource):
    """A resource of the application's, which notes who asks."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def render(self, request: Request) -> bytes:
        self.asked.append(request.uri)
        return b"page"


class HTTPTestCase(HostileTestCase):
    def makeEngine(self, allowRequest: Any = None, **settings: Any) -> None:
        super().makeEngine(allowRequest, **settings)
        self.page = Page()
        self.site = EngineSite(self.page, "/engine.io", self.engine, reactor=self.clock, timeout=60)

    def send(self, data: bytes) -> Link:
        link = Link().connect(self.site)
        link.deliver(data)
        self.clock.advance(0)
        return link

    def statuses(self, link: Link) -> list[int]:
        """The answers on a connection."""
        data, found = link.take(), []
        while data:
            # twisted.web's own refusals have no length.
            if data == b"HTTP/1.1 400 Bad Request\r\n\r\n":
                return [*found, 400]
            if data.startswith(b"HTTP/1.1 101 "):
                return [*found, 101]
            response, data = readResponse(data)
            assert response is not None
            found.append(response.status)
        return found


class HeadTests(HTTPTestCase):
    """The heads of requests."""

    def test_manyHeaders(self) -> None:
        """
        As many as maxHeaderSize has room for where the engine reads them itself, at most 500 where
        twisted.web does; the next is refused, 400.
        """
        for path in (POLL, "/page"):
            few = {f"X-{number}": "y" for number in range(400)}
            self.assertEqual(self.statuses(self.send(self.requestBytes("GET", path, few))), [200])
            many = {f"X-{number}": "y" for number in range(3000)}
            link = self.send(self.requestBytes("GET", path, many))
            self.assertEqual(self.statuses(link), [400])
            self.assertTrue(link.disconnecting)

    def test_manyHeadersOfAnUpgrade(self) -> None:
        """More than any other server counts to: it is answered, and nothing falls over."""
        for count in (100, 400, 2000, 3000):
            client = WebSocket(
                Link().connect(self.site), self.upgradeBytes(**{f"X{number}": "y" for number in range(count)})
            )
            data = client.link.value()
            self.assertIn(data[:12], (b"HTTP/1.1 101", b"HTTP/1.1 400", b"HTTP/1.1 431"), count)
            client.link.lose()

    def test_headWithoutEnd(self) -> None:
        """A head is refused at its limits, and whatever follows takes no memory."""
        for beginning in (b"GET / HTTP/1.1\r\nX: ", b"GET " + POLL.encode() + b" HTTP/1.1\r\nX: ", b"GET /"):
            for piece in (b"x" * 1000, b"\r\nX: y" * 100):
                link = Link().connect(self.site)

                def attack(link: Link = link, beginning: bytes = beginning, piece: bytes = piece) -> None:
                    link.deliver(beginning)
                    for _ in range(1000):
                        if not link.disconnecting:
                            link.deliver(piece)

                self.assertLess(peakOf(attack), 200 * KB)
                self.assertEqual(self.statuses(link), [431 if piece[:1] == b"x" else 400])
                self.advance(self.engine.settings.requestTimeout)
                self.assertTrue(link.disconnecting)

    def test_dribbledHead(self) -> None:
        """Byte by byte: what is read anew for each byte is bounded by the limit of a head."""
        head = self.requestBytes("GET", POLL, {"X": "x" * 8000})
        link = Link().connect(self.site)
        calls = callsOf(lambda: [link.deliver(head[at : at + 1]) for at in range(len(head))])
        self.assertLess(calls, 30 * len(head))
        self.assertEqual(self.statuses(link), [200])

    def test_thousandSlowConnections(self) -> None:
        """They cost a few kilobytes each, nobody is slower for them, and requestTimeout ends them all."""
        links = [Link(f"192.0.2.{number % 256}").connect(self.site) for number in range(1000)]

        def attack() -> None:
            for link in links:
                link.deliver(b"GET " + POLL.encode() + b" HTTP/1.1\r\nHost: x\r\nX: y")

        self.assertLess(peakOf(attack), 5000 * KB)
        for _ in range(29):
            self.advance(1)
            for link in links:
                link.deliver(b"y")
        self.assertBystander()
        self.assertFalse(any(link.disconnecting for link in links))
        self.advance(2)
        self.assertTrue(all(link.disconnecting for link in links))


class PipelineTests(HTTPTestCase):
    """One request behind the other."""

    def test_floodOfAClientThatReadsNothing(self) -> None:
        """Answers wait up to what TCP holds, and then requests are read no further."""
        for path in ("/engine.io/?EIO=4&transport=polling&sid=unknown", "/page"):
            link = FullLink()
            link.connect(self.site)
            link.stuck = True
            data = self.requestBytes("GET", path) * 100

            def attack(link: FullLink = link, data: bytes = data) -> None:
                for _ in range(2000):
                    link.deliver(data)
                    self.clock.pump([0] * 100)
                    if not link.reading:
                        break

            attack()
            self.assertFalse(link.reading, path)
            self.assertLess(link.waiting, 200 * KB, path)
            before = len(link.value())
            link.deliver(data)  # to a socket that nobody reads
            self.assertEqual(len(link.value()), before)
            link.unstick()
            self.clock.pump([0] * 3000)
            link.turn()
            self.clock.pump([0] * 3000)
            self.assertGreater(len(link.value()), before)
            self.assertTrue(link.reading, path)
            link.lose()
        self.assertBystander()

    def test_orderOfAnswers(self) -> None:
        """As asked for, also when the first takes its time."""
        sid = self.joinPolling()
        link = self.send(
            self.requestBytes("GET", f"{POLL}&sid={sid}")
            + self.requestBytes("GET", "/page")
            + self.requestBytes("GET", f"{POLL}&sid=unknown")
        )
        self.assertEqual((link.take(), self.page.asked), (b"", []))
        self.server.emit("there")
        for _ in range(5):
            self.clock.advance(0)
        self.assertEqual(self.statuses(link), [200, 200, 400])

    def test_behindAnUpgrade(self) -> None:
        """
        Bytes after an opening handshake are frames, and never a request: not behind one that was accepted,
        nor behind one that was refused.
        """
        second = self.requestBytes("GET", "/smuggled")
        for head, status in (
            (self.upgradeBytes(), 101),
            (self.upgradeBytes(Origin="https://evil.example"), 403),
            (self.upgradeBytes().replace(b"EIO=4", b"EIO=9"), 400),
            (self.upgradeBytes().replace(b"Version: 13", b"Version: 12"), 400),
            (self.upgradeBytes().replace(b"transport=websocket", b"transport=polling"), 400),
        ):
            for pieces in ([head + second], [head, second]):
                link = Link().connect(self.site)
                for piece in pieces:
                    link.deliver(piece)
                self.clock.advance(0)
                answer = link.take()
                self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer[:40])
                self.assertEqual(answer.count(b"HTTP/1.1"), 1)
                link.lose()
        self.assertEqual(self.page.asked, [])

    def test_behindAnUpgradeThatWaits(self) -> None:
        """Nor behind one on which the application still thinks."""
        wait: Deferred[bool] = Deferred()
        answers: list[Any] = [True]
        self.makeEngine(lambda handshake: answers.pop() if answers else wait)
        link = Link().connect(self.site)
        link.deliver(self.upgradeBytes() + self.requestBytes("GET", "/smuggled"))
        link.deliver(self.requestBytes("GET", "/smuggled"))
        wait.callback(False)
        self.clock.advance(0)
        link.turn()
        answer = link.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 "))
        self.assertEqual((answer.count(b"HTTP/1.1"), self.page.asked), (1, []))

    def test_upgradeWithABody(self) -> None:
        """A handshake has none; what it says is one is not taken for frames by one and a body by another."""
        for more in ({"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}):
            link = self.send(self.upgradeBytes(**more) + b"0\r\n\r\n" + self.requestBytes("GET", "/page"))
            self.assertIn(self.statuses(link), ([101], [400], [400, 200]), more)
            link.lose()
        self.assertLessEqual(len(self.page.asked), 1)

    def test_smuggling(self) -> None:
        """A request with two lengths, or with one that is no number: 400, and the connection ends."""
        sid = self.joinPolling()
        head = f"POST {POLL}&sid={sid} HTTP/1.1\r\nHost: example.org\r\n".encode()
        for lines in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length: 0x5\r\n",
            b"Content-Length: 5,5\r\n",
            b"Content-Length: -5\r\n",
            b"Content-Length: 5\x00\r\n",
            b"Content-Length : 5\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ):
            link = self.send(
                head + lines + b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: example.org\r\n\r\n"
            )
            self.assertEqual(self.statuses(link), [400], lines)
            self.assertTrue(link.disconnecting, lines)
        self.assertEqual((self.page.asked, self.ends), ([], []))

    def test_chunks(self) -> None:
        """Chunks that are none: 400."""
        sid = self.joinPolling()
        head = self.requestBytes("POST", f"{POLL}&sid={sid}", {"Transfer-Encoding": "chunked"})
        for chunk in (
            b"0x1\r\nx\r\n",
            b"+1\r\nx\r\n",
            b"\r\nx",
            b"1\nx\n",
            b"1;\n\r\nx\r\n",
            b"-1\r\n",
            b"g\r\n",
            b"1\r\nxy\r\n",
        ):
            link = self.send(head + chunk + b"0\r\n\r\n" + self.requestBytes("GET", "/smuggled"))
            self.assertEqual(self.statuses(link), [400], chunk)
        self.assertEqual(self.page.asked, [])


class HeaderTests(HTTPTestCase):
    """Hostile values of headers."""

    def test_notASCII(self) -> None:
        """Protocols and extensions in other letters: answered, and none of them comes back."""
        for name in ("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"):
            for value in (
                "\xe9",
                "\xff\xfe",
                "chat, \xe9",
                "permessage-deflate; \xe9=1",
                "a" * 5000,
                ",,,",
                "b" + " " * 8000 + "x",
            ):
                client = WebSocket(Link().connect(self.site), self.upgradeBytes(**{name: value}))
                response = client.response
                assert response is not None
                self.assertIn(response.status, (101, 400), (name, value[:20]))
                if response.status == 101:
                    # Of protocols the first that is a name is chosen; of extensions none.
                    chosen = response.headers.get(name.lower(), "chat")
                    self.assertIn(chosen, ("chat", "a" * 5000), (name, value[:20]))
                client.link.lose()

    def test_keys(self) -> None:
        """A bad header of an opening handshake: 400, with a body that quotes nothing."""
        for headers in (
            {"Sec-WebSocket-Key": SECRET},
            {"Sec-WebSocket-Key": "\xe9" * 24},
            {"Sec-WebSocket-Version": SECRET},
            {"Sec-WebSocket-Version": "99999999999999999999"},
        ):
            client = WebSocket(Link().connect(self.site), self.upgradeBytes(**headers))
            response = client.response
            assert response is not None
            self.assertEqual(response.status, 400)
            self.assertNotIn(SECRET.encode(), response.body)
        without = self.upgradeBytes().replace(b"Sec-WebSocket-Key", b"X")
        client = WebSocket(Link().connect(self.site), without)
        assert client.response is not None
        self.assertEqual(client.response.status, 400)

    def test_nothingIsReflectedUnchecked(self) -> None:
        """A header that is sent back was a header: its value has no line end, and makes none."""
        self.makeEngine(origins="*", cookie="io")
        for bad in (
            "a\r\nX-Injected: 1",
            "a\nX-Injected: 1",
            "a\rX-Injected: 1",
            "a%0d%0aX-Injected:%201",
            "a\0b",
        ):
            for name in (
                "Origin",
                "Access-Control-Request-Headers",
                "Host",
                "Cookie",
                "X-Forwarded-For",
                "Referer",
            ):
                for method in ("GET", "OPTIONS"):
                    data = self.requestBytes(method, POLL, {name: bad})
                    answer = self.send(data).take()
                    head = answer.partition(b"\r\n\r\n")[0]
                    self.assertNotIn(b"\nX-Injected", head.replace(b"\r", b"\n"), (name, bad))
            for field in ("sid", "EIO", "transport", "t", "j"):
                answer = self.send(self.requestBytes("GET", f"{POLL}&{field}={bad.replace(' ', '')}")).take()
                head = answer.partition(b"\r\n\r\n")[0]
                self.assertNotIn(b"X-Injected", head, (field, bad))

    def test_refusalsAreJSON(self) -> None:
        """A refusal quotes a request inside a JSON string, never in a page."""
        self.makeEngine()
        markup = "<script>alert(1)</script>"
        for exchange in (
            self.get(EIO=markup),
            self.get(transport=markup),
            self.get(sid=markup),
            self.get(headers={"Origin": f"https://{markup}"}),
            self.request(markup.replace("/", "x").replace("(", "").replace(")", "")),
        ):
            answer = exchange.answer
            if answer.headers.get("content-type") == "application/json":
                json.loads(answer.body)
            else:
                self.assertNotIn(b"<script>", answer.body)

    def test_host(self) -> None:
        """A Host that is none makes no origin of ours."""
        for host in ("", "evil.example@example.org", "a b", "\xe9", "[", "x" * 5000, "example.org:99999999"):
            answer = self.get(headers={"Host": host, "Origin": "https://evil.example"}).answer
            self.assertIn(answer.status, (400, 403))


class OriginTests(HTTPTestCase):
    """Cross-site hijacking: the same for both transports, before a session is made."""

    def statusesFor(self, headers: dict[str, str], address: str = "192.0.2.7") -> set[int]:
        polling = self.get(headers=headers, address=address).answer
        response = self.webSocket(headers=headers, address=address).response
        assert response is not None
        if polling.status == 403:
            self.assertNotIn("access-control-allow-origin", polling.headers)
        return {polling.status, response.status}

    def test_origins(self) -> None:
        own = {"Host": "example.org"}
        for origin, statuses in (
            ("http://example.org", {200, 101}),
            ("http://EXAMPLE.org:80", {200, 101}),
            ("https://example.org", {403}),
            ("https://evil.example", {403}),
            ("http://example.org.evil.example", {403}),
            ("http://evil-example.org", {403}),
            ("http://sub.example.org", {403}),
            ("http://example.org:8080", {403}),
            ("http://example.org@evil.example", {403}),
            ("http://evil.example#example.org", {403}),
            ("http://evil.example/example.org", {403}),
            ("http://example.org%2eevil.example", {403}),
            ("null", {403}),
            ("file://", {403}),
            ("http://", {403}),
            ("http://[::1", {403}),
            ("\xe9", {403}),
            ("http://example.org, http://evil.example", {403}),
        ):
            # What is no origin at all, Autobahn finds no request.
            self.assertLessEqual(self.statusesFor({**own, "Origin": origin}) - {400}, statuses, origin)

    def test_missing(self) -> None:
        """Only browsers send one, and they always do where it matters: without, it is no browser's page."""
        self.assertEqual(self.statusesFor({"Host": "example.org"}), {200, 101})

    def test_nullIsForWhoAsksForIt(self) -> None:
        self.makeEngine(origins="null")
        self.assertEqual(self.statusesFor({"Origin": "null"}), {200, 101})
        self.assertEqual(self.statusesFor({"Origin": "https://evil.example"}), {403})

    def test_forwardedByAnybody(self) -> None:
        """A client that is no trusted proxy can choose neither our own origin nor an address."""
        self.makeEngine(trustedProxies="10.0.0.1")
        spoof = {
            "Origin": "https://evil.example",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "203.0.113.9",
            "Forwarded": "for=203.0.113.9;host=evil.example;proto=https",
        }
        self.assertEqual(self.statusesFor(spoof), {403})
        self.assertIn("refused 192.0.2.7: 403", self.log)
        self.assertNotIn("203.0.113.9", self.log)

    def test_forwardedThroughAProxy(self) -> None:
        """The part of X-Forwarded-For that a client wrote before the proxy is not believed."""
        self.makeEngine(trustedProxies="10.0.0.1")
        headers = {"Origin": "https://evil.example", "X-Forwarded-For": "10.0.0.1, 203.0.113.9, 192.0.2.66"}
        self.assertEqual(self.statusesFor(headers, "10.0.0.1"), {403})
        self.assertIn("refused 192.0.2.66: 403", self.log)

    def test_upgradeFromAnotherOrigin(self) -> None:
        """A sid does not open a foreign page's WebSocket."""
        sid = self.joinPolling()
        response = self.webSocket(sid, headers={"Origin": "https://evil.example"}).response
        assert response is not None
        self.assertEqual(response.status, 403)

    def test_manyOriginsLeaveNothing(self) -> None:
        def attack(start: int) -> None:
            for number in range(start, start + 200):
                link = Link().connect(self.site)
                link.deliver(self.requestBytes("GET", POLL, {"Origin": f"https://{number}.evil.example"}))
                link.lose()

        attack(0)
        self.logged.clear()
        self.assertLess(callsOf(lambda: attack(200)), 200 * 3000)
        self.assertEqual(len(self.engine.sessions), 1)


class LongWayHeadTests(HeadTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}


class LongWayPipelineTests(PipelineTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}


class LongWayHeaderTests(HeaderTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}


class LongWayOriginTests(OriginTests):
    settings: ClassVar[dict[str, Any]] = {"shortWays": False}
