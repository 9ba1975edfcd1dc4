"""
The lease: the fast path on a site of another kind, for requests with a session's secret only.
"""

from __future__ import annotations

import json

from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.memory import Link, WireTestCase, readResponse
from txrealtime.engineio.http.fastpath import EngineChannel
from txrealtime.engineio.http.resource import EngineResource

OTHER = b"GET /other HTTP/1.1\r\nHost: example.org\r\n\r\n"


class Other(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"the site's own"


class BorrowedTests(WireTestCase):
    """
    One connection to a `twisted.web` site with an engine.
    """

    def setUp(self) -> None:
        super().setUp()
        self.root.putChild(b"other", Other())
        self.link = Link().connect(self.site)
        self.sid = json.loads(self.ask(self.request("GET", ""))[1:])["sid"]

    def request(self, method: str, query: str, body: bytes = b"", headers: str = "") -> bytes:
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
        head = f"{method} /engine.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nHost: example.org\r\n"
        return (head + length + headers + "\r\n").encode() + body

    def get(self) -> bytes:
        return self.request("GET", f"&sid={self.sid}")

    def post(self, body: bytes) -> bytes:
        return self.request("POST", f"&sid={self.sid}", body)

    def ask(self, data: bytes) -> bytes:
        self.link.deliver(data)
        response, rest = readResponse(self.link.take())
        assert response is not None and not rest, "one answer"
        return response.body

    @property
    def isBorrowed(self) -> bool:
        return isinstance(self.link.protocol, EngineChannel)

    def test_pollsTakeTheFastPath(self) -> None:
        self.assertTrue(self.isBorrowed)
        self.assertEqual(self.ask(self.post(b"4hello")), b"ok")
        self.assertTrue(self.isBorrowed)
        self.owners[0].session.send("back")
        self.assertEqual(self.ask(self.get()), b"4back")
        self.assertEqual(self.owners[0].heard, ["hello"])

    def test_givenBack(self) -> None:
        """The site answers every other request, and the next poll takes the fast path again."""
        for _ in range(2):
            self.assertEqual(self.ask(OTHER), b"the site's own")
            self.assertFalse(self.isBorrowed)
            self.assertEqual(self.ask(self.post(b"4hello")), b"ok")
            self.assertTrue(self.isBorrowed)

    def test_newSessionsAreTheSites(self) -> None:
        """Resources before the engine see each request that opens a session or names an unknown one."""
        seen = []
        render = EngineResource.render
        self.patch(
            EngineResource, "render", lambda self, request: seen.append(request.uri) or render(self, request)
        )
        self.ask(self.request("GET", ""))
        self.ask(self.request("GET", "&sid=guessed"))
        self.ask(self.post(b"4hello"))
        self.assertEqual(len(seen), 2)

    def test_ofAnotherPath(self) -> None:
        elsewhere = self.post(b"4hello").replace(b"/engine.io/", b"/elsewhere/")
        self.assertIn(b"404", self.ask(elsewhere))
        self.assertEqual(self.owners[0].heard, [])

    def test_upgrade(self) -> None:
        self.link.deliver(
            f"GET /engine.io/?EIO=4&transport=websocket&sid={self.sid} HTTP/1.1\r\nHost: example.org\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.assertTrue(self.link.take().startswith(b"HTTP/1.1 101"))

    def test_pipelined(self) -> None:
        self.link.deliver(self.post(b"4a") + OTHER + self.post(b"4b"))
        answers = []
        for _ in range(5):
            self.clock.advance(0)
            self.link.turn()
            rest = self.link.take()
            while rest:
                response, rest = readResponse(rest)
                assert response is not None
                answers.append(response.body)
        self.assertEqual(answers, [b"ok", b"the site's own", b"ok"])
        self.assertEqual(self.owners[0].heard, ["a", "b"])

    def test_lostWhileAGETWaits(self) -> None:
        self.link.deliver(self.get())
        self.assertTrue(self.isBorrowed)
        self.link.lose()
        self.assertEqual([str(reason) for reason in self.owners[0].ends], ["transport error"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """An idle connection is dropped after the site's own timeout."""
        self.site.timeOut = 60
        self.link = Link().connect(self.site)
        self.ask(self.request("GET", ""))
        self.assertTrue(self.isBorrowed)
        self.clock.advance(59)
        self.assertFalse(self.link.disconnecting)
        self.clock.advance(1)
        self.assertTrue(self.link.disconnecting)

    def test_lastRequest(self) -> None:
        """A connection that closes after its request is not borrowed."""
        link = Link().connect(self.site)
        link.deliver(self.request("GET", "", headers="Connection: close\r\n"))
        self.assertNotIsInstance(link.protocol, EngineChannel)
